"""A configured Realtime session over a websocket: connect, configure, check, send, receive, close politely.

`open_realtime` hands over a connection only after `session.updated` has acknowledged our configuration: "connected" is not
the HTTP upgrade, since a bad key is refused in band after it (protocol sheet 1.3). Every trouble leaves as one of our own
errors; the websocket library does not show.
"""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from urllib.parse import urlencode, urlsplit, urlunsplit

import trio
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.trio.client import ClientConnection, connect

from bridge import realtime
from bridge.config import Realtime
from bridge.errors import ModelError, ModelRejected, ModelUnreachable

ConnectStream = Callable[[], trio.abc.Stream]


class RealtimeConnection:
    """One established session. One task receives, one task sends."""

    def __init__(self, websocket: ClientConnection) -> None:
        self._websocket = websocket
        self.released = trio.Event()

    async def send(self, payload: bytes) -> None:
        """Send one event. Raises `ModelLost` (or `ModelRejected`) when the session is over.

        Waits while the server's side takes nothing; cancelled in such a wait, the connection is of no more use.
        """
        try:
            await self._websocket.send(payload, text=True)
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
        try:
            return await self._websocket.recv(decode=False)
        except ConnectionClosed:
            raise self._loss(established=established) from None

    def _loss(self, *, established: bool) -> ModelError:
        code = self._websocket.close_code
        # 1006 is the library's own way to say that no close frame came; nobody sent it.
        code = None if code == 1006 else code
        return realtime.error_of_close(code, self._websocket.close_reason or "", established=established)

    async def configure(self, session: bytes) -> None:
        """Wait for `session.created`, send the update, and wait until it is acknowledged as we meant it.

        Raises `ModelRejected` when the server refuses anything here: with its defaults the call would run with another
        voice, no tools and maybe another audio format (protocol sheet 2.1).
        """
        while not isinstance(await self._next_of_handshake(), realtime.SessionCreated):
            pass
        await self.send(session)
        while not isinstance(event := await self._next_of_handshake(), realtime.SessionUpdated):
            pass
        realtime.check_effective_session(event.session)

    async def _next_of_handshake(self) -> realtime.ServerEvent:
        event = realtime.parse_server_event(await self._receive(established=False))
        if isinstance(event, realtime.ErrorEvent):
            error = event.error
            again = realtime.triage(error) is realtime.Verdict.RETRYABLE
            raise (ModelUnreachable if again else ModelRejected)(
                f"the Realtime server refused the session: {error.text}", code=error.word
            )
        return event


def session_url(config: Realtime) -> str:
    """The URL of a new session: the configured one, with `model` in its query unless it is there or empty."""
    parts = urlsplit(config.url)
    if not config.model or "model=" in parts.query:
        return config.url
    query = "&".join(part for part in (parts.query, urlencode({"model": config.model})) if part)
    return urlunsplit(parts._replace(query=query))


@asynccontextmanager
async def open_realtime(
    config: Realtime,
    session: bytes,
    *,
    connect_s: float,
    close_s: float,
    connect_stream: ConnectStream | None = None,
) -> AsyncIterator[RealtimeConnection]:
    """An established, configured session; `session` is the `session.update` message.

    Tries again with backoff while `connect_s` lasts, as long as another try may help. Raises `ModelUnreachable` or
    `ModelRejected`. On exit the closing handshake gets `close_s`. The connection's own tasks live in the scope of whoever
    enters: cancel that scope and the peer sees a broken connection, so a call holds its session outside the scope that
    its end cancels (`call`). `connect_stream` replaces the network in tests.
    """
    deadline = trio.current_time() + connect_s
    trouble: ModelUnreachable | None = None
    async with AsyncExitStack() as stack:
        for delay_s in _backoff_s():
            try:
                connection = await _try(config, session, deadline, close_s, connect_stream, stack)
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
    config: Realtime,
    session: bytes,
    deadline: float,
    close_s: float,
    connect_stream: ConnectStream | None,
    stack: AsyncExitStack,
) -> RealtimeConnection:
    """One try. What it opened is on `stack` when it succeeds, and closed when it does not."""
    headers = dict(config.headers)
    if config.api_key:
        headers.setdefault("Authorization", f"Bearer {config.api_key}")
    host = urlsplit(config.url).netloc
    async with AsyncExitStack() as attempt:
        try:
            stream = connect_stream() if connect_stream is not None else None
            websocket = await attempt.enter_async_context(
                connect(
                    session_url(config),
                    stream=stream,
                    additional_headers=headers,
                    compression=None,  # audio does not shrink; the official SDK does the same
                    max_size=None,  # one message may hold minutes of base64 audio
                    open_timeout=max(0.0, deadline - trio.current_time()),
                    close_timeout=close_s,
                    ping_interval=config.ping_interval_s,
                    ping_timeout=config.ping_interval_s,
                )
            )
            connection = RealtimeConnection(websocket)
            with trio.fail_at(deadline):
                await connection.configure(session)
        except InvalidStatus as error:
            raise realtime.error_of_http_status(error.response.status_code) from None
        except (InvalidHandshake, OSError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
            # trio hides the reason of a failed TLS handshake in the cause of an exception without words.
            cause = error.__cause__ if isinstance(error, trio.BrokenResourceError) and error.__cause__ else error
            if isinstance(cause, ssl.SSLError):
                raise ModelRejected(f"TLS with {host} failed: {cause}", code="tls") from error
            raise ModelUnreachable(f"no connection to {host}: {str(cause) or type(cause).__name__}") from error
        except trio.TooSlowError:
            raise ModelUnreachable(f"{host} accepted the connection but opened no session in time") from None
        stack.push_async_exit(attempt.pop_all().__aexit__)
        return connection
