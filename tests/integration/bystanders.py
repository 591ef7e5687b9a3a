"""A limit that somebody trips as hard as he can, and the bystanders of another address, whose round trips are measured meanwhile.

With -s the tests print a row of the table in tests/bench/README.md each: the flood, and the bystanders' median and p99 in ms before
and during it. Nothing is judged by a time alone: that all of them are served, and that their round trips stay of the same order.
"""

import asyncio
import collections
import pathlib
import statistics
import subprocess
import sys
import time

from harness import PATIENCE, Client, run, until

BYSTANDERS = 10
# The floods take a core of a small machine, and so do the clients here: they alone cost bystanders some of their time. Without its limit
# a flood costs them all of it.
SLOWER_MAX = 50


def limited(edge, limit):
    return edge.metric(f'presence_edge_limited_total{{limit="{limit}"}}')


class Flood:
    """One of floods.py, from an address of its own."""

    addresses = (f"127.0.{i}.{j}" for i in range(1, 255) for j in range(1, 255))

    def __init__(self, stack, edge, kind):
        self.met = pathlib.Path(stack.directory.name) / f"{kind}-{edge.name}.met"
        program = pathlib.Path(__file__).parent / "floods.py"
        with open(self.met, "wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, str(program), kind, str(edge.port), next(self.addresses), stack.token("mallory")],
                stdout=output, stderr=subprocess.STDOUT)
        self.output = open(self.met)
        self.counts, self.unfinished = collections.Counter(), ""

    def count(self, what):
        """How often it has met that. Reads only what is new: all of it again and again would cost the bystanders their time."""
        *lines, self.unfinished = (self.unfinished + self.output.read()).split("\n")
        self.counts.update(lines)
        return self.counts[str(what)]

    def stop(self):
        self.process.kill()
        self.process.wait()
        self.output.close()


class Bystanders:
    def __init__(self, clients, round_trip):
        self.clients, self.round_trip = clients, round_trip

    @classmethod
    async def come(cls, stack, edges, round_trip):
        clients = [await Client.open(edges[i % len(edges)], stack.token(f"bystander{i}")) for i in range(BYSTANDERS)]
        for client in clients:
            await client.expect(type="pong")
        return cls(clients, round_trip)

    async def measure(self, enough):
        """Everybody's round trips, 20 a second each, until `enough()`; at least 40 of each."""
        times = []

        async def one(client):
            rounds = 0
            while rounds < 40 or not enough():
                start = time.monotonic()
                await self.round_trip(client)
                times.append(time.monotonic() - start)
                rounds += 1
                await asyncio.sleep(0.05)
        await asyncio.gather(*(one(client) for client in self.clients))
        return times

    async def leave(self):
        for client in self.clients:
            await client.close()


async def to_the_core_and_back(client):
    room = f"of {id(client)} alone"
    await client.subscribe(room)
    await client.send(type="unsubscribe", channel_id=room)
    await client.expect(type="unsubscribed")


def serve_while_tripped(stack, edges, kind, answers, counters, round_trip=Client.ping):
    """A flood at each of these edges, until all of them together were told what `answers` says, as often as it says: each of the
    `counters()` has grown, all bystanders were served, and newcomers, too."""
    async def story():
        bystanders = await Bystanders.come(stack, edges, round_trip)
        before = await bystanders.measure(lambda: True)
        counts = counters()
        floods = [Flood(stack, edge, kind) for edge in edges]
        try:
            deadline = time.monotonic() + 60 * PATIENCE

            def tripped():
                met = {answer: sum(flood.count(answer) for flood in floods) for answer in answers}
                assert time.monotonic() < deadline, f"{met}; {floods[0].met.read_text()[-500:]}"
                return all(met[answer] >= times for answer, times in answers.items())
            during = await bystanders.measure(tripped)
            newcomer = await Client.open(edges[0], stack.token("newcomer"))
            await round_trip(newcomer)
            await newcomer.close()
        finally:
            for flood in floods:
                flood.stop()
        until(lambda: all(now > then for now, then in zip(counters(), counts)), what=lambda: f"{counters()} and before {counts}")
        assert not any(client.closed for client in bystanders.clients)
        assert not any(client.seen(type="error") for client in bystanders.clients)
        await bystanders.leave()
        judge(kind, before, during)
    run(story())


def p99(times):
    return sorted(times)[len(times) * 99 // 100]


def judge(name, before, during):
    def both(times):
        return f"{statistics.median(times) * 1e3:.2f}, {p99(times) * 1e3:.1f}"
    print(f"\n| {name.replace('_', ' ')} | {both(before)} | {both(during)} |")
    assert statistics.median(during) < SLOWER_MAX * PATIENCE * p99(before)
