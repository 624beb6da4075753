"""Reads the sounds of every agent when the bridge starts: a wrong file ends `check-config` and `serve`, never a call."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from importlib import resources
from pathlib import Path

import msgspec

from bridge.agent import NO_SOUND, Agent
from bridge.errors import ConfigError
from bridge.sounds import Recording, Sound, Sounds, decode_wav


def load_sounds(agents: Mapping[str, Agent]) -> dict[str, Sounds]:
    """The sounds of each agent, by its name. Agents with the same file share its bytes.

    Blocks (0.1 s for the shipped ones, most of it resampling), so it belongs before the first call. Raises
    `ConfigError`, which names the key, the file, what is wrong, and a command that helps.
    """
    read: dict[str, Recording] = {}

    def recording(place: str, sound: Sound, name: str) -> Recording:
        key = name or f"shipped {sound}"
        if key not in read:
            try:
                read[key] = decode_wav(_bytes_of(name), name) if name else _shipped(sound)
            except ConfigError as error:
                raise ConfigError(f"{place}: {error}") from error
        return read[key]

    loaded: dict[str, Sounds] = {}
    for agent_name, agent in agents.items():
        names: dict[str, str] = msgspec.structs.asdict(agent.sounds)
        loaded[agent_name] = Sounds(
            {
                sound: recording(f"agents.{agent_name}.sounds.{sound}", sound, names[sound])
                for sound in Sound
                if names[sound] != NO_SOUND
            }
        )
    return loaded


@functools.cache
def _shipped(sound: Sound) -> Recording:
    file = resources.files("bridge") / "sounds" / f"{sound}.wav"
    return decode_wav(file.read_bytes(), str(file))


def _bytes_of(name: str) -> bytes:
    try:
        return Path(name).read_bytes()
    except FileNotFoundError:
        raise ConfigError(
            f"{name}: no such file (paths begin at the folder of the settings' file); "
            "record one with: sox -d -r 16000 -c 1 -b 16 FILE.wav"
        ) from None
    except OSError as error:
        raise ConfigError(f"{name}: cannot be read: {error.strerror or error}") from error
