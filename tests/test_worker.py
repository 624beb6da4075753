"""A worker under its supervisor, as the supervisor's end of the link sees it: whole calls in virtual time."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from house import House, house
from trio.testing import MockClock, memory_stream_pair

from bridge.health import Report
from bridge.worker_link import LONGEST_LINE, LinkError, OrderLine, Receiver, report_to
from bridge.worker_policy import Order
from simulators.model_script import Say, Script


class Supervision:
    """The supervisor's end: reads all reports, keeps the last."""

    def __init__(self, house: House, stream: trio.abc.HalfCloseableStream) -> None:
        self.house, self.stream = house, stream
        self.reports: list[Report] = []

    @property
    def latest(self) -> Report:
        return self.reports[-1]

    async def read(self) -> None:
        receiver = Receiver(self.stream, Report)
        while (report := await receiver.receive()) is not None:
            self.reports.append(report)

    async def tell(self, order: str) -> None:
        await self.stream.send_all(b'{"order":"%s"}\n' % order.encode())


@asynccontextmanager
async def worker(**settings: str) -> AsyncIterator[Supervision]:
    ours, theirs = memory_stream_pair()
    overrides = {key.replace("__", "."): value for key, value in settings.items()}
    script = Script.of(*[Say("A long story.", ms=200_000)] * 3)
    async with house(script, overrides=overrides, supervisor=theirs) as it:
        supervision = Supervision(it, ours)
        it.nursery.start_soon(supervision.read)
        await trio.sleep(1.5)
        yield supervision


async def test_it_reports_each_second_and_at_once_when_it_changes(autojump_clock: MockClock) -> None:
    async with worker(server__max_calls="1") as it:
        await trio.sleep(10)
        assert 9 <= len(it.reports) <= 13
        assert it.latest.ready
        channel, _ = await it.house.stasis_call()
        await trio.sleep(0.3)
        assert (it.latest.ready, it.latest.full, it.latest.calls) == (False, True, 1)
        channel.hang_up()
        await it.house.ended()
        await trio.sleep(0.3)
        assert (it.latest.ready, it.latest.calls, it.latest.ended) == (True, 0, {"caller_hung_up": 1})


async def test_it_is_not_ready_without_asterisk(autojump_clock: MockClock) -> None:
    async with worker() as it:
        await it.house.ari.drop_connection()
        await trio.sleep(0.3)
        assert (it.latest.connected, it.latest.listening, it.latest.ready) == (False, True, False)
        await trio.sleep(3)
        assert it.latest.ready


async def test_every_call_is_in_the_counts_once(autojump_clock: MockClock) -> None:
    async with worker(server__max_calls="2", limits__media_arrival_s="1") as it:

        def balance() -> int:
            last = it.latest
            return last.admitted - sum(last.ended.values()) - last.calls - last.calls_waiting

        stasis, _ = await it.house.stasis_call()
        plain = await it.house.plain_call()
        await it.house.hears_of("agent_starts", 2)
        refused = it.house.ari.incoming_call()
        await trio.sleep(2)
        assert refused.variables["BRIDGE_END_REASON"] == "refused_busy"
        assert (it.latest.calls, it.latest.admitted, it.latest.refused) == (2, 2, {"refused_busy": 1})
        assert balance() == 0
        stasis.hang_up()
        await it.house.ended(2)
        it.house.media_comes = False
        it.house.ari.incoming_call()
        await trio.sleep(1.3)
        assert balance() == 0
        await it.house.ended(3)
        await plain.hang_up()
        await it.house.ended(4)
        await trio.sleep(1.3)
        assert it.latest.ended == {"caller_hung_up": 2, "media_never_arrived": 1}
        assert (it.latest.admitted, it.latest.calls, it.latest.calls_waiting) == (3, 0, 0)


async def test_told_to_drain_it_lets_its_call_go_on(autojump_clock: MockClock) -> None:
    async with worker() as it:
        channel, _ = await it.house.stasis_call()
        await it.house.hears_of("agent_starts")
        await it.tell("drain")
        await trio.sleep(20)
        assert (it.latest.draining, it.latest.ready, it.latest.calls) == (True, False, 1)
        channel.hang_up()
        assert (await it.house.ended())["reason"] == "caller_hung_up"


async def test_told_to_stop_it_gives_its_callers_back(autojump_clock: MockClock) -> None:
    async with worker() as it:
        channel, _ = await it.house.stasis_call()
        await it.house.hears_of("agent_starts")
        await it.tell("stop")
        assert (await it.house.ended())["reason"] == "server_draining"
        assert channel.variables["BRIDGE_END_REASON"] == "server_draining"


async def test_signals_only_drain_it_however_many(autojump_clock: MockClock) -> None:
    """Ctrl-C and systemd may signal the supervisor and its workers, and the supervisor then tells them once more."""
    async with worker() as it:
        channel, _ = await it.house.stasis_call()
        await it.house.hears_of("agent_starts")
        for _ in range(3):
            signal.raise_signal(signal.SIGTERM)
            await trio.sleep(1)
        assert (it.latest.draining, it.latest.calls) == (True, 1)
        channel.hang_up()
        assert (await it.house.ended())["reason"] == "caller_hung_up"


async def test_a_single_process_drains_on_sighup_however_often(autojump_clock: MockClock) -> None:
    """`systemctl reload` without workers: systemd starts it again."""
    async with house(Script.of(Say("A long story.", ms=200_000))) as it:
        channel, _ = await it.stasis_call()
        await it.hears_of("agent_starts")
        for _ in range(2):
            signal.raise_signal(signal.SIGHUP)
            await trio.sleep(1)
        await it.hears_of("draining")
        assert not it.told("call_ended")
        channel.hang_up()
        assert (await it.ended())["reason"] == "caller_hung_up"


@pytest.mark.parametrize("last_words", [b"", b"nonsense\n"])
async def test_without_its_supervisor_it_drains(autojump_clock: MockClock, last_words: bytes) -> None:
    async with worker() as it:
        channel, _ = await it.house.stasis_call()
        await it.house.hears_of("agent_starts")
        if last_words:
            await it.stream.send_all(last_words)
        else:
            await it.stream.send_eof()
        await it.house.hears_of("draining")
        assert not it.house.told("call_ended")
        channel.hang_up()
        assert (await it.house.ended())["reason"] == "caller_hung_up"


async def test_a_supervisor_that_does_not_read_makes_no_reports_pile_up(autojump_clock: MockClock) -> None:
    asked = 0

    def report() -> Report:
        nonlocal asked
        asked += 1
        return Report(pid=1)

    class Full(trio.abc.SendStream):
        async def send_all(self, data: bytes | bytearray | memoryview) -> None:
            await trio.sleep_forever()

        async def wait_send_all_might_not_block(self) -> None:
            await trio.sleep_forever()

        async def aclose(self) -> None:
            await trio.lowlevel.checkpoint()

    with trio.move_on_after(60):
        await report_to(Full(), report)
    assert asked == 1


async def test_lines_may_come_in_any_pieces(autojump_clock: MockClock) -> None:
    ours, theirs = memory_stream_pair()
    receiver = Receiver(ours, OrderLine)
    async with trio.open_nursery() as nursery:

        async def send() -> None:
            for piece in (b'{"order":"dr', b'ain"}\n{"order":"stop"}', b"\n"):
                await theirs.send_all(piece)
                await trio.sleep(1)
            await theirs.aclose()

        nursery.start_soon(send)
        assert await receiver.receive() == OrderLine(Order.DRAIN)
        assert await receiver.receive() == OrderLine(Order.STOP)
        assert await receiver.receive() is None


async def test_a_line_without_an_end_is_refused(autojump_clock: MockClock) -> None:
    ours, theirs = memory_stream_pair()
    await theirs.send_all(b"x" * (LONGEST_LINE + 1))
    with pytest.raises(LinkError, match="a line of more than"):
        await Receiver(ours, OrderLine).receive()
