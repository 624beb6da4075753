"""Carries out what `control_door` understood, on the calls of this process."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from functools import cache
from typing import Any, Protocol

import trio

from bridge import __version__
from bridge.call_record import CallRecord
from bridge.control_commands import (
    AnswerTool,
    Ask,
    ClientEvent,
    Command,
    CreateCall,
    HangUp,
    Hold,
    Leave,
    ListCalls,
    Mute,
    PauseRecording,
    PressKeys,
    Resume,
    ResumeRecording,
    Say,
    ShowCall,
    TellNextStep,
    Transfer,
    Unmute,
    UpdateAgent,
    Write,
    event_of,
    output_of,
)
from bridge.control_door import Describe, OpenStream, Wish, no_such_call, refusal, wish_of
from bridge.control_openapi import description
from bridge.ending import EndReason
from bridge.errors import ChannelBusy, ChannelUnknown, ConfigError, ControlError, ControlUnavailable, SessionAway
from bridge.http_exchange import Page, Request, json_page
from bridge.http_server import TakeOver
from bridge.live_call import LiveCall
from bridge.next_step import UNKNOWN, NextSteps
from bridge.opening import parties

# The dialplan asks as soon as the media ends, which the bridge may see a moment later. CURL() waits as long as it is told,
# with the caller in silence.
ENDING_S = 1.0
# How long, and of how many calls, the end is told to those who ask.
KEPT_S = 300.0
MOST_KEPT = 1024


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


class AttachedCalls(Protocol):
    """The calls for which this process takes channels (`attaching`)."""

    async def attach(self, wanted: Mapping[str, Any]) -> Page:
        """Carry out the JSON object of a request. Raises `ConfigError` (answered with 400), `ChannelUnknown` (404),
        `ChannelBusy` (409), and other `ControlError` (502, 503)."""
        ...

    def view(self, call_id: str) -> dict[str, Any] | None:
        """A call whose media has not come yet. None: it is none."""
        ...

    def give_up(self, call_id: str, reason: EndReason, detail: str) -> dict[str, Any] | None:
        """End such a call. None: it is none."""
        ...


class Streams(Protocol):
    """The websockets of this process (`control_stream`)."""

    def open(self, wish: OpenStream) -> TakeOver | Page:
        """How the connection that asked for this goes on."""
        ...


class ControlDesk:
    """`calls` and `ending` are the process's own, by call id: the running calls, and the plain ones, whose dialplan will
    ask, each with the event of its end. `placing`, `attaching` and `streams` are set by the process.

    A `CallWatcher`: so it knows which calls have ended, and how.
    """

    def __init__(
        self, token: str, calls: Mapping[str, LiveCall], ending: Mapping[str, trio.Event], steps: NextSteps
    ) -> None:
        self._token = token
        self._calls = calls
        self._ending = ending
        self._steps = steps
        self._ended: OrderedDict[str, tuple[float, dict[str, Any]]] = OrderedDict()
        self.placing: PlacedCalls | None = None
        self.attaching: AttachedCalls | None = None
        self.streams: Streams | None = None

    async def run(self, task_status: trio.TaskStatus[None]) -> None:
        """Nothing is to be done beside the calls."""
        task_status.started()
        await trio.lowlevel.checkpoint()

    def begins(self, call: LiveCall) -> None:
        """The process's own list of calls has it already."""

    async def ended(self, record: CallRecord) -> None:
        """Remember how it ended, for those who ask or command too late."""
        await trio.lowlevel.checkpoint()
        self._ended[record.call_id] = trio.current_time(), _last_view(record)
        if len(self._ended) > MOST_KEPT:
            self._ended.popitem(last=False)

    def _last_view(self, call_id: str) -> dict[str, Any] | None:
        """How a call ended, for a while."""
        ended_at, view = self._ended.get(call_id, (0.0, None))
        return view if view is not None and trio.current_time() - ended_at < KEPT_S else None

    async def answer(self, request: Request) -> Page | TakeOver:
        """Answer one request. Cancelled, what it asked for may have been begun."""
        wish = wish_of(request, self._token)
        match wish:
            case Page():
                return wish
            case OpenStream():
                return self.streams.open(wish) if self.streams is not None else refusal(501, "no websockets here")
            case Describe():
                return _described()
            case _:
                return await self.carry_out(wish)

    async def carry_out(self, wish: Wish) -> Page:
        """Carry out one command; what does not go is told as a page too. Cancelled, it may have been begun."""
        try:
            return await self._carry_out(wish)
        except SessionAway as error:
            return refusal(409, str(error))
        except ConfigError as error:
            return refusal(400, str(error))
        except ChannelUnknown as error:
            return refusal(404, str(error))
        except ChannelBusy as error:
            return refusal(409, str(error))
        except ControlUnavailable as error:
            return refusal(503, str(error))
        except ControlError as error:
            return refusal(502, str(error))

    async def _carry_out(self, wish: Wish) -> Page:
        command, call_id = wish.command, wish.call_id
        match command:
            case ListCalls():
                return json_page(200, {"calls": [_view(call) for call in self._calls.values()]})
            case TellNextStep():
                return await self._next_step(call_id)
            case CreateCall(wanted=wanted) if "channel" in wanted and self.attaching:
                return await self.attaching.attach(wanted)
            case CreateCall(wanted=wanted):
                if self.placing is None:
                    return refusal(501, "this process places no calls")
                return await self.placing.place_by_http(wanted)
            case ShowCall():
                return self._show(call_id)
            case HangUp() | Leave() if view := self._end_early(call_id, command):
                return json_page(202, view)
        call = self._calls.get(call_id)
        if call is None:
            return self.missing(call_id) or refusal(
                409,
                f"call {call_id} has no media yet: it can be ended now, and everything else from `call.started` on",
            )
        if isinstance(command, AnswerTool) and command.tool_call_id not in call.manual_tools:
            waiting = ", ".join(call.manual_tools) or "none"
            return refusal(409, f"no call {command.tool_call_id!r} of a tool waits for an answer; waiting: {waiting}")
        _act(call, command)
        return json_page(202, (self.placing and self.placing.view(call_id)) or _view(call))

    def missing(self, call_id: str) -> Page | None:
        """The refusal where there is no such call, or not any more. None: there is one, if only on its way."""
        if call_id in self._calls:
            return None
        if (view := self._last_view(call_id)) is not None:
            return refusal(409, f"call {call_id} is over: {view['reason']}; nothing can be done in it any more")
        begun = (self.placing and self.placing.view(call_id)) or (self.attaching and self.attaching.view(call_id))
        return None if begun else no_such_call(call_id)

    def _end_early(self, call_id: str, command: HangUp | Leave) -> dict[str, Any] | None:
        """End a call that is only on its way: its media has not come yet. None: it is none."""
        if call_id in self._calls:
            return None
        if self.placing and (view := self.placing.hang_up(call_id, command.reason)):
            return view
        if self.attaching:
            reason = EndReason.AGENT_HUNG_UP if isinstance(command, HangUp) else EndReason.AGENT_LEFT
            return self.attaching.give_up(call_id, reason, command.reason)
        return None

    def _show(self, call_id: str) -> Page:
        if self.placing and (view := self.placing.view(call_id)):
            return json_page(200, view)
        if (call := self._calls.get(call_id)) is not None:
            return json_page(200, _view(call))
        if self.attaching and (view := self.attaching.view(call_id)):
            return json_page(200, view)
        if (view := self._last_view(call_id)) is not None:
            return json_page(200, view)
        return no_such_call(call_id)

    async def _next_step(self, call_id: str) -> Page:
        if (ended := self._ending.get(call_id)) is not None:
            with trio.move_on_after(ENDING_S):
                await ended.wait()
        line = self._steps.tell(call_id, trio.current_time())
        if line is not None:
            return Page(200, line)
        return Page(409 if call_id in self._ending else 404, UNKNOWN)


@cache
def _described() -> Page:
    """Made once: it takes 5 ms, and anybody may ask for it."""
    return json_page(200, description(__version__))


def _act(call: LiveCall, command: Command | CreateCall) -> None:
    """Do this in the call. Raises `ConfigError` for what can not be done there."""
    match command:
        case Say(text=text):
            call.say(text)
        case Ask(text=text):
            call.ask(text)
        case Write(text=text, role=role):
            call.write(text, role=role)
        case UpdateAgent(session=session):
            call.update_session(session)
        case ClientEvent():
            call.send(event_of(command))
        case AnswerTool(tool_call_id=tool_call_id):
            call.answer_tool(tool_call_id, output_of(command))
        case HangUp(reason=reason, cause=cause):
            call.hang_up(reason, cause=cause)
        case Leave(reason=reason):
            call.leave(reason)
        case Transfer(destination=destination, number=number):
            call.transfer(destination, number)
        case Hold(music=music):
            call.hold(music)
        case Resume():
            call.resume()
        case Mute(who=who) | Unmute(who=who):
            for party in parties(who):
                call.mute(party, isinstance(command, Mute))
        case PressKeys(keys=keys):
            call.press(keys)
        case PauseRecording():
            call.pause_recording()
        case ResumeRecording():
            call.resume_recording()
        case _:
            raise AssertionError(f"{command} is nobody's")


def _view(call: LiveCall) -> dict[str, Any]:
    return {
        "id": call.call_id,
        "agent": call.agent_name,
        "caller": call.caller,
        "called": call.called,
        "seconds": round(call.lasts_s, 1),
        "state": call.state,
        "tools_waiting": [
            {"tool_call_id": it.call_id, "name": it.name, "arguments": it.arguments}
            for it in call.manual_tools.values()
        ],
    }


def _last_view(record: CallRecord) -> dict[str, Any]:
    return {
        "id": record.call_id,
        "agent": record.agent,
        "caller": record.caller,
        "called": record.called,
        "seconds": record.duration_s,
        "state": "ended",
        "reason": record.reason,
        "detail": record.detail,
    }
