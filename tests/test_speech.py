"""The agent's voice: from deltas to the line, and back to what was heard of it."""

from __future__ import annotations

import pytest

from bridge.audio import PcmFormat
from bridge.errors import ModelProtocolError
from bridge.history import History, Speaker
from bridge.playout import PlayoutQueue
from bridge.realtime import AudioDelta
from bridge.speech import Speech
from simulators.model_script import tone

RATES_HZ = [8000, 16000, 24000]


class Rig:
    """Speech on a line of some rate. `play` counts what leaves, in milliseconds."""

    def __init__(self, rate_hz: int = 16000, *, lag_ms: int = 0, most_ms: int = 60_000) -> None:
        self.wire = PcmFormat(rate_hz)
        self.playout = PlayoutQueue(self.wire, most_ms)
        self.history = History()
        self.it = Speech(self.playout, self.history, lag_ms=lag_ms)

    def delta(self, pcm: bytes, item_id: str = "A1", response_id: str = "R1", *, active: bool = True) -> None:
        self.it.audio(AudioDelta(response_id=response_id, item_id=item_id, delta=pcm), active=active)

    def play(self, ms: int) -> bytes:
        return b"".join(self.playout.next_frame() or b"" for _ in range(ms // 20))

    def heard(self) -> list[tuple[str, int | None]]:
        return [(turn.item_id, turn.heard_ms) for turn in self.history]


@pytest.mark.parametrize("rate_hz", RATES_HZ)
@pytest.mark.parametrize("sizes_ms", [[600], [200] * 3, [10] * 60, [7, 593]])
def test_a_turn_leaves_with_every_millisecond_however_it_comes(rate_hz: int, sizes_ms: list[int]) -> None:
    rig, at, voice = Rig(rate_hz), 0, tone(440, 600)
    for size_ms in sizes_ms:
        rig.delta(voice[at : at + 48 * size_ms])
        at += 48 * size_ms
    rig.it.finish_item("R1")
    assert rig.it.queued_ms == 600
    assert len(rig.play(700)) == rig.wire.bytes_per_ms * 600
    assert rig.it.idle
    assert [turn.heard_ms for turn in rig.it.settled()] == [600]


def test_deltas_of_an_odd_number_of_bytes_lose_no_half_sample() -> None:
    voice = tone(440, 100)
    odd, even = Rig(24000), Rig(24000)
    for at in range(0, len(voice), 333):
        odd.delta(voice[at : at + 333])
    even.delta(voice)
    for rig in (odd, even):
        rig.it.finish_item()
    assert odd.play(120) == even.play(120)


def test_several_items_of_one_response_are_played_in_order_and_booked_apart() -> None:
    rig = Rig()
    rig.delta(tone(440, 200), "A1")
    rig.delta(tone(880, 300), "A2")
    rig.it.finish_item("R1")
    rig.play(300)
    cuts, responses = rig.it.flush()
    assert [(cut.turn.item_id, cut.content_index, cut.played_ms) for cut in cuts] == [("A2", 0, 100)]
    assert responses == {"R1"}
    assert rig.heard() == [("A1", None), ("A2", 100)]
    assert [turn.item_id for turn in rig.it.settled()] == ["A1"]
    assert rig.heard() == [("A1", 200), ("A2", 100)]


def test_the_end_of_another_response_does_not_end_this_item() -> None:
    rig = Rig()
    rig.delta(tone(440, 100), response_id="R2")
    rig.it.finish_item("R1")
    rig.play(80)
    # 100 ms came, but the resampler keeps the last milliseconds while more may come, and so does the playout.
    assert rig.playout.next_frame() is None
    assert not rig.it.idle
    rig.it.finish_item("R2")
    assert rig.playout.next_frame() is not None


@pytest.mark.parametrize("rate_hz", RATES_HZ)
def test_a_delta_after_response_done_is_played_to_its_last_sample(rate_hz: int) -> None:
    rig = Rig(rate_hz)
    rig.delta(tone(440, 50), active=False)
    assert len(rig.play(100)) == 3 * rig.wire.frame_bytes
    assert rig.it.idle


def test_a_delta_after_everything_was_heard_is_no_interruption() -> None:
    """The turn was heard to its end, then a late delta adds to it, and that is heard too."""
    rig = Rig()
    rig.delta(tone(440, 100))
    rig.it.finish_item("R1")
    rig.play(120)
    rig.it.settled()
    rig.delta(tone(440, 40), active=False)
    rig.play(80)
    rig.it.settled()
    (turn,) = rig.history
    assert (turn.heard_ms, turn.received_ms, turn.interrupted) == (140, 140, False)


def test_a_flush_forgets_the_voice_that_was_in_the_resampler() -> None:
    rig = Rig(8000)
    rig.delta(tone(440, 200, level=0.9))
    rig.play(100)
    rig.it.flush()
    rig.delta(bytes(48 * 100), "A2", "R2")
    rig.it.finish_item("R2")
    assert not any(rig.play(120)), "silence is silence"


@pytest.mark.parametrize(("lag_ms", "played_ms"), [(0, 500), (60, 440), (500, 0), (800, 0)])
def test_what_was_heard_is_what_left_less_the_lag(lag_ms: int, played_ms: int) -> None:
    rig = Rig(lag_ms=lag_ms)
    rig.delta(tone(440, 1000))
    rig.play(500)
    cuts, _ = rig.it.flush()
    assert [cut.played_ms for cut in cuts] == [played_ms]
    assert rig.heard() == [("A1", played_ms)]


def test_the_end_of_a_turn_that_the_lag_still_holds_was_not_heard() -> None:
    rig = Rig(lag_ms=60)
    rig.delta(tone(440, 500))
    rig.it.finish_item("R1")
    rig.play(500)
    assert rig.it.idle
    cuts, _ = rig.it.flush()
    assert [cut.played_ms for cut in cuts] == [440]


def test_a_flush_ends_a_pause_and_leaves_the_line_quiet() -> None:
    rig = Rig()
    rig.delta(tone(440, 1000))
    rig.it.audible, rig.it.line_quiet = True, False
    rig.it.pause()
    assert rig.play(100) == b""
    rig.it.flush()
    assert (rig.it.audible, rig.it.line_quiet, rig.it.silent) == (False, True, True)
    rig.delta(tone(440, 100), "A2", "R2")
    assert len(rig.play(80)) == 4 * rig.wire.frame_bytes


@pytest.mark.parametrize("rate_hz", RATES_HZ)
def test_a_pause_loses_and_repeats_nothing(rate_hz: int) -> None:
    paused, whole = Rig(rate_hz), Rig(rate_hz)
    for rig in (paused, whole):
        rig.delta(tone(440, 600))
        rig.it.finish_item("R1")
    before = paused.play(240)
    paused.it.pause()
    assert paused.play(400) == b""
    assert not paused.it.silent
    paused.it.resume()
    assert before + paused.play(400) == whole.play(640)


def test_nothing_that_was_flushed_is_reported_again() -> None:
    rig = Rig()
    rig.delta(tone(440, 300))
    rig.play(100)
    assert len(rig.it.flush()[0]) == 1
    assert rig.it.flush() == ([], set())
    assert rig.it.settled() == []


def test_silent_means_that_the_line_knows_it_too() -> None:
    rig = Rig()
    assert rig.it.silent
    rig.delta(tone(440, 20))
    rig.it.finish_item()
    assert not rig.it.silent
    rig.it.line_quiet = False  # the frame below is on its way
    rig.play(20)
    assert (rig.it.idle, rig.it.silent) == (True, False)
    rig.it.line_quiet = True
    assert rig.it.silent


# Sounds of our own -----------------------------------------------------------------------------------------------------


def test_our_own_sounds_are_heard_but_were_never_said() -> None:
    rig = Rig()
    sound = bytes([1, 0]) * 16 * 100
    rig.it.play(sound)
    assert rig.it.sounding
    assert rig.play(60) == sound[: 32 * 60]
    cuts, responses = rig.it.flush()
    assert cuts == []
    assert responses, "something was cut: the line has to be cleared"
    assert rig.heard() == []
    assert rig.it.idle


def test_our_own_sounds_stand_behind_the_voice() -> None:
    rig = Rig(24000)
    voice = tone(440, 100)
    sound = bytes([1, 0]) * 24 * 100
    rig.delta(voice)
    rig.it.finish_item("R1")
    rig.it.play(sound)
    assert rig.it.sounding
    assert rig.play(220) == voice + sound
    assert not rig.it.sounding
    assert rig.heard() == [("A1", None)]


@pytest.mark.parametrize("played_ms", [0, 40, 100])
def test_the_voice_takes_the_place_of_our_own_sound(played_ms: int) -> None:
    """Nobody wants to hear the rest of "one moment, please" when the answer is there."""
    rig = Rig(24000)
    sound = bytes([1, 0]) * 24 * 100
    voice = tone(440, 200)
    rig.it.play(sound)
    assert rig.play(played_ms) == sound[: 48 * played_ms]
    rig.delta(voice)
    rig.it.finish_item("R1")
    assert not rig.it.sounding
    assert rig.it.queued_ms == 200
    assert rig.play(220) == voice
    assert rig.it.flush() == ([], set())


def test_two_sounds_are_two() -> None:
    rig = Rig()
    rig.it.play(bytes(32 * 20))
    rig.it.play(bytes(32 * 20))
    assert rig.it.queued_ms == 40
    rig.play(40)
    assert rig.it.idle


def test_more_speech_than_the_limit_is_the_models_fault() -> None:
    rig = Rig(most_ms=1000)
    with pytest.raises(ModelProtocolError, match="max_queued_speech_s"):
        rig.delta(bytes(48 * 1100))


def test_only_the_agents_own_turns_are_settled() -> None:
    rig = Rig()
    rig.history.turn("U1", Speaker.CALLER)
    rig.delta(tone(440, 20))
    rig.it.finish_item()
    assert [turn.item_id for turn in rig.it.settled()] == ["A1"]
