"""Clients that want more than they may, on raw sockets, each in a process of its own so that it costs the test's own clients nothing.

    floods.py KIND PORT SOURCE TOKEN        until it is killed

Each kind says on standard output, a line each time, what it has met: `429`, `1008`, `reset`, ...
"""

import contextlib
import json
import select
import socket
import sys


class Raw:
    """One TCP connection from the source address, and as much of RFC 6455 as a flood needs: masked frames with a mask of zeros."""

    def __init__(self, port, source, receive_buffer=0):
        self.socket = socket.socket()
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.bind((source, 0))
        self.socket.settimeout(20)
        self.socket.connect(("127.0.0.1", port))
        self.data = b""

    def request(self, target, headers=""):
        self.socket.sendall(f"GET {target} HTTP/1.1\r\nHost: x\r\n{headers}\r\n".encode())

    def upgrade(self, token):
        self.request(f"/ws?token={token}", "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                     "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n")
        return self.status()

    def status(self):
        while b"\r\n\r\n" not in self.data:
            if not (more := self.socket.recv(65536)):
                raise ConnectionResetError
            self.data += more
        head, self.data = self.data.split(b"\r\n\r\n", 1)
        return int(head.split(b" ")[1])

    @staticmethod
    def frame(payload, opcode=1, final=True):
        size = len(payload)
        head = bytes([(0x80 if final else 0) | opcode])
        head += bytes([0x80 | size]) if size < 126 else b"\xfe" + size.to_bytes(2, "big") if size < 65536 else b"\xff" + size.to_bytes(8, "big")
        return head + bytes(4) + payload

    def frames(self, wait=0.0):
        """(opcode, payload) of what has arrived; a reset, or an end with nothing before it, raises."""
        ended = False
        while not ended and select.select([self.socket], [], [], wait)[0]:
            wait = 0.0
            more = self.socket.recv(1 << 20)
            ended = not more
            self.data += more
        found = []
        while len(self.data) >= 2:
            size, start = self.data[1] & 127, 2
            if size == 126:
                size, start = int.from_bytes(self.data[2:4], "big"), 4
            elif size == 127:
                size, start = int.from_bytes(self.data[2:10], "big"), 10
            if len(self.data) < start + size:
                break
            found.append((self.data[0] & 15, self.data[start:start + size]))
            self.data = self.data[start + size:]
        if ended and not found:
            raise ConnectionResetError
        return found

    def close(self):
        self.socket.close()


def say(what):
    print(what, flush=True)


def meet(frames):
    """Says what has come; the code of a close, if one has."""
    for opcode, payload in frames:
        if opcode == 8:
            say(int.from_bytes(payload[:2], "big"))
            return True
        if opcode == 1 and (code := json.loads(payload).get("code")):
            say(code)


def flood_websocket(port, source, token, payload):
    """The same bytes again and again, read as they are answered; a new connection when the old one is closed."""
    while True:
        with contextlib.suppress(OSError), contextlib.closing(Raw(port, source)) as raw:
            if (status := raw.upgrade(token)) != 101:
                say(status)
                continue
            while not meet(raw.frames()):
                raw.socket.sendall(payload)


def frames(port, source, token):
    flood_websocket(port, source, token, Raw.frame(b'{"type":"typing","channel_id":"flooded"}') * 50)


def large_frames(port, source, token):
    flood_websocket(port, source, token, Raw.frame(b'{"type":"ping","pad":"' + b"x" * 60_000 + b'"}'))


def fragments(port, source, token):
    flood_websocket(port, source, token, Raw.frame(b"", opcode=1, final=False) + Raw.frame(b"", opcode=0, final=False) * 1000 +
                    Raw.frame(b"", opcode=0, final=True))


def pings(port, source, token):
    flood_websocket(port, source, token, Raw.frame(b"x", opcode=9) * 50)


def messages_too_long(port, source, token):
    flood_websocket(port, source, token, Raw.frame(b"x" * 70_000))


def rooms(port, source, token):
    raw = Raw(port, source)
    raw.upgrade(token)
    for number in range(30):
        raw.socket.sendall(Raw.frame(json.dumps({"type": "subscribe", "channel_id": f"room {number}"}).encode()))
    while True:
        meet(raw.frames(wait=1.0))


def handshakes(port, source, token):
    while True:
        try:
            with contextlib.closing(Raw(port, source)) as raw:
                say(raw.upgrade(token[:-9] + "forgeries"))
        except OSError:
            say("reset")


def heads(port, source, token):
    while True:
        with contextlib.suppress(OSError), contextlib.closing(Raw(port, source)) as raw:
            raw.request("/health", "A: " + "a" * 20_000 + "\r\n")
            say(raw.status())


def connections(port, source, token):
    kept = []
    while True:
        try:
            raw = Raw(port, source)
            raw.upgrade(token)
            kept.append(raw)
        except OSError:
            say("reset")


def wait_for_nothing(port, source, sayings):
    """1,500 sockets of 50 addresses that say one of these in turn and nothing more; another one for each that is closed."""
    poll, kept, opened = select.poll(), {}, 0
    while True:
        while len(kept) < 1500:
            with contextlib.suppress(OSError):
                opened += 1
                raw = Raw(port, source.replace("127.0.", f"127.{100 + opened % 50}."))
                raw.socket.sendall(sayings[opened % len(sayings)])
                kept[raw.socket.fileno()] = raw
                poll.register(raw.socket, select.POLLIN)
            closed = poll.poll(0)
            if len(closed) > 100:
                break
        for number, _ in poll.poll(1000):
            poll.unregister(number)
            with contextlib.closing(kept.pop(number)) as raw:
                try:
                    say(raw.status())
                except OSError:
                    say("closed")


def silent(port, source, token):
    wait_for_nothing(port, source, [b""])


def unfinished(port, source, token):
    wait_for_nothing(port, source, [b"", f"GET /ws?token={token} HTTP/1.1\r\n".encode()])


def crowd(port, source, token, use):
    """40 connections of one user; another one for each that is closed."""
    kept = []
    while True:
        while len(kept) < 40:
            raw = Raw(port, source)
            raw.upgrade(token)
            kept.append(raw)
        for raw in list(kept):
            closed = True
            with contextlib.suppress(OSError):
                closed = meet(raw.frames())
                use(raw)
            if closed:
                kept.remove(raw)
                raw.close()


def user_connections(port, source, token):
    crowd(port, source, token, lambda raw: None)


def room_subscribers(port, source, token):
    subscribe = Raw.frame(b'{"type":"subscribe","channel_id":"flooded"}')
    crowd(port, source, token, lambda raw: raw.socket.sendall(subscribe))


if __name__ == "__main__":
    kind, port, source, token = sys.argv[1:]
    globals()[kind](int(port), source, token)
