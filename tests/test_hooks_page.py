"""docs/hooks.md: its receiver runs and tells ours from others' requests; its examples are what is really sent."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from asterisk.line import free_port

from bridge import hook_bodies
from bridge.call_events import EVENTS
from bridge.call_record import CallRecord, Said, ToolUse
from bridge.ending import CompletionReason, EndReason
from bridge.errors import WebhookRefused
from bridge.hook_bodies import Question
from bridge.webhook_client import Receiver, WebhookClient

PAGE = (Path(__file__).parent.parent / "docs/hooks.md").read_text(encoding="utf-8")
EXAMPLES = [json.loads(text) for text in re.findall(r"(?s)```json\n(.*?)```", PAGE)]
QUESTION, ANSWER, TOLD, ACTION = EXAMPLES


@pytest.fixture
def receiver() -> Iterator[str]:
    """The receiver of the page as a program; its URL."""
    code = re.search(r"(?s)## A receiver\n\n(.*?)\n\nEvery request", PAGE)
    assert code is not None
    port = free_port()
    text = re.sub(r"(?m)^    ", "", code[1]).replace("8080", str(port))
    assert len(text.splitlines()) < 25
    process = subprocess.Popen(
        [sys.executable, "-c", text], env={"HOOKS_SECRET": "the-next-one"}, stderr=subprocess.DEVNULL
    )
    yield f"http://127.0.0.1:{port}/"
    process.kill()
    process.wait()


async def _is_up(url: str) -> None:
    host, _, port = url.removeprefix("http://").strip("/").partition(":")
    with trio.fail_after(20):
        while True:
            try:
                await (await trio.open_tcp_stream(host, int(port))).aclose()
                return
            except OSError:
                await trio.sleep(0.05)


async def test_the_receiver_of_the_page_takes_ours_and_no_other(receiver: str) -> None:
    await _is_up(receiver)
    client = WebhookClient()
    body = json.dumps(QUESTION).encode()
    answer = await client.post(Receiver(receiver, "this-one the-next-one"), "call-1", body, limit_s=10)
    assert hook_bodies.answer_of(answer.json("it")).agent == "sales"
    assert (await client.post(Receiver(receiver, "the-next-one"), "x", body, limit_s=10)).status == 200
    with pytest.raises(WebhookRefused, match="HTTP 401"):
        await client.post(Receiver(receiver, "another secret"), "call-1", body, limit_s=10)
    await client.aclose()


def test_the_question_has_the_fields_that_are_sent() -> None:
    sent = msgspec.json.decode(msgspec.json.encode(Question(call_id="1", agent="default")))
    assert list(QUESTION) == ["type", *(key for key in sent if key != "type")]
    msgspec.convert(QUESTION, Question)
    assert hook_bodies.answer_of(ANSWER).profile == ANSWER["profile"]


def test_the_events_are_as_they_are_sent() -> None:
    sent: dict[str, Any] = json.loads(
        hook_bodies.events(
            TOLD["call_id"],
            TOLD["agent"],
            [hook_bodies.event(it["seq"], {key: it[key] for key in it if key != "seq"}) for it in TOLD["events"]],
        )
    )
    assert sent == TOLD
    for event in TOLD["events"]:
        fields = {*EVENTS[event["type"]].__struct_fields__}
        assert set(event["data"]) == fields


def test_the_action_has_the_fields_that_are_sent_in_their_order() -> None:
    record = CallRecord("1", transcript=[Said(0.0, "agent", "")], tool_uses=[ToolUse(0.0, "", "", "")])
    sent = json.loads(hook_bodies.action(record, 1))
    assert set(sent) == set(ACTION)
    assert ACTION["transcript"][0].keys() == sent["transcript"][0].keys()
    assert ACTION["tool_uses"][0].keys() == sent["tool_uses"][0].keys()
    assert ACTION["usage"].keys() <= {*record.usage.__struct_fields__}
    EndReason(ACTION["reason"])
    assert all(f"`{it}`" in PAGE.replace("\n", " ") for it in CompletionReason)
