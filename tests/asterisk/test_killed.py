"""kill -9 and restart of each party of a call, in each phase of it: nobody is lost, nothing is left, the reasons are true.

One kill meets a caller in every phase at once. That nothing is left is checked by `parties`.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping

import pytest
import trio

from asterisk.parties import PHASES, in_thread, parties
from asterisk.victim import Victim

pytestmark = pytest.mark.asterisk

# As soon as the caller has been told that it is given up; the defaults would make everybody wait.
GIVES_UP_SOON = "model_connect_s = 6\nreconnect_s = 1.5"


def reasons(records: Mapping[str, Mapping[str, object]]) -> dict[str, object]:
    return {phase: record["reason"] for phase, record in records.items()}


async def test_the_model_is_killed_and_comes_back(victim: Victim) -> None:
    async with parties(victim) as it:
        held = await it.calls_in(*PHASES)
        it.model.kill()
        it.bridge.signal(signal.SIGCONT)
        await it.model.start()
        # Those who had heard nothing yet are answered by the new one, as if nothing had been.
        for phase in ("ringing", "connecting"):
            await it.reaches(held[phase], "test-caller")
        # Those who talked go on with another session, told what had been said.
        for phase in ("greeting", "talking", "tool"):
            assert (await it.of(held[phase], "session_resumed"))["sessions"] == 2
            await it.hears(held[phase])
        assert (await it.of(held["tool"], "agent_said"))["text"] == "It has been found."
        # What was decided is carried out: the words had been received.
        records = {phase: await it.record(held[phase]) for phase in ("transferring", "ending")}
        assert reasons(records) == {"transferring": "transferred", "ending": "agent_hung_up"}
        assert await it.reaches(held["transferring"], "human") == ["agent", "human"]
        await it.hang_up_all()
        for phase in ("ringing", "connecting", "greeting", "talking", "tool"):
            assert (await it.record(held[phase]))["reason"] == "caller_hung_up"
            assert "fallback" not in it.steps(held[phase])


async def test_the_model_is_killed_and_stays_away(victim: Victim) -> None:
    async with parties(victim, limits=GIVES_UP_SOON) as it:
        held = await it.calls_in(*PHASES)
        it.model.kill()
        it.bridge.signal(signal.SIGCONT)
        records = {phase: await it.record(held[phase]) for phase in PHASES}
        assert reasons(records) == {
            **dict.fromkeys(["ringing", "connecting"], "model_unreachable"),
            **dict.fromkeys(["greeting", "talking", "tool"], "model_lost"),
            **{"transferring": "transferred", "ending": "agent_hung_up"},
        }
        for phase in ("ringing", "connecting"):
            steps = await it.reaches(held[phase], "test-caller")
            assert steps[:4] == ["agent", "after-agent model_unreachable", "fallback", "test-caller"], (
                "never answered"
            )
        for phase in ("greeting", "talking", "tool"):
            assert await it.reaches(held[phase], "fallback") == ["agent", "after-agent model_lost", "fallback"]
        assert await it.reaches(held["transferring"], "human") == ["agent", "human"]
        assert await it.reaches(held["ending"], "hung-up") == ["agent", "hung-up"]


async def test_the_bridge_is_killed_and_comes_back(victim: Victim) -> None:
    async with parties(victim) as it:
        held = await it.calls_in("transferred", "dialling", "joined", *PHASES)
        it.bridge.kill()
        begun = len(it.bridge.told())
        await it.bridge.start()
        # To whom nobody has spoken another worker may still speak; here there is none.
        for phase in ("ringing", "connecting"):
            steps = await it.reaches(held[phase], "test-caller")
            assert steps[:4] == ["agent", "after-agent server_draining", "fallback", "test-caller"], "never answered"
        for phase in ("greeting", "talking", "tool", "transferring", "ending"):
            assert await it.reaches(held[phase], "fallback") == ["agent", "after-agent internal_error", "fallback"]
        # Here it is the colleague's telephone that was hung up.
        steps = await it.reaches(held["dialling"], "fallback")
        assert steps == ["agent", "hung-up", "after-agent internal_error", "fallback"]
        assert it.steps(held["transferred"]) == ["agent", "human"], "is not ours any more, and notices nothing"
        # Nor does who talks to a colleague in a bridge of ours: the next process looks after the two.
        await it.bridge.tells("ARI: looking after the transferred call", since=begun)
        await it.hears(held["joined"])
        assert it.steps(held["joined"]) == ["agent", "human"]
        told = [line["event"] for line in it.bridge.told("ARI: continuing channel", since=begun)]
        for phase in ("dialling", *PHASES):
            assert [held[phase].channel_id in line for line in told].count(True) == 1, f"{phase} in {told}"
        again = await it.call()
        await it.hears(again)
        await it.hang_up_all()
        assert (await it.record(again))["reason"] == "caller_hung_up"


@pytest.mark.parametrize("how", ["kill -9", "core restart now"])
async def test_asterisk_is_killed_and_comes_back(victim: Victim, how: str) -> None:
    async with parties(victim) as it:
        held = await it.calls_in("transferred", "dialling", "joined", *PHASES)
        begun = len(it.bridge.told())
        if how == "kill -9":
            await in_thread(victim.kill)
            it.bridge.signal(signal.SIGCONT)
        else:
            it.bridge.signal(signal.SIGCONT)
            await in_thread(victim.command, how)
        for phone in it.line.phones:  # what a telephone sees of it: its line is dead
            with trio.fail_after(5):
                await phone.ended.wait()
        # A process that is killed may take with it what it had just written to a socket: then we never heard of this call.
        known = [phase for phase in ("dialling", *PHASES) if phase != "ringing" or await it.has_heard_of(held[phase])]
        records = {phase: await it.record(held[phase]) for phase in known}
        if how == "kill -9":
            await in_thread(victim.start)
            assert reasons(records) == dict.fromkeys(records, "control_lost")
        else:
            await in_thread(victim.wait_until_up)
            # Asterisk has told some that they hang up, and not all, before it went.
            assert set(reasons(records).values()) <= {"control_lost", "caller_hung_up"}, reasons(records)
        for phase in ("transferred", "joined"):
            assert (await it.record(held[phase]))["reason"] == "transferred"
        await it.bridge.tells("ARI connected", since=begun)
        again = await it.call()
        await it.hears(again)
        await it.hang_up_all()
        assert (await it.record(again))["reason"] == "caller_hung_up"
