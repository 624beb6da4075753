"""What the server's errors, closes and refusals mean for us, as the protocol sheet says."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bridge import realtime, realtime_errors
from bridge.errors import ModelError, ModelLost, ModelRejected, ModelUnreachable
from bridge.realtime_errors import Verdict


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
    assert realtime_errors.triage(event.error) is verdict


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
    error = realtime_errors.error_of_close(code, reason, established=established)
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
    assert type(realtime_errors.error_of_http_status(status)) is kind


def test_a_session_with_another_format_is_refused() -> None:
    def session(audio_format: object) -> dict[str, Any]:
        pcm = {"type": "audio/pcm", "rate": 24000}
        return {"audio": {"input": {"format": pcm}, "output": {"format": audio_format}}}

    realtime_errors.check_effective_session(session({"type": "audio/pcm", "rate": 24000}))
    realtime_errors.check_effective_session({})
    for wrong in ({"type": "audio/pcmu"}, {"type": "audio/pcm", "rate": 16000}):
        with pytest.raises(ModelRejected, match="audio output"):
            realtime_errors.check_effective_session(session(wrong))
