"""Barge-in through the real Asterisk: the caller's voice alone stops the agent, and the model learns what was heard."""

from __future__ import annotations

import pytest
import trio

from asterisk import figures
from asterisk.compare import loud_end_ms, loud_span_ms, tone_share
from asterisk.line import FORMATS, line
from simulators.model_script import Say, Script
from simulators.model_voice import Phrasebook
from simulators.wire_audio import resampled

pytestmark = pytest.mark.asterisk

QUESTION = Phrasebook.load().phrases["interrupt_saturday"]
TONE_HZ = 440
STOPS_WITHIN_MS, TRUNCATE_WITHIN_MS = 60, 40


@pytest.mark.parametrize("media_format", FORMATS)
async def test_the_caller_speaks_and_the_agent_stops(media_format: str) -> None:
    script = Script.of(
        Say("A very long story.", ms=20_000, hz=TONE_HZ), Say("Yes?", ms=100), transcripts=[QUESTION.text]
    )
    async with line(script, media_format=media_format) as it:
        phone = await it.phone()
        await it.hears_of("agent_starts")
        await trio.sleep(0.8)
        phone.caller.say(resampled(QUESTION.pcm, 24000, 16000))
        truncate = await it.model.wait_for("conversation.item.truncate")
        told_at = it.sent_at("input_audio_buffer.speech_started")
        await trio.sleep(0.5)  # were anything still to come, it would come now
        frames = phone.heard_since(it.sent_at("response.output_audio.delta"))
        await phone.caller.hang_up()
        assert (await it.ended())["interruptions"] == 1

    loud = [number for number, (_, pcm) in enumerate(frames) if loud_span_ms(pcm, 16000)]
    assert loud == list(range(loud[0], loud[-1] + 1)), "one stretch without a hole"
    recorded = b"".join(pcm for _, pcm in frames)
    assert tone_share(recorded, 16000, TONE_HZ) > 0.95
    heard_ms = loud_span_ms(recorded, 16000)
    last_at, last = frames[loud[-1]]
    stop_ms = (last_at - told_at) * 1000 + loud_end_ms(last, 16000)
    error_ms = truncate["audio_end_ms"] - heard_ms
    print(
        f"{media_format}: stopped after {stop_ms:.1f} ms, truncate {truncate['audio_end_ms']}, heard {heard_ms:.1f}"
    )
    figures.note(figures.BARGE_IN, media_format, stop_ms)
    figures.note(figures.TRUNCATE, media_format, error_ms)
    assert stop_ms <= STOPS_WITHIN_MS
    assert abs(error_ms) <= TRUNCATE_WITHIN_MS
