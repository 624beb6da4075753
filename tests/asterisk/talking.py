"""What the tests of a call that outlives its model share: a caller who says a tone, and what both ends understood."""

from __future__ import annotations

import pytest

from asterisk.compare import Match, compare, from_first_loud, loud_span_ms, tone_share
from asterisk.line import Line, Phone
from bridge.agent import Agent
from bridge.sound_files import load_sounds
from bridge.sounds import Sound
from simulators.model_script import tone
from simulators.wire_audio import resampled

SOUNDS = load_sounds({"default": Agent()})["default"]
# A bridge at 8 kHz carries what a telephone carries; the others all that the phrasebook holds (16 kHz, less its edge).
BAND_HZ = {"slin": (100.0, 3400.0), "slin16": (100.0, 7000.0), "slin24": (100.0, 7000.0)}
# Extension and format: Stasis at all rates, and the application AudioSocket(). Where the rate does not matter two suffice.
ROUTES = [("100", "slin"), ("100", "slin16"), ("100", "slin24"), ("101", "slin")]
BOTH_WAYS = pytest.mark.parametrize(("extension", "media_format"), [("100", "slin16"), ("101", "slin")])
CALLER_HZ, CALLER_MS = 660, 500
AGENT_HZ = 1200
# What a jitter buffer forgives, twice: nobody hears it as a gap between two sentences.
NO_GAP_MS = 80


def asks(phone: Phone) -> None:
    """The caller says something that a test can measure at the other end."""
    phone.caller.say(resampled(tone(CALLER_HZ, CALLER_MS), 24000, 16000))


def understood_ms(it: Line) -> float:
    """How much of the caller's tone has reached the present session, by its first and last sample."""
    said = it.model.session.appended_pcm
    assert (
        not loud_span_ms(said, 24000) or tone_share(from_first_loud(said)[: 48 * CALLER_MS], 24000, CALLER_HZ) > 0.95
    )
    return loud_span_ms(said, 24000)


def texts(it: Line) -> list[tuple[str, str]]:
    """The messages that the present session holds: role and words."""
    return [(item.role, item.text) for item in it.model.session.items if item.type == "message"]


async def agent_said(it: Line, text: str) -> None:
    """Wait until the caller has heard this to its end."""
    said = it.told("agent_said")
    while not any(told.facts["text"] == text for told in said):
        await it.hears_of("agent_said", len(said) + 1)
        said = it.told("agent_said")


def first_delta_at(it: Line, connection: int) -> float:
    """When a session began to speak."""
    kind = "response.output_audio.delta"
    return next(p.at_s for p in it.model.sent if p.connection == connection and p.event["type"] == kind)


def match_of(sound: Sound, phone: Phone, media_format: str) -> Match:
    """How the caller has heard a sound of the bridge's own."""
    return compare(SOUNDS.pcm(sound, 16000), 16000, phone.heard(), 16000, band_hz=BAND_HZ[media_format])
