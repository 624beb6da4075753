"""`realtime-bridge call` as a user meets it; the bridge's side of it is `test_outbound`."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from bridge import call_command
from bridge.__main__ import main
from bridge.config import load_config

TOKEN = "the-token-of-tests"
CALL = {"id": "0b0e7f0c-0000-4000-8000-000000000001", "agent": "default", "called": "+4930111", "caller": "4711"}
Answer = tuple[int, object]


def view(state: str, seconds: float = 0.0, **more: object) -> dict[str, object]:
    return {**CALL, "state": state, "seconds": seconds, "answered": state == "answered", **more}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(call_command, "_LOOK_S", 0.0)
    monkeypatch.setenv("BRIDGE_CONTROL_TOKEN", TOKEN)


@contextmanager
def door(*answers: Answer) -> Iterator[tuple[list[str], list[tuple[str, str, Any]]]]:
    """A control door that gives these answers, the last one for ever; the arguments that lead to it, what it was asked."""
    asked: list[tuple[str, str, Any]] = []
    left = list(answers)

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            asked.append((self.command, self.path, json.loads(self.rfile.read(length) or b"null")))
            assert self.headers["Authorization"] == f"Bearer {TOKEN}"
            status, told = left.pop(0) if len(left) > 1 else left[0]
            content = told.encode() if isinstance(told, str) else json.dumps(told).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = _answer

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield ["--set", f"server.control_address=127.0.0.1:{server.server_port}"], asked
        finally:
            server.shutdown()
            thread.join()


def test_a_call_is_ordered_with_all_that_is_known(capsys: pytest.CaptureFixture[str]) -> None:
    with door((202, view("connecting"))) as (where, asked):
        options = [
            "--agent",
            "sales",
            "--caller-id",
            "4711",
            "--variable",
            "A=b=c",
            "--variable",
            "__B=",
            "--ring",
            "5",
        ]
        assert main(["call", "+4930111", *options, "--fact", "Ms Smith.", "--fact", "Order 4711.", *where]) == 0
    ((method, path, order),) = asked
    assert (method, path) == ("POST", "/calls")
    assert order == {
        **{"to": "+4930111", "agent": "sales", "caller_id": "4711", "ring_s": 5.0, "facts": "Ms Smith.\nOrder 4711."},
        "variables": {"A": "b=c", "__B": ""},
    }
    assert capsys.readouterr().out == f"{CALL['id']}: calling +4930111\n"


@pytest.mark.parametrize(
    ("end", "status", "last"),
    [
        (view("ended", 9.5, answered=True, reason="agent_hung_up", detail="all said"), 0, "agent_hung_up: all said"),
        (view("ended", 9.5, reason="busy", detail="User busy (cause 17)"), 1, "busy: User busy (cause 17)"),
        (view("ended", 9.5, answered=True, reason="answering_machine", detail=""), 1, "answering_machine"),
        (view("ended", 9.5, reason="cancelled", detail=""), 1, "cancelled"),
    ],
)
def test_a_call_is_followed_to_its_end(
    capsys: pytest.CaptureFixture[str], end: dict[str, object], status: int, last: str
) -> None:
    states: list[Answer] = [(202, view("connecting")), (200, view("ringing", 0.4)), (200, view("ringing", 0.8))]
    with door(*states, (200, view("answered", 5.0)), (200, end)) as (where, asked):
        assert main(["call", "+4930111", "--wait", *where]) == status
    out = capsys.readouterr().out.splitlines()
    assert [line.split(" s  ")[1] for line in out[1:]] == ["connecting", "ringing", "answered", last]
    assert {path for method, path, _ in asked if method == "GET"} == {f"/calls/{CALL['id']}"}


def test_ctrl_c_hangs_up(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    def interrupted(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 1:
            raise KeyboardInterrupt

    end = view("ended", 2.0, reason="cancelled", detail="Ctrl-C")
    with door((202, view("connecting")), (200, view("ringing")), (202, view("ringing")), (200, end)) as (
        where,
        asked,
    ):
        monkeypatch.setattr("time.sleep", interrupted)
        assert main(["call", "+4930111", "--wait", *where]) == 130
    assert ("POST", f"/calls/{CALL['id']}/hang_up", {"reason": "Ctrl-C"}) in asked
    assert capsys.readouterr().out.endswith("cancelled: Ctrl-C\n")


@pytest.mark.parametrize(
    ("answer", "status", "says"),
    [
        ((400, {"error": "to: agent default may not call 1"}), 2, "to: agent default may not call 1"),
        ((401, {"error": "send the header"}), 2, "BRIDGE_CONTROL_TOKEN must be the one that it was started with"),
        ((403, {"error": "no token is set"}), 2, "no token is set"),
        ((501, {"error": "this process places no calls"}), 2, "this process places no calls"),
        ((503, {"error": "refused_busy: server.max_calls are running"}), 1, "refused_busy: server.max_calls"),
        ((200, "<html>"), 2, "is that a bridge at 127.0.0.1:"),
        ((404, "not here"), 2, "is that a bridge at 127.0.0.1:"),
    ],
)
def test_what_the_bridge_refuses_is_told_in_one_line(
    capsys: pytest.CaptureFixture[str], answer: Answer, status: int, says: str
) -> None:
    with door(answer) as (where, _):
        assert main(["call", "1", *where]) == status
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["--variable", "A"], 2, "--variable A: write it as NAME=VALUE"),
        (["--set", "server.control_address="], 2, "server.control_address: calls are placed by the control door"),
        (["--set", "server.control_token="], 2, "server.control_token: none is set; give this command the token"),
        (["--set", "server.control_address=127.0.0.1:1"], 1, "no bridge answers at 127.0.0.1:1"),
    ],
)
def test_what_a_new_user_gets_wrong_is_told_in_one_line(
    capsys: pytest.CaptureFixture[str], arguments: list[str], status: int, says: str
) -> None:
    assert main(["call", "+4930111", *arguments]) == status
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1


def test_a_worker_that_is_full_leaves_it_to_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    with door((503, {"error": "refused_busy"})) as (full, first), door((202, view("connecting"))) as (free, second):
        addresses = [arguments[1].partition("=")[2] for arguments in (full, free)]
        monkeypatch.setattr(
            call_command, "doors_of", lambda config: (call_command.Door(address, TOKEN) for address in addresses)
        )
        assert main(["call", "+4930111"]) == 0
        assert (len(first), len(second)) == (1, 1)


def test_each_worker_has_a_door() -> None:
    config = load_config("[server]\nworkers = 3", {"BRIDGE_CONTROL_TOKEN": TOKEN})
    assert [it.address for it in call_command.doors_of(config)] == [
        f"127.0.0.1:{port}" for port in (9292, 9293, 9294)
    ]
    everywhere = load_config("[server]\ncontrol_address = '0.0.0.0:9292'", {"BRIDGE_CONTROL_TOKEN": TOKEN})
    assert [it.host for it in call_command.doors_of(everywhere)] == ["127.0.0.1"]
