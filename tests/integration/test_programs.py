"""The programs as a person meets them: help, mistakes, the test client, the compose file."""

import os
import pty
import re
import select
import shutil
import subprocess
import time

import pytest

from harness import BIN, PATIENCE, ROOT, Stack, until

SPECIFIED = ["SERVICE_NAME", "SERVICE_PORT", "LOG_LEVEL", "KEYCLOAK_URL", "KEYCLOAK_REALM", "KEYCLOAK_CLIENT_ID",
             "KEYCLOAK_CLIENT_SECRET", "WS_HEARTBEAT_INTERVAL"]
SPECIFIED_CORE = ["REDIS_URL", "WS_PRESENCE_TTL", "WS_TYPING_TTL", "WS_HEARTBEAT_INTERVAL", "LOG_LEVEL", "SERVICE_NAME"]


def execute(*command, **environment):
    clean = {k: v for k, v in os.environ.items() if k in ("PATH", "HOME", "LANG") or k.endswith("SAN_OPTIONS")}
    return subprocess.run([str(BIN / command[0]), *command[1:]], capture_output=True, text=True, timeout=30 * PATIENCE,
                          env={**clean, **environment})


@pytest.fixture(scope="module")
def stack():
    with Stack(redis=False) as stack:
        yield stack


@pytest.mark.parametrize("program, names", [("presence-edge", SPECIFIED), ("presence-core", SPECIFIED_CORE)])
def test_help_lists_every_variable(program, names):
    done = execute(program, "--help")
    assert done.returncode == 0
    for name in names:
        assert name in done.stdout, name


def test_all_mistakes_are_reported_together():
    done = execute("presence-edge", "--service_prot=1", "--jwks_file=/nowhere/jwks.json", SERVICE_PORT="99999", LOG_LEVEL="LOUD")
    assert done.returncode == 2
    for part in ("service_prot", "service_port", "SERVICE_PORT", "LOG_LEVEL", "JWKS_FILE"):
        assert part in done.stderr, (part, done.stderr)
    done = execute("presence-core", WS_PRESENCE_TTL="10", REDIS_URL="http://x")
    assert done.returncode != 0 and "WS_PRESENCE_TTL" in done.stderr and "REDIS_URL" in done.stderr + done.stdout


def test_a_port_that_is_taken_is_named(stack):
    done = execute("presence-core", REDIS_URL="memory:", API_LISTEN=stack.cores[0].api, LINK_LISTEN="127.0.0.1:0",
                   METRICS_LISTEN="127.0.0.1:0")
    assert done.returncode == 1 and "API_LISTEN" in done.stdout + done.stderr


def test_cli_auto_passes_its_seven_steps(stack):
    done = execute("presence-cli", "auto", "--url", stack.edges[0].ws, "--token", stack.token("tester"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(re.findall(r"^ok \d/7", done.stdout, re.M)) == 7, done.stdout


def test_cli_auto_fails_with_an_explanation(stack):
    done = execute("presence-cli", "auto", "--url", "ws://127.0.0.1:1/ws", "--token", stack.token("tester"))
    assert done.returncode != 0 and "127.0.0.1:1" in done.stdout + done.stderr
    done = execute("presence-cli", "auto", "--url", stack.edges[0].ws, "--token", "bad")
    assert done.returncode != 0 and "401" in done.stdout + done.stderr


def test_cli_keys_and_token_make_what_the_edge_accepts(tmp_path):
    assert execute("presence-cli", "keys", "--out", str(tmp_path)).returncode == 0
    private = [path for path in tmp_path.iterdir() if path.suffix == ".pem"]
    assert private and private[0].stat().st_mode & 0o077 == 0, "nobody else reads the private key"
    token = execute("presence-cli", "token", "--user", "alice", "--key", str(private[0]))
    assert token.returncode == 0 and token.stdout.count(".") == 2
    with Stack(redis=False, edge_settings={"JWKS_FILE": str(tmp_path / "jwks.json")}) as own:
        done = execute("presence-cli", "auto", "--url", own.edges[0].ws, "--token", token.stdout.strip())
        assert done.returncode == 0, done.stdout + done.stderr


def test_cli_interactive_on_a_terminal(stack):
    leader, follower = pty.openpty()
    command = [str(BIN / "presence-cli"), "--url", stack.edges[0].ws, "--token", stack.token("typist", name="typist")]
    process = subprocess.Popen(command, stdin=follower, stdout=follower, stderr=follower, env={**os.environ, "TERM": "xterm"})
    os.close(follower)
    screen = ""

    def read_until(text):
        nonlocal screen
        deadline = time.monotonic() + 10 * PATIENCE
        while text not in screen:
            assert time.monotonic() < deadline, (text, screen)
            if select.select([leader], [], [], 0.1)[0]:
                screen += os.read(leader, 65536).decode(errors="replace")
        screen = screen.split(text, 1)[1]

    def type_line(line):
        os.write(leader, line.encode() + b"\r")

    read_until("Connected")
    type_line("sub channel_general")
    read_until("subscribed")
    type_line("typing channel_general")
    read_until("typist")
    type_line("shout")
    read_until("help")
    type_line("unsub channel_general")
    read_until("unsubscribed")
    type_line("quit")
    assert process.wait(timeout=10 * PATIENCE) == 0
    os.close(leader)


def test_load_counts_why_connections_were_closed():
    with Stack(redis=False, core_settings={"CONNECTIONS_PER_USER": "3"}) as own:
        done = execute("presence-load", "idle", "--edge", f"127.0.0.1:{own.edges[0].port}", "--connections", "10", "--seconds", "1",
                       "--token", own.token("alice"))
        assert done.returncode == 1, "not all connections stayed open"
        assert "7 connections closed by the server" in done.stdout, done.stdout + done.stderr
        assert "\n7 closed with 1008 too many connections\n" in done.stdout, done.stdout


def test_sigterm_ends_both_within_ten_seconds(stack):
    with Stack(redis=False) as own:
        for process in (own.edges[0], own.cores[0]):
            started = time.monotonic()
            assert process.kill(15) == 0
            assert time.monotonic() - started < 10 * PATIENCE


def test_the_compose_file_is_valid():
    done = subprocess.run([shutil.which("docker-compose") or "docker-compose", "-f", ROOT / "compose/docker-compose.yml", "config",
                           "-q"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
