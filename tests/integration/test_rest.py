"""REST on the edge's port, as any HTTP client sees it."""

import http.client
import json

import pytest

from harness import Client, Stack, get, run, until, until_async


@pytest.fixture(scope="module")
def stack():
    with Stack(edge_settings={"SERVICE_NAME": "presence-test", "ALLOWED_ORIGINS": "https://app.example"}) as stack:
        yield stack


@pytest.fixture(scope="module")
def url(stack):
    return stack.edges[0].http


def test_health_counts_connections(stack, url):
    async def story():
        client = await Client.open(stack.edges[0], stack.token("alice"))
        until(lambda: get(url + "/health").json() == {
            "status": "healthy", "service": "presence-test", "active_connections": 1})
        await client.close()
        until(lambda: get(url + "/health").json()["active_connections"] == 0)
    run(story())


def test_presence_of_one_and_of_all(stack, url):
    async def story():
        assert get(url + "/presence/nobody").json() == {"user_id": "nobody", "status": "offline", "last_seen": None}
        users = [f"page-{i:02}" for i in range(25)]
        clients = [await Client.open(stack.edges[0], stack.token(user, name=f"name of {user}")) for user in users]
        until(lambda: get(url + "/presence").json()["count"] == 25)
        one = get(url + "/presence/page-03").json()
        assert list(one) == ["user_id", "username", "status", "last_seen"]
        assert (one["username"], one["status"]) == ("name of page-03", "online") and one["last_seen"].endswith("Z")

        seen, cursor, pages = [], None, 0
        while True:
            page = get(url + "/presence?limit=10" + (f"&cursor={cursor}" if cursor else "")).json()
            assert page["count"] == len(page["users"]) <= 10
            seen += [user["user_id"] for user in page["users"]]
            pages += 1
            cursor = page.get("next_cursor")
            if not cursor:
                break
        assert seen == users and pages == 3, "everybody exactly once"

        await clients[0].send(type="status", status="away")
        until(lambda: get(url + "/presence?limit=1").json()["users"][0]["status"] == "away")
        await clients[1].close()
        until(lambda: get(url + "/presence").json()["count"] == 24, what="who is offline is not listed")
        assert get(url + "/presence/page-01").json()["status"] == "offline"
        for client in clients[2:] + clients[:1]:
            await client.close()
    run(story())


@pytest.mark.parametrize("path, status", [
    ("/nothing", 404), ("/presence/a/b", 404), ("/presence?limit=0", 400), ("/presence?limit=x", 400),
    ("/presence?limit=10001", 400), ("/presence?limit=%zz", 400), ("/presence?cursor=%zz", 400), ("/ws", 426), ("/presence?cursor=%21", 400), ("/presence/%zz", 400), ("/presence/%00", 400),
    ("/presence/%ff", 400), ("/presence/" + "x" * 2049, 400)])
def test_errors_are_json(url, path, status):
    answer = get(url + path)
    assert answer.status == status
    assert answer.headers["Content-Type"].startswith("application/json")
    assert answer.json()["code"] == status and answer.json()["error"]


def test_other_methods_are_405(url):
    for method in ("POST", "PUT", "DELETE"):
        answer = get(url + "/presence", method=method)
        assert answer.status == 405 and "GET" in answer.headers["Allow"] and answer.json()["code"] == 405


def test_cors_for_allowed_origins_only(url):
    allowed, foreign = {"Origin": "https://app.example"}, {"Origin": "https://evil.example"}
    assert get(url + "/presence", headers=allowed).headers["Access-Control-Allow-Origin"] == "https://app.example"
    assert get(url + "/presence", headers=foreign).headers["Access-Control-Allow-Origin"] is None
    preflight = {"Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "authorization"}
    answer = get(url + "/presence", method="OPTIONS", headers={**allowed, **preflight})
    assert answer.status == 204 and "GET" in answer.headers["Access-Control-Allow-Methods"]
    assert get(url + "/presence", method="OPTIONS", headers={**foreign, **preflight}).status == 403


def test_keep_alive_and_pipelining(stack):
    connection = http.client.HTTPConnection("127.0.0.1", stack.edges[0].port, timeout=10)
    connection.connect()
    first = connection.sock
    for _ in range(3):
        connection.request("GET", "/health")
        assert connection.getresponse().read()
        assert connection.sock is first
    connection.sock.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\nGET /presence/a HTTP/1.1\r\nHost: x\r\n\r\n"
                            b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    answers = b""
    while chunk := connection.sock.recv(65536):
        answers += chunk
    assert answers.count(b"HTTP/1.1 200 OK") == 3
    assert answers.index(b"active_connections") < answers.index(b'"user_id":"a"') < answers.rindex(b"active_connections")


def test_metrics_of_edge_and_core(stack, url):
    async def story():
        edge, core = stack.edges[0], stack.cores[0]
        sent, received = edge.metric("ws_messages_sent"), edge.metric("ws_messages_received")
        total = edge.metric("ws_connections_total")
        client = await Client.open(edge, stack.token("metrics"))
        until(lambda: edge.metric("ws_connections_active") == 1)
        until(lambda: edge.metric("ws_connections_total") == total + 1)
        await client.subscribe(channel_id="room")
        await client.ping()

        def counted():
            return edge.metric("ws_messages_received") - received, edge.metric("ws_messages_sent") - sent
        await until_async(lambda: all(n >= least for n, least in zip(counted(), (2, 3))),
                          what=lambda: f"2 received and 3 sent, but {counted()}; {client.frames}")
        until(lambda: core.metric("presence_core_connections") == 1 and core.metric("presence_core_rooms") == 1)
        page = get(url + "/metrics")
        assert page.headers["Content-Type"].startswith("text/plain")
        for name in ("ws_errors_total", "presence_edge_deliveries_total", "presence_edge_drops_total",
                     "presence_edge_link_live", "presence_edge_turn_seconds_bucket"):
            assert name in page.body, name
        await client.close()
    run(story())


def test_without_a_core_health_says_so(stack):
    with Stack(redis=False) as alone:
        alone.cores[0].stop()
        answer = until(lambda: (lambda a: a if a.status == 503 else None)(get(alone.edges[0].http + "/health")))
        assert answer.json()["status"] == "unhealthy" and "core" in answer.json()["reason"]
        assert get(alone.edges[0].http + "/presence/alice").status == 503
