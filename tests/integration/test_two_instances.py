"""Two edges on two cores on one Redis: what one side does, the other one sees."""

import json

import pytest

from harness import Client, Stack, get, run, until, until_async


@pytest.fixture(scope="module")
def stack():
    with Stack(cores=2, edges=2, pinned=True, edge_settings={"EDGE_SHARDS": "2"}) as stack:
        yield stack


def test_presence_typing_and_messages_cross(stack):
    async def story():
        alice = await Client.open(stack.edges[0], stack.token("user-123", name="alice"))
        first = await alice.expect()
        assert set(first) == {"type", "timestamp"} and first["type"] == "pong" and first["timestamp"].endswith("Z")

        bob = await Client.open(stack.edges[1], stack.token("user-456", name="bob"))
        online = await alice.await_seen(type="presence", user_id="user-456")
        assert set(online) == {"type", "user_id", "username", "status", "timestamp"}
        assert (online["username"], online["status"]) == ("bob", "online")

        assert await alice.subscribe(channel_id="channel_general") == {
            "type": "subscribed", "channel_id": "channel_general", "dm_id": None}
        await bob.subscribe(channel_id="channel_general")

        await bob.send(type="typing", channel_id="channel_general")
        typing = await alice.expect(type="typing")
        assert typing == {"type": "typing", "channel_id": "channel_general", "dm_id": None, "user_id": "user-456",
                          "username": "bob"}
        assert await bob.expect(type="typing") == typing, "the sender's own connection is included"
        assert stack.redis.client.get("typing:channel_general:user-456") == "bob"
        assert 0 < stack.redis.client.ttl("typing:channel_general:user-456") <= 5

        text = ('{ "room_id":"channel_general","type":"message",  "data":{"message_id":"msg-456","content":"Hello, world! \u00e9",'
                '"user_id":"user-123","channel_id":"channel_general"}}')
        stack.redis.client.publish("message:broadcast", text)
        for client in (alice, bob):
            await client.expect(type="message")
            await client.ping()
            assert [frame for frame in client.frames if frame == text] == [text], "byte for byte, once"

        await bob.send(type="status", status="away")
        await alice.await_seen(type="presence", user_id="user-456", status="away")
        entry = json.loads(stack.redis.client.get("presence:user-456"))
        assert list(entry)[:5] == ["user_id", "username", "status", "connection_id", "last_seen"]
        assert entry["status"] == "away"

        await bob.send(type="unsubscribe", channel_id="channel_general")
        assert await bob.expect(type="unsubscribed") == {"type": "unsubscribed", "channel_id": "channel_general", "dm_id": None}
        stack.redis.client.publish("message:broadcast", '{"room_id":"channel_general","n":2}')
        await alice.expect(n=2)
        await bob.ping()
        assert not bob.seen(n=2)

        await bob.close()
        await alice.await_seen(type="presence", user_id="user-456", status="offline")
        assert get(stack.edges[0].http + "/presence/user-456").json()["status"] == "offline"
        await alice.close()
    run(story())


def test_a_second_tab_that_closes_does_not_set_the_user_offline(stack):
    async def story():
        watcher = await Client.open(stack.edges[0], stack.token("watcher-1"))
        first = await Client.open(stack.edges[0], stack.token("carol"))
        second = await Client.open(stack.edges[1], stack.token("carol"))
        await watcher.await_seen(type="presence", user_id="carol", status="online")
        await second.close()
        # Something that comes after it on the same path shows that nothing came before.
        marker = await Client.open(stack.edges[1], stack.token("marker-1"))
        await watcher.await_seen(type="presence", user_id="marker-1", status="online")
        assert [f["status"] for f in watcher.seen(type="presence", user_id="carol")] == ["online"]
        await first.close()
        await watcher.await_seen(type="presence", user_id="carol", status="offline")
        for client in (watcher, marker):
            await client.close()
    run(story())


def test_ids_of_any_kind_work_byte_for_byte(stack):
    rooms = ["a b", "a:b", "a/b", "line\nbreak", "*", "[a-z]?", "\u65e5\u672c\u8a9e", "\U0001f600", "\"quoted\\", "x" * 2048]

    async def story():
        alice = await Client.open(stack.edges[0], stack.token("id with space:and\n*", name="n\u00e4me\nERROR forged"))
        bob = await Client.open(stack.edges[1], stack.token("bob-ids"))
        for room in rooms:
            await alice.subscribe(dm_id=room)
            await bob.subscribe(dm_id=room)
            await alice.send(type="typing", dm_id=room)
            frame = await bob.expect(type="typing", dm_id=room)
            assert frame["user_id"] == "id with space:and\n*" and frame["channel_id"] is None
            await until_async(lambda: stack.redis.client.get(f"typing:{room}:id with space:and\n*"), what=room)
        assert json.loads(stack.redis.client.get("presence:id with space:and\n*"))["username"] == "n\u00e4me\nERROR forged"
        answer = get(stack.edges[1].http + "/presence/id%20with%20space%3Aand%0A%2A").json()
        assert answer["status"] == "online" and answer["user_id"] == "id with space:and\n*"
        await alice.close()
        await bob.close()
    run(story())
    for edge in stack.edges:
        assert not [line for line in edge.log().splitlines() if line.startswith("ERROR forged")]


def test_every_member_sees_a_room_in_the_same_order(stack):
    async def story():
        clients = [await Client.open(stack.edges[i % 2], stack.token(f"order-{i}")) for i in range(6)]
        for client in clients:
            await client.subscribe(channel_id="ordered")
        for i in range(300):
            stack.redis.client.publish("message:broadcast", json.dumps({"room_id": "ordered", "i": i}))
        for client in clients:
            await client.expect(i=299)
            got = [json.loads(text)["i"] for text in client.frames if '"i"' in text]
            assert got == list(range(300))
            await client.close()
    run(story())


def test_outsiders_on_the_bus_do_no_harm(stack):
    bus = stack.redis.client
    before = sum(core.metric("presence_core_outside_invalid_total") for core in stack.cores)

    async def story():
        client = await Client.open(stack.edges[0], stack.token("bystander"))
        await client.subscribe(channel_id="calm")
        raw = bus.connection_pool.connection_kwargs
        for bad in (b"no json", b"[1]", b'{"room_id":7}', b'{"type":"x"}', b'{"room_id":"calm","x":"\xff"}', b'{"room_id":""}'):
            bus.execute_command("PUBLISH", "message:broadcast", bad)
        for bad in (b"no json", b"{}", b'{"type":"presence"}', b'{"type":"presence","user_id":"u","status":"happy"}', b"\xff\xfe"):
            bus.execute_command("PUBLISH", "presence:updates", bad)
        bus.execute_command("PUBLISH", "presence.bus", b"\xff\xff garbage")
        bus.publish("message:broadcast", '{"room_id":"calm","fine":true}')
        await client.expect(fine=True)
        assert len([f for f in client.frames if "room_id" in f]) == 1
        bus.publish("presence:updates", json.dumps({"type": "presence", "user_id": "outsider", "username": "o", "status": "away",
                                                    "timestamp": "2025-01-14T12:00:00Z", "more": 1}))
        frame = await client.await_seen(type="presence", user_id="outsider")
        assert frame == {"type": "presence", "user_id": "outsider", "username": "o", "status": "away",
                         "timestamp": "2025-01-14T12:00:00Z"}
        bus.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        def again():
            return bus.pubsub_numsub("message:broadcast")[0][1] == 2
        await until_async(again, what="both cores have subscribed again")
        bus.publish("message:broadcast", '{"room_id":"calm","after":true}')
        await client.expect(after=True)
        await client.close()
    run(story())
    until(lambda: sum(core.metric("presence_core_outside_invalid_total") for core in stack.cores) >= before + 22,
          what="eleven bad publications are counted by both cores")


def test_a_corrupt_entry_reads_as_offline(stack):
    stack.redis.client.set("presence:broken", "{not json")
    answer = get(stack.edges[0].http + "/presence/broken")
    assert answer.status == 200
    assert answer.json() == {"user_id": "broken", "status": "offline", "last_seen": None}


def test_what_others_scan_is_a_string_with_the_documented_json(stack):
    async def story():
        client = await Client.open(stack.edges[0], stack.token("scanned"))
        await until_async(lambda: stack.redis.client.get("presence:scanned"), what="the entry is written")
        for key in stack.redis.client.scan_iter("presence:*"):
            if key == "presence:broken":
                continue
            assert stack.redis.client.type(key) == "string", key
            assert {"user_id", "username", "status", "connection_id", "last_seen"} <= set(json.loads(stack.redis.client.get(key)))
            assert 0 < stack.redis.client.ttl(key) <= 300
        await client.close()
    run(story())


def test_in_rooms_scope_only_those_who_share_a_room_are_told():
    with Stack(cores=2, edges=2, pinned=True, core_settings={"PRESENCE_SCOPE": "rooms"}) as stack:
        async def story():
            alice = await Client.open(stack.edges[0], stack.token("alice"))
            carol = await Client.open(stack.edges[0], stack.token("carol"))
            bob = await Client.open(stack.edges[1], stack.token("bob"))
            await alice.subscribe(channel_id="shared")
            await carol.subscribe(channel_id="other")
            await bob.subscribe(channel_id="shared")
            await alice.await_seen(type="presence", user_id="bob", status="online")
            await bob.send(type="status", status="away")
            await alice.await_seen(type="presence", user_id="bob", status="away")
            await bob.close()
            await alice.await_seen(type="presence", user_id="bob", status="offline")
            await carol.ping()
            assert not carol.seen(type="presence", user_id="bob")
            await alice.close()
            await carol.close()
        run(story())
