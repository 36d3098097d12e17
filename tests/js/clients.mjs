// Official Socket.IO clients against a running server:
//
//     node clients.mjs URL [--client sio48|sio40|sio31|all]
//                          [--transport polling|websocket|upgrade|all] [--only TEXT] [--width N]
//
// Every case runs once per client release and transport mode, on connections of its own. `upgrade`
// starts each connection over polling and waits for WebSocket before the case begins.
//
// THE CONTRACT. The server under test is `tests/support/mod.rs`; what it must do:
//
//   path /socket.io/, pingInterval 1000 ms, pingTimeout 4000 ms, upgradeTimeout and connectTimeout
//   3000 ms, everything else at its default; a handshake whose query has `deny` is not allowed,
//   with the value of `deny` as message.
//
//   Namespaces `/`, `/chat`, every `/tenant-<digits>`, and `/guarded`, whose middleware wants
//   auth `{token: "secret"}` and refuses with the message "not allowed" and the data
//   `{code: 401, why: "token"}`. `/guarded-async` does the same after an `await`.
//   In all of them:
//
//   connect              the server emits `welcome` with the socket's id
//   echo (...args)       emits `echo` with the same arguments to the sender
//   ack (...args) ack    acknowledges with the same arguments
//   add (a, b) ack       acknowledges with the sum
//   later (ms, x) ack    acknowledges with x after ms milliseconds
//   hold (name) ack      acknowledges nothing, once somebody says release (name)
//   whoami () ack        acknowledges `{id, nsp, auth}`
//   ask (ms, x)          emits `question` (x) with an ack and the timeout ms, then emits `asked` with
//                        `{ok: true, answer}` or `{ok: false}`
//   join (room) ack      joins; acknowledges the sorted rooms without the socket's own
//   leave (room) ack     likewise
//   relay (how, x) ack   emits event `how.event` with x to the rooms `how.to` (none: everyone) but
//                        `how.except`; from the socket if `how.sender` is true (so not to itself), else
//                        from the namespace; volatile if `how.volatile`. Acknowledges true.
//   poll (how, x) ack    broadcasts `how.event` (x) with acks within `how.ms` from the namespace to
//                        `how.to`; acknowledges `{answers: [...], complete: bool}`
//   burst (n) ack        emits `burst` (i) for i in 0..n, then acknowledges n
//   whisper (x)          emits `whisper` (x) volatile to the sender
//   command (what) ack   on the sockets in room `what.in`: `fetch` acknowledges
//                        [{id, rooms (sorted)}] sorted by id; `join`, `leave` (of `what.room`) and
//                        `disconnect` (closing the connection if `what.close`) acknowledge true
//   bye () / bye-all ()  disconnects the socket / its whole connection
//   any event `any:*`    the catch-all listener emits `caught` (name, first argument)
//   disconnecting        the rooms (sorted, without the socket's own) are recorded under auth.name
//   disconnect           the reason is recorded under auth.name
//   epitaph (name) ack   acknowledges `{reason, rooms}` of that name, or null

import assert from "node:assert/strict";
import process from "node:process";
import { Suite, args, sleep, until, within } from "./runner.mjs";

const ID = /^[A-Za-z0-9_-]{20}$/;

const { words, options } = args("clients.mjs URL [--client C] [--transport T]", 1);
const url = words[0];
const clients = pick(options.client, ["sio48", "sio40", "sio31"]);
const transports = pick(options.transport, ["polling", "websocket", "upgrade"]);

function pick(given, all) {
  if (given === undefined || given === "all") return all;
  const chosen = given.split(",");
  for (const one of chosen) assert(all.includes(one), `unknown choice: ${one}`);
  return chosen;
}

let serial = 0;
/** A name no other case uses, so that cases can share the server. */
const unique = (stem) => `${stem}-${process.pid}-${++serial}`;

/** What one case holds: a client release, a transport mode, and the connections it opened. */
class Bench {
  constructor(io, mode, scope) {
    this.io = io;
    this.mode = mode;
    this.scope = scope;
  }

  get finalTransport() {
    return this.mode === "polling" ? "polling" : "websocket";
  }

  /** A socket on a connection of its own, not yet waited for. */
  dial(nsp = "/", opts = {}) {
    const socket = this.io(url + nsp, {
      forceNew: true,
      transports: this.mode === "upgrade" ? ["polling", "websocket"] : [this.mode],
      reconnection: false,
      reconnectionDelay: 20,
      reconnectionDelayMax: 40,
      ...opts,
    });
    this.scope.defer(() => {
      socket.io.reconnection(false);
      socket.disconnect();
      socket.io.engine?.close();
    });
    return socket;
  }

  /** A connected socket, upgraded if the mode says so. */
  async open(nsp = "/", opts = {}) {
    const socket = this.dial(nsp, opts);
    await connected(socket);
    if (this.mode === "upgrade") await upgraded(socket);
    return socket;
  }

  async openMany(count, nsp) {
    return Promise.all(Array.from({ length: count }, () => this.open(nsp)));
  }
}

async function connected(socket) {
  if (socket.connected) return;
  await within(15_000, "connect", new Promise((resolve, reject) => {
    socket.once("connect", resolve);
    socket.once("connect_error", reject);
  }));
}

async function upgraded(socket) {
  const engine = () => socket.io.engine;
  await until("upgrade", () => engine().transport.name === "websocket" && !engine().upgrading);
}

/** The arguments of the next `event`. */
function next(socket, event, ms = 15_000) {
  return within(ms, event, new Promise((resolve) => socket.once(event, (...got) => resolve(got))));
}

/** Every argument list of `event` from now on. */
function collect(socket, event) {
  const seen = [];
  socket.on(event, (...got) => seen.push(got));
  return seen;
}

/** Emits and resolves with the first argument of the acknowledgement (all of them: `callAll`). */
async function call(socket, event, ...given) {
  return (await callAll(socket, event, ...given))[0];
}

function callAll(socket, event, ...given) {
  return within(15_000, `ack of ${event}`, new Promise((resolve) => {
    socket.emit(event, ...given, (...got) => resolve(got));
  }));
}

/**
 * Waits until everything `sender` caused before has reached `receivers`: order is kept between one
 * sender and one receiver, so an event sent last arrives last. Replaces sleeping to prove absence.
 */
async function fence(sender, receivers) {
  const event = unique("fence");
  const arrived = receivers.map((socket) => next(socket, event));
  await call(sender, "relay", { event, to: receivers.map((socket) => socket.id) }, 0);
  await Promise.all(arrived);
}

/** Buffers, ArrayBuffers and views all become Buffers, so that values compare by bytes. */
function normal(value) {
  if (value instanceof ArrayBuffer) return Buffer.from(value);
  if (ArrayBuffer.isView(value)) {
    return Buffer.from(value.buffer, value.byteOffset, value.byteLength);
  }
  if (Array.isArray(value)) return value.map(normal);
  if (value && typeof value === "object") {
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, normal(item)]));
  }
  return value === undefined ? null : value;
}

const same = (got, want) => assert.deepStrictEqual(normal(got), normal(want));

async function echoes(socket, given) {
  const got = next(socket, "echo");
  socket.emit("echo", ...given);
  same(await got, given);
}

const CASES = {
  async "connects, with ids of its own"(t) {
    const socket = await t.open();
    const engine = socket.io.engine;
    assert.match(socket.id, ID);
    assert.match(engine.id, ID);
    assert.notEqual(socket.id, engine.id);
    assert.equal(engine.transport.name, t.finalTransport);
    const me = await call(socket, "whoami");
    assert.equal(me.id, socket.id);
    assert.equal(me.nsp, "/");
  },

  async "the connect handler's event follows the connect packet"(t) {
    const socket = t.dial();
    const order = [];
    socket.on("connect", () => order.push("connect"));
    socket.on("welcome", (id) => order.push(id));
    await until("welcome", () => order.length === 2);
    assert.deepEqual(order, ["connect", socket.id]);
  },

  async "auth reaches the server, as object and as function"(t) {
    const auth = { token: "é", list: [1, { a: null }] };
    const first = await t.open("/", { auth });
    assert.deepEqual((await call(first, "whoami")).auth, auth);
    const second = await t.open("/chat", { auth: (give) => give(auth) });
    assert.deepEqual((await call(second, "whoami")).auth, auth);
  },

  async "events carry none to many arguments of every JSON kind"(t) {
    const socket = await t.open();
    const lists = [
      [],
      [1],
      [null, true, false, 0, -1.5, 1e300, ""],
      ["caffè 日本語 \u{1F600} \u2028 \u0000 \" \\ \u001e"],
      [{ a: { b: [{ c: "d" }, []] }, "": {}, "ключ": "значение" }, [[[]]], "last"],
      Array.from({ length: 40 }, (_, i) => i),
      [[{ _placeholder: false, num: "x" }]],
      [9007199254740991, -9007199254740991, 0.1],
    ];
    for (const list of lists) await echoes(socket, list);
  },

  async "100 KB of text both ways"(t) {
    const socket = await t.open();
    await echoes(socket, ["x".repeat(100_000)]);
    await echoes(socket, [{ text: "日本語\u{1F600}".repeat(10_000) }]);
  },

  async "binary both ways: nested, several, empty, large"(t) {
    const socket = await t.open();
    await echoes(socket, [Buffer.from([0, 1, 2, 254, 255])]);
    await echoes(socket, [Buffer.alloc(0)]);
    await echoes(socket, ["a", { deep: [{ bytes: Buffer.from("x") }, Buffer.from("y")] }, null]);
    await echoes(socket, [new Uint8Array([1, 2, 3]), new Uint8Array([4, 5]).buffer]);
    await echoes(socket, Array.from({ length: 10 }, (_, i) => Buffer.alloc(i, i)));
    const large = Buffer.alloc(100_000);
    for (let i = 0; i < large.length; i++) large[i] = (i * 31) & 255;
    await echoes(socket, [large, "and text"]);
  },

  async "text and binary events keep their order when mixed"(t) {
    const socket = await t.open();
    const seen = collect(socket, "echo");
    const sent = [];
    for (let i = 0; i < 60; i++) {
      const list = i % 3 ? [i, "text"] : [i, Buffer.from([i]), { also: Buffer.from([i, i]) }];
      sent.push(list);
      socket.emit("echo", ...list);
    }
    await until("60 echoes", () => seen.length >= 60);
    same(seen, sent);
  },

  async "acknowledgements client to server"(t) {
    const socket = await t.open();
    assert.equal(await call(socket, "add", 2, 40), 42);
    assert.deepEqual(await callAll(socket, "ack"), []);
    const list = ["x", { a: [1] }, null];
    assert.deepEqual(await callAll(socket, "ack", ...list), list);
    same(await callAll(socket, "ack", { b: Buffer.from([7]) }, Buffer.alloc(0)), [
      { b: Buffer.from([7]) },
      Buffer.alloc(0),
    ]);
    const sums = Array.from({ length: 100 }, (_, i) => call(socket, "add", i, i));
    assert.deepEqual(await Promise.all(sums), Array.from({ length: 100 }, (_, i) => 2 * i));
  },

  async "a slow handler's acknowledgement does not hold the others up"(t) {
    const socket = await t.open();
    const name = unique("latch");
    let released = false;
    const slow = callAll(socket, "hold", name).then(() => (released = true));
    assert.equal(await call(socket, "add", 1, 2), 3);
    assert.equal(await call(socket, "later", 5, "x"), "x");
    assert.equal(released, false);
    socket.emit("release", name);
    await slow;
  },

  async "acknowledgements server to client, answered"(t) {
    const socket = await t.open();
    socket.on("question", (x, ack) => ack({ got: x }));
    for (const x of [1, "two", { three: [3] }]) {
      socket.emit("ask", 5_000, x);
      assert.deepEqual(await next(socket, "asked"), [{ ok: true, answer: { got: x } }]);
    }
  },

  async "acknowledgements server to client, timed out; a late answer is ignored"(t) {
    const socket = await t.open();
    let answer;
    socket.on("question", (_, ack) => (answer = ack));
    socket.emit("ask", 80, "anyone?");
    assert.deepEqual(await next(socket, "asked"), [{ ok: false }]);
    answer("too late");
    answer("twice");
    assert.equal(await call(socket, "add", 1, 1), 2);
  },

  async "namespaces share one connection and do not mix"(t) {
    const main = await t.open();
    const chat = main.io.socket("/chat");
    const tenant = main.io.socket("/tenant-42");
    await Promise.all([connected(chat), connected(tenant)]);
    assert.equal(new Set([main.id, chat.id, tenant.id]).size, 3);
    const seen = [main, chat, tenant].map((socket) => collect(socket, "echo"));
    chat.emit("echo", "only chat");
    await fence(chat, [chat]);
    await Promise.all([call(main, "ack"), call(tenant, "ack")]);
    assert.deepEqual(seen, [[], [["only chat"]], []]);
    assert.equal((await call(tenant, "whoami")).nsp, "/tenant-42");

    // A room of one namespace is another room in the next.
    const room = unique("room");
    await Promise.all([main, chat, tenant].map((socket) => call(socket, "join", room)));
    const events = [main, chat, tenant].map((socket) => collect(socket, "news"));
    await call(tenant, "relay", { event: "news", to: [room] }, 1);
    await fence(tenant, [tenant]);
    await Promise.all([call(main, "ack"), call(chat, "ack")]);
    assert.deepEqual(events.map((list) => list.length), [0, 0, 1]);

    // Leaving one leaves the others alone.
    const gone = next(chat, "disconnect");
    chat.disconnect();
    assert.equal((await gone)[0], "io client disconnect");
    assert.equal(await call(main, "add", 1, 2), 3);
    chat.connect();
    await connected(chat);
    assert.equal(await call(chat, "add", 1, 2), 3);
  },

  async "dynamic namespaces exist apart from one another"(t) {
    const one = await t.open("/tenant-1");
    const two = await t.open("/tenant-2");
    const event = unique("news");
    const seen = [collect(one, event), collect(two, event)];
    await call(one, "relay", { event, to: [] }, "hello");
    await fence(one, [one]);
    await fence(two, [two]);
    assert.deepEqual(seen, [[["hello"]], []]);
  },

  async "an unknown namespace is refused, the connection stays"(t) {
    const main = await t.open();
    for (const name of ["/nowhere", "/tenant-", "/tenant-1x", "/guarde"]) {
      const [error] = await next(main.io.socket(name), "connect_error");
      assert.equal(error.message, "Invalid namespace");
    }
    assert.equal(await call(main, "add", 1, 2), 3);
  },

  async "middleware refuses with message and data, and accepts later"(t) {
    for (const nsp of ["/guarded", "/guarded-async"]) {
      const socket = t.dial(nsp, { auth: { token: "wrong" } });
      const [error] = await next(socket, "connect_error");
      assert(error instanceof Error);
      assert.equal(error.message, "not allowed");
      assert.deepEqual(error.data, { code: 401, why: "token" });
      assert.equal(socket.connected, false);
      socket.auth = { token: "secret" };
      socket.connect();
      await connected(socket);
      assert.deepEqual((await call(socket, "whoami")).auth, { token: "secret" });
    }
  },

  async "rooms: join, receive, leave"(t) {
    const [a, b] = await t.openMany(2);
    const room = unique("room");
    const event = unique("news");
    const seen = [a, b].map((socket) => collect(socket, event));
    assert.deepEqual(await call(a, "join", room), [room]);
    assert.deepEqual(await call(a, "join", room), [room]);
    await call(b, "relay", { event, to: [room] }, 1);
    await fence(b, [a, b]);
    assert.deepEqual(seen, [[[1]], []]);
    assert.deepEqual(await call(a, "leave", room), []);
    await call(b, "relay", { event, to: [room] }, 2);
    await fence(b, [a, b]);
    assert.deepEqual(seen, [[[1]], []]);
  },

  async "a union of rooms delivers once, except wins, the sender is left out"(t) {
    const [a, b, c, d] = await t.openMany(4);
    const [r1, r2, mute] = [unique("r1"), unique("r2"), unique("mute")];
    await Promise.all([
      call(a, "join", r1), call(b, "join", r1), call(b, "join", r2), call(c, "join", r2),
      call(c, "join", mute), call(a, "join", r2),
    ]);
    const event = unique("news");
    const seen = [a, b, c, d].map((socket) => collect(socket, event));
    const counts = () => seen.map((list) => list.length);
    const all = [a, b, c, d];
    await call(a, "relay", { event, to: [r1, r2], sender: true }, 1);
    await fence(a, all);
    assert.deepEqual(counts(), [0, 1, 1, 0]);
    await call(a, "relay", { event, to: [r1, r2] }, 2);
    await fence(a, all);
    assert.deepEqual(counts(), [1, 2, 2, 0]);
    await call(a, "relay", { event, to: [r1, r2], except: [mute] }, 3);
    await fence(a, all);
    assert.deepEqual(counts(), [2, 3, 2, 0]);
    await call(a, "relay", { event, to: [r1, r2], except: [mute, b.id], sender: true }, 4);
    await fence(a, all);
    assert.deepEqual(counts(), [2, 3, 2, 0]);
    await call(d, "relay", { event, to: [a.id, r1] }, 5);
    await fence(d, all);
    assert.deepEqual(counts(), [3, 4, 2, 0]);
  },

  async "broadcast to everyone; except leaves out; from the socket not to itself"(t) {
    const [a, b, c] = await t.openMany(3, "/chat");
    const event = unique("news");
    const seen = [a, b, c].map((socket) => collect(socket, event));
    const counts = () => seen.map((list) => list.length);
    await call(a, "relay", { event, to: [] }, 1);
    await fence(a, [a, b, c]);
    assert.deepEqual(counts(), [1, 1, 1]);
    await call(a, "relay", { event, to: [], sender: true }, 2);
    await fence(a, [a, b, c]);
    assert.deepEqual(counts(), [1, 2, 2]);
    await call(a, "relay", { event, to: [], except: [b.id] }, 3);
    await fence(a, [a, b, c]);
    assert.deepEqual(counts(), [2, 2, 3]);
  },

  async "binary broadcasts arrive whole at every receiver"(t) {
    const sockets = await t.openMany(4);
    const room = unique("room");
    const event = unique("file");
    await Promise.all(sockets.map((socket) => call(socket, "join", room)));
    const seen = sockets.map((socket) => collect(socket, event));
    const file = { name: "x", parts: [Buffer.from([1]), Buffer.alloc(5_000, 9), Buffer.alloc(0)] };
    await call(sockets[0], "relay", { event, to: [room] }, file);
    await call(sockets[0], "relay", { event, to: [room] }, "text after");
    await fence(sockets[0], sockets);
    for (const list of seen) same(list, [[file], ["text after"]]);
  },

  async "broadcast with acks gathers every answer"(t) {
    const sockets = await t.openMany(3);
    const room = unique("room");
    const event = unique("vote");
    await Promise.all(sockets.map((socket) => call(socket, "join", room)));
    sockets.forEach((socket, i) => socket.on(event, (x, ack) => ack(`${x}${i}`)));
    const result = await call(sockets[0], "poll", { event, to: [room], ms: 5_000 }, "v");
    assert.deepEqual(result.answers.sort(), ["v0", "v1", "v2"]);
    assert.equal(result.complete, true);
    sockets[1].off(event);
    const partial = await call(sockets[0], "poll", { event, to: [room], ms: 1_500 }, "w");
    assert.deepEqual(partial.answers.sort(), ["w0", "w2"]);
    assert.equal(partial.complete, false);
    const nobody = await call(sockets[0], "poll", { event, to: [unique("void")], ms: 5_000 }, "x");
    assert.deepEqual(nobody, { answers: [], complete: true });
  },

  async "the server disconnects one namespace"(t) {
    const name = unique("name");
    const main = await t.open("/", { auth: { name }, reconnection: true });
    const chat = main.io.socket("/chat");
    await connected(chat);
    main.emit("bye");
    assert.equal((await next(main, "disconnect"))[0], "io server disconnect");
    assert.equal(chat.connected, true);
    assert.equal((await call(chat, "epitaph", name)).reason, "server namespace disconnect");
    await sleep(60);
    assert.equal(main.connected, false, "no reconnection by itself");
    main.connect();
    await connected(main);
    assert.equal(await call(main, "add", 1, 2), 3);
  },

  async "the server closes the whole connection"(t) {
    const name = unique("name");
    const main = await t.open("/", { auth: { name } });
    const chat = main.io.socket("/chat");
    await connected(chat);
    const ends = Promise.all([next(main, "disconnect"), next(chat, "disconnect")]);
    main.emit("bye-all");
    assert.deepEqual((await ends).map((got) => got[0]), Array(2).fill("io server disconnect"));
    await until("engine closed", () => main.io.engine.readyState === "closed");
    const watcher = await t.open();
    const epitaph = await call(watcher, "epitaph", name);
    assert.equal(epitaph.reason, "server namespace disconnect");
  },

  async "the client disconnects; the server knows why and from which rooms"(t) {
    const watcher = await t.open();
    const name = unique("name");
    const room = unique("room");
    const socket = await t.open("/", { auth: { name } });
    await call(socket, "join", room);
    const gone = next(socket, "disconnect");
    socket.disconnect();
    assert.equal((await gone)[0], "io client disconnect");
    const epitaph = await until("epitaph", () => call(watcher, "epitaph", name));
    assert.deepEqual(epitaph, { reason: "client namespace disconnect", rooms: [room] });
    const left = await call(watcher, "command", { op: "fetch", in: room });
    assert.deepEqual(left, []);
  },

  async "the client's transport closes; the server says transport close"(t) {
    const watcher = await t.open();
    const name = unique("name");
    const socket = await t.open("/", { auth: { name } });
    // Nothing is under way any more: a write into a closing connection would be an error.
    await call(socket, "ack");
    socket.io.engine.close();
    const epitaph = await until("epitaph", () => call(watcher, "epitaph", name));
    assert.equal(epitaph.reason, "transport close");
  },

  async "an invalid packet ends the session; the client reconnects with a new id"(t) {
    const name = unique("name");
    const room = unique("room");
    const socket = await t.open("/", { auth: { name }, reconnection: true });
    await call(socket, "join", room);
    const before = socket.id;
    const gone = next(socket, "disconnect");
    // Not a Socket.IO packet: there is no type 9.
    socket.io.engine.write("9");
    assert.equal((await gone)[0], "transport close");
    // Sent while away: kept by the client and delivered after the reconnection.
    const buffered = next(socket, "echo");
    socket.emit("echo", "kept");
    await connected(socket);
    assert.deepEqual(await buffered, ["kept"]);
    assert.notEqual(socket.id, before);
    assert.deepEqual(await call(socket, "join", "again"), ["again"], "rooms are gone");
    const epitaph = await call(socket, "epitaph", name);
    assert.deepEqual(epitaph, { reason: "forced close", rooms: [room] });
  },

  async "1000 messages keep their order both ways, the ack comes after"(t) {
    const socket = await t.open();
    const echo = collect(socket, "echo");
    for (let i = 0; i < 1_000; i++) socket.emit("echo", i);
    await until("1000 echoes", () => echo.length >= 1_000, 15_000);
    assert.deepEqual(echo.map(([i]) => i), Array.from({ length: 1_000 }, (_, i) => i));

    const burst = collect(socket, "burst");
    assert.equal(await call(socket, "burst", 1_000), 1_000);
    assert.deepEqual(burst.map(([i]) => i), Array.from({ length: 1_000 }, (_, i) => i));
  },

  async "a room of 30 receives 50 broadcasts in order"(t) {
    const sockets = await t.openMany(30);
    const room = unique("room");
    const event = unique("tick");
    await Promise.all(sockets.map((socket) => call(socket, "join", room)));
    const seen = sockets.map((socket) => collect(socket, event));
    for (let i = 0; i < 50; i++) {
      sockets[0].emit("relay", { event, to: [room] }, i, () => {});
    }
    await fence(sockets[0], sockets);
    const want = Array.from({ length: 50 }, (_, i) => [i]);
    for (const list of seen) assert.deepEqual(list, want);
  },

  async "volatile events arrive at a reader that keeps up"(t) {
    const socket = await t.open();
    // Over polling "keeps up" means that a poll is pending at that moment: ask until one is.
    const got = collect(socket, "whisper");
    await until("whispered", () => {
      if (got.length === 0) socket.emit("whisper", { soft: true });
      return got.length > 0;
    });
    assert.deepEqual(got[0], [{ soft: true }]);
    const echoed = next(socket, "echo");
    await until("writable", () => socket.io.engine.transport.writable);
    socket.volatile.emit("echo", "from the client");
    assert.deepEqual(await echoed, ["from the client"]);
  },

  async "a volatile broadcast never overtakes"(t) {
    const [a, b] = await t.openMany(2);
    const event = unique("tick");
    const seen = collect(b, event);
    for (let i = 0; i < 100; i++) {
      a.emit("relay", { event, to: [b.id], volatile: i % 2 === 1 }, i, () => {});
    }
    await fence(a, [b]);
    const got = seen.map(([i]) => i);
    assert.deepEqual(got, [...got].sort((x, y) => x - y));
    const lasting = got.filter((i) => i % 2 === 0);
    assert.deepEqual(lasting, Array.from({ length: 50 }, (_, i) => 2 * i), "only volatile may go");
  },

  async "catch-all listeners see every event"(t) {
    const socket = await t.open();
    for (const [name, x] of [["any:one", 1], ["any:two", { a: "b" }]]) {
      const caught = next(socket, "caught");
      socket.emit(name, x);
      assert.deepEqual(await caught, [name, x]);
    }
    const names = [];
    socket.onAny((name) => names.push(name));
    await echoes(socket, ["x"]);
    assert.deepEqual(names, ["echo"]);
  },

  async "heartbeats keep an idle connection beyond interval and timeout"(t) {
    const socket = await t.open();
    const engine = socket.io.engine;
    const ended = collect(socket, "disconnect");
    let pings = 0;
    engine.on("packet", (packet) => (pings += packet.type === "ping"));
    await sleep(6_000);
    assert.deepEqual(ended, []);
    assert(pings >= 3, `${pings} pings in 6 s`);
    assert.equal(await call(socket, "add", 20, 22), 42);
  },

  async "commands on the sockets of a room: fetch, join, leave, disconnect"(t) {
    const [a, b, c] = await t.openMany(3);
    const [room, extra] = [unique("room"), unique("extra")];
    await Promise.all([a, b].map((socket) => call(socket, "join", room)));
    const fetch = (name) => call(c, "command", { op: "fetch", in: name });
    const entry = (socket, rooms) => ({ id: socket.id, rooms: [socket.id, ...rooms].sort() });
    const byId = (x, y) => (x.id < y.id ? -1 : 1);
    const both = [a, b];
    assert.deepEqual(await fetch(room), both.map((s) => entry(s, [room])).sort(byId));

    await call(c, "command", { op: "join", in: room, room: extra });
    const withExtra = both.map((s) => entry(s, [room, extra])).sort(byId);
    await until("both joined", async () => (await fetch(extra)).length === 2);
    assert.deepEqual(await fetch(room), withExtra);

    await call(c, "command", { op: "leave", in: extra, room });
    await until("both left", async () => (await fetch(room)).length === 0);
    assert.deepEqual(await fetch(a.id), [entry(a, [extra])]);

    const ends = Promise.all(both.map((socket) => next(socket, "disconnect")));
    await call(c, "command", { op: "disconnect", in: extra, close: true });
    assert.deepEqual((await ends).map((got) => got[0]), Array(2).fill("io server disconnect"));
    assert.deepEqual(await fetch(extra), []);
  },

  async "a refused handshake reports an error and a later one works"(t) {
    const refused = t.dial("/", { query: { deny: "go away" } });
    const [error] = await next(refused, "connect_error");
    assert(error instanceof Error);
    assert.equal(refused.connected, false);
    const socket = await t.open();
    assert.equal(await call(socket, "add", 1, 2), 3);
  },
};

/** Only for `upgrade`: what happens while two transports belong to one session. */
const UPGRADE_CASES = {
  async "nothing is lost, doubled or reordered while upgrading"(t) {
    const socket = t.dial();
    const engine = socket.io.engine;
    let upgradedAt = -1;
    let sent = 0;
    const echo = collect(socket, "echo");
    const received = collect(socket, "burst");
    engine.once("upgrade", () => (upgradedAt = sent));
    await connected(socket);
    // Bursts of different sizes, spread so that some fall into every step of the upgrade.
    for (let round = 0; round < 60; round++) {
      for (let i = 0; i <= round % 7; i++) {
        socket.emit("echo", sent++, i % 5 ? "t" : Buffer.from([i]));
      }
      if (round % 3 === 0) await sleep(1);
      else await new Promise(setImmediate);
    }
    await until("all echoes", () => echo.length >= sent, 10_000);
    await upgraded(socket);
    assert(upgradedAt >= 0 && upgradedAt <= sent);
    assert.deepEqual(echo.map(([i]) => i), Array.from({ length: sent }, (_, i) => i));
    assert.equal(await call(socket, "burst", 200), 200);
    assert.deepEqual(received.map(([i]) => i), Array.from({ length: 200 }, (_, i) => i));
  },

  async "a broadcast storm meets clients in the middle of their upgrade"(t) {
    const [sender] = await t.openMany(1);
    const room = unique("room");
    const event = unique("tick");
    const sockets = Array.from({ length: 8 }, () => t.dial());
    const seen = sockets.map((socket) => collect(socket, event));
    await Promise.all(sockets.map(connected));
    await Promise.all(sockets.map((socket) => call(socket, "join", room)));
    for (let i = 0; i < 300; i++) {
      sender.emit("relay", { event, to: [room] }, i, () => {});
      if (i % 10 === 0) await sleep(1);
    }
    await Promise.all(sockets.map(upgraded));
    await fence(sender, sockets);
    const want = Array.from({ length: 300 }, (_, i) => [i]);
    for (const list of seen) assert.deepEqual(list, want);
  },
};

const suite = new Suite({ only: options.only });
for (const client of clients) {
  const { io } = (await import(client)).default;
  for (const mode of transports) {
    const cases = mode === "upgrade" ? { ...CASES, ...UPGRADE_CASES } : CASES;
    for (const [name, body] of Object.entries(cases)) {
      suite.add(`${client} ${mode}: ${name}`, (scope) => body(new Bench(io, mode, scope)));
    }
  }
}
process.exit(await suite.run({ width: Number(options.width ?? 8) }));
