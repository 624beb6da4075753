"""Admission by lateness: a share of late frames, a window, and two thresholds."""

from __future__ import annotations

import math

import pytest

from bridge.lateness import WINDOW_S, Lateness


def run(gauge: Lateness, start: float, seconds: float, late_ms: float, *, every: int = 1) -> float:
    """50 turns a second of 10 frames; each `every`-th is late by `late_ms`. Returns when it ends."""
    for turn in range(round(seconds * 50)):
        gauge.note(10, late_ms / 1000 if turn % every == 0 else 0.0, start + turn * 0.02)
    return start + seconds


def test_one_in_a_hundred_may_be_late_and_no_more() -> None:
    gauge = Lateness(10)
    now = run(gauge, 100.0, WINDOW_S, 10.1, every=100)
    assert not gauge.too_late(now)
    gauge = Lateness(10)
    now = run(gauge, 100.0, WINDOW_S, 10.1, every=99)
    assert gauge.too_late(now - 0.001)


def test_late_is_more_than_the_limit() -> None:
    gauge = Lateness(10)
    assert not gauge.too_late(run(gauge, 0.0, WINDOW_S, 10.0))
    gauge = Lateness(10)
    assert gauge.too_late(run(gauge, 0.0, WINDOW_S, 10.1))


def test_it_stays_until_the_process_is_well_in_time() -> None:
    gauge = Lateness(10)
    now = run(gauge, 0.0, WINDOW_S, 11)
    assert gauge.too_late(now)
    now = run(gauge, now, WINDOW_S * 2, 6)
    assert gauge.too_late(now), "below the limit, but not below half of it"
    now = run(gauge, now, WINDOW_S * 2, 4)
    assert not gauge.too_late(now)
    now = run(gauge, now, WINDOW_S * 2, 6)
    assert not gauge.too_late(now), "from this side the limit itself counts"


@pytest.mark.parametrize("asked_each_s", [0.1, 100])
def test_it_ends_with_the_window(asked_each_s: float) -> None:
    gauge = Lateness(10)
    ended = run(gauge, 0.0, 2, 50)
    assert gauge.too_late(ended)
    at = ended
    while at < ended + WINDOW_S - 1:
        assert gauge.too_late(at)
        at += asked_each_s
    assert not gauge.too_late(ended + WINDOW_S), "nobody is on the line any more"


def test_one_stall_of_the_machine_turns_nobody_away() -> None:
    gauge = Lateness(10)
    now = run(gauge, 0.0, WINDOW_S - 0.1, 1)
    now = run(gauge, now, 0.08, 60)
    assert not gauge.too_late(now)
    now = run(gauge, now, 0.08, 60)
    assert gauge.too_late(now)


def test_frames_that_were_never_sent_are_late() -> None:
    gauge = Lateness(10)
    now = run(gauge, 0.0, 5, 0)
    gauge.note(100, math.inf, now)
    assert gauge.too_late(now)


def test_no_limit() -> None:
    gauge = Lateness(0)
    assert not gauge.too_late(run(gauge, 0.0, WINDOW_S, 500))


def test_memory_is_bounded() -> None:
    gauge = Lateness(10)
    run(gauge, 0.0, 100, 1)
    assert len(gauge._seconds) <= WINDOW_S


def test_p99_is_what_one_frame_in_a_hundred_exceeds() -> None:
    gauge = Lateness(10)
    assert gauge.p99_ms(0.0) == 0.0
    gauge.note(985, 0.0012, 1.0)
    gauge.note(10, 0.0043, 2.0)
    gauge.note(5, math.inf, 2.0)
    assert gauge.p99_ms(2.0) == 4.5, "ten frames, of a thousand, are beyond the next lower step"
    gauge.note(10, 0.03, 3.0)
    assert gauge.p99_ms(3.0) == 30.5
    assert gauge.p99_ms(2.0 + WINDOW_S) == 30.5, "what is older does not count"
    assert gauge.p99_ms(3.0 + WINDOW_S) == 0.0
