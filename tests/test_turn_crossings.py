"""Turns that cross: what came too early, too late, or in the middle of something else, each once a defect."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import trio
from house import FAST, house
from talking import heard_ms, say, statuses, voice
from test_conversation import Rig, sent
from test_turns import IDLE, MANUAL, NO_LAG, PROTECTED, STORY, STORY_AT_ONCE, STORY_SLOWLY, policy
from trio.testing import MockClock

from bridge.responses import APART
from bridge.tools import Tool, ToolRegistry
from simulators.model_script import Call, Fail, Pace, Say, Script
from simulators.realtime_faults import DropPoint


async def test_late_transcript_of_the_turn_before_confirms_no_barge_in(autojump_clock: MockClock) -> None:
    script = Script.of(Say("Hello!", ms=500), Say("The answer.", ms=1000, hz=440, pace=Pace(first_ms=300)))
    async with house(script, settings=policy("confirm"), overrides=NO_LAG) as it:
        channel, caller = await it.stasis_call()
        await it.hears_of("agent_said")
        await say(it, caller, 600)
        await it.model.wait_sent("response.created", 2)
        caller.say(voice(120))
        await it.hears_of("agent_paused")
        await it.hears_of("false_alarm")
        assert statuses(it)[-1] == "completed"
        channel.hang_up()
        await it.ended()


async def test_a_noise_is_not_in_the_history(autojump_clock: MockClock) -> None:
    """Its transcript comes after it was deleted, and brings it back."""
    script = Script.of(STORY_AT_ONCE, Say("Yes?", ms=500), transcripts=["Hm.", "Hello?"])
    async with house(script, settings=policy("confirm"), overrides=NO_LAG) as it:
        channel, caller = await it.stasis_call()
        await it.hears_of("agent_starts")
        await say(it, caller, 120)
        await it.hears_of("agent_said")
        await it.model.session.drop()
        await it.hears_of("session_resumed")
        await trio.sleep(1)
        texts = [item.text for item in it.model.session.items]
        assert it.told("caller_said") == []
        assert texts == [STORY.text]
        channel.hang_up()
        await it.ended()


async def test_a_cough_in_the_goodbye_does_not_cut_it(autojump_clock: MockClock) -> None:
    bye = Say("Thank you for calling, and goodbye to you.", ms=4000, hz=440, pace=Pace(speed=2))
    async with house(Script.of([bye, Call("hang_up")]), settings=policy("confirm"), overrides=NO_LAG) as it:
        _, caller = await it.stasis_call()
        await it.hears_of("agent_starts")
        await trio.sleep(1.9)
        caller.say(voice(120))
        began = trio.current_time()
        record = await it.ended()
        assert record["reason"] == "agent_hung_up"
        assert heard_ms(caller) == 4000
        assert trio.current_time() - began < 6


async def test_idle_prompts_with_own_answers_are_one_each(autojump_clock: MockClock) -> None:
    script = Script.of(*[Say(words, ms=500) for words in ("Hello!", "1", "2", "3", "4", "5", "6")])
    settings = policy("confirm") + IDLE
    async with house(script, settings=settings, overrides={"limits.idle_prompts": "2"}) as it:
        await it.stasis_call()
        record = await it.ended()
        assert record["reason"] == "caller_silent"
        assert [facts["text"] for facts in it.told("agent_said")] == ["Hello!", "1", "2", "4"], "3 was one too many"


async def test_a_call_beside_the_dialogue_is_not_carried_out(autojump_clock: MockClock) -> None:
    ran = []

    async def tool(_: Mapping[str, Any]) -> str:
        ran.append(1)
        return "x"

    script = Script.of(Say("Hello!", ms=1000), Call("tool"), Say("Answer", ms=500))
    async with house(script, tools=ToolRegistry([Tool("tool", "", tool)])) as it:
        channel, caller = await it.stasis_call()
        await it.hears_of("agent_said")
        beside = {"conversation": "none", "metadata": {APART: "1"}}
        it.model.session.core.receive(
            json.dumps({"type": "response.create", "response": beside}), trio.current_time()
        )
        it.model.session.wake()
        await it.model.wait_sent("response.done", 2)
        await say(it, caller, 600)
        await trio.sleep(5)
        assert ran == []
        channel.hang_up()
        await it.ended()


async def test_the_answer_after_a_protected_greeting_can_be_interrupted(autojump_clock: MockClock) -> None:
    script = Script.of(Say("Hello!", ms=4000, pace=FAST), STORY_SLOWLY, Say("Yes?", ms=500))
    async with house(script, settings=PROTECTED, overrides=NO_LAG) as it:
        channel, caller = await it.stasis_call()
        await it.hears_of("agent_starts")
        await trio.sleep(0.5)
        await say(it, caller, 600)
        await it.model.wait_sent("response.created", 2)
        await trio.sleep(5)
        await say(it, caller, 1000)
        await trio.sleep(0.2)
        assert len(it.told("agent_interrupted")) == 1
        channel.hang_up()
        await it.ended()


async def test_a_cut_off_turn_of_a_lost_session_is_told(autojump_clock: MockClock) -> None:
    script = Script.of(STORY_SLOWLY, Say("I go on.", ms=2000))
    async with house(script, overrides=NO_LAG) as it:
        channel, _ = await it.stasis_call()
        await it.hears_of("agent_starts")
        await trio.sleep(2)
        await it.model.session.drop()
        await it.hears_of("session_resumed")
        await trio.sleep(10)
        assert len(it.told("agent_said")) == 2
        assert it.told("agent_said")[0]["text"].startswith("one two"), it.told("agent_said")
        channel.hang_up()
        await it.ended()


async def test_a_noise_between_request_and_response_is_still_a_noise(autojump_clock: MockClock) -> None:
    """confirm: the request has been made, nothing is active yet: agent_speaks is False, so the noise is a turn."""
    script = Script.of(Say("Hello!", ms=3000), Say("What?", ms=500))
    async with house(script, settings=policy("confirm"), overrides=NO_LAG) as it:
        it.model.faults.response_after_s = 1.0
        channel, caller = await it.stasis_call()
        await it.model.wait_for("response.create")
        caller.say(voice(120))
        await trio.sleep(8)
        assert [facts["text"] for facts in it.told("agent_said")] == ["Hello!"]
        channel.hang_up()
        await it.ended()


def test_a_request_that_crossed_with_the_servers_own_answer_keeps_its_words() -> None:
    """The server's answer comes first, then the refusal of ours."""
    rig = Rig()
    rig.it.media_ready(rig.now)
    rig.server("input_audio_buffer.committed", item_id="U1")
    rig.created("R9")  # the server's own
    error = {"type": "invalid_request_error", "code": "conversation_already_has_active_response", "message": "busy"}
    rig.server("error", error=error)
    (again,) = sent(rig.done("R9"))
    assert again["response"]["instructions"].endswith("Say hello.")


async def test_all_that_was_said_before_the_send_key_is_committed(autojump_clock: MockClock) -> None:
    async with house(
        Script.of(Say("Press star.", ms=500), Say("Yes?", ms=500)),
        settings=MANUAL,
        overrides={"realtime.append_ms": "100"},
    ) as it:
        channel, caller = await it.stasis_call()
        await it.hears_of("agent_said")
        channel.press("*")
        await it.model.wait_for("input_audio_buffer.clear")
        caller.say(voice(960))
        await caller.said()
        channel.press("#")
        await it.hears_of("agent_said", 2)
        assert it.model.session.items[1].audio_ms >= 950
        channel.hang_up()
        await it.ended()


async def test_idle_rounds_are_no_words_of_the_caller(autojump_clock: MockClock) -> None:
    """A silence that the server commits is told to the next session as something the caller said."""
    script = Script.of(*[Say(words, ms=500) for words in ("Hello!", "1", "2", "3")], transcripts=["", "", ""])
    async with house(script, settings=IDLE) as it:
        channel, _ = await it.stasis_call()
        await it.hears_of("agent_said", 2)
        await it.model.session.drop()
        await it.hears_of("session_resumed")
        await trio.sleep(1)
        assert [item.text for item in it.model.session.items] == ["Hello!", "1"]
        channel.hang_up()
        await it.ended()


async def test_a_format_that_the_model_switches_in_mid_call_is_noticed(autojump_clock: MockClock) -> None:
    """Noise at full level is what the caller hears otherwise (3.1 and 6: check every session.updated)."""
    script = Script.of(Say("Hello!", ms=500), Say("Noise.", ms=1000))
    async with house(script, settings=PROTECTED) as it:
        channel, _caller = await it.stasis_call()
        await it.hears_of("agent_starts")
        it.model.faults.wrong_format = {"type": "audio/pcmu"}
        await it.model.wait_sent("session.updated", 2)
        it.model.faults.wrong_format = None
        await trio.sleep(1)
        assert it.told("session_lost") or it.told("call_ended")
        channel.hang_up()
        await it.ended()


async def test_talk_key_held_through_a_loss(autojump_clock: MockClock) -> None:
    """Manual turns: what was said before the loss is said again to the next session, and the send key commits it all."""
    script = Script.of(Say("Press star.", ms=500), Say("Yes?", ms=500))
    async with house(script, settings=MANUAL) as it:
        channel, caller = await it.stasis_call()
        await it.hears_of("agent_said")
        channel.press("*")
        await it.model.wait_for("input_audio_buffer.clear")
        caller.say(voice(3000))
        await trio.sleep(1.5)
        await it.model.session.drop()
        await caller.said()
        channel.press("#")
        await it.hears_of("agent_said", 2)
        turn = [item for item in it.model.session.items if item.role == "user"][-1]
        assert turn.audio_ms >= 2900
        assert len(it.model.received_events("response.create")) == 2
        channel.hang_up()
        await it.ended()


async def test_manual_turn_commit_refused_after_interrupting_keeps_the_call_alive(autojump_clock: MockClock) -> None:
    """star at once after the request: nothing pending afterwards, silence counts, no stall."""
    script = Script.of(STORY_SLOWLY, Say("Yes?", ms=500))
    async with house(script, settings=MANUAL, overrides={"limits.caller_silent_s": "30"}) as it:
        channel, _caller = await it.stasis_call()
        await it.hears_of("agent_starts")
        channel.press("*")
        channel.press("#")
        record = await it.ended()
        assert record["reason"] == "caller_silent"
        assert not it.told("session_lost")


async def test_off_speech_over_the_end_of_the_reply(autojump_clock: MockClock) -> None:
    """off: speech that begins in the reply and ends after it is answered once."""
    script = Script.of(Say("Hello there!", ms=2000, pace=FAST), Say("Yes?", ms=500))
    async with house(script, settings=policy("off")) as it:
        channel, caller = await it.stasis_call()
        await it.hears_of("agent_starts")
        await trio.sleep(1.5)
        await say(it, caller, 2000)
        await it.hears_of("agent_said", 2)
        await trio.sleep(5)
        assert len(it.model.received_events("response.create")) == 2
        channel.hang_up()
        await it.ended()


async def test_protected_greeting_ends_while_the_caller_speaks(autojump_clock: MockClock) -> None:
    """The update that gives the turn back to the server comes in mid-turn: one answer, neither two nor none."""
    script = Script.of(Say("Hello there!", ms=2000, pace=FAST), Say("Yes?", ms=500), Say("Again?", ms=500))
    async with house(script, settings=PROTECTED) as it:
        channel, caller = await it.stasis_call()
        await it.hears_of("agent_starts")
        await trio.sleep(1.5)
        await say(it, caller, 2000)
        await trio.sleep(8)
        assert [facts["text"] for facts in it.told("agent_said")] == ["Hello there!", "Yes?"]
        channel.hang_up()
        await it.ended()


async def test_protected_greeting_that_fails_twice_or_has_no_audio(autojump_clock: MockClock) -> None:
    """A greeting of which nothing is heard does not keep the protection for ever."""
    script = Script.of(Say("In writing.", written=True), STORY_SLOWLY, Say("Yes?", ms=500))
    async with house(script, settings=PROTECTED, overrides=NO_LAG) as it:
        channel, caller = await it.stasis_call()
        await it.model.wait_sent("response.done")
        await trio.sleep(1)
        await say(it, caller, 600)
        await it.hears_of("agent_starts")
        await trio.sleep(1)
        await say(it, caller, 1000)
        await it.hears_of("agent_said", 2)
        assert statuses(it) == ["completed", "cancelled", "completed"]
        channel.hang_up()
        await it.ended()


async def test_manual_the_key_after_an_answer_that_was_lost(autojump_clock: MockClock) -> None:
    """The session is lost between commit and answer: the turn is answered once by the next."""

    script = Script.of(Say("Press star.", ms=500), Say("Yes?", ms=500), Say("Twice?", ms=500))
    async with house(script, settings=MANUAL) as it:
        channel, caller = await it.stasis_call()
        await it.hears_of("agent_said")
        with it.model.dropping(DropPoint.AFTER_COMMIT):
            channel.press("*")
            await it.model.wait_for("input_audio_buffer.clear")
            caller.say(voice(1000))
            await caller.said()
            channel.press("#")
            await it.hears_of("session_resumed")
        await it.hears_of("agent_said", 2)
        await trio.sleep(10)
        assert [facts["text"] for facts in it.told("agent_said")] == ["Press star.", "Yes?"]
        channel.hang_up()
        await it.ended()


async def test_confirm_two_noises_in_a_row(autojump_clock: MockClock) -> None:
    script = Script.of(STORY_AT_ONCE, transcripts=["", ""])
    async with house(script, settings=policy("confirm"), overrides=NO_LAG) as it:
        channel, caller = await it.stasis_call()
        await it.hears_of("agent_starts")
        await trio.sleep(1)
        await say(it, caller, 120)
        await say(it, caller, 120)
        assert (await it.hears_of("agent_said"))["heard_ms"] == 10_000
        assert len(it.model.received_events("conversation.item.delete")) == 2
        channel.hang_up()
        await it.ended()


async def test_confirm_noise_while_a_tool_runs(autojump_clock: MockClock) -> None:
    """The agent is silent, a tool runs, a cough: its turn must not cost the answer of the tool."""

    async def slow(_: Mapping[str, Any]) -> str:
        await trio.sleep(3)
        return "42"

    script = Script.of([Say("A moment.", ms=300), Call("slow")], Say("It is 42.", ms=500), transcripts=["", ""])
    async with house(script, settings=policy("confirm"), tools=ToolRegistry([Tool("slow", "", slow)])) as it:
        channel, caller = await it.stasis_call()
        await it.hears_of("agent_stops")
        await say(it, caller, 120)
        await it.hears_of("agent_said", 2)
        await trio.sleep(6)
        assert len(it.told("agent_said")) == 2
        channel.hang_up()
        await it.ended()


async def test_interrupt_while_our_own_sound_plays(autojump_clock: MockClock) -> None:
    """The caller speaks into "one moment, please": nothing of the model is unsaid, and the answer comes."""

    async def slow(_: Mapping[str, Any]) -> str:
        await trio.sleep(8)
        return "42"

    script = Script.of([Say("A moment.", ms=300), Call("slow")], Say("It is 42.", ms=500), Say("And?", ms=300))
    async with house(script, tools=ToolRegistry([Tool("slow", "", slow)])) as it:
        channel, caller = await it.stasis_call()
        await it.hears_of("caller_waits")
        await trio.sleep(0.5)
        await say(it, caller, 600)
        await it.hears_of("agent_said", 2)
        await trio.sleep(10)
        assert it.model.received_events("conversation.item.truncate") == []
        assert it.model.received_events("conversation.item.delete") == []
        assert it.told("agent_interrupted") == []
        channel.hang_up()
        await it.ended()


async def test_budget_or_retry_wish_survives_a_tools_answer(autojump_clock: MockClock) -> None:
    """A waiting request with words (a rate-limited greeting) is not replaced by a bare one (keys pressed)."""
    script = Script.of(Fail.rate_limited(3), Say("Hello!", ms=500))
    async with house(script) as it:
        channel, _caller = await it.stasis_call()
        await it.hears_of("response_retried")
        channel.press("1")
        channel.press("#")
        await it.hears_of("agent_said")
        asked = it.model.received_events("response.create")
        assert "Greet" in str(asked[1])
        channel.hang_up()
        await it.ended()
