"""A call that we place, in the hands of whoever ordered it: where it is, how it ends, and a way to take it back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import trio

from bridge.ari_outgoing import OutgoingControl, Phase
from bridge.call_record import CallRecord
from bridge.ending import EndReason
from bridge.live_call import LiveCall
from bridge.outbound import CallOrder
from bridge.switchboard import Expectation

ENDED = "ended"


class PlacedCall:
    """One order to call somebody, carried out. Made by `placing.Placing.place`.

    `record` is there at the end: `record.reason` is `busy`, `no_answer`, `rejected`, `unreachable`, `cancelled`,
    `answering_machine`, or what ends any call. All but `until_answered` and `until_ended` is synchronous.
    """

    def __init__(
        self, order: CallOrder, control: OutgoingControl, expectation: Expectation, calls: Mapping[str, LiveCall]
    ) -> None:
        self.order = order
        self.call_id = str(expectation.call_id)
        self.record: CallRecord | None = None
        self._control = control
        self._expectation = expectation
        self._calls = calls
        self._ended = trio.Event()
        self._began_at = trio.current_time()
        self.ended_at = self._began_at
        expectation.ended = self._over

    @property
    def state(self) -> str:
        """`connecting` (the model), `ringing`, `detecting` (a machine?), `answered`, `ended`."""
        return ENDED if self.record is not None else self._control.phase.value

    @property
    def answered(self) -> bool:
        """Whether somebody answered, a machine included."""
        return self._control.phase is Phase.ANSWERED

    @property
    def live(self) -> LiveCall | None:
        """The call in the hands of an application, while it runs: from when its media came, and so before it rings."""
        return self._calls.get(self.call_id)

    async def until_answered(self) -> bool:
        """Wait for the answer. False: there will be none."""
        await self._control.settled.wait()
        return self.answered

    async def until_ended(self) -> CallRecord:
        """Wait for the end. Cancelling only stops the waiting."""
        await self._ended.wait()
        assert self.record is not None
        return self.record

    def hang_up(self, detail: str = "cancelled by who placed it") -> None:
        """End it: at once while nobody has answered, else when everything said so far has been heard. Idempotent."""
        if (live := self.live) is not None:
            live.hang_up(detail)
        else:
            self._expectation.give_up(EndReason.CANCELLED, detail)

    def withdraw(self, reason: EndReason, detail: str) -> None:
        """End it for this reason, unless somebody has answered."""
        if self.answered:
            return
        if (live := self.live) is not None:
            live.end_for(reason, detail)
        else:
            self._expectation.give_up(reason, detail)

    def view(self) -> dict[str, Any]:
        """For the control door."""
        view: dict[str, Any] = {
            "id": self.call_id,
            "agent": self.order.agent,
            "direction": "outbound",
            "caller": self._control.caller,
            "called": self.order.to,
            "answered": self.answered,
            "state": self.state,
        }
        if self.record is None:
            return view | {"seconds": round(trio.current_time() - self._began_at, 1)}
        record = self.record
        return view | {"seconds": record.duration_s, "reason": record.reason, "detail": record.detail}

    def _over(self, record: CallRecord) -> None:
        self.record, self.ended_at = record, trio.current_time()
        self._control.settled.set()
        self._ended.set()
