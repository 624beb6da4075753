"""The application's tools: what the model may call besides ending the call.

A tool is an async function with a JSON schema. Whatever happens to a call of it (unknown name, broken arguments, an
exception, too slow), the model gets exactly one text: it is never left waiting.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import trio

_log = logging.getLogger("bridge.tools")


@dataclass(frozen=True, slots=True)
class Tool:
    """One function that the model may call. `handler` gets the decoded arguments; what it returns is dumped as JSON
    unless it is text already."""

    name: str
    description: str
    handler: Callable[[Mapping[str, Any]], Awaitable[object]]
    parameters: Mapping[str, Any] = field(default_factory=lambda: {"type": "object", "properties": {}})


class ToolRegistry:
    """The tools that one agent may use. A later tool of the same name replaces the earlier one."""

    def __init__(self, tools: Sequence[Tool] = ()) -> None:
        self._tools = {tool.name: tool for tool in tools}

    def declarations(self) -> list[dict[str, Any]]:
        """The function declarations for `session.update`."""
        return [
            {"type": "function", "name": it.name, "description": it.description, "parameters": dict(it.parameters)}
            for it in self._tools.values()
        ]

    async def run(self, name: str, arguments: str, *, timeout_s: float) -> str:
        """The output of one call, as the text that the model is sent. Never raises but for cancellation."""
        tool = self._tools.get(name)
        if tool is None:
            return f"Error: there is no tool named {name!r}. Known: {', '.join(sorted(self._tools)) or 'none'}"
        try:
            decoded = msgspec.json.decode(arguments or "{}")
        except msgspec.DecodeError as error:
            return f"Error: the arguments are not valid JSON: {error}"
        if not isinstance(decoded, dict):
            return "Error: the arguments must be a JSON object"
        try:
            with trio.fail_after(timeout_s):
                result = await tool.handler(decoded)
        except trio.TooSlowError:
            return f"Error: {name} did not answer within {timeout_s:g} s"
        except Exception as error:
            # The tool is the application's code: whatever it raises is the model's to hear and ours to log.
            _log.exception("tool %s failed", name)
            return f"Error: {name} failed: {type(error).__name__}: {error}"
        return result if isinstance(result, str) else msgspec.json.encode(result, enc_hook=str).decode()
