"""A call outlives its model sessions: lost in every place, expired, or replaced before their end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import trio
from house import House, house
from trio.testing import MockClock

from bridge.tools import Tool, ToolRegistry
from simulators.ari_callees import Callee
from simulators.ari_channels import Place
from simulators.model_script import ONE_DELTA, Call, Say, Script
from simulators.realtime_faults import DropPoint


async def turn(it: House, say_s: float = 1.0) -> None:
    """The caller says something; what is understood is the simulator's own text."""
    it.model.session.speech_started()
    await trio.sleep(say_s)
    it.model.session.speech_stopped()


def texts(items: list[Any]) -> list[tuple[str, str]]:
    """Role and text of the messages that a session holds."""
    found = []
    for item in items:
        body = item.wire if hasattr(item, "wire") else item
        if body.get("type") == "message":
            part = body["content"][0]
            found.append((body["role"], part.get("text") or part.get("transcript") or ""))
    return found


@pytest.mark.parametrize("code", [None, 1000, 1001, 1011, 1013])
async def test_a_session_that_ends_however_politely_is_replaced(autojump_clock: MockClock, code: int | None) -> None:
    async with house(Script.of(Say("Hello, how can I help you today?", ms=3000), Say("As I said.", ms=500))) as it:
        channel, caller = await it.stasis_call()
        await it.hears_of("agent_said")
        await it.model.session.drop(code)
        resumed = await it.hears_of("session_resumed")
        assert resumed["gap_ms"] < 500
        await turn(it)
        await it.hears_of("agent_said", 2)
        channel.hang_up()
        record = await it.ended()
        assert record["reason"] == "caller_hung_up"
        assert len(it.model.sessions) == 2
        assert caller.violations == []


@pytest.mark.parametrize("point", list(DropPoint), ids=lambda point: point.name)
async def test_a_session_lost_at_any_point_leaves_nobody_without_an_answer(
    autojump_clock: MockClock, point: DropPoint
) -> None:
    runs = 0

    async def weather(_arguments: Mapping[str, Any]) -> str:
        nonlocal runs
        runs += 1
        await trio.sleep(1)
        return "sunny"

    script = Script.of(Say("Hello!", ms=600), Call("weather"), *[Say("It is sunny.", ms=800)] * 3)
    async with house(script, tools=ToolRegistry([Tool("weather", "", weather)])) as it:
        channel, caller = await it.stasis_call()
        await it.hears_of("agent_said")
        with it.model.dropping(point):
            if point is DropPoint.AFTER_CREATED:
                await it.model.session.drop()
            else:
                await turn(it)
            await it.hears_of("session_resumed")
        if point in (DropPoint.DURING_SPEECH, DropPoint.AFTER_CREATED):
            await turn(it)
        await it.hears_of("agent_said", 2)
        await trio.sleep(5)
        channel.hang_up()
        record = await it.ended()
        assert record["reason"] == "caller_hung_up"
        assert runs <= 1, "a tool runs once, however many sessions hear of it"
        assert caller.violations == []


async def test_the_configuration_is_sent_again_whole_and_the_history_as_text(autojump_clock: MockClock) -> None:
    settings = """
    [agents.default]
    instructions = "Be kind."
    voice = "cedar"
    transfers.sales = {to = "600@phones"}
    """
    script = Script.of(Say("Hello there.", ms=600), Say("Nice to hear.", ms=600), Say("More.", ms=300))
    async with house(script, settings=settings) as it:
        channel, _ = await it.stasis_call()
        await it.hears_of("agent_said")
        await turn(it)
        await it.hears_of("agent_said", 2)
        await it.model.session.drop()
        await it.hears_of("session_resumed")
        first, second = it.model.received_events("session.update")[:2]
        assert first["session"] == second["session"]
        await trio.sleep(0.5)
        said = texts(list(it.model.session.items))
        assert [role for role, _ in said] == ["assistant", "user", "assistant"]
        assert [text for role, text in said if role == "assistant"] == ["Hello there.", "Nice to hear."]
        await trio.sleep(10)
        assert len(it.model.received_events("response.create")) == 1, "nobody was waiting for an answer"
        channel.hang_up()
        await it.ended()


async def test_a_reply_that_was_cut_goes_on_without_a_second_greeting(autojump_clock: MockClock) -> None:
    async with house(Script.of(Say("One two three four five six.", ms=6000), Say("Seven.", ms=500))) as it:
        channel, _ = await it.stasis_call()
        with it.model.dropping(DropPoint.MID_REPLY):
            await it.hears_of("session_resumed")
        asked = (await it.model.wait_for("response.create", 2))["response"]["instructions"]
        assert "do not greet again" in asked
        await it.hears_of("agent_said")
        channel.hang_up()
        await it.ended()


async def test_a_tool_that_ends_after_the_loss_is_answered_in_the_new_session(autojump_clock: MockClock) -> None:
    async def slow(_arguments: Mapping[str, Any]) -> str:
        await trio.sleep(3)
        return "42"

    script = Script.of(Say("Hello!", ms=300), Call("slow", {"x": 1}), Say("It is 42.", ms=500))
    async with house(script, tools=ToolRegistry([Tool("slow", "", slow)])) as it:
        channel, _ = await it.stasis_call()
        await it.hears_of("agent_said")
        with it.model.dropping(DropPoint.MID_TOOL):
            await turn(it)
            await it.hears_of("session_resumed")
        await it.hears_of("agent_said", 2)
        calls = [
            passed.event["item"]
            for passed in it.model.received
            if passed.connection == 2 and passed.event["type"] == "conversation.item.create"
        ]
        kinds = [item["type"] for item in calls]
        assert kinds[-2:] == ["function_call", "function_call_output"]
        assert (calls[-1]["output"], calls[-2]["arguments"]) == ("42", '{"x": 1}')
        channel.hang_up()
        await it.ended()


async def test_words_that_a_session_took_with_it_are_heard_by_the_next(autojump_clock: MockClock) -> None:
    async with house(Script.of(Say("Hello!", ms=300))) as it:
        channel, caller = await it.stasis_call()
        await it.hears_of("agent_said")
        it.model.session.speech_started()
        caller.say(bytes([1, 2]) * 16000)
        await trio.sleep(0.5)
        await it.model.session.drop()
        await it.hears_of("session_resumed")
        await trio.sleep(1.5)
        heard = it.model.session.appended_pcm
        assert any(heard[: 600 * 48]), "the beginning of the words was sent again, with half a second before it"
        words = np.count_nonzero(np.abs(np.frombuffer(heard, "<i2") - 513.0) < 5)
        assert abs(words / 24 - 1000) < 15, "all of them, once, and at their own pace"
        channel.hang_up()
        await it.ended()


async def test_barge_in_into_a_reply_of_a_session_that_is_gone(autojump_clock: MockClock) -> None:
    """Its rest plays on; what the caller has not heard of it is unsaid in the session that took over."""
    script = Script.of(Say("one two three four five six seven eight nine ten", ms=10_000), Say("Yes?", ms=300))
    async with house(script) as it:
        channel, _ = await it.stasis_call()
        await it.hears_of("response_done")
        await trio.sleep(3)
        await it.model.session.drop()
        await it.hears_of("session_resumed")
        await trio.sleep(1)
        await turn(it)
        await it.hears_of("agent_said", 2)
        said = [text for role, text in texts(list(it.model.session.items)) if role == "assistant"]
        assert said[0].startswith("one two three")
        assert not said[0].endswith("ten")
        assert it.model.received_events("conversation.item.truncate") == []
        channel.hang_up()
        await it.ended()


async def test_a_model_that_stays_away_sends_the_caller_to_the_dialplan(autojump_clock: MockClock) -> None:
    async with house(Script.of(Say("Hello!", ms=300))) as it:
        channel, _ = await it.stasis_call()
        await it.hears_of("agent_said")
        it.model_up = False
        await it.model.session.drop(1011)
        record = await it.ended()
        assert (record["reason"], record["completion_reason"]) == ("model_lost", "disconnect from remote end")
        assert "no other session could be opened" in record["detail"]
        assert channel.dialplan == Place()


async def test_a_model_that_comes_back_within_the_limit_is_waited_for(autojump_clock: MockClock) -> None:
    async with house(Script.of(Say("Hello!", ms=300), Say("Back.", ms=300))) as it:
        channel, _ = await it.stasis_call()
        await it.hears_of("agent_said")
        it.model_up = False
        await it.model.session.drop()
        await trio.sleep(10)
        it.model_up = True
        await it.hears_of("session_resumed")
        await turn(it)
        await it.hears_of("agent_said", 2)
        channel.hang_up()
        assert (await it.ended())["reason"] == "caller_hung_up"


async def test_one_server_that_accepts_and_says_nothing_does_not_use_up_the_time_for_others(
    autojump_clock: MockClock,
) -> None:
    async with house(Script.of(Say("Hello!", ms=300), Say("Back.", ms=300))) as it:
        channel, _ = await it.stasis_call()
        await it.hears_of("agent_said")
        with it.model.silent():
            await it.model.session.drop()
            await trio.sleep(2)
        assert (await it.hears_of("session_resumed"))["gap_ms"] < 10_000
        channel.hang_up()
        assert (await it.ended())["reason"] == "caller_hung_up"


async def test_a_session_that_expires_while_it_is_opened_is_opened_again(autojump_clock: MockClock) -> None:
    async with house(Script.of(Say("Hello!", ms=300))) as it:
        channel, _ = await it.stasis_call()
        await it.hears_of("agent_said")
        with it.model.faulty(created_after_s=1.0):
            await it.model.session.drop()
            await it.model.until(lambda: len(it.model.sessions) == 2)
            it.model.session.expire()
        assert (await it.hears_of("session_resumed"))["sessions"] == 2
        channel.hang_up()
        assert (await it.ended())["reason"] == "caller_hung_up"


async def test_sessions_that_only_break_are_not_opened_for_ever(autojump_clock: MockClock) -> None:
    async with house(Script.of(*[Say("Hello!", ms=5000)] * 9)) as it:
        channel, _ = await it.stasis_call()
        with it.model.dropping(*[DropPoint.MID_REPLY] * 9):
            record = await it.ended()
        assert record["reason"] == "model_lost"
        assert len(it.model.sessions) == 4
        assert channel.dialplan == Place()


async def test_a_model_that_falls_silent_gets_another_session(autojump_clock: MockClock) -> None:
    async with house(Script.of(Say("Hello!", ms=1000), Say("Never.", ms=1000), Say("At last.", ms=300))) as it:
        channel, _ = await it.stasis_call()
        await it.hears_of("agent_said")
        with it.model.stalled():
            await turn(it)
            lost = await it.hears_of("session_lost")
        assert lost["reason"] == "model_stalled"
        await it.hears_of("agent_said", 2)
        channel.hang_up()
        assert (await it.ended())["reason"] == "caller_hung_up"


async def test_a_dead_way_to_the_model_is_noticed(autojump_clock: MockClock) -> None:
    """Nothing arrives any more and writes wait: neither silence for minutes nor a good end."""
    async with house(Script.of(Say("Hello!"))) as it:
        channel, _ = await it.stasis_call()
        await it.hears_of("agent_said")
        with it.model_path_dead():
            began = trio.current_time()
            await it.hears_of("session_lost")
            assert trio.current_time() - began < 6
            record = await it.ended()
        assert record["reason"] == "model_lost"
        assert channel.dialplan == Place()


async def test_the_hour_is_crossed_between_two_turns(autojump_clock: MockClock) -> None:
    script = Script.of(Say("Hello!", ms=600), Say("Before.", ms=600), Say("After.", ms=600))
    async with house(script, overrides={"limits.caller_silent_s": "1000"}, limit_s=6000) as it:
        with it.model.expiring(200):  # an hour in small
            channel, caller = await it.stasis_call()
            await it.hears_of("agent_said")
        await trio.sleep(95)
        await turn(it)
        await it.hears_of("agent_said", 2)
        assert len(it.model.sessions) == 1
        await trio.sleep(20)
        assert (await it.hears_of("session_resumed"))["gap_ms"] == 0
        assert len(it.model.sessions) == 2
        assert not it.told("session_lost")
        assert [text for role, text in texts(list(it.model.session.items)) if role == "assistant"] == [
            "Hello!",
            "Before.",
        ]
        await trio.sleep(120)
        await turn(it)
        await it.hears_of("agent_said", 3)
        channel.hang_up()
        await it.ended()
        assert caller.violations == []


async def test_an_expiry_that_nobody_announced_is_a_loss_like_any_other(autojump_clock: MockClock) -> None:
    script = Script.of(Say("Hello!", ms=600), Say("After.", ms=600))
    async with house(script) as it:
        channel, _ = await it.stasis_call()
        await it.hears_of("agent_said")
        it.model.session.expire()
        assert (await it.hears_of("session_resumed"))["gap_ms"] < 500
        assert it.told("session_lost")[0]["code"] == "session_expired"
        await turn(it)
        await it.hears_of("agent_said", 2)
        channel.hang_up()
        assert (await it.ended())["reason"] == "caller_hung_up"


async def test_a_hand_over_that_fails_after_the_session_was_lost_goes_on_with_another(
    autojump_clock: MockClock,
) -> None:
    settings = """
    [agents.default]
    transfers.sales = {endpoint = "PJSIP/600"}
    """
    words = Say("I will connect you with somebody who knows more about that.", ms=3000)
    script = Script.of([words, Call("transfer_call", {"destination": "sales"})], Say("Sorry!", ms=300))
    async with house(script, settings=settings) as it:
        it.ari.callees["PJSIP/600"] = Callee(cause=17)
        channel, _ = await it.stasis_call()
        await it.hears_of("tool_called")
        await it.model.session.drop()
        await it.hears_of("transfer_failed")
        await it.hears_of("session_resumed")
        await it.hears_of("agent_said", 2)
        channel.hang_up()
        assert (await it.ended())["reason"] == "caller_hung_up"


async def test_a_message_without_end_costs_the_session_and_not_the_process(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridge.realtime_client.MOST_MESSAGE_BYTES", 200_000)
    async with house(Script.of(Say("Far too much.", ms=60_000, pace=ONE_DELTA), Say("Hello."))) as it:
        channel, _ = await it.stasis_call()
        await it.hears_of("session_resumed")
        assert it.told("session_lost")[0]["reason"] in ("model_lost", "model_failed")
        channel.hang_up()
        assert (await it.ended())["reason"] == "caller_hung_up"
