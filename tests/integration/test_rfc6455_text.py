"""RFC 6455 on raw sockets: UTF-8 and closing, the ground of the Autobahn test suite's sections 6 and 7.

rfc6455_stage.py says how a service that answers JSON shows what it has read.
"""

import struct

import pytest

from rfc6455_stage import HEARD, MESSAGE_MAX, good, lasting, padded, stack, wire  # noqa: F401
from wire import CLOSE, CONTINUATION, PING, TEXT, close_payload, fragments, frame


# ---- 6: UTF-8 ----

VALID = {
    "ASCII": b"Hello-WebSocket",
    "kosme": "κόσμε".encode(),
    "all lengths": "Hello-µ@ßöäüàá-UTF-8!!€𐍈".encode(),
    "first of 1 byte": b"\x00", "first of 2": b"\xc2\x80", "first of 3": b"\xe0\xa0\x80", "first of 4": b"\xf0\x90\x80\x80",
    "last of 1 byte": b"\x7f", "last of 2": b"\xdf\xbf", "last of 3": b"\xef\xbf\xbf", "last of 4": b"\xf4\x8f\xbf\xbf",
    "before surrogates": b"\xed\x9f\xbf", "after surrogates": b"\xee\x80\x80", "replacement": b"\xef\xbf\xbd",
    "noncharacter FFFE": b"\xef\xbf\xbe", "noncharacter FFFF": b"\xef\xbf\xbf", "noncharacter FDD0": b"\xef\xb7\x90",
    **{f"noncharacter {plane:x}FFF{last:x}": chr(plane * 0x10000 + 0xFFF0 + last).encode()
       for plane in range(1, 17) for last in (0xE, 0xF)},
    "byte order mark": b"\xef\xbb\xbf", "combined": "e\u0301".encode(), "emoji": "👩‍🚀".encode(),
}
INVALID = {
    "continuation 80": b"\x80", "continuation bf": b"\xbf", **{f"{n} continuations": (b"\x80\xbf" * 4)[:n] for n in range(2, 8)},
    "all continuations": bytes(range(0x80, 0xC0)),
    "2-byte starts with spaces": b" ".join(bytes([b]) for b in range(0xC0, 0xE0)) + b" ",
    "3-byte starts with spaces": b" ".join(bytes([b]) for b in range(0xE0, 0xF0)) + b" ",
    "4-byte starts with spaces": b" ".join(bytes([b]) for b in range(0xF0, 0xF8)) + b" ",
    "5-byte starts with spaces": b" ".join(bytes([b]) for b in range(0xF8, 0xFC)) + b" ",
    "6-byte starts with spaces": b"\xfc \xfd ",
    "no end of 2": b"\xc3", "no end of 3": b"\xe2\x82", "no end of 4": b"\xf0\x9f\x98", "no end of 3, first only": b"\xe2",
    "no end of 4, first only": b"\xf0", "cut and going on": b"\xe2\x82a",
    "fe": b"\xfe", "ff": b"\xff", "fe fe ff ff": b"\xfe\xfe\xff\xff",
    "slash in 2": b"\xc0\xaf", "slash in 3": b"\xe0\x80\xaf", "slash in 4": b"\xf0\x80\x80\xaf", "slash in 5": b"\xf8\x80\x80\x80\xaf",
    "slash in 6": b"\xfc\x80\x80\x80\x80\xaf", "overlong 7f": b"\xc1\xbf", "overlong 7ff": b"\xe0\x9f\xbf", "overlong ffff": b"\xf0\x8f\xbf\xbf",
    "NUL in 2": b"\xc0\x80", "NUL in 3": b"\xe0\x80\x80", "NUL in 4": b"\xf0\x80\x80\x80",
    **{f"surrogate {s:x}": struct.pack(">BBB", 0xE0 | s >> 12, 0x80 | s >> 6 & 0x3F, 0x80 | s & 0x3F)
       for s in (0xD800, 0xDB7F, 0xDB80, 0xDBFF, 0xDC00, 0xDF80, 0xDFFF)},
    "pair of surrogates": b"\xed\xa0\x80\xed\xb0\x80", "beyond 10ffff": b"\xf4\x90\x80\x80", "first of 5": b"\xf8\x88\x80\x80\x80",
    "first of 6": b"\xfc\x84\x80\x80\x80\x80", "f5": b"\xf5\x80\x80\x80", "f7": b"\xf7\xbf\xbf\xbf",
}
KOSME_BAD = "κόσμε".encode() + b"\xed\xa0\x80" + b"edited"


@pytest.mark.parametrize("name", VALID)
def test_6_valid_text_arrives_however_it_is_cut(good, name):
    text = VALID[name]
    good.send(frame(TEXT, text))
    cuts = range(len(text) + 1)
    good.send(*(piece for cut in cuts for piece in fragments(TEXT, [text[:cut], text[cut:]])))
    good.send(*fragments(TEXT, [text[i:i + 1] for i in range(len(text))]))
    for _ in range(len(cuts) + 2):
        good.expect_error()  # it is no JSON, but text


@pytest.mark.parametrize("name", INVALID)
def test_6_invalid_text_is_refused(wire, name):
    wire.send(frame(TEXT, b"before " + INVALID[name]))
    wire.expect_closed(1007)


@pytest.mark.parametrize("name", INVALID)
def test_6_invalid_text_is_refused_in_fragments_of_a_byte_too(wire, name):
    wire.send(*fragments(TEXT, [bytes([byte]) for byte in INVALID[name]]))
    wire.expect_closed(1007)


@pytest.mark.parametrize("cut", range(len(KOSME_BAD) + 1))
def test_6_3_where_it_is_cut_does_not_matter(wire, cut):
    wire.send(*fragments(TEXT, [KOSME_BAD[:cut], KOSME_BAD[cut:]]))
    wire.expect_closed(1007)


@pytest.mark.parametrize("bad", [b"\xf4\x90", b"\xed\xa0", b"\xff", b"\xc0", b"a\x80", b"\xe0\x80", b"\xf0\x8f"], ids=bytes.hex)
def test_6_4_fail_fast_at_the_first_byte_that_cannot_be(wire, bad):
    wire.send(frame(TEXT, "κόσμε".encode(), fin=False), frame(CONTINUATION, bad, fin=False))
    wire.expect_closed(1007)  # though neither message nor character is over


@pytest.mark.parametrize("bad", [b"\xf4\x90", b"\xff"], ids=bytes.hex)
def test_6_4_fail_fast_inside_a_frame(wire, bad):
    whole = frame(TEXT, "κόσμε".encode() + bad + b"x" * 1000)
    wire.send(whole[:-1000])
    wire.expect_closed(1007)


def test_6_a_ping_may_hold_any_bytes_and_a_binary_one_too(good):
    good.send(frame(PING, b"\xff\xfe"))
    good.expect_pong(b"\xff\xfe")


def test_6_a_character_may_go_on_behind_a_ping(good):
    text = "€".encode()
    good.send(frame(TEXT, text[:1], fin=False), frame(PING, b"\xe2"), frame(CONTINUATION, text[1:]))
    good.expect_pong(b"\xe2")
    good.expect_error()


# ---- 7: closing ----

def test_7_1_1_a_close_behind_a_message(wire):
    wire.send(frame(TEXT, HEARD), frame(CLOSE, close_payload(1000)))
    wire.expect_heard()
    wire.expect_closed(1000)


@pytest.mark.parametrize("late", [frame(CLOSE, close_payload(1000)), frame(TEXT, HEARD), frame(PING, b"late"), b"\xff" * 100,
                                  frame(TEXT, HEARD, mask=None)], ids=["close", "text", "ping", "garbage", "unmasked"])
def test_7_1_nothing_is_read_behind_a_close(wire, late):
    wire.send(frame(CLOSE, close_payload(1000)), late)
    wire.expect_closed(1000)


def test_7_1_6_a_close_behind_much_text(wire):
    wire.send(frame(TEXT, padded(MESSAGE_MAX)), frame(CLOSE, close_payload(1000)), frame(PING, b"late"))
    wire.expect_heard()
    wire.expect_closed(1000)


def test_7_3_1_an_empty_close(wire):
    wire.send(frame(CLOSE))
    wire.expect_closed(None, 1000)


def test_7_3_2_a_close_of_one_byte(wire):
    wire.send(frame(CLOSE, b"\x03"))
    wire.expect_closed(1002)


@pytest.mark.parametrize("size", [0, 1, 5, 122, 123])
def test_7_3_a_close_with_a_reason(wire, size):
    wire.send(frame(CLOSE, close_payload(1000, "r" * size)))
    wire.expect_closed(1000)


def test_7_3_6_a_reason_that_is_too_long(wire):
    wire.send(frame(CLOSE, close_payload(1000, "r" * 124)))
    wire.expect_closed(1002)


def test_7_3_a_close_in_single_bytes(wire):
    wire.send_in_pieces(frame(CLOSE, close_payload(4000, "grüße")), 1)
    wire.expect_closed(4000)


@pytest.mark.parametrize("name", INVALID)
def test_7_5_a_reason_is_utf8(wire, name):
    wire.send(frame(CLOSE, close_payload(1000, INVALID[name])))
    wire.expect_closed(1002, 1007)


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4401, 4999])
def test_7_7_codes_that_may_be_used(wire, code):
    wire.send(frame(CLOSE, close_payload(code)))
    wire.expect_closed(code, 1000)


@pytest.mark.parametrize("code", [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535])
def test_7_9_codes_that_may_not(wire, code):
    wire.send(frame(CLOSE, close_payload(code)))
    wire.expect_closed(1002)


def test_7_13_the_end_of_the_stream_without_a_close(wire):
    wire.send(frame(TEXT, HEARD, fin=False))
    wire.end()
    wire.expect_end()
