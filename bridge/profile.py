"""A profile with further settings over it, checked like the file: `agent_with`.

What a service says of one call (hooks), or an application, is in bridge.toml's own form, as JSON:

    {"voice": "cedar", "turn_detection": {"silence_duration_ms": 700}, "transfers": {"desk": {"to": "600@phones"}}}

Tables are merged as RFC 7396 (JSON merge patch) says: key by key, and null takes a key away, so that its default holds.
Lists are replaced whole. `session` is merged as the Realtime server merges updates, since null means something there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from bridge.agent import Agent, problems
from bridge.errors import ConfigError
from bridge.session import check_agent, checked, merged
from bridge.toml_lines import dotted
from bridge.validation import converted, unplain

FIXED: Mapping[str, str] = {
    "instructions_file": "it is read with the settings; give `instructions`",
    "sounds": "its files are read with the settings",
    "tools": "its files are run with the settings",
    "overridable": "it says what the dialplan may change, which the file alone decides",
}
"""Keys that no single call can have otherwise, and why."""


def agent_with(agent: Agent, tree: Mapping[str, Any], *, at: str = "agent") -> Agent:
    """The profile with the settings of `tree` over it.

    `at` is the place of `tree` in what somebody wrote, and starts every message. Raises `ConfigError`, as the file would:
    `agent.turn_detection.threshold: must be 0 to 1`. Changes neither argument. A secret like "$NAME" stays as it is: who
    writes `tree` may not read our environment.
    """
    if not isinstance(tree, Mapping):
        raise ConfigError.at(at, "must be a table")
    for key, reason in FIXED.items():
        if key in tree:
            raise ConfigError.at(f"{at}.{key}", f"can not be set for one call: {reason}")
    if problem := unplain(tree):
        raise ConfigError.at(_below(at, dotted(problem[0])), problem[1])
    profile: dict[str, Any] = msgspec.to_builtins(agent)
    changes = {key: value for key, value in tree.items() if key != "session"}
    hook = changes.get("tool_hook")
    if isinstance(hook, Mapping) and "url" in hook:
        # What was meant for the one address is not sent to another.
        profile["tool_hook"] |= {"secret": "", "headers": {}}
    result = _patched(profile, changes)
    if "session" in tree:
        result["session"] = _session(agent.session, tree["session"], f"{at}.session")
    return agent_of(result, at)


def agent_of(tree: Mapping[str, Any], at: str) -> Agent:
    """A whole profile from its table. Raises `ConfigError` whose message begins with the place."""
    try:
        agent = converted(tree, Agent, strict=False)
    except ConfigError as error:
        raise ConfigError.at(_below(at, error.place), str(error)) from error
    for place, remedy in problems(agent, at):
        raise ConfigError.at(place, remedy)
    check_agent(agent, at)
    return agent


def _patched(old: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """RFC 7396. A new dict, which shares nothing that is changed."""
    result = dict(old)
    for key, value in patch.items():
        had = result.get(key)
        if value is None:
            result.pop(key, None)
        elif isinstance(value, Mapping):
            result[key] = _patched(had if isinstance(had, Mapping) else {}, value)
        else:
            result[key] = value
    return result


def _session(old: Mapping[str, Any], new: Any, at: str) -> dict[str, Any]:
    """Both in the names of today: one may have been written in old ones."""
    if not isinstance(new, Mapping):
        raise ConfigError.at(at, "must be a table")
    session = merged(checked(old, at).session, checked(new, at).session)
    del session["type"]  # always the same, and no file says it
    return session


def _below(at: str, place: str) -> str:
    return at + place if place.startswith("[") else f"{at}.{place}" if place else at
