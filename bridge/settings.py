"""Every setting, typed and frozen, with its default.

`bridge.toml` in the root of the repository explains every key; a test compares it with these defaults. A module is handed
the one section it needs, never the whole `Config`. Units stand in the names. `config` loads them.
"""

from __future__ import annotations

import enum
import re
from typing import Literal

import msgspec

from bridge.agent import Agent
from bridge.gateway_settings import Gateway
from bridge.hooks import Hooks
from bridge.records import Records
from bridge.routes import Route


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


def realtime_of(agent: Agent, realtime: Realtime) -> Realtime:
    """The model's endpoint for the calls of this agent. What the common model is priced as says nothing of another one."""
    if not agent.model or agent.model == realtime.model:
        return realtime
    return msgspec.structs.replace(realtime, model=agent.model, priced_as="")


def limits_of(agent: Agent, limits: Limits) -> Limits:
    """The limits for the calls of this agent."""
    own = {key: int(value) if key == "idle_prompts" else value for key, value in agent.limits.items()}
    return msgspec.structs.replace(limits, **own)


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
