"""The limits that cores keep: connections of one user over all edges, and connections in one room."""

import pytest

from bystanders import serve_while_tripped, to_the_core_and_back
from harness import Client, Stack, run, until_async


@pytest.fixture(scope="module")
def stack():
    with Stack(cores=2, edges=2, pinned=True,
               core_settings={"CONNECTIONS_PER_USER": "3", "ROOM_SUBSCRIBERS_MAX": "2", "PRESENCE_SCOPE": "rooms"}) as stack:
        yield stack


def limited(stack, metric):
    return sum(core.metric(f"presence_core_{metric}_total") for core in stack.cores)


async def opened(stack, edge, user):
    return await Client.open(stack.edges[edge], stack.token(user))


def test_a_user_may_have_so_many_connections_over_all_edges(stack):
    before = limited(stack, "connections_too_many")

    async def story():
        allowed = [await opened(stack, edge, "alice") for edge in (0, 1, 0)]
        for client in allowed:
            await client.subscribe("home")  # whoever is subscribed is let in for good
        for edge in (0, 1):
            surplus = await opened(stack, edge, "alice")
            assert await surplus.await_closed() == 1008
            assert surplus.socket.close_reason == "too many connections"
            assert not surplus.seen(type="subscribed")
        other = await opened(stack, 0, "bob")
        await other.subscribe("elsewhere")
        assert [client.closed for client in allowed] == [False] * 3, "who is there stays"
        await until_async(lambda: limited(stack, "connections_too_many") == before + 2)
        # Who leaves makes place.
        await allowed[0].close()
        async def comes_in():
            client = await opened(stack, 1, "alice")
            await client.send(type="subscribe", channel_id="home")
            await until_async(lambda: client.closed or client.seen(type="subscribed"))
            return None if client.closed else client
        newcomer = await comes_in() or await comes_in() or await comes_in()
        assert newcomer
        for client in (*allowed[1:], newcomer, other):
            await client.close()
    run(story())


def test_a_room_has_so_many_connections_at_a_core(stack):
    before = limited(stack, "joins_room_full")

    async def story():
        inside = [await opened(stack, 0, user) for user in ("carol", "dave")]
        for client in inside:
            await client.subscribe("small")
            await client.subscribe("small")  # again is no further one
        late = await opened(stack, 0, "erin")
        await late.send(type="subscribe", channel_id="small")
        assert (await late.expect(type="error"))["code"] == 429
        assert not late.seen(type="subscribed")
        await until_async(lambda: limited(stack, "joins_room_full") == before + 1)
        await inside[0].send(type="unsubscribe", channel_id="small")
        await inside[0].expect(type="unsubscribed")
        await late.subscribe("small")
        for client in (*inside, late):
            await client.close()
    run(story())


def test_bystanders_are_served_while_one_user_wants_ever_more_connections(stack):
    serve_while_tripped(stack, stack.edges, "user_connections", {1008: 500}, lambda: [limited(stack, "connections_too_many")],
                        to_the_core_and_back)


def test_bystanders_are_served_while_a_crowd_wants_into_a_full_room():
    # 80 connections of one user: no other limit is in their way, and none sends as much at once as it may.
    with Stack(cores=2, edges=2, pinned=True, core_settings={"ROOM_SUBSCRIBERS_MAX": "15", "PRESENCE_SCOPE": "rooms"}) as stack:
        serve_while_tripped(stack, stack.edges, "room_subscribers", {429: 5000}, lambda: [limited(stack, "joins_room_full")],
                            to_the_core_and_back)
