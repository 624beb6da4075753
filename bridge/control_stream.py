"""The websockets of the control door: events of running calls to whoever subscribed, and commands from there.

Each client has a bounded queue (`control_messages.StreamQueue`) which calls fill without waiting, a task that writes, and
one that reads and has commands carried out by the `ControlDesk`, one after another. No client can stop a call or another
client. `MOST_CLIENTS` at a time; more are refused with 503.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import msgspec
import trio
from websockets.exceptions import ConnectionClosed, ConnectionClosedOK
from websockets.frames import CloseCode
from websockets.trio.server import Server, ServerConnection
from websockets.typing import Subprotocol

from bridge.bearer import is_token
from bridge.call_events import CallEvent, check_words, data_of, envelope, type_of
from bridge.call_record import CallRecord
from bridge.control_commands import MAX_BODY, Subscribe, Unsubscribe, parsed
from bridge.control_desk import ControlDesk
from bridge.control_door import KINDS, SUBPROTOCOL, OpenStream, refusal, wish_for
from bridge.control_messages import MOST_EVENTS, Asked, MessageError, StreamQueue, answer, asked, stream_event
from bridge.errors import ConfigError
from bridge.http_exchange import Page, json_page
from bridge.http_server import TakeOver
from bridge.live_call import LiveCall
from bridge.session_streams import filter_of
from bridge.websocket_server import HandedOver, serve_websockets

MOST_CLIENTS = 32
# Who has not shown the token yet takes no place of those who have.
MOST_STRANGERS = 16
# For the first message of a client that has shown no token yet.
TOKEN_S = 5.0
# At the end of the process, for all clients together.
CLOSE_S = 3.0

# The subscription to all calls, among those to single ones.
ALL = ""
Told = tuple[str, CallEvent]


class ControlStream:
    """The clients of one process; a `CallWatcher`. `calls` are the running ones, by id."""

    def __init__(self, token: str, desk: ControlDesk, calls: Mapping[str, LiveCall]) -> None:
        self._token = token
        self._desk = desk
        self._calls = calls
        self._handed = HandedOver()
        self._clients: set[_Client] = set()
        self._strangers = 0
        self._begun: set[str] = set()
        self._server: Server | None = None

    async def run(self, task_status: trio.TaskStatus[None]) -> None:
        """Serve until cancelled; `close` first, so that the clients are told."""
        async with trio.open_nursery() as nursery:
            self._server = await nursery.start(self._serve_all)
            task_status.started()

    async def _serve_all(self, task_status: trio.TaskStatus[Server]) -> None:
        await serve_websockets(
            self._serve,
            [self._handed],
            max_message=MAX_BODY,
            select_subprotocol=_subprotocol,
            task_status=task_status,
        )

    async def close(self) -> None:
        """The process ends: tell all clients 1001, within `CLOSE_S`."""
        if self._server is not None:
            with trio.move_on_after(CLOSE_S):
                await self._server.aclose(reason="the bridge is being stopped")

    def open(self, wish: OpenStream) -> TakeOver | Page:
        """How the connection that asked for this goes on."""
        if not wish.trusted and self._strangers + self._handed.waiting >= MOST_STRANGERS:
            return refusal(503, "too many clients without a token are being waited for; send it as a header")
        if len(self._clients) + (self._handed.waiting if wish.trusted else 0) >= MOST_CLIENTS:
            return refusal(503, f"{MOST_CLIENTS} clients have a websocket here already, which is the most")
        if wish.trusted and wish.call_id and (refused := self._desk.missing(wish.call_id)):
            return refused
        return TakeOver(lambda stream, begun: self._handed.take(stream, begun, wish))

    # A call, as a watcher sees it ------------------------------------------------------------------------------------

    def begins(self, call: LiveCall) -> None:
        """Whoever wants events of it gets them from its first one on."""
        self._begun.add(call.call_id)
        for client in self._clients:
            client.follow(call)

    async def ended(self, record: CallRecord) -> None:
        """Nothing more comes of this call. One that never began (its media did not come) has this one event."""
        await trio.lowlevel.checkpoint()
        call_id = record.call_id
        end = None if call_id in self._begun else _end_of(record)
        self._begun.discard(call_id)
        for client in list(self._clients):
            client.call_ended(call_id, end)

    # A client --------------------------------------------------------------------------------------------------------

    async def _serve(self, connection: ServerConnection) -> None:
        wish = HandedOver.context_of(connection)
        assert isinstance(wish, OpenStream)
        client = _Client(wish.call_id)
        try:
            if not wish.trusted and not await self._authenticated(connection):
                await connection.aclose(CloseCode.POLICY_VIOLATION, "the first message must be authenticate")
                return
            if len(self._clients) >= MOST_CLIENTS:
                await connection.aclose(CloseCode.TRY_AGAIN_LATER, f"{MOST_CLIENTS} clients are here already")
                return
            self._clients.add(client)
            if client.only and (refused := self._desk.missing(client.only)):
                await connection.aclose(CloseCode.POLICY_VIOLATION, f"no call {client.only}: {refused.status}")
                return
            client.subscribe(client.only or ALL, wish.words, self._calls)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._write, connection, client, nursery.cancel_scope)
                await self._read(connection, client)
                nursery.cancel_scope.cancel()
        except* ConnectionClosed:
            pass
        finally:
            self._clients.discard(client)
            client.leave()

    async def _authenticated(self, connection: ServerConnection) -> bool:
        self._strangers += 1
        try:
            with trio.move_on_after(TOKEN_S):
                return await self._shows_token(connection)
            return False
        finally:
            self._strangers -= 1

    async def _shows_token(self, connection: ServerConnection) -> bool:
        try:
            wanted = asked(await connection.recv())
        except MessageError:
            return False
        if wanted.name != "authenticate" or not is_token(str(wanted.fields.get("token", "")), self._token):
            return False
        await connection.send(answer(wanted.id, json_page(200, {})), text=True)
        return True

    async def _write(self, connection: ServerConnection, client: _Client, everything: trio.CancelScope) -> None:
        while True:
            while (entry := client.queue.take()) is not None:
                if missed := client.queue.take_missed():
                    await connection.send(stream_event("missed", time.time(), {"count": missed}), text=True)
                message = entry if isinstance(entry, bytes) else msgspec.json.encode(envelope(*entry))
                await connection.send(message, text=True)
                client.wake()
            if client.over:
                break
            await client.changed.wait()
        everything.cancel()

    async def _read(self, connection: ServerConnection, client: _Client) -> None:
        while True:
            try:
                message = await connection.recv()
            except ConnectionClosedOK:
                return
            while client.queue.full_of_answers:
                await client.changed.wait()
            try:
                wanted = asked(message)
            except MessageError as error:
                client.answer(answer(error.id, refusal(400, str(error))))
                continue
            client.answer(answer(wanted.id, await self._carry_out(wanted, client)))

    async def _carry_out(self, wanted: Asked, client: _Client) -> Page:
        try:
            match wanted.name:
                case "subscribe":
                    command = parsed(wanted.fields, Subscribe)
                    assert isinstance(command, Subscribe)
                    if wanted.call_id and (refused := self._desk.missing(wanted.call_id)):
                        return refused
                    client.subscribe(wanted.call_id, command.events, self._calls)
                    return json_page(200, {})
                case "unsubscribe":
                    parsed(wanted.fields, Unsubscribe)
                    if wanted.call_id and self._desk.missing(wanted.call_id):
                        return json_page(200, {})  # nothing comes of it anyway, and nothing is to be remembered
                    client.unsubscribe(wanted.call_id, self._calls)
                    return json_page(200, {})
                case "authenticate":
                    return json_page(200, {})  # it is already
                case name if name in KINDS:
                    return await self._desk.carry_out(wish_for(name, wanted.fields, wanted.call_id or client.only))
            known = ", ".join(sorted([*KINDS, "subscribe", "unsubscribe"]))
            return refusal(404, f"there is no command {wanted.name!r}; there are {known}")
        except (ConfigError, ValueError) as error:
            return refusal(400, str(error))


class _Client:
    """One client: what it wants to hear, and what waits for it. `only`: the call whose stream it is. `over`: nothing more
    comes."""

    def __init__(self, only: str) -> None:
        self.only = only
        self.over = False
        self.queue: StreamQueue[Told] = StreamQueue(MOST_EVENTS)
        self.changed = trio.Event()
        self._words: dict[str, list[str] | None] = {}
        self._stops: dict[str, Callable[[], None]] = {}

    def answer(self, message: bytes) -> None:
        self.queue.put_answer(message)
        self.wake()

    def subscribe(self, call_id: str, words: list[str] | None, calls: Mapping[str, LiveCall]) -> None:
        """Want these events of one call, or of `ALL`. Raises `ValueError` for words that make no filter."""
        check_words(words or ())
        filter_of(words)
        self._words[call_id] = words
        self._follow_again(call_id, calls)

    def unsubscribe(self, call_id: str, calls: Mapping[str, LiveCall]) -> None:
        """Want them no more: of one call, or of those without a subscription of their own."""
        self._words[call_id] = []
        self._follow_again(call_id, calls)

    def _follow_again(self, call_id: str, calls: Mapping[str, LiveCall]) -> None:
        for call in calls.values():
            if call_id in (ALL, call.call_id):
                self.follow(call)

    def follow(self, call: LiveCall) -> None:
        """Hear of this call what is wanted of it."""
        if stop := self._stops.pop(call.call_id, None):
            stop()
        words = self._words.get(call.call_id, self._words.get(ALL, []))
        if words is None or words:
            self._stops[call.call_id] = call.listen(words, lambda event: self._heard(call.call_id, event))

    def call_ended(self, call_id: str, end: CallEvent | None) -> None:
        """Nothing comes of this call any more, but for its end where that is given."""
        if end is not None and filter_of(self._words.get(call_id, self._words.get(ALL, []))).takes(end.type):
            self.queue.put_event((call_id, end))
        self._words.pop(call_id, None)
        self._stops.pop(call_id, None)
        if call_id == self.only:
            self.over = True
        self.wake()

    def leave(self) -> None:
        """The client is gone."""
        for stop in self._stops.values():
            stop()
        self._stops.clear()

    def wake(self) -> None:
        self.changed.set()
        self.changed = trio.Event()

    def _heard(self, call_id: str, event: CallEvent) -> None:
        self.queue.put_event((call_id, event))
        self.wake()


def _end_of(record: CallRecord) -> CallEvent:
    end = record.end_event()
    return CallEvent("call", trio.current_time(), type_of(end), data_of(end), time.time())


def _subprotocol(connection: ServerConnection, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    """Ours, where it is offered; never the one that holds the token."""
    return Subprotocol(SUBPROTOCOL) if SUBPROTOCOL in offered else None
