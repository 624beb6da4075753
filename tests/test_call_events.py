"""The events of a call: their names and fields, what the dialogue makes them of, and whole calls as applications hear them.

In every other whole call `event_rules` holds: starts and stops take turns, words are final once, the end is the last.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
import trio.lowlevel
from house import FAST, House, house
from talking import say
from test_conversation import AGENT, Rig, call
from trio.testing import MockClock

from bridge.agent import TurnDetection
from bridge.call_events import (
    EVENTS,
    REPLACED,
    CallEvent,
    Happening,
    UsageUpdated,
    check_words,
    data_of,
    envelope,
    type_of,
)
from bridge.call_record import CallRecord, Said
from bridge.collect import Collect
from bridge.dialogue import Command
from bridge.ending import EndReason
from bridge.history import LEFT_OUT
from bridge.live_call import LiveCall
from bridge.prices import load_prices
from bridge.session import HIDDEN
from bridge.tools import ToolRegistry
from bridge.transcript import MAX_CHARACTERS, MAX_ENTRIES, MAX_TEXT_CHARACTERS, Transcript
from bridge.usage import Usage
from simulators.model_script import Call, Say, Script

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs/events.md").read_text(encoding="utf-8")

# Names and fields ---------------------------------------------------------------------------------------------

CONTRACT = {
    "call.started": "agent caller called direction",
    "call.answered": "",
    "call.ended": "reason completion_reason error duration_s",
    "state.changed": "state",
    "speech.started": "item_id audio_ms",
    "speech.stopped": "item_id audio_ms",
    "transcript.partial": "role item_id delta text",
    "transcript.final": "role item_id text interrupted heard_ms",
    "playback.started": "item_id",
    "playback.stopped": "item_id reason heard_ms",
    "tool.called": "tool_call_id name arguments",
    "tool.answered": "tool_call_id name output lasted_ms failed",
    "digit.pressed": "digit",
    "digits.collected": "name count",
}


def test_the_names_and_fields_are_the_contract() -> None:
    fields = {kind: " ".join(event.__struct_fields__) for kind, event in EVENTS.items()}
    usage = fields.pop("usage.updated").split()
    assert fields == CONTRACT
    assert {"responses", "audio_out_tokens", "cost_usd"} <= set(usage)


def test_the_page_has_them_all_with_an_example_of_each() -> None:
    rows = dict(re.findall(r"^\| ((?:`[a-z.]+`(?:, )?)+) \| (.*?) \|", PAGE, re.MULTILINE))
    named = {kind: cell for kinds, cell in rows.items() for kind in re.findall(r"`([a-z.]+)`", kinds)}
    assert set(named) == set(EVENTS)
    for kind, fields in CONTRACT.items():
        assert re.findall(r"`(\w+)`", re.sub(r"\(.*?\)", "", named[kind])) == fields.split(), kind
    (lines,) = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
    examples = [json.loads(line) for line in lines.splitlines()]
    assert {example["type"] for example in examples} == set(EVENTS)
    for example in examples:
        assert list(example) == ["call_id", "at", "source", "type", "data"]
        whole = {"type": example["type"], **example["data"]}
        event = msgspec.convert(whole, EVENTS[example["type"]], strict=True)
        assert data_of(event) | example["data"] == data_of(event)


def test_the_envelope_is_plain_json_and_shows_no_secret() -> None:
    crm = {"type": "mcp", "server_label": "crm", "authorization": "s3cret", "headers": {"X-Key": "s3cret"}}
    crm["server_url"] = "https://crm.test/mcp?key=s3cret"
    session = {"type": "session.update", "session": {"tools": [crm, {"type": "function", "name": "headers"}]}}
    told = envelope("C1", CallEvent("client", 1.0, "session.update", session, 1_800_000_000.12345))
    assert "s3cret" not in json.dumps(told)
    assert told["data"]["session"]["tools"][0] == {
        "type": "mcp", "server_label": "crm", "authorization": HIDDEN, "headers": HIDDEN,
        "server_url": "https://crm.test/mcp?***",
    }  # fmt: skip
    assert session["session"]["tools"][0]["authorization"] == "s3cret"  # type: ignore[index]
    assert (told["call_id"], told["at"], told["source"]) == ("C1", 1_800_000_000.123, "client")
    strange = envelope("C1", CallEvent("call", 1.0, "x", {"reason": EndReason.MODEL_LOST, "at": Path("a/b")}))
    assert strange["data"] == {"reason": "model_lost", "at": "a/b"}


@pytest.mark.parametrize("word", REPLACED)
def test_a_word_of_the_log_is_refused_with_its_new_name(word: str) -> None:
    with pytest.raises(ValueError, match=REPLACED[word]):
        check_words(["all", f"-{word}"])
    check_words(["all", "transcript.*", "session_lost"])


# What the dialogue makes them of ------------------------------------------------------------------------------


def told(commands: Iterable[Command], *heads: str) -> list[tuple[str, dict[str, Any]]]:
    """The events among these commands, of these kinds."""
    return [
        (type_of(it), data_of(it))
        for it in commands
        if isinstance(it, Happening | UsageUpdated) and type_of(it).startswith(heads or "")
    ]


def words(rig: Rig, delta: str, item_id: str = "A1", response_id: str = "R1") -> list[Command]:
    return rig.server("response.output_audio_transcript.delta", response_id=response_id, item_id=item_id, delta=delta)


def said(rig: Rig, text: str, item_id: str = "U1") -> list[Command]:
    return rig.server("conversation.item.input_audio_transcription.completed", item_id=item_id, transcript=text)


def understood(rig: Rig, delta: str, item_id: str = "U1") -> list[Command]:
    return rig.server("conversation.item.input_audio_transcription.delta", item_id=item_id, delta=delta)


def final(role: str, item_id: str, text: str, **more: Any) -> tuple[str, dict[str, Any]]:
    facts = {"role": role, "item_id": item_id, "text": text, "interrupted": False, "heard_ms": None}
    return "transcript.final", facts | more


def partial(role: str, item_id: str, delta: str, text: str) -> tuple[str, dict[str, Any]]:
    return "transcript.partial", {"role": role, "item_id": item_id, "delta": delta, "text": text}


def test_one_answer_in_order() -> None:
    rig = Rig().greeted()
    commands = rig.created() + words(rig, "Early ") + rig.delta(400) + words(rig, "bird.") + rig.words("Early bird.")
    commands += rig.done() + rig.play(440)
    assert told(commands, "state", "transcript", "playback") == [
        ("state.changed", {"state": "responding"}),
        partial("agent", "A1", "Early ", "Early "),
        partial("agent", "A1", "bird.", "Early bird."),
        ("state.changed", {"state": "listening"}),
        ("playback.started", {"item_id": "A1"}),
        ("playback.stopped", {"item_id": "A1", "reason": "completed", "heard_ms": 400}),
        final("agent", "A1", "Early bird.", heard_ms=400),
    ]


def test_an_interruption_leaves_what_was_heard() -> None:
    rig = Rig().greeted()
    rig.created()
    rig.delta(1000)
    words(rig, "One two three four five six seven eight nine ten")
    rig.play(520)
    commands = (
        rig.speech_started() + words(rig, " eleven") + rig.words("One two three four five six seven eight nine ten")
    )
    assert told(commands, "speech", "transcript", "playback") == [
        ("speech.started", {"item_id": "U1", "audio_ms": 0}),
        ("playback.stopped", {"item_id": "A1", "reason": "interrupted", "heard_ms": 520}),
        final("agent", "A1", "One two three four five", interrupted=True, heard_ms=520),
    ]


def test_what_was_never_heard_is_told_as_nothing() -> None:
    rig = Rig().greeted()
    rig.created()
    words(rig, "Sure.")
    rig.delta(500)
    rig.words("Sure.")
    commands = rig.speech_started()
    assert told(commands, "playback", "transcript") == [final("agent", "A1", "", interrupted=True, heard_ms=0)]


def test_late_words_are_final_once() -> None:
    rig = Rig().greeted()
    rig.created()
    rig.delta(100)
    commands = rig.done() + rig.play(140)
    assert told(commands, "transcript") == []
    commands = rig.words("Late.") + rig.words("Late.") + rig.it.over(rig.now)
    assert told(commands, "transcript") == [final("agent", "A1", "Late.", heard_ms=100)]


def test_two_messages_without_a_gap_are_one_playback() -> None:
    rig = Rig().greeted()
    rig.created()
    rig.delta(200)
    rig.words("One.")
    rig.delta(300, item_id="A2")
    rig.words("Two.", "A2")
    commands = rig.done() + rig.play(560)
    assert told(commands, "playback", "transcript") == [
        ("playback.started", {"item_id": "A1"}),
        ("playback.stopped", {"item_id": "A2", "reason": "completed", "heard_ms": 500}),
        final("agent", "A1", "One.", heard_ms=200),
        final("agent", "A2", "Two.", heard_ms=300),
    ]


def test_a_gap_of_the_deltas_is_no_stop() -> None:
    rig = Rig().greeted()
    rig.created()
    commands = rig.delta(200) + rig.play(400) + rig.delta(200) + rig.done() + rig.play(300)
    assert [kind for kind, _ in told(commands, "playback")] == ["playback.started", "playback.stopped"]
    assert told(commands, "playback.stopped")[0][1]["heard_ms"] == 400


def test_the_end_of_the_call_tells_what_was_heard_until_then() -> None:
    rig = Rig().greeted()
    rig.created()
    rig.delta(1000)
    words(rig, "Goodbye and thank you")
    rig.play(500)
    rig.server("input_audio_buffer.speech_started", item_id="U9", audio_start_ms=7)  # cuts it
    understood(rig, "see ", "U9")
    assert told(rig.it.over(rig.now)) == [
        final("caller", "U9", "see ", interrupted=True),
        ("speech.stopped", {"item_id": "U9", "audio_ms": None}),
        final("agent", "A1", "Goodbye", interrupted=True, heard_ms=500),
    ]
    assert told(rig.it.over(rig.now)) == []
    rig = Rig().greeted()
    rig.created()
    rig.delta(1000)
    rig.words("Goodbye and thank you")
    rig.play(500)
    assert told(rig.it.over(rig.now)) == [
        ("playback.stopped", {"item_id": "A1", "reason": "interrupted", "heard_ms": 500}),
        final("agent", "A1", "Goodbye", interrupted=True, heard_ms=500),
    ]


def test_the_callers_words_grow_and_are_final_once() -> None:
    rig = Rig().greeted()
    commands = rig.speech_started() + understood(rig, "I ") + understood(rig, "want") + rig.speech_stopped()
    commands += said(rig, "I want.") + said(rig, "I want.")
    assert told(commands, "speech", "transcript") == [
        ("speech.started", {"item_id": "U1", "audio_ms": 0}),
        partial("caller", "U1", "I ", "I "),
        partial("caller", "U1", "want", "I want"),
        ("speech.stopped", {"item_id": "U1", "audio_ms": 0}),
        final("caller", "U1", "I want."),
    ]


def test_a_transcript_may_come_early_and_may_be_empty() -> None:
    rig = Rig().greeted()
    assert told(said(rig, "", "U7"), "transcript") == [final("caller", "U7", "")]
    assert told(rig.server("input_audio_buffer.committed", item_id="U7"), "transcript", "speech") == []


@pytest.mark.parametrize(("before", "text"), [("", ""), ("I wa", "I wa")])
def test_a_transcription_that_fails_is_final_too(before: str, text: str) -> None:
    rig = Rig().greeted()
    commands = rig.speech_started() + (understood(rig, before) if before else []) + rig.speech_stopped()
    error = {"type": "transcription_error", "code": "audio_unintelligible", "message": "..."}
    for _ in range(2):
        commands += rig.server("conversation.item.input_audio_transcription.failed", item_id="U1", error=error)
    assert told(commands, "transcript.final") == [final("caller", "U1", text)]


def test_a_noise_is_speech_without_words() -> None:
    rig = Rig(msgspec.structs.replace(AGENT, barge_in="confirm")).greeted()
    rig.created()
    rig.delta(2000)
    rig.play(100)
    commands = rig.speech_started() + rig.play(100) + rig.speech_stopped()
    commands += rig.server("input_audio_buffer.committed", item_id="U1") + understood(rig, "Hm") + said(rig, "Hm")
    assert told(commands, "speech", "transcript", "playback") == [
        ("speech.started", {"item_id": "U1", "audio_ms": 0}),
        ("speech.stopped", {"item_id": "U1", "audio_ms": 0}),
    ]


@pytest.mark.parametrize("talk_key", ["1", ""])
def test_with_manual_turns_the_keys_say_when_the_caller_speaks(talk_key: str) -> None:
    detection = TurnDetection(type="manual", talk_key=talk_key, send_key="2")
    rig = Rig(msgspec.structs.replace(AGENT, turn_detection=detection)).greeted()
    commands = [it for key in "1122" for it in rig.it.caller_digit(key, rig.now)]
    commands += rig.server("input_audio_buffer.committed", item_id="U1") + said(rig, "Hello.")
    kinds = [kind for kind, _ in told(commands, "speech", "transcript")]
    assert kinds == (["speech.started", "speech.stopped"] if talk_key else []) + ["transcript.final"]


def test_a_lost_session_ends_speech_and_repeats_no_words() -> None:
    rig = Rig().greeted()
    rig.words("Hello.", "A0")
    rig.speech_started()
    understood(rig, "I wa")
    commands = rig.it.session_lost(EndReason.MODEL_LOST, "gone", None, rig.now)
    assert told(commands) == [("speech.stopped", {"item_id": "U1", "audio_ms": None})]
    commands = rig.it.connected(rig.now, None)
    item = {
        "id": "A0",
        "type": "message",
        "role": "assistant",
        "content": [{"type": "output_text", "text": "Hello."}],
    }
    for kind in ("added", "done"):
        commands += rig.server(f"conversation.item.{kind}", previous_item_id=None, item=item)
    commands += said(rig, "I want that.", "U2") + rig.it.over(rig.now)
    assert told(commands, "transcript", "playback") == [final("caller", "U2", "I want that.")]


def test_what_is_only_written_was_not_said() -> None:
    rig = Rig().greeted()
    content = [{"type": "output_text", "text": "By the way."}]
    wrote = {"type": "conversation.item.create", "item": {"type": "message", "role": "assistant", "content": content}}
    commands = rig.it.application_event(wrote, rig.now)
    commands += rig.it.session_lost(EndReason.MODEL_LOST, "gone", None, rig.now) + rig.it.connected(rig.now, None)
    commands += rig.created()
    commands += rig.server("response.output_text.delta", response_id="R1", item_id="A1", delta="Only text.")
    commands += rig.server("response.output_text.done", response_id="R1", item_id="A1", text="Only text.")
    commands += rig.done() + rig.play(100) + rig.it.over(rig.now)
    assert told(commands, "transcript", "playback") == []


def test_a_response_beside_the_dialogue_is_nobodys_words() -> None:
    rig = Rig().greeted()
    apart = {"id": "RX", "status": "in_progress", "output": [], "metadata": {"bridge_apart": "1"}}
    commands = rig.server("response.created", response=apart) + words(rig, "A summary", "AX", "RX")
    assert told(commands) == []


def test_a_call_of_a_tool_and_its_output() -> None:
    rig = Rig().greeted()
    rig.created()
    tools = [call("look_up", '{"n": 1'), call("transfer_call", '{"destination": "nowhere"}', "C2")]
    commands = rig.done(output=tools)
    rig.now += 1.5
    commands += rig.it.tool_finished("C1", "Error: look_up failed: KeyError", rig.now)
    commands += rig.it.tool_finished("C1", "again", rig.now)
    assert [kind for kind, _ in told(commands, "tool")] == [
        "tool.called", "tool.called", "tool.answered", "tool.answered"
    ]  # fmt: skip
    called, _, misused, failed = [facts for _, facts in told(commands, "tool")]
    assert called == {"tool_call_id": "C1", "name": "look_up", "arguments": '{"n": 1'}
    assert (misused["tool_call_id"], misused["failed"], misused["lasted_ms"]) == ("C2", True, 0)
    assert failed == {
        "tool_call_id": "C1", "name": "look_up", "output": "Error: look_up failed: KeyError",
        "lasted_ms": 1500, "failed": True,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("entries", "keys", "told_at_once", "told_later"),
    [
        ({}, "12", "12", ""),
        ({"zip": Collect()}, "12", "12", ""),
        ({"pin": Collect(secure=True)}, "12", "", "12"),  # they might have been the beginning of it
        ({"pin": Collect(secure=True)}, "*", "*", ""),  # of the key map
    ],
)
def test_a_key_is_told_when_it_is_clear_that_it_is_no_secret(
    entries: dict[str, Collect], keys: str, told_at_once: str, told_later: str
) -> None:
    rig = Rig(msgspec.structs.replace(AGENT, collect=entries, keys={"*": "ignore"})).greeted()
    at_once = [it for key in keys for it in rig.it.caller_digit(key, rig.now)]
    later = rig.it.tick(rig.now + 2)
    assert "".join(facts["digit"] for _, facts in told(at_once, "digit")) == told_at_once
    assert "".join(facts["digit"] for _, facts in told(later, "digit")) == told_later


def collecting(rig: Rig, entry: str, before: str, during: str) -> list[tuple[str, dict[str, Any]]]:
    commands = [it for key in before for it in rig.it.caller_digit(key, rig.now)]
    rig.created()
    commands += rig.done(output=[call("collect_digits", json.dumps({"name": entry}))])
    commands += [it for key in during for it in rig.it.caller_digit(key, rig.now)]
    return told(commands, "digit", "tool")


@pytest.mark.parametrize("secure", [False, True])
def test_the_digits_of_a_secure_entry_are_in_no_event(secure: bool) -> None:
    rig = Rig(msgspec.structs.replace(AGENT, collect={"pin": Collect(secure=secure, max_digits=4)})).greeted()
    events = collecting(rig, "pin", "9", "074#")
    pressed = "".join(facts["digit"] for kind, facts in events if kind == "digit.pressed")
    assert pressed == ("" if secure else "9074#")
    assert [facts for kind, facts in events if kind == "digits.collected"] == [{"name": "pin", "count": 4}]
    (answered,) = [facts for kind, facts in events if kind == "tool.answered"]
    assert ("9074" in answered["output"]) is not secure


def test_usage_is_told_after_each_response_and_transcript() -> None:
    rig = Rig(usage=Usage(load_prices()), model="gpt-realtime").greeted()
    rig.created()
    usage = {"total_tokens": 30, "input_tokens": 10, "output_tokens": 20,
             "input_token_details": {"text_tokens": 10}, "output_token_details": {"audio_tokens": 20}}  # fmt: skip
    commands = rig.done(usage=usage)
    commands += rig.server(
        "conversation.item.input_audio_transcription.completed",
        item_id="U1", transcript="Yes.", usage={"type": "duration", "seconds": 2.0},
    )  # fmt: skip
    first, second = (facts for _, facts in told(commands, "usage"))
    assert (first["responses"], first["audio_out_tokens"], first["transcriptions"]) == (2, 20, 0)
    assert first["cost_usd"] > 0
    assert second["transcriptions"] == 1


# For the record -----------------------------------------------------------------------------------------------


def collected(*events: tuple[float, str, dict[str, Any]]) -> CallRecord:
    record = CallRecord("C1")
    transcript = Transcript(record, 100.0)
    for at_s, kind, facts in events:
        transcript.heard(CallEvent("call", 100 + at_s, kind, facts))
    return record


def test_the_transcript_is_in_the_order_of_the_talk() -> None:
    record = collected(
        (1.0, "playback.started", {"item_id": "A1"}),
        (4.0, "speech.started", {"item_id": "U1"}),
        (4.0, *final("agent", "A1", "Hello.", heard_ms=1000)),
        (4.0, *final("agent", "A2", "How are you?", heard_ms=2000, interrupted=True)),
        (6.0, "playback.started", {"item_id": "A3"}),
        (7.0, "speech.started", {"item_id": "U2"}),
        (7.5, *final("agent", "A3", "Good.", heard_ms=500)),
        (8.0, *final("caller", "U2", " ")),
        (9.0, *final("caller", "U1", "Fine!")),
    )
    assert record.transcript == [
        Said(1.0, "agent", "Hello."),
        Said(2.0, "agent", "How are you?", interrupted=True),
        Said(4.0, "caller", "Fine!"),
        Said(6.0, "agent", "Good."),
    ]


def test_what_a_record_holds_is_bounded_and_the_rest_counted() -> None:
    long = "x" * MAX_TEXT_CHARACTERS
    room = MAX_CHARACTERS // len(long)
    record = collected(*((0.0, *final("caller", f"U{n}", long)) for n in range(room + 2)))
    assert (len(record.transcript), record.left_out) == (room, 2)
    record = collected(*((0.0, *final("caller", f"U{n}", "x")) for n in range(MAX_ENTRIES + 3)))
    assert (len(record.transcript), record.left_out) == (MAX_ENTRIES, 3)
    record = collected((0.0, *final("caller", "U1", long + "more")))
    assert record.transcript[0].text == long + LEFT_OUT


# Whole calls --------------------------------------------------------------------------------------------------


async def hung_up(it: House, channel: Any) -> CallRecord:
    channel.hang_up()
    await it.ended()
    await trio.lowlevel.checkpoint()
    return it.events.record


async def test_a_plain_turn_in_order(autojump_clock: MockClock) -> None:
    script = Script.of(Say("Hello!", ms=300), Say("It is ten.", ms=400), transcripts=["What time is it?"])
    async with house(script) as it:
        channel, caller = await it.stasis_call(caller=("1000", "Ada"))
        await it.hears_of("agent_said")
        await say(it, caller, 800)
        await it.hears_of("agent_said", 2)
        record = await hung_up(it, channel)
        ended = it.events.told("call.ended")[0]
        answered = it.events.told("call.answered")[0]
    kinds = [
        f"{kind.partition('.')[2]} {event.event['role']}" if (kind := event.type).startswith("transcript") else kind
        for event in it.events.told("call.", "state.", "speech.", "transcript.", "playback.")
    ]
    once = [kind for n, kind in enumerate(kinds) if n == 0 or kind != kinds[n - 1]]
    assert once[:6] == [
        "call.started", "state.changed", "call.answered", "state.changed", "partial agent", "playback.started"
    ]  # fmt: skip
    turn = once[once.index("speech.started") :]
    assert turn[-1] == "call.ended"
    for before, after in [
        ("speech.started", "speech.stopped"),
        ("speech.stopped", "final caller"),
        ("speech.stopped", "playback.started"),
        ("playback.started", "playback.stopped"),
        ("playback.stopped", "final agent"),
    ]:
        assert turn.index(before) < turn.index(after), turn
    assert [event.event["state"] for event in it.events.told("state.")] == [
        "connecting", "listening", "responding", "listening", "responding", "listening"
    ]  # fmt: skip
    assert it.events.told("call.started")[0].event == {
        "agent": "default", "caller": "1000 Ada", "called": record.called, "direction": "inbound"
    }  # fmt: skip
    assert [(entry.role, entry.text) for entry in record.transcript] == [
        ("agent", "Hello!"), ("caller", "What time is it?"), ("agent", "It is ten.")
    ]  # fmt: skip
    assert record.transcript[0].at_s == pytest.approx(record.greeted_after_s, abs=0.03)
    assert ended.event["duration_s"] == record.duration_s
    assert ended.event["reason"] == "caller_hung_up"
    assert answered.at_unix_s - record.began_unix_s == pytest.approx(record.answered_after_s, abs=0.01)


async def test_a_barge_in_a_tool_and_a_lost_session(autojump_clock: MockClock) -> None:
    def weather(city: str) -> str:
        """The weather."""
        return f"Sun in {city}."

    story = Say("One two three four five six seven eight nine ten", ms=10_000, pace=FAST)
    script = Script.of(
        story, Call("weather", {"city": "Oslo"}), Say("Sun.", ms=400), Say("Again.", ms=400), transcripts=["Stop!"]
    )
    async with house(script, tools=ToolRegistry([weather])) as it:
        channel, caller = await it.stasis_call()
        await it.hears_of("agent_starts")
        await trio.sleep(4)
        await say(it, caller, 800)
        await it.hears_of("agent_said", 2)
        await it.model.session.drop()
        await it.hears_of("session_resumed")
        await trio.sleep(2)
        record = await hung_up(it, channel)
    stopped, *_ = it.events.told("playback.stopped")
    cut, sun = [event.event for event in it.events.told("transcript.final") if event.event["role"] == "agent"]
    assert stopped.event == {"item_id": cut["item_id"], "reason": "interrupted", "heard_ms": cut["heard_ms"]}
    assert 4000 <= cut["heard_ms"] <= 4600
    assert cut["text"] == "One two three four"
    assert sun["text"] == "Sun."
    called, answered = it.events.told("tool.")
    assert called.event["arguments"] == '{"city": "Oslo"}'
    assert (answered.event["output"], answered.event["failed"]) == ("Sun in Oslo.", False)
    assert [(use.name, use.output, use.failed) for use in record.tool_uses] == [("weather", "Sun in Oslo.", False)]
    assert [entry.text for entry in record.transcript] == ["One two three four", "Stop!", "Sun."]
    assert record.transcript[0].interrupted
    assert "session_lost" in it.events.types()


async def test_who_hangs_up_in_mid_word_has_heard_that_much(autojump_clock: MockClock) -> None:
    story = Say("One two three four five six seven eight nine ten", ms=10_000, pace=FAST)
    async with house(Script.of(story)) as it:
        channel, _ = await it.stasis_call()
        await it.hears_of("agent_starts")
        await trio.sleep(5)
        record = await hung_up(it, channel)
    assert it.events.types("playback", "transcript.final", "call.ended")[1:] == [
        "playback.stopped", "transcript.final", "call.ended"
    ]  # fmt: skip
    assert [(entry.text, entry.interrupted) for entry in record.transcript] == [("One two three four five", True)]
    assert it.told("agent_said") == []


async def test_an_application_hears_words_and_wildcards_and_the_end(autojump_clock: MockClock) -> None:
    heard: list[str] = []
    streams: list[Any] = []

    async def attend(call: LiveCall) -> None:
        with pytest.raises(ValueError, match=r"transcript\.final"):
            call.events(["caller_said"])

        def fails(event: CallEvent) -> None:
            heard.append(f"listener {event.type}")
            raise RuntimeError("a broken hook")

        call.listen(["transcript.*"], fails)
        streams.append(call.events(["call.*", "transcript.*", "-transcript.partial"]))

    async def follow(it: House) -> None:
        await it.until(lambda: bool(streams))
        async for event in streams[0]:
            heard.append(event.type)

    async with house(Script.of(Say("Hello!", ms=300)), on_call=attend) as it:
        it.nursery.start_soon(follow, it)
        channel, _ = await it.stasis_call()
        await it.hears_of("agent_said")
        await hung_up(it, channel)
        await trio.sleep(1)
    assert sorted(heard) == ["call.answered", "call.ended", "listener transcript.partial", "transcript.final"]
    assert heard[-1] == "call.ended"


def test_old_names_of_events_are_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    from bridge.session_streams import filter_of

    for _ in range(2):
        wanted = filter_of(["response.audio_transcript.*", "-response.audio_transcript.delta"])
    assert wanted.takes("response.output_audio_transcript.done")
    assert not wanted.takes("response.output_audio_transcript.delta")
    warnings = [record.getMessage() for record in caplog.records]
    assert len(warnings) == len(set(warnings)) == 2
    assert all("response.output_audio_transcript." in text for text in warnings)
