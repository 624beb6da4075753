"""How long one call outlives its model sessions: when to open another, when to change over, when to give up.

    event                       ALONE               OPENING                 READY
    the session's end is near   -> OPENING: open
    the successor stands                            -> READY
    it could not be opened                          -> ALONE, again later
    a quiet moment                                                          -> ALONE: change over
    the session is lost         open (or give up)   open, what comes is     use it
                                                    too late

A session has a longest life (OpenAI 60 minutes, Azure 30), is not warned before it, and can not be resumed: another one is
opened beside it, told what was said, and takes over between two turns (protocol sheet 1.4, 3.15).
"""

from __future__ import annotations

import enum

# How long before its end a session is replaced, and from when on the agent may be speaking while that happens: its
# words are on our side already then, but a cut of them is told to the new session with more effort.
ROLLOVER_LEAD_S = 120.0
ROLLOVER_HURRY_S = 30.0
ROLLOVER_RETRY_S = 10.0
# A session as short as this is no session to prepare the end of: it is used until it ends.
SHORTEST_LIFE_S = 60.0
# So many losses with no completed response between them: another session would not help.
MAX_LOSSES = 3


class Successor(enum.Enum):
    NONE = "none"
    OPENING = "opening"
    READY = "ready"


class Change(enum.Enum):
    """What the shell is to do."""

    OPEN_SUCCESSOR = "open another session beside this one"
    SWAP = "change over to it now"


class Continuity:
    """The sessions of one call. Times are seconds of any monotonic clock."""

    def __init__(self) -> None:
        self.successor = Successor.NONE
        self.losses = 0
        self._in_a_row = 0
        self._ends_at: float | None = None
        self._lead_s = ROLLOVER_LEAD_S
        self._not_before = 0.0

    def connected(self, now: float, lifetime_s: float | None) -> None:
        """A session stands; `lifetime_s` until it ends by itself, None where nobody knows."""
        self.successor = Successor.NONE
        self._not_before = 0.0
        self._ends_at = None
        if lifetime_s is not None and lifetime_s >= SHORTEST_LIFE_S:
            self._ends_at = now + lifetime_s
            # With the whole lead a session of two minutes would be replaced as soon as it stands, and its successor too.
            self._lead_s = min(ROLLOVER_LEAD_S, lifetime_s / 2)

    def progress(self) -> None:
        """A response was completed: this session works."""
        self._in_a_row = 0

    def lost(self) -> bool:
        """The session is gone. Whether another one is to be opened."""
        self.losses += 1
        self._in_a_row += 1
        self._ends_at = None
        return self._in_a_row <= MAX_LOSSES

    def successor_ready(self) -> None:
        self.successor = Successor.READY

    def successor_failed(self, now: float) -> None:
        self.successor = Successor.NONE
        self._not_before = now + ROLLOVER_RETRY_S

    def tick(self, now: float, *, between_turns: bool, quiet: bool) -> Change | None:
        """`between_turns`: nobody generates or speaks. `quiet`: the caller has heard everything, too."""
        if self._ends_at is None:
            return None
        left_s = self._ends_at - now
        if self.successor is Successor.NONE and left_s <= self._lead_s and now >= self._not_before:
            self.successor = Successor.OPENING
            return Change.OPEN_SUCCESSOR
        if self.successor is Successor.READY and (quiet or (between_turns and left_s <= ROLLOVER_HURRY_S)):
            return Change.SWAP
        return None
