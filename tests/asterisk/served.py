"""The bridge as a program with a tool of its own, as `docs/tools.md` shows it: what a test kills and starts again.

    python -m asterisk.served bridge.toml

SIGUSR1 makes it tell, as one log line, how many tasks it has and which files are open.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from pathlib import Path

import trio

from bridge import telemetry
from bridge.config import Config, load_config
from bridge.server import serve
from bridge.tools import ToolRegistry


async def look_up(seconds: float) -> str:
    """Looks something up."""
    await trio.sleep(seconds)
    return "found"


def open_files() -> list[str]:
    """What this process has open; not the folder that lists it."""
    found = []
    for entry in Path("/proc/self/fd").iterdir():
        try:
            found.append(str(entry.readlink()))
        except OSError:
            continue
    return [name for name in found if not name.startswith("/proc/")]


async def _tell(task_status: trio.TaskStatus[None]) -> None:
    with trio.open_signal_receiver(signal.SIGUSR1) as signals:
        task_status.started()
        async for _ in signals:
            tasks = trio.lowlevel.current_statistics().tasks_living
            facts = {"tasks": tasks, "files": sorted(open_files())}
            logging.getLogger("served").info("holds", extra={"facts": facts})


async def _run(config: Config) -> None:
    telemetry.set_up_logging(config.server.log_format, words=config.server.log_words)
    async with trio.open_nursery() as nursery:
        await nursery.start(_tell)
        await serve(config, tools=ToolRegistry([look_up]))
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    # No records: the pool of their database opens as many files as there were calls that ended at once.
    trio.run(_run, load_config(Path(sys.argv[1]).read_text(), os.environ, {"records.url": ""}))
