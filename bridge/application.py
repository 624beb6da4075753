"""What an application may put into a running conversation: any Realtime client event, made safe for the call.

A raw event could break what the bridge keeps track of: a second response, tools that vanish with a partial update, an item
that the next session would not know. So each type is carried out by the part that owns its subject.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from bridge import call_tools, realtime
from bridge.barge_in import Reaction
from bridge.errors import ConfigError, SessionAway
from bridge.history import Speaker
from bridge.responses import APART, Ask
from bridge.session import PCM_FORMAT, checked, merged
from bridge.session_flat import translated
from bridge.talk import Talk
from bridge.tool_use import ToolUse

# Whoever sends the output of a tool as an event asks for the answer with another, as the API wants it. Where that does not
# come (an application that counts on the bridge for it) the bridge asks.
ASK_AFTER_S = 1.0
_SPEAKERS = {"user": Speaker.CALLER, "assistant": Speaker.AGENT, "system": Speaker.SYSTEM}


def carry_out(talk: Talk, tools: ToolUse, event: Mapping[str, Any], now: float) -> None:
    """Carry out a client event (section 2.2) of the application. Raises `ConfigError` for one that can not be sent."""
    match event.get("type"):
        case "session.update":
            update_session(talk, _object(event, "session"))
        case "response.create":
            fields = _response(_object(event, "response")) if event.get("response") is not None else {}
            if fields.get("conversation") == "none":
                apart = {**fields, "metadata": {**(fields.get("metadata") or {}), APART: "1"}}
                _send_now(talk, realtime.create_response(apart))
            else:
                talk.responses.want(Ask(fields, foreign=True))
        case "response.cancel":
            talk.interrupt()
        case "conversation.item.create":
            _create_item(talk, tools, event, now)
        case "conversation.item.delete":
            talk.history.forget(str(event.get("item_id")))
            _send(talk, msgspec.json.encode(event))
        case "input_audio_buffer.clear":
            # No end is told of speech that is cleared away.
            if talk.barge_in.deaf() is Reaction.RESUME:
                talk.speech.resume()
            talk.speech_ends()
            _send(talk, msgspec.json.encode(event))
        case "input_audio_buffer.append":
            raise ConfigError("input_audio_buffer.append: the caller's audio is the bridge's to send")
        case str():
            _send_now(talk, msgspec.json.encode(event))
        case _:
            raise ConfigError("a client event needs a type; see the Realtime API's list")


def update_session(talk: Talk, fields: Mapping[str, Any]) -> None:
    """Change the session for the rest of the call, sessions that take over included.

    The bridge's own tools stay whatever `tools` says, since a list replaces a list. Raises `ConfigError` for what the
    server would refuse, and for the audio formats, which are the bridge's.
    """
    update = checked(fields, "session.update").session
    update.pop("type", None)
    for direction in ("input", "output"):
        if "format" in update.get("audio", {}).get(direction, {}):
            raise ConfigError(f"session.update: audio.{direction}.format is the bridge's to choose")
    if "tools" in update:
        said = {tool.get("name") for tool in update["tools"]}
        own = [it for it in talk.session.get("tools", []) if it.get("name") in call_tools.BUILT_IN]
        kept = [it for it in own if it["name"] not in said]
        update["tools"] = [*kept, *update["tools"]]
    talk.session = merged(talk.session, update)
    _send(talk, realtime.update_session(update))


def _response(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields of a response in GA names. The format of its audio is the bridge's. Raises `ConfigError`."""
    try:
        tree = translated(msgspec.json.decode(msgspec.json.encode(fields))).tree
    except ConfigError as error:
        raise ConfigError(f"response.create: {error.place}: {error}", place=error.place) from error
    output = tree.get("audio", {}).get("output", {}) if isinstance(tree.get("audio"), dict) else {}
    if isinstance(output, dict) and output.pop("format", PCM_FORMAT) != PCM_FORMAT:
        raise ConfigError("response.create: audio.output.format is the bridge's to choose")
    if tree.get("audio") == {"output": {}}:
        del tree["audio"]
    return tree


def _named_as_today(item: dict[str, Any]) -> dict[str, Any]:
    """A message whose text was called `text`, as the beta did."""
    if not isinstance(parts := item.get("content"), list):
        return item
    today = "output_text" if item.get("role") == "assistant" else "input_text"
    return item | {
        "content": [it | {"type": today} if isinstance(it, dict) and it.get("type") == "text" else it for it in parts]
    }


def _create_item(talk: Talk, tools: ToolUse, event: Mapping[str, Any], now: float) -> None:
    item = _object(event, "item")
    if item.get("type") == "function_call_output":
        output = item.get("output")
        told = output if isinstance(output, str) else msgspec.json.encode(output).decode()
        tools.finished(str(item.get("call_id")), told, now, ask_at=now + ASK_AFTER_S)
        return
    item = _named_as_today(item)
    text = _text_of(item)
    if item.get("type") == "message" and item.get("role") in _SPEAKERS and text is not None:
        item = {**item, "id": item.get("id") or talk.new_item_id()}
        talk.history.wrote(item["id"], _SPEAKERS[item["role"]], text)
        _send(talk, realtime.create_item(item, event.get("previous_item_id")))
    else:
        _send_now(talk, realtime.create_item(item, event.get("previous_item_id")))


def _text_of(item: Mapping[str, Any]) -> str | None:
    """The text of a message, None where there is anything else in it."""
    parts = item.get("content")
    if not isinstance(parts, list) or not all(
        isinstance(it, dict) and isinstance(it.get("text"), str) for it in parts
    ):
        return None
    return " ".join(it["text"] for it in parts)


def _send(talk: Talk, payload: bytes) -> None:
    """Without a session the event is void; what must outlive sessions has been kept already."""
    if talk.session_stands:
        talk.commands.send(payload)


def _send_now(talk: Talk, payload: bytes) -> None:
    """What nothing here remembers. Raises `SessionAway` rather than lose it."""
    if not talk.session_stands:
        raise SessionAway(
            "no session stands now, and this event would be lost; send it again when one does (session_connected)"
        )
    talk.commands.send(payload)


def _object(event: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = event.get(key)
    if not isinstance(value, dict):
        raise ConfigError(f"{event.get('type')}: {key} must be an object")
    return value
