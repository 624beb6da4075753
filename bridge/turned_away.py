"""Calls that never get as far as `run_call`: refused, given up, or gone before their media came."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from uuid import UUID

from bridge.call import never_began
from bridge.call_record import CallRecord
from bridge.ending import EndReason
from bridge.leg import CallControl
from bridge.live_config import LiveConfig

TurnAway = Callable[[UUID, str, CallControl, EndReason, str], Awaitable[CallRecord]]
"""`turn_away` of a process."""


async def turn_away(
    live: LiveConfig, call_id: UUID, agent: str, control: CallControl, reason: EndReason, detail: str
) -> CallRecord:
    """End a call that never got as far as `run_call`, by the settings in force; it has its record all the same."""
    return await never_began(live.services, call_id, agent, control, reason, detail)
