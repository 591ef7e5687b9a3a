"""Who may call the API and attach to the link: tokens and roles, certificates, the secret, and what is open."""

import base64
import contextlib
import json
import os
import shutil
import socket
import ssl
import subprocess
import tempfile
import time
import warnings

import grpc
import pytest

from certificates import Authority
from harness import BIN, PATIENCE, ROOT, Core, Edge, Keys, Stack, free_port, get, until

GRPCURL = shutil.which("grpcurl") or str(ROOT / "build/tools/grpcurl")
API, LINK, HEALTH = "presence.v1.PresenceService", "presence.link.v1.Link", "grpc.health.v1.Health/Check"
WHO = {"user_id": "alice"}
NEWS = {"room_id": "general", "data_json": '{"content":"Hello"}'}
SECRET = "a secret of edges and cores"


def call(address, method, data=None, token=None, tls=("-plaintext",), headers=(), proto=None):
    """The answer, or "Code: message" of the error."""
    # A refused handshake is tried again until the time to connect is up.
    command = [GRPCURL, *tls, "-connect-timeout", str(2 * PATIENCE), "-max-time", str(10 * PATIENCE), "-d", json.dumps(data or {})]
    if proto:
        command += ["-import-path", str(ROOT / "proto"), "-proto", proto]
    for header in [*headers, *([f"authorization: Bearer {token}"] if token else [])]:
        command += ["-H", header]
    done = subprocess.run([*command, address, method], capture_output=True, text=True, timeout=30 * PATIENCE)
    if done.returncode == 0:
        return json.loads(done.stdout)
    lines = [line.split(":", 1)[1].strip() for line in done.stderr.splitlines() if line.strip().startswith(("Code:", "Message:"))]
    return ": ".join(lines) or done.stderr


def look_up(address, **how):
    return call(address, f"{LINK}/LookUpPresence", WHO, proto="presence/link/v1/link.proto", **how)


@contextlib.contextmanager
def started(*makers):
    """Processes of a test, in a folder of their own."""
    processes = []
    with tempfile.TemporaryDirectory(prefix="presence-") as directory:
        try:
            yield [processes.append(made := make(directory, processes)) or made for make in makers]
        except BaseException:
            for process in processes:
                print(f"----- {process.name}\n{process.log()[-4000:]}")
            raise
        finally:
            for process in reversed(processes):
                process.stop()


def core_with(**settings):
    # Without the metrics page: it takes a core two seconds to close that one.
    return lambda directory, _: Core(directory, "core", "memory:", **{"METRICS_LISTEN": "off", **settings}).await_ready()


def edge_with(keys, **settings):
    """An edge of the first core; whether it gets ready is the test's question."""
    return lambda directory, processes: Edge(directory, "edge", processes[:1], keys, EDGE_SHARDS="1", **settings)


def refused_start(**settings):
    """What the core says when it does not start."""
    environment = {"REDIS_URL": "memory:", "METRICS_LISTEN": "off", "API_LISTEN": "127.0.0.1:0", "LINK_LISTEN": "127.0.0.1:0"}
    done = subprocess.run([BIN / "presence-core"], env={**os.environ, **environment, **settings}, capture_output=True, text=True,
                          timeout=20 * PATIENCE)
    assert done.returncode != 0
    return done.stderr + done.stdout


@pytest.fixture(scope="module")
def folder():
    with tempfile.TemporaryDirectory(prefix="presence-") as directory:
        yield directory


@pytest.fixture(scope="module")
def keys(folder):
    return Keys(folder)


@pytest.fixture(scope="module")
def core(folder, keys):
    core = Core(folder, "core-with-tokens", "memory:", JWKS_FILE=str(keys.path), JWT_ISSUER="https://issuer.test",
                KEYCLOAK_CLIENT_ID="presence-api").await_ready()
    yield core
    core.stop()


def service_token(keys, *roles, **claims):
    """What client credentials get from Keycloak."""
    body = {"iss": "https://issuer.test", "azp": "orders", "aud": ["presence-api"], "realm_access": {"roles": list(roles)}}
    return keys.token("7f3c-service", name="service-account-orders", **{**body, **claims})


# Tokens and roles.


@pytest.mark.parametrize("role, may_read, may_publish", [
    ("presence-read", True, False), ("presence-publish", True, True), ("presence-admin", True, True), ("offline_access", False, False)])
def test_each_role_allows_its_calls(core, keys, role, may_read, may_publish):
    token = service_token(keys, role)
    for method, data, may, needs in (("GetPresence", WHO, may_read, "presence-read"),
                                     ("ListPresence", {}, may_read, "presence-read"),
                                     ("Broadcast", NEWS, may_publish, "presence-publish")):
        answer = call(core.api, f"{API}/{method}", data, token)
        if may:
            assert isinstance(answer, dict), answer
        else:
            assert answer == f"PermissionDenied: the token lacks the role {needs}"


def test_roles_of_the_apis_client_count_and_those_of_others_do_not(core, keys):
    own = service_token(keys, resource_access={"presence-api": {"roles": ["presence-publish"]}})
    assert isinstance(call(core.api, f"{API}/Broadcast", NEWS, own), dict)
    others = service_token(keys, resource_access={"orders": {"roles": ["presence-admin"]}})
    assert call(core.api, f"{API}/GetPresence", WHO, others).startswith("PermissionDenied")


def test_a_token_that_is_not_good_is_unauthenticated(core, keys, folder):
    foreign = os.path.join(folder, "foreign")
    os.makedirs(foreign, exist_ok=True)
    tokens = {"a bearer token is required": None,
              "exp has passed": service_token(keys, "presence-admin", expires_in=-60),
              "iss is not accepted": service_token(keys, "presence-admin", iss="https://elsewhere.test"),
              "neither azp nor aud": service_token(keys, "presence-admin", aud=["account"]),
              "signature is wrong": service_token(Keys(foreign), "presence-admin"),
              "not three parts": "garbage-of-a-token"}
    for why, token in tokens.items():
        for method, data in (("GetPresence", WHO), ("Broadcast", NEWS)):
            answer = call(core.api, f"{API}/{method}", data, token)
            assert answer.startswith("Unauthenticated") and why in answer
            assert token is None or token[:12] not in answer
    log = core.log()
    assert "An API call from" in log and "exp has passed" in log
    for token in filter(None, tokens.values()):
        assert token[-20:] not in log


def test_health_and_reflection_need_no_token(core):
    assert call(core.api, HEALTH) == {"status": "SERVING"}
    listed = subprocess.run([GRPCURL, "-plaintext", core.api, "list"], capture_output=True, text=True, timeout=30 * PATIENCE)
    assert API in listed.stdout.split()


def test_until_there_are_keys_callers_try_again(folder, keys):
    path = os.path.join(folder, "late.json")
    with open(path, "w") as file:
        file.write('{"keys":[]}')
    with started(core_with(JWKS_FILE=path)) as [core]:
        token = service_token(keys, "presence-read")
        assert call(core.api, f"{API}/GetPresence", WHO, token).startswith("Unavailable: there are no keys")
        shutil.copy(keys.path, path)
        until(lambda: isinstance(call(core.api, f"{API}/GetPresence", WHO, token), dict), what="the keys are taken")


def test_a_token_of_a_new_key_is_good_soon(folder):
    place = os.path.join(folder, "rotated")
    os.makedirs(place, exist_ok=True)
    old = Keys(place)
    with started(core_with(JWKS_FILE=str(old.path))) as [core]:
        until(lambda: isinstance(call(core.api, f"{API}/GetPresence", WHO, service_token(old, "presence-read")), dict))
        entries = json.loads(old.path.read_text())["keys"]
        entries[1]["kid"] = "not-known-to-the-token"
        old.path.write_text(json.dumps({"keys": entries}))
        token = service_token(old, "presence-read", algorithm="ES256")
        until(lambda: not isinstance(call(core.api, f"{API}/GetPresence", WHO, token), dict), what="the key is withdrawn")
        entries[1]["kid"] = "ec-1"
        old.path.write_text(json.dumps({"keys": entries}))
        until(lambda: isinstance(call(core.api, f"{API}/GetPresence", WHO, token), dict), what="the key is back")


# TLS.


class Certificates:
    def __init__(self, directory):
        self.authority, self.other = Authority(directory, "authority"), Authority(directory, "other-authority")
        self.clients = Authority(directory, "authority-of-clients")
        self.server = self.authority.sign("server")
        self.client = self.clients.sign("client")
        self.stranger = self.other.sign("stranger")

    def trust(self, authority, own=None):
        return ["-cacert", authority.pem, *(["-cert", own[0], "-key", own[1]] if own else [])]

    def server_settings(self, prefix, client_ca=None):
        return {f"{prefix}_TLS_CERT": self.server[0], f"{prefix}_TLS_KEY": self.server[1],
                **({f"{prefix}_TLS_CLIENT_CA": client_ca.pem} if client_ca else {})}


@pytest.fixture
def certificates(tmp_path):
    return Certificates(tmp_path)


def shown_certificate(address):
    host, port = address.rsplit(":", 1)
    return ssl.get_server_certificate((host, int(port)))


def test_the_api_with_tls(certificates):
    with started(core_with(**certificates.server_settings("API"))) as [core]:
        assert isinstance(call(core.api, f"{API}/GetPresence", WHO, tls=certificates.trust(certificates.authority)), dict)
        for wrong in (certificates.trust(certificates.other), ["-plaintext"]):
            assert not isinstance(call(core.api, f"{API}/GetPresence", WHO, tls=wrong), dict)


def test_tls_and_tokens_together(certificates, keys):
    with started(core_with(JWKS_FILE=str(keys.path), **certificates.server_settings("API"))) as [core]:
        tls = certificates.trust(certificates.authority)
        until(lambda: isinstance(call(core.api, f"{API}/GetPresence", WHO, service_token(keys, "presence-read"), tls=tls), dict))
        assert call(core.api, f"{API}/GetPresence", WHO, tls=tls).startswith("Unauthenticated")


def test_the_api_with_mutual_tls(certificates):
    with started(core_with(**certificates.server_settings("API", client_ca=certificates.clients))) as [core]:
        trusted = lambda own: certificates.trust(certificates.authority, own)
        assert isinstance(call(core.api, f"{API}/Broadcast", NEWS, tls=trusted(certificates.client)), dict)
        for own in (None, certificates.stranger):
            assert not isinstance(call(core.api, f"{API}/GetPresence", WHO, tls=trusted(own)), dict)


def test_new_certificates_without_a_restart(certificates):
    with started(core_with(**certificates.server_settings("API"))) as [core]:
        with open(certificates.authority.pem, "rb") as file:
            credentials = grpc.ssl_channel_credentials(file.read())
        with grpc.secure_channel(core.api, credentials) as channel:
            check = channel.unary_unary(f"/{HEALTH}")
            check(b"", timeout=10 * PATIENCE)
            before = shown_certificate(core.api)

            replaced = certificates.other.sign("server")  # the same two files
            assert replaced == certificates.server
            assert shown_certificate(core.api) != before
            assert isinstance(call(core.api, f"{API}/GetPresence", WHO, tls=certificates.trust(certificates.other)), dict)
            check(b"", timeout=10 * PATIENCE)  # the old connection goes on

        with open(replaced[0], "w") as file:
            file.write("cut off")
        assert isinstance(call(core.api, f"{API}/GetPresence", WHO, tls=certificates.trust(certificates.other)), dict)
        until(lambda: "The former certificates stay in use: API_TLS_CERT" in core.log())


def test_old_versions_of_tls_are_refused(certificates):
    with started(core_with(**certificates.server_settings("API"))) as [core]:
        host, port = core.api.rsplit(":", 1)
        for version, good in ((ssl.TLSVersion.TLSv1_1, False), (ssl.TLSVersion.TLSv1_2, True), (ssl.TLSVersion.TLSv1_3, True)):
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            context.set_ciphers("ALL:@SECLEVEL=0")
            context.set_alpn_protocols(["h2"])
            with warnings.catch_warnings():  # that 1.1 is deprecated is the point
                warnings.simplefilter("ignore", DeprecationWarning)
                context.minimum_version = context.maximum_version = version
            with socket.create_connection((host, int(port)), timeout=10 * PATIENCE) as plain:
                if good:
                    context.wrap_socket(plain).close()
                else:
                    with pytest.raises((ssl.SSLError, ConnectionError)):
                        context.wrap_socket(plain)


# The link.


def shows(secret):
    return ["presence-secret-bin: " + base64.b64encode(secret.encode()).decode()]


def test_an_edge_with_the_secret_is_let_in(keys):
    with started(core_with(LINK_SECRET=SECRET), edge_with(keys, LINK_SECRET=SECRET)) as [core, edge]:
        edge.await_ready()
        assert get(edge.http + "/presence/alice").status == 200, "the unary calls of REST show it, too"
        for name, log in (("core", core.log()), ("edge", edge.log())):
            assert SECRET not in log, name


@pytest.mark.parametrize("secret, why", [("another secret of edges", "wrong link secret"), (None, "no link secret: set LINK_SECRET")])
def test_an_edge_without_the_secret_is_not(keys, secret, why):
    settings = {"LINK_SECRET": secret} if secret else {}
    with started(core_with(LINK_SECRET=SECRET), edge_with(keys, **settings)) as [core, edge]:
        until(lambda: "is refused by its core: " + why in edge.log())
        until(lambda: "was refused: " + why in core.log())
        assert get(edge.http + "/health").status == 503
        for log in (core.log(), edge.log()):
            assert SECRET not in log and "another secret" not in log
        # It goes on trying, several times a second, and does not fill the logs.
        began = time.monotonic()
        until(lambda: time.monotonic() - began > 3, seconds=5)
        for log in (core.log(), edge.log()):
            assert log.count(why) <= 3 + 2 + 3 * PATIENCE + (time.monotonic() - began)


def test_the_links_reads_need_the_secret_as_well():
    with started(core_with(LINK_SECRET=SECRET)) as [core]:
        assert isinstance(look_up(core.link, headers=shows(SECRET)), dict)
        assert look_up(core.link, headers=shows(SECRET + "x")).startswith("Unauthenticated: wrong link secret")
        assert look_up(core.link).startswith("Unauthenticated: no link secret")
        listing = dict(data={"limit": 10}, proto="presence/link/v1/link.proto")
        assert call(core.link, f"{LINK}/ListPresence", **listing).startswith("Unauthenticated")
        assert isinstance(call(core.link, f"{LINK}/ListPresence", headers=shows(SECRET), **listing), dict)


def test_the_secret_may_come_from_a_file(keys, tmp_path):
    path = tmp_path / "secret"
    path.write_text(SECRET + "\n")
    with started(core_with(LINK_SECRET_FILE=str(path)), edge_with(keys, LINK_SECRET=SECRET)) as [_, edge]:
        edge.await_ready()


def test_the_link_with_mutual_tls(keys, certificates):
    tls = certificates.server_settings("LINK", client_ca=certificates.clients)
    good = {"CORE_LINK_CA": certificates.authority.pem, "CORE_LINK_CERT": certificates.client[0],
            "CORE_LINK_KEY": certificates.client[1]}
    with started(core_with(**tls), edge_with(keys, **good)) as [core, edge]:
        edge.await_ready()
        assert get(edge.http + "/presence/alice").status == 200
        assert isinstance(look_up(core.link, tls=certificates.trust(certificates.authority, certificates.client)), dict)
        for own in (None, certificates.stranger):
            assert not isinstance(look_up(core.link, tls=certificates.trust(certificates.authority, own)), dict)


@pytest.mark.parametrize("wrong", ["no certificate", "a stranger's certificate", "another authority", "no TLS", "another name"])
def test_an_edge_that_mutual_tls_keeps_out(keys, certificates, wrong):
    settings = {"CORE_LINK_CA": certificates.authority.pem, "CORE_LINK_CERT": certificates.client[0],
                "CORE_LINK_KEY": certificates.client[1]}
    changes = {"no certificate": {"CORE_LINK_CERT": "", "CORE_LINK_KEY": ""},
               "a stranger's certificate": {"CORE_LINK_CERT": certificates.stranger[0], "CORE_LINK_KEY": certificates.stranger[1]},
               "another authority": {"CORE_LINK_CA": certificates.other.pem},
               "no TLS": dict.fromkeys(settings, ""),
               "another name": {"CORE_LINK_SERVER_NAME": "elsewhere.test"}}
    tls = certificates.server_settings("LINK", client_ca=certificates.clients)
    with started(core_with(**tls), edge_with(keys, **{**settings, **changes[wrong]})) as [_, edge]:
        until(lambda: "finds no core at CORE_LINK" in edge.log())
        assert get(edge.http + "/health").status == 503


def test_an_edge_gets_a_new_certificate_without_a_restart(keys, certificates):
    tls = certificates.server_settings("LINK", client_ca=certificates.clients)
    own = certificates.other.sign("edge")  # not yet of the right authority
    settings = {"CORE_LINK_CA": certificates.authority.pem, "CORE_LINK_CERT": own[0], "CORE_LINK_KEY": own[1],
                "CORE_LINK_SERVER_NAME": "localhost"}
    with started(core_with(**tls), edge_with(keys, **settings)) as [_, edge]:
        until(lambda: "finds no core at CORE_LINK" in edge.log())
        certificates.clients.sign("edge")
        edge.await_ready()


def test_certificate_and_secret_together(keys, certificates):
    tls = certificates.server_settings("LINK", client_ca=certificates.clients)
    with started(core_with(LINK_SECRET=SECRET, **tls)) as [core]:
        shown = certificates.trust(certificates.authority, certificates.client)
        assert isinstance(look_up(core.link, tls=shown, headers=shows(SECRET)), dict)
        assert look_up(core.link, tls=shown).startswith("Unauthenticated: no link secret")


# What is open, and what does not start.


def test_beyond_loopback_nothing_is_open_by_mistake():
    said = refused_start(API_LISTEN="0.0.0.0:0", LINK_LISTEN="0.0.0.0:0")
    assert "API_LISTEN is not a loopback address" in said and "API_AUTH=open" in said and "KEYCLOAK_URL" in said
    assert "LINK_LISTEN is not a loopback address" in said and "LINK_AUTH=open" in said and "LINK_SECRET" in said


def test_beyond_loopback_it_is_open_when_asked_for_by_name():
    listen = lambda: f"0.0.0.0:{free_port()}"
    with started(core_with(API_LISTEN=listen(), LINK_LISTEN=listen(), API_AUTH="open", LINK_AUTH="open")) as [core]:
        assert "API_AUTH=open: whoever reaches" in core.log() and "LINK_AUTH=open: whoever reaches" in core.log()


def test_a_secret_or_token_without_tls_beyond_loopback_is_warned_about_once(keys):
    listen = lambda: f"0.0.0.0:{free_port()}"
    with started(core_with(API_LISTEN=listen(), LINK_LISTEN=listen(), JWKS_FILE=str(keys.path), LINK_SECRET=SECRET)) as [core]:
        assert core.log().count("LINK_SECRET comes to LINK_LISTEN without TLS") == 1
        assert core.log().count("Bearer tokens come to API_LISTEN without TLS") == 1


def test_files_and_secrets_that_cannot_be_used_are_named(certificates, tmp_path):
    assert "LINK_SECRET must hold 16 to" in refused_start(LINK_SECRET="too short")
    assert "too short" not in refused_start(LINK_SECRET="too short")
    paths = {"API_TLS_CERT": certificates.server[0], "API_TLS_KEY": certificates.server[1]}
    assert "API_TLS_CERT" in (said := refused_start(**{**paths, "API_TLS_CERT": str(tmp_path / "nowhere")})) and "is not a file" in said
    assert "is not the key of API_TLS_CERT" in refused_start(**{**paths, "API_TLS_KEY": certificates.client[1]})
    assert "belong together" in refused_start(API_TLS_CERT=certificates.server[0])
    # All of them at once.
    nowhere = {f"{prefix}_{part}": str(tmp_path / "nowhere") for prefix in ("API_TLS", "LINK_TLS", "ROOM_AUTHORIZER")
               for part in ("CERT", "KEY")}
    said = refused_start(**nowhere, LINK_SECRET="too short", ROOM_AUTH="grpc", ROOM_AUTHORIZER="127.0.0.1:1", WS_TYPING_TTL="soon")
    for what in ("API_TLS_CERT (", "LINK_TLS_CERT (", "ROOM_AUTHORIZER_CERT (", "LINK_SECRET must", "WS_TYPING_TTL=soon"):
        assert what in said, said


def test_the_link_shows_no_reflection_and_the_api_only_when_told_so():
    with started(core_with()) as [core]:
        assert isinstance(look_up(core.link), dict)
        assert "does not support the reflection API" in call(core.link, f"{LINK}/LookUpPresence", WHO)
    with started(core_with(GRPC_REFLECTION="off")) as [core]:
        assert "does not support the reflection API" in call(core.api, f"{API}/GetPresence", WHO)
        assert isinstance(call(core.api, f"{API}/GetPresence", WHO, proto="presence/v1/presence.proto"), dict)


def test_channelz_when_asked_for_and_never_beside_tokens(keys):
    with started(core_with(GRPC_CHANNELZ="on")) as [core]:
        servers = call(core.api, "grpc.channelz.v1.Channelz/GetServers")
        assert len(servers["server"]) == 2, "the API's and the link's"
    with started(core_with()) as [core]:
        assert not isinstance(call(core.api, "grpc.channelz.v1.Channelz/GetServers"), dict)
    assert "channelz cannot ask for a role" in refused_start(GRPC_CHANNELZ="on", JWKS_FILE=str(keys.path))
