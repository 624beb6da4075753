"""What must hold of the events of every call, whatever happens in it: each house watches by these rules, and so the whole
suite does."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import msgspec
import trio

from bridge.call_events import EVENTS, REPLACED, CallEvent, envelope
from bridge.call_record import CallRecord
from bridge.live_call import LiveCall

FIELDS = {kind: set(event.__struct_fields__) for kind, event in EVENTS.items()}


class EventRules:
    """A watcher. `problems` is what was broken; `of` all events of the source `call`, by call."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.of: dict[str, list[CallEvent]] = defaultdict(list)
        self.records: dict[str, CallRecord] = {}

    async def run(self, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        await trio.sleep_forever()

    def begins(self, call: LiveCall) -> None:
        rules = _OfCall(self.problems)

        def heard(event: CallEvent) -> None:
            if event.source == "call":
                self.of[call.call_id].append(event)
                rules.check(event)
                msgspec.json.encode(envelope(call.call_id, event))

        call.listen(None, heard)

    async def ended(self, record: CallRecord) -> None:
        self.records[record.call_id] = record
        if (events := self.of.get(record.call_id)) and events[-1].type != "call.ended":
            self.problems.append(f"the last event is {events[-1]}")

    def types(self, *heads: str) -> list[str]:
        """The types of the only call's events, as far as they begin with one of these."""
        return [event.type for event in self.told(*heads)]

    def told(self, *heads: str) -> list[CallEvent]:
        """The only call's events, as far as their type begins with one of these."""
        (events,) = self.of.values()
        return [event for event in events if event.type.startswith(heads or "")]

    @property
    def record(self) -> CallRecord:
        """Of the only call."""
        (record,) = self.records.values()
        return record


class _OfCall:
    def __init__(self, problems: list[str]) -> None:
        self._problems = problems
        self._first = True
        self._on = {"speech": False, "playback": False}
        self._state = ""
        self._texts: dict[tuple[str, str], str] = {}
        self._final: set[tuple[str, str]] = set()
        self._tools: dict[str, bool] = {}
        self._once: set[str] = set()

    def check(self, event: CallEvent) -> None:
        kind, facts = event.type, dict(event.event)
        self._must(kind not in REPLACED, "a word of the log reached an application", event)
        self._must(self._first == (kind == "call.started"), "call.started is the first", event)
        self._must("call.ended" not in self._once, "something came after the end", event)
        self._first = False
        if kind not in FIELDS:
            return
        self._must(set(facts) == FIELDS[kind], "other fields than the contract's", event)
        subject, _, verb = kind.partition(".")
        match subject:
            case "call":
                self._must(kind not in self._once, "told twice", event)
                self._once.add(kind)
                if kind == "call.ended":
                    self._must(not any(self._on.values()), "begun and not ended", event)
            case "speech" | "playback":
                self._must(self._on[subject] == (verb == "stopped"), "started and stopped take turns", event)
                self._on[subject] = verb == "started"
            case "state":
                self._must(facts["state"] != self._state, "no change", event)
                self._state = facts["state"]
            case "transcript":
                self._transcript(verb, facts, event)
            case "tool":
                call_id = facts["tool_call_id"]
                self._must(self._tools.get(call_id) is (None if verb == "called" else False), "once each", event)
                self._tools[call_id] = verb == "answered"

    def _transcript(self, verb: str, facts: dict[str, Any], event: CallEvent) -> None:
        of = facts["role"], facts["item_id"]
        self._must(of not in self._final, "words after the final ones", event)
        if verb == "partial":
            self._texts[of] = self._texts.get(of, "") + facts["delta"]
            self._must(facts["text"] == self._texts[of], "text is all so far", event)
        else:
            self._final.add(of)
            self._must((facts["heard_ms"] is None) == (of[0] == "caller"), "only the agent is heard", event)

    def _must(self, holds: bool, what: str, event: CallEvent) -> None:
        if not holds:
            self._problems.append(f"{what}: {event.type} {dict(event.event)} at {event.at_s:.3f}")
