"""The parameters of the OpenSIPS AI Voice Connector's OpenAI flavor, as settings of the agent `default`.

    section(tree, given, ...)   a table [openai], of bridge.toml or of the connector's own INI file
    of_environment(environ)     its environment variables
    parse_ini(text, source)     its INI file

Every parameter of its documentation is known. Where documentation and code of the connector disagree, its documentation
counts. A section [openai] also brings the connector's defaults for what it leaves out, where they are not ours.
"""

from __future__ import annotations

import configparser
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from bridge.errors import ConfigError
from bridge.origins import Origin, Origins

SECTION = "openai"
INI_SUFFIXES = (".ini", ".cfg", ".conf")
OPERATOR = "agents.default.transfers.operator"
OPERATOR_DESCRIPTION = "an operator, a person"
_AGENT = "agents.default"
_TRUE, _FALSE = ("1", "yes", "true", "on"), ("0", "no", "false", "off")


def _plain(value: Any) -> Any:
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ConfigError("must be text")
    return value


def _key(value: Any) -> str:
    # The connector's example has `key = #TODO: Add your OpenAI key here`.
    key = _text(value).strip()
    if re.search(r"\s", key) or key.startswith("#"):
        raise ConfigError("is no API key; better leave it out and set the environment variable OPENAI_API_KEY")
    return key


def _switch(value: Any) -> bool:
    word = str(value).strip().lower()
    if word not in (*_TRUE, *_FALSE):
        raise ConfigError(f"must be one of {', '.join((*_TRUE, *_FALSE))}")
    return word in _TRUE


def _greeting(value: Any) -> str:
    # The connector asks the model to greet "with the following", and models then say something like it.
    words = _text(value).strip()
    return f"Say exactly this, and nothing else: {words}" if words else ""


def _tokens(value: Any) -> Any:
    word = str(value).strip().lower()
    if word == "inf":
        return 0
    if not word.isdecimal() or not 1 <= int(word) <= 4096:
        raise ConfigError('must be 1 to 4096, or "inf"')
    return int(word)


def _address(value: Any) -> str:
    """A SIP URI, which people write as in a header, too: <sip:desk@pbx.example.com>."""
    found = re.fullmatch(r'(?:"[^"]*"\s*|[^<>"]*)<([^<>]+)>', _text(value).strip())
    return (found[1] if found else value).strip()


def _files(value: Any) -> list[str]:
    names = value.split(",") if isinstance(value, str) else value
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ConfigError("must be a file, or a list of files")
    return [name.strip() for name in names if name.strip()]


@dataclass(frozen=True, slots=True)
class Parameter:
    """`keys`: its names in the section. `place`: our setting; empty: there is none, and `dropped` says why. `default`: the
    connector's, where ours is another."""

    keys: tuple[str, ...]
    variable: str
    place: str
    convert: Callable[[Any], Any] = _plain
    default: object = None
    dropped: str = ""


PARAMETERS = (
    Parameter(("key", "openai_key"), "OPENAI_API_KEY", "realtime.api_key", _key),
    Parameter(("model",), "OPENAI_API_MODEL", "realtime.model"),
    Parameter(("url",), "OPENAI_URL", "realtime.url"),
    Parameter(("disable", "disabled"), "OPENAI_DISABLE", f"{_AGENT}.disabled", _switch),
    Parameter(("voice", "openai_voice"), "OPENAI_VOICE", f"{_AGENT}.voice", default="alloy"),
    Parameter(("instructions",), "OPENAI_INSTRUCTIONS", f"{_AGENT}.instructions"),
    Parameter(("welcome_message",), "OPENAI_WELCOME_MSG", f"{_AGENT}.greeting", _greeting, default=""),
    Parameter(("temperature",), "OPENAI_TEMPERATURE", "", dropped="no GA field: dropped"),
    Parameter(("max_tokens",), "OPENAI_MAX_TOKENS", f"{_AGENT}.max_output_tokens", _tokens),
    Parameter(("turn_detection_type",), "OPENAI_TURN_DETECT_TYPE", f"{_AGENT}.turn_detection.type"),
    Parameter(
        ("turn_detection_silence_ms",),
        "OPENAI_TURN_DETECT_SILENCE_MS",
        f"{_AGENT}.turn_detection.silence_duration_ms",
        default=200,
    ),
    Parameter(
        ("turn_detection_threshold",), "OPENAI_TURN_DETECT_THRESHOLD", f"{_AGENT}.turn_detection.threshold"
    ),
    Parameter(
        ("turn_detection_prefix_ms",), "OPENAI_TURN_DETECT_PREFIX_MS", f"{_AGENT}.turn_detection.prefix_padding_ms"
    ),
    # Before transfer_by, which nothing is without it.
    Parameter(("transfer_to",), "OPENAI_TRANSFER_TO", f"{OPERATOR}.sip", _address),
    Parameter(("transfer_by",), "OPENAI_TRANSFER_BY", f"{OPERATOR}.referred_by", _address),
    Parameter(("tools",), "OPENAI_TOOLS", f"{_AGENT}.tools", _files),
    Parameter(
        ("reasoning_effort",), "OPENAI_REASONING_EFFORT", f"{_AGENT}.session.reasoning.effort"
    ),
    Parameter(("match",), "", "", dropped="every call comes to agents.default: say which do not in [[routes]]"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting as ours. `written`: the name that it has there."""

    place: str
    value: Any
    written: str


def of_environment(environ: Mapping[str, str]) -> Iterator[tuple[Setting, str]]:
    """What the variables set, each with what to warn of (mostly nothing). Raises `ConfigError` that names the variable."""
    for it in PARAMETERS:
        if not it.variable or not environ.get(it.variable):
            continue
        if not it.place:
            yield Setting("", None, it.variable), f"environment variable {it.variable}: {it.dropped}"
            continue
        try:
            yield Setting(it.place, it.convert(environ[it.variable]), it.variable), ""
        except ConfigError as error:
            raise ConfigError(f"environment variable {it.variable}: {error}", place=it.place) from error


def of_section(given: Mapping[str, Any]) -> tuple[list[Setting], list[str]]:
    """The settings of a section [openai], and what became of each parameter, in words. Raises `ConfigError` with the
    `place` as written."""
    known = {key: it for it in PARAMETERS for key in it.keys}
    for key in given:
        if key not in known:
            raise _placed(key, f"unknown key; known here: {', '.join(known)}")
    settings, told = [], []
    for it in PARAMETERS:
        here = [key for key in it.keys if key in given]
        if len(here) > 1:
            raise _placed(here[1], f"says the same as {SECTION}.{here[0]}; keep only one of them")
        if not here:
            continue
        (key,) = here
        if not it.place:
            told.append(f"{key} ({it.dropped})")
            continue
        try:
            settings.append(Setting(it.place, it.convert(given[key]), f"{SECTION}.{key}"))
        except ConfigError as error:
            raise _placed(key, str(error)) from error
        told.append(f"{key} -> {it.place}")
    return settings, told


def section(tree: dict[str, Any], given: Any, origins: Origins) -> str:
    """Put what a section [openai] says into `tree`, the rest of the file, and return the warning that names our settings.

    Raises `ConfigError`, whose message begins with the `place` as written.
    """
    if not isinstance(given, Mapping):
        raise ConfigError(f"{SECTION}: must be a table: write its keys below a line [{SECTION}]", place=SECTION)
    settings, told = of_section(given)
    for it in settings:
        # Instructions are said in a file or in the table, by one of the two names.
        for ours in (it.place, *([f"{it.place}_file"] if it.place.endswith(".instructions") else [])):
            if _has(tree, ours):
                raise ConfigError(f"{it.written}: says the same as {ours}; keep only {ours}", place=it.written)
    for it in settings:
        assign(tree, it.place, it.value)
        blamed = origins.blamed(it.written)
        origins.note(it.place, Origin(blamed.where if blamed else SECTION, it.written))
    if _has(tree, f"{OPERATOR}.referred_by") and not _has(tree, f"{OPERATOR}.sip"):
        raise _placed("transfer_by", "goes with transfer_to only")
    left_out = []
    for parameter in PARAMETERS:
        if parameter.default is not None and not _has(tree, parameter.place):
            assign(tree, parameter.place, parameter.default)
            origins.note(parameter.place, Origin(f"default of [{SECTION}]"))
            left_out.append(parameter.place)
    words = f"{SECTION}: read as the OpenSIPS connector's; our names for it: {'; '.join(told) or 'nothing is said'}"
    if left_out:
        words += f". Left out, and so as there, not as here: {', '.join(left_out)}"
    return words


def assign(tree: dict[str, Any], place: str, value: Any) -> None:
    """Put a value at a dotted place, with the tables around it. A table that is none is left to whoever checks types."""
    *path, key = place.split(".")
    for part in path:
        inner = tree.setdefault(part, {})
        if not isinstance(inner, dict):
            return
        tree = inner
    tree[key] = value
    if place == f"{OPERATOR}.sip":
        tree.setdefault("description", OPERATOR_DESCRIPTION)
    if place == f"{_AGENT}.instructions":
        tree.pop("instructions_file", None)


def _has(tree: Any, place: str) -> bool:
    for key in place.split("."):
        if not isinstance(tree, Mapping) or key not in tree:
            return False
        tree = tree[key]
    return True


def _placed(key: str, remedy: str) -> ConfigError:
    place = f"{SECTION}.{key}"
    return ConfigError.at(place, remedy)


# The INI file ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ini:
    """`given`: the section [openai], with what [DEFAULT] says for all; `others`: the sections that are not for this bridge;
    `lines`: {"openai.voice": 3}."""

    given: Mapping[str, str]
    others: list[str]
    lines: Mapping[str, int]


def parse_ini(text: str, source: str) -> Ini:
    """Raises `ConfigError`, which names file, line and remedy."""
    parser = configparser.ConfigParser()
    try:
        parser.read_string(text)
    except configparser.ParsingError as error:
        # Its own message shows the line, which may hold a key.
        errors = getattr(error, "errors", ())
        line = errors[0][0] if errors else getattr(error, "lineno", 1)
        raise ConfigError(f"{source}:{line}: not valid INI: write [SECTION], and below it KEY = VALUE") from None
    except (configparser.DuplicateOptionError, configparser.DuplicateSectionError) as error:
        option = getattr(error, "option", "")
        name = f"{error.section}.{option}" if option else f"[{error.section}]"
        raise ConfigError(f"{source}:{error.lineno}: {name}: stands here twice; keep one of them") from None
    if SECTION not in parser:
        raise ConfigError(
            f"{source}: has no section [{SECTION}], the only one of the connector that is for this bridge; for settings in "
            "our own form name the file .toml"
        )
    lines = _lines_of(text)
    known = {key for it in PARAMETERS for key in it.keys}
    given = {}
    for key in parser[SECTION]:
        if key not in known and key in parser.defaults():
            continue  # for other sections
        try:
            given[key] = parser[SECTION][key]
        except configparser.InterpolationError:
            place = f"{SECTION}.{key}"
            raise ConfigError(
                f"{source}:{lines.get(place, 1)}: {place}: a percent sign is written as %% in this file", place=place
            ) from None
    others = [name for name in parser.sections() if name != SECTION]
    return Ini(given, others, lines)


_HEADER = re.compile(r"\[(?P<name>.+)\]")
_OPTION = re.compile(r"(?P<key>[^\s=:#;][^=:]*?)\s*[=:]")


def _lines_of(text: str) -> dict[str, int]:
    """The line of each key of [openai]; what stands in [DEFAULT] only has the line there."""
    lines: dict[str, int] = {}
    name = ""
    for number, line in enumerate(text.splitlines(), start=1):
        if header := _HEADER.match(line):
            name = header["name"]
            if name == SECTION:
                lines[SECTION] = number
        elif (option := _OPTION.match(line)) and name in (SECTION, configparser.DEFAULTSECT):
            place = f"{SECTION}.{option['key'].lower()}"
            if name == SECTION or place not in lines:
                lines[place] = number
    return lines
