"""`docs/providers.md` can be copied: its settings load, lead where it says, and open a session at the simulator."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from bridge.config import load_config
from bridge.endpoint import endpoint_of
from bridge.realtime import session_update
from bridge.realtime_client import open_realtime
from simulators.memory import MemoryListener
from simulators.realtime_server import RealtimeServer

PAGE = (Path(__file__).parent.parent / "docs" / "providers.md").read_text(encoding="utf-8")
BLOCKS = [textwrap.dedent(block) for block in re.findall(r"(?m)(?:^    .*\n|^\n(?=    ))+", PAGE) if "url =" in block]
EXPECTED = [
    "wss://api.openai.com/v1/realtime?model=gpt-realtime-2.1 (Authorization; dialect ga)",
    "wss://RESOURCE.openai.azure.com/openai/v1/realtime?model=my-realtime-deployment (api-key; dialect ga)",
    "wss://RESOURCE.openai.azure.com/openai/realtime?api-version=2025-04-01-preview&deployment=my-realtime-deployment"
    " (api-key, OpenAI-Beta; dialect beta)",
    "wss://api.x.ai/v1/realtime?model=grok-voice-latest (Authorization; dialect xai)",
    "ws://localhost:8080/v1/realtime?model=gpt-realtime (Authorization; dialect ga)",
    "ws://localhost:8000/v1/realtime?model=gpt-4o-realtime-preview (Authorization, OpenAI-Beta; dialect beta)",
    "wss://api.inworld.ai/api/v1/realtime/session?protocol=realtime&key=*** (Authorization; dialect ga)",
]


@pytest.mark.parametrize(("block", "expected"), zip(BLOCKS, EXPECTED, strict=True), ids=EXPECTED)
def test_every_block_leads_where_it_says(block: str, expected: str) -> None:
    config = load_config(block, {"OPENAI_API_KEY": "sk-any"})
    assert str(endpoint_of(config.realtime)) == expected


# The simulator plays neither xAI's session nor Inworld's path.
@pytest.mark.parametrize("block", [b for b in BLOCKS if "x.ai" not in b and "inworld" not in b])
async def test_every_block_opens_a_session(autojump_clock: MockClock, block: str) -> None:
    config = load_config(block.replace("wss:", "ws:"), {"OPENAI_API_KEY": "sk-any"})
    server = RealtimeServer(key="sk-any", beta=True)
    async with trio.open_nursery() as nursery:
        listener: MemoryListener = await server.listen_in_memory(nursery)
        session = session_update(config.agents["default"], [])
        async with open_realtime(
            config.realtime, session, connect_s=8, close_s=2, connect_stream=listener.connect
        ) as connection:
            assert connection.session["audio"]["output"]["voice"] == config.agents["default"].voice
        nursery.cancel_scope.cancel()
