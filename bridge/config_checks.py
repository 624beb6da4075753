"""What is wrong with settings though each is of its type: what types can not say, and what does not go together."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial

import msgspec

from bridge import gateway_settings, hooks, records, routes
from bridge.agent import problems
from bridge.errors import ConfigError
from bridge.gateway_settings import ADDRESS
from bridge.model_choice import names_model
from bridge.own_limits import MAY_BE_ZERO
from bridge.session import check_agent
from bridge.settings import Config, Limits, limits_of
from bridge.toml_lines import dotted


def check(config: Config) -> None:
    """What types can not say. Each message says what to do."""

    def require(condition: bool, place: str, remedy: str) -> None:
        if not condition:
            raise ConfigError.at(place, remedy)

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
        bool(ADDRESS.fullmatch(config.asterisk.media_address)),
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
    _check_limits(config.limits, lambda key: f"limits.{key}", require)
    endpoint = config.tracing.endpoint
    require(
        not endpoint or (endpoint.startswith(("http://", "https://")) and not set("@?") & set(endpoint)),
        "tracing.endpoint",
        "must be a URL like http://127.0.0.1:4318/v1/traces, without user, password or query: those go into headers",
    )
    require(0 < config.tracing.sample_ratio <= 1, "tracing.sample_ratio", "must be above 0, and at most 1")
    require(config.realtime.session_max_s >= 0, "realtime.session_max_s", "must not be negative")
    for place, remedy in hooks.problems(config.hooks, "hooks"):
        require(False, place, remedy)
    for place, remedy in records.problems(config.records):
        require(False, place, remedy)
    for name, agent in config.agents.items():
        at = dotted(("agents", name))
        for place, remedy in problems(agent, at):
            require(False, place, remedy)
        check_agent(agent, at)
        limits, own = limits_of(agent, config.limits), agent.limits
        if own:
            _check_limits(limits, partial(_place_of_limit, own, at), require)
        require(
            not (agent.model and names_model(config.realtime.url)),
            f"{at}.model",
            "has no effect while realtime.url names a model itself; take it out there",
        )
        require(
            not agent.tool_hook.url or agent.tool_hook.timeout_s <= limits.tool_s,
            f"{at}.tool_hook.timeout_s",
            "must not be above limits.tool_s, which ends every tool",
        )


def _place_of_limit(own: Mapping[str, float], at: str, key: str) -> str:
    return f"{at}.limits.{key}" if key in own else f"limits.{key}"


def _check_limits(limits: Limits, place: Callable[[str], str], require: Callable[[bool, str, str], None]) -> None:
    """Of all, or of one agent; `place` says where a limit was set."""
    for name, value in msgspec.structs.asdict(limits).items():
        if name in MAY_BE_ZERO:
            require(value >= 0, place(name), "must not be negative; 0 is for never")
        else:
            require(value > 0, place(name), "must be above zero")
    require(
        limits.caller_waits_s >= 1,
        place("caller_waits_s"),
        "must be at least 1: models take about that long to answer, and would be announced each time",
    )
    require(
        limits.caller_waits_repeat_s >= limits.caller_waits_s,
        place("caller_waits_repeat_s"),
        f"must not be below {place('caller_waits_s')}",
    )


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
            bool(ADDRESS.fullmatch(address)), place, 'must be HOST:PORT, an address of this machine, or "" for none'
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
