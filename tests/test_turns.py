"""Whose turn it is, in whole calls: barge-in policies, manual turns, semantic VAD, silence, failures, functions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import trio
from house import FAST, House, house
from talking import gaps_ms, heard_ms, kinds, say, statuses, voice, voice_heard
from trio.testing import MockClock

from bridge.responses import APART
from bridge.tools import Tool, ToolRegistry
from simulators.model_script import Call, Fail, Pace, Say, Script

NO_LAG = {"asterisk.lag_ms": "0"}
STORY = Say("one two three four five six seven eight nine ten", ms=10_000, hz=440)
STORY_AT_ONCE = Say(STORY.text, ms=10_000, hz=440, pace=FAST)
STORY_SLOWLY = Say(STORY.text, ms=10_000, hz=440, pace=Pace(speed=1.2))


def policy(barge_in: str, **agent: str) -> str:
    more = "".join(f"\n{key} = {value}" for key, value in agent.items())
    return f'[agents.default]\nbarge_in = "{barge_in}"{more}\n'


# Moments of a reply at which a caller speaks: (script, how long after the agent begins to be heard)
MOMENTS = pytest.mark.parametrize(
    ("reply", "generating"), [(STORY_SLOWLY, True), (STORY_AT_ONCE, False)], ids=["generating", "buffered tail"]
)


# barge_in = "interrupt" -------------------------------------------------------------------------------------------------


@MOMENTS
async def test_interrupt_stops_at_the_first_sound(autojump_clock: MockClock, reply: Say, generating: bool) -> None:
    script = Script.of(reply, Say("Yes?", ms=500))
    async with house(script, settings=policy("interrupt"), overrides=NO_LAG) as it:
        channel, caller = await it.stasis_call()
        await it.hears_of("agent_starts")
        await trio.sleep(2)
        assert bool(it.model.session.core.active) == generating
        caller.say(voice(600))
        truncate = await it.model.wait_for("conversation.item.truncate")
        await trio.sleep(0.3)
        assert abs(truncate["audio_end_ms"] - heard_ms(caller)) <= 20
        assert statuses(it) == ["cancelled" if generating else "completed"]
        assert it.model.received_events("response.cancel") == [], "the server did that"
        await it.hears_of("agent_said", 2)
        assert it.told("agent_interrupted")[0]["heard_ms"] == truncate["audio_end_ms"]
        channel.hang_up()
        assert (await it.ended())["interruptions"] == 1


async def test_interrupt_before_the_first_delta(autojump_clock: MockClock) -> None:
    """Nothing was heard of it, so there is nothing to truncate."""
    script = Script.of(Say("Hello!", ms=500), Say("Never.", ms=5000, pace=Pace(first_ms=3000)), Say("Yes?", ms=500))
    async with house(script, settings=policy("interrupt"), overrides=NO_LAG) as it:
        channel, caller = await it.stasis_call()
        await it.hears_of("agent_said")
        await say(it, caller, 600)
        await it.model.wait_sent("response.created", 2)
        await say(it, caller, 600)
        await it.hears_of("agent_said", 2)
        assert statuses(it) == ["completed", "cancelled", "completed"]
        assert it.model.received_events("conversation.item.truncate") == []
        assert heard_ms(caller) < 1100
        assert [facts["text"] for facts in it.told("agent_said")] == ["Hello!", "Yes?"]
        channel.hang_up()
        await it.ended()


# barge_in = "confirm" ---------------------------------------------------------------------------------------------------


async def undisturbed(reply: Say) -> bytes:
    """What a caller hears who says nothing."""
    async with house(Script.of(reply), overrides=NO_LAG) as it:
        channel, caller = await it.stasis_call()
        await it.hears_of("agent_said")
        channel.hang_up()
        await it.ended()
        return voice_heard(caller)


@MOMENTS
async def test_confirm_a_short_noise_pauses_and_leaves_no_trace(
    autojump_clock: MockClock, reply: Say, generating: bool
) -> None:
    whole = await undisturbed(reply)
    async with house(Script.of(reply), settings=policy("confirm"), overrides=NO_LAG) as it:
        channel, caller = await it.stasis_call()
        await it.hears_of("agent_starts")
        await trio.sleep(2)
        assert bool(it.model.session.core.active) == generating
        await say(it, caller, 120)
        await it.hears_of("false_alarm")
        said = await it.hears_of("agent_said")
        assert (said["text"], said["heard_ms"]) == (STORY.text, 10_000)
        assert voice_heard(caller) == whole, "it went on at the very sample"
        (gap,) = gaps_ms(caller)
        assert 500 <= gap <= 700, "until the server was sure that nobody speaks"
        await trio.sleep(5)
        assert it.model.received_events("conversation.item.truncate") == []
        (deleted,) = it.model.received_events("conversation.item.delete")
        (noise,) = it.model.sent_events("input_audio_buffer.committed")
        assert deleted["item_id"] == noise["item_id"]
        assert [item.role for item in it.model.session.items] == ["assistant"]
        assert len(it.model.sent_events("response.created")) == 1, "nobody answers a noise"
        channel.hang_up()
        assert (await it.ended())["interruptions"] == 0


@MOMENTS
async def test_confirm_speech_that_lasts_interrupts(autojump_clock: MockClock, reply: Say, generating: bool) -> None:
    script = Script.of(reply, Say("Yes?", ms=500))
    async with house(script, settings=policy("confirm"), overrides=NO_LAG) as it:
        channel, caller = await it.stasis_call()
        await it.hears_of("agent_starts")
        await trio.sleep(2)
        stopped_at = trio.current_time()
        caller.say(voice(3000))
        await it.hears_of("agent_paused")
        assert trio.current_time() - stopped_at < 0.15
        truncate = await it.model.wait_for("conversation.item.truncate")
        assert trio.current_time() - stopped_at < 1.3, "before the caller has finished"
        assert abs(truncate["audio_end_ms"] - heard_ms(caller)) <= 20
        assert it.told("agent_interrupted")[0]["heard_ms"] == truncate["audio_end_ms"]
        await it.hears_of("agent_said", 2)
        assert statuses(it) == (["cancelled", "completed"] if generating else ["completed", "completed"])
        assert len(it.model.received_events("response.cancel")) == generating
        assert not it.told("false_alarm")
        assert len(it.model.received_events("response.create")) == 2, "the greeting and the answer"
        channel.hang_up()
        assert (await it.ended())["interruptions"] == 1


async def test_confirm_speech_of_medium_length_interrupts_at_its_end(autojump_clock: MockClock) -> None:
    """Longer than a noise, over before the limit: the server's positions tell it."""
    script = Script.of(STORY_AT_ONCE, Say("Yes?", ms=500))
    async with house(script, settings=policy("confirm"), overrides=NO_LAG) as it:
        channel, caller = await it.stasis_call()
        await it.hears_of("agent_starts")
        await trio.sleep(2)
        await say(it, caller, 600)
        await it.hears_of("agent_said", 2)
        assert it.told("agent_said")[1]["text"] == "Yes?"
        assert len(it.model.received_events("conversation.item.truncate")) == 1
        channel.hang_up()
        assert (await it.ended())["interruptions"] == 1


async def test_confirm_words_that_are_understood_interrupt_at_once(autojump_clock: MockClock) -> None:
    """Where the transcription streams, words come before the speech is long enough."""
    settings = policy("confirm", barge_in_confirm_ms="5000")
    async with house(Script.of(STORY_AT_ONCE, Say("Yes?", ms=500)), settings=settings, overrides=NO_LAG) as it:
        channel, _ = await it.stasis_call()
        await it.hears_of("agent_starts")
        await trio.sleep(2)
        item_id = it.model.session.speech_started()
        await it.hears_of("agent_paused")
        await trio.sleep(0.2)
        kind = "conversation.item.input_audio_transcription.delta"
        it.model.session.core._emit({"type": kind, "item_id": item_id, "content_index": 0, "delta": "Wait"})
        it.model.session.wake()
        await it.hears_of("agent_interrupted")
        await trio.sleep(0.3)
        it.model.session.speech_stopped()
        await it.hears_of("agent_said", 2)
        assert not it.told("false_alarm")
        channel.hang_up()
        await it.ended()


async def test_confirm_a_noise_before_the_first_delta_holds_the_reply_back(autojump_clock: MockClock) -> None:
    script = Script.of(Say("Hello!", ms=500), Say("The answer.", ms=1000, hz=440, pace=Pace(first_ms=300)))
    async with house(script, settings=policy("confirm"), overrides=NO_LAG) as it:
        it.model.faults.transcript_after_s = 0.0
        channel, caller = await it.stasis_call()
        await it.hears_of("agent_said")
        await say(it, caller, 600)
        await it.model.wait_sent("response.created", 2)
        caller.say(voice(120))
        await it.hears_of("agent_paused")
        before = heard_ms(caller)
        await it.hears_of("false_alarm")
        assert heard_ms(caller) == before, "not a sound while it is not clear who speaks"
        said = await it.hears_of("agent_said", 2)
        assert (said["text"], said["heard_ms"]) == ("The answer.", 1000)
        assert statuses(it) == ["completed", "completed"]
        channel.hang_up()
        await it.ended()


async def test_confirm_a_silent_agent_listens_as_always(autojump_clock: MockClock) -> None:
    """What is short may be an answer then: "no"."""
    async with house(
        Script.of(Say("Shall I?", ms=500), Say("As you like.", ms=500)), settings=policy("confirm")
    ) as it:
        channel, caller = await it.stasis_call()
        await it.hears_of("agent_said")
        await trio.sleep(1)
        await say(it, caller, 200)
        await it.hears_of("agent_said", 2)
        assert not it.told("agent_paused")
        assert it.model.received_events("conversation.item.delete") == []
        channel.hang_up()
        await it.ended()


async def test_confirm_a_session_that_is_lost_while_it_is_unclear_ends_the_pause(autojump_clock: MockClock) -> None:
    script = Script.of(STORY_AT_ONCE, Say("Did you say something?", ms=500))
    async with house(script, settings=policy("confirm"), overrides=NO_LAG) as it:
        channel, caller = await it.stasis_call()
        await it.hears_of("agent_starts")
        await trio.sleep(2)
        it.model.session.speech_started()
        await it.hears_of("agent_paused")
        await trio.sleep(0.3)
        await it.model.session.drop()
        assert (await it.hears_of("agent_said"))["heard_ms"] == 10_000
        assert gaps_ms(caller)[0] <= 320
        channel.hang_up()
        await it.ended()


# barge_in = "off" ---------------------------------------------------------------------------------------------------


@MOMENTS
async def test_off_the_agent_speaks_to_its_end_and_answers_then(
    autojump_clock: MockClock, reply: Say, generating: bool
) -> None:
    whole = await undisturbed(reply)
    async with house(Script.of(reply, Say("Yes?", ms=500)), settings=policy("off"), overrides=NO_LAG) as it:
        channel, caller = await it.stasis_call()
        await it.hears_of("agent_starts")
        await trio.sleep(2)
        assert bool(it.model.session.core.active) == generating
        await say(it, caller, 2000)
        assert (await it.hears_of("agent_said"))["heard_ms"] == 10_000
        assert (await it.hears_of("agent_said", 2))["text"] == "Yes?"
        assert voice_heard(caller).startswith(whole)
        assert statuses(it) == ["completed", "completed"]
        assert kinds(it, "conversation.item.truncate", "response.cancel", "conversation.item.delete") == []
        channel.hang_up()
        assert (await it.ended())["interruptions"] == 0


async def test_off_before_the_first_delta(autojump_clock: MockClock) -> None:
    script = Script.of(Say("Hello!", ms=500), Say("First.", ms=500, pace=Pace(first_ms=2000)), Say("Second.", ms=500))
    async with house(script, settings=policy("off"), overrides=NO_LAG) as it:
        channel, caller = await it.stasis_call()
        await it.hears_of("agent_said")
        await say(it, caller, 600)
        await it.model.wait_sent("response.created", 2)
        await say(it, caller, 600)
        await it.hears_of("agent_said", 3)
        assert [facts["text"] for facts in it.told("agent_said")] == ["Hello!", "First.", "Second."]
        assert statuses(it) == ["completed"] * 3
        channel.hang_up()
        await it.ended()


async def test_off_several_turns_during_one_reply_bring_one_answer(autojump_clock: MockClock) -> None:
    script = Script.of(STORY_SLOWLY, Say("To all of that.", ms=500))
    async with house(script, settings=policy("off"), overrides=NO_LAG) as it:
        channel, caller = await it.stasis_call()
        await it.hears_of("agent_starts")
        for _ in range(3):
            await say(it, caller, 400)
        await it.hears_of("agent_said", 2)
        await trio.sleep(5)
        assert [item.role for item in it.model.session.items] == ["assistant", "user", "user", "user", "assistant"]
        assert len(it.model.received_events("response.create")) == 2
        channel.hang_up()
        await it.ended()


# greeting_barge_in = "off" ----------------------------------------------------------------------------------------------

PROTECTED = '[agents.default]\ngreeting_barge_in = "off"\n'


def switches(session: Mapping[str, Any]) -> tuple[bool, bool]:
    """Who answers and who interrupts, as a `session.update` says it: True is the server."""
    detection = session["audio"]["input"]["turn_detection"]
    return detection["create_response"], detection["interrupt_response"]


@MOMENTS
async def test_a_protected_greeting_is_heard_to_its_end_and_the_words_meanwhile_are_answered(
    autojump_clock: MockClock, reply: Say, generating: bool
) -> None:
    whole = await undisturbed(reply)
    async with house(Script.of(reply, Say("Yes?", ms=500)), settings=PROTECTED, overrides=NO_LAG) as it:
        channel, caller = await it.stasis_call()
        await it.hears_of("agent_starts")
        await trio.sleep(2)
        assert bool(it.model.session.core.active) == generating
        await say(it, caller, 1000)
        assert (await it.hears_of("agent_said"))["heard_ms"] == 10_000
        assert (await it.hears_of("agent_said", 2))["text"] == "Yes?"
        assert voice_heard(caller).startswith(whole)
        assert statuses(it) == ["completed", "completed"]
        assert kinds(it, "conversation.item.truncate", "response.cancel") == []
        channel.hang_up()
        assert (await it.ended())["interruptions"] == 0


async def test_after_a_protected_greeting_the_server_answers_and_the_caller_interrupts(
    autojump_clock: MockClock,
) -> None:
    script = Script.of(Say("Hello!", ms=2000), STORY_SLOWLY, Say("Yes?", ms=500))
    async with house(script, settings=PROTECTED, overrides=NO_LAG) as it:
        channel, caller = await it.stasis_call()
        await it.hears_of("agent_said")
        await trio.sleep(0.5)
        first, second = [event["session"] for event in it.model.received_events("session.update")]
        assert (switches(first), switches(second)) == ((False, False), (True, True))
        config = it.model.session.config
        assert config["instructions"] == first["instructions"], "the update changed nothing else"
        assert config["audio"]["input"]["turn_detection"]["silence_duration_ms"] == 500
        await say(it, caller, 600)
        await it.hears_of("agent_starts", 2)
        await trio.sleep(2)
        await say(it, caller, 600)
        await it.hears_of("agent_said", 3)
        assert len(it.model.received_events("response.create")) == 1, "the greeting: the server answers by itself"
        assert statuses(it) == ["completed", "cancelled", "completed"]
        channel.hang_up()
        assert (await it.ended())["interruptions"] == 1


async def test_a_protected_greeting_that_is_lost_with_its_session_is_still_protected(
    autojump_clock: MockClock,
) -> None:
    script = Script.of(STORY_SLOWLY, Say("I go on.", ms=2000))
    async with house(script, settings=PROTECTED, overrides=NO_LAG) as it:
        channel, caller = await it.stasis_call()
        await it.hears_of("agent_starts")
        await trio.sleep(2)
        await it.model.session.drop()
        await it.model.wait_for("response.create", 2)
        await it.model.wait_for("session.update", 3)
        assert heard_ms(caller) > 4000, "only after all of it was heard"
        told = [switches(event["session"]) for event in it.model.received_events("session.update")]
        assert told == [(False, False), (False, False), (True, True)]
        channel.hang_up()
        await it.ended()


async def test_without_a_greeting_nothing_is_protected(autojump_clock: MockClock) -> None:
    async with house(Script.of(Say("Yes?", ms=500)), settings=PROTECTED + 'greeting = ""\n') as it:
        channel, caller = await it.stasis_call()
        await trio.sleep(1)
        await say(it, caller, 600)
        await it.hears_of("agent_said")
        (update,) = it.model.received_events("session.update")
        assert switches(update["session"]) == (True, True)
        channel.hang_up()
        await it.ended()


# Manual turns ----------------------------------------------------------------------------------------------------------

MANUAL = "[agents.default.turn_detection]\ntype = 'manual'\n"
TURN = ("input_audio_buffer.clear", "input_audio_buffer.commit", "response.create")


async def test_manual_a_turn_is_cleared_committed_and_answered(autojump_clock: MockClock) -> None:
    async with house(Script.of(Say("Press star.", ms=500), Say("Yes?", ms=500)), settings=MANUAL) as it:
        channel, caller = await it.stasis_call()
        await it.hears_of("agent_said")
        assert it.model.session.config["audio"]["input"]["turn_detection"] is None
        await trio.sleep(2)
        assert it.model.received_events("input_audio_buffer.append") == [], "nobody has pressed the key yet"
        channel.press("*")
        await it.model.wait_for("input_audio_buffer.clear")
        caller.say(voice(1000))
        await caller.said()
        channel.press("#")
        await it.hears_of("agent_said", 2)
        assert kinds(it, *TURN) == ["response.create", *TURN]
        turn = it.model.session.items[1]
        assert turn.role == "user"
        assert 970 <= turn.audio_ms <= 1100
        appended = len(it.model.session.appended_pcm)
        await trio.sleep(2)
        assert len(it.model.session.appended_pcm) == appended, "the turn is over"
        channel.hang_up()
        assert (await it.ended())["reason"] == "caller_hung_up"


@MOMENTS
async def test_manual_the_talk_key_interrupts(autojump_clock: MockClock, reply: Say, generating: bool) -> None:
    async with house(Script.of(reply, Say("Yes?", ms=500)), settings=MANUAL, overrides=NO_LAG) as it:
        channel, caller = await it.stasis_call()
        await it.hears_of("agent_starts")
        await trio.sleep(2)
        channel.press("*")
        truncate = await it.model.wait_for("conversation.item.truncate")
        await trio.sleep(1)
        assert abs(truncate["audio_end_ms"] - heard_ms(caller)) <= 20
        assert len(it.model.received_events("response.cancel")) == generating, "nobody else does that"
        assert statuses(it) == ["cancelled" if generating else "completed"]
        channel.press("#")
        await it.hears_of("agent_said", 2)
        channel.hang_up()
        assert (await it.ended())["interruptions"] == 1


async def test_manual_the_talk_key_before_the_first_delta(autojump_clock: MockClock) -> None:
    """The request for the greeting crosses with the key: it is cancelled as soon as it has a name."""
    async with house(Script.of(Say("Never.", ms=5000), Say("Yes?", ms=500)), settings=MANUAL) as it:
        it.model.faults.response_after_s = 1.0
        channel, caller = await it.stasis_call()
        await it.model.wait_for("response.create")
        channel.press("*")
        await it.model.wait_for("response.cancel")
        await trio.sleep(1)
        assert heard_ms(caller) == 0
        channel.press("#")
        assert (await it.hears_of("agent_said"))["text"] == "Yes?"
        assert statuses(it) == ["cancelled", "completed"]
        channel.hang_up()
        await it.ended()


async def test_manual_a_turn_that_is_too_short_leaves_nothing_behind(autojump_clock: MockClock) -> None:
    async with house(Script.of(Say("Press star.", ms=500), Say("Yes?", ms=500)), settings=MANUAL) as it:
        channel, caller = await it.stasis_call()
        await it.hears_of("agent_said")
        channel.press("*")
        channel.press("#")
        error = await it.model.wait_sent("error")
        assert error["error"]["code"] == "input_audio_buffer_commit_empty"
        await trio.sleep(20)
        assert len(it.model.received_events("response.create")) == 1, "the greeting's"
        assert not it.told("session_lost"), "nobody owes an answer"
        channel.press("*")
        await it.model.wait_for("input_audio_buffer.clear", 2)
        caller.say(voice(500))
        await caller.said()
        channel.press("#")
        await it.hears_of("agent_said", 2)
        channel.hang_up()
        assert (await it.ended())["reason"] == "caller_hung_up"


async def test_manual_without_a_talk_key_the_caller_is_always_heard(autojump_clock: MockClock) -> None:
    settings = MANUAL + "talk_key = ''\n"
    async with house(Script.of(Say("Press hash.", ms=500), Say("Yes?", ms=500)), settings=settings) as it:
        channel, caller = await it.stasis_call()
        await it.hears_of("agent_said")
        caller.say(voice(1000))
        await caller.said()
        channel.press("#")
        await it.hears_of("agent_said", 2)
        assert kinds(it, *TURN) == ["response.create", "input_audio_buffer.commit", "response.create"]
        turn = it.model.session.items[1]
        assert any(turn.pcm)
        channel.hang_up()
        await it.ended()


@pytest.mark.parametrize("talk_key", ["*", ""])
@pytest.mark.parametrize("moment", ["while the caller speaks", "before the send key", "after it"])
async def test_manual_a_turn_that_a_session_took_with_it_is_heard_whole_and_answered_once(
    autojump_clock: MockClock, moment: str, talk_key: str
) -> None:
    settings = f"{MANUAL}talk_key = '{talk_key}'\n"
    async with house(Script.of(Say("Press star.", ms=500), *[Say("Yes?", ms=500)] * 3), settings=settings) as it:
        channel, caller = await it.stasis_call()
        await it.hears_of("agent_said")
        if talk_key:
            channel.press("*")
            await it.model.wait_for("input_audio_buffer.clear")
        caller.say(voice(1000))
        if moment == "while the caller speaks":
            await trio.sleep(0.5)
            await it.model.session.drop()
            await it.hears_of("session_resumed")
            await caller.said()
            channel.press("#")
        else:
            await caller.said()
            if moment == "after it":
                it.model.faults.response_after_s = 0.5
                channel.press("#")
                await it.model.wait_for("response.create", 2)
            it.model_up = False
            await it.model.session.drop()
            await it.hears_of("session_lost")
            if moment == "before the send key":
                channel.press("#")
                await trio.sleep(0.5)
            it.model_up = True
        await it.hears_of("agent_said", 2)
        (turn,) = [item for item in it.model.session.items if item.role == "user"]
        loud_ms = np.count_nonzero(np.abs(np.frombuffer(bytes(turn.pcm), "<i2")) > 200) / 24
        assert 900 <= loud_ms <= 1100
        await trio.sleep(6)
        asked = [passed for passed in it.model.received if passed.event["type"] == "response.create"]
        assert [passed.connection for passed in asked].count(2) == 1
        channel.hang_up()
        assert (await it.ended())["reason"] == "caller_hung_up"


async def test_manual_nobody_speaks_while_the_key_is_held(autojump_clock: MockClock) -> None:
    async with house(Script.of(Say("Press star.", ms=500), Say("Yes?", ms=500)), settings=MANUAL) as it:
        channel, _ = await it.stasis_call()
        await it.hears_of("agent_said")
        channel.press("*")
        await it.model.session.drop()
        await it.hears_of("session_resumed")
        await trio.sleep(10)
        assert len(it.model.received_events("response.create")) == 1, "the greeting's"
        channel.press("#")
        await it.hears_of("agent_said", 2)
        channel.hang_up()
        await it.ended()


async def test_manual_other_keys_are_for_the_model(autojump_clock: MockClock) -> None:
    settings = MANUAL + "talk_key = '1'\nsend_key = '2'\n"
    async with house(Script.of(Say("Press.", ms=500), Say("Thanks.", ms=500)), settings=settings) as it:
        channel, _ = await it.stasis_call()
        await it.hears_of("agent_said")
        for key in "45#":
            channel.press(key)
        item = (await it.model.wait_for("conversation.item.create"))["item"]
        assert item["content"][0]["text"] == "(The caller pressed these keys: 4 5 #)"
        await it.hears_of("agent_said", 2)
        assert kinds(it, *TURN[:2]) == []
        channel.hang_up()
        await it.ended()


# Semantic VAD ---------------------------------------------------------------------------------------------------------


async def test_semantic_vad_is_asked_for_and_interrupts_like_any_other(autojump_clock: MockClock) -> None:
    settings = "[agents.default.turn_detection]\ntype = 'semantic_vad'\neagerness = 'high'\n"
    async with house(Script.of(STORY_SLOWLY, Say("Yes?", ms=500)), settings=settings, overrides=NO_LAG) as it:
        channel, caller = await it.stasis_call()
        assert (await it.model.wait_for("session.update"))["session"]["audio"]["input"]["turn_detection"] == {
            "type": "semantic_vad",
            "eagerness": "high",
            "create_response": True,
            "interrupt_response": True,
        }
        await it.hears_of("agent_starts")
        await trio.sleep(2)
        await say(it, caller, 600)
        await it.hears_of("agent_said", 2)
        assert statuses(it) == ["cancelled", "completed"]
        assert len(it.model.received_events("conversation.item.truncate")) == 1
        channel.hang_up()
        assert (await it.ended())["interruptions"] == 1


# Silence ----------------------------------------------------------------------------------------------------------------

IDLE = "[agents.default.turn_detection]\nidle_timeout_ms = 5000\n"


async def test_a_silent_caller_is_prompted_so_often_and_then_the_call_ends(autojump_clock: MockClock) -> None:
    words = ("Hello!", "Are you there?", "Still there?", "(the prompt too many)", "Goodbye.")
    script = Script.of(*[Say(text, ms=500) for text in words])
    async with house(script, settings=IDLE, overrides={"limits.idle_prompts": "2"}) as it:
        channel, _ = await it.stasis_call()
        record = await it.ended()
        assert (record["reason"], record["detail"]) == ("caller_silent", "nothing from the caller after 2 prompts")
        assert [facts["text"] for facts in it.told("agent_said")] == [
            *("Hello!", "Are you there?", "Still there?", "Goodbye.")
        ]
        assert len(it.model.sent_events("input_audio_buffer.timeout_triggered")) == 3
        assert len(it.model.received_events("response.create")) == 2, "the server prompts by itself"
        assert channel.dialplan == "hung up"


async def test_a_caller_who_speaks_is_given_all_prompts_again(autojump_clock: MockClock) -> None:
    script = Script.of(*[Say(f"{n}", ms=500) for n in range(8)])
    async with house(script, settings=IDLE, overrides={"limits.idle_prompts": "2"}) as it:
        _, caller = await it.stasis_call()
        await it.hears_of("agent_said", 3)
        await say(it, caller, 600)
        assert (await it.ended())["reason"] == "caller_silent"
        assert [facts["text"] for facts in it.told("agent_said")] == ["0", "1", "2", "3", "4", "5", "7"]


# Failures --------------------------------------------------------------------------------------------------------------


async def test_rate_limits_are_waited_out_with_growing_waits(autojump_clock: MockClock) -> None:
    limited = Fail.rate_limited(1)
    async with house(Script.of(limited, limited, limited, Say("At last.", ms=500))) as it:
        channel, _ = await it.stasis_call()
        await it.hears_of("agent_said")
        asked = [passed.at_s for passed in it.model.received if passed.event["type"] == "response.create"]
        waits_s = [later - earlier for earlier, later in pairwise(asked)]
        assert len(waits_s) == 3
        for waited_s, wanted_s in zip(waits_s, [1, 4, 8], strict=True):
            assert wanted_s - 0.001 < waited_s < wanted_s + 0.5
        assert [facts["rate_limited"] for facts in it.told("response_retried")] == [True] * 3
        channel.hang_up()
        assert (await it.ended())["reason"] == "caller_hung_up"


@pytest.mark.parametrize("first", ["the greeting", "an answer"])
async def test_a_response_that_fails_once_is_asked_for_again(autojump_clock: MockClock, first: str) -> None:
    hello, sorry = Say("Hello!", ms=500), Say("Here it is.", ms=500)
    script = Script.of(Fail(), hello) if first == "the greeting" else Script.of(hello, Fail(), sorry)
    async with house(script) as it:
        channel, caller = await it.stasis_call()
        await it.hears_of("agent_said")
        if first == "an answer":
            await say(it, caller, 600)
            await it.hears_of("agent_said", 2)
        assert len(it.told("response_retried")) == 1
        instructions = [
            event.get("response", {}).get("instructions", "") for event in it.model.received_events("response.create")
        ]
        assert ["Greet" in it for it in instructions] == ([True, True] if first == "the greeting" else [True, False])
        channel.hang_up()
        assert (await it.ended())["reason"] == "caller_hung_up"


async def test_a_response_that_fails_twice_ends_the_call(autojump_clock: MockClock) -> None:
    async with house(Script.of(Say("Hello!", ms=500), Fail(), Fail())) as it:
        _, caller = await it.stasis_call()
        await it.hears_of("agent_said")
        await say(it, caller, 600)
        record = await it.ended()
        assert (record["reason"], record["completion_reason"]) == ("model_failed", "server failure")
        assert len(it.model.received_events("response.create")) == 2, "the greeting, and one more try"


async def test_failures_with_good_answers_between_them_end_nothing(autojump_clock: MockClock) -> None:
    script = Script.of(Say("0", ms=300))
    for n in range(1, 5):
        script.add(Fail())
        script.add(Say(f"{n}", ms=300))
    async with house(script) as it:
        channel, caller = await it.stasis_call()
        for n in range(1, 5):
            await it.hears_of("agent_said", n)
            await say(it, caller, 600)
        await it.hears_of("agent_said", 5)
        channel.hang_up()
        assert (await it.ended())["reason"] == "caller_hung_up"


# Functions and barge-in -----------------------------------------------------------------------------------------------


class Work:
    """Two tools that take their time, and what they were asked."""

    def __init__(self, takes_s: float = 2.0) -> None:
        self.done: list[str] = []
        self._takes_s = takes_s
        self.tools = ToolRegistry([Tool("left", "", self._left), Tool("right", "", self._right)])

    async def _left(self, _: Mapping[str, Any]) -> str:
        await trio.sleep(self._takes_s)
        self.done.append("left")
        return "L"

    async def _right(self, _: Mapping[str, Any]) -> str:
        await trio.sleep(self._takes_s / 2)
        self.done.append("right")
        return "R"


def outputs(it: House) -> dict[str, str]:
    """What the model was told of each call. Raises when it was told twice."""
    found: dict[str, str] = {}
    for event in it.model.received_events("conversation.item.create"):
        if event["item"]["type"] == "function_call_output":
            assert event["item"]["call_id"] not in found
            found[event["item"]["call_id"]] = event["item"]["output"]
    return found


BOTH = (Call("left", call_id="C1"), Call("right", call_id="C2"))


async def test_parallel_calls_bring_one_answer(autojump_clock: MockClock) -> None:
    work = Work()
    async with house(Script.of([Say("A moment.", ms=500), *BOTH], Say("Both.", ms=500)), tools=work.tools) as it:
        channel, _ = await it.stasis_call()
        await it.hears_of("agent_said", 2)
        await trio.sleep(5)
        assert work.done == ["right", "left"]
        assert outputs(it) == {"C1": "L", "C2": "R"}
        assert kinds(it, "conversation.item.create", "response.create") == [
            "response.create", "conversation.item.create", "conversation.item.create", "response.create",
        ]  # fmt: skip
        channel.hang_up()
        await it.ended()


@pytest.mark.parametrize("barge_in", ["interrupt", "confirm", "off"])
async def test_a_caller_who_speaks_while_tools_run_is_answered_once(autojump_clock: MockClock, barge_in: str) -> None:
    work = Work(takes_s=1.0)
    script = Script.of([Say("A moment, please.", ms=300), *BOTH], Say("Both, and yes.", ms=500))
    async with house(script, settings=policy(barge_in), tools=work.tools) as it:
        channel, caller = await it.stasis_call()
        await it.hears_of("agent_stops")
        await say(it, caller, 2000)
        await it.hears_of("agent_said", 2)
        await trio.sleep(5)
        assert outputs(it) == {"C1": "L", "C2": "R"}
        assert len(it.model.sent_events("response.created")) == 2
        assert statuses(it) == ["completed", "completed"]
        channel.hang_up()
        await it.ended()


async def test_calls_of_an_interrupted_response_are_not_carried_out(autojump_clock: MockClock) -> None:
    work = Work()
    slow = Say("I shall look that up for you right away.", ms=4000, pace=Pace(speed=1.2))
    async with house(Script.of([slow, *BOTH], Say("Yes?", ms=500)), tools=work.tools) as it:
        channel, caller = await it.stasis_call()
        await it.hears_of("agent_starts")
        await trio.sleep(1)
        await say(it, caller, 600)
        await it.hears_of("agent_said", 2)
        assert work.done == []
        assert outputs(it) == {}
        channel.hang_up()
        await it.ended()


async def test_calls_are_answered_though_the_words_with_them_were_cut(autojump_clock: MockClock) -> None:
    """The response was complete when the caller spoke into its tail: its tools run, and the model hears of them once."""
    work = Work()
    words = Say("I shall look that up for you right away.", ms=6000, pace=FAST)
    async with house(Script.of([words, *BOTH], Say("Yes?", ms=500), Say("Both.", ms=500)), tools=work.tools) as it:
        channel, caller = await it.stasis_call()
        await it.hears_of("agent_starts")
        await trio.sleep(1)
        await say(it, caller, 600)
        await trio.sleep(8)
        assert work.done == ["right", "left"]
        assert outputs(it) == {"C1": "L", "C2": "R"}
        assert [facts["text"] for facts in it.told("agent_said")][1:] in (["Yes?"], ["Yes?", "Both."])
        channel.hang_up()
        await it.ended()


# Responses beside the call -----------------------------------------------------------------------------------------------


async def test_a_response_beside_the_call_is_never_heard(autojump_clock: MockClock) -> None:
    async with house(Script.of(Say("Hello!", ms=1000, hz=440), Say("Not for you.", ms=3000, hz=880))) as it:
        channel, caller = await it.stasis_call()
        await it.hears_of("agent_said")
        before = heard_ms(caller)
        beside = {"conversation": "none", "metadata": {APART: "1"}}
        it.model.session.core.receive(
            json.dumps({"type": "response.create", "response": beside}), trio.current_time()
        )
        it.model.session.wake()
        await it.model.wait_sent("response.done", 2)
        await trio.sleep(10)
        assert heard_ms(caller) == before
        assert len(it.told("agent_said")) == 1
        assert not it.told("session_lost"), "nobody waits for it"
        channel.hang_up()
        await it.ended()


async def test_a_response_beside_the_call_disturbs_none_of_the_dialogue(autojump_clock: MockClock) -> None:
    async with house(Script.of(STORY_SLOWLY, Say("Not for you.", ms=3000, hz=880))) as it:
        channel, caller = await it.stasis_call()
        await it.hears_of("agent_starts")
        await trio.sleep(1)
        beside = {"conversation": "none", "metadata": {APART: "1"}}
        it.model.session.core.receive(
            json.dumps({"type": "response.create", "response": beside}), trio.current_time()
        )
        it.model.session.wake()
        said = await it.hears_of("agent_said")
        assert (said["text"], said["heard_ms"]) == (STORY.text, 10_000)
        assert gaps_ms(caller) == []
        assert len(it.model.received_events("response.create")) == 1
        channel.hang_up()
        await it.ended()
