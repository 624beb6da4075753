"""The two sides of a talk in whole calls: a caller who speaks, what he hears, and what the model was sent."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from house import House

from simulators.caller import Caller


def voice(ms: int, rate_hz: int = 16000, hz: float = 300) -> bytes:
    """Sound that every VAD takes for speech."""
    at = np.arange(rate_hz * ms // 1000) / rate_hz
    return np.asarray(9000 * np.sin(2 * np.pi * hz * at)).astype("<i2").tobytes()


def loud(caller: Caller) -> list[tuple[float, bytes]]:
    """The frames that were not silence, with their arrival."""
    return [(at, pcm) for at, pcm in caller.heard_frames if any(pcm)]


def voice_heard(caller: Caller) -> bytes:
    """All that was heard, without the silence around and between."""
    return b"".join(pcm for _, pcm in loud(caller))


def heard_ms(caller: Caller) -> float:
    return len(loud(caller)) * 20


def gaps_ms(caller: Caller) -> list[int]:
    """Silences between what was heard, of more than a frame."""
    times = [at for at, _ in loud(caller)]
    return [round((b - a) * 1000) - 20 for a, b in pairwise(times) if b - a > 0.03]


async def say(it: House, caller: Caller, ms: int) -> None:
    """The caller speaks; returns when the server has told that he stopped."""
    n = len(it.model.sent_events("input_audio_buffer.speech_stopped"))
    caller.say(voice(ms))
    await it.model.wait_sent("input_audio_buffer.speech_stopped", n + 1)


def kinds(it: House, *of: str) -> list[str]:
    """The types of the client's events in order, only these."""
    return [passed.event["type"] for passed in it.model.received if passed.event["type"] in of]


def statuses(it: House) -> list[str]:
    return [event["response"]["status"] for event in it.model.sent_events("response.done")]
