"""The Realtime vocabulary: what we send passes the official SDK's types, what comes in is judged as the sheet says."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from sdk_types import CLIENT, check

from bridge import call_tools, realtime
from bridge.config import Agent, Destination, TurnDetection
from bridge.errors import ModelError, ModelLost, ModelProtocolError, ModelRejected, ModelUnreachable
from bridge.history import message_item, output_item
from bridge.realtime import Verdict

AGENTS = {
    "default": Agent(),
    "semantic": Agent(turn_detection=TurnDetection(type="semantic_vad", eagerness="high")),
    "quiet": Agent(transcription_model="", noise_reduction="far_field", max_output_tokens=400),
    "french": Agent(transcription_language="fr", transfers={"a": Destination(to="1"), "b": Destination(to="2")}),
}


@pytest.mark.parametrize("name", AGENTS)
def test_the_session_update_is_what_the_official_types_accept(name: str) -> None:
    agent = AGENTS[name]
    event = json.loads(realtime.session_update(agent, call_tools.declarations(agent)))
    check(event, CLIENT)
    assert event["session"]["type"] == "realtime"
    detection = event["session"]["audio"]["input"]["turn_detection"]
    assert ("silence_duration_ms" in detection) == (detection["type"] == "server_vad")


@pytest.mark.parametrize(
    "payload",
    [
        realtime.append_audio(b"\x01\x02" * 480),
        realtime.create_response(),
        realtime.create_response({"instructions": "Say hello."}),
        realtime.truncate_item("item_1", 0, 1480),
        realtime.delete_item("item_1"),
        realtime.create_item(output_item("call_1", '{"ok":true}')),
        realtime.create_item(message_item("user", "(The caller pressed these keys: 1)", "bridge-1"), "root"),
        realtime.create_item(message_item("assistant", "Hello.")),
        realtime.update_session({"audio": {"output": {"speed": 1.1}}}),
        realtime.commit_audio(),
        realtime.clear_audio(),
    ],
)
def test_everything_that_we_send_passes_the_official_types(payload: bytes) -> None:
    check(json.loads(payload), CLIENT)


def test_audio_survives_the_trip() -> None:
    pcm = bytes(range(256)) * 3
    assert base64.b64decode(json.loads(realtime.append_audio(pcm))["audio"]) == pcm
    delta = {"type": "response.output_audio.delta", "response_id": "r", "item_id": "i", "delta": ""}
    event = realtime.parse_server_event(json.dumps(delta | {"delta": base64.b64encode(pcm).decode()}))
    assert isinstance(event, realtime.AudioDelta)
    assert event.delta == pcm


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        ({"code": "invalid_api_key"}, Verdict.FATAL),
        ({"code": "session_expired"}, Verdict.FATAL),
        ({"type": "insufficient_quota", "code": None}, Verdict.FATAL),
        ({"type": "server_error", "code": None}, Verdict.RETRYABLE),
        ({"code": "rate_limit_exceeded"}, Verdict.RETRYABLE),
        ({"code": "inference_rate_limit_exceeded"}, Verdict.RETRYABLE),
        ({"code": "response_cancel_not_active"}, Verdict.BENIGN),
        ({"code": "conversation_already_has_active_response"}, Verdict.BENIGN),
        ({"code": "cannot_update_voice"}, Verdict.BENIGN),
        ({"code": None, "message": "Only model output audio messages can be truncated"}, Verdict.BENIGN),
    ],
)
def test_errors_are_judged_by_code(error: dict[str, Any], verdict: Verdict) -> None:
    event = realtime.parse_server_event(json.dumps({"type": "error", "error": error}))
    assert isinstance(event, realtime.ErrorEvent)
    assert realtime.triage(event.error) is verdict


@pytest.mark.parametrize(
    ("code", "reason", "established", "kind", "word"),
    [
        (3000, "invalid_request_error.invalid_api_key", False, ModelRejected, "invalid_api_key"),
        (4004, "invalid_request_error.model_not_found", False, ModelRejected, "model_not_found"),
        (1013, "insufficient_quota.insufficient_quota", False, ModelRejected, "insufficient_quota"),
        (1008, "", False, ModelRejected, "1008"),
        (1011, "", False, ModelUnreachable, "1011"),
        (None, "", False, ModelUnreachable, None),
        (1000, "", True, ModelLost, "1000"),
        (1001, "Your session hit the maximum duration of 60 minutes.", True, ModelLost, "1001"),
        (None, "", True, ModelLost, None),
    ],
)
def test_closes_become_our_errors(
    code: int | None, reason: str, established: bool, kind: type[ModelError], word: str | None
) -> None:
    error = realtime.error_of_close(code, reason, established=established)
    assert type(error) is kind
    assert error.code == word


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, ModelRejected),
        (401, ModelRejected),
        (404, ModelRejected),
        (429, ModelUnreachable),
        (503, ModelUnreachable),
    ],
)
def test_http_refusals_become_our_errors(status: int, kind: type[ModelError]) -> None:
    assert type(realtime.error_of_http_status(status)) is kind


def test_a_session_with_another_format_is_refused() -> None:
    def session(audio_format: object) -> dict[str, Any]:
        pcm = {"type": "audio/pcm", "rate": 24000}
        return {"audio": {"input": {"format": pcm}, "output": {"format": audio_format}}}

    realtime.check_effective_session(session({"type": "audio/pcm", "rate": 24000}))
    realtime.check_effective_session({})
    for wrong in ({"type": "audio/pcmu"}, {"type": "audio/pcm", "rate": 16000}):
        with pytest.raises(ModelRejected, match="audio output"):
            realtime.check_effective_session(session(wrong))


def test_nonsense_is_the_models_fault() -> None:
    for message in ("", "null", '{"type":"response.output_audio.delta","response_id":"r","item_id":"i","delta":"%"}'):
        with pytest.raises(ModelProtocolError):
            realtime.parse_server_event(message)
