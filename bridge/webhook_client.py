"""Requests to services of the operator's: one signed POST of JSON, or several within one time limit.

A request has one limit for everything, name lookup to last byte of the answer; the answer's size is bounded; redirects are
not followed, and no proxy, cookie or password of the environment is used. Every failure is a `WebhookError`.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httpx
import msgspec
import trio

from bridge import __version__, webhook
from bridge.errors import WebhookError, WebhookRefused, WebhookUnreachable
from bridge.http_transport import Body, transport_of

# An answer is a configuration or a tool's result; a megabyte is a book.
MOST_ANSWER_BYTES = 1_000_000
# Of all receivers together. Each further request waits, within its own limit.
_MOST_CONNECTIONS = 100
# Servers commonly keep an idle connection for 5 s (node) to 75 s (nginx); a request that meets the end fails.
_KEEP_S = 4.0
# Some services give each customer an address that is itself the secret.
_KEY_IN_PATH = re.compile(r"/(?=[^/]*\d)[^/]{16,}")
# So much of an answer that nobody wants is read, to keep the connection; else it is closed.
_MOST_UNREAD_BYTES = 65_536
# To let go of a connection, whoever hangs at its other end.
_CLOSE_S = 1.0


@dataclass(frozen=True, slots=True)
class Receiver:
    """A service, as the settings name it. `repr` tells no secret: headers and the URL's query may hold some."""

    url: str
    secret: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"Receiver({self.where})"

    @property
    def where(self) -> str:
        """For logs: the URL without user, password and query, and without what may be a key in its path."""
        try:
            url = urlsplit(self.url)
            port = f":{url.port}" if url.port else ""
        except ValueError:
            return "an unreadable URL"
        return f"{url.scheme}://{url.hostname or ''}{port}{_KEY_IN_PATH.sub('/***', url.path)}"


@dataclass(frozen=True, slots=True)
class Answer:
    """A 2xx answer; `body` as it came."""

    status: int
    body: bytes

    def json(self, where: str) -> Any:
        """The decoded body; None where it is empty. Raises `WebhookRefused` if it is no JSON."""
        if not self.body.strip():
            return None
        try:
            return msgspec.json.decode(self.body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise WebhookRefused(f"{where} answered what is no JSON: {error}", status=self.status) from error


class WebhookClient:
    """`transport` replaces the network (tests). Any number of tasks may use one client; `aclose` it at the end."""

    def __init__(
        self,
        transport: httpx.AsyncBaseTransport | None = None,
        *,
        unix_s: Callable[[], float] = time.time,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._transport = transport or transport_of(most_connections=_MOST_CONNECTIONS, keep_s=_KEEP_S)
        self._unix_s = unix_s
        self._chance = chance

    async def aclose(self) -> None:
        """Close all connections. Requests that are under way fail."""
        with trio.CancelScope(shield=True, deadline=trio.current_time() + _CLOSE_S):
            await self._transport.aclose()

    async def post(
        self,
        receiver: Receiver,
        message_id: str,
        body: bytes,
        *,
        limit_s: float,
        most_bytes: int | None = MOST_ANSWER_BYTES,
    ) -> Answer:
        """One try. `most_bytes` None: nobody wants to know the answer's body, whatever it is.

        Raises `WebhookUnreachable` or `WebhookRefused`. Cancelled: it may have been received or not."""
        try:
            with trio.fail_after(limit_s):
                return await self._once(receiver, message_id, body, most_bytes)
        except trio.TooSlowError:
            raise WebhookUnreachable(f"{receiver.where} did not answer within {limit_s:g} s") from None

    async def ask(
        self,
        receiver: Receiver,
        message_id: str,
        body: bytes,
        *,
        limit_s: float,
        tries: int = 3,
        most_bytes: int = MOST_ANSWER_BYTES,
        may_repeat: Callable[[WebhookError], bool] = lambda error: isinstance(error, WebhookUnreachable),
    ) -> Answer:
        """For somebody who waits: up to `tries` tries within `limit_s` of them all. After what `may_repeat` it waits 0.1 to
        0.2 s, then twice that, or for as long as the service asks. Raises what the last try did. Cancelled: as `post`."""
        deadline = trio.current_time() + limit_s
        failures = 0
        while True:
            left_s = max(deadline - trio.current_time(), 0.0)
            try:
                return await self.post(receiver, message_id, body, limit_s=left_s, most_bytes=most_bytes)
            except WebhookError as error:
                failures += 1
                pause_s = webhook.backoff_s(failures, self._chance(), first_s=0.2, most_s=2.0)
                if isinstance(error, WebhookUnreachable):
                    pause_s = max(pause_s, error.retry_after_s or 0.0)
                if failures >= tries or trio.current_time() + pause_s >= deadline or not may_repeat(error):
                    raise
            await trio.sleep(pause_s)

    async def _once(self, receiver: Receiver, message_id: str, body: bytes, most_bytes: int | None) -> Answer:
        where = receiver.where
        try:
            request = self._request(receiver, message_id, body)
            response = await self._transport.handle_async_request(request)
            try:
                error = webhook.judged(
                    where, response.status_code, response.headers.get("retry-after", ""), self._unix_s()
                )
                if error is not None:
                    raise error
                return Answer(response.status_code, await _read(response, where, most_bytes))
            finally:
                with trio.CancelScope(shield=True, deadline=trio.current_time() + _CLOSE_S):
                    await response.aclose()
        except (httpx.InvalidURL, httpx.UnsupportedProtocol, httpx.LocalProtocolError, ValueError) as error:
            # The library's words may quote a header, and so a password.
            raise WebhookRefused(f"{where}: its URL or headers make no request ({type(error).__name__})") from None
        except (httpx.HTTPError, OSError) as error:
            raise WebhookUnreachable(f"no answer from {where}: {str(error) or type(error).__name__}") from error

    def _request(self, receiver: Receiver, message_id: str, body: bytes) -> httpx.Request:
        headers = {
            "content-type": "application/json",
            "accept": "application/json",
            "accept-encoding": "identity",
            "user-agent": f"asterisk-realtime-bridge/{__version__}",
            **{name.lower(): value for name, value in receiver.headers.items()},
            **webhook.headers_of(receiver.secret, message_id, self._unix_s(), body),
        }
        request = httpx.Request("POST", receiver.url, headers=headers, content=body)
        request.stream = Body(body)
        return request


async def _read(response: httpx.Response, where: str, most_bytes: int | None) -> bytes:
    """The whole body, as long as it is what we can bear. Raises `WebhookRefused`."""
    if most_bytes is not None and response.headers.get("content-encoding", "identity").lower() != "identity":
        raise WebhookRefused(f"{where} answered in an encoding that was not asked for", status=response.status_code)
    parts: list[bytes] = []
    size = 0
    # An abandoned async generator of httpx's is something that trio complains of; a cancelled one ends by itself.
    with trio.CancelScope() as scope:
        assert isinstance(response.stream, httpx.AsyncByteStream)
        async for part in response.stream:
            size += len(part)
            if size > (_MOST_UNREAD_BYTES if most_bytes is None else most_bytes):
                scope.cancel()
            elif most_bytes is not None:
                parts.append(part)
    if most_bytes is not None and size > most_bytes:
        raise WebhookRefused(f"{where} answered with more than {most_bytes} bytes", status=response.status_code)
    return b"".join(parts)
