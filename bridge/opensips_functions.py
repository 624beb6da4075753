"""Functions files of the OpenSIPS AI Voice Connector as tools.

Such a file has a list FUNCTIONS of dicts (name, description, parameters) and functions of the same names, called as
`function(engine, arguments)` with the arguments as JSON text. `engine` is here an `Engine`: what such functions use of
theirs, on a call of ours. Plain functions run in a thread and may block; async ones get an event loop of asyncio in a
thread, since that is what they were written for. Otherwise than with older versions of theirs, each call has exactly one
output for the model: what the function returns, "done" for None, or what went wrong.

Their built-in tools are not offered: `terminate_call` is our `hang_up`, `transfer_call` goes by `agents.NAME.transfers`.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import types
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import trio

from bridge.errors import ConfigError, ToolError
from bridge.live_call import LiveCall
from bridge.tool_schema import ToolContext
from bridge.tools import Tool


def tools_of_functions(functions: Sequence[object], module: types.ModuleType, path: str) -> list[Tool]:
    """A tool for each entry of FUNCTIONS. Raises `ConfigError`, which begins with `path`."""
    return [_tool(entry, f"{path}: FUNCTIONS[{index}]", module) for index, entry in enumerate(functions)]


def _tool(entry: object, where: str, module: types.ModuleType) -> Tool:
    if not isinstance(entry, Mapping) or not isinstance(entry.get("name"), str):
        raise ConfigError(f"{where}: must be a dict with name, description and parameters")
    name, parameters = entry["name"], entry.get("parameters") or {"type": "object", "properties": {}}
    if not isinstance(parameters, Mapping):
        raise ConfigError(f"{where}: parameters must be a JSON schema, as a dict")
    function = getattr(module, name, None)
    if not callable(function):
        raise ConfigError(f"{where}: there is no function {name!r} in the file")
    line = getattr(getattr(function, "__code__", None), "co_firstlineno", None)
    try:
        return Tool(
            name,
            str(entry.get("description", "")),
            _handler(function),
            parameters,
            with_context=True,
            origin=f"{module.__file__}:{line}" if line else str(module.__file__),
        )
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error


def _handler(function: Callable[..., object]) -> Callable[[Mapping[str, Any], ToolContext], object]:
    def call(arguments: Mapping[str, Any], context: ToolContext) -> object:
        result = function(Engine(context), json.dumps(arguments))
        if inspect.isawaitable(result):
            result = asyncio.run(_awaited(result))
        return "done" if result is None else result

    return call


async def _awaited(result: Awaitable[object]) -> object:
    return await result


class Engine:
    """What a function sees of the call that it serves. All of it may be used from the function's thread.

    `call.call_id`, `call.to`, `call.caller`; `call.terminated = True` and `terminate_call()` end the call when the goodbye
    has been heard; `transfer_call(NAME)` hands the caller over to a destination of the agent's profile.
    """

    def __init__(self, context: ToolContext) -> None:
        self._live: LiveCall | None = context.call
        self.context = context
        self.call = EngineCall(self, context)

    def terminate_call(self) -> None:
        """Hang up when everything said so far has been heard."""
        live = self._running()
        _in_trio(lambda: live.hang_up("a function ended the call"))

    def transfer_call(self, destination: str = "", number: str = "") -> None:
        """Hand the caller over; without a name to the first destination of the profile. Raises `ConfigError` where there is
        none of this name."""
        live = self._running()
        _in_trio(lambda: live.transfer(destination or next(iter(live.destinations), "NAME"), number))

    def _running(self) -> LiveCall:
        if self._live is None:
            raise ToolError("this works in a phone call only")
        return self._live


class EngineCall:
    """`engine.call`. `b2b_key` is our call id, as theirs tells calls apart by it."""

    def __init__(self, engine: Engine, context: ToolContext) -> None:
        self._engine = engine
        self._terminated = False
        self.call_id = self.b2b_key = context.call_id
        self.to, self.caller = context.called, context.caller

    @property
    def terminated(self) -> bool:
        return self._terminated

    @terminated.setter
    def terminated(self, ends: bool) -> None:
        if ends and not self._terminated:
            self._engine.terminate_call()
        self._terminated = self._terminated or ends

    @property
    def mi_conn(self) -> object:
        raise ToolError("there is no OpenSIPS here: call engine.transfer_call(NAME) or engine.terminate_call()")


def _in_trio(act: Callable[[], None]) -> None:
    """Carry out something on the call, from whichever thread."""
    if trio.lowlevel.in_trio_run():
        act()
    else:
        trio.from_thread.run_sync(act)
