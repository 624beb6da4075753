"""The connection to ARI: what is logged, how it comes back, and what becomes of requests, in virtual time."""

from __future__ import annotations

import logging
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import islice

import msgspec
import pytest
import trio

from bridge.ari_client import AriClient, Message, backoff
from bridge.config import Asterisk
from bridge.errors import ControlRefused, ControlUnavailable
from simulators.ari_server import AriServer

CONFIG = Asterisk(password="bridge")


class Client:
    """A client on a fake Asterisk with what it told."""

    def __init__(self, ari: AriServer, config: Asterisk = CONFIG) -> None:
        self.ari = ari
        self.events: list[Message] = []
        self.connections: list[tuple[float, bool]] = []
        self.tries: list[float] = []
        self.reachable = True
        self.client = AriClient(
            config, 2.0, self.events.append, self._connected, lambda: None, connect_stream=self._connect
        )

    def _connect(self) -> trio.abc.Stream:
        self.tries.append(trio.current_time())
        if not self.reachable:
            raise ConnectionRefusedError("all attempts to connect to 127.0.0.1:8088 failed")
        return self.ari.connect()

    async def _connected(self, after_replaced: bool) -> None:
        self.connections.append((trio.current_time(), after_replaced))
        await trio.sleep_forever()


@asynccontextmanager
async def running(config: Asterisk = CONFIG, *, reachable: bool = True) -> AsyncIterator[Client]:
    setup = Client(AriServer(), config)
    setup.reachable = reachable
    async with trio.open_nursery() as nursery:
        await nursery.start(setup.ari.run)
        nursery.start_soon(setup.client.run)
        await trio.testing.wait_all_tasks_blocked()
        yield setup
        nursery.cancel_scope.cancel()


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Warnings and worse."""
    records = [record for record in caplog.records if record.levelno >= logging.WARNING]
    return [record.getMessage() for record in records if record.name == "bridge.ari"]


def test_backoff_doubles_up_to_ten_seconds() -> None:
    assert list(islice(backoff(), 7)) == [0.5, 1, 2, 4, 8, 10, 10]


async def test_it_comes_back_when_asterisk_does(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with running() as setup:
        await trio.sleep(20)
        setup.reachable = False
        await setup.ari.drop_connection()
        await trio.testing.wait_all_tasks_blocked()
        assert not setup.client.connected
        lost = trio.current_time()
        await trio.sleep(30)
        tries = [round(tried - lost, 3) for tried in setup.tries if tried > lost]
        assert tries == [0.5, 1.5, 3.5, 7.5, 15.5, 25.5]
        setup.reachable = True
        await trio.sleep(10)
        assert setup.client.connected
        assert await setup.client.request("GET", "bridges") == []
    # One line for the loss, one for the other reason of the tries that followed; not one a try.
    assert len(lines(caplog)) == 2
    assert lines(caplog)[0].startswith("ARI connection to 127.0.0.1:8088: lost: ")
    assert "is Asterisk running" in lines(caplog)[1]


async def test_a_clean_close_is_a_loss_too_and_never_a_tight_loop(autojump_clock: trio.testing.MockClock) -> None:
    async with running() as setup:
        began = trio.current_time()
        while trio.current_time() - began < 60:
            await setup.ari.close_connection()
            await trio.sleep(0.1)
        # 0.5, 1, 2, 4, 8, 10, 10 ... s apart, for each closes at once and so never counts as a success.
        assert 7 <= setup.ari.accepted <= 10


@pytest.mark.parametrize(
    ("password", "enabled", "remedy"),
    [
        ("wrong-secret", True, r"refused user 'bridge' (HTTP 401); compare asterisk.username"),
        ("bridge", False, r"no ARI there (HTTP 404); set enabled=yes in ari.conf"),
    ],
)
async def test_a_refusal_says_what_to_do_and_keeps_trying(
    password: str,
    enabled: bool,
    remedy: str,
    autojump_clock: trio.testing.MockClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    ari_off = AriServer()
    ari_off.enabled = enabled
    setup = Client(ari_off, msgspec.structs.replace(CONFIG, password=password))
    async with trio.open_nursery() as nursery:
        await nursery.start(ari_off.run)
        nursery.start_soon(setup.client.run)
        await trio.sleep(60)
        nursery.cancel_scope.cancel()
    assert len(setup.tries) >= 8
    assert len(lines(caplog)) == 1
    assert remedy in lines(caplog)[0]
    ours = [record for record in caplog.records if record.name != "websockets.server"]  # the fake's own log
    for record in ours:
        assert "wrong-secret" not in record.getMessage()
        assert b64encode(f"bridge:{password}".encode()).decode() not in record.getMessage()


async def test_an_asterisk_that_accepts_and_says_nothing(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    streams: list[trio.abc.Stream] = []

    def connect_to_nobody() -> trio.abc.Stream:
        ours, theirs = trio.testing.memory_stream_pair()
        streams.append(theirs)
        return ours

    async def connected(after_replaced: bool) -> None: ...

    client = AriClient(CONFIG, 2.0, lambda event: None, connected, lambda: None, connect_stream=connect_to_nobody)
    with trio.move_on_after(12):
        await client.run()
    assert len(streams) == 3
    assert "no answer to the opening handshake" in lines(caplog)[0]


async def test_a_connection_that_goes_silent_is_noticed_within_15_s(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running() as setup:
        await trio.sleep(1)
        connection = setup.ari._current
        assert connection is not None
        # The network swallows everything from here on, without an error: no frame, no pong.

        async def swallow(data: bytes) -> None:
            await trio.lowlevel.checkpoint()

        monkeypatch.setattr(connection.websocket.stream, "send_all", swallow)
        await trio.sleep(15.1)
        assert not setup.client.connected or len(setup.connections) == 2


async def test_all_that_waits_fails_when_the_connection_is_lost(autojump_clock: trio.testing.MockClock) -> None:
    async with running() as setup:
        failures: list[float] = []

        async def ask() -> None:
            with pytest.raises(ControlUnavailable, match="lost before the answer to GET bridges"):
                await setup.client.request("GET", "bridges")
            failures.append(trio.current_time())

        with setup.ari.never_answers("GET"):
            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(ask)
                await trio.sleep(1)
                dropped = trio.current_time()
                await setup.ari.drop_connection()
        assert failures == [dropped] * 3


async def test_an_answer_that_comes_too_late_is_dropped(autojump_clock: trio.testing.MockClock) -> None:
    async with running() as setup:
        with setup.ari.never_answers("GET bridges"), pytest.raises(ControlUnavailable, match="within 2 s"):
            await setup.client.request("GET", "bridges")
        connection = setup.ari._current
        assert connection is not None
        connection.post({"type": "RESTResponse", "request_id": "1", "status_code": 200, "message_body": "[]"})
        assert (await setup.client.request("GET", "asterisk/info", only="system"))["system"]["version"] == "22.10.1"


async def test_a_cancelled_request_does_not_harm_the_connection(autojump_clock: trio.testing.MockClock) -> None:
    async with running() as setup:
        with trio.CancelScope() as scope:
            scope.cancel()
            await setup.client.request("GET", "bridges")
        assert scope.cancelled_caught
        assert await setup.client.request("GET", "bridges") == []


async def test_requests_beyond_the_outbox_fail_instead_of_waiting(autojump_clock: trio.testing.MockClock) -> None:
    async with running() as setup:
        refused: list[ControlUnavailable] = []

        async def ask() -> None:
            try:
                await setup.client.request("GET", "bridges")
            except ControlUnavailable as error:
                refused.append(error)

        async with trio.open_nursery() as nursery:
            for _ in range(300):
                nursery.start_soon(ask)
        assert 0 < len(refused) <= 300 - 256
        assert "256 requests wait" in str(refused[0])


async def test_a_refusal_carries_the_words_of_asterisk(autojump_clock: trio.testing.MockClock) -> None:
    async with running() as setup:
        with pytest.raises(ControlRefused) as caught:
            await setup.client.request("DELETE", "channels/nobody")
        assert caught.value.status == 404
        assert str(caught.value) == "Asterisk refused DELETE channels/nobody: 404 Channel not found"


async def test_a_message_that_is_not_understood_costs_nothing_else(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with running() as setup:
        connection = setup.ari._current
        assert connection is not None
        await connection.websocket.send("{not json")
        await connection.websocket.send('{"type": "StasisStart", "channel": 7}')
        setup.ari.incoming_call()
        await trio.testing.wait_all_tasks_blocked()
        assert [event.type for event in setup.events] == ["StasisStart"]
        assert len(lines(caplog)) == 2


async def test_another_process_that_takes_the_app_is_not_fought(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with running() as setup:
        other = Client(setup.ari)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(other.client.run)
            await trio.sleep(1)
            assert not setup.client.connected
            assert other.client.connected
            # Calls that we still have can be ended on the old socket.
            assert await setup.client.request("GET", "bridges") == []
            await trio.sleep(28)
            assert setup.ari.accepted == 2
            assert "another process took the Stasis app bridge-1" in lines(caplog)[0]
            nursery.cancel_scope.cancel()
        await trio.sleep(3)
        assert setup.client.connected
        assert [after_replaced for _, after_replaced in setup.connections] == [False, True]
