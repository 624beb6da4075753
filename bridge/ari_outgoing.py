"""The control of a call that we place: a callee's channel, which is made and rung by `answer`, when the model is ready.

    CONNECTING   bridge and media channel are there; the model's session is being opened
    RINGING      the channel is made and dialled. It is in no bridge: ringing, announcements and early media reach nobody
    DETECTING    answered; Asterisk's AMD() listens, in the dialplan context `realtime-amd`, which brings the channel back
    ANSWERED     joined with the media. From here on it is a channel of our app like any other (`ChannelControl`)

The model is ready before anybody is rung, so that nobody who answers hears silence, and a model that is out of reach rings
nobody. No dialplan waits behind such a channel: whatever ends the call hangs it up.
"""

from __future__ import annotations

import enum
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING
from uuid import UUID

import trio

from bridge import ari_checks
from bridge.ari_client import Channel
from bridge.ari_control import CALL_PREFIX, ChannelControl
from bridge.ari_dial import OutgoingChannel, caller_id_of, shown_caller
from bridge.ending import ChannelAction
from bridge.errors import ControlError, ControlUnavailable
from bridge.leg import Dialled, DialOutcome

if TYPE_CHECKING:
    from bridge.ari_app import AriApp

logger = logging.getLogger("bridge.ari")

AMD_CONTEXT = "realtime-amd"
_DETECT, _AFTER_GREETING = "detect", "after-greeting"
# AMD() decides within 5 s (total_analysis_time of amd.conf); a greeting is waited out for 30 s at most (extensions.conf).
_DETECT_S, _GREETING_S = 15.0, 40.0


class Phase(enum.StrEnum):
    """Where a call that we place is; the value is the word for people."""

    CONNECTING = "connecting"
    RINGING = "ringing"
    DETECTING = "detecting"
    ANSWERED = "answered"


class OutgoingControl(ChannelControl):
    """A `leg.CallControl` of somebody whom we call at `endpoint`. `called` is the number as it was ordered, `shown` the
    caller id that their telephone shows.

    `detect`: have AMD() listen for a machine; `after_greeting`: come to the machine only when its greeting is over.
    """

    places = True

    def __init__(
        self,
        app: AriApp,
        call_id: UUID,
        endpoint: str,
        *,
        called: str,
        shown: str,
        ring_s: float,
        variables: Mapping[str, str],
        detect: bool,
        after_greeting: bool,
    ) -> None:
        super().__init__(app, Channel(id=f"{CALL_PREFIX}{call_id}"), [])
        self.called = called
        self.phase = Phase.CONNECTING
        self.settled = trio.Event()
        """Somebody has answered; whoever ends the call sets it too."""
        self._endpoint = endpoint
        self._shown = shown
        self._ring_s = ring_s
        self._variables = variables
        self._detect = detect
        self._after_greeting = after_greeting
        self._channel = OutgoingChannel(app, self.channel_id)
        self._failed: ControlError | None = None
        self._machine: Dialled | None = None

    @property
    def caller(self) -> str:
        """What the called telephone shows."""
        return self._shown

    @property
    def party(self) -> tuple[str, str]:
        """The callee, for whomever the call is transferred to."""
        return self.called, ""

    async def answer(self) -> Dialled | None:
        """See `leg.CallControl`. The callee is rung once: a try that has failed is not tried again."""
        if self._failed is not None:
            raise self._failed
        if self.phase is Phase.CONNECTING:
            try:
                refused = await self._call()
            except ControlError as error:
                self._failed = error
                raise
            if refused is not None:
                return refused
        await super().answer()
        return self._machine

    async def _call(self) -> Dialled | None:
        """Ring them, and find out who has answered. Returns why there is nobody on the line."""
        channel = self._channel
        self.phase = Phase.RINGING
        variables = {**shown_caller(*caller_id_of(self._shown)), **self._variables}
        if (refused := await channel.create(self._endpoint, formats=self._format, variables=variables)) is not None:
            return refused
        self.name = channel.name
        dialled = await channel.dial(self._ring_s)
        if not channel.answered:
            return dialled
        if self._detect and not channel.gone:
            self.phase = Phase.DETECTING
            await self._listen()
        self.phase = Phase.ANSWERED
        self.channel_id, self._up = channel.channel_id, True
        self._app.take_over(self)
        channel.let_go()
        self.settled.set()
        if channel.gone:
            self.left(*channel.end)  # answered, and hung up at once
        return None

    async def _listen(self) -> None:
        """Have AMD() find out whether this is a machine. Raises `ControlUnavailable` if it does not come back."""
        if await ari_checks.has_extension(self._app, self.channel_id, AMD_CONTEXT, _DETECT, "1") is False:
            logger.warning(
                "ARI: no answering machine is looked for: the dialplan has no %s@%s; asterisk/etc/extensions.conf has it",
                _DETECT,
                AMD_CONTEXT,
            )
            return
        uri = f"channels/{self.channel_id}/variable"
        await self._app.request("POST", uri, variable="REALTIME_APP", value=self._app.config.app)
        status, cause = await self._visit(_DETECT, _DETECT_S)
        logger.info("ARI: %s: AMD() says %s (%s)", self.name, status, cause)
        if status != "MACHINE":
            return
        self._machine = Dialled(DialOutcome.MACHINE, f"AMD: {cause}")
        if self._after_greeting:
            await self._visit(_AFTER_GREETING, _GREETING_S)

    async def _visit(self, exten: str, limit_s: float) -> tuple[str, str]:
        arguments = await self._channel.visit(AMD_CONTEXT, exten, limit_s)
        if arguments is None:
            if self._channel.gone:
                return "HANGUP", ""
            raise ControlUnavailable(f"{self.name} did not come back from {exten}@{AMD_CONTEXT} within {limit_s:g} s")
        status, cause, *_ = [*arguments[1:], "", ""]
        return status, cause

    async def is_there(self) -> bool:
        """See `leg.CallControl`. Whoever is still being rung is ours."""
        if self.phase is Phase.ANSWERED:
            return await super().is_there()
        if not self._app.connected:
            raise ControlUnavailable("there is no connection to Asterisk")
        return True

    def _action(self, action: ChannelAction) -> ChannelAction:
        """Nobody waits for an outgoing channel in the dialplan."""
        return ChannelAction.HANG_UP

    async def finish(self) -> bool:
        """See `ChannelControl`. One that rings is hung up as it is."""
        if self.phase is Phase.ANSWERED:
            return await super().finish()
        if self.phase is not Phase.CONNECTING:
            await self._channel.hang_up()
        return True
