"""MCP at the fake server: lists of tools, calls, and the approvals that they wait for (section 3.8).

The script says `McpCall` where the model calls a tool. `Mcp` turns it into what happens on the wire: `McpRun`, the call
itself, or `McpAsk`, a request for approval, which ends the response. Once the client has approved, the server goes on by
itself in a response of its own: the call, and what the script has after it, else the brain's next answer. All of that is
from the notes (the server's going on by itself is unconfirmed there): `faults.mcp_waits` plays a server that does not.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from simulators.model_script import Fail, Item, McpCall, Part
from simulators.realtime_faults import Faults
from simulators.realtime_items import Items
from simulators.realtime_schema import Json, Refusal

_DEFAULT_TOOLS = ("search",)


@dataclass(frozen=True)
class McpAsk:
    """Ask the client whether `call` may happen. `asked` is told the id of the request once it is complete."""

    call: McpCall
    asked: Callable[[str], None]


@dataclass(frozen=True)
class McpRun:
    """Make the call: after an approval (then its arguments have been told), or without any."""

    call: McpCall
    request_id: str = ""


Step = Part | McpAsk | McpRun


@dataclass(frozen=True)
class _Answer:
    request_id: str
    call: McpCall
    rest: Sequence[Part]
    approve: bool


class Mcp:
    """The MCP side of one session. `after` sets a timer; methods raise `Refusal` as the server refuses."""

    def __init__(
        self,
        items: Items,
        emit: Callable[[Json], None],
        new_id: Callable[[str], str],
        after: Callable[[float, Callable[[float], None]], None],
        faults: Faults,
    ) -> None:
        self._items = items
        self._emit = emit
        self._new_id = new_id
        self._after = after
        self._faults = faults
        self._declared: dict[str, Mapping[str, Any]] = {}
        self._listed: dict[str, Sequence[str] | None] = {}  # None: not yet
        self._waiting: dict[str, tuple[McpCall, Sequence[Part]]] = {}
        self._answers: deque[_Answer] = deque()

    def configured(self, tools: Sequence[Mapping[str, Any]]) -> None:
        """The session's tools are these now: fetch the lists of servers that are new or changed."""
        before = self._declared
        self._declared = {tool["server_label"]: tool for tool in tools if tool["type"] == "mcp"}
        self._listed = {label: names for label, names in self._listed.items() if label in self._declared}
        for label, tool in self._declared.items():
            if before.get(label) != tool:
                self._list(label, tool)

    def _list(self, label: str, tool: Mapping[str, Any]) -> None:
        item_id = self._new_id("mcpl")
        self._listed[label] = None
        self._emit({"type": "mcp_list_tools.in_progress", "item_id": item_id})

        def done(_now: float) -> None:
            if self._declared.get(label) != tool:
                return
            failed = label in self._faults.mcp_unreachable
            names = [] if failed else self._allowed(label, tool.get("allowed_tools"))
            self._listed[label] = names
            schema = {"type": "object", "properties": {}}
            shown = [{"name": name, "description": f"{name} of {label}", "input_schema": schema} for name in names]
            self._items.add(Item(item_id, {"type": "mcp_list_tools", "server_label": label, "tools": shown}))
            self._emit({"type": f"mcp_list_tools.{'failed' if failed else 'completed'}", "item_id": item_id})

        self._after(self._faults.mcp_list_after_s, done)

    def _allowed(self, label: str, allowed: Any) -> list[str]:
        names = allowed.get("tool_names") if isinstance(allowed, Mapping) else allowed
        offered = self._faults.mcp_tools.get(label, _DEFAULT_TOOLS)
        return [name for name in offered if not names or name in names]

    def check_ready(self, tool_choice: Any) -> None:
        """A tool is required though the lists are not there yet: that fails (with which words is unconfirmed)."""
        must = tool_choice == "required" or (isinstance(tool_choice, Mapping) and tool_choice.get("type") == "mcp")
        late = [label for label, names in self._listed.items() if names is None]
        if must and late:
            words = f"The tools of the MCP server '{late[0]}' are still being listed; a tool can not be required yet."
            raise Refusal("mcp_tools_not_ready", words, "response.tool_choice")

    def prepared(self, parts: Sequence[Part]) -> list[Step]:
        """The steps of a response for these parts; it ends at the first call that needs an approval."""
        steps: list[Step] = []
        for index, part in enumerate(parts):
            if not isinstance(part, McpCall):
                steps.append(part)
            elif part.name not in (self._listed.get(part.server) or ()):
                return [*steps, Fail("script_error", f"the model knows no tool {part.name!r} of {part.server!r}")]
            elif self._needs_approval(part):
                return [*steps, McpAsk(part, partial(self._asked, part, parts[index + 1 :]))]
            else:
                steps.append(McpRun(part))
        return steps

    def _asked(self, call: McpCall, rest: Sequence[Part], request_id: str) -> None:
        self._waiting[request_id] = (call, rest)

    def _needs_approval(self, call: McpCall) -> bool:
        if call.approval is not None:
            return call.approval
        rule = self._declared[call.server].get("require_approval") or "always"
        if isinstance(rule, str):
            return rule == "always"
        return call.name not in ((rule.get("never") or {}).get("tool_names") or ())

    def check_answer(self, wire: Json) -> None:
        """Refuse an approval of something that was not asked, or not any more (unconfirmed)."""
        asked = wire.get("approval_request_id")
        if wire["type"] == "mcp_approval_response" and asked not in self._waiting:
            words = f"Approval request with id '{asked}' not found in conversation."
            raise Refusal("invalid_value", words, "item.approval_request_id")

    def answered(self, wire: Json) -> None:
        """The client's answer was taken into the conversation; `go_on` says what follows."""
        if wire["type"] == "mcp_approval_response":
            call, rest = self._waiting.pop(wire["approval_request_id"])
            self._answers.append(_Answer(wire["approval_request_id"], call, rest, wire["approve"]))

    def go_on(self, think: Callable[[], Sequence[Part]]) -> list[Step] | None:
        """The steps of the response that follows the oldest answer, or None if there is none. Not while one is active.

        `think` asks the brain, which is how a refused call goes on.
        """
        if not self._answers:
            return None
        answer = self._answers.popleft()
        run: list[Step] = [McpRun(answer.call, answer.request_id)] if answer.approve else []
        if self._faults.mcp_waits:
            return run or None
        return [*run, *self.prepared(answer.rest if answer.approve and answer.rest else think())]
