"""A configured Realtime session over a websocket: connect, configure, check, send, receive, close politely.

`open_realtime` hands over a connection only after `session.updated` has acknowledged our configuration: "connected" is not
the HTTP upgrade, since a bad key is refused in band after it (protocol sheet 1.3). Where and how to connect is `endpoint`'s
matter, and what the server speaks is `dialect`'s: both sides of a connection see GA. Every trouble leaves as one of our own
errors; the websocket library does not show, and no secret does.
"""

from __future__ import annotations

import contextlib
import logging
import math
import ssl
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import msgspec
import trio
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.trio.client import ClientConnection, connect
from websockets.typing import Subprotocol

from bridge import realtime, realtime_errors
from bridge.config import Realtime
from bridge.dialect import Translator
from bridge.endpoint import Endpoint, endpoint_of
from bridge.errors import ModelError, ModelLost, ModelRejected, ModelUnreachable
from bridge.websocket_writer import LightConnection, WebsocketWriter

# One message may hold minutes of base64 audio: ten of them, as much as may wait to be heard, have 38 MB. A longer one costs
# the session, not the process.
MOST_MESSAGE_BYTES = 64_000_000

# At DEBUG the library writes down every header, and so the key; no level of the program's own may make it do so.
_library_log = logging.getLogger("bridge.realtime_client.websocket")
_library_log.setLevel(logging.INFO)

ConnectStream = Callable[[], trio.abc.Stream]


class RealtimeConnection:
    """One established session. One task receives, one task sends; both in GA, whatever the server speaks.

    `session` is the effective session of `session.updated`, and `expires_at` when it ends, in seconds of the Unix clock:
    None where the server does not tell (protocol sheet 1.4).
    """

    def __init__(self, websocket: ClientConnection, translator: Translator) -> None:
        self._websocket = websocket
        self._translator = translator
        self._waiting: deque[bytes] = deque()  # what a message stood for beside the event that was handed out
        self._writer = WebsocketWriter(websocket)
        self.released = trio.Event()
        self.session: dict[str, Any] = {}
        self.expires_at: float | None = None

    async def send(self, payload: bytes) -> None:
        """Send one event. Raises `ModelLost` (or `ModelRejected`) when the session is over.

        Raises `ModelRejected` for what the server's dialect can not say, too. Waits while the server's side takes
        nothing; cancelled in such a wait, the connection is of no more use.
        """
        await self._send(payload, established=True)

    async def _send(self, payload: bytes, *, established: bool) -> None:
        try:
            await self._websocket.send(self._translator.to_server(payload), text=True)
        except ConnectionClosed:
            raise self._loss(established=established) from None

    def send_audio_nowait(self, payload: bytes) -> bool:
        """Send an append event at once. False: nothing was written, use `send`, which tells why. Never raises.

        No dialect says an append in another way, so nothing is translated.
        After True `unfinished` may be set: the network took a part of it, and `finish` must follow.
        """
        return self._writer.send_nowait(payload)

    @property
    def unfinished(self) -> bool:
        return self._writer.unfinished

    async def finish(self) -> None:
        """Send what is left of an event that `send_audio_nowait` began. Raises, and is cancelled, as `send`."""
        try:
            await self._writer.finish()
        except ConnectionClosed:
            raise self._loss(established=True) from None

    async def receive(self) -> bytes:
        """The next event as JSON text in UTF-8. Raises as `send` does; cancelling loses no message."""
        return await self._receive(established=True)

    def release(self) -> None:
        """Ask whoever holds the connection open to close it. Synchronous, idempotent."""
        self.released.set()

    async def close(self, close_s: float) -> None:
        """Close in order within `close_s`, else by force; nobody may be receiving any more. Idempotent.

        Keeps reading meanwhile: with 16 unread messages websockets 17.4 stops its reader, and without its reader the
        closing handshake never ends (seen in the simulator's tests, where it hung for ever).
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._read_to_the_end)
            with trio.move_on_after(close_s):
                await self._websocket.aclose()
            await trio.aclose_forcefully(self._websocket.stream)

    async def _read_to_the_end(self) -> None:
        with contextlib.suppress(ConnectionClosed):
            while True:
                await self._websocket.recv(decode=False)

    async def _receive(self, *, established: bool) -> bytes:
        while not self._waiting:
            try:
                message = await self._websocket.recv(decode=False)
            except ConnectionClosed:
                raise self._loss(established=established) from None
            self._waiting.extend(self._translator.from_server(message))
        return self._waiting.popleft()

    def _loss(self, *, established: bool) -> ModelError:
        code = self._websocket.close_code
        # 1006 is the library's own way to say that no close frame came; nobody sent it.
        code = None if code == 1006 else code
        return realtime_errors.error_of_close(code, self._websocket.close_reason or "", established=established)

    async def configure(self, session: bytes) -> None:
        """Wait for the server's first word, send the update, and wait until it is acknowledged as we meant it.

        The first word is `session.created`, seconds late where a model is loaded first (LocalAI); a server that begins
        with `conversation.created` (xAI) may wait for our update before it says more. Raises `ModelRejected` when the
        server refuses anything here: with its defaults the call would run with another voice, no tools and maybe another
        audio format (protocol sheet 2.1).
        """
        while not _greets(event := await self._next_of_handshake()):
            pass
        await self._send(session, established=False)
        while not isinstance(event, realtime.SessionUpdated):
            event = await self._next_of_handshake()
        realtime_errors.check_effective_session(event.session, msgspec.json.decode(session)["session"])
        self.session = event.session

    async def _next_of_handshake(self) -> realtime.ServerEvent:
        event = realtime.parse_server_event(await self._receive(established=False))
        if isinstance(event, realtime.ErrorEvent):
            error = event.error
            retryable = realtime_errors.triage(error) is realtime_errors.Verdict.RETRYABLE
            again = retryable or isinstance(realtime_errors.error_of(error), ModelLost)
            raise (ModelUnreachable if again else ModelRejected)(
                f"the Realtime server refused the session: {error.text}", code=error.word
            )
        if isinstance(event, realtime.SessionCreated | realtime.SessionUpdated):
            self.expires_at = _unix_s(event.session.get("expires_at"), self.expires_at)
        return event


def _greets(event: realtime.ServerEvent) -> bool:
    """Whether the server is ready for our update."""
    if isinstance(event, realtime.Unhandled):
        return event.type == "conversation.created"
    return isinstance(event, realtime.SessionCreated)


def _unix_s(told: object, otherwise: float | None) -> float | None:
    """A moment as a server tells it; some say 0 where there is no end."""
    return float(told) if isinstance(told, int | float) and told > 0 else otherwise


class _Connect(connect):
    """Follows no redirect: websockets would send our `api-key` header and subprotocol on to a host that nobody chose."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


@asynccontextmanager
async def open_realtime(
    config: Realtime,
    session: bytes,
    *,
    connect_s: float,
    close_s: float,
    try_s: float = math.inf,
    connect_stream: ConnectStream | None = None,
) -> AsyncIterator[RealtimeConnection]:
    """An established, configured session; `session` is the `session.update` message.

    Tries again with backoff while `connect_s` lasts, as long as another try may help; a single try gets `try_s` at most,
    so that one server of many that accepts and says nothing does not use it all up. Raises `ModelUnreachable` or
    `ModelRejected`, and `ConfigError` for settings that name no endpoint. On exit the closing handshake gets `close_s`.
    The connection's own tasks live in the scope of whoever enters: cancel that scope and the peer sees a broken
    connection, so a call holds its session outside the scope that its end cancels (`call`). `connect_stream` replaces the
    network in tests.
    """
    endpoint = endpoint_of(config)
    deadline = trio.current_time() + connect_s
    trouble: ModelUnreachable | None = None
    async with AsyncExitStack() as stack:
        for delay_s in _backoff_s():
            try:
                last = min(deadline, trio.current_time() + try_s)
                connection = await _try(endpoint, config, session, last, close_s, connect_stream, stack)
                break
            except ModelUnreachable as error:
                # A last try that only ran out of time says less than the one before.
                trouble = trouble if trouble is not None and trio.current_time() >= deadline else error
            if trio.current_time() + delay_s >= deadline:
                raise trouble
            await trio.sleep(delay_s)
        try:
            yield connection
        finally:
            await connection.close(close_s)


def _backoff_s() -> Iterator[float]:
    """0.25 s, doubled up to 2 s: a caller hears ringing meanwhile."""
    delay_s = 0.25
    while True:
        yield delay_s
        delay_s = min(delay_s * 2, 2.0)


async def _try(
    endpoint: Endpoint,
    config: Realtime,
    session: bytes,
    deadline: float,
    close_s: float,
    connect_stream: ConnectStream | None,
    stack: AsyncExitStack,
) -> RealtimeConnection:
    """One try. What it opened is on `stack` when it succeeds, and closed when it does not."""
    host = endpoint.host
    async with AsyncExitStack() as attempt:
        try:
            stream = connect_stream() if connect_stream is not None else None
            websocket = await attempt.enter_async_context(
                _Connect(
                    endpoint.url,
                    stream=stream,
                    additional_headers=endpoint.headers,
                    subprotocols=[Subprotocol(name) for name in endpoint.subprotocols] or None,
                    logger=_library_log,
                    create_connection=LightConnection,
                    compression=None,  # audio does not shrink; the official SDK does the same
                    max_size=MOST_MESSAGE_BYTES,
                    open_timeout=max(0.0, deadline - trio.current_time()),
                    close_timeout=close_s,
                    ping_interval=config.ping_interval_s,
                    ping_timeout=config.ping_interval_s,
                )
            )
            connection = RealtimeConnection(websocket, Translator(endpoint.dialect))
            with trio.fail_at(deadline):
                await connection.configure(session)
        except ModelRejected as error:
            if error.code == "invalid_api_key" and not endpoint.shows_key:
                raise ModelRejected(f"{error} No key was sent: set OPENAI_API_KEY", code=error.code) from None
            raise
        except InvalidStatus as error:
            raise realtime_errors.error_of_http_status(
                error.response.status_code, bytes(error.response.body or b"")
            ) from None
        # `ConnectionClosed`: the connection broke while the upgrade was being sent (found by the soak).
        except (
            InvalidHandshake,
            ConnectionClosed,
            OSError,
            trio.BrokenResourceError,
            trio.ClosedResourceError,
        ) as error:
            # trio hides the reason of a failed TLS handshake in the cause of an exception without words.
            cause = error.__cause__ if isinstance(error, trio.BrokenResourceError) and error.__cause__ else error
            if isinstance(cause, ssl.SSLError):
                raise ModelRejected(f"TLS with {host} failed: {cause}", code="tls") from error
            raise ModelUnreachable(f"no connection to {host}: {str(cause) or type(cause).__name__}") from error
        except trio.TooSlowError:
            raise ModelUnreachable(f"{host} accepted the connection but opened no session in time") from None
        stack.push_async_exit(attempt.pop_all().__aexit__)
        return connection
