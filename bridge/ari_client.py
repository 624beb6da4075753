"""The connection to ARI: one websocket a Stasis app, which carries the events, and the requests where Asterisk takes them.

    run --- for ever: connect, hold, lose, wait, connect again
     `- _hold   one connection: reads messages; ends with the sentence that says why
         |- _write         the only task that writes, so that a request that is cancelled never leaves half a frame behind
         |- _choose        are requests taken on this websocket (`ari_rest`), or must they go by HTTP (`ari_http`)?
         `- on_connected   then, the app's own work with this connection (resynchronization)

Releases before 20.14, 21.9 and 22.4 read requests from the websocket and drop them without a word. Where both ways are
open the websocket is the faster one: StasisStart to bridged media in 8.3 ms, by HTTP in 15.7 (22.10.1, medians of 11 calls
at a load of 6 on 2 cores; at a load of 8 it was 15 and 28).

Measured on 22.10.1: an event may overtake the answer to the request that caused it (StasisEnd before the answer to
`continue`). A socket that was replaced by another process's stays open and still serves requests, but gets no events,
and nothing tells when the other process has gone.
"""

from __future__ import annotations

import logging
from base64 import b64encode
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any
from urllib.parse import urlencode, urlsplit

import msgspec
import trio
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.trio.client import ClientConnection, connect

from bridge import asterisk_version
from bridge.ari_http import HttpRequests
from bridge.ari_rest import Reply, WebsocketRequests, result
from bridge.asterisk_version import RequestsBy, Version, requests_by
from bridge.config import Asterisk
from bridge.errors import ControlError, ControlRefused, ControlUnavailable

logger = logging.getLogger("bridge.ari")
# The library logs the headers of the opening handshake, and so our password, at DEBUG.
_websocket_logger = logging.getLogger("bridge.ari.websocket")
_websocket_logger.setLevel(logging.INFO)

# Half a second is shorter than a restart of Asterisk; ten are how long an administrator waits for the effect of a fix.
_FIRST_DELAY_S, _LONGEST_DELAY_S = 0.5, 10.0
# A connection that lived less than this does not count as a success, so that an accept-and-close never becomes a loop.
_STABLE_S = 10.0
# Another process took our app. Taking it back at once would make both throw each other out many times a second, each
# losing calls; never taking it back would leave us deaf after the other has gone, which Asterisk does not tell.
_REPLACED_DELAY_S = 30.0
# A dead host is noticed within 15 s. Asterisk's own pong may wait behind requests that open connections, 2 s each.
_PING_INTERVAL_S, _PING_TIMEOUT_S = 5.0, 10.0
# What is asked in order to choose; any Asterisk that is well answers within milliseconds.
_FIRST_ANSWER_S = 1.0


class Party(msgspec.Struct, frozen=True):
    """Caller id."""

    name: str = ""
    number: str = ""


class Dialplan(msgspec.Struct, frozen=True):
    """Where a channel stands in the dialplan."""

    context: str = ""
    exten: str = ""
    priority: int = 1


class Channel(msgspec.Struct, frozen=True):
    """A channel as Asterisk describes it in events; `state` is one of `Down`, `Ring`, `Ringing`, `Up`, ..."""

    id: str
    name: str = ""
    state: str = ""
    caller: Party = Party()
    dialplan: Dialplan = Dialplan()


class LiveRecording(msgspec.Struct, frozen=True):
    """A recording as Asterisk describes it; `target_uri` is `bridge:ID` or `channel:ID`."""

    name: str = ""
    target_uri: str = ""
    cause: str = ""


class Message(msgspec.Struct, frozen=True):
    """Anything that Asterisk sends: an event, or the answer to a request. What we do not use is left out.

    `soft` marks a ChannelHangupRequest from inside Asterisk (ARI, AMI, shutdown): its `cause` is then a set of internal
    flags (32: asked for), not a Q.850 cause. `peer` is whom a Dial event is about, `replace_channel` the one in whose place
    a channel enters (a telephone passed the call on). `message_body` is JSON in a string.
    """

    type: str
    channel: Channel | None = None
    peer: Channel | None = None
    replace_channel: Channel | None = None
    recording: LiveRecording | None = None
    args: list[str] = []
    digit: str = ""
    dialstatus: str = ""
    cause: int = 0
    cause_txt: str = ""
    soft: bool = False
    request_id: str = ""
    status_code: int = 0
    reason_phrase: str = ""
    message_body: str = ""


def backoff() -> Iterator[float]:
    """Seconds to wait before each further try: 0.5, 1, 2, 4, 8, then 10 for ever."""
    delay_s = _FIRST_DELAY_S
    while True:
        yield delay_s
        delay_s = min(delay_s * 2, _LONGEST_DELAY_S)


class AriClient:
    """Requests to, and events from, one Asterisk. `run` keeps the connection; everything else needs it running.

    `on_event` is called synchronously for each event. `on_connected(after_replaced)` runs beside the reading for as long
    as the connection holds and is cancelled with it; `after_replaced` says that another process held the app meanwhile,
    and `taken` is set when one takes it: requests still work then, events do not come.
    `on_trouble` is called after each try that failed and each connection that ended; `trouble` then says why.
    `requests_by` says which way requests go and why; None: not yet known, and so by HTTP, which any Asterisk takes.
    `connect_stream` makes the byte stream of each connection (tests); by default it is TCP, or TLS for `wss://`.
    """

    def __init__(
        self,
        config: Asterisk,
        request_s: float,
        on_event: Callable[[Message], None],
        on_connected: Callable[[bool], Awaitable[None]],
        on_trouble: Callable[[], None],
        *,
        connect_stream: Callable[[], trio.abc.Stream] | None = None,
    ) -> None:
        self._config = config
        self._request_s = request_s
        self._on_event = on_event
        self._on_connected = on_connected
        self._on_trouble = on_trouble
        self._connect_stream = connect_stream
        url = urlsplit(config.url)
        self.place = f"{url.hostname}:{url.port or (443 if url.scheme == 'wss' else 80)}"
        self.connected = False
        self.requests_by: RequestsBy | None = None
        self._websocket = WebsocketRequests(self.place)
        self._http = HttpRequests(config, connect_stream)
        self._serving = False
        self._replaced = False
        self.trouble = ""
        self.taken = trio.Event()
        self._logged = ""
        self._told: RequestsBy | None = None

    async def run(self) -> None:
        """Hold the connection for ever. Ends by cancellation only; what waits for an answer then fails."""
        try:
            async with self._http.opened():
                await self._run()
        finally:
            self._serving = False

    async def _run(self) -> None:
        delays = backoff()
        while True:
            began = trio.current_time()
            trouble = await self._hold()
            self.trouble = trouble or ""
            self._on_trouble()
            if trouble is None:
                continue  # replaced: it has waited already, on the old socket
            if trouble != self._logged:  # one line a change, not one a try
                logger.error("ARI connection to %s: %s; trying again", self.place, trouble)
                self._logged = trouble
            if trio.current_time() - began >= _STABLE_S:
                delays = backoff()
            await trio.sleep(next(delays))

    async def request(self, method: str, uri: str, body: Mapping[str, Any] | None = None, /, **query: str) -> Any:
        """Send one request and return the decoded body, None where there is none.

        `uri` is what stands below `/ari/`, as in a URL, without a query. `body` is sent as JSON. Raises `ControlRefused`
        with Asterisk's words, or `ControlUnavailable`: no connection, lost meanwhile, or no answer in time. Cancelled, it
        may have been carried out or not; an answer that still comes is dropped. By HTTP requests go on while the websocket
        is lost, and one may overtake another, but none about the same channel or bridge whose asker was cancelled.
        """
        if not self._serving:
            raise ControlUnavailable(f"no ARI connection to {self.place}")
        by_http = self.requests_by is None or self.requests_by.http
        way = self._http if by_http else self._websocket
        return result(await way.request(method, uri, query, body, self._request_s), f"{method} {uri}")

    async def _choose(self, server: str) -> None:
        """Settle which way requests go on this connection; `server` is the header of that name in the handshake.

        22.10.1 sends none there, so the version is asked for by HTTP. Where no version tells it, the websocket is tried.
        """
        wanted, version = self._config.requests, asterisk_version.parse(server)
        if wanted == "auto" and not version.known:
            version = await self._ask_version()
        chosen = requests_by(wanted, version)
        if chosen is None:
            chosen = requests_by(wanted, version, answered=await self._ask(self._websocket) is not None)
        self.requests_by = chosen
        self._http.keep = chosen is not None and chosen.http
        if chosen is not None and chosen != self._told:
            logger.info("ARI requests go %s: %s", "by HTTP" if chosen.http else "on the websocket", chosen.why)
            self._told = chosen

    async def _ask_version(self) -> Version:
        if (reply := await self._ask(self._http)) is not None:
            try:
                return asterisk_version.parse(str(result(reply, "")["system"]["version"]))
            except (ControlRefused, LookupError, TypeError):
                pass  # res_ari_asterisk is not loaded, or something stands between
        return asterisk_version.UNKNOWN

    async def _ask(self, way: HttpRequests | WebsocketRequests) -> Reply | None:
        """Whether there is an answer at all, be it a refusal."""
        try:
            return await way.request("GET", "asterisk/info", {"only": "system"}, None, _FIRST_ANSWER_S)
        except ControlUnavailable:
            return None

    async def _hold(self) -> str | None:
        """One connection, from the first byte to the last. Returns why it ended, for the log; None: replaced."""
        query = urlencode({"app": self._config.app, "subscribeAll": "false"})
        credentials = b64encode(f"{self._config.username}:{self._config.password}".encode()).decode()
        try:
            async with connect(
                f"{self._config.url.rstrip('/')}/ari/events?{query}",
                stream=self._connect_stream() if self._connect_stream else None,
                # A header instead of `api_key=`: URLs end up in the logs of proxies and in error texts.
                additional_headers={"Authorization": f"Basic {credentials}"},
                compression=None,
                proxy=None,
                open_timeout=5,
                close_timeout=1,
                ping_interval=_PING_INTERVAL_S,
                ping_timeout=_PING_TIMEOUT_S,
                max_size=16 * 1024 * 1024,  # GET bridges of a large exchange; the library's 1 MiB is 2,000 bridges
                logger=_websocket_logger,
            ) as websocket:
                return await self._serve(websocket)
        except InvalidStatus as error:
            return self._explain_status(error.response.status_code)
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
            if isinstance(error, TimeoutError):
                return "no answer to the opening handshake within 5 s; does Asterisk hang?"
            return f"{error}; is Asterisk running, and does http.conf listen where asterisk.url says?"
        except (InvalidHandshake, EOFError) as error:
            return f"the opening handshake failed: {error}; is this Asterisk's HTTP port?"

    async def _serve(self, websocket: ClientConnection) -> str | None:
        requests = self._websocket.connected()
        # Decided anew each time: Asterisk may be another one now.
        self.requests_by, self._serving = requests_by(self._config.requests, asterisk_version.UNKNOWN), True
        self._http.keep = False
        after_replaced, self._replaced = self._replaced, False
        self.taken = trio.Event()
        self.connected = True
        self._logged = ""
        trouble: str | None = None
        server = websocket.response.headers.get("Server", "") if websocket.response else ""
        try:
            async with trio.open_nursery() as nursery:

                async def work() -> None:
                    await self._choose(server)
                    await self._on_connected(after_replaced)

                nursery.start_soon(_write, websocket, requests)
                nursery.start_soon(work)
                trouble = await self._read(websocket, nursery.cancel_scope)
                nursery.cancel_scope.cancel()
            return trouble
        finally:
            self.connected = False
            self._websocket.lost()

    async def _read(self, websocket: ClientConnection, scope: trio.CancelScope) -> str:
        try:
            while True:
                data = await websocket.recv(decode=False)
                try:
                    message = msgspec.json.decode(data, type=Message)
                except msgspec.DecodeError as error:
                    logger.warning("ARI: a message from %s was not understood and dropped: %s", self.place, error)
                    continue
                if message.type == "RESTResponse":
                    reply = Reply(message.status_code, message.reason_phrase, message.message_body)
                    self._websocket.answered(message.request_id, reply)
                elif message.type == "ApplicationReplaced":
                    self._on_replaced(scope)
                else:
                    self._on_event(message)
        except ConnectionClosed as error:
            return f"lost: {error}"

    def _on_replaced(self, scope: trio.CancelScope) -> None:
        """Keep the socket, on which the calls that we have can still be controlled, then ask for the app again."""
        self.connected = False
        self._replaced = True
        self.taken.set()
        scope.deadline = trio.current_time() + _REPLACED_DELAY_S
        logger.error(
            "ARI: another process took the Stasis app %s on %s; new calls go there. Give each process its own "
            "asterisk.app. Taking it back in %g s",
            self._config.app,
            self.place,
            _REPLACED_DELAY_S,
        )

    def _explain_status(self, status: int) -> str:
        if status in (401, 403):
            return (
                f"Asterisk refused user {self._config.username!r} (HTTP {status}); compare asterisk.username and "
                "asterisk.password (BRIDGE_ARI_PASSWORD) with ari.conf"
            )
        if status == 404:
            return (
                "no ARI there (HTTP 404); set enabled=yes in ari.conf and http.conf, load res_ari and "
                "res_ari_events, and put a prefix of http.conf into asterisk.url"
            )
        return f"Asterisk answered HTTP {status} to the opening handshake"


async def _write(websocket: ClientConnection, requests: trio.MemoryReceiveChannel[bytes]) -> None:
    try:
        async for request in requests:
            await websocket.send(request, text=True)
    except ConnectionClosed:
        pass  # the reader sees it too and says why


async def attempt(request: Awaitable[Any]) -> bool:
    """Whether a request that only tidies up is settled: done, or its object is gone (404) or not ours (409)."""
    try:
        await request
    except ControlRefused as error:
        if error.status not in (404, 409):
            logger.warning("ARI: %s", error)
    except ControlError as error:
        logger.warning("ARI: %s; left for the next sweep", error)
        return False
    return True


async def together(*requests: Awaitable[Any]) -> list[ControlError | None]:
    """Await all at the same time; the `ControlError` of each, None where it succeeded."""
    errors: list[ControlError | None] = [None] * len(requests)

    async def one(index: int, request: Awaitable[Any]) -> None:
        try:
            await request
        except ControlError as error:
            errors[index] = error

    async with trio.open_nursery() as nursery:
        for index, request in enumerate(requests):
            nursery.start_soon(one, index, request)
    return errors
