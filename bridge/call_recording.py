"""The recording of one call: by the bridge into a two-channel WAV, or by Asterisk on a disk of Asterisk's.

By the bridge: a `_RecordedLine` notes what passes on the clock's task, a task of the call takes that every 2 s to a thread,
which lays it out (`stereo_track`) and writes it (`recording_file`). While the disk stands still 10 s are kept, then the
recording loses what comes; the call never waits. A call that is not recorded has none of these objects.

That task is not cancelled with the call: it has the last seconds to write, for no longer than `stop` allows.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Protocol, TypeVar

import trio
from trio.lowlevel import start_thread_soon

from bridge.audio import PcmFormat
from bridge.errors import BridgeError, ControlError, ControlUnavailable
from bridge.leg import CallControl, CallerAudio, CallerLeg, LegEvent
from bridge.media_clock import NextFrame
from bridge.recording import SUFFIX, Recording, file_name, says
from bridge.recording_file import RecordingFile
from bridge.recording_state import RecordingLife, RecordingState, RecordingStep
from bridge.stereo_track import Piece, Side, StereoTrack

_log = logging.getLogger("bridge.recording")

WRITE_EVERY_S = 2.0
# So long a piece of the caller's may come after the agent's of the same time.
_HOLD_S = 0.5
_FRAME_S = 0.020
# Both sides' frames of 10 s.
WAITING_PIECES = 1000
_BYTES_PER_MB = 1_000_000
# How often Asterisk is asked to delete what must not be kept.
_TRY_AGAIN_S = 1.0

T = TypeVar("T")
Tell = Callable[[str, Mapping[str, object]], None]


class InThread(Protocol):
    """How something that blocks is run: in a thread, or in a test at once."""

    async def __call__(self, function: Callable[[], T]) -> T: ...


# A disk that hangs must not take the threads that everybody else needs.
_limiter = trio.CapacityLimiter(8)


async def in_thread(function: Callable[[], T]) -> T:
    """Run it in a thread. Cancelled, the thread is left to itself."""
    return await trio.to_thread.run_sync(function, abandon_on_cancel=True, limiter=_limiter)


def recording_of(
    settings: Recording,
    names: Mapping[str, str],
    format: PcmFormat,
    control: CallControl,
    tell: Tell,
    run_blocking: InThread,
) -> CallRecording | None:
    """The recording of a call, by its agent's settings; None: it is not recorded. `names`: see `recording.FIELDS`."""
    if settings.by == "off":
        return None
    path = file_name(settings.file, names)
    if settings.by == "bridge":
        return _ByBridge(settings, path, tell, format, run_blocking)
    return _ByAsterisk(settings, path, tell, format, control)


class CallRecording:
    """What both kinds have in common: when they run, and what is told of them.

    `begin` when the caller has been answered, `stop` at the end of the call; `run` in a nursery that outlives it. All but
    `run` is synchronous and may be called at any time.
    """

    by = ""

    def __init__(self, settings: Recording, path: str, tell: Tell) -> None:
        self._settings = settings
        self._file = path
        self._tell = tell
        self._life = RecordingLife()
        self._steps: list[RecordingStep] = []
        self._woken = trio.Event()
        self._scope = trio.CancelScope(shield=True)
        self._begun = False
        self._notice_said: bool | None = None  # in its words, by the transcript of the agent's first turn
        self._collecting = False  # digits, for `collect_digits`
        self._error = ""

    def tap(self, leg: CallerLeg, next_frame: NextFrame) -> tuple[CallerLeg, NextFrame]:
        """The two ends of the line as the clock is to see them."""
        return leg, next_frame

    def begin(self) -> None:
        """The caller has been answered. Idempotent."""
        self._do(self._life.begin())

    def pause(self, holder: str) -> None:
        """Silence in both channels until this holder, and everybody else who paused it, resumes."""
        self._do(self._life.pause(holder))

    def resume(self, holder: str) -> None:
        """This holder needs no pause any more."""
        self._do(self._life.resume(holder))

    def noticed(self, event: str, facts: Mapping[str, object]) -> None:
        """The bridge tells of something. Digits that are secret are not to be heard in a recording either."""
        match event:
            case "secure_begins":
                self.pause("secure digits")
            case "secure_ends":
                self.resume("secure digits")
            case "collecting_digits" | "digits_collected":
                self._collecting = event == "collecting_digits"
            case "agent_said" if self._settings.consent and self._notice_said is None:
                self._notice_said = says(str(facts.get("text", "")), self._settings.consent)
                if not self._notice_said:
                    _log.warning("the agent said something else than the words of recording.consent")

    def declines(self, digit: str) -> bool:
        """Whether this key declines the recording; then what there is of it is deleted. While digits are collected, while
        it is paused, and when it is over, the key is like any other."""
        if digit != self._settings.decline_key or not self._life.running or self._collecting:
            return False
        self._do(self._life.step(RecordingStep.DECLINE))
        self._tell("recording_declined", {})
        return True

    def fails(self, detail: str) -> None:
        """It can not go on; the call does. The log says it once, as an error."""
        if not self._error:
            self._error = detail
            _log.error("recording_failed", extra={"facts": {"by": self.by, "detail": detail}})
        self._do(self._life.step(RecordingStep.FAIL))

    def stop(self, within_s: float) -> None:
        """The call ends. `run` returns within this time."""
        self._scope.deadline = trio.current_time() + within_s
        self._do(self._life.step(RecordingStep.END))

    async def run(self) -> None:
        """Until the recording is complete, or has failed. Raises nothing, and is not cancelled but by `stop`."""
        with self._scope:
            try:
                await self._carry_out()
            except BridgeError as error:
                self.fails(str(error))
            except Exception:
                _log.exception("a defect of the bridge ended this recording, not its call")
                self.fails("a defect of the bridge")
        if self._scope.cancelled_caught:
            self.fails("it could not be completed in time")
            self._left_behind()
        if self._begun or self._error:
            self._tell("recording_ends", self.facts())

    def facts(self) -> dict[str, object]:
        """For the call's record, complete when `run` has returned. `file` is empty where nothing is left."""
        kept = self._begun and (self._life.state is not RecordingState.DECLINED or bool(self._error))
        notice: dict[str, object] = {"notice_said": bool(self._notice_said)} if self._settings.consent else {}
        return {
            "by": self.by,
            "state": self._life.state.value,
            "file": self._file if kept else "",
            "length_ms": self._length_ms() if kept else 0,
            "lost_ms": self._lost_ms(),
            "error": self._error,
        } | notice

    def _do(self, steps: list[RecordingStep]) -> None:
        if steps:
            self._steps += steps
            self._woken.set()

    def _starts(self) -> None:
        self._begun = True
        self._tell("recording_starts", {"by": self.by, "file": self._file})

    async def _carry_out(self) -> None:
        raise NotImplementedError

    def _left_behind(self) -> None:
        """It was not completed in time: nobody waits for it any more."""

    def _length_ms(self) -> int:
        raise NotImplementedError

    def _lost_ms(self) -> int:
        raise NotImplementedError


def _unheard(_: object) -> None:
    """Whatever came of it, the recording has been told as failed."""


class _RecordedLine:
    """A leg whose two directions are noted as they pass. What the clock calls most goes straight to the leg."""

    def __init__(self, leg: CallerLeg, next_frame: NextFrame, recording: _ByBridge) -> None:
        self._leg, self._next_frame, self._recording = leg, next_frame, recording
        self.call_id, self.format, self.descriptor = leg.call_id, leg.format, leg.descriptor
        self.send_audio_nowait, self.clear_audio_nowait = leg.send_audio_nowait, leg.clear_audio_nowait
        self.close = leg.close

    @property
    def audio_received(self) -> tuple[int, int]:
        return self._leg.audio_received

    def receive_nowait(self) -> list[LegEvent]:
        """What the caller has done, before anything is made of it: at the line's own rate."""
        events = self._leg.receive_nowait()
        for event in events:
            if isinstance(event, CallerAudio):
                self._recording.note(Side.CALLER, trio.current_time(), event.pcm)
        return events

    def next_frame(self, deadline: float) -> bytes:
        """What the caller hears next, silence too."""
        frame = self._next_frame(deadline)
        self._recording.note(Side.AGENT, deadline, frame)
        return frame


class _ByBridge(CallRecording):
    by = "bridge"

    def __init__(self, settings: Recording, path: str, tell: Tell, format: PcmFormat, run_blocking: InThread) -> None:
        super().__init__(settings, path, tell)
        self._run_blocking = run_blocking
        self._format = format
        self._wav = RecordingFile(format.rate_hz, settings.max_mb * _BYTES_PER_MB)
        self._track = StereoTrack(format)
        self._noting = False
        self._pieces: list[Piece] = []
        self._frame_at = 0.0  # when the agent's newest frame was due
        self._dropped = 0

    def tap(self, leg: CallerLeg, next_frame: NextFrame) -> tuple[CallerLeg, NextFrame]:
        line = _RecordedLine(leg, next_frame, self)
        return line, line.next_frame

    def note(self, side: Side, at_s: float, pcm: bytes) -> None:
        """On the clock."""
        if not self._noting:
            if side is Side.AGENT:
                self._frame_at = at_s  # silence takes its time too
        elif len(self._pieces) < WAITING_PIECES:
            self._pieces.append((side, at_s, pcm))
            if side is Side.AGENT:
                self._frame_at = at_s
        else:
            self._dropped += len(pcm)

    def _do(self, steps: list[RecordingStep]) -> None:
        super()._do(steps)
        self._noting = self._life.running
        if self._life.state in (RecordingState.DECLINED, RecordingState.FAILED):
            self._pieces.clear()

    async def _carry_out(self) -> None:
        await self._woken.wait()
        if RecordingStep.BEGIN not in self._steps:
            return  # the call ended before it was answered
        await self._run_blocking(partial(self._wav.create, self._file))
        self._file = self._wav.path
        self._starts()
        while not self._life.over:
            self._woken = trio.Event()
            with trio.move_on_after(WRITE_EVERY_S):
                await self._woken.wait()
            if not self._life.over:
                await self._write(self._frame_at - _HOLD_S)
            if self._wav.full:
                _log.warning("%s has reached recording.max_mb; the call goes on unrecorded", self._file)
                self._do(self._life.step(RecordingStep.END))
        if self._life.state is RecordingState.DECLINED:
            await self._run_blocking(self._wav.delete)
        elif self._life.state is RecordingState.ENDED:
            await self._write(self._frame_at + _FRAME_S)
        await self._run_blocking(self._wav.close)

    def _left_behind(self) -> None:
        # A thread of its own, which may hang as long as the disk does: else each such call would leave a descriptor open.
        start_thread_soon(self._wav.close, _unheard)

    async def _write(self, until_s: float) -> None:
        """Take what has been noted, and have it written up to this time. The pieces behind that stay in the track."""
        pieces, self._pieces = self._pieces, []

        def lay_and_write() -> None:
            self._wav.write(self._track.lay(pieces, until_s))

        await self._run_blocking(lay_and_write)

    def _length_ms(self) -> int:
        return self._format.duration_ms(self._wav.data_bytes // 2)

    def _lost_ms(self) -> int:
        return self._format.duration_ms(self._dropped) + self._track.lost_ms


class _ByAsterisk(CallRecording):
    by = "asterisk"

    def __init__(self, settings: Recording, path: str, tell: Tell, format: PcmFormat, control: CallControl) -> None:
        # Asterisk's formats "wav" and "wav16", which are the suffixes too, are 8 and 16 kHz; there is none of 24.
        super().__init__(settings, path if format.rate_hz == 8000 else path.removesuffix(SUFFIX) + ".wav16", tell)
        self._control = control
        self._began_at = self._ended_at = 0.0

    async def _carry_out(self) -> None:
        while True:
            while self._steps:
                await self._carry_out_step(self._steps.pop(0))
            if self._life.over:
                return
            self._woken = trio.Event()
            await self._woken.wait()

    async def _carry_out_step(self, step: RecordingStep) -> None:
        if step is not RecordingStep.BEGIN and not self._begun:
            return
        try:
            if step is not RecordingStep.FAIL:
                await self._control.record(step, self._file)
        except ControlError as error:
            if step is RecordingStep.PAUSE:
                await self._give_up(error)
            raise
        finally:
            if step not in (RecordingStep.BEGIN, RecordingStep.PAUSE, RecordingStep.RESUME):
                self._ended_at = trio.current_time()
        if step is RecordingStep.BEGIN:
            self._began_at = trio.current_time()
            self._starts()

    async def _give_up(self, why: ControlError) -> None:
        """It can not be paused. Better no recording than one that holds what is secret: it is ended, or if that has to wait
        for ARI too, deleted then."""
        try:
            await self._control.record(RecordingStep.END, self._file)
            return
        except ControlUnavailable:
            self.fails(f"{why}; {self._file} may hold what is secret, and is deleted as soon as ARI is there")
        while True:
            await trio.sleep(_TRY_AGAIN_S)
            with suppress(ControlUnavailable):
                await self._control.record(RecordingStep.DECLINE, self._file)
                self._begun = False
                return

    def _length_ms(self) -> int:
        """By our clock: Asterisk tells whole seconds."""
        return round(((self._ended_at or trio.current_time()) - self._began_at) * 1000)

    def _lost_ms(self) -> int:
        return 0
