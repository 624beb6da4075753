"""The fake Realtime server's session: how it answers, hears turns, and is interrupted, in the order of the real one.

Every event that it sends in any of these tests passes the official SDK's types and the rules beyond them.
"""

from __future__ import annotations

import base64
import json
import math

import numpy as np
import pytest
import trio
from model_client import ANSWER, SILENCE_500, Client, dialled, serving

from simulators.model_script import Call, Fail, Incomplete, Pace, Part, Say, Script, tone
from simulators.wire_audio import Decoder, encode

AT_ONCE = Pace(speed=math.inf, first_ms=100)


def pitch_hz(pcm: bytes, rate_hz: int = 24000) -> float:
    """The loudest frequency."""
    samples = np.frombuffer(pcm, "<i2")
    return float(np.argmax(np.abs(np.fft.rfft(samples))) * rate_hz / len(samples))


# Start and settings


async def test_start_shows_the_defaults_and_merges_updates(autojump_clock: trio.abc.Clock) -> None:
    async with serving() as server, dialled(server) as client:
        assert client.types == ["session.created"]
        created = client.events[0]["session"]
        assert created["model"] == "gpt-realtime-2.1"
        assert created["audio"]["input"]["turn_detection"]["silence_duration_ms"] == 200
        detection = {"type": "server_vad", "silence_duration_ms": 600}
        await client.configure(instructions="Be brief.", audio={"input": {"turn_detection": detection}})
        await client.configure(audio={"output": {"voice": "cedar"}})
        session = client.last("session.updated")["session"]
        assert session["instructions"] == "Be brief."
        assert session["audio"]["output"] == {**created["audio"]["output"], "voice": "cedar"}
        assert session["audio"]["input"]["turn_detection"] == {
            **created["audio"]["input"]["turn_detection"],
            "silence_duration_ms": 600,
        }
        assert server.session.config == session


async def test_a_refused_update_changes_nothing(autojump_clock: trio.abc.Clock) -> None:
    async with serving() as server, dialled(server) as client:
        before = dict(server.session.config)
        await client.configure(instructions="new", temperature=0.8)
        assert client.refusals[0]["code"] == "unknown_parameter"
        assert client.refusals[0]["param"] == "session.temperature"
        assert server.session.config == before
        assert "session.updated" not in client.types


# Answers


async def test_an_answer_has_the_order_of_the_real_one(autojump_clock: trio.abc.Clock) -> None:
    async with serving(Script.of(Say("Hello there", ms=400))) as server, dialled(server) as client:
        await client.send("response.create", response={"metadata": {"topic": "x"}})
        await trio.sleep(1)
        assert client.types[1:] == ANSWER
        done = client.last("response.done")["response"]
        assert done["status"] == "completed"
        assert done["metadata"] == {"topic": "x"}
        assert done["usage"]["output_token_details"]["audio_tokens"] == 8
        assert done["output"][0]["content"] == [{"type": "output_audio", "transcript": "Hello there"}]
        item = server.session.items[0]
        assert (item.audio_ms, item.wire["status"]) == (400, "completed")
        assert bytes(item.pcm) == client.heard()


@pytest.mark.parametrize("speed", [1.0, 5.0, math.inf])
async def test_pace(speed: float, autojump_clock: trio.abc.Clock) -> None:
    pace = Pace(speed=speed, delta_ms=250, first_ms=300)
    async with serving(Script.of(Say("one", ms=2000, pace=pace))) as server, dialled(server) as client:
        start = trio.current_time()
        await client.send("response.create")
        await server.wait_sent("response.done")
        await trio.sleep(0.1)
        at = [t for t, e in zip(client.times, client.events, strict=True) if e["type"].endswith("audio.delta")]
        assert len(at) == 8
        assert at[0] - start == pytest.approx(0.3)
        assert at[-1] - at[0] == pytest.approx(7 * 0.25 / speed)


async def test_odd_deltas_hold_the_same_audio(autojump_clock: trio.abc.Clock) -> None:
    pcm = tone(500, 1010)
    answer = Say("one", pcm=pcm, pace=Pace(speed=math.inf, delta_ms=60, odd=True))
    async with serving(Script.of(answer)) as server, dialled(server) as client:
        await client.send("response.create")
        await trio.sleep(1)
        sizes = [len(base64.b64decode(e["delta"])) for e in client.of("response.output_audio.delta")]
        assert all(size % 2 for size in sizes[:-1])
        assert client.heard() == pcm


async def test_items_have_tones_of_their_own(autojump_clock: trio.abc.Clock) -> None:
    script = Script.of(
        [Say("a", ms=500, pace=AT_ONCE), Say("b", ms=500, pace=AT_ONCE)], Say("c", ms=500, pace=AT_ONCE)
    )
    async with serving(script) as server, dialled(server) as client:
        for _ in range(2):
            await client.send("response.create")
            await trio.sleep(1)
        pitches = {round(pitch_hz(client.heard(item.id))) for item in server.session.items}
        assert len(pitches) == 3


@pytest.mark.parametrize("kind", ["audio/pcmu", "audio/pcma"])
async def test_g711_both_ways(kind: str, autojump_clock: trio.abc.Clock) -> None:
    wire = {"type": kind}
    async with serving(Script.of(Say("x", hz=1000, ms=1000, pace=AT_ONCE))) as server, dialled(server) as client:
        audio_input = {"format": wire, "turn_detection": None}
        await client.configure(audio={"input": audio_input, "output": {"format": wire}})
        await client.send("response.create")
        await trio.sleep(0.5)
        heard = client.heard()
        assert len(heard) == 8000
        assert pitch_hz(Decoder(wire).decode(heard)) == pytest.approx(1000, abs=2)
        data = encode(tone(700, 1000), wire)
        await client.send("input_audio_buffer.append", audio=base64.b64encode(data).decode())
        await client.send("input_audio_buffer.commit")
        await trio.sleep(0.1)
        assert pitch_hz(server.session.appended_pcm) == pytest.approx(700, abs=2)
        assert server.session.items[-1].audio_ms == 1000


async def test_text_answers(autojump_clock: trio.abc.Clock) -> None:
    async with serving(Script.of(Say("one two"), Say("three", written=True))) as server, dialled(server) as client:
        await client.send("response.create", response={"output_modalities": ["text"]})
        await trio.sleep(1)
        await client.send("response.create")
        await trio.sleep(1)
        assert [event["text"] for event in client.of("response.output_text.done")] == ["one two", "three"]
        assert client.heard() == b""
        assert [item.text for item in server.session.items] == ["one two", "three"]


async def test_function_calls(autojump_clock: trio.abc.Clock) -> None:
    calls: list[Part] = [Say("Wait", ms=200), Call("look_up", {"x": 1}, "call_a"), Call("broken", '{"x":', "call_b")]
    async with serving(Script.of(calls, Say("Done."))) as server, dialled(server) as client:
        await client.send("response.create")
        await trio.sleep(2)
        done = client.last("response.done")["response"]
        assert [item["type"] for item in done["output"]] == ["message", "function_call", "function_call"]
        assert done["output"][1]["arguments"] == '{"x": 1}'
        assert done["output"][1]["status"] == "completed"
        assert client.of("response.function_call_arguments.delta")[0]["delta"] == '{"x": 1}'
        assert [e["name"] for e in client.of("response.function_call_arguments.done")] == ["look_up", "broken"]
        result = {"type": "function_call_output", "call_id": "call_a", "output": "7"}
        await client.send("conversation.item.create", item=result)
        await client.send("conversation.item.create", item={**result, "call_id": "never_called"})
        await client.send("response.create")
        await trio.sleep(2)
        assert [error["code"] for error in client.refusals] == ["invalid_tool_call_id"]
        assert server.session.items[-1].text == "Done."


@pytest.mark.parametrize("failure", [Fail("rate_limit_exceeded", "slow down"), Incomplete("content_filter"), None])
async def test_how_responses_end(failure: Fail | Incomplete | None, autojump_clock: trio.abc.Clock) -> None:
    parts: list[Part] = [Say("some words", ms=200), failure] if failure else []
    async with serving(Script.of(parts)) as server, dialled(server) as client:
        await client.send("response.create")
        await trio.sleep(1)
        done = client.last("response.done")["response"]
        match failure:
            case Fail():
                assert done["status_details"]["error"]["code"] == "rate_limit_exceeded"
            case Incomplete():
                assert done["status_details"] == {"type": "incomplete", "reason": "content_filter"}
                assert done["output"][0]["status"] == "incomplete"
            case None:
                assert (done["status"], done["output"]) == ("completed", [])
        assert client.refusals == []
        assert server.session.core.active is None


async def test_a_script_that_is_too_short_says_so(autojump_clock: trio.abc.Clock) -> None:
    script = Script()
    async with serving(script) as server, dialled(server) as client:
        await client.send("response.create")
        await trio.sleep(1)
        assert client.last("response.done")["response"]["status_details"]["error"]["code"] == "script_ended"
        assert script.missed == 1


async def test_a_response_apart_leaves_the_conversation_alone(autojump_clock: trio.abc.Clock) -> None:
    script = Script.of(Say("main", ms=1000), Say("apart", ms=100), Say("apart again", ms=100))
    async with serving(script) as server, dialled(server) as client:
        await client.send("response.create")
        apart = {"conversation": "none", "output_modalities": ["text"], "metadata": {"topic": "sum"}}
        await client.send("response.create", response=apart)
        await trio.sleep(0.5)
        assert "conversation_already_has_active_response" not in str(client.refusals)
        server.session.speech_started()
        await trio.sleep(0.1)
        ended = {e["response"]["conversation_id"] or "apart": e["response"] for e in client.of("response.done")}
        assert ended["apart"]["metadata"] == {"topic": "sum"}
        assert ended["conv_0001"]["status"] == "completed"
        assert [item.text for item in server.session.items] == ["main"]
        reference = [{"type": "item_reference", "id": "item_gone"}]
        await client.send("response.create", response={**apart, "input": reference})
        await trio.sleep(0.1)
        assert client.refusals[0]["param"] == "response.input"


# The caller's turns


async def speak_a_turn(client: Client, ms: int = 1000) -> None:
    await client.speak(SILENCE_500 + tone(300, ms) + SILENCE_500)


async def test_a_turn_found_by_vad(autojump_clock: trio.abc.Clock) -> None:
    script = Script.of(Say("Yes.", ms=200), transcripts=["hello you"])
    async with serving(script) as server, dialled(server) as client:
        detection = {"type": "server_vad", "prefix_padding_ms": 200, "silence_duration_ms": 300}
        transcription = {"model": "gpt-transcribe"}
        await client.configure(audio={"input": {"turn_detection": detection, "transcription": transcription}})
        await speak_a_turn(client)
        await trio.sleep(1)
        turn = client.types[2:8]
        assert turn == [
            "input_audio_buffer.speech_started",
            "input_audio_buffer.speech_stopped",
            "input_audio_buffer.committed",
            "conversation.item.added",
            "conversation.item.done",
            "response.created",
        ]
        assert client.last("input_audio_buffer.speech_started")["audio_start_ms"] == 300
        assert client.last("input_audio_buffer.speech_stopped")["audio_end_ms"] == 1800
        item = server.session.items[0]
        assert item.id == client.last("input_audio_buffer.speech_started")["item_id"]
        assert item.audio_ms == 1500
        completed = client.last("conversation.item.input_audio_transcription.completed")
        assert (completed["transcript"], completed["item_id"]) == ("hello you", item.id)
        assert len(server.session.appended_pcm) == 2000 * 48


@pytest.mark.parametrize("words", ["", None])
async def test_transcription_empty_or_failed(words: str | None, autojump_clock: trio.abc.Clock) -> None:
    async with serving(Script.of(Say("?", ms=200), transcripts=[words])) as server, dialled(server) as client:
        await client.configure(audio={"input": {"transcription": {"model": "gpt-transcribe"}}})
        await speak_a_turn(client)
        await trio.sleep(1)
        kinds = [kind.rpartition(".")[2] for kind in client.types if "transcription" in kind]
        assert kinds == (["failed"] if words is None else ["completed"])


async def test_transcripts_may_come_in_reverse_order(autojump_clock: trio.abc.Clock) -> None:
    script = Script.of(Say("a", ms=100), Say("b", ms=100), transcripts=["first", "second"])
    async with serving(script) as server, dialled(server) as client:
        await client.configure(audio={"input": {"transcription": {"model": "gpt-transcribe"}}})
        with server.faulty(transcript_after_s=5.0):
            await speak_a_turn(client)
        await speak_a_turn(client)
        await trio.sleep(5)
        completed = client.of("conversation.item.input_audio_transcription.completed")
        assert [event["transcript"] for event in completed] == ["second", "first"]
        assert [item.text for item in server.session.items if item.role == "user"] == ["first", "second"]


async def test_vad_without_answers_and_without_interruption(autojump_clock: trio.abc.Clock) -> None:
    async with serving(Script.of(Say("long", ms=3000, pace=Pace(speed=1)))) as server, dialled(server) as client:
        detection = {"type": "server_vad", "create_response": False, "interrupt_response": False}
        await client.configure(audio={"input": {"turn_detection": detection}})
        await client.send("response.create")
        await speak_a_turn(client)
        await trio.sleep(3)
        assert len(client.of("input_audio_buffer.committed")) == 1
        assert [e["response"]["status"] for e in client.of("response.done")] == ["completed"]
        assert len(client.of("response.created")) == 1


async def test_push_to_talk(autojump_clock: trio.abc.Clock) -> None:
    async with serving() as server, dialled(server) as client:
        await client.configure(audio={"input": {"turn_detection": None}})
        await client.speak(tone(300, 90))
        await client.send("input_audio_buffer.commit")
        await trio.sleep(0.01)
        assert client.refusals[0]["code"] == "input_audio_buffer_commit_empty"
        assert "only has 90.00ms" in client.refusals[0]["message"]
        await client.send("input_audio_buffer.clear")
        await client.speak(tone(300, 100))
        await client.send("input_audio_buffer.commit")
        await trio.sleep(0.01)
        assert [item.audio_ms for item in server.session.items] == [100]
        assert client.types[-4:] == [
            "input_audio_buffer.cleared",
            "input_audio_buffer.committed",
            "conversation.item.added",
            "conversation.item.done",
        ]


async def test_idle_timeout(autojump_clock: trio.abc.Clock) -> None:
    script = Script.of(Say("Hello", ms=1000), Say("Are you there?", ms=1000))
    async with serving(script) as server, dialled(server) as client:
        await client.configure(audio={"input": {"turn_detection": {"type": "server_vad", "idle_timeout_ms": 5000}}})
        await client.send("response.create")
        await client.speak(bytes(48 * 8000))
        assert len(client.of("input_audio_buffer.timeout_triggered")) == 1
        assert server.session.items[-1].text == "Are you there?"


# Interruption


async def test_barge_in_while_generating(autojump_clock: trio.abc.Clock) -> None:
    script = Script.of(Say("one two three four five", ms=5000, pace=Pace(speed=1, first_ms=0)))
    async with serving(script) as server, dialled(server) as client:
        await client.send("response.create")
        await trio.sleep(0.9)
        with server.late_deltas(2):
            user_item = server.session.speech_started()
            await trio.sleep(0.1)
        at = client.types.index("input_audio_buffer.speech_started")
        assert [kind.removeprefix("response.") for kind in client.types[at + 1 :]] == [
            "output_audio.delta",
            "output_audio.delta",
            "output_audio.done",
            "output_audio_transcript.done",
            "content_part.done",
            "conversation.item.done",
            "output_item.done",
            "done",
            "rate_limits.updated",
        ]
        done = client.last("response.done")["response"]
        assert done["status_details"] == {"type": "cancelled", "reason": "turn_detected"}
        assert done["output"][0]["status"] == "incomplete"
        assert server.session.items[0].truncated_ms is None
        answer = server.session.items[0].id
        await client.send("conversation.item.truncate", item_id=answer, content_index=0, audio_end_ms=700)
        await trio.sleep(0.01)
        assert client.last("conversation.item.truncated")["audio_end_ms"] == 700
        truncated = server.session.items[0]
        assert (truncated.truncated_ms, truncated.text) == (700, "")
        server.session.speech_stopped()
        await trio.sleep(1)
        assert server.session.items[1].id == user_item


async def test_late_deltas_after_done_and_speech_started_after_done(autojump_clock: trio.abc.Clock) -> None:
    async with serving(Script.of(Say("one two", ms=5000))) as server, dialled(server) as client:
        await client.send("response.create")
        await trio.sleep(0.5)
        with server.late_deltas(3, after_done=True), server.faulty(started_after_done=True):
            server.session.speech_started()
            await trio.sleep(0.01)
        done = client.types.index("response.done")
        assert client.types[done + 1 :] == ["response.output_audio.delta"] * 3 + ["input_audio_buffer.speech_started"]


async def test_barge_in_before_the_first_delta_and_before_any_response(autojump_clock: trio.abc.Clock) -> None:
    async with serving(Script.of(Say("one", ms=500))) as server, dialled(server) as client:
        server.session.speech_started()
        await trio.sleep(0.01)
        assert client.types[1:] == ["input_audio_buffer.speech_started"]
        await client.send("response.create")
        await trio.sleep(0.1)
        server.session.speech_started()
        await trio.sleep(0.1)
        done = client.last("response.done")["response"]
        assert done["status"] == "cancelled"
        assert client.heard() == b""


async def test_cancel_by_the_client(autojump_clock: trio.abc.Clock) -> None:
    async with serving(Script.of(Call("tool", {"a": "b" * 100}))) as server, dialled(server) as client:
        await client.send("response.cancel", event_id="mine")
        await client.send("response.create")
        await trio.sleep(0.25)
        response_id = client.last("response.created")["response"]["id"]
        await client.send("response.cancel", response_id="resp_other")
        await client.send("response.cancel", response_id=response_id)
        await trio.sleep(0.1)
        assert [error["code"] for error in client.refusals] == ["response_cancel_not_active"] * 2
        assert client.refusals[0]["event_id"] == "mine"
        done = client.last("response.done")["response"]
        assert done["status_details"]["reason"] == "client_cancelled"
        assert done["output"][0]["status"] == "incomplete"
        with pytest.raises(ValueError, match="Unterminated"):
            json.loads(done["output"][0]["arguments"])
