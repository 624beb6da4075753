"""The command line as a user meets it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from bridge import doctor_host, supervisor
from bridge.__main__ import main
from bridge.config import Config
from bridge.errors import ConfigError


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BRIDGE_MAX_CALLS", raising=False)
    for name in ("OPENAI_API_KEY", "BRIDGE_ARI_PASSWORD"):
        monkeypatch.setenv(name, "sk-test")


def test_check_config_shows_everything_but_secrets(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-hush")
    assert main(["check-config", "--set", "server.max_calls=7"]) == 0
    out = capsys.readouterr().out
    assert "server.max_calls = 7" in out
    assert "realtime.api_key = (set, hidden)" in out
    assert "hush" not in out
    assert "# the model is reached at wss://api.openai.com/v1/realtime?model=gpt-realtime-2.1 (Authorization" in out


def test_check_config_shows_each_agents_session_as_it_is_sent(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    text = """
        [agents.sales.session]
        reasoning = { effort = "high" }
        [[agents.sales.mcp]]
        server_label = "stock"
        server_url = "https://mcp.example"
        authorization = "hush"
        approve = "all"
        """
    (tmp_path / "bridge.toml").write_text(text, encoding="utf-8")
    assert main(["check-config"]) == 0
    out, error = capsys.readouterr()
    _, sales = out.split("# session of agent sales, before the tools of the application:\n")
    session, end = json.JSONDecoder().raw_decode(sales)
    assert sales[end:] == "\n\n# no mistakes, no warnings\n"
    assert session["reasoning"] == {"effort": "high"}
    assert session["tools"][0]["name"] == "hang_up"
    assert session["tools"][1]["server_url"] == "https://mcp.example"
    assert "hush" not in out
    assert "# session of agent default" in out
    assert error == ""


@pytest.mark.parametrize(
    ("text", "arguments", "says"),
    [
        ("[realtime]\n\nurl = 'wss://host'", [], "bridge.toml:3: realtime.url: has no path"),
        ("", ["--set", "realtime.url=wss://host"], "command line, realtime.url: has no path"),
        ("[agents.x]\nbudget_usd = 1\n[realtime]\nmodel = 'm'", [], "bridge.toml:2: agents.x.budget_usd: model 'm'"),
        ("[agents.x.sounds]\nbusy = 'no.wav'", [], "bridge.toml:2: agents.x.sounds.busy: "),
        ("[realtime]\nprices = 'no.toml'", [], "bridge.toml:2: realtime.prices: /"),
        ("[server]\nport = 1", [], "bridge.toml:2: server.port: unknown key"),
        ("", ["--set", "limits.tool_s=x"], "command line, limits.tool_s: must be a number"),
        (
            "[realtime]\nurl = 'ws://box/v1'\ndialect = 'beta'\n[[agents.x.mcp]]\nserver_label = 'a'\n"
            "server_url = 'https://a'\napprove = 'all'",
            [],
            "bridge.toml:4: agents.x.mcp: MCP servers need the GA",
        ),
    ],
)
def test_what_is_found_after_loading_has_its_line_too(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, text: str, arguments: list[str], says: str
) -> None:
    (tmp_path / "bridge.toml").write_text(text, encoding="utf-8")
    assert main(["check-config", *arguments]) == 2
    assert capsys.readouterr().err.startswith(f"realtime-bridge: {says}")


def test_a_setting_from_the_environment_is_blamed_on_its_variable(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BRIDGE_REALTIME_URL", "wss://host")
    assert main(["check-config"]) == 2
    assert "environment variable BRIDGE_REALTIME_URL: realtime.url: has no path" in capsys.readouterr().err


def test_check_config_warns_of_old_names(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "bridge.toml").write_text("[agents.sales.session]\nspeed = 1.2", encoding="utf-8")
    assert main(["check-config"]) == 0
    error = capsys.readouterr().err
    assert error.startswith("warning: agents.sales.session: old names were translated")
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["check-config", "--config", "missing.toml"], "missing.toml: no such file"),
        (["check-config", "--set", "oops"], "--set oops: write it as SECTION.KEY=VALUE"),
        (["serve", "--set", "server.audiosocket_port=x"], "server.audiosocket_port"),
        (["check-config", "--set", "realtime.url=wss://box"], "realtime.url: has no path"),
        (["serve", "--set", "realtime.dialect=beta"], "OpenAI refuses the beta dialect"),
    ],
)
def test_mistakes_get_one_line_that_says_what_to_do(
    capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1


def test_check_config_reads_the_sounds_beside_the_settings(capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path("elsewhere")
    folder.mkdir()
    (folder / "my.toml").write_text("[agents.default.sounds]\nbusy = 'busy.wav'")
    (folder / "busy.wav").write_bytes(b"no sound")
    assert main(["check-config", "--config", "elsewhere/my.toml"]) == 2
    error = capsys.readouterr().err
    assert f"agents.default.sounds.busy: {folder.resolve()}/busy.wav: not a WAV file" in error
    assert "sox" in error
    assert error.count("\n") == 1


def test_check_config_shows_where_each_tool_comes_from(capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path("elsewhere")
    folder.mkdir()
    (folder / "my.toml").write_text("[agents.default]\ntools = ['shop.py']")
    (folder / "shop.py").write_text("def hours() -> str:\n    'When we are open.'\n")
    assert main(["check-config", "--config", "elsewhere/my.toml"]) == 0
    out = capsys.readouterr().out
    assert "# tools of agent default, before those of the application:\n#   hang_up: the bridge\n#   hours: " in out
    assert f"{folder.resolve()}/shop.py:1\n" in out
    assert '"description": "When we are open."' in out


@pytest.mark.parametrize("command", ["check-config", "serve"])
def test_a_broken_tool_file_ends_the_command(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("bridge.toml").write_text("[agents.default]\ntools = [\n    'shop.py',\n]")
    Path("shop.py").write_text("import time\ndef hours(")
    assert main([command]) == 2
    error = capsys.readouterr().err
    assert error.startswith("realtime-bridge: bridge.toml:3: agents.default.tools[0]: ")
    assert error.endswith("shop.py:2: SyntaxError: '(' was never closed\n")


def test_a_price_file_lies_beside_the_settings_too() -> None:
    folder = Path("elsewhere")
    folder.mkdir()
    (folder / "my.toml").write_text("[realtime]\nprices = 'p.toml'\n[agents.a]\nbudget_usd = 1\n")
    (folder / "p.toml").write_text(
        'as_of = "2026-11-01"\n[models."gpt-realtime-2.1"]\nsource = "us"\ntext = { input = 1, output = 2 }\n'
    )
    assert main(["check-config", "--config", "elsewhere/my.toml"]) == 0


@pytest.mark.parametrize(
    ("settings", "unset", "says"),
    [
        ("", ["OPENAI_API_KEY"], ["realtime.api_key: none is set, and api.openai.com refuses calls without"]),
        ("[realtime]\nurl = 'ws://localhost:8080/v1/realtime'", ["OPENAI_API_KEY"], []),
        ("[realtime]\nheaders = { Authorization = 'Bearer x' }", ["OPENAI_API_KEY"], []),
        ("", ["BRIDGE_ARI_PASSWORD"], ["asterisk.password: none is set, and ARI refuses connections without"]),
        ("[asterisk]\nenabled = false", ["BRIDGE_ARI_PASSWORD"], []),
        ("[agents.a]\nvoice = 'marina'", [], ["agents.a: voice marina is none of OpenAI's: alloy, ash"]),
        ("[realtime]\nmodel = 'grok-voice-latest'\n[agents.a]\nvoice = 'ara'", [], []),
        ("[realtime]\nmodel = 'gpt-realtime'", [], ["realtime.model: gpt-realtime ends at OpenAI on 2027-01-20"]),
        ("[realtime]\nurl = 'ws://local/v1'\nmodel = 'gpt-realtime'\n[agents.a]\nvoice = 'mine'", [], []),
    ],
)
def test_what_will_most_likely_not_work_is_said_before_the_first_call(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    settings: str,
    unset: list[str],
    says: list[str],
) -> None:
    Path("bridge.toml").write_text(settings, encoding="utf-8")
    for name in unset:
        monkeypatch.delenv(name)
    assert main(["check-config"]) == 0
    warnings = capsys.readouterr().err.splitlines()
    assert [line.startswith(f"warning: {it}") for line, it in zip(warnings, says, strict=True)] == [True] * len(says)


def test_a_port_that_is_taken_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        settings = (
            f"server.audiosocket_port={port}",
            "asterisk.enabled=false",
            "server.health_address=",
            "server.control_address=",
        )
        assert main(["serve", *(word for setting in settings for word in ("--set", setting))]) == 2
    assert f"cannot listen on 127.0.0.1:{port}" in capsys.readouterr().err


def test_the_doctor_says_what_to_do_and_fails(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor_host, "PACING_S", 0.0)
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and does not listen
        refused = f"asterisk.url=ws://127.0.0.1:{nobody.getsockname()[1]}"
        assert main(["doctor", "--no-model", "--set", refused, "--set", "server.audiosocket_port=0"]) == 1
    out, error = capsys.readouterr()
    assert "FAIL  asterisk      cannot connect to 127.0.0.1" in out
    assert "-> is Asterisk running?" in out
    assert "-     model         not tried: --no-model" in out
    assert "failed" in out.splitlines()[-1]
    assert error == ""


def test_the_doctor_tells_a_wrong_configuration_to_machines_too(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "bridge.toml").write_text("[server]\nport = 1", encoding="utf-8")
    assert main(["doctor", "--json"]) == 1
    (finding,) = json.loads(capsys.readouterr().out)
    assert (finding["name"], finding["verdict"]) == ("configuration", "fail")
    assert finding["text"].startswith("bridge.toml:2: server.port: unknown key")


def test_the_settings_are_read_again_before_workers_are_replaced(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "bridge.toml"
    file.write_text("[server]\nworkers = 2\n")

    def run(config: Config, *, source: object, command: Sequence[str], check: Callable[[], object]) -> int:
        assert config.server.workers == 2
        assert command[-3:] == ("serve", "--config", "bridge.toml"), "a worker is this command again"
        check()
        file.write_text("[server]\nworkers = 2\nmax_calls = 0\n")
        with pytest.raises(ConfigError, match=r"bridge\.toml:3: server\.max_calls: must be at least 1"):
            check()
        file.write_text("[server]\nworkers = 2\n[agents.default.sounds]\nbusy = 'no.wav'\n")
        with pytest.raises(ConfigError, match=r"bridge\.toml:4: agents\.default\.sounds\.busy"):
            check()
        file.unlink()
        with pytest.raises(ConfigError, match="no such file"):
            check()
        return 5

    monkeypatch.setattr(supervisor, "run", run)
    assert main(["serve", "--config", "bridge.toml"]) == 5


@pytest.mark.parametrize(
    ("program", "knows"), [("bench", "--find"), ("simulate", "--query-key"), ("demo", "--model")]
)
def test_programs_of_their_own_are_handed_their_arguments(program: str, knows: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    command = [sys.executable, "-m", "bridge", program]
    told = subprocess.run([*command, "--help"], env=environment, capture_output=True, text=True, check=True)
    assert knows in told.stdout
    refused = subprocess.run([*command, "--nonsense"], env=environment, capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert "--nonsense" in refused.stderr


def test_serve_knows_no_arguments_of_others(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["serve", "--find"])
    assert "unrecognized arguments: --find" in capsys.readouterr().err


def test_help_names_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    out = capsys.readouterr().out
    for command in ("serve", "check-config", "simulate", "demo", "bench"):
        assert f"    {command} " in out
