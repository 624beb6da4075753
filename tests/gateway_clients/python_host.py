"""Runs the Python client of the WaaV gateway's page, word for word, as a program of its own.

    python python_host.py PORT SPEECH HEARD BYTES

The page leaves open how audio is sent and played, and its port is fixed. So here are `play_audio`, which writes what comes
to the file HEARD, a `print` that starts to send the file SPEECH (PCM16, 24 kHz) when the client says that its session is
ready, and a `websockets.connect` that goes to PORT. When BYTES of audio have come the connection is closed.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import websockets

PORT, SPEECH, HEARD, BYTES = sys.argv[1], Path(sys.argv[2]).read_bytes(), Path(sys.argv[3]), int(sys.argv[4])
PRINTED = Path(__file__).parent / "printed_python.txt"
real_connect = websockets.connect


class Host:
    """What the client finds around it."""

    def __init__(self) -> None:
        self.connection: Any = None
        self.tasks: list[asyncio.Task[None]] = []
        self.heard = bytearray()

    def connect(self, uri: str) -> Host:
        self._joining = real_connect(uri.replace("3001", PORT))
        return self

    async def __aenter__(self) -> Any:
        self.connection = await self._joining.__aenter__()
        return self.connection

    async def __aexit__(self, *error: Any) -> None:
        await self._joining.__aexit__(*error)

    async def speak(self) -> None:
        """In pieces of odd sizes, four times as fast as real time."""
        for start in range(0, len(SPEECH), 4001):
            await self.connection.send(SPEECH[start : start + 4001])
            await asyncio.sleep(0.02)

    async def play_audio(self, pcm: bytes) -> None:
        self.heard += pcm
        if len(self.heard) >= BYTES:
            self.tasks.append(asyncio.create_task(self.connection.close()))

    def print(self, text: str) -> None:
        print(text, flush=True)
        if text == "Session ready!":
            self.tasks.append(asyncio.create_task(self.speak()))


host = Host()
websockets.connect = host.connect  # type: ignore[assignment,misc]
exec(
    compile(PRINTED.read_text(encoding="utf-8"), PRINTED.name, "exec"),
    {"play_audio": host.play_audio, "print": host.print, "__name__": "__main__"},
)
HEARD.write_bytes(host.heard)
