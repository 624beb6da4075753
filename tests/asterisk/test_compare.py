"""The measure is measured: what `compare` says of speech that was shifted, scaled, cut, doubled or replaced."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from asterisk.compare import compare, loud_span_ms, tone_share
from simulators.model_script import tone
from simulators.model_voice import Phrasebook
from simulators.wire_audio import resampled

PHRASES = Phrasebook.load().phrases
SPEECH = PHRASES["ask_hours"].pcm
SAMPLES: NDArray[np.int16] = np.frombuffer(SPEECH, "<i2")


def pcm(*parts: NDArray[np.int16]) -> bytes:
    return np.concatenate(parts).astype("<i2").tobytes()


def silence(ms: float) -> NDArray[np.int16]:
    return np.zeros(round(24 * ms), np.int16)


@pytest.mark.parametrize("rate_hz", [8000, 16000, 24000])
def test_the_same_speech_at_another_rate_and_a_later_time_is_the_same(rate_hz: int) -> None:
    recorded = resampled(pcm(silence(1234), SAMPLES, silence(500)), 24000, rate_hz)
    match = compare(SPEECH, 24000, recorded, rate_hz)
    assert match.same
    assert match.correlation > 0.999
    assert abs(match.lag_ms - 1234) < 0.1


@pytest.mark.parametrize(
    ("recorded", "says"),
    [
        (pcm(SAMPLES // 2), "level -6"),
        (pcm(SAMPLES[:30000], SAMPLES[30480:]), "slip -20"),
        (pcm(SAMPLES[:30000], SAMPLES[29520:]), "slip +20"),
        (pcm(SAMPLES[:30000], silence(20), SAMPLES[30480:]), "gap 1"),
        (PHRASES["thanks_goodbye"].pcm, "correlation 0.0"),
        (bytes(len(SPEECH)), "correlation 0.0"),
        (SPEECH[: len(SPEECH) // 2], "gap"),
    ],
    ids=["quieter", "a frame lost", "a frame doubled", "a frame silenced", "something else", "nothing", "half"],
)
def test_what_is_not_the_same_is_told(recorded: bytes, says: str) -> None:
    match = compare(SPEECH, 24000, recorded, 24000)
    assert not match.same
    assert says in str(match), str(match)


def test_a_tone_is_measured_to_the_sample() -> None:
    recorded = bytes(4801 * 2) + tone(440, 1500) + bytes(9000)
    assert abs(loud_span_ms(recorded, 24000) - 1500) < 0.2
    assert tone_share(tone(440, 1500), 24000, 440) > 0.99
    assert tone_share(tone(880, 1500), 24000, 440) < 0.01
    assert loud_span_ms(bytes(960), 24000) == 0
