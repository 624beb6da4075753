"""What other bridges get wrong: the acceptance list, one test and more for each behaviour, by its number.

The numbers are those of the list that was made from the known systems and their bug reports; the tests behind "also" are
the short remarks at its end. Each stands for itself; the modules' own tests go deeper.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
import trio
from house import FAST, House, house
from talking import heard_ms, kinds, say, statuses, voice
from test_conversation import Rig, notices, sent
from trio.testing import MockClock

from bridge.config import load_config
from bridge.errors import ConfigError
from bridge.event_stream import EventFilter
from bridge.tools import Tool, ToolRegistry
from simulators.model_script import Call, Fail, Incomplete, Pace, Say, Script

NO_LAG = {"asterisk.lag_ms": "0"}
HELLO = Say("Hello!", ms=500)
LONG = Say("one two three four five six seven eight nine ten", ms=10_000, hz=440, pace=Pace(speed=1.2))
TRANSFERS = "[agents.default.transfers.reception]\nto = '600@phones'\ndescription = 'a human'\n"


def error_codes(it: House) -> list[str | None]:
    """What the strict server complained about."""
    return [event["error"]["code"] for event in it.model.sent_events("error")]


# 1 Dialect ------------------------------------------------------------------------------------------------------------


async def test_01_the_current_dialect_is_spoken_though_old_names_are_configured(autojump_clock: MockClock) -> None:
    settings = "[agents.default.session]\nmax_response_output_tokens = 300\n"
    async with house(Script.of(HELLO), settings=settings) as it:
        channel, _ = await it.stasis_call()
        await it.hears_of("agent_said")
        request = it.model.session.websocket.request
        assert request is not None
        assert "OpenAI-Beta" not in request.headers
        session = (await it.model.wait_for("session.update"))["session"]
        assert (session["type"], session["max_output_tokens"]) == ("realtime", 300)
        assert "max_response_output_tokens" not in session
        channel.hang_up()
        await it.ended()


def test_01_flat_sessions_of_other_products_are_not_converted() -> None:
    with pytest.raises(ConfigError, match="turn_detection"):
        load_config("[agents.default.session]\nturn_detection = {type = 'azure_semantic_vad'}\n", {}, {})


# 2 Order --------------------------------------------------------------------------------------------------------------


async def test_02_update_then_its_acknowledgement_then_the_first_response_and_once(autojump_clock: MockClock) -> None:
    async with house(Script.of(HELLO)) as it:
        channel, _ = await it.stasis_call()
        await it.hears_of("agent_said")
        asked = next(passed.at_s for passed in it.model.received if passed.event["type"] == "response.create")
        updated = next(passed.at_s for passed in it.model.sent if passed.event["type"] == "session.updated")
        assert updated <= asked
        assert kinds(it, "session.update", "response.create") == ["session.update", "response.create"]
        channel.hang_up()
        await it.ended()


async def test_02_nothing_is_asked_when_the_caller_has_gone_meanwhile(autojump_clock: MockClock) -> None:
    """Nor is anything left of a session that was still being opened."""
    async with house(Script.of(HELLO)) as it:
        it.model.faults.created_after_s = 3.0
        channel, _ = await it.stasis_call()
        await trio.sleep(1)
        channel.hang_up()
        assert (await it.ended())["reason"] == "caller_hung_up"
        await trio.sleep(10)
        assert it.model.received_events("response.create") == []
        assert it.model.open_connections == 0


# 3 The gate -----------------------------------------------------------------------------------------------------------


async def test_03_no_audio_before_the_acknowledgement_and_no_wait_without_end_for_it(
    autojump_clock: MockClock,
) -> None:
    async with house(Script.of(HELLO)) as it:
        with it.model.no_session_updated():
            channel, caller = await it.stasis_call()
            caller.say(voice(2000))
            record = await it.ended()
        assert len(it.model.received_events("session.update")) >= 1
        assert kinds(it, "input_audio_buffer.append", "response.create") == []
        assert record["reason"] == "model_unreachable"
        assert record["duration_s"] < 15
        assert channel.state == "Ring"


async def test_03_an_update_is_sent_though_nothing_is_configured(autojump_clock: MockClock) -> None:
    async with house(settings="[agents.default]\ngreeting = ''\ninstructions = ''\ntranscription_model = ''\n") as it:
        channel, _ = await it.stasis_call()
        await it.model.wait_for("input_audio_buffer.append")
        assert it.model.received[0].event["type"] == "session.update"
        channel.hang_up()
        await it.ended()


# 4 Who is speaking ----------------------------------------------------------------------------------------------------


async def test_04_the_agent_speaks_as_long_as_something_is_to_be_heard(autojump_clock: MockClock) -> None:
    tail = Say("A long answer.", ms=8000, hz=440, pace=FAST)
    async with house(Script.of(tail, Say("Yes?", ms=300)), overrides=NO_LAG) as it:
        channel, caller = await it.stasis_call()
        await it.model.wait_sent("response.done")
        await trio.sleep(2)
        await say(it, caller, 600)
        await trio.sleep(0.1)
        assert it.told("agent_interrupted")
        assert heard_ms(caller) < 3000
        channel.hang_up()
        assert (await it.ended())["interruptions"] == 1


# 5 Late audio ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("after_done", [True, False])
async def test_05_audio_in_flight_of_a_cancelled_response_is_dropped(
    autojump_clock: MockClock, after_done: bool
) -> None:
    async with house(Script.of(LONG, Say("Yes?", ms=300)), overrides=NO_LAG) as it:
        channel, caller = await it.stasis_call()
        await it.hears_of("agent_starts")
        await trio.sleep(1)
        with it.model.late_deltas(10, after_done=after_done):
            it.model.session.speech_started()
            await it.model.wait_for("conversation.item.truncate")
            await trio.sleep(0.1)
            before = heard_ms(caller)
            await trio.sleep(3)
        assert heard_ms(caller) == before
        it.model.session.speech_stopped()
        await it.hears_of("agent_said", 2)
        channel.hang_up()
        await it.ended()


# 6 Truncation ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("after_s", [0.5, 3.0, 9.9])
async def test_06_truncated_to_what_was_played_and_never_beyond_what_came(
    autojump_clock: MockClock, after_s: float
) -> None:
    async with house(Script.of(LONG, Say("Yes?", ms=300)), overrides=NO_LAG) as it:
        channel, caller = await it.stasis_call()
        await it.hears_of("agent_starts")
        await trio.sleep(after_s)
        it.model.session.speech_started()
        truncate = await it.model.wait_for("conversation.item.truncate")
        await trio.sleep(0.1)
        assert abs(truncate["audio_end_ms"] - heard_ms(caller)) <= 20
        assert error_codes(it) == [], "the server takes it"
        it.model.session.speech_stopped()
        await it.hears_of("agent_said", 2)
        channel.hang_up()
        await it.ended()


async def test_06_what_nobody_heard_is_not_truncated(autojump_clock: MockClock) -> None:
    """The first frames are still on their way to the ear: 0 ms would be refused, so the item is deleted."""
    async with house(Script.of(LONG, Say("Yes?", ms=300)), overrides={"asterisk.lag_ms": "200"}) as it:
        channel, _ = await it.stasis_call()
        await it.hears_of("agent_starts")
        await trio.sleep(0.1)
        it.model.session.speech_started()
        await it.model.wait_for("conversation.item.delete")
        await trio.sleep(0.1)
        assert it.model.received_events("conversation.item.truncate") == []
        assert error_codes(it) == []
        assert it.model.session.items == []
        it.model.session.speech_stopped()
        await it.hears_of("agent_said")
        channel.hang_up()
        await it.ended()


# 7 Error triage -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "code",
    [
        "response_cancel_not_active",
        "input_audio_buffer_commit_empty",
        "item_truncate_invalid_item_id",
        "cannot_update_voice",
        "something_nobody_has_seen_yet",
        None,
    ],
)
async def test_07_routine_errors_end_no_call(autojump_clock: MockClock, code: str | None) -> None:
    async with house(Script.of(HELLO, Say("Yes?", ms=300))) as it:
        channel, caller = await it.stasis_call()
        await it.hears_of("agent_said")
        it.model.session.send_error(code, kind="invalid_request_error")
        assert (await it.hears_of("model_error"))["code"] == code, "told all the same"
        await say(it, caller, 600)
        await it.hears_of("agent_said", 2)
        channel.hang_up()
        assert (await it.ended())["reason"] == "caller_hung_up"


async def test_07_a_refused_response_is_asked_for_again_and_not_in_a_loop(autojump_clock: MockClock) -> None:
    async with house(Script.of(HELLO, Say("Yes?", ms=300))) as it:
        channel, _ = await it.stasis_call()
        await it.hears_of("agent_said")
        it.model.session.send_error("conversation_already_has_active_response", kind="invalid_request_error")
        await it.hears_of("agent_said", 2)
        await trio.sleep(10)
        assert len(it.model.received_events("response.create")) == 2
        channel.hang_up()
        assert (await it.ended())["reason"] == "caller_hung_up"


@pytest.mark.parametrize("code", ["invalid_api_key", "insufficient_quota", "model_not_found"])
async def test_07_fatal_errors_end_it(autojump_clock: MockClock, code: str) -> None:
    async with house(Script.of(HELLO)) as it:
        await it.stasis_call()
        await it.hears_of("agent_said")
        it.model.session.send_error(code, kind="invalid_request_error")
        record = await it.ended()
        assert (record["reason"], record["error"]["code"]) == ("model_rejected", code)


# 8 Reasons ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "reason", "completion"),
    [
        ("failed responses", "model_failed", "server failure"),
        ("error event", "model_rejected", "server error"),
        ("remote close", "model_lost", "disconnect from remote end"),
        ("clean remote close", "model_lost", "disconnect from remote end"),
        ("no connection", "model_unreachable", "connection failure"),
        ("our own end", "agent_hung_up", "normal conversation end"),
        ("the caller's end", "caller_hung_up", "normal conversation end"),
    ],
)
async def test_08_each_way_to_end_has_its_reason(
    autojump_clock: MockClock, what: str, reason: str, completion: str
) -> None:
    own = what == "our own end"
    first: list[Any] = (
        [Fail(), Fail()] if what == "failed responses" else [[HELLO, Call("hang_up")] if own else HELLO]
    )
    async with house(Script.of(*first)) as it:
        it.model_up = what != "no connection"
        channel, _ = await it.stasis_call()
        if what in ("error event", "remote close", "clean remote close", "the caller's end"):
            await it.hears_of("agent_said")
            it.model_up = False
            match what:
                case "error event":
                    it.model.session.send_error("invalid_api_key", kind="invalid_request_error")
                case "the caller's end":
                    channel.hang_up()
                case _:
                    await it.model.session.drop(1000 if what == "clean remote close" else None)
        record = await it.ended()
        assert (record["reason"], record["completion_reason"]) == (reason, completion)
        assert (record["error"] is None) == (completion == "normal conversation end")


async def test_08_incomplete_and_cancelled_responses_are_no_failures(autojump_clock: MockClock) -> None:
    script = Script.of([HELLO, Incomplete("max_output_tokens")], LONG, Say("Yes?", ms=300))
    async with house(script) as it:
        channel, caller = await it.stasis_call()
        assert (await it.hears_of("agent_said"))["heard_ms"] == 500, "what came is heard"
        await say(it, caller, 600)
        await it.hears_of("agent_starts", 2)
        await trio.sleep(1)
        await say(it, caller, 600)
        await it.hears_of("agent_said", 3)
        assert statuses(it) == ["incomplete", "cancelled", "completed"]
        assert not it.told("response_retried")
        channel.hang_up()
        assert (await it.ended())["error"] is None


# 9 Function calls -----------------------------------------------------------------------------------------------------


async def _broken(_: Mapping[str, Any]) -> object:
    raise RuntimeError("no such luck")


async def _slow(_: Mapping[str, Any]) -> object:
    await trio.sleep_forever()
    return None


async def _fine(_: Mapping[str, Any]) -> object:
    return {"sky": "clear", "degrees": [1, 2.5], "none": None}


TOOLS = ToolRegistry([Tool("broken", "", _broken), Tool("slow", "", _slow), Tool("fine", "", _fine)])


@pytest.mark.parametrize(
    "calls",
    [
        [Call("nobody")],
        [Call("fine", "{broken")],
        [Call("broken")],
        [Call("slow")],
        [Call("fine")],
        [Call("fine"), Call("nobody"), Call("broken"), Call("fine", "[]")],
        [Call("slow"), Call("fine")],
        [Call("transfer_call", {"destination": "mars"}), Call("fine")],
    ],
    ids=lambda calls: "+".join(call.name for call in calls),
)
async def test_09_every_call_gets_one_output_and_every_turn_one_response(
    autojump_clock: MockClock, calls: list[Call]
) -> None:
    async with house(Script.of(calls, Say("Done.", ms=300)), settings=TRANSFERS, tools=TOOLS) as it:
        channel, _ = await it.stasis_call()
        await it.hears_of("agent_said")
        await trio.sleep(20)
        items = [event["item"] for event in it.model.received_events("conversation.item.create")]
        assert sorted(item["call_id"] for item in items) == sorted(
            item.wire["call_id"] for item in it.model.session.items if item.type == "function_call"
        )
        assert all(isinstance(item["output"], str) for item in items)
        assert len(it.model.received_events("response.create")) == 2
        assert error_codes(it) == []
        channel.hang_up()
        await it.ended()


async def test_09_a_caller_who_speaks_while_a_tool_runs_gets_one_answer(autojump_clock: MockClock) -> None:
    async def waits(_: Mapping[str, Any]) -> str:
        await trio.sleep(1)
        return "x"

    tools = ToolRegistry([Tool("waits", "", waits)])
    async with house(Script.of([HELLO, Call("waits")], Say("To both.", ms=300)), tools=tools) as it:
        channel, caller = await it.stasis_call()
        await it.hears_of("tool_called")
        await say(it, caller, 2000)
        await it.hears_of("agent_said", 2)
        await trio.sleep(5)
        assert len(it.model.received_events("conversation.item.create")) == 1
        assert len(it.model.sent_events("response.created")) == 2
        channel.hang_up()
        await it.ended()


# 10 Tool envelopes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", ["as documented", "no name with the arguments", "done in the other order"])
async def test_10_a_call_is_understood_in_every_order_and_shape_and_once(
    autojump_clock: MockClock, shape: str
) -> None:
    asked: list[Mapping[str, Any]] = []

    async def weather(arguments: Mapping[str, Any]) -> str:
        asked.append(arguments)
        return "clear"

    call = Call("weather", {"city": "Oslo"}, name_in_done=shape != "no name with the arguments")
    tools = ToolRegistry([Tool("weather", "", weather)])
    async with house(Script.of(call, Say("Clear.", ms=300)), tools=tools) as it:
        with it.model.faulty(done_swapped=shape == "done in the other order"):
            channel, _ = await it.stasis_call()
            await it.hears_of("agent_said")
        assert asked == [{"city": "Oslo"}]
        output = it.model.received_events("conversation.item.create")[0]["item"]
        assert output == {"type": "function_call_output", "call_id": output["call_id"], "output": "clear"}
        channel.hang_up()
        await it.ended()


def test_10_declarations_are_flat_and_complete() -> None:
    """A nested `function` object is dropped without a word by some servers."""
    for declaration in TOOLS.declarations():
        assert {"type", "name", "parameters"} <= declaration.keys()
        assert "function" not in declaration


# 11 The end after the words -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("plain", [False, True], ids=["Stasis", "Dial"])
async def test_11_the_goodbye_is_heard_whole_and_the_caller_not_any_more(
    autojump_clock: MockClock, plain: bool
) -> None:
    bye = Say("Goodbye, and thank you for calling.", ms=3000, hz=440, pace=FAST)
    async with house(Script.of([bye, Call("hang_up", {"reason": "all said"})])) as it:
        caller = await it.plain_call(16000) if plain else (await it.stasis_call())[1]
        await it.hears_of("tool_called")
        await trio.sleep(0.1)
        appended = len(it.model.session.appended_pcm)
        caller.say(voice(1000))
        record = await it.ended()
        assert heard_ms(caller) == 3000
        assert len(it.model.session.appended_pcm) == appended
        assert (record["reason"], record["detail"]) == ("agent_hung_up", "all said")
        assert record["interruptions"] == 0


@pytest.mark.parametrize("tool", ["hang_up", "transfer_call"])
async def test_11_a_gap_between_deltas_is_not_the_end(autojump_clock: MockClock, tool: str) -> None:
    arguments = {"destination": "reception"} if tool == "transfer_call" else {}
    halting = Say("One moment and goodbye.", ms=2000, hz=440, pace=Pace(speed=0.5))
    async with house(Script.of([halting, Call(tool, arguments)]), settings=TRANSFERS) as it:
        it.ari.dialplan.add(("phones", "600", "1"))
        _, caller = await it.stasis_call()
        record = await it.ended()
        assert 2000 <= heard_ms(caller) <= 2000 + 20 * record["underruns"] + 20, "padded frames in the gaps"
        assert record["underruns"] > 2
        assert record["reason"] == ("transferred" if tool == "transfer_call" else "agent_hung_up")


# 12 Playback events ---------------------------------------------------------------------------------------------------


async def test_12_playback_events_are_the_audible_start_and_end(autojump_clock: MockClock) -> None:
    halting = Say("One. Two. Three.", ms=2000, hz=440, pace=Pace(speed=0.5))
    async with house(Script.of(halting)) as it:
        channel, caller = await it.stasis_call()
        first = await caller.hears_speech()
        await it.hears_of("agent_starts")
        assert trio.current_time() - first < 0.02
        await it.hears_of("agent_stops")
        assert trio.current_time() - caller.heard_frames[-1][0] < 0.05
        assert heard_ms(caller) >= 2000
        await trio.sleep(5)
        assert (len(it.told("agent_starts")), len(it.told("agent_stops"))) == (1, 1)
        channel.hang_up()
        assert (await it.ended())["underruns"] > 2


# 13 Event filters -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "taken", "refused"),
    [
        (None, ["response.done", "call.ended"], ["response.output_audio.delta"]),
        (["all"], ["response.done"], ["response.output_audio.delta"]),
        (["all", "-response.*"], ["session.created"], ["response.done", "response.output_text.delta"]),
        (["response.*"], ["response.done", "response.output_text.done"], ["session.created", "responses"]),
        ([], [], ["response.done"]),
    ],
)
def test_13_what_a_filter_lets_pass(words: list[str] | None, taken: list[str], refused: list[str]) -> None:
    it = EventFilter.parse(words)
    assert [event for event in taken if not it.takes(event)] == []
    assert [event for event in refused if it.takes(event)] == []


def test_13_exclusions_alone_are_a_mistake() -> None:
    with pytest.raises(ValueError, match="only exclusions"):
        EventFilter.parse(["-response.*"])


# 14 Reconnecting ------------------------------------------------------------------------------------------------------


async def test_14_another_session_knows_all_that_this_one_knew(autojump_clock: MockClock) -> None:
    async def slow(_: Mapping[str, Any]) -> str:
        await trio.sleep(6)
        return "42"

    settings = "[agents.default]\ninstructions = 'Be kind.'\nvoice = 'cedar'\n"
    script = Script.of(HELLO, Call("slow", {"x": 1}), Say("It is 42.", ms=300), transcripts=["How many?"])
    async with house(script, settings=settings, tools=ToolRegistry([Tool("slow", "", slow)])) as it:
        channel, caller = await it.stasis_call()
        await it.hears_of("agent_said")
        await say(it, caller, 600)
        await it.hears_of("tool_called")
        await trio.sleep(1)
        for n in (1, 2):
            await it.model.session.drop()
            await it.hears_of("session_resumed", n)
            await trio.sleep(1)
        await it.hears_of("agent_said", 2)
        updates = [event["session"] for event in it.model.received_events("session.update")]
        assert updates == [updates[0]] * 3
        assert [tool["name"] for tool in updates[0]["tools"]] == ["hang_up", "slow"]
        assert [(item.type, item.text) for item in it.model.session.items] == [
            ("message", "Hello!"),
            ("message", "How many?"),
            ("function_call", ""),
            ("function_call_output", "42"),
            ("message", "It is 42."),
        ]
        assert (len(it.told("session_lost")), len(it.told("session_resumed"))) == (2, 2), "the application is told"
        channel.hang_up()
        assert (await it.ended())["reason"] == "caller_hung_up"


async def test_14_the_sixty_minutes_are_expected(autojump_clock: MockClock) -> None:
    async with house(Script.of(HELLO), overrides={"limits.caller_silent_s": "9000"}, limit_s=9000) as it:
        with it.model.expiring(200):  # an hour in small: 0.05 s of work for each second of a call
            channel, caller = await it.stasis_call()
            await it.hears_of("agent_said")
        await trio.sleep(260)
        assert len(it.model.sessions) == 2
        assert not it.told("session_lost")
        assert caller.max_gap_ms() < 40
        channel.hang_up()
        assert (await it.ended())["reason"] == "caller_hung_up"


# 15 Late refusals -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", ["invalid_api_key", "model_not_found", "insufficient_quota"])
async def test_15_a_refusal_after_a_good_upgrade_is_one(autojump_clock: MockClock, code: str) -> None:
    async with house(Script.of(HELLO)) as it:
        with it.model.refusing(code):
            channel, _ = await it.stasis_call()
            record = await it.ended()
        assert (record["reason"], record["error"]["code"]) == ("model_rejected", code)
        assert (channel.state, record["answered_after_s"]) == ("Ring", None)


# Also -----------------------------------------------------------------------------------------------------------------


async def test_also_each_command_is_a_message_of_its_own(autojump_clock: MockClock) -> None:
    """Truncation, outputs, requests and audio at once: the strict server understands every one."""
    script = Script.of([LONG, Call("fine")])
    for _ in range(4):
        script.add([Call("fine"), HELLO])
    async with house(script, tools=TOOLS) as it:
        channel, caller = await it.stasis_call()
        await it.hears_of("agent_starts")
        for _ in range(3):
            caller.say(voice(500))
            channel.press("5")
            await trio.sleep(3)
        assert error_codes(it) == []
        assert not it.model.problems
        channel.hang_up()
        await it.ended()


async def test_also_instructions_may_hold_any_character(autojump_clock: MockClock) -> None:
    words = "Say | \"quoted\", 'single', \\ back, {braces}, %s, ünï, 日本 and \n a new line."
    settings = f"[agents.default]\ninstructions = {json.dumps(words)}\n"
    async with house(Script.of(HELLO), settings=settings) as it:
        channel, _ = await it.stasis_call()
        assert (await it.model.wait_for("session.update"))["session"]["instructions"] == words
        asked = await it.model.wait_for("response.create")
        assert asked["response"]["instructions"].startswith(words)
        channel.hang_up()
        await it.ended()


@pytest.mark.parametrize("after_s", [0.0, 3.0], ids=["early", "late"])
@pytest.mark.parametrize("words", ["", None, "Yes."], ids=["empty", "failed", "words"])
async def test_also_transcripts_may_be_early_late_empty_or_missing(
    autojump_clock: MockClock, after_s: float, words: str | None
) -> None:
    async with house(Script.of(HELLO, Say("Fine.", ms=300), Say("And?", ms=300), transcripts=[words, words])) as it:
        it.model.faults.transcript_after_s = after_s
        channel, caller = await it.stasis_call()
        for n in (1, 2):
            await it.hears_of("agent_said", n)
            await say(it, caller, 600)
        await it.hears_of("agent_said", 3)
        await trio.sleep(5)
        said = [facts["text"] for facts in it.told("caller_said")]
        assert said == ([] if words is None else [words, words])
        channel.hang_up()
        assert (await it.ended())["reason"] == "caller_hung_up"


def test_also_partial_words_are_pieces_and_the_last_word_is_the_whole() -> None:
    rig = Rig()
    rig.created()
    rig.delta(100)
    for piece in ("Hel", "lo th", "ere."):
        rig.server("response.output_audio_transcript.delta", item_id="A1", delta=piece)
    (turn,) = rig.it.history
    assert turn.text == "Hello there."
    rig.words("Hello there.")
    rig.done()
    assert notices(rig.play(140), "agent_said")[0]["text"] == "Hello there."


def test_also_no_counter_overflows_after_twenty_minutes() -> None:
    rig = Rig()
    rig.created()
    for _ in range(130):
        rig.delta(10_000)
        rig.play(10_000)
    assert sent(rig.speech_started())[0]["audio_end_ms"] == pytest.approx(1_300_000, abs=40)


async def test_also_keys_are_not_audio(autojump_clock: MockClock) -> None:
    async with house(Script.of(HELLO, Say("Thanks.", ms=300))) as it:
        caller = await it.plain_call()
        await it.hears_of("agent_said")
        for key in "12#":
            caller.press(key)
        await it.hears_of("agent_said", 2)
        assert not any(it.model.session.appended_pcm)
        await caller.hang_up()
        await it.ended()


async def test_also_an_update_of_the_session_erases_no_tools(autojump_clock: MockClock) -> None:
    settings = "[agents.default]\ngreeting_barge_in = 'off'\n" + TRANSFERS
    async with house(Script.of(HELLO), settings=settings, tools=TOOLS) as it:
        channel, _ = await it.stasis_call()
        await it.model.wait_sent("session.updated", 2)
        names = [tool["name"] for tool in it.model.session.config["tools"]]
        assert names == ["hang_up", "transfer_call", "broken", "slow", "fine"]
        channel.hang_up()
        await it.ended()


async def test_also_an_echo_is_no_barge_in_where_lines_echo(autojump_clock: MockClock) -> None:
    script = Script.of(LONG, transcripts=[""] * 3)
    async with house(script, settings="[agents.default]\nbarge_in = 'confirm'\n") as it:
        channel, caller = await it.stasis_call()
        await it.hears_of("agent_starts")
        for _ in range(3):
            await say(it, caller, 150)
        said = await it.hears_of("agent_said")
        assert (said["text"], said["heard_ms"]) == (LONG.text, 10_000)
        assert len(it.told("false_alarm")) == 3
        channel.hang_up()
        assert (await it.ended())["interruptions"] == 0


async def test_also_a_reply_in_writing_is_survived(autojump_clock: MockClock) -> None:
    """There is nothing to hear of it; the caller's next turn is answered as always."""
    async with house(Script.of(HELLO, Say("In writing.", written=True), Say("Aloud.", ms=300))) as it:
        channel, caller = await it.stasis_call()
        await it.hears_of("agent_said")
        await say(it, caller, 600)
        await it.model.wait_sent("response.done", 2)
        await trio.sleep(1)
        await say(it, caller, 600)
        assert (await it.hears_of("agent_said", 2))["text"] == "Aloud."
        channel.hang_up()
        assert (await it.ended())["reason"] == "caller_hung_up"
