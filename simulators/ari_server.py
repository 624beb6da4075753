"""A strict fake of Asterisk's ARI: the requests and events that the bridge uses, with 22.10.1's status codes and shapes.

Runs on a `MemoryListener` in virtual time. `tests/ari_contract.py` is run against this and against the real one. Whatever
the real one does not know is refused here too (unknown resource: 404, unknown parameter: an error of the test). What a
call leaves behind is visible: `channels` and `bridges` are empty when everything was cleared.
"""

from __future__ import annotations

import itertools
import json
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any, NoReturn
from urllib.parse import parse_qs, unquote, urlsplit

import trio
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.trio.server import ServerConnection, serve

from bridge.asterisk_version import REQUESTS_ON_WEBSOCKET, WIDEBAND, parse
from simulators.ari_callees import Callee, OutgoingChannel
from simulators.ari_channels import HUNG_UP, FakeBridge, FakeChannel, FakeRecording, Json, Place
from simulators.ari_http import HttpAnswer, HttpRequest, is_upgrade, read_head, serve_http
from simulators.memory import MemoryListener, MemoryStream

__all__ = ["HUNG_UP", "AriServer", "Callee", "FakeBridge", "FakeChannel", "FakeRecording", "Place"]

_PARAMETERS = {
    "bridges": {"type", "bridgeId", "name"},
    "addChannel": {"channel"},
    "externalMedia": {
        *("app", "external_host", "encapsulation", "transport", "connection_type", "format", "data", "channelId"),
    },
    "answer": set[str](),
    "record": {"name", "format", "ifExists", "beep"},
    "mute": set[str](),
    "stop": set[str](),
    "variable": {"variable", "value"},
    "continue": {"context", "extension", "priority"},
    "create": {"endpoint", "app", "appArgs", "channelId", "originator", "formats"},
    "dial": {"timeout", "caller"},
    "moh": {"mohClass"},
    "removeChannel": {"channel"},
    "move": {"app", "appArgs"},
    "subscription": {"eventSource"},
    "redirect": {"endpoint"},
    "DELETE": {"reason", "reason_code"},
    "dtmf": {"dtmf"},
    "GET": {"only", "variable"},
}


# Of the 22.10.1 in asterisk/, those that a bridge may ask about.
MODULES = (
    *("res_ari.so", "res_ari_applications.so", "res_ari_asterisk.so", "res_ari_bridges.so", "res_ari_channels.so"),
    *("res_ari_events.so", "res_stasis.so", "res_stasis_answer.so", "res_http_websocket.so", "app_stasis.so"),
    *("res_audiosocket.so", "chan_audiosocket.so", "app_audiosocket.so", "codec_resample.so", "func_dialplan.so"),
    *("bridge_simple.so", "bridge_softmix.so"),
)


def _module(name: str, status: str) -> Json:
    return {"name": name, "description": "", "use_count": 0, "status": status, "support_level": "core"}


class _Refused(Exception):
    """An error answer: `status` and Asterisk's `message`."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def _refuse(status: int, message: str) -> NoReturn:
    raise _Refused(status, message)


class AriServer:
    """One Asterisk. Serve it with `run`, let the bridge come in by `connect`, place calls with `incoming_call`.

    `has_events`: res_ari_events is loaded. `read_only`: the user may not change anything. `other_apps`: the Stasis apps of
    other processes, with their channels. `dialplan` holds the places that exist, as `(context, exten, priority)`, `callees`
    whom one can call, by endpoint (`PJSIP/600`), `functions` what dialplan functions say (`QUEUE_EXISTS(support)`).
    `on_external_media(host, uuid, format)` is called when the bridge asks for media; it may raise
    `ConnectionRefusedError`. `requests` lists what was asked, in order, and `by_http` how many of them by HTTP.
    A `version` before 20.14 / 21.9 / 22.4 drops what is asked on the websocket (`dropped` counts), as the real ones do;
    `takes_requests` can say otherwise.
    """

    def __init__(
        self, app: str = "bridge-1", username: str = "bridge", password: str = "bridge", version: str = "22.10.1"
    ) -> None:
        self.app = app
        self.credentials = f"Basic {b64encode(f'{username}:{password}'.encode()).decode()}"
        self.api_key = f"{username}:{password}"
        self.version = version
        self.takes_requests = parse(version).has(REQUESTS_ON_WEBSOCKET) or not parse(version).known
        self.websocket_server_header: str | None = None  # 22.10.1 sends none in this answer, though in all others
        self.enabled = True
        self.has_func_dialplan = True
        self.has_events = True
        self.read_only = False
        self.other_apps: dict[str, list[str]] = {}
        self.modules = dict.fromkeys(MODULES, "Running")
        self.listener = MemoryListener(backlog=64)
        self.channels: dict[str, FakeChannel] = {}
        self.bridges: dict[str, FakeBridge] = {}
        self.recordings: dict[str, FakeRecording] = {}
        self.has_recording_folder = True
        self.dialplan: set[tuple[str, str, str]] = set()
        self.callees: dict[str, Callee] = {}
        self.functions: dict[str, str] = {}
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.on_external_media: Callable[[str, str, str], None] | None = None
        self.accepted = self.by_http = self.dropped = 0
        self.http_connections = 0
        self._websockets = MemoryListener()
        self._silent: list[str] = []
        self._slow: dict[str, float] = {}
        self._events_late_s = self._answers_late_s = 0.0
        self._stasis_delay_s = 0.0
        self._numbers = itertools.count(1)
        self._current: _Connection | None = None
        self._nursery: trio.Nursery | None = None

    def connect(self) -> trio.abc.Stream:
        """A new byte stream to this Asterisk, for the bridge's `connect_stream`."""
        return self.listener.connect()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled."""
        async with trio.open_nursery() as self._nursery:
            task_status.started()
            self._nursery.start_soon(self._accept)
            await serve(
                self._serve,
                listeners=[self._websockets.as_socket_listener()],
                process_request=self._authenticate,
                compression=None,
                ping_interval=None,
                server_header=self.websocket_server_header,
            )

    async def _accept(self) -> None:
        assert self._nursery is not None
        while True:
            self._nursery.start_soon(self._serve_port, await self.listener.accept())

    # What happens in the dialplan and on the phones

    def incoming_call(
        self, *arguments: str, caller: tuple[str, str] = ("1001", "Alice"), exten: str = "100", state: str = "Ring"
    ) -> FakeChannel:
        """The dialplan executes `Stasis(app,arguments...)` for a new caller (number, name)."""
        number = next(self._numbers)
        channel = FakeChannel(
            self, f"demo-1795241822.{number}", f"PJSIP/alice-{number:08x}", caller, "phones", exten, arguments, state
        )
        self.channels[channel.id] = channel
        self.enter(channel)
        return channel

    def call_elsewhere(self, app: str, *arguments: str, caller: tuple[str, str] = ("1001", "Alice")) -> FakeChannel:
        """An answered call that the dialplan has sent to somebody else's Stasis app."""
        number = next(self._numbers)
        channel = FakeChannel(
            self, f"demo-1795241822.{number}", f"PJSIP/alice-{number:08x}", caller, "phones", "100", arguments, "Up"
        )
        channel.first_app = channel.elsewhere = app
        self.channels[channel.id] = channel
        self.other_apps.setdefault(app, []).append(channel.id)
        return channel

    def enter(self, channel: FakeChannel) -> None:
        """The channel is in Stasis from here on. Without a websocket Stasis() fails and the dialplan goes on."""
        if self._current is None:
            channel.variables["STASISSTATUS"] = "FAILED"
            channel.leave(Place())
            return
        channel.in_stasis = True
        self.emit("StasisStart", args=list(channel.arguments), channel=channel.json())

    def emit(self, kind: str, **content: Any) -> None:
        """Send an event to whoever holds the app; nobody there: it is lost, as in the real one."""
        if self._current is not None:
            event: Json = {"type": kind, "timestamp": "2026-11-21T06:17:02.220+0000", **content}
            event |= {"asterisk_id": "02:fc:00:00:00:01", "application": self.app}
            self._current.post(event, self._events_late_s)

    # Faults

    @contextmanager
    def never_answers(self, prefix: str) -> Iterator[None]:
        """Requests whose `METHOD uri` begins with `prefix` are carried out by nobody and get no answer."""
        self._silent.append(prefix)
        try:
            yield
        finally:
            self._silent.remove(prefix)

    @contextmanager
    def slow(self, prefix: str, seconds: float) -> Iterator[None]:
        """Such requests by HTTP are carried out only after so long; others overtake them."""
        self._slow[prefix] = seconds
        try:
            yield
        finally:
            del self._slow[prefix]

    def late(self, *, events_s: float = 0.0, answers_s: float = 0.0) -> None:
        """From now on events come so long after what they tell of, and answers by HTTP so long after it was done."""
        self._events_late_s, self._answers_late_s = events_s, answers_s

    @contextmanager
    def delayed_stasis_start(self, seconds: float) -> Iterator[None]:
        """Media channels enter Stasis only so long after externalMedia was answered."""
        self._stasis_delay_s = seconds
        try:
            yield
        finally:
            self._stasis_delay_s = 0.0

    async def drop_connection(self) -> None:
        """The connection breaks without a goodbye. Channels and bridges stay."""
        if self._current is not None:
            await trio.aclose_forcefully(self._current.websocket.stream)
            self._current = None

    async def close_connection(self) -> None:
        """Asterisk closes the websocket in order."""
        if self._current is not None:
            await self._current.websocket.aclose()
            self._current = None

    def replaced(self) -> None:
        """Another process connects with the same app: the old socket lives on, deaf."""
        self.emit("ApplicationReplaced")
        self._current = None

    # The port

    async def _serve_port(self, stream: MemoryStream) -> None:
        """One connection: a websocket, or requests by HTTP."""
        try:
            head = await read_head(stream)
        except trio.BrokenResourceError:
            head = b""
        if is_upgrade(head):
            stream.unread(head)
            self._websockets.hand_over(stream)
            return
        self.http_connections += 1
        try:
            await serve_http(stream, f"Asterisk/{self.version}", self._answer_http, head)
        finally:
            self.http_connections -= 1

    async def _answer_http(self, request: HttpRequest) -> HttpAnswer | None:
        if not self.enabled or not request.path.startswith("/ari/"):
            return HttpAnswer(404)
        if request.headers.get("authorization") != self.credentials:
            return HttpAnswer(401, {"message": "Authentication required"})
        uri = request.path.removeprefix("/ari/")
        asked = f"{request.method} {uri}"
        self.by_http += 1
        self.requests.append((request.method, uri, request.query))
        if any(asked.startswith(prefix) for prefix in self._silent):
            return None
        await trio.sleep(max((s for prefix, s in self._slow.items() if asked.startswith(prefix)), default=0.0))
        status, body = self._outcome(request.method, uri, request.query | request.body)
        await trio.sleep(self._answers_late_s)
        return HttpAnswer(status, body)

    def _outcome(self, method: str, uri: str, query: dict[str, str]) -> tuple[int, Any]:
        try:
            return self._carry_out(method, [unquote(part) for part in uri.split("/")], query)
        except _Refused as refusal:
            return refusal.status, {"message": str(refusal)}

    def _authenticate(self, connection: ServerConnection, request: Request) -> Response | None:
        url = urlsplit(request.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        known = ("/ari/asterisk/info", "/ari/events") if self.has_events else ("/ari/asterisk/info",)
        answer: Response | None = None
        if not self.enabled or url.path not in known:
            answer = connection.respond(HTTPStatus.NOT_FOUND, "Not Found")
        elif request.headers.get("Authorization") != self.credentials and query.get("api_key") != self.api_key:
            answer = connection.respond(HTTPStatus.UNAUTHORIZED, '{"message":"Authentication required"}')
        elif url.path == "/ari/asterisk/info":
            answer = connection.respond(HTTPStatus.OK, json.dumps(self._info()))
        if answer is not None:
            answer.headers["Server"] = f"Asterisk/{self.version}"
            return answer
        if query.get("app") != self.app or query.get("subscribeAll", "false") != "false":
            raise AssertionError(f"the bridge subscribes to {request.path}, expected app={self.app}")
        return None

    def _info(self) -> Json:
        return {"system": {"version": self.version, "entity_id": "02:fc:00:00:00:01"}}

    async def _serve(self, websocket: ServerConnection) -> None:
        self.accepted += 1
        if self._current is not None:
            self.replaced()
        connection = self._current = _Connection(websocket)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(connection.write)
                async for message in websocket:
                    self._answer(connection, json.loads(message))
                nursery.cancel_scope.cancel()
        except* ConnectionClosed:
            pass
        finally:
            if self._current is connection:
                self._current = None

    def _answer(self, connection: _Connection, request: Json) -> None:
        if not self.takes_requests:
            self.dropped += 1
            return
        method, uri = request["method"], request["uri"]
        query = {pair["name"]: pair["value"] for pair in request.get("query_strings", [])}
        self.requests.append((method, uri, query))
        if any(f"{method} {uri}".startswith(prefix) for prefix in self._silent):
            return
        status, body = self._outcome(method, uri, query | json.loads(request.get("message_body", "{}")))
        answer = {
            "type": "RESTResponse",
            "transaction_id": "",
            "request_id": request["request_id"],
            "status_code": status,
            "reason_phrase": HTTPStatus(status).phrase,
            "uri": uri,
        }
        if body is not None:
            answer |= {"content_type": "application/json", "message_body": json.dumps(body)}
        connection.post(answer)

    def _carry_out(self, method: str, path: list[str], query: dict[str, str]) -> tuple[int, Any]:
        known = _PARAMETERS.get(method) or _PARAMETERS.get(path[-1], set())
        assert query.keys() <= known, f"{method} {path} with unknown parameters {query.keys() - known}"
        if self.read_only and method != "GET":
            _refuse(403, "Write access denied")
        match method, path:
            case "GET", ["asterisk", "info"]:
                return 200, self._info()
            case "GET", ["asterisk", "modules"]:
                return 200, [_module(name, status) for name, status in self.modules.items()]
            case "GET", ["asterisk", "modules", name]:
                if self.modules.get(name) is None:
                    _refuse(404, "Module could not be found in running modules")
                return 200, _module(name, self.modules[name])
            case "GET", ["applications", app]:
                return 200, self._application(app)
            case "POST", ["applications", app, "subscription"]:
                assert app == self.app
                kind, _, channel_id = query["eventSource"].partition(":")
                assert kind == "channel"
                self._channel(channel_id).watched = True
                return 200, self._application(app)
            case "GET", ["channels"]:
                return 200, [channel.json() for channel in self.channels.values()]
            case "GET", ["bridges"]:
                return 200, [bridge.json() for bridge in self.bridges.values()]
            case "POST", ["bridges"]:
                return 200, self._make_bridge(query)
            case "DELETE", ["bridges", bridge_id]:
                self._destroy_bridge(self._bridge(bridge_id))
            case "POST", ["bridges", bridge_id, "addChannel"]:
                self._add_channels(self._bridge(bridge_id), query["channel"].split(","))
            case "POST", ["bridges", bridge_id, "removeChannel"]:
                self._remove_channel(self._bridge(bridge_id), query["channel"])
            case "GET", ["endpoints", "PJSIP", name]:
                return 200, self._callee(name).json(name)
            case "POST", ["channels", "create"]:
                return 200, self._create(query)
            case "POST", ["channels", channel_id, "dial"]:
                self._dial(self._channel(channel_id, in_stasis=True), query)
            case "POST", ["channels", channel_id, "moh"]:
                self._channel(channel_id, in_stasis=True).music = query.get("mohClass", "default")
            case "DELETE", ["channels", channel_id, "moh"]:
                self._channel(channel_id, in_stasis=True).music = ""
            case "POST", ["bridges", bridge_id, "record"]:
                return 201, self._record(self._bridge(bridge_id), query)
            case _, ["recordings", *what]:
                self._act_on_recording(method, what)
            case "POST", ["channels", "externalMedia"]:
                return 200, self._external_media(query)
            case "GET", ["channels", channel_id]:
                return 200, self._channel(channel_id).json()
            case "DELETE", ["channels", channel_id]:
                self._hang_up(self._channel(channel_id), int(query.get("reason_code", "16")))
            case "GET", ["channels", channel_id, "variable"]:
                return 200, {"value": self._read(self._channel(channel_id), query["variable"])}
            case "POST", ["channels", channel_id, action]:
                self._act(self._channel(channel_id, in_stasis=True), action, query)
            case _:
                _refuse(404, "Resource not found")
        return 204, None

    def _application(self, app: str) -> Json:
        if app in self.other_apps:
            return {"name": app, "channel_ids": self.other_apps[app], "bridge_ids": []}
        if app != self.app:
            _refuse(404, "Application not found")
        return {
            "name": app,
            "channel_ids": [channel.id for channel in self.channels.values() if channel.in_stasis],
            "bridge_ids": [bridge.id for bridge in self.bridges.values() if bridge.ever_held],
            **{"endpoint_ids": [], "device_names": [], "events_allowed": [], "events_disallowed": []},
        }

    def _channel(self, channel_id: str, *, in_stasis: bool = False) -> FakeChannel:
        channel = self.channels.get(channel_id) or _refuse(404, "Channel not found")
        if in_stasis and not (channel.in_stasis or channel.elsewhere):
            _refuse(409, "Channel not in Stasis application")
        return channel

    def _bridge(self, bridge_id: str) -> FakeBridge:
        return self.bridges.get(bridge_id) or _refuse(404, "Bridge not found")

    def _make_bridge(self, query: dict[str, str]) -> Json:
        assert query["type"] == "mixing"
        if query["bridgeId"] in self.bridges:
            _refuse(409, f"Bridge with id '{query['bridgeId']}' already exists")
        bridge = self.bridges[query["bridgeId"]] = FakeBridge(self, query["bridgeId"], query.get("name", ""))
        return bridge.json()

    def _destroy_bridge(self, bridge: FakeBridge) -> None:
        for channel in list(bridge.members):
            bridge.remove(channel)
        for recording in self.recordings.values():
            if recording.bridge is bridge and recording.live:
                recording.end()
        del self.bridges[bridge.id]
        if bridge.ever_held:
            self.emit("BridgeDestroyed", bridge=bridge.json())

    def _add_channels(self, bridge: FakeBridge, channel_ids: list[str]) -> None:
        channels = [self.channels.get(channel_id) or _refuse(400, "Channel not found") for channel_id in channel_ids]
        if not all(channel.in_stasis for channel in channels):
            _refuse(422, "Channel not in Stasis application")
        for channel in channels:
            bridge.add(channel)

    def _record(self, bridge: FakeBridge, query: dict[str, str]) -> Json:
        assert query["ifExists"] == "fail"
        name = query["name"]
        if not self.has_recording_folder:
            _refuse(500, "Internal Server Error")
        if name in self.recordings:
            _refuse(409, "Recording already exists")
        self.recordings[name] = FakeRecording(self, bridge, name, query["format"], trio.current_time())
        recording = self.recordings[name]
        self.emit("RecordingStarted", recording=recording.json())
        return {**recording.json(), "state": "queued"}

    def _act_on_recording(self, method: str, what: list[str]) -> None:
        kind, name = what[0], what[1]
        recording = self.recordings.get(name)
        if recording is None or recording.live is not (kind == "live"):
            _refuse(404, "Recording not found")
        match method, what[2:]:
            case "POST", ["mute"]:
                recording.muted.append((trio.current_time(), None))
            case "DELETE", ["mute"]:
                recording.muted[-1] = (recording.muted[-1][0], trio.current_time())
            case "POST", ["stop"]:
                recording.end()
            case "DELETE", []:
                del self.recordings[name]
            case _:
                _refuse(404, "Resource not found")

    def _external_media(self, query: dict[str, str]) -> Json:
        if not query.get("data"):
            _refuse(400, "data can not be empty")
        knows = parse(self.version)
        assert query["format"] in ("slin", "nonsense") or knows.has(WIDEBAND) or not knows.known, (
            "8 kHz only: half speed"
        )
        expected = {"app": self.app, "encapsulation": "audiosocket", "transport": "tcp", "connection_type": "client"}
        broken = expected.items() - query.items() or query["channelId"] in self.channels
        try:
            if self.on_external_media is not None:
                self.on_external_media(query["external_host"], query["data"], query["format"])
        except ConnectionRefusedError:
            broken = True
        if broken or query["format"] not in ("slin", "slin16", "slin24"):
            _refuse(500, "An internal error prevented this request from being handled")
        name = f"AudioSocket/{query['external_host']}-{query['data']}"
        channel = FakeChannel(self, query["channelId"], name, arguments=(query["data"],), state="Down")
        self.channels[channel.id] = channel
        described = channel.json()
        assert self._nursery is not None
        self._nursery.start_soon(self._media_enters, channel, self._stasis_delay_s)
        return described

    async def _media_enters(self, channel: FakeChannel, delay_s: float) -> None:
        await trio.sleep(delay_s)
        if channel.id in self.channels:
            channel.state = "Up"
            self.emit("ChannelStateChange", channel=channel.json())
            self.enter(channel)

    def _callee(self, name: str) -> Callee:
        return self.callees.get(f"PJSIP/{name}") or _refuse(404, "Endpoint not found")

    def _create(self, query: dict[str, str]) -> Json:
        assert query["app"] == self.app
        assert ("originator" in query) != ("formats" in query), "one of the two, says Asterisk"
        callee = self.callees.get(query["endpoint"])
        if callee is None or not callee.registered:
            raise _Refused(500, "Allocation failed")
        if query["channelId"] in self.channels:
            _refuse(409, "Channel with given unique ID already exists")
        channel = OutgoingChannel(
            self,
            query["channelId"],
            f"{query['endpoint']}-{next(self._numbers):08x}",
            arguments=tuple(query["appArgs"].split(",")),
            state="Down",
            callee=callee,
        )
        callee.channels.append(channel)
        self.channels[channel.id] = channel
        self.enter(channel)
        return channel.json()

    def _dial(self, channel: FakeChannel, query: dict[str, str]) -> None:
        assert self._nursery is not None
        if not isinstance(channel, OutgoingChannel) or channel.dialled:
            _refuse(409, "Channel is not in the 'Down' state")
        if "caller" in query and query["caller"] not in self.channels:
            _refuse(404, "Channel not found")
        self._nursery.start_soon(channel.ring, float(query["timeout"]))

    def _remove_channel(self, bridge: FakeBridge, channel_id: str) -> None:
        channel = self.channels.get(channel_id) or _refuse(400, "Channel not found")
        if channel.bridge is not bridge:
            _refuse(422, "Channel not in this bridge")
        bridge.remove(channel)

    def _hang_up(self, channel: FakeChannel, cause: int) -> None:
        self.emit("ChannelHangupRequest", cause=32, soft=True, channel=channel.json())
        if isinstance(channel, OutgoingChannel):
            channel.end(cause)
            return
        channel.hung_up_with = cause
        channel.leave(HUNG_UP)
        if channel.name.startswith("AudioSocket/"):
            self.emit("ChannelDestroyed", cause=16, cause_txt="Normal Clearing", channel=channel.json())

    def _read(self, channel: FakeChannel, variable: str) -> str:
        if variable.startswith("DIALPLAN_EXISTS("):
            if not self.has_func_dialplan:
                _refuse(500, "Unable to read provided function")
            place = variable.removeprefix("DIALPLAN_EXISTS(").removesuffix(")").split(",")
            return "1" if tuple(place) in self.dialplan else "0"
        if variable.startswith("DEVICE_STATE("):
            callee = self.callees.get(variable.removeprefix("DEVICE_STATE(").removesuffix(")"))
            return callee.device if callee is not None else "INVALID"
        if variable in self.functions:
            return self.functions[variable]
        if variable not in channel.variables:
            _refuse(404, "Provided variable was not found")
        return channel.variables[variable]

    def _act(self, channel: FakeChannel, action: str, query: dict[str, str]) -> None:
        match action:
            case "answer":
                if channel.state != "Up":
                    channel.state = "Up"
                    self.emit("ChannelStateChange", channel=channel.json())
            case "dtmf":
                if not query.get("dtmf"):
                    _refuse(400, "DTMF is required")
                channel.pressed.append(query["dtmf"])
            case "variable":
                channel.variables[query["variable"]] = query["value"]
                self.emit("ChannelVarset", **query, channel=channel.json())
            case "continue":
                place = Place(query.get("context", ""), query.get("extension", ""), query.get("priority", ""))
                exists = place == Place() or (place.context, place.exten, place.priority) in self.dialplan
                channel.leave(place if exists else HUNG_UP)
            case "move":
                channel.move(query["app"], query["appArgs"].split(","))
            case "redirect":
                if not query["endpoint"].startswith(channel.name.partition("/")[0] + "/"):
                    _refuse(422, "Endpoint technology is not that of the channel")
                channel.referred_to = query["endpoint"]
            case _:
                _refuse(404, "Resource not found")


class _Connection:
    """One websocket and what is to be sent on it. Full (1024 messages): the test reads nothing any more."""

    def __init__(self, websocket: ServerConnection) -> None:
        self.websocket = websocket
        self._send, self._receive = trio.open_memory_channel[tuple[float, str]](1024)

    def post(self, message: Json, late_s: float = 0.0) -> None:
        self._send.send_nowait((trio.current_time() + late_s, json.dumps(message)))

    async def write(self) -> None:
        async for due, message in self._receive:
            await trio.sleep_until(due)
            await self.websocket.send(message)
