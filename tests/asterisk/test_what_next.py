"""Calls without ARI whose dialplan asks by CURL() what comes next: transfers, hang-ups and losses on the real Asterisk."""

from __future__ import annotations

import pytest
import trio

from asterisk.line import Line, Phone, free_port, line
from simulators.model_script import Call, Say, Script

pytestmark = pytest.mark.asterisk

TO_HUMAN = """
[agents.default.transfers.reception]
to = "{to}"
description = "a human"
"""
MODES = pytest.mark.parametrize("extension", ["101", "102"])


def transferring() -> Script:
    return Script.of(
        Call("transfer_call", {"destination": "reception"}), Say("One moment, please.", ms=500), Say("Sorry.", ms=300)
    )


async def names(it: Line, *until: str) -> list[str]:
    return [step.name for step in await it.reaches(*until)]


@MODES
@pytest.mark.parametrize("to", ["600", "600@phones", "600@phones,1"])
async def test_a_transfer_leads_to_the_human(extension: str, to: str) -> None:
    async with line(transferring(), settings=TO_HUMAN.format(to=to)) as it:
        phone = await it.phone(extension)
        assert (await it.ended())["reason"] == "transferred"
        steps = await it.reaches("next", "human")
        assert [step.reason for step in steps if step.name == "next"] == ["transferred"]
        assert "fallback" not in [step.name for step in steps]
        await hears_something_new(phone)


async def hears_something_new(phone: Phone) -> None:
    """The caller is still on the line, and somebody plays to it."""
    before = len(phone.caller.heard_frames)
    with trio.fail_after(5):
        while len(phone.caller.heard_frames) < before + 25:  # noqa: ASYNC110 - half a second of the human's tone
            await trio.sleep(0.02)
    assert not phone.caller.ended.is_set()


@MODES
async def test_a_transfer_to_a_place_that_is_not_there_leads_to_the_fallback(extension: str) -> None:
    async with line(transferring(), settings=TO_HUMAN.format(to="999@phones")) as it:
        await it.phone(extension)
        assert (await it.ended())["reason"] == "transferred"
        assert "human" not in await names(it, "next", "fallback")


@MODES
async def test_a_goodbye_hangs_up_and_no_fallback_is_played(extension: str) -> None:
    async with line(Script.of([Say("Goodbye!", ms=300), Call("hang_up")])) as it:
        phone = await it.phone(extension)
        assert (await it.ended())["reason"] == "agent_hung_up"
        steps = await it.reaches("next", "hung-up")
        assert [step.reason for step in steps if step.name == "next"] == ["agent_hung_up"]
        assert "fallback" not in [step.name for step in steps]
        with trio.fail_after(3):
            await phone.ended.wait()


@MODES
async def test_a_lost_model_leads_to_the_fallback(extension: str) -> None:
    overrides = {"limits.reconnect_s": "1"}
    async with line(Script.of(Say("Hello!", ms=300)), overrides=overrides) as it:
        await it.phone(extension)
        await it.hears_of("agent_said")
        with it.model.http_status(503):
            await it.model.session.drop()
            assert (await it.ended())["reason"] == "model_lost"
        steps = await it.reaches("next", "fallback")
        assert [step.reason for step in steps if step.name == "next"] == ["model_lost"]


@MODES
async def test_a_bridge_that_can_not_be_asked_leads_to_the_fallback(extension: str) -> None:
    """CURL() of a dead bridge is an empty string."""
    async with line(Script.of([Say("Goodbye!", ms=300), Call("hang_up")])) as it:
        it.control_port = free_port()
        await it.phone(extension)
        await it.ended()
        steps = await it.reaches("next", "fallback")
        assert [step.reason for step in steps if step.name == "next"] == [""]


async def test_a_bridge_that_does_not_answer_keeps_nobody_waiting_for_long() -> None:
    async with line(Script.of([Say("Goodbye!", ms=300), Call("hang_up")])) as it:
        silent = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
        async with silent:
            it.control_port = silent.socket.getsockname()[1]
            await it.phone("102")
            await it.ended()
            began = trio.current_time()
            await it.reaches("next", "fallback")
            assert 2.5 < trio.current_time() - began < 4.5, "CURLOPT(httptimeout)"
