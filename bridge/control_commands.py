"""What may be asked of a running process from outside: each command as its name, its fields and their limits. No I/O.

The same commands come by HTTP (`control_door`: the fields are the body) and on a websocket (`control_messages`: the fields
stand beside the name). `control_openapi` describes them from here, `control_desk` carries them out.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec

from bridge.errors import ConfigError
from bridge.validation import converted

MAX_BODY = 1 << 20
"""Of one command, as JSON: the longest function outputs and instructions that models take, and room for their quoting."""

Text = Annotated[str, msgspec.Meta(min_length=1, max_length=65536)]
Words = Annotated[str, msgspec.Meta(max_length=500)]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
Party = Literal["caller", "agent", "both"]


class Command(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Something that is asked for."""


class ListCalls(Command, frozen=True):
    """The running calls of this process."""


class ShowCall(Command, frozen=True):
    """One call; one that has ended is told for 5 minutes."""


class CreateCall(msgspec.Struct, frozen=True):
    """Places a call (`to`), or attaches an agent to a channel that is in Asterisk already (`channel`)."""

    wanted: dict[str, Any]


class TellNextStep(Command, frozen=True):
    """What the dialplan of a plain call is to do with its caller."""


class Say(Command, frozen=True):
    """The agent says this, in about these words, as soon as nobody else speaks."""

    text: Text


class Ask(Command, frozen=True):
    """Something is said to the agent in the caller's place, and it answers."""

    text: Text


class Write(Command, frozen=True):
    """A text is put into the conversation, without an answer: as a note to the agent, or as the caller's words."""

    text: Text
    role: Literal["system", "user"] = "system"


class UpdateAgent(Command, frozen=True):
    """Fields of the model's session are changed for the rest of the call, in GA or old flat names: `instructions`, `tools`,
    `audio.input.turn_detection`, ... What is not said stays."""

    session: dict[str, Any]


class ClientEvent(Command, frozen=True):
    """Any client event of the Realtime API, as JSON in `event`, or as that JSON's base64 in `base64` for those who would
    have to quote it. By HTTP the body may be the event itself."""

    event: dict[str, Any] | None = None
    base64: str = ""


class HangUp(Command, frozen=True):
    """The call ends when everything said so far was heard; one that is placed and not answered ends at once. `cause` is
    what signalling is told: a word (`normal`, `busy`, ...) or a Q.850 number."""

    reason: Words = "an operator ended the call"
    cause: str | int = "normal"


class Leave(Command, frozen=True):
    """The agent leaves at once, and the caller goes on where they came from: in the Stasis app that the channel was taken
    from, or in the dialplan with BRIDGE_END_REASON=agent_left."""

    reason: Words = "an application took the agent out of the call"


class Transfer(Command, frozen=True):
    """The caller is handed over to a destination of `[agents.NAME.transfers]`, when everything said so far was heard;
    `number` where that destination takes one."""

    destination: Name
    number: Annotated[str, msgspec.Meta(max_length=64)] = ""


class Hold(Command, frozen=True):
    """The caller hears a class of Asterisk's music until `resume`; the agent hears and says nothing."""

    music: Name = "default"


class Resume(Command, frozen=True):
    """Ends `hold`."""


class Mute(Command, frozen=True):
    """`caller`: the agent hears silence. `agent`: it stops speaking, and says nothing. `both`."""

    who: Party


class Unmute(Command, frozen=True):
    """Ends `mute`."""

    who: Party


class PressKeys(Command, frozen=True):
    """Presses keys towards the caller: 0-9, *, #, A-D, and w for half a second of pause."""

    keys: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]


class PauseRecording(Command, frozen=True):
    """Silence is recorded from here on."""


class ResumeRecording(Command, frozen=True):
    """The recording goes on."""


class AnswerTool(Command, frozen=True):
    """The output of a tool that nobody in the bridge runs; what is no text is given to the model as JSON."""

    tool_call_id: Name
    output: Any


class Subscribe(Command, frozen=True):
    """Sends the events of one call, or without `call` of all calls, by the words of the filter in `events`; left out: all
    but audio. Takes the place of an earlier `subscribe` for the same. Only on a websocket."""

    events: list[Annotated[str, msgspec.Meta(max_length=100)]] | None = None


class Unsubscribe(Command, frozen=True):
    """Sends no more events of one call, or without `call` of those that have no `subscribe` of their own."""


IN_CALL: Mapping[str, type[Command]] = {
    "say": Say,
    "ask": Ask,
    "write": Write,
    "update_agent": UpdateAgent,
    "client_event": ClientEvent,
    "answer_tool": AnswerTool,
    "hang_up": HangUp,
    "leave": Leave,
    "transfer": Transfer,
    "hold": Hold,
    "resume": Resume,
    "mute": Mute,
    "unmute": Unmute,
    "press_keys": PressKeys,
    "pause_recording": PauseRecording,
    "resume_recording": ResumeRecording,
}
"""What may be asked of one call, by name."""

ALIASES: Mapping[str, str] = {
    "session.create": "create_call",
    "session.delete": "leave",
    "client.event": "client_event",
}
"""The commands of FreeSWITCH's mod_openai_s2s."""


def parsed(fields: Mapping[str, Any], kind: type[Command]) -> Command:
    """The command of these fields. Raises `ConfigError`, whose message says what to change."""
    return converted(fields, kind, whole="the command")


def event_of(command: ClientEvent) -> dict[str, Any]:
    """The Realtime event of the command, as it was written. Raises `ConfigError`."""
    if (command.event is None) == (not command.base64):
        raise ConfigError('client_event: give the event as an object in "event", or its JSON as base64 in "base64"')
    event: Any = command.event
    if command.base64:
        try:
            event = msgspec.json.decode(base64.b64decode(command.base64, validate=True))
        except (binascii.Error, ValueError, msgspec.DecodeError, RecursionError) as error:
            raise ConfigError(f"base64: is not the base64 of a JSON object: {error}") from error
    if not isinstance(event, dict) or not isinstance(event.get("type"), str):
        raise ConfigError('client_event: an event is an object with a "type", like {"type": "response.create"}')
    return event


def output_of(command: AnswerTool) -> str:
    """What the model is told: text as it is, anything else as JSON."""
    return command.output if isinstance(command.output, str) else msgspec.json.encode(command.output).decode()
