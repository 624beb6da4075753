"""What systemd is told, by a socket as it opens one."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from bridge.service_manager import tell_service_manager


@pytest.mark.parametrize("abstract", [False, True])
async def test_ready_then_alive_twice_within_the_time(
    abstract: bool, tmp_path: Path, autojump_clock: MockClock
) -> None:
    path = f"@bridge-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    environ = {"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}
    ready_at = trio.current_time() + 2
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0" + path[1:] if abstract else path)
        manager.setblocking(False)

        def told() -> list[bytes]:
            words = []
            with suppress(BlockingIOError):
                while True:
                    words.append(manager.recv(100))
            return words

        async with trio.open_nursery() as nursery:
            nursery.start_soon(tell_service_manager, lambda: trio.current_time() >= ready_at, environ)
            await trio.sleep(1.5)
            assert told() == []
            await trio.sleep(1)
            assert told() == [b"READY=1", b"WATCHDOG=1"]
            await trio.sleep(60)
            assert told() == [b"WATCHDOG=1"] * 4
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"NOTIFY_SOCKET": "/nowhere/at/all"},
        {"NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": "9", "WATCHDOG_PID": "1"},
    ],
)
async def test_nobody_is_told_where_nobody_asked_or_listens(environ: dict[str, str]) -> None:
    with trio.fail_after(5):
        await tell_service_manager(lambda: True, environ)
