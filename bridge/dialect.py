"""The one place where dialects of the Realtime protocol meet: GA inside the bridge, always; translated at the edge.

A `Translator` belongs to one connection: client events go out through `to_server`, messages come in through
`from_server`. The table of differences is protocol sheet 2.6 (beta) and 9 (servers that are nearly GA). Audio, by far the
most of the traffic, is recognised and passed (or has its type replaced) as bytes; JSON is read for the rest only. Measured
for one message: 20 ms to the server 0.3 us, a delta of 200 ms from it 0.6 us in GA and 1.9 us in beta, where parsing that
delta takes 11 us.

    dialect  to the server                         from the server
    GA       nothing                               `item.created` taken for added and done; filled in where missing: the
                                                   `name` of a call, `response.created`, the end of the caller's turn
    XAI      voice and turn_detection lifted       put back; else as GA
    BETA     session flattened, names of content   names of events and content, session and response as GA has them
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from bridge.errors import ModelProtocolError, ModelRejected

Json = dict[str, Any]


class Dialect(enum.StrEnum):
    """What a server speaks. `XAI` is GA but for its session."""

    GA = "ga"
    BETA = "beta"
    XAI = "xai"


class _Typed(msgspec.Struct, frozen=True):
    type: str = ""


_typed = msgspec.json.Decoder(_Typed)
_encode = msgspec.json.Encoder().encode

# Where an event says its type: in the first bytes, at every server known. An event that has it elsewhere goes the slow way.
_HEAD_BYTES = 200
_APPEND = b'{"type":"input_audio_buffer.append"'
_NOBODY = b"\0"  # stands in no JSON text
_DELTA = "response.output_audio.delta"
_GA_AUDIO = b'"response.output_audio.delta"'
_BETA_AUDIO = b'"response.audio.delta"'

# Items and responses that may be under way at the same time, or come late; far more than any server has.
_REMEMBERED = 64

# Beta's name of an event: GA's.
_EVENTS = {
    "response.audio.delta": "response.output_audio.delta",
    "response.audio.done": "response.output_audio.done",
    "response.audio_transcript.delta": "response.output_audio_transcript.delta",
    "response.audio_transcript.done": "response.output_audio_transcript.done",
    "response.text.delta": "response.output_text.delta",
    "response.text.done": "response.output_text.done",
}
# GA's name of a format: beta's. GA's rate is a constant of the name.
_FORMATS: Mapping[str, str] = {"audio/pcm": "pcm16", "audio/pcmu": "g711_ulaw", "audio/pcma": "g711_alaw"}
_CONTENT = {"output_text": "text", "output_audio": "audio"}
# Where a setting stands in GA (path), and what beta calls it at its top level.
_SETTINGS: tuple[tuple[tuple[str, ...], str], ...] = (
    (("audio", "input", "format"), "input_audio_format"),
    (("audio", "input", "transcription"), "input_audio_transcription"),
    (("audio", "input", "noise_reduction"), "input_audio_noise_reduction"),
    (("audio", "input", "turn_detection"), "turn_detection"),
    (("audio", "output", "format"), "output_audio_format"),
    (("audio", "output", "voice"), "voice"),
    (("audio", "output", "speed"), "speed"),
    (("max_output_tokens",), "max_response_output_tokens"),
    (("output_modalities",), "modalities"),
)
# Settings that beta has never heard of; left out, since a server that refuses them refuses the whole update.
_NOT_IN_BETA = ("type", "parallel_tool_calls", "reasoning", "truncation", "include", "prompt")
_KNOWN_IN_BETA = {
    "turn_detection": frozenset(
        {"type", "threshold", "prefix_padding_ms", "silence_duration_ms", "eagerness"}
        | {"create_response", "interrupt_response"}
    ),
    "input_audio_transcription": frozenset({"model", "language", "prompt"}),
    "input_audio_noise_reduction": frozenset({"type"}),
}
_XAI_SETTINGS: tuple[tuple[tuple[str, ...], str], ...] = (
    (("audio", "input", "turn_detection"), "turn_detection"),
    (("audio", "output", "voice"), "voice"),
)


Handler = Callable[[Json], Sequence[Json] | None]


class Translator:
    """One connection's translation. Keeps only what events leave out: items not yet done, names of calls, and which
    responses and turns have been announced."""

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect
        self._beta = dialect is Dialect.BETA
        self._audio = _BETA_AUDIO if self._beta else _GA_AUDIO
        self._names: dict[str, str] = {}  # of function calls under way, by item
        self._open: dict[str, str | None] = {}  # items that beta created and did not complete: the item before
        self._responses: dict[str, None] = {}  # announced, the newest last
        self._current = _NOBODY  # the newest one's id as it stands in its deltas
        self._turn: str | None = None  # the caller's turn that has begun and not ended: its item
        # A handler returns what the event stands for; None: itself, untouched.
        handlers: dict[str, Handler] = {
            "conversation.item.created": self._item_created,
            "response.output_item.added": self._output_item_added,
            "response.output_item.done": self._output_item_done,
            "response.function_call_arguments.done": self._arguments_done,
            "response.created": self._response_created,
            "response.done": self._response_done,
            _DELTA: self._audio_delta,
            "input_audio_buffer.speech_started": self._turn_began,
            "input_audio_buffer.speech_stopped": self._turn_ended,
        }
        if self._beta:
            handlers |= dict.fromkeys(_EVENTS, _renamed)
            handlers |= dict.fromkeys(("session.created", "session.updated"), _session_from_beta)
            handlers |= {"response.audio.delta": self._audio_delta, "conversation.item.retrieved": _item_from_beta}
        elif dialect is Dialect.XAI:
            handlers |= dict.fromkeys(("session.created", "session.updated"), _session_from_xai)
        self._handlers: Mapping[str, Handler] = handlers

    def to_server(self, event: bytes) -> bytes:
        """A client event of GA as this server wants it; the same bytes where nothing differs (all audio).

        Raises `ModelRejected` for what the dialect can not say: MCP, and transcription sessions, in beta.
        """
        if self.dialect is Dialect.GA or event.startswith(_APPEND):
            return event
        kind = _typed.decode(event).type
        if kind not in ("session.update", "conversation.item.create", "response.create"):
            return event
        whole: Json = msgspec.json.decode(event)
        if self.dialect is Dialect.XAI:
            if kind != "session.update":
                return event
            whole["session"] = _flattened(whole["session"], _XAI_SETTINGS)
        elif kind == "conversation.item.create":
            whole["item"] = _item_to_beta(whole["item"])
        elif kind == "session.update":
            whole["session"] = _session_to_beta(whole["session"])
        elif isinstance(whole.get("response"), dict):
            whole["response"] = _session_to_beta(whole["response"])
        else:
            return event
        return _encode(whole)

    def from_server(self, message: bytes) -> Sequence[bytes]:
        """One message as the events of GA that it stands for: mostly one, two where beta creates a finished item.

        Raises `ModelProtocolError` for what is no JSON object, or has not the shape of its type.
        """
        at = message.find(self._audio, 0, _HEAD_BYTES)
        # Text that holds the word has its quotes escaped, so only a value that is just this word must be told apart.
        if (
            at > 0
            and message.find(self._current, 0, 2 * _HEAD_BYTES) > 0
            and message[:at].rstrip().endswith(b'"type":')
        ):
            if self._beta:
                return (message[:at] + _GA_AUDIO + message[at + len(_BETA_AUDIO) :],)
            return (message,)
        try:
            handler = self._handlers.get(_typed.decode(message).type)
            if handler is None:
                return (message,)
            told = handler(msgspec.json.decode(message))
            return (message,) if told is None else tuple(map(_encode, told))
        except (msgspec.DecodeError, AttributeError, KeyError, TypeError, ValueError) as error:
            # Whatever is no JSON, or has a string where an object belongs.
            raise ModelProtocolError(f"the Realtime server sent something that is no event: {error}") from error

    # Events that need more than another name

    def _item_created(self, event: Json) -> Sequence[Json]:
        """Beta's one event for GA's two. An answer is created empty and done with its output item."""
        event["item"] = item = _content_from_beta(event.get("item") or {})
        event.setdefault("previous_item_id", None)
        added = {**event, "type": "conversation.item.added"}
        if item.get("status") == "in_progress":
            _remember(self._open, str(item.get("id")), event["previous_item_id"])
            return (added,)
        return (added, {**event, "type": "conversation.item.done"})

    def _output_item_added(self, event: Json) -> Sequence[Json]:
        event["item"] = item = _content_from_beta(event.get("item") or {})
        if item.get("type") == "function_call" and item.get("name"):
            _remember(self._names, str(item.get("id")), str(item["name"]))
        return (event,)

    def _output_item_done(self, event: Json) -> Sequence[Json]:
        event["item"] = item = _content_from_beta(event.get("item") or {})
        item_id = str(item.get("id"))
        self._names.pop(item_id, None)
        if item_id not in self._open:
            return (event,)
        told = {"type": "conversation.item.done", "previous_item_id": self._open.pop(item_id), "item": item}
        return ({"event_id": event.get("event_id"), **told}, event)

    def _arguments_done(self, event: Json) -> Sequence[Json] | None:
        name = self._names.get(str(event.get("item_id")))
        return None if event.get("name") or not name else ({**event, "name": name},)

    # What a server may leave out (section 9): that a response began, and that the caller's turn ended before it

    def _response_created(self, event: Json) -> Sequence[Json] | None:
        self._announced(str((event.get("response") or {}).get("id")))
        return _response_from_beta(event) if self._beta else None

    def _response_done(self, event: Json) -> Sequence[Json] | None:
        response = event.get("response") or {}
        before = self._announcement(str(response.get("id")), event, response.get("metadata"))
        if self._beta:
            return (*before, *_response_from_beta(event))
        return (*before, event) if before else None

    def _audio_delta(self, event: Json) -> Sequence[Json] | None:
        """The first delta of a response, or one that does not look like the others."""
        before = self._announcement(str(event.get("response_id")), event, None)
        if not before and event["type"] == _DELTA:
            return None
        return (*before, {**event, "type": _DELTA})

    def _announcement(self, response_id: str, cause: Json, metadata: Any) -> Sequence[Json]:
        """What the server should have said before `cause`: nothing, if it has. Servers that announce their responses are
        taken to end the caller's turns as well; those that do not are helped with both."""
        if response_id in self._responses:
            self._announced(response_id)
            return ()
        self._announced(response_id)
        told: list[Json] = []
        if self._turn is not None:
            told += [
                {"type": "input_audio_buffer.speech_stopped", "audio_end_ms": 0, "item_id": self._turn},
                {"type": "input_audio_buffer.committed", "previous_item_id": None, "item_id": self._turn},
            ]
            self._turn = None
        response = {"id": response_id, "object": "realtime.response", "status": "in_progress", "metadata": metadata}
        told.append({"type": "response.created", "response": {**response, "output": [], "usage": None}})
        return [{"event_id": cause.get("event_id"), **event} for event in told]

    def _announced(self, response_id: str) -> None:
        self._responses.pop(response_id, None)
        _remember(self._responses, response_id, None)
        self._current = b'"' + response_id.encode() + b'"'

    def _turn_began(self, event: Json) -> None:
        self._turn = str(event.get("item_id", ""))

    def _turn_ended(self, _event: Json) -> None:
        self._turn = None


def _remember(table: dict[str, Any], key: str, what: str | None) -> None:
    """Bounded: a server that never says "done" must not fill the memory of an hour's session."""
    table[key] = what
    if len(table) > _REMEMBERED:
        del table[next(iter(table))]


# --- to the server -------------------------------------------------------------------------------------------------


def _session_to_beta(ga: Json) -> Json:
    """A session, or the settings of one response, flat. `temperature` passes: beta knows it, GA does not."""
    if ga.get("type") == "transcription":
        raise ModelRejected("a transcription session needs a server of the GA dialect", code="dialect")
    if any(tool.get("type") == "mcp" for tool in ga.get("tools") or []):
        raise ModelRejected(
            "MCP tools need a server of the GA dialect; take them out, or use another realtime.url", code="dialect"
        )
    beta = _flattened({key: value for key, value in ga.items() if key not in _NOT_IN_BETA}, _SETTINGS)
    for name in ("input_audio_format", "output_audio_format"):
        if name in beta:
            beta[name] = _FORMATS.get(beta[name].get("type"), beta[name].get("type"))
    if "modalities" in beta:
        # Beta always wants text beside audio.
        beta["modalities"] = ["audio", "text"] if "audio" in beta["modalities"] else ["text"]
    for name, known in _KNOWN_IN_BETA.items():
        if isinstance(beta.get(name), dict):
            beta[name] = {key: value for key, value in beta[name].items() if key in known}
    if "input" in beta:
        beta["input"] = [_item_to_beta(item) for item in beta["input"]]
    return beta


def _flattened(session: Json, settings: Sequence[tuple[tuple[str, ...], str]]) -> Json:
    """A copy in which `settings` stand at the top level; what they leave empty is gone."""
    flat = {key: value for key, value in session.items() if key != "audio"}
    audio = {side: dict(values) for side, values in (session.get("audio") or {}).items()}
    for path, name in settings:
        place = audio.get(path[1], {}) if len(path) == 3 else flat
        if path[-1] in place:
            flat[name] = place.pop(path[-1])
    if rest := {side: values for side, values in audio.items() if values}:
        flat["audio"] = rest
    return flat


def _item_to_beta(item: Json) -> Json:
    if item.get("type") == "mcp_approval_response":
        raise ModelRejected("MCP needs a server of the GA dialect", code="dialect")
    return _with_content(item, _CONTENT)


# --- from the server -----------------------------------------------------------------------------------------------

_GA_FORMATS = {beta: ga for ga, beta in _FORMATS.items()}
_GA_CONTENT = {beta: ga for ga, beta in _CONTENT.items()}


def _renamed(event: Json) -> Sequence[Json]:
    event["type"] = _EVENTS[event["type"]]
    return (event,)


def _session_from_beta(event: Json) -> Sequence[Json]:
    event["session"] = {"type": "realtime", **_nested(event.get("session") or {}, _SETTINGS)}
    return (event,)


def _session_from_xai(event: Json) -> Sequence[Json]:
    event["session"] = _nested(event.get("session") or {}, _XAI_SETTINGS)
    return (event,)


def _response_from_beta(event: Json) -> Sequence[Json]:
    response = _nested(event.get("response") or {}, _SETTINGS)
    response["output"] = [_content_from_beta(item) for item in response.get("output") or []]
    event["response"] = response
    return (event,)


def _item_from_beta(event: Json) -> Sequence[Json]:
    event["item"] = _content_from_beta(event.get("item") or {})
    return (event,)


def _content_from_beta(item: Json) -> Json:
    return _with_content(item, _GA_CONTENT) if item.get("role") == "assistant" else item


def _nested(flat: Json, settings: Sequence[tuple[tuple[str, ...], str]]) -> Json:
    """A flat session (or response) as GA has it; what is GA already stays."""
    nested = {key: value for key, value in flat.items() if key != "audio"}
    audio = {side: dict(values) for side, values in (flat.get("audio") or {}).items()}
    for path, name in settings:
        if name not in nested:
            continue
        value = nested.pop(name)
        if name == "modalities":
            value = ["audio"] if "audio" in (value or ()) else ["text"]
        elif path[-1] == "format" and isinstance(value, str):
            ga = _GA_FORMATS.get(value, value)
            value = {"type": ga, "rate": 24000} if ga == "audio/pcm" else {"type": ga}
        place = audio.setdefault(path[1], {}) if len(path) == 3 else nested
        place.setdefault(path[-1], value)
    if audio:
        nested["audio"] = audio
    return nested


def _with_content(item: Json, names: Mapping[str, str]) -> Json:
    """A copy of `item` with the types of its content parts renamed."""
    content = item.get("content")
    if not isinstance(content, list):
        return item
    parts = [{**part, "type": names.get(part.get("type"), part.get("type"))} for part in content]
    return {**item, "content": parts}
