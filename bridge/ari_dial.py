"""A call that we place: one outgoing channel in our Stasis app, from its making to the answer, or to why there is none.

    create -> StasisStart (Down) -> variables, bridges -> dial -> Dial events -> ChannelStateChange Up, or ChannelDestroyed

Created and dialled apart, a channel can be prepared before anything rings, and all its events come to us, its end too.
Measured on 22.10.1: what is not registered, or unknown, is refused at `create` (500, "Allocation failed"); a busy, rejected
or unanswered call ends with ChannelDestroyed and its Q.850 cause; after `timeout` s Asterisk gives up by itself (cause 19).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

import trio

from bridge.ari_client import Channel, Message, attempt
from bridge.errors import ControlRefused
from bridge.leg import ControlDigit, ControlEvent, ControlHungUp, Dialled, DialOutcome

if TYPE_CHECKING:
    from bridge.ari_control import AriApp

logger = logging.getLogger("bridge.ari")

OUTGOING_PREFIX = "realtime-out-"
NORMAL_CLEARING = 16
# Q.850. What is not here (no route, out of order, congestion, no such number ...) can not be reached now.
_OUTCOME_OF_CAUSE: Mapping[int, DialOutcome] = {
    16: DialOutcome.CANCELLED,
    17: DialOutcome.BUSY,
    18: DialOutcome.NO_ANSWER,
    19: DialOutcome.NO_ANSWER,
    21: DialOutcome.REJECTED,
}
_OUTCOME_OF_DIALSTATUS: Mapping[str, DialOutcome] = {
    "BUSY": DialOutcome.BUSY,
    "NOANSWER": DialOutcome.NO_ANSWER,
    "CANCEL": DialOutcome.CANCELLED,
    "CONGESTION": DialOutcome.UNREACHABLE,
    "CHANUNAVAIL": DialOutcome.UNREACHABLE,
}
# As for a caller's channel. Full: the newest digit is dropped.
_EVENTS_SIZE = 32
# How long after Asterisk's own time limit we still wait for its word.
_GRACE_S = 2.0


class OutgoingChannel:
    """One channel to somebody whom we call. `create`, then `dial`; `hang_up` at the end in any case, unless `let_go`.

    `answered` is set by the answer; `early_media` when sound comes before it.
    """

    def __init__(self, app: AriApp, channel_id: str) -> None:
        self.channel_id = channel_id
        self.name = channel_id
        self.answered = False
        self.early_media = trio.Event()
        self._app = app
        self._in_stasis = trio.Event()
        self._settled = trio.Event()
        self._gone = False
        self._told_end = False
        self._refused: DialOutcome | None = None
        self._cause = 0
        self._cause_text = ""
        self._send, self._receive = trio.open_memory_channel[ControlEvent](_EVENTS_SIZE)

    async def create(
        self, endpoint: str, *, originator: str = "", formats: str = "", variables: Mapping[str, str] | None = None
    ) -> Dialled | None:
        """Make the channel and set its variables, without calling anybody. Returns how it ended if there is no such
        endpoint now. Its formats are those of the channel `originator`, or `formats` as Asterisk names them.

        Raises `ControlError`. Cancelled, `hang_up` removes it.
        """
        app = self._app
        app.expect_outgoing(self)
        kind = {"originator": originator} if originator else {"formats": formats}
        try:
            await app.request(
                "POST", "channels/create", endpoint=endpoint, app=app.config.app, channelId=self.channel_id,
                appArgs="outgoing", **kind,
            )  # fmt: skip
        except ControlRefused as error:
            self._gone = True
            if error.status == 500:
                return Dialled(DialOutcome.UNREACHABLE, "no such endpoint, or it is not registered")
            raise
        with trio.move_on_after(app.request_s):
            await self._in_stasis.wait()
        for name, value in (variables or {}).items():
            await app.request("POST", f"channels/{self.channel_id}/variable", variable=name, value=value)
        return None

    async def dial(self, ring_s: float, caller: str = "") -> Dialled:
        """Call, and wait for the answer or its refusal, at most `ring_s`. `caller`: the channel for which this is done.

        Raises `ControlError`. Cancelled, it may go on ringing until `hang_up`.
        """
        query = {"timeout": str(max(1, round(ring_s)))} | ({"caller": caller} if caller else {})
        try:
            await self._app.request("POST", f"channels/{self.channel_id}/dial", **query)
        except ControlRefused as error:
            if error.status != 404:
                raise
        with trio.move_on_after(ring_s + _GRACE_S):
            await self._settled.wait()
        if self.answered and not self._gone:
            return Dialled(DialOutcome.ANSWERED)
        if self._refused is not None and not self._cause:
            return Dialled(self._refused)
        if not self._gone:
            return Dialled(DialOutcome.NO_ANSWER, "nobody answered in time")
        outcome = _OUTCOME_OF_CAUSE.get(self._cause, DialOutcome.UNREACHABLE)
        return Dialled(outcome, self._cause_text, self._cause)

    async def next_event(self) -> ControlEvent:
        """A key, or the hang-up, which comes once and last. Cancelling loses nothing."""
        return await self._receive.receive()

    async def hang_up(self, cause: int = NORMAL_CLEARING) -> None:
        """End it, whatever it is doing. Idempotent, never raises."""
        try:
            if not self._gone:
                await attempt(self._app.request("DELETE", f"channels/{self.channel_id}", reason_code=str(cause)))
        finally:
            self._app.forget_outgoing(self)

    def let_go(self) -> None:
        """Somebody else looks after it from here on."""
        self._app.forget_outgoing(self)

    @property
    def gone(self) -> bool:
        """Whether it has ended, or left our app."""
        return self._gone

    def replaced(self, channel: Channel) -> None:
        """Another telephone has picked it up, or theirs has passed the call on."""
        self.channel_id, self.name = channel.id, channel.name
        self.answered = channel.state == "Up"
        if self.answered:
            self._settled.set()

    def event(self, event: Message) -> None:
        """An event of this channel. Synchronous."""
        match event.type:
            case "StasisStart" if event.channel is not None:
                self.name = event.channel.name
                self._in_stasis.set()
            case "ChannelStateChange" if event.channel is not None and event.channel.state == "Up":
                self.answered = True
                self._settled.set()
            case "Dial" if event.dialstatus == "PROGRESS":
                self.early_media.set()
            case "Dial" if event.dialstatus in _OUTCOME_OF_DIALSTATUS:
                # Told of Local channels only, which then stay until somebody removes them.
                self._refused = _OUTCOME_OF_DIALSTATUS[event.dialstatus]
                self._settled.set()
            case "ChannelDtmfReceived":
                self._tell(ControlDigit(event.digit))
            case "ChannelHangupRequest" if not event.soft:
                self._cause = self._cause or event.cause
            case "ChannelDestroyed":
                self._gone = True
                self._cause, self._cause_text = event.cause or self._cause, event.cause_txt
                self._in_stasis.set()
                self._settled.set()
                self._tell(ControlHungUp(self._cause, event.cause_txt or "hung up"))
            case "StasisEnd" if self.answered:
                # Its ChannelDestroyed may not be told any more: it may also have been moved away.
                self._gone = True
                self._settled.set()
                self._tell(ControlHungUp(self._cause, "left"))

    def _tell(self, event: ControlEvent) -> None:
        if self._told_end:
            return
        self._told_end = isinstance(event, ControlHungUp)
        try:
            self._send.send_nowait(event)
        except trio.WouldBlock:
            if isinstance(event, ControlHungUp):
                self._receive.receive_nowait()
                self._send.send_nowait(event)
            else:
                logger.warning("ARI: %s: digit dropped, %d events are unread", self.name, _EVENTS_SIZE)
