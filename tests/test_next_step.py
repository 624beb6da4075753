"""What a dialplan is told to do with a caller whom ARI can not move."""

from __future__ import annotations

import pytest

from bridge.ending import FAREWELLS, ChannelAction, EndReason
from bridge.next_step import KEPT_S, MOST_KEPT, NextSteps, after, goto


@pytest.mark.parametrize("reason", EndReason)
def test_every_reason_hangs_up_or_leads_on_as_the_farewells_say(reason: EndReason) -> None:
    hangs_up = FAREWELLS[reason].channel is ChannelAction.HANG_UP
    assert after(reason) == f"{'hang_up' if hangs_up else 'continue'},{reason.value}"


@pytest.mark.parametrize(
    ("destination", "line"),
    [
        ("600@phones", "goto,phones,600,1"),
        ("600@phones,7", "goto,phones,600,7"),
        ("600@from-internal,ring", "goto,from-internal,600,ring"),
        ("600", "goto,,600,1"),
        ("*98", "goto,,*98,1"),
        ("600,1)System(x", None),
        ("", None),
    ],
)
def test_a_destination_is_told_as_goto_takes_it(destination: str, line: str | None) -> None:
    assert goto(destination) == line


def test_a_line_is_kept_for_a_while_and_told_as_often_as_it_is_asked_for() -> None:
    steps = NextSteps()
    steps.remember("a", "hang_up,agent_hung_up", 10.0)
    steps.remember("a", "continue,model_lost", 11.0)
    assert [steps.tell("a", 10.0 + it) for it in (0, 1, KEPT_S - 1)] == ["hang_up,agent_hung_up"] * 3
    assert steps.tell("a", 10.0 + KEPT_S) is None
    assert steps.tell("b", 10.0) is None


def test_calls_that_nobody_asks_about_are_bounded() -> None:
    steps = NextSteps()
    for number in range(MOST_KEPT + 10):
        steps.remember(str(number), "continue,model_lost", 0.0)
    assert steps.tell("0", 0.0) is None
    assert steps.tell(str(MOST_KEPT + 9), 0.0) == "continue,model_lost"
    assert sum(steps.tell(str(number), 0.0) is not None for number in range(MOST_KEPT + 10)) <= MOST_KEPT


def test_whose_dialplan_has_not_asked_yet_is_known() -> None:
    steps = NextSteps()
    steps.remember("a", "continue,model_lost", 10.0)
    assert steps.untold_since(9.0)
    assert not steps.untold_since(10.5)
    steps.tell("a", 10.1)
    assert not steps.untold_since(9.0)
