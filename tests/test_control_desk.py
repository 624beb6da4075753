"""The control door of a whole bridge: an operator acts in a running call, and a dialplan asks what comes next."""

from __future__ import annotations

from uuid import uuid4

import pytest
import trio
from house import house
from trio.testing import MockClock

from bridge.control_desk import ENDING_S
from bridge.plain_calls import LAST_QUESTIONS_S
from simulators.ari_channels import Place
from simulators.model_script import Call, Say, Script, tone
from simulators.wire_audio import resampled

TRANSFERS = 'agents.default.transfers.reception = { to = "600@phones", description = "a human" }'


def hello() -> Script:
    return Script.of(Say("Hello!", ms=300), Say("One moment.", ms=300))


async def test_an_operator_sees_a_call_and_ends_it(autojump_clock: MockClock) -> None:
    async with house(hello()) as it:
        assert await it.ask("GET", "/calls") == (200, {"calls": []})
        await it.stasis_call(caller=("1001", "Alice"))
        await it.hears_of("agent_said")
        await trio.sleep(1)
        status, told = await it.ask("GET", "/calls")
        assert status == 200
        [call] = told["calls"]
        assert (call["agent"], call["caller"], call["state"]) == ("default", "1001 Alice", "listening")
        assert 1 < call["seconds"] < 5
        status, one = await it.ask("GET", f"/calls/{call['id']}")
        assert (status, one["id"], one.keys()) == (200, call["id"], call.keys())
        status, told = await it.ask("POST", f"/calls/{call['id']}/hang_up", {"reason": "closing time"})
        assert (status, told["state"]) == (202, "closing")
        record = await it.ended()
        assert (record["reason"], record["detail"]) == ("agent_hung_up", "closing time")
        assert await it.ask("GET", "/calls") == (200, {"calls": []})
        status, told = await it.ask("POST", f"/calls/{call['id']}/hang_up")
        assert status == 409
        assert "is over: agent_hung_up" in told["error"]
        status, told = await it.ask("GET", f"/calls/{call['id']}")
        assert (status, told["state"], told["detail"]) == (200, "ended", "closing time")
        status, told = await it.ask("POST", f"/calls/{uuid4()}/hang_up")
        assert (status, told["error"].startswith("no call")) == (404, True)


async def test_a_call_that_is_not_answered_yet_is_listed_as_connecting(autojump_clock: MockClock) -> None:
    async with house(hello()) as it:
        it.model.faults.created_after_s = 2.0
        await it.stasis_call()
        await trio.sleep(0.5)
        [call] = (await it.ask("GET", "/calls"))[1]["calls"]
        assert call["state"] == "connecting"
        await it.hears_of("agent_said")


async def test_an_operator_has_something_said_and_transfers(autojump_clock: MockClock) -> None:
    async with house(hello(), settings=TRANSFERS) as it:
        it.ari.dialplan.add(("phones", "600", "1"))
        channel, _ = await it.stasis_call()
        await it.hears_of("agent_said")
        call_id = (await it.ask("GET", "/calls"))[1]["calls"][0]["id"]
        assert (await it.ask("POST", f"/calls/{call_id}/say", {"text": "One moment, please."}))[0] == 202
        asked = await it.model.wait_for("response.create", 2)
        assert "One moment, please." in asked["response"]["instructions"]
        status, told = await it.ask("POST", f"/calls/{call_id}/transfer", {"destination": "moon"})
        assert status == 400
        assert told["error"] == "agent default has no destination 'moon'; known: reception"
        assert (await it.ask("POST", f"/calls/{call_id}/transfer", {"destination": "reception"}))[0] == 202
        record = await it.ended()
        assert record["reason"] == "transferred"
        assert channel.dialplan == Place("phones", "600", "1")
        assert len(it.told("agent_said")) == 2, "what was to be said before comes first"


async def test_everything_that_an_application_may_do_in_a_call(autojump_clock: MockClock) -> None:
    script = Script.of(Say("Hello!", ms=300), Say("It is ten.", ms=300), Say("As you wish.", ms=300))
    async with house(script) as it:
        channel, _ = await it.stasis_call()
        await it.hears_of("agent_said")
        [call] = (await it.ask("GET", "/calls"))[1]["calls"]

        async def do(command: str, **fields: object) -> None:
            status, told = await it.ask("POST", f"/calls/{call['id']}/{command}", fields)
            assert (status, told["id"]) == (202, call["id"]), told

        await do("write", text="The caller is a customer since 1999.")
        await do("ask", text="What time is it?")
        await it.hears_of("agent_said", 2)
        await do("update_agent", session={"instructions": "Speak like a pirate.", "max_response_output_tokens": 300})
        await it.model.wait_sent("session.updated", 2)
        config = it.model.session.config
        assert (config["instructions"], config["max_output_tokens"]) == ("Speak like a pirate.", 300)
        await do("client_event", type="response.create", response={"instructions": "Say 'a|b' \"now\"."})
        await it.hears_of("agent_said", 3)
        assert it.model.received_events("response.create")[-1]["response"] == {"instructions": "Say 'a|b' \"now\"."}
        await do("hold", music="jazz")
        await trio.sleep(1)
        assert channel.music == "jazz"
        await do("resume")
        await do("mute", who="both")
        await do("unmute", who="both")
        await do("press_keys", keys="12#")
        await do("pause_recording")
        await do("resume_recording")
        await trio.sleep(1)
        assert (channel.music, channel.pressed) == ("", ["12#"])
        status, told = await it.ask("POST", f"/calls/{call['id']}/answer_tool", {"tool_call_id": "x", "output": 1})
        assert (status, "no call 'x' of a tool waits" in told["error"]) == (409, True)
        await do("leave", reason="a colleague takes this one")
        record = await it.ended()
        assert (record["reason"], record["detail"]) == ("agent_left", "a colleague takes this one")
        assert channel.variables["BRIDGE_END_REASON"] == "agent_left"
        assert channel.dialplan == Place(), "the caller goes on behind Stasis()"


async def test_an_event_that_would_be_lost_between_two_sessions_is_refused(autojump_clock: MockClock) -> None:
    async with house(hello()) as it:
        channel, _ = await it.stasis_call()
        await it.hears_of("agent_said")
        [call] = (await it.ask("GET", "/calls"))[1]["calls"]
        it.model_up = False
        await it.model.session.drop()
        await it.hears_of("session_lost")
        event = f"/calls/{call['id']}/client_event"
        status, told = await it.ask("POST", event, {"type": "conversation.item.retrieve", "item_id": "x"})
        assert (status, "no session stands now" in told["error"]) == (409, True)
        session = {"type": "realtime", "max_output_tokens": 300}
        assert (await it.ask("POST", event, {"type": "session.update", "session": session}))[0] == 202
        it.model_up = True
        await it.hears_of("session_resumed")
        await trio.sleep(0.1)
        assert it.model.session.config["max_output_tokens"] == 300, "what the bridge keeps is told to the next one"
        channel.hang_up()
        await it.ended()


async def test_an_application_commits_and_clears_the_callers_turn(autojump_clock: MockClock) -> None:
    settings = 'agents.default.turn_detection = { type = "manual", talk_key = "" }'
    async with house(Script.of(Say("Hello!", ms=300), Say("I see.", ms=300)), settings=settings) as it:
        channel, caller = await it.stasis_call()
        await it.hears_of("agent_said")
        [call] = (await it.ask("GET", "/calls"))[1]["calls"]
        event = f"/calls/{call['id']}/client_event"
        caller.say(resampled(tone(660, 1000), 24000, 16000))
        await trio.sleep(1.5)
        assert (await it.ask("POST", event, {"type": "input_audio_buffer.commit"}))[0] == 202
        assert (await it.ask("POST", event, {"type": "response.create"}))[0] == 202
        await it.hears_of("agent_said", 2)
        await it.model.wait_sent("input_audio_buffer.committed")
        assert (await it.ask("POST", event, {"type": "input_audio_buffer.clear"}))[0] == 202
        await it.model.wait_sent("input_audio_buffer.cleared")
        channel.hang_up()
        await it.ended()


async def test_no_token_no_deed(autojump_clock: MockClock) -> None:
    async with house(hello()) as it:
        assert (await it.ask("GET", "/calls", token=""))[0] == 401
        assert (await it.ask("POST", "/calls", {"to": "PJSIP/x"}, token="guessed"))[0] == 401


@pytest.mark.parametrize(
    ("tool", "line", "reason"),
    [
        (Call("transfer_call", {"destination": "reception"}), "goto,phones,600,1", "transferred"),
        (Call("hang_up"), "hang_up,agent_hung_up", "agent_hung_up"),
    ],
)
async def test_the_dialplan_of_a_plain_call_is_told_what_the_agent_decided(
    autojump_clock: MockClock, tool: Call, line: str, reason: str
) -> None:
    async with house(Script.of([Say("One moment.", ms=500), tool]), settings=TRANSFERS) as it:
        caller = await it.plain_call(16000)
        await caller.ended.wait()
        assert caller.ended_how == "hangup", "0x00: the dialplan goes on"
        for _ in range(2):  # a line is not used up
            assert await it.ask("GET", f"/calls/{caller.call_id}/next", token="") == (200, line)
        assert (await it.ended())["reason"] == reason


async def test_a_plain_caller_whose_model_is_lost_goes_on(autojump_clock: MockClock) -> None:
    async with house(hello(), overrides={"limits.reconnect_s": "3"}) as it:
        caller = await it.plain_call()
        await it.hears_of("agent_said")
        it.model_up = False
        await it.model.session.drop()
        await caller.ended.wait()
        assert await it.ask("GET", f"/calls/{caller.call_id}/next", token="") == (200, "continue,model_lost")


async def test_a_plain_caller_who_is_refused_goes_on(autojump_clock: MockClock) -> None:
    async with house(hello(), overrides={"server.max_calls": "1"}) as it:
        first = await it.plain_call()
        await it.hears_of("agent_said")
        second = await it.plain_call()
        await second.ended.wait()
        assert await it.ask("GET", f"/calls/{second.call_id}/next", token="") == (200, "continue,refused_busy")
        await first.hang_up()


async def test_who_asks_too_early_waits_a_moment_for_the_end(autojump_clock: MockClock) -> None:
    async with house(hello()) as it:
        caller = await it.plain_call()
        await it.hears_of("agent_said")
        began = trio.current_time()
        assert await it.ask("GET", f"/calls/{caller.call_id}/next") == (409, "continue")
        assert trio.current_time() - began == ENDING_S

        async def hang_up_soon() -> None:
            await trio.sleep(0.3)
            await caller.hang_up()

        it.nursery.start_soon(hang_up_soon)
        # Its media ended without the bridge's doing; if the caller is still there, somebody has to be found.
        assert await it.ask("GET", f"/calls/{caller.call_id}/next") == (200, "continue,caller_hung_up")


async def test_an_unknown_call_is_sent_on(autojump_clock: MockClock) -> None:
    async with house(hello()) as it:
        assert await it.ask("GET", f"/calls/{uuid4()}/next", token="") == (404, "continue")


async def test_a_process_that_drains_answers_the_last_dialplan_before_it_ends(autojump_clock: MockClock) -> None:
    script = Script.of([Say("Goodbye.", ms=500), Call("hang_up")])
    async with house(script) as it:
        caller = await it.plain_call()
        await it.hears_of("agent_starts")
        it.ready.drain()
        await caller.ended.wait()
        await trio.sleep(LAST_QUESTIONS_S / 2)
        assert await it.ask("GET", f"/calls/{caller.call_id}/next") == (200, "hang_up,agent_hung_up")
        assert not it.told("drained")
        await it.hears_of("drained")


@pytest.mark.parametrize("deed", ["hang_up", "transfer"])
async def test_a_call_can_be_ended_before_it_is_answered(autojump_clock: MockClock, deed: str) -> None:
    async with house(hello(), settings=TRANSFERS) as it:
        it.ari.dialplan.add(("phones", "600", "1"))
        it.model.faults.created_after_s = 6.0
        channel, _ = await it.stasis_call()
        await trio.sleep(0.5)
        [call] = (await it.ask("GET", "/calls"))[1]["calls"]
        began = trio.current_time()
        body = {"destination": "reception"} if deed == "transfer" else None
        assert (await it.ask("POST", f"/calls/{call['id']}/{deed}", body))[0] == 202
        record = await it.ended()
        assert record["reason"] == ("transferred" if deed == "transfer" else "agent_hung_up")
        assert trio.current_time() - began < 1, record
        assert channel.state == "Ring", "never answered"
