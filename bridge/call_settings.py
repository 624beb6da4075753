"""What the order of a single call may say of its agent: fields of its profile, and of the model's session."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bridge.agent import Agent
from bridge.errors import ConfigError
from bridge.profile import agent_with

SETTABLE = frozenset(
    {
        *("instructions", "greeting", "voice", "speed", "turn_detection", "noise_reduction", "transcription_model"),
        *(
            "transcription_language",
            "max_output_tokens",
            "barge_in",
            "barge_in_confirm_ms",
            "greeting_barge_in",
            "hang_up",
        ),
        "session",
    }
)
"""Neither what costs the owner money, nor files, nor where callers may be sent."""


def agent_of_call(agent: Agent, settings: Mapping[str, Any], session: Mapping[str, Any]) -> Agent:
    """The profile of this call: `settings` in bridge.toml's form, `session` in GA or old flat names. Raises `ConfigError`,
    whose message begins with the place."""
    for key in settings:
        if key not in SETTABLE:
            raise ConfigError(
                f"settings.{key}: can not be set for one call; these can: {', '.join(sorted(SETTABLE))}"
            )
    if session and "session" in settings:
        raise ConfigError("session: is said in settings too; keep one of them")
    if not settings and not session:
        return agent
    tree = {**settings, "session": session} if session else settings
    try:
        return agent_with(agent, tree, at="settings")
    except ConfigError as error:
        where = str(error).replace("settings.session", "session", 1) if session else str(error)
        raise ConfigError(where, place=error.place) from error
