"""What an operator, or the dialplan, may ask of a running process by HTTP: requests in, orders or refusals out. No I/O.

    GET  /calls                     the running calls
    GET  /calls/UUID                one of them
    POST /calls/UUID/hang_up        {"reason": "..."}                     may be left out
    POST /calls/UUID/transfer       {"destination": "reception"}          "number" too, if it takes one
    POST /calls/UUID/say            {"text": "..."}
    GET  /calls/UUID/next           what the dialplan is to do next (`next_step`); no token: the UUID is the secret
    POST /calls                     {"to": ..., ...}                      place a call

All but `next` need `Authorization: Bearer TOKEN`. JSON in and out, errors are `{"error": "what, and what to do"}`; only
`next` answers a bare line, which a dialplan can use. `control_desk` carries out.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar
from uuid import UUID

import msgspec

from bridge.errors import ConfigError
from bridge.http_exchange import Page, Request, json_page
from bridge.validation import converted

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ListCalls:
    """Tell the running calls."""


@dataclass(frozen=True, slots=True)
class ShowCall:
    """Tell one call."""

    call_id: str


@dataclass(frozen=True, slots=True)
class HangUpCall:
    """End a call, once everything said so far was heard."""

    call_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class TransferTo:
    """Hand a caller over to a destination of the agent's profile."""

    call_id: str
    destination: str
    number: str = ""


@dataclass(frozen=True, slots=True)
class SayInCall:
    """Have the agent say something."""

    call_id: str
    text: str


@dataclass(frozen=True, slots=True)
class TellNextStep:
    """Tell the dialplan what to do after its call."""

    call_id: str


@dataclass(frozen=True, slots=True)
class PlaceCall:
    """Call somebody; `wanted` is the request's JSON object."""

    wanted: Mapping[str, Any]


Wish = ListCalls | ShowCall | HangUpCall | TransferTo | SayInCall | TellNextStep | PlaceCall


class _HangUpBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    reason: str = "an operator ended the call"


class _TransferBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    destination: str
    number: str = ""


class _SayBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    text: str


_ACTIONS: Mapping[str, tuple[type[Any], Callable[[str, Any], Wish]]] = {
    "hang_up": (_HangUpBody, lambda call_id, body: HangUpCall(call_id, body.reason)),
    "transfer": (_TransferBody, lambda call_id, body: TransferTo(call_id, body.destination, body.number)),
    "say": (_SayBody, lambda call_id, body: SayInCall(call_id, body.text)),
}


def refusal(status: int, error: str, *headers: tuple[str, str]) -> Page:
    """An error for people and programs."""
    return json_page(status, {"error": error}, *headers)


def no_such_call(call_id: str) -> Page:
    return refusal(404, f"no call {call_id} runs in this process; GET /calls lists those that do")


def wish_of(request: Request, token: str) -> Wish | Page:
    """What a request asks for, or the refusal to answer with. `token` is server.control_token."""
    match request.path.strip("/").split("/"):
        case ["calls", call_id, "next"]:
            # Neither a token nor JSON: it is the dialplan that asks, by CURL().
            return _if_method(request, "GET") or _with_id(call_id) or TellNextStep(call_id.lower())
        case ["calls", *_]:
            return _unauthorized(request, token) or _wish(request)
        case _:
            return refusal(404, "there is /calls; docs/control.md has all of it")


def _wish(request: Request) -> Wish | Page:
    match request.path.strip("/").split("/")[1:]:
        case [] if request.method == "POST":
            wanted = _body(request, dict)
            return wanted if isinstance(wanted, Page) else PlaceCall(wanted)
        case []:
            return _if_method(request, "GET", "POST") or ListCalls()
        case [call_id, *_] if (refused := _with_id(call_id)) is not None:
            return refused
        case [call_id]:
            return _if_method(request, "GET") or ShowCall(call_id.lower())
        case [call_id, action] if action in _ACTIONS:
            kind, wish = _ACTIONS[action]
            if refused := _if_method(request, "POST"):
                return refused
            body = _body(request, kind)
            return body if isinstance(body, Page) else wish(call_id.lower(), body)
        case _:
            return refusal(404, "a call has hang_up, transfer, say and next")


def _unauthorized(request: Request, token: str) -> Page | None:
    if not token:
        return refusal(
            403, "no token is set, so nothing can be asked here: set server.control_token (BRIDGE_CONTROL_TOKEN)"
        )
    kind, _, shown = request.headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer" and hmac.compare_digest(shown.strip().encode(), token.encode()):
        return None
    return refusal(
        401, "send the header `Authorization: Bearer ` and server.control_token", ("WWW-Authenticate", "Bearer")
    )


def _if_method(request: Request, *allowed: str) -> Page | None:
    if request.method in allowed:
        return None
    methods = ", ".join(allowed)
    return refusal(405, f"{request.path} takes {methods}", ("Allow", methods))


def _with_id(call_id: str) -> Page | None:
    try:
        right = str(UUID(call_id)) == call_id.lower()
    except ValueError:
        right = False
    return None if right else refusal(404, f"{call_id!r} is not the UUID of a call; GET /calls tells them")


def _body(request: Request, kind: type[T]) -> T | Page:
    try:
        return converted(msgspec.json.decode(request.body or b"{}"), kind)
    except msgspec.DecodeError as error:
        return refusal(400, f"the body must be JSON: {error}")
    except ConfigError as error:
        return refusal(400, f"{error.place or 'the body'}: {error}")
