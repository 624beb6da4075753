"""What an application of FreeSWITCH's mod_openai_s2s does, against the bridge's control websocket.

    BRIDGE_CONTROL_TOKEN=... python examples/freeswitch/session.py CHANNEL

CHANNEL is the id of a channel that some Stasis app of yours holds. The agent speaks with its caller until one of them ends
that; Ctrl-C is the module's `session.delete`. The commands have the module's names; README.md has the table.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import trio
from websockets.exceptions import ConnectionClosed
from websockets.trio.client import ClientConnection, connect

HERE = Path(__file__).parent
BRIDGE = os.environ.get("BRIDGE_CONTROL", "ws://127.0.0.1:9292")


class Session:
    """One `uuid_openai_s2s` session."""

    def __init__(self, websocket: ClientConnection) -> None:
        self.websocket = websocket
        self.call = ""

    async def command(self, command: str, **fields: Any) -> None:
        """Send a command; its answer comes among the events."""
        await self.websocket.send(json.dumps({"id": command, "command": command, "call": self.call, **fields}))

    async def run(self, channel: str) -> str:
        """From `session.create` to the end of the call; returns why it ended. Raises `SystemExit` for what is refused."""
        # The agent says nothing by itself: the first `response.create` is this program's, as with the module.
        await self.command("session.create", channel=channel, settings={"greeting": ""})
        while True:
            try:
                told = json.loads(await self.websocket.recv())
            except ConnectionClosed:
                return "the bridge is gone"
            if told.get("ok") is False:
                raise SystemExit(f"{told['id']}: {told['error']}")
            if told.get("id") == "session.create":
                self.call = told["result"]["id"]
            elif told.get("call_id") == self.call and (reason := await self.event(told)):
                return reason

    async def event(self, told: dict[str, Any]) -> str:
        """One event of the call. Returns the reason of its end."""
        match told:
            case {"type": "call.answered"}:  # openai_s2s::connect, and the caller hears us
                await self.command("client.event", event=json.loads((HERE / "response.create.json").read_text()))
                await self.command("client.event", event=json.loads((HERE / "session.update.json").read_text()))
            case {"type": "session_connect_failed" | "session_lost" as kind, "data": data}:
                print(f"{kind}: {data['detail']}")  # openai_s2s::connect_failed, ::disconnect
            case {"source": "server", "type": "response.output_item.done", "data": {"item": item}}:
                if item["type"] == "function_call":
                    await self.tool(item["call_id"], json.loads(item["arguments"]))
            case {"type": "transcript.final", "data": {"role": role, "text": text}}:
                print(f"{role}: {text}")
            case {"type": "call.ended", "data": {"reason": reason}}:
                return str(reason)
        return ""

    async def tool(self, call_id: str, arguments: dict[str, Any]) -> None:
        """get_weather: the output first, then the request for an answer, as the module's README wants it."""
        output = {"location": arguments["location"], "sky": "clear", "temperature": 21}
        item = {"type": "function_call_output", "call_id": call_id, "output": output}
        await self.command("client.event", event={"type": "conversation.item.create", "item": item})
        await self.command("client.event", event={"type": "response.create"})


async def main(channel: str) -> None:
    """Connect, and serve this channel."""
    token = os.environ["BRIDGE_CONTROL_TOKEN"]
    async with connect(f"{BRIDGE}/events", additional_headers={"Authorization": f"Bearer {token}"}) as websocket:
        session = Session(websocket)
        try:
            print("ended:", await session.run(channel))
        finally:
            if session.call:
                with trio.move_on_after(2, shield=True):
                    await session.command("session.delete")


if __name__ == "__main__":
    trio.run(main, sys.argv[1])
