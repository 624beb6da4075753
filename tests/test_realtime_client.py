"""Opening a session: every way that a server refuses, stalls or breaks, against the strict fake."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable

import pytest
import trio
from trio.testing import MockClock

from bridge import realtime
from bridge.config import Agent, Realtime
from bridge.errors import ModelError, ModelLost, ModelRejected, ModelUnreachable
from bridge.realtime_client import RealtimeConnection, open_realtime, session_url
from simulators.memory import MemoryListener
from simulators.model_script import Pace, Say, Script
from simulators.realtime_server import RealtimeServer

CONFIG = Realtime(url="ws://model.test/v1/realtime", api_key="good")
SESSION = realtime.session_update(Agent(), [])


async def open_and(
    server: RealtimeServer,
    use: Callable[[RealtimeConnection], Awaitable[None]] | None = None,
    *,
    config: Realtime = CONFIG,
    connect_s: float = 8.0,
) -> None:
    """Open a session on `server` within virtual time; everything is closed afterwards."""
    async with trio.open_nursery() as nursery:
        listener: MemoryListener = await server.listen_in_memory(nursery)
        try:
            async with open_realtime(
                config, SESSION, connect_s=connect_s, close_s=2, connect_stream=listener.connect
            ) as connection:
                if use is not None:
                    await use(connection)
            await server.until(lambda: server.open_connections == 0)
        finally:
            nursery.cancel_scope.cancel()
    assert not server.problems


def only(group: BaseException) -> BaseException:
    while isinstance(group, BaseExceptionGroup):
        (group,) = group.exceptions
    return group


async def refused(server: RealtimeServer, **options: object) -> BaseException:
    with pytest.raises((ModelError, ExceptionGroup)) as caught:
        await open_and(server, **options)  # type: ignore[arg-type]
    return only(caught.value)


async def test_the_session_is_configured_before_anything_else(autojump_clock: MockClock) -> None:
    server = RealtimeServer(Script(), key="good")
    await open_and(server)
    assert [passed.event["type"] for passed in server.received] == ["session.update"]
    assert server.session.config["audio"]["input"]["turn_detection"]["silence_duration_ms"] == 500


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("invalid_api_key", ModelRejected),
        ("model_not_found", ModelRejected),
        ("insufficient_quota", ModelRejected),
        ("beta_api_shape_disabled", ModelRejected),
        ("server_error", ModelUnreachable),
    ],
)
async def test_refusals_in_band_after_a_good_upgrade(
    autojump_clock: MockClock, code: str, kind: type[ModelError]
) -> None:
    server = RealtimeServer()
    with server.refusing(code):
        error = await refused(server)
    assert type(error) is kind
    assert isinstance(error, ModelError)
    assert error.code == code


@pytest.mark.parametrize(("status", "kind"), [(401, ModelRejected), (404, ModelRejected), (503, ModelUnreachable)])
async def test_refusals_by_http_status(autojump_clock: MockClock, status: int, kind: type[ModelError]) -> None:
    server = RealtimeServer()
    with server.http_status(status):
        assert type(await refused(server)) is kind


async def test_what_another_try_may_mend_is_tried_again_until_the_limit(autojump_clock: MockClock) -> None:
    server = RealtimeServer()
    tries = 0

    async def heal() -> None:
        nonlocal tries
        with server.http_status(503):
            await trio.sleep(3)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(heal)
        await trio.testing.wait_all_tasks_blocked()
        await open_and(server)
    assert 2.9 < trio.current_time() < 6


async def test_what_another_try_does_not_mend_is_not_tried_again(autojump_clock: MockClock) -> None:
    server = RealtimeServer()
    with server.refusing("invalid_api_key"):
        await refused(server)
    assert trio.current_time() < 1
    assert len(server.sessions) <= 1


async def test_silence_after_the_upgrade_has_a_limit(autojump_clock: MockClock) -> None:
    server = RealtimeServer()
    with server.silent():
        error = await refused(server, connect_s=5.0)
    assert isinstance(error, ModelUnreachable)
    assert "opened no session in time" in str(error)
    assert trio.current_time() <= 5.01 + 2


@pytest.mark.parametrize("fault", ["update_refused", "no_session_updated"])
async def test_an_update_that_is_not_acknowledged_is_no_session(autojump_clock: MockClock, fault: str) -> None:
    server = RealtimeServer()
    with getattr(server, fault)():
        error = await refused(server)
    assert isinstance(error, ModelRejected if fault == "update_refused" else ModelUnreachable)


async def test_another_format_than_asked_for_is_refused(autojump_clock: MockClock) -> None:
    server = RealtimeServer()
    with server.wrong_format({"type": "audio/pcmu"}):
        error = await refused(server)
    assert isinstance(error, ModelRejected)
    assert "audio/pcmu" in str(error)


async def test_conversation_created_before_the_session_does_no_harm(autojump_clock: MockClock) -> None:
    server = RealtimeServer()
    with server.faulty(conversation_created=True):
        await open_and(server)


@pytest.mark.parametrize("code", [None, 1000, 1011])
async def test_a_session_that_ends_is_lost_however_politely(autojump_clock: MockClock, code: int | None) -> None:
    server = RealtimeServer(Script.of(Say("x")))

    async def use(connection: RealtimeConnection) -> None:
        await server.session.drop(code)
        await connection.receive()

    error = await refused(server, use=use)
    assert isinstance(error, ModelLost)


async def test_closing_ends_although_much_is_unread(autojump_clock: MockClock) -> None:
    """The caller hangs up while a long answer pours in."""
    server = RealtimeServer(Script.of(Say("long", ms=100_000, pace=Pace(speed=math.inf, first_ms=0))))

    async def use(connection: RealtimeConnection) -> None:
        await connection.send(realtime.create_response())
        await trio.sleep(1)

    began = trio.current_time()
    await open_and(server, use)
    assert trio.current_time() - began < 5


async def test_nothing_reachable(autojump_clock: MockClock) -> None:
    def refuse() -> trio.abc.Stream:
        raise ConnectionRefusedError("nobody listens")

    with pytest.raises(ModelUnreachable, match="nobody listens"):
        async with open_realtime(CONFIG, SESSION, connect_s=4, close_s=1, connect_stream=refuse):
            pass
    assert trio.current_time() <= 4


async def test_a_key_never_shows_in_an_error(autojump_clock: MockClock) -> None:
    server = RealtimeServer()
    config = Realtime(url="ws://model.test/v1", api_key="sk-very-secret", headers={"api-key": "hush"})
    with server.http_status(401):
        error = await refused(server, config=config)
    assert "secret" not in repr(error)
    assert "hush" not in repr(error)


@pytest.mark.parametrize(
    ("url", "model", "expected"),
    [
        ("wss://x/v1/realtime", "m-1", "wss://x/v1/realtime?model=m-1"),
        ("wss://x/v1/realtime?a=b", "m 1", "wss://x/v1/realtime?a=b&model=m+1"),
        ("wss://x/v1?model=theirs", "ours", "wss://x/v1?model=theirs"),
        ("wss://x/v1", "", "wss://x/v1"),
    ],
)
def test_the_model_goes_into_the_query(url: str, model: str, expected: str) -> None:
    assert session_url(Realtime(url=url, model=model)) == expected
