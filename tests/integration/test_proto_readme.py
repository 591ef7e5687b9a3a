"""Every command of proto/README.md, as a reader types them: in order, in one shell, against two cores and two edges."""

import asyncio
import os
import re
import subprocess

import pytest

from harness import PATIENCE, ROOT, Client, Stack, run
from test_grpc import GRPCURL

TIMED_OUT = 124  # of `timeout`: a stream that was stopped

# What each call must have printed; the shell's own lines print nothing.
EXPECTED = {
    " list": "presence.admin.v1.AdminService",
    " describe": "rpc Broadcast",
    "/GetPresence": '"status": "STATUS_ONLINE"',
    "/BatchGetPresence": '"user_id": "bob"',
    "/ListPresence": '"user_id": "alice"',
    "/WatchPresence": '"snapshot_done": true',
    "/ListRooms": '"room_id": "general"',
    "/GetRoom": '"user_id": "alice"',
    "/ListConnections": '"connection_id": "conn-',
    "/Broadcast": '"reached_connections": 1',
    "/SendToUser": '"reached_connections": 1',
    "/SetTyping": "{",
    "/SetStatus": '"connection_count": 1',
    "/UnsubscribeUser": '"connection_count": 1',
    "/ForgetRoomRights": "{",
    "/DisconnectConnection": "{",
    "/DisconnectUser": "{",
    "/GetClusterState": '"store_up": true',
    "/SetLogLevel": '"process_count": 4',
    "/Tap": "",
    "/DrainEdge": "{",
    "/DrainCore": '"link_count": 1',
    "/Check": '"status": "SERVING"',
}


def commands():
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "proto/README.md").read_text(), re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line]


@pytest.fixture(scope="module")
def stack():
    with Stack(cores=2, edges=2, pinned=True, edge_settings={"WS_HEARTBEAT_INTERVAL": "60"},
               core_settings={"WS_HEARTBEAT_INTERVAL": "60"}) as stack:
        yield stack


def test_it_names_every_call():
    text = "\n".join(commands())
    for path in ("presence/v1/presence.proto", "presence/admin/v1/admin.proto"):
        for method in re.findall(r"^  rpc (\w+)\(", (ROOT / "proto" / path).read_text(), re.MULTILINE):
            assert f"/{method}" in text, f"proto/README.md does not show {method}"


def test_every_command_works(stack):
    lines = commands()
    names = {"edge1": stack.edges[1].name, "core1": stack.cores[1].name}
    script = ["PATH=" + os.path.dirname(GRPCURL) + ":$PATH"]
    for line in lines:
        if line.startswith("API="):
            line = f"API={stack.cores[0].api}"
        for written, real in names.items():
            line = line.replace(f'"{written}"', f'"{real}"')
        script += ["echo '=== next'", line, "echo \"=== code $?\""]

    async def story():
        # Attached to the other core than the one that is called.
        alice = await Client.open(stack.edges[1], stack.token("alice"))
        await alice.subscribe(channel_id="general")
        await alice.ping()
        # Alice goes on reading meanwhile: who is sent away answers the close.
        shell = await asyncio.to_thread(subprocess.run, ["bash"], input="\n".join(script), capture_output=True, text=True,
                                        timeout=120 * PATIENCE)
        answers = shell.stdout.split("=== next\n")[1:]
        assert len(answers) == len(lines), shell.stdout + shell.stderr
        for line, answer in zip(lines, answers):
            output, code = re.fullmatch(r"(.*?)=== code (\d+)\n", answer, re.DOTALL).groups()
            assert int(code) == (TIMED_OUT if line.startswith("timeout") else 0), f"{line}\n{output}\n{shell.stderr}"
            for call, expected in EXPECTED.items():
                if line.startswith("CONNECTION="):
                    continue  # into the variable
                if line.endswith(call) or f"{call} " in line or line.endswith(call + ".Broadcast"):
                    assert expected in output, f"{line}\n{output}"
        assert await alice.await_closed() == 4001
        # What alice saw of it, in order.
        texts = [frame["data"].get("text") for frame in alice.seen(type="message")]
        assert texts == ["hello", "as it is", "for you"]
        assert alice.seen(type="typing", user_id="bot") and alice.seen(type="unsubscribed", channel_id="general")
    run(story())
