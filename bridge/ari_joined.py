"""Two channels that a transfer has joined: they talk to each other in a mixing bridge of our Stasis app, without the agent.

Nothing of the call is left but this: when one leaves, the other is hung up, and the bridge destroyed. Asterisk keeps both
together whatever becomes of us; a bridge that is started again finds them by its sweep and looks after them (`AriApp`).
Measured on 22.10.1: of a caller who hangs up in the app we hear ChannelHangupRequest and StasisEnd.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from bridge.ari_client import Message, attempt
from bridge.ari_dial import NORMAL_CLEARING

if TYPE_CHECKING:
    from bridge.ari_app import AriApp

logger = logging.getLogger("bridge.ari")


class Joined:
    """A caller and the target of a transfer, by their channel ids, in the bridge `bridge_id`."""

    def __init__(self, app: AriApp, caller_id: str, target_id: str, bridge_id: str) -> None:
        self.channel_ids = {caller_id, target_id}
        self.bridge_id = bridge_id
        self._app = app
        self._cause = NORMAL_CLEARING
        self._over = False

    def event(self, event: Message, soon: Callable[[Callable[[], Awaitable[None]]], None]) -> None:
        """An event of one of the two; `soon` starts what is to be done then. Synchronous."""
        assert event.channel is not None
        match event.type:
            case "ChannelHangupRequest" if not event.soft and event.cause:
                self._cause = event.cause
            case "StasisEnd" | "ChannelDestroyed":
                self.left(event.channel.id, soon)

    def replaced(self, old: str, new: str) -> None:
        """One of the two has passed the call on by its telephone: another channel stands in its place."""
        self.channel_ids = (self.channel_ids - {old}) | {new}

    def left(self, channel_id: str, soon: Callable[[Callable[[], Awaitable[None]]], None]) -> None:
        """This one is gone."""
        if channel_id in self.channel_ids and not self._over:
            self._over = True
            self.channel_ids = self.channel_ids - {channel_id}
            soon(self._part)

    async def _part(self) -> None:
        try:
            for channel_id in self.channel_ids:
                await attempt(
                    self._app.request(
                        "DELETE", f"channels/{channel_id}", reason_code=str(self._cause or NORMAL_CLEARING)
                    )
                )
            await attempt(self._app.request("DELETE", f"bridges/{self.bridge_id}"))
            logger.info("ARI: a transferred call is over", extra={"facts": {"bridge": self.bridge_id}})
        finally:
            self._app.forget_joined(self)
