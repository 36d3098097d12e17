// From polling to WebSocket, with everything that can go wrong on the way.

import assert from "node:assert/strict";
import net from "node:net";
import { sleep, until } from "./runner.mjs";
import {
  ERRORS,
  Polling,
  SLACK_MS,
  UPGRADE_HEADERS,
  UPGRADE_TIMEOUT_MS,
  Wire,
  at,
  exchange,
  target,
} from "./wire.mjs";

export default function cases({ it, differs }) {
  const probe = async (t, session, options) => Wire.open(t, { sid: session.sid }, options);

  async function upgrade(t, session) {
    const wire = await probe(t, session);
    wire.send("2probe");
    assert.equal(await wire.next(), "3probe");
    wire.send("5");
    return wire;
  }

  it("upgrades: probe, noop to the pending poll, switch", async (t) => {
    const session = await Polling.open(t);
    await session.connect();
    const poll = session.get();
    await sleep(20);
    const wire = await probe(t, session);
    wire.send("2probe");
    assert.equal(await wire.next(), "3probe");
    const text = (await poll).text;
    assert(["6", "2"].includes(text), text);
    wire.send("5");
    if (text === "2") wire.send("3");
    await wire.assertAlive();
    const late = await session.get();
    assert.equal(late.status, 400);
    assert.equal(late.text, ERRORS.request);
    const posted = await session.post('42["echo"]');
    assert.equal(posted.status, 400);
    assert.equal(posted.text, ERRORS.request);
    await wire.assertAlive();
  });

  it("upgrades before the namespace is joined", async (t) => {
    const session = await Polling.open(t);
    const wire = await upgrade(t, session);
    await wire.connect();
    await wire.assertAlive();
  });

  it("upgrades when probe, upgrade and messages come back to back", async (t) => {
    const session = await Polling.open(t);
    const wire = await probe(t, session);
    wire.send("2probe", "5", "40");
    assert.equal(await wire.next(), "3probe");
    assert.match(await wire.next(), /^40\{"sid":/);
    assert.match(await wire.next(), /^42\["welcome"/);
    const joined = await Polling.open(t);
    await joined.connect();
    const other = await probe(t, joined);
    other.send("2probe", "5", '42["echo",1]', '42["echo",2]');
    assert.equal(await other.next(), "3probe");
    assert.equal(await other.next(), '42["echo",1]');
    assert.equal(await other.next(), '42["echo",2]');
  });

  differs(
    "an event right behind CONNECT finds the socket there",
    "the reference connects a tick later and ends the session",
    async (t) => {
      const wire = await Wire.open(t);
      wire.send("40", '42["echo",1]');
      assert.match(await wire.next(), /^40\{"sid":/);
      assert.match(await wire.next(), /^42\["welcome"/);
      assert.equal(await wire.next(), '42["echo",1]');
    },
  );

  it("delivers over WebSocket what waited for a poll", async (t) => {
    const session = await Polling.open(t);
    await session.connect();
    await session.send('42["echo",1]', '451-["echo",{"_placeholder":true,"num":0}]', "bAQI=");
    const wire = await upgrade(t, session);
    const seen = [];
    while (seen.length < 3) {
      const packet = await wire.next();
      seen.push(packet);
    }
    assert.equal(seen[0], '42["echo",1]');
    assert.equal(seen[1], '451-["echo",{"_placeholder":true,"num":0}]');
    assert.deepEqual(seen[2], Buffer.from([1, 2]));
  });

  it("a wrong word instead of the probe closes only the WebSocket", async (t) => {
    for (const word of ["2wrong", "2", "3probe", '42["echo"]', "1"]) {
      const session = await Polling.open(t);
      await session.connect();
      const wire = await probe(t, session);
      wire.send(word);
      await wire.assertEnded().catch((error) => assert.fail(`${word}: ${error.message}`));
      await session.assertAlive();
      const again = await upgrade(t, session);
      await again.assertAlive();
    }
  });

  it("a WebSocket that leaves after the probe leaves polling as it was", async (t) => {
    const session = await Polling.open(t);
    await session.connect();
    for (const leave of ["close", "terminate"]) {
      const wire = await probe(t, session);
      wire.send("2probe");
      assert.equal(await wire.next(), "3probe");
      wire.ws[leave]();
      await wire.assertEnded();
      await until("server noticed", async () => {
        const next = await probe(t, session);
        next.send("2probe");
        const got = await Promise.race([next.next().catch(() => "closed"), next.closed]);
        next.ws.close();
        await next.closed;
        return got === "3probe";
      });
    }
    await sleep(50);
    await session.assertAlive();
  });

  it("a probe that never upgrades times out alone", async (t) => {
    const session = await Polling.open(t);
    await session.connect();
    const stop = session.keepAlive(t);
    const started = performance.now();
    const silent = await probe(t, session);
    silent.send("2probe");
    assert.equal(await silent.next(), "3probe");
    await silent.assertEnded(UPGRADE_TIMEOUT_MS + SLACK_MS);
    assert(performance.now() - started > UPGRADE_TIMEOUT_MS - 50);
    await stop();
    await session.assertAlive();
  });

  it("a WebSocket that says nothing times out alone", async (t) => {
    const session = await Polling.open(t);
    await session.connect();
    const stop = session.keepAlive(t);
    const wire = await probe(t, session);
    await wire.assertEnded(UPGRADE_TIMEOUT_MS + SLACK_MS);
    await stop();
    await session.assertAlive();
  });

  it("polls keep ending with noop until the client switches", async (t) => {
    const session = await Polling.open(t);
    await session.connect();
    const wire = await probe(t, session);
    wire.send("2probe");
    assert.equal(await wire.next(), "3probe");
    const seen = [];
    while (seen.length < 4) {
      const { text } = await session.get();
      if (text === "2") await session.send("3");
      seen.push(text);
    }
    // Pings may come between, but are too rare to end these polls.
    assert(seen.filter((text) => text === "6").length >= 2, seen.join(" "));
    // What is said meanwhile still goes by polling, in order.
    await session.send('42["echo","meanwhile"]');
    assert.equal(await session.next(), '42["echo","meanwhile"]');
    wire.send("5");
    await wire.assertAlive();
  });

  it("a second WebSocket for an upgrading or upgraded session is closed", async (t) => {
    const session = await Polling.open(t);
    await session.connect();
    const first = await probe(t, session);
    first.send("2probe");
    assert.equal(await first.next(), "3probe");
    const second = await probe(t, session);
    await second.assertEnded();
    first.send("5");
    await first.assertAlive();
    const third = await probe(t, session);
    await third.assertEnded();
    await first.assertAlive();
  });

  it("a WebSocket session takes no second WebSocket", async (t) => {
    const wire = await Wire.connected(t);
    const other = await Wire.open(t, { sid: wire.sid });
    await other.assertEnded();
    await wire.assertAlive();
  });

  it("a poll on a WebSocket session is a bad request", async (t) => {
    const wire = await Wire.connected(t);
    const answer = await exchange(at({ EIO: "4", transport: "polling", sid: wire.sid }));
    assert.equal(answer.status, 400);
    assert.equal(answer.text, ERRORS.request);
    await wire.assertAlive();
  });

  differs(
    "bytes pipelined behind the upgrade request are not lost",
    "the reference listens for messages too late and drops them",
    async (t) => {
      const { hostname, port } = new URL(target.url);
      const mask = (text) => {
        const data = Buffer.from(text);
        return Buffer.concat([Buffer.from([0x81, 0x80 | data.length, 0, 0, 0, 0]), data]);
      };
      const head = [
        "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1",
        `Host: ${hostname}`,
        ...Object.entries(UPGRADE_HEADERS).map(([name, value]) => `${name}: ${value}`),
        "",
        "",
      ].join("\r\n");
      const socket = net.connect(Number(port), hostname);
      t.defer(() => socket.destroy());
      let seen = "";
      socket.on("data", (data) => (seen += data.toString("latin1")));
      socket.write(Buffer.concat([Buffer.from(head), mask("40")]));
      await until("the answer", () => seen.includes('40{"sid":"'));
      assert.match(seen, /^HTTP\/1\.1 101 /);
    },
  );
}
