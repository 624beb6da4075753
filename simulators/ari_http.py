"""The HTTP port of the fake Asterisk, as http.c serves it: ARI requests on connections that are kept, and websockets.

Whatever http.c would answer with an error that our code has no use for (no Host, a line too long, a body without its
length) fails the test instead.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import trio

from simulators.memory import MemoryStream

# http.c: MAX_HTTP_LINE_LENGTH, and http.conf's session_keep_alive (measured on 22.10.1: 400 beyond 4096, and 15.0 s).
_LONGEST_LINE = 4096
KEEP_ALIVE_S = 15.0


@dataclass(frozen=True)
class HttpRequest:
    """`path` is as it came; `body` is the JSON object that came, empty where none did."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: dict[str, Any]


@dataclass(frozen=True)
class HttpAnswer:
    """`body`: JSON; None: there is none."""

    status: int
    body: Any = None


async def read_head(stream: MemoryStream, begun: bytes = b"") -> bytes:
    """All up to the empty line, and what came behind it; empty when the far end has closed."""
    head = begun
    while b"\r\n\r\n" not in head:
        data = await stream.receive_some()
        if not data:
            assert not head, f"the connection ended in the middle of a request: {head!r}"
            return b""
        head += data
    return head


def is_upgrade(head: bytes) -> bool:
    """Whether this request is for a websocket."""
    return b"\r\nupgrade: websocket" in head.lower()


async def serve_http(
    stream: MemoryStream,
    server: str,
    answer: Callable[[HttpRequest], Awaitable[HttpAnswer | None]],
    begun: bytes,
) -> None:
    """Serve one connection until either side closes it. `answer` gives None for a request that is never answered."""
    head = begun
    try:
        while head:
            request, head = await _read_request(stream, head)
            answered = await answer(request)
            if answered is None:
                while await stream.receive_some():
                    raise AssertionError("a second request before the answer to the first")
                return
            await stream.send_all(_encode(answered, server))
            if request.headers.get("connection", "").lower() == "close":
                return
            with trio.move_on_after(KEEP_ALIVE_S) as idle:
                head = await read_head(stream, head)
            if idle.cancelled_caught:
                return
    except trio.BrokenResourceError:
        pass  # the far end has given up
    finally:
        with trio.CancelScope(shield=True):
            await stream.aclose()


async def _read_request(stream: MemoryStream, data: bytes) -> tuple[HttpRequest, bytes]:
    head, _, rest = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("ascii").split("\r\n")
    assert max(map(len, [first, *lines])) < _LONGEST_LINE, "Asterisk would answer 400: a line of its 4096 and more"
    method, target, version = first.split(" ")
    assert version == "HTTP/1.1"
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    assert headers.get("host"), "no Host header"
    assert "transfer-encoding" not in headers, "our requests tell their length"
    length = int(headers.get("content-length", 0))
    while len(rest) < length:
        rest += await stream.receive_some()
    body = json.loads(rest[:length]) if length else {}
    assert not length or headers.get("content-type") == "application/json", "a body of what?"
    url = urlsplit(target)
    pairs = parse_qsl(url.query, keep_blank_values=True, strict_parsing=bool(url.query))
    assert len(dict(pairs)) == len(pairs), f"a parameter twice: {target}"
    return HttpRequest(method, url.path, dict(pairs), headers, body), rest[length:]


def _encode(answer: HttpAnswer, server: str) -> bytes:
    status = HTTPStatus(answer.status)
    body = b"" if answer.body is None else json.dumps(answer.body).encode()
    lines = [f"HTTP/1.1 {status.value} {status.phrase}", f"Server: {server}", "Cache-Control: no-cache, no-store"]
    if status == HTTPStatus.UNAUTHORIZED:
        lines.append('WWW-Authenticate: Basic realm="Asterisk REST Interface"')
    if body:
        lines.append("Content-type: application/json")
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode() + body
