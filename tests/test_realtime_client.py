"""Opening a session: every way that a server refuses, stalls or breaks, against the strict fake."""

from __future__ import annotations

import contextlib
import json
import logging
import math
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest
import trio
from trio.testing import MockClock
from websockets.http11 import Request, Response
from websockets.trio.server import ServerConnection, serve

from bridge import realtime, realtime_errors
from bridge.agent import Agent
from bridge.config import Realtime
from bridge.errors import ModelError, ModelLost, ModelRejected, ModelUnreachable
from bridge.realtime_client import RealtimeConnection, open_realtime
from simulators.memory import MemoryListener, memory_stream_pair
from simulators.model_script import Pace, Say, Script
from simulators.realtime_server import REFUSALS, RealtimeServer

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


async def test_a_connection_that_breaks_before_the_upgrade_was_sent_is_tried_again(autojump_clock: MockClock) -> None:
    """websockets says `ConnectionClosed` then, outside of any handshake error; the soak found it as a defect of ours."""
    dials = 0

    async with trio.open_nursery() as nursery:
        listener = await RealtimeServer(Script()).listen_in_memory(nursery)

        def connect() -> trio.abc.Stream:
            nonlocal dials
            dials += 1
            if dials > 1:
                return listener.connect()
            ours, theirs = memory_stream_pair()
            theirs.reset()
            return ours

        async with open_realtime(CONFIG, SESSION, connect_s=8, close_s=2, connect_stream=connect):
            assert dials == 2
        nursery.cancel_scope.cancel()


# Every row of section 1.3: how an opening fails, and whether another try may help.
IN_BAND = {
    "invalid_api_key": False,
    "beta_api_shape_disabled": False,
    "missing_model": False,
    "invalid_model": False,
    "model_not_found": False,
    "insufficient_permissions": False,
    "insufficient_quota": False,
    "credit_balance_exhausted": False,
    "session_limit_reached": False,
    "model_load_error": False,
    "server_error": True,
}
HTTP = {
    **dict.fromkeys((301, 308, 400, 401, 402, 403, 404, 405, 410, 422, 426), False),
    **dict.fromkeys((408, 425, 429, 500, 502, 503, 504), True),
}
CLOSES = {
    **dict.fromkeys((1002, 1003, 1008, 3000, 4000, 4003, 4004), False),
    **dict.fromkeys((1000, 1001, 1011, 1012, 1013), True),
}


async def test_every_refusal_of_the_simulator_is_in_the_table() -> None:
    assert set(REFUSALS) == set(IN_BAND), "say here whether another try may help"


@pytest.mark.parametrize(("code", "again"), IN_BAND.items())
async def test_refusals_in_band_after_a_good_upgrade(autojump_clock: MockClock, code: str, again: bool) -> None:
    server = RealtimeServer()
    with server.refusing(code):
        error = await refused(server)
    assert type(error) is (ModelUnreachable if again else ModelRejected)
    assert isinstance(error, ModelError)
    assert error.code == code
    assert (len(server.sessions) > 1) is again
    assert (trio.current_time() > 6) is again


@pytest.mark.parametrize(("status", "again"), HTTP.items())
async def test_refusals_by_http_status(autojump_clock: MockClock, status: int, again: bool) -> None:
    server = RealtimeServer()
    with server.http_status(status):
        error = await refused(server)
    assert type(error) is (ModelUnreachable if again else ModelRejected)
    assert f"HTTP {status}" in str(error)
    assert (trio.current_time() > 6) is again


@pytest.mark.parametrize(("code", "again"), CLOSES.items())
async def test_closes_without_a_word(autojump_clock: MockClock, code: int, again: bool) -> None:
    server = RealtimeServer()
    with server.closing_at_once(code):
        error = await refused(server)
    assert type(error) is (ModelUnreachable if again else ModelRejected)
    assert (trio.current_time() > 6) is again


async def test_a_connection_that_breaks_is_tried_again(autojump_clock: MockClock) -> None:
    server = RealtimeServer()
    with server.faulty(created_after_s=1), server.dropped():
        error = await refused(server)
    assert type(error) is ModelUnreachable
    assert len(server.sessions) > 1


@pytest.mark.parametrize(
    ("status", "body", "kind", "code"),
    [
        (429, b'{"error":{"type":"x","code":"insufficient_quota"}}', ModelRejected, "insufficient_quota"),
        (429, b'{"error":{"code":"rate_limit_exceeded"}}', ModelUnreachable, "rate_limit_exceeded"),
        (
            400,
            b'{"error":{"code":"OpperationNotSupported","message":"hush"}}',
            ModelRejected,
            "OpperationNotSupported",
        ),
        (401, b'{"error":{"code":"401","message":"Access denied"}}', ModelRejected, "401"),
        (503, b"<html>", ModelUnreachable, "503"),
        (503, b"", ModelUnreachable, "503"),
        (502, b"[1]", ModelUnreachable, "502"),
    ],
)
def test_the_body_of_a_refusal(status: int, body: bytes, kind: type[ModelError], code: str) -> None:
    error = realtime_errors.error_of_http_status(status, body)
    assert type(error) is kind
    assert error.code == code
    assert "hush" not in str(error)


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


@pytest.mark.parametrize("key", ["", "wrong"])
async def test_a_key_that_was_never_set_is_told_from_a_wrong_one(key: str, autojump_clock: MockClock) -> None:
    error = await refused(RealtimeServer(key="right"), config=Realtime(url=CONFIG.url, api_key=key))
    assert isinstance(error, ModelRejected)
    assert ("No key was sent: set OPENAI_API_KEY" in str(error)) == (key == "")


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


async def test_a_session_that_is_created_seconds_late(autojump_clock: MockClock) -> None:
    """LocalAI loads the model first."""
    server = RealtimeServer()
    with server.faulty(created_after_s=7):
        await open_and(server)
    assert 7 <= trio.current_time() < 8
    assert len(server.sessions) == 1


async def test_a_server_that_greets_with_its_conversation_and_waits_for_the_update(autojump_clock: MockClock) -> None:
    """xAI wants the update after `conversation.created` (section 3.1); its session stands flat."""
    told: list[dict[str, Any]] = []

    async def grok(websocket: ServerConnection) -> None:
        await websocket.send('{"type":"conversation.created","conversation":{"id":"c"}}')
        told.append(json.loads(await websocket.recv()))
        await websocket.send('{"type":"session.created","session":{"expires_at":0}}')
        session = {"audio": told[0]["session"]["audio"], "voice": "ara", "turn_detection": {"type": "server_vad"}}
        await websocket.send(json.dumps({"type": "session.updated", "session": session}))
        await websocket.wait_closed()

    config = Realtime(url="ws://model.test/v1/realtime", dialect="xai")
    async with trio.open_nursery() as nursery:
        listener = MemoryListener()
        await nursery.start(partial(serve, grok, listeners=[listener.as_socket_listener()]))
        async with open_realtime(
            config, SESSION, connect_s=8, close_s=2, connect_stream=listener.connect
        ) as connection:
            assert connection.session["audio"]["output"]["voice"] == "ara"
            assert connection.session["audio"]["input"]["turn_detection"] == {"type": "server_vad"}
            assert connection.expires_at is None
        nursery.cancel_scope.cancel()
    assert told[0]["session"]["voice"] == "marin"
    assert told[0]["session"]["turn_detection"]["type"] == "server_vad"
    assert "voice" not in told[0]["session"]["audio"]["output"]


async def test_a_redirect_is_not_followed_with_our_key(autojump_clock: MockClock) -> None:
    asked: list[str] = []

    def moved(websocket: ServerConnection, request: Request) -> Response:
        asked.append(request.path)
        response = websocket.respond(307, "")
        response.headers["Location"] = "ws://elsewhere.test/v1/realtime"
        return response

    async def nothing(websocket: ServerConnection) -> None:
        raise AssertionError("no session was meant to open")

    async with trio.open_nursery() as nursery:
        listener = MemoryListener()
        await nursery.start(partial(serve, nothing, listeners=[listener.as_socket_listener()], process_request=moved))
        with pytest.raises(ModelRejected, match=r"the server moved; set realtime\.url"):
            async with open_realtime(CONFIG, SESSION, connect_s=8, close_s=2, connect_stream=listener.connect):
                pass
        nursery.cancel_scope.cancel()
    assert len(asked) == 1


async def test_what_the_session_is_and_when_it_ends_is_told(autojump_clock: MockClock) -> None:
    server = RealtimeServer()

    async def use(connection: RealtimeConnection) -> None:
        assert connection.session["audio"]["output"]["voice"] == "marin"
        assert connection.expires_at == server.session.config["expires_at"]

    await open_and(server, use)


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


@pytest.mark.parametrize("auth", ["bearer", "api-key", "query", "subprotocol"])
async def test_a_key_never_shows_in_a_log(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture, auth: str
) -> None:
    """websockets writes down all headers at DEBUG; the simulator's own side does here, and is left out."""
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, logger="websockets")  # `set_up_logging` of another test may have silenced it
    config = Realtime(url="ws://model.test/v1/realtime", api_key="sk-very-secret", auth=auth)  # type: ignore[arg-type]
    with contextlib.suppress(ModelRejected, ExceptionGroup):
        await open_and(RealtimeServer(query_key="api_key"), config=config)
    ours = [record.getMessage() for record in caplog.records if record.name != "websockets.server"]
    assert "secret" not in str(ours)
    assert any("secret" in record.getMessage() for record in caplog.records), "the other side has seen it"


async def test_a_key_never_shows_in_an_error(autojump_clock: MockClock) -> None:
    server = RealtimeServer()
    for auth in ("bearer", "query", "subprotocol"):
        config = Realtime(url="ws://model.test/v1", api_key="sk-very-secret", auth=auth, headers={"x-token": "hush"})
        with server.http_status(401):
            error = await refused(server, config=config)
        assert "secret" not in repr(error)
        assert "hush" not in repr(error)
        assert error.__cause__ is None  # whose text would be the library's, and hold the URL
