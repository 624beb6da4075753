"""HTTP on a port, one request a connection: the health pages and the control door. Bounded in time and in number.

A request may also be answered with a `TakeOver`: then the connection, and what has been read of it, is somebody else's.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import trio

from bridge.errors import ConfigError
from bridge.http_exchange import MAX_BODY, Exchange, Page, Refused, Request

_log = logging.getLogger("bridge.http")

# A request comes in one packet or two. Whoever dawdles, or opens many connections, is sent away, and costs no call.
REQUEST_S = 5.0
MOST_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class TakeOver:
    """This connection is a websocket's from here on. `take` is given the stream and every byte that was read of it; it
    returns the event of the stream's end, or None: it takes none, which is answered with 503."""

    take: Callable[[trio.abc.Stream, bytes], trio.Event | None]


Answer = Callable[[Request], Awaitable[Page | TakeOver]]


async def serve_http(
    address: str,
    answer: Answer,
    *,
    setting: str,
    most_at_once: int = MOST_AT_ONCE,
    max_body: int = MAX_BODY,
    listeners: Sequence[trio.abc.Listener[trio.abc.Stream]] | None = None,
    task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Answer on `address` (HOST:PORT), or on `listeners`, for ever; `started` is told the port.

    Raises `ConfigError`, which names `setting`, when it can not listen there.
    """
    ours = list(listeners or await listen(address, setting))
    at_once = 0

    async def handle(stream: trio.abc.Stream) -> None:
        nonlocal at_once
        at_once += 1
        ended: trio.Event | None = None
        try:
            if at_once <= most_at_once:
                ended = await answer_one(stream, answer, max_body)
        finally:
            at_once -= 1
            if ended is None:
                # Nothing more is owed to this client, so nothing is waited for.
                await trio.aclose_forcefully(stream)
        if ended is not None:
            await ended.wait()  # trio closes a stream whose handler returns

    task_status.started(port_of(ours))
    await trio.serve_listeners(handle, ours)


async def listen(address: str, setting: str, no_door: str = '"" for none') -> list[trio.SocketListener]:
    """Listen on `address` (HOST:PORT). Raises `ConfigError`, which names `setting`; `no_door`: how to do without."""
    host, _, port = address.rpartition(":")
    try:
        return await trio.open_tcp_listeners(int(port), host=host.strip("[]"))
    except OSError as error:
        raise ConfigError(
            f"{setting}: cannot listen on {address}: {error.strerror or error}; is another bridge running? "
            f"Give each its own, or {no_door}"
        ) from error


def port_of(listeners: Sequence[trio.abc.Listener[trio.abc.Stream]]) -> int:
    """The port that was opened; 0: they are no sockets (tests)."""
    first = listeners[0]
    return int(first.socket.getsockname()[1]) if isinstance(first, trio.SocketListener) else 0


async def answer_one(stream: trio.abc.Stream, answer: Answer, max_body: int = MAX_BODY) -> trio.Event | None:
    """Read one request within `REQUEST_S` and answer it; how long that takes is `answer`'s to bound.

    A client that leaves, or is too slow, gets nothing. Returns the end of a stream that is somebody else's now.
    """
    exchange = Exchange(max_body)
    try:
        with trio.move_on_after(REQUEST_S) as reading:
            request = None
            try:
                while request is None:
                    data = await stream.receive_some(65536)
                    if not data:
                        return None
                    request = exchange.receive(bytes(data))
            except Refused as refused:
                await stream.send_all(exchange.reply(refused.page))
                return None
        if reading.cancelled_caught or request is None:
            return None
        page = await _answered(answer, request)
        if isinstance(page, TakeOver):
            if (ended := page.take(stream, bytes(exchange.received))) is not None:
                return ended
            page = Page(503, "too many websockets are being opened; try again in a moment\n")
        with trio.move_on_after(REQUEST_S):
            await stream.send_all(exchange.reply(page))
    except trio.BrokenResourceError:
        _log.debug("an HTTP client has left")
    return None


async def _answered(answer: Answer, request: Request) -> Page | TakeOver:
    try:
        return await answer(request)
    except Exception:
        _log.exception("a defect of the bridge: %s %s could not be answered", request.method, request.path)
        return Page(500, "a defect of the bridge; its log says more\n")
