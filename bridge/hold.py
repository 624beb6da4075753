"""Who hears whom: the caller put us on hold, or an application the caller; either of the two is muted.

    on hold, by the caller        nothing is lost, the agent goes on when he is back; `limits.hold_s` at most
    on hold, by an application    the caller hears music; the agent says nothing
    muted: the caller             the model gets silence
    muted: the agent              what it was saying is cut off, and it is asked to say nothing

On hold the model gets no audio at all (music would be a caller who speaks), and no silence of the caller's counts.
"""

from __future__ import annotations

import enum
from typing import Literal

from bridge.barge_in import Reaction
from bridge.dialogue import EndCall, StartMusic, StopMusic
from bridge.ending import EndReason
from bridge.history import Speaker
from bridge.talk import Talk


class By(enum.Enum):
    """Who has put whom on hold."""

    CALLER = "caller"
    APPLICATION = "application"


class Hold:
    """The holds of one call."""

    def __init__(self, talk: Talk) -> None:
        self._talk = talk
        self._since: dict[By, float] = {}

    def by_caller(self, held: bool, now: float) -> None:
        """The caller has put us on hold, or is back."""
        if held:
            self._begin(By.CALLER, now)
        elif (since := self._end(By.CALLER, now)) is not None:
            seconds = round(now - since)
            self._talk.write(Speaker.SYSTEM, f"(The caller had put you on hold for {seconds} s, and is back.)")

    def by_application(self, music: str | None, now: float) -> None:
        """The caller is to hear this music and nothing else, or (None) the agent again."""
        if music is not None:
            self._begin(By.APPLICATION, now)
            self._talk.commands.do(StartMusic(music))
        elif self._end(By.APPLICATION, now) is not None:
            self._talk.commands.do(StopMusic())

    def mute(self, who: Literal["caller", "agent"], muted: bool) -> None:
        talk = self._talk
        if who == "caller":
            talk.deaf_for = talk.deaf_for | {"mute"} if muted else talk.deaf_for - {"mute"}
        else:
            talk.agent_muted = muted
            if muted and (talk.responses.wanted or not talk.speech.silent):
                talk.interrupt()

    def tick(self, now: float) -> EndCall | None:
        """How the call ends, if the caller does not come back."""
        limit_s = self._talk.limits.hold_s
        since = self._since.get(By.CALLER)
        if since is not None and now - since >= limit_s:
            return EndCall(EndReason.CALLER_SILENT, f"on hold by the caller for {limit_s:g} s")
        return None

    def _begin(self, by: By, now: float) -> None:
        if by in self._since:
            return
        talk = self._talk
        self._since[by] = now
        if not talk.on_hold:
            talk.on_hold = True
            if talk.barge_in.deaf() is Reaction.RESUME:
                talk.speech.resume()
            talk.hold_speech()
        talk.held_back = By.APPLICATION in self._since
        talk.commands.notice("hold_begins", by=by.value)

    def _end(self, by: By, now: float) -> float | None:
        """Since when it was on hold; None: it was not."""
        since = self._since.pop(by, None)
        if since is None:
            return None
        talk = self._talk
        if not self._since:
            talk.on_hold = False
            talk.hold_speech()
            talk.activity_at = now
        talk.held_back = By.APPLICATION in self._since
        talk.commands.notice("hold_ends", by=by.value, seconds=round(now - since, 1))
        return since
