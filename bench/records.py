"""What the generator notes of each call while it runs; `figures` makes the report of it. Times are `time.monotonic()` s."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field


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
    frames_sent: int = 0
    appended_bytes: int = 0
    clicks: list[tuple[float, float | None]] = field(default_factory=list)  # sent, arrived
    violations: list[str] = field(default_factory=list)

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
