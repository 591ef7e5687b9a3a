"""The rows of the failure table: each failure is caused, and what is promised is seen. Bounds are DESIGN.md's for H = 1 s."""

import asyncio
import json
import os
import signal
import time

import pytest

from harness import PATIENCE, Client, Edge, Stack, get, run, until, until_async

ROUNDS = int(os.environ.get("PRESENCE_ROUNDS", "1"))  # of the kill tests; scripts/test --long says more
FAST = {"WS_HEARTBEAT_INTERVAL": "1", "WS_PRESENCE_TTL": "30"}


def stack_of(**settings):
    return Stack(core_settings=FAST, edge_settings=FAST, **settings)


async def connect(edge, token):
    return (await Client.open(edge, token)).keep_alive(0.4)


async def hold(seconds, condition=lambda: False):
    """Lets so much time pass, or until the condition holds."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and not condition():
        await asyncio.sleep(0.05)


@pytest.mark.parametrize("round_", range(ROUNDS))
def test_kill_9_of_an_edge_leaves_no_ghost(round_):
    with stack_of(cores=2, edges=2) as stack:
        async def story():
            watcher = await connect(stack.edges[0], stack.token("watcher"))
            victim = await connect(stack.edges[1], stack.token("victim"))
            await watcher.await_seen(type="presence", user_id="victim", status="online")
            stack.edges[1].kill(signal.SIGKILL)
            await hold(6 * PATIENCE + 2, condition=lambda: watcher.seen(user_id="victim", status="offline"))
            assert watcher.seen(user_id="victim", status="offline"), "told within EDGE_GRACE + 1 s"
            assert "victim" not in [u["user_id"] for u in get(stack.edges[0].http + "/presence").json()["users"]]
            await watcher.close()
        run(story())


def test_a_silent_client_is_closed_and_shown_offline():
    with stack_of() as stack:
        async def story():
            watcher = await connect(stack.edges[0], stack.token("watcher"))
            silent = await Client.open(stack.edges[0], stack.token("silent"))
            await hold(6 * PATIENCE, condition=lambda: silent.closed)
            assert silent.close_code == 1008
            assert silent.socket.close_reason == "Heartbeat timeout"
            await watcher.await_seen(type="presence", user_id="silent", status="offline")
            await watcher.close()
        run(story())


@pytest.mark.parametrize("round_", range(ROUNDS))
def test_kill_9_of_a_core_closes_nobody_and_presence_does_not_flap(round_):
    with stack_of(cores=2, edges=2) as stack:
        async def story():
            alice = await connect(stack.edges[0], stack.token("alice"))
            bob = await connect(stack.edges[1], stack.token("bob"))
            for client in (alice, bob):
                await client.subscribe(channel_id="room")
            await alice.await_seen(type="presence", user_id="bob", status="online")
            stack.cores[0].kill(signal.SIGKILL)
            # Held by the edge that had that core (which of the two is chance), and answered once, when it has found the other one. Both are
            # waited for: what is published while an edge has no core does not reach its clients.
            for client in (alice, bob):
                await client.send(type="subscribe", channel_id="late")
            for client in (alice, bob):
                await hold(10 * PATIENCE, condition=lambda: client.seen(type="subscribed", channel_id="late"))
                assert len(client.seen(type="subscribed", channel_id="late")) == 1
            stack.redis.client.publish("message:broadcast", '{"room_id":"room","n":1}')
            await alice.expect(n=1)
            await bob.expect(n=1)
            await bob.send(type="typing", channel_id="room")
            await alice.expect(type="typing", user_id="bob")
            # Longer than grace and deadline: nobody is called offline by an old entry.
            await hold(7 * PATIENCE)
            assert not alice.closed and not bob.closed
            for client in (alice, bob):
                assert not client.seen(type="presence", status="offline"), client.frames
            assert json.loads(stack.redis.client.get("presence:alice"))["status"] == "online"
            # The core comes back, and the other one goes.
            stack.cores[0].start().await_ready()
            stack.cores[1].kill(signal.SIGKILL)
            await hold(7 * PATIENCE)
            stack.redis.client.publish("message:broadcast", '{"room_id":"late","n":2}')
            await alice.expect(n=2)
            assert not bob.seen(type="presence", status="offline")
            await alice.close()
            await bob.await_seen(type="presence", user_id="alice", status="offline")
            await bob.close()
        run(story())


@pytest.mark.parametrize("round_", range(ROUNDS))
def test_redis_killed_and_restarted_empty_calls_nobody_offline(round_):
    with stack_of(cores=2, edges=2) as stack:
        async def story():
            alice = await connect(stack.edges[0], stack.token("alice"))
            bob = await connect(stack.edges[1], stack.token("bob"))
            carol = await connect(stack.edges[0], stack.token("carol"))
            for client in (alice, bob, carol):
                await client.subscribe(channel_id="room")
            await alice.await_seen(type="presence", user_id="bob", status="online")
            stack.redis.kill(signal.SIGKILL)
            await hold(2)
            # Local delivery goes on.
            await carol.send(type="typing", channel_id="room")
            await alice.expect(type="typing", user_id="carol")
            assert get(stack.edges[0].http + "/presence/alice").status == 503
            stack.redis.start().await_ready()
            back = lambda: all(stack.redis.client.exists(f"presence:{u}") for u in ("alice", "bob", "carol"))
            await hold(5 * PATIENCE + 2, condition=back)
            assert back(), "re-asserted within 5 s of its return"
            await hold(3)
            for client in (alice, bob, carol):
                assert not client.closed
                assert not client.seen(type="presence", status="offline"), client.frames
            stack.redis.client.publish("message:broadcast", '{"room_id":"room","n":1}')
            await alice.expect(n=1)
            await bob.expect(n=1)
            assert get(stack.edges[1].http + "/presence").json()["count"] == 3
            await carol.close()
            await bob.await_seen(type="presence", user_id="carol", status="offline")
            await alice.close()
            await bob.close()
        run(story())


def test_a_stalled_redis_is_noticed_and_nobody_expires():
    with stack_of() as stack:
        async def story():
            alice = await connect(stack.edges[0], stack.token("alice"))
            bob = await connect(stack.edges[0], stack.token("bob"))
            for client in (alice, bob):
                await client.subscribe(channel_id="room")
            stack.redis.kill(signal.SIGSTOP)
            await hold(8)  # longer than an entry's deadline
            await bob.send(type="typing", channel_id="room")
            await alice.expect(type="typing", user_id="bob")
            stack.redis.kill(signal.SIGCONT)
            await hold(6)
            for client in (alice, bob):
                assert not client.closed
                assert not client.seen(type="presence", status="offline"), client.frames
            await bob.close()
            await alice.await_seen(type="presence", user_id="bob", status="offline")
            await alice.close()
        run(story())


def test_core_and_edge_die_together_and_the_other_core_sweeps():
    with stack_of(cores=2, edges=1) as stack:
        # This edge knows one core alone, so that nobody but the sweep can find out about its users.
        doomed = stack.add(Edge(stack.directory.name, "doomed", [stack.cores[1]], stack.keys, EDGE_SHARDS="1", **FAST))
        doomed.await_ready()

        async def story():
            # A Redis that has just been started expires nobody for 15 s.
            quiet_until = lambda: int(stack.redis.client.hget("presence.sweep", "quiet_until") or 2**62)
            await until_async(lambda: quiet_until() < time.time() * 1000, 20, what="the quiet period is over")
            watcher = await connect(stack.edges[0], stack.token("watcher"))
            await connect(doomed, stack.token("victim"))
            await watcher.await_seen(type="presence", user_id="victim", status="online")
            stack.cores[1].kill(signal.SIGKILL)
            doomed.kill(signal.SIGKILL)
            await hold((2 + 8) * PATIENCE, condition=lambda: watcher.seen(user_id="victim", status="offline"))
            assert watcher.seen(user_id="victim", status="offline"), "2 H + 8 s"
            await watcher.close()
        run(story())


def test_an_edge_that_is_stopped_says_goodbye_and_cleans_up():
    with stack_of(cores=1, edges=2) as stack:
        async def story():
            watcher = await connect(stack.edges[0], stack.token("watcher"))
            leaving = await connect(stack.edges[1], stack.token("leaving"))
            await watcher.await_seen(type="presence", user_id="leaving", status="online")
            started = time.monotonic()
            assert await stack.edges[1].kill_and_wait(signal.SIGTERM) == 0
            assert time.monotonic() - started < 10 * PATIENCE
            assert await leaving.await_closed() == 1012
            # Held for the time to come back, and for as long as a young Redis expires nobody.
            await watcher.await_seen(30, type="presence", user_id="leaving", status="offline")
            await watcher.close()
        run(story())


def test_a_core_that_is_stopped_hands_its_edges_over():
    with stack_of(cores=2, edges=1) as stack:
        async def story():
            alice = await connect(stack.edges[0], stack.token("alice"))
            bob = await connect(stack.edges[0], stack.token("bob"))
            await alice.subscribe(channel_id="room")

            def attached():
                return [core for core in stack.cores if core.metric("presence_core_links") > 0]
            await until_async(attached, what="a core has the edge")
            [first] = attached()
            assert await first.kill_and_wait(signal.SIGTERM) == 0
            other = next(core for core in stack.cores if core is not first)
            await until_async(lambda: other.metric("presence_core_memberships") > 0, 5,
                              what="the other core has the subscription")
            stack.redis.client.publish("message:broadcast", '{"room_id":"room","n":1}')
            await alice.expect(n=1)
            await hold(7)
            assert not alice.seen(type="presence", status="offline")
            for client in (alice, bob):
                await client.close()
        run(story())
