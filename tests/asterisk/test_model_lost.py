"""A call outlives its model sessions on the real Asterisk: lost in mid-reply, lost in mid-tool, expired, gone for good.

What the caller hears is measured in the recording of the live caller, whatever the bridge tells of itself.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import pytest
import trio

from asterisk import figures
from asterisk.compare import compare, from_first_loud, loud_span_ms, tone_share
from asterisk.line import Line, Phone, line
from bridge.tools import Tool, ToolRegistry
from simulators.model_script import Call, Pace, Part, Say, Script, tone
from simulators.model_voice import Phrasebook
from simulators.realtime_faults import DropPoint
from simulators.wire_audio import resampled

pytestmark = pytest.mark.asterisk

PHRASES = Phrasebook.load().phrases
REPLY, REST = PHRASES["hours_saturday"], PHRASES["tool_done"]
BAND_HZ = {"slin": (100.0, 3400.0), "slin16": (100.0, 7000.0), "slin24": (100.0, 7000.0)}
# Extension and format: Stasis at all rates, and the application AudioSocket().
ROUTES = [("100", "slin"), ("100", "slin16"), ("100", "slin24"), ("101", "slin")]
ALL_ROUTES = pytest.mark.parametrize(("extension", "media_format"), ROUTES, ids=str)
CALLER_HZ, CALLER_MS = 660, 500
AGENT_HZ = 1200
# More of the reply than the caller has heard when the session is dropped behind it.
DELTA_MS = 800
# The transcript of the caller's turn (simulator: 0.3 s after its commit) comes before the first delta.
AFTER_TRANSCRIPT_MS = 500
# So long that the caller has to wait for the next session: what was received is 1.6 s.
LONGER_THAN_THE_REPLY_S = 2.4
# What a jitter buffer forgives, twice: nobody hears it as a gap between two sentences.
NO_GAP_MS = 80
# The limit for the rollover of a session that is about to end.
SWAP_WITHIN_MS = 500
# A session is replaced two minutes before its end (`bridge.continuity`): five seconds after this one's beginning, less the
# part of a second that `expires_at` does not have.
EXPIRES_S = 125


def asks(phone: Phone) -> None:
    """The caller says something that a test can measure at the other end."""
    phone.caller.say(resampled(tone(CALLER_HZ, CALLER_MS), 24000, 16000))


def understood_ms(it: Line) -> float:
    """How much of the caller's tone has reached the present session, by its first and last sample."""
    said = it.model.session.appended_pcm
    assert (
        not loud_span_ms(said, 24000) or tone_share(from_first_loud(said)[: 48 * CALLER_MS], 24000, CALLER_HZ) > 0.95
    )
    return loud_span_ms(said, 24000)


def texts(it: Line) -> list[tuple[str, str]]:
    """The messages that the present session holds: role and words."""
    return [(item.role, item.text) for item in it.model.session.items if item.type == "message"]


async def agent_said(it: Line, text: str) -> None:
    """Wait until the caller has heard this to its end."""
    said = it.told("agent_said")
    while not any(told.facts["text"] == text for told in said):
        await it.hears_of("agent_said", len(said) + 1)
        said = it.told("agent_said")


def received_pcm(it: Line, item_id: str) -> bytes:
    """The audio of one item as the model sent it, PCM16 at 24 kHz."""
    deltas = [event for event in it.model.sent_events("response.output_audio.delta") if event["item_id"] == item_id]
    return b"".join(base64.b64decode(event["delta"]) for event in deltas)


def first_delta_at(it: Line, connection: int) -> float:
    """When a session began to speak."""
    kind = "response.output_audio.delta"
    return next(p.at_s for p in it.model.sent if p.connection == connection and p.event["type"] == kind)


def longest_frame_gap_ms(phone: Phone, since: float, until: float) -> float:
    """The longest time between two frames at the caller's end in this time."""
    times = [at for at, _ in phone.caller.heard_frames if since <= at <= until]
    return max((later - earlier for earlier, later in pairwise(times)), default=math.inf) * 1000


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


@ALL_ROUTES
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


@ALL_ROUTES
async def test_a_session_that_is_about_to_end_is_replaced_between_two_turns(
    extension: str, media_format: str
) -> None:
    """The same turn before and right after the change: nothing of it is lost, and the answer comes as soon."""
    script = Script.of(
        Say("Hello!", ms=300, hz=880),
        Say("Before.", ms=300, hz=AGENT_HZ),
        Say("After.", ms=300, hz=AGENT_HZ),
        transcripts=["One.", "Two."],
    )
    async with line(script, media_format=media_format) as it:
        with it.model.expiring(EXPIRES_S):
            phone = await it.phone(extension)
            await it.hears_of("agent_said")
        asks(phone)
        await it.hears_of("agent_said", 2)
        assert not it.told("session_resumed"), "the first turn was meant to be before the change"
        before_ms = await answer_ms(it, phone, 1)
        resumed = await it.hears_of("session_resumed")
        asks(phone)
        await it.hears_of("agent_said", 3)
        after_ms = await answer_ms(it, phone, 2)
        assert not it.told("session_lost")
        assert len(it.model.sessions) == 2
        assert resumed.facts["gap_ms"] < SWAP_WITHIN_MS
        assert abs(understood_ms(it) - CALLER_MS) <= 1, "what was said right after the change"
        assert texts(it)[:3] == [("assistant", "Hello!"), ("user", "One."), ("assistant", "Before.")]
        frame_gap_ms = longest_frame_gap_ms(phone, resumed.at_s - 1, resumed.at_s + 1)
        print(
            f"answered after {before_ms:.1f} ms, after the change {after_ms:.1f}; told gap {resumed.facts['gap_ms']}"
        )
        print(f"longest time without a frame around the change: {frame_gap_ms:.1f} ms")
        figures.note(figures.SWAP, media_format, after_ms - before_ms)
        assert after_ms - before_ms < SWAP_WITHIN_MS
        assert frame_gap_ms < SWAP_WITHIN_MS
        await phone.caller.hang_up()
        assert (await it.ended())["reason"] == "caller_hung_up"


async def answer_ms(it: Line, phone: Phone, turn: int) -> float:
    """The silence in the recording between the caller's words and the first sample of the agent's answer to them."""
    since = it.sent_at("input_audio_buffer.speech_started", turn)
    stopped = it.sent_at("input_audio_buffer.speech_stopped", turn)
    frames = phone.heard_since(since)
    at = next(at for at, pcm in frames if loud_span_ms(pcm, 16000))
    assert at > stopped, "the agent waited for the caller"
    return (at - stopped) * 1000


@ALL_ROUTES
@pytest.mark.parametrize("code", [None, 1001])
async def test_gone_for_good(extension: str, media_format: str, code: int | None) -> None:
    """No other session can be opened: the caller goes on in the dialplan, and is spoken to there."""
    script = Script.of(Say("A long story.", ms=20_000, hz=AGENT_HZ))
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
        # The dialplan's own words, and nothing more of the story: what was on its way has arrived by now.
        await trio.sleep(0.2)
        with trio.fail_after(3):
            since = await phone.caller.hears_speech()
        await trio.sleep(0.3)
        assert tone_share(b"".join(pcm for _, pcm in phone.heard_since(since)), 16000, AGENT_HZ) < 0.1
