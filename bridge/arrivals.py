"""How a call comes into being: by a channel in our Stasis app, which came, was placed or was attached, and by its media.

    channel ----> route, call hook, admission --+
    placed, attached ---------------------------+--> expect, ask Asterisk to dial us --+
    connection --> identify ---------------------------------------------------------- +--> claim --> run_call
                   `- a UUID that nobody expects: `plain_calls`

Whatever does not become a call is turned away, with its record.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Mapping
from uuid import UUID, uuid4

import trio

from bridge import routing, telemetry
from bridge.agent import Agent
from bridge.ari_app import AriApp
from bridge.ari_control import ChannelControl
from bridge.audio import PcmFormat
from bridge.audiosocket_leg import AudioSocketLeg, identify, part
from bridge.call import run_call
from bridge.call_hook import AskHook, Chosen
from bridge.call_record import CallRecord
from bridge.config import Config
from bridge.ending import FAREWELLS, EndReason, reason_for
from bridge.errors import ControlError, MediaError
from bridge.health import CallCounts
from bridge.hook_bodies import Question
from bridge.leg import ControlHungUp
from bridge.live_config import LiveConfig
from bridge.plain_calls import PlainCalls
from bridge.switchboard import DRAINING, Expectation, Switchboard
from bridge.turned_away import TurnAway

_log = logging.getLogger("bridge.server")

Start = Callable[..., None]
"""Runs an async function with its arguments beside all calls, as `trio.Nursery.start_soon` does."""


class Arrivals:
    """Those of one process. `ari` tells the control connection, once there is one."""

    def __init__(
        self,
        live: LiveConfig,
        switchboard: Switchboard,
        counts: CallCounts,
        plain: PlainCalls,
        turn_away: TurnAway,
        ask_hook: AskHook,
        ari: Callable[[], AriApp | None],
        start: Start,
    ) -> None:
        self._live = live
        self._switchboard = switchboard
        self._counts = counts
        self._plain = plain
        self._turn_away = turn_away
        self._ask_hook = ask_hook
        self._ari = ari
        self._start = start

    # A channel has entered Stasis ------------------------------------------------------------------------------------

    def channel(self, control: ChannelControl) -> None:
        """A channel has entered our Stasis app."""
        self._start(self._prepare_call, control)

    async def _prepare_call(self, control: ChannelControl) -> None:
        """Have Asterisk dial our AudioSocket port for this channel, and give it up when that does not happen in time."""
        call_id = uuid4()
        telemetry.call_id_of_context.set(str(call_id))
        name = ""
        refusal: tuple[EndReason, str] | None = (EndReason.SERVER_DRAINING, DRAINING)
        try:
            now = self._live.now
            name, agent, variables = await self._route(control, now.config)
            full = self._switchboard.admit(trio.current_time())
            if full is None:
                chosen = await self._ask_about(call_id, control, name, agent, variables, now.config)
                name, agent = chosen.agent_name, chosen.agent
                full = chosen.refusal or routing.refusal(name, agent) or self._switchboard.admit(trio.current_time())
            refusal = full
        except Exception as error:
            _log.exception("a defect of the bridge ended this call before it began")
            refusal = reason_for(error)[:2]
        finally:
            if refusal is not None:
                self._counts.refuse(refusal[0])
                await self._turn_away(call_id, name, control, *refusal)
        if refusal is not None:
            return
        self._counts.admit(name)
        telemetry.notice(
            "call_arrives",
            {"channel": control.name, "caller": control.caller, "called": control.called, "agent": name},
        )
        expectation = Expectation(call_id, control, name, agent, control.media_format, now.services)
        self._switchboard.expect(expectation)
        await self._connect(control, expectation)

    def placed(self, expectation: Expectation) -> None:
        """A call that we place has been admitted. It goes on like one that has come, and is rung inside `run_call`."""
        self._start(self._connect_ordered, "call_placed", {}, expectation)

    def attached(self, expectation: Expectation) -> None:
        """A channel was taken for a call. It goes on like one that has come by itself."""
        control = expectation.control
        assert isinstance(control, ChannelControl)
        self._start(self._connect_ordered, "call_attached", {"channel": control.name}, expectation)

    async def _connect_ordered(self, event: str, facts: Mapping[str, object], expectation: Expectation) -> None:
        control = expectation.control
        assert isinstance(control, ChannelControl)
        telemetry.call_id_of_context.set(str(expectation.call_id))
        parties = {"caller": control.caller, "called": control.called, "agent": expectation.agent_name}
        telemetry.notice(event, {**facts, **parties})
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
            if self._switchboard.withdraw(call_id):
                self._counts.end(reason, expectation.agent_name)
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
                        ari = self._ari()
                        reached = ari is not None and ari.connected
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

    # A media connection has arrived ----------------------------------------------------------------------------------

    async def connection(self, stream: trio.abc.Stream) -> None:
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
        expectation = self._switchboard.claim(leg.call_id)
        if expectation is not None:
            leg.expect_format(PcmFormat(expectation.media_format.rate_hz))
            await self._hold(leg, expectation)
        elif self._switchboard.came_too_late(leg.call_id):
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
            with self._switchboard.slot():
                services = it.services.of(it.agent)
                if it.realtime is not None:
                    services = dataclasses.replace(services, realtime=it.realtime)
                record = await run_call(leg, it.control, it.agent_name, it.agent, services, it.opening)
            self._counts.end(record.reason, it.agent_name)
        finally:
            it.ended(record)
