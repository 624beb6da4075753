"""A functions file in the form of the OpenSIPS AI Voice Connector: `tools = ["functions.py"]` in `bridge.toml`.

FUNCTIONS tells the model what there is; each function of such a name gets `(engine, arguments)`, the arguments as JSON
text. What it returns goes back to the model.
"""

import json
from datetime import datetime
from typing import Any

FUNCTIONS = [
    {
        "name": "get_time",
        "description": "The date and time now.",
        "parameters": {
            "type": "object",
            "properties": {"seconds": {"type": "boolean", "description": "Whether seconds are wanted"}},
            "required": ["seconds"],
        },
    },
    {"name": "who_is_calling", "description": "The caller's number, and the number that was called."},
    {"name": "end_call", "description": "End the call. Say goodbye first."},
]


def get_time(engine: Any, arguments: str) -> str:
    seconds = json.loads(arguments).get("seconds", False)
    return datetime.now().strftime("%Y-%m-%d %H:%M:%S" if seconds else "%Y-%m-%d %H:%M")


async def who_is_calling(engine: Any, arguments: str) -> dict[str, str]:
    return {"caller": engine.call.caller, "called": engine.call.to}


def end_call(engine: Any, arguments: str) -> None:
    engine.terminate_call()
