"""One response of the simulated model: its events in the order of section 3.2, its cancellation, and its end.

`Response.play` is a generator: it emits events and yields how many seconds to wait before the next step. The session
drives it; to interrupt is to stop driving it and to call `end`, which closes whatever part is open, as the real
server does (`.done` events are sent for interrupted parts too, with partial text).
"""

from __future__ import annotations

import base64
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from simulators.model_script import BYTES_PER_MS, Call, Drop, Fail, Incomplete, Item, Pace, Say, tone
from simulators.realtime_faults import Faults
from simulators.realtime_mcp import McpAsk, McpRun, Step
from simulators.realtime_usage import audio_tokens, no_usage, text_tokens, whole_usage
from simulators.wire_audio import bytes_per_ms, encode

Json = dict[str, Any]


@dataclass
class _Open:
    """The output item that is being made."""

    item: Item
    index: int
    part: str = ""  # "audio" or "text"; empty: a function call
    text: str = ""
    call_id: str = ""
    name: str = ""
    late: deque[bytes] = field(default_factory=deque)  # audio not sent yet, in the wire's format


class Response:
    """One response, in progress until `end`. `emit` takes server events without `event_id`."""

    def __init__(
        self,
        response_id: str,
        settings: Json,
        parts: Sequence[Step],
        *,
        conversation_id: str | None,
        metadata: Json | None,
        prompt: Json,
        new_id: Callable[[str], str],
        emit: Callable[[Json], None],
        keep: Callable[[Item], str | None],
        faults: Faults,
    ) -> None:
        """`settings`: modalities, `max_output_tokens`, `audio`. `prompt`: the input half of its usage. `keep` adds an item;
        it returns the one before."""
        self.id = response_id
        self.conversation_id = conversation_id
        self.status = "in_progress"
        self.begun = False
        self.dropped: Drop | None = None  # the script wants the connection to end here
        self.usage: Json | None = None  # as `response.done` told it
        self.sent_pcm = bytearray()
        self._settings = settings
        self._parts = parts
        self._metadata = metadata
        self._prompt = prompt
        self._new_id = new_id
        self._emit = emit
        self._keep = keep
        self._faults = faults
        self._output: list[Item] = []
        self._open: _Open | None = None
        self._previous: dict[str, str | None] = {}
        self._steps = self.play()

    @property
    def audio_ms(self) -> int:
        """How much audio has been sent."""
        return len(self.sent_pcm) // BYTES_PER_MS

    def step(self) -> float | None:
        """Emit the next events; seconds to wait for the step after, or None at the end."""
        return next(self._steps, None) if self.status == "in_progress" else None

    def play(self) -> Iterator[float]:
        """Create, play every part, end. Yields the seconds until the next step."""
        self.begun = True
        self._emit({"type": "response.created", "response": self._wire(usage=None)})
        for index, part in enumerate(self._parts):
            match part:
                case Say():
                    cut = index + 1 < len(self._parts) and isinstance(self._parts[index + 1], Incomplete)
                    yield from self._say(part)
                    self._close("incomplete" if cut else "completed")
                case Call():
                    yield from self._call(part)
                    self._close("completed")
                case McpAsk() | McpRun():
                    yield from self._mcp(part)
                    self._close("completed")
                case Drop():
                    self.dropped = part
                    return None
                case Fail():
                    code = 429 if self._faults.codes_numeric else part.code
                    error = {"type": part.kind, "code": code, "message": part.message}
                    return self.end("failed", {"type": "failed", "error": error})
                case Incomplete():
                    return self.end("incomplete", {"type": "incomplete", "reason": part.reason})
        return self.end("completed", None)

    def end(self, status: str, details: Json | None) -> None:
        """Close the open part, if any, as `incomplete`; then `response.done`. Does nothing when already ended."""
        if self.status != "in_progress":
            return
        self.status = status
        late: list[Json] = []
        if self._open is not None:
            late = [self._delta(self._open, chunk) for chunk in list(self._open.late)[: self._faults.late_deltas]]
            if not self._faults.late_after_done:
                for event in late:
                    self._emit(event)
            self._close("incomplete")
        self.usage = None if self._faults.usage_missing else self._usage()
        if details is not None and self._faults.details_bare:
            error = details.get("error", {})
            details = error.get("message") or details.get("reason")
        self._emit({"type": "response.done", "response": self._wire(details=details, usage=self.usage)})
        if self._faults.late_after_done:
            for event in late:
                self._emit(event)

    def _say(self, part: Say) -> Iterator[float]:
        written = part.written or self._settings["output_modalities"] == ["text"]
        wire: Json = {"type": "message", "status": "in_progress", "role": "assistant", "content": []}
        if self._faults.official_extras:
            last = part is self._parts[-1]
            wire["phase"] = "final_answer" if last else "commentary"
        item = Item(self._new_id("item"), wire)
        now_open = self._begin(item)
        now_open.part = "text" if written else "audio"
        empty: Json = {"type": "text", "text": ""} if written else {"type": "audio", "transcript": ""}
        self._emit(self._at(now_open, "response.content_part.added", content_index=0, part=empty))
        words = part.text.split(" ")
        pace = self._faults.pace or part.pace
        yield pace.first_ms / 1000
        if written:
            for index, word in enumerate(words):
                delta = word if index == 0 else f" {word}"
                now_open.text += delta
                self._emit(self._at(now_open, "response.output_text.delta", content_index=0, delta=delta))
                yield 0.02
            return
        # 300 Hz apart, below the telephone's edge, and never a harmonic of the one before.
        hz = part.hz or 440 + 310 * (len(self._output) + int(self.id[-6:], 36) * 3) % 2800
        pcm = part.pcm if part.pcm is not None else tone(hz, part.ms)
        chunks = self._chunks(pcm, pace)
        now_open.late.extend(wire for wire, _ in chunks)
        for index, (delta_wire, piece) in enumerate(chunks):
            said = words[-(-len(words) * index // len(chunks)) : -(-len(words) * (index + 1) // len(chunks))]
            if said:
                delta = (" " if now_open.text else "") + " ".join(said)
                now_open.text += delta
                self._emit(self._at(now_open, "response.output_audio_transcript.delta", content_index=0, delta=delta))
            if self._faults.empty_deltas:
                self._emit(self._delta(now_open, b""))
            self._emit(self._delta(now_open, delta_wire))
            now_open.late.popleft()
            now_open.item.pcm += piece
            self.sent_pcm += piece
            played_s = len(piece) / BYTES_PER_MS / 1000
            yield 0.0 if math.isinf(pace.speed) else played_s / pace.speed * self._faults.slower

    def _chunks(self, pcm: bytes, pace: Pace) -> list[tuple[bytes, bytes]]:
        """Deltas in the wire's format, each with the 24 kHz audio that it stands for."""
        audio_format = self._settings["audio"]["output"]["format"]
        data = encode(pcm, audio_format)
        ms = max(1, pace.delta_ms)
        each, piece = ms * bytes_per_ms(audio_format), ms * BYTES_PER_MS
        wires = [data[at : at + each] for at in range(0, len(data), each)] or [b""]
        pieces = [pcm[at : at + piece] for at in range(0, len(pcm), piece)] or [b""]
        if pace.odd:
            # The byte before an even cut goes one delta later, from the first delta to the last.
            for at in range(len(wires) - 1):
                if len(wires[at]) % 2 == 0:
                    wires[at + 1] = wires[at][-1:] + wires[at + 1]
                    wires[at] = wires[at][:-1]
        return list(zip(wires, pieces, strict=True))

    def _call(self, part: Call) -> Iterator[float]:
        call_id = part.call_id or self._new_id("call")
        wire = {
            "type": "function_call",
            "status": "in_progress",
            "name": part.name,
            "call_id": call_id,
            "arguments": "",
        }
        yield part.first_ms / 1000
        now_open = self._begin(Item(self._new_id("item"), wire))
        now_open.call_id = call_id
        now_open.name = part.name if part.name_in_done else ""
        for at in range(0, len(part.json), 8):
            yield 0.01
            delta = part.json[at : at + 8]
            now_open.text += delta
            self._emit(self._at(now_open, "response.function_call_arguments.delta", call_id=call_id, delta=delta))

    def _mcp(self, step: McpAsk | McpRun) -> Iterator[float]:
        """A request for approval, or a call; the arguments are told once, with whichever comes first."""
        call, asks = step.call, isinstance(step, McpAsk)
        wire: Json = {"type": "mcp_approval_request" if asks else "mcp_call", "server_label": call.server}
        wire |= {"name": call.name, "arguments": ""}
        if isinstance(step, McpRun) and step.request_id:
            wire |= {"arguments": call.json, "approval_request_id": step.request_id}
        yield call.first_ms / 1000
        now_open = self._begin(Item(self._new_id("mcpr" if asks else "mcp"), wire))
        if not wire["arguments"]:
            for at in range(0, len(call.json), 8):
                yield 0.01
                wire["arguments"] += (delta := call.json[at : at + 8])
                self._emit(self._at(now_open, "response.mcp_call_arguments.delta", delta=delta))
            self._emit(self._at(now_open, "response.mcp_call_arguments.done", arguments=call.json))
        if isinstance(step, McpAsk):
            step.asked(now_open.item.id)
            return
        place = {"item_id": now_open.item.id, "output_index": now_open.index}
        self._emit({"type": "response.mcp_call.in_progress", **place})
        yield call.run_ms / 1000
        wire |= {"output": call.output} if call.error is None else {"error": dict(call.error)}
        self._emit({"type": f"response.mcp_call.{'completed' if call.error is None else 'failed'}", **place})

    def _begin(self, item: Item) -> _Open:
        self._output.append(item)
        self._open = now_open = _Open(item, len(self._output) - 1)
        wire = {"id": item.id, **item.wire}
        place = {"response_id": self.id, "output_index": now_open.index}
        self._emit({"type": "response.output_item.added", **place, "item": wire})
        if self.conversation_id is not None:
            self._previous[item.id] = before = self._keep(item)
            self._emit({"type": "conversation.item.added", "previous_item_id": before, "item": wire})
        return now_open

    def _close(self, status: str) -> None:
        """The `.done` events of the open item, in the order seen at OpenAI, or swapped as at some clones."""
        if (was_open := self._open) is None:
            return
        self._open = None
        item = was_open.item
        # Those of MCP have no status, and whatever else is told of them is behind them.
        if not item.type.startswith("mcp_"):
            self._close_content(was_open, status)
        wire = {"id": item.id, **item.wire}
        place = {"response_id": self.id, "output_index": was_open.index}
        ends: list[Json] = [{"type": "response.output_item.done", **place, "item": wire}]
        if self.conversation_id is not None:
            before = self._previous[item.id]
            ends.insert(0, {"type": "conversation.item.done", "previous_item_id": before, "item": wire})
        for event in reversed(ends) if self._faults.done_swapped else ends:
            self._emit(event)

    def _close_content(self, was_open: _Open, status: str) -> None:
        item, text = was_open.item, was_open.text
        item.wire["status"] = status
        if not was_open.part:
            item.wire["arguments"] = text
            done = self._at(
                was_open, "response.function_call_arguments.done", call_id=was_open.call_id, arguments=text
            )
            self._emit(done | ({"name": was_open.name} if was_open.name else {}))
        elif was_open.part == "text":
            item.wire["content"] = [{"type": "output_text", "text": text}]
            self._emit(self._at(was_open, "response.output_text.done", content_index=0, text=text))
        else:
            item.wire["content"] = [{"type": "output_audio", "transcript": text}]
            self._emit(self._at(was_open, "response.output_audio.done", content_index=0))
            done = self._at(was_open, "response.output_audio_transcript.done", content_index=0, transcript=text)
            self._emit(done)
        if was_open.part:
            part = {"type": was_open.part, ("text" if was_open.part == "text" else "transcript"): text}
            self._emit(self._at(was_open, "response.content_part.done", content_index=0, part=part))

    def _delta(self, to: _Open, wire: bytes) -> Json:
        audio = base64.b64encode(wire).decode()
        extra = {"obfuscation": "x" * (7 - len(audio) % 7)} if self._faults.official_extras else {}
        return self._at(to, "response.output_audio.delta", content_index=0, delta=audio, **extra)

    def _at(self, to: _Open, kind: str, **more: Any) -> Json:
        return {"type": kind, "response_id": self.id, "item_id": to.item.id, "output_index": to.index, **more}

    def _wire(self, *, details: Json | None = None, usage: Json | None) -> Json:
        return {
            "object": "realtime.response",
            "id": self.id,
            "status": self.status,
            "status_details": details,
            "output": [{"id": item.id, **item.wire} for item in self._output],
            "conversation_id": self.conversation_id,
            **self._settings,
            "usage": usage,
            "metadata": self._metadata,
        }

    def _usage(self) -> Json:
        if self.status == "failed":
            return no_usage()
        letters = sum(len(item.text) + len(item.wire.get("arguments", "")) for item in self._output)
        spoken = audio_tokens("assistant", self.audio_ms)
        return whole_usage(self._prompt, output_text=text_tokens(letters), output_audio=spoken)
