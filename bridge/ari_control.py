"""Call control through ARI: one `ChannelControl` a channel in our Stasis app (`ari_app`), made for each caller who enters.

    StasisStart(caller) -> on_call(control) -> prepare_media -> answer -> ... digits, transfer ... -> release

Subscribe, then act: the ids of the mixing bridge and of the media channel are ours (`realtime-bridge-UUID`,
`realtime-media-UUID`), and are known here before Asterisk hears of them, so no event can arrive too early.

Measured on 22.10.1 and relied on:
- addChannel before the media channel's StasisStart is refused with 422; a second addChannel takes the channel out of the
  bridge and puts it back, an audible gap; a channel that is gone gives 400, not 404.
- `continue` takes the channel out of its bridge by itself. It accepts any destination (204) and **hangs up the caller**
  where the dialplan has none, so we ask the dialplan function DIALPLAN_EXISTS first. StasisEnd may come before its 204.
- A caller that hangs up: ChannelHangupRequest (`cause` 0 or Q.850), then StasisEnd; after that our subscription has ended,
  so its ChannelDestroyed never comes. The media channel and the bridge stay.
- A variable set before DELETE is seen by the h extension.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING
from uuid import UUID

import trio

from bridge import ari_checks, ari_recording, ari_refer
from bridge.ari_client import Channel, Message, attempt, together
from bridge.ari_joined import Joined
from bridge.ari_owed import Owed
from bridge.ari_target import DialledTarget
from bridge.destinations import DESTINATION, Destination
from bridge.ending import FAREWELLS, ChannelAction, EndReason
from bridge.errors import ControlError, ControlRefused, ControlUnavailable
from bridge.hangup_cause import UNKNOWN
from bridge.leg import ControlDigit, ControlEvent, ControlHold, ControlHungUp, ControlRecordingFailed, Dialled
from bridge.recording_state import RecordingStep

if TYPE_CHECKING:
    from bridge.ari_app import AriApp

logger = logging.getLogger("bridge.ari")

BRIDGE_PREFIX, MEDIA_PREFIX = "realtime-bridge-", "realtime-media-"
# Whom we call, by our own doing (`ari_outgoing`); one whom a transfer calls has OUTGOING_PREFIX.
CALL_PREFIX = "realtime-call-"
# Events of one call that nobody has read. Full: a digit is dropped; a hang-up takes the place of the oldest digit.
_EVENTS_SIZE = 32


class ChannelControl:
    """One caller's channel in our Stasis app; a `bridge.leg.CallControl`. Made by `AriApp`.

    `called` is the dialplan extension, `arguments` those of `Stasis(app,...)`, `name` the channel's name in Asterisk's
    logs, `media_format` what suits this Asterisk, `owed` what the caller is to hear in any case. First `prepare_media`,
    then `answer`; `release` at the end in any case, also when nothing else was called.
    """

    has_channel = True
    places = False

    def __init__(self, app: AriApp, channel: Channel, arguments: list[str]) -> None:
        self.channel_id = channel.id
        self.name = channel.name or channel.id
        self.called = channel.dialplan.exten
        self.arguments = arguments
        self.media_format = app.media_format
        self.bridge_id = self.media_id = ""
        self._format = ""
        self._app = app
        self._party = channel.caller
        self._context = channel.dialplan.context
        self._up = channel.state == "Up"
        self._joined = False
        self._media_settled = trio.Event()
        self._media_ready = False
        self._gone = False  # the channel has left our Stasis app, in whatever way
        self._continuing = False
        self._withheld: ControlHungUp | None = None
        self._hung_up = False
        self._targets = 0
        self.has_gone = trio.Event()
        """Set when the caller has hung up or left our app."""
        self._way_back: trio.Event | None = None
        self._returned_with: list[str] | None = None
        # After an excursion Asterisk does not know any more where the caller came from.
        self._way_on: dict[str, str] = {}
        self._next_priority = channel.dialplan.priority + 1
        self.owed = Owed(app, lambda: self.gone or self._farewell is not None)
        self._farewell: tuple[ChannelAction, str, str, int] | None = None
        self._send, self._receive = trio.open_memory_channel[ControlEvent](_EVENTS_SIZE)

    @property
    def caller(self) -> str:
        """Number and name of the caller as far as known: `1001 Alice`."""
        return f"{self._party.number} {self._party.name}".strip()

    @property
    def party(self) -> tuple[str, str]:
        """Number and name of the caller, each as far as known."""
        return self._party.number, self._party.name

    async def variables(self, names: Sequence[str]) -> dict[str, str]:
        """Values of channel variables and dialplan functions, asked for side by side; what Asterisk does not know, refuses
        or does not tell in time is empty. Never raises."""
        values = dict.fromkeys(names, "")

        async def ask(name: str) -> None:
            answer = await self._app.request("GET", f"channels/{self.channel_id}/variable", variable=name)
            values[name] = str(answer["value"])

        errors = await together(*(ask(name) for name in names))
        for name, error in zip(names, errors, strict=True):
            # 404: nobody has set the variable. 500: a header that is not there, or a function that is not loaded, not for
            # this kind of channel, or not allowed to ARI (live_dangerously).
            if error is not None and not (isinstance(error, ControlRefused) and error.status == 404):
                level = logging.INFO if isinstance(error, ControlRefused) else logging.WARNING
                logger.log(level, "ARI: %s: %s counts as empty: %s", self.name, name, error)
        return values

    @property
    def call_name(self) -> str:
        """The call's UUID, as the names of its bridge and channels have it."""
        return self.bridge_id.removeprefix(BRIDGE_PREFIX)

    @property
    def gone(self) -> bool:
        """Whether the caller has left our app or is about to, in whatever way."""
        return self._gone or self._hung_up

    @property
    def reports_digits(self) -> bool:
        """While ARI is lost, or another process has the app, digits are told by the media connection alone."""
        return self._app.connected

    async def prepare_media(self, call_id: UUID, media_format: str) -> None:
        """Make the mixing bridge, and let Asterisk open the AudioSocket connection that will name `call_id`.

        `media_format` is Asterisk's name (`slin`, `slin16`, `slin24`). The connection may arrive before this returns.
        Raises `ControlError`, having removed what was made. Cancelled, `release` removes it.
        """
        app, config = self._app, self._app.config
        self._format = media_format
        self.bridge_id, self.media_id = f"{BRIDGE_PREFIX}{call_id}", f"{MEDIA_PREFIX}{call_id}"
        app.expect_media(self.media_id, self)
        bridge = app.request("POST", "bridges", type="mixing", bridgeId=self.bridge_id, name=config.app)
        media = app.request(
            "POST",
            "channels/externalMedia",
            app=config.app,
            external_host=config.media_address,
            encapsulation="audiosocket",
            transport="tcp",
            connection_type="client",
            format=media_format,
            data=str(call_id),
            channelId=self.media_id,
        )
        bridge_error, media_error = await together(bridge, media)
        if error := media_error or bridge_error:
            with trio.move_on_after(app.request_s, shield=True):
                await together(self._remove_media(), self._remove_bridge())
            if isinstance(media_error, ControlRefused):
                raise ControlRefused(
                    f"{media_error} (Asterisk says so for a refused connection too: can it reach "
                    f"asterisk.media_address {config.media_address}, and is chan_audiosocket loaded?)",
                    status=media_error.status,
                )
            raise error

    async def answer(self) -> Dialled | None:
        """Answer the caller unless it is answered, and put caller and media into the bridge. Idempotent.

        Waits for the media channel, at most `request_s`. Raises `ControlError`; 400 or 404: the caller has hung up, which
        `next_event` reports too.
        """
        if self._joined:
            return None
        with trio.move_on_after(self._app.request_s):
            await self._media_settled.wait()
        left = self._gone or self._hung_up
        if left or not self._media_ready:
            why = "the caller has left" if left else "the media channel is not in the Stasis app"
            raise ControlUnavailable(f"{self.name} can not be joined with its media: {why}")
        if not self._up:
            await self._app.request("POST", f"channels/{self.channel_id}/answer")
            self._up = True
        channels = f"{self.channel_id},{self.media_id}"
        await self._app.request("POST", f"bridges/{self.bridge_id}/addChannel", channel=channels)
        self._joined = True
        return None

    async def transfer(self, destination: str) -> None:
        """Continue the caller at `destination`: `exten`, `exten@context` or `exten@context,priority`.

        The context is by default the one that the call came from. Returns when Asterisk has accepted: no hang-up is
        reported any more, and `release` leaves the channel alone. Raises `ControlError`: still ours. Cancelled, it may
        have been accepted.
        """
        exten, context, priority = self.place_of(destination)
        uri = f"channels/{self.channel_id}"
        if await ari_checks.has_extension(self._app, self.channel_id, context, exten, priority) is False:
            raise ControlRefused(f"the dialplan has no {exten}@{context},{priority}", status=422)
        await self._set_variables("transferred", destination)
        self._continuing = True
        try:
            await self._app.request("POST", f"{uri}/continue", context=context, extension=exten, priority=priority)
        except ControlError:
            if self._gone and self._withheld is None:
                return  # the answer was lost, but StasisEnd has told
            self._stays()
            raise
        self._gone = True

    def _stays(self) -> None:
        """The caller was not moved: a hang-up that looked like it counts."""
        self._continuing = False
        if self._withheld is not None:
            self._report(self._withheld)

    async def is_there(self) -> bool:
        """Whether the caller is still in our Stasis app, by Asterisk's own word; `next_event` reports it if not.

        Raises `ControlUnavailable`.
        """
        try:
            channel = await self._app.request("GET", f"channels/{self.channel_id}")
        except ControlRefused:
            self._destroyed(0, "gone; its hang-up was missed")
            return False
        if channel["dialplan"]["app_name"] != "Stasis" and not self.away:
            self.left(0, "moved away; that was missed")
            return False
        return True

    def place_of(self, destination: str) -> tuple[str, str, str]:
        """Extension, context and priority of `exten@context,priority`; by default the context that the call came from, and
        1. Raises `ControlRefused` for what is no such place."""
        parts = DESTINATION.fullmatch(destination)
        if parts is None:
            raise ControlRefused(f"{destination!r} is not exten, exten@context or exten@context,priority", status=400)
        return parts[1], parts[2] or self._context, parts[3] or "1"

    async def check(self, destination: Destination) -> str:
        """See `leg.CallControl`: whether the dialplan, the endpoint, the queue, the mailbox are there."""
        return await ari_checks.check(self._app, self, destination)

    async def refer(self, address: str, referred_by: str) -> None:
        """See `leg.CallControl`: by `ari_refer`."""
        await ari_refer.refer(self._app, self, address, referred_by)

    @property
    def away(self) -> bool:
        """Whether the caller goes through a piece of the dialplan that comes back to us."""
        return self._way_back is not None

    async def excursion(self, context: str, variables: Mapping[str, str]) -> list[str] | None:
        """Send the caller through `context,s,1`, which comes back with Stasis(APP,returned,...), and into the bridge again.

        Returns the arguments behind `returned`; None: the caller has hung up there, which is reported too. Raises
        `ControlError`: not sent. Cancelled, the caller may come back later, and is then joined again.
        """
        app, uri = self._app, f"channels/{self.channel_id}"
        for name, value in variables.items():
            await app.request("POST", f"{uri}/variable", variable=name, value=value)
        # Outside of our app a channel's end is told to those who have subscribed to it.
        source = f"channel:{self.channel_id}"
        await app.request("POST", f"applications/{app.config.app}/subscription", eventSource=source)
        way_back = self._way_back = trio.Event()
        self._continuing = True
        try:
            await app.request("POST", f"{uri}/continue", context=context, extension="s", priority="1")
        except ControlError:
            told = way_back.is_set() or (self._gone and self._withheld is None)
            if not told:
                self._way_back = None
                self._stays()
                raise
            # the answer was lost, but StasisEnd has told
        self._way_on = {"context": self._context, "extension": self.called, "priority": str(self._next_priority)}
        await way_back.wait()
        return self._returned_with

    def returned(self, arguments: list[str]) -> None:
        """The caller is back from an excursion."""
        assert self._way_back is not None
        way_back, self._way_back = self._way_back, None
        self._continuing = self._gone = False
        self._returned_with = arguments[1:]
        self._app.soon(self._join_again if self._farewell is None else self._finish_late)
        way_back.set()

    async def _finish_late(self) -> None:
        """The call ended while the caller was away."""
        self._app.forget(self, unfinished=not await self.finish())

    async def _join_again(self) -> None:
        if bridge_id := self.bridge_id:
            await self.owed.settle(
                lambda: self._app.request("POST", f"bridges/{bridge_id}/addChannel", channel=self.channel_id)
            )

    @contextmanager
    def expected_to_go(self) -> Iterator[None]:
        """A caller who hangs up meanwhile does what was asked for: it is not reported, unless Asterisk could not even be
        asked."""
        self._continuing = True
        try:
            yield
        except ControlError:
            self._stays()
            raise
        finally:
            self._continuing = False

    def served(self) -> None:
        """The caller's telephone talks to somebody else now; what is left here is hung up."""
        self._gone = self._continuing = True
        self._app.soon(attempt, self._app.request("DELETE", f"channels/{self.channel_id}", reason_code="16"))

    def replaced(self, channel: Channel) -> None:
        """The caller's telephone has passed the call on: this channel is the caller now."""
        self.channel_id, self.name = channel.id, channel.name or channel.id
        self._party, self._up = channel.caller, channel.state == "Up"
        self._way_on = {}

    def target(self, destination: Destination) -> DialledTarget:
        """Somebody to be dialled for this caller."""
        self._targets += 1
        return DialledTarget(self._app, self, destination, self._targets)

    def hand_over(self, target_id: str) -> None:
        """The caller talks to this channel from here on, in the call's bridge: it is no call of ours any more."""
        self._app.look_after(Joined(self._app, self.channel_id, target_id, self.bridge_id))
        self.bridge_id = ""
        self._gone = True

    async def send_digits(self, digits: str) -> None:
        """Press keys towards the caller, 100 ms each with 100 ms between (Asterisk's own measures). Raises
        `ControlError`."""
        await self._app.request("POST", f"channels/{self.channel_id}/dtmf", dtmf=digits)

    async def start_music(self, music: str) -> None:
        """The caller hears this class of music instead of the bridge. Raises `ControlError`."""
        await self._app.request("POST", f"channels/{self.channel_id}/moh", mohClass=music)

    async def stop_music(self) -> None:
        """The caller hears the bridge again. Raises `ControlError`."""
        await self._app.request("DELETE", f"channels/{self.channel_id}/moh")

    async def record(self, step: RecordingStep, name: str) -> None:
        """Do this with the recording `name` of the call's bridge; see `ari_recording`. Raises `ControlError`."""
        await ari_recording.record(self._app.request, self.bridge_id, step, name)

    async def next_event(self) -> ControlEvent:
        """The next digit or hold, or the hang-up, which comes once and last. Cancelling loses nothing."""
        return await self._receive.receive()

    def unread(self, event: ControlHungUp) -> None:
        """What `next_event` gave was for somebody else: it gives it again."""
        self._send.send_nowait(event)

    async def release(self, reason: EndReason, detail: str, cause: int = UNKNOWN) -> None:
        """Do with the caller what `FAREWELLS` says of `reason`, and remove the media channel and the bridge.

        The dialplan finds BRIDGE_END_REASON and BRIDGE_END_DETAIL. Idempotent, never raises. What fails, or is cut short by
        cancellation, the next sweep does. Where the caller should be gone but is still in our app (its media ended
        without a hang-up), it continues in the dialplan: nobody is left in silence.
        """
        if self._farewell is not None:
            return
        self._farewell = self._action(FAREWELLS[reason].channel), reason.value, detail, cause
        finished = False

        async def dismiss() -> None:
            nonlocal finished
            finished = await self.finish()

        try:
            await together(dismiss(), self._remove_media(), self._remove_bridge())
        finally:
            self._app.forget(self, unfinished=not finished)

    def _action(self, action: ChannelAction) -> ChannelAction:
        return ChannelAction.CONTINUE if action is ChannelAction.NOTHING else action

    async def finish(self) -> bool:
        """Carry out the farewell on the caller's channel. Returns whether nothing is left to do."""
        if self._gone or self._hung_up or self._farewell is None:
            return True
        action, reason, detail, cause = self._farewell
        app, uri = self._app, f"channels/{self.channel_id}"
        try:
            await self._set_variables(reason, detail)
        except ControlRefused:
            return True  # gone, or somebody has moved it away: then it is not ours to hang up, though Asterisk would
        except ControlError as error:
            logger.warning("ARI: %s: %s; left for the next sweep", self.name, error)
            return False
        self._continuing = True
        if action is ChannelAction.HANG_UP:
            why = {"reason": "normal"} if cause == UNKNOWN else {"reason_code": str(cause)}
            return await attempt(app.request("DELETE", uri, **why))
        return await attempt(app.request("POST", f"{uri}/continue", **await self._continue_at()))

    async def _continue_at(self) -> Mapping[str, str]:
        """Where the caller goes on by the settings; nothing: at the priority behind Stasis()."""
        config = self._app.config
        if not (config.continue_context or config.continue_extension):
            return self._way_on
        context, exten = config.continue_context or self._context, config.continue_extension or "s"
        with suppress(ControlError):
            if context and await ari_checks.has_extension(self._app, self.channel_id, context, exten, "1") is False:
                logger.error(
                    "ARI: the dialplan has no %s@%s (asterisk.continue_context, continue_extension), and would hang the "
                    "caller up; %s goes on behind Stasis()",
                    *(exten, context, self.name),
                )
                return self._way_on
        place = {"extension": exten, "priority": "1"}
        return place | {"context": context} if context else place

    async def _set_variables(self, reason: str, detail: str) -> None:
        """Raises `ControlError`. One request each: the plural form is younger than many an Asterisk."""
        uri = f"channels/{self.channel_id}/variable"
        errors = await together(
            self._app.request("POST", uri, variable="BRIDGE_END_REASON", value=reason),
            self._app.request("POST", uri, variable="BRIDGE_END_DETAIL", value=harmless(detail)),
        )
        for error in errors:
            if error is not None:
                raise error

    async def _remove_media(self) -> None:
        if self.media_id:
            await attempt(self._app.request("DELETE", f"channels/{self.media_id}"))

    async def _remove_bridge(self) -> None:
        if self.bridge_id:
            await attempt(self._app.request("DELETE", f"bridges/{self.bridge_id}"))

    def caller_event(self, event: Message) -> None:
        """An event of the caller's channel. Synchronous."""
        match event.type:
            case "ChannelDtmfReceived":
                self._tell(ControlDigit(event.digit))
            case "ChannelHold" | "ChannelUnhold":
                self._tell(ControlHold(event.type == "ChannelHold"))
            case "ChannelStateChange" if event.channel is not None:
                self._up = event.channel.state == "Up"
            case "ChannelHangupRequest":
                text = "hung up by Asterisk" if event.soft else "the caller hung up"
                self._report(ControlHungUp(0 if event.soft else event.cause, text))
            case "ChannelDestroyed":
                self._destroyed(event.cause, event.cause_txt)
            case "StasisEnd":
                self.left(0, "left the Stasis app")

    def media_event(self, event: Message) -> None:
        """An event of the media channel: when it is ready for the bridge. Its end is seen on the media connection."""
        if event.type == "StasisStart":
            self._media_ready = True
            self._media_settled.set()
        elif event.type in ("StasisEnd", "ChannelDestroyed"):
            self._media_ready = False
            self._media_settled.set()

    def _destroyed(self, cause: int, detail: str) -> None:
        """The caller's channel is no more, wherever it was."""
        if self._way_back is not None:
            way_back, self._way_back, self._returned_with = self._way_back, None, None
            self._continuing = False
            way_back.set()
            if self._farewell is not None:
                self._app.forget(self)
        self.left(cause, detail)

    def recording_failed(self, cause: str) -> None:
        """Asterisk can not go on with the recording of this call. Where many events are unread, this one is dropped."""
        with suppress(trio.WouldBlock):
            self._send.send_nowait(
                ControlRecordingFailed(f"Asterisk's recording failed: {cause or 'no cause given'}")
            )

    def left(self, cause: int, detail: str) -> None:
        """The caller's channel is not in our Stasis app any more."""
        self._gone = True
        if not self.away:
            self.has_gone.set()
        self._report(ControlHungUp(cause, detail))

    def _tell(self, event: ControlEvent) -> None:
        try:
            self._send.send_nowait(event)
        except trio.WouldBlock:
            logger.warning("ARI: %s: %s dropped, %d events are unread", self.name, type(event).__name__, _EVENTS_SIZE)

    def _report(self, event: ControlHungUp) -> None:
        """Tell of the hang-up once; keep it back while a `continue` of ours is under way, which looks the same."""
        self._media_settled.set()
        if self._continuing:
            # A StasisEnd is what we asked for; a hang-up request is not, and counts if the continue is refused.
            if not self._gone:
                self._withheld = event
            return
        if self._hung_up:
            return
        self._hung_up = True
        try:
            self._send.send_nowait(event)
        except trio.WouldBlock:
            self._receive.receive_nowait()
            self._send.send_nowait(event)


def harmless(detail: str) -> str:
    """`detail` for a channel variable: at most 200 characters, without what a dialplan line could trip over.

    Commas, quotes, `$`, brackets and line breaks change the meaning of the application that gets them as an argument.
    """
    words = "".join(c if c.isalnum() or c in "._:/@+=-" else " " for c in detail).split()
    return " ".join(words)[:200]
