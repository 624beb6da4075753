"""What to do when the caller starts to speak while the agent does: the policy of an agent's profile.

    interrupt   the agent stops at once; the server cancels by itself
    confirm     for lines that echo: the agent pauses; speech that lasts, or words that are understood, interrupt; a short
                noise was a false alarm, and the agent goes on where it paused
    off         the agent is never interrupted; what the caller says meanwhile is answered afterwards

With `confirm` and `off` the session answers nothing by itself (`create_response` and `interrupt_response` false), so that
a false alarm leaves no trace: its turn is deleted and nobody answers it. An echo of the agent's own voice ends soon after
the pause, which is what tells it from a caller: measured on nobody's line yet, the times are settings.
"""

from __future__ import annotations

import enum
from typing import Literal

# A server VAD tells the end of speech only `silence_duration_ms` after it; semantic VAD may take seconds.
SEMANTIC_WAIT_S = 1.0

Policy = Literal["interrupt", "confirm", "off"]


class Reaction(enum.Enum):
    """What the conversation is to do."""

    NOTHING = "go on"
    INTERRUPT = "stop speaking: what the caller has not heard was never said"
    HOLD = "pause, until it is clear whether this is a caller"
    RESUME = "it was a false alarm: go on where we paused"


class BargeIn:
    """The caller's speech against the agent's, judged by one policy. Times are seconds, audio positions milliseconds."""

    def __init__(self, policy: Policy, *, confirm_s: float, silence_s: float, padding_ms: int) -> None:
        """`confirm_s`: speech this long is a caller. `silence_s`: how long after its end the server tells so, which the
        position that it tells includes. `padding_ms` stand before the speech in the start that it tells (section 2.4)."""
        self.policy = policy
        self._confirm_s = confirm_s
        self._decide_s = confirm_s + silence_s
        self._padding_ms = padding_ms
        self.speaking = False
        self.held = False
        self._started_at = 0.0
        self._start_ms: int | None = None
        self._item_id = ""
        self._noise: set[str] = set()

    def speech_started(
        self, item_id: str, now: float, start_ms: int | None, *, agent_speaks: bool, protected: bool
    ) -> Reaction:
        """`agent_speaks`: something is being generated, or is still to be heard. `protected`: it may not be cut."""
        self.speaking = True
        self._item_id, self._started_at, self._start_ms = item_id, now, start_ms
        if self.policy == "interrupt" and not protected:
            return Reaction.INTERRUPT
        if self.policy == "confirm" and agent_speaks and not protected and not self.held:
            self.held = True
            return Reaction.HOLD
        return Reaction.NOTHING

    def speech_stopped(self, item_id: str, now: float, end_ms: int | None) -> Reaction:
        self.speaking = False
        if not self.held:
            return Reaction.NOTHING
        self.held = False
        if self._spoken_s(now, end_ms) >= self._confirm_s:
            return Reaction.INTERRUPT
        self._noise.add(item_id)
        return Reaction.RESUME

    def words(self, item_id: str) -> Reaction:
        """Something was understood of this turn: of the present one, or late of one before, which tells nothing."""
        return self._confirmed() if self.held and item_id == self._item_id else Reaction.NOTHING

    def tick(self, now: float) -> Reaction:
        return self._confirmed() if self.held and now - self._started_at >= self._decide_s else Reaction.NOTHING

    def is_noise(self, item_id: str) -> bool:
        """Whether this turn of the caller was a false alarm. Each is asked for once."""
        if item_id in self._noise:
            self._noise.discard(item_id)
            return True
        return False

    def deaf(self) -> Reaction:
        """Nobody tells any more when the caller stops: the session is gone, or the caller is not heard any more."""
        self.speaking = False
        held, self.held = self.held, False
        return Reaction.RESUME if held else Reaction.NOTHING

    def _confirmed(self) -> Reaction:
        self.held = False
        return Reaction.INTERRUPT

    def _spoken_s(self, now: float, end_ms: int | None) -> float:
        """How long the caller spoke: by the server's positions, or by our clock where it tells none."""
        silence_s = self._decide_s - self._confirm_s
        if end_ms is None or self._start_ms is None or end_ms <= self._start_ms:
            return now - self._started_at - silence_s
        return (end_ms - self._start_ms - self._padding_ms) / 1000 - silence_s
