"""A caller who says nothing, and the words before an end: the ladder as a table, and whole calls in virtual time."""

from __future__ import annotations

import pytest
import trio
from house import house
from talking import say, voice
from trio.testing import MockClock

from bridge.call_limits import GONE, STILL_THERE
from bridge.live_call import LiveCall
from bridge.silence import Rung, Silence
from simulators.ari_channels import HUNG_UP
from simulators.model_script import Call, Say, Script

PROMPT, GOODBYE, END = Rung.PROMPT, Rung.GOODBYE, Rung.END
LADDER = {"limits.caller_silent_prompt_s": "10", "limits.idle_prompts": "2"}
HELLO = Say("Hello!", ms=500)


# The ladder ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prompt_s", "server", "silences", "rungs"),
    [
        (10, False, [9.9, 10, 9.9, 10, 10], [None, PROMPT, None, PROMPT, GOODBYE]),
        (0, False, [10, 50, 99.9, 100], [None, None, None, END]),
        (10, True, [10, 50, 99.9, 100], [None, None, None, END]),
        (200, False, [99, 100], [None, END]),
    ],
)
def test_what_a_silence_leads_to(
    prompt_s: float, server: bool, silences: list[float], rungs: list[Rung | None]
) -> None:
    it = Silence(prompt_s, 2, 100)
    assert [it.lasted(seconds, server_prompts=server) for seconds in silences] == rungs


def test_the_servers_prompts_are_counted_the_same_and_a_word_begins_anew() -> None:
    it = Silence(10, 2, 100)
    assert [it.prompted() for _ in range(3)] == [PROMPT, PROMPT, GOODBYE]
    it.broken()
    assert it.prompted() is PROMPT


# In calls --------------------------------------------------------------------------------------------------------------

DETECTIONS = {
    "server_vad": "",
    "semantic_vad": '[agents.default.turn_detection]\ntype = "semantic_vad"\n',
    "manual": '[agents.default.turn_detection]\ntype = "manual"\n',
    "confirm": '[agents.default]\nbarge_in = "confirm"\n',
}


@pytest.mark.parametrize("detection", DETECTIONS)
async def test_prompt_prompt_goodbye(autojump_clock: MockClock, detection: str) -> None:
    words = ("Hello!", "Are you there?", "Still there?", "Goodbye.")
    script = Script.of(*[Say(text, ms=500) for text in words])
    async with house(script, settings=DETECTIONS[detection], overrides=LADDER) as it:
        channel, _ = await it.stasis_call()
        await it.hears_of("agent_said")
        began = trio.current_time()
        record = await it.ended()
        assert (record["reason"], record["detail"]) == ("caller_silent", "nothing from the caller after 2 prompts")
        assert [facts["text"] for facts in it.told("agent_said")] == list(words)
        asked = [event["response"]["instructions"] for event in it.model.received_events("response.create")]
        assert [STILL_THERE in text for text in asked] == [False, True, True, False]
        assert GONE in asked[3]
        assert 30 < trio.current_time() - began < 35
        assert channel.dialplan == HUNG_UP


async def test_a_word_begins_the_ladder_anew(autojump_clock: MockClock) -> None:
    script = Script.of(*[Say(f"{n}", ms=500) for n in range(7)])
    async with house(script, overrides=LADDER) as it:
        _, caller = await it.stasis_call()
        await it.hears_of("agent_said", 3)
        await say(it, caller, 600)
        assert (await it.ended())["reason"] == "caller_silent"
        assert len(it.told("agent_said")) == 7
        assert [facts["count"] for facts in it.told("silence_prompt")] == [1, 2, 1, 2]


@pytest.mark.parametrize("by", ["voice", "key"])
async def test_who_is_back_during_the_goodbye_is_not_hung_up_on(autojump_clock: MockClock, by: str) -> None:
    script = Script.of(HELLO, Say("1", ms=500), Say("2", ms=500), Say("Goodbye.", ms=4000), Say("Oh!", ms=500))
    async with house(script, overrides=LADDER) as it:
        channel, caller = await it.stasis_call()
        await it.hears_of("agent_starts", 4)
        await trio.sleep(1)
        if by == "voice":
            caller.say(voice(800))
        else:
            channel.press("1")
        await it.hears_of("caller_is_back")
        await it.hears_of("agent_said", 5)
        assert it.told("agent_said")[4]["text"] == "Oh!"
        assert not it.told("call_ended")
        channel.hang_up()
        assert (await it.ended())["reason"] == "caller_hung_up"


async def test_the_silence_of_who_waits_for_us_does_not_count(autojump_clock: MockClock) -> None:
    """A hold, a tool and a session that is away are no silence of the caller's."""
    calls: list[LiveCall] = []

    async def attend(call: LiveCall) -> None:
        calls.append(call)

    async with house(Script.of(HELLO), overrides=LADDER, on_call=attend) as it:
        channel, _ = await it.stasis_call()
        await it.hears_of("agent_said")
        channel.hold(True)
        await trio.sleep(40)
        channel.hold(False)
        await trio.sleep(9)
        calls[0].hold()
        await trio.sleep(40)
        calls[0].resume()
        await trio.sleep(9)
        assert it.told("silence_prompt") == []
        channel.hang_up()
        await it.ended()


async def test_the_last_minute(autojump_clock: MockClock) -> None:
    """Told before, said goodbye at the end, and hung up on nobody in mid-word."""
    overrides = {"limits.max_duration_s": "100", "limits.max_duration_warning_s": "30"}
    async with house(Script.of(HELLO, Say("Goodbye, time is over.", ms=3000)), overrides=overrides) as it:
        await it.stasis_call()
        await it.hears_of("agent_said")
        warned = await it.hears_of("call_nearly_over")
        assert warned["seconds"] == 30
        written = await it.model.wait_for("conversation.item.create")
        assert "has to end in 30 seconds" in written["item"]["content"][0]["text"]
        record = await it.ended()
        assert (record["reason"], record["detail"]) == ("max_duration", "call limit of 100 s reached")
        assert it.told("agent_said")[1]["heard_ms"] == 3000
        assert 102.5 < record["duration_s"] < 106


async def test_a_model_that_says_no_goodbye_does_not_keep_the_line(autojump_clock: MockClock) -> None:
    overrides = {"limits.max_duration_s": "60", "limits.goodbye_s": "5", "limits.response_stall_s": "100"}
    async with house(Script.of(HELLO, Say("Never.")), overrides=overrides) as it:
        await it.stasis_call()
        await it.hears_of("agent_said")
        await trio.sleep(50)
        with it.model.stalled():
            record = await it.ended()
        assert record["reason"] == "max_duration"
        assert 69 < record["duration_s"] < 73


async def test_a_hang_up_by_the_agent_needs_no_ladder(autojump_clock: MockClock) -> None:
    async with house(Script.of([HELLO, Call("hang_up")]), overrides=LADDER) as it:
        await it.stasis_call()
        assert (await it.ended())["reason"] == "agent_hung_up"
        assert it.told("silence_prompt") == []
