"""A crowd without sockets: a shard that speaks link.proto itself, so that thousands of users come and go in a second."""

import asyncio
import contextlib
import random

import grpc

from api import AWAY, ONLINE, link_v1
from harness import PATIENCE

EVENTS_MAX = 500  # in a frame, which ends at 256 KiB


class Crowd:
    """One attached shard. Its events are acknowledged once Redis has confirmed them: `await settled()`."""

    def __init__(self, core, edge="crowd"):
        self.edge, self.sequence, self.acknowledged = edge, 0, 0
        self.connections = {}  # by user
        self.heard, self.writing = asyncio.Event(), asyncio.Lock()
        self.channel = grpc.aio.insecure_channel(core.link, options=[("grpc.enable_http_proxy", 0)])
        attach = self.channel.stream_stream("/presence.link.v1.Link/Attach", link_v1.EdgeFrame.SerializeToString,
                                            link_v1.CoreFrame.FromString)
        self.stream = attach()
        self.tasks = []

    async def __aenter__(self):
        hello = link_v1.Hello(protocol=1, edge=self.edge, incarnation=random.getrandbits(64) | 1, attach=1)
        await self._write([link_v1.EdgeEvent(hello=hello), link_v1.EdgeEvent(resync_done={})])
        self.tasks = [asyncio.create_task(self._read()), asyncio.create_task(self._live())]
        return self

    async def __aexit__(self, *_):
        for task in self.tasks:
            task.cancel()
        self.stream.cancel()
        await asyncio.wait(self.tasks)
        await self.channel.close()

    async def _write(self, events):
        async with self.writing:  # gRPC takes one write at a time
            for start in range(0, len(events), EVENTS_MAX):
                await self.stream.write(link_v1.EdgeFrame(events=events[start:start + EVENTS_MAX]))

    async def _read(self):
        with contextlib.suppress(asyncio.CancelledError, grpc.aio.AioRpcError):
            async for frame in self.stream:
                for command in frame.commands:
                    if command.HasField("acknowledge"):
                        self.acknowledged = max(self.acknowledged, command.acknowledge.sequence)
                        self.heard.set()
        self.heard.set()

    async def _live(self):
        while True:
            await self._write([link_v1.EdgeEvent(activity_reported={"alive": list(self.connections.values())})])
            await asyncio.sleep(0.5)

    def _event(self, **event):
        self.sequence += 1
        return link_v1.EdgeEvent(sequence=self.sequence, **event)

    async def come(self, users):
        """Each connects once, and is online."""
        events = []
        for user in users:
            connection = self.connections[user] = (len(self.connections) + 1) << 32 | 1  # shard 0, a slot of its own
            events.append(self._event(connection_opened={"connection": connection, "user_id": user, "username": user}))
        await self._write(events)

    async def change(self, users, away):
        status = AWAY if away else ONLINE
        await self._write([self._event(status_changed={"connection": self.connections[user], "status": status})
                           for user in users])

    async def settled(self, seconds=20):
        async def wait():
            while self.acknowledged < self.sequence:
                assert not self.stream.done(), "the core has ended the link"
                self.heard.clear()
                await self.heard.wait()
        await asyncio.wait_for(wait(), seconds * PATIENCE)
