"""The Realtime protocol (GA dialect) as types: server events parsed, client events built.

No I/O and no state: `parse_server_event` turns one text message into one event, the builders return the bytes of one
message. Only what a call needs is decoded (a 200 ms audio delta in about 9 us instead of 52 us with `json`, base64
included); unknown fields and unknown events are ignored, as the protocol demands. Section numbers are those of
`docs/realtime-protocol.md`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args

import msgspec

from bridge.agent import Agent
from bridge.errors import ModelProtocolError
from bridge.realtime_mcp import McpError, McpEvent, McpToolInfo
from bridge.session import session_of

_encode = msgspec.json.Encoder().encode

# --- what the server says ------------------------------------------------------------------------------------------


class ContentPart(msgspec.Struct, frozen=True):
    """One part of a message item. `type` is `output_audio`, `output_text`, `input_audio` or `input_text`."""

    type: str = ""
    text: str | None = None
    transcript: str | None = None


class Item(msgspec.Struct, frozen=True):
    """One conversation item: a message, or a function call with its arguments as a JSON string (maybe invalid).

    From `server_label` on: of MCP, types `mcp_list_tools`, `mcp_call` and `mcp_approval_request` (section 2.3).
    """

    id: str = ""
    type: str = ""
    status: str | None = None
    role: str | None = None
    content: list[ContentPart] | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: Any = None
    server_label: str | None = None
    approval_request_id: str | None = None
    output: Any = None
    error: McpError | str | None = None
    tools: list[McpToolInfo] | None = None

    @property
    def arguments_json(self) -> str:
        """The arguments as text, which some servers send as an object."""
        return self.arguments if isinstance(self.arguments, str) else _encode(self.arguments or {}).decode()


class ServerError(msgspec.Struct, frozen=True):
    """The body of an `error` event, and why a response failed (then no `error` event comes, section 3.14).

    Everything is often null: never wait for it. Some servers have numbers as codes. `event_id` is that of our event.
    """

    type: str | None = None
    code: str | int | None = None
    message: str | None = None
    event_id: str | None = None

    @property
    def word(self) -> str | None:
        """The shortest name of this error: its code, else its type."""
        return str(self.code) if self.code is not None else self.type

    @property
    def text(self) -> str:
        """What to tell people."""
        return self.message or self.word or "no reason given"


class StatusDetails(msgspec.Struct, frozen=True):
    type: str | None = None
    reason: str | None = None
    error: ServerError | None = None


class Response(msgspec.Struct, frozen=True):
    """A response as `response.created` and `response.done` carry it. xAI puts a bare string in `status_details`."""

    id: str = ""
    status: str = ""
    status_details: StatusDetails | str | None = None
    output: list[Item] = []
    conversation_id: str | None = None
    metadata: dict[str, Any] | None = None
    usage: Any = None


class SessionCreated(msgspec.Struct, frozen=True, tag="session.created"):
    session: dict[str, Any] = {}


class SessionUpdated(msgspec.Struct, frozen=True, tag="session.updated"):
    """The acknowledgement of a `session.update`, with the whole effective session."""

    session: dict[str, Any] = {}


class SpeechStarted(msgspec.Struct, frozen=True, tag="input_audio_buffer.speech_started"):
    """The server's VAD hears the caller. `item_id` is the *future* user item; the start includes the prefix padding."""

    item_id: str = ""
    audio_start_ms: float | None = None


class SpeechStopped(msgspec.Struct, frozen=True, tag="input_audio_buffer.speech_stopped"):
    item_id: str = ""
    audio_end_ms: float | None = None


class Committed(msgspec.Struct, frozen=True, tag="input_audio_buffer.committed"):
    """The caller's turn is an item now; with `create_response` a response follows by itself."""

    item_id: str = ""


class CallerTranscript(msgspec.Struct, frozen=True, tag="conversation.item.input_audio_transcription.completed"):
    """What another model understood the caller to say. Comes at any time after the commit, may be empty."""

    item_id: str = ""
    transcript: str = ""
    usage: Any = None


class CallerTranscriptDelta(msgspec.Struct, frozen=True, tag="conversation.item.input_audio_transcription.delta"):
    """The first words of a turn, where the transcription model streams."""

    item_id: str = ""
    delta: str | None = None


class CallerTranscriptFailed(msgspec.Struct, frozen=True, tag="conversation.item.input_audio_transcription.failed"):
    """No transcript of this turn will come; the model may have understood it all the same."""

    item_id: str = ""


class TimeoutTriggered(msgspec.Struct, frozen=True, tag="input_audio_buffer.timeout_triggered"):
    """The caller said nothing for `idle_timeout_ms`; the server answers the silence by itself (section 3.12)."""

    item_id: str = ""


class ResponseCreated(msgspec.Struct, frozen=True, tag="response.created"):
    response: Response


class AudioDelta(msgspec.Struct, frozen=True, tag="response.output_audio.delta"):
    """Speech: PCM16 little-endian at 24 kHz, any number of bytes, much faster than real time."""

    response_id: str
    item_id: str
    delta: bytes
    content_index: int = 0


class AudioDone(msgspec.Struct, frozen=True, tag="response.output_audio.done"):
    """One audio part is complete, whatever its response goes on to do."""

    response_id: str = ""
    item_id: str = ""


class AgentTranscript(msgspec.Struct, frozen=True, tag="response.output_audio_transcript.done"):
    """The words of one audio part, cut off at the interruption if there was one."""

    response_id: str = ""
    item_id: str = ""
    transcript: str = ""


class AgentTranscriptDelta(msgspec.Struct, frozen=True, tag="response.output_audio_transcript.delta"):
    """The next words of an audio part: what is known of it when the session is lost before its end."""

    response_id: str = ""
    item_id: str = ""
    delta: str = ""


class AgentText(msgspec.Struct, frozen=True, tag="response.output_text.done"):
    """What the model wrote instead of speaking it."""

    item_id: str = ""
    text: str = ""


class OutputItemDone(msgspec.Struct, frozen=True, tag="response.output_item.done"):
    response_id: str
    item: Item


class ItemDone(msgspec.Struct, frozen=True, tag="conversation.item.done"):
    """An item of the conversation is complete. MCP lists and approval requests come so, maybe in no response at all."""

    item: Item


class ResponseDone(msgspec.Struct, frozen=True, tag="response.done"):
    """Generated, never "played": the caller may have minutes of it still to hear."""

    response: Response


class ErrorEvent(msgspec.Struct, frozen=True, tag="error"):
    error: ServerError


class Unhandled(msgspec.Struct, frozen=True):
    """An event that a call has no use for, by its type."""

    type: str = ""


HandledEvent = (
    SessionCreated
    | SessionUpdated
    | SpeechStarted
    | SpeechStopped
    | Committed
    | CallerTranscript
    | CallerTranscriptDelta
    | CallerTranscriptFailed
    | TimeoutTriggered
    | ResponseCreated
    | AudioDelta
    | AudioDone
    | AgentTranscript
    | AgentText
    | AgentTranscriptDelta
    | OutputItemDone
    | ItemDone
    | ResponseDone
    | ErrorEvent
    | McpEvent
)
ServerEvent = HandledEvent | Unhandled

_handled = msgspec.json.Decoder[HandledEvent](HandledEvent)
_only_type = msgspec.json.Decoder(Unhandled)
_HANDLED_TYPES = frozenset(
    str(kind.__struct_config__.tag)
    for kind in (
        SessionCreated, SessionUpdated, SpeechStarted, SpeechStopped, Committed, CallerTranscript, CallerTranscriptDelta,
        CallerTranscriptFailed, TimeoutTriggered, ResponseCreated, AudioDelta, AudioDone, AgentTranscript, AgentText,
        AgentTranscriptDelta, OutputItemDone, ItemDone, ResponseDone, ErrorEvent, *get_args(McpEvent),
    )
)  # fmt: skip


def parse_server_event(message: str | bytes) -> ServerEvent:
    """One message of the server as an event; `Unhandled` for every type that a call does not use.

    Raises `ModelProtocolError` for what is no JSON object, or a handled event without its required fields.
    """
    try:
        event: HandledEvent = _handled.decode(message)
    except msgspec.ValidationError as error:
        try:
            other = _only_type.decode(message)
        except msgspec.DecodeError:
            other = Unhandled()
        if other.type and other.type not in _HANDLED_TYPES:
            return other
        raise ModelProtocolError(f"malformed {other.type or 'event'} from the Realtime server: {error}") from error
    except msgspec.DecodeError as error:
        raise ModelProtocolError(f"the Realtime server sent something that is no JSON: {error}") from error
    return event


# --- what we say ---------------------------------------------------------------------------------------------------


def session_update(agent: Agent, tools: Sequence[Mapping[str, object]]) -> bytes:
    """The first event of a session: everything that the agent is, in one update (section 3.1).

    Which settings those are is decided by `session.session_of`.
    """
    return _encode({"type": "session.update", "session": session_of(agent, tools)})


class _Append(msgspec.Struct, frozen=True, tag="input_audio_buffer.append"):
    audio: bytes


def append_audio(pcm: bytes) -> bytes:
    """The caller's next samples (PCM16 at 24 kHz); msgspec writes the base64 (0.9 us for 20 ms)."""
    return _encode(_Append(pcm))


def create_response(fields: Mapping[str, object] | None = None, event_id: str = "") -> bytes:
    """Ask for a response; `fields` is its `response` object (`instructions` there replace the session's for this one).

    Only legal while none is active, but for one beside the conversation (section 3.9). `event_id`: an error may name it.
    """
    event: dict[str, object] = {"type": "response.create"}
    if event_id:
        event["event_id"] = event_id
    if fields:
        event["response"] = fields
    return _encode(event)


def cancel_response(response_id: str) -> bytes:
    """Stop a response. Only for one that the server does not cancel by itself: it began while the caller spoke."""
    return _encode({"type": "response.cancel", "response_id": response_id})


def truncate_item(item_id: str, content_index: int, audio_end_ms: int) -> bytes:
    """Tell the server how much of an item the caller heard. It never finds out by itself on a websocket (3.6)."""
    return _encode(
        {
            "type": "conversation.item.truncate",
            "item_id": item_id,
            "content_index": content_index,
            "audio_end_ms": audio_end_ms,
        }
    )


def delete_item(item_id: str) -> bytes:
    """Forget an item of which nothing was heard; truncating it to 0 ms may be refused (3.6)."""
    return _encode({"type": "conversation.item.delete", "item_id": item_id})


def create_item(item: Mapping[str, object], previous_item_id: str | None = None) -> bytes:
    """Put an item into the conversation: at its end, or behind `previous_item_id` (`root`: at the start)."""
    event: dict[str, object] = {"type": "conversation.item.create", "item": item}
    if previous_item_id is not None:
        event["previous_item_id"] = previous_item_id
    return _encode(event)


def update_session(fields: Mapping[str, object]) -> bytes:
    """Change these fields of the session (GA shaped); the server merges them, and `type` must always be there."""
    return _encode({"type": "session.update", "session": {"type": "realtime", **fields}})


def commit_audio() -> bytes:
    """The caller's turn is over: make an item of what was appended. Refused below 100 ms (section 2.2)."""
    return _encode({"type": "input_audio_buffer.commit"})


def clear_audio() -> bytes:
    """Forget what was appended since the last commit."""
    return _encode({"type": "input_audio_buffer.clear"})
