"""What a peer may cost that begins requests and never ends them: nobody can be asked who it is before its request is there."""

import contextlib
import socket
import struct
import threading
import time

import grpc
import pytest

from harness import PATIENCE, Stack, until

API, LINK = "presence.v1.PresenceService", "presence.link.v1.Link"
SENT = 2 * 2**30  # far more than a core may hold
# The bound of 256 MiB, and what allocators make of chunks that come and go: some 850 MiB were seen, and without a bound 2.1 GiB.
# Those of the sanitizers keep more than that: there it is not looked at.
GROWTH_MAX = 1.6 * 2**30


class Flood:
    """Requests of 2 GiB each on one connection, by hand: no library sends what the other side does not want.

    It keeps to flow control, which is why the core reads it at all. Returns when the core has cut it off.
    """

    def __init__(self, address, path, streams):
        host, port = address.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)))
        self.room, self.initial, self.rooms = 65_535, 65_535, {}
        fields = {":method": "POST", ":scheme": "http", ":path": path, ":authority": "x", "content-type": "application/grpc", "te": "trailers"}
        headers = b"".join(b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode() for name, value in fields.items())
        self.out = bytearray(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + self.frame(4, 0, 0, b""))
        for stream in range(1, 2 * streams, 2):
            self.out += self.frame(1, 4, stream, headers) + self.frame(0, 0, stream, b"\0\x7f\xff\xff\xff")
            self.rooms[stream] = self.initial - 5
            self.room -= 5

    @staticmethod
    def frame(kind, flags, stream, payload):
        return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload

    def run(self, on_sent):
        received = b""
        while True:
            for stream in self.rooms:
                while (count := min(self.rooms[stream], self.room, 16_384)) > 0:
                    self.out += self.frame(0, 0, stream, bytes(count))
                    self.rooms[stream] -= count
                    self.room -= count
            self.socket.sendall(self.out)
            on_sent(len(self.out))
            self.out = bytearray()
            if not (data := self.socket.recv(1 << 20)):
                return
            received += data
            while len(received) >= 9 and len(received) >= 9 + int.from_bytes(received[:3], "big"):
                end = 9 + int.from_bytes(received[:3], "big")
                self.handle(received[3], received[4], int.from_bytes(received[5:9], "big"), received[9:end])
                received = received[end:]

    def handle(self, kind, flags, stream, payload):
        if kind == 8 and stream == 0:  # WINDOW_UPDATE
            self.room += int.from_bytes(payload, "big")
        elif kind == 8 and stream in self.rooms:
            self.rooms[stream] += int.from_bytes(payload, "big")
        elif kind == 3:  # RST_STREAM
            self.rooms.pop(stream, None)
        elif kind == 6 and not flags & 1:  # PING
            self.out += self.frame(6, 1, 0, payload)
        elif kind == 4 and not flags & 1:  # SETTINGS
            for key, value in struct.iter_unpack(">HI", payload):
                if key == 4:
                    self.rooms = {number: room + value - self.initial for number, room in self.rooms.items()}
                    self.initial = value
            self.out += self.frame(4, 1, 0, b"")


class Flooding:
    """Four peers that flood; who is cut off comes back."""

    def __init__(self, address, path):
        self.sent, self.over, self.cut_off = 0, False, 0
        self.lock = threading.Lock()
        self.sockets = [None] * 4
        self.threads = [threading.Thread(target=self.run, args=(number, address, path)) for number in range(len(self.sockets))]
        for thread in self.threads:
            thread.start()

    def run(self, number, address, path):
        while not self.over:
            with contextlib.suppress(OSError):
                flood = Flood(address, path, streams=20)
                self.sockets[number] = flood.socket
                flood.socket.settimeout(PATIENCE)  # a flood that is not read is no flood
                flood.run(self.count)
            self.cut_off += 1

    def count(self, sent):
        with self.lock:
            self.sent += sent

    def stop(self):
        self.over = True
        for peer in self.sockets:
            with contextlib.suppress(OSError, AttributeError):
                peer.shutdown(socket.SHUT_RDWR)
        for thread in self.threads:
            thread.join()


@pytest.mark.parametrize("listener, method", [("api", f"{API}/Broadcast"), ("link", f"{LINK}/ListPresence")])
def test_unfinished_requests_cost_a_bounded_amount_of_memory(listener, method):
    with Stack() as stack:
        [core], [edge] = stack.cores, stack.edges
        losses = edge.metric("presence_edge_link_losses_total")
        with grpc.insecure_channel(core.api) as channel:
            get_presence = channel.unary_unary(f"/{API}/GetPresence")

            def answer():
                try:
                    get_presence(b"\x0a\x05alice", timeout=10 * PATIENCE)
                except grpc.RpcError as error:
                    return error.code()

            assert answer() is None
            before, most, answers = core.resident_bytes(), 0, []
            flooding = Flooding(getattr(core, listener), "/" + method)
            try:
                deadline = time.monotonic() + 60 * PATIENCE
                while flooding.sent < SENT:
                    assert time.monotonic() < deadline, f"only {flooding.sent} bytes sent"
                    answers.append(answer())
                    most = max(most, core.resident_bytes() - before)
            finally:
                flooding.stop()
            assert flooding.cut_off > 0
            if PATIENCE == 1:
                assert most < GROWTH_MAX, f"{most >> 20} MiB more"
            # Whoever is cut off on the flooded listener is told to try again; on the other one nobody is.
            assert set(answers) <= ({None, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED} if listener == "api" else {None})
            assert None in answers
            until(lambda: answer() is None, what="the API answers")
            until(edge.healthy, what="the edge is attached")
            if listener == "api":
                assert edge.metric("presence_edge_link_losses_total") == losses
