// A server whose options are away from their defaults; see `protocol.mjs` for which.

import assert from "node:assert/strict";
import { gunzipSync } from "node:zlib";
import {
  ERRORS,
  Polling,
  UPGRADE_HEADERS,
  endpoint,
  exchange,
} from "./wire.mjs";

export default function cases({ it, base }) {
  const path = "/rt";
  const open = (t, headers) => Polling.open(t, { base, path, headers });

  it("options: the path without a slash, no upgrades, a smaller maxPayload", async (t) => {
    const session = await open(t);
    assert.deepEqual(session.handshake.upgrades, []);
    assert.equal(session.handshake.maxPayload, 10_000);
    assert.equal((await session.post("4".repeat(10_001))).status, 413);
    await session.send("40");
    assert.match(await session.next(), /^40\{/);
  });

  it("options: a disabled transport is unknown", async () => {
    const url = endpoint(base, { EIO: "4", transport: "websocket" }, path);
    assert.equal((await exchange(url)).text, ERRORS.transport);
    const refused = await exchange(url, { headers: UPGRADE_HEADERS });
    assert.equal(refused.status, 400);
    // As JSON by a server that does not listen for upgrades at all.
    assert([ERRORS.transport, "Transport unknown"].includes(refused.text), refused.text);
  });

  it("options: the cookie comes with the handshake only", async (t) => {
    const session = await open(t);
    const cookie = `io=${session.sid}; Path=/; HttpOnly; SameSite=Lax`;
    assert.deepEqual(session.response.headers["set-cookie"], [cookie]);
    assert.equal((await session.post("40")).headers["set-cookie"], undefined);
    assert.equal((await session.get()).headers["set-cookie"], undefined);
  });

  it("options: CORS headers on every answer, and the preflight", async (t) => {
    const origin = "http://ok.example";
    const session = await open(t, { Origin: origin });
    const refused = await exchange(endpoint(base, { EIO: "3", transport: "polling" }, path), {
      headers: { Origin: origin },
    });
    assert.equal(refused.status, 400);
    for (const { headers } of [session.response, refused]) {
      assert.equal(headers["access-control-allow-origin"], origin);
      assert.equal(headers["access-control-allow-credentials"], "true");
      assert.match(headers["vary"], /Origin/i);
    }
    const preflight = await exchange(endpoint(base, { EIO: "4", transport: "polling" }, path), {
      method: "OPTIONS",
      headers: {
        Origin: origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "x-custom, content-type",
      },
    });
    assert.equal(preflight.status, 204);
    assert.equal(preflight.headers["access-control-allow-origin"], origin);
    assert.match(preflight.headers["access-control-allow-methods"], /POST/);
    assert.match(preflight.headers["access-control-allow-headers"], /x-custom/);
  });

  it("options: large bodies are compressed for those who accept it", async (t) => {
    const session = await open(t);
    await session.send("40");
    await session.next();
    const event = `42["echo","${"x".repeat(4_000)}"]`;
    await session.send(event);
    const small = await session.get({ headers: { "Accept-Encoding": "gzip" } });
    assert.equal(small.headers["content-encoding"], "gzip");
    assert(small.raw.length < 400);
    assert.equal(gunzipSync(small.raw).toString(), event);
    await session.send(event);
    const plain = await session.get();
    assert.equal(plain.headers["content-encoding"], undefined);
    assert.equal(plain.text, event);
    await session.send('42["echo","short"]');
    const short = await session.get({ headers: { "Accept-Encoding": "gzip" } });
    assert.equal(short.headers["content-encoding"], undefined);
  });
}
