"""Hooks of a call on the real Asterisk, to a service on a real socket: who answers, what happens, how it ended."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from http_peer import Asked, Peer, Says

from asterisk.line import free_port, line
from asterisk.test_speech import QUESTION, REPLY, write_wav16
from simulators.model_script import Say, Script
from simulators.wire_audio import resampled

pytestmark = pytest.mark.asterisk

SETTINGS = """
[hooks]
call_url = "http://127.0.0.1:{port}/hook"
event_url = "http://127.0.0.1:{port}/hook"
events = ["call.*", "speech.*", "transcript.final", "playback.*"]
action_url = "http://127.0.0.1:{port}/hook"
secret = "a secret"
[agents.sales]
voice = "cedar"
"""


def choose(asked: Asked) -> Says:
    incoming = asked.json["type"] == "call.incoming"
    return Says(body=msgspec.json.encode({"agent": "sales", "profile": {"voice": "ash"}}) if incoming else b"")


async def test_a_call_is_asked_about_told_and_its_end_arrives(tmp_path: Path) -> None:
    script = Script.of(Say("Yes?", ms=100), Say(REPLY.text, pcm=REPLY.pcm), transcripts=[QUESTION.text])
    port = free_port()
    service = Peer(choose=choose, secret="a secret", unix_s=time.time)
    async with line(script, settings=SETTINGS.format(port=port), overrides={"server.data_dir": str(tmp_path)}) as it:
        it.nursery.start_soon(partial(trio.serve_tcp, service.serve, port, host="127.0.0.1"))
        question_file = it.exchange.recordings / f"{it.test_id}-question.wav16"
        write_wav16(question_file, bytes(32 * 500) + resampled(QUESTION.pcm, 24000, 16000))
        channel = await it.test_caller(TEST_PLAY=f"/recordings/{question_file.stem}")
        await it.hears_of("agent_said", 2)
        await it.hang_up(channel)
        record = await it.ended()
        with trio.fail_after(5):
            while service.asked[-1].json["type"] != "call.action":
                await service.has(len(service.asked) + 1)
        assert record["agent"] == "sales"
        update = it.model.received[0].event
        assert update["session"]["audio"]["output"]["voice"] == "ash"
    question, *told, action = [asked.json for asked in service.asked]
    assert (question["type"], question["agent"], question["call_id"]) == (
        "call.incoming",
        "default",
        record["call_id"],
    )
    assert question["channel"].startswith("Local/")
    events: list[dict[str, Any]] = [event for post in told for event in post["events"]]
    assert [event["seq"] for event in events] == [*range(1, action["last_seq"] + 1)]
    assert [event["at"] for event in events] == sorted(event["at"] for event in events)
    # When the caller's words are known depends on the transcription alone.
    kinds = [event["type"] for event in events if event["type"] != "transcript.final"]
    assert kinds == [
        "call.started", "call.answered", "playback.started", "playback.stopped", "speech.started", "speech.stopped",
        "playback.started", "playback.stopped", "call.ended",
    ]  # fmt: skip
    said = [(said["role"], said["text"]) for said in action["transcript"]]
    assert said == [("agent", "Yes?"), ("caller", QUESTION.text), ("agent", REPLY.text)]
    assert (action["reason"], action["completion_reason"]) == ("caller_hung_up", "normal conversation end")
    assert action["error"] is None
    assert action["record"]["duration_s"] == record["duration_s"]
    assert action["usage"]["responses"] == 2
    assert not [*tmp_path.glob("hooks/*/*.json")]  # noqa: ASYNC240
