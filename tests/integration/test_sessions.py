"""Tokens over an open connection: renewed, ended, shown by the first message only, and taken back by the identity provider."""

import asyncio
import http.client
import json
import time
import uuid

import jwt
import pytest
import websockets
from cryptography.hazmat.primitives.asymmetric import rsa

from harness import PATIENCE, Client, Edge, Stack, get, run, until, until_async

LOGOUT_EVENT = {"http://schemas.openid.net/event/backchannel-logout": {}}


def logout_token(stack, issued_ago=0, **claims):
    now = int(time.time())
    body = {"iss": "https://issuer", "aud": "web", "iat": now - issued_ago, "exp": now + 120, "jti": str(uuid.uuid4()),
            "events": LOGOUT_EVENT, **claims}
    return jwt.encode({k: v for k, v in body.items() if v is not None}, stack.keys.private, algorithm="RS256",
                      headers={"kid": "rsa-1", "typ": "logout+jwt"})


def post(edge, body, method="POST", content_type="application/x-www-form-urlencoded", **headers):
    connection = http.client.HTTPConnection("127.0.0.1", edge.port, timeout=20)
    connection.request(method, "/backchannel-logout", body, {"Content-Type": content_type, **headers})
    answer = connection.getresponse()
    answer.text = answer.read().decode()
    connection.close()
    return answer


async def logout(edge, token):
    return await asyncio.to_thread(post, edge, f"logout_token={token}")


def logouts(edge, outcome):
    return edge.metric(f'presence_edge_logouts_total{{outcome="{outcome}"}}')


async def gets_in(edge, token):
    client = await Client.open(edge, token)
    await client.expect(type="pong")
    await client.subscribe("somewhere")
    # There and back through Redis, which has judged the token by then.
    await client.send(type="typing", channel_id="somewhere")
    await client.expect(type="typing")
    await client.close()


async def stays_out(edge, token):
    """The store judges: the connection may have been opened by then, but not for long."""
    client = await Client.open(edge, token)
    assert (await client.await_closed(), client.socket.close_reason) == (4401, "logged out")


# --- renewed

@pytest.fixture(scope="module")
def stack():
    with Stack(redis=False, edge_settings={"WS_TOKEN_EXPIRY": "close", "WS_TOKEN_EXPIRY_WARNING": "5",
                                           "WS_AUTH_FIRST_MESSAGE": "on", "WS_AUTH_TIMEOUT": str(3 * PATIENCE),
                                           "WS_AUTH_PENDING_MAX": "3", "REST_AUTH": "bearer"}) as stack:
        yield stack


def test_a_token_is_renewed_over_the_open_connection(stack):
    async def story():
        client = await Client.open(stack.edges[0], stack.token("alice"))
        await client.subscribe("general")
        token = stack.token("alice", expires_in=1000)
        await client.send(type="auth", token=token)
        answer = await client.expect(type="auth")
        expires = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(jwt.decode(token, options={"verify_signature": False})["exp"]))
        assert answer == {"type": "auth", "status": "ok", "expires_at": expires}
        for bad, text in ((stack.token("bob"), "token of another user"), ("x.y.z", "token invalid"),
                          (stack.token("alice", expires_in=-60), "token expired")):
            await client.send(type="auth", token=bad)
            assert (await client.expect(type="error")) == {"type": "error", "error": text, "code": 401}
        await client.subscribe("general")
        await client.close()
    run(story())
    until(lambda: stack.edges[0].metric('presence_edge_tokens_shown_total{outcome="renewed"}') == 1, what="it is counted")
    until(lambda: stack.edges[0].metric('presence_edge_tokens_shown_total{outcome="refused"}') == 3, what="they are counted")


def test_a_connection_ends_with_its_token_unless_that_is_renewed(stack):
    async def story():
        # Good for five seconds more: the verifier's leeway is 30 s.
        token = stack.token("alice", expires_in=-25)
        lazy, diligent = [await Client.open(stack.edges[0], token) for _ in range(2)]
        for client in (lazy, diligent):
            warning = await client.expect(type="token_expiring")
            assert list(warning) == ["type", "expires_at"] and warning["expires_at"].endswith("Z")
        await diligent.send(type="auth", token=stack.token("alice"))
        await diligent.expect(type="auth", status="ok")
        assert await lazy.await_closed() == 4401
        assert lazy.socket.close_reason == "token expired"
        await diligent.ping()
        assert len(lazy.seen(type="token_expiring")) == 1
        await diligent.close()
    run(story())


class NewKey:
    """A key that the edge has not seen yet: it is in the file, and the edge has not looked since."""

    def __init__(self, stack):
        self.private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.kid = str(uuid.uuid4())
        jwk = {**json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(self.private.public_key())), "kid": self.kid, "use": "sig",
               "alg": "RS256"}
        jwk.pop("key_ops", None)
        path = stack.keys.path
        document = json.loads(path.read_text())
        document["keys"].append(jwk)
        new = path.with_suffix(".new")
        new.write_text(json.dumps(document))
        new.rename(path)

    def sign(self, token):
        claims = jwt.decode(token, options={"verify_signature": False})
        return jwt.encode(claims, self.private, algorithm="RS256", headers={"kid": self.kid})


def test_a_token_with_a_key_that_is_new_waits_for_it(stack):
    async def story():
        client = await Client.open(stack.edges[0], stack.token("kim"))
        await client.send(type="auth", token=NewKey(stack).sign(stack.token("kim")))
        await client.expect(type="auth", status="ok")
        await client.close()
        token = NewKey(stack).sign(stack.token("kim"))  # making a key takes its time, and WS_AUTH_TIMEOUT runs from the opening
        first_message = await Client.open(stack.edges[0], None)
        await first_message.send(type="auth", token=token)
        await first_message.expect(type="pong")
        await first_message.subscribe("general")
        await first_message.close()
    run(story())
    new = NewKey(stack)
    bearer = {"Authorization": "Bearer " + new.sign(stack.token("kim"))}
    assert get(stack.edges[0].http + "/presence/kim", headers=bearer).status == 200
    unknown = jwt.encode({"sub": "kim"}, new.private, algorithm="RS256", headers={"kid": "nobody's"})
    assert get(stack.edges[0].http + "/presence/kim", headers={"Authorization": "Bearer " + unknown}).status == 401


# --- shown by the first message

def test_the_token_may_be_the_first_message(stack):
    edge = stack.edges[0]

    async def story():
        client = await Client.open(edge, None)
        await client.send(type="auth", token=stack.token("carol"))
        await client.expect(type="pong")
        assert json.loads(client.frames[0])["type"] == "pong"
        await client.subscribe("general")
        await client.send(type="typing", channel_id="general")
        assert (await client.expect(type="typing"))["user_id"] == "carol"
        # No longer bound to the size of a token.
        await client.send_text(json.dumps({"type": "ping", "padding": "x" * 20000}))
        await client.expect(type="pong")
        await client.close()
    run(story())


@pytest.mark.parametrize("first, code, reason", [
    ('{"type":"ping"}', 1008, "token missing"), ("{", 1008, "token missing"),
    ('{"type":"auth","token":"a.b.c"}', 1008, "token invalid"), (None, 1008, "token missing"),
    ('{"type":"auth","token":"' + "x" * 9000 + '"}', 1009, None)])
def test_anything_else_closes_it_without_a_frame(stack, first, code, reason):
    async def story():
        client = await Client.open(stack.edges[0], None)
        if first is not None:
            await client.send_text(first)
        assert await client.await_closed() == code
        assert reason is None or client.socket.close_reason == reason
        assert client.frames == []
    run(story())


def test_an_expired_token_in_the_first_message(stack):
    async def story():
        client = await Client.open(stack.edges[0], None)
        await client.send(type="auth", token=stack.token("carol", expires_in=-60))
        assert (await client.await_closed(), client.socket.close_reason) == (1008, "token expired")
    run(story())


def test_sockets_without_a_token_are_bounded_and_cost_others_nothing(stack):
    async def story():
        silent = [await Client.open(stack.edges[0], None) for _ in range(3)]
        await gets_in(stack.edges[0], stack.token("dave"))
        # Whoever has something to say takes the place of the one that has been silent for longest.
        honest = await Client.open(stack.edges[0], None)
        await honest.send(type="auth", token=stack.token("erin"))
        await honest.expect(type="pong")
        assert await silent[0].await_closed() == 1013
        for client in silent[1:]:
            assert await client.await_closed() == 1008
        await honest.ping()
        await honest.close()
    run(story())
    until(lambda: stack.edges[0].metric('presence_edge_token_closes_total{reason="too_many_without"}') >= 1,
          what="it is counted")


# --- taken back

PARTIES = {"JWT_ISSUER": "https://issuer", "KEYCLOAK_CLIENT_ID": "web"}


@pytest.fixture(scope="module")
def cluster():
    with Stack(cores=2, edges=2, pinned=True, edge_settings=PARTIES) as stack:
        yield stack


def party_token(stack, user, session, issued_ago=0, **claims):
    return stack.token(user, sid=session, iss="https://issuer", azp="web", iat=int(time.time()) - issued_ago, **claims)


def test_a_logout_closes_a_session_on_every_edge_and_it_stays_out(cluster):
    async def story():
        old = party_token(cluster, "alice", "s1", issued_ago=2)
        mine = [await Client.open(edge, old) for edge in cluster.edges]
        other_session = await Client.open(cluster.edges[1], party_token(cluster, "alice", "s2", issued_ago=2))
        other_user = await Client.open(cluster.edges[0], party_token(cluster, "bob", "s3", issued_ago=2))
        for client in (*mine, other_session, other_user):
            await client.subscribe("general")
        done = logouts(cluster.edges[0], "done")
        answer = await logout(cluster.edges[0], logout_token(cluster, sub="alice", sid="s1"))
        assert logouts(cluster.edges[0], "done") == done + 1
        assert answer.status == 200 and answer.getheader("Cache-Control") == "no-store"
        for client in mine:
            assert await client.await_closed() == 4401
            assert client.socket.close_reason == "logged out"
        await other_session.ping()
        await other_user.ping()
        # It stays out, whichever edge it tries; another session of the same user does not.
        for edge in cluster.edges:
            await stays_out(edge, old)
            await gets_in(edge, party_token(cluster, "alice", "s2", issued_ago=2))
        # Nor may a connection of another session take it over.
        await other_session.send(type="auth", token=old)
        assert await other_session.await_closed() == 4401
        # Who logs in again, gets in.
        fresh = party_token(cluster, "alice", "s1", issued_ago=-1)
        for edge in cluster.edges:
            await gets_in(edge, fresh)
        await other_user.close()
    run(story())


def test_a_logout_with_a_key_that_is_new_waits_for_it(cluster):
    async def story():
        client = await Client.open(cluster.edges[0], party_token(cluster, "lea", "l1", issued_ago=2))
        await client.subscribe("general")
        assert (await logout(cluster.edges[1], NewKey(cluster).sign(logout_token(cluster, sub="lea")))).status == 200
        assert await client.await_closed() == 4401
    run(story())


def test_a_logout_of_a_user_ends_all_of_his_sessions(cluster):
    async def story():
        clients = [await Client.open(edge, party_token(cluster, "erin", session, issued_ago=2))
                   for edge, session in zip(cluster.edges, ("e1", "e2"))]
        clients.append(await Client.open(cluster.edges[0], party_token(cluster, "erin", None, issued_ago=2)))
        token = logout_token(cluster, sub="erin")
        assert (await logout(cluster.edges[1], token)).status == 200
        for client in clients:
            assert await client.await_closed() == 4401
        # Once more is harmless.
        back = await Client.open(cluster.edges[0], party_token(cluster, "erin", "e4", issued_ago=-1))
        await back.subscribe("general")
        assert (await logout(cluster.edges[0], token)).status == 200
        await back.ping()
        await back.close()
    run(story())


def test_a_renewed_token_outlives_the_logout_of_the_old_one(cluster):
    async def story():
        client = await Client.open(cluster.edges[0], party_token(cluster, "fred", "f1", issued_ago=5))
        await client.send(type="auth", token=party_token(cluster, "fred", "f1"))
        await client.expect(type="auth", status="ok")
        await client.subscribe("general")
        assert (await logout(cluster.edges[1], logout_token(cluster, issued_ago=3, sub="fred", sid="f1"))).status == 200
        await client.ping()
        await client.close()
    run(story())


def test_what_is_no_logout_token_ends_nothing(cluster):
    edge = cluster.edges[0]
    good = logout_token(cluster, sub="gina")
    access = party_token(cluster, "gina", "g1")
    bodies = {"nothing": "", "two": f"logout_token={good}&logout_token={good}", "an access token": f"logout_token={access}",
              "no event": f"logout_token={logout_token(cluster, sub='gina', events=None)}",
              "a nonce": f"logout_token={logout_token(cluster, sub='gina', nonce='n')}",
              "of another client": f"logout_token={logout_token(cluster, sub='gina', aud='shop')}",
              "of another issuer": f"logout_token={logout_token(cluster, sub='gina', iss='https://evil')}",
              "of nobody": f"logout_token={logout_token(cluster)}",
              "signature cut": f"logout_token={good[:-4]}"}
    for name, body in bodies.items():
        refused = logouts(edge, "refused")
        answer = post(edge, body)
        assert logouts(edge, "refused") == refused + 1
        assert (answer.status, json.loads(answer.text)["error"]) == (400, "invalid_request"), name
        assert answer.getheader("Cache-Control") == "no-store"
        assert answer.getheader("Access-Control-Allow-Origin") is None
    assert post(edge, f"logout_token={good}", content_type="text/plain").status == 400
    assert post(edge, None, method="GET").status == 405
    assert post(edge, "x" * 17000).status == 413
    run(_gina(cluster, access))
    assert good.split(".")[1] not in edge.log()


async def _gina(cluster, access):
    await gets_in(cluster.edges[0], access)


def test_an_edge_without_a_core_says_that_it_could_not(cluster):
    lonely = cluster.add(Edge(cluster.directory.name, "lonely", [cluster.cores[0]], cluster.keys, EDGE_SHARDS="1",
                              **PARTIES, CORE_LINK="127.0.0.1:1"))
    until(lambda: lonely.process.poll() is not None or _answers(lonely), what="the edge answers")
    until(lambda: post(lonely, f"logout_token={logout_token(cluster, sub='henry')}").status == 503, what="503")
    assert logouts(lonely, "not_kept") >= 1 and logouts(lonely, "done") == 0


def _answers(edge):
    try:
        return post(edge, None, method="GET").status == 405
    except OSError:
        return False


def test_a_logout_that_a_core_misses_meets_the_connection_at_its_resync():
    with Stack(cores=2, edges=2, pinned=True, edge_settings={**PARTIES, "EDGE_ISOLATION_MAX": "0"}) as stack:
        async def story():
            client = await Client.open(stack.edges[1], party_token(stack, "ivan", "i1", issued_ago=2))
            kept = await Client.open(stack.edges[1], party_token(stack, "judy", "j1", issued_ago=2))
            await client.subscribe("general")
            await stack.cores[1].kill_and_wait(9)
            # Its core is gone: nobody can close it yet, but the logout is kept.
            answer = await logout(stack.edges[0], logout_token(stack, sub="ivan", sid="i1"))
            assert answer.status in (200, 503, 504)
            await asyncio.to_thread(lambda: stack.cores[1].start().await_ready())
            assert await client.await_closed(20) == 4401
            assert client.socket.close_reason == "logged out"
            await until_async(lambda: stack.edges[1].healthy(), 20)
            await kept.subscribe("general")
            await kept.close()
        run(story())
