"""An agent's Python tool files, `agents.NAME.tools`: each is run once and gives its tools.

    async def order_status(number: str) -> dict[str, str]:      # a public function is a tool (`tool_schema`)
        \"\"\"Where an order is now.\"\"\"

    TOOLS = ["order_status"]       # these alone: names, functions or `Tool`s; `__all__` means the same, by names
    FUNCTIONS = [{"name": ...}]    # or the shape of the OpenSIPS AI Voice Connector, see `opensips_functions`

A file that can not be loaded is a `ConfigError` that names setting, file and line, at the start and in `check-config`. It
never costs a call: a file is run when the settings are loaded. One whose text is the same as before is not run again, so
what it keeps in memory outlives a reload; functions of a file's older text go on with their own globals.
"""

from __future__ import annotations

import dataclasses
import inspect
import sys
import traceback
import types
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bridge.errors import ConfigError
from bridge.opensips_functions import tools_of_functions
from bridge.tools import Tool


@dataclass(frozen=True, slots=True)
class _Loaded:
    source: bytes
    tools: list[Tool]


_loaded: dict[Path, _Loaded] = {}


def load_tool_file(name: str, place: str) -> list[Tool]:
    """The tools of one file, in its own order. `place` is the setting that names it, and begins each error.

    Blocks for as long as the file's own code does. Raises `ConfigError`.
    """
    path = Path(name).resolve()
    try:
        source = path.read_bytes()
    except FileNotFoundError:
        raise ConfigError.at(
            place, f"{name}: no such file (paths begin at the folder of the settings' file)"
        ) from None
    except OSError as error:
        raise ConfigError.at(place, f"{name}: cannot be read: {error.strerror or error}") from error
    known = _loaded.get(path)
    if known is None or known.source != source:
        try:
            _loaded[path] = known = _Loaded(source, _tools_of(_run(path, source), path))
        except ConfigError as error:
            raise ConfigError.at(place, str(error)) from error
    return list(known.tools)


def _run(path: Path, source: bytes) -> types.ModuleType:
    """The file as a module. It is compiled here, as Python's own cache goes by the second in which a file was changed."""
    # Dataclasses and forward references look their module up by name; no import finds this one.
    module = types.ModuleType(f"tool_file_{path.stem}_{zlib.crc32(bytes(path)):08x}")
    module.__file__ = str(path)
    folder = str(path.parent)
    if folder not in sys.path:
        sys.path.append(folder)  # for modules of its own beside it; last, so that they hide nobody else's
    before = sys.modules.get(module.__name__)
    sys.modules[module.__name__] = module
    try:
        exec(compile(source, str(path), "exec", dont_inherit=True), module.__dict__)
    except BaseException as error:
        _restore(module.__name__, before)
        if not isinstance(error, Exception | SystemExit):
            raise
        raise ConfigError(_told(path, error)) from error
    return module


def _restore(name: str, module: types.ModuleType | None) -> None:
    if module is None:
        del sys.modules[name]
    else:
        sys.modules[name] = module


def _told(path: Path, error: BaseException) -> str:
    """`path:line: what is wrong`, with the line of this file in which it went wrong."""
    what = f"{type(error).__name__}: {error}"
    line: int | None = None
    if isinstance(error, SyntaxError) and error.filename == str(path):
        line, what = error.lineno, f"SyntaxError: {error.msg}"
    else:
        line = next(
            (it.lineno for it in reversed(traceback.extract_tb(error.__traceback__)) if it.filename == str(path)),
            None,
        )
    if isinstance(error, ModuleNotFoundError):
        what += "; install it where the bridge is installed"
    return f"{path}:{line}: {what}" if line else f"{path}: {what}"


def _tools_of(module: types.ModuleType, path: Path) -> list[Tool]:
    functions = getattr(module, "FUNCTIONS", None)
    if isinstance(functions, list) and "TOOLS" not in vars(module):
        return tools_of_functions(functions, module, str(path))
    chosen = list(_chosen(module, path))
    if not chosen:
        raise ConfigError(f"{path}: no tool in it: write a function whose name does not begin with _")
    return [_tool(it, path) for it in chosen]


def _chosen(module: types.ModuleType, path: Path) -> Iterator[object]:
    """What of the module is to be a tool."""
    for key in ("TOOLS", "__all__"):
        listed = getattr(module, key, None)
        if listed is None:
            continue
        if isinstance(listed, str) or not isinstance(listed, list | tuple):
            raise ConfigError(f'{path}: {key} must be a list, like {key} = ["order_status"]')
        for it in listed:
            if isinstance(it, str) and not hasattr(module, it):
                raise ConfigError(f"{path}: {key} names {it!r}, which the file does not define")
            yield getattr(module, it) if isinstance(it, str) else it
        return
    for name, it in vars(module).items():
        function = inspect.isfunction(it) and it.__module__ == module.__name__
        if not name.startswith("_") and (function or isinstance(it, Tool)):
            yield it


def _tool(it: object, path: Path) -> Tool:
    if isinstance(it, Tool):
        return it if it.origin else dataclasses.replace(it, origin=str(path))
    if not callable(it):
        raise ConfigError(f"{path}: {it!r} is no function and no bridge.Tool")
    line = _line_of(it)
    where = f"{path}:{line}" if line else str(path)
    try:
        return Tool.of(it, origin=where)
    except ConfigError as error:
        raise ConfigError(
            f"{where}: {error} (what is no tool begins with _, or stands outside of a list TOOLS)"
        ) from error


def _line_of(function: Callable[..., object]) -> int | None:
    code = getattr(inspect.unwrap(function), "__code__", None)
    return code.co_firstlineno if isinstance(code, types.CodeType) else None
