"""Streams and a listener without a network: servers of the simulators and of the bridge run on them in virtual time."""

from __future__ import annotations

import errno
import operator
import os
import socket
from collections.abc import Callable
from typing import cast

import trio

_READ_BYTES = 65536


def _os_error(number: int) -> OSError:
    """As the kernel's, with its words."""
    return OSError(number, os.strerror(number))


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
        self.broken = False  # either side is closed, or the connection was reset: writes fail
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


class _OneTask:
    """Refuses a second task while one is inside, as trio's streams do."""

    def __init__(self, message: str) -> None:
        self._message = message
        self._busy = False

    def __enter__(self) -> None:
        if self._busy:
            raise trio.BusyResourceError(self._message)
        self._busy = True

    def __exit__(self, *_: object) -> None:
        self._busy = False


class MemoryStream(trio.abc.HalfCloseableStream):
    """One end of a connection in memory, as a socket behaves: FIN, reset, full buffers; it can be tried without waiting.

    `tests/test_memory.py` holds it against real sockets. `writes` counts the pieces in which this end wrote.
    """

    descriptor: int | None = None  # nothing that the kernel could watch

    def __init__(self, incoming: _Pipe, outgoing: _Pipe) -> None:
        self._in, self._out = incoming, outgoing
        self._closed = False
        self._sending = _OneTask("another task is sending")
        self._receiving = _OneTask("another task is receiving")
        self.writes = 0

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        with self._sending:
            self._check_sending()
            await trio.lowlevel.checkpoint()
            rest = bytes(data)
            self.writes += bool(rest)
            while rest:
                self._check_sending()
                if self._out.broken:
                    raise trio.BrokenResourceError("connection reset by peer")
                rest = rest[self._out.put(rest) :]
                if rest:
                    await self._out.change()

    async def wait_send_all_might_not_block(self) -> None:
        with self._sending:
            self._check()
            await trio.lowlevel.checkpoint()
            while len(self._out.data) >= self._out.capacity and not self._out.broken:
                await self._out.change()
            self._check()

    async def send_eof(self) -> None:
        with self._sending:
            self._check()
            await trio.lowlevel.checkpoint()
            self._out.finished = True
            self._out.touch()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        size = _READ_BYTES if max_bytes is None else operator.index(max_bytes)
        if size < 1:
            raise ValueError("max_bytes must be at least 1")
        with self._receiving:
            self._check()
            await trio.lowlevel.checkpoint()
            while True:
                self._check()
                if self._in.data:
                    return self._in.take(size)
                if self._in.finished:
                    return b""
                if self._in.broken:
                    raise trio.BrokenResourceError("connection reset by peer")
                await self._in.change()

    def unread(self, data: bytes) -> None:
        """Put back what was read, for somebody else to read it."""
        self._in.data[:0] = data
        self._in.touch()

    def read_nowait(self) -> bytes | None:
        """What has come; empty after the far end's FIN; None: nothing new. Raises `OSError` after a reset."""
        if self._closed:
            raise _os_error(errno.EBADF)
        if self._in.data:
            return self._in.take(_READ_BYTES)
        if self._in.finished:
            return b""
        if self._in.broken:
            raise _os_error(errno.ECONNRESET)
        return None

    def write_nowait(self, data: bytes) -> int:
        """How many bytes were taken. Raises `OSError` after a reset, `send_eof`, or when either end is closed."""
        if self._closed:
            raise _os_error(errno.EBADF)
        if self._out.finished or self._out.broken:
            raise _os_error(errno.EPIPE)
        taken = self._out.put(data)
        self.writes += bool(taken)
        return taken

    def reset(self) -> None:
        """Break both directions at once, as an RST does; what had come can still be read."""
        for pipe in (self._in, self._out):
            pipe.broken = True
            pipe.touch()

    async def aclose(self) -> None:
        """Close this end: the far end reads what was sent and then the end; its writes fail.

        With data unread it is a reset instead of the end, as the kernel does it, unless the end was sent before.
        """
        if not self._closed:
            self._closed = True
            if not self._in.data:
                self._out.finished = True
            self.reset()
        await trio.lowlevel.checkpoint()

    def _check(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("this end was closed")

    def _check_sending(self) -> None:
        self._check()
        if self._out.finished:
            raise trio.ClosedResourceError("can't send data after sending EOF")


def memory_stream_pair(capacity: int = 1 << 20) -> tuple[MemoryStream, MemoryStream]:
    """Two connected ends. `capacity` bytes fit in each direction."""
    there, back = _Pipe(capacity), _Pipe(capacity)
    return MemoryStream(back, there), MemoryStream(there, back)


class TappedStream(MemoryStream):
    """A server's end without a client's task: what it writes goes to `on_write` at once, what it reads is `feed`ed.

    For thousands of calls in virtual time, where a client that wakes up for each frame would be most of the work.
    """

    def __init__(self, on_write: Callable[[bytes], object]) -> None:
        super().__init__(_Pipe(1 << 20), _Pipe(1 << 20))
        self._on_write = on_write

    @property
    def closed(self) -> bool:
        return self._closed

    def feed(self, data: bytes) -> None:
        """The client sends this."""
        self._in.put(data)

    def finish(self) -> None:
        """The client's FIN."""
        self._in.finished = True
        self._in.touch()

    def write_nowait(self, data: bytes) -> int:
        super().write_nowait(b"")  # raises where nothing can be written
        self._on_write(data)
        return len(data)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        self._check_sending()
        await trio.lowlevel.checkpoint()
        self._on_write(bytes(data))

    async def send_eof(self) -> None:
        """The client answers a FIN with its own."""
        await super().send_eof()
        self.finish()


class MemoryListener(trio.abc.Listener[MemoryStream]):
    """Hands the server's side of each `connect()` to whoever serves it. Full (`backlog` waiting): `trio.WouldBlock`."""

    def __init__(self, backlog: int = 16) -> None:
        self.socket = _NamedSocket()
        self._send, self._receive = trio.open_memory_channel[MemoryStream](backlog)

    def connect(self) -> MemoryStream:
        """The client's side of a new connection. Raises `trio.BrokenResourceError` once the listener is closed."""
        client, server = memory_stream_pair()
        self._send.send_nowait(server)
        return client

    def hand_over(self, server: MemoryStream) -> None:
        """A new connection whose server's side was made elsewhere."""
        self._send.send_nowait(server)

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
