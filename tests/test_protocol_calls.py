"""The sequences of section 3 as the bridge takes part in them: whole calls, what both sides say, in order.

Only what decides is compared: all that the bridge says but appends, and of the server turns, responses and answers to us
(the order within a response is `test_protocol_sequences`; acknowledgements cross with what we say next). The tables say for
the client what the notes demand: no create beside an active response, one create after all outputs, truncate with what was
heard.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import trio
from house import FAST, House, house
from protocol_table import APPEND, match
from trio.testing import MockClock

from bridge.tools import Tool, ToolRegistry
from simulators.ari_server import FakeChannel
from simulators.model_script import Call, Fail, Pace, Part, Say, Script

HELLO = Say("Hello!", ms=200, pace=FAST)
LONG = Say("A long story", ms=4000, pace=Pace(speed=1, delta_ms=4000, first_ms=100))


async def _look_up(arguments: Mapping[str, Any]) -> str:
    await trio.sleep(arguments.get("seconds", 1))
    return "7"


TOOLS = ToolRegistry([Tool("look_up", "Look something up", _look_up)])
DECISIVE = frozenset(
    {
        "session.created",
        "session.updated",
        "input_audio_buffer.speech_started",
        "input_audio_buffer.speech_stopped",
        "input_audio_buffer.committed",
        "input_audio_buffer.timeout_triggered",
        "response.created",
        "response.function_call_arguments.done",
        "response.done",
        "conversation.item.truncated",
        "conversation.item.deleted",
        "error",
    }
)

OPENING = """
S session.created
C session.update session.type=realtime session.audio.input.format.rate=24000
S session.updated
"""
GREETING = (
    OPENING
    + """
    C response.create response.instructions=*
    S response.created response.id=R1
    S response.done response.id=R1 response.status=completed response.output.id=A1
    """
)


def turn_of(letter: str) -> str:
    """A turn of the caller."""
    return f"""
    S input_audio_buffer.speech_started item_id={letter}
    S input_audio_buffer.speech_stopped item_id={letter}
    S input_audio_buffer.committed item_id={letter}
    """


def spoken(number: int, status: str = "completed") -> str:
    """A response that says something."""
    return f"""
    S response.created response.id=R{number}
    S response.done response.id=R{number} response.status={status} response.output.id=A{number}
    """


@dataclass(frozen=True)
class Row:
    """`doing` starts when the greeting has been heard."""

    section: str
    doing: Callable[[House, FakeChannel], Awaitable[None]]
    expected: str
    answers: Sequence[Part | Sequence[Part]] = (HELLO,)
    settings: str = ""
    crossing: Collection[str] = ()  # crosses with what we say, so that either may be first


async def nothing(it: House, _: FakeChannel) -> None:
    """The greeting was all."""


async def turn(it: House, _: FakeChannel | None = None, seconds: float = 3) -> None:
    """The caller says something, and the answer comes."""
    it.model.session.speech_started()
    await trio.sleep(0.5)
    it.model.session.speech_stopped()
    await trio.sleep(seconds)


async def barge_in(it: House, _: FakeChannel) -> None:
    """A long answer, of which the caller hears about a second."""
    await turn(it, seconds=0.05)
    await it.hears_of("agent_starts", 2)
    await trio.sleep(0.99)
    await turn(it, seconds=2)


async def barge_in_unheard(it: House, _: FakeChannel) -> None:
    """The answer has begun, nothing of it was heard: no audio has come."""
    await turn(it, seconds=0.05)
    await turn(it, seconds=2)


async def push_to_talk(it: House, channel: FakeChannel) -> None:
    """With the keys of the default settings."""
    channel.press("*")
    await trio.sleep(1)
    channel.press("#")
    await trio.sleep(2)


async def says_nothing(_it: House, _: FakeChannel) -> None:
    """For two idle timeouts and the answers to them."""
    await trio.sleep(13)


async def expired(it: House, _: FakeChannel) -> None:
    it.model.session.expire()
    await it.hears_of("session_resumed")
    await trio.sleep(1)


CALL = """
S response.created response.id=R2
S response.function_call_arguments.done response_id=R2 call_id=C1 name=look_up
"""
OUTPUT = 'C conversation.item.create item.type=function_call_output item.output="7" item.call_id='
# The speech that interrupts comes before the end of the response that it ends.
INTERRUPTED = """
S response.created response.id=R2
S input_audio_buffer.speech_started item_id=V
S response.done response.id=R2 response.status=cancelled response.status_details.reason=turn_detected response.output.id=A2
"""
INTERRUPTS = "\n".join(turn_of("V").strip().splitlines()[1:])
ROWS: dict[str, Row] = {
    "start and greeting": Row("3.1, 3.5", nothing, GREETING),
    "a turn": Row("3.2", turn, GREETING + turn_of("U") + spoken(2), [HELLO, HELLO]),
    "push to talk": Row(
        "3.4",
        push_to_talk,
        GREETING
        + """
        C input_audio_buffer.clear
        C input_audio_buffer.commit
        S input_audio_buffer.committed item_id=U
        C response.create
        """
        + spoken(2),
        [HELLO, HELLO],
        settings="[agents.default.turn_detection]\ntype = 'manual'\n",
    ),
    "idle timeouts": Row(
        "3.12",
        says_nothing,
        GREETING
        + "".join(
            f"""
            S input_audio_buffer.timeout_triggered item_id=U{number}
            S input_audio_buffer.committed item_id=U{number}
            """
            + spoken(number)
            for number in (2, 3)
        ),
        [HELLO, HELLO, HELLO],
        settings="[agents.default.turn_detection]\nidle_timeout_ms = 5000\n",
    ),
    "barge-in while generating": Row(
        "3.6",
        barge_in,
        GREETING
        + turn_of("U")
        + INTERRUPTED
        + """
        C conversation.item.truncate item_id=A2 content_index=0 audio_end_ms=1000
        S conversation.item.truncated item_id=A2 audio_end_ms=1000
        """
        + INTERRUPTS
        + spoken(3),
        [HELLO, LONG, HELLO],
        crossing=["response.done"],
    ),
    "barge-in after response.done": Row(
        "3.6",
        barge_in,
        GREETING
        + turn_of("U")
        + spoken(2)
        + """
        S input_audio_buffer.speech_started item_id=V
        C conversation.item.truncate item_id=A2 content_index=0 audio_end_ms=1000
        S conversation.item.truncated item_id=A2 audio_end_ms=1000
        """
        + INTERRUPTS
        + spoken(3),
        [HELLO, Say("A long story", ms=4000, pace=FAST), HELLO],
    ),
    "barge-in before the first delta": Row(
        "3.6",
        barge_in_unheard,
        GREETING + turn_of("U") + INTERRUPTED + INTERRUPTS + spoken(3),
        [HELLO, LONG, HELLO],
    ),
    "a function call": Row(
        "3.7",
        turn,
        GREETING
        + turn_of("U")
        + CALL
        + "S response.done response.id=R2 response.output.call_id=C1\n"
        + f"{OUTPUT}C1\nC response.create response=null"
        + spoken(3),
        [HELLO, Call("look_up"), HELLO],
    ),
    "parallel calls": Row(
        "3.7",
        turn,
        GREETING
        + turn_of("U")
        + CALL
        + "S response.function_call_arguments.done response_id=R2 call_id=C2 name=look_up\n"
        + "S response.done response.id=R2 response.output.call_id=C1,C2\n"
        + f"{OUTPUT}C1\n{OUTPUT}C2\nC response.create"
        + spoken(3),
        [HELLO, [Call("look_up", {"seconds": 1}), Call("look_up", {"seconds": 1.5})], HELLO],
    ),
    "a failed response": Row(
        "3.14",
        turn,
        GREETING
        + turn_of("U")
        + """
        S response.created response.id=R2
        S response.done response.id=R2 response.status=failed
        C response.create
        """
        + spoken(3),
        [HELLO, Fail(), HELLO],
    ),
    "a session that expires": Row(
        "3.15",
        expired,
        GREETING
        + "S error error.code=session_expired"
        + OPENING
        + "C conversation.item.create item.role=assistant item.id=A1 item.content.0.text=Hello!",
    ),
}


@pytest.mark.parametrize("name", ROWS)
async def test_the_bridge_keeps_to_the_order_of_the_notes(name: str, autojump_clock: MockClock) -> None:
    row = ROWS[name]
    async with house(Script.of(*row.answers), tools=TOOLS, settings=row.settings) as it:
        channel, _ = await it.stasis_call()
        await it.hears_of("agent_said")
        await row.doing(it, channel)
        log = [(who, passed.event) for who, passed in it.model.log]
        channel.hang_up()
        await it.ended()
    match(row.expected, [one for one in log if one[0] == "C" or one[1]["type"] in DECISIVE], [APPEND, *row.crossing])
