"""From the settings of a Realtime server to what a websocket client needs: URL, headers, subprotocols, dialect.

Each provider wants the key in another place and names the model differently (protocol sheet 1.1). "auto" settles that by
the URL alone, so that the URL of a provider's own page can be pasted, in its `https://` form too. Pure; nothing here
shows a secret: errors name settings, and `str` of an `Endpoint` masks what may be a key.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit, urlunsplit

from bridge.agent import Agent
from bridge.config import OPEN_PARAMETERS, Realtime, masked_url
from bridge.dialect import Dialect
from bridge.errors import ConfigError

_SCHEMES = {"https": "wss", "http": "ws"}
_OPENAI, _AZURE, _XAI = "api.openai.com", "openai.azure.com", "api.x.ai"
_PATHS = {_OPENAI: "/v1/realtime", _AZURE: "/openai/v1/realtime", _XAI: "/v1/realtime"}
_AZURE_PREVIEW_PATH = "/openai/realtime"
# Names the session by something else than a model: a call to attach to, or what the session is for (section 1.1).
_NO_MODEL_BESIDE = frozenset({"model", "deployment", "call_id", "intent"})
_JWT = re.compile(r"ey[\w-]+\.[\w-]+\.[\w-]+\Z")
# RFC 9110 token: what a subprotocol may be made of.
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")
_BETA_HEADER = ("OpenAI-Beta", "realtime=v1")


@dataclass(frozen=True, slots=True, repr=False)
class Endpoint:
    """How to connect. `headers` and `subprotocols` may hold the key, and so may `url`; `str` shows none."""

    url: str
    headers: Mapping[str, str]
    subprotocols: tuple[str, ...]
    dialect: Dialect

    @property
    def host(self) -> str:
        """Host and port, for people; never userinfo."""
        return urlsplit(self.url).netloc.rpartition("@")[2]

    @property
    def needs_key(self) -> bool:
        """Whether this is a provider that serves nobody without a key, and there is none."""
        return not self.shows_key and any(_within(urlsplit(self.url).hostname or "", domain) for domain in _PATHS)

    @property
    def shows_key(self) -> bool:
        """Whether anything here may be a key; whether it is a good one only the server knows."""
        names = {name.lower() for name in self.headers}
        with_key = names & {"authorization", "api-key"} or self.subprotocols or "@" in urlsplit(self.url).netloc
        return bool(with_key or dict(parse_qsl(urlsplit(self.url).query)).keys() - OPEN_PARAMETERS)

    def __str__(self) -> str:
        names = ", ".join(self.headers) or "no header"
        offered = "; subprotocol with key" if self.subprotocols else ""
        return f"{masked_url(self.url)} ({names}{offered}; dialect {self.dialect})"

    __repr__ = __str__


def endpoint_of(config: Realtime) -> Endpoint:
    """The endpoint that these settings mean. Raises `ConfigError` with a remedy where they can not work."""
    parts = _split(config.url)
    host = (parts.hostname or "").lower()
    if parts.username is not None and not parts.password:
        raise ConfigError("realtime.url: has a user name without a password before its @")
    if parts.path in ("", "/"):
        parts = parts._replace(path=_default_path(host))
    query = dict(parse_qsl(parts.query, keep_blank_values=True)) | config.query
    azure = _within(host, _AZURE)
    preview = azure and parts.path.rstrip("/") == _AZURE_PREVIEW_PATH
    if preview and "api-version" not in query:
        raise ConfigError(
            "realtime.url: Azure's preview path needs an api-version, like "
            'query = { api-version = "2025-04-01-preview" }; the GA path /openai/v1/realtime needs none'
        )
    dialect = _dialect(config, host, preview=preview)
    if config.model and not _NO_MODEL_BESIDE & query.keys():
        query["deployment" if preview else "model"] = config.model
    headers = dict(config.headers)
    subprotocols: tuple[str, ...] = ()
    key = _usable(config.api_key)
    match _way(config, parts, key, azure=azure):
        case "bearer":
            headers["Authorization"] = f"Bearer {key}"
        case "api-key":
            headers["api-key"] = key
        case "query":
            query[config.auth_query] = key
        case "subprotocol":
            if not _TOKEN.match(key):
                raise ConfigError('realtime.auth: this key can not be a subprotocol; choose another "auth"')
            beta = ("openai-beta.realtime-v1",) if dialect is Dialect.BETA else ()
            subprotocols = ("realtime", f"openai-insecure-api-key.{key}", *beta)
    if dialect is Dialect.BETA and not _given(headers, "openai-beta"):
        headers[_BETA_HEADER[0]] = _BETA_HEADER[1]
    if _within(host, _OPENAI) and _given(headers, "openai-beta"):
        raise ConfigError(
            "realtime: OpenAI refuses the beta dialect since May 2026; take OpenAI-Beta out of realtime.headers and "
            'set realtime.dialect = "ga"'
        )
    return Endpoint(_joined(parts, query), headers, subprotocols, dialect)


def _split(url: str) -> SplitResult:
    """The parts of a websocket URL that names a host. Its `https://` form is taken too."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    if not host:
        # Python's own words would repeat the URL, and the key in it.
        raise ConfigError("realtime.url: names no host, or a port that is none; write it like wss://HOST/v1/realtime")
    return parts._replace(scheme=_SCHEMES.get(parts.scheme, parts.scheme))


def check_agents(endpoint: Endpoint, agents: Mapping[str, Agent]) -> None:
    """Raise `ConfigError` for what these agents want and this server's dialect can not say."""
    for name, agent in agents.items():
        if agent.mcp and endpoint.dialect is Dialect.BETA:
            raise ConfigError(
                f"agents.{name}.mcp: MCP servers need the GA dialect, and the server at realtime.url speaks beta; "
                "take them out, or choose another server"
            )
        if agent.turn_detection.type != "server_vad" and endpoint.dialect is Dialect.XAI:
            raise ConfigError(f'agents.{name}.turn_detection.type: xAI knows "server_vad" only')


def _default_path(host: str) -> str:
    for domain, path in _PATHS.items():
        if _within(host, domain):
            return path
    raise ConfigError(f"realtime.url: has no path; most servers have it at wss://{host}/v1/realtime")


def _within(host: str, domain: str) -> bool:
    return f".{host}".endswith(f".{domain}")


def _dialect(config: Realtime, host: str, *, preview: bool) -> Dialect:
    if config.dialect != "auto":
        return Dialect(config.dialect)
    if preview:
        return Dialect.BETA
    return Dialect.XAI if _within(host, _XAI) else Dialect.GA


def _way(config: Realtime, parts: SplitResult, key: str, *, azure: bool) -> str:
    """How the key is shown: one of `auth`, never "auto"."""
    if not key:
        if config.auth not in ("auto", "none"):
            raise ConfigError(
                f'realtime.auth: "{config.auth}" needs a key; set OPENAI_API_KEY or BRIDGE_REALTIME_API_KEY'
            )
        return "none"
    own = _given(config.headers, "authorization") or _given(config.headers, "api-key") or "@" in parts.netloc
    if config.auth in ("bearer", "api-key") and own:
        raise ConfigError(
            f'realtime.auth: "{config.auth}", and a key in realtime.headers or in the URL as well; keep one of them'
        )
    if config.auth != "auto":
        return config.auth
    if own:
        return "none"
    return "api-key" if azure and not _JWT.match(key) else "bearer"


def _usable(key: str) -> str:
    """The key without the line end that files and shells leave at it. Raises `ConfigError` for what no header takes."""
    key = key.strip()
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigError("realtime.api_key: holds characters that no key has; was more than the key copied?")
    return key


def _given(headers: Mapping[str, str], name: str) -> bool:
    return any(key.lower() == name for key in headers)


def _joined(parts: SplitResult, query: Mapping[str, str]) -> str:
    return urlunsplit(parts._replace(query=urlencode(query), fragment=""))
