"""Streams and a listener without a network: servers of the simulators and of the bridge run on them in virtual time."""

from __future__ import annotations

import socket
from typing import cast

import trio

from bridge.errors import MediaLost


class _NamedSocket:
    """The one question that websockets' server asks of a listener's socket: its name, for the log."""

    family = socket.AF_UNIX

    def getsockname(self) -> str:
        return "memory"


class _Pipe:
    """One direction. Full at `capacity` bytes, like a socket's buffers: then writes wait, or take a part."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.data = bytearray()
        self.finished = False  # the writer sent its end
        self.broken = False  # either side is closed, or the connection was reset
        self._changed = trio.Event()

    def touch(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def change(self) -> None:
        await self._changed.wait()

    def put(self, data: bytes) -> int:
        taken = max(0, min(len(data), self.capacity - len(self.data)))
        self.data += data[:taken]
        self.touch()
        return taken

    def take(self, size: int) -> bytes:
        taken = bytes(self.data[:size])
        del self.data[:size]
        self.touch()
        return taken


class MemoryStream(trio.abc.HalfCloseableStream):
    """One end of a connection in memory, as a socket behaves: FIN, reset, full buffers; it can be tried without waiting.

    `writes` counts what this end wrote in how many pieces.
    """

    def __init__(self, incoming: _Pipe, outgoing: _Pipe) -> None:
        self._in, self._out = incoming, outgoing
        self._closed = False
        self.writes = 0

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint()
        rest = bytes(data)
        self.writes += bool(rest)
        while rest:
            self._check()
            if self._out.broken:
                raise trio.BrokenResourceError("connection reset by peer")
            taken = self._out.put(rest)
            rest = rest[taken:]
            if rest:
                await self._out.change()

    async def wait_send_all_might_not_block(self) -> None:
        while len(self._out.data) >= self._out.capacity and not self._out.broken:
            await self._out.change()
        await trio.lowlevel.checkpoint()

    async def send_eof(self) -> None:
        await trio.lowlevel.checkpoint()
        self._check()
        self._out.finished = True
        self._out.touch()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        while True:
            self._check()
            if self._in.data:
                return self._in.take(max_bytes or 65536)
            if self._in.broken and not self._in.finished:
                raise trio.BrokenResourceError("connection reset by peer")
            if self._in.finished:
                return b""
            await self._in.change()

    def read_nowait(self) -> bytes | None:
        """What has come; empty after the far end's FIN; None: nothing new. Raises `MediaLost` after a reset."""
        if self._in.data:
            return self._in.take(65536)
        if self._closed or (self._in.broken and not self._in.finished):
            raise MediaLost("the AudioSocket connection broke: connection reset by peer")
        return b"" if self._in.finished else None

    def write_nowait(self, data: bytes) -> int:
        """How many bytes were taken. Raises `MediaLost` after a reset or when the far end is closed."""
        if self._closed or self._out.broken:
            raise MediaLost("the AudioSocket connection is gone: broken pipe")
        self.writes += 1
        return self._out.put(data)

    def reset(self) -> None:
        """Break both directions at once, as an RST does; what was under way is gone."""
        for pipe in (self._in, self._out):
            pipe.data.clear()
            pipe.finished = False
            pipe.broken = True
            pipe.touch()

    async def aclose(self) -> None:
        """Close this end: the far end reads what was sent and then the end; its writes fail."""
        if not self._closed:
            self._closed = True
            self._out.finished = True
            self._in.broken = self._in.finished = True
            self._out.touch()
            self._in.touch()
        await trio.lowlevel.checkpoint()

    def _check(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("this end was closed")


def memory_stream_pair(capacity: int = 1 << 20) -> tuple[MemoryStream, MemoryStream]:
    """Two connected ends. `capacity` bytes fit in each direction."""
    there, back = _Pipe(capacity), _Pipe(capacity)
    return MemoryStream(back, there), MemoryStream(there, back)


class MemoryListener(trio.abc.Listener[MemoryStream]):
    """Hands the server's side of each `connect()` to whoever serves it. Full (16 waiting): `trio.WouldBlock`."""

    def __init__(self) -> None:
        self.socket = _NamedSocket()
        self._send, self._receive = trio.open_memory_channel[MemoryStream](16)

    def connect(self) -> MemoryStream:
        """The client's side of a new connection. Raises `trio.BrokenResourceError` once the listener is closed."""
        client, server = memory_stream_pair()
        self._send.send_nowait(server)
        return client

    async def accept(self) -> MemoryStream:
        """The server's side of the next connection. Raises `trio.ClosedResourceError` after `aclose`."""
        return await self._receive.receive()

    async def aclose(self) -> None:
        """Refuse new connections."""
        self._receive.close()
        await trio.lowlevel.checkpoint()

    def as_socket_listener(self) -> trio.SocketListener:
        """The same object under the type that websockets' `serve(listeners=…)` is annotated with."""
        return cast(trio.SocketListener, self)
