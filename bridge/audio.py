"""PCM formats, resampling, G.711 and levels. Samples are 16 bit, little-endian, mono, everywhere in this package.

Resampling is a polyphase FIR filter of 4 ms (a Kaiser-windowed sinc), the same for every pair of rates:

* Output sample n stands for the same instant as input sample n * from / to: nothing is shifted. What costs time is
  look-ahead: the last `delay_ms` (2 ms) of the input stay inside until more comes, or `flush` ends the stream.
* Coefficients are multiples of 2**-24 and the sums are taken in float64, so every product and every sum is exact
  (16 + 24 bits and 7 more for 96 taps, of 53). The result does not depend on the order of summation and so neither on
  how the input was cut into pieces, nor on the machine.
* Within 0.1 dB up to 3400 Hz (7400 Hz between 16 and 24 kHz), images and aliases below -80 dB outside the transition
  (600 Hz on each side of half the lower rate), 1 kHz at least 84 dB above all else: `tests/test_audio.py` measures it.
* A block of 4 ms of output depends on two blocks of 4 ms of input: two small matrix products do it, and no
  overlapping view has to be copied first. A 20 ms frame at 16 kHz takes 17 us alone, 5 us together with 19 of other calls
  (`process_together`), and so do 20 ms of a piece of 200 ms (2 cores of an EPYC, Python 3.11, numpy 2.4):
  `python -m timeit -s "from bridge.audio import *; r = Resampler(16000, 24000); x = bytes(640)" "r.process(x)"`.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Protocol, cast

import numpy as np
from numpy.typing import NDArray

with warnings.catch_warnings():
    # Deprecated in 3.11 and 3.12; from 3.13 the same module comes from audioop-lts.
    warnings.simplefilter("ignore", DeprecationWarning)
    import audioop

FRAME_MS = 20
SAMPLE_BYTES = 2
_SUPPORTED_HZ = (8000, 16000, 24000)
_FILTER_MS = 4
# Kaiser's beta for 80 dB. With 4 ms the transition is then 1250 Hz wide; its middle stands this far below half of the
# lower rate, so that the telephone band to 3400 Hz (7400 Hz at 16 kHz) is whole and its images are gone.
_BETA = 7.86
_GUARD_HZ = 100
_COEFFICIENT_SCALE = float(1 << 24)
# 80 ms in one product: below the size at which OpenBLAS starts threads, for which short products only wait.
_BLOCKS_AT_ONCE = 20
# So many frames of 20 ms and their results fit the second cache of a core: 75 in one go take half as long again each.
_STREAMS_AT_ONCE = 20


@dataclass(frozen=True, slots=True)
class PcmFormat:
    """PCM16 little-endian mono at `rate_hz`, a multiple of 1000."""

    rate_hz: int

    def __post_init__(self) -> None:
        if self.rate_hz <= 0 or self.rate_hz % 1000:
            raise ValueError(f"rate_hz must be a multiple of 1000, not {self.rate_hz}")

    @property
    def frame_ms(self) -> int:
        return FRAME_MS

    @property
    def frame_samples(self) -> int:
        return self.rate_hz // 1000 * FRAME_MS

    @property
    def frame_bytes(self) -> int:
        return self.bytes_per_ms * FRAME_MS

    @property
    def bytes_per_ms(self) -> int:
        return self.rate_hz // 1000 * SAMPLE_BYTES

    @property
    def silence(self) -> bytes:
        """One 20 ms frame of zeros; the same object each time."""
        return _silence(self.frame_bytes)

    def duration_ms(self, nbytes: int) -> int:
        """Milliseconds in so many bytes, rounded down."""
        return nbytes // self.bytes_per_ms


@cache
def _silence(nbytes: int) -> bytes:
    return bytes(nbytes)


MODEL_FORMAT = PcmFormat(24000)


class PcmConverter(Protocol):
    """What `resampler` returns: a stream of PCM16 in pieces of any size, even odd numbers of bytes."""

    @property
    def delay_ms(self) -> float:
        """Audio that stays inside until more comes or the stream is flushed."""
        ...

    def process(self, pcm: bytes) -> bytes:
        """Take the next bytes of the input; return all output that they make possible, perhaps none."""
        ...

    def flush(self) -> bytes:
        """End the stream: the rest of the output, as if silence followed; then start anew.

        Together with what `process` returned it is round(input samples * to_hz / from_hz) samples. Half a sample is
        dropped.
        """
        ...

    def reset(self) -> None:
        """Forget the stream without its rest."""
        ...


def resampler(from_hz: int, to_hz: int) -> PcmConverter:
    """A converter between two of 8000, 16000 and 24000 Hz. Equal rates pass through, whole samples at a time."""
    return Identity() if from_hz == to_hz else Resampler(from_hz, to_hz)


class Identity:
    """The converter between equal rates: the very same bytes where they are whole samples."""

    delay_ms = 0.0

    def __init__(self) -> None:
        self._odd = b""

    def process(self, pcm: bytes) -> bytes:
        if not self._odd and not len(pcm) % SAMPLE_BYTES:
            return pcm
        whole, self._odd = _whole_samples(self._odd + pcm)
        return whole

    def flush(self) -> bytes:
        self.reset()
        return b""

    def reset(self) -> None:
        self._odd = b""


class Resampler:
    """See `PcmConverter` and the head of this module. One object is one stream in one direction."""

    def __init__(self, from_hz: int, to_hz: int) -> None:
        if from_hz not in _SUPPORTED_HZ or to_hz not in _SUPPORTED_HZ:
            raise ValueError(f"no resampler for {from_hz} to {to_hz} Hz; rates are {_SUPPORTED_HZ}")
        common = math.gcd(from_hz, to_hz)
        self._up, self._down = to_hz // common, from_hz // common
        self._block_in, self._block_out = from_hz * _FILTER_MS // 1000, to_hz * _FILTER_MS // 1000
        self._ahead = self._block_in // 2
        self._first_half, self._second_half = _matrices(from_hz, to_hz)
        self.reset()

    @property
    def delay_ms(self) -> float:
        return _FILTER_MS / 2

    def reset(self) -> None:
        self._odd = b""
        self._received = 0  # samples taken in
        # Input from `_origin` on, and half a filter before it (silence at the start).
        self._pending: NDArray[np.float64] = np.zeros(self._ahead)

    def process(self, pcm: bytes) -> bytes:
        if self._odd or len(pcm) % SAMPLE_BYTES:
            pcm, self._odd = _whole_samples(self._odd + pcm)
        return _advance([self], [pcm])[0] if pcm else b""

    def flush(self) -> bytes:
        total = (2 * self._received * self._up + self._down) // (2 * self._down)
        tail = _advance([self], [bytes(SAMPLE_BYTES * self._ahead)], total)[0]
        self.reset()
        return tail

    def point(self, pcm: bytes) -> Hashable:
        """Streams that are to take a piece at the same point do the same steps. None: this piece is a special case."""
        if self._odd or self._received < self._ahead or len(pcm) % SAMPLE_BYTES or not pcm:
            return None
        return self._up, self._down, self._block_in, self._received % self._down, len(pcm)

    def _returned(self) -> int:
        """Samples given out so far: all for which the look-ahead has come."""
        return max(0, -(-(self._received - self._ahead) * self._up // self._down))


def process_together(work: Sequence[tuple[PcmConverter, bytes]]) -> list[bytes]:
    """`[converter.process(pcm) for converter, pcm in work]`, bit for bit, for converters that are all different.

    The calls of a process are read together and their frames are alike, so one set of matrix operations does for all:
    7 us a frame of 20 ms when there are 20 of them, where one by one in turn, with cold caches, each takes 19 us.
    """
    results = [b""] * len(work)
    alike: dict[Hashable, list[int]] = {}
    for index, (converter, pcm) in enumerate(work):
        point = converter.point(pcm) if isinstance(converter, Resampler) else None
        if point is None:
            results[index] = converter.process(pcm)
        else:
            alike.setdefault(point, []).append(index)
    for indices in alike.values():
        for start in range(0, len(indices), _STREAMS_AT_ONCE):
            some = indices[start : start + _STREAMS_AT_ONCE]
            streams = [cast(Resampler, work[index][0]) for index in some]
            for index, pcm in zip(some, _advance(streams, [work[index][1] for index in some]), strict=True):
                results[index] = pcm
    return results


def _advance(streams: Sequence[Resampler], pcm: Sequence[bytes], available: int | None = None) -> list[bytes]:
    """Give each stream its piece; return the output from where its last one ended up to sample number `available`.

    All streams are at the same point, and the pieces are as long as each other.
    """
    one = streams[0]
    new, held = len(pcm[0]) // SAMPLE_BYTES, len(one._pending)
    returned = one._returned()
    origin = returned // one._up * one._down
    for stream in streams:
        stream._received += new
    if available is None:
        available = one._returned()
    samples = np.frombuffer(b"".join(pcm), dtype="<i2").reshape(len(streams), new)
    wanted = available - returned
    skipped = returned - origin // one._down * one._up
    blocks = -(-(skipped + wanted) // one._block_out)
    window = np.zeros((len(streams), max((blocks + 1) * one._block_in, held + new)))
    window[:, :held] = [stream._pending for stream in streams]
    window[:, held : held + new] = samples
    kept = window[:, available // one._up * one._down - origin : held + new].copy()
    for stream, pending in zip(streams, kept, strict=True):
        stream._pending = pending
    if wanted <= 0:
        return [b""] * len(streams)
    rows = window[:, : (blocks + 1) * one._block_in].reshape(len(streams), blocks + 1, one._block_in)
    result = np.empty((len(streams), blocks, one._block_out))
    for start in range(0, blocks, _BLOCKS_AT_ONCE):
        end = min(start + _BLOCKS_AT_ONCE, blocks)
        np.matmul(rows[:, start:end], one._first_half, out=result[:, start:end])
        result[:, start:end] += rows[:, start + 1 : end + 1] @ one._second_half
    np.rint(result, out=result)
    np.minimum(result, 32767.0, out=result)
    np.maximum(result, -32768.0, out=result)
    output = result.reshape(len(streams), -1)[:, skipped : skipped + wanted].astype("<i2").tobytes()
    size = wanted * SAMPLE_BYTES
    return [output[at : at + size] for at in range(0, len(output), size)]


def _whole_samples(data: bytes) -> tuple[bytes, bytes]:
    end = len(data) & ~1
    return data[:end], data[end:]


@cache
def _matrices(from_hz: int, to_hz: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The filter as two matrices: 4 ms of output = this block of input @ first + the next one @ second.

    Input row j of the pair of blocks stands at j - ahead, output column r at r * from_hz / to_hz (both in input
    samples), so that the coefficient is the filter at their distance.
    """
    block_in, block_out = from_hz * _FILTER_MS // 1000, to_hz * _FILTER_MS // 1000
    half = block_in // 2
    distance = np.arange(block_out)[None, :] * (from_hz / to_hz) - (np.arange(2 * block_in)[:, None] - half)
    cutoff = (min(from_hz, to_hz) - 2 * _GUARD_HZ) / from_hz
    window = np.where(
        np.abs(distance) < half,
        np.i0(_BETA * np.sqrt(np.clip(1.0 - (distance / half) ** 2, 0.0, None))) / np.i0(_BETA),
        0.0,
    )
    taps = cutoff * np.sinc(cutoff * distance) * window
    taps = np.rint(taps * _COEFFICIENT_SCALE) / _COEFFICIENT_SCALE
    return np.ascontiguousarray(taps[:block_in]), np.ascontiguousarray(taps[block_in:])


# --- whole recordings ----------------------------------------------------------------------------------------------

# Zeros around a recording, so that the end does not ring into the start: the filter of 600 Hz is shorter.
_MARGIN_S = 0.02
_TRANSITION_HZ = 600


def resampled(pcm: bytes, from_hz: int, to_hz: int) -> bytes:
    """A whole recording at another rate, any two: round(samples * to_hz / from_hz) samples, none of them shifted.

    By one Fourier transform: what the rates have in common up to 600 Hz below half the lower one stays as it is,
    above it fades away, and nothing folds back. For what is loaded once: 10 s from 44.1 to 24 kHz take 0.03 to 0.1 s.
    """
    if from_hz == to_hz:
        return pcm
    common = math.gcd(from_hz, to_hz)
    up, down = to_hz // common, from_hz // common
    samples = np.frombuffer(pcm, dtype="<i2")
    # Whole periods of the two rates: then output sample n stands exactly at input sample n * down / up.
    margin = -(-int(from_hz * _MARGIN_S) // down)
    periods = -(-len(samples) // down) + 2 * margin
    padded = np.zeros(periods * down)
    padded[margin * down : margin * down + len(samples)] = samples
    lines = np.fft.rfft(padded)[: periods * min(up, down) // 2 + 1]
    lines_hz = np.arange(len(lines)) * (from_hz / len(padded))
    fade = np.clip((min(from_hz, to_hz) / 2 - lines_hz) / _TRANSITION_HZ, 0.0, 1.0)
    output = np.fft.irfft(lines * (0.5 - 0.5 * np.cos(np.pi * fade)), periods * up) * (up / down)
    length = (2 * len(samples) * to_hz + from_hz) // (2 * from_hz)
    whole = np.clip(np.rint(output[margin * up : margin * up + length]), -32768, 32767)
    return whole.astype("<i2").tobytes()


def stereo_to_mono(pcm: bytes) -> bytes:
    """The mean of two interleaved channels."""
    return audioop.tomono(pcm, SAMPLE_BYTES, 0.5, 0.5)


def interleaved(left: bytes, right: bytes) -> bytes:
    """Two channels of the same length as one stream, left first."""
    rows = np.empty((len(left) // SAMPLE_BYTES, 2), dtype="<i2")
    rows[:, 0] = np.frombuffer(left, dtype="<i2")
    rows[:, 1] = np.frombuffer(right, dtype="<i2")
    return rows.tobytes()


# --- G.711 and levels ----------------------------------------------------------------------------------------------


def ulaw_to_pcm(ulaw: bytes) -> bytes:
    """G.711 mu-law, one byte a sample, to PCM16."""
    return audioop.ulaw2lin(ulaw, SAMPLE_BYTES)


def pcm_to_ulaw(pcm: bytes) -> bytes:
    """PCM16 to G.711 mu-law."""
    return audioop.lin2ulaw(pcm, SAMPLE_BYTES)


def alaw_to_pcm(alaw: bytes) -> bytes:
    """G.711 A-law, one byte a sample, to PCM16."""
    return audioop.alaw2lin(alaw, SAMPLE_BYTES)


def pcm_to_alaw(pcm: bytes) -> bytes:
    """PCM16 to G.711 A-law."""
    return audioop.lin2alaw(pcm, SAMPLE_BYTES)


def rms_dbfs(pcm: bytes) -> float:
    """The level of whole samples against a square wave of full scale: a full-scale sine has -3.0, silence -inf."""
    rms = audioop.rms(pcm, SAMPLE_BYTES)
    return 20 * math.log10(rms / 32768) if rms else -math.inf
