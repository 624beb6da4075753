"""Requests by httpx's transport, without its client: what ARI by HTTP and webhooks have in common.

The client would cost more than twice the CPU (`ari_http` has the figures), and brings cookies, redirects, the environment's
proxies and a log line with every URL. Who uses this makes an `httpx.Request`, gives it a `Body`, and awaits
`transport.handle_async_request`.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import AsyncIterator, Callable
from functools import cache
from typing import Any

import httpcore
import httpx
import trio

from bridge.nowait_io import nowait_io

# It traces every request at DEBUG: today without the headers, and so passwords, but that is not promised.
logging.getLogger("httpcore").setLevel(logging.INFO)


def transport_of(
    *, most_connections: int, keep_s: float, connect_stream: Callable[[], trio.abc.Stream] | None = None
) -> httpx.AsyncHTTPTransport:
    """A pool of connections, each of which is kept idle for `keep_s`. `connect_stream` makes the byte streams, and raises
    `OSError` where nobody listens (tests); by default TCP or TLS."""
    made = httpx.AsyncHTTPTransport(
        verify=_authorities(),
        trust_env=False,
        limits=httpx.Limits(max_connections=most_connections, keepalive_expiry=keep_s),
    )
    if connect_stream is not None:
        # httpx has no way of its own to name httpcore's network backend.
        made._pool = httpcore.AsyncConnectionPool(
            max_connections=most_connections, keepalive_expiry=keep_s, network_backend=_Backend(connect_stream)
        )
    return made


@cache
def _authorities() -> ssl.SSLContext:
    """The system's, as for websockets; httpx alone would take certifi's. To read them takes 65 ms, so a transport is made
    before the calls come, and all share them."""
    return ssl.create_default_context()


class Body(httpx.AsyncByteStream):
    """httpx's own is an async generator; one that a cancelled request leaves behind, trio complains of."""

    def __init__(self, content: bytes) -> None:
        self._rest = [content] if content else []

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if not self._rest:
            raise StopAsyncIteration
        return self._rest.pop()


class _Backend(httpcore.AsyncNetworkBackend):
    """httpcore on streams that somebody else connects."""

    def __init__(self, connect_stream: Callable[[], trio.abc.Stream]) -> None:
        self._connect_stream = connect_stream

    async def connect_tcp(self, host: str, port: int, *_: Any, **__: Any) -> httpcore.AsyncNetworkStream:
        await trio.lowlevel.checkpoint()
        try:
            return _Stream(self._connect_stream())
        except (OSError, trio.BrokenResourceError) as error:
            raise httpcore.ConnectError(str(error)) from error


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
        """`is_readable` of an idle connection: the far end has closed it, so what is read here need not be kept."""
        if info != "is_readable" or (io := nowait_io(self._stream)) is None:
            return None
        try:
            return io.read_nowait() is not None
        except OSError:
            return True
