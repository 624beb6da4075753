"""The Realtime vocabulary: what we send passes the official SDK's types, what comes in is judged as the sheet says."""

from __future__ import annotations

import base64
import json

import pytest
from sdk_types import CLIENT, check

from bridge import call_tools, realtime
from bridge.agent import Agent, TurnDetection
from bridge.destinations import Destination
from bridge.errors import ModelProtocolError
from bridge.history import message_item, output_item

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


def test_nonsense_is_the_models_fault() -> None:
    for message in ("", "null", '{"type":"response.output_audio.delta","response_id":"r","item_id":"i","delta":"%"}'):
        with pytest.raises(ModelProtocolError):
            realtime.parse_server_event(message)
