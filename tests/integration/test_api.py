"""Every call of presence.v1 that asks or tells, made at one core for users who are attached to the other one."""

import json
import re
import time

import pytest

from api import AWAY, OFFLINE, ONLINE, eventually, refused, story, v1
from harness import Stack, until_async

# Whatever Redis, globs, logs and JSON may stumble over.
ODD_IDS = ["with space", "with:colon", "line\nbreak", "*", "[a-z]?", "日本語", "\U0001f600", '"quoted\\', "{brace}",
           "x" * 2048]


@pytest.fixture(scope="module")
def stack():
    with Stack(cores=2, edges=2, pinned=True) as stack:
        yield stack


async def pages(call, field, **request):
    """Every page of a list, each with what is in it."""
    token = ""
    while True:
        page = await call(page_token=token, **request)
        yield list(getattr(page, field))
        token = page.next_page_token
        if not token:
            return


@story
async def test_the_presence_of_a_user_of_the_other_core(scene):
    before = time.time()
    client = await scene.connect(1, "grace", name="Grace")
    await eventually(lambda: scene.here.is_online("grace"))
    online = await scene.here.GetPresence(user_id="grace")
    assert (online.user_id, online.username, online.status) == ("grace", "Grace", ONLINE)
    assert before - 5 < online.last_seen_time.ToMicroseconds() / 1e6 < time.time() + 5
    await client.close()
    await eventually(lambda: gone(scene.here, "grace"))
    offline = await scene.here.GetPresence(user_id="grace")
    assert offline.version > online.version and offline.username == "Grace"
    assert offline.last_seen_time.ToMicroseconds() >= online.last_seen_time.ToMicroseconds(), "known until the entry expires"
    unknown = await scene.here.GetPresence(user_id="nobody")
    assert unknown == v1.Presence(user_id="nobody", status=OFFLINE), "no error, and nothing is known"


async def gone(api, user_id):
    return (await api.GetPresence(user_id=user_id)).status == OFFLINE


@story
async def test_a_batch_is_answered_in_its_order(scene):
    for number in range(4):
        await scene.connect(number % 2, f"batch-{number}")
        await eventually(lambda: scene.there.is_online(f"batch-{number}"))
    asked = ["batch-3", "stranger", "batch-0", "batch-3", "batch-2", "batch-1"]
    answer = await scene.here.BatchGetPresence(user_ids=asked)
    assert [presence.user_id for presence in answer.presences] == asked
    assert [presence.status for presence in answer.presences] == [ONLINE, OFFLINE, ONLINE, ONLINE, ONLINE, ONLINE]
    assert answer.presences[0] == answer.presences[3] == await scene.there.GetPresence(user_id="batch-3")
    most = await scene.here.BatchGetPresence(user_ids=[f"batch-{number}" for number in range(500)])
    assert [presence.status for presence in most.presences] == [ONLINE] * 4 + [OFFLINE] * 496


@story
async def test_everybody_who_is_there_in_pages(scene):
    clients = [await scene.connect(number % 2, f"page-{number}") for number in range(7)]
    for client in clients[:3]:
        await client.send(type="status", status="away")

    async def listed(api, **request):
        return [user.user_id async for page in pages(api.ListPresence, "users", **request) for user in page
                if user.user_id.startswith("page-")]

    for api in (scene.here, scene.there):
        await eventually(lambda: is_so(listed(api, status=AWAY), [f"page-{number}" for number in range(3)]))
        assert await listed(api) == [f"page-{number}" for number in range(7)]
        assert await listed(api, status=ONLINE, page_size=2) == [f"page-{number}" for number in range(3, 7)]
        sizes = [len(page) async for page in pages(api.ListPresence, "users", page_size=2)]
        assert max(sizes) == 2 and len(sizes) >= 4


async def is_so(answer, expected):
    return await answer == expected


@story
async def test_a_room_of_both_cores(scene):
    both = [await scene.connect(edge, "ada", name="Ada") for edge in (0, 1)]
    other = await scene.connect(1, "bert")
    for client in (*both, other):
        await client.subscribe(dm_id="hall")
    for api in (scene.here, scene.there):
        hall = await api.GetRoom(room_id="hall")
        assert hall.room == v1.Room(room_id="hall", connection_count=3)
        assert list(hall.members) == [v1.RoomMember(user_id="ada", username="Ada", connection_count=2),
                                      v1.RoomMember(user_id="bert", username="bert", connection_count=1)]
        one_by_one = [page async for page in pages(api.GetRoom, "members", room_id="hall", page_size=1)]
        assert [[member.user_id for member in page] for page in one_by_one] == [["ada"], ["bert"]]

    await both[0].send(type="unsubscribe", dm_id="hall")
    await both[0].expect(type="unsubscribed")
    hall = await scene.there.GetRoom(room_id="hall")
    assert hall.room.connection_count == 2 and hall.members[0].connection_count == 1
    for client in (both[1], other):
        await client.close()
    await eventually(lambda: has_no_room(scene.here, "hall"))
    assert (await refused(scene.there.GetRoom(room_id="hall"))).code == "NOT_FOUND", "a room is its subscribers"


async def has_no_room(api, room_id):
    return room_id not in [room.room_id async for page in pages(api.ListRooms, "rooms") for room in page]


@story
async def test_all_rooms_in_pages(scene):
    clients = [await scene.connect(edge, f"rooms-{edge}") for edge in (0, 1)]
    for number in range(5):
        await clients[number % 2].subscribe(channel_id=f"room-{number}")
    await clients[0].subscribe(channel_id="room-1")
    for api in (scene.here, scene.there):
        rooms = [room async for page in pages(api.ListRooms, "rooms", page_size=2) for room in page
                 if room.room_id.startswith("room-")]
        assert [(room.room_id, room.connection_count) for room in rooms] == [
            ("room-0", 1), ("room-1", 2), ("room-2", 1), ("room-3", 1), ("room-4", 1)]
        assert max([len(page) async for page in pages(api.ListRooms, "rooms", page_size=2)]) == 2


@story
async def test_connections_of_a_user_and_of_an_edge(scene):
    clients = [await scene.connect(edge, "cleo", name="Cleo") for edge in (0, 1, 1)]
    await clients[1].subscribe(channel_id="first")
    await clients[1].subscribe(dm_id="second")
    await clients[2].send(type="status", status="away")

    async def connections(**owner):
        return [connection async for page in pages(scene.here.ListConnections, "connections", page_size=1, **owner)
                for connection in page]

    async def settled():
        found = await connections(user_id="cleo")
        return len(found) == 3 and AWAY in [connection.status for connection in found] and found

    found = await eventually(settled)
    ids = [connection.connection_id for connection in found]
    assert ids == sorted(set(ids)) and all(re.fullmatch(r"conn-[0-9a-f]{16}-[0-9a-f]{16}", id_) for id_ in ids)
    for connection in found:
        number = int(connection.edge.removeprefix("edge"))
        assert (connection.user_id, connection.username) == ("cleo", "Cleo")
        assert (connection.core, connection.shard) == (f"core{number}", 0)
        assert 0 <= connection.silent_for.ToMilliseconds() < 60_000
    subscribed = next(connection for connection in found if connection.room_count)
    assert subscribed.room_count == 2 and sorted(subscribed.room_ids) == ["first", "second"] and subscribed.edge == "edge1"
    assert sorted((connection.edge, connection.status) for connection in found) == [
        ("edge0", ONLINE), ("edge1", AWAY), ("edge1", ONLINE)]
    entry = json.loads(scene.stack.redis.client.get("presence:cleo"))
    assert entry["connection_id"] in ids, "the name that Redis has"

    assert [connection.user_id for connection in await connections(edge="edge1")].count("cleo") == 2
    assert await connections(edge="edge7") == await connections(user_id="stranger") == []


@story
async def test_a_status_is_set_on_all_devices(scene):
    devices = [await scene.connect(edge, "dora") for edge in (0, 1)]
    onlooker = await scene.connect(1, "onlooker")
    await eventually(lambda: scene.there.is_online("dora"))
    for status, text in ((AWAY, "away"), (ONLINE, "online")):
        assert (await scene.here.SetStatus(user_id="dora", status=status)).connection_count == 2
        await onlooker.await_seen(type="presence", user_id="dora", status=text)
        assert (await scene.there.GetPresence(user_id="dora")).status == status
        of_devices = await scene.there.ListConnections(user_id="dora")
        assert [connection.status for connection in of_devices.connections] == [status, status]
    assert not any(device.closed for device in devices)


@story
async def test_ids_and_texts_of_any_kind(scene):
    client = await scene.connect(1, ODD_IDS[0], name="näme\nof *")
    for room in ODD_IDS:
        await client.subscribe(dm_id=room)
        text = json.dumps({"room": room}, ensure_ascii=False)
        assert (await scene.here.Broadcast(room_id=room, data_json=text)).reached_connections == 1
        await client.expect(type="message", data={"room": room})
        await scene.here.SetTyping(room_id=room, user_id=room, room_kind=v1.ROOM_KIND_DM)
        assert await client.expect(type="typing", dm_id=room) == {
            "type": "typing", "dm_id": room, "channel_id": None, "user_id": room, "username": room}
        [member] = (await scene.here.GetRoom(room_id=room)).members
        assert member == v1.RoomMember(user_id=ODD_IDS[0], username="näme\nof *", connection_count=1)
    listed = [room.room_id async for page in pages(scene.here.ListRooms, "rooms", page_size=3) for room in page]
    expected = sorted(ODD_IDS, key=lambda id_: id_.encode())
    assert [room for room in listed if room in ODD_IDS] == expected, "in byte order"
    others = [await scene.connect(number % 2, user) for number, user in enumerate(ODD_IDS[1:])]
    await until_async(lambda: all(client.seen(type="presence", user_id=user) for user in ODD_IDS[1:]))
    answer = await scene.here.BatchGetPresence(user_ids=ODD_IDS)
    assert [(presence.user_id, presence.status) for presence in answer.presences] == [(user, ONLINE) for user in ODD_IDS]
    listed = [user.user_id async for page in pages(scene.there.ListPresence, "users", page_size=4) for user in page]
    assert [user for user in listed if user in ODD_IDS] == expected
    for user, other in zip(ODD_IDS[1:], others):
        assert (await scene.here.DisconnectUser(user_id=user, reason=user[:20])).connection_count == 1
        assert await other.await_closed() == 1008 and other.socket.close_reason == user[:20]
