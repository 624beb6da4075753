"""What moves a session: two tasks (one receives, one sends), one for each running tool, and the streams of observers.

The pure parts decide: `item_cache` keeps the conversation, `tool_turns` says when a response may be asked for and which
calls want an answer, `event_stream` who hears of what. What is received is worked off in one synchronous step, so no
observer sees a state that is half old. `realtime_session` is what a program uses.

Nothing here waits for a slow observer, and nothing that a server says ends the session but its end: an error that names one
request fails that request, any other is told to `errors()`.
"""

from __future__ import annotations

import itertools
import logging
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from uuid import uuid4

import msgspec
import trio

from bridge import realtime, realtime_errors
from bridge.cached_item import CachedItem
from bridge.config import Limits
from bridge.errors import ModelError, ModelLost, RequestRefused, ResponseFailed
from bridge.event_stream import Backlog
from bridge.item_cache import ItemCache
from bridge.item_changes import Change, ChangeKind
from bridge.realtime_client import RealtimeConnection
from bridge.session import checked
from bridge.session_streams import Observers, told_again
from bridge.tool_turns import FunctionCall, ToolTurns
from bridge.tools import ToolContext, ToolRegistry

_log = logging.getLogger("bridge.session")

Json = dict[str, Any]

# Of events a slow observer may lag behind: a minute-long answer is about 600. Of items: an hour's conversation.
STREAM_SIZE = 1024
ITEMS_SIZE = 512


@dataclass(frozen=True, slots=True)
class RawEvent:
    """One event as it passed: who said it, when (trio's clock, seconds), and what. Do not change `event`."""

    source: Literal["client", "server"]
    at_s: float
    event: Json

    @property
    def type(self) -> str:
        return str(self.event.get("type", ""))


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something that went wrong without ending the session, and what the protocol's table makes of it.

    `source`: an `error` event, a failed `response`, a `transcription`, or a message that is against the `protocol`.
    `event_id` names the client event at fault, where the server says so; `response_id` the response.
    """

    source: Literal["error", "response", "transcription", "protocol"]
    error: realtime.ServerError
    verdict: realtime_errors.Verdict = realtime_errors.Verdict.BENIGN
    event_id: str = ""
    response_id: str = ""

    def __str__(self) -> str:
        return f"{self.source}: {self.error.text}"


@dataclass(slots=True, eq=False)
class _Request:
    """Events on their way out, or a question that the server answers. `done` once it is settled, by `error` or not."""

    events: list[Json]
    payloads: list[bytes] = field(default_factory=list)
    done: trio.Event = field(default_factory=trio.Event)
    error: ModelError | None = None
    answer: Json = field(default_factory=dict)

    def settle(self, error: ModelError | None = None, answer: Json | None = None) -> None:
        self.error, self.answer = error, answer or {}
        self.done.set()


class SessionEngine:
    """One open session, without its vocabulary. `conversation` is the cache of items."""

    def __init__(
        self,
        connection: RealtimeConnection,
        registry: ToolRegistry,
        declared: list[Json],
        limits: Limits,
        conversation: ItemCache,
        nursery: trio.Nursery,
    ) -> None:
        """For `open_session`."""
        self.conversation = conversation
        self._connection = connection
        self._registry = registry
        self._declared = declared
        self._limits = limits
        self._nursery = nursery
        self._turns = ToolTurns()
        self._settings: Json = {}
        self._ids = itertools.count(1)
        self._outbox: deque[_Request] = deque()
        self._outbox_filled = trio.Event()
        self._updates: deque[_Request] = deque()
        self._retrievals: deque[_Request] = deque()
        self._buffered_bytes = 0
        self._cancel_at_created = False
        self._raw: Observers[RawEvent] = Observers(STREAM_SIZE)
        self._changes: Observers[Change] = Observers(STREAM_SIZE)
        self._troubles: Observers[Trouble] = Observers(STREAM_SIZE)
        self._appended: Backlog[CachedItem] = Backlog(ITEMS_SIZE)
        self._finished: Backlog[CachedItem | ResponseFailed] = Backlog(ITEMS_SIZE)
        self._progress = trio.Event()
        self._ended = trio.Event()
        self._failure: ResponseFailed | None = None
        self._loss: ModelError | None = None
        self._received({"type": "session.updated", "session": connection.session})

    def _start(self) -> None:
        self._nursery.start_soon(self._receive)
        self._nursery.start_soon(self._transmit)

    # The session itself ----------------------------------------------------------------------------------------------

    @property
    def settings(self) -> Mapping[str, Any]:
        """The effective session, as the server last said it."""
        return self._settings

    @property
    def closed(self) -> bool:
        """The session is over: lost, or closed at the end of its `async with`."""
        return self._ended.is_set()

    async def wait_closed(self) -> ModelError | None:
        """Wait for the end; returns why it was lost, None if it was closed by us."""
        await self._ended.wait()
        return self._loss

    # Sending ---------------------------------------------------------------------------------------------------------

    def _event(self, kind: str, **fields: Any) -> Json:
        return client_event(kind, event_id=self._new_event_id(), **fields)

    def _new_event_id(self) -> str:
        return f"client_{next(self._ids)}"

    async def _say(self, events: list[Json], wish: Mapping[str, Any] | None) -> None:
        """Send events and then, if it may be asked for now, the response that is wished for."""
        await trio.lowlevel.checkpoint_if_cancelled()
        self._check_open()
        request = self._queue(events)
        if wish is not None:
            self._turns.want(wish)
            request = self._ask_for_response() or request
        await self._sent(request)

    async def _send(self, *events: Json) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        self._check_open()
        await self._sent(self._queue(list(events)))

    async def _ask(self, questions: deque[_Request], event: Json) -> Json:
        """Send a question and wait for its answer. Raises `RequestRefused`."""
        await trio.lowlevel.checkpoint_if_cancelled()
        self._check_open()
        request, question = self._queue([event]), _Request([event])
        questions.append(question)  # and there it stays if we are cancelled: the answer comes all the same
        try:
            await self._sent(request)
        except ModelError:
            if question in questions:
                questions.remove(question)
            raise
        await self._sent(question)
        return question.answer

    async def _sent(self, request: _Request) -> None:
        await request.done.wait()
        await trio.lowlevel.cancel_shielded_checkpoint()
        if request.error is not None:
            raise told_again(request.error)

    def _queue(self, events: list[Json]) -> _Request:
        # Encoded here, so that what can not be is the mistake of whoever sends it.
        request = _Request(events, [msgspec.json.encode(event) for event in events])
        self._outbox.append(request)
        self._outbox_filled.set()
        return request

    def _ask_for_response(self) -> _Request | None:
        event = self._event("response.create")
        if (fields := self._turns.request(event["event_id"])) is None:
            return None
        return self._queue([event | ({"response": dict(fields)} if fields else {})])

    def _check_open(self) -> None:
        if self._loss is not None:
            raise told_again(self._loss)
        if self.closed:
            raise ModelLost("this session has been closed")

    async def _transmit(self) -> None:
        """Send what is queued until the session ends."""
        while not self.closed:
            if not self._outbox:
                self._outbox_filled = trio.Event()
                await self._outbox_filled.wait()
                continue
            request = self._outbox[0]
            try:
                for event, payload in zip(request.events, request.payloads, strict=True):
                    self._note_sent(event)
                    with trio.fail_after(self._limits.model_send_s):
                        await self._connection.send(payload)
            except ModelError as error:
                if error.code != "dialect" or self.closed:
                    return self._end(error)
                # This server's dialect can not say it, so it was not sent.
                self._outbox.popleft().settle(error)
                continue
            except trio.TooSlowError:
                return self._end(ModelLost(f"the Realtime server took nothing for {self._limits.model_send_s:g} s"))
            if not self.closed:  # else it was settled with all the others
                self._outbox.popleft().settle()
        return None

    def _note_sent(self, event: Json) -> None:
        match event["type"]:  # whatever a program sends by hand
            case "input_audio_buffer.append":
                self._buffered_bytes += len(str(event.get("audio", ""))) * 3 // 4
            case "input_audio_buffer.commit" | "input_audio_buffer.clear":
                self._buffered_bytes = 0
        self.conversation.client_event(event)
        self._turns.client_event(event)
        self._raw.tell(RawEvent("client", trio.current_time(), event))

    # Receiving -------------------------------------------------------------------------------------------------------

    async def _receive(self) -> None:
        """Take what the server sends until the session ends."""
        try:
            while True:
                message = await self._connection.receive()
                try:
                    event = msgspec.json.decode(message)
                except (ValueError, RecursionError):  # msgspec's own errors are the former
                    event = None
                if isinstance(event, dict) and isinstance(event.get("type"), str):
                    self._received(event)
                else:
                    text = f"not an event: {bytes(message[:100])!r}"
                    self._troubles.tell(Trouble("protocol", realtime.ServerError(message=text)))
        except ModelError as error:
            self._end(error)

    def _received(self, event: Json) -> None:
        self._raw.tell(RawEvent("server", trio.current_time(), event))
        changes = self.conversation.server_event(event)
        apart = self._turns.is_apart(str(inside(event, "response").get("id", "")))
        self._turns.server_event(event)
        # A request that was refused begins no response to cancel.
        self._cancel_at_created &= self._turns.requested or event["type"] == "response.created"
        match event["type"]:
            case "session.created" | "session.updated":
                self._settings = inside(event, "session")
                if event["type"] == "session.updated" and self._updates:
                    self._updates.popleft().settle()
            case "response.created" if self._cancel_at_created and self._turns.active:
                self._cancel_at_created = False
                self._queue([self._event("response.cancel", response_id=self._turns.active)])
            case "response.done":
                self._response_done(inside(event, "response"), apart=apart)
            case "conversation.item.retrieved":
                self._retrieved(event)
            case "conversation.item.input_audio_transcription.failed":
                self._troubles.tell(Trouble("transcription", _server_error(event.get("error"))))
            case "input_audio_buffer.committed" | "input_audio_buffer.cleared":
                self._buffered_bytes = 0
            case "error":
                self._error(inside(event, "error"))
        for change in changes:
            self._changed(change)
        for call in self._turns.calls():
            if not self._is_manual(call.name):
                self._nursery.start_soon(self._run_tool, call)
        self._ask_for_response()
        self._wake()

    def _changed(self, change: Change) -> None:
        item = change.item
        if item is None or item.apart:
            pass
        elif change.kind is ChangeKind.APPENDED:
            self._appended.put(item)
        elif change.kind in (ChangeKind.COMPLETED, ChangeKind.INTERRUPTED):
            self._finished.put(item)
        self._changes.tell(change)

    def _response_done(self, response: Json, *, apart: bool) -> None:
        if response.get("status") != "failed":
            return
        details = response.get("status_details")
        # xAI puts a bare string there.
        error = _server_error(details.get("error") if isinstance(details, Mapping) else {"message": details})
        response_id = str(response.get("id", ""))
        if not apart:
            self._failure = ResponseFailed(f"the model's response failed: {error.text}", code=error.word)
            self._finished.put(self._failure)
        self._troubles.tell(Trouble("response", error, realtime_errors.triage(error), response_id=response_id))

    def _retrieved(self, event: Json) -> None:
        item_id = inside(event, "item").get("id")
        asked = [question for question in self._retrievals if question.events[0]["item_id"] == item_id]
        if asked:
            self._retrievals.remove(asked[0])
            asked[0].settle(answer=event)

    def _error(self, body: Json) -> None:
        error, event_id = _server_error(body), str(body.get("event_id") or "")
        verdict = realtime_errors.triage(error)
        refusal = RequestRefused(f"the Realtime server refused: {error.text}", code=error.word)
        for questions in (self._updates, self._retrievals):
            about = [it for it in questions if event_id in ("", it.events[0]["event_id"])]
            about = [it for it in about if event_id or _is_about(body, it.events[0])]
            if about:
                questions.remove(about[0])
                about[0].settle(refusal)
                break
        self._troubles.tell(Trouble("error", error, verdict, event_id))
        if verdict is realtime_errors.Verdict.FATAL:
            self._end(realtime_errors.error_of(error))

    def _end(self, error: ModelError | None) -> None:
        """The session is over: lost with `error`, or closed. The first end counts."""
        if self.closed:
            return
        self._loss = error
        self._ended.set()
        gone = error or ModelLost("this session has been closed")
        for request in (*self._outbox, *self._updates, *self._retrievals):
            request.settle(gone)
        self._outbox.clear()
        self._outbox_filled.set()
        self._raw.end(error)
        self._changes.end(error)
        self._troubles.end(error)
        self._wake()

    def _wake(self) -> None:
        self._progress.set()
        if not self.closed:
            self._progress = trio.Event()

    # Tools -----------------------------------------------------------------------------------------------------------

    def _is_manual(self, name: str) -> bool:
        """A tool that the application answers: declared by hand, or without a handler."""
        declared = any(tool.get("name") == name for tool in self._declared)
        return self._registry.is_manual(name) or (declared and name not in self._registry)

    async def _run_tool(self, call: FunctionCall) -> None:
        context = ToolContext(call_id=call.call_id, tool_call_id=call.call_id)
        output = await self._registry.run(call.name, call.arguments, timeout_s=self._limits.tool_s, context=context)
        if not self.closed and self._turns.is_open(call.call_id):
            self._give_output(call.call_id, output)

    def _give_output(self, call_id: str, output: str) -> _Request:
        item = {"id": new_item_id(), "type": "function_call_output", "call_id": call_id, "output": output}
        request = self._queue([self._event("conversation.item.create", item=item)])
        self._turns.answered(call_id)
        self._ask_for_response()
        return request


def client_event(kind: str, **fields: Any) -> Json:
    """One event, as the wire has it. What a session sends is checked against the official types in every test of it."""
    return {"type": kind, **fields}


def checked_settings(settings: Mapping[str, Any]) -> Json:
    """The `session` of an update, valid and in GA names. Raises `ConfigError`."""
    result = checked(settings, "session")
    for warning in result.warnings:
        _log.warning(warning)
    return result.session


def all_tools(registry: ToolRegistry, declared: list[Json]) -> list[Json]:
    """What the model may call: the declarations by hand, and the tools that were added, which win over them."""
    return [tool for tool in declared if str(tool.get("name")) not in registry] + registry.declarations()


def new_item_id() -> str:
    """Ours, so that what we send and what the server says of it can be told together. At most 32 characters are taken."""
    return f"item_{uuid4().hex[:24]}"


def inside(value: Any, *keys: str) -> Json:
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}


def _server_error(body: object) -> realtime.ServerError:
    try:
        return msgspec.convert(body or {}, realtime.ServerError)
    except msgspec.ValidationError:
        return realtime.ServerError(message=str(body))


def _is_about(error: Mapping[str, Any], event: Mapping[str, Any]) -> bool:
    """Whether an error without an event id is an answer to this event, by what it says (protocol sheet 4)."""
    if event["type"] == "session.update":
        return str(error.get("param") or "").startswith("session") or error.get("code") == "cannot_update_voice"
    by_code = str(error.get("code") or "").startswith("item_retrieve")
    return by_code or str(event["item_id"]) in str(error.get("message") or "")
