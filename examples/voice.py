"""One spoken turn: python examples/voice.py question.wav answer.wav

Sends a recording (mono, 16 bits, 8, 16 or 24 kHz) and writes what the model says, at 24 kHz. The name of a phrase in
`simulators/phrasebook`, such as `ask_hours`, will do for the recording: our simulator understands those.
"""

import os
import sys
import wave

import trio

import bridge
from bridge.audio import resampler
from simulators.model_voice import Phrasebook

RATE_HZ = 24_000
SETTINGS = {
    "audio": {
        # Nobody has to find out where a recording ends.
        "input": {"turn_detection": None, "transcription": {"model": "gpt-transcribe"}},
    }
}


def read(source: str) -> bytes:
    """PCM16 at 24 kHz."""
    if not source.endswith(".wav"):
        return Phrasebook.load().phrases[source].pcm
    with wave.open(source, "rb") as file:
        if (file.getnchannels(), file.getsampwidth()) != (1, 2) or file.getframerate() not in (8000, 16000, 24000):
            sys.exit(f"{source}: must be mono with 16 bits a sample, at 8, 16 or 24 kHz")
        converter = resampler(file.getframerate(), RATE_HZ)
        return converter.process(file.readframes(file.getnframes())) + converter.flush()


def write(path: str, pcm: bytes) -> None:
    with wave.open(path, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE_HZ)
        file.writeframes(pcm)


async def converse(question: bytes) -> bytes:
    """The model's spoken answer. Prints what either side said."""
    answer = bytearray()
    async with bridge.open_session(bridge.load_config("", os.environ).realtime, SETTINGS) as session:
        changes = session.changes()
        await session.append_audio(question)
        await session.create_response()  # commits what was appended
        async for change in changes:
            if change.delta is not None:
                answer += change.delta.audio  # here a player would get it, long before the answer is whole
            elif change.kind is bridge.ChangeKind.TRANSCRIPT and change.item is not None:
                print(f"{change.item.role}: {change.item.transcript}")
            elif change.kind is bridge.ChangeKind.RESPONSE_DONE:
                break
    return bytes(answer)


if __name__ == "__main__":
    write(sys.argv[2], trio.run(converse, read(sys.argv[1])))
