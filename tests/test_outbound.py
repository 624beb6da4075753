"""Calls that we place, through the whole bridge in virtual time: rung when the model is ready; each way they end."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio
from house import House, house
from talking import heard_ms, loud, say
from trio.testing import MockClock

from bridge.errors import ConfigError, ControlUnavailable
from bridge.outbound import CallOrder
from bridge.placed_call import PlacedCall
from simulators.ari_server import HUNG_UP, Callee, Place
from simulators.model_script import Call, Say, Script

OUTBOUND = r"""
[agents.default.outbound]
numbers = "6\\d\\d|\\+49\\d+"
endpoint = "PJSIP/{number}"
caller_id = "Sales <+4930111>"
ring_s = 20
"""
ORDER = CallOrder(to="600")
HELLO = Say("Hello, this is the bank.", ms=400)
DETECT, GREETING_OVER = ("realtime-amd", "detect", "1"), ("realtime-amd", "after-greeting", "1")


def place(it: House, callee: Callee | None = None, order: CallOrder = ORDER) -> PlacedCall:
    it.ari.callees["PJSIP/600"] = callee or Callee()
    return it.ready.placing.place(order)


def free(it: House) -> bool:
    """No call counts any more."""
    report = it.ready.placing._switchboard
    return (report.running, report.waiting) == (0, 0)


async def test_a_callee_is_rung_when_the_model_is_ready_and_greeted_when_he_answers(
    autojump_clock: MockClock,
) -> None:
    async with house(Script.of(HELLO), settings=OUTBOUND) as it:
        callee = Callee(after_s=5.0)
        placed = place(it, callee)
        assert placed.state == "connecting"
        await it.until(lambda: placed.state == "ringing")
        assert it.model.sessions, "the model was there first"
        heard = await it.callee_hears(placed)
        assert await placed.until_answered()
        assert not loud(heard), "nothing was said while it rang"
        await it.hears_of("agent_said")
        assert heard_ms(heard) == 400
        channel = callee.channel
        assert channel.bridge is not None
        assert channel.id == f"realtime-call-{placed.call_id}"
        assert channel.variables["CONNECTEDLINE(num,i)"] == "+4930111"
        assert channel.variables["CONNECTEDLINE(name,i)"] == "Sales"
        channel.hang_up()
        record = await placed.until_ended()
        assert (record.reason, record.direction, record.called) == ("caller_hung_up", "outbound", "600")
        assert record.caller == "Sales <+4930111>"
        assert record.answered_after_s is not None
        assert record.answered_after_s >= 5
        assert free(it)


@pytest.mark.parametrize(
    ("callee", "reason", "detail"),
    [
        (Callee(cause=17), "busy", "cause 17"),
        (Callee(cause=21), "rejected", "cause 21"),
        (Callee(cause=18), "no_answer", "cause 18"),
        (Callee(after_s=None), "no_answer", "cause 19"),
        (Callee(cause=34), "unreachable", "cause 34"),
        (Callee(cause=1), "unreachable", "cause 1"),
        (Callee(registered=False), "unreachable", "no such endpoint, or it is not registered"),
    ],
)
async def test_who_does_not_answer_has_a_reason(
    autojump_clock: MockClock, callee: Callee, reason: str, detail: str
) -> None:
    async with house(Script.of(HELLO), settings=OUTBOUND) as it:
        placed = place(it, callee)
        assert not await placed.until_answered()
        record = await placed.until_ended()
        assert (record.reason, record.answered_after_s, record.error) == (reason, None, None)
        assert detail in record.detail
        assert it.model.sent_events("response.created") == [], "the model was not asked for anything"
        assert free(it)


async def test_a_model_out_of_reach_rings_nobody(autojump_clock: MockClock) -> None:
    async with house(settings=OUTBOUND, overrides={"limits.model_connect_s": "2"}) as it:
        it.model_up = False
        callee = Callee()
        record = await place(it, callee).until_ended()
        assert record.reason == "model_unreachable"
        assert not callee.channels
        assert free(it)


@pytest.mark.parametrize("when", ["connecting", "ringing"])
async def test_who_placed_a_call_can_take_it_back(autojump_clock: MockClock, when: str) -> None:
    async with house(Script.of(HELLO), settings=OUTBOUND) as it:
        callee = Callee(after_s=None)
        placed = place(it, callee)
        await it.until(lambda: placed.state == when)
        placed.hang_up("changed my mind")
        record = await placed.until_ended()
        assert (record.reason, record.detail) == ("cancelled", "changed my mind")
        assert all(channel.dialplan == HUNG_UP for channel in callee.channels)
        assert free(it)


async def test_a_call_is_taken_back_before_its_media_has_come(autojump_clock: MockClock) -> None:
    async with house(settings=OUTBOUND) as it:
        it.media_comes = False
        placed = place(it)
        await trio.sleep(0.5)
        placed.hang_up()
        record = await placed.until_ended()
        assert (record.reason, record.direction) == ("cancelled", "outbound")
        assert free(it)


async def test_a_call_whose_media_never_comes_rings_nobody(autojump_clock: MockClock) -> None:
    async with house(settings=OUTBOUND) as it:
        it.media_comes = False
        callee = Callee()
        assert (await place(it, callee).until_ended()).reason == "media_never_arrived"
        assert not callee.channels
        assert free(it)


async def test_who_hangs_up_at_once_has_been_answered(autojump_clock: MockClock) -> None:
    async with house(Script.of(HELLO), settings=OUTBOUND) as it:
        callee = Callee()
        placed = place(it, callee)
        assert await placed.until_answered()
        callee.channel.hang_up()
        assert (await placed.until_ended()).reason == "caller_hung_up"
        assert free(it)


async def test_a_process_that_drains_rings_nobody_any_more(autojump_clock: MockClock) -> None:
    async with house(Script.of(HELLO), settings=OUTBOUND) as it:
        callee = Callee(after_s=None)
        placed = place(it, callee)
        await it.until(lambda: placed.state == "ringing")
        it.ready.drain()
        assert (await placed.until_ended()).reason == "server_draining"
        assert callee.channel.dialplan == HUNG_UP
        with pytest.raises(ControlUnavailable, match="server_draining"):
            it.ready.placing.place(ORDER)


async def test_a_call_that_was_answered_survives_a_drain(autojump_clock: MockClock) -> None:
    async with house(Script.of(HELLO), settings=OUTBOUND) as it:
        callee = Callee()
        placed = place(it, callee)
        await placed.until_answered()
        it.ready.drain()
        await it.hears_of("agent_said")
        callee.channel.hang_up()
        assert (await placed.until_ended()).reason == "caller_hung_up"


@pytest.mark.parametrize("who", ["us", "them", "asterisk"])
async def test_an_end_at_any_moment_leaves_nothing_behind(autojump_clock: MockClock, who: str) -> None:
    reasons: set[str] = set()
    async with house(Script.of(*[HELLO] * 60), settings=machine("go_on"), limit_s=9000) as it:
        it.ari.dialplan |= {DETECT, GREETING_OVER}
        for ms in range(0, 3000, 200 if who == "asterisk" else 100):
            callee = Callee(after_s=1.0)
            placed = place(it, callee)
            with trio.move_on_after(ms / 1000):
                await it.until(lambda it=callee: bool(it.channels) and isinstance(it.channel.dialplan, Place))  # type: ignore[misc]
                await trio.sleep(0.5)
                callee.channel.returns("amd", "HUMAN", "")
                await placed.until_ended()
            match who:
                case "us":
                    placed.hang_up()
                case "them" if callee.channels and callee.channel.dialplan != HUNG_UP:
                    callee.channel.hang_up(17)
                case _:
                    await it.ari.drop_connection()
                    await trio.sleep(1)
                    placed.hang_up()
            reasons.add((await placed.until_ended()).reason)
            assert free(it), ms
            # What could not be told to Asterisk, the next sweep does.
            await trio.sleep(61 if who == "asterisk" else 0.5)
            assert not it.ari.bridges, ms
            assert not [name for name in it.ari.channels if name.startswith("realtime-")], ms
    assert (
        reasons
        >= {
            "us": {"cancelled", "agent_hung_up"},
            "them": {"busy", "caller_hung_up"},
            "asterisk": {"cancelled", "agent_hung_up"},
        }[who]
    )


async def test_whatever_ends_the_call_hangs_the_callee_up(autojump_clock: MockClock) -> None:
    async with house(
        Script.of(HELLO), settings=OUTBOUND, overrides={"limits.reconnect_s": "1", "limits.caller_waits_s": "1"}
    ) as it:
        callee = Callee()
        placed = place(it, callee)
        await it.hears_of("agent_said")
        it.model_up = False
        await it.model.session.drop(1011)
        record = await placed.until_ended()
        assert record.reason == "model_lost"
        assert callee.channel.dialplan == HUNG_UP
        assert callee.channel.variables["BRIDGE_END_REASON"] == "model_lost"


async def test_an_agent_hangs_up_on_a_callee_and_hears_his_keys(autojump_clock: MockClock) -> None:
    keys = OUTBOUND + '[agents.default.keys]\n9 = "hang_up"\n'
    async with house(Script.of(HELLO), settings=keys) as it:
        callee = Callee()
        placed = place(it, callee)
        await it.hears_of("agent_said")
        callee.channel.press("9")
        assert (await placed.until_ended()).reason == "agent_hung_up"
        assert callee.channel.dialplan == HUNG_UP


async def test_a_callee_is_transferred_like_a_caller(autojump_clock: MockClock) -> None:
    desk = OUTBOUND + '[agents.default.transfers.desk]\nendpoint = "PJSIP/700"\ndescription = "a colleague"\n'
    wants = [Call("transfer_call", {"destination": "desk"})]
    async with house(Script.of(wants, Say("One moment.", ms=200)), settings=desk) as it:
        colleague = it.ari.callees["PJSIP/700"] = Callee()
        callee = Callee()
        placed = place(it, callee)
        assert (await placed.until_ended()).reason == "transferred"
        assert colleague.channel.variables["CONNECTEDLINE(num,i)"] == "600"
        assert callee.channel.bridge is colleague.channel.bridge
        callee.channel.hang_up()
        await it.hears_of("ARI: a transferred call is over")
        assert colleague.channel.dialplan == HUNG_UP


async def test_an_answer_that_was_missed_without_ari_is_found_when_it_is_back(autojump_clock: MockClock) -> None:
    async with house(Script.of(HELLO), settings=OUTBOUND) as it:
        callee = Callee(after_s=1.0)
        placed = place(it, callee)
        await it.until(lambda: placed.state == "ringing" and bool(callee.channels))
        await trio.sleep(0.5)
        it.ari.enabled = False
        await it.ari.drop_connection()
        await trio.sleep(3)
        assert placed.state == "ringing"
        it.ari.enabled = True
        assert await placed.until_answered()
        await it.hears_of("agent_said")
        callee.channel.hang_up()
        assert (await placed.until_ended()).reason == "caller_hung_up"


async def test_a_refusal_that_was_missed_without_ari_is_found_when_it_is_back(autojump_clock: MockClock) -> None:
    async with house(Script.of(HELLO), settings=OUTBOUND) as it:
        placed = place(it, Callee(after_s=1.0, cause=17))
        await it.until(lambda: placed.state == "ringing")
        await trio.sleep(0.5)
        it.ari.enabled = False
        await it.ari.drop_connection()
        await trio.sleep(3)
        it.ari.enabled = True
        record = await placed.until_ended()
        assert (record.reason, record.detail) == ("unreachable", "it ended while ARI was disconnected")
        assert free(it)


@pytest.mark.parametrize("silent", ["POST channels/create", "POST channels/realtime-call-"])
async def test_an_asterisk_that_does_not_answer_ends_the_call(autojump_clock: MockClock, silent: str) -> None:
    async with house(Script.of(HELLO), settings=OUTBOUND) as it:
        with it.ari.never_answers(silent):
            record = await place(it).until_ended()
        assert record.reason == "control_lost"
        assert free(it)


async def test_a_channel_that_comes_after_its_call_has_ended_is_hung_up(autojump_clock: MockClock) -> None:
    async with house(Script.of(HELLO), settings=OUTBOUND) as it:
        callee = Callee(after_s=None)
        placed = place(it, callee)
        await it.until(lambda: placed.state == "ringing" and bool(callee.channels))
        await trio.sleep(1)
        with it.ari.never_answers("DELETE channels/realtime-call-"):
            placed.hang_up()
            await placed.until_ended()
            assert callee.channel.dialplan is None
        await it.until(lambda: callee.channel.dialplan == HUNG_UP)  # the next sweep, or Asterisk's own limit


async def test_callees_of_a_bridge_that_died_are_hung_up_by_the_next_one(autojump_clock: MockClock) -> None:
    ari_channel = "realtime-call-00000000-0000-0000-0000-000000000001"
    async with house(settings=OUTBOUND) as it:
        callee = it.ari.callees["PJSIP/600"] = Callee()
        it.ready.drain()
        await it.stopped.wait()
        query = {"endpoint": "PJSIP/600", "app": it.ari.app, "appArgs": "outgoing", "channelId": ari_channel}
        it.ari._create(query | {"formats": "slin16"})
        callee.channel.in_stasis = True  # as it was when the bridge died
        callee.channel.dialplan = None
        it.ari.channels[ari_channel] = callee.channel
        await it.start()
        await it.until(lambda: callee.channel.dialplan == HUNG_UP)


# Who speaks first --------------------------------------------------------------------------------------------------------

CALLEE_FIRST = OUTBOUND + 'first_word = "callee"\nfirst_word_s = 3\ngreeting = "Say that the order is ready."\n'


async def test_a_callee_who_speaks_first_is_answered_with_the_greeting(autojump_clock: MockClock) -> None:
    async with house(Script.of(HELLO), settings=CALLEE_FIRST) as it:
        callee = Callee()
        placed = place(it, callee)
        heard = await it.callee_hears(placed)
        await placed.until_answered()
        await trio.sleep(1)
        assert not loud(heard)
        await say(it, heard, 600)
        await it.hears_of("agent_said")
        assert len(it.model.sent_events("response.created")) == 1
        assert "Say that the order is ready." in it.model.session.items[0].text
        await trio.sleep(5)
        assert len(it.model.sent_events("response.created")) == 1, "greeted once"
        callee.channel.hang_up()
        await placed.until_ended()


async def test_a_callee_who_says_nothing_is_greeted_all_the_same(autojump_clock: MockClock) -> None:
    async with house(Script.of(HELLO), settings=CALLEE_FIRST) as it:
        callee = Callee()
        placed = place(it, callee)
        await placed.until_answered()
        answered_at = trio.current_time()
        await it.hears_of("agent_starts")
        assert 3 <= trio.current_time() - answered_at < 5
        assert "Say that the order is ready." in str(it.model.received_events("response.create")[0])
        callee.channel.hang_up()
        await placed.until_ended()


async def test_facts_are_written_before_anything_is_said(autojump_clock: MockClock) -> None:
    async with house(Script.of(HELLO), settings=OUTBOUND) as it:
        callee = Callee()
        placed = place(it, callee, CallOrder(to="600", facts="Mr Smith, order 4711.", variables={"__ORDER": "4711"}))
        await it.hears_of("agent_said")
        assert [item.text for item in it.model.session.items] == ["Mr Smith, order 4711.", "Hello, this is the bank."]
        assert callee.channel.variables["__ORDER"] == "4711"
        callee.channel.hang_up()
        await placed.until_ended()


# Answering machines ------------------------------------------------------------------------------------------------------


def machine(setting: str) -> str:
    message = '\nmessage = "Please call 4711."' if setting == "message" else ""
    return OUTBOUND + f'machine = "{setting}"{message}\n'


async def detecting(it: House, callee: Callee) -> PlacedCall:
    """A call that was answered, and to which AMD() listens now."""
    it.ari.dialplan |= {DETECT, GREETING_OVER}
    placed = place(it, callee)
    await it.until(lambda: placed.state == "detecting" and callee.channel.dialplan == Place(*DETECT))
    assert callee.channel.variables["REALTIME_APP"] == it.ari.app
    await trio.sleep(1.5)
    assert placed.state == "detecting"
    return placed


@pytest.mark.parametrize("setting", ["hang_up", "message", "go_on"])
@pytest.mark.parametrize("status", ["HUMAN", "NOTSURE"])
async def test_a_human_is_greeted_when_amd_is_done(autojump_clock: MockClock, setting: str, status: str) -> None:
    async with house(Script.of(HELLO), settings=machine(setting)) as it:
        callee = Callee()
        placed = await detecting(it, callee)
        callee.channel.returns("amd", status, "HUMAN-800-800")
        await it.hears_of("agent_said")
        callee.channel.hang_up()
        assert (await placed.until_ended()).reason == "caller_hung_up"


async def test_a_machine_is_hung_up_on(autojump_clock: MockClock) -> None:
    async with house(Script.of(HELLO), settings=machine("hang_up")) as it:
        callee = Callee()
        placed = await detecting(it, callee)
        callee.channel.returns("amd", "MACHINE", "LONGGREETING-1500-1500")
        record = await placed.until_ended()
        assert (record.reason, record.detail) == ("answering_machine", "AMD: LONGGREETING-1500-1500")
        assert it.model.sent_events("response.created") == []
        assert callee.channel.dialplan == HUNG_UP
        assert free(it)


async def test_a_machine_hears_the_message_after_its_greeting(autojump_clock: MockClock) -> None:
    async with house(Script.of(Say("Please call 4711.", ms=900)), settings=machine("message")) as it:
        callee = Callee()
        placed = await detecting(it, callee)
        heard = await it.callee_hears(placed)
        callee.channel.returns("amd", "MACHINE", "LONGGREETING-1500-1500")
        await it.until(lambda: callee.channel.dialplan == Place(*GREETING_OVER))
        await trio.sleep(10)
        callee.channel.returns("amd", "SILENCE", "")
        record = await placed.until_ended()
        assert (record.reason, record.detail) == ("answering_machine", "the message was left")
        assert record.answered_after_s is not None
        assert heard_ms(heard) == 900
        assert "Please call 4711." in str(it.model.received_events("response.create")[0])


async def test_an_agent_may_talk_to_a_machine(autojump_clock: MockClock) -> None:
    async with house(Script.of(HELLO), settings=machine("go_on")) as it:
        callee = Callee()
        placed = await detecting(it, callee)
        callee.channel.returns("amd", "MACHINE", "LONGGREETING-1500-1500")
        await it.hears_of("agent_said")
        assert "answering machine" in it.model.session.items[0].text
        callee.channel.hang_up()
        assert (await placed.until_ended()).reason == "caller_hung_up"


@pytest.mark.parametrize(
    ("act", "reason"),
    [
        (lambda callee, placed: callee.channel.hang_up(), "caller_hung_up"),
        (lambda callee, placed: placed.hang_up(), "cancelled"),
        (lambda callee, placed: None, "control_lost"),
    ],
)
async def test_calls_that_end_while_amd_listens(
    autojump_clock: MockClock, act: Callable[[Callee, PlacedCall], None], reason: str
) -> None:
    async with house(Script.of(HELLO), settings=machine("hang_up")) as it:
        callee = Callee()
        placed = await detecting(it, callee)
        act(callee, placed)
        assert (await placed.until_ended()).reason == reason
        assert callee.channel.dialplan == HUNG_UP
        assert free(it)


async def test_a_dialplan_without_the_context_takes_everybody_for_a_human(autojump_clock: MockClock) -> None:
    async with house(Script.of(HELLO), settings=machine("hang_up")) as it:
        callee = Callee()
        placed = place(it, callee)
        await it.hears_of("agent_said")
        assert any("the dialplan has no" in event for event, _ in it.collector.told)
        callee.channel.hang_up()
        await placed.until_ended()


# Who may be called, and when ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("order", "says"),
    [
        (CallOrder(to="700"), "may not call 700: agents.default.outbound.numbers"),
        (CallOrder(to="600/600"), "is an endpoint, and agent default calls numbers only"),
        (CallOrder(to="600&601"), "is no telephone number"),
        (CallOrder(to="6000"), "may not call 6000"),
        (CallOrder(to="600", agent="sales"), "agent: 'sales' is not defined; known: "),
        (CallOrder(to="600", agent="mute"), "agent mute may call nobody: agents.mute.outbound.numbers"),
        (CallOrder(to="600", caller_id="a\r\nb"), "caller_id: "),
        (CallOrder(to="600", variables={"SHELL(id)": "x"}), "is not the name of a channel variable"),
        (CallOrder(to="600", variables={"__BRIDGE_APPS": "x"}), "is the bridge's own"),
        (CallOrder(to="600", variables={"A": "x\ny"}), "must be one line"),
        (CallOrder(to="600", ring_s=-1), "ring_s: "),
        (CallOrder(to="600", facts="x" * 9000), "facts: "),
    ],
)
async def test_orders_that_are_refused_say_why(autojump_clock: MockClock, order: CallOrder, says: str) -> None:
    async with house(settings=OUTBOUND + "[agents.mute]\n") as it:
        with pytest.raises(ConfigError) as refused:
            place(it, order=order)
        assert says in str(refused.value)
        assert free(it)


async def test_an_endpoint_may_be_called_where_that_is_allowed(autojump_clock: MockClock) -> None:
    async with house(settings=OUTBOUND + "allow_endpoint = true\n") as it:
        callee = it.ari.callees["Local/600@phones"] = Callee()
        placed = it.ready.placing.place(CallOrder(to="Local/600@phones"))
        assert await placed.until_answered()
        callee.channel.hang_up()
        await placed.until_ended()
        with pytest.raises(ConfigError, match="is not one TECHNOLOGY/RESOURCE"):
            it.ready.placing.place(CallOrder(to="Local/600@phones&Local/601@phones"))


@pytest.mark.parametrize(
    ("overrides", "settings", "says"),
    [
        ({"server.max_calls": "1"}, "", "refused_busy: server.max_calls"),
        ({}, "max_calls = 1\n", "outbound.max_calls"),
    ],
)
async def test_a_full_house_places_no_call(
    autojump_clock: MockClock, overrides: dict[str, str], settings: str, says: str
) -> None:
    async with house(Script.of(HELLO), settings=OUTBOUND + settings, overrides=overrides) as it:
        callee = Callee()
        first = place(it, callee)
        with pytest.raises(ControlUnavailable, match=says):
            it.ready.placing.place(ORDER)
        await first.until_answered()
        with pytest.raises(ControlUnavailable, match=says):
            it.ready.placing.place(ORDER)
        callee.channel.hang_up()
        await first.until_ended()
        await trio.sleep(0.1)
        second = place(it, callee)
        await second.until_answered()
        callee.channel.hang_up()
        await second.until_ended()


async def test_without_ari_no_call_is_placed(autojump_clock: MockClock) -> None:
    async with house(settings=OUTBOUND) as it:
        it.ari.enabled = False
        await it.ari.drop_connection()
        await trio.sleep(0.1)
        with pytest.raises(ControlUnavailable, match="no connection to Asterisk's ARI"):
            place(it)
        it.ari.enabled = True
        await trio.sleep(5)


# By HTTP -----------------------------------------------------------------------------------------------------------------


async def test_a_call_is_placed_watched_and_hung_up_by_http(autojump_clock: MockClock) -> None:
    async with house(Script.of(HELLO), settings=OUTBOUND) as it:
        callee = it.ari.callees["PJSIP/600"] = Callee(after_s=2.0)
        order = {"to": "600", "facts": "Mr Smith.", "variables": {"A": "b"}, "caller_id": "4711"}
        status, call = await it.ask("POST", "/calls", order)
        assert status == 202
        assert (call["state"], call["answered"], call["called"], call["caller"]) == (
            "connecting",
            False,
            "600",
            "4711",
        )
        place_of_it = f"/calls/{call['id']}"
        await trio.sleep(1)
        assert (await it.ask("GET", place_of_it))[1]["state"] == "ringing"
        await it.hears_of("agent_said")
        assert (await it.ask("GET", place_of_it))[1]["state"] == "answered"
        assert (await it.ask("GET", "/calls"))[1]["calls"][0]["called"] == "600"
        status, _ = await it.ask("POST", f"{place_of_it}/hang_up", {"reason": "enough"})
        assert status == 202
        await it.ended()
        status, call = await it.ask("GET", place_of_it)
        assert status == 200
        assert (call["state"], call["answered"]) == ("ended", True)
        assert (call["reason"], call["detail"]) == ("agent_hung_up", "enough")
        assert (await it.ask("POST", f"{place_of_it}/hang_up"))[0] == 409
        assert callee.channel.dialplan == HUNG_UP
        await trio.sleep(301)
        it.ari.callees["PJSIP/600"] = Callee(cause=17)
        await it.ask("POST", "/calls", {"to": "600"})
        await it.ended(2)
        assert (await it.ask("GET", place_of_it))[0] == 404, "forgotten"


async def test_a_call_that_is_not_even_connected_is_hung_up_by_http(autojump_clock: MockClock) -> None:
    async with house(settings=OUTBOUND) as it:
        it.media_comes = False
        it.ari.callees["PJSIP/600"] = Callee()
        _, call = await it.ask("POST", "/calls", {"to": "600"})
        assert (await it.ask("POST", f"/calls/{call['id']}/hang_up"))[0] == 202
        assert (await it.ended())["reason"] == "cancelled"


@pytest.mark.parametrize(
    ("order", "status", "says"),
    [
        ({"to": "700"}, 400, "may not call 700"),
        ({}, 400, "to"),
        ({"to": "600", "number": "1"}, 400, "number"),
        ({"to": 600}, 400, "to: "),
        ({"to": "600", "agent": "x"}, 400, "agent: 'x' is not defined"),
        ({"to": "600"}, 503, "server_draining"),
    ],
)
async def test_orders_by_http_are_refused_in_words(
    autojump_clock: MockClock, order: dict[str, object], status: int, says: str
) -> None:
    async with house(settings=OUTBOUND) as it:
        it.ari.callees["PJSIP/600"] = Callee()
        it.ready.placing._switchboard.draining = status == 503
        answered, told = await it.ask("POST", "/calls", order)
        assert answered == status
        assert says in told["error"]
        it.ready.placing._switchboard.draining = False
