"""The model's endpoint of a single call, as a program may choose it: where, how the key is shown, and the key.

Only with `server.control_may_choose_model`, since whoever chooses the endpoint hears the call. What the settings hold for
their own endpoint (key, headers, query) is never sent to another host.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal
from urllib.parse import parse_qs, urlsplit

import msgspec

from bridge.errors import ConfigError

if TYPE_CHECKING:
    # `config` imports the orders that may hold a choice.
    from bridge.config import Realtime


class ModelChoice(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a call's model is, in the words of FreeSWITCH's mod_openai_s2s. `host` may have a port, and `ws://` before it
    for a server without TLS; `path` may have a query, `model=` included. `auth`: the key as a header, or in the query."""

    host: str
    path: str = "v1/realtime"
    auth: Literal["bearer", "query"] = "bearer"
    api_key: str = ""

    def __repr__(self) -> str:
        """Without the key."""
        return f"ModelChoice(host={self.host!r})"


def realtime_at(choice: ModelChoice, configured: Realtime) -> Realtime:
    """The settings of this endpoint; the configured model where the path names none. Raises `ConfigError`."""
    scheme, slashes, host = choice.host.rpartition("://")
    if (slashes and scheme not in ("ws", "wss")) or not host or any(it in host for it in "/?#@ "):
        raise ConfigError("model.host: must be a host, like api.openai.com, or ws://HOST:PORT for one without TLS")
    url = f"{scheme or 'wss'}://{host}/{choice.path.lstrip('/')}"
    same = _place(url) == _place(configured.url)
    key = choice.api_key or (configured.api_key if same else "")
    if not key and not same:
        raise ConfigError("model.api_key: is missing; the key of the settings is for their own host only")
    azure = f".{urlsplit(url).hostname}".endswith(".azure.com")
    return msgspec.structs.replace(
        configured,
        url=url,
        model="" if names_model(url) else configured.model,
        api_key=key,
        auth=choice.auth if key else "auto",
        auth_query="api-key" if azure else configured.auth_query,
        headers=configured.headers if same else {},
        query=configured.query if same else {},
    )


def names_model(url: str) -> bool:
    """Whether the URL itself says which model."""
    return bool({"model", "deployment"} & parse_qs(urlsplit(url).query).keys())


def _place(url: str) -> tuple[bool, str]:
    """Whether there is TLS, and host and port."""
    parts = urlsplit(url)
    return parts.scheme in ("wss", "https"), parts.netloc.lower()
