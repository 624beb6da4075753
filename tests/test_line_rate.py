"""A line that does not carry what it is labelled with is told of, once, and no other line is."""

from __future__ import annotations

import pytest

from bridge.line_rate import LineRate, StreamRate


def watch(frame_bytes: int, each_ms: float, *, gap_after: int = 0, gap_ms: float = 0, frames: int = 500) -> list[str]:
    """What is told of a line with frames of this size and distance; after each `gap_after` frames comes a gap."""
    line = LineRate(16)
    told, now, checked = [], 100.0, 100.0
    for count in range(1, frames + 1):
        now += each_ms / 1000
        if gap_after and count % gap_after == 0:
            now += gap_ms / 1000
        while checked <= now:
            if text := line.check(count, count * frame_bytes, checked):
                told.append(text)
            checked += 0.25
    return told


def test_g711_that_is_labelled_slin_is_told_of_once() -> None:
    (text,) = watch(160, 20)
    assert text.startswith("frames of 160 bytes come 50 times a second, half of what the format has")
    assert "c(slin)" in text


def test_a_higher_rate_that_is_labelled_slin_is_told_of() -> None:
    (text,) = watch(640, 20)
    assert "twice of what the format has" in text


@pytest.mark.parametrize(
    ("frame_bytes", "each_ms"), [(320, 20), (160, 10), (480, 30), (640, 40), (320, 20.5), (320, 19.5)]
)
def test_a_right_line_is_not_told_of(frame_bytes: int, each_ms: float) -> None:
    assert watch(frame_bytes, each_ms) == []


@pytest.mark.parametrize(("gap_after", "gap_ms"), [(50, 1000), (10, 200), (25, 3000), (1, 5)])
def test_silence_suppression_is_not_told_of(gap_after: int, gap_ms: float) -> None:
    assert watch(320, 20, gap_after=gap_after, gap_ms=gap_ms) == []


def test_a_line_that_sends_nothing_is_not_told_of() -> None:
    line = LineRate(16)
    assert [line.check(0, 0, 100 + n / 4) for n in range(100)] == [""] * 100


def stream(rates_hz: list[float]) -> list[str]:
    """What is told of a stream that is so fast in each second."""
    watched, came, told = StreamRate(24000), 0, []
    for second, rate_hz in enumerate([0.0, *rates_hz]):
        came += round(rate_hz * 2)
        if text := watched.check(came, 50.0 + second):
            told.append(text)
    return told


@pytest.mark.parametrize("rate_hz", [16000, 44100, 48000, 8000])
def test_a_microphone_at_another_rate_is_told_of_once(rate_hz: int) -> None:
    jitter = [rate_hz * factor for factor in (1.0, 1.02, 0.985, 1.0, 1.01)]
    (text,) = stream([24000, 0, *jitter * 3])
    assert text == f"audio comes as fast as {rate_hz} Hz would; it has to be 24000 Hz, 16 bit, mono"


@pytest.mark.parametrize(
    "rates_hz",
    [
        [24000] * 20,
        [24500, 23500] * 10,
        [0] * 20,
        [16000] * 4 + [24000] + [16000] * 4,  # speech only, by chance
        [100_000] * 20,  # a file, faster than real time
        [16000, 44100] * 10,
    ],
)
def test_other_streams_are_left_alone(rates_hz: list[float]) -> None:
    assert stream(rates_hz) == []
