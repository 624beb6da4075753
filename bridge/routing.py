"""Chooses the agent of a call, and what this one call has otherwise. Pure; `server` asks Asterisk and carries out.

wanted(routes, facts)               the channel variables that have to be known first: mostly none
choose(routes, agents, facts)       name and profile
refusal(name, agent)                why this agent takes no call now
overridden(name, agent, arguments)  the profile of this call, and what was not taken, in words
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from bridge import overrides
from bridge.agent import Agent
from bridge.ending import EndReason
from bridge.errors import ConfigError
from bridge.profile import agent_of
from bridge.routes import Route, matches
from bridge.toml_lines import dotted


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a call before it is taken; all may be empty. `caller` is the number alone."""

    argument: str = ""
    called: str = ""
    caller: str = ""
    variables: Mapping[str, str] = field(default_factory=dict)


def wanted(routes: Iterable[Route], facts: Facts) -> list[str]:
    """The variables that decide: those of the routes that match otherwise, down to the first that asks for none."""
    names: dict[str, None] = {}
    for route in routes:
        if _fits(route, facts):
            if not route.variables:
                break
            names |= dict.fromkeys(route.variables)
    return list(names)


def choose(routes: Iterable[Route], agents: Mapping[str, Agent], facts: Facts) -> tuple[str, Agent]:
    """Name and profile of the agent that serves this call: of the first route that matches.

    Without one an argument that is itself the name of an agent chooses it; else `default`.
    """
    for route in routes:
        if _fits(route, facts) and all(
            matches(pattern, facts.variables.get(name, "")) for name, pattern in route.variables.items()
        ):
            return route.agent, agents[route.agent]
    name = facts.argument if facts.argument in agents else "default"
    return name, agents[name]


def _fits(route: Route, facts: Facts) -> bool:
    return (
        matches(route.argument, facts.argument)
        and matches(route.called, facts.called)
        and matches(route.caller, facts.caller)
    )


def refusal(name: str, agent: Agent) -> tuple[EndReason, str] | None:
    """Why this agent takes no call at all now, or None."""
    if agent.disabled:
        return EndReason.AGENT_DISABLED, f"{dotted(('agents', name))}.disabled is true"
    return None


def overridden(name: str, agent: Agent, arguments: Sequence[str]) -> tuple[Agent, list[str]]:
    """The profile with the `key=value` arguments of one call, and a warning for each that was not taken."""
    warnings = []
    for key, value in overrides.parsed(arguments):
        if key not in agent.overridable:
            allowed = ", ".join(agent.overridable) or "none"
            warnings.append(
                f"{key}: not taken from the dialplan: agents.{name}.overridable does not list it (allowed: {allowed})"
            )
            continue
        try:
            agent = _with(agent, key, value)
        except ConfigError as error:
            warnings.append(f"{key}: {value!r} not taken from the dialplan, the profile's own stays: {error}")
    return agent, warnings


def _with(agent: Agent, key: str, value: str) -> Agent:
    """Raises `ConfigError` as the file would; its message is without the place."""
    try:
        return agent_of(overrides.changed(msgspec.to_builtins(agent), key, value), "agent")
    except ConfigError as error:
        raise ConfigError(str(error).removeprefix(f"{error.place}: "), place=error.place) from error
