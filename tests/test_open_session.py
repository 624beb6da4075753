"""The library's session against the strict fake of the Realtime server, in virtual time."""

from __future__ import annotations

import base64
import gc
import math
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from library_client import BY_HAND, CONFIG, SECOND, TEXT, Open, opened
from trio.testing import MockClock, wait_all_tasks_blocked

from bridge.cached_item import ItemStatus
from bridge.config import Limits, Realtime
from bridge.errors import ConfigError, ModelLost, ModelRejected, RequestRefused, ResponseFailed
from bridge.item_changes import ChangeKind
from bridge.message_content import Content, image
from bridge.realtime_session import AnyTool, RealtimeSession, open_session
from bridge.session_engine import STREAM_SIZE
from bridge.tools import Tool
from simulators.model_script import Call, Fail, Incomplete, Pace, Say, Script
from simulators.model_voice import Phrasebook
from simulators.realtime_server import RealtimeServer

ITEM, RESPONSE, APPEND = "conversation.item.create", "response.create", "input_audio_buffer.append"
COMMIT, UPDATE = "input_audio_buffer.commit", "session.update"
SLOW = Pace(speed=1, first_ms=100)


async def get_weather(city: str) -> dict[str, Any]:
    """What the weather is like."""
    await trio.sleep(0.5)
    return {"city": city, "celsius": 3}


async def get_time() -> str:
    """What time it is."""
    return "noon"


async def broken() -> None:
    """Fails."""
    raise RuntimeError("no such shelf")


async def sleepy() -> None:
    """Takes for ever."""
    await trio.sleep_forever()


# Talking ---------------------------------------------------------------------------------------------------------------


async def test_a_text_turn(autojump_clock: MockClock) -> None:
    async with opened(Script.of(Say("It rains.")), TEXT) as it:
        item_id = await it.session.send_text("What is the weather?")
        answer = await it.session.next_completed_item(role="assistant")
        assert (answer.text, answer.status) == ("It rains.", ItemStatus.COMPLETED)
        assert [item.words for item in it.session.conversation] == ["What is the weather?", "It rains."]
        assert it.session.conversation.items[0].id == item_id
        assert it.sent == [ITEM, RESPONSE]


async def test_nothing_is_missed_between_two_calls_for_an_item(autojump_clock: MockClock) -> None:
    async with opened(Script.of(Say("one"), Say("two")), TEXT) as it:
        for text in ("a", "b"):
            await it.session.send_text(text)
            await trio.sleep(5)
        items = [await it.session.next_completed_item() for _ in range(4)]
        assert [item.text for item in items] == ["a", "one", "b", "two"]
        assert [(await it.session.next_item()).text for _ in range(4)] == ["a", "one", "b", "two"]
        with trio.move_on_after(10) as limit:
            await it.session.next_item()
        assert limit.cancelled_caught


async def test_a_role_passes_over_what_came_before(autojump_clock: MockClock) -> None:
    async with opened(Script.of(Say("one")), TEXT) as it:
        await it.session.send_text("a")
        assert (await it.session.next_completed_item(role="assistant")).text == "one"
        await it.session.send_text("b", respond=False)
        assert (await it.session.next_completed_item()).text == "b"


async def test_a_message_of_many_parts(autojump_clock: MockClock) -> None:
    async with opened(Script.of(Say("A cat.")), TEXT) as it:
        pcm = bytearray(b"ab" * 4800)
        parts: list[Content] = ["What is this?", memoryview(pcm)[:4800], b"", image(b"\x89PNG", detail="low")]
        await it.session.send_content(parts)
        await it.session.next_completed_item(role="assistant")
        (event,) = it.server.received_events(ITEM)
        text, audio, picture = event["item"]["content"]
        assert text == {"type": "input_text", "text": "What is this?"}
        # The reference client sends the whole buffer behind a view.
        assert base64.b64decode(audio["audio"]) == b"ab" * 2400
        assert picture["image_url"] == "data:image/png;base64,iVBORw=="


async def test_no_content_only_asks_for_a_response(autojump_clock: MockClock) -> None:
    async with opened(Script.of(Say("Hm?")), TEXT) as it:
        assert await it.session.send_content([]) == ""
        await it.session.next_completed_item()
        assert it.sent == [RESPONSE]


async def test_what_is_no_content_is_refused_before_anything_is_sent(autojump_clock: MockClock) -> None:
    async with opened() as it:
        with pytest.raises(TypeError, match="list"):
            await it.session.send_content("text")
        with pytest.raises(TypeError, match="int"):
            await it.session.send_content([7])  # type: ignore[list-item]
        with pytest.raises(ValueError, match="text only"):
            await it.session.send_content([b"abcd"], role="system")
        await it.session.send_content(["Be brief."], role="system", respond=False)
        await it.session.send_content(["I was."], role="assistant", respond=False)
        assert [(await it.session.next_completed_item()).role for _ in "ab"] == ["system", "assistant"]


async def test_a_response_wanted_during_another_is_asked_for_afterwards(autojump_clock: MockClock) -> None:
    async with opened(Script.of(Say("one", ms=3000, pace=SLOW), Say("two"), Say("three"))) as it:
        await it.session.send_text("a")
        await it.session.next_item()
        await it.session.create_response(instructions="Say two.")
        await it.session.create_response()
        answers = [(await it.session.next_completed_item(role="assistant")).transcript for _ in range(3)]
        assert answers == ["one", "two", "three"]
        assert not it.server.sent_events("error")
        assert it.server.received_events(RESPONSE)[1]["response"] == {"instructions": "Say two."}


async def test_a_response_apart_runs_beside_the_conversation(autojump_clock: MockClock) -> None:
    async with opened(Script.of(Say("talk", ms=3000, pace=SLOW), Say("note", written=True))) as it:
        await it.session.send_text("a")
        changes = it.session.changes(ChangeKind.COMPLETED)
        await it.server.wait_sent("response.created")
        await it.session.create_response(conversation="none", output_modalities=["text"], metadata={"topic": "x"})
        finished = [(await anext(changes)).item for _ in "unt"]
        told = [(item.words, item.apart) for item in finished if item is not None]
        assert told == [("a", False), ("note", True), ("talk", False)]
        assert [item.words for item in it.session.conversation] == ["a", "talk"]
        assert [(await it.session.next_completed_item()).words for _ in "ut"] == ["a", "talk"]
        assert not it.server.sent_events("error")


async def test_a_failure_apart_is_no_answer_to_the_one_who_waits(autojump_clock: MockClock) -> None:
    async with opened(Script.of(Fail("server_error"), Say("Hi")), TEXT) as it:
        errors = it.session.errors()
        await it.session.create_response(conversation="none")
        assert (await anext(errors)).source == "response"
        await it.session.create_response()
        assert (await it.session.next_completed_item()).text == "Hi"


async def test_ask_waits_for_the_whole_turn(autojump_clock: MockClock) -> None:
    script = Script.of([Say("One moment."), Call("get_weather", {"city": "Oslo"})], Say("Cold."), Say("Bye."))
    async with opened(script, TEXT, tools=[get_weather]) as it:
        assert (await it.session.ask("How is Oslo?")).text == "Cold."
        assert (await it.session.ask("Bye")).text == "Bye."


async def test_ask_tells_of_a_response_without_an_answer(autojump_clock: MockClock) -> None:
    async with opened(Script.of(Fail("server_error")), TEXT) as it:
        with pytest.raises(ResponseFailed, match="The server had an error") as caught:
            await it.session.ask("Hello?")
        assert caught.value.code == "server_error"


# Audio -----------------------------------------------------------------------------------------------------------------


async def test_audio_by_hand_is_committed_with_the_wish_for_a_response(autojump_clock: MockClock) -> None:
    async with opened(Script.of(Say("I heard.")), BY_HAND, caller_audio_bytes=2**20) as it:
        await it.session.append_audio(b"")
        await it.session.append_audio(SECOND)
        await it.session.create_response()
        item = await it.session.next_completed_item(role="user")
        answer = await it.session.next_completed_item(role="assistant")
        assert item.audio == SECOND
        assert len(answer.audio) == 48_000
        assert it.sent == [APPEND, COMMIT, RESPONSE]
        await it.session.create_response()  # nothing new was appended: nothing to commit
        await it.server.wait_for(RESPONSE, 2)
        assert it.sent.count(COMMIT) == 1


async def test_less_audio_than_the_server_takes_is_not_committed(autojump_clock: MockClock) -> None:
    async with opened(Script.of(Say("Yes?"), Say("Yes!")), BY_HAND) as it:
        await it.session.append_audio(bytes(2400))
        await it.session.create_response()
        await it.session.next_completed_item()
        await it.session.clear()
        await it.session.append_audio(SECOND)
        await it.session.commit()
        assert (await it.session.next_completed_item()).role == "user"
        assert not it.server.sent_events("error")


async def test_a_long_piece_of_audio_is_sent_in_parts(autojump_clock: MockClock) -> None:
    async with opened(settings=BY_HAND) as it:
        data = bytes(range(256)) * 10_000
        await it.session.append_audio(data)
        await it.server.wait_for(APPEND, 3)
        assert it.sent == [APPEND] * 3
        assert it.server.session.appended_pcm == data


async def test_a_spoken_conversation_with_detected_turns(autojump_clock: MockClock) -> None:
    book = Phrasebook.load()
    # The server's own 200 ms of silence would cut the turn after "Hello!".
    detection = {"type": "server_vad", "silence_duration_ms": 500}
    settings = {"audio": {"input": {"transcription": {"model": "gpt-transcribe"}, "turn_detection": detection}}}
    async with opened(book, settings) as it:
        changes = it.session.changes()
        speech = book.phrases["ask_hours"].pcm + bytes(48_000)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(speak, it.session, speech)
            told = []
            async for change in changes:
                told.append(change)
                if change.kind is ChangeKind.RESPONSE_DONE:
                    break
        kinds = [change.kind for change in told if change.kind is not ChangeKind.UPDATED]
        assert kinds[:3] == [ChangeKind.SPEECH_STARTED, ChangeKind.SPEECH_STOPPED, ChangeKind.APPENDED]
        said = {change.item.role: change.item.transcript for change in told if change.item is not None}
        assert said == {"user": book.phrases["ask_hours"].text, "assistant": book.phrases["hours_long"].text}
        assert kinds.count(ChangeKind.TRANSCRIPT) == 2
        heard = b"".join(change.delta.audio for change in told if change.delta is not None)
        assert heard == book.phrases["hours_long"].pcm
        assert it.session.conversation.items[-1].audio == heard


async def speak(session: RealtimeSession, pcm: bytes) -> None:
    for at in range(0, len(pcm), 4800):
        await session.append_audio(pcm[at : at + 4800])
        await trio.sleep(0.1)


@pytest.mark.parametrize("name", ["audio/pcmu", "audio/pcma"])
async def test_telephone_formats(autojump_clock: MockClock, name: str) -> None:
    side = {"format": {"type": name}}
    settings = {"audio": {"input": {**side, "turn_detection": None}, "output": side}}
    async with opened(Script.of(Say("Hi", ms=2000, pace=Pace(first_ms=0)), Say("x")), settings) as it:
        await it.session.append_audio(bytes(8 * 100))
        await it.session.create_response()
        answer = await it.session.next_completed_item(role="assistant")
        assert len(answer.audio) == 16_000
        await it.session.truncate_item(answer.id, 500)
        assert (await it.server.wait_for("conversation.item.truncate"))["audio_end_ms"] == 500
        await it.server.wait_sent("conversation.item.truncated")
        await wait_all_tasks_blocked()
        assert len(answer.audio) == 4000


async def test_another_format_than_asked_for_is_no_session(autojump_clock: MockClock) -> None:
    server = RealtimeServer()
    with server.wrong_format({"type": "audio/pcmu"}), pytest.raises(ModelRejected, match="audio/pcmu"):
        async with opened(server=server, checked=False):
            pass


# Interrupting ----------------------------------------------------------------------------------------------------------


async def playing(it: Open) -> str:
    """Let a long answer run until a second of it has come; returns its item."""
    await it.session.create_response()
    changes = it.session.changes(ChangeKind.UPDATED)
    async for change in changes:
        if change.item is not None and change.item.received_ms >= 1000:
            return change.item.id
    raise AssertionError


async def test_cancel_stops_and_truncates_to_what_was_heard(autojump_clock: MockClock) -> None:
    async with opened(Script.of(Say("one two three four five six seven eight", ms=4000, pace=SLOW))) as it:
        item_id = await playing(it)
        truncations = it.session.changes(ChangeKind.TRUNCATED)
        await it.session.cancel_response(item_id, 12_000)
        item = (await anext(truncations)).item
        assert item is not None
        assert it.sent == [RESPONSE, "response.cancel", "conversation.item.truncate"]
        assert (item.truncated_ms, len(item.audio)) == (500, 24_000)
        assert item.status is ItemStatus.INCOMPLETE
        assert it.server.session.items[-1].truncated_ms == 500
        assert not it.server.sent_events("error")


async def test_a_sample_count_is_limited_to_what_was_received(autojump_clock: MockClock) -> None:
    async with opened(Script.of(Say("one two", ms=4000, pace=SLOW))) as it:
        item_id = await playing(it)
        received_ms = it.session.conversation.items[-1].received_ms
        await it.session.cancel_response(item_id, 10**9)
        truncate = await it.server.wait_for("conversation.item.truncate")
        assert truncate["audio_end_ms"] == received_ms


async def test_an_item_of_which_nothing_was_heard_is_deleted(autojump_clock: MockClock) -> None:
    async with opened(Script.of(Say("one two", ms=4000, pace=SLOW))) as it:
        await it.session.cancel_response(await playing(it))
        await it.server.wait_sent("conversation.item.deleted")
        assert it.server.session.items == []
        await wait_all_tasks_blocked()
        assert len(it.session.conversation) == 0


async def test_a_written_answer_is_cancelled_and_not_truncated(autojump_clock: MockClock) -> None:
    """The reference client throws here, after it has sent the cancel."""
    async with opened(Script.of(Say("word " * 100)), TEXT) as it:
        await it.session.create_response()
        item = await it.session.next_item()
        await it.session.cancel_response(item.id, 24_000)
        await it.server.wait_sent("response.done")
        assert it.sent == [RESPONSE, "response.cancel"]


async def test_cancel_refuses_an_item_that_is_no_answer_and_sends_nothing(autojump_clock: MockClock) -> None:
    async with opened(Script.of(Say("one two", ms=4000, pace=SLOW))) as it:
        await it.session.send_text("x")
        user = await it.session.next_item()
        await playing_started(it)
        for item_id in (user.id, "item_unknown"):
            with pytest.raises(ValueError, match="no message of the assistant"):
                await it.session.cancel_response(item_id)
        assert "response.cancel" not in it.sent


async def playing_started(it: Open) -> None:
    await it.server.wait_sent("response.output_audio.delta")


async def test_cancel_before_the_response_has_begun_still_cancels_it(autojump_clock: MockClock) -> None:
    async with opened(Script.of(Say("one two", ms=4000, pace=SLOW))) as it:
        await it.session.create_response()
        assert not it.server.sent_events("response.created")
        await it.session.cancel_response()
        done = await it.server.wait_sent("response.done")
        assert done["response"]["status_details"] == {"type": "cancelled", "reason": "client_cancelled"}


async def test_a_cancelled_request_that_was_refused_cancels_nothing_later(autojump_clock: MockClock) -> None:
    async with opened(Script.of(Say("Hi")), TEXT, checked=False) as it:
        await it.session.create_response(tool_choice="no such choice")
        await it.session.cancel_response()
        assert (await it.session.ask("x")).text == "Hi"
        assert "response.cancel" not in it.sent


async def test_cancel_with_nothing_to_cancel_sends_nothing(autojump_clock: MockClock) -> None:
    async with opened() as it:
        await it.session.cancel_response()
        await trio.sleep(1)
        assert it.sent == []


async def test_what_was_wanted_next_is_cancelled_too(autojump_clock: MockClock) -> None:
    async with opened(Script.of(Say("one two", ms=4000, pace=SLOW))) as it:
        await playing(it)
        await it.session.create_response()
        await it.session.cancel_response()
        await trio.sleep(5)
        assert it.sent == [RESPONSE, "response.cancel"]


async def test_late_audio_of_an_interrupted_answer_does_not_come_back(autojump_clock: MockClock) -> None:
    server = RealtimeServer(Script.of(Say("one two", ms=4000, pace=SLOW)), key="good")
    with server.late_deltas(3, after_done=True):
        async with opened(server=server) as it:
            await playing(it)
            ignored = it.session.changes(ChangeKind.IGNORED)
            received = it.session.conversation.items[-1].received_bytes
            server.session.speech_started()
            for _ in range(3):
                assert (await anext(ignored)).note == "audio after the interruption"
            assert it.session.conversation.items[-1].received_bytes == received


# Tools -----------------------------------------------------------------------------------------------------------------


def outputs(it: Open) -> list[str]:
    items = [event["item"] for event in it.server.received_events(ITEM)]
    return [item["output"] for item in items if item["type"] == "function_call_output"]


async def test_parallel_calls_are_answered_each_once_and_by_one_response(autojump_clock: MockClock) -> None:
    calls = [Call("get_weather", {"city": "Oslo"}), Call("get_time"), Call("get_weather", {"city": "Rome"})]
    async with opened(Script.of(calls, Say("Cold, warm, noon.")), TEXT, tools=[get_weather, get_time]) as it:
        answer = await it.session.ask("Tell me.")
        assert answer.text == "Cold, warm, noon."
        assert it.sent == [ITEM, RESPONSE, ITEM, ITEM, ITEM, RESPONSE]
        assert sorted(outputs(it)) == ["noon", '{"city":"Oslo","celsius":3}', '{"city":"Rome","celsius":3}']


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (Call("get_moon"), "Error: there is no tool named 'get_moon'"),
        (Call("get_weather", '{"city": '), "Error: the arguments are not valid JSON"),
        (Call("get_weather", {"town": "Oslo"}), "Error"),
        (Call("broken"), "Error: broken failed: RuntimeError: no such shelf"),
        (Call("sleepy"), "Error: sleepy did not answer within 15 s"),
        (Call("get_time", name_in_done=False), "noon"),
    ],
)
async def test_every_call_gets_an_output(autojump_clock: MockClock, call: Call, says: str) -> None:
    tools: list[AnyTool] = [get_weather, get_time, broken, sleepy]
    async with opened(Script.of(call, Say("Sorry.")), TEXT, tools=tools, checked=call.name_in_done) as it:
        assert (await it.session.ask("Do it.")).text == "Sorry."
        assert len(outputs(it)) == 1
        assert outputs(it)[0].startswith(says)


async def test_a_manual_tool_is_left_to_the_application(autojump_clock: MockClock) -> None:
    """The reference client answers such a call with an error of its own."""
    by_hand = {"type": "function", "name": "look_up", "parameters": {"type": "object", "properties": {}}}
    calls = [Call("look_up", call_id="c1"), Call("ring", call_id="c2"), Call("get_time", call_id="c3")]
    settings = {**TEXT, "tools": [by_hand]}
    async with opened(Script.of(calls, Say("Done.")), settings, tools=[Tool("ring"), get_time]) as it:
        await it.session.create_response()
        await trio.sleep(10)
        assert outputs(it) == ["noon"]
        await it.session.answer_tool("c1", {"found": True})
        assert it.sent.count(RESPONSE) == 1
        await it.session.answer_tool("c2", "rang")
        assert (await it.session.next_completed_item(role="assistant")).text == "Done."
        assert it.sent.count(RESPONSE) == 2
        for call_id in ("c1", "c9"):
            with pytest.raises(ValueError, match="waits for an output"):
                await it.session.answer_tool(call_id, "again")


async def test_a_call_in_an_answer_that_the_caller_cut_is_answered_without_a_response_of_its_own(
    autojump_clock: MockClock,
) -> None:
    script = Script.of([Call("get_weather", {"city": "Oslo"}), Say("Let me see.", ms=4000, pace=SLOW)], Say("Go on."))
    async with opened(script, tools=[get_weather]) as it:
        await it.session.create_response()
        await it.server.wait_sent("response.output_audio.delta")
        it.server.session.speech_started()
        await trio.sleep(2)
        assert len(outputs(it)) == 1
        assert it.sent.count(RESPONSE) == 1
        it.server.session.speech_stopped()
        assert (await it.session.next_completed_item(role="assistant")).status is ItemStatus.INCOMPLETE
        assert (await it.session.next_completed_item(role="assistant")).transcript == "Go on."
        assert not it.server.sent_events("error")


async def test_an_output_during_the_callers_speech_waits_for_the_turn(autojump_clock: MockClock) -> None:
    async with opened(Script.of(Call("get_weather", {"city": "Oslo"}), Say("Cold.")), tools=[get_weather]) as it:
        await it.session.create_response()
        await it.server.wait_sent("response.done")
        it.server.session.speech_started()
        await trio.sleep(2)
        assert (len(outputs(it)), it.sent.count(RESPONSE)) == (1, 1)
        it.server.session.speech_stopped()
        assert (await it.session.next_completed_item(role="assistant")).transcript == "Cold."
        assert it.sent.count(RESPONSE) == 1  # the server's own answer saw the output


# Settings --------------------------------------------------------------------------------------------------------------


def tool_names(it: Open) -> list[str]:
    return [tool["name"] for tool in it.server.session.config["tools"]]


async def test_tools_survive_every_update(autojump_clock: MockClock) -> None:
    """A later update of the reference client erases the tools that were declared by hand."""
    by_hand = {"type": "function", "name": "look_up", "parameters": {"type": "object", "properties": {}}}
    async with opened(settings={"tools": [by_hand]}, tools=[get_time]) as it:
        await it.session.update_session(instructions="Be brief.")
        assert tool_names(it) == ["look_up", "get_time"]
        await it.session.add_tool(get_weather)
        assert tool_names(it) == ["look_up", "get_time", "get_weather"]
        await it.session.update_session(tools=[])
        assert tool_names(it) == ["get_time", "get_weather"]
        assert it.session.settings["instructions"] == "Be brief."


async def test_a_tool_that_is_removed_is_gone_at_the_server(autojump_clock: MockClock) -> None:
    """The reference client sends nothing."""
    async with opened(tools=[get_time, get_weather]) as it:
        await it.session.remove_tool("get_time")
        assert tool_names(it) == ["get_weather"]
        with pytest.raises(ConfigError, match="get_time"):
            await it.session.remove_tool("get_time")


async def test_an_update_changes_what_it_names(autojump_clock: MockClock) -> None:
    async with opened(settings={"instructions": "Sing."}) as it:
        await it.session.update_session(audio={"input": {"turn_detection": None}})
        assert it.session.settings["instructions"] == "Sing."
        assert it.session.settings["audio"]["input"]["turn_detection"] is None
        assert it.session.settings["audio"]["output"]["voice"] == "marin"


@pytest.mark.parametrize("bare", [False, True])
async def test_a_refused_update_raises_and_leaves_all_as_it_was(autojump_clock: MockClock, bare: bool) -> None:
    async with opened() as it:
        with it.server.faulty(bare_errors=bare), pytest.raises(RequestRefused, match="model"):
            await it.session.update_session(model="gpt-realtime-9", instructions="Sing.")
        await it.session.update_session(tool_choice="none")
        assert it.session.settings["tool_choice"] == "none"
        assert it.session.settings["instructions"] != "Sing."


async def test_settings_that_no_server_takes_are_refused_before_anything_is_sent(autojump_clock: MockClock) -> None:
    async with opened() as it:
        with pytest.raises(ConfigError, match="output_modalities"):
            await it.session.update_session(output_modalities=["text", "audio"])
        assert it.sent == []
    with pytest.raises(ConfigError, match="temprature"):
        async with opened(settings={"temprature": 1}):
            pass


async def test_old_flat_names_are_understood(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    """With the reference client's `none` audio is never committed."""
    settings = {"voice": "alloy", "turn_detection": {"type": "none"}}
    async with opened(Script.of(Say("Hi")), settings) as it:
        assert it.session.settings["audio"]["output"]["voice"] == "alloy"
        await it.session.append_audio(SECOND)
        await it.session.create_response()
        assert (await it.session.next_completed_item()).role == "user"
    assert "voice -> audio.output.voice" in caplog.text


# Single items ----------------------------------------------------------------------------------------------------------


async def test_items_are_retrieved_and_deleted(autojump_clock: MockClock) -> None:
    async with opened(Script.of(Say("Hi", ms=200))) as it:
        await it.session.create_response()
        answer = await it.session.next_completed_item()
        wire = await it.session.retrieve_item(answer.id)
        assert base64.b64decode(wire["content"][0]["audio"]) == answer.audio
        deleted = it.session.changes(ChangeKind.DELETED)
        await it.session.delete_item(answer.id)
        assert (await anext(deleted)).item is answer


@pytest.mark.parametrize("bare", [False, True])
async def test_an_unknown_item_is_refused_and_the_session_lives(autojump_clock: MockClock, bare: bool) -> None:
    async with opened(Script.of(Say("Hi")), TEXT) as it:
        errors = it.session.errors()
        with it.server.faulty(bare_errors=bare), pytest.raises(RequestRefused, match="not found"):
            await it.session.retrieve_item("item_x")
        assert "not found" in (await anext(errors)).error.text
        await it.session.delete_item("item_x")
        assert (await anext(errors)).event_id
        assert (await it.session.ask("Still there?")).text == "Hi"


async def test_a_question_that_was_cancelled_does_not_take_the_answer_to_the_next(autojump_clock: MockClock) -> None:
    async with opened() as it:
        for patience_s in (0, 0.0001):
            with trio.move_on_after(patience_s):
                await it.session.update_session(instructions="never mind")
        await it.session.update_session(instructions="Sing.")
        assert it.session.settings["instructions"] == "Sing."


async def test_what_can_not_be_sent_is_the_senders_mistake_only(autojump_clock: MockClock) -> None:
    async with opened(Script.of(Say("Hi")), TEXT) as it:
        with pytest.raises(TypeError):
            await it.session.send("response.create", response=object())
        with pytest.raises(ValueError, match="type"):
            await it.session.send({"typ": "response.create"})
        with pytest.raises(ValueError, match="surrogates"):
            await it.session.send_text("\ud800")
        assert (await it.session.ask("x")).text == "Hi"


@pytest.mark.parametrize("value", [None, 7, "x", [], {}, [7], {"id": 7, "status": "failed", "status_details": 7}])
async def test_no_event_whatever_it_holds_ends_the_session(autojump_clock: MockClock, value: object) -> None:
    async with opened(Script.of(Say("Hi")), TEXT) as it:
        for kind in ("session.updated", "response.created", "response.done", "error", "conversation.item.retrieved"):
            for name in ("session", "response", "error", "item", "item_id"):
                it.session._received({"type": kind, name: value})
        await it.session.update_session(output_modalities=["text"])
        it.session._received({"type": "response.done", "response": {"id": it.session._turns.active}})
        assert (await it.session.ask("x")).text == "Hi"


async def test_any_event_can_be_sent(autojump_clock: MockClock) -> None:
    async with opened(Script.of(Say("Hi"), Say("Ho")), TEXT) as it:
        assert await it.session.send(RESPONSE, event_id="mine") == "mine"
        await it.session.next_completed_item()
        await it.session.send({"type": RESPONSE, "response": {"instructions": "x"}})
        assert (await it.session.next_completed_item()).text == "Ho"
        assert it.server.received_events(RESPONSE)[0] == {"type": RESPONSE, "event_id": "mine"}


# Streams ---------------------------------------------------------------------------------------------------------------


async def test_raw_events_of_both_directions_with_their_time(autojump_clock: MockClock) -> None:
    async with opened(Script.of(Say("Hi", pace=Pace(first_ms=500)))) as it:
        some = it.session.events("response.create", "response.done", "response.output_audio.delta")
        everything = it.session.events()
        started = trio.current_time()
        await it.session.create_response()
        seen = [await anext(some), await anext(some)]
        assert [(event.source, event.type) for event in seen] == [
            ("client", "response.create"),
            ("server", "response.output_audio.delta"),
        ]
        assert seen[1].at_s - started >= 0.5
        async for event in everything:
            assert event.type != "response.output_audio.delta"
            if event.type == "rate_limits.updated":
                break
        assert everything.missed == 0


async def test_unknown_events_pass_through(autojump_clock: MockClock) -> None:
    async with opened(Script.of(Say("Hi")), TEXT, checked=False) as it:
        strange = it.session.events("weather.*")
        with it.server.faulty(foreign=True):
            assert (await it.session.ask("x")).text == "Hi"
        assert (await anext(strange)).event["sky"] == "clear"


async def test_a_slow_observer_loses_the_oldest_and_stops_nobody(autojump_clock: MockClock) -> None:
    answer = Say("long", ms=4 * STREAM_SIZE, pace=Pace(speed=math.inf, first_ms=0, delta_ms=2))
    async with opened(Script.of(answer)) as it:
        slow = it.session.changes(ChangeKind.UPDATED)
        await it.session.create_response()
        item = await it.session.next_completed_item()
        assert slow.missed == 2 * STREAM_SIZE + 1 - STREAM_SIZE  # the deltas, and the transcript's one
        assert len([await anext(slow) for _ in range(STREAM_SIZE)]) == STREAM_SIZE
        assert item.received_ms == 4 * STREAM_SIZE


async def test_a_stream_that_nobody_holds_is_gone(autojump_clock: MockClock) -> None:
    async with opened(Script.of(Say("Hi")), TEXT) as it:
        await it.session.create_response()
        async for _ in it.session.events():
            break
        gc.collect()
        assert len(it.session._raw._streams) == 0
        async with it.session.changes() as changes:
            pass
        with pytest.raises(StopAsyncIteration):
            await anext(changes)


# Trouble ---------------------------------------------------------------------------------------------------------------


async def test_harmless_errors_are_told_and_end_nothing(autojump_clock: MockClock) -> None:
    async with opened(Script.of(Say("Hi")), TEXT) as it:
        errors = it.session.errors()
        event_id = await it.session.send("response.cancel")
        trouble = await anext(errors)
        assert (trouble.source, trouble.error.code, trouble.event_id) == (
            "error",
            "response_cancel_not_active",
            event_id,
        )
        it.server.session.send_error(None)
        assert "Something happened" in str(await anext(errors))
        assert (await it.session.ask("x")).text == "Hi"


async def test_a_failed_response_is_told_to_the_one_who_waits(autojump_clock: MockClock) -> None:
    async with opened(Script.of(Fail("rate_limit_exceeded", "Slow down."), Say("Hi")), TEXT) as it:
        errors = it.session.errors()
        await it.session.send_text("x")
        with pytest.raises(ResponseFailed, match="Slow down") as caught:
            await it.session.next_completed_item(role="assistant")
        assert caught.value.code == "rate_limit_exceeded"
        assert (await anext(errors)).source == "response"
        await it.session.create_response()
        assert (await it.session.next_completed_item(role="assistant")).text == "Hi"


async def test_an_answer_out_of_tokens_is_finished_and_incomplete(autojump_clock: MockClock) -> None:
    async with opened(Script.of([Say("It is"), Incomplete()]), TEXT) as it:
        assert (await it.session.ask("x")).status is ItemStatus.INCOMPLETE


async def test_a_transcription_that_failed_is_told(autojump_clock: MockClock) -> None:
    settings = {"audio": {"input": {"turn_detection": None, "transcription": {"model": "gpt-transcribe"}}}}
    async with opened(Script.of(transcripts=[None]), settings) as it:
        errors = it.session.errors()
        await it.session.append_audio(SECOND)
        await it.session.commit()
        assert (await anext(errors)).source == "transcription"


Waiting = Callable[[RealtimeSession], Awaitable[object]]


@pytest.mark.parametrize(
    "wait",
    [
        lambda session: session.next_item(),
        lambda session: session.next_completed_item(role="assistant"),
        lambda session: anext(session.events()),
        lambda session: anext(session.changes()),
        lambda session: anext(session.errors()),
        lambda session: session.ask("Hello?"),
    ],
)
@pytest.mark.parametrize("code", [None, 1000])
async def test_whoever_waits_learns_that_the_session_is_lost(
    autojump_clock: MockClock, wait: Waiting, code: int | None
) -> None:
    async def wait_on(session: RealtimeSession) -> None:
        while True:
            await wait(session)

    async with opened(Script.of(*[Say("x")] * 100), TEXT) as it, trio.open_nursery() as nursery:
        nursery.start_soon(drop_later, it, code)
        with pytest.raises(ModelLost, match="closed the session"):
            await wait_on(it.session)
        assert it.session.closed
        assert isinstance(await it.session.wait_closed(), ModelLost)
        with pytest.raises(ModelLost):
            await it.session.send_text("too late")


async def drop_later(it: Open, code: int | None) -> None:
    await trio.sleep(1)
    await it.server.session.drop(code)


async def test_a_question_open_at_the_loss_is_not_left_waiting(autojump_clock: MockClock) -> None:
    async with opened() as it:
        with it.server.no_session_updated():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(drop_later, it, None)
                with pytest.raises(ModelLost):
                    await it.session.update_session(instructions="x")


async def test_an_expired_session_is_lost_with_its_reason(autojump_clock: MockClock) -> None:
    async with opened() as it:
        it.server.session.expire()
        lost = await it.session.wait_closed()
        assert isinstance(lost, ModelLost)
        assert lost.code == "session_expired"


async def test_what_a_servers_dialect_can_not_say_fails_alone(autojump_clock: MockClock) -> None:
    settings = {"audio": {"output": {"voice": "alloy"}}}
    async with trio.open_nursery() as nursery:
        server = RealtimeServer(key="good", beta=True)
        listener = await server.listen_in_memory(nursery)
        config = Realtime(url=CONFIG.url, api_key="good", dialect="beta")
        async with open_session(config, settings, connect_stream=listener.connect) as session:
            mcp = {"type": "mcp", "server_label": "x", "server_url": "https://x.test/"}
            with pytest.raises(ModelRejected, match="MCP"):
                await session.update_session(tools=[mcp])
            await session.update_session(instructions="Sing.")
            assert session.settings["instructions"] == "Sing."
        nursery.cancel_scope.cancel()


async def test_no_key_no_session_and_no_group(autojump_clock: MockClock) -> None:
    server = RealtimeServer(key="another")
    with pytest.raises(ModelRejected, match="Incorrect API key"):
        async with opened(server=server, checked=False):
            pass


# Structured concurrency ------------------------------------------------------------------------------------------------


async def test_what_the_block_raises_leaves_as_it_is(autojump_clock: MockClock) -> None:
    mine = ValueError("mine")
    server = RealtimeServer(Script.of(Call("sleepy")), key="good")

    async def block() -> None:
        async with opened(server=server, tools=[sleepy]) as it:
            await it.session.create_response()
            await server.wait_sent("response.done")
            raise mine

    with pytest.raises(ValueError, match="mine") as caught:
        await block()
    assert caught.value is mine
    assert server.open_connections == 0


async def test_what_the_block_raises_while_it_is_cancelled_is_not_swallowed(autojump_clock: MockClock) -> None:
    async def inner(server: RealtimeServer, scope: trio.CancelScope) -> None:
        async with trio.open_nursery() as nursery:
            listener = await server.listen_in_memory(nursery)
            try:
                async with open_session(CONFIG, connect_stream=listener.connect) as session:
                    try:
                        scope.cancel()
                        await session.next_item()
                    finally:
                        raise ValueError("while tidying up")
            finally:
                nursery.cancel_scope.cancel()

    with pytest.RaisesGroup(pytest.RaisesExc(ValueError, match="tidying")), trio.CancelScope() as scope:
        await inner(RealtimeServer(key="good"), scope)


async def test_the_end_closes_in_order_and_stops_tools(autojump_clock: MockClock) -> None:
    ran = []

    async def long_tool() -> None:
        """Long."""
        try:
            await trio.sleep_forever()
        finally:
            ran.append("stopped")

    async with opened(Script.of(Call("long_tool")), tools=[long_tool]) as it:
        await it.session.create_response()
        await it.server.wait_sent("response.done")
        await wait_all_tasks_blocked()
        stream = it.session.events()
    assert ran == ["stopped"]
    assert it.server.session.websocket.close_code == 1000
    assert it.session.closed
    assert await it.session.wait_closed() is None
    assert [event async for event in stream if event.source == "server"] == []
    with pytest.raises(ModelLost, match="has been closed"):
        await it.session.send_text("x")


async def test_a_cancelled_block_ends(autojump_clock: MockClock) -> None:
    server = RealtimeServer(key="good")
    async with trio.open_nursery() as nursery:
        listener = await server.listen_in_memory(nursery)
        with trio.move_on_after(3) as limit:
            async with open_session(CONFIG, connect_stream=listener.connect) as session:
                await session.next_item()
        assert limit.cancelled_caught
        await server.until(lambda: server.open_connections == 0)
        assert trio.current_time() < 10
        nursery.cancel_scope.cancel()


async def test_a_cancelled_send_leaves_the_session_whole(autojump_clock: MockClock) -> None:
    async with opened(Script.of(Say("Hi")), TEXT) as it:
        for patience_s in (0, 0.0001):
            with trio.move_on_after(patience_s):
                await it.session.send_text("never mind" * 1000, respond=False)
        assert (await it.session.ask("Hello")).text == "Hi"


async def test_a_server_that_takes_nothing_is_lost(autojump_clock: MockClock) -> None:
    limits = Limits(model_send_s=2.0)
    server = RealtimeServer(key="good")
    async with trio.open_nursery() as nursery:
        listener = await server.listen_in_memory(nursery)
        stuck = _Stuck(listener.connect())
        async with open_session(CONFIG, limits=limits, connect_stream=lambda: stuck) as session:
            stuck.stuck = True
            with pytest.raises(ModelLost, match="took nothing for 2 s"):
                await session.send_text("x")
        nursery.cancel_scope.cancel()


async def test_a_session_that_ends_while_something_is_being_sent(autojump_clock: MockClock) -> None:
    server = RealtimeServer(key="good")
    async with trio.open_nursery() as nursery:
        listener = await server.listen_in_memory(nursery)
        stuck = _Stuck(listener.connect())
        async with open_session(CONFIG, connect_stream=lambda: stuck) as session:
            stuck.stuck = True
            async with trio.open_nursery() as senders:
                for _ in range(2):
                    senders.start_soon(lost_in_sending, session)
                await trio.sleep(0.5)
                session._end(ModelLost("gone"))  # by an event that had been read before
                stuck.release()
                await trio.sleep(0.5)
            assert session.closed
        nursery.cancel_scope.cancel()


async def lost_in_sending(session: RealtimeSession) -> None:
    with pytest.raises(ModelLost, match="gone"):
        await session.send_text("x")


class _Stuck(trio.abc.Stream):
    """A connection whose other end stops reading."""

    def __init__(self, inner: trio.abc.Stream) -> None:
        self.inner = inner
        self.stuck = False
        self._released = trio.Event()

    def release(self) -> None:
        self.stuck = False
        self._released.set()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if self.stuck:
            await self._released.wait()
        await self.inner.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self.inner.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self.inner.receive_some(max_bytes)

    async def aclose(self) -> None:
        await self.inner.aclose()
