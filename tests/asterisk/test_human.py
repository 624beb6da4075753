"""The telephones of `human.py` do what they say, seen from the real Asterisk and from themselves."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.error import HTTPError

import pytest
import trio

from asterisk.compare import tone_share
from asterisk.exchange import Step, ari, command, steps_since, steps_size
from asterisk.human import Human, free_udp_port, human, sip_caller
from asterisk.line import new_test_id, until
from asterisk.rtp_telephone import RATE_HZ
from asterisk.sip_scenarios import Scenario, answers, calls, never_replies, refuses, rings
from simulators.model_script import tone
from simulators.wire_audio import resampled

pytestmark = pytest.mark.asterisk


@asynccontextmanager
async def calling(endpoint: str, *, ring_s: float = 5, extension: str = "650") -> AsyncIterator[str]:
    """A caller (of silence) whom 650 connects to this endpoint; the test's id. Hung up at the end."""
    test_id = new_test_id()
    body = {
        **{"endpoint": f"Local/{extension}@phones/n", "extension": "610", "context": "phones", "priority": 1},
        **{"channelId": test_id, "otherChannelId": f"{test_id}-far", "callerId": "Test <1000>"},
        "variables": {"__TEST_ID": test_id, "__HUMAN": endpoint, "__HUMAN_S": f"{ring_s:g}"},
    }
    await trio.to_thread.run_sync(ari, "POST", "channels", body)
    try:
        yield test_id
    finally:
        with trio.move_on_after(5, shield=True), suppress(HTTPError):
            await trio.to_thread.run_sync(ari, "DELETE", f"channels/{test_id}")


@asynccontextmanager
async def dialled(extension: str, *steps: str) -> AsyncIterator[None]:
    """An extension of the context `phones` for the length of the block."""
    for priority, step in enumerate(steps, 1):
        await trio.to_thread.run_sync(command, f"dialplan add extension {extension},{priority},{step} into phones")
    try:
        yield
    finally:
        with trio.move_on_after(5, shield=True):
            await trio.to_thread.run_sync(command, f"dialplan remove extension {extension}@phones")


async def step(test_id: str, name: str, since: int) -> Step:
    """The step of this call once the dialplan has reached it."""

    def found() -> list[Step]:
        return [step for step in steps_since(since) if (step.test_id, step.name) == (test_id, name)]

    await until(lambda: bool(found()), 8, lambda: f"{name} of {test_id}")
    return found()[0]


async def status(it: Human, ring_s: float = 5) -> str:
    """How Dial() of this human ended."""
    since = steps_size()
    async with calling(it.endpoint, ring_s=ring_s) as test_id:
        return (await step(test_id, "after-test-human", since)).details


async def hears_tone(it: Human, hz: float, ms: int = 300) -> None:
    """Wait until the last `ms` that came are this tone."""

    def share() -> float:
        return tone_share(it.voice.heard.pcm()[-16 * ms :], RATE_HZ, hz)

    await until(
        lambda: len(it.voice.heard.packets) > ms // 20 and share() > 0.9, 5, lambda: f"{hz} Hz: {share():.2f}"
    )


async def test_it_answers_hears_speaks_and_presses_keys() -> None:
    async with human() as it, calling(it.endpoint):  # its caller is extension 610, an echo
        await it.until_answered()
        it.voice.say(resampled(tone(700, 1000), 24000, 8000))
        await hears_tone(it, 700)
        it.voice.press("4")
        it.voice.press("#")
        await until(lambda: it.voice.heard.digits == "4#", 5, lambda: it.voice.heard.digits)
        assert it.invite.header("From").startswith('"Test" <sip:1000@')


@pytest.mark.parametrize(
    ("behaviour", "ends"),
    [
        (refuses("486 Busy Here"), "status=BUSY cause=17"),
        (refuses("603 Decline"), "status=CHANUNAVAIL cause=21"),
        (refuses("403 Forbidden", ring_s=0.2), "status=CHANUNAVAIL cause=21"),
        (answers(stays_s=0.2), "status=ANSWER cause=16"),
    ],
    ids=["busy", "declines", "forbids after ringing", "hangs up"],
)
async def test_how_it_ends_a_call(behaviour: Scenario, ends: str) -> None:
    async with human(behaviour) as it:
        assert await status(it) == ends


async def test_it_rings_until_it_is_cancelled() -> None:
    async with human(rings()) as it:
        assert (await status(it, ring_s=1)).startswith("status=NOANSWER")
        cancel = await it.sees("CANCEL")
        assert 0.9 < cancel.at_s - it.invite.at_s < 1.5
        await it.sees("ACK")  # of its 487


async def test_it_never_replies() -> None:
    async with human(never_replies()) as it:
        assert (await status(it, ring_s=2)).startswith("status=NOANSWER")
        assert len([m for m in it.messages if m.method == "INVITE"]) >= 2, "Asterisk sends it again"
        assert not it.seen("CANCEL"), "nothing to cancel yet (RFC 3261, 9.1)"


async def test_it_speaks_before_it_answers() -> None:
    extension = f"7{free_udp_port()}"
    async with human(answers(2.0, early_media=True)) as it, dialled(extension, f"Dial({it.endpoint},5)"):
        it.voice.say(resampled(tone(700, 2000), 24000, 8000))
        async with sip_caller(extension) as caller:
            await hears_tone(caller, 700)
            assert not it.answered
            await caller.until_answered()
            await it.until_answered()


async def test_it_is_hung_up_on_and_told_why() -> None:
    async with human() as it:
        async with calling(it.endpoint):
            await it.until_answered()
        assert (await it.sees("BYE")).header("Reason").startswith("Q.850;cause=")


async def test_it_transfers_its_caller() -> None:
    async with human(answers(stays_s=0.3, refers_to="sip:600@127.0.0.1")) as it:
        since = steps_size()
        async with calling(it.endpoint) as test_id:
            assert (await step(test_id, "human", since)).details == "", "600 has the caller"
            await until(lambda: any(m.method == "BYE" and m.sent for m in it.messages), 2, lambda: "hangs up")


async def test_it_is_reached_as_a_registered_account_and_only_then() -> None:
    async with human(registered=True) as it:
        async with calling("PJSIP/human"):
            await it.until_answered()
        await it.sees("BYE")
    since = steps_size()
    async with calling("PJSIP/human") as test_id:
        assert (await step(test_id, "after-test-human", since)).details.startswith("status=CHANUNAVAIL")


@pytest.mark.parametrize(
    ("referred", "status"),
    [("200 OK", "SUCCESS"), ("503 Service Unavailable", "FAILURE"), ("603 Decline", "FAILURE")],
)
async def test_a_caller_that_is_referred_elsewhere(referred: str, status: str) -> None:
    extension = f"7{free_udp_port()}"
    test_id = new_test_id()
    steps = (
        f"Set(__TEST_ID={test_id})",
        *(
            "Answer()",
            "Transfer(PJSIP/sip:604@127.0.0.1)",
            "Gosub(step,s,1(transferred,${TRANSFERSTATUS}))",
            "Wait(5)",
        ),
    )
    async with dialled(extension, *steps):
        since = steps_size()
        async with sip_caller(extension, calls(referred=referred, answered_after_s=0.1)) as it:
            refer = await it.sees("REFER")
            assert refer.header("Refer-To") == "sip:604@127.0.0.1"
            assert (await step(test_id, "transferred", since)).details == status


@pytest.mark.parametrize(
    ("extension", "ends"),
    [
        ("640", "status=BUSY cause=0"),
        ("641", "status=CONGESTION cause=0"),
        ("642", "status=NOANSWER cause=0"),
        ("643", "status=CHANUNAVAIL cause=21"),
    ],
)
async def test_extensions_that_do_not_take_the_call(extension: str, ends: str) -> None:
    since = steps_size()
    async with calling(f"Local/{extension}@phones", ring_s=1) as test_id:
        assert (await step(test_id, "after-test-human", since)).details == ends


async def test_the_queue_has_the_registered_human_and_else_takes_a_message() -> None:
    async with human(registered=True) as it, calling("", extension="620"):
        await it.until_answered()
        it.voice.say(resampled(tone(700, 1000), 24000, 8000))
        await hears_tone(it, 700)
    since = steps_size()
    async with calling("", extension="620") as test_id:
        # The queue hears of a telephone that is gone some ms later, and then sends those away who have joined.
        assert (await step(test_id, "after-queue", since)).details in ("status=JOINEMPTY", "status=LEAVEEMPTY")
        await step(test_id, "voicemail", since)
