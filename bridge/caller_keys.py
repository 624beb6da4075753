"""What becomes of a key that the caller presses. The first that wants it gets it:

    a collection              digits for the tool `collect_digits`: while it runs, all keys (see `collecting`)
    the agent's key map       `[agents.NAME.keys]`: at once, whatever the model does, even without a session
    manual turns              the two keys where a turn begins and ends
    the model                 told with the keys around it, after a pause or `#`

Keys count from the first moment of a call, also while it rings and while the agent takes leave.
"""

from __future__ import annotations

from bridge import keys
from bridge.accounts import Accounts
from bridge.call_events import DigitPressed, DigitsCollected
from bridge.call_tools import transfer_to
from bridge.caller_turns import CallerTurns
from bridge.collecting import Collected, Outcome
from bridge.dialogue import EndCall, KeepDigits, TransferCall
from bridge.ending import EndReason
from bridge.history import Speaker
from bridge.responses import Ask
from bridge.talk import Talk
from bridge.tool_use import ToolUse

# Keys pressed within this time of each other are told to the model as one entry; `#` ends an entry at once.
DIGIT_PAUSE_S = 1.5
# A key is told when it is let go, some of its tone may still be on its way then.
TONE_S = 0.3


class CallerKeys:
    """The keys of one call."""

    def __init__(self, talk: Talk, accounts: Accounts, turns: CallerTurns, tools: ToolUse) -> None:
        self._talk = talk
        self._accounts = accounts
        self._turns = turns
        self._tools = tools
        self._map = keys.actions_of(talk.agent.keys)
        self._secrets = any(entry.secure for entry in talk.agent.collect.values())
        self._digits = ""
        self._digit_at = 0.0
        self._unsaid: list[str] = []  # asked by a key before the agent could be asked anything
        # Behind a collection: until when a key still belongs to it; the terminator, or (empty) every key.
        self._dropped_until = 0.0
        self._terminator = ""
        self._secret: tuple[str, float] | None = None  # the entry whose last tone dies away, and until when

    def pressed(self, digit: str, now: float) -> EndCall | TransferCall | None:
        """A key. Returns what it ends the call with, at once, if it does."""
        talk = self._talk
        if talk.collection is not None:
            self._collect(digit, now)
            return None
        if now < self._dropped_until and (digit == self._terminator or not self._terminator):
            self._dropped_until = now + DIGIT_PAUSE_S
            if self._terminator:
                self._tell(digit)
            return None
        if not self._secrets or digit in self._map:
            self._tell(digit)
        match self._map.get(digit):
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
            case None if self._turns.key(digit, now):
                if self._secrets:
                    self._tell(digit)
            case None:
                self._digits += digit
                self._digit_at = now
                if digit == "#" and talk.started_at is not None:
                    self._digits_entered(now)
        return None

    def _tell(self, digits: str) -> None:
        """Tell applications of keys. One that may yet turn out to be the beginning of a secure entry, or be the rest of one
        that was broken off, is told when the model is: never before it is clear."""
        for digit in digits:
            self._talk.commands.do(DigitPressed(digit=digit))

    def tick(self, now: float) -> None:
        if self._unsaid:
            self._ask(now)  # behind the greeting
        if self._talk.collection is not None:
            self._mind_collection(now)
        elif self._secret is not None and now >= self._secret[1]:
            self._hear_again()
        if self._digits and now - self._digit_at >= DIGIT_PAUSE_S:
            self._digits_entered(now)

    # A collection ----------------------------------------------------------------------------------------------------

    def _collect(self, digit: str, now: float) -> None:
        collection = self._talk.collection
        assert collection is not None
        self._turns.active(now)
        if not collection.begun:
            self._interrupt(now)
        if not collection.entry.secure:
            self._tell(self._digits + digit if self._secrets else digit)
        collected = None
        # What was pressed a moment before the model called the tool belongs to it.
        for key in self._digits + digit:
            collected = collected or collection.key(key, now)
        self._digits = ""
        if collected is not None:
            by_length = digit != collection.entry.terminator
            if by_length and (collected.secure or collection.entry.terminator):
                self._dropped_until = now + DIGIT_PAUSE_S
                self._terminator = "" if collected.secure else collection.entry.terminator
            self._collected(collected, now)

    def _mind_collection(self, now: float) -> None:
        talk = self._talk
        collection = talk.collection
        assert collection is not None
        if self._digits:
            self._collect("", now)
            return
        if talk.on_hold:
            collection.held(now)
            return
        waits = talk.responses.wanted or not talk.speech.silent
        if collected := collection.tick(now, waits=waits):
            self._collected(collected, now)

    def spoke(self, now: float) -> None:
        """The caller has said something: an entry of which no key was pressed is not going to be keyed in."""
        if self._talk.collection is not None and (collected := self._talk.collection.spoke()):
            self._collected(collected, now)

    def stop(self, now: float) -> None:
        """The call is about to end or to be handed over."""
        if self._talk.collection is not None:
            self._collected(self._talk.collection.stop(), now)

    def _collected(self, collected: Collected, now: float) -> None:
        talk = self._talk
        collection, talk.collection = talk.collection, None
        assert collection is not None
        talk.activity_at = now
        talk.commands.notice(
            "digits_collected", name=collected.name, outcome=collected.outcome.value, count=collected.count
        )
        talk.commands.do(DigitsCollected(name=collected.name, count=collected.count))
        if collected.secure:
            self._secret = collected.name, now + TONE_S
            if collected.outcome is Outcome.STOPPED:
                self._hear_again()
            if collected.outcome is Outcome.COMPLETE:
                talk.commands.do(KeepDigits(collected.name, collected.digits))
        self._tools.answer(collection.call_id, collected.output, now)
        server_answers = collected.outcome is Outcome.SPOKE and not talk.own_answers
        if not server_answers and collected.outcome is not Outcome.STOPPED:
            self._want_answer(now)

    def _hear_again(self) -> None:
        talk = self._talk
        if self._secret is not None:
            talk.commands.notice("secure_ends", name=self._secret[0])
        self._secret, talk.deaf_for = None, talk.deaf_for - {"secret"}

    # For the model ---------------------------------------------------------------------------------------------------

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
        if self._secrets:
            self._tell(digits)
        self._talk.commands.notice("caller_pressed", count=len(digits))
        self._talk.write(Speaker.CALLER, f"(The caller pressed these keys: {' '.join(digits)})")
        self._want_answer(now)

    def _want_answer(self, now: float) -> None:
        self._accounts.clock.prompted(now)
        self._talk.responses.want(Ask())
