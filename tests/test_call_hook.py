"""What a service may answer about a call, what that makes of its agent, and what happens when it makes nothing of it."""

from __future__ import annotations

import logging
from typing import Any

import msgspec
import pytest
import trio
from http_peer import Peer, Says

from bridge.call_hook import Chosen, ask_about
from bridge.config import Config, load_config
from bridge.ending import EndReason
from bridge.hook_bodies import Question

FILE = """
[hooks]
call_url = "http://service.test/calls"
secret = "a secret"
[agents.sales]
voice = "cedar"
"""
QUESTION = Question(
    call_id="11112222", direction="inbound", agent="default", caller="1001", caller_name="Alice", called="200",
    channel="PJSIP/alice-1", arguments=["sales", "gold"], variables={"X": "1"},
)  # fmt: skip


def settings(more: str = "") -> Config:
    return load_config(FILE.replace("[hooks]", f"[hooks]\n{more}"), {})


async def asked(says: list[Says], config: Config) -> tuple[Chosen, Peer]:
    peer = Peer(says, secret="a secret")
    async with peer.client() as it:
        return await ask_about(QUESTION, config.agents["default"], config, it), peer


def answer(content: Any) -> list[Says]:
    return [Says(body=content if isinstance(content, bytes) else msgspec.json.encode(content))]


async def test_the_service_is_told_everything_that_is_known_of_the_call(autojump_clock: Any) -> None:
    chosen, peer = await asked(answer(b""), config := settings())
    assert chosen == Chosen("default", config.agents["default"])
    assert peer.asked[0].json == {
        "type": "call.incoming", "call_id": "11112222", "direction": "inbound", "agent": "default",
        "caller": "1001", "caller_name": "Alice", "called": "200", "channel": "PJSIP/alice-1",
        "arguments": ["sales", "gold"], "variables": {"X": "1"},
    }  # fmt: skip
    assert peer.asked[0].message_id == "call-11112222"


async def test_without_a_url_nobody_is_asked(autojump_clock: Any) -> None:
    chosen, peer = await asked(answer({"agent": "sales"}), load_config("", {}))
    assert (chosen.agent_name, peer.asked) == ("default", [])


@pytest.mark.parametrize(
    ("content", "name", "expected"),
    [
        ({}, "default", {"voice": "marin"}),
        ({"agent": "default"}, "default", {"voice": "marin"}),
        ({"agent": "sales"}, "sales", {"voice": "cedar"}),
        ({"profile": {"voice": "ash", "greeting": ""}}, "default", {"voice": "ash", "greeting": ""}),
        ({"agent": "sales", "profile": {"speed": 1.2}}, "sales", {"voice": "cedar", "speed": 1.2}),
        ({"openai": {"voice": "ash", "max_tokens": "inf"}, "flavor": "openai"}, "default", {"voice": "ash"}),
        ({"openai": {"model": "gpt-realtime-mini", "key": "sk-1"}}, "default", {"voice": "marin"}),
        ({"openai": {"disable": "yes"}}, "default", {"disabled": True}),
    ],
)
async def test_another_agent_and_other_settings(
    content: Any, name: str, expected: dict[str, Any], autojump_clock: Any
) -> None:
    chosen, _ = await asked(answer(content), settings())
    assert (chosen.agent_name, chosen.refusal) == (name, None)
    assert {key: getattr(chosen.agent, key) for key in expected} == expected


@pytest.mark.parametrize(("reject", "detail"), [("blocked number", "blocked number"), (True, "no reason was given")])
async def test_the_service_rejects_a_call(reject: Any, detail: str, autojump_clock: Any) -> None:
    chosen, _ = await asked(answer({"reject": reject}), settings())
    assert chosen.refusal == (EndReason.HOOK_REJECTED, f"hooks.call_url: {detail}")


HERE = "http://service.test/calls"


@pytest.mark.parametrize(
    ("says", "why"),
    [
        ([Says(hangs=True)], f"{HERE} did not answer within 2 s"),
        ([Says(500)], f"{HERE} answered HTTP 500"),
        ([Says(404)], f"{HERE} answered HTTP 404"),
        ([Says(drops=True)], f"no answer from {HERE}"),
        (answer(b"<html>"), f"{HERE} answered what is no JSON"),
        (answer(b'"\xff"'), f"{HERE} answered what is no JSON"),
        (answer(b"[" * 100_000), f"{HERE} answered what is no JSON"),
        (answer([1]), f"{HERE} answered the answer: must be a table"),
        (answer({"agnet": "sales"}), f"{HERE} answered agnet: unknown key"),
        (answer({"agent": "nobody"}), f"{HERE} answered agent: 'nobody' is not defined; known: default, sales"),
        (answer({"agent": 7}), f"{HERE} answered agent: must be text"),
        (answer({"profile": {"speed": 9}}), f"{HERE} answered profile.speed: must be 0.25 to 1.5"),
        (answer({"profile": {"sounds": {}}}), f"{HERE} answered profile.sounds: can not be set for one call"),
        (answer({"profile": {"hooks": {"secret": "x"}}}), "profile.hooks.secret: can not be set for one call"),
        (answer({"profile": {"hooks": {"events": ["-x"]}}}), "profile.hooks.events: event filter: only exclusions"),
        (answer({"flavor": "deepgram"}), f'{HERE} answered flavor: only "openai" is known here'),
        (answer({"openai": {"voise": "x"}}), f"{HERE} answered openai.voise: unknown key"),
    ],
)
@pytest.mark.parametrize("required", [False, True])
async def test_what_fails_or_makes_no_sense_goes_by_call_required(
    says: list[Says], why: str, required: bool, autojump_clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    began = trio.current_time()
    chosen, _ = await asked(says, config := settings(f"call_required = {str(required).lower()}"))
    assert trio.current_time() - began <= 2.0
    assert (chosen.agent_name, chosen.agent) == ("default", config.agents["default"])
    if required:
        assert chosen.refusal is not None
        assert chosen.refusal[0] is EndReason.HOOK_FAILED
        assert why in chosen.refusal[1]
    else:
        assert chosen.refusal is None
        assert why in caplog.text
        assert "the call goes on with agent default" in caplog.text


async def test_a_moment_of_trouble_is_asked_through(autojump_clock: Any) -> None:
    chosen, peer = await asked([Says(503), *answer({"agent": "sales"})], settings())
    assert (chosen.agent_name, len(peer.asked)) == ("sales", 2)
