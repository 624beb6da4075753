"""A service of the operator's for tests: it answers by script, on memory streams and in virtual time or on a real socket.

It reads HTTP by h11, as strictly as that does, and keeps each request with its time and its verified signature.
"""

from __future__ import annotations

import gc
import itertools
import math
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import h11
import httpx
import msgspec
import trio

from bridge import webhook
from bridge.http_transport import transport_of
from bridge.webhook_client import WebhookClient
from simulators.memory import MemoryListener


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that came. `at` is trio's time."""

    at: float
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)

    @property
    def message_id(self) -> str:
        return self.headers["webhook-id"]


@dataclass(frozen=True, slots=True)
class Says:
    """One answer. `after_s`: so long after the request. `parts` overrides `body`, sent as chunks. `hangs`: nothing ever
    comes; `drops`: the connection is closed without an answer."""

    status: int = 200
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()
    after_s: float = 0.0
    parts: Iterable[bytes] | None = None
    hangs: bool = False
    drops: bool = False


OK = Says()


@dataclass
class Peer:
    """`script` gives the answers in order, the last one for ever; `choose` decides instead where it is set."""

    script: list[Says] = field(default_factory=lambda: [OK])
    choose: Callable[[Asked], Says] | None = None
    secret: str = ""
    unix_s: Callable[[], float] = lambda: 0.0
    asked: list[Asked] = field(default_factory=list)
    connections: int = 0
    up: bool = True
    listener: MemoryListener = field(default_factory=MemoryListener)
    arrived: trio.Event = field(default_factory=trio.Event)

    def transport(self) -> httpx.AsyncHTTPTransport:
        """httpx's own transport, whose streams come to this peer."""
        return transport_of(most_connections=100, keep_s=math.inf, connect_stream=self._connect)

    def _connect(self) -> trio.abc.Stream:
        if not self.up:
            raise ConnectionRefusedError("connection refused")
        return self.listener.connect()

    @asynccontextmanager
    async def client(self) -> AsyncIterator[WebhookClient]:
        """A client that comes to this peer, at its time; pauses are the longest that chance allows."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.run)
            client = WebhookClient(self.transport(), unix_s=self.unix_s, chance=lambda: 1.0)
            yield client
            await client.aclose()
            gc.collect()  # what httpx leaves behind would be told here
            nursery.cancel_scope.cancel()

    async def run(self) -> None:
        await trio.serve_listeners(self.serve, [self.listener])

    async def has(self, n: int) -> list[Asked]:
        """The first n requests, once they are there."""
        while len(self.asked) < n:
            await self.arrived.wait()
        return self.asked[:n]

    async def serve(self, stream: trio.abc.Stream) -> None:
        self.connections += 1
        wire = h11.Connection(h11.SERVER)
        async with stream:
            try:
                while await self._exchange(stream, wire):
                    wire.start_next_cycle()
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass

    async def _exchange(self, stream: trio.abc.Stream, wire: h11.Connection) -> bool:
        request, body = None, bytearray()
        while True:
            event = wire.next_event()
            if event is h11.NEED_DATA:
                data = await stream.receive_some(65536)
                if not data and request is None:
                    return False
                wire.receive_data(bytes(data))
            elif isinstance(event, h11.Request):
                request = event
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                break
            else:
                return False
        assert request is not None
        assert request.method == b"POST"
        headers = {name.decode(): value.decode() for name, value in request.headers}
        asked = Asked(trio.current_time(), request.target.decode(), headers, bytes(body))
        if self.secret:
            webhook.verify(self.secret, headers, asked.body, self.unix_s())
        self.asked.append(asked)
        self.arrived.set()
        self.arrived = trio.Event()
        says = self.choose(asked) if self.choose else self.script[min(len(self.asked), len(self.script)) - 1]
        await trio.sleep(says.after_s)
        if says.hangs:
            await trio.sleep_forever()
        if says.drops:
            return False
        parts = says.parts
        length = [] if parts is not None else [("content-length", str(len(says.body)))]
        await stream.send_all(wire.send(h11.Response(status_code=says.status, headers=[*says.headers, *length])))
        for part in itertools.chain([says.body] if parts is None else parts):
            await stream.send_all(wire.send(h11.Data(data=part)))
        await stream.send_all(wire.send(h11.EndOfMessage()))
        return wire.our_state is h11.DONE
