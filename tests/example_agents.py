"""What tests of the agents in `examples/` share: a model that uses their tools, and their services as processes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from simulators.model_script import Call, Conversation, Part, Say

EXAMPLES = Path(__file__).parent.parent / "examples"
ORDERS_SECRET = "the-secret-of-orders"


class Repeats:
    """A model that calls these tools one after the other, and says what each has answered."""

    def __init__(self, *calls: Call) -> None:
        self._calls = list(calls)
        self.offered: list[str] = []

    def answer(self, conversation: Conversation) -> Sequence[Part]:
        self.offered = [str(tool.get("name")) for tool in conversation.tools]
        last = conversation.items[-1] if conversation.items else None
        told = [Say(last.text, ms=200)] if last is not None and last.type == "function_call_output" else []
        return [*told, *([self._calls.pop(0)] if self._calls else [])]

    def transcribe(self, pcm: bytes) -> str | None:
        return None


@contextmanager
def running(script: Path) -> Iterator[str]:
    """A service of the examples as a process; its port."""
    environment = os.environ | {"ORDERS_SECRET": ORDERS_SECRET}
    command = [sys.executable, str(script), "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().split()[-1]
        finally:
            process.kill()
