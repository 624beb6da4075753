"""The protocol of `/realtime` in tables: every config key in either form, every message, every error, every refusal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from bridge import gateway_messages as messages
from bridge.agent import Agent, TurnDetection
from bridge.config import load_config
from bridge.destinations import Destination
from bridge.errors import ConfigError, GatewayError
from bridge.gateway_config import KEYS, VOICES, base_of, model_of, profile_of, update_of, wish_of
from bridge.gateway_door import Refusal, Visit, visit_of
from bridge.gateway_messages import (
    CancelResponse,
    ClearAudio,
    CommitAudio,
    Configure,
    CreateResponse,
    Form,
    FunctionResult,
    PressKey,
    Text,
    Update,
    decode,
)
from bridge.gateway_session import tools_of
from bridge.gateway_settings import Gateway
from bridge.session import session_of

KB = 1024
FLAT = {"name": "get_weather", "description": "The weather.", "parameters": {"type": "object", "properties": {}}}
NESTED = {"type": "function", "function": FLAT}
# What the TypeScript SDK's createRealtimeConfig makes: the page's defaults, in camelCase.
SDK_CONFIG: dict[str, Any] = {
    "model": "gpt-4o-realtime-preview",
    "voice": "alloy",
    "turnDetection": "server_vad",
    "vad": {"enabled": True, "threshold": 0.6, "silenceDurationMs": 450, "prefixPaddingMs": 250},
    "inputTranscription": {"enabled": True, "model": "whisper-1"},
    "temperature": 0.8,
    "maxResponseTokens": "inf",
    "provider": "openai",
}


def raw_of(**settings: Any) -> Mapping[str, Any]:
    made = decode(msgspec.json.encode({"type": "config", **settings}))
    assert isinstance(made, Configure)
    return made.raw


def session_with(agent: Agent | None = None, **settings: Any) -> dict[str, Any]:
    """The model's session that this config leads to."""
    return session_of(profile_of(base_of(agent or Agent(), named=False), wish_of(raw_of(**settings))), [])


def test_every_key_of_the_page_in_one_config() -> None:
    session = session_with(
        provider="openai", model="gpt-4o-realtime-preview", voice="alloy", instructions="You are a helpful assistant.",
        turn_detection="server_vad", vad={"enabled": True, "threshold": 0.4, "silence_duration_ms": 510,
        "prefix_padding_ms": 310}, input_transcription={"enabled": True, "model": "whisper-1"}, temperature=0.8,
        max_response_tokens="inf",
    )  # fmt: skip
    assert session["instructions"] == "You are a helpful assistant."
    assert session["audio"]["output"]["voice"] == "alloy"
    assert session["audio"]["input"]["turn_detection"] == {
        "type": "server_vad", "threshold": 0.4, "silence_duration_ms": 510, "prefix_padding_ms": 310,
        "create_response": True, "interrupt_response": True,
    }  # fmt: skip
    assert session["audio"]["input"]["transcription"] == {"model": "whisper-1"}
    assert "max_output_tokens" not in session


def test_the_sdks_camel_case_is_the_same_config() -> None:
    session = session_with(**SDK_CONFIG)
    detection = session["audio"]["input"]["turn_detection"]
    assert (detection["threshold"], detection["silence_duration_ms"], detection["prefix_padding_ms"]) == (
        0.6,
        450,
        250,
    )
    assert session["audio"]["input"]["transcription"] == {"model": "whisper-1"}
    wish = wish_of(raw_of(**SDK_CONFIG))
    assert wish.form is Form.DOCUMENTED
    assert [(code, text.split(":")[0]) for code, text in wish.warnings] == [("ignored", "temperature")]


VAD = {"type": "server_vad", "create_response": True, "interrupt_response": True}


@pytest.mark.parametrize(
    ("settings", "place", "value"),
    [
        ({}, "audio.output.voice", "marin"),
        ({"voice": "cedar"}, "audio.output.voice", "cedar"),
        ({"voice": "nova"}, "audio.output.voice", "marin"),
        ({"instructions": ""}, "instructions", ""),
        ({"max_response_tokens": 200}, "max_output_tokens", 200),
        ({"max_response_tokens": -1}, "max_output_tokens", None),
        ({"turn_detection": "none"}, "audio.input.turn_detection", None),
        ({"turn_detection": "server_vad", "vad": {"enabled": False}}, "audio.input.turn_detection", None),
        ({"vad": {"enabled": False}}, "audio.input.turn_detection", None),
        ({"turn_detection": {"mode": "manual"}}, "audio.input.turn_detection", None),
        (
            {"turn_detection": {"mode": "semantic", "eagerness": "high"}},
            "audio.input.turn_detection",
            {**VAD, "type": "semantic_vad", "eagerness": "high"},
        ),
        (
            {"turn_detection": {"mode": "server_vad", "threshold": 0.7, "silenceDurationMs": 900}},
            "audio.input.turn_detection",
            {**VAD, "threshold": 0.7, "silence_duration_ms": 900, "prefix_padding_ms": 300},
        ),
        (
            {"turn_detection": {"mode": "server_vad", "prefix_padding_ms": 100}},
            "audio.input.turn_detection",
            {**VAD, "threshold": 0.5, "silence_duration_ms": 500, "prefix_padding_ms": 100},
        ),
        ({"input_transcription": {"enabled": False}}, "audio.input.transcription", None),
        ({"transcribe_input": False}, "audio.input.transcription", None),
        ({"transcribe_input": True}, "audio.input.transcription.model", "gpt-transcribe"),
        (
            {"transcribe_input": True, "transcription_model": "whisper-1"},
            "audio.input.transcription.model",
            "whisper-1",
        ),
        ({"modalities": ["text"]}, "output_modalities", ["text"]),
        ({"modalities": ["text", "audio"]}, "output_modalities", ["audio"]),
        ({"input_audio_format": "pcm16", "output_audio_format": "pcm16"}, "audio.output.format.rate", 24000),
        ({"reasoning_effort": "low"}, "reasoning.effort", "low"),
        ({"reasoning_effort": "off"}, "reasoning", None),
        ({"input_audio_noise_reduction": "near_field"}, "audio.input.noise_reduction.type", "near_field"),
    ],
)
def test_a_key_of_either_form(settings: Mapping[str, Any], place: str, value: object) -> None:
    found: Any = session_with(**settings)
    for key in place.split("."):
        found = found.get(key) if isinstance(found, dict) else None
    assert found == value


def test_a_clients_word_counts_more_than_the_profiles_own_session_table() -> None:
    table = {"audio": {"output": {"voice": "ash"}, "input": {"transcription": {"model": "whisper-1", "prompt": "x"}}}}
    agent = Agent(session=table, voice="marin")
    assert session_with(agent)["audio"]["output"]["voice"] == "ash"
    session = session_with(agent, voice="coral", transcription_model="gpt-transcribe")
    assert session["audio"]["output"]["voice"] == "coral"
    assert session["audio"]["input"]["transcription"] == {"model": "gpt-transcribe"}
    assert session_with(agent, transcribe_input=False)["audio"]["input"]["transcription"] is None


@pytest.mark.parametrize(
    ("settings", "form"),
    [
        ({"provider": "openai", "voice": "alloy", "max_response_tokens": 5}, Form.BOTH),
        ({"turn_detection": "none"}, Form.DOCUMENTED),
        ({"vad": {}}, Form.DOCUMENTED),
        ({"inputTranscription": {}}, Form.DOCUMENTED),
        ({"max_response_tokens": "inf"}, Form.DOCUMENTED),
        ({"turn_detection": {"mode": "manual"}}, Form.CODE),
        ({"transcribe_input": True}, Form.CODE),
        ({"tools": [NESTED]}, Form.CODE),
        ({"max_response_tokens": -1}, Form.CODE),
        ({"vad": {}, "tools": []}, Form.BOTH),
    ],
)
def test_the_config_tells_its_form(settings: dict[str, Any], form: Form) -> None:
    assert wish_of(raw_of(**settings)).form is form


@pytest.mark.parametrize(
    ("settings", "code", "words"),
    [
        ({"provider": "hume"}, "invalid_provider", 'provider .hume. is not served here; say "openai"'),
        ({"voice": "darth"}, "validation_error", "voice: 'darth' is unknown; there are alloy, ash"),
        ({"voice": 7}, "parse_error", "voice: must be text"),
        ({"temperature": 2.1}, "validation_error", "temperature: must be 0 to 2"),
        ({"turn_detection": "sometimes"}, "validation_error", "turn_detection: 'sometimes' is unknown"),
        ({"turn_detection": {"mode": "magic"}}, "validation_error", "turn_detection: 'magic' is unknown"),
        ({"vad": {"threshold": 2}}, "validation_error", "vad.threshold: must be 0 to 1"),
        ({"vad": {"silence_duration_ms": -1}}, "validation_error", "vad.silence_duration_ms: must not be negative"),
        ({"vad": {"prefix_padding_ms": "x"}}, "parse_error", "vad.prefix_padding_ms: "),
        ({"max_response_tokens": 0}, "validation_error", "max_response_tokens: must be 1 to 4096"),
        ({"max_response_tokens": "many"}, "validation_error", "max_response_tokens: must be 1 to 4096"),
        ({"modalities": ["smell"]}, "validation_error", "modalities: must be"),
        ({"input_audio_format": "g711_ulaw"}, "validation_error", "input_audio_format: must be"),
        ({"reasoning_effort": "huge"}, "validation_error", "reasoning.effort: must be"),
        ({"input_audio_noise_reduction": "loud"}, "validation_error", "config.noise_reduction: must be"),
        ({"tools": [{"name": f"a{n}"} for n in range(129)]}, "validation_error", "at most 128 functions, not 129"),
        ({"tools": [{"type": "mcp"}]}, "validation_error", r"tools\[0\].type: must be"),
        ({"tools": [{"type": "function"}]}, "validation_error", r"tools\[0\]: must have function.name"),
        ({"tools": [{"name": "a b"}]}, "validation_error", r"tools\[0\]: tool 'a b': a name has"),
        ({"tools": [{"name": "hang_up"}]}, "validation_error", r"tools\[0\]: the bridge has a tool 'hang_up'"),
        ({"tools": [{"name": "a", "parameters": {"type": "string"}}]}, "validation_error", r"tools\[0\]: tool a"),
    ],
)
def test_what_is_wrong_with_a_config(settings: dict[str, Any], code: str, words: str) -> None:
    def begin() -> None:
        wish = wish_of(raw_of(**settings))
        tools_of(wish)
        profile_of(base_of(Agent(), named=False), wish)

    with pytest.raises(GatewayError, match=words) as told:
        begin()
    assert told.value.code == code


def test_nothing_is_ignored_silently() -> None:
    wish = wish_of(raw_of(voice="onyx", temperature=0.8, alias="x", providerOptions={}))
    assert [text.split(":")[0] for _, text in wish.warnings] == ["alias", "provider_options", "voice", "temperature"]
    assert {"agent", "greeting"} <= KEYS


def test_a_server_with_voices_of_its_own_is_asked_for_them() -> None:
    assert wish_of(raw_of(voice="Ara"), any_voice=True).patch == {"voice": "Ara"}
    assert "marin" in VOICES


def test_tools_in_both_forms() -> None:
    nested, flat = tools_of(wish_of(raw_of(tools=[NESTED, {"type": "function", **FLAT}])))
    assert nested == flat
    assert nested.declaration() == {"type": "function", **FLAT}
    assert nested.handler is None, "the client answers it"
    (bare,) = tools_of(wish_of(raw_of(tools=[{"type": "function", "function": {"name": "now"}}])))
    assert bare.parameters == {"type": "object", "properties": {}}


@pytest.mark.parametrize(
    ("asked", "model", "warned"),
    [
        ("", "gpt-realtime-2.1", False),
        ("gpt-realtime-2.1", "gpt-realtime-2.1", False),
        ("gpt-realtime-mini", "gpt-realtime-mini", False),
        ("gpt-4o-realtime-preview", "gpt-realtime-2.1", True),
        ("gpt-4o-mini-realtime-preview-2024-12-17", "gpt-realtime-2.1", True),
        ("gpt-9", None, False),
    ],
)
def test_models(asked: str, model: str | None, warned: bool) -> None:
    if model is None:
        with pytest.raises(GatewayError, match=r"there is gpt-realtime-2.1, gpt-realtime-mini \(gateway.models\)"):
            model_of(asked, "gpt-realtime-2.1", ["gpt-realtime-mini"])
    else:
        told, warning = model_of(asked, "gpt-realtime-2.1", ["gpt-realtime-mini"])
        assert told == model
        assert (warning is not None) is warned


def test_an_update_says_what_changed_and_nothing_else() -> None:
    agent = base_of(Agent(), named=False)
    wish = wish_of(
        raw_of(instructions="Be brief.", maxResponseTokens="inf", turn_detection="none", transcribeInput=False)
    )
    assert update_of(profile_of(agent, wish), wish) == {
        "instructions": "Be brief.",
        "max_output_tokens": "inf",
        "audio": {"input": {"turn_detection": None, "transcription": None}},
    }
    wish = wish_of(raw_of(modalities=["text"], voice="ash"))
    assert update_of(profile_of(agent, wish), wish) == {
        "output_modalities": ["text"],
        "audio": {"output": {"voice": "ash"}},
    }


def test_a_profile_without_a_telephone() -> None:
    agent = Agent(
        transfers={"desk": Destination(to="600@phones")}, keys={"0": "transfer desk", "9": "hang_up"}, press_keys=True
    )
    named = base_of(agent, named=True)
    assert (named.transfers, named.keys, named.press_keys, named.hang_up) == ({}, {"9": "hang_up"}, False, True)
    assert named.greeting == agent.greeting
    unnamed = base_of(agent, named=False)
    assert (unnamed.greeting, unnamed.hang_up, unnamed.keys) == ("", False, {})
    greeted = profile_of(unnamed, wish_of(raw_of(greeting="Say hello.")))
    assert greeted.greeting == "Say hello."
    prompting = Agent(turn_detection=TurnDetection(idle_timeout_ms=6000))
    manual = profile_of(base_of(prompting, named=True), wish_of(raw_of(turnDetection="none")))
    assert (manual.turn_detection.type, manual.turn_detection.talk_key) == ("manual", "")


# Messages -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "meaning"),
    [
        ({"type": "config", "silenceDurationMs": 1, "vad": {"prefixPaddingMs": 2}},
         Configure({"silence_duration_ms": 1, "vad": {"prefix_padding_ms": 2}})),
        ({"type": "update_session", "instructions": "x"}, Update({"instructions": "x"})),
        ({"type": "text", "text": "Hello"}, Text("Hello")),
        ({"type": "create_response"}, CreateResponse()),
        ({"type": "create_response", "response": {
            "instructions": "x", "voice": "ash", "modalities": ["text", "audio"], "maxOutputTokens": 5,
            "outOfBand": True, "metadata": {"a": "b"}}},
         CreateResponse({"instructions": "x", "output_modalities": ["audio"], "max_output_tokens": 5,
                         "metadata": {"a": "b"}, "audio": {"output": {"voice": "ash"}}, "conversation": "none"})),
        ({"type": "cancel_response"}, CancelResponse()),
        ({"type": "commit_audio"}, CommitAudio()),
        ({"type": "clear_audio"}, ClearAudio()),
        ({"type": "function_result", "call_id": "c", "result": "sunny"}, FunctionResult("c", "sunny")),
        ({"type": "function_result", "callId": "c", "result": {"sky": "clear"}}, FunctionResult("c", '{"sky":"clear"}')),
        ({"type": "function_result", "call_id": "c", "result": None}, FunctionResult("c", "null")),
        ({"type": "dtmf", "digit": "#"}, PressKey("#")),
        ({"type": "text", "text": "a" * 50 * KB}, Text("a" * 50 * KB)),
    ],
)  # fmt: skip
def test_what_a_client_may_say(message: dict[str, Any], meaning: messages.Message) -> None:
    assert decode(msgspec.json.encode(message)) == meaning


@pytest.mark.parametrize(
    ("message", "code", "words"),
    [
        (b"{", "parse_error", "not valid JSON"),
        (b"\xff\xfe", "parse_error", "not valid JSON"),
        (b"[" * 100_000, "parse_error", "not valid JSON"),
        (b"[]", "parse_error", "a message is a JSON object"),
        (b"{}", "parse_error", "type None is unknown; known: config, update_session"),
        (b'{"type":"sing"}', "parse_error", "type 'sing' is unknown"),
        (b'{"type":"text"}', "parse_error", "text: must be a text"),
        (b'{"type":"text","text":5}', "parse_error", "text: must be a text"),
        (b'{"type":"function_result","call_id":"c"}', "parse_error", "result: must be there"),
        (b'{"type":"function_result","result":"c"}', "parse_error", "call_id: must be a text"),
        (b'{"type":"create_response","response":[]}', "parse_error", "response: must be an object"),
        (b'{"type":"create_response","response":{"instructions":1}}', "parse_error", "response.instructions"),
        (b'{"type":"create_response","response":{"colour":1}}', "validation_error", "response.colour: is unknown"),
        *(
            (
                msgspec.json.encode({"type": "create_response", "response": {key: value}}),
                code,
                f"response.{key}: {words}",
            )
            for key, value, code, words in (
                ("max_output_tokens", "many", "validation_error", "must be 1 to 4096"),
                ("max_output_tokens", 0, "validation_error", "must be 1 to 4096"),
                ("max_output_tokens", True, "parse_error", "has the wrong type"),
                ("modalities", [None], "validation_error", "must be .*audio"),
                ("voice", 7, "parse_error", "has the wrong type"),
                ("out_of_band", "yes", "parse_error", "has the wrong type"),
                ("metadata", {"a": 7}, "validation_error", "must be at most 16 keys"),
            )
        ),
        (b'{"type":"dtmf","digit":"12"}', "validation_error", "digit: must be one key"),
        (
            msgspec.json.encode({"type": "text", "text": "\u00e4" * 26 * KB}),
            "validation_error",
            "text: has 53248 bytes",
        ),
        (
            msgspec.json.encode({"type": "config", "instructions": "a" * (100 * KB + 1)}),
            "validation_error",
            "instructions: has 102401 bytes, and may have 102400",
        ),
        (
            msgspec.json.encode({"type": "function_result", "call_id": "c", "result": ["a" * 100 * KB]}),
            "validation_error",
            "result: has 102404 bytes",
        ),
        (
            msgspec.json.encode({"type": "config"} | {f"key{number}": 1 for number in range(65)}),
            "validation_error",
            "an object of the protocol has at most 64 keys, not 65",
        ),
        (
            msgspec.json.encode({"type": "config", "vad": {f"key{number}": 1 for number in range(65)}}),
            "validation_error",
            "at most 64 keys",
        ),
        (b" " * (1024 * KB + 1), "validation_error", "a message has at most 1048576 bytes"),
    ],
)
def test_what_a_client_may_not_say(message: bytes, code: str, words: str) -> None:
    with pytest.raises(GatewayError, match=words) as told:
        decode(message)
    assert told.value.code == code


@pytest.mark.parametrize(
    ("made", "told"),
    [
        (messages.ready(Form.DOCUMENTED, "s", "m"), [{"type": "ready", "session_id": "s"}]),
        (
            messages.ready(Form.CODE, "s", "m"),
            [{"type": "session_created", "session_id": "s", "provider": "openai", "model": "m"}],
        ),
        (
            messages.speech(Form.DOCUMENTED, "started", 1500, "i"),
            [{"type": "speech_started", "audio_ms": 1500, "item_id": "i"}],
        ),
        (
            messages.speech(Form.CODE, "stopped", None, "i"),
            [{"type": "speech_event", "event": "stopped", "audio_ms": 0, "item_id": "i"}],
        ),
        ([messages.session_updated()], [{"type": "session_updated"}]),
        (
            [messages.transcript("user", "Hello", final=True)],
            [{"type": "transcript", "role": "user", "text": "Hello", "is_final": True}],
        ),
        (
            [messages.function_call("c", "f", "{}")],
            [{"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}],
        ),
        (
            [messages.response_done("r", "incomplete", None, "max_output_tokens")],
            [{"type": "response_done", "response_id": "r", "status": "incomplete", "reason": "max_output_tokens"}],
        ),
        ([messages.response_started("r")], [{"type": "response_started", "response_id": "r"}]),
        (
            [messages.error("provider_error", "no", name="RateLimitExceeded", provider_code="x")],
            [{"type": "error", "code": "provider_error", "message": "no", "error": "RateLimitExceeded",
              "provider_code": "x"}],
        ),
        ([messages.error("no_session", "no")], [{"type": "error", "code": "no_session", "message": "no"}]),
        ([messages.warning("replaced", "x")], [{"type": "warning", "code": "replaced", "message": "x"}]),
        ([messages.interrupted("i", 5)], [{"type": "interrupted", "item_id": "i", "heard_ms": 5}]),
        ([messages.reconnecting("x")], [{"type": "reconnecting", "reason": "x"}]),
        ([messages.reconnected(5)], [{"type": "reconnected", "gap_ms": 5}]),
        ([messages.closing("x")], [{"type": "closing", "reason": "x"}]),
    ],
)  # fmt: skip
def test_what_a_client_is_told(made: list[bytes], told: list[dict[str, Any]]) -> None:
    assert [msgspec.json.decode(message) for message in made] == told


def test_both_forms_at_once() -> None:
    assert len(messages.ready(Form.BOTH, "s", "m")) == len(messages.speech(Form.BOTH, "started", 1, "")) == 2


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("invalid_api_key", "AuthenticationFailed"), ("401", "AuthenticationFailed"),
        ("rate_limit_exceeded", "RateLimitExceeded"), ("insufficient_quota", "RateLimitExceeded"),
        ("server_error", None), (None, None),
    ],
)  # fmt: skip
def test_the_pages_names_of_errors(code: str | None, name: str | None) -> None:
    assert messages.documented_name(code) == name


# The door and the settings ----------------------------------------------------------------------------------------------

TOKEN = "a-token-of-sixteen"


@pytest.mark.parametrize(
    ("target", "headers", "offered", "gateway", "verdict"),
    [
        ("/realtime", {}, [], Gateway(), Visit()),
        ("/realtime/?agent=sales&model=m&messages=code", {}, [], Gateway(), Visit("sales", "m", Form.CODE)),
        ("/", {}, [], Gateway(), 404),
        ("//[", {}, [], Gateway(), 400),
        ("/realtime?messages=none", {}, [], Gateway(), 400),
        ("/realtime", {"origin": "http://localhost"}, [], Gateway(), 403),
        ("/realtime", {"origin": "https://a.test"}, [], Gateway(origins=["https://a.test"]), Visit()),
        ("/realtime", {"origin": "null"}, [], Gateway(origins=["*"]), Visit()),
        ("/realtime", {}, [], Gateway(token=TOKEN), 401),
        ("/realtime", {"authorization": f"Basic {TOKEN}"}, [], Gateway(token=TOKEN), 401),
        ("/realtime", {"authorization": f"bearer {TOKEN}"}, [], Gateway(token=TOKEN), Visit()),
        ("/realtime", {}, ["realtime", f"bearer.{TOKEN}"], Gateway(token=TOKEN), Visit()),
        ("/realtime", {}, ["realtime", "bearer.x"], Gateway(token=TOKEN), 401),
        ("/realtime?token=" + TOKEN, {}, [], Gateway(token=TOKEN), 401),
    ],
)
def test_who_may_come_in(
    target: str, headers: dict[str, str], offered: list[str], gateway: Gateway, verdict: Visit | int
) -> None:
    told = visit_of(target, headers, offered, gateway)
    assert (told.status if isinstance(told, Refusal) else told) == verdict
    if isinstance(told, Refusal):
        assert TOKEN not in told.text


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            "enabled = true\naddress = '0.0.0.0:3001'",
            "bridge.toml:1: gateway.token: must be set, since 0.0.0.0 can be",
        ),
        ("token = 'short'", "bridge.toml:2: gateway.token: must be at least 16"),
        ("address = '3001'", "bridge.toml:2: gateway.address: must be HOST:PORT"),
        ("agent = 'nobody'", "bridge.toml:2: gateway.agent: agent 'nobody' is not defined"),
        ("max_clients = 0", "bridge.toml:2: gateway.max_clients: must be at least 1"),
        ("idle_timeout_s = 0", "bridge.toml:2: gateway.idle_timeout_s: must be above zero"),
        ("origins = ['example.com']", "gateway.origins.0.: must be like"),
        ("enabled = true\naddress = '127.0.0.1:9092'", "gateway.address: port 9092 is that of a worker"),
    ],
)
def test_wrong_settings(settings: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load_config(f"[gateway]\n{settings}\n", {})


def test_settings_from_the_environment_and_for_workers() -> None:
    environ = {
        "BRIDGE_GATEWAY_ENABLED": "true",
        "BRIDGE_GATEWAY_ADDRESS": "[::1]:3001",
        "BRIDGE_GATEWAY_TOKEN": "t" * 16,
    }
    config = load_config("", environ, {"server.worker": "3"})
    assert (config.gateway.enabled, config.gateway.address) == (True, "[::1]:3003")
