"""Every setting, typed and frozen: defaults here < `bridge.toml` < `BRIDGE_*` environment < command line.

`load_config` is pure: text, environment and overrides in, one `Config` out, or a `ConfigError` that names the line, the
key and the remedy. `warnings_of` tells what is right and yet worth a word. A module is handed the one section it needs,
never the whole `Config`. Units stand in the names.
`bridge.toml` in the root of the repository explains every key; a test compares it with the defaults below.
"""

from __future__ import annotations

import enum
import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import PurePath
from typing import Any, Literal
from urllib.parse import urlsplit

import msgspec

from bridge import mcp_servers, recording, routes, tool_hook
from bridge.agent import NO_SOUND, Agent, AgentSounds, problems
from bridge.errors import ConfigError
from bridge.prompt_lint import unkept_promises
from bridge.routes import Route
from bridge.session import check_agent, session_of
from bridge.session_advice import model_advice, session_advice
from bridge.toml_lines import dotted, line_of, lines_of
from bridge.validation import converted


class MediaFormat(enum.StrEnum):
    """Asterisk's names of the formats that a call's audio may have on the AudioSocket."""

    SLIN = "slin"
    SLIN16 = "slin16"
    SLIN24 = "slin24"

    @property
    def rate_hz(self) -> int:
        return _RATES_HZ[self]


_RATES_HZ = {MediaFormat.SLIN: 8000, MediaFormat.SLIN16: 16000, MediaFormat.SLIN24: 24000}


# "auto" is settled when Asterisk has told its version (`asterisk_version.media_format`).
FormatChoice = Literal["auto", "slin", "slin16", "slin24"]


# "auto" is settled at each connection (`asterisk_version.requests_by`).
RequestsChoice = Literal["auto", "websocket", "http"]


def media_format_name(rate_hz: int) -> str:
    """Asterisk's name of the format with this rate."""
    return next(name.value for name, rate in _RATES_HZ.items() if rate == rate_hz)


class Server(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where Asterisk's AudioSocket connections arrive, and how many processes take calls.

    `workers` above 1 makes `serve` a supervisor of so many processes; `worker` is the number that each of them has, 0
    where there is only one. `Config.for_worker` says what a number changes.
    """

    audiosocket_host: str = "127.0.0.1"
    audiosocket_port: int = 9092
    accept_plain_calls: bool = True
    max_calls: int = 100
    max_lateness_ms: float = 10.0
    log_format: Literal["console", "json"] = "console"
    workers: int = 1
    worker: int = 0
    health_address: str = "127.0.0.1:9192"
    control_address: str = "127.0.0.1:9292"
    control_token: str = ""
    data_dir: str = "data"


class Asterisk(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The control connection (ARI) and what Asterisk is asked for."""

    enabled: bool = True
    url: str = "ws://127.0.0.1:8088"
    username: str = "bridge"
    password: str = ""
    app: str = "bridge-1"
    requests: RequestsChoice = "auto"
    media_address: str = "127.0.0.1:9092"
    format: FormatChoice = "slin16"
    answer: Literal["when_ready", "at_once"] = "when_ready"
    continue_context: str = ""
    continue_extension: str = ""
    lag_ms: int = 0


class Realtime(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The Realtime server: where it is, how it knows us, and which dialect it speaks. `endpoint` makes sense of it."""

    url: str = "wss://api.openai.com/v1/realtime"
    model: str = "gpt-realtime-2.1"
    api_key: str = ""
    auth: Literal["auto", "bearer", "api-key", "query", "subprotocol", "none"] = "auto"
    auth_query: str = "api_key"
    query: dict[str, str] = {}
    headers: dict[str, str] = {}
    dialect: Literal["auto", "ga", "beta", "xai"] = "auto"
    ping_interval_s: float = 20.0
    append_ms: Literal[20, 40, 60, 100] = 20
    prices: str = ""
    priced_as: str = ""
    session_max_s: float = 0.0


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long we wait for others. Seconds, unless the name says otherwise."""

    identify_s: float = 2.0
    media_arrival_s: float = 5.0
    media_silent_s: float = 60.0
    first_frame_s: float = 1.0
    model_connect_s: float = 8.0
    model_send_s: float = 5.0
    ari_request_s: float = 2.0
    tool_s: float = 15.0
    goodbye_s: float = 10.0
    farewell_s: float = 3.0
    websocket_close_s: float = 2.0
    response_stall_s: float = 8.0
    caller_silent_s: float = 120.0
    caller_silent_prompt_s: float = 20.0
    hold_s: float = 600.0
    max_duration_s: float = 1800.0
    max_duration_warning_s: float = 60.0
    drain_s: float = 60.0
    reconnect_s: float = 20.0
    idle_prompts: int = 3
    max_queued_speech_s: float = 600.0
    caller_waits_s: float = 4.0
    caller_waits_repeat_s: float = 8.0


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole file. `agents` always holds `default`."""

    server: Server = Server()
    asterisk: Asterisk = Asterisk()
    realtime: Realtime = Realtime()
    limits: Limits = Limits()
    agents: dict[str, Agent] = {}
    routes: list[Route] = []

    def for_worker(self, number: int) -> Config:
        """The settings of one worker process, `number` counting from 1: ports and a Stasis app of its own.

        Worker 3 of port 9092, app `bridge-1`, health port 9192 and control port 9292 has 9094, `bridge-3`, 9194 and 9294.
        Port 0 (any) stays.
        """
        server, asterisk = self.server, self.asterisk
        port, media, health = server.audiosocket_port, asterisk.media_address, server.health_address
        return msgspec.structs.replace(
            self,
            server=msgspec.structs.replace(
                server,
                workers=1,
                worker=number,
                audiosocket_port=port and port + number - 1,
                health_address=health and _port_up(health, number - 1),
                control_address=server.control_address and _port_up(server.control_address, number - 1),
            ),
            asterisk=msgspec.structs.replace(
                asterisk,
                app=f"{_APP_NUMBER.sub('', asterisk.app)}-{number}",
                media_address=_port_up(media, number - 1),
            ),
        )


_APP_NUMBER = re.compile(r"-\d+$", re.ASCII)


def _port_up(address: str, by: int) -> str:
    host, _, port = address.rpartition(":")
    return f"{host}:{int(port) + by if int(port) else 0}"


# Deployment scalars only; secrets come from here, so that no file needs to hold one. The first name wins.
_ENVIRONMENT: tuple[tuple[str, str], ...] = (
    ("BRIDGE_AUDIOSOCKET_HOST", "server.audiosocket_host"),
    ("BRIDGE_AUDIOSOCKET_PORT", "server.audiosocket_port"),
    ("BRIDGE_MAX_CALLS", "server.max_calls"),
    ("BRIDGE_LOG_FORMAT", "server.log_format"),
    ("BRIDGE_WORKERS", "server.workers"),
    ("BRIDGE_WORKER", "server.worker"),
    ("BRIDGE_HEALTH_ADDRESS", "server.health_address"),
    ("BRIDGE_CONTROL_ADDRESS", "server.control_address"),
    ("BRIDGE_CONTROL_TOKEN", "server.control_token"),
    ("BRIDGE_DATA_DIR", "server.data_dir"),
    ("BRIDGE_ARI_URL", "asterisk.url"),
    ("BRIDGE_ARI_USERNAME", "asterisk.username"),
    ("BRIDGE_ARI_PASSWORD", "asterisk.password"),
    ("BRIDGE_ARI_APP", "asterisk.app"),
    ("BRIDGE_MEDIA_ADDRESS", "asterisk.media_address"),
    ("BRIDGE_MEDIA_FORMAT", "asterisk.format"),
    ("BRIDGE_REALTIME_URL", "realtime.url"),
    ("BRIDGE_REALTIME_MODEL", "realtime.model"),
    ("BRIDGE_REALTIME_API_KEY", "realtime.api_key"),
    ("OPENAI_API_KEY", "realtime.api_key"),
)

SECRETS = frozenset(
    {"server.control_token", "asterisk.password", "realtime.api_key", "realtime.headers", "realtime.query"}
)
# What a Realtime URL says openly; every other value in a query may be a key.
OPEN_PARAMETERS = frozenset({"model", "deployment", "api-version", "intent", "protocol"})


def masked_url(url: str) -> str:
    """`url` as logs, errors and `check-config` may show it: without userinfo, and with unknown query values hidden."""
    before, mark, query = url.partition("?")
    scheme, slashes, rest = before.partition("//")
    place, slash, path = rest.partition("/")
    place = f"***@{place.rpartition('@')[2]}" if "@" in place else place
    shown = "&".join(
        part if name in OPEN_PARAMETERS else f"{name}{equals}***" if equals else "***"
        for part in query.partition("#")[0].split("&")
        for name, equals, _ in [part.partition("=")]
    )
    return f"{scheme}{slashes}{place}{slash}{path.partition('#')[0]}{mark}{shown if mark else ''}"


def load_config(
    text: str,
    environ: Mapping[str, str],
    overrides: Mapping[str, str] | None = None,
    *,
    source: str = "bridge.toml",
    folder: PurePath | None = None,
) -> Config:
    """The effective settings from a TOML `text`, the environment, and `section.key` overrides of the command line.

    Relative paths in it are taken from `folder`, where the text's own file lies (none given: left as they are). With
    `server.worker` they are that worker's, see `Config.for_worker`.

    Raises `ConfigError`, whose message names the source, the key and what is expected there.
    """
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        told = _TOML_LINE.search(str(error))
        end = text.count("\n") + 1
        raise ConfigError(f"{source}:{told[1] if told else end}: not valid TOML: {error}") from error
    try:
        config = _with_secrets(_convert(tree), environ)
    except ConfigError as error:
        raise ConfigError(located(str(error), text, {}, {}, source=source), place=error.place) from error
    for name, path in reversed(_ENVIRONMENT):
        if environ.get(name):
            _assign(tree, path, environ[name])
            config = _convert_from(f"environment variable {name}", tree)
    for path, value in (overrides or {}).items():
        if path.partition(".")[0] not in _SCALAR_SECTIONS or path.count(".") != 1:
            known = ", ".join(sorted(_SCALAR_SECTIONS))
            raise ConfigError(f"command line, {path}: only SECTION.KEY with a section of {known} can be set there")
        _assign(tree, path, value)
        config = _convert_from(f"command line, {path}", tree)
    config = _with_secrets(config, environ)
    if config.server.worker:
        config = config.for_worker(config.server.worker)
    return _with_paths_from(folder, config) if folder else config


def located(
    message: str, text: str, environ: Mapping[str, str], overrides: Mapping[str, str], *, source: str = "bridge.toml"
) -> str:
    """`message` with what gave the setting that it begins with: `bridge.toml:17: realtime.url: ...`.

    For the errors of `load_config`, and of what checks its result, given the same arguments. As it is if it begins with
    no setting, or with one that nobody set.
    """
    place = message.partition(": ")[0]
    if place in overrides:
        return f"command line, {message}"
    for name, path in _ENVIRONMENT:
        if path == place and environ.get(name):
            return f"environment variable {name}: {message}"
    line = line_of(lines_of(text), place)
    return f"{source}:{line}: {message}" if line else message


def _with_secrets(config: Config, environ: Mapping[str, str]) -> Config:
    def read(value: str, where: str) -> str:
        return mcp_servers.from_environment(value, environ, where)

    agents = {}
    for name, agent in config.agents.items():
        at = dotted(("agents", name))
        agents[name] = msgspec.structs.replace(
            agent,
            mcp=mcp_servers.with_secrets(agent.mcp, environ, f"{at}.mcp"),
            tool_hook=tool_hook.with_secrets(agent.tool_hook, read, f"{at}.tool_hook"),
        )
    return msgspec.structs.replace(config, agents=agents)


def _with_paths_from(folder: PurePath, config: Config) -> Config:
    def complete(sounds: AgentSounds) -> AgentSounds:
        files = {key: name for key, name in msgspec.structs.asdict(sounds).items() if name not in ("", NO_SOUND)}
        return msgspec.structs.replace(sounds, **{key: str(folder / name) for key, name in files.items()})

    agents = {
        name: msgspec.structs.replace(
            agent,
            sounds=complete(agent.sounds),
            recording=recording.below(agent.recording, folder),
            tools=[str(folder / file) for file in agent.tools],
        )
        for name, agent in config.agents.items()
    }
    prices = str(folder / config.realtime.prices) if config.realtime.prices else ""
    realtime = msgspec.structs.replace(config.realtime, prices=prices)
    server = msgspec.structs.replace(config.server, data_dir=str(folder / config.server.data_dir))
    return msgspec.structs.replace(config, server=server, agents=agents, realtime=realtime)


# tomllib says the line in its message only (before Python 3.14), or "at end of document".
_TOML_LINE = re.compile(r"at line (\d+)")

_SCALAR_SECTIONS = frozenset({"server", "asterisk", "realtime", "limits"})


def _assign(tree: dict[str, Any], path: str, value: str) -> None:
    section, _, key = path.partition(".")
    tree.setdefault(section, {})[key] = value


def _convert_from(source: str, tree: dict[str, Any]) -> Config:
    """`_convert` after a setting that `source`, and no line of the file, gave."""
    try:
        return _convert(tree)
    except ConfigError as error:
        # "command line, limits.tool_s: limits.tool_s: must be ..." would say it twice.
        told = str(error) if not source.endswith(f", {error.place}") else str(error).partition(": ")[2]
        raise ConfigError(f"{source}: {told}", place=error.place) from error


def _convert(tree: dict[str, Any]) -> Config:
    """The settings of a parsed file. Raises `ConfigError` whose message begins with its `place`."""
    try:
        # Not strict: the environment and the command line hold numbers as strings.
        config = converted(tree, Config, strict=False)
    except ConfigError as error:
        remedy = str(error)
        if remedy == "must be a table" and "[" not in error.place:
            remedy += f": write its keys below a line [{error.place}]"
        raise ConfigError(f"{error.place or 'top level'}: {remedy}", place=error.place) from error
    config = msgspec.structs.replace(config, agents={"default": Agent()} | config.agents)
    _check(config)
    return config


def _check(config: Config) -> None:
    """What types can not say. Each message says what to do."""

    def require(condition: bool, place: str, remedy: str) -> None:
        if not condition:
            raise ConfigError(f"{place}: {remedy}", place=place)

    known = ", ".join(sorted(config.agents))
    for index, route in enumerate(config.routes):
        place = f"routes[{index}].agent"
        require(route.agent in config.agents, place, f"agent {route.agent!r} is not defined; known: {known}")
        for place, remedy in routes.problems(route, f"routes[{index}]"):
            require(False, place, remedy)
    require(
        config.realtime.url.startswith(("wss://", "ws://", "https://", "http://")),
        "realtime.url",
        "must start with wss:// (or ws://), like wss://HOST/v1/realtime",
    )
    require(bool(config.realtime.auth_query), "realtime.auth_query", "must name a query parameter, like api_key")
    require(config.asterisk.url.startswith(("ws://", "wss://")), "asterisk.url", "must be like ws://127.0.0.1:8088")
    require(
        bool(_ADDRESS.fullmatch(config.asterisk.media_address)),
        "asterisk.media_address",
        "must be HOST:PORT, our listener as Asterisk reaches it",
    )
    require(config.realtime.ping_interval_s > 0, "realtime.ping_interval_s", "must be above zero")
    require(0 <= config.asterisk.lag_ms <= 1000, "asterisk.lag_ms", "must be 0 to 1000")
    require(0 <= config.server.audiosocket_port <= 65535, "server.audiosocket_port", "must be 0 to 65535")
    require(config.server.max_calls > 0, "server.max_calls", "must be at least 1")
    require(
        0 <= config.server.max_lateness_ms <= 60,
        "server.max_lateness_ms",
        "must be 0 (any) to 60: a telephone's jitter buffer holds no more",
    )
    _check_workers(config, require)
    for name, value in msgspec.structs.asdict(config.limits).items():
        if name in _MAY_BE_ZERO:
            require(value >= 0, f"limits.{name}", "must not be negative; 0 is for never")
        else:
            require(value > 0, f"limits.{name}", "must be above zero")
    require(config.realtime.session_max_s >= 0, "realtime.session_max_s", "must not be negative")
    require(
        config.limits.caller_waits_s >= 1,
        "limits.caller_waits_s",
        "must be at least 1: models take about that long to answer, and would be announced each time",
    )
    require(
        config.limits.caller_waits_repeat_s >= config.limits.caller_waits_s,
        "limits.caller_waits_repeat_s",
        "must not be below limits.caller_waits_s",
    )
    for name, agent in config.agents.items():
        at = dotted(("agents", name))
        for place, remedy in problems(agent, at):
            require(False, place, remedy)
        check_agent(agent, at)
        require(
            not agent.tool_hook.url or agent.tool_hook.timeout_s <= config.limits.tool_s,
            f"{at}.tool_hook.timeout_s",
            "must not be above limits.tool_s, which ends every tool",
        )


_MAY_BE_ZERO = frozenset({"caller_silent_prompt_s", "max_duration_warning_s"})
# A host, and what can be a port.
_ADDRESS = re.compile(r".+:\d{1,5}", re.ASCII)
_TOKEN = re.compile(r"[!-~]{16,}", re.ASCII)
# More than any machine has cores for one process each, and than the ports between the defaults of the two listeners.
_MOST_WORKERS = 100


def _check_workers(config: Config, require: Callable[[bool, str, str], None]) -> None:
    """Each worker has a port of its own, counted up from the first; none may be another's, or beyond the last."""
    server = config.server
    require(1 <= server.workers <= _MOST_WORKERS, "server.workers", f"must be 1 to {_MOST_WORKERS}")
    require(
        0 <= server.worker <= _MOST_WORKERS, "server.worker", f"must be 1 to {_MOST_WORKERS}, or 0 for the only one"
    )
    highest = max(server.workers, server.worker, 1)
    first = server.audiosocket_port
    require(
        first > 0 or server.workers == 1,
        "server.audiosocket_port",
        "must be above 0 with server.workers, which count up",
    )
    require(first + highest - 1 <= 65535, "server.audiosocket_port", f"worker {highest} would be beyond 65535")
    media = int(config.asterisk.media_address.rpartition(":")[2])
    require(media + highest - 1 <= 65535, "asterisk.media_address", f"worker {highest} would be beyond 65535")
    taken = {"that of a worker": range(first, first + highest) if first else range(0)}
    for key, whose, count in (
        ("health_address", "that of the health pages", highest if server.worker else 1),
        ("control_address", "that of a control door", highest),
    ):
        address, place = getattr(server, key), f"server.{key}"
        if not address:
            continue
        require(
            bool(_ADDRESS.fullmatch(address)), place, 'must be HOST:PORT, an address of this machine, or "" for none'
        )
        port = int(address.rpartition(":")[2])
        require(port + highest - 1 <= 65535, place, f"worker {highest} would be beyond 65535")
        ports = range(port, port + count) if port else range(0)
        for other, theirs in taken.items():
            for both in [number for number in ports if number in theirs]:
                require(False, place, f"port {both} is {other}: they take {theirs[0]} to {theirs[-1]}")
        taken[whose] = ports
    require(
        not server.control_token or bool(_TOKEN.fullmatch(server.control_token)),
        "server.control_token",
        "must be at least 16 letters, digits and signs without spaces, like the output of `openssl rand -hex 24`",
    )


def warnings_of(config: Config) -> list[str]:
    """What is valid and yet worth a word at start: old names, retired models, settings that the model does not know."""
    # Other servers have models of the same names, and their own dates.
    at_openai = (urlsplit(config.realtime.url).hostname or "").endswith("api.openai.com")
    model = config.realtime.model if at_openai else ""
    found = model_advice(model)
    for name, agent in config.agents.items():
        at = dotted(("agents", name))
        found += check_agent(agent, at)
        found += unkept_promises(agent, at)
        found += session_advice(session_of(agent, []), model, at)
    return found


def effective(config: Config) -> list[tuple[str, str]]:
    """Every setting as (`section.key`, value), secrets masked: what `check-config` prints."""
    rows: list[tuple[str, str]] = []

    def walk(value: Any, path: str) -> None:
        if (path in SECRETS or mcp_servers.is_secret(path) or tool_hook.is_secret(path)) and value:
            rows.append((path, "(set, hidden)"))
        elif path.endswith((".url", ".server_url")):
            rows.append((path, repr(masked_url(value))))
        elif isinstance(value, dict) and value:
            for key, inner in value.items():
                walk(inner, f"{path}.{key}" if path else key)
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            for index, inner in enumerate(value):
                walk(inner, f"{path}[{index}]")
        else:
            rows.append((path, repr(value)))

    walk(msgspec.to_builtins(config), "")
    return rows
