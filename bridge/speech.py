"""The agent's voice on its way to the caller: from audio deltas to the playout, and back to what was heard.

Joins the playout's ledger with the history: every delta is converted once and queued, a flush says to the millisecond how
much of each item was heard, and a turn is told once its words and its fate are known. Sounds of our own (a notice while the
model can not speak) go the same way, but are nothing that the model said.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bridge import realtime
from bridge.audio import MODEL_FORMAT, resampler
from bridge.call_events import PlaybackStarted, PlaybackStopped
from bridge.history import History, Speaker, Turn
from bridge.playout import AudioItem, PlayoutQueue

# The response that our own sounds belong to: none.
OUR_OWN = ""


@dataclass(frozen=True, slots=True)
class Cut:
    """A turn that was broken off: how much of it the caller heard."""

    turn: Turn
    content_index: int
    played_ms: int


class Speech:
    """What the agent says in one call. `audible`: the caller hears something now; `line_quiet`: the line carries silence
    (in a gap of the deltas the agent is still `audible`)."""

    def __init__(self, playout: PlayoutQueue, history: History, *, lag_ms: int) -> None:
        self._playout = playout
        self._history = history
        self._lag_ms = lag_ms
        self._to_wire = resampler(MODEL_FORMAT.rate_hz, playout.format.rate_hz)
        self._item: AudioItem | None = None
        self._last_response = ""
        self._sounds = 0
        self._sound: AudioItem | None = None
        self._paused = self._held = False
        self._heard_ms = 0  # up to the last end
        self.audible = False
        self.line_quiet = True

    @property
    def idle(self) -> bool:
        """Nothing waits to be played."""
        return self._playout.idle

    @property
    def starving(self) -> bool:
        """The caller hears nothing since the model fell behind in mid-word."""
        return self._playout.starving

    @property
    def silent(self) -> bool:
        """Everything so far has been played, and the line knows it."""
        return self._playout.idle and self.line_quiet

    @property
    def queued_ms(self) -> int:
        return self._playout.queued_ms

    def audio(self, delta: realtime.AudioDelta, *, active: bool) -> None:
        """Queue a delta. Not `active`: its response is done already (seen in the wild, section 6), so nothing will come
        that finishes it. Raises `ModelProtocolError` when more is queued than the limit allows."""
        if self._sound is not None:
            # The agent can speak again: nobody wants to hear the rest of "one moment, please".
            self._playout.drop(self._sound)
            self._sound = None
        item = AudioItem(delta.response_id, delta.item_id, delta.content_index)
        if item != self._item:
            self.finish_item()
            self._item = item
        self._last_response = delta.response_id
        turn = self._history.turn(item.item_id, Speaker.AGENT)
        if not turn.interrupted:
            turn.heard_ms = None  # heard to its end so far, and now it goes on
        turn.received_bytes += len(delta.delta)
        self._playout.push(item, self._to_wire.process(delta.delta))
        if not active:
            self.finish_item()

    def received(self, response_id: str) -> bool:
        """Whether there was any audio of this response, which must be the newest."""
        return self._last_response == response_id

    def finish_item(self, response_id: str | None = None) -> None:
        """No more audio for the current item (of this response): its last samples leave the resampler."""
        if self._item is not None and response_id in (None, self._item.response_id):
            self._playout.push(self._item, self._to_wire.flush())
            self._playout.finish_item(self._item)
            self._item = None

    def play(self, pcm: bytes) -> None:
        """Queue a sound of our own (PCM16 at the line's rate), behind everything else."""
        self._sounds += 1
        self._sound = AudioItem(OUR_OWN, f"sound-{self._sounds}", 0)
        self._playout.push(self._sound, pcm)
        self._playout.finish_item(self._sound)

    @property
    def sounding(self) -> bool:
        """What the caller hears, or will hear next, is a sound of ours."""
        return self._sound is not None and not self._playout.idle

    def begins(self, item_id: str = "") -> PlaybackStarted:
        """The caller begins to hear the agent: this item, or the one whose audio was given out last."""
        self.audible = True
        newest, _ = self._playout.heard(OUR_OWN)
        return PlaybackStarted(item_id=item_id or (newest.item_id if newest else ""))

    def ends(self, *, interrupted: bool) -> PlaybackStopped:
        """The caller hears the agent no more. After a `flush`, if there was one."""
        self.audible = False
        newest, heard_ms = self._playout.heard(OUR_OWN)
        before, self._heard_ms = self._heard_ms, heard_ms
        return PlaybackStopped(
            item_id=newest.item_id if newest else "",
            reason="interrupted" if interrupted else "completed",
            heard_ms=max(0, heard_ms - before),
        )

    def flush(self) -> tuple[list[Cut], set[str]]:
        """Drop what the caller has not heard. Returns what was cut, and the responses that it belongs to."""
        self._to_wire.reset()
        self._item = self._sound = None
        heard = self._playout.flush(self._lag_ms)
        self.resume()
        cuts = []
        for it in heard:
            if it.item.response_id != OUR_OWN:
                turn = self._history.turn(it.item.item_id, Speaker.AGENT)
                turn.heard_ms = it.played_ms
                cuts.append(Cut(turn, it.item.content_index, it.played_ms))
        self.audible = False
        self.line_quiet = True
        return cuts, {it.item.response_id for it in heard}

    def pause(self) -> None:
        """Stand still, until it is clear whether the caller interrupts."""
        self._paused = True
        self._playout.pause()

    def resume(self) -> None:
        """Go on after `pause`, unless the call is on hold."""
        self._paused = False
        self._go_on()

    def hold(self, held: bool) -> None:
        """Stand still while the call is on hold."""
        self._held = held
        if held:
            self._playout.pause()
        else:
            self._go_on()

    def _go_on(self) -> None:
        if not (self._paused or self._held):
            self._playout.resume()

    def settled(self) -> Sequence[Turn]:
        """The turns of the agent that have just been heard to their end: none of them was cut."""
        turns = self._history.undecided()
        for turn in turns:
            turn.heard_ms = turn.received_ms
        return turns
