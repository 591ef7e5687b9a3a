"""No ghosts, with a number: for each way to die, the time from the failure to the last watcher knowing the truth.

    scripts/chaos rows --runs 50 --heartbeat 2
"""

import asyncio
import collections
import contextlib
import pathlib
import signal
import statistics
import tempfile
import time

import redis.exceptions

from harness import PATIENCE, Client, until_async
from test_sentinel import Cluster
from world import World

# `measure(scene, bound)`: one run, in seconds. `world`: whether the scene is that of a World; else it is None.
Row = collections.namedtuple("Row", "name bound measure world", defaults=[True])


class Scene:
    """Watchers on the first two edges, victims on the third; each victim is a user of its own."""

    def __init__(self, world):
        self.world, self.count = world, 0
        self.watchers = []

    async def publish(self, cause, number):
        text = '{"room_id":"hall","type":"message","data":{"room":"hall","from":"%s","n":%d}}' % (cause, number)
        await asyncio.to_thread(self.world.redis.client.publish, "message:broadcast", text)

    async def begin(self):
        world = self.world
        for i in range(4):
            self.watchers.append(world.add_device(f"watcher{i}", ["hall"], world.edges[i % 2]))
        await world.until(lambda: all("hall" in watcher.subscribed for watcher in self.watchers), 30 * PATIENCE, "the watchers are there")

    async def victim(self):
        self.count += 1
        victim = self.world.add_device(f"victim{self.count}", ["hall"], self.world.edges[2])
        await self.world.until(lambda: all(watcher.view.get(victim.user) == "online" for watcher in self.watchers), 20 * PATIENCE,
                               "the victim is seen")
        return victim

    async def until_gone(self, victim, since, bound):
        gone = lambda: all(watcher.view.get(victim.user) == "offline" for watcher in self.watchers)
        await self.world.until(gone, bound * PATIENCE + 20, f"{victim.user} is gone")
        last = max(seen.at for watcher in self.watchers for seen in watcher.seen if seen.key == (victim.user, "offline"))
        return last - since

    def nobody_flapped(self):
        for watcher in self.watchers:
            assert not watcher.sessions[-1][1], "a watcher was closed"
            for other in self.watchers:
                assert watcher.view.get(other.user) != "offline", f"{other.user} was shown offline"


async def says_goodbye(scene, bound):
    victim = await scene.victim()
    since = time.monotonic()
    await victim.leave()
    return await scene.until_gone(victim, since, bound)


async def goes_silent(scene, bound):
    """Its frames end, its socket stays: as when a telephone loses its network."""
    victim = await scene.victim()
    victim.leaving = True
    victim.silent = True
    since = victim.spoke_at
    return await scene.until_gone(victim, since, bound)


async def edge_killed(scene, bound):
    victim = await scene.victim()
    victim.leaving = True
    edge = scene.world.edges[2]
    since = time.monotonic()
    await edge.kill_and_wait(signal.SIGKILL)
    taken = await scene.until_gone(victim, since, bound)
    edge.start()
    await asyncio.to_thread(edge.await_ready)
    return taken


async def edge_stopped(scene, bound):
    victim = await scene.victim()
    victim.leaving = True
    edge = scene.world.edges[2]
    since = time.monotonic()
    edge.begin_stop()
    taken = await scene.until_gone(victim, since, bound)
    await asyncio.to_thread(edge.await_stop)
    edge.start()
    await asyncio.to_thread(edge.await_ready)
    return taken


async def edge_left(scene, bound):
    """Until its user, who was told to, is at another edge; nobody has seen him gone."""
    victim = await scene.victim()
    edge, victim.choose = scene.world.edges[2], scene.world.edges[0]
    since = time.monotonic()
    edge.begin_stop()
    back = lambda: victim.open() and victim.sessions[-1][3] is victim.choose
    await scene.world.until(back, bound * PATIENCE + 20, f"{victim.user} is back")
    taken = victim.sessions[-1][0] - since
    await asyncio.to_thread(edge.await_stop)
    edge.start()
    await asyncio.to_thread(edge.await_ready)
    assert not any(seen.key == (victim.user, "offline") for watcher in scene.watchers for seen in watcher.seen), "he was shown offline"
    await victim.leave()
    await scene.until_gone(victim, time.monotonic(), 20)
    return taken


async def core_and_edge_killed(scene, bound):
    """The edge knows that core alone, so that nobody but the other core's sweep can find out."""
    world = scene.world
    edge, core, others = world.edges[2], world.cores[1], world.to_cores[2][:1]
    for relay in others:
        relay.cut()
    await world.until(lambda: edge.healthy(), 20 * PATIENCE, "the edge has the other core")
    victim = await scene.victim()
    victim.leaving = True
    since = time.monotonic()
    core.kill(signal.SIGKILL)
    edge.kill(signal.SIGKILL)
    taken = await scene.until_gone(victim, since, bound)
    for relay in others:
        relay.heal()
    core.start()
    await asyncio.to_thread(core.await_ready)
    edge.start()
    await asyncio.to_thread(edge.await_ready)
    scene.nobody_flapped()
    return taken


async def hears_again(scene, since, bound, cause):
    """Until every watcher has had a message that was published after the failure."""
    world, number = scene.world, 0

    def heard(watcher):
        return next((seen.at for seen in watcher.seen if seen.kind == "message" and seen.key[1] == cause), None)
    deadline = time.monotonic() + bound * PATIENCE + 20
    while not all(heard(watcher) for watcher in scene.watchers):
        assert time.monotonic() < deadline, f"{cause}: not every watcher hears again"
        number += 1
        await scene.publish(cause, number)
        await asyncio.sleep(0.05)
    scene.nobody_flapped()
    return max(heard(watcher) for watcher in scene.watchers) - since


async def core_killed(scene, bound):
    world = scene.world
    core = max(world.cores, key=lambda each: each.metric("presence_core_links"))
    scene.count += 1
    since = time.monotonic()
    await core.kill_and_wait(signal.SIGKILL)
    taken = await hears_again(scene, since, bound, f"core{scene.count}")
    core.start()
    await asyncio.to_thread(core.await_ready)
    return taken


async def core_cut_off(scene, bound):
    """Until its edges are with the other core, and messages flow to all. Cut off for so long that its users' entries would have ended."""
    world = scene.world
    scene.count += 1
    core = max(range(len(world.cores)), key=lambda i: world.cores[i].metric("presence_core_links"))
    since = time.monotonic()
    getattr(world.to_redis[core], ["cut", "swallow"][scene.count % 2])()
    taken = await hears_again(scene, since, bound, f"cut{scene.count}")
    await asyncio.sleep(max(0, since + 2 * world.heartbeat + 5 - time.monotonic()))
    scene.nobody_flapped()
    world.to_redis[core].heal()
    await world.until(lambda: world.cores[core].metric("presence_core_store_up") == 1, 20 * PATIENCE, "the core has Redis again")
    return taken


async def redis_emptied(scene, bound):
    """From its return until it knows everybody again and messages flow."""
    world = scene.world
    scene.count += 1
    await world.redis.kill_and_wait(signal.SIGKILL)
    await asyncio.sleep(1)
    world.redis.start()
    await asyncio.to_thread(world.redis.await_ready)
    since = time.monotonic()
    await world.until(lambda: all(world.redis.client.exists(f"presence:{watcher.user}") for watcher in scene.watchers),
                      bound * PATIENCE + 20, "everybody is known again")
    return await hears_again(scene, since, bound, f"redis{scene.count}")


async def redis_silent(scene, bound):
    """Stands still for 10 s, with every connection open."""
    world = scene.world
    scene.count += 1
    await asyncio.to_thread(world.redis.kill, signal.SIGSTOP)
    await asyncio.sleep(10)
    world.redis.kill(signal.SIGCONT)
    return await hears_again(scene, time.monotonic(), bound, f"silence{scene.count}")


async def redis_fails_over(_, bound):
    """A cluster of its own with three Sentinels: from the promotion until every watcher has had a message of after it."""
    with tempfile.TemporaryDirectory(prefix="presence-chaos-") as folder:
        cluster = await asyncio.to_thread(Cluster, pathlib.Path(folder))
        try:
            watchers = [(await Client.open(cluster.edges[i % 2], cluster.token(["alice", "bob"][i % 2]))).keep_alive(5) for i in range(4)]
            for watcher in watchers:
                await watcher.subscribe("general")
            dead, heir = cluster.primary, cluster.replica
            await dead.kill_and_wait(signal.SIGKILL)
            await until_async(heir.is_primary, 30, what="the replica is promoted")
            since = time.monotonic()
            while not all(watcher.seen(type="message") for watcher in watchers):
                assert time.monotonic() - since < bound * PATIENCE + 20, "not every watcher hears again"
                with contextlib.suppress(redis.exceptions.ConnectionError):
                    await asyncio.to_thread(heir.client.publish, "message:broadcast", '{"room_id":"general","type":"message","data":{}}')
                await asyncio.sleep(0.05)
            taken = time.monotonic() - since
            for watcher in watchers:
                assert not watcher.closed and not watcher.seen(type="presence", status="offline"), "somebody was shown offline"
            for watcher in watchers:
                await watcher.close()
            return taken
        finally:
            await asyncio.to_thread(cluster.__exit__, None)


def rows(heartbeat):
    return [Row("a client that says goodbye", 1, says_goodbye),
            Row("a client, silently", 2 * heartbeat + 4, goes_silent),
            Row("an edge, killed", 6, edge_killed),
            Row("an edge, stopped: until its user is at another", 5, edge_left),
            Row("an edge, stopped, and its user stays away", 15, edge_stopped),
            Row("a core, killed: until messages flow again", 6, core_killed),
            Row("core and edge, killed", 2 * heartbeat + 8, core_and_edge_killed),
            Row("a core, cut off from Redis: until messages flow again", min(heartbeat + 0.5, 5) + 2, core_cut_off),
            Row("Redis, silent for 10 s: after its return", 5, redis_silent),
            Row("Redis, emptied: after its return", 5, redis_emptied),
            Row("Redis' primary, with Sentinels: after the promotion", 5, redis_fails_over, False)]


async def some_runs(row, runs, heartbeat, seed):
    """How long each took, in a world of their own."""
    if not row.world:
        return [await row.measure(None, row.bound) for _ in range(runs)]
    async with World(seed, users=0, heartbeat=heartbeat) as world:
        scene = Scene(world)
        await scene.begin()
        # A Redis that has just been started expires nobody for 15 s.
        quiet = lambda: int(world.redis.client.hget("presence.sweep", "quiet_until") or 2**62) > time.time() * 1000
        await world.until(lambda: not quiet(), 30 * PATIENCE, "the quiet period is over")
        return [await row.measure(scene, row.bound) for _ in range(runs)]


async def run_rows(runs, heartbeat, seed, chosen=None, at_once=1, say=print):
    """Offences, as sentences; prints the table. `at_once`: in so many worlds beside each other."""
    offences = []
    say(f"heartbeat {heartbeat:g} s, {runs} runs each, seconds\n\n| dies | bound | p50 | worst |\n| --- | --- | --- | --- |")
    for row in rows(heartbeat):
        if chosen and not any(word in row.name for word in chosen):
            continue
        shares = [len(range(i, runs, at_once)) for i in range(min(at_once, runs))]
        taken = sum(await asyncio.gather(*(some_runs(row, share, heartbeat, seed + i) for i, share in enumerate(shares))), [])
        say(f"| {row.name} | {row.bound:.1f} | {statistics.median(taken):.2f} | {max(taken):.2f} |")
        if max(taken) > row.bound * PATIENCE:
            offences.append(f"{row.name}: {max(taken):.2f} s, and {row.bound} s is the bound")
    return offences
