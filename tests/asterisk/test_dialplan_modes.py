"""Calls that come by the dialplan alone: `AudioSocket()` (101) and `Dial(AudioSocket/...)` (102 to 104)."""

from __future__ import annotations

import pytest

from asterisk.compare import from_first_loud, loud_span_ms, tone_share
from asterisk.line import free_port, line
from simulators.model_script import Call, Say, Script, tone
from simulators.wire_audio import resampled

pytestmark = pytest.mark.asterisk


@pytest.mark.parametrize(
    ("extension", "media_format", "steps"),
    [
        ("101", "slin", ["audiosocket", "after-audiosocket"]),
        ("102", "slin16", ["dial", "after-dial"]),
        ("103", "slin24", ["dial", "after-dial"]),
        ("104", "slin", ["dial", "after-dial"]),
    ],
)
async def test_a_conversation_and_then_the_next_priority(extension: str, media_format: str, steps: list[str]) -> None:
    script = Script.of(
        Say("Hello!", ms=300, hz=880),
        [Say("Goodbye!", ms=500, hz=1200), Call("hang_up")],
        transcripts=["Goodbye."],
    )
    # The format is the dialplan's choice; what the bridge would ask for itself must not matter.
    async with line(script, media_format="slin16") as it:
        phone = await it.phone(extension)
        await it.hears_of("agent_said")
        phone.caller.say(resampled(tone(660, 500), 24000, 16000))
        record = await it.ended()
        assert (record["reason"], record["media_format"]) == ("agent_hung_up", media_format)
        assert record["replies"] == 2
        said = it.model.session.appended_pcm
        assert abs(loud_span_ms(said, 24000) - 500) <= 1
        assert tone_share(said, 24000, 660) > 0.95
        followed = await it.reaches(*steps)
        assert [step.name for step in followed][:2] == steps
        if "dial" in steps:
            assert followed[1].details == "status=ANSWER"
        heard = b"".join(pcm for _, pcm in phone.heard_since(it.sent_at("input_audio_buffer.speech_stopped")))
        # Up to the last sample, and not into what the dialplan plays next.
        heard = from_first_loud(heard)[: 32 * 515]
        assert abs(loud_span_ms(heard, 16000) - 500) <= 1
        assert tone_share(heard, 16000, 1200) > 0.95


async def test_a_dialled_bridge_that_is_not_there_leaves_the_caller_to_the_fallback() -> None:
    async with line() as it:
        await it.test_caller("102", __BRIDGE_MEDIA=f"127.0.0.1:{free_port()}")
        steps = await it.reaches("fallback", "test-caller")
        assert [step.name for step in steps][:4] == ["dial", "after-dial", "fallback", "test-caller"]
