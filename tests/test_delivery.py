"""Order, repetition and giving up of deliveries, as pure decisions."""

from __future__ import annotations

import math
import random
from collections import defaultdict

import pytest

from bridge.delivery import MOST_AT_ONCE, Deliveries, Message

A, B = "http://a.test/", "http://b.test/"
HOUR_S = 3600.0


def deliveries(give_up_after_s: float = HOUR_S) -> Deliveries:
    return Deliveries(give_up_after_s, lambda: 1.0)


def events(name: str, call: str = "1", url: str = A, at: float = 0.0) -> Message:
    return Message(name, url, call, "events", at)


def end(name: str, call: str = "1", url: str = A, at: float = 0.0) -> Message:
    return Message(name, url, call, "action", at)


def names(messages: list[Message]) -> list[str]:
    return [message.name for message in messages]


def test_one_call_goes_in_order_and_calls_side_by_side() -> None:
    it = deliveries()
    first, second, other = events("1a"), end("1b"), events("2a", "2")
    it.add(first, second, other)
    assert it.take(0.0) == [first, other]
    assert it.take(0.0) == []
    assert it.next_at() == math.inf
    it.delivered(first)
    assert it.take(0.0) == [second]
    assert len(it) == 2


def test_so_many_at_once_to_one_receiver_and_others_are_not_held_up() -> None:
    it = deliveries()
    it.add(*(events(f"a{n}", f"a{n}") for n in range(20)), events("b", "b", B))
    taken = it.take(0.0)
    assert len(taken) == MOST_AT_ONCE + 1
    assert taken[-1].url == B
    it.delivered(taken[0])
    assert names(it.take(0.0)) == [f"a{MOST_AT_ONCE}"]


def test_a_dead_receiver_is_tried_by_one_message_with_longer_and_longer_pauses() -> None:
    it = deliveries()
    it.add(*(events(f"a{n}", f"a{n}") for n in range(100)))
    for message in it.take(0.0):
        it.failed(message, 0.0, unreachable=True)
    now, tries = 0.0, []
    while now < HOUR_S:
        now = it.next_at()
        taken = it.take(now)
        assert len(taken) <= 1
        for message in taken:
            tries.append(message.name)
            it.failed(message, now, unreachable=True)
    assert 12 <= len(tries) < 25
    assert len(set(tries)) > 10, "it may be the message's fault, so another one is tried"
    # Something gets through: all of them may go.
    now = max(now, it.next_at())
    (probe,) = it.take(now)
    it.delivered(probe)
    assert len(it.take(now)) == MOST_AT_ONCE


def test_a_message_that_is_refused_holds_up_its_own_call_only() -> None:
    it = deliveries()
    bad, behind, good = events("1a"), events("1b"), events("2a", "2")
    it.add(bad, behind, good)
    it.take(0.0)
    assert it.failed(bad, 0.0, unreachable=False) == 1
    it.delivered(good)
    it.add(events("2b", "2"))
    assert names(it.take(0.0)) == ["2b"]
    assert it.next_at() == 1.0
    assert it.take(1.0) == [bad]
    assert it.failed(bad, 1.0, unreachable=False) == 2
    assert it.take(3.0) == [bad]
    it.dropped(bad)
    assert it.take(3.0) == [behind]


def test_a_receiver_says_when() -> None:
    it = deliveries()
    it.add(events("1a"), events("2a", "2"))
    (first, second) = it.take(0.0)
    assert it.failed(first, 0.0, unreachable=True, retry_after_s=60.0) == 60
    it.failed(second, 0.0, unreachable=False)
    assert it.take(59.0) == []
    assert it.next_at() == 60.0
    assert len(it.take(60.0)) == 1


def test_the_end_of_a_call_waits_for_its_events_elsewhere_as_long_as_they_get_through() -> None:
    it = deliveries()
    one, two, over = events("1a"), events("1b"), end("1c", url=B)
    it.add(one, two, over)
    assert it.take(0.0) == [one]
    it.delivered(one)
    assert it.take(0.0) == [two]
    it.delivered(two)
    assert it.take(0.0) == [over]


@pytest.mark.parametrize("whose", ["its own", "another call's"])
def test_the_end_of_a_call_does_not_wait_for_a_dead_receiver_of_events(whose: str) -> None:
    it = deliveries()
    other, one, over = events("2a", "2"), events("1a"), end("1b", url=B)
    it.add(other, one, over)
    it.take(0.0)
    it.failed(one if whose == "its own" else other, 0.0, unreachable=True)
    assert it.take(0.0) == [over]
    late = end("3b", "3", B)
    it.add(events("3a", "3"), late)
    assert late in it.take(0.0)


def test_what_is_too_old_is_given_up_but_not_what_is_under_way() -> None:
    it = deliveries()
    it.add(events("1a", at=0), events("1b", at=10), events("1c", at=5000), end("2", "2", B, at=20))
    taken = it.take(0.0)
    assert it.oldest_unix_s == 0
    assert names(it.given_up(5000)) == ["1b"]
    assert names(it.take(0.0)) == []
    it.failed(taken[0], 0.0, unreachable=False)
    it.failed(taken[1], 0.0, unreachable=False)
    assert names(it.given_up(5000)) == ["1a", "2"]
    assert it.oldest_unix_s == 5000
    assert names(it.take(1.0)) == ["1c"]


def test_what_a_dead_process_left_counts_as_old() -> None:
    it = deliveries()
    it.add(events("new", at=100))
    it.add(events("old", "2", at=1))
    assert it.oldest_unix_s == 1
    assert names(list(it.waiting())) == ["old", "new"]


@pytest.mark.parametrize("seed", range(20))
def test_whatever_fails_nothing_is_lost_and_each_calls_order_holds(seed: int) -> None:
    """Random receivers, against the rules: in order within a lane, one at a time, everything arrives in the end."""
    dice = random.Random(seed)
    it = Deliveries(math.inf, dice.random)
    wanted: dict[tuple[str, str], list[str]] = defaultdict(list)
    got: dict[tuple[str, str], list[str]] = defaultdict(list)
    under_way: list[Message] = []
    now, made = 0.0, 0
    while made < 150 or len(it):
        step = dice.random()
        if made < 150 and step < 0.4:
            url, call = dice.choice([A, B]), str(dice.randrange(10))
            message = Message(f"{made:04}", url, call, dice.choice(["events", "events", "action"]), now)
            made += 1
            wanted[url, call].append(message.name)
            it.add(message)
        elif under_way and step < 0.8:
            message = under_way.pop(dice.randrange(len(under_way)))
            if dice.random() < 0.4:
                it.failed(message, now, unreachable=dice.random() < 0.5)
            else:
                it.delivered(message)
                got[message.url, message.call_id].append(message.name)
        elif not under_way and it.next_at() > now:
            assert it.next_at() < math.inf or not len(it), "something waits, and nothing will ever wake it"
            now = it.next_at() if len(it) else now + 1
        taken = it.take(now)
        under_way += taken
        lanes = [(message.url, message.call_id) for message in under_way]
        assert len(lanes) == len(set(lanes))
    assert got == wanted
    assert not it._receivers, "nothing is left of calls that are over"
    assert not it._of_call
