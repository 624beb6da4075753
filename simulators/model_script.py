"""What the simulated model says: the parts of an answer, and scripts of answers for tests.

An answer is a sequence of parts, played in order inside one response: `Say` (speech with its transcript, or text),
`Call` (a function call), and at the end perhaps `Fail` or `Incomplete`. A `Brain` chooses the answer to each
response; `Script` is the brain of the tests, `model_voice.Phrasebook` the one that listens.

Audio here is PCM16 little-endian mono at 24 kHz (48 bytes a millisecond); the wire's format is made from it later.
"""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

BYTES_PER_MS = 48


def tone(hz: float, ms: int, *, level: float = 0.3) -> bytes:
    """A sine of `hz` for `ms`, `level` of full scale: PCM16 at 24 kHz. Distinct tones tell a test what it hears."""
    at = np.arange(24 * ms) / 24000
    return np.asarray(32767 * level * np.sin(2 * np.pi * hz * at)).astype("<i2").tobytes()


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How a part's audio is sent.

    `speed`: audio seconds per second (1: real time; `math.inf`: all at once; real servers: 3 to 10).
    `delta_ms`: audio in one delta. `first_ms`: from `response.created`, or from the part before, to the first delta.
    `odd`: every delta has an odd number of bytes, so no delta but the last ends on a sample.
    """

    speed: float = 5.0
    delta_ms: int = 200
    first_ms: int = 200
    odd: bool = False


# Two extremes that clones and long answers bring: everything in one delta, above 1 MiB of JSON from 16.4 s of PCM on.
ONE_DELTA = Pace(speed=math.inf, delta_ms=600_000)
AT_ONCE = Pace(speed=math.inf)


@dataclass(frozen=True)
class Say:
    """One assistant message. Without `pcm` it is a tone of `hz` (default: another one for every item) for `ms`.

    `written`: sent as text even where the response is asked to be audio.
    """

    text: str
    ms: int = 1000
    hz: int | None = None
    pcm: bytes | None = None
    pace: Pace = Pace()
    written: bool = False


@dataclass(frozen=True)
class Call:
    """One function call. `arguments` as a string may be broken JSON. `name_in_done=False`: as some clones do."""

    name: str
    arguments: str | Mapping[str, Any] = "{}"
    call_id: str = ""
    name_in_done: bool = True
    first_ms: int = 200

    @property
    def json(self) -> str:
        return self.arguments if isinstance(self.arguments, str) else json.dumps(self.arguments)


@dataclass(frozen=True)
class McpCall:
    """One call of a tool of an MCP server, made by the Realtime server itself. It gives `output`, or fails with `error`.

    `approval`: whether the client is asked first; None: as the session's `require_approval` says. `run_ms`: how long the
    tool takes. What comes after it in an answer is said once the tool is done.
    """

    server: str
    name: str
    arguments: str | Mapping[str, Any] = "{}"
    output: str = "ok"
    error: Mapping[str, Any] | None = None
    approval: bool | None = None
    first_ms: int = 200
    run_ms: int = 500

    @property
    def json(self) -> str:
        return self.arguments if isinstance(self.arguments, str) else json.dumps(self.arguments)


@dataclass(frozen=True)
class Fail:
    """The response ends as `failed`; nothing but `response.done` tells."""

    code: str | None = None
    message: str = "The server had an error while processing your request. Sorry about that!"
    kind: str = "server_error"

    @classmethod
    def rate_limited(cls, wait_s: float, *, code: str = "rate_limit_exceeded") -> Fail:
        """The minute's tokens are used up; only the message says for how long (Azure: `inference_rate_limit_exceeded`)."""
        words = "Rate limit reached for gpt-realtime-2.1 on tokens per min (TPM): Limit 40000, Used 40000."
        return cls(code, f"{words} Please try again in {wait_s:g}s.", "rate_limit_exceeded")

    @classmethod
    def quota(cls) -> Fail:
        """No money: nothing that will pass."""
        return cls("insufficient_quota", "You exceeded your current quota.", "insufficient_quota")


@dataclass(frozen=True)
class Drop:
    """The connection ends here: abruptly (`code` None), with a close code, or as `session_expired`."""

    code: int | None = None
    expired: bool = False


@dataclass(frozen=True)
class Incomplete:
    """The response ends as `incomplete`: `max_output_tokens` or `content_filter`; so does its last item."""

    reason: str = "max_output_tokens"


Part = Say | Call | McpCall | Fail | Incomplete | Drop


@dataclass
class Item:
    """One conversation item as the server keeps it. `pcm` is 24 kHz; for an answer, only what has been sent so far.

    `truncated_ms`: what the client said was heard, None while never truncated. `heard`: the words of a caller's turn,
    known to the model whether the session wants transcripts or not.
    """

    id: str
    wire: dict[str, Any]
    pcm: bytearray = field(default_factory=bytearray)
    truncated_ms: int | None = None
    heard: str | None = None

    @property
    def role(self) -> str:
        return str(self.wire.get("role", ""))

    @property
    def type(self) -> str:
        return str(self.wire["type"])

    @property
    def text(self) -> str:
        """All text and transcripts of a message; the output of a function call's result; else empty."""
        if "output" in self.wire:
            return str(self.wire["output"])
        parts = self.wire.get("content", [])
        return " ".join(part.get("text") or part.get("transcript") or "" for part in parts).strip()

    @property
    def audio_ms(self) -> int:
        return len(self.pcm) // BYTES_PER_MS


class Conversation(Protocol):
    """What a brain may look at: the items in order, the tools that this response may use, and who the session is to be."""

    @property
    def items(self) -> Sequence[Item]: ...
    @property
    def tools(self) -> Sequence[Mapping[str, Any]]: ...
    @property
    def instructions(self) -> str: ...


class Brain(Protocol):
    """Chooses answers and writes down what was said to it."""

    def answer(self, conversation: Conversation) -> Sequence[Part]:
        """The parts of the response that is being created now; none: a response without output."""
        ...

    def transcribe(self, pcm: bytes) -> str | None:
        """The words of a committed piece of 24 kHz audio; None: transcription fails."""
        ...


@dataclass
class Script:
    """Answers one after the other, whoever asks; transcripts likewise. Connections share it, as reconnects need.

    An entry of `answers` is one part or a sequence of parts. When nothing is left, the response fails with a message
    that says so, and `missed` counts it: a test that forgets an answer sees it.
    """

    answers: deque[Sequence[Part]] = field(default_factory=deque)
    transcripts: deque[str | None] = field(default_factory=deque)
    missed: int = 0

    @classmethod
    def of(cls, *answers: Part | Sequence[Part], transcripts: Iterable[str | None] = ()) -> Script:
        """A script that gives `answers` in this order."""
        script = cls(transcripts=deque(transcripts))
        for answer in answers:
            script.add(answer)
        return script

    def add(self, answer: Part | Sequence[Part]) -> None:
        """One more answer at the end."""
        self.answers.append(answer if isinstance(answer, Sequence) else [answer])

    def answer(self, conversation: Conversation) -> Sequence[Part]:
        if self.answers:
            return self.answers.popleft()
        self.missed += 1
        return [Fail("script_ended", "the script of this test holds no further answer")]

    def transcribe(self, pcm: bytes) -> str | None:
        return self.transcripts.popleft() if self.transcripts else f"({len(pcm) // BYTES_PER_MS} ms of sound)"
