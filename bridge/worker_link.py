"""Between the supervisor and one worker: a pair of sockets, JSON lines both ways.

    worker -> supervisor   a `health.Report`, each second and soon after its state changes; its metrics in each fifth one
    supervisor -> worker   {"order":"drain"} or {"order":"stop"}

The worker's end is a file descriptor that it inherits, named in the environment. When either side dies, however suddenly,
the kernel closes its end, and the other one knows.
"""

from __future__ import annotations

import math
import os
import socket
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Generic, TypeVar

import msgspec
import trio

from bridge.health import Report
from bridge.metrics import Family
from bridge.worker_policy import Order

DESCRIPTOR_VARIABLE = "BRIDGE_SUPERVISOR_FD"
# A report with all metrics of 20 agents with 10 tools has 150 kB.
LONGEST_LINE = 1 << 20
REPORT_EACH_S = 1.0
# Prometheus asks each 15 s or more seldom.
MEASURED_EACH_S = 5.0
# How soon a change is told. Looked for rather than waited for: it is one of the listener, ARI, drain, count or lateness.
_LOOK_EACH_S = 0.25


T = TypeVar("T")


class LinkError(Exception):
    """The other side of a link has sent what is no line of this protocol."""


class OrderLine(msgspec.Struct, frozen=True):
    order: Order


def link() -> tuple[trio.SocketStream, socket.socket]:
    """The supervisor's end, and the worker's, to be passed on and then closed here."""
    ours, theirs = socket.socketpair()
    return trio.SocketStream(trio.socket.from_stdlib_socket(ours)), theirs


def inherited(environ: Mapping[str, str]) -> trio.SocketStream | None:
    """The worker's end, where a supervisor started this process; call it once, inside trio."""
    number = environ.get(DESCRIPTOR_VARIABLE)
    if not number:
        return None
    os.set_inheritable(int(number), False)  # a tool's subprocess must not keep the supervisor from noticing our end
    return trio.SocketStream(trio.socket.from_stdlib_socket(socket.socket(fileno=int(number))))


class Receiver(Generic[T]):
    """What the other side sends, one `kind` a line. One task may `receive`; cancelling loses nothing."""

    def __init__(self, stream: trio.abc.ReceiveStream, kind: type[T]) -> None:
        self._stream, self._kind = stream, kind
        self._lines: deque[bytes] = deque()
        self._rest = b""

    async def receive(self) -> T | None:
        """The next one; None: the other side is gone. Raises `LinkError` for a line that is none, or is too long."""
        while not self._lines:
            try:
                data = await self._stream.receive_some(65536)
            except trio.BrokenResourceError:
                return None
            if not data:
                return None
            *whole, self._rest = (self._rest + data).split(b"\n")
            self._lines.extend(whole)
            if len(self._rest) > LONGEST_LINE:
                raise LinkError(f"a line of more than {LONGEST_LINE} bytes")
        line = self._lines.popleft()
        try:
            return msgspec.json.decode(line, type=self._kind)
        except msgspec.DecodeError as error:
            raise LinkError(f"not {self._kind.__name__}: {error}") from error


async def report_to(
    stream: trio.abc.SendStream,
    report: Callable[[], Report],
    families: Callable[[], Iterable[Family]] = tuple,
) -> None:
    """Send reports for ever, or until the supervisor is gone. One that it does not read waits; none queues up."""
    told, told_at, measured_at = None, 0.0, -math.inf
    try:
        while True:
            now, latest = trio.current_time(), report()
            if told is None or told.state != latest.state or now - told_at >= REPORT_EACH_S:
                told, told_at = latest, now
                if now - measured_at >= MEASURED_EACH_S:
                    measured, measured_at = [], now
                    for family in families():
                        measured.append(family)
                        await trio.lowlevel.checkpoint()  # the media clock comes first
                    latest = msgspec.structs.replace(latest, families=measured)
                await stream.send_all(msgspec.json.encode(latest) + b"\n")
            await trio.sleep(_LOOK_EACH_S)
    except trio.BrokenResourceError:
        return  # whoever receives orders learns of it
