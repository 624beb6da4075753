"""What a call needs from its caller (`CallerLeg`) and from its PBX (`CallControl`), as protocols.

`call.run_call` takes any leg with any control: an AudioSocket stream joined to an ARI channel, a plain `AudioSocket()`
call without control, or the memory streams of a test. `tests/leg_contract.py` is the suite that every leg must pass.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from bridge.audio import PcmFormat
from bridge.destinations import Destination
from bridge.ending import EndReason, Farewell
from bridge.hangup_cause import UNKNOWN
from bridge.recording_state import RecordingStep


@dataclass(frozen=True, slots=True)
class CallerAudio:
    """What the caller said: PCM16 little-endian mono at the leg's rate, any number of samples."""

    pcm: bytes


@dataclass(frozen=True, slots=True)
class CallerDigit:
    """A key that the caller pressed: one of `0`-`9`, `*`, `#`, `A`-`D`."""

    digit: str


@dataclass(frozen=True, slots=True)
class CallerLeft:
    """The far end finished the media connection in order (FIN, or a hang-up frame)."""

    detail: str


@dataclass(frozen=True, slots=True)
class CallerTurnEnded:
    """The caller says that the turn is over: what was said is to be taken as it is. Telephones have no such thing."""


LegEvent = CallerAudio | CallerDigit | CallerLeft | CallerTurnEnded


class CallerLeg(Protocol):
    """One caller's media connection, driven by the process's `MediaClock`: nothing here but `close` may wait."""

    @property
    def call_id(self) -> UUID: ...

    @property
    def format(self) -> PcmFormat: ...

    @property
    def descriptor(self) -> int | None:
        """The number of a file that the kernel calls readable when `receive_nowait` has something new; None: there is
        none, ask now and then. It stays the same until `close`."""
        ...

    @property
    def audio_received(self) -> tuple[int, int]:
        """How many frames of audio have come so far, and how many bytes of audio."""
        ...

    def receive_nowait(self) -> list[LegEvent]:
        """Everything that the caller has done since the last call, in order; often nothing. `CallerLeft` comes once.

        Raises `MediaProtocolError` or `MediaLost`, each time from then on; what came before it has been returned.
        """
        ...

    def send_audio_nowait(self, frame: bytes) -> bool:
        """Send one 20 ms frame of PCM16 at the leg's rate, whole and in one write.

        False: the far end takes nothing now, and nothing was sent; offer the same frame again later. Raises `MediaLost`
        when the connection is gone, `ValueError` for a frame of another length.
        """
        ...

    def clear_audio_nowait(self) -> None:
        """Ask the far end to drop what it has buffered. AudioSocket has no buffer to drop: nothing happens there."""
        ...

    async def close(self, farewell: Farewell) -> None:
        """End the connection in order. Idempotent, never raises; the caller bounds it with a cancel scope."""
        ...


@dataclass(frozen=True, slots=True)
class ControlDigit:
    """A key, as the PBX reported it."""

    digit: str


@dataclass(frozen=True, slots=True)
class ControlHungUp:
    """The caller's channel left us: it hung up, or someone else moved it away. `cause` is Q.850, 0 if unknown."""

    cause: int
    detail: str


@dataclass(frozen=True, slots=True)
class ControlHold:
    """The caller has put us on hold, or is back."""

    held: bool


@dataclass(frozen=True, slots=True)
class ControlRecordingFailed:
    """The PBX could not go on with the recording that it was asked for; the call goes on."""

    detail: str


ControlEvent = ControlDigit | ControlHungUp | ControlHold | ControlRecordingFailed


class DialOutcome(enum.StrEnum):
    """What became of a call that we placed. The value is the word for people and records."""

    ANSWERED = "answered"
    BUSY = "busy"
    NO_ANSWER = "no answer"
    REJECTED = "rejected"
    UNREACHABLE = "not reachable"
    CANCELLED = "hung up before the answer"
    MACHINE = "answered by a machine"


END_OF_OUTCOME: Mapping[DialOutcome, EndReason] = {
    DialOutcome.BUSY: EndReason.BUSY,
    DialOutcome.NO_ANSWER: EndReason.NO_ANSWER,
    DialOutcome.REJECTED: EndReason.REJECTED,
    DialOutcome.UNREACHABLE: EndReason.UNREACHABLE,
    # Not by us: Asterisk says so of a Local channel whose extension there is not, too.
    DialOutcome.CANCELLED: EndReason.UNREACHABLE,
    DialOutcome.MACHINE: EndReason.ANSWERING_MACHINE,
}
"""Why a call ends whose callee did not answer himself."""


@dataclass(frozen=True, slots=True)
class Dialled:
    """How dialling ended; `detail` in Asterisk's words, `cause` Q.850 (0: none told)."""

    outcome: DialOutcome
    detail: str = ""
    cause: int = 0

    @property
    def told(self) -> str:
        """For a call's record."""
        return f"{self.detail} (cause {self.cause})".strip() if self.cause else self.detail or self.outcome.value


class TransferTarget(Protocol):
    """Somebody who is called to take over a caller: rung, perhaps consulted, then joined with the caller or released.

    `release` at the end in any case. The media of the call is where the agent speaks to: the caller at first.
    """

    async def ring(self, music: str) -> Dialled:
        """Call them; the caller hears `music` (a class of Asterisk's), where that is not empty, from here on. Returns when
        they have answered, or will not. Raises `ControlError`."""
        ...

    async def consult(self) -> None:
        """They have answered: the agent speaks to them, the caller waits on hold. Raises `ControlError`."""
        ...

    async def next_event(self) -> ControlEvent:
        """A key that they pressed, or their hang-up, which is the last event."""
        ...

    async def join(self) -> None:
        """Join them with the caller, without the agent. The two stay together whatever becomes of this call, and the
        control has nothing to release any more but the media. Raises `ControlError`: nobody is joined."""
        ...

    async def release(self) -> None:
        """Hang them up, unless they are joined, and give the caller back to the agent. Idempotent, never raises."""
        ...


class CallControl(Protocol):
    """What the PBX can do for one call."""

    @property
    def reports_digits(self) -> bool:
        """Digits come as `ControlDigit` now; the same digits on the media connection are then ignored (one source)."""
        ...

    @property
    def has_channel(self) -> bool:
        """The caller's channel is another one than that of the media connection, and outlives it."""
        ...

    @property
    def caller(self) -> str:
        """Caller id for logs and the record, or an empty string."""
        ...

    @property
    def called(self) -> str:
        """The number or extension that was called, or an empty string."""
        ...

    @property
    def places(self) -> bool:
        """Whether we call, and the person on the line is the callee: `answer` then rings them."""
        ...

    async def answer(self) -> Dialled | None:
        """Answer the caller's channel and join it with the media. Raises `ControlError`. Idempotent.

        With `places` call somebody first, and return what became of it where that is not simply an answer: nobody is on
        the line then, but with `DialOutcome.MACHINE`. Cancelled, it rings on until `release`.
        """
        ...

    async def check(self, destination: Destination) -> str:
        """Find out whether a caller could be sent there. Returns what is worth telling about it ("3 callers wait before
        you"), mostly nothing. Raises `ControlError` with the reason why not, in words for the agent."""
        ...

    async def transfer(self, destination: str) -> None:
        """Send the caller to `destination` (`exten`, `exten@context` or `exten@context,priority`) in the dialplan.

        Returns when Asterisk has accepted; the caller is then no longer ours. Raises `ControlError`: still ours.
        """
        ...

    async def refer(self, address: str, referred_by: str) -> None:
        """Have the caller's own telephone or trunk call `address` (SIP) instead of us; `referred_by` may be empty.

        Returns when that has worked; the caller is then no longer ours. Raises `ControlError`: still ours.
        """
        ...

    def target(self, destination: Destination) -> TransferTarget:
        """Somebody to be dialled at the `endpoint` of this destination. Raises `ControlError` where there is no control."""
        ...

    async def is_there(self) -> bool:
        """Ask the PBX whether the caller is still ours; where not, `next_event` reports the hang-up, if it has not yet.

        Raises `ControlError`: nobody can tell.
        """
        ...

    async def send_digits(self, digits: str) -> None:
        """Press these keys (`0`-`9`, `*`, `#`, `A`-`D`; `w`: half a second of pause) towards the caller. Returns when they
        have been accepted, which is before they are sent. Raises `ControlError`."""
        ...

    async def start_music(self, music: str) -> None:
        """The caller hears this class of Asterisk's music on hold, and not us. Raises `ControlError`."""
        ...

    async def stop_music(self) -> None:
        """The caller hears us again. Raises `ControlError`."""
        ...

    async def record(self, step: RecordingStep, name: str) -> None:
        """Have the PBX record the call under this name, into a folder of its own; pause (silence is recorded meanwhile),
        resume, end, or end and delete it. Only once it is answered. Raises `ControlError`."""
        ...

    async def next_event(self) -> ControlEvent:
        """The next event of this call; waits for ever when there is none. Raises `ControlError`."""
        ...

    async def release(self, reason: EndReason, detail: str, cause: int = UNKNOWN) -> None:
        """Carry out the farewell of `reason` and free everything held in the PBX. `cause`: what signalling is told where
        that hangs up (Q.850; unknown: the normal one). Idempotent, never raises."""
        ...
