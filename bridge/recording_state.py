"""The life of one recording: begun once, paused by as many as want it, ended, declined or failed for good.

    state      BEGIN      PAUSE     RESUME    END      DECLINE     FAIL
    WAITING    RUNNING    -         -         ENDED    -           FAILED
    RUNNING    -          PAUSED    -         ENDED    DECLINED    FAILED
    PAUSED     -          -         RUNNING   ENDED    DECLINED    FAILED

ENDED, DECLINED and FAILED are final. Each method answers with the steps to be carried out, often none.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping


class RecordingState(enum.Enum):
    WAITING = "waiting"
    RUNNING = "running"
    PAUSED = "paused"
    ENDED = "ended"
    DECLINED = "declined"
    FAILED = "failed"


class RecordingStep(enum.Enum):
    """What is done to a recording; all but FAIL is also what Asterisk is asked for (`leg.CallControl.record`)."""

    BEGIN = "begin"
    PAUSE = "pause"
    RESUME = "resume"
    END = "end"
    DECLINE = "decline"
    FAIL = "fail"


_W, _R, _P = RecordingState.WAITING, RecordingState.RUNNING, RecordingState.PAUSED
_ENDS = {
    RecordingStep.END: RecordingState.ENDED,
    RecordingStep.DECLINE: RecordingState.DECLINED,
    RecordingStep.FAIL: RecordingState.FAILED,
}
TRANSITIONS: Mapping[tuple[RecordingState, RecordingStep], RecordingState] = {
    (_W, RecordingStep.BEGIN): _R,
    (_W, RecordingStep.END): RecordingState.ENDED,
    (_W, RecordingStep.FAIL): RecordingState.FAILED,
    (_R, RecordingStep.PAUSE): _P,
    (_P, RecordingStep.RESUME): _R,
    **{(state, step): end for state in (_R, _P) for step, end in _ENDS.items()},
}


class RecordingLife:
    """What may happen to a recording next. A step that the table does not know changes nothing and is not carried out."""

    def __init__(self) -> None:
        self.state = RecordingState.WAITING
        self._holders: set[str] = set()

    @property
    def running(self) -> bool:
        """What passes is to be kept."""
        return self.state is RecordingState.RUNNING

    @property
    def over(self) -> bool:
        return self.state not in (RecordingState.WAITING, RecordingState.RUNNING, RecordingState.PAUSED)

    def begin(self) -> list[RecordingStep]:
        """The caller is on the line. Whoever paused it before that is obeyed at once."""
        steps = self.step(RecordingStep.BEGIN)
        return [*steps, *self.step(RecordingStep.PAUSE)] if steps and self._holders else steps

    def pause(self, holder: str) -> list[RecordingStep]:
        """Pause until `holder`, and everybody else who paused it, resumes."""
        self._holders.add(holder)
        return self.step(RecordingStep.PAUSE)

    def resume(self, holder: str) -> list[RecordingStep]:
        """`holder` needs no pause any more."""
        self._holders.discard(holder)
        return [] if self._holders else self.step(RecordingStep.RESUME)

    def step(self, step: RecordingStep) -> list[RecordingStep]:
        following = TRANSITIONS.get((self.state, step))
        if following is None:
            return []
        self.state = following
        return [step]
