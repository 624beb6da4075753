"""One response at a time: asking, refusals, retries, and the wait for a sign of life."""

from __future__ import annotations

import pytest

from bridge.realtime import Response, ServerError
from bridge.responses import APART, MAX_RATE_LIMITS, REFUSED_WAIT_S, Ask, Responses

STALL_S = 8.0
GREET = Ask({"instructions": "Say hello."})
LIMITED = ServerError(code="rate_limit_exceeded", message="Rate limit reached.")
BROKEN = ServerError(type="server_error", message="it broke")


def response(response_id: str = "R1", status: str = "in_progress") -> Response:
    return Response(id=response_id, status=status)


def generating(ask: Ask = GREET, now: float = 0.0) -> Responses:
    """`ask` was made and the server began with it."""
    it = Responses(STALL_S)
    it.want(ask)
    assert it.next_request(now) is ask
    it.created(response(), now)
    return it


def test_nothing_wanted_is_nothing_asked() -> None:
    it = Responses(STALL_S)
    assert it.next_request(0.0) is None
    assert (it.busy, it.owed, it.awaited, it.wanted) == (False,) * 4


def test_a_wish_is_asked_for_once_and_then_it_is_the_servers_turn() -> None:
    it = Responses(STALL_S)
    it.want(GREET)
    assert it.owed
    assert it.next_request(0.0) is GREET
    assert (it.busy, it.owed, it.awaited) == (True, False, True)
    assert it.next_request(0.0) is None


def test_no_request_while_one_is_active_or_asked_for() -> None:
    it = Responses(STALL_S)
    it.want(Ask())
    it.next_request(0.0)
    it.want(GREET)
    assert it.next_request(1.0) is None, "asked for"
    it.created(response(), 1.0)
    assert it.next_request(2.0) is None, "active"
    it.done(response(status="completed"), 3.0)
    assert it.next_request(3.0) is GREET


def test_several_wishes_are_one_response_and_the_newest_counts() -> None:
    it = generating()
    first, second = Ask({"instructions": "a"}), Ask({"instructions": "b"})
    it.want(first)
    it.want(second)
    it.done(response(status="completed"), 1.0)
    assert it.next_request(1.0) is second
    it.created(response("R2"), 1.0)
    it.done(response("R2", "completed"), 2.0)
    assert it.next_request(2.0) is None


def test_a_wish_for_later_waits() -> None:
    it = Responses(STALL_S)
    it.want(GREET, not_before=5.0)
    assert it.next_request(4.99) is None
    assert it.owed
    assert it.next_request(5.0) is GREET


def test_what_is_owed_can_be_forgotten() -> None:
    it = Responses(STALL_S)
    it.want(GREET)
    it.forget()
    assert it.next_request(9.0) is None


def test_the_end_of_another_response_changes_nothing() -> None:
    it = generating()
    assert not it.done(response("R7", "completed"), 1.0)
    assert it.active == "R1"
    assert it.done(response("R1", "completed"), 1.0)
    assert it.active is None


@pytest.mark.parametrize("with_active", [True, False])
def test_a_response_beside_the_call_is_never_active_and_never_heard(with_active: bool) -> None:
    it = generating() if with_active else Responses(STALL_S)
    before = it.active, it.busy
    apart = Response(id="R9", status="in_progress", metadata={APART: "summary"})
    assert not it.created(apart, 1.0)
    assert (it.active, it.busy) == before
    assert it.is_discarded("R9")
    assert not it.done(Response(id="R9", status="completed", metadata={APART: "summary"}), 2.0)
    assert (it.active, it.busy) == before


def test_foreign_metadata_is_no_reason_to_be_silent() -> None:
    it = Responses(STALL_S)
    assert it.created(Response(id="R1", metadata={"topic": "x"}), 0.0)
    assert it.wanted


# Refusals -------------------------------------------------------------------------------------------------------------


def test_a_refused_request_is_made_again_after_the_active_one() -> None:
    it = Responses(STALL_S)
    it.want(GREET)
    it.next_request(0.0)
    it.refused(0.0)
    it.created(response("R9"), 0.1)
    assert it.next_request(5.0) is None
    it.done(response("R9", "completed"), 5.0)
    assert it.next_request(5.0) is GREET


def test_a_refusal_without_an_active_response_is_no_loop() -> None:
    it = Responses(STALL_S)
    now, asked = 0.0, 0
    it.want(GREET)
    while now < 10:
        if it.next_request(now):
            asked += 1
            it.refused(now)
        now += 0.02
    assert asked == pytest.approx(10 / REFUSED_WAIT_S, abs=2)


def test_the_servers_own_refused_answer_is_asked_for_plainly() -> None:
    it = generating()
    it.refused(1.0)
    it.done(response(status="completed"), 2.0)
    assert it.next_request(2.0) == Ask()


def test_a_request_that_crossed_with_the_servers_own_answer_keeps_its_words() -> None:
    """The turn was committed, so what begins next is the server's answer to it; the refusal of ours follows."""
    it = Responses(STALL_S)
    it.expect(0.0)
    it.want(GREET)
    assert it.next_request(0.1) is GREET
    it.created(response("R1"), 0.2)
    assert it.asked == Ask()
    it.refused(0.3)
    assert it.next_request(1.0) is None
    it.done(response("R1", "completed"), 2.0)
    assert it.next_request(2.0) is GREET


def test_a_request_that_comes_just_behind_the_servers_own_answer_is_followed() -> None:
    """That answer was over before our request arrived, so nothing was refused: ours begins next."""
    it = Responses(STALL_S)
    it.expect(0.0)
    it.want(GREET)
    it.next_request(0.1)
    it.created(response("R1"), 0.2)
    it.done(response("R1", "completed"), 0.3)
    assert it.busy
    assert not it.stalled(8.2)
    assert it.stalled(8.3), "it must come"
    it.created(response("R2"), 0.4)
    assert it.asked is GREET
    it.done(response("R2", "completed"), 1.0)
    assert (it.busy, it.awaited) == (False, False)


def test_a_plain_wish_takes_no_words_from_one_that_waits() -> None:
    it = generating(Ask())
    it.want(GREET)
    it.want(Ask())
    it.done(response(status="completed"), 1.0)
    assert it.next_request(1.0) is GREET


def test_a_wish_does_not_cut_the_wait_of_a_rate_limit_short() -> None:
    it = generating()
    assert failing(it, LIMITED, 1.0)
    it.want(Ask())
    assert it.next_request(2.9) is None
    assert it.next_request(3.0) is GREET


# Failures -------------------------------------------------------------------------------------------------------------


def failing(it: Responses, error: ServerError, now: float) -> bool:
    """The active response fails with `error`; whether it is tried again."""
    assert it.active is not None
    it.done(response(it.active, "failed"), now)
    return it.retry(error, now)


def test_a_failed_response_is_asked_for_once_more_with_the_same_words() -> None:
    it = generating()
    assert failing(it, BROKEN, 1.0)
    assert not it.rate_limited
    assert it.next_request(1.0) is GREET
    it.created(response("R2"), 1.0)
    assert not failing(it, BROKEN, 2.0)
    assert it.next_request(9.0) is None


@pytest.mark.parametrize("status", ["completed", "incomplete"])
def test_one_good_response_gives_the_next_one_its_retry_back(status: str) -> None:
    it = generating()
    assert failing(it, BROKEN, 1.0)
    it.next_request(1.0)
    it.created(response("R2"), 1.0)
    it.done(response("R2", status), 2.0)
    it.created(response("R3"), 3.0)
    assert failing(it, BROKEN, 4.0)


@pytest.mark.parametrize("code", ["insufficient_quota", "invalid_api_key", "account_deactivated"])
def test_what_will_not_pass_is_not_tried_again(code: str) -> None:
    assert not failing(generating(), ServerError(code=code), 1.0)


@pytest.mark.parametrize(
    ("message", "waits_s"),
    [
        ("Rate limit reached.", [2.0, 4.0, 8.0]),
        ("Please try again in 1.5s.", [1.5, 4.0, 8.0]),
        ("Please try again in 250ms.", [0.25, 4.0, 8.0]),
        ("Please try again in 6s.", [6.0, 6.0, 8.0]),
    ],
)
def test_rate_limits_are_waited_out_longer_each_time_and_not_for_ever(message: str, waits_s: list[float]) -> None:
    it, now = generating(), 100.0
    for wait_s in waits_s:
        assert failing(it, ServerError(code="rate_limit_exceeded", message=message), now)
        assert it.rate_limited
        assert it.next_request(now + wait_s - 0.01) is None
        assert it.next_request(now + wait_s) is GREET
        assert not it.rate_limited
        now += 20
        it.created(response(), now)
    assert len(waits_s) == MAX_RATE_LIMITS
    assert not failing(it, LIMITED, now)


def test_a_rate_limit_leaves_the_retry_of_other_failures() -> None:
    it = generating()
    assert failing(it, LIMITED, 1.0)
    it.next_request(3.0)
    it.created(response("R2"), 3.0)
    assert failing(it, BROKEN, 4.0)


def test_the_wait_of_a_rate_limit_is_over_when_the_caller_says_something_else() -> None:
    it = generating()
    failing(it, LIMITED, 1.0)
    it.forget()
    assert not it.rate_limited
    it.want(Ask())
    assert it.next_request(1.1) == Ask()


# Discarding -----------------------------------------------------------------------------------------------------------


def test_a_discarded_response_is_generated_but_not_wanted() -> None:
    it = generating()
    assert it.wanted
    it.discard("R1")
    assert (it.wanted, it.busy, it.is_discarded("R1"), it.is_discarded("R2")) == (False, True, True, False)
    it.done(response(status="cancelled"), 1.0)
    assert it.is_discarded("R1"), "deltas in flight come after response.done, too"


# Signs of life --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["asked", "created", "expected"])
def test_a_server_that_owes_something_stalls_after_the_limit(what: str) -> None:
    it = Responses(STALL_S)
    if what == "expected":
        it.expect(10.0)
    else:
        it.want(Ask())
        it.next_request(10.0 if what == "asked" else 0.0)
    if what == "created":
        it.created(response(), 10.0)
    assert it.awaited
    assert not it.stalled(10.0 + STALL_S - 0.01)
    assert it.stalled(10.0 + STALL_S)


def test_only_an_active_response_lives_by_other_events() -> None:
    """Before `response.created` an event tells nothing of the response: transcripts of the caller come anyway."""
    it = Responses(STALL_S)
    it.expect(0.0)
    it.sign_of_life(7.0)
    assert it.stalled(8.0)
    it.created(response(), 7.0)
    it.sign_of_life(14.0)
    assert not it.stalled(21.9)
    assert it.stalled(22.0)


def test_nothing_stalls_that_nobody_waits_for() -> None:
    it = generating()
    it.expect_nothing()
    it.sign_of_life(5.0)
    assert not it.stalled(1000.0)
    it = generating()
    it.done(response(status="completed"), 1.0)
    assert not it.awaited
    assert not it.stalled(1000.0)


@pytest.mark.parametrize(
    ("state", "left"), [("asked", GREET), ("active", GREET), ("owed", GREET), ("nothing", None), ("done", None)]
)
def test_a_lost_session_leaves_what_had_been_asked_for(state: str, left: Ask | None) -> None:
    it = Responses(STALL_S)
    if state != "nothing":
        it.want(GREET)
    if state in ("asked", "active", "done"):
        it.next_request(0.0)
    if state in ("active", "done"):
        it.created(response(), 0.0)
    if state == "done":
        it.done(response(status="completed"), 1.0)
    assert it.session_lost() is left
    assert (it.busy, it.owed, it.awaited, it.wanted) == (False,) * 4
    assert it.next_request(99.0) is None


def test_a_response_of_the_servers_own_leaves_a_plain_request() -> None:
    """What the greeting said is not said again because another answer was cut."""
    it = generating()
    it.done(response(status="completed"), 1.0)
    it.created(response("R2"), 2.0)
    assert it.session_lost() == Ask()
