"""No caller waits for the model in silence: the bridge plays a sound of its own (docs/sounds.md)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import trio

from asterisk import figures
from asterisk.compare import compare, from_first_loud, loud_span_ms, tone_share
from asterisk.line import line
from asterisk.talking import (
    AGENT_HZ,
    NO_GAP_MS,
    SOUNDS,
    asks,
    match_of,
)
from bridge.sounds import Sound
from bridge.tools import Tool, ToolRegistry
from simulators.model_script import Call, Say, Script, tone
from simulators.realtime_faults import DropPoint

pytestmark = pytest.mark.asterisk

# The least that may be set; how often the bridge looks; and an answer that comes behind the first sound.
WAITS_S, LOOKS_EACH_MS, SLOW_S = 1.0, 270, 3.2


@pytest.mark.parametrize(
    ("extension", "media_format", "why"),
    [
        ("100", "slin16", "answer"), ("100", "slin16", "tool"), ("100", "slin16", "session"),
        ("101", "slin", "answer"),
    ],
)  # fmt: skip
async def test_nobody_waits_in_silence(extension: str, media_format: str, why: str) -> None:
    """A slow answer, a slow tool, a session that is slow to come again: the caller hears a sound of the bridge's own."""

    async def slow(_arguments: Mapping[str, Any]) -> str:
        await trio.sleep(SLOW_S)
        return "done"

    script = Script.of(Say("Hello!", ms=300, hz=880), transcripts=["Please do that."])
    if why == "tool":
        script.add(Call("slow"))
    for _ in range(2 if why == "session" else 1):  # the lost session takes one along
        script.add(Say("It is done.", ms=600, hz=AGENT_HZ))
    overrides = {"limits.caller_waits_s": str(WAITS_S)}
    tools = ToolRegistry([Tool("slow", "", slow)])
    faults: dict[str, float] = {"answer": {"response_after_s": SLOW_S}, "session": {"created_after_s": SLOW_S}}.get(
        why, {}
    )
    drops = [DropPoint.AFTER_COMMIT] if why == "session" else []
    async with line(script, media_format=media_format, overrides=overrides, tools=tools) as it:
        phone = await it.phone(extension)
        await it.hears_of("agent_said")
        with it.model.faulty(**faults), it.model.dropping(*drops):
            asks(phone)
            waits = await it.hears_of("caller_waits")
            await it.hears_of("agent_said", 2)
        assert waits.facts["sound"] == "one_moment"
        await phone.caller.hang_up()
        assert (await it.ended())["reason"] == "caller_hung_up"
        ours = match_of(Sound.ONE_MOMENT, phone, media_format)
        began = phone.time_of(ours.lag_ms)
        silence_ms = (began - it.sent_at("input_audio_buffer.committed")) * 1000
        print(f"{why}: after {silence_ms:.0f} ms {ours}")
        assert ours.same, ours
        figures.note(figures.WAITS, media_format, silence_ms - WAITS_S * 1000)
        assert silence_ms <= WAITS_S * 1000 + LOOKS_EACH_MS + NO_GAP_MS
        answer = from_first_loud(
            b"".join(pcm for _, pcm in phone.heard_since(it.told("agent_starts")[-1].at_s - 0.02))
        )
        assert abs(loud_span_ms(answer, 16000) - 600) <= 1
        assert tone_share(answer[: 32 * 600], 16000, AGENT_HZ) > 0.95


async def test_the_answer_takes_the_place_of_a_sound_that_is_playing() -> None:
    """Nobody waits for the end of "one moment, please", and nothing of the answer is lost to it."""
    script = Script.of(Say("Hello!", ms=300, hz=880), Say("It is done.", ms=600, hz=AGENT_HZ))
    async with line(script, overrides={"limits.caller_waits_s": str(WAITS_S)}) as it:
        phone = await it.phone()
        await it.hears_of("agent_said")
        with it.model.faulty(response_after_s=WAITS_S + 0.7):
            asks(phone)
            await it.hears_of("agent_said", 2)
        heard = b"".join(pcm for _, pcm in phone.heard_since(it.told("caller_waits")[0].at_s))
        ours = compare(SOUNDS.pcm(Sound.ONE_MOMENT, 16000)[: 32 * 300], 16000, heard, 16000)
        assert ours.same, f"the sound had begun: {ours}"
        answer = compare(tone(AGENT_HZ, 600), 24000, heard, 16000)
        print(f"the sound: {ours}\nthe answer: {answer}")
        assert answer.same, answer
        assert answer.lag_ms - ours.lag_ms < SOUNDS.lengths_s[Sound.ONE_MOMENT] * 1000 - 200, "in the midst of it"
