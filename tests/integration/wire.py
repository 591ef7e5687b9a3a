"""A WebSocket client that does what it is told, right or wrong: raw sockets, frames bit by bit, pieces of any size.

Nothing here decides what is allowed; `harness.Client` is for tests that keep the rules. Every read has a deadline.
"""

import json
import os
import socket
import struct
import time

from harness import PATIENCE

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
FIN, RSV1, RSV2, RSV3 = 0x80, 0x40, 0x20, 0x10
KEY = "dGhlIHNhbXBsZSBub25jZQ=="  # of RFC 6455, section 1.3
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
MASK = b"\x37\xfa\x21\x3d"
PATIENCE_SECONDS = 10 * PATIENCE


def frame(opcode, payload=b"", fin=True, reserved=0, mask=MASK, length=None, length_bytes=None):
    """One frame (RFC 6455, section 5.2). `length` and `length_bytes` (0, 2 or 8) overrule what the payload asks for."""
    if isinstance(payload, str):
        payload = payload.encode()
    length = len(payload) if length is None else length
    if length_bytes is None:
        length_bytes = 0 if length < 126 else 2 if length < 65536 else 8
    bit = 0x80 if mask is not None else 0
    header = bytes([(FIN if fin else 0) | reserved | opcode])
    if length_bytes == 0:
        header += bytes([bit | length])
    elif length_bytes == 2:
        header += bytes([bit | 126]) + struct.pack(">H", length)
    else:
        header += bytes([bit | 127]) + struct.pack(">Q", length)
    if mask is None:
        return header + payload
    return header + mask + masked(payload, mask)


def masked(payload, mask=MASK):
    size = len(payload)
    key = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(size, "big")


def fragments(opcode, pieces):
    """A message in these pieces."""
    last = len(pieces) - 1
    return [frame(opcode if i == 0 else CONTINUATION, piece, fin=i == last) for i, piece in enumerate(pieces)]


def close_payload(code, reason=b""):
    return struct.pack(">H", code) + (reason.encode() if isinstance(reason, str) else reason)


def upgrade_head(port, token, method="GET", target=None, version="HTTP/1.1", lines=None, replace=None, end="\r\n"):
    """The opening handshake. `replace`: a header's name to its value, to a list of values, or to None: not sent."""
    headers = {"Host": f"127.0.0.1:{port}", "Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Key": KEY,
               "Sec-WebSocket-Version": "13", **(replace or {})}
    out = [f"{method} {target or f'/ws?token={token}'} {version}"]
    for name, value in headers.items():
        out += [f"{name}: {one}" for one in ([] if value is None else value if isinstance(value, list) else [value])]
    return (end.join(out + (lines or [])) + end + end).encode()


class Answer:
    """The head of an HTTP response."""

    def __init__(self, head):
        first, *lines = head.decode("latin-1").split("\r\n")
        self.version, status, _ = (first + " ").split(" ", 2)
        self.status = int(status)
        self.headers = {}
        for line in lines:
            name, _, value = line.partition(":")
            self.headers.setdefault(name.lower(), value.strip())


class Ended(AssertionError):
    """The server has ended the stream where more was expected."""


class Wire:
    """One TCP connection. `send` writes bytes as they are; `read_frame` gives (opcode, payload), checked for form."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""

    @classmethod
    def open(cls, edge, token):
        """An open WebSocket, behind its first pong."""
        wire = cls(edge.port)
        wire.send(upgrade_head(edge.port, token))
        answer = wire.read_head()
        assert answer.status == 101, answer.status
        assert wire.read_json()["type"] == "pong"
        return wire

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    # --- writing
    def send(self, *parts):
        """Also when the server has gone: what it says then is what is looked at."""
        try:
            self.socket.sendall(b"".join(parts))
        except (BrokenPipeError, ConnectionResetError):
            pass

    def send_in_pieces(self, data, size=1):
        """Each piece a segment of its own."""
        for at in range(0, len(data), size):
            self.send(data[at:at + size])

    def end(self):
        self.socket.shutdown(socket.SHUT_WR)

    # --- reading
    def fill(self, size):
        deadline = time.monotonic() + PATIENCE_SECONDS
        while len(self.buffer) < size:
            self.socket.settimeout(max(0.01, deadline - time.monotonic()))
            try:
                read = self.socket.recv(65536)
            except ConnectionResetError:
                read = b""
            if not read:
                raise Ended(f"the stream has ended; {len(self.buffer)} of {size} bytes: {self.buffer[:80]!r}")
            self.buffer += read

    def take(self, size):
        self.fill(size)
        taken, self.buffer = self.buffer[:size], self.buffer[size:]
        return taken

    def read_head(self):
        while b"\r\n\r\n" not in self.buffer:
            self.fill(len(self.buffer) + 1)
        head, self.buffer = self.buffer.split(b"\r\n\r\n", 1)
        return Answer(head)

    def read_frame(self):
        """The next one that is not somebody's presence: that may come at any time."""
        while True:
            opcode, payload = self._read_any_frame()
            if opcode != TEXT or not payload.startswith(b'{"type":"presence"'):
                return opcode, payload

    def _read_any_frame(self):
        first, second = self.take(2)
        assert first & 0x70 == 0, "no reserved bit"
        assert second & 0x80 == 0, "a server does not mask"
        size = second & 0x7F
        if size == 126:
            size = struct.unpack(">H", self.take(2))[0]
            assert size >= 126, "the shortest length"
        elif size == 127:
            size = struct.unpack(">Q", self.take(8))[0]
            assert size >= 65536, "the shortest length"
        assert first & FIN, "this service sends whole messages"
        opcode = first & 0x0F
        assert opcode in (TEXT, CLOSE, PING, PONG), opcode
        assert opcode == TEXT or size <= 125
        return opcode, self.take(size)

    def read_json(self):
        opcode, payload = self.read_frame()
        assert opcode == TEXT, (opcode, payload)
        return json.loads(payload)

    def expect_pong(self, payload):
        found = self.read_frame()
        assert found == (PONG, payload), found

    def expect_heard(self):
        """A message {"type":"ping"} has been understood."""
        message = self.read_json()
        assert message["type"] == "pong", message

    def expect_error(self):
        """A message has arrived, whole, and was no good."""
        message = self.read_json()
        assert message["type"] == "error" and message["code"] == 400, message

    def expect_closed(self, *codes):
        """A close frame with one of these codes, nothing after it, and the end of the stream. None: without a code."""
        opcode, payload = self.read_frame()
        assert opcode == CLOSE, (opcode, payload)
        code = struct.unpack(">H", payload[:2])[0] if payload else None
        payload[2:].decode()  # a reason is UTF-8
        assert code in codes, (code, payload)
        self.send(frame(CLOSE, payload))  # else a server may wait for it
        self.expect_end()
        return code

    def expect_end(self):
        try:
            self.fill(1)
        except Ended:
            return
        raise AssertionError(f"something follows: {self.buffer[:80]!r}")

    def check_alive(self):
        """A round trip: whatever was sent before has been handled."""
        mark = os.urandom(8)
        self.send(frame(PING, mark))
        self.expect_pong(mark)
