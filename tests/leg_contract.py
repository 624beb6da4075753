"""What every `CallerLeg` must do, as one suite. A transport brings a `MakePair` and runs each of `CHECKS`:

@pytest.mark.parametrize("check", leg_contract.CHECKS, ids=lambda check: check.__name__)
async def test_contract(check, autojump_clock):
    await check(make_my_pair)
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

import pytest
import trio

from bridge.ending import FAREWELLS, EndReason
from bridge.errors import MediaLost
from bridge.leg import CallerAudio, CallerDigit, CallerLeft, CallerLeg, LegEvent

FAREWELL = FAREWELLS[EndReason.AGENT_HUNG_UP]


class FarEnd(Protocol):
    """The other side of a leg under test, which does one thing at a time: it reads only in `hear`."""

    async def say(self, pcm: bytes) -> None:
        """Send audio at the leg's rate."""
        ...

    async def press(self, digit: str) -> None: ...

    async def hear(self) -> bytes | None:
        """The audio of the next frame, or None when the leg has closed in order."""
        ...

    async def leave(self) -> None:
        """Close in order."""
        ...

    async def break_off(self) -> None:
        """From now on both directions fail as after a reset."""
        ...


@dataclass
class Pair:
    """A leg and its far end. What the far end does not read may be buffered: at most `MOST_FRAMES` of it."""

    leg: CallerLeg
    far: FarEnd

    def speech(self, value: int = 1) -> bytes:
        return bytes([value % 256]) * self.leg.format.frame_bytes

    async def receive(self, count: int) -> list[LegEvent]:
        """The next events, exactly so many: as the clock does it, trying again and again."""
        events: list[LegEvent] = []
        with trio.fail_after(5):
            while len(events) < count:
                events += self.leg.receive_nowait()
                await trio.sleep(0.001)
        assert len(events) == count
        return events

    def fill(self) -> int:
        """Send `speech(0)`, `speech(1)`, … until the leg refuses; returns the value of the frame that it refused."""
        for value in range(MOST_FRAMES):
            if not self.leg.send_audio_nowait(self.speech(value)):
                return value
        raise AssertionError("a far end that does not read took everything")


MOST_FRAMES = 100_000
MakePair = Callable[[], Awaitable[Pair]]


async def audio_arrives_in_order_and_whole(make: MakePair) -> None:
    pair = await make()
    said = [pair.speech(value) for value in range(1, 6)]
    for pcm in said:
        await pair.far.say(pcm)
    heard = bytearray()
    with trio.fail_after(5):
        while len(heard) < sum(map(len, said)):
            for event in pair.leg.receive_nowait():
                assert isinstance(event, CallerAudio)
                heard += event.pcm
            await trio.sleep(0.001)
    assert bytes(heard) == b"".join(said)


async def nothing_new_is_no_event(make: MakePair) -> None:
    pair = await make()
    for value in range(1, 4):
        assert pair.leg.receive_nowait() == []
        await pair.far.say(pair.speech(value))
        assert await pair.receive(1) == [CallerAudio(pair.speech(value))]
    assert pair.leg.receive_nowait() == []


async def digits_come_between_audio(make: MakePair) -> None:
    pair = await make()
    await pair.far.say(pair.speech())
    for digit in "0#*D":
        await pair.far.press(digit)
    audio, *digits = await pair.receive(5)
    assert isinstance(audio, CallerAudio)
    assert digits == [CallerDigit(digit) for digit in "0#*D"]


async def leaving_is_an_event_after_all_that_was_said(make: MakePair) -> None:
    pair = await make()
    await pair.far.say(pair.speech())
    await pair.far.leave()
    audio, left = await pair.receive(2)
    assert isinstance(audio, CallerAudio)
    assert isinstance(left, CallerLeft)
    assert left.detail
    for _ in range(3):  # and it comes once
        assert pair.leg.receive_nowait() == []
    await pair.leg.close(FAREWELL)


async def a_broken_connection_is_media_lost(make: MakePair) -> None:
    pair = await make()
    await pair.far.break_off()
    with pytest.raises(MediaLost):
        await pair.receive(1)
    with pytest.raises(MediaLost):
        pair.leg.send_audio_nowait(pair.speech())
    await pair.leg.close(FAREWELL)


async def what_is_sent_is_heard(make: MakePair) -> None:
    pair = await make()
    for value in range(3):
        assert pair.leg.send_audio_nowait(pair.speech(value))
        assert await pair.far.hear() == pair.speech(value)


async def only_whole_frames_are_sent(make: MakePair) -> None:
    pair = await make()
    for wrong in (b"", pair.speech()[:-2], pair.speech() + b"\0\0"):
        with pytest.raises(ValueError, match="frame"):
            pair.leg.send_audio_nowait(wrong)
    assert pair.leg.send_audio_nowait(pair.speech())
    assert await pair.far.hear() == pair.speech()


async def what_is_refused_was_not_sent_and_nothing_is_lost(make: MakePair) -> None:
    pair = await make()
    refused = pair.fill()
    for _ in range(3):
        assert not pair.leg.send_audio_nowait(pair.speech(refused))
    assert pair.leg.receive_nowait() == []
    # Another frame may be offered in its place: the refused one is nowhere.
    taken = refused + 7
    with trio.fail_after(5):
        for value in range(refused):
            assert await pair.far.hear() == pair.speech(value)
            if taken == refused + 7 and pair.leg.send_audio_nowait(pair.speech(taken)):
                taken += 1
        while taken < refused + 12:
            if pair.leg.send_audio_nowait(pair.speech(taken)):
                taken += 1
            await trio.sleep(0.001)
        for value in range(refused + 7, taken):
            assert await pair.far.hear() == pair.speech(value)


async def a_far_end_that_does_not_read_is_heard(make: MakePair) -> None:
    pair = await make()
    pair.fill()
    await pair.far.say(pair.speech(9))
    assert await pair.receive(1) == [CallerAudio(pair.speech(9))]


async def clearing_harms_nothing(make: MakePair) -> None:
    pair = await make()
    pair.leg.clear_audio_nowait()
    assert pair.leg.send_audio_nowait(pair.speech(3))
    assert await pair.far.hear() == pair.speech(3)


async def both_directions_at_once(make: MakePair) -> None:
    pair = await make()
    rounds = 50

    async def far_end() -> None:
        for value in range(rounds):
            await pair.far.say(pair.speech(value))
            assert await pair.far.hear() == pair.speech(value)

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(far_end)
            heard: list[LegEvent] = []
            sent = 0
            while len(heard) < rounds or sent < rounds:
                heard += pair.leg.receive_nowait()
                if sent < rounds:
                    sent += pair.leg.send_audio_nowait(pair.speech(sent))
                await trio.sleep(0.001)
    assert heard == [CallerAudio(pair.speech(value)) for value in range(rounds)]


async def closing_is_seen_and_idempotent(make: MakePair) -> None:
    pair = await make()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pair.leg.close, FAREWELL)
        assert await pair.far.hear() is None
        await pair.far.leave()
    await pair.leg.close(FAREWELL)
    with pytest.raises(MediaLost):
        pair.leg.send_audio_nowait(pair.speech())
    with pytest.raises(MediaLost):
        pair.leg.receive_nowait()


async def closing_while_the_clock_reads(make: MakePair) -> None:
    pair = await make()
    events: list[LegEvent] = []

    async def read() -> None:
        with suppress(MediaLost):
            while True:
                events.extend(pair.leg.receive_nowait())
                await trio.sleep(0.001)

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await trio.sleep(0.01)
            await pair.leg.close(FAREWELL)
    assert all(isinstance(event, CallerLeft) for event in events)
    assert len(events) <= 1


async def closing_does_not_wait_for_ever(make: MakePair) -> None:
    pair = await make()
    start = trio.current_time()
    await pair.leg.close(FAREWELL)
    assert trio.current_time() - start <= 3


async def closing_a_far_end_that_does_not_read_is_bounded_too(make: MakePair) -> None:
    pair = await make()
    pair.fill()
    start = trio.current_time()
    await pair.leg.close(FAREWELL)
    assert trio.current_time() - start <= 3


async def a_cancelled_close_still_closes(make: MakePair) -> None:
    pair = await make()
    with trio.CancelScope() as scope:
        scope.cancel()
        await pair.leg.close(FAREWELL)
    with pytest.raises(MediaLost):
        pair.leg.receive_nowait()
    with pytest.raises(MediaLost):
        pair.leg.send_audio_nowait(pair.speech())


CHECKS: list[Callable[[MakePair], Awaitable[None]]] = [
    audio_arrives_in_order_and_whole,
    nothing_new_is_no_event,
    digits_come_between_audio,
    leaving_is_an_event_after_all_that_was_said,
    a_broken_connection_is_media_lost,
    what_is_sent_is_heard,
    only_whole_frames_are_sent,
    what_is_refused_was_not_sent_and_nothing_is_lost,
    a_far_end_that_does_not_read_is_heard,
    clearing_harms_nothing,
    both_directions_at_once,
    closing_is_seen_and_idempotent,
    closing_while_the_clock_reads,
    closing_does_not_wait_for_ever,
    closing_a_far_end_that_does_not_read_is_bounded_too,
    a_cancelled_close_still_closes,
]
