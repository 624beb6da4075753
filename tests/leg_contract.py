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
import trio.testing

from bridge.ending import FAREWELLS, EndReason
from bridge.errors import MediaLost
from bridge.leg import CallerAudio, CallerDigit, CallerLeft, CallerLeg

FAREWELL = FAREWELLS[EndReason.AGENT_HUNG_UP]


class FarEnd(Protocol):
    """The other side of a leg under test, which does one thing at a time."""

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

    def break_off(self) -> None:
        """From now on both directions fail as after a reset."""
        ...

    def stop_reading(self) -> None:
        """Writes of the leg wait for ever from now on."""
        ...


@dataclass
class Pair:
    leg: CallerLeg
    far: FarEnd

    def speech(self, value: int = 1) -> bytes:
        return bytes([value]) * self.leg.format.frame_bytes


MakePair = Callable[[], Awaitable[Pair]]


async def audio_arrives_in_order_and_whole(make: MakePair) -> None:
    pair = await make()
    said = [pair.speech(value) for value in range(1, 6)]
    for pcm in said:
        await pair.far.say(pcm)
    heard = bytearray()
    while len(heard) < sum(map(len, said)):
        event = await pair.leg.receive()
        assert isinstance(event, CallerAudio)
        heard += event.pcm
    assert bytes(heard) == b"".join(said)


async def digits_come_between_audio(make: MakePair) -> None:
    pair = await make()
    await pair.far.say(pair.speech())
    for digit in "0#*D":
        await pair.far.press(digit)
    assert isinstance(await pair.leg.receive(), CallerAudio)
    assert [await pair.leg.receive() for _ in range(4)] == [CallerDigit(digit) for digit in "0#*D"]


async def leaving_is_an_event_after_all_that_was_said(make: MakePair) -> None:
    pair = await make()
    await pair.far.say(pair.speech())
    await pair.far.leave()
    assert isinstance(await pair.leg.receive(), CallerAudio)
    left = await pair.leg.receive()
    assert isinstance(left, CallerLeft)
    assert left.detail
    await pair.leg.close(FAREWELL)


async def a_broken_connection_is_media_lost(make: MakePair) -> None:
    pair = await make()
    pair.far.break_off()
    with pytest.raises(MediaLost):
        await pair.leg.receive()
    with pytest.raises(MediaLost):
        await pair.leg.send_audio(pair.speech())
    await pair.leg.close(FAREWELL)


async def what_is_sent_is_heard(make: MakePair) -> None:
    pair = await make()
    for value in range(3):
        await pair.leg.send_audio(pair.speech(value))
        assert await pair.far.hear() == pair.speech(value)


async def only_whole_frames_are_sent(make: MakePair) -> None:
    pair = await make()
    for wrong in (b"", pair.speech()[:-2], pair.speech() + b"\0\0"):
        with pytest.raises(ValueError, match="frame"):
            await pair.leg.send_audio(wrong)
    await pair.leg.send_audio(pair.speech())
    assert await pair.far.hear() == pair.speech()


async def a_cancelled_receive_loses_nothing(make: MakePair) -> None:
    pair = await make()
    for value in range(1, 4):
        with trio.move_on_after(0.1) as scope:
            await pair.leg.receive()
        assert scope.cancelled_caught
        await pair.far.say(pair.speech(value))
        with trio.CancelScope() as scope:
            scope.cancel()
            await pair.leg.receive()
        assert scope.cancelled_caught
        assert await pair.leg.receive() == CallerAudio(pair.speech(value))


async def a_send_cancelled_beforehand_did_not_happen(make: MakePair) -> None:
    pair = await make()
    with trio.CancelScope() as scope:
        scope.cancel()
        await pair.leg.send_audio(pair.speech(1))
    assert scope.cancelled_caught
    await pair.leg.send_audio(pair.speech(2))
    assert await pair.far.hear() == pair.speech(2)


async def sending_and_receiving_are_checkpoints(make: MakePair) -> None:
    pair = await make()
    with trio.testing.assert_checkpoints():
        await pair.leg.send_audio(pair.speech())
    with trio.testing.assert_checkpoints():
        await pair.leg.clear_audio()
    await pair.far.say(pair.speech())
    with trio.testing.assert_checkpoints():
        await pair.leg.receive()


async def both_directions_at_once(make: MakePair) -> None:
    pair = await make()
    rounds = 50

    async def far_end() -> None:
        for value in range(rounds):
            await pair.far.say(pair.speech(value))
            assert await pair.far.hear() == pair.speech(value)

    async def sender() -> None:
        for value in range(rounds):
            await pair.leg.send_audio(pair.speech(value))

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(far_end)
            nursery.start_soon(sender)
            for value in range(rounds):
                assert await pair.leg.receive() == CallerAudio(pair.speech(value))


async def closing_is_seen_and_idempotent(make: MakePair) -> None:
    pair = await make()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pair.leg.close, FAREWELL)
        assert await pair.far.hear() is None
        await pair.far.leave()
    await pair.leg.close(FAREWELL)
    with pytest.raises(MediaLost):
        await pair.leg.send_audio(pair.speech())
    with pytest.raises(MediaLost):
        await pair.leg.receive()


async def closing_while_another_task_receives(make: MakePair) -> None:
    pair = await make()

    async def receive() -> None:
        with suppress(MediaLost):
            assert isinstance(await pair.leg.receive(), CallerLeft)

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            await trio.testing.wait_all_tasks_blocked()
            await pair.leg.close(FAREWELL)


async def closing_does_not_wait_for_ever(make: MakePair) -> None:
    pair = await make()
    start = trio.current_time()
    await pair.leg.close(FAREWELL)
    assert trio.current_time() - start <= 3


async def closing_a_far_end_that_does_not_read_is_bounded_too(make: MakePair) -> None:
    pair = await make()
    pair.far.stop_reading()
    with trio.move_on_after(0.5) as scope:
        await pair.leg.send_audio(pair.speech())
    assert scope.cancelled_caught
    start = trio.current_time()
    await pair.leg.close(FAREWELL)
    assert trio.current_time() - start <= 3


async def a_cancelled_close_still_closes(make: MakePair) -> None:
    pair = await make()
    with trio.CancelScope() as scope:
        scope.cancel()
        await pair.leg.close(FAREWELL)
    with pytest.raises(MediaLost):
        await pair.leg.receive()


CHECKS: list[Callable[[MakePair], Awaitable[None]]] = [
    audio_arrives_in_order_and_whole,
    digits_come_between_audio,
    leaving_is_an_event_after_all_that_was_said,
    a_broken_connection_is_media_lost,
    what_is_sent_is_heard,
    only_whole_frames_are_sent,
    a_cancelled_receive_loses_nothing,
    a_send_cancelled_beforehand_did_not_happen,
    sending_and_receiving_are_checkpoints,
    both_directions_at_once,
    closing_is_seen_and_idempotent,
    closing_while_another_task_receives,
    closing_does_not_wait_for_ever,
    closing_a_far_end_that_does_not_read_is_bounded_too,
    a_cancelled_close_still_closes,
]
