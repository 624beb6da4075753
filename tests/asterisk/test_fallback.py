"""Where the shipped dialplan sends a caller after each end that there is; here all of them at once."""

from __future__ import annotations

import pytest
import trio
from test_dialplan_reasons import MEANT

from asterisk.line import Line, free_port, new_test_id, until
from asterisk.victim import Victim
from bridge.ari_app import AriApp
from bridge.ari_control import ChannelControl
from bridge.config import Asterisk
from bridge.ending import FAREWELLS, ChannelAction, EndReason
from simulators.realtime_server import RealtimeServer

pytestmark = pytest.mark.asterisk


def steps_of(line: Line, caller: str) -> list[str]:
    """Name and reason of each."""
    return [f"{step.name} {step.reason}" for step in line.steps() if step.linked_id == caller]


async def reaches(line: Line, caller: str, step: str) -> list[str]:
    await until(lambda: step in steps_of(line, caller), 5, lambda: f"{step} in {steps_of(line, caller)}")
    return steps_of(line, caller)


async def test_after_each_end_the_caller_is_where_the_dialplan_sends_it(victim: Victim) -> None:
    test_id = new_test_id()
    app = f"bridge-{test_id}"
    config = Asterisk(url=victim.url, password="bridge", app=app)
    async with trio.open_nursery() as nursery:

        def end_at_once(control: ChannelControl) -> None:
            [reason] = control.arguments
            nursery.start_soon(control.release, EndReason(reason), f"because of {reason}, it is said")

        await nursery.start(AriApp(config, 2.0, end_at_once).run)
        line = Line(nursery, RealtimeServer(), "slin16", free_port(), test_id, app, exchange=victim)
        callers = {reason: await line.test_caller(__AGENT=reason.value) for reason in EndReason}
        for reason, caller in callers.items():
            if FAREWELLS[reason].channel is ChannelAction.HANG_UP:
                assert await reaches(line, caller, f"hung-up {reason}") == ["agent ", f"hung-up {reason}"]
            elif reason in MEANT:  # the caller had gone already, or so it was thought
                steps = await reaches(line, caller, f"hung-up {reason}")
                assert steps[:3] == ["agent ", f"after-agent {reason}", f"hung-up {reason}"]
            else:
                steps = await reaches(line, caller, "test-caller ")  # answered, and by nobody before
                assert steps[:4] == ["agent ", f"after-agent {reason}", f"fallback {reason}", "test-caller "]
        told = {step.reason: step.end_detail for step in line.steps() if step.name == "after-agent"}
        assert told == {reason: f"because of {reason} it is said" for reason in told}
        assert len(told) == sum(farewell.channel is not ChannelAction.HANG_UP for farewell in FAREWELLS.values())
        await line.leave()
        nursery.cancel_scope.cancel()
