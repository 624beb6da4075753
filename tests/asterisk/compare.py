"""Is this recording that speech? Lag, correlation, level and gaps of a recording against what was said.

Both are brought to 48 kHz and to the same band (a narrowband leg can not carry more than 3.4 kHz, and is not blamed for
it), the lag with the best normalised cross-correlation is found by FFT, and the rest is measured there. 48 kHz, because
a lag of half a sample costs correlation: at 7 kHz, 8 % at 48 kHz but 40 % at 24 kHz.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float64]

RATE_HZ = 48000
BAND_HZ = (100.0, 3400.0)
# A gap is looked for in windows of 5 ms: shorter holes exist in any speech, and a lost frame is 20 ms long.
_WINDOW = RATE_HZ * 5 // 1000
_HOP = RATE_HZ // 1000
_LOUD = 32768 * 10 ** (-45 / 20)
_FALL = 10 ** (-20 / 20)
_SLIP_PART_S = 0.7
_SLIP_MAX_S = 0.1


@dataclass(frozen=True)
class Match:
    """How the recording holds the reference.

    `lag_ms`: where the reference begins in the recording. `correlation`: 1 is the same sound. `level_db`: above zero the
    recording is louder. `gap_ms`: the longest time where the reference is loud and the recording 20 dB below it.
    `slip_ms`: how much later, compared with its beginning, the end of the reference stands than it should: a frame too
    many or too few is 20 ms.
    """

    lag_ms: float
    correlation: float
    level_db: float
    gap_ms: float
    slip_ms: float

    def __str__(self) -> str:
        return (
            f"correlation {self.correlation:.3f}, level {self.level_db:+.2f} dB, gap {self.gap_ms:g} ms, "
            f"slip {self.slip_ms:+.2f} ms, lag {self.lag_ms:.1f} ms"
        )

    @property
    def same(self) -> bool:
        """What the issue asks for: correlation at least 0.95, level within 1 dB, no gap, and nothing lost or doubled."""
        return self.correlation >= 0.95 and abs(self.level_db) <= 1 and self.gap_ms == 0 and abs(self.slip_ms) <= 1


def compare(
    said: bytes, said_hz: int, recorded: bytes, recorded_hz: int, *, band_hz: tuple[float, float] = BAND_HZ
) -> Match:
    """How `recorded` holds `said`, both PCM16; `recorded` may be longer and begin at any time before it."""
    reference = at_48k(said, said_hz, band_hz)
    recording = at_48k(recorded, recorded_hz, band_hz)
    # So that a recording which ends too early is told by its gap, at the right lag.
    recording = np.concatenate([recording, np.zeros(max(RATE_HZ, len(reference) - len(recording)))])
    lag, correlation = best_lag(reference, recording)
    found = recording[lag : lag + len(reference)]
    return Match(
        lag_ms=lag / RATE_HZ * 1000,
        correlation=correlation,
        level_db=20 * float(np.log10(max(rms(found), 1e-9) / max(rms(reference), 1e-9))),
        gap_ms=_gap_ms(reference, found),
        slip_ms=_slip_ms(reference, recording, lag),
    )


def at_48k(pcm: bytes, rate_hz: int, band_hz: tuple[float, float]) -> Samples:
    """Samples at 48 kHz with nothing outside the band; by the spectrum, so without delay."""
    samples = np.frombuffer(pcm, "<i2").astype(np.float64)
    # Whole units of 20 ms, so that every rate has a whole number of samples; and silence between end and beginning.
    unit = rate_hz // 50
    padded = np.concatenate([samples, np.zeros(unit * 10 + (-len(samples)) % unit)])
    length = len(padded) * RATE_HZ // rate_hz
    spectrum = np.fft.rfft(padded)
    frequency = np.arange(len(spectrum)) * rate_hz / len(padded)
    spectrum[(frequency < band_hz[0]) | (frequency > band_hz[1])] = 0
    return np.asarray(np.fft.irfft(spectrum, length) * (RATE_HZ / rate_hz))[: len(samples) * RATE_HZ // rate_hz]


def best_lag(reference: Samples, recording: Samples) -> tuple[int, float]:
    """Where in `recording` (not shorter) `reference` begins, and the normalised correlation there."""
    length = 1 << (len(recording) + len(reference)).bit_length()
    product = np.fft.rfft(recording, length) * np.conj(np.fft.rfft(reference, length))
    scores = np.fft.irfft(product, length)[: len(recording) - len(reference) + 1]
    energy = np.concatenate([[0.0], np.cumsum(recording**2)])
    energy = energy[len(reference) :] - energy[: len(energy) - len(reference)]
    # Where there is next to nothing, rounding would decide.
    floor = 1e-4 * float(np.sum(reference**2)) + 1e-9
    scores /= np.sqrt(np.maximum(energy, floor) * max(float(np.sum(reference**2)), 1e-9))
    lag = int(np.argmax(scores))
    return lag, float(scores[lag])


def rms(samples: Samples) -> float:
    return float(np.sqrt(np.mean(samples**2))) if len(samples) else 0.0


def _levels(samples: Samples) -> Samples:
    windows = np.lib.stride_tricks.sliding_window_view(samples, _WINDOW)[::_HOP]
    return np.asarray(np.sqrt(np.mean(windows**2, axis=1)))


def _gap_ms(reference: Samples, found: Samples) -> float:
    before, after = _levels(reference), _levels(found)
    longest = run = 0
    for missing in (before > _LOUD) & (after < before * _FALL):
        run = run + 1 if missing else 0
        longest = max(longest, run)
    return float(longest)


def _slip_ms(reference: Samples, recording: Samples, lag: int) -> float:
    part, reach = int(_SLIP_PART_S * RATE_HZ), int(_SLIP_MAX_S * RATE_HZ)
    if len(reference) < 2 * part:
        return 0.0
    recording = np.concatenate([np.zeros(reach), recording, np.zeros(reach)])
    found = []
    for start in (0, len(reference) - part):
        around = recording[lag + start : lag + start + part + 2 * reach]
        found.append(best_lag(reference[start : start + part], around)[0])
    return (found[1] - found[0]) / RATE_HZ * 1000


def loud_span_ms(pcm: bytes, rate_hz: int, *, quiet: float = 0.05) -> float:
    """From the first to the last sample above `quiet` of the peak: the length of a tone in a recording."""
    loud = _loud_samples(pcm, quiet)
    return float(loud[-1] + 1 - loud[0]) * 1000 / rate_hz if len(loud) else 0.0


def loud_end_ms(pcm: bytes, rate_hz: int, *, quiet: float = 0.05) -> float:
    """Where the last of those samples ends; 0 if there is none."""
    loud = _loud_samples(pcm, quiet)
    return float(loud[-1] + 1) * 1000 / rate_hz if len(loud) else 0.0


def from_first_loud(pcm: bytes, *, quiet: float = 0.05) -> bytes:
    """Without what comes before those samples."""
    loud = _loud_samples(pcm, quiet)
    return pcm[2 * int(loud[0]) :] if len(loud) else b""


def _loud_samples(pcm: bytes, quiet: float) -> NDArray[np.intp]:
    samples = np.abs(np.frombuffer(pcm, "<i2").astype(np.int64))
    if not len(samples) or samples.max() < 500:
        return np.zeros(0, np.intp)
    return np.flatnonzero(samples > quiet * samples.max())


def tone_share(pcm: bytes, rate_hz: int, hz: float) -> float:
    """How much of the energy lies within 10 Hz of `hz`: 1 for that tone, near 0 for anything else."""
    samples = np.frombuffer(pcm, "<i2").astype(np.float64)
    power = np.abs(np.fft.rfft(samples * np.hanning(len(samples)))) ** 2
    frequency = np.arange(len(power)) * rate_hz / max(1, len(samples))
    return float(power[np.abs(frequency - hz) <= 10].sum() / max(float(power.sum()), 1e-9))
