"""Redis fails in its ways, or one core alone loses it: connections live, what is local is delivered, nobody who is there is called
offline, and all is as it should be soon after. Restarts without data and Sentinels are in test_failures.py and test_sentinel.py."""

import asyncio
import contextlib
import json
import pathlib
import shutil
import signal
import sys
import time

import grpc
import pytest
import redis.exceptions

sys.path.append(str(pathlib.Path(__file__).parent / "chaos"))

import checker
from api import Api
from crowd import Crowd
from harness import PATIENCE, Redis, Stack, get, run, until_async
from world import World

H = 2.0  # seconds
ENTRY = 2 * H + 3  # what nobody refreshes in Redis ends after this
CUT_OFF = H + 0.5 + 1  # then a core without Redis has told its shards to look for another one
SEEK_EVERY = 5  # and so often again


class LoggedRedis(Redis):
    """Has everything again after a restart."""
    keeping = ["--save", "", "--appendonly", "yes", "--appendfsync", "always"]


class SavingRedis(Redis):
    """Is to refuse writes when it could not save."""
    keeping = ["--save", "3600 1000000", "--stop-writes-on-bgsave-error", "yes"]


class Story(World):
    """Six users on three edges and two cores, whom nothing must disturb."""

    def __init__(self, **settings):
        super().__init__(seed=1, users=6, rooms=1, heartbeat=H, **settings)

    async def __aenter__(self):
        await super().__aenter__()
        self.apis = [Api(core) for core in self.cores]
        self.published = 0
        for i, user in enumerate(self.user_names):
            self.add_device(user, ["room0"], self.edges[i % len(self.edges)])
        await self.until(lambda: all("room0" in device.subscribed for device in self.devices), 30 * PATIENCE, "everybody is there")
        await self.until(lambda: self.known() == set(self.user_names), 10 * PATIENCE, "Redis knows everybody")
        return self

    async def __aexit__(self, *why):
        if why[0] is not None:
            for process in self.processes:
                print(f"----- {process.name}\n{process.log()[-4000:]}")
        for api in self.apis:
            await api.channel.close()
        await super().__aexit__(*why)

    # --- what is done

    def message(self):
        self.published += 1
        return {"room": "room0", "from": "test", "n": self.published}

    async def broadcast(self, core, **options):
        """The message, and the code of the answer; None: taken."""
        data = self.message()
        try:
            await self.apis[core].Broadcast(room_id="room0", data=data, timeout=5 * PATIENCE, **options)
        except grpc.aio.AioRpcError as error:
            return data, error.code()
        return data, None

    async def messages_reach_everybody(self, seconds):
        """Published again until one does: some are lost with the way there."""
        deadline = time.monotonic() + seconds * PATIENCE
        while True:
            data = self.message()
            with contextlib.suppress(redis.exceptions.RedisError, AssertionError):
                self.redis.client.publish("message:broadcast", json.dumps({"room_id": "room0", "type": "message", "data": data}))
                return await self.is_heard(data, self.devices, 0.3)
            assert time.monotonic() < deadline, f"within {seconds} s messages reach everybody"
            await asyncio.sleep(0.1)

    async def typing_is_local(self, edge):
        """Between the users of one edge."""
        typist, reader = [device for device in self.devices if device.choose is edge][:2]
        before = reader.typings
        await typist.send(type="typing", channel_id="room0")
        await self.until(lambda: reader.typings > before, 5 * PATIENCE, "typing is delivered among the edge's own users")

    def links_lost(self):
        return sum(int(edge.metric("presence_edge_link_losses_total")) for edge in self.edges)

    # --- what must be so

    def known(self):
        with contextlib.suppress(redis.exceptions.RedisError):
            texts = [self.redis.client.get(f"presence:{user}") for user in self.user_names]
            return {user for user, text in zip(self.user_names, texts) if text and json.loads(text)["status"] == "online"}
        return set()

    def listeners(self, data, of=None):
        key = (data["room"], data["from"], data["n"])
        return sum(any(seen.key == key for seen in device.seen) for device in of or self.devices)

    async def is_heard(self, data, by, seconds=10):
        await self.until(lambda: self.listeners(data, by) == len(by), seconds * PATIENCE, f"{data} is heard")

    async def is_serving(self, core):
        check = self.apis[core].channel.unary_unary("/grpc.health.v1.Health/Check")
        return await check(b"", timeout=5 * PATIENCE) == b"\x08\x01"  # HealthCheckResponse{status: SERVING}

    async def becomes(self, core, serving, seconds):
        deadline = time.monotonic() + seconds * PATIENCE
        while await self.is_serving(core) is not serving:
            assert time.monotonic() < deadline, f"core {core} says within {seconds} s that it is {'' if serving else 'not '}serving"
            await asyncio.sleep(0.05)

    def nobody_was_disturbed(self):
        assert checker.unasked_closes(self, []) == [], "nobody is closed"
        assert checker.false_absences(self, 1) == [], "nobody who is there is shown offline"

    def each(self, name):
        return [int(core.metric(name)) for core in self.cores]

    def reasserted(self):
        return sum(self.each("presence_core_reasserted_total"))


# ------------------------------------------------------------------------------------------------------ one core alone


@pytest.mark.parametrize("how", ["cut", "swallow"])
def test_a_core_that_alone_loses_redis_sends_its_edges_to_another(how):
    async def story():
        async with Story() as world:
            lonely = max((0, 1), key=lambda i: world.each("presence_core_links")[i])
            getattr(world.to_redis[lonely], how)()
            began = time.monotonic()
            await world.until(lambda: world.each("presence_core_links")[lonely] == 0, (CUT_OFF + 1) * PATIENCE, "its links have ended")
            await world.messages_reach_everybody(2)
            assert all(edge.healthy() for edge in world.edges)
            # For longer than any entry lives that it would have had to refresh.
            while time.monotonic() - began < ENTRY + 4:
                await asyncio.sleep(0.5)
                world.nobody_was_disturbed()
            assert world.each("presence_core_links")[lonely] == 0, "they stay where Redis is"
            world.to_redis[lonely].heal()
            await world.becomes(lonely, True, 5)
            await world.messages_reach_everybody(5)
            await asyncio.sleep(2)
            world.nobody_was_disturbed()
            assert world.known() == set(world.user_names)
            assert world.each("presence_core_shards_sent_away_total")[1 - lonely] == 0
    run(story())


def test_of_two_cores_without_redis_the_first_that_is_back_takes_the_edges_of_the_other():
    async def story():
        async with Story() as world:
            links = world.each("presence_core_links")
            lost = world.links_lost()
            for relay in world.to_redis:
                relay.cut()
            await world.until(lambda: sum(world.each("presence_core_shards_sent_away_total")) >= sum(links), (CUT_OFF + 1) * PATIENCE,
                              "all have been told to look")
            assert world.each("presence_core_links") == links and world.links_lost() == lost, "and stay: there is nothing better"
            lonely = max((0, 1), key=lambda i: links[i])
            world.to_redis[1 - lonely].heal()
            await world.becomes(1 - lonely, True, 5)
            await world.until(lambda: world.each("presence_core_links") == ([0, sum(links)] if lonely == 0 else [sum(links), 0]),
                              (2 + SEEK_EVERY + 1) * PATIENCE, "all have gone to the core that is back")
            await world.until(lambda: world.links_lost() >= lost + links[lonely], 5, "the edges have counted it")
            await world.messages_reach_everybody(2)
            await asyncio.sleep(ENTRY + 15)  # a Redis that nobody has asked for a while expires nobody for 15 s
            assert world.links_lost() == lost + links[lonely], "each by one step"
            world.nobody_was_disturbed()
            assert world.known() == set(world.user_names)
            assert not await world.is_serving(lonely)
    run(story())


def test_a_subscription_that_is_dead_on_a_live_connection_is_noticed():
    async def story():
        async with Story() as world:
            world.to_redis[0].deafen()
            await world.becomes(0, False, 5)
            assert await world.is_serving(1)
            # It cannot hear the others, so its edges go where they can.
            await world.until(lambda: world.each("presence_core_links")[0] == 0, (3 + CUT_OFF) * PATIENCE, "its links have ended")
            await world.messages_reach_everybody(3)
            world.to_redis[0].heal()
            await world.becomes(0, True, 5)
            await world.messages_reach_everybody(3)
            world.nobody_was_disturbed()
    run(story())


# ---------------------------------------------------------------------------------------------------- Redis is away


def test_ten_seconds_of_silence():
    async def story():
        async with Story() as world:
            links = world.each("presence_core_links")
            lost = world.links_lost()
            world.redis.kill(signal.SIGSTOP)
            for core in (0, 1):
                await world.becomes(core, False, 5)
            # Each shard looks for a core that has Redis, and stays where it is since there is none.
            await world.until(lambda: sum(world.each("presence_core_shards_sent_away_total")) >= sum(links), CUT_OFF * PATIENCE,
                              "all have been told to look")
            for edge in world.edges:
                await world.typing_is_local(edge)
            busy = links.index(max(links))
            data, code = await world.broadcast(busy)
            assert code == grpc.StatusCode.UNAVAILABLE, "other cores have not heard it"
            await world.until(lambda: world.listeners(data) == 2 * links[busy], 5 * PATIENCE, "those of its own edges have")
            assert (await world.broadcast(1, request_id="once"))[1] == grpc.StatusCode.UNAVAILABLE
            await asyncio.sleep(4)
            assert world.each("presence_core_links") == links and world.links_lost() == lost, "nobody is sent to and fro"
            world.redis.kill(signal.SIGCONT)
            for core in (0, 1):
                await world.becomes(core, True, 5)
            await world.messages_reach_everybody(5)
            await asyncio.sleep(ENTRY)
            world.nobody_was_disturbed()
            assert world.known() == set(world.user_names)
            # What was refused may be tried again.
            data, code = await world.broadcast(1, request_id="once more")
            assert code is None
            await world.is_heard(data, world.devices)
    run(story())


def test_a_restart_with_its_data():
    async def story():
        async with Story(redis=LoggedRedis) as world:
            before = world.reasserted()
            await world.redis.kill_and_wait(signal.SIGKILL)
            await world.becomes(0, False, 5)
            await world.typing_is_local(world.edges[0])
            await asyncio.sleep(1)
            world.redis.start().await_ready()
            assert world.known() == set(world.user_names), "it has its data"
            for core in (0, 1):
                await world.becomes(core, True, 5)
            await world.until(lambda: world.reasserted() - before >= len(world.devices), 5 * PATIENCE, "everybody is asserted again")
            await world.messages_reach_everybody(5)
            await asyncio.sleep(ENTRY + 2)
            world.nobody_was_disturbed()
            assert world.reasserted() - before <= 2 * len(world.devices), "once, and not again and again"
            await world.devices[0].leave()
            await world.until(lambda: world.devices[1].view.get(world.devices[0].user) == "offline", 10 * PATIENCE, "who leaves is seen to")
    run(story())


def test_a_crowd_is_asserted_again_at_a_bounded_rate():
    """5,000 users; HubOptions::writes_in_flight_max is 512."""
    users = [f"user-{number:04}" for number in range(5000)]
    with Stack(cores=1, edges=0) as stack:
        [core] = stack.cores

        async def story():
            async with Crowd(core) as crowd:
                await crowd.come(users)
                await crowd.settled(30)
                stack.redis.kill(signal.SIGKILL)
                await until_async(lambda: core.metric("presence_core_store_up") == 0, what="the core has noticed")
                stack.redis.start().await_ready()
                back, most = time.monotonic(), 0
                while stack.redis.client.zcard("presence.online") < len(users):
                    most = max(most, core.metric("presence_core_store_writes_in_flight"))
                    assert time.monotonic() - back < 5 * PATIENCE, "within 5 s all is there again"
                    await asyncio.sleep(0)
                assert most <= 512, "Redis has time for others meanwhile"
                await until_async(lambda: core.metric("presence_core_reasserted_total") >= len(users), what="it is counted")
                assert core.metric("presence_core_reasserted_total") == len(users), "each once"
        run(story())


# --------------------------------------------------------------------------------------------- Redis refuses writes


def out_of_memory(world):
    world.redis.client.config_set("maxmemory", 1)  # by default nothing is evicted

    def mend():
        world.redis.client.config_set("maxmemory", 0)
    return mend


def cannot_save(world):
    """As with a full disk."""
    shutil.rmtree(world.redis.data)
    with contextlib.suppress(redis.exceptions.ResponseError):
        world.redis.client.bgsave()

    def mend():
        world.redis.client.config_set("save", "")
    return mend


@pytest.mark.parametrize("refusing, error", [(out_of_memory, "OOM"), (cannot_save, "MISCONF")])
def test_writes_that_are_refused(refusing, error):
    async def story():
        async with Story(redis=SavingRedis) as world:
            refused_before = sum(world.each("presence_core_redis_errors_total"))
            mend = refusing(world)

            def refuses():
                try:
                    world.redis.client.set("anything", 1)
                except redis.exceptions.RedisError as refusal:
                    return type(refusal).__name__ == "OutOfMemoryError" or error in str(refusal)
            await world.until(refuses, 10 * PATIENCE, f"Redis says {error}")
            newcomer = world.add_device("newcomer", ["room0"], world.edges[0])
            await world.until(lambda: "room0" in newcomer.subscribed, 10 * PATIENCE, "somebody new may come in")
            leaver = world.devices[5]
            await leaver.leave()
            stayed = [device for device in world.devices if device not in (newcomer, leaver)]
            began = time.monotonic()
            while time.monotonic() - began < ENTRY + 3:  # longer than entries live
                for core in (0, 1):
                    data, code = await world.broadcast(core)
                    assert code in (None, grpc.StatusCode.UNAVAILABLE)
                    if code is None:  # then all have it
                        await world.is_heard(data, [*stayed, newcomer])
                _, code = await world.broadcast(0, request_id=f"at {time.monotonic()}")
                assert code == grpc.StatusCode.UNAVAILABLE, "it could not be kept that this was sent"
                await world.typing_is_local(world.edges[1])
                await asyncio.sleep(0.5)
            # The cores are all in the same place: nothing is gained by sending edges away, and reads go on.
            assert sum(world.each("presence_core_shards_sent_away_total")) == 0
            assert all(edge.healthy() for edge in world.edges) and await world.is_serving(0)
            # In a thread: the edge asks its core by a relay that lives in this loop.
            answer = await asyncio.to_thread(get, f"{world.edges[0].http}/presence/{stayed[0].user}")
            assert answer.json()["status"] == "online"
            assert sum(world.each("presence_core_redis_errors_total")) > refused_before
            mend()
            # What was not written is, within the bound of a Redis that comes back.
            for device in stayed:
                await world.until(lambda: device.view.get("newcomer") == "online", 5 * PATIENCE, "the newcomer is seen")
                await world.until(lambda: device.view.get(leaver.user) == "offline", 5 * PATIENCE, "who has left is seen to")
            await asyncio.sleep(ENTRY)
            world.nobody_was_disturbed()
            data, code = await world.broadcast(0, request_id="afterwards")
            assert code is None
            await world.is_heard(data, [*stayed, newcomer])
    run(story())
