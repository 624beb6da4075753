"""The bridge's own sounds: levels, lengths and spectrum at every line's rate, and errors that a person can act upon."""

from __future__ import annotations

import io
import math
import struct
import tomllib
import wave
from pathlib import Path

import numpy as np
import pytest
from test_audio import db, pcm_of, samples_of, spectrum, tone

from bridge.agent import Agent, AgentSounds
from bridge.audio import PcmFormat, resampled, rms_dbfs, stereo_to_mono
from bridge.config import load_config
from bridge.errors import ConfigError
from bridge.sound_files import load_sounds
from bridge.sounds import LINE_RATES_HZ, Sound, Sounds, decode_wav

ROOT = Path(__file__).parent.parent
SPOKEN = [sound for sound in Sound if sound is not Sound.FILLER]
FILE_RATES_HZ = (8000, 16000, 22050, 24000, 32000, 44100, 48000)


@pytest.fixture(scope="module")
def shipped() -> Sounds:
    return load_sounds({"default": Agent()})["default"]


def wav(pcm: bytes, rate_hz: int = 16000, channels: int = 1, width: int = 2) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setparams((channels, width, rate_hz, 0, "NONE", ""))
        writer.writeframes(pcm)
    return file.getvalue()


# --- the shipped ones ----------------------------------------------------------------------------------------------


def test_every_sound_has_a_key_and_a_file_and_goes_into_the_package() -> None:
    assert set(AgentSounds.__struct_fields__) == set(Sound)
    assert {file.stem for file in (ROOT / "bridge/sounds").glob("*.wav")} == set(Sound)
    package_data = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    assert "sounds/*" in package_data["package-data"]["bridge"]


@pytest.mark.parametrize("rate_hz", LINE_RATES_HZ)
@pytest.mark.parametrize("sound", Sound)
def test_shipped_sounds_suit_a_telephone(shipped: Sounds, sound: Sound, rate_hz: int) -> None:
    pcm = shipped.pcm(sound, rate_hz)
    assert len(pcm) % PcmFormat(rate_hz).frame_bytes == 0
    assert len(pcm) / 2 / rate_hz == pytest.approx(shipped.lengths_s[sound], abs=0.02)
    assert 0.8 < shipped.lengths_s[sound] < 4
    if sound is Sound.FILLER:
        assert -33 < rms_dbfs(pcm) < -28
    else:
        assert -23 < rms_dbfs(pcm) < -18
    wave = samples_of(pcm)
    assert db(np.abs(wave).max() / 32768) < -3
    # It begins and ends in silence: no click.
    edge = rate_hz // 1000
    assert np.abs(wave[:edge]).max() < 40
    assert np.abs(wave[-edge:]).max() < 40


def band_db(pcm: bytes, rate_hz: int, low_hz: float, high_hz: float) -> float:
    """Level of a band of the whole recording, against full scale."""
    samples = samples_of(pcm) / 32768
    power = np.abs(np.fft.rfft(samples)) ** 2
    frequencies = np.fft.rfftfreq(len(samples), 1 / rate_hz)
    inside = power[(frequencies >= low_hz) & (frequencies < high_hz)].sum()
    return 10 * math.log10(max(2 * inside / len(samples) ** 2, 1e-15))


@pytest.mark.parametrize("sound", Sound)
def test_shipped_sounds_have_no_images(shipped: Sounds, sound: Sound) -> None:
    """Made at 16 kHz: above 8 kHz there must be nothing, and what is below 3.4 kHz must be the same at each rate."""
    assert band_db(shipped.pcm(sound, 24000), 24000, 8050, 12000) < -85
    levels = [band_db(shipped.pcm(sound, rate_hz), rate_hz, 300, 3400) for rate_hz in LINE_RATES_HZ]
    assert max(levels) - min(levels) < 0.1
    assert levels[0] > -35


@pytest.mark.parametrize("rate_hz", LINE_RATES_HZ)
def test_the_filler_is_two_notes_without_clicks(shipped: Sounds, rate_hz: int) -> None:
    pcm = shipped.pcm(Sound.FILLER, rate_hz)
    assert band_db(pcm, rate_hz, 380, 540) == pytest.approx(rms_dbfs(pcm), abs=0.2)
    assert band_db(pcm, rate_hz, 697, rate_hz / 2) < -75  # clicks are wide, and DTMF begins here


def test_calls_share_the_bytes() -> None:
    one, two = load_sounds({"a": Agent(), "b": Agent()}).values()
    for sound in Sound:
        for rate_hz in LINE_RATES_HZ:
            assert one.pcm(sound, rate_hz) is two.pcm(sound, rate_hz)


def test_other_rates_are_refused(shipped: Sounds) -> None:
    with pytest.raises(ValueError, match="no sounds at 48000 Hz"):
        shipped.pcm(Sound.BUSY, 48000)


# --- decoding ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("line_hz", LINE_RATES_HZ)
@pytest.mark.parametrize("file_hz", FILE_RATES_HZ)
def test_level_length_and_spectrum_survive_decoding(file_hz: int, line_hz: int) -> None:
    recording = decode_wav(wav(tone(1000, file_hz, seconds=2.0), file_hz), "x.wav")
    pcm = recording.pcm_by_rate[line_hz]
    assert recording.length_s == 2.0
    assert len(pcm) == 4 * line_hz
    frequencies, amplitudes = spectrum(pcm, line_hz)
    near = np.abs(frequencies - 1000) < 40
    assert abs(db(float(amplitudes[near].max()))) < 0.01
    assert db(float(amplitudes[~near].max())) < -75


@pytest.mark.parametrize("line_hz", LINE_RATES_HZ)
@pytest.mark.parametrize("file_hz", [44100, 48000])
def test_what_a_line_can_not_carry_is_gone(file_hz: int, line_hz: int) -> None:
    for frequency_hz in range(line_hz // 2 + 100, file_hz // 2, 700):
        _, amplitudes = spectrum(resampled(tone(frequency_hz, file_hz), file_hz, line_hz), line_hz)
        assert db(float(amplitudes.max())) < -75, frequency_hz


@pytest.mark.parametrize("line_hz", LINE_RATES_HZ)
@pytest.mark.parametrize("file_hz", FILE_RATES_HZ)
def test_resampling_shifts_nothing_and_does_not_wrap_around_the_ends(file_hz: int, line_hz: int) -> None:
    def note(rate_hz: int) -> bytes:
        at = np.arange(rate_hz // 2) / rate_hz
        # One soft note early on: the second half must stay silent, and the first must stand where it stood.
        return pcm_of(20000 * np.sin(2 * np.pi * 700 * at) * np.exp(-(((at - 0.1) / 0.02) ** 2)))

    got, expected = samples_of(resampled(note(file_hz), file_hz, line_hz)), samples_of(note(line_hz))
    assert len(got) == len(expected)
    assert np.abs(got - expected).max() <= 2


@pytest.mark.parametrize("line_hz", LINE_RATES_HZ)
def test_a_click_does_not_ring(line_hz: int) -> None:
    click = np.zeros(48000)
    click[24001] = 30000.0  # between two samples of each line
    got = np.abs(samples_of(resampled(pcm_of(click), 48000, line_hz)))
    assert abs(got.argmax() - line_hz // 2) <= 1
    assert got[line_hz // 2 + line_hz // 200 :].max() < 3  # 5 ms later


@pytest.mark.parametrize("samples", [0, 1, 7, 146, 147, 148, 44099])
def test_lengths_are_rounded(samples: int) -> None:
    pcm = bytes(2 * samples)
    assert len(resampled(pcm, 44100, 24000)) // 2 == math.floor(samples * 24000 / 44100 + 0.5)
    assert resampled(pcm, 44100, 44100) is pcm


def test_full_scale_saturates_and_never_wraps_around() -> None:
    square = pcm_of(np.where(np.arange(44100) // 441 % 2, -32768.0, 32767.0))
    got = samples_of(resampled(square, 44100, 8000))
    assert got.max() == 32767
    assert got.min() == -32768
    assert all(np.ptp(got[i * 80 + 20 : i * 80 + 60]) < 8000 for i in range(1, 99))


def test_stereo_is_mixed_down() -> None:
    left, right = tone(500, 16000), tone(1500, 16000)
    interleaved = np.stack([samples_of(left), samples_of(right)], axis=1).reshape(-1)
    expected = (samples_of(left) + samples_of(right)) / 2
    assert np.abs(samples_of(stereo_to_mono(pcm_of(interleaved))) - expected).max() <= 1
    pcm = decode_wav(wav(pcm_of(interleaved), channels=2), "x.wav").pcm_by_rate[16000]
    assert pcm == stereo_to_mono(pcm_of(interleaved))


def test_the_last_frame_is_filled_with_silence() -> None:
    recording = decode_wav(wav(tone(500, 16000, seconds=0.105)), "x.wav")
    assert recording.length_s == 0.105
    assert [len(recording.pcm_by_rate[rate_hz]) // (rate_hz // 1000 * 2) for rate_hz in LINE_RATES_HZ] == [120] * 3
    assert recording.pcm_by_rate[16000] == tone(500, 16000, seconds=0.105) + bytes(15 * 32)


def test_a_header_that_was_streamed_is_read_to_the_end_of_the_file() -> None:
    """What sox and ffmpeg write into a pipe: they do not know the length yet."""
    data = bytearray(wav(tone(500, 16000, seconds=0.5)))
    struct.pack_into("<I", data, 4, 0xFFFFFFFF)
    struct.pack_into("<I", data, 40, 0xFFFFFFFF)
    assert decode_wav(bytes(data), "x.wav").length_s == 0.5


@pytest.mark.parametrize("channels", [1, 2])
def test_a_sample_that_is_cut_off_is_left_out(channels: int) -> None:
    pcm = tone(500, 16000, seconds=0.5)
    recording = decode_wav(wav(pcm, channels=channels)[:-1], "x.wav")
    assert recording.length_s == (8000 // channels - 1) / 16000


# --- wrong files ---------------------------------------------------------------------------------------------------

SPEECH = tone(500, 16000)


def with_format(tag: int) -> bytes:
    data = bytearray(wav(SPEECH))
    struct.pack_into("<H", data, 20, tag)
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "not a WAV file of PCM16 (it ends too early); convert it with: sox 'my sound.mp3'"),
        (b"ID3\x04" + bytes(100), "not a WAV file of PCM16 (file does not start with RIFF id)"),
        (with_format(7), "not a WAV file of PCM16 (unknown format: 7)"),
        (wav(SPEECH, width=1), "has 8 bits a sample, must have 16; convert it with: sox"),
        (wav(SPEECH[:6000], width=3), "has 24 bits a sample, must have 16"),
        (wav(SPEECH[:6000], channels=3), "has 3 channels, must be mono or stereo"),
        (wav(SPEECH, 11025), "has 11025 samples a second, must have one of 8000, 16000, 22050"),
        (wav(tone(500, 16000, seconds=10.1)), "is longer than 10 s"),
        (wav(tone(500, 16000, seconds=60)), "trim 0 10"),
        (wav(b""), 'is empty or silent; record it again (sox -d -r 16000 -c 1 -b 16 NEW.wav), or write "none"'),
        (wav(bytes(32000)), "is empty or silent"),
        (wav(tone(500, 16000, amplitude=20)), "is empty or silent"),
    ],
)
def test_wrong_files_are_told_with_the_remedy(data: bytes, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        decode_wav(data, "my sound.mp3")
    assert str(caught.value).startswith("my sound.mp3: ")
    assert says in str(caught.value)


def test_ten_seconds_are_allowed() -> None:
    assert decode_wav(wav(tone(500, 44100, seconds=10), 44100), "x.wav").length_s == 10.0


def test_an_error_names_the_key_too(tmp_path: Path) -> None:
    text = "[agents.sales.sounds]\nbusy = 'busy.wav'"
    with pytest.raises(ConfigError) as caught:
        load_sounds(load_config(text, {}, folder=tmp_path).agents)
    assert f"agents.sales.sounds.busy: {tmp_path}/busy.wav: no such file" in str(caught.value)
    (tmp_path / "busy.wav").mkdir()
    with pytest.raises(ConfigError, match="cannot be read"):
        load_sounds(load_config(text, {}, folder=tmp_path).agents)


# --- an agent's own ------------------------------------------------------------------------------------------------


def test_an_agent_has_its_own_file_none_or_the_shipped_one(tmp_path: Path, shipped: Sounds) -> None:
    (tmp_path / "voice").mkdir()
    (tmp_path / "voice/wait.wav").write_bytes(wav(tone(600, 16000, seconds=0.5)))
    text = """
    [agents.a.sounds]
    one_moment = "voice/wait.wav"
    filler = "none"
    [agents.b.sounds]
    still_there = "%s/voice/wait.wav"
    """
    sounds = load_sounds(load_config(text % tmp_path, {}, folder=tmp_path).agents)
    assert sounds["a"].pcm(Sound.ONE_MOMENT, 16000) == tone(600, 16000, seconds=0.5)
    assert sounds["b"].pcm(Sound.STILL_THERE, 8000) is sounds["a"].pcm(Sound.ONE_MOMENT, 8000)
    assert sounds["a"].pcm(Sound.FILLER, 16000) == b""
    assert sounds["a"].pcm(Sound.BUSY, 16000) == shipped.pcm(Sound.BUSY, 16000)
    assert set(sounds["a"].lengths_s) == set(Sound) - {Sound.FILLER}
    assert sounds["a"].lengths_s[Sound.ONE_MOMENT] == 0.5
    assert set(sounds["default"].lengths_s) == set(Sound)
