"""N identical worker processes: when each is started, asked to drain, killed, and when all of it is over. Pure.

    IDLE --> STARTING --> RUNNING --> STOPPING --> IDLE (restart one by one), ENDED (all drain)
                |  ^         |
                |  +---- WAITING <-- died: again after 0.5 s, doubled to 30 s; from 0.5 s after a minute of health
                +--> RETIRED         its configuration is wrong (exit status 2): to try again would say the same

Told what happens, `WorkerPolicy` returns what to do, in order; `supervisor` carries it out. Between events it wants a
`tick` at `next_tick`. A worker is *up* when Asterisk can give it calls: its listener is open, its Stasis app registered.

A wrong configuration of a worker that has never been up ends everything: then it is the operator, at the keyboard, who
has to know. Later the other workers and their calls matter more: only that one stays away, and a restart one by one goes
no further.
"""

from __future__ import annotations

import enum
import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

FIRST_DELAY_S, LONGEST_DELAY_S = 0.5, 30.0
# A worker that was up for so long was healthy: its end is a new trouble, not the old one again.
HEALTHY_S = 60.0
# Workers report each second. One that is silent for so long stands still with all its calls, which have heard nothing
# meanwhile; Python and numpy take less than that to start, even from a slow disk.
SILENT_S, FIRST_REPORT_S = 15.0, 60.0
# A worker that drains ends its last calls by itself at `limits.drain_s`, with farewells that are bounded by seconds.
BEYOND_DRAIN_S = 15.0
CONFIGURATION_ERROR = 2


class Stage(enum.Enum):
    """Where a worker is; `value` is for people."""

    IDLE = "not started"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "draining"
    WAITING = "waiting to be started again"
    RETIRED = "not started again: wrong configuration"
    ENDED = "ended"


PROCESS = frozenset({Stage.STARTING, Stage.RUNNING, Stage.STOPPING})
_S = Stage
_TRANSITIONS: dict[Stage, frozenset[Stage]] = {
    _S.IDLE: frozenset({_S.STARTING, _S.ENDED}),
    _S.STARTING: frozenset({_S.RUNNING, _S.STOPPING, _S.WAITING, _S.RETIRED, _S.ENDED}),
    _S.RUNNING: frozenset({_S.STOPPING, _S.WAITING, _S.RETIRED, _S.ENDED}),
    _S.STOPPING: frozenset({_S.IDLE, _S.ENDED}),
    _S.WAITING: frozenset({_S.STARTING, _S.ENDED}),
    _S.RETIRED: frozenset({_S.STARTING, _S.ENDED}),
    _S.ENDED: frozenset(),
}


class Order(enum.StrEnum):
    """What a worker is told: `drain` lets its calls finish within `limits.drain_s`, `stop` ends them, with farewells."""

    DRAIN = "drain"
    STOP = "stop"


@dataclass(frozen=True, slots=True)
class Start:
    worker: int


@dataclass(frozen=True, slots=True)
class Tell:
    worker: int
    order: Order


@dataclass(frozen=True, slots=True)
class Kill:
    worker: int


@dataclass(frozen=True, slots=True)
class Say:
    """For the log; `trouble` makes it a warning."""

    worker: int
    text: str
    trouble: bool = False


@dataclass(frozen=True, slots=True)
class End:
    """Nothing is left to supervise; `status` is that of the command."""

    status: int


Action = Start | Tell | Kill | Say | End


@dataclass(slots=True)
class _Worker:
    number: int
    stage: Stage = Stage.IDLE
    delay_s: float = FIRST_DELAY_S
    up: bool = False
    up_since: float | None = None  # of this process
    due: float = math.inf  # WAITING: the start; with a process: the kill
    restarts: int = 0
    killed: bool = False
    ever_up: bool = False  # in whatever process

    def go(self, stage: Stage) -> None:
        if stage not in _TRANSITIONS[self.stage]:
            raise RuntimeError(f"worker {self.number}: {self.stage.name} -> {stage.name}")
        self.stage = stage


@dataclass(slots=True)
class WorkerPolicy:
    """The workers 1 to `count`; `drain_s` is `limits.drain_s`. First `begin`, then the rest, until an `End` is returned."""

    count: int
    drain_s: float
    _workers: dict[int, _Worker] = field(init=False)
    _to_roll: deque[int] = field(default_factory=deque, init=False)
    _rolling: int | None = field(default=None, init=False)
    _ending: bool = field(default=False, init=False)
    _status: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self._workers = {number: _Worker(number) for number in range(1, self.count + 1)}

    @property
    def draining(self) -> bool:
        """Whether all of it is coming to its end."""
        return self._ending

    def stage(self, worker: int) -> Stage:
        return self._workers[worker].stage

    def restarts(self, worker: int) -> int:
        """How often a process of this worker had to be replaced because it died; asked for, it is none."""
        return self._workers[worker].restarts

    def next_tick(self) -> float:
        """When `tick` has something to do; infinite: only after an event."""
        return min(worker.due for worker in self._workers.values())

    def begin(self, now: float) -> list[Action]:
        """Start all of them."""
        return [self._start(worker, now) for worker in self._workers.values()]

    def reported(self, number: int, up: bool, now: float) -> list[Action]:
        """The worker lives; `up`: Asterisk can give it calls."""
        worker = self._workers[number]
        worker.up = up
        if worker.stage not in (Stage.STARTING, Stage.RUNNING):
            return []
        worker.due = now + SILENT_S
        if not up:
            return []
        if worker.up_since is None:
            worker.up_since = now
            worker.go(Stage.RUNNING)
            worker.ever_up = True
        return self._roll_on(now)

    def exited(self, number: int, status: int, now: float) -> list[Action]:
        """The worker's process has ended, with its exit status; minus the number of the signal that killed it."""
        worker = self._workers[number]
        stage, healthy = worker.stage, worker.up_since is not None and now - worker.up_since >= HEALTHY_S
        worker.up, worker.up_since, worker.due, worker.killed = False, None, math.inf, False
        how = f"was killed by signal {-status}" if status < 0 else f"has ended with status {status}"
        if self._ending:
            worker.go(Stage.ENDED)
            return [Say(number, how, status not in (0, 130)), *self._end_when_done()]
        if stage is Stage.STOPPING:
            worker.go(Stage.IDLE)
            return [Say(number, f"{how}; starting it again", status != 0), self._start(worker, now)]
        if status == CONFIGURATION_ERROR:
            worker.go(Stage.RETIRED)
            return self._retired(worker, now)
        if healthy:
            worker.delay_s = FIRST_DELAY_S
        delay_s, worker.delay_s = worker.delay_s, min(worker.delay_s * 2, LONGEST_DELAY_S)
        worker.go(Stage.WAITING)
        worker.due = now + delay_s
        worker.restarts += 1
        return [Say(number, f"{how}; starting it again in {delay_s:g} s", True)]

    def drain(self, now: float) -> list[Action]:
        """All finish their calls, then everything ends. Asked again, it changes nothing."""
        if self._ending:
            return []
        self._ending, self._rolling = True, None
        self._to_roll.clear()
        actions: list[Action] = []
        for worker in self._workers.values():
            if worker.stage in (Stage.STARTING, Stage.RUNNING):
                actions += self._stop(worker, now)
            elif worker.stage is not Stage.STOPPING:
                worker.go(Stage.ENDED)
                worker.due = math.inf
        return [*actions, *self._end_when_done()]

    def stop(self, now: float) -> list[Action]:
        """All end their calls at once, each with its farewell."""
        actions = self.drain(now)
        for worker in self._alive():
            worker.due = min(worker.due, now + BEYOND_DRAIN_S)
            actions.append(Tell(worker.number, Order.STOP))
        return actions

    def roll(self, now: float) -> list[Action]:
        """Replace all, one by one: the next drains when the one before is up again. Asked again, it begins again."""
        if self._ending:
            return []
        # One that drains already will start with what is new; one that has started since may have missed it.
        draining = {worker.number for worker in self._workers.values() if worker.stage is Stage.STOPPING}
        self._to_roll = deque(number for number in self._workers if number not in draining)
        if self._rolling not in draining:
            self._rolling = None
        return self._roll_on(now)

    def tick(self, now: float) -> list[Action]:
        """What is due by time alone."""
        actions: list[Action] = []
        for worker in self._workers.values():
            if now < worker.due:
                continue
            if worker.stage is Stage.WAITING:
                actions.append(self._start(worker, now))
            elif worker.stage in PROCESS and not worker.killed:
                worker.killed, worker.due = True, math.inf
                why = "has not drained in time" if worker.stage is Stage.STOPPING else "has stopped reporting"
                actions += [Say(worker.number, f"{why}; killing it", True), Kill(worker.number)]
        return actions

    # How it is done ---------------------------------------------------------------------------------------------------

    def _alive(self) -> Iterable[_Worker]:
        return (worker for worker in self._workers.values() if worker.stage in PROCESS)

    def _start(self, worker: _Worker, now: float) -> Start:
        worker.go(Stage.STARTING)
        worker.due = now + FIRST_REPORT_S
        return Start(worker.number)

    def _stop(self, worker: _Worker, now: float) -> list[Action]:
        worker.go(Stage.STOPPING)
        worker.due = now + self.drain_s + BEYOND_DRAIN_S
        return [Tell(worker.number, Order.DRAIN)]

    def _roll_on(self, now: float) -> list[Action]:
        """The next step of a restart one by one, once the worker before is up again."""
        if self._rolling is not None:
            if not self._workers[self._rolling].up or self.stage(self._rolling) is not Stage.RUNNING:
                return []
            self._rolling = None
        if not self._to_roll:
            return []
        self._rolling = self._to_roll.popleft()
        worker = self._workers[self._rolling]
        said = Say(worker.number, "is restarted")
        if worker.stage in PROCESS:
            return [said, *self._stop(worker, now)]
        worker.delay_s = FIRST_DELAY_S
        return [said, self._start(worker, now)]

    def _retired(self, worker: _Worker, now: float) -> list[Action]:
        if not worker.ever_up:
            self._status = CONFIGURATION_ERROR
            return [Say(worker.number, "has a wrong configuration (see above); ending", True), *self.drain(now)]
        self._rolling = None
        self._to_roll.clear()
        text = "is not started again: its configuration is wrong (see above); SIGHUP tries again"
        told: list[Action] = [Say(worker.number, text, True)]
        if all(other.stage is Stage.RETIRED for other in self._workers.values()):
            self._status = CONFIGURATION_ERROR
            return [*told, *self.drain(now)]
        return told

    def _end_when_done(self) -> list[Action]:
        return [] if any(self._alive()) else [End(self._status)]
