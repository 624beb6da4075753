"""The opening handshake with a websocket client, on websockets' sans-I/O protocol: a refusal is an HTTP answer."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import trio
from websockets.datastructures import Headers
from websockets.http11 import Request
from websockets.server import ServerProtocol

from bridge.gateway_door import SUBPROTOCOL, Refusal, Visit
from bridge.websocket_leg import server_protocol

_log = logging.getLogger("bridge.gateway")

# Little at a time: frames may come with the request, and are parsed before anybody has judged it.
_READ_BYTES = 1024
# What a client that is told "not now" may do.
_RETRY_AFTER_S = "5"

Judge = Callable[[str, Mapping[str, str], Sequence[str]], Visit | Refusal]
"""Decides by the request's target, its headers (names in lower case) and the subprotocols that it offers."""


async def shake_hands(stream: trio.abc.Stream, judge: Judge) -> tuple[ServerProtocol, Visit] | None:
    """Let a client in, or answer why not (None). The caller bounds it, and closes the stream.

    Frames that came with the request wait in the protocol. Raises trio's errors of a stream that breaks.
    """
    protocol = server_protocol()
    events: list[Any] = []
    while not events:
        data = await stream.receive_some(_READ_BYTES)
        if not data:
            return None
        protocol.receive_data(bytes(data))
        events = protocol.events_received()
        if protocol.handshake_exc is not None:
            await _write(stream, protocol)
            return None
    request = events[0]
    assert isinstance(request, Request)
    offered = _offered(request.headers)
    verdict = judge(request.path, {name.lower(): value for name, value in request.headers.raw_items()}, offered)
    if isinstance(verdict, Refusal):
        response = protocol.reject(verdict.status, verdict.text)
        if verdict.status == 401:
            response.headers["WWW-Authenticate"] = "Bearer"
        if verdict.status == 503:
            response.headers["Retry-After"] = _RETRY_AFTER_S
    else:
        response = protocol.accept(request)
        if response.status_code == 101 and SUBPROTOCOL in offered:
            response.headers["Sec-WebSocket-Protocol"] = SUBPROTOCOL
    protocol.send_response(response)
    await _write(stream, protocol)
    if isinstance(verdict, Refusal) or response.status_code != 101:
        why = response.body.decode().strip() if response.body else ""
        _log.warning("websocket client refused", extra={"facts": {"status": response.status_code, "detail": why}})
        return None
    protocol.events += events[1:]
    return protocol, verdict


def _offered(headers: Headers) -> list[str]:
    return [it.strip() for line in headers.get_all("Sec-WebSocket-Protocol") for it in line.split(",")]


async def _write(stream: trio.abc.Stream, protocol: ServerProtocol) -> None:
    for data in protocol.data_to_send():
        if data:
            await stream.send_all(data)
