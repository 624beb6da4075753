"""Whom the fake Asterisk can call: endpoints, what they do when they are rung, and the channels to them.

As measured on 22.10.1: an endpoint that is unknown or not registered is refused when its channel is created (500); dialling
tells Dial events about the channel as `peer`; a refused or unanswered call ends with StasisEnd and ChannelDestroyed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import trio

from simulators.ari_channels import HUNG_UP, FakeChannel, Json

if TYPE_CHECKING:
    pass

NO_ANSWER = 19


@dataclass
class Callee:
    """Somebody at an endpoint. Answers after `after_s`; with a `cause` (Q.850) refuses then; None: rings for ever.

    `registered`: whether a channel to them can be made. `device`: their DEVICE_STATE. `channels`: those made so far.
    """

    after_s: float | None = 1.0
    cause: int = 0
    registered: bool = True
    device: str = "NOT_INUSE"
    channels: list[FakeChannel] = field(default_factory=list)

    @property
    def channel(self) -> FakeChannel:
        """The newest channel to them."""
        return self.channels[-1]

    def json(self, name: str) -> Json:
        """As `GET endpoints/PJSIP/NAME` tells it."""
        state = "online" if self.registered else "offline"
        return {"technology": "PJSIP", "resource": name, "state": state, "channel_ids": []}


@dataclass(eq=False)
class OutgoingChannel(FakeChannel):
    """A channel that the bridge has made. Its own end is told, other than that of a caller."""

    callee: Callee = field(default_factory=Callee)
    dialled: bool = False

    async def ring(self, timeout_s: float) -> None:
        """What happens when it is dialled."""
        self.dialled = True
        self._dial("")
        with trio.move_on_after(timeout_s):
            await trio.sleep(0.05)
            self._dial("RINGING")
            self._becomes("Ringing")
            if self.callee.after_s is None:
                await trio.sleep_forever()
            await trio.sleep(self.callee.after_s or 0)
            if self.dialplan == HUNG_UP:
                return
            if self.callee.cause:
                self.end(self.callee.cause)
                return
            self._becomes("Up")
            self._dial("ANSWER")
            return
        if self.dialplan != HUNG_UP:
            self.server.emit("ChannelHangupRequest", cause=32, soft=True, channel=self.json())
            self.end(NO_ANSWER)

    def hang_up(self, cause: int = 16) -> None:
        """They hang up."""
        self.server.emit("ChannelHangupRequest", cause=cause, channel=self.json())
        self.end(cause)

    def end(self, cause: int) -> None:
        """The channel is gone."""
        self.leave(HUNG_UP)
        self.server.emit("ChannelDestroyed", cause=cause, cause_txt=f"cause {cause}", channel=self.json())

    def _dial(self, status: str) -> None:
        self.server.emit("Dial", dialstatus=status, dialstring="", forward="", peer=self.json())

    def _becomes(self, state: str) -> None:
        if self.dialplan != HUNG_UP:
            self.state = state
            self.server.emit("ChannelStateChange", channel=self.json())
