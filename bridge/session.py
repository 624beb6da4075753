"""The settings of a model session: checked, merged as the server merges them, and made from an agent's profile.

    checked     a table as somebody wrote it (GA or old flat names) -> GA, JSON-plain, valid
    merged      a session and an update -> the session that the server has afterwards
    session_of  an agent and its tools -> the whole session, for the first `session.update`

Facts: `docs/realtime-protocol.md` sections 1.2, 2.1 and 2.6. Nothing here is specific to a connection.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from bridge.errors import ConfigError
from bridge.session_flat import Translation, translated
from bridge.session_schema import Session
from bridge.toml_lines import dotted
from bridge.validation import converted, unplain

if TYPE_CHECKING:
    # `config` imports this module to check agents.
    from bridge.agent import Agent

PCM_FORMAT: Mapping[str, object] = {"type": "audio/pcm", "rate": 24000}


class Checked(msgspec.Struct, frozen=True):
    """A valid session. `session`: GA names, JSON-plain, with `type`, and only what was said. `warnings`: for people."""

    session: dict[str, Any]
    warnings: list[str] = []


def checked(tree: Mapping[str, Any], where: str) -> Checked:
    """Validate session settings after translating old flat names; what the server would refuse is refused here.

    `where` is the place of `tree` in the configuration and starts every message. Raises `ConfigError`, whose message and
    `place` are the place as it was written: `agents.sales.session.audio.output.speed: must be 0.25 to 1.5`.
    """
    translation = _translation(tree, where)
    warnings = []
    if translation.changes:
        changes = "; ".join(translation.changes)
        warnings.append(f"{where}: old names were translated, write the new ones: {changes}")
    return Checked({"type": "realtime"} | translation.tree, warnings)


def _translation(tree: Mapping[str, Any], where: str) -> Translation:
    """`tree` in GA names, valid. Raises `ConfigError` as `checked` says."""
    try:
        return _valid_translation(tree)
    except ConfigError as error:
        raise ConfigError.at(f"{where}.{error.place}" if error.place else where, str(error)) from error


def _valid_translation(tree: Mapping[str, Any]) -> Translation:
    """As `_translation`; errors have a `place` relative to `tree` and a message without it."""
    if problem := unplain(tree):
        raise ConfigError(problem[1], place=dotted(problem[0]))
    translation = translated(_plain(tree))
    try:
        converted(translation.tree, Session)
        _check_across(translation.tree)
    except ConfigError as error:
        remedy = "is said by the server and can not be set" if error.place in _READ_ONLY else str(error)
        raise ConfigError(remedy, place=translation.written_as(error.place)) from error
    return translation


_READ_ONLY = frozenset({"id", "object", "expires_at", "client_secret"})


def _check_across(tree: Mapping[str, Any]) -> None:
    """What no type of a single field can say."""
    for index, tool in enumerate(tree.get("tools", ())):
        if tool["type"] == "mcp" and not {"server_url", "connector_id", "tunnel_id"} & tool.keys():
            raise ConfigError("needs one of server_url, connector_id and tunnel_id", place=f"tools[{index}]")


def _plain(value: Any) -> Any:
    """A deep copy of JSON-like data in plain dicts and lists."""
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value


# --- merging -------------------------------------------------------------------------------------------------------

# The objects that the server merges field by field; any other value is replaced whole.
_OBJECTS: Mapping[str, Any] = {
    "audio": {"input": {"transcription": {}, "noise_reduction": {}, "turn_detection": {}}, "output": {}}
}


def merged(session: Mapping[str, Any], update: Mapping[str, Any]) -> dict[str, Any]:
    """`session` after the server took `update` (both GA shaped): what the update does not say stays.

    Null clears; lists (tools) and choices are replaced whole; a `turn_detection` of another type replaces the old one.
    That `transcription` is merged, as `noise_reduction` is known to be, is unconfirmed: where the server's own
    `session.updated` is at hand, believe that.
    A new dict; neither argument is changed or shared.
    """
    return _merged(session, update, _OBJECTS)


def _merged(old: Mapping[str, Any], new: Mapping[str, Any], objects: Mapping[str, Any]) -> dict[str, Any]:
    result: dict[str, Any] = _plain(old)
    for key, value in new.items():
        had = result.get(key)
        if key in objects and isinstance(had, dict) and isinstance(value, Mapping) and not _replaces(key, had, value):
            result[key] = _merged(had, value, objects[key])
        else:
            result[key] = _plain(value)
    return result


def _replaces(key: str, had: Mapping[str, Any], value: Mapping[str, Any]) -> bool:
    """Another kind of turn detection shares no fields with the old one, which would be refused."""
    return key == "turn_detection" and value.get("type", had.get("type")) != had.get("type")


# --- an agent's session ---------------------------------------------------------------------------------------------


def session_of(agent: Agent, tools: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The whole session of an agent: what its own keys make, with its `session` table merged over it.

    `tools` are declarations, flat as GA wants them, functions and MCP servers alike; those of the table follow, except
    where one of the same name is there already. Raises `ConfigError` for a table that `load_config` never saw.
    """
    table = checked(agent.session, "session").session if agent.session else {}
    session = merged(_session_of_keys(agent), table)
    detection = session["audio"]["input"]["turn_detection"]
    if detection is not None:
        detection |= _switches(agent)
    names = {_name(tool) for tool in tools}
    more = [tool for tool in table.get("tools", ()) if _name(tool) not in names]
    session["tools"] = [*_plain(list(tools)), *more]
    return session


def declared_functions(agent: Agent) -> list[dict[str, Any]]:
    """The functions that the agent's `session` table declares. Raises `ConfigError` as `session_of` does."""
    if "tools" not in agent.session:
        return []
    return [it for it in checked(agent.session, "session").session["tools"] if it["type"] == "function"]


def _name(tool: Mapping[str, Any]) -> tuple[str, str]:
    """What tells a tool from the others of a session."""
    return tool["type"], tool["name"] if tool["type"] == "function" else tool["server_label"]


def _session_of_keys(agent: Agent) -> dict[str, Any]:
    session: dict[str, Any] = {
        "type": "realtime",
        "output_modalities": ["audio"],
        "instructions": agent.instructions,
        "audio": {
            "input": {
                "format": dict(PCM_FORMAT),
                "turn_detection": _turn_detection(agent),
                "noise_reduction": None if agent.noise_reduction == "off" else {"type": agent.noise_reduction},
                "transcription": _transcription(agent),
            },
            "output": {"format": dict(PCM_FORMAT), "voice": agent.voice, "speed": agent.speed},
        },
        "tools": [],
        "tool_choice": "auto",
    }
    if agent.max_output_tokens:
        session["max_output_tokens"] = agent.max_output_tokens
    return session


def _turn_detection(agent: Agent) -> dict[str, Any] | None:
    detection = agent.turn_detection
    if detection.type == "manual":
        return None
    if detection.type == "semantic_vad":
        return {"type": detection.type, "eagerness": detection.eagerness}
    idle = {"idle_timeout_ms": detection.idle_timeout_ms} if detection.idle_timeout_ms else {}
    return {
        "type": detection.type,
        "threshold": detection.threshold,
        "prefix_padding_ms": detection.prefix_padding_ms,
        "silence_duration_ms": detection.silence_duration_ms,
    } | idle


def _switches(agent: Agent) -> dict[str, bool]:
    """Who answers the caller's turn, and who stops the agent: the server, or for the other policies the bridge."""
    by_server = agent.barge_in == "interrupt"
    return {"create_response": by_server, "interrupt_response": by_server}


def _transcription(agent: Agent) -> dict[str, Any] | None:
    if not agent.transcription_model:
        return None
    language = {"language": agent.transcription_language} if agent.transcription_language else {}
    return {"model": agent.transcription_model} | language


# An agent's own keys, and the places in the session that they make.
_KEYS: tuple[tuple[str, str], ...] = (
    ("voice", "audio.output.voice"),
    ("speed", "audio.output.speed"),
    ("noise_reduction", "audio.input.noise_reduction.type"),
    ("transcription_model", "audio.input.transcription.model"),
    ("transcription_language", "audio.input.transcription.language"),
    ("max_output_tokens", "max_output_tokens"),
    *(
        (f"turn_detection.{key}", f"audio.input.turn_detection.{key}")
        for key in (
            "type", "threshold", "prefix_padding_ms", "silence_duration_ms", "idle_timeout_ms", "eagerness",
        )
    ),
)  # fmt: skip


def check_agent(agent: Agent, where: str) -> list[str]:
    """Hold an agent's `session` table against the rest of its profile (`where`: `agents.sales`); returns the warnings.

    Refused is what the server would refuse, what the bridge has to decide itself, and what the table says of a field
    that one of the agent's own keys says too. Raises `ConfigError` like `checked`.
    """
    at = f"{where}.session"
    table = _translation(agent.session, at)
    if "type" in agent.session:
        raise ConfigError.at(f"{at}.type", 'is always "realtime"; leave it out')
    for place, reason in _owned(agent, table.tree, where):
        raise ConfigError.at(f"{at}.{table.written_as(place)}", reason)
    for key, place in _twice(agent, table.tree):
        raise ConfigError.at(
            f"{at}.{table.written_as(place)}", f"is said by {where}.{key} too; keep only one of them"
        )
    session = session_of(agent, [])
    if "type" not in (session["audio"]["input"]["noise_reduction"] or {"type": ""}):
        raise ConfigError.at(
            f"{at}.{table.written_as('audio.input.noise_reduction')}", 'needs type, "near_field" or "far_field"'
        )
    try:
        checked(session, where)
    except ConfigError as error:
        # The table by itself is valid, so one of the keys is not.
        own = {f"{where}.{place}": f"{where}.{key}" for key, place in _KEYS}
        remedy = str(error).removeprefix(f"{error.place}: ")
        raise ConfigError.at(own.get(error.place, error.place), remedy) from error
    functions = [tool["name"] for tool in table.tree.get("tools", ())]
    unhandled = [f"{at}.tools: {', '.join(functions)}: nothing runs these but a tool hook, or a tool of that name"]
    return checked(agent.session, at).warnings + (unhandled if functions and not agent.tool_hook.url else [])


def _twice(agent: Agent, tree: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(key, place) of what the table says though a key that is not at its default says it too."""
    for key, made in _KEYS:
        mine = _value(agent, key)
        # Without a transcription there is nothing that the table could complete.
        place = "audio.input.transcription" if key == "transcription_model" and not mine else made
        if mine == _value(type(agent)(), key) or not _says(tree, place):
            continue
        # The API demands the type of turn detection beside any other field of it.
        if key != "turn_detection.type" or _value(tree, place) != mine:
            yield key, place


def _owned(agent: Agent, tree: Mapping[str, Any], where: str) -> Iterator[tuple[str, str]]:
    """(place, reason) of what the table says though the bridge has to decide it."""
    if "model" in tree:
        yield "model", f"belongs to {where}.model or realtime.model, since the model is chosen by the connection"
    if "instructions" in tree:
        yield "instructions", f"belong to {where}.instructions, which the greeting repeats"
    if tree.get("output_modalities") == ["text"]:
        yield "output_modalities", 'must be ["audio"]: from text a caller hears nothing'
    for side in ("input", "output"):
        if _value(tree, f"audio.{side}.format", PCM_FORMAT) != PCM_FORMAT:
            yield f"audio.{side}.format", "must be audio/pcm at 24000 Hz, which the bridge's audio path is made for"
    for index, tool in enumerate(tree.get("tools", ())):
        if tool["type"] == "mcp":
            yield f"tools[{index}]", f"belongs to {where}.mcp, which also says who approves its calls"
    detection = _value(tree, "audio.input.turn_detection", {})
    if detection is None:
        yield "audio.input.turn_detection", f'must not be null; say {where}.turn_detection.type = "manual"'
    for switch, value in _switches(agent).items():
        if detection and detection.get(switch, value) is not value:
            yield f"audio.input.turn_detection.{switch}", f"is decided by {where}.barge_in"


def _value(tree: Any, place: str, default: Any = None) -> Any:
    """What stands at a dotted place of nested tables or structs."""
    for key in place.split("."):
        if isinstance(tree, Mapping):
            if key not in tree:
                return default
            tree = tree[key]
        else:
            tree = getattr(tree, key)
    return tree


def _says(tree: Any, place: str) -> bool:
    """Whether a session table says something of this place; null for a table around it says it all."""
    for key in place.split("."):
        if tree is None:
            return True
        if key not in tree:
            return False
        tree = tree[key]
    return True


HIDDEN = "(set, hidden)"
"""What stands in the place of a secret."""


def masked(value: Any) -> Any:
    """A session (or a part of one) for people's eyes: credentials for MCP servers hidden."""
    if isinstance(value, list):
        return [masked(it) for it in value]
    if not isinstance(value, dict):
        return value
    if value.get("type") != "mcp":
        return {key: masked(it) for key, it in value.items()}
    shown = {key: HIDDEN if key in ("authorization", "headers") and it else it for key, it in value.items()}
    if isinstance(url := shown.get("server_url"), str):
        # Keys stand in queries, and before an @; nothing else of the address is secret.
        scheme, slashes, rest = url.partition("?")[0].partition("//")
        shown["server_url"] = f"{scheme}{slashes}{rest.rpartition('@')[2]}{'?***' if '?' in url else ''}"
    return shown
