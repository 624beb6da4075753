"""The real Asterisk from outside: ARI by HTTP, the command line, and the log of its dialplan's steps."""

from __future__ import annotations

import base64
import json
import subprocess
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
RECORDINGS = ROOT / "build" / "recordings"
_ACCOUNT = "Basic " + base64.b64encode(b"bridge:bridge").decode()


@dataclass(frozen=True)
class Step:
    """One step of the dialplan (`asterisk/etc/extensions.conf` says how they are logged)."""

    test_id: str
    linked_id: str
    name: str
    details: str
    reason: str
    end_detail: str


@dataclass(frozen=True)
class Exchange:
    """One Asterisk in a container of this machine; by default that of `make asterisk-up`, which all tests share.

    `recordings` is its /recordings as this process sees it.
    """

    container: str = "realtime-bridge-asterisk"
    http_port: int = 8088
    recordings: Path = RECORDINGS

    @property
    def url(self) -> str:
        """What `asterisk.url` is to be."""
        return f"ws://127.0.0.1:{self.http_port}"

    def ari(self, method: str, uri: str, body: object = None) -> Any:
        """One request; blocks, so call it in a thread. Returns the JSON of the answer. Raises `HTTPError`, `URLError`."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json", "Authorization": _ACCOUNT}
        place = f"http://127.0.0.1:{self.http_port}/ari/{uri}"
        request = urllib.request.Request(place, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                text = answer.read()
        except urllib.error.HTTPError as error:
            error.close()  # it holds the connection
            raise
        return json.loads(text) if text else None

    def ari_bytes(self, uri: str) -> bytes:
        """The body of a GET as it is: a recording. Blocks. Raises as `ari`."""
        place = f"http://127.0.0.1:{self.http_port}/ari/{uri}"
        request = urllib.request.Request(place, headers={"Authorization": _ACCOUNT})
        with urllib.request.urlopen(request, timeout=5) as answer:
            return bytes(answer.read())

    def command(self, text: str) -> str:
        """What Asterisk's command line answers; blocks. Takes 0.15 s, so not for things that ARI knows."""
        asked = ["docker", "exec", self.container, "asterisk", "-rx", text]
        return subprocess.run(asked, capture_output=True, text=True, check=True, timeout=20).stdout

    @property
    def _steps(self) -> Path:
        return self.recordings / "steps.log"

    def steps_size(self) -> int:
        """Where the log ends now: Asterisk keeps it open, so others' steps before this stay in it."""
        return self._steps.stat().st_size if self._steps.exists() else 0

    def steps_since(self, position: int) -> list[Step]:
        """The steps of all calls that were logged after `position`."""
        with self._steps.open("rb") as log:
            log.seek(position)
            lines = log.read().decode(errors="replace").splitlines()
        return [step for line in lines if (step := _parsed(line)) is not None]


def _parsed(line: str) -> Step | None:
    try:
        message = str(json.loads(line)["logmsg"]["message"]).strip()
    except (ValueError, KeyError, TypeError):
        return None  # Asterisk's own lines, or one that is being written
    words, _, ending = message.partition(" reason=")
    kind, *fields = words.split(maxsplit=4)
    if kind != "step" or len(fields) < 3:
        return None
    reason, _, detail = ending.partition(" detail=")
    details = fields[3] if len(fields) > 3 else ""
    return Step(fields[0], fields[1], fields[2], details, reason, detail)


SHARED = Exchange()
ari, command = SHARED.ari, SHARED.command
steps_size, steps_since = SHARED.steps_size, SHARED.steps_since
