"""Churn for a long time: users connect, subscribe, type, read and leave, by all the ways there are; and what the programs hold meanwhile.

    scripts/chaos soak --seconds 3600

Judged at the end:
  memory       of each core and edge: the median of the last third of the time is at most 5 % and 1 MiB above that of the second third
               (the first third is for caches and allocators to fill up). Not judged in a sanitized build, which keeps what is freed.
  descriptors  when everybody has left, at most 8 more are open than before the first one came (gRPC opens some when first needed).
  tables       when everybody has left, no connection, user, room or membership is known to a core, no socket to an edge.
  the end      every program stops on SIGTERM with 0: with AddressSanitizer that says that nothing has leaked.
"""

import asyncio
import contextlib
import json
import os
import statistics
import time
import urllib.parse

import websockets

from harness import BIN, PATIENCE, ROOT
from storm import Publishers
from world import World

GROWTH, ROOM = 1.05, 1 << 20
LAZY = 8  # descriptors
EMPTY = ["connections", "users", "rooms", "memberships"]


class Visitor:
    """Comes as somebody, stays for a moment, goes; again and again."""

    def __init__(self, world, number):
        self.world, self.random = world, world.random_of(f"visitor{number}")
        self.visits = self.messages = 0

    async def live(self, tokens):
        while True:
            with contextlib.suppress(OSError, websockets.WebSocketException, asyncio.TimeoutError):
                await self._visit(self.random.choice(tokens))
            await asyncio.sleep(self.random.uniform(0, 0.3))

    async def _visit(self, token):
        url = f"{self.random.choice(self.world.edges).ws}?token={urllib.parse.quote(token)}"
        socket = await websockets.connect(url, ping_interval=None, compression=None, open_timeout=10, close_timeout=1)
        reader = asyncio.create_task(self._read(socket))
        try:
            self.visits += 1
            rooms = [*self.random.sample(self.world.room_names, 3), f"once{self.random.randrange(1 << 40)}"]
            for room in rooms:
                await self._say(socket, type="subscribe", channel_id=room)
            for _ in range(self.random.randrange(1, 8)):
                await asyncio.sleep(self.random.uniform(0, 1))
                room = self.random.choice(rooms)
                await self._say(socket, **self.random.choice([
                    {"type": "typing", "channel_id": room}, {"type": "ping"}, {"type": "status", "status": "away"},
                    {"type": "status", "status": "online"}, {"type": "unsubscribe", "channel_id": room}, {"type": "nonsense"}]))
            if self.random.random() < 0.3:
                socket.transport.abort()  # no goodbye
            else:
                await socket.close()
        finally:
            reader.cancel()
            socket.transport.abort()

    async def _read(self, socket):
        with contextlib.suppress(websockets.ConnectionClosed):
            async for _ in socket:
                self.messages += 1

    async def _say(self, socket, **frame):
        await socket.send(json.dumps(frame))


def descriptors(process):
    return len(os.listdir(f"/proc/{process.pid}/fd"))


def tables(world):
    """What the programs know of anybody."""
    held = {f"{core.name} {name}": int(core.metric(f"presence_core_{name}")) for core in world.cores for name in EMPTY}
    held.update({f"{edge.name} sockets": int(edge.metric("ws_connections_active")) for edge in world.edges})
    return {name: count for name, count in held.items() if count}


def memory_verdict(samples):
    """The medians of the second and of the last third, and whether that is flat."""
    third = len(samples) // 3
    middle, last = statistics.median(samples[third:2 * third]), statistics.median(samples[-third:])
    return middle, last, last <= middle * GROWTH + ROOM


async def run_soak(seed, seconds, visitors, say=print):
    """Offences, as sentences, and the figures."""
    sanitized = b"__asan_init" in (BIN / "presence-core").read_bytes()
    if sanitized:
        os.environ.setdefault("LSAN_OPTIONS", f"suppressions={ROOT}/tests/lsan.supp:print_suppressions=0")
        os.environ.setdefault("ASAN_OPTIONS", "detect_leaks=1:quarantine_size_mb=16")
    offences, figures = [], {"seconds": seconds}
    async with World(seed, users=0, rooms=20, edges=2) as world:
        programs = [*world.cores, *world.edges]
        tokens = [world.keys.token(f"user{i}", expires_in=86400) for i in range(200)]
        await asyncio.to_thread(tables, world)  # the metrics pages have their threads
        before = {process: descriptors(process) for process in programs}
        crowd = [Visitor(world, number) for number in range(visitors)]
        publishers = Publishers(world)
        load = [world.spawn(visitor.live(tokens)) for visitor in crowd]
        load += [world.spawn(publishers.hope(10)), world.spawn(publishers.insist("api0", 5))]
        sizes = {process: [] for process in programs}
        began, every = time.monotonic(), max(0.5, seconds / 300)
        said = began
        while time.monotonic() - began < seconds:
            await asyncio.sleep(every)
            for process in programs:
                sizes[process].append(process.resident_bytes())
            for task in load:
                if task.done():
                    task.result()
            if time.monotonic() - said > max(10, seconds / 30):
                said = time.monotonic()
                say(f"{said - began:7.0f} s  {sum(visitor.visits for visitor in crowd)} visits; " + ", ".join(
                    f"{process.name} {sizes[process][-1] / (1 << 20):.1f} MiB {descriptors(process)} descriptors" for process in programs))
        for task in load:
            task.cancel()
        await asyncio.wait(load)
        await publishers.close()
        figures["visits"], figures["frames read"] = (sum(getattr(v, name) for v in crowd) for name in ("visits", "messages"))

        deadline = time.monotonic() + (2 * world.heartbeat + 30) * PATIENCE
        while (held := await asyncio.to_thread(tables, world)) and time.monotonic() < deadline:
            await asyncio.sleep(0.5)
        offences += [f"everybody has left, and {name}: {count}" for name, count in held.items()]
        while any(descriptors(process) > before[process] + LAZY for process in programs) and time.monotonic() < deadline:
            await asyncio.sleep(0.5)
        for process in programs:
            middle, last, flat = memory_verdict(sizes[process])
            after = descriptors(process)
            figures[process.name] = (f"{middle / (1 << 20):.1f} MiB, then {last / (1 << 20):.1f} MiB; "
                                     f"{before[process]} descriptors, then {after}")
            if not flat and not sanitized:
                offences.append(f"{process.name} grows: {figures[process.name]}")
            if after > before[process] + LAZY:
                offences.append(f"{process.name} has {after} descriptors open, and had {before[process]}")
    for process in programs:
        if (code := process.process.returncode) != 0:
            offences.append(f"{process.name} ended with {code}: {process.last_words[-2000:]}")
    if sanitized:
        figures["sanitized"] = "memory was not judged, leaks were"
    return offences, figures
