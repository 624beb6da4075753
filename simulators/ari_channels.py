"""Channels and bridges of the fake Asterisk, with the events that they cause; `simulators.ari_server` owns them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import trio

if TYPE_CHECKING:
    from simulators.ari_server import AriServer

Json = dict[str, Any]
HUNG_UP = "hung up"


@dataclass(frozen=True)
class Place:
    """Where in the dialplan a channel went on. `exten` and `priority` are empty for "the next priority"."""

    context: str = ""
    exten: str = ""
    priority: str = ""


@dataclass(eq=False)
class FakeChannel:
    """A channel. `dialplan`: None while in Stasis, the `Place` where it continued, or `HUNG_UP`; then `hung_up_with` is the
    cause that ARI gave. `music`: the class of the music on hold that it hears; `pressed`: the digits that ARI sent it;
    `referred_to`: where its telephone was asked to call. `watched`: its own end is told, wherever it is then. `elsewhere`:
    the Stasis app of somebody else that has it, `moved_with` the arguments with which it came there, and `first_app` the
    app that its dialplan named, where that was not ours."""

    server: AriServer
    id: str
    name: str
    caller: tuple[str, str] = ("", "")
    context: str = "default"
    exten: str = "s"
    arguments: tuple[str, ...] = ()
    state: str = "Ring"
    in_stasis: bool = False
    dialplan: Place | str | None = None
    bridge: FakeBridge | None = None
    variables: dict[str, str] = field(default_factory=dict)
    pressed: list[str] = field(default_factory=list)
    music: str = ""
    referred_to: str = ""
    watched: bool = False
    elsewhere: str = ""
    first_app: str = ""
    moved_with: tuple[str, ...] = ()
    hung_up_with: int = 0

    def json(self) -> Json:
        """As in events and answers."""
        stasis = ",".join([self.first_app or self.server.app, *self.arguments])
        in_stasis = self.in_stasis or bool(self.elsewhere)
        return {
            "id": self.id,
            "name": self.name,
            "state": self.state,
            "protocol_id": "",
            "caller": {"name": self.caller[1], "number": self.caller[0]},
            "connected": {"name": "", "number": ""},
            "accountcode": "",
            "dialplan": {
                **{"context": self.context, "exten": self.exten, "priority": 2},
                **{"app_name": "Stasis" if in_stasis else "", "app_data": stasis if in_stasis else ""},
            },
            "creationtime": "2026-11-21T06:17:02.211+0000",
            "language": "en",
        }

    def hang_up(self, cause: int = 16) -> None:
        """The far end hangs up."""
        self.server.emit("ChannelHangupRequest", cause=cause, channel=self.json())
        self.leave(HUNG_UP)

    def press(self, digit: str) -> None:
        """The far end presses a key."""
        self.server.emit("ChannelDtmfReceived", digit=digit, duration_ms=100, channel=self.json())

    def hold(self, held: bool) -> None:
        """The far end puts us on hold, or comes back."""
        self.server.emit("ChannelHold" if held else "ChannelUnhold", channel=self.json())

    def leave(self, where: Place | str) -> None:
        """Leave Stasis. The subscription ends with StasisEnd, so that the channel's own end is not told."""
        self.dialplan = where
        if self.bridge is not None:
            self.bridge.remove(self)
        if self.in_stasis:
            self.in_stasis = False
            self.server.emit("StasisEnd", channel=self.json())
        if where == HUNG_UP:
            self.server.channels.pop(self.id, None)
            if self.watched:
                self.server.emit("ChannelDestroyed", cause=16, cause_txt="Normal Clearing", channel=self.json())

    def move(self, app: str, arguments: list[str]) -> None:
        """To another Stasis app, out of ours or into it; its bridge and its `app_data` stay as they are."""
        server = self.server
        if app != server.app and app not in server.other_apps:
            server.emit("ApplicationMoveFailed", destination=app, args=arguments, channel=self.json())
            return
        ours, self.in_stasis = self.in_stasis, app == server.app
        if self.elsewhere:
            server.other_apps[self.elsewhere].remove(self.id)
        self.elsewhere, self.moved_with = "" if self.in_stasis else app, tuple(arguments)
        if self.in_stasis:
            server.emit("StasisStart", args=arguments, channel=self.json())
        else:
            server.other_apps[app].append(self.id)
        if ours:
            server.emit("StasisEnd", channel=self.json())

    def passes_on(self, name: str) -> FakeChannel:
        """The far end passes its call on by the telephone: another channel takes its place, in its bridge and in Stasis."""
        other = replace(self, id=f"{self.id}-then", name=name, bridge=None, in_stasis=True)
        self.server.channels[other.id] = other
        self.server.emit("StasisStart", args=[], channel=other.json(), replace_channel=self.json())
        if self.bridge is not None:
            bridge = self.bridge
            bridge.remove(self)
            bridge.add(other)
        self.leave(HUNG_UP)
        return other

    def returns(self, *arguments: str) -> None:
        """The dialplan executes Stasis() once more with the same channel."""
        self.arguments, self.dialplan = arguments, None
        self.server.enter(self)


@dataclass(eq=False)
class FakeBridge:
    """A mixing bridge. `ever_held`: it has held a channel, and so is listed with the application."""

    server: AriServer
    id: str
    name: str
    members: list[FakeChannel] = field(default_factory=list)
    ever_held: bool = False

    def json(self) -> Json:
        """As in events and answers."""
        return {
            "id": self.id,
            "technology": "simple_bridge",
            "bridge_type": "mixing",
            "bridge_class": "stasis",
            "creator": "Stasis",
            "name": self.name,
            "channels": [member.id for member in self.members],
            "creationtime": "2026-11-21T06:17:02.219+0000",
            "video_mode": "talker",
        }

    def add(self, channel: FakeChannel) -> None:
        """A channel that is a member already leaves and enters again, as in the real one."""
        if channel.bridge is not None:
            channel.bridge.remove(channel)
        channel.bridge, self.ever_held = self, True
        self.members.append(channel)
        self.server.emit("ChannelEnteredBridge", bridge=self.json(), channel=channel.json())

    def remove(self, channel: FakeChannel) -> None:
        """Take the channel out."""
        channel.bridge = None
        self.members.remove(channel)
        self.server.emit("ChannelLeftBridge", bridge=self.json(), channel=channel.json())


@dataclass(eq=False)
class FakeRecording:
    """A recording of a bridge. `muted`: from when until when it keeps silence; `live`: it is not complete yet."""

    server: AriServer
    bridge: FakeBridge
    name: str
    format: str
    began_at: float
    live: bool = True
    ended_at: float | None = None
    muted: list[tuple[float, float | None]] = field(default_factory=list)

    def json(self) -> Json:
        """As in events and answers."""
        state = "recording" if self.live else "done"
        return {
            **{"name": self.name, "format": self.format, "state": state},
            "target_uri": f"bridge:{self.bridge.id}",
        }

    def end(self) -> None:
        """It is stored."""
        self.live, self.ended_at = False, trio.current_time()
        self.server.emit("RecordingFinished", recording=self.json())

    def fail(self, cause: str) -> None:
        """Asterisk's disk is full, or the like."""
        self.live = False
        self.server.emit("RecordingFailed", recording={**self.json(), "state": "failed", "cause": cause})
