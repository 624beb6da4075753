"""What was said and heard, turn by turn."""

from __future__ import annotations

import pytest

from bridge.history import History, Speaker, Turn


def test_turns_stand_in_the_order_of_their_first_mention() -> None:
    history = History()
    history.turn("U1", Speaker.CALLER)
    history.turn("A1", Speaker.AGENT).text = "Hello."
    history.turn("U1", Speaker.CALLER).text = "Late words."
    assert [(it.item_id, it.text) for it in history] == [("U1", "Late words."), ("A1", "Hello.")]
    assert "A1" in history
    assert "A2" not in history


@pytest.mark.parametrize(
    ("heard_ms", "text"),
    [
        (None, "one two three four"),
        (1000, "one two three four"),
        (999, "one two three"),
        (500, "one two"),
        (400, "one two"),
        (50, ""),
        (0, ""),
    ],
)
def test_the_words_heard_are_whole_words_in_proportion(heard_ms: int | None, text: str) -> None:
    turn = Turn("A1", Speaker.AGENT, "one two three four", received_bytes=48_000, heard_ms=heard_ms)
    assert turn.heard_text == text
    assert turn.interrupted == (heard_ms is not None and heard_ms < 1000)


def test_only_the_agents_open_turns_are_undecided() -> None:
    history = History()
    history.turn("U1", Speaker.CALLER)
    history.turn("A1", Speaker.AGENT).heard_ms = 10
    open_turn = history.turn("A2", Speaker.AGENT)
    assert history.undecided() == [open_turn]
