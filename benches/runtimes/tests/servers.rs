//! Every server here, as its clients see it: whole, in order, and to those who read late too.
//!
//! What the kernel refuses is left out and said, unless `STENTOR_TESTS_REQUIRE_URING` is set.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use stentor::bench::{self, Kernel};

const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
const UPGRADE: &str = "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: here\r\n\
    Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
/// How long a client waits for what it is owed.
const PATIENCE: Duration = Duration::from_secs(30);

struct Server {
    child: Child,
    address: String,
}

impl Server {
    fn start(arguments: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_runtimes"))
            .args(arguments)
            .env("PORT", "0")
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program is built");
        let mut line = String::new();
        let output = child.stdout.take().expect("piped above");
        BufReader::new(output).read_line(&mut line).expect("a first line");
        let address = line.trim().strip_prefix("listening on http://").map(str::to_owned);
        let Some(address) = address else { panic!("it said {line:?}") };
        Self { child, address }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().expect("it still runs");
        self.child.wait().expect("it was started here");
    }
}

struct Client(TcpStream);

impl Client {
    fn join(server: &Server) -> Self {
        let stream = TcpStream::connect(&server.address).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a duration");
        let mut client = Self(stream);
        client.0.write_all(UPGRADE.as_bytes()).expect("it reads");
        client.say("40");
        client.say("42100000[\"join\",[\"all\"]]");
        let (mut heard, mut byte) = (Vec::new(), [0]);
        while !heard.ends_with(b"43100000[]") {
            assert!(heard.len() < 1000, "{}", String::from_utf8_lossy(&heard));
            client.0.read_exact(&mut byte).expect("an answer");
            heard.extend(byte);
        }
        client
    }

    fn say(&mut self, text: &str) {
        self.0.write_all(&bench::masked_frame(text.as_bytes(), KEY)).expect("it reads");
    }

    fn hear(&mut self, wanted: &[u8]) {
        let mut heard = vec![0; wanted.len()];
        self.0.read_exact(&mut heard).expect("what it is owed");
        assert!(heard == wanted, "other bytes than those that were published");
    }
}

/// A number of broadcasts with long texts, as a client says them and as all hear them.
fn broadcasts(count: usize, len: usize) -> (Vec<String>, Vec<u8>) {
    let text = "x".repeat(len);
    let mut heard = Vec::new();
    let say = |number| {
        let tick = format!("42[\"tick\",{number},\"{text}\"]");
        bench::encode_frame(&mut heard, tick.as_bytes());
        format!("42[\"publish\",{number},\"{text}\"]")
    };
    ((0..count).map(say).collect(), heard)
}

fn serves(arguments: &[&str]) {
    let server = Server::start(arguments);
    let mut clients: Vec<Client> = (0..5).map(|_| Client::join(&server)).collect();
    let (said, heard) = broadcasts(50, 20);
    for text in &said {
        clients[0].say(text);
    }
    clients.iter_mut().for_each(|client| client.hear(&heard));
    clients[1].say("427[\"echo\",\"hello\"]");
    let mut answer = Vec::new();
    bench::encode_frame(&mut answer, b"437[\"hello\"]");
    clients[1].hear(&answer);

    // Those who went are not missed, and those who read late miss nothing: more than the kernel
    // takes for them is published before they read.
    clients.pop();
    let (said, heard) = broadcasts(200, 100_000);
    let (mut first, late) = (clients.remove(0), clients);
    let mut own = first.0.try_clone().map(Client).expect("a second handle");
    std::thread::scope(|scope| {
        scope.spawn(|| own.hear(&heard));
        said.iter().for_each(|text| first.say(text));
    });
    for mut client in late {
        client.hear(&heard);
    }
}

/// Whether there is io_uring here.
fn ring() -> bool {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
    let runtime = runtime.expect("a runtime");
    let listener = bench::listen(0, 16).expect("a free port");
    let Err(error) = runtime.block_on(async { Kernel::uring(listener) }) else { return true };
    assert!(std::env::var_os("STENTOR_TESTS_REQUIRE_URING").is_none(), "no io_uring: {error}");
    eprintln!("left out, there is no io_uring here: {error}");
    false
}

#[test]
fn tokio_serves() {
    serves(&["tokio"]);
    serves(&["tokio", "--sends", "single"]);
}

#[test]
fn lean_tokio_serves() {
    serves(&["tokio-lean"]);
}

#[test]
fn monoio_serves() {
    if ring() {
        serves(&["monoio"]);
        serves(&["monoio", "--sends", "single"]);
    }
}

#[test]
fn tokio_uring_serves() {
    if ring() {
        serves(&["tokio-uring"]);
        serves(&["tokio-uring", "--sends", "single"]);
    }
}

#[test]
fn both_drivers_serve() {
    serves(&["driver-mio"]);
    if ring() {
        serves(&["driver-uring"]);
    }
}
