"""Take part in running calls: python examples/attend.py, instead of `realtime-bridge serve`, beside `bridge.toml`."""

import os
from functools import partial
from pathlib import Path

import trio

from bridge.config import load_config
from bridge.live_call import LiveCall
from bridge.server import serve
from bridge.telemetry import set_up_logging
from bridge.tools import Tool, ToolRegistry

CUSTOMERS = {"1000": "Ada Smith, a customer since 1999"}  # your database

tools = ToolRegistry([Tool("ask_colleague", "Ask a human who watches this call, and get the answer.")])


async def attend(call: LiveCall) -> None:
    """Runs beside each call, and is cancelled at its end; what it raises is logged, and the call goes on."""
    events = call.events(["transcript.final", "tool.called", "session_lost"])
    if customer := CUSTOMERS.get(call.caller.partition(" ")[0]):
        call.write(f"(The caller is {customer}.)")  # the model knows it from here on; nobody hears it
    async for event in events:
        match event.type, event.event:
            case "transcript.final", {"role": who, "text": text}:  # of the agent: what was heard
                print(f"{call.call_id[:8]} {who}: {text}", flush=True)
                if who == "caller" and "complaint" in text.lower():
                    call.transfer("boss")  # agents.NAME.transfers.boss; what the agent is saying is heard out
            case "tool.called", {"name": "ask_colleague", "tool_call_id": call_id}:
                call.answer_tool(call_id, "Yes, tomorrow from nine.")  # within limits.tool_s; you would ask somebody
            case "session_lost", {"detail": detail}:
                print(f"{call.call_id[:8]} the model is away, another session is opened: {detail}", flush=True)


if __name__ == "__main__":
    settings = Path("bridge.toml")
    config = load_config(settings.read_text(encoding="utf-8"), os.environ, folder=settings.resolve().parent)
    set_up_logging(config.server.log_format, words=config.server.log_words)
    trio.run(partial(serve, config, tools=tools, on_call=attend))
