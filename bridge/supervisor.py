"""One command, N worker processes: they are started, watched, restarted and drained here, and told of in one place.

    supervise
    |- watch signals          SIGTERM, SIGINT -> all drain (twice: all end now); SIGHUP -> restart one by one
    |- keep time              what is due by time alone (`WorkerPolicy.tick`)
    |- health                 /healthz, /readyz, /metrics of all workers
    `- run worker xN          one process: start it, hear its reports, pass on orders, wait for its end

Workers share nothing, and no call passes through here: when the supervisor dies, calls go on, and the workers drain,
since nobody would restart them. All decisions are `worker_policy`'s. Each process is this very command again, with its
number in BRIDGE_WORKER; so it reads the configuration anew, and a restart one by one brings a new one, or a new version
of the code, into force without losing a call. What the supervisor itself goes by (`workers`, `health_address`, `drain_s`,
`log_format`) stays until it is restarted.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial

import msgspec
import trio

from bridge.config import Config
from bridge.errors import BridgeError, ConfigError
from bridge.health import Report, WorkerHealth
from bridge.health_server import serve_health
from bridge.live_config import ConfigSource
from bridge.server import OnCall, serve
from bridge.service_manager import tell_service_manager
from bridge.tools import ToolRegistry
from bridge.worker_link import DESCRIPTOR_VARIABLE, LinkError, OrderLine, Receiver, inherited, link
from bridge.worker_policy import Action, End, Kill, Order, Say, Start, Tell, WorkerPolicy

_log = logging.getLogger("bridge.supervisor")

_NUMBER_VARIABLE = "BRIDGE_WORKER"
# Orders that a worker has not read: a drain and a stop.
_ORDERS_SIZE = 4
# Between the farewells of the last calls, which `limits.farewell_s` bounds, and the end of the process.
_LAST_WORDS_S = 5.0
_COULD_NOT_START = 127  # as a shell says it


def _line(order: Order) -> bytes:
    return msgspec.json.encode(OrderLine(order)) + b"\n"


class _Process:
    """What the supervisor holds of one worker's process, from before it exists."""

    def __init__(self) -> None:
        self.process: trio.Process | None = None
        self.killed = False
        self.report: Report | None = None
        self.send, self.receive = trio.open_memory_channel[Order](_ORDERS_SIZE)

    def kill(self) -> None:
        self.killed = True
        if self.process is not None:
            self.process.kill()


class Supervisor:
    """The workers of one command; `command` starts one. `check` is called before a restart one by one: when it raises
    `BridgeError` all stays as it is."""

    def __init__(
        self, config: Config, command: Sequence[str], environ: Mapping[str, str], check: Callable[[], object]
    ) -> None:
        self._config = config
        self._command, self._environ, self._check = list(command), dict(environ), check
        self.policy = WorkerPolicy(config.server.workers, config.limits.drain_s)
        self._processes: dict[int, _Process] = {}
        self._changed = trio.Event()
        self._ended = trio.Event()
        self._status = 0

    async def run(self, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED) -> int:
        """Until all have ended; returns the command's exit status. `started` is told the port of the health pages, or 0.

        Raises `ConfigError` when the health port is taken. Cancelling ends all calls, each with its farewell.
        """
        address = self._config.server.health_address
        async with trio.open_nursery() as self._nursery:
            port = await self._nursery.start(serve_health, address, self.workers) if address else 0
            await self._nursery.start(self._watch_signals)
            self._nursery.start_soon(self._keep_time)
            self._nursery.start_soon(tell_service_manager, lambda: True)
            _log.info("supervising", extra={"facts": {"workers": self.policy.count, "health_port": port or None}})
            self._do(self.policy.begin(trio.current_time()))
            task_status.started(port)
            await self._ended.wait()
            self._nursery.cancel_scope.cancel()
        return self._status

    def workers(self) -> list[WorkerHealth]:
        """How all of them are."""
        return [
            WorkerHealth(
                number,
                self._processes[number].report if number in self._processes else None,
                self.policy.restarts(number),
                self.policy.stage(number).value,
            )
            for number in range(1, self.policy.count + 1)
        ]

    def roll(self) -> None:
        """Restart all, one by one, unless the configuration that they would read is wrong."""
        try:
            self._check()
        except BridgeError as error:
            _log.error("not restarting the workers: %s", error)
            return
        _log.info("restarting the workers one by one")
        self._do(self.policy.roll(trio.current_time()))

    def drain(self) -> None:
        """All finish their calls within `limits.drain_s`; asked a second time, they end them now."""
        _log.info("ending all calls" if self.policy.draining else "draining all workers")
        self._do((self.policy.stop if self.policy.draining else self.policy.drain)(trio.current_time()))

    # Carrying out ----------------------------------------------------------------------------------------------------

    def _do(self, actions: Sequence[Action]) -> None:
        for action in actions:
            match action:
                case Start(worker):
                    self._processes[worker] = _Process()
                    self._nursery.start_soon(self._run_worker, worker, self._processes[worker])
                case Tell(worker, order):
                    try:
                        self._processes[worker].send.send_nowait(order)
                    except trio.WouldBlock:
                        _log.warning(
                            "worker %d has not read %d orders; not telling it %s", worker, _ORDERS_SIZE, order
                        )
                case Kill(worker):
                    self._processes[worker].kill()
                case Say(worker, text, trouble):
                    _log.log(logging.WARNING if trouble else logging.INFO, "worker %d %s", worker, text)
                case End(status):
                    self._status = status
                    self._ended.set()
        self._changed.set()

    async def _keep_time(self) -> None:
        while True:
            self._changed = trio.Event()
            due = self.policy.next_tick()
            with trio.move_on_at(due):
                await self._changed.wait()
            self._do(self.policy.tick(trio.current_time()))

    async def _watch_signals(self, task_status: trio.TaskStatus[None]) -> None:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
            task_status.started()
            async for number in signals:
                if number == signal.SIGHUP:
                    self.roll()
                else:
                    self.drain()

    async def _run_worker(self, number: int, it: _Process) -> None:
        """One process, from its start to its end, which is told to the policy in any case but cancellation."""
        ours, theirs = link()
        status = _COULD_NOT_START
        async with ours:
            with theirs:
                environ = {_NUMBER_VARIABLE: str(number), DESCRIPTOR_VARIABLE: str(theirs.fileno())}
                try:
                    it.process = await trio.lowlevel.open_process(
                        self._command,
                        env=self._environ | environ,
                        pass_fds=[theirs.fileno()],
                        stdin=subprocess.DEVNULL,
                        # Out of reach of Ctrl-C: it is for the supervisor, which passes on what it means.
                        start_new_session=True,
                    )
                except OSError as error:
                    _log.error("worker %d: cannot start %s: %s", number, self._command[0], error)
            if it.process is not None:
                if it.killed:
                    it.process.kill()
                try:
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(self._pass_on, ours, it)
                        nursery.start_soon(self._hear, number, ours, it)
                        status = await it.process.wait()
                        nursery.cancel_scope.cancel()
                finally:
                    await self._see_off(ours, it.process)
        it.report = None
        self._do(self.policy.exited(number, status, trio.current_time()))

    async def _see_off(self, stream: trio.SocketStream, process: trio.Process) -> None:
        """Leave no process behind, also when cancelled: its calls get their farewells, then it is killed."""
        if process.returncode is not None:
            return
        with trio.move_on_after(self._config.limits.farewell_s + _LAST_WORDS_S, shield=True):
            with suppress(trio.BrokenResourceError):
                await stream.send_all(_line(Order.STOP))
            await process.wait()
        if process.returncode is None:
            process.kill()
            with trio.CancelScope(shield=True):  # bounded: nothing survives this signal
                await process.wait()

    async def _pass_on(self, stream: trio.SocketStream, it: _Process) -> None:
        """Its orders to the worker."""
        try:
            async for order in it.receive:
                await stream.send_all(_line(order))
        except trio.BrokenResourceError:
            return  # it has ended, which `wait` tells

    async def _hear(self, number: int, stream: trio.SocketStream, it: _Process) -> None:
        """Its reports. A worker that says something else is not ours to understand, but may well serve calls."""
        try:
            receiver = Receiver(stream, Report)
            while (report := await receiver.receive()) is not None:
                if report.families is None and it.report is not None:
                    report = msgspec.structs.replace(report, families=it.report.families)
                it.report = report
                self._do(self.policy.reported(number, report.up, trio.current_time()))
        except LinkError as error:
            _log.error("worker %d: %s", number, error)


def run(
    config: Config,
    *,
    tools: ToolRegistry | None = None,
    on_call: OnCall | None = None,
    source: ConfigSource | None = None,
    command: Sequence[str] = (),
    check: Callable[[], object] = lambda: None,
) -> int:
    """Serve calls as `server.workers` says: in this process, or in so many of them that this one supervises.

    Returns the exit status of the command. `command` is what starts a worker; by default this very command again, which
    must come to this call, with the same settings from a `load_config(text, os.environ)` of its own. `check` (raising
    `BridgeError`) is asked before SIGHUP restarts the workers. Raises `ConfigError`, alone or in a group.
    """
    if config.server.workers > 1 and not config.server.worker:
        command = command or [sys.executable, *sys.orig_argv[1:]]
        return trio.run(Supervisor(config, command, os.environ, check).run)
    if config.server.worker == 0 and os.environ.get(DESCRIPTOR_VARIABLE):
        raise ConfigError(f"server.worker: {_NUMBER_VARIABLE} is set, but its number was lost on the way to `run`")
    trio.run(partial(_serve, config, tools, on_call, source))
    return 0


async def _serve(
    config: Config, tools: ToolRegistry | None, on_call: OnCall | None, source: ConfigSource | None
) -> None:
    await serve(config, tools=tools, on_call=on_call, source=source, supervisor=inherited(os.environ))
