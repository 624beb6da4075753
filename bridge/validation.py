"""What is wrong with a value, and where: msgspec judges, this explains.

`converted` is `msgspec.convert` whose refusal is a `ConfigError` that names the exact place, dict keys included (msgspec
writes `[...]` for them), and says what belongs there in words for people: the range, the choices, the known keys. It
walks the types as msgspec itself describes them (`msgspec.inspect`), so a struct with its `Meta` limits is the one
source of every rule. `Meta(extra={"remedy": ...})` replaces the made-up words where a rule needs its own.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec
from msgspec import inspect as kinds

from bridge.errors import ConfigError
from bridge.toml_lines import Path, dotted

T = TypeVar("T")
# A place, relative to the value that was asked about, and what to do there.
Problem = tuple[Path, str]


def converted(value: object, kind: type[T], *, strict: bool = True, whole: str = "") -> T:
    """`value` (JSON-plain) as a `kind`. Not `strict`: text may stand for numbers and booleans, since the environment
    has nothing else. Raises `ConfigError`: its `place` is relative to `value`, its message holds the remedy only. With
    `whole`, what `value` is called as a whole, the message begins with the place, or with that."""
    try:
        return msgspec.convert(value, kind, strict=strict)
    except msgspec.ValidationError as error:
        # msgspec's own words are the fallback, should this walk ever be less strict than msgspec.
        path, remedy = _problem(value, kinds.type_info(kind), strict) or ((), str(error))
        place = dotted(path)
        raise ConfigError(f"{place or whole}: {remedy}" if whole else remedy, place=place) from error


def unplain(value: object) -> Problem | None:
    """The first thing in `value` that JSON can not say (a date, infinity, not-a-number), or None."""
    match value:
        case None | bool() | int() | str():
            return None
        case float():
            return None if math.isfinite(value) else ((), "must be a finite number")
        case Mapping():
            return _first((str(key), unplain(inner)) for key, inner in value.items())
        case list() | tuple():
            return _first((index, unplain(inner)) for index, inner in enumerate(value))
    return (), f"must be text, a number, true, false, a list or a table, not a {type(value).__name__}"


def _first(found: Iterable[tuple[str | int, Problem | None]]) -> Problem | None:
    for key, problem in found:
        if problem:
            return (key, *problem[0]), problem[1]
    return None


def _problem(value: Any, kind: kinds.Type, strict: bool) -> Problem | None:
    """The first problem that `value` has as a `kind`."""
    match kind:
        case kinds.Metadata(type=inner, extra=extra):
            found = _problem(value, inner, strict)
            if found and not found[0] and extra and "remedy" in extra:
                return (), str(extra["remedy"])
            return found
        case kinds.AnyType():
            return None
        case kinds.UnionType(types=types):
            return _problem_of_union(value, types, strict)
        case kinds.StructType() if isinstance(value, Mapping):
            return _problem_of_table(value, kind, (kind,), strict)
        case kinds.DictType(value_type=inner) if isinstance(value, Mapping):
            return _first((key, _problem(it, inner, strict)) for key, it in value.items())
        case kinds.ListType(item_type=inner) if isinstance(value, Sequence) and not isinstance(value, str):
            if not _within(len(value), kind.min_length, kind.max_length):
                return (), f"must be a list of {_span(kind.min_length, kind.max_length)} entries"
            return _first((index, _problem(it, inner, strict)) for index, it in enumerate(value))
    return None if _fits(value, kind, strict) else ((), f"must be {_expected(kind)}")


def _problem_of_union(value: Any, types: Sequence[kinds.Type], strict: bool) -> Problem | None:
    if isinstance(value, Mapping):
        structs = [it for it in types if isinstance(it, kinds.StructType)]
        if len(structs) > 1:
            return _problem_of_tagged(value, structs, strict)
        tables = [it for it in types if isinstance(it, kinds.StructType | kinds.DictType)]
        if tables:
            return _problem(value, tables[0], strict)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        lists = [it for it in types if isinstance(it, kinds.ListType)]
        if lists:
            return _problem(value, lists[0], strict)
    if any(_problem(value, it, strict) is None for it in types):
        return None
    return (), f"must be {_either([word for it in types for word in _words(it)])}"


def _problem_of_tagged(value: Mapping[str, Any], tables: Sequence[kinds.StructType], strict: bool) -> Problem | None:
    """The problem of a table whose `type` chooses its struct."""
    tag_field = tables[0].tag_field or "type"
    choices = _either([_quoted(it.tag) for it in tables])
    if tag_field not in value:
        return (), f"needs {tag_field} = {choices}"
    for table in tables:
        if value[tag_field] == table.tag:
            return _problem_of_table(value, table, tables, strict)
    return (tag_field,), f"must be {choices}"


def _problem_of_table(
    value: Mapping[str, Any], kind: kinds.StructType, siblings: Sequence[kinds.StructType], strict: bool
) -> Problem | None:
    known = {field.encode_name: field for field in kind.fields}
    for key, inner in value.items():
        if key == kind.tag_field:
            continue
        if key not in known:
            owners = [it.tag for it in siblings if any(field.encode_name == key for field in it.fields)]
            if owners:
                return (key,), f"goes with {kind.tag_field} = {_either([_quoted(it) for it in owners])} only"
            return (key,), f"unknown key; known here: {', '.join(known) or 'none'}{_nearest(key, known)}"
        if problem := _problem(inner, known[key].type, strict):
            return (key, *problem[0]), problem[1]
    for name, field in known.items():
        if field.required and name not in value:
            return (), f"needs {name}"
    return None


def _fits(value: Any, kind: kinds.Type, strict: bool) -> bool:
    """Whether a value that is no container is of this kind. False for kinds that we do not use."""
    match kind:
        case kinds.NoneType():
            return value is None
        case kinds.LiteralType(values=values):
            return any(value == it and type(value) is type(it) for it in values)
        case kinds.EnumType(cls=cls):
            return value in [it.value for it in cls]
        case kinds.StrType():
            return isinstance(value, str) and _within(len(value), kind.min_length, kind.max_length)
        case kinds.BoolType():
            return _convertible(value, bool, strict)
        case kinds.IntType():
            return _convertible(value, int, strict) and _within(float(value), kind.ge, kind.le)
        case kinds.FloatType():
            return _convertible(value, float, strict) and _within(float(value), kind.ge, kind.le)
    return False


def _convertible(value: object, kind: type, strict: bool) -> bool:
    try:
        msgspec.convert(value, kind, strict=strict)
    except msgspec.ValidationError:
        return False
    return True


def _within(value: float, low: float | None, high: float | None) -> bool:
    return (low is None or value >= low) and (high is None or value <= high)


def _words(kind: kinds.Type) -> list[str]:
    """What a value of this kind may be, as the words of one list."""
    return [_quoted(it) for it in kind.values] if isinstance(kind, kinds.LiteralType) else [_expected(kind)]


def _expected(kind: kinds.Type) -> str:
    match kind:
        case kinds.Metadata(type=inner):
            return _expected(inner)
        case kinds.NoneType():
            return "null"
        case kinds.LiteralType():
            return _either(_words(kind))
        case kinds.EnumType(cls=cls):
            return _either([_quoted(it.value) for it in cls])
        case kinds.BoolType():
            return "true or false"
        case kinds.StrType(min_length=None, max_length=None):
            return "text"
        case kinds.StrType(max_length=None):
            return "text that is not empty"
        case kinds.StrType():
            return f"text of {_span(kind.min_length, kind.max_length)} characters"
        case kinds.IntType(ge=None, le=None):
            return "a whole number"
        case kinds.FloatType(ge=None, le=None):
            return "a number"
        case kinds.IntType() | kinds.FloatType():
            return _span(kind.ge, kind.le)
        case kinds.ListType():
            return "a list"
    return "a table"


def _span(low: float | None, high: float | None) -> str:
    if high is None:
        return f"{low:g} or more"
    return f"{high:g}" if low == high else f"{low or 0:g} to {high:g}"


def _quoted(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)


def _either(words: Sequence[str]) -> str:
    unique = list(dict.fromkeys(words))
    return " or ".join([", ".join(unique[:-1]), unique[-1]]) if len(unique) > 1 else unique[0]


def _nearest(key: str, known: Iterable[str]) -> str:
    """For lists that are too long to find a slip of the pen in."""
    return "".join(f". Did you mean {name}?" for name in difflib.get_close_matches(key, list(known), 1, 0.75))
