"""Filters of events, and the queue between a session and a slow observer."""

from __future__ import annotations

import pytest

from bridge.event_stream import Backlog, EventFilter

DELTA = "response.output_audio.delta"
APPEND = "input_audio_buffer.append"


@pytest.mark.parametrize(
    ("words", "taken", "refused"),
    [
        (None, ["error", "session.updated", "not.yet.invented"], [DELTA, APPEND]),
        ([], [], ["error", "session.updated"]),  # nothing, and not everything
        (["all"], ["error", "response.done"], [DELTA, APPEND]),
        (["*"], ["error", "response.done"], [DELTA]),
        (["error"], ["error"], ["response.done", "error.more"]),
        (["conversation.item.*"], ["conversation.item.added"], ["conversation.created", "conversation.item"]),
        (["response.*"], ["response.done", "response.output_audio.done"], [DELTA, "responses.done"]),
        (["response.output_audio.*"], ["response.output_audio.done"], [DELTA]),
        ([DELTA], [DELTA], ["response.output_audio.done"]),
        (["all", DELTA], [DELTA, "error"], [APPEND]),
        (["all", "-rate_limits.updated"], ["error"], ["rate_limits.updated"]),
        (["-response.*", "all"], ["error"], ["response.done"]),
        (["response.*", "-response.done"], ["response.created"], ["response.done", "error"]),
        ([DELTA, "-*"], [], ["error"]),
        (["response.audio.*"], ["response.output_audio.done"], [DELTA, "response.audio.done"]),
        (["response.audio.delta"], [DELTA], []),
        (["response.text.done"], ["response.output_text.done"], ["response.output_text.delta"]),
        (["all", "-response.audio_transcript.delta"], ["error"], ["response.output_audio_transcript.delta"]),
        (["conversation.item.created"], ["conversation.item.added"], ["conversation.item.done"]),
        (["response.audio"], [], ["response.output_audio"]),
    ],
)
def test_what_a_filter_takes(words: list[str] | None, taken: list[str], refused: list[str]) -> None:
    chosen = EventFilter.parse(words)
    assert [kind for kind in (*taken, *refused) if chosen.takes(kind)] == taken


def test_old_names_are_told_for_a_warning() -> None:
    chosen = EventFilter.parse(["response.done", "-response.text.*", "conversation.item.created"])
    assert chosen.renamed == (
        ("response.text.*", "response.output_text.*"),
        ("conversation.item.created", "conversation.item.added"),
    )


@pytest.mark.parametrize("words", [["-error"], ["response.*.done"], ["Response.done"], [""], [".*"], ["--error"]])
def test_words_that_are_mistakes_are_refused(words: list[str]) -> None:
    with pytest.raises(ValueError, match="event filter"):
        EventFilter.parse(words)


def test_a_full_backlog_drops_the_oldest_and_counts_it() -> None:
    backlog: Backlog[int] = Backlog(3)
    for number in range(5):
        backlog.put(number)
    assert backlog.missed == 2
    assert [backlog.take() for _ in range(4)] == [2, 3, 4, None]
    backlog.put(9)
    assert (len(backlog), backlog.missed) == (1, 2)


def test_a_backlog_without_room_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Backlog(0)
