"""Each kind of transfer with each outcome, at the real Asterisk; the human is a SIP telephone (`human`), or nobody.

Heard at both ends: the caller's line is a live phone, the human's voice and ear are RTP.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest
import trio

from asterisk.compare import tone_share
from asterisk.human import Human, human, sip_caller
from asterisk.line import Line, Phone, line, until
from asterisk.rtp_telephone import RATE_HZ
from asterisk.sip_scenarios import Scenario, answers, calls, refuses, rings
from asterisk.test_sip_call import extension_of
from bridge.tools import ToolContext, ToolRegistry
from simulators.model_script import Call, Part, Say, Script, tone
from simulators.wire_audio import resampled

pytestmark = pytest.mark.asterisk

# The model announces it in the same breath, so that each test is one response shorter.
WANTS: list[Part] = [
    Say("I am connecting you.", ms=400, hz=880),
    Call("transfer_call", {"destination": "desk"}),
]
SUMMARY = Say("A caller asks for a loan.", ms=800, hz=1500)
SORRY = Say("Sorry, that did not work.", ms=300, hz=660)


def desk(endpoint: str, **more: object) -> str:
    """The settings of a destination that is dialled."""
    rows = [f'{key} = "{value}"' if isinstance(value, str) else f"{key} = {value}" for key, value in more.items()]
    return "\n".join(["[agents.default.transfers.desk]", f'endpoint = "{endpoint}"', *rows, ""])


def hears(pcm: bytes, rate_hz: int, hz: float, ms: int = 300) -> bool:
    """Whether the last `ms` are this tone."""
    last = pcm[-rate_hz * ms // 1000 * 2 :]
    return len(last) >= rate_hz * ms // 500 and tone_share(last, rate_hz, hz) > 0.9


async def talk_to_each_other(phone: Phone, colleague: Human) -> None:
    """Each says a tone, and hears the other's."""
    phone.caller.say(resampled(tone(700, 3000), 24000, 16000))
    colleague.voice.say(resampled(tone(1200, 3000), 24000, RATE_HZ))
    await until(
        lambda: hears(phone.heard(), 16000, 1200) and hears(colleague.voice.heard.pcm(), RATE_HZ, 700),
        5,
        lambda: "they hear each other",
    )


async def comes_back(it: Line, phone: Phone, why: str) -> None:
    """The caller is told by the agent that it did not work, and goes on with it."""
    failed = await it.hears_of("transfer_failed")
    assert why in failed.facts["message"]
    await until(lambda: hears(phone.heard(), 16000, 660, 200), 5, lambda: "the agent says so")
    assert any(why in str(event) for event in it.model.received_events("conversation.item.create"))
    assert not it.told("call_ended")
    await phone.caller.hang_up()
    assert (await it.ended())["reason"] == "caller_hung_up"


@pytest.mark.parametrize("media_format", ["slin", "slin16", "slin24"])
async def test_bridged_and_answered(media_format: str) -> None:
    async with (
        human(answers(ring_s=1.2)) as colleague,
        line(Script.of(WANTS), settings=desk(colleague.endpoint), media_format=media_format) as it,
    ):
        phone = await it.phone()
        await it.hears_of("agent_stops")
        since = trio.current_time()
        record = await it.ended()
        assert (record["reason"], record["detail"]) == ("transferred", "desk")
        ringing = b"".join(pcm for _, pcm in phone.heard_since(since + 0.3))
        assert tone_share(ringing[: 32 * 500], 16000, 425) > 0.9, "the caller hears ringing meanwhile"
        assert colleague.invite.header("From").find("1000") >= 0, "who calls is shown, not who transfers"
        await talk_to_each_other(phone, colleague)
        joined = trio.current_time()
        # From the agent's last frame to the colleague's first one, whose telephone sends when it has seen the ACK.
        assert phone.max_gap_ms() < 1000
        await phone.caller.hang_up()
        bye = await colleague.sees("BYE")
        assert "cause=16" in bye.header("Reason")
        assert trio.current_time() - joined < 3


async def test_bridged_and_the_colleague_hangs_up_last() -> None:
    async with (
        human(answers(ring_s=0.1, stays_s=1.0)) as colleague,
        line(Script.of(WANTS), settings=desk(colleague.endpoint)) as it,
    ):
        phone = await it.phone()
        assert (await it.ended())["reason"] == "transferred"
        with trio.fail_after(5):
            await phone.ended.wait()
        await it.hears_of("ARI: a transferred call is over")


@dataclass(frozen=True)
class Refusal:
    """How somebody does not take a call, and what the model hears of it."""

    behaviour: Scenario
    why: str


REFUSALS = {
    "busy": Refusal(refuses("486 Busy Here", ring_s=0.2), "desk is busy"),
    "declined": Refusal(refuses("603 Decline", ring_s=0.2), "desk rejected the call"),
    "forbidden": Refusal(refuses("403 Forbidden"), "desk rejected the call"),
    "no answer": Refusal(rings(), "desk does not answer"),
    "out of service": Refusal(refuses("503 Service Unavailable"), "desk can not be reached now"),
}


@pytest.mark.parametrize("mode", ["bridged", "warm"])
@pytest.mark.parametrize("how", REFUSALS)
async def test_not_taken(how: str, mode: str) -> None:
    refusal = REFUSALS[how]
    async with human(refusal.behaviour) as colleague:
        settings = desk(colleague.endpoint, mode=mode, ring_s=1)
        async with line(Script.of(WANTS, SORRY), settings=settings) as it:
            phone = await it.phone()
            await comes_back(it, phone, refusal.why)


@pytest.mark.parametrize(
    ("endpoint", "why"),
    [
        ("PJSIP/human", "PJSIP/human is not registered now"),
        ("PJSIP/nobody-here", "Asterisk has no endpoint PJSIP/nobody-here"),
        ("Local/999999@phones", "the dialplan has no 999999@phones"),
    ],
)
async def test_not_there_is_known_before_the_caller_is_told(endpoint: str, why: str) -> None:
    script = Script.of([Call("transfer_call", {"destination": "desk"})], SORRY)
    async with line(script, settings=desk(endpoint)) as it:
        phone = await it.phone()
        refused = await it.hears_of("transfer_refused")
        assert why in refused.facts["message"]
        await until(lambda: hears(phone.heard(), 16000, 660, 200), 5, lambda: "the agent says so")
        await phone.caller.hang_up()
        assert (await it.ended())["reason"] == "caller_hung_up"


async def test_a_registered_colleague_is_reached_by_name() -> None:
    async with (
        human(answers(ring_s=0.1), registered=True) as colleague,
        line(Script.of(WANTS), settings=desk("PJSIP/human", caller_id="Bakery <4711>")) as it,
    ):
        phone = await it.phone()
        assert (await it.ended())["reason"] == "transferred"
        assert "4711" in colleague.invite.header("From")
        assert "Bakery" in colleague.invite.header("From")
        await talk_to_each_other(phone, colleague)
        await phone.caller.hang_up()
        await it.hears_of("ARI: a transferred call is over")


@pytest.mark.parametrize("mode", ["bridged", "warm"])
async def test_the_caller_hangs_up_while_it_rings(mode: str) -> None:
    async with (
        human(rings()) as colleague,
        line(Script.of(WANTS), settings=desk(colleague.endpoint, mode=mode)) as it,
    ):
        phone = await it.phone()
        await colleague.sees("INVITE")
        await trio.sleep(0.3)
        await phone.caller.hang_up()
        assert (await it.ended())["reason"] == "caller_hung_up"
        await colleague.sees("CANCEL")


async def consulted(it: Line, colleague: Human) -> Phone:
    """The colleague has answered, and hears the summary while the caller hears music."""
    phone = await it.phone()
    await it.hears_of("agent_starts", 2)
    await until(
        lambda: hears(colleague.voice.heard.pcm(), RATE_HZ, 1500), 5, lambda: "the colleague hears the summary"
    )
    assert not hears(phone.heard(), 16000, 1500, 100), "and the caller does not"
    return phone


async def test_warm_and_accepted() -> None:
    async with human(answers(ring_s=0.3)) as colleague:
        settings = desk(colleague.endpoint, mode="warm")
        async with line(Script.of(WANTS, SUMMARY), settings=settings) as it:
            phone = await consulted(it, colleague)
            await it.hears_of("agent_stops", 2)
            pressed = trio.current_time()
            colleague.voice.press("1")
            record = await it.ended()
            assert record["reason"] == "transferred"
            await talk_to_each_other(phone, colleague)
            assert trio.current_time() - pressed < 4
            assert phone.caller.digits_heard == "", "the key is not for the caller"
            await phone.caller.hang_up()
            await colleague.sees("BYE")
            await it.hears_of("ARI: a transferred call is over")


@pytest.mark.parametrize(
    ("key", "stays_s", "why"),
    [
        ("2", 30, "desk declined the call"),
        ("", 2.5, "desk hung up without taking the call"),
        ("", 30, "desk heard about it and pressed no key"),
    ],
)
async def test_warm_and_not_accepted(key: str, stays_s: float, why: str) -> None:
    async with human(answers(ring_s=0.1, stays_s=stays_s)) as colleague:
        settings = desk(colleague.endpoint, mode="warm", decide_s=1 if stays_s == 30 else 10)
        async with line(Script.of(WANTS, SUMMARY, SORRY), settings=settings) as it:
            phone = await consulted(it, colleague)
            if key:
                colleague.voice.press(key)
            await comes_back(it, phone, why)
            if stays_s == 30:
                await colleague.sees("BYE")


async def test_warm_and_the_caller_hangs_up_during_the_summary() -> None:
    async with human(answers(ring_s=0.1)) as colleague:
        settings = desk(colleague.endpoint, mode="warm")
        async with line(Script.of(WANTS, Say("A long story.", ms=9000, hz=1500)), settings=settings) as it:
            phone = await consulted(it, colleague)
            await phone.caller.hang_up()
            assert (await it.ended())["reason"] == "caller_hung_up"
            await colleague.sees("BYE")


REFER = """
[agents.default.transfers.desk]
sip = "sip:604@127.0.0.1"
referred_by = "sip:agent@example.com"
"""


async def test_by_sip_the_telephone_is_served() -> None:
    async with line(Script.of(WANTS), settings=REFER) as it, extension_of(it) as extension:
        it.marks.add("PJSIP/sipp")
        async with sip_caller(extension, calls(referred="200 OK")) as telephone:
            record = await it.ended()
            assert (record["reason"], record["detail"]) == ("transferred", "desk")
            refer = await telephone.sees("REFER")
            assert refer.header("Refer-To") == "sip:604@127.0.0.1"
            assert "sip:agent@example.com" in refer.header("Referred-By")
            await telephone.sees("BYE")


@pytest.mark.parametrize("referred", ["503 Service Unavailable", "486 Busy Here", "603 Decline"])
async def test_by_sip_it_does_not_work_and_the_caller_comes_back(referred: str) -> None:
    async with line(Script.of(WANTS, SORRY), settings=REFER) as it, extension_of(it) as extension:
        it.marks.add("PJSIP/sipp")
        async with sip_caller(extension, calls(referred=referred)) as telephone:
            failed = await it.hears_of("transfer_failed")
            assert "could not be connected with sip:604@127.0.0.1 (FAILURE)" in failed.facts["message"]
            await until(
                lambda: hears(telephone.voice.heard.pcm(), RATE_HZ, 660, 200), 5, lambda: "the agent is heard again"
            )
            assert not it.told("call_ended")


async def test_after_a_transfer_by_sip_that_did_not_work_the_dialplan_goes_on_behind_the_agent() -> None:
    """And not where the caller was sent for it: the next worker, or whatever else stands there, is to be asked."""

    async def leave(context: ToolContext) -> str:
        """Give the caller back."""
        context.call.leave()
        return "ok"

    script, tools = Script.of(WANTS, Call("leave")), ToolRegistry([leave])
    async with (
        line(script, settings=REFER, tools=tools) as it,
        extension_of(it) as extension,
        sip_caller(extension, calls(referred="503 Service Unavailable")),
    ):
        assert (await it.ended())["reason"] == "agent_left"
        steps = await it.reaches("after-agent")
        assert [step.reason for step in steps if step.name == "after-agent"] == ["agent_left"]


async def test_the_colleague_passes_the_caller_on_by_the_telephone() -> None:
    """Asterisk puts another channel in the place of the one that we dialled."""
    scenario = answers(ring_s=0.1, stays_s=0.5, refers_to="sip:600@127.0.0.1")
    async with human(scenario) as colleague, line(Script.of(WANTS), settings=desk(colleague.endpoint)) as it:
        phone = await it.phone()
        assert (await it.ended())["reason"] == "transferred"
        await until(lambda: hears(phone.heard(), 16000, 440), 6, lambda: "600 speaks to the caller")
        assert not it.told("ARI: a transferred call is over")
        await phone.caller.hang_up()
        await it.hears_of("ARI: a transferred call is over")


@pytest.mark.parametrize(
    ("to", "steps"),
    [("600@phones", ["human"]), ("601@phones", ["human-phone", "after-human-phone"])],
)
async def test_blind(to: str, steps: Sequence[str]) -> None:
    settings = f'[agents.default.transfers.desk]\nto = "{to}"\n'
    async with line(Script.of(WANTS), settings=settings) as it:
        phone = await it.phone()
        assert (await it.ended())["reason"] == "transferred"
        await it.reaches(*steps)
        await phone.caller.hang_up()


async def test_blind_to_a_colleague_who_answers() -> None:
    settings = '[agents.default.transfers.desk]\nto = "601@phones"\n'
    async with (
        human(answers(ring_s=0.1), registered=True) as colleague,
        line(Script.of(WANTS), settings=settings) as it,
    ):
        phone = await it.phone()
        assert (await it.ended())["reason"] == "transferred"
        await colleague.until_answered()
        await talk_to_each_other(phone, colleague)
        await phone.caller.hang_up()


async def test_blind_to_nowhere_is_refused_and_the_caller_stays() -> None:
    settings = '[agents.default.transfers.desk]\nto = "999999@phones"\n'
    async with line(Script.of(WANTS, SORRY), settings=settings) as it:
        phone = await it.phone()
        assert "no 999999@phones" in (await it.hears_of("transfer_refused")).facts["message"]
        await until(lambda: hears(phone.heard(), 16000, 660, 200), 5, lambda: "the agent says so")
        await phone.caller.hang_up()
        assert (await it.ended())["reason"] == "caller_hung_up"


def to(place: str, **more: str) -> str:
    """The settings of a destination in the dialplan."""
    return "\n".join(
        ["[agents.default.transfers.desk]", f'to = "{place}"', *(f'{k} = "{v}"' for k, v in more.items()), ""]
    )


async def test_a_queue_whose_member_is_there() -> None:
    settings = to("620@phones", queue="support")
    async with (
        human(answers(ring_s=0.1), registered=True) as colleague,
        line(Script.of(WANTS), settings=settings) as it,
    ):
        phone = await it.phone()
        assert (await it.ended())["reason"] == "transferred"
        await colleague.until_answered()
        await talk_to_each_other(phone, colleague)
        await phone.caller.hang_up()


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        (to("620@phones", queue="support"), "nobody is there to take calls of the queue support now"),
        (to("620@phones", queue="no-such"), "there is no queue no-such"),
        (to("630@phones", mailbox="999@default"), "there is no mailbox 999@default"),
    ],
)
async def test_a_queue_or_a_mailbox_that_is_not_there(settings: str, why: str) -> None:
    async with line(Script.of([Call("transfer_call", {"destination": "desk"})], SORRY), settings=settings) as it:
        phone = await it.phone()
        assert why in (await it.hears_of("transfer_refused")).facts["message"]
        await until(lambda: hears(phone.heard(), 16000, 660, 200), 5, lambda: "the agent says so")
        await phone.caller.hang_up()
        assert (await it.ended())["reason"] == "caller_hung_up"


async def test_a_mailbox_takes_a_message() -> None:
    async with line(Script.of(WANTS), settings=to("630@phones", mailbox="100@default")) as it:
        phone = await it.phone()
        assert (await it.ended())["reason"] == "transferred"
        with trio.fail_after(5):
            await phone.caller.hears_speech()  # "please leave your message ..."
        await phone.caller.hang_up()
