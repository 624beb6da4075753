"""The published JS reference client converses with the simulator in the beta dialect: text, speech, a tool, VAD, a cut.

Not ours to ship: `REALTIME_JS_CLIENT` names a folder with a copy of github.com/openai/openai-realtime-api-beta in which
`npm install ws` has been run. Without it these tests are skipped, and `test_realtime_beta.py` asks the same of the server.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import trio

from simulators.model_script import Call, Pace, Say, Script
from simulators.realtime_server import RealtimeServer

HERE = Path(__file__).parent / "js"
CLIENT = os.environ.get("REALTIME_JS_CLIENT", "")
HOME = str(Path(CLIENT).resolve())

pytestmark = pytest.mark.skipif(
    not CLIENT or shutil.which("node") is None,
    reason="needs node, and REALTIME_JS_CLIENT=<folder of openai-realtime-api-beta with `npm install ws` done>",
)


async def converse(server: RealtimeServer, path: str, key: str) -> tuple[int, list[dict[str, Any]]]:
    """The exit status of `converse.mjs`, and what it told."""
    async with trio.open_nursery() as nursery:
        port = await server.listen_on_tcp(nursery)
        environ = os.environ | {"REALTIME_JS_CLIENT": HOME, "REALTIME_URL": f"ws://127.0.0.1:{port}/v1/realtime"}
        command = ["node", "--import", str(HERE / "redirect.mjs"), str(HERE / "converse.mjs"), path, key]
        with trio.fail_after(30):
            run = await trio.run_process(command, env=environ, capture_stdout=True, check=False)
        nursery.cancel_scope.cancel()
    return run.returncode, [json.loads(line) for line in run.stdout.splitlines()]


@pytest.mark.parametrize("path", ["node", "browser"])
async def test_the_published_client_is_told_of_a_wrong_key(path: str) -> None:
    status, told = await converse(RealtimeServer(key="sk-js", beta=True), path, "sk-wrong")
    assert status == 3
    assert "Incorrect API key provided" in told[0]["error"]["message"]


@pytest.mark.parametrize("path", ["node", "browser"])
async def test_the_published_client_holds_a_conversation(path: str) -> None:
    script = Script.of(
        Say("Very well, thank you.", ms=400),
        Say("I have heard you.", ms=300),
        Call("get_weather", {"city": "Paris"}),
        Say("The sky is clear.", ms=200),
        Say("That was your turn.", ms=200),
        Say("A very long story.", ms=20_000, pace=Pace(speed=2)),
        transcripts=["a tone", "another tone"],
    )
    server = RealtimeServer(script, key="sk-js", beta=True)
    status, told = await converse(server, path, "sk-js")
    assert status == 0, told
    assert not [fact for fact in told if "error" in fact]
    assert not server.problems
    turns = {fact["turn"]: fact for fact in told if "turn" in fact}
    asked = turns["asked"]
    assert (asked["role"], asked["status"], asked["text"]) == ("user", "completed", "How are you?")
    for turn, words, ms in (
        ("text", "Very well, thank you.", 400),
        ("audio", "I have heard you.", 300),
        ("tool", "The sky is clear.", 200),
        ("vad", "That was your turn.", 200),
    ):
        answer = turns[turn]
        assert (answer["role"], answer["status"], answer["transcript"]) == ("assistant", "completed", words)
        assert answer["samples"] == 24 * ms
    assert turns["spoke"]["samples"] == 24 * 500
    assert turns["heard"]["transcript"] == "another tone"
    # The client cuts its copy of the audio by the server's clock, but forgot the first 500 ms when it committed them.
    assert turns["heard"]["samples"] > 0
    assert (turns["cut"]["transcript"], turns["cut"]["samples"]) == ("", 2400)
    (summary,) = [fact for fact in told if "kinds" in fact]
    assert summary["kinds"][:3] == ["client.session.update", "server.session.created", "server.session.updated"]
    assert "client.input_audio_buffer.commit" in summary["kinds"]

    (output,) = [item for item in server.session.items if item.type == "function_call_output"]
    assert json.loads(output.text) == {"city": "Paris", "sky": "clear"}
    assert script.missed == 0
    assert not script.answers
