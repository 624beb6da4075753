"""One session ends, another goes on: what it must be told, and what was broken off.

The new session gets the complete configuration, the history as text, the caller's words that no session understood as
audio, and the answer that was owed is asked for again (protocol sheet 1.4: there is no resume). Tools that run go on.
"""

from __future__ import annotations

from bridge import realtime
from bridge.barge_in import Reaction
from bridge.caller_turns import CallerTurns
from bridge.continuity import Change, Continuity
from bridge.dialogue import OpenSession, OpenSuccessor, Step, SwapSessions
from bridge.ending import EndReason
from bridge.responses import Ask
from bridge.talk import Talk
from bridge.tool_use import ToolUse

# Caller's audio that was sent again is answered by itself if there was speech in it; if there was none, we ask.
RESENT_WAIT_S = 3.0
RESUME = (
    "The connection broke for a moment while you were speaking. The caller heard your last message as far as it is "
    "written above. Go on from there; do not greet again and do not repeat yourself."
)


class Takeover:
    """The sessions of one conversation, one after another."""

    def __init__(self, talk: Talk, caller: CallerTurns, tools: ToolUse) -> None:
        self._talk = talk
        self._caller = caller
        self._tools = tools
        self._continuity = Continuity()
        self._sessions = 0
        self._resume_with: Ask | None = None
        self._opening = False

    @property
    def resumes(self) -> bool:
        """Without a session: what the old one was saying or owed is asked for as soon as there is another."""
        return self._resume_with is not None

    @property
    def _underway(self) -> bool:
        """The server generates or owes something, or hears the caller."""
        responses = self._talk.responses
        return responses.busy or responses.awaited or self._talk.barge_in.speaking

    # The shell reports -----------------------------------------------------------------------------------------------

    def connected(self, now: float, lifetime_s: float | None) -> None:
        """A session stands, configured. It is told what was said so far; before the first only an application can have
        said something, whose events had no session to go to."""
        self._continuity.connected(now, lifetime_s)
        self._talk.follow(self._talk.session)
        self._talk.session_stands, self._opening = True, False
        self._sessions += 1
        if self._sessions == 1:
            # What an application has written before.
            self._tell_history()
        else:
            if self._talk.lost_at is None:
                self._tools.session_lost()
                if self._underway:
                    # Something began between the decision to change over and now: the old session has taken it with it.
                    self._break_off(now)
            self._tell_everything(now)

    def lost(self, reason: EndReason, detail: str, code: str | None, now: float) -> bool:
        """The session is gone, however that came. False: another one would not help."""
        talk = self._talk
        again = self._continuity.lost()
        talk.commands.notice(
            "session_lost", reason=reason.value, detail=detail, code=code, losses=self._continuity.losses
        )
        self._break_off(now)
        talk.lost_at, talk.session_stands = now, False
        if again and not talk.closing:
            self.reopen()
        return again

    def reopen(self) -> None:
        """Without a session another one is wanted: at once, or when a call that was to end with the lost one goes on."""
        if self._talk.lost_at is not None and not self._opening:
            self._opening = True
            self._talk.commands.do(OpenSession())

    def _break_off(self, now: float) -> None:
        """Nothing comes any more of what the old session was doing; remember what of it is still owed."""
        talk = self._talk
        speaking = talk.barge_in.speaking
        if talk.barge_in.deaf() is Reaction.RESUME:
            talk.speech.resume()
        self._caller.session_lost(now)
        received = talk.responses.active is not None and talk.speech.received(talk.responses.active)
        self._tools.session_lost()
        waited_for = talk.responses.awaited or talk.responses.owed or talk.responses.busy
        cut = talk.responses.session_lost()
        talk.speech.finish_item()
        for turn in talk.history.undecided():
            turn.complete = True  # no more words come
        talk.step(Step.SESSION_LOST)
        self._resume_with = None
        if waited_for and not speaking:
            # Whatever there was of the answer has been received, so the caller hears it and it stands in the history.
            self._resume_with = talk.ask(RESUME) if received else cut or Ask()

    def gave_up(self) -> None:
        """No other session could be opened."""
        self._opening = False

    def successor_ready(self) -> None:
        self._continuity.successor_ready()

    def successor_failed(self, detail: str, now: float) -> None:
        self._talk.commands.notice("session_not_replaced", detail=detail)
        self._continuity.successor_failed(now)

    def progress(self) -> None:
        """A response was completed."""
        self._continuity.progress()

    def tick(self, now: float) -> None:
        """The session's own end comes nearer."""
        talk = self._talk
        between = not self._underway
        quiet = between and talk.speech.silent and not self._tools.busy
        match self._continuity.tick(now, between_turns=between, quiet=quiet):
            case Change.OPEN_SUCCESSOR:
                talk.commands.do(OpenSuccessor())
            case Change.SWAP:
                talk.commands.do(SwapSessions())

    def _tell_history(self, leave_out: str = "") -> None:
        for item in self._talk.history.replay(leave_out=leave_out):
            self._talk.commands.send(realtime.create_item(item))

    def _tell_everything(self, now: float) -> None:
        talk, caller = self._talk, self._caller
        lost_at, talk.lost_at = talk.lost_at, None
        again = caller.unheard_from is not None
        self._tell_history(leave_out=caller.unheard_item if again else "")
        gap_ms = 0 if lost_at is None else round((now - lost_at) * 1000)
        talk.commands.notice("session_resumed", sessions=self._sessions, gap_ms=gap_ms)
        if not talk.leaving:
            caller.say_again(now if lost_at is None else lost_at)
        if self._resume_with is not None or (again and talk.answers_turns and not talk.barge_in.speaking):
            talk.responses.want(self._resume_with or Ask(), now + RESENT_WAIT_S if again else 0.0)
        self._resume_with = None
