"""Calls that we place, at the real Asterisk: each outcome as a SIP telephone or the dialplan makes it."""

from __future__ import annotations

import pytest
import trio

from asterisk.compare import tone_share
from asterisk.human import Human, human
from asterisk.line import CONTROL_TOKEN, Line, line, until
from asterisk.rtp_telephone import RATE_HZ
from asterisk.sip_scenarios import Scenario, answers, refuses, rings
from bridge.__main__ import main
from bridge.outbound import CallOrder
from bridge.placed_call import PlacedCall
from simulators.model_script import Call, Part, Say, Script, tone
from simulators.wire_audio import resampled

pytestmark = pytest.mark.asterisk

OUTBOUND = """
[agents.default.outbound]
allow_endpoint = true
caller_id = "Sales <+4930111>"
ring_s = 8
"""
HELLO = Say("Hello, this is the bank.", ms=1000, hz=880)
GOODBYE: list[Part] = [HELLO, Call("hang_up", {"reason": "all said"})]


def place(it: Line, endpoint: str, **more: object) -> PlacedCall:
    variables = {"__TEST_ID": it.test_id}
    return it.ready.placing.place(CallOrder(to=endpoint, variables=variables, **more))  # type: ignore[arg-type]


def hears(colleague: Human, hz: float, ms: int = 300) -> bool:
    last = colleague.voice.heard.pcm()[-RATE_HZ * ms // 1000 * 2 :]
    return len(last) >= RATE_HZ * ms // 500 and tone_share(last, RATE_HZ, hz) > 0.9


def speak(colleague: Human, ms: int) -> None:
    colleague.voice.say(resampled(tone(500, ms), 24000, RATE_HZ))


async def test_a_telephone_shows_our_number_and_hears_the_greeting() -> None:
    async with line(Script.of(GOODBYE), settings=OUTBOUND) as it, human(answers(ring_s=0.3)) as colleague:
        placed = place(it, colleague.endpoint)
        assert await placed.until_answered()
        await until(lambda: hears(colleague, 880), 5, lambda: "the greeting")
        assert colleague.invite.header("From").startswith('"Sales" <sip:+4930111@')
        assert (await placed.until_ended()).reason == "agent_hung_up"
        await colleague.sees("BYE")
        print("\n".join(it for it in colleague.invite.body.splitlines() if "rtpmap" in it))


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        (refuses("486 Busy Here", ring_s=0.3), "busy"),
        (refuses("600 Busy Everywhere"), "busy"),
        (refuses("603 Decline", ring_s=0.3), "rejected"),
        (refuses("403 Forbidden"), "rejected"),
        (refuses("480 Temporarily Unavailable"), "no_answer"),
        (refuses("404 Not Found"), "unreachable"),
        (refuses("503 Service Unavailable"), "unreachable"),
        (rings(), "no_answer"),
    ],
)
async def test_what_a_telephone_says_is_the_reason(behaviour: Scenario, reason: str) -> None:
    async with line(Script.of(HELLO), settings=OUTBOUND) as it, human(behaviour) as colleague:
        placed = place(it, colleague.endpoint, ring_s=2)
        record = await placed.until_ended()
        print(record.reason, record.detail)
        assert (record.reason, record.answered_after_s) == (reason, None)
        assert not it.model.sent_events("response.created")


@pytest.mark.parametrize(
    ("endpoint", "reason"),
    [
        ("Local/640@phones", "busy"),
        ("Local/641@phones", "unreachable"),
        ("Local/642@phones", "no_answer"),
        ("Local/643@phones", "rejected"),
        ("Local/999@phones", "unreachable"),
        ("PJSIP/nobody", "unreachable"),
        ("PJSIP/human", "unreachable"),
    ],
)
async def test_what_the_dialplan_says_is_the_reason(endpoint: str, reason: str) -> None:
    async with line(Script.of(HELLO), settings=OUTBOUND) as it:
        record = await place(it, endpoint, ring_s=2).until_ended()
        print(record.reason, record.detail)
        assert record.reason == reason


async def test_an_extension_is_called_too() -> None:
    async with line(Script.of(HELLO), settings=OUTBOUND) as it:
        placed = place(it, "Local/600@phones/n")
        assert await placed.until_answered()
        await trio.sleep(0.5)  # it plays a tone, which the model takes for speech
        await it.hang_up(f"realtime-call-{placed.call_id}")
        assert (await placed.until_ended()).reason == "caller_hung_up"


async def test_a_call_is_taken_back_while_it_rings() -> None:
    async with line(Script.of(HELLO), settings=OUTBOUND) as it, human(rings()) as colleague:
        placed = place(it, colleague.endpoint)
        await colleague.sees("INVITE")
        await trio.sleep(0.3)
        assert placed.state == "ringing"
        placed.hang_up()
        assert (await placed.until_ended()).reason == "cancelled"
        await colleague.sees("CANCEL")


async def test_a_process_that_drains_stops_ringing() -> None:
    async with line(Script.of(HELLO), settings=OUTBOUND) as it, human(rings()) as colleague:
        placed = place(it, colleague.endpoint)
        await colleague.sees("INVITE")
        await trio.sleep(0.3)
        it.ready.drain()
        assert (await placed.until_ended()).reason == "server_draining"
        await colleague.sees("CANCEL")


async def test_who_hangs_up_at_once_has_hung_up() -> None:
    async with line(Script.of(HELLO), settings=OUTBOUND) as it, human(answers(stays_s=0.02)) as colleague:
        record = await place(it, colleague.endpoint).until_ended()
        assert record.reason == "caller_hung_up"


async def test_early_media_reaches_nobody() -> None:
    talks = answers(ring_s=1.5, early_media=True)
    async with line(Script.of(HELLO), settings=OUTBOUND) as it, human(talks) as colleague:
        placed = place(it, colleague.endpoint)
        await colleague.sees("INVITE")
        await trio.sleep(0.2)
        speak(colleague, 1000)
        assert await placed.until_answered()
        await it.hears_of("agent_said")
        assert tone_share(it.model.session.appended_pcm, 24000, 500) < 0.1
        placed.hang_up()
        await placed.until_ended()


async def run_command(it: Line, *arguments: str) -> int:
    """`realtime-bridge call` as another process would run it."""
    where = [f"server.control_address=127.0.0.1:{it.control_port}", f"server.control_token={CONTROL_TOKEN}"]
    command = ["call", *arguments, *(word for setting in where for word in ("--set", setting))]
    return await trio.to_thread.run_sync(main, command)


async def test_the_command_places_a_call_and_follows_it(capsys: pytest.CaptureFixture[str]) -> None:
    async with line(Script.of(GOODBYE), settings=OUTBOUND) as it, human(answers(ring_s=0.5)) as colleague:
        options = ("--caller-id", "Bank <+4930222>", "--variable", f"__TEST_ID={it.test_id}", "--fact", "Ms Smith.")
        assert await run_command(it, colleague.endpoint, "--wait", *options) == 0
        assert colleague.invite.header("From").startswith('"Bank" <sip:+4930222@')
        assert it.model.session.items[0].text == "Ms Smith."
        said = [row.split(" s  ")[1] for row in capsys.readouterr().out.splitlines() if " s  " in row]
        assert said[-2:] == ["answered", "agent_hung_up: all said"]


async def test_the_command_tells_of_a_busy_telephone(capsys: pytest.CaptureFixture[str]) -> None:
    async with line(Script.of(HELLO), settings=OUTBOUND) as it, human(refuses("486 Busy Here")) as colleague:
        assert await run_command(it, colleague.endpoint, "--wait") == 1
        assert "busy: User busy (cause 17)" in capsys.readouterr().out
        assert await run_command(it, "+4930111") == 2
        assert "agents.default.outbound.numbers" in capsys.readouterr().err


# Answering machines ------------------------------------------------------------------------------------------------------


def machine(setting: str) -> str:
    message = '\nmessage = "Please call 4711."' if setting == "message" else ""
    return OUTBOUND + f'machine = "{setting}"{message}\n'


async def test_a_human_is_told_from_a_machine_and_greeted() -> None:
    async with line(Script.of(HELLO), settings=machine("hang_up")) as it, human(answers()) as colleague:
        placed = place(it, colleague.endpoint)
        await colleague.until_answered()
        answered_at = trio.current_time()
        await trio.sleep(0.3)
        speak(colleague, 500)
        said_at = trio.current_time() + 0.5
        await it.hears_of("agent_starts")
        now = trio.current_time()
        print(f"hello after {now - answered_at:.2f} s, {now - said_at:.2f} s after the callee's own")
        print([told.event for told in it.told("ARI: ")])
        await until(lambda: hears(colleague, 880), 5, lambda: "the greeting")
        placed.hang_up()
        assert (await placed.until_ended()).reason == "agent_hung_up"


async def test_a_human_who_says_nothing_is_a_machine_to_amd() -> None:
    async with line(Script.of(HELLO), settings=machine("hang_up")) as it, human(answers()) as colleague:
        placed = place(it, colleague.endpoint)
        await colleague.until_answered()
        answered_at = trio.current_time()
        record = await placed.until_ended()
        print(f"{record.detail} after {trio.current_time() - answered_at:.2f} s")
        assert (record.reason, record.detail) == ("answering_machine", "AMD: INITIALSILENCE-2500-2500")


async def test_a_machine_is_hung_up_on() -> None:
    async with line(Script.of(HELLO), settings=machine("hang_up")) as it, human(answers()) as colleague:
        placed = place(it, colleague.endpoint)
        await colleague.until_answered()
        answered_at = trio.current_time()
        speak(colleague, 6000)
        record = await placed.until_ended()
        print(f"{record.detail} after {trio.current_time() - answered_at:.2f} s")
        assert record.reason == "answering_machine"
        assert "LONGGREETING" in record.detail or "MAXWORDLENGTH" in record.detail
        await colleague.sees("BYE")


async def test_a_machine_hears_the_message_when_its_greeting_is_over() -> None:
    message = Script.of(Say("Please call 4711.", ms=1500, hz=1500))
    async with line(message, settings=machine("message")) as it, human(answers()) as colleague:
        placed = place(it, colleague.endpoint)
        await colleague.until_answered()
        speak(colleague, 5000)
        over_at = trio.current_time() + 5
        await it.hears_of("agent_starts")
        after_s = trio.current_time() - over_at
        print(f"message {after_s:.2f} s after the greeting")
        assert 1.5 < after_s < 4
        await until(lambda: hears(colleague, 1500), 5, lambda: "the message")
        record = await placed.until_ended()
        assert (record.reason, record.detail) == ("answering_machine", "the message was left")


async def test_who_hangs_up_while_amd_listens_has_hung_up() -> None:
    async with line(Script.of(HELLO), settings=machine("hang_up")) as it, human(answers(stays_s=0.8)) as colleague:
        placed = place(it, colleague.endpoint)
        assert (await placed.until_ended()).reason == "caller_hung_up"
        assert colleague.answered


async def test_an_extension_that_speaks_like_a_machine_is_one() -> None:
    async with line(Script.of(HELLO), settings=machine("hang_up")) as it:
        record = await place(it, "Local/600@phones/n").until_ended()
        print(record.detail)
        assert record.reason == "answering_machine"
