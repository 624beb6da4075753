"""What a request to the control door asks for, and what is refused, with the remedy."""

from __future__ import annotations

import base64
import re
from pathlib import Path
from uuid import uuid4

import msgspec
import pytest

from bridge.call_settings import SETTABLE
from bridge.control_commands import (
    IN_CALL,
    MAX_BODY,
    AnswerTool,
    ClientEvent,
    Command,
    CreateCall,
    HangUp,
    ListCalls,
    Mute,
    Say,
    ShowCall,
    TellNextStep,
    Transfer,
    event_of,
    output_of,
)
from bridge.control_door import ROUTES, Describe, OpenStream, Wish, wish_of
from bridge.errors import ConfigError
from bridge.http_exchange import Page, Request

TOKEN = "a-token-of-16-or-more"
ID = str(uuid4())
BEARER = {"authorization": f"Bearer {TOKEN}"}
Told = Wish | OpenStream | Describe | Page


def ask(method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None, query: str = "") -> Told:
    return wish_of(Request(method, path, BEARER if headers is None else headers, body, query), TOKEN)


def refused(told: Told) -> tuple[int, str]:
    assert isinstance(told, Page)
    return told.status, msgspec.json.decode(told.text)["error"]


@pytest.mark.parametrize(
    ("method", "path", "body", "name", "call_id", "command"),
    [
        ("GET", "/calls", b"", "list_calls", "", ListCalls()),
        ("GET", "/calls/", b"", "list_calls", "", ListCalls()),
        ("GET", f"/calls/{ID.upper()}", b"", "show_call", ID, ShowCall()),
        ("POST", f"/calls/{ID}/hang_up", b"", "hang_up", ID, HangUp()),
        ("POST", f"/calls/{ID}/hang_up", b'{"reason":"closing time"}', "hang_up", ID, HangUp("closing time")),
        ("POST", f"/calls/{ID}/hang_up", b'{"cause":21}', "hang_up", ID, HangUp(cause=21)),
        (
            "POST",
            f"/calls/{ID}/transfer",
            b'{"destination":"desk","number":"22"}',
            "transfer",
            ID,
            Transfer("desk", "22"),
        ),
        ("POST", f"/calls/{ID}/say", b'{"text":"One moment."}', "say", ID, Say("One moment.")),
        ("POST", f"/calls/{ID}/mute", b'{"who":"both"}', "mute", ID, Mute("both")),
        ("POST", "/calls", b'{"to":"PJSIP/alice"}', "create_call", "", CreateCall({"to": "PJSIP/alice"})),
        ("GET", f"/calls/{ID}/next", b"", "next", ID, TellNextStep()),
    ],
)
def test_what_can_be_asked(
    method: str, path: str, body: bytes, name: str, call_id: str, command: Command | CreateCall
) -> None:
    assert ask(method, path, body) == Wish(name, command, call_id)


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "says"),
    [
        ("GET", "/", b"", 404, "docs/control.md"),
        ("DELETE", "/calls", b"", 405, "/calls takes GET, POST"),
        ("GET", f"/calls/{ID}/hang_up", b"", 405, "takes POST"),
        ("POST", f"/calls/{ID}", b"", 405, "takes GET"),
        ("GET", "/calls/1700000000.17", b"", 404, "is not the UUID of a call"),
        ("GET", f"/calls/{ID.replace('-', '')}", b"", 404, "is not the UUID of a call"),
        ("POST", f"/calls/{ID}/explode", b"", 404, "a call has say, ask, write"),
        ("POST", f"/calls/{ID}/say", b"", 400, "the body: needs text"),
        ("POST", f"/calls/{ID}/say", b'{"text":7}', 400, "text: must be text"),
        ("POST", f"/calls/{ID}/say", b'{"words":"x","text":"y"}', 400, "words"),
        ("POST", f"/calls/{ID}/say", b"text=hello", 400, "the body must be JSON"),
        ("POST", f"/calls/{ID}/say", b"\xff", 400, "the body must be JSON"),
        ("POST", f"/calls/{ID}/say", b'"\xff"', 400, "the body must be JSON"),
        ("POST", f"/calls/{ID}/say", b"[" * 100_000, 400, "the body must be JSON"),
        ("POST", "/calls", b"[]", 400, "the body must be a JSON object"),
        ("POST", f"/calls/{ID}/mute", b'{"who":"me"}', 400, 'who: must be "agent", "both" or "caller"'),
        ("POST", f"/calls/{ID}/press_keys", b'{"keys":""}', 400, "keys: must be"),
        ("POST", f"/calls/{ID}/say", b'{"text":"%b"}' % (b"x" * 65537), 400, "text: must be"),
        ("GET", "/events", b"", 426, "this is a websocket"),
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
        wrong = "this token is not the bridge's: " if headers.get("authorization", "").startswith("Bearer ") else ""
        assert refused(told) == (401, f"{wrong}send the header `Authorization: Bearer ` and server.control_token")
        assert isinstance(told, Page)
        assert told.headers == (("WWW-Authenticate", "Bearer"),)


def test_a_door_without_a_token_says_which_setting_it_needs() -> None:
    status, error = refused(wish_of(Request("POST", f"/calls/{ID}/hang_up", {"authorization": "Bearer "}), ""))
    assert status == 403
    assert "server.control_token (BRIDGE_CONTROL_TOKEN)" in error


def test_the_dialplan_needs_no_token() -> None:
    asked = Wish("next", TellNextStep(), ID)
    assert wish_of(Request("GET", f"/calls/{ID}/next"), "") == asked
    assert ask("GET", f"/calls/{ID}/next", headers={}) == asked
    assert refused(ask("POST", f"/calls/{ID}/next", headers={}))[0] == 405
    assert refused(ask("GET", "/calls/x/next", headers={}))[0] == 404


EVENT = {"type": "response.create", "response": {"instructions": "Say \"a|b\" — it's 5 o'clock"}}


@pytest.mark.parametrize(
    "body", [EVENT, {"event": EVENT}, {"base64": base64.b64encode(msgspec.json.encode(EVENT)).decode()}]
)
def test_a_client_event_comes_through_untouched_however_it_is_written(body: dict[str, object]) -> None:
    wish = ask("POST", f"/calls/{ID}/client_event", msgspec.json.encode(body))
    assert isinstance(wish, Wish)
    assert isinstance(wish.command, ClientEvent)
    assert event_of(wish.command) == EVENT


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (ClientEvent(), "as an object"),
        (ClientEvent(EVENT, "e30="), "as an object"),
        (ClientEvent(base64="{}"), "base64: is not"),
        (ClientEvent(base64="bm8="), "base64: is not"),
        (ClientEvent(base64="e30="), 'with a "type"'),
        (ClientEvent({"type": 1}), 'with a "type"'),
    ],
)
def test_what_is_no_client_event_is_refused_with_words(command: ClientEvent, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        event_of(command)


@pytest.mark.parametrize(
    ("output", "told"), [("7", "7"), ({"a": 1}, '{"a":1}'), ([1], "[1]"), (7, "7"), (None, "null")]
)
def test_an_output_that_is_no_text_is_told_as_json(output: object, told: str) -> None:
    assert output_of(AnswerTool("call_1", output)) == told


UPGRADE = {"upgrade": "websocket", "connection": "Upgrade"}


@pytest.mark.parametrize(
    ("path", "query", "headers", "wish"),
    [
        ("/events", "", BEARER, OpenStream("", None, True)),
        (f"/calls/{ID}/events", "events=", BEARER, OpenStream(ID, [], True)),
        ("/events", "events=call.*,turn", BEARER, OpenStream("", ["call.*", "turn"], True)),
        ("/events", "", {}, OpenStream("", None, False)),
        (
            "/events",
            "",
            {"sec-websocket-protocol": f"bridge.control, bridge.token.{TOKEN}"},
            OpenStream("", None, True),
        ),
    ],
)
def test_a_stream_is_opened_by_token_or_waits_for_it(
    path: str, query: str, headers: dict[str, str], wish: OpenStream
) -> None:
    assert ask("GET", path, headers={**UPGRADE, **headers}, query=query) == wish


@pytest.mark.parametrize(
    ("headers", "query", "token", "status"),
    [
        ({"authorization": "Bearer wrong"}, "", TOKEN, 401),
        ({"sec-websocket-protocol": "bridge.control, bridge.token.wrong"}, "", TOKEN, 401),
        ({}, "", "", 403),
        (BEARER, "events=-x", TOKEN, 400),
    ],
)
def test_a_stream_is_refused(headers: dict[str, str], query: str, token: str, status: int) -> None:
    assert refused(wish_of(Request("GET", "/events", {**UPGRADE, **headers}, query=query), token))[0] == status


def test_every_command_has_its_route_and_its_words_and_the_longest_fits() -> None:
    assert {route.name for route in ROUTES} > set(IN_CALL)
    assert all((kind.__doc__ or "").strip() for kind in IN_CALL.values())
    assert MAX_BODY > 2 * 6 * 65536  # each character of the longest text as \uXXXX, and as much again


def test_the_page_has_every_command_and_its_fields() -> None:
    page = (Path(__file__).parents[1] / "docs" / "control.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([a-z_0-9]+)`", page))
    assert set(IN_CALL) <= named
    assert {field for kind in IN_CALL.values() for field in kind.__struct_fields__} <= named | {"base64"}
    assert set(SETTABLE) <= named
