"""WatchPresence over real processes: what a watcher is told, at whichever core it asks, whatever dies meanwhile."""

import signal

import pytest

from api import AWAY, OFFLINE, ONLINE, Scene, eventually, outage, refused, story
from harness import Stack, run, until, until_async

FAST = {"WS_HEARTBEAT_INTERVAL": "60", "WS_PRESENCE_TTL": "300"}


@pytest.fixture(scope="module")
def stack():
    with Stack(cores=2, edges=2, pinned=True) as stack:
        yield stack


@pytest.fixture
def own_stack():
    with Stack(cores=2, edges=2, pinned=True, core_settings=FAST, edge_settings=FAST) as stack:
        yield stack


def long_ago(stack):
    """As if Redis had been up for ever: to a young one's change log nobody can go back who was told 10 s ago or earlier."""
    until(lambda: stack.redis.client.hget("presence.sweep", "began"))
    stack.redis.client.hset("presence.sweep", "began", "1")


async def change(client, status):
    await client.send(type="status", status="away" if status == AWAY else "online")


@story
async def test_a_snapshot_and_then_every_change(scene):
    anna = await scene.connect(1, "anna", name="Anna")
    await eventually(lambda: scene.here.is_online("anna"))
    everyone, named = (scene.watch(scene.here, everyone={}),
                       scene.watch(scene.here, users={"user_ids": ["anna", "nobody", "anna"]}))
    for watcher in (everyone, named):
        await watcher.first_part()
        assert all(response.snapshot for response in watcher.responses)
        assert watcher.responses[-1].snapshot_done
        assert watcher.presences["anna"] == await scene.there.GetPresence(user_id="anna")
    assert named.status("nobody") == OFFLINE and everyone.status("nobody") is None, "named ones are in it, offline or not"

    bruno = await scene.connect(1, "bruno")
    await everyone.expect(bruno=ONLINE)
    for status in (AWAY, ONLINE, AWAY):
        await change(anna, status)
        for watcher in (everyone, named):
            await watcher.expect(anna=status)
    await anna.close()
    await bruno.close()
    for watcher in (everyone, named):
        await watcher.expect(anna=OFFLINE)
        assert watcher.statuses_told("anna") == [ONLINE, AWAY, ONLINE, AWAY, OFFLINE], "each once"
        versions = [presence.version for presence in watcher.all_told("anna")]
        assert versions == sorted(set(versions))
        assert not any(response.snapshot or response.snapshot_done for response in watcher.responses[-3:])
    await everyone.expect(bruno=OFFLINE)
    assert named.status("bruno") is None, "nobody asked"


@story
async def test_the_members_of_a_room_whoever_that_is(scene):
    watchers = [scene.watch(api, room_id="club") for api in (scene.here, scene.there)]
    for watcher in watchers:
        assert (await watcher.first_part()).presences == {}, "a room that does not exist yet"
    carl, carl_again, dana = [await scene.connect(edge, user) for edge, user in ((0, "carl"), (1, "carl"), (1, "dana"))]
    for client in (carl, dana):
        await client.subscribe(channel_id="club")
    for watcher in watchers:
        await watcher.expect(carl=ONLINE, dana=ONLINE)
    await change(dana, AWAY)
    for watcher in watchers:
        await watcher.expect(dana=AWAY)

    # A member of both cores stays one until the last device has left.
    await carl_again.subscribe(channel_id="club")
    await eventually(lambda: has_members(scene.here, carl=2, dana=1))
    await carl.send(type="unsubscribe", channel_id="club")
    await eventually(lambda: has_members(scene.here, carl=1, dana=1))
    await dana.send(type="unsubscribe", channel_id="club")
    for watcher in watchers:
        await watcher.expect(dana=None, carl=ONLINE)
        left = [user for response in watcher.responses for user in response.left_user_ids]
        assert left == ["dana"]
    await change(dana, ONLINE)
    late = await scene.watch(scene.here, room_id="club").first_part()
    assert set(late.presences) == {"carl"}
    await carl_again.close()
    for watcher in (*watchers, late):
        await watcher.expect(carl=None)
    for watcher in watchers:
        assert watcher.statuses_told("dana") == [ONLINE, AWAY], "nothing any more of who has left"


async def has_members(api, **counts):
    room = await api.GetRoom(room_id="club")
    return {member.user_id: member.connection_count for member in room.members} == counts


@story
async def test_who_comes_back_is_told_what_was_missed(scene):
    long_ago(scene.stack)
    clients = [await scene.connect(number % 2, f"back-{number}") for number in range(4)]
    first = await scene.watch(scene.here, users={"user_ids": [f"back-{number}" for number in range(4)]}).first_part()
    await first.expect(**{f"back-{number}": ONLINE for number in range(4)})
    await until_async(lambda: first.resume_version, what="a version to resume from")
    await first.stop()
    await change(clients[0], AWAY)
    await clients[1].close()
    await eventually(lambda: has_status(scene.here, "back-0", AWAY))
    await eventually(lambda: has_status(scene.here, "back-1", OFFLINE))
    for api, target in ((scene.there, {"users": {"user_ids": [f"back-{number}" for number in range(4)]}}),
                        (scene.here, {"everyone": {}})):
        again = scene.watch(api, resume_version=first.resume_version, **target)
        await again.first_part()
        await again.expect(**{"back-0": AWAY, "back-1": OFFLINE})
        assert not any(response.snapshot for response in again.responses), "only what is new"
        await change(clients[2], AWAY)
        await again.expect(**{"back-2": AWAY})
        await change(clients[2], ONLINE)
        await again.expect(**{"back-2": ONLINE})
    # A version from before all that is known.
    ancient = await scene.watch(scene.there, everyone={}, resume_version=1_000_000).first_part()
    assert ancient.responses[0].snapshot and ancient.status("back-0") == AWAY and ancient.status("back-1") is None


async def has_status(api, user_id, status):
    return (await api.GetPresence(user_id=user_id)).status == status


def test_a_core_dies_and_its_watchers_miss_nothing(own_stack):
    async def told():
        async with Scene(own_stack) as scene:
            long_ago(own_stack)
            clients = [await scene.connect(1, f"user-{number}") for number in range(3)]
            await eventually(lambda: all_online(scene.here, 3))
            watcher, other = (scene.watch(api, everyone={}) for api in (scene.here, scene.there))
            for each in (watcher, other):
                await each.expect(**{f"user-{number}": ONLINE for number in range(3)})
            await until_async(lambda: watcher.told and watcher.resume_version)

            await scene.cores[0].kill_and_wait(signal.SIGKILL)
            assert (await watcher.await_end()).code == "UNAVAILABLE"
            await change(clients[0], AWAY)
            await clients[1].close()
            newcomer = await scene.connect(1, "newcomer")
            expected = {"user-0": AWAY, "user-1": OFFLINE, "user-2": ONLINE, "newcomer": ONLINE}
            await other.expect(**expected)
            scene.cores[0].start().await_ready()
            # Its client goes on anywhere: at the core that stayed, or at the one that is there again.
            for api in (scene.there, scene.api(scene.cores[0])):
                again = await scene.watch(api, everyone={}, resume_version=watcher.resume_version).first_part()
                assert not any(response.snapshot for response in again.responses)
                missed = {user: presence for user, presence in again.presences.items()}
                assert {user: missed[user].status for user in ("user-0", "user-1", "newcomer")} == {
                    "user-0": AWAY, "user-1": OFFLINE, "newcomer": ONLINE}
                for user, presence in missed.items():
                    before = watcher.presences.get(user)
                    assert before is None or presence.version >= before.version, "what comes twice is known by its version"
                await change(newcomer, AWAY)
                await again.expect(newcomer=AWAY)
                await change(newcomer, ONLINE)
                await again.expect(newcomer=ONLINE)
            assert other.ended is None, "the other core's watcher has noticed nothing"
    run(told())


async def all_online(api, count):
    return len((await api.ListPresence()).users) == count


@pytest.mark.parametrize("how", ["stalls", "dies"])
def test_an_outage_of_redis_is_a_pause(own_stack, how):
    async def told():
        async with Scene(own_stack) as scene:
            alice, bob = [await scene.connect(edge, user) for edge, user in ((0, "alice"), (1, "bob"))]
            await alice.subscribe(channel_id="room")
            await change(alice, AWAY)
            watchers = [scene.watch(api, **target) for api in (scene.here, scene.there)
                        for target in ({"everyone": {}}, {"users": {"user_ids": ["alice", "bob", "carol"]}},
                                       {"room_id": "room"})]
            for watcher in watchers:
                await watcher.first_part()
                await watcher.expect(alice=AWAY)
            async with outage(own_stack.redis, how):
                for core in scene.cores:
                    await until_async(lambda: core.metric("presence_core_store_up") == 0)
                # Meanwhile somebody comes, somebody changes, somebody goes.
                carol = await scene.connect(1, "carol")
                await change(alice, ONLINE)
                await bob.close()
                refusal = await refused(scene.here.WatchPresence(everyone={}))
                assert refusal.code == "UNAVAILABLE" and refusal.retry_seconds > 0
            for watcher in watchers:
                await watcher.expect(alice=ONLINE)
                if watcher not in watchers[2::3]:  # those of the room are told of its members alone
                    await watcher.expect(carol=ONLINE, bob=OFFLINE)
                assert OFFLINE not in watcher.statuses_told("alice"), "nobody who stayed was shown as gone"
            for core in scene.cores:
                until(lambda: core.metric("presence_core_redis_connections_lost_total") > 0, what="on the metrics page")
            # And all is as before.
            await change(alice, AWAY)
            await carol.subscribe(channel_id="room")
            for watcher in watchers:
                await watcher.expect(alice=AWAY, carol=ONLINE)
                assert watcher.ended is None
    run(told())
