"""Calls that never get as far as `run_call`: refused, given up, or gone before their media came."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from uuid import UUID

import trio

from bridge import telemetry
from bridge.call_record import CallRecord, record_of
from bridge.call_watcher import tell_of_end
from bridge.ending import Ending, EndReason
from bridge.leg import CallControl
from bridge.live_config import LiveConfig

TurnAway = Callable[[UUID, str, CallControl, EndReason, str], Awaitable[CallRecord]]
"""`turn_away` of a process."""


async def turn_away(
    live: LiveConfig, call_id: UUID, agent: str, control: CallControl, reason: EndReason, detail: str
) -> CallRecord:
    """End a call that never got as far as `run_call`; it has its record all the same."""
    with trio.move_on_after(live.config.limits.farewell_s, shield=True):
        await control.release(reason, detail)
    ending = Ending()
    ending.declare(reason, detail)
    record = record_of(call_id, agent, control, time.time())
    record.ended_by(ending)
    telemetry.call_ended(record)
    await tell_of_end(live.services.watchers, record, live.config.limits.farewell_s)
    return record
