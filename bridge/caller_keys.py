"""What becomes of a key that the caller presses. The first that wants it gets it:

    the agent's key map       `[agents.NAME.keys]`: at once, whatever the model does, even without a session
    manual turns              the two keys where a turn begins and ends
    the model                 told with the keys around it, after a pause or `#`

Keys count from the first moment of a call, also while it rings and while the agent takes leave.
"""

from __future__ import annotations

from bridge import keys
from bridge.accounts import Accounts
from bridge.call_tools import transfer_to
from bridge.caller_turns import CallerTurns
from bridge.dialogue import EndCall, TransferCall
from bridge.ending import EndReason
from bridge.history import Speaker
from bridge.responses import Ask
from bridge.talk import Talk

# Keys pressed within this time of each other are told to the model as one entry; `#` ends an entry at once.
DIGIT_PAUSE_S = 1.5


class CallerKeys:
    """The keys of one call."""

    def __init__(self, talk: Talk, accounts: Accounts, turns: CallerTurns) -> None:
        self._talk = talk
        self._accounts = accounts
        self._turns = turns
        self._map = keys.actions_of(talk.agent.keys)
        self._digits = ""
        self._digit_at = 0.0
        self._unsaid: list[str] = []  # asked by a key before the agent could be asked anything

    def pressed(self, digit: str, now: float) -> EndCall | TransferCall | None:
        """A key. Returns what it ends the call with, at once, if it does."""
        talk = self._talk
        action = self._map.get(digit)
        match action:
            case keys.Transfer(name=name):
                talk.commands.notice("caller_key", action="transfer", destination=name)
                talk.write(Speaker.CALLER, f"(The caller pressed the key for: {name}.)")
                return transfer_to(talk.agent, name)
            case keys.HangUp():
                talk.commands.notice("caller_key", action="hang_up")
                return EndCall(EndReason.AGENT_HUNG_UP, "the caller pressed the key that ends the call")
            case _ if talk.leaving:
                return None
            case keys.Ignore():
                self._turns.active(now)
            case keys.Say(text=text):
                self._turns.active(now)
                talk.commands.notice("caller_key", action="ask")
                self._unsaid.append(text)
                if talk.started_at is not None:
                    self._interrupt(now)
                    self._ask(now)
            case None if not self._turns.key(digit, now):
                self._digits += digit
                self._digit_at = now
                if digit == "#" and talk.started_at is not None:
                    self._digits_entered(now)
        return None

    def tick(self, now: float) -> None:
        if self._unsaid:
            self._ask(now)  # behind the greeting
        if self._digits and now - self._digit_at >= DIGIT_PAUSE_S:
            self._digits_entered(now)

    def _interrupt(self, now: float) -> None:
        """A key that asks for something stops the agent, where it may be stopped."""
        talk = self._talk
        if talk.may_interrupt and (talk.responses.wanted or not talk.speech.silent):
            talk.interrupt()
            self._accounts.clock.interrupted(now)

    def _ask(self, now: float) -> None:
        """Say to the model what the key stands for, in the caller's place."""
        for text in self._unsaid:
            self._talk.write(Speaker.CALLER, text)
        self._unsaid.clear()
        self._want_answer(now)

    def _digits_entered(self, now: float) -> None:
        digits, self._digits = self._digits, ""
        self._talk.commands.notice("caller_pressed", count=len(digits))
        self._talk.write(Speaker.CALLER, f"(The caller pressed these keys: {' '.join(digits)})")
        self._want_answer(now)

    def _want_answer(self, now: float) -> None:
        self._accounts.clock.prompted(now)
        self._talk.responses.want(Ask())
