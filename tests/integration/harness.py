"""Real processes for the integration tests: Redis, cores, edges, and WebSocket clients of another make.

Programs come from PRESENCE_BIN (ctest sets it). Every port is free when it is picked; every process dies with its test.
Nothing sleeps for a fixed time: `until` waits for a condition with a deadline.
"""

import asyncio
import contextlib
import json
import os
import pathlib
import random
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request

import jwt
import redis as redis_client
import websockets
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("PRESENCE_BIN", ROOT / "build/dev/bin"))
# Sanitized programs are slower; what waits is given more time, what is judged is not.
PATIENCE = float(os.environ.get("PRESENCE_PATIENCE", "1"))


def until(condition, seconds=10.0, what=None):
    """Calls `condition` until it returns something true, and returns that."""
    deadline = time.monotonic() + seconds * PATIENCE
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what() if callable(what) else what or condition}")
        time.sleep(0.02)


async def until_async(condition, seconds=10.0, what=None):
    deadline = time.monotonic() + seconds * PATIENCE
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what() if callable(what) else what or condition}")
        await asyncio.sleep(0.02)


_ports = set()


def free_port():
    """Below those that the kernel gives to outgoing connections: one of them could take it before its program listens, or while it is restarted."""
    below = int(pathlib.Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = random.randrange(min(10_000, below // 2), below)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            if port not in _ports:
                _ports.add(port)
                return port


class Keys:
    """An issuer: signs tokens, and publishes the JWK set as a file."""

    def __init__(self, directory):
        self.path = pathlib.Path(directory) / "jwks.json"
        self.private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.ec_private = ec.generate_private_key(ec.SECP256R1())
        rsa_jwk = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(self.private.public_key()))
        rsa_jwk.update(kid="rsa-1", use="sig", alg="RS256")
        rsa_jwk.pop("key_ops", None)
        numbers = self.ec_private.public_key().public_numbers()
        encode = lambda n: jwt.utils.base64url_encode(n.to_bytes(32, "big")).decode()
        ec_jwk = dict(kty="EC", crv="P-256", x=encode(numbers.x), y=encode(numbers.y), kid="ec-1", use="sig", alg="ES256")
        self.path.write_text(json.dumps({"keys": [rsa_jwk, ec_jwk]}))

    def token(self, user, name=None, algorithm="RS256", expires_in=600, **claims):
        now = int(time.time())
        body = {"sub": user, "preferred_username": name or user, "iat": now, "exp": now + expires_in, **claims}
        body = {k: v for k, v in body.items() if v is not None}
        key, kid = (self.private, "rsa-1") if algorithm == "RS256" else (self.ec_private, "ec-1")
        return jwt.encode(body, key, algorithm=algorithm, headers={"kid": kid})

    def public_pem(self):
        return self.private.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


class Process:
    def __init__(self, name, command, directory, environment=None):
        self.name, self.command = name, [str(part) for part in command]
        self.log_path = pathlib.Path(directory) / f"{name}.log"
        self.environment = {**os.environ, **(environment or {})}
        self.process = None
        self.start()

    def start(self):
        with open(self.log_path, "ab") as log:
            self.log_start = log.tell()
            self.process = subprocess.Popen(self.command, stdout=log, stderr=subprocess.STDOUT, env=self.environment)
        return self

    @property
    def pid(self):
        return self.process.pid

    def log(self):
        return self.log_path.read_text(errors="replace")

    def log_since_start(self):
        return self.log_path.read_bytes()[self.log_start:].decode(errors="replace")

    def resident_bytes(self):
        with open(f"/proc/{self.pid}/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def kill(self, number=signal.SIGKILL):
        self.process.send_signal(number)
        if number in (signal.SIGKILL, signal.SIGTERM):
            return self.process.wait(timeout=30 * PATIENCE)
        if number == signal.SIGSTOP:
            until(self.stands_still, what=f"{self.name} stands still")

    def stands_still(self):
        """Every thread has stopped: on a busy machine that is a while after the signal."""
        states = []
        for stat in pathlib.Path(f"/proc/{self.pid}/task").glob("*/stat"):
            with contextlib.suppress(OSError):
                states.append(stat.read_text().rpartition(")")[2].split()[0])
        return bool(states) and all(state in "Tt" for state in states)

    async def kill_and_wait(self, number):
        return await asyncio.to_thread(self.kill, number)

    def begin_stop(self):
        if self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(signal.SIGCONT)
                self.process.send_signal(signal.SIGTERM)

    def stop(self):
        self.begin_stop()
        self.await_stop()

    def await_stop(self):
        if self.process.poll() is None:
            try:
                self.process.wait(timeout=15 * PATIENCE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                raise AssertionError(f"{self.name} did not stop on SIGTERM; log:\n{self.log()[-3000:]}")


class Redis(Process):
    keeping = ["--save", "", "--appendonly", "no"]  # what is on disk, and when

    def __init__(self, directory, port=None):
        self.port = port or free_port()
        self.data = pathlib.Path(directory) / "redis"
        self.data.mkdir(exist_ok=True)
        super().__init__("redis", ["redis-server", "--bind", "127.0.0.1", "--port", self.port, "--dir", self.data, *self.keeping],
                         directory)
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.client = redis_client.Redis(port=self.port, decode_responses=True)
        self.await_ready()

    def await_ready(self):
        def ping():
            with contextlib.suppress(redis_client.exceptions.ConnectionError):
                return self.client.ping()
        until(ping, what="redis answers")


class Core(Process):
    def __init__(self, directory, name, redis_url, **settings):
        self.api, self.link, self.metrics = (f"127.0.0.1:{free_port()}" for _ in range(3))
        super().__init__(name, [BIN / "presence-core"], directory, {
            "REDIS_URL": redis_url, "API_LISTEN": self.api, "LINK_LISTEN": self.link, "METRICS_LISTEN": self.metrics,
            "CORE_NAME": name, **settings})

    def await_ready(self):
        until(lambda: "is ready" in self.log_since_start() or self.process.poll() is not None, what=f"{self.name} is ready")
        assert self.process.poll() is None, self.log()
        return self

    def metric(self, name):
        return metric(f"http://{self.metrics}/metrics", name)


class Edge(Process):
    def __init__(self, directory, name, cores, keys, **settings):
        self.port = free_port()
        self.http = f"http://127.0.0.1:{self.port}"
        self.ws = f"ws://127.0.0.1:{self.port}/ws"
        super().__init__(name, [BIN / "presence-edge"], directory, {
            "SERVICE_HOST": "127.0.0.1", "SERVICE_PORT": str(self.port), "EDGE_NAME": name,
            "CORE_LINK": ",".join(core.link for core in cores), "JWKS_FILE": str(keys.path), **settings})

    def await_ready(self, seconds=10):
        until(lambda: self.process.poll() is not None or self.healthy(), seconds, what=f"{self.name} is healthy")
        assert self.process.poll() is None, self.log()
        return self

    def healthy(self):
        with contextlib.suppress(OSError):
            return get(self.http + "/health").status == 200

    def metric(self, name):
        return metric(self.http + "/metrics", name)


class Answer:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    def json(self):
        return json.loads(self.body)


def get(url, method="GET", headers=None):
    request = urllib.request.Request(url, method=method, headers=headers or {})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=10 * PATIENCE) as response:
            return Answer(response.status, response.headers, response.read().decode())
    except urllib.error.HTTPError as error:
        return Answer(error.code, error.headers, error.read().decode())


def metric(url, name):
    """The sum of all series of that name; `name` may end in {label="value"}."""
    total, found = 0.0, False
    for line in get(url).body.splitlines():
        if line.startswith(name) and line[len(name):len(name) + 1] in (" ", "{", ","):
            total, found = total + float(line.rsplit(" ", 1)[1]), True
    assert found, f"no metric {name}"
    return total


class Stack:
    """Redis, some cores and some edges, all ready."""

    def __init__(self, cores=1, edges=1, redis=True, core_settings=None, edge_settings=None, pinned=False):
        self.pinned = pinned  # each edge knows one core of its own, so that what one does crosses Redis
        self.directory = tempfile.TemporaryDirectory(prefix="presence-")
        self.keys = Keys(self.directory.name)
        self.processes = []
        self.redis = self.add(Redis(self.directory.name)) if redis else None
        url = self.redis.url if redis else "memory:"
        self.cores = [self.add(Core(self.directory.name, f"core{i}", url, **(core_settings or {}))) for i in range(cores)]
        for core in self.cores:
            core.await_ready()
        self.edges = [self.add_edge(i, edge_settings) for i in range(edges)]
        for edge in self.edges:
            edge.await_ready()

    def add(self, process):
        self.processes.append(process)
        return process

    def add_edge(self, number, settings=None):
        # Which core an edge tries first is chance, unless it knows only one.
        cores = [self.cores[number % len(self.cores)]] if self.pinned else self.cores
        return self.add(Edge(self.directory.name, f"edge{number}", cores, self.keys,
                             **{"EDGE_SHARDS": "1", **(settings or {})}))

    def token(self, user, **claims):
        return self.keys.token(user, **claims)

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind is not None:
            for process in self.processes:
                print(f"----- {process.name}\n{process.log()[-6000:]}")
        failures = []
        for program in (Edge, Core, Redis):  # all of a kind at once: a core takes two seconds to close its metrics page
            processes = [process for process in self.processes if isinstance(process, program)]
            for process in processes:
                process.begin_stop()
            for process in processes:
                try:
                    process.await_stop()
                except AssertionError as failure:
                    failures.append(failure)
        self.directory.cleanup()
        if failures and kind is None:
            raise failures[0]


class Client:
    """One WebSocket client. Keeps every frame; `expect` waits for one that has these members."""

    def __init__(self, socket_):
        self.socket = socket_
        self.frames = []
        self.taken = 0
        self.arrived = asyncio.Event()
        self.reader = asyncio.create_task(self._read())

    @classmethod
    async def open(cls, edge, token, subprotocols=None, headers=None, in_url=True):
        url = edge.ws + (f"?token={urllib.parse.quote(token)}" if in_url and token else "")
        return cls(await websockets.connect(url, subprotocols=subprotocols, extra_headers=headers or {}, ping_interval=None,
                                            compression=None, max_size=None, open_timeout=10 * PATIENCE, close_timeout=2))

    def keep_alive(self, seconds):
        """Pings in the background, so that a test may take its time."""
        async def ping():
            with contextlib.suppress(websockets.ConnectionClosed):
                while True:
                    await self.send(type="ping")
                    await asyncio.sleep(seconds)
        self.keeper = asyncio.create_task(ping())
        return self

    async def _read(self):
        try:
            async for text in self.socket:
                self.frames.append(text)
                self.arrived.set()
        except websockets.ConnectionClosed:
            pass
        finally:
            self.arrived.set()

    @property
    def closed(self):
        return self.socket.closed

    @property
    def close_code(self):
        return self.socket.close_code

    async def send(self, **message):
        await self.socket.send(json.dumps(message))

    async def send_text(self, text):
        await self.socket.send(text)

    async def expect(self, seconds=10, **members):
        """The next frame, in order, that has all these members; those before it are passed over."""
        deadline = time.monotonic() + seconds * PATIENCE
        while True:
            while self.taken < len(self.frames):
                frame = json.loads(self.frames[self.taken])
                self.taken += 1
                if all(frame.get(name, None) == value and name in frame for name, value in members.items()):
                    return frame
            left = deadline - time.monotonic()
            if left <= 0 or self.socket.closed:
                raise AssertionError(f"no frame with {members}; closed: {self.socket.closed} {self.socket.close_code} {self.socket.close_reason}; "
                                     f"the last frames: {self.frames[-5:]}")
            self.arrived.clear()
            if self.taken == len(self.frames):
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self.arrived.wait(), left)

    async def await_seen(self, seconds=10, **members):
        """Any frame with these members, one that came before included."""
        return (await until_async(lambda: self.seen(**members), seconds, what=f"a frame with {members}"))[0]

    async def subscribe(self, channel_id=None, dm_id=None):
        await self.send(type="subscribe", **({"channel_id": channel_id} if channel_id is not None else {"dm_id": dm_id}))
        return await self.expect(type="subscribed", channel_id=channel_id, dm_id=dm_id)

    async def ping(self):
        """A round trip: what the edge had queued before is here afterwards."""
        await self.send(type="ping")
        return await self.expect(type="pong")

    def seen(self, **members):
        frames = [json.loads(text) for text in self.frames]
        return [f for f in frames if all(f.get(name) == value for name, value in members.items())]

    async def await_closed(self, seconds=10):
        await asyncio.wait_for(self.socket.wait_closed(), seconds * PATIENCE)
        return self.socket.close_code

    async def close(self):
        await self.socket.close()
        await self.reader


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, 120 * PATIENCE))
