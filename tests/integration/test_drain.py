"""An edge is taken out of service by an operator: DrainEdge and SetLogLevel of presence.admin.v1, with the real grpcurl."""

import contextlib
import json
import shutil
import signal
import subprocess
import time

import pytest
import websockets

from harness import PATIENCE, ROOT, Client, Stack, get, run, until, until_async

GRPCURL = shutil.which("grpcurl") or str(ROOT / "build/tools/grpcurl")


def admin(core, method, data, ok=True):
    done = subprocess.run([GRPCURL, "-plaintext", "-max-time", str(10 * PATIENCE), "-d", json.dumps(data), core.api,
                           f"presence.admin.v1.AdminService/{method}"],
                          capture_output=True, text=True, timeout=30 * PATIENCE)
    assert (done.returncode == 0) == ok, done.stderr + done.stdout
    return json.loads(done.stdout) if ok else done.stderr


async def is_there(client):
    try:
        return bool(await client.ping())
    except (AssertionError, websockets.ConnectionClosed):
        return False


@contextlib.contextmanager
def stack_of(**settings):
    # Two shards on the edges: an order that one of them hears is for both.
    with Stack(cores=2, edges=2, pinned=True, edge_settings={"EDGE_SHARDS": "2", **settings}) as stack:
        # Cores hear of each other within a second of their start.
        for core in stack.cores:
            until(lambda: len(admin(core, "GetClusterState", {}).get("edges", [])) == 2, what="a core sees both edges")
        yield stack


def test_a_drained_edge_sends_its_clients_away_and_waits_to_be_stopped():
    with stack_of() as stack:
        async def story():
            drained, other = stack.edges
            leaving = [await Client.open(drained, stack.token(f"leaving{i}")) for i in range(8)]
            staying = await Client.open(other, stack.token("staying"))
            until(lambda: sum(core.metric("presence_core_connections") for core in stack.cores) == 9)

            # From the core to which the edge is not attached.
            answer = admin(stack.cores[1], "DrainEdge", {"edge": "edge0", "window": f"{4 * PATIENCE}s"})
            assert answer == {"connection_count": 8}
            health = get(drained.http + "/health")
            assert health.status == 503 and health.json()["reason"] == "draining"
            assert any([await is_there(client) for client in leaving]), "readiness goes first, then the clients"

            with pytest.raises(websockets.InvalidStatusCode) as refused:
                await Client.open(drained, stack.token("newcomer"))
            assert refused.value.status_code == 503 and refused.value.headers["Retry-After"] == "1"

            # A second one, which would be over at once, changes nothing.
            admin(stack.cores[0], "DrainEdge", {"edge": "edge0", "window": "0s"})
            assert any([await is_there(client) for client in leaving])

            again = {}
            for number, client in enumerate(leaving):
                assert await client.await_closed() == 1012
                last = json.loads(client.frames[-1])
                assert last["type"] == "reconnect" and 200 <= last["after_ms"] <= 700, "that is the last word"
                if number < 4:
                    again[number] = await Client.open(other, stack.token(f"leaving{number}"))
            await until_async(lambda: get(drained.http + "/health").json()["active_connections"] == 0)
            assert drained.process.poll() is None, "it waits to be stopped"
            # Who is not back is gone when the time is over (a young Redis expires nobody for 15 s); of who is back nothing is seen.
            for number in range(4, 8):
                await staying.await_seen(30, type="presence", user_id=f"leaving{number}", status="offline")
            for number in range(4):
                assert not staying.seen(type="presence", user_id=f"leaving{number}", status="offline")
            await staying.ping()
            assert await drained.kill_and_wait(signal.SIGTERM) == 0
            for client in (staying, *again.values()):
                await client.close()
        run(story())


def test_the_end_of_the_process_overtakes_a_long_drain():
    with stack_of(EDGE_DRAIN_WINDOW="1") as stack:
        async def story():
            edge = stack.edges[0]
            clients = [await Client.open(edge, stack.token(f"user{i}")) for i in range(4)]
            until(lambda: stack.cores[0].metric("presence_core_connections") == 4)
            admin(stack.cores[0], "DrainEdge", {"edge": "edge0", "window": "3600s"})
            until(lambda: not edge.healthy())
            started = time.monotonic()
            assert await edge.kill_and_wait(signal.SIGTERM) == 0
            assert time.monotonic() - started < 10 * PATIENCE
            assert [await client.await_closed() for client in clients] == [1012] * 4
        run(story())


def test_what_is_not_there_cannot_be_drained():
    with stack_of() as stack:
        assert "NotFound" in admin(stack.cores[0], "DrainEdge", {"edge": "edge7"}, ok=False)
        assert all(edge.healthy() for edge in stack.edges)


def test_an_edge_logs_as_much_as_it_is_told_to():
    with stack_of() as stack:
        async def story():
            quiet, other = stack.edges
            assert admin(stack.cores[1], "SetLogLevel", {"edge": "edge0", "level": "LOG_LEVEL_ERROR"})["process_count"] == 1
            until(lambda: "Log level ERROR" in quiet.log())
            await (await Client.open(quiet, stack.token("unmentioned"))).close()
            await (await Client.open(other, stack.token("mentioned"))).close()
            until(lambda: "(mentioned) connected" in other.log())
            admin(stack.cores[1], "SetLogLevel", {"edge": "edge0", "level": "LOG_LEVEL_INFO"})
            until(lambda: "Log level INFO" in quiet.log())
            await (await Client.open(quiet, stack.token("mentioned"))).close()
            until(lambda: "(mentioned) connected" in quiet.log())
            assert "unmentioned" not in quiet.log()
        run(story())
