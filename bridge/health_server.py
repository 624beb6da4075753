"""The pages of `health` on a port: for probes and for Prometheus, never for the public."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

import trio

from bridge.errors import ConfigError
from bridge.health import WorkerHealth, answer, page

_log = logging.getLogger("bridge.health")

# A probe sends its request in one packet. Whoever dawdles, or opens many connections, is sent away, and costs no call.
REQUEST_S = 5.0
MOST_AT_ONCE = 16


async def serve_health(
    address: str,
    workers: Callable[[], Iterable[WorkerHealth]],
    *,
    task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Answer on `address` (HOST:PORT) for ever; `started` is told the port. `workers` is asked at each request.

    Raises `ConfigError` when it can not listen there.
    """
    host, _, port = address.rpartition(":")
    try:
        listeners = await trio.open_tcp_listeners(int(port), host=host.strip("[]"))
    except OSError as error:
        raise ConfigError(
            f"server.health_address: cannot listen on {address}: {error.strerror or error}; is another bridge running? "
            'Give each its own, or "" for none'
        ) from error
    at_once = 0

    async def handle(stream: trio.SocketStream) -> None:
        nonlocal at_once
        at_once += 1
        try:
            if at_once <= MOST_AT_ONCE:
                await answer_one(stream, workers)
        finally:
            at_once -= 1
            # Nothing more is owed to this client, so nothing is waited for.
            await trio.aclose_forcefully(stream)

    task_status.started(int(listeners[0].socket.getsockname()[1]))
    await trio.serve_listeners(handle, listeners)


async def answer_one(stream: trio.abc.Stream, workers: Callable[[], Iterable[WorkerHealth]]) -> None:
    """Read one request and answer it, within `REQUEST_S`. A client that leaves, or is too slow, gets nothing."""
    request = b""
    try:
        with trio.move_on_after(REQUEST_S):
            while data := await stream.receive_some(4096):
                request += data
                if (told := answer(request, lambda path: page(path, workers()))) is not None:
                    await stream.send_all(told)
                    return
    except trio.BrokenResourceError:
        _log.debug("a client of the health port has left")
