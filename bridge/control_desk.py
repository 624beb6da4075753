"""Carries out what `control_door` understood, on the calls of this process."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import trio

from bridge.control_door import (
    HangUpCall,
    ListCalls,
    PlaceCall,
    SayInCall,
    ShowCall,
    TellNextStep,
    TransferTo,
    Wish,
    no_such_call,
    refusal,
    wish_of,
)
from bridge.errors import ConfigError, ControlError, ControlUnavailable
from bridge.http_exchange import Page, Request, json_page
from bridge.live_call import LiveCall
from bridge.next_step import UNKNOWN, NextSteps

# The dialplan asks as soon as the media ends, which the bridge may see a moment later. CURL() waits as long as it is told,
# with the caller in silence.
ENDING_S = 1.0


class PlacedCalls(Protocol):
    """The calls that this process places (`placing`)."""

    async def place_by_http(self, wanted: Mapping[str, Any]) -> Page:
        """Place a call as the JSON object of a request says. Raises `ConfigError` (answered with 400) and
        `ControlUnavailable` (503), whose text the client gets."""
        ...

    def view(self, call_id: str) -> dict[str, Any] | None:
        """More of a placed call than of others, also for a while after its end. None: it is none."""
        ...

    def hang_up(self, call_id: str, reason: str) -> dict[str, Any] | None:
        """End a placed call, whatever it is doing, and tell it as `view` does. None: it is none, or has ended."""
        ...


class ControlDesk:
    """`calls` and `ending` are the process's own, by call id: the running calls, and the plain ones, whose dialplan will
    ask, each with the event of its end. `placing` is set by whoever can place calls."""

    def __init__(
        self, token: str, calls: Mapping[str, LiveCall], ending: Mapping[str, trio.Event], steps: NextSteps
    ) -> None:
        self._token = token
        self._calls = calls
        self._ending = ending
        self._steps = steps
        self.placing: PlacedCalls | None = None

    async def answer(self, request: Request) -> Page:
        """Answer one request. Cancelled, what it asked for may have been begun."""
        wish = wish_of(request, self._token)
        try:
            return wish if isinstance(wish, Page) else await self._carry_out(wish)
        except ConfigError as error:
            return refusal(400, str(error))
        except ControlUnavailable as error:
            return refusal(503, str(error))
        except ControlError as error:
            return refusal(502, str(error))

    async def _carry_out(self, wish: Wish) -> Page:
        match wish:
            case ListCalls():
                return json_page(200, {"calls": [_view(call) for call in self._calls.values()]})
            case TellNextStep(call_id=call_id):
                return await self._next_step(call_id)
            case PlaceCall(wanted=wanted):
                if self.placing is None:
                    return refusal(501, "this process places no calls")
                return await self.placing.place_by_http(wanted)
            case ShowCall(call_id=call_id) if self.placing and (view := self.placing.view(call_id)):
                return json_page(200, view)
            case HangUpCall(call_id=call_id, reason=reason) if self.placing and (
                view := self.placing.hang_up(call_id, reason)
            ):
                return json_page(202, view)
        call = self._calls.get(wish.call_id)
        if call is None:
            return no_such_call(wish.call_id)
        match wish:
            case ShowCall():
                return json_page(200, _view(call))
            case HangUpCall(reason=reason):
                call.hang_up(reason)
            case TransferTo(destination=destination, number=number):
                call.transfer(destination, number)
            case SayInCall(text=text):
                call.say(text)
        return json_page(202, _view(call))

    async def _next_step(self, call_id: str) -> Page:
        if (ended := self._ending.get(call_id)) is not None:
            with trio.move_on_after(ENDING_S):
                await ended.wait()
        line = self._steps.tell(call_id, trio.current_time())
        if line is not None:
            return Page(200, line)
        return Page(409 if call_id in self._ending else 404, UNKNOWN)


def _view(call: LiveCall) -> dict[str, Any]:
    return {
        "id": call.call_id,
        "agent": call.agent_name,
        "caller": call.caller,
        "called": call.called,
        "seconds": round(call.lasts_s, 1),
        "state": call.state,
    }
