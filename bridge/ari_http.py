"""ARI requests by HTTP, for an Asterisk that takes none on its websocket (before 20.14, 21.9, 22.4).

Each request takes a connection for itself from a pool of connections that are kept, so none waits for another. Asterisk
works them off side by side, so one may overtake another, and an event may come long before or after the answer to what
caused it. Whoever awaits an answer before he asks further is safe. Whoever is cancelled is not: what he asked may still be
under way (POST bridges) when the clearing up after him asks again (DELETE), and would be left behind. So a request goes on
when nobody waits for it any more, and what is asked about the same object waits for it.

A request costs 0.52 ms of CPU by httpx's transport, and 1.2 by its client (0.46 on the websocket; 2 cores, 22.10.1).
"""

from __future__ import annotations

import logging
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote, unquote, urlencode, urlsplit

import httpx
import msgspec
import trio

from bridge.ari_rest import MOST_WAITING, Reply
from bridge.config import Asterisk
from bridge.errors import ControlUnavailable
from bridge.http_transport import Body, transport_of

logger = logging.getLogger("bridge.ari")

# Asterisk's listening socket holds 10 connections that nobody has accepted yet (`ss -ltn`). Of 20 that were opened at once
# some came only after 1 s, when the kernel tried again. It also serves 100 sessions at most, of all workers and all others
# together (http.conf, sessionlimit).
_MOST_CONNECTIONS = 10
# Asterisk closes an idle connection after 15 s (session_keep_alive; measured: 15.0). A request that is sent while it does
# is lost, so we are first.
_KEEP_S = 10.0

_Request = tuple[str, str, Mapping[str, str], Mapping[str, Any] | None]
# Parameters that name channels and bridges, and what stands in an id's place in a URI.
_NAMES = ("bridgeId", "channelId", "otherChannelId", "channel")
_NO_IDS = frozenset({"externalMedia", "create"})


class _Sent:
    """A request on its way. `settled`: there is a `reply`, or why there is none."""

    __slots__ = ("error", "objects", "reply", "settled")

    def __init__(self, objects: frozenset[str]) -> None:
        self.objects = objects
        self.settled = trio.Event()
        self.reply: Reply | None = None
        self.error: Exception | None = None


class HttpRequests:
    """Requests to the Asterisk of `config.url`. `connect_stream` makes the byte streams (tests); by default TCP or TLS.

    `keep`: connections are kept for the next request. Else each is closed after its request, so that none is left when all
    else goes on the websocket.
    """

    def __init__(self, config: Asterisk, connect_stream: Callable[[], trio.abc.Stream] | None = None) -> None:
        url = urlsplit(config.url)
        secure = url.scheme == "wss"
        self._place = f"{url.hostname}:{url.port or (443 if secure else 80)}"
        self._base = f"{'https' if secure else 'http'}://{url.netloc}{url.path.rstrip('/')}/ari/"
        credentials = b64encode(f"{config.username}:{config.password}".encode()).decode()
        self._headers = {"Authorization": f"Basic {credentials}"}
        self._transport = transport_of(
            most_connections=_MOST_CONNECTIONS, keep_s=_KEEP_S, connect_stream=connect_stream
        )
        self.keep = False
        self._nursery: trio.Nursery | None = None
        self._waiting = 0
        self._given_up: set[_Sent] = set()

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Requests are possible inside. At the end, all that are under way fail, and all connections are closed."""
        try:
            async with trio.open_nursery() as self._nursery:
                yield
                self._nursery.cancel_scope.cancel()
        finally:
            self._nursery = None
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 1):
                await self._transport.aclose()

    async def request(
        self, method: str, uri: str, query: Mapping[str, str], body: Mapping[str, Any] | None, limit_s: float
    ) -> Reply:
        """Send one request. Raises `ControlUnavailable`: no connection, lost meanwhile, or no answer in time.

        Cancelled, it is carried out all the same if it can be within `limit_s`.
        """
        what = f"{method} {uri}"
        if self._nursery is None:
            raise ControlUnavailable(f"no ARI connection to {self._place}")
        if self._waiting >= MOST_WAITING:
            raise ControlUnavailable(f"ARI: {MOST_WAITING} requests wait for their answers; not adding {what}")
        self._waiting += 1
        try:
            with trio.fail_after(limit_s) as limit:
                sent = _Sent(_objects(uri, query))
                for earlier in [other for other in self._given_up if other.objects & sent.objects]:
                    await earlier.settled.wait()
                if self._nursery is not None:
                    self._nursery.start_soon(self._carry, sent, (method, uri, query, body), limit.deadline)
                    await self._settled(sent)
        except trio.TooSlowError:
            raise ControlUnavailable(f"ARI: no answer to {what} within {limit_s:g} s") from None
        finally:
            self._waiting -= 1
        if sent.reply is not None:
            return sent.reply
        error = sent.error
        if isinstance(error, httpx.ConnectError):
            raise ControlUnavailable(f"ARI: no HTTP connection to {self._place} for {what}: {error}") from error
        words = str(error or "closed") or type(error).__name__
        raise ControlUnavailable(f"ARI: HTTP connection to {self._place} lost during {what}: {words}") from error

    async def _settled(self, sent: _Sent) -> None:
        try:
            await sent.settled.wait()
        except trio.Cancelled:
            self._given_up.add(sent)
            raise

    async def _carry(self, sent: _Sent, request: _Request, deadline: float) -> None:
        try:
            with trio.CancelScope(deadline=deadline):
                sent.reply = await self._send(*request)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            sent.error = error
        except Exception as error:
            # One request that a library trips over must not end all calls.
            logger.exception("ARI: %s %s by HTTP failed", *request[:2])
            sent.error = error
        finally:
            self._given_up.discard(sent)
            sent.settled.set()

    async def _send(self, method: str, uri: str, query: Mapping[str, str], body: Mapping[str, Any] | None) -> Reply:
        url = self._base + uri + (f"?{urlencode(query, quote_via=quote)}" if query else "")
        headers, content = self._headers if self.keep else self._headers | {"Connection": "close"}, None
        if body is not None:
            headers, content = headers | {"Content-Type": "application/json"}, msgspec.json.encode(body)
        request = httpx.Request(method, url, headers=headers, content=content)
        request.stream = Body(content or b"")
        response = await self._transport.handle_async_request(request)
        try:
            return Reply(response.status_code, response.reason_phrase, await response.aread())
        finally:
            await response.aclose()


def _objects(uri: str, query: Mapping[str, str]) -> frozenset[str]:
    """The ids of what a request is about."""
    named = {unquote(part) for part in uri.split("/")[1:2]} - _NO_IDS
    return frozenset(named.union(*(query[name].split(",") for name in _NAMES if name in query)))
