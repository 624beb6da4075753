"""The doctor at the real Asterisk: all is well, what is wrong is found, and nothing is left or disturbed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from asterisk.exchange import ari
from asterisk.line import free_port, line, until
from bridge.config import load_config
from bridge.doctor import examine
from bridge.findings import Finding, Verdict
from simulators.model_script import Say, Script
from simulators.realtime_server import RealtimeServer

pytestmark = pytest.mark.asterisk

# How late this machine's own frames are does not depend on Asterisk, but on what else the machine does.
BESIDE = "pacing"


async def findings(port: int, **settings: str) -> dict[str, Finding]:
    """What the doctor says, with a model of ours; and nothing of it is left in Asterisk."""
    found: list[Finding] = []
    app = f"bridge-d{port}"
    async with trio.open_nursery() as nursery:
        model_port = await RealtimeServer(Script()).listen_on_tcp(nursery)
        given = {
            "asterisk.password": "bridge",
            "asterisk.app": app,
            "asterisk.media_address": f"127.0.0.1:{port}",
            "server.audiosocket_port": str(port),
            "realtime.url": f"ws://127.0.0.1:{model_port}/v1/realtime",
            "realtime.api_key": "test-key",
        }
        given |= {key.replace("__", "."): value for key, value in settings.items()}
        with trio.fail_after(30):
            await examine(load_config("", {}, given), found.append)
        nursery.cancel_scope.cancel()
    await nothing_left(f"{given['asterisk.app']}-doctor")
    return {finding.name: finding for finding in found if finding.name != BESIDE}


async def nothing_left(app: str) -> None:
    """Wait until Asterisk holds nothing for this app any more.

    Its name may stay listed, empty: Asterisk clears away an app whose websocket closed just before its last channel ended
    only when another app comes or goes (measured on 22.10.1: so after 20 of 40 such ends, for any length of time).
    """
    held: object = None
    with trio.move_on_after(3):
        while held := await trio.to_thread.run_sync(_held_for, app):  # noqa: ASYNC110 - the state is Asterisk's
            await trio.sleep(0.05)
        return
    raise AssertionError(f"{app} still holds {held}")


def _held_for(app: str) -> list[str]:
    return [
        thing
        for one in ari("GET", "applications")
        if one["name"] == app
        for kind in ("channel_ids", "bridge_ids", "endpoint_ids", "device_names")
        for thing in one[kind]
    ]


def verdicts(found: dict[str, Finding]) -> dict[str, str]:
    return {name: str(finding.verdict) for name, finding in found.items() if finding.verdict is not Verdict.OK}


@asynccontextmanager
async def somebody_else() -> AsyncIterator[int]:
    """A port where somebody takes every connection and says nothing."""

    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            while await stream.receive_some():
                pass

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, serve, 0)
        yield listeners[0].socket.getsockname()[1]
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("media_format", ["slin", "slin16", "slin24", "auto"])
async def test_all_is_well(media_format: str) -> None:
    found = await findings(free_port(), asterisk__format=media_format)
    assert verdicts(found) == {}
    assert "Asterisk 22." in found["version"].text
    assert "and named the call" in found["media"].text


async def test_a_wrong_password() -> None:
    found = await findings(free_port(), asterisk__password="wrong")
    assert found["asterisk"].verdict is Verdict.FAIL
    assert "refuses user 'bridge' (HTTP 401)" in found["asterisk"].text
    assert found["media"].verdict is Verdict.SKIPPED


async def test_an_address_where_nobody_listens() -> None:
    found = await findings(free_port(), asterisk__media_address=f"127.0.0.1:{free_port()}")
    assert verdicts(found) == {"media": "fail"}
    assert "Asterisk found nobody at" in found["media"].text


async def test_an_address_where_somebody_else_listens() -> None:
    async with somebody_else() as port:
        found = await findings(free_port(), asterisk__media_address=f"127.0.0.1:{port}")
    assert verdicts(found) == {"media": "fail"}
    assert "it was not us" in found["media"].text


async def test_a_call_of_a_running_bridge_is_not_disturbed() -> None:
    async with line(Script.of(Say("A long story.", ms=20_000))) as it:
        phone = await it.phone()
        await it.hears_of("agent_starts")
        found = await findings(it.media_port, asterisk__app=it.app)
        assert verdicts(found) == {}
        assert found["port"].text.endswith("is in use: a bridge is running")
        assert "2 channels in it" in found["application"].text
        assert "since" in found["media"].text
        heard = len(phone.heard())
        await until(lambda: len(phone.heard()) > heard + 16000, 3, lambda: "the call goes on")
        assert not it.told("call_ended")
        await phone.caller.hang_up()
        record = await it.ended()
        assert record["reason"] == "caller_hung_up"
        assert [told.facts["call_id"] for told in it.told("call_ended")] == [record["call_id"]], (
            "no call of the doctor's"
        )
