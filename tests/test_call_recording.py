"""Recorded calls in virtual time: the file against what the caller said and heard, sample by sample; and every fault."""

from __future__ import annotations

import errno
import os
import threading
import wave
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trio
from house import FAST, RATES_HZ, House, house
from talking import loud, say, voice, voice_heard
from trio.testing import MockClock

from bridge.call_recording import in_thread
from bridge.live_call import LiveCall
from bridge.recording_file import RecordingFile
from simulators.ari_server import Callee
from simulators.caller import Caller
from simulators.model_script import Call, Pace, Say, Script

CONSENT = "This call is recorded."


def settings(folder: Path, by: str = "bridge", file: str = "{caller}.wav", more: str = "", agent: str = "") -> str:
    where = f"{folder}/{file}" if by == "bridge" else file
    return f'[agents.default]\n{agent}\n[agents.default.recording]\nby = "{by}"\nfile = "{where}"\n{more}\n'


def channels(path: str | Path) -> tuple[bytes, bytes]:
    """The caller's and the agent's samples."""
    with wave.open(str(path)) as file:
        assert (file.getnchannels(), file.getsampwidth()) == (2, 2)
        rows = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, 2)
    return rows[:, 0].tobytes(), rows[:, 1].tobytes()


def heard_since_the_beginning(caller: Caller, right: bytes) -> bytes:
    """What the caller got from the recording's beginning on: it ends with the last frame that came."""
    heard = b"".join(pcm for _, pcm in caller.heard_frames)
    return heard[-len(right) :] if right else b""


def position_ms(pcm: bytes, rate_hz: int) -> float:
    """Where the first sound is."""
    return float(np.flatnonzero(np.frombuffer(pcm, "<i2"))[0]) / rate_hz * 1000


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def silent(pcm: bytes) -> bool:
    return not any(pcm)


@pytest.mark.parametrize("media_format", RATES_HZ)
async def test_both_channels_hold_what_passed_sample_by_sample(
    autojump_clock: MockClock, tmp_path: Path, media_format: str
) -> None:
    rate_hz = RATES_HZ[media_format]
    script = Script.of(Say("Hello.", ms=700), Say("Yes.", ms=500, hz=700))
    async with house(script, media_format=media_format, settings=settings(tmp_path)) as it:
        channel, caller = await it.stasis_call()
        await it.hears_of("agent_said")
        caller.say(voice(600, rate_hz))
        await it.hears_of("agent_said", 2)
        await trio.sleep(1)
        channel.hang_up()
        record = await it.ended()
        left, right = channels(tmp_path / "1001-Alice.wav")
        # Right: every frame that was sent from the answer on, silence too.
        assert right == heard_since_the_beginning(caller, right)
        assert not silent(right)
        # Left: every frame that was received meanwhile, and on the same time line.
        said = caller.said_pcm()
        assert left.strip(b"\0") == said.strip(b"\0")
        spoke_ms = position_ms(caller.said_pcm(), rate_hz)
        answered_ms = next(at for at, pcm in loud(caller)) * 1000 - caller._started_at * 1000
        # A stream in memory is read each 10 ms.
        assert 0 <= (position_ms(left, rate_hz) - position_ms(right, rate_hz)) - (spoke_ms - answered_ms) <= 10.1
        recording = record["recording"]
        assert recording == {
            **{"by": "bridge", "state": "ended", "file": str(tmp_path / "1001-Alice.wav"), "error": ""},
            **{"length_ms": len(right) // (rate_hz // 500), "lost_ms": 0},
        }
        lived_ms = (record["duration_s"] - record["answered_after_s"]) * 1000
        assert abs(recording["length_ms"] - lived_ms) <= 40
        assert it.told("recording_starts") == [{"by": "bridge", "file": recording["file"]}]
        assert it.told("recording_ends") == [recording]


async def test_an_interrupted_reply_ends_where_the_caller_stopped_hearing_it(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    story = Say("one two three four five six seven eight nine ten", ms=10_000, hz=440, pace=FAST)
    async with house(Script.of(story, Say("Yes?", ms=300)), settings=settings(tmp_path)) as it:
        channel, caller = await it.stasis_call()
        await it.hears_of("agent_starts")
        await trio.sleep(2)
        caller.say(voice(600))
        truncate = await it.model.wait_for("conversation.item.truncate")
        await it.hears_of("agent_said", 2)
        channel.hang_up()
        await it.ended()
        left, right = channels(tmp_path / "1001-Alice.wav")
        assert right == heard_since_the_beginning(caller, right)
        samples = np.frombuffer(right, "<i2")
        reply = samples[np.flatnonzero(samples)[0] :]
        cut = int(truncate["audio_end_ms"]) * 16
        assert np.any(reply[cut - 320 : cut])
        assert not np.any(reply[cut : cut + 1600]), "what was not heard is not in the file"
        caller_began, agent_cut = position_ms(left, 16000), position_ms(right, 16000) + cut / 16
        assert 0 <= agent_cut - caller_began <= 200, "it stops just after the caller began"


async def test_a_recording_can_be_read_while_the_call_runs(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with house(Script.of(Say("Hello.", ms=700)), settings=settings(tmp_path)) as it:
        channel, caller = await it.stasis_call()
        started = await it.hears_of("recording_starts")
        await trio.sleep(30)
        _, right = channels(started["file"])
        assert 30 - 3 <= len(right) / 32000 <= 30, "what a process that is killed now leaves"
        channel.hang_up()
        await it.ended()
        assert len(channels(started["file"])[1]) > len(right)
        assert caller.max_gap_ms() <= 21


async def test_a_caller_who_sends_nothing_leaves_silence(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with house(Script.of(Say("Hello.", ms=700), Say("Yes.", ms=100)), settings=settings(tmp_path)) as it:
        channel, caller = await it.stasis_call()
        await it.hears_of("agent_said")
        await say(it, caller, 500)
        await it.hears_of("agent_said", 2)
        channel.hang_up()
        record = await it.ended()
        left, right = channels(record["recording"]["file"])
        assert len(left) == len(right)
        assert not silent(left)


async def test_a_call_that_is_not_recorded_has_nothing_of_it(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("something of the recording was made")

    monkeypatch.setattr("bridge.call_recording.CallRecording.__init__", never)
    monkeypatch.setattr("bridge.call_recording._RecordedLine.__init__", never)
    async with house(Script.of(Say("Hello.", ms=700)), settings=settings(tmp_path, by="off")) as it:
        channel, _caller = await it.stasis_call()
        await it.hears_of("agent_said")
        channel.hang_up()
        assert (await it.ended())["recording"] == {}
    assert files(tmp_path) == []


# The notice, and the caller's answer to it ------------------------------------------------------------------------------


async def test_the_notice_is_asked_for_first_and_is_in_the_recording(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    script = Script.of(Say(CONSENT, ms=2000, pace=FAST), Say("Yes?", ms=100))
    async with house(script, settings=settings(tmp_path, more=f'consent = "{CONSENT}"')) as it:
        channel, caller = await it.stasis_call()
        await it.hears_of("agent_starts")
        asked = it.model.received_events("response.create")[0]["response"]["instructions"]
        assert asked.index(CONSENT) < asked.index("Greet the caller")
        caller.say(voice(600))
        await it.hears_of("agent_said")
        assert it.told("agent_interrupted") == [], "nobody talks a notice away"
        channel.hang_up()
        record = await it.ended()
        assert voice_heard(caller)[:64000] in channels(record["recording"]["file"])[1]
        assert record["recording"]["notice_said"] is True


async def test_a_notice_that_was_not_said_is_told(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with house(
        Script.of(Say("Hello!", ms=500)), settings=settings(tmp_path, more=f'consent = "{CONSENT}"')
    ) as it:
        channel, _caller = await it.stasis_call()
        await it.hears_of("the agent said something else than the words of recording.consent")
        channel.hang_up()
        assert (await it.ended())["recording"]["notice_said"] is False


async def test_a_thread_that_hangs_is_left_behind(autojump_clock: MockClock) -> None:
    assert await in_thread(lambda: 7) == 7
    let_go = threading.Event()
    with trio.move_on_after(1) as scope:
        await in_thread(let_go.wait)
    assert scope.cancelled_caught
    let_go.set()


async def test_without_a_greeting_the_notice_alone_is_said(autojump_clock: MockClock, tmp_path: Path) -> None:
    config = settings(tmp_path, more=f'consent = "{CONSENT}"', agent='greeting = ""')
    async with house(Script.of(Say(CONSENT, ms=500)), settings=config) as it:
        channel, _caller = await it.stasis_call()
        await it.hears_of("agent_said")
        assert CONSENT in it.model.received_events("response.create")[0]["response"]["instructions"]
        channel.hang_up()
        await it.ended()


async def test_a_key_declines_and_nothing_is_left(autojump_clock: MockClock, tmp_path: Path) -> None:
    script = Script.of(Say("Hello.", ms=700), Say("Pardon?", ms=100))
    async with house(script, settings=settings(tmp_path, more='decline_key = "9"')) as it:
        channel, _caller = await it.stasis_call()
        await it.hears_of("agent_said")
        await trio.sleep(5)
        assert len(files(tmp_path)) == 1
        channel.press("9")
        await it.hears_of("recording_declined")
        await trio.sleep(0.1)
        assert files(tmp_path) == []
        before = len(it.model.received_events("conversation.item.create"))
        assert before == 0, "the key is nobody else's business"
        channel.press("9")
        await it.model.wait_for("conversation.item.create")
        channel.hang_up()
        recording = (await it.ended())["recording"]
        assert recording == {
            **{"by": "bridge", "state": "declined", "file": "", "length_ms": 0, "lost_ms": 0, "error": ""}
        }
        assert files(tmp_path) == []


# Pause ------------------------------------------------------------------------------------------------------------------


async def test_a_pause_is_silence_and_takes_its_time(autojump_clock: MockClock, tmp_path: Path) -> None:
    calls: list[LiveCall] = []

    async def attend(call: LiveCall) -> None:
        calls.append(call)

    story = Say("one two three", ms=10_000, hz=440, pace=FAST)
    config = settings(tmp_path, agent='barge_in = "off"')
    async with house(Script.of(story, Say("Yes.", ms=100)), settings=config, on_call=attend) as it:
        channel, caller = await it.stasis_call()
        await it.hears_of("agent_starts")
        caller.say(voice(9000))
        await trio.sleep(2)
        calls[0].pause_recording()
        paused_at = trio.current_time()
        await trio.sleep(3)
        calls[0].resume_recording()
        await trio.sleep(2)
        channel.hang_up()
        record = await it.ended()
        left, right = (np.frombuffer(side, "<i2") for side in channels(record["recording"]["file"]))
        first_at = next(at for at, _ in loud(caller))
        begin = np.flatnonzero(right)[0] + round((paused_at - first_at) * 16000)
        for side in (left, right):
            assert not np.any(side[begin + 400 : begin + 3 * 16000 - 400])
            assert np.any(side[begin - 800 : begin - 400])
            assert np.any(side[begin + 3 * 16000 + 400 : begin + 3 * 16000 + 800])
        assert record["recording"]["length_ms"] == len(left) // 16
        heard = np.frombuffer(heard_since_the_beginning(caller, right.tobytes()), "<i2")
        after = begin + 3 * 16000 + 400
        assert np.array_equal(right[after:], heard[after:]), "the time line goes on"


COLLECT = """
[agents.default.collect.order]
max_digits = 6
[agents.default.collect.pin]
max_digits = 4
secure = true
"""


def collecting(name: str) -> Script:
    asks = Say("Please key it in.", ms=1000, pace=FAST)
    call = Call("collect_digits", {"name": name}, call_id="C1")
    return Script.of([asks, call], Say("Thank you.", ms=500))


async def test_secret_digits_are_silence_in_both_channels(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with house(collecting("pin"), settings=settings(tmp_path) + COLLECT) as it:
        channel, caller = await it.stasis_call()
        await it.hears_of("secure_begins")
        began_at = trio.current_time()
        await trio.sleep(1.5)
        caller.say(voice(1000))
        for digit in "9074":
            channel.press(digit)
            await trio.sleep(0.3)
        await it.hears_of("secure_ends")
        ended_at = trio.current_time()
        await it.hears_of("agent_said", 2)
        channel.hang_up()
        record = await it.ended()
        left, right = (np.frombuffer(side, "<i2") for side in channels(record["recording"]["file"]))
        first_at = next(at for at, _ in loud(caller))
        zero = np.flatnonzero(right)[0]
        begin, end = (zero + round((at - first_at) * 16000) for at in (began_at, ended_at))
        assert end - begin > 2 * 16000
        for side in (left, right):
            assert not np.any(side[begin + 400 : end - 400])
        assert np.any(right[end:])
        assert not np.any(left), "the caller spoke only while it was paused"


async def test_while_digits_are_collected_the_key_that_declines_is_a_digit(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    config = settings(tmp_path, more='decline_key = "9"') + COLLECT
    async with house(collecting("order"), settings=config) as it:
        channel, _caller = await it.stasis_call()
        await it.hears_of("collecting_digits")
        for digit in "1290#":
            channel.press(digit)
            await trio.sleep(0.3)
        assert (await it.hears_of("digits_collected"))["count"] == 4
        assert it.told("recording_declined") == []
        channel.press("9")
        await it.hears_of("recording_declined")
        channel.hang_up()
        await it.ended()
        assert files(tmp_path) == []


# Faults -----------------------------------------------------------------------------------------------------------------


async def _no_folder(it: House, tmp_path: Path) -> None:
    assert it.told("recording_starts") == []


async def _file_vanishes(it: House, tmp_path: Path) -> None:
    await it.hears_of("recording_starts")
    (tmp_path / "1001-Alice.wav").unlink()


async def _disk_full(it: House, tmp_path: Path) -> None:
    await it.hears_of("recording_starts")
    await trio.sleep(5)


Fault = Callable[[House, Path], Awaitable[None]]


@pytest.mark.parametrize(
    ("fault", "file", "error"),
    [
        (_no_folder, "a-file/x.wav", "a-file: File exists"),
        (_file_vanishes, "{caller}.wav", "somebody removed the file"),
        (_disk_full, "{caller}.wav", "No space left on device"),
    ],
)
async def test_a_call_goes_on_without_its_recording(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Fault, file: str, error: str
) -> None:
    (tmp_path / "a-file").write_bytes(b"")
    write = RecordingFile.write

    def full(self: RecordingFile, samples: bytes) -> None:
        if fault is _disk_full and self.data_bytes > 100_000:
            raise self._told(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
        write(self, samples)

    monkeypatch.setattr(RecordingFile, "write", full)
    async with house(
        Script.of(Say("Hello.", ms=700), Say("Yes.", ms=500)), settings=settings(tmp_path, file=file)
    ) as it:
        channel, caller = await it.stasis_call()
        await it.hears_of("agent_said")
        await fault(it, tmp_path)
        await trio.sleep(10)
        await say(it, caller, 500)
        await it.hears_of("agent_said", 2)
        channel.hang_up()
        record = await it.ended()
        failed = it.told("recording_failed")
        assert len(failed) == 1
        assert error in failed[0]["detail"]
        assert error in record["recording"]["error"]
        assert record["recording"]["state"] == "failed"
        assert (record["reason"], record["replies"]) == ("caller_hung_up", 2)
        assert caller.max_gap_ms() <= 21
        if fault is _disk_full:
            assert record["recording"]["length_ms"] > 1000
            assert len(channels(record["recording"]["file"])[0]) == record["recording"]["length_ms"] * 32


async def test_a_disk_that_hangs_costs_the_recording_not_the_call(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with house(Script.of(Say("Hello.", ms=700)), settings=settings(tmp_path)) as it:
        channel, caller = await it.stasis_call()
        started = await it.hears_of("recording_starts")
        await trio.sleep(5)
        it.disk.slow_s = 30
        await trio.sleep(20)
        it.disk.slow_s = 0
        await trio.sleep(20)
        channel.hang_up()
        record = await it.ended()
        _, right = channels(started["file"])
        recording = record["recording"]
        assert 35_000 <= recording["lost_ms"] <= 45_000, "20 s of each side, beyond the 10 s that are kept"
        assert recording["error"] == ""
        assert abs(recording["length_ms"] - 45_000) <= 200, "and the time line goes on"
        assert caller.max_gap_ms() <= 21
        assert right[-1600:] == heard_since_the_beginning(caller, right)[-1600:]


async def test_a_disk_that_hangs_at_the_end_holds_up_nobody(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with house(Script.of(Say("Hello.", ms=700)), settings=settings(tmp_path)) as it:
        channel, _caller = await it.stasis_call()
        await it.hears_of("agent_said")
        it.disk.slow_s = 1000
        channel.hang_up()
        began = trio.current_time()
        record = await it.ended()
        assert trio.current_time() - began <= 3.1, "limits.farewell_s"
        assert record["recording"]["error"] == "it could not be completed in time"
        assert record["reason"] == "caller_hung_up"


async def test_a_disk_that_hangs_at_the_end_leaves_no_file_open(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridge.call_recording.start_thread_soon", lambda close, unheard: unheard(close()))

    def still_open() -> list[str]:
        links = [str(link.resolve()) for link in Path("/proc/self/fd").iterdir()]
        return [link for link in links if link.startswith(str(tmp_path))]

    async with house(Script.of(Say("Hello.", ms=700)), settings=settings(tmp_path)) as it:
        channel, _caller = await it.stasis_call()
        await it.hears_of("agent_said")
        assert still_open() == [str(tmp_path / "1001-Alice.wav")]
        it.disk.slow_s = 1000
        channel.hang_up()
        await it.ended()
        assert still_open() == []


async def test_the_limit_ends_the_recording_and_not_the_call(autojump_clock: MockClock, tmp_path: Path) -> None:
    script = Script.of(Say("Hello.", ms=700), Say("Yes.", ms=100))
    async with house(script, settings=settings(tmp_path, more="max_mb = 1")) as it:
        channel, caller = await it.stasis_call()
        ended = await it.hears_of("recording_ends")
        assert ended["length_ms"] == (1_000_000 - 44) // 4 // 16
        await say(it, caller, 500)
        await it.hears_of("agent_said", 2)
        channel.hang_up()
        record = await it.ended()
        assert record["recording"] == ended
        assert (tmp_path / "1001-Alice.wav").stat().st_size == 1_000_000


async def test_two_calls_of_one_name_are_two_files(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with house(Script.of(Say("Hello.", ms=200), Say("Hello.", ms=200)), settings=settings(tmp_path)) as it:
        for n in (1, 2):
            channel, _caller = await it.stasis_call()
            await it.hears_of("recording_starts", n)
            await trio.sleep(1)
            channel.hang_up()
            await it.ended(n)
        assert files(tmp_path) == ["1001-Alice-2.wav", "1001-Alice.wav"]


async def test_a_call_that_is_never_answered_leaves_no_file(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with house(settings=settings(tmp_path)) as it:
        it.model_up = False
        await it.stasis_call()
        record = await it.ended()
        assert record["reason"] == "model_unreachable"
        assert record["recording"] == {
            **{"by": "bridge", "state": "ended", "file": "", "length_ms": 0, "lost_ms": 0, "error": ""}
        }
        assert files(tmp_path) == []


async def test_a_process_that_is_stopped_completes_the_file(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with house(Script.of(Say("Hello.", ms=700)), settings=settings(tmp_path)) as it:
        await it.stasis_call()
        started = await it.hears_of("recording_starts")
        await trio.sleep(5)
        it.stop_now()
        record = await it.ended()
        assert record["recording"]["error"] == ""
        assert abs(record["recording"]["length_ms"] - 5000) <= 300
        assert len(channels(started["file"])[0]) == record["recording"]["length_ms"] * 32


async def test_a_transfer_ends_the_recording_with_the_agents_part(autojump_clock: MockClock, tmp_path: Path) -> None:
    goodbye = Script.of([Say("I connect you.", ms=1000), Call("transfer_call", {"destination": "reception"})])
    config = settings(tmp_path) + '[agents.default.transfers.reception]\nto = "600@phones"\n'
    async with house(goodbye, settings=config) as it:
        it.ari.dialplan.add(("phones", "600", "1"))
        channel, caller = await it.stasis_call()
        record = await it.ended()
        assert record["reason"] == "transferred"
        _, right = channels(record["recording"]["file"])
        assert voice_heard(caller) in right
        assert record["recording"]["state"] == "ended"
        assert channel.dialplan is not None


@pytest.mark.parametrize("by", ["bridge", "asterisk"])
async def test_what_a_colleague_and_the_caller_say_without_the_agent_is_not_recorded(
    autojump_clock: MockClock, tmp_path: Path, by: str
) -> None:
    desk = '[agents.default.transfers.desk]\nendpoint = "PJSIP/600"\n'
    script = Script.of([Call("transfer_call", {"destination": "desk"})], Say("I am connecting you.", ms=300))
    async with house(script, settings=settings(tmp_path, by=by) + desk) as it:
        it.ari.callees["PJSIP/600"] = Callee(after_s=7.0)
        channel, caller = await it.stasis_call()
        record = await it.ended()
        assert record["reason"] == "transferred"
        recording = record["recording"]
        assert (recording["state"], recording["error"]) == ("ended", "")
        assert recording["length_ms"] > 7000, "the agent's part, with the ringing"
        await trio.sleep(10)
        assert channel.in_stasis, "the two still talk"
        if by == "asterisk":
            asterisks = it.ari.recordings["1001-Alice"]
            assert asterisks.ended_at is not None
            assert abs((asterisks.ended_at - asterisks.began_at) * 1000 - recording["length_ms"]) <= 20
        else:
            assert voice_heard(caller)[-6400:] in channels(recording["file"])[1]
            assert len(channels(recording["file"])[1]) // 32 == recording["length_ms"]
        channel.hang_up()


# By Asterisk ------------------------------------------------------------------------------------------------------------


async def _attended(it_settings: str, calls: list[LiveCall]) -> dict[str, Any]:
    async def attend(call: LiveCall) -> None:
        calls.append(call)

    return {"settings": it_settings, "on_call": attend}


@pytest.mark.parametrize(("media_format", "suffix"), [("slin", "wav"), ("slin16", "wav16"), ("slin24", "wav16")])
async def test_asterisk_is_asked_and_told_of_pauses(
    autojump_clock: MockClock, tmp_path: Path, media_format: str, suffix: str
) -> None:
    calls: list[LiveCall] = []
    config = settings(tmp_path, by="asterisk", file="{agent}/{caller}.wav")
    async with house(
        Script.of(Say("Hello.", ms=700)), media_format=media_format, **await _attended(config, calls)
    ) as it:
        channel, _caller = await it.stasis_call()
        await it.hears_of("recording_starts")
        recording = it.ari.recordings["default/1001-Alice"]
        assert recording.format == suffix
        await trio.sleep(2)
        calls[0].pause_recording()
        await trio.sleep(1)
        calls[0].resume_recording()
        await trio.sleep(2)
        [(muted_at, unmuted_at)] = recording.muted
        assert unmuted_at is not None
        assert abs(unmuted_at - muted_at - 1) < 0.01
        channel.hang_up()
        record = await it.ended()
        assert not recording.live
        assert recording.ended_at is not None
        told = record["recording"]
        assert told["file"] == f"default/1001-Alice.{suffix}"
        assert abs(told["length_ms"] - (recording.ended_at - recording.began_at) * 1000) <= 20
        assert told | {"file": "", "length_ms": 0} == {
            **{"by": "asterisk", "state": "ended", "file": "", "length_ms": 0, "lost_ms": 0, "error": ""}
        }


async def test_a_key_declines_asterisks_recording(autojump_clock: MockClock, tmp_path: Path) -> None:
    config = settings(tmp_path, by="asterisk", more='decline_key = "9"')
    async with house(Script.of(Say("Hello.", ms=700)), settings=config) as it:
        channel, _caller = await it.stasis_call()
        await it.hears_of("agent_said")
        assert it.ari.recordings
        channel.press("9")
        await it.hears_of("recording_declined")
        channel.hang_up()
        assert (await it.ended())["recording"]["file"] == ""
        assert it.ari.recordings == {}


async def test_asterisk_refuses_to_record(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with house(Script.of(Say("Hello.", ms=700)), settings=settings(tmp_path, by="asterisk")) as it:
        it.ari.has_recording_folder = False
        channel, _caller = await it.stasis_call()
        failed = await it.hears_of("recording_failed")
        assert "is there a folder `recording`" in failed["detail"]
        await it.hears_of("agent_said")
        channel.hang_up()
        record = await it.ended()
        assert record["recording"]["error"] == failed["detail"]
        assert record["recording"]["file"] == ""
        assert record["reason"] == "caller_hung_up"


async def test_asterisks_recording_fails_on_the_way(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with house(Script.of(Say("Hello.", ms=700)), settings=settings(tmp_path, by="asterisk")) as it:
        channel, _caller = await it.stasis_call()
        await it.hears_of("agent_said")
        it.ari.recordings["1001-Alice"].fail("Disk full")
        failed = await it.hears_of("recording_failed")
        assert failed["detail"] == "Asterisk's recording failed: Disk full"
        channel.hang_up()
        assert (await it.ended())["recording"]["state"] == "failed"


async def test_a_pause_that_asterisk_does_not_carry_out_ends_the_recording(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    """Better none than one that holds a caller's secret digits."""
    calls: list[LiveCall] = []
    config = settings(tmp_path, by="asterisk")
    async with house(Script.of(Say("Hello.", ms=700)), **await _attended(config, calls)) as it:
        channel, _caller = await it.stasis_call()
        await it.hears_of("agent_said")
        with it.ari.never_answers("POST recordings/live/1001-Alice/mute"):
            calls[0].pause_recording()
            failed = await it.hears_of("recording_failed")
        assert "mute" in failed["detail"]
        assert not it.ari.recordings["1001-Alice"].live
        channel.hang_up()
        assert (await it.ended())["recording"]["state"] == "failed"


async def test_a_pause_that_finds_no_ari_deletes_the_recording_when_it_is_back(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    calls: list[LiveCall] = []
    config = settings(tmp_path, by="asterisk")
    async with house(Script.of(Say("Hello.", ms=700)), **await _attended(config, calls)) as it:
        channel, _caller = await it.stasis_call()
        await it.hears_of("agent_said")
        it.ari.enabled = False
        await it.ari.drop_connection()
        await trio.sleep(0.1)
        calls[0].pause_recording()
        failed = await it.hears_of("recording_failed")
        assert "may hold what is secret" in failed["detail"]
        assert it.ari.recordings["1001-Alice"].live
        await trio.sleep(3)
        it.ari.enabled = True
        await it.until(lambda: not it.ari.recordings)
        channel.hang_up()
        record = (await it.ended())["recording"]
        assert (record["state"], record["file"]) == ("failed", "")


async def test_a_call_without_ari_can_not_be_recorded_by_asterisk(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with house(Script.of(Say("Hello.", ms=700)), settings=settings(tmp_path, by="asterisk")) as it:
        caller = await it.plain_call()
        failed = await it.hears_of("recording_failed")
        assert "no recording by ARI" in failed["detail"]
        await it.hears_of("agent_said")
        await caller.hang_up()
        assert (await it.ended())["reason"] == "caller_hung_up"


async def test_a_call_without_ari_is_recorded_by_the_bridge(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with house(Script.of(Say("Hello.", ms=700, pace=Pace())), settings=settings(tmp_path)) as it:
        caller = await it.plain_call()
        await it.hears_of("agent_said")
        await caller.hang_up()
        record = await it.ended()
        assert record["recording"]["file"] == str(tmp_path / "unknown.wav")
        assert voice_heard(caller) in channels(record["recording"]["file"])[1]
