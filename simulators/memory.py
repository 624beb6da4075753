"""A listener without a network: servers of the simulators and of the bridge run on it in virtual time."""

from __future__ import annotations

import socket
from typing import cast

import trio
import trio.testing


class _NamedSocket:
    """The one question that websockets' server asks of a listener's socket: its name, for the log."""

    family = socket.AF_UNIX

    def getsockname(self) -> str:
        return "memory"


class MemoryListener(trio.abc.Listener[trio.abc.Stream]):
    """Hands the server's side of each `connect()` to whoever serves it. Full (16 waiting): `trio.WouldBlock`."""

    def __init__(self) -> None:
        self.socket = _NamedSocket()
        self._send, self._receive = trio.open_memory_channel[trio.abc.Stream](16)

    def connect(self) -> trio.abc.Stream:
        """The client's side of a new connection. Raises `trio.BrokenResourceError` once the listener is closed."""
        client, server = trio.testing.memory_stream_pair()
        self._send.send_nowait(server)
        return client

    async def accept(self) -> trio.abc.Stream:
        """The server's side of the next connection. Raises `trio.ClosedResourceError` after `aclose`."""
        return await self._receive.receive()

    async def aclose(self) -> None:
        """Refuse new connections."""
        self._receive.close()
        await trio.lowlevel.checkpoint()

    def as_socket_listener(self) -> trio.SocketListener:
        """The same object under the type that websockets' `serve(listeners=…)` is annotated with."""
        return cast(trio.SocketListener, self)
