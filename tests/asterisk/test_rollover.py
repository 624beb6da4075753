"""A model session that is about to end is replaced before that, and nobody on the line notices."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest

from asterisk import figures
from asterisk.compare import compare, loud_span_ms
from asterisk.line import Line, Phone, line
from asterisk.talking import (
    AGENT_HZ,
    BAND_HZ,
    BOTH_WAYS,
    CALLER_MS,
    agent_said,
    asks,
    texts,
    understood_ms,
)
from bridge import continuity
from simulators.model_script import Say, Script
from simulators.model_voice import Phrasebook

pytestmark = pytest.mark.asterisk

REPLY = Phrasebook.load().phrases["greeting"]
# The limit.
SWAP_WITHIN_MS = 500
# A session is replaced two minutes before its end, or in the middle of a shorter life (`bridge.continuity`); so short a
# life as this is not real. `expires_at` has whole seconds.
EXPIRES_S, SHORTEST_LIFE_S = 9, 5.0


@BOTH_WAYS
async def test_a_session_that_is_about_to_end_is_replaced_between_two_turns(
    extension: str, media_format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same turn before and right after the change: nothing of it is lost, and the answer comes as soon."""
    monkeypatch.setattr(continuity, "SHORTEST_LIFE_S", SHORTEST_LIFE_S)
    monkeypatch.setattr(continuity, "ROLLOVER_HURRY_S", 0.0)
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
        before_ms = answer_ms(it, phone, 1)
        resumed = await it.hears_of("session_resumed")
        asks(phone)
        await it.hears_of("agent_said", 3)
        after_ms = answer_ms(it, phone, 2)
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


@BOTH_WAYS
async def test_a_session_that_ends_soon_is_replaced_while_its_words_are_heard(
    extension: str, media_format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the last half minute nobody waits for silence: what the old session said last plays on across the change."""
    monkeypatch.setattr(continuity, "SHORTEST_LIFE_S", SHORTEST_LIFE_S)
    script = Script.of(
        Say("Hello!", ms=300, hz=880),
        Say(REPLY.text, pcm=REPLY.pcm),
        Say("Bye.", ms=300, hz=AGENT_HZ),
        transcripts=["One.", "Two."],
    )
    async with line(script, media_format=media_format) as it:
        with it.model.expiring(EXPIRES_S):
            phone = await it.phone(extension)
            await it.hears_of("agent_said")
        asks(phone)
        resumed = await it.hears_of("session_resumed")
        await agent_said(it, REPLY.text)
        stopped_at = it.told("agent_stops")[1].at_s
        asks(phone)
        await agent_said(it, "Bye.")
        assert it.told("agent_starts")[1].at_s < resumed.at_s < stopped_at, "the change was meant to be in mid-reply"
        assert not it.told("session_lost")
        assert len(it.model.sessions) == 2
        assert texts(it)[:3] == [("assistant", "Hello!"), ("user", "One."), ("assistant", REPLY.text)]
        await phone.caller.hang_up()
        assert (await it.ended())["reason"] == "caller_hung_up"
        reply = compare(REPLY.pcm, 24000, phone.heard(), 16000, band_hz=BAND_HZ[media_format])
        print(f"across the change: {reply}")
        figures.note(figures.SWAP_GAP, media_format, reply.gap_ms)
        assert reply.same, reply


def answer_ms(it: Line, phone: Phone, turn: int) -> float:
    """The silence in the recording between the caller's words and the first sample of the agent's answer to them."""
    since = it.sent_at("input_audio_buffer.speech_started", turn)
    stopped = it.sent_at("input_audio_buffer.speech_stopped", turn)
    frames = phone.heard_since(since)
    at = next(at for at, pcm in frames if loud_span_ms(pcm, 16000))
    assert at > stopped, "the agent waited for the caller"
    return (at - stopped) * 1000


def longest_frame_gap_ms(phone: Phone, since: float, until: float) -> float:
    """The longest time between two frames at the caller's end in this time."""
    times = [at for at, _ in phone.caller.heard_frames if since <= at <= until]
    return max((later - earlier for earlier, later in pairwise(times)), default=math.inf) * 1000
