"""Each way that a call ends, at the real Asterisk: its reason, its step in the dialplan, and nobody answered into silence.

Callers who must be seen ringing are Local channels (`play@test-caller`): their step `test-caller` comes when they are
answered. Live callers (`phone`) count as answered from the start, and hear. A model that is
lost in mid-call: `test_model_lost`.
"""

from __future__ import annotations

import pytest
import trio

from asterisk import figures
from asterisk.compare import loud_end_ms, loud_span_ms, tone_share
from asterisk.exchange import Step
from asterisk.line import FORMATS, Line, free_port, line
from simulators.model_script import Call, Part, Say, Script

pytestmark = pytest.mark.asterisk

ALL_FORMATS = pytest.mark.parametrize("media_format", FORMATS)
TRANSFERS = "[agents.default.transfers.reception]\nto = '600@phones'\ndescription = 'a human'\n"
HUNG_UP_AFTER_MS, HUNG_UP_WITHIN_MS = 100, 300


def names(steps: list[Step]) -> list[str]:
    return [step.name for step in steps]


@ALL_FORMATS
async def test_the_caller_hangs_up(media_format: str) -> None:
    async with line(Script.of(Say("A long story.", ms=20_000)), media_format=media_format) as it:
        phone = await it.phone()
        await it.hears_of("agent_starts")
        await phone.caller.hang_up()
        record = await it.ended()
        assert (record["reason"], record["completion_reason"]) == ("caller_hung_up", "normal conversation end")
        assert names(await it.reaches("hung-up")) == ["agent", "hung-up"]


async def test_the_caller_hangs_up_while_it_rings() -> None:
    async with line(Script.of(Say("Too late."))) as it:
        it.model.faults.created_after_s = 5.0
        caller = await it.test_caller()
        await it.hears_of("call_arrives")
        await trio.sleep(0.2)
        await it.hang_up(caller)
        record = await it.ended()
        assert (record["reason"], record["answered_after_s"]) == ("caller_hung_up", None)
        assert names(await it.reaches("hung-up")) == ["agent", "hung-up"], "never answered"


@ALL_FORMATS
async def test_the_agent_hangs_up_after_its_last_sample_was_heard(media_format: str) -> None:
    goodbye: list[Part] = [Say("Goodbye!", ms=900, hz=880), Call("hang_up", {"reason": "all said"})]
    async with line(Script.of(goodbye), media_format=media_format) as it:
        phone = await it.phone()
        with trio.fail_after(5):
            await phone.ended.wait()
        record = await it.ended()
        assert (record["reason"], record["detail"]) == ("agent_hung_up", "all said")
        frames = phone.heard_since(it.sent_at("response.output_audio.delta"))
        heard = b"".join(pcm for _, pcm in frames)
        assert abs(loud_span_ms(heard, 16000) - 900) <= 1, "to the last sample"
        assert tone_share(heard, 16000, 880) > 0.95
        last_at, last = [(at, pcm) for at, pcm in frames if loud_span_ms(pcm, 16000)][-1]
        wait_ms = (phone.ended_at - last_at) * 1000 - loud_end_ms(last, 16000)
        figures.note(figures.HANG_UP, media_format, wait_ms)
        # From when a telephone without any buffer would have played it; real ones need 40 ms and more.
        assert HUNG_UP_AFTER_MS <= wait_ms <= HUNG_UP_WITHIN_MS
        steps = await it.reaches("hung-up")
        assert (names(steps), steps[-1].reason) == (["agent", "hung-up"], "agent_hung_up")


async def ends_without_answer(it: Line, reason: str, completion: str) -> Step:
    """A caller who rings, and goes on in the dialplan because the agent can not come. Returns the step after the agent."""
    await it.test_caller()
    record = await it.ended()
    assert (record["reason"], record["completion_reason"]) == (reason, completion)
    assert record["answered_after_s"] is None
    assert record["error"] is not None
    steps = await it.reaches("fallback", "test-caller")
    # The caller is answered (`test-caller`) by the fallback's own Answer(), and by nobody before.
    assert names(steps)[:4] == ["agent", "after-agent", "fallback", "test-caller"]
    return steps[1]


@ALL_FORMATS
async def test_a_model_that_refuses_the_key_in_band(media_format: str) -> None:
    async with line(media_format=media_format, key="another-key") as it:
        step = await ends_without_answer(it, "model_rejected", "server error")
        assert (step.reason, step.details) == ("model_rejected", "status=SUCCESS")
        assert "Incorrect API key provided" in step.end_detail
        record = await it.ended()
        assert record["error"]["code"] == "invalid_api_key"


@ALL_FORMATS
async def test_a_model_out_of_reach(media_format: str) -> None:
    overrides = {"realtime.url": f"ws://127.0.0.1:{free_port()}/v1/realtime", "limits.model_connect_s": "0.7"}
    async with line(media_format=media_format, overrides=overrides) as it:
        step = await ends_without_answer(it, "model_unreachable", "connection failure")
        assert step.reason == "model_unreachable"


@ALL_FORMATS
async def test_a_model_that_says_nothing(media_format: str) -> None:
    async with line(media_format=media_format, overrides={"limits.model_connect_s": "0.7"}) as it:
        with it.model.silent():
            step = await ends_without_answer(it, "model_unreachable", "connection failure")
            assert (step.reason, "in time" in step.end_detail) == ("model_unreachable", True)


@ALL_FORMATS
async def test_a_transfer_reaches_the_human_after_the_words(media_format: str) -> None:
    words: list[Part] = [
        Say("One moment, please.", ms=600, hz=880),
        Call("transfer_call", {"destination": "reception"}),
    ]
    async with line(Script.of(words), settings=TRANSFERS, media_format=media_format) as it:
        phone = await it.phone()
        record = await it.ended()
        assert (record["reason"], record["detail"]) == ("transferred", "reception")
        steps = await it.reaches("human")
        assert (names(steps), steps[1].reason) == (["agent", "human"], "transferred")
        heard = b"".join(pcm for _, pcm in phone.heard_since(it.sent_at("response.output_audio.delta")))
        assert abs(loud_span_ms(heard[: 32 * 800], 16000) - 600) <= 1
        with trio.fail_after(3):
            since = await phone.caller.hears_speech()
        await trio.sleep(0.5)
        human = b"".join(pcm for _, pcm in phone.heard_since(since))
        assert tone_share(human, 16000, 440) > 0.95
