"""The way to the model: at once where that is possible, in order always, and bounded."""

from __future__ import annotations

import math

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from bridge.errors import ModelLost
from bridge.uplink import MAX_WAITING, MAX_WAITING_AUDIO, Uplink


class Connection:
    """A model's connection with room for so many more events, of which the last goes in two parts if `halves`."""

    def __init__(self, room: float = math.inf, *, halves: bool = False) -> None:
        self.room, self.halves = room, halves
        self.arrived: list[bytes] = []
        self.unfinished = False
        self.lost = False
        self.sends = 0
        self.inside = 0
        self.changed = trio.Event()

    def make_room(self, room: float = math.inf) -> None:
        self.room = room
        self.changed.set()
        self.changed = trio.Event()

    def send_audio_nowait(self, payload: bytes) -> bool:
        assert not self.unfinished, "the last event was not finished"
        assert not self.inside, "another task is sending"
        if self.room < 1 or self.lost:
            return False
        self.room -= 1
        self.arrived.append(payload)
        self.unfinished = self.halves
        return True

    async def finish(self) -> None:
        await self._room()
        self.unfinished = False

    async def send(self, payload: bytes) -> None:
        assert payload
        assert not self.unfinished, "the last event was not finished"
        self.sends += 1
        await self._room()
        self.arrived.append(payload)

    async def _room(self) -> None:
        assert not self.inside, "two tasks are sending"
        self.inside += 1
        try:
            await trio.lowlevel.checkpoint()
            while self.room < 1:
                await self.changed.wait()
            if self.lost:
                raise ModelLost("gone")
            self.room -= 1
        finally:
            self.inside -= 1


def uplink() -> tuple[Uplink, list[float]]:
    sent: list[float] = []
    return Uplink(sent.append), sent


async def test_audio_goes_at_once_and_control_events_do_not_wait_for_it(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    line, sent = uplink()
    connection = Connection()
    nursery.start_soon(line.transmit, connection)
    await wait_all_tasks_blocked()
    assert line.offer_audio(b"a1", 1.5)
    assert connection.arrived == [b"a1"]
    assert sent == [1.5]
    assert line.put(b"c1")
    assert line.offer_audio(b"a2", 2.5)
    assert connection.arrived == [b"a1"], "what was put before goes first"
    await wait_all_tasks_blocked()
    assert connection.arrived == [b"a1", b"c1", b"a2"]
    assert sent == [1.5, 2.5]
    assert line.offer_audio(b"a3", 3.5)
    assert connection.arrived[-1] == b"a3"
    nursery.cancel_scope.cancel()


async def test_everything_before_the_connection_stands_is_kept_in_order(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    line, _ = uplink()
    assert line.put(b"c1")
    assert line.offer_audio(b"a1", 1.0)
    assert line.put(b"c2")
    connection = Connection()
    nursery.start_soon(line.transmit, connection)
    await wait_all_tasks_blocked()
    assert connection.arrived == [b"c1", b"a1", b"c2"]
    nursery.cancel_scope.cancel()


async def test_nothing_overtakes_an_event_that_is_being_sent(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    line, sent = uplink()
    connection = Connection(room=0)
    nursery.start_soon(line.transmit, connection)
    await wait_all_tasks_blocked()
    assert line.put(b"c1")
    await wait_all_tasks_blocked()
    connection.room = 5  # though `send` does not know it yet
    assert line.offer_audio(b"a1", 1.0)
    assert connection.arrived == []
    connection.make_room()
    await wait_all_tasks_blocked()
    assert connection.arrived == [b"c1", b"a1"]
    assert sent == [1.0]
    nursery.cancel_scope.cancel()


async def test_an_event_taken_in_part_is_finished_before_anything_else(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    line, sent = uplink()
    connection = Connection(room=1, halves=True)
    nursery.start_soon(line.transmit, connection)
    await wait_all_tasks_blocked()
    assert line.offer_audio(b"a1", 1.0)
    assert sent == [], "not before all of it has gone"
    assert line.put(b"c1")
    await trio.sleep(1)
    assert connection.unfinished
    assert line.offer_audio(b"a2", 2.0)
    connection.make_room()
    await wait_all_tasks_blocked()
    assert connection.arrived == [b"a1", b"c1", b"a2"]
    assert sent == [1.0, 2.0]
    nursery.cancel_scope.cancel()


async def test_how_long_the_network_has_taken_nothing(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    line, _ = uplink()
    connection = Connection(room=1)
    nursery.start_soon(line.transmit, connection)
    await wait_all_tasks_blocked()
    assert line.offer_audio(b"a1", 0.0)
    assert line.stuck_since == math.inf
    await trio.sleep(1)
    began = trio.current_time()
    assert line.offer_audio(b"a2", 0.0)
    await trio.sleep(3)
    assert line.offer_audio(b"a3", 0.0)
    assert line.stuck_since == began
    connection.make_room(1)
    await trio.sleep(2)
    assert line.stuck_since == began + 3, "the next one waits since the one before has gone"
    connection.make_room()
    await wait_all_tasks_blocked()
    assert line.stuck_since == math.inf
    nursery.cancel_scope.cancel()


async def test_old_audio_yields_and_control_events_do_not(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    line, _ = uplink()
    connection = Connection(room=0)
    nursery.start_soon(line.transmit, connection)
    await wait_all_tasks_blocked()
    audio = [b"a%d" % number for number in range(MAX_WAITING_AUDIO + 3)]
    assert [line.offer_audio(event, 0.0) for event in audio] == [True] * MAX_WAITING_AUDIO + [False] * 3
    control = [b"c%d" % number for number in range(MAX_WAITING - MAX_WAITING_AUDIO + 2)]
    assert [line.put(event) for event in control] == [True] * (MAX_WAITING - MAX_WAITING_AUDIO) + [False] * 2
    connection.make_room()
    await wait_all_tasks_blocked()
    assert connection.arrived == audio[:MAX_WAITING_AUDIO] + control[:-2]
    assert line.put(b"again")
    nursery.cancel_scope.cancel()


async def test_audio_that_had_to_wait_takes_the_short_way_if_it_is_free_by_then(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    line, sent = uplink()
    connection = Connection(halves=True)
    nursery.start_soon(line.transmit, connection)
    await wait_all_tasks_blocked()
    assert line.put(b"c1")
    assert line.offer_audio(b"a1", 1.0)
    assert line.offer_audio(b"a2", 2.0)
    await wait_all_tasks_blocked()
    assert connection.arrived == [b"c1", b"a1", b"a2"]
    assert connection.sends == 1
    assert not connection.unfinished
    assert sent == [1.0, 2.0]
    nursery.cancel_scope.cancel()


async def test_a_lost_connection_ends_transmit_and_the_rest_waits_for_the_next(autojump_clock: MockClock) -> None:
    line, _ = uplink()
    first = Connection(room=0)
    with pytest.raises(ExceptionGroup) as caught:  # noqa: PT012
        async with trio.open_nursery() as nursery:
            nursery.start_soon(line.transmit, first)
            await wait_all_tasks_blocked()
            line.put(b"lost")
            line.put(b"kept")
            await wait_all_tasks_blocked()
            first.lost = True
            first.make_room()
    assert isinstance(caught.value.exceptions[0], ModelLost)
    assert line.stuck_since == math.inf
    assert line.offer_audio(b"audio", 0.0), "between two connections it waits as well"
    second = Connection()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(line.transmit, second)
        await wait_all_tasks_blocked()
        assert second.arrived == [b"kept", b"audio"]
        assert line.offer_audio(b"more", 0.0)
        assert second.arrived[-1] == b"more"
        nursery.cancel_scope.cancel()
    assert line.offer_audio(b"old", 0.0)
    assert second.arrived[-1] == b"more", "a connection that is no longer transmitted on is not written to"
    line.clear()
    third = Connection()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(line.transmit, third)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert third.arrived == []
