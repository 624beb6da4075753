"""What was said and heard, turn by turn."""

from __future__ import annotations

from typing import Any

import pytest

from bridge.history import NOT_TRANSCRIBED, REPLAY_CHARACTERS, REPLAY_ITEMS, History, Speaker, Turn


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


# Telling another session ----------------------------------------------------------------------------------------------


def said(history: History, item_id: str, text: str, *, received_ms: int = 1000, heard_ms: int | None = None) -> Turn:
    """The agent said this; `heard_ms` None: not decided yet."""
    turn = history.turn(item_id, Speaker.AGENT)
    turn.text, turn.received_bytes, turn.heard_ms = text, 48 * received_ms, heard_ms
    return turn


def asked(history: History, item_id: str, text: str = "") -> Turn:
    """The caller said this; empty: nobody wrote it down."""
    turn = history.turn(item_id, Speaker.CALLER)
    turn.text = text
    return turn


def short(items: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    """Items for reading: role and text, or what a tool got and gave."""
    found: list[tuple[str, ...]] = []
    for item in items:
        match item["type"]:
            case "message":
                found.append((item["role"], item["content"][0]["text"]))
            case "function_call":
                found.append(("call", item["call_id"], item["name"], item["arguments"]))
            case _:
                found.append(("output", item["call_id"], item["output"]))
    return found


def test_a_replay_is_what_happened_in_its_order() -> None:
    history = History()
    said(history, "A1", "Hello.", heard_ms=1000)
    asked(history, "U1", "Weather?")
    history.tool_called("C1", "weather", '{"city":"Oslo"}')
    use = history.tool("C1")
    assert use is not None
    use.output = "sunny"
    said(history, "A2", "It is sunny.", heard_ms=1000)
    assert short(history.replay()) == [
        ("assistant", "Hello."),
        ("user", "Weather?"),
        ("call", "C1", "weather", '{"city":"Oslo"}'),
        ("output", "C1", "sunny"),
        ("assistant", "It is sunny."),
    ]


def test_a_replay_speaks_the_protocols_words() -> None:
    """Assistants write `output_text`, all others `input_text`; ids stay, so that later truncations find their item."""
    history = History()
    said(history, "A1", "Hello.")
    asked(history, "U1", "Hi.")
    assert history.replay() == [
        {
            "id": "A1", "type": "message", "role": "assistant",
            "content": [{"type": "output_text", "text": "Hello."}],
        },
        {"id": "U1", "type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hi."}]},
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("heard_ms", "told"),
    [
        (None, [("assistant", "one two three four")]),  # it is still being heard: its rest stays to be heard
        (1000, [("assistant", "one two three four")]),
        (500, [("assistant", "one two")]),
        (0, []),
    ],
)
def test_only_what_was_heard_is_told(heard_ms: int | None, told: list[tuple[str, ...]]) -> None:
    history = History()
    said(history, "A1", "one two three four", heard_ms=heard_ms)
    assert short(history.replay()) == told


def test_a_turn_that_nobody_wrote_down_is_told_as_such() -> None:
    history = History()
    asked(history, "U1")
    said(history, "A1", "")
    assert short(history.replay()) == [("user", NOT_TRANSCRIBED)]


@pytest.mark.parametrize("output", [None, "", "42"])
def test_a_call_without_an_output_waits_for_it(output: str | None) -> None:
    history = History()
    history.tool_called("C1", "slow", "{}")
    use = history.tool("C1")
    assert use is not None
    use.output = output
    told = short(history.replay())
    assert told == ([] if output is None else [("call", "C1", "slow", "{}"), ("output", "C1", output)])
    assert use.here == (output is not None), "whether the new session knows the call"


def test_a_call_is_noted_once() -> None:
    history = History()
    assert history.tool_called("C1", "a", "{}")
    assert not history.tool_called("C1", "b", "{1}")
    use = history.tool("C1")
    assert use is not None
    assert use.name == "a"
    assert history.tool("C2") is None


def test_a_turn_whose_audio_is_sent_again_is_left_out() -> None:
    history = History()
    asked(history, "U1", "Hi.")
    asked(history, "U2", "I want")
    assert short(history.replay(leave_out="U2")) == [("user", "Hi.")]


def test_replayed_turns_are_texts_from_then_on() -> None:
    history = History()
    turn = said(history, "A1", "Hello.", heard_ms=1000)
    assert not turn.written
    history.replay()
    assert turn.written


def test_a_long_call_is_told_from_its_newest_end() -> None:
    history = History()
    for n in range(200):
        asked(history, f"U{n}", f"{n} " + "word " * 200)
    items = history.replay()
    assert 10 < len(items) < 200
    assert sum(len(str(item)) for item in items) <= REPLAY_CHARACTERS
    assert [item["id"] for item in items] == [f"U{n}" for n in range(200 - len(items), 200)]


def test_one_huge_output_does_not_cost_the_whole_memory() -> None:
    """A tool gave back a book: it is cut, and what was said around it stays."""
    history = History()
    asked(history, "U1", "My name is Ada.")
    history.tool_called("C1", "read", "{}")
    use = history.tool("C1")
    assert use is not None
    use.output = "x" * (2 * REPLAY_CHARACTERS)
    said(history, "A1", "That was long.", heard_ms=1000)
    items = history.replay()
    assert [kind[0] for kind in short(items)] == ["user", "call", "output", "assistant"]
    assert sum(len(str(item)) for item in items) <= REPLAY_CHARACTERS
    assert use.output == "x" * (2 * REPLAY_CHARACTERS), "only the telling is cut"


@pytest.mark.parametrize("most", [0, 1, 5, 40])
def test_a_call_is_told_with_its_output_or_not_at_all(most: int) -> None:
    history = History()
    for n in range(40):
        history.tool_called(f"C{n}", "t", "{}")
        use = history.tool(f"C{n}")
        assert use is not None
        use.output = "y" * 1500
    for n in range(most):
        asked(history, f"U{n}", "z" * 300)
    kinds = [kind for kind in short(history.replay()) if kind[0] in ("call", "output")]
    assert [kind[0] for kind in kinds] == ["call", "output"] * (len(kinds) // 2)


@pytest.mark.parametrize(
    ("item_id", "before"), [("A1", "root"), ("U1", "A1"), ("A2", "U1"), ("A4", "A2"), ("unknown", "A4")]
)
def test_where_an_item_stands(item_id: str, before: str) -> None:
    history = History()
    said(history, "A1", "Hello.", heard_ms=1000)
    asked(history, "U1", "Hi.")
    said(history, "A2", "How are you?", heard_ms=1000)
    said(history, "A3", "Never heard.", heard_ms=0)  # deleted at the server, so nothing can stand behind it
    said(history, "A4", "So?")
    assert history.before(item_id) == before


def test_a_rewritten_item_stands_under_its_new_name() -> None:
    history = History()
    said(history, "A1", "Hello there.", heard_ms=500).item_id = "A1-heard"
    asked(history, "U1", "Hi.")
    assert history.before("U1") == "A1-heard"
    assert "A1" in history, "late words of the server still find their turn"


def test_a_noise_was_never_part_of_it() -> None:
    history = History()
    asked(history, "U1", "Hi.")
    asked(history, "U2")
    history.forget("U2")
    history.forget("U9")
    assert "U2" not in history
    assert short(history.replay()) == [("user", "Hi.")]


def test_what_was_typed_is_told_like_what_was_said() -> None:
    history = History()
    turn = history.wrote("bridge-1", Speaker.CALLER, "(keys: 4 2)")
    assert turn.written
    assert short(history.replay()) == [("user", "(keys: 4 2)")]


def test_a_silence_is_not_told() -> None:
    """Where the transcript is empty, or the server has prompted a silent caller."""
    history = History()
    asked(history, "U1").complete = True
    assert history.replay() == []


def test_no_replay_is_longer_than_the_way_to_the_model() -> None:
    history = History()
    for n in range(400):
        asked(history, f"U{n}", "y")
    items = history.replay()
    assert (len(items), items[-1]["id"]) == (REPLAY_ITEMS, "U399")


def test_ids_that_a_client_may_not_give_are_replaced_once() -> None:
    history = History()
    long = [f"0b5e3f3c-58e4-4d8e-9d0a-00000000000{n}" for n in range(2)]
    for item_id in long:
        asked(history, item_id, "Hi.")
    ids = [item["id"] for item in history.replay()]
    assert len(set(ids)) == 2
    assert all(len(item_id) <= 32 for item_id in ids)
    assert [item["id"] for item in history.replay()] == ids
    assert [item["id"] for item in history.replay(leave_out=long[0])] == ids[1:]
    history.forget(long[0])
    asked(history, long[0], "Hello.")
    assert len({item["id"] for item in history.replay()}) == 2


def test_nothing_stands_behind_what_a_session_was_not_told() -> None:
    history = History()
    for n in range(REPLAY_ITEMS + 1):
        asked(history, f"U{n}", "y")
    history.replay()
    assert (history.before("U1"), history.before("U2")) == ("root", "U1")
