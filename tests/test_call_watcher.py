"""Who looks on at calls costs none."""

from __future__ import annotations

import pytest
import trio
from house import house
from trio.testing import MockClock

from bridge.call_record import CallRecord
from bridge.live_call import LiveCall
from simulators.model_script import Call, Say, Script, tone


class _Broken:
    """Fails beside the calls, and would hold each of them up at its end."""

    def __init__(self) -> None:
        self.fails = trio.Event()

    async def run(self, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        await self.fails.wait()
        raise ValueError("a library has tripped")

    def begins(self, call: LiveCall) -> None:
        self.fails.set()

    async def ended(self, record: CallRecord) -> None:
        await trio.sleep_forever()


async def test_a_watcher_that_fails_ends_no_call_and_is_told_of_none(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    script = Script.of(
        Say("Smith's bakery.", ms=500),
        [Say("Goodbye!", ms=500), Call("hang_up", {"reason": "all said"})],
        transcripts=["Goodbye."],
    )
    async with house(script, watchers=[_Broken()]) as it:
        _channel, caller = await it.stasis_call()
        await it.hears_of("agent_said")
        caller.say(tone(300, 1000))
        facts = await it.ended()
    assert facts["reason"] == "agent_hung_up"
    assert "_Broken has failed, and does nothing more" in caplog.text
    assert "was cut short" not in caplog.text
