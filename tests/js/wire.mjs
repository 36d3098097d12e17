// Sessions driven by hand: plain HTTP exchanges, long-polling and WebSocket without a client library.
// It knows Engine.IO framing well enough to answer pings, and nothing more; the cases judge the rest.

import assert from "node:assert/strict";
import http from "node:http";
import { WebSocket } from "ws";
import { until, within } from "./runner.mjs";

/** Separates packets in a polling payload. */
export const RS = "\x1e";
/** The server under test; set once by `protocol.mjs`. */
export const target = { url: "" };

/** What the contract says of the server under test. */
export const PING_INTERVAL_MS = 1_000;
export const PING_TIMEOUT_MS = 4_000;
export const UPGRADE_TIMEOUT_MS = 3_000;
export const CONNECT_TIMEOUT_MS = 3_000;
export const MAX_PAYLOAD = 1_000_000;
/** How late a busy machine may be. */
export const SLACK_MS = 4_000;

export const endpoint = (base, query, path = "/socket.io/") =>
  `${base}${path}?${new URLSearchParams(query)}`;
export const at = (query) => endpoint(target.url, query);

/** One HTTP exchange on a connection of its own, with everything a test may want to look at. */
export function exchange(url, { method = "GET", headers = {}, body, chunked = false } = {}) {
  return within(15_000, `${method} ${url}`, new Promise((resolve, reject) => {
    const req = http.request(url, { method, headers, agent: false }, (res) => {
      const chunks = [];
      res.on("data", (chunk) => chunks.push(chunk));
      res.on("error", reject);
      res.on("end", () => {
        const raw = Buffer.concat(chunks);
        resolve({ status: res.statusCode, headers: res.headers, raw, text: raw.toString() });
      });
    });
    req.on("upgrade", (res, socket) => {
      socket.destroy();
      resolve({ status: 101, headers: res.headers, raw: Buffer.alloc(0), text: "" });
    });
    req.on("error", reject);
    if (body !== undefined && !chunked) req.setHeader("Content-Length", Buffer.byteLength(body));
    if (body !== undefined) req.write(body);
    req.end();
  }));
}

export const UPGRADE_HEADERS = {
  Connection: "Upgrade",
  Upgrade: "websocket",
  "Sec-WebSocket-Version": "13",
  "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
};

/** A long-polling session driven by hand. */
export class Polling {
  constructor(base, query, path) {
    this.url = (extra) => endpoint(base, { EIO: "4", transport: "polling", ...query, ...extra }, path);
    this.queue = [];
  }

  static async open(scope, { base = target.url, query = {}, path, headers } = {}) {
    const session = new Polling(base, query, path);
    session.response = await exchange(session.url({}), { headers });
    assert.equal(session.response.status, 200);
    assert.equal(session.response.text[0], "0");
    session.handshake = JSON.parse(session.response.text.slice(1));
    session.sid = session.handshake.sid;
    // Best effort: the session may have ended already.
    scope.defer(() => session.post("1").catch(() => {}));
    return session;
  }

  get(options) {
    return exchange(this.url({ sid: this.sid }), options);
  }

  post(body, { headers, ...rest } = {}) {
    const type = { "Content-Type": "text/plain;charset=UTF-8" };
    const url = this.url({ sid: this.sid });
    return exchange(url, { method: "POST", body, headers: { ...type, ...headers }, ...rest });
  }

  async send(...packets) {
    const answer = await this.post(packets.join(RS));
    assert.equal(answer.status, 200);
    assert.equal(answer.text, "ok");
  }

  /** The next packet that is neither ping nor noop; pings are answered. */
  async next() {
    while (this.queue.length === 0) {
      const answer = await this.get();
      assert.equal(answer.status, 200, `poll answered ${answer.status} ${answer.text}`);
      for (const packet of answer.text.split(RS)) {
        if (packet === "2") await this.send("3");
        else if (packet !== "6") this.queue.push(packet);
      }
    }
    return this.queue.shift();
  }

  async connect() {
    await this.send("40");
    assert.match(await this.next(), /^40\{"sid":"[\w-]{20}"\}$/);
    assert.match(await this.next(), /^42\["welcome","[\w-]{20}"\]$/);
  }

  async assertAlive() {
    await this.send('421000["add",40,2]');
    let packet;
    do packet = await this.next();
    while (packet !== "431000[42]");
  }

  async assertEnded() {
    await until("session gone", async () => {
      const { status, text } = await this.post("3");
      return status === 400 && text === '{"code":1,"message":"Session ID unknown"}';
    });
  }

  /** Polls forever, so that the session outlives its heartbeat, until stopped. */
  keepAlive(scope) {
    let running = true;
    const loop = (async () => {
      while (running) {
        const { status, text } = await this.get();
        if (status !== 200) return;
        for (const packet of text.split(RS)) {
          if (packet === "2") await this.post("3");
          else if (packet === "1") return;
          else if (packet !== "6") this.queue.push(packet);
        }
      }
    })().catch(() => {});
    const stop = async () => {
      running = false;
      await loop;
    };
    scope.defer(() => (running = false));
    return stop;
  }
}

/** A ping took the poll that a case wanted to keep pending. */
class Pinged extends Error {}

/** The answer of a poll that a case kept pending: anything but a ping. */
export async function pending(poll) {
  const answer = await poll;
  if (answer.text === "2") throw new Pinged("a ping came between");
  return answer;
}

/** Runs `body` on a new polling session, again if a ping came between (see `pending`). */
export async function betweenPings(scope, body) {
  for (let attempt = 1; ; attempt++) {
    try {
      return await body(await Polling.open(scope));
    } catch (error) {
      if (!(error instanceof Pinged) || attempt === 10) throw error;
    }
  }
}

/** A WebSocket driven by hand. Text arrives as string, binary as Buffer. */
export class Wire {
  constructor(scope, url, options = {}) {
    this.heartbeat = options.heartbeat ?? true;
    this.ws = new WebSocket(url, { perMessageDeflate: false });
    this.inbox = [];
    this.wake = () => {};
    this.ws.on("message", (data, binary) => {
      const packet = binary ? data : data.toString();
      if (this.heartbeat && packet === "2") return this.send("3");
      this.inbox.push(packet);
      this.wake();
    });
    this.closed = new Promise((resolve) => {
      this.ws.on("close", (code) => {
        this.closeCode = code;
        this.wake();
        resolve(code);
      });
    });
    this.opened = new Promise((resolve, reject) => {
      this.ws.on("open", resolve);
      this.ws.on("error", reject);
    });
    this.opened.catch(() => {});
    scope.defer(() => this.ws.terminate());
  }

  static async open(scope, query = {}, options = {}) {
    const full = { EIO: "4", transport: "websocket", ...query };
    const wire = new Wire(scope, at(full).replace(/^http/, "ws"), options);
    await within(15_000, "websocket", wire.opened);
    if (!("sid" in full)) {
      wire.openPacket = await wire.next();
      wire.handshake = JSON.parse(wire.openPacket.slice(1));
      wire.sid = wire.handshake.sid;
    }
    return wire;
  }

  /** A WebSocket session that has joined `/`. */
  static async connected(scope, options) {
    const wire = await Wire.open(scope, {}, options);
    await wire.connect();
    return wire;
  }

  async connect() {
    this.send("40");
    assert.match(await this.next(), /^40\{"sid":"[\w-]{20}"\}$/);
    assert.match(await this.next(), /^42\["welcome","[\w-]{20}"\]$/);
  }

  send(...packets) {
    for (const packet of packets) this.ws.send(packet);
  }

  async next(ms = 15_000) {
    await within(ms, "a message", (async () => {
      while (this.inbox.length === 0) {
        if (this.closeCode !== undefined) throw new Error(`closed with ${this.closeCode}`);
        await new Promise((resolve) => (this.wake = resolve));
      }
    })());
    return this.inbox.shift();
  }

  async assertAlive() {
    this.send('421000["add",40,2]');
    assert.equal(await this.next(), "431000[42]");
  }

  assertEnded(ms = 10_000) {
    return within(ms, "close", this.closed);
  }
}

export const ERRORS = {
  transport: '{"code":0,"message":"Transport unknown"}',
  sid: '{"code":1,"message":"Session ID unknown"}',
  method: '{"code":2,"message":"Bad handshake method"}',
  request: '{"code":3,"message":"Bad request"}',
  version: '{"code":5,"message":"Unsupported protocol version"}',
};
