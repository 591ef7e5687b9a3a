"""RFC 6455 on raw sockets, against the real edge: frames, the ground of the Autobahn test suite's sections 1 to 5.

rfc6455_stage.py says how a service that answers JSON shows what it has read.
"""

import itertools
import os

import pytest

from rfc6455_stage import HEARD, MESSAGE_MAX, good, lasting, padded, stack, wire  # noqa: F401
from wire import BINARY, CLOSE, CONTINUATION, PING, PONG, RSV1, RSV2, RSV3, TEXT, Wire, close_payload, fragments, frame


# ---- 1: framing ----

LENGTHS = [15, 16, 124, 125, 126, 127, 128, 129, 1000, 65534, 65535, 65536, 65537, MESSAGE_MAX]


@pytest.mark.parametrize("size", LENGTHS)
def test_1_1_text_of_every_length_of_length(good, size):
    good.send(frame(TEXT, padded(size)))
    good.expect_heard()


@pytest.mark.parametrize("piece", [1, 2, 3, 7, 64, 997, 1460])
@pytest.mark.parametrize("size", [125, 126, 65535, 65536])
def test_1_1_text_that_comes_in_pieces(good, size, piece):
    data = frame(TEXT, padded(size))
    good.send_in_pieces(data[:2000], piece)
    good.send(data[2000:])
    good.expect_heard()


def test_1_1_an_empty_text_is_a_message(good):
    good.send(frame(TEXT))
    good.expect_error()


@pytest.mark.parametrize("mask", [b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x01\0\0\0", b"{\"ty"])
def test_1_1_any_mask_will_do(good, mask):
    good.send(frame(TEXT, padded(200), mask=mask))
    good.expect_heard()


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 128, 65535, 65536])
def test_1_2_binary_is_refused(wire, size):
    wire.send(frame(BINARY, os.urandom(size)), frame(TEXT, HEARD))
    wire.expect_closed(1003)


def test_1_2_a_binary_message_in_fragments_is_refused_too(wire):
    wire.send(*fragments(BINARY, [b"\xff", b"\xfe", b""]))
    wire.expect_closed(1003)


def test_1_3_one_byte_more_than_the_limit(wire):
    wire.send(frame(TEXT, padded(MESSAGE_MAX + 1))[:14])  # its header is enough
    wire.expect_closed(1009)


def test_1_3_the_limit_is_that_of_a_message_not_of_a_frame(wire):
    wire.send(*fragments(TEXT, [padded(MESSAGE_MAX), b" "]))
    wire.expect_closed(1009)


@pytest.mark.parametrize("length", [MESSAGE_MAX + 1, 2**31, 2**32, 2**32 + 5, 2**63 - 1, 2**63, 2**64 - 1])
def test_1_3_lengths_that_nobody_has(wire, length):
    wire.send(frame(TEXT, b"x", length=length, length_bytes=8))
    wire.expect_closed(1002, 1009)


@pytest.mark.parametrize("length", [MESSAGE_MAX, 2**63 - 1, 2**64 - 1, 2**64 - 5])
def test_1_3_lengths_that_would_overflow_a_sum(wire, length):
    wire.send(frame(TEXT, b"hello", fin=False), frame(CONTINUATION, b"x", length=length, length_bytes=8))
    wire.expect_closed(1002, 1009)


@pytest.mark.parametrize("length, length_bytes", [(0, 2), (15, 2), (125, 2), (15, 8), (126, 8), (65535, 8)])
def test_1_4_a_length_is_written_in_the_fewest_bytes(wire, length, length_bytes):
    wire.send(frame(TEXT, b" " * length, length=length, length_bytes=length_bytes))
    wire.expect_closed(1002)


@pytest.mark.parametrize("opcode", [TEXT, BINARY, CONTINUATION, PING, PONG, CLOSE])
def test_1_5_every_frame_of_a_client_is_masked(wire, opcode):
    wire.send(frame(opcode, b"" if opcode == CLOSE else b"x", mask=None), frame(TEXT, HEARD))
    wire.expect_closed(1002)


# ---- 2: pings and pongs ----

@pytest.mark.parametrize("payload", [b"", b"Hello", bytes(range(0xF8, 0x100)), b"\xfe" * 125, b"\0"], ids=["none", "text", "bytes", "125", "NUL"])
def test_2_1_a_ping_is_answered_with_its_payload(good, payload):
    good.send(frame(PING, payload))
    good.expect_pong(payload)


def test_2_2_a_ping_of_126_bytes(wire):
    wire.send(frame(PING, b"\xfe" * 126))
    wire.expect_closed(1002)


def test_2_3_a_ping_in_single_bytes(good):
    good.send_in_pieces(frame(PING, b"\xfe" * 125), 1)
    good.expect_pong(b"\xfe" * 125)


@pytest.mark.parametrize("payload", [b"", b"unsolicited", b"\xff" * 125])
def test_2_4_a_pong_that_nobody_asked_for_is_ignored(good, payload):
    good.send(frame(PONG, payload), frame(PING, b"after"))
    good.expect_pong(b"after")


def test_2_5_ten_pings_at_once_are_answered_in_their_order(good):
    good.send(*(frame(PING, b"payload-%d" % i) for i in range(10)))
    for i in range(10):
        good.expect_pong(b"payload-%d" % i)


def test_2_5_ten_pings_in_single_bytes(good):
    good.send_in_pieces(b"".join(frame(PING, b"payload-%d" % i) for i in range(10)), 1)
    for i in range(10):
        good.expect_pong(b"payload-%d" % i)


def test_2_6_a_pong_of_126_bytes(wire):
    wire.send(frame(PONG, b"x" * 126))
    wire.expect_closed(1002)


# ---- 3: reserved bits ----

BITS = [sum(bits) for n in (1, 2, 3) for bits in itertools.combinations((RSV1, RSV2, RSV3), n)]


@pytest.mark.parametrize("opcode", [TEXT, BINARY, PING, PONG, CLOSE])
@pytest.mark.parametrize("bits", BITS)
def test_3_reserved_bits(wire, bits, opcode):
    wire.send(frame(TEXT, HEARD), frame(opcode, b"", reserved=bits), frame(PING, b"late"))
    wire.expect_heard()
    wire.expect_closed(1002)


def test_3_reserved_bits_of_a_continuation(wire):
    wire.send(frame(TEXT, HEARD, fin=False), frame(CONTINUATION, b"", reserved=RSV1))
    wire.expect_closed(1002)


# ---- 4: opcodes ----

@pytest.mark.parametrize("payload", [b"", b"reserved"])
@pytest.mark.parametrize("opcode", [3, 4, 5, 6, 7, 0xB, 0xC, 0xD, 0xE, 0xF])
def test_4_reserved_opcodes(wire, opcode, payload):
    wire.send(frame(TEXT, HEARD), frame(opcode, payload), frame(PING, b"late"))
    wire.expect_heard()
    wire.expect_closed(1002)


# ---- 5: fragmentation ----

@pytest.mark.parametrize("opcode", [PING, PONG, CLOSE])
def test_5_1_control_frames_are_never_fragmented(wire, opcode):
    wire.send(frame(opcode, b"", fin=False), frame(CONTINUATION, b"", fin=True))
    wire.expect_closed(1002)


@pytest.mark.parametrize("cut", range(len(HEARD) + 1))
def test_5_3_a_text_in_two_fragments(good, cut):
    good.send(*fragments(TEXT, [HEARD[:cut], HEARD[cut:]]))
    good.expect_heard()


def test_5_3_a_text_in_fragments_of_one_byte_each_in_single_bytes(good):
    good.send_in_pieces(b"".join(fragments(TEXT, [HEARD[i:i + 1] for i in range(len(HEARD))])), 1)
    good.expect_heard()


def test_5_4_empty_fragments(good):
    good.send(*fragments(TEXT, [b"", b"", HEARD, b"", b""]))
    good.expect_heard()
    good.send(*fragments(TEXT, [b"", b""]))
    good.expect_error()


def test_5_5_a_ping_between_fragments_is_answered_at_once(good):
    first, *middle, last = fragments(TEXT, [HEARD[:5], HEARD[5:9], HEARD[9:]])
    good.send(first, frame(PING, b"between"))
    good.expect_pong(b"between")
    good.send(*middle, frame(PONG, b"not asked for"), frame(PING, b"again"))
    good.expect_pong(b"again")
    good.send(last)
    good.expect_heard()


def test_5_6_pings_between_all_fragments(good):
    for piece in fragments(TEXT, [HEARD[i:i + 1] for i in range(len(HEARD))]):
        good.send(frame(PING, b"p"), piece)
    for _ in HEARD:
        good.expect_pong(b"p")
    good.expect_heard()


@pytest.mark.parametrize("fin", [True, False])
@pytest.mark.parametrize("payload", [b"", b"of what"])
def test_5_9_a_continuation_of_nothing(wire, fin, payload):
    wire.send(frame(CONTINUATION, payload, fin=fin), frame(TEXT, HEARD))
    wire.expect_closed(1002)


def test_5_12_a_continuation_after_a_whole_message(wire):
    wire.send(frame(TEXT, HEARD), frame(CONTINUATION, b"more"), frame(TEXT, HEARD))
    wire.expect_heard()
    wire.expect_closed(1002)


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("fin", [True, False])
def test_5_18_a_new_message_inside_a_fragmented_one(wire, opcode, fin):
    wire.send(frame(TEXT, HEARD, fin=False), frame(opcode, HEARD, fin=fin))
    wire.expect_closed(1002)


def test_5_19_a_fragmented_message_with_pauses(good):
    *first, last = fragments(TEXT, [HEARD[:3], b"", HEARD[3:8], HEARD[8:]])
    for piece in first:
        good.send(piece)
        good.check_alive()  # nothing was said: the message is still open
    good.send(last)
    good.expect_heard()


def test_5_20_a_close_between_fragments(wire):
    wire.send(frame(TEXT, HEARD, fin=False), frame(CLOSE, close_payload(1000)))
    wire.expect_closed(1000)


def test_5_21_many_fragments(good):
    good.send(*fragments(TEXT, [HEARD] + [b" "] * 2000))
    good.expect_heard()


def test_the_edge_is_still_well(stack):
    with Wire.open(stack.edges[0], stack.the_token) as wire:
        wire.check_alive()
    log = stack.edges[0].log()
    assert "invariant" not in log and stack.the_token not in log
