"""Recording without a call: settings, file names, the WAV header, the two channels' time line, states, the file."""

from __future__ import annotations

import errno
import os
import stat
import threading
import wave
from io import BytesIO
from pathlib import Path, PurePath

import pytest

from bridge.audio import PcmFormat, interleaved
from bridge.config import load_config
from bridge.errors import ConfigError, RecordingError
from bridge.recording import Recording, below, file_name, harmless, numbered, opening, says
from bridge.recording_file import RecordingFile
from bridge.recording_state import RecordingLife, RecordingState, RecordingStep
from bridge.stereo_track import Side, StereoTrack
from bridge.wav import HEADER_BYTES, MAX_DATA_BYTES, wav_header

NAMES = {
    **{"date": "2026-11-27", "time": "142501", "agent": "sales", "caller": "1001 Alice", "called": "100"},
    "call_id": "0b7e",
}

# Settings ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ('by = "me"', 'agents.x.recording.by: must be "asterisk", "bridge" or "off"'),
        ('file = "{caler}.wav"', "agents.x.recording.file: {caler} is not known; known: {date}, {time}"),
        ('file = "{0}.wav"', "agents.x.recording.file: {0} is not known"),
        ('file = "{caller.wav"', "agents.x.recording.file: has a brace without its partner"),
        ('file = "{caller}.mp3"', "agents.x.recording.file: must be the name of a file that ends in .wav"),
        ('file = "calls/.wav"', "agents.x.recording.file: must be the name of a file"),
        (
            'by = "asterisk"\nfile = "/x/{call_id}.wav"',
            "agents.x.recording.file: must lie below Asterisk's own folder",
        ),
        (
            'by = "asterisk"\nfile = "../{call_id}.wav"',
            "agents.x.recording.file: must lie below Asterisk's own folder",
        ),
        ('decline_key = "99"', "agents.x.recording.decline_key: must be one key"),
        (
            'decline_key = "#"\n[agents.x.turn_detection]\ntype = "manual"',
            "agents.x.recording.decline_key: must be another key than those of `keys`",
        ),
        ("max_mb = 5000", "agents.x.recording.max_mb: must be 1 to 4000"),
    ],
)
def test_what_is_wrong_is_told_at_load(lines: str, message: str) -> None:
    with pytest.raises(ConfigError, match=r"bridge\.toml:[34]: ") as told:
        load_config(f"[agents.x]\n[agents.x.recording]\n{lines}\n", {})
    assert message in str(told.value)


def test_a_key_of_manual_turns_is_free_where_turns_are_not_manual() -> None:
    config = load_config('[agents.x.recording]\ndecline_key = "#"\n', {})
    assert config.agents["x"].recording.decline_key == "#"


def test_the_path_begins_at_the_settings_folder() -> None:
    text = '[agents.x.recording]\nby = "BY"\nfile = "calls/{call_id}.wav"\n'
    ours, asterisks = (
        load_config(text.replace("BY", by), {}, folder=PurePath("/etc/rb")).agents["x"]
        for by in ("bridge", "asterisk")
    )
    assert ours.recording.file == "/etc/rb/calls/{call_id}.wav"
    assert asterisks.recording.file == "calls/{call_id}.wav", "that disk is Asterisk's"
    assert below(Recording(by="bridge", file="/srv/{call_id}.wav"), PurePath("/etc")).file == "/srv/{call_id}.wav"


@pytest.mark.parametrize(
    ("template", "name"),
    [
        ("recordings/{date}/{time}-{agent}-{caller}.wav", "recordings/2026-11-27/142501-sales-1001-Alice.wav"),
        ("{called}/{call_id}.wav", "100/0b7e.wav"),
        ("/srv/{odd folder}/{call_id}.wav", "/srv/{odd folder}/0b7e.wav"),
        ("plain.wav", "plain.wav"),
    ],
)
def test_a_template_becomes_a_name(template: str, name: str) -> None:
    assert file_name(template, NAMES) == name


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ("1001 Alice", "1001-Alice"),
        ("+49 30 123", "+49-30-123"),
        ("../../etc/passwd", "etc-passwd"),
        ("..", "unknown"),
        ("", "unknown"),
        ("a..b", "a.b"),
        ("/", "unknown"),
        ("a\\b\0c\nd", "a-b-c-d"),
        ("Jürgen {agent}", "Jürgen-agent"),
        ("x" * 300, "x" * 40),
        ("-rf", "rf"),
        ("%2e%2e", "2e-2e"),
    ],
)
def test_what_a_caller_is_called_can_not_leave_the_folder(value: str, kept: str) -> None:
    assert harmless(value) == kept
    assert len(PurePath(file_name("a/{caller}.wav", {"caller": value})).parts) == 2


def test_a_name_that_is_taken_gets_a_number() -> None:
    assert [numbered("a/b.wav", n) for n in (1, 2, 3)] == ["a/b.wav", "a/b-2.wav", "a/b-3.wav"]


def test_the_notice_comes_before_the_greeting() -> None:
    on = Recording(by="bridge", consent="This call is recorded.")
    said = opening(on, "Greet the caller.")
    assert said.index("This call is recorded.") < said.index("Greet the caller.")
    assert "This call is recorded." in opening(on, "")
    assert opening(Recording(by="off", consent="This call is recorded."), "Greet.") == "Greet."
    assert opening(Recording(by="asterisk"), "Greet.") == "Greet."


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("This call is recorded. Hello!", True),
        ("Hi! This call is recorded, how can I help?", True),
        ("This  call -- IS recorded", True),
        ("This call is recorded.", True),
        ("This call is being recorded.", False),
        ("This call is recordedly", False),
        ("", False),
    ],
)
def test_whether_the_notice_was_said(text: str, said: bool) -> None:
    assert says(text, "This call is recorded.") is said


# The WAV header ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rate_hz", "channels", "rows"), [(8000, 1, 0), (16000, 2, 5), (24000, 2, 48000)])
def test_the_standard_library_reads_the_header(rate_hz: int, channels: int, rows: int) -> None:
    data = bytes(rows * channels * 2)
    header = wav_header(rate_hz, channels, len(data))
    assert len(header) == HEADER_BYTES
    with wave.open(BytesIO(header + data)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getnframes()) == (rate_hz, channels, rows)
        assert file.getsampwidth() == 2


@pytest.mark.parametrize("size", [-1, MAX_DATA_BYTES + 1])
def test_a_wav_file_has_its_limit(size: int) -> None:
    wav_header(8000, 2, MAX_DATA_BYTES)
    with pytest.raises(ValueError, match="a WAV file holds"):
        wav_header(8000, 2, size)


# Two channels on one time line --------------------------------------------------------------------------------------------

SLIN = PcmFormat(8000)


def pcm(value: int, ms: int = 20) -> bytes:
    return value.to_bytes(2, "little") * (8 * ms)


def laid(
    *pieces: tuple[Side, int, bytes], until_ms: int, more: StereoTrack | None = None
) -> tuple[list[int], list[int]]:
    """The two channels, one number per ms; pieces with their time in ms after 1000 s."""
    track = more or StereoTrack(SLIN)
    rows = track.lay([(side, 1000 + at / 1000, audio) for side, at, audio in pieces], 1000 + until_ms / 1000)
    values = memoryview(rows).cast("h").tolist()
    return values[0::16], values[1::16]


A, C = Side.AGENT, Side.CALLER


def test_each_side_has_its_channel() -> None:
    left, right = laid((A, 0, pcm(7)), (C, 0, pcm(3)), (A, 20, pcm(8)), (C, 20, pcm(4)), until_ms=40)
    assert left == [3] * 20 + [4] * 20
    assert right == [7] * 20 + [8] * 20


def test_it_begins_with_the_agents_first_frame() -> None:
    left, right = laid((C, -15, pcm(1)), (A, 0, pcm(7)), (C, 5, pcm(3)), until_ms=40)
    assert left == [0] * 5 + [3] * 20 + [0] * 15
    assert right == [7] * 20 + [0] * 20


def test_a_lost_tick_of_the_agent_is_a_hole() -> None:
    _, right = laid((A, 0, pcm(7)), (A, 43, pcm(8)), until_ms=70)
    assert right == [7] * 20 + [0] * 23 + [8] * 20 + [0] * 7


@pytest.mark.parametrize("jitter_ms", [-19, -5, 5, 59])
def test_the_callers_jitter_leaves_no_seam(jitter_ms: int) -> None:
    left, _ = laid((A, 0, pcm(7)), (C, 0, pcm(3)), (C, 20 + jitter_ms, pcm(4)), (C, 40, pcm(5)), until_ms=60)
    assert left == [3] * 20 + [4] * 20 + [5] * 20


def test_where_the_caller_sent_nothing_is_silence() -> None:
    left, _ = laid((A, 0, pcm(7)), (C, 0, pcm(3)), (C, 90, pcm(4)), until_ms=120)
    assert left == [3] * 20 + [0] * 70 + [4] * 20 + [0] * 10


def test_what_came_at_once_after_a_stall_was_said_before() -> None:
    left, _ = laid((A, 0, pcm(7)), (C, 0, pcm(3)), (C, 300, pcm(4, 300)), until_ms=320)
    assert left == [3] * 20 + [4] * 300


def test_a_caller_far_ahead_of_time_loses_a_frame() -> None:
    track = StereoTrack(SLIN)
    frames = [(C, 0, pcm(n)) for n in range(1, 14)]
    left, _ = laid((A, 0, pcm(7)), *frames, until_ms=400, more=track)
    assert left[:240:20] == [*range(1, 12), 0]
    assert track.lost_ms == 40


def test_pieces_may_come_in_parts_and_behind_the_end() -> None:
    track = StereoTrack(SLIN)
    first = laid((A, 0, pcm(7)), (A, 20, pcm(8)), (C, 0, pcm(3)), until_ms=30, more=track)
    then = laid((C, 20, pcm(4)), (A, 40, pcm(9)), until_ms=60, more=track)
    assert first == ([3] * 20 + [0] * 10, [7] * 20 + [8] * 10)
    assert then == ([4] * 20 + [0] * 10, [8] * 10 + [9] * 20)
    assert track.length_ms == 60


def test_nothing_is_laid_before_the_beginning_nor_twice() -> None:
    track = StereoTrack(SLIN)
    assert laid((C, 0, pcm(3)), until_ms=1000, more=track) == ([], [])
    assert laid((A, 100, pcm(7)), until_ms=50, more=track) == ([], [])
    assert laid(until_ms=120, more=track)[1] == [7] * 20
    assert laid(until_ms=120, more=track)[1] == []


def test_interleaving_keeps_every_sample() -> None:
    assert interleaved(b"\1\0\2\0", b"\3\0\4\0") == b"\1\0\3\0\2\0\4\0"
    assert interleaved(b"", b"") == b""


# States -----------------------------------------------------------------------------------------------------------------

BEGIN, PAUSE, RESUME = RecordingStep.BEGIN, RecordingStep.PAUSE, RecordingStep.RESUME


def test_a_recording_pauses_as_long_as_anybody_wants_it() -> None:
    life = RecordingLife()
    assert life.begin() == [BEGIN]
    assert life.pause("application") == [PAUSE]
    assert life.pause("digits") == []
    assert life.resume("application") == []
    assert life.resume("digits") == [RESUME]
    assert life.running


def test_a_pause_before_the_beginning_holds() -> None:
    life = RecordingLife()
    assert life.pause("digits") == []
    assert life.begin() == [BEGIN, PAUSE]
    assert life.resume("digits") == [RESUME]


@pytest.mark.parametrize("end", [RecordingStep.END, RecordingStep.DECLINE, RecordingStep.FAIL])
def test_an_end_is_final(end: RecordingStep) -> None:
    life = RecordingLife()
    life.begin()
    assert life.step(end) == [end]
    assert life.over
    assert not life.running
    for step in RecordingStep:
        assert life.step(step) == []
    assert life.begin() == life.pause("x") == life.resume("x") == []


def test_what_was_never_begun_can_not_be_declined() -> None:
    life = RecordingLife()
    assert life.step(RecordingStep.DECLINE) == []
    assert life.step(RecordingStep.END) == [RecordingStep.END]
    assert life.state is RecordingState.ENDED


# The file ---------------------------------------------------------------------------------------------------------------


def rows(path: str | Path) -> int:
    with wave.open(str(path)) as file:
        return int(file.getnframes())


def test_the_file_is_complete_after_each_write(tmp_path: Path) -> None:
    file = RecordingFile(8000)
    file.create(str(tmp_path / "a" / "b" / "call.wav"))
    assert rows(file.path) == 0
    for n in (1, 2, 3):
        file.write(bytes(4 * 160))
        assert rows(file.path) == n * 160, "a process that is killed now leaves this"
    file.close()
    file.close()
    assert Path(file.path).stat().st_size == HEADER_BYTES + 3 * 640
    assert stat.S_IMODE(Path(file.path).stat().st_mode) & 0o007 == 0
    file.delete()
    assert not Path(file.path).exists()
    file.delete()


def test_nothing_is_ever_overwritten(tmp_path: Path) -> None:
    taken = tmp_path / "call.wav"
    taken.write_bytes(b"precious")
    file = RecordingFile(8000)
    file.create(str(taken))
    file.close()
    assert file.path == str(tmp_path / "call-2.wav")
    assert taken.read_bytes() == b"precious"


def test_a_folder_that_can_not_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(RecordingError, match=r"file: File exists"):
        RecordingFile(8000).create(str(tmp_path / "file" / "call.wav"))


def test_a_file_that_was_taken_away_is_told(tmp_path: Path) -> None:
    file = RecordingFile(8000)
    file.create(str(tmp_path / "call.wav"))
    Path(file.path).unlink()
    with pytest.raises(RecordingError, match="somebody removed the file"):
        file.write(bytes(4))
    file.close()
    file.delete()


def test_a_full_disk_keeps_what_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = RecordingFile(8000)
    file.create(str(tmp_path / "call.wav"))
    file.write(bytes(4 * 100))
    write = os.pwrite
    room = 4 * 50 + 2

    def pwrite(number: int, data: bytes, at: int) -> int:
        free = HEADER_BYTES + 4 * 100 + room - at
        if free <= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(number, data[:free], at)

    monkeypatch.setattr(os, "pwrite", pwrite)
    with pytest.raises(RecordingError, match=r"call\.wav: No space left on device"):
        file.write(bytes(4 * 100))
    assert rows(file.path) == 150
    file.close()


def test_it_grows_to_its_limit_and_no_further(tmp_path: Path) -> None:
    file = RecordingFile(8000, 1000)
    file.create(str(tmp_path / "call.wav"))
    file.write(bytes(4 * 200))
    assert not file.full
    file.write(bytes(4 * 200))
    assert file.full
    assert Path(file.path).stat().st_size == 1000
    assert rows(file.path) == (1000 - HEADER_BYTES) // 4
    file.close()


def test_a_close_behind_a_thread_that_hangs_closes_what_that_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hangs, goes_on = threading.Event(), threading.Event()
    pwrite = os.pwrite

    def hang(number: int, data: bytes, at: int) -> int:
        hangs.set()
        assert goes_on.wait(10)
        return pwrite(number, data, at)

    file = RecordingFile(8000)
    file.create(str(tmp_path / "a.wav"))
    monkeypatch.setattr(os, "pwrite", hang)
    threads = [threading.Thread(target=file.write, args=(bytes(400),)), threading.Thread(target=file.close)]
    threads[0].start()
    assert hangs.wait(10)
    threads[1].start()
    goes_on.set()
    for thread in threads:
        thread.join(10)
    assert file._number == -1
    assert file.data_bytes == 400
