"""A channel that was in another Stasis app, or waits in ours, taken for a call: it goes back there when the agent leaves.

Measured on 22.10.1 and relied on: `POST channels/ID/move` takes a channel to another app from wherever it is, its bridge
included, and answers 204 also where there is no such app (ApplicationMoveFailed follows, and the channel stays). The
channel's `app_data` names the app of its dialplan, whatever app has it now. StasisStart may come before or after StasisEnd.
"""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import trio

from bridge.ari_client import Channel, attempt
from bridge.ari_control import BRIDGE_PREFIX, CALL_PREFIX, MEDIA_PREFIX, ChannelControl
from bridge.ari_dial import OUTGOING_PREFIX
from bridge.ending import ChannelAction, EndReason
from bridge.errors import ChannelBusy, ChannelUnknown, ControlError, ControlRefused, ControlUnavailable

if TYPE_CHECKING:
    from bridge.ari_app import AriApp

logger = logging.getLogger("bridge.ari")

TAKEN, RETURNED = "taken", "returned"
"""The first argument with which the channel enters our app, and the other one again; the second is why it returns."""


_NUMBER = re.compile(r"-\d+$", re.ASCII)  # of a worker, in the name of its app


class TakenControl(ChannelControl):
    """A `leg.CallControl` of a channel that was taken out of the Stasis app `came_from`; empty: out of none that it could
    go back to, so that it goes on in the dialplan."""

    def __init__(self, app: AriApp, channel: Channel, arguments: list[str], came_from: str) -> None:
        super().__init__(app, channel, arguments)
        self.came_from = came_from

    def release_soon(self, why: str) -> None:
        """Send it back where it came from, beside everything else."""
        self._app.soon(self.release, EndReason.AGENT_LEFT, why)

    async def finish(self) -> bool:
        """See `ChannelControl`: where that would continue in the dialplan, back to the app, if that is still there."""
        if self._gone or self._hung_up or self._farewell is None:
            return True
        action, reason, detail, _ = self._farewell
        if action is ChannelAction.HANG_UP or not self.came_from:
            return await super().finish()
        try:
            await self._app.request("GET", f"applications/{self.came_from}")
        except ControlError as error:
            logger.warning(
                "ARI: %s can not go back to %s, and goes on in the dialplan: %s", self.name, self.came_from, error
            )
            return await super().finish()
        try:
            await self._set_variables(reason, detail)
        except ControlRefused:
            return True  # gone
        except ControlError as error:
            logger.warning("ARI: %s: %s; left for the next sweep", self.name, error)
            return False
        self._continuing = True
        uri = f"channels/{self.channel_id}/move"
        return await attempt(self._app.request("POST", uri, app=self.came_from, appArgs=f"{RETURNED},{reason}"))


async def take(app: AriApp, channel_id: str, return_to: str) -> TakenControl:
    """Take this channel for a call, from whatever Stasis app has it. `return_to`: where it goes back; empty: the app that
    its dialplan had named.

    Raises `ChannelUnknown`, `ChannelBusy` (it has a call already, or no Stasis app has it: the message says what to do), or
    another `ControlError`. Cancelled, a channel that comes later goes back.
    """
    if channel_id.startswith((MEDIA_PREFIX, OUTGOING_PREFIX, CALL_PREFIX, BRIDGE_PREFIX)):
        raise ChannelBusy(f"channel {channel_id} is the bridge's own")
    if app.has_call(channel_id):
        raise ChannelBusy(f"channel {channel_id} has an agent already, or is being given one; see GET /calls")
    arrival: list[TakenControl] = []
    came = trio.Event()

    def arrived(control: TakenControl) -> None:
        arrival.append(control)
        came.set()

    app.expect_taken(channel_id, arrived)
    uri, moved = f"channels/{quote(channel_id, safe='')}", False
    try:
        app.expect_taken(channel_id, arrived, _origin(app, await app.request("GET", uri), return_to))
        moved = True
        await app.request("POST", f"{uri}/move", app=app.config.app, appArgs=TAKEN)
        with trio.move_on_after(app.request_s):
            await came.wait()
    except ControlRefused as error:
        moved = False
        if error.status == 404:
            raise ChannelUnknown(f"Asterisk has no channel {channel_id}; GET /ari/channels lists them") from error
        if error.status == 409:
            raise ChannelBusy(f"channel {channel_id} has just left its Stasis app") from error
        raise
    finally:
        app.forget_taken(channel_id, may_come=moved)
    if not arrival:
        raise ControlUnavailable(
            f"channel {channel_id} did not come within {app.request_s:g} s; is its caller still there?"
        )
    return arrival[0]


def _origin(app: AriApp, channel: dict[str, Any], return_to: str) -> str:
    """The app to which the channel goes back. Raises `ChannelBusy` for one that no app has."""
    place = channel["dialplan"]
    if place["app_name"] != "Stasis":
        where = f"{place['exten']}@{place['context']},{place['priority']}"
        raise ChannelBusy(
            f"channel {channel['id']} runs {place['app_name'] or 'nothing'} in the dialplan at {where}, where ARI can not "
            f"take it: send it there to Stasis({app.config.app},...) for an agent, or to Stasis() of an app of yours first"
        )
    origin, ours = str(place["app_data"]).partition(",")[0], app.config.app
    if not return_to and origin != ours and _NUMBER.sub("", origin) == _NUMBER.sub("", ours):
        raise ChannelBusy(f"channel {channel['id']} is in {origin}, another worker's app: ask at that worker's door")
    return return_to or ("" if origin == ours else origin)
