"""What our client relies on, as a suite that the fake Asterisk and a real one must both pass.

`test_ari_server.py` runs it in virtual time against `simulators.ari_server`, and, with `-m asterisk`, against the
container of `asterisk/asterisk.sh up`. Each function gets an `Exchange`; waiting is by condition, never by duration.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import quote
from uuid import UUID, uuid4

import msgspec
import pytest
import trio

from bridge.ari_app import AriApp
from bridge.ari_client import AriClient, Message
from bridge.ari_control import ChannelControl
from bridge.config import Asterisk
from bridge.ending import EndReason
from bridge.errors import ControlRefused
from bridge.leg import ControlDigit, ControlHungUp


class Exchange(Protocol):
    """An Asterisk under test. Its dialplan has 600@phones, and no 999@phones."""

    config: Asterisk
    connect_stream: Callable[[], trio.abc.Stream] | None
    media_format: str
    media_arrived: list[UUID]

    async def place_call(self) -> str:
        """A caller enters our Stasis app, ringing. Returns its channel id."""
        ...

    async def media_dies(self) -> None:
        """Our end of all media connections is gone, as when our process is."""
        ...

    async def far_end_presses(self, digit: str) -> None: ...

    async def far_end_hangs_up(self) -> None: ...


async def eventually(condition: Callable[[], bool], what: str) -> None:
    """Wait until `condition()` holds, at most 5 s."""
    with trio.move_on_after(5):
        while not condition():  # noqa: ASYNC110 - conditions are of many kinds, the fake's included
            await trio.sleep(0.02)
        return
    raise AssertionError(f"not within 5 s: {what}")


@dataclass
class Raw:
    """The bare client with all that it heard."""

    client: AriClient
    events: list[Message] = field(default_factory=list)

    def kinds(self, channel_id: str) -> list[str]:
        """The types of the events of one channel, in order, without those that we do not use."""
        unused = ("ChannelVarset", "Dial", "ChannelDialplan", "ChannelConnectedLine", "ChannelCallerId")
        return [e.type for e in self.events if e.channel and e.channel.id == channel_id and e.type not in unused]

    async def refused(self, method: str, uri: str, **query: str) -> tuple[int, str]:
        """Status and message of a request that must be refused."""
        with pytest.raises(ControlRefused) as caught:
            await self.client.request(method, uri, **query)
        return caught.value.status, str(caught.value).split(": ", 1)[1]


async def with_raw(exchange: Exchange, body: Callable[[Raw], Awaitable[None]]) -> None:
    """Run `body` with a connected bare client."""
    connected = trio.Event()

    async def on_connected(after_replaced: bool) -> None:
        connected.set()

    events: list[Message] = []
    client = AriClient(
        exchange.config, 3.0, events.append, on_connected, lambda: None, connect_stream=exchange.connect_stream
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.run)
        with trio.fail_after(5):
            await connected.wait()
        await body(Raw(client, events))
        nursery.cancel_scope.cancel()


async def with_app(exchange: Exchange, body: Callable[[AriApp, list[ChannelControl]], Awaitable[None]]) -> None:
    """Run `body` with a running app and the controls that it hands out."""
    controls: list[ChannelControl] = []
    app = AriApp(exchange.config, 3.0, controls.append, connect_stream=exchange.connect_stream)
    async with trio.open_nursery() as nursery:
        await nursery.start(app.run)
        await body(app, controls)
        nursery.cancel_scope.cancel()


async def joined(exchange: Exchange, controls: list[ChannelControl]) -> ChannelControl:
    """A caller, answered and bridged with its media."""
    await exchange.place_call()
    await eventually(lambda: bool(controls), "StasisStart")
    control, call_id = controls[-1], uuid4()
    await control.prepare_media(call_id, exchange.media_format)
    await control.answer()
    await eventually(lambda: call_id in exchange.media_arrived, "the AudioSocket connection")
    return control


async def leftovers(app: AriApp) -> list[str]:
    """What of ours is still in Asterisk."""
    ids = [str(thing["id"]) for uri in ("channels", "bridges") for thing in await app.request("GET", uri)]
    mine = await app.request("GET", f"applications/{app.config.app}")
    return [name for name in ids if name in [*mine["channel_ids"], *mine["bridge_ids"]]]


async def nothing_left(app: AriApp) -> None:
    """Wait until Asterisk holds nothing of ours, at most 5 s."""
    with trio.move_on_after(5):
        while await leftovers(app):  # noqa: ASYNC110 - the state is Asterisk's
            await trio.sleep(0.02)
        return
    raise AssertionError(f"left behind: {await leftovers(app)}")


async def refusals(exchange: Exchange) -> None:
    """Every error answer that our code decides upon."""

    async def body(raw: Raw) -> None:
        channel_id = await exchange.place_call()
        channel, bridge, media = f"channels/{channel_id}", f"realtime-bridge-{uuid4()}", f"realtime-media-{uuid4()}"
        await eventually(lambda: bool(raw.kinds(channel_id)), "StasisStart")
        for method, uri in (
            *(("GET", "channels/none"), ("DELETE", "channels/none"), ("POST", "channels/none/continue")),
            *(("POST", "channels/none/answer"),),
        ):
            assert await raw.refused(method, uri) == (404, "404 Channel not found")
        assert await raw.refused("DELETE", "bridges/none") == (404, "404 Bridge not found")
        assert await raw.refused("GET", "applications/none") == (404, "404 Application not found")
        assert (await raw.refused("GET", f"{channel}/variable", variable="NONE"))[0] == 404
        assert (await raw.refused("POST", "bridges/none/addChannel", channel=channel_id))[0] == 404

        await raw.client.request("POST", "bridges", type="mixing", bridgeId=bridge, name=exchange.config.app)
        assert (await raw.refused("POST", "bridges", type="mixing", bridgeId=bridge, name="x"))[0] == 409
        gone = await raw.refused("POST", f"bridges/{bridge}/addChannel", channel=f"{channel_id},none")
        assert gone == (400, "400 Channel not found")
        await raw.client.request("DELETE", f"bridges/{bridge}")

        query = {"app": exchange.config.app, "encapsulation": "audiosocket", "transport": "tcp"}
        query |= {
            "format": exchange.media_format,
            "connection_type": "client",
            "external_host": exchange.config.media_address,
            "channelId": media,
        }
        assert (await raw.refused("POST", "channels/externalMedia", **query))[0] == 400
        query |= {"format": "nonsense", "data": str(uuid4())}
        assert (await raw.refused("POST", "channels/externalMedia", **query))[0] == 500

        await raw.client.request("POST", f"{channel}/continue", context="phones", extension="600", priority="1")
        await eventually(lambda: "StasisEnd" in raw.kinds(channel_id), "StasisEnd")
        outside = (409, "409 Channel not in Stasis application")
        assert await raw.refused("POST", f"{channel}/continue") == outside
        assert await raw.refused("POST", f"{channel}/move", app=exchange.config.app, appArgs="taken") == outside
        assert await raw.refused("POST", f"{channel}/variable", variable="A", value="b") == outside
        await raw.client.request("DELETE", channel, reason="normal")

    await with_raw(exchange, body)


async def move_to_nowhere(exchange: Exchange) -> None:
    """A move to an app that is not there is accepted, told of, and not done."""

    async def body(raw: Raw) -> None:
        channel_id = await exchange.place_call()
        await eventually(lambda: bool(raw.kinds(channel_id)), "StasisStart")
        uri = f"channels/{channel_id}"
        assert (await raw.refused("POST", "channels/none/move", app="nowhere", appArgs="a"))[0] == 404
        await raw.client.request("POST", f"{uri}/move", app="nowhere", appArgs="taken,1")
        await eventually(lambda: "ApplicationMoveFailed" in raw.kinds(channel_id), "ApplicationMoveFailed")
        place = (await raw.client.request("GET", uri))["dialplan"]
        assert (place["app_name"], place["app_data"].partition(",")[0]) == ("Stasis", exchange.config.app)
        assert "StasisEnd" not in raw.kinds(channel_id)
        await raw.client.request("DELETE", uri, reason="normal")

    await with_raw(exchange, body)


async def parameters(exchange: Exchange) -> None:
    """In the query or as JSON, with characters that mean something in a URL, and an id with such."""

    async def body(raw: Raw) -> None:
        channel_id, told = await exchange.place_call(), "a+b & c=d/e%20f?g#h;i ü€"
        await eventually(lambda: bool(raw.kinds(channel_id)), "StasisStart")
        variable = f"channels/{channel_id}/variable"
        await raw.client.request("POST", variable, variable="IN_QUERY", value=told)
        await raw.client.request("POST", variable, {"variable": "IN_BODY", "value": told})
        for name in ("IN_QUERY", "IN_BODY"):
            assert await raw.client.request("GET", variable, variable=name) == {"value": told}
        bridge = f"probe a+b:c%25ü {uuid4()}"
        await raw.client.request("POST", "bridges", type="mixing", bridgeId=bridge, name="x")
        await raw.client.request("DELETE", f"bridges/{quote(bridge, safe='')}")
        await raw.client.request("DELETE", f"channels/{channel_id}", reason="normal")

    await with_raw(exchange, body)


async def order_of_events(exchange: Exchange) -> None:
    """The life of a caller's channel and of its media channel, as told."""

    async def body(raw: Raw) -> None:
        channel_id, call_id = await exchange.place_call(), uuid4()
        bridge, media = f"realtime-bridge-{call_id}", f"realtime-media-{call_id}"
        await eventually(lambda: raw.kinds(channel_id) == ["StasisStart"], "StasisStart")
        start = next(event for event in raw.events if event.type == "StasisStart")
        assert start.channel is not None
        assert (start.channel.state, start.channel.dialplan.exten) == ("Ring", "100")
        await raw.client.request("POST", "bridges", type="mixing", bridgeId=bridge, name=exchange.config.app)
        await raw.client.request(
            "POST",
            "channels/externalMedia",
            app=exchange.config.app,
            external_host=exchange.config.media_address,
            encapsulation="audiosocket",
            transport="tcp",
            connection_type="client",
            format=exchange.media_format,
            data=str(call_id),
            channelId=media,
        )
        await eventually(lambda: "StasisStart" in raw.kinds(media), "StasisStart of the media channel")
        assert raw.kinds(media) == ["ChannelStateChange", "StasisStart"]
        await raw.client.request("POST", f"channels/{channel_id}/answer")
        await raw.client.request("POST", f"channels/{channel_id}/answer")
        await raw.client.request("POST", f"bridges/{bridge}/addChannel", channel=f"{channel_id},{media}")
        await exchange.far_end_presses("5")
        await eventually(lambda: "ChannelDtmfReceived" in raw.kinds(channel_id), "the digit")
        await exchange.far_end_hangs_up()
        await eventually(lambda: "StasisEnd" in raw.kinds(channel_id), "StasisEnd")
        assert raw.kinds(channel_id) == [
            *("StasisStart", "ChannelStateChange", "ChannelEnteredBridge", "ChannelDtmfReceived"),
            *("ChannelHangupRequest", "ChannelLeftBridge", "StasisEnd"),
        ]
        application = await raw.client.request("GET", f"applications/{exchange.config.app}")
        assert application["channel_ids"] == [media]
        assert application["bridge_ids"] == [bridge]
        await raw.client.request("DELETE", f"channels/{media}")
        await raw.client.request("DELETE", f"bridges/{bridge}")
        await eventually(lambda: "ChannelDestroyed" in raw.kinds(media), "ChannelDestroyed of the media channel")
        assert raw.kinds(media)[2:] == [
            *("ChannelEnteredBridge", "ChannelHangupRequest", "ChannelLeftBridge", "StasisEnd", "ChannelDestroyed"),
        ]

    await with_raw(exchange, body)


async def digit_and_hang_up(exchange: Exchange) -> None:
    """Each is reported once, and everything can be cleared after."""

    async def body(app: AriApp, controls: list[ChannelControl]) -> None:
        control = await joined(exchange, controls)
        await exchange.far_end_presses("5")
        with trio.fail_after(5):
            assert await control.next_event() == ControlDigit("5")
        await exchange.far_end_hangs_up()
        with trio.fail_after(5):
            assert isinstance(await control.next_event(), ControlHungUp)
        with trio.move_on_after(0.3) as nothing:
            await control.next_event()
        assert nothing.cancelled_caught
        await control.release(EndReason.CALLER_HUNG_UP, "")
        await nothing_left(app)

    await with_app(exchange, body)


async def agent_hangs_up(exchange: Exchange) -> None:
    """The caller's channel, the media channel and the bridge are gone."""

    async def body(app: AriApp, controls: list[ChannelControl]) -> None:
        control = await joined(exchange, controls)
        await control.release(EndReason.AGENT_HUNG_UP, "bye")
        await nothing_left(app)

    await with_app(exchange, body)


async def transfer_to_nowhere(exchange: Exchange) -> None:
    """Refused, and the call goes on. A container that fails here does not load func_dialplan.so."""

    async def body(app: AriApp, controls: list[ChannelControl]) -> None:
        control = await joined(exchange, controls)
        with pytest.raises(ControlRefused, match="the dialplan has no 999@phones,1"):
            await control.transfer("999")
        assert control.channel_id in (await app.request("GET", f"applications/{app.config.app}"))["channel_ids"]
        await control.release(EndReason.AGENT_HUNG_UP, "")
        await nothing_left(app)

    await with_app(exchange, body)


async def transfer(exchange: Exchange) -> None:
    """Accepted; the caller is elsewhere, and that is not reported as a hang-up."""

    async def body(app: AriApp, controls: list[ChannelControl]) -> None:
        control = await joined(exchange, controls)
        await control.transfer("600@phones")
        with trio.move_on_after(0.3) as nothing:
            await control.next_event()
        assert nothing.cancelled_caught
        await control.release(EndReason.TRANSFERRED, "")
        await nothing_left(app)
        await app.request("DELETE", f"channels/{control.channel_id}", reason="normal")

    await with_app(exchange, body)


async def crash(exchange: Exchange) -> None:
    """What a bridge that died left in Asterisk is found and cleared by the next one."""

    async def dies(app: AriApp, controls: list[ChannelControl]) -> None:
        await joined(exchange, controls)

    async def comes_after(app: AriApp, controls: list[ChannelControl]) -> None:
        await nothing_left(app)

    await with_app(exchange, dies)
    await exchange.media_dies()
    await with_app(exchange, comes_after)


async def media_refused(exchange: Exchange) -> None:
    """A media address where nobody listens: an error that says so, nothing left behind, the caller goes on."""

    async def body(app: AriApp, controls: list[ChannelControl]) -> None:
        app.config = msgspec.structs.replace(app.config, media_address="127.0.0.1:1")
        await exchange.place_call()
        await eventually(lambda: bool(controls), "StasisStart")
        with pytest.raises(ControlRefused, match=r"asterisk\.media_address 127\.0\.0\.1:1") as caught:
            await controls[0].prepare_media(uuid4(), exchange.media_format)
        assert caught.value.status == 500
        await controls[0].release(EndReason.MEDIA_NEVER_ARRIVED, str(caught.value))
        await nothing_left(app)

    await with_app(exchange, body)


Clause = Callable[[Exchange], Awaitable[None]]
CONTRACT: tuple[Clause, ...] = (
    refusals,
    move_to_nowhere,
    parameters,
    order_of_events,
    digit_and_hang_up,
    agent_hangs_up,
    transfer,
    transfer_to_nowhere,
    crash,
    media_refused,
)
