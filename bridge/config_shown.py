"""Every setting in force, with where it comes from, secrets hidden: what `check-config` prints.

default            server.audiosocket_port = 9092
bridge.toml:3      server.max_calls = 50
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import PurePath
from typing import Any

import msgspec

from bridge import hooks, mcp_servers, tool_hook
from bridge.config import SECRETS, Config, Loaded, masked_url
from bridge.origins import DEFAULT
from bridge.session import HIDDEN
from bridge.toml_lines import dotted

_WIDEST_ORIGIN = 52
_DIM, _PLAIN = "\x1b[2m", "\x1b[0m"


def effective(config: Config) -> list[tuple[str, str]]:
    """Every setting as (`section.key`, value as TOML would write it), secrets masked."""
    return list(_rows(msgspec.to_builtins(config), ""))


def _rows(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if value and (path in SECRETS or any(it.is_secret(path) for it in (hooks, mcp_servers, tool_hook))):
        yield path, HIDDEN
    elif path.endswith(("url", "_url")) and isinstance(value, str):
        yield path, _toml(masked_url(value))
    elif isinstance(value, dict) and value:
        for key, inner in value.items():
            name = dotted((key,))
            yield from _rows(inner, f"{path}.{name}" if path else name)
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        for index, inner in enumerate(value):
            yield from _rows(inner, f"{path}[{index}]")
    else:
        yield path, _toml(value)


def _toml(value: Any) -> str:
    """Text, numbers, switches and lists are written in JSON as in TOML; nothing else is left here but empty tables."""
    return json.dumps(value, ensure_ascii=False)


def shown(loaded: Loaded, *, colours: bool = False) -> str:
    """The whole page, a setting a line, a blank line between tables. With `colours` what is at its default stands back."""
    source = loaded.origins.source
    name = PurePath(source).name
    rows = [
        (loaded.origins.of(path).replace(f"{source}:", f"{name}:", 1), path, value)
        for path, value in effective(loaded.config)
    ]
    width = min(max(len(origin) for origin, _, _ in rows), _WIDEST_ORIGIN)
    lines, table = ([f"# {name} is {source}", ""] if name != source else []), ""
    for origin, path, value in rows:
        mine = _table_of(path)
        if table and mine != table:
            lines.append("")
        table = mine
        line = f"{origin:{width}}  {path} = {value}"
        lines.append(f"{_DIM}{line}{_PLAIN}" if colours and origin == DEFAULT else line)
    return "\n".join(lines)


def _table_of(path: str) -> str:
    """What is told in one block: a section, an agent, a table of an agent."""
    return path.rpartition(".")[0] or path
