"""Who hears whom in whole calls: holds by either side, mute, keys pressed towards the caller, causes of a hang-up."""

from __future__ import annotations

import pytest
import trio
from house import FAST, house
from talking import gaps_ms, heard_ms, say, voice
from trio.testing import MockClock

from bridge.errors import ConfigError
from bridge.hangup_cause import CAUSES, cause_of
from bridge.live_call import LiveCall
from simulators.ari_channels import HUNG_UP
from simulators.model_script import Call, Say, Script

STORY = Say("A long story.", ms=10_000, pace=FAST)
PRESSES = "[agents.default]\npress_keys = true\n"


class Application:
    def __init__(self) -> None:
        self.came = trio.Event()
        self.call: LiveCall

    async def attend(self, call: LiveCall) -> None:
        self.call = call
        self.came.set()


# Hold by the far end ---------------------------------------------------------------------------------------------------


async def test_on_hold_the_agent_stands_still_and_goes_on_where_it_was(autojump_clock: MockClock) -> None:
    async with house(Script.of(STORY)) as it:
        channel, caller = await it.stasis_call()
        await it.hears_of("agent_starts")
        await trio.sleep(2)
        channel.hold(True)
        await it.hears_of("hold_begins")
        await trio.sleep(0.1)
        heard, appended = heard_ms(caller), len(it.model.session.appended_pcm)
        caller.say(voice(5000))  # music
        await trio.sleep(30)
        assert heard_ms(caller) == heard
        assert len(it.model.session.appended_pcm) - appended <= 48 * 20, "music is nobody who speaks"
        assert it.told("caller_waits") == []
        channel.hold(False)
        await it.hears_of("agent_said")
        assert heard_ms(caller) == 10_000, "nothing is lost"
        assert len(gaps_ms(caller)) == 1
        assert [item.text for item in it.model.session.items if item.role == "system"] == [
            "(The caller had put you on hold for 30 s, and is back.)"
        ]
        await say(it, caller, 600)
        await it.model.wait_sent("input_audio_buffer.committed")
        channel.hang_up()
        await it.ended()


async def test_a_session_that_is_lost_on_hold_is_replaced_without_the_music(autojump_clock: MockClock) -> None:
    async with house(Script.of(Say("Hello!"), Say("Yes?"))) as it:
        channel, caller = await it.stasis_call()
        await it.hears_of("agent_said")
        channel.hold(True)
        caller.say(voice(8000))
        await trio.sleep(4)
        await it.model.session.drop()
        await it.hears_of("session_resumed")
        await trio.sleep(2)
        assert not any(it.model.session.appended_pcm)
        channel.hold(False)
        channel.hang_up()
        await it.ended()


async def test_who_does_not_come_back_from_a_hold_is_hung_up(autojump_clock: MockClock) -> None:
    overrides = {"limits.hold_s": "90", "limits.caller_silent_s": "30"}
    async with house(Script.of(Say("Hello!")), overrides=overrides) as it:
        channel, _ = await it.stasis_call()
        await it.hears_of("agent_said")
        channel.hold(True)
        began = trio.current_time()
        record = await it.ended()
        assert (record["reason"], record["detail"]) == ("caller_silent", "on hold by the caller for 90 s")
        assert 90 <= trio.current_time() - began <= 91
        assert channel.dialplan == HUNG_UP


async def test_a_hold_in_mid_goodbye_has_its_limit_too(autojump_clock: MockClock) -> None:
    script = Script.of([Say("Goodbye, and thank you.", ms=3000), Call("hang_up", {"reason": "all said"})])
    async with house(script, overrides={"limits.hold_s": "90"}) as it:
        channel, _ = await it.stasis_call()
        await it.hears_of("agent_starts")
        await trio.sleep(1)
        channel.hold(True)
        began = trio.current_time()
        assert (await it.ended())["reason"] == "caller_silent"
        assert 90 <= trio.current_time() - began <= 91


# Hold, mute and keys by an application ------------------------------------------------------------------------------------


async def test_an_application_holds_and_resumes(autojump_clock: MockClock) -> None:
    app = Application()
    async with house(Script.of(STORY, Say("Here I am.", ms=400)), on_call=app.attend) as it:
        channel, caller = await it.stasis_call()
        await it.hears_of("agent_starts")
        await trio.sleep(2)
        app.call.hold("jazz")
        await trio.sleep(0.1)
        assert channel.music == "jazz"
        heard, appended = heard_ms(caller), len(it.model.session.appended_pcm)
        app.call.ask("Are you there?")
        caller.say(voice(1000))
        await trio.sleep(20)
        assert heard_ms(caller) == heard
        assert len(it.model.session.appended_pcm) == appended
        assert len(it.model.sent_events("response.created")) == 1, "the agent is asked for nothing"
        app.call.resume()
        app.call.resume()
        await it.hears_of("agent_said", 2)
        assert channel.music == ""
        assert heard_ms(caller) == 10_400
        channel.hang_up()
        await it.ended()


async def test_a_muted_caller_is_silence_for_the_model(autojump_clock: MockClock) -> None:
    app = Application()
    async with house(Script.of(Say("Hello!"), Say("Yes?")), on_call=app.attend) as it:
        channel, caller = await it.stasis_call()
        await it.hears_of("agent_said")
        app.call.mute("caller")
        await trio.sleep(0.1)
        appended = len(it.model.session.appended_pcm)
        caller.say(voice(2000))
        await trio.sleep(3)
        assert not any(it.model.session.appended_pcm[appended:])
        assert len(it.model.session.appended_pcm) - appended > 48 * 2900
        app.call.mute("caller", False)
        await say(it, caller, 600)
        await it.hears_of("agent_said", 2)
        channel.hang_up()
        await it.ended()


async def test_a_muted_agent_says_nothing(autojump_clock: MockClock) -> None:
    app = Application()
    async with house(Script.of(STORY, Say("Never heard."), Say("Again.", ms=400)), on_call=app.attend) as it:
        channel, caller = await it.stasis_call()
        await it.hears_of("agent_starts")
        await trio.sleep(1)
        app.call.mute("agent")
        await it.model.wait_for("conversation.item.truncate")
        heard = heard_ms(caller)
        await say(it, caller, 600)
        await trio.sleep(3)
        assert heard_ms(caller) == heard
        app.call.mute("agent", False)
        app.call.ask("And now?")
        await it.hears_of("agent_said", 2)
        assert it.told("agent_said")[-1]["text"] == "Again."
        channel.hang_up()
        await it.ended()


async def test_an_application_presses_keys(autojump_clock: MockClock) -> None:
    app = Application()
    async with house(Script.of(Say("Hello!")), on_call=app.attend) as it:
        channel, _ = await it.stasis_call()
        await it.hears_of("agent_said")
        app.call.press("12w#")
        await trio.sleep(0.1)
        assert channel.pressed == ["12w#"]
        with pytest.raises(ConfigError, match="must be keys of"):
            app.call.press("12x")
        channel.hang_up()
        await it.ended()


async def test_without_control_no_keys_and_no_music(autojump_clock: MockClock) -> None:
    app = Application()
    async with house(Script.of(Say("Hello!")), on_call=app.attend) as it:
        caller = await it.plain_call()
        await it.hears_of("agent_said")
        app.call.press("1")
        assert "Stasis()" in str((await it.hears_of("keys_not_pressed"))["message"])
        app.call.hold()
        assert "Stasis()" in str((await it.hears_of("music_failed"))["message"])
        app.call.resume()
        await caller.hang_up()
        await it.ended()
        assert caller.violations == [], "a digit on the AudioSocket would end the call"


@pytest.mark.parametrize(
    ("arguments", "output"),
    [({"keys": "3#"}, "pressed"), ({"keys": "three"}, "keys must be 1 to 64 of 0123456789*#ABCD and w")],
)
async def test_the_model_presses_keys(autojump_clock: MockClock, arguments: dict[str, str], output: str) -> None:
    async with house(Script.of(Call("press_keys", arguments), Say("Done.")), settings=PRESSES) as it:
        channel, _ = await it.stasis_call()
        await it.hears_of("agent_said")
        assert channel.pressed == (["3#"] if output == "pressed" else [])
        outputs = [item.wire["output"] for item in it.model.session.items if item.type == "function_call_output"]
        assert outputs == [output]
        channel.hang_up()
        await it.ended()


# Causes ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "cause"), [({}, 16), ({"cause": "rejected"}, 21), ({"cause": "busy"}, 17), ({"cause": "x"}, 16)]
)
async def test_the_model_says_with_what_cause_it_hangs_up(
    autojump_clock: MockClock, arguments: dict[str, str], cause: int
) -> None:
    async with house(Script.of([Say("Bye!", ms=300), Call("hang_up", arguments)])) as it:
        channel, _ = await it.stasis_call()
        record = await it.ended()
        assert (record["reason"], record["hangup_cause"]) == ("agent_hung_up", cause)
        assert channel.hung_up_with == cause


async def test_an_application_says_with_what_cause(autojump_clock: MockClock) -> None:
    app = Application()
    async with house(Script.of(Say("Hello!")), on_call=app.attend) as it:
        channel, _ = await it.stasis_call()
        await it.hears_of("agent_said")
        with pytest.raises(ConfigError, match=r"must be a Q\.850 number"):
            app.call.hang_up("no", cause="angry")
        app.call.hang_up("no", cause=29)
        assert (await it.ended())["hangup_cause"] == 29
        assert channel.hung_up_with == 29


async def test_the_callers_cause_is_in_the_record(autojump_clock: MockClock) -> None:
    async with house(Script.of(Say("Hello!"))) as it:
        channel, _ = await it.stasis_call()
        await it.hears_of("agent_said")
        channel.hang_up(cause=127)
        record = await it.ended()
        assert (record["reason"], record["hangup_cause"]) == ("caller_hung_up", 127)


@pytest.mark.parametrize(("cause", "number"), [*CAUSES.items(), (1, 1), (127, 127)])
def test_a_cause_is_a_word_of_aris_or_a_number(cause: str | int, number: int) -> None:
    assert cause_of(cause) == number


@pytest.mark.parametrize("cause", ["", "16", 0, 128, -1])
def test_another_cause_is_refused(cause: str | int) -> None:
    with pytest.raises(ConfigError, match="hang-up cause"):
        cause_of(cause)
