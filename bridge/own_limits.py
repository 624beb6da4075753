"""The limits that an agent may have otherwise than all others: the table `[agents.NAME.limits]`.

Those of a call that is under way. What is waited for before there is an agent, or between processes, is the same for all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

SETTABLE = (
    "tool_s", "goodbye_s", "response_stall_s", "caller_silent_s", "caller_silent_prompt_s", "idle_prompts", "hold_s",
    "max_duration_s", "max_duration_warning_s", "reconnect_s", "caller_waits_s", "caller_waits_repeat_s",
)  # fmt: skip
MAY_BE_ZERO = frozenset({"caller_silent_prompt_s", "max_duration_warning_s"})


def problems(limits: Mapping[str, float], at: str) -> Iterator[tuple[str, str]]:
    """What is wrong with a table of these that stands at `at`, as (place, remedy); values are judged with all others."""
    for key, value in limits.items():
        if key not in SETTABLE:
            yield f"{at}.{key}", f"unknown key; known here: {', '.join(SETTABLE)}"
        elif key == "idle_prompts" and value != int(value):
            yield f"{at}.{key}", "must be a whole number"
        elif value < 0 or (value == 0 and key not in MAY_BE_ZERO):
            yield (
                f"{at}.{key}",
                "must be above zero" if key not in MAY_BE_ZERO else "must not be negative; 0 is for never",
            )
