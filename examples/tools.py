"""Two tools, and a conversation that uses them: python examples/tools.py --simulated

With `--simulated` the model is a script of our simulator, which is also how to test tools of your own; without it, the real
one (OPENAI_API_KEY).
"""

import os
import sys

import trio

import bridge
from simulators.model_script import Call, Say, Script
from simulators.realtime_server import RealtimeServer

QUESTIONS = ["My name is Ada.", "Is it colder in Oslo or in Rome?"]
# What the model does, response by response: calls, or words.
SCRIPT = Script.of(
    Call("set_memory", {"key": "name", "value": "Ada"}),
    Say("Nice to meet you, Ada."),
    [Call("get_weather", {"city": "Oslo"}), Call("get_weather", {"city": "Rome"})],
    Say("In Oslo: three degrees against nineteen."),
)

memory: dict[str, str] = {}


def set_memory(key: str, value: str) -> None:
    """Remember something about the user."""
    memory[key] = value


async def get_weather(city: str) -> dict[str, float]:
    """What the weather in a city is like now.

    Args:
        city: The city's name.
    """
    await trio.sleep(0.1)  # a weather service
    return {"celsius": {"Oslo": 3.0, "Rome": 19.0}[city], "wind_kmh": 11.5}


async def talk(realtime: bridge.Realtime) -> None:
    """Ask the questions, and print who says and does what."""
    settings = {"output_modalities": ["text"], "instructions": "Remember names. Answer in one sentence."}
    async with bridge.open_session(realtime, settings, tools=[set_memory, get_weather]) as session:
        changes = session.changes(bridge.ChangeKind.COMPLETED)
        for question in QUESTIONS:
            answer = await session.ask(question)  # its tool calls included
            async for change in changes:
                show(change.item)
                if change.item is answer:
                    break


def show(item: bridge.CachedItem | None) -> None:
    match item:
        case bridge.CachedItem(type="message"):
            print(f"{item.role}: {item.text}")
        case bridge.CachedItem(type="function_call"):
            print(f"  {item.name} {item.arguments}")
        case bridge.CachedItem(type="function_call_output"):
            print(f"  -> {item.output}")


async def main(simulated: bool) -> None:
    if not simulated:
        await talk(bridge.load_config("", os.environ).realtime)
        return
    server = RealtimeServer(SCRIPT)
    async with trio.open_nursery() as nursery:
        port = await server.listen_on_tcp(nursery)
        await talk(bridge.Realtime(url=f"ws://127.0.0.1:{port}/v1/realtime", api_key="any"))
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main, "--simulated" in sys.argv)
