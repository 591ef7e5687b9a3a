"""The backends of clients/, in each language, run as its README says, against real cores and edges."""

import asyncio
import contextlib
import importlib
import os
import pathlib
import signal
import sys
import types

import grpc
import pytest

import api
from harness import PATIENCE, Client, Stack, get, run, until_async

sys.path.insert(0, str(pathlib.Path(__file__).parent / "clients"))
import commands

stubs = importlib.import_module("presence.v1.presence_pb2_grpc")  # which api has made

LANGUAGES = ["python", "go", "node"]


def test_the_readme_has_every_language():
    assert list(commands.BLOCKS) == LANGUAGES


class Backend:
    def __init__(self, language, core, *arguments):
        commands.prepare(language)
        self.process = commands.start(language, *arguments, environment={"PRESENCE_API": core.api})
        self.lines = []

    async def expect(self, line):
        """Passes over what it prints until this line."""
        while True:
            try:
                text = await asyncio.wait_for(asyncio.to_thread(self.process.stdout.readline), 30 * PATIENCE)
            except asyncio.TimeoutError:
                raise AssertionError(f"it does not say {line!r}, but: {self.lines}") from None
            assert text, f"it ended without saying {line!r}, but: {self.lines}"
            self.lines.append(text.rstrip("\n"))
            if self.lines[-1] == line:
                return

    async def expect_end(self):
        rest, _ = await asyncio.to_thread(self.process.communicate, timeout=30 * PATIENCE)
        assert self.process.returncode == 0, self.lines + rest.splitlines()
        return rest

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)  # `go run` has a child
        self.process.wait()
        self.process.stdout.close()


@pytest.mark.parametrize("language", LANGUAGES)
def test_it_posts_a_message_and_sees_who_comes_and_goes(language):
    async def story(stack):
        reader = await Client.open(stack.edges[0], stack.token("r", name="reader"))
        await reader.subscribe(channel_id="news")
        await until_async(lambda: get(stack.edges[0].http + "/presence/r").json()["status"] == "online")
        with Backend(language, stack.cores[1], "--room", "news", "--text", "Hello", "--changes", "2") as backend:
            await backend.expect("posted to 1 connections")
            assert (await reader.expect(type="message"))["data"] == {"content": "Hello"}
            await backend.expect("watching")
            assert "reader is online" in backend.lines, "who was there before is in the snapshot"
            visitor = await Client.open(stack.edges[0], stack.token("v", name="visitor"))
            await backend.expect("visitor is online")
            await visitor.close()
            await backend.expect("visitor is offline")
            assert await backend.expect_end() == "", "two changes were asked for"
        await reader.close()
    with Stack(cores=2, edges=1) as stack:
        run(story(stack))


@pytest.mark.parametrize("language", LANGUAGES)
def test_it_goes_on_when_its_core_was_started_again(language):
    async def story():
        with Stack() as stack, Backend(language, stack.cores[0], "--changes", "1000", "--seconds", "100") as backend:
            await backend.expect("watching")
            await stack.cores[0].kill_and_wait(signal.SIGKILL)
            stack.cores[0].start().await_ready()
            await backend.expect("watching")
            visitor = await Client.open(stack.edges[0], stack.token("v", name="visitor"))
            await backend.expect("visitor is online")
            await visitor.close()
    run(story())


class FickleCore(stubs.PresenceServiceServicer):
    """Ends the first streams, each after one response, in these ways; the last one tells of a change."""

    def __init__(self, *ends):
        self.ends, self.requests = list(ends), []

    async def Broadcast(self, request, context):
        return api.v1.BroadcastResponse()

    async def WatchPresence(self, request, context):
        self.requests.append(request)
        number = len(self.requests)
        yield api.v1.WatchPresenceResponse(snapshot=number == 1, snapshot_done=True, resume_version=number)
        if self.ends:
            await context.abort(self.ends.pop(0), "this one ends")
        yield api.v1.WatchPresenceResponse(presences=[{"user_id": "v", "status": api.ONLINE, "version": 9}], resume_version=10)
        await context.abort(grpc.StatusCode.PERMISSION_DENIED, "no more")

    @contextlib.asynccontextmanager
    async def served(self):
        server = grpc.aio.server()
        stubs.add_PresenceServiceServicer_to_server(self, server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            yield types.SimpleNamespace(api=f"127.0.0.1:{port}")
        finally:
            await server.stop(None)


@pytest.mark.parametrize("language", LANGUAGES)
def test_it_goes_on_however_the_core_has_ended_its_stream(language):
    async def story():
        codes = grpc.StatusCode
        fickle = FickleCore(codes.UNAVAILABLE, codes.RESOURCE_EXHAUSTED, codes.CANCELLED)
        async with fickle.served() as core:
            with Backend(language, core, "--changes", "1000", "--seconds", "100") as backend:
                await backend.expect("v is online")
                assert backend.lines.count("watching") == 4
                assert [request.resume_version for request in fickle.requests] == [0, 1, 2, 3], "each time where it was"
                # What will not pass ends it.
                rest = await asyncio.wait_for(asyncio.to_thread(backend.process.stdout.read), 30 * PATIENCE)
                assert await asyncio.to_thread(backend.process.wait) == 1 and "no more" in rest
    run(story())


@pytest.mark.parametrize("language", LANGUAGES)
def test_it_ends_at_its_deadline(language):
    async def story():
        with Stack() as stack, Backend(language, stack.cores[0], "--seconds", str(int(3 * PATIENCE))) as backend:
            await backend.expect("watching")
            await backend.expect_end()
    run(story())


def test_without_a_tool_it_says_what_to_install(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(commands.Missing, match="apt-get install nodejs npm"):
        commands.prepare("node")
