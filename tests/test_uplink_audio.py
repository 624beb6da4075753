"""The caller's audio on its way to the model: gathered, counted, and said again."""

from __future__ import annotations

import base64
import json
import math

import pytest

from bridge.audio import MODEL_FORMAT
from bridge.uplink_audio import KEPT_FRAMES, UplinkAudio


class Way:
    """An uplink that takes everything, or no audio."""

    def __init__(self) -> None:
        self.takes = True
        self.audio: list[bytes] = []
        self.heard_at: list[float] = []

    def put(self, payload: bytes) -> bool:
        event = json.loads(payload)
        assert event["type"] == "input_audio_buffer.append"
        self.audio.append(base64.b64decode(event["audio"]))
        return True

    def offer_audio(self, payload: bytes, heard_at: float) -> bool:
        if self.takes:
            self.put(payload)
            self.heard_at.append(heard_at)
        return self.takes


def frame(n: int) -> bytes:
    """20 ms, each different."""
    return bytes([n % 256, n // 256]) * (20 * MODEL_FORMAT.bytes_per_ms // 2)


@pytest.mark.parametrize(("append_ms", "events"), [(20, 10), (40, 5), (60, 3), (100, 2)])
def test_an_event_holds_as_much_as_is_asked_for(append_ms: int, events: int) -> None:
    way = Way()
    it = UplinkAudio(way, append_ms)
    given_ms = sum(it.offer(frame(n)) for n in range(10))
    assert len(way.audio) == events
    assert given_ms == it.sent_ms == events * append_ms
    assert b"".join(way.audio) == b"".join(frame(n) for n in range(events * append_ms // 20))


def test_a_first_frame_that_is_a_little_short_does_not_make_everything_later() -> None:
    way = Way()
    it = UplinkAudio(way, 20)
    it.heard(frame(0), 7.0)
    assert it.offer(frame(0)[: -2 * MODEL_FORMAT.bytes_per_ms]) == 18
    assert way.heard_at == [7.0]


def test_what_is_gathered_can_be_sent_at_once() -> None:
    way = Way()
    it = UplinkAudio(way, 100)
    assert it.flush() == 0
    it.offer(frame(1))
    assert it.flush() == 20
    assert (it.flush(), way.audio) == (0, [frame(1)])


def test_what_nobody_takes_is_dropped_and_counted() -> None:
    way = Way()
    it = UplinkAudio(way, 20)
    way.takes = False
    assert it.offer(frame(0)) == 0
    way.takes = True
    assert it.offer(frame(1)) == 20
    assert (it.dropped_ms, it.sent_ms, way.audio) == (20, 20, [frame(1)])


def test_what_was_heard_is_said_again_from_and_until_a_moment() -> None:
    way = Way()
    it = UplinkAudio(way, 100)
    for n in range(50):
        it.heard(frame(n), n * 0.02)
    it.offer(frame(99))
    assert it.say_again(10 * 0.02, 35 * 0.02) == 500
    assert [len(piece) // MODEL_FORMAT.bytes_per_ms for piece in way.audio] == [200, 200, 100]
    assert b"".join(way.audio) == b"".join(frame(n) for n in range(10, 35))
    assert it.sent_ms == 0
    it.offer(frame(50) * 5)
    assert way.audio[-1] == frame(50) * 5, "what had been gathered for the session before is void"


def test_only_the_newest_seconds_are_kept() -> None:
    way = Way()
    it = UplinkAudio(way, 20)
    for n in range(KEPT_FRAMES + 100):
        it.heard(frame(n), n * 0.02)
    assert it.say_again(0.0, math.inf) == KEPT_FRAMES * 20
    assert way.audio[0].startswith(frame(100))
