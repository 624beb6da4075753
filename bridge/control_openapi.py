"""The control door as an OpenAPI 3.1 description, made from its own tables: routes, commands, their fields and limits.

Served at `/openapi.json`. A test asks a running bridge everything that stands here, with the examples that stand here.
"""

from __future__ import annotations

import inspect
from typing import Any

import msgspec

from bridge.control_commands import ClientEvent, Command, CreateCall
from bridge.control_door import ROUTES, Route
from bridge.outbound import AttachOrder, CallOrder

EXAMPLES: dict[str, dict[str, Any]] = {
    "create_call": {"to": "+4930123456", "facts": "You call Ms Smith about order 4711."},
    "say": {"text": "One moment, please."},
    "ask": {"text": "What are your opening hours?"},
    "write": {"text": "The caller is a customer since 1999."},
    "update_agent": {"session": {"instructions": "Speak slowly.", "audio": {"output": {"speed": 0.8}}}},
    "client_event": {"type": "response.create", "response": {"instructions": "Say that it takes a moment."}},
    "answer_tool": {"tool_call_id": "call_1", "output": {"sky": "clear"}},
    "hang_up": {"reason": "closing time", "cause": "normal"},
    "leave": {"reason": "a colleague takes this one"},
    "transfer": {"destination": "reception"},
    "hold": {"music": "default"},
    "mute": {"who": "caller"},
    "unmute": {"who": "caller"},
    "press_keys": {"keys": "12#"},
}
"""A body for each command that takes one."""

ATTACH_EXAMPLE: dict[str, Any] = {"channel": "1700000000.17", "agent": "default", "session": {"voice": "cedar"}}

_TEXT = {"type": "string"}
# Of a call that is placed, attached, or over there is more to tell than of others.
CALL: dict[str, Any] = {
    "type": "object",
    "description": "One call. `id` is the `call_id` of all log lines, events and records.",
    "properties": {
        "id": {"type": "string", "format": "uuid"},
        "agent": _TEXT | {"description": "The name of its profile."},
        "caller": _TEXT | {"description": "Number and name, as far as known."},
        "called": _TEXT | {"description": "The dialplan's extension, or the number that was called."},
        "seconds": {"type": "number", "description": "How long it has lasted."},
        "state": _TEXT
        | {
            "description": "`connecting` until the caller is answered, then `listening`, `responding`, `interrupted`, "
            "`announcing`, `closing`, `ended`. Of a placed call `connecting`, `ringing`, `detecting`, `answered`, `ended`."
        },
        "direction": {"enum": ["inbound", "outbound"]},
        "answered": {"type": "boolean"},
        "tools_waiting": {
            "type": "array",
            "description": "Calls of tools that wait for `answer_tool`. `arguments` is the model's JSON, as text.",
            "items": {
                "type": "object",
                "properties": {"tool_call_id": _TEXT, "name": _TEXT, "arguments": _TEXT},
                "required": ["tool_call_id", "name", "arguments"],
                "additionalProperties": False,
            },
        },
        "returns_to": _TEXT | {"description": "The Stasis app to which the channel goes back; empty: the dialplan."},
        "reason": _TEXT | {"description": "Why it ended: the word of BRIDGE_END_REASON."},
        "detail": _TEXT,
    },
    "required": ["id", "agent", "caller", "called", "seconds", "state"],
    "additionalProperties": False,
}
_ANSWERS: dict[str, dict[str, Any]] = {
    "Call": CALL,
    "Calls": {
        "type": "object",
        "properties": {"calls": {"type": "array", "items": {"$ref": "#/components/schemas/Call"}}},
        "required": ["calls"],
        "additionalProperties": False,
    },
    "Error": {
        "type": "object",
        "properties": {"error": _TEXT | {"description": "What is wrong, and what to do."}},
        "required": ["error"],
        "additionalProperties": False,
    },
}
_WHY = {
    400: "The body is wrong; the message names the field.",
    401: "No token, or a wrong one.",
    403: "No token is set, so nobody may ask.",
    404: "There is no such call, or channel.",
    409: "The call is over, or does not allow this now.",
    413: "The body is too long.",
    426: "This is for websockets.",
    501: "This process can not.",
    502: "Asterisk refused.",
    503: "There is no connection to Asterisk, or no room.",
}
_LINES = {
    "list_calls": "The running calls",
    "show_call": "One call",
    "create_call": "Place a call, or give an agent to a channel",
    "next": "What the dialplan of a plain call is to do with its caller",
    "events": "The events of all calls, and commands, on a websocket",
    "call_events": "The events of one call, and commands, on a websocket",
    "openapi": "This description",
}


def description(version: str) -> dict[str, Any]:
    """The whole description, of JSON's types."""
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    for path, operations in paths.items():
        if "{id}" in path:
            operations["parameters"] = [{"$ref": "#/components/parameters/id"}]
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "realtime-bridge: control door",
            "version": version,
            "description": "Running calls seen, spoken into, changed, transferred and ended; docs/control.md explains it.",
        },
        "servers": [{"url": "http://127.0.0.1:9292", "description": "server.control_address"}],
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "description": "server.control_token"},
            },
            "parameters": {
                "id": {"name": "id", "in": "path", "required": True, "schema": {"type": "string", "format": "uuid"}}
            },
            "schemas": _ANSWERS | _bodies(),
        },
    }


def _operation(route: Route) -> dict[str, Any]:
    operation: dict[str, Any] = {"operationId": route.name, "summary": _LINES.get(route.name, route.name)}
    if route.kind is not None and (told := inspect.getdoc(route.kind)):
        operation["description"] = " ".join(told.split())
    if route.answer == "stream":
        operation["parameters"] = [
            {
                "name": "events",
                "in": "query",
                "description": "Words of the event filter, with commas between; left out: all but audio.",
                "schema": {"type": "string"},
            }
        ]
    if not route.token:
        operation["security"] = []
    if route.method == "POST":
        operation["requestBody"] = _request_body(route)
    operation["responses"] = {
        str(route.status): _success(route),
        **{str(status): _error(route, status) for status in statuses_of(route) if status != route.status},
    }
    return operation


def statuses_of(route: Route) -> list[int]:
    """Every status with which this route may answer, save 405 of a wrong method and 5xx of a defect."""
    statuses = [route.status]
    if route.token:
        statuses += [401, 403]
    if "{id}" in route.path:
        statuses += [404]
    match route.answer:
        case "line":
            statuses += [409]
        case "stream":
            statuses += [400, 426, 503] + ([409] if "{id}" in route.path else [])
    if route.method == "POST":
        statuses += [400, 409, 413]
    if route.kind is CreateCall:
        statuses += [404, 501, 502, 503]
    return sorted(statuses)


def _request_body(route: Route) -> dict[str, Any]:
    assert route.kind is not None
    media: dict[str, Any] = {"schema": {"$ref": f"#/components/schemas/{route.kind.__name__}"}}
    if route.kind is CreateCall:
        media["schema"] = {
            "oneOf": [{"$ref": "#/components/schemas/CallOrder"}, {"$ref": "#/components/schemas/AttachOrder"}]
        }
        media["examples"] = {
            "place": {"value": EXAMPLES["create_call"]},
            "attach": {"value": ATTACH_EXAMPLE},
        }
    else:
        if route.kind is ClientEvent:
            event = {
                "type": "object",
                "description": "The event itself",
                "properties": {"type": {"type": "string"}},
                "required": ["type"],
            }
            media["schema"] = {"anyOf": [event, media["schema"]]}
        media["example"] = EXAMPLES.get(route.name, {})
    return {"required": bool(EXAMPLES.get(route.name)), "content": {"application/json": media}}


def _success(route: Route) -> dict[str, Any]:
    match route.answer:
        case "stream":
            return {"description": "The websocket; docs/control.md says what is said on it."}
        case "line":
            return {
                "description": "`hang_up,REASON`, `goto,CONTEXT,EXTEN,PRIORITY` or `continue,REASON`",
                "content": {"text/plain": {"schema": {"type": "string"}}},
            }
        case "description":
            return {"description": "OpenAPI", "content": {"application/json": {"schema": {"type": "object"}}}}
    told = "Told as it is after that; what was asked for goes on." if route.status == 202 else "As it is now."
    return {
        "description": told,
        "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{route.answer}"}}},
    }


def _error(route: Route, status: int) -> dict[str, Any]:
    if route.answer == "line":
        return {
            "description": "`continue`: nobody knows such a call, or it still runs",
            "content": {"text/plain": {"schema": {"type": "string"}}},
        }
    media = {"schema": {"$ref": "#/components/schemas/Error"}}
    kind = "text/plain" if status == 413 else "application/json"
    return {
        "description": _WHY[status],
        "content": {kind: {"schema": {"type": "string"}} if status == 413 else media},
    }


def _bodies() -> dict[str, Any]:
    kinds: list[type] = [CallOrder, AttachOrder]
    kinds += [
        route.kind
        for route in ROUTES
        if route.method == "POST" and route.kind is not None and issubclass(route.kind, Command)
    ]
    _, components = msgspec.json.schema_components(kinds, ref_template="#/components/schemas/{name}")
    return dict(components)
