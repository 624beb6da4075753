"""What ends a call though nobody wants it to: silence, the longest duration, the budget. Each with words before the end.

    silence      prompts, then a goodbye (`silence`); a caller who is back calls it off
    duration     the agent is told a while before (`limits.max_duration_warning_s`), then says goodbye; a hard end behind
    budget       the agent is told when it is nearly spent, then says goodbye

The words are asked of the model by `conversation`; here is decided which, and when.
"""

from __future__ import annotations

from dataclasses import dataclass

from bridge.accounts import Accounts
from bridge.dialogue import EndCall
from bridge.ending import EndReason
from bridge.history import Speaker
from bridge.silence import Rung
from bridge.talk import Talk
from bridge.usage import BudgetState

# After a silence that the server told of, its own prompt begins within this time, or does not.
PROMPT_WAIT_S = 1.0
STILL_THERE = "The caller has said nothing for a while. Ask in one short sentence whether they are still there."
GONE = "The caller says nothing. Say in one short sentence that you hear nobody and hang up now, and say goodbye."
NEARLY_OVER = (
    "(From the operator, not to be read out: this call has to end in {seconds:.0f} seconds. Come to the point, and bring "
    "it to a friendly end.)"
)
OVER = "Say in one short sentence that the time for this call is over, and say goodbye."
NEARLY_SPENT = (
    "(From the operator, not to be read out: this call has nearly used what it may cost. Come to the point, and bring it "
    "to a friendly end within the next one or two answers.)"
)
SPENT = "Say in one short sentence that you have to end the call now, and say goodbye."


@dataclass(frozen=True, slots=True)
class LastWord:
    """The model is to say something like this, and then the call ends. `revocable`: unless the caller is heard before.
    `wait_s`: not before. `cuts_short`: what the agent has still to say makes way, if it is much."""

    words: str
    end: EndCall
    revocable: bool = False
    wait_s: float = 0.0
    cuts_short: bool = False


class CallLimits:
    """The limits of one call."""

    def __init__(self, talk: Talk, accounts: Accounts) -> None:
        self._talk = talk
        self._accounts = accounts
        self._warned = False

    def tick(self, now: float, *, quiet: bool) -> LastWord | EndCall | None:
        """What time alone leads to. `quiet`: nobody does anything, so that the caller's silence counts."""
        talk = self._talk
        if not quiet:
            talk.activity_at = now
        return self._duration(now) or (self._silence(now) if quiet else None)

    def _duration(self, now: float) -> LastWord | EndCall | None:
        talk, limits = self._talk, self._talk.limits
        if talk.started_at is None:
            return None
        left_s = limits.max_duration_s - (now - talk.started_at)
        end = EndCall(EndReason.MAX_DURATION, f"call limit of {limits.max_duration_s:g} s reached")
        if left_s <= -2 * limits.goodbye_s:
            return end
        if left_s <= 0:
            return LastWord(OVER, end, cuts_short=True)
        if not self._warned and left_s <= limits.max_duration_warning_s < limits.max_duration_s:
            self._warned = True
            talk.commands.notice("call_nearly_over", seconds=round(left_s))
            talk.write(Speaker.SYSTEM, NEARLY_OVER.format(seconds=left_s))
        return None

    def _silence(self, now: float) -> LastWord | EndCall | None:
        talk = self._talk
        limits = talk.limits
        rung = talk.silence.lasted(now - talk.activity_at, server_prompts=talk.server_prompts)
        match rung:
            case Rung.PROMPT:
                talk.activity_at = now
                talk.commands.notice("silence_prompt", count=talk.silence.count)
                self._accounts.clock.prompted(now)
                talk.responses.want(talk.ask(STILL_THERE))
            case Rung.GOODBYE:
                return self._gone()
            case Rung.END:
                return EndCall(EndReason.CALLER_SILENT, f"nothing from the caller for {limits.caller_silent_s:g} s")
            case None:
                pass
        return None

    def server_prompts(self, now: float) -> LastWord | None:
        """The server has noticed a silence, and is about to prompt."""
        talk = self._talk
        if talk.collection is not None or talk.on_hold:
            talk.no_prompt_until = now + PROMPT_WAIT_S
            return None
        if talk.silence.prompted() is Rung.PROMPT:
            return None
        talk.no_prompt_until = now + PROMPT_WAIT_S
        return self._gone(PROMPT_WAIT_S)

    def _gone(self, wait_s: float = 0.0) -> LastWord:
        detail = f"nothing from the caller after {self._talk.limits.idle_prompts} prompts"
        return LastWord(GONE, EndCall(EndReason.CALLER_SILENT, detail), revocable=True, wait_s=wait_s)

    def budget(self, state: BudgetState) -> LastWord | None:
        """The news of the budget, after each response."""
        match state:
            case BudgetState.NEARLY_SPENT:
                self._talk.commands.notice("budget_nearly_spent")
                self._talk.write(Speaker.SYSTEM, NEARLY_SPENT)
            case BudgetState.SPENT:
                return LastWord(SPENT, EndCall(EndReason.BUDGET_SPENT, "the call's budget is spent"))
            case BudgetState.OK:
                pass
        return None
