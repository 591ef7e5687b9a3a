"""Who may be in which room: by the token, by sets in Redis, by a backend; what it looks like to a client, and how a right ends."""

import asyncio
import contextlib
import pathlib
import tempfile

import grpc
import pytest

from api import Api, rooms_v1, rooms_v1_grpc
from certificates import Authority
from harness import Client, Core, Stack, free_port, run, until, until_async

NONE, READ, WRITE = rooms_v1.ROOM_RIGHT_NONE, rooms_v1.ROOM_RIGHT_READ, rooms_v1.ROOM_RIGHT_WRITE
FORBIDDEN = dict(type="error", error="Not allowed in this room", code=403)
READ_ONLY = dict(type="error", error="Not allowed to write in this room", code=403)


async def connect(stack, user, edge=0, **claims):
    return await Client.open(stack.edges[edge], stack.token(user, **claims))


async def refused(client, channel, **error):
    await client.send(type="subscribe", channel_id=channel)
    return await client.expect(type="error", **(error or dict(code=403)))


async def counted(core, name, number):
    """The page lags by a tick."""
    await until_async(lambda: core.metric(name) == number, what=f"{name} is {number}")


# --------------------------------------------------------------------------------------------------------------- claims

def test_claims_and_roles_of_the_token_say_where_a_client_may_go():
    with Stack(redis=False, core_settings={"ROOM_AUTH": "claims"}, edge_settings={"KEYCLOAK_CLIENT_ID": "web"}) as stack:
        async def story():
            alice = await connect(stack, "alice", azp="web", rooms={"write": ["team-*"], "read": ["news"]},
                                  realm_access={"roles": ["room:write:lobby", "other"]},
                                  resource_access={"web": {"roles": ["room:read:faq"]}, "foreign": {"roles": ["room:write:*"]}})
            for channel in ("team-7", "news", "lobby", "faq"):
                await alice.subscribe(channel)
            assert await refused(alice, "secret") == FORBIDDEN
            bob = await connect(stack, "bob", azp="web", rooms=["*"])
            await bob.subscribe("news")
            await bob.subscribe("team-7")
            stranger = await connect(stack, "carol", azp="web")
            assert await refused(stranger, "team-7") == FORBIDDEN

            await alice.send(type="typing", channel_id="team-7")
            await bob.expect(type="typing", channel_id="team-7", user_id="alice")
            await alice.send(type="typing", channel_id="news")
            assert await alice.expect(type="error") == READ_ONLY
            await alice.send(type="typing", channel_id="secret")
            assert await alice.expect(type="error") == FORBIDDEN
            await bob.ping()
            assert not bob.seen(type="typing", channel_id="news")

            # A backend's own word is trusted, and readers hear it.
            async with Api(stack.cores[0]) as api:
                await api.Broadcast(room_id="news", data={"n": 1})
            assert (await alice.expect(type="message"))["data"] == {"n": 1}
            await counted(stack.cores[0], "presence_core_joins_forbidden_total", 2)
            await counted(stack.cores[0], "presence_core_typing_forbidden_total", 2)
            for client in (alice, bob, stranger):
                await client.close()
        run(story())


def test_a_new_token_gives_rights_and_takes_them_away():
    with Stack(redis=False, core_settings={"ROOM_AUTH": "claims"}) as stack:
        async def story():
            alice = await connect(stack, "alice", rooms=["team-*", "news"])
            await alice.subscribe("team-7")
            await alice.subscribe("news")
            await alice.send(type="auth", token=stack.token("alice", rooms=["team-*", "faq"]))
            await alice.expect(type="auth", status="ok")
            assert await alice.expect(type="error") == FORBIDDEN
            await alice.expect(type="unsubscribed", channel_id="news", dm_id=None)
            await alice.subscribe("faq")
            assert await refused(alice, "news") == FORBIDDEN
            assert not alice.seen(type="unsubscribed", channel_id="team-7")
            await alice.close()
        run(story())


def test_rights_of_the_token_are_told_again_to_the_next_core():
    with Stack(redis=False, core_settings={"ROOM_AUTH": "claims"}) as stack:
        async def story():
            alice = await connect(stack, "alice", rooms=["team-*"])
            await alice.subscribe("team-7")
            core = stack.cores[0]
            core.kill()
            core.start().await_ready()
            await until_async(lambda: core.metric("presence_core_resyncs_total") == 1, what="the edge is back")
            await alice.subscribe("team-8")
            assert await refused(alice, "secret") == FORBIDDEN
            assert not alice.seen(type="unsubscribed")
            await alice.close()
        run(story())


# ---------------------------------------------------------------------------------------------------------------- redis

def test_sets_in_redis_say_it_and_a_change_is_noticed():
    settings = {"ROOM_AUTH": "redis", "ROOM_AUTH_CACHE": "600"}
    with Stack(cores=2, edges=2, pinned=True, core_settings=settings) as stack:
        sets = stack.redis.client

        async def story():
            sets.sadd("room.write:general", "alice", "bob")
            sets.sadd("user.read:alice", "news")
            sets.sadd("room.read:faq", "*")
            alice, bob = await connect(stack, "alice"), await connect(stack, "bob", edge=1)
            for channel in ("general", "news", "faq"):
                await alice.subscribe(channel)
            await bob.subscribe("general")
            assert await refused(alice, "secret") == FORBIDDEN
            assert await refused(bob, "news") == FORBIDDEN
            await alice.send(type="typing", channel_id="news")
            assert await alice.expect(type="error") == READ_ONLY
            await alice.send(type="typing", channel_id="general")
            await bob.expect(type="typing", user_id="alice")

            # Bob is thrown out: the API is asked at one core, bob is at the other one.
            sets.srem("room.write:general", "bob")
            async with Api(stack.cores[0]) as api:
                assert (await api.ForgetRoomRights(user_id="bob", room_id="general")).forgotten_count == 1
                assert await bob.expect(type="error") == FORBIDDEN
                await bob.expect(type="unsubscribed", channel_id="general", dm_id=None)
                await api.Broadcast(room_id="general", data={"n": 1})
                await alice.expect(type="message")
                await bob.ping()
                assert not bob.seen(type="message")
                assert await refused(bob, "general") == FORBIDDEN
            for client in (alice, bob):
                await client.close()
        run(story())


def test_an_answer_ends_and_takes_the_subscription_along():
    with Stack(core_settings={"ROOM_AUTH": "redis", "ROOM_AUTH_CACHE": "1"}) as stack:
        async def story():
            stack.redis.client.sadd("room.write:general", "alice")
            alice = (await connect(stack, "alice")).keep_alive(5)
            await alice.subscribe("general")
            await until_async(lambda: stack.cores[0].metric("presence_core_room_rights_asked_total") >= 3, what="it is asked again")
            assert not alice.seen(type="unsubscribed")
            stack.redis.client.srem("room.write:general", "alice")
            assert await alice.expect(type="error") == FORBIDDEN
            await alice.expect(type="unsubscribed", channel_id="general")
            await counted(stack.cores[0], "presence_core_subscriptions_revoked_total", 1)
            await alice.close()
        run(story())


# A right that was taken away while no core was there to notice.
def test_who_is_declared_to_a_new_core_is_checked():
    with Stack(core_settings={"ROOM_AUTH": "redis", "ROOM_AUTH_CACHE": "600"}) as stack:
        async def story():
            stack.redis.client.sadd("user.write:alice", "general", "random")
            alice = await connect(stack, "alice")
            await alice.subscribe("general")
            await alice.subscribe("random")
            stack.cores[0].kill()
            stack.redis.client.srem("user.write:alice", "general")
            stack.cores[0].start().await_ready()
            assert await alice.expect(type="error") == FORBIDDEN
            await alice.expect(type="unsubscribed", channel_id="general")
            assert len(alice.seen(type="unsubscribed")) == 1
            await alice.close()
        run(story())


def test_a_redis_that_is_away_lets_nobody_in_and_throws_nobody_out():
    with Stack(core_settings={"ROOM_AUTH": "redis", "ROOM_AUTH_CACHE": "1"}) as stack:
        async def story():
            stack.redis.client.sadd("user.write:alice", "*")
            alice = (await connect(stack, "alice")).keep_alive(5)
            await alice.subscribe("general")
            stack.redis.kill()
            core = stack.cores[0]
            await until_async(lambda: core.metric("presence_core_room_rights_unanswered_total") >= 1, what="nobody answers")
            assert (await refused(alice, "random", code=503))["code"] == 503
            assert not alice.seen(type="unsubscribed")
            stack.redis.start().await_ready()
            stack.redis.client.sadd("user.write:alice", "*")
            await until_async(lambda: core.metric("presence_core_store_ups_total") == 2, 20, what="Redis is back")

            async def again():
                await alice.send(type="subscribe", channel_id="random")
                await asyncio.sleep(0.1)
                return alice.seen(type="subscribed", channel_id="random")
            for _ in range(100):
                if await again():
                    break
            await alice.await_seen(type="subscribed", channel_id="random")
            await alice.close()
        run(story())


# ----------------------------------------------------------------------------------------------------------------- grpc

class Backend(rooms_v1_grpc.RoomAuthorizerServicer):
    """A backend of another make. `rights`: by (user, room)."""

    def __init__(self):
        self.rights, self.asked, self.delay, self.code, self.under_way, self.most = {}, [], 0, None, 0, 0

    async def Authorize(self, request, context):
        self.asked.append((request.user_id, request.username, request.room_id))
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            await asyncio.sleep(self.delay)
        finally:
            self.under_way -= 1
        if self.code:
            await context.abort(self.code, "out of order")
        return rooms_v1.AuthorizeResponse(right=self.rights.get((request.user_id, request.room_id), NONE))

    @contextlib.asynccontextmanager
    async def serving(self, port, credentials=None):
        server = grpc.aio.server()
        rooms_v1_grpc.add_RoomAuthorizerServicer_to_server(self, server)
        if credentials is None:
            server.add_insecure_port(f"127.0.0.1:{port}")
        else:
            server.add_secure_port(f"127.0.0.1:{port}", credentials)
        await server.start()
        try:
            yield self
        finally:
            await server.stop(None)


@pytest.fixture()
def grpc_stack():
    port = free_port()
    settings = {"ROOM_AUTH": "grpc", "ROOM_AUTHORIZER": f"127.0.0.1:{port}", "ROOM_AUTHORIZER_TIMEOUT": "1",
                "ROOM_AUTHORIZER_CONCURRENCY": "4"}
    with Stack(core_settings=settings) as stack:
        stack.backend_port = port
        yield stack


def test_a_backend_says_who_may_be_in_a_room(grpc_stack):
    async def story():
        async with Backend().serving(grpc_stack.backend_port) as backend:
            backend.rights = {("alice", "general"): WRITE, ("alice", "news"): READ}
            alice = await connect(grpc_stack, "alice", name="Alice")
            await alice.subscribe("general")
            await alice.subscribe("news")
            assert await refused(alice, "secret") == FORBIDDEN
            assert backend.asked == [("alice", "Alice", "general"), ("alice", "Alice", "news"), ("alice", "Alice", "secret")]
            await alice.send(type="typing", channel_id="general")
            await alice.expect(type="typing", user_id="alice")
            await alice.send(type="typing", channel_id="news")
            assert await alice.expect(type="error") == READ_ONLY
            second = await connect(grpc_stack, "alice")
            await second.subscribe("general")
            assert len(backend.asked) == 3, "what is known is not asked again"

            del backend.rights[("alice", "general")]
            async with Api(grpc_stack.cores[0]) as api:
                assert (await api.ForgetRoomRights(user_id="alice")).forgotten_count == 3
            for client in (alice, second):
                assert await client.expect(type="error") == FORBIDDEN
                await client.expect(type="unsubscribed", channel_id="general")
            assert not alice.seen(type="unsubscribed", channel_id="news")
            for client in (alice, second):
                await client.close()
    run(story())


def test_a_backend_that_is_slow_broken_or_dead_lets_nobody_in(grpc_stack):
    async def story():
        alice = (await connect(grpc_stack, "alice")).keep_alive(5)
        assert (await refused(alice, "general", code=503))["code"] == 503, "nobody is there"
        async with Backend().serving(grpc_stack.backend_port) as backend:
            backend.rights = {("alice", "general"): WRITE}
            # gRPC finds it within a second.
            while not alice.seen(type="subscribed"):
                await alice.send(type="subscribe", channel_id="general")
                await asyncio.sleep(0.1)
            await alice.expect(type="subscribed", channel_id="general")
            backend.code = grpc.StatusCode.INTERNAL
            assert (await refused(alice, "random", code=503))["code"] == 503, "it fails"
            backend.code, backend.delay = None, 60
            await alice.send(type="subscribe", channel_id="random")
            await alice.ping()
            assert len(alice.seen(type="subscribed", channel_id="random")) == 0, "what waits keeps nobody else waiting"
            await alice.expect(type="error", code=503)
        assert not alice.seen(type="unsubscribed"), "who is in the room stays"
        await alice.close()
    run(story())


def test_so_many_questions_at_a_time(grpc_stack):
    async def story():
        async with Backend().serving(grpc_stack.backend_port) as backend:
            backend.rights, backend.delay = {("alice", f"room{i}"): WRITE for i in range(20)}, 0.05
            alice = await connect(grpc_stack, "alice")
            for i in range(20):
                await alice.send(type="subscribe", channel_id=f"room{i}")
            for i in range(20):
                await alice.await_seen(type="subscribed", channel_id=f"room{i}")
            assert backend.most == 4
            await alice.close()
    run(story())


# Of the backend's authority ("mine") or another; what the core shows, and whom it trusts.
@pytest.mark.parametrize("trusted, shown, gets_in", [
    ("mine", "mine", True), ("mine", "other's", False), ("mine", None, False), ("other's", "mine", False), (None, None, False)])
def test_a_backend_over_tls(tmp_path, trusted, shown, gets_in):
    authorities = {"mine": Authority(tmp_path, "mine"), "other's": Authority(tmp_path, "others")}
    certificate, key = (pathlib.Path(path).read_bytes() for path in authorities["mine"].sign("backend"))
    mine = pathlib.Path(authorities["mine"].pem).read_bytes()
    credentials = grpc.ssl_server_credentials([(key, certificate)], root_certificates=mine, require_client_auth=True)
    port = free_port()
    settings = {"ROOM_AUTH": "grpc", "ROOM_AUTHORIZER": f"127.0.0.1:{port}", "ROOM_AUTHORIZER_TIMEOUT": "2"}
    if trusted:
        settings["ROOM_AUTHORIZER_CA"] = authorities[trusted].pem
    if shown:
        settings["ROOM_AUTHORIZER_CERT"], settings["ROOM_AUTHORIZER_KEY"] = authorities[shown].sign("core")
    with Stack(redis=False, core_settings=settings) as stack:
        async def story():
            async with Backend().serving(port, credentials) as backend:
                backend.rights = {("alice", "general"): WRITE}
                alice = await connect(stack, "alice")
                if gets_in:
                    await alice.subscribe("general")
                    assert await refused(alice, "secret") == FORBIDDEN
                else:
                    assert (await refused(alice, "general", code=503))["code"] == 503, "nobody can say"
                    assert not backend.asked
                await alice.close()
        run(story())


# A client that leaves before it is let in is not let in afterwards.
def test_leaving_while_the_backend_thinks(grpc_stack):
    async def story():
        async with Backend().serving(grpc_stack.backend_port) as backend:
            backend.rights, backend.delay = {("alice", "general"): WRITE}, 0.5
            alice = await connect(grpc_stack, "alice")
            await alice.send(type="subscribe", channel_id="general")
            await alice.send(type="unsubscribe", channel_id="general")
            await alice.expect(type="unsubscribed", channel_id="general")
            await until_async(lambda: backend.asked and backend.under_way == 0, what="the backend has answered")
            async with Api(grpc_stack.cores[0]) as api:
                assert (await api.Broadcast(room_id="general", data={"n": 1})).reached_connections == 0
            await alice.ping()
            assert not alice.seen(type="subscribed") and not alice.seen(type="error") and not alice.seen(type="message")
            await alice.close()
    run(story())


# ---------------------------------------------------------------------------------------------------------------- limit

def test_a_room_that_is_full():
    with Stack(redis=False, core_settings={"ROOM_SUBSCRIBERS_MAX": "2"}) as stack:
        async def story():
            clients = [await connect(stack, f"user{i}") for i in range(3)]
            for client in clients[:2]:
                await client.subscribe("general")
            assert await refused(clients[2], "general", code=429) == dict(type="error", error="This room is full", code=429)
            await clients[2].subscribe("random")
            await clients[0].close()
            while not clients[2].seen(type="subscribed", channel_id="general"):
                await clients[2].send(type="subscribe", channel_id="general")
                await asyncio.sleep(0.05)
            await until_async(lambda: stack.cores[0].metric("presence_core_joins_room_full_total") >= 1, what="it is counted")
            for client in clients[1:]:
                await client.close()
        run(story())


def test_a_core_without_a_redis_has_no_sets_to_look_into():
    with tempfile.TemporaryDirectory() as directory:
        core = Core(directory, "core", "memory:", ROOM_AUTH="redis")
        until(lambda: core.process.poll() is not None, what="it ends")
        assert core.process.returncode == 2 and "ROOM_AUTH=redis needs a Redis" in core.log()
