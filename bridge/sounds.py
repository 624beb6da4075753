"""What the bridge itself can play to a caller while the model can not speak: a few recordings, ready at every line's rate.

A recording is decoded and resampled once, when the bridge starts, so that all calls share the same bytes and no call
waits for it. The shipped ones lie in `bridge/sounds/`; `[agents.X.sounds]` replaces them (`sound_files` reads both).
When to play what is decided in `patience`.
"""

from __future__ import annotations

import enum
import io
import shlex
import wave
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath

from bridge.audio import SAMPLE_BYTES, PcmFormat, resampled, rms_dbfs, stereo_to_mono
from bridge.errors import ConfigError

MAX_LENGTH_S = 10.0
# Nobody hears that on a telephone: a file that is as quiet was not recorded, and would break the promise of a sound.
_INAUDIBLE_DBFS = -60.0
LINE_RATES_HZ = (8000, 16000, 24000)
_FILE_RATES_HZ = (8000, 16000, 22050, 24000, 32000, 44100, 48000)


class Sound(enum.StrEnum):
    """What can be played. The value is the key in `[agents.X.sounds]`, and the name of the shipped file."""

    ONE_MOMENT = "one_moment"
    STILL_THERE = "still_there"
    BUSY = "busy"
    TROUBLE = "trouble"
    FILLER = "filler"


@dataclass(frozen=True, slots=True, eq=False)
class Recording:
    """One sound: PCM16 mono at each of `LINE_RATES_HZ`, in whole frames of 20 ms (the last is filled with silence)."""

    pcm_by_rate: Mapping[int, bytes]
    length_s: float


class Sounds:
    """The sounds of one agent. Immutable; one object serves all its calls."""

    def __init__(self, recordings: Mapping[Sound, Recording]) -> None:
        """A sound that `recordings` lacks is not to be played at all."""
        self._recordings = dict(recordings)
        self.lengths_s: Mapping[Sound, float] = {name: sound.length_s for name, sound in recordings.items()}

    def pcm(self, sound: Sound, rate_hz: int) -> bytes:
        """PCM16 mono at 8000, 16000 or 24000 Hz, in whole frames; the same object each time. Empty: not to be played.

        Raises `ValueError` for another rate.
        """
        if rate_hz not in LINE_RATES_HZ:
            raise ValueError(f"no sounds at {rate_hz} Hz; rates are {LINE_RATES_HZ}")
        recording = self._recordings.get(sound)
        return recording.pcm_by_rate[rate_hz] if recording else b""


def decode_wav(data: bytes, path: str) -> Recording:
    """A WAV file (PCM16, mono or stereo, 8 to 48 kHz, up to 10 s) as a `Recording`; `path` is for messages.

    Raises `ConfigError`, which says what is wrong with the file and the `sox` command that makes it right.
    """
    try:
        with wave.open(io.BytesIO(data)) as reader:
            channels, width, rate_hz = reader.getnchannels(), reader.getsampwidth(), reader.getframerate()
            # One second more than allowed tells too long from just right; the header of a stream may say 2**31 frames.
            pcm = reader.readframes(min(reader.getnframes(), int((MAX_LENGTH_S + 1) * rate_hz)))
    except (wave.Error, EOFError) as error:
        detail = str(error) or "it ends too early"
        raise ConfigError(f"{path}: not a WAV file of PCM16 ({detail}); {_remedy(path)}") from error
    if width != SAMPLE_BYTES:
        raise ConfigError(f"{path}: has {8 * width} bits a sample, must have 16; {_remedy(path)}")
    if channels not in (1, 2):
        raise ConfigError(f"{path}: has {channels} channels, must be mono or stereo; {_remedy(path)}")
    if rate_hz not in _FILE_RATES_HZ:
        known = ", ".join(map(str, _FILE_RATES_HZ))
        raise ConfigError(f"{path}: has {rate_hz} samples a second, must have one of {known}; {_remedy(path)}")
    pcm = pcm[: len(pcm) // (SAMPLE_BYTES * channels) * SAMPLE_BYTES * channels]
    if channels == 2:
        pcm = stereo_to_mono(pcm)
    length_s = len(pcm) / SAMPLE_BYTES / rate_hz
    if length_s > MAX_LENGTH_S:
        raise ConfigError(
            f"{path}: is longer than {MAX_LENGTH_S:g} s; callers want to hear the agent, not us; "
            f"{_remedy(path, f'trim 0 {MAX_LENGTH_S:g} fade t 0.02 0')}"
        )
    if rms_dbfs(pcm) < _INAUDIBLE_DBFS:
        raise ConfigError(
            f'{path}: is empty or silent; record it again (sox -d -r 16000 -c 1 -b 16 NEW.wav), or write "none" '
            "in place of the file to have no such sound"
        )
    return Recording(
        {line_hz: _whole_frames(resampled(pcm, rate_hz, line_hz), line_hz) for line_hz in LINE_RATES_HZ}, length_s
    )


def _whole_frames(pcm: bytes, rate_hz: int) -> bytes:
    missing = -len(pcm) % PcmFormat(rate_hz).frame_bytes
    return pcm + bytes(missing)


def _remedy(path: str, effects: str = "") -> str:
    target = str(PurePath(path).with_suffix("")) + "-phone.wav"
    command = f"sox {shlex.quote(path)} -r 16000 -c 1 -b 16 {shlex.quote(target)} {effects}".rstrip()
    return f"convert it with: {command}"
