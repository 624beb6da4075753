"""One POST and its limits, in virtual time against a scripted service, and on a real socket."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import trio
from http_peer import OK, Asked, Peer, Says

from bridge.errors import WebhookError, WebhookRefused, WebhookUnreachable
from bridge.webhook_client import Receiver, WebhookClient

SECRET = "whsec_" + "c2VjcmV0" * 4
SERVICE = Receiver("http://service.test/hooks?token=hidden", SECRET, {"Authorization": "Bearer hidden"})
BODY = b'{"call_id":"1"}'


def peer(*script: Says) -> Peer:
    return Peer(list(script), secret=SECRET, unix_s=lambda: 1000.0)


async def test_a_request_is_signed_and_its_answer_comes_back(autojump_clock: Any) -> None:
    service = peer(Says(body=b'{"agent": "sales"}'), Says(204))
    async with service.client() as it:
        answer = await it.post(SERVICE, "msg_1", BODY, limit_s=1)
        assert (answer.status, answer.json("it")) == (200, {"agent": "sales"})
        assert (await it.post(SERVICE, "msg_2", BODY, limit_s=1)).json("it") is None
    asked = service.asked[0]  # its signature has been verified
    assert (asked.path, asked.body, asked.message_id) == ("/hooks?token=hidden", BODY, "msg_1")
    assert asked.headers["authorization"] == "Bearer hidden"
    assert asked.headers["content-type"] == "application/json"
    assert service.connections == 1  # kept for the second


def endless() -> Any:
    return itertools.repeat(b"x" * 10_000)


@pytest.mark.parametrize(
    ("says", "kind", "words"),
    [
        (Says(500), WebhookUnreachable, "HTTP 500"),
        (Says(429, headers=(("retry-after", "30"),)), WebhookUnreachable, "HTTP 429"),
        (Says(404), WebhookRefused, "HTTP 404"),
        (Says(302, headers=(("location", "http://elsewhere.test/"),)), WebhookRefused, "redirects are not followed"),
        (Says(hangs=True), WebhookUnreachable, "did not answer within 2 s"),
        (Says(after_s=2.5), WebhookUnreachable, "did not answer within 2 s"),
        (Says(drops=True), WebhookUnreachable, "no answer from"),
        (Says(parts=endless()), WebhookRefused, "more than 1000000 bytes"),
        (Says(body=b"x" * 1_000_001), WebhookRefused, "more than 1000000 bytes"),
        (Says(headers=(("content-encoding", "gzip"),)), WebhookRefused, "encoding"),
    ],
)
async def test_what_fails_is_told_as_whose_fault_and_without_secrets(
    says: Says, kind: type[WebhookError], words: str, autojump_clock: Any
) -> None:
    service = peer(says, OK)
    async with service.client() as it:
        with pytest.raises(kind, match=words) as caught:
            await it.post(SERVICE, "msg_1", BODY, limit_s=2)
        assert "hidden" not in str(caught.value) + repr(SERVICE)
        assert "http://service.test/hooks" in str(caught.value)
        assert getattr(caught.value, "retry_after_s", None) == (30 if says.status == 429 else None)
        # And the client is as good as before.
        assert (await it.post(SERVICE, "msg_2", BODY, limit_s=2)).status == 200


@pytest.mark.parametrize(
    "receiver",
    [
        Receiver("ftp://service.test/"),
        Receiver("no url"),
        Receiver("http:///path"),
        Receiver("http://service.test/", headers={"X-Bad": "hidden\nheader"}),
        Receiver("http://service.test/", headers={"X-Bad": "hidd\u20acn"}),
    ],
)
async def test_settings_that_make_no_request(receiver: Receiver, autojump_clock: Any) -> None:
    async with peer(OK).client() as it:
        with pytest.raises(WebhookRefused) as caught:
            await it.post(receiver, "msg_1", BODY, limit_s=1)
        assert "hidd" not in str(caught.value)


async def test_an_answer_that_is_no_json(autojump_clock: Any) -> None:
    async with peer(Says(body=b"<html>")).client() as it:
        answer = await it.post(SERVICE, "msg_1", BODY, limit_s=1)
        with pytest.raises(WebhookRefused, match="no JSON"):
            answer.json("it")


async def test_asking_tries_again_with_the_same_id_within_one_limit(autojump_clock: Any) -> None:
    service = peer(Says(503), Says(drops=True), OK)
    async with service.client() as it:
        began = trio.current_time()
        assert (await it.ask(SERVICE, "msg_1", BODY, limit_s=5)).status == 200
    assert [asked.message_id for asked in service.asked] == ["msg_1"] * 3
    assert [round(asked.at - began, 3) for asked in service.asked] == [0, 0.2, 0.6]


@pytest.mark.parametrize(
    ("script", "limit_s", "tries", "lasted_s", "words"),
    [
        ([Says(500)], 5, 3, 0.6, "HTTP 500"),  # tries used up
        ([Says(500)], 0.5, 9, 0.2, "HTTP 500"),  # no time for the third
        ([Says(503, headers=(("retry-after", "9"),))], 5, 3, 0.0, "HTTP 503"),  # it wants more time than there is
        ([Says(404), OK], 5, 3, 0.0, "HTTP 404"),  # useless
        ([Says(500), Says(hangs=True)], 2, 3, 2.0, "did not answer"),
    ],
)
async def test_asking_ends_when_another_try_is_useless_or_too_late(
    script: list[Says], limit_s: float, tries: int, lasted_s: float, words: str, autojump_clock: Any
) -> None:
    async with peer(*script).client() as it:
        began = trio.current_time()
        with pytest.raises(WebhookError, match=words):
            await it.ask(SERVICE, "msg_1", BODY, limit_s=limit_s, tries=tries)
        assert trio.current_time() - began == pytest.approx(lasted_s)


@pytest.mark.parametrize(
    ("url", "where"),
    [
        ("https://me:hidden@service.test:8443/hooks?token=hidden#x", "https://service.test:8443/hooks"),
        ("https://hooks.test/services/T0000/Xy7f83kd93jf83jf0", "https://hooks.test/services/T0000/***"),
        ("https://service.test/a-long-name-without-figures", "https://service.test/a-long-name-without-figures"),
        ("http://[hidden", "an unreadable URL"),
    ],
)
def test_what_logs_say_of_a_receiver(url: str, where: str) -> None:
    assert Receiver(url).where == where


async def test_nobody_listens(autojump_clock: Any) -> None:
    service = peer(OK)
    service.up = False
    async with service.client() as it:
        with pytest.raises(WebhookUnreachable, match="connection refused"):
            await it.post(SERVICE, "msg_1", BODY, limit_s=1)


async def test_cancelled_in_each_phase_it_leaves_nothing_behind(autojump_clock: Any) -> None:
    def slowly(asked: Asked) -> Says:
        return Says(parts=iter([b"a"] * 3), after_s=1) if asked.message_id == "slow" else OK

    service = Peer(choose=slowly)
    async with service.client() as it:
        for after_s in (0, 0.5, 1):
            with trio.move_on_after(after_s):
                await it.post(SERVICE, "slow", BODY, limit_s=9)
        assert (await it.post(SERVICE, "fast", BODY, limit_s=1)).status == 200


async def test_on_a_real_socket() -> None:
    service = Peer([Says(body=b"{}"), Says(500)])
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listeners[0].socket.getsockname()[1]
        nursery.start_soon(trio.serve_listeners, service.serve, listeners)
        it = WebhookClient()
        here = Receiver(f"http://127.0.0.1:{port}/")
        assert (await it.post(here, "msg_1", BODY, limit_s=10)).body == b"{}"
        with pytest.raises(WebhookUnreachable, match="HTTP 500"):
            await it.post(here, "msg_2", BODY, limit_s=10)
        nursery.cancel_scope.cancel()
        await it.aclose()
    async with trio.open_nursery():
        it = WebhookClient()
        with pytest.raises(WebhookUnreachable, match="no answer from"):
            await it.post(here, "msg_3", BODY, limit_s=10)  # the listener has gone
        await it.aclose()
