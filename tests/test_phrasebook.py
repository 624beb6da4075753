"""The simulated ear and voice: phrases are understood over a telephone and nothing else is; rules choose the answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import trio
from model_client import SILENCE_500, dialled, serving

from simulators.model_script import Call, Item, Say, tone
from simulators.model_voice import Phrase, Phrasebook, ToolUser, features, similarity
from simulators.turn_detector import TurnDetector
from simulators.wire_audio import Decoder, encode, resampled

Wave = Callable[[bytes], bytes]
BOOK = Phrasebook.load()
CALLER = [phrase for phrase in BOOK.phrases.values() if phrase.role == "caller"]
AGENT = [phrase for phrase in BOOK.phrases.values() if phrase.role == "agent"]
ULAW = {"type": "audio/pcmu"}


def samples(pcm: bytes) -> Any:
    return np.frombuffer(pcm, "<i2").astype(np.float64)


def pcm16(wave: Any) -> bytes:
    return bytes(np.clip(wave, -32768, 32767).astype("<i2").tobytes())


def louder(decibels: float) -> Wave:
    return lambda pcm: pcm16(samples(pcm) * 10 ** (decibels / 20))


def noisy(level_dbfs: float) -> Wave:
    def change(pcm: bytes) -> bytes:
        noise = np.random.default_rng(7).normal(0, 32768 * 10 ** (level_dbfs / 20), len(pcm) // 2)
        return pcm16(samples(pcm) + noise)

    return change


def cut(start_ms: int, end_ms: int) -> Wave:
    return lambda pcm: pcm[start_ms * 48 : len(pcm) - end_ms * 48]


def telephone(pcm: bytes) -> bytes:
    """8 kHz mu-law and back."""
    return Decoder(ULAW).decode(encode(pcm, ULAW))


def frames(pcm: bytes) -> Iterator[bytes]:
    yield from (pcm[at : at + 960] for at in range(0, len(pcm), 960))


def without(every: int) -> Wave:
    """Each so many frames of 20 ms, one is lost."""
    return lambda pcm: b"".join(frame for index, frame in enumerate(frames(pcm)) if (index + 1) % every)


UNDERSTOOD: dict[str, Wave] = {
    "as it is": lambda pcm: pcm,
    "telephone": telephone,
    "telephone, 10 dB softer": lambda pcm: telephone(louder(-10)(pcm)),
    "telephone, 10 dB louder": lambda pcm: telephone(louder(10)(pcm)),
    "over 16 kHz": lambda pcm: resampled(resampled(pcm, 24000, 16000), 16000, 24000),
    "silence around it": lambda pcm: bytes(48 * 700) + pcm + bytes(48 * 900),
    "ends cut": cut(150, 150),
    "noise 20 dB below": noisy(-40),
    "noise 15 dB below": noisy(-35),
    "all at once": lambda pcm: noisy(-45)(
        bytes(48 * 400) + telephone(louder(-8)(cut(100, 100)(pcm))) + bytes(48 * 500)
    ),
}
NOT_UNDERSTOOD: dict[str, Wave] = {
    "a third too fast": lambda pcm: resampled(pcm, 24000, 16000),
    "half speed": lambda pcm: resampled(pcm, 12000, 24000),
    "bytes swapped": lambda pcm: np.frombuffer(pcm, ">i2").astype("<i2").tobytes(),
    "one frame in five lost": without(5),
    "one frame in two lost": without(2),
    "half of it": lambda pcm: pcm[: len(pcm) // 4 * 2],
    "backwards": lambda pcm: samples(pcm)[::-1].astype("<i2").tobytes(),
}


@pytest.mark.parametrize("how", UNDERSTOOD)
@pytest.mark.parametrize("phrase", CALLER, ids=lambda phrase: phrase.name)
def test_understood(phrase: Phrase, how: str) -> None:
    heard, score = BOOK.recognise(UNDERSTOOD[how](phrase.pcm))
    print(f"{phrase.name}, {how}: {score:.2f}")
    assert heard is phrase
    assert score > 0.8


@pytest.mark.parametrize("how", NOT_UNDERSTOOD)
@pytest.mark.parametrize("phrase", CALLER, ids=lambda phrase: phrase.name)
def test_damaged_audio_is_not_understood(phrase: Phrase, how: str) -> None:
    heard, score = BOOK.recognise(NOT_UNDERSTOOD[how](phrase.pcm))
    print(f"{phrase.name}, {how}: {score:.2f}")
    assert heard is None


@pytest.mark.parametrize("phrase", AGENT, ids=lambda phrase: phrase.name)
def test_other_speech_is_not_understood(phrase: Phrase) -> None:
    heard, score = BOOK.recognise(phrase.pcm)
    print(f"{phrase.name}: {score:.2f}")
    assert heard is None
    assert score < 0.45


@pytest.mark.parametrize("phrase", CALLER, ids=lambda phrase: phrase.name)
def test_caller_phrases_are_unlike_each_other(phrase: Phrase) -> None:
    others = [similarity(features(phrase.pcm), features(other.pcm)) for other in CALLER if other is not phrase]
    assert max(others) < 0.45


@pytest.mark.parametrize(
    "pcm",
    [
        b"",
        bytes(48000),
        tone(440, 3000),
        tone(440, 400) + tone(1200, 400),
        noisy(-20)(bytes(48 * 3000)),
        tone(300, 5),
    ],
    ids=["nothing", "silence", "tone", "two tones", "noise", "click"],
)
def test_sounds_are_not_understood(pcm: bytes) -> None:
    assert BOOK.recognise(pcm)[0] is None
    assert BOOK.transcribe(pcm) == ""


@pytest.mark.parametrize("phrase", BOOK.phrases.values(), ids=lambda phrase: phrase.name)
def test_recordings_suit_a_telephone(phrase: Phrase) -> None:
    wave = samples(phrase.pcm) / 32768
    rms_dbfs = 10 * np.log10(np.mean(wave**2))
    assert -22 < rms_dbfs < -18
    assert 20 * np.log10(np.abs(wave).max()) < -3
    # One phrase is one turn for VAD with 400 ms of silence, though it has pauses.
    found = TurnDetector().feed(SILENCE_500 + phrase.pcm + SILENCE_500 * 2, {"silence_duration_ms": 400})
    assert [started for started, _ in found] == [True, False]


def test_lengths() -> None:
    lengths_s = {phrase.name: len(phrase.pcm) / 48000 for phrase in BOOK.phrases.values()}
    assert 10 < lengths_s["hours_long"] < 14
    assert all(1 < length_s < 5 for name, length_s in lengths_s.items() if name != "hours_long")


# Answers


class Asked:
    """A conversation to answer."""

    def __init__(self, *items: Item, tools: tuple[dict[str, Any], ...] = ()) -> None:
        self.items = items
        self.tools = tools
        self.instructions = ""


def said(name: str) -> Item:
    return Item("u", {"type": "message", "role": "user", "content": []}, heard=BOOK.phrases[name].text)


def agent_text() -> Item:
    return Item("a", {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Hello"}]})


def texts(*names: str) -> list[str]:
    return [BOOK.phrases[name].text for name in names]


def spoken(asked: Asked) -> list[str]:
    return [part.text for part in BOOK.answer(asked) if isinstance(part, Say)]


HANG_UP = {"type": "function", "name": "hang_up", "parameters": {"type": "object", "properties": {}}}
TRANSFER = {
    "type": "function",
    "name": "transfer_call",
    "parameters": {"type": "object", "properties": {"destination": {"type": "string", "enum": ["sales", "support"]}}},
}


def test_rules() -> None:
    part = {"type": "input_text", "text": texts("thanks_goodbye")[0]}
    written = Item("u", {"type": "message", "role": "user", "content": [part]})
    assert spoken(Asked()) == texts("greeting")
    assert spoken(Asked(agent_text(), said("ask_hours"))) == texts("hours_long")
    assert spoken(Asked(said("interrupt_saturday"))) == texts("hours_saturday")
    assert spoken(Asked(agent_text(), written)) == texts("goodbye")
    assert spoken(Asked(agent_text(), Item("u", {"type": "message", "role": "user"}, heard=""))) == texts(
        "not_understood"
    )


def test_tools_are_called_where_the_session_has_them() -> None:
    assert [type(part) for part in BOOK.answer(Asked(said("thanks_goodbye")))] == [Say]
    parts = BOOK.answer(Asked(said("thanks_goodbye"), tools=(TRANSFER, HANG_UP)))
    assert isinstance(parts[1], Call)
    assert (parts[1].name, list(json.loads(parts[1].json))) == ("hang_up", ["reason"])
    parts = BOOK.answer(Asked(said("ask_human"), tools=(HANG_UP, TRANSFER)))
    assert isinstance(parts[1], Call)
    assert (parts[1].name, json.loads(parts[1].json)) == ("transfer_call", {"destination": "sales"})


@pytest.mark.parametrize(("output", "name"), [('{"ok":true}', "tool_done"), ('{"error":"busy"}', "tool_failed")])
def test_results_of_tools_are_told(output: str, name: str) -> None:
    result = Item("f", {"type": "function_call_output", "call_id": "c", "output": output})
    assert spoken(Asked(agent_text(), result)) == texts(name)


async def test_a_whole_conversation(autojump_clock: trio.abc.Clock) -> None:
    """Greeting, a question, an interruption and a goodbye, all by sound alone."""
    async with serving(BOOK) as server, dialled(server) as client:
        detection = {"type": "server_vad", "silence_duration_ms": 500}
        transcription = {"model": "gpt-transcribe"}
        audio = {"input": {"turn_detection": detection, "transcription": transcription}}
        await client.configure(audio=audio, tools=[HANG_UP])
        await client.send("response.create")
        await server.wait_sent("response.done")
        for name in ("ask_hours", "interrupt_saturday", "thanks_goodbye"):
            # The long answer is still being made when the caller interrupts it.
            await client.speak(SILENCE_500 + BOOK.phrases[name].pcm + SILENCE_500 + bytes(9600))
        await trio.sleep(5)
        users = [item.text for item in server.session.items if item.role == "user"]
        assert users == texts("ask_hours", "interrupt_saturday", "thanks_goodbye")
        replies = [item.text for item in server.session.items if item.role == "assistant"]
        assert [replies[0], *replies[2:]] == texts("greeting", "hours_saturday", "goodbye")
        assert BOOK.phrases["hours_long"].text.startswith(replies[1])
        assert server.session.items[-1].wire["name"] == "hang_up"
        stops = [event["audio_end_ms"] for event in client.of("input_audio_buffer.speech_stopped")]
        assert all(later > earlier for earlier, later in pairwise(stops))


class Talk:
    """A conversation with these tools, of items as the server keeps them."""

    instructions = ""

    def __init__(self, *tools: str) -> None:
        self.tools = [{"name": name} for name in tools]
        self.items: list[Item] = []

    def has(self, kind: str, **wire: object) -> None:
        self.items.append(Item("i", {"type": kind, **wire}))


def test_a_tool_of_ones_own_is_used_and_its_answer_told() -> None:
    brain = ToolUser(BOOK, [Call("hours", '{"day": "saturday"}'), Call("book")])
    talk = Talk("hours", "book", "hang_up")
    greeting, use = brain.answer(talk)
    assert (isinstance(greeting, Say), use) == (True, Call("hours", '{"day": "saturday"}'))
    talk.has("message", role="assistant")
    talk.has("function_call_output", output="7 to 13")
    told, use = brain.answer(talk)
    assert (isinstance(told, Say) and told.text, use) == ("7 to 13", Call("book"))
    talk.has("function_call_output", output="booked")
    told, end = brain.answer(talk)
    assert isinstance(told, Say)
    assert isinstance(end, Call)
    assert (told.text, end.name) == ("booked", "hang_up")


def test_a_tool_that_the_agent_lacks_is_named() -> None:
    _, told = ToolUser(BOOK, [Call("houers")]).answer(Talk("hours", "hang_up"))
    assert isinstance(told, Say)
    assert told.text == "I have no tool houers. My tools are: hours, hang_up."
