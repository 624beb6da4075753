"""The settings of MCP servers, `agents.NAME.mcp`: what they are, what can be wrong, and where their secrets come from.

What becomes of them in a session is in `mcp`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import msgspec

from bridge.errors import ConfigError


class McpFilter(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Some tools of an MCP server: by name, or those that it marks as changing nothing."""

    tool_names: list[str] | None = None
    read_only: bool | None = None


class McpApprovals(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Which tools of an MCP server ask before each call, and which never."""

    always: McpFilter | None = None
    never: McpFilter | None = None


class McpServer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A server of tools that the Realtime server calls by itself. `approve` is what we answer when one asks first:
    all calls, none, those of the named tools, or what the application says ("ask")."""

    server_label: str
    server_url: str = ""
    connector_id: str = ""
    tunnel_id: str = ""
    authorization: str = ""
    headers: dict[str, str] = {}
    server_description: str = ""
    allowed_tools: list[str] | McpFilter = []
    require_approval: Literal["always", "never"] | McpApprovals = "always"
    approve: Literal["all", "none", "ask"] | list[str] = "none"


_LABEL = re.compile(r"[a-zA-Z][a-zA-Z0-9_-]*")
_SECRET = re.compile(r"\.mcp\[\d+\]\.(authorization|headers)")


def is_secret(path: str) -> bool:
    """Whether the setting at `path` (`agents.default.mcp[0].headers`) must not be shown."""
    return _SECRET.search(path) is not None


def problems(servers: Sequence[McpServer], place: str) -> Iterator[tuple[str, str]]:
    """What types can not say is wrong with an agent's servers: where (below `place`), and what to do."""
    labels = [server.server_label for server in servers]
    for index, server in enumerate(servers):
        here = f"{place}[{index}]"
        if not _LABEL.fullmatch(server.server_label):
            yield f"{here}.server_label", "must begin with a letter and have only the characters a-z A-Z 0-9 _ and -"
        if labels.count(server.server_label) > 1:
            yield f"{here}.server_label", "is that of another server, too"
        if sum(map(bool, (server.server_url, server.connector_id, server.tunnel_id))) != 1:
            yield here, "needs one of server_url, connector_id and tunnel_id"
        if server.server_url and not server.server_url.startswith("https://"):
            yield (
                f"{here}.server_url",
                "must start with https://, since the Realtime server calls it over the internet",
            )
        if (server.require_approval, server.approve) == ("always", "none"):
            yield (
                here,
                'no tool of it could ever run: say who approves with approve = "all", "ask" or a list of tools, or set '
                'require_approval = "never"',
            )


def from_environment(value: str, environ: Mapping[str, str], where: str) -> str:
    """`value`, or for "$NAME" that environment variable. Raises `ConfigError`, beginning with `where`, if there is none."""
    if not value.startswith("$"):
        return value
    if not environ.get(value[1:]):
        raise ConfigError(f"{where}: the environment variable {value[1:]!r} is not set", place=where)
    return environ[value[1:]]


def with_secrets(servers: Sequence[McpServer], environ: Mapping[str, str], place: str) -> list[McpServer]:
    """`servers` with each "$NAME" in `authorization` and `headers` replaced by that environment variable.

    Raises `ConfigError`, which begins with `place`, for a variable that is not set.
    """

    def read(value: str, where: str) -> str:
        return from_environment(value, environ, where)

    return [
        msgspec.structs.replace(
            server,
            authorization=read(server.authorization, f"{place}[{index}].authorization"),
            headers={name: read(value, f"{place}[{index}].headers.{name}") for name, value in server.headers.items()},
        )
        for index, server in enumerate(servers)
    ]
