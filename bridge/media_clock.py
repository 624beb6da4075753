"""The clock of all calls of a process: every 20 ms each call gets a frame, and every 10 ms it is read.

One task drives every leg without ever waiting for one: reading and sending are tried, and what does not go now goes at
the next turn. A sleeping writer task and a waiting reader task for each call cost six times as much (65 us a frame pair
against 11: `dependencies.md`), and their wake-ups come late when there are many. The price is that a caller's frame may
wait up to 10 ms for its turn; phases spread the calls over the 20 ms, so that nobody waits for all the others.

Nothing of one call can harm another: what a leg or a call raises is kept, taken off the clock, and raised in that
call's own task by `carry`.
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable

import trio

from bridge.errors import MediaLost
from bridge.leg import CallerLeft, CallerLeg, LegEvent
from bridge.playout import Metronome

PHASES = 4
SLOT_S = 0.020 / PHASES
# A frame that the far end's socket refuses is offered again each tick. Asterisk always reads; one that does not for
# this long is gone or stuck, and what it would still play is too old to be true.
STUCK_TICKS = 250

Hear = Callable[[LegEvent], None]
NextFrame = Callable[[float], bytes]


class _Carried:
    """One call on the clock."""

    def __init__(self, leg: CallerLeg, hear: Hear, next_frame: NextFrame) -> None:
        self._leg, self._hear, self._next_frame = leg, hear, next_frame
        self._refused: bytes | None = None
        self._refusals = 0
        # Log lines of a call carry its id, also those written on the clock's task.
        self.context = contextvars.copy_context()
        self.over = trio.Event()
        self.error: Exception | None = None

    def read(self) -> None:
        """Tell everything that the caller has done since the last turn."""
        for event in self._leg.receive_nowait():
            self._hear(event)
            if isinstance(event, CallerLeft):
                self.over.set()
                return

    def send(self, deadline: float) -> None:
        """Send the frame that is due, or the one that was refused; then the playout stands still, nothing is lost."""
        frame = self._next_frame(deadline) if self._refused is None else self._refused
        if self._leg.send_audio_nowait(frame):
            self._refused, self._refusals = None, 0
            return
        self._refused = frame
        self._refusals += 1
        if self._refusals >= STUCK_TICKS:
            raise MediaLost(f"the far end has taken no audio for {STUCK_TICKS * 0.02:g} s")


class MediaClock:
    """Drives the media of every call. `run` once a process; `carry` for each call."""

    def __init__(self) -> None:
        self._phases: list[dict[_Carried, None]] = [{} for _ in range(PHASES)]
        self._busy = trio.Event()
        self.metronome = Metronome(SLOT_S, max_catch_up=3 * PHASES)

    async def run(self) -> None:
        """Tick for ever, as long as there are calls; sleep when there are none. Ends by cancellation."""
        while True:
            await self._busy.wait()
            self.metronome.start(trio.current_time())
            slot = 0
            while any(self._phases):
                deadline = self.metronome.next_deadline(trio.current_time())
                await trio.sleep_until(deadline)
                self._turn(slot % PHASES, deadline)
                slot += 1
            self._busy = trio.Event()

    async def carry(self, leg: CallerLeg, hear: Hear, next_frame: NextFrame) -> None:
        """Move the media of one call until the far end has left.

        `hear(event)` is told everything that the caller does, `CallerLeft` last; `next_frame(deadline)` gives the 20 ms
        that are due, each time. Both are synchronous, and called on the clock's task. Raises what the leg raises
        (`MediaLost`, `MediaProtocolError`) and what they raise. Cancelled, neither is called again.
        """
        carried = _Carried(leg, hear, next_frame)
        phase = min(self._phases, key=len)
        phase[carried] = None
        self._busy.set()
        try:
            await carried.over.wait()
        finally:
            phase.pop(carried, None)
        if carried.error is not None:
            raise carried.error

    def _turn(self, slot: int, deadline: float) -> None:
        # Half way between two of its sends a call is read once more, so that its voice waits 10 ms at the most.
        for carried in list(self._phases[(slot + PHASES // 2) % PHASES]):
            self._try(carried, carried.read)
        for carried in list(self._phases[slot]):
            self._try(carried, carried.read)
            if not carried.over.is_set():
                self._try(carried, carried.send, deadline)

    def _try(self, carried: _Carried, do: Callable[..., None], *arguments: float) -> None:
        if carried.over.is_set():
            return
        try:
            carried.context.run(do, *arguments)
        except Exception as error:
            # Whose fault it was is found out where it is raised again: in `carry`, on the call's own task.
            carried.error = error
            carried.over.set()
