"""One process: it listens for AudioSocket connections, serves a Stasis application, and ends without losing a caller.

serve
|- watch signals                 SIGTERM, SIGINT, SIGHUP -> drain: nothing new, running calls finish within `limits.drain_s`
|- health                        the pages of `health`; of several workers each reports to its supervisor instead
|- control door                  `control_desk`: what an operator, or the dialplan, asks by HTTP
|- ARI application               one websocket, reconnects for ever
|- listen for AudioSocket
`- calls (nursery)
    |- prepare_call              a channel has entered Stasis: make its media come to us
    `- handle_connection         a media connection has arrived: identify it, claim its call, run it
"""

from __future__ import annotations

import dataclasses
import logging
import os
import signal
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from uuid import UUID, uuid4

import httpx
import trio
from prometheus_client import ProcessCollector

from bridge import __version__, routing, telemetry
from bridge.agent import Agent
from bridge.ari_app import AriApp
from bridge.ari_control import ChannelControl
from bridge.attaching import Attaching
from bridge.audio import PcmFormat
from bridge.audiosocket_leg import AudioSocketLeg, identify, part
from bridge.call import Services, run_call
from bridge.call_hook import AskHook, Chosen, ask_about
from bridge.call_metrics import CallMetrics
from bridge.call_record import CallRecord
from bridge.call_recording import InThread, in_thread
from bridge.call_watcher import CallWatcher, tell_of_end
from bridge.config import Config
from bridge.control_commands import MAX_BODY
from bridge.control_desk import ControlDesk
from bridge.control_stream import ControlStream
from bridge.ending import FAREWELLS, EndReason, reason_for
from bridge.errors import ConfigError, ControlError, MediaError
from bridge.gateway import Gateway
from bridge.health import CallCounts, Report, WorkerHealth
from bridge.health_server import serve_health
from bridge.hook_bodies import Question
from bridge.http_server import serve_http
from bridge.lateness import Lateness
from bridge.leg import CallControl, ControlHungUp
from bridge.live_call import LiveCall
from bridge.live_config import ConfigSource, LiveConfig, prepare
from bridge.media_clock import MediaClock
from bridge.metrics import Metrics
from bridge.placing import Placing
from bridge.plain_calls import PlainCalls
from bridge.service_manager import tell_service_manager
from bridge.switchboard import DRAINING, Expectation, Switchboard
from bridge.tools import ToolRegistry
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
        watchers = [
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
        self._ask_hook: AskHook = partial(ask_about, client=self._webhooks)
        self._plain = PlainCalls(self._live, self.switchboard, self.counts, self._turn_away, self._ask_hook)
        self._gateway = Gateway(self._live, self.switchboard, self.counts, self._turn_away, self._ask_hook)
        self.desk = ControlDesk(config.server.control_token, services.calls, self._plain.ending, self._plain.steps)
        self.streams = ControlStream(config.server.control_token, self.desk, services.calls)
        self.desk.streams = self.streams
        watchers += [self.desk, self.streams]
        self.placing = Placing(
            self._live,
            self.switchboard,
            self.counts,
            services.calls,
            lambda: self._ari,
            self._start_placed,
            self._ask_hook,
        )
        self.desk.placing = self.placing
        self.desk.attaching = Attaching(
            self._live, self.switchboard, self.counts, services.calls, lambda: self._ari, self._start_attached
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
            for watcher in self._live.services.watchers:
                await outer.start(watcher.run)
            outer.start_soon(self._live.services.clock.run)
            outer.start_soon(self._live.watch)
            outer.start_soon(self._serve_control, control_scope)
            try:
                async with trio.open_nursery() as self._calls:
                    async with trio.open_nursery() as listening:
                        listeners = self._seams.listeners or await self._open_listeners()
                        listening.start_soon(self._listen, listeners)
                        port = _port_of(listeners)
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
                    self._on_channel,
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
        port = _port_of(listeners)
        _log.info("listening for websocket clients", extra={"facts": {"port": port}})
        return port

    async def _listen(self, listeners: list[trio.abc.Listener[trio.abc.Stream]]) -> None:
        await trio.serve_listeners(self._handle_connection, listeners, handler_nursery=self._calls)

    # A channel has entered Stasis ------------------------------------------------------------------------------------

    def _on_channel(self, control: ChannelControl) -> None:
        try:
            self._calls.start_soon(self._prepare_call, control)
        except RuntimeError:
            # All calls have ended, and this process only waits for whom they have transferred: refused as draining.
            assert self._ari is not None
            self._ari.soon(self._prepare_call, control)

    async def _prepare_call(self, control: ChannelControl) -> None:
        """Have Asterisk dial our AudioSocket port for this channel, and give it up when that does not happen in time."""
        call_id = uuid4()
        telemetry.call_id_of_context.set(str(call_id))
        name = ""
        refusal: tuple[EndReason, str] | None = (EndReason.SERVER_DRAINING, DRAINING)
        try:
            now = self._live.now
            name, agent, variables = await self._route(control, now.config)
            full = self.switchboard.admit(trio.current_time())
            if full is None:
                chosen = await self._ask_about(call_id, control, name, agent, variables, now.config)
                name, agent = chosen.agent_name, chosen.agent
                full = chosen.refusal or routing.refusal(name, agent) or self.switchboard.admit(trio.current_time())
            refusal = full
        except Exception as error:
            _log.exception("a defect of the bridge ended this call before it began")
            refusal = reason_for(error)[:2]
        finally:
            if refusal is not None:
                self.counts.refuse(refusal[0])
                await self._turn_away(call_id, name, control, *refusal)
        if refusal is not None:
            return
        self.counts.admit(name)
        telemetry.notice(
            "call_arrives",
            {"channel": control.name, "caller": control.caller, "called": control.called, "agent": name},
        )
        expectation = Expectation(call_id, control, name, agent, control.media_format, now.services)
        self.switchboard.expect(expectation)
        await self._connect(control, expectation)

    def _start_placed(self, expectation: Expectation) -> None:
        self._calls.start_soon(self._connect_placed, expectation)

    async def _connect_placed(self, expectation: Expectation) -> None:
        """A call that we place has been admitted: it goes on like one that has come, and is rung inside `run_call`."""
        control = expectation.control
        assert isinstance(control, ChannelControl)
        telemetry.call_id_of_context.set(str(expectation.call_id))
        telemetry.notice(
            "call_placed", {"called": control.called, "caller": control.caller, "agent": expectation.agent_name}
        )
        await self._connect(control, expectation)

    def _start_attached(self, expectation: Expectation) -> None:
        self._calls.start_soon(self._connect_attached, expectation)

    async def _connect_attached(self, expectation: Expectation) -> None:
        """A channel was taken for a call: it goes on like one that has come by itself."""
        control = expectation.control
        assert isinstance(control, ChannelControl)
        telemetry.call_id_of_context.set(str(expectation.call_id))
        telemetry.notice(
            "call_attached",
            {
                "channel": control.name,
                "caller": control.caller,
                "called": control.called,
                "agent": expectation.agent_name,
            },
        )
        await self._connect(control, expectation)

    async def _connect(self, control: ChannelControl, expectation: Expectation) -> None:
        """Bring the media of an admitted call, or end it."""
        call_id = expectation.call_id
        reason, detail = EndReason.SERVER_DRAINING, DRAINING
        try:
            with expectation.scope:
                if expectation.prepare is not None:
                    await expectation.prepare()
                reason, detail = await self._bring_media(control, expectation)
            reason, detail = expectation.given_up or (reason, detail)
        except Exception as error:
            _log.exception("a defect of the bridge ended this call before it began")
            reason, detail, _ = reason_for(error)
        finally:
            if self.switchboard.withdraw(call_id):
                self.counts.end(reason, expectation.agent_name)
                expectation.ended(await self._turn_away(call_id, expectation.agent_name, control, reason, detail))
            elif expectation.hung_up is not None:
                # The media came at the same moment: this was for the call that has begun.
                control.unread(expectation.hung_up)

    async def _route(self, control: ChannelControl, config: Config) -> tuple[str, Agent, Mapping[str, str]]:
        """The agent of a call, with what this call has otherwise, and the variables that decided. Asks Asterisk only where
        a route wants to know more."""
        argument, *changes = control.arguments or [""]
        facts = routing.Facts(argument, control.called, control.party[0])
        if names := routing.wanted(config.routes, facts):
            facts = dataclasses.replace(facts, variables=await control.variables(names))
        name, agent = routing.choose(config.routes, config.agents, facts)
        if changes:
            agent, warnings = routing.overridden(name, agent, changes)
            for warning in warnings:
                _log.warning("%s", warning)
        return name, agent, facts.variables

    async def _ask_about(
        self,
        call_id: UUID,
        control: ChannelControl,
        name: str,
        agent: Agent,
        variables: Mapping[str, str],
        config: Config,
    ) -> Chosen:
        """Whom the call hook has for this call, where there is one; the caller hears ringing meanwhile."""
        number, caller_name = control.party
        question = Question(
            call_id=str(call_id),
            agent=name,
            caller=number,
            caller_name=caller_name,
            called=control.called,
            channel=control.name,
            arguments=control.arguments,
            variables=dict(variables),
        )
        return await self._ask_hook(question, agent, config)

    async def _bring_media(self, control: ChannelControl, expectation: Expectation) -> tuple[EndReason, str]:
        """Have Asterisk connect; returns when it has, or what to tell of a call whose media did not come."""
        config, limits = self._live.config, expectation.services.limits
        outcome = (
            EndReason.MEDIA_NEVER_ARRIVED,
            f"Asterisk did not reach {config.asterisk.media_address} within {limits.media_arrival_s:g} s: "
            "is asterisk.media_address right as seen from Asterisk?",
        )
        with trio.move_on_after(limits.media_arrival_s):
            async with trio.open_nursery() as nursery:

                async def ask() -> None:
                    nonlocal outcome
                    try:
                        await control.prepare_media(expectation.call_id, expectation.media_format.value)
                        await expectation.arrived.wait()
                    except ControlError as error:
                        reached = self._ari is not None and self._ari.connected
                        reason = EndReason.MEDIA_NEVER_ARRIVED if reached else EndReason.CONTROL_LOST
                        outcome = reason, str(error)
                    nursery.cancel_scope.cancel()

                nursery.start_soon(ask)
                # A key pressed this early is dropped: there is nobody yet to press it for.
                while not isinstance(event := await control.next_event(), ControlHungUp):
                    pass
                outcome = EndReason.CALLER_HUNG_UP, event.detail
                expectation.hung_up = event
                nursery.cancel_scope.cancel()
        return outcome

    async def _turn_away(
        self, call_id: UUID, agent: str, control: CallControl, reason: EndReason, detail: str
    ) -> CallRecord:
        """End a call that never got as far as `run_call`; it has its record all the same."""
        with trio.move_on_after(self._live.config.limits.farewell_s, shield=True):
            await control.release(reason, detail)
        farewell = FAREWELLS[reason]
        record = CallRecord(
            call_id=str(call_id),
            agent=agent,
            direction="outbound" if control.places else "inbound",
            caller=control.caller,
            called=control.called,
            began_unix_s=time.time(),
        )
        record.reason, record.detail, record.completion_reason = reason.value, detail, farewell.completion.value
        record.error = {"code": None, "message": detail} if farewell.failure else None
        telemetry.call_ended(record, failure=farewell.failure)
        await tell_of_end(self._live.services.watchers, record, self._live.config.limits.farewell_s)
        return record

    # A media connection has arrived ----------------------------------------------------------------------------------

    async def _handle_connection(self, stream: trio.abc.Stream) -> None:
        """One media connection, from its first byte to its end. Whatever goes wrong stays in this call."""
        farewell_s = self._live.config.limits.farewell_s
        try:
            with trio.fail_after(self._live.config.limits.identify_s):
                leg = await identify(stream)
        except (MediaError, trio.TooSlowError) as error:
            why = "no UUID frame in time" if isinstance(error, trio.TooSlowError) else str(error)
            _log.warning("media connection refused", extra={"facts": {"reason": "protocol_error", "detail": why}})
            with trio.move_on_after(farewell_s, shield=True):
                await part(stream)
            return
        telemetry.call_id_of_context.set(str(leg.call_id))
        try:
            await self._run(leg)
        except Exception:
            _log.exception("a defect of the bridge ended this call")
        finally:
            with trio.move_on_after(farewell_s, shield=True):
                await leg.close(FAREWELLS[EndReason.INTERNAL_ERROR])

    async def _run(self, leg: AudioSocketLeg) -> None:
        expectation = self.switchboard.claim(leg.call_id)
        if expectation is not None:
            leg.expect_format(PcmFormat(expectation.media_format.rate_hz))
            await self._hold(leg, expectation)
        elif self.switchboard.came_too_late(leg.call_id):
            _log.warning("media came after its call had been given up; raise limits.media_arrival_s if that is usual")
        elif not self._live.config.server.accept_plain_calls:
            _log.warning("unknown UUID refused; plain calls are off (server.accept_plain_calls)")
        else:
            await self._plain.run(leg)

    async def _hold(self, leg: AudioSocketLeg, it: Expectation) -> None:
        record = CallRecord(
            call_id=str(it.call_id), began_unix_s=time.time(), reason=EndReason.SERVER_DRAINING.value, detail=DRAINING
        )
        try:
            with self.switchboard.slot():
                services = it.services.of(it.agent)
                if it.realtime is not None:
                    services = dataclasses.replace(services, realtime=it.realtime)
                record = await run_call(leg, it.control, it.agent_name, it.agent, services, it.opening)
            self.counts.end(record.reason, it.agent_name)
        finally:
            it.ended(record)


def _metrics() -> Metrics:
    """Those of this process, with the usual `process_...` ones."""
    metrics = Metrics(__version__)
    ProcessCollector(registry=metrics.registry)
    return metrics


def _port_of(listeners: list[trio.abc.Listener[trio.abc.Stream]]) -> int:
    first = listeners[0]
    return int(first.socket.getsockname()[1]) if isinstance(first, trio.SocketListener) else 0


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
