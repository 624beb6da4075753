"""What an operator, an application or the dialplan may ask of a running process by HTTP: requests in, wishes out. No I/O.

    GET  /calls                     the running calls
    POST /calls                     {"to": ..., ...} places a call, {"channel": ..., ...} attaches to one
    GET  /calls/UUID                one of them
    POST /calls/UUID/COMMAND        `control_commands.IN_CALL`: say, hang_up, transfer, client_event, ...
    GET  /calls/UUID/next           what the dialplan is to do next (`next_step`); no token: the UUID is the secret
    GET  /events                    a websocket: the events of all calls, and commands (`control_messages`)
    GET  /calls/UUID/events         the same, of one call
    GET  /openapi.json              all of this as OpenAPI (`control_openapi`); no token

`ROUTES` is the one table of it. JSON in and out, errors are `{"error": "what, and what to do"}`; only `next` answers a bare
line, which a dialplan can use. `control_desk` carries out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import parse_qs
from uuid import UUID

import msgspec

from bridge import bearer
from bridge.control_commands import (
    IN_CALL,
    ClientEvent,
    Command,
    CreateCall,
    ListCalls,
    ShowCall,
    TellNextStep,
    parsed,
)
from bridge.errors import ConfigError
from bridge.event_stream import EventFilter
from bridge.http_exchange import Page, Request, json_page

SUBPROTOCOL = "bridge.control"
TOKEN_SUBPROTOCOL = "bridge.token."
"""With the token behind it, beside `SUBPROTOCOL`: browsers can send no header with a websocket."""


@dataclass(frozen=True, slots=True)
class Wish:
    """A command, and the call that it is for, where it is for one."""

    name: str
    command: Command | CreateCall
    call_id: str = ""


@dataclass(frozen=True, slots=True)
class OpenStream:
    """A websocket is wanted: of one call, or (empty) of all. `words`: the filter that it begins with. Not `trusted`: the
    first message has to bring the token."""

    call_id: str
    words: list[str] | None
    trusted: bool


@dataclass(frozen=True, slots=True)
class Describe:
    """The OpenAPI description is wanted."""


@dataclass(frozen=True, slots=True)
class Route:
    """One thing that can be asked. `status` is that of success; `answer` what comes then."""

    method: Literal["GET", "POST"]
    path: str
    name: str
    kind: type[Command] | type[CreateCall] | None
    status: int
    answer: Literal["Call", "Calls", "line", "stream", "description"]
    token: bool = True


ROUTES = (
    Route("GET", "/calls", "list_calls", ListCalls, 200, "Calls"),
    Route("POST", "/calls", "create_call", CreateCall, 202, "Call"),
    Route("GET", "/calls/{id}", "show_call", ShowCall, 200, "Call"),
    *(Route("POST", f"/calls/{{id}}/{name}", name, kind, 202, "Call") for name, kind in IN_CALL.items()),
    Route("GET", "/calls/{id}/next", "next", TellNextStep, 200, "line", token=False),
    Route("GET", "/events", "events", None, 101, "stream"),
    Route("GET", "/calls/{id}/events", "call_events", None, 101, "stream"),
    Route("GET", "/openapi.json", "openapi", None, 200, "description", token=False),
)


def refusal(status: int, error: str, *headers: tuple[str, str]) -> Page:
    """An error for people and programs."""
    return json_page(status, {"error": error}, *headers)


def no_such_call(call_id: str) -> Page:
    return refusal(404, f"no call {call_id} runs in this process; GET /calls lists those that do")


def wish_of(request: Request, token: str) -> Wish | OpenStream | Describe | Page:
    """What a request asks for, or the refusal to answer with. `token` is server.control_token."""
    parts = request.path.strip("/").split("/")
    fitting = [route for route in ROUTES if _fits(route, parts)]
    if not fitting:
        return _unknown(request, parts, token)
    route = next((it for it in fitting if it.method == request.method), fitting[0])
    if route.token and route.answer != "stream" and (refused := _unauthorized(request, token)):
        return refused
    if request.method != route.method:
        methods = ", ".join(it.method for it in fitting)
        return refusal(405, f"{request.path} takes {methods}", ("Allow", methods))
    call_id = parts[1].lower() if "{id}" in route.path else ""
    if call_id and not _is_id(call_id):
        return refusal(404, f"{parts[1]!r} is not the UUID of a call; GET /calls tells them")
    if route.answer == "stream":
        return _stream(request, token, call_id)
    if route.answer == "description":
        return Describe()
    return _wish(request, route, call_id)


def _fits(route: Route, parts: list[str]) -> bool:
    wanted = route.path.strip("/").split("/")
    return len(wanted) == len(parts) and all(it in ("{id}", part) for it, part in zip(wanted, parts, strict=True))


def _unknown(request: Request, parts: list[str], token: str) -> Page:
    if parts[0] != "calls":
        return refusal(404, "there are /calls, /events and /openapi.json; docs/control.md has all of it")
    names = ", ".join(route.name for route in ROUTES if route.path.startswith("/calls/{id}/"))
    return _unauthorized(request, token) or refusal(404, f"a call has {names}; docs/control.md has all of it")


def _wish(request: Request, route: Route, call_id: str) -> Wish | Page:
    assert route.kind is not None
    if request.method == "GET":
        assert issubclass(route.kind, Command)
        return Wish(route.name, route.kind(), call_id)
    try:
        fields = msgspec.json.decode(request.body or b"{}")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return refusal(400, f"the body must be JSON: {error}")
    if not isinstance(fields, dict):
        return refusal(400, "the body must be a JSON object")
    try:
        return wish_for(route.name, fields, call_id)
    except ConfigError as error:
        return refusal(400, str(error).replace("the command: ", "the body: "))


def wish_for(name: str, fields: dict[str, Any], call_id: str) -> Wish:
    """The wish of one of `KINDS` by name, and its fields. Raises `ConfigError`."""
    kind = KINDS[name]
    if kind is CreateCall:
        return Wish(name, CreateCall(fields))
    if kind is ClientEvent and "type" in fields and not {"event", "base64"} & fields.keys():
        fields = {"event": fields}
    assert issubclass(kind, Command)
    return Wish(name, parsed(fields, kind), call_id)


KINDS = {route.name: route.kind for route in ROUTES if route.kind is not None and route.kind is not TellNextStep}
"""The commands by name, those of a call and the others."""


def _stream(request: Request, token: str, call_id: str) -> OpenStream | Page:
    words = _words(request.query)
    try:
        EventFilter.parse(words)
    except ValueError as error:
        return refusal(400, str(error))
    if not request.upgrades:
        return refusal(
            426, "this is a websocket: ask for it with one, like `websocat ws://...`", ("Upgrade", "websocket")
        )
    offered = [it.strip() for it in request.headers.get("sec-websocket-protocol", "").split(",")]
    shown = bearer.in_subprotocols(offered, TOKEN_SUBPROTOCOL)
    if "authorization" not in request.headers and not shown and token:
        return OpenStream(call_id, words, trusted=False)
    if shown and bearer.is_token(shown[0], token):
        return OpenStream(call_id, words, trusted=True)
    return _unauthorized(request, token) or OpenStream(call_id, words, trusted=True)


def _words(query: str) -> list[str] | None:
    """The filter of `?events=WORD,WORD`: left out is all, empty is none."""
    given = parse_qs(query, keep_blank_values=True).get("events")
    return None if given is None else [word.strip() for it in given for word in it.split(",") if word.strip()]


def _unauthorized(request: Request, token: str) -> Page | None:
    if not token:
        return refusal(
            403, "no token is set, so nothing can be asked here: set server.control_token (BRIDGE_CONTROL_TOKEN)"
        )
    shown = bearer.in_header(request.headers)
    if bearer.is_token(shown, token):
        return None
    wrong = "this token is not the bridge's: " if shown else ""
    return refusal(
        401,
        f"{wrong}send the header `Authorization: Bearer ` and server.control_token",
        ("WWW-Authenticate", "Bearer"),
    )


def _is_id(call_id: str) -> bool:
    try:
        return str(UUID(call_id)) == call_id
    except ValueError:
        return False
