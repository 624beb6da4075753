"""The model that listens: a recogniser for the phrases of a phrasebook, and the answers that belong to them.

It compares sound, not words: log energies of eight telephone bands every 10 ms, less the mean of each band, so neither
level nor the line's tone matters; then the normalised correlation with every caller phrase, over all reasonable shifts.
A right answer in a demo therefore proves that the caller's audio came through whole and at the right speed.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulators.model_script import Call, Conversation, Item, Pace, Part, Say
from simulators.wire_audio import resampled, ulaw_to_pcm

Features = NDArray[np.float64]  # (10 ms frames, bands)

PHRASE_HZ = 16000  # of the files
_BAND_EDGES_HZ = (300, 450, 650, 900, 1200, 1600, 2100, 2700, 3400)
_FLOOR_DB = 40  # below the loudest band of the piece; under that is line noise, not speech
_SHIFT_FRAMES = 60  # a turn's start is uncertain by its onset; cut words shift it further
# Measured on this phrasebook: the right phrase over 8 kHz mu-law, with noise 15 dB below it or cut ends, scores 0.9 and
# more, with two frames of 20 ms lost in its middle 0.75; the best wrong phrase 0.4 and less, half of the right one 0.72
# (`tests/test_phrasebook.py` prints them).
_SURE = 0.74


def features(pcm: bytes) -> Features:
    """Band energies (dB less the band's mean) of 24 kHz PCM16, of the part that holds sound; no rows if none does."""
    samples = np.frombuffer(pcm, "<i2").astype(np.float64)
    window, hop = 480, 240
    if len(samples) < 10 * window:
        return np.zeros((0, len(_BAND_EDGES_HZ) - 1))
    frames = np.lib.stride_tricks.sliding_window_view(samples, window)[::hop] * np.hanning(window)
    power = np.abs(np.fft.rfft(frames, axis=1)) ** 2
    edges = [round(hz * window / 24000) for hz in _BAND_EDGES_HZ]
    bands = np.stack([power[:, low:high].sum(axis=1) for low, high in pairwise(edges)], axis=1)
    loudest = float(bands.max())
    if loudest < 1e6:  # digital silence and its dither
        return np.zeros((0, bands.shape[1]))
    level_db = 10 * np.log10(np.maximum(bands / loudest, 10 ** (-_FLOOR_DB / 10)))
    sounding = np.flatnonzero(level_db.max(axis=1) > 10 - _FLOOR_DB)
    kept = level_db[sounding[0] : sounding[-1] + 1]
    return np.asarray(kept - kept.mean(axis=0))


def similarity(one: Features, other: Features) -> float:
    """-1 to 1: the best normalised correlation over shifts of up to 0.6 s; what sticks out counts against it."""
    norm = float(np.sqrt((one**2).sum() * (other**2).sum()))
    if norm == 0:
        return 0.0
    best = -1.0
    for shift in range(-_SHIFT_FRAMES, _SHIFT_FRAMES + 1):
        left, right = one[max(0, shift) :], other[max(0, -shift) :]
        both = min(len(left), len(right))
        best = max(best, float((left[:both] * right[:both]).sum()) / norm)
    return best


@dataclass(frozen=True)
class Phrase:
    """One spoken sentence; `pcm` is PCM16 at 24 kHz."""

    name: str
    role: str
    text: str
    pcm: bytes


class Phrasebook:
    """A `Brain` that understands the caller's phrases and answers with the agent's. Without state of its own."""

    def __init__(
        self, phrases: Sequence[Phrase], rules: Sequence[Mapping[str, Any]], pace: Pace | None = None
    ) -> None:
        self.phrases = {phrase.name: phrase for phrase in phrases}
        self.pace = pace or Pace(first_ms=300)
        self._rules = {rule["heard"]: rule for rule in rules}
        self._known = [(phrase, features(phrase.pcm)) for phrase in phrases if phrase.role == "caller"]

    @classmethod
    def load(cls, pace: Pace | None = None) -> Phrasebook:
        """The phrasebook that comes with the simulators."""
        folder = resources.files("simulators") / "phrasebook"
        book = tomllib.loads((folder / "phrases.toml").read_text(encoding="utf-8"))
        phrases = []
        for entry in book["phrase"]:
            recorded = ulaw_to_pcm((folder / f"{entry['name']}.ul").read_bytes())
            phrases.append(Phrase(**entry, pcm=resampled(recorded, PHRASE_HZ, 24000)))
        return cls(phrases, book["rule"], pace)

    def recognise(self, pcm: bytes) -> tuple[Phrase | None, float]:
        """The caller phrase in 24 kHz audio, None if unsure; and how similar the nearest one is."""
        heard = features(pcm)
        scores = [(similarity(heard, known), phrase) for phrase, known in self._known]
        score, nearest = max(scores, key=lambda pair: pair[0])
        return (nearest if score >= _SURE else None), score

    def transcribe(self, pcm: bytes) -> str | None:
        """The phrase's text; empty for what is not understood, as for noise at the real one."""
        phrase, _ = self.recognise(pcm)
        return phrase.text if phrase else ""

    def answer(self, conversation: Conversation) -> Sequence[Part]:
        """Greet first; then answer the last thing that was said, written, or reported by a tool."""
        last = conversation.items[-1] if conversation.items else None
        if last is not None and last.type == "function_call_output":
            failed = re.search(r"error|fail|unknown|timed out|\bnot?\b|false", last.text, re.IGNORECASE)
            return [self._say("tool_failed" if failed else "tool_done")]
        rule = self._rule(last)
        if rule is None:
            spoken = any(item.role == "assistant" for item in conversation.items)
            return [self._say("not_understood" if spoken else "greeting")]
        parts: list[Part] = [self._say(name) for name in rule["say"]]
        tool = next((tool for tool in conversation.tools if tool.get("name") == rule.get("call")), None)
        if tool is not None:
            arguments = dict(rule.get("arguments", {}))
            if "choose" in rule:
                schema = tool.get("parameters", {}).get("properties", {}).get(rule["choose"], {})
                arguments[rule["choose"]] = next(iter(schema.get("enum", ["human"])))
            parts.append(Call(str(tool["name"]), arguments))
        return parts

    def _rule(self, item: Item | None) -> Mapping[str, Any] | None:
        if item is None or item.role != "user":
            return None
        said = _plain(item.heard or item.text)
        name = next((phrase.name for phrase, _ in self._known if _plain(phrase.text) == said), "")
        return self._rules.get(name)

    def _say(self, name: str) -> Say:
        phrase = self.phrases[name]
        return Say(phrase.text, pcm=phrase.pcm, pace=self.pace)


class ToolUser:
    """A `Brain` that greets, uses these tools one after the other, tells what each has answered, and hangs up: a whole call
    for whoever tries tools of their own. What is said besides is answered by the `Phrasebook`.

    There are no recordings of what tools answer: the words are in the transcript, the sound is a tone.
    """

    def __init__(self, inner: Phrasebook, uses: Sequence[Call]) -> None:
        self._inner = inner
        self._uses = tuple(uses)

    def transcribe(self, pcm: bytes) -> str | None:
        return self._inner.transcribe(pcm)

    def answer(self, conversation: Conversation) -> Sequence[Part]:
        """As the items so far have it, so that calls side by side and other sessions of one call do not mind each other."""
        outputs = [item for item in conversation.items if item.type == "function_call_output"]
        if not outputs and not any(item.role == "assistant" for item in conversation.items):
            return [*self._inner.answer(conversation), *self._next(conversation, 0)]
        if conversation.items[-1].type == "function_call_output" and len(outputs) <= len(self._uses):
            return [_toned(outputs[-1].text), *self._next(conversation, len(outputs))]
        return self._inner.answer(conversation)

    def _next(self, conversation: Conversation, number: int) -> Sequence[Part]:
        offered = [str(tool.get("name")) for tool in conversation.tools]
        if number == len(self._uses):
            return [Call("hang_up", {"reason": "the simulated call is complete"})] if "hang_up" in offered else []
        wanted = self._uses[number]
        if wanted.name not in offered:
            return [_toned(f"I have no tool {wanted.name}. My tools are: {', '.join(offered) or 'none'}.")]
        return [wanted]


def _toned(text: str) -> Say:
    return Say(text, ms=min(4000, max(600, 50 * len(text))))


def _plain(text: str) -> str:
    return " ".join(re.findall(r"[a-z']+", text.lower()))
