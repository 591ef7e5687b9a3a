"""presence.admin.v1 over real processes: what an operator sees and can do, and what of that clients notice."""

import asyncio
import json
import re
import signal
import subprocess
import time

import pytest

from api import Api, Scene, eventually, refused, story, v1
from harness import BIN, PATIENCE, Core, Stack, run, until, until_async
from test_grpc import grpcurl

CONNECTED, DISCONNECTED, SUBSCRIBED, UNSUBSCRIBED, STATUS, PRESENCE, TYPING, MESSAGE, ORDER = range(1, 10)


@pytest.fixture(scope="module")
def stack():
    # Two shards on the edges: an edge is one process all the same.
    with Stack(cores=2, edges=2, pinned=True, edge_settings={"EDGE_SHARDS": "2"}) as stack:
        yield stack


@pytest.fixture
def own_stack():
    with Stack(cores=2, edges=2) as stack:
        yield stack


def version():
    said = subprocess.run([BIN / "presence-core", "--version"], capture_output=True, text=True, check=True).stdout
    return said.split()[1]


async def whole_state(api, edges=2):
    """Cores hear of each other, and of shards, within a second."""
    async def is_whole():
        state = await api.GetClusterState()
        return not state.incomplete and len(state.edges) == edges and state
    return await eventually(is_whole)


@story
async def test_the_state_of_the_cluster(scene):
    clients = [await scene.connect(number % 2, f"state-{number % 3}") for number in range(6)]
    for client in clients:
        await client.subscribe(channel_id="plaza")
    watcher = await scene.watch(scene.there, everyone={}).first_part()

    async def counted():
        state = await whole_state(scene.here)
        return [(core.connection_count, core.watcher_count) for core in state.cores] == [(3, 0), (3, 1)] and state

    state = await eventually(counted)
    assert (await whole_state(scene.there)).edges == state.edges, "from any core"
    now = time.time()
    for number, core in enumerate(state.cores):
        assert (core.name, core.version, core.draining, core.store_up) == (f"core{number}", version(), False, True)
        assert re.fullmatch(r"[0-9a-f]{16}", core.incarnation) and 0 <= now - core.start_time.seconds < 3600
        assert (core.link_count, core.user_count, core.room_count, core.membership_count) == (2, 3, 1, 3)
        assert core.writes_waiting + core.publications_waiting < 100 and core.link_backlog_bytes < 2**16, "nobody is busy"
    assert state.cores[0].incarnation != state.cores[1].incarnation
    for number, edge in enumerate(state.edges):
        assert (edge.name, edge.version) == (f"edge{number}", version())
        assert re.fullmatch(r"[0-9a-f]{16}", edge.incarnation) and 0 <= now - edge.start_time.seconds < 3600
        assert [(shard.shard, shard.core, shard.attached, shard.attach) for shard in edge.shards] == [
            (0, f"core{number}", True, 1), (1, f"core{number}", True, 1)]
        assert sum(shard.connection_count for shard in edge.shards) == 3
        connection = (await scene.here.ListConnections(edge=edge.name)).connections[0]
        assert connection.connection_id.startswith(f"conn-{edge.incarnation}-")
    await watcher.stop()


def test_a_core_that_is_killed_is_gone_or_missing(own_stack):
    async def told():
        async with Scene(own_stack) as scene:
            before = await whole_state(scene.here)
            await scene.cores[1].kill_and_wait(signal.SIGKILL)
            state = await scene.here.GetClusterState()
            assert state.incomplete or len(state.cores) == 1, "it does not answer, or is known to be gone"
            assert state.cores[0].name == "core0"

            async def settled():
                state = await scene.here.GetClusterState()
                shards = [shard for edge in state.edges for shard in edge.shards]
                return len(state.cores) == 1 and not state.incomplete and [
                    (shard.core, shard.attached) for shard in shards] == [("core0", True)] * 2 and state
            after = await eventually(settled)
            assert [edge.incarnation for edge in after.edges] == [edge.incarnation for edge in before.edges]

            scene.cores[1].start().await_ready()

            async def is_back():
                state = await scene.here.GetClusterState()
                return not state.incomplete and [core.name for core in state.cores] == ["core0", "core1"] and state
            again = await eventually(is_back)
            assert again.cores[1].incarnation != before.cores[1].incarnation
    run(told())


def test_no_client_notices_that_a_core_is_drained(own_stack):
    async def told():
        for number in (2, 3, 4):  # which core an edge finds is chance; some of five are with each, nearly always
            own_stack.edges.append(own_stack.add_edge(number))
        for edge in own_stack.edges:
            edge.await_ready()
        async with Scene(own_stack) as scene:
            before = await whole_state(scene.here, edges=5)
            drained = 0 if before.cores[0].link_count else 1
            leaving, staying = ((scene.here, "core0"), (scene.there, "core1"))[::-1 if drained else 1]
            clients = [await scene.connect(number, f"client-{number}") for number in range(5)]
            for client in clients:
                await client.subscribe(channel_id="room")
            watcher = await scene.watch(leaving[0], everyone={}).first_part()

            answer = await staying[0].DrainCore(core=leaving[1], window={"seconds": int(2 * PATIENCE)})
            assert answer.link_count == before.cores[drained].link_count
            sent = 0

            async def all_are_with_the_other_one():
                nonlocal sent
                sent += 1
                await staying[0].Broadcast(room_id="room", data={"n": sent})
                state = await staying[0].GetClusterState()
                shards = [(shard.core, shard.attached) for edge in state.edges for shard in edge.shards]
                draining = [core.name for core in state.cores if core.draining]
                return shards == [(staying[1], True)] * 5 and draining == [leaving[1]] and state
            after = await eventually(all_are_with_the_other_one)
            assert [core.link_count for core in after.cores] == [5 if core.name == staying[1] else 0 for core in after.cores]
            assert (await leaving[0].Broadcast(room_id="room", data={"n": sent + 1})).reached_connections == 5
            for client in clients:
                await client.expect(type="message", data={"n": sent + 1})
                got = [frame["data"]["n"] for frame in client.seen(type="message")]
                assert got == sorted(set(got)), "in order, and none twice"

            # It is not ready any more, answers whoever still asks, and waits to be stopped.
            process = scene.cores[drained]
            health = grpcurl(process, "grpc.health.v1.Health/Check", data={"service": "presence.v1.PresenceService"})
            assert json.loads(health) == {"status": "NOT_SERVING"}
            assert process.process.poll() is None and watcher.ended is None
            for api, _ in (leaving, staying):
                refusal = await refused(api.DrainCore(core=staying[1]))
                assert (refusal.code, refusal.reason) == ("FAILED_PRECONDITION", "LAST_CORE"), "somebody has to serve"
            assert await process.kill_and_wait(signal.SIGTERM) == 0
            assert (await watcher.await_end()).code == "UNAVAILABLE"
            for client in clients:
                await client.ping()
                assert not client.closed and not client.seen(type="presence", status="offline")
            rooms = (await staying[0].ListRooms()).rooms
            assert list(rooms) == [v1.Room(room_id="room", connection_count=5)]
    run(told())


@story
async def test_a_core_logs_as_much_as_it_is_told_to(scene):
    quiet, other = scene.cores
    assert (await scene.there.SetLogLevel(core="core0", level="LOG_LEVEL_ERROR")).process_count == 1
    # A line of each level at most: that the level was set is told at INFO, so no longer.
    before = quiet.log().count("An operator has set the log level")
    await scene.there.SetLogLevel(all=True, level="LOG_LEVEL_WARNING")
    assert (await scene.there.SetLogLevel(core="core1", level="LOG_LEVEL_INFO")).process_count == 1
    await until_async(lambda: "An operator has set the log level" in other.log())
    assert quiet.log().count("An operator has set the log level") == before
    assert (await scene.here.SetLogLevel(all=True, level="LOG_LEVEL_INFO")).process_count == 4, "two cores and two edges"
    await until_async(lambda: quiet.log().count("An operator has set the log level") == before + 1)


@story
async def test_debug_lines_come_and_go(scene):
    """What is at DEBUG: each key that is of no use."""
    told, other = scene.edges
    document = json.loads(scene.stack.keys.path.read_text())

    async def publish(number):
        odd = {"kty": "oct", "kid": f"odd-{number}", "k": "AAAA"}
        scene.stack.keys.path.write_text(json.dumps({"keys": [*document["keys"], odd]}))
        for edge in scene.edges:
            await until_async(lambda: edge.log().count("Keys: 2 can verify tokens, 1 skipped") == number)

    assert (await scene.here.SetLogLevel(edge="edge0", level="LOG_LEVEL_DEBUG")).process_count == 1
    await until_async(lambda: "Log level DEBUG" in told.log())
    await publish(1)
    await until_async(lambda: "'odd-1' skipped" in told.log())
    await scene.there.SetLogLevel(edge="edge0", level="LOG_LEVEL_INFO")
    await until_async(lambda: "Log level INFO" in told.log())
    await publish(2)
    await publish(3)
    assert "'odd-2' skipped" not in told.log() and "skipped:" not in other.log()


class Tapped:
    """A Tap that is read all the time."""

    def __init__(self, api, **target):
        self.events, self.call = [], api.Tap(**target)
        self.task = asyncio.create_task(self._read())

    async def _read(self):
        async for event in self.call:
            self.events.append(event)

    def seen(self, kind, **members):
        return [event for event in self.events
                if event.kind == kind and all(getattr(event, name) == value for name, value in members.items())]

    async def expect(self, kind, **members):
        return (await until_async(lambda: self.seen(kind, **members), what=lambda: f"{kind} {members} in {self.events}"))[0]

    async def stop(self):
        self.call.cancel()
        await asyncio.wait([self.task])


async def tap(scene, api, **target):
    await until_async(lambda: taps(scene) == [0, 0], what="those of former tests are closed")
    tapped = Tapped(api, **target)
    scene.push_async_callback(tapped.stop)
    await until_async(lambda: taps(scene) == [1, 1], what="every core knows of it")
    return tapped


def taps(scene):
    return [core.metric("presence_core_taps") for core in scene.cores]


@story
async def test_a_user_is_tapped_on_all_cores(scene):
    for api, edge, core in ((scene.here, 1, "core1"), (scene.there, 1, "core1"), (scene.there, 0, "core0")):
        tapped = await tap(scene, api, user_id="suspect")
        began = time.time()
        client, other = await scene.connect(edge, "suspect"), await scene.connect(edge, "neighbour")
        connected = await tapped.expect(CONNECTED, core=core, user_id="suspect")
        assert abs(connected.time.ToMicroseconds() / 1e6 - began) < 60
        [listed] = (await scene.here.ListConnections(user_id="suspect")).connections
        assert connected.connection_id == listed.connection_id
        of_connection = dict(core=core, user_id="suspect", connection_id=listed.connection_id)
        await tapped.expect(PRESENCE, user_id="suspect", detail="online")
        for each in (client, other):
            await each.subscribe(channel_id="den")
        await tapped.expect(SUBSCRIBED, room_id="den", **of_connection)
        await client.send(type="typing", channel_id="den")
        await tapped.expect(TYPING, user_id="suspect", room_id="den")
        await client.send(type="status", status="away")
        await tapped.expect(STATUS, detail="away", **of_connection)
        await tapped.expect(PRESENCE, user_id="suspect", detail="away")
        await scene.here.SendToUser(user_id="suspect", data_json='{"n":1}')
        await tapped.expect(MESSAGE, user_id="suspect", detail='{"type":"message","data":{"n":1}}')
        await scene.here.UnsubscribeUser(user_id="suspect", room_id="den")
        await tapped.expect(ORDER, room_id="den", detail="unsubscribe", **of_connection)
        await tapped.expect(UNSUBSCRIBED, room_id="den", **of_connection)
        await scene.here.DisconnectUser(user_id="suspect")
        await tapped.expect(ORDER, detail="disconnect", **of_connection)
        await tapped.expect(DISCONNECTED, **of_connection)
        await tapped.expect(PRESENCE, user_id="suspect", detail="offline")
        assert not [event for event in tapped.events if event.user_id == "neighbour" or event.left_out_count]
        await tapped.stop()
        await other.close()
        await until_async(lambda: taps(scene) == [0, 0], what="it is closed everywhere")


@story
async def test_a_room_is_tapped_on_all_cores(scene):
    tapped = await tap(scene, scene.here, room_id="den")
    clients = [await scene.connect(edge, f"den-{edge}") for edge in (0, 1)]
    for edge, client in enumerate(clients):
        await client.subscribe(channel_id="den")
        await tapped.expect(SUBSCRIBED, core=f"core{edge}", user_id=f"den-{edge}", room_id="den")
    await scene.there.Broadcast(room_id="den", data_json=json.dumps({"long": "x" * 2000}))
    message = await tapped.expect(MESSAGE, core="core0", room_id="den")
    assert len(message.detail.encode()) == 1024 and message.detail.startswith('{"type":"message","data":{"long":'), "cut"
    await scene.here.Broadcast(room_id="another", data_json="{}")
    await clients[1].send(type="typing", channel_id="den")
    await tapped.expect(TYPING, user_id="den-1", room_id="den")
    await clients[1].close()
    await tapped.expect(UNSUBSCRIBED, core="core1", user_id="den-1", room_id="den")
    assert {event.room_id for event in tapped.events} == {"den"}
    assert len(tapped.seen(MESSAGE)) == 1, "what all cores hear is told by the one that was asked"


@story
async def test_a_flood_is_cut_and_counted(scene):
    tapped = await tap(scene, scene.here, room_id="flood")
    client = await scene.connect(0, "flooded")
    await client.subscribe(channel_id="flood")
    sent = 0

    async def left_out():
        nonlocal sent
        await asyncio.gather(*(scene.here.Broadcast(room_id="flood", data_json="{}") for _ in range(1500)))
        sent += 1500
        return sum(core.metric("presence_core_tap_events_left_out_total") for core in scene.cores)

    assert await eventually(left_out)
    # The next one that is told says how many were left out before it.
    async def said():
        await scene.here.Broadcast(room_id="flood", data_json="{}")
        return any(event.left_out_count for event in tapped.events if event.core == "core0")
    await eventually(said)
    assert len(tapped.seen(MESSAGE, core="core0")) < sent


@story
async def test_at_most_so_many_taps(scene):
    await until_async(lambda: taps(scene) == [0, 0])
    calls = [scene.here.Tap(room_id=f"room-{number}") for number in range(64)]
    await until_async(lambda: taps(scene) == [64, 64])
    refusal = await refused(scene.here.Tap(room_id="one too many"))
    assert refusal.code == "RESOURCE_EXHAUSTED" and refusal.retry_seconds > 0
    for call in calls:
        call.cancel()
    await until_async(lambda: taps(scene) == [0, 0])


# What the API listener shows beside its services.


def listed(core):
    return grpcurl(core, "list").split()


def test_reflection_and_channelz_are_settings(stack):
    assert "grpc.reflection.v1alpha.ServerReflection" in listed(stack.cores[0]), "the default"
    assert "grpc.channelz.v1.Channelz" not in listed(stack.cores[0]), "the default"
    own = [Core(stack.directory.name, name, "memory:", METRICS_LISTEN="off", **settings) for name, settings in (
        ("closed", {"GRPC_REFLECTION": "off"}), ("open", {"GRPC_CHANNELZ": "on"}))]
    try:
        closed, open_ = (core.await_ready() for core in own)
        assert "server does not support the reflection API" in grpcurl(closed, "list", ok=False)
        assert "grpc.channelz.v1.Channelz" in listed(open_)
        servers = json.loads(grpcurl(open_, "grpc.channelz.v1.Channelz/GetServers", data={}))["server"]
        assert len(servers) == 2 and any(int(server["data"]["calls_started"]) > 0 for server in servers)

        async def is_there():
            async with Api(closed) as api:
                return (await api.GetPresence(user_id="u")).user_id
        assert run(is_there()) == "u", "the API is there without it"
    finally:
        for core in own:
            core.stop()


def test_health_of_each_service_follows_redis(own_stack):
    core = own_stack.cores[0]

    def health(service, where=None):
        return json.loads(grpcurl(where or core, "grpc.health.v1.Health/Check", data={"service": service}))["status"]

    def of_all():
        return [health(service) for service in ("", "presence.v1.PresenceService", "presence.admin.v1.AdminService")]

    assert of_all() == ["SERVING"] * 3
    own_stack.redis.kill(signal.SIGSTOP)
    until(lambda: of_all() == ["NOT_SERVING", "NOT_SERVING", "SERVING"], what="operators may look without Redis")
    own_stack.redis.kill(signal.SIGCONT)
    until(lambda: of_all() == ["SERVING"] * 3)
    own_stack.redis.kill()
    until(lambda: of_all() == ["NOT_SERVING", "NOT_SERVING", "SERVING"])
    own_stack.redis.start().await_ready()
    until(lambda: of_all() == ["SERVING"] * 3)
    assert "NotFound" in grpcurl(core, "grpc.health.v1.Health/Check", data={"service": "no.such.Service"}, ok=False)
