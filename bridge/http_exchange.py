"""One HTTP request and its answer on one connection, without I/O: what the health pages and the control door share.

    exchange = Exchange()
    request = exchange.receive(data)     None: more is needed; raises `Refused`, whose page is the answer
    exchange.reply(page)                 the bytes of the answer; then close the connection

h11 reads and writes the protocol (RFC 9112). Here are the limits: one request a connection, so there is no keep-alive to
hold open and no second request to smuggle in, and a head and a body of bounded size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import h11
import msgspec

# A monitor's request is some 200 bytes, an operator's with a token 300; a longer head is nobody's that we know.
MAX_HEAD = 8192
# By default; monitoring and dialplans send none.
MAX_BODY = 65536
# Each costs 20 us, whatever is in it: 64 kB of empty-handed ones held up the event loop for 200 ms. Programs that send
# bodies in chunks make them of 8 kB and more.
MOST_CHUNKS = 128

_PHRASES = {
    200: "OK", 201: "Created", 202: "Accepted", 400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found",
    405: "Method Not Allowed", 409: "Conflict", 413: "Content Too Large", 417: "Expectation Failed",
    426: "Upgrade Required", 431: "Request Header Fields Too Large", 500: "Internal Server Error", 501: "Not Implemented",
    502: "Bad Gateway", 503: "Service Unavailable", 505: "HTTP Version Not Supported",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Request:
    """A whole request. `path` is without the query, `query` is what follows its `?`; header names are in lower case, of a
    repeated one the last counts."""

    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    query: str = ""

    @property
    def upgrades(self) -> bool:
        """Whether this is the handshake of a websocket (RFC 6455 section 4.1)."""
        return self.method == "GET" and self.headers.get("upgrade", "").lower() == "websocket"


@dataclass(frozen=True, slots=True)
class Page:
    """An answer."""

    status: int
    text: str
    content_type: str = "text/plain; charset=utf-8"
    headers: tuple[tuple[str, str], ...] = ()


def json_page(status: int, content: Any, *headers: tuple[str, str]) -> Page:
    """`content` as JSON."""
    return Page(status, msgspec.json.encode(content).decode() + "\n", "application/json", headers)


class Refused(Exception):
    """What has come is no request that we answer; `page` says why."""

    def __init__(self, page: Page) -> None:
        super().__init__(page.text)
        self.page = page


class Exchange:
    """The server's end of one connection. `received`: all bytes that came, for whoever takes the connection over."""

    def __init__(self, max_body: int = MAX_BODY) -> None:
        self.received = bytearray()
        self._max_body = max_body
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
        self._head: h11.Request | None = None
        self._body = bytearray()
        self._chunks = 0

    def receive(self, data: bytes) -> Request | None:
        """The request, once it is whole. Raises `Refused`; after either, `reply` and nothing more."""
        self.received += data
        try:
            self._http.receive_data(data)
            while True:
                match self._http.next_event():
                    case h11.Request() as head:
                        self._head = head
                        self._check(head)
                    case h11.Data(data=part, chunk_start=begins):
                        self._body += part
                        self._chunks += begins
                        if self._chunks > MOST_CHUNKS:
                            raise Refused(
                                Page(413, f"a body in more than {MOST_CHUNKS} chunks: send its length instead\n")
                            )
                        if len(self._body) > self._max_body:
                            raise Refused(Page(413, f"a body of more than {self._max_body} bytes\n"))
                    case h11.EndOfMessage():
                        return self._whole()
                    case _:
                        return None
        except h11.RemoteProtocolError as error:
            status = error.error_status_hint if error.error_status_hint in _PHRASES else 400
            raise Refused(Page(status, f"not an HTTP/1 request: {error}\n")) from error

    def reply(self, page: Page) -> bytes:
        """The answer as bytes; the connection is to be closed behind it."""
        content = page.text.encode()
        head = h11.Response(
            status_code=page.status,
            reason=_PHRASES[page.status],
            headers=[
                ("Content-Type", page.content_type),
                ("Content-Length", str(len(content))),
                ("Connection", "close"),
                *page.headers,
            ],
        )
        data = self._http.send(head) or b""
        if content and not (self._head is not None and self._head.method == b"HEAD"):
            data += self._http.send(h11.Data(data=content)) or b""
        return data

    def _check(self, head: h11.Request) -> None:
        if head.http_version not in (b"1.0", b"1.1"):
            raise Refused(Page(505, "HTTP/1.1 only\n"))
        for name, value in head.headers:
            if name == b"expect":  # bodies are small: there is nothing to ask for first
                raise Refused(Page(417, "send the request whole, without Expect\n"))
            if name == b"content-length" and int(value) > self._max_body:
                raise Refused(Page(413, f"a body of more than {self._max_body} bytes\n"))

    def _whole(self) -> Request:
        assert self._head is not None
        head = self._head
        path, _, query = head.target.decode("latin-1").partition("?")
        return Request(
            head.method.decode("ascii"),
            path,
            {name.decode("ascii"): value.decode("latin-1") for name, value in head.headers},
            bytes(self._body),
            query,
        )
