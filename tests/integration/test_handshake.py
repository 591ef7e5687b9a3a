"""RFC 6455's opening handshake on raw sockets, sections 4.1 and 4.2, and what others send to such a port.

rfc6455_stage.py says how a service that answers JSON shows what it has read.
"""

import base64
import hashlib

import pytest

from rfc6455_stage import HEARD, good, lasting, padded, stack, wire  # noqa: F401
from wire import ACCEPT, TEXT, Ended, Wire, frame, upgrade_head


# ---- the opening handshake: sections 4.1 and 4.2 ----

def shake(stack, *parts, pieces=None, **changes):
    """What a handshake is answered with; a good one is followed by the first pong."""
    port = stack.edges[0].port
    with Wire(port) as wire:
        head = upgrade_head(port, stack.the_token, **changes)
        if pieces:
            wire.send_in_pieces(head, pieces)
        wire.send(*([] if pieces else [head]), *parts)
        answer = wire.read_head()
        if answer.status == 101:
            assert answer.headers["sec-websocket-accept"]
            wire.expect_heard()
            for _ in parts:
                wire.expect_heard()
        return answer


def test_4_the_answer_of_the_rfc(stack):
    answer = shake(stack)
    assert answer.status == 101 and answer.version == "HTTP/1.1"
    assert answer.headers["upgrade"].lower() == "websocket" and answer.headers["connection"].lower() == "upgrade"
    assert answer.headers["sec-websocket-accept"] == ACCEPT
    for absent in ("sec-websocket-extensions", "sec-websocket-protocol", "server"):
        assert absent not in answer.headers


@pytest.mark.parametrize("number", range(8))
def test_4_the_accept_of_any_key(stack, number):
    key = base64.b64encode(hashlib.sha256(bytes([number])).digest()[:16]).decode()
    expected = base64.b64encode(hashlib.sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()).decode()
    assert shake(stack, replace={"Sec-WebSocket-Key": key}).headers["sec-websocket-accept"] == expected


GOOD = {
    "upgrade in capitals": {"replace": {"Upgrade": "WEBSOCKET", "Connection": "UPGRADE"}},
    "connection is a list": {"replace": {"Connection": "keep-alive, Upgrade"}},
    "connection is a list without spaces": {"replace": {"Connection": "keep-alive,upgrade,foo"}},
    "connection twice": {"replace": {"Connection": ["keep-alive", "Upgrade"]}},
    "names in lower case": {"replace": {"Host": None, "Upgrade": None, "Connection": None, "Sec-WebSocket-Key": None,
                                        "Sec-WebSocket-Version": None},
                            "lines": ["host: x", "upgrade: websocket", "connection: Upgrade",
                                      "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==", "sec-websocket-version: 13"]},
    "spaces around values": {"replace": {"Upgrade": "  websocket  ", "Sec-WebSocket-Version": " 13 "}},
    "no space behind the colon": {"replace": {"Upgrade": None}, "lines": ["Upgrade:websocket"]},
    "an extension is offered": {"lines": ["Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"]},
    "a subprotocol is offered": {"lines": ["Sec-WebSocket-Protocol: presence.v1"]},
    "an unknown subprotocol is offered": {"lines": ["Sec-WebSocket-Protocol: chat, superchat"]},
    "an unknown header": {"lines": ["X-Anything: \xe9\xff"]},
    "an empty header": {"lines": ["X-Anything:"]},
    "many headers": {"lines": [f"X-{i}: {i}" for i in range(90)]},
    "a long header": {"lines": ["Cookie: " + "c" * 8000]},
}


@pytest.mark.parametrize("name", GOOD)
def test_4_good_handshakes(stack, name):
    assert shake(stack, **GOOD[name]).status == 101


def test_4_the_absolute_form_of_a_proxy(stack):
    assert shake(stack, target=f"http://127.0.0.1:{stack.edges[0].port}/ws?token={stack.the_token}").status == 101


def test_4_a_content_length_of_nothing(stack):
    assert shake(stack, lines=["Content-Length: 0"]).status == 101


@pytest.mark.parametrize("pieces", [1, 5, 100])
def test_4_a_handshake_in_pieces(stack, pieces):
    assert shake(stack, pieces=pieces).status == 101


def test_4_frames_behind_the_handshake_are_read(stack):
    assert shake(stack, frame(TEXT, HEARD), frame(TEXT, padded(20_000))).status == 101


def test_4_the_subprotocol_is_selected_and_the_token_is_not(stack):
    answer = shake(stack, target="/ws", lines=[f"Sec-WebSocket-Protocol: presence.v1, bearer.{stack.the_token}"])
    assert answer.status == 101 and answer.headers["sec-websocket-protocol"] == "presence.v1"


BAD = {
    "no key": ({"replace": {"Sec-WebSocket-Key": None}}, {400}),
    "an empty key": ({"replace": {"Sec-WebSocket-Key": ""}}, {400}),
    "a short key": ({"replace": {"Sec-WebSocket-Key": "c2hvcnQ="}}, {400}),
    "a long key": ({"replace": {"Sec-WebSocket-Key": base64.b64encode(b"k" * 17).decode()}}, {400}),
    "a key that is no base64": ({"replace": {"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25j*Q=="}}, {400}),
    "a key with a space": ({"replace": {"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25 jZQ=="}}, {400}),
    "two keys": ({"replace": {"Sec-WebSocket-Key": ["dGhlIHNhbXBsZSBub25jZQ=="] * 2}}, {400}),
    "two versions": ({"replace": {"Sec-WebSocket-Version": ["13", "8"]}}, {400, 426}),
    "a list of versions": ({"replace": {"Sec-WebSocket-Version": "13, 8"}}, {400, 426}),
    **{f"version {v or 'none'}": ({"replace": {"Sec-WebSocket-Version": v}}, {426}) for v in ("0", "7", "8", "12", "14", "013", "x", None)},
    "hybi-00": ({"replace": {"Sec-WebSocket-Key": None, "Sec-WebSocket-Version": None, "Upgrade": "WebSocket"},
                 "lines": ["Sec-WebSocket-Key1: 4 @1  46546xW%0l 1 5", "Sec-WebSocket-Key2: 12998 5 Y3 1  .P00"]}, {426}),
    "no upgrade": ({"replace": {"Upgrade": None}}, {426}),
    "an upgrade to something else": ({"replace": {"Upgrade": "h2c"}}, {426}),
    "an upgrade that begins like it": ({"replace": {"Upgrade": "websocketx"}}, {426}),
    "no connection": ({"replace": {"Connection": None}}, {426}),
    "connection says keep-alive": ({"replace": {"Connection": "keep-alive"}}, {426}),
    "HTTP/1.0": ({"version": "HTTP/1.0"}, {426}),
    "HTTP/0.9": ({"version": "HTTP/0.9"}, {505}),
    "HTTP/2.0": ({"version": "HTTP/2.0"}, {505}),
    "HTTP/1.1 in lower case": ({"version": "http/1.1"}, {400}),
    "a version of one digit": ({"version": "HTTP/1"}, {400}),
    "POST": ({"method": "POST"}, {405}),
    "get in lower case": ({"method": "get"}, {405}),
    "a method that is no token": ({"method": "G@T"}, {400}),
    "no host": ({"replace": {"Host": None}}, {400}),
    "two hosts": ({"replace": {"Host": ["a", "a"]}}, {400}),
    "bare line feeds": ({"end": "\n"}, {400}),
    "a folded header": ({"lines": ["X-Folded: one", " two"]}, {400}),
    "a header with a space before the colon": ({"lines": ["X-Space : x"]}, {400}),
    "a header without a colon": ({"lines": ["nonsense"]}, {400}),
    "a header without a name": ({"lines": [": x"]}, {400}),
    "a header with NUL": ({"lines": ["X: a\0b"]}, {400}),
    "a header with a carriage return": ({"lines": ["X: a\rb"]}, {400}),
    "a long header": ({"lines": ["X: " + "x" * 17_000]}, {431}),
    "too many headers": ({"lines": [f"X-{i}: {i}" for i in range(200)]}, {431}),
    "a content length that is none": ({"lines": ["Content-Length: x"]}, {400}),
    "a negative content length": ({"lines": ["Content-Length: -1"]}, {400}),
    "two content lengths": ({"lines": ["Content-Length: 0", "Content-Length: 0"]}, {400}),
    "a huge content length": ({"lines": ["Content-Length: 99999999999999999999"]}, {413}),
    "chunks": ({"lines": ["Transfer-Encoding: chunked"]}, {501}),
    "chunks and a length": ({"lines": ["Transfer-Encoding: chunked", "Content-Length: 5"]}, {400}),
    "a target with a space": ({"target": "/ws?token=a b"}, {400}),
    "a target with a fragment": ({"target": "/ws#x"}, {400}),
    "a target that is a name": ({"target": "ws"}, {400}),
    "another path": ({"target": "/wsx"}, {404}),
    "a token with a broken escape": ({"target": "/ws?token=%zz"}, {401}),
}


@pytest.mark.parametrize("name", BAD)
def test_4_bad_handshakes(stack, name):
    changes, statuses = BAD[name]
    answer = shake(stack, **changes)
    assert answer.status in statuses, answer.status
    if answer.status == 426:
        assert answer.headers["upgrade"] == "websocket"
        assert "upgrade" in answer.headers["connection"].lower()
    assert "sec-websocket-accept" not in answer.headers


def test_4_a_get_with_a_body_is_no_upgrade(stack):
    port = stack.edges[0].port
    with Wire(port) as wire:
        wire.send(upgrade_head(port, stack.the_token, lines=["Content-Length: 5"]), b"hello")
        assert wire.read_head().status in (400, 426)


def test_4_what_follows_a_refused_handshake_is_no_request(stack):
    port = stack.edges[0].port
    with Wire(port) as wire:
        wire.send(upgrade_head(port, "bad"), b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = wire.read_head()
        assert answer.status == 401 and answer.headers["connection"] == "close"
        wire.take(int(answer.headers["content-length"]))
        wire.expect_end()


def test_4_a_head_that_never_ends_is_refused_at_its_bound(stack):
    with Wire(stack.edges[0].port) as wire:
        wire.send(b"GET /ws HTTP/1.1\r\nX: " + b"x" * 40_000)
        assert wire.read_head().status == 431


@pytest.mark.parametrize("garbage", [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"\x00" * 10, b"SSH-2.0-x\r\n\r\n",
                                     b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"],
                         ids=["TLS", "NUL", "SSH", "HTTP/2"])
def test_4_other_protocols_are_sent_away_at_once(stack, garbage):
    with Wire(stack.edges[0].port) as wire:
        wire.send(garbage)
        try:
            assert wire.read_head().status in (400, 505)
        except Ended:
            pass
