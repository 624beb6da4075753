"""The memory streams behave as sockets do: one contract for both ends of both, and trio's own checks."""

from __future__ import annotations

import socket
import struct
from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing

from bridge.nowait_io import NowaitIo
from bridge.nowait_io import nowait_io as io_or_none
from simulators.memory import MemoryListener, MemoryStream, memory_stream_pair

Ends = tuple[trio.abc.HalfCloseableStream, trio.abc.HalfCloseableStream]
MakeEnds = Callable[[], Awaitable[Ends]]


async def memory_ends() -> Ends:
    return memory_stream_pair(50_000)


async def socket_ends() -> Ends:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        client = await trio.testing.open_stream_to_socket_listener(listener)
        return client, await listener.accept()


def nowait_io(stream: trio.abc.Stream) -> NowaitIo:
    io = io_or_none(stream)
    assert io is not None
    return io


async def read(stream: trio.abc.Stream) -> bytes:
    """What comes next by `read_nowait`, tried until it does."""
    io = nowait_io(stream)
    with trio.fail_after(5):
        while True:
            if (data := io.read_nowait()) is not None:
                return data
            await trio.sleep(0.001)


def reset(stream: trio.abc.Stream) -> None:
    if isinstance(stream, MemoryStream):
        stream.reset()
    else:
        assert isinstance(stream, trio.SocketStream)
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        stream.socket.close()


async def writes_fail(stream: trio.abc.Stream) -> None:
    """At the second write, if not at once: a socket must hear from its far end that it is gone."""
    io = nowait_io(stream)
    with pytest.raises(OSError, match=r"(?i)broken pipe|reset by peer"):  # noqa: PT012
        for _ in range(2):
            io.write_nowait(b"x")
            await trio.sleep(0.01)
    with pytest.raises(trio.BrokenResourceError):
        await stream.send_all(b"x")


# --- the contract --------------------------------------------------------------------------------------------------


async def what_is_written_is_read(one: trio.abc.HalfCloseableStream, other: trio.abc.HalfCloseableStream) -> None:
    assert nowait_io(other).read_nowait() is None
    assert nowait_io(one).write_nowait(b"abc") == 3
    assert await read(other) == b"abc"
    assert nowait_io(other).read_nowait() is None
    await one.send_all(b"def")
    assert await other.receive_some(2) == b"de"
    assert await other.receive_some() == b"f"


async def fin_comes_after_the_data_and_again(
    one: trio.abc.HalfCloseableStream, other: trio.abc.HalfCloseableStream
) -> None:
    await one.send_all(b"abc")
    await one.aclose()
    assert await read(other) == b"abc"
    for _ in range(2):
        assert await read(other) == b""
        assert await other.receive_some() == b""


async def half_closed_it_still_reads(one: trio.abc.HalfCloseableStream, other: trio.abc.HalfCloseableStream) -> None:
    await one.send_eof()
    assert await read(other) == b""
    assert nowait_io(other).write_nowait(b"abc") == 3
    await other.send_all(b"def")
    got = b""
    while len(got) < 6:
        got += await read(one)
    assert got == b"abcdef"
    assert nowait_io(one).read_nowait() is None


async def half_closed_it_writes_no_more(
    one: trio.abc.HalfCloseableStream, other: trio.abc.HalfCloseableStream
) -> None:
    await one.send_eof()
    with pytest.raises(OSError, match=r"(?i)broken pipe"):
        nowait_io(one).write_nowait(b"x")
    with pytest.raises(trio.ClosedResourceError):
        await one.send_all(b"x")
    assert await read(other) == b""


async def writing_to_who_closed_fails(one: trio.abc.HalfCloseableStream, other: trio.abc.HalfCloseableStream) -> None:
    await one.aclose()
    assert await read(other) == b""
    await writes_fail(other)
    assert await other.receive_some() == b""


async def closing_with_unread_data_is_a_reset(
    one: trio.abc.HalfCloseableStream, other: trio.abc.HalfCloseableStream
) -> None:
    await one.send_all(b"last words")
    await other.send_all(b"unread")
    await trio.sleep(0.01)
    await one.aclose()
    assert await read(other) == b"last words"
    with pytest.raises(OSError, match=r"(?i)reset by peer"):
        await read(other)
    await writes_fail(other)


async def closing_with_unread_data_after_the_end_was_sent_is_none(
    one: trio.abc.HalfCloseableStream, other: trio.abc.HalfCloseableStream
) -> None:
    await one.send_eof()
    await other.send_all(b"unread")
    await trio.sleep(0.01)
    await one.aclose()
    assert await read(other) == b""
    await writes_fail(other)


async def a_reset_is_told_after_what_had_come(
    one: trio.abc.HalfCloseableStream, other: trio.abc.HalfCloseableStream
) -> None:
    await one.send_all(b"abc")
    await trio.sleep(0.01)
    reset(one)
    assert await read(other) == b"abc"
    with pytest.raises(OSError, match=r"(?i)reset by peer"):
        await read(other)
    await writes_fail(other)


async def a_reset_wakes_who_waits(one: trio.abc.HalfCloseableStream, other: trio.abc.HalfCloseableStream) -> None:
    async def receive() -> None:
        with pytest.raises(trio.BrokenResourceError):
            await other.receive_some()

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            await trio.sleep(0.01)
            reset(one)


async def a_closed_end_says_so(one: trio.abc.HalfCloseableStream, other: trio.abc.HalfCloseableStream) -> None:
    await other.send_all(b"unread")
    await trio.sleep(0.01)
    await one.aclose()
    with pytest.raises(OSError, match="Bad file descriptor"):
        nowait_io(one).read_nowait()
    with pytest.raises(OSError, match="Bad file descriptor"):
        nowait_io(one).write_nowait(b"x")
    with pytest.raises(trio.ClosedResourceError):
        await one.receive_some()
    with pytest.raises(trio.ClosedResourceError):
        await one.send_all(b"x")
    await one.aclose()


async def full_it_takes_a_part_then_nothing_then_more(
    one: trio.abc.HalfCloseableStream, other: trio.abc.HalfCloseableStream
) -> None:
    wire = bytes(range(251)) * 100_000
    io = nowait_io(one)
    sent = 0
    while taken := io.write_nowait(wire[sent:]):
        sent += taken
    assert 0 < sent < len(wire)
    got = b""
    with trio.fail_after(5):
        while len(got) < sent:
            got += await read(other)
        taken = 0
        while not taken:
            taken = io.write_nowait(wire[sent : sent + 10])
            await trio.sleep(0.001)
        got += await read(other)
    assert got == wire[: sent + taken]


CHECKS = [
    what_is_written_is_read,
    fin_comes_after_the_data_and_again,
    half_closed_it_still_reads,
    half_closed_it_writes_no_more,
    writing_to_who_closed_fails,
    closing_with_unread_data_is_a_reset,
    closing_with_unread_data_after_the_end_was_sent_is_none,
    a_reset_is_told_after_what_had_come,
    a_reset_wakes_who_waits,
    a_closed_end_says_so,
    full_it_takes_a_part_then_nothing_then_more,
]


@pytest.mark.parametrize("turned", [False, True], ids=["one", "other"])
@pytest.mark.parametrize("make", [memory_ends, socket_ends], ids=["memory", "socket"])
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_contract(
    check: Callable[[trio.abc.HalfCloseableStream, trio.abc.HalfCloseableStream], Awaitable[None]],
    make: MakeEnds,
    turned: bool,
) -> None:
    one, other = await make()
    try:
        await (check(other, one) if turned else check(one, other))
    finally:
        await trio.aclose_forcefully(one)
        await trio.aclose_forcefully(other)


# --- the memory stream's own ---------------------------------------------------------------------------------------


async def clogged_ends() -> tuple[MemoryStream, MemoryStream]:
    one, other = memory_stream_pair(1000)
    for stream in (one, other):
        stream.write_nowait(bytes(1000))
    return one, other


async def test_it_is_a_stream_as_trio_demands() -> None:
    async def make() -> tuple[MemoryStream, MemoryStream]:
        return memory_stream_pair()

    with trio.fail_after(10):
        await trio.testing.check_half_closeable_stream(make, clogged_ends)


async def test_its_capacity_is_exact_and_writes_are_counted() -> None:
    one, other = memory_stream_pair(10)
    assert one.write_nowait(b"12345678") == 8
    assert one.write_nowait(b"12345678") == 2
    assert one.write_nowait(b"x") == 0
    assert one.writes == 2
    assert other.read_nowait() == b"1234567812"
    assert other.write_nowait(bytes(20)) == 10  # each direction has its own
    assert other.writes == 1


async def test_a_listener_hands_out_both_ends() -> None:
    listener = MemoryListener()
    client = listener.connect()
    server = await listener.accept()
    await client.send_all(b"abc")
    assert await server.receive_some() == b"abc"
    await listener.aclose()
    with pytest.raises(trio.BrokenResourceError):
        listener.connect()
    with pytest.raises(trio.ClosedResourceError):
        await listener.accept()
