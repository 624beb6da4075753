"""Reading and writing a stream without waiting: what the clock of all calls needs of the caller's and the model's sockets.

trio's own calls pass through a dozen Python functions and two checkpoints each, whether they have to wait or not. Here a
read or a write is one system call on a descriptor that trio has made non-blocking anyway.
"""

from __future__ import annotations

import os
from typing import Protocol, cast

import trio

# What comes is read into one place, and taken out of it before anything else runs: an object of 64 kB for each read, cut
# to the kilobyte that came, left a hole beside each frame that was kept (`bench`: 970 kB a call at slin24, instead of 550).
_buffer = bytearray(65536)
_buffers = [_buffer]
_view = memoryview(_buffer)


class NowaitIo(Protocol):
    """Reading and writing raise `OSError` when the connection is broken, each time from then on."""

    @property
    def descriptor(self) -> int | None:
        """What `epoll` watches; None: nothing can."""
        ...

    def read_nowait(self) -> bytes | None:
        """What has come; empty: the far end has finished; None: nothing new."""
        ...

    def write_nowait(self, data: bytes) -> int:
        """How many bytes were taken, from the front; 0 while the far end takes nothing."""
        ...


class _SocketIo:
    """On the file descriptor of a TCP socket.

    The descriptor is asked for each time (-1 once closed): a number kept would soon be that of another call.
    """

    __slots__ = ("_number",)

    def __init__(self, socket: trio.socket.SocketType) -> None:
        self._number = socket.fileno

    @property
    def descriptor(self) -> int | None:
        number = self._number()
        return number if number >= 0 else None

    def read_nowait(self) -> bytes | None:
        try:
            return bytes(_view[: os.readv(self._number(), _buffers)])
        except BlockingIOError:
            return None

    def write_nowait(self, data: bytes) -> int:
        try:
            return os.write(self._number(), data)
        except BlockingIOError:
            return 0


def nowait_io(stream: trio.abc.Stream) -> NowaitIo | None:
    """How to read and write `stream` without waiting: a socket's descriptor, or what a stream of tests brings itself.

    None: this stream can only be awaited (TLS, whose records trio keeps to itself).
    """
    if isinstance(stream, trio.SocketStream):
        return _SocketIo(stream.socket)
    return cast(NowaitIo, stream) if hasattr(stream, "write_nowait") else None
