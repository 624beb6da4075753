"""Resampling measured as an ear would: images, aliases, gain, time alignment; and that cutting changes no bit."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bridge.audio import (
    MODEL_FORMAT,
    Identity,
    PcmFormat,
    Resampler,
    alaw_to_pcm,
    pcm_to_alaw,
    pcm_to_ulaw,
    process_together,
    resampler,
    rms_dbfs,
    ulaw_to_pcm,
)

RATES_HZ = (8000, 16000, 24000)
PAIRS = [(a, b) for a in RATES_HZ for b in RATES_HZ if a != b]
DOWN = [(a, b) for a, b in PAIRS if a > b]
AMPLITUDE = 20000.0

Floats = NDArray[np.float64]


def tone(frequency_hz: float, rate_hz: int, amplitude: float = AMPLITUDE, seconds: float = 1.0) -> bytes:
    at = np.arange(int(rate_hz * seconds)) / rate_hz
    return pcm_of(amplitude * np.sin(2 * np.pi * frequency_hz * at))


def pcm_of(samples: Floats) -> bytes:
    return np.rint(np.clip(samples, -32768, 32767)).astype("<i2").tobytes()


def samples_of(pcm: bytes) -> Floats:
    return np.frombuffer(pcm, dtype="<i2").astype(np.float64)


def converted(pcm: bytes, from_hz: int, to_hz: int) -> bytes:
    converter = resampler(from_hz, to_hz)
    return converter.process(pcm) + converter.flush()


def spectrum(pcm: bytes, rate_hz: int) -> tuple[Floats, Floats]:
    """Frequencies and amplitudes relative to `AMPLITUDE`, of the steady middle half."""
    middle = samples_of(pcm)[len(pcm) // 8 : len(pcm) // 8 * 3]
    window = np.kaiser(len(middle), 14)
    amplitudes = np.abs(np.fft.rfft(middle * window)) / (window.sum() / 2) / AMPLITUDE
    return np.asarray(np.fft.rfftfreq(len(middle), 1 / rate_hz), np.float64), np.asarray(amplitudes, np.float64)


def db(ratio: float) -> float:
    return 20 * math.log10(max(ratio, 1e-12))


def gain_and_worst_db(frequency_hz: float, from_hz: int, to_hz: int) -> tuple[float, float]:
    """Level of the tone and of the strongest thing that is not the tone."""
    frequencies, amplitudes = spectrum(converted(tone(frequency_hz, from_hz), from_hz, to_hz), to_hz)
    near = np.abs(frequencies - frequency_hz) < 40
    return db(float(amplitudes[near].max())), db(float(amplitudes[~near].max()))


# --- formats -------------------------------------------------------------------------------------------------------


def test_formats() -> None:
    shapes = [(f.frame_ms, f.frame_samples, f.frame_bytes, f.bytes_per_ms) for f in map(PcmFormat, RATES_HZ)]
    assert shapes == [(20, 160, 320, 16), (20, 320, 640, 32), (20, 480, 960, 48)]
    assert PcmFormat(24000) == MODEL_FORMAT
    assert PcmFormat(8000).silence == bytes(320)
    assert PcmFormat(8000).silence is PcmFormat(8000).silence
    assert PcmFormat(16000).duration_ms(32 * 1480 + 31) == 1480


@pytest.mark.parametrize("rate_hz", [0, -8000, 11025])
def test_formats_have_whole_milliseconds(rate_hz: int) -> None:
    with pytest.raises(ValueError, match="multiple of 1000"):
        PcmFormat(rate_hz)


# --- quality -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("from_hz", "to_hz"), PAIRS)
def test_the_pass_band_is_flat_and_free_of_images(from_hz: int, to_hz: int) -> None:
    edge_hz = min(from_hz, to_hz) // 2
    for frequency_hz in (100, 300, 1000, 3000, edge_hz - 1500, edge_hz - 700):
        gain, worst = gain_and_worst_db(frequency_hz, from_hz, to_hz)
        assert abs(gain) < 0.01, (frequency_hz, gain)
        assert worst < -75, (frequency_hz, worst)


@pytest.mark.parametrize(("from_hz", "to_hz"), PAIRS)
def test_the_telephone_band_is_whole(from_hz: int, to_hz: int) -> None:
    gain, worst = gain_and_worst_db(min(from_hz, to_hz) // 2 - 600, from_hz, to_hz)
    assert -0.1 < gain < 0.01
    assert worst < -75


@pytest.mark.parametrize(("from_hz", "to_hz"), DOWN)
def test_nothing_folds_back(from_hz: int, to_hz: int) -> None:
    for frequency_hz in range(to_hz // 2 + 600, from_hz // 2, 500):
        _, amplitudes = spectrum(converted(tone(frequency_hz, from_hz), from_hz, to_hz), to_hz)
        assert db(float(amplitudes.max())) < -75, frequency_hz


@pytest.mark.parametrize(("from_hz", "to_hz"), PAIRS)
def test_1_khz_is_80_db_above_everything_else(from_hz: int, to_hz: int) -> None:
    frequencies, amplitudes = spectrum(converted(tone(1000, from_hz), from_hz, to_hz), to_hz)
    near = np.abs(frequencies - 1000) < 40
    assert 10 * math.log10((amplitudes[near] ** 2).sum() / (amplitudes[~near] ** 2).sum()) > 80


@pytest.mark.parametrize(("from_hz", "to_hz"), PAIRS)
def test_output_stands_at_the_time_of_its_input(from_hz: int, to_hz: int) -> None:
    # The same band-limited noise, made at both rates: correlation finds how far the converted one is shifted.
    random = np.random.default_rng(7)
    frequencies = random.uniform(200, 3000, 60)
    phases = random.uniform(0, 2 * np.pi, 60)

    def noise(rate_hz: int) -> Floats:
        at = np.arange(rate_hz // 2)[:, None] / rate_hz
        return np.asarray(400.0 * np.sin(2 * np.pi * frequencies * at + phases).sum(axis=1))

    got, expected = samples_of(converted(pcm_of(noise(from_hz)), from_hz, to_hz)), noise(to_hz)
    assert len(got) == len(expected)
    assert int(np.argmax(np.correlate(got, expected, "full"))) - (len(expected) - 1) == 0
    middle = slice(to_hz // 10, -to_hz // 10)
    assert np.abs(got - expected)[middle].max() < 2.0


@pytest.mark.parametrize(("from_hz", "to_hz"), PAIRS)
def test_delay_ms_is_what_stays_inside(from_hz: int, to_hz: int) -> None:
    converter = resampler(from_hz, to_hz)
    assert converter.delay_ms == 2.0
    per_ms = PcmFormat(to_hz).bytes_per_ms
    frame = PcmFormat(from_hz).silence
    assert len(converter.process(frame)) == 18 * per_ms
    assert len(converter.process(frame)) == 20 * per_ms
    assert len(converter.flush()) == 2 * per_ms


@pytest.mark.parametrize(("from_hz", "to_hz"), PAIRS)
def test_full_scale_saturates_and_never_wraps_around(from_hz: int, to_hz: int) -> None:
    square = pcm_of(np.where(np.arange(from_hz // 4) // (from_hz // 500) % 2, -32768.0, 32767.0))
    got = samples_of(converted(square, from_hz, to_hz))
    assert got.max() == 32767
    assert got.min() == -32768
    # A wrap-around would be a jump over the whole scale within the flat part of a half wave.
    half = to_hz // 500
    assert all(np.ptp(got[i * half + half // 3 : (i + 1) * half - half // 3]) < 8000 for i in range(1, 100))


@pytest.mark.parametrize(("from_hz", "to_hz"), PAIRS)
def test_constant_input_stays_constant(from_hz: int, to_hz: int) -> None:
    got = samples_of(converted(pcm_of(np.full(from_hz // 10, 1000.0)), from_hz, to_hz))
    assert np.abs(got[to_hz // 100 : -to_hz // 100] - 1000).max() <= 1


# --- streaming -----------------------------------------------------------------------------------------------------


def in_pieces(pcm: bytes, sizes: Sequence[int], from_hz: int, to_hz: int) -> bytes:
    converter = resampler(from_hz, to_hz)
    out, at = [], 0
    for size in sizes:
        out.append(converter.process(pcm[at : at + size]))
        at += size
    return b"".join([*out, converter.process(pcm[at:]), converter.flush()])


@settings(deadline=None)  # a busy machine is no failure
@given(
    pair=st.sampled_from(PAIRS + [(rate, rate) for rate in RATES_HZ]),
    length=st.integers(0, 4000),
    sizes=st.lists(st.integers(0, 900), max_size=40),
    seed=st.integers(0, 99),
)
def test_cutting_changes_no_bit(pair: tuple[int, int], length: int, sizes: list[int], seed: int) -> None:
    from_hz, to_hz = pair
    pcm = np.random.default_rng(seed).integers(0, 256, length, dtype=np.uint8).tobytes()
    whole = in_pieces(pcm, [], from_hz, to_hz)
    assert in_pieces(pcm, sizes, from_hz, to_hz) == whole
    assert len(whole) // 2 == math.floor(length // 2 * to_hz / from_hz + 0.5)


@settings(deadline=None)
@given(
    streams=st.lists(
        st.tuples(st.sampled_from([*PAIRS, (24000, 24000)]), st.integers(0, 700)), min_size=1, max_size=50
    ),
    turns=st.lists(st.integers(0, 1000), min_size=1, max_size=6),
    seed=st.integers(0, 99),
)
def test_together_is_the_same_as_one_by_one(
    streams: list[tuple[tuple[int, int], int]], turns: list[int], seed: int
) -> None:
    """Streams at different points, pieces of different length, odd ones too; then frames, all at once."""
    random = np.random.default_rng(seed)
    together = [resampler(*pair) for pair, _ in streams]
    alone = [resampler(*pair) for pair, _ in streams]
    for turn in [None, *turns, None, None]:
        sizes = [
            start if number == 0 and turn is None else PcmFormat(pair[0]).frame_bytes if turn is None else turn
            for number, (pair, start) in enumerate(streams)
        ]
        pieces = [random.integers(0, 256, size, dtype=np.uint8).tobytes() for size in sizes]
        work = list(zip(together, pieces, strict=True))
        assert process_together(work) == [one.process(pcm) for one, pcm in zip(alone, pieces, strict=True)]
    assert [one.flush() for one in together] == [one.flush() for one in alone]
    assert process_together([]) == []


@pytest.mark.parametrize("calls", [2, 20, 21, 75])
def test_many_alike_are_the_same_as_one_by_one(calls: int) -> None:
    together = [Resampler(16000, 24000) for _ in range(calls)]
    alone = [Resampler(16000, 24000) for _ in range(calls)]
    random = np.random.default_rng(5)
    for _ in range(4):
        pieces = [random.integers(-32768, 32768, 320).astype("<i2").tobytes() for _ in range(calls)]
        got = process_together(list(zip(together, pieces, strict=True)))
        assert got == [one.process(pcm) for one, pcm in zip(alone, pieces, strict=True)]


@pytest.mark.parametrize(("from_hz", "to_hz"), PAIRS)
def test_a_minute_in_frames_is_the_same_as_in_deltas(from_hz: int, to_hz: int) -> None:
    pcm = np.random.default_rng(3).integers(-32768, 32768, from_hz * 60).astype("<i2").tobytes()
    frame = PcmFormat(from_hz).frame_bytes
    by_frame = in_pieces(pcm, [frame] * 3000, from_hz, to_hz)
    assert by_frame == in_pieces(pcm, [frame * 10] * 300, from_hz, to_hz)
    assert len(by_frame) == to_hz * 60 * 2


@pytest.mark.parametrize(("from_hz", "to_hz"), PAIRS)
def test_after_flush_and_reset_a_stream_begins_anew(from_hz: int, to_hz: int) -> None:
    speech = tone(700, from_hz, seconds=0.1)
    converter = resampler(from_hz, to_hz)
    first = converter.process(speech) + converter.flush()
    second = converter.process(speech) + converter.flush()
    converter.process(speech + b"\x01")
    converter.reset()
    third = converter.process(speech) + converter.flush()
    assert first == second == third
    assert converter.flush() == b""


def test_equal_rates_pass_through_without_a_copy() -> None:
    converter = resampler(24000, 24000)
    assert isinstance(converter, Identity)
    speech = tone(500, 24000, seconds=0.02)
    assert converter.process(speech) is speech
    assert converter.process(b"abc") == b"ab"
    assert converter.process(b"d") == b"cd"
    assert converter.flush() == b""
    assert converter.delay_ms == 0


def test_other_rates_are_refused() -> None:
    with pytest.raises(ValueError, match="no resampler"):
        Resampler(44100, 24000)


# --- G.711, levels -------------------------------------------------------------------------------------------------


def test_g711() -> None:
    assert ulaw_to_pcm(b"\xff\x80\x00") == np.array([0, 32124, -32124], "<i2").tobytes()
    assert alaw_to_pcm(b"\xd5\xaa") == np.array([8, 32256], "<i2").tobytes()
    every_byte = bytes(range(256))
    assert pcm_to_alaw(alaw_to_pcm(every_byte)) == every_byte
    # mu-law has two zeros; everything else comes back as it was.
    assert pcm_to_ulaw(ulaw_to_pcm(every_byte)) == every_byte.replace(b"\x7f", b"\xff")


def test_levels() -> None:
    assert rms_dbfs(b"") == -math.inf
    assert rms_dbfs(bytes(320)) == -math.inf
    assert rms_dbfs(tone(1000, 8000, amplitude=32767)) == pytest.approx(-3.01, abs=0.01)
    assert rms_dbfs(tone(1000, 8000, amplitude=327.67)) == pytest.approx(-43.01, abs=0.05)
