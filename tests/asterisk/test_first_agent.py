"""The README's "Your first own agent", pasted as a new user does: its files and commands, a real Asterisk, no real model.

What is changed of the text: ports, the ARI password, the dialplan context, and that `asterisk` is the container's.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from asterisk.exchange import ROOT, SHARED, ari
from asterisk.line import free_port, new_test_id

pytestmark = pytest.mark.asterisk

README = (ROOT / "README.md").read_text(encoding="utf-8")
SECTION = README.split("## Your first own agent\n")[1].split("\n## ")[0]
STARTS, PLACES, READS = re.findall(r"```sh\n(.*?)```", SECTION, re.DOTALL)


def files() -> dict[str, str]:
    """Each file of the section, by the name that the words before it give."""
    found = re.findall(r"`([\w.]+)`:\n\n```(?:python|toml)\n(.*?)```", SECTION, re.DOTALL)
    assert [name for name, _ in found] == ["shop.py", "hooks.py", "bridge.toml"]
    return dict(found)


class Terminal:
    """A folder with the files of the section, and the commands of a shell in it."""

    def __init__(self, folder: Path, test_id: str) -> None:
        self.folder = folder
        self.app, self.context = f"bridge-{test_id}", f"first-agent-{test_id}"
        media, self.hooks_port, model = free_port(), free_port(), free_port()
        self._changes = {
            "8765": str(model),
            "8080": str(self.hooks_port),
            "simulate ": f"simulate --port {model} ",
            "CHANGE-ME": "bridge",
            "@internal": f"@{self.context}",
        }
        programs = folder / "bin"
        programs.mkdir()
        self._program(programs / "realtime-bridge", f'exec "{sys.executable}" -m bridge "$@"')
        self._program(programs / "python3", f'exec "{sys.executable}" "$@"')
        self._program(programs / "asterisk", f'exec docker exec {SHARED.container} asterisk "$@"')
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("BRIDGE_", "OPENAI_"))}
        self._environment = kept | {
            "PATH": f"{programs}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "BRIDGE_ARI_APP": self.app,
            "BRIDGE_AUDIOSOCKET_PORT": str(media),
            "BRIDGE_MEDIA_ADDRESS": f"127.0.0.1:{media}",
            "BRIDGE_HEALTH_ADDRESS": "",
            "BRIDGE_CONTROL_ADDRESS": "127.0.0.1:0",
        }
        self.shown = folder / "terminal.log"
        for name, text in files().items():
            (folder / name).write_text(self._changed(text), encoding="utf-8")

    @staticmethod
    def _program(path: Path, command: str) -> None:
        path.write_text(f"#!/bin/sh\n{command}\n", encoding="utf-8")
        path.chmod(0o755)

    def _changed(self, text: str) -> str:
        for old, new in self._changes.items():
            text = text.replace(old, new)
        return text

    def run(self, commands: str) -> str:
        """What these print."""
        asked = ["bash", "-e", "-c", self._changed(commands)]
        done = subprocess.run(
            asked, cwd=self.folder, env=self._environment, capture_output=True, text=True, check=False, timeout=15
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    @contextmanager
    def running(self, commands: str) -> Iterator[None]:
        """These go on, in the background of the block; SIGTERM for all of them at its end."""
        with self.shown.open("w", encoding="utf-8") as shown:
            process = subprocess.Popen(
                ["bash", "-c", self._changed(commands)],
                cwd=self.folder, env=self._environment, stdout=shown, stderr=shown, start_new_session=True,
            )  # fmt: skip
        try:
            yield
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(10)

    def shows(self, words: str, within_s: float) -> str:
        """Wait until the running commands have printed this; all that they have printed."""
        until = time.monotonic() + within_s
        while words not in (shown := self.shown.read_text(encoding="utf-8")):
            assert time.monotonic() < until, f"no {words!r} in:\n{shown}"
            time.sleep(0.05)
        return shown


@contextmanager
def dialplan(context: str, app: str) -> Iterator[None]:
    """The first lines of the README's dialplan, for as long as the block."""
    SHARED.command(f"dialplan add extension 100,1,Ringing, into {context}")
    SHARED.command(f"dialplan add extension 100,2,Stasis,{app} into {context}")
    try:
        yield
    finally:
        SHARED.command(f"dialplan remove context {context}")


def answer_of(port: int, body: bytes, headers: Mapping[str, str]) -> int:
    """The status that the hook of the README gives to this request."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}", body, dict(headers))
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


def test_the_first_own_agent_of_the_readme(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path, new_test_id())
    starts = STARTS.replace("$(openssl rand -hex 24)", "a-secret-of-this-test")
    assert "a-secret-of-this-test" in starts
    with dialplan(terminal.context, terminal.app), terminal.running(starts):
        terminal.shows("ARI connected", within_s=10)
        terminal.shows("Realtime simulator ready", within_s=10)
        terminal.run(PLACES)
        told = terminal.shows("HOOK ", within_s=20)
        assert "HOOK call.action agent_hung_up ['opening_hours', 'hang_up']" in told
        assert told.split("HOOK ")[1].splitlines()[0] in SECTION
        listed, _, page = terminal.run(READS).partition("\nCall ")
        assert "agent_hung_up" in listed.splitlines()[1]
        ended, tool, words = [re.search(it, page) for it in (
            r"ended +agent_hung_up: the simulated call is complete\n",
            r'tool +opening_hours \{"day": "saturday"\} -> 7 to 13 \(',
            r"agent +Hello, .*\n.* opening_hours .*\n(?:.*\n)?.*agent +7 to 13\n",
        )]  # fmt: skip
        assert ended and tool and words, page  # noqa: PT018 - the page says which is missing
        # The hook believes who can sign, and nobody else.
        body = json.dumps({"type": "doctor"}).encode()
        head = {"webhook-id": "m1", "webhook-timestamp": str(int(time.time()))}
        signed = f"m1.{head['webhook-timestamp']}.".encode() + body
        digest = hmac.digest(b"a-secret-of-this-test", signed, hashlib.sha256)
        true = head | {"webhook-signature": "v1," + base64.b64encode(digest).decode()}
        assert answer_of(terminal.hooks_port, body, true) == 200
        assert answer_of(terminal.hooks_port, body + b" ", true) == 401
        assert answer_of(terminal.hooks_port, body, head) == 401
    assert not [it for it in ari("GET", "channels") if terminal.context in it["name"]]
