"""What a client may send, right and wrong, over a real socket."""

import json
import socket

import pytest
import websockets

from harness import Client, Stack, run, until


@pytest.fixture(scope="module")
def stack():
    with Stack(redis=False, edge_settings={"WS_MAX_MESSAGE_BYTES": "4096"}) as stack:
        yield stack


BAD_TEXTS = {
    "not JSON": "hello",
    "half JSON": '{"type":"ping"',
    "not an object": '["ping"]',
    "two objects": '{"type":"ping"}{"type":"ping"}',
    "empty": "",
    "no type": "{}",
    "type is no string": '{"type":1}',
    "unknown type": '{"type":"shout"}',
    "subscribe to nothing": '{"type":"subscribe"}',
    "both ids": '{"type":"subscribe","channel_id":"a","dm_id":"b"}',
    "both null": '{"type":"subscribe","channel_id":null,"dm_id":null}',
    "id is a number": '{"type":"subscribe","channel_id":5}',
    "id is empty": '{"type":"subscribe","channel_id":""}',
    "id with NUL": '{"type":"subscribe","channel_id":"a\\u0000b"}',
    "id of 2,049 bytes": json.dumps({"type": "subscribe", "channel_id": "x" * 2049}),
    "typing nowhere": '{"type":"typing"}',
    "leaving nothing": '{"type":"unsubscribe"}',
    "status unknown": '{"type":"status","status":"offline"}',
    "status missing": '{"type":"status"}',
    "deep": '{"type":' + "[" * 500 + "]" * 500 + "}",
    "lone surrogate": '{"type":"subscribe","channel_id":"\\ud800"}',
}


@pytest.mark.parametrize("name", BAD_TEXTS)
def test_bad_input_gets_400_and_the_socket_stays_open(stack, name):
    async def story():
        errors = stack.edges[0].metric("ws_errors_total")
        client = await Client.open(stack.edges[0], stack.token("sender"))
        await client.send_text(BAD_TEXTS[name])
        error = await client.expect(type="error")
        assert set(error) == {"type", "error", "code"} and error["code"] == 400
        assert 0 < len(error["error"]) < 200
        await client.subscribe(channel_id="still works")
        await client.close()
        until(lambda: stack.edges[0].metric("ws_errors_total") > errors, what="it is counted")
    run(story())


def test_every_request_is_confirmed_as_specified(stack):
    async def story():
        client = await Client.open(stack.edges[0], stack.token("user"))
        assert json.loads((await client.expect(type="pong")) and client.frames[0])["type"] == "pong"
        for _ in range(2):  # repeating is confirmed again
            assert await client.subscribe(dm_id="dm_123") == {"type": "subscribed", "channel_id": None, "dm_id": "dm_123"}
        await client.send(type="typing", dm_id="dm_123")
        assert await client.expect(type="typing") == {
            "type": "typing", "channel_id": None, "dm_id": "dm_123", "user_id": "user", "username": "user"}
        await client.ping()
        assert len(client.seen(type="typing")) == 1, "delivers once"
        # The room is the string, whichever field names it: the sender's field decides what others see.
        await client.send(type="typing", channel_id="dm_123")
        assert (await client.expect(type="typing"))["channel_id"] == "dm_123"
        for _ in range(2):  # leaving a room that one is not in is confirmed, too
            await client.send(type="unsubscribe", dm_id="dm_123")
            assert await client.expect(type="unsubscribed") == {"type": "unsubscribed", "channel_id": None, "dm_id": "dm_123"}
        pong = await client.ping()
        assert set(pong) == {"type", "timestamp"}
        await client.close()
    run(story())


def test_a_binary_frame_is_closed_with_1003(stack):
    async def story():
        client = await Client.open(stack.edges[0], stack.token("user"))
        bystander = await Client.open(stack.edges[0], stack.token("bystander"))
        await client.socket.send(b"\x00\x01")
        assert await client.await_closed() == 1003
        await bystander.ping()
        await bystander.close()
    run(story())


def test_a_message_over_the_limit_is_closed_with_1009(stack):
    async def story():
        client = await Client.open(stack.edges[0], stack.token("user"))
        await client.send_text('{"type":"ping","pad":"' + "x" * (4096 - 24) + '"}')  # 4,096 bytes: just fits
        await client.expect(type="pong")
        await client.send_text("x" * 4097)
        assert await client.await_closed() == 1009
    run(story())


def test_only_websocket_version_13_is_spoken(stack):
    head = ("GET /ws?token={} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            "Sec-WebSocket-Version: 8\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n").format(stack.token("user"))
    with socket.create_connection(("127.0.0.1", stack.edges[0].port), timeout=10) as connection:
        connection.sendall(head.encode())
        answer = connection.recv(4096).decode()
    assert answer.startswith("HTTP/1.1 426"), answer
    assert "sec-websocket-version: 13" in answer.lower()


def test_one_client_cannot_use_up_the_log_of_the_others(stack):
    async def story():
        loud = await Client.open(stack.edges[0], stack.token("loud"))
        for _ in range(500):
            await loud.send_text('{"type":"login","token":"' + stack.token("loud") + '"}')
        await loud.ping()
        quiet = await Client.open(stack.edges[0], stack.token("quiet"))
        await quiet.send_text("the quiet one's mistake")
        await quiet.expect(type="error")
        await loud.close()
        await quiet.close()
    run(story())
    log = until(lambda: "the quiet one's mistake" in stack.edges[0].log() and stack.edges[0].log())
    assert 0 < log.count("[redacted]") <= 10
    assert "eyJ" not in log


def test_the_log_has_the_specified_lines(stack):
    async def story():
        client = await Client.open(stack.edges[0], stack.token("user-123", name="alice"))
        await client.subscribe(channel_id="channel_general")
        await client.close()
    run(story())
    import re
    stamp = r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d INFO "
    log = until(lambda: "subscribed to room channel_general" in stack.edges[0].log() and stack.edges[0].log())
    assert re.search(stamp + r"User alice \(user-123\) connected with connection conn-[0-9a-f-]+$", log, re.M)
    assert re.search(stamp + r"Connection conn-[0-9a-f-]+ subscribed to room channel_general$", log, re.M)
    warning = stamp.replace("INFO", "WARNING") + r"User alice \(user-123\) disconnected, connection conn-[0-9a-f-]+, code 1000$"
    until(lambda: re.search(warning, stack.edges[0].log(), re.M))
