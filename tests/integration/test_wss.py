"""TLS on the edge's own port: versions and ciphers, new certificates, orderly ends, peers that misbehave, and our clients."""

import asyncio
import contextlib
import os
import pathlib
import signal
import socket
import ssl
import subprocess
import warnings

import pytest
import websockets

from certificates import Authority
from harness import BIN, PATIENCE, Client, Edge, Stack, get, run, until


class WssEdge(Edge):
    """`ws` and `http` lead there by TLS; the clients of the harness trust whom SSL_CERT_FILE names."""

    def __init__(self, *arguments, **settings):
        super().__init__(*arguments, **settings)
        self.http = f"https://127.0.0.1:{self.port}"
        self.ws = f"wss://127.0.0.1:{self.port}/ws"


@contextlib.contextmanager
def serving(directory, **settings):
    authority = Authority(directory, "authority")
    certificate, key = authority.sign("edge")
    before = os.environ.get("SSL_CERT_FILE")
    os.environ["SSL_CERT_FILE"] = authority.pem
    try:
        with Stack(edges=0) as stack:
            edge = stack.add(WssEdge(stack.directory.name, "edge0", stack.cores, stack.keys, EDGE_SHARDS="1",
                                     SERVICE_TLS_CERT=certificate, SERVICE_TLS_KEY=key, **settings))
            stack.edges.append(edge.await_ready())
            stack.authority = authority
            yield stack
    finally:
        os.environ.pop("SSL_CERT_FILE")
        if before is not None:
            os.environ["SSL_CERT_FILE"] = before


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("certificates"), SERVICE_HSTS_MAX_AGE="86400") as stack:
        yield stack


@pytest.fixture(scope="module")
def edge(stack):
    return stack.edges[0]


def context_of(stack, version=None, ciphers=None):
    context = ssl.create_default_context(cafile=stack.authority.pem)
    if ciphers:
        context.set_ciphers(ciphers)
    with warnings.catch_warnings():  # that 1.1 is deprecated is the point
        warnings.simplefilter("ignore", DeprecationWarning)
        if version:
            context.minimum_version = context.maximum_version = version
    return context


def shake_hands(edge, context):
    plain = socket.create_connection(("127.0.0.1", edge.port), timeout=10 * PATIENCE)
    try:
        return context.wrap_socket(plain, server_hostname="localhost", suppress_ragged_eofs=False)
    except BaseException:
        plain.close()
        raise


def test_versions_and_ciphers(stack, edge):
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        context = context_of(stack, version)
        context.set_alpn_protocols(["h2", "http/1.1"])
        with shake_hands(edge, context) as secure:
            assert secure.selected_alpn_protocol() == "http/1.1"
            assert secure.compression() is None
            assert "GCM" in secure.cipher()[0] or "CHACHA20" in secure.cipher()[0]
            assert version == ssl.TLSVersion.TLSv1_3 or secure.cipher()[0].startswith("ECDHE")
            assert secure.session is None or not secure.session.has_ticket
    for version, ciphers in ((ssl.TLSVersion.TLSv1, "ALL:@SECLEVEL=0"), (ssl.TLSVersion.TLSv1_1, "ALL:@SECLEVEL=0"),
                             (ssl.TLSVersion.TLSv1_2, "ECDHE+AES+SHA"), (ssl.TLSVersion.TLSv1_2, "kRSA")):
        with pytest.raises((ssl.SSLError, ConnectionError)):
            shake_hands(edge, context_of(stack, version, ciphers))


def test_messages_rest_and_headers(stack, edge):
    async def story():
        alice, bob = [await Client.open(edge, stack.token(user)) for user in ("alice", "bob")]
        await alice.subscribe(channel_id="secret")
        await bob.subscribe(channel_id="secret")
        await alice.send(type="typing", channel_id="secret", is_typing=True)
        await bob.expect(type="typing", user_id="alice")
        answer = get(edge.http + "/presence/alice")
        assert answer.json()["status"] == "online"
        headers = {name.lower(): value for name, value in answer.headers.items()}
        assert headers["strict-transport-security"] == "max-age=86400"
        assert headers["cache-control"] == "no-store"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
        assert headers["referrer-policy"] == "no-referrer"
        assert "server" not in headers
        assert edge.metric('presence_edge_tls_handshakes_total{outcome="completed"}') >= 3
        for client in (alice, bob):
            await client.close()
            assert client.close_code == 1000
    run(story())


def test_compression_is_not_taken_up(stack, edge):
    async def story():
        async with websockets.connect(edge.ws, extra_headers={"Authorization": f"Bearer {stack.token('alice')}"},
                                      compression="deflate") as client:
            assert client.extensions == []
            assert "sec-websocket-extensions" not in {name.lower() for name in client.response_headers}
    run(story())


def test_big_messages_to_a_crowd(stack, edge):
    async def story():
        clients = [await Client.open(edge, stack.token(f"crowd-{i % 10}")) for i in range(100)]
        for client in clients:
            await client.subscribe(channel_id="big")
        texts = ['{"room_id":"big","n":%d,"text":"%s"}' % (n, "x" * 100_000) for n in range(10)]
        for text in texts:
            stack.redis.client.publish("message:broadcast", text)
        for client in clients:
            for n in range(10):
                assert len((await client.expect(n=n))["text"]) == 100_000
        for client in clients:
            await client.close()
    run(story())


def test_http_to_the_port_is_told_so(edge):
    answer = get(f"http://127.0.0.1:{edge.port}/health")
    assert answer.status == 400 and "TLS" in answer.json()["error"]


def test_an_end_is_said(stack, edge):
    with shake_hands(edge, context_of(stack)) as secure:
        secure.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        received = b""
        while part := secure.recv(65536):  # an end without close_notify would raise
            received += part
        assert received.startswith(b"HTTP/1.1 200 OK\r\n")


def test_handshakes_that_do_not_go_on_keep_nobody_out(stack, edge):
    async def story():
        timeouts = edge.metric('presence_edge_timeouts_total{waiting_for="request"}')
        bystander = (await Client.open(edge, stack.token("bystander"))).keep_alive(5)
        stuck = []
        for i in range(600):
            stuck.append(socket.create_connection(("127.0.0.1", edge.port)))
            if i % 2:  # the head of a hello that never comes
                stuck[-1].sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
        for i in range(20):
            client = await Client.open(edge, stack.token(f"late-{i}"))
            await client.ping()
            await client.close()
        await bystander.ping()
        for each in stuck:
            each.settimeout(15 * PATIENCE)
            with contextlib.suppress(ConnectionResetError):
                assert await asyncio.to_thread(each.recv, 1) == b""
            each.close()
        assert edge.metric('presence_edge_timeouts_total{waiting_for="request"}') - timeouts == 600
        await bystander.ping()
        await bystander.close()
    run(story())


def certificate_of(edge):
    return ssl.get_server_certificate(("127.0.0.1", edge.port))


def test_new_certificates_while_clients_are_connected(tmp_path):
    with serving(tmp_path) as stack:
        edge = stack.edges[0]

        async def story():
            alice = (await Client.open(edge, stack.token("alice"))).keep_alive(5)
            before = certificate_of(edge)
            certificate, key = stack.authority.sign("edge")
            after = certificate_of(edge)
            assert after != before
            bob = await Client.open(edge, stack.token("bob"))
            await alice.ping()

            pathlib.Path(key).write_text("broken")
            assert [certificate_of(edge) for _ in range(5)] == [after] * 5
            await alice.ping()
            await bob.ping()
            until(lambda: edge.log().count("The former certificates stay in use: SERVICE_TLS_KEY") == 1)
            stack.authority.sign("edge")
            assert certificate_of(edge) not in (before, after)
            await alice.close()
            await bob.close()
        run(story())


def test_a_drained_edge_says_goodbye_inside_tls(tmp_path):
    with serving(tmp_path, EDGE_DRAIN_WINDOW="0") as stack:
        edge = stack.edges[0]

        async def story():
            clients = [await Client.open(edge, stack.token(f"user-{i}")) for i in range(50)]
            edge.kill(signal.SIGTERM)
            assert [await client.await_closed() for client in clients] == [1012] * 50
            assert all(client.seen(type="reconnect") for client in clients)
        run(story())


def cli(*arguments):
    return subprocess.run([str(BIN / "presence-cli"), *arguments], capture_output=True, text=True, timeout=60 * PATIENCE,
                          env={name: value for name, value in os.environ.items() if name != "SSL_CERT_FILE"})


def test_presence_cli_speaks_it(stack, edge):
    token = stack.token("tester")
    done = cli("auto", "--url", edge.ws, "--ca", stack.authority.pem, "--token", token)
    assert done.returncode == 0, done.stdout + done.stderr
    stranger = cli("auto", "--url", edge.ws, "--token", token)
    assert stranger.returncode == 1 and "certificate verify failed" in stranger.stdout + stranger.stderr
    plain = cli("auto", "--url", edge.ws.replace("wss:", "ws:"), "--token", token)
    assert plain.returncode == 1 and "TLS" in plain.stdout + plain.stderr


@pytest.mark.parametrize("settings, said", [
    ({"SERVICE_TLS_CERT": "edge.pem"}, "SERVICE_TLS_CERT and SERVICE_TLS_KEY belong together"),
    ({"SERVICE_TLS_CERT": "/nowhere/edge.pem", "SERVICE_TLS_KEY": "/nowhere/edge.key"}, "SERVICE_TLS_CERT (/nowhere/edge.pem)"),
    ({"SERVICE_HSTS_MAX_AGE": "60"}, "SERVICE_HSTS_MAX_AGE needs SERVICE_TLS_CERT"),
])
def test_wrong_settings_end_the_program(stack, settings, said):
    returned, output = start_of_edge(stack, **settings)
    assert returned != 0 and said in output


def start_of_edge(stack, **settings):
    done = subprocess.run([str(BIN / "presence-edge")], capture_output=True, text=True, timeout=60 * PATIENCE,
                          env={**os.environ, "JWKS_FILE": str(stack.keys.path), "SERVICE_PORT": "0", **settings})
    return done.returncode, done.stdout + done.stderr


def test_a_bad_certificate_is_reported_with_all_other_mistakes(stack):
    returned, output = start_of_edge(stack, SERVICE_TLS_CERT="/nowhere/edge.pem", SERVICE_TLS_KEY="/nowhere/edge.key",
                                     CORE_LINK_CA="/nowhere/ca.pem", LINK_SECRET="short", EDGE_SHARDS="many")
    assert returned == 2
    for what in ("SERVICE_TLS_CERT (/nowhere/edge.pem)", "CORE_LINK_CA (/nowhere/ca.pem)", "LINK_SECRET must hold", "EDGE_SHARDS=many"):
        assert what in output, output
