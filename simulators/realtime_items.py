"""The conversation as the server keeps it: items in order, and what clients may do to them (sections 2.2, 2.3, 3.6)."""

from __future__ import annotations

import base64
import copy
from collections.abc import Callable

from simulators.model_script import BYTES_PER_MS, Item
from simulators.realtime_schema import Json, Refusal
from simulators.wire_audio import Decoder


class Items:
    """One conversation. `emit` takes server events without `event_id`; methods raise `Refusal` as the server refuses."""

    def __init__(self, emit: Callable[[Json], None], new_id: Callable[[str], str]) -> None:
        self.all: list[Item] = []
        self._emit = emit
        self._new_id = new_id

    @property
    def last_id(self) -> str | None:
        """The newest item's id."""
        return self.all[-1].id if self.all else None

    def append_silently(self, item: Item) -> str | None:
        """Put an item at the end; its response tells of it. Returns the id of the item before."""
        before = self.last_id
        self.all.append(item)
        return before

    def add(self, item: Item, at: int | None = None) -> None:
        """Put `item` at an index (default: the end) and tell: added, done."""
        at = len(self.all) if at is None else at
        before = self.all[at - 1].id if at else None
        self.all.insert(at, item)
        for kind in ("added", "done"):
            wire = copy.deepcopy({"id": item.id, **item.wire})
            self._emit({"type": f"conversation.item.{kind}", "previous_item_id": before, "item": wire})

    def create(self, wire: Json, previous: str | None, audio_format: Json) -> None:
        """A client's item, after `previous` ("root": at the start).

        The result of a call that the conversation does not hold is refused (seen: livekit/agents 3344).
        """
        known = [item.id for item in self.all]
        if previous not in (None, "root", *known):
            raise Refusal("invalid_value", f"Previous item with item_id not found: {previous}", "previous_item_id")
        if wire.get("id") in known:
            raise Refusal("invalid_value", f"Item with item_id already exists: {wire['id']}", "item.id")
        call_id = wire.get("call_id")
        if wire["type"] == "function_call_output" and call_id not in {item.wire.get("call_id") for item in self.all}:
            raise Refusal("invalid_tool_call_id", f"Tool call ID '{call_id}' not found in conversation.")
        wire = copy.deepcopy(wire)
        item_id = wire.pop("id", None) or self._new_id("item")
        if wire["type"] == "function_call":
            wire.setdefault("call_id", self._new_id("call"))
        if wire["type"] != "mcp_approval_response":
            wire.setdefault("status", "completed")
        pcm = bytearray()
        for part in wire.get("content", []):
            if part["type"] == "input_audio":
                pcm += Decoder(audio_format).decode(base64.b64decode(part.pop("audio")))
        at = len(self.all) if previous is None else 0 if previous == "root" else known.index(previous) + 1
        self.add(Item(item_id, wire, pcm), at)

    def truncate(self, item_id: str, content_index: int, audio_end_ms: int) -> tuple[int, Refusal | None]:
        """Cut an answer to what was heard. Returns where it ends now, and the complaint if that was beyond its end."""
        item = self.find(item_id, "truncate")
        if item.role != "assistant" or not item.pcm:
            raise Refusal("unsupported_content_type", "Only model output audio messages can be truncated")
        if content_index != 0:
            raise Refusal("invalid_value", f"The item has no content at index {content_index}.", "content_index")
        complaint = None
        if audio_end_ms > item.audio_ms:
            words = f"Audio content of {item.audio_ms}ms is already shorter than {audio_end_ms}ms"
            complaint = Refusal("invalid_value", words)
        item.truncated_ms = min(audio_end_ms, item.audio_ms)
        del item.pcm[item.truncated_ms * BYTES_PER_MS :]
        # The real one removes the whole transcript, since it can not know which words were heard.
        item.wire["content"] = [{"type": "output_audio", "transcript": ""}]
        return item.truncated_ms, complaint

    def delete(self, item_id: str) -> None:
        """Remove an item; the code of the refusal is unconfirmed."""
        self.all.remove(self.find(item_id, "delete"))
        self._emit({"type": "conversation.item.deleted", "item_id": item_id})

    def retrieve(self, item_id: str) -> None:
        """Show an item with its audio, in the types' shape and not in the one seen (`type: audio`, `format`)."""
        item = self.find(item_id, "retrieve")
        wire = copy.deepcopy({"id": item.id, **item.wire})
        if item.pcm and wire["content"]:
            wire["content"][0]["audio"] = base64.b64encode(item.pcm).decode()
        self._emit({"type": "conversation.item.retrieved", "item": wire})

    def find(self, item_id: str, verb: str) -> Item:
        """The item of this id. Raises `Refusal` with the code that belongs to `verb`."""
        for item in self.all:
            if item.id == item_id:
                return item
        raise Refusal(f"item_{verb}_invalid_item_id", f"Error: item with item_id not found: {item_id}", "item_id")
