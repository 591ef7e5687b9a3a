"""Every error of the API, caused, with the details that a caller's program acts upon. Tokens and roles: test_access.py."""

import asyncio
import json
import signal

import pytest

from api import OFFLINE, ONLINE, eventually, outage, refused, story
from harness import Stack, until_async

LONG = "x" * 2049
NO_SUCH_CONNECTION = "conn-" + "a" * 16 + "-" + "b" * 16


@pytest.fixture(scope="module")
def stack():
    with Stack(cores=2, edges=2, pinned=True) as stack:
        yield stack


# The fields that BadRequest names, in order of the request's fields.
MISTAKES = [
    ("GetPresence", {}, ["user_id"]),
    ("GetPresence", {"user_id": LONG}, ["user_id"]),
    ("GetPresence", {"user_id": "nul\0"}, ["user_id"]),
    ("BatchGetPresence", {}, ["user_ids"]),
    ("BatchGetPresence", {"user_ids": ["u"] * 501}, ["user_ids"]),
    ("BatchGetPresence", {"user_ids": ["u", "", "u", LONG]}, ["user_ids[1]", "user_ids[3]"]),
    ("ListPresence", {"page_size": 10_001, "status": OFFLINE}, ["page_size", "status"]),
    ("ListPresence", {"page_size": -1, "page_token": "forged"}, ["page_size", "page_token"]),
    ("WatchPresence", {}, ["target"]),
    ("WatchPresence", {"users": {}}, ["users.user_ids"]),
    ("WatchPresence", {"users": {"user_ids": ["u"] * 1001}}, ["users.user_ids"]),
    ("WatchPresence", {"users": {"user_ids": ["u", ""]}}, ["users.user_ids[1]"]),
    ("WatchPresence", {"room_id": LONG}, ["room_id"]),
    ("SetStatus", {}, ["user_id", "status"]),
    ("SetStatus", {"user_id": "u", "status": OFFLINE}, ["status"]),
    ("SetStatus", {"user_id": "u", "status": 77}, ["status"]),
    ("Broadcast", {}, ["room_id", "payload"]),
    ("Broadcast", {"room_id": "r", "data_json": "[1]"}, ["data_json"]),
    ("Broadcast", {"room_id": "r", "data_json": '{"open":'}, ["data_json"]),
    ("Broadcast", {"room_id": "r", "data": {"n": float("inf")}}, ["data"]),
    ("Broadcast", {"data_json": "no", "request_id": "i" * 129, "excluded_user_ids": ["", LONG]},
     ["room_id", "data_json", "request_id", "excluded_user_ids[0]", "excluded_user_ids[1]"]),
    ("Broadcast", {"room_id": "r", "data_json": "{}", "excluded_user_ids": ["u"] * 101}, ["excluded_user_ids"]),
    ("SendToUser", {}, ["user_id", "payload"]),
    ("SetTyping", {"username": LONG, "room_kind": 9}, ["room_id", "user_id", "username", "room_kind"]),
    ("ListRooms", {"page_size": 1001, "page_token": "forged"}, ["page_size", "page_token"]),
    ("GetRoom", {"page_size": -5}, ["room_id", "page_size"]),
    ("ListConnections", {"page_size": 1001}, ["owner", "page_size"]),
    ("ListConnections", {"edge": "e" * 256}, ["edge"]),
    ("DisconnectUser", {"code": 1005, "reason": "r" * 124}, ["user_id", "code", "reason"]),
    ("DisconnectUser", {"user_id": "u", "code": 5000}, ["code"]),
    ("DisconnectConnection", {"connection_id": "conn-1", "code": 1006}, ["connection_id", "code"]),
    ("UnsubscribeUser", {}, ["user_id", "room_id"]),
    ("ForgetRoomRights", {"user_id": LONG, "room_id": LONG}, ["user_id", "room_id"]),
    ("DrainEdge", {"window": {"seconds": 3601}}, ["edge", "window"]),
    ("DrainCore", {"core": "core0", "window": {"seconds": -1}}, ["window"]),
    ("SetLogLevel", {}, ["target", "level"]),
    ("Tap", {}, ["target"]),
]


@story
async def test_mistakes_are_named_all_at_once(scene):
    before = admitted(scene)
    for method, request, fields in MISTAKES:
        refusal = await refused(getattr(scene.here, method)(**request))
        assert refusal.code == "INVALID_ARGUMENT", (method, refusal)
        assert sorted(refusal.fields) == sorted(fields), (method, request, refusal)
        assert all(violation.description for violation in refusal.details["BadRequest"].field_violations)
        assert "RetryInfo" not in refusal.details, "the same again would fail again"
        assert LONG[:20] not in refusal.text, "what was sent is not repeated"
    assert admitted(scene) == before, "a call that is refused so does no work"


def admitted(scene):
    return sum(core.metric("presence_core_call_duration_seconds_count") for core in scene.cores)


@story
async def test_many_mistakes_stay_a_small_answer(scene):
    refusal = await refused(scene.here.BatchGetPresence(user_ids=[""] * 500))
    assert refusal.code == "INVALID_ARGUMENT" and 1 < len(refusal.fields) < 100 and "more" in refusal.text


@story
async def test_a_page_token_is_of_one_list_alone(scene):
    clients = [await scene.connect(0, f"token-{number}") for number in range(3)]
    for number, client in enumerate(clients):
        await client.subscribe(channel_id="tokens")
        await client.subscribe(channel_id=f"tokens-{number}")

    async def everybody_is_listed():
        return len((await scene.here.ListPresence()).users) == 3

    await eventually(everybody_is_listed)
    tokens = {"users": (await scene.here.ListPresence(page_size=1)).next_page_token,
              "online": (await scene.here.ListPresence(page_size=1, status=ONLINE)).next_page_token,
              "rooms": (await scene.here.ListRooms(page_size=1)).next_page_token,
              "members": (await scene.here.GetRoom(room_id="tokens", page_size=1)).next_page_token,
              "connections": (await scene.here.ListConnections(edge="edge0", page_size=1)).next_page_token}
    assert all(tokens.values()) and len(set(tokens.values())) == 5
    calls = {"users": ("ListPresence", {}), "online": ("ListPresence", {"status": ONLINE}), "rooms": ("ListRooms", {}),
             "members": ("GetRoom", {"room_id": "tokens"}), "connections": ("ListConnections", {"edge": "edge0"})}
    for wanted, (method, request) in calls.items():
        for made_for, token in tokens.items():
            call = getattr(scene.there, method)(page_token=token, **request)
            if made_for == wanted:
                await call  # of the other core, too
            else:
                refusal = await refused(call)
                assert (refusal.code, refusal.fields) == ("INVALID_ARGUMENT", ["page_token"]), (wanted, made_for)
    refusal = await refused(scene.here.GetRoom(room_id="tokens-1", page_token=tokens["members"]))
    assert refusal.fields == ["page_token"], "nor of another room"


@story
async def test_what_is_not_there(scene):
    for api in (scene.here, scene.there):
        assert (await refused(api.GetRoom(room_id="nobody's"))).code == "NOT_FOUND"
        assert (await refused(api.DisconnectConnection(connection_id=NO_SUCH_CONNECTION))).code == "NOT_FOUND"
        assert (await refused(api.DrainEdge(edge="edge9"))).code == "NOT_FOUND"
        assert (await refused(api.DrainCore(core="core9"))).code == "NOT_FOUND"
        for target in ({"core": "core9"}, {"edge": "edge9"}):
            assert (await refused(api.SetLogLevel(level="LOG_LEVEL_INFO", **target))).code == "NOT_FOUND"
        refusal = await refused(api.SetStatus(user_id="nobody", status=ONLINE))
        assert (refusal.code, refusal.reason) == ("FAILED_PRECONDITION", "USER_HAS_NO_CONNECTION")


@story
async def test_what_is_too_large(scene):
    large = json.dumps({"x": "y" * (1 << 20)})
    for call in (scene.here.Broadcast(room_id="r", data_json=large), scene.here.SendToUser(user_id="u", data_json=large),
                 scene.here.Broadcast(room_id="r", data=json.loads(large))):
        refusal = await refused(call)
        assert (refusal.code, refusal.reason) == ("RESOURCE_EXHAUSTED", "PAYLOAD_TOO_LARGE")
        assert refusal.details["ErrorInfo"].metadata["bytes_max"] == str(1 << 20) and len(refusal.fields) == 1
        assert "RetryInfo" not in refusal.details, "it will be as large the next time"
    fits = '{"x":"' + "y" * ((1 << 20) - 8) + '"}'
    assert len(fits) == 1 << 20
    await scene.here.Broadcast(room_id="r", data_json=fits)
    beyond_grpc = scene.here.Broadcast(room_id="r", data_json="y" * (9 << 20))
    assert (await refused(beyond_grpc)).code == "RESOURCE_EXHAUSTED"


# What reads or changes something that is in Redis, or is on other cores.
CALLS = {
    "GetPresence": {"user_id": "u"}, "BatchGetPresence": {"user_ids": ["u"]}, "ListPresence": {},
    "SetStatus": {"user_id": "u", "status": ONLINE}, "Broadcast": {"room_id": "r", "data_json": "{}"},
    "SendToUser": {"user_id": "u", "data_json": "{}"}, "ListRooms": {}, "GetRoom": {"room_id": "r"},
    "ListConnections": {"user_id": "u"}, "DisconnectUser": {"user_id": "u"},
    "DisconnectConnection": {"connection_id": NO_SUCH_CONNECTION}, "UnsubscribeUser": {"user_id": "u", "room_id": "r"}, "ForgetRoomRights": {},
    "DrainEdge": {"edge": "e"}, "DrainCore": {"core": "c"}, "WatchPresence": {"everyone": {}},
}


async def all_unavailable(api):
    refusals = await asyncio.gather(*(refused(getattr(api, method)(**request)) for method, request in CALLS.items()))
    for method, refusal in zip(CALLS, refusals):
        # Long before the caller's deadline, which would be DEADLINE_EXCEEDED.
        assert refusal.code == "UNAVAILABLE", (method, refusal)
        if method in ("Broadcast", "SendToUser"):  # the core's own clients have it: a repeat would double it
            assert refusal.reason == "MAY_HAVE_BEEN_DELIVERED" and "RetryInfo" not in refusal.details, (method, refusal)
        else:
            assert 0 < refusal.retry_seconds <= 5, (method, refusal)


async def works(api):
    answers = await asyncio.gather(api.GetPresence(user_id="u"), api.ListRooms(), api.Broadcast(room_id="r", data_json="{}"),
                                   return_exceptions=True)
    return not any(isinstance(answer, Exception) for answer in answers) and not answers[2].count_incomplete


@pytest.mark.parametrize("how", ["stalls", "dies"])
def test_unavailable_while_redis_is_away(stack, how):
    @story
    async def told(scene):
        await eventually(lambda: works(scene.here))
        async with outage(stack.redis, how):
            # At first the cores only wait for an answer; then they know.
            await all_unavailable(scene.here)
            await until_async(lambda: scene.cores[0].metric("presence_core_store_up") == 0)
            await all_unavailable(scene.here)
            refusal = await refused(scene.here.SetTyping(room_id="r", user_id="u"))
            assert refusal.code == "UNAVAILABLE" and refusal.retry_seconds > 0
            state = await scene.here.GetClusterState()
            assert state.incomplete and [(core.name, core.store_up) for core in state.cores] == [("core0", False)]
        for api in (scene.here, scene.there):
            await eventually(lambda: works(api))
        for core in scene.cores:
            await until_async(lambda: core.metric("presence_core_gathers") == 0)
    told(stack)


async def knows_both_cores(api):
    return [core.name for core in (await api.GetClusterState()).cores] == ["core0", "core1"]


@story
async def test_a_core_that_hangs_is_not_waited_for(scene):
    await eventually(lambda: works(scene.here))
    await eventually(lambda: knows_both_cores(scene.here))  # who has not announced itself to Redis yet is not missed
    scene.cores[1].kill(signal.SIGSTOP)
    try:
        # At once, as it is soon taken for dead.
        questions = {"ListRooms": {}, "GetRoom": {"room_id": "r"}, "ListConnections": {"user_id": "u"}}
        sent, state, presence, *refusals = await asyncio.gather(
            scene.here.Broadcast(room_id="r", data_json="{}"), scene.here.GetClusterState(), scene.here.GetPresence(user_id="u"),
            *(refused(getattr(scene.here, method)(**request)) for method, request in questions.items()))
        assert sent.count_incomplete, "it is sent; how many of the other core's have it is not known"
        assert state.incomplete and [core.name for core in state.cores] == ["core0"]
        assert presence.status == OFFLINE, "that much Redis knows"
        for refusal in refusals:
            assert refusal.code == "UNAVAILABLE" and refusal.retry_seconds > 0, refusal
    finally:
        scene.cores[1].kill(signal.SIGCONT)
    await eventually(lambda: works(scene.here))


@story
async def test_more_than_the_bound_is_refused_at_once(scene):
    await eventually(lambda: works(scene.here))
    async with outage(scene.stack.redis):
        # Each may become an answer of 2.5 MB; 64 MiB may be under way.
        answers = await asyncio.gather(*(refused(scene.here.ListPresence(page_size=10_000)) for _ in range(60)))
    over = [answer for answer in answers if answer.code == "RESOURCE_EXHAUSTED"]
    assert over and {answer.code for answer in answers} == {"RESOURCE_EXHAUSTED", "UNAVAILABLE"}
    for refusal in over:
        assert refusal.reason == "TOO_MANY_CALLS" and refusal.retry_seconds > 0
        assert refusal.details["ErrorInfo"].metadata["service"] == "PresenceService"
    await eventually(lambda: works(scene.here))
    for _ in range(60):
        await scene.here.ListPresence(page_size=10_000)  # what was taken has been given back


@story
async def test_who_gives_up_leaves_nothing_behind(scene):
    await eventually(lambda: works(scene.here))
    async with outage(scene.stack.redis):
        late = [getattr(scene.here, method)(timeout=0.2, **request) for method, request in CALLS.items()]
        for refusal in await asyncio.gather(*(refused(call) for call in late)):
            assert refusal.code == "DEADLINE_EXCEEDED"
        # On a busy machine the core may see a call only when its time is over; gRPC then drops it unseen. So once more.
        for _ in range(20):
            if given_up(scene.cores[0]):
                break
            await refused(scene.here.ListRooms(timeout=0.2))
    await eventually(lambda: works(scene.here))
    await until_async(lambda: given_up(scene.cores[0]), what="that nobody waited for it any more is counted")
    async with outage(scene.stack.redis):
        calls = [getattr(scene.here, method)(**request) for method, request in CALLS.items()]
        calls += [scene.here.WatchPresence(users={"user_ids": ["u"]}), scene.here.Tap(room_id="r")]
        # They have arrived when one that was sent behind them is answered.
        assert (await refused(scene.here.GetPresence())).code == "INVALID_ARGUMENT"
        for call in calls:
            call.cancel()
    await eventually(lambda: works(scene.here))
    await nothing_is_under_way(scene)


def given_up(core):
    return core.metric('presence_core_calls_total{method="ListRooms",outcome="given_up"}')


async def nothing_is_under_way(scene):
    for core in scene.cores:
        for name in ("watchers", "taps", "gathers", "orders_waiting", "broadcasts_unanswered", "publications_waiting"):
            await until_async(lambda: core.metric(f"presence_core_{name}") == 0, what=name)


@story
async def test_cancelled_streams_are_over(scene):
    core = scene.cores[0]
    targets = [{"everyone": {}}, {"room_id": "r"}, {"users": {"user_ids": ["u"]}}]
    watchers = [scene.watch(scene.here, **target) for target in targets]
    for watcher in watchers:
        await watcher.first_part()
    taps = [scene.here.Tap(user_id="u"), scene.here.Tap(room_id="r")]
    await until_async(lambda: core.metric("presence_core_watchers") == 3)
    await until_async(lambda: scene.cores[1].metric("presence_core_taps") == 2, what="the other core's view is open, too")
    for call in (*(watcher.call for watcher in watchers), *taps):
        call.cancel()
    await nothing_is_under_way(scene)
