"""When the bridge speaks for a silent model: tables of whole waits, and the limit as a property of any call."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.patience import Patience, Why
from bridge.sounds import Sound

LENGTHS_S = {
    Sound.ONE_MOMENT: 1.5,
    Sound.STILL_THERE: 3.0,
    Sound.BUSY: 3.5,
    Sound.TROUBLE: 2.5,
    Sound.FILLER: 1.0,
}
TICK_S = 0.25


def patience(*without: Sound, limit_s: float = 4.0, repeat_s: float = 8.0) -> Patience:
    return Patience(limit_s, repeat_s, {sound: s for sound, s in LENGTHS_S.items() if sound not in without})


def played(waits: Patience, until_s: float, start_s: float = 0.0) -> list[tuple[float, Sound]]:
    """What plays when, in one wait that goes on as it is, with a tick each 250 ms."""
    found = []
    for step in range(int((until_s - start_s) / TICK_S) + 1):
        now = start_s + step * TICK_S
        sound = waits.tick(now)
        if sound:
            found.append((now, sound))
    return found


@pytest.mark.parametrize("why", [Why.MODEL, Why.TOOL, Why.RECONNECTING])
def test_words_first_then_filler_and_words_in_turn(why: Why) -> None:
    waits = patience()
    waits.waiting(why, 0.0)
    assert played(waits, 32) == [
        (4.0, Sound.ONE_MOMENT),
        (9.5, Sound.FILLER),
        (14.5, Sound.STILL_THERE),
        (21.5, Sound.FILLER),
        (26.5, Sound.STILL_THERE),
    ]
    assert waits.longest_silence_s == 4.0


def test_a_rate_limit_is_told_once() -> None:
    waits = patience()
    waits.waiting(Why.RATE_LIMITED, 0.0)
    assert [sound for _, sound in played(waits, 40)] == [
        Sound.BUSY,
        Sound.FILLER,
        Sound.STILL_THERE,
        Sound.FILLER,
        Sound.STILL_THERE,
        Sound.FILLER,
    ]


def test_a_rate_limit_that_comes_later_is_told_with_the_next_words() -> None:
    waits = patience()
    waits.waiting(Why.MODEL, 0.0)
    assert played(waits, 4) == [(4.0, Sound.ONE_MOMENT)]
    waits.waiting(Why.RATE_LIMITED, 5.0)
    assert [sound for _, sound in played(waits, 15, 5.25)] == [Sound.FILLER, Sound.BUSY]


def test_another_reason_does_not_begin_the_wait_anew() -> None:
    waits = patience()
    waits.waiting(Why.MODEL, 0.0)
    assert waits.tick(3.0) is None
    waits.waiting(Why.TOOL, 3.0)
    assert waits.tick(4.0) is Sound.ONE_MOMENT


def test_nothing_plays_while_nobody_waits() -> None:
    waits = patience()
    assert played(waits, 60) == []
    waits.waiting(Why.MODEL, 60.0)
    waits.heard(61.0)
    assert played(waits, 120, 61.0) == []
    assert waits.longest_silence_s == 1.0


def test_what_is_heard_ends_the_wait_and_the_next_begins_with_the_first_words() -> None:
    waits = patience()
    waits.waiting(Why.RATE_LIMITED, 0.0)
    assert played(waits, 10) == [(4.0, Sound.BUSY)]
    waits.heard(10.0)
    waits.waiting(Why.RATE_LIMITED, 20.0)
    assert played(waits, 24, 20.0) == [(24.0, Sound.BUSY)]
    waits.heard(25.0)
    waits.waiting(Why.TOOL, 30.0)
    assert played(waits, 34, 30.0) == [(34.0, Sound.ONE_MOMENT)]


def test_a_sound_is_never_played_into_another() -> None:
    waits = Patience(1.0, 1.0, {Sound.ONE_MOMENT: 9.0})
    waits.waiting(Why.MODEL, 0.0)
    assert [now for now, _ in played(waits, 25)] == [1.0, 11.0, 21.0]


@pytest.mark.parametrize(
    ("without", "expected"),
    [
        ([Sound.FILLER], [Sound.ONE_MOMENT, Sound.STILL_THERE, Sound.STILL_THERE]),
        ([Sound.ONE_MOMENT], [Sound.STILL_THERE, Sound.FILLER, Sound.STILL_THERE]),
        ([Sound.STILL_THERE], [Sound.ONE_MOMENT, Sound.FILLER, Sound.ONE_MOMENT]),
        ([Sound.ONE_MOMENT, Sound.STILL_THERE], [Sound.FILLER] * 4),
        ([Sound.ONE_MOMENT, Sound.STILL_THERE, Sound.FILLER], []),
    ],
)
def test_the_next_best_replaces_what_the_operator_switched_off(without: list[Sound], expected: list[Sound]) -> None:
    waits = patience(*without)
    waits.waiting(Why.MODEL, 0.0)
    assert [sound for _, sound in played(waits, 19)] == expected


def test_with_all_sounds_off_the_silence_is_on_record() -> None:
    waits = Patience(4.0, 8.0, {})
    waits.waiting(Why.MODEL, 0.0)
    assert played(waits, 30) == []
    assert waits.longest_silence_s == 30.0


def test_a_late_tick_is_on_record() -> None:
    waits = patience()
    waits.waiting(Why.MODEL, 0.0)
    assert waits.tick(6.5) is Sound.ONE_MOMENT
    waits.heard(8.0)
    assert waits.longest_silence_s == 6.5


STEPS = st.lists(
    st.tuples(st.integers(1, 16), st.sampled_from([*Why, "heard", None, None, None, None, None, None])), max_size=300
)


@given(steps=STEPS, limit=st.integers(16, 128), more=st.integers(0, 128), seed=st.sets(st.sampled_from(Sound)))
def test_no_silence_is_longer_than_the_limit(
    steps: list[tuple[int, Why | str | None]], limit: int, more: int, seed: set[Sound]
) -> None:
    # In 64ths of a second, which floats hold exactly. Ticks are at most 16 of them (250 ms) apart.
    limit_s, repeat_s = limit / 64, (limit + more) / 64
    lengths_s = {sound: LENGTHS_S[sound] for sound in seed | {Sound.FILLER}}
    waits = Patience(limit_s, repeat_s, lengths_s)
    now = longest_s = 0.0
    audible_until: float | None = None  # of the wait: its start, then the end of our last sound
    spoken_until: float | None = None
    for step, action in steps:
        now += step / 64
        if audible_until is not None:
            silence_s = now - audible_until
            longest_s = max(longest_s, silence_s)
            assert silence_s < limit_s + TICK_S
        if isinstance(action, Why):
            waits.waiting(action, now)
            audible_until = now if audible_until is None else audible_until
        elif action == "heard":
            waits.heard(now)
            audible_until = spoken_until = None
        sound = waits.tick(now)
        if sound is None:
            continue
        assert audible_until is not None
        assert now >= audible_until + limit_s, "sooner than the caller needs it"
        audible_until = now + lengths_s[sound]
        if sound is not Sound.FILLER:
            assert spoken_until is None or now - spoken_until >= repeat_s, "it nags"
            spoken_until = audible_until
    assert waits.longest_silence_s == longest_s
