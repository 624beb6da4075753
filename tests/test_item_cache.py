"""The cache of the conversation. Where the name of a test says "reference client", its JS original gets this wrong."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import pytest

from bridge.cached_item import AudioStore, CachedItem, ItemStatus
from bridge.item_cache import ItemCache
from bridge.item_changes import Change, ChangeKind

Event = dict[str, Any]
MS = 48  # bytes of PCM
PCM_20 = bytes(range(240)) * 4  # 20 ms


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def added(item_id: str, previous: str | None = None, *, role: str = "user", status: str = "completed") -> Event:
    part = {"type": "input_audio", "transcript": None}
    content = [part] if role == "user" else []
    item = {"id": item_id, "type": "message", "role": role, "status": status, "content": content}
    return {"type": "conversation.item.added", "previous_item_id": previous, "item": item}


def answering(item_id: str = "A", response_id: str = "R", **response: Any) -> list[Event]:
    """The beginning of an answer."""
    return [
        {"type": "response.created", "response": {"id": response_id, "conversation_id": "conv", **response}},
        added(item_id, "U", role="assistant", status="in_progress"),
    ]


def delta(data: bytes, item_id: str = "A", response_id: str = "R") -> Event:
    place = {"item_id": item_id, "response_id": response_id, "content_index": 0}
    return {"type": "response.output_audio.delta", **place, "delta": b64(data)}


def words(text: str, item_id: str = "A", kind: str = "response.output_audio_transcript.delta") -> Event:
    return {"type": kind, "item_id": item_id, "response_id": "R", "content_index": 0, "delta": text}


def spoken(text: str, item_id: str = "A") -> Event:
    kind = "response.output_audio_transcript.done"
    return {"type": kind, "item_id": item_id, "response_id": "R", "content_index": 0, "transcript": text}


def item_done(item_id: str = "A", status: str | None = "completed", **fields: Any) -> Event:
    item = {"id": item_id, "type": "message", "role": "assistant", "status": status, **fields}
    return {"type": "response.output_item.done", "response_id": "R", "item": item}


def response_done(status: str = "completed", *output: Event, response_id: str = "R") -> Event:
    return {"type": "response.done", "response": {"id": response_id, "status": status, "output": list(output)}}


def transcribed(item_id: str, transcript: str) -> Event:
    kind = "conversation.item.input_audio_transcription.completed"
    return {"type": kind, "item_id": item_id, "content_index": 0, "transcript": transcript}


def truncated(item_id: str, end_ms: object) -> Event:
    return {"type": "conversation.item.truncated", "item_id": item_id, "content_index": 0, "audio_end_ms": end_ms}


def fed(cache: ItemCache, *events: Event) -> list[Change]:
    return [change for event in events for change in cache.server_event(event)]


def kinds(changes: Sequence[Change]) -> list[str]:
    return [change.kind.value for change in changes]


def item(cache: ItemCache, item_id: str = "A") -> CachedItem:
    found = cache.get(item_id)
    assert found is not None
    return found


def order(cache: ItemCache) -> list[str]:
    return [it.id for it in cache]


# Order -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ([added("a"), added("b", "a"), added("c", "b")], "abc"),
        ([added("a"), added("b", "a"), added("c", "a")], "acb"),
        ([added("a"), added("b"), added("c")], "abc"),  # a server that never says what was before
        ([added("a"), added("b", "root")], "ba"),
        ([added("a"), added("b", "never seen")], "ab"),
    ],
)
def test_items_stand_where_the_server_put_them(events: list[Event], expected: str) -> None:
    cache = ItemCache()
    fed(cache, *events)
    assert order(cache) == list(expected)


def test_null_before_an_item_means_the_start_for_one_that_we_put_there() -> None:
    cache = ItemCache()
    fed(cache, added("a"))
    cache.client_event(
        {"type": "conversation.item.create", "previous_item_id": "root", "item": {"id": "b", "type": "message"}}
    )
    fed(cache, added("b"))
    assert order(cache) == ["b", "a"]


def test_an_item_known_from_its_first_delta_moves_to_its_place() -> None:
    cache = ItemCache()
    announced = {"type": "response.output_item.added", "response_id": "R", "item": {"id": "A", "type": "message"}}
    changes = fed(cache, added("a"), announced, words("Hi"), added("b", "a"), added("A", "a", role="assistant"))
    assert order(cache) == ["a", "A", "b"]
    assert kinds(changes).count("appended") == 3
    assert "ignored" not in kinds(changes)


def test_an_item_known_from_its_first_delta_may_be_deleted_and_come_again() -> None:
    cache = ItemCache()
    announced = {"type": "response.output_item.added", "response_id": "R", "item": {"id": "A", "type": "message"}}
    fed(cache, announced, words("Hi"), {"type": "conversation.item.deleted", "item_id": "A"}, added("A"))
    assert order(cache) == ["A"]


def test_a_duplicate_is_reported_and_not_added_twice() -> None:
    cache = ItemCache()
    changes = fed(cache, added("a"), added("a"))
    assert kinds(changes) == ["appended", "completed", "ignored"]
    assert "second time" in changes[-1].note
    assert len(cache) == 1


def test_a_deleted_item_is_gone_with_its_audio() -> None:
    cache = ItemCache()
    fed(cache, *answering(), delta(PCM_20))
    kept = item(cache)
    changes = fed(cache, {"type": "conversation.item.deleted", "item_id": "A"})
    assert kinds(changes) == ["deleted"]
    assert changes[0].item is kept
    assert (len(cache), cache.get("A"), kept.audio) == (0, None, b"")


# Items grow and finish -------------------------------------------------------------------------------------------------


def test_a_spoken_answer_from_its_first_event_to_its_last() -> None:
    cache = ItemCache()
    changes = fed(
        cache, *answering(), words("Good "), delta(PCM_20), words("day"), delta(PCM_20), spoken("Good day."),
        item_done(content=[{"type": "output_audio", "transcript": "Good day."}]), response_done(),
    )  # fmt: skip
    assert kinds(changes) == [
        "response_started", "appended", "updated", "updated", "updated", "updated", "transcript", "completed",
        "response_done",
    ]  # fmt: skip
    deltas = [(change.delta.transcript, change.delta.audio) for change in changes if change.delta]
    assert deltas == [("Good ", b""), ("", PCM_20), ("day", b""), ("", PCM_20)]
    answer = item(cache)
    assert (answer.text, answer.transcript, answer.words) == ("", "Good day.", "Good day.")
    assert answer.audio == PCM_20 * 2
    assert answer.received_ms == 40
    assert answer.status is ItemStatus.COMPLETED


def test_a_written_answer_has_no_audio() -> None:
    cache = ItemCache()
    kind = "response.output_text.delta"
    fed(cache, *answering(), words("Good ", kind=kind), words("day", kind=kind), item_done())
    answer = item(cache)
    assert (answer.text, answer.transcript, answer.words) == ("Good day", "", "Good day")
    assert answer.audio_index is None


def test_the_arguments_of_a_call_grow_and_are_whole_at_the_end() -> None:
    cache = ItemCache()
    call = {"id": "F", "type": "function_call", "name": "f", "call_id": "c", "status": "in_progress", "arguments": ""}
    place = {"item_id": "F", "call_id": "c", "response_id": "R"}
    changes = fed(
        cache,
        {"type": "conversation.item.added", "previous_item_id": None, "item": call},
        {"type": "response.function_call_arguments.delta", **place, "delta": '{"a":'},
        {"type": "response.function_call_arguments.done", **place, "arguments": '{"a": 1}'},
        {"type": "response.output_item.done", "response_id": "R", "item": {**call, "status": "completed"}},
    )
    made = item(cache, "F")
    assert (made.type, made.name, made.call_id, made.arguments) == ("function_call", "f", "c", '{"a": 1}')
    assert kinds(changes) == ["appended", "updated", "completed"]


def test_arguments_that_are_an_object_become_text() -> None:
    cache = ItemCache()
    call = {"id": "F", "type": "function_call", "name": "f", "call_id": "c", "arguments": {"a": 1}}
    fed(cache, {"type": "conversation.item.added", "item": call})
    assert item(cache, "F").arguments == '{"a":1}'


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        ([item_done(status="completed")], "completed"),
        ([item_done(status=None)], "completed"),
        ([item_done(status="incomplete")], "interrupted"),  # the reference client never finishes such an item
        ([response_done("completed")], "ignored"),
        ([item_done(), {**item_done(), "type": "conversation.item.done"}, response_done()], "completed"),
        ([response_done("cancelled", {"id": "A", "type": "message"})], "interrupted"),
        ([response_done("completed", {"id": "A", "type": "message"})], "completed"),
    ],
)
def test_an_item_finishes_once_whichever_event_says_so(ends: list[Event], expected: str) -> None:
    cache = ItemCache()
    fed(cache, *answering())
    finished = [kind for kind in kinds(fed(cache, *ends)) if kind in ("completed", "interrupted")]
    assert finished == ([] if expected == "ignored" else [expected])


def test_what_a_cancelled_response_left_open_is_interrupted() -> None:
    cache = ItemCache()
    announced = {"type": "response.output_item.added", "response_id": "R", "item": {"id": "A", "type": "message"}}
    changes = fed(cache, announced, words("Hel"), response_done("cancelled"))
    assert kinds(changes) == ["appended", "updated", "interrupted", "response_done"]
    assert changes[-1].note == "cancelled"


def test_a_user_item_is_complete_when_it_is_added() -> None:
    assert kinds(fed(ItemCache(), added("U"))) == ["appended", "completed"]


def test_the_output_of_a_function_is_kept() -> None:
    cache = ItemCache()
    output = {"id": "O", "type": "function_call_output", "call_id": "c", "output": "42", "status": "completed"}
    assert kinds(fed(cache, {"type": "conversation.item.added", "item": output})) == ["appended", "completed"]
    assert (item(cache, "O").output, item(cache, "O").call_id) == ("42", "c")


def test_an_answer_written_by_the_client_is_complete_when_it_is_added() -> None:
    cache = ItemCache()
    content = [{"type": "output_text", "text": "I said so before."}]
    message = {"id": "H", "type": "message", "role": "assistant", "content": content}
    cache.client_event({"type": "conversation.item.create", "item": message})
    changes = fed(cache, {"type": "conversation.item.created", "item": {**message, "status": "completed"}})
    assert kinds(changes) == ["appended", "completed"]
    assert item(cache, "H").text == "I said so before."


def test_a_response_apart_shows_its_items_and_leaves_no_trace() -> None:
    cache = ItemCache()
    announced = {"type": "response.output_item.added", "response_id": "R", "item": {"id": "A", "type": "message"}}
    changes = fed(
        cache,
        {"type": "response.created", "response": {"id": "R", "conversation_id": None}},
        announced,
        words("note", kind="response.output_text.delta"),
    )
    assert kinds(changes) == ["response_started", "appended", "updated"]
    assert item(cache).apart
    assert order(cache) == []
    assert kinds(fed(cache, item_done(), response_done())) == ["completed", "response_done"]
    assert cache.get("A") is None


# Transcripts of the caller ---------------------------------------------------------------------------------------------


def test_reference_client_early_transcript_waits_for_its_item() -> None:
    cache = ItemCache()
    assert kinds(fed(cache, transcribed("U", "Hello"))) == ["ignored"]
    changes = fed(cache, added("U"))
    assert kinds(changes) == ["appended", "transcript", "completed"]
    assert item(cache, "U").transcript == "Hello"


def test_reference_client_empty_transcript_is_empty() -> None:
    cache = ItemCache()
    changes = fed(cache, added("U"), transcribed("U", ""))
    assert kinds(changes)[-1] == "transcript"
    assert item(cache, "U").transcript == ""
    assert item(cache, "U").parts[0].text == ""  # known to be empty; None: not known


def test_transcripts_in_the_order_opposite_to_the_turns() -> None:
    cache = ItemCache()
    fed(cache, added("U1"), added("U2", "U1"), transcribed("U2", "two"), transcribed("U1", "one"))
    assert [it.transcript for it in cache] == ["one", "two"]


def test_a_transcript_that_grows_and_one_that_is_replaced() -> None:
    cache = ItemCache()
    kind = "conversation.item.input_audio_transcription."
    place = {"item_id": "U", "content_index": 0}
    changes = fed(
        cache,
        added("U"),
        {"type": f"{kind}delta", **place, "delta": "I scream"},
        {"type": f"{kind}delta", **place, "delta": " now"},
        {"type": f"{kind}updated", **place, "transcript": "Ice cream now"},
        transcribed("U", "Ice cream now!"),
    )
    assert [change.delta.transcript for change in changes if change.delta] == ["I scream", " now"]
    assert item(cache, "U").transcript == "Ice cream now!"


def test_a_transcript_that_failed_is_told_with_its_reason() -> None:
    cache = ItemCache()
    failed = {
        "type": "conversation.item.input_audio_transcription.failed",
        "item_id": "U",
        "error": {"message": "unintelligible"},
    }
    changes = fed(cache, added("U"), failed)
    assert (changes[-1].kind, changes[-1].note) == (ChangeKind.TRANSCRIPT_FAILED, "unintelligible")


def test_a_transcript_is_not_wiped_by_an_item_shown_without_one() -> None:
    cache = ItemCache()
    done = {**added("U"), "type": "conversation.item.done"}
    fed(cache, added("U"), transcribed("U", "Hello"), done)
    assert item(cache, "U").transcript == "Hello"


def test_transcripts_of_items_that_never_come_do_not_pile_up() -> None:
    cache = ItemCache()
    for number in range(1000):
        fed(cache, transcribed(f"U{number}", "x"))
    for _ in range(1000):
        fed(cache, {**transcribed("U999", "y"), "type": "conversation.item.input_audio_transcription.updated"})
    assert len(cache._early) <= 64
    assert len(cache._early["U999"]) <= 64


# Truncation and interruption -------------------------------------------------------------------------------------------


def an_answer_of(ms: int, text: str) -> ItemCache:
    cache = ItemCache()
    fed(cache, *answering(), delta(bytes(ms * MS)), words(text))
    return cache


def test_truncation_cuts_audio_and_words_together() -> None:
    cache = an_answer_of(1000, "one two three four")
    changes = fed(cache, truncated("A", 500))
    assert kinds(changes) == ["truncated"]
    answer = item(cache)
    assert len(answer.audio) == 500 * MS
    assert answer.transcript == "one two"
    assert answer.truncated_ms == 500
    assert answer.received_ms == 500


def test_reference_client_nothing_grows_back_after_a_truncation() -> None:
    cache = an_answer_of(1000, "one two three four")
    content = [{"type": "output_audio", "transcript": "one two three four"}]
    changes = fed(
        cache, truncated("A", 500), delta(PCM_20), words(" five"), spoken("one two three four"),
        item_done(status="incomplete", content=content), response_done("cancelled", {"id": "A", "content": content}),
    )  # fmt: skip
    assert kinds(changes) == ["truncated", "ignored", "ignored", "ignored", "interrupted", "response_done"]
    assert item(cache).transcript == "one two"
    assert len(item(cache).audio) == 500 * MS


@pytest.mark.parametrize(
    ("end_ms", "expected", "words_left"), [(0, 0, ""), (5000, 1000, "one two"), (999, 999, "one")]
)
def test_where_a_truncation_cuts(end_ms: int, expected: int, words_left: str) -> None:
    cache = an_answer_of(1000, "one two")
    fed(cache, truncated("A", end_ms))
    assert (item(cache).truncated_ms, item(cache).transcript) == (expected, words_left)
    assert len(item(cache).audio) == expected * MS


def test_truncation_of_g711_counts_eight_bytes_a_millisecond() -> None:
    cache = ItemCache()
    pcmu = {"format": {"type": "audio/pcmu"}}
    fed(cache, {"type": "session.updated", "session": {"audio": {"input": pcmu, "output": pcmu}}})
    fed(cache, *answering(), delta(bytes(8000)), truncated("A", 250))
    assert len(item(cache).audio) == 2000


def test_an_answer_keeps_the_format_that_it_began_with() -> None:
    cache = ItemCache()
    pcmu = {"output": {"format": {"type": "audio/pcmu"}}}
    fed(cache, *answering("A", audio=pcmu), delta(bytes(800)))
    fed(cache, {"type": "session.updated", "session": {"audio": {"input": {}, "output": {}}}}, delta(bytes(800)))
    fed(cache, *answering("B", "R2"), delta(bytes(4800), "B", "R2"))
    assert [(it.received_ms, it.samples_per_ms) for it in cache] == [(200, 8), (100, 24)]


def detecting(**detection: Any) -> Event:
    return {"type": "session.updated", "session": {"audio": {"input": {"turn_detection": detection or None}}}}


STARTED = {"type": "input_audio_buffer.speech_started", "item_id": "U2", "audio_start_ms": 0}


@pytest.mark.parametrize(
    ("before", "dropped"),
    [
        ([STARTED], True),
        ([detecting(type="server_vad", interrupt_response=False), STARTED], False),
        ([detecting(), STARTED], False),
        ([response_done("cancelled")], True),
        ([response_done("completed")], False),  # seen: deltas slightly after the end
    ],
)
def test_audio_in_flight_after_an_interruption_is_dropped(before: list[Event], dropped: bool) -> None:
    cache = an_answer_of(100, "x")
    fed(cache, *before)
    assert kinds(fed(cache, delta(PCM_20))) == (["ignored"] if dropped else ["updated"])
    assert item(cache).received_ms == (100 if dropped else 120)


def test_audio_after_our_own_cancel_is_dropped_and_that_of_the_next_response_is_not() -> None:
    cache = an_answer_of(100, "x")
    cache.client_event({"type": "response.cancel"})
    assert kinds(fed(cache, delta(PCM_20))) == ["ignored"]
    fed(cache, response_done("cancelled"), *answering("B", "R2"))
    assert kinds(fed(cache, delta(PCM_20, "B", "R2"))) == ["updated"]


def test_speech_is_a_notice_of_its_own_and_no_interruption_when_nothing_plays() -> None:
    stopped = {"type": "input_audio_buffer.speech_stopped", "item_id": "U2", "audio_end_ms": 900}
    assert kinds(fed(ItemCache(), STARTED, stopped)) == ["speech_started", "speech_stopped"]


# What makes no sense ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "event",
    [
        delta(PCM_20),
        words("x"),
        spoken("x"),
        item_done(),
        truncated("A", 10),
        {"type": "conversation.item.deleted", "item_id": "A"},
        {"type": "response.content_part.added", "item_id": "A", "part": {"type": "audio"}},
        {"type": "response.function_call_arguments.delta", "item_id": "A", "delta": "{"},
    ],
    ids=lambda event: event["type"],
)
def test_reference_client_unknown_item_is_reported_and_kills_nothing(event: Event) -> None:
    cache = ItemCache()
    (change,) = fed(cache, event)
    assert change.kind is ChangeKind.IGNORED
    assert change.item_id == "A"
    assert "unknown item" in change.note
    assert len(cache) == 0


@pytest.mark.parametrize("value", [None, 7, "x", "\u00e9", [], {}, [None], {"id": 7}, [{"type": 7}]])
def test_no_event_whatever_it_holds_raises(value: object) -> None:
    cache = an_answer_of(100, "x")
    fed(cache, added("U"))
    fields = (
        "item", "item_id", "response", "response_id", "session", "content_index", "delta", "transcript", "part",
        "audio_end_ms", "audio_start_ms", "previous_item_id", "error", "audio",
    )  # fmt: skip
    good = {"item_id": "A", "response_id": "R"}
    for kind in [*cache._on, "x.unknown"]:
        for name in fields:
            cache.server_event({"type": kind, **good, name: value})
        cache.server_event({"type": kind, "item": {"id": "A", "content": value}})
        cache.server_event({"type": kind, "session": {"audio": value}, "response": {"output": value}})
    for kind in ("input_audio_buffer.append", "conversation.item.create", "response.cancel"):
        cache.client_event({"type": kind, "item": value, "audio": value, "response_id": value})
    assert kinds(fed(cache, *answering("Z", "RZ"), delta(PCM_20, "Z", "RZ")))[-2:] == ["appended", "updated"]


def test_unknown_events_change_nothing() -> None:
    assert fed(ItemCache(), {"type": "weather.updated"}, {}) == []


# Audio -----------------------------------------------------------------------------------------------------------------


def test_reference_client_audio_is_bounded_and_the_oldest_goes_first() -> None:
    cache = ItemCache(answer_audio_bytes=3 * len(PCM_20))
    for number in range(4):
        fed(cache, *answering(f"A{number}"), delta(PCM_20, f"A{number}"))
    assert [len(it.audio) for it in cache] == [0, *[len(PCM_20)] * 3]
    assert [it.received_ms for it in cache] == [20] * 4


def test_one_long_item_keeps_its_beginning() -> None:
    store = AudioStore(10)
    store.extend("a", b"12345678")
    store.extend("a", b"90abc")
    assert store.get("a") == b"1234567890"
    store.cut("a", 4)
    store.extend("b", b"xxxxxxxx")
    assert (store.get("a"), store.get("b")) == (b"", b"xxxxxxxx")
    assert store.size_bytes == 8


def append(cache: ItemCache, ms: int, value: int) -> None:
    cache.client_event({"type": "input_audio_buffer.append", "audio": b64(bytes([value]) * ms * MS)})


def turn(item_id: str, start_ms: int | None, end_ms: int) -> list[Event]:
    started = {"type": "input_audio_buffer.speech_started", "item_id": item_id, "audio_start_ms": start_ms}
    stopped = {"type": "input_audio_buffer.speech_stopped", "item_id": item_id, "audio_end_ms": end_ms}
    committed = {"type": "input_audio_buffer.committed", "item_id": item_id}
    return [*([started] if start_ms is not None else []), stopped, committed, added(item_id)]


def test_callers_audio_is_not_kept_unless_asked_for() -> None:
    cache = ItemCache()
    append(cache, 500, 1)
    fed(cache, *turn("U", 100, 300))
    assert item(cache, "U").audio == b""
    assert not cache._caller._buffer


def test_a_caller_turn_is_cut_out_of_what_was_appended() -> None:
    cache = ItemCache(caller_audio_bytes=2**20)
    for value in range(5):
        append(cache, 100, value)
    fed(cache, *turn("U", 100, 300))
    assert item(cache, "U").audio == bytes([1]) * 100 * MS + bytes([2]) * 100 * MS


def test_a_turn_by_hand_is_all_since_the_last_commit_or_clear() -> None:
    cache = ItemCache(caller_audio_bytes=2**20)
    append(cache, 100, 1)
    fed(cache, {"type": "input_audio_buffer.cleared"})
    append(cache, 100, 2)
    fed(cache, {"type": "input_audio_buffer.committed", "item_id": "U1"}, added("U1"))
    append(cache, 100, 3)
    fed(cache, {"type": "input_audio_buffer.committed", "item_id": "U2"}, added("U2"))
    assert [set(it.audio) for it in cache] == [{2}, {3}]


def test_reference_client_old_audio_does_not_get_into_the_turn_that_the_vad_cut() -> None:
    cache = ItemCache(caller_audio_bytes=2**20)
    append(cache, 100, 1)
    fed(cache, {"type": "input_audio_buffer.committed", "item_id": "U1"}, added("U1"))
    append(cache, 100, 2)
    append(cache, 100, 3)
    fed(cache, *turn("U2", 200, 300))
    assert set(item(cache, "U2").audio) == {3}


def test_reference_client_a_stop_without_a_start_takes_no_empty_slice() -> None:
    cache = ItemCache(caller_audio_bytes=2**20)
    append(cache, 100, 1)
    fed(cache, *turn("U", None, 60))
    assert len(item(cache, "U").audio) == 100 * MS


def test_reference_client_an_hour_of_silence_takes_no_memory() -> None:
    cache = ItemCache(caller_audio_bytes=10 * len(PCM_20))
    for _ in range(1000):
        cache.client_event({"type": "input_audio_buffer.append", "audio": b64(PCM_20)})
    assert len(cache._caller._buffer) <= 10 * len(PCM_20)
    fed(cache, *turn("U", 19_900, 20_000))
    assert len(item(cache, "U").audio) == 100 * MS


def test_audio_that_we_put_into_a_message_is_its_audio() -> None:
    cache = ItemCache(caller_audio_bytes=2**20)
    part = {"type": "input_audio", "audio": b64(PCM_20)}
    cache.client_event({"type": "conversation.item.create", "item": {"id": "U", "content": [part]}})
    fed(cache, added("U"))
    assert item(cache, "U").audio == PCM_20
