"""Short calls with random endings; `short_calls` makes as many as one likes."""

from __future__ import annotations

import pytest

from asterisk.short_calls import run
from asterisk.victim import Victim

pytestmark = pytest.mark.asterisk


async def test_nothing_is_left_of_sixty_short_calls(victim: Victim) -> None:
    outcome = await run(victim, 60, seed=7, kill_the_model_every=25)
    print(outcome.text())
    assert not outcome.problems, outcome.text()
    assert outcome.reasons.total() + outcome.never_entered == 61
    assert len(outcome.reasons) >= 6, "a good mixture"
