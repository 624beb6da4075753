"""Who looks on at calls costs none; and a defect at the beginning of a call leaves neither caller nor record behind."""

from __future__ import annotations

from typing import NoReturn

import pytest
import trio
from house import house
from trio.testing import MockClock

from bridge import call
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


class _Keeper:
    """Keeps records."""

    def __init__(self) -> None:
        self.records: list[CallRecord] = []

    async def run(self, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()

    def begins(self, call: LiveCall) -> None:
        pass

    async def ended(self, record: CallRecord) -> None:
        self.records.append(record)


async def test_a_defect_at_the_beginning_of_a_call_leaves_nobody_in_silence(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def trip(*_: object) -> NoReturn:
        raise ValueError("a profile of this call that nobody has thought of")

    keeper = _Keeper()
    async with house(watchers=[keeper]) as it:
        with monkeypatch.context() as broken:
            broken.setattr(call, "session_of", trip)
            channel, _caller = await it.stasis_call(caller=("030123456", "Alice"))
            await it.until(lambda: channel.id not in it.ari.channels or bool(channel.variables))
            await trio.sleep(5)
        assert channel.variables["BRIDGE_END_REASON"] == "internal_error"
        (record,) = keeper.records
        assert (record.reason, record.completion_reason) == ("internal_error", "server failure")
        assert record.caller == "030123456 Alice"
        assert (await it.ended())["reason"] == "internal_error"
