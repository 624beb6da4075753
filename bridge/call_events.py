"""What applications are told of a call, under one set of names whatever the model's protocol: their fields, and their JSON.

    call.started      who calls whom                     call.answered, call.ended   with the reason
    state.changed     connecting, then the dialogue's    speech.started, .stopped    the caller, by VAD or by the keys
    transcript.partial, .final     of both sides         playback.started, .stopped  what the caller hears of the agent
    tool.called, tool.answered                           digit.pressed, digits.collected
    usage.updated

`docs/events.md` is the page for users. The dialogue's parts make these events where things happen (`Commands.do`);
`LiveCall` tells them as `CallEvent`s of the source `call`, beside the plain notices that mean something else. Those of
the same meaning (`REPLACED`) are for the log alone. Unlike the log, events hold words, digits and arguments of tools;
what was keyed in for a secure entry is in neither.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from bridge.session import masked
from bridge.usage import UsageTotals, usd_of

Role = Literal["caller", "agent"]
# The notices of the log that applications get as an event instead.
REPLACED: Mapping[str, str] = {
    "caller_said": "transcript.final",
    "agent_said": "transcript.final",
    "agent_starts": "playback.started",
    "agent_stops": "playback.stopped",
    "tool_called": "tool.called",
    "caller_pressed": "digit.pressed",
}


class Happening(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    """Base of the events. `*_ms` are milliseconds of audio; `item_id` is the model's name of a message."""


class CallStarted(Happening, frozen=True, kw_only=True, tag="call.started"):
    """The bridge has a call, which is not answered yet. Before any `on_call` runs: watchers hear it."""

    agent: str
    caller: str
    called: str
    direction: Literal["inbound", "outbound"]


class CallAnswered(Happening, frozen=True, kw_only=True, tag="call.answered"):
    """The caller (or whom we call) is on the line."""


class CallEnded(Happening, frozen=True, kw_only=True, tag="call.ended"):
    """The last event of a call, as its record says it. `error`: `code` and `message`, where something failed."""

    reason: str
    completion_reason: str
    error: dict[str, str | None] | None
    duration_s: float


class StateChanged(Happening, frozen=True, kw_only=True, tag="state.changed"):
    """`connecting`; from the answer on `listening`, `responding`, `interrupted`, `announcing` or `closing`."""

    state: str


class SpeechStarted(Happening, frozen=True, kw_only=True, tag="speech.started"):
    """The caller speaks. `audio_ms`: where in the audio of this session, as the server says; with manual turns the talk key
    was pressed, nothing is known of it, and `item_id` is empty."""

    item_id: str
    audio_ms: int | None = None


class SpeechStopped(Happening, frozen=True, kw_only=True, tag="speech.stopped"):
    """The end of what `speech.started` began. `audio_ms` is None where nobody said it: the session was lost, say."""

    item_id: str
    audio_ms: int | None = None


class TranscriptPartial(Happening, frozen=True, kw_only=True, tag="transcript.partial"):
    """More words of one message: `delta` are the new ones, `text` all so far. Of the agent as they are generated, which is
    before the caller hears them, and maybe more than he ever does."""

    role: Role
    item_id: str
    delta: str
    text: str


class TranscriptFinal(Happening, frozen=True, kw_only=True, tag="transcript.final"):
    """What was said in one message; told once. Of the agent what the caller *heard*, `interrupted` if more was to come.
    Of the caller `heard_ms` is None; `interrupted` says that the call ended before all words were known."""

    role: Role
    item_id: str
    text: str
    interrupted: bool = False
    heard_ms: int | None = None


class PlaybackStarted(Happening, frozen=True, kw_only=True, tag="playback.started"):
    """The caller begins to hear the agent. `item_id` is the first message that he hears."""

    item_id: str


class PlaybackStopped(Happening, frozen=True, kw_only=True, tag="playback.stopped"):
    """The caller hears the agent no more; a gap while more is on its way is no stop. `item_id` is the message that he heard
    last, `heard_ms` all speech that he heard since `playback.started`."""

    item_id: str
    reason: Literal["completed", "interrupted"]
    heard_ms: int


class ToolCalled(Happening, frozen=True, kw_only=True, tag="tool.called"):
    """The model calls a tool. `arguments` is its JSON as text, which may be broken."""

    tool_call_id: str
    name: str
    arguments: str


class ToolAnswered(Happening, frozen=True, kw_only=True, tag="tool.answered"):
    """The one output of a call, as the model is told it. A tool that ends the call has none."""

    tool_call_id: str
    name: str
    output: str
    lasted_ms: int
    failed: bool


class DigitPressed(Happening, frozen=True, kw_only=True, tag="digit.pressed"):
    """The caller pressed a key that belongs to no secure entry."""

    digit: str


class DigitsCollected(Happening, frozen=True, kw_only=True, tag="digits.collected"):
    """An entry of `collect_digits` is over: how many digits there are of it."""

    name: str
    count: int


class UsageUpdated(
    UsageTotals, frozen=True, kw_only=True, omit_defaults=False, tag="usage.updated", tag_field="type"
):
    """What the call has used so far (`UsageTotals`), after each response and transcript; `cost_usd` as in the record."""

    cost_usd: float | None = None

    @classmethod
    def of(cls, totals: UsageTotals) -> UsageUpdated:
        return cls(**msgspec.structs.asdict(totals), cost_usd=usd_of(totals.cost_nano_usd))


AnyHappening = Happening | UsageUpdated


def type_of(event: AnyHappening | type[AnyHappening]) -> str:
    """The name of an event."""
    return str(event.__struct_config__.tag)


def data_of(event: AnyHappening) -> dict[str, Any]:
    """The fields of an event, as plain JSON types."""
    data: dict[str, Any] = msgspec.to_builtins(event)
    del data["type"]
    return data


KINDS: tuple[type[AnyHappening], ...] = (*Happening.__subclasses__(), UsageUpdated)
EVENTS: Mapping[str, type[AnyHappening]] = {type_of(kind): kind for kind in KINDS}


@dataclass(frozen=True, slots=True)
class CallEvent:
    """One event of a call. `source`: `server` or `client` for the Realtime events of the model's session as they passed,
    `call` for what the bridge makes of them: the events above, and the plain notices (`turn`, `session_lost`, ...).
    `at_s`: trio's clock; `at_unix_s`: the same moment of the world's."""

    source: Literal["server", "client", "call"]
    at_s: float
    type: str
    event: Mapping[str, Any]
    at_unix_s: float = 0.0


def envelope(call_id: str, event: CallEvent) -> dict[str, Any]:
    """An event as the outside gets it, of plain JSON types: hooks and websockets send exactly this. `at`: seconds since
    1970. `data`: the fields above; of the sources `server` and `client` the whole Realtime event, its secrets masked."""
    data: Any = msgspec.to_builtins(event.event, str_keys=True, enc_hook=str)
    return {
        "call_id": call_id,
        "at": round(event.at_unix_s, 3),
        "source": event.source,
        "type": event.type,
        "data": data if event.source == "call" else masked(data),
    }


def check_words(words: Iterable[str]) -> None:
    """Raises `ValueError` for a word of the log that applications have another name for: it would match nothing."""
    for word in words:
        if new := REPLACED.get(word.lstrip("-")):
            raise ValueError(f"event filter: {word!r} is a word of the log; for applications it is {new!r}")
