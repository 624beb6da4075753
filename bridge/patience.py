"""What a caller hears while the model owes something and is silent: when, and which sound. Pure; the caller plays it.

    the wait            4 s            4 s             4 s
    begins v            |   v          |   v           |
    ------silence------ONE_MOMENT-----FILLER----------STILL_THERE------FILLER ...

* No silence is longer than `limit_s`: counted from the start of the wait, and then from the end of each sound.
* Words are spoken at the first of these, and then again when the last ones are `repeat_s` ago; what comes between is the
  filler, which does not nag.
* While the server's rate limit makes us wait, the first words are BUSY, once in a wait.
* A sound that the operator has switched off (it has no length) is replaced by the next best one; with none left nothing
  is played, and `longest_silence_s` says so.

All of that holds to the tick: at one `tick` in 250 ms a caller hears nothing for at most `limit_s` + 0.25 s + what the
sound waits in the queue (one frame of 20 ms, since nothing else is audible).
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

from bridge.sounds import Sound


class Why(enum.Enum):
    """What the caller waits for."""

    MODEL = "model"
    TOOL = "tool"
    RECONNECTING = "reconnecting"
    RATE_LIMITED = "rate_limited"


class Patience:
    """One call's waiting. Time is any clock in seconds that does not go back."""

    def __init__(self, limit_s: float, repeat_s: float, lengths_s: Mapping[Sound, float]) -> None:
        """`limits.caller_waits_s`, `limits.caller_waits_repeat_s`, and the length of each sound that can be played."""
        self._limit_s = limit_s
        self._repeat_s = repeat_s
        self._lengths_s = lengths_s
        self._why = Why.MODEL
        # The start of the silence; in the future while our own sound is playing; None: the caller does not wait for us.
        self._quiet_since: float | None = None
        self._spoken_until: float | None = None
        self._busy_said = False
        self.longest_silence_s = 0.0

    def waiting(self, why: Why, now: float) -> None:
        """It is our turn and nothing of the model's is audible. May be repeated: the wait began with the first."""
        self._why = why
        if self._quiet_since is None:
            self._quiet_since = now

    def heard(self, now: float) -> None:
        """The wait is over: the model is audible, the caller speaks, or it is the caller's turn. May be repeated.

        Not for the sounds that `tick` returned: those are part of the wait, and counted as audible already.
        """
        self._measure(now)
        self._quiet_since = None
        self._spoken_until = None
        self._busy_said = False

    def tick(self, now: float) -> Sound | None:
        """What must begin to play now, if anything. The caller plays it whole, unless the model or a person interrupts."""
        self._measure(now)
        if self._quiet_since is None or now - self._quiet_since < self._limit_s:
            return None
        sound = self._choose(now)
        if sound is None:
            return None
        self._quiet_since = now + self._lengths_s[sound]
        if sound is not Sound.FILLER:
            self._spoken_until = self._quiet_since
        self._busy_said |= sound is Sound.BUSY
        return sound

    def _measure(self, now: float) -> None:
        if self._quiet_since is not None:
            self.longest_silence_s = max(self.longest_silence_s, now - self._quiet_since)

    def _choose(self, now: float) -> Sound | None:
        if self._spoken_until is None:
            words = [Sound.ONE_MOMENT, Sound.STILL_THERE]
        else:
            words = [Sound.STILL_THERE, Sound.ONE_MOMENT]
        if self._why is Why.RATE_LIMITED and not self._busy_said:
            words.insert(0, Sound.BUSY)
        speak = self._spoken_until is None or now - self._spoken_until >= self._repeat_s
        wanted = [*words, Sound.FILLER] if speak else [Sound.FILLER, *words]
        return next((sound for sound in wanted if sound in self._lengths_s), None)
