"""Whole calls in virtual time: caller, bridge, Asterisk and model, each way that a call can go and end."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
import trio
from house import FAST, RATES_HZ, House, house
from trio.testing import MockClock

from bridge.audiosocket import Kind, encode
from bridge.tools import Tool, ToolRegistry
from simulators.ari_server import AriServer, Place
from simulators.model_script import Call, Fail, Say, Script, tone

TRANSFERS = "[agents.default.transfers.reception]\nto = '600@phones'\ndescription = 'a human'\n"
ALL_FORMATS = pytest.mark.parametrize("media_format", RATES_HZ)


def loudest_hz(pcm: bytes, rate_hz: int) -> float:
    samples = np.frombuffer(pcm, "<i2").astype(float)
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(np.argmax(spectrum)) * rate_hz / len(samples)


def speech_of(pcm: bytes, rate_hz: int, quiet: int = 200) -> bytes:
    """From the first to the last sample that is clearly not silence."""
    samples = np.frombuffer(pcm, "<i2")
    loud = np.flatnonzero(np.abs(samples) > quiet)
    return b"" if not len(loud) else bytes(samples[loud[0] : loud[-1] + 1].tobytes())


def ms_of(pcm: bytes, rate_hz: int) -> float:
    return len(pcm) / 2 / rate_hz * 1000


@ALL_FORMATS
async def test_a_stasis_call_from_ringing_to_goodbye(autojump_clock: MockClock, media_format: str) -> None:
    script = Script.of(
        Say("Hello!", ms=2000, hz=440),
        [Say("You are welcome. Goodbye!", ms=1500, hz=880), Call("hang_up", {"reason": "all said"})],
        transcripts=["Thanks, goodbye."],
    )
    async with house(script, media_format=media_format) as it:
        channel, caller = await it.stasis_call()
        await it.hears_of("agent_said")
        assert channel.state == "Up"
        greeting = speech_of(caller.heard_pcm(), it.rate_hz)
        assert abs(ms_of(greeting, it.rate_hz) - 2000) < 15
        assert abs(loudest_hz(greeting, it.rate_hz) - 440) < 2
        caller.say(_at(tone(300, 1000), it.rate_hz))
        record = await it.ended()
        heard = speech_of(caller.heard_pcm(), it.rate_hz)
        assert abs(ms_of(speech_of(heard[-it.rate_hz * 4 :], it.rate_hz), it.rate_hz) - 1500) < 600
        assert (record["reason"], record["detail"]) == ("agent_hung_up", "all said")
        assert channel.dialplan == "hung up"
        assert channel.variables["BRIDGE_END_REASON"] == "agent_hung_up"
        assert caller.ended_how == "hangup"
        assert caller.violations == []
        assert caller.max_gap_ms() < 40
        assert record["replies"] == 2
        assert record["audio_heard_ms"] >= 3495
        assert it.told("caller_said") == [{"text": "Thanks, goodbye."}]
        assert [facts["heard_ms"] for facts in it.told("agent_said")] == [2000, 1500]


def _at(pcm_24k: bytes, rate_hz: int) -> bytes:
    """A test tone of the model's rate at another rate, by its maker: exact, and independent of our resampler."""
    samples = np.frombuffer(pcm_24k, "<i2")
    spots = np.arange(0, len(samples), 24000 / rate_hz)
    return bytes(np.interp(spots, np.arange(len(samples)), samples).astype("<i2").tobytes())


@pytest.mark.parametrize(
    ("wanted", "version", "taken"),
    [("auto", "22.10.1", "slin24"), ("auto", "20.16.0", "slin"), ("slin16", "20.16.0", "slin")],
)
async def test_a_call_in_the_format_that_suits_the_version(
    autojump_clock: MockClock, wanted: str, version: str, taken: str
) -> None:
    script = Script.of([Say("Goodbye!", ms=1500, hz=880), Call("hang_up", {"reason": "all said"})])
    overrides, ari = {"asterisk.format": wanted}, AriServer(version=version)
    async with house(script, media_format=taken, overrides=overrides, ari=ari) as it:
        _, caller = await it.stasis_call()
        record = await it.ended()
        assert (record["reason"], record["media_format"]) == ("agent_hung_up", taken)
        assert abs(ms_of(speech_of(caller.heard_pcm(), it.rate_hz), it.rate_hz) - 1500) < 15


@ALL_FORMATS
async def test_what_the_model_hears_is_what_the_caller_says(autojump_clock: MockClock, media_format: str) -> None:
    async with house(Script.of(Say("Hello!", ms=500), Say("Yes?", ms=100)), media_format=media_format) as it:
        channel, caller = await it.stasis_call()
        await it.hears_of("agent_said")
        caller.say(_at(tone(1000, 3000), it.rate_hz))
        await it.model.wait_sent("input_audio_buffer.speech_stopped")
        heard = speech_of(it.model.session.appended_pcm, 24000)
        assert abs(ms_of(heard, 24000) - 3000) < 15
        assert abs(loudest_hz(heard, 24000) - 1000) < 1
        channel.hang_up()
        record = await it.ended()
        assert record["audio_dropped_ms"] == 0
        assert record["uplink_ms"]["max_ms"] <= 20


async def test_each_frame_goes_to_the_model_at_once(autojump_clock: MockClock) -> None:
    """The resampler has run since the caller's first frame, so what it keeps back makes no append shorter or later."""
    async with house(Script.of(Say("Hello!", ms=500))) as it:
        channel, _ = await it.stasis_call()
        await it.model.wait_for("input_audio_buffer.append", 3)
        appends = it.model.received_events("input_audio_buffer.append")
        # The record of the fake keeps "(N characters)" of base64: 64 a millisecond.
        sizes_ms = [int(append["audio"].strip("()").split()[0]) // 64 for append in appends[:3]]
        assert sizes_ms == [20, 20, 20]
        channel.hang_up()
        await it.ended()


async def test_the_caller_is_not_answered_before_the_model_is_ready(autojump_clock: MockClock) -> None:
    async with house(Script.of(Say("Hello!"))) as it:
        it.model.faults.created_after_s = 3.0
        channel, caller = await it.stasis_call()
        await trio.sleep(2)
        assert channel.state == "Ring"
        await it.hears_of("agent_starts")
        assert channel.state == "Up"
        assert caller.max_gap_ms() < 40, "silence flows while we connect"
        channel.hang_up()
        await it.ended()


async def test_the_caller_can_be_answered_at_once_on_request(autojump_clock: MockClock) -> None:
    async with house(Script.of(Say("Hello!")), overrides={"asterisk.answer": "at_once"}) as it:
        it.model.faults.created_after_s = 3.0
        channel, _ = await it.stasis_call()
        await trio.sleep(0.5)
        assert channel.state == "Up"
        channel.hang_up()
        assert (await it.ended())["reason"] == "caller_hung_up"


@ALL_FORMATS
async def test_barge_in_stops_within_a_frame_and_tells_what_was_heard(
    autojump_clock: MockClock, media_format: str
) -> None:
    script = Script.of(Say("A very long story.", ms=20_000, hz=440), Say("Yes?", ms=500, hz=880))
    async with house(script, media_format=media_format, overrides={"asterisk.lag_ms": "0"}) as it:
        channel, caller = await it.stasis_call()
        await it.hears_of("agent_starts")
        await trio.sleep(3.0)
        it.model.session.speech_started()
        truncate = await it.model.wait_for("conversation.item.truncate")
        await trio.sleep(0.2)
        story = speech_of(caller.heard_pcm(), it.rate_hz)
        assert abs(truncate["audio_end_ms"] - ms_of(story, it.rate_hz)) <= 20
        assert 2900 < truncate["audio_end_ms"] < 3100
        it.model.session.speech_stopped()
        await it.hears_of("agent_said", 2)
        assert it.model.session.items[0].truncated_ms == truncate["audio_end_ms"]
        channel.hang_up()
        assert (await it.ended())["interruptions"] == 1


async def test_late_deltas_of_an_interrupted_response_are_never_heard(autojump_clock: MockClock) -> None:
    async with house(Script.of(Say("Long.", ms=20_000, hz=440), Say("New.", ms=800, hz=1200))) as it:
        channel, caller = await it.stasis_call()
        await it.hears_of("agent_starts")
        await trio.sleep(1.0)
        with it.model.late_deltas(5, after_done=True):
            it.model.session.speech_started()
            await trio.sleep(0.5)
        heard_before = len(speech_of(caller.heard_pcm(), it.rate_hz))
        await trio.sleep(0.5)
        assert len(speech_of(caller.heard_pcm(), it.rate_hz)) == heard_before
        it.model.session.speech_stopped()
        await it.hears_of("agent_said", 2)
        last = caller.heard_pcm()[-2 * it.rate_hz // 2 :]
        assert abs(loudest_hz(last, it.rate_hz) - 1200) < 10
        channel.hang_up()
        await it.ended()


async def test_minutes_of_speech_that_arrive_at_once_are_played_whole(autojump_clock: MockClock) -> None:
    reply = Say("Once upon a time...", ms=90_000, hz=440, pace=FAST)
    async with house(Script.of(reply), overrides={"limits.caller_silent_s": "1000"}, limit_s=1000) as it:
        channel, caller = await it.stasis_call()
        said = await it.hears_of("agent_said")
        assert said["heard_ms"] == 90_000
        assert abs(ms_of(speech_of(caller.heard_pcm(), it.rate_hz), it.rate_hz) - 90_000) < 10
        channel.hang_up()
        record = await it.ended()
        assert record["underruns"] == 0
        assert record["frames_lost"] == 0


async def test_the_caller_hangs_up(autojump_clock: MockClock) -> None:
    async with house(Script.of(Say("Hello!", ms=5000))) as it:
        channel, caller = await it.stasis_call()
        await it.hears_of("agent_starts")
        channel.hang_up()
        record = await it.ended()
        assert (record["reason"], record["completion_reason"]) == ("caller_hung_up", "normal conversation end")
        assert record["error"] is None
        await caller.ended.wait()
        assert caller.ended_how == "hangup"


async def test_the_caller_hangs_up_while_it_rings(autojump_clock: MockClock) -> None:
    async with house() as it:
        it.model.faults.created_after_s = 5.0
        channel, _ = await it.stasis_call()
        await trio.sleep(1)
        channel.hang_up()
        record = await it.ended()
        assert record["reason"] == "caller_hung_up"
        assert record["answered_after_s"] is None


async def model_fault(it: House, fault: str) -> Mapping[str, Any]:
    """One call during which the model does this; its record."""
    match fault:
        case "bad key":
            with it.model.refusing("invalid_api_key"):
                channel, _ = await it.stasis_call()
                record = await it.ended()
        case "http 503":
            with it.model.http_status(503):
                channel, _ = await it.stasis_call()
                record = await it.ended()
        case "unreachable":
            it.model_up = False
            channel, _ = await it.stasis_call()
            record = await it.ended()
        case "silent":
            with it.model.silent():
                channel, _ = await it.stasis_call()
                record = await it.ended()
        case "update refused":
            with it.model.update_refused():
                channel, _ = await it.stasis_call()
                record = await it.ended()
        case "wrong format":
            with it.model.wrong_format({"type": "audio/pcmu"}):
                channel, _ = await it.stasis_call()
                record = await it.ended()
        case _:
            raise AssertionError(fault)
    assert channel.state == "Ring", "never answered into silence"
    assert channel.dialplan == Place()
    assert channel.variables["BRIDGE_END_REASON"] == record["reason"]
    return record


@pytest.mark.parametrize(
    ("fault", "reason", "completion", "code"),
    [
        ("bad key", "model_rejected", "server error", "invalid_api_key"),
        ("http 503", "model_unreachable", "connection failure", "503"),
        ("unreachable", "model_unreachable", "connection failure", None),
        ("silent", "model_unreachable", "connection failure", None),
        ("update refused", "model_rejected", "server error", None),
        ("wrong format", "model_rejected", "server error", "format_mismatch"),
    ],
)
async def test_a_model_that_can_not_serve_sends_the_caller_to_the_dialplan(
    autojump_clock: MockClock, fault: str, reason: str, completion: str, code: str | None
) -> None:
    async with house() as it:
        record = await model_fault(it, fault)
        assert (record["reason"], record["completion_reason"]) == (reason, completion)
        assert record["error"] is not None
        if code is not None:
            assert record["error"]["code"] == code


async def test_a_model_that_recovers_while_the_phone_rings(autojump_clock: MockClock) -> None:
    async with house(Script.of(Say("Hello!"))) as it:
        it.model_up = False
        channel, _ = await it.stasis_call()
        await trio.sleep(2)
        it.model_up = True
        await it.hears_of("agent_starts")
        channel.hang_up()
        assert (await it.ended())["reason"] == "caller_hung_up"


async def test_a_model_that_can_not_answer_for_long_sends_the_caller_to_the_dialplan(
    autojump_clock: MockClock,
) -> None:
    limited = Fail.rate_limited(7)
    async with house(Script.of(*[limited] * 4)) as it:
        channel, _ = await it.stasis_call()
        record = await it.ended()
        assert (record["reason"], record["completion_reason"]) == ("model_failed", "server failure")
        assert record["error"]["code"] == "rate_limit_exceeded"
        assert 21 <= record["duration_s"] < 30, "waited for as long as the server says, three times"
        assert channel.dialplan == Place()


async def test_a_transfer_happens_after_the_words_and_leaves_nothing_behind(autojump_clock: MockClock) -> None:
    words = Say("One moment, I connect you.", ms=1500, hz=440)
    async with house(
        Script.of([words, Call("transfer_call", {"destination": "reception"})]), settings=TRANSFERS
    ) as it:
        it.ari.dialplan.add(("phones", "600", "1"))
        channel, caller = await it.stasis_call()
        record = await it.ended()
        assert abs(ms_of(speech_of(caller.heard_pcm(), it.rate_hz), it.rate_hz) - 1500) < 15
        assert (record["reason"], record["detail"]) == ("transferred", "reception")
        assert channel.dialplan == Place("phones", "600", "1")


async def test_a_transfer_that_fails_comes_back_to_the_agent(autojump_clock: MockClock) -> None:
    script = Script.of([Say("One moment."), Call("transfer_call", {"destination": "reception"})], Say("Sorry!"))
    async with house(script, settings=TRANSFERS) as it:
        channel, _ = await it.stasis_call()
        await it.hears_of("transfer_refused")
        await it.hears_of("agent_said", 2)
        assert "no 600@phones" in it.model.session.items[-2].text
        channel.hang_up()
        assert (await it.ended())["reason"] == "caller_hung_up"


async def test_a_plain_call_whose_dialplan_can_not_ask_is_not_transferred_and_the_model_hears_why(
    autojump_clock: MockClock,
) -> None:
    script = Script.of([Say("One moment."), Call("transfer_call", {"destination": "reception"})], Say("Sorry!"))
    async with house(script, settings=TRANSFERS, overrides={"server.control_address": ""}) as it:
        caller = await it.plain_call()
        await it.hears_of("agent_said", 2)
        assert "Stasis()" in it.model.session.items[-2].text
        await caller.hang_up()
        assert (await it.ended())["reason"] == "caller_hung_up"


@pytest.mark.parametrize("rate_hz", [8000, 16000, 24000])
async def test_plain_calls_of_every_rate(autojump_clock: MockClock, rate_hz: int) -> None:
    async with house(Script.of([Say("Hello and goodbye.", ms=1000, hz=440), Call("hang_up")])) as it:
        caller = await it.plain_call(rate_hz)
        record = await it.ended()
        assert record["reason"] == "agent_hung_up"
        assert RATES_HZ[record["media_format"]] == rate_hz
        assert abs(ms_of(speech_of(caller.heard_pcm(), rate_hz), rate_hz) - 1000) < 15
        assert caller.ended_how == "hangup"
        assert caller.violations == []


@pytest.mark.parametrize("how", ["fin", "reset"])
async def test_a_plain_caller_hangs_up_by_fin_or_reset(autojump_clock: MockClock, how: str) -> None:
    async with house(Script.of(Say("Hello!", ms=5000))) as it:
        caller = await it.plain_call()
        await it.hears_of("agent_starts")
        await (caller.hang_up() if how == "fin" else caller.abort())
        assert (await it.ended())["reason"] == "caller_hung_up"


async def test_plain_calls_can_be_refused(autojump_clock: MockClock) -> None:
    async with house(overrides={"server.accept_plain_calls": "false"}) as it:
        caller = await it.plain_call()
        await caller.ended.wait()
        assert caller.ended_how == "hangup"
        assert it.told("call_ended") == []


async def test_a_caller_who_never_sends_a_frame_is_greeted_all_the_same(autojump_clock: MockClock) -> None:
    """A phone that sends nothing while silent, behind an AudioSocket() that waits for us first (issue 2089)."""
    async with house(Script.of(Say("Hello?", ms=1000)), overrides={"limits.media_silent_s": "20"}) as it:
        phone = it.media.connect()
        await phone.send_all(encode(Kind.UUID, uuid4().bytes))

        async def only_listen() -> None:
            while await phone.receive_some(65536):
                pass

        it.nursery.start_soon(only_listen)
        await it.hears_of("agent_said")
        assert (await it.ended())["reason"] == "media_lost"


async def asterisk_dies(it: House) -> None:
    """Its connections break, and nobody answers any more."""
    it.ari.enabled = False
    await it.ari.drop_connection()


@pytest.mark.parametrize("phase", ["connecting", "talking"])
@pytest.mark.parametrize(
    ("what", "reason", "dialplan"),
    [
        ("its media alone", "media_lost", Place()),
        ("all of Asterisk", "control_lost", None),
        ("the caller, unnoticed", "caller_hung_up", "hung up"),
    ],
)
async def test_the_media_connection_ends_with(
    autojump_clock: MockClock, what: str, reason: str, dialplan: object, phase: str
) -> None:
    async with house(Script.of(Say("A long story.", ms=60_000))) as it:
        with it.model.faulty(created_after_s=5.0 if phase == "connecting" else 0.0):
            channel, caller = await it.stasis_call()
        if phase == "talking":
            await it.hears_of("agent_starts")
        if what == "all of Asterisk":
            await asterisk_dies(it)
        elif what == "the caller, unnoticed":
            del it.ari.channels[channel.id]
            channel.dialplan = "hung up"
        began = trio.current_time()
        await caller.abort()
        record = await it.ended()
        assert record["reason"] == reason
        assert channel.dialplan == dialplan
        assert trio.current_time() - began < 0.1
        if what == "all of Asterisk":
            assert record["detail"].startswith("Asterisk is gone: ")
            it.ari.channels.clear()
            it.ari.bridges.clear()
            it.ari.enabled = True
            await trio.sleep(20)  # it comes back, and the next call with it
            channel, caller = await it.stasis_call()
            channel.hang_up()
            assert (await it.ended(2))["reason"] == "caller_hung_up"


async def test_a_caller_hangs_up_the_moment_that_the_media_comes(autojump_clock: MockClock) -> None:
    """Two tasks wait then, for the media and for the hang-up; in which order they run is trio's choice."""
    async with house() as it:
        for n in range(1, 31):
            began = trio.current_time()
            channel, _ = await it.stasis_call()
            channel.hang_up()
            record = await it.ended(n)
            assert (record["reason"], record["error"]) == ("caller_hung_up", None)
            assert trio.current_time() - began < 0.1


async def test_an_asterisk_that_dies_before_the_media_has_come(autojump_clock: MockClock) -> None:
    async with house() as it:
        it.media_comes = False
        with it.ari.never_answers("POST channels/externalMedia"):
            it.ari.incoming_call()
            await trio.sleep(0.1)
            await asterisk_dies(it)
            record = await it.ended()
        assert (record["reason"], record["answered_after_s"]) == ("control_lost", None)
        it.ari.channels.clear()
        it.ari.bridges.clear()


async def test_media_that_comes_too_late_is_no_call(autojump_clock: MockClock) -> None:
    async with house(overrides={"limits.media_arrival_s": "0.5"}) as it:
        it.media_delay_s = 1.0
        channel = it.ari.incoming_call()
        assert (await it.ended())["reason"] == "media_never_arrived"
        await trio.sleep(2)
        assert channel.dialplan == Place()
        assert len(it.told("call_ended")) == 1
        assert any("given up" in event for event, _ in it.collector.told)


async def test_keys_reach_the_model_once_though_asterisk_tells_them_twice(autojump_clock: MockClock) -> None:
    async with house(Script.of(Say("Press a key."), Say("Thanks."))) as it:
        channel, caller = await it.stasis_call()
        await it.hears_of("agent_said")
        for digit in "42":
            channel.press(digit)
            caller.press(digit)
        event = await it.model.wait_for("conversation.item.create")
        assert event["item"]["content"][0]["text"] == "(The caller pressed these keys: 4 2)"
        channel.hang_up()
        await it.ended()
        assert not [facts for name, facts in it.collector.told if "4 2" in str(facts)], "keys are not for logs"


async def test_keys_pressed_while_ari_is_lost_come_by_the_media(autojump_clock: MockClock) -> None:
    async with house(Script.of(Say("Press a key."), Say("Thanks."))) as it:
        channel, caller = await it.stasis_call()
        await it.hears_of("agent_said")
        await it.ari.drop_connection()
        await trio.sleep(0.1)
        channel.press("4")  # nobody is told
        caller.press("4")
        await trio.sleep(1)
        for source in (channel, caller):
            source.press("2")
        event = await it.model.wait_for("conversation.item.create")
        assert event["item"]["content"][0]["text"] == "(The caller pressed these keys: 4 2)"
        channel.hang_up()
        await it.ended()


async def test_tools_of_the_application_run_and_the_model_goes_on(autojump_clock: MockClock) -> None:
    async def weather(arguments: Mapping[str, Any]) -> object:
        await trio.sleep(0.5)
        return {"city": arguments["city"], "sky": "clear"}

    tools = ToolRegistry([Tool("weather", "The weather in a city", weather)])
    async with house(Script.of(Call("weather", {"city": "Oslo"}), Say("It is clear.")), tools=tools) as it:
        channel, caller = await it.stasis_call()
        await it.hears_of("agent_said")
        output = await it.model.wait_for("conversation.item.create")
        assert json.loads(output["item"]["output"]) == {"city": "Oslo", "sky": "clear"}
        assert caller.max_gap_ms() < 40, "silence flows while a tool runs"
        channel.hang_up()
        await it.ended()


@pytest.mark.parametrize(
    ("name", "arguments", "says"),
    [
        ("unknown", "{}", "no tool named 'unknown'"),
        ("weather", "{broken", "not valid JSON"),
        ("weather", "[]", "must be a JSON object"),
        ("weather", "{}", "KeyError"),
        ("slow", "{}", "did not answer within 15 s"),
    ],
)
async def test_whatever_happens_to_a_tool_the_model_is_told_once(
    autojump_clock: MockClock, name: str, arguments: str, says: str
) -> None:
    async def weather(it: Mapping[str, Any]) -> object:
        return it["city"]

    async def slow(_: Mapping[str, Any]) -> object:
        await trio.sleep_forever()
        return None

    tools = ToolRegistry([Tool("weather", "w", weather), Tool("slow", "s", slow)])
    async with house(Script.of(Call(name, arguments), Say("Sorry.")), tools=tools) as it:
        channel, _ = await it.stasis_call()
        await it.hears_of("agent_said")
        outputs = it.model.received_events("conversation.item.create")
        assert len(outputs) == 1
        assert says in outputs[0]["item"]["output"]
        channel.hang_up()
        await it.ended()


async def test_media_that_never_arrives_sends_the_caller_back(autojump_clock: MockClock) -> None:
    async with house() as it:
        it.media_comes = False
        channel = it.ari.incoming_call()
        record = await it.ended()
        assert record["reason"] == "media_never_arrived"
        assert "asterisk.media_address" in record["detail"]
        assert channel.dialplan == Place()


async def test_a_full_house_sends_callers_back_before_they_are_answered(autojump_clock: MockClock) -> None:
    async with house(Script.of(Say("Hello!", ms=60_000)), overrides={"server.max_calls": "1"}) as it:
        channel, _ = await it.stasis_call()
        await it.hears_of("agent_starts")
        second = it.ari.incoming_call()
        record = await it.ended()
        assert record["reason"] == "refused_busy"
        assert (second.state, second.dialplan) == ("Ring", Place())
        assert second.variables["BRIDGE_END_REASON"] == "refused_busy"
        channel.hang_up()
        await it.ended(2)


async def test_a_process_that_is_late_takes_no_further_calls_until_it_is_in_time(autojump_clock: MockClock) -> None:
    """A busy machine: for 4 s all time stands still 30 ms long again and again."""
    async with house(Script.of(Say("Hello!", ms=60_000), Say("Hello!"))) as it:
        channel, _ = await it.stasis_call()
        await it.hears_of("agent_starts")
        for _ in range(50):
            await trio.sleep(0.05)
            autojump_clock.jump(0.03)
        second = it.ari.incoming_call()
        record = await it.ended()
        assert record["reason"] == "refused_busy"
        assert "later than 10 ms (server.max_lateness_ms)" in record["detail"]
        assert (second.state, second.dialplan) == ("Ring", Place())
        await trio.sleep(11)
        third, _ = await it.stasis_call()
        await it.hears_of("agent_starts", 2)
        channel.hang_up()
        third.hang_up()
        assert [(await it.ended(n))["reason"] for n in (2, 3)] == ["caller_hung_up"] * 2


async def test_the_drain_limit_returns_a_caller_whose_media_has_not_come(autojump_clock: MockClock) -> None:
    async with house(overrides={"limits.drain_s": "1", "limits.media_arrival_s": "30"}) as it:
        it.media_comes = False
        channel = it.ari.incoming_call()
        await trio.sleep(0.5)
        it.ready.drain()
        assert (await it.ended())["reason"] == "server_draining"
        assert channel.dialplan == Place()


async def test_draining_lets_calls_finish_and_takes_no_new_ones(autojump_clock: MockClock) -> None:
    async with house(Script.of(Say("Hello!", ms=20_000))) as it:
        channel, caller = await it.stasis_call()
        await it.hears_of("agent_starts")
        it.ready.drain()
        await trio.sleep(0.1)
        second = it.ari.incoming_call()
        record = await it.ended()
        assert record["reason"] == "server_draining"
        assert second.dialplan == Place()
        await it.hears_of("agent_said")
        assert caller.max_gap_ms() < 40
        channel.hang_up()
        assert (await it.ended(2))["reason"] == "caller_hung_up"


async def test_the_drain_limit_sends_the_last_callers_to_the_dialplan(autojump_clock: MockClock) -> None:
    async with house(Script.of(Say("Hello!", ms=200_000)), overrides={"limits.drain_s": "10"}) as it:
        channel, _ = await it.stasis_call()
        await it.hears_of("agent_starts")
        it.ready.drain()
        record = await it.ended()
        assert record["reason"] == "server_draining"
        assert channel.dialplan == Place()


async def test_a_second_signal_ends_calls_at_once_and_still_returns_the_callers(autojump_clock: MockClock) -> None:
    async with house(Script.of(Say("Hello!", ms=60_000))) as it:
        channel, _ = await it.stasis_call()
        await it.hears_of("agent_starts")
        it.stop_now()
        record = await it.ended()
        assert record["reason"] == "server_draining"
        assert channel.dialplan == Place()
        assert channel.variables["BRIDGE_END_REASON"] == "server_draining"


async def test_the_caller_hangs_up_before_the_media_has_come(autojump_clock: MockClock) -> None:
    async with house() as it:
        it.media_comes = False
        channel = it.ari.incoming_call()
        await trio.sleep(1)
        channel.hang_up()
        record = await it.ended()
        assert (record["reason"], record["error"]) == ("caller_hung_up", None)
        assert record["duration_s"] < 2


async def test_a_gap_of_the_control_connection_at_the_answer_is_waited_out(autojump_clock: MockClock) -> None:
    async with house(Script.of(Say("Hello!"))) as it:
        it.model.faults.created_after_s = 1.0
        channel, _ = await it.stasis_call()
        await trio.sleep(0.9)
        await it.ari.drop_connection()
        await it.hears_of("agent_said")
        assert channel.state == "Up"
        channel.hang_up()
        await it.ended()


async def test_plain_calls_count_and_each_has_its_record(autojump_clock: MockClock) -> None:
    async with house(Script.of(Say("Hello!", ms=5000)), overrides={"server.max_calls": "1"}) as it:
        callers = [await it.plain_call() for _ in range(3)]
        await it.ended(2)
        assert [record["reason"] for record in it.told("call_ended")] == ["refused_busy", "refused_busy"]
        for caller in callers[1:]:
            await caller.ended.wait()
            assert caller.ended_how == "hangup"
        await callers[0].hang_up()
        assert (await it.ended(3))["reason"] == "caller_hung_up"


async def test_a_plain_call_of_a_format_that_we_do_not_know_has_its_record(autojump_clock: MockClock) -> None:
    async with house() as it:
        phone = it.media.connect()
        await phone.send_all(encode(Kind.UUID, uuid4().bytes) + encode(Kind.SLIN48, bytes(1920)))
        record = await it.ended()
        assert record["reason"] == "protocol_error"
        assert "slin48" in record["detail"]


@pytest.mark.parametrize(
    "first_bytes",
    [b"GET / HTTP/1.1\r\n\r\n", b"\x01\x00\x04abcd", b"\x10\x01\x40" + bytes(320), b"\x77\x00\x00", b""],
)
async def test_a_stranger_on_the_media_port_harms_nobody(autojump_clock: MockClock, first_bytes: bytes) -> None:
    async with house(Script.of(Say("Hello!", ms=5000))) as it:
        channel, caller = await it.stasis_call()
        stranger = it.media.connect()
        if first_bytes:
            await stranger.send_all(first_bytes)
        with trio.fail_after(3):
            while await stranger.receive_some(100):
                pass
        assert it.told("media connection refused")
        await it.hears_of("agent_said")
        assert caller.max_gap_ms() < 40
        channel.hang_up()
        await it.ended()


async def test_asterisk_is_lost_and_back_and_the_call_goes_on(autojump_clock: MockClock) -> None:
    async with house(Script.of(Say("Hello!", ms=10_000))) as it:
        channel, caller = await it.stasis_call()
        await it.hears_of("agent_starts")
        await it.ari.drop_connection()
        await it.hears_of("agent_said")
        assert caller.max_gap_ms() < 40
        channel.hang_up()
        assert (await it.ended())["reason"] == "caller_hung_up"


async def test_many_calls_at_once_keep_apart(autojump_clock: MockClock) -> None:
    """One tone a call, random endings; nobody hears another's tone and every call has its record."""
    async with house(limit_s=2000) as it:
        script = it.model.brain
        assert isinstance(script, Script)
        calls = []
        for number in range(20):
            script.add(Say("Tone.", ms=3000, hz=300 + 100 * number))
            calls.append(await it.stasis_call())
            await it.hears_of("agent_starts", number + 1)
        await it.hears_of("agent_said", 20)
        for number, (channel, caller) in enumerate(calls):
            spoken = speech_of(caller.heard_pcm(), it.rate_hz)
            assert abs(loudest_hz(spoken, it.rate_hz) - (300 + 100 * number)) < 3
            channel.hang_up()
        await it.ended(20)
        assert len({record["call_id"] for record in it.told("call_ended")}) == 20


@pytest.mark.parametrize("plain", [True, False])
async def test_the_line_stays_open_until_the_last_word_is_out_of_every_buffer(
    autojump_clock: MockClock, plain: bool
) -> None:
    async with house(Script.of([Say("Goodbye!", ms=600), Call("hang_up")])) as it:
        caller = await it.plain_call(16000) if plain else (await it.stasis_call())[1]
        await caller.ended.wait()
        ended_at = trio.current_time()
        last_word_at = [at for at, pcm in caller.heard_frames if speech_of(pcm, 16000)][-1] + 0.020
        assert 0.15 < ended_at - last_word_at < 0.3
        assert (await it.ended())["reason"] == "agent_hung_up"


async def test_a_transfer_waits_for_the_last_word_too(autojump_clock: MockClock) -> None:
    words = Say("One moment.", ms=600)
    async with house(
        Script.of([words, Call("transfer_call", {"destination": "reception"})]), settings=TRANSFERS
    ) as it:
        it.ari.dialplan.add(("phones", "600", "1"))
        _, caller = await it.stasis_call()
        await caller.ended.wait()
        ended_at = trio.current_time()
        last_word_at = [at for at, pcm in caller.heard_frames if speech_of(pcm, 16000)][-1] + 0.020
        assert 0.15 < ended_at - last_word_at < 0.3


async def test_g711_that_is_labelled_slin_is_told_of_and_the_call_goes_on(autojump_clock: MockClock) -> None:
    """Field report 5: an Asterisk that was not told the codec."""
    async with house(Script.of(Say("Hello.", ms=6000))) as it:
        stream = it.media.connect()
        await stream.send_all(encode(Kind.UUID, uuid4().bytes))
        for _ in range(300):
            await stream.send_all(encode(Kind.SLIN, b"\x7f" * 160))
            await trio.sleep(0.02)
        told = await it.hears_of("media_format_suspect")
        assert "G.711 that is labelled slin" in told["detail"]
        assert len(it.told("media_format_suspect")) == 1
        assert not it.told("call_ended")
        await stream.aclose()
        await it.ended()
