"""Whole calls with everything that is secret set to something recognisable: none of it is in any line of any log."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from house import FAST, house
from http_peer import Peer, Says
from talking import voice
from trio.testing import MockClock

from bridge.scrubbing import scrubbed
from bridge.telemetry import ConsoleFormatter, JsonFormatter, OriginFilter, quieten_libraries
from bridge.tools import Tool, ToolRegistry
from simulators.ari_server import AriServer
from simulators.model_script import Call, Say, Script

PIN, KEYS, SPOKEN = "73519", "60842", "4929 1180"
SECRETS = (PIN, KEYS, SPOKEN, "SECRET")
# The length of a control token is checked.
SETTINGS = """
[hooks]
event_url = "http://service.test/SECRETLESS/events?key=SECRET-in-url"
action_url = "http://service.test/told?key=SECRET-in-url"
events = ["all"]
secret = "SECRET-of-hooks"
headers = { Authorization = "Bearer SECRET-of-header" }
give_up_after_s = 60
timeout_s = 1

[agents.default]
instructions = "SECRET-instructions"
[agents.default.tool_hook]
url = "http://service.test/tools?key=SECRET-in-url"
secret = "SECRET-of-tools"
headers = { X-Key = "SECRET-of-header" }
retries = 1
timeout_s = 2
[[agents.default.tool_hook.tools]]
name = "order_status"
description = "x"
parameters = { type = "object", properties = { number = { type = "string" } } }
[agents.default.collect.pin]
max_digits = 5
secure = true
[agents.default.collect.order]
max_digits = 5
""".replace("SECRETLESS/", "")
OVERRIDES = {
    "realtime.api_key": "sk-SECRET-model",
    "realtime.url": "ws://model.test/v1/realtime?region=SECRET-query",
    "asterisk.password": "SECRET-ari",
    "server.control_token": "SECRET-control-token",
}
# Who tells of the process, of Asterisk, or of what waits for several calls.
OF_NO_CALL = {"bridge.ari", "bridge.hooks", "bridge.server", "bridge.records", "trio"}


@contextmanager
def listening(level: int) -> Iterator[list[io.StringIO]]:
    """The whole process's logs as both formatters write them, at this level."""
    written = [io.StringIO(), io.StringIO()]
    root = logging.getLogger()
    before = root.level
    handlers = []
    for stream, formatter in zip(written, (JsonFormatter(), ConsoleFormatter()), strict=True):
        handler = logging.StreamHandler(stream)
        handler.setFormatter(formatter)
        handler.addFilter(OriginFilter(0))
        handlers.append(handler)
        root.addHandler(handler)
    root.setLevel(level)
    quieten_libraries()
    try:
        yield written
    finally:
        root.setLevel(before)
        for handler in handlers:
            root.removeHandler(handler)


def audit(written: list[io.StringIO]) -> list[dict[str, Any]]:
    """The lines of the JSON log, once nothing secret was found in either."""
    for stream in written:
        for line in stream.getvalue().splitlines():
            for secret in SECRETS:
                assert secret not in line, line
    lines = [json.loads(line) for line in written[0].getvalue().splitlines()]
    for line in lines:
        # The thread of an exporter that another test has left behind may still tell of its collector.
        of_a_call = line["logger"] not in OF_NO_CALL and not line["logger"].startswith("opentelemetry.")
        assert line.get("call_id") or not of_a_call, line
        assert "digit" not in line, line
    return lines


async def test_no_secret_and_no_digit_in_any_line(tmp_path: Path, autojump_clock: MockClock) -> None:
    def pay(card: str, cents: int) -> str:
        """Pay."""
        raise ValueError(f"the bank refuses {card!r}")

    async def at_door(path: str, token: str) -> None:
        assert (await it.ask("GET", path, token=token))[0] in (200, 401, 404)

    peer = Peer(choose=lambda asked: Says(500, b"SECRET-of-the-service"))
    script = Script.of(
        [Say("Key in your PIN.", ms=300, pace=FAST), Call("collect_digits", {"name": "pin"}, call_id="C1")],
        [Call("collect_digits", {"name": "order"}, call_id="C2")],
        [Call("pay", {"card": "SECRET-card", "cents": 12}, call_id="C3")],
        [Call("order_status", {"number": "SECRET-number"}, call_id="C4")],
        [Call("pay", '{"broken": "SECRET', call_id="C5")],
        Say("SECRET-answer", ms=300, pace=FAST),
        Say("SECRET-answer", ms=300, pace=FAST),
        Say("SECRET-answer", ms=300, pace=FAST),
        transcripts=[f"My card is {SPOKEN}"] * 5,
    )
    ari = AriServer(password="SECRET-ari")
    with listening(logging.DEBUG) as written:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.run)
            async with house(
                script,
                settings=SETTINGS,
                overrides=OVERRIDES | {"server.data_dir": str(tmp_path)},
                tools=ToolRegistry([Tool.of(pay)]),
                ari=ari,
                http=peer.transport(),
            ) as it:
                logging.getLogger("bridge").setLevel(logging.DEBUG)
                channel, caller = await it.stasis_call(caller=("SECRETCALLER"[6:], "Alice"))
                await it.hears_of("secure_begins")
                await trio.sleep(1)
                for digit in PIN:
                    channel.press(digit)
                    await trio.sleep(0.2)
                await it.hears_of("collecting_digits", 2)
                for digit in KEYS:
                    channel.press(digit)
                    await trio.sleep(0.2)
                await it.hears_of("agent_said", 2)
                for digit in KEYS:
                    channel.press(digit)
                await trio.sleep(3)
                caller.say(voice(800))
                await it.hears_of("caller_said")
                await at_door("/calls", "SECRET-control-token")
                await at_door("/calls?token=SECRET-query", "SECRET-wrong-token-x")
                await at_door("/calls/SECRET-path", "SECRET-control-token")
                await it.model.session.drop()
                await it.hears_of("session_resumed")
                await ari.drop_connection()
                await trio.sleep(3)
                channel.hang_up()
                await it.ended()
                it.model_up = False
                it.ari.incoming_call()
                await it.ended(2)
            nursery.cancel_scope.cancel()
    lines = audit(written)
    events = {line["event"] for line in lines}
    assert {"tool_called", "caller_said", "session_lost", "digits_collected", "call_ended"} <= events
    assert any("traceback" in line for line in lines), "a tool failed"
    assert any(line["event"].startswith("hooks: ") for line in lines), "the hook's service refused"


@pytest.mark.parametrize("auth", ["query", "subprotocol", "api-key", "bearer"])
async def test_a_key_is_in_no_line_whatever_way_it_goes(auth: str, autojump_clock: MockClock) -> None:
    """And however that ends: the server takes it, refuses it, is not there."""
    with listening(logging.DEBUG) as written:
        async with house(
            Script.of(Say("Hello.", ms=300)),
            overrides={"realtime.api_key": "sk-SECRET-model", "realtime.auth": auth, "limits.model_connect_s": "1"},
        ) as it:
            logging.getLogger("bridge").setLevel(logging.DEBUG)
            it.ari.incoming_call()
            await trio.sleep(3)
            for channel in list(it.ari.channels.values()):
                channel.hang_up()
            with it.model.http_status(401):
                it.ari.incoming_call()
                await trio.sleep(3)
            it.model_up = False
            it.ari.incoming_call()
            await it.ended(3)
    assert audit(written)


@pytest.mark.parametrize(
    ("text", "arguments", "hidden"),
    [
        ("no card '4929-1180'", '{"card": "4929-1180"}', "no card '***'"),
        ("12345 cents, 7 left", '{"cents": 12345, "left": 7}', "*** cents, 7 left"),
        ("it is " + repr('O\'Neill "x"'), json.dumps({"deep": [{"name": 'O\'Neill "x"'}]}), "it is '***'"),
        ("PIN 9074 is wrong", "{}", "PIN *** is wrong"),
        ("cannot read {broken", "{broken", "cannot read ***"),
        ("true is not false", '{"sure": true}', "true is not false"),
    ],
)
def test_what_a_tool_was_given_is_not_in_what_its_failure_says(text: str, arguments: str, hidden: str) -> None:
    assert scrubbed(text, arguments, ["9074"]) == hidden


@pytest.mark.parametrize(("words", "told"), [(False, '"characters":9'), (True, '"text":"it is 735"')])
def test_what_is_said_is_in_the_log_only_where_that_is_wanted(words: bool, told: str) -> None:
    record = logging.LogRecord("bridge.call", logging.INFO, "f", 1, "caller_said", None, None)
    record.facts = {"text": "it is 735", "ms": 5}
    assert told in JsonFormatter(words=words).format(record)
    assert ("735" in ConsoleFormatter(words=words).format(record)) is words
