"""`docs/library.md` can be copied: its commands run, its program is the example; the other examples run too. Real time."""

from __future__ import annotations

import math
import os
import re
import shlex
import subprocess
import sys
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import trio

import bridge
from bridge.realtime_session import RealtimeSession
from simulators.model_script import Pace
from simulators.model_voice import Phrasebook
from simulators.realtime_server import RealtimeServer

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs/library.md").read_text(encoding="utf-8")
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
SECONDS = 30  # a bound for a busy machine


def documented(command: str, port: int) -> tuple[list[str], dict[str, str]]:
    """The indented command of the page that contains `command`, as arguments and environment, at another port."""
    (line,) = re.findall(rf"^    (.*{re.escape(command)}.*)$", PAGE, re.MULTILINE)
    words = shlex.split(line.replace("8765", str(port)))
    settings = dict(word.split("=", 1) for word in words[: words.index("python")])
    return [sys.executable, *words[words.index("python") + 1 :]], {**ENVIRONMENT, **settings}


@contextmanager
def simulator() -> Iterator[int]:
    """The simulator as the page starts it; its port."""
    arguments, environment = documented("simulators.realtime_server", 0)
    with subprocess.Popen(arguments, env=environment, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        try:
            assert process.stdout is not None
            yield int(re.findall(r":(\d+)/", process.stdout.readline())[0])
        finally:
            process.terminate()


def test_the_documented_commands_give_the_documented_answer() -> None:
    with simulator() as port:
        arguments, environment = documented("examples/ask.py", port)
        told = subprocess.run(
            arguments, env=environment, capture_output=True, text=True, timeout=SECONDS, check=True, cwd=ROOT
        )
    assert told.stdout.startswith("Of course. On Monday and Tuesday we are open from nine to five")


def test_the_program_of_the_page_is_the_example() -> None:
    (program,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    example = (ROOT / "examples/ask.py").read_text(encoding="utf-8")
    assert example.partition("\n\n")[2] == program


def test_the_tools_of_the_example_run() -> None:
    told = subprocess.run(
        [sys.executable, "examples/tools.py", "--simulated"],
        env=ENVIRONMENT, capture_output=True, text=True, timeout=SECONDS, check=True, cwd=ROOT,
    )  # fmt: skip
    assert '  set_memory {"key": "name", "value": "Ada"}\n  -> done\nassistant: Nice to meet you, Ada.' in told.stdout
    assert told.stdout.count("celsius") == 2
    assert told.stdout.endswith("assistant: In Oslo: three degrees against nineteen.\n")


async def test_the_voice_example_writes_what_it_was_answered(tmp_path: Path) -> None:
    book = Phrasebook.load(Pace(speed=math.inf, first_ms=400))
    async with trio.open_nursery() as nursery:
        port = await RealtimeServer(book).listen_on_tcp(nursery)
        told = await trio.run_process(
            [sys.executable, "examples/voice.py", "ask_hours", str(tmp_path / "answer.wav")],
            env={**ENVIRONMENT, "BRIDGE_REALTIME_URL": f"ws://127.0.0.1:{port}/v1/realtime", "OPENAI_API_KEY": "any"},
            cwd=ROOT, capture_stdout=True,
        )  # fmt: skip
        nursery.cancel_scope.cancel()
    said = told.stdout.decode()
    assert f"user: {book.phrases['ask_hours'].text}\n" in said
    assert f"assistant: {book.phrases['hours_long'].text}\n" in said
    with wave.open(str(tmp_path / "answer.wav")) as file:
        assert file.getframerate() == 24_000
        assert file.readframes(file.getnframes()) == book.phrases["hours_long"].pcm


def test_every_method_is_on_the_page_and_every_one_on_the_page_exists() -> None:
    table = PAGE[PAGE.index("## Methods") : PAGE.index("**Audio**")] + PAGE[PAGE.index("## Streams") :]
    named = {name for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for name in re.findall(r"`(\w+)", row)}
    public = {name for name in dir(RealtimeSession) if not name.startswith("_")}
    errors = {name for name in named if name in (*bridge.__all__, "ValueError")}
    assert named - errors == public | {"conversation"}


def test_every_kind_of_change_is_on_the_page() -> None:
    assert [kind.value for kind in bridge.ChangeKind if f"`{kind.value}`" not in PAGE] == []
