"""Counts what happens in calls: turns, lost sessions, tokens and cost as they come, all else when the call has ended, from
its record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import trio

from bridge.call_events import CallEvent
from bridge.call_record import CallRecord
from bridge.latency import SPANS
from bridge.live_call import LiveCall
from bridge.metrics import Metrics
from bridge.prices import NANO
from bridge.usage import UsageTotals

# What a model calls and nobody has declared: it may invent names without end.
UNDECLARED = "undeclared"
# A client of the gateway declares tools of its own, and other ones with each session. Those beyond so many are told as one:
# 256 would make a page of 600 kB, and 48 ms of the event loop's time each five seconds.
MOST_TOOLS = 100
_TOKENS = "_tokens"
_COUNTED = (
    *(name for name in UsageTotals.__struct_fields__ if name.endswith(_TOKENS)),
    "priced_nano_usd",
    "unpriced",
)


class CallMetrics:
    """A `CallWatcher`, in every process. Cheap: it hears the call's own events only, some twenty a minute."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._tools: dict[str, frozenset[str]] = {}
        self._named: set[str] = set()
        self._accounts: dict[str, dict[str, int]] = {}

    async def run(self, task_status: trio.TaskStatus[None]) -> None:
        await trio.lowlevel.checkpoint()
        task_status.started()

    def begins(self, call: LiveCall) -> None:
        self._tools[call.call_id] = call.tool_names
        counted = self._accounts[call.call_id] = {}

        def used(event: CallEvent) -> None:
            self._account(call.agent_name, event.event, counted)

        call.listen(["turn", "session_lost", "session_resumed"], self._heard, wire=False)
        call.listen(["usage.updated"], used, wire=False)

    def _heard(self, event: CallEvent) -> None:
        metrics, facts = self._metrics, event.event
        match event.type:
            case "turn" if facts.get("began") == "prompted":
                metrics.prompted_latency.observe(facts["total_ms"] / 1000)
            case "turn":
                for name in SPANS:
                    if (value_ms := facts.get(name)) is not None:
                        metrics.turn_latency.labels(name.removesuffix("_ms")).observe(value_ms / 1000)
            case "session_lost":
                metrics.sessions_lost.labels(str(facts.get("reason", ""))).inc()
            case "session_resumed":
                metrics.reconnects.inc()

    async def ended(self, record: CallRecord) -> None:
        await trio.lowlevel.checkpoint()
        metrics, agent, declared = self._metrics, record.agent, self._tools.pop(record.call_id, frozenset())
        self._account(agent, msgspec.structs.asdict(record.usage), self._accounts.pop(record.call_id, {}))
        if not record.duration_s:
            return  # it never had media
        metrics.call_duration.observe(record.duration_s)
        if record.model_ready_after_s is not None:
            metrics.model_ready.observe(record.model_ready_after_s)
        metrics.interruptions.labels(agent).inc(record.interruptions)
        metrics.audio_dropped.inc(record.audio_dropped_ms / 1000)
        for seconds, count in record.uplink_ms.counts():
            metrics.uplink.add(seconds, count)
        for use in record.tool_uses:
            tool = self._label_of(use.name, declared)
            outcome = "unanswered" if use.lasted_s is None else "failed" if use.failed else "answered"
            metrics.tool_calls.labels(tool, outcome).inc()
            if use.lasted_s is not None:
                metrics.tool_duration.labels(tool).observe(use.lasted_s)

    def _label_of(self, name: str, declared: frozenset[str]) -> str:
        if name not in declared or (name not in self._named and len(self._named) >= MOST_TOOLS):
            return UNDECLARED
        self._named.add(name)
        return name

    def _account(self, agent: str, totals: Mapping[str, Any], counted: dict[str, int]) -> None:
        """Count what has come to the totals of a call since the last time."""
        for name in _COUNTED:
            more = totals[name] - counted.get(name, 0)
            if more <= 0:
                continue
            counted[name] = totals[name]
            match name:
                case "priced_nano_usd":
                    self._metrics.cost.labels(agent).inc(more / NANO)
                case "unpriced":
                    self._metrics.unpriced.labels(agent).inc(more)
                case _:
                    self._metrics.tokens.labels(agent, name.removesuffix(_TOKENS)).inc(more)
