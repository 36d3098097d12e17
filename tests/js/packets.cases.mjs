// Socket.IO packets: what is answered, and what ends the session.

import assert from "node:assert/strict";
import { sleep } from "./runner.mjs";
import { CONNECT_TIMEOUT_MS, Polling, SLACK_MS, Wire } from "./wire.mjs";

export default function cases({ it, differs, reference }) {
  const EXCHANGES = [
    ["an event", ['42["echo","x",1]'], ['42["echo","x",1]']],
    ["an event named by a number is no error", ['42[1,"x"]', '420["add",1,2]'], ["430[3]"]],
    ["an acknowledgement", ['421["add",1,2]'], ["431[3]"]],
    ["an acknowledgement with a long id", ['42123456789["add",1,2]'], ["43123456789[3]"]],
    ["an acknowledgement of nothing", ['427["ack"]'], ["437[]"]],
    ["an unknown acknowledgement is ignored", ['43999["x"]', '420["add",1,2]'], ["430[3]"]],
    ["an event nobody handles is ignored", ['42["nobody"]', '420["add",1,2]'], ["430[3]"]],
    ["a namespace whose name ends the packet", ["40/tenant-7"], [/^40\/tenant-7,\{"sid":"[\w-]{20}"\}$/]],
    ["a namespace with auth", ['40/chat,{"a":1}'], [/^40\/chat,\{"sid":"[\w-]{20}"\}$/]],
    ["an unknown namespace", ["40/nope,"], ['44/nope,{"message":"Invalid namespace"}']],
    [
      "a refusal with data",
      ['40/guarded,{"token":"bad"}'],
      ['44/guarded,{"message":"not allowed","data":{"code":401,"why":"token"}}'],
    ],
    [
      "a binary event",
      ['451-["echo",{"_placeholder":true,"num":0}]', Buffer.from([1, 2])],
      ['451-["echo",{"_placeholder":true,"num":0}]', Buffer.from([1, 2])],
    ],
    [
      "a binary acknowledgement",
      ['451-7["ack",{"_placeholder":true,"num":0}]', Buffer.from([3])],
      ['461-7[{"_placeholder":true,"num":0}]', Buffer.from([3])],
    ],
    [
      "ten attachments",
      [
        `4510-["nobody",${Array.from({ length: 10 }, (_, i) => `{"_placeholder":true,"num":${i}}`)}]`,
        ...Array.from({ length: 10 }, (_, i) => Buffer.from([i])),
        '420["add",1,2]',
      ],
      ["430[3]"],
    ],
  ];
  for (const [name, given, wanted] of EXCHANGES) {
    it(`answers ${name}`, async (t) => {
      const wire = await Wire.connected(t);
      wire.send(...given);
      for (const want of wanted) {
        const got = await wire.next();
        if (want instanceof RegExp) assert.match(got, want);
        else assert.deepEqual(got, want);
      }
    });
  }

  differs(
    "takes a binary packet without attachments as complete",
    "the reference leaves its decoder waiting and ends the session at the next packet",
    async (t) => {
      const wire = await Wire.connected(t);
      wire.send('450-["echo","x"]');
      assert.equal(await wire.next(), '42["echo","x"]');
      await wire.assertAlive();
    },
  );

  it("leaving a namespace keeps the connection for the next", async (t) => {
    const wire = await Wire.connected(t);
    wire.send("41");
    // The reference leaves a tick later.
    if (reference) await sleep(20);
    await wire.connect();
    await wire.assertAlive();
  });

  const PLACEHOLDER = '{"_placeholder":true,"num":0}';
  const FATAL = [
    ["a type out of range", ["47"]],
    ["a type that is no digit", ["4x"]],
    ["an event that is an object", ["42{}"]],
    ["an event without a name", ["42[]"]],
    ["an event named by an object", ["42[{}]"]],
    ["an event named by null", ["42[null]"]],
    ["JSON that stops", ['42["echo"']],
    ["JSON with more behind it", ['42["echo"]x']],
    ["a CONNECT with an array", ["40/chat,[]"]],
    ["a CONNECT with a string", ['40/chat,"x"']],
    ["a CONNECT with null", ["40/chat,null"]],
    ["a DISCONNECT with a payload", ["41{}"]],
    ["an ACK with an object", ["431{}"]],
    ["a CONNECT_ERROR", ['44{"message":"x"}']],
    ["a second CONNECT", ["40"]],
    ["an event for a namespace not joined", ['42/chat,["echo"]']],
    ["a DISCONNECT for a namespace not joined", ["41/chat,"]],
    ["attachments without a number", ['45-["echo"]']],
    ["attachments that are no number", ['45x-["echo"]']],
    ["attachments without a dash", ['451["echo"]']],
    ["eleven attachments", [`4511-["echo",${PLACEHOLDER}]`]],
    ["text where an attachment is due", [`451-["echo",${PLACEHOLDER}]`, '42["echo"]']],
    ["binary where none is due", [Buffer.from([1])]],
    ["a placeholder out of range", ['451-["echo",{"_placeholder":true,"num":1}]', Buffer.from([1])]],
    ["a negative placeholder", ['451-["echo",{"_placeholder":true,"num":-1}]', Buffer.from([1])]],
    ...["connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"].map(
      (name) => [`the reserved event ${name}`, [`42["${name}"]`]],
    ),
  ];
  for (const [name, packets] of FATAL) {
    it(`ends the session on ${name}`, async (t) => {
      const wire = await Wire.connected(t);
      wire.send(...packets);
      await wire.assertEnded();
      assert.deepEqual(wire.inbox, [], "nothing is answered");
    });
  }
  differs(
    "ends the session on an event without a payload",
    "the reference lets it through as an event without a name",
    async (t) => {
      const wire = await Wire.connected(t);
      wire.send("42");
      await wire.assertEnded();
    },
  );

  it("ends the session on an event before CONNECT", async (t) => {
    const wire = await Wire.open(t);
    wire.send('42["echo"]');
    await wire.assertEnded();
    const session = await Polling.open(t);
    await session.post('42["echo"]');
    await session.assertEnded();
  });

  it("ends the session of a client that joins nothing within connectTimeout", async (t) => {
    const started = performance.now();
    const wire = await Wire.open(t);
    await wire.assertEnded(CONNECT_TIMEOUT_MS + SLACK_MS);
    assert(performance.now() - started > CONNECT_TIMEOUT_MS - 50);
  });
}
