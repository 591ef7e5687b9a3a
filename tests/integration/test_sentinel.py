"""A Redis with a replica and three Sentinels: the primary dies, and nobody who is connected notices more than a pause."""

import contextlib
import time

import pytest
import redis as redis_client

import harness
from harness import Client, Core, Edge, Keys, Process, free_port, run, until, until_async


class Replica(harness.Redis):
    """A Redis of its own directory; follows `primary` when there is one."""

    def __init__(self, directory, name, primary=None):
        self.name = name
        self.port = free_port()
        folder = directory / name
        folder.mkdir()
        follow = ["--replicaof", "127.0.0.1", primary.port] if primary else []
        Process.__init__(self, name, ["redis-server", "--bind", "127.0.0.1", "--port", self.port, "--save", "", "--appendonly", "no",
                                      "--repl-diskless-sync-delay", "0", "--dir", folder, *follow], directory)
        self.client = redis_client.Redis(port=self.port, decode_responses=True)
        self.await_ready()

    def is_primary(self):
        with contextlib.suppress(redis_client.exceptions.ConnectionError):  # who promotes it ends its connections
            return self.client.role()[0] == "master"

    def in_step(self):
        return self.client.info("replication").get("master_link_status") == "up"


class Sentinel(Process):
    def __init__(self, directory, number, primary):
        self.port = free_port()
        folder = directory / f"sentinel{number}"
        folder.mkdir()
        configuration = folder / "sentinel.conf"  # Sentinel writes it again
        configuration.write_text(
            f"port {self.port}\nbind 127.0.0.1\ndir {folder}\n"
            f"sentinel monitor chat 127.0.0.1 {primary.port} 2\n"
            "sentinel down-after-milliseconds chat 1000\nsentinel failover-timeout chat 5000\n")
        super().__init__(f"sentinel{number}", ["redis-server", configuration, "--sentinel"], directory)
        self.client = redis_client.Redis(port=self.port, decode_responses=True)

    def primary(self):
        with contextlib.suppress(redis_client.exceptions.RedisError):
            return int(self.client.sentinel_get_master_addr_by_name("chat")[1])

    def knows_everybody(self):
        with contextlib.suppress(redis_client.exceptions.RedisError):
            state = self.client.sentinel_master("chat")
            return state["num-slaves"] == 1 and state["num-other-sentinels"] == 2


class Cluster:
    def __init__(self, directory):
        self.processes = []
        self.primary = self.add(Replica(directory, "redis0"))
        self.replica = self.add(Replica(directory, "redis1", self.primary))
        until(self.replica.in_step, 20, what="the replica has caught up")
        self.sentinels = [self.add(Sentinel(directory, number, self.primary)) for number in range(3)]
        until(lambda: all(sentinel.knows_everybody() for sentinel in self.sentinels), 30, what="the Sentinels know each other")
        settings = {"REDIS_SENTINELS": ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels),
                    "REDIS_MASTER_NAME": "chat", "ROOM_AUTH": "redis"}
        self.primary.client.sadd("user.write:alice", "*")
        self.primary.client.sadd("room.write:general", "bob")
        keys = Keys(directory)
        self.token = keys.token
        # What REDIS_URL names is nowhere: only the Sentinels know.
        self.cores = [self.add(Core(directory, f"core{i}", "redis://127.0.0.1:1/0", **settings)).await_ready() for i in range(2)]
        self.edges = [self.add(Edge(directory, f"edge{i}", [core], keys, EDGE_SHARDS="1")).await_ready()
                      for i, core in enumerate(self.cores)]

    def add(self, process):
        self.processes.append(process)
        return process

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind is not None:
            for process in self.processes:
                print(f"----- {process.name}\n{process.log()[-4000:]}")
        for process in reversed(self.processes):
            process.begin_stop()
        for process in reversed(self.processes):
            process.await_stop()


async def hears_messages(cluster, client, text):
    """What is published at the primary now reaches the client; published again until it does, since a failover loses some."""
    def publish():
        with contextlib.suppress(redis_client.exceptions.RedisError):
            cluster.primary.client.publish("message:broadcast", '{"room_id":"general","type":"message","data":{"text":"%s"}}' % text)
        return client.seen(data={"text": text})
    await until_async(publish, 20, what=f"{text} is heard")


@pytest.fixture
def cluster(tmp_path):
    with Cluster(tmp_path) as running:
        yield running


async def fail_over(cluster, how):
    alice = (await Client.open(cluster.edges[0], cluster.token("alice"))).keep_alive(5)
    bob = (await Client.open(cluster.edges[1], cluster.token("bob"))).keep_alive(5)
    for client in (alice, bob):
        await client.subscribe("general")
    await hears_messages(cluster, alice, "before")

    cluster.primary, cluster.replica = cluster.replica, cluster.primary
    began = time.monotonic()
    await how(cluster)
    await until_async(cluster.primary.is_primary, 30, what="the replica is promoted")
    promoted = time.monotonic()
    # The new primary has everybody again, whatever of the old one's last moments it had not heard.
    for user in ("alice", "bob"):
        await until_async(lambda: '"online"' in (cluster.primary.client.get(f"presence:{user}") or ""), 20, what=f"{user} is online")
    await hears_messages(cluster, alice, "after")
    await hears_messages(cluster, bob, "after")
    print(f"promoted {promoted - began:.2f} s after the loss; messages flow {time.monotonic() - promoted:.2f} s later")

    # Rights are those of the new primary.
    cluster.primary.client.sadd("room.write:later", "bob")
    def let_in():
        return bob.seen(type="subscribed", channel_id="later")
    while not let_in():
        await bob.send(type="subscribe", channel_id="later")
        with contextlib.suppress(AssertionError):
            await until_async(let_in, 1)
    # Typing crosses the cores, over the new primary.
    await alice.send(type="typing", channel_id="general")
    await bob.expect(type="typing", user_id="alice")
    for client in (alice, bob):
        assert not client.closed
        assert not client.seen(type="presence", status="offline"), "nobody was called offline"
    for edge in cluster.edges:
        await until_async(edge.healthy, what="ready again")
    return alice, bob


def test_the_primary_is_killed(cluster):
    async def story():
        await fail_over(cluster, lambda c: c.replica.kill_and_wait(9))
    run(story())


def test_a_planned_failover_and_the_old_primary_stays(cluster):
    async def story():
        async def order(c):
            await until_async(lambda: c.sentinels[0].client.execute_command("SENTINEL", "FAILOVER", "chat"), 10, what="it is ordered")
        alice, bob = await fail_over(cluster, order)
        # And what happens afterwards is told over the new one.
        await bob.close()
        await alice.await_seen(type="presence", user_id="bob", status="offline")
    run(story())
