"""What the generator notes of each call while it runs; `figures` makes the report of it. Times are `time.monotonic()` s."""

from __future__ import annotations

import math
from array import array
from dataclasses import dataclass, field

# 24 kHz, 16 bits.
MODEL_BYTES_PER_MS = 48
# Below the 100 ms after which the bridge feeds silence (`call.UPLINK_GAP_S`), by more than a frame.
STALL_MS = 75.0


@dataclass(slots=True)
class Reply:
    """One reply of the model: what was sent, and what the caller got of it. None: has not happened."""

    number: int
    sent_ms: int = 0
    began_at: float = 0.0  # the first delta was sent
    generated: bool = False  # all of it was sent
    heard_ms: float = 0.0
    first_heard_at: float | None = None
    last_heard_at: float | None = None
    speech_started_at: float | None = None  # the server told of a barge-in
    truncated_ms: int | None = None  # what the bridge said was heard; deleted: 0
    over: bool = False  # the next turn has come, so nothing more may be heard of it


@dataclass(slots=True)
class CallNotes:
    """One call. `arrivals` are those of all audio frames at the caller, in order."""

    number: int
    established_at: float | None = None
    replies: list[Reply] = field(default_factory=list)
    arrivals: array[float] = field(default_factory=lambda: array("d"))
    sent_ms: int = 0
    last_sent_at: float = math.inf
    stalled_ms: float = 0.0  # silences of ours that the bridge may have filled, see `frame_sent`
    appended_bytes: int = 0
    least_pending_ms: float = math.inf  # of `pending_ms`, since `forget_pending`
    clicks: list[tuple[float, float | None]] = field(default_factory=list)  # sent, arrived
    violations: list[str] = field(default_factory=list)

    def frame_sent(self, now: float, ms: int) -> None:
        """A frame has been sent to the bridge. After a longer gap than a telephone leaves (the generator was kept from its
        work) the bridge has fed the model silence of its own, and that is no fault."""
        gap_ms = (now - self.last_sent_at) * 1000
        if gap_ms > STALL_MS:
            self.stalled_ms += gap_ms
        self.last_sent_at = now
        self.sent_ms += ms

    def appended(self, size: int) -> None:
        """The model has got so many bytes of the caller's audio."""
        self.appended_bytes += size
        self.least_pending_ms = min(self.least_pending_ms, self.pending_ms)

    @property
    def pending_ms(self) -> float:
        """The caller's audio that the model has not got; what was said before there was a session is part of it."""
        return self.sent_ms - self.appended_bytes / MODEL_BYTES_PER_MS

    def forget_pending(self) -> None:
        """Begin `least_pending_ms` anew. What was sent and has not arrived changes with the bridge's haste of the moment;
        its least over a while changes with what was lost or added alone."""
        self.least_pending_ms = math.inf

    def violation(self, text: str) -> None:
        """Something that Asterisk or the real server would not put up with. The first few tell enough."""
        if len(self.violations) < 5:
            self.violations.append(f"call {self.number}: {text}")

    def reply_sounding(self, residue: int) -> Reply | None:
        """The latest reply with this number modulo 16: the only one that can be heard now."""
        for reply in reversed(self.replies[-15:]):
            if reply.number % 16 == residue:
                return reply
        return None
