"""The pages of `health` on a port: for probes and for Prometheus, never for the public."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import trio

from bridge.health import WorkerHealth, answer
from bridge.http_exchange import Page, Request
from bridge.http_server import serve_http


async def serve_health(
    address: str,
    workers: Callable[[], Iterable[WorkerHealth]],
    *,
    task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Answer on `address` (HOST:PORT) for ever; `started` is told the port. `workers` is asked at each request.

    Raises `ConfigError` when it can not listen there.
    """

    async def pages(request: Request) -> Page:
        return answer(request, workers())

    await serve_http(address, pages, setting="server.health_address", task_status=task_status)
