"""The model's side of one call: one session after another, each with its sending and its receiving.

A session is lost by itself, dropped by the conversation, or exchanged for a successor that was opened beside it. Which
of these is to be, and what the next session must be told, the conversation decides (`takeover`); here it is carried out.

A session is held in a nursery that the end of the call does not cancel: its closing handshake is polite, and bounded by
`limits.websocket_close_s`.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import NoReturn

import trio

from bridge.config import Limits, Realtime
from bridge.dialogue import Command, Dialogue, Notice
from bridge.ending import EndReason, reason_for
from bridge.errors import ModelError
from bridge.realtime_client import ConnectStream, RealtimeConnection, open_realtime
from bridge.uplink import Uplink

Loss = tuple[EndReason, str, str | None]


class ModelSessions:
    """The sessions of one call. `apply` carries out what the conversation says; `saw` is shown every message that came.

    `listening`: a session takes the caller's audio now.
    """

    def __init__(
        self,
        config: Realtime,
        limits: Limits,
        conversation: Dialogue,
        uplink: Uplink,
        apply: Callable[[list[Command]], None],
        saw: Callable[[bytes], None],
        connect_stream: ConnectStream | None,
    ) -> None:
        self._config = config
        self._limits = limits
        self._conversation = conversation
        self._uplink = uplink
        self._apply = apply
        self._saw = saw
        self._connect_stream = connect_stream
        self._connections: list[RealtimeConnection] = []
        self._scope = trio.CancelScope()
        self._successor: RealtimeConnection | None = None
        self._loss: Loss | None = None
        self._reopen = trio.Event()
        self.listening = self._stands = False

    async def run(self, holding: trio.Nursery, first: Callable[[], Awaitable[None]]) -> NoReturn:
        """Serve until cancelled. `holding` keeps the sessions open; `first` is awaited once the first one stands.

        Raises `ModelError` when no first session can be had; a later loss is the conversation's to judge.
        """
        self._holding = holding
        connection = await self._open(self._limits.model_connect_s)
        self._connected(connection)
        await first()
        self.listening = True
        self._apply(self._conversation.media_ready(trio.current_time()))
        while True:
            await self._serve(connection)
            connection.release()
            if self._loss is not None:
                connection = await self._another(*self._loss)
            elif self._successor is not None:
                connection = self._successor
            self._connected(connection)
            self.listening = True

    # What the conversation wants -------------------------------------------------------------------------------------

    def drop(self, reason: EndReason, detail: str, code: str | None = None) -> None:
        """The session is over; the first reason counts."""
        if self._loss is None:
            self._loss = reason, detail, code
        self._scope.cancel()

    def swap(self) -> None:
        """Change over to the successor."""
        self._scope.cancel()

    def reopen(self) -> None:
        """After a loss: another session is wanted."""
        self._reopen.set()

    async def open_successor(self) -> None:
        """Another session beside the present one, for the time after its end."""
        beside = self._scope
        try:
            connection = await self._open(self._limits.reconnect_s)
        except ModelError as error:
            self._apply(self._conversation.successor_failed(str(error), trio.current_time()))
            return
        if self._scope is not beside or self._loss is not None:
            connection.release()  # too late: the session was lost meanwhile, and is being replaced
            return
        self._successor = connection
        self._apply(self._conversation.successor_ready(trio.current_time()))

    def check(self, now: float) -> None:
        """Called a few times a second: with a dead network path a write waits for ever, and websockets' ping behind it."""
        if now - self._uplink.stuck_since >= self._limits.model_send_s:
            self.drop(EndReason.MODEL_LOST, f"the model's side has taken nothing for {self._limits.model_send_s:g} s")

    def release(self) -> None:
        """The call is over: let go of every session. Synchronous, idempotent."""
        if self._stands:
            self._stands = False
            self._apply([Notice("session_closed", {"detail": "the call is over"})])
        for connection in self._connections:
            connection.release()

    # One session -----------------------------------------------------------------------------------------------------

    def _connected(self, connection: RealtimeConnection) -> None:
        """A session stands. What was still meant for the one before is void: the conversation says it anew."""
        self._successor = self._loss = None
        self._stands = True
        self._scope = trio.CancelScope()
        self._uplink.clear()
        self._apply(self._conversation.connected(trio.current_time(), self._lifetime_s(connection)))

    async def _serve(self, connection: RealtimeConnection) -> None:
        """Carry one session until it is lost (`_loss` says why) or exchanged for its successor (`_loss` is None)."""
        with self._scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._transmit, connection)
                nursery.start_soon(self._listen, connection)

    async def _transmit(self, connection: RealtimeConnection) -> None:
        try:
            await self._uplink.transmit(connection)
        except ModelError as error:
            self.drop(*reason_for(error))

    async def _listen(self, connection: RealtimeConnection) -> None:
        try:
            while True:
                message = await connection.receive()
                self._saw(message)
                self._apply(self._conversation.model_message(message, trio.current_time()))
        except ModelError as error:
            self.drop(*reason_for(error))

    async def _another(self, reason: EndReason, detail: str, code: str | None) -> RealtimeConnection:
        """After a loss: the successor if it stands, else a new session, as soon as one is wanted. Where none is to be had
        the call is going to end: waits for that."""
        self.listening = self._stands = False
        self._reopen = trio.Event()
        self._uplink.clear()
        self._apply(self._conversation.session_lost(reason, detail, code, trio.current_time()))
        while True:
            await self._reopen.wait()
            if self._successor is not None:
                return self._successor
            try:
                return await self._open(self._limits.reconnect_s)
            except ModelError as error:
                self._reopen = trio.Event()
                told = f"{detail}; no other session could be opened: {error}"
                self._apply(self._conversation.give_up(reason, told, code or error.code, trio.current_time()))

    async def _open(self, connect_s: float) -> RealtimeConnection:
        try:
            connection: RealtimeConnection = await self._holding.start(self._hold, connect_s)
        except ModelError as error:
            reason, detail, code = reason_for(error)
            self._apply([Notice("session_connect_failed", {"reason": reason.value, "detail": detail, "code": code})])
            raise
        self._connections.append(connection)
        self._apply([Notice("session_connected", {"sessions": len(self._connections)})])
        return connection

    async def _hold(self, connect_s: float, *, task_status: trio.TaskStatus[RealtimeConnection]) -> None:
        """Keep one session open until it is released. Before `started` the end of the call cancels this."""
        async with open_realtime(
            self._config,
            self._conversation.session_update(),
            connect_s=connect_s,
            try_s=self._limits.model_connect_s,
            close_s=self._limits.websocket_close_s,
            connect_stream=self._connect_stream,
        ) as connection:
            task_status.started(connection)
            await connection.released.wait()

    def _lifetime_s(self, connection: RealtimeConnection) -> float | None:
        """How long this session lasts, as the server says or as is known of it."""
        if connection.expires_at is not None:
            return connection.expires_at - time.time()
        return self._config.session_max_s or None
