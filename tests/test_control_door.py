"""What a request to the control door asks for, and what is refused, with the remedy."""

from __future__ import annotations

from uuid import uuid4

import msgspec
import pytest

from bridge.control_door import (
    HangUpCall,
    ListCalls,
    PlaceCall,
    SayInCall,
    ShowCall,
    TellNextStep,
    TransferTo,
    Wish,
    wish_of,
)
from bridge.http_exchange import Page, Request

TOKEN = "a-token-of-16-or-more"
ID = str(uuid4())
BEARER = {"authorization": f"Bearer {TOKEN}"}


def ask(method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None) -> Wish | Page:
    return wish_of(Request(method, path, BEARER if headers is None else headers, body), TOKEN)


def refused(told: Wish | Page) -> tuple[int, str]:
    assert isinstance(told, Page)
    return told.status, msgspec.json.decode(told.text)["error"]


@pytest.mark.parametrize(
    ("method", "path", "body", "wish"),
    [
        ("GET", "/calls", b"", ListCalls()),
        ("GET", "/calls/", b"", ListCalls()),
        ("GET", f"/calls/{ID.upper()}", b"", ShowCall(ID)),
        ("POST", f"/calls/{ID}/hang_up", b"", HangUpCall(ID, "an operator ended the call")),
        ("POST", f"/calls/{ID}/hang_up", b'{"reason":"closing time"}', HangUpCall(ID, "closing time")),
        ("POST", f"/calls/{ID}/transfer", b'{"destination":"reception"}', TransferTo(ID, "reception")),
        ("POST", f"/calls/{ID}/transfer", b'{"destination":"desk","number":"22"}', TransferTo(ID, "desk", "22")),
        ("POST", f"/calls/{ID}/say", b'{"text":"One moment."}', SayInCall(ID, "One moment.")),
        (
            "POST",
            "/calls",
            b'{"to":"PJSIP/alice","agent":"sales"}',
            PlaceCall({"to": "PJSIP/alice", "agent": "sales"}),
        ),
        ("GET", f"/calls/{ID}/next", b"", TellNextStep(ID)),
    ],
)
def test_what_can_be_asked(method: str, path: str, body: bytes, wish: Wish) -> None:
    assert ask(method, path, body) == wish


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "says"),
    [
        ("GET", "/", b"", 404, "docs/control.md"),
        ("DELETE", "/calls", b"", 405, "/calls takes GET, POST"),
        ("GET", f"/calls/{ID}/hang_up", b"", 405, "takes POST"),
        ("POST", f"/calls/{ID}", b"", 405, "takes GET"),
        ("GET", "/calls/1700000000.17", b"", 404, "is not the UUID of a call"),
        ("GET", f"/calls/{ID.replace('-', '')}", b"", 404, "is not the UUID of a call"),
        ("POST", f"/calls/{ID}/explode", b"", 404, "hang_up, transfer, say and next"),
        ("POST", f"/calls/{ID}/say", b"", 400, "the body: needs text"),
        ("POST", f"/calls/{ID}/say", b'{"text":7}', 400, "text: must be text"),
        ("POST", f"/calls/{ID}/say", b'{"words":"x","text":"y"}', 400, "words"),
        ("POST", f"/calls/{ID}/say", b"text=hello", 400, "the body must be JSON"),
        ("POST", f"/calls/{ID}/say", b"\xff", 400, "the body must be JSON"),
        ("POST", "/calls", b"[]", 400, "the body: must be"),
    ],
)
def test_what_is_refused_and_the_remedy(method: str, path: str, body: bytes, status: int, says: str) -> None:
    found, error = refused(ask(method, path, body))
    assert found == status
    assert says in error


@pytest.mark.parametrize(
    "headers",
    [{}, {"authorization": f"Basic {TOKEN}"}, {"authorization": "Bearer"}, {"authorization": f"Bearer {TOKEN}x"}],
)
def test_without_the_token_nothing_is_told_not_even_which_calls_run(headers: dict[str, str]) -> None:
    for method, path in (
        ("GET", "/calls"),
        ("GET", f"/calls/{ID}"),
        ("POST", f"/calls/{ID}/hang_up"),
        ("POST", "/calls"),
    ):
        told = ask(method, path, headers=headers)
        assert refused(told) == (401, "send the header `Authorization: Bearer ` and server.control_token")
        assert isinstance(told, Page)
        assert told.headers == (("WWW-Authenticate", "Bearer"),)


def test_a_door_without_a_token_says_which_setting_it_needs() -> None:
    status, error = refused(wish_of(Request("POST", f"/calls/{ID}/hang_up", {"authorization": "Bearer "}), ""))
    assert status == 403
    assert "server.control_token (BRIDGE_CONTROL_TOKEN)" in error


def test_the_dialplan_needs_no_token() -> None:
    assert wish_of(Request("GET", f"/calls/{ID}/next"), "") == TellNextStep(ID)
    assert ask("GET", f"/calls/{ID}/next", headers={}) == TellNextStep(ID)
    assert refused(ask("POST", f"/calls/{ID}/next", headers={}))[0] == 405
    assert refused(ask("GET", "/calls/x/next", headers={}))[0] == 404
