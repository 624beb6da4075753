"""Joins the two halves of a call: the ARI channel that asked for media, and the media connection that came for it.

They find each other by the UUID that we chose: `expect` it first, then ask Asterisk to dial us, then `claim` it when its
first frame arrives. A UUID that nobody expects is a plain `AudioSocket()` call. Admission is decided here too.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from uuid import UUID

import trio

from bridge import next_step
from bridge.agent import Agent
from bridge.call import Services
from bridge.call_record import CallRecord
from bridge.config import MediaFormat, Realtime
from bridge.destinations import Destination
from bridge.ending import EndReason
from bridge.errors import ControlUnavailable
from bridge.hangup_cause import UNKNOWN
from bridge.lateness import Lateness
from bridge.leg import CallControl, ControlEvent, ControlHungUp, TransferTarget
from bridge.opening import ANSWERED, Opening
from bridge.recording_state import RecordingStep

DRAINING = "the bridge is being stopped"


class NoCallControl:
    """The control of a call that came without ARI: the dialplan keeps the channel, we have only its audio.

    `remember` is told once what the dialplan is to do when the media ends (`next_step`); None: it can not ask us.
    """

    reports_digits = has_channel = places = False
    caller = ""
    called = ""
    came = "by AudioSocket() or Dial(), not by Stasis()"

    def __init__(self, remember: Callable[[str], None] | None = None) -> None:
        self._remember = remember
        self._transferred = ""

    async def answer(self) -> None:
        """The dialplan has answered already."""
        await trio.lowlevel.checkpoint()

    async def check(self, destination: Destination) -> str:
        """Only whether the dialplan can be told of such a place; whether there is one, it alone knows. Raises
        `ControlUnavailable`."""
        await trio.lowlevel.checkpoint()
        self._line_to(destination.where)
        return ""

    async def transfer(self, destination: str) -> None:
        """Leave to the dialplan where the caller goes on. Raises `ControlUnavailable`."""
        await trio.lowlevel.checkpoint()
        self._transferred = self._line_to(destination)

    async def refer(self, address: str, referred_by: str) -> None:
        """Raises `ControlUnavailable`."""
        await trio.lowlevel.checkpoint()
        raise _no_way(address, "it can go to the dialplan (`to`) only")

    def target(self, destination: Destination) -> TransferTarget:
        """Raises `ControlUnavailable`."""
        raise _no_way(destination.where, "it can go to the dialplan (`to`) only")

    def _line_to(self, destination: str) -> str:
        if self._remember is None:
            raise _no_way(destination, "without server.control_address its dialplan can not ask where it goes on")
        if (line := next_step.goto(destination)) is None:
            raise _no_way(destination, "it can go to the dialplan (`to`) only")
        return line

    async def is_there(self) -> bool:
        """Nobody can tell but the media connection."""
        await trio.lowlevel.checkpoint()
        raise ControlUnavailable(f"this call came {self.came}")

    async def send_digits(self, digits: str) -> None:
        """Raises `ControlUnavailable`: on an AudioSocket a digit ends the call (5.4)."""
        await trio.lowlevel.checkpoint()
        raise ControlUnavailable(f"no keys can be pressed: this call came {self.came}")

    async def start_music(self, music: str) -> None:
        """Raises `ControlUnavailable`."""
        await trio.lowlevel.checkpoint()
        raise ControlUnavailable(f"no music: this call came {self.came}")

    async def stop_music(self) -> None:
        """There is none."""
        await trio.lowlevel.checkpoint()

    async def record(self, step: RecordingStep, name: str) -> None:
        """Raises `ControlUnavailable`: MixMonitor() in the dialplan records such a call."""
        await trio.lowlevel.checkpoint()
        raise ControlUnavailable(f"no recording by ARI: this call came {self.came}")

    async def next_event(self) -> ControlEvent:
        """Waits for ever: nothing is reported but by the media connection."""
        await trio.sleep_forever()
        raise AssertionError("unreachable")

    async def release(self, reason: EndReason, detail: str, cause: int = UNKNOWN) -> None:
        """Nothing is held. What the dialplan will ask for is known before this waits for anything, so that it is there
        when the leg, which is closed at the same time, tells Asterisk to go on."""
        if self._remember is not None:
            self._remember(self._transferred or next_step.after(reason))
        await trio.lowlevel.checkpoint()


def _no_way(where: str, why: str) -> ControlUnavailable:
    return ControlUnavailable(
        f"no transfer to {where}: this call came by AudioSocket() or Dial(), not by Stasis(), and {why}"
    )


@dataclass(slots=True)
class Expectation:
    """A call that waits for its media connection. `services` are those of the settings that it began with; `ended` is told
    its record at the end, whatever became of it. `prepare` comes before anything is asked for: it may change who answers,
    or `give_up`. `realtime`: the model's endpoint where this call has its own."""

    call_id: UUID
    control: CallControl
    agent_name: str
    agent: Agent
    media_format: MediaFormat
    services: Services
    arrived: trio.Event = field(default_factory=trio.Event)
    hung_up: ControlHungUp | None = None
    opening: Opening = ANSWERED
    ended: Callable[[CallRecord], None] = lambda record: None
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    prepare: Callable[[], Awaitable[None]] | None = None
    given_up: tuple[EndReason, str] | None = None
    realtime: Realtime | None = None

    def give_up(self, reason: EndReason, detail: str) -> None:
        """Stop waiting, for this reason; the first one counts."""
        self.given_up = self.given_up or (reason, detail)
        self.scope.cancel()


class Switchboard:
    """The calls of one process: those that wait for media, and how many run."""

    def __init__(self, max_calls: int, lateness: Lateness) -> None:
        self._max_calls = max_calls
        self._lateness = lateness
        self._expected: dict[UUID, Expectation] = {}
        # Asterisk connects within 2 s or not at all (5.12), so the last few hundred are plenty.
        self._withdrawn: deque[UUID] = deque(maxlen=256)
        self.running = 0
        self.draining = False

    def admit(self, now: float) -> tuple[EndReason, str] | None:
        """None when one more call may come in, else why not. Calls that still wait for their media count too."""
        if self.draining:
            return EndReason.SERVER_DRAINING, DRAINING
        if self.running + len(self._expected) >= self._max_calls:
            return EndReason.REFUSED_BUSY, "server.max_calls are running"
        if self._lateness.too_late(now):
            late = f"more than 1 % of the callers' frames are sent later than {self._lateness.limit_ms:g} ms"
            return EndReason.REFUSED_BUSY, f"{late} (server.max_lateness_ms)"
        return None

    @property
    def waiting(self) -> int:
        """How many calls wait for their media."""
        return len(self._expected)

    @contextmanager
    def slot(self) -> Iterator[None]:
        """One running call, from its arrival to its last farewell; freed on every path."""
        self.running += 1
        try:
            yield
        finally:
            self.running -= 1

    def expect(self, expectation: Expectation) -> None:
        """Wait for the media of this call, until it is claimed or withdrawn."""
        self._expected[expectation.call_id] = expectation

    def withdraw(self, call_id: UUID) -> bool:
        """Give up waiting. Returns whether the call is still ours to end: False once it was claimed."""
        if self._expected.pop(call_id, None) is None:
            return False
        self._withdrawn.append(call_id)
        return True

    def came_too_late(self, call_id: UUID) -> bool:
        """Whether this media belongs to a call that was given up: nobody is left to talk to."""
        return call_id in self._withdrawn

    def claim(self, call_id: UUID) -> Expectation | None:
        """The call whose media has just arrived, once; None for a UUID that nobody expects."""
        expectation = self._expected.pop(call_id, None)
        if expectation is not None:
            expectation.arrived.set()
        return expectation
