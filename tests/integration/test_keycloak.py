"""Tokens of a real Keycloak: whose are good, keys that change, and a Keycloak that is away."""

import asyncio
import contextlib
import json
import shutil
import subprocess

import jwt
import pytest
import websockets

from harness import PATIENCE, ROOT, Client, Stack, get, run, until
from keycloak import Keycloak

GRPCURL = shutil.which("grpcurl") or str(ROOT / "build/tools/grpcurl")

WHO = {"user_id": "nobody"}
POST = {"room_id": "channel_general", "data": {"content": "Hello"}}


@pytest.fixture(scope="module")
def keycloak():
    with Keycloak() as keycloak:
        yield keycloak


@contextlib.contextmanager
def switched_off(keycloak):
    keycloak.stop()
    try:
        yield
    finally:
        keycloak.start_ready()


def stack_of(keycloak, **edge_settings):
    return Stack(redis=False, edge_settings=keycloak.settings(**edge_settings))


async def opening(edge, token):
    """The status of a handshake with this token."""
    try:
        client = await Client.open(edge, token)
    except websockets.InvalidStatusCode as refused:
        return refused.status_code
    await client.close()
    return 101


def status_of(edge, token):
    return run(opening(edge, token))


def claims(token):
    return jwt.decode(token, options={"verify_signature": False})


def test_alice_logs_in_and_talks_to_bob(keycloak):
    tokens = {name: keycloak.token(name) for name in ("alice", "bob")}

    async def story(edge):
        alice, bob = [await Client.open(edge, token) for token in tokens.values()]
        for client in (alice, bob):
            await client.subscribe(channel_id="channel_general")
        await alice.send(type="typing", channel_id="channel_general")
        typing = await bob.expect(type="typing", channel_id="channel_general")
        assert (typing["user_id"], typing["username"]) == (claims(tokens["alice"])["sub"], "alice")
        for client in (alice, bob):
            await client.close()
    with stack_of(keycloak, JWT_AUDIENCE="colink-api") as stack:
        run(story(stack.edges[0]))


def test_tokens_that_are_not_for_this_service_are_refused(keycloak):
    # Keycloak names itself as it is called: the second of its names makes tokens with the same keys and another issuer.
    other_url = keycloak.url.replace("127.0.0.1", "localhost")
    keycloak.add_client("shop")
    mine = keycloak.login("alice")
    refused = {
        keycloak.token("alice", url=other_url): "iss is not accepted",
        keycloak.token("alice", client="shop"): "aud is not accepted",
        mine["refresh_token"]: "no key has this kid",  # it is for Keycloak alone, signed with a secret
        keycloak.admin_token(): "no key has this kid",
    }
    # Signed by the same key, for the browser's own use.
    id_token = keycloak.grant(client_id="colink-web", grant_type="password", username="alice", password="password123",
                              scope="openid")["id_token"]
    with stack_of(keycloak, JWT_AUDIENCE="colink-api") as stack:
        edge = stack.edges[0]
        assert status_of(edge, mine["access_token"]) == 101
        for token, why in refused.items():
            assert status_of(edge, token) == 401, why
        # What is wrong with each is just the one thing: an edge that is told so takes the first two.
        both = f"{keycloak.issuer},{other_url}/realms/colink"
        tolerant = stack.add_edge(1, keycloak.settings(JWT_ISSUER=both)).await_ready()
        assert [status_of(tolerant, token) for token in refused] == [101, 101, 401, 401]
        for why in refused.values():
            until(lambda: why in edge.log())
        assert status_of(edge, id_token) == 401
        assert status_of(tolerant, id_token) == 401


def test_keys_rotate_and_nobody_notices(keycloak):
    old_token = keycloak.token("alice")

    async def first_half(edge):
        alice = (await Client.open(edge, old_token)).keep_alive(5)
        await alice.subscribe(channel_id="channel_general")
        await asyncio.to_thread(keycloak.rotate_keys)
        new_token = await asyncio.to_thread(keycloak.token, "bob")
        assert jwt.get_unverified_header(new_token)["kid"] != jwt.get_unverified_header(old_token)["kid"]

        fetches = keycloak.key_fetches()
        crowd = await asyncio.gather(*(Client.open(edge, new_token) for _ in range(20)))
        assert keycloak.key_fetches() - fetches <= 2, "one for all of them, and at most the regular one beside it"
        await crowd[0].subscribe(channel_id="channel_general")
        await crowd[0].send(type="typing", channel_id="channel_general")
        assert (await alice.expect(type="typing"))["username"] == "bob", "alice is still where she was"
        assert await opening(edge, old_token) == 101, "Keycloak still publishes the key before"
        return alice, crowd, new_token

    async def second_half(edge, alice, crowd, new_token):
        await asyncio.to_thread(keycloak.retire_keys)

        def retired():
            return edge.metric("presence_edge_keys") == 1
        while not await asyncio.to_thread(retired):
            await crowd[0].ping()
            await asyncio.sleep(0.1)  # as often as it likes a client may not
        assert await opening(edge, old_token) == 401
        assert await opening(edge, new_token) == 101
        await alice.ping()
        for client in (alice, *crowd):
            await client.close()

    async def story(edge):
        await second_half(edge, *await first_half(edge))
    with stack_of(keycloak) as stack:
        run(story(stack.edges[0]))


def test_a_new_key_connects_at_once_however_much_junk_was_asked_for(keycloak):
    """What strangers make up must not use up the look that a new key needs."""
    with stack_of(keycloak) as stack:
        edge = stack.edges[0]

        def junk(number):
            return jwt.encode({"sub": "m"}, stack.keys.private, algorithm="RS256", headers={"kid": f"junk-{number}"})
        assert status_of(edge, keycloak.token("alice")) == 101
        fetches = keycloak.key_fetches()
        for _ in range(20):
            assert status_of(edge, junk(0)) == 401
        assert keycloak.key_fetches() - fetches <= 3, "one for the junk; the regular ones come every ten seconds"
        assert status_of(edge, junk(1)) == 401
        keycloak.rotate_keys()
        assert status_of(edge, keycloak.token("alice")) == 101, "no second attempt"


# Keycloak's key providers, and what each is told to make.
OTHER_KEYS = {
    "RS384": ("rsa-generated", {"algorithm": "RS384"}), "RS512": ("rsa-generated", {"algorithm": "RS512"}),
    "PS256": ("rsa-generated", {"algorithm": "PS256"}), "PS512": ("rsa-generated", {"algorithm": "PS512"}),
    "ES256": ("ecdsa-generated", {"ecdsaEllipticCurveKey": "P-256"}),
    "ES384": ("ecdsa-generated", {"ecdsaEllipticCurveKey": "P-384"}),
    "EdDSA": ("eddsa-generated", {"eddsaEllipticCurveKey": "Ed25519"}),
    "EdDSA with Ed448": ("eddsa-generated", {"eddsaEllipticCurveKey": "Ed448"}),
}


def test_keys_of_every_algorithm_that_keycloak_signs_with(keycloak):
    with stack_of(keycloak) as stack:
        edge = stack.edges[0]
        try:
            for name, (provider, config) in OTHER_KEYS.items():
                algorithm = name.split()[0]
                with keycloak.another_key(provider, **config):
                    keycloak.change_client("colink-web", **{"access.token.signed.response.alg": algorithm})
                    token = keycloak.token("alice")
                    assert jwt.get_unverified_header(token)["alg"] == algorithm
                    # A new key each time, and more of them than may be asked for at once: some wait for their turn.
                    assert status_of(edge, token) == 101, name
                    assert status_of(edge, token[:-12] + "AAAAAAAAAAAA") == 401, name
        finally:
            keycloak.change_client("colink-web", **{"access.token.signed.response.alg": ""})
        assert status_of(edge, keycloak.token("alice")) == 101


def test_a_refreshed_token_is_of_the_same_user_and_session(keycloak):
    first = keycloak.login("alice")
    second = keycloak.refresh(first)
    before, after = claims(first["access_token"]), claims(second["access_token"])
    assert (before["sub"], before["sid"]) == (after["sub"], after["sid"])
    assert before["jti"] != after["jti"]
    with stack_of(keycloak) as stack:
        assert status_of(stack.edges[0], second["access_token"]) == 101
        # For renewing, not for connecting.
        assert status_of(stack.edges[0], second["refresh_token"]) == 401


def test_keycloak_is_away(keycloak):
    tokens = {name: keycloak.token(name) for name in ("alice", "bob")}
    with stack_of(keycloak) as stack:
        edge = stack.edges[0]

        async def story():
            alice = (await Client.open(edge, tokens["alice"])).keep_alive(5)
            with contextlib.ExitStack() as away:
                await asyncio.to_thread(away.enter_context, switched_off(keycloak))
                # The edge that knows the keys goes on, with newcomers, too.
                assert await opening(edge, tokens["bob"]) == 101
                assert (await asyncio.to_thread(get, edge.http + "/health")).status == 200
                # One that starts now has none: it says so, and asks clients to come back.
                late = stack.add_edge(1, keycloak.settings())
                await asyncio.to_thread(until, lambda: unready(late) == "there are no keys to verify tokens with")
                assert await opening(late, tokens["bob"]) == 503
                await asyncio.to_thread(away.close)
            await asyncio.to_thread(late.await_ready, 60)
            assert await opening(late, tokens["bob"]) == 101
            await alice.ping()
            await alice.close()
        run(story())


def unready(edge):
    """Why /health answers 503; None while it does not answer yet."""
    assert edge.process.poll() is None, edge.log()
    with contextlib.suppress(OSError):
        answer = get(edge.http + "/health")
        assert (answer.status, answer.json()["status"]) == (503, "unhealthy"), answer.body
        return answer.json()["reason"]


def test_a_session_that_is_over_yields_no_more_tokens(keycloak):
    laptop, phone = keycloak.login("bob"), keycloak.login("bob")
    keycloak.logout(laptop)
    assert keycloak.refresh(laptop) is None
    phone = keycloak.refresh(phone)
    keycloak.logout_user("bob")
    assert keycloak.refresh(phone) is None


@contextlib.contextmanager
def logout_stack(keycloak, by_session, **more):
    """Two edges on one core; Keycloak tells the first one of logouts, and names the session only when it is told to."""
    settings = keycloak.settings(JWT_AUDIENCE="colink-api", KEYCLOAK_CLIENT_ID="colink-web", **more)
    with Stack(edges=2, edge_settings=settings) as stack:
        keycloak.change_client("colink-web", **{"backchannel.logout.url": stack.edges[0].http + "/backchannel-logout",
                                                "backchannel.logout.session.required": str(by_session).lower()})
        try:
            yield stack.edges
        finally:
            keycloak.change_client("colink-web", **{"backchannel.logout.url": ""})


async def closed_within_a_second(clients, *witnesses):
    """What the witnesses (Keycloak, edges) have logged lately is said when it does not happen: nobody repeats a logout."""
    started = asyncio.get_running_loop().time()
    for client in clients:
        try:
            assert (await client.await_closed(), client.socket.close_reason) == (4401, "logged out")
        except asyncio.TimeoutError:
            logs = "\n".join(f"--- {witness.name}\n{last_words(witness)}" for witness in witnesses)
            raise AssertionError(f"a client that is logged out is still there\n{logs}") from None
    assert asyncio.get_running_loop().time() - started < PATIENCE


def last_words(process, lines=12):
    """Without Keycloak's access log, which everybody's requests fill."""
    said = [line for line in process.log().splitlines() if "http.access-log" not in line]
    return "\n".join(said[-lines:])


def test_a_logout_at_keycloak_closes_the_sockets_of_that_session_on_every_edge(keycloak):
    laptop, phone, other = keycloak.login("alice"), keycloak.login("alice"), keycloak.login("bob")

    async def story(near, far):
        laptops, phones = [[await Client.open(edge, device["access_token"]) for edge in (near, far)] for device in (laptop, phone)]
        bob = await Client.open(far, other["access_token"])
        await asyncio.to_thread(keycloak.logout, laptop)
        await closed_within_a_second(laptops, keycloak, near, far)
        for client in (*phones, bob):
            await client.ping()
        # It stays out, with the token that is good by itself for minutes yet; nobody else does.
        for edge in (near, far):
            assert not await stays_open(edge, laptop["access_token"])
            assert await stays_open(edge, phone["access_token"])

        await asyncio.to_thread(keycloak.end_session, claims(phone["access_token"])["sid"])  # by an administrator
        await closed_within_a_second(phones, keycloak, near, far)
        await bob.ping()
        assert not await stays_open(far, phone["access_token"])
        assert await stays_open(far, await asyncio.to_thread(keycloak.token, "alice")), "a new session"
        await bob.close()
    with logout_stack(keycloak, by_session=True) as (near, far):
        run(story(near, far))


def test_a_logout_that_names_no_session_is_of_all_of_the_users(keycloak):
    """Keycloak says it once, under the name by which it was called when one of the sessions began: which one's is chance."""
    keycloak.logout_user("alice")  # what other tests have left, under whatever name
    other_url = keycloak.url.replace("127.0.0.1", "localhost")
    tokens = [keycloak.token("alice"), keycloak.token("alice", url=other_url)]
    other = keycloak.token("bob")

    async def story(near, far):
        devices = [await Client.open(edge, token) for edge in (near, far) for token in tokens]
        bob = await Client.open(far, other)
        await asyncio.to_thread(keycloak.logout_user, "alice")
        await closed_within_a_second(devices, keycloak, near, far)
        await bob.ping()
        for token in tokens:
            assert not await stays_open(near, token)
        await bob.close()
        assert near.log().count("INFO Logout of user") == 1, "told once"
    both = f"{keycloak.issuer},{other_url}/realms/colink"
    with logout_stack(keycloak, by_session=False, JWT_ISSUER=both) as (near, far):
        run(story(near, far))


async def stays_open(edge, token):
    """Whether a socket that opens with this token is left open: the core closes it when it has asked the store."""
    client = await Client.open(edge, token)
    try:
        await client.await_closed(1)
    except asyncio.TimeoutError:
        await client.ping()
        await client.close()
        return True
    assert (client.close_code, client.socket.close_reason) == (4401, "logged out")
    return False


# Backends: service accounts of the same realm, and the core's API.


@pytest.fixture(scope="module")
def stack(keycloak):
    settings = keycloak.settings(JWT_AUDIENCE="colink-api")
    with Stack(redis=False, core_settings={"API_AUTH": "jwt", **settings}, edge_settings=settings) as stack:
        # The core answers before it has the keys; the edge is not ready without.
        token = keycloak.token("alice")
        until(lambda: call(stack.cores[0], "GetPresence", WHO, token) != "Unavailable", what="the core has the keys")
        yield stack


def call(core, method, data, token=None):
    """The answer, or the name of the error's code."""
    command = [GRPCURL, "-plaintext", "-max-time", str(10 * PATIENCE), "-d", json.dumps(data)]
    if token is not None:
        command += ["-H", f"authorization: Bearer {token}"]
    done = subprocess.run([*command, core.api, f"presence.v1.PresenceService/{method}"], capture_output=True, text=True,
                          timeout=30 * PATIENCE)
    if done.returncode == 0:
        return json.loads(done.stdout)
    code = [line.split(":")[1].strip() for line in done.stderr.splitlines() if line.strip().startswith("Code:")]
    assert code, done.stderr
    return code[0]


def test_roles_of_service_accounts_decide_about_calls(keycloak, stack):
    core = stack.cores[0]
    reader, publisher, admin = (keycloak.service_token(f"presence-{name}") for name in ("reader", "publisher", "admin"))
    user = keycloak.token("alice")

    async def story():
        alice = await Client.open(stack.edges[0], user)
        await alice.subscribe(channel_id="channel_general")
        for token in (reader, publisher, admin):
            assert call(core, "GetPresence", WHO, token)["status"] == "STATUS_OFFLINE", "who may publish may read"
        assert call(core, "Broadcast", POST, reader) == "PermissionDenied"
        assert call(core, "Broadcast", POST, user) == "PermissionDenied", "users are no backends"
        assert call(core, "Broadcast", POST) == "Unauthenticated"
        for token in (publisher, admin):
            assert call(core, "Broadcast", POST, token)["reached_connections"] == 1
        await alice.await_seen(type="message", data={"content": "Hello"})
        await alice.ping()
        assert len(alice.seen(type="message")) == 2, "nothing of what was refused"
        await alice.close()
    run(story())


def test_a_backend_without_a_good_token_is_nobody(keycloak, stack):
    good = keycloak.service_token("presence-reader")
    keycloak.add_client("warehouse", publicClient=False, secret="warehouse", serviceAccountsEnabled=True)
    stranger = keycloak.grant(client_id="warehouse", client_secret="warehouse", grant_type="client_credentials")["access_token"]
    for token in (None, "nonsense", good[:-8] + "AAAAAAAA", stranger):
        assert call(stack.cores[0], "GetPresence", WHO, token) == "Unauthenticated"


def test_a_backend_goes_on_after_the_keys_have_rotated(keycloak, stack):
    core = stack.cores[0]
    before = keycloak.service_token("presence-reader")
    assert isinstance(call(core, "GetPresence", WHO, before), dict)
    keycloak.rotate_keys()
    after = keycloak.service_token("presence-reader")

    def admitted():
        answer = call(core, "GetPresence", WHO, after)
        assert answer == "Unavailable" or isinstance(answer, dict), f"the caller would throw a good token away: {answer}"
        return isinstance(answer, dict)
    until(admitted)
    assert isinstance(call(core, "GetPresence", WHO, before), dict)
