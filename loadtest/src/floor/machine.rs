//! The floor's idea of a connection: bytes in, prebuilt bytes out. Both loops share it.

use crate::wire::{self, Payloads};

/// One connection.
#[derive(Debug, Default)]
pub(super) struct Connection {
    upgraded: bool,
    /// A frame or head that has not come whole.
    partial: Vec<u8>,
    /// Whether it gets broadcasts.
    pub(super) joined: bool,
    /// What its socket did not take; while it is not empty, everything goes here.
    pub(super) backlog: Vec<u8>,
}

/// Knows the lengths and the answers.
pub(super) struct Machine {
    payloads: Payloads,
    connect_bytes: usize,
    publish_bytes: usize,
    echo_bytes: usize,
    /// Where the number begins in a client's `publish` and in our `tick`, and the same for `echo`.
    publish_at: usize,
    tick_at: usize,
    echo_at: usize,
    answer_at: usize,
    tick: Vec<u8>,
    answer: Vec<u8>,
    welcome: Vec<u8>,
    connected: Vec<u8>,
    /// The broadcasts of this turn, and how long each is.
    pub(super) batch: Vec<u8>,
    pub(super) frame_bytes: usize,
}

/// What the client sent was none of the contract's frames.
pub(super) struct Unknown;

impl Machine {
    pub(super) fn new(payload: usize) -> Self {
        let payloads = Payloads::new(payload);
        let (mut publish, mut echo, mut connect) = (Vec::new(), Vec::new(), Vec::new());
        wire::publish(&mut publish, wire::FIRST_SEQUENCE, payloads.get(0));
        wire::echo(&mut echo, wire::FIRST_ACK, payloads.get(0));
        wire::client_frame(&mut connect, b"40");
        let mut tick = Vec::new();
        wire::server_frame(&mut tick, &wire::tick(wire::FIRST_SEQUENCE, payloads.get(0)));
        let mut answer = Vec::new();
        wire::server_frame(&mut answer, &wire::answer(wire::FIRST_ACK, payloads.get(0)));
        let mut welcome = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {}\r\n\r\n",
            wire::ACCEPT
        )
        .into_bytes();
        wire::server_frame(
            &mut welcome,
            b"0{\"sid\":\"AAAAAAAAAAAAAAAAAAAA\",\"upgrades\":[],\"pingInterval\":25000,\
              \"pingTimeout\":20000,\"maxPayload\":1000000}",
        );
        let mut connected = Vec::new();
        wire::server_frame(&mut connected, b"40{\"sid\":\"BBBBBBBBBBBBBBBBBBBB\"}");
        Self {
            connect_bytes: connect.len(),
            publish_at: body(&publish) + b"42[\"publish\",".len(),
            tick_at: body(&tick) + b"42[\"tick\",".len(),
            echo_at: body(&echo) + b"42".len(),
            answer_at: body(&answer) + b"43".len(),
            publish_bytes: publish.len(),
            echo_bytes: echo.len(),
            frame_bytes: tick.len(),
            payloads,
            tick,
            answer,
            welcome,
            connected,
            batch: Vec::new(),
        }
    }

    /// Takes what came; answers go to `reply`, broadcasts to the batch.
    pub(super) fn input(
        &mut self,
        connection: &mut Connection,
        bytes: &[u8],
        reply: &mut Vec<u8>,
    ) -> Result<(), Unknown> {
        if connection.partial.is_empty() {
            let used = self.take(connection, bytes, reply)?;
            connection.partial.extend_from_slice(&bytes[used..]);
        } else {
            let mut kept = std::mem::take(&mut connection.partial);
            kept.extend_from_slice(bytes);
            let used = self.take(connection, &kept, reply)?;
            kept.drain(..used);
            connection.partial = kept;
        }
        Ok(())
    }

    fn take(
        &mut self,
        connection: &mut Connection,
        bytes: &[u8],
        reply: &mut Vec<u8>,
    ) -> Result<usize, Unknown> {
        let mut at = 0;
        if !connection.upgraded {
            let Some(end) = memchr::memmem::find(bytes, b"\r\n\r\n") else { return Ok(0) };
            connection.upgraded = true;
            reply.extend_from_slice(&self.welcome);
            at = end + 4;
        }
        while let Some(frame) = wire::frame(&bytes[at..]).map_err(|_| Unknown)? {
            self.frame(connection, &bytes[at..at + frame.end], frame.mask, reply)?;
            at += frame.end;
        }
        Ok(at)
    }

    #[inline]
    fn frame(
        &mut self,
        connection: &mut Connection,
        frame: &[u8],
        mask: Option<[u8; 4]>,
        reply: &mut Vec<u8>,
    ) -> Result<(), Unknown> {
        let mask = mask.ok_or(Unknown)?;
        if frame.len() == self.publish_bytes {
            let number = unmask::<10>(frame, self.publish_at, mask)?;
            patch(&mut self.tick, self.tick_at, &number, &self.payloads)?;
            self.batch.extend_from_slice(&self.tick);
        } else if frame.len() == self.echo_bytes {
            let number = unmask::<6>(frame, self.echo_at, mask)?;
            patch(&mut self.answer, self.answer_at, &number, &self.payloads)?;
            reply.extend_from_slice(&self.answer);
        } else if frame.len() == self.connect_bytes {
            reply.extend_from_slice(&self.connected);
        } else {
            // Whatever else it is, it is `join`.
            connection.joined = true;
            wire::server_frame(reply, format!("43{}[]", wire::FIRST_ACK).as_bytes());
        }
        Ok(())
    }
}

/// Where a frame's payload begins.
fn body(frame: &[u8]) -> usize {
    wire::frame(frame).ok().flatten().map_or(0, |frame| frame.start)
}

/// The digits at `at`, which the client has masked.
fn unmask<const N: usize>(frame: &[u8], at: usize, mask: [u8; 4]) -> Result<[u8; N], Unknown> {
    let start = body_of(frame);
    let mut digits = [0; N];
    let masked = frame.get(at..at + N).ok_or(Unknown)?;
    for (index, (digit, byte)) in digits.iter_mut().zip(masked).enumerate() {
        *digit = byte ^ mask[(at - start + index) % 4];
    }
    Ok(digits)
}

/// The length of a masked frame's head.
fn body_of(frame: &[u8]) -> usize {
    match frame[1] & 0x7f {
        126 => 8,
        127 => 14,
        _ => 6,
    }
}

/// Writes the number and its text into a prebuilt frame.
fn patch(frame: &mut [u8], at: usize, digits: &[u8], payloads: &Payloads) -> Result<(), Unknown> {
    let (number, _) = wire::number(digits).ok_or(Unknown)?;
    frame[at..at + digits.len()].copy_from_slice(digits);
    let text = payloads.get(number);
    // The text ends two bytes before the frame: `"]`.
    let end = frame.len() - 2;
    frame[end - text.len()..end].copy_from_slice(text);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connected(machine: &mut Machine) -> Connection {
        let mut connection = Connection::default();
        let mut input = wire::upgrade_request("host", "/socket.io/");
        wire::client_frame(&mut input, b"40");
        wire::client_frame(&mut input, b"42100000[\"join\",[\"all\"]]");
        let mut reply = Vec::new();
        assert!(machine.input(&mut connection, &input, &mut reply).is_ok());
        assert!(reply.starts_with(b"HTTP/1.1 101") && connection.joined);
        connection
    }

    #[test]
    fn a_publish_becomes_the_tick_of_the_contract_however_it_is_split() {
        for payload in [16, 64, 200, 70_000] {
            let mut machine = Machine::new(payload);
            let mut connection = connected(&mut machine);
            let payloads = Payloads::new(payload);
            let (mut input, mut wanted) = (Vec::new(), Vec::new());
            for number in wire::FIRST_SEQUENCE + 5..wire::FIRST_SEQUENCE + 8 {
                wire::publish(&mut input, number, payloads.get(number));
                wire::server_frame(&mut wanted, &wire::tick(number, payloads.get(number)));
            }
            for part in input.chunks(37) {
                assert!(machine.input(&mut connection, part, &mut Vec::new()).is_ok());
            }
            assert!(machine.batch == wanted);
        }
    }

    #[test]
    fn an_echo_is_acknowledged_with_its_own_text() {
        let mut machine = Machine::new(64);
        let mut connection = connected(&mut machine);
        let payloads = Payloads::new(64);
        let (mut input, mut wanted, mut reply) = (Vec::new(), Vec::new(), Vec::new());
        wire::echo(&mut input, 123_456, payloads.get(123_456));
        wire::server_frame(&mut wanted, &wire::answer(123_456, payloads.get(123_456)));
        assert!(machine.input(&mut connection, &input, &mut reply).is_ok());
        assert_eq!(reply, wanted);
    }
}
