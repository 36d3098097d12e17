//! The chat example in a real browser: two tabs of headless Chromium, driven by
//! `tests/js/chat.mjs`. The screenshots are kept in `tests/out`.

#[path = "support/tools.rs"]
mod tools;

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// The example as a process; killed when the test ends.
struct Example(Child);

impl Drop for Example {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Cargo builds the examples before it runs the tests, into the folder above the tests' own.
fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a running test has a path");
    let profile = test.parent().and_then(|deps| deps.parent()).expect("target/<profile>/deps");
    profile.join("examples").join(name)
}

#[test]
fn two_tabs_chat() {
    let (Some(node), Some(chromium)) = (tools::node(), tools::chromium()) else {
        return tools::leave_out("the chat page in Chromium");
    };
    let binary = example("chat");
    if !binary.is_file() {
        // `cargo test --test chat_page` alone does not build examples.
        return tools::leave_out("the chat page: build it with cargo build --example chat");
    }
    let js = tools::tests_dir().join("js");
    let mut server = Command::new(binary)
        .env("PORT", "0")
        .env("STENTOR_CLIENT_DIR", js.join("node_modules/sio48/dist"))
        .stdout(Stdio::piped())
        .spawn()
        .map(Example)
        .expect("the example starts");
    let stdout = server.0.stdout.take().expect("piped");
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line).expect("one line of text");
    let url =
        line.split_whitespace().find(|word| word.starts_with("http://")).expect("its address");

    let mut command = Command::new(node);
    command
        .args(["chat.mjs", url])
        .arg(tools::tests_dir().join("out"))
        .env("CHROMIUM", chromium)
        .current_dir(js);
    tools::run("the chat page", &mut command, Duration::from_secs(120));
}
