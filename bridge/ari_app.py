"""Our Stasis app: gives each caller a `ChannelControl`, each event to its owner, and clears what is nobody's.

Channels and bridges stay in the app while no websocket is there, and are listed in `applications/APP`, bridges only once
they have held one of our channels; `name` marks the others as ours (measured on 22.10.1). So what was missed is found by a
sweep: after each connect, and once a minute.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import trio

from bridge import asterisk_version
from bridge.ari_client import AriClient, Channel, LiveRecording, Message, attempt
from bridge.ari_control import BRIDGE_PREFIX, CALL_PREFIX, MEDIA_PREFIX, ChannelControl
from bridge.ari_dial import AMD_ARGUMENT, OUTGOING_ARGUMENT, OUTGOING_PREFIX, OutgoingChannel
from bridge.ari_joined import Joined
from bridge.ari_taken import TakenControl
from bridge.ari_target import CONSULT_PREFIX
from bridge.asterisk_version import media_format
from bridge.config import Asterisk, MediaFormat
from bridge.ending import EndReason
from bridge.errors import ControlError, ControlRefused

logger = logging.getLogger("bridge.ari")

# What a lost answer or a lost event left behind is found at the latest after this long (or at the next reconnect).
_SWEEP_S = 60.0
# While another process has the app nobody tells us who hangs up: then it is looked for so often.
_DEAF_SWEEP_S = 3.0
# A process from which we took the app takes it back within 30 s (`ari_client`). What of it is still there after this, and
# nobody has taken anything back, belongs to nobody.
_OTHERS_S = 45.0
# Channels that did not come when they were taken, and still may.
_MOST_LATE = 256
# A caller may be listed in the app before its StasisStart reaches us; one that has no control after this is stranded.
_STRANDED_S = 1.0


class AriApp:
    """Our Stasis app: holds the connection, hands each new caller to `on_call`, clears what nobody owns.

    `on_call(control)` is called synchronously for each caller that enters; whoever takes it must end it with
    `control.release`, also to refuse it. `request_s` bounds every single request.
    """

    def __init__(
        self,
        config: Asterisk,
        request_s: float,
        on_call: Callable[[ChannelControl], None],
        *,
        connect_stream: Callable[[], trio.abc.Stream] | None = None,
    ) -> None:
        self.config = config
        self.request_s = request_s
        self.asterisk_version = ""
        # Calls that come before Asterisk has told its version are few, and any Asterisk takes 8 kHz.
        self.media_format = MediaFormat.SLIN
        self._on_call = on_call
        self._client = AriClient(
            config, request_s, self._on_event, self._on_connected, self._on_trouble, connect_stream=connect_stream
        )
        self.request = self._client.request
        self._callers: dict[str, ChannelControl] = {}
        self._media: dict[str, ChannelControl] = {}
        self._unfinished: dict[str, ChannelControl] = {}
        self._outgoing: dict[str, OutgoingChannel] = {}
        self._came_late: dict[str, str] = {}  # where they go back to
        self._taking: dict[str, tuple[Callable[[TakenControl], None], str]] = {}
        self._joined: set[Joined] = set()
        self._parted = trio.Event()
        # Asterisk may still list a media channel whose call has just ended, here.
        self._media_made: deque[str] = deque(maxlen=256)
        self._others_since = math.inf
        self._settled = trio.Event()
        self._nursery: trio.Nursery | None = None

    @property
    def connected(self) -> bool:
        """Whether new calls reach us now."""
        return self._client.connected

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve for ever, reconnecting; cancel to stop. `started`: connected and swept, or the first try failed.

        Cancel it last: calls that still end need the connection for their `release`.
        """
        async with trio.open_nursery() as self._nursery:
            self._nursery.start_soon(self._client.run)
            await self._settled.wait()
            task_status.started()

    def _on_trouble(self) -> None:
        self._settled.set()

    async def _on_connected(self, after_replaced: bool) -> None:
        try:
            info = await self.request("GET", "asterisk/info", only="system")
            await self._learn_version(str(info["system"]["version"]))
        except (ControlError, LookupError, TypeError) as error:
            logger.warning(
                "ARI connected to %s, but: %s; `realtime-bridge doctor` finds out why", self._client.place, error
            )
            if not self.asterisk_version:
                self.media_format = media_format(self.config.format, asterisk_version.UNKNOWN).format
        taken = self._client.taken
        self._others_since = math.inf
        while True:
            try:
                # Around a replacement the strangers in our app may well be the calls of the other process.
                await self._sweep(clear_strangers=not (after_replaced or taken.is_set()))
            except ControlError as error:
                logger.warning("ARI: looking for leftovers failed: %s", error)
            except Exception:
                # An answer of a shape that we do not know (a proxy's page, another version) must not end all calls.
                logger.exception("ARI: looking for leftovers failed")
            self._settled.set()
            if taken.is_set() or self._others_since < math.inf:
                await trio.sleep(_DEAF_SWEEP_S)
            else:
                with trio.move_on_after(_SWEEP_S):
                    await taken.wait()

    async def _learn_version(self, text: str) -> None:
        """Choose what suits this Asterisk, and tell once what it is and what there is to know. Raises `ControlError`."""
        version = asterisk_version.parse(text)
        resampler = self.config.format != "auto" or await self._runs("codec_resample.so")
        choice = media_format(self.config.format, version, resampler=resampler)
        logger.info("ARI connected: Asterisk %s, app %s, media %s", version, self.config.app, choice.format)
        self.media_format = choice.format
        if text == self.asterisk_version:
            return
        self.asterisk_version = text
        if choice.why:
            logger.warning("calls are asked for as %s: %s", choice.format, choice.why)
        for known in asterisk_version.advice(version):
            level = logging.WARNING if known.remedy else logging.INFO
            logger.log(level, "Asterisk %s: %s%s", version, known.text, f"; {known.remedy}" if known.remedy else "")

    async def _runs(self, module: str) -> bool:
        try:
            answer = await self.request("GET", f"asterisk/modules/{module}")
        except ControlRefused:
            return False
        return bool(answer["status"] == "Running")

    def _on_event(self, event: Message) -> None:
        channel = event.channel or event.peer
        if channel is None:
            if event.recording is not None:
                self._on_recording(event.type, event.recording)
            return
        if event.replace_channel is not None:
            self._replace(event.replace_channel.id, channel)
        elif joined := self._joined_with(channel.id):
            if event.channel is not None:
                joined.event(event, self.soon)
        elif outgoing := self._outgoing.get(channel.id):
            outgoing.event(event)
        elif channel.id.startswith((OUTGOING_PREFIX, CALL_PREFIX)) and self._is_stray(channel.id, event):
            if event.type == "StasisStart":  # its call ended while Asterisk made it
                self.soon(attempt, self.request("DELETE", f"channels/{channel.id}"))
        elif channel.id.startswith(MEDIA_PREFIX):
            if control := self._media.get(channel.id):
                control.media_event(event)
            elif event.type == "StasisStart":  # its call ended while Asterisk still dialled us
                self.soon(attempt, self.request("DELETE", f"channels/{channel.id}"))
        elif event.type == "StasisStart":
            if (control := self._callers.get(channel.id)) is not None and control.away:
                control.returned(event.args)
            else:
                self._enter(channel, event.args)
        elif control := self._callers.get(channel.id):
            control.caller_event(event)

    def _is_stray(self, channel_id: str, event: Message) -> bool:
        """Whether this channel of our own making belongs to no call any more. One that the dialplan has sent to us, after a
        transfer, is a new call."""
        made_here = event.type != "StasisStart" or event.args[:1] in ([OUTGOING_ARGUMENT], [AMD_ARGUMENT])
        return made_here and channel_id not in self._callers

    def _on_recording(self, kind: str, recording: LiveRecording) -> None:
        media_id = recording.target_uri.replace(f"bridge:{BRIDGE_PREFIX}", MEDIA_PREFIX, 1)
        if kind == "RecordingFailed" and (control := self._media.get(media_id)):
            control.recording_failed(recording.cause)

    def _enter(self, channel: Channel, arguments: list[str]) -> None:
        control: ChannelControl
        if (taking := self._taking.pop(channel.id, None)) or channel.id in self._came_late:
            arrived, came_from = taking or (_goes_back, self._came_late.pop(channel.id))
            control = TakenControl(self, channel, arguments, came_from)
            enter = partial(arrived, control)
        else:
            control = ChannelControl(self, channel, arguments)
            enter = partial(self._on_call, control)
        self._callers[channel.id] = control
        try:
            enter()
        except Exception:
            # One bad call must not take the connection, and with it all others, along.
            logger.exception("ARI: the call of %s could not be taken", control.name)
            self.soon(control.release, EndReason.INTERNAL_ERROR, "the call could not be taken")

    def soon(self, function: Callable[..., Awaitable[Any]], *arguments: Any) -> None:
        """Start this beside everything else; nothing happens when we are not running."""
        if self._nursery is not None:
            self._nursery.start_soon(function, *arguments)

    def _replace(self, old: str, channel: Channel) -> None:
        """A telephone has passed its call on, or somebody else has picked it up: `channel` stands in the place of `old`, in
        the same bridge. Never a new call. The old one's end is told after this, and is nobody's any more."""
        if joined := self._joined_with(old):
            joined.replaced(old, channel.id)
        elif outgoing := self._outgoing.pop(old, None):
            self._outgoing[channel.id] = outgoing
            outgoing.replaced(channel)
        elif control := self._callers.pop(old, None):
            self._callers[channel.id] = control
            control.replaced(channel)
        logger.info("ARI: %s stands in the place of %s", channel.name, old)

    def _joined_with(self, channel_id: str) -> Joined | None:
        return next((joined for joined in self._joined if channel_id in joined.channel_ids), None)

    def has_call(self, channel_id: str) -> bool:
        """Whether this channel is in the hands of a call, or on its way there."""
        return channel_id in self._callers or channel_id in self._taking or self._joined_with(channel_id) is not None

    def expect_taken(self, channel_id: str, arrived: Callable[[TakenControl], None], came_from: str = "") -> None:
        """This channel is being moved here: `arrived` is told synchronously when it comes."""
        self._taking[channel_id] = arrived, came_from

    def forget_taken(self, channel_id: str, *, may_come: bool = False) -> None:
        """It is not moved after all. `may_come`: it may, and then goes back at once."""
        taking = self._taking.pop(channel_id, None)
        if taking and may_come:
            self._came_late[channel_id] = taking[1]
            if len(self._came_late) > _MOST_LATE:
                del self._came_late[next(iter(self._came_late))]

    def expect_outgoing(self, channel: OutgoingChannel) -> None:
        """Route the events of a channel that we are about to make."""
        self._outgoing[channel.channel_id] = channel

    def forget_outgoing(self, channel: OutgoingChannel) -> None:
        """That channel is over, or somebody else's."""
        if self._outgoing.get(channel.channel_id) is channel:
            del self._outgoing[channel.channel_id]

    def take_over(self, control: ChannelControl) -> None:
        """The channel of a call that we placed was answered: its events are those of a caller from here on."""
        self._callers[control.channel_id] = control

    def look_after(self, joined: Joined) -> None:
        """These two talk to each other from here on."""
        self._joined.add(joined)

    def forget_joined(self, joined: Joined) -> None:
        """They have parted."""
        self._joined.discard(joined)
        self._parted.set()
        self._parted = trio.Event()

    async def all_parted(self) -> None:
        """Wait until nobody whom a transfer has joined talks any more."""
        while self._joined:
            await self._parted.wait()

    @property
    def transferred(self) -> int:
        """How many callers talk to whom they were transferred to, in our app."""
        return len(self._joined)

    def expect_media(self, media_id: str, control: ChannelControl) -> None:
        """Route the events of the media channel `media_id` to `control`, from before it exists."""
        self._media[media_id] = control
        self._media_made.append(media_id)

    def forget(self, control: ChannelControl, *, unfinished: bool = False) -> None:
        """`control` is released. `unfinished`: its caller could not be told; the next sweep tries again. One who is away
        is told when he is back, and is no new call then."""
        if self._callers.get(control.channel_id) is control and not control.away:
            del self._callers[control.channel_id]
            if unfinished:
                self._unfinished[control.channel_id] = control
        if self._media.get(control.media_id) is control:
            del self._media[control.media_id]

    async def _sweep(self, *, clear_strangers: bool) -> None:
        """Compare what Asterisk holds for our app with the calls that we know, and clear what nobody owns.

        `clear_strangers=False` leaves alone what another process may own. Raises `ControlError`.
        """
        # Of before the question: who enters meanwhile may be missing in the answer.
        callers = list(self._callers.values())
        application = await self.request("GET", f"applications/{self.config.app}")
        bridges = await self.request("GET", "bridges")
        present = set(application["channel_ids"])
        if clear_strangers:
            clear_strangers = not self._others_live(present)
        for control in callers:
            if control.channel_id not in present:
                # A caller may be listed only just after its StasisStart: ask once more, for this one.
                await control.is_there()
            await control.owed.settle_rest()
        for outgoing in list(self._outgoing.values()):
            await outgoing.resync()
        for joined in list(self._joined):
            for gone in joined.channel_ids - present:
                joined.left(gone, self.soon)
        ours = set(application["bridge_ids"]) | {
            bridge["id"] for bridge in bridges if bridge["name"] == self.config.app
        }
        if clear_strangers:
            self._adopt(bridges, ours)
        together = {channel_id for joined in self._joined for channel_id in joined.channel_ids}
        owned_channels = together | self._media.keys() | self._outgoing.keys() | self._callers.keys()
        for channel_id in present - owned_channels if clear_strangers else ():
            if channel_id.startswith((MEDIA_PREFIX, OUTGOING_PREFIX, CALL_PREFIX)):
                logger.warning("ARI: hanging up the channel %s, which belongs to no call", channel_id)
                await attempt(self.request("DELETE", f"channels/{channel_id}"))
        spoken_to = {channel for bridge in bridges if bridge["id"] in ours for channel in bridge["channels"]}
        owned = {control.bridge_id for control in self._media.values()} | {
            joined.bridge_id for joined in self._joined
        }
        for bridge_id in sorted(ours - owned) if clear_strangers else ():
            consults = bridge_id.startswith(CONSULT_PREFIX) and self._consults(bridge_id)
            if bridge_id.startswith((BRIDGE_PREFIX, CONSULT_PREFIX)) and not consults:
                logger.warning("ARI: destroying the bridge %s, which belongs to no call", bridge_id)
                await attempt(self.request("DELETE", f"bridges/{bridge_id}"))
        for channel_id in [unfinished for unfinished in self._unfinished if unfinished not in present]:
            del self._unfinished[channel_id]
        strangers = [
            channel_id
            for channel_id in sorted(present - together)
            if not channel_id.startswith((MEDIA_PREFIX, OUTGOING_PREFIX, CALL_PREFIX))
        ]
        if any(channel_id not in self._callers for channel_id in strangers):
            await trio.sleep(_STRANDED_S)
        for channel_id in strangers:
            if channel_id in self._callers:
                continue
            if control_left := self._unfinished.get(channel_id):
                if await control_left.finish():
                    self._unfinished.pop(channel_id, None)
            elif clear_strangers:
                logger.warning("ARI: continuing channel %s, whose call ended without us, in the dialplan", channel_id)
                stranger = ChannelControl(self, Channel(id=channel_id), [])
                if channel_id in spoken_to:
                    await stranger.release(EndReason.INTERNAL_ERROR, "the bridge restarted")
                else:  # it came while we were dying: another worker may take it (docs/scale-out.md)
                    await stranger.release(EndReason.SERVER_DRAINING, "the bridge restarted before it took this call")

    def _others_live(self, present: set[str]) -> bool:
        """Whether another process holds calls in our app. Its media channels would have died with it, as its sockets do.

        It takes the app back after a while; one that does not was on a machine that is gone, which Asterisk does not know.
        """
        now = trio.current_time()
        if not any(name.startswith(MEDIA_PREFIX) and name not in self._media_made for name in present):
            self._others_since = math.inf
        elif self._others_since == math.inf:
            self._others_since = now
            logger.error(
                "ARI: another process holds calls in the Stasis app %s; they are left alone. Give each process its own "
                "asterisk.app",
                self.config.app,
            )
        return now - self._others_since < _OTHERS_S and self._others_since < math.inf

    def _adopt(self, bridges: list[dict[str, Any]], ours: set[str]) -> None:
        """Look after who was transferred by a process that is gone: two in a bridge of ours, one of them dialled by us."""
        known = {joined.bridge_id for joined in self._joined} | {
            control.bridge_id for control in self._media.values()
        }
        for bridge in bridges:
            members = set(bridge["channels"])
            dialled = {channel_id for channel_id in members if channel_id.startswith(OUTGOING_PREFIX)}
            callers = {channel_id for channel_id in members - dialled if not channel_id.startswith(MEDIA_PREFIX)}
            theirs = bridge["id"] in ours and bridge["id"].startswith(BRIDGE_PREFIX) and bridge["id"] not in known
            if theirs and len(members) == 2 and len(dialled) == len(callers) == 1:
                logger.info("ARI: looking after the transferred call in %s again", bridge["id"])
                self.look_after(Joined(self, callers.pop(), dialled.pop(), bridge["id"]))

    def _consults(self, bridge_id: str) -> bool:
        """Whether a transfer of one of our calls is being talked over there."""
        return any(bridge_id.startswith(f"{CONSULT_PREFIX}{control.call_name}-") for control in self._media.values())


def _goes_back(control: TakenControl) -> None:
    """It was taken for a call that is over."""
    control.release_soon("it came too late")
