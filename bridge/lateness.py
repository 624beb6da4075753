"""Is this process in time? The share of late frames lately, by which new calls are admitted.

A process that sends its frames late is full, whatever `server.max_calls` says: every further call makes all others worse.
Pure: `now` is any monotonic clock in seconds.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from dataclasses import dataclass, field

from bridge.metrics import Distribution

# Long enough that one stall of the machine (80 ms) turns nobody away, short enough that a caller who was turned away
# and dials again finds the line free.
WINDOW_S = 10
# "p99": of a hundred frames one may be later.
_TOLERATED = 0.01
# What `p99_ms` tells apart, and where it ends: whatever is later, or never comes, is as bad.
_STEP_MS, _STEPS = 0.5, 400


@dataclass(slots=True)
class _Second:
    """What happened in one second; `late` by more than the limit, `tardy` by more than half of it."""

    number: int
    frames: int = 0
    late: int = 0
    tardy: int = 0
    steps: dict[int, int] = field(default_factory=dict)


class Lateness:
    """`note` each turn of the clock; ask `too_late` before another call is let in.

    `limit_ms` is what the 99th percentile of the last `WINDOW_S` may be; 0: any. Once it was more, it counts as too late
    until it is below half of the limit, so that a process at its edge does not let every second caller in.
    """

    def __init__(self, limit_ms: float) -> None:
        self.limit_ms = limit_ms
        self._seconds: deque[_Second] = deque()
        self._too_late = False
        self.sent = Distribution()
        """Of all frames since the process began."""
        self.lost = 0

    def note(self, frames: int, late_s: float, now: float) -> None:
        """So many frames were sent this late, or never (`late_s` infinite)."""
        if late_s < math.inf:
            self.sent.add(max(late_s, 0.0), frames)
        else:
            self.lost += frames
        seconds, number = self._seconds, int(now)
        if not seconds or seconds[-1].number != number:
            self._forget(number)
            seconds.append(_Second(number))
        second = seconds[-1]
        second.frames += frames
        step = int(min(max(late_s * 1000 / _STEP_MS, 0), _STEPS))
        second.steps[step] = second.steps.get(step, 0) + frames
        if late_s * 2000 > self.limit_ms:
            second.tardy += frames
            if late_s * 1000 > self.limit_ms:
                second.late += frames

    def too_late(self, now: float) -> bool:
        """Whether another call would be one too many."""
        if not self.limit_ms:
            return False
        self._forget(int(now))
        frames = sum(second.frames for second in self._seconds)
        beyond = sum(second.tardy if self._too_late else second.late for second in self._seconds)
        self._too_late = beyond > frames * _TOLERATED
        return self._too_late

    def p99_ms(self, now: float) -> float:
        """How late the 99th percentile of the last `WINDOW_S` was, in steps of half a millisecond; 0.0 without calls."""
        self._forget(int(now))
        together = Counter[int]()
        for second in self._seconds:
            together.update(second.steps)
        beyond = sum(together.values()) * _TOLERATED
        for step in sorted(together, reverse=True):
            beyond -= together[step]
            if beyond < 0:
                return (step + 1) * _STEP_MS
        return 0.0

    def _forget(self, number: int) -> None:
        while self._seconds and self._seconds[0].number <= number - WINDOW_S:
            self._seconds.popleft()
