"""Websocket clients served on trio: on listeners of their own, or on streams that the HTTP server hands over.

    handed = HandedOver()
    await nursery.start(serve_websockets, handler, [handed])     handler(connection) for each client
    handed.take(stream, begun)                                   a stream, and what has been read of it: the request

The handshake, frames, pings and the closing are websockets' own; here are the limits, and how its server gets a stream
whose request somebody else has read. Closing the `Server` that `start` gives (`aclose`) tells every client 1001.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import cast

import trio
from websockets.frames import CloseCode
from websockets.trio.server import Server, ServerConnection, serve
from websockets.typing import Subprotocol

_log = logging.getLogger("bridge.websocket_server")
# At DEBUG the library writes down every header, and so the token; at ERROR, with a traceback, each client who is gone
# without a word. Defects of ours are logged here.
_library_log = logging.getLogger("bridge.websocket_server.library")
_library_log.setLevel(logging.CRITICAL)

PING_S = 20.0
CLOSE_S = 2.0
OPEN_S = 5.0
# So many clients may wait for their handshake at the same time; `take` refuses more.
MOST_WAITING = 64
# websockets parses all that it is given before it looks at anything, and a client needs no token to send: 64 kB of empty
# frames would take 80 ms of the event loop. Behind each piece others have their turn.
_PIECE_BYTES = 2048

Handler = Callable[[ServerConnection], Awaitable[None]]
Selector = Callable[[ServerConnection, Sequence[Subprotocol]], Subprotocol | None]


async def serve_websockets(
    handler: Handler,
    listeners: Sequence[trio.abc.Listener[trio.abc.Stream]],
    *,
    max_message: int,
    select_subprotocol: Selector | None = None,
    task_status: trio.TaskStatus[Server] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve for ever: `handler` runs once for each client whose handshake succeeded, and its return closes with 1000.

    A message above `max_message` bytes closes with 1009. Who answers no ping for `PING_S` is gone. A handler that raises is
    logged, and costs nobody else anything.
    """

    async def guarded(connection: ServerConnection) -> None:
        try:
            await handler(connection)
        except Exception:
            _log.exception("a defect of the bridge: a websocket client could not be served")
            await connection.aclose(CloseCode.INTERNAL_ERROR)

    await serve(
        guarded,
        # websockets asks a listener for nothing but `accept`, and its socket for a name.
        listeners=cast("list[trio.SocketListener]", list(listeners)),
        select_subprotocol=select_subprotocol,
        compression=None,  # a few hundred bytes an event; a context of 300 kB a client is not worth it
        server_header=None,
        open_timeout=OPEN_S,
        ping_interval=PING_S,
        ping_timeout=PING_S,
        close_timeout=CLOSE_S,
        max_size=max_message,
        logger=_library_log,
        task_status=task_status,
    )


class HandedOver(trio.abc.Listener["BegunStream"]):
    """A listener whose connections were accepted elsewhere."""

    def __init__(self) -> None:
        self.socket = _Nameless()
        self._send, self._receive = trio.open_memory_channel[BegunStream](MOST_WAITING)

    def take(self, stream: trio.abc.Stream, begun: bytes, context: object = None) -> trio.Event | None:
        """Serve this stream, of which `begun` has been read already; returns the event of its end. None: too many wait, it
        is still the caller's. `context` is whatever the handler needs to know of it: `context_of` tells."""
        taken = BegunStream(stream, begun, context)
        try:
            self._send.send_nowait(taken)
        except (trio.WouldBlock, trio.BrokenResourceError, trio.ClosedResourceError):
            return None
        return taken.ended

    @property
    def waiting(self) -> int:
        """How many wait for their handshake."""
        return self._receive.statistics().current_buffer_used

    @staticmethod
    def context_of(connection: ServerConnection) -> object:
        """What came with the stream of this connection."""
        return connection.stream.context if isinstance(connection.stream, BegunStream) else None

    async def accept(self) -> BegunStream:
        return await self._receive.receive()

    async def aclose(self) -> None:
        """Take no more; what waits is closed."""
        self._send.close()
        async with self._receive:
            async for stream in self._receive:
                await trio.aclose_forcefully(stream)


class BegunStream(trio.abc.HalfCloseableStream):
    """A stream of which something has been read already, which is read again first; a little at a time."""

    def __init__(self, stream: trio.abc.Stream, begun: bytes, context: object = None) -> None:
        self.context = context
        self.ended = trio.Event()
        self._stream = stream
        self._begun = begun

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        size = min(max_bytes or _PIECE_BYTES, _PIECE_BYTES)
        if not self._begun:
            return await self._stream.receive_some(size)
        await trio.lowlevel.checkpoint()
        data, self._begun = self._begun[:size], self._begun[size:]
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        """Where the stream underneath has no half of its own to close, nothing is sent."""
        if isinstance(self._stream, trio.abc.HalfCloseableStream):
            await self._stream.send_eof()
        else:
            await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        self.ended.set()
        await self._stream.aclose()


class _Nameless:
    """The one question that websockets asks of a listener's socket: its name, for a log line that nobody reads."""

    family = socket.AF_UNIX

    def getsockname(self) -> str:
        return "handed over"
