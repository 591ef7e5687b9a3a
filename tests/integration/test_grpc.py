"""The core's gRPC API, with the real grpcurl."""

import json
import shutil
import subprocess

import pytest

from harness import PATIENCE, ROOT, Client, Stack, run, until

GRPCURL = shutil.which("grpcurl") or str(ROOT / "build/tools/grpcurl")


@pytest.fixture(scope="module")
def stack():
    with Stack(cores=2, edges=2, pinned=True) as stack:
        yield stack


def grpcurl(core, *arguments, data=None, ok=True):
    command = [GRPCURL, "-plaintext", "-max-time", str(10 * PATIENCE)]
    if data is not None:
        command += ["-d", data if isinstance(data, str) else json.dumps(data)]
    done = subprocess.run([*command, core.api, *arguments], capture_output=True, text=True, timeout=30 * PATIENCE)
    assert (done.returncode == 0) == ok, done.stderr + done.stdout
    return done.stdout if ok else done.stderr


def call(core, method, data):
    # C++ reflection sends no json_name: grpcurl prints the fields by their names in the proto file.
    return json.loads(grpcurl(core, f"presence.v1.PresenceService/{method}", data=data))


def test_it_lists_and_describes(stack):
    services = grpcurl(stack.cores[0], "list").split()
    assert {"presence.v1.PresenceService", "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"} <= set(services)
    described = grpcurl(stack.cores[0], "describe", "presence.v1.PresenceService")
    for method in ("GetPresence", "ListPresence", "Broadcast"):
        assert f"rpc {method}" in described
    assert "room_id" in grpcurl(stack.cores[0], "describe", "presence.v1.BroadcastRequest")


def test_health(stack):
    for service in ("", "presence.v1.PresenceService"):
        answer = json.loads(grpcurl(stack.cores[0], "grpc.health.v1.Health/Check", data={"service": service}))
        assert answer == {"status": "SERVING"}


def test_presence_from_any_core(stack):
    async def story():
        client = await Client.open(stack.edges[0], stack.token("user-123", name="alice"))
        other = stack.cores[1]
        until(lambda: call(other, "GetPresence", {"user_id": "user-123"}).get("status") == "STATUS_ONLINE")
        presence = call(other, "GetPresence", {"user_id": "user-123"})
        assert presence["username"] == "alice" and presence["last_seen_time"].endswith("Z") and int(presence["version"]) > 10**15
        assert call(other, "GetPresence", {"user_id": "nobody"}) == {"user_id": "nobody", "status": "STATUS_OFFLINE"}
        page = call(other, "ListPresence", {"page_size": 1})
        assert [u["user_id"] for u in page["users"]] == ["user-123"] and "next_page_token" not in page
        await client.close()
    run(story())


def test_broadcast_reaches_every_edge(stack):
    async def story():
        clients = [await Client.open(edge, stack.token(f"b{i}")) for i, edge in enumerate(stack.edges)]
        for client in clients:
            await client.subscribe(channel_id="channel_general")
        heard = stack.redis.client.pubsub(ignore_subscribe_messages=True)
        heard.subscribe("message:broadcast")
        heard.get_message(timeout=5)
        call(stack.cores[0], "Broadcast", {"room_id": "channel_general", "data": {"content": "Hello", "n": 1}})
        for client in clients:
            assert await client.expect(type="message") == {"type": "message", "data": {"content": "Hello", "n": 1}}
        text = '{"content":"as it is",  "big":12345678901234567890}'
        call(stack.cores[1], "Broadcast", {"room_id": "channel_general", "data_json": text})
        for client in clients:
            await client.expect(type="message")
            assert '{"type":"message","data":' + text + "}" in client.frames, "byte for byte"
            await client.ping()
            assert len(client.seen(type="message")) == 2, "once each, though the copy for outsiders comes by, too"
            await client.close()
        copy = until(lambda: heard.get_message(timeout=0.1))
        copy = json.loads(copy["data"])
        assert next(iter(copy)) == "origin" and copy["room_id"] == "channel_general" and copy["data"]["content"] == "Hello"
    run(story())


@pytest.mark.parametrize("method, data, says", [
    ("GetPresence", {}, "user_id"),
    ("GetPresence", {"user_id": "x" * 2049}, "user_id"),
    ("ListPresence", {"page_size": 10001}, "page_size"),
    ("ListPresence", {"page_size": -1}, "page_size"),
    ("ListPresence", {"page_token": "forged"}, "page_token"),
    ("Broadcast", {"data": {}}, "room_id"),
    ("Broadcast", {"room_id": "r"}, "payload"),
    ("Broadcast", {"room_id": "r", "data_json": "[1]"}, "data_json"),
    ("Broadcast", {"room_id": "r", "data_json": "{"}, "data_json"),
])
def test_mistakes_are_named(stack, method, data, says):
    error = grpcurl(stack.cores[0], f"presence.v1.PresenceService/{method}", data=data, ok=False)
    assert "InvalidArgument" in error and says in error, error


def test_a_payload_over_1_mib_is_refused(stack):
    done = subprocess.run([GRPCURL, "-plaintext", "-d", "@", stack.cores[0].api, "presence.v1.PresenceService/Broadcast"],
                          input=json.dumps({"room_id": "r", "data_json": json.dumps({"x": "y" * (1 << 20)})}),
                          capture_output=True, text=True)
    assert done.returncode != 0 and "ResourceExhausted" in done.stderr, done.stderr


def test_unavailable_while_redis_is_away():
    with Stack() as alone:
        alone.redis.kill()
        until(lambda: "NOT_SERVING" in grpcurl(alone.cores[0], "grpc.health.v1.Health/Check", data={}))
        error = grpcurl(alone.cores[0], "presence.v1.PresenceService/GetPresence", data={"user_id": "a"}, ok=False)
        assert "Unavailable" in error
        error = grpcurl(alone.cores[0], "presence.v1.PresenceService/Broadcast", data={"room_id": "a", "data": {}}, ok=False)
        assert "Unavailable" in error
        alone.redis.start().await_ready()
        until(lambda: '"SERVING"' in grpcurl(alone.cores[0], "grpc.health.v1.Health/Check", data={}))
        assert call(alone.cores[0], "GetPresence", {"user_id": "a"})["status"] == "STATUS_OFFLINE"
