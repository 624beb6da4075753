"""The simulated caller in virtual time: its grid, its ears, its recordings, and that it is as strict as Asterisk."""

from __future__ import annotations

import math
import struct
import wave
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID

import pytest
import trio
import trio.testing

from bridge.audio import PcmFormat
from bridge.audiosocket import Frame, FrameDecoder, Kind, encode
from bridge.audiosocket_leg import AudioSocketLeg, identify
from bridge.ending import FAREWELLS, EndReason
from bridge.errors import MediaLost, MediaProtocolError
from bridge.leg import CallerAudio, CallerDigit, CallerLeft, LegEvent
from simulators.caller import Caller
from simulators.memory import memory_stream_pair

CALL_ID = UUID("40325ec2-5efd-4bd3-805f-53576e581d13")
FAREWELL = FAREWELLS[EndReason.AGENT_HUNG_UP]
SLIN = PcmFormat(8000)
SILENCE = SLIN.silence
Clock = trio.testing.MockClock


def voice(ms: int, rate_hz: int = 8000, amplitude: int = 8000) -> bytes:
    count = rate_hz // 1000 * ms
    return struct.pack(f"<{count}h", *(int(amplitude * math.sin(i * 0.5)) or 1 for i in range(count)))


class Bridge:
    """The near end, by hand."""

    def __init__(self, stream: trio.abc.HalfCloseableStream) -> None:
        self.stream = stream
        self._decoder = FrameDecoder()

    async def frame(self) -> Frame | None:
        while (frame := self._decoder.next_frame()) is None:
            data = await self.stream.receive_some(65536)
            if not data:
                return None
            self._decoder.receive_data(bytes(data))
        return frame

    async def say(self, pcm: bytes, kind: Kind = Kind.SLIN) -> None:
        await self.stream.send_all(encode(kind, pcm))


@asynccontextmanager
async def call(
    rate_hz: int = 8000, *, reads: bool = True, speaks_first: bool = True
) -> AsyncIterator[tuple[Caller, Bridge]]:
    near, far = memory_stream_pair()
    caller = await Caller.dial(far, CALL_ID, rate_hz, reads=reads, speaks_first=speaks_first)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(caller.run)
        bridge = Bridge(near)
        assert await bridge.frame() == Frame(Kind.UUID, CALL_ID.bytes)
        yield caller, bridge
        nursery.cancel_scope.cancel()


async def test_it_speaks_on_the_grid(autojump_clock: Clock) -> None:
    async with call() as (caller, bridge):
        start = trio.current_time()
        caller.say(voice(50))
        got = []
        for _ in range(4):
            frame = await bridge.frame()
            assert frame is not None
            assert frame.kind is Kind.SLIN
            got.append((round((trio.current_time() - start) * 1000), frame.payload))
        assert [at for at, _ in got] == [0, 20, 40, 60]
        assert b"".join(pcm for _, pcm in got) == voice(50) + bytes(160) + SILENCE
        assert caller.said_pcm() == voice(50) + bytes(160) + SILENCE


async def test_said_waits_until_the_last_frame_has_left(autojump_clock: Clock) -> None:
    async with call() as (caller, _):
        start = trio.current_time()
        caller.say(voice(100))
        await caller.said()
        assert trio.current_time() - start == pytest.approx(0.08)
        await caller.said()


async def test_a_key_comes_before_the_next_frame(autojump_clock: Clock) -> None:
    async with call() as (caller, bridge):
        await bridge.frame()
        caller.press("5")
        assert await bridge.frame() == Frame(Kind.DTMF, b"5")
        assert await bridge.frame() == Frame(Kind.SLIN, SILENCE)


async def test_it_hears_speech_and_the_quiet_after_it(autojump_clock: Clock) -> None:
    async with call() as (caller, bridge):
        start = trio.current_time()

        async def talk() -> None:
            for tick in range(100):
                await trio.sleep_until(start + tick * 0.02)
                await bridge.say(voice(20) if 10 <= tick < 30 or 35 <= tick < 40 else SILENCE)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(talk)
            assert await caller.hears_speech() - start == pytest.approx(0.2)
            assert await caller.hears_quiet(300) - start == pytest.approx(0.8)
            assert trio.current_time() - start == pytest.approx(1.1)
            nursery.cancel_scope.cancel()
        assert caller.max_gap_ms() == pytest.approx(20)


async def test_it_does_not_wait_for_speech_after_the_end(autojump_clock: Clock) -> None:
    async with call() as (caller, bridge):
        await bridge.stream.send_all(encode(Kind.HANGUP))
        with pytest.raises(MediaLost, match="ended"):
            await caller.hears_speech()
        await caller.hears_quiet()


async def test_what_it_heard_stands_at_its_time(autojump_clock: Clock, tmp_path: Path) -> None:
    async with call() as (caller, bridge):
        caller.say(voice(40, amplitude=500))
        await trio.sleep(0.1)
        await bridge.say(voice(20))
        await trio.sleep(0.026)  # jitter of 6 ms
        await bridge.say(voice(20))
        await trio.sleep(0.054)
        await bridge.say(voice(20))
        await bridge.say(voice(20))  # a burst is played one after the other
        await trio.sleep(0.019)
        line = SILENCE * 5 + voice(20) * 2 + SILENCE * 2 + voice(20) * 2
        assert caller.heard_pcm() == line
        assert [round(at * 1000) % 1000 for at, _ in caller.heard_frames] == [100, 126, 180, 180]
        assert caller.max_gap_ms() == pytest.approx(100)
        caller.write_wav(tmp_path / "call.wav")
    with wave.open(str(tmp_path / "call.wav")) as file:
        assert (file.getnchannels(), file.getframerate(), file.getsampwidth()) == (2, 8000, 2)
        both = file.readframes(file.getnframes())
    stereo = memoryview(both).cast("h")
    left, right = stereo[::2].tobytes(), stereo[1::2].tobytes()
    assert right == line.ljust(len(right), b"\0")
    assert left == voice(40, amplitude=500).ljust(len(left), b"\0")


@pytest.mark.parametrize(
    ("wire", "violation"),
    [
        (encode(Kind.UUID, CALL_ID.bytes), "UUID"),
        (encode(Kind.DTMF, b"1"), "DTMF"),
        (encode(Kind.ERROR, b"\x01"), "ERROR"),
        (b"\x02\x00\x00", "0x02"),
        (encode(Kind.SLIN), "without a single sample"),
        (encode(Kind.SLIN48, bytes(1920)), "SLIN48"),
    ],
)
async def test_it_hangs_up_on_what_asterisk_hangs_up_on(wire: bytes, violation: str, autojump_clock: Clock) -> None:
    async with call() as (caller, bridge):
        await bridge.say(SILENCE)
        await bridge.stream.send_all(wire)
        await caller.ended.wait()
        assert len(caller.violations) == 1
        assert violation in caller.violations[0]
        assert caller.ended_how is None
        while await bridge.frame() is not None:
            pass


async def test_it_hangs_up_after_the_bridge_did(autojump_clock: Clock) -> None:
    async with call() as (caller, bridge):
        await bridge.stream.send_all(encode(Kind.HANGUP))
        await caller.ended.wait()
        assert caller.ended_how == "hangup"
        assert caller.violations == []
    async with call() as (caller, bridge):
        await bridge.stream.aclose()
        await caller.ended.wait()
        assert caller.ended_how == "fin"


async def test_hanging_up_is_a_fin(autojump_clock: Clock) -> None:
    async with call() as (caller, bridge):

        async def near_end() -> None:
            while await bridge.frame() is not None:
                pass
            await bridge.stream.aclose()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(near_end)
            await caller.hang_up()
        assert caller.ended_how == "fin"


@pytest.mark.parametrize("reads", [True, False])
async def test_hanging_up_does_not_wait_for_ever(reads: bool, autojump_clock: Clock) -> None:
    async with call(reads=reads) as (caller, _):
        start = trio.current_time()
        await caller.hang_up()
        assert trio.current_time() - start == pytest.approx(4.0)
        assert caller.ended_how is None


async def test_aborting_ends_both_directions(autojump_clock: Clock) -> None:
    async with call() as (caller, bridge):
        await caller.abort()
        await caller.ended.wait()
        assert caller.ended_how is None
        with pytest.raises(trio.BrokenResourceError):
            await bridge.say(SILENCE)


async def test_two_writes_for_one_frame_are_noticed(autojump_clock: Clock) -> None:
    async with call() as (caller, bridge):
        await bridge.say(SILENCE)
        await trio.testing.wait_all_tasks_blocked()
        assert caller.split_frames == 0
        whole = encode(Kind.SLIN, SILENCE)
        await bridge.stream.send_all(whole[:3])
        await trio.testing.wait_all_tasks_blocked()
        await bridge.stream.send_all(whole[3:])
        await trio.testing.wait_all_tasks_blocked()
        assert caller.split_frames == 1
        assert len(caller.heard_frames) == 2


async def test_stalled_it_reads_nothing(autojump_clock: Clock) -> None:
    async with call() as (caller, bridge):
        await bridge.say(SILENCE)
        await trio.sleep(0.01)
        with caller.stalled():
            await bridge.say(SILENCE)
            await trio.sleep(1)
            assert len(caller.heard_frames) == 1
        await trio.sleep(0.01)
        assert len(caller.heard_frames) == 2
        assert caller.max_gap_ms() > 1000


async def test_a_peer_that_waits_for_audio_first(autojump_clock: Clock) -> None:
    async with call(speaks_first=False) as (_, bridge):
        with trio.move_on_after(1) as scope:
            await bridge.frame()
        assert scope.cancelled_caught
        await bridge.say(SILENCE)
        assert await bridge.frame() == Frame(Kind.SLIN, SILENCE)


async def test_a_phone_learns_the_rate(autojump_clock: Clock) -> None:
    near, far = memory_stream_pair()
    await near.send_all(encode(Kind.UUID, CALL_ID.bytes))
    phone = await Caller.answer(far)
    assert phone.call_id == CALL_ID
    with pytest.raises(RuntimeError, match="DTMF"):
        phone.press("1")
    phone.say(voice(20, 16000))
    decoder = FrameDecoder(identified=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(phone.run)
        await trio.sleep(0.03)
        await near.send_all(encode(Kind.SLIN16, voice(20, 16000)))
        await phone.said()
        decoder.receive_data(bytes(await near.receive_some(5000)))
        assert decoder.next_frame() == Frame(Kind.SLIN, SILENCE)
        assert decoder.next_frame() == Frame(Kind.SLIN, SILENCE)
        assert decoder.next_frame() == Frame(Kind.SLIN16, voice(20, 16000))
        assert phone.format == PcmFormat(16000)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("wire", "error"), [(encode(Kind.SLIN, bytes(320)), MediaProtocolError), (b"\x01\x00", MediaLost)]
)
async def test_a_phone_needs_a_uuid(wire: bytes, error: type[Exception]) -> None:
    near, far = memory_stream_pair()
    await near.send_all(wire)
    await near.aclose()
    with pytest.raises(error):
        await Caller.answer(far)


# --- with the real leg ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate_hz", [8000, 16000, 24000])
async def test_a_call_with_the_real_leg(rate_hz: int, autojump_clock: Clock) -> None:
    near, far = memory_stream_pair()
    caller = await Caller.dial(far, CALL_ID, rate_hz, speaks_first=False)
    speech = voice(200, rate_hz)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(caller.run)
        leg = await identify(near)
        assert leg.call_id == CALL_ID
        assert await leg.learn_format() == PcmFormat(rate_hz)
        caller.say(speech)
        caller.press("#")
        echoed, digits = b"", ""
        while len(echoed) < len(speech):
            for event in leg.receive_nowait():
                if isinstance(event, CallerDigit):
                    digits += event.digit
                elif isinstance(event, CallerAudio):
                    assert leg.send_audio_nowait(event.pcm)
                    echoed += event.pcm.strip(b"\0") and event.pcm
            await trio.sleep(0.01)
        assert digits == "#"
        await leg.close(FAREWELL)
        await caller.ended.wait()
    assert caller.ended_how == "hangup"
    assert caller.violations == []
    assert caller.split_frames == 0
    assert speech in caller.heard_pcm()
    assert caller.max_gap_ms() < 40


async def receive_to_the_end(leg: AudioSocketLeg) -> None:
    while True:
        for event in leg.receive_nowait():
            if isinstance(event, CallerLeft):
                return
            assert isinstance(event, CallerAudio)
        await trio.sleep(0.001)


async def first_event(leg: AudioSocketLeg) -> LegEvent:
    while True:
        for event in leg.receive_nowait():
            return event
        await trio.sleep(0.001)


async def test_on_real_sockets_the_leg_tells_fin_from_reset() -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listeners[0]:
        for how in ("hang_up", "abort"):
            stream = await trio.testing.open_stream_to_socket_listener(listeners[0])
            server = await listeners[0].accept()
            caller = await Caller.dial(stream, CALL_ID, 8000)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(caller.run)
                leg: AudioSocketLeg = await identify(server)
                assert isinstance(await first_event(leg), CallerAudio)
                if how == "hang_up":
                    nursery.start_soon(caller.hang_up)
                    await receive_to_the_end(leg)
                else:
                    await caller.abort()
                    with pytest.raises(MediaLost, match="reset"):
                        await receive_to_the_end(leg)
                await leg.close(FAREWELL)
                await caller.ended.wait()
            assert caller.ended_how == ("fin" if how == "hang_up" else None)
