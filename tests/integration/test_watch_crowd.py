"""WatchPresence with many: a thousand watchers at once, and watchers that never read."""

import asyncio
import pathlib
import signal
import sys

import grpc
import pytest

from api import AWAY, ONLINE, eventually, story
from crowd import Crowd
from harness import PATIENCE, Stack, until_async

WATCHERS = 1000
CONNECTIONS = 4  # a client library sends so many streams over one at most: some send a hundred
# A client that takes next to nothing before it reads.
CLOSED_EARS = (("grpc.http2.lookahead_bytes", 1024), ("grpc.http2.bdp_probe", 0))


@pytest.fixture
def stack():
    settings = {"WS_HEARTBEAT_INTERVAL": "60"}
    with Stack(cores=1, edges=1, core_settings=settings, edge_settings=settings) as stack:
        yield stack


@story
async def test_a_thousand_watchers_are_told_of_one_change(scene):
    [core] = scene.cores
    star = await scene.connect(0, "star")
    star.keep_alive(20)
    await eventually(lambda: scene.here.is_online("star"))
    apis = [scene.api(core) for _ in range(CONNECTIONS)]
    targets = [{"everyone": {}}, {"users": {"user_ids": ["star", "nobody"]}}, {"room_id": "stage"}]
    await star.subscribe(channel_id="stage")
    watchers = [scene.watch(apis[number % CONNECTIONS], **targets[number % 3]) for number in range(WATCHERS)]
    await until_async(lambda: all(watcher.told and watcher.status("star") == ONLINE for watcher in watchers), 30,
                      lambda: next(watcher for watcher in watchers if watcher.status("star") != ONLINE))
    await until_async(lambda: core.metric("presence_core_watchers") == WATCHERS)
    await star.send(type="status", status="away")
    await until_async(lambda: all(watcher.status("star") == AWAY for watcher in watchers), 30)
    assert all(watcher.statuses_told("star") == [ONLINE, AWAY] and watcher.ended is None for watcher in watchers)
    await asyncio.gather(*(watcher.stop() for watcher in watchers[:500]))
    await until_async(lambda: core.metric("presence_core_watchers") == WATCHERS - 500, 30)
    await star.send(type="status", status="online")
    await until_async(lambda: all(watcher.status("star") == ONLINE for watcher in watchers[500:]), 30)
    assert (await scene.here.GetClusterState()).cores[0].watcher_count == WATCHERS - 500


@story
async def test_a_watcher_that_never_reads_costs_a_bounded_amount(scene):
    [core] = scene.cores
    users = [f"user-{number:05}" for number in range(2000)]
    async with Crowd(core) as crowd:
        await crowd.come(users)
        await crowd.settled()
        reading = await scene.watch(scene.here, everyone={}).first_part()
        # Each on a connection of its own, or they would hold up each other.
        deaf = [scene.api(core, *CLOSED_EARS).WatchPresence(everyone={}) for _ in range(20)]
        await until_async(lambda: core.metric("presence_core_watchers") == 21)
        await crowd.change(users, away=True)
        await reading.expect(**{user: AWAY for user in users})
        before = core.resident_bytes()
        for number in range(10):
            away = number % 2 == 1
            await crowd.change(users, away)
            await reading.expect(**{user: AWAY if away else ONLINE for user in users})  # else some would be one change
        assert core.metric("presence_core_watchers") == 21, "changes of one user replace each other: nobody is sent away"
        # 400,000 changes were not read: some 20 MB, if each waited.
        grown = core.resident_bytes() - before
        assert grown < 8 * PATIENCE * 2**20, f"{grown} bytes"

        # Who wakes up is told how it is now, not all that was.
        told, count = {}, 0
        while any(told.get(user) != AWAY for user in users):
            response = await asyncio.wait_for(deaf[0].read(), 10 * PATIENCE)
            told.update((presence.user_id, presence.status) for presence in response.presences)
            count += len(response.presences)
        assert count < 3 * len(users)

        # More users than may wait for one watcher.
        more = [f"visitor-{number:05}" for number in range(10_500)]
        await crowd.come(more)
        await crowd.settled(60)
        await until_async(lambda: core.metric("presence_core_watchers") <= 2, 30)
        ends = await asyncio.gather(*(asyncio.wait_for(end_of(call), 20 * PATIENCE) for call in deaf[1:]))
        # Whoever still does not read is cut off after some seconds, and told nothing any more.
        assert set(ends) <= {"RESOURCE_EXHAUSTED", "CANCELLED"}, ends
        assert core.metric('presence_core_streams_ended_slow_total{method="WatchPresence"}') >= len(ends)
        await reading.expect(**{user: ONLINE for user in more})
        assert reading.ended is None, "who reads is told everything"
        again = await scene.watch(scene.here, everyone={}, resume_version=reading.resume_version).first_part()
        await again.expect(**{user: ONLINE for user in more})


# A backend whose process is stopped while it watches.
WATCHING_PROCESS = """
import asyncio, sys
from types import SimpleNamespace
from api import Api

async def watch():
    apis = [Api(SimpleNamespace(api=sys.argv[1])) for _ in range(4)]
    calls = [api.WatchPresence(everyone={}) for api in apis for _ in range(10)]
    for call in calls:
        while not (await call.read()).snapshot_done:
            pass
    print("watching", flush=True)
    await asyncio.gather(*(read_on(call) for call in calls))

async def read_on(call):
    async for _ in call:
        pass

asyncio.run(watch())
"""


@story
async def test_a_stopped_process_costs_a_bounded_amount(scene):
    [core] = scene.cores
    users = [f"user-{number:05}" for number in range(2000)]
    async with Crowd(core) as crowd:
        await crowd.come(users)
        await crowd.settled()
        reading = await scene.watch(scene.here, everyone={}).first_part()
        stopped = await asyncio.create_subprocess_exec(
            sys.executable, "-c", WATCHING_PROCESS, core.api, stdout=asyncio.subprocess.PIPE,
            cwd=pathlib.Path(__file__).parent)
        try:
            line = await asyncio.wait_for(stopped.stdout.readline(), 20 * PATIENCE)
            assert line == b"watching\n"
            await until_async(lambda: core.metric("presence_core_watchers") == 41)
            stopped.send_signal(signal.SIGSTOP)
            await crowd.change(users, away=True)  # fills what lies between
            await reading.expect(**{user: AWAY for user in users})
            before = core.resident_bytes()
            for number in range(10):
                away = number % 2 == 1
                await crowd.change(users, away)
                await reading.expect(**{user: AWAY if away else ONLINE for user in users})
            grown = core.resident_bytes() - before
            assert grown < 16 * PATIENCE * 2**20, f"{grown} bytes: 800,000 changes would be some 80 MB"
            assert core.metric("presence_core_streams_ended_slow_total") == 0

            # More users than may wait for one watcher: those are let go, though the process can be told nothing.
            more = [f"visitor-{number:05}" for number in range(10_500)]
            await crowd.come(more)
            await crowd.settled(60)
            await until_async(lambda: core.metric("presence_core_watchers") == 1, 30)
            assert core.metric('presence_core_streams_ended_slow_total{method="WatchPresence"}') == 40
            await reading.expect(**{user: ONLINE for user in more})
            grown = core.resident_bytes() - before
            assert grown < 64 * PATIENCE * 2**20, f"{grown} bytes, 10,500 more users with a connection each included"
            assert await scene.here.is_online("visitor-00000"), "others are served"
            assert reading.ended is None
        finally:
            stopped.kill()
            await stopped.wait()


async def end_of(call):
    try:
        async for _ in call:
            pass
    except grpc.aio.AioRpcError as error:
        return error.code().name
