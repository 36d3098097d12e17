"""python-socketio against a server that keeps the contract of tests/js/clients.mjs.

    python clients.py URL

Every case runs over polling, WebSocket and the upgrade between them. Prints one line per case and
exits with 1 if any failed.
"""

import queue
import sys
import time
import traceback
import uuid

import engineio
import socketio

# This client refuses polls with more than 16 packets unless told otherwise; a server may send more.
engineio.payload.Payload.max_decode_packets = 10_000

WAIT_S = 15
MODES = {
    "polling": ["polling"],
    "websocket": ["websocket"],
    "upgrade": ["polling", "websocket"],
}


class Peer:
    """One client on a connection of its own; every event lands in a queue."""

    def __init__(self, url, mode, namespaces=("/",), auth=None):
        self.client = socketio.Client(reconnection=False)
        self.events = queue.Queue()
        self.answers = {}
        for namespace in namespaces:
            self.client.on("*", self._caught(namespace), namespace=namespace)
            self.client.on("disconnect", self._left(namespace), namespace=namespace)
        self.client.connect(
            url,
            transports=MODES[mode],
            namespaces=list(namespaces),
            auth=auth,
            wait_timeout=WAIT_S,
        )
        wanted = "polling" if mode == "polling" else "websocket"
        assert self.client.transport() == wanted, self.client.transport()

    def _caught(self, namespace):
        def caught(event, *args):
            self.events.put((namespace, event, args))
            return self.answers.get(event)

        return caught

    def _left(self, namespace):
        return lambda reason=None: self.events.put((namespace, "disconnect", (reason,)))

    def emit(self, event, data=None, namespace="/"):
        self.client.emit(event, data, namespace=namespace)

    def call(self, event, data=None, namespace="/"):
        return self.client.call(event, data, namespace=namespace, timeout=WAIT_S)

    def next(self, event, namespace="/"):
        """The arguments of the next such event; others are passed over."""
        end = time.monotonic() + WAIT_S
        while True:
            space, name, args = self.events.get(timeout=max(0.01, end - time.monotonic()))
            if (space, name) == (namespace, event):
                return args

    def drain(self, event):
        """What has arrived of this event up to now, in order."""
        seen = []
        while not self.events.empty():
            _, name, args = self.events.get()
            if name == event:
                seen.append(args)
        return seen

    def close(self):
        self.client.disconnect()


def unique(stem):
    return f"{stem}-{uuid.uuid4().hex[:8]}"


def connects(open_peer):
    peer = open_peer(auth={"token": "é"})
    me = peer.call("whoami")
    assert me == {"id": peer.client.get_sid("/"), "nsp": "/", "auth": {"token": "é"}}, me
    assert me["id"] != peer.client.eio.sid


def echoes(open_peer):
    peer = open_peer()
    lists = [
        (1,),
        ("caffè 日本語 \U0001f600", None, True, 1.5),
        ({"a": {"b": [{"c": "d"}, []]}}, [[]], "last"),
        ("x" * 100_000,),
    ]
    for given in lists:
        peer.emit("echo", given)
        got = peer.next("echo")
        assert got == given, got
    peer.emit("echo")
    assert peer.next("echo") == ()


def binary(open_peer):
    peer = open_peer()
    lists = [
        (b"\x00\x01\xfe\xff",),
        (b"",),
        ({"deep": [{"bytes": b"x"}, b"y"]}, "text", b"z" * 50_000),
    ]
    for given in lists:
        peer.emit("echo", given)
        got = peer.next("echo")
        assert got == given, got
    assert peer.call("ack", {"b": b"\x07"}) == {"b": b"\x07"}


def acknowledges(open_peer):
    peer = open_peer()
    assert peer.call("add", (2, 40)) == 42
    assert peer.call("later", (20, {"x": [1]})) == {"x": [1]}
    assert peer.call("ack") is None
    peer.answers["question"] = {"got": "it"}
    peer.emit("ask", (5_000, "question"))
    assert peer.next("asked") == ({"ok": True, "answer": {"got": "it"}},)


def namespaces(open_peer):
    peer = open_peer(namespaces=("/", "/chat", "/tenant-42"))
    ids = {peer.client.get_sid(name) for name in ("/", "/chat", "/tenant-42")}
    assert len(ids) == 3, ids
    for name in ("/", "/chat", "/tenant-42"):
        peer.emit("echo", name, namespace=name)
        assert peer.next("echo", namespace=name) == (name,)
        assert peer.call("whoami", namespace=name)["nsp"] == name
    try:
        open_peer(namespaces=("/nowhere",))
    except socketio.exceptions.ConnectionError:
        pass
    else:
        raise AssertionError("an unknown namespace was accepted")


def rooms(open_peer):
    one, two, three = open_peer(), open_peer(), open_peer()
    room, event = unique("room"), unique("news")
    assert one.call("join", room) == [room]
    assert two.call("join", room) == [room]
    assert one.call("relay", ({"event": event, "to": [room], "sender": True}, 1)) is True
    assert one.call("relay", ({"event": event, "to": [room]}, {"b": b"2"})) is True
    assert two.next(event) == (1,)
    assert two.next(event) == ({"b": b"2"},)
    assert one.next(event) == ({"b": b"2"},)
    three.call("ack")
    assert three.drain(event) == []


def keeps_order(open_peer):
    peer = open_peer()
    for i in range(300):
        peer.emit("echo", i)
    assert [peer.next("echo")[0] for _ in range(300)] == list(range(300))
    assert peer.call("burst", 300) == 300
    assert [peer.next("burst")[0] for _ in range(300)] == list(range(300))


def stays(open_peer):
    peer = open_peer()
    time.sleep(6)
    assert peer.call("add", (1, 2)) == 3


def is_disconnected(open_peer):
    peer = open_peer(namespaces=("/", "/chat"))
    peer.emit("bye", namespace="/chat")
    peer.next("disconnect", namespace="/chat")
    assert peer.call("add", (1, 2)) == 3
    peer.emit("bye-all")
    peer.next("disconnect")


CASES = [
    connects,
    echoes,
    binary,
    acknowledges,
    namespaces,
    rooms,
    keeps_order,
    stays,
    is_disconnected,
]


def run(url, mode, case):
    peers = []

    def open_peer(**options):
        peer = Peer(url, mode, **options)
        peers.append(peer)
        return peer

    try:
        case(open_peer)
    finally:
        for peer in peers:
            peer.close()


def main():
    if len(sys.argv) != 2:
        sys.exit("usage: clients.py URL")
    failed = 0
    for mode in MODES:
        for case in CASES:
            started = time.monotonic()
            try:
                run(sys.argv[1], mode, case)
                verdict = "ok"
            except Exception:  # noqa: BLE001 - any failure is the verdict of its case
                failed += 1
                verdict = "not ok"
                traceback.print_exc(file=sys.stdout)
            ms = (time.monotonic() - started) * 1000
            print(f"{verdict} - python {mode}: {case.__name__} ({ms:.0f} ms)", flush=True)
    print(f"# {len(MODES) * len(CASES) - failed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
