"""Calls one number and says how that went: python examples/call.py +4930123456 (needs bridge.toml, docs/outbound.md)."""

import os
import sys
from pathlib import Path

import trio

from bridge.config import Config, load_config
from bridge.outbound import CallOrder
from bridge.server import serve


async def main(config: Config, number: str) -> None:
    async with trio.open_nursery() as nursery:
        ready = await nursery.start(lambda task_status: serve(config, task_status=task_status))
        await ready.placing.until_connected()
        placed = ready.placing.place(CallOrder(to=number, facts="You call about order 4711, which is ready."))
        if await placed.until_answered():
            print("answered")
        record = await placed.until_ended()
        print(record.reason, record.detail)
        ready.drain()


if __name__ == "__main__":
    path = Path("bridge.toml")
    trio.run(
        main, load_config(path.read_text(encoding="utf-8"), os.environ, folder=path.resolve().parent), sys.argv[1]
    )
