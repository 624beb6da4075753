"""Whether a caller could be sent to a destination: asked of Asterisk before the caller is told of it.

    to        DIALPLAN_EXISTS; with `queue` QUEUE_EXISTS, QUEUE_MEMBER, QUEUE_WAITING_COUNT; with `mailbox` VM_INFO
    endpoint  GET endpoints and DEVICE_STATE for PJSIP; DIALPLAN_EXISTS for Local
    sip       nothing can be known

The functions are evaluated on the caller's channel. One that is not loaded tells nothing (500), and forbids nothing.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from bridge.destinations import DESTINATION, Destination
from bridge.errors import ControlRefused

if TYPE_CHECKING:
    from bridge.ari_app import AriApp
    from bridge.ari_control import ChannelControl

logger = logging.getLogger("bridge.ari")

# What `GET endpoints` and DEVICE_STATE say of somebody who can not be called now.
_OFFLINE = frozenset({"offline"})
_NOT_NOW = {"UNAVAILABLE": "is not registered now", "INVALID": "is not known to Asterisk", "BUSY": "is busy"}


async def check(app: AriApp, control: ChannelControl, it: Destination) -> str:
    """See `leg.CallControl.check`."""
    if it.endpoint:
        return await _endpoint(app, control, it.endpoint)
    if it.to:
        exten, context, priority = control.place_of(it.to)
        if await has_extension(app, control.channel_id, context, exten, priority) is False:
            raise ControlRefused(f"the dialplan has no {exten}@{context},{priority}", status=422)
        if it.queue:
            return await _queue(app, control, it.queue)
        if it.mailbox and await _number(app, control, f"VM_INFO({it.mailbox},exists)") == 0:
            raise ControlRefused(f"there is no mailbox {it.mailbox}", status=422)
    return ""


async def has_extension(app: AriApp, channel_id: str, context: str, exten: str, priority: str) -> bool | None:
    """Whether the dialplan has this place; None where it can not say (func_dialplan not loaded). Raises `ControlError`."""
    try:
        answer = await _evaluate(app, channel_id, f"DIALPLAN_EXISTS({context},{exten},{priority})")
    except ControlRefused as error:
        if error.status == 404:
            raise
        logger.warning(
            "ARI: can not tell whether %s@%s,%s exists, and Asterisk hangs up a caller who is sent to nowhere; "
            "load func_dialplan.so (%s)",
            *(exten, context, priority, error),
        )
        return None
    return answer != "0"


async def _endpoint(app: AriApp, control: ChannelControl, endpoint: str) -> str:
    technology, _, resource = endpoint.partition("/")
    if technology.upper() == "LOCAL":
        parts = DESTINATION.fullmatch(resource.partition("/")[0])
        if parts is not None and parts[2]:
            exten, context = parts[1], parts[2]
            if await has_extension(app, control.channel_id, context, exten, "1") is False:
                raise ControlRefused(f"the dialplan has no {exten}@{context}", status=422)
        return ""
    if technology.upper() != "PJSIP":
        return ""
    # PJSIP/NAME, PJSIP/NUMBER@NAME, PJSIP/NAME/sip:...
    whole, slash, _ = resource.partition("/")
    name = whole.rpartition("@")[2]
    try:
        state = str((await app.request("GET", f"endpoints/PJSIP/{name}"))["state"])
    except ControlRefused as error:
        if error.status == 404:
            raise ControlRefused(f"Asterisk has no endpoint PJSIP/{name}", status=422) from error
        return ""
    if state in _OFFLINE and not slash:
        raise ControlRefused(f"PJSIP/{name} is not registered now", status=422)
    if "@" in whole or slash:
        return ""  # a trunk: whether its lines are busy says nothing about who is called
    try:
        device = await _evaluate(app, control.channel_id, f"DEVICE_STATE(PJSIP/{name})")
    except ControlRefused as error:
        if error.status == 404:
            raise
        return ""
    if why := _NOT_NOW.get(device):
        raise ControlRefused(f"PJSIP/{name} {why}", status=422)
    return "They are on another call just now, and may not answer." if device == "INUSE" else ""


async def _queue(app: AriApp, control: ChannelControl, queue: str) -> str:
    if await _number(app, control, f"QUEUE_EXISTS({queue})") == 0:
        raise ControlRefused(f"there is no queue {queue}", status=422)
    if await _number(app, control, f"QUEUE_MEMBER({queue},logged)") == 0:
        raise ControlRefused(f"nobody is there to take calls of the queue {queue} now", status=422)
    waiting = await _number(app, control, f"QUEUE_WAITING_COUNT({queue})")
    if not waiting:
        return ""
    return f"{waiting} caller{'s wait' if waiting > 1 else ' waits'} there already."


async def _number(app: AriApp, control: ChannelControl, function: str) -> int | None:
    """What a dialplan function says; None where that is not a number, or the function not there."""
    try:
        answer = await _evaluate(app, control.channel_id, function)
    except ControlRefused as error:
        if error.status == 404:
            raise
        logger.warning("ARI: %s can not be asked for (%s); is its module loaded?", function, error)
        return None
    return int(answer) if answer.isdigit() else None


async def _evaluate(app: AriApp, channel_id: str, function: str) -> str:
    answer = await app.request("GET", f"channels/{channel_id}/variable", variable=function)
    return str(answer["value"])
