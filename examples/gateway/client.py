"""Talk to an agent over the gateway: python examples/gateway/client.py question.wav answer.wav

Plays a recording (mono, 16 bits, 24 kHz) into a session and writes what the agent says. The name of a phrase in
`simulators/phrasebook`, such as `ask_hours`, will do for the recording. GATEWAY_URL, GATEWAY_TOKEN: where, and the token.
"""

import asyncio
import json
import os
import sys
import wave

import websockets

from simulators.model_voice import Phrasebook

CONFIG = {
    "type": "config",
    "provider": "openai",
    "instructions": "You are a helpful assistant. Answer in one short sentence.",
    "turn_detection": "server_vad",
    "vad": {"silence_duration_ms": 500},
}
CHUNK = 4800  # 100 ms


def read(source: str) -> bytes:
    """PCM16 at 24 kHz."""
    if not source.endswith(".wav"):
        return Phrasebook.load().phrases[source].pcm
    with wave.open(source, "rb") as file:
        if (file.getnchannels(), file.getsampwidth(), file.getframerate()) != (1, 2, 24000):
            sys.exit(f"{source}: must be mono with 16 bits a sample, at 24 kHz")
        return file.readframes(file.getnframes())


async def speak(websocket: websockets.ClientConnection, pcm: bytes) -> None:
    """As a microphone would: in real time, and then silence."""
    for start in range(0, len(pcm), CHUNK):
        await websocket.send(pcm[start : start + CHUNK])
        await asyncio.sleep(0.1)
    while True:
        await websocket.send(bytes(CHUNK))
        await asyncio.sleep(0.1)


async def main(question: str, answer: str) -> None:
    address = os.environ.get("GATEWAY_URL", "ws://127.0.0.1:3001/realtime")
    token = os.environ.get("GATEWAY_TOKEN")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with websockets.connect(address, additional_headers=headers) as websocket:
        await websocket.send(json.dumps(CONFIG))
        speaking: asyncio.Task[None] | None = None
        heard = bytearray()
        async for message in websocket:
            if isinstance(message, bytes):
                heard += message
                continue
            told = json.loads(message)
            match told["type"]:
                case "ready":
                    speaking = asyncio.create_task(speak(websocket, read(question)))
                case "interrupted":
                    print("(interrupted)")  # a player would drop here what it has not played
                case "transcript" if told["is_final"]:
                    print(f"[{told['role']}] {told['text']}")
                    if told["role"] == "assistant":
                        break
                case "error" | "warning":
                    print(f"{told['type']}: {told['message']}", file=sys.stderr)
        if speaking is not None:
            speaking.cancel()
    with wave.open(answer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(24000)
        file.writeframes(heard)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:3]))
