"""An Asterisk of the tests' own, to be killed: the same image as the shared one, beside it, on ports of its own.

    victim.start()              # docker create, the configuration of this checkout copied in, docker start
    victim.kill()               # SIGKILL: what a crash or the kernel does
    victim.start()              # the same container again: a new Asterisk that knows of no call

Everything here blocks; call it in a thread.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.error import URLError

from asterisk.exchange import RECORDINGS, ROOT, Exchange

_IMAGE = "realtime-bridge-asterisk"
_BOOT_S = 30.0
# In `local/`, where each file of `asterisk/etc` looks for the values of a variant (see `asterisk/bridged`).
_LOCAL = {
    "http.conf": "bindport = {http}\n",
    "pjsip.conf": "[udp](+)\nbind = 127.0.0.1:{sip}\n",
    "rtp.conf": "rtpstart = 21000\nrtpend = 21400\n",
    # A colleague whose telephone rings for as long as a test looks on, and one who talks for as long.
    "extensions.conf": "[phones](+)\nexten => 700,1,Ringing()\n same => n,Wait(120)\n"
    "exten => 701,1,Answer()\n same => n,Gosub(step,s,1(human))\n same => n,Playtones(440)\n same => n,Wait(120)\n",
}


@dataclass(frozen=True)
class Victim(Exchange):
    """An `Exchange` that a test may kill and start again. `remove` it in the end."""

    sip_port: int = 15060
    _folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="victim-")))

    @classmethod
    def make(cls, http_port: int, sip_port: int) -> Victim:
        """Its container does not exist yet; `start` makes it."""
        name = f"{_IMAGE}-victim-{os.getpid()}"
        return cls(name, http_port, RECORDINGS.parent / f"victim-{os.getpid()}", sip_port=sip_port)

    def start(self) -> None:
        """From the first time or from the dead, until it takes calls. Raises `CalledProcessError`, `TimeoutError`."""
        if not self.recordings.exists():
            self._create()
        _docker("start", self.container)
        self.wait_until_up()

    def wait_until_up(self) -> None:
        """Until ARI answers and the dialplan is there. Raises `TimeoutError`."""
        end = time.monotonic() + _BOOT_S
        while time.monotonic() < end:
            with suppress(URLError, OSError, subprocess.CalledProcessError):
                self.ari("GET", "asterisk/ping")
                self.command("core waitfullybooted")
                return
            time.sleep(0.05)
        raise TimeoutError(f"{self.container} does not answer: {_docker('logs', '--tail', '20', self.container)}")

    def kill(self) -> None:
        """SIGKILL; nothing is started in its place."""
        _docker("kill", self.container)

    def remove(self) -> None:
        """Leave nothing."""
        with suppress(subprocess.CalledProcessError):
            _docker("rm", "-f", self.container)
        for folder in (self.recordings, self._folder):
            shutil.rmtree(folder, ignore_errors=True)

    def _create(self) -> None:
        self.recordings.mkdir(parents=True)
        local = self._folder / "local"
        local.mkdir()
        for name, text in _LOCAL.items():
            (local / name).write_text(text.format(http=self.http_port, sip=self.sip_port))
        as_us = ["--user", f"{os.getuid()}:{os.getgid()}", "--volume", f"{self.recordings.resolve()}:/recordings"]
        _docker("create", "--name", self.container, "--network", "host", *as_us, _IMAGE)
        _docker("cp", f"{ROOT / 'asterisk' / 'etc'}/.", f"{self.container}:/etc/asterisk/")
        _docker("cp", str(local), f"{self.container}:/etc/asterisk/")


def _docker(*arguments: str) -> str:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=True, timeout=60)
    return done.stdout + done.stderr
