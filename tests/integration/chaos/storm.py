"""Faults at random, under load, for some time, from a seed; then calm, and a checker that reads what everybody saw.

    scripts/chaos storm --seconds 180 --seed 7

What is random is what is done and when; how the machine answers is its own affair, so a seed repeats the faults, not the run.
"""

import asyncio
import contextlib
import json
import random
import time

import redis.exceptions

import checker
import faults
from api import PASSING, Api, grpc
from harness import PATIENCE, get
from world import World

QUIET = 15  # seconds after Redis was away in which nobody expires
GRACE = 5  # EDGE_GRACE


class Publishers:
    """One speaks to Redis as any service does, and hopes; one calls Broadcast with a request_id, and repeats until it is answered."""

    def __init__(self, world):
        self.world, self.random = world, world.random_of("publishers")
        self.apis = [Api(core) for core in world.cores]
        self.numbers = {}
        self.acknowledged = {}  # (room, publisher, number) -> (begun, answered)
        self.refused = 0

    def _next(self, publisher):
        room = self.random.choice(self.world.room_names)
        self.numbers[room, publisher] = self.numbers.get((room, publisher), 0) + 1
        return room, publisher, self.numbers[room, publisher]

    async def hope(self, per_second):
        while True:
            room, publisher, number = self._next("redis")
            with contextlib.suppress(redis.exceptions.RedisError):
                text = json.dumps({"room_id": room, "type": "message", "data": {"room": room, "from": publisher, "n": number}})
                await asyncio.wait_for(asyncio.to_thread(self.world.redis.client.publish, "message:broadcast", text), 30)
            await asyncio.sleep(1 / per_second)

    async def insist(self, name, per_second):
        while True:
            room, publisher, number = key = self._next(name)
            begun, attempt = time.monotonic(), 0
            while True:
                try:
                    await self.apis[attempt % len(self.apis)].Broadcast(
                        timeout=5, room_id=room, request_id=f"{self.world.seed}/{room}/{publisher}/{number}",
                        data={"room": room, "from": publisher, "n": number})
                    self.acknowledged[key] = (begun, time.monotonic())
                    break
                except grpc.aio.AioRpcError as error:
                    self.refused += 1
                    if error.code() not in PASSING:
                        raise
                attempt += 1
                await asyncio.sleep(0.2)
            await asyncio.sleep(1 / per_second)

    async def close(self):
        for api in self.apis:
            await api.channel.close()


async def type_on(world, random_):
    while True:
        device = random_.choice(world.devices)
        if device.open() and device.rooms:
            await device.send(type="typing", channel_id=random_.choice(device.rooms))
        await asyncio.sleep(0.02)


async def listed(edge):
    """Who is there, says this edge; or why it does not say."""
    answer = await asyncio.to_thread(get, edge.http + "/presence?limit=10000")
    return {user["user_id"] for user in answer.json()["users"]} if answer.status == 200 else f"{answer.status} {answer.body[:80]}"


async def run_storm(seed, seconds, users, chosen=None, say=print):
    """Offences, as sentences, and the figures."""
    chosen = chosen or faults.ALL
    offences, kills = [], []
    async with World(seed, users=users) as world:
        for process in world.edges:
            inner = process.kill

            def kill(number=9, process=process, inner=inner):
                if number in (9, 15):
                    kills.append((time.monotonic(), process))
                return inner(number)
            process.kill = kill
        world.populate()
        await world.until(lambda: all(device.open() for device in world.devices), 30 * PATIENCE, "everybody is connected")
        publishers = Publishers(world)
        load = [world.spawn(publishers.hope(20)), world.spawn(publishers.insist("api0", 10)),
                world.spawn(publishers.insist("api1", 10)), world.spawn(type_on(world, world.random_of("typing")))]
        random_ = random.Random(seed)
        emptied = []
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            fault = random_.choice(chosen)
            began = time.monotonic()
            await fault(world, random.Random(random_.random()))
            if fault is faults.empty_redis:
                emptied.append((began, time.monotonic()))
            say(f"{began - end + seconds:7.1f} s  {fault.__name__}, {time.monotonic() - began:.1f} s")
            await asyncio.sleep(random_.uniform(0.2, 4))
            for task in load:
                if task.done():
                    task.result()

        bound = 2 * world.heartbeat + 8 + QUIET + GRACE
        truth = {user: "online" for user in world.user_names}

        async def calm(truth, what):
            here = {user for user, status in truth.items() if status == "online"}
            wrong = []

            async def converged():
                wrong[:] = checker.wrong_views(world, truth)
                for edge in world.edges:
                    if (found := await listed(edge)) != here:
                        wrong.append(f"{edge.name} lists {found if isinstance(found, str) else len(found)} of {len(here)} users")
                return not wrong
            deadline = time.monotonic() + bound * PATIENCE
            while not await converged() and time.monotonic() < deadline:
                await asyncio.sleep(0.2)
            offences.extend(f"{what}: {sentence}" for sentence in wrong[:5])
        await calm(truth, "after the storm")
        for task in load:
            task.cancel()
        await asyncio.sleep(2 * PATIENCE)
        leaving = world.user_names[::2]
        for device in world.devices:
            if device.user in leaving:
                await device.leave()
        for user in leaving:
            truth[user] = "offline"
        await calm(truth, "after half of them have left")

        offences += checker.unasked_closes(world, kills)
        offences += checker.false_absences(world, bound)
        offences += checker.disorder(world)
        delivered = checker.deliveries(world, publishers.acknowledged, settle=2)
        offences += checker.broken_promises(delivered, publishers.acknowledged, emptied)
        await publishers.close()
        figures = {
            "seconds": seconds, "devices": len(world.devices), "acknowledged": len(publishers.acknowledged),
            "calls repeated": publishers.refused, "deliveries expected": delivered.expected, "missing": len(delivered.missing),
            "doubled": len(delivered.doubled), "edges killed": len(kills),
            "longest time that this program stood still": f"{max((ended - began for began, ended in world.stalls), default=0):.1f} s"}
    return offences, figures, delivered
