"""A caller on AudioSocket: the contract of every leg at each rate, then what is AudioSocket's own."""

from __future__ import annotations

import socket
import struct
from collections.abc import Awaitable, Callable
from functools import partial
from uuid import UUID

import leg_contract
import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge import audiosocket_leg
from bridge.audio import PcmFormat
from bridge.audiosocket import KIND_OF_RATE, RATE_HZ_OF_KIND, Frame, FrameDecoder, Kind, encode
from bridge.audiosocket_leg import LINGER_S, AudioSocketLeg, identify
from bridge.errors import MediaLost, MediaProtocolError
from bridge.leg import CallerAudio, CallerDigit, CallerLeft, CallerLeg, LegEvent
from simulators.memory import MemoryStream, memory_stream_pair

CALL_ID = UUID("40325ec2-5efd-4bd3-805f-53576e581d13")
HELLO = encode(Kind.UUID, CALL_ID.bytes)
FAREWELL = leg_contract.FAREWELL
SLIN, SLIN16 = PcmFormat(8000), PcmFormat(16000)

# Not a multiple of any frame: what does not fit whole is taken in part.
CAPACITY = 10_000


class FarEnd:
    """The contract's far end, frame by frame."""

    def __init__(self, stream: trio.abc.HalfCloseableStream, kind: Kind) -> None:
        self.stream = stream
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

    async def break_off(self) -> None:
        if isinstance(self.stream, MemoryStream):
            self.stream.reset()
        else:
            assert isinstance(self.stream, trio.SocketStream)
            self.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            await trio.aclose_forcefully(self.stream)


async def make_pair(rate_hz: int = 8000, capacity: int = CAPACITY) -> tuple[AudioSocketLeg, FarEnd]:
    far_stream, leg_stream = memory_stream_pair(capacity)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(far_stream.send_all, HELLO)
        leg = await identify(leg_stream)
    leg.expect_format(PcmFormat(rate_hz))
    return leg, FarEnd(far_stream, KIND_OF_RATE[rate_hz])


async def make_socket_pair(buffer_bytes: int = 4096) -> tuple[AudioSocketLeg, FarEnd, trio.SocketStream]:
    """Real sockets whose buffers are small; the third is the leg's own."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        listener.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer_bytes)
        listener.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
        client = await trio.testing.open_stream_to_socket_listener(listener)
        server = await listener.accept()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
    await client.send_all(HELLO)
    return await identify(server), FarEnd(client, Kind.SLIN), server


async def make_contract_pair(rate_hz: int) -> leg_contract.Pair:
    return leg_contract.Pair(*await make_pair(rate_hz))


@pytest.mark.parametrize("rate_hz", [8000, 16000, 24000])
@pytest.mark.parametrize("check", leg_contract.CHECKS, ids=lambda check: check.__name__)
async def test_contract(
    check: Callable[[leg_contract.MakePair], Awaitable[None]], rate_hz: int, autojump_clock: trio.testing.MockClock
) -> None:
    await check(partial(make_contract_pair, rate_hz))


@pytest.mark.parametrize("check", leg_contract.CHECKS, ids=lambda check: check.__name__)
async def test_contract_on_real_sockets(
    check: Callable[[leg_contract.MakePair], Awaitable[None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audiosocket_leg, "LINGER_S", 0.1)
    streams: list[trio.abc.Stream] = []

    async def make() -> leg_contract.Pair:
        leg, far, stream = await make_socket_pair()
        streams.extend((far.stream, stream))
        return leg_contract.Pair(leg, far)

    await check(make)
    for stream in streams:
        await trio.aclose_forcefully(stream)


# --- identify ------------------------------------------------------------------------------------------------------


async def test_a_call_is_known_by_its_uuid() -> None:
    leg, _ = await make_pair()
    assert leg.call_id == CALL_ID
    assert leg.format == SLIN
    as_leg: CallerLeg = leg
    assert as_leg is leg


async def test_identify_fails_for_what_is_no_audiosocket_client() -> None:
    far, stream = memory_stream_pair()
    await far.send_all(b"GET / HTTP/1.1\r\n")
    with pytest.raises(MediaProtocolError, match="0x47"):
        await identify(stream)


async def test_identify_fails_when_the_connection_says_nothing() -> None:
    far, stream = memory_stream_pair()
    await far.send_all(HELLO[:10])
    await far.aclose()
    with pytest.raises(MediaLost, match="which call"):
        await identify(stream)


async def test_every_split_of_the_stream_gives_the_same_call() -> None:
    wire = HELLO + encode(Kind.SLIN16, b"ab" * 320) + encode(Kind.DTMF, b"7") + encode(Kind.SLIN16, b"cd" * 160)
    for step in (1, 2, 3, 7, 18, 19, 20, 643, 644, len(wire)):
        far, stream = memory_stream_pair()
        pieces = [wire[at : at + step] for at in range(0, len(wire), step)]
        events: list[LegEvent] = []
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def hello(far: MemoryStream = far, pieces: list[bytes] = pieces, step: int = step) -> None:
                for _ in range(-(-len(HELLO) // step)):
                    await trio.testing.wait_all_tasks_blocked()
                    await far.send_all(pieces.pop(0))

            leg = await identify(stream)
        leg.expect_format(SLIN16)
        for piece in pieces:
            await far.send_all(piece)
            events += leg.receive_nowait()
        await far.send_eof()
        *events, left = [*events, *leg.receive_nowait()]
        assert events == [CallerAudio(b"ab" * 320), CallerDigit("7"), CallerAudio(b"cd" * 160)]
        assert isinstance(left, CallerLeft)
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
    assert leg.receive_nowait() == [CallerDigit("5"), CallerAudio(b"ab" * 10)]
    assert leg.send_audio_nowait(leg.format.silence)
    frame = await far.frame()
    assert frame is not None
    assert frame.kind is KIND_OF_RATE[rate_hz]


async def test_a_format_that_is_never_learnt_is_slin(autojump_clock: trio.testing.MockClock) -> None:
    leg, far = await make_pair(16000, 50 * 323)
    with trio.move_on_after(1.0) as scope:
        await leg.learn_format()
    assert scope.cancelled_caught
    assert leg.format == SLIN
    assert leg.frames_sent == 50
    for _ in range(50):
        assert await far.frame() == Frame(Kind.SLIN, SLIN.silence)
    assert leg.send_audio_nowait(SLIN.silence)
    assert await far.frame() == Frame(Kind.SLIN, SLIN.silence)
    await far.stream.send_all(encode(Kind.SLIN, b"x" * 320))
    assert leg.receive_nowait() == [CallerAudio(b"x" * 320)]


async def test_a_caller_who_leaves_at_once_ends_the_learning() -> None:
    leg, far = await make_pair()
    await far.leave()
    assert await leg.learn_format() == SLIN
    (left,) = leg.receive_nowait()
    assert isinstance(left, CallerLeft)
    assert leg.receive_nowait() == []


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
            await leg.learn_format() if learn else leg.receive_nowait()


async def test_an_old_asterisk_is_told_from_the_label() -> None:
    leg, far = await make_pair(16000)
    await far.stream.send_all(encode(Kind.SLIN, bytes(640)))
    with pytest.raises(MediaProtocolError, match=r'older than 20\.17 / 22\.7 .* set asterisk\.format = "slin"'):
        leg.receive_nowait()


async def test_the_rate_may_not_change_in_mid_call() -> None:
    leg, far = await make_pair(8000)
    await far.stream.send_all(encode(Kind.SLIN24, bytes(960)))
    with pytest.raises(MediaProtocolError, match=r"slin24 audio \(kind 0x13\) though this call is slin"):
        leg.receive_nowait()


# --- receiving -----------------------------------------------------------------------------------------------------


async def test_empty_audio_is_skipped_and_any_length_is_audio() -> None:
    leg, far = await make_pair(16000, 1 << 20)
    for payload in (b"", b"a", bytes(65535)):
        await far.say(payload)
    # More than one read takes: the rest comes at the next turn.
    assert leg.receive_nowait() == [CallerAudio(b"a")]
    assert leg.receive_nowait() == [CallerAudio(bytes(65535))]


async def test_a_hang_up_frame_means_that_the_caller_left() -> None:
    leg, far = await make_pair()
    await far.stream.send_all(encode(Kind.HANGUP))
    assert leg.receive_nowait() == [CallerLeft("the far end sent a hang-up frame")]
    assert leg.receive_nowait() == []


async def test_an_end_in_the_middle_of_a_frame_is_told() -> None:
    leg, far = await make_pair()
    await far.stream.send_all(encode(Kind.SLIN, bytes(320))[:100])
    await far.leave()
    assert leg.receive_nowait() == []
    (event,) = leg.receive_nowait()
    assert isinstance(event, CallerLeft)
    assert "in the middle of a frame (100 bytes)" in event.detail


async def test_an_error_frame_is_a_protocol_error() -> None:
    leg, far = await make_pair()
    await far.stream.send_all(encode(Kind.ERROR, b"\x02"))
    with pytest.raises(MediaProtocolError, match="02"):
        leg.receive_nowait()


async def test_a_reset_says_so() -> None:
    leg, far = await make_pair()
    await far.break_off()
    with pytest.raises(MediaLost, match="Connection reset by peer"):
        leg.receive_nowait()


@settings(deadline=None)
@given(st.lists(st.integers(0, 5), max_size=12), st.lists(st.integers(1, 2000), min_size=1, max_size=40))
def test_however_the_stream_is_cut_the_same_is_heard(kinds: list[int], cuts: list[int]) -> None:
    """One whole frame in a read is told without the decoder; before and after it the decoder must be in step."""
    pieces: list[tuple[bytes, LegEvent | None]] = []
    for number, kind in enumerate(kinds):
        pcm = number.to_bytes(2, "big") * 320
        match kind:
            case 0:
                pieces.append((encode(Kind.DTMF, b"5"), CallerDigit("5")))
            case 1:
                pieces.append((encode(Kind.SLIN16, pcm[:100]), CallerAudio(pcm[:100])))
            case 2:
                pieces.append((encode(Kind.SLIN16), None))
            case _:
                pieces.append((encode(Kind.SLIN16, pcm), CallerAudio(pcm)))
    wire, rest = [], b"".join(piece for piece, _ in pieces)
    for cut in cuts * len(rest):
        if not rest:
            break
        wire.append(rest[:cut])
        rest = rest[cut:]

    def heard(reads: list[bytes]) -> list[LegEvent]:
        far, stream = memory_stream_pair()
        decoder = FrameDecoder()
        decoder.receive_data(HELLO)
        decoder.next_frame()
        leg = AudioSocketLeg(stream, decoder, CALL_ID)
        leg.expect_format(SLIN16)
        events: list[LegEvent] = []
        for data in reads:
            assert far.write_nowait(data) == len(data)
            events += leg.receive_nowait()
        assert leg.frames_received == sum(isinstance(event, CallerAudio) for event in events)
        return events

    expected = [event for _, event in pieces if event is not None]
    assert heard(wire) == heard([piece for piece, _ in pieces]) == expected


async def test_what_came_before_an_error_is_told_first_and_the_error_next() -> None:
    for wrong, match in [
        (b"GET", "0x47"),
        (encode(Kind.ERROR, b"\x02"), "02"),
        (encode(Kind.SLIN16, bytes(640)), "though this call is slin"),
        (encode(Kind.SLIN48, bytes(640)), "slin48 audio"),
    ]:
        leg, far = await make_pair()
        await far.stream.send_all(
            encode(Kind.SLIN, b"ab") + encode(Kind.DTMF, b"1") + wrong + encode(Kind.SLIN, b"cd")
        )
        assert leg.receive_nowait() == [CallerAudio(b"ab"), CallerDigit("1")]
        await far.leave()
        for _ in range(2):  # and it stays so: nothing behind an error is to be trusted
            with pytest.raises(MediaProtocolError, match=match):
                leg.receive_nowait()


async def test_after_a_hang_up_frame_comes_nothing() -> None:
    leg, far = await make_pair()
    await far.stream.send_all(encode(Kind.SLIN, b"ab") + encode(Kind.HANGUP) * 2 + encode(Kind.SLIN, b"cd") + b"GET")
    audio, left = leg.receive_nowait()
    assert audio == CallerAudio(b"ab")
    assert isinstance(left, CallerLeft)
    assert leg.receive_nowait() == []
    await far.break_off()
    assert leg.receive_nowait() == []


@pytest.mark.parametrize("learn", [True, False])
async def test_what_was_kept_is_told_before_a_reset(learn: bool, autojump_clock: trio.testing.MockClock) -> None:
    far, stream = memory_stream_pair()
    await far.send_all(HELLO + encode(Kind.DTMF, b"1") + encode(Kind.SLIN, b"ab") + encode(Kind.SLIN, b"cd"))
    leg = await identify(stream)
    if learn:
        await leg.learn_format()
    far.reset()
    assert leg.receive_nowait() == [CallerDigit("1"), CallerAudio(b"ab"), CallerAudio(b"cd")]
    for _ in range(2):
        with pytest.raises(MediaLost, match="reset by peer"):
            leg.receive_nowait()


# --- sending and closing -------------------------------------------------------------------------------------------


async def test_a_frame_is_one_write() -> None:
    far, stream = memory_stream_pair()
    await far.send_all(HELLO)
    leg = await identify(stream)
    leg.expect_format(PcmFormat(24000))
    for count in (1, 2):
        assert leg.send_audio_nowait(bytes(960))
        assert stream.writes == count
    assert await far.receive_some(5000) == encode(Kind.SLIN24, bytes(960)) * 2
    assert leg.frames_sent == 2


@pytest.mark.parametrize("room", [1, 2, 3, 4, 322])
async def test_a_frame_taken_in_part_is_completed_before_the_next(room: int) -> None:
    leg, far = await make_pair(capacity=323 + room)
    first, second, third = (bytes([value]) * 320 for value in (1, 2, 3))
    assert leg.send_audio_nowait(first)
    assert leg.send_audio_nowait(second)  # taken, as far as the room goes: the rest is the leg's business
    assert leg.frames_sent == 2
    assert not leg.send_audio_nowait(third)
    assert leg.frames_sent == 2
    assert await far.frame() == Frame(Kind.SLIN, first)
    while not leg.send_audio_nowait(third):
        assert leg.frames_sent == 2
    assert await far.frame() == Frame(Kind.SLIN, second)
    while not leg.send_audio_nowait(first):
        assert leg.frames_sent == 3
    assert await far.frame() == Frame(Kind.SLIN, third)


async def test_a_far_end_that_takes_a_byte_at_a_time_stays_in_frame() -> None:
    leg, far = await make_pair(capacity=1)
    wire = b""
    sent = 0
    while sent < 3:
        sent += leg.send_audio_nowait(bytes([sent + 1]) * 320)
        wire += await far.stream.receive_some(1)
    assert wire == b"".join(encode(Kind.SLIN, bytes([value]) * 320) for value in (1, 2, 3))[: len(wire)]
    assert len(wire) == 2 * 323 + 1


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


async def test_no_goodbye_in_the_middle_of_a_frame(autojump_clock: trio.testing.MockClock) -> None:
    leg, far = await make_pair(capacity=100)
    assert leg.send_audio_nowait(bytes(320))
    assert not leg.send_audio_nowait(bytes(320))
    await leg.close(FAREWELL)
    assert await far.stream.receive_some(5000) == encode(Kind.SLIN, bytes(320))[:100]
    assert await far.stream.receive_some(5000) == b""


async def test_the_goodbye_follows_a_frame_that_was_completed(autojump_clock: trio.testing.MockClock) -> None:
    leg, far = await make_pair(capacity=600)
    assert leg.send_audio_nowait(bytes(320))
    assert leg.send_audio_nowait(bytes(320))
    assert await far.frame() == Frame(Kind.SLIN, bytes(320))
    assert leg.send_audio_nowait(bytes(320))
    for _ in range(2):
        assert await far.frame() == Frame(Kind.SLIN, bytes(320))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(leg.close, FAREWELL)
        assert await far.frame() == Frame(Kind.HANGUP, b"")
        assert await far.frame() is None
        await far.leave()


async def test_no_goodbye_to_a_caller_who_has_left() -> None:
    leg, far = await make_pair()
    await far.leave()
    (left,) = leg.receive_nowait()
    assert isinstance(left, CallerLeft)
    await leg.close(FAREWELL)
    assert await far.stream.receive_some(5000) == b""


# --- a real socket -------------------------------------------------------------------------------------------------


async def test_on_a_real_socket() -> None:
    leg, far, server = await make_socket_pair()
    async with far.stream:
        # A frame must not wait for the acknowledgement of the one before.
        assert server.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
        await far.say(b"ab" * 160)
        assert await leg_contract.Pair(leg, far).receive(1) == [CallerAudio(b"ab" * 160)]
        assert leg.send_audio_nowait(b"cd" * 160)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(leg.close, FAREWELL)
            got = b""
            while data := await far.stream.receive_some(5000):
                got += bytes(data)
            await far.stream.aclose()
        assert got == encode(Kind.SLIN, b"cd" * 160) + encode(Kind.HANGUP)


async def test_a_full_socket_buffer_keeps_the_stream_in_frame() -> None:
    leg, far, _ = await make_socket_pair()
    pair = leg_contract.Pair(leg, far)
    async with far.stream:
        due = pair.fill()
        last = due + 500
        with trio.fail_after(10):
            for value in range(last):
                # A slow reader: the buffer runs full again and again. Linux then refuses such small frames whole.
                assert await far.hear() == pair.speech(value)
                while due < last and leg.send_audio_nowait(pair.speech(due)):
                    due += 1
        assert leg.frames_sent == last
        await leg.close(FAREWELL)


async def test_a_reset_of_a_real_socket_says_so_after_what_was_said() -> None:
    leg, far, _ = await make_socket_pair()
    await far.say(b"ab" * 160)
    await far.break_off()
    pair = leg_contract.Pair(leg, far)
    assert await pair.receive(1) == [CallerAudio(b"ab" * 160)]
    with pytest.raises(MediaLost, match="Connection reset by peer"):
        await pair.receive(1)
    with pytest.raises(MediaLost, match="Broken pipe"):
        leg.send_audio_nowait(bytes(320))
    await leg.close(FAREWELL)


async def test_a_half_closed_far_end_is_still_spoken_to() -> None:
    leg, far, _ = await make_socket_pair()
    async with far.stream:
        await far.press("1")
        await far.leave()
        digit, left = await leg_contract.Pair(leg, far).receive(2)
        assert digit == CallerDigit("1")
        assert isinstance(left, CallerLeft)
        assert leg.send_audio_nowait(b"ab" * 160)
        assert await far.hear() == b"ab" * 160
        await leg.close(FAREWELL)


async def test_unread_audio_does_not_turn_the_goodbye_into_a_reset() -> None:
    leg, far, _ = await make_socket_pair(1 << 16)
    async with far.stream as client:
        await client.send_all(encode(Kind.SLIN, bytes(320)) * 100)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(leg.close, FAREWELL)
            assert await client.receive_some(5000) == encode(Kind.HANGUP)
            assert await client.receive_some(5000) == b""
            await client.aclose()


async def test_a_closed_leg_does_not_touch_the_next_connection() -> None:
    """Its descriptor may belong to another call by then."""
    leg, far, server = await make_socket_pair()
    number = server.socket.fileno()
    with trio.CancelScope() as scope:
        scope.cancel()
        await leg.close(FAREWELL)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.setblocking(False)
        assert number in (ours.fileno(), theirs.fileno())
        for one, other in ((ours, theirs), (theirs, ours)):
            one.send(b"theirs")
            with pytest.raises(MediaLost):
                leg.receive_nowait()
            with pytest.raises(MediaLost):
                leg.send_audio_nowait(bytes(320))
            assert other.recv(1000) == b"theirs"
    await trio.aclose_forcefully(far.stream)


async def test_a_reset_stays_a_reset() -> None:
    """The kernel tells it once and from then on says that the far end has finished."""
    leg, far, _ = await make_socket_pair()
    await far.break_off()
    for _ in range(3):
        with pytest.raises(MediaLost, match="Connection reset by peer"):
            await leg_contract.Pair(leg, far).receive(1)
    await leg.close(FAREWELL)
