"""The fake Asterisk keeps the contract that the real one keeps, and refuses what it does not know."""

from __future__ import annotations

import json
import os
import urllib.parse
import urllib.request
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from uuid import UUID, uuid4

import ari_contract as contract
import msgspec
import pytest
import trio

from bridge.ari_client import AriClient, Message
from bridge.asterisk_version import WIDEBAND, parse
from bridge.audiosocket import Kind, encode
from bridge.config import Asterisk, RequestsChoice
from simulators.ari_server import HUNG_UP, AriServer, FakeChannel

# Another real Asterisk than the container's may be named: its dialplan must have 100@phones and 600@phones.
PLACE = os.environ.get("ASTERISK_ARI", "127.0.0.1:8088")


class FakeExchange:
    """`contract.Exchange` on the fake."""

    def __init__(self, version: str = "22.10.1", requests: RequestsChoice = "auto") -> None:
        self.config = Asterisk(password="bridge", requests=requests)
        self.ari = AriServer(version=version)
        self.media_format = "slin16" if parse(version).has(WIDEBAND) else "slin"
        self.ari.dialplan.add(("phones", "600", "1"))
        self.ari.on_external_media = self._media
        self.connect_stream: Callable[[], trio.abc.Stream] | None = self.ari.connect
        self.media_arrived: list[UUID] = []
        self._channel: FakeChannel | None = None

    def _media(self, host: str, uuid: str, media_format: str) -> None:
        if host != self.config.media_address:
            raise ConnectionRefusedError
        self.media_arrived.append(UUID(uuid))

    async def place_call(self) -> str:
        self._channel = self.ari.incoming_call()
        return self._channel.id

    async def media_dies(self) -> None:
        for channel in [it for it in self.ari.channels.values() if it.name.startswith("AudioSocket/")]:
            channel.leave(HUNG_UP)

    async def far_end_presses(self, digit: str) -> None:
        assert self._channel is not None
        self._channel.press(digit)

    async def far_end_hangs_up(self) -> None:
        assert self._channel is not None
        self._channel.hang_up()


class RealExchange:
    """`contract.Exchange` on the container. The far end is the other half of a Local channel, in a Stasis app of its own.

    `__BRIDGE_APPS` leads extension 100 to an app that nobody else uses at the same time.
    """

    connect_stream: Callable[[], trio.abc.Stream] | None = None
    media_format = "slin16"

    def __init__(self, port: int, far: AriClient, far_events: list[Message]) -> None:
        self.config = Asterisk(
            url=f"ws://{PLACE}", password="bridge", app="bridge-contract", media_address=f"127.0.0.1:{port}"
        )
        self.media_arrived: list[UUID] = []
        self._far, self._far_events, self._far_id = far, far_events, ""
        self._media: list[trio.SocketStream] = []

    async def serve_media(self, stream: trio.SocketStream) -> None:
        self._media.append(stream)
        with trio.move_on_after(30):
            header = await stream.receive_some(19)
            self.media_arrived.append(UUID(bytes=bytes(header[3:19])))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_send_silence, stream)
                with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                    while await stream.receive_some(4096):
                        pass
                nursery.cancel_scope.cancel()

    async def place_call(self) -> str:
        self._far_id, caller_id = f"far-{uuid4()}", f"caller-{uuid4()}"
        query = {"endpoint": "Local/100@phones", "app": "contract-far"}
        query |= {"channelId": self._far_id, "otherChannelId": caller_id}
        await trio.to_thread.run_sync(
            self._post, "channels", query, {"variables": {"__BRIDGE_APPS": self.config.app}}
        )
        return caller_id

    def _post(self, uri: str, query: dict[str, str], body: object) -> None:
        request = urllib.request.Request(
            f"http://{PLACE}/ari/{uri}?{urllib.parse.urlencode(query)}",
            data=json.dumps(body).encode(),
            method="POST",
            headers={
                "Content-Type": "application/json",
                "Authorization": f"Basic {b64encode(b'bridge:bridge').decode()}",
            },
        )
        with urllib.request.urlopen(request, timeout=3):
            pass

    async def media_dies(self) -> None:
        for stream in self._media:
            await trio.aclose_forcefully(stream)
        await trio.sleep(0.2)  # as long as a process takes to start, at least

    async def far_end_presses(self, digit: str) -> None:
        # The far half enters its own app when the caller's half is answered.
        await contract.eventually(
            lambda: any(e.channel and e.channel.id == self._far_id for e in self._far_events), "the far end's answer"
        )
        await self._far.request("POST", f"channels/{self._far_id}/dtmf", dtmf=digit)

    async def far_end_hangs_up(self) -> None:
        await self._far.request("DELETE", f"channels/{self._far_id}", reason="normal")


async def _send_silence(stream: trio.SocketStream) -> None:
    """Without it Asterisk's thread that reads would hold the channel, and answers took seconds (#2089)."""
    with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        while True:
            await stream.send_all(encode(Kind.SLIN16, bytes(640)))
            await trio.sleep(0.02)


@pytest.mark.parametrize("clause", contract.CONTRACT, ids=lambda clause: clause.__name__)
@pytest.mark.parametrize(
    ("version", "requests", "late"),
    [
        ("22.10.1", "auto", {}),
        ("22.10.1", "http", {}),
        # Events and answers come by different ways, so that either may be the first.
        ("20.6.0", "auto", {}),
        ("20.6.0", "auto", {"events_s": 0.15}),
        ("20.6.0", "auto", {"answers_s": 0.15}),
    ],
    ids=["websocket", "http", "old", "old-late-events", "old-late-answers"],
)
async def test_the_fake_keeps_the_contract(
    clause: contract.Clause,
    version: str,
    requests: RequestsChoice,
    late: dict[str, float],
    autojump_clock: trio.testing.MockClock,
) -> None:
    exchange = FakeExchange(version, requests)
    exchange.ari.late(**late)
    async with trio.open_nursery() as nursery:
        await nursery.start(exchange.ari.run)
        await clause(exchange)
        nursery.cancel_scope.cancel()
    assert not exchange.ari.bridges
    by_http = version == "20.6.0" or requests == "http"
    assert (exchange.ari.by_http == len(exchange.ari.requests)) is by_http
    assert exchange.ari.dropped == 0


@asynccontextmanager
async def real_exchange() -> AsyncIterator[RealExchange]:
    far_events: list[Message] = []

    async def on_connected(after_replaced: bool) -> None:
        await trio.sleep_forever()

    config = Asterisk(url=f"ws://{PLACE}", password="bridge", app="contract-far")
    far = AriClient(config, 3.0, far_events.append, on_connected, lambda: None)
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        exchange = RealExchange(listeners[0].socket.getsockname()[1], far, far_events)
        nursery.start_soon(trio.serve_listeners, exchange.serve_media, listeners)
        nursery.start_soon(far.run)
        await contract.eventually(lambda: far.connected, "the ARI connection (asterisk/asterisk.sh up)")
        yield exchange
        nursery.cancel_scope.cancel()


@pytest.mark.asterisk
@pytest.mark.parametrize("requests", ["websocket", "http"])
@pytest.mark.parametrize("clause", contract.CONTRACT, ids=lambda clause: clause.__name__)
async def test_a_real_asterisk_keeps_the_contract(clause: contract.Clause, requests: RequestsChoice) -> None:
    async with real_exchange() as exchange:
        exchange.config = msgspec.structs.replace(exchange.config, requests=requests)
        await clause(exchange)


async def test_the_fake_knows_no_more_than_the_real_one(autojump_clock: trio.testing.MockClock) -> None:
    exchange = FakeExchange()
    exchange.ari.incoming_call()
    assert exchange.ari.channels["demo-1795241822.1"].variables == {"STASISSTATUS": "FAILED"}  # nobody is connected

    async def body(raw: contract.Raw) -> None:
        assert await raw.refused("GET", "nonsense") == (404, "404 Resource not found")
        assert exchange.ari.requests[-1] == ("GET", "nonsense", {})

    async with trio.open_nursery() as nursery:
        await nursery.start(exchange.ari.run)
        await contract.with_raw(exchange, body)
        nursery.cancel_scope.cancel()


def test_the_fake_fails_the_test_that_sends_an_unknown_parameter() -> None:
    with pytest.raises(AssertionError, match="unknown parameters"):
        AriServer()._carry_out("POST", ["bridges"], {"typ": "mixing"})
