"""What a tool hook is sent, and what its answers mean. Pure.

The request is one JSON object with jambonz's names and the call's facts:

    {"tool_call_id": "call_1", "name": "order_status", "args": {"number": "17"},
     "call_id": "...", "agent": "default", "caller": "+4930123", "called": "100"}

A digit that the caller keyed in for a secure entry is never in it. An answer may be

    any JSON, or plain text      the tool's output as it is; nothing at all is "done"
    jambonz's envelope           {"type": "conversation.item.create", "item": {"type": "function_call_output",
                                 "call_id": ..., "output": ...}}: its output, an object as JSON

jambonz drops an envelope that is not quite right, and its assistant falls silent; here it is an error that the model hears.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from bridge.errors import ToolError
from bridge.tool_schema import ToolContext

# What says "not now" about a request that was not begun. A 500 may have booked the table before it failed.
_SAFE_STATUSES = frozenset({429, 502, 503, 504})


def request_of(name: str, arguments: Mapping[str, Any], context: ToolContext) -> bytes:
    """The body for one call of a tool; each try has the same."""
    return msgspec.json.encode(
        {
            "tool_call_id": context.tool_call_id,
            "name": name,
            "args": arguments,
            "call_id": context.call_id,
            "agent": context.agent,
            "caller": context.caller,
            "called": context.called,
        }
    )


def may_be_repeated(status: int | None, *, connected: bool) -> bool:
    """Whether a try that failed can be repeated without having something done twice. `status`: None without an answer."""
    return status in _SAFE_STATUSES if status is not None else not connected


def output_of(body: bytes, name: str, tool_call_id: str) -> str:
    """The tool's output by a 2xx answer. Raises `ToolError` with what the model is told."""
    try:
        text = body.decode().strip()
    except UnicodeDecodeError as error:
        raise ToolError(f"the service of {name} answered something that is no text") from error
    if not text:
        return "done"
    try:
        answer = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        if text[:1] in "{[":
            raise ToolError(f"the service of {name} answered broken JSON") from error
        if text[:1] == "<":  # a login page, or some server's own
            raise ToolError(f"the service of {name} answered with a web page") from None
        return text
    if isinstance(answer, dict) and answer.get("type") == "conversation.item.create":
        answer = _unwrapped(answer, name, tool_call_id)
    return answer if isinstance(answer, str) else msgspec.json.encode(answer).decode()


def _unwrapped(envelope: Mapping[str, Any], name: str, tool_call_id: str) -> Any:
    item = envelope.get("item")
    if not isinstance(item, Mapping) or item.get("type") != "function_call_output" or "output" not in item:
        raise ToolError(
            f"the service of {name} answered a conversation.item.create without a function_call_output that has an output"
        )
    if item.get("call_id", tool_call_id) != tool_call_id:
        raise ToolError(f"the service of {name} answered another call than the one it was asked about")
    return item["output"]
