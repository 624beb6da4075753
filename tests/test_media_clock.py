"""The clock of all calls, in virtual time: its grid, its phases, its stalls, and that one call can not harm another."""

from __future__ import annotations

import math
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from random import Random
from uuid import UUID, uuid4

import pytest
import trio
import trio.testing

from bridge.audio import PcmConverter, PcmFormat, resampler
from bridge.audiosocket import Frame, FrameDecoder, Kind, encode
from bridge.audiosocket_leg import identify
from bridge.ending import Farewell
from bridge.errors import MediaLost, MediaProtocolError
from bridge.leg import CallerAudio, CallerDigit, CallerLeft, LegEvent
from bridge.media_clock import PHASES, SLOT_S, STUCK_TICKS, MediaClock
from simulators.memory import memory_stream_pair

Clock = trio.testing.MockClock
SLIN = PcmFormat(8000)
FRAME_S = 0.020


class Leg:
    """A leg by hand: what the caller does is put into `events`, what the far end got is in `taken`."""

    call_id = UUID("40325ec2-5efd-4bd3-805f-53576e581d13")
    format = SLIN
    descriptor: int | None = None

    def __init__(self) -> None:
        self.events: list[LegEvent] = []
        self.taken: list[bytes] = []
        self.takes = True
        self.reads: list[float] = []
        self.error: Exception | None = None

    audio_received = (0, 0)

    def receive_nowait(self) -> list[LegEvent]:
        self.reads.append(trio.current_time())
        if self.error is not None:
            raise self.error
        events, self.events = self.events, []
        return events

    def send_audio_nowait(self, frame: bytes) -> bool:
        if self.takes:
            self.taken.append(frame)
        return self.takes

    def clear_audio_nowait(self) -> None: ...

    async def close(self, farewell: Farewell) -> None: ...


class Call:
    """What a call does on the clock: it keeps what it hears and numbers the frames that it gives."""

    def __init__(self) -> None:
        self.leg = Leg()
        self.heard: list[tuple[float, LegEvent]] = []
        self.sent_at: list[float] = []
        self.deadlines: list[float] = []
        self.on_frame: Callable[[], None] = lambda: None
        self.on_hear: Callable[[], None] = lambda: None
        self.scope = trio.CancelScope()
        self.error: Exception | None = None
        self.over_at: float | None = None

    def hear(self, event: LegEvent) -> None:
        self.heard.append((trio.current_time(), event))
        self.on_hear()

    def next_frame(self, deadline: float) -> bytes:
        self.deadlines.append(deadline)
        self.sent_at.append(trio.current_time())
        self.on_frame()
        return len(self.sent_at).to_bytes(4, "big") * 80

    async def carry(self, clock: MediaClock) -> None:
        try:
            with self.scope:
                await clock.carry(self.leg, self.hear, self.next_frame)
        except (MediaLost, MediaProtocolError, ZeroDivisionError) as error:
            self.error = error
        self.over_at = trio.current_time()

    @property
    def callbacks(self) -> int:
        return len(self.heard) + len(self.sent_at)


@asynccontextmanager
async def carried(count: int = 1) -> AsyncIterator[tuple[MediaClock, list[Call], trio.Nursery]]:
    clock = MediaClock()
    calls = [Call() for _ in range(count)]
    async with trio.open_nursery() as nursery:
        for call in calls:
            nursery.start_soon(call.carry, clock)
            await trio.testing.wait_all_tasks_blocked()  # one after the other: trio starts tasks in any order
        nursery.start_soon(clock.run)
        yield clock, calls, nursery
        nursery.cancel_scope.cancel()


def off_grid(times: Iterable[float], period_s: float = FRAME_S) -> float:
    """The largest distance from the grid of the first."""
    first, *others = times
    return max((abs((at - first) / period_s - round((at - first) / period_s)) for at in others), default=0.0)


# --- the grid ------------------------------------------------------------------------------------------------------


async def test_a_call_gets_a_frame_every_20_ms(autojump_clock: Clock) -> None:
    async with carried() as (clock, (call,), _):
        start = trio.current_time()
        await trio.sleep(1.0 - 0.001)
        assert call.sent_at == pytest.approx([start + tick * FRAME_S for tick in range(50)], abs=1e-9)
        assert call.deadlines == pytest.approx(call.sent_at, abs=1e-9)
        assert call.leg.taken == [number.to_bytes(4, "big") * 80 for number in range(1, 51)]
        assert (clock.metronome.late, clock.metronome.lost) == (0, 0)


async def test_minutes_do_not_drift(autojump_clock: Clock) -> None:
    async with carried() as (_, (call,), _):
        start = trio.current_time()
        await trio.sleep(120 - 0.001)
        assert len(call.sent_at) == 120 * 50
        assert call.sent_at[-1] == pytest.approx(start + 120 - FRAME_S, abs=1e-6)


async def test_calls_are_spread_evenly_over_the_phases(autojump_clock: Clock) -> None:
    async with carried(9) as (_, calls, _):
        start = trio.current_time()
        await trio.sleep(1.0 - 0.001)
        for call in calls:
            assert len(call.sent_at) == 50
            assert off_grid(call.sent_at) < 1e-6
        phases = Counter(round((call.sent_at[0] - start) / SLOT_S) for call in calls)
        assert sorted(phases) == list(range(PHASES))
        assert sorted(phases.values()) == [2, 2, 2, 3]


async def test_who_comes_later_takes_the_emptiest_phase(autojump_clock: Clock) -> None:
    async with carried(8) as (clock, calls, nursery):
        await trio.sleep(0.1)
        leaving = [calls[2], calls[6]]  # of the same phase
        for call in leaving:
            call.scope.cancel()
        await trio.sleep(0.1)
        late = Call()
        nursery.start_soon(late.carry, clock)
        await trio.sleep(0.1)
        assert off_grid([leaving[0].sent_at[0], leaving[1].sent_at[0], late.sent_at[0]]) < 1e-6


# --- hearing -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 9])
async def test_a_caller_is_heard_within_10_ms(count: int, autojump_clock: Clock) -> None:
    async with carried(count) as (_, calls, _):
        await trio.sleep(0.0503)
        for step in range(200):
            said_at = trio.current_time()
            event = CallerAudio(bytes([step, 0]))
            for call in calls:
                call.leg.events.append(event)
            await trio.sleep(0.0101)
            for call in calls:
                heard_at, heard = call.heard[-1]
                assert heard == event
                assert said_at <= heard_at <= said_at + 0.010 + 1e-9
        for call in calls:
            assert off_grid(call.leg.reads, 0.010) < 1e-6


async def test_events_of_one_read_are_heard_in_order(autojump_clock: Clock) -> None:
    async with carried() as (_, (call,), _):
        events: list[LegEvent] = [CallerDigit("1"), CallerAudio(b"ab"), CallerDigit("2")]
        call.leg.events.extend(events)
        await trio.sleep(0.1)
        assert [event for _, event in call.heard] == events


async def test_audio_of_one_read_is_heard_in_one_piece(autojump_clock: Clock) -> None:
    """Behind, the process has more frames to a read; were each of them as dear as in time, it would stay behind."""
    async with carried() as (_, (call,), _):
        call.leg.events += [CallerAudio(b"ab"), CallerAudio(b"cd"), CallerDigit("2"), CallerAudio(b"ef")]
        await trio.sleep(0.1)
        assert [event for _, event in call.heard] == [CallerAudio(b"abcd"), CallerDigit("2"), CallerAudio(b"ef")]


async def test_the_end_of_the_caller_ends_carry(autojump_clock: Clock) -> None:
    async with carried(2) as (_, (call, other), _):
        await trio.sleep(0.0999)
        sent = len(call.sent_at)
        left = CallerLeft("the far end closed the connection")
        call.leg.events += [CallerDigit("1"), left, CallerDigit("2")]
        await trio.sleep(0.5)
        assert [event for _, event in call.heard] == [CallerDigit("1"), left]
        assert call.error is None
        assert call.over_at == call.heard[-1][0]
        assert len(call.sent_at) == sent
        assert len(other.sent_at) == 30
        assert not other.heard


class WatchedLeg(Leg):
    """A leg with a socket that is readable while `events` hold something, as a caller's is. Frames go nowhere."""

    def __init__(self) -> None:
        super().__init__()
        self._far, self._near = socket.socketpair()
        self.descriptor = self._near.fileno()

    def happens(self, *events: LegEvent) -> None:
        self.events += events
        self._far.send(b"x")

    def receive_nowait(self) -> list[LegEvent]:
        with suppress(OSError):
            self._near.recv(100, socket.MSG_DONTWAIT)
        return super().receive_nowait()

    def free(self) -> None:
        self._far.close()
        self._near.close()


@asynccontextmanager
async def watched(count: int = 1) -> AsyncIterator[tuple[list[Call], list[WatchedLeg], trio.Nursery]]:
    """`count` calls whose legs have sockets, on a clock that runs."""
    clock, calls, legs = MediaClock(), [Call() for _ in range(count)], [WatchedLeg() for _ in range(count)]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(clock.run)
        for call, leg in zip(calls, legs, strict=True):
            call.leg = leg
            nursery.start_soon(call.carry, clock)
        await trio.testing.wait_all_tasks_blocked()
        yield calls, legs, nursery
        nursery.cancel_scope.cancel()
    for leg in legs:
        leg.free()


async def test_a_caller_with_a_socket_is_heard_within_5_ms_and_read_once_a_frame(autojump_clock: Clock) -> None:
    async with watched(9) as (calls, legs, _):
        await trio.sleep(0.0503)
        before = [len(leg.reads) for leg in legs]
        for step in range(200):
            said_at = trio.current_time()
            event = CallerAudio(bytes([step, 0]))
            for leg in legs:
                leg.happens(event)
            await trio.sleep(FRAME_S)
            for call in calls:
                assert call.heard[-1][1] == event
                assert said_at <= call.heard[-1][0] <= said_at + SLOT_S + 1e-9
        assert [len(leg.reads) - reads for leg, reads in zip(legs, before, strict=True)] == [200] * 9
        assert all(len(call.heard) == 200 for call in calls)


async def test_a_caller_is_read_each_20_ms_even_if_the_kernel_says_nothing(autojump_clock: Clock) -> None:
    """What was read while the format was learnt, and an error behind the last events, make no socket readable."""
    async with watched(4) as (calls, legs, _):
        await trio.sleep(0.0503)
        legs[0].events.append(CallerDigit("1"))
        legs[1].error = MediaProtocolError("out of frame")
        await trio.sleep(FRAME_S)
        assert [event for _, event in calls[0].heard] == [CallerDigit("1")]
        assert calls[1].error is legs[1].error
        assert off_grid(legs[2].reads) < 1e-6


async def test_a_number_that_another_call_has_now_stays_watched(autojump_clock: Clock) -> None:
    """A socket is closed under a call that ends later; its number goes to a new one in between."""
    clock, old, new = MediaClock(), Call(), Call()
    first = old.leg = WatchedLeg()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(clock.run)
        nursery.start_soon(old.carry, clock)
        await trio.sleep(0.05)
        first.free()
        second = new.leg = WatchedLeg()
        assert {second.descriptor, second._far.fileno()} >= {first.descriptor}
        if second.descriptor != first.descriptor:  # the other end got it
            second._far, second._near = second._near, second._far
            second.descriptor = second._near.fileno()
        nursery.start_soon(new.carry, clock)
        await trio.sleep(0.05)
        old.scope.cancel()
        await trio.sleep(0.0503)
        second.happens(CallerDigit("1"))
        said_at = trio.current_time()
        await trio.sleep(FRAME_S)
        assert new.heard[0][0] <= said_at + SLOT_S
        nursery.cancel_scope.cancel()
    second.free()


async def test_what_is_said_is_converted_for_all_calls_of_a_turn_and_told_in_order(autojump_clock: Clock) -> None:
    clock, calls = MediaClock(), [Call() for _ in range(6)]
    rates_hz = (16000, 8000, 24000, 16000, 8000, 16000)
    converters = [resampler(rate_hz, 24000) for rate_hz in rates_hz]
    expected = [resampler(rate_hz, 24000) for rate_hz in rates_hz]
    wanted: list[list[LegEvent]] = [[] for _ in calls]
    chance = Random(3)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(clock.run)

        async def carry(call: Call, converter: PcmConverter) -> None:
            await clock.carry(call.leg, call.hear, call.next_frame, converter)

        for call, converter in zip(calls, converters, strict=True):
            nursery.start_soon(carry, call, converter)
        for tick in range(60):
            for index, call in enumerate(calls):
                said: list[LegEvent] = [CallerAudio(chance.randbytes(rates_hz[index] // 50 * 2))]
                if (tick + index) % 7 == 0:
                    said += [CallerDigit("1"), CallerAudio(chance.randbytes(50))]
                call.leg.events += said
                wanted[index] += [
                    CallerAudio(expected[index].process(event.pcm)) if isinstance(event, CallerAudio) else event
                    for event in said
                ]
            await trio.sleep(FRAME_S)
        nursery.cancel_scope.cancel()
    for call, events in zip(calls, wanted, strict=True):
        assert [event for _, event in call.heard] == events


# --- stalls --------------------------------------------------------------------------------------------------------


def stall_once(call: Call, clock: Clock, seconds: float) -> None:
    """The next frame of this call takes so long to make."""

    def stall() -> None:
        call.on_frame = lambda: None
        clock.jump(seconds)

    call.on_frame = stall


@pytest.mark.parametrize("stall_ms", [15, 20, 40, 60])
async def test_a_short_stall_is_made_good(stall_ms: int, autojump_clock: Clock) -> None:
    async with carried(9) as (clock, calls, _):
        start = trio.current_time()
        await trio.sleep(0.099)
        stall_once(calls[0], autojump_clock, stall_ms / 1000)
        await trio.sleep_until(start + 1.0 - 0.001)
        assert clock.metronome.lost == 0
        for call in calls:
            assert len(call.sent_at) == 50
            assert off_grid(call.deadlines) < 1e-6
            late = [at - deadline for at, deadline in zip(call.sent_at, call.deadlines, strict=True)]
            assert max(late) <= stall_ms / 1000 + 1e-9
            assert sum(at > 1e-9 for at in late) <= -(-stall_ms // 20)
        assert max(max(call.sent_at[i + 1] - call.sent_at[i] for i in range(49)) for call in calls) >= stall_ms / 1000


async def test_a_long_stall_is_lost_and_the_grid_starts_anew(autojump_clock: Clock) -> None:
    async with carried(9) as (clock, calls, _):
        start = trio.current_time()
        await trio.sleep(0.099)
        stall_once(calls[0], autojump_clock, 0.2)
        await trio.sleep_until(start + 1.3)
        assert clock.metronome.lost // PHASES in (9, 10)
        for call in calls:
            # No burst: what was missed is not said. Before and after it stands on a grid.
            assert 55 <= len(call.sent_at) <= 56
            before = [at for at in call.deadlines if at <= start + 0.1 + 1e-9]
            after = [at for at in call.deadlines if at > start + 0.1 + 1e-9]
            assert off_grid(before) < 1e-6
            assert off_grid(after) < 1e-6
            assert after == pytest.approx(call.sent_at[len(before) :], abs=1e-9)
            assert start + 0.3 - 1e-9 <= after[0] <= start + 0.32
        spread = Counter(round((call.sent_at[-1] - start) / SLOT_S) % PHASES for call in calls)
        assert sorted(spread.values()) == [2, 2, 2, 3]


async def test_what_was_said_in_a_stall_is_heard_right_after_it(autojump_clock: Clock) -> None:
    async with carried(9) as (_, calls, _):
        await trio.sleep(0.099)

        def stall() -> None:
            calls[0].on_frame = lambda: None
            autojump_clock.jump(0.5)
            for call in calls:
                call.leg.events.append(CallerDigit("1"))

        calls[0].on_frame = stall
        await trio.sleep(0.001)
        await trio.testing.wait_all_tasks_blocked()
        over = trio.current_time()
        assert over == pytest.approx(0.6)
        await trio.sleep(0.1)
        for call in calls:
            ((heard_at, _),) = call.heard
            assert heard_at - over <= 0.010 + 1e-9


# --- faults of one call --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stall_ms", [0, 30, 200])
async def test_lateness_is_told_for_each_turn_and_lost_frames_are_told_too(
    stall_ms: int, autojump_clock: Clock
) -> None:
    noted: list[tuple[int, float]] = []
    clock, calls = MediaClock(lambda frames, late_s, _: noted.append((frames, late_s))), [Call() for _ in range(8)]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(clock.run)
        for call in calls:
            nursery.start_soon(call.carry, clock)
        await trio.sleep(0.1)
        stall_once(calls[0], autojump_clock, stall_ms / 1000)
        await trio.sleep(1.899)
        nursery.cancel_scope.cancel()
    assert sum(frames for frames, _ in noted) == 8 * 100
    late_ms = sorted(round(late_s * 1000, 3) for _, late_s in noted if late_s > 1e-6)
    if stall_ms == 0:
        assert late_ms == []
    elif stall_ms == 30:
        assert late_ms == [5, 10, 15, 20, 25, 30]
    else:
        assert late_ms == [200, math.inf]


def break_frame(call: Call) -> None:
    def fail() -> None:
        raise ZeroDivisionError("next_frame")

    call.on_frame = fail


def break_hear(call: Call) -> None:
    def fail() -> None:
        raise ZeroDivisionError("hear")

    call.on_hear = fail
    call.leg.events.append(CallerDigit("1"))


def break_leg(call: Call) -> None:
    call.leg.error = MediaProtocolError("out of frame")


def break_line(call: Call) -> None:
    call.leg.error = MediaLost("reset")


@pytest.mark.parametrize(
    ("break_it", "expected"),
    [
        (break_frame, ZeroDivisionError("next_frame")),
        (break_hear, ZeroDivisionError("hear")),
        (break_leg, MediaProtocolError("out of frame")),
        (break_line, MediaLost("reset")),
    ],
)
async def test_a_fault_comes_out_of_its_own_call_and_disturbs_no_other(
    break_it: Callable[[Call], None], expected: Exception, autojump_clock: Clock
) -> None:
    async with carried(9) as (clock, calls, _):
        await trio.sleep(0.099)
        broken = calls[4]  # one of the three of its phase, and the second of them
        break_it(broken)
        await trio.sleep(0.020)
        assert repr(broken.error) == repr(expected)
        callbacks, reads = broken.callbacks, len(broken.leg.reads)
        await trio.sleep(1.0 - 0.120)
        assert (broken.callbacks, len(broken.leg.reads)) == (callbacks, reads)
        for call in calls:
            if call is not broken:
                assert call.error is None
                assert call.over_at is None
                assert len(call.sent_at) == 50
                assert off_grid(call.sent_at) < 1e-6
        assert clock.metronome.lost == 0


async def test_a_cancelled_call_is_not_called_back(autojump_clock: Clock) -> None:
    async with carried(2) as (_, (call, other), _):
        await trio.sleep(0.5)
        call.leg.events.append(CallerDigit("1"))
        call.scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert call.over_at is not None
        callbacks = call.callbacks
        await trio.sleep(0.499)
        assert call.callbacks == callbacks
        assert len(other.sent_at) == 50


async def test_a_call_that_cancels_itself_is_not_called_back(autojump_clock: Clock) -> None:
    """As `Ending` does it: from inside a callback."""
    async with carried(2) as (_, (call, other), _):
        call.on_hear = call.scope.cancel
        await trio.sleep(0.099)
        call.leg.events.append(CallerDigit("1"))
        await trio.sleep(0.020)
        assert call.over_at is not None
        assert call.over_at == call.heard[0][0]
        assert [at for at in call.sent_at if at > call.over_at] == []
        await trio.sleep(1.0 - 0.120)
        assert len(other.sent_at) == 50


async def test_a_call_may_begin_and_end_inside_a_callback_of_another(autojump_clock: Clock) -> None:
    async with carried(2) as (clock, (call, other), nursery):
        third = Call()

        def swap() -> None:
            other.scope.cancel()
            nursery.start_soon(third.carry, clock)

        call.on_hear = swap
        call.leg.events.append(CallerDigit("1"))
        await trio.sleep(1.0)
        assert other.over_at == call.heard[0][0]
        assert len(third.sent_at) in (49, 50)
        assert len(call.sent_at) in (50, 51)


# --- a far end that takes nothing ----------------------------------------------------------------------------------


async def test_what_the_far_end_refuses_is_offered_again(autojump_clock: Clock) -> None:
    async with carried(2) as (_, (call, other), _):
        await trio.sleep(0.099)
        call.leg.takes = False
        call.leg.events.append(CallerDigit("1"))
        await trio.sleep(2.0)
        assert len(call.leg.taken) == 5
        assert len(call.sent_at) == 6  # the playout stands still: one frame was asked for
        assert len(call.heard) == 1  # and the caller is heard all the same
        call.leg.takes = True
        await trio.sleep(0.9)
        assert call.leg.taken == [number.to_bytes(4, "big") * 80 for number in range(1, 51)]
        assert len(other.leg.taken) == 150


async def test_a_far_end_that_never_takes_again_is_lost(autojump_clock: Clock) -> None:
    async with carried(2) as (_, (call, other), _):
        await trio.sleep(0.099)
        call.leg.takes = False
        start = trio.current_time()
        await trio.sleep(STUCK_TICKS * FRAME_S - 0.03)
        assert call.over_at is None
        await trio.sleep(0.03)
        assert isinstance(call.error, MediaLost)
        assert "taken no audio for 5 s" in str(call.error)
        assert call.over_at == pytest.approx(start + STUCK_TICKS * FRAME_S, abs=FRAME_S)
        assert other.over_at is None
        assert len(other.sent_at) == STUCK_TICKS + 5


async def test_one_frame_now_and_then_is_not_stuck(autojump_clock: Clock) -> None:
    async with carried() as (_, (call,), _):
        await trio.sleep(0.005)
        for _ in range(4):
            call.leg.takes = False
            await trio.sleep((STUCK_TICKS - 5) * FRAME_S)
            call.leg.takes = True
            await trio.sleep(FRAME_S)
        assert call.over_at is None


# --- sleeping ------------------------------------------------------------------------------------------------------


async def test_without_a_call_the_clock_sleeps(autojump_clock: Clock) -> None:
    async with carried() as (clock, (call,), nursery):
        await trio.sleep(0.1)
        call.scope.cancel()
        await trio.sleep(0.1)
        ticks = clock.metronome.ticks
        await trio.sleep(3120)
        assert clock.metronome.ticks == ticks
        for _ in range(3):
            start = trio.current_time()
            again = Call()
            nursery.start_soon(again.carry, clock)
            await trio.sleep(0.5 - 0.001)
            assert again.sent_at == pytest.approx([start + tick * FRAME_S for tick in range(25)], abs=1e-6)
            again.scope.cancel()
            await trio.sleep(60)
        assert (clock.metronome.lost, clock.metronome.late) == (0, 0)


async def test_a_call_that_comes_as_the_last_one_goes_is_carried(autojump_clock: Clock) -> None:
    async with carried(0) as (clock, _, nursery):
        last: Call | None = None
        for step in range(40):  # at all points of a tick
            call = Call()
            nursery.start_soon(call.carry, clock)
            if last is not None:
                last.scope.cancel()
            await trio.sleep(0.1 + step / 4000)
            assert len(call.sent_at) >= 5
            last = call


# --- the call's context --------------------------------------------------------------------------------------------


async def test_callbacks_run_in_the_context_of_their_call(autojump_clock: Clock) -> None:
    call_id: ContextVar[str] = ContextVar("call_id", default="nobody's")
    seen: dict[str, set[str]] = {}
    started: dict[str, str] = {}
    clock = MediaClock()
    async with trio.open_nursery() as nursery:

        async def task(name: str) -> None:
            await trio.lowlevel.checkpoint()
            started[name] = call_id.get()

        async def hold(name: str) -> None:
            call_id.set(name)
            call = Call()
            call.leg.events += [CallerDigit("1"), CallerDigit("2")]
            seen[name] = set()

            def note() -> None:
                seen[name].add(call_id.get())

            def hear() -> None:
                note()
                nursery.start_soon(task, name)

            call.on_frame, call.on_hear = note, hear
            await call.carry(clock)

        nursery.start_soon(clock.run)
        for name in "abcdefghi":
            nursery.start_soon(hold, name)
        await trio.sleep(0.1)
        nursery.cancel_scope.cancel()
    assert seen == {name: {name} for name in "abcdefghi"}
    assert started == {name: name for name in "abcdefghi"}
    assert call_id.get() == "nobody's"


# --- with the real leg ---------------------------------------------------------------------------------------------


async def test_with_legs_on_memory_streams(autojump_clock: Clock) -> None:
    """Nine far ends: one stops reading for a while, one leaves, one talks nonsense; nobody else notices."""
    clock = MediaClock()
    got: list[list[Frame]] = [[] for _ in range(9)]
    calls = [Call() for _ in range(9)]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(clock.run)

        async def far_end(index: int) -> None:
            far, near = memory_stream_pair(2000)
            await far.send_all(encode(Kind.UUID, uuid4().bytes))
            leg = await identify(near)
            call, decoder = calls[index], FrameDecoder(identified=True)

            async def hold() -> None:
                try:
                    await clock.carry(leg, call.hear, call.next_frame)
                except MediaProtocolError as error:
                    call.error = error
                call.over_at = trio.current_time()

            nursery.start_soon(hold)
            for tick in range(50):
                await trio.sleep(FRAME_S)
                if index == 0 and 10 <= tick < 40:
                    continue
                if index == 1 and tick == 20:
                    await far.send_eof()
                    return
                await far.send_all(encode(Kind.DTMF, b"1"))
                if index == 2 and tick == 20:
                    await far.send_all(b"GET / HTTP/1.1\r\n")
                    return
                decoder.receive_data(await far.receive_some(65536))
                while (frame := decoder.next_frame()) is not None:
                    got[index].append(frame)

        for index in range(9):
            nursery.start_soon(far_end, index)
        await trio.sleep(1.005)
        nursery.cancel_scope.cancel()
    for index, call in enumerate(calls):
        numbers = [int.from_bytes(frame.payload[:4], "big") for frame in got[index]]
        assert numbers == list(range(1, len(numbers) + 1))
        if index > 2:
            assert len(numbers) in (50, 51)
            assert len(call.heard) in (49, 50)
            assert call.over_at is None
    assert len(calls[0].heard) in (19, 20)
    assert len(got[0]) < 35  # what could not go stood still: it was not made up for in a burst
    assert [type(event) for _, event in calls[1].heard] == [CallerDigit] * 20 + [CallerLeft]
    assert isinstance(calls[2].error, MediaProtocolError)
    assert len(calls[2].heard) == 21


def descriptors() -> set[Path]:
    """The open files of this process."""
    return set(Path("/proc/self/fd").iterdir())


async def test_a_clock_that_was_stopped_keeps_no_descriptor(autojump_clock: Clock) -> None:
    """Not even until the garbage collector comes by, nor for a call that is still on it, or begins now."""
    before = descriptors()
    clock, legs = MediaClock(), [WatchedLeg(), WatchedLeg()]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(clock.run)
        nursery.start_soon(clock.carry, legs[0], print, lambda _deadline: b"")
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    with trio.move_on_after(1):
        await clock.carry(legs[1], print, lambda _deadline: b"")
    for leg in legs:
        leg.free()
    assert descriptors() <= before
