"""The settings of an agent's tool hook, `agents.NAME.tool_hook`: one HTTP address that carries out tools.

What is sent and what may be answered is in `tool_reply`, how it is asked in `hook_tools`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from bridge.webhook import header_problems, is_url


class HookTool(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One tool that the hook carries out, as the model is told of it. `parameters`: a JSON schema, empty for none."""

    name: str
    description: str = ""
    parameters: dict[str, Any] = {}

    def schema(self) -> dict[str, Any]:
        """The parameters as the server wants them."""
        return self.parameters or {"type": "object", "properties": {}}


class ToolHook(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where tools are carried out by HTTP; none without `url`. `timeout_s` is for one call of a tool with all its tries."""

    url: str = ""
    secret: str = ""
    timeout_s: float = 10.0
    retries: int = 2
    headers: dict[str, str] = {}
    tools: list[HookTool] = []


_SECRET = re.compile(r"\.tool_hook\.(secret|headers)$")
_TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
MOST_RETRIES = 5


def is_secret(path: str) -> bool:
    """Whether the setting at `path` (`agents.default.tool_hook.secret`) must not be shown."""
    return _SECRET.search(path) is not None


def is_name(name: str) -> bool:
    """Whether the API takes this as the name of a function."""
    return _TOOL_NAME.fullmatch(name) is not None


def problems(hook: ToolHook, place: str) -> Iterator[tuple[str, str]]:
    """What types can not say is wrong with a hook: where (at or below `place`), and what to do."""
    if hook.url and not is_url(hook.url):
        yield f"{place}.url", "must start with https:// (or http://), like https://shop.example.com/tools"
    if hook.tools and not hook.url:
        yield f"{place}.url", "is missing: where are these tools carried out?"
    if not 0 < hook.timeout_s <= 120:
        yield f"{place}.timeout_s", "must be above 0, at most 120"
    if not 0 <= hook.retries <= MOST_RETRIES:
        yield f"{place}.retries", f"must be 0 to {MOST_RETRIES}"
    yield from header_problems(hook.headers, f"{place}.headers")
    names = [tool.name for tool in hook.tools]
    for index, tool in enumerate(hook.tools):
        here = f"{place}.tools[{index}]"
        if not is_name(tool.name):
            yield f"{here}.name", "must have 1 to 64 of the characters a-z A-Z 0-9 _ and -"
        if names.count(tool.name) > 1:
            yield f"{here}.name", "is that of another tool of this hook, too"
        if tool.parameters and tool.parameters.get("type") != "object":
            yield f"{here}.parameters", 'must be a JSON schema with type = "object"'


def with_secrets(hook: ToolHook, read: Callable[[str, str], str], place: str) -> ToolHook:
    """`hook` with `secret` and each header replaced by what `read(value, place)` makes of it: "$NAME" is a variable of the
    environment."""
    return msgspec.structs.replace(
        hook,
        secret=read(hook.secret, f"{place}.secret"),
        headers={name: read(value, f"{place}.headers.{name}") for name, value in hook.headers.items()},
    )
