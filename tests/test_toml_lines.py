"""Every key has its line, whatever TOML's many ways to write it."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.toml_lines import dotted, line_of, lines_of

EXAMPLE = Path(__file__).parent.parent / "bridge.toml"

EVERYTHING = """\
# a comment with [brackets] and key = 1
title = "with # no comment and \\" a quote"
[server]
port = 1  # [not.a.table]
"quoted.key" = 'literal # too'

[ agents . sales ]
a.b.c = 2
a.b.d = 3
text = '''
[looks.like.a.table]
key = 1'''
more = <<<ends with
quotes: \\" ""<<<
inline = { x = 1, y = { z = [1, 2] } }
when = 1979-05-27 07:32:00
list = [
  "one",  # a comment, with ] and "
  { name = "two", deep = [
      3 ] },
]
after = true
[[routes]]
agent = "first"
[[routes]]
agent = "second"
[routes.extra]
key = 1
[[routes.inner]]
n = 1
[[routes.inner]]
n = 2
""".replace("<<<", '"""')


def paths_of(tree: Any, path: tuple[str | int, ...] = ()) -> set[str]:
    """Every place of a parsed tree, in our way of writing it."""
    found = {dotted(path)} if path else set()
    children = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, inner in children:
        found |= paths_of(inner, (*path, key))
    return found


@pytest.mark.parametrize(
    ("place", "line"),
    [
        ("title", 2),
        ("server", 3),
        ("server.port", 4),
        ('server."quoted.key"', 5),
        ("agents.sales", 7),
        ("agents.sales.a", 8),
        ("agents.sales.a.b.d", 9),
        ("agents.sales.text", 10),
        ("agents.sales.more", 13),
        ("agents.sales.inline.y.z[1]", 15),
        ("agents.sales.when", 16),
        ("agents.sales.list[0]", 18),
        ("agents.sales.list[1].deep", 19),
        ("agents.sales.list[1].deep[0]", 20),
        ("agents.sales.after", 22),
        ("routes[0].agent", 24),
        ("routes[1]", 25),
        ("routes[1].agent", 26),
        ("routes[1].extra.key", 28),
        ("routes[1].inner[0].n", 30),
        ("routes[1].inner[1].n", 32),
    ],
)
def test_each_key_has_its_line(place: str, line: int) -> None:
    assert lines_of(EVERYTHING)[place] == line


@pytest.mark.parametrize("text", [EVERYTHING, EVERYTHING.replace("\n", "\r\n"), EXAMPLE.read_text(encoding="utf-8")])
def test_the_keys_are_those_that_tomllib_finds(text: str) -> None:
    assert set(lines_of(text)) == paths_of(tomllib.loads(text))


def test_a_place_that_is_not_written_has_the_line_of_what_is_around_it() -> None:
    lines = lines_of(EVERYTHING)
    assert line_of(lines, "agents.sales.session.audio.output") == 7
    assert line_of(lines, "routes[1].called") == 25
    assert line_of(lines, "limits.tool_s") is None
    assert line_of(lines, "") is None


_KEYS = st.one_of(
    st.sampled_from(["a", "b", "key", "session"]), st.text(st.characters(codec="utf-8", exclude_categories=["C"]))
)
_TEXTS = st.text(st.sampled_from("ab #[]{}=,.'\"\\\n"), max_size=12)
_VALUES = st.recursive(
    st.one_of(st.integers(-99, 99), st.booleans(), _TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(_KEYS, inner, max_size=3)),
    max_leaves=6,
)


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def _written(value: Any, *, wide: bool) -> str:
    """A value as TOML, its arrays over several lines where `wide`."""
    match value:
        case bool():
            return str(value).lower()
        case str() if wide and "'''" not in value and not value.endswith("'"):
            return f"'''\n{value}'''"
        case str():
            return _quoted(value)
        case list():
            gap = "\n# ]\n" if wide else ""
            return f"[{gap}" + f",{gap}".join(_written(it, wide=wide) for it in value) + gap + "]"
        case dict():
            return "{" + ", ".join(f"{_quoted(k)} = {_written(v, wide=wide)}" for k, v in value.items()) + "}"
    return str(value)


@given(st.dictionaries(_KEYS, st.dictionaries(_KEYS, _VALUES, max_size=3), max_size=3), st.booleans())
def test_any_file_is_read_as_tomllib_reads_it(tables: dict[str, dict[str, Any]], wide: bool) -> None:
    text = ""
    first_lines: dict[str, int] = {}
    for name, table in tables.items():
        text += f"[{_quoted(name)}]\n"
        for key, value in table.items():
            first_lines[dotted((name, key))] = text.count("\n") + 1
            text += f"{_quoted(key)} = {_written(value, wide=wide)}\n"
    assert tomllib.loads(text) == tables
    lines = lines_of(text)
    assert set(lines) == paths_of(tables)
    assert {place: lines[place] for place in first_lines} == first_lines
