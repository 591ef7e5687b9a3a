"""Each limit of the edge, tripped by real clients as hard as they can, while bystanders measure their round trips (bystanders.py).

The limits that cores keep are in test_core_limits.py.
"""

import asyncio
import contextlib
import json
import time

import pytest
import websockets

from bystanders import judge, limited, serve_while_tripped
from floods import Raw
from harness import PATIENCE, Client, Stack, get, run, until, until_async

SETTINGS = {
    "WS_FRAMES_BURST": "500",
    "WS_BYTES_BURST": "256KiB",
    "WS_ROOMS_PER_CONNECTION": "10",
    "WS_CONNECTIONS_PER_ADDRESS": "200",
    "HANDSHAKES_PER_SECOND_PER_ADDRESS": "50",
    "HANDSHAKES_PENDING_MAX": "300",
    "WS_HANDSHAKE_TIMEOUT": "30",
}


@pytest.fixture(scope="module")
def stack():
    # Whoever comes and goes all the time is no news to the bystanders, whose reading it would cost time.
    with Stack(redis=False, core_settings={"PRESENCE_SCOPE": "rooms"}, edge_settings=SETTINGS) as stack:
        yield stack


# What is flooded, the limits by their metric, and what the flooding client is told.
@pytest.mark.parametrize("kind, limits, answers", [
    ("frames", ["frames_per_second"], {429: 100, 1008: 2}),
    ("pings", ["rate_closed"], {1008: 2}),
    ("large_frames", ["bytes_per_second"], {429: 5}),
    ("fragments", ["rate_closed"], {1008: 2}),
    ("messages_too_long", ["message_bytes"], {1009: 20}),
    ("rooms", ["rooms_per_connection"], {429: 20}),
    ("handshakes", ["handshakes_per_address", "handshakes_per_address_reset"], {401: 400, 429: 400, "reset": 50}),
    ("heads", ["head_bytes"], {431: 100}),
    ("connections", ["connections_per_address"], {"reset": 50}),
    ("silent", ["handshakes_pending"], {"closed": 1200}),
])
def test_bystanders_are_served_while_a_limit_is_tripped(stack, kind, limits, answers):
    edge = stack.edges[0]
    serve_while_tripped(stack, [edge], kind, answers, lambda: [limited(edge, limit) for limit in limits])


def test_bystanders_are_served_while_silent_sockets_come_to_the_end_of_their_time():
    with Stack(redis=False, core_settings={"PRESENCE_SCOPE": "rooms"}, edge_settings={"WS_HANDSHAKE_TIMEOUT": "1"}) as stack:
        edge = stack.edges[0]
        serve_while_tripped(stack, [edge], "unfinished", {"closed": 1500, 408: 1500}, lambda: [limited(edge, "handshake_timeout")])
        assert limited(edge, "handshakes_pending") == 0, "there were never too many of them"


def test_a_shard_that_is_full_takes_nobody_until_somebody_leaves():
    with Stack(redis=False, edge_settings={"WS_CONNECTIONS_MAX": "20"}) as stack:
        edge = stack.edges[0]

        async def story():
            async def comes_in():
                with contextlib.suppress(OSError, websockets.InvalidMessage, websockets.ConnectionClosed):
                    return await Client.open(edge, stack.token("alice"))
            inside = []
            while client := await comes_in():
                inside.append(client)
            assert 10 < len(inside) <= 20
            await inside[0].close()
            inside[0] = await until_coming_in(comes_in)
            for client in inside:
                await client.ping()
                await client.close()
        run(story())
        assert edge.metric("presence_edge_sockets_refused_total") >= 1


async def until_coming_in(comes_in):
    """The edge hears of the end of the other one a moment later."""
    for _ in range(100):
        if client := await comes_in():
            return client
        await asyncio.sleep(0.05)
    raise AssertionError("nobody is let in")


def test_whoever_comes_back_with_all_its_rooms_is_not_refused():
    with Stack(redis=False) as stack:  # the defaults
        async def story():
            client = await Client.open(stack.edges[0], stack.token("alice"))
            for number in range(1000):
                await client.send(type="subscribe", channel_id=f"room {number}")
                if number % 10 == 0:
                    await client.send(type="typing", channel_id=f"room {number}")
            await client.ping()
            await until_async(lambda: len(client.seen(type="subscribed")) == 1000, seconds=30)
            assert not client.seen(type="error")
            await client.close()
        run(story())


def test_behind_a_trusted_proxy_the_limits_are_the_clients():
    settings = {"TRUSTED_PROXIES": "127.0.0.0/8", "WS_CONNECTIONS_PER_ADDRESS": "3", "HANDSHAKES_PER_SECOND_PER_ADDRESS": "5"}
    with Stack(redis=False, edge_settings=settings) as stack:
        edge = stack.edges[0]
        kept = []  # else they end at once

        def upgrade(forwarded):
            raw = Raw(edge.port, "127.0.0.1")
            raw.request(f"/ws?token={stack.token('alice')}", "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                        f"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n" + (f"X-Forwarded-For: {forwarded}\r\n" if forwarded else ""))
            kept.append(raw)
            return raw, raw.status()

        first = [upgrade("198.51.100.66, 192.0.2.1") for _ in range(3)]
        assert [status for _, status in first] == [101] * 3
        assert upgrade("192.0.2.1")[1] == 429
        until(lambda: limited(edge, "connections_per_address") == 1)
        assert upgrade("192.0.2.2, 127.0.0.9")[1] == 101
        first[0][0].close()
        until(lambda: upgrade("192.0.2.1")[1] == 101, what="a connection is free again")

        headers = {"X-Forwarded-For": "2001:db8::1"}
        answers = [get(edge.http + "/health", headers=headers) for _ in range(80)]
        refused = [answer for answer in answers if answer.status == 429]
        assert refused and refused[0].headers["Retry-After"] == "1"
        assert refused[0].json() == {"error": "Too many requests from this address", "code": 429}
        neighbour = {"X-Forwarded-For": "2001:db8::ffff"}
        assert 429 in [get(edge.http + "/health", headers=neighbour).status for _ in range(5)], "the same /64"
        assert get(edge.http + "/health", headers={"X-Forwarded-For": "2001:db8:0:1::1"}).status == 200
        assert all(get(edge.http + "/health").status == 200 for _ in range(80)), "the proxy's own"
        assert [upgrade(None)[1] for _ in range(4)] == [101] * 3 + [429], "no health check"
        until(lambda: edge.metric("presence_edge_forwarded_malformed_total") == 4)
        assert get(edge.http + "/health", headers={"X-Forwarded-For": "unknown"}).status == 200
        until(lambda: edge.metric("presence_edge_forwarded_malformed_total") == 5)


def test_whoever_is_told_429_loses_its_socket():
    with Stack(redis=False, edge_settings={"HANDSHAKES_PER_SECOND_PER_ADDRESS": "1"}) as stack:
        raw = Raw(stack.edges[0].port, "127.0.0.2")
        raw.socket.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n" * 500)
        answers = b""
        with contextlib.suppress(ConnectionResetError):  # for what is not read any more
            while more := raw.socket.recv(65536):
                answers += more
        raw.close()
        assert answers.count(b"HTTP/1.1 429") == 1
        assert b"Connection: close" in answers[answers.index(b"HTTP/1.1 429"):]
        assert limited(stack.edges[0], "handshakes_per_address") == 1


def test_nobody_else_says_who_it_is():
    with Stack(redis=False, edge_settings={"WS_CONNECTIONS_PER_ADDRESS": "10"}) as stack:
        edge = stack.edges[0]
        kept = []
        for number in range(10):
            raw = Raw(edge.port, "127.0.0.2")
            raw.request("/health", f"X-Forwarded-For: 192.0.2.{number}\r\n")
            assert raw.status() == 200
            kept.append(raw)
        with pytest.raises(OSError):
            raw = Raw(edge.port, "127.0.0.2")
            raw.request("/health", "X-Forwarded-For: 192.0.2.77\r\n")
            raw.status()
        assert get(edge.http + "/health").status == 200, "another address"
        until(lambda: limited(edge, "connections_per_address") == 1)
        until(lambda: "Address 127.0.0.2 is over its limit, WS_CONNECTIONS_PER_ADDRESS" in edge.log())


READERS = 40
SEND_BUFFER = 512 * 1024


def test_readers_that_stop_reading_cost_a_bounded_amount_of_memory_and_nobody_elses_messages():
    with Stack(edge_settings={"WS_SEND_BUFFER_BYTES": str(SEND_BUFFER)}) as stack:
        edge = stack.edges[0]

        async def story():
            readers = []
            for number in range(READERS):
                raw = Raw(edge.port, "127.0.0.2", receive_buffer=4096)
                assert raw.upgrade(stack.token(f"sleeper{number}")) == 101
                raw.socket.sendall(Raw.frame(json.dumps({"type": "subscribe", "channel_id": "busy"}).encode()))
                until(lambda: any(b"subscribed" in payload for _, payload in raw.frames(wait=1.0)), what="a reader has subscribed")
                readers.append(raw)  # and reads no more
            bystander = await Client.open(edge, stack.token("bystander"))
            await bystander.subscribe("busy")
            before, most, sent = edge.resident_bytes(), 0, 0
            dropped_first = None
            before_times, times = [], []

            async def publish():
                nonlocal most, sent
                message = {"room_id": "busy", "type": "message", "number": sent, "pad": "x" * 32_000}
                start = time.monotonic()
                stack.redis.client.publish("message:broadcast", json.dumps(message))
                frame = await bystander.expect(room_id="busy")
                times.append(time.monotonic() - start)
                assert frame["number"] == sent, "in order, none missing"
                sent += 1
                most = max(most, edge.resident_bytes() - before)

            deadline = time.monotonic() + 60 * PATIENCE
            while (closed := limited(edge, "send_buffer_closed")) < READERS:
                assert time.monotonic() < deadline, f"{closed} closed after {sent} messages"
                await publish()
                await bystander.send(type="typing", channel_id="busy")
                await bystander.expect(type="typing")
                if dropped_first is None and limited(edge, "send_buffer_closed") == 0:
                    dropped_first = True if limited(edge, "send_buffer_volatile") > 0 else None
                if len(times) == 20:
                    before_times, times = list(times), times[20:]
            assert dropped_first, "typing goes before anybody does"
            assert most < READERS * SEND_BUFFER + (16 << 20), f"{most >> 20} MiB more"
            judge("stopped readers", before_times, times)
            with_all = edge.resident_bytes()
            for _ in range(100):
                await publish()
            assert edge.resident_bytes() < with_all + (16 << 20), "those who are closed cost nothing any more"
            assert not bystander.closed
            await bystander.close()
            for raw in readers:
                raw.close()
        run(story())
