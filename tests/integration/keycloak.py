"""A real Keycloak with the realm of compose/keycloak, for the tests that need one.

    with Keycloak() as keycloak:
        Stack(edge_settings=keycloak.settings(), ...)
        keycloak.token("alice"), keycloak.service_token("presence-reader"), keycloak.rotate_keys() ...

`scripts/fetch-keycloak` puts the server into build/tools/keycloak. Each Keycloak has its own folder, database and port, and
knows nothing of others. Bringing up an empty database takes three times as long as starting on a full one, so the first start for
a realm file leaves its database beside the server, and all others begin with a copy of it: with the realm's keys in it, too.

It speaks plain HTTP on the loopback address, and has no cluster, no management port and no telemetry.
"""

import contextlib
import hashlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import urllib.error
import urllib.parse
import urllib.request

from harness import PATIENCE, ROOT, Process, free_port, get, until

SERVER = ROOT / "build/tools/keycloak"
REALM_FILE = ROOT / "compose/keycloak/colink-realm.json"
REALM = "colink"
PASSWORD = "password123"  # of alice and bob, in the realm file

# How this Keycloak's administrator is called. Not in the realm: in Keycloak's own, called master.
ADMIN, ADMIN_SECRET = "integration-tests", "integration-tests"

# Short-lived: the quick compiler alone and the plainest collector bring it up sooner. The rest is what bin/kc.sh says.
JAVA = ["-Xms64m", "-Xmx512m", "-XX:MaxMetaspaceSize=256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
        "-XX:+ExitOnOutOfMemoryError", "-Dfile.encoding=UTF-8",
        "-Djava.util.concurrent.ForkJoinPool.common.threadFactory=io.quarkus.bootstrap.forkjoin.QuarkusForkJoinWorkerThreadFactory",
        "--add-opens=java.base/java.util=ALL-UNNAMED", "--add-opens=java.base/java.util.concurrent=ALL-UNNAMED",
        "--add-opens=java.base/java.security=ALL-UNNAMED"]

DATABASE = "data/h2/keycloakdb.mv.db"


class Keycloak(Process):
    """Started and ready after construction. `stop` and `start_ready` switch it off and on; database, port and keys stay."""

    def __init__(self):
        check_installation()
        prepared = prepared_database()
        self.folder = tempfile.TemporaryDirectory(prefix="keycloak-")
        self.home = make_home(self.folder.name)
        (self.home / DATABASE).parent.mkdir(parents=True)
        shutil.copyfile(prepared, self.home / DATABASE)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        super().__init__("keycloak", command(self.home, self.port), self.folder.name, environment())
        with self.cleaning_up():
            self.await_ready()

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind is not None:
            print(f"----- {self.name}\n{self.log()[-6000:]}")
        try:
            self.stop()
        finally:
            self.folder.cleanup()

    @contextlib.contextmanager
    def cleaning_up(self):
        try:
            yield
        except BaseException:
            self.process.kill()
            self.process.wait()
            self.folder.cleanup()
            raise

    def await_ready(self):
        await_realm(self)
        return self

    def start_ready(self):
        self.start()
        return self.await_ready()

    @property
    def issuer(self):
        return f"{self.url}/realms/{REALM}"

    def settings(self, **more):
        """For an edge or a core that verifies this realm's tokens."""
        return {"KEYCLOAK_URL": self.url, "KEYCLOAK_REALM": REALM, "JWKS_FILE": "", **more}

    # Tokens. What is returned as a whole has access_token, refresh_token, expires_in, ...

    def login(self, user, client="colink-web", url=None):
        return self.grant(url, client_id=client, grant_type="password", username=user, password=PASSWORD)

    def token(self, user, **arguments):
        return self.login(user, **arguments)["access_token"]

    def service_token(self, client):
        """The token of a service account: of presence-reader, presence-publisher or presence-admin."""
        return self.grant(client_id=client, client_secret=f"{client}-development-secret",
                          grant_type="client_credentials")["access_token"]

    def refresh(self, tokens, client="colink-web"):
        """The tokens that follow these; None when the session is over."""
        try:
            return self.grant(client_id=client, grant_type="refresh_token", refresh_token=tokens["refresh_token"])
        except Refused as refused:
            if refused.error == "invalid_grant":
                return None
            raise

    def logout(self, tokens, client="colink-web"):
        """Ends the session of these tokens, as the frontend's logout button does."""
        post_form(f"{self.issuer}/protocol/openid-connect/logout", client_id=client, refresh_token=tokens["refresh_token"])

    def grant(self, url=None, realm=REALM, **form):
        return json.loads(post_form(f"{url or self.url}/realms/{realm}/protocol/openid-connect/token", **form))

    def key_fetches(self):
        """How often anybody has asked for the realm's keys."""
        return self.log().count("/protocol/openid-connect/certs")

    # Administration.

    def rotate_keys(self):
        """A new key signs from now on; those before it stay published. Returns the new key's id."""
        generated = self.key_providers()
        priority = 1 + max(int(p["config"].get("priority", ["0"])[0]) for p in generated)
        before = self.active_key()
        self.admin("POST", "/components", {
            "name": f"rsa-{priority}", "providerId": "rsa-generated", "providerType": "org.keycloak.keys.KeyProvider",
            "config": {"priority": [str(priority)], "enabled": ["true"], "active": ["true"], "algorithm": ["RS256"],
                       "keySize": ["2048"]}})
        after = self.active_key()
        assert after != before, "the realm signs with a new key"
        return after

    def retire_keys(self):
        """Only the newest key stays published: what the others have signed is worth nothing any more."""
        providers = sorted(self.key_providers(), key=lambda p: int(p["config"].get("priority", ["0"])[0]))
        for provider in providers[:-1]:
            provider["config"].update(enabled=["false"], active=["false"])
            self.admin("PUT", f"/components/{provider['id']}", provider)

    def active_key(self, algorithm="RS256"):
        return self.admin("GET", "/keys")["active"].get(algorithm)

    def key_providers(self):
        components = self.admin("GET", "/components?type=org.keycloak.keys.KeyProvider")
        return [c for c in components if c["providerId"] == "rsa-generated" and "RS256" in c["config"].get("algorithm", ["RS256"])]

    @contextlib.contextmanager
    def another_key(self, provider, **config):
        """A key of another kind beside the realm's own, as long as the block lasts."""
        name = f"another-{provider}"
        self.admin("POST", "/components", {
            "name": name, "providerId": provider, "providerType": "org.keycloak.keys.KeyProvider",
            "config": {"priority": ["50"], "enabled": ["true"], "active": ["true"], **{k: [v] for k, v in config.items()}}})
        try:
            yield
        finally:
            for component in self.admin("GET", "/components?type=org.keycloak.keys.KeyProvider"):
                if component["name"] == name:
                    self.admin("DELETE", f"/components/{component['id']}")

    def end_session(self, session_id):
        """Ends one session, as an administrator does."""
        self.admin("DELETE", f"/sessions/{session_id}")

    def logout_user(self, user):
        """Ends all sessions of a user, as an administrator does. Each client is told once, not once for each session: by a token with the
        issuer of the session whose id is the first. Nothing is said again when that is refused."""
        found = self.admin("GET", "/users?" + urllib.parse.urlencode({"username": user, "exact": "true"}))
        self.admin("POST", f"/users/{found[0]['id']}/logout")

    def add_client(self, client_id, **settings):
        """A public client where users may log in with their passwords."""
        self.admin("POST", "/clients", {"clientId": client_id, "enabled": True, "publicClient": True,
                                        "directAccessGrantsEnabled": True, **settings})

    def change_client(self, client_id, **attributes):
        """Sets attributes of a client that is there; "" takes one away."""
        client = self.admin("GET", "/clients?" + urllib.parse.urlencode({"clientId": client_id}))[0]
        client["attributes"].update(attributes)
        self.admin("PUT", f"/clients/{client['id']}", client)

    def admin_token(self):
        """Of this Keycloak's administrator; to the realm colink it is a stranger's."""
        return self.grant(realm="master", client_id=ADMIN, client_secret=ADMIN_SECRET,
                          grant_type="client_credentials")["access_token"]

    def admin(self, method, path, body=None):
        """A call of the admin REST API; `path` follows /admin/realms/colink."""
        headers = {"Authorization": f"Bearer {self.admin_token()}", "Content-Type": "application/json"}
        text = send(method, f"{self.url}/admin/realms/{REALM}{path}", headers, None if body is None else json.dumps(body))
        return json.loads(text) if text else None


class Refused(AssertionError):
    """Keycloak answered with an error."""

    def __init__(self, what, status, body):
        super().__init__(f"{what}: {status} {body[:500]}")
        self.status = status
        with contextlib.suppress(ValueError, AttributeError):
            self.error = json.loads(body).get("error")
            return
        self.error = None


def send(method, url, headers, body):
    request = urllib.request.Request(url, method=method, headers=headers, data=None if body is None else body.encode())
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=20 * PATIENCE) as response:
            return response.read().decode()
    except urllib.error.HTTPError as error:
        raise Refused(f"{method} {url}", error.code, error.read().decode(errors="replace")) from None


def post_form(url, **form):
    return send("POST", url, {"Content-Type": "application/x-www-form-urlencoded"}, urllib.parse.urlencode(form))


def check_installation():
    assert (SERVER / ".complete").exists(), f"there is no Keycloak in {SERVER}: type scripts/fetch-keycloak"
    version = subprocess.run(["java", "-version"], capture_output=True, text=True) if shutil.which("java") else None
    found = re.search(r'version "(\d+)', version.stderr) if version else None
    assert found and int(found[1]) >= 17, ("Keycloak needs Java 17 or newer as `java` on the PATH; Debian's package is "
                                           "openjdk-17-jre-headless")


def make_home(folder):
    """What Keycloak takes for its installation: the server's folders, and a `data` of its own."""
    home = pathlib.Path(folder) / "home"
    home.mkdir()
    for part in ("conf", "lib", "providers", "themes"):
        (home / part).symlink_to(SERVER / part)
    return home


def command(home, port, *options):
    return ["java", *JAVA, f"-Dkc.home.dir={home}", "-cp", SERVER / "lib/quarkus-run.jar",
            "io.quarkus.bootstrap.runner.QuarkusEntryPoint", "start", "--optimized", "--cache=local", "--http-enabled=true",
            "--hostname-strict=false", "--http-host=127.0.0.1", f"--http-port={port}", "--http-access-log-enabled=true", *options]


def environment():
    return {"KC_BOOTSTRAP_ADMIN_CLIENT_ID": ADMIN, "KC_BOOTSTRAP_ADMIN_CLIENT_SECRET": ADMIN_SECRET}


def await_realm(process):
    def answers():
        assert process.process.poll() is None, f"Keycloak ended with {process.process.poll()}:\n{process.log()[-3000:]}"
        with contextlib.suppress(OSError):
            return get(process.url + f"/realms/{REALM}").status == 200
    until(answers, 120, what=lambda: f"Keycloak answers:\n{process.log()[-3000:]}")


def prepared_database():
    """A database with the realm in it, made once for each Keycloak and realm file."""
    inputs = (SERVER / ".complete").read_bytes() + REALM_FILE.read_bytes() + ADMIN.encode()
    prepared = SERVER / "prepared" / (hashlib.sha256(inputs).hexdigest()[:16] + ".mv.db")
    if prepared.exists():
        return prepared
    with tempfile.TemporaryDirectory(prefix="keycloak-") as folder:
        home = make_home(folder)
        imported = home / "data/import"
        imported.mkdir(parents=True)
        shutil.copy(REALM_FILE, imported)
        port = free_port()
        process = Process("keycloak-import", command(home, port, "--import-realm"), folder, environment())
        process.url = f"http://127.0.0.1:{port}"
        try:
            await_realm(process)
        finally:
            process.stop()
        prepared.parent.mkdir(exist_ok=True)
        # Under another name first: a second run at the same time finds all of it or nothing.
        mine = prepared.with_suffix(f".{os.getpid()}")
        shutil.copyfile(home / DATABASE, mine)
        mine.rename(prepared)
    return prepared
