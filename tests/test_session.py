"""Session settings: what the server would refuse is refused here, old names are understood, updates lose nothing."""

from __future__ import annotations

import copy
import itertools
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sdk_types import CLIENT, check

from bridge import call_tools
from bridge.agent import Agent, TurnDetection
from bridge.config import Config, Realtime, load_config, warnings_of
from bridge.destinations import Destination
from bridge.errors import ConfigError
from bridge.session import checked, masked, merged, session_of
from simulators.realtime_rules import check_client_event

Json = dict[str, Any]
PCM = {"type": "audio/pcm", "rate": 24000}
MCP = {"type": "mcp", "server_label": "stock", "server_url": "https://mcp.example/sse"}
WEATHER = {"type": "function", "name": "weather", "description": "Now", "parameters": {"type": "object"}}


def accepted(session: Json) -> None:
    """The official types, and the server's rules that they do not know, accept this session in an update."""
    check({"type": "session.update", "session": session}, CLIENT)


def at(place: str, value: object) -> Json:
    """A tree with one value at a dotted place."""
    for key in reversed(place.split(".")):
        value = {key: value}
    assert isinstance(value, dict)
    return value


VAD = "audio.input.turn_detection"
# Every field of section 2.1, each kind of value that it may have.
GOOD: list[tuple[str, Any]] = [
    ("model", "gpt-realtime-2.1"),
    ("output_modalities", ["audio"]),
    ("output_modalities", ["text"]),
    ("instructions", ""),
    *((f"audio.{side}.format", value) for side in ("input", "output") for value in (PCM, {"type": "audio/pcmu"})),
    ("audio.input.format", {"type": "audio/pcma"}),
    ("audio.input.noise_reduction", None),
    ("audio.input.noise_reduction", {"type": "far_field", "strength": 0.5}),
    ("audio.input.noise_reduction", {"strength": 0.5}),
    ("audio.input.transcription", None),
    ("audio.input.transcription", {"model": "gpt-transcribe", "languages": ["de", "en"], "keywords": ["Smith"]}),
    ("audio.input.transcription", {"model": "gpt-realtime-whisper", "language": "de", "delay": "xhigh"}),
    ("audio.input.transcription", {"prompt": "names of bakers"}),
    (VAD, None),
    (VAD, {"type": "server_vad", "threshold": 1, "prefix_padding_ms": 0, "silence_duration_ms": 200}),
    (VAD, {"type": "server_vad", "idle_timeout_ms": 30000, "create_response": False, "interrupt_response": True}),
    (VAD, {"type": "server_vad", "idle_timeout_ms": None}),
    (VAD, {"type": "semantic_vad", "eagerness": "low", "create_response": True}),
    ("audio.output.voice", "cedar"),
    ("audio.output.voice", {"id": "voice_1"}),
    ("audio.output.speed", 0.25),
    ("audio.output.speed", 1),
    ("max_output_tokens", 4096),
    ("max_output_tokens", "inf"),
    ("tools", []),
    ("tools", [WEATHER, {"type": "function", "name": "bare"}]),
    (
        "tools",
        [MCP | {"headers": {"x": "y"}, "authorization": "t", "server_description": "d", "defer_loading": True}],
    ),
    ("tools", [MCP | {"allowed_tools": ["a"], "require_approval": "never", "allowed_callers": ["direct"]}]),
    ("tools", [MCP | {"allowed_tools": {"tool_names": ["a"], "read_only": True}}]),
    ("tools", [MCP | {"require_approval": {"always": {"tool_names": ["a"]}, "never": {"read_only": True}}}]),
    ("tools", [{"type": "mcp", "server_label": "mail", "connector_id": "connector_gmail"}]),
    ("tools", [{"type": "mcp", "server_label": "inside", "tunnel_id": "t"}]),
    *(("tool_choice", mode) for mode in ("none", "auto", "required")),
    ("tool_choice", {"type": "function", "name": "weather"}),
    ("tool_choice", {"type": "mcp", "server_label": "stock"}),
    ("tool_choice", {"type": "mcp", "server_label": "stock", "name": "count"}),
    ("parallel_tool_calls", True),
    ("reasoning", {"effort": "minimal"}),
    ("truncation", "auto"),
    ("truncation", "disabled"),
    ("truncation", {"type": "retention_ratio", "retention_ratio": 0.8, "token_limits": {"post_instructions": 8000}}),
    ("include", None),
    ("include", ["item.input_audio_transcription.logprobs"]),
    ("tracing", None),
    ("tracing", "auto"),
    ("tracing", {"workflow_name": "calls", "group_id": "g", "metadata": {"site": "north"}}),
    ("prompt", None),
    ("prompt", {"id": "pmpt_1", "version": "2", "variables": {"name": "Smith"}}),
]


@pytest.mark.parametrize(("place", "value"), GOOD)
def test_every_field_can_be_said_and_is_passed_on_unchanged(place: str, value: object) -> None:
    result = checked(at(place, value), "agents.x.session")
    assert result.session == {"type": "realtime"} | at(place, value)
    assert result.warnings == []
    accepted(result.session)
    # The simulator's rules were written from the notes, independently.
    check_client_event({"type": "session.update", "session": result.session})


@pytest.mark.parametrize(
    ("place", "value", "says"),
    [
        # What the official types let pass although the server refuses it (protocol sheet, section 8).
        ("audio.input.format", {"type": "audio/pcm"}, "audio.input.format: needs rate"),
        ("audio.output.format", {}, 'audio.output.format: needs type = "audio/pcm", "audio/pcmu" or "audio/pcma"'),
        ("audio.output.format", None, "audio.output.format: must be"),
        ("audio.input.format", PCM | {"rate": 16000}, "audio.input.format.rate: must be 24000"),
        (
            "audio.input.format",
            {"type": "audio/pcmu", "rate": 8000},
            'format.rate: goes with type = "audio/pcm" only',
        ),
        ("output_modalities", ["audio", "text"], 'output_modalities: must be ["audio"] or ["text"], never both'),
        ("output_modalities", [], "output_modalities: must be"),
        (VAD, {"type": "server_vad", "create_response": None}, "create_response: must be true or false"),
        (VAD, {"type": "semantic_vad", "interrupt_response": None}, "interrupt_response: must be true or false"),
        (VAD, {"type": "server_vad", "idle_timeout_ms": 4999}, "idle_timeout_ms: must be 5000 to 30000 or null"),
        (VAD, {"type": "server_vad", "idle_timeout_ms": 30001}, "idle_timeout_ms: must be 5000 to 30000 or null"),
        (VAD, {"type": "semantic_vad", "idle_timeout_ms": 6000}, 'goes with type = "server_vad" only'),
        (VAD, {"type": "server_vad", "threshold": 1.01}, "threshold: must be 0 to 1"),
        (VAD, {"type": "server_vad", "prefix_padding_ms": -1}, "prefix_padding_ms: must be 0 or more"),
        (VAD, {"type": "server_vad", "silence_duration_ms": -1}, "silence_duration_ms: must be 0 or more"),
        ("audio.output.speed", 0.24, "audio.output.speed: must be 0.25 to 1.5"),
        ("audio.output.speed", 1.51, "audio.output.speed: must be 0.25 to 1.5"),
        ("audio.output.speed", float("nan"), "audio.output.speed: must be a finite number"),
        ("max_output_tokens", 0, 'max_output_tokens: must be 1 to 4096 or "inf"'),
        ("max_output_tokens", 4097, 'max_output_tokens: must be 1 to 4096 or "inf"'),
        # A number as text is what the OpenSIPS connector sends.
        ("max_output_tokens", "4096", 'max_output_tokens: must be 1 to 4096 or "inf"'),
        ("tools", [WEATHER, {"type": "function"}], "tools[1]: needs name"),
        ("tools", [{"type": "function", "name": ""}], "tools[0].name: must be text of 1 to 64 characters"),
        # And the rest of the table.
        ("type", "transcription", 'type: must be "realtime"'),
        ("temperatur", 0.8, "temperatur: unknown key; known here: type, model, output_modalities"),
        ("id", "sess_1", "id: is said by the server and can not be set"),
        (
            "audio.input.transcription",
            {"modell": "x"},
            "transcription.modell: unknown key; known here: model, language",
        ),
        (
            "audio.input.transcription",
            {"delay": "long"},
            'delay: must be "high", "low", "medium", "minimal" or "xhigh"',
        ),
        ("audio.input.noise_reduction", {"type": "off"}, 'noise_reduction.type: must be "far_field" or "near_field"'),
        (VAD, {"threshold": 0.5}, 'turn_detection: needs type = "server_vad" or "semantic_vad"'),
        (VAD, {"type": "silence"}, 'turn_detection.type: must be "server_vad" or "semantic_vad"'),
        ("audio.output.voice", "", "audio.output.voice: must be text that is not empty or a table"),
        ("audio.output.voice", {"name": "x"}, "audio.output.voice.name: unknown key; known here: id"),
        ("audio.output.speed", True, "audio.output.speed: must be 0.25 to 1.5"),
        ("audio", [], "audio: must be a table"),
        ("tools", WEATHER, "tools: must be a list"),
        (
            "tools",
            [{"type": "mcp", "server_label": "x"}],
            "tools[0]: needs one of server_url, connector_id and tunnel_id",
        ),
        ("tools", [MCP | {"require_approval": "maybe"}], "tools[0].require_approval: must be"),
        ("tools", [MCP | {"headers": {"x": 1}}], "tools[0].headers.x: must be text"),
        (
            "tools",
            [WEATHER | {"parameters": {"default": float("inf")}}],
            "parameters.default: must be a finite number",
        ),
        ("tool_choice", "requird", 'tool_choice: must be "auto", "none", "required" or a table'),
        ("tool_choice", {"type": "function"}, "tool_choice: needs name"),
        ("parallel_tool_calls", 1, "parallel_tool_calls: must be true or false"),
        ("reasoning", {"effort": "huge"}, "reasoning.effort: must be"),
        ("truncation", {"type": "retention_ratio", "retention_ratio": 1.5}, "retention_ratio: must be 0 to 1"),
        ("truncation", {"retention_ratio": 0.5}, "truncation: needs type"),
        ("include", ["everything"], "include[0]: must be"),
        ("tracing", {"name": "x"}, "tracing.name: unknown key"),
        ("prompt", {"version": "1"}, "prompt: needs id"),
    ],
)
def test_what_the_server_refuses_is_refused_with_its_place(place: str, value: object, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        checked(at(place, value), "agents.x.session")
    assert str(caught.value).startswith("agents.x.session.")
    assert says in str(caught.value)
    assert str(caught.value).startswith(caught.value.place + ": ")


FLAT = {
    "modalities": ["text", "audio"],
    "instructions": "Be brief.",
    "voice": "verse",
    "speed": 1.2,
    "input_audio_format": "pcm16",
    "output_audio_format": "g711_ulaw",
    "input_audio_transcription": {"model": "whisper-1"},
    "input_audio_noise_reduction": {"type": "near_field"},
    "turn_detection": {"type": "server_vad", "threshold": 0.5, "prefix_padding_ms": 300, "silence_duration_ms": 200},
    "tools": [{"type": "function", "function": {"name": "weather", "parameters": {}}}, WEATHER | {"name": "flat"}],
    "tool_choice": {"type": "function", "function": {"name": "weather"}},
    "temperature": 0.8,
    "max_response_output_tokens": 4096,
}


def test_an_old_flat_session_is_understood_with_one_warning_that_lists_it_all() -> None:
    before = copy.deepcopy(FLAT)
    result = checked(FLAT, "agents.x.session")
    assert result.session == {
        "type": "realtime",
        "output_modalities": ["audio"],
        "instructions": "Be brief.",
        "audio": {
            "input": {
                "format": PCM,
                "transcription": {"model": "whisper-1"},
                "noise_reduction": {"type": "near_field"},
                "turn_detection": FLAT["turn_detection"],
            },
            "output": {"format": {"type": "audio/pcmu"}, "voice": "verse", "speed": 1.2},
        },
        "tools": [{"type": "function", "name": "weather", "parameters": {}}, WEATHER | {"name": "flat"}],
        "tool_choice": {"type": "function", "name": "weather"},
        "max_output_tokens": 4096,
    }
    accepted(result.session)
    (warning,) = result.warnings
    assert warning.startswith("agents.x.session: old names were translated, write the new ones: ")
    for old in set(FLAT) - {"instructions", "tools", "tool_choice"}:
        assert old in warning, old
    for change in (
        "temperature (no GA field: dropped)",
        "input_audio_format -> audio.input.format",
        '"pcm16" -> { type = "audio/pcm", rate = 24000 }',
        '"g711_ulaw" -> { type = "audio/pcmu" }',
        "tools[0].function -> its fields one level up",
        "tool_choice.function -> its name one level up",
    ):
        assert change in warning
    assert before == FLAT


@pytest.mark.parametrize(
    ("tree", "session"),
    [
        ({"turn_detection": {"type": "none"}}, at(VAD, None)),
        (at(VAD, {"type": "none"}), at(VAD, None)),
        ({"turn_detection": None}, at(VAD, None)),
        ({"modalities": ["text"]}, {"output_modalities": ["text"]}),
        ({"modalities": ["audio", "text"]}, {"output_modalities": ["audio"]}),
        ({"output_audio_format": "g711_alaw"}, at("audio.output.format", {"type": "audio/pcma"})),
        (at("audio.input.format", "pcm16"), at("audio.input.format", PCM)),
        ({"max_response_output_tokens": "inf"}, {"max_output_tokens": "inf"}),
        (
            {"tools": [WEATHER], "tool_choice": "weather"},
            {"tools": [WEATHER], "tool_choice": {"type": "function", "name": "weather"}},
        ),
    ],
)
def test_old_forms_become_new_ones(tree: Json, session: Json) -> None:
    result = checked(tree, "s")
    assert result.session == {"type": "realtime"} | session
    assert len(result.warnings) == 1


def test_old_and_new_names_may_stand_side_by_side_where_they_differ() -> None:
    result = checked({"voice": "ash", "audio": {"output": {"speed": 1.1}}}, "s")
    assert result.session["audio"] == {"output": {"voice": "ash", "speed": 1.1}}


@pytest.mark.parametrize(
    ("tree", "says"),
    [
        (
            {"voice": "ash", "audio": {"output": {"voice": "ash"}}},
            "s.voice: says the same as audio.output.voice; keep only audio.output.voice",
        ),
        (
            {"modalities": ["text"], "output_modalities": ["audio"]},
            "s.modalities: says the same as output_modalities",
        ),
        ({"turn_detection": None} | at(VAD, None), "s.turn_detection: says the same as audio.input.turn_detection"),
        (
            {"tools": [{"type": "function", "name": "a", "function": {"name": "b"}}]},
            "s.tools[0]: says name twice, in function too",
        ),
        # Errors name what was written, not what it became.
        ({"speed": 9}, "s.speed: must be 0.25 to 1.5"),
        ({"turn_detection": {"type": "server_vad", "threshold": 2}}, "s.turn_detection.threshold: must be 0 to 1"),
        (
            {"input_audio_format": "opus"},
            "s.input_audio_format: must be pcm16, g711_ulaw, g711_alaw, or the GA table",
        ),
        ({"tools": [{"type": "function", "function": {"name": ""}}]}, "s.tools[0].function.name: must be text"),
        ({"voice": "ash", "audio": 5}, "s.audio: must be a table"),
        ({"voice": "ash", "audio": {"output": 5}}, "s.audio.output: must be a table"),
        # Azure's Voice Live has a flat session of its own, which must not be guessed at.
        ({"turn_detection": {"type": "azure_semantic_vad"}}, "s.turn_detection.type: must be"),
        ({"input_audio_echo_cancellation": {}}, "s.input_audio_echo_cancellation: unknown key"),
    ],
)
def test_contradictions_and_wrong_old_values_are_errors(tree: Json, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        checked(tree, "s")
    assert str(caught.value).startswith(says)


def test_what_json_can_not_say_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"agents\.x\.session\.tracing\.metadata: must be text.* not a date"):
        load_config("[agents.x.session]\ntracing = { metadata = 2026-11-21 }", {})


def test_every_refusal_of_msgspec_is_explained_in_our_words() -> None:
    """A walk that is less strict than msgspec would let its own words through: `Expected ..., got ...`."""
    wrong: tuple[Any, ...] = (None, True, -1, 2**40, 0.5, "", "x", [], [1], [{}], {}, {"type": "x"}, {"x": 1})
    flat = [(name, value) for name, value in FLAT.items() if name != "temperature"]
    said: list[str] = []
    for (place, _), value in itertools.product([*GOOD, *flat], wrong):
        try:
            checked(at(place, value), "s")
        except ConfigError as error:
            said.append(str(error))
    assert len(said) > 500
    assert [words for words in said if re.search("[Ee]xpected|[Oo]bject|[Ii]nvalid", words)] == []


# --- merging -------------------------------------------------------------------------------------------------------

FULL = session_of(Agent(noise_reduction="near_field", transcription_language="de"), [WEATHER])


@pytest.mark.parametrize(
    ("update", "place", "value"),
    [
        (at("audio.output.speed", 1.2), "audio.output", {"format": PCM, "voice": "marin", "speed": 1.2}),
        (at(VAD, None), VAD, None),
        (at("audio.input.noise_reduction", None), "audio.input.noise_reduction", None),
        (at("audio.input.transcription", None), "audio.input.transcription", None),
        (
            at("audio.input.transcription", {"prompt": "p"}),
            "audio.input.transcription",
            {"model": "gpt-transcribe", "language": "de", "prompt": "p"},
        ),
        (at(VAD, {"type": "semantic_vad"}), VAD, {"type": "semantic_vad"}),
        (at(f"{VAD}.threshold", 0.8), f"{VAD}.silence_duration_ms", 500),
        ({"tools": [MCP]}, "tools", [MCP]),
        ({"tools": []}, "tools", []),
        ({"instructions": "x"}, "tools", [WEATHER]),
        ({"tool_choice": {"type": "function", "name": "a"}}, "tool_choice", {"type": "function", "name": "a"}),
        (at("audio.output.voice", {"id": "v"}), "audio.output.voice", {"id": "v"}),
    ],
)
def test_an_update_changes_what_it_says(update: Json, place: str, value: object) -> None:
    before = copy.deepcopy(FULL)
    result: Any = merged(FULL, update)
    for key in place.split("."):
        result = result[key]
    assert result == value
    assert before == FULL


def test_choices_are_replaced_whole_and_cleared_objects_start_anew() -> None:
    session = merged(FULL, {"tool_choice": {"type": "mcp", "server_label": "a", "name": "b"}})
    session = merged(session, {"tool_choice": {"type": "mcp", "server_label": "c"}})
    assert session["tool_choice"] == {"type": "mcp", "server_label": "c"}
    session = merged(merged(session, at(VAD, None)), at(VAD, {"type": "server_vad"}))
    assert session["audio"]["input"]["turn_detection"] == {"type": "server_vad"}


def leaves(tree: Json, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """{path: value} of what is no dict, or an empty one."""
    found: dict[tuple[str, ...], Any] = {}
    for key, value in tree.items():
        found |= leaves(value, (*path, key)) if isinstance(value, dict) and value else {(*path, key): value}
    return found


# Half of them about the objects that are merged and not replaced.
MERGED = [field for field in GOOD if field[0].startswith("audio.")]
UPDATES = st.lists(st.sampled_from(GOOD) | st.sampled_from(MERGED), max_size=5).map(
    lambda fields: [checked(at(place, value), "s").session for place, value in fields]
)
# Of these the value is one whole, whatever is inside.
WHOLE = {"tool_choice", "truncation", "tracing", "prompt", "reasoning", "format", "voice"}


def replaced(session: Json, update: Json) -> set[str]:
    """The names whose old value goes as a whole when the update says anything of them."""
    old, new = (tree.get("audio", {}).get("input", {}).get("turn_detection") or {} for tree in (session, update))
    another = old.get("type") != new.get("type")
    return WHOLE | {"turn_detection"} if another else WHOLE


@given(UPDATES, UPDATES)
def test_merging_is_idempotent_and_loses_nothing(first: list[Json], second: list[Json]) -> None:
    session: Json = FULL
    for update in first:
        session = merged(session, update)
    for update in second:
        result = merged(session, update)
        assert merged(result, update) == result
        said, had, have = leaves(update), leaves(session), leaves(result)
        assert {path: have.get(path) for path in said} == said
        for path, value in had.items():
            touched = any(
                path[: len(other)] == other  # said itself, or something around it cleared
                or other[: len(path)] == path  # was null, is a table now
                or (path[:-1] == other[:-1] and replaced(session, update) & set(path))
                for other in said
            )
            assert touched or have.get(path, "lost") == value, path
        session = result
    accepted(session)


# --- an agent's session --------------------------------------------------------------------------------------------

AGENTS = {
    "default": Agent(),
    "semantic": Agent(turn_detection=TurnDetection(type="semantic_vad", eagerness="high")),
    "manual": Agent(turn_detection=TurnDetection(type="manual")),
    "idle": Agent(turn_detection=TurnDetection(idle_timeout_ms=6000)),
    "quiet": Agent(transcription_model="", noise_reduction="far_field", max_output_tokens=400, barge_in="off"),
    "french": Agent(transcription_language="fr", transfers={"a": Destination(to="1"), "b": Destination(to="2")}),
    "table": Agent(session={"reasoning": {"effort": "low"}, "tools": [MCP], "voice": "ash"}, barge_in="confirm"),
}


@pytest.mark.parametrize("name", AGENTS)
def test_the_official_types_accept_every_agents_session(name: str) -> None:
    agent = AGENTS[name]
    session = session_of(agent, [*call_tools.declarations(agent), WEATHER, MCP | {"server_label": "other"}])
    accepted(session)
    assert checked(session, "s").session == session
    assert session["type"] == "realtime"
    assert {"hang_up", "weather"} <= {tool.get("name") for tool in session["tools"]}


@pytest.mark.parametrize(
    ("agent", "detection"),
    [
        (
            Agent(turn_detection=TurnDetection(idle_timeout_ms=6000)),
            {
                "type": "server_vad",
                "threshold": 0.5,
                "prefix_padding_ms": 300,
                "silence_duration_ms": 500,
                "idle_timeout_ms": 6000,
                "create_response": True,
                "interrupt_response": True,
            },
        ),
        (
            Agent(turn_detection=TurnDetection(type="semantic_vad"), barge_in="confirm"),
            {"type": "semantic_vad", "eagerness": "auto", "create_response": False, "interrupt_response": False},
        ),
        (
            Agent(barge_in="off", session=at(VAD, {"type": "semantic_vad", "eagerness": "low"})),
            {"type": "semantic_vad", "eagerness": "low", "create_response": False, "interrupt_response": False},
        ),
        (Agent(turn_detection=TurnDetection(type="manual")), None),
    ],
)
def test_turns_and_barge_in_decide_the_turn_detection(agent: Agent, detection: Json | None) -> None:
    assert session_of(agent, [])["audio"]["input"]["turn_detection"] == detection


def test_a_table_is_merged_over_what_the_keys_make() -> None:
    agent = Agent(
        instructions="Be brief.",
        session={"audio": {"input": {"transcription": {"keywords": ["Smith"]}}}, "max_output_tokens": "inf"},
    )
    session = session_of(agent, [])
    assert session["instructions"] == "Be brief."
    assert session["audio"]["input"]["transcription"] == {"model": "gpt-transcribe", "keywords": ["Smith"]}
    assert session["max_output_tokens"] == "inf"


def test_tools_of_the_table_follow_and_never_replace_the_bridges_own() -> None:
    agent = Agent(session={"tools": [WEATHER | {"description": "other"}, {"type": "function", "name": "more"}, MCP]})
    tools = session_of(agent, [WEATHER, MCP | {"server_label": "first"}])["tools"]
    assert [tool.get("name") or tool["server_label"] for tool in tools] == ["weather", "first", "more", "stock"]
    assert len(session_of(agent, [MCP])["tools"]) == 3
    assert tools[0] == WEATHER


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ("[agents.s.session]\naudio.output.speed = 9", "2: agents.s.session.audio.output.speed: must be 0.25 to 1.5"),
        ("[agents.s.session]\n\nspeed = 9", "3: agents.s.session.speed: must be 0.25 to 1.5"),
        (
            "[agents.s.session.audio.input]\nturn_detection = {\n type = 'server_vad', threshold = 7 }".replace(
                "\n t", " t"
            ),
            "2: agents.s.session.audio.input.turn_detection.threshold: must be 0 to 1",
        ),
        (
            "[[agents.s.session.tools]]\ntype = 'function'\nname = 'a'\n[[agents.s.session.tools]]\ntype = 'function'",
            "4: agents.s.session.tools[1]: needs name",
        ),
        ("[agents.s]\nsession = 5", "2: agents.s.session: must be a table"),
        ("[agents.s.session]\ntype = 'realtime'", '2: agents.s.session.type: is always "realtime"; leave it out'),
        ("[agents.s.session]\nmodel = 'x'", "2: agents.s.session.model: belongs to agents.s.model or realtime.model"),
        (
            "[agents.s.session]\ninstructions = 'x'",
            "2: agents.s.session.instructions: belong to agents.s.instructions",
        ),
        ("[agents.s.session]\nmodalities = ['text']", '2: agents.s.session.modalities: must be ["audio"]'),
        (
            "[agents.s.session]\noutput_audio_format = 'g711_ulaw'",
            "2: agents.s.session.output_audio_format: must be audio/pcm at 24000 Hz",
        ),
        (
            "[agents.s.session]\nturn_detection = { type = 'none' }",
            '2: agents.s.session.turn_detection: must not be null; say agents.s.turn_detection.type = "manual"',
        ),
        (
            "[agents.s.session]\nturn_detection = { type = 'semantic_vad', create_response = false }",
            "2: agents.s.session.turn_detection.create_response: is decided by agents.s.barge_in",
        ),
        (
            "[[agents.s.session.tools]]\ntype = 'mcp'\nserver_label = 'a'\nserver_url = 'https://a'",
            "1: agents.s.session.tools[0]: belongs to agents.s.mcp, which also says who approves its calls",
        ),
        (
            "[agents.s]\nvoice = 'ash'\n[agents.s.session]\naudio.output.voice = 'ash'",
            "4: agents.s.session.audio.output.voice: is said by agents.s.voice too; keep only one of them",
        ),
        (
            "[agents.s]\nspeed = 1.2\n[agents.s.session]\nspeed = 1.1",
            "4: agents.s.session.speed: is said by agents.s.speed too",
        ),
        (
            "[agents.s]\nturn_detection.threshold = 0.7\n[agents.s.session]\n"
            "turn_detection = { type = 'server_vad', threshold = 0.8 }",
            "4: agents.s.session.turn_detection.threshold: is said by agents.s.turn_detection.threshold too",
        ),
        (
            "[agents.s]\nturn_detection.type = 'manual'\n[agents.s.session]\nturn_detection = { type = 'server_vad' }",
            "4: agents.s.session.turn_detection.type: is said by agents.s.turn_detection.type too",
        ),
        (
            "[agents.s]\ntranscription_model = ''\n[agents.s.session.audio.input.transcription]\nprompt = 'x'",
            "3: agents.s.session.audio.input.transcription: is said by agents.s.transcription_model too",
        ),
        (
            "[agents.s.session]\naudio.input.noise_reduction = { strength = 0.5 }",
            "2: agents.s.session.audio.input.noise_reduction: needs type",
        ),
    ],
)
def test_a_wrong_session_table_is_an_error_with_its_line(lines: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(lines, {})
    assert str(caught.value).startswith(f"bridge.toml:{says}")


def test_a_table_may_repeat_the_type_of_turn_detection_to_complete_it() -> None:
    semantic = TurnDetection(type="semantic_vad")
    agent = Agent(turn_detection=semantic, session=at(VAD, {"type": "semantic_vad", "eagerness": "low"}))
    assert warnings_of(Config(agents={"a": agent})) == []
    assert session_of(agent, [])["audio"]["input"]["turn_detection"]["eagerness"] == "low"


def test_a_table_may_complete_what_a_key_says() -> None:
    config = load_config(
        """
        [agents.default]
        noise_reduction = "near_field"
        turn_detection.threshold = 0.7
        [agents.default.session.audio.input]
        noise_reduction = { strength = 0.5 }
        turn_detection = { type = "server_vad", silence_duration_ms = 300, create_response = true }
        format = { type = "audio/pcm", rate = 24000 }
        """,
        {},
    )
    audio_input = session_of(config.agents["default"], [])["audio"]["input"]
    assert audio_input["noise_reduction"] == {"type": "near_field", "strength": 0.5}
    assert audio_input["turn_detection"]["threshold"] == 0.7
    assert audio_input["turn_detection"]["silence_duration_ms"] == 300
    assert warnings_of(config) == []


@pytest.mark.parametrize(
    ("agent", "model", "says"),
    [
        (Agent(), "gpt-realtime-mini", "realtime.model: gpt-realtime-mini ends at OpenAI on 2027-01-20"),
        (Agent(), "gpt-4o-realtime-preview-2024-10-01", "realtime.model: gpt-4o-realtime-preview-2024-10-01 is gone"),
        (Agent(session={"speed": 1.1}), "any", "agents.a.session: old names were translated"),
        (
            Agent(session={"tools": [WEATHER]}),
            "any",
            "agents.a.session.tools: weather: nothing runs these but a tool",
        ),
        (Agent(transcription_model="whisper-1"), "any", "agents.a: transcription with whisper-1 ends"),
        (Agent(transcription_model="gpt-realtime-whisper"), "any", "agents.a: gpt-realtime-whisper needs"),
        (Agent(session={"prompt": {"id": "p"}}), "any", "agents.a: stored prompts (prompt) end"),
        (Agent(session={"tool_choice": "required"}), "any", "agents.a: tool_choice = required makes"),
        (Agent(session={"reasoning": {}}), "gpt-realtime-1.5", "agents.a: reasoning is known to the 2.x models only"),
    ],
)
def test_what_is_valid_and_yet_worth_a_word(agent: Agent, model: str, says: str) -> None:
    (warning,) = warnings_of(Config(realtime=Realtime(model=model), agents={"a": agent}))
    assert warning.startswith(says)


def test_the_defaults_deserve_no_warning() -> None:
    assert warnings_of(load_config("", {})) == []
    streaming = Agent(transcription_model="gpt-live-transcribe", turn_detection=TurnDetection(type="manual"))
    assert warnings_of(Config(agents={"a": streaming})) == []


def test_credentials_of_mcp_servers_are_masked() -> None:
    session = {"tools": [MCP | {"authorization": "hush", "headers": {"x": "hush"}}, WEATHER | {"name": "headers"}]}
    shown = masked(session)
    assert "hush" not in str(shown)
    assert shown["tools"][0]["server_url"] == MCP["server_url"]
    assert shown["tools"][1] == WEATHER | {"name": "headers"}
