"""Several workers at the real Asterisk: calls spread, a worker dies under its call, drains, is replaced; nobody is lost."""

from __future__ import annotations

import os
import signal

import pytest
import trio

from asterisk.line import until
from asterisk.workers import START_S, workers

pytestmark = pytest.mark.asterisk


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_calls_spread_and_each_worker_tells_of_its_own() -> None:
    async with workers() as it:
        placed = await it.call_each()
        for number in (1, 2):
            assert await it.sample("worker_ready", number) == 1
        assert "200 OK" in await it.get("/readyz")
        for call in placed.values():
            await call.phone.caller.hang_up()
        for number in (1, 2):
            await it.reaches("calls_running", number, 0)
        assert set(it.ended()) == {"caller_hung_up"}


async def test_a_worker_that_is_killed_takes_one_call_with_it_and_no_new_one() -> None:
    async with workers() as it:
        placed = await it.call_each()
        it.kill(1)
        # At once, and whichever of the two the dialplan asks first.
        for _ in range(6):
            third = await it.call()
            assert third.worker == 2
            steps = it.steps(third.phone)
            # Also when Asterisk had not seen yet that worker 1 is gone: then it comes back from there.
            assert steps in (["agent 2"], ["agent 1", "after-agent", "agent 2"])
            await third.phone.caller.hang_up()
            if "agent 1" in steps or it.pid(1):
                break
        # Its caller waits in Stasis until the new process has swept its application, and goes on in the dialplan.
        steps = await it.step(placed[1].phone, "fallback")
        assert steps[:3] == ["agent 1", "after-agent", "fallback"]
        reasons = {step.reason for step in it.line.steps() if step.linked_id == placed[1].phone.channel_id}
        assert "internal_error" in reasons
        # The call of the other worker has not noticed anything.
        assert it.steps(placed[2].phone) == ["agent 2"]
        before = len(placed[2].phone.caller.heard_frames)
        await trio.sleep(0.5)
        assert len(placed[2].phone.caller.heard_frames) > before
        assert await it.sample("worker_restarts_total", 1) == 1
        await it.reaches("worker_ready", 1, 1)
        for _ in range(25):
            if (await it.call()).worker == 1:
                break
        else:
            raise AssertionError("the new worker gets no calls")


async def test_replacing_the_workers_one_by_one_loses_no_call() -> None:
    async with workers(drain_s=120) as it:
        placed = await it.call_each()
        before = it.pid(1), it.pid(2)
        it.popen.send_signal(signal.SIGHUP)
        await it.reaches("worker_draining", 1, 1)
        for _ in range(3):  # who asks the draining one first is sent on
            third = await it.call()
            assert third.worker == 2
            await third.phone.caller.hang_up()
        assert await it.sample("calls_running", 1) == 1
        assert it.pid(1) == before[0]
        await placed[1].phone.caller.hang_up()
        with trio.fail_after(START_S):
            await it.reaches("worker_draining", 2, 1)
        assert it.pid(1) != before[0]
        assert (await it.call()).worker == 1, "the new one serves while the other drains"
        assert it.steps(placed[2].phone) == ["agent 2"], "its call goes on"
        await placed[2].phone.caller.hang_up()
        await it.reaches("worker_draining", 2, 0)
        await it.reaches("worker_ready", 2, 1)
        assert it.pid(2) != before[1]
        # A refusal is a record of its own: that caller went on to the other worker.
        assert set(it.ended()) <= {"caller_hung_up", "server_draining"}
        for number in (1, 2):
            assert await it.sample("worker_restarts_total", number) == 0
        text = await it.get("/metrics")
        assert 'reason="server_draining"' not in text


async def test_a_deploy_lets_running_calls_finish_and_sends_new_ones_to_the_fallback() -> None:
    async with workers(drain_s=120) as it:
        placed = await it.call_each()
        it.popen.send_signal(signal.SIGTERM)
        for number in (1, 2):
            await it.reaches("worker_draining", number, 1)
        assert "503" in (await it.get("/readyz")).splitlines()[0]
        phone = await it.line.phone()
        steps = await it.step(phone, "fallback")
        assert sorted(steps[:4]) == ["after-agent", "after-agent", "agent 1", "agent 2"], "both were asked"
        await phone.caller.hang_up()
        await trio.sleep(1)
        for number, call in placed.items():
            assert it.steps(call.phone) == [f"agent {number}"]
        for call in placed.values():
            await call.phone.caller.hang_up()


async def test_without_their_supervisor_the_workers_let_their_calls_finish() -> None:
    async with workers(drain_s=120) as it:
        placed = await it.call()
        pid = it.pid(placed.worker)
        it.popen.kill()
        it.status = -signal.SIGKILL
        await until(lambda: len(it.told("the supervisor is gone")) == 2, START_S, lambda: str(it.told()))
        phone = await it.line.phone()
        await it.step(phone, "fallback")
        assert it.steps(placed.phone) == [f"agent {placed.worker}"]
        before = len(placed.phone.caller.heard_frames)
        await trio.sleep(0.5)
        assert len(placed.phone.caller.heard_frames) > before
        await placed.phone.caller.hang_up()
        await until(lambda: not _lives(pid), START_S, lambda: f"{pid} has ended")
