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
    from bridge.ari_app import AriApp

logger = logging.getLogger("bridge.ari")

OUTGOING_PREFIX = "realtime-out-"
# By the first argument of Stasis() we know a channel that we have made, and one that AMD() brings back (`ari_outgoing`).
OUTGOING_ARGUMENT, AMD_ARGUMENT = "outgoing", "amd"
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


def caller_id_of(text: str) -> tuple[str, str]:
    """Number and name of `Name <number>`, or of a number alone."""
    name, bracket, rest = text.partition("<")
    if not bracket:
        return text.strip(), ""
    return rest.rstrip("> "), name.strip(' "')


def shown_caller(number: str, name: str) -> dict[str, str]:
    """The variables that make the called telephone show this: an outgoing channel's caller id is its connected line."""
    shown = {"CONNECTEDLINE(num,i)": number, "CONNECTEDLINE(name,i)": name}
    return {variable: value for variable, value in shown.items() if value}


class OutgoingChannel:
    """One channel to somebody whom we call. `create`, then `dial`; `hang_up` at the end in any case, unless `let_go`.

    `answered` is set by the answer.
    """

    def __init__(self, app: AriApp, channel_id: str) -> None:
        self.channel_id = channel_id
        self.name = channel_id
        self.answered = False
        self._app = app
        self._in_stasis = trio.Event()
        self._settled = trio.Event()
        self._gone = False
        self._told_end = False
        self._visiting = False
        self._back: trio.Event = trio.Event()
        self._arguments: list[str] = []
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
                appArgs=OUTGOING_ARGUMENT, **kind,
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

    async def visit(self, context: str, exten: str, limit_s: float) -> list[str] | None:
        """Let the dialplan do something with it there, which brings it back by `Stasis()`: with which arguments. None: it
        has ended meanwhile, or did not come back in time.

        Raises `ControlError`. Cancelled, it stays in the dialplan until `hang_up`.
        """
        self._visiting, self._back = True, trio.Event()
        try:
            await self._app.request(
                "POST", f"channels/{self.channel_id}/continue", context=context, extension=exten, priority="1"
            )
            with trio.move_on_after(limit_s):
                await self._back.wait()
                return None if self._gone else self._arguments
            return None
        finally:
            self._visiting = False

    async def resync(self) -> None:
        """Events may have been missed: ask what became of it. Raises `ControlUnavailable`."""
        if not self._in_stasis.is_set() or self._gone:
            return
        try:
            channel = await self._app.request("GET", f"channels/{self.channel_id}")
        except ControlRefused:
            self._ended(0, "it ended while ARI was disconnected")
        else:
            if channel["state"] == "Up":
                self._up()

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
    def end(self) -> tuple[int, str]:
        """Q.850 cause and Asterisk's word for its end, as far as known."""
        return self._cause, self._cause_text

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
            case "StasisStart" if self._visiting:
                self._arguments = event.args
                self._back.set()
            case "StasisStart" if event.channel is not None:
                self.name = event.channel.name
                self._in_stasis.set()
            case "ChannelStateChange" if event.channel is not None and event.channel.state == "Up":
                self._up()
            case "Dial" if event.dialstatus in _OUTCOME_OF_DIALSTATUS:
                # Told of Local channels only, which then stay until somebody removes them.
                self._refused = _OUTCOME_OF_DIALSTATUS[event.dialstatus]
                self._settled.set()
            case "ChannelDtmfReceived":
                self._tell(ControlDigit(event.digit))
            case "ChannelHangupRequest" if not event.soft:
                self._cause = self._cause or event.cause
            case "ChannelDestroyed":
                self._ended(event.cause, event.cause_txt)
            case "StasisEnd" if self.answered and not self._visiting:
                # Its ChannelDestroyed may not be told any more: it may also have been moved away.
                self._gone = True
                self._settled.set()
                self._tell(ControlHungUp(self._cause, "left"))

    def _up(self) -> None:
        self.answered = True
        self._settled.set()

    def _ended(self, cause: int, text: str) -> None:
        self._gone = True
        if cause != NORMAL_CLEARING or not self._cause:
            # Of a Local channel whose far end refused, this may be 16 though ChannelHangupRequest said why (1 of 15).
            self._cause = cause or self._cause
        self._cause_text = text
        for settled in (self._in_stasis, self._settled, self._back):
            settled.set()
        self._tell(ControlHungUp(self._cause, text or "hung up"))

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
