"""An entry of the agent's profile that a caller keys in: one collection, from the tool call to its outcome. Pure.

    the caller                                outcome
    max_digits keys, or the terminator        COMPLETE (the terminator too early: TOO_FEW)
    no further key within pause_s             COMPLETE from min_digits on, else TOO_FEW
    no key at all within timeout_s            NOTHING: counted from the end of the agent's words; a key cuts those short
    speaks, before the first key              SPOKE (not where the entry is secure: nobody listens then)
    leaves, is handed over ...                STOPPED

A caller on hold presses nothing: time stands still. After the last digit the terminator may still come, out of habit.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

import msgspec

from bridge.collect import Collect


class Outcome(enum.Enum):
    """How a collection ended, in the words that the model is told."""

    COMPLETE = "complete"
    TOO_FEW = "too few digits"
    NOTHING = "no key was pressed"
    SPOKE = "the caller spoke instead"
    STOPPED = "broken off"


@dataclass(frozen=True, slots=True)
class Collected:
    """What came of it. The digits are in no text that this makes of itself."""

    name: str
    outcome: Outcome
    secure: bool
    count: int
    digits: str = field(repr=False)

    @property
    def output(self) -> str:
        """What the model is told, as the one output of its call."""
        told: dict[str, object] = {"result": self.outcome.value, "count": self.count}
        if self.secure:
            told["digits"] = "kept secret; tools have them" if self.outcome is Outcome.COMPLETE else "not kept"
        else:
            told["digits"] = self.digits
        return msgspec.json.encode(told).decode()


class Collecting:
    """One collection. `call_id`: the model's call. Times are seconds of any monotonic clock."""

    def __init__(self, call_id: str, name: str, entry: Collect, now: float) -> None:
        self.call_id = call_id
        self.name = name
        self.entry = entry
        self._digits = ""
        self._since = now  # the last key, or the end of the agent's words

    @property
    def begun(self) -> bool:
        """A key has been pressed."""
        return bool(self._digits)

    def key(self, key: str, now: float) -> Collected | None:
        """A key; the outcome, if it was the last one."""
        self._since = now
        if key == self.entry.terminator:
            return self._so_far()
        self._digits += key
        return self._so_far() if len(self._digits) == self.entry.max_digits else None

    def spoke(self) -> Collected | None:
        """The caller said something. While keys are pressed that is a murmur, or the sound of a key."""
        return None if self.begun or self.entry.secure else self._ended(Outcome.SPOKE)

    def tick(self, now: float, *, waits: bool) -> Collected | None:
        """Time has passed. `waits`: the caller can not be expected to press anything yet."""
        if waits and not self.begun:
            self._since = now
        if self.begun and now - self._since >= self.entry.pause_s:
            return self._so_far()
        if not self.begun and now - self._since >= self.entry.timeout_s:
            return self._ended(Outcome.NOTHING)
        return None

    def held(self, now: float) -> None:
        """The caller is on hold."""
        self._since = now

    def stop(self) -> Collected:
        """It is of no use any more."""
        return self._ended(Outcome.STOPPED)

    def _so_far(self) -> Collected:
        enough = len(self._digits) >= self.entry.min_digits
        return self._ended(Outcome.COMPLETE if enough else Outcome.TOO_FEW)

    def _ended(self, outcome: Outcome) -> Collected:
        return Collected(self.name, outcome, self.entry.secure, len(self._digits), self._digits)
