"""The ledger against a naive model (a list of samples with their owners), and the metronome with clocks made up."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from bridge.audio import PcmFormat
from bridge.errors import ModelProtocolError
from bridge.playout import MAX_LAG_MS, AudioItem, Heard, Metronome, PlayoutQueue

SLIN = PcmFormat(8000)
FRAME = SLIN.frame_bytes
MS = SLIN.bytes_per_ms
A = AudioItem("resp_1", "item_a", 0)
B = AudioItem("resp_1", "item_b", 0)
C = AudioItem("resp_2", "item_c", 0)


def queue(max_queued_ms: int = 600_000) -> PlayoutQueue:
    return PlayoutQueue(SLIN, max_queued_ms)


def speech(samples: int, first: int = 1) -> bytes:
    """Samples that are all different and never zero, so that padding shows."""
    return b"".join(struct.pack("<h", (first + i) % 30_000 + 1) for i in range(samples))


def play_all(playout: PlayoutQueue) -> bytes:
    return b"".join(iter(playout.next_frame, None))


# --- examples ------------------------------------------------------------------------------------------------------


def test_an_empty_queue_gives_nothing() -> None:
    playout = queue()
    assert playout.next_frame() is None
    assert playout.idle
    assert playout.underruns == 0
    assert playout.flush() == []


def test_less_than_a_frame_is_held_back_until_the_item_is_finished() -> None:
    playout = queue()
    playout.push(A, speech(200))
    assert playout.next_frame() == speech(160)
    assert playout.next_frame() is None
    assert not playout.idle
    playout.finish_item(A)
    assert playout.next_frame() == speech(40, 161) + bytes(240)
    assert playout.idle
    assert playout.played_ms(A) == playout.received_ms(A) == 25
    assert playout.total_played_ms == 25
    assert playout.frames_played == 2


def test_one_gap_is_one_underrun() -> None:
    playout = queue()
    playout.push(A, speech(100))
    assert playout.next_frame() is None
    assert playout.underruns == 0, "it has not started to play"
    playout.push(A, speech(100))
    assert playout.next_frame() is not None
    assert [playout.next_frame() for _ in range(3)] == [None] * 3
    assert playout.underruns == 1
    playout.push(A, speech(400))
    play_all(playout)
    assert playout.underruns == 2
    playout.finish_item(A)
    play_all(playout)
    play_all(playout)
    assert playout.underruns == 2, "the end of an item is no underrun"


def test_a_pause_is_no_underrun() -> None:
    playout = queue()
    playout.push(A, speech(320))
    playout.next_frame()
    playout.pause()
    assert playout.paused
    assert playout.next_frame() is None
    playout.resume()
    assert playout.next_frame() == speech(160, 161)
    assert playout.underruns == 0


def test_items_flow_on_and_share_a_frame() -> None:
    playout = queue()
    playout.push(A, speech(200))
    playout.push(B, speech(120, 1000))
    playout.finish("resp_1")
    assert play_all(playout) == speech(200) + speech(120, 1000)
    assert (playout.played_ms(A), playout.played_ms(B)) == (25, 15)


def test_half_a_sample_waits_for_its_other_half() -> None:
    playout = queue()
    whole = speech(160)
    playout.push(A, whole[:101])
    playout.push(B, whole[:1])
    playout.push(A, whole[101:])
    assert playout.next_frame() == whole
    playout.finish("resp_1")
    assert playout.idle, "half a sample of a finished item is nothing"


def test_finishing_a_response_finishes_its_later_items_too() -> None:
    playout = queue()
    playout.finish("resp_1")
    playout.push(B, speech(10))
    assert playout.next_frame() == speech(10) + bytes(300)


def test_barge_in_tells_to_the_millisecond_what_was_heard() -> None:
    playout = queue()
    playout.push(A, speech(8 * 5000))
    for _ in range(74):
        playout.next_frame()
    assert playout.flush() == [Heard(A, 1480, 5000)]
    assert playout.idle
    assert playout.next_frame() is None
    assert playout.flush() == [], "each item is reported once"
    assert playout.played_ms(A) == 1480


def test_lag_is_audio_that_was_sent_but_not_heard() -> None:
    playout = queue()
    playout.push(A, speech(8 * 50))
    playout.push(B, speech(8 * 500))
    playout.finish_item(A)
    for _ in range(4):
        playout.next_frame()
    # 80 ms sent: 50 of A and 30 of B. With 45 ms on the way the caller heard 35 of A.
    assert playout.flush(lag_ms=45) == [Heard(A, 35, 50), Heard(B, 0, 500)]


def test_an_item_wholly_heard_is_not_reported() -> None:
    playout = queue()
    playout.push(A, speech(8 * 40))
    playout.push(C, speech(8 * 400))
    playout.finish_item(A)
    for _ in range(4):
        playout.next_frame()
    assert playout.flush(lag_ms=40) == [Heard(C, 0, 400)]


def test_silence_in_between_is_time_that_has_passed() -> None:
    playout = queue()
    playout.push(A, speech(8 * 40))
    playout.finish_item(A)
    play_all(playout)  # two frames and one tick of silence
    playout.next_frame()
    assert playout.flush(lag_ms=40) == []


def test_a_pause_is_time_that_has_passed_too() -> None:
    playout = queue()
    playout.push(A, speech(8 * 100))
    playout.next_frame()
    playout.pause()
    playout.next_frame()
    playout.next_frame()
    assert playout.flush(lag_ms=40) == [Heard(A, 20, 100)]


def test_whether_a_frame_may_be_padded_is_up_to_the_item_at_the_end() -> None:
    playout = queue()
    playout.push(A, speech(40))
    playout.finish_item(A)
    playout.push(C, speech(40, 100))
    assert playout.next_frame() is None, "more of C may come"
    playout.finish_item(C)
    assert playout.next_frame() == speech(40) + speech(40, 100) + bytes(160)
    playout.push(A, speech(40))
    playout.push(B, speech(40))
    playout.finish_item(B)
    assert playout.next_frame() is not None


def test_an_unfinished_item_is_reported_though_all_of_it_was_heard() -> None:
    playout = queue()
    playout.push(A, speech(8 * 40))
    play_all(playout)
    assert playout.flush() == [Heard(A, 40, 40)]


def test_after_a_flush_an_item_starts_a_new_account() -> None:
    playout = queue()
    playout.push(A, speech(8 * 100) + b"x")
    playout.next_frame()
    playout.flush()
    playout.push(A, speech(160, 500))
    assert playout.received_ms(A) == 20
    assert playout.next_frame() == speech(160, 500)
    assert playout.flush(lag_ms=0) == [Heard(A, 20, 20)]


def test_too_much_is_refused_whole() -> None:
    playout = queue(max_queued_ms=100)
    playout.push(A, speech(8 * 100))
    with pytest.raises(ModelProtocolError, match=r"more than 0.1 s ahead"):
        playout.push(A, speech(1))
    assert playout.received_ms(A) == playout.queued_ms == 100
    playout.next_frame()
    playout.push(A, speech(160))


@pytest.mark.parametrize("lag_ms", [-1, MAX_LAG_MS + 1])
def test_lag_is_bounded(lag_ms: int) -> None:
    with pytest.raises(ValueError, match="lag_ms"):
        queue().flush(lag_ms)


def test_a_reply_of_five_minutes_is_sample_exact() -> None:
    # Field report 11: long replies sped up, then vanished. Deltas arrive far ahead, in sizes that fit no frame.
    playout = PlayoutQueue(PcmFormat(16000), 600_000)
    samples = 16_000 * 300
    reply = b"".join(struct.pack("<I", i * 2654435761 % 2**32) for i in range(samples // 2))
    sizes = [6400, 1, 333, 9601, 4798]
    at = 0
    while at < len(reply):
        size = sizes[at % len(sizes)]
        playout.push(A, reply[at : at + size])
        at += size
    playout.finish(A.response_id)
    assert playout.queued_ms == 300_000
    frames = list(iter(playout.next_frame, None))
    assert b"".join(frames) == reply
    assert len(frames) == 15_000
    assert playout.underruns == 0
    assert playout.played_ms(A) == 300_000


# --- the naive model -----------------------------------------------------------------------------------------------


@dataclass
class Account:
    received: int = 0
    played: list[int] = field(default_factory=list)  # sample times on the line at which it was heard
    odd: bytes = b""
    finished: bool = False


class Ledger(RuleBasedStateMachine):
    """`line` is every sample that the line got; the queue is a list of (owner, sample)."""

    def __init__(self) -> None:
        super().__init__()
        self.playout = queue(max_queued_ms=400)
        self.accounts: dict[AudioItem, Account] = {}
        self.finished_responses: set[str] = set()
        self.queued: list[tuple[Account, bytes]] = []
        self.clock = 0
        self.paused = False
        self.next_sample = 1

    @rule(item=st.sampled_from([A, B, C]), nbytes=st.integers(0, 1500), again=st.booleans())
    def push(self, item: AudioItem, nbytes: int, again: bool) -> None:
        pcm = speech(nbytes // 2 + 1, self.next_sample)[:nbytes]
        self.next_sample += nbytes // 2 + 1
        account = self.accounts.get(item) or Account(finished=item.response_id in self.finished_responses)
        data = account.odd + pcm
        count = len(data) // 2
        if len(self.queued) + count > 400 * 8:
            with pytest.raises(ModelProtocolError):
                self.playout.push(item, pcm)
            return
        self.playout.push(item, pcm)
        self.accounts[item] = account
        account.odd = data[count * 2 :]
        account.received += count
        self.queued += [(account, data[i * 2 : i * 2 + 2]) for i in range(count)]

    @rule(item=st.sampled_from([A, B, C]))
    def finish_item(self, item: AudioItem) -> None:
        self.playout.finish_item(item)
        if item in self.accounts:
            self.accounts[item].finished = True
            self.accounts[item].odd = b""

    @rule(response=st.sampled_from(["resp_1", "resp_2"]))
    def finish(self, response: str) -> None:
        self.playout.finish(response)
        self.finished_responses.add(response)
        for item, account in self.accounts.items():
            if item.response_id == response:
                account.finished = True
                account.odd = b""

    @rule(ticks=st.integers(1, 8))
    def tick(self, ticks: int) -> None:
        for _ in range(ticks):
            expected: bytes | None = None
            if not self.paused and self.queued and (len(self.queued) >= 160 or self.queued[-1][0].finished):
                taken, self.queued = self.queued[:160], self.queued[160:]
                for i, (account, _sample) in enumerate(taken):
                    account.played.append(self.clock + i)
                expected = b"".join(sample for _, sample in taken).ljust(FRAME, b"\0")
            self.clock += 160
            assert self.playout.next_frame() == expected

    @rule(lag_ms=st.integers(0, 200))
    def flush(self, lag_ms: int) -> None:
        expected = []
        for item, account in self.accounts.items():
            heard = sum(at < self.clock - lag_ms * 8 for at in account.played)
            if heard < account.received or not account.finished:
                expected.append(Heard(item, heard // 8, account.received // 8))
        assert self.playout.flush(lag_ms) == expected
        for heard_item in expected:
            assert self.playout.played_ms(heard_item.item) == heard_item.played_ms
        self.accounts.clear()
        self.queued.clear()

    @precondition(lambda self: not self.paused)
    @rule()
    def pause(self) -> None:
        self.playout.pause()
        self.paused = True

    @precondition(lambda self: self.paused)
    @rule()
    def resume(self) -> None:
        self.playout.resume()
        self.paused = False

    @invariant()
    def agrees(self) -> None:
        assert self.playout.idle == (not self.queued)
        assert self.playout.queued_ms == len(self.queued) // 8
        for item, account in self.accounts.items():
            assert self.playout.played_ms(item) == len(account.played) // 8
            assert self.playout.received_ms(item) == account.received // 8


TestLedger = Ledger.TestCase
TestLedger.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


# --- the metronome -------------------------------------------------------------------------------------------------


def test_the_grid_is_absolute() -> None:
    metronome = Metronome()
    metronome.start(100.0)
    now, deadlines = 100.0, []
    for _ in range(5):
        deadlines.append(metronome.next_deadline(now))
        now = deadlines[-1] + 0.004  # awake a little late, each time
    assert deadlines == pytest.approx([100.0, 100.02, 100.04, 100.06, 100.08])
    assert (metronome.late, metronome.lost) == (0, 0)
    assert metronome.lateness_ms == pytest.approx(4)


def test_a_short_stall_is_made_good_at_once() -> None:
    metronome = Metronome(max_catch_up=3)
    metronome.start(0.0)
    now, sent = 0.0, []
    for tick in range(9):
        if tick == 3:
            now += 0.060  # tick 2 was done 60 ms late: ticks 3, 4 and 5 are due already
        deadline = metronome.next_deadline(now)
        now = max(now, deadline)
        sent.append(round(now, 3))
    assert sent == [0.0, 0.02, 0.04, 0.1, 0.1, 0.1, 0.12, 0.14, 0.16]
    assert metronome.lost == 0
    assert metronome.late == 3
    assert metronome.max_lateness_ms == pytest.approx(60)


def test_a_long_stall_starts_a_new_grid_and_counts_what_is_lost() -> None:
    metronome = Metronome(max_catch_up=3)
    metronome.start(0.0)
    assert metronome.next_deadline(0.0) == 0.0
    assert metronome.next_deadline(0.505) == 0.505
    assert metronome.lost == 24  # those due at 0.02 to 0.48; the one of 0.50 is given out now
    assert metronome.next_deadline(0.505) == pytest.approx(0.525)
    assert metronome.max_lateness_ms == pytest.approx(505)


def test_exactly_the_limit_is_still_caught_up() -> None:
    metronome = Metronome(max_catch_up=3)
    metronome.start(0.0)
    metronome.next_deadline(0.0)
    assert metronome.next_deadline(0.080) == pytest.approx(0.020)
    assert metronome.lost == 0


def test_hours_do_not_drift() -> None:
    metronome = Metronome()
    metronome.start(1e6)
    now = 1e6
    for _ in range(3 * 3600 * 50 + 1):
        now = metronome.next_deadline(now)
    assert now == pytest.approx(1e6 + 3 * 3600, abs=1e-6)
    assert metronome.late == metronome.lost == 0


def test_without_start_the_first_call_is_the_start() -> None:
    metronome = Metronome()
    assert metronome.next_deadline(7.0) == 7.0
    assert metronome.next_deadline(7.0) == pytest.approx(7.02)
