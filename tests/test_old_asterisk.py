"""Whole calls on an Asterisk 20.6 (Ubuntu 24.04 has it): requests by HTTP, 8 kHz, keys from ARI only. In virtual time.

Events come on the websocket and answers by HTTP, so each call is held with either of them late.
"""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import trio
from house import House, house
from test_call import TRANSFERS
from trio.testing import MockClock

from simulators.ari_server import HUNG_UP, AriServer, Place
from simulators.model_script import Call, Say, Script

LATE = pytest.mark.parametrize(
    "late", [{}, {"events_s": 0.2}, {"answers_s": 0.2}], ids=["in-time", "late-events", "late-answers"]
)


def old(late: Mapping[str, float] | None = None) -> AriServer:
    ari = AriServer(version="20.6.0~dfsg+~cs6.13.40431414-2build5")
    ari.late(**(late or {}))
    return ari


def all_by_http(it: House) -> bool:
    return it.ari.dropped == 0 and it.ari.by_http == len(it.ari.requests) > 0


@LATE
async def test_a_call_with_keys_that_the_caller_ends(autojump_clock: MockClock, late: dict[str, float]) -> None:
    # The default, slin16, would be noise: this Asterisk would play it at half speed.
    async with house(Script.of(Say("Hello!", ms=1500)), media_format="slin", overrides=WIDE, ari=old(late)) as it:
        channel, caller = await it.stasis_call()
        await it.hears_of("agent_said")
        assert channel.state == "Up"
        for digit in "42#":
            channel.press(digit)
        facts = await it.hears_of("caller_pressed")
        assert facts["count"] == 3
        channel.hang_up()
        record = await it.ended()
        assert (record["reason"], record["media_format"]) == ("caller_hung_up", "slin")
        assert caller.violations == []
        assert caller.max_gap_ms() < 40
        assert all_by_http(it)


WIDE = {"asterisk.format": "slin16"}


@LATE
async def test_the_agent_hangs_up(autojump_clock: MockClock, late: dict[str, float]) -> None:
    script = Script.of([Say("Goodbye!", ms=600), Call("hang_up", {"reason": "all said"})])
    async with house(script, media_format="slin", ari=old(late)) as it:
        channel, caller = await it.stasis_call()
        assert (await it.ended())["reason"] == "agent_hung_up"
        assert channel.dialplan == HUNG_UP
        assert channel.variables["BRIDGE_END_DETAIL"] == "all said"
        assert caller.ended_how == "hangup", (
            "by its frame: an AudioSocket() of before 20.14 would spin at 100 % on a FIN"
        )
        assert all_by_http(it)


@LATE
async def test_a_transfer(autojump_clock: MockClock, late: dict[str, float]) -> None:
    script = Script.of([Say("One moment."), Call("transfer_call", {"destination": "reception"})])
    async with house(script, settings=TRANSFERS, media_format="slin", ari=old(late)) as it:
        it.ari.dialplan.add(("phones", "600", "1"))
        channel, _ = await it.stasis_call()
        assert (await it.ended())["reason"] == "transferred"
        assert channel.dialplan == Place("phones", "600", "1")
        assert channel.variables["BRIDGE_END_REASON"] == "transferred"
        assert all_by_http(it)


@LATE
async def test_a_transfer_to_nowhere_comes_back_to_the_agent(
    autojump_clock: MockClock, late: dict[str, float]
) -> None:
    script = Script.of([Say("One moment."), Call("transfer_call", {"destination": "reception"})], Say("Sorry!"))
    async with house(script, settings=TRANSFERS, media_format="slin", ari=old(late)) as it:
        channel, _ = await it.stasis_call()
        await it.hears_of("agent_said", 2)
        channel.hang_up()
        assert (await it.ended())["reason"] == "caller_hung_up"
        assert all_by_http(it)


@LATE
@pytest.mark.parametrize("after_s", [0.0, 0.05, 0.1, 0.25, 0.4, 0.6])
async def test_a_caller_who_hangs_up_while_the_call_is_set_up(
    autojump_clock: MockClock, after_s: float, late: dict[str, float]
) -> None:
    async with house(Script.of(Say("Hello!")), media_format="slin", ari=old(late)) as it:
        with it.ari.slow("POST", 0.1):
            channel = it.ari.incoming_call()
            await trio.sleep(after_s)
            channel.hang_up()
            assert (await it.ended())["reason"] == "caller_hung_up"
            await trio.sleep(5)
        assert not it.ari.bridges
        assert not it.ari.channels


async def test_the_websocket_is_lost_and_back_and_the_call_goes_on(autojump_clock: MockClock) -> None:
    async with house(Script.of(Say("Hello!", ms=10_000)), media_format="slin", ari=old()) as it:
        channel, caller = await it.stasis_call()
        await it.hears_of("agent_starts")
        await it.ari.drop_connection()
        await it.hears_of("agent_said")
        assert caller.max_gap_ms() < 40
        channel.hang_up()
        assert (await it.ended())["reason"] == "caller_hung_up"
        assert all_by_http(it)


async def test_a_hang_up_that_was_missed_is_found(autojump_clock: MockClock) -> None:
    async with house(Script.of(Say("Hello!", ms=10_000)), media_format="slin", ari=old()) as it:
        channel, _ = await it.stasis_call()
        await it.hears_of("agent_starts")
        await it.ari.drop_connection()
        channel.hang_up()
        assert (await it.ended())["reason"] == "caller_hung_up"


async def test_the_agent_hangs_up_while_the_websocket_is_lost(autojump_clock: MockClock) -> None:
    script = Script.of([Say("Goodbye!", ms=600), Call("hang_up")])
    async with house(script, media_format="slin", ari=old()) as it:
        channel, _ = await it.stasis_call()
        await it.hears_of("agent_starts")
        await trio.sleep(0.55)
        await it.ari.drop_connection()
        await it.ended()
        assert not it.ari.accepted > 1
        assert channel.dialplan == HUNG_UP, "nobody is left in silence until it is back"


async def test_draining_lets_calls_finish_and_takes_no_new_ones(autojump_clock: MockClock) -> None:
    async with house(Script.of(Say("Hello!", ms=20_000)), media_format="slin", ari=old()) as it:
        channel, _ = await it.stasis_call()
        await it.hears_of("agent_starts")
        it.ready.drain()
        await trio.sleep(0.1)
        second = it.ari.incoming_call()
        assert (await it.ended())["reason"] == "server_draining"
        assert second.dialplan == Place()
        await it.hears_of("agent_said")
        channel.hang_up()
        assert (await it.ended(2))["reason"] == "caller_hung_up"


async def test_an_upgrade_of_asterisk_needs_no_restart_of_the_bridge(autojump_clock: MockClock) -> None:
    script = Script.of(Say("Hello!", ms=500), Say("Hello again!", ms=500))
    async with house(script, media_format="slin", overrides={"asterisk.format": "auto"}, ari=old()) as it:
        channel, _ = await it.stasis_call()
        await it.hears_of("agent_said")
        channel.hang_up()
        assert (await it.ended())["media_format"] == "slin"
        it.ari.version, it.ari.takes_requests = "22.10.1", True
        await it.ari.drop_connection()
        await trio.sleep(5)
        asked = it.ari.by_http
        channel, _ = await it.stasis_call()
        await it.hears_of("agent_said", 2)
        channel.hang_up()
        assert (await it.ended(2))["media_format"] == "slin24"
        assert it.ari.by_http == asked
