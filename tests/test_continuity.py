"""When a call opens another model session, when it changes over, and when it gives up."""

from __future__ import annotations

import pytest

from bridge.continuity import (
    MAX_LOSSES,
    ROLLOVER_HURRY_S,
    ROLLOVER_LEAD_S,
    ROLLOVER_RETRY_S,
    SHORTEST_LIFE_S,
    Change,
    Continuity,
    Successor,
)

HOUR_S = 3600.0


def connected(lifetime_s: float | None = HOUR_S, now: float = 0.0) -> Continuity:
    it = Continuity()
    it.connected(now, lifetime_s)
    return it


def tick(it: Continuity, now: float, *, between_turns: bool = True, quiet: bool = True) -> Change | None:
    return it.tick(now, between_turns=between_turns, quiet=quiet)


def ready(quiet_at: float = HOUR_S - ROLLOVER_LEAD_S) -> Continuity:
    it = connected()
    assert tick(it, quiet_at) is Change.OPEN_SUCCESSOR
    it.successor_ready()
    return it


@pytest.mark.parametrize("lifetime_s", [None, 0.0, -5.0, SHORTEST_LIFE_S - 1])
def test_a_session_whose_end_nobody_knows_or_can_prepare_is_used_until_it_ends(lifetime_s: float | None) -> None:
    it = connected(lifetime_s)
    assert [tick(it, now) for now in (0.0, 59.0, 3599.0, 1e6)] == [None] * 4


def test_the_successor_is_opened_once_two_minutes_before_the_end() -> None:
    it = connected()
    assert tick(it, HOUR_S - ROLLOVER_LEAD_S - 0.1) is None
    # Opening disturbs nobody, so it waits for no quiet moment.
    assert tick(it, HOUR_S - ROLLOVER_LEAD_S, between_turns=False, quiet=False) is Change.OPEN_SUCCESSOR
    assert it.successor is Successor.OPENING
    assert tick(it, HOUR_S - 1) is None, "it is being opened"


@pytest.mark.parametrize(
    ("left_s", "between_turns", "quiet", "change"),
    [
        (100.0, True, True, Change.SWAP),
        (100.0, True, False, None),  # the caller still hears something
        (100.0, False, False, None),
        (ROLLOVER_HURRY_S, True, False, Change.SWAP),
        (ROLLOVER_HURRY_S, False, False, None),  # never in the middle of a turn
        (-1.0, False, False, None),
    ],
)
def test_the_change_waits_for_a_quiet_moment_and_in_the_end_for_one_between_turns(
    left_s: float, between_turns: bool, quiet: bool, change: Change | None
) -> None:
    assert tick(ready(), HOUR_S - left_s, between_turns=between_turns, quiet=quiet) is change


def test_after_the_change_the_new_sessions_life_counts() -> None:
    it = ready()
    assert tick(it, HOUR_S - 100) is Change.SWAP
    it.connected(HOUR_S - 100, HOUR_S)
    assert it.successor is Successor.NONE
    assert tick(it, HOUR_S) is None
    assert tick(it, 2 * HOUR_S - 100 - ROLLOVER_LEAD_S) is Change.OPEN_SUCCESSOR


def test_a_successor_that_could_not_be_opened_is_tried_again_later() -> None:
    it = connected()
    at = HOUR_S - ROLLOVER_LEAD_S
    assert tick(it, at) is Change.OPEN_SUCCESSOR
    it.successor_failed(at + 1)
    assert tick(it, at + ROLLOVER_RETRY_S) is None
    assert tick(it, at + 1 + ROLLOVER_RETRY_S) is Change.OPEN_SUCCESSOR


@pytest.mark.parametrize("lifetime_s", [60.0, 90.0, 125.0, 240.0, 480.0])
def test_short_sessions_are_not_changed_all_the_time(lifetime_s: float) -> None:
    """Each is used for at least half of its life, however quiet the call is (Bedrock's gateways: 8 minutes)."""
    it, now, changes = connected(lifetime_s), 0.0, 0
    while now < 3600:
        change = tick(it, now)
        if change is Change.OPEN_SUCCESSOR:
            it.successor_ready()
        elif change is Change.SWAP:
            changes += 1
            it.connected(now, lifetime_s)
        now += 0.25
    assert 3600 / lifetime_s - 1 <= changes <= 3600 / (lifetime_s / 2)


def test_a_lost_session_is_replaced_but_one_that_only_breaks_is_not() -> None:
    it = connected()
    for n in range(1, MAX_LOSSES + 1):
        assert it.lost()
        assert it.losses == n
        it.connected(10.0 * n, HOUR_S)
    assert not it.lost()
    assert it.losses == MAX_LOSSES + 1


def test_progress_between_losses_gives_the_tries_back_but_the_count_stays() -> None:
    it = connected()
    for _ in range(10):
        assert it.lost()
        it.connected(0.0, HOUR_S)
        it.progress()
    assert it.losses == 10


@pytest.mark.parametrize("after", ["opening", "ready"])
def test_a_loss_beside_a_successor_asks_for_no_change(after: str) -> None:
    """The shell takes the successor at the loss; nothing is prepared for the end of a session that is gone."""
    it = connected()
    tick(it, HOUR_S - 100)
    if after == "ready":
        it.successor_ready()
    assert it.lost()
    assert tick(it, HOUR_S - 50) is None
    it.connected(HOUR_S - 49, HOUR_S)
    assert it.successor is Successor.NONE
