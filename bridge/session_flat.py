"""Session settings in their old names (the flat beta session) as GA ones.

Many configurations in the field still say `input_audio_format = "pcm16"`; OpenAI refuses it since 2026-05-12. They are
understood here, in configuration only: `translated` moves each old name to its GA place and tells what was moved.
Facts: `docs/realtime-protocol.md` section 2.6. Flat sessions of other products (Azure Voice Live) are none of these:
what their fields mean is not known here, so they are refused as unknown keys.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from bridge.errors import ConfigError

# Old top-level name -> GA place.
_MOVED: Mapping[str, tuple[str, ...]] = {
    "modalities": ("output_modalities",),
    "input_audio_format": ("audio", "input", "format"),
    "output_audio_format": ("audio", "output", "format"),
    "voice": ("audio", "output", "voice"),
    "speed": ("audio", "output", "speed"),
    "turn_detection": ("audio", "input", "turn_detection"),
    "input_audio_transcription": ("audio", "input", "transcription"),
    "input_audio_noise_reduction": ("audio", "input", "noise_reduction"),
    "max_response_output_tokens": ("max_output_tokens",),
}
_FORMATS: Mapping[str, Mapping[str, Any]] = {
    "pcm16": {"type": "audio/pcm", "rate": 24000},
    "g711_ulaw": {"type": "audio/pcmu"},
    "g711_alaw": {"type": "audio/pcma"},
}
_MODES = ("none", "auto", "required")


class Translation(msgspec.Struct):
    """`tree` in GA names; `origins`: {GA place: the place as it was written}; `changes`: what to write instead."""

    tree: dict[str, Any]
    origins: dict[str, str] = {}
    changes: list[str] = []

    def written_as(self, place: str) -> str:
        """The place that the user knows for a place in `tree`."""
        for new, old in self.origins.items():
            if place == new or place.startswith((f"{new}.", f"{new}[")):
                return old + place[len(new) :]
        return place


def translated(tree: dict[str, Any]) -> Translation:
    """The GA form of `tree`, which is JSON-plain and changed in place. GA names pass through, right or wrong.

    Raises `ConfigError` (its `place` as written) where an old and a new name say the same field.
    """
    done = Translation(tree)
    for old, path in _MOVED.items():
        if old in tree:
            _move(done, old, path)
    if "temperature" in tree:
        del tree["temperature"]
        done.changes.append("temperature (no GA field: dropped)")
    _old_formats(done)
    _no_turn_detection(done)
    _nested_tools(done)
    _tool_choice(done)
    return done


def _move(done: Translation, old: str, path: tuple[str, ...]) -> None:
    value = done.tree.pop(old)
    new = ".".join(path)
    table = done.tree
    for depth, key in enumerate(path[:-1], start=1):
        table = table.setdefault(key, {})
        if not isinstance(table, dict):
            raise ConfigError("must be a table", place=".".join(path[:depth]))
    if path[-1] in table:
        raise ConfigError(f"says the same as {new}; keep only {new}", place=old)
    if old == "modalities" and value in (["audio", "text"], ["text", "audio"]):
        # The old way to ask for speech with its transcript.
        value = ["audio"]
    table[path[-1]] = value
    done.origins[new] = old
    done.changes.append(f"{old} -> {new}")


def _audio(tree: Mapping[str, Any], side: str) -> dict[str, Any]:
    """The table `audio.input` or `audio.output`; empty where there is none."""
    audio = tree.get("audio")
    table = audio.get(side) if isinstance(audio, dict) else None
    return table if isinstance(table, dict) else {}


def _old_formats(done: Translation) -> None:
    for side in ("input", "output"):
        table = _audio(done.tree, side)
        word = table.get("format")
        if not isinstance(word, str):
            continue
        if word not in _FORMATS:
            place = done.written_as(f"audio.{side}.format")
            raise ConfigError(f"must be {', '.join(_FORMATS)}, or the GA table", place=place)
        table["format"] = dict(_FORMATS[word])
        kind = _FORMATS[word]["type"]
        rate = ", rate = 24000" if word == "pcm16" else ""
        done.changes.append(f'"{word}" -> {{ type = "{kind}"{rate} }}')


def _no_turn_detection(done: Translation) -> None:
    table = _audio(done.tree, "input")
    detection = table.get("turn_detection")
    if isinstance(detection, dict) and detection.get("type") == "none":
        table["turn_detection"] = None
        done.changes.append('turn_detection type "none" -> null')


def _nested_tools(done: Translation) -> None:
    tools = done.tree.get("tools")
    if not isinstance(tools, list):
        return
    for index, tool in enumerate(tools):
        if isinstance(tool, dict) and isinstance(tool.get("function"), dict):
            function = tool.pop("function")
            both = sorted(set(tool) & set(function))
            if both:
                raise ConfigError(f"says {both[0]} twice, in function too", place=f"tools[{index}]")
            for key in function:
                done.origins[f"tools[{index}].{key}"] = f"tools[{index}].function.{key}"
            tool.update({"type": "function"} | function)
            done.changes.append(f"tools[{index}].function -> its fields one level up")


def _tool_choice(done: Translation) -> None:
    """A bare name is taken for a tool's only if the same table declares that tool: else it is a typing error."""
    choice = done.tree.get("tool_choice")
    tools = done.tree.get("tools")
    names = [tool.get("name") for tool in tools if isinstance(tool, dict)] if isinstance(tools, list) else []
    if isinstance(choice, str) and choice not in _MODES and choice in names:
        done.tree["tool_choice"] = {"type": "function", "name": choice}
        done.changes.append('tool_choice NAME -> { type = "function", name = NAME }')
    elif isinstance(choice, dict) and isinstance(choice.get("function"), dict):
        done.tree["tool_choice"] = {"type": "function"} | choice.pop("function") | choice
        done.origins["tool_choice.name"] = "tool_choice.function.name"
        done.changes.append("tool_choice.function -> its name one level up")
