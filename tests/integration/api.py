"""The core's gRPC API from Python: stubs made from the proto files when this is imported, and stories told with them.

    @story
    async def test_it(scene):
        alice = await scene.connect(1, "alice")
        await eventually(lambda: scene.here.is_online("alice"))

Unary calls have a deadline, so that one that hangs ends its test; streams end with their channel.
"""

import asyncio
import atexit
import contextlib
import importlib
import shutil
import signal
import sys
import tempfile
import time

import grpc
from grpc_tools import protoc

from harness import PATIENCE, ROOT, Client, run

_stubs = tempfile.mkdtemp(prefix="presence-stubs-")
atexit.register(shutil.rmtree, _stubs, ignore_errors=True)
if protoc.main(["protoc", f"-I{ROOT / 'proto'}", f"--python_out={_stubs}", f"--grpc_python_out={_stubs}",
                *(f"{name}.proto" for name in ("presence/v1/presence", "presence/v1/room_authorizer", "presence/admin/v1/admin", "presence/link/v1/link",
                                               "google/rpc/status", "google/rpc/error_details"))]):
    raise RuntimeError("the proto files do not compile")
sys.path.append(_stubs)

v1 = importlib.import_module("presence.v1.presence_pb2")
rooms_v1 = importlib.import_module("presence.v1.room_authorizer_pb2")
rooms_v1_grpc = importlib.import_module("presence.v1.room_authorizer_pb2_grpc")
admin_v1 = importlib.import_module("presence.admin.v1.admin_pb2")
link_v1 = importlib.import_module("presence.link.v1.link_pb2")
_rpc_status = importlib.import_module("google.rpc.status_pb2")
_rpc_details = importlib.import_module("google.rpc.error_details_pb2")
_STUBS = [importlib.import_module("presence.v1.presence_pb2_grpc").PresenceServiceStub,
          importlib.import_module("presence.admin.v1.admin_pb2_grpc").AdminServiceStub]
_METHODS = {method.name: method for module in (v1, admin_v1) for service in module.DESCRIPTOR.services_by_name.values()
            for method in service.methods}

OFFLINE, AWAY, ONLINE = v1.STATUS_OFFLINE, v1.STATUS_AWAY, v1.STATUS_ONLINE
DEADLINE = 20 * PATIENCE
# Of a call that may be repeated. gRPC cancels what reaches a server that is just stopping.
PASSING = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED)


class Api:
    """`await api.Method(field=value, ...)`: a call of either service. A stream is returned as it is."""

    def __init__(self, core, *options):
        # A connection of its own, found again soon after the core was away.
        self.channel = grpc.aio.insecure_channel(core.api, options=[
            ("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1), ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 500), *options])
        self.core = core
        self.stubs = [stub(self.channel) for stub in _STUBS]

    def __getattr__(self, name):
        if name not in _METHODS:
            raise AttributeError(name)
        method = _METHODS[name]
        request = getattr(v1 if method.containing_service.file is v1.DESCRIPTOR else admin_v1, method.input_type.name)
        send = next(getattr(stub, name) for stub in self.stubs if hasattr(stub, name))
        seconds = None if name in ("WatchPresence", "Tap") else DEADLINE

        def call(timeout=seconds, data=None, **fields):
            message = request(**fields)
            if data is not None:
                message.data.SetInParent()  # a Struct, which may be empty
                message.data.update(data)
            return send(message, timeout=timeout)
        return call

    async def is_online(self, user_id):
        return (await self.GetPresence(user_id=user_id)).status == ONLINE

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        await self.channel.close()


class Refusal:
    """How a call has failed: its code, its text, and the details by their type."""

    def __init__(self, error):
        self.code, self.text, self.details = error.code().name, error.details(), {}
        metadata = error.trailing_metadata() or ()
        for data in [value for key, value in metadata if key == "grpc-status-details-bin"]:
            status = _rpc_status.Status.FromString(data)
            assert (status.code, status.message) == (error.code().value[0], error.details())
            for detail in status.details:
                name = detail.type_url.removeprefix("type.googleapis.com/google.rpc.")
                self.details[name] = getattr(_rpc_details, name).FromString(detail.value)

    @property
    def fields(self):
        return [violation.field for violation in self.details["BadRequest"].field_violations]

    @property
    def reason(self):
        info = self.details["ErrorInfo"]
        assert info.domain == "presence"
        return info.reason

    @property
    def retry_seconds(self):
        return self.details["RetryInfo"].retry_delay.ToTimedelta().total_seconds()

    def __repr__(self):
        return f"{self.code}: {self.text} {self.details}"


async def refused(call):
    """How this call fails, or the stream ends; it must."""
    try:
        answer = await call.read() if hasattr(call, "read") else await call
    except grpc.aio.AioRpcError as error:
        return Refusal(error)
    raise AssertionError(f"not refused, but answered: {answer}")


@contextlib.asynccontextmanager
async def outage(redis, how="stalls"):
    """Redis hangs, or is gone and comes back empty ("dies")."""
    await asyncio.to_thread(redis.kill, signal.SIGSTOP if how == "stalls" else signal.SIGKILL)
    try:
        yield
    finally:
        if how == "stalls":
            redis.kill(signal.SIGCONT)
        else:
            await asyncio.to_thread(lambda: redis.start().await_ready())


async def eventually(ask, seconds=10, what=None):
    """Asks until the answer is true, and returns it."""
    deadline = time.monotonic() + seconds * PATIENCE
    while True:
        answer = await ask()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what() if callable(what) else what or ask}")
        await asyncio.sleep(0.02)


class Scene(contextlib.AsyncExitStack):
    """What one story opens, closed at its end: clients, and the APIs of the first core (here) and of the last one (there)."""

    def __init__(self, stack):
        super().__init__()
        self.stack, self.cores, self.edges = stack, stack.cores, stack.edges

    async def __aenter__(self):
        await super().__aenter__()
        self.here, self.there = self.api(self.cores[0]), self.api(self.cores[-1])
        # Cores hear of each other within a second of their start, and until then ask one alone.
        for api in (self.here, self.there):
            await eventually(lambda: self.is_whole(api), what="the cores know each other")
        return self

    async def is_whole(self, api):
        with contextlib.suppress(grpc.aio.AioRpcError):
            state = await api.GetClusterState()
            attached = {edge.name for edge in state.edges if all(shard.attached for shard in edge.shards)}
            return (not state.incomplete and {core.name for core in state.cores} == {core.name for core in self.cores}
                    and attached >= {edge.name for edge in self.edges})

    def api(self, core, *options):
        api = Api(core, *options)
        self.push_async_callback(api.channel.close)
        return api

    async def connect(self, edge, user, name=None):
        client = await Client.open(self.edges[edge], self.stack.token(user, name=name))
        self.push_async_callback(client.close)
        return client

    def watch(self, api, **request):
        watcher = Watcher(api, **request)
        self.push_async_callback(watcher.stop)
        return watcher


def story(test):
    """A test that is a coroutine, with a scene of the module's stack."""
    def told(stack):
        async def with_scene():
            async with Scene(stack) as scene:
                await test(scene)
        run(with_scene())
    told.__name__, told.__doc__, told.__module__ = test.__name__, test.__doc__, test.__module__
    return told


class Watcher:
    """A WatchPresence stream that is read all the time: what it has told, and what is so by that, as presence.proto says."""

    def __init__(self, api, **request):
        self.responses = []
        self.presences = {}  # by user
        self.resume_version = 0
        self.told = False    # the snapshot, or what was missed, is complete
        self.ended = None    # a Refusal
        self.repeating = request.get("resume_version", 0) != 0
        self.named = set()   # by the snapshot
        self.call = api.WatchPresence(**request)
        self.task = asyncio.create_task(self._read())

    async def _read(self):
        try:
            async for response in self.call:
                self._take(response)
        except grpc.aio.AioRpcError as error:
            self.ended = Refusal(error)

    def _take(self, response):
        self.responses.append(response)
        users = [presence.user_id for presence in response.presences] + list(response.left_user_ids)
        assert len(users) == len(set(users)), "of each user at most one entry"
        for presence in response.presences:
            known = self.presences.get(presence.user_id)
            assert known is None or self.repeating or presence.version >= known.version, "versions never fall"
            self.presences[presence.user_id] = presence
        self.named.update(users)
        for user_id in response.left_user_ids:
            self.presences.pop(user_id, None)
        if response.snapshot_done:
            assert not self.told, "said once"
            self.told, self.repeating = True, False
            if response.snapshot:
                self.presences = {user_id: self.presences[user_id] for user_id in self.named if user_id in self.presences}
        assert response.resume_version >= self.resume_version
        self.resume_version = response.resume_version

    def status(self, user_id):
        return self.presences[user_id].status if user_id in self.presences else None

    def statuses_told(self, user_id):
        return [presence.status for presence in self.all_told(user_id)]

    def all_told(self, user_id):
        return [presence for response in self.responses for presence in response.presences if presence.user_id == user_id]

    async def _until(self, condition, what):
        await eventually(lambda: asyncio.sleep(0, condition() or self.ended), what=lambda: f"{what()}; {self}")
        assert condition(), f"{what()}; {self}"

    async def first_part(self):
        await self._until(lambda: self.told, lambda: "no snapshot_done")
        return self

    async def expect(self, **statuses):
        """Until these users have these statuses; None: the watcher was not told of the user, or that the user left."""
        await self._until(lambda: all(self.status(user) == status for user, status in statuses.items()),
                          lambda: f"not {statuses}, but {[(user, self.status(user)) for user in statuses]}")

    async def await_end(self, seconds=10):
        await asyncio.wait_for(self.task, seconds * PATIENCE)
        return self.ended

    async def stop(self):
        self.call.cancel()
        await asyncio.wait([self.task])
        if not self.task.cancelled() and self.task.exception():
            raise self.task.exception()

    def __repr__(self):
        return f"ended: {self.ended}; the last responses: {self.responses[-3:]}"
