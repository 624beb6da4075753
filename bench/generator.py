"""All callers and the Realtime server in one loop of one process: non-blocking sockets, `epoll`, no framework.

The loop wakes each 0.25 ms, sends what is due, and reads whatever has come; it never sleeps in `epoll`, whose timeout
has milliseconds, and it is not woken for each packet, which would cost more than handling it. So a time that it notes is
up to 0.25 ms late when it has nothing else to do. `lateness` says how late it was with its own sends: what was measured
is worth no more than that.
"""

from __future__ import annotations

import gc
import heapq
import itertools
import select
import socket
import time
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from bench.caller import FRAME_MS, CallerEnd
from bench.model import ModelEnd, Talk
from bench.records import CallNotes
from bench.tls import Identity, TlsSocket

TICK_S = 0.00025
_SLOTS = round(FRAME_MS / 1000 / TICK_S)
# Neighbours in the order of arrival are far apart in the 20 ms: the golden ratio spreads any number of calls evenly.
_SPREAD = 0.6180339887
_SETUP_LIMIT_S = 10.0


class SetUpFailed(Exception):
    """A call did not get its Realtime session in time."""


class Generator:
    """`dial` calls, `run_for` some time, look at `calls`, `hang_up`."""

    def __init__(self, rate_hz: int, talk: Talk, tls: Identity | None = None) -> None:
        self.calls: list[CallNotes] = []
        self.lateness: array[float] = array("d")  # seconds, one a frame sent
        self._rate_hz, self._talk = rate_hz, talk
        self._tls = tls.server_context() if tls is not None else None
        self._slots: list[list[CallerEnd]] = [[] for _ in range(_SLOTS)]
        self._ends: dict[int, CallerEnd | ModelEnd] = {}
        self._readers: dict[int, Callable[[], None]] = {}
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._poll = select.epoll()
        self._tick = 0
        self._started_at = time.monotonic()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self._listener.setblocking(False)
        self._poll.register(self._listener.fileno(), select.EPOLLIN)
        self._readers[self._listener.fileno()] = self._accept
        self._dialled: CallNotes | None = None

    @property
    def url(self) -> str:
        """Where the bridge finds the Realtime server."""
        scheme = "ws" if self._tls is None else "wss"
        return f"{scheme}://127.0.0.1:{self._listener.getsockname()[1]}/v1/realtime"

    def dial(self, address: tuple[str, int]) -> CallNotes:
        """Set one call up, and run the others meanwhile. Raises `SetUpFailed`.

        One after the other, so that the next websocket connection is known to belong to the call that was dialled; and
        each at its own place in the 20 ms, since the bridge's clock of a call begins with the call.
        """
        notes = CallNotes(len(self.calls))
        slot = int(notes.number * _SPREAD % 1.0 * _SLOTS)
        self._run_until(lambda: self._tick % _SLOTS == slot, _SETUP_LIMIT_S)
        self.calls.append(notes)
        self._dialled = notes
        caller = CallerEnd(notes, address, self._rate_hz)
        self._add(caller)
        self._slots[slot].append(caller)
        self._run_until(lambda: notes.established_at is not None or bool(notes.violations), _SETUP_LIMIT_S)
        if notes.established_at is None:
            why = "; ".join(notes.violations) or f"no session within {_SETUP_LIMIT_S:g} s"
            raise SetUpFailed(f"call {notes.number}: {why}")
        return notes

    def run_for(self, seconds: float) -> None:
        """Let the calls go on."""
        deadline = time.monotonic() + seconds
        self._run_until(lambda: time.monotonic() >= deadline, seconds + 1)

    def hang_up(self, grace_s: float = 1.5) -> None:
        """All callers hang up; the bridge has a moment to close its sessions in order."""
        for callers in self._slots:
            for caller in callers:
                if not caller.closed:
                    caller.close()
            callers.clear()
        self._forget_closed()
        deadline = time.monotonic() + grace_s
        self._run_until(lambda: not self._forget_closed() or time.monotonic() >= deadline, grace_s + 1)
        for end in self._ends.values():
            end.close()
        self._ends.clear()

    def close(self) -> None:
        """Free everything."""
        self.hang_up(0.0)
        self._listener.close()
        self._poll.close()

    def forget(self) -> None:
        """Drop the notes of calls that have ended (the one that warms the bridge up)."""
        self.calls.clear()

    # The loop --------------------------------------------------------------------------------------------------------

    def _run_until(self, done: Callable[[], bool], limit_s: float) -> None:
        clock, timers, slots, poll = time.monotonic, self._timers, self._slots, self._poll
        deadline = clock() + limit_s
        while not done():
            now = clock()
            if now > deadline:
                return
            due = self._started_at + self._tick * TICK_S
            if now < due:
                time.sleep(due - now)
            else:
                for caller in slots[self._tick % _SLOTS]:
                    if not caller.closed:
                        self.lateness.append(clock() - due)
                        caller.send_frame()
                self._tick += 1
                if now - due > TICK_S:
                    continue  # behind: the frames first
            while timers and timers[0][0] <= now:
                heapq.heappop(timers)[2]()
            for descriptor, mask in poll.poll(0):
                if mask & ~select.EPOLLOUT:
                    self._readers[descriptor]()
                if mask & select.EPOLLOUT:
                    self._write(descriptor)

    def _at(self, when: float, callback: Callable[[], None]) -> None:
        heapq.heappush(self._timers, (when, next(self._order), callback))

    def _add(self, end: CallerEnd | ModelEnd) -> None:
        descriptor = end.socket.fileno()
        self._ends[descriptor] = end
        self._readers[descriptor] = end.on_readable
        self._poll.register(descriptor, select.EPOLLIN)

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        if self._dialled is None:
            # A second connection for one call: a bridge that has tried again.
            self.calls[-1].violation("a Realtime connection that belongs to no call")
            connection.close()
            return
        end = connection if self._tls is None else TlsSocket(connection, self._tls)
        self._add(ModelEnd(self._dialled, end, self._at, self._stuck, self._talk))
        self._dialled = None

    def _forget_closed(self) -> int:
        """How many connections are left. A closed socket leaves `epoll` by itself."""
        self._ends = {descriptor: end for descriptor, end in self._ends.items() if not end.closed}
        return len(self._ends)

    def _stuck(self, end: ModelEnd) -> None:
        """The rule is that a socket takes everything at once; this one did not, so `epoll` is to tell when it does."""
        self._poll.modify(end.socket.fileno(), select.EPOLLIN | select.EPOLLOUT)

    def _write(self, descriptor: int) -> None:
        end = self._ends[descriptor]
        if isinstance(end, ModelEnd) and not end.closed:
            self._poll.modify(descriptor, select.EPOLLIN)
            end.on_writable()


@contextmanager
def undisturbed() -> Iterator[None]:
    """No garbage collector meanwhile: its full runs take 10 ms and more with some million notes."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()
