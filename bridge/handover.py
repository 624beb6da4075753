"""How a caller is handed over, as far as words go: found out first, then told, then done; and who takes over is told too.

    transfer_call       -> CheckTransfer: is there such a place, does anybody answer there?
    not possible        -> the model hears why, and goes on with the caller
    possible            -> the model tells the caller, unless it did so together with the call; then TransferCall
    a warm one answers  -> the model tells them about the caller; then Briefed, and they decide by a key
    the transfer failed -> the model hears why (`conversation`)

While the agent says such words it hears nobody (`State.ANNOUNCING`): a caller who says "thank you" into them must not undo
the transfer, and one who waits on hold is not who is spoken to. A model that can not say them does not hold it up.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from bridge.dialogue import Briefed, State, Step, TransferCall
from bridge.responses import Ask
from bridge.talk import Talk
from bridge.tool_use import ToolUse


@dataclass(slots=True)
class _Words:
    """What is to be said. `overdue_at`: then it is too late; `said`: generated, but perhaps not played yet."""

    ask: Ask
    transfer: TransferCall
    overdue_at: float
    briefing: bool = False
    said: bool = False


class Handover:
    """The handing over of one caller."""

    def __init__(self, talk: Talk, tools: ToolUse) -> None:
        self._talk = talk
        self._tools = tools
        self._words: _Words | None = None

    def checked(self, transfer: TransferCall, problem: str, known: str, now: float) -> TransferCall | None:
        """It is known whether the transfer is possible. Returns it if it is to be carried out once the caller has heard
        everything; else there are words to be said first, or the model has been told why not."""
        talk, call_id = self._talk, transfer.call_id
        if not self._tools.stop_running(call_id, now):
            return None
        if problem:
            talk.commands.notice("transfer_refused", destination=transfer.name, message=problem)
            self._refuse(
                call_id, f"Not possible: {problem}. The caller is still with you; nothing has been said.", now
            )
        elif talk.barge_in.speaking:
            self._refuse(call_id, "Not done: the caller started to speak.", now)
        elif talk.leaving:
            self._refuse(call_id, "Not done: the call is ending.", now)
        elif call_id in self._tools.announced:
            return transfer
        else:
            told = f"It is possible. {known}".strip()
            self._tools.answer(call_id, f"{told} Tell the caller; it is done when they have heard you.", now)
            facts = f" Worth mentioning: {known}" if known else ""
            ask = talk.ask(
                f"Tell the caller in one short sentence that you are connecting them with {transfer.name} now.{facts} "
                "Do not call a tool."
            )
            self._say(_Words(ask, replace(transfer, call_id=""), now + 2 * talk.limits.goodbye_s))
            talk.step(Step.ANNOUNCE)
        return None

    def _refuse(self, call_id: str, output: str, now: float) -> None:
        self._tools.answer(call_id, output, now, failed=True)
        if not self._talk.leaving:
            self._talk.responses.want(Ask())

    def target_answered(self, transfer: TransferCall, now: float) -> None:
        """Who is to take the call is on the line, and the caller is on hold: tell them about it."""
        talk, it = self._talk, transfer.destination
        ask = talk.ask(
            f"You are speaking to a colleague now ({transfer.name}), not to the caller, who is on hold and hears nothing. "
            f"{it.brief} Then say that {_spoken(it.accept_key)} takes the call, and {_spoken(it.decline_key)} declines it. "
            "Do not call a tool."
        )
        talk.step(Step.BRIEF)
        talk.elsewhere = True
        talk.hold_speech()
        self._say(_Words(ask, transfer, now + 2 * talk.limits.goodbye_s, briefing=True))

    def _say(self, words: _Words) -> None:
        self._words = words
        self._talk.responses.want(words.ask)

    def response_done(self, asked: Ask) -> TransferCall | None:
        """A response is done that was asked for by `asked`. Returns the transfer that is to follow it."""
        words = self._words
        if words is None:
            return None
        if words.ask is not asked:
            self._talk.responses.want(words.ask)  # something else came between
            return None
        words.said = True
        return None if words.briefing else self._done().transfer

    def drained(self) -> None:
        """Everything that was said has been played."""
        if self._words is not None and self._words.said:
            self._done()
            self._talk.commands.do(Briefed(True))

    def give_up(self) -> TransferCall | None:
        """The model can not say it. Returns the transfer that is to be carried out all the same."""
        if self._words is None:
            return None
        words = self._done()
        self._talk.responses.forget()
        self._talk.commands.notice("transfer_unannounced", destination=words.transfer.name)
        if words.briefing:
            self._talk.commands.do(Briefed(False))
            return None
        return words.transfer

    def overdue(self, now: float) -> bool:
        """Whether the words take too long. What is generated already may be played to its end."""
        return self._words is not None and not self._words.said and now >= self._words.overdue_at

    def stay(self) -> None:
        """The caller stays with the agent."""
        self._words = None
        self._talk.elsewhere = False
        self._talk.hold_speech()

    @property
    def speaking(self) -> bool:
        """Whether there are words to be said."""
        return self._words is not None and self._talk.state is State.ANNOUNCING

    def _done(self) -> _Words:
        assert self._words is not None
        words, self._words = self._words, None
        return words


_KEY_NAMES = {"*": "the star key", "#": "the hash key"}


def _spoken(key: str) -> str:
    return _KEY_NAMES.get(key, f"key {key}")
