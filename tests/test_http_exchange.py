"""The HTTP that the health pages and the control door share: what is a request, what is not, and in how much time."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair

from bridge.http_exchange import MAX_BODY, MAX_HEAD, MOST_CHUNKS, Exchange, Page, Refused, Request, json_page
from bridge.http_server import REQUEST_S, answer_one

OK = Page(200, "fine\n")


def get(path: bytes = b"/x") -> bytes:
    return b"GET " + path + b" HTTP/1.1\r\nHost: here\r\nUser-Agent: libcurl-agent/1.0\r\n\r\n"


def post(body: bytes, *headers: bytes) -> bytes:
    lines = [b"POST /x HTTP/1.1", b"Host: here", b"Content-Length: %d" % len(body), *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def refused(data: bytes) -> Page:
    with pytest.raises(Refused) as caught:
        Exchange().receive(data)
    return caught.value.page


def test_a_request_has_its_path_without_the_query_and_its_headers_in_lower_case() -> None:
    request = Exchange().receive(get(b"/calls?x=1"))
    assert request == Request("GET", "/calls", {"host": "here", "user-agent": "libcurl-agent/1.0"}, query="x=1")


def test_a_body_is_waited_for() -> None:
    exchange = Exchange()
    whole = post(b'{"text":"hello"}')
    assert exchange.receive(whole[:-4]) is None
    request = exchange.receive(whole[-4:])
    assert request is not None
    assert request.body == b'{"text":"hello"}'


def test_a_body_in_chunks_is_put_together() -> None:
    head = b"POST /x HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\n\r\n"
    request = Exchange().receive(head + b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
    assert request is not None
    assert request.body == b"abcde"


def test_a_request_by_hand_may_have_bare_line_ends() -> None:
    assert Exchange().receive(b"GET /healthz HTTP/1.0\n\n") == Request("GET", "/healthz")


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\x16\x03\x01\x02\r\n\r\n", 400),
        (b"GET /healthz\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1 x\r\nHost: here\r\n\r\n", 400),
        (b"GET /healthz HTTP/2.0\r\nHost: here\r\n\r\n", 505),
        (b"GET /" + b"x" * (MAX_HEAD + 1), 431),
        (post(b"", b"Content-Length: 7"), 400),
        (post(b"", b"Transfer-Encoding: gzip"), 501),
        (b"POST /x HTTP/1.1\r\nHost: here\r\nContent-Length: %d\r\n\r\n" % (MAX_BODY + 1), 413),
        (post(b"{}", b"Expect: 100-continue"), 417),
    ],
)
def test_what_is_not_a_request_of_ours_is_told_so(data: bytes, status: int) -> None:
    assert refused(data).status == status


def test_chunks_without_end_are_bounded() -> None:
    exchange = Exchange()
    assert exchange.receive(b"POST /x HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\n\r\n") is None
    chunk = b"1000\r\n" + b"x" * 4096 + b"\r\n"
    assert exchange.receive(chunk * (MAX_BODY // 4096)) is None
    with pytest.raises(Refused) as caught:
        exchange.receive(chunk)
    assert caught.value.page.status == 413
    assert exchange.reply(caught.value.page).startswith(b"HTTP/1.1 413 Content Too Large\r\n")


def test_many_small_chunks_are_no_body_of_ours() -> None:
    exchange = Exchange()
    exchange.receive(b"POST /x HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\n\r\n")
    assert exchange.receive(b"1\r\na\r\n" * MOST_CHUNKS) is None
    with pytest.raises(Refused, match="chunks: send its length") as caught:
        exchange.receive(b"1\r\na\r\n")
    assert caught.value.page.status == 413


def test_an_answer_has_its_length_and_closes() -> None:
    exchange = Exchange()
    exchange.receive(get())
    head, _, body = exchange.reply(json_page(201, {"id": "ä"}, ("Allow", "GET"))).partition(b"\r\n\r\n")
    assert body == '{"id":"ä"}\n'.encode()
    assert head.split(b"\r\n") == [
        b"HTTP/1.1 201 Created",
        b"Content-Type: application/json",
        b"Content-Length: 12",
        b"Connection: close",
        b"Allow: GET",
    ]


def test_head_has_the_length_and_no_body() -> None:
    exchange = Exchange()
    exchange.receive(b"HEAD /x HTTP/1.1\r\nHost: here\r\n\r\n")
    told = exchange.reply(OK)
    assert b"Content-Length: 5" in told
    assert told.endswith(b"\r\n\r\n")


def test_what_is_no_request_is_answered_all_the_same() -> None:
    exchange = Exchange()
    with pytest.raises(Refused) as caught:
        exchange.receive(b"\x16\x03\x01\x02\r\n\r\n")
    assert exchange.reply(caught.value.page).startswith(b"HTTP/1.1 400 Bad Request\r\n")


async def fine(_request: Request) -> Page:
    return OK


async def test_a_request_may_come_in_pieces(autojump_clock: MockClock) -> None:
    ours, theirs = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer_one, ours, fine)
        for byte in get():
            await theirs.send_all(bytes([byte]))
        told = await theirs.receive_some()
    assert told.startswith(b"HTTP/1.1 200 OK")


async def test_a_client_that_dawdles_is_sent_away(autojump_clock: MockClock) -> None:
    ours, theirs = memory_stream_pair()
    began = trio.current_time()
    await theirs.send_all(b"GET /healthz HTTP/1.1\r\n")
    await answer_one(ours, fine)
    assert trio.current_time() - began == REQUEST_S


async def test_an_answer_may_take_longer_than_its_request_may(autojump_clock: MockClock) -> None:
    async def slow(_request: Request) -> Page:
        await trio.sleep(10 * REQUEST_S)
        return OK

    ours, theirs = memory_stream_pair()
    await theirs.send_all(get())
    await answer_one(ours, slow)
    assert (await theirs.receive_some()).startswith(b"HTTP/1.1 200 OK")


async def test_a_client_that_leaves_harms_nobody(autojump_clock: MockClock) -> None:
    ours, theirs = memory_stream_pair()
    await theirs.send_all(get())
    await theirs.aclose()
    await answer_one(ours, fine)


async def test_a_defect_is_answered_and_logged(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    async def defect(_request: Request) -> Page:
        raise RuntimeError("boom")

    ours, theirs = memory_stream_pair()
    await theirs.send_all(get())
    await answer_one(ours, defect)
    assert (await theirs.receive_some()).startswith(b"HTTP/1.1 500 ")
    assert "GET /x could not be answered" in caplog.text
