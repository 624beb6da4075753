"""The connection to ARI: one websocket a Stasis app, which carries events and requests (REST over websocket).

    run --- for ever: connect, hold, lose, wait, connect again
     `- _hold   one connection: reads messages; ends with the sentence that says why
         |- _write         the only task that writes, so that a request that is cancelled never leaves half a frame behind
         `- on_connected   the app's own work with this connection (resynchronization)

A request is matched to its answer by `request_id`; any number may be in flight, each has its own time limit, none waits
for another on our side. Asterisk works them off in order, and those that open a connection hold up what follows: an
external media host that does not answer costs everybody up to 2 s (res_audiosocket.c, MAX_CONNECT_TIMEOUT_MSEC).

Measured on 22.10.1: an event may overtake the answer to the request that caused it (StasisEnd before the answer to
`continue`). A socket that was replaced by another process's stays open and still serves requests, but gets no events,
and nothing tells when the other process has gone.
"""

from __future__ import annotations

import logging
from base64 import b64encode
from collections.abc import Awaitable, Callable, Iterator
from typing import Any
from urllib.parse import urlencode, urlsplit

import msgspec
import trio
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.trio.client import ClientConnection, connect

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
# Requests not yet written. Full: the socket has not moved for a long time; the request fails instead of waiting.
_OUTBOX_SIZE = 256


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


class _Answer:
    """A request in flight: `arrived` is set with either the answer or the loss of the connection."""

    __slots__ = ("arrived", "message")

    def __init__(self) -> None:
        self.arrived = trio.Event()
        self.message: Message | None = None


def backoff() -> Iterator[float]:
    """Seconds to wait before each further try: 0.5, 1, 2, 4, 8, then 10 for ever."""
    delay_s = _FIRST_DELAY_S
    while True:
        yield delay_s
        delay_s = min(delay_s * 2, _LONGEST_DELAY_S)


class AriClient:
    """Requests to, and events from, one Asterisk. `run` keeps the connection; everything else needs it running.

    `on_event` is called synchronously for each event. `on_connected(after_replaced)` runs beside the reading for as long
    as the connection holds and is cancelled with it; `after_replaced` says that another process held the app meanwhile.
    `on_trouble` is called after each try that failed and each connection that ended; `trouble` then says why.
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
        self._outbox: trio.MemorySendChannel[bytes] | None = None
        self._answers: dict[str, _Answer] = {}
        self._last_request = 0
        self._replaced = False
        self.trouble = ""
        self._work = trio.CancelScope()
        self._logged = ""

    async def run(self) -> None:
        """Hold the connection for ever. Ends by cancellation only; what waits for an answer then fails."""
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

    async def request(self, method: str, uri: str, **query: str) -> Any:
        """Send one request (`uri` below `/ari/`, without a query) and return the decoded body, None where there is none.

        Raises `ControlRefused` with Asterisk's words, or `ControlUnavailable`: no connection, lost meanwhile, or no
        answer in time. Cancelled, it may have been carried out or not; an answer that still comes is dropped.
        """
        if self._outbox is None:
            raise ControlUnavailable(f"no ARI connection to {self.place}")
        self._last_request += 1
        request_id = str(self._last_request)
        body: dict[str, Any] = {"type": "RESTRequest", "request_id": request_id, "method": method, "uri": uri}
        if query:
            body["query_strings"] = [{"name": name, "value": value} for name, value in query.items()]
        answer = self._answers[request_id] = _Answer()
        try:
            self._outbox.send_nowait(msgspec.json.encode(body))
            with trio.fail_after(self._request_s):
                await answer.arrived.wait()
        except trio.WouldBlock:
            raise ControlUnavailable(
                f"ARI: {_OUTBOX_SIZE} requests wait to be sent; not adding {method} {uri}"
            ) from None
        except trio.TooSlowError:
            raise ControlUnavailable(f"ARI: no answer to {method} {uri} within {self._request_s:g} s") from None
        finally:
            del self._answers[request_id]
        if answer.message is None:
            raise ControlUnavailable(f"ARI connection to {self.place} lost before the answer to {method} {uri}")
        return _result(answer.message, f"{method} {uri}")

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
        self._outbox, requests = trio.open_memory_channel[bytes](_OUTBOX_SIZE)
        self._work = trio.CancelScope()
        after_replaced, self._replaced = self._replaced, False
        self.connected = True
        self._logged = ""
        trouble: str | None = None
        try:
            async with trio.open_nursery() as nursery:

                async def work() -> None:
                    with self._work:
                        await self._on_connected(after_replaced)

                nursery.start_soon(_write, websocket, requests)
                nursery.start_soon(work)
                trouble = await self._read(websocket, nursery.cancel_scope)
                nursery.cancel_scope.cancel()
            return trouble
        finally:
            self.connected = False
            self._outbox = None
            for answer in self._answers.values():
                answer.arrived.set()

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
                    if answer := self._answers.get(message.request_id):
                        answer.message = message
                        answer.arrived.set()
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
        self._work.cancel()
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


def _result(message: Message, what: str) -> Any:
    """The body of an answer. Raises `ControlRefused` for an error status."""
    try:
        body = msgspec.json.decode(message.message_body) if message.message_body else None
    except msgspec.DecodeError:
        body = None
    if 200 <= message.status_code < 300:
        return body
    words = body.get("message") if isinstance(body, dict) else None
    raise ControlRefused(
        f"Asterisk refused {what}: {message.status_code} {words or message.reason_phrase}", status=message.status_code
    )


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
