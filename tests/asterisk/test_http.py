"""Calls whose requests go by HTTP, as on an Asterisk before 20.14: the real one takes them so too."""

from __future__ import annotations

from uuid import uuid4

import msgspec
import pytest
import trio
from test_ari_server import RealExchange, real_exchange

from asterisk import figures
from asterisk.compare import compare, tone_share
from asterisk.line import free_port, line
from asterisk.talking import BAND_HZ
from asterisk.test_doctor import findings, verdicts
from asterisk.test_endings import TRANSFERS
from bridge.ari_app import AriApp
from bridge.ari_control import ChannelControl
from bridge.config import RequestsChoice
from bridge.ending import EndReason
from simulators.model_script import Call, Say, Script
from simulators.model_voice import Phrasebook
from simulators.wire_audio import resampled

pytestmark = pytest.mark.asterisk

PHRASES = Phrasebook.load().phrases
REPLY, QUESTION = PHRASES["hours_saturday"], PHRASES["interrupt_saturday"]
BY_HTTP = {"asterisk.requests": "http"}
MEASURED = 12


async def test_both_hear_each_other_and_the_human_takes_over() -> None:
    script = Script.of(
        Say(REPLY.text, pcm=REPLY.pcm),
        [Say("One moment."), Call("transfer_call", {"destination": "reception"})],
        transcripts=[QUESTION.text],
    )
    async with line(script, settings=TRANSFERS, media_format="slin", overrides=BY_HTTP) as it:
        assert it.told("ARI requests go by HTTP")
        phone = await it.phone()
        await it.hears_of("agent_said")
        phone.caller.say(resampled(QUESTION.pcm, 24000, 16000))
        record = await it.ended()
        assert (record["reason"], record["detail"]) == ("transferred", "reception")
        assert (await it.reaches("human"))[1].reason == "transferred"
        with trio.fail_after(3):
            since = await phone.caller.hears_speech()
        await trio.sleep(0.5)
        human = b"".join(pcm for _, pcm in phone.heard_since(since))
        assert tone_share(human, 16000, 440) > 0.95
        reply = compare(REPLY.pcm, 24000, phone.heard(), 16000, band_hz=BAND_HZ["slin"])
        question = compare(QUESTION.pcm, 24000, it.model.session.appended_pcm, 24000, band_hz=BAND_HZ["slin"])
        assert reply.same, f"the caller did not hear the reply: {reply}"
        assert question.same, f"the model did not hear the caller: {question}"


async def test_a_ringing_caller_is_answered_and_hung_up_on() -> None:
    script = Script.of([Say("Goodbye!", ms=400), Call("hang_up", {"reason": "all said"})])
    async with line(script, overrides=BY_HTTP) as it:
        await it.test_caller()
        record = await it.ended()
        assert (record["reason"], record["detail"]) == ("agent_hung_up", "all said")
        steps = await it.reaches("agent", "test-caller", "hung-up")
        assert "agent_hung_up" in {step.reason for step in steps if step.name == "hung-up"}


@pytest.mark.parametrize("after_s", [0.0, 0.001, 0.002, 0.004, 0.008])
async def test_a_caller_who_hangs_up_while_the_call_is_set_up_leaves_nothing(after_s: float) -> None:
    """Requests may overtake each other: `line` sees to it that no bridge and no channel is left."""
    async with line(Script.of(Say("Too late.")), overrides=BY_HTTP) as it:
        it.model.faults.created_after_s = 5.0
        for number in range(1, 4):
            caller = await it.test_caller()
            await it.hears_of("call_arrives", number)
            await trio.sleep(after_s)
            await it.hang_up(caller)
            assert (await it.ended(number))["reason"] == "caller_hung_up"


async def test_the_doctor_tells_of_it() -> None:
    found = await findings(free_port(), asterisk__requests="http")
    assert verdicts(found) == {}
    assert found["requests"].text == 'go by HTTP, and are answered there: asterisk.requests = "http"'


async def test_how_long_it_takes_to_bridge_a_caller() -> None:
    """StasisStart to caller and media in one bridge: on the websocket, by HTTP, and by HTTP with the first connections."""
    took = {"websocket": await bridged_ms("websocket"), "http": await bridged_ms("http")}
    print({way: [round(ms, 1) for ms in values] for way, values in took.items()})
    for ms in took["websocket"][1:]:
        figures.note(figures.BRIDGED_WEBSOCKET, "slin16", ms)
    for ms in took["http"][1:]:
        figures.note(figures.BRIDGED_HTTP, "slin16", ms)
    figures.note(figures.BRIDGED_HTTP_FIRST, "slin16", took["http"][0])
    assert sorted(took["http"])[MEASURED // 2] < 100


async def bridged_ms(requests: RequestsChoice) -> list[float]:
    """One caller after the other."""
    took: list[float] = []
    began, arrived = 0.0, trio.Event()
    controls: list[ChannelControl] = []

    def on_call(control: ChannelControl) -> None:
        nonlocal began
        began = trio.current_time()
        controls.append(control)
        arrived.set()

    async def one(exchange: RealExchange) -> None:
        nonlocal arrived
        arrived = trio.Event()
        await exchange.place_call()
        await arrived.wait()
        control = controls[-1]
        await control.prepare_media(uuid4(), "slin16")
        await control.answer()
        took.append((trio.current_time() - began) * 1000)
        await control.release(EndReason.AGENT_HUNG_UP, "")

    async with real_exchange() as exchange, trio.open_nursery() as nursery:
        config = msgspec.structs.replace(exchange.config, requests=requests)
        app = AriApp(config, 3.0, on_call)
        await nursery.start(app.run)
        for _ in range(MEASURED):
            await one(exchange)
            await trio.sleep(0.05)
        nursery.cancel_scope.cancel()
    return took
