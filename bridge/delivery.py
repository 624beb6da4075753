"""When what waits for its delivery is tried, tried again, and given up. Without I/O; `hook_delivery` carries out.

    Message     one POST: the events of a call, or its end
    lane        the messages of one call to one URL, which go in order, one at a time
    receiver    one URL: a few lanes at once; one at a time while it fails, until something gets through again

What fails waits with its lane, longer each time (`webhook.backoff_s`). A receiver that can not be reached waits as a
whole, so that ten thousand messages for a dead one are one try each few minutes; one that refuses a single call's message
goes on with the others. The end of a call waits for that call's events: always where they go to the same URL, else as long
as those get through.
"""

from __future__ import annotations

import enum
import heapq
import itertools
import math
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from bridge.webhook import backoff_s

# POSTs that are under way to one URL.
MOST_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class Message:
    """`name` is its file's, and unique. `put_unix_s`: since when it waits."""

    name: str
    url: str
    call_id: str
    kind: Literal["events", "action"]
    put_unix_s: float


class _State(enum.Enum):
    READY = "may be tried"
    BUSY = "is under way"
    SLEEPING = "has failed, and waits"
    BLOCKED = "waits for the events of its call"
    EMPTY = "is over"


@dataclass(slots=True, eq=False)
class _Lane:
    url: str
    call_id: str
    messages: deque[Message] = field(default_factory=deque)
    state: _State = _State.EMPTY
    failures: int = 0
    not_before: float = 0.0

    @property
    def only_the_end(self) -> bool:
        return bool(self.messages) and self.messages[0].kind == "action"


@dataclass(slots=True)
class _Receiver:
    ready: deque[_Lane] = field(default_factory=deque)
    sleeping: list[tuple[float, int, _Lane]] = field(default_factory=list)
    lanes: dict[str, _Lane] = field(default_factory=dict)
    under_way: int = 0
    failures: int = 0
    not_before: float = 0.0

    @property
    def places(self) -> int:
        """How many more lanes may be tried."""
        return (1 if self.failures else MOST_AT_ONCE) - self.under_way


class Deliveries:
    """All that waits in one process. `now` is a monotonic clock's, `now_unix_s` the world's; `chance` gives 0 to 1."""

    def __init__(self, give_up_after_s: float, chance: Callable[[], float]) -> None:
        self._give_up_after_s = give_up_after_s
        self._chance = chance
        self._receivers: dict[str, _Receiver] = {}
        self._of_call: dict[str, list[_Lane]] = {}
        self._waiting: dict[str, Message] = {}
        self._numbers = itertools.count()

    def __len__(self) -> int:
        """How many messages wait, those that are under way included."""
        return len(self._waiting)

    @property
    def oldest_unix_s(self) -> float | None:
        """Since when the oldest waits; None: nothing does."""
        return next(iter(self._waiting.values())).put_unix_s if self._waiting else None

    def add(self, *messages: Message) -> None:
        """These wait from now on, each behind what was added before it for its call and URL."""
        newest = next(reversed(self._waiting.values())) if self._waiting else None
        for message in messages:
            self._waiting[message.name] = message
            receiver = self._receivers.setdefault(message.url, _Receiver())
            lane = receiver.lanes.get(message.call_id)
            if lane is None:
                lane = receiver.lanes[message.call_id] = _Lane(message.url, message.call_id)
                self._of_call.setdefault(message.call_id, []).append(lane)
            lane.messages.append(message)
            if lane.state is _State.EMPTY:
                self._settle(receiver, lane)
        if newest and messages and messages[0].put_unix_s < newest.put_unix_s:  # left by a dead process
            self._waiting = dict(sorted(self._waiting.items(), key=lambda item: item[1].put_unix_s))

    def take(self, now: float) -> list[Message]:
        """What is to be tried now. For each, `delivered`, `failed` or `dropped` has to follow."""
        taken = []
        for receiver in self._receivers.values():
            while receiver.sleeping and receiver.sleeping[0][0] <= now:
                lane = heapq.heappop(receiver.sleeping)[2]
                if lane.state is _State.SLEEPING:
                    self._settle(receiver, lane)
            if receiver.not_before > now:
                continue
            while receiver.places > 0 and receiver.ready:
                lane = receiver.ready.popleft()
                if lane.state is _State.READY:
                    lane.state = _State.BUSY
                    receiver.under_way += 1
                    taken.append(lane.messages[0])
        return taken

    def next_at(self) -> float:
        """When `take` may have something, unless something happens before; infinity: never."""
        found = math.inf
        for receiver in self._receivers.values():
            if receiver.places > 0:
                if any(lane.state is _State.READY for lane in receiver.ready):
                    found = min(found, receiver.not_before)
                elif receiver.sleeping:
                    found = min(found, max(receiver.sleeping[0][0], receiver.not_before))
        return found

    def delivered(self, message: Message) -> None:
        """It was taken."""
        receiver, lane = self._back(message)
        receiver.failures, receiver.not_before = 0, 0.0
        self._done(receiver, lane, message)

    def dropped(self, message: Message) -> None:
        """It will never be taken, or is damaged: the next one of its lane may go."""
        receiver, lane = self._back(message)
        self._done(receiver, lane, message)

    def failed(self, message: Message, now: float, *, unreachable: bool, retry_after_s: float = 0.0) -> float:
        """Another try later; returns in how many seconds at the earliest. `unreachable`: so are other calls' messages."""
        receiver, lane = self._back(message)
        lane.failures += 1
        pause_s = max(backoff_s(lane.failures, self._chance()), retry_after_s)
        lane.not_before = now + pause_s
        lane.state = _State.SLEEPING
        heapq.heappush(receiver.sleeping, (lane.not_before, next(self._numbers), lane))
        affected = [lane]
        if unreachable:
            if not receiver.failures:
                affected = list(receiver.lanes.values())
            receiver.failures += 1
            receiver.not_before = now + max(backoff_s(receiver.failures, self._chance()), retry_after_s)
        for other in affected:
            self._unblock(other.call_id)
        return max(lane.not_before, receiver.not_before) - now

    def given_up(self, now_unix_s: float) -> list[Message]:
        """What has waited too long; it waits no more. What is under way may still get through."""
        found = []
        for receiver in list(self._receivers.values()):
            for lane in list(receiver.lanes.values()):
                kept = 1 if lane.state is _State.BUSY else 0
                while len(lane.messages) > kept and self._is_too_old(lane.messages[kept], now_unix_s):
                    message = lane.messages[kept]
                    del lane.messages[kept]
                    del self._waiting[message.name]
                    found.append(message)
                if not lane.messages:
                    self._forget(receiver, lane)
        return found

    def _is_too_old(self, message: Message, now_unix_s: float) -> bool:
        return now_unix_s - message.put_unix_s > self._give_up_after_s

    def _back(self, message: Message) -> tuple[_Receiver, _Lane]:
        receiver = self._receivers[message.url]
        receiver.under_way -= 1
        return receiver, receiver.lanes[message.call_id]

    def _done(self, receiver: _Receiver, lane: _Lane, message: Message) -> None:
        lane.messages.popleft()
        lane.failures = 0
        del self._waiting[message.name]
        if lane.messages:
            self._settle(receiver, lane)
        else:
            self._forget(receiver, lane)

    def _settle(self, receiver: _Receiver, lane: _Lane) -> None:
        """It has messages, and nothing of it is under way."""
        others = (other for other in self._of_call[lane.call_id] if other is not lane)
        if lane.only_the_end and any(self._gets_through(other) for other in others):
            lane.state = _State.BLOCKED
        else:
            lane.state = _State.READY
            receiver.ready.append(lane)

    def _gets_through(self, lane: _Lane) -> bool:
        """Whether this lane has events that will soon be delivered."""
        if not lane.messages or lane.only_the_end:
            return False
        return not lane.failures and not self._receivers[lane.url].failures

    def _unblock(self, call_id: str) -> None:
        for lane in self._of_call.get(call_id, ()):
            if lane.state is _State.BLOCKED:
                self._settle(self._receivers[lane.url], lane)

    def _forget(self, receiver: _Receiver, lane: _Lane) -> None:
        lane.state = _State.EMPTY
        del receiver.lanes[lane.call_id]
        if not receiver.lanes and not receiver.under_way:
            del self._receivers[lane.url]
        others = self._of_call[lane.call_id]
        others.remove(lane)
        if others:
            self._unblock(lane.call_id)
        else:
            del self._of_call[lane.call_id]

    def waiting(self) -> Iterator[Message]:
        """All, oldest first."""
        return iter(self._waiting.values())
