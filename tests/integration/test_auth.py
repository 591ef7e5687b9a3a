"""Who gets a socket, and what the others are told."""

import asyncio
import time

import jwt
import pytest
import websockets

from harness import Client, Stack, get, run, until


@pytest.fixture(scope="module")
def stack():
    with Stack(redis=False, edge_settings={"JWT_ISSUER": "https://issuer/realms/r", "JWT_AUDIENCE": "chat",
                                           "ALLOWED_ORIGINS": "https://app.example"}) as stack:
        yield stack


GOOD = {"iss": "https://issuer/realms/r", "aud": "chat"}


async def status_of(stack, token, **arguments):
    try:
        client = await Client.open(stack.edges[0], token, **arguments)
    except websockets.InvalidStatusCode as refused:
        return refused.status_code
    await client.close()
    return 101


@pytest.mark.parametrize("algorithm", ["RS256", "ES256"])
def test_a_good_token_opens_in_each_of_three_ways(stack, algorithm):
    token = stack.token("alice", algorithm=algorithm, **GOOD)

    async def story():
        for arguments in ({}, {"in_url": False, "headers": {"Authorization": f"Bearer {token}"}},
                          {"in_url": False, "subprotocols": ["presence.v1", f"bearer.{token}"]}):
            client = await Client.open(stack.edges[0], token, **arguments)
            await client.expect(type="pong")
            if "subprotocols" in arguments:
                assert client.socket.subprotocol == "presence.v1"
            await client.close()
    run(story())


def bad_tokens(stack):
    now = int(time.time())
    body = {"sub": "mallory", "preferred_username": "m", "exp": now + 600, **GOOD}
    return {
        "none at all": None,
        "no token": "nonsense",
        "expired": stack.token("m", expires_in=-60, **GOOD),
        "not yet": stack.token("m", nbf=now + 300, **GOOD),
        "another issuer": stack.token("m", iss="https://evil", aud="chat"),
        "another audience": stack.token("m", iss=GOOD["iss"], aud="shop"),
        "no sub": stack.token("m", sub=None, **GOOD),
        "no name": stack.token("m", preferred_username=None, **GOOD),
        "no exp": stack.token("m", exp=None, **GOOD),
        "alg none": jwt.encode(body, None, algorithm="none", headers={"kid": "rsa-1"}),
        "HS256 with our modulus as secret": jwt.encode(body, "x" * 64, algorithm="HS256", headers={"kid": "rsa-1"}),
        "ES256 under the RSA key's name": jwt.encode(body, stack.keys.ec_private, algorithm="ES256", headers={"kid": "rsa-1"}),
        "signature cut": stack.token("m", **GOOD)[:-4],
        "signature with garbage": stack.token("m", **GOOD) + "!!!!",
    }


def test_bad_tokens_get_401(stack):
    async def story():
        for name, token in bad_tokens(stack).items():
            assert await status_of(stack, token) == 401, name
        assert await status_of(stack, stack.token("m", expires_in=-10, **GOOD)) == 101, "30 s leeway"
    run(story())


def test_a_browser_is_upgraded_and_closed_with_a_reason(stack):
    async def story():
        for token, reason in ((None, "token missing"), ("x.y.z", "token invalid"),
                              (stack.token("m", expires_in=-60, **GOOD), "token expired")):
            client = await Client.open(stack.edges[0], token, headers={"Origin": "https://app.example"})
            assert await client.await_closed() == 1008
            assert client.socket.close_reason == reason
            assert client.frames == [], "no frame before the close"
    run(story())


def test_origins(stack):
    token = stack.token("alice", **GOOD)

    async def story():
        for origin, status in (("https://app.example", 101), ("https://evil.example", 403), ("null", 403),
                               (f"http://127.0.0.1:{stack.edges[0].port}", 101)):
            assert await status_of(stack, token, headers={"Origin": origin}) == status, origin
    run(story())


def test_no_token_reaches_the_log(stack):
    good, bad = stack.token("alice", **GOOD), stack.token("bob", iss="https://evil", aud="chat")
    run(status_of(stack, good))
    run(status_of(stack, bad))
    log = until(lambda: "refused" in stack.edges[0].log() and stack.edges[0].log())
    for token in (good, bad):
        for part in token.split("."):
            assert part not in log
    assert "[redacted]" in log


def test_rest_with_bearer():
    with Stack(redis=False, edge_settings={"REST_AUTH": "bearer"}) as stack:
        url = stack.edges[0].http
        assert get(url + "/presence").status == 401
        assert get(url + "/presence/alice").status == 401
        assert get(url + "/health").status == 200
        bearer = {"Authorization": "Bearer " + stack.token("service")}
        assert get(url + "/presence", headers=bearer).json() == {"users": [], "count": 0}


def test_a_new_key_is_found_without_a_restart():
    with Stack(redis=False) as stack:
        from harness import Keys
        import tempfile
        with tempfile.TemporaryDirectory() as other:
            new = Keys(other)
            assert run(status_of(stack, new.token("alice"))) == 401
            stack.keys.path.write_text(new.path.read_text())
            until(lambda: run(status_of(stack, new.token("alice"))) == 101, what="the new key is known")
