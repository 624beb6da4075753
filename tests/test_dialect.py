"""The translation between GA and the beta dialect: what goes out, what comes in, and that audio is never taken apart."""

from __future__ import annotations

import json
from typing import Any

import pytest
from openai.types.beta.realtime import RealtimeClientEvent as BetaClientEvent
from sdk_types import CLIENT, check, check_server, classes, extras

from bridge import realtime, realtime_errors
from bridge.agent import Agent
from bridge.dialect import Dialect, Translator
from bridge.errors import ModelProtocolError, ModelRejected

Json = dict[str, Any]
BETA_CLIENT = classes(BetaClientEvent)
TOOL = {"type": "function", "name": "look_up", "description": "", "parameters": {"type": "object", "properties": {}}}
PLACE = {"event_id": "e", "response_id": "r", "item_id": "i", "output_index": 0, "content_index": 0}


def to_beta(event: Json | bytes) -> Json:
    """A client event through the translator, and accepted by the types of the SDK's beta module."""
    raw = event if isinstance(event, bytes) else json.dumps(event).encode()
    sent: Json = json.loads(Translator(Dialect.BETA).to_server(raw))
    # `tool_choice` is a plain string there, though servers take objects (2.6).
    checked = {**sent, "session": {**sent["session"], "tool_choice": "auto"}} if "session" in sent else sent
    model = BETA_CLIENT[sent["type"]].model_validate(checked, strict=True)
    assert not list(extras(model))
    return sent


def at_a_response(dialect: Dialect) -> Translator:
    """A connection on which the response `r` is under way."""
    translator = Translator(dialect)
    translator.from_server(b'{"type":"response.created","response":{"id":"r"}}')
    return translator


def from_beta(*messages: Json, dialect: Dialect = Dialect.BETA) -> list[Json]:
    """Messages of one connection through the translator."""
    translator = at_a_response(dialect)
    return [json.loads(told) for message in messages for told in translator.from_server(json.dumps(message).encode())]


def test_the_session_of_an_agent_becomes_flat() -> None:
    event = to_beta(realtime.session_update(Agent(voice="alloy", noise_reduction="near_field"), [TOOL]))
    assert event["session"] == {
        "modalities": ["audio", "text"],
        "instructions": Agent().instructions,
        "input_audio_format": "pcm16",
        "output_audio_format": "pcm16",
        "input_audio_transcription": {"model": "gpt-transcribe"},
        "input_audio_noise_reduction": {"type": "near_field"},
        "turn_detection": {
            "type": "server_vad",
            "threshold": 0.5,
            "prefix_padding_ms": 300,
            "silence_duration_ms": 500,
            "create_response": True,
            "interrupt_response": True,
        },
        "voice": "alloy",
        "speed": 1.0,
        "tools": [TOOL],
        "tool_choice": "auto",
    }


def test_every_setting_finds_its_beta_name_or_is_left_out() -> None:
    session = {
        "type": "realtime",
        "output_modalities": ["text"],
        "audio": {
            "input": {
                "format": {"type": "audio/pcmu"},
                "transcription": {"model": "whisper-1", "prompt": "names", "keywords": ["Ada"], "delay": "low"},
                "noise_reduction": {"type": "far_field", "strength": 1},
                "turn_detection": {"type": "server_vad", "idle_timeout_ms": 6000},
            },
            "output": {"format": {"type": "audio/pcma"}},
        },
        "max_output_tokens": 300,
        "temperature": 0.7,
        "tool_choice": {"type": "function", "name": "look_up"},
        "reasoning": {"effort": "low"},
        "parallel_tool_calls": True,
        "truncation": "auto",
        "include": None,
        "prompt": None,
    }
    assert to_beta({"type": "session.update", "event_id": "c1", "session": session}) == {
        "type": "session.update",
        "event_id": "c1",
        "session": {
            "modalities": ["text"],
            "input_audio_format": "g711_ulaw",
            "output_audio_format": "g711_alaw",
            "input_audio_transcription": {"model": "whisper-1", "prompt": "names"},
            "input_audio_noise_reduction": {"type": "far_field"},
            "turn_detection": {"type": "server_vad"},
            "max_response_output_tokens": 300,
            "temperature": 0.7,
            "tool_choice": {"type": "function", "name": "look_up"},
        },
    }


def test_what_is_off_stays_off() -> None:
    off = {"turn_detection": None, "transcription": None, "noise_reduction": None}
    session = {"type": "realtime", "audio": {"input": off}}
    assert to_beta({"type": "session.update", "session": session})["session"] == {
        "turn_detection": None,
        "input_audio_transcription": None,
        "input_audio_noise_reduction": None,
    }


def test_an_answer_replayed_as_history_is_text() -> None:
    item = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Hello"}]}
    sent = to_beta({"type": "conversation.item.create", "item": item})
    assert sent["item"]["content"] == [{"type": "text", "text": "Hello"}]


def test_a_response_with_settings_and_context_of_its_own() -> None:
    answer = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Hi"}]}
    response = {
        "conversation": "none",
        "output_modalities": ["audio"],
        "audio": {"output": {"voice": "echo", "format": {"type": "audio/pcm", "rate": 24000}}},
        "max_output_tokens": "inf",
        "instructions": "Sum up.",
        "input": [answer],
        "metadata": {"topic": "sum"},
    }
    assert to_beta({"type": "response.create", "response": response})["response"] == {
        "conversation": "none",
        "modalities": ["audio", "text"],
        "voice": "echo",
        "output_audio_format": "pcm16",
        "max_response_output_tokens": "inf",
        "instructions": "Sum up.",
        "input": [{**answer, "content": [{"type": "text", "text": "Hi"}]}],
        "metadata": {"topic": "sum"},
    }


@pytest.mark.parametrize(
    "event",
    [
        realtime.append_audio(bytes(960)),
        realtime.create_response(),
        realtime.cancel_response("r"),
        realtime.truncate_item("i", 0, 100),
        realtime.delete_item("i"),
        b'{"type":"input_audio_buffer.commit"}',
    ],
)
def test_what_is_the_same_in_both_dialects_is_not_touched(event: bytes) -> None:
    for dialect in Dialect:
        assert Translator(dialect).to_server(event) is event


@pytest.mark.parametrize(
    "event",
    [
        {"type": "session.update", "session": {"type": "realtime", "tools": [{"type": "mcp", "server_label": "x"}]}},
        {"type": "session.update", "session": {"type": "transcription"}},
        {"type": "response.create", "response": {"tools": [{"type": "mcp", "server_label": "x"}]}},
        {"type": "conversation.item.create", "item": {"type": "mcp_approval_response", "approve": True}},
    ],
)
def test_what_beta_can_not_say_is_refused_with_words(event: Json) -> None:
    with pytest.raises(ModelRejected, match=r"needs? a server of the GA dialect"):
        Translator(Dialect.BETA).to_server(json.dumps(event).encode())


def test_ga_goes_out_as_it_is() -> None:
    event = realtime.session_update(Agent(), [TOOL])
    assert Translator(Dialect.GA).to_server(event) is event
    check(json.loads(event), CLIENT)


# From the server


@pytest.mark.parametrize(
    ("beta", "ga", "more"),
    [
        ("response.audio.delta", "response.output_audio.delta", {"delta": "AAAA"}),
        ("response.audio.done", "response.output_audio.done", {}),
        ("response.audio_transcript.delta", "response.output_audio_transcript.delta", {"delta": "Hel"}),
        ("response.audio_transcript.done", "response.output_audio_transcript.done", {"transcript": "Hello"}),
        ("response.text.delta", "response.output_text.delta", {"delta": "Hel"}),
        ("response.text.done", "response.output_text.done", {"text": "Hello"}),
    ],
)
def test_events_get_their_ga_names(beta: str, ga: str, more: Json) -> None:
    (event,) = from_beta({"type": beta, **PLACE, **more})
    assert event == {"type": ga, **PLACE, **more}
    check_server(event)


@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")])
@pytest.mark.parametrize("late", [False, True])
def test_an_audio_delta_keeps_its_bytes(separators: tuple[str, str], late: bool) -> None:
    """`late`: the type stands behind the audio, as no server known writes it."""
    head, audio = {"type": "response.audio.delta"}, {"item_id": "i", "response_id": "r", "delta": "A" * 4000}
    message = json.dumps(audio | head if late else head | audio, separators=separators).encode()
    (told,) = at_a_response(Dialect.BETA).from_server(message)
    assert realtime.parse_server_event(told) == realtime.AudioDelta("r", "i", bytes(3000))
    if not late:
        assert told == message.replace(b"response.audio.delta", b"response.output_audio.delta")


def test_words_in_a_value_are_not_taken_for_the_type() -> None:
    for word in ("response.audio.delta", '"type":"response.audio.delta"'):
        message = {"type": "error", "error": {"param": word}}
        assert from_beta(message) == [message]


@pytest.mark.parametrize("dialect", Dialect)
def test_ga_audio_passes_untouched(dialect: Dialect) -> None:
    message = b'{"type":"response.output_audio.delta","response_id":"r","item_id":"i","delta":"AAAA"}'
    (told,) = at_a_response(dialect).from_server(message)
    assert told is message


def test_a_created_item_is_added_and_done() -> None:
    item = {"id": "i", "type": "message", "role": "user", "status": "completed", "content": []}
    told = from_beta({"type": "conversation.item.created", "event_id": "e", "previous_item_id": "h", "item": item})
    assert [event["type"] for event in told] == ["conversation.item.added", "conversation.item.done"]
    assert all(event["item"] == item and event["previous_item_id"] == "h" for event in told)
    for event in told:
        check_server(event)


def test_an_answer_is_done_when_its_output_item_is() -> None:
    open_item = {"id": "i", "type": "message", "role": "assistant", "status": "in_progress", "content": []}
    whole = {**open_item, "status": "completed", "content": [{"type": "audio", "transcript": "Hello"}]}
    place = {"event_id": "e", "response_id": "r", "output_index": 0}
    told = from_beta(
        {"type": "response.output_item.added", **place, "item": open_item},
        {"type": "conversation.item.created", "event_id": "e", "previous_item_id": None, "item": open_item},
        {"type": "response.output_item.done", **place, "item": whole},
    )
    assert [event["type"] for event in told] == [
        "response.output_item.added",
        "conversation.item.added",
        "conversation.item.done",
        "response.output_item.done",
    ]
    for event in told:
        check_server(event)
    assert told[2]["item"] == told[3]["item"]
    assert told[3]["item"]["content"] == [{"type": "output_audio", "transcript": "Hello"}]


def test_an_answer_outside_the_conversation_adds_no_item() -> None:
    item = {"id": "i", "type": "message", "role": "assistant", "status": "completed", "content": []}
    told = from_beta({"type": "response.output_item.done", "event_id": "e", "response_id": "r", "item": item})
    assert [event["type"] for event in told] == ["response.output_item.done"]


@pytest.mark.parametrize("dialect", Dialect)
def test_the_name_of_a_call_is_filled_in(dialect: Dialect) -> None:
    call = {"id": "i", "type": "function_call", "name": "look_up", "call_id": "c", "arguments": ""}
    place = {"event_id": "e", "response_id": "r", "output_index": 0}
    done = {
        "type": "response.function_call_arguments.done",
        **place,
        "item_id": "i",
        "call_id": "c",
        "arguments": "{}",
    }
    told = from_beta({"type": "response.output_item.added", **place, "item": call}, done, dialect=dialect)
    assert told[-1]["name"] == "look_up"
    check_server(told[-1])
    assert "name" not in from_beta(done, dialect=dialect)[0]


def test_calls_that_never_end_do_not_fill_the_memory() -> None:
    translator = Translator(Dialect.BETA)
    for number in range(1000):
        item = {"id": f"i{number}", "type": "function_call", "name": "f", "status": "in_progress"}
        for kind in ("response.output_item.added", "conversation.item.created"):
            translator.from_server(json.dumps({"type": kind, "item": item}).encode())
    assert len(translator._names) == len(translator._open) == 64
    for number in range(1000):
        translator.from_server(json.dumps({"type": "response.created", "response": {"id": f"r{number}"}}).encode())
    assert len(translator._responses) == 64


@pytest.mark.parametrize(
    ("beta", "ga"),
    [
        ("pcm16", {"type": "audio/pcm", "rate": 24000}),
        ("g711_ulaw", {"type": "audio/pcmu"}),
        ("opus", {"type": "opus"}),
    ],
)
def test_the_effective_session_can_be_checked(beta: str, ga: Json) -> None:
    flat = {
        "id": "sess_1",
        "object": "realtime.session",
        "expires_at": 1_795_230_000,
        "modalities": ["text", "audio"],
        "input_audio_format": beta,
        "output_audio_format": beta,
        "turn_detection": None,
        "voice": "alloy",
        "temperature": 0.8,
        "max_response_output_tokens": "inf",
    }
    (event,) = from_beta({"type": "session.updated", "event_id": "e", "session": flat})
    assert event["session"] == {
        "type": "realtime",
        "id": "sess_1",
        "object": "realtime.session",
        "expires_at": 1_795_230_000,
        "output_modalities": ["audio"],
        "audio": {"input": {"format": ga, "turn_detection": None}, "output": {"format": ga, "voice": "alloy"}},
        "temperature": 0.8,
        "max_output_tokens": "inf",
    }
    if beta == "pcm16":
        realtime_errors.check_effective_session(event["session"])
    else:
        with pytest.raises(ModelRejected, match="audio"):
            realtime_errors.check_effective_session(event["session"])


def test_a_response_is_shaped_as_in_ga() -> None:
    call = {"id": "f", "type": "function_call", "name": "look_up", "call_id": "c", "arguments": "{}"}
    words = {"id": "i", "type": "message", "role": "assistant", "content": [{"type": "audio", "transcript": "Hi"}]}
    response = {
        "id": "r",
        "object": "realtime.response",
        "status": "cancelled",
        "status_details": {"type": "cancelled", "reason": "turn_detected"},
        "output": [words, call],
        "modalities": ["text", "audio"],
        "voice": "alloy",
        "output_audio_format": "pcm16",
        "max_output_tokens": 4096,
        "usage": None,
    }
    (event,) = from_beta({"type": "response.done", "event_id": "e", "response": response})
    check_server(event)
    assert event["response"]["output_modalities"] == ["audio"]
    assert event["response"]["audio"] == {
        "output": {"voice": "alloy", "format": {"type": "audio/pcm", "rate": 24000}}
    }
    assert event["response"]["output"] == [{**words, "content": [{"type": "output_audio", "transcript": "Hi"}]}, call]
    done = realtime.parse_server_event(json.dumps(event))
    assert isinstance(done, realtime.ResponseDone)
    assert done.response.status == "cancelled"


@pytest.mark.parametrize("dialect", Dialect)
def test_a_server_that_announces_nothing_is_helped(dialect: Dialect) -> None:
    """Section 9: of a turn and its answer, speech_started, deltas and response.done are all that comes everywhere."""
    beta = dialect is Dialect.BETA
    delta = {"type": f"response.{'' if beta else 'output_'}audio.delta", "item_id": "i", "delta": "AAAA"}
    done = {"type": "response.done", "event_id": "e", "response": {"id": "s", "metadata": {"a": "b"}, "output": []}}
    told = from_beta(
        {"type": "input_audio_buffer.speech_started", "event_id": "e", "item_id": "u"},
        {**delta, "event_id": "e", "response_id": "q"},
        {**delta, "event_id": "e", "response_id": "q"},
        {"type": "response.done", "event_id": "e", "response": {"id": "q", "output": []}},
        {**delta, "event_id": "late", "response_id": "q"},
        done,
        dialect=dialect,
    )
    assert [event["type"] for event in told] == [
        "input_audio_buffer.speech_started",
        "input_audio_buffer.speech_stopped",
        "input_audio_buffer.committed",
        "response.created",
        "response.output_audio.delta",
        "response.output_audio.delta",
        "response.done",
        "response.output_audio.delta",
        "response.created",
        "response.done",
    ]
    assert told[1]["item_id"] == told[2]["item_id"] == "u"
    assert (told[3]["response"]["id"], told[3]["response"]["status"]) == ("q", "in_progress")
    assert told[8]["response"]["metadata"] == {"a": "b"}
    for event in (told[1], told[2], told[3], told[8]):
        check_server(event)


@pytest.mark.parametrize("dialect", Dialect)
def test_a_response_that_crosses_with_the_callers_words_does_not_end_the_turn(dialect: Dialect) -> None:
    """Servers that announce their responses say for themselves when a turn ends."""
    told = from_beta(
        {"type": "input_audio_buffer.speech_started", "item_id": "u"},
        {"type": "response.created", "response": {"id": "q"}},
        {"type": "response.output_audio.delta", "response_id": "q", "item_id": "i", "delta": "AAAA"},
        {"type": "response.done", "response": {"id": "q"}},
        {"type": "input_audio_buffer.speech_stopped", "item_id": "u"},
        dialect=dialect,
    )
    assert [event["type"].rpartition(".")[2] for event in told] == [
        "speech_started",
        "created",
        "delta",
        "done",
        "speech_stopped",
    ]


def test_two_responses_with_audio_at_the_same_time() -> None:
    """One of them is out of band (section 3.9)."""
    translator = at_a_response(Dialect.GA)
    translator.from_server(b'{"type":"response.created","response":{"id":"q"}}')
    for response_id in (b"r", b"q", b"r", b"q"):
        delta = b'{"type":"response.output_audio.delta","response_id":"' + response_id + b'","delta":"AAAA"}'
        assert list(translator.from_server(delta)) == [delta]


def test_a_ga_server_with_betas_one_event_for_items() -> None:
    """Hugging Face's speech-to-speech (section 9)."""
    item = {"id": "i", "type": "message", "role": "assistant", "content": [{"type": "text", "text": "Hi"}]}
    told = from_beta({"type": "conversation.item.created", "item": item}, dialect=Dialect.GA)
    assert [event["type"] for event in told] == ["conversation.item.added", "conversation.item.done"]
    assert told[0]["item"]["content"] == [{"type": "output_text", "text": "Hi"}]


@pytest.mark.parametrize("dialect", Dialect)
@pytest.mark.parametrize(
    "message",
    [
        b"hello",
        b"[1]",
        b'{"type":3}',
        b'{"type":"response.output_item.done","item":',
        b'{"type":"response.output_item.done","item":"x"}',
        b'{"type":"conversation.item.created","item":{"role":"assistant","content":["x"]}}',
    ],
)
def test_what_is_no_event_is_the_servers_fault(message: bytes, dialect: Dialect) -> None:
    with pytest.raises(ModelProtocolError):
        Translator(dialect).from_server(message)
