"""Messages, typing and orders of presence.v1, given at one core to clients who are attached to the other one."""

import uuid

import pytest

from api import OFFLINE, ONLINE, eventually, refused, story, v1
from harness import Stack, until_async

# What a parser would tidy up: the spaces, the order, a number beyond a double, an escape, a member that is there twice.
AS_IT_IS = '{"z":1,  "big":12345678901234567890123, "e":1e400, "escaped":"\\u00e9\\/", "raw":"é\u2028\U0001f600", "a":[ ], "a":{}}'


@pytest.fixture(scope="module")
def stack():
    with Stack(cores=2, edges=2, pinned=True) as stack:
        yield stack


async def members(scene, room, *users):
    """These users, on both edges in turn, subscribed."""
    clients = [await scene.connect(number % 2, user) for number, user in enumerate(users)]
    for client in clients:
        await client.subscribe(channel_id=room)
    return clients


async def messages(client):
    """What has come so far; what was on its way is waited for."""
    await client.ping()
    return [frame["data"] for frame in client.seen(type="message")]


@story
async def test_a_message_passes_byte_for_byte(scene):
    clients = await members(scene, "bytes", "b0", "b1")
    for number, api in enumerate((scene.here, scene.there)):
        text = AS_IT_IS.replace('"z":1', f'"z":{number}')
        answer = await api.Broadcast(room_id="bytes", data_json=text)
        assert answer == v1.BroadcastResponse(reached_connections=2)
        answer = await api.SendToUser(user_id="b1", data_json=text)
        assert answer == v1.SendToUserResponse(reached_connections=1)
        frame = '{"type":"message","data":' + text + "}"
        await until_async(lambda: clients[0].frames.count(frame) == 1 and clients[1].frames.count(frame) == 2)


@story
async def test_a_structure_is_a_payload_too(scene):
    [client] = await members(scene, "structs", "s")
    data = {"text": "Hello", "n": 3, "half": 0.5, "list": [1, None, True, {"deep": "é"}], "none": None}
    await scene.there.Broadcast(room_id="structs", data=data)
    assert (await client.expect(type="message"))["data"] == data


@story
async def test_the_excluded_get_nothing_and_do_not_count(scene):
    clients = await members(scene, "news", "author", "author", "reader", "reader", "censored")
    answer = await scene.here.Broadcast(room_id="news", data_json='{"n":1}',
                                        excluded_user_ids=["author", "censored", "stranger"])
    assert answer == v1.BroadcastResponse(reached_connections=2)
    answer = await scene.there.Broadcast(room_id="news", data_json='{"n":2}')
    assert answer.reached_connections == 5
    for client in clients:
        await client.expect(type="message", data={"n": 2})
    second, both = [{"n": 2}], [{"n": 1}, {"n": 2}]
    assert [await messages(client) for client in clients] == [second, second, both, both, second]
    assert (await scene.here.Broadcast(room_id="nobody's", data_json="{}")).reached_connections == 0


@story
async def test_a_request_id_sends_once_on_all_cores(scene):
    clients = await members(scene, "once", "o0", "o1")
    broadcast = dict(room_id="once", data_json='{"n":1}', request_id=str(uuid.uuid4()))
    personal = dict(user_id="o1", data={"n": 2}, request_id=str(uuid.uuid4()))
    assert await scene.here.Broadcast(**broadcast) == v1.BroadcastResponse(reached_connections=2)
    assert await scene.here.SendToUser(**personal) == v1.SendToUserResponse(reached_connections=1)
    for api in (scene.there, scene.here):
        # As the first one was answered, even though somebody has left since.
        repeat = await api.Broadcast(**broadcast)
        assert repeat == v1.BroadcastResponse(reached_connections=2, repeated_request=True)
        repeat = await api.SendToUser(**personal)
        assert repeat == v1.SendToUserResponse(reached_connections=1, repeated_request=True)
        for other in (dict(broadcast, data_json='{"n":3}'), dict(broadcast, room_id="elsewhere"),
                      dict(broadcast, excluded_user_ids=["o0"])):
            refusal = await refused(api.Broadcast(**other))
            assert (refusal.code, refusal.reason) == ("ALREADY_EXISTS", "REQUEST_ID_REUSED"), other
        refusal = await refused(api.SendToUser(user_id="o1", data={"n": 3}, request_id=personal["request_id"]))
        assert (refusal.code, refusal.reason) == ("ALREADY_EXISTS", "REQUEST_ID_REUSED")
        await clients[0].send(type="unsubscribe", channel_id="once")
        await clients[0].expect(type="unsubscribed")
    assert (await scene.there.Broadcast(room_id="once", data_json='{"n":4}')).reached_connections == 1
    await clients[1].expect(type="message", data={"n": 4})
    assert [await messages(client) for client in clients] == [[{"n": 1}], [{"n": 1}, {"n": 2}, {"n": 4}]]


@story
async def test_every_member_sees_one_order(scene):
    clients = await members(scene, "ordered", *(f"order-{number}" for number in range(4)))
    for number in range(100):
        api = (scene.here, scene.there)[number % 2]
        await (api.Broadcast(room_id="ordered", data={"n": number}) if number % 3 else
               api.Broadcast(room_id="ordered", data_json=f'{{"n":{number}}}'))
    for client in clients:
        await client.expect(type="message", data={"n": 99})
        assert [data["n"] for data in await messages(client)] == list(range(100))


@story
async def test_a_message_to_a_user_reaches_all_devices_and_nobody_else(scene):
    devices = [await scene.connect(edge, "eve") for edge in (0, 1, 1)]
    other = await scene.connect(1, "other")
    assert (await scene.here.SendToUser(user_id="eve", data={"n": 1})).reached_connections == 3
    for device in devices:
        assert (await device.expect(type="message")) == {"type": "message", "data": {"n": 1}}
    assert await messages(other) == []
    assert (await scene.here.SendToUser(user_id="nobody", data={})) == v1.SendToUserResponse()


@story
async def test_typing_as_if_a_device_had_said_so(scene):
    clients = await members(scene, "desk", "t0", "t1")
    for kind, channel_id, dm_id in ((v1.ROOM_KIND_UNSPECIFIED, "desk", None), (v1.ROOM_KIND_DM, None, "desk"),
                                    (v1.ROOM_KIND_CHANNEL, "desk", None)):
        await scene.here.SetTyping(room_id="desk", user_id="bot", username="The Bot", room_kind=kind)
        for client in clients:
            assert await client.expect(type="typing") == {
                "type": "typing", "channel_id": channel_id, "dm_id": dm_id, "user_id": "bot", "username": "The Bot"}
    assert scene.stack.redis.client.get("typing:desk:bot") == "The Bot"
    assert 0 < scene.stack.redis.client.ttl("typing:desk:bot") <= 5


@story
async def test_a_user_is_disconnected(scene):
    devices = [await scene.connect(edge, "fred") for edge in (0, 1, 1)]
    bystander = await scene.connect(1, "bystander")
    await eventually(lambda: scene.here.is_online("fred"))
    for device in devices:
        await device.subscribe(channel_id="fred's")
    answer = await scene.here.DisconnectUser(user_id="fred", code=4003, reason="banned für immer")
    assert answer.connection_count == 3
    for device in devices:
        assert await device.await_closed() == 4003 and device.socket.close_reason == "banned für immer"
    await eventually(lambda: is_gone(scene.there, "fred"))
    assert list((await scene.here.ListConnections(user_id="fred")).connections) == []
    assert (await scene.there.DisconnectUser(user_id="fred")).connection_count == 0, "nobody is no error"
    again = await scene.connect(1, "fred")
    await eventually(lambda: scene.here.is_online("fred"), what="who comes again is welcome")
    assert (await scene.here.DisconnectUser(user_id="fred")).connection_count == 1
    assert await again.await_closed() == 1008 and again.socket.close_reason == ""
    await bystander.ping()


async def is_gone(api, user_id):
    return (await api.GetPresence(user_id=user_id)).status == OFFLINE


@story
async def test_one_connection_is_disconnected(scene):
    devices = [await scene.connect(1, "gina") for _ in range(2)]
    await devices[0].subscribe(channel_id="the first one")
    await devices[1].ping()

    async def both():
        found = (await scene.here.ListConnections(user_id="gina")).connections
        return len(found) == 2 and found

    [first] = [connection for connection in await eventually(both) if connection.room_count]
    await scene.here.DisconnectConnection(connection_id=first.connection_id, code=1001, reason="bye")
    assert await devices[0].await_closed() == 1001 and devices[0].socket.close_reason == "bye"
    await devices[1].ping()
    assert (await scene.there.GetPresence(user_id="gina")).status == ONLINE, "by the other device"
    assert (await refused(scene.there.DisconnectConnection(connection_id=first.connection_id))).code == "NOT_FOUND"
    assert len((await scene.here.ListConnections(user_id="gina")).connections) == 1


@story
async def test_a_user_is_taken_out_of_a_room(scene):
    devices = await members(scene, "party", "hugo", "hugo", "stays")
    await devices[0].subscribe(channel_id="another")
    assert (await scene.there.UnsubscribeUser(user_id="hugo", room_id="party")).connection_count == 2
    for device in devices[:2]:
        assert await device.expect(type="unsubscribed") == {"type": "unsubscribed", "channel_id": "party", "dm_id": None}
    assert (await scene.here.Broadcast(room_id="party", data={"n": 1})).reached_connections == 1
    await devices[2].expect(type="message")
    assert [await messages(device) for device in devices] == [[], [], [{"n": 1}]]
    assert (await scene.here.UnsubscribeUser(user_id="hugo", room_id="party")).connection_count == 0
    assert (await scene.here.Broadcast(room_id="another", data={"n": 2})).reached_connections == 1, "the other room stays"
    await devices[1].subscribe(channel_id="party")
    assert (await scene.here.Broadcast(room_id="party", data={"n": 3})).reached_connections == 2, "they may come again"
