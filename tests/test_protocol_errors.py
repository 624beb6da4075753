"""Each error of sections 1.3, 3.14 and 4 of the protocol notes on a whole call: what the server does, and what becomes of
the call."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import dataclass

import pytest
import trio
from house import FAST, House, house
from trio.testing import MockClock

from simulators.model_script import Call, Fail, Incomplete, Part, Say, Script
from simulators.realtime_faults import DropPoint
from simulators.realtime_server import REFUSALS

HELLO = Say("Hello!", ms=600, pace=FAST)
YES = Say("Yes.", ms=600, pace=FAST)

# At the door: section 1.3 --------------------------------------------------------------------------------------------

Throw = Callable[[House], AbstractContextManager[object]]
REJECTED, UNREACHABLE = "model_rejected", "model_unreachable"


@dataclass(frozen=True)
class Door:
    """A session that is refused. `again`: another try may help, so the bridge makes some."""

    throw: Throw
    reason: str
    again: bool


def _refusing(code: str) -> Throw:
    return lambda it: it.model.refusing(code)


def _http(status: int) -> Throw:
    return lambda it: it.model.http_status(status)


def _closing(code: int) -> Throw:
    return lambda it: it.model.closing_at_once(code)


DOORS: dict[str, Door] = {
    **{f"error {code}": Door(_refusing(code), REJECTED, False) for code in REFUSALS if code != "server_error"},
    "error server_error": Door(_refusing("server_error"), UNREACHABLE, True),
    **{f"HTTP {status}": Door(_http(status), REJECTED, False) for status in (400, 401, 403, 404)},
    **{f"HTTP {status}": Door(_http(status), UNREACHABLE, True) for status in (429, 500, 502, 503)},
    **{f"close {code}": Door(_closing(code), REJECTED, False) for code in (1008, 3000, 4000, 4004)},
    **{f"close {code}": Door(_closing(code), UNREACHABLE, True) for code in (1000, 1001, 1011, 1012, 1013)},
    "silence": Door(lambda it: it.model.silent(), UNREACHABLE, False),
    "dropped": Door(lambda it: it.model.dropped(), UNREACHABLE, True),
    "update refused": Door(lambda it: it.model.update_refused(), REJECTED, False),
    "no session.updated": Door(lambda it: it.model.no_session_updated(), UNREACHABLE, False),
    "another format": Door(lambda it: it.model.wrong_format({"type": "audio/pcmu"}), REJECTED, False),
}


@pytest.mark.parametrize("name", DOORS)
async def test_a_session_that_is_refused(name: str, autojump_clock: MockClock) -> None:
    """The caller is never answered and goes on in the dialplan, which is told why."""
    door = DOORS[name]
    async with house(Script.of(HELLO)) as it:
        with door.throw(it):
            channel, _ = await it.stasis_call()
            record = await it.ended()
        assert record["reason"] == door.reason
        assert (it.dials > 1) is door.again
        assert channel.variables["BRIDGE_END_REASON"] == door.reason
        assert channel.state == "Ring"
        assert it.told("session_lost") == []


@pytest.mark.parametrize("name", [name for name, door in DOORS.items() if door.again])
async def test_a_refusal_that_passes(name: str, autojump_clock: MockClock) -> None:
    async with house(Script.of(HELLO)) as it:
        with DOORS[name].throw(it):
            channel = it.ari.incoming_call()
            await trio.sleep(1)
        await it.hears_of("agent_said")
        channel.hang_up()
        assert (await it.ended())["reason"] == "caller_hung_up"


# During a call: section 4 --------------------------------------------------------------------------------------------


@asynccontextmanager
async def greeted(script: Script) -> AsyncIterator[House]:
    """A call whose caller has heard the greeting; hung up at the end of the block, if it lasts so long."""
    async with house(script) as it:
        channel, _ = await it.stasis_call()
        await it.hears_of("agent_said")
        yield it
        if not it.told("call_ended"):
            channel.hang_up()
            await it.ended()


async def answered(it: House, n: int) -> None:
    """The caller says something and hears the answer: the call goes on."""
    it.model.session.speech_started()
    await trio.sleep(1)
    it.model.session.speech_stopped()
    with trio.fail_after(20):
        await it.hears_of("agent_said", n)


# Code and type of an `error` event out of the blue, after which the call simply goes on with the same session.
BENIGN: list[tuple[str | None, str]] = [
    *(
        (code, "invalid_request_error")
        for code in (
            "conversation_already_has_active_response",
            "response_cancel_not_active",
            "input_audio_buffer_commit_empty",
            "cannot_update_voice",
            "item_truncate_invalid_item_id",
            "item_retrieve_invalid_item_id",
            "item_delete_invalid_item_id",
            "unsupported_content_type",
            "invalid_event",
            "invalid_json",
            "invalid_type",
            "invalid_value",
            "unknown_parameter",
            "missing_required_parameter",
            "not_yet_invented",
            None,
        )
    ),
    ("server_error", "server_error"),
    (None, "server_error"),
    ("rate_limit_exceeded", "rate_limit_exceeded"),
    ("inference_rate_limit_exceeded", "tokens"),
]


@pytest.mark.parametrize(("code", "kind"), BENIGN)
async def test_errors_that_change_nothing(code: str | None, kind: str, autojump_clock: MockClock) -> None:
    async with greeted(Script.of(HELLO, YES, YES)) as it:
        it.model.session.send_error(code, kind=kind)
        await trio.sleep(2)
        await answered(it, 2)
        assert len(it.model.sessions) == 1
        assert it.told("model_error")[0]["code"] == code


FATAL = [
    ("invalid_api_key", "invalid_request_error"),
    ("insufficient_quota", "insufficient_quota"),
    ("credit_balance_exhausted", "insufficient_quota"),
    ("billing_hard_limit_reached", "invalid_request_error"),
    ("account_deactivated", "invalid_request_error"),
    ("insufficient_permissions", "invalid_request_error"),
    (None, "insufficient_quota"),
]


@pytest.mark.parametrize(("code", "kind"), FATAL)
async def test_errors_that_end_the_call(code: str | None, kind: str, autojump_clock: MockClock) -> None:
    """To the fallback of the dialplan, with the code in the record: no other session would be better."""
    async with greeted(Script.of(HELLO)) as it:
        it.model.session.send_error(code, kind=kind)
        record = await it.ended()
        assert record["reason"] == REJECTED
        assert record["error"]["code"] == (code or kind)
        assert len(it.model.sessions) == 1


def _five_errors(it: House) -> None:
    for _ in range(5):
        it.model.session.send_error("server_error")


def _close(code: int | None) -> Callable[[House], None]:
    def close(it: House) -> None:
        it.model.session.core.drop(code)
        it.model.session.wake()

    return close


# What ends a session, after which another one takes over: how it is thrown.
LOSSES: dict[str, Callable[[House], None]] = {
    "session_expired": lambda it: it.model.session.expire(),
    "server_error again and again": _five_errors,
    **{f"close {code}": _close(code) for code in (None, 1000, 1001, 1008, 1011, 1012, 1013, 3000)},
}


@pytest.mark.parametrize("name", LOSSES)
async def test_a_session_that_ends(name: str, autojump_clock: MockClock) -> None:
    async with greeted(Script.of(HELLO, YES)) as it:
        LOSSES[name](it)
        await it.hears_of("session_resumed")
        await trio.sleep(0.5)
        assert [item.text for item in it.model.session.items] == ["Hello!"]
        await answered(it, 2)
        assert len(it.model.sessions) == 2
        assert it.told("call_ended") == []


@pytest.mark.parametrize("point", [point for point in DropPoint if point is not DropPoint.AFTER_CREATED])
async def test_a_session_that_ends_at_a_bad_moment(point: DropPoint, autojump_clock: MockClock) -> None:
    """Whatever was owed is said by the next session."""
    answer: list[Part] = [Say("One moment, please.", ms=2000), Call("no_such_tool")]
    async with greeted(Script.of(HELLO, answer, YES, YES, YES)) as it:
        with it.model.dropping(point):
            it.model.session.speech_started()
            await trio.sleep(0.5)
            if it.model.open_connections:
                it.model.session.speech_stopped()
            await it.hears_of("session_resumed")
        if point is DropPoint.DURING_SPEECH:
            await answered(it, 2)
        else:
            with trio.fail_after(20):
                while not [facts for facts in it.told("agent_said") if facts["text"] == "Yes."]:
                    await it.collector.changed.wait()
        assert it.told("call_ended") == []
        refused = [event["error"]["code"] for event in it.model.sent_events("error")]
        assert refused == []


# Responses: section 3.14 ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Failing:
    """What the answers to one turn are, and how many requests (of ours or the server's) it takes. `ends`: the call does."""

    answers: list[Part | list[Part]]
    responses: int
    ends: str = ""
    after_s: float = 0.0


RESPONSES: dict[str, Failing] = {
    "failed once": Failing([Fail(), YES], 2),
    "failed again": Failing([Fail(), Fail()], 2, "model_failed"),
    "rate limit": Failing([Fail.rate_limited(3), YES], 2, after_s=3),
    "rate limit at Azure": Failing([Fail.rate_limited(3, code="inference_rate_limit_exceeded"), YES], 2, after_s=3),
    "quota": Failing([Fail.quota()], 1, "model_failed"),
    "max_output_tokens": Failing([[YES, Incomplete("max_output_tokens")]], 1),
    "content_filter": Failing([[YES, Incomplete("content_filter")]], 1),
    "failed within an answer": Failing([[Say("Ye", ms=200), Fail()], YES], 2),
}


# xAI says why in a bare string: no code, so that a limit or an empty purse can not be told apart from any failure.
WORDS = ["failed once", "failed again", "max_output_tokens", "content_filter", "failed within an answer"]


@pytest.mark.parametrize(
    ("name", "in_words"), [*((name, False) for name in RESPONSES), *((name, True) for name in WORDS)]
)
async def test_responses_that_are_not_completed(name: str, in_words: bool, autojump_clock: MockClock) -> None:
    """A failed response brings no `error` event: whoever only watches those goes silent."""
    row = RESPONSES[name]
    async with greeted(Script.of(HELLO, *row.answers, YES)) as it:
        it.model.faults.details_bare = in_words
        it.model.session.speech_started()
        await trio.sleep(1)
        it.model.session.speech_stopped()
        began = trio.current_time()
        await it.model.wait_sent("response.done", 1 + row.responses)
        assert trio.current_time() - began >= row.after_s
        await trio.sleep(4)
        assert len(it.model.sent_events("response.done")) == 1 + row.responses
        if row.ends:
            assert (await it.ended())["reason"] == row.ends
        else:
            assert it.told("call_ended") == []
            assert it.told("agent_said")[-1]["text"].startswith("Yes")


async def test_a_transcription_that_fails_changes_nothing(autojump_clock: MockClock) -> None:
    async with greeted(Script.of(HELLO, YES, YES, transcripts=[None, "hello"])) as it:
        await answered(it, 2)
        await answered(it, 3)
        await it.hears_of("caller_said")
        assert [facts["text"] for facts in it.told("caller_said")] == ["hello"]
        assert it.told("model_error") == []
