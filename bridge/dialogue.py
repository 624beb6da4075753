"""The words of the dialogue: its states and transitions, what it asks of its shell, and what a dialogue must offer.

`conversation.Conversation` is the dialogue with a Realtime server. A model with another protocol is another `Dialogue`
beside it; the shells of a call know only this file's words.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from bridge.call_events import AnyHappening
from bridge.destinations import Destination
from bridge.ending import EndReason
from bridge.hangup_cause import UNKNOWN


class State(enum.Enum):
    LISTENING = "listening"
    RESPONDING = "responding"
    INTERRUPTED = "interrupted"
    CLOSING = "closing"
    ANNOUNCING = "announcing"


class Step(enum.Enum):
    """What can change the state."""

    RESPONSE_CREATED = "response created"
    BARGE_IN = "barge-in"
    RESPONSE_DONE = "response done"
    CLOSE = "the agent takes leave"
    ANNOUNCE = "the caller is to be told of a transfer"
    BRIEF = "who takes the call is to be told about the caller"
    STAY = "the transfer failed"
    SESSION_LOST = "the model's session is gone"


_L, _R, _I, _C, _A = State.LISTENING, State.RESPONDING, State.INTERRUPTED, State.CLOSING, State.ANNOUNCING
TRANSITIONS: Mapping[tuple[State, Step], State] = {
    (_L, Step.RESPONSE_CREATED): _R, (_R, Step.RESPONSE_CREATED): _R,
    (_I, Step.RESPONSE_CREATED): _R, (_C, Step.RESPONSE_CREATED): _C,
    (_L, Step.BARGE_IN): _L, (_R, Step.BARGE_IN): _I, (_I, Step.BARGE_IN): _I, (_C, Step.BARGE_IN): _C,
    (_L, Step.RESPONSE_DONE): _L, (_R, Step.RESPONSE_DONE): _L,
    (_I, Step.RESPONSE_DONE): _L, (_C, Step.RESPONSE_DONE): _C,
    (_L, Step.CLOSE): _C, (_R, Step.CLOSE): _C, (_I, Step.CLOSE): _C, (_C, Step.CLOSE): _C,
    (_C, Step.STAY): _L, (_A, Step.STAY): _L,
    (_L, Step.ANNOUNCE): _A, (_R, Step.ANNOUNCE): _A, (_I, Step.ANNOUNCE): _A, (_C, Step.BRIEF): _A,
    (_A, Step.RESPONSE_CREATED): _A, (_A, Step.RESPONSE_DONE): _A, (_A, Step.BARGE_IN): _A,
    (_A, Step.SESSION_LOST): _A, (_A, Step.CLOSE): _C,
    (_L, Step.SESSION_LOST): _L, (_R, Step.SESSION_LOST): _L,
    (_I, Step.SESSION_LOST): _L, (_C, Step.SESSION_LOST): _C,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class SendEvent:
    """Send this message to the model."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class RunTool:
    """Run an application's tool; answer with `Conversation.tool_finished`, whatever happens."""

    call_id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class AskApproval:
    """May this tool of an MCP server be called? Answer with `Conversation.approval_given`, whatever happens."""

    request_id: str
    server_label: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class TransferCall:
    """Hand the caller over to a destination (its `{number}` filled in), then declare it; on failure answer with
    `Dialogue.transfer_failed`. A warm one is briefed in between: `Dialogue.target_answered`, then `Briefed`.

    `call_id` is that of the function call, which has no output yet; empty: there is none, or it has been answered.
    """

    call_id: str
    name: str
    destination: Destination


@dataclass(frozen=True, slots=True)
class CheckTransfer:
    """Can the caller be handed over like this? Answer with `Dialogue.transfer_checked`, whatever happens."""

    transfer: TransferCall


@dataclass(frozen=True, slots=True)
class Briefed:
    """Who is to take the call has heard the summary; `told` is False where the model could not give one."""

    told: bool


@dataclass(frozen=True, slots=True)
class KeepDigits:
    """Keep what the caller has keyed in for a secure entry, for the application and nobody else."""

    name: str
    digits: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class PressKeys:
    """Press these keys towards the caller; answer with `Conversation.tool_finished` where `call_id` is not empty."""

    call_id: str
    keys: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class StartMusic:
    """The caller is to hear this class of music on hold."""

    music: str


@dataclass(frozen=True, slots=True)
class StopMusic:
    """The caller is to hear us again."""


@dataclass(frozen=True, slots=True)
class ClearLegAudio:
    """Ask the caller's leg to drop what it has buffered."""


@dataclass(frozen=True, slots=True)
class OpenSession:
    """The session is gone: open another one, configure it with `session_update`, then say `connected`."""


@dataclass(frozen=True, slots=True)
class DropSession:
    """The session is of no use any more, though it stands: end it; `session_lost` follows with this reason."""

    reason: EndReason
    detail: str = ""
    code: str | None = None


@dataclass(frozen=True, slots=True)
class OpenSuccessor:
    """Open another session beside this one; answer with `successor_ready` or `successor_failed`."""


@dataclass(frozen=True, slots=True)
class SwapSessions:
    """Change over to the successor at once, then say `connected`."""


@dataclass(frozen=True, slots=True)
class ResendAudio:
    """Send the caller's audio of this time again: the model has not heard it, or forgot it with its session."""

    since_s: float
    until_s: float = math.inf


@dataclass(frozen=True, slots=True)
class EndCall:
    """End the call; see `ending`. `cause`: what signalling is told (Q.850), where that hangs up."""

    reason: EndReason
    detail: str = ""
    code: str | None = None
    cause: int = UNKNOWN


@dataclass(frozen=True, slots=True)
class Notice:
    """A line of the log, which applications get too, unless an event says it better (`call_events.REPLACED`)."""

    event: str
    facts: Mapping[str, object] = field(default_factory=dict)


Command = (
    SendEvent
    | RunTool
    | AskApproval
    | CheckTransfer
    | TransferCall
    | Briefed
    | KeepDigits
    | PressKeys
    | StartMusic
    | StopMusic
    | ClearLegAudio
    | OpenSession
    | DropSession
    | OpenSuccessor
    | SwapSessions
    | ResendAudio
    | EndCall
    | Notice
    | AnyHappening
)


class Commands:
    """What one input leads to, in order, until it is taken."""

    def __init__(self) -> None:
        self._list: list[Command] = []

    def do(self, command: Command) -> None:
        self._list.append(command)

    def send(self, payload: bytes) -> None:
        """An event for the model."""
        self._list.append(SendEvent(payload))

    def notice(self, event: str, **facts: object) -> None:
        self._list.append(Notice(event, facts))

    def take(self) -> list[Command]:
        taken, self._list = self._list, []
        return taken


class Dialogue(Protocol):
    """A conversation with a model, without I/O: every input answers with the commands to carry out, in order."""

    appended_ms: int
    """How much of the caller's audio the present session has been given: its shell counts it up."""
    answers_turns: bool
    """Whether the caller's manual turns are answered by themselves; False: when an application asks for it."""

    @property
    def state(self) -> State: ...

    @property
    def wants_audio(self) -> bool: ...

    @property
    def deaf(self) -> bool: ...

    @property
    def counts_samples(self) -> bool: ...

    @property
    def on_hold(self) -> bool: ...

    @property
    def longest_silence_s(self) -> float: ...

    def session_update(self) -> bytes: ...

    def connected(self, now: float, lifetime_s: float | None) -> list[Command]: ...

    def session_lost(self, reason: EndReason, detail: str, code: str | None, now: float) -> list[Command]: ...

    def successor_ready(self, now: float) -> list[Command]: ...

    def successor_failed(self, detail: str, now: float) -> list[Command]: ...

    def give_up(self, reason: EndReason, detail: str, code: str | None, now: float) -> list[Command]: ...

    def answered_by_machine(self) -> None: ...

    def media_ready(self, now: float) -> list[Command]: ...

    def model_message(self, message: str | bytes, now: float) -> list[Command]: ...

    def caller_held(self, held: bool, now: float) -> list[Command]: ...

    def hold(self, music: str | None, now: float) -> list[Command]: ...

    def mute(self, who: Literal["caller", "agent"], muted: bool, now: float) -> list[Command]: ...

    def caller_digit(self, digit: str, now: float) -> list[Command]: ...

    def caller_ends_turn(self, now: float) -> list[Command]: ...

    def tool_finished(self, call_id: str, output: str, now: float) -> list[Command]: ...

    def approval_given(self, request_id: str, approve: bool, reason: str, now: float) -> list[Command]: ...

    def application_event(self, event: Mapping[str, Any], now: float) -> list[Command]: ...

    def application_ends(self, command: EndCall | TransferCall, now: float) -> list[Command]: ...

    def transfer_checked(self, transfer: TransferCall, problem: str, known: str, now: float) -> list[Command]: ...

    def target_answered(self, transfer: TransferCall, now: float) -> list[Command]: ...

    def transfer_failed(self, call_id: str, message: str, now: float) -> list[Command]: ...

    def playout_started(self, now: float) -> list[Command]: ...

    def playout_idle(self, now: float) -> list[Command]: ...

    def tick(self, now: float) -> list[Command]: ...

    def over(self, now: float) -> list[Command]: ...
