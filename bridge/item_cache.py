"""The conversation as a client sees it: items in the server's order, kept up to date by the events of both directions.

`server_event` takes every event that was received and `client_event` every event that was sent, as dicts; both return
what happened, in order. Nothing here raises for what a server sends: an unknown item, a second `added`, a delta that
comes too late or an event that makes no sense is reported as `IGNORED` with a note, since each of these is an ordinary
race (protocol sheet 3) and no reason to end a session. Events of no concern to items return nothing.

Rules worth knowing:

* Order is `previous_item_id`'s. Null means the end, since some servers never send it; only an item that *we* created at
  the root goes to the start.
* An item is finished once: `COMPLETED`, or `INTERRUPTED` when it ended incomplete. A waiter for either never hangs.
* A transcript may come before its item, after the answer to it, or in the order opposite to the turns: it is held, and
  told when its item is there.
* After an interruption no more audio of that response is taken (deltas in flight reappear otherwise), and nothing grows
  back on an item that was truncated.
* Audio is bounded (`cached_item.AudioStore`). Callers' audio is not kept unless asked for.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

from bridge.cached_item import AudioStore, CachedItem, ItemStatus
from bridge.caller_audio import CallerAudio
from bridge.event_fields import Event, bytes_per_ms, decoded, index, mapping, word
from bridge.item_changes import Change, ChangeKind, Delta

ANSWER_AUDIO_BYTES = 16 * 2**20  # 349 s of PCM at 24 kHz
# What waits for an item that never comes must not pile up: a session has a handful of turns under way.
_HELD = 64


class ItemCache:
    """The items of one session. Iterate over it, or ask by id: `cache.get(item_id)`."""

    def __init__(self, *, answer_audio_bytes: int = ANSWER_AUDIO_BYTES, caller_audio_bytes: int = 0) -> None:
        """How much audio to keep, of the model's items and of the caller's; 0 keeps none."""
        self._changes: list[Change] = []
        self._order: list[str] = []
        self._items: dict[str, CachedItem] = {}
        # Known from `response.output_item.added`, not yet in the order.
        self._announced: OrderedDict[str, CachedItem] = OrderedDict()
        self._answers = AudioStore(answer_audio_bytes)
        self._caller = CallerAudio(caller_audio_bytes)
        self._early: OrderedDict[str, list[Event]] = OrderedDict()
        self._provisional: set[str] = set()  # in the order by their first delta, not by the conversation's event
        self._ours: OrderedDict[str, bool] = OrderedDict()  # items that we created; True: at the root
        self._apart: set[str] = set()
        self._responding: str = ""
        self._cut: OrderedDict[str, None] = OrderedDict()  # responses of which no more audio is taken
        self._interrupts = True
        self._session_bytes_per_ms = 48
        self._response_bytes_per_ms: OrderedDict[str, int] = OrderedDict()
        self._on: Mapping[str, Callable[[Event], None]] = {
            "session.created": self._session,
            "session.updated": self._session,
            "conversation.item.added": self._added,
            "conversation.item.created": self._added,
            "conversation.item.done": self._done,
            "conversation.item.retrieved": self._shown,
            "conversation.item.truncated": self._truncated,
            "conversation.item.deleted": self._deleted,
            "conversation.item.input_audio_transcription.delta": self._heard,
            "conversation.item.input_audio_transcription.updated": self._heard,
            "conversation.item.input_audio_transcription.completed": self._heard,
            "conversation.item.input_audio_transcription.failed": self._heard,
            "input_audio_buffer.speech_started": self._speech_started,
            "input_audio_buffer.speech_stopped": self._speech_stopped,
            "input_audio_buffer.committed": self._committed,
            "input_audio_buffer.cleared": self._cleared,
            "response.created": self._response_created,
            "response.done": self._response_done,
            "response.output_item.added": self._output_item_added,
            "response.output_item.done": self._done,
            "response.content_part.added": self._part,
            "response.content_part.done": self._part,
            "response.output_audio.delta": self._audio_delta,
            "response.output_audio_transcript.delta": self._text_delta,
            "response.output_audio_transcript.done": self._text_done,
            "response.output_text.delta": self._text_delta,
            "response.output_text.done": self._text_done,
            "response.function_call_arguments.delta": self._arguments,
            "response.function_call_arguments.done": self._arguments,
            "response.mcp_call_arguments.delta": self._arguments,
            "response.mcp_call_arguments.done": self._arguments,
        }

    # Looking ---------------------------------------------------------------------------------------------------------

    @property
    def items(self) -> list[CachedItem]:
        """The conversation, in order."""
        return [self._items[item_id] for item_id in self._order]

    def get(self, item_id: str) -> CachedItem | None:
        """The item of this id, in the conversation or apart from it."""
        return self._items.get(item_id)

    def __iter__(self) -> Iterator[CachedItem]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self._order)

    @property
    def input_bytes_per_ms(self) -> int:
        """Of the audio that is appended."""
        return self._caller.bytes_per_ms

    # Events ----------------------------------------------------------------------------------------------------------

    def server_event(self, event: Event) -> list[Change]:
        """One event of the server. Never raises."""
        handler = self._on.get(word(event, "type"))
        if handler is not None:
            handler(event)
        changes, self._changes = self._changes, []
        return changes

    def client_event(self, event: Event) -> list[Change]:
        """One event of ours, when it is sent: the server does not repeat audio, nor where we wanted an item."""
        match event.get("type"):
            case "input_audio_buffer.append":
                if self._caller.limit_bytes:
                    self._caller.append(decoded(event.get("audio")))
            case "conversation.item.create":
                self._created_here(event)
            case "response.cancel":
                self._cut_off(word(event, "response_id") or self._responding)
        return []

    # Items come and go -----------------------------------------------------------------------------------------------

    def _added(self, event: Event) -> None:
        wire = event.get("item")
        item_id = word(wire, "id") if isinstance(wire, Mapping) else ""
        if not item_id or not isinstance(wire, Mapping):
            self._tell(ChangeKind.IGNORED, note=f"{event['type']} without an item")
            return
        if item_id in self._provisional:
            self._provisional.discard(item_id)
            self._order.remove(item_id)
        elif item_id in self._order:
            self._items[item_id].show(wire)
            self._tell(ChangeKind.IGNORED, item_id, self._items[item_id], note="added a second time")
            return
        item = self._items.get(item_id) or self._announced.pop(item_id, None) or self._new(item_id)
        known = item_id in self._items
        item.show(wire)
        item.apart = False
        self._order.insert(self._place(item_id, event.get("previous_item_id")), item_id)
        if not known:
            self._appear(item)
        # An answer is shown as completed by some servers before its first delta; one that we wrote has none.
        generated = (item.role == "assistant" or item.type == "function_call") and item_id not in self._ours
        if wire.get("status") == "completed" and not generated:
            self._finish(item, ItemStatus.COMPLETED)

    def _output_item_added(self, event: Event) -> None:
        wire = event.get("item")
        item_id = word(wire, "id") if isinstance(wire, Mapping) else ""
        if item_id and isinstance(wire, Mapping):
            # The conversation's own event follows, with the item's place. If it does not, the first delta is enough.
            item = self._items.get(item_id) or self._announced.get(item_id)
            if item is None:
                item = self._new(item_id)
                item.apart = word(event, "response_id") in self._apart
                _hold(self._announced, item_id, item)
            item.show(wire)
            item.response_id = word(event, "response_id")

    def _appear(self, item: CachedItem) -> None:
        self._items[item.id] = item
        self._tell(ChangeKind.APPENDED, item.id, item)
        for early in self._early.pop(item.id, ()):
            self._heard(early)

    def _place(self, item_id: str, previous: object) -> int:
        if previous == "root" or (previous is None and self._ours.get(item_id)):
            return 0
        return self._order.index(previous) + 1 if previous in self._order else len(self._order)

    def _new(self, item_id: str) -> CachedItem:
        ours = self._caller.store.get(item_id)
        return CachedItem(item_id, _store=self._caller.store if ours else self._answers)

    def _done(self, event: Event, *, response_status: str = "completed") -> None:
        wire = event.get("item")
        if not isinstance(wire, Mapping) or (item := self._known(event, word(wire, "id"))) is None:
            return
        item.show(wire)
        item.response_id = item.response_id or word(event, "response_id")
        # Without a status, or with "in_progress" as a clone's slip, it ended as its response did.
        status = wire.get("status")
        complete = status == "completed" or (status != "incomplete" and response_status == "completed")
        self._finish(item, ItemStatus.COMPLETED if complete else ItemStatus.INCOMPLETE)

    def _shown(self, event: Event) -> None:
        wire = event.get("item")
        if isinstance(wire, Mapping) and (item := self._known(event, word(wire, "id"))) is not None:
            item.show(wire)

    def _finish(self, item: CachedItem, status: ItemStatus) -> None:
        if item.finished:
            return
        item.status = status
        kind = ChangeKind.COMPLETED if status is ItemStatus.COMPLETED else ChangeKind.INTERRUPTED
        self._tell(kind, item.id, item)

    def _truncated(self, event: Event) -> None:
        if (item := self._known(event)) is None:
            return
        end_ms = event.get("audio_end_ms")
        if not isinstance(end_ms, int) or end_ms < 0:
            self._tell(ChangeKind.IGNORED, item.id, item, note=f"truncated at {end_ms!r}")
            return
        item.truncate(end_ms)
        self._tell(ChangeKind.TRUNCATED, item.id, item)

    def _deleted(self, event: Event) -> None:
        if (item := self._known(event)) is not None:
            self._forget(item)
            self._tell(ChangeKind.DELETED, item.id, item)

    def _forget(self, item: CachedItem) -> None:
        del self._items[item.id]
        if item.id in self._order:
            self._order.remove(item.id)
        self._provisional.discard(item.id)
        self._answers.drop(item.id)
        self._caller.store.drop(item.id)

    # The model's side ------------------------------------------------------------------------------------------------

    def _response_created(self, event: Event) -> None:
        response = mapping(event.get("response"))
        response_id = word(response, "id")
        # Null, not absent: a response outside the conversation, whose items never get there (section 3.9).
        if "conversation_id" in response and response["conversation_id"] is None:
            self._apart.add(response_id)
        else:
            self._responding = response_id
        # A response may have another format than the session, which may change while it goes on.
        output = mapping(mapping(response.get("audio")).get("output"))
        _hold(
            self._response_bytes_per_ms,
            response_id,
            bytes_per_ms(output["format"]) if "format" in output else self._session_bytes_per_ms,
        )
        self._tell(ChangeKind.RESPONSE_STARTED, response_id=response_id)

    def _response_done(self, event: Event) -> None:
        response = mapping(event.get("response"))
        response_id, status = word(response, "id"), word(response, "status")
        output = response.get("output")
        for wire in output if isinstance(output, list) else ():
            item_id = word(wire, "id") if isinstance(wire, Mapping) else ""
            if item_id in self._items or item_id in self._announced:
                self._done(
                    {"type": "response.done", "response_id": response_id, "item": wire}, response_status=status
                )
        for item in [it for it in self._items.values() if it.response_id == response_id]:
            complete = status == "completed"
            self._finish(item, ItemStatus.COMPLETED if complete else ItemStatus.INCOMPLETE)
        if status != "completed":
            self._cut_off(response_id)
        self._tell(ChangeKind.RESPONSE_DONE, note=status, response_id=response_id)
        self._responding = "" if self._responding == response_id else self._responding
        if response_id in self._apart:
            self._apart.discard(response_id)
            for item in [it for it in self._items.values() if it.apart and it.response_id == response_id]:
                self._forget(item)

    def _part(self, event: Event) -> None:
        if (item := self._open(event)) is not None:
            item.show_part(index(event), mapping(event.get("part")))

    def _audio_delta(self, event: Event) -> None:
        item = self._open(event)
        if item is None:
            return
        if word(event, "response_id") in self._cut:
            self._tell(ChangeKind.IGNORED, item.id, item, note="audio after the interruption")
        elif data := decoded(event.get("delta")):
            if not item.received_bytes:
                of_response = self._response_bytes_per_ms.get(word(event, "response_id"))
                item.bytes_per_ms = of_response or self._session_bytes_per_ms
            item.add_audio(index(event), data)
            self._tell(ChangeKind.UPDATED, item.id, item, Delta(audio=data))

    def _text_delta(self, event: Event) -> None:
        item, text = self._open(event), word(event, "delta")
        if item is not None and text:
            written = event["type"] == "response.output_text.delta"
            item.add_text(index(event), "text" if written else "audio", text)
            self._tell(ChangeKind.UPDATED, item.id, item, Delta(text=text) if written else Delta(transcript=text))

    def _text_done(self, event: Event) -> None:
        if (item := self._open(event)) is None:
            return
        if event["type"] == "response.output_text.done":
            item.set_text(index(event), "text", word(event, "text"))
        else:
            item.set_text(index(event), "audio", word(event, "transcript"))
            self._tell(ChangeKind.TRANSCRIPT, item.id, item)

    def _arguments(self, event: Event) -> None:
        if (item := self._known(event)) is None:
            return
        if event["type"].endswith(".done"):
            item.arguments = word(event, "arguments") or item.arguments
        elif delta := word(event, "delta"):
            item.arguments += delta
            self._tell(ChangeKind.UPDATED, item.id, item, Delta(arguments=delta))

    def _cut_off(self, response_id: str) -> None:
        if response_id:
            _hold(self._cut, response_id, None)

    # The caller's side -----------------------------------------------------------------------------------------------

    def _heard(self, event: Event) -> None:
        """A transcript of the caller: `delta` adds, `updated` (xAI) and `completed` replace."""
        item_id = word(event, "item_id")
        item = self._items.get(item_id)
        if item is None:
            if item_id:
                _hold(self._early, item_id, [*self._early.get(item_id, ()), event][-_HELD:])
            note = "held until its item comes" if item_id else f"{event['type']} without an item"
            self._tell(ChangeKind.IGNORED, item_id, note=note)
            return
        place, kind = index(event), event["type"].rpartition(".")[2]
        if kind == "failed":
            error = mapping(event.get("error"))
            self._tell(ChangeKind.TRANSCRIPT_FAILED, item.id, item, note=word(error, "message"))
        elif kind == "delta":
            if delta := word(event, "delta"):
                item.add_text(place, "audio", delta)
                self._tell(ChangeKind.UPDATED, item.id, item, Delta(transcript=delta))
        else:
            item.set_text(place, "audio", word(event, "transcript"))
            # What `updated` replaces is not told as a delta: it may have changed in the middle.
            self._tell(ChangeKind.TRANSCRIPT if kind == "completed" else ChangeKind.UPDATED, item.id, item)

    def _speech_started(self, event: Event) -> None:
        self._caller.started(word(event, "item_id"), event.get("audio_start_ms"))
        if self._interrupts:
            self._cut_off(self._responding)
        self._tell(ChangeKind.SPEECH_STARTED, word(event, "item_id"))

    def _speech_stopped(self, event: Event) -> None:
        self._caller.stopped(word(event, "item_id"), event.get("audio_end_ms"))
        self._tell(ChangeKind.SPEECH_STOPPED, word(event, "item_id"))

    def _committed(self, event: Event) -> None:
        self._caller.committed(word(event, "item_id"))

    def _cleared(self, _event: Event) -> None:
        self._caller.cleared()

    # Small things ----------------------------------------------------------------------------------------------------

    def _session(self, event: Event) -> None:
        audio = mapping(mapping(event.get("session")).get("audio"))
        told = mapping(audio.get("input"))
        self._caller.bytes_per_ms = bytes_per_ms(told.get("format"))
        self._session_bytes_per_ms = bytes_per_ms(mapping(audio.get("output")).get("format"))
        detection = told.get("turn_detection", {})
        self._interrupts = isinstance(detection, Mapping) and detection.get("interrupt_response") is not False

    def _created_here(self, event: Event) -> None:
        item = mapping(event.get("item"))
        if not (item_id := word(item, "id")):
            return
        _hold(self._ours, item_id, event.get("previous_item_id") == "root")
        content = item.get("content")
        for part in content if isinstance(content, list) else ():
            if isinstance(part, Mapping) and part.get("type") == "input_audio":
                self._caller.store.extend(item_id, decoded(part.get("audio")))

    def _known(self, event: Event, item_id: str = "") -> CachedItem | None:
        """The item that the event is about. One that was only announced appears now; an unknown one is reported."""
        item_id = item_id or word(event, "item_id")
        if (item := self._items.get(item_id)) is not None:
            return item
        if (item := self._announced.pop(item_id, None)) is None:
            self._tell(ChangeKind.IGNORED, item_id, note=f"{event['type']} for an unknown item")
            return None
        if not item.apart:
            self._order.append(item_id)
            self._provisional.add(item_id)
        self._appear(item)
        return item

    def _open(self, event: Event) -> CachedItem | None:
        """As `_known`, and what comes after a truncation is reported and dropped."""
        item = self._known(event)
        if item is None or item.truncated_ms is None:
            return item
        self._tell(ChangeKind.IGNORED, item.id, item, note=f"{event['type']} after the truncation")
        return None

    def _tell(
        self,
        kind: ChangeKind,
        item_id: str = "",
        item: CachedItem | None = None,
        delta: Delta | None = None,
        *,
        note: str = "",
        response_id: str = "",
    ) -> None:
        self._changes.append(Change(kind, item_id, item, delta, note, response_id))


_Value = TypeVar("_Value")


def _hold(held: OrderedDict[str, _Value], key: str, value: _Value) -> None:
    held[key] = value
    while len(held) > _HELD:
        held.popitem(last=False)
