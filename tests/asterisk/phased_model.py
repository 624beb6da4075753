"""A Realtime server as a process of its own, whose sessions stay in the phase of a call that their instructions name.

    python -m asterisk.phased_model PORT

A line of JSON on standard input sets fields of `Faults` for what comes from then on, and is answered by the same line.
Each change of the number of connections is told, too.
"""

from __future__ import annotations

import json
import sys

import trio

from simulators.model_script import AT_ONCE, Call, Conversation, Drop, Fail, Pace, Part, Say
from simulators.realtime_server import RealtimeServer

# Longer than any test looks on; and as long as it takes to bring everybody into place and kill somebody, and as much again.
LONG_MS, WORDS_MS, TOOL_S = 60_000, 4_000, 4.0
# Little ahead of the caller's ear, so that a lost model is heard soon. Words before an act come at once.
LIVE = Pace(speed=1.2, delta_ms=100)


class Phases:
    """The brain: the first word of the instructions says what to do."""

    def answer(self, conversation: Conversation) -> list[Part]:
        kinds = [item.type for item in conversation.items]
        asked = any(item.role == "user" for item in conversation.items)
        match conversation.instructions.partition(" ")[0]:
            case "greeting":
                return [Say("A long welcome.", ms=LONG_MS, pace=LIVE)]
            case "talking":
                return [Say("A long story.", ms=LONG_MS, pace=LIVE) if asked else Say("Hello.", ms=300)]
            case "tool" if "function_call_output" in kinds:
                return [Say("It has been found.", ms=500)]
            case "tool":
                return [Call("look_up", {"seconds": TOOL_S})]
            case "transferring":
                return [
                    Say("One moment, please.", ms=WORDS_MS, pace=AT_ONCE),
                    Call("transfer_call", {"destination": "human"}),
                ]
            case "transferred" | "dialling" | "joined":
                return [Say("Here you are.", ms=200), Call("transfer_call", {"destination": "human"})]
            case "ending":
                return [
                    Say("Goodbye, and thank you.", ms=WORDS_MS, pace=AT_ONCE),
                    Call("hang_up", {"reason": "all said"}),
                ]
            case "brief":
                return [Say("Goodbye.", ms=200), Call("hang_up", {"reason": "all said"})]
            case "dropped" if not any(item.role == "assistant" for item in conversation.items):
                return [Say("Hello, this is", ms=300), Drop()]
            case "failing":
                return [Fail.quota()]
        return [Say("Hello.", ms=300)]

    def transcribe(self, pcm: bytes) -> str | None:
        return "Tell me more."


async def _obey(server: RealtimeServer) -> None:
    async with trio.lowlevel.FdStream(0) as orders:
        text = b""
        async for data in orders:
            *lines, text = (text + data).split(b"\n")
            for line in lines:
                for name, value in json.loads(line).items():
                    setattr(server.faults, name, value)
                print(line.decode(), flush=True)
    await trio.sleep_forever()


async def _tell(server: RealtimeServer) -> None:
    told = 0
    while True:
        if told != server.open_connections:
            told = server.open_connections
            print(json.dumps({"event": "connections", "open": told}), flush=True)
        await trio.sleep(0.01)


async def _run(port: int) -> None:
    async with trio.open_nursery() as nursery:
        server = RealtimeServer(Phases(), recording=False)
        await server.listen_on_tcp(nursery, port)
        print('{"event": "ready"}', flush=True)
        nursery.start_soon(_tell, server)
        await _obey(server)


if __name__ == "__main__":
    trio.run(_run, int(sys.argv[1]))
