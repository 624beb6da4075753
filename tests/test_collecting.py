"""Digits that a caller keys in: the outcomes of one entry, and collections in whole calls."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from typing import Any

import pytest
import trio
from house import FAST, House, house
from talking import heard_ms, say, voice
from trio.testing import MockClock

from bridge.collect import Collect
from bridge.collecting import Collecting, Outcome
from bridge.config import load_config
from bridge.errors import ConfigError
from bridge.live_call import LiveCall
from bridge.tools import ToolContext, ToolRegistry
from simulators.ari_channels import FakeChannel, Place
from simulators.model_script import Call, Part, Say, Script

ENTRY = Collect(min_digits=3, max_digits=5, timeout_s=10, pause_s=2)

# One entry ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "outcome", "digits"),
    [
        ([(1, "12345")], Outcome.COMPLETE, "12345"),
        ([(1, "123#")], Outcome.COMPLETE, "123"),
        ([(1, "12#")], Outcome.TOO_FEW, "12"),
        ([(1, "#")], Outcome.TOO_FEW, ""),
        ([(1, "1"), (2.9, "2"), (4.8, "3")], Outcome.COMPLETE, "123"),
        ([(1, "1"), (2.9, "2")], Outcome.TOO_FEW, "12"),
        ([(9.9, "1*0")], Outcome.COMPLETE, "1*0"),
        ([], Outcome.NOTHING, ""),
    ],
)
def test_how_an_entry_ends(keys: Sequence[tuple[float, str]], outcome: Outcome, digits: str) -> None:
    it = Collecting("C1", "pin", ENTRY, 0.0)
    ended = None
    for tenth in range(200):
        now = tenth / 10
        for key in "".join(pressed for at, pressed in keys if abs(at - now) < 0.01):
            ended = ended or it.key(key, now)
        ended = ended or it.tick(now, waits=False)
    assert ended is not None
    assert (ended.outcome, ended.digits, ended.count) == (outcome, digits, len(digits))
    assert json.loads(ended.output) == {"result": outcome.value, "count": len(digits), "digits": digits}


def test_the_time_to_the_first_key_begins_when_the_agent_has_asked() -> None:
    it = Collecting("C1", "pin", ENTRY, 0.0)
    assert it.tick(30.0, waits=True) is None
    assert it.tick(39.9, waits=False) is None
    ended = it.tick(40.0, waits=False)
    assert ended is not None
    assert ended.outcome is Outcome.NOTHING


def test_speech_ends_it_before_the_first_key_only() -> None:
    it = Collecting("C1", "pin", ENTRY, 0.0)
    it.key("1", 1.0)
    assert it.spoke() is None
    spoke = Collecting("C1", "pin", ENTRY, 0.0).spoke()
    assert spoke is not None
    assert spoke.outcome is Outcome.SPOKE


def test_a_secret_is_in_no_text() -> None:
    it = Collecting("C1", "pin", Collect(max_digits=4, secure=True), 0.0)
    assert it.spoke() is None
    for key in "907":
        it.key(key, 0.0)
    ended = it.key("4", 0.0)
    assert ended is not None
    assert ended.digits == "9074"
    assert "9074" not in repr(ended) + ended.output
    assert json.loads(ended.output)["count"] == 4


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ("[agents.a.collect.pin]\nmax_digits = 99", "collect.pin.max_digits: must be 1 to 40"),
        ("[agents.a.collect.pin]\nmin_digits = 30", "collect.pin.min_digits: must be 1 to max_digits"),
        ("[agents.a.collect.pin]\ntimeout_s = 0", "collect.pin.timeout_s: must be 1 to 120"),
        ("[agents.a.collect.pin]\npause_s = 0", "collect.pin.pause_s: must be 0.5 to 60"),
        ("[agents.a.collect.pin]\nterminator = 'x'", "collect.pin.terminator: must be one key of"),
        ("[agents.a.collect.'my pin']\n", "a name has 1 to 64"),
    ],
)
def test_errors_name_the_place_and_the_remedy(table: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(table, {})
    assert told in str(caught.value)


# In calls --------------------------------------------------------------------------------------------------------------

SETTINGS = """
[agents.default.transfers.reception]
to = "600@phones"
[agents.default.keys]
0 = "transfer reception"
[agents.default.collect.order]
min_digits = 3
max_digits = 6
timeout_s = 8
pause_s = 2
[agents.default.collect.pin]
max_digits = 4
secure = true
"""
ASK = Say("Please key in the number.", ms=1500, pace=FAST)


def collecting(name: str, *answers: Any) -> Script:
    return Script.of([ASK, Call("collect_digits", {"name": name}, call_id="C1")], *answers)


def outputs(it: House) -> list[str]:
    return [str(item.wire["output"]) for item in it.model.session.items if item.type == "function_call_output"]


async def asked(it: House) -> tuple[FakeChannel, Any]:
    """A caller of whom the agent has just asked for digits."""
    it.ari.dialplan.add(("phones", "600", "1"))
    channel, caller = await it.stasis_call()
    await it.hears_of("collecting_digits")
    return channel, caller


async def press(channel: FakeChannel, digits: str) -> None:
    for digit in digits:
        channel.press(digit)
        await trio.sleep(0.3)


async def test_the_digits_are_the_tools_one_output_and_keys_go_nowhere_else(autojump_clock: MockClock) -> None:
    async with house(collecting("order", Say("Thank you.", ms=500)), settings=SETTINGS) as it:
        channel, caller = await asked(it)
        await it.hears_of("agent_starts")
        await trio.sleep(0.5)
        await press(channel, "100#")
        await it.hears_of("agent_said", 2)
        assert heard_ms(caller) < 1500 + 500, "who presses does not listen to the end"
        assert [json.loads(text) for text in outputs(it)] == [{"result": "complete", "count": 3, "digits": "100"}]
        assert it.told("caller_pressed") == []
        assert [item.type for item in it.model.session.items] == [
            *("message", "function_call", "function_call_output", "message")
        ]
        await press(channel, "0")
        assert (await it.ended())["reason"] == "transferred", "the key map is in force again"
        assert channel.dialplan == Place("phones", "600", "1")


@pytest.mark.parametrize(
    ("digits", "told"),
    [
        ("12", ("too few digits", 2)),
        ("", ("no key was pressed", 0)),
        ("1234", ("complete", 4)),
        ("123456", ("complete", 6)),
    ],
)
async def test_times_and_lengths(autojump_clock: MockClock, digits: str, told: tuple[str, int]) -> None:
    async with house(collecting("order", Say("I see.", ms=500)), settings=SETTINGS) as it:
        channel, _ = await asked(it)
        await it.hears_of("agent_said")
        await press(channel, digits)
        await it.hears_of("agent_said", 2)
        (output,) = [json.loads(text) for text in outputs(it)]
        assert (output["result"], output["count"]) == told
        assert it.told("caller_waits") == [], "it is the caller's turn"
        channel.hang_up()
        await it.ended()


async def test_who_speaks_instead_is_answered_once(autojump_clock: MockClock) -> None:
    async with house(collecting("order", Say("No matter.", ms=500)), settings=SETTINGS) as it:
        channel, caller = await asked(it)
        await it.hears_of("agent_said")
        await say(it, caller, 800)
        await it.hears_of("agent_said", 2)
        assert [json.loads(text)["result"] for text in outputs(it)] == ["the caller spoke instead"]
        await trio.sleep(3)
        assert len(it.model.sent_events("response.created")) == 2
        channel.hang_up()
        await it.ended()


async def test_a_session_that_is_lost_meanwhile_is_told_the_digits(autojump_clock: MockClock) -> None:
    async with house(collecting("order", Say("Thank you.", ms=500)), settings=SETTINGS) as it:
        channel, _ = await asked(it)
        await it.hears_of("agent_said")
        await press(channel, "12")
        await it.model.session.drop()
        await it.hears_of("session_lost")
        await press(channel, "34#")
        await it.hears_of("agent_said", 2)
        assert [json.loads(text)["digits"] for text in outputs(it)] == ["1234"]
        channel.hang_up()
        await it.ended()


async def test_a_second_collection_waits_for_no_one(autojump_clock: MockClock) -> None:
    both: list[Part] = [ASK, Call("collect_digits", {"name": "order"}), Call("collect_digits", {"name": "pin"})]
    async with house(Script.of(both, Say("Thank you.")), settings=SETTINGS) as it:
        channel, _ = await asked(it)
        await it.hears_of("agent_said")
        await press(channel, "123#")
        await it.hears_of("agent_said", 2)
        assert sorted(text[:9] for text in outputs(it)) == ["Not done:", '{"result"']
        channel.hang_up()
        await it.ended()


async def test_an_entry_that_does_not_exist_is_told_with_the_choices(autojump_clock: MockClock) -> None:
    async with house(collecting("order", Say("Sorry.")), settings=SETTINGS) as it:
        it.model.brain.answers[0][1] = Call("collect_digits", {"name": "age"})  # type: ignore[attr-defined]
        channel, _ = await it.stasis_call()
        await it.hears_of("agent_said", 2)
        assert outputs(it) == ["there is nothing named 'age' to collect; known: order, pin"]
        channel.hang_up()
        await it.ended()


@pytest.mark.parametrize("end", ["hang up", "transfer"])
async def test_an_end_in_the_middle_breaks_it_off(autojump_clock: MockClock, end: str) -> None:
    calls: list[LiveCall] = []

    async def attend(call: LiveCall) -> None:
        calls.append(call)

    async with house(collecting("pin"), settings=SETTINGS, on_call=attend) as it:
        channel, _ = await asked(it)
        await it.hears_of("agent_said")
        await press(channel, "12")
        if end == "transfer":
            calls[0].transfer("reception")
            assert (await it.ended())["reason"] == "transferred"
            assert [json.loads(text)["result"] for text in outputs(it)] == ["broken off"]
            assert [facts["name"] for facts in it.told("secure_ends")] == ["pin"]
        else:
            channel.hang_up()
            assert (await it.ended())["reason"] == "caller_hung_up"
        assert calls[0].secure_digits == {}


async def test_last_words_in_the_middle_are_said(autojump_clock: MockClock) -> None:
    calls: list[LiveCall] = []

    async def attend(call: LiveCall) -> None:
        calls.append(call)

    async with house(collecting("order", Say("Bye.", ms=600)), settings=SETTINGS, on_call=attend) as it:
        await asked(it)
        await it.hears_of("agent_said")
        calls[0].say("Bye.")
        calls[0].hang_up("enough")
        began = trio.current_time()
        assert (await it.ended())["reason"] == "agent_hung_up"
        assert [facts["text"] for facts in it.told("agent_said")] == [ASK.text, "Bye."]
        assert trio.current_time() - began < 3


async def test_a_secret_reaches_the_application_and_nobody_else(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[ToolContext] = []

    async def check_pin(context: ToolContext) -> bool:
        """Is the PIN right?"""
        seen.append(context)
        return context.secure_digits["pin"] == "9074"

    heard: list[str] = []

    async def attend(call: LiveCall) -> None:
        async for event in call.events(["*"]):
            heard.append(f"{event.type} {event.event}")

    caplog.set_level(logging.DEBUG, "bridge")
    script = collecting("pin", Call("check_pin"), Say("Welcome.", ms=500))
    async with house(script, settings=SETTINGS, tools=ToolRegistry([check_pin]), on_call=attend) as it:
        channel, caller = await asked(it)
        await it.hears_of("agent_said")
        before = len(it.model.session.appended_pcm)
        caller.say(voice(1000))
        await press(channel, "9074#")
        await it.hears_of("digits_collected")
        await trio.sleep(0.1)
        assert not any(it.model.session.appended_pcm[before:]), "not even its tones"
        assert len(it.model.session.appended_pcm) - before > 1000 * 48, "silence, not nothing: the VAD counts samples"
        await it.hears_of("agent_said", 2)
        assert outputs(it)[1] == "true"
        assert [(facts["name"],) for facts in it.told("secure_begins") + it.told("secure_ends")] == [("pin",)] * 2
        channel.hang_up()
        record = await it.ended()
        everything = [repr(record), *heard, caplog.text, repr(seen), repr(it.collector.told)]
        everything += [str(passed.event) for passed in [*it.model.received, *it.model.sent]]
        everything += [repr(item.wire) for item in it.model.session.items]
        assert not [text for text in everything if "9074" in text or "9 0 7 4" in text]


async def test_what_follows_a_secret_is_dropped(autojump_clock: MockClock) -> None:
    """A PIN of six digits where four were asked for."""
    async with house(collecting("pin", Say("Thank you.", ms=500)), settings=SETTINGS) as it:
        channel, _ = await asked(it)
        await it.hears_of("agent_said")
        await press(channel, "907412#")
        await it.hears_of("agent_said", 2)
        await trio.sleep(3)
        assert it.told("caller_pressed") == []
        channel.hang_up()
        await it.ended()


async def test_the_servers_prompts_do_not_disturb_who_keys_in(autojump_clock: MockClock) -> None:
    settings = SETTINGS + "[agents.default.turn_detection]\nidle_timeout_ms = 5000\n"
    async with house(collecting("order", Say("I see.", ms=500)), settings=settings) as it:
        it.model.brain.add(Say("Are you there?", ms=500))  # type: ignore[attr-defined]
        channel, caller = await asked(it)
        await it.hears_of("agent_said")
        heard = heard_ms(caller)
        await trio.sleep(7)
        assert heard_ms(caller) == heard
        await press(channel, "123#")
        await it.hears_of("digits_collected")
        channel.hang_up()
        await it.ended()
