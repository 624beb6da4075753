"""A Realtime session for a Python program: `async with open_session(...) as session`. See `docs/library.md`.

What it does is `session_engine`'s work; here are the words for it, and the structured concurrency: all tasks live inside
the `async with`, and what its block raises leaves as it is.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import msgspec
import trio

from bridge.cached_item import CachedItem
from bridge.config import Limits, Realtime
from bridge.errors import ResponseFailed
from bridge.event_stream import Backlog
from bridge.item_cache import ANSWER_AUDIO_BYTES, ItemCache
from bridge.item_changes import Change, ChangeKind
from bridge.message_content import Content, audio_text, content_parts, in_appends
from bridge.realtime_client import ConnectStream, open_realtime
from bridge.session_engine import (
    Json,
    RawEvent,
    SessionEngine,
    Trouble,
    all_tools,
    checked_settings,
    client_event,
    inside,
    new_item_id,
)
from bridge.session_streams import EventStream, filter_of, told_again
from bridge.tools import Tool, ToolRegistry

AnyTool = Tool | Callable[..., object]

# The server takes no commit of less (protocol sheet 2.2).
MIN_COMMIT_MS = 100


_Item = TypeVar("_Item")


class RealtimeSession(SessionEngine):
    """One open session. Every method may be called from any task; a cancelled call leaves the session as it is.

    `conversation` is the cache of items. Methods that send return once the event is on the wire; they raise `ModelLost` (or
    `ModelRejected`, as the server ended it) when the session is over, and `ValueError` for what makes no sense.
    """

    async def update_session(self, **settings: Any) -> None:
        """Change settings; what is not named stays as it is, and tools that were added are never lost.

        `tools` here replaces the declarations given by hand. Returns when the server has acknowledged. Raises
        `ConfigError` for what no server takes, before anything is sent, and `RequestRefused` when this one did not take
        it (then nothing has changed).
        """
        declared = self._declared
        wire = checked_settings(settings)
        if "tools" in wire:
            declared = wire["tools"]
            wire["tools"] = all_tools(self._registry, declared)
        event = self._event("session.update", session=wire)
        await self._ask(self._updates, event)
        self._declared = declared

    async def add_tool(self, tool: AnyTool) -> None:
        """Let the model call a function, or a `Tool`; one of the same name is replaced. Raises `ConfigError` for what can
        be no tool, and as `update_session`."""
        self._registry.add(tool)
        await self.update_session(tools=self._declared)

    async def remove_tool(self, name: str) -> None:
        """Forget a tool that was added, and tell the server. Raises `ConfigError` if there is none, and as
        `update_session`."""
        self._registry.remove(name)
        await self.update_session(tools=self._declared)

    # Saying something ------------------------------------------------------------------------------------------------

    async def send_text(self, text: str, *, role: str = "user", respond: bool = True) -> str:
        """A message of one text, and the wish for a response. Returns the id of the item."""
        return await self.send_content([text], role=role, respond=respond)

    async def send_content(self, content: Iterable[Content], *, role: str = "user", respond: bool = True) -> str:
        """A message of text (str), audio (bytes in the session's input format) and images (`bridge.image`).

        Returns the id of the item; empty if nothing was left to say, then only the response is asked for. A response that
        is wanted while another one is active is asked for when that one ends.
        """
        item_id = ""
        events = []
        if parts := content_parts(content, role):
            item_id = new_item_id()
            item = {"id": item_id, "type": "message", "role": role, "content": parts}
            events.append(self._event("conversation.item.create", item=item))
        await self._say(events, {} if respond else None)
        return item_id

    async def create_response(self, **fields: Any) -> None:
        """Ask for a response; `fields` are those of `response.create` (`instructions`, `tool_choice`, ...).

        Without turn detection the audio appended so far is committed first. While a response is active this waits for its
        end (the call returns at once); `conversation="none"` is asked for now, since it may run beside another.
        """
        if fields.get("conversation") == "none":
            return await self._send(self._event("response.create", response=fields))
        detection = inside(self._settings, "audio", "input").get("turn_detection", {})
        by_hand = not detection or detection.get("type") == "none"
        enough = self._buffered_bytes >= MIN_COMMIT_MS * self.conversation.input_bytes_per_ms
        return await self._say([self._event("input_audio_buffer.commit")] if by_hand and enough else [], fields)

    async def append_audio(self, pcm: bytes | bytearray | memoryview) -> None:
        """The next audio of the speaker, in the session's input format (PCM16 at 24 kHz unless it was set). Any length."""
        for piece in in_appends(pcm):
            await self._send(self._event("input_audio_buffer.append", audio=audio_text(piece)))

    async def commit(self) -> None:
        """End the speaker's turn by hand: what was appended becomes an item. No response is asked for."""
        await self.send("input_audio_buffer.commit")

    async def clear(self) -> None:
        """Forget what was appended and not committed."""
        await self.send("input_audio_buffer.clear")

    async def cancel_response(self, item_id: str | None = None, sample_count: int = 0) -> None:
        """Stop the response that is active or asked for; of the item that was playing keep `sample_count` samples.

        The count is limited to what was received. An item of which nothing was heard is deleted, since the server may
        refuse to truncate it to nothing; one without audio is left as it is. With no response active nothing is cancelled,
        so this can be called at any time. Raises `ValueError`, with nothing sent, for an item that is no answer.
        """
        events = self._truncation(item_id, sample_count) if item_id is not None else []
        self._turns.forget_wishes()
        if self._turns.active:
            events.insert(0, self._event("response.cancel", response_id=self._turns.active))
        # A cancel that overtakes `response.created` does nothing: this one is sent then.
        self._cancel_at_created = self._turns.requested
        await self._send(*events)

    async def truncate_item(self, item_id: str, audio_end_ms: int) -> None:
        """Cut an answer to what was heard of it, as `cancel_response` does, without stopping a response."""
        item = self.conversation.get(item_id)
        await self._send(*self._truncation(item_id, audio_end_ms * (item.samples_per_ms if item is not None else 1)))

    def _truncation(self, item_id: str, sample_count: int) -> list[Json]:
        item = self.conversation.get(item_id)
        if item is None or item.type != "message" or item.role != "assistant":
            raise ValueError(f"{item_id!r} is no message of the assistant in this conversation")
        if sample_count < 0:
            raise ValueError("a sample count is not negative")
        end_ms = min(sample_count // item.samples_per_ms, item.received_ms)
        if item.audio_index is None or not item.received_ms or (item.finished and end_ms == item.received_ms):
            return []
        if end_ms == 0:
            return [self._event("conversation.item.delete", item_id=item_id)]
        place = {"item_id": item_id, "content_index": item.audio_index, "audio_end_ms": end_ms}
        return [self._event("conversation.item.truncate", **place)]

    async def delete_item(self, item_id: str) -> None:
        """Remove an item from the conversation. An unknown one becomes a `Trouble`."""
        await self.send("conversation.item.delete", item_id=item_id)

    async def retrieve_item(self, item_id: str) -> Json:
        """An item as the server has it, with its audio (base64). Raises `RequestRefused` for an unknown one."""
        event = self._event("conversation.item.retrieve", item_id=item_id)
        return dict((await self._ask(self._retrievals, event))["item"])

    async def answer_tool(self, call_id: str, output: object) -> None:
        """The output of a call of a manual tool; what is no text is dumped as JSON.

        When it was the last that its response waits for, the next response is asked for. Raises `ValueError` for a call
        that is unknown or has been answered.
        """
        if not self._turns.is_open(call_id):
            raise ValueError(f"no function call {call_id!r} waits for an output")
        text = output if isinstance(output, str) else msgspec.json.encode(output, enc_hook=str).decode()
        request = self._give_output(call_id, text)
        await self._sent(request)

    async def send(self, event: str | Mapping[str, Any], **fields: Any) -> str:
        """Any client event, as its type and fields or as a whole. Not checked. Returns its `event_id`."""
        whole = dict(event) if isinstance(event, Mapping) else {"type": event}
        whole |= fields
        if not whole.get("type"):
            raise ValueError("an event has a type")
        whole.setdefault("event_id", self._new_event_id())
        await self._send(whole)
        return str(whole["event_id"])

    # Hearing something -----------------------------------------------------------------------------------------------

    async def ask(self, text: str) -> CachedItem:
        """Send a text and wait for the whole answer, tool calls included. Returns its last message, whole or not.

        Raises `ResponseFailed` when no answer came, or the response that was to end the turn failed. Do not use it while
        others ask for responses.
        """
        changes = self.changes(ChangeKind.COMPLETED, ChangeKind.INTERRUPTED, ChangeKind.RESPONSE_DONE)
        await self.send_text(text)
        answer: CachedItem | None = None
        status = ""
        async for change in changes:
            if change.item is not None and change.item.role == "assistant" and not change.item.apart:
                answer = change.item
            elif change.kind is ChangeKind.RESPONSE_DONE:
                status = change.note
                if status == "failed" and self._failure is not None:
                    raise told_again(self._failure)
                if status not in ("completed", "incomplete") or self._turns.idle:
                    break
        if answer is None:
            raise ResponseFailed(f"the model gave no answer: its response is {status}", code=status)
        return answer

    async def next_item(self) -> CachedItem:
        """The next item of the conversation that this method has not returned yet, complete or not. Items of responses
        apart are told by `changes` only."""
        return await self._next(self._appended, lambda _item: True)

    async def next_completed_item(self, *, role: str | None = None) -> CachedItem:
        """The next finished item that this method has not returned yet; with `role`, the next message of that role, and
        what finished before it is passed over.

        Nothing is missed between two calls. Finished is not always whole: see `status`. Raises `ResponseFailed` in the
        place of the item that a failed response did not give.
        """
        item = await self._next(
            self._finished, lambda it: isinstance(it, ResponseFailed) or role is None or it.role == role
        )
        if isinstance(item, ResponseFailed):
            raise item
        return item

    async def _next(self, backlog: Backlog[_Item], matches: Callable[[_Item], bool]) -> _Item:
        await trio.lowlevel.checkpoint()
        while True:
            while (item := backlog.take()) is not None:
                if matches(item):
                    return item
            self._check_open()
            await self._progress.wait()

    def events(self, *words: str) -> EventStream[RawEvent]:
        """Every event of both directions, from now on; `words` filter by type (`event_stream`). No words: all but audio.

        Raises `ValueError` for a word that can match nothing.
        """
        wanted = filter_of(words or None)
        return self._raw.open(lambda entry: wanted.takes(entry.type))

    def changes(self, *kinds: ChangeKind) -> EventStream[Change]:
        """What happens to the conversation, from now on; of these kinds only. Without: all but `IGNORED`."""
        wanted = frozenset(kinds or set(ChangeKind) - {ChangeKind.IGNORED})
        return self._changes.open(lambda change: change.kind in wanted)

    def errors(self) -> EventStream[Trouble]:
        """What goes wrong without ending the session, from now on."""
        return self._troubles.open(lambda _trouble: True)


@asynccontextmanager
async def open_session(
    config: Realtime,
    session: Mapping[str, Any] | None = None,
    *,
    tools: Iterable[AnyTool] = (),
    limits: Limits | None = None,
    answer_audio_bytes: int = ANSWER_AUDIO_BYTES,
    caller_audio_bytes: int = 0,
    connect_stream: ConnectStream | None = None,
) -> AsyncIterator[RealtimeSession]:
    """A configured session for the block, closed in order at its end.

    `session` holds the settings of `session.update` (old flat names are translated, with a warning in the log); its `tools`
    are declarations by hand, which the application answers. `tools` are functions and `Tool`s, which are run. Audio may be
    PCM or G.711. Of `limits`, `model_connect_s`, `model_send_s`, `tool_s` and `websocket_close_s` matter here. The two
    `*_audio_bytes` say how much audio the conversation keeps, of the model and of the speaker.

    Raises `ModelUnreachable`, `ModelRejected`, `ConfigError`. What the block raises leaves as it is. Cancelling from
    outside closes the connection without its closing handshake.
    """
    limits = limits or Limits()
    registry = ToolRegistry(tools)
    wire = checked_settings(session or {})
    declared = wire.get("tools", [])
    wire["tools"] = all_tools(registry, declared)
    update = msgspec.json.encode(client_event("session.update", session=wire))
    failure: BaseException | None = None
    try:
        async with (
            open_realtime(
                config,
                update,
                connect_s=limits.model_connect_s,
                close_s=limits.websocket_close_s,
                connect_stream=connect_stream,
            ) as connection,
            trio.open_nursery() as nursery,
        ):
            cache = ItemCache(answer_audio_bytes=answer_audio_bytes, caller_audio_bytes=caller_audio_bytes)
            opened = RealtimeSession(connection, registry, declared, limits, cache, nursery)
            opened._start()
            try:
                yield opened
            except (Exception, KeyboardInterrupt, SystemExit) as error:
                # Raised at the very end: the nursery would put it into a group, and a cancelled closing swallow it.
                failure = error
            finally:
                opened._end(None)
                nursery.cancel_scope.cancel()
    finally:
        if failure is not None:
            raise failure
