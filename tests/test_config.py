"""Settings: defaults, precedence, and errors that a person can act upon."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import msgspec
import pytest

from bridge.agent import Agent
from bridge.collect import Collect
from bridge.config import Config, limits_of, load, load_config, realtime_of, warnings_of
from bridge.config_shown import effective, shown
from bridge.errors import ConfigError
from bridge.mcp_servers import McpServer
from bridge.session import session_of

EXAMPLE = Path(__file__).parent.parent / "bridge.toml"


def test_defaults_are_enough() -> None:
    config = load_config("", {})
    assert config.asterisk.format == "slin16"
    assert config.agents == {"default": Agent()}


def test_the_example_file_holds_every_key_with_its_default() -> None:
    text = EXAMPLE.read_text(encoding="utf-8")
    assert load_config(text, {}) == load_config("", {})
    written = tomllib.loads(text)
    defaults = msgspec.to_builtins(load_config("", {}))

    def keys(tree: object, path: str = "") -> set[str]:
        if not isinstance(tree, dict) or not tree:
            return {path}
        return {key for name, inner in tree.items() for key in keys(inner, f"{path}.{name}")}

    assert keys(defaults) - keys(written) == {
        ".agents.default.transfers",
        ".agents.default.keys",
        ".agents.default.collect",
        ".agents.default.tool_hook.tools",
        ".agents.default.limits",
        ".agents.default.mcp",
        ".agents.default.session",
        ".routes",
    }
    # What is commented out must be right as well.
    uncommented = re.sub(r"(?m)^#(\[|[a-z_.0-9]+ =|\"[*#]\" =)", r"\1", text) + "[agents.sales]\n"
    config = load_config(uncommented, {})
    assert config.agents["default"].transfers["reception"].to == "600@phones"
    assert config.agents["default"].keys["0"] == "transfer reception"
    assert config.routes[0].agent == "sales"
    collect = tomllib.loads(uncommented)["agents"]["default"]["collect"]["pin"]
    assert keys(collect) == keys(msgspec.to_builtins(Collect()))
    mcp = tomllib.loads(uncommented)["agents"]["default"]["mcp"][0]
    assert keys(mcp) == keys(msgspec.to_builtins(McpServer(server_label="")))
    assert (
        McpServer(server_label="orders", server_url=mcp["server_url"], approve=["order_status"])
        == (config.agents["default"].mcp[0])
    )
    assert session_of(config.agents["default"], [])["audio"]["input"]["transcription"]["keywords"]
    assert warnings_of(config) == []


def test_environment_beats_the_file_and_the_command_line_beats_both() -> None:
    text = "[server]\nmax_calls = 1\n[asterisk]\nusername = 'file'"
    config = load_config(text, {"BRIDGE_MAX_CALLS": "2", "BRIDGE_ARI_USERNAME": "env"}, {"server.max_calls": "3"})
    assert config.server.max_calls == 3
    assert config.asterisk.username == "env"


@pytest.mark.parametrize("path", ["routes.a", "agents.default.voice", "server", "nothing.x"])
def test_the_command_line_sets_plain_settings_only(path: str) -> None:
    with pytest.raises(ConfigError, match=r"only SECTION\.KEY"):
        load_config("[[routes]]\nagent = 'default'", {}, {path: "x"})


def test_a_worker_has_ports_and_an_app_of_its_own() -> None:
    text = "[server]\nworkers = 4\n[asterisk]\napp = 'sales-1'\nmedia_address = 'pbx.test:9092'"
    third = load_config(text, {"BRIDGE_WORKER": "3"})
    assert (third.server.audiosocket_port, third.server.health_address) == (9094, "127.0.0.1:9194")
    assert third.server.control_address == "127.0.0.1:9294"
    assert (third.asterisk.app, third.asterisk.media_address) == ("sales-3", "pbx.test:9094")
    assert (third.server.worker, third.server.workers) == (3, 1), "it is one process, and supervises nobody"
    first = load_config("[asterisk]\napp = 'sales'", {"BRIDGE_WORKER": "1"})
    assert (first.asterisk.app, first.server.audiosocket_port) == ("sales-1", 9092)
    assert load_config("", {}).asterisk.app == "bridge-1"


def test_what_is_off_or_any_stays_so_in_every_worker() -> None:
    text = (
        "[server]\naudiosocket_port = 0\nhealth_address = ''\ncontrol_address = ''\n[asterisk]\nmedia_address = 'h:0'"
    )
    second = load_config(text, {"BRIDGE_WORKER": "2"})
    assert (second.server.audiosocket_port, second.server.health_address) == (0, "")
    assert (second.server.control_address, second.asterisk.media_address) == ("", "h:0")


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"workers": 0}, "server.workers: must be 1 to 100"),
        ({"workers": 101}, "server.workers: must be 1 to 100"),
        ({"worker": -1}, "server.worker: must be 1 to 100, or 0"),
        ({"workers": 2, "audiosocket_port": 0}, "server.audiosocket_port: must be above 0 with server.workers"),
        ({"workers": 3, "audiosocket_port": 65534}, "server.audiosocket_port: worker 3 would be beyond 65535"),
        ({"worker": 9, "health_address": "localhost:65530"}, "server.health_address: worker 9 would be beyond 65535"),
        ({"workers": 2, "health_address": "localhost:9093"}, "port 9093 is that of a worker: they take 9092 to 9093"),
        ({"health_address": "9192"}, "server.health_address: must be HOST:PORT"),
        ({"control_address": "9292"}, "server.control_address: must be HOST:PORT"),
        (
            {"worker": 9, "control_address": "localhost:65530"},
            "server.control_address: worker 9 would be beyond 65535",
        ),
        (
            {"workers": 9, "control_address": "localhost:9100"},
            "port 9100 is that of a worker: they take 9092 to 9100",
        ),
        ({"workers": 9, "control_address": "localhost:9190"}, "port 9192 is that of the health pages"),
        ({"control_address": "localhost:9192"}, "port 9192 is that of the health pages"),
        ({"control_token": "short"}, "server.control_token: must be at least 16"),
        ({"control_token": "with a space in the middle"}, "server.control_token: must be at least 16"),
    ],
)
def test_workers_that_can_not_be(settings: dict[str, object], says: str) -> None:
    text = "[server]\n" + "".join(f"{key} = {value!r}\n" for key, value in settings.items())
    with pytest.raises(ConfigError, match=re.escape(says)):
        load_config(text, {})


def test_the_bridges_own_key_beats_the_common_one() -> None:
    both = {"OPENAI_API_KEY": "common", "BRIDGE_REALTIME_API_KEY": "own"}
    assert load_config("", both).realtime.api_key == "own"
    assert load_config("", {"OPENAI_API_KEY": "common"}).realtime.api_key == "common"


@pytest.mark.parametrize(
    ("text", "environ", "says"),
    [
        ("\n[server", {}, "bridge.toml:2: not valid TOML"),
        ("[server]\nport = 1", {}, "bridge.toml:2: server.port: unknown key; known here: audiosocket_host"),
        ("[servers]", {}, "bridge.toml:1: servers: unknown key; known here: server, asterisk"),
        ("server = 1", {}, "bridge.toml:1: server: must be a table"),
        (
            "[asterisk]\nformat = 'ulaw'",
            {},
            'bridge.toml:2: asterisk.format: must be "auto", "slin", "slin16" or "slin24"',
        ),
        ("[limits]\n\ntool_s = 0", {}, "bridge.toml:3: limits.tool_s: must be above zero"),
        ("[agents.x]\nhang_up = 'maybe'", {}, "bridge.toml:2: agents.x.hang_up: must be true or false"),
        (
            "[agents.x]\n[agents.x.transfers.y]\n",
            {},
            "bridge.toml:2: agents.x.transfers.y: must have exactly one of to",
        ),
        ("[agents.'x.y']\nspeed = 9", {}, 'bridge.toml:2: agents."x.y".speed: must be 0.25 to 1.5'),
        ("[agents.x]\nmax_output_tokens = 5000", {}, "agents.x.max_output_tokens: must be 1 to 4096, or 0"),
        ("[agents.x]\nbarge_in = 'no'", {}, 'agents.x.barge_in: must be "confirm", "interrupt" or "off"'),
        ("[agents.x]\nvoice = ''", {}, "bridge.toml:2: agents.x.voice: must be text that is not empty"),
        ("[agents.x.turn_detection]\nidle_timeout_ms = 100", {}, "must be 5000 to 30000, or 0 for never"),
        (
            "[agents.x.turn_detection]\ntype = 'semantic_vad'\nidle_timeout_ms = 5000",
            {},
            'bridge.toml:3: agents.x.turn_detection.idle_timeout_ms: goes with type = "server_vad" only',
        ),
        ("[agents.x.turn_detection]\ntalk_key = '**'", {}, "talk_key: must be one key of 0123456789*#ABCD"),
        ("[agents.x.turn_detection]\ntalk_key = '#'", {}, "send_key: must be another key than talk_key"),
        ("[agents.x]\nspeed = 9", {}, "agents.x.speed: must be 0.25 to 1.5"),
        (
            "[[routes]]\nagent = 'nobody'",
            {},
            "bridge.toml:2: routes[0].agent: agent 'nobody' is not defined; known: default",
        ),
        (
            "[agents.x]\nturn_detection = 'server_vad'",
            {},
            "x.turn_detection: must be a table: write its keys below a line [agents.x.turn_detection]",
        ),
        (
            "[agents.x.transfers.shop]\nto = '600@'",
            {},
            "bridge.toml:2: agents.x.transfers.shop.to: must be exten, exten@context or exten@context,priority",
        ),
        ("[limits]\ncaller_waits_s = 0.5", {}, "limits.caller_waits_s: must be at least 1"),
        ("[limits]\ncaller_waits_s = 9", {}, "limits.caller_waits_repeat_s: must not be below limits.caller_waits_s"),
        ("[realtime]\nurl = 'api.openai.com'", {}, "realtime.url: must start with wss://"),
        ("[agents.x]\nbudget_usd = -1", {}, "agents.x.budget_usd: must be 0 (none) to 10000 dollars"),
        ("[agents.x]\nbudget_warning = 0", {}, "agents.x.budget_warning: must be above 0, at most 1"),
        ("", {"BRIDGE_MAX_CALLS": "many"}, "environment variable BRIDGE_MAX_CALLS: server.max_calls"),
        ("", {"BRIDGE_REALTIME_URL": "ftp://x"}, "environment variable BRIDGE_REALTIME_URL: realtime.url"),
        ("[asterisk]\nmedia_address = 'host:'", {}, "asterisk.media_address: must be HOST:PORT"),
        ("[realtime]\nping_interval_s = 0", {}, "realtime.ping_interval_s: must be above zero"),
        ("[realtime]\nauth_query = ''", {}, "realtime.auth_query: must name"),
        ("[asterisk]\nlag_ms = 5000", {}, "asterisk.lag_ms: must be 0 to 1000"),
        ("[asterisk]\nmedia_address = 'here'", {}, "asterisk.media_address: must be HOST:PORT"),
    ],
)
def test_errors_name_the_place_and_the_remedy(text: str, environ: dict[str, str], says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(text, environ)
    assert says in str(caught.value)


PROMPT = "You answer for Smith's bakery.\nOpen from six."


def test_instructions_may_have_a_file_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "prompts").mkdir()
    file = tmp_path / "prompts/sales.md"
    file.write_bytes(b"\xef\xbb\xbf\n" + PROMPT.encode() + b"\n\n")
    loaded = load("[agents.sales]\ninstructions_file = 'prompts/sales.md'", {}, folder=tmp_path)
    assert loaded.config.agents["sales"].instructions == PROMPT
    assert loaded.files == [str(file)]
    assert loaded.origins.of("agents.sales.instructions") == str(file)
    assert loaded.origins.of("agents.sales.instructions_file") == "bridge.toml:2"
    text = f"[agents.default]\ninstructions_file = '{file}'"
    assert load_config(text, {}).agents["default"].instructions == PROMPT
    said = load(text, {"OPENAI_INSTRUCTIONS": "Sell bread."})
    assert (said.config.agents["default"].instructions, said.files) == ("Sell bread.", []), "the environment wins"


@pytest.mark.parametrize(
    ("content", "more", "says"),
    [
        (None, "", "no such file (paths begin at the folder of the settings' file)"),
        (b" \n\t\n", "", "is empty; write what the agent is to know"),
        (b"Gr\xfc\xdf Gott", "", "is not UTF-8 text (byte 2); save it as UTF-8"),
        (b"x" * 1_000_001, "", "has more than 1000000 bytes; is it the right file?"),
        (PROMPT.encode(), "instructions = 'x'\n", "instructions are said here and in `instructions`; keep one"),
    ],
)
def test_instructions_that_can_not_be_read_are_an_error(
    tmp_path: Path, content: bytes | None, more: str, says: str
) -> None:
    if content is not None:
        (tmp_path / "a.md").write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load_config(f"[agents.x]\n{more}instructions_file = 'a.md'", {}, folder=tmp_path)
    line = 3 if more else 2
    assert str(caught.value).startswith(f"bridge.toml:{line}: agents.x.instructions_file: ")
    assert says in str(caught.value)


def test_a_folder_is_no_instructions_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"instructions_file: .*: cannot be read: Is a directory"):
        load_config("[agents.x]\ninstructions_file = '.'", {}, folder=tmp_path)


def test_an_agent_may_have_a_model_and_limits_of_its_own() -> None:
    text = """
        [realtime]
        model = "big"
        priced_as = "gpt-realtime-2.1"
        [limits]
        tool_s = 20
        [agents.small]
        model = "small"
        limits = { max_duration_s = 300, idle_prompts = 1 }
        """
    config = load_config(text, {})
    small, default = config.agents["small"], config.agents["default"]
    own = realtime_of(small, config.realtime)
    assert (own.model, own.priced_as, own.url) == ("small", "", config.realtime.url)
    limits = limits_of(small, config.limits)
    assert (limits.max_duration_s, limits.idle_prompts, limits.tool_s) == (300, 1, 20)
    assert (realtime_of(default, config.realtime), limits_of(default, config.limits)) == (
        config.realtime,
        config.limits,
    )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("limits = { tool_s = 0 }", "agents.x.limits.tool_s: must be above zero"),
        ("limits = { max_duration_warning_s = -1 }", "agents.x.limits.max_duration_warning_s: must not be negative"),
        ("limits = { drain_s = 1 }", "agents.x.limits.drain_s: unknown key; known here: tool_s"),
        ("limits = { idle_prompts = 1.5 }", "agents.x.limits.idle_prompts: must be a whole number"),
        ("limits = { tool_s = 'long' }", "agents.x.limits.tool_s: must be a number"),
        ("limits = { caller_waits_s = 0.5 }", "agents.x.limits.caller_waits_s: must be at least 1"),
        (
            "limits = { caller_waits_s = 9 }",
            "limits.caller_waits_repeat_s: must not be below agents.x.limits.caller_waits_s",
        ),
        ("model = 'm'\n[realtime]\nurl = 'wss://h/v1?model=a'", "agents.x.model: has no effect while realtime.url"),
    ],
)
def test_what_an_agent_can_not_have_of_its_own(text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(says)):
        load_config(f"[agents.x]\n{text}", {})


def test_what_is_in_force_is_shown_with_where_it_comes_from() -> None:
    text = "[server]\nmax_calls = 1\nlog_format = 'json'\n[agents.'a.b'.session]\nreasoning = { effort = 'low' }"
    environ = {"OPENAI_API_KEY": "sk-hush", "BRIDGE_MAX_CALLS": "2", "BRIDGE_ARI_APP": "sales"}
    page = shown(load(text, environ, {"asterisk.app": "desk"}))
    lines = [tuple(re.split(r" {2,}", line)) for line in page.splitlines() if line]
    assert ("environment variable BRIDGE_MAX_CALLS", "server.max_calls = 2") in lines
    assert ("bridge.toml:3", 'server.log_format = "json"') in lines
    assert ("command line", 'asterisk.app = "desk"') in lines
    assert ("default", "server.accept_plain_calls = true") in lines
    assert ("environment variable OPENAI_API_KEY", "realtime.api_key = (set, hidden)") in lines
    assert ("bridge.toml:5", 'agents."a.b".session.reasoning.effort = "low"') in lines
    assert "hush" not in page
    bright = shown(load(text, environ), colours=True)
    assert bright.count("\x1b[2mdefault") == page.count("default   ")
    assert tomllib.loads(re.sub(r"(?m)^.*?  +", "", shown(load("", {}))))["server"]["max_calls"] == 100


def test_a_workers_ports_say_that_they_were_counted_up() -> None:
    page = shown(load("[server]\naudiosocket_port = 9100", {"BRIDGE_WORKER": "3"}))
    lines = [tuple(re.split(r" {2,}", line)) for line in page.splitlines()]
    assert ("bridge.toml:2 (worker 3)", "server.audiosocket_port = 9102") in lines
    assert ("default (worker 3)", 'asterisk.app = "bridge-3"') in lines


def test_secrets_are_masked_wherever_settings_are_shown() -> None:
    config = load_config(
        "[realtime]\nheaders = {api-key = 'hush'}", {"OPENAI_API_KEY": "sk-hush", "BRIDGE_ARI_PASSWORD": "hush"}
    )
    shown = dict(effective(config))
    assert "hush" not in str(shown)
    assert shown["realtime.api_key"] == "(set, hidden)"
    assert shown["server.max_calls"] == "100"


def test_settings_can_not_change() -> None:
    with pytest.raises(AttributeError):
        Config().server.max_calls = 5  # type: ignore[misc]
