"""The clock of all calls of a process: every 20 ms each call gets a frame, and what its caller says is read at once.

One task drives every leg without ever waiting for one: reading and sending are tried, and what does not go now goes at
the next turn. A sleeping writer task and a waiting reader task for each call cost six times as much (65 us a frame pair
against 11: `dependencies.md`), and their wake-ups come late when there are many. Phases spread the calls over the
20 ms, so that nobody waits for all the others.

Each turn, every 5 ms, asks the kernel once which sockets hold something and reads only those: to try them all would cost
each call an empty read (4 us with what is around it), or a wait of 10 ms. What they say is converted together, in one
step for all calls (`audio.process_together`), before it is told. Whatever the kernel says, no call goes unread for more
than 20 ms; and a leg without a descriptor is read each 10 ms.

Nothing of one call can harm another: what a leg or a call raises is kept, taken off the clock, and raised in that
call's own task by `carry`.
"""

from __future__ import annotations

import contextlib
import contextvars
import itertools
import math
import select
from collections.abc import Callable, Sequence

import trio

from bridge.audio import Identity, PcmConverter, process_together
from bridge.errors import MediaLost
from bridge.leg import CallerAudio, CallerLeft, CallerLeg, LegEvent
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

    __slots__ = (
        "context",
        "converter",
        "descriptor",
        "error",
        "hear",
        "leg",
        "next_frame",
        "off",
        "over",
        "read_lately",
        "refusals",
        "refused",
    )

    def __init__(self, leg: CallerLeg, hear: Hear, next_frame: NextFrame, converter: PcmConverter) -> None:
        self.leg, self.hear, self.next_frame, self.converter = leg, hear, next_frame, converter
        self.descriptor = leg.descriptor
        self.refused: bytes | None = None
        self.refusals = 0
        self.read_lately = False  # since its last frame
        # Log lines of a call carry its id, also those written on the clock's task.
        self.context = contextvars.copy_context()
        self.off = False
        self.over = trio.Event()
        self.error: Exception | None = None

    def take_off(self, error: Exception | None = None) -> None:
        """No more callbacks. Whose fault an error was is found out where it is raised again: in `carry`."""
        self.off, self.error = True, error
        self.over.set()

    def tell(self, events: Sequence[LegEvent]) -> None:
        """Tell what the caller has done, in order; its audio converted."""
        for event in events:
            self.hear(CallerAudio(self.converter.process(event.pcm)) if isinstance(event, CallerAudio) else event)
            if isinstance(event, CallerLeft):
                self.take_off()
            if self.off:
                return

    def send(self, deadline: float) -> None:
        """Send the frame that is due, or the one that was refused; then the playout stands still, nothing is lost."""
        frame = self.next_frame(deadline) if self.refused is None else self.refused
        if self.leg.send_audio_nowait(frame):
            self.refused, self.refusals = None, 0
            return
        self.refused = frame
        self.refusals += 1
        if self.refusals >= STUCK_TICKS:
            raise MediaLost(f"the far end has taken no audio for {STUCK_TICKS * 0.02:g} s")


def _merged(events: Sequence[LegEvent]) -> list[LegEvent]:
    """Neighbouring audio in one piece: when the process is behind, catching up must cost less than being in time."""
    merged: list[LegEvent] = []
    for audible, some in itertools.groupby(events, lambda event: isinstance(event, CallerAudio)):
        if audible:
            merged.append(CallerAudio(b"".join(event.pcm for event in some if isinstance(event, CallerAudio))))
        else:
            merged.extend(some)
    return merged


class _Readable:
    """Which calls have something to read, asked of the kernel in one go."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._calls: dict[int, _Carried] = {}

    def add(self, call: _Carried) -> None:
        if call.descriptor is not None and not self._epoll.closed:
            self._calls[call.descriptor] = call
            self._epoll.register(call.descriptor, select.EPOLLIN)

    def remove(self, call: _Carried) -> None:
        """A socket that was closed meanwhile has left by itself, and its number may be that of another call."""
        if call.descriptor is not None and self._calls.get(call.descriptor) is call:
            del self._calls[call.descriptor]
            if not self._epoll.closed:
                with contextlib.suppress(OSError):
                    self._epoll.unregister(call.descriptor)

    def close(self) -> None:
        """Give the kernel's object back now, not when the garbage collector comes by. Further calls are not watched."""
        self._epoll.close()

    def now(self) -> list[_Carried]:
        """Without waiting; nothing when there are no such calls."""
        calls = self._calls
        return [calls[descriptor] for descriptor, _ in self._epoll.poll(0, len(calls))] if calls else []


class MediaClock:
    """Drives the media of every call. `run` once a process; `carry` for each call.

    `note_lateness(frames, late_s, now)` is told each turn how late the last of its frames was sent.
    """

    def __init__(self, note_lateness: Callable[[int, float, float], None] = lambda *_: None) -> None:
        self._note_lateness = note_lateness
        self._phases: list[dict[_Carried, None]] = [{} for _ in range(PHASES)]
        self._readable = _Readable()
        self._busy = trio.Event()
        self.metronome = Metronome(SLOT_S, max_catch_up=3 * PHASES)

    async def run(self) -> None:
        """Tick for ever, as long as there are calls; sleep when there are none. Ends by cancellation, and then for good."""
        try:
            while True:
                await self._busy.wait()
                self.metronome.start(trio.current_time())
                slot = 0
                while any(self._phases):
                    deadline = self._next_deadline()
                    await trio.sleep_until(deadline)
                    self._turn(slot % PHASES, deadline)
                    slot += 1
                self._busy = trio.Event()
        finally:
            self._readable.close()

    def _next_deadline(self) -> float:
        now, lost = trio.current_time(), self.metronome.lost
        deadline = self.metronome.next_deadline(now)
        if self.metronome.lost > lost:
            # Each turn that was lost is a frame for the calls of its phase.
            carried = sum(map(len, self._phases))
            self._note_lateness((self.metronome.lost - lost) * carried // PHASES, math.inf, now)
        return deadline

    async def carry(
        self, leg: CallerLeg, hear: Hear, next_frame: NextFrame, converter: PcmConverter | None = None
    ) -> None:
        """Move the media of one call until the far end has left.

        `hear(event)` is told everything that the caller does, `CallerLeft` last, its audio as `converter` makes it (None:
        as it comes); `next_frame(deadline)` gives the 20 ms that are due, each time. Both are synchronous, and called on
        the clock's task. Raises what the leg raises (`MediaLost`, `MediaProtocolError`) and what they raise. Cancelled,
        neither is called again.
        """
        call = _Carried(leg, hear, next_frame, converter or Identity())
        phase = min(self._phases, key=len)
        phase[call] = None
        self._readable.add(call)
        self._busy.set()
        try:
            await call.over.wait()
        finally:
            call.off = True
            self._readable.remove(call)
            del phase[call]
        if call.error is not None:
            raise call.error

    def _turn(self, slot: int, deadline: float) -> None:
        due = list(self._phases[slot])
        half_way = self._phases[(slot + PHASES // 2) % PHASES]
        readable = self._readable.now()
        for call in readable:
            call.read_lately = True
        unread = [call for call in due if not call.read_lately]
        self._read([*readable, *(call for call in half_way if call.descriptor is None), *unread])
        for call in due:
            call.read_lately = False
            if not call.off:
                self._try(call, call.send, deadline)
        if due:
            now = trio.current_time()
            self._note_lateness(len(due), now - deadline, now)

    def _read(self, calls: Sequence[_Carried]) -> None:
        """Read all of these, convert what their callers have said in one step, and tell it."""
        speaking: list[_Carried] = []
        work: list[tuple[PcmConverter, bytes]] = []
        for call in calls:
            if call.off:
                continue
            try:
                events = call.leg.receive_nowait()
            except Exception as error:
                call.take_off(error)
                continue
            if len(events) > 1:
                events = _merged(events)
            # Nearly always: one frame.
            if len(events) == 1 and isinstance(event := events[0], CallerAudio):
                speaking.append(call)
                work.append((call.converter, event.pcm))
            elif events:
                self._try(call, call.tell, events)
        for call, pcm in zip(speaking, process_together(work), strict=True):
            if not call.off:
                self._try(call, call.hear, CallerAudio(pcm))

    def _try(self, call: _Carried, do: Callable[..., None], argument: object) -> None:
        try:
            call.context.run(do, argument)
        except Exception as error:
            call.take_off(error)
