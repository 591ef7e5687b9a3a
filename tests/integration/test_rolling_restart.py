"""Two edges behind nginx are restarted one after the other, as a deployment does it: everybody is sent away, comes back, and nobody sees
anybody leave. ctest runs it with 300 clients, and in `scripts/test --long` with 2,000 (PRESENCE_CLIENTS)."""

import asyncio
import contextlib
import json
import os
import random
import signal
import time

import websockets

from api import OFFLINE, Scene
from balancer import Nginx
from harness import PATIENCE, Stack, until_async

CLIENTS = int(os.environ.get("PRESENCE_CLIENTS", "300"))
ROOM = 10              # clients in one, who are told of each other's presence
AT_ONCE = 100          # handshakes of this test under way
HOLD_MAX = 10 + 0.5    # past the end of its window an edge holds nobody's presence for longer
WINDOW = 3


class Device:
    """A client as a browser has it: subscribes to its room, and does what it is told when it is sent away."""

    def __init__(self, number, url, token, handshakes):
        self.number, self.user = number, f"user-{number}"
        self.url, self.handshakes = f"{url}?token={token}", handshakes
        self.obeys = number % 10 != 0  # the others come back at once
        self.sent_away, self.refused, self.gaps, self.offences = 0, 0, [], []
        self.settled = False  # in its room
        self.socket = None
        self.leaving = False
        self.task = asyncio.create_task(self._live())

    async def _live(self):
        closed_at = None
        while not self.leaving:
            try:
                async with self.handshakes:
                    self.socket = await websockets.connect(self.url, ping_interval=None, compression=None, max_queue=None,
                                                           open_timeout=20 * PATIENCE, close_timeout=2)
            except (OSError, asyncio.TimeoutError, websockets.InvalidHandshake) as error:
                self.refused += 1
                self.offences.append(f"{self.user} was not let in: {error!r}")
                await asyncio.sleep(random.uniform(0.1, 0.5))
                continue
            if closed_at is not None:
                self.gaps.append(time.monotonic() - closed_at)
            after = await self._use()
            closed_at = time.monotonic()
            if not self.leaving and self.obeys:
                await asyncio.sleep(after)

    async def _use(self):
        """Until the socket is closed: after how many seconds to come back."""
        after = None
        with contextlib.suppress(websockets.ConnectionClosed):
            await self.socket.send(json.dumps({"type": "subscribe", "channel_id": f"room-{self.number // ROOM}"}))
            async for text in self.socket:
                frame = json.loads(text)
                if frame["type"] == "subscribed":
                    self.settled = True
                elif frame["type"] == "presence" and frame["status"] == "offline" and not self.leaving:
                    self.offences.append(f"{self.user} saw {frame}")
                elif frame["type"] == "reconnect":
                    after = frame["after_ms"] / 1000
        self.settled = False
        if self.leaving:
            return 0
        code = self.socket.close_code
        if code != 1012 or after is None:
            self.offences.append(f"{self.user} was closed with {code} {self.socket.close_reason}, told {after}")
        self.sent_away += 1
        return after or 0

    async def leave(self):
        self.leaving = True
        await self.socket.close()
        await self.task


async def settled(devices, edges, what):
    """All are in their rooms, on those edges together."""
    await until_async(lambda: all(device.settled for device in devices), 60, what=lambda: (
        f"{what}: {sum(not device.settled for device in devices)} are not back, "
        f"{[offence for device in devices for offence in device.offences][:5]}"))
    await until_async(lambda: sum(edge.metric("ws_connections_active") for edge in edges) == len(devices), what=what)


def quantile(values, share):
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


async def roll(stack, scene, nginx):
    handshakes = asyncio.Semaphore(AT_ONCE)
    devices = [Device(i, nginx.ws, stack.token(f"user-{i}"), handshakes) for i in range(CLIENTS)]
    await settled(devices, stack.edges, "everybody is there")
    # A Redis that has just been started expires nobody for 15 s: nobody could be seen to go by mistake.
    quiet_until = lambda: int(stack.redis.client.hget("presence.sweep", "quiet_until") or 2**62)
    await until_async(lambda: quiet_until() < time.time() * 1000, 20, what="the quiet period is over")
    watchers = [await scene.watch(api, everyone={}).first_part() for api in (scene.here, scene.there)]
    for watcher in watchers:
        assert len(watcher.presences) == CLIENTS

    for edge in stack.edges:
        other = next(each for each in stack.edges if each is not edge)
        before = edge.metric("ws_connections_active")
        assert before > 0
        started = time.monotonic()
        assert await edge.kill_and_wait(signal.SIGTERM) == 0
        took = time.monotonic() - started
        assert took < 10 * PATIENCE, "the whole exit"
        await settled(devices, [other], "everybody is at the other edge")
        print(f"{edge.name}: {before:.0f} clients sent away and gone in {took:.1f} s, "
              f"all back {time.monotonic() - started:.1f} s after SIGTERM")
        edge.start()
        await until_async(edge.healthy, what=f"{edge.name} is back")

    # Whoever was held only, and not back, would be gone by now.
    ends_at = time.monotonic() + HOLD_MAX + 2
    await until_async(lambda: time.monotonic() > ends_at, HOLD_MAX + 10)
    assert [offence for device in devices for offence in device.offences] == []
    for watcher in watchers:
        assert watcher.ended is None
        assert not [presence for response in watcher.responses for presence in response.presences
                    if presence.status == OFFLINE], "nobody was seen offline"
    assert stack.redis.client.zcard("presence.online") == CLIENTS
    sent_away = sum(device.sent_away for device in devices)
    assert sent_away >= CLIENTS and all(device.sent_away <= 2 for device in devices)
    assert sum(core.metric("presence_core_connections_sent_away_total") for core in stack.cores) == sent_away
    gaps = [gap for device in devices for gap in device.gaps]
    print(f"{len(gaps)} reconnects; without a connection: p50 {quantile(gaps, 0.5):.2f} s, p99 {quantile(gaps, 0.99):.2f} s, "
          f"longest {max(gaps):.2f} s")

    # They leave for good: that is seen, at once.
    await asyncio.gather(*(device.leave() for device in devices))
    await until_async(lambda: all(presence.status == OFFLINE for watcher in watchers for presence in watcher.presences.values()),
                      what="everybody is seen offline")
    assert stack.redis.client.zcard("presence.online") == 0
    await until_async(lambda: sum(core.metric("presence_core_connections") for core in stack.cores) == 0)


def test_a_rolling_restart_of_the_edges_shows_nobody_offline():
    edge_settings = {"EDGE_SHARDS": "2", "EDGE_DRAIN_WINDOW": str(WINDOW), "TRUSTED_PROXIES": "127.0.0.1"}
    with Stack(cores=2, edges=2, core_settings={"PRESENCE_SCOPE": "rooms"}, edge_settings=edge_settings) as stack:
        nginx = stack.add(Nginx(stack.directory.name, stack.edges))

        async def story():
            async with Scene(stack) as scene:
                await roll(stack, scene, nginx)
        try:
            asyncio.run(asyncio.wait_for(story(), 240 * PATIENCE))
        finally:
            nginx.stop()
