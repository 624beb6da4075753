"""Requests by HTTP, and when they go that way: against a fake Asterisk of any age, in virtual time."""

from __future__ import annotations

import logging
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import pytest
import trio
from trio.testing import MockClock

from bridge.ari_client import AriClient, Message
from bridge.config import Asterisk
from bridge.errors import ControlError, ControlRefused, ControlUnavailable
from simulators.ari_server import AriServer

CONFIG = Asterisk(password="hush-hush")
OLD = "20.6.0"


class Client:
    """A client and the fake Asterisk that it talks to."""

    def __init__(self, ari: AriServer, config: Asterisk) -> None:
        self.ari = ari
        self.events: list[Message] = []
        self.connected = trio.Event()
        self.client = AriClient(
            config, 2.0, self.events.append, self._connected, lambda: None, connect_stream=ari.connect
        )
        self.request = self.client.request

    async def _connected(self, after_replaced: bool) -> None:
        self.connected.set()
        await trio.sleep_forever()

    async def reconnected(self) -> None:
        self.connected = trio.Event()
        await self.connected.wait()

    @property
    def by(self) -> tuple[bool, str] | None:
        """Whether requests go by HTTP, and why."""
        chosen = self.client.requests_by
        return (chosen.http, chosen.why) if chosen else None


@asynccontextmanager
async def running(
    version: str = OLD, config: Asterisk = CONFIG, *, takes_requests: bool = False
) -> AsyncIterator[Client]:
    ari = AriServer(version=version, password="hush-hush")
    ari.takes_requests = takes_requests
    setup = Client(ari, config)
    async with trio.open_nursery() as nursery:
        await nursery.start(ari.run)
        async with trio.open_nursery() as clients:
            clients.start_soon(setup.client.run)
            await setup.connected.wait()
            yield setup
            clients.cancel_scope.cancel()
        await trio.sleep(1)
        assert ari.http_connections == 0, "a connection was left open"
        with pytest.raises(ControlUnavailable, match="no ARI connection"):
            await setup.request("GET", "bridges")
        nursery.cancel_scope.cancel()


# --- which way? --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "takes", "wanted", "http", "why", "after_s"),
    [
        ("20.6.0", False, "auto", True, "Asterisk 20.6.0 takes none on its websocket", 0),
        ("22.3.0", False, "auto", True, "Asterisk 22.3.0 takes none on its websocket", 0),
        ("18.26.4", False, "auto", True, "Asterisk 18.26.4 takes none on its websocket", 0),
        ("20.14.0", True, "auto", False, "Asterisk 20.14.0 takes them on its websocket", 0),
        ("22.10.1", True, "auto", False, "Asterisk 22.10.1 takes them on its websocket", 0),
        # No release number: only a try can tell.
        ("GIT-22-ab", True, "auto", False, "Asterisk GIT-22-ab answered one on its websocket", 0),
        ("GIT-18-ab", False, "auto", True, "Asterisk GIT-18-ab did not answer one on its websocket", 1),
        ("22.10.1", True, "http", True, 'asterisk.requests = "http"', 0),
        ("20.6.0", False, "websocket", False, 'asterisk.requests = "websocket"', 0),
    ],
)
async def test_the_way_of_requests(
    autojump_clock: MockClock,
    caplog: pytest.LogCaptureFixture,
    version: str,
    takes: bool,
    wanted: str,
    http: bool,
    why: str,
    after_s: float,
) -> None:
    caplog.set_level(logging.INFO, "bridge.ari")
    config = msgspec.convert(msgspec.to_builtins(CONFIG) | {"requests": wanted}, Asterisk)
    began = trio.current_time()
    async with running(version, config, takes_requests=takes) as setup:
        assert trio.current_time() - began == after_s
        assert setup.by == (http, why)
        if http or takes:
            assert await setup.request("GET", "bridges") == []
        assert (setup.ari.http_connections > 0) is http, "and none is left open where the websocket does it"
    told = [record.getMessage() for record in caplog.records if record.getMessage().startswith("ARI requests go")]
    assert told == [f"ARI requests go {'by HTTP' if http else 'on the websocket'}: {why}"]


async def test_a_version_in_the_handshake_spares_the_question(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    ari = AriServer(version=OLD, password="hush-hush")
    ari.websocket_server_header = f"Asterisk/{OLD}"
    setup = Client(ari, CONFIG)
    async with trio.open_nursery() as nursery:
        await nursery.start(ari.run)
        nursery.start_soon(setup.client.run)
        await setup.connected.wait()
        assert setup.by == (True, "Asterisk Asterisk/20.6.0 takes none on its websocket")
        assert ari.requests == []
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("takes", [True, False])
async def test_where_http_does_not_answer_the_websocket_is_tried(autojump_clock: MockClock, takes: bool) -> None:
    ari = AriServer(version="22.10.1", password="hush-hush")
    ari.takes_requests = takes
    setup = Client(ari, CONFIG)
    with ari.slow("GET asterisk/info", 5):
        async with trio.open_nursery() as nursery:
            await nursery.start(ari.run)
            nursery.start_soon(setup.client.run)
            await setup.connected.wait()
            words = "answered one" if takes else "did not answer one"
            assert setup.by == (not takes, f"Asterisk of unknown version {words} on its websocket")
            nursery.cancel_scope.cancel()


async def test_until_the_choice_is_made_requests_go_by_http(autojump_clock: MockClock) -> None:
    ari = AriServer(version="GIT-1", password="hush-hush")
    ari.takes_requests = False
    setup = Client(ari, CONFIG)
    async with trio.open_nursery() as nursery:
        await nursery.start(ari.run)
        nursery.start_soon(setup.client.run)
        await trio.sleep(0.5)
        assert setup.by is None
        assert await setup.request("GET", "bridges") == []
        assert trio.current_time() == 0.5
        nursery.cancel_scope.cancel()


async def test_each_connection_decides_anew(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "bridge.ari")
    async with running() as setup:
        for version, takes in (("20.6.0", False), ("22.10.1", True), ("20.6.0", False)):
            setup.ari.version, setup.ari.takes_requests = version, takes
            await setup.ari.drop_connection()
            await setup.reconnected()
            assert setup.by is not None
            assert setup.by[0] is not takes
            assert await setup.request("GET", "bridges") == []
        assert setup.ari.dropped == 0
    told = [record.getMessage() for record in caplog.records if record.getMessage().startswith("ARI requests go")]
    assert [line.split(":")[0] for line in told] == [
        *("ARI requests go by HTTP", "ARI requests go on the websocket", "ARI requests go by HTTP"),
    ]


# --- what requests by HTTP are like --------------------------------------------------------------------------------------


async def test_connections_are_kept_and_a_closed_one_is_replaced(autojump_clock: MockClock) -> None:
    async with running() as setup:
        for _ in range(20):
            assert await setup.request("GET", "bridges") == []
        assert setup.ari.http_connections == 1
        await trio.sleep(20)  # Asterisk closes what is idle for 15 s
        assert setup.ari.http_connections == 0
        assert await setup.request("GET", "bridges") == []
        assert setup.ari.http_connections == 1


async def test_no_request_waits_for_another_on_no_more_than_10_connections(autojump_clock: MockClock) -> None:
    async with running() as setup:
        done: list[float] = []

        async def ask() -> None:
            await setup.request("GET", "bridges")
            done.append(trio.current_time() - began)

        began = trio.current_time()
        with setup.ari.slow("GET bridges", 0.5):
            async with trio.open_nursery() as nursery:
                for _ in range(15):
                    nursery.start_soon(ask)
                await trio.sleep(0.1)
                assert setup.ari.http_connections == 10
        assert done == [0.5] * 10 + [1.0] * 5


async def test_each_request_has_its_own_time_limit(autojump_clock: MockClock) -> None:
    async with running() as setup:
        with setup.ari.never_answers("DELETE"):
            async with trio.open_nursery() as nursery:

                async def unanswered() -> None:
                    with pytest.raises(ControlUnavailable, match="no answer to DELETE bridges/x within 2 s"):
                        await setup.request("DELETE", "bridges/x")

                for _ in range(5):
                    nursery.start_soon(unanswered)
                await trio.sleep(1)
                began = trio.current_time()
                assert await setup.request("GET", "bridges") == []
                assert trio.current_time() == began
        assert await setup.request("GET", "bridges") == []
        assert setup.ari.http_connections <= 2, "those without an answer are closed"


async def test_requests_beyond_256_fail_instead_of_waiting(autojump_clock: MockClock) -> None:
    async with running() as setup:
        failed: list[ControlError] = []

        async def ask() -> None:
            try:
                await setup.request("GET", "bridges")
            except ControlError as error:
                failed.append(error)

        async with trio.open_nursery() as nursery:
            for _ in range(300):
                nursery.start_soon(ask)
        assert len(failed) == 300 - 256
        assert "256 requests wait" in str(failed[0])


async def test_a_cancelled_request_does_not_harm_the_others(autojump_clock: MockClock) -> None:
    async with running() as setup:
        with setup.ari.slow("GET bridges", 1), trio.move_on_after(0.5) as scope:
            await setup.request("GET", "bridges")
        assert scope.cancelled_caught
        for _ in range(25):  # more than there may be connections
            with trio.CancelScope() as at_once:
                at_once.cancel()
                await setup.request("GET", "bridges")
            assert at_once.cancelled_caught
        assert await setup.request("GET", "bridges") == []


async def test_requests_go_on_while_the_websocket_is_lost(autojump_clock: MockClock) -> None:
    async with running() as setup:
        await setup.ari.drop_connection()
        await trio.sleep(0.1)
        assert not setup.client.connected
        assert await setup.request("GET", "bridges") == []


async def test_an_asterisk_that_is_gone_is_told_at_once(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> trio.abc.Stream:
        raise ConnectionRefusedError("connection refused")

    async with running() as setup:
        await trio.sleep(20)
        backend = setup.client._http._transport._pool._network_backend
        monkeypatch.setattr(backend, "_connect_stream", refuse)
        began = trio.current_time()
        with pytest.raises(ControlUnavailable, match=r"no HTTP connection to .* for GET bridges: connection refused"):
            await setup.request("GET", "bridges")
        assert trio.current_time() == began


async def test_a_refusal_carries_the_words_of_asterisk(autojump_clock: MockClock) -> None:
    async with running() as setup:
        with pytest.raises(ControlRefused) as caught:
            await setup.request("DELETE", "channels/nobody")
        assert caught.value.status == 404
        assert str(caught.value) == "Asterisk refused DELETE channels/nobody: 404 Channel not found"
        setup.ari.enabled = False  # an answer that is no JSON
        with pytest.raises(ControlRefused, match="Asterisk refused GET bridges: 404 Not Found"):
            await setup.request("GET", "bridges")


async def test_a_request_that_can_not_be_sent_harms_no_other(autojump_clock: MockClock) -> None:
    async with running() as setup:
        with pytest.raises(ControlUnavailable, match="URL too long"):
            await setup.request("POST", "channels/x/variable", variable="A", value="a" * 70_000)
        assert await setup.request("GET", "bridges") == []


async def test_secrets_are_neither_logged_nor_told(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    errors: list[str] = []
    async with running() as setup:
        for fault in (setup.ari.never_answers("POST"), setup.ari.slow("POST", 0)):
            with fault, pytest.raises(ControlError) as caught:
                await setup.request("POST", "channels/x/variable", variable="PIN", value="4711")
            errors.append(str(caught.value))
    ours = [record.getMessage() for record in caplog.records if record.name != "websockets.server"]
    assert ours
    for text in (*ours, *errors):
        assert "hush-hush" not in text
        assert b64encode(b"bridge:hush-hush").decode() not in text
        assert "4711" not in text


async def test_addresses_become_those_of_http() -> None:
    from bridge.ari_http import HttpRequests

    bases = {
        "ws://pbx:8088": "http://pbx:8088/ari/",
        "wss://pbx.example/prefix/": "https://pbx.example/prefix/ari/",
    }
    for url, base in bases.items():
        assert HttpRequests(msgspec.structs.replace(CONFIG, url=url))._base == base
