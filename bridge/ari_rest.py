"""ARI requests on the event websocket ("REST over WebSocket"), and what answers are, whichever way they come.

A request is matched to its answer by `request_id`; any number may be in flight, each has its own time limit, none waits
for another on our side. Asterisk works them off in order, and those that open a connection hold up what follows: an
external media host that does not answer costs everybody up to 2 s (res_audiosocket.c, MAX_CONNECT_TIMEOUT_MSEC).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import trio

from bridge.errors import ControlRefused, ControlUnavailable

# Requests not yet answered by HTTP, or not yet written to the websocket. Full: Asterisk has taken nothing for a long time;
# the request fails instead of waiting.
MOST_WAITING = 256


class Reply(msgspec.Struct, frozen=True):
    """Asterisk's answer: an HTTP status, its phrase, and JSON."""

    status: int
    phrase: str
    body: str | bytes = ""


class _Answer:
    """A request in flight: `arrived` is set with either the reply or the loss of the connection."""

    __slots__ = ("arrived", "reply")

    def __init__(self) -> None:
        self.arrived = trio.Event()
        self.reply: Reply | None = None


class WebsocketRequests:
    """Requests on one websocket after the other; `place` is for messages."""

    def __init__(self, place: str) -> None:
        self._place = place
        self._outbox: trio.MemorySendChannel[bytes] | None = None
        self._answers: dict[str, _Answer] = {}
        self._last_request = 0

    def connected(self) -> trio.MemoryReceiveChannel[bytes]:
        """A connection stands: what it has to write."""
        self._outbox, requests = trio.open_memory_channel[bytes](MOST_WAITING)
        return requests

    def lost(self) -> None:
        """The connection is gone; all that wait for an answer fail."""
        self._outbox = None
        for answer in self._answers.values():
            answer.arrived.set()

    def answered(self, request_id: str, reply: Reply) -> None:
        """An answer has come. Too late ones are dropped."""
        if answer := self._answers.get(request_id):
            answer.reply = reply
            answer.arrived.set()

    async def request(
        self, method: str, uri: str, query: Mapping[str, str], body: Mapping[str, Any] | None, limit_s: float
    ) -> Reply:
        """Send one request. Raises `ControlUnavailable`: no connection, lost meanwhile, or no answer in time.

        Cancelled, it may have been carried out or not.
        """
        if self._outbox is None:
            raise ControlUnavailable(f"no ARI connection to {self._place}")
        self._last_request += 1
        request_id = str(self._last_request)
        message: dict[str, Any] = {"type": "RESTRequest", "request_id": request_id, "method": method, "uri": uri}
        if query:
            message["query_strings"] = [{"name": name, "value": value} for name, value in query.items()]
        if body is not None:
            message |= {"content_type": "application/json", "message_body": msgspec.json.encode(body).decode()}
        answer = self._answers[request_id] = _Answer()
        try:
            self._outbox.send_nowait(msgspec.json.encode(message))
            with trio.fail_after(limit_s):
                await answer.arrived.wait()
        except trio.WouldBlock:
            raise ControlUnavailable(
                f"ARI: {MOST_WAITING} requests wait to be sent; not adding {method} {uri}"
            ) from None
        except trio.TooSlowError:
            raise ControlUnavailable(f"ARI: no answer to {method} {uri} within {limit_s:g} s") from None
        finally:
            del self._answers[request_id]
        if answer.reply is None:
            raise ControlUnavailable(f"ARI connection to {self._place} lost before the answer to {method} {uri}")
        return answer.reply


def result(reply: Reply, what: str) -> Any:
    """The decoded body of an answer, None where there is none. Raises `ControlRefused` for an error status."""
    try:
        body = msgspec.json.decode(reply.body) if reply.body else None
    except msgspec.DecodeError:
        body = None
    if 200 <= reply.status < 300:
        return body
    words = body.get("message") if isinstance(body, dict) else None
    raise ControlRefused(f"Asterisk refused {what}: {reply.status} {words or reply.phrase}", status=reply.status)
