"""A caller on a websocket: the contract of every leg, then what is the websocket's own."""

from __future__ import annotations

import itertools
import socket
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from uuid import UUID

import leg_contract
import msgspec
import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.exceptions import InvalidState
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.uri import parse_uri

from bridge import websocket_leg
from bridge.ending import FAREWELLS, EndReason
from bridge.errors import MediaLost, MediaProtocolError
from bridge.leg import CallerAudio, CallerDigit, CallerLeft, LegEvent
from bridge.websocket_leg import WebSocketLeg, server_protocol
from simulators.memory import MemoryStream, memory_stream_pair

CALL_ID = UUID("40325ec2-5efd-4bd3-805f-53576e581d13")
FAREWELL = leg_contract.FAREWELL
CAPACITY = 10_000
FRAME = bytes([1]) * 960


def digit_of(message: bytes) -> LegEvent | None:
    told = msgspec.json.decode(message)
    return CallerDigit(told["digit"]) if told.get("type") == "dtmf" else None


class FarEnd:
    """A client on websockets' own sans-I/O protocol. `texts` are what it was told, `closed` with which code."""

    def __init__(self, stream: trio.abc.Stream, protocol: ClientProtocol) -> None:
        self.stream = stream
        self.protocol = protocol
        self.frames: list[Frame] = []
        self.texts: list[bytes] = []

    async def send(self) -> None:
        for data in self.protocol.data_to_send():
            if data:
                await self.stream.send_all(data)

    async def say(self, pcm: bytes) -> None:
        self.protocol.send_binary(pcm)
        await self.send()

    async def write(self, message: bytes) -> None:
        self.protocol.send_text(message)
        await self.send()

    async def press(self, digit: str) -> None:
        await self.write(msgspec.json.encode({"type": "dtmf", "digit": digit}))

    async def hear(self) -> bytes | None:
        while True:
            while self.frames:
                frame = self.frames.pop(0)
                if frame.opcode is Opcode.BINARY:
                    return bytes(frame.data)
                if frame.opcode is Opcode.TEXT:
                    self.texts.append(bytes(frame.data))
                if frame.opcode is Opcode.CLOSE:
                    return None
            data = bytes(await self.stream.receive_some(65536))
            assert data, "the connection ended without a close frame"
            self.protocol.receive_data(data)
            self.frames += self.protocol.events_received()  # type: ignore[arg-type]

    async def leave(self) -> None:
        with suppress(InvalidState):  # the leg has closed, and the answer is made already
            self.protocol.send_close(1000)
        await self.send()

    async def break_off(self) -> None:
        if isinstance(self.stream, MemoryStream):
            self.stream.reset()
        else:
            assert isinstance(self.stream, trio.SocketStream)
            self.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            await trio.aclose_forcefully(self.stream)


async def joined(far_stream: trio.abc.Stream, leg_stream: trio.abc.Stream) -> leg_contract.Pair:
    """The handshake, and both ends after it."""
    far, near = ClientProtocol(parse_uri("ws://bridge.test/realtime")), server_protocol()
    far.send_request(far.connect())
    near.receive_data(b"".join(far.data_to_send()))
    (request,) = near.events_received()
    assert isinstance(request, Request)
    near.send_response(near.accept(request))
    far.receive_data(b"".join(near.data_to_send()))
    far.events_received()
    return leg_contract.Pair(WebSocketLeg(leg_stream, near, CALL_ID, digit_of), FarEnd(far_stream, far))


async def make_pair(capacity: int = CAPACITY) -> leg_contract.Pair:
    return await joined(*memory_stream_pair(capacity))


@pytest.mark.parametrize("check", leg_contract.CHECKS, ids=lambda check: check.__name__)
async def test_contract(
    check: Callable[[leg_contract.MakePair], Awaitable[None]], autojump_clock: trio.testing.MockClock
) -> None:
    await check(make_pair)


@pytest.mark.parametrize("check", leg_contract.CHECKS, ids=lambda check: check.__name__)
async def test_contract_on_real_sockets(
    check: Callable[[leg_contract.MakePair], Awaitable[None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(websocket_leg, "LINGER_S", 0.1)
    streams: list[trio.abc.Stream] = []

    async def make() -> leg_contract.Pair:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        async with listener:
            listener.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            client = await trio.testing.open_stream_to_socket_listener(listener)
            server = await listener.accept()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        streams.extend((client, server))
        return await joined(client, server)

    try:
        await check(make)
    finally:
        for stream in streams:
            await trio.aclose_forcefully(stream)


def ends(pair: leg_contract.Pair) -> tuple[WebSocketLeg, FarEnd]:
    assert isinstance(pair.leg, WebSocketLeg)
    assert isinstance(pair.far, FarEnd)
    return pair.leg, pair.far


async def test_a_message_of_seconds_is_handed_out_in_turns_and_nothing_is_lost(
    autojump_clock: trio.testing.MockClock,
) -> None:
    leg, far = ends(await make_pair(1 << 20))
    said = bytes(range(256)) * 1001  # 5.3 s
    await far.say(said)
    await far.press("5")
    heard = bytearray()
    events: list[LegEvent] = []
    while not any(isinstance(event, CallerDigit) for event in events):
        events = leg.receive_nowait()
        pieces = [event.pcm for event in events if isinstance(event, CallerAudio)]
        assert sum(map(len, pieces)) <= websocket_leg.TURN_AUDIO_BYTES
        assert all(len(piece) % 2 == 0 for piece in pieces)
        heard += b"".join(pieces)
    assert heard == said
    assert leg.audio_received[1] == len(said)


async def test_what_waits_is_bounded(autojump_clock: trio.testing.MockClock) -> None:
    leg, far = ends(await make_pair(8 << 20))
    for _ in range(6000):
        await far.say(FRAME)
    for _ in range(400):
        leg.receive_nowait()
    assert leg._waiting_bytes < websocket_leg.MOST_WAITING_BYTES + 65536
    assert leg.audio_received[1] == 400 * websocket_leg.TURN_AUDIO_BYTES


async def test_texts_do_not_keep_the_clock_either(autojump_clock: trio.testing.MockClock) -> None:
    leg, far = ends(await make_pair(8 << 20))
    heard: list[bytes] = []
    leg.on_text = heard.append
    for text in (b"x" * 100_000, b"y" * 100_000, *(b"%d" % number for number in range(40))):
        await far.write(text)
    per_turn = []
    while len(heard) < 42:
        before = len(heard)
        leg.receive_nowait()
        per_turn.append(len(heard) - before)
    assert max(per_turn) <= websocket_leg.TURN_TEXTS
    assert heard[:2] == [b"x" * 100_000, b"y" * 100_000]
    assert [count for count in per_turn if count][:2] == [1, 1], "a long one is alone in its turn"
    assert heard[2:] == [b"%d" % number for number in range(40)]


@settings(deadline=None)  # byte by byte it takes 0.2 s
@given(
    st.lists(st.integers(1, 4000), min_size=1, max_size=12), st.lists(st.integers(1, 900), min_size=1, max_size=40)
)
def test_whatever_pieces_the_network_makes_of_it(sizes: list[int], cuts: list[int]) -> None:
    """Messages of any size in packets of any size: the same samples in the same order, and a text in its place."""

    async def check() -> None:
        leg, far = ends(await make_pair(1 << 20))
        said = b"".join(bytes([n % 251]) * size for n, size in enumerate(sizes))
        at = 0
        for size in sizes:
            far.protocol.send_binary(said[at : at + size])
            at += size
        far.protocol.send_text(b'{"type":"dtmf","digit":"1"}')
        wire = b"".join(far.protocol.data_to_send())
        events: list[LegEvent] = []
        for cut in itertools.cycle(cuts):
            packet, wire = wire[:cut], wire[cut:]
            if not packet:
                break
            await far.stream.send_all(packet)
            events += leg.receive_nowait()
        while not events or events[-1] != CallerDigit("1"):
            events += leg.receive_nowait()
        heard = b"".join(event.pcm for event in events if isinstance(event, CallerAudio))
        assert heard == said[: len(said) // 2 * 2]

    trio.run(check)


async def test_half_a_sample_waits_for_its_other_half(autojump_clock: trio.testing.MockClock) -> None:
    leg, far = ends(await make_pair())
    said = bytes(range(30))
    for cut in (said[:3], said[3:4], said[4:9], said[9:]):
        await far.say(cut)
    assert b"".join(event.pcm for event in leg.receive_nowait() if isinstance(event, CallerAudio)) == said


async def test_fragments_are_audio_as_they_come_and_texts_when_they_are_whole(
    autojump_clock: trio.testing.MockClock,
) -> None:
    leg, far = ends(await make_pair())
    far.protocol.send_binary(FRAME, fin=False)
    await far.send()
    assert leg.receive_nowait() == [CallerAudio(FRAME)]
    far.protocol.send_continuation(FRAME, fin=True)
    far.protocol.send_text(b'{"type":"dtmf",', fin=False)
    await far.send()
    assert leg.receive_nowait() == [CallerAudio(FRAME)]
    far.protocol.send_ping(b"there?")
    far.protocol.send_continuation(b'"digit":"7"}', fin=True)
    await far.send()
    assert leg.receive_nowait() == [CallerDigit("7")]
    far.protocol.receive_data(bytes(await far.stream.receive_some(65536)))
    assert [event.opcode for event in far.protocol.events_received() if isinstance(event, Frame)] == [Opcode.PONG]


async def test_silence_of_the_call_is_not_sent_but_a_silent_frame_of_speech_is(
    autojump_clock: trio.testing.MockClock,
) -> None:
    leg, far = ends(await make_pair())
    assert leg.send_audio_nowait(leg.format.silence)
    assert leg.send_audio_nowait(bytes(bytearray(960)))
    assert leg.send_audio_nowait(FRAME)
    assert [await far.hear(), await far.hear()] == [bytes(960), FRAME]
    assert leg.frames_sent == 2


async def test_texts_keep_their_place_between_audio(autojump_clock: trio.testing.MockClock) -> None:
    pair = await make_pair()
    leg, far = ends(pair)
    refused = pair.fill()
    leg.send_text(b'{"type":"first"}')
    leg.send_text(b'{"type":"second"}')
    for value in range(refused):
        leg.receive_nowait()  # the clock's turn, which sends on what the socket took in part
        assert await far.hear() == pair.speech(value)
    assert leg.send_audio_nowait(FRAME)
    assert await far.hear() == FRAME
    assert far.texts == [b'{"type":"first"}', b'{"type":"second"}']


async def test_a_client_that_reads_no_texts_is_lost(autojump_clock: trio.testing.MockClock) -> None:
    leg, _ = ends(await make_pair())
    for _ in range(40):
        leg.send_text(bytes(32_768))
    with pytest.raises(MediaLost, match="unread"):
        leg.receive_nowait()
    with pytest.raises(MediaLost, match="unread"):
        leg.send_audio_nowait(FRAME)
    await leg.close(FAREWELL)


async def test_a_client_that_only_pings_is_lost_too(autojump_clock: trio.testing.MockClock) -> None:
    leg, far = ends(await make_pair())
    pings = (b"\x89\xfdmask" + bytes(125)) * 70
    assert isinstance(far.stream, MemoryStream)
    stream = far.stream

    def ping_on() -> None:
        for _ in range(400):  # 3.6 MB, each 131 bytes of which want an answer
            stream.write_nowait(pings)
            leg.receive_nowait()

    with pytest.raises(MediaLost, match="unread"):
        ping_on()
    assert len(leg._unsent) < websocket_leg.MOST_UNSENT_BYTES + 65536
    await leg.close(FAREWELL)


async def test_many_small_frames_do_not_keep_the_clock(autojump_clock: trio.testing.MockClock) -> None:
    leg, far = ends(await make_pair(8 << 20))
    said = bytes(range(256)) * 40
    await far.stream.send_all(b"".join(b"\x82\x81\0\0\0\0" + said[at : at + 1] for at in range(len(said))))
    await far.press("5")
    heard = bytearray()
    turns: list[int] = []
    while len(heard) < len(said):
        pieces = [event.pcm for event in leg.receive_nowait() if isinstance(event, CallerAudio)]
        heard += b"".join(pieces)
        turns.append(sum(map(len, pieces)))
    assert heard == said
    assert max(turns) <= websocket_leg.TURN_FRAMES + 1024 // 7 + 1, (
        "a frame has 7 bytes, and is looked at in pieces of 1024"
    )
    assert leg.receive_nowait() == [CallerDigit("5")]


@pytest.mark.parametrize(
    ("data", "why", "code"),
    [
        (b"\x82\x03abc", "incorrect masking", 1002),
        (b"\x82\xff" + (11 << 20).to_bytes(8, "big") + b"mask", "exceeds limit", 1009),
        (b"\x80\x80mask", "unexpected continuation", 1002),
    ],
)
async def test_a_client_that_breaks_the_protocol_is_told_so(
    data: bytes, why: str, code: int, autojump_clock: trio.testing.MockClock
) -> None:
    leg, far = ends(await make_pair())
    await far.say(FRAME)
    await far.stream.send_all(data)
    assert leg.receive_nowait() == [CallerAudio(FRAME)]
    with pytest.raises(MediaProtocolError, match=why):
        leg.receive_nowait()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(leg.close, FAREWELL)
        assert await far.hear() is None
    assert far.protocol.close_rcvd is not None
    assert far.protocol.close_rcvd.code == code


async def test_the_close_code_says_how_the_call_ended(autojump_clock: trio.testing.MockClock) -> None:
    leg, far = ends(await make_pair())
    leg.send_text(b'{"type":"closing"}')
    async with trio.open_nursery() as nursery:
        nursery.start_soon(leg.close, FAREWELLS[EndReason.SERVER_DRAINING])
        assert await far.hear() is None
        await far.leave()
    assert far.texts == [b'{"type":"closing"}']
    assert far.protocol.close_rcvd is not None
    assert far.protocol.close_rcvd.code == 1001


async def test_a_client_that_vanishes_without_a_close_frame_has_left(autojump_clock: trio.testing.MockClock) -> None:
    leg, far = ends(await make_pair())
    await far.say(FRAME)
    await far.stream.aclose()
    assert leg.receive_nowait() == [CallerAudio(FRAME)]
    (left,) = leg.receive_nowait()
    assert left == CallerLeft("the client's connection ended without a close frame")
    assert leg.receive_nowait() == []
    await leg.close(FAREWELL)


async def test_before_the_call_texts_are_awaited_and_audio_is_counted(autojump_clock: trio.testing.MockClock) -> None:
    leg, far = ends(await make_pair())
    await far.say(FRAME)
    await far.write(b'{"type":"config"}')
    assert await leg.next_text() == b'{"type":"config"}'
    assert leg.early_audio_bytes == 960
    with trio.move_on_after(1) as limit:
        await leg.next_text()
    assert limit.cancelled_caught
    await far.leave()
    assert await leg.next_text() is None
    await leg.close(FAREWELL)
