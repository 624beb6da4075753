"""Tells systemd that the process is ready and alive (sd_notify(3): `Type=notify`, `WatchdogSec=`). Elsewhere: nothing.

A process whose event loop stands still sends nothing more, and systemd kills and replaces it. A supervisor speaks for
itself: that its workers are alive, it watches.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Mapping

import trio

_log = logging.getLogger("bridge.server")

_LOOK_EACH_S = 0.1


async def tell_service_manager(ready: Callable[[], bool], environ: Mapping[str, str] = os.environ) -> None:
    """Say READY=1 once `ready`, then WATCHDOG=1 twice within each time that systemd allows; runs until cancelled, and
    returns at once where systemd has not asked."""
    address = environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.setblocking(False)

        def tell(word: str) -> None:
            try:
                manager.sendto(word.encode(), "\0" + address[1:] if address.startswith("@") else address)
            except OSError as error:
                _log.warning("systemd is not told %s: %s", word, error)

        while not ready():  # noqa: ASYNC110 - at the start only
            await trio.sleep(_LOOK_EACH_S)
        tell("READY=1")
        watchdog_s = _watchdog_s(environ)
        while watchdog_s:
            tell("WATCHDOG=1")
            await trio.sleep(watchdog_s / 2)


def _watchdog_s(environ: Mapping[str, str]) -> float:
    """How long systemd waits for a sign of life of this process; 0: it does not."""
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return 0.0
    try:
        return int(environ.get("WATCHDOG_USEC", "0")) / 1e6
    except ValueError:
        return 0.0
