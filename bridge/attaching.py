"""Gives an agent to a channel that is in Asterisk already: taken from its Stasis app, and given back when the agent leaves.

    order -> checked (agent, settings, model) -> admitted (`switchboard`) -> channel taken (`ari_taken`) -> media -> model

From its StasisStart in our app on it is a call like any other that has come. Where it stood until its media came, it can be
ended here, by id; two orders for one channel are never merged: the second is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any
from uuid import uuid4

import trio

from bridge import routing
from bridge.agent import Agent
from bridge.ari_app import AriApp
from bridge.ari_taken import take
from bridge.call_settings import agent_of_call
from bridge.config import Config, Realtime
from bridge.ending import EndReason
from bridge.endpoint import endpoint_of
from bridge.errors import ConfigError, ControlUnavailable
from bridge.health import CallCounts
from bridge.http_exchange import Page, json_page
from bridge.live_call import LiveCall
from bridge.live_config import LiveConfig
from bridge.model_choice import ModelChoice, realtime_at
from bridge.opening import Opening
from bridge.outbound import AttachOrder, check_facts
from bridge.switchboard import Expectation, Switchboard
from bridge.validation import converted

_CHANNEL = re.compile(r"[\w.;@+-]{1,150}", re.ASCII)
_APP = re.compile(r"[\w.@+-]{1,80}", re.ASCII)


class Attaching:
    """The channels that one process takes. `start` carries out an expectation that is on the switchboard; `ari` is the app,
    None before there is one; `calls` are the running calls of the process."""

    def __init__(
        self,
        live: LiveConfig,
        switchboard: Switchboard,
        counts: CallCounts,
        calls: Mapping[str, LiveCall],
        ari: Callable[[], AriApp | None],
        start: Callable[[Expectation], None],
    ) -> None:
        self._live = live
        self._switchboard = switchboard
        self._counts = counts
        self._calls = calls
        self._ari = ari
        self._start = start
        self._pending: dict[str, Expectation] = {}

    async def attach(self, wanted: Mapping[str, Any]) -> Page:
        """Carry out the JSON object of a request; answered when the channel is ours and its model is being connected.

        Raises `ConfigError` for what is no order, and `ControlError`, as `ari_taken.take` does.
        """
        order = _order(wanted)
        now = self._live.now
        config = now.config
        agent = config.agents.get(order.agent)
        if agent is None:
            raise ConfigError(f"agent: {order.agent!r} is not defined; known: {', '.join(config.agents)}")
        agent = agent_of_call(agent, order.settings, order.session)
        realtime = chosen_model(config, order.model)
        if not config.asterisk.enabled:
            raise ConfigError("asterisk.enabled: channels are taken by ARI, which is off; set it to true")
        app = self._ari()
        if app is None or not app.connected:
            raise ControlUnavailable("no connection to Asterisk's ARI now; `realtime-bridge doctor` finds out why")
        self._admit(order.agent, agent)
        control = await take(app, order.channel, order.return_to)
        try:
            self._admit(order.agent, agent)
        except ControlUnavailable as error:
            control.release_soon(str(error))
            raise
        call_id = uuid4()
        expectation = Expectation(call_id, control, order.agent, agent, control.media_format, now.services)
        expectation.opening = Opening(facts=order.facts.strip(), muted=order.muted)
        expectation.realtime = realtime
        expectation.ended = lambda record: self._forget(str(call_id))
        self._pending[str(call_id)] = expectation
        self._switchboard.expect(expectation)
        self._counts.admit(order.agent)
        self._start(expectation)
        return json_page(202, self._view(str(call_id), expectation) | {"returns_to": control.came_from})

    def view(self, call_id: str) -> dict[str, Any] | None:
        """A call whose media has not come yet. None: it is none."""
        expectation = self._pending.get(call_id)
        if expectation is None or call_id in self._calls:
            return None
        return self._view(call_id, expectation)

    def give_up(self, call_id: str, reason: EndReason, detail: str) -> dict[str, Any] | None:
        """End a call whose media has not come yet, for this reason. None: it is none."""
        view = self.view(call_id)
        if view is not None:
            self._pending[call_id].give_up(reason, detail)
        return view

    def _view(self, call_id: str, expectation: Expectation) -> dict[str, Any]:
        control = expectation.control
        return {
            "id": call_id,
            "agent": expectation.agent_name,
            "caller": control.caller,
            "called": control.called,
            "seconds": 0.0,
            "state": "connecting",
        }

    def _admit(self, agent_name: str, agent: Agent) -> None:
        """Raises `ControlUnavailable` where no call can come in now."""
        refusal = routing.refusal(agent_name, agent) or self._switchboard.admit(trio.current_time())
        if refusal is not None:
            self._counts.refuse(refusal[0])
            raise ControlUnavailable(f"{refusal[0].value}: {refusal[1]}")

    def _forget(self, call_id: str) -> None:
        self._pending.pop(call_id, None)


def _order(wanted: Mapping[str, Any]) -> AttachOrder:
    order = converted(wanted, AttachOrder, whole="the body")
    if _CHANNEL.fullmatch(order.channel) is None:
        raise ConfigError("channel: must be the id of a channel, as ARI and ${UNIQUEID} have it, like 1700000000.17")
    if order.return_to and _APP.fullmatch(order.return_to) is None:
        raise ConfigError("return_to: must be the name of a Stasis app")
    check_facts(order.facts)
    return order


def chosen_model(config: Config, choice: ModelChoice | None) -> Realtime | None:
    """The endpoint of this call; None: that of the settings. Raises `ConfigError` where it may not be chosen, or can not
    work."""
    if choice is None:
        return None
    if not config.server.control_may_choose_model:
        raise ConfigError("model: can not be chosen: server.control_may_choose_model is false")
    realtime = realtime_at(choice, config.realtime)
    try:
        endpoint_of(realtime)
    except ConfigError as error:
        raise ConfigError(f"model: {str(error).replace('realtime.', 'of ')}") from error
    return realtime
