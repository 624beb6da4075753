"""A transfer by SIP: the caller's own telephone or trunk is asked to call somebody else (REFER).

Where the dialplan has `realtime-refer,s,1` (shipped in asterisk/etc/extensions.conf), the caller goes there: Transfer()
waits for the telephone's NOTIFYs, and the way back tells how it went. Without it `POST channels/ID/redirect` sends the
same REFER, but then nothing tells its outcome (measured on 22.10.1: accepted, served, refused look the same): a caller who
hangs up within the limit was served, one who is still there was not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from bridge.ari_checks import has_extension
from bridge.errors import ControlRefused, ControlUnavailable

if TYPE_CHECKING:
    from bridge.ari_app import AriApp
    from bridge.ari_control import ChannelControl

CONTEXT = "realtime-refer"
# A telephone that was asked calls first, and tells then; the far end rings meanwhile.
_SERVED_S = 40.0
# Without the dialplan: a telephone that is served hangs up soon after the far end has answered.
_GONE_S = 15.0


async def refer(app: AriApp, control: ChannelControl, address: str, referred_by: str) -> None:
    """See `leg.CallControl.refer`."""
    if referred_by:
        await app.request(
            "POST", f"channels/{control.channel_id}/variable", variable="SIPREFERREDBYHDR", value=referred_by
        )
    if await has_extension(app, control.channel_id, CONTEXT, "s", "1"):
        await _by_dialplan(app, control, address)
    else:
        await _by_redirect(app, control, address)


async def _by_dialplan(app: AriApp, control: ChannelControl, address: str) -> None:
    variables = {"BRIDGE_REFER_TO": f"PJSIP/{address}", "BRIDGE_REFER_APP": app.config.app}
    status: list[str] | None = []
    with trio.move_on_after(_SERVED_S):
        status = await control.excursion(CONTEXT, variables)
    if status is None:
        # Before the telephone has told that it was served: nobody knows, so it counts as what it looks like.
        raise ControlUnavailable("the caller hung up")
    word = status[0] if status else "no answer"
    if word != "SUCCESS":
        raise ControlRefused(f"the caller's telephone could not be connected with {address} ({word})", status=422)
    control.served()


async def _by_redirect(app: AriApp, control: ChannelControl, address: str) -> None:
    with control.expected_to_go():
        await app.request("POST", f"channels/{control.channel_id}/redirect", endpoint=f"PJSIP/{address}")
        with trio.move_on_after(_GONE_S):
            await control.has_gone.wait()
            return
    raise ControlRefused(f"the caller's telephone did not go on to {address}", status=422)
