"""The fixtures that the tests of RFC 6455 share: one edge, connections to break, and one that lasts over many good checks.

This service answers JSON, not echoes: a `pong` message for {"type":"ping"}, however long its spaces make it, and an `error` 400 for any other
text say that a message has arrived whole. Binary messages are refused with 1003.
"""

import pytest

from harness import Stack
from wire import Wire

MESSAGE_MAX = 128 * 1024
# One client does here what a thousand do elsewhere.
NO_LIMITS = {"WS_FRAMES_PER_SECOND": "0", "WS_BYTES_PER_SECOND": "0", "HANDSHAKES_PER_SECOND_PER_ADDRESS": "0"}
HEARD = b'{"type":"ping"}'


@pytest.fixture(scope="module")
def stack():
    with Stack(redis=False, edge_settings={"WS_MAX_MESSAGE_BYTES": str(MESSAGE_MAX), **NO_LIMITS}) as stack:
        stack.the_token = stack.token("rfc")
        yield stack


@pytest.fixture
def wire(stack):
    with Wire.open(stack.edges[0], stack.the_token) as wire:
        yield wire


@pytest.fixture(scope="module")
def lasting(stack):
    """One connection for many checks that leave it open; opened again when a failed one has closed it."""
    class Lasting:
        wire = None

        def get(self):
            if self.wire is None:
                self.wire = Wire.open(stack.edges[0], stack.the_token)
            return self.wire

        def forget(self):
            if self.wire is not None:
                self.wire.socket.close()
            self.wire = None
    lasting = Lasting()
    yield lasting
    lasting.forget()


@pytest.fixture
def good(lasting):
    """For checks that end with a round trip."""
    wire = lasting.get()
    try:
        yield wire
        wire.check_alive()
    except BaseException:
        lasting.forget()
        raise


def padded(size):
    return HEARD + b" " * (size - len(HEARD))
