"""The caller against the agent: each policy, with speech that is long, short, understood, or only an echo."""

from __future__ import annotations

import pytest

from bridge.barge_in import BargeIn, Policy, Reaction

CONFIRM_S, SILENCE_S, PADDING_MS = 0.4, 0.5, 300


def barge_in(policy: Policy = "confirm") -> BargeIn:
    return BargeIn(policy, confirm_s=CONFIRM_S, silence_s=SILENCE_S, padding_ms=PADDING_MS)


def held() -> BargeIn:
    """A voice came at 10 s, where the session's audio stood at 5,000 ms: the agent is paused."""
    it = barge_in()
    assert it.speech_started("U1", 10.0, 5000 - PADDING_MS, agent_speaks=True, protected=False) is Reaction.HOLD
    return it


@pytest.mark.parametrize(
    ("policy", "agent_speaks", "protected", "reaction"),
    [
        ("interrupt", True, False, Reaction.INTERRUPT),
        ("interrupt", False, False, Reaction.INTERRUPT),  # a response may be under way of which nothing was heard
        ("interrupt", True, True, Reaction.NOTHING),
        ("confirm", True, False, Reaction.HOLD),
        ("confirm", False, False, Reaction.NOTHING),
        ("confirm", True, True, Reaction.NOTHING),
        ("off", True, False, Reaction.NOTHING),
        ("off", False, False, Reaction.NOTHING),
        ("off", True, True, Reaction.NOTHING),
    ],
)
def test_what_the_first_sound_of_the_caller_does(
    policy: Policy, agent_speaks: bool, protected: bool, reaction: Reaction
) -> None:
    it = barge_in(policy)
    assert it.speech_started("U0", 0.0, 0, agent_speaks=agent_speaks, protected=protected) is reaction
    assert it.speaking
    assert it.held == (reaction is Reaction.HOLD)


@pytest.mark.parametrize("policy", ["interrupt", "confirm", "off"])
def test_the_end_of_speech_that_held_nothing_decides_nothing(policy: Policy) -> None:
    it = barge_in(policy)
    it.speech_started("U0", 0.0, 0, agent_speaks=False, protected=False)
    assert it.speech_stopped("U1", 0.1, 100) is Reaction.NOTHING
    assert not it.speaking
    assert not it.is_noise("U1")


@pytest.mark.parametrize(
    ("spoken_ms", "reaction"),
    [
        (0, Reaction.RESUME),
        (100, Reaction.RESUME),
        (399, Reaction.RESUME),
        (400, Reaction.INTERRUPT),
        (3000, Reaction.INTERRUPT),
    ],
)
def test_the_length_of_the_speech_itself_decides(spoken_ms: int, reaction: Reaction) -> None:
    """The server's span holds its padding in front and the silence behind, and neither is speech (section 2.4)."""
    it = held()
    end_ms = 5000 + spoken_ms + round(SILENCE_S * 1000)
    assert it.speech_stopped("U1", 10.0 + spoken_ms / 1000 + SILENCE_S, end_ms) is reaction
    assert not it.held
    assert it.is_noise("U1") == (reaction is Reaction.RESUME)


@pytest.mark.parametrize("end_ms", [None, 4000], ids=["no end", "an end before the start"])
@pytest.mark.parametrize(("spoken_s", "reaction"), [(0.2, Reaction.RESUME), (0.6, Reaction.INTERRUPT)])
def test_without_positions_the_clock_decides(end_ms: int | None, spoken_s: float, reaction: Reaction) -> None:
    assert held().speech_stopped("U1", 10.0 + spoken_s + SILENCE_S, end_ms) is reaction


def test_a_false_alarm_is_told_once() -> None:
    it = held()
    it.speech_stopped("U1", 10.6, 5000 + 600)
    assert not it.is_noise("U0")
    assert it.is_noise("U1")
    assert not it.is_noise("U1")


def test_speech_that_goes_on_is_a_caller_before_it_ends() -> None:
    it = held()
    assert it.tick(10.0 + CONFIRM_S + SILENCE_S - 0.01) is Reaction.NOTHING
    assert it.tick(10.0 + CONFIRM_S + SILENCE_S) is Reaction.INTERRUPT
    assert not it.held
    assert it.speaking, "the turn goes on"
    assert it.tick(12.0) is Reaction.NOTHING
    assert it.speech_stopped("U1", 12.5, 7500) is Reaction.NOTHING
    assert not it.is_noise("U1")


def test_words_are_a_caller_at_once() -> None:
    it = held()
    assert it.words("U0") is Reaction.NOTHING, "late words of the turn before"
    assert it.words("U1") is Reaction.INTERRUPT
    assert it.words("U1") is Reaction.NOTHING
    assert it.tick(99.0) is Reaction.NOTHING


@pytest.mark.parametrize("policy", ["interrupt", "confirm", "off"])
def test_words_and_time_mean_nothing_while_nothing_is_held(policy: Policy) -> None:
    it = barge_in(policy)
    it.speech_started("U0", 0.0, 0, agent_speaks=False, protected=False)
    assert it.words("U1") is Reaction.NOTHING
    assert it.tick(60.0) is Reaction.NOTHING


def test_a_second_alarm_after_a_false_one_is_judged_by_itself() -> None:
    it = held()
    it.speech_stopped("U1", 10.6, 5600)
    assert it.speech_started("U2", 11.0, 5700, agent_speaks=True, protected=False) is Reaction.HOLD
    assert it.speech_stopped("U2", 13.0, 8000) is Reaction.INTERRUPT
    assert (it.is_noise("U2"), it.is_noise("U1")) == (False, True)


def test_a_second_start_while_held_asks_for_no_second_pause() -> None:
    """Some servers tell a start twice."""
    it = held()
    assert it.speech_started("U1", 10.2, 5000, agent_speaks=True, protected=False) is Reaction.NOTHING
    assert it.held


@pytest.mark.parametrize("hold", [True, False])
def test_a_lost_session_leaves_no_pause_behind(hold: bool) -> None:
    it = held() if hold else barge_in()
    assert it.deaf() is (Reaction.RESUME if hold else Reaction.NOTHING)
    assert not it.held
    assert not it.speaking
