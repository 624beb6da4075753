"""The control of calls is lost and comes back: ARI cut and mended, taken by another process, drained, refused."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise

import pytest
import trio

from asterisk.line import Phone, free_port
from asterisk.parties import Parties, parties, settings_of
from asterisk.program import Program
from asterisk.proxy import Proxy
from asterisk.victim import Victim

pytestmark = pytest.mark.asterisk


@asynccontextmanager
async def cuttable(victim: Victim) -> AsyncIterator[tuple[Parties, Proxy]]:
    async with trio.open_nursery() as nursery:
        proxy = Proxy(victim.http_port)
        await nursery.start(proxy.run)
        async with parties(victim, ari_port=proxy.port) as it:
            yield it, proxy
        nursery.cancel_scope.cancel()


async def goes_on(phone: Phone, seconds: float) -> None:
    """The agent's voice comes without a gap that a jitter buffer would not forgive, twice over."""
    since = trio.current_time()
    await trio.sleep(seconds)
    times = [at for at, _ in phone.caller.heard_frames if at > since]
    assert len(times) > seconds * 50 * 0.9
    assert max(b - a for a, b in pairwise(times)) < 0.12


async def test_calls_go_on_without_ari_and_what_was_missed_is_found(victim: Victim) -> None:
    async with cuttable(victim) as (it, proxy):
        held = await it.calls_in("greeting", "talking", "tool", "ending")
        await it.order(created_after_s=1.5)
        soon = await it.line.test_caller(__AGENT="default")
        await it.bridge.tells("call_arrives", len(held) + 1)
        await trio.sleep(0.1)
        await it.order(created_after_s=0.0)
        proxy.cut()
        begun = len(it.bridge.told())
        await it.bridge.tells("ARI connection to", since=begun)
        # A new caller is not kept waiting by an application that nobody serves.
        late = await it.line.test_caller()
        assert (await it.steps_of(late, "fallback"))[:3] == ["agent", "after-agent ", "fallback"]
        phone = held["greeting"].phone
        assert phone is not None
        await goes_on(phone, 0.5)
        leaver = held["talking"].phone
        assert leaver is not None
        with trio.move_on_after(0.1):
            await leaver.caller.hang_up()  # nobody is told
        # The agent hangs up meanwhile; that is carried out as soon as it can be.
        assert (await it.record(held["ending"]))["reason"] == "agent_hung_up"
        assert it.steps(held["ending"]) == ["agent"]
        proxy.mend()
        await it.bridge.tells("ARI connected", since=begun)
        missed = await it.record(held["talking"], within_s=3)
        assert (missed["reason"], missed["detail"]) == ("caller_hung_up", "gone; its hang-up was missed")
        assert await it.reaches(held["ending"], "hung-up") == ["agent", "hung-up"]
        # The model of this one came while there was no control to answer it by, for longer than `ari_request_s`.
        steps = await it.steps_of(soon, "test-caller")
        assert steps[:4] == ["agent", "after-agent control_lost", "fallback", "test-caller"], "never answered"
        await it.hears(held["greeting"])
        assert (await it.of(held["tool"], "agent_said"))["text"] == "It has been found."
        await it.hang_up_all()
        for phase in ("greeting", "tool"):
            assert (await it.record(held[phase]))["reason"] == "caller_hung_up"


async def test_a_second_process_with_our_app_is_named_and_harms_no_call(victim: Victim) -> None:
    async with parties(victim) as it:
        held = await it.calls_in("connecting", "greeting", "talking")
        media_port = free_port()
        folder = it.bridge.folder
        (folder / "second.toml").write_text(settings_of(victim, it.app, media_port, it.model_port))
        second = Program("second", folder, ["-m", "asterisk.served", str(folder / "second.toml")], "ARI connected")
        try:
            await second.start()
            await second.tells("ARI: another process holds calls in the Stasis app")
            told = await it.bridge.tells("ARI: another process took the Stasis app")
            assert "Give each process its own asterisk.app" in told["event"]
            for phase in ("greeting", "talking"):
                phone = held[phase].phone
                assert phone is not None
                await goes_on(phone, 1.0)
            # It hears of no hang-up now, and finds out by itself.
            leaver = held["talking"].phone
            assert leaver is not None
            with trio.move_on_after(0.1):
                await leaver.caller.hang_up()
            assert (await it.record(held["talking"], within_s=4))["reason"] == "caller_hung_up"
            # New calls are the second one's.
            await it.line.phone(__AGENT="greeting")
            await second.tells("agent_starts")
            assert (
                len(second.told("ARI: another process took")) + len(it.bridge.told("ARI: another process took")) == 1
            )
            assert not [told for told in second.told("ARI:") if "continuing" in told["event"]]
            await it.hang_up_all()
            for phase in ("connecting", "greeting"):
                assert (await it.record(held[phase]))["reason"] == "caller_hung_up"
            second.signal(signal.SIGTERM)
            assert await second.ends(10) == 0
        finally:
            second.remove()
        # Nobody tells the first that it may have the app again: it asks for it after half a minute.


async def test_sigterm_lets_calls_finish_and_sends_new_ones_on(victim: Victim) -> None:
    async with parties(victim, limits="drain_s = 5") as it:
        held = await it.calls_in("greeting", "talking", "transferring", "ending")
        it.bridge.signal(signal.SIGTERM)
        await it.bridge.tells("draining")
        late = await it.line.test_caller()
        steps = await it.steps_of(late, "test-caller")
        assert steps[:4] == ["agent", "after-agent server_draining", "fallback", "test-caller"], "never answered"
        assert (await it.record(held["ending"]))["reason"] == "agent_hung_up"
        assert (await it.record(held["transferring"]))["reason"] == "transferred"
        phone = held["talking"].phone
        assert phone is not None
        await phone.caller.hang_up()
        assert (await it.record(held["talking"]))["reason"] == "caller_hung_up"
        # Who still talks when the time is up goes on in the dialplan.
        assert (await it.record(held["greeting"]))["reason"] == "server_draining"
        assert await it.reaches(held["greeting"], "fallback") == ["agent", "after-agent server_draining", "fallback"]
        assert await it.bridge.ends(5) == 0
        it.drained = True


async def test_a_full_house_refuses_before_it_answers(victim: Victim) -> None:
    async with parties(victim, server="max_calls = 1") as it:
        held = await it.calls_in("greeting")
        late = await it.line.test_caller()
        steps = await it.steps_of(late, "test-caller")
        assert steps[:4] == ["agent", "after-agent refused_busy", "fallback", "test-caller"], "never answered"
        refused = await it.bridge.tells("call_ended")
        assert (refused["reason"], refused["answered_after_s"], refused["error"]) == ("refused_busy", None, None)
        await it.hears(held["greeting"])
        phone = held["greeting"].phone
        assert phone is not None
        await phone.caller.hang_up()
        await it.record(held["greeting"])
        await it.hears(await it.call())
