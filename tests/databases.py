"""Databases of records for tests: SQLite files, and a PostgreSQL server of our own where its programs are installed.

The server listens on a socket in a temporary folder only, syncs nothing, trusts everybody on that socket, and ends with
the tests. PostgreSQL does not run as root: then it runs as the user `postgres`, or `nobody`.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import pytest


def _program(name: str) -> str | None:
    """From the PATH, or where Debian has it: the newest version's."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda it: float(it.parts[-3]))
    return str(found[-1]) if found else shutil.which(name)


def _other_user() -> str | None:
    for name in ("postgres", "nobody"):
        try:
            pwd.getpwnam(name)
        except KeyError:
            continue
        return name
    return None


@contextmanager
def postgresql() -> Iterator[str]:
    """The URL of an empty database; skips the test where there is no PostgreSQL."""
    initdb, server = _program("initdb"), _program("postgres")
    if initdb is None or server is None:
        pytest.skip("no PostgreSQL on this machine: its initdb and postgres were not found")
    prefix: list[str] = []
    # Below /tmp, since pytest's own folders are closed to other users; and short, since a socket's path holds 107 bytes.
    folder = Path(tempfile.mkdtemp(prefix="bridge-pg-", dir="/tmp"))
    try:
        if os.geteuid() == 0:
            user, runuser = _other_user(), shutil.which("runuser")
            if user is None or runuser is None:
                pytest.skip("PostgreSQL does not run as root, and there is no other user here to run it as")
            shutil.chown(folder, user)
            prefix = [runuser, "-u", user, "--"]
        data = folder / "data"
        made = subprocess.run(
            [*prefix, initdb, "-D", data, "-U", "bridge", "-A", "trust", "-N", "-E", "UTF8", "--locale=C"],
            capture_output=True, text=True, check=False, cwd="/",
        )  # fmt: skip
        assert made.returncode == 0, made.stderr
        options = {
            "listen_addresses": "", "unix_socket_directories": folder, "fsync": "off", "synchronous_commit": "off",
            "full_page_writes": "off", "shared_buffers": "8MB", "max_connections": 20,
        }  # fmt: skip
        settings = [argument for name, value in options.items() for argument in ("-c", f"{name}={value}")]
        with (folder / "log").open("w") as log:
            process = subprocess.Popen(
                [*prefix, server, "-D", data, *settings], stdout=log, stderr=subprocess.STDOUT, cwd="/"
            )
        try:
            url = f"postgresql://bridge@/postgres?host={quote(str(folder), safe='')}"
            _wait_for(folder, process)
            yield url
        finally:
            _stop(data, process)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _wait_for(folder: Path, process: subprocess.Popen[bytes]) -> None:
    give_up_at = time.monotonic() + 20
    while "ready to accept connections" not in (folder / "log").read_text():
        assert process.poll() is None, (folder / "log").read_text()
        assert time.monotonic() < give_up_at, "PostgreSQL did not start in 20 s"
        time.sleep(0.02)


def _stop(data: Path, process: subprocess.Popen[bytes]) -> None:
    """At once, without a checkpoint. The first line of its file is its number: `runuser` passes no signals on."""
    try:
        number = int((data / "postmaster.pid").read_text().splitlines()[0])
        os.kill(number, signal.SIGQUIT)
    except (OSError, ValueError, IndexError):
        process.kill()
    process.wait(10)
