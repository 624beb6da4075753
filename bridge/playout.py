"""The ledger of what the agent says: what is queued, what was handed to the line, what the caller heard.

`PlayoutQueue` holds speech (minutes of it: the model generates far faster than real time) and gives out one 20 ms frame
a tick. Every sample is attributed to the item that it belongs to, so that after a barge-in the model can be told to the
millisecond what the caller heard. Nothing is ever dropped but by `flush`, and nothing is ever sped up.

`Metronome` says when the ticks are: on an absolute grid, since Asterisk passes on what it gets at once. The queue does
not care who calls `next_frame`; one call stands for 20 ms of the line, also when it returns None (silence is sent).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from bridge.audio import SAMPLE_BYTES, PcmFormat
from bridge.errors import ModelProtocolError

# Audio on its way to the caller that a flush can still take into account. Jitter buffers hold less.
MAX_LAG_MS = 1000


@dataclass(frozen=True, slots=True)
class AudioItem:
    """One stretch of speech, as the Realtime server names it."""

    response_id: str
    item_id: str
    content_index: int


@dataclass(frozen=True, slots=True)
class Heard:
    """How much of an item the caller heard: whole milliseconds, rounded down; 0 <= played_ms <= received_ms."""

    item: AudioItem
    played_ms: int
    received_ms: int


class _Entry:
    """The account of one item. Bytes are whole samples; `odd` is the half of a sample that a push ended with."""

    __slots__ = ("finished", "item", "odd", "played", "received", "settled")

    def __init__(self, item: AudioItem, finished: bool) -> None:
        self.item = item
        self.received = 0
        self.played = 0
        self.odd = b""
        self.finished = finished
        self.settled = False  # a flush has reported it


class PlayoutQueue:
    """Speech waiting to be played, and the account of what was. `format` is that of the line.

    Counters, for telemetry: `frames_played` (frames given out), `underruns` (the model fell behind in mid-item).
    """

    def __init__(self, format: PcmFormat, max_queued_ms: int) -> None:
        self.format = format
        self.underruns = 0
        self.frames_played = 0
        self._max_queued = max_queued_ms * format.bytes_per_ms
        self._frame_bytes = format.frame_bytes
        self._recent_bound = MAX_LAG_MS * format.bytes_per_ms
        self._chunks: deque[tuple[_Entry, bytes]] = deque()
        self._offset = 0  # bytes of the first chunk that have been played
        self._queued = 0
        self._played = 0
        self._ledger: dict[AudioItem, _Entry] = {}
        self._finished_responses: set[str] = set()
        self._paused = False
        self._starving = False
        self._last: _Entry | None = None  # whose audio was given out last
        # What the line got lately, newest at the right, in runs: (whose, bytes); None is silence.
        self._recent: deque[tuple[_Entry | None, int]] = deque()
        self._recent_bytes = 0

    # Filling ---------------------------------------------------------------------------------------------------------

    def push(self, item: AudioItem, pcm: bytes) -> None:
        """Queue speech of `item` behind everything else. Half a sample at the end waits for the item's next push.

        An item that a flush has reported starts a new account. Raises `ModelProtocolError`, and takes nothing, when
        more than `max_queued_ms` would be queued.
        """
        entry = self._ledger.get(item)
        odd = b"" if entry is None or entry.settled else entry.odd
        if odd or len(pcm) % SAMPLE_BYTES:
            pcm = odd + pcm
            odd = pcm[len(pcm) & ~1 :]
            pcm = pcm[: len(pcm) & ~1]
        if self._queued + len(pcm) > self._max_queued:
            raise ModelProtocolError(
                f"the model sent speech for more than {self.format.duration_ms(self._max_queued) / 1000:g} s ahead of "
                "the caller's ear; raise limits.max_queued_speech_s if that is meant"
            )
        if entry is None or entry.settled:
            self._ledger.pop(item, None)
            entry = self._ledger[item] = _Entry(item, item.response_id in self._finished_responses)
        entry.odd = odd
        if pcm:
            entry.received += len(pcm)
            self._queued += len(pcm)
            self._chunks.append((entry, pcm))

    def finish_item(self, item: AudioItem) -> None:
        """No more audio comes for `item`: its last part of a frame may be padded with silence. Idempotent."""
        entry = self._ledger.get(item)
        if entry is not None:
            entry.finished = True
            entry.odd = b""

    def finish(self, response_id: str) -> None:
        """No more audio comes for any item of this response. Idempotent."""
        self._finished_responses.add(response_id)
        for item in self._ledger:
            if item.response_id == response_id:
                self.finish_item(item)

    # Playing ---------------------------------------------------------------------------------------------------------

    def next_frame(self) -> bytes | None:
        """The next 20 ms for the line, or None: send silence. Call it once a tick, since both count as 20 ms.

        Less than a frame is held back while its item may go on, for a hole in mid-word costs more than 20 ms.
        """
        if self._paused:
            self._line_got(None, self._frame_bytes)
            return None
        if self._queued < self._frame_bytes and not (self._queued and self._chunks[-1][0].finished):
            self._note_underrun()
            self._line_got(None, self._frame_bytes)
            return None
        self._starving = False
        self.frames_played += 1
        first = self._take(self._frame_bytes)
        if len(first) == self._frame_bytes:
            return first
        parts, missing = [first], self._frame_bytes - len(first)
        while missing and self._chunks:
            parts.append(self._take(missing))
            missing -= len(parts[-1])
        if missing:
            parts.append(bytes(missing))
            self._line_got(None, missing)
        return b"".join(parts)

    def drop(self, item: AudioItem) -> None:
        """Forget what is queued of `item`, and that it ever was: for sounds that no model made."""
        entry = self._ledger.pop(item, None)
        if entry is None:
            return
        if self._chunks and self._chunks[0][0] is entry:
            self._queued += self._offset
            self._offset = 0
        for owner, chunk in self._chunks:
            self._queued -= len(chunk) if owner is entry else 0
        self._chunks = deque(it for it in self._chunks if it[0] is not entry)

    def pause(self) -> None:
        """Keep everything, but give out nothing until `resume`."""
        self._paused = True

    def resume(self) -> None:
        """Go on where `pause` stopped."""
        self._paused = False

    def flush(self, lag_ms: int = 0) -> list[Heard]:
        """Drop what is queued; answer what was heard of each item that was not wholly played, in order of arrival.

        `lag_ms` (at most `MAX_LAG_MS`) of what the line got last has not reached the caller's ear. An item counts as
        wholly played when it is finished, all of it has been given out, and none of that is within the lag. Each item
        is reported once; `played_ms` says the same afterwards. A pause outlives the flush.
        """
        if not 0 <= lag_ms <= MAX_LAG_MS:
            raise ValueError(f"lag_ms must be 0 to {MAX_LAG_MS}, not {lag_ms}")
        unheard = self._take_back(lag_ms * self.format.bytes_per_ms)
        self._chunks.clear()
        self._offset = self._queued = 0
        self._last = None
        self._starving = False
        heard = []
        for entry in self._ledger.values():
            if entry.settled:
                continue
            entry.played -= unheard.get(entry.item, 0)
            entry.settled = True
            if entry.played < entry.received or not entry.finished:
                heard.append(Heard(entry.item, self._ms(entry.played), self._ms(entry.received)))
        return heard

    # Asking ----------------------------------------------------------------------------------------------------------

    @property
    def idle(self) -> bool:
        """Nothing waits to be played (the item may still be unfinished: then more may come)."""
        return not self._queued

    @property
    def starving(self) -> bool:
        """The model fell behind in mid-item, so the line carries silence, though less than a frame may be left here."""
        return self._starving

    @property
    def paused(self) -> bool:
        return self._paused

    @property
    def queued_ms(self) -> int:
        return self._ms(self._queued)

    @property
    def total_played_ms(self) -> int:
        """Speech given out since the beginning, without padding."""
        return self._ms(self._played)

    def played_ms(self, item: AudioItem) -> int:
        """Milliseconds of `item` given out, rounded down; after a flush, those that were heard. Unknown items: 0."""
        entry = self._ledger.get(item)
        return self._ms(entry.played) if entry is not None else 0

    def heard(self, leave_out: str) -> tuple[AudioItem | None, int]:
        """The newest item of which anything was given out, and the milliseconds of all items so far, but those of the
        response `leave_out`."""
        newest, nbytes = None, 0
        for entry in self._ledger.values():
            if entry.played and entry.item.response_id != leave_out:
                newest, nbytes = entry.item, nbytes + entry.played
        return newest, self._ms(nbytes)

    def received_ms(self, item: AudioItem) -> int:
        """Milliseconds of `item` pushed, rounded down. Unknown items: 0."""
        entry = self._ledger.get(item)
        return self._ms(entry.received) if entry is not None else 0

    # Accounts --------------------------------------------------------------------------------------------------------

    def _ms(self, nbytes: int) -> int:
        return self.format.duration_ms(nbytes)

    def _take(self, wanted: int) -> bytes:
        """At most `wanted` bytes off the first chunk, booked as played."""
        entry, chunk = self._chunks[0]
        piece = chunk[self._offset : self._offset + wanted]
        self._offset += len(piece)
        if self._offset == len(chunk):
            self._chunks.popleft()
            self._offset = 0
        entry.played += len(piece)
        self._queued -= len(piece)
        self._played += len(piece)
        self._last = entry
        self._line_got(entry, len(piece))
        return piece

    def _note_underrun(self) -> None:
        """Nothing to give out: an underrun where an item has begun and is not at its end; once a gap."""
        waiting = self._chunks[0][0] if self._chunks else self._last
        if waiting is not None and waiting.played and not waiting.finished and not self._starving:
            self._starving = True
            self.underruns += 1

    def _line_got(self, entry: _Entry | None, nbytes: int) -> None:
        recent = self._recent
        if recent and recent[-1][0] is entry:
            recent[-1] = (entry, recent[-1][1] + nbytes)
        else:
            recent.append((entry, nbytes))
        self._recent_bytes += nbytes
        while self._recent_bytes - recent[0][1] >= self._recent_bound:
            self._recent_bytes -= recent.popleft()[1]

    def _take_back(self, lag: int) -> dict[AudioItem, int]:
        """Whose bytes are among the last `lag` that the line got, and how many. Forgets the recent past."""
        unheard: dict[AudioItem, int] = {}
        while lag > 0 and self._recent:
            entry, nbytes = self._recent.pop()
            nbytes = min(nbytes, lag)
            lag -= nbytes
            if entry is not None and not entry.settled:
                unheard[entry.item] = unheard.get(entry.item, 0) + nbytes
        self._recent.clear()
        self._recent_bytes = 0
        return unheard


class Metronome:
    """When the next frame is due. Pure: `now` is any monotonic clock in seconds.

    Deadline n is start + n * period, computed and never accumulated, so that hours do not drift. A stall of at most
    `max_catch_up` periods is made good at once (the line's jitter buffer sees no hole); after a longer one the missed
    ticks are `lost` and the grid starts anew: Asterisk's mixing bridges flush everything beyond 80 ms.

    Counters: `ticks`, `late` (done later than half a period after they were due), `lost`, `max_lateness_ms`; and
    `lateness_ms` of the last tick that was done.
    """

    def __init__(self, period_s: float = 0.020, max_catch_up: int = 3) -> None:
        self._period_s = period_s
        self._max_catch_up = max_catch_up
        self._origin: float | None = None
        self._next = 0
        self._last_deadline: float | None = None
        self.ticks = 0
        self.late = 0
        self.lost = 0
        self.lateness_ms = 0.0
        self.max_lateness_ms = 0.0

    def start(self, now: float) -> None:
        """Lay the grid: the first deadline is `now`."""
        self._origin = now
        self._next = 0
        self._last_deadline = None

    def next_deadline(self, now: float) -> float:
        """When the next tick is due; in the past (or `now`) when it must be made good at once.

        Call it when the work of the tick before is done: `now` is also that tick's lateness.
        """
        if self._origin is None:
            self.start(now)
        assert self._origin is not None
        if self._last_deadline is not None:
            self._note_lateness(now - self._last_deadline)
        deadline = self._origin + self._next * self._period_s
        # A thousandth of a period is rounding, not a stall.
        behind = (now - deadline) / self._period_s + 1e-3
        if behind > self._max_catch_up + 2e-3:
            self.lost += int(behind)
            self._origin = deadline = now
            self._next = 0
        self._next += 1
        self.ticks += 1
        self._last_deadline = deadline
        return deadline

    def _note_lateness(self, late_s: float) -> None:
        self.lateness_ms = max(0.0, late_s * 1000)
        self.max_lateness_ms = max(self.max_lateness_ms, self.lateness_ms)
        if late_s > self._period_s / 2:
            self.late += 1
