"""The clients printed on the WaaV gateway's page, and our example, at the bridge as served. Real time, real sockets."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import wave
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from bridge.config import load_config
from bridge.server import Ready, serve
from simulators.model_script import Pace
from simulators.model_voice import Phrasebook
from simulators.realtime_server import RealtimeServer

ROOT = Path(__file__).parent.parent
CLIENTS = Path(__file__).parent / "gateway_clients"
ASKED, ANSWERED = "interrupt_saturday", "hours_saturday"


@asynccontextmanager
async def served() -> AsyncIterator[tuple[int, RealtimeServer]]:
    """The gateway's port, and the model behind it."""
    model = RealtimeServer(Phrasebook.load(Pace(first_ms=100)))
    async with trio.open_nursery() as nursery:
        model_port = await model.listen_on_tcp(nursery)
        settings = {
            "realtime.url": f"ws://127.0.0.1:{model_port}/v1/realtime",
            "realtime.api_key": "any",
            "asterisk.enabled": "false",
            "server.audiosocket_port": "0",
            "server.max_lateness_ms": "0",  # a busy machine is no reason here
            "server.health_address": "",
            "records.url": "",
            "server.control_address": "",
            "gateway.enabled": "true",
            "gateway.address": "127.0.0.1:0",
        }
        ready: Ready = await nursery.start(serve_quietly, settings)
        yield ready.gateway_port, model
        nursery.cancel_scope.cancel()
    assert not model.problems


async def serve_quietly(settings: dict[str, str], task_status: trio.TaskStatus[Ready]) -> None:
    await serve(load_config("", {}, settings), task_status=task_status)


async def run(command: list[str], **environ: str) -> str:
    with trio.fail_after(40):
        done = await trio.run_process(
            command,
            capture_stdout=True,
            capture_stderr=True,
            check=False,
            env={**os.environ, "PYTHONPATH": str(ROOT), **environ},
        )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


async def test_the_printed_clients_and_the_example_work_unchanged(tmp_path: Path) -> None:
    """All at once, since they speak and listen in real time."""
    phrases = Phrasebook.load().phrases
    asked, answer = phrases[ASKED], phrases[ANSWERED]
    speech = tmp_path / "speech.pcm"
    speech.write_bytes(asked.pcm + bytes(48 * 900))
    told: dict[str, list[str]] = {}
    commands = {
        "python": [sys.executable, str(CLIENTS / "python_host.py")],
        "typescript": ["node", "--experimental-websocket", "--no-warnings", str(CLIENTS / "typescript_host.mjs")],
    }
    if shutil.which("node") is None or not has_websocket():
        del commands["typescript"]
    async with served() as (port, model):

        async def talk(name: str) -> None:
            arguments = [str(port), str(speech), str(tmp_path / name), str(len(answer.pcm))]
            told[name] = (await run([*commands[name], *arguments])).splitlines()

        async def example() -> None:
            command = [sys.executable, str(ROOT / "examples/gateway/client.py"), ASKED, str(tmp_path / "answer.wav")]
            told["example"] = (await run(command, GATEWAY_URL=f"ws://127.0.0.1:{port}/realtime")).splitlines()

        async with trio.open_nursery() as nursery:
            for name in commands:
                nursery.start_soon(talk, name)
            nursery.start_soon(example)
        updates = [event["session"] for event in model.received_events("session.update")]
    for name in commands:
        heard = (tmp_path / name).read_bytes()
        assert same_speech(heard, answer.pcm), f"{name} heard something else than was said"
    assert told["python"][0] == "Session ready!"
    assert f"[user] {asked.text}" in told["python"]
    assert f"[assistant] {answer.text}" in told["python"]
    if "typescript" in commands:
        assert told["typescript"][:2] == ["Session ready!", "speaks at 24000"]
        assert f"[user] {asked.text}" in told["typescript"]
        assert f"[assistant] {answer.text}" in told["typescript"]
        assert told["typescript"][-1] == "closed 1000"
    assert told["example"] == [f"[user] {asked.text}", f"[assistant] {answer.text}"]
    with wave.open(str(tmp_path / "answer.wav"), "rb") as file:
        assert same_speech(file.readframes(file.getnframes()), answer.pcm)
    assert {update["audio"]["output"]["voice"] for update in updates} == {"marin"}, "there is no nova"
    assert all("helpful assistant" in update["instructions"] for update in updates)
    assert len(updates) == len(commands) + 1


def same_speech(heard: bytes, said: bytes) -> bool:
    """Sample for sample, but for the padding of the last frame."""
    return heard[: len(said)] == said and not any(heard[len(said) :])


def test_node_is_there_for_the_typescript_client() -> None:
    """Else the test above went without it."""
    if shutil.which("node") is None or not has_websocket():
        pytest.skip("needs node 20.10 or later for the TypeScript client")


def has_websocket() -> bool:
    command = ["node", "--experimental-websocket", "-p", "typeof WebSocket"]
    return subprocess.run(command, capture_output=True, check=False).stdout.strip() == b"function"


def test_the_printed_clients_are_those_of_the_page() -> None:
    """As they were printed: nobody has made them easier."""
    python = (CLIENTS / "printed_python.txt").read_text(encoding="utf-8")
    assert "uri = 'ws://localhost:3001/realtime'" in python
    assert "'voice': 'nova'" in python
    assert "asyncio.run(realtime_session())" in python
    typescript = (CLIENTS / "printed_typescript.txt").read_text(encoding="utf-8")
    assert "createRealtimeConfig('openai', {" in typescript
    assert "new AudioContext({ sampleRate: 24000 })" in typescript
