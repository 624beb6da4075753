"""`docs/session.md`: its program runs in a call, and what it names exists."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import msgspec
import pytest
from house import house
from talking import say
from trio.testing import MockClock

from bridge.config import load_config
from bridge.ending import EndReason
from simulators.ari_channels import Place
from simulators.model_script import Call, Say, Script

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "examples/attend.py"
TRANSFERS = 'agents.default.transfers.boss = {to = "600@phones"}\n'


def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("attend", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


async def test_the_example_takes_part_in_a_call(
    autojump_clock: MockClock, capsys: pytest.CaptureFixture[str]
) -> None:
    attend = example()
    script = Script.of(
        Say("Hello!", ms=300),
        Call("ask_colleague", {"question": "tomorrow?"}),
        Say("Tomorrow from nine.", ms=300),
        Say("I see.", ms=300),
        transcripts=["Can you come tomorrow?", "I have a complaint."],
    )
    async with house(script, on_call=attend.attend, tools=attend.tools, settings=TRANSFERS) as it:
        it.ari.dialplan.add(("phones", "600", "1"))
        channel, caller = await it.stasis_call(caller=("1000", "Ada"))
        await it.hears_of("agent_said")
        known = "(The caller is Ada Smith, a customer since 1999.)"
        assert it.model.session.items[0].wire["content"][0]["text"] == known
        await say(it, caller, 800)
        await it.hears_of("agent_said", 2)
        outputs = [
            item.wire["output"] for item in it.model.session.items if item.wire["type"] == "function_call_output"
        ]
        assert outputs == ["Yes, tomorrow from nine."]
        await say(it, caller, 800)
        assert (await it.ended())["reason"] == "transferred"
        assert channel.dialplan == Place("phones", "600", "1")
    told = capsys.readouterr().out
    assert "caller: I have a complaint.\n" in told
    assert "agent: Tomorrow from nine.\n" in told


PAGE = (ROOT / "docs/session.md").read_text(encoding="utf-8")
ENDINGS = (ROOT / "docs/endings.md").read_text(encoding="utf-8")


def test_the_program_of_the_page_is_the_example() -> None:
    (program,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert EXAMPLE.read_text(encoding="utf-8").partition("\n\n")[2] == program


def test_the_settings_on_the_page_exist() -> None:
    known = msgspec.to_builtins(load_config("", {}))
    agent = known["agents"]["default"]
    known = agent | known | {"turn_detection": agent["turn_detection"]}
    named = re.findall(r"`((?:limits|realtime|asterisk|server|turn_detection)\.\w+|\w*barge_in\w*|budget_\w+)", PAGE)
    assert len(named) > 20
    for name in set(named) - {"budget_nearly_spent", "budget_spent"}:
        section, _, key = name.rpartition(".")
        assert key in (known[section] if section else known), name


def test_every_line_of_the_log_is_on_the_page() -> None:
    code = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "bridge").glob("*.py"))
    told = set(re.findall(r'(?:[nN]otice\(\s*|_connect_ordered, )"(\w+)"', code)) | {"call_ended"}
    words = PAGE[PAGE.index("## The words of the log") :]
    named = set(re.findall(r"`([a-z]+_[a-z_]+|turn)`", words))
    assert told == named


def test_every_way_to_end_has_its_page() -> None:
    assert [reason.value for reason in EndReason if f"`{reason.value}`" not in ENDINGS] == []
