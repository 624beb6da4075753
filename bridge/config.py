"""Every setting, typed and frozen: defaults here < `bridge.toml` < `BRIDGE_*` environment < command line.

`load_config`: text, environment and overrides in, one `Config` out, or a `ConfigError` that names the line, the key and the
remedy; `load` also says where each setting comes from. `warnings_of` tells what is right and yet worth a word. A module is
handed the one section it needs, never the whole `Config`. Units stand in the names.
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

from bridge import gateway_settings, hooks, mcp_servers, opensips, recording, records, routes, tool_hook
from bridge.agent import NO_SOUND, Agent, AgentSounds, problems
from bridge.environment import VARIABLES
from bridge.errors import ConfigError
from bridge.gateway_settings import Gateway
from bridge.hooks import Hooks
from bridge.instructions_file import read_instructions
from bridge.origins import COMMAND_LINE, Origin, Origins
from bridge.prompt_lint import unkept_promises
from bridge.records import Records
from bridge.routes import Route
from bridge.session import check_agent, session_of
from bridge.session_advice import model_advice, session_advice
from bridge.toml_lines import dotted, lines_of
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
    log_words: bool = False
    workers: int = 1
    worker: int = 0
    health_address: str = "127.0.0.1:9192"
    control_address: str = "127.0.0.1:9292"
    control_token: str = ""
    control_may_choose_model: bool = False
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


class Tracing(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Calls as OpenTelemetry traces. What is empty here is taken from the standard `OTEL_*` environment."""

    enabled: bool = False
    endpoint: str = ""
    headers: dict[str, str] = {}
    service_name: str = ""
    sample_ratio: float = 1.0


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole file. `agents` always holds `default`."""

    server: Server = Server()
    asterisk: Asterisk = Asterisk()
    realtime: Realtime = Realtime()
    limits: Limits = Limits()
    hooks: Hooks = Hooks()
    records: Records = Records()
    gateway: Gateway = Gateway()
    tracing: Tracing = Tracing()
    agents: dict[str, Agent] = {}
    routes: list[Route] = []

    def for_worker(self, number: int) -> Config:
        """The settings of one worker process, `number` counting from 1: ports and a Stasis app of its own.

        Worker 3 of port 9092, app `bridge-1`, health port 9192 and control port 9292 has 9094, `bridge-3`, 9194 and 9294,
        and so for the gateway. Port 0 (any) stays.
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
            gateway=msgspec.structs.replace(self.gateway, address=_port_up(self.gateway.address, number - 1)),
        )


_APP_NUMBER = re.compile(r"-\d+$", re.ASCII)


def _port_up(address: str, by: int) -> str:
    host, _, port = address.rpartition(":")
    return f"{host}:{int(port) + by if int(port) else 0}"


SECRETS = frozenset(
    {
        "server.control_token", "asterisk.password", "realtime.api_key", "realtime.headers", "realtime.query",
        "gateway.token", "tracing.headers",
    }
)  # fmt: skip
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


class Loaded(msgspec.Struct, frozen=True, kw_only=True):
    """The settings in force, where each comes from, what there is to warn of, and the files that they name."""

    config: Config
    origins: Origins
    warnings: list[str] = []
    files: list[str] = []


def load_config(
    text: str,
    environ: Mapping[str, str],
    overrides: Mapping[str, str] | None = None,
    *,
    source: str = "bridge.toml",
    folder: PurePath | None = None,
) -> Config:
    """The effective settings, as `load` says."""
    return load(text, environ, overrides, source=source, folder=folder).config


def load(
    text: str,
    environ: Mapping[str, str],
    overrides: Mapping[str, str] | None = None,
    *,
    source: str = "bridge.toml",
    folder: PurePath | None = None,
) -> Loaded:
    """The effective settings from a TOML `text`, the environment, and `section.key` overrides of the command line.

    If the name `source` ends like that of an INI file, the text is one of the OpenSIPS AI Voice Connector. Relative paths
    in it are taken from `folder`, where the text's own file lies (none given: left as they are); the only files that are
    read are those of `agents.NAME.instructions_file`. With `server.worker` they are that worker's, see
    `Config.for_worker`.

    Raises `ConfigError`, whose message names the source, the key and what is expected there.
    """
    tree, origins, warnings = _parsed(text, source)
    try:
        config = _with_secrets(_convert(tree), environ)
    except ConfigError as error:
        raise ConfigError(origins.located(str(error)), place=error.place) from error
    for setting, warning in opensips.of_environment(environ):
        name = setting.written
        warnings += [warning] if warning else []
        if setting.place:
            earlier = origins.written(setting.place)
            if earlier.startswith(f"{opensips.SECTION}."):
                warnings.append(f"{earlier}: the environment variable {name} wins, other than with OpenSIPS")
            config = _set(tree, origins, setting.place, setting.value, Origin(f"environment variable {name}"))
    for name, path in reversed(VARIABLES):
        if environ.get(name):
            config = _set(tree, origins, path, environ[name], Origin(f"environment variable {name}"))
    for path, value in (overrides or {}).items():
        if path.partition(".")[0] not in _SCALAR_SECTIONS or path.count(".") != 1:
            known = ", ".join(sorted(_SCALAR_SECTIONS))
            raise ConfigError(f"command line, {path}: only SECTION.KEY with a section of {known} can be set there")
        config = _set(tree, origins, path, value, Origin(COMMAND_LINE))
    config = _with_secrets(config, environ)
    if number := config.server.worker:
        config, common = config.for_worker(number), config
        for place in _changed(common, config):
            origins.note(place, Origin(f"{origins.of(place)} (worker {number})"))
    if folder:
        config = _with_paths_from(folder, config)
    try:
        config = _with_instructions(config, origins)
    except ConfigError as error:
        raise ConfigError(origins.located(str(error)), place=error.place) from error
    return Loaded(config=config, origins=origins, warnings=warnings, files=_files_of(config))


def _files_of(config: Config) -> list[str]:
    """Every file that the settings name, each once."""
    files = [config.realtime.prices]
    for agent in config.agents.values():
        sounds = [name for name in msgspec.structs.asdict(agent.sounds).values() if name != NO_SOUND]
        files += [agent.instructions_file, *agent.tools, *sounds]
    return [file for file in dict.fromkeys(files) if file]


def _parsed(text: str, source: str) -> tuple[dict[str, Any], Origins, list[str]]:
    """A file as a tree in our names, where its settings stand, and what to warn of."""
    if source.endswith(opensips.INI_SUFFIXES):
        ini = opensips.parse_ini(text, source)
        tree: dict[str, Any] = {opensips.SECTION: ini.given}
        origins = Origins(source, ini.lines)
        others = ", ".join(f"[{name}]" for name in ini.others)
        warnings = [f"{source}: {others}: not used, since Asterisk does what they are for"] if others else []
    else:
        try:
            tree = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            told = _TOML_LINE.search(str(error))
            end = text.count("\n") + 1
            raise ConfigError(f"{source}:{told[1] if told else end}: not valid TOML: {error}") from error
        origins, warnings = Origins(source, lines_of(text)), []
    try:
        if opensips.SECTION in tree:
            warnings.append(opensips.section(tree, tree.pop(opensips.SECTION), origins))
        _say_instructions_once(tree)
    except ConfigError as error:
        raise ConfigError(origins.located(str(error)), place=error.place) from error
    return tree, origins, warnings


def _set(tree: dict[str, Any], origins: Origins, place: str, value: Any, origin: Origin) -> Config:
    """`_convert` with one more setting, which no line of the file gave."""
    opensips.assign(tree, place, value)
    origins.note(place, origin)
    try:
        return _convert(tree)
    except ConfigError as error:
        if error.place == place:
            raise ConfigError(origins.located(str(error)), place=place) from error
        raise ConfigError(f"{origin.where}: {error}", place=error.place) from error


def _changed(old: Config, new: Config) -> list[str]:
    """The plain settings, as `section.key`, that are not the same in both."""
    return [
        f"{section}.{key}"
        for section in ("server", "asterisk")
        for key, value in msgspec.structs.asdict(getattr(new, section)).items()
        if value != getattr(getattr(old, section), key)
    ]


def _say_instructions_once(tree: dict[str, Any]) -> None:
    agents = tree.get("agents")
    for name, agent in agents.items() if isinstance(agents, dict) else ():
        if isinstance(agent, dict) and "instructions" in agent and agent.get("instructions_file"):
            place = f"{dotted(('agents', name))}.instructions_file"
            raise ConfigError(f"{place}: instructions are said here and in `instructions`; keep one", place=place)


def _with_instructions(config: Config, origins: Origins) -> Config:
    """With the text of every `instructions_file`."""
    agents = dict(config.agents)
    for name, agent in config.agents.items():
        if not agent.instructions_file:
            continue
        at = dotted(("agents", name))
        try:
            text = read_instructions(agent.instructions_file)
        except ConfigError as error:
            place = f"{at}.instructions_file"
            raise ConfigError(f"{place}: {error}", place=place) from error
        agents[name] = msgspec.structs.replace(agent, instructions=text)
        origins.note(f"{at}.instructions", Origin(agent.instructions_file))
    return msgspec.structs.replace(config, agents=agents)


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
            hooks=hooks.agents_with_secrets(agent.hooks, read, f"{at}.hooks"),
        )
    headers = {name: read(value, f"tracing.headers.{name}") for name, value in config.tracing.headers.items()}
    tracing = msgspec.structs.replace(config.tracing, headers=headers)
    told = hooks.with_secrets(config.hooks, read, "hooks")
    return msgspec.structs.replace(config, agents=agents, hooks=told, tracing=tracing)


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
            instructions_file=agent.instructions_file and str(folder / agent.instructions_file),
        )
        for name, agent in config.agents.items()
    }
    prices = str(folder / config.realtime.prices) if config.realtime.prices else ""
    realtime = msgspec.structs.replace(config.realtime, prices=prices)
    server = msgspec.structs.replace(config.server, data_dir=str(folder / config.server.data_dir))
    return msgspec.structs.replace(config, server=server, agents=agents, realtime=realtime)


# tomllib says the line in its message only (before Python 3.14), or "at end of document".
_TOML_LINE = re.compile(r"at line (\d+)")

_SCALAR_SECTIONS = frozenset({"server", "asterisk", "realtime", "limits", "hooks", "records", "gateway", "tracing"})


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
    for place, remedy in gateway_settings.problems(config.gateway, config.agents):
        require(False, place, remedy)
    for name, value in msgspec.structs.asdict(config.limits).items():
        if name in _MAY_BE_ZERO:
            require(value >= 0, f"limits.{name}", "must not be negative; 0 is for never")
        else:
            require(value > 0, f"limits.{name}", "must be above zero")
    endpoint = config.tracing.endpoint
    require(
        not endpoint or (endpoint.startswith(("http://", "https://")) and not set("@?") & set(endpoint)),
        "tracing.endpoint",
        "must be a URL like http://127.0.0.1:4318/v1/traces, without user, password or query: those go into headers",
    )
    require(0 < config.tracing.sample_ratio <= 1, "tracing.sample_ratio", "must be above 0, and at most 1")
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
    for place, remedy in hooks.problems(config.hooks, "hooks"):
        require(False, place, remedy)
    for place, remedy in records.problems(config.records):
        require(False, place, remedy)
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
    for place, address, whose, count in (
        ("server.health_address", server.health_address, "that of the health pages", highest if server.worker else 1),
        ("server.control_address", server.control_address, "that of a control door", highest),
        ("gateway.address", config.gateway.address if config.gateway.enabled else "", "that of a gateway", highest),
    ):
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
    for place, token in (("server.control_token", server.control_token), ("gateway.token", config.gateway.token)):
        require(
            not token or bool(_TOKEN.fullmatch(token)),
            place,
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
        found += recording.advice(agent.recording, agent.records.keep_numbers, at)
        found += session_advice(session_of(agent, []), model, at)
    return found
