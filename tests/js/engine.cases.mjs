// Engine.IO over polling and WebSocket: refusals, opening, payloads, heartbeat, closing.

import assert from "node:assert/strict";
import http from "node:http";
import { sleep, within } from "./runner.mjs";
import {
  ERRORS,
  MAX_PAYLOAD,
  PING_INTERVAL_MS,
  PING_TIMEOUT_MS,
  Polling,
  RS,
  SLACK_MS,
  UPGRADE_HEADERS,
  Wire,
  at,
  betweenPings,
  exchange,
  pending,
  target,
} from "./wire.mjs";

export default function cases({ it, differs }) {
  // ---------------------------------------------------------------- requests that are refused (W1, W2)

  const REFUSED = [
    ["no transport", "GET", { EIO: "4" }, ERRORS.transport],
    ["an unknown transport", "GET", { EIO: "4", transport: "pigeon" }, ERRORS.transport],
    ["webtransport over HTTP", "GET", { EIO: "4", transport: "webtransport" }, ERRORS.transport],
    ["an unknown transport before an unknown sid", "GET", { transport: "x", sid: "x" }, ERRORS.transport],
    ["an unknown sid", "GET", { EIO: "4", transport: "polling", sid: "x".repeat(20) }, ERRORS.sid],
    ["an empty-looking sid", "POST", { EIO: "4", transport: "polling", sid: "-" }, ERRORS.sid],
    ["an unknown sid before a wrong version", "GET", { EIO: "9", transport: "polling", sid: "x" }, ERRORS.sid],
    ["a handshake by POST", "POST", { EIO: "4", transport: "polling" }, ERRORS.method],
    ["a handshake by PUT", "PUT", { EIO: "4", transport: "polling" }, ERRORS.method],
    ["the method before the version", "POST", { EIO: "3", transport: "polling" }, ERRORS.method],
    ["websocket without Upgrade", "GET", { EIO: "4", transport: "websocket" }, ERRORS.request],
    ["EIO 3", "GET", { EIO: "3", transport: "polling" }, ERRORS.version],
    ["EIO 5", "GET", { EIO: "5", transport: "polling" }, ERRORS.version],
    ["no EIO", "GET", { transport: "polling" }, ERRORS.version],
  ];
  for (const [name, method, query, body] of REFUSED) {
    it(`refuses ${name}`, async () => {
      const answer = await exchange(at(query), { method });
      assert.equal(answer.text, body);
      assert.equal(answer.status, 400);
      assert.match(answer.headers["content-type"], /^application\/json/);
    });
  }

  it("refuses what allow_request refuses, with 403 and its words", async () => {
    const answer = await exchange(at({ EIO: "4", transport: "polling", deny: "go away" }));
    assert.equal(answer.status, 403);
    assert.equal(answer.text, '{"code":4,"message":"go away"}');
    assert.match(answer.headers["content-type"], /^application\/json/);
  });

  it("asks allow_request after the version only when the request is a handshake", async (t) => {
    const session = await Polling.open(t);
    session.url = (extra) => at({ EIO: "4", transport: "polling", deny: "no", ...extra });
    await session.connect();
  });

  it("refuses other methods on a session with an empty 500", async (t) => {
    const session = await Polling.open(t);
    for (const method of ["PUT", "DELETE", "PATCH"]) {
      const answer = await exchange(session.url({ sid: session.sid }), { method });
      assert.equal(answer.status, 500, method);
      assert.equal(answer.text, "");
    }
    await session.connect();
  });

  const REFUSED_UPGRADES = [
    ["an unknown transport", { EIO: "4", transport: "pigeon" }, "Transport unknown"],
    ["an unknown sid", { EIO: "4", transport: "websocket", sid: "x".repeat(20) }, "Session ID unknown"],
    ["what allow_request refuses", { EIO: "4", transport: "websocket", deny: "no way" }, "no way"],
  ];
  const refuseUpgrade = (query, text) => async () => {
    const answer = await exchange(at(query), { headers: UPGRADE_HEADERS });
    assert.equal(answer.status, 400);
    assert.equal(answer.text, text);
    assert.equal(answer.headers["connection"], "close");
    assert.equal(answer.headers["content-type"], "text/html");
    assert.equal(answer.headers["content-length"], String(text.length));
  };
  for (const [name, query, text] of REFUSED_UPGRADES) {
    it(`refuses to upgrade ${name}`, refuseUpgrade(query, text));
  }
  differs(
    "refuses to upgrade EIO 3 before the 101",
    "the reference answers 101 first and then writes HTTP into the WebSocket stream",
    refuseUpgrade({ EIO: "3", transport: "websocket" }, "Unsupported protocol version"),
  );
  differs(
    "answers 404 outside its path",
    "a bare Node server leaves such requests without an answer",
    async () => {
      for (const path of ["/", "/socket.ix/", "/other?EIO=4&transport=polling"]) {
        assert.equal((await exchange(target.url + path)).status, 404, path);
      }
    },
  );

  // ---------------------------------------------------------------- opening (W3)

  it("opens over polling with its packet in order", async (t) => {
    const { response, handshake } = await Polling.open(t);
    assert.match(handshake.sid, /^[A-Za-z0-9_-]{20}$/);
    assert.equal(
      response.text,
      `0{"sid":"${handshake.sid}","upgrades":["websocket"],"pingInterval":${PING_INTERVAL_MS},` +
        `"pingTimeout":${PING_TIMEOUT_MS},"maxPayload":${MAX_PAYLOAD}}`,
    );
    assert.equal(response.headers["content-type"], "text/plain; charset=UTF-8");
    assert.equal(response.headers["content-length"], String(response.raw.length));
    assert.equal(response.headers["cache-control"], "no-store");
    assert.equal(response.headers["set-cookie"], undefined);
  });

  it("opens over WebSocket with the packet as first message", async (t) => {
    const wire = await Wire.open(t);
    assert.equal(
      wire.openPacket,
      `0{"sid":"${wire.sid}","upgrades":[],"pingInterval":${PING_INTERVAL_MS},` +
        `"pingTimeout":${PING_TIMEOUT_MS},"maxPayload":${MAX_PAYLOAD}}`,
    );
  });

  it("gives every session another id", async (t) => {
    const sessions = await Promise.all(Array.from({ length: 20 }, () => Polling.open(t)));
    assert.equal(new Set(sessions.map((session) => session.sid)).size, 20);
  });

  it("answers the WebSocket key as RFC 6455 computes it", async () => {
    const answer = await exchange(at({ EIO: "4", transport: "websocket" }), {
      headers: UPGRADE_HEADERS,
    });
    assert.equal(answer.status, 101);
    assert.equal(answer.headers["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    assert.equal(answer.headers["upgrade"].toLowerCase(), "websocket");
  });

  // ---------------------------------------------------------------- polling payloads (W4)

  it("answers a POST with ok", async (t) => {
    const session = await Polling.open(t);
    const answer = await session.post("40");
    assert.equal(answer.status, 200);
    assert.equal(answer.text, "ok");
    assert.equal(answer.headers["content-type"], "text/html");
    assert.equal(answer.headers["content-length"], "2");
  });

  it("takes many packets in one POST and gives many in one poll", async (t) => {
    const session = await Polling.open(t);
    await session.connect();
    await session.send(...Array.from({ length: 100 }, (_, i) => `42["echo",${i},"\u65e5"]`));
    const want = Array.from({ length: 100 }, (_, i) => `42["echo",${i},"\u65e5"]`);
    await sleep(20);
    const poll = await session.get();
    assert.equal(poll.headers["content-type"], "text/plain; charset=UTF-8");
    assert.equal(poll.headers["content-length"], String(poll.raw.length));
    const got = poll.text.split(RS);
    assert(got.length > 1, "several packets in one payload");
    for (const packet of got) if (packet !== "2") session.queue.push(packet);
    if (got.includes("2")) await session.send("3");
    for (const packet of want) assert.equal(await session.next(), packet);
  });

  it("holds a poll until there is something to say", async (t) => {
    await betweenPings(t, async (session) => {
      await session.connect();
      let answered = false;
      const poll = session.get().finally(() => (answered = true));
      await sleep(100);
      if (answered) await pending(poll);
      assert.equal(answered, false);
      await session.send('42["echo","now"]');
      assert.equal((await pending(poll)).text, '42["echo","now"]');
    });
  });

  it("carries binary as b and base64 in both directions", async (t) => {
    const session = await Polling.open(t);
    await session.connect();
    const placeholder = (num) => `{"_placeholder":true,"num":${num}}`;
    await session.send(
      `452-["echo",${placeholder(0)},{"x":${placeholder(1)}}]`,
      "bAAEC/w==",
      "b",
    );
    assert.equal(await session.next(), `452-["echo",${placeholder(0)},{"x":${placeholder(1)}}]`);
    assert.equal(await session.next(), "bAAEC/w==");
    assert.equal(await session.next(), "b");
  });

  it("takes a POST whose body comes in pieces", async (t) => {
    const session = await Polling.open(t);
    await session.connect();
    const body = Buffer.from('42["echo","\u{1F600} in two halves"]');
    const answer = await within(5_000, "POST", new Promise((resolve, reject) => {
      const req = http.request(
        session.url({ sid: session.sid }),
        { method: "POST", agent: false, headers: { "Content-Length": body.length } },
        (res) => res.on("data", (data) => resolve(data.toString())),
      );
      req.on("error", reject);
      // In the middle of a character.
      req.write(body.subarray(0, 13));
      setTimeout(() => req.end(body.subarray(13)), 30);
    }));
    assert.equal(answer, "ok");
    assert.equal(await session.next(), body.toString());
  });

  it("takes a chunked POST", async (t) => {
    const session = await Polling.open(t);
    await session.connect();
    const answer = await session.post('42["echo","chunked"]', { chunked: true });
    assert.equal(answer.text, "ok");
    assert.equal(await session.next(), '42["echo","chunked"]');
  });

  it("ends the session on an octet-stream POST", async (t) => {
    const session = await Polling.open(t);
    const headers = { "Content-Type": "application/octet-stream" };
    assert.equal((await session.post("40", { headers })).status, 400);
    await session.assertEnded();
  });

  it("ends the session on a payload that is not Engine.IO", async (t) => {
    for (const payload of ["9", "abc", `40${RS}${RS}`, `x${RS}40`]) {
      const session = await Polling.open(t);
      await session.post(payload);
      await session.assertEnded();
    }
  });

  it("refuses a body over maxPayload with an empty 413 and keeps the session", async (t) => {
    const session = await Polling.open(t);
    await session.connect();
    for (const chunked of [false, true]) {
      const answer = await session.post("x".repeat(MAX_PAYLOAD + 1), { chunked });
      assert.equal(answer.status, 413);
      assert.equal(answer.text, "");
    }
    await session.assertAlive();
  });

  it("takes a body of exactly maxPayload", async (t) => {
    const session = await Polling.open(t);
    await session.connect();
    const head = '42["nobody","';
    const body = `${head}${"x".repeat(MAX_PAYLOAD - head.length - 2)}"]`;
    assert.equal((await session.post(body)).status, 200);
    await session.assertAlive();
  });

  it("refuses a second poll with 400 and closes the session", async (t) => {
    await betweenPings(t, async (session) => {
      const both = [session.get(), session.get()];
      // Which of them is the second is for the network to say.
      const answers = await Promise.all(both.map(pending));
      const told = answers.map(({ status, text }) => `${status} ${text}`);
      assert.deepEqual(told.sort(), ["200 1", "400 "]);
      await session.assertEnded();
    });
  });

  it("refuses a second POST at a time with 400 and closes the session", async (t) => {
    const session = await Polling.open(t);
    const first = http.request(session.url({ sid: session.sid }), {
      method: "POST",
      agent: false,
      headers: { "Content-Length": 10 },
    });
    first.on("error", () => {});
    t.defer(() => first.destroy());
    first.write("4");
    await sleep(200);
    assert.equal((await session.post("3")).status, 400);
    await session.assertEnded();
  });

  it("ends the session when its poll is abandoned", async (t) => {
    await betweenPings(t, async (session) => {
      await session.connect();
      const poll = http.request(session.url({ sid: session.sid }), { agent: false });
      let answer;
      poll.on("response", () => (answer = { text: "2" }));
      poll.on("error", () => {});
      await new Promise((resolve) => poll.end(resolve));
      await sleep(200);
      if (answer) await pending(answer);
      poll.destroy();
      await session.assertEnded();
    });
  });

  // ---------------------------------------------------------------- heartbeat (W5)

  it("pings after pingInterval and closes pingTimeout later", async (t) => {
    // Taken before the session exists: a busy machine makes the waits longer, never shorter.
    const started = performance.now();
    const wire = await Wire.open(t, {}, { heartbeat: false });
    wire.send("40");
    while ((await wire.next()) !== "2");
    const pinged = performance.now() - started;
    assert(pinged > PING_INTERVAL_MS - 50, `a ping after ${pinged} ms`);
    assert(pinged < PING_INTERVAL_MS + SLACK_MS, `a ping after ${pinged} ms`);
    await wire.assertEnded(PING_TIMEOUT_MS + SLACK_MS);
    const ended = performance.now() - started;
    assert(ended > PING_INTERVAL_MS + PING_TIMEOUT_MS - 50, `closed after ${ended} ms`);
  });

  it("pings again after every pong, over WebSocket and over polling", async (t) => {
    const wire = await Wire.open(t, {}, { heartbeat: false });
    wire.send("40");
    await wire.next();
    await wire.next();
    const session = await Polling.open(t);
    await session.connect();
    for (let round = 0; round < 3; round++) {
      assert.equal(await wire.next(), "2");
      wire.send("3");
      let poll;
      do poll = (await session.get()).text.split(RS);
      while (!poll.includes("2"));
      await session.send("3");
    }
    await session.assertAlive();
  });

  it("does not take other traffic for a pong", async (t) => {
    const wire = await Wire.connected(t, { heartbeat: false });
    const chatter = setInterval(() => wire.ws.readyState === 1 && wire.send('42["echo"]'), 50);
    t.defer(() => clearInterval(chatter));
    await wire.assertEnded(PING_INTERVAL_MS + PING_TIMEOUT_MS + SLACK_MS);
  });

  it("accepts a pong nobody asked for", async (t) => {
    const wire = await Wire.open(t);
    wire.send("3", "3");
    await wire.connect();
    await wire.assertAlive();
  });

  it("closes when the client pings", async (t) => {
    const wire = await Wire.connected(t);
    wire.send("2");
    await wire.assertEnded();
    const session = await Polling.open(t);
    await session.post("2");
    await session.assertEnded();
  });

  it("ends a polling session that never polls again", async (t) => {
    const session = await Polling.open(t);
    await sleep(PING_INTERVAL_MS + PING_TIMEOUT_MS + 100);
    await session.assertEnded();
  });

  // ---------------------------------------------------------------- closing (W7)

  it("a client's close over polling answers the pending poll", async (t) => {
    await betweenPings(t, async (session) => {
      const poll = session.get();
      await sleep(100);
      await session.send("1");
      assert.equal((await pending(poll)).text, "6");
      await session.assertEnded();
    });
  });

  it("a server's close over polling reaches the poll", async (t) => {
    const session = await Polling.open(t);
    await session.connect();
    await session.send('42["bye-all"]');
    const seen = [];
    while (!seen.includes("1")) {
      const poll = await session.get();
      assert.equal(poll.status, 200);
      seen.push(...poll.text.split(RS).filter((packet) => packet !== "2"));
    }
    assert.deepEqual(seen.filter((packet) => packet !== "6"), ["41", "1"]);
    await session.assertEnded();
  });

  it("a server's close over WebSocket is a plain close", async (t) => {
    const wire = await Wire.connected(t);
    wire.send('42["bye-all"]');
    assert.equal(await wire.next(), "41");
    assert([1000, 1005].includes(await wire.assertEnded()));
  });

  differs(
    "a client's close packet over WebSocket closes at once",
    "the reference ignores it and waits for the heartbeat",
    async (t) => {
      const wire = await Wire.connected(t);
      wire.send("1");
      // Long before the heartbeat would end it.
      await wire.assertEnded(PING_INTERVAL_MS + PING_TIMEOUT_MS / 2);
    },
  );

  it("ends the session on a packet that is not Engine.IO", async (t) => {
    for (const packet of ["9", "x", ""]) {
      const wire = await Wire.connected(t);
      wire.send(packet);
      await wire.assertEnded();
    }
  });

  it("closes with 1009 on a message over maxPayload", async (t) => {
    const wire = await Wire.connected(t);
    wire.send("4".repeat(MAX_PAYLOAD + 1));
    assert.equal(await wire.assertEnded(), 1009);
  });

  it("closes with 1002 on frames a client must not send", async (t) => {
    const frames = [
      [0x81, 0x01, 0x33], // not masked
      [0xc1, 0x81, 0, 0, 0, 0, 0x33], // reserved bit
      [0x83, 0x80, 0, 0, 0, 0], // reserved opcode
      [0x80, 0x81, 0, 0, 0, 0, 0x33], // continuation of nothing
      [0x09, 0x80, 0, 0, 0, 0], // fragmented ping
    ];
    for (const bytes of frames) {
      const wire = await Wire.connected(t);
      wire.ws._socket.write(Buffer.from(bytes));
      assert.equal(await wire.assertEnded(), 1002, bytes.join(" "));
    }
  });

  it("closes with 1007 on text that is not UTF-8", async (t) => {
    const wire = await Wire.connected(t);
    wire.ws._socket.write(Buffer.from([0x81, 0x82, 0, 0, 0, 0, 0x34, 0xff]));
    assert.equal(await wire.assertEnded(), 1007);
  });

  it("answers a WebSocket ping and takes fragments around it", async (t) => {
    const wire = await Wire.connected(t);
    const pong = within(3_000, "pong", new Promise((resolve) => wire.ws.once("pong", resolve)));
    wire.ws.send('42["ec', { fin: false });
    wire.ws.ping("are you there");
    wire.ws.send('ho","\u65e5"]', { fin: true });
    assert.equal((await pong).toString(), "are you there");
    assert.equal(await wire.next(), '42["echo","\u65e5"]');
  });
}
