"""What Broadcast acknowledged reaches each subscriber that stayed once, in order: through the death of a core, a rolling restart of all of them,
and a Redis that restarts with its data. What Redis loses, clients are told."""

import asyncio
import json
import signal

from api import PASSING, Api, grpc
from harness import PATIENCE, Client, Redis, Stack, run, until_async


class Speaker:
    """Sends messages with a request_id, each until some core has acknowledged it."""

    def __init__(self, cores, rooms):
        self.apis, self.rooms = [Api(core) for core in cores], rooms
        self.acknowledged, self.stopped = [], False
        self.tasks = [asyncio.create_task(self.speak(room)) for room in rooms]

    async def speak(self, room):
        number = 0
        while not self.stopped:
            number, attempt = number + 1, 0
            while True:
                try:
                    await self.apis[(number + attempt) % len(self.apis)].Broadcast(
                        timeout=5, room_id=room, request_id=f"{room}/{number}", data={"room": room, "n": number})
                    break
                except grpc.aio.AioRpcError as error:
                    assert error.code() in PASSING, error
                attempt += 1
                await asyncio.sleep(0.1)
            self.acknowledged.append((room, number))
            await asyncio.sleep(0.01)

    async def until_acknowledged(self, more):
        target = len(self.acknowledged) + more
        await until_async(lambda: len(self.acknowledged) >= target or any(task.done() for task in self.tasks), 30,
                          what=f"{more} more messages are acknowledged")

    async def stop(self):
        self.stopped = True
        await asyncio.gather(*self.tasks)
        for api in self.apis:
            await api.channel.close()


def got(client):
    messages = [json.loads(text) for text in client.frames if '"type":"message"' in text]
    return [(message["data"]["room"], int(message["data"]["n"])) for message in messages]


async def all_have(clients, speaker):
    expected = {room: [number for where, number in speaker.acknowledged if where == room] for room in speaker.rooms}

    def complete():
        return all(len(got(client)) >= sum(map(len, expected.values())) for client in clients)
    try:
        await until_async(complete, 15)
    except AssertionError:
        pass  # what is missing is said below
    for client in clients:
        assert not client.closed, (client.close_code, client.socket.close_reason)
        for room, numbers in expected.items():
            seen = [number for where, number in got(client) if where == room]
            assert seen == sorted(numbers), (room, sorted(set(numbers) - set(seen)), [n for n in seen if seen.count(n) > 1][:5])


async def subscribers(stack, rooms, count=6):
    clients = []
    for i in range(count):
        client = (await Client.open(stack.edges[i % len(stack.edges)], stack.token(f"user{i}"))).keep_alive(1)
        for room in rooms:
            await client.subscribe(channel_id=room)
        clients.append(client)
    return clients


def through(trouble, **settings):
    rooms = ["one", "two", "three"]
    with Stack(cores=2, edges=2, **settings) as stack:
        async def told():
            clients = await subscribers(stack, rooms)
            speaker = Speaker(stack.cores, rooms)
            await speaker.until_acknowledged(30)
            await trouble(stack, speaker)
            await speaker.until_acknowledged(60)
            await speaker.stop()
            await all_have(clients, speaker)
            assert not any(client.seen(type="gap") for client in clients)
        run(told())
        return [sum(core.metric(name) for core in stack.cores)
                for name in ("presence_core_room_log_appended_total", "presence_core_room_log_replayed_total")]


def test_a_core_that_is_killed():
    async def killed(stack, speaker):
        for core in stack.cores:
            await core.kill_and_wait(signal.SIGKILL)
            await speaker.until_acknowledged(60)
            core.start().await_ready()
            await speaker.until_acknowledged(30)
    through(killed)


def test_a_rolling_restart_of_all_cores():
    async def restarted(stack, speaker):
        for core in stack.cores:
            await core.kill_and_wait(signal.SIGTERM)
            core.start().await_ready()
            await speaker.until_acknowledged(30)
    appended, _ = through(restarted)
    assert appended > 0


class DurableRedis(Redis):
    keeping = ["--save", "", "--appendonly", "yes", "--appendfsync", "always"]


def test_a_redis_that_restarts_with_its_data(monkeypatch):
    import harness
    monkeypatch.setattr(harness, "Redis", DurableRedis)

    async def restarted(stack, speaker):
        await stack.redis.kill_and_wait(signal.SIGKILL)
        await asyncio.sleep(0.5 * PATIENCE)
        stack.redis.start().await_ready()
    through(restarted)


def test_a_redis_that_is_emptied_is_told():
    with Stack(cores=1, edges=1) as stack:
        async def told():
            alice, bob = await subscribers(stack, ["one"], 2)
            await bob.subscribe(dm_id="two")
            speaker = Speaker(stack.cores, ["one", "two"])
            await speaker.until_acknowledged(10)
            await speaker.stop()
            await stack.redis.kill_and_wait(signal.SIGKILL)
            stack.redis.start().await_ready()
            for client in (alice, bob):
                await client.await_seen(20, type="gap", channel_id="one", dm_id=None)
            await bob.await_seen(20, type="gap", channel_id=None, dm_id="two")
            assert not alice.seen(type="gap", dm_id="two")
            again = Speaker(stack.cores, ["one"])
            await again.until_acknowledged(5)
            await again.stop()
            await until_async(lambda: got(alice)[-1] == again.acknowledged[-1])
            assert len(alice.seen(type="gap")) == 1
        run(told())
