"""The short way into a websocket, beside websockets' own writes: a whole stream of frames in order, whatever happens."""

from __future__ import annotations

import random
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.server import ServerProtocol
from websockets.trio.client import ClientConnection, connect

from bridge.websocket_writer import LightConnection, WebsocketWriter, client_text_frame
from simulators.memory import MemoryStream, memory_stream_pair

CAPACITY = 1000


class FarEnd:
    """The server's end, read only when a test says so. `frames` are those that have come whole, data and control."""

    def __init__(self, stream: MemoryStream) -> None:
        self.stream = stream
        self.protocol = ServerProtocol()
        self.frames: list[tuple[Opcode, bytes]] = []

    async def shake_hands(self) -> None:
        while self.protocol.state.name == "CONNECTING":
            self.protocol.receive_data(await self.stream.receive_some())
            for event in self.protocol.events_received():
                assert isinstance(event, Request)
                self.protocol.send_response(self.protocol.accept(event))
            self._answer()

    def read(self) -> None:
        """Take all that is there, and answer pings and a close."""
        while data := self.stream.read_nowait():
            self.protocol.receive_data(data)
        for event in self.protocol.events_received():
            assert isinstance(event, Frame)
            self.frames.append((event.opcode, bytes(event.data)))
        assert self.protocol.parser_exc is None or self.protocol.close_rcvd, self.protocol.parser_exc
        self._answer()

    async def read_on(self, every_s: float = 0.01) -> None:
        while True:
            self.read()
            await trio.sleep(every_s)

    @property
    def texts(self) -> list[bytes]:
        return [data for opcode, data in self.frames if opcode is Opcode.TEXT]

    def say(self) -> None:
        """Write what `protocol` has to say."""
        self._answer()

    def _answer(self) -> None:
        for data in self.protocol.data_to_send():
            if data:
                assert self.stream.write_nowait(data) == len(data)


@asynccontextmanager
async def session(capacity: int = CAPACITY) -> AsyncIterator[tuple[ClientConnection, WebsocketWriter, FarEnd]]:
    ours, theirs = memory_stream_pair(capacity)
    far = FarEnd(theirs)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(far.shake_hands)
        options = {"compression": None, "ping_interval": None, "close_timeout": 1}
        async with connect(
            "ws://model.test/",
            stream=ours,
            create_connection=LightConnection,
            **options,  # type: ignore[arg-type]
        ) as websocket:
            try:
                yield websocket, WebsocketWriter(websocket), far
            finally:
                nursery.start_soon(far.read_on)
                await websocket.aclose()
                nursery.cancel_scope.cancel()


def texts(count: int, size: int) -> list[bytes]:
    return [number.to_bytes(2, "big").hex().encode() * (size // 4) for number in range(count)]


# --- one frame -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536])
@given(key=st.binary(min_size=4, max_size=4))
def test_a_frame_is_what_a_server_reads(size: int, key: bytes) -> None:
    payload = random.Random(size).randbytes(size)
    reader = _bytes_of(client_text_frame(payload, key))
    frame = next(reader)
    assert (frame.opcode, frame.fin, frame.data) == (Opcode.TEXT, True, payload)
    assert next(reader, None) is None


def _bytes_of(wire: bytes) -> Iterator[Frame]:
    """Frames by websockets' own parser."""
    rest = wire

    def read_exact(count: int) -> Iterator[None]:
        nonlocal rest
        yield from ()
        data, rest = rest[:count], rest[count:]
        assert len(data) == count
        return data  # type: ignore[return-value]

    while rest:
        parsing = Frame.parse(read_exact, mask=True)  # type: ignore[arg-type]
        try:
            while True:
                next(parsing)
        except StopIteration as done:
            yield done.value


async def test_no_two_frames_have_the_same_key(autojump_clock: MockClock) -> None:
    async with session(1 << 20) as (_, writer, far):
        while far.stream.read_nowait():
            pass
        for _ in range(3000):  # more than the keys that are taken at once
            assert writer.send_nowait(b"x")
        wire = b""
        while data := far.stream.read_nowait():
            wire += data
        keys = {wire[at + 2 : at + 6] for at in range(0, len(wire), 7)}
        assert len(keys) > 2990
        far.protocol.receive_data(wire)


# --- beside websockets' own writes -----------------------------------------------------------------------------------


async def test_what_fits_is_written_whole_without_a_checkpoint(autojump_clock: MockClock) -> None:
    async with session() as (websocket, writer, far):
        assert writer.send_nowait(b"one")
        assert not writer.unfinished
        await websocket.send("two")
        assert writer.send_nowait(b"three")
        far.read()
        assert far.texts == [b"one", b"two", b"three"]


async def test_a_full_socket_takes_nothing_and_nothing_is_kept(autojump_clock: MockClock) -> None:
    async with session() as (_, writer, far):
        fill = CAPACITY - 8  # the header of 126 to 65535 bytes
        assert writer.send_nowait(b"x" * fill)
        assert not writer.unfinished
        assert not writer.send_nowait(b"lost")
        assert not writer.unfinished
        far.read()
        assert writer.send_nowait(b"heard")
        far.read()
        assert far.texts == [b"x" * fill, b"heard"]


async def test_the_rest_of_a_frame_waits_for_finish(autojump_clock: MockClock) -> None:
    async with session() as (_, writer, far):
        long = b"y" * 2500
        assert writer.send_nowait(long)
        assert writer.unfinished
        assert not writer.send_nowait(b"not into the middle of a frame")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(writer.finish)
            await trio.testing.wait_all_tasks_blocked()
            assert not writer.send_nowait(b"nor while it is being finished")
            for _ in range(2):
                far.read()
                await trio.testing.wait_all_tasks_blocked()
        assert not writer.unfinished
        assert writer.send_nowait(b"after")
        far.read()
        assert far.texts == [long, b"after"]


@pytest.mark.parametrize("what", ["ping", "pong", "text", "close"])
async def test_websockets_writes_come_after_the_rest_of_a_frame(autojump_clock: MockClock, what: str) -> None:
    async with session() as (websocket, writer, far):
        long = b"z" * 1500
        assert writer.send_nowait(long)
        assert writer.unfinished
        async with trio.open_nursery() as nursery:
            match what:
                case "ping":
                    nursery.start_soon(websocket.ping, b"?")
                case "pong":
                    far.protocol.send_ping(b"!")
                    far.say()  # websockets' reader answers it
                case "text":
                    nursery.start_soon(websocket.send, "behind")
                case "close":
                    nursery.start_soon(websocket.aclose)
            await trio.testing.wait_all_tasks_blocked()
            for _ in range(3):
                far.read()
                await trio.testing.wait_all_tasks_blocked()
        expected = {
            "ping": (Opcode.PING, b"?"),
            "pong": (Opcode.PONG, b"!"),
            "text": (Opcode.TEXT, b"behind"),
            "close": (Opcode.CLOSE, b"\x03\xe8"),
        }
        assert far.frames == [(Opcode.TEXT, long), expected[what]]
        assert writer.send_nowait(b"") == (what != "close")


async def test_while_another_task_writes_nothing_is_written_between(autojump_clock: MockClock) -> None:
    async with session() as (websocket, writer, far):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(websocket.send, "w" * 3000)
            await trio.testing.wait_all_tasks_blocked()
            far.read()  # room in the socket, though the writer has not gone on yet
            assert not writer.send_nowait(b"into the middle")
            for _ in range(4):
                await trio.testing.wait_all_tasks_blocked()
                far.read()
        assert writer.send_nowait(b"now")
        far.read()
        assert far.texts == [b"w" * 3000, b"now"]


async def test_what_the_server_says_is_read_while_it_takes_nothing(autojump_clock: MockClock) -> None:
    async with session() as (websocket, _, far):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(websocket.send, "w" * 3000)
            await trio.testing.wait_all_tasks_blocked()
            for text in (b"one", b"two"):
                far.protocol.send_text(text)
                far.say()
                with trio.fail_after(5):
                    assert await websocket.recv(decode=False) == text
            for _ in range(4):
                far.read()
                await trio.testing.wait_all_tasks_blocked()
        assert far.texts == [b"w" * 3000]


async def test_reading_does_not_bar_the_short_way(autojump_clock: MockClock) -> None:
    async with session() as (websocket, writer, far):
        for number in range(20):
            far.protocol.send_text(b"delta")
            far.say()
            for _ in range(8):
                await trio.lowlevel.checkpoint()
                assert writer.send_nowait(b"append")
                assert not websocket.send_lock.locked()
            far.read()
            assert await websocket.recv() == "delta"
            assert len(far.texts) == 8 * (number + 1)


async def test_what_was_cancelled_before_it_could_be_written_goes_first(autojump_clock: MockClock) -> None:
    """Cancelled at the entrance of its lock websockets leaves a frame behind, which its next write sends."""
    async with session() as (websocket, writer, far):
        with trio.CancelScope() as scope:
            scope.cancel()
            await websocket.send("left behind")
        assert scope.cancelled_caught
        assert writer.unfinished
        assert not writer.send_nowait(b"overtakes")
        await websocket.send("last")
        far.read()
        assert far.texts == [b"left behind", b"last"]


async def test_a_message_in_fragments_is_not_broken_up(autojump_clock: MockClock) -> None:
    async with session() as (websocket, writer, far):
        release = trio.Event()

        async def fragments() -> AsyncIterator[str]:
            yield "one "
            await release.wait()
            yield "message"

        async with trio.open_nursery() as nursery:
            nursery.start_soon(websocket.send, fragments())
            await trio.testing.wait_all_tasks_blocked()
            assert not writer.send_nowait(b"between")
            release.set()
        assert writer.send_nowait(b"behind")
        far.read()
        assert b"".join(data for _, data in far.frames) == b"one messagebehind"


async def test_a_closing_session_takes_nothing(autojump_clock: MockClock) -> None:
    async with session() as (websocket, writer, far):
        far.protocol.send_close(1000)
        far.say()
        await trio.testing.wait_all_tasks_blocked()
        assert not writer.send_nowait(b"too late")
        with pytest.raises(ConnectionClosed):
            await websocket.send("too late")
        far.read()
        assert far.texts == []


async def test_a_broken_connection_is_told_by_the_ordinary_way(autojump_clock: MockClock) -> None:
    async with session() as (websocket, writer, far):
        far.stream.reset()
        assert not writer.send_nowait(b"x")
        with pytest.raises(ConnectionClosed):
            await websocket.send("x")


async def test_finishing_on_a_broken_connection_says_so(autojump_clock: MockClock) -> None:
    async with session() as (_, writer, far):
        assert writer.send_nowait(b"y" * 2500)
        async with trio.open_nursery() as nursery:

            async def finish() -> None:
                with pytest.raises(ConnectionClosed):
                    await writer.finish()

            nursery.start_soon(finish)
            await trio.testing.wait_all_tasks_blocked()
            far.stream.reset()


async def test_a_stream_that_can_not_be_tried_is_left_to_websockets(autojump_clock: MockClock) -> None:
    """As TLS: the transport below it has a socket, but what goes there are records."""
    async with session() as (websocket, _, far):
        inner = websocket.stream
        websocket.stream = trio.StapledStream(inner, inner)
        writer = WebsocketWriter(websocket)
        assert not writer.send_nowait(b"x")
        await websocket.send("x")
        far.read()
        assert far.texts == [b"x"]


# --- everything at once, on sockets ------------------------------------------------------------------------------------


async def test_on_a_real_socket_that_is_full_all_the_time_every_frame_arrives_whole() -> None:
    """Three writers and a slow reader: what the short way took is there, whole and in its order, and so is the rest."""
    chance = random.Random(6)
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    host, port = listener.socket.getsockname()
    far_protocol = ServerProtocol()
    received: list[tuple[Opcode, bytes]] = []
    taken: list[bytes] = []
    ordinary = texts(50, 4000)
    partial = 0

    async def far_end() -> None:
        async with await listener.accept() as stream:
            await take_apart(stream)

    async def take_apart(stream: trio.SocketStream) -> None:
        with trio.fail_after(30):
            while data := await stream.receive_some(chance.randrange(1, 300_000)):
                far_protocol.receive_data(data)
                for event in far_protocol.events_received():
                    if isinstance(event, Request):
                        far_protocol.send_response(far_protocol.accept(event))
                    elif isinstance(event, Frame):
                        received.append((event.opcode, bytes(event.data)))
                for answer in far_protocol.data_to_send():
                    if answer:
                        await stream.send_all(answer)
                    else:
                        await stream.send_eof()

    async with listener, trio.open_nursery() as nursery:
        nursery.start_soon(far_end)
        options = {"compression": None, "ping_interval": None, "create_connection": LightConnection}
        async with connect(f"ws://{host}:{port}/", **options) as websocket:  # type: ignore[arg-type]
            assert isinstance(websocket.stream, trio.SocketStream)
            websocket.stream.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 50_000)
            writer = WebsocketWriter(websocket)

            async def send_ordinary() -> None:
                for text in ordinary:
                    await websocket.send(text, text=True)
                    for _ in range(chance.randrange(6)):
                        await trio.lowlevel.checkpoint()

            async def ping() -> None:
                for _ in range(20):
                    await (await websocket.ping()).wait()

            async def write() -> None:
                nonlocal partial
                while len(taken) < 40:
                    text = b"S%05d" % len(taken) + b"." * chance.choice((1300, 200_000))
                    if writer.send_nowait(text):
                        taken.append(text)
                        if writer.unfinished:
                            partial += 1
                            await writer.finish()
                    await trio.lowlevel.checkpoint()

            async with trio.open_nursery() as writers:
                for task in (send_ordinary, ping, write):
                    writers.start_soon(task)
        await trio.lowlevel.checkpoint()
    arrived = [data for opcode, data in received if opcode is Opcode.TEXT]
    assert [text for text in arrived if text.startswith(b"S")] == taken
    assert [text for text in arrived if not text.startswith(b"S")] == ordinary
    assert sum(opcode is Opcode.PING for opcode, _ in received) == 20
    assert partial > 5, "the test is to meet sockets that take a part"
