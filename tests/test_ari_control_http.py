"""All of `test_ari_control` once more with the requests by HTTP, and what goes wrong only there: requests that overtake."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
import test_ari_control
import trio
from test_ari_control import BRIDGE, CALL, running

from bridge.ari_app import AriApp
from bridge.ari_control import ChannelControl
from bridge.config import Asterisk
from bridge.ending import EndReason


@pytest.fixture(autouse=True)
def _by_http(monkeypatch: pytest.MonkeyPatch) -> None:
    def make(config: Asterisk, request_s: float, on_call: Callable[[ChannelControl], None], **more: Any) -> AriApp:
        return AriApp(msgspec.structs.replace(config, requests="http"), request_s, on_call, **more)

    monkeypatch.setattr(test_ari_control, "AriApp", make)


_ELSEWHERE = {"test_without_a_connection_requests_fail_at_once"}  # of the websocket only
globals().update(
    {
        name: test
        for name, test in vars(test_ari_control).items()
        if name.startswith("test_") and name not in _ELSEWHERE
    }
)


async def test_a_bridge_is_not_left_by_a_caller_who_hangs_up_while_it_is_made(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running() as setup:
        channel, control = await setup.call()
        with setup.ari.slow("POST bridges", 0.3):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(control.prepare_media, CALL, "slin16")
                await trio.sleep(0.1)
                channel.hang_up()
                nursery.cancel_scope.cancel()
            await control.release(EndReason.CALLER_HUNG_UP, "")
            await trio.sleep(1)
        assert setup.asked("POST", "bridges") == setup.asked("DELETE", f"bridges/{BRIDGE}") == 1
        assert setup.clear()


async def test_media_that_is_made_after_its_call_is_hung_up(autojump_clock: trio.testing.MockClock) -> None:
    async with running() as setup:
        channel, control = await setup.call()
        with setup.ari.slow("POST channels/externalMedia", 0.3):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(control.prepare_media, CALL, "slin16")
                await trio.sleep(0.1)
                channel.hang_up()
                nursery.cancel_scope.cancel()
            await control.release(EndReason.CALLER_HUNG_UP, "")
            assert setup.clear()
            await trio.sleep(0.3)
        assert setup.clear()
