"""What happens in a session, as async iterators: one bounded queue an observer, fed without waiting.

    async for change in session.changes():
        ...

An observer that is slower than the session loses the oldest entries, counted in `missed`: it never stops tools, playback or
another observer (`event_stream.Backlog` says why). A stream that nobody holds any more is gone by itself; `close`, or
`async with`, ends one sooner. When the session is lost, whoever waits gets what was queued and then its `ModelError`; when
it was closed by us the iteration ends.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Generic, TypeVar

import trio

from bridge.errors import ModelError
from bridge.event_stream import Backlog, EventFilter

_log = logging.getLogger("bridge.application")

_Entry = TypeVar("_Entry")
_warned_of: set[tuple[str, str]] = set()


def filter_of(words: Iterable[str] | None) -> EventFilter:
    """The filter of these words. Each old name of an event is warned of, once in a process. Raises `ValueError`."""
    wanted = EventFilter.parse(words)
    for old, new in wanted.renamed:
        if (old, new) not in _warned_of:
            _warned_of.add((old, new))
            _log.warning("event filter: %s is called %s now; it is taken for that", old, new)
    return wanted


def told_again(error: ModelError) -> ModelError:
    """The same error for one more waiter: an exception that is raised twice collects both tracebacks."""
    again = type(error)(str(error), code=error.code)
    again.__cause__ = error.__cause__
    return again


class EventStream(Generic[_Entry]):
    """An async iterator over what one observer wants. Iterate in one task."""

    def __init__(self, size: int, wants: Callable[[_Entry], bool]) -> None:
        self._backlog: Backlog[_Entry] = Backlog(size)
        self._wants = wants
        self._changed = trio.Event()
        self._ended = False
        self._error: ModelError | None = None

    @property
    def missed(self) -> int:
        """How many entries were dropped because this observer was slow."""
        return self._backlog.missed

    def close(self) -> None:
        """Want nothing more; the iteration ends. Idempotent."""
        self._ended = True
        self._wants = _nothing
        self._backlog = Backlog(1)
        self._changed.set()

    def __aiter__(self) -> EventStream[_Entry]:
        return self

    async def __anext__(self) -> _Entry:
        """The next entry. Cancelling loses none. Raises the session's `ModelError` once it is lost and all was told."""
        await trio.lowlevel.checkpoint()
        while (entry := self._backlog.take()) is None:
            if self._error is not None:
                raise told_again(self._error)
            if self._ended:
                raise StopAsyncIteration
            await self._changed.wait()
        return entry

    async def __aenter__(self) -> EventStream[_Entry]:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def offer(self, entry: _Entry) -> None:
        """Queue an entry if it is wanted. For the session."""
        if not self._ended and self._wants(entry):
            self._backlog.put(entry)
            self._wake()

    def end(self, error: ModelError | None) -> None:
        """Nothing more comes: the session is lost (`error`) or closed. For the session."""
        if not self._ended:
            self._ended, self._error = True, error
            self._wake()

    def _wake(self) -> None:
        self._changed.set()
        if not self._ended:
            self._changed = trio.Event()


def _nothing(_entry: object) -> bool:
    return False


class Observers(Generic[_Entry]):
    """The streams of one kind. Holds them weakly."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._streams: weakref.WeakSet[EventStream[_Entry]] = weakref.WeakSet()
        self._ended = False
        self._error: ModelError | None = None

    @property
    def any(self) -> bool:
        """Whether anybody listens: without, nothing needs to be prepared for `tell`."""
        return bool(self._streams)

    def open(self, wants: Callable[[_Entry], bool]) -> EventStream[_Entry]:
        """A stream that hears of everything from now on."""
        stream = EventStream(self._size, wants)
        if self._ended:
            stream.end(self._error)
        self._streams.add(stream)
        return stream

    def tell(self, entry: _Entry) -> None:
        """Offer an entry to all."""
        for stream in list(self._streams):
            stream.offer(entry)

    def end(self, error: ModelError | None) -> None:
        """The first end counts."""
        if not self._ended:
            self._ended, self._error = True, error
            for stream in list(self._streams):
                stream.end(error)
