"""When workers are started, drained, killed and given up: in virtual time, without a process."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bridge.worker_policy import (
    BEYOND_DRAIN_S,
    FIRST_REPORT_S,
    HEALTHY_S,
    PROCESS,
    SILENT_S,
    Action,
    End,
    Kill,
    Order,
    Say,
    Stage,
    Start,
    Tell,
    WorkerPolicy,
)

DRAIN_S = 60.0


def done(actions: list[Action]) -> list[Action]:
    """What is to be done, without what is to be said."""
    return [action for action in actions if not isinstance(action, Say)]


def running(count: int = 3) -> WorkerPolicy:
    policy = WorkerPolicy(count, DRAIN_S)
    policy.begin(0.0)
    for number in range(1, count + 1):
        policy.reported(number, True, 1.0)
    return policy


def test_all_start_at_once() -> None:
    assert WorkerPolicy(2, DRAIN_S).begin(0.0) == [Start(1), Start(2)]


def test_a_dead_worker_starts_again_later_each_time() -> None:
    policy, now, waited = running(1), 10.0, []
    for _ in range(9):
        (said,) = policy.exited(1, -9, now)
        assert isinstance(said, Say)
        assert said.trouble
        assert "killed by signal 9" in said.text
        due = policy.next_tick()
        assert policy.tick(due - 0.001) == []
        assert policy.tick(due) == [Start(1)]
        waited.append(due - now)
        now = due
    assert waited == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]
    assert policy.restarts(1) == 9


def test_a_death_concerns_nobody_else() -> None:
    policy = running(2)
    assert done(policy.exited(2, -9, 2.0)) == []
    assert (policy.stage(1), policy.restarts(1)) == (Stage.RUNNING, 0)


def delay_after(policy: WorkerPolicy, number: int, now: float) -> float:
    policy.exited(number, 1, now)
    return policy.next_tick() - now


def test_the_delay_begins_anew_after_a_minute_of_health_and_not_before() -> None:
    policy = WorkerPolicy(1, DRAIN_S)
    policy.begin(0.0)
    assert delay_after(policy, 1, 1.0) == 0.5
    policy.tick(1.5)
    policy.reported(1, True, 2.0)
    assert delay_after(policy, 1, 2.0 + HEALTHY_S - 0.1) == 1.0
    policy.tick(100.0)
    policy.reported(1, False, 101.0)  # alive, but without Asterisk: that is not health
    policy.reported(1, True, 170.0)
    assert delay_after(policy, 1, 170.0 + HEALTHY_S) == 0.5


def test_a_worker_that_ends_by_itself_in_order_is_replaced_too() -> None:
    policy = running(1)
    (said,) = policy.exited(1, 0, 5.0)
    assert isinstance(said, Say)
    assert said.text == "has ended with status 0; starting it again in 0.5 s"


def test_a_wrong_configuration_at_the_start_ends_everything_once() -> None:
    policy = WorkerPolicy(3, DRAIN_S)
    policy.begin(0.0)
    assert done(policy.exited(2, 2, 1.0)) == [Tell(1, Order.DRAIN), Tell(3, Order.DRAIN)]
    assert done(policy.exited(1, 2, 1.1)) == []
    assert done(policy.exited(3, 0, 1.2)) == [End(2)]


def test_a_wrong_configuration_later_stops_one_worker_only_until_it_is_asked_for_again() -> None:
    policy = running(2)
    assert done(policy.roll(5.0)) == [Tell(1, Order.DRAIN)]
    assert done(policy.exited(1, 0, 6.0)) == [Start(1)]
    actions = policy.exited(1, 2, 7.0)
    assert done(actions) == []
    assert "SIGHUP tries again" in str(actions)
    assert (policy.stage(1), policy.stage(2)) == (Stage.RETIRED, Stage.RUNNING)
    assert done(policy.reported(2, True, 8.0)) == [], "worker 2 is not drained after all"
    assert done(policy.roll(9.0)) == [Start(1)]
    assert done(policy.reported(1, True, 10.0)) == [Tell(2, Order.DRAIN)]


def test_when_all_are_retired_it_ends_with_status_2() -> None:
    policy = running(2)
    policy.exited(1, 2, 5.0)
    assert done(policy.exited(2, 2, 6.0)) == [End(2)]


def test_drain_asks_all_at_once_and_ends_with_the_last() -> None:
    policy = running(3)
    assert done(policy.drain(5.0)) == [Tell(number, Order.DRAIN) for number in (1, 2, 3)]
    assert policy.draining
    assert policy.drain(6.0) == []
    assert [done(policy.exited(number, 0, 7.0)) for number in (2, 1, 3)] == [[], [], [End(0)]]


def test_drain_does_not_wait_for_what_is_not_running() -> None:
    policy = running(2)
    policy.exited(1, -9, 5.0)
    assert done(policy.drain(5.1)) == [Tell(2, Order.DRAIN)]
    assert done(policy.tick(6.0)) == [], "not started again"
    assert done(policy.exited(2, 0, 7.0)) == [End(0)]
    policy = running(1)
    policy.exited(1, -9, 5.0)
    assert done(policy.drain(5.1)) == [End(0)]


def test_stop_ends_the_calls_of_those_that_drain_already() -> None:
    policy = running(2)
    policy.drain(5.0)
    policy.exited(1, 0, 6.0)
    assert done(policy.stop(7.0)) == [Tell(2, Order.STOP)]
    assert policy.next_tick() == 7.0 + BEYOND_DRAIN_S


def test_a_worker_that_does_not_drain_in_time_is_killed_once() -> None:
    policy = running(1)
    policy.drain(5.0)
    at = 5.0 + DRAIN_S + BEYOND_DRAIN_S
    assert policy.next_tick() == at
    assert done(policy.tick(at)) == [Kill(1)]
    assert policy.tick(at + 100) == []
    assert done(policy.exited(1, -9, at + 101)) == [End(0)]


def test_a_worker_that_stops_reporting_is_killed_and_replaced() -> None:
    policy = running(2)
    policy.reported(2, True, 10.0)
    assert policy.next_tick() == 1.0 + SILENT_S
    assert done(policy.tick(1.0 + SILENT_S)) == [Kill(1)]
    policy.exited(1, -9, 17.0)
    assert policy.stage(1) is Stage.WAITING
    assert policy.stage(2) is Stage.RUNNING


def test_a_worker_that_never_reports_is_killed() -> None:
    policy = WorkerPolicy(1, DRAIN_S)
    policy.begin(0.0)
    assert done(policy.tick(FIRST_REPORT_S)) == [Kill(1)]


def test_rolling_waits_for_each_to_be_up_again() -> None:
    policy = running(2)
    assert done(policy.roll(5.0)) == [Tell(1, Order.DRAIN)]
    assert done(policy.reported(2, True, 6.0)) == [], "worker 1 still drains"
    assert done(policy.exited(1, 0, 7.0)) == [Start(1)], "at once: it did not die"
    assert policy.restarts(1) == 0
    assert done(policy.reported(1, False, 8.0)) == [], "no Stasis application yet"
    assert done(policy.reported(1, True, 9.0)) == [Tell(2, Order.DRAIN)]
    assert done(policy.exited(2, 0, 10.0)) == [Start(2)]
    assert done(policy.reported(2, True, 11.0)) == []


def test_rolling_stands_still_while_the_replacement_keeps_dying() -> None:
    policy = running(2)
    policy.roll(5.0)
    policy.exited(1, 0, 6.0)
    policy.exited(1, 1, 7.0)
    assert done(policy.reported(2, True, 7.1)) == []
    assert done(policy.tick(7.5)) == [Start(1)]
    assert done(policy.reported(1, True, 8.0)) == [Tell(2, Order.DRAIN)]


def test_rolling_again_begins_again_but_not_with_the_one_that_drains() -> None:
    policy = running(3)
    policy.roll(5.0)
    policy.exited(1, 0, 6.0)
    policy.reported(1, True, 7.0)  # worker 2 drains now
    assert done(policy.roll(8.0)) == []
    policy.exited(2, 0, 9.0)
    assert done(policy.reported(2, True, 10.0)) == [Tell(1, Order.DRAIN)]
    policy.exited(1, 0, 11.0)
    assert done(policy.reported(1, True, 12.0)) == [Tell(3, Order.DRAIN)]


def test_rolling_starts_a_waiting_worker_at_once() -> None:
    policy = running(2)
    policy.exited(1, -11, 5.0)
    assert done(policy.roll(5.1)) == [Start(1)]


def test_drain_ends_a_restart_one_by_one() -> None:
    policy = running(2)
    policy.roll(5.0)
    assert done(policy.drain(6.0)) == [Tell(2, Order.DRAIN)]
    assert done(policy.exited(1, 0, 7.0)) == []
    assert policy.roll(7.5) == []
    assert done(policy.exited(2, 0, 8.0)) == [End(0)]


_EVENTS = st.tuples(
    st.sampled_from(["up", "alive", "exit 0", "exit 2", "exit 1", "killed", "roll", "drain", "stop", "tick"]),
    st.integers(1, 3),
    st.floats(0.0, 40.0),
)


@given(st.lists(_EVENTS, max_size=60))
def test_whatever_happens_processes_and_stages_agree(events: list[tuple[str, int, float]]) -> None:
    """No process is started twice or told anything when it is not there, and the end comes once, when none is left."""
    policy, alive, ended, now = WorkerPolicy(3, DRAIN_S), set[int](), False, 0.0

    def carry_out(actions: list[Action]) -> None:
        nonlocal ended
        for action in actions:
            match action:
                case Start(worker):
                    assert worker not in alive
                    alive.add(worker)
                case Tell(worker) | Kill(worker):
                    assert worker in alive
                case End():
                    assert not alive
                    ended = True
                case Say():
                    pass

    carry_out(policy.begin(now))
    statuses = {"exit 0": 0, "exit 1": 1, "exit 2": 2, "killed": -9}
    for what, number, later_s in events:
        now += later_s
        if ended:
            break
        if what in statuses and number in alive:
            alive.discard(number)
            carry_out(policy.exited(number, statuses[what], now))
        elif what in ("up", "alive") and number in alive:
            carry_out(policy.reported(number, what == "up", now))
        elif what in ("roll", "drain", "stop", "tick"):
            carry_out(getattr(policy, what)(now))
        assert {worker for worker in (1, 2, 3) if policy.stage(worker) in PROCESS} == alive
    if not ended:
        carry_out(policy.drain(now))
        for number in list(alive):
            alive.discard(number)
            carry_out(policy.exited(number, 0, now))
        assert ended
