"""Keys, holds and causes on the real Asterisk: what the caller presses, what is pressed for him, what signalling says."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from asterisk.compare import loud_span_ms
from asterisk.exchange import command
from asterisk.human import sip_caller
from asterisk.line import Line, line
from asterisk.rtp_telephone import RATE_HZ
from asterisk.sip_scenarios import calls, holds
from asterisk.test_sip_call import extension_of
from bridge.tools import ToolContext, ToolRegistry
from simulators.model_script import AT_ONCE, Call, Part, Say, Script

pytestmark = pytest.mark.asterisk

SETTINGS = """
[agents.default]
press_keys = true
[agents.default.transfers.reception]
to = "600@phones"
[agents.default.keys]
0 = "transfer reception"
[agents.default.collect.pin]
max_digits = 6
secure = true
"""
STORY = Say("A long story.", ms=20_000, hz=440, pace=AT_ONCE)


async def test_a_key_of_the_map_transfers_in_mid_word() -> None:
    async with line(Script.of(STORY), settings=SETTINGS) as it:
        await it.test_caller(TEST_PLAY="silence/1", TEST_DIGITS="0")
        pressed = await it.hears_of("caller_key")
        record = await it.ended()
        assert (record["reason"], record["detail"]) == ("transferred", "reception")
        took_ms = (it.told("call_ended")[0].at_s - pressed.at_s) * 1000
        print(f"from the key to the hand-over: {took_ms:.0f} ms")
        assert took_ms < 500
        await it.reaches("human")


async def test_a_secret_is_keyed_in_and_known_to_the_application_alone(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[str] = []

    async def check_pin(context: ToolContext) -> bool:
        """Is the PIN right?"""
        seen.append(context.secure_digits["pin"])
        return True

    caplog.set_level(logging.DEBUG, "bridge")
    ask: list[Part] = [Say("Your PIN, please.", ms=300), Call("collect_digits", {"name": "pin"})]
    script = Script.of(ask, Call("check_pin"), Say("Welcome.", ms=300))
    async with line(script, settings=SETTINGS, tools=ToolRegistry([check_pin])) as it:
        it.model.observe_received = lambda event: sent.append(str(event))
        sent: list[str] = []
        caller = await it.test_caller(TEST_PLAY="silence/2", TEST_DIGITS="907431")
        await it.hears_of("collecting_digits")
        before = len(it.model.session.appended_pcm)
        await it.hears_of("digits_collected")
        during = len(it.model.session.appended_pcm)
        await it.hears_of("agent_said", 2)
        await it.hang_up(caller)
        record = await it.ended()
        assert seen == ["907431"]
        during_pcm = it.model.session.appended_pcm[before + 48 * 40 : during]
        assert not any(during_pcm), "its tones neither"
        assert len(during_pcm) > 48 * 1000
        everything = [repr(record), caplog.text, *sent]
        everything += [str(passed.event) for passed in [*it.model.received, *it.model.sent]]
        everything += [f"{told.event} {told.facts}" for told in it.collector.told]
        assert not [text for text in everything if "907431" in text or "9 0 7 4 3 1" in text]


@asynccontextmanager
async def reads_keys(it: Line) -> AsyncIterator[str]:
    """An extension in `test-caller` that answers and logs the keys that it gets."""
    extension = f"keys{it.media_port}"
    steps = ("Answer()", "Read(GOT,,8,,1,4)", "Gosub(step,s,1(read,got=${GOT}))", "Wait(20)")
    for priority, step in enumerate(steps, 1):
        said = await trio.to_thread.run_sync(
            command, f"dialplan add extension {extension},{priority},{step} into test-caller"
        )
        assert "added into" in said, said
    try:
        yield extension
    finally:
        with trio.move_on_after(5, shield=True):
            await trio.to_thread.run_sync(command, f"dialplan remove extension {extension}@test-caller")


async def test_keys_are_pressed_towards_the_other_side() -> None:
    script = Script.of([Say("Hm.", ms=200), Call("press_keys", {"keys": "12ww*9D"})], Say("Done."))
    async with line(script, settings=SETTINGS) as it, reads_keys(it) as extension:
        await it._originate("Local/100@phones/n", extension, "test-caller", "slin16")
        steps = await it.reaches("read", within_s=12)
        assert [step.details for step in steps if step.name == "read"] == ["got=12*9D"]
        assert it.told("keys_not_pressed") == []


async def test_the_far_end_holds_and_comes_back() -> None:
    story = Say("A story.", ms=5000, hz=440, pace=AT_ONCE)
    async with line(Script.of(story)) as it, extension_of(it) as extension:
        it.marks.add("PJSIP/sipp")
        async with sip_caller(extension, holds(2.0, 3.0)) as caller:
            began = await it.hears_of("hold_begins")
            appended = len(it.model.session.appended_pcm)
            ended = await it.hears_of("hold_ends")
            assert len(it.model.session.appended_pcm) - appended <= 48 * 40, "nothing of the music reaches the model"
            print(f"on hold for {ended.at_s - began.at_s:.2f} s")
            assert 2.8 <= ended.at_s - began.at_s <= 3.3
            said = await it.hears_of("agent_said")
            assert said.facts["heard_ms"] == 5000
            heard_ms = loud_span_ms(caller.voice.heard.pcm(), RATE_HZ)
            print(f"the telephone heard the story within {heard_ms:.0f} ms")
            assert 7700 <= heard_ms <= 8600, "it stood still for three seconds"


async def test_music_while_an_application_holds() -> None:
    held_at: list[float] = []

    async def hold_on(context: ToolContext) -> str:
        """Put the caller on hold for a moment."""
        context.call.hold("default")
        held_at.append(trio.current_time())
        await trio.sleep(2.5)
        context.call.resume()
        held_at.append(trio.current_time())
        return "ok"

    script = Script.of(Call("hold_on"), Say("Here I am.", ms=600, hz=440))
    async with line(script, tools=ToolRegistry([hold_on])) as it:
        phone = await it.phone()
        await it.hears_of("agent_said")
        assert it.told("music_failed") == []
        music = b"".join(pcm for at, pcm in phone.caller.heard_frames if held_at[0] + 0.3 < at < held_at[1])
        after = b"".join(pcm for at, pcm in phone.caller.heard_frames if at > held_at[1] + 0.1)
        print(f"music: {loud_span_ms(music, 16000):.0f} ms of {held_at[1] - held_at[0]:.2f} s")
        assert loud_span_ms(music, 16000, quiet=0.005) > 1500
        assert abs(loud_span_ms(after, 16000) - 600) <= 20, "and then the agent alone"


@pytest.mark.parametrize(("word", "cause"), [("normal", 16), ("rejected", 21), ("busy", 17)])
async def test_the_cause_is_in_the_bye(word: str, cause: int) -> None:
    goodbye: list[Part] = [Say("No.", ms=200), Call("hang_up", {"cause": word})]
    async with line(Script.of(goodbye)) as it, extension_of(it) as extension:
        it.marks.add("PJSIP/sipp")
        async with sip_caller(extension) as caller:
            bye = await caller.sees("BYE")
            assert f"cause={cause}" in bye.header("Reason"), bye.header("Reason")
            assert bye.header("Reason").startswith("Q.850")
        assert (await it.ended())["hangup_cause"] == cause


@pytest.mark.parametrize(("reason", "cause"), [("", 0), ("Q.850;cause=31", 31)])
async def test_the_callers_cause_is_in_the_record(reason: str, cause: int) -> None:
    """A telephone that tells none has none: 0 is not made a 16."""
    async with line(Script.of(Say("Hello!", ms=200))) as it, extension_of(it) as extension:
        it.marks.add("PJSIP/sipp")
        async with sip_caller(extension, calls(stays_s=1.5, reason=reason)):
            record = await it.ended()
            assert (record["reason"], record["hangup_cause"]) == ("caller_hung_up", cause)


async def test_a_silent_caller_is_asked_and_told_goodbye() -> None:
    """For real: the audio of a line that is silent and does not stop."""
    words = ("Hello!", "Are you there?", "Goodbye.")
    script = Script.of(*[Say(text, ms=300) for text in words])
    overrides = {"limits.caller_silent_prompt_s": "2", "limits.idle_prompts": "1"}
    async with line(script, overrides=overrides) as it:
        await it.test_caller()
        record = await it.ended()
        assert (record["reason"], record["hangup_cause"]) == ("caller_silent", 16)
        assert [told.facts["text"] for told in it.told("agent_said")] == list(words)
        asked, stopped = it.told("silence_prompt")[0].at_s, it.told("agent_stops")[0].at_s
        print(f"asked {asked - stopped:.2f} s after the last word")
        assert 1.9 <= asked - stopped <= 2.5
        assert "caller_silent" in [step.reason for step in await it.reaches("hung-up")]
