"""One of our processes, which a test starts, kills and starts again, and whose log it reads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from asterisk.exchange import ROOT
from asterisk.line import until

# Python and numpy from a busy disk.
START_S = 30.0


class Program:
    """One of our processes over all its lives; its log lines (JSON, of both outputs) are kept."""

    def __init__(self, name: str, folder: Path, command: Sequence[str], ready: str) -> None:
        self.name, self._command, self._ready = name, [sys.executable, *command], ready
        self.folder = folder
        self._log = folder / f"{name}.log"
        self._read, self._told = 0, list[dict[str, Any]]()
        self.popen: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        """A new life, until the process says that it is ready."""
        begun = len(self.told())
        self._begin()
        await self.tells(self._ready, since=begun, within_s=START_S)

    def _begin(self) -> None:
        inherited = {key: it for key, it in os.environ.items() if not key.startswith(("BRIDGE_", "OPENAI_"))}
        path = f"{ROOT}:{ROOT / 'tests'}"
        with self._log.open("ab") as output:
            self.popen = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                cwd=self.folder,
                env=inherited | {"PYTHONPATH": path},
            )

    def told(self, event: str = "", since: int = 0) -> list[dict[str, Any]]:
        """The lines from number `since` on whose event begins like this."""
        if self._log.exists():
            with self._log.open("rb") as log:
                log.seek(self._read)
                whole, _, _ = log.read().rpartition(b"\n")
            self._read += len(whole) + 1 if whole else 0
            self._told += [json.loads(line) for line in whole.splitlines() if line.startswith(b"{")]
        return [line for line in self._told[since:] if str(line.get("event", "")).startswith(event)]

    async def tells(self, event: str, n: int = 1, *, since: int = 0, within_s: float = 10.0) -> dict[str, Any]:
        """The n-th such line; waits for it."""
        await until(
            lambda: len(self.told(event, since)) >= n, within_s, lambda: f"{self.name}: {event!r}\n{self.text()}"
        )
        return self.told(event, since)[n - 1]

    def text(self) -> str:
        """The whole log."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def write(self, line: str) -> None:
        """To its standard input."""
        assert self.popen is not None
        assert self.popen.stdin is not None
        self.popen.stdin.write(line.encode() + b"\n")
        self.popen.stdin.flush()

    def signal(self, number: int) -> None:
        assert self.popen is not None
        self.popen.send_signal(number)

    def kill(self) -> None:
        """SIGKILL: no farewell, no last word. Returns when the process is gone."""
        assert self.popen is not None
        self.popen.kill()
        self.popen.wait()
        if self.popen.stdin is not None:
            self.popen.stdin.close()

    async def ends(self, within_s: float) -> int:
        """Wait for its end; its exit status."""
        popen = self.popen
        assert popen is not None
        await until(lambda: popen.poll() is not None, within_s, lambda: f"{self.name} has not ended\n{self.text()}")
        if popen.stdin is not None:
            popen.stdin.close()
        return popen.returncode

    def remove(self) -> None:
        """Gone, whatever it was."""
        if self.popen is not None:
            self.kill()
