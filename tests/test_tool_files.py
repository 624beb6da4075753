"""Python tool files: what of them is a tool, what is wrong with one, and functions files as OpenSIPS has them.

No `autojump_clock` where a plain function runs: it does not see that a thread works.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bridge.errors import ConfigError
from bridge.tool_files import load_tool_file
from bridge.tool_schema import ToolContext
from bridge.tools import Tool, ToolRegistry

PLACE = "agents.default.tools[0]"
Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(text: str) -> Path:
        path = tmp_path / "weather.py"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def load(path: Path) -> dict[str, Tool]:
    return {tool.name: tool for tool in load_tool_file(str(path), PLACE)}


PUBLIC = '''
from __future__ import annotations
from dataclasses import dataclass
from json import dumps
from bridge.tools import Tool

@dataclass
class Place:
    city: str

async def weather(place: Place, days: int = 1) -> str:
    """The weather at a place.

    Args:
        days: How many.
    """
    return dumps([place.city, days])

def _helper(anything): ...
def hours() -> str: return "9 to 5"
by_hand = Tool("by_hand", "With a schema of its own.", lambda it: it)
'''


async def test_public_functions_are_tools(write: Write) -> None:
    path = write(PUBLIC)
    tools = load(path)
    assert list(tools) == ["weather", "hours", "by_hand"], "no import, no class, nothing with _"
    assert tools["weather"].description == "The weather at a place."
    assert tools["weather"].parameters["properties"]["days"]["description"] == "How many."
    assert tools["weather"].origin == f"{path}:11"
    assert tools["by_hand"].origin == str(path)
    arguments = '{"place": {"city": "Oslo"}, "days": "3"}'
    assert json.loads(await ToolRegistry(tools.values()).run("weather", arguments, timeout_s=2)) == ["Oslo", 3]


@pytest.mark.parametrize(
    "choice", ['TOOLS = ["one"]', "TOOLS = [one]", '__all__ = ["one"]', 'TOOLS = ["one"]\n__all__ = ["two"]']
)
def test_a_list_chooses(write: Write, choice: str) -> None:
    functions = "def one() -> int: return 1\ndef two() -> int: return 2\n"
    assert list(load(write(functions))) == ["one", "two"]
    assert list(load(write(functions + choice))) == ["one"]


def test_a_class_beside_a_tool_file_may_be_imported(write: Write, tmp_path: Path) -> None:
    (tmp_path / "shop_of_this_test.py").write_text("OPEN = '9 to 5'")
    assert "hours" in load(write("import shop_of_this_test\ndef hours() -> str: return shop_of_this_test.OPEN"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("def a(:", ":1: SyntaxError: invalid syntax"),
        ("import json\n\njson.loads('')", ":3: JSONDecodeError: Expecting value"),
        ("def f():\n    raise OSError('no database')\nf()", ":2: OSError: no database"),
        ("import sys\nsys.exit('no')", ":2: SystemExit: no"),
        (
            "import no_such_package_here",
            ":1: ModuleNotFoundError: No module named 'no_such_package_here'; install it",
        ),
        ("\ndef a(b): ...", ":2: tool a: parameter 'b' has no type: write `b: str`, or what it is (what is no tool"),
        ("from json import dumps", ": no tool in it"),
        ("TOOLS = 'a'", ": TOOLS must be a list"),
        ("TOOLS = ['a']", ": TOOLS names 'a', which the file does not define"),
        ("TOOLS = [3]", ": 3 is no function and no bridge.Tool"),
        ("FUNCTIONS = [3]", ": FUNCTIONS[0]: must be a dict"),
        ("FUNCTIONS = [{'name': 'a'}]", ": FUNCTIONS[0]: there is no function 'a' in the file"),
        ("FUNCTIONS = [{'name': 'a b'}]\nglobals()['a b'] = print", ": FUNCTIONS[0]: tool 'a b': a name has 1 to 64"),
        (
            "FUNCTIONS = [{'name': 'a', 'parameters': {'type': 'array'}}]\ndef a(engine, text): ...",
            "parameters must be",
        ),
    ],
)
def test_what_is_wrong_names_the_file_and_the_line(write: Write, text: str, says: str) -> None:
    path = write(text)
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert str(caught.value).startswith(f"{PLACE}: {path}")
    assert caught.value.place == PLACE
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_no_utf_8(tmp_path: Path) -> None:
    path = tmp_path / "latin.py"
    path.write_bytes(b"x = '\xff'")
    with pytest.raises(ConfigError, match=r"latin\.py:1: .*utf-8"):
        load(path)
    path.write_bytes(b"x = '\0'")
    with pytest.raises(ConfigError, match=r"latin\.py.*null bytes"):
        load(path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"agents\.default\.tools\[0\]: .*gone\.py: no such file"):
        load(tmp_path / "gone.py")
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load(tmp_path)


async def test_a_changed_file_is_run_again_and_the_same_text_is_not(write: Write) -> None:
    """Whatever the clock of the disk says: the size is the same too."""
    keeps = "seen = []\ndef note(x: int) -> list[int]:\n    seen.append(x)\n    return seen\n"

    async def noted(tools: dict[str, Tool], x: int) -> Any:
        return json.loads(await ToolRegistry(tools.values()).run("note", f'{{"x": {x}}}', timeout_s=2))

    first = load(write(keeps))
    assert await noted(first, 1) == [1]
    again = load(write(keeps))
    assert await noted(again, 2) == [1, 2]
    with pytest.raises(ConfigError):
        load(write(keeps.replace("list[int]", "list(int)")))
    assert await noted(load(write(keeps)), 3) == [1, 2, 3], "a broken one in between has replaced nothing"
    assert await noted(load(write(keeps.replace("(x)", "(5)"))), 4) == [5]
    assert await noted(first, 6) == [1, 2, 3, 6], "a call that has the old one keeps it"


FUNCTIONS = """
import asyncio, json

FUNCTIONS = [
    {"name": "get_time", "description": "The time.", "parameters": {"type": "object", "properties": {
        "seconds": {"type": "boolean"}}, "required": ["seconds"]}},
    {"name": "slowly", "description": "Later."},
    {"name": "welcome"},
    {"name": "goodbye"},
    {"name": "to_sales"},
    {"name": "by_mi"},
]

def prototype(engine, arguments): ...

def get_time(engine, arguments):
    return {"time": "12:00:00" if json.loads(arguments)["seconds"] else "12:00", "to": engine.call.to}

async def slowly(engine, arguments):
    await asyncio.sleep(0.001)
    return arguments

def welcome(engine, arguments):
    print("Welcome!")

def goodbye(engine, arguments):
    engine.call.terminated = True

def to_sales(engine, arguments):
    engine.transfer_call("sales")

def by_mi(engine, arguments):
    engine.call.mi_conn.execute("ua_session_update", {})
"""


async def test_a_functions_file_of_opensips(write: Write) -> None:
    tools = load(write(FUNCTIONS))
    assert list(tools) == ["get_time", "slowly", "welcome", "goodbye", "to_sales", "by_mi"]
    done: list[str] = []
    live = SimpleNamespace(
        hang_up=done.append,
        transfer=lambda name, number: done.append(f"transfer {name}"),
        destinations=("reception", "sales"),
    )
    context = ToolContext(call_id="1", caller="0301", called="100", call=live)

    async def run(name: str, arguments: str = "") -> str:
        return await ToolRegistry(tools.values()).run(name, arguments, timeout_s=5, context=context)

    assert json.loads(await run("get_time", '{"seconds": true}')) == {"time": "12:00:00", "to": "100"}
    assert await run("slowly", '{ "a": 1}') == '{"a": 1}'
    assert await run("welcome") == "done"
    assert await run("goodbye") == "done"
    assert await run("to_sales") == "done"
    assert done == ["a function ended the call", "transfer sales"]
    assert await run("by_mi") == (
        "Error: there is no OpenSIPS here: call engine.transfer_call(NAME) or engine.terminate_call()"
    )
    context = ToolContext()
    assert await run("goodbye") == "Error: this works in a phone call only"
