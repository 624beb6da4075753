"""A caller on AudioSocket: the contract of every leg at each rate, then what is AudioSocket's own."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from functools import partial
from uuid import UUID

import leg_contract
import pytest
import trio
import trio.testing

from bridge.audio import PcmFormat
from bridge.audiosocket import KIND_OF_RATE, RATE_HZ_OF_KIND, Frame, FrameDecoder, Kind, encode
from bridge.audiosocket_leg import LINGER_S, AudioSocketLeg, identify
from bridge.errors import MediaLost, MediaProtocolError
from bridge.leg import CallerAudio, CallerDigit, CallerLeft, CallerLeg

CALL_ID = UUID("40325ec2-5efd-4bd3-805f-53576e581d13")
HELLO = encode(Kind.UUID, CALL_ID.bytes)
FAREWELL = leg_contract.FAREWELL
SLIN, SLIN16 = PcmFormat(8000), PcmFormat(16000)

Memory = trio.StapledStream[trio.testing.MemorySendStream, trio.testing.MemoryReceiveStream]


class FarEnd:
    """The contract's far end, frame by frame."""

    def __init__(self, stream: Memory, leg_stream: Memory, kind: Kind) -> None:
        self.stream = stream
        self.leg_stream = leg_stream
        self._kind = kind
        self._decoder = FrameDecoder(identified=True)

    async def say(self, pcm: bytes) -> None:
        await self.stream.send_all(encode(self._kind, pcm))

    async def press(self, digit: str) -> None:
        await self.stream.send_all(encode(Kind.DTMF, digit.encode()))

    async def frame(self) -> Frame | None:
        while (frame := self._decoder.next_frame()) is None:
            data = await self.stream.receive_some(65536)
            if not data:
                return None
            self._decoder.receive_data(bytes(data))
        return frame

    async def hear(self) -> bytes | None:
        frame = await self.frame()
        if frame is None or frame.kind is Kind.HANGUP:
            return None
        assert frame.kind is self._kind
        return frame.payload

    async def leave(self) -> None:
        await self.stream.send_eof()

    def break_off(self) -> None:
        async def reset() -> None:
            raise trio.BrokenResourceError from ConnectionResetError(104, "Connection reset by peer")

        self.leg_stream.receive_stream.receive_some_hook = reset
        self.leg_stream.send_stream.send_all_hook = reset

    def stop_reading(self) -> None:
        self.leg_stream.send_stream.send_all_hook = trio.sleep_forever


async def make_pair(rate_hz: int = 8000) -> tuple[AudioSocketLeg, FarEnd]:
    far_stream, leg_stream = trio.testing.memory_stream_pair()
    await far_stream.send_all(HELLO)
    leg = await identify(leg_stream)
    leg.expect_format(PcmFormat(rate_hz))
    return leg, FarEnd(far_stream, leg_stream, KIND_OF_RATE[rate_hz])


async def make_contract_pair(rate_hz: int) -> leg_contract.Pair:
    return leg_contract.Pair(*await make_pair(rate_hz))


@pytest.mark.parametrize("rate_hz", [8000, 16000, 24000])
@pytest.mark.parametrize("check", leg_contract.CHECKS, ids=lambda check: check.__name__)
async def test_contract(
    check: Callable[[leg_contract.MakePair], Awaitable[None]], rate_hz: int, autojump_clock: trio.testing.MockClock
) -> None:
    await check(partial(make_contract_pair, rate_hz))


# --- identify ------------------------------------------------------------------------------------------------------


async def test_a_call_is_known_by_its_uuid() -> None:
    leg, _ = await make_pair()
    assert leg.call_id == CALL_ID
    assert leg.format == SLIN
    as_leg: CallerLeg = leg
    assert as_leg is leg


async def test_identify_fails_for_what_is_no_audiosocket_client() -> None:
    far, stream = trio.testing.memory_stream_pair()
    await far.send_all(b"GET / HTTP/1.1\r\n")
    with pytest.raises(MediaProtocolError, match="0x47"):
        await identify(stream)


async def test_identify_fails_when_the_connection_says_nothing() -> None:
    far, stream = trio.testing.memory_stream_pair()
    await far.send_all(HELLO[:10])
    await far.aclose()
    with pytest.raises(MediaLost, match="which call"):
        await identify(stream)


async def test_every_split_of_the_stream_gives_the_same_call() -> None:
    wire = HELLO + encode(Kind.SLIN16, b"ab" * 320) + encode(Kind.DTMF, b"7") + encode(Kind.SLIN16, b"cd" * 160)
    for step in (1, 2, 3, 7, 18, 19, 20, 643, 644, len(wire)):
        far, stream = trio.testing.lockstep_stream_pair()

        async def send(far: trio.abc.HalfCloseableStream = far, step: int = step) -> None:
            for at in range(0, len(wire), step):
                await far.send_all(wire[at : at + step])
            await far.send_eof()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            leg = await identify(stream)
            leg.expect_format(SLIN16)
            assert await leg.receive() == CallerAudio(b"ab" * 320)
            assert await leg.receive() == CallerDigit("7")
            assert await leg.receive() == CallerAudio(b"cd" * 160)
            assert isinstance(await leg.receive(), CallerLeft)
        assert (leg.frames_received, leg.bytes_received) == (2, 960)


# --- the format ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate_hz", [8000, 16000, 24000])
async def test_the_format_is_learnt_from_the_first_audio(
    rate_hz: int, autojump_clock: trio.testing.MockClock
) -> None:
    leg, far = await make_pair()
    heard: list[tuple[float, Frame | None]] = []

    async def far_end() -> None:
        await far.press("5")
        for _ in range(5):
            heard.append((trio.current_time(), await far.frame()))
        await far.stream.send_all(encode(KIND_OF_RATE[rate_hz], b""))  # empty audio says nothing
        await far.stream.send_all(encode(KIND_OF_RATE[rate_hz], b"ab" * 10))

    start = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(far_end)
        assert await leg.learn_format() == PcmFormat(rate_hz)
    assert leg.format == PcmFormat(rate_hz)
    assert [frame for _, frame in heard] == [Frame(Kind.SLIN, bytes(320))] * 5
    assert trio.current_time() - start == pytest.approx(0.08)
    assert await leg.receive() == CallerDigit("5")
    assert await leg.receive() == CallerAudio(b"ab" * 10)
    await leg.send_audio(leg.format.silence)
    frame = await far.frame()
    assert frame is not None
    assert frame.kind is KIND_OF_RATE[rate_hz]


async def test_a_format_that_is_never_learnt_is_slin(autojump_clock: trio.testing.MockClock) -> None:
    leg, far = await make_pair(16000)
    with trio.move_on_after(1.0) as scope:
        await leg.learn_format()
    assert scope.cancelled_caught
    assert leg.format == SLIN
    assert leg.frames_sent == 50
    await leg.send_audio(SLIN.silence)
    await far.say(b"x" * 320)


async def test_a_caller_who_leaves_at_once_ends_the_learning() -> None:
    leg, far = await make_pair()
    await far.leave()
    assert await leg.learn_format() == SLIN
    assert isinstance(await leg.receive(), CallerLeft)


async def test_other_formats_are_refused() -> None:
    leg, _ = await make_pair()
    with pytest.raises(ValueError, match="only slin, slin16 and slin24"):
        leg.expect_format(PcmFormat(48000))


@pytest.mark.parametrize("kind", [kind for kind, rate in RATE_HZ_OF_KIND.items() if rate not in (8000, 16000, 24000)])
async def test_audio_of_other_rates_names_its_kind(kind: Kind) -> None:
    for learn in (False, True):
        leg, far = await make_pair()
        await far.stream.send_all(encode(kind, bytes(320)))
        with pytest.raises(MediaProtocolError, match=rf"{kind.name.lower()} audio: only slin, slin16 and slin24"):
            await (leg.learn_format() if learn else leg.receive())


async def test_an_old_asterisk_is_told_from_the_label() -> None:
    leg, far = await make_pair(16000)
    await far.stream.send_all(encode(Kind.SLIN, bytes(640)))
    with pytest.raises(MediaProtocolError, match=r'older than 20\.17 / 22\.7 .* set asterisk\.format = "slin"'):
        await leg.receive()


async def test_the_rate_may_not_change_in_mid_call() -> None:
    leg, far = await make_pair(8000)
    await far.stream.send_all(encode(Kind.SLIN24, bytes(960)))
    with pytest.raises(MediaProtocolError, match=r"slin24 audio \(kind 0x13\) though this call is slin"):
        await leg.receive()


# --- receiving -----------------------------------------------------------------------------------------------------


async def test_empty_audio_is_skipped_and_any_length_is_audio() -> None:
    leg, far = await make_pair(16000)
    for payload in (b"", b"a", bytes(65535)):
        await far.say(payload)
    assert await leg.receive() == CallerAudio(b"a")
    assert await leg.receive() == CallerAudio(bytes(65535))


async def test_a_hang_up_frame_means_that_the_caller_left() -> None:
    leg, far = await make_pair()
    await far.stream.send_all(encode(Kind.HANGUP))
    assert await leg.receive() == CallerLeft("the far end sent a hang-up frame")


async def test_an_end_in_the_middle_of_a_frame_is_told() -> None:
    leg, far = await make_pair()
    await far.stream.send_all(encode(Kind.SLIN, bytes(320))[:100])
    await far.leave()
    event = await leg.receive()
    assert isinstance(event, CallerLeft)
    assert "in the middle of a frame (100 bytes)" in event.detail


async def test_an_error_frame_is_a_protocol_error() -> None:
    leg, far = await make_pair()
    await far.stream.send_all(encode(Kind.ERROR, b"\x02"))
    with pytest.raises(MediaProtocolError, match="02"):
        await leg.receive()


async def test_a_reset_says_so() -> None:
    leg, far = await make_pair()
    far.break_off()
    with pytest.raises(MediaLost, match="Connection reset by peer"):
        await leg.receive()


# --- sending and closing -------------------------------------------------------------------------------------------


async def test_a_frame_is_one_write() -> None:
    leg, far = await make_pair(24000)
    await leg.send_audio(bytes(960))
    pump = far.leg_stream.send_stream.send_all_hook
    assert pump is not None
    calls = []

    async def count() -> None:
        calls.append(1)
        await pump()

    far.leg_stream.send_stream.send_all_hook = count
    await leg.send_audio(bytes(960))
    assert len(calls) == 1
    assert await far.stream.receive_some(5000) == encode(Kind.SLIN24, bytes(960)) * 2
    assert leg.frames_sent == 2


async def test_close_says_goodbye_and_waits_for_the_far_end(autojump_clock: trio.testing.MockClock) -> None:
    leg, far = await make_pair()
    start = trio.current_time()

    async def far_end() -> None:
        assert await far.frame() == Frame(Kind.HANGUP, b"")
        assert await far.frame() is None
        await far.say(bytes(320))
        await trio.sleep(0.2)
        await far.leave()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(far_end)
        await leg.close(FAREWELL)
        assert trio.current_time() - start == pytest.approx(0.2)


async def test_close_waits_one_second_at_most(autojump_clock: trio.testing.MockClock) -> None:
    leg, _ = await make_pair()
    start = trio.current_time()
    await leg.close(FAREWELL)
    assert trio.current_time() - start == pytest.approx(LINGER_S)


async def test_after_a_cut_frame_nothing_more_is_written(autojump_clock: trio.testing.MockClock) -> None:
    leg, far = await make_pair()
    pump = far.leg_stream.send_stream.send_all_hook
    far.stop_reading()
    with trio.move_on_after(0.1):
        await leg.send_audio(bytes(320))
    far.leg_stream.send_stream.send_all_hook = pump
    with pytest.raises(MediaLost, match="cut off"):
        await leg.send_audio(bytes(320))
    await leg.close(FAREWELL)
    assert await far.stream.receive_some(5000) == encode(Kind.SLIN, bytes(320))
    assert await far.stream.receive_some(5000) == b""


async def test_no_goodbye_to_a_caller_who_has_left() -> None:
    leg, far = await make_pair()
    await far.leave()
    assert isinstance(await leg.receive(), CallerLeft)
    await leg.close(FAREWELL)
    assert await far.stream.receive_some(5000) == b""


# --- a real socket -------------------------------------------------------------------------------------------------


async def test_on_a_real_socket() -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    client = await trio.testing.open_stream_to_socket_listener(listeners[0])
    server = await listeners[0].accept()
    async with client, listeners[0]:
        await client.send_all(HELLO)
        leg = await identify(server)
        # A frame must not wait for the acknowledgement of the one before.
        assert server.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
        await client.send_all(encode(Kind.SLIN, b"ab" * 160))
        assert await leg.receive() == CallerAudio(b"ab" * 160)
        await leg.send_audio(b"cd" * 160)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(leg.close, FAREWELL)
            got = b""
            while data := await client.receive_some(5000):
                got += bytes(data)
            await client.aclose()
        assert got == encode(Kind.SLIN, b"cd" * 160) + encode(Kind.HANGUP)


async def test_unread_audio_does_not_turn_the_goodbye_into_a_reset() -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    client = await trio.testing.open_stream_to_socket_listener(listeners[0])
    server = await listeners[0].accept()
    async with client, listeners[0]:
        await client.send_all(HELLO)
        leg = await identify(server)
        await client.send_all(encode(Kind.SLIN, bytes(320)) * 100)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(leg.close, FAREWELL)
            assert await client.receive_some(5000) == encode(Kind.HANGUP)
            assert await client.receive_some(5000) == b""
            await client.aclose()
