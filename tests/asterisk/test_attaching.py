"""A caller whom another Stasis app holds gets an agent, and is given back, on the real Asterisk."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio
from websockets.trio.client import ClientConnection, connect

from asterisk.compare import from_first_loud, tone_share
from asterisk.line import CONTROL_TOKEN, Line, line
from simulators.model_script import Say, Script

pytestmark = pytest.mark.asterisk

AGENT_HZ, AGENT_MS = 1200, 600


async def enters(app: ClientConnection, channel_id: str) -> list[str]:
    """The arguments with which this channel enters the other app; waits for it."""
    with trio.fail_after(5):
        while True:
            event = json.loads(await app.recv())
            if event["type"] == "StasisStart" and event["channel"]["id"] == channel_id:
                return [str(it) for it in event["args"]]


class Door:
    """The bridge's control websocket."""

    def __init__(self, websocket: ClientConnection) -> None:
        self.websocket = websocket

    async def ask(self, command: str, **fields: Any) -> dict[str, Any]:
        await self.websocket.send(json.dumps({"id": command, "command": command, **fields}))
        return await self.hears(lambda told: told.get("id") == command)

    async def hears(self, wanted: Any) -> dict[str, Any]:
        with trio.fail_after(8):
            while not wanted(told := json.loads(await self.websocket.recv())):
                pass
            return dict(told)


async def test_a_caller_of_another_app_hears_the_agent_and_is_given_back() -> None:
    async with line(Script.of(Say("Hello!", ms=AGENT_MS, hz=AGENT_HZ))) as it:
        ivr = f"ivr-{it.test_id}"
        async with (
            connect(f"{it.exchange.url}/ari/events?app={ivr}&api_key=bridge:bridge") as app,
            connect(
                f"ws://127.0.0.1:{it.control_port}/events",
                additional_headers={"Authorization": f"Bearer {CONTROL_TOKEN}"},
            ) as websocket,
        ):
            door = Door(websocket)
            phone = await it.phone(__BRIDGE_APPS=ivr)
            await enters(app, phone.channel_id)
            created = await door.ask("session.create", channel=phone.channel_id)
            assert (created["status"], created["result"]["returns_to"]) == (202, ivr), created
            assert (await door.ask("session.create", channel=phone.channel_id))["status"] == 409
            began = trio.current_time()
            said = await door.hears(lambda told: told.get("type") == "transcript.final")
            assert said["data"]["text"] == "Hello!"
            heard = b"".join(pcm for _, pcm in phone.heard_since(began - 1))
            assert tone_share(from_first_loud(heard)[: 32 * AGENT_MS], 16000, AGENT_HZ) > 0.95
            left = await door.ask("session.delete", call=created["result"]["id"])
            assert left["ok"], left
            assert await enters(app, phone.channel_id) == ["returned", "agent_left"]
            assert (await it.ended())["reason"] == "agent_left"
            variable = f"channels/{phone.channel_id}/variable?variable=BRIDGE_END_REASON"
            assert (await trio.to_thread.run_sync(it.exchange.ari, "GET", variable))["value"] == "agent_left"
            assert not phone.caller.ended.is_set(), "the caller is still there, and the other app's again"
            await check_the_dialplan_is_told(it, door)


async def check_the_dialplan_is_told(it: Line, door: Door) -> None:
    """A channel that runs the dialplan can not be taken, and the answer says how it could come."""
    phone = await it.phone("600")
    await it.reaches("human")
    told = await door.ask("create_call", channel=phone.channel_id)
    assert told["status"] == 409
    assert f"Stasis({it.app},...)" in told["error"]
