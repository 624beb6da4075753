"""What one caller hears while it is our turn and nothing comes: why we are silent, and the sound that is played then.

When to play what is `patience`'s to say; here it is told what is going on, and its sounds go the way of all speech.
"""

from __future__ import annotations

from bridge.patience import Patience, Why
from bridge.sounds import Sound, Sounds
from bridge.talk import Talk
from bridge.tool_use import ToolUse


class Waiting:
    """The waits of one conversation. `rate_hz` is that of the line."""

    def __init__(self, talk: Talk, tools: ToolUse, sounds: Sounds, rate_hz: int) -> None:
        self._talk = talk
        self._tools = tools
        self._sounds = sounds
        self._rate_hz = rate_hz
        limits = talk.limits
        self._patience = Patience(limits.caller_waits_s, limits.caller_waits_repeat_s, sounds.lengths_s)

    @property
    def longest_silence_s(self) -> float:
        """The longest that the caller heard nothing while it was our turn."""
        return self._patience.longest_silence_s

    def agent_starts(self, now: float) -> None:
        """The caller hears the agent: the wait is over."""
        self._patience.heard(now)

    def check(self, now: float) -> None:
        """After each input, and at each tick: has the caller been hearing nothing for too long?"""
        talk = self._talk
        # A sound of ours is part of the wait.
        if not talk.speech.sounding:
            why = self._why_silent
            audible = not (talk.speech.idle or talk.speech.starving)
            ours = not (talk.closing or talk.barge_in.speaking or talk.collection is not None or talk.on_hold)
            if why is None or audible or not ours:
                self._patience.heard(now)
            else:
                self._patience.waiting(why, now)
        sound = self._patience.tick(now)
        if sound is not None:
            talk.commands.notice("caller_waits", sound=sound.value)
            talk.speech.play(self._sounds.pcm(sound, self._rate_hz))

    def say_sorry(self) -> bool:
        """Play a word of regret, for a call that the model has failed. False: there is none."""
        pcm = self._sounds.pcm(Sound.TROUBLE, self._rate_hz)
        if pcm:
            self._talk.speech.play(pcm)
        return bool(pcm)

    @property
    def _why_silent(self) -> Why | None:
        """What the caller waits for, if it is not the caller's turn."""
        responses = self._talk.responses
        if self._talk.lost_at is not None:
            # Nobody hears what the caller says meanwhile, so it may well be our turn.
            return Why.RECONNECTING
        if responses.rate_limited:
            return Why.RATE_LIMITED
        if self._tools.busy:
            return Why.TOOL
        return Why.MODEL if responses.busy or responses.awaited or responses.owed else None
