"""The settings in force: defaults < file < environment < command line, and where each comes from.

`load_config`: text, environment and overrides in, one `Config` out, or a `ConfigError` that names the line, the key and the
remedy; `load` also says where each setting comes from. `warnings_of` tells what is right and yet worth a word. The types
and their defaults are those of `settings`, which this module passes on.
"""

from __future__ import annotations

import copy
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any, TypeAlias
from urllib.parse import urlsplit

import msgspec

from bridge import config_checks, hooks, mcp_servers, opensips, recording, tool_hook
from bridge.agent import NO_SOUND, Agent, AgentSounds
from bridge.environment import VARIABLES
from bridge.errors import ConfigError
from bridge.instructions_file import read_instructions
from bridge.origins import COMMAND_LINE, Origin, Origins
from bridge.prompt_lint import unkept_promises
from bridge.session import check_agent, session_of
from bridge.session_advice import model_advice, session_advice
from bridge.settings import (
    OPEN_PARAMETERS,
    SECRETS,
    Asterisk,
    Config,
    FormatChoice,
    Limits,
    MediaFormat,
    Realtime,
    RequestsChoice,
    Server,
    Tracing,
    limits_of,
    masked_url,
    media_format_name,
    realtime_of,
)
from bridge.toml_lines import dotted, lines_of
from bridge.validation import converted

__all__ = [
    "OPEN_PARAMETERS", "SECRETS", "Asterisk", "Config", "FormatChoice", "Limits", "Loaded", "MediaFormat", "Realtime",
    "RequestsChoice", "Server", "Tracing", "limits_of", "load", "load_config", "masked_url", "media_format_name",
    "realtime_of", "warnings_of",
]  # fmt: skip


class Loaded(msgspec.Struct, frozen=True, kw_only=True):
    """The settings in force, where each comes from, what there is to warn of, and the files that they name. `common`: as
    they are written, before a worker's number has counted up its ports."""

    config: Config
    common: Config
    origins: Origins
    warnings: list[str] = []
    files: list[str] = []


def load_config(
    text: str,
    environ: Mapping[str, str],
    overrides: Mapping[str, str] | None = None,
    *,
    source: str = "bridge.toml",
    folder: PurePath | None = None,
) -> Config:
    """The effective settings, as `load` says."""
    return load(text, environ, overrides, source=source, folder=folder).config


def load(
    text: str,
    environ: Mapping[str, str],
    overrides: Mapping[str, str] | None = None,
    *,
    source: str = "bridge.toml",
    folder: PurePath | None = None,
) -> Loaded:
    """The effective settings from a TOML `text`, the environment, and `section.key` overrides of the command line.

    If the name `source` ends like that of an INI file, the text is one of the OpenSIPS AI Voice Connector. Relative paths
    in it are taken from `folder`, where the text's own file lies (none given: left as they are); the only files that are
    read are those of `agents.NAME.instructions_file`. With `server.worker` they are that worker's, see
    `Config.for_worker`.

    Raises `ConfigError`, whose message names the source, the key and what is expected there.
    """
    tree, origins, warnings = _parsed(text, source)
    try:
        config = _with_secrets(_convert(tree), environ)
    except ConfigError as error:
        raise ConfigError(origins.located(str(error)), place=error.place) from error
    given: list[_Given] = []
    for setting, warning in opensips.of_environment(environ):
        warnings += [warning] if warning else []
        if setting.place:
            earlier = origins.written(setting.place)
            if earlier.startswith(f"{opensips.SECTION}."):
                warnings.append(
                    f"{earlier}: the environment variable {setting.written} wins, other than with OpenSIPS"
                )
            given.append((setting.place, setting.value, f"environment variable {setting.written}"))
    given += [
        (place, environ[it], f"environment variable {it}") for it, place in reversed(VARIABLES) if environ.get(it)
    ]
    config = _set(config, tree, origins, given)
    for path in overrides or {}:
        if path.partition(".")[0] not in _SCALAR_SECTIONS or path.count(".") != 1:
            known = ", ".join(sorted(_SCALAR_SECTIONS))
            raise ConfigError(f"command line, {path}: only SECTION.KEY with a section of {known} can be set there")
    config = _set(config, tree, origins, [(path, value, COMMAND_LINE) for path, value in (overrides or {}).items()])
    config = _with_secrets(config, environ)
    common = config
    if number := config.server.worker:
        config = config.for_worker(number)
        for place in _changed(common, config):
            origins.note(place, Origin(f"{origins.of(place)} (worker {number})"))
    if folder:
        config = _with_paths_from(folder, config)
    try:
        config = _with_instructions(config, origins)
    except ConfigError as error:
        raise ConfigError(origins.located(str(error)), place=error.place) from error
    return Loaded(config=config, common=common, origins=origins, warnings=warnings, files=_files_of(config))


def _files_of(config: Config) -> list[str]:
    """Every file that the settings name, each once."""
    files = [config.realtime.prices]
    for agent in config.agents.values():
        sounds = [name for name in msgspec.structs.asdict(agent.sounds).values() if name != NO_SOUND]
        files += [agent.instructions_file, *agent.tools, *sounds]
    return [file for file in dict.fromkeys(files) if file]


def _parsed(text: str, source: str) -> tuple[dict[str, Any], Origins, list[str]]:
    """A file as a tree in our names, where its settings stand, and what to warn of."""
    if source.endswith(opensips.INI_SUFFIXES):
        ini = opensips.parse_ini(text, source)
        tree: dict[str, Any] = {opensips.SECTION: ini.given}
        origins = Origins(source, ini.lines)
        others = ", ".join(f"[{name}]" for name in ini.others)
        warnings = [f"{source}: {others}: not used, since Asterisk does what they are for"] if others else []
    else:
        try:
            tree = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            told = _TOML_LINE.search(str(error))
            end = text.count("\n") + 1
            raise ConfigError(f"{source}:{told[1] if told else end}: not valid TOML: {error}") from error
        origins, warnings = Origins(source, lines_of(text)), []
    try:
        if opensips.SECTION in tree:
            warnings.append(opensips.section(tree, tree.pop(opensips.SECTION), origins))
        _say_instructions_once(tree)
    except ConfigError as error:
        raise ConfigError(origins.located(str(error)), place=error.place) from error
    return tree, origins, warnings


_Given: TypeAlias = tuple[str, Any, str]
"""A setting that no line of the file gave: its place, its value, and what gave it."""


def _set(config: Config, tree: dict[str, Any], origins: Origins, given: Sequence[_Given]) -> Config:
    """`config` of `tree` with these settings, which are put into both tables."""
    if not given:
        return config
    before = copy.deepcopy(tree)
    for place, value, where in given:
        opensips.assign(tree, place, value)
        origins.note(place, Origin(where))
    try:
        return _convert(tree)
    except ConfigError:
        # One by one, to know which it was: a hundred agents take 40 ms each time.
        for place, value, where in given:
            opensips.assign(before, place, value)
            _blaming(before, origins, place, where)
        raise


def _blaming(tree: dict[str, Any], origins: Origins, place: str, where: str) -> None:
    """Raises what `_convert` does, with what gave the last setting."""
    try:
        _convert(tree)
    except ConfigError as error:
        if error.place == place:
            raise ConfigError(origins.located(str(error)), place=place) from error
        raise ConfigError(f"{where}: {error}", place=error.place) from error


def _changed(old: Config, new: Config) -> list[str]:
    """The plain settings, as `section.key`, that are not the same in both."""
    return [
        f"{section}.{key}"
        for section in ("server", "asterisk")
        for key, value in msgspec.structs.asdict(getattr(new, section)).items()
        if value != getattr(getattr(old, section), key)
    ]


def _say_instructions_once(tree: dict[str, Any]) -> None:
    agents = tree.get("agents")
    for name, agent in agents.items() if isinstance(agents, dict) else ():
        if isinstance(agent, dict) and "instructions" in agent and agent.get("instructions_file"):
            place = f"{dotted(('agents', name))}.instructions_file"
            raise ConfigError.at(place, "instructions are said here and in `instructions`; keep one")


def _with_instructions(config: Config, origins: Origins) -> Config:
    """With the text of every `instructions_file`."""
    agents = dict(config.agents)
    for name, agent in config.agents.items():
        if not agent.instructions_file:
            continue
        at = dotted(("agents", name))
        try:
            text = read_instructions(agent.instructions_file)
        except ConfigError as error:
            place = f"{at}.instructions_file"
            raise ConfigError.at(place, str(error)) from error
        agents[name] = msgspec.structs.replace(agent, instructions=text)
        origins.note(f"{at}.instructions", Origin(agent.instructions_file))
    return msgspec.structs.replace(config, agents=agents)


def _with_secrets(config: Config, environ: Mapping[str, str]) -> Config:
    def read(value: str, where: str) -> str:
        return mcp_servers.from_environment(value, environ, where)

    agents = {}
    for name, agent in config.agents.items():
        at = dotted(("agents", name))
        agents[name] = msgspec.structs.replace(
            agent,
            mcp=mcp_servers.with_secrets(agent.mcp, environ, f"{at}.mcp"),
            tool_hook=tool_hook.with_secrets(agent.tool_hook, read, f"{at}.tool_hook"),
            hooks=hooks.agents_with_secrets(agent.hooks, read, f"{at}.hooks"),
        )
    headers = {name: read(value, f"tracing.headers.{name}") for name, value in config.tracing.headers.items()}
    tracing = msgspec.structs.replace(config.tracing, headers=headers)
    told = hooks.with_secrets(config.hooks, read, "hooks")
    return msgspec.structs.replace(config, agents=agents, hooks=told, tracing=tracing)


def _with_paths_from(folder: PurePath, config: Config) -> Config:
    def complete(sounds: AgentSounds) -> AgentSounds:
        files = {key: name for key, name in msgspec.structs.asdict(sounds).items() if name not in ("", NO_SOUND)}
        return msgspec.structs.replace(sounds, **{key: str(folder / name) for key, name in files.items()})

    agents = {
        name: msgspec.structs.replace(
            agent,
            sounds=complete(agent.sounds),
            recording=recording.below(agent.recording, folder),
            tools=[str(folder / file) for file in agent.tools],
            instructions_file=agent.instructions_file and str(folder / agent.instructions_file),
        )
        for name, agent in config.agents.items()
    }
    prices = str(folder / config.realtime.prices) if config.realtime.prices else ""
    realtime = msgspec.structs.replace(config.realtime, prices=prices)
    server = msgspec.structs.replace(config.server, data_dir=str(folder / config.server.data_dir))
    return msgspec.structs.replace(config, server=server, agents=agents, realtime=realtime)


# tomllib says the line in its message only (before Python 3.14), or "at end of document".
_TOML_LINE = re.compile(r"at line (\d+)")

_SCALAR_SECTIONS = frozenset({"server", "asterisk", "realtime", "limits", "hooks", "records", "gateway", "tracing"})


def _convert(tree: dict[str, Any]) -> Config:
    """The settings of a parsed file. Raises `ConfigError` whose message begins with its `place`."""
    try:
        # Not strict: the environment and the command line hold numbers as strings.
        config = converted(tree, Config, strict=False)
    except ConfigError as error:
        remedy = str(error)
        if remedy == "must be a table" and "[" not in error.place:
            remedy += f": write its keys below a line [{error.place}]"
        raise ConfigError(f"{error.place or 'top level'}: {remedy}", place=error.place) from error
    config = msgspec.structs.replace(config, agents={"default": Agent()} | config.agents)
    config_checks.check(config)
    return config


def warnings_of(config: Config) -> list[str]:
    """What is valid and yet worth a word at start: old names, retired models, settings that the model does not know."""
    # Other servers have models of the same names, and their own dates.
    at_openai = (urlsplit(config.realtime.url).hostname or "").endswith("api.openai.com")
    found = model_advice(config.realtime.model) if at_openai else []
    for name, agent in config.agents.items():
        at = dotted(("agents", name))
        model = realtime_of(agent, config.realtime).model if at_openai else ""
        found += model_advice(model, f"{at}.model") if agent.model else []
        found += check_agent(agent, at)
        found += unkept_promises(agent, at)
        found += recording.advice(agent.recording, agent.records.keep_numbers, at)
        found += session_advice(session_of(agent, []), model, at)
    found += hooks.advice(config.hooks, {name: agent.hooks for name, agent in config.agents.items()})
    return found
