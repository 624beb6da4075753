"""Carries out a transfer: found out, dialled, consulted, joined; or undone, and then the caller is still the agent's.

    check      CheckTransfer -> `Dialogue.transfer_checked`
    carry_out  TransferCall: act, then declare
               to        continue in the dialplan (blind)
               sip       REFER, or 302 before the answer
               endpoint  ring, with ringing or music for the caller; answered: join (bridged), or
                         consult -> `Dialogue.target_answered` ... Briefed -> a key decides -> join (warm)

Whatever goes wrong on the way leaves the caller where he was, and the model is told why (`Dialogue.transfer_failed`).
Cancelled (the caller hangs up, the call ends), who was dialled is released.
"""

from __future__ import annotations

import enum
from collections.abc import Callable

import trio

from bridge import telemetry
from bridge.destinations import Destination
from bridge.dialogue import Command, Dialogue, TransferCall
from bridge.ending import Ending, EndReason
from bridge.errors import ControlError
from bridge.leg import CallControl, ControlDigit, ControlHungUp, Dialled, DialOutcome, TransferTarget

# The key that takes a call is told a few packets longer than its event (RFC 4733 repeats its end): joined at once, the
# caller got it too in 1 of 6 calls on 22.10.1, with this pause in none of 16.
_KEY_OVER_S = 0.1
# Asterisk has answered all of it in 5 ms; a control connection that hangs must not keep who was dialled for ever.
_RELEASE_S = 3.0


class Transfers:
    """The transfers of one call, one at a time. `ringing(True)` begins the ringing tone that the caller hears."""

    def __init__(
        self,
        control: CallControl,
        dialogue: Dialogue,
        apply: Callable[[list[Command]], None],
        ending: Ending,
        ringing: Callable[[bool], None],
    ) -> None:
        self._control = control
        self._dialogue = dialogue
        self._apply = apply
        self._ending = ending
        self._ringing = ringing
        self._briefed: tuple[trio.Event, list[bool]] = trio.Event(), []

    async def check(self, transfer: TransferCall) -> None:
        """Find out whether it is possible, and tell the conversation."""
        problem = known = ""
        try:
            known = await self._control.check(transfer.destination)
        except ControlError as error:
            problem = str(error)
        self._apply(self._dialogue.transfer_checked(transfer, problem, known, trio.current_time()))

    async def carry_out(self, transfer: TransferCall) -> None:
        """Hand the caller over, and declare the end of this call; or tell the conversation why not."""
        it = transfer.destination
        try:
            if it.dialled:
                await self._dial(transfer)
            elif it.sip:
                await self._control.refer(it.sip, it.referred_by)
            else:
                await self._control.transfer(it.to)
        except ControlError as error:
            self._apply(self._dialogue.transfer_failed(transfer.call_id, str(error), trio.current_time()))
        else:
            self._ending.declare(EndReason.TRANSFERRED, transfer.name)

    def briefed(self, told: bool) -> None:
        """The summary has been heard, or there is none (`told` False)."""
        event, answers = self._briefed
        answers.append(told)
        event.set()

    async def _dial(self, transfer: TransferCall) -> None:
        """Raises `ControlError` when nobody took the call."""
        it = transfer.destination
        target = self._control.target(it)
        try:
            try:
                self._ringing(not it.music)
                dialled = await target.ring(it.music)
            finally:
                self._ringing(False)
            telemetry.notice("transfer_dialled", {"destination": transfer.name, "outcome": dialled.outcome.value})
            if dialled.outcome is not DialOutcome.ANSWERED:
                raise ControlError(_why(transfer.name, dialled))
            if it.mode == "warm":
                await self._consult(transfer, target)
                await trio.sleep(_KEY_OVER_S)
            await target.join()
        finally:
            with trio.move_on_after(_RELEASE_S, shield=True):
                await target.release()

    async def _consult(self, transfer: TransferCall, target: TransferTarget) -> None:
        """Let the agent tell them about the caller, and wait for their decision. Raises `ControlError`: not taken."""
        self._briefed = trio.Event(), []
        await target.consult()
        self._apply(self._dialogue.target_answered(transfer, trio.current_time()))
        decision = await self._decision(transfer.destination, target)
        if decision not in (_Decision.ACCEPTED, _Decision.NOT_TOLD):
            raise ControlError(f"{transfer.name} {decision.value}; what you told them, the caller has not heard")

    async def _decision(self, it: Destination, target: TransferTarget) -> _Decision:
        decision = _Decision.UNDECIDED
        told, answers = self._briefed

        async def limit() -> None:
            nonlocal decision
            await told.wait()
            if answers[0]:
                await trio.sleep(it.decide_s)
            else:
                decision = _Decision.NOT_TOLD
            nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(limit)
            while decision is _Decision.UNDECIDED:
                match await target.next_event():
                    case ControlDigit(digit=digit) if digit == it.accept_key:
                        decision = _Decision.ACCEPTED
                    case ControlDigit(digit=digit) if digit == it.decline_key:
                        decision = _Decision.DECLINED
                    case ControlHungUp():
                        decision = _Decision.HUNG_UP
            nursery.cancel_scope.cancel()
        return decision


class _Decision(enum.Enum):
    """What somebody who was told about a caller does; the value is for the agent."""

    ACCEPTED = "takes the call"
    DECLINED = "declined the call"
    HUNG_UP = "hung up without taking the call"
    UNDECIDED = "heard about it and pressed no key"
    NOT_TOLD = "takes the call untold: there was nobody to say which key does"


def _why(name: str, dialled: Dialled) -> str:
    match dialled.outcome:
        case DialOutcome.BUSY:
            return f"{name} is busy"
        case DialOutcome.NO_ANSWER:
            return f"{name} does not answer"
        case DialOutcome.REJECTED:
            return f"{name} rejected the call"
        case _:
            return f"{name} can not be reached now ({dialled.detail or dialled.outcome.value})"
