"""Transfers through the whole bridge, in virtual time: found out, told, rung, consulted, joined; and each way to fail."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import trio
from house import House, house
from trio.testing import MockClock

from bridge.ari_client import Channel, Dialplan, Message, Party
from bridge.ari_control import ChannelControl
from bridge.ari_target import DialledTarget
from bridge.config import Asterisk, MediaFormat
from bridge.destinations import Destination
from bridge.errors import ControlError, ControlRefused, ControlUnavailable
from bridge.live_call import LiveCall
from simulators.ari_server import HUNG_UP, Callee, FakeChannel, Place
from simulators.model_script import Call, Say, Script

DESK = """
[agents.default.transfers.desk]
endpoint = "PJSIP/600"
description = "a colleague"
ring_s = 20
"""
WARM = DESK + 'mode = "warm"\nmusic = "jazz"\ndecide_s = 5\n'
WANTS = [Call("transfer_call", {"destination": "desk"})]
GOING = Say("I am connecting you.", ms=300)
SUMMARY = Say("Alice asks for a loan.", ms=600)
SORRY = Say("Sorry, that did not work.", ms=300)


def call_bridge(it: House) -> list[str]:
    """Who is together in the call's own bridge: media, caller or out."""
    bridges = [bridge for bridge in it.ari.bridges.values() if bridge.id.startswith("realtime-bridge-")]
    (bridge,) = bridges
    return sorted(member.id.removeprefix("realtime-").partition("-")[0] for member in bridge.members)


async def test_a_colleague_who_answers_is_joined_with_the_caller(autojump_clock: MockClock) -> None:
    async with house(Script.of(WANTS, GOING), settings=DESK) as it:
        desk = it.ari.callees["PJSIP/600"] = Callee(after_s=7.0)
        channel, caller = await it.stasis_call(caller=("1001", "Alice"))
        record = await it.ended()
        assert record["reason"] == "transferred"
        assert record["detail"] == "desk"
        assert channel.in_stasis
        assert call_bridge(it) == ["demo", "out"]
        assert channel.music == ""
        assert desk.channel.variables["CONNECTEDLINE(num,i)"] == "1001"
        assert desk.channel.variables["CONNECTEDLINE(name,i)"] == "Alice"
        assert "I am connecting you." in it.model.session.items[-1].text
        # Announced, then 7 s of ringing: 425 Hz for 1 s, 4 s apart.
        rings = [at for at, pcm in caller.heard_frames if any(pcm)][-1] - caller.heard_frames[0][0]
        assert rings > 6
        channel.hang_up(21)
        await it.hears_of("ARI: a transferred call is over")
        assert desk.channel.dialplan == HUNG_UP


async def test_when_the_colleague_hangs_up_the_caller_is_hung_up_too(autojump_clock: MockClock) -> None:
    async with house(Script.of(WANTS, GOING), settings=DESK) as it:
        desk = it.ari.callees["PJSIP/600"] = Callee()
        channel, _ = await it.stasis_call()
        assert (await it.ended())["reason"] == "transferred"
        desk.channel.hang_up(16)
        await it.hears_of("ARI: a transferred call is over")
        assert channel.dialplan == HUNG_UP
        assert channel.hung_up_with == 16


@pytest.mark.parametrize(
    ("callee", "why"),
    [
        (Callee(cause=17), "desk is busy"),
        (Callee(cause=21), "desk rejected the call"),
        (Callee(after_s=None), "desk does not answer"),
        (Callee(cause=34), "desk can not be reached now (cause 34)"),
    ],
)
async def test_whoever_does_not_answer_leaves_the_caller_with_the_agent(
    autojump_clock: MockClock, callee: Callee, why: str
) -> None:
    async with house(Script.of(WANTS, GOING, SORRY), settings=DESK) as it:
        it.ari.callees["PJSIP/600"] = callee
        channel, _ = await it.stasis_call()
        assert (await it.hears_of("transfer_failed"))["message"] == why
        await it.hears_of("agent_said", 2)
        assert why in it.model.session.items[-2].text
        assert call_bridge(it) == ["demo", "media"]
        assert callee.channel.dialplan == HUNG_UP
        channel.hang_up()
        assert (await it.ended())["reason"] == "caller_hung_up"


@pytest.mark.parametrize(
    ("callee", "why"),
    [
        (None, "Asterisk has no endpoint PJSIP/600"),
        (Callee(registered=False), "PJSIP/600 is not registered now"),
        (Callee(device="BUSY"), "PJSIP/600 is busy"),
    ],
)
async def test_what_can_be_known_before_is_known_before_the_caller_is_told(
    autojump_clock: MockClock, callee: Callee | None, why: str
) -> None:
    async with house(Script.of(WANTS, SORRY), settings=DESK) as it:
        if callee is not None:
            it.ari.callees["PJSIP/600"] = callee
        channel, _ = await it.stasis_call()
        assert why in (await it.hears_of("transfer_refused"))["message"]
        await it.hears_of("agent_said")
        assert callee is None or not callee.channels, "nobody was rung"
        channel.hang_up()
        await it.ended()


@pytest.mark.parametrize("settings", [DESK, WARM])
async def test_a_caller_who_hangs_up_meanwhile_takes_the_colleague_along(
    autojump_clock: MockClock, settings: str
) -> None:
    async with house(Script.of(WANTS, GOING), settings=settings) as it:
        desk = it.ari.callees["PJSIP/600"] = Callee(after_s=None)
        channel, _ = await it.stasis_call()
        await it.until(lambda: bool(desk.channels) and desk.channel.state == "Ringing")
        channel.hang_up()
        assert (await it.ended())["reason"] == "caller_hung_up"
        assert desk.channel.dialplan == HUNG_UP


async def consulted(it: House) -> tuple[Callee, FakeChannel]:
    desk = it.ari.callees["PJSIP/600"] = Callee()
    channel, _ = await it.stasis_call()
    await it.until(lambda: any(bridge.id.startswith("realtime-consult-") for bridge in it.ari.bridges.values()))
    assert channel.music == "jazz"
    assert call_bridge(it) == ["demo"]
    return desk, channel


async def test_a_warm_one_hears_the_summary_and_takes_the_call_by_a_key(autojump_clock: MockClock) -> None:
    async with house(Script.of(WANTS, GOING, SUMMARY), settings=WARM) as it:
        desk, channel = await consulted(it)
        await it.hears_of("agent_said", 2)
        assert (await it.hears_of("agent_said", 2))["text"] == "Alice asks for a loan."
        told = it.events.told("transcript.final")[-1].event
        assert (told["role"], told["text"]) == ("agent", "Alice asks for a loan.")
        assert it.events.told("state.")[-1].event["state"] == "announcing"
        desk.channel.press("5")
        desk.channel.press("1")
        record = await it.ended()
        assert record["reason"] == "transferred"
        assert it.events.types("digit") == [], "the colleague's keys are not the caller's"
        assert call_bridge(it) == ["demo", "out"]
        assert channel.music == ""
        desk.channel.hang_up()
        await it.hears_of("ARI: a transferred call is over")


@pytest.mark.parametrize(
    ("act", "why"),
    [
        (lambda desk: desk.channel.press("2"), "desk declined the call"),
        (lambda desk: desk.channel.hang_up(), "desk hung up without taking the call"),
        (lambda desk: None, "desk heard about it and pressed no key"),
    ],
)
async def test_a_warm_one_who_does_not_take_it_gives_the_caller_back(
    autojump_clock: MockClock, act: Callable[[Callee], None], why: str
) -> None:
    async with house(Script.of(WANTS, GOING, SUMMARY, SORRY), settings=WARM) as it:
        desk, channel = await consulted(it)
        await it.hears_of("agent_said", 2)
        act(desk)
        assert why in (await it.hears_of("transfer_failed"))["message"]
        assert (await it.hears_of("agent_said", 3))["text"] == "Sorry, that did not work."
        assert call_bridge(it) == ["demo", "media"]
        assert channel.music == ""
        assert desk.channel.dialplan == HUNG_UP
        channel.hang_up()
        assert (await it.ended())["reason"] == "caller_hung_up"


async def test_a_colleague_may_take_the_call_before_the_summary_is_over(autojump_clock: MockClock) -> None:
    async with house(Script.of(WANTS, GOING, Say("A long story.", ms=20_000)), settings=WARM) as it:
        desk, _ = await consulted(it)
        await it.hears_of("agent_starts", 2)
        desk.channel.press("1")
        record = await it.ended()
        assert record["reason"] == "transferred"
        assert record["duration_s"] < 10
        desk.channel.hang_up()
        await it.hears_of("ARI: a transferred call is over")


async def test_a_caller_who_hangs_up_during_the_summary_ends_it(autojump_clock: MockClock) -> None:
    async with house(Script.of(WANTS, GOING, Say("A long story.", ms=20_000)), settings=WARM) as it:
        desk, channel = await consulted(it)
        await it.hears_of("agent_starts", 2)
        channel.hang_up()
        assert (await it.ended())["reason"] == "caller_hung_up"
        assert desk.channel.dialplan == HUNG_UP


async def test_a_model_that_is_gone_does_not_keep_a_caller_from_a_colleague(autojump_clock: MockClock) -> None:
    async with house(Script.of(WANTS, GOING), settings=WARM, overrides={"limits.reconnect_s": "3"}) as it:
        desk = it.ari.callees["PJSIP/600"] = Callee(after_s=3.0)
        await it.stasis_call()
        await it.until(lambda: bool(desk.channels))
        it.model_up = False
        await it.model.session.drop()
        record = await it.ended()
        assert record["reason"] == "transferred"
        desk.channel.hang_up()
        await it.hears_of("ARI: a transferred call is over")


async def test_the_next_process_looks_after_who_was_transferred(autojump_clock: MockClock) -> None:
    """Our process is gone, and both talk on; the sweep of the next one finds them."""
    async with house(Script.of(WANTS, GOING), settings=DESK) as it:
        desk = it.ari.callees["PJSIP/600"] = Callee()
        channel, _ = await it.stasis_call()
        await it.ended()
        it.stop_now()
        await it.stopped.wait()
        await it.start()
        await trio.sleep(2)
        assert channel.in_stasis
        assert call_bridge(it) == ["demo", "out"]
        desk.channel.hang_up()
        await it.hears_of("ARI: a transferred call is over")
        assert channel.dialplan == HUNG_UP


async def test_a_process_that_only_waits_for_who_was_transferred_sends_new_callers_on(
    autojump_clock: MockClock,
) -> None:
    """As draining, so that the dialplan asks the next worker; and it ends when they have parted."""
    async with house(Script.of(WANTS, GOING), settings=DESK) as it:
        desk = it.ari.callees["PJSIP/600"] = Callee()
        await it.stasis_call()
        await it.ended()
        it.ready.drain()
        await trio.sleep(10)
        late = it.ari.incoming_call()
        record = await it.ended(2)
        assert (record["reason"], late.dialplan) == ("server_draining", Place())
        assert late.variables["BRIDGE_END_REASON"] == "server_draining"
        assert not it.stopped.is_set()
        desk.channel.hang_up()
        with trio.fail_after(5):
            await it.stopped.wait()


async def test_a_queue_is_looked_at_before(autojump_clock: MockClock) -> None:
    settings = "[agents.default.transfers.desk]\nto = '620@phones'\nqueue = 'support'\n"
    async with house(Script.of(WANTS, GOING), settings=settings) as it:
        it.ari.dialplan.add(("phones", "620", "1"))
        it.ari.functions |= {
            "QUEUE_EXISTS(support)": "1",
            "QUEUE_MEMBER(support,logged)": "2",
            "QUEUE_WAITING_COUNT(support)": "3",
        }
        channel, _ = await it.stasis_call()
        assert (await it.ended())["reason"] == "transferred"
        assert channel.dialplan == Place("phones", "620", "1")
        outputs = [item.text for item in it.model.session.items if "possible" in item.text]
        assert outputs == [
            "It is possible. 3 callers wait there already. Tell the caller; it is done when they have heard you."
        ]


SIP = """
[agents.default.transfers.desk]
sip = "sip:604@example.com"
referred_by = "sip:agent@example.com"
"""
REFERS = ("realtime-refer", "s", "1")


async def in_the_dialplan(it: House, channel: FakeChannel) -> None:
    await it.until(lambda: channel.dialplan == Place("realtime-refer", "s", "1"))
    assert channel.variables["BRIDGE_REFER_TO"] == "PJSIP/sip:604@example.com"
    assert channel.variables["BRIDGE_REFER_APP"] == "bridge-1"
    assert channel.variables["SIPREFERREDBYHDR"] == "sip:agent@example.com"


async def test_by_sip_and_served(autojump_clock: MockClock) -> None:
    async with house(Script.of(WANTS, GOING), settings=SIP) as it:
        it.ari.dialplan.add(REFERS)
        channel, _ = await it.stasis_call()
        await in_the_dialplan(it, channel)
        assert not it.told("call_ended")
        channel.returns("returned", "SUCCESS")
        assert (await it.ended())["reason"] == "transferred"
        await it.until(lambda: channel.dialplan == HUNG_UP)


async def test_by_sip_and_not_served(autojump_clock: MockClock) -> None:
    async with house(Script.of(WANTS, GOING, SORRY), settings=SIP) as it:
        it.ari.dialplan.add(REFERS)
        channel, _ = await it.stasis_call()
        await in_the_dialplan(it, channel)
        channel.returns("returned", "FAILURE")
        assert "(FAILURE)" in (await it.hears_of("transfer_failed"))["message"]
        await it.hears_of("agent_said", 2)
        assert call_bridge(it) == ["demo", "media"]
        channel.hang_up()
        assert (await it.ended())["reason"] == "caller_hung_up"


async def test_a_caller_who_hangs_up_meanwhile_was_not_served(autojump_clock: MockClock) -> None:
    async with house(Script.of(WANTS, GOING), settings=SIP) as it:
        it.ari.dialplan.add(REFERS)
        channel, _ = await it.stasis_call()
        await in_the_dialplan(it, channel)
        channel.leave(HUNG_UP)
        assert (await it.ended())["reason"] == "caller_hung_up"


@pytest.mark.parametrize("served", [True, False])
async def test_by_sip_without_the_piece_of_dialplan(autojump_clock: MockClock, served: bool) -> None:
    """Nothing tells how it went, but whether the telephone hangs up."""
    async with house(Script.of(WANTS, GOING, SORRY), settings=SIP) as it:
        channel, _ = await it.stasis_call()
        await it.until(lambda: channel.referred_to == "PJSIP/sip:604@example.com")
        await trio.sleep(1)
        if served:
            channel.hang_up()
            assert (await it.ended())["reason"] == "transferred"
        else:
            assert "did not go on to" in (await it.hears_of("transfer_failed"))["message"]
            channel.hang_up()
            assert (await it.ended())["reason"] == "caller_hung_up"


async def test_a_caller_who_was_connected_by_an_operator_is_the_call_from_then_on(autojump_clock: MockClock) -> None:
    """The operator called the agent first, and then put the caller through."""
    async with house(Script.of(Say("Hello."))) as it:
        operator, _ = await it.stasis_call()
        await it.hears_of("agent_said")
        caller = operator.passes_on("Local/_attended@transfer-1;1")
        await trio.sleep(1)
        assert not it.told("call_ended"), "the operator's end is not the caller's"
        assert len(it.told("call_arrives")) == 1, "and the caller is no new call"
        caller.hang_up()
        assert (await it.ended())["reason"] == "caller_hung_up"


async def test_a_colleague_whose_call_is_picked_up_elsewhere(autojump_clock: MockClock) -> None:
    async with house(Script.of(WANTS, GOING), settings=DESK) as it:
        desk = it.ari.callees["PJSIP/600"] = Callee(after_s=None)
        channel, _ = await it.stasis_call()
        await it.until(lambda: bool(desk.channels) and desk.channel.state == "Ringing")
        desk.channel.state = "Up"
        other = desk.channel.passes_on("PJSIP/neighbour-1")
        assert (await it.ended())["reason"] == "transferred"
        channel.hang_up()
        await it.hears_of("ARI: a transferred call is over")
        assert other.dialplan == HUNG_UP


async def test_a_colleague_who_passes_the_caller_on(autojump_clock: MockClock) -> None:
    async with house(Script.of(WANTS, GOING), settings=DESK) as it:
        desk = it.ari.callees["PJSIP/600"] = Callee()
        channel, _ = await it.stasis_call()
        assert (await it.ended())["reason"] == "transferred"
        other = desk.channel.passes_on("Local/601@phones-1;1")
        await trio.sleep(1)
        assert channel.in_stasis
        other.leave(HUNG_UP)
        await it.hears_of("ARI: a transferred call is over")
        assert channel.dialplan == HUNG_UP


@pytest.mark.parametrize("returns", [True, False])
async def test_a_call_that_is_ended_while_the_caller_is_away_ends_for_him_too(
    autojump_clock: MockClock, returns: bool
) -> None:
    """And does not begin anew when he comes back."""
    calls: list[LiveCall] = []

    async def attend(call: LiveCall) -> None:
        calls.append(call)

    async with house(Script.of(WANTS, GOING), settings=SIP, on_call=attend) as it:
        it.ari.dialplan.add(REFERS)
        channel, _ = await it.stasis_call()
        await in_the_dialplan(it, channel)
        calls[0].hang_up("closing time")
        assert (await it.ended())["reason"] == "agent_hung_up"
        if returns:
            channel.returns("returned", "FAILURE")
            await it.until(lambda: channel.dialplan == HUNG_UP)
            assert channel.variables["BRIDGE_END_REASON"] == "agent_hung_up"
        else:
            channel.leave(HUNG_UP)
        await trio.sleep(65)  # a sweep
        assert len(it.told("call_arrives")) == 1
        calls[0].hang_up()
        calls[0].transfer("desk")
        calls[0].press("1")


# At the same moment ----------------------------------------------------------------------------------------------------


class App:
    """What `ChannelControl` needs of its app: each request first does what `meanwhile` says of its `METHOD uri`."""

    config = Asterisk()
    media_format = MediaFormat.SLIN16
    request_s = 2.0
    connected = True

    def __init__(self) -> None:
        self.meanwhile: dict[str, Callable[[], None]] = {}
        self.asked: list[str] = []
        self.looked_after: list[object] = []

    async def request(self, method: str, uri: str, **query: str) -> Any:
        await trio.lowlevel.checkpoint()
        self.asked.append(f"{method} {uri}")
        if act := self.meanwhile.get(f"{method} {uri}"):
            act()
        return {"value": "1"}

    def soon(self, *what: Any) -> None:
        for it in what:
            if hasattr(it, "close"):
                it.close()

    def look_after(self, joined: object) -> None:
        self.looked_after.append(joined)

    def expect_outgoing(self, channel: object) -> None: ...

    forget_outgoing = expect_outgoing

    def caller(self) -> ChannelControl:
        channel = Channel("c1", "PJSIP/alice-1", "Up", Party("Alice", "1001"), Dialplan("phones", "100", 2))
        control = ChannelControl(self, channel, [])  # type: ignore[arg-type]
        control.bridge_id, control.media_id = "realtime-bridge-1", "realtime-media-1"
        return control


def tells(control: ChannelControl, *events: str) -> Callable[[], None]:
    """These events of the caller's, one after another."""

    def act() -> None:
        for event in events:
            control.caller_event(Message(event, channel=Channel(control.channel_id), cause=16))

    return act


def refuses(act: Callable[[], None], error: ControlError) -> Callable[[], None]:
    def refuse() -> None:
        act()
        raise error

    return refuse


@pytest.mark.parametrize("who", ["caller", "colleague"])
async def test_who_hangs_up_while_asterisk_joins_them_leaves_nobody_alone(
    autojump_clock: MockClock, who: str
) -> None:
    """The news comes just before the answer, so `Joined` would wait for it in vain, and the other one in silence."""
    app = App()
    control = app.caller()
    target = DialledTarget(app, control, Destination(endpoint="PJSIP/600"), 1)  # type: ignore[arg-type]
    await target.ring("")
    assert "POST channels/realtime-out-1-1/dial" in app.asked
    told = {
        "caller": tells(control, "ChannelHangupRequest", "StasisEnd"),
        "colleague": lambda: target._channel.event(Message("ChannelDestroyed", cause=16)),
    }
    app.meanwhile["POST bridges/realtime-bridge-1/addChannel"] = told[who]
    with pytest.raises(ControlUnavailable, match="hung up"):
        await target.join()
    await target.release()
    assert not app.looked_after
    hung_up = "DELETE channels/realtime-out-1-1" in app.asked
    back = app.asked.count("POST bridges/realtime-bridge-1/addChannel") == 2
    assert (hung_up, back) == ((True, False) if who == "caller" else (False, True))


GONE = ControlRefused("no such channel", status=404)
LOST = ControlUnavailable("the connection was lost")


@pytest.mark.parametrize("way", ["dialplan", "redirect"])
async def test_who_hangs_up_just_before_a_transfer_by_sip_is_reported(autojump_clock: MockClock, way: str) -> None:
    """Until the next sweep, up to a minute later, the agent would talk to nobody."""
    app = App()
    control = app.caller()
    hangs_up = refuses(tells(control, "ChannelHangupRequest", "StasisEnd"), GONE)
    app.meanwhile |= {"POST channels/c1/continue": hangs_up, "POST channels/c1/redirect": hangs_up}
    if way == "redirect":
        app.meanwhile["GET channels/c1/variable"] = refuses(lambda: None, ControlRefused("no function", status=500))
    with pytest.raises(ControlRefused):
        await control.refer("sip:604@example.com", "")
    with trio.fail_after(1):
        event = await control.next_event()
    assert "the caller hung up" in str(event)


async def test_a_transfer_by_sip_whose_answer_is_lost_is_judged_by_stasis_end(autojump_clock: MockClock) -> None:
    """Else the caller would come back as a new call."""
    app = App()
    control = app.caller()
    app.meanwhile["POST channels/c1/continue"] = refuses(tells(control, "StasisEnd"), LOST)
    with trio.fail_after(50):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(control.refer, "sip:604@example.com", "")
            await trio.sleep(5)
            assert control.away
            control.returned(["returned", "SUCCESS"])
    assert control.gone


async def test_after_a_transfer_by_sip_the_caller_goes_on_behind_stasis(autojump_clock: MockClock) -> None:
    """A `continue` to nowhere in particular would go on in the context `realtime-refer`."""
    async with house(Script.of(WANTS, GOING, SORRY), settings=SIP) as it:
        it.ari.dialplan |= {REFERS, ("phones", "100", "3")}
        channel, _ = await it.stasis_call(exten="100")
        await in_the_dialplan(it, channel)
        channel.returns("returned", "FAILURE")
        await it.hears_of("agent_said", 2)
        it.ready.drain()
        it.stop_now()
        await it.ended()
        assert channel.dialplan == Place("phones", "100", "3")


# Without ARI -----------------------------------------------------------------------------------------------------------


async def test_a_caller_whose_warm_transfer_fails_without_ari_gets_the_agent_back_with_it(
    autojump_clock: MockClock,
) -> None:
    """Music and the agent's audio in another bridge must not be what is left of it."""
    async with house(Script.of(WANTS, GOING, SUMMARY, SORRY), settings=WARM) as it:
        desk, channel = await consulted(it)
        await it.hears_of("agent_said", 2)
        it.ari.enabled = False
        await it.ari.drop_connection()
        assert "pressed no key" in (await it.hears_of("transfer_failed"))["message"]
        assert (channel.music, call_bridge(it)) == ("jazz", ["demo"])
        it.ari.enabled = True
        await it.until(lambda: call_bridge(it) == ["demo", "media"])
        assert channel.music == ""
        await it.until(lambda: desk.channel.dialplan == HUNG_UP)
        channel.hang_up()
        assert (await it.ended())["reason"] == "caller_hung_up"


async def test_an_asterisk_that_stalls_as_a_transfer_fails_keeps_the_caller_waiting_no_longer_than_that(
    autojump_clock: MockClock,
) -> None:
    async with house(Script.of(WANTS, GOING, SUMMARY, SORRY), settings=WARM) as it:
        _, channel = await consulted(it)
        await it.hears_of("agent_said", 2)
        await trio.sleep(4)
        with it.ari.never_answers("POST bridges/"), it.ari.never_answers("DELETE"):
            await it.hears_of("transfer_failed")
            assert (channel.music, call_bridge(it)) == ("jazz", ["demo"])
        with trio.fail_after(5):
            await it.until(lambda: call_bridge(it) == ["demo", "media"] and channel.music == "")
        channel.hang_up()
        assert (await it.ended())["reason"] == "caller_hung_up"


async def test_nobody_is_joined_with_a_caller_whose_music_can_not_be_stopped(autojump_clock: MockClock) -> None:
    """It would cover the colleague's voice, and no call would be left whose business it is."""
    async with house(Script.of(WANTS, GOING, SORRY), settings=DESK + 'music = "jazz"\n') as it:
        desk = it.ari.callees["PJSIP/600"] = Callee()
        channel, _ = await it.stasis_call()
        with it.ari.never_answers("DELETE channels/demo"):
            assert "music" in (await it.hears_of("transfer_failed"))["message"]
        await it.until(lambda: channel.music == "")
        assert (call_bridge(it), desk.channel.dialplan) == (["demo", "media"], HUNG_UP)
        channel.hang_up()
        assert (await it.ended())["reason"] == "caller_hung_up"


async def test_a_caller_who_comes_back_as_ari_is_lost_is_joined_with_it(autojump_clock: MockClock) -> None:
    async with house(Script.of(WANTS, GOING, SORRY), settings=SIP) as it:
        it.ari.dialplan.add(REFERS)
        channel, _ = await it.stasis_call()
        await in_the_dialplan(it, channel)
        with it.ari.never_answers("POST bridges/"):
            channel.returns("returned", "FAILURE")
            await it.hears_of("transfer_failed")
            await trio.sleep(1)
            await it.ari.drop_connection()
        await it.until(lambda: call_bridge(it) == ["demo", "media"])
        channel.hang_up()
        assert (await it.ended())["reason"] == "caller_hung_up"
