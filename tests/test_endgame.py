"""How a call ends after its last word."""

from __future__ import annotations

import pytest

from bridge.destinations import Destination
from bridge.dialogue import EndCall, TransferCall
from bridge.endgame import Endgame
from bridge.ending import EndReason
from bridge.responses import Ask

GOODBYE_S = 10.0
HANG_UP = EndCall(EndReason.AGENT_HUNG_UP, "all said")
TRANSFER = TransferCall("C1", "sales", Destination(to="600@phones"))
SILENT = EndCall(EndReason.CALLER_SILENT, "nothing from the caller")
LAST_WORD = Ask({"instructions": "Say goodbye."})


def test_a_call_that_nobody_ends_goes_on() -> None:
    it = Endgame(GOODBYE_S)
    assert not it.closing
    assert it.drained() is None
    assert it.tick(1e6, idle=True) is None
    assert it.overdue(1e6) is None
    assert it.said(Ask()) is None


@pytest.mark.parametrize("command", [HANG_UP, TRANSFER])
def test_the_end_comes_when_everything_was_heard_and_once(command: EndCall | TransferCall) -> None:
    it = Endgame(GOODBYE_S)
    assert it.close(command, 0.0)
    assert it.closing
    assert it.drained() is command
    assert it.drained() is None
    assert it.tick(99.0, idle=True) is None
    assert it.closing


@pytest.mark.parametrize(("first", "second"), [(HANG_UP, TRANSFER), (TRANSFER, HANG_UP), (HANG_UP, SILENT)])
def test_the_first_decision_counts(first: EndCall | TransferCall, second: EndCall | TransferCall) -> None:
    it = Endgame(GOODBYE_S)
    it.close(first, 0.0)
    assert not it.close(second, 1.0)
    assert it.drained() is first


def test_a_goodbye_whose_end_nobody_reports_is_over_some_time_after_the_last_audio() -> None:
    it = Endgame(GOODBYE_S)
    it.close(HANG_UP, 0.0)
    assert it.tick(30.0, idle=False) is None, "it is being heard, however long it is"
    assert it.tick(30.0 + GOODBYE_S - 0.1, idle=True) is None
    assert it.tick(30.0 + GOODBYE_S, idle=True) is HANG_UP
    assert it.tick(30.0 + GOODBYE_S + 1, idle=True) is None


def test_a_transfer_that_failed_can_be_tried_again_or_become_a_goodbye() -> None:
    it = Endgame(GOODBYE_S)
    it.close(TRANSFER, 0.0)
    assert it.drained() is TRANSFER
    it.reopen()
    assert not it.closing
    assert it.drained() is None
    assert it.close(HANG_UP, 5.0)
    assert it.drained() is HANG_UP


def test_the_last_word_is_that_response_and_no_other() -> None:
    it = Endgame(GOODBYE_S)
    assert it.wind_down(LAST_WORD, SILENT, 0.0)
    assert not it.closing, "the caller can still be heard"
    assert it.said(Ask()) is None
    assert it.said(Ask({"instructions": "Say goodbye."})) is None, "the same words, asked for by somebody else"
    assert it.said(LAST_WORD) is SILENT


def test_a_last_word_that_is_never_said_has_a_limit() -> None:
    it = Endgame(GOODBYE_S)
    it.wind_down(LAST_WORD, SILENT, 100.0)
    assert it.overdue(100.0 + 2 * GOODBYE_S - 0.1) is None
    assert it.overdue(100.0 + 2 * GOODBYE_S) is SILENT


def test_a_call_winds_down_once() -> None:
    it = Endgame(GOODBYE_S)
    assert it.wind_down(LAST_WORD, SILENT, 0.0)
    assert not it.wind_down(Ask(), HANG_UP, 5.0)
    assert it.said(LAST_WORD) is SILENT


def test_a_call_that_is_closing_does_not_wind_down() -> None:
    it = Endgame(GOODBYE_S)
    it.close(HANG_UP, 0.0)
    assert not it.wind_down(LAST_WORD, SILENT, 0.0)


def test_an_agent_that_takes_leave_by_itself_needs_no_last_word() -> None:
    it = Endgame(GOODBYE_S)
    it.wind_down(LAST_WORD, SILENT, 0.0)
    it.close(HANG_UP, 1.0)
    assert it.said(LAST_WORD) is None
    assert it.overdue(1e6) is None
    assert it.drained() is HANG_UP
