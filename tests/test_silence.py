"""No caller waits in silence for longer than the limit, whatever is broken meanwhile: what the soak found, one by one."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import trio
from house import FAST, house
from soak_watch import SILENCE_S
from trio.testing import MockClock

from bridge.tools import Tool, ToolRegistry
from simulators.caller import Caller
from simulators.model_script import Call, Pace, Say, Script
from simulators.realtime_faults import DropPoint

HELLO = Say("Hello!", ms=600, pace=FAST)


def longest_silence_s(caller: Caller, since: float) -> float:
    """Between two frames with sound (or `since`, or now)."""
    loud = [at for at, pcm in caller.heard_frames if at > since and pcm.strip(b"\0")]
    return max(later - earlier for earlier, later in pairwise([since, *loud, trio.current_time()]))


async def test_a_tool_that_finishes_between_two_sessions_leaves_the_caller_waiting(autojump_clock: MockClock) -> None:
    """The answer is owed from then on, though no session is there to be asked for it."""

    async def slow(_arguments: Mapping[str, Any]) -> str:
        await trio.sleep(3)
        return "found"

    script = Script.of(HELLO, Call("slow"), Say("It is seven.", ms=600, pace=FAST))
    async with house(script, tools=ToolRegistry([Tool("slow", "slow", slow)])) as it:
        channel, caller = await it.stasis_call()
        await it.hears_of("agent_said")
        it.model.session.speech_started()
        await trio.sleep(1)
        with it.model.dropping(DropPoint.MID_TOOL):
            it.model_up = False
            it.model.session.speech_stopped()
            turn_ended_at = trio.current_time()
            await it.hears_of("session_lost")
        await trio.sleep(14)
        it.model_up = True
        await it.hears_of("agent_said", 2)
        assert longest_silence_s(caller, turn_ended_at) <= SILENCE_S
        channel.hang_up()
        await it.ended()


async def test_a_model_that_stands_still_in_mid_word_leaves_the_caller_waiting(autojump_clock: MockClock) -> None:
    """Less than a frame of the word is left, which is held back for its rest: that is no speech that waits to be heard."""
    script = Script.of(HELLO, Say("A long answer", ms=4000, pace=Pace(speed=2, first_ms=100, delta_ms=110)))
    async with house(script) as it:
        channel, caller = await it.stasis_call()
        await it.hears_of("agent_said")
        it.model.session.speech_started()
        await trio.sleep(1)
        it.model.session.speech_stopped()
        await it.hears_of("agent_starts", 2)
        await trio.sleep(0.5)
        since = trio.current_time()
        with it.model.stalled():
            await it.hears_of("session_lost")
        assert longest_silence_s(caller, since) <= SILENCE_S
        assert it.told("caller_waits")
        channel.hang_up()
        await it.ended()
