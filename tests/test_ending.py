"""Why calls end: every reason has a meaning, every error a reason, and the first declaration counts."""

from __future__ import annotations

import pytest

from bridge.ending import FAREWELLS, ChannelAction, CompletionReason, Ending, EndReason, reason_for
from bridge.errors import (
    ControlRefused,
    ControlUnavailable,
    MediaLost,
    MediaProtocolError,
    ModelLost,
    ModelProtocolError,
    ModelRejected,
    ModelUnreachable,
)


@pytest.mark.parametrize("reason", EndReason)
def test_every_reason_has_a_farewell(reason: EndReason) -> None:
    farewell = FAREWELLS[reason]
    assert 1000 <= farewell.close_code < 5000


def test_only_agreed_ends_hang_up_on_the_caller() -> None:
    hang_up = {reason for reason, it in FAREWELLS.items() if it.channel is ChannelAction.HANG_UP}
    assert hang_up == {
        EndReason.AGENT_HUNG_UP,
        EndReason.MAX_DURATION,
        EndReason.CALLER_SILENT,
        EndReason.BUDGET_SPENT,
        # Of calls that we place: there is nobody, or nobody's dialplan.
        EndReason.BUSY,
        EndReason.NO_ANSWER,
        EndReason.REJECTED,
        EndReason.UNREACHABLE,
        EndReason.CANCELLED,
        EndReason.ANSWERING_MACHINE,
    }
    assert not any(FAREWELLS[reason].failure for reason in hang_up)


def test_the_five_words_of_jambonz_are_all_used() -> None:
    assert {it.completion for it in FAREWELLS.values()} == set(CompletionReason)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (MediaProtocolError("x"), EndReason.PROTOCOL_ERROR),
        (MediaLost("x"), EndReason.MEDIA_LOST),
        (ModelUnreachable("x"), EndReason.MODEL_UNREACHABLE),
        (ModelRejected("x", code="invalid_api_key"), EndReason.MODEL_REJECTED),
        (ModelLost("x"), EndReason.MODEL_LOST),
        (ModelProtocolError("x"), EndReason.MODEL_FAILED),
        (ControlUnavailable("x"), EndReason.CONTROL_LOST),
        (ControlRefused("x", status=500), EndReason.CONTROL_LOST),
    ],
)
def test_our_errors_have_reasons(error: Exception, reason: EndReason) -> None:
    code = getattr(error, "code", None)
    assert reason_for(error) == (reason, "x", code)
    assert reason_for(ExceptionGroup("tasks", [ExceptionGroup("inner", [error])])) == (reason, "x", code)


def test_anything_else_is_a_defect_of_ours() -> None:
    assert reason_for(ZeroDivisionError("oops")) == (EndReason.INTERNAL_ERROR, "ZeroDivisionError: oops", None)


def test_a_known_error_beside_a_defect_names_the_reason() -> None:
    assert reason_for(ExceptionGroup("", [KeyError("x"), ModelLost("gone")])) == (EndReason.MODEL_LOST, "gone", None)


def test_the_first_declaration_wins_and_is_acted_on_once() -> None:
    acted: list[str] = []
    ending = Ending(lambda: acted.append("cancel"))
    assert ending.declare(EndReason.MODEL_LOST, "close code 1006", code="1006")
    assert not ending.declare(EndReason.CALLER_HUNG_UP)
    assert (ending.reason, ending.detail) == (EndReason.MODEL_LOST, "close code 1006")
    assert ending.later == [(EndReason.CALLER_HUNG_UP, "")]
    assert acted == ["cancel"]
    assert ending.error is not None
    assert (ending.error.code, ending.error.message) == ("1006", "close code 1006")


def test_a_good_end_has_no_error_object() -> None:
    ending = Ending()
    ending.declare(EndReason.AGENT_HUNG_UP, "said goodbye")
    assert ending.error is None
    assert ending.farewell.channel is ChannelAction.HANG_UP


def test_a_farewell_before_the_end_is_a_defect() -> None:
    with pytest.raises(RuntimeError, match="before the call"):
        _ = Ending().farewell
