"""A service of the operator's for tests: it answers by script, on memory streams and in virtual time or on a real socket.

It reads HTTP by h11, as strictly as that does, and keeps each request with its time and its verified signature.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import h11
import httpcore
import httpx
import msgspec
import trio

from bridge import webhook
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
        transport = httpx.AsyncHTTPTransport(verify=False, trust_env=False)
        transport._pool = httpcore.AsyncConnectionPool(max_connections=100, network_backend=_Backend(self))
        return transport

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


class _Backend(httpcore.AsyncNetworkBackend):
    def __init__(self, peer: Peer) -> None:
        self._peer = peer

    async def connect_tcp(self, host: str, port: int, *_: Any, **__: Any) -> httpcore.AsyncNetworkStream:
        await trio.lowlevel.checkpoint()
        if not self._peer.up:
            raise httpcore.ConnectError("connection refused")
        return _Stream(self._peer.listener.connect())


class _Stream(httpcore.AsyncNetworkStream):
    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        try:
            return bytes(await self._stream.receive_some(max_bytes))
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise httpcore.ReadError(str(error)) from error

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        try:
            await self._stream.send_all(buffer)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise httpcore.WriteError(str(error)) from error

    async def aclose(self) -> None:
        await self._stream.aclose()

    def get_extra_info(self, info: str) -> Any:
        return None
