"""A running call in the hands of an application: hear what happens in it, and take part.

    async def attend(call: LiveCall) -> None:
        async for event in call.events(["conversation.item.*", "error"]):
            ...

    await serve(config, on_call=attend)

The application's function runs in the call's own nursery: it is cancelled when the call ends, and what it raises is
logged and harms nobody. It may return at once; the call goes on.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
import trio

from bridge.agent import Agent
from bridge.call_events import (
    REPLACED,
    AnyHappening,
    CallAnswered,
    CallEnded,
    CallEvent,
    CallStarted,
    StateChanged,
    check_words,
    data_of,
    type_of,
)
from bridge.call_tools import are_keys, transfer_to
from bridge.dialogue import AskApproval, Command, Dialogue, EndCall, Notice, PressKeys, RunTool, TransferCall
from bridge.ending import EndReason
from bridge.errors import ConfigError
from bridge.event_stream import EventFilter
from bridge.hangup_cause import cause_of
from bridge.keys import KEYS
from bridge.session import declared_functions
from bridge.session_streams import EventStream, Observers, filter_of

_log = logging.getLogger("bridge.application")

# What one observer may be behind; then it loses the oldest events, counted in `missed`.
WAITING_EVENTS = 512


_Listener = tuple[EventFilter, Callable[["CallEvent"], None]]


class _Typed(msgspec.Struct):
    type: str = ""


_typed = msgspec.json.Decoder(_Typed)


@dataclass(frozen=True, slots=True)
class Approval:
    """An application's answer to a call of an MCP tool; `reason` is told to the model."""

    approve: bool
    reason: str = ""


class LiveCall:
    """One call while it runs. Every method is synchronous and may be called from any task of the call's process.

    `secure_digits`: what the caller has keyed in for secure entries (`collect_digits`), by their names; the newest counts.
    `manual_tools`: calls of tools without a handler that wait for `answer_tool`, by call id. `approve_mcp` is asked about
    MCP tools whose server says `approve = "ask"`; without it they are denied.
    """

    def __init__(
        self, *, call_id: str, agent_name: str, agent: Agent, caller: str, called: str, conversation: Dialogue,
        apply: Callable[[list[Command]], None],
        clock: Callable[[], float] = trio.current_time,
        began_unix_s: float = 0.0,
        recording_held: Callable[[bool], None] = lambda _: None,
        placed: bool = False,
        tool_names: frozenset[str] = frozenset(),
    ) -> None:  # fmt: skip
        self.call_id = call_id
        self.agent_name = agent_name
        self.caller = caller
        self.called = called
        self.manual_tools: dict[str, RunTool] = {}
        self.secure_digits: dict[str, str] = {}
        self.approve_mcp: Callable[[AskApproval], Awaitable[Approval]] | None = None
        self.placed = placed
        """Whether we call: the person on the line is `called`."""
        self.tool_names = tool_names
        """What was declared to the model as its tools: the agent's own and the application's."""
        self._agent = agent
        self._conversation = conversation
        self._apply = apply
        self._clock = clock
        self._began_at = clock()
        self._began_unix_s = began_unix_s or time.time()
        self.answered = False
        self.declared = {str(it["name"]) for it in declared_functions(agent)}
        """The functions that the session knows by its settings and by `send`, whoever carries them out."""
        self._recording_held = recording_held
        self._observers: Observers[CallEvent] = Observers(WAITING_EVENTS)
        self._listeners: list[_Listener] = []
        self._wire_listeners: list[_Listener] = []
        self._answers: dict[str, tuple[trio.Event, list[str]]] = {}

    @property
    def agent(self) -> Agent:
        """Its agent's profile, with what this call has otherwise."""
        return self._agent

    @property
    def answers_turns(self) -> bool:
        """With manual turns: whether each of the caller's is answered by itself (it is); set it to False to ask for each
        answer (`send` of `response.create`)."""
        return self._conversation.answers_turns

    @answers_turns.setter
    def answers_turns(self, answers: bool) -> None:
        self._conversation.answers_turns = answers

    @property
    def lasts_s(self) -> float:
        """How long the call has lasted."""
        return self._clock() - self._began_at

    @property
    def state(self) -> str:
        """`connecting` until the caller is answered, then the dialogue's: `listening`, `responding`, `closing`, ..."""
        return self._conversation.state.value if self.answered else "connecting"

    @property
    def destinations(self) -> tuple[str, ...]:
        """The names for `transfer`, in the profile's order."""
        return tuple(self._agent.transfers)

    # Hearing ---------------------------------------------------------------------------------------------------------

    def events(self, words: Iterable[str] | None = None) -> EventStream[CallEvent]:
        """Everything that happens from now on, by the filter's words (`event_stream`; None: all but audio): the model's
        events, and those of the call (`call_events`). Bounded: who is slow loses the oldest. Raises `ValueError` for a
        word that can match nothing."""
        wanted = _filter(words)
        return self._observers.open(lambda event: wanted.takes(event.type))

    def listen(
        self, words: Iterable[str] | None, heard: Callable[[CallEvent], None], *, wire: bool = True
    ) -> Callable[[], None]:
        """Have `heard` called for each event, by the filter's words, until the call ends: for watchers, which may miss
        none. It must be quick, since the media clock waits; one that raises is logged and hears nothing more. `wire`
        False: for the events of the call itself alone, so that no event of the model need be looked at (1 us for each
        append, 9 us for a long delta). Returns how to stop it sooner. Raises `ValueError` as `events` does."""
        entry = _filter(words), heard
        lists = (self._listeners, self._wire_listeners) if wire else (self._listeners,)
        for them in lists:
            them.append(entry)

        def stop() -> None:
            for them in lists:
                with suppress(ValueError):
                    them.remove(entry)

        return stop

    # Taking part -----------------------------------------------------------------------------------------------------

    def send(self, event: Mapping[str, Any]) -> None:
        """Send a Realtime client event. Those that concern what the bridge keeps track of are carried out by it, so that
        nothing is lost (see `application`). Raises `ConfigError` for one that can not be sent."""
        self._apply(self._conversation.application_event(event, self._clock()))
        match event:
            case {"type": "session.update", "session": {"tools": [*tools]}}:
                flat = [it.get("function", it) for it in tools if isinstance(it, dict)]
                self.declared |= {str(it["name"]) for it in flat if isinstance(it, dict) and "name" in it}
            case {"item": {"type": "function_call_output", "call_id": str(call_id)}} if call_id in self._answers:
                self._answers[call_id][0].set()  # it has its output

    def update_session(self, fields: Mapping[str, Any]) -> None:
        """Change fields of the session (GA or old flat names) for the rest of the call. Raises `ConfigError`."""
        self.send({"type": "session.update", "session": fields})

    def write(self, text: str, *, role: Literal["user", "system"] = "system") -> None:
        """Put a text into the conversation, without asking for an answer."""
        content = [{"type": "input_text", "text": text}]
        self.send({"type": "conversation.item.create", "item": {"type": "message", "role": role, "content": content}})

    def ask(self, text: str) -> None:
        """Say something to the agent in the caller's place, and have it answered."""
        self.write(text, role="user")
        self.send({"type": "response.create"})

    def say(self, text: str) -> None:
        """Have the agent say this, in about these words, as soon as nobody else speaks. A `hang_up` or `transfer` right
        behind it comes first: wait for `transcript.final`."""
        self.send({"type": "response.create", "response": {"instructions": f"Say exactly this: {text}"}})

    def answer_tool(self, call_id: str, output: str) -> None:
        """Answer a call of a manual tool. Raises `ConfigError` where none of this id waits."""
        waiting = self._answers.get(call_id)
        if waiting is None:
            raise ConfigError(f"no call {call_id!r} of a tool waits for an answer")
        waiting[1].append(output)
        waiting[0].set()

    def pause_recording(self) -> None:
        """Record silence from here on, in both channels. Nothing happens where the call is not recorded."""
        self._recording_held(True)

    def resume_recording(self) -> None:
        """Go on recording, unless somebody else (digits that are secret) still wants the pause."""
        self._recording_held(False)

    def hang_up(self, reason: str = "the application ended the call", *, cause: str | int = "normal") -> None:
        """End the call when everything said so far has been heard; one that we place and nobody has answered, at once.
        `cause` is what signalling is told: one of ARI's words or a Q.850 number (see `hangup_cause`). Raises `ConfigError`
        for another one."""
        unanswered = self.placed and not self.answered
        end = EndReason.CANCELLED if unanswered else EndReason.AGENT_HUNG_UP
        self._ends(EndCall(end, reason, cause=cause_of(cause)))

    def leave(self, reason: str = "the application took the agent out of the call") -> None:
        """Take the agent out of the call, at once: the caller goes on where they came from. One that we placed came from
        nowhere, and is hung up."""
        self._apply([EndCall(EndReason.AGENT_LEFT, reason)])

    def end_for(self, reason: EndReason, detail: str) -> None:
        """End the call for this reason when everything said so far has been heard."""
        self._ends(EndCall(reason, detail))

    def press(self, keys: str) -> None:
        """Press keys towards the caller (`0`-`9`, `*`, `#`, `A`-`D`; `w`: half a second of pause). What goes wrong is told
        as `keys_not_pressed`. Raises `ConfigError` for what is no key."""
        if not are_keys(keys):
            raise ConfigError(f"press: must be keys of {KEYS} and w")
        self._apply([PressKeys("", keys)])

    def hold(self, music: str = "default") -> None:
        """The caller hears a class of Asterisk's music until `resume`; the agent hears and says nothing, and goes
        on then."""
        self._apply(self._conversation.hold(music, self._clock()))

    def resume(self) -> None:
        """End `hold`; nothing happens where there is none."""
        self._apply(self._conversation.hold(None, self._clock()))

    def mute(self, who: Literal["caller", "agent"], muted: bool = True) -> None:
        """The agent hears silence of the caller; or the agent stops speaking, and says nothing until it is unmuted."""
        self._apply(self._conversation.mute(who, muted, self._clock()))

    def transfer(self, destination: str, number: str = "") -> None:
        """Hand the caller over to a destination of the agent's profile, when everything said so far has been heard;
        `number` where the destination takes one. Raises `ConfigError` for what is unknown."""
        target = self._agent.transfers.get(destination)
        if target is None:
            known = ", ".join(self._agent.transfers) or "none"
            raise ConfigError(f"agent {self.agent_name} has no destination {destination!r}; known: {known}")
        if target.number and not target.takes(number):
            raise ConfigError(
                f"destination {destination!r} takes a number that matches {target.number}, not {number!r}"
            )
        self._ends(transfer_to(self._agent, destination, number=number))

    def _ends(self, command: EndCall | TransferCall) -> None:
        self._apply(self._conversation.application_ends(command, self._clock()))

    # For the call ----------------------------------------------------------------------------------------------------

    def saw(self, source: Literal["server", "client"], payload: bytes) -> None:
        """A Realtime event passed. Parsed only where somebody listens."""
        if not (self._observers.any or self._wire_listeners):
            return
        kind = _typed.decode(payload).type
        if self._observers.any or any(wanted.takes(kind) for wanted, _ in self._wire_listeners):
            self._tell(source, kind, msgspec.json.decode(payload))

    def noticed(self, notice: Notice) -> None:
        """The bridge tells something about the call."""
        if notice.event not in REPLACED:
            self._tell("call", notice.event, notice.facts)

    def happened(self, event: AnyHappening) -> None:
        """Something happened that applications are told of. What state the dialogue is in is nobody's before the answer."""
        if self.answered or not isinstance(event, StateChanged):
            self._tell("call", type_of(event), data_of(event))

    def begins(self) -> None:
        """Tell that there is a call."""
        direction: Literal["inbound", "outbound"] = "outbound" if self.placed else "inbound"
        self.happened(CallStarted(agent=self.agent_name, caller=self.caller, called=self.called, direction=direction))
        self._tell("call", type_of(StateChanged), {"state": self.state})

    def is_answered(self) -> None:
        """The caller is on the line. Idempotent."""
        if not self.answered:
            self.answered = True
            self.happened(CallAnswered())
            self.happened(StateChanged(state=self.state))

    def _tell(self, source: Literal["server", "client", "call"], kind: str, facts: Mapping[str, Any]) -> None:
        now = self._clock()
        event = CallEvent(source, now, kind, facts, self._began_unix_s + now - self._began_at)
        if self._observers.any:
            self._observers.tell(event)
        for listener in tuple(self._listeners if source == "call" else self._wire_listeners):
            wanted, heard = listener
            if wanted.takes(kind):
                try:
                    heard(event)
                except Exception:
                    _log.exception("a listener of a call failed, and hears nothing more; the call goes on")
                    self._listeners.remove(listener)
                    if listener in self._wire_listeners:
                        self._wire_listeners.remove(listener)

    def tool_wanted(self, command: RunTool) -> None:
        """A manual tool is called: from here on it can be answered, so before any observer runs."""
        self._answers[command.call_id] = trio.Event(), []
        self.manual_tools[command.call_id] = command

    async def wait_for_answer(self, command: RunTool, timeout_s: float) -> str | None:
        """The application's answer to a tool that was `tool_wanted`, or the text that nobody gave one in time. None: the
        model has been sent it as an event."""
        answered, outputs = self._answers[command.call_id]
        try:
            with trio.move_on_after(timeout_s):
                await answered.wait()
                return str(outputs[0]) if outputs else None
            return f"Error: nobody answered {command.name} within {timeout_s:g} s"
        finally:
            del self._answers[command.call_id], self.manual_tools[command.call_id]

    async def wait_for_approval(self, request: AskApproval, timeout_s: float) -> Approval:
        """What the application decides; a denial where it is not there, fails, or takes too long."""
        if self.approve_mcp is None:
            return Approval(False, "Nobody is there to approve it.")
        try:
            with trio.move_on_after(timeout_s):
                return await self.approve_mcp(request)
        except Exception:
            _log.exception("approve_mcp failed")
            return Approval(False, "The approval failed.")
        return Approval(False, "Nobody approved it in time.")

    async def attend(self, on_call: Callable[[LiveCall], Awaitable[None]]) -> None:
        """Run the application's function for this call."""
        try:
            await on_call(self)
        except Exception:
            _log.exception("the application's on_call failed; the call goes on without it")

    def end(self, ended: CallEnded) -> None:
        """The call is over: that is the last that is told; streams end, listeners hear nothing more."""
        self.happened(ended)
        self._listeners.clear()
        self._wire_listeners.clear()
        self._observers.end(None)


def _filter(words: Iterable[str] | None) -> EventFilter:
    if words is not None:
        words = list(words)
        check_words(words)
    return filter_of(words)
