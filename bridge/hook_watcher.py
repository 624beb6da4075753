"""Hears what happens in calls, and has it delivered to the operator's services (`hook_delivery`).

    heard (on the media clock) -> a list of its call -> after batch_ms, or at the call's end -> kept on disk, by one writer

A call counts as ended when its last events and its end are on disk. While the disk stands still its events are kept in
memory, `MOST_EVENTS` of a call; more are lost, counted, and seen by the receiver as a gap in `seq`.
"""

from __future__ import annotations

import logging
import math
import random
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import msgspec
import trio

from bridge import hook_bodies
from bridge.call_events import CallEvent, envelope
from bridge.call_record import CallRecord
from bridge.call_recording import InThread
from bridge.config import Config
from bridge.hook_delivery import HookCounts, HookDelivery, Kind, Outgoing
from bridge.hooks import CallHooks, hooks_of
from bridge.live_call import LiveCall
from bridge.metrics import Metrics
from bridge.webhook_client import WebhookClient

_log = logging.getLogger("bridge.hooks")

# Of one call, while the disk takes nothing: a minute of everything that a session tells but audio.
MOST_EVENTS = 2000
MOST_EVENT_BYTES = 2_000_000
# Of one POST, whatever `batch_events` says: servers commonly take 1 MB.
MOST_BATCH_BYTES = 250_000
# Ends of calls, for the same reason; each is some 10 kB.
MOST_ENDS = 1000
# A process that ends delivers for so long what it can; the next one does the rest.
LAST_S = 3.0


@dataclass(slots=True)
class _Call:
    """A running call whose events are told. `due_at`: when what is collected is to be written."""

    call_id: str
    agent: str
    hooks: CallHooks
    seq: int = 0
    collected: list[bytes] = field(default_factory=list)
    bytes: int = 0
    due_at: float = math.inf
    overflowed: bool = False


class HookWatcher:
    """A `CallWatcher` for `event_url` and `action_url`. Closing the `client` is its owner's."""

    def __init__(
        self,
        config: Config,
        run_blocking: InThread,
        client: WebhookClient,
        metrics: Metrics | None = None,
        *,
        unix_s: Callable[[], float] = time.time,
        chance: Callable[[], float] = random.random,
    ) -> None:
        hook_bodies.check(config)
        self._hooks = config.hooks
        self._delivery = HookDelivery(config, run_blocking, client, unix_s=unix_s, chance=chance)
        self._calls: dict[str, _Call] = {}
        self._ends: deque[tuple[list[Outgoing], trio.Event]] = deque()
        self._write_at = math.inf
        self._writing = False
        self._poked = trio.Event()
        if metrics is not None:
            _show(self._delivery, metrics)

    @property
    def counts(self) -> HookCounts:
        """How it is now."""
        return self._delivery.counts

    async def run(self, task_status: trio.TaskStatus[None]) -> None:
        """Deliver until cancelled, and for `LAST_S` after that what can be delivered at once."""
        await self._delivery.open()
        working = trio.CancelScope(shield=True)

        async def work() -> None:
            with working:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._delivery.run)
                    nursery.start_soon(self._write)

        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(work)
                try:
                    task_status.started()
                    await trio.sleep_forever()
                finally:
                    with trio.move_on_after(LAST_S, shield=True):
                        while self._ends or self._writing:  # noqa: ASYNC110 - once, at the end
                            await trio.sleep(0.02)
                        await self._delivery.until_idle()
                    working.cancel()
        finally:
            await self._delivery.close()

    def settings_changed(self, config: Config) -> None:
        """Agents may have other addresses and secrets from now on."""
        self._delivery.settings_changed(config)

    def begins(self, call: LiveCall) -> None:
        """Listen to this call, where somebody wants to be told of it."""
        hooks = hooks_of(self._hooks, call.agent.hooks)
        told = self._calls[call.call_id] = _Call(call.call_id, call.agent_name, hooks)
        if hooks.event_url and hooks.events:
            call.listen(hooks.events, partial(self._heard, told))

    async def ended(self, record: CallRecord) -> None:
        """Keep what is left of its events, and its end. Returns when that is on disk."""
        call = self._calls.pop(record.call_id, None)
        if call is None:  # it never began
            call = _Call(record.call_id, record.agent, self._delivery.hooks_of_agent(record.agent))
        messages = self._events_of(call)
        if call.hooks.action_url:
            messages.append(self._outgoing(call, "action", hook_bodies.action(record, call.seq)))
        if not messages:
            return
        if len(self._ends) >= MOST_ENDS:
            self._delivery.lost(len(messages))
            _log.error("hooks: the disk takes nothing; %d messages of call %s are lost", len(messages), call.call_id)
            return
        written = trio.Event()
        self._ends.append((messages, written))
        self._write_by(trio.current_time())
        await written.wait()

    def _heard(self, call: _Call, event: CallEvent) -> None:
        call.seq += 1
        if len(call.collected) >= MOST_EVENTS or call.bytes >= MOST_EVENT_BYTES:
            self._delivery.lost(1)
            if not call.overflowed:
                call.overflowed = True
                _log.error("hooks: the disk takes nothing; events of call %s are lost from here on", call.call_id)
            return
        now = trio.current_time()
        encoded = hook_bodies.event(call.seq, envelope(call.call_id, event))
        call.collected.append(encoded)
        call.bytes += len(encoded)
        if call.due_at == math.inf:
            call.due_at = now + self._hooks.batch_ms / 1000
            self._write_by(call.due_at)

    def _write_by(self, at: float) -> None:
        if at < self._write_at:
            self._write_at = at
            self._poked.set()

    async def _write(self) -> None:
        """The one writer: so the messages of a call are kept in their order."""
        while True:
            with trio.move_on_at(self._write_at):
                await self._poked.wait()
            self._poked = trio.Event()
            now = trio.current_time()
            if now < self._write_at:
                continue
            ends = [self._ends.popleft() for _ in range(len(self._ends))]
            due = [call for call in self._calls.values() if call.due_at <= now]
            running = [message for call in due for message in self._events_of(call)]
            self._write_at = min((call.due_at for call in self._calls.values()), default=math.inf)
            self._writing = True
            try:
                await self._delivery.keep(running, [message for end, _ in ends for message in end])
            except Exception:
                _log.exception("hooks: a defect of the bridge; %d messages are lost", len(running) + len(ends))
            self._writing = False
            for _, written in ends:
                written.set()

    def _events_of(self, call: _Call) -> list[Outgoing]:
        """What was collected, as messages; nothing is collected then."""
        collected, call.collected, call.bytes, call.due_at, call.overflowed = call.collected, [], 0, math.inf, False
        return [
            self._outgoing(call, "events", hook_bodies.events(call.call_id, call.agent, some))
            for some in _in_batches(collected, self._hooks.batch_events)
        ]

    def _outgoing(self, call: _Call, kind: Kind, body: bytes) -> Outgoing:
        usual = self._delivery.hooks_of_agent(call.agent)
        url, known = (
            (call.hooks.event_url, usual.event_url) if kind == "events" else (call.hooks.action_url, usual.action_url)
        )
        return Outgoing(call.call_id, call.agent, kind, msgspec.Raw(body), "" if url == known else url)


def _in_batches(encoded: list[bytes], most: int) -> list[list[bytes]]:
    batches: list[list[bytes]] = []
    size = 0
    for event in encoded:
        if not batches or len(batches[-1]) >= most or size + len(event) > MOST_BATCH_BYTES:
            batches.append([])
            size = 0
        batches[-1].append(event)
        size += len(event)
    return batches


def _show(delivery: HookDelivery, metrics: Metrics) -> None:
    metrics.counted("hook_delivered", "Messages that their receiver took.", lambda: delivery.counts.delivered)
    metrics.counted("hook_failed", "Tries to deliver one that failed.", lambda: delivery.counts.failed)
    metrics.counted("hook_given_up", "Messages that nobody took in time.", lambda: delivery.counts.given_up)
    metrics.counted("hook_lost", "Messages, or single events, that could not be kept.", lambda: delivery.counts.lost)
    waiting = metrics.gauge("hook_waiting", "Messages that wait for their delivery.")
    waiting.set_function(lambda: delivery.counts.waiting)
    oldest = metrics.gauge("hook_oldest_age_seconds", "How long the oldest of them has waited.")
    oldest.set_function(lambda: delivery.counts.oldest_s)
