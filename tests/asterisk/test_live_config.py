"""A file that changes under a bridge that serves calls on the real Asterisk: real time, real threads, a real disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from asterisk.line import line
from simulators.model_script import Say, Script

pytestmark = pytest.mark.asterisk

CHANGED = "changed settings serve calls from now on"
REFUSED = "changed settings refused, the old ones stay in force: "


async def test_the_next_call_has_the_new_settings_and_no_call_is_disturbed(tmp_path: Path) -> None:
    file = tmp_path / "bridge.toml"
    file.write_text("[agents.default]\nvoice = 'ash'\n", encoding="utf-8")
    async with line(Script.of(*[Say("Hello!", ms=500)] * 3), file=file) as it:
        await it.phone()
        await it.hears_of("agent_said")
        first = it.model.session
        file.write_text("[agents.default]\nvoice = 'sage'\ninstructions_file = 'sales.md'\n", encoding="utf-8")
        refused = f"{REFUSED}{file}:3: agents.default.instructions_file: {tmp_path}/sales.md: no such file"
        await it.hears_of(refused)
        (tmp_path / "sales.md").write_text("You sell bread.", encoding="utf-8")
        await it.hears_of(CHANGED)
        await it.phone()
        await it.hears_of("agent_said", 2)
        assert [it.config["audio"]["output"]["voice"] for it in (first, it.model.session)] == ["ash", "sage"]
        assert it.model.session.config["instructions"] == "You sell bread."
        assert not it.told("call_ended")
