"""What it costs when a core dies and its shards go to another one, with thousands of idle connections: CPU of each process, and how long it takes.

    cmake --build build/release --target presence-core presence-edge presence-cli presence-load
    /usr/bin/python3 tests/bench/resync.py --connections 10000

Starts a stack of its own: Redis, two cores, one edge. Each connection is a user of its own and in one of the rooms.
"""

import argparse
import asyncio
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
os.environ.setdefault("PRESENCE_BIN", str(ROOT / "build/release/bin"))
sys.path.insert(0, str(ROOT / "tests/integration"))

from api import AWAY, Api  # noqa: E402
from harness import BIN, Core, Edge, Redis, until  # noqa: E402


def cpu_seconds(process):
    fields = pathlib.Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(arguments):
    """CPU seconds by process name, over `calm` seconds before and until everybody is known to the other core; and how long that took."""
    with tempfile.TemporaryDirectory(prefix="presence-bench-") as folder:
        subprocess.run([BIN / "presence-cli", "keys", "--out", folder], check=True, stdout=subprocess.DEVNULL)
        keys = type("Keys", (), {"path": pathlib.Path(folder) / "jwks.json"})
        redis = Redis(folder)
        processes = [redis]
        load = None
        try:
            settings = {"CONNECTIONS_PER_USER": "0", "PRESENCE_SCOPE": "rooms"}
            cores = [Core(folder, f"core{i}", redis.url, **settings) for i in range(2)]
            processes += cores
            for core in cores:
                core.await_ready()
            edge = Edge(folder, "edge", cores, keys, JWT_ISSUER="presence-cli", EDGE_SHARDS=str(arguments.shards),
                        WS_CONNECTIONS_PER_ADDRESS="0", HANDSHAKES_PER_SECOND_PER_ADDRESS="0")
            processes.append(edge)
            edge.await_ready()
            load = subprocess.Popen(
                [BIN / "presence-load", "idle", "--edge", f"127.0.0.1:{edge.port}", "--connections", str(arguments.connections),
                 "--users", str(arguments.connections), "--rooms", str(arguments.rooms), "--seconds", "60",
                 "--key", f"{folder}/private.pem"], stdout=subprocess.PIPE, text=True)

            def known():
                return sum(core.metric("presence_core_memberships") for core in cores if core.process.poll() is None)
            until(lambda: known() == arguments.connections, 60, what=lambda: f"{known()} of {arguments.connections} are there")
            asyncio.run(speak(cores[0], arguments))
            dying, other = sorted(cores, key=lambda core: -core.metric("presence_core_connections"))
            moved = dying.metric("presence_core_connections")
            others = {"edge": edge, "the other core": other, "Redis": redis}
            before = {name: cpu_seconds(process) for name, process in others.items()}
            time.sleep(arguments.calm)
            calm = {name: cpu_seconds(process) - before[name] for name, process in others.items()}
            before = {name: cpu_seconds(process) for name, process in others.items()}
            began = time.monotonic()
            dying.kill(signal.SIGKILL)
            until(lambda: other.metric("presence_core_memberships") == arguments.connections, 30, what="everybody is known to the other core")
            took = time.monotonic() - began
            time.sleep(max(0.0, arguments.calm - took))  # what is still written, and told
            spent = {name: cpu_seconds(process) - before[name] for name, process in others.items()}
            text, _ = load.communicate(timeout=120)
            assert load.returncode == 0, text
            return moved, took, {name: spent[name] - calm[name] for name in others}
        finally:
            if load is not None:
                load.kill()
            for process in reversed(processes):
                process.stop()


async def speak(core, arguments):
    """So many messages to each room, so that shards have positions to resume from; and somebody's status changes later than all have come:
    after a resync a shard is told of everybody who changed within 5 s before the last change that it knows of, and again at that."""
    async with Api(core) as api:
        for _ in range(arguments.messages):
            for room in range(arguments.rooms):
                await api.Broadcast(room_id=f"channel_load-{room}", data={"n": 1})
        if not arguments.young:
            await asyncio.sleep(7)
            await api.SetStatus(user_id="load-0", status=AWAY)
        await asyncio.sleep(2)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, default=10_000)
    parser.add_argument("--rooms", type=int, default=1_000)
    parser.add_argument("--messages", type=int, default=1, help="to each room before")
    parser.add_argument("--young", action="store_true", help="the core dies when all have just come")
    parser.add_argument("--shards", type=int, default=1)
    parser.add_argument("--calm", type=float, default=8, help="seconds that are measured before, and taken off")
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    for _ in range(arguments.runs):
        moved, took, spent = measure(arguments)
        print(f"{moved:.0f} connections known to the other core after {took:.2f} s; CPU seconds beyond idling: "
              + ", ".join(f"{name} {seconds:.2f}" for name, seconds in spent.items()), flush=True)


main()
