"""The server's side of one Realtime session: pure, so `now` is an argument and events are handed out, not sent.

Drive it like this: `start`, then `receive` for each message and `advance` whenever `next_due` has come; after each of
them send what `take` returns, and close with `closing` once that is set. State, validation and sequences follow
`realtime-protocol.md` sections 1.4 to 4; where the notes say "unconfirmed" a comment here says what was chosen.
"""

from __future__ import annotations

import base64
import copy
import heapq
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from simulators.model_script import Brain, Drop, Item, Part
from simulators.realtime_faults import Faults
from simulators.realtime_items import Items
from simulators.realtime_mcp import Mcp, Step
from simulators.realtime_outbox import Outbox
from simulators.realtime_response import Response
from simulators.realtime_rules import check_client_event, default_session, merged_session
from simulators.realtime_schema import Json, Refusal
from simulators.realtime_transcription import Transcription
from simulators.realtime_usage import Meter
from simulators.turn_detector import InputBuffer, TurnDetector
from simulators.wire_audio import Decoder

_RATE_LIMITS_S = 0.04  # captured: about 40 ms after response.done


@dataclass
class _View:
    """What the brain sees."""

    items: Sequence[Item]
    tools: Sequence[Mapping[str, Any]]
    instructions: str


class RealtimeSession:
    """One connection's session. Public state is for tests: `config`, `items`, `appended_pcm`, `active`."""

    def __init__(
        self,
        brain: Brain,
        faults: Faults,
        *,
        model: str,
        number: int = 1,
        unix_s: int = 1_795_226_400,
        recording: bool = True,
    ) -> None:
        """`number` makes ids unique on a server; `unix_s` is the wall clock at the start, for `expires_at` only."""
        self.closing: tuple[int | None, str] | None = None
        lifetime_s = faults.expires_after_s
        self.config = default_session(model, f"sess_{number:04d}", unix_s + int(lifetime_s))
        if faults.expires_at_hidden:
            del self.config["expires_at"]
        self._lifetime_s = lifetime_s
        self._out = Outbox(number, faults, self._drop)
        self._emit = self._out.emit
        self._items = Items(self._emit, self._new_id)
        self.active: Response | None = None
        self._brain = brain
        self._faults = faults
        self._number = number
        self._conversation_id = f"conv_{number:04d}"
        self._ids = 0
        self._timers: list[tuple[float, int, Callable[[float], None]]] = []
        self._timer_order = 0
        self._apart: dict[str, Response] = {}  # responses with conversation "none"
        self._input = InputBuffer(recording=recording)
        self._decoder = Decoder(self.config["audio"]["input"]["format"])
        self._detector = TurnDetector()
        self._transcription = Transcription(self._emit, self._after, faults)
        self._meter = Meter()
        self._mcp = Mcp(self._items, self._emit, self._new_id, self._after, faults)
        self._idle_from_ms: int | None = None
        self._now = 0.0

    # What the shell calls

    def start(self, now: float) -> None:
        """The websocket is open: `session.created`, at once or as late as the faults say."""
        self._now = now

        def created(_now: float) -> None:
            conversation = {"id": self._conversation_id, "object": "realtime.conversation"}
            telling: Json = {"type": "conversation.created", "conversation": conversation}
            if self._faults.conversation_created is True:
                self._emit(telling)
            self._emit({"type": "session.created", "session": copy.deepcopy(self.config)})
            if self._faults.conversation_created == "after":
                self._emit(telling)

        self._after(self._faults.created_after_s, created)
        self._after(self._lifetime_s, lambda _now: self.expire())
        self.advance(now)

    def receive(self, message: str | bytes, now: float) -> Json | None:
        """One websocket message. Returns the client event when it was JSON, for the record."""
        self._now = now
        event: Any = None
        try:
            if isinstance(message, bytes):
                raise Refusal("invalid_event", "Binary frames are not supported: send text frames with JSON.")  # noqa: TRY301
            try:
                event = msgspec.json.decode(message)
            except msgspec.DecodeError as error:
                raise Refusal("invalid_json", f"We could not parse the JSON body of your event: {error}") from error
            check_client_event(event)
            self._handle(event)
        except Refusal as refusal:
            event_id = event.get("event_id") if isinstance(event, dict) else None
            self.error(refusal, event_id if isinstance(event_id, str) else None)
        self.advance(now)
        return event if isinstance(event, dict) else None

    def advance(self, now: float) -> None:
        """Do what is due by `now`."""
        self._now = now
        while self._timers and self._timers[0][0] <= now:
            heapq.heappop(self._timers)[2](now)

    @property
    def next_due(self) -> float | None:
        """When `advance` has something to do next."""
        return self._timers[0][0] if self._timers else None

    def take(self) -> list[Json]:
        """The events to send now, in order; each is handed out once."""
        return self._out.take()

    # What happens to a session from outside

    @property
    def items(self) -> list[Item]:
        """The conversation as the server has it."""
        return self._items.all

    @property
    def appended_pcm(self) -> bytes:
        """All that the model has heard, 24 kHz PCM16."""
        return bytes(self._input.pcm)

    def refuse(self, refusal: Refusal, close_code: int, reason: str = "") -> None:
        """One `error`, then the close: how the real one refuses a key or ends a session."""
        self.error(refusal, None)
        self._close(close_code, reason or f"{refusal.kind}.{refusal.code}")

    def expire(self) -> None:
        """The session's time is over. Nothing warns of it."""
        words = f"Your session hit the maximum duration of {max(1, round(self._lifetime_s / 60))} minutes."
        self.refuse(Refusal("session_expired", words), 1001, words)

    def speech_started(self, now: float, start_ms: int | None = None) -> str:
        """The caller starts to speak now; interrupts if the session says so. Returns the id of the future item."""
        self._now = now
        self._input.item_id = item_id = self._new_id("item")
        start_ms = self._input.cut_at(self._input.appended_ms if start_ms is None else start_ms)
        started = {"type": "input_audio_buffer.speech_started", "audio_start_ms": start_ms, "item_id": item_id}
        if not self._faults.started_after_done:
            self._emit(started)
        detection = self.config["audio"]["input"]["turn_detection"] or {}
        if detection.get("interrupt_response") and self.active and self.active.begun:
            self._end(self.active, "cancelled", {"type": "cancelled", "reason": "turn_detected"})
        if self._faults.started_after_done:
            self._emit(started)
        return item_id

    def speech_stopped(self, now: float, end_ms: int | None = None) -> None:
        """The caller has finished: the turn is committed, and answered if the session says so."""
        self._now = now
        end_ms = self._input.appended_ms if end_ms is None else end_ms
        item_id = self._input.item_id or self._new_id("item")
        self._emit({"type": "input_audio_buffer.speech_stopped", "audio_end_ms": end_ms, "item_id": item_id})
        self._commit(item_id)
        detection = self.config["audio"]["input"]["turn_detection"] or {}
        if detection.get("create_response"):
            self._respond({}, None)
        self.advance(now)

    def drop(self, code: int | None) -> None:
        """The connection ends, abruptly (None) or with a close code; what was said before is still sent."""
        self._close(code, "")

    def error(self, refusal: Refusal, event_id: str | None) -> None:
        """An `error` event; with `faults.bare_errors` without code and event id, as the real one has it at times."""
        bare = self._faults.bare_errors
        body = {
            "type": refusal.kind,
            "code": None if bare else 400 if self._faults.codes_numeric else refusal.code,
            "message": refusal.message,
            "param": refusal.param,
            "event_id": None if bare else event_id,
        }
        self._emit({"type": "error", "error": body})

    # Client events

    def _handle(self, event: Json) -> None:
        match event["type"]:
            case "session.update":
                self._update(event["session"])
            case "input_audio_buffer.append":
                self._append(base64.b64decode(event["audio"]))
            case "input_audio_buffer.commit":
                self._commit_by_hand()
            case "input_audio_buffer.clear":
                self._input.take()
                self._detector.reset()
                self._emit({"type": "input_audio_buffer.cleared"})
            case "conversation.item.create":
                self._mcp.check_answer(event["item"])
                audio_format = self.config["audio"]["input"]["format"]
                self._items.create(event["item"], event.get("previous_item_id"), audio_format)
                self._mcp.answered(event["item"])
                self._go_on()
            case "conversation.item.truncate":
                self._truncate(event["item_id"], event["content_index"], event["audio_end_ms"])
            case "conversation.item.delete":
                self._items.delete(event["item_id"])
            case "conversation.item.retrieve":
                self._items.retrieve(event["item_id"])
            case "response.create":
                self._respond(event.get("response") or {}, event.get("event_id"))
            case "response.cancel":
                self._cancel(event.get("response_id"))

    def _update(self, session: Json) -> None:
        if self._faults.update_refused:
            raise Refusal("invalid_value", "Invalid 'session': refused by the simulator's fault.", "session")
        if session["type"] != "realtime":
            raise Refusal("invalid_value", "The type of a session can not be changed.", "session.type")
        if session.get("model", self.config["model"]) != self.config["model"]:
            raise Refusal("invalid_value", "The model of a session can not be changed.", "session.model")
        merged = merged_session(self.config, session)
        if self._out.spoke and merged["audio"]["output"]["voice"] != self.config["audio"]["output"]["voice"]:
            # The whole update is refused (unconfirmed).
            raise Refusal(
                "cannot_update_voice",
                "Cannot update a conversation's voice if assistant audio is present.",
                "session.audio.output.voice",
            )
        audio_input = merged["audio"]["input"]
        if audio_input["format"] != self.config["audio"]["input"]["format"]:
            self._decoder = Decoder(audio_input["format"])
        if audio_input["turn_detection"] is None:
            self._detector.reset()
        self.config = merged
        if not self._faults.updated_missing:
            self._tell_updated()
        self._mcp.configured(merged["tools"])

    def _tell_updated(self) -> None:
        shown = copy.deepcopy(self.config)
        if self._faults.wrong_format is not None:
            shown["audio"]["output"]["format"] = shown["audio"]["input"]["format"] = self._faults.wrong_format
        self._emit({"type": "session.updated", "session": shown})

    def _append(self, data: bytes) -> None:
        pcm = self._decoder.decode(data)
        self._input.pcm += pcm
        detection = self.config["audio"]["input"]["turn_detection"]
        if detection is None:
            return
        for started, at_ms in self._detector.feed(pcm, detection):
            if started:
                self.speech_started(self._now, at_ms)
            else:
                self.speech_stopped(self._now, at_ms)
        if not self._detector.speaking and not self._input.item_id:
            # Outside speech the buffer keeps what a turn may need as its prefix.
            keep_ms = detection.get("prefix_padding_ms", 300) + 100
            self._input.cut_at(self._input.appended_ms - keep_ms)
            self._idle(detection.get("idle_timeout_ms"))

    def _idle(self, idle_timeout_ms: int | None) -> None:
        """Section 3.12, on the clock of the appended audio (unconfirmed)."""
        appended_ms = self._input.appended_ms
        if idle_timeout_ms is None or self._idle_from_ms is None or self.active:
            return
        if appended_ms >= self._idle_from_ms + idle_timeout_ms:
            start_ms, self._idle_from_ms = self._idle_from_ms, None
            item_id = self._new_id("item")
            span = {"audio_start_ms": start_ms, "audio_end_ms": appended_ms}
            self._emit({"type": "input_audio_buffer.timeout_triggered", "item_id": item_id, **span})
            self._commit(item_id)
            self._respond({}, None)

    def _commit_by_hand(self) -> None:
        detection = self.config["audio"]["input"]["turn_detection"]
        # With VAD on the buffer is empty unless the caller is speaking just now.
        buffered_ms = 0 if detection and not self._input.item_id else self._input.buffered_ms
        if buffered_ms < 100:
            raise Refusal(
                "input_audio_buffer_commit_empty",
                "Error committing input audio buffer: buffer too small. Expected at least 100ms of audio, "
                f"but buffer only has {buffered_ms:.2f}ms of audio.",
            )
        self._detector.reset()
        self._commit(self._input.item_id or self._new_id("item"))

    def _commit(self, item_id: str) -> None:
        pcm = self._input.take()
        content = {"type": "input_audio", "transcript": None}
        wire = {"type": "message", "status": "completed", "role": "user", "content": [content]}
        item = Item(item_id, wire, bytearray(pcm))
        before = self._items.last_id
        self._emit({"type": "input_audio_buffer.committed", "previous_item_id": before, "item_id": item_id})
        # The recogniser is the model's ear too, so it runs whether transcription is on or not.
        heard = self._brain.transcribe(pcm)
        self._items.add(item)
        item.heard = heard
        if (wanted := self.config["audio"]["input"]["transcription"]) is not None:
            logprobs = "item.input_audio_transcription.logprobs" in (self.config["include"] or [])
            self._transcription.of_turn(item, heard, wanted, logprobs=logprobs)

    def _truncate(self, item_id: str, content_index: int, audio_end_ms: int) -> None:
        end_ms, complaint = self._items.truncate(item_id, content_index, audio_end_ms)
        if complaint is not None:
            self.error(
                complaint, None
            )  # seen: without event id, and the clamped acknowledgement follows all the same
        if not self._faults.truncate_unacknowledged:
            place = {"item_id": item_id, "content_index": 0, "audio_end_ms": end_ms}
            self._emit({"type": "conversation.item.truncated", **place})

    # Responses

    def _go_on(self) -> None:
        """Do what the client's approvals of MCP calls allow, as soon as no response is active."""
        if self.active is None and (steps := self._mcp.go_on(lambda: self._parts({})[1])) is not None:
            self._respond({}, None, steps)

    def _respond(self, asked: Json, event_id: str | None, steps: Sequence[Step] | None = None) -> None:
        """A response to what was `asked`, of the brain's parts or of these `steps`."""
        apart = asked.get("conversation") == "none"
        if self.active and not apart:
            words = (
                f"Conversation already has an active response in progress: {self.active.id}. "
                "Wait until the response is finished before creating a new one."
            )
            return self.error(Refusal("conversation_already_has_active_response", words), event_id)
        output = self.config["audio"]["output"]
        wanted = asked.get("audio", {}).get("output", {})
        settings = {
            "output_modalities": asked.get("output_modalities", self.config["output_modalities"]),
            "max_output_tokens": asked.get("max_output_tokens", self.config["max_output_tokens"]),
            "audio": {"output": {"format": output["format"], "voice": output["voice"], **wanted}},
        }
        try:
            self._mcp.check_ready(asked.get("tool_choice", self.config["tool_choice"]))
        except Refusal as refusal:
            return self.error(refusal, event_id)
        if steps is None:
            items, parts = self._parts(asked)
            steps = self._mcp.prepared(parts)
        else:
            items = self.items
        response = Response(
            self._new_id("resp"),
            settings,
            steps,
            conversation_id=None if apart else self._conversation_id,
            metadata=asked.get("metadata"),
            prompt=self._meter.prompt(self.config | asked, items),
            new_id=self._new_id,
            emit=self._emit,
            keep=self._items.append_silently,
            faults=self._faults,
        )
        if apart:
            self._apart[response.id] = response
        else:
            self.active = response
        self._idle_from_ms = None
        if self._faults.response_after_s:
            return self._after(self._faults.response_after_s, lambda _now: self._step(response))
        return self._step(response)

    def _parts(self, asked: Json) -> tuple[Sequence[Item], Sequence[Part]]:
        """What the response reads, and what it answers."""
        items: Sequence[Item] = self.items
        if "input" in asked:
            known = {item.id: item for item in self.items}
            for entry in asked["input"]:
                if entry["type"] == "item_reference" and entry["id"] not in known:
                    raise Refusal("invalid_value", f"Item with item_id not found: {entry['id']}", "response.input")
            items = [known[e["id"]] if e["type"] == "item_reference" else Item("", e) for e in asked["input"]]
        if self._faults.failing:
            return items, [self._faults.failing.popleft()]
        tools: list[Json] = asked["tools"] if "tools" in asked else self.config["tools"]
        return items, self._brain.answer(_View(items, tools, str(self.config.get("instructions", ""))))

    def _step(self, response: Response) -> None:
        if response.status != "in_progress":
            return None
        if self._faults.stalled:
            return self._after(0.05, lambda _now: self._step(response))
        wait_s = response.step()
        if response.dropped is not None:
            return self._drop(response.dropped)
        if wait_s is None:
            return self._ended(response)
        return self._after(wait_s, lambda _now: self._step(response))

    def _end(self, response: Response, status: str, details: Json) -> None:
        response.end(status, details)
        self._ended(response)

    def _ended(self, response: Response) -> None:
        self._apart.pop(response.id, None)
        if self.active is response:
            self.active = None
            # The server assumes that the caller hears the audio in real time.
            self._idle_from_ms = self._input.appended_ms + response.audio_ms
        limits = self._meter.rate_limits(response.usage, self._now)
        self._after(_RATE_LIMITS_S, lambda _now: self._emit({"type": "rate_limits.updated", "rate_limits": limits}))
        self._go_on()

    def _cancel(self, response_id: str | None) -> None:
        response = self._apart.get(response_id or "") or self.active
        if response is None or not response.begun or response_id not in (None, response.id):
            raise Refusal("response_cancel_not_active", "Cancellation failed: no active response found")
        self._end(response, "cancelled", {"type": "cancelled", "reason": "client_cancelled"})

    # Small things

    def _new_id(self, kind: str) -> str:
        self._ids += 1
        return f"{kind}_{self._number:03d}{self._ids:05d}"

    def _after(self, seconds: float, do: Callable[[float], None]) -> None:
        self._timer_order += 1
        heapq.heappush(self._timers, (self._now + seconds, self._timer_order, do))

    def _drop(self, drop: Drop) -> None:
        """End the connection; what was emitted before is still sent."""
        if drop.expired:
            self.expire()
        else:
            self._close(drop.code, "")

    def _close(self, code: int | None, reason: str) -> None:
        if self.closing is None:
            self.closing = (code, reason)
            self._out.closed = True
