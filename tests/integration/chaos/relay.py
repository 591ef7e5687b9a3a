"""A TCP relay on loopback whose faults are each named after a real cause: a network that is cut, or that swallows what it is given, or a
middlebox that has forgotten about Redis' subscribers."""

import asyncio
import contextlib
import socket


class Relay:
    """Listens on `port` and passes on to `target` ("host:port"). Lives in the event loop that called `start`."""

    def __init__(self, target):
        self.host, _, port = target.rpartition(":")
        self.target_port = int(port)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"
        self.passing = asyncio.Event()
        self.passing.set()
        self.refusing = False
        self.deaf = False
        self.streams = set()

    async def start(self):
        self.server = await asyncio.start_server(self._serve, sock=self.listener)
        return self

    async def _serve(self, reader, writer):
        if self.refusing:
            return writer.close()
        try:
            there = await asyncio.open_connection(self.host, self.target_port)
        except OSError:
            return writer.close()
        pair = (writer, there[1])
        self.streams.add(pair)
        subscriber = asyncio.Event()
        try:
            await asyncio.wait([asyncio.create_task(self._pass(reader, there[1], subscriber, up=True)),
                                asyncio.create_task(self._pass(there[0], writer, subscriber))], return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._end(pair)

    async def _pass(self, reader, writer, subscriber, up=False):
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                await self.passing.wait()
                if up and b"SUBSCRIBE" in data:
                    subscriber.set()
                if self.deaf and subscriber.is_set() and not up:
                    continue  # whoever is in the middle of a message is of no use any more: see heal
                writer.write(data)
                await writer.drain()

    def _end(self, pair):
        self.streams.discard(pair)
        for writer in pair:
            with contextlib.suppress(OSError, AttributeError):
                writer.transport.abort()

    def cut(self):
        """Connections break, new ones are refused."""
        self.refusing = True
        for pair in list(self.streams):
            self._end(pair)

    def swallow(self):
        """Nothing passes, and nobody is told."""
        self.passing.clear()

    def deafen(self):
        """What Redis sends to subscribers is lost, and nobody is told; commands are answered."""
        self.deaf = True

    def heal(self):
        self.refusing = self.deaf = False
        self.passing.set()

    def close(self):
        self.cut()
        self.server.close()
