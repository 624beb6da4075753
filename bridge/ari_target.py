"""Somebody who is to take over a caller (`leg.TransferTarget`), by ARI: dialled beside the caller, consulted, joined.

    ring      the caller stays in the call's bridge with the agent, whose media play the ringing; or hears music on hold
    consult   a second mixing bridge: the call's media channel moves there, to who has answered; the caller has music
    join      the media channel leaves, who has answered comes into the call's bridge; `ari_joined` looks after the two
    release   everything as it was

Measured on 22.10.1: addChannel moves a channel that is in another bridge; music on a channel in a mixing bridge covers what
the bridge would send to it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bridge.ari_client import attempt, together
from bridge.ari_dial import OUTGOING_PREFIX, OutgoingChannel, caller_id_of, shown_caller
from bridge.destinations import Destination
from bridge.errors import ControlUnavailable
from bridge.leg import ControlEvent, Dialled

if TYPE_CHECKING:
    from bridge.ari_app import AriApp
    from bridge.ari_control import ChannelControl

CONSULT_PREFIX = "realtime-consult-"


class DialledTarget:
    """One target of one transfer. `number` counts the transfers that were tried in this call."""

    def __init__(self, app: AriApp, control: ChannelControl, destination: Destination, number: int) -> None:
        call = control.call_name
        self._app = app
        self._control = control
        self._destination = destination
        self._channel = OutgoingChannel(app, f"{OUTGOING_PREFIX}{call}-{number}")
        self._consult_id = f"{CONSULT_PREFIX}{call}-{number}"
        self._music = False
        self._consulting = False
        self._joined = False

    async def ring(self, music: str) -> Dialled:
        """See `leg.TransferTarget`."""
        it = self._destination
        variables = shown_caller(*(caller_id_of(it.caller_id) if it.caller_id else self._control.party))
        refused = await self._channel.create(it.endpoint, originator=self._control.channel_id, variables=variables)
        if refused is not None:
            return refused
        if music:
            await self._start_music(music)
        # Dialled in the name of the caller's channel, it shows the caller's number, whatever was set.
        return await self._channel.dial(it.ring_s, "" if it.caller_id else self._control.channel_id)

    async def consult(self) -> None:
        """See `leg.TransferTarget`."""
        request = self._app.request
        if not self._music:
            await self._start_music(self._destination.music or "default")
        self._consulting = True
        await request("POST", "bridges", type="mixing", bridgeId=self._consult_id, name=self._app.config.app)
        channels = f"{self._control.media_id},{self._channel.channel_id}"
        await request("POST", f"bridges/{self._consult_id}/addChannel", channel=channels)

    async def next_event(self) -> ControlEvent:
        """See `leg.TransferTarget`."""
        return await self._channel.next_event()

    async def join(self) -> None:
        """See `leg.TransferTarget`."""
        if self._channel.gone or self._control.gone:
            raise ControlUnavailable("they hung up")
        request, call = self._app.request, self._control.bridge_id
        media, consulted = (self._consult_id, True) if self._consulting else (call, False)
        self._consulting = True  # the media is in no bridge from here on: `release` brings it back to the caller
        await attempt(request("POST", f"bridges/{media}/removeChannel", channel=self._control.media_id))
        if self._music and not await attempt(self._control.stop_music()):
            raise ControlUnavailable("Asterisk does not answer; the caller would go on hearing music")
        self._music = False
        await request("POST", f"bridges/{call}/addChannel", channel=self._channel.channel_id)
        if self._channel.gone or self._control.gone:
            # Told just before the answer: nobody would ever tell `Joined`, and the other one would hear nothing.
            raise ControlUnavailable("they hung up")
        self._joined = True
        self._channel.let_go()
        self._control.hand_over(self._channel.channel_id)
        if consulted:
            await attempt(request("DELETE", f"bridges/{self._consult_id}"))

    async def release(self) -> None:
        """See `leg.TransferTarget`."""
        if self._joined:
            return
        request, control = self._app.request, self._control
        back, media_id = f"bridges/{control.bridge_id}/addChannel", control.media_id
        steps = [self._channel.hang_up(), self._stop_music()]
        if self._consulting:
            self._consulting = False
            if not control.gone:
                steps.append(control.owed.settle(lambda: request("POST", back, channel=media_id)))
            steps.append(control.owed.settle(lambda: request("DELETE", f"bridges/{self._consult_id}")))
        await together(*steps)  # in any order, and whoever waits for us waits but once

    async def _start_music(self, music: str) -> None:
        self._music = True
        await attempt(self._control.start_music(music))

    async def _stop_music(self) -> None:
        if self._music and not self._control.gone:
            self._music = False
            await self._control.owed.settle(self._control.stop_music)
