"""One process: it listens for AudioSocket connections, serves a Stasis application, and ends without losing a caller.

serve
|- watch signals                 SIGTERM, SIGINT, SIGHUP -> drain: nothing new, running calls finish within `limits.drain_s`
|- health                        the pages of `health`; of several workers each reports to its supervisor instead
|- control door                  `control_desk`: what an operator, or the dialplan, asks by HTTP
|- ARI application               one websocket, reconnects for ever
|- listen for AudioSocket
`- calls (nursery)
    |- arrivals                  a channel has entered Stasis; a media connection has come
    `- websocket clients         `gateway`
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial

import httpx
import trio
from prometheus_client import ProcessCollector

from bridge import __version__
from bridge.ari_app import AriApp
from bridge.arrivals import Arrivals
from bridge.attaching import Attaching
from bridge.call import Services
from bridge.call_hook import AskHook, ask_about
from bridge.call_metrics import CallMetrics
from bridge.call_recording import InThread, in_thread
from bridge.call_watcher import CallWatcher, run_watcher
from bridge.config import Config
from bridge.control_commands import MAX_BODY
from bridge.control_desk import ControlDesk
from bridge.control_stream import ControlStream
from bridge.errors import ConfigError
from bridge.gateway import Gateway
from bridge.health import CallCounts, Report, WorkerHealth
from bridge.health_server import serve_health
from bridge.http_server import port_of, serve_http
from bridge.lateness import Lateness
from bridge.live_call import LiveCall
from bridge.live_config import ConfigSource, LiveConfig, prepare
from bridge.media_clock import MediaClock
from bridge.metrics import Metrics
from bridge.placing import Placing
from bridge.plain_calls import PlainCalls
from bridge.service_manager import tell_service_manager
from bridge.switchboard import Switchboard
from bridge.tools import ToolRegistry
from bridge.turned_away import turn_away
from bridge.watchers import watchers_of
from bridge.webhook_client import WebhookClient
from bridge.worker_link import LinkError, OrderLine, Receiver, report_to
from bridge.worker_policy import Order

_log = logging.getLogger("bridge.server")

OnCall = Callable[[LiveCall], Awaitable[None]]

# SIGHUP: the terminal is gone, or `systemctl reload` where there are no workers to be replaced; it would kill all calls.
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


# The dialplans of all plain calls of a worker that ends them at once.
MOST_ASK_AT_ONCE = 512


@dataclass(frozen=True, slots=True)
class Seams:
    """What tests replace: how the outside world is reached. The defaults are the network."""

    connect_model: Callable[[], trio.abc.Stream] | None = None
    connect_ari: Callable[[], trio.abc.Stream] | None = None
    listeners: list[trio.abc.Listener[trio.abc.Stream]] | None = None
    control_listeners: list[trio.abc.Listener[trio.abc.Stream]] | None = None
    gateway_listeners: list[trio.abc.Listener[trio.abc.Stream]] | None = None
    run_blocking: InThread = in_thread
    http: httpx.AsyncBaseTransport | None = None
    watchers: Sequence[CallWatcher] = ()


@dataclass(frozen=True, slots=True)
class Ready:
    """Told when the process can take calls, and place some by `placing.place`. The ports are the real ones where 0 was
    configured; no door: 0."""

    audiosocket_port: int
    drain: Callable[[], None]
    placing: Placing
    control_port: int = 0
    gateway_port: int = 0


class Bridge:
    """The calls of one process."""

    def __init__(
        self, config: Config, seams: Seams, tools: ToolRegistry, on_call: OnCall | None, source: ConfigSource | None
    ) -> None:
        self.metrics = _metrics()
        self.metrics.begin(config.agents)
        self._lateness = Lateness(config.server.max_lateness_ms)
        lateness = self._lateness
        self.metrics.distribution("frame_lateness_seconds", "How late frames left for callers.", lateness.sent)
        self.metrics.counted("frames_lost", "Frames that were too late to be sent at all.", lambda: lateness.lost)
        self.switchboard = Switchboard(config.server.max_calls, self._lateness)
        self.counts = CallCounts(self.metrics)
        self._ari: AriApp | None = None
        self._listening = False
        self._webhooks = WebhookClient(seams.http)
        watchers: list[CallWatcher] = [
            CallMetrics(self.metrics),
            *watchers_of(config, self.metrics, seams.run_blocking, self._webhooks),
            *seams.watchers,
        ]
        prepare_with = partial(prepare, application=tools, client=self._webhooks)
        prepared = prepare_with(config)
        services = Services(
            realtime=config.realtime,
            limits=config.limits,
            clock=MediaClock(self._lateness.note),
            answer=config.asterisk.answer,
            lag_ms=config.asterisk.lag_ms,
            tools_for=prepared.tools.tools_for,
            sounds=prepared.sounds,
            prices=prepared.prices,
            connect_stream=seams.connect_model,
            run_blocking=seams.run_blocking,
            on_call=on_call,
            controlled=bool(config.server.control_address and config.server.control_token),
            watchers=watchers,
        )
        self._seams = seams
        self._draining = trio.Event()
        self._live = LiveConfig(config, services, prepare_with, source, self.metrics)
        ask_hook: AskHook = partial(ask_about, client=self._webhooks)
        turned_away = partial(turn_away, self._live)
        self._plain = PlainCalls(self._live, self.switchboard, self.counts, turned_away, ask_hook)
        self._gateway = Gateway(self._live, self.switchboard, self.counts, turned_away, ask_hook)
        self._arrivals = Arrivals(
            self._live,
            self.switchboard,
            self.counts,
            self._plain,
            turned_away,
            ask_hook,
            lambda: self._ari,
            self._start,
        )
        self.desk = ControlDesk(config.server.control_token, services.calls, self._plain.ending, self._plain.steps)
        self.streams = ControlStream(config.server.control_token, self.desk, services.calls)
        self.desk.streams = self.streams
        watchers += [self.desk, self.streams]
        self._watchers = watchers
        self.placing = Placing(
            self._live,
            self.switchboard,
            self.counts,
            services.calls,
            lambda: self._ari,
            self._arrivals.placed,
            ask_hook,
        )
        self.desk.placing = self.placing
        self.desk.attaching = Attaching(
            self._live, self.switchboard, self.counts, services.calls, lambda: self._ari, self._arrivals.attached
        )
        self._control_port = 0

    def drain(self) -> None:
        """Take no new calls, let the running ones finish within the limit, then end. Synchronous, idempotent."""
        if not self._draining.is_set():
            _log.info("draining", extra={"facts": {"calls": self.switchboard.running}})
        self.switchboard.draining = True
        self.placing.drain()
        self._draining.set()

    def report(self) -> Report:
        """How this process is now."""
        now, counts = trio.current_time(), self.counts
        return Report(
            pid=os.getpid(),
            listening=self._listening,
            connected=self._ari.connected if self._ari else not self._live.config.asterisk.enabled,
            draining=self.switchboard.draining,
            full=self.switchboard.admit(now) is not None,
            calls=self.switchboard.running,
            calls_waiting=self.switchboard.waiting,
            calls_max=self._live.config.server.max_calls,
            admitted=counts.admitted,
            refused=dict(counts.refused),
            ended=dict(counts.ended),
            lateness_p99_ms=self._lateness.p99_ms(now),
        )

    async def open_door(self, nursery: trio.Nursery) -> None:
        """Serve the control door in `nursery`, if there is to be one. Raises `ConfigError` when its port is taken."""
        address = self._live.config.server.control_address
        if address:
            serve_door = partial(
                serve_http,
                setting="server.control_address",
                most_at_once=MOST_ASK_AT_ONCE,
                max_body=MAX_BODY,
                listeners=self._seams.control_listeners,
            )
            self._control_port = await nursery.start(serve_door, address, self.desk.answer)

    async def run(self, task_status: trio.TaskStatus[Ready]) -> None:
        """Serve until drained. Cancelling ends all calls at once, each with its farewell."""
        # Not cancelled with the rest: the farewells of the last calls, which are bounded, need the control connection.
        control_scope = trio.CancelScope(shield=True)
        async with aclosing(self._webhooks), trio.open_nursery() as outer:
            for watcher in tuple(self._watchers):
                await outer.start(partial(run_watcher, watcher, self._watchers))
            outer.start_soon(self._live.services.clock.run)
            outer.start_soon(self._live.watch)
            outer.start_soon(self._serve_control, control_scope)
            try:
                async with trio.open_nursery() as self._calls:
                    async with trio.open_nursery() as listening:
                        listeners = self._seams.listeners or await self._open_listeners()
                        listening.start_soon(
                            partial(
                                trio.serve_listeners,
                                self._arrivals.connection,
                                listeners,
                                handler_nursery=self._calls,
                            )
                        )
                        port = port_of(listeners)
                        gateway_port = await self._open_gateway(listening)
                        self._listening = True
                        task_status.started(Ready(port, self.drain, self.placing, self._control_port, gateway_port))
                        _log.info("listening for AudioSocket", extra={"facts": {"port": port}})
                        await self._draining.wait()
                        self._listening = False
                        listening.cancel_scope.cancel()
                    deadline = trio.current_time() + self._live.config.limits.drain_s
                    self._calls.cancel_scope.deadline = deadline
                if self._ari is not None:
                    # Somebody must hang up the one when the other has gone. Who still talks when time is up talks on, and
                    # the next process looks after them.
                    with trio.move_on_at(deadline):
                        await self._ari.all_parted()
                    if self._ari.transferred:
                        _log.warning(
                            "transferred calls go on without us", extra={"facts": {"calls": self._ari.transferred}}
                        )
                await self.streams.close()
            finally:
                control_scope.cancel()
                outer.cancel_scope.cancel()
        await self._plain.last_questions()
        _log.info("drained")

    async def _serve_control(self, scope: trio.CancelScope) -> None:
        with scope:
            if self._live.config.asterisk.enabled:
                self._ari = AriApp(
                    self._live.config.asterisk,
                    self._live.config.limits.ari_request_s,
                    self._arrivals.channel,
                    connect_stream=self._seams.connect_ari,
                )
                await self._ari.run()

    async def _open_listeners(self) -> list[trio.abc.Listener[trio.abc.Stream]]:
        server = self._live.config.server
        try:
            return list(await trio.open_tcp_listeners(server.audiosocket_port, host=server.audiosocket_host))
        except OSError as error:
            raise ConfigError(
                f"cannot listen on {server.audiosocket_host}:{server.audiosocket_port}: {error.strerror or error}; "
                "is another bridge running, or server.audiosocket_host not an address of this machine?"
            ) from error

    async def _open_gateway(self, listening: trio.Nursery) -> int:
        """Serve websocket clients in `listening`, if there are to be any; returns the port."""
        if not self._live.config.gateway.enabled:
            return 0
        listeners = self._seams.gateway_listeners or list(await self._gateway.open_listeners())
        listening.start_soon(
            partial(trio.serve_listeners, self._gateway.handle, listeners, handler_nursery=self._calls)
        )
        port = port_of(listeners)
        _log.info("listening for websocket clients", extra={"facts": {"port": port}})
        return port

    def _start(self, run: Callable[..., Awaitable[object]], *arguments: object) -> None:
        """Beside the calls; once all have ended, and this process only waits for whom they have transferred, beside those:
        what comes then is refused as draining."""
        try:
            self._calls.start_soon(run, *arguments)
        except RuntimeError:
            assert self._ari is not None
            self._ari.soon(run, *arguments)


def _metrics() -> Metrics:
    """Those of this process, with the usual `process_...` ones."""
    metrics = Metrics(__version__)
    ProcessCollector(registry=metrics.registry)
    return metrics


async def serve(
    config: Config,
    *,
    seams: Seams | None = None,
    tools: ToolRegistry | None = None,
    on_call: OnCall | None = None,
    supervisor: trio.abc.Stream | None = None,
    source: ConfigSource | None = None,
    task_status: trio.TaskStatus[Ready] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve calls in this process until a signal, then drain. A second one, but SIGHUP, ends the running calls at once.

    `tools` may be called by the agents; `on_call` is run for each call, beside it (see `live_call`). `supervisor` is the
    worker's end of a `worker_link`: reports go there, and orders come from there, so that any number of signals only
    drains. `source`, from which `config` was loaded, is watched: when its files change, new calls have their settings
    (`live_config`). Raises `ConfigError` when it can not listen. Cancelling ends all calls, each with its farewell.
    """
    bridge = Bridge(config, seams or Seams(), tools or ToolRegistry(), on_call, source)
    server = config.server
    if server.workers > 1 and not server.worker:
        _log.warning("server.workers is %d, but `serve` is one process; see `bridge.supervisor.run`", server.workers)
    async with trio.open_nursery() as nursery:
        if supervisor is not None:
            nursery.start_soon(report_to, supervisor, bridge.report, bridge.metrics.families)
            nursery.start_soon(_obey, supervisor, bridge, nursery.cancel_scope)
        else:
            nursery.start_soon(tell_service_manager, lambda: bridge.report().listening)
        if supervisor is None and server.health_address:

            def health() -> list[WorkerHealth]:
                return [WorkerHealth(server.worker or 1, bridge.report(), families=bridge.metrics.families())]

            await nursery.start(serve_health, server.health_address, health)
        await bridge.open_door(nursery)
        nursery.start_soon(_watch_signals, bridge, nursery.cancel_scope, supervisor is None)
        await bridge.run(task_status)
        nursery.cancel_scope.cancel()


async def _watch_signals(bridge: Bridge, everything: trio.CancelScope, second_ends: bool) -> None:
    with trio.open_signal_receiver(*_SIGNALS) as signals:
        async for number in signals:
            if second_ends and bridge.switchboard.draining and number != signal.SIGHUP:
                everything.cancel()
            bridge.drain()


async def _obey(supervisor: trio.abc.Stream, bridge: Bridge, everything: trio.CancelScope) -> None:
    """Drain or stop as told. Without a supervisor nobody would start us again: then drain, for whoever comes next."""
    try:
        receiver = Receiver(supervisor, OrderLine)
        while (line := await receiver.receive()) is not None:
            bridge.drain()
            if line.order is Order.STOP:
                everything.cancel()
        why = "the supervisor is gone"
    except LinkError as error:
        why = str(error)
    _log.error("%s; draining", why)
    bridge.drain()
