"""Places calls: an order is checked, admitted like any other call, and carried out.

    order -> checked (agent, number, variables) -> admitted (`switchboard`) -> media channel -> model -> rung -> `run_call`

A call counts from its admission to its last farewell, and rings only inside `run_call`, so that every way it can end frees
its place like that of any call. A process that drains takes back whatever still rings.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any
from uuid import uuid4

import trio

from bridge import routing
from bridge.agent import Agent
from bridge.ari_app import AriApp
from bridge.ari_outgoing import OutgoingControl
from bridge.attaching import chosen_model
from bridge.call_hook import AskHook
from bridge.call_settings import agent_of_call
from bridge.config import Config
from bridge.ending import EndReason
from bridge.errors import ConfigError, ControlUnavailable
from bridge.health import CallCounts
from bridge.hook_bodies import Question
from bridge.http_exchange import Page, json_page
from bridge.live_call import LiveCall
from bridge.live_config import LiveConfig
from bridge.opening import calling, opening_of
from bridge.outbound import CallOrder, endpoint_of
from bridge.placed_call import PlacedCall
from bridge.switchboard import DRAINING, Expectation, Switchboard
from bridge.validation import converted

# How long, and of how many calls, the end is told to those who ask for it by HTTP.
KEPT_S = 300.0
MOST_KEPT = 1024


class Placing:
    """The calls that one process places. `start` carries out an expectation that is on the switchboard; `ari` is the app,
    None before there is one; `calls` are the running calls of the process."""

    def __init__(
        self,
        live: LiveConfig,
        switchboard: Switchboard,
        counts: CallCounts,
        calls: Mapping[str, LiveCall],
        ari: Callable[[], AriApp | None],
        start: Callable[[Expectation], None],
        ask: AskHook,
    ) -> None:
        self._live = live
        self._switchboard = switchboard
        self._counts = counts
        self._calls = calls
        self._ari = ari
        self._start = start
        self._ask = ask
        self._placed: OrderedDict[str, PlacedCall] = OrderedDict()

    def place(self, order: CallOrder) -> PlacedCall:
        """Call somebody. Synchronous: returns as soon as the call is admitted.

        Raises `ConfigError` for what may not be called or is no order, `ControlUnavailable` when no call can be placed now.
        """
        now = self._live.now
        agent = now.config.agents.get(order.agent)
        if agent is None:
            raise ConfigError(f"agent: {order.agent!r} is not defined; known: {', '.join(now.config.agents)}")
        endpoint = endpoint_of(order, agent.outbound)
        agent = agent_of_call(agent, order.settings, order.session)
        realtime = chosen_model(now.config, order.model)
        app = self._admit(order.agent, agent)
        call_id, it = uuid4(), agent.outbound
        control = OutgoingControl(
            app,
            call_id,
            endpoint,
            called=order.to,
            shown=order.caller_id or it.caller_id,
            ring_s=order.ring_s or it.ring_s,
            variables=order.variables,
            detect=it.machine != "off",
            after_greeting=it.machine == "message",
        )
        expectation = Expectation(call_id, control, order.agent, calling(agent), app.media_format, now.services)
        expectation.opening = opening_of(agent, order.facts, order.muted)
        expectation.realtime = realtime
        if now.config.hooks.call_url:
            expectation.prepare = partial(self._ask_hook, expectation, order, control, agent, now.config)
        placed = PlacedCall(order, control, expectation, self._calls)
        self._forget()
        self._placed[placed.call_id] = placed
        self._switchboard.expect(expectation)
        self._counts.admit(order.agent)
        self._start(expectation)
        return placed

    async def _ask_hook(
        self, expectation: Expectation, order: CallOrder, control: OutgoingControl, agent: Agent, config: Config
    ) -> None:
        """Who talks, and how, is the call hook's; whom the order's agent may call, and by which endpoint, is decided."""
        question = Question(
            call_id=str(expectation.call_id),
            type="call.outgoing",
            direction="outbound",
            agent=order.agent,
            caller=control.caller,
            called=order.to,
            variables=dict(order.variables),
        )
        chosen = await self._ask(question, agent, config)
        if refusal := chosen.refusal or routing.refusal(chosen.agent_name, chosen.agent):
            expectation.give_up(*refusal)
        expectation.agent_name, expectation.agent = chosen.agent_name, calling(chosen.agent)
        expectation.opening = opening_of(chosen.agent, order.facts, order.muted)

    async def until_connected(self) -> None:
        """Wait for ARI's connection: just after the start of a process there is none yet."""
        while (app := self._ari()) is None or not app.connected:  # noqa: ASYNC110 - once, at the start
            await trio.sleep(0.1)

    def _admit(self, agent_name: str, agent: Agent) -> AriApp:
        if not self._live.config.asterisk.enabled:
            raise ConfigError("asterisk.enabled: calls are placed by ARI, which is off; set it to true")
        app = self._ari()
        if app is None or not app.connected:
            raise ControlUnavailable(
                "no connection to Asterisk's ARI now, by which calls are placed; `realtime-bridge doctor` finds out why"
            )
        most = agent.outbound.max_calls
        refusal = routing.refusal(agent_name, agent) or self._switchboard.admit(trio.current_time())
        if refusal is None and most:
            own = sum(it.order.agent == agent_name and it.record is None for it in self._placed.values())
            if own >= most:
                refusal = (
                    EndReason.REFUSED_BUSY,
                    f"agents.{agent_name}.outbound.max_calls are being placed or running",
                )
        if refusal is not None:
            self._counts.refuse(refusal[0])
            raise ControlUnavailable(f"{refusal[0].value}: {refusal[1]}")
        return app

    def drain(self) -> None:
        """Nobody who is still being rung is to answer a process that ends."""
        for placed in list(self._placed.values()):
            if placed.record is None:
                placed.withdraw(EndReason.SERVER_DRAINING, DRAINING)

    # By HTTP ---------------------------------------------------------------------------------------------------------

    async def place_by_http(self, wanted: Mapping[str, Any]) -> Page:
        """Place the call that the JSON object of a request orders. Raises as `place` does."""
        await trio.lowlevel.checkpoint()
        order = converted(wanted, CallOrder, whole="the body")
        return json_page(202, self.place(order).view())

    def view(self, call_id: str) -> dict[str, Any] | None:
        """A call that was placed, as the control door tells it, also for a while after its end."""
        placed = self._placed.get(call_id)
        return placed.view() if placed is not None else None

    def hang_up(self, call_id: str, reason: str) -> dict[str, Any] | None:
        """End a call that was placed. None: there is none, or it has ended."""
        placed = self._placed.get(call_id)
        if placed is None or placed.record is not None:
            return None
        placed.hang_up(reason)
        return placed.view()

    def _forget(self) -> None:
        """Drop what ended long ago, and what ended first of too many."""
        now, ended = trio.current_time(), [it for it in self._placed.values() if it.record is not None]
        for number, placed in enumerate(ended):
            if now - placed.ended_at > KEPT_S or len(ended) - number >= MOST_KEPT:
                del self._placed[placed.call_id]
