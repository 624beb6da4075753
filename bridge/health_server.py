"""The pages of `health` on a port: for probes and for Prometheus, never for the public."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import trio

from bridge.health import WorkerHealth, answer, metrics_in_parts, metrics_page
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
        told = list(workers())
        if request.path != "/metrics" or request.method != "GET":
            return answer(request, told)
        parts = []
        for part in metrics_in_parts(told):
            parts.append(part)
            await trio.lowlevel.checkpoint()  # the media clock of a process that writes its own page
        return metrics_page("".join(parts))

    await serve_http(address, pages, setting="server.health_address", task_status=task_status)
