"""An agent's profile: who answers a call, how it speaks, and what it may do. The tables `[agents.NAME]` of `bridge.toml`.

`problems` says what types can not, each with its remedy; `config` loads and checks the whole file.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import msgspec

from bridge import (
    collect,
    destinations,
    hooks,
    keys,
    mcp_servers,
    outbound,
    overrides,
    own_limits,
    recording,
    records,
    tool_hook,
)
from bridge.collect import Collect
from bridge.destinations import Destination
from bridge.hooks import AgentHooks
from bridge.keys import KEYS, is_key
from bridge.mcp_servers import McpServer
from bridge.outbound import Outbound
from bridge.recording import Recording
from bridge.records import AgentRecords
from bridge.tool_hook import ToolHook


class TurnDetection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who decides that the caller has finished: the server's VAD, or with `manual` the caller by two keys.

    `silence_duration_ms` is always sent, since the server's real default (200) is not the documented one (500).
    """

    type: Literal["server_vad", "semantic_vad", "manual"] = "server_vad"
    threshold: float = 0.5
    prefix_padding_ms: int = 300
    silence_duration_ms: int = 500
    idle_timeout_ms: int = 0
    eagerness: Literal["low", "medium", "high", "auto"] = "auto"
    talk_key: str = "*"
    send_key: str = "#"


NO_SOUND = "none"


class AgentSounds(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the bridge itself plays while the model can not speak: a WAV file each, "none" for nothing at all, or empty
    for the shipped one. The keys are those of `sounds.Sound`; after `load_config` the files' paths are complete."""

    one_moment: str = ""
    still_there: str = ""
    busy: str = ""
    trouble: str = ""
    filler: str = ""


class Agent(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One voice agent: who it is, how it speaks, and what it may do.

    `session` holds further fields of the model's session, as they were written; `session.session_of` merges them over
    what the keys here make, and `session.check_agent` refuses what contradicts them. After `load_config` `instructions`
    holds the text of `instructions_file`. An empty `model` is `realtime.model`; `limits` are those of `[limits]` that are
    otherwise here. The calls of a `disabled` agent go on in the dialplan, unanswered.
    """

    disabled: bool = False
    instructions: str = "You are a friendly voice agent on a phone line. Keep your answers short."
    instructions_file: str = ""
    greeting: str = "Greet the caller in one short sentence and ask how you can help."
    model: str = ""
    voice: str = "marin"
    speed: float = 1.0
    turn_detection: TurnDetection = TurnDetection()
    noise_reduction: Literal["near_field", "far_field", "off"] = "off"
    transcription_model: str = "gpt-transcribe"
    transcription_language: str = ""
    max_output_tokens: int = 0
    budget_usd: float = 0.0
    budget_warning: float = 0.8
    barge_in: Literal["interrupt", "confirm", "off"] = "interrupt"
    barge_in_confirm_ms: int = 400
    greeting_barge_in: Literal["interrupt", "off"] = "interrupt"
    hang_up: bool = True
    press_keys: bool = False
    transfers: dict[str, Destination] = {}
    keys: dict[str, str] = {}
    collect: dict[str, Collect] = {}
    overridable: list[str] = []
    sounds: AgentSounds = AgentSounds()
    recording: Recording = Recording()
    records: AgentRecords = AgentRecords()
    outbound: Outbound = Outbound()
    limits: dict[str, float] = {}
    tools: list[str] = []
    tool_hook: ToolHook = ToolHook()
    mcp: list[McpServer] = []
    hooks: AgentHooks = AgentHooks()
    session: dict[str, Any] = {}


def problems(agent: Agent, at: str) -> Iterator[tuple[str, str]]:
    """What is wrong with a profile whose table is `at`, as (place, remedy)."""
    detection, turns = agent.turn_detection, f"{at}.turn_detection"
    idle_ms = detection.idle_timeout_ms
    rows = [
        (0.25 <= agent.speed <= 1.5, f"{at}.speed", "must be 0.25 to 1.5"),
        (0 <= agent.max_output_tokens <= 4096, f"{at}.max_output_tokens", "must be 1 to 4096, or 0 for no limit"),
        (0 <= agent.budget_usd <= 10_000, f"{at}.budget_usd", "must be 0 (none) to 10000 dollars"),
        (0 < agent.budget_warning <= 1, f"{at}.budget_warning", "must be above 0, at most 1"),
        (0.0 <= detection.threshold <= 1.0, f"{turns}.threshold", "must be 0 to 1"),
        (detection.silence_duration_ms >= 0, f"{turns}.silence_duration_ms", "must not be negative"),
        (detection.prefix_padding_ms >= 0, f"{turns}.prefix_padding_ms", "must not be negative"),
        (
            idle_ms == 0 or 5000 <= idle_ms <= 30000,
            f"{turns}.idle_timeout_ms",
            "must be 5000 to 30000, or 0 for never",
        ),
        (
            idle_ms == 0 or detection.type == "server_vad",
            f"{turns}.idle_timeout_ms",
            'goes with type = "server_vad" only; set it to 0',
        ),
        (
            not detection.talk_key or is_key(detection.talk_key),
            f"{turns}.talk_key",
            f"must be one key of {KEYS}",
        ),
        (is_key(detection.send_key), f"{turns}.send_key", f"must be one key of {KEYS}"),
        (detection.talk_key != detection.send_key, f"{turns}.send_key", "must be another key than talk_key"),
        (agent.barge_in_confirm_ms >= 0, f"{at}.barge_in_confirm_ms", "must not be negative"),
    ]
    yield from ((place, remedy) for right, place, remedy in rows if not right)
    yield from destinations.problems(agent.transfers, f"{at}.transfers")
    manual = {detection.talk_key: "talk_key", detection.send_key: "send_key"} if detection.type == "manual" else {}
    yield from keys.problems(
        agent.keys,
        f"{at}.keys",
        destinations={name for name, it in agent.transfers.items() if not it.number},
        turn_keys=manual,
    )
    if agent.overridable:
        yield from overrides.problems(agent.overridable, msgspec.to_builtins(Agent()), f"{at}.overridable")
    yield from collect.problems(agent.collect, f"{at}.collect")
    yield from own_limits.problems(agent.limits, f"{at}.limits")
    yield from outbound.problems(agent.outbound, f"{at}.outbound")
    yield from tool_hook.problems(agent.tool_hook, f"{at}.tool_hook")
    yield from mcp_servers.problems(agent.mcp, f"{at}.mcp")
    yield from hooks.problems(agent.hooks, f"{at}.hooks")
    yield from recording.problems(agent.recording, f"{at}.recording", {*manual, *agent.keys})
    yield from records.agent_problems(agent.records, f"{at}.records")
