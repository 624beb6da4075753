"""The application's tools: what the model may call besides ending the call.

A tool is a Python function (its signature is the schema, see `tool_schema`), a `Tool` with a schema of its own, or a
`Tool` without a handler, which the application answers itself ("manual"). Whatever happens to a call (unknown name, broken
arguments, an exception, too slow, a result of 10 MB), the model gets exactly one text: it is never left waiting.

Async functions run in the call's own task. Plain functions run in a worker thread, since they may block: up to
`MAX_THREADS` at a time for a registry, later ones wait for a free thread within their time limit. A thread can not be
stopped: a plain function that is too slow, or whose caller hung up, goes on until it returns, its result is dropped,
and it keeps its thread until then. So blocking calls in it want a time limit of their own.
"""

from __future__ import annotations

import inspect
import logging
import re
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import msgspec
import trio

from bridge import call_tools
from bridge.errors import ConfigError, ToolError
from bridge.scrubbing import scrubbed
from bridge.tool_schema import ArgumentError, FunctionSchema, ToolContext

__all__ = ["MAX_OUTPUT_CHARS", "MAX_THREADS", "Tool", "ToolContext", "ToolRegistry"]

_log = logging.getLogger("bridge.tools")

# About 4,000 tokens. An output stays in the conversation and is paid for again in every response; gpt-realtime holds
# 32,000 tokens in all, and nobody listens to more than a page on the phone.
MAX_OUTPUT_CHARS = 16_000
MAX_THREADS = 20
# What the API takes as the name of a function.
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")

_Added = TypeVar("_Added", bound="Tool | Callable[..., object]")


@dataclass(frozen=True, slots=True)
class Tool:
    """One function that the model may call, with its schema written out. For a Python function use `Tool.of`.

    `handler` (async or not) gets the decoded arguments as one mapping, unchecked, and with `with_context` a `ToolContext`
    behind it; without a handler the tool is manual: the application hears of the call and answers it. What a handler
    returns is dumped as JSON unless it is text already. `origin`: where the tool comes from, for people.
    Raises `ConfigError` for a name or `parameters` that the server would refuse, and with them the whole session.
    """

    name: str
    description: str = ""
    handler: Callable[..., object] | None = None
    parameters: Mapping[str, Any] = field(default_factory=lambda: {"type": "object", "properties": {}})
    signature: FunctionSchema | None = None
    with_context: bool = False
    origin: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ConfigError(f"tool {self.name!r}: a name has 1 to 64 of the characters a-z A-Z 0-9 _ and -")
        if self.parameters.get("type") != "object":
            raise ConfigError(f'tool {self.name}: its parameters must be a JSON schema with "type": "object"')

    @classmethod
    def of(cls, function: Callable[..., object], *, name: str = "", description: str = "", origin: str = "") -> Tool:
        """A Python function as a tool; `name` and `description` win over its own. Its parameters are given by name,
        checked and converted; one annotated `ToolContext` is told about the call. Raises `ConfigError`."""
        schema = FunctionSchema.of(function, name=name, description=description)
        return cls(schema.name, schema.description, function, schema.parameters, schema, origin=origin)

    def declaration(self) -> dict[str, Any]:
        """This tool in `session.update`."""
        return {
            "type": "function",
            "name": self.name,
            "description": self.description,
            "parameters": dict(self.parameters),
        }


class ToolRegistry:
    """The tools that one agent may use, in the order in which they were added; one added again replaces the earlier."""

    def __init__(
        self, tools: Iterable[Tool | Callable[..., object]] = (), *, max_output_chars: int = MAX_OUTPUT_CHARS
    ) -> None:
        """A longer output than `max_output_chars` is cut, with a note to the model."""
        self._tools: dict[str, Tool] = {}
        self._max_output_chars = max_output_chars
        self._threads = trio.CapacityLimiter(MAX_THREADS)
        for tool in tools:
            self.add(tool)

    def add(self, tool: _Added) -> _Added:
        """Add a `Tool` or a function, and return it, so this is a decorator too (`@registry.add`).

        Raises `ConfigError` for a function that can not be a tool, and for the names of the built-in tools.
        """
        self._add(tool if isinstance(tool, Tool) else Tool.of(tool))
        return tool

    def tool(self, *, name: str = "", description: str = "") -> Callable[[_Added], _Added]:
        """The decorator with another name or description than the function's own."""

        def decorate(function: _Added) -> _Added:
            if isinstance(function, Tool):
                raise ConfigError(f"tool {function.name}: the decorator takes a function; use add for a Tool")
            self._add(Tool.of(function, name=name, description=description))
            return function

        return decorate

    def _add(self, tool: Tool) -> None:
        if tool.name in call_tools.BUILT_IN:
            raise ConfigError(f"tool {tool.name}: the bridge has a tool of this name; choose another")
        self._tools.pop(tool.name, None)
        self._tools[tool.name] = tool

    def remove(self, name: str) -> None:
        """Forget a tool; a running call of it goes on. Raises `ConfigError` if there is none."""
        if self._tools.pop(name, None) is None:
            raise ConfigError(f"tool {name}: there is none to remove; known: {self._known()}")

    def overlaid(self, tools: Iterable[Tool]) -> ToolRegistry:
        """This registry's tools with `tools` over them, as another registry that shares its threads and its limit."""
        registry = ToolRegistry([*self, *tools], max_output_chars=self._max_output_chars)
        registry._threads = self._threads
        return registry

    def __iter__(self) -> Iterator[Tool]:
        return iter(list(self._tools.values()))

    def __contains__(self, name: str) -> bool:
        return name in self._tools

    def __len__(self) -> int:
        return len(self._tools)

    def declarations(self) -> list[dict[str, Any]]:
        """The function declarations for `session.update`."""
        return [tool.declaration() for tool in self._tools.values()]

    def is_manual(self, name: str) -> bool:
        """Whether the application answers calls of this tool: it is known, and has no handler."""
        tool = self._tools.get(name)
        return tool is not None and tool.handler is None

    async def run(self, name: str, arguments: str, *, timeout_s: float, context: ToolContext | None = None) -> str:
        """The output of one call, as the text that the model is sent. `arguments` is the model's JSON, maybe broken.

        Never raises but for cancellation (and KeyboardInterrupt). A function without a result (`-> None`) says "done";
        another one that returns None says "null".
        """
        try:
            prepared = self._prepared(name, arguments, context)
        except ArgumentError as error:
            return f"Error: {error}"
        tool, function = prepared
        secret = context.secure_digits.values() if context is not None else ()
        try:
            with trio.move_on_after(timeout_s) as limit:
                text = _dumped(await self._called(function), tool)
        except ToolError as error:
            why = scrubbed(str(error.__cause__ or error), arguments, secret)
            _log.warning("tool %s failed: %s", name, why)
            return self._cut(f"Error: {error}")
        except (Exception, SystemExit) as error:
            # The tool is the application's code: whatever it raises is the model's to hear and ours to log, but for what it
            # was given.
            text = scrubbed("".join(traceback.format_exception(_from_the_tool(error))).rstrip(), arguments, secret)
            _log.error("tool %s failed", name, extra={"traceback": text})
            cause = _first(error)
            return self._cut(f"Error: {name} failed: {type(cause).__name__}: {cause}")
        if limit.cancelled_caught:
            return f"Error: {name} did not answer within {timeout_s:g} s"
        return self._cut(text)

    def _prepared(self, name: str, arguments: str, context: ToolContext | None) -> tuple[Tool, Callable[[], object]]:
        """What to call for these arguments. Raises `ArgumentError` with what the model is told."""
        tool = self._tools.get(name)
        if tool is None:
            raise ArgumentError(f"there is no tool named {name!r}. Known: {self._known()}")
        if tool.handler is None:
            raise ArgumentError(f"nobody answers the tool {name!r} here")
        try:
            decoded = msgspec.json.decode(arguments or "{}")
            decoded = {} if decoded is None else decoded  # Models write null where there is nothing to give.
        except (msgspec.DecodeError, RecursionError) as error:
            raise ArgumentError(f"the arguments are not valid JSON: {error}") from error
        if not isinstance(decoded, dict):
            raise ArgumentError("the arguments must be a JSON object")
        if tool.signature is None:
            more = (context or ToolContext(),) if tool.with_context else ()
            return tool, partial(tool.handler, decoded, *more)
        return tool, partial(tool.handler, **tool.signature.bind(decoded, context))

    async def _called(self, function: Callable[[], object]) -> object:
        result: object
        if inspect.iscoroutinefunction(function) or _is_async_object(function):
            result = function()
        else:
            # In a tuple, since trio takes no coroutine from a thread: a lambda or a wrapper may hand one out.
            (result,) = await trio.to_thread.run_sync(
                lambda: (function(),), abandon_on_cancel=True, limiter=self._threads
            )
        return await result if inspect.isawaitable(result) else result

    def _cut(self, text: str) -> str:
        """`text`, not too long, and without what UTF-8 can not hold (a lone surrogate would break the message)."""
        if len(text) > self._max_output_chars:
            note = f" ... [cut: {len(text)} characters, of which these are the first {self._max_output_chars}]"
            text = text[: self._max_output_chars] + note
        return text.encode("utf-8", "replace").decode()

    def _known(self) -> str:
        return ", ".join(sorted(self._tools)) or "none"


def _is_async_object(function: Callable[[], object]) -> bool:
    """Whether an object (perhaps in a partial) has an async `__call__`."""
    bare = function.func if isinstance(function, partial) else function
    return inspect.iscoroutinefunction(getattr(type(bare), "__call__", None))  # noqa: B004


def _dumped(result: object, tool: Tool) -> str:
    if isinstance(result, str):
        return result
    if result is None and tool.signature is not None and tool.signature.returns_nothing:
        return "done"
    return msgspec.json.encode(result, enc_hook=str).decode()


# Whose frames lie between the bridge and a tool.
_BETWEEN = frozenset({"bridge", "trio", "outcome"})


def _from_the_tool(error: BaseException) -> BaseException:
    """The same, its traceback beginning in the tool: above that are fifteen lines of how we came to call it."""
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_globals.get("__name__", "").partition(".")[0] in _BETWEEN:
        frames = frames.tb_next
    return error.with_traceback(frames or error.__traceback__)


def _first(error: BaseException) -> BaseException:
    """The first cause in a group, such as an async tool's nursery raises."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
