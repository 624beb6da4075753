"""What is said at one end is what is heard at the other, through the real Asterisk, at all three rates."""

from __future__ import annotations

import wave
from pathlib import Path

import pytest
import trio

from asterisk import figures
from asterisk.compare import compare
from asterisk.exchange import RECORDINGS
from asterisk.line import FORMATS, Line, line
from asterisk.talking import BAND_HZ
from simulators.model_script import Say, Script
from simulators.model_voice import Phrasebook
from simulators.wire_audio import resampled

pytestmark = pytest.mark.asterisk

PHRASES = Phrasebook.load().phrases
REPLY, QUESTION = PHRASES["hours_saturday"], PHRASES["interrupt_saturday"]
SHORT_REPLY = PHRASES["tool_done"]
# A telephone buffers 40 ms and more; the caller here is a process beside others, so this tells a stall, not a glitch.
MAX_GAP_MS = 80


def spoken() -> Script:
    return Script.of(Say(REPLY.text, pcm=REPLY.pcm), Say("Yes.", ms=100), transcripts=[QUESTION.text])


@pytest.mark.parametrize("media_format", FORMATS)
async def test_both_hear_what_the_other_says(media_format: str) -> None:
    async with line(spoken(), media_format=media_format) as it:
        phone = await it.phone()
        await it.hears_of("agent_said")
        phone.caller.say(resampled(QUESTION.pcm, 24000, 16000))
        await it.hears_of("agent_said", 2)
        await phone.caller.hang_up()
        record = await it.ended()
        appended = it.model.session.appended_pcm
        # Only now: comparing takes the processor for a tenth of a second.
        reply = compare(REPLY.pcm, 24000, phone.heard(), 16000, band_hz=BAND_HZ[media_format])
        question = compare(QUESTION.pcm, 24000, appended, 24000, band_hz=BAND_HZ[media_format])
        print(f"reply: {reply}\nquestion: {question}\nlongest time between frames: {phone.max_gap_ms():.1f} ms")
        assert reply.same, f"the caller did not hear the reply: {reply}"
        assert question.same, f"the model did not hear the caller: {question}"
        assert phone.max_gap_ms() < MAX_GAP_MS
        figures.note(figures.SET_UP, media_format, set_up_ms(it, phone.time_of(reply.lag_ms)))
        assert (record["reason"], record["audio_dropped_ms"], record["underruns"]) == ("caller_hung_up", 0, 0)
        assert record["frames_lost"] == 0


def set_up_ms(it: Line, heard_at: float) -> float:
    """StasisStart to the frame that begins the reply at the caller's ear, less the time from request to first delta."""
    arrived = it.told("call_arrives")[0].at_s
    model_s = it.sent_at("response.output_audio.delta") - it.received_at("response.create")
    return (heard_at - arrived - model_s) * 1000


@pytest.mark.parametrize("media_format", FORMATS)
async def test_asterisks_own_recording_holds_both(media_format: str) -> None:
    """As a caller of Asterisk's making hears and says it (`play@test-caller`), by MixMonitor."""
    script = Script.of(Say("Yes?", ms=100), Say(SHORT_REPLY.text, pcm=SHORT_REPLY.pcm), transcripts=[QUESTION.text])
    async with line(script, media_format=media_format) as it:
        question_file = RECORDINGS / f"{it.test_id}-question.wav16"
        write_wav16(question_file, bytes(32 * 500) + resampled(QUESTION.pcm, 24000, 16000))
        channel = await it.test_caller(TEST_PLAY=f"/recordings/{question_file.stem}")
        await it.hears_of("agent_said", 2)
        appended = it.model.session.appended_pcm
        await trio.sleep(0.1)  # Asterisk's recorder is a frame or two behind
        await it.hang_up(channel)
        await it.ended()
        heard, said = [await it.recorded(direction) for direction in ("heard", "said")]
        matches = {
            "heard": compare(SHORT_REPLY.pcm, 24000, heard, 16000, band_hz=BAND_HZ[media_format]),
            "said": compare(QUESTION.pcm, 24000, said, 16000, band_hz=BAND_HZ["slin16"]),
            "model": compare(QUESTION.pcm, 24000, appended, 24000, band_hz=BAND_HZ[media_format]),
        }
        print(*(f"{what}: {match}" for what, match in matches.items()), sep="\n")
        assert all(match.same for match in matches.values()), matches
        question_file.unlink()


def write_wav16(path: Path, pcm: bytes) -> None:
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
        file.writeframes(pcm)
