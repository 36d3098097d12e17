//! The page of a run: one file, no script, plots as inline SVG, readable in light and dark.

use std::fmt::Write;

use super::Report;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 240.0;
const LEFT: f64 = 64.0;
const BOTTOM: f64 = 28.0;
/// Series colours, told apart without colour vision too.
const COLOURS: [&str; 4] = ["#2563eb", "#d97706", "#0d9488", "#9333ea"];

const STYLE: &str = "
body{font:16px/1.5 system-ui,sans-serif;max-width:720px;margin:2rem auto;padding:0 1rem;
background:#fff;color:#1b1f24}
h1{font-size:1.4rem}h2{font-size:1.1rem;margin-top:2rem}
table{border-collapse:collapse;margin-bottom:1rem}
td,th{padding:.2rem .8rem .2rem 0;text-align:right}
td:first-child,th:first-child{text-align:left}svg{width:100%;height:auto}
svg text{font-size:11px;fill:currentColor}.grid{stroke:currentColor;stroke-opacity:.15}
pre{overflow:auto;font-size:12px}.warn{color:#b45309}
@media(prefers-color-scheme:dark){body{background:#14171a;color:#e6e8ea}.warn{color:#f59e0b}}";

/// A line to draw.
struct Line<'a> {
    name: &'a str,
    points: Vec<(f64, f64)>,
}

pub(super) fn page(report: &Report) -> Result<String, serde_json::Error> {
    let mut out = String::new();
    let title = format!("{} of {}", report.command, escape(&report.url));
    let _ = write!(
        out,
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width\"><title>{title}</title><style>{STYLE}</style>\
         <h1>{title}</h1><p>{} clients by {}, {} B, {}; {:.1} s{}.</p>",
        report.clients,
        report.transport,
        report.payload_bytes,
        escape(&report.pace),
        report.seconds,
        if report.interrupted { ", interrupted" } else { "" },
    );
    if report.generator.is_saturated() {
        out.push_str("<p class=warn>The generator was saturated: the server may be faster.</p>");
    }
    table(&mut out, report);
    out.push_str("<h2>Latency, microseconds, by share of messages</h2>");
    let curves = report.latencies.iter().map(|latency| {
        // Each nine takes the same room.
        let nines = |share: f64| (-(1.0 - share.min(0.999_99)).log10()).min(5.0);
        let point = |&(share, us): &(f64, u64)| (nines(share), us.max(1) as f64);
        Line { name: latency.name, points: latency.curve.iter().map(point).collect() }
    });
    plot(&mut out, &curves.collect::<Vec<_>>(), Scale::Logarithmic, |x| match x {
        0.0 => "0".to_owned(),
        // Three decimals are enough for five nines, and rounded zeros say nothing.
        x => {
            let share = format!("{:.3}", (1.0 - 10_f64.powf(-x)) * 100.0);
            format!("{} %", share.trim_end_matches('0').trim_end_matches('.'))
        }
    });
    out.push_str("<h2>CPU, cores</h2>");
    let line = |name, pick: fn(&super::Sample) -> f64| Line {
        name,
        points: report.series.iter().map(|sample| (sample.at, pick(sample))).collect(),
    };
    let mut lines = vec![line("generator", |sample| sample.generator_share)];
    if report.server.is_some() {
        lines.insert(0, line("server", |sample| sample.server_share));
    }
    plot(&mut out, &lines, Scale::Linear, |x| format!("{x} s"));
    out.push_str("<h2>Messages a second</h2>");
    let rate = [line("messages", |sample| sample.per_second)];
    plot(&mut out, &rate, Scale::Linear, |x| format!("{x} s"));
    let json = serde_json::to_string(report)?;
    let _ = write!(out, "<details><summary>JSON</summary><pre>{}</pre></details>", escape(&json));
    Ok(out)
}

fn table(out: &mut String, report: &Report) {
    out.push_str("<table><tr><th>us<th>p50<th>p90<th>p99<th>p99.9<th>max");
    for latency in &report.latencies {
        let it = latency.percentiles;
        let _ = write!(
            out,
            "<tr><td>{}<td>{}<td>{}<td>{}<td>{}<td>{}",
            latency.name, it.p50_us, it.p90_us, it.p99_us, it.p999_us, it.max_us
        );
    }
    out.push_str("</table><table>");
    let mut row = |name: &str, value: String| {
        let _ = write!(out, "<tr><td>{name}<td>{value}");
    };
    if report.deliveries > 0 {
        row("deliveries a second", format!("{:.0}", report.deliveries_per_second));
    }
    if report.echoes > 0 {
        row("echoes a second", format!("{:.0}", report.echoes_per_second));
    }
    row("generator, cores", format!("{:.2}", report.generator.generator_share));
    row("generator, B per client", format!("{:.0}", report.generator.generator_bytes_per_client));
    if let Some(server) = &report.server {
        row("server, cores", format!("{:.2}", server.cores));
        row("server, ns each", format!("{:.0}", server.ns_per_operation));
        row("of that user", format!("{:.0}", server.user_ns_per_operation));
        row("server, MiB", format!("{:.1}", server.memory_bytes as f64 / f64::from(1 << 20)));
    }
    out.push_str("</table>");
}

#[derive(Clone, Copy, PartialEq)]
enum Scale {
    Linear,
    Logarithmic,
}

fn plot(out: &mut String, lines: &[Line<'_>], scale: Scale, label: impl Fn(f64) -> String) {
    let value = |y: f64| if scale == Scale::Logarithmic { y.log10() } else { y };
    let all = || lines.iter().flat_map(|line| &line.points);
    let most_x = all().map(|point| point.0).fold(0.0, f64::max).max(1e-3);
    let most_x = if scale == Scale::Logarithmic { most_x.ceil() } else { most_x };
    let top = all().map(|point| value(point.1)).fold(f64::EPSILON, f64::max);
    let top = match scale {
        Scale::Logarithmic => top.ceil().max(1.0),
        Scale::Linear => (top / step(top)).ceil() * step(top),
    };
    let x = |at: f64| LEFT + at / most_x * (WIDTH - LEFT);
    let y = |at: f64| (HEIGHT - BOTTOM) * (1.0 - value(at).max(0.0) / top);
    let _ = write!(out, "<svg viewBox=\"0 -12 {} {}\" role=\"img\">", WIDTH + 36.0, HEIGHT + 36.0);
    for at in marks(scale, top) {
        let at = if scale == Scale::Logarithmic { 10_f64.powf(at) } else { at };
        let _ = write!(
            out,
            "<line class=grid x1={LEFT} x2={WIDTH} y1={0:.1} y2={0:.1} /><text x={1} y={2:.1} \
             text-anchor=end>{3}</text>",
            y(at),
            LEFT - 6.0,
            y(at) + 4.0,
            number(at)
        );
    }
    for at in marks(scale, most_x) {
        let (px, py) = (x(at), HEIGHT - 10.0);
        let _ = write!(out, "<text x={px:.1} y={py} text-anchor=middle>{}</text>", label(at));
    }
    for (index, line) in lines.iter().enumerate() {
        let colour = COLOURS[index % COLOURS.len()];
        let dash = ["", "6 3", "2 3", "8 2 2 2"][index % 4];
        let points = line.points.iter().map(|point| format!("{:.1},{:.1}", x(point.0), y(point.1)));
        let points = points.collect::<Vec<_>>().join(" ");
        let _ = write!(
            out,
            "<polyline fill=none stroke={colour} stroke-width=2 stroke-dasharray=\"{dash}\" \
             points=\"{points}\" /><text x={} y={} style=\"fill:{colour}\">{}</text>",
            LEFT + 10.0 + 140.0 * index as f64,
            HEIGHT + 12.0,
            escape(line.name)
        );
    }
    out.push_str("</svg>");
}

/// The marks of an axis from 0 to `most`: whole ones where it counts nines or powers.
fn marks(scale: Scale, most: f64) -> impl Iterator<Item = f64> {
    let step = if scale == Scale::Logarithmic { 1.0 } else { step(most) };
    // Without the last digits of sums like 0.1 + 0.2.
    (0..=(most / step + 1e-6) as u32).map(move |mark| (f64::from(mark) * step * 1e9).round() / 1e9)
}

/// 1, 2 or 5 times a power of ten, three to six of which make up `most`.
fn step(most: f64) -> f64 {
    let least = most / 6.0;
    let power = 10_f64.powf(least.log10().floor());
    [1.0, 2.0, 5.0].map(|it| it * power).into_iter().find(|it| *it >= least).unwrap_or(10.0 * power)
}

fn number(value: f64) -> String {
    match value {
        0.0 => "0".to_owned(),
        value if value < 10.0 => format!("{value:.2}"),
        value if value < 10_000.0 => format!("{value:.0}"),
        value if value < 1e6 => format!("{:.0}k", value / 1e3),
        value => format!("{:.1}M", value / 1e6),
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::{Pace, Plan, Window};

    #[test]
    fn axes_are_marked_with_round_numbers() {
        let marks = |scale, most| marks(scale, most).collect::<Vec<_>>();
        assert_eq!(marks(Scale::Linear, 2.02), [0.0, 0.5, 1.0, 1.5, 2.0]);
        assert_eq!(marks(Scale::Linear, 0.6), [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6]);
        assert_eq!(marks(Scale::Linear, 18_000.0), [0.0, 5_000.0, 10_000.0, 15_000.0]);
        assert_eq!(marks(Scale::Logarithmic, 3.0), [0.0, 1.0, 2.0, 3.0]);
        for most in [1e-3, 0.07, 1.0, 86_400.0, 3e7] {
            assert!((4..=7).contains(&marks(Scale::Linear, most).len()), "{most}");
        }
        assert!(marks(Scale::Linear, f64::EPSILON).len() < 10);
    }

    #[test]
    fn a_page_holds_its_plots_and_nothing_from_elsewhere() {
        let mut window = Window::default();
        for us in 1..2_000_u64 {
            window.latency.record(us * 1_000);
        }
        let plan = Plan::fanout(10, 64, Pace::Window(1));
        let report = Report::new("fanout", "http://a/<b>", &plan, 1.0, &window);
        let page = page(&report).unwrap();
        assert!(page.contains("<polyline") && page.contains("&lt;b>"));
        assert!(!page.contains("src=") && !page.contains("NaN"));
    }
}
