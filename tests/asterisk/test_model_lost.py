"""A call outlives its model sessions on the real Asterisk: lost in mid-reply, in mid-tool, or gone for good.

What the caller hears is measured in the recording of the live caller, whatever the bridge tells of itself.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from typing import Any

import pytest
import trio

from asterisk import figures
from asterisk.compare import compare, from_first_loud, loud_span_ms, tone_share
from asterisk.line import Line, line
from asterisk.talking import (
    AGENT_HZ,
    BAND_HZ,
    BOTH_WAYS,
    CALLER_MS,
    NO_GAP_MS,
    ROUTES,
    agent_said,
    asks,
    first_delta_at,
    match_of,
    texts,
    understood_ms,
)
from bridge.sounds import Sound
from bridge.tools import Tool, ToolRegistry
from simulators.model_script import Call, Pace, Part, Say, Script
from simulators.model_voice import Phrasebook
from simulators.realtime_faults import DropPoint

pytestmark = pytest.mark.asterisk

PHRASES = Phrasebook.load().phrases
REPLY, REST = PHRASES["hours_saturday"], PHRASES["tool_done"]
# More of the reply than the caller has heard when the session is dropped behind it.
DELTA_MS = 800
# The transcript of the caller's turn (simulator: 0.3 s after its commit) comes before the first delta.
AFTER_TRANSCRIPT_MS = 500
# So long that the caller has to wait for the next session: what was received is 1.6 s.
LONGER_THAN_THE_REPLY_S = 2.4


def received_pcm(it: Line, item_id: str) -> bytes:
    """The audio of one item as the model sent it, PCM16 at 24 kHz."""
    deltas = [event for event in it.model.sent_events("response.output_audio.delta") if event["item_id"] == item_id]
    return b"".join(base64.b64decode(event["delta"]) for event in deltas)


@pytest.mark.parametrize(
    ("extension", "media_format", "away_s"),
    [*((*route, 0.0) for route in ROUTES), ("100", "slin16", LONGER_THAN_THE_REPLY_S)],
    ids=str,
)
async def test_lost_in_mid_reply(extension: str, media_format: str, away_s: float) -> None:
    """What had come is heard to its end, the next session goes on from there, and the conversation with it."""
    pace = Pace(speed=math.inf, delta_ms=DELTA_MS, first_ms=AFTER_TRANSCRIPT_MS)
    script = Script.of(
        Say("Hello!", ms=300, hz=880),
        Say(REPLY.text, pcm=REPLY.pcm, pace=pace),
        Say(REST.text, pcm=REST.pcm),
        Say("You are welcome.", ms=300, hz=AGENT_HZ),
        transcripts=["Are you open on Saturday?", "Thank you."],
    )
    async with line(script, media_format=media_format) as it:
        phone = await it.phone(extension)
        await it.hears_of("agent_said")
        with it.model.dropping(DropPoint.MID_REPLY), it.model.faulty(created_after_s=away_s):
            asks(phone)
            lost = await it.hears_of("session_lost")
            resumed = await it.hears_of("session_resumed")
        assert (lost.facts["reason"], resumed.facts["sessions"]) == ("model_lost", 2)
        figures.note(figures.RESUMED, media_format, resumed.facts["gap_ms"] - away_s * 1000)
        request = (await it.model.wait_for("response.create", 2))["response"]
        assert "do not greet again" in request["instructions"]
        cut_item = it.model.sent_events("response.output_audio.delta", 1)[-1]["item_id"]
        part = received_pcm(it, cut_item)
        assert len(part) == 2 * DELTA_MS * 48, "the session was lost behind two deltas"
        history = texts(it)
        assert [role for role, _ in history[:3]] == ["assistant", "user", "assistant"]
        assert [text for _, text in history[:2]] == ["Hello!", "Are you open on Saturday?"]
        assert history[2][1].split(), "as far as it had come"
        assert history[2][1] in REPLY.text

        await agent_said(it, REST.text)
        asks(phone)
        await agent_said(it, "You are welcome.")
        assert it.told("caller_said")[-1].facts["text"] == "Thank you."
        assert abs(understood_ms(it) - CALLER_MS) <= 1
        await phone.caller.hang_up()
        record = await it.ended()
        assert record["reason"] == "caller_hung_up"
        assert len(it.model.sessions) == 2

        heard = phone.heard()
        band_hz = BAND_HZ[media_format]
        first, second = [compare(pcm, 24000, heard, 16000, band_hz=band_hz) for pcm in (part, REST.pcm)]
        print(f"before: {first}\nafter: {second}\nsession_resumed after {resumed.facts['gap_ms']} ms")
        assert first.same, f"what was received before the loss: {first}"
        assert second.same, f"what the next session said: {second}"
        gap_ms = second.lag_ms - first.lag_ms - len(part) / 48
        ended_at = phone.time_of(first.lag_ms + len(part) / 48 - 20)
        wait_ms = max(0.0, (first_delta_at(it, 2) - ended_at) * 1000)
        print(f"silence in the line: {gap_ms:.1f} ms, of which the caller waited for the model {wait_ms:.1f} ms")
        assert (wait_ms > 0) == (away_s > 0), "the test's own times"
        figures.note(figures.CUT, media_format, gap_ms - wait_ms)
        assert -1 <= gap_ms <= wait_ms + NO_GAP_MS


@BOTH_WAYS
async def test_lost_in_mid_tool(extension: str, media_format: str) -> None:
    """The tool runs once, its output reaches the next session, and the caller hears the answer."""
    runs: list[Mapping[str, Any]] = []

    async def stock(arguments: Mapping[str, Any]) -> str:
        runs.append(arguments)
        await trio.sleep(0.7)
        return "42 rolls"

    answer: list[Part] = [Say("There are 42 rolls left. Goodbye!", ms=600, hz=AGENT_HZ), Call("hang_up")]
    script = Script.of(
        Say("Hello!", ms=300, hz=880),
        Call("stock", {"of": "rolls"}, first_ms=AFTER_TRANSCRIPT_MS),
        answer,
        transcripts=["Any rolls left?"],
    )
    tools = ToolRegistry([Tool("stock", "What is left", stock)])
    async with line(script, media_format=media_format, tools=tools) as it:
        phone = await it.phone(extension)
        await it.hears_of("agent_said")
        with it.model.dropping(DropPoint.MID_TOOL):
            asks(phone)
            await it.hears_of("session_resumed")
        record = await it.ended()
        assert record["reason"] == "agent_hung_up"
        assert runs == [{"of": "rolls"}]
        assert len(it.model.sessions) == 2
        created = [event["item"] for event in it.model.received_events("conversation.item.create", 2)]
        call, output = created[-2:]
        assert (call["type"], call["name"]) == ("function_call", "stock")
        assert (output["type"], output["output"], output["call_id"]) == (
            "function_call_output", "42 rolls", call["call_id"],
        )  # fmt: skip
        assert ("assistant", "Hello!") in texts(it)
        assert ("user", "Any rolls left?") in texts(it)
        frames = phone.heard_since(first_delta_at(it, 2))
        heard = from_first_loud(b"".join(pcm for _, pcm in frames))[: 32 * 615]
        assert abs(loud_span_ms(heard, 16000) - 600) <= 1
        assert tone_share(heard, 16000, AGENT_HZ) > 0.95


@pytest.mark.parametrize(
    ("extension", "media_format", "code"), [*((*route, None) for route in ROUTES), ("100", "slin16", 1001)]
)
async def test_gone_for_good(extension: str, media_format: str, code: int | None) -> None:
    """No other session can be opened: the caller hears so, goes on in the dialplan, and is spoken to there."""
    # Slow enough that there is little to play when the session is dropped.
    script = Script.of(Say("A long story.", ms=20_000, hz=AGENT_HZ, pace=Pace(speed=2)))
    overrides = {"limits.reconnect_s": "0.7"}
    async with line(script, media_format=media_format, overrides=overrides) as it:
        phone = await it.phone(extension)
        await it.hears_of("agent_starts")
        with it.model.http_status(503):
            await it.model.session.drop(code)
            record = await it.ended()
        assert (record["reason"], record["completion_reason"]) == ("model_lost", "disconnect from remote end")
        assert "no other session could be opened" in record["detail"]
        if extension == "100":
            steps = await it.reaches("fallback")
            assert [step.name for step in steps][:3] == ["agent", "after-agent", "fallback"]
            assert steps[1].reason == "model_lost"
        else:
            steps = await it.reaches("after-audiosocket")
            assert [step.name for step in steps][:2] == ["audiosocket", "after-audiosocket"]
        # The dialplan's own words: what was on its way before has arrived by now.
        await trio.sleep(0.2)
        with trio.fail_after(3):
            await phone.caller.hears_speech()
        sorry = match_of(Sound.TROUBLE, phone, media_format)
        print(f"our last word: {sorry}")
        assert sorry.same, sorry
