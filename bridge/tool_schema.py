"""A Python function as a tool: the JSON schema that the model sees, and the model's arguments as Python values.

    async def weather(city: str, days: Annotated[int, "1 to 7"] = 1) -> dict[str, str]:
        \"\"\"The weather in a city.

        Args:
            city: Its name in English.
        \"\"\"

`FunctionSchema.of(weather)` takes the types from the annotations, what is required from the defaults, and the words from
the docstring (Google's "Args:" or reST's ":param city:"); an `Annotated` description wins over the docstring's. Types are
those that msgspec knows: str, int, float, bool, Literal, Enum, dates, list, dict, `| None`, TypedDict, dataclass and
msgspec.Struct. `bind` checks the arguments of one call against the same types and converts them.

Pure: nothing is called here but `inspect`, `typing` and msgspec.
"""

from __future__ import annotations

import functools
import inspect
import re
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from bridge.errors import ConfigError

Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolContext:
    """What a function may want to know about the call it serves. A parameter annotated with it is filled by the
    bridge and is no part of the schema. What is unknown is empty.

    `call_id`: the phone call's id, as in its record and logs. `agent`: the profile's name. `caller`, `called`: numbers.
    `tool_call_id`: the model's id of this one call of the tool.
    `secure_digits`: what the caller has keyed in for secure entries of the agent's profile, by name; never in its repr.
    `call`: the running call itself (a `bridge.live_call.LiveCall`), None outside of one.
    """

    call_id: str = ""
    agent: str = ""
    caller: str = ""
    called: str = ""
    tool_call_id: str = ""
    secure_digits: Mapping[str, str] = field(default_factory=dict, repr=False)
    call: Any = None


class ArgumentError(Exception):
    """The model's arguments do not fit; `str(error)` tells the model what to do differently."""


@dataclass(frozen=True, slots=True)
class _Parameter:
    type: Any
    required: bool


@dataclass(frozen=True, slots=True)
class FunctionSchema:
    """What the model is told of one function, and how its arguments get back into Python. Made by `of`.

    `returns_nothing`: annotated `-> None`, so a result of None means "done" and not "nothing found".
    """

    name: str
    description: str
    parameters: Mapping[str, Any]
    returns_nothing: bool
    _parameters: Mapping[str, _Parameter]
    _context_names: tuple[str, ...]

    @classmethod
    def of(cls, function: Callable[..., object], *, name: str = "", description: str = "") -> FunctionSchema:
        """The schema of `function`; `name` and `description` win over its own.

        Raises `ConfigError` for what a model can not be told: it names the parameter and what to write instead.
        """
        bare = _bare(function)
        name = name or getattr(bare, "__name__", "")
        if not name or name == "<lambda>":
            raise ConfigError(f"tool {function!r}: it has no name of its own; give one with name=")
        hints = _hints(bare, name)
        text, described = _read_docstring(inspect.getdoc(bare) or "")
        parameters: dict[str, _Parameter] = {}
        properties: dict[str, Json] = {}
        context_names: list[str] = []
        for parameter in _signature(function, name).parameters.values():
            _refuse_kind(name, parameter)
            if parameter.name not in hints:
                raise ConfigError(
                    f"tool {name}: parameter {parameter.name!r} has no type: write `{parameter.name}: str`, or what it is"
                )
            hint = hints[parameter.name]
            if _is_context(hint):
                context_names.append(parameter.name)
                continue
            parameters[parameter.name] = _Parameter(hint, parameter.default is inspect.Parameter.empty)
            schema = _schema(hint, f"tool {name}: parameter {parameter.name!r}")
            if words := _annotated_words(hint) or described.get(parameter.name, ""):
                schema["description"] = words
            schema |= _shown_default(parameter.default)
            properties[parameter.name] = schema
        return cls(
            name,
            description or text,
            {
                "type": "object",
                "properties": properties,
                "required": [name for name, it in parameters.items() if it.required],
                "additionalProperties": False,
            },
            hints.get("return", ...) in (None, type(None)),
            parameters,
            tuple(context_names),
        )

    def bind(self, arguments: Mapping[str, Any], context: ToolContext | None = None) -> dict[str, Any]:
        """The keyword arguments for one call, converted to the annotated types.

        Models write numbers as strings and the reverse, so both are taken. A parameter left out is left out here too:
        the function's own default applies. Raises `ArgumentError`, which tells of everything that is wrong at once.
        """
        problems = [f"there is no parameter {name!r}" for name in arguments if name not in self._parameters]
        problems += [
            f"{name!r} is missing" for name, it in self._parameters.items() if it.required and name not in arguments
        ]
        bound: dict[str, Any] = {}
        for name, parameter in self._parameters.items():
            if name not in arguments:
                continue
            try:
                bound[name] = _converted(arguments[name], parameter.type)
            except msgspec.ValidationError as error:
                message, _, where = str(error).partition(" - at `$")
                problems.append(f"{name}{where.rstrip('`')}: {message[:1].lower()}{message[1:]}")
        if problems:
            known = ", ".join(self._parameters) or "none"
            raise ArgumentError(f"{'; '.join(problems)}. Parameters: {known}")
        bound |= dict.fromkeys(self._context_names, context or ToolContext())
        return bound


# --- the signature -------------------------------------------------------------------------------------------------


def _bare(function: Callable[..., object]) -> Callable[..., object]:
    """The function with the annotations and the docstring, under a partial, or of an object with `__call__`."""
    while isinstance(function, functools.partial):
        function = function.func
    if inspect.isclass(function):
        raise ConfigError(f"tool {function!r}: a class is no tool; give a function or an object with __call__")
    if inspect.isroutine(function):
        return function
    called: Callable[..., object] = type(function).__call__
    return called


def _signature(function: Callable[..., object], name: str) -> inspect.Signature:
    try:
        return inspect.signature(function)
    except ValueError as error:
        raise ConfigError(
            f"tool {name}: Python does not know its parameters: wrap it in a function of your own"
        ) from error


def _hints(function: Callable[..., object], name: str) -> dict[str, Any]:
    """The resolved annotations. Those that name a local of the enclosing function are found while it still runs."""
    try:
        return typing.get_type_hints(function, localns=_enclosing_locals(function), include_extras=True)
    except NameError as error:
        raise ConfigError(
            f"tool {name}: its annotations use {error.name!r}, which is not known when the tool is added: import it "
            "outside of `if TYPE_CHECKING`, and define it in the module or in the function that adds the tool"
        ) from error
    except (SyntaxError, TypeError, AttributeError) as error:
        raise ConfigError(f"tool {name}: its annotations can not be read: {error}") from error


def _enclosing_locals(function: Callable[..., object]) -> dict[str, Any]:
    """The variables of the function in whose body `function` was defined, if that is among our callers."""
    scope = getattr(function, "__qualname__", "").rpartition(".<locals>.")[0]
    frame = inspect.currentframe()
    while scope and frame is not None:
        if frame.f_code.co_qualname == scope:
            return dict(frame.f_locals)
        frame = frame.f_back
    return {}


def _refuse_kind(name: str, parameter: inspect.Parameter) -> None:
    remedies: Mapping[object, str] = {
        inspect.Parameter.POSITIONAL_ONLY: "is positional-only, and models name what they give: remove the `/`",
        inspect.Parameter.VAR_POSITIONAL: "takes any number of values: write one parameter like `names: list[str]`",
        inspect.Parameter.VAR_KEYWORD: "takes any names: write one parameter like `values: dict[str, str]`",
    }
    if remedy := remedies.get(parameter.kind):
        raise ConfigError(f"tool {name}: parameter {str(parameter).partition(':')[0]!r} {remedy}")


def _is_context(hint: Any) -> bool:
    if typing.get_origin(hint) is typing.Annotated:
        hint = typing.get_args(hint)[0]
    is_union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    return hint is ToolContext or (is_union and ToolContext in typing.get_args(hint))


def _annotated_words(hint: Any) -> str:
    """The first string in `Annotated[..., "words"]`."""
    extras = getattr(hint, "__metadata__", ())
    return next((extra for extra in extras if isinstance(extra, str)), "")


# --- the schema ----------------------------------------------------------------------------------------------------

_REF = "#/$defs/"
_WRITE_INSTEAD = (
    "use str, int, float, bool, Literal, Enum, list[...], dict[str, ...], a TypedDict, a dataclass, or one of these "
    "`| None`"
)


def _schema(hint: Any, place: str) -> Json:
    """The JSON schema of one type, without references. Raises `ConfigError` that begins with `place`."""
    try:
        (schema,), named = msgspec.json.schema_components([hint], ref_template=_REF + "{name}")
        msgspec.json.Decoder(hint)
    except (TypeError, NameError) as error:
        why = str(error).rsplit("\n", 1)[-1]
        raise ConfigError(f"{place} can not be described to a model: {why}; {_WRITE_INSTEAD}") from error
    return _plain(schema, named, place, ())


def _plain(schema: Json, named: Mapping[str, Json], place: str, inside: tuple[str, ...]) -> Json:
    """`schema` as servers take it: references replaced, class names removed, arrays with `items`, enums with `type`."""
    if reference := schema.get("$ref", ""):
        name = reference.removeprefix(_REF)
        if name in inside:
            raise ConfigError(f"{place} can not be described to a model: {name} contains itself; {_WRITE_INSTEAD}")
        return _plain(named[name], named, place, (*inside, name))

    def inner(value: Json) -> Json:
        return _plain(value, named, place, inside)

    plain = {key: value for key, value in schema.items() if key != "title"}
    if "properties" in plain:
        plain["properties"] = {name: inner(value) for name, value in plain["properties"].items()}
    if isinstance(plain.get("additionalProperties"), dict):
        plain["additionalProperties"] = inner(plain["additionalProperties"])
    if "anyOf" in plain:
        plain["anyOf"] = [inner(value) for value in plain["anyOf"]]
    if "prefixItems" in plain:
        # The server wants `items` to be a schema: any of the tuple's types, and the right number of them.
        plain["items"] = {"anyOf": [inner(value) for value in plain.pop("prefixItems")]}
    elif isinstance(plain.get("items"), dict):
        plain["items"] = inner(plain["items"])
    elif plain.get("type") == "array":
        raise ConfigError(f"{place} can not be described to a model: a list of what? Write `list[str]` or the like")
    if "enum" in plain and "type" not in plain:
        kinds = {type(value) for value in plain["enum"]}
        if kinds <= {str} or kinds <= {int}:
            plain["type"] = "string" if kinds == {str} else "integer"
    return plain


def _shown_default(default: object) -> Json:
    """The default as a part of the schema, where JSON can hold it; None says nothing to a model."""
    if default is inspect.Parameter.empty or default is None:
        return {}
    try:
        return {"default": msgspec.to_builtins(default, str_keys=True)}
    except TypeError:
        return {}


def _converted(value: Any, hint: Any) -> Any:
    try:
        return msgspec.convert(value, hint, strict=False, str_keys=True)
    except msgspec.ValidationError as error:
        # House numbers, postal codes and phone numbers: a model likes to give digits as a number.
        if isinstance(value, int | float) and not isinstance(value, bool):
            try:
                return msgspec.convert(str(value), hint, strict=False)
            except msgspec.ValidationError:
                raise error from None
        raise


# --- the docstring -------------------------------------------------------------------------------------------------

_ARGUMENTS = re.compile(r"(args|arguments|parameters|params):\s*$", re.IGNORECASE)
_OTHER_SECTION = re.compile(r"(returns?|raises|yields?|examples?|attributes|see also|todo):\s*$", re.IGNORECASE)
_GOOGLE_ENTRY = re.compile(r"(\s+)\*{0,2}(\w+)\s*(?:\([^)]*\))?\s*:\s*(.*)")
_REST_ENTRY = re.compile(r":(?:param|parameter|arg|argument)\s+(?:[^:]*\s)?\*{0,2}(\w+)\s*:\s*(.*)")
_REST_OTHER = re.compile(r":(?:returns?|rtype|raises?|type|yields?)\b[^:]*:")


def _read_docstring(docstring: str) -> tuple[str, dict[str, str]]:
    """What a docstring (dedented, as `inspect.getdoc` gives it) says of the function, and of each parameter."""
    text: list[str] = []
    entries: dict[str, list[str]] = {}
    for name, line in _labelled(docstring):
        (text if name == "" else entries.setdefault(name, [])).append(line.strip())
    entries.pop(_SKIPPED, None)
    paragraphs = "\n".join(text).strip().split("\n\n")
    return (
        "\n".join(" ".join(it.split()) for it in paragraphs if it.strip()),
        {name: " ".join(" ".join(lines).split()) for name, lines in entries.items()},
    )


_SKIPPED = "-"


def _labelled(docstring: str) -> Iterator[tuple[str, str]]:
    """Each line with the parameter that it describes; empty: the function itself; `_SKIPPED`: a part that is not told."""
    owner, section, depth = "", "", 0
    for line in docstring.splitlines():
        outside = bool(line) and not line[0].isspace()
        if outside and _ARGUMENTS.match(line):
            owner, section, depth = _SKIPPED, "args", 0
        elif outside and _OTHER_SECTION.match(line):
            owner, section = _SKIPPED, "other"
        elif entry := _REST_ENTRY.match(line.strip()):
            owner, section = entry[1], "rest"
            yield owner, entry[2]
        elif _REST_OTHER.match(line.strip()):
            owner, section = _SKIPPED, "rest"
        elif section == "args" and (entry := _GOOGLE_ENTRY.match(line)) and len(entry[1]) <= (depth or len(entry[1])):
            owner, depth = entry[2], len(entry[1])
            yield owner, entry[3]
        else:
            if outside and section in ("args", "other"):
                owner, section = "", ""  # Text after the section, at the margin: the function's again.
            yield owner, line
