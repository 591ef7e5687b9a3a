"""The world that is shaken: Redis, cores and edges as real processes, with a relay on each way between them; users with devices, who come
back when their edge dies; and what each of them saw."""

import asyncio
import collections
import contextlib
import json
import random
import sys
import tempfile
import time
import urllib.parse

import websockets

from harness import Core, Edge, Keys, Redis, free_port
from relay import Relay

Seen = collections.namedtuple("Seen", "at kind key")  # kind: message (key: room, publisher, number) or presence (key: user, status)


class Device:
    """One device of a user. Reconnects to some edge when it is closed, as the browser client does."""

    def __init__(self, world, user, rooms):
        self.world, self.user, self.rooms = world, user, rooms
        self.socket = None
        self.sessions = []  # [opened, closed or None, close code, edge]
        self.seen = []  # Seen, of all sessions, in order
        self.view = {}  # user -> the last status that it was told
        self.typings = 0  # that it was told of
        self.subscribed = {}  # room -> since when, of this session
        self.history = []  # (room, since, until): finished subscriptions
        self.leaving = False
        self.choose = None  # always this edge
        self.silent = False  # says nothing any more, and does not answer
        self.spoke_at = 0.0

    async def live(self):
        random_ = self.world.random_of(self.user)
        while not self.leaving:
            edge = self.choose or random_.choice(self.world.edges)
            try:
                await self._session(edge)
            except (OSError, websockets.WebSocketException, asyncio.TimeoutError):
                pass
            if not self.leaving:
                await asyncio.sleep(0.1 + 0.3 * random_.random())

    async def _session(self, edge):
        url = f"{edge.ws}?token={urllib.parse.quote(self.world.keys.token(self.user, expires_in=86400))}"
        async with websockets.connect(url, ping_interval=None, compression=None, open_timeout=5, close_timeout=1) as self.socket:
            session = [None, None, None, edge]
            keeper = asyncio.create_task(self._keep_alive())
            try:
                async for text in self.socket:
                    self._take(json.loads(text), session)
            finally:
                keeper.cancel()
                now = time.monotonic()
                session[1], session[2] = now, self.socket.close_code
                for room, since in self.subscribed.items():
                    self.history.append((room, since, now))
                self.subscribed = {}
                self.socket = None

    def _take(self, frame, session):
        now, kind = time.monotonic(), frame.get("type")
        if kind == "pong" and session[0] is None:
            session[0] = now
            self.sessions.append(session)
            asyncio.create_task(self._subscribe())
        elif kind == "subscribed":
            self.subscribed.setdefault(frame["channel_id"], now)
        elif kind == "message":
            data = frame["data"]
            self.seen.append(Seen(now, "message", (sys.intern(data["room"]), sys.intern(data["from"]), data["n"])))
        elif kind == "presence":
            user, status = sys.intern(frame["user_id"]), sys.intern(frame["status"])
            self.seen.append(Seen(now, "presence", (user, status)))
            self.view[user] = status
        elif kind == "typing":
            self.typings += 1

    async def _subscribe(self):
        for room in self.rooms:
            await self.send(type="subscribe", channel_id=room)

    async def _keep_alive(self):
        while True:
            await asyncio.sleep(self.world.heartbeat * 0.4)
            if not self.silent:
                await self.send(type="ping")

    async def send(self, **frame):
        self.spoke_at = time.monotonic()
        with contextlib.suppress(websockets.ConnectionClosed, AttributeError, OSError):
            await self.socket.send(json.dumps(frame))

    def open(self):
        return bool(self.sessions) and self.sessions[-1][0] is not None and self.sessions[-1][1] is None

    async def leave(self):
        self.leaving = True
        with contextlib.suppress(AttributeError):
            await self.socket.close()


class World:
    def __init__(self, seed, cores=2, edges=3, users=60, rooms=12, heartbeat=2.0, core_settings=None, edge_settings=None, redis=Redis):
        self.seed, self.heartbeat = seed, heartbeat
        self.random = random.Random(seed)
        self.user_names = [f"user{i:03}" for i in range(users)]
        self.room_names = [f"room{i}" for i in range(rooms)]
        self.sizes = (cores, edges)
        self.core_settings, self.edge_settings = core_settings or {}, edge_settings or {}
        self.devices, self.tasks, self.processes = [], [], []
        self.began = time.monotonic()
        self.stalls = []  # (from, until): this program stood still, and with it all clients
        self.redis_type = redis

    def random_of(self, name):
        return random.Random(f"{self.seed}/{name}")

    async def __aenter__(self):
        self.directory = tempfile.TemporaryDirectory(prefix="presence-chaos-")
        folder = self.directory.name
        self.keys = Keys(folder)
        self.redis = self._add(await asyncio.to_thread(self.redis_type, folder))
        common = {"WS_HEARTBEAT_INTERVAL": str(self.heartbeat), "WS_PRESENCE_TTL": str(max(60, 10 * self.heartbeat))}
        self.to_redis, self.cores = [], []
        for i in range(self.sizes[0]):
            relay = await Relay(f"127.0.0.1:{self.redis.port}").start()
            self.to_redis.append(relay)
            self.cores.append(self._add(Core(folder, f"core{i}", f"redis://{relay.address}/0", **common, **self.core_settings)))
        for core in self.cores:
            await asyncio.to_thread(core.await_ready)
        self.to_cores, self.edges = [], []
        for i in range(self.sizes[1]):
            relays = [await Relay(core.link).start() for core in self.cores]
            self.to_cores.append(relays)
            named = [type("At", (), {"link": relay.address}) for relay in relays]
            self.edges.append(self._add(Edge(folder, f"edge{i}", named, self.keys, EDGE_SHARDS="1", **common, **self.edge_settings)))
        for edge in self.edges:
            await asyncio.to_thread(edge.await_ready)
        self.spawn(self._note_stalls())
        return self

    async def _note_stalls(self):
        before = time.monotonic()
        while True:
            await asyncio.sleep(0.05)
            now = time.monotonic()
            if now - before > self.heartbeat / 2:
                self.stalls.append((before, now))
            before = now

    async def __aexit__(self, kind, *_):
        for device in self.devices:
            device.leaving = True
        for task in self.tasks:
            task.cancel()
        if self.tasks:
            await asyncio.wait(self.tasks)
        for process in reversed(self.processes):
            process.begin_stop()
        for process in reversed(self.processes):
            await asyncio.to_thread(process.await_stop)
            process.last_words = process.log()[-4000:]
        for relay in self.to_redis + [relay for relays in self.to_cores for relay in relays]:
            relay.close()
        self.directory.cleanup()

    def _add(self, process):
        self.processes.append(process)
        return process

    def spawn(self, coroutine):
        self.tasks.append(asyncio.create_task(coroutine))
        return self.tasks[-1]

    def add_device(self, user, rooms=None, edge=None):
        device = Device(self, user, rooms if rooms is not None else self.random.sample(self.room_names, 3))
        device.choose = edge
        self.devices.append(device)
        self.spawn(device.live())
        return device

    def populate(self):
        for user in self.user_names:
            for _ in range(1 + (self.random.random() < 0.3)):
                self.add_device(user)

    async def until(self, condition, seconds, what):
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise AssertionError(f"not within {seconds} s: {what}")
            await asyncio.sleep(0.02)
