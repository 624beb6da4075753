"""A SIP telephone (sipp) with RTP: rings until the model is ready, speaks, presses keys, hears, and is hung up on."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path

import pytest
import trio

from asterisk import figures
from asterisk.compare import compare, from_first_loud, loud_span_ms, tone_share
from asterisk.exchange import command
from asterisk.line import Line, free_port, line
from asterisk.rtp_telephone import RATE_HZ, Telephone
from simulators.model_script import Call, Say, Script
from simulators.model_voice import Phrasebook
from simulators.wire_audio import resampled

pytestmark = pytest.mark.asterisk

SCENARIO = Path(__file__).parent / "sip_call.xml"
PHRASES = Phrasebook.load().phrases
QUESTION, GOODBYE = PHRASES["interrupt_saturday"], PHRASES["tool_done"]
GREETING_MS, GREETING_HZ = 200, 880
MODEL_TAKES_S = 0.7
# "2026-11-21 07:20:00.123456", the direction and size, an empty line, and the first line of the message.
_TRACED = re.compile(r"-{5,} (\d{4}-\d\d-\d\d)\s(\d\d:\d\d:\d\d\.\d+)\n.*\n\n(.*)")


@asynccontextmanager
async def extension_of(it: Line) -> AsyncIterator[str]:
    """An extension that leads to 100 with this test's variables: a SIP caller can not bring them along."""
    extension = f"7{it.test_id.rpartition('-')[2]}{it.media_port}"
    steps = (f"Set(__TEST_ID={it.test_id})", f"Set(__BRIDGE_APPS={it.app})", "Goto(phones,100,1)")
    for priority, step in enumerate(steps, 1):
        said = await trio.to_thread.run_sync(
            command, f"dialplan add extension {extension},{priority},{step} into phones"
        )
        assert "added into" in said, said
    try:
        yield extension
    finally:
        with trio.move_on_after(5, shield=True):
            await trio.to_thread.run_sync(command, f"dialplan remove extension {extension}@phones")


def traced(messages: str, first_line: str) -> float:
    """When sipp saw the first message that begins like this, as seconds of the wall clock."""
    for day, hour, begins in _TRACED.findall(messages):
        if begins.startswith(first_line):
            return datetime.fromisoformat(f"{day} {hour}").timestamp()
    raise AssertionError(f"sipp saw no {first_line}")


async def test_a_telephone_with_rtp_and_digits(tmp_path: Path) -> None:
    telephone = Telephone()
    telephone.be_silent(500)
    telephone.say(resampled(QUESTION.pcm, 24000, 8000))
    telephone.be_silent(1200)
    telephone.press("4")
    telephone.be_silent(100)
    telephone.press("2")
    telephone.be_silent(5000)
    script = Script.of(
        Say("Hello!", ms=GREETING_MS, hz=GREETING_HZ),
        Say("Press keys, please.", ms=100),
        [Say(GOODBYE.text, pcm=GOODBYE.pcm), Call("hang_up")],
        transcripts=[QUESTION.text],
    )
    async with line(script) as it, extension_of(it) as extension:
        it.marks.add("PJSIP/sipp")
        it.model.faults.created_after_s = MODEL_TAKES_S
        rtp_port = await it.nursery.start(telephone.run)
        to_wall_clock = time.time() - trio.current_time()
        await trio.run_process(
            [
                *("sipp", "127.0.0.1:5060", "-sf", str(SCENARIO), "-s", extension, "-m", "1", "-nostdin"),
                *("-i", "127.0.0.1", "-p", str(free_port()), "-mi", "127.0.0.1", "-key", "rtp_port", str(rtp_port)),
                *("-timeout", "20", "-timeout_error", "-trace_msg", "-message_file", str(tmp_path / "messages.log")),
                *("-trace_err", "-error_file", str(tmp_path / "errors.log")),
            ],
            capture_stdout=True,
            cwd=tmp_path,
        )
        record = await it.ended()
        assert record["reason"] == "agent_hung_up"
        pressed = [
            event["item"]["content"][0]["text"] for event in it.model.received_events("conversation.item.create")
        ]
        assert pressed == ["(The caller pressed these keys: 4 2)"]
        question = compare(QUESTION.pcm, 24000, it.model.session.appended_pcm, 24000)
        print(f"the model heard: {question}")
        # G.711 adds noise 37 dB below the speech; all else is as with a live caller.
        assert question.same, question
        assert it.told("caller_said")[0].facts["text"] == QUESTION.text

        messages = (tmp_path / "messages.log").read_text(encoding="latin-1").replace("\r", "")
        invited, ringing = traced(messages, "INVITE"), traced(messages, "SIP/2.0 180")
        answered = traced(messages, "SIP/2.0 200")
        ready_at = it.sent_at("session.updated") + to_wall_clock
        assert ringing - invited < MODEL_TAKES_S / 2, "rings at once"
        assert 0 < answered - ready_at < 0.5, "answered when the model is ready, and not before"

        ear = telephone.heard
        heard = ear.pcm()
        reply = compare(GOODBYE.pcm, 24000, heard, RATE_HZ)
        print(f"the telephone heard: {reply}; jitter {ear.late_ms:.1f} ms of {len(ear.packets)} packets")
        assert reply.same, f"to its last sample, before the hang-up: {reply}"
        assert len({packet.ssrc for packet in ear.packets}) == 1
        assert ear.lost == 0
        assert ear.others == []
        greeting = from_first_loud(heard)[: 16 * (GREETING_MS + 100)]
        assert abs(loud_span_ms(greeting, RATE_HZ) - GREETING_MS) <= 1, "from its first sample, behind the answer"
        assert tone_share(greeting, RATE_HZ, GREETING_HZ) > 0.95
        figures.note(figures.JITTER, "slin16", ear.late_ms)
