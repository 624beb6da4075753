"""Every parameter of the OpenSIPS AI Voice Connector, as a section of bridge.toml, its INI file, and its environment."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from house import house
from trio.testing import MockClock

from bridge.agent import Agent, TurnDetection
from bridge.config import Loaded, load, load_config
from bridge.destinations import Destination
from bridge.environment import VARIABLES
from bridge.errors import ConfigError
from bridge.opensips import PARAMETERS
from simulators.model_script import Say, Script

ROOT = Path(__file__).parents[1]

# Parameter, environment name, as written in INI and environment, our setting, its value.
TABLE = [
    ("key", "OPENAI_API_KEY", "sk-test", "realtime.api_key", "sk-test"),
    ("openai_key", "OPENAI_API_KEY", "sk-test", "realtime.api_key", "sk-test"),
    ("model", "OPENAI_API_MODEL", "my-model", "realtime.model", "my-model"),
    ("url", "OPENAI_URL", "wss://box.test/v1/realtime?model=m", "realtime.url", "wss://box.test/v1/realtime?model=m"),
    ("disable", "OPENAI_DISABLE", "true", "disabled", True),
    ("disabled", "OPENAI_DISABLE", "Yes", "disabled", True),
    ("disable", "OPENAI_DISABLE", "0", "disabled", False),
    ("voice", "OPENAI_VOICE", "sage", "voice", "sage"),
    ("openai_voice", "OPENAI_VOICE", "sage", "voice", "sage"),
    ("instructions", "OPENAI_INSTRUCTIONS", "Sell bread.", "instructions", "Sell bread."),
    ("welcome_message", "OPENAI_WELCOME_MSG", "Hi!", "greeting", "Say exactly this, and nothing else: Hi!"),
    ("max_tokens", "OPENAI_MAX_TOKENS", "300", "max_output_tokens", 300),
    ("max_tokens", "OPENAI_MAX_TOKENS", "inf", "max_output_tokens", 0),
    ("turn_detection_type", "OPENAI_TURN_DETECT_TYPE", "semantic_vad", "turn_detection.type", "semantic_vad"),
    ("turn_detection_silence_ms", "OPENAI_TURN_DETECT_SILENCE_MS", "450", "turn_detection.silence_duration_ms", 450),
    ("turn_detection_threshold", "OPENAI_TURN_DETECT_THRESHOLD", "0.7", "turn_detection.threshold", 0.7),
    ("turn_detection_prefix_ms", "OPENAI_TURN_DETECT_PREFIX_MS", "250", "turn_detection.prefix_padding_ms", 250),
    ("transfer_to", "OPENAI_TRANSFER_TO", "sip:desk@pbx.test", "transfers.operator.sip", "sip:desk@pbx.test"),
    ("transfer_to", "OPENAI_TRANSFER_TO", "<sip:desk@pbx.test>", "transfers.operator.sip", "sip:desk@pbx.test"),
    ("tools", "OPENAI_TOOLS", "a.py, b.py", "tools", ["a.py", "b.py"]),
    ("reasoning_effort", "OPENAI_REASONING_EFFORT", "low", "session.reasoning.effort", "low"),
]


def value_of(loaded: Loaded, place: str) -> Any:
    section, _, key = place.partition(".")
    value: Any = getattr(loaded.config.realtime, key) if section == "realtime" else loaded.config.agents["default"]
    for name in place.split(".") if section != "realtime" else ():
        value = value[name] if isinstance(value, dict) else getattr(value, name)
    return value


def ini(*lines: str) -> Loaded:
    return load("\n".join(["[openai]", *lines]), {}, source="opensips.ini")


@pytest.mark.parametrize(("key", "variable", "written", "place", "value"), TABLE)
def test_every_parameter_works_in_a_table_an_ini_file_and_the_environment(
    key: str, variable: str, written: str, place: str, value: object
) -> None:
    full = place if place.startswith("realtime.") else f"agents.default.{place}"
    by_table = load(f'[openai]\n{key} = "{written}"', {})
    by_ini = ini(f"{key} = {written}")
    by_environment = load("", {variable: written})
    assert value_of(by_table, place) == value_of(by_ini, place) == value_of(by_environment, place) == value
    assert by_table.origins.of(full) == f"bridge.toml:2 (openai.{key})"
    assert by_ini.origins.of(full) == f"opensips.ini:2 (openai.{key})"
    assert by_environment.origins.of(full) == f"environment variable {variable}"
    assert [warning.count(f"{key} -> {full}") for warning in by_ini.warnings] == [1]
    assert by_environment.warnings == []


# Section 2 of its page docs/ai/openai.md, of the version that served gpt-4o-realtime-preview-2024-10-01.
DOCUMENTED = {
    "key": "OPENAI_API_KEY", "openai_key": "OPENAI_API_KEY", "model": "OPENAI_API_MODEL", "disable": "OPENAI_DISABLE",
    "voice": "OPENAI_VOICE", "instructions": "OPENAI_INSTRUCTIONS", "welcome_message": "OPENAI_WELCOME_MSG",
    "temperature": "OPENAI_TEMPERATURE", "max_tokens": "OPENAI_MAX_TOKENS",
    "turn_detection_type": "OPENAI_TURN_DETECT_TYPE", "turn_detection_silence_ms": "OPENAI_TURN_DETECT_SILENCE_MS",
    "turn_detection_threshold": "OPENAI_TURN_DETECT_THRESHOLD",
    "turn_detection_prefix_ms": "OPENAI_TURN_DETECT_PREFIX_MS", "transfer_to": "OPENAI_TRANSFER_TO",
    "transfer_by": "OPENAI_TRANSFER_BY", "tools": "OPENAI_TOOLS",
}  # fmt: skip


def test_every_documented_parameter_is_known_by_both_its_names() -> None:
    known = {key: it.variable for it in PARAMETERS for key in it.keys}
    assert {key: known[key] for key in DOCUMENTED} == DOCUMENTED
    tried = {key: variable for key, variable, *_ in TABLE}
    assert {key: known[key] for key in tried} == tried
    assert DOCUMENTED.keys() - tried.keys() == {"temperature", "transfer_by"}, "which have tests of their own"


def test_the_page_names_every_parameter_and_every_variable() -> None:
    page = (ROOT / "docs/configuration.md").read_text(encoding="utf-8")
    for it in PARAMETERS:
        (row,) = [row for row in page.splitlines() if row.startswith("| " + ", ".join(f"`{key}`" for key in it.keys))]
        assert f"| `{it.variable}` |" in row or not it.variable
        assert f"`{it.place}`" in row or not it.place
    for variable, place in VARIABLES:
        (row,) = [row for row in page.splitlines() if f"`{variable}`" in row]
        assert f"`{place}`" in row


def test_values_of_toml_need_not_be_text() -> None:
    agent = load_config('[openai]\ndisabled = true\nmax_tokens = 50\ntools = ["a.py"]', {}).agents["default"]
    assert (agent.disabled, agent.max_output_tokens, agent.tools) == (True, 50, ["a.py"])


def test_a_transfer_has_who_asks_for_it_and_words_for_the_model() -> None:
    desk = ini("transfer_to = sip:desk@pbx.test", 'transfer_by = "AI" <sip:ai@pbx.test>').config.agents["default"]
    operator = Destination(
        sip="sip:desk@pbx.test", referred_by="sip:ai@pbx.test", description="an operator, a person"
    )
    assert desk.transfers == {"operator": operator}
    assert ini("voice = ash").config.agents["default"].transfers == {}, "no tool for a transfer that can not be"


def test_what_the_section_leaves_out_is_as_its_documentation_says() -> None:
    agent = ini("key = sk-x").config.agents["default"]
    assert agent == Agent(voice="alloy", greeting="", turn_detection=TurnDetection(silence_duration_ms=200))
    assert agent.turn_detection.prefix_padding_ms == 300, "its documentation; its code had 200"
    (warning,) = ini("key = sk-x").warnings
    assert "as there, not as here: agents.default.voice, agents.default.greeting, agents.default.turn_d" in warning
    own = load_config("[openai]\nkey = 'sk-x'\n[agents.default]\nvoice = 'marin'\ngreeting = 'Hello'", {})
    assert (own.agents["default"].voice, own.agents["default"].greeting) == ("marin", "Hello")


def test_temperature_is_dropped_with_a_word() -> None:
    assert "temperature (no GA field: dropped)" in ini("temperature = 0.8").warnings[0]
    assert load("", {"OPENAI_TEMPERATURE": "0.8"}).warnings == [
        "environment variable OPENAI_TEMPERATURE: no GA field: dropped"
    ]


def test_the_environment_wins_over_the_file_and_says_so_since_there_it_did_not() -> None:
    both = load("[openai]\nvoice = ash\n", {"OPENAI_VOICE": "sage"}, source="opensips.ini")
    assert both.config.agents["default"].voice == "sage"
    assert both.warnings[1] == "openai.voice: the environment variable OPENAI_VOICE wins, other than with OpenSIPS"
    ours = load("", {"BRIDGE_REALTIME_MODEL": "mine", "OPENAI_API_MODEL": "theirs"})
    assert ours.config.realtime.model == "mine"


def test_what_stands_for_all_sections_and_what_is_for_others() -> None:
    text = (
        "[DEFAULT]\nvoice = ash\nregion = west\n[rtp]\nmin_port = 35000\n[openai]\ninstructions = One\n  two 100%%\n"
    )
    loaded = load(text, {}, source="conn/opensips.ini")
    assert loaded.config.agents["default"].voice == "ash"
    assert loaded.config.agents["default"].instructions == "One\ntwo 100%"
    assert loaded.origins.of("agents.default.voice") == "conn/opensips.ini:2 (openai.voice)"
    assert loaded.warnings[0] == "conn/opensips.ini: [rtp]: not used, since Asterisk does what they are for"


async def test_the_example_is_served_as_it_is(autojump_clock: MockClock) -> None:
    file = ROOT / "examples/opensips/opensips.ini"
    async with house(Script.of(Say("Smith's bakery, good morning!", ms=900)), file=file) as it:
        channel, _ = await it.stasis_call()
        await it.hears_of("agent_said")
        session = it.model.session.config
        assert session["audio"]["output"]["voice"] == "alloy"
        assert session["instructions"].startswith("You answer the phone of Smith's bakery.\nYou can tell the time")
        assert session["max_output_tokens"] == 800
        detection = session["audio"]["input"]["turn_detection"]
        assert (detection["threshold"], detection["silence_duration_ms"], detection["prefix_padding_ms"]) == (
            0.6,
            400,
            300,
        )
        tools = {tool["name"] for tool in session["tools"]}
        assert tools == {"hang_up", "transfer_call", "get_time", "who_is_calling", "end_call"}
        (asked,) = it.model.received_events("response.create")
        assert (
            "Say exactly this, and nothing else: Smith's bakery, good morning!" in asked["response"]["instructions"]
        )
        channel.hang_up()
        await it.ended()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[openai]\nvoise = ash", "opensips.ini:2: openai.voise: unknown key; known here: key, openai_key, model"),
        ("[openai]\nmax_tokens = many", 'opensips.ini:2: openai.max_tokens: must be 1 to 4096, or "inf"'),
        ("[openai]\n\nmax_tokens = 0", 'opensips.ini:3: openai.max_tokens: must be 1 to 4096, or "inf"'),
        ("[openai]\nturn_detection_threshold = 2", "opensips.ini:2: openai.turn_detection_threshold: must be 0 to 1"),
        ("[openai]\nturn_detection_type = none", "opensips.ini:2: openai.turn_detection_type: must be "),
        ("[openai]\ndisable = maybe", "opensips.ini:2: openai.disable: must be one of 1, yes"),
        ("[openai]\nkey = a\nopenai_key = b", "opensips.ini:3: openai.openai_key: says the same as openai.key; keep"),
        ("[openai]\nkey = #TODO: Add your key", "opensips.ini:2: openai.key: is no API key; better leave it out"),
        ("[openai]\ntransfer_to = desk", "opensips.ini:2: openai.transfer_to: must be like sip:600@example.com"),
        ("[openai]\ntransfer_by = sip:a@b", "opensips.ini:2: openai.transfer_by: goes with transfer_to only"),
        ("[openai]\nurl = box", "opensips.ini:2: openai.url: must start with wss://"),
        (
            "[openai]\ninstructions = 100% sure",
            "opensips.ini:2: openai.instructions: a percent sign is written as %%",
        ),
        ("[openai]\nvoice = a\nvoice = b", "opensips.ini:3: openai.voice: stands here twice"),
        ("[openai]\n[openai]", "opensips.ini:2: [openai]: stands here twice"),
        ("voice = a", "opensips.ini:1: not valid INI: write [SECTION]"),
        ("[openai]\nvoice", "opensips.ini:2: not valid INI"),
        ("[azure]\nkey = a", "opensips.ini: has no section [openai]"),
    ],
)
def test_mistakes_in_the_ini_file_have_their_line_and_their_remedy(text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(says)):
        load(text, {}, source="opensips.ini")


@pytest.mark.parametrize(
    ("text", "environ", "says"),
    [
        ("openai = 1", {}, "bridge.toml:1: openai: must be a table: write its keys below a line [openai]"),
        ("[openai]\ntools = 3", {}, "bridge.toml:2: openai.tools: must be a file, or a list of files"),
        ("[openai]\nvoice = 3", {}, "bridge.toml:2: openai.voice: must be text"),
        (
            "[openai]\nvoice = 'ash'\n[agents.default]\nvoice = 'sage'",
            {},
            "bridge.toml:2: openai.voice: says the same as agents.default.voice; keep only agents.default.voice",
        ),
        (
            "[openai]\ninstructions = 'x'\n[agents.default]\ninstructions_file = 'x.md'",
            {},
            "bridge.toml:2: openai.instructions: says the same as agents.default.instructions_file",
        ),
        ("", {"OPENAI_MAX_TOKENS": "5000"}, "environment variable OPENAI_MAX_TOKENS: must be 1 to 4096"),
        (
            "",
            {"OPENAI_TURN_DETECT_THRESHOLD": "x"},
            "environment variable OPENAI_TURN_DETECT_THRESHOLD: agents.default.turn_detection.threshold: must be a number",
        ),
        (
            "",
            {"OPENAI_TRANSFER_BY": "sip:a@b"},
            "environment variable OPENAI_TRANSFER_BY: agents.default.transfers.op",
        ),
    ],
)
def test_mistakes_elsewhere_name_what_gave_the_setting(text: str, environ: dict[str, str], says: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(says)):
        load_config(text, environ)
