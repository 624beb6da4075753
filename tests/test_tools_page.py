"""`docs/tools.md` can be copied: its Python runs, its settings load."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bridge import mcp
from bridge.agent_tools import AgentTools
from bridge.config import load_config
from bridge.mcp import Approval
from bridge.tool_hook import ToolHook
from bridge.tool_reply import request_of
from bridge.tools import ToolContext, ToolRegistry

PAGE = (Path(__file__).parent.parent / "docs" / "tools.md").read_text(encoding="utf-8")
BLOCKS = [textwrap.dedent(block) for block in re.findall(r"(?m)^\n((?:    .*\n|\n(?=    ))+)", PAGE)]
PYTHON = [block for block in BLOCKS if re.match(r"import |from ", block)]
TOML = [block for block in BLOCKS if block.startswith("[")]


def run(source: str) -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": "copied"}
    exec(compile(source, "docs/tools.md", "exec", dont_inherit=True), names)
    return names


def test_every_example_was_found() -> None:
    assert (len(PYTHON), len(TOML), len(BLOCKS)) == (4, 3, 8)


@pytest.mark.parametrize("source", PYTHON, ids=["functions", "manual", "secret", "testing"])
def test_the_python_runs(source: str) -> None:
    run(source)


async def test_the_functions_are_tools(capsys: pytest.CaptureFixture[str]) -> None:
    tools: ToolRegistry = run(PYTHON[0])["tools"]
    order, back = (it["parameters"] for it in tools.declarations())
    assert order["properties"]["number"]["description"] == "The order's number, as on the receipt."
    assert order["required"] == ["number"]
    assert back["properties"] == {"hour": {"type": "integer", "description": "0 to 23"}}
    caller = ToolContext(caller="0301")
    assert await tools.run("call_back", '{"hour": 9}', timeout_s=5, context=caller) == "done"
    assert "0301" in capsys.readouterr().out


def test_the_manual_tool_is_manual() -> None:
    assert run(PYTHON[1])["tools"].is_manual("ask_colleague")


async def test_the_secret_is_the_tools(capsys: pytest.CaptureFixture[str]) -> None:
    tools: ToolRegistry = run(PYTHON[2])["tools"]
    who = ToolContext(secure_digits={"pin": "1234"})
    assert await tools.run("check_pin", "{}", timeout_s=5, context=who) == "true"
    assert await tools.run("check_pin", "{}", timeout_s=5, context=ToolContext()) == "false"


def test_the_settings_mean_what_the_page_says() -> None:
    agent = load_config(TOML[2], {"ORDERS_TOKEN": "hush"}).agents["default"]
    assert mcp.declarations(agent)[0]["authorization"] == "hush"
    assert mcp.ruling(agent, "orders", "refund").approval is Approval.APPROVE
    assert mcp.ruling(agent, "orders", "order_status").approval is Approval.DENY


def test_the_tool_files_are_the_agents(tmp_path: Path) -> None:
    (tmp_path / "tools").mkdir()
    for name in ("weather", "bookings"):
        (tmp_path / "tools" / f"{name}.py").write_text(f"def {name}() -> str: ...")
    config = load_config(TOML[0], {}, folder=tmp_path)
    assert len(AgentTools.load(config.agents).tools_for("default", config.agents["default"])) == 2


def test_the_hook_is_sent_what_the_page_says() -> None:
    agent = load_config(TOML[1], {"TOOL_HOOK_SECRET": "hush"}).agents["default"]
    assert agent.tool_hook == msgspec.structs.replace(
        ToolHook(), url=agent.tool_hook.url, secret="hush", tools=agent.tool_hook.tools
    )
    (shown,) = [block for block in BLOCKS if block.startswith("{")]
    who = ToolContext(call_id="9a0f...", agent="default", caller="+4930123", called="100", tool_call_id="call_1")
    assert msgspec.json.decode(request_of("order_status", {"number": "17"}, who)) == msgspec.json.decode(shown)
