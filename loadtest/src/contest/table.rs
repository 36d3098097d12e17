//! The lines of a contest for people.

use super::{Case, Line, Rules, Spread};
use crate::load::Pace;

/// Prints what the contestants of one or more sizes did at one pace.
pub(crate) fn print(pace: Pace, rules: &Rules, sizes: &[Case], lines: &[Line]) {
    let grows = lines.iter().any(|line| line.growth.is_some());
    for (group, case) in sizes.iter().enumerate() {
        say!(
            "{}; {} rounds of {} ms; CPU of the server, ns each",
            case.name(pace),
            lines.first().map_or(0, |line| line.rounds),
            rules.slice
        );
        head(grows);
        lines.iter().filter(|line| line.group == group).for_each(|line| row(line, grows));
        say!("");
    }
    let saturated = lines.iter().filter(|line| line.generator_share > crate::report::SATURATED);
    for line in saturated {
        say!("{}: the generator was saturated, rate and latencies are its own", line.name);
    }
}

fn head(grows: bool) {
    say_some!(
        "{:36} {:>7} {:>15} {:>20} {:>6} {:>6} {:>6} {:>10} {:>6} {:>15} {:>13} {:>20} {:>5} {:>5}",
        "",
        "median",
        "(p10..p90)",
        "ratio to the floor",
        "user",
        "system",
        "ksoft",
        "per second",
        "/read",
        "p50/p99 us",
        "last p99 us",
        "ratio to the floor",
        "srv%",
        "gen%"
    );
    say!("{}", if grows { format!(" {:>20}", "ratio to the first") } else { String::new() });
}

fn row(line: &Line, grows: bool) {
    let ns = line.ns;
    say_some!(
        "{:30} {:>7.0} {:>15} {:>20} {:>6.0} {:>6.0} {:>6.0} {:>10.0} {:>6.1} {:>15} {:>13} {:>20} {:>5.0} {:>5.0}",
        line.name,
        ns.median,
        format!("({:.0}..{:.0})", ns.p10, ns.p90),
        spread(Some(line.ratio)),
        line.user_ns,
        line.system_ns,
        line.softirq_ns,
        line.per_second,
        line.per_read,
        format!("{}/{}", line.latency.p50_us, line.latency.p99_us),
        line.last_recipient.map_or_else(|| "-".to_owned(), |last| last.p99_us.to_string()),
        spread(line.last_ratio),
        line.server_share * 100.0,
        line.generator_share * 100.0,
    );
    say!("{}", if grows { format!(" {:>20}", spread(line.growth)) } else { String::new() });
}

fn spread(of: Option<Spread>) -> String {
    of.map_or_else(
        || "-".to_owned(),
        |Spread { p10, median, p90 }| format!("{median:.3} ({p10:.2}..{p90:.2})"),
    )
}
