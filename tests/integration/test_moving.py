"""An edge moves from one core to another, and the API is asked all the time: whoever is connected is never said not to be.

A backend that is told "this user has no connection" does not ask again. So while nobody knows where a connection is, orders about its
user are UNAVAILABLE."""

import asyncio
import contextlib
import signal

from api import ONLINE, eventually, story
from harness import Stack, until_async

OUTCOMES = {1, "UNAVAILABLE"}


def core_of(state, edge):
    return next(shard.core for entry in state.edges if entry.name == edge.name for shard in entry.shards if shard.attached)


async def asks_all_the_time(api, until):
    """What SetStatus and DisconnectConnection say of somebody who is connected all the time, until they have worked for a while."""
    outcomes, good = [], 0
    while good < 10 or not until.is_set():
        try:
            outcomes.append((await api.SetStatus(user_id="alice", status=ONLINE)).connection_count)
            good += 1
        except Exception as error:  # an AioRpcError has a code
            outcomes.append(error.code().name)
            good = 0
        await asyncio.sleep(0.05)
    return outcomes


def moves(make_it):
    with Stack(cores=2, edges=1, core_settings={"EDGE_GRACE": "5"}) as stack:
        @story
        async def told(scene):
            alice = (await scene.connect(0, "alice")).keep_alive(1)
            await eventually(lambda: scene.here.is_online("alice"))
            state = await scene.here.GetClusterState()
            first = next(core for core in scene.cores if core.name == core_of(state, scene.edges[0]))
            other = next(core for core in scene.cores if core is not first)
            api = scene.api(other)
            moved = asyncio.Event()
            asking = asyncio.create_task(asks_all_the_time(api, moved))
            await until_async(lambda: asking.done() or other.metric("presence_core_gathers") >= 0)
            async with make_it(scene, first):
                await eventually(lambda: attached(api, scene.edges[0], other), 20)
                moved.set()
                outcomes = await asking
            assert set(outcomes) <= OUTCOMES, outcomes
            assert not alice.closed
            # One connection, counted once, wherever it was before.
            await alice.subscribe(channel_id="general")
            room = await eventually(lambda: answer_of(api.GetRoom(room_id="general")))
            assert (room.room.connection_count, [member.connection_count for member in room.members]) == (1, [1])
        told(stack)


async def attached(api, edge, core):
    with contextlib.suppress(StopIteration):
        return core_of(await api.GetClusterState(), edge) == core.name


async def answer_of(call):
    with contextlib.suppress(Exception):
        return await call


def test_a_core_that_hangs():
    @contextlib.asynccontextmanager
    async def hangs(scene, core):
        core.kill(signal.SIGSTOP)
        try:
            yield
        finally:
            core.kill(signal.SIGCONT)
    moves(hangs)


def test_a_core_that_stops():
    @contextlib.asynccontextmanager
    async def stops(scene, core):
        await core.kill_and_wait(signal.SIGTERM)
        yield
    moves(stops)


def test_a_core_that_is_drained():
    @contextlib.asynccontextmanager
    async def drains(scene, core):
        await scene.here.DrainCore(core=core.name)
        yield
    moves(drains)
