"""Ask one question in writing: python examples/ask.py "What is a fugue?" """

import os
import sys

import trio

import bridge


async def main(question: str) -> None:
    realtime = bridge.load_config("", os.environ).realtime  # OPENAI_API_KEY, BRIDGE_REALTIME_URL, ..._MODEL
    async with bridge.open_session(realtime, {"output_modalities": ["text"]}) as session:
        await session.send_text(question)
        answer = await session.next_completed_item(role="assistant")
        print(answer.text)


if __name__ == "__main__":
    trio.run(main, sys.argv[1])
