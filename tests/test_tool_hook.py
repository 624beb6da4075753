"""The tool hook: what is sent, which answers are taken, what is tried again, and that nothing is silently dropped."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
import trio
from house import House, house
from http_peer import Asked, Peer, Says
from trio.testing import MockClock

from bridge.agent import Agent
from bridge.agent_tools import AgentTools
from bridge.config import load_config, warnings_of
from bridge.config_shown import effective
from bridge.errors import ConfigError, ToolError
from bridge.hook_tools import hook_tools
from bridge.profile import agent_with
from bridge.tool_hook import HookTool, ToolHook
from bridge.tool_reply import may_be_repeated, output_of
from bridge.tool_schema import ToolContext
from bridge.tools import Tool, ToolRegistry
from simulators.model_script import Call, Say, Script

SECRET = "a-secret-of-tests"
HOOK = ToolHook(
    url="http://shop.test/tools?key=hush",
    secret=SECRET,
    headers={"Authorization": "Bearer hush"},
    timeout_s=5,
    tools=[HookTool(name="order_status", description="Where an order is.")],
)
WHO = ToolContext(
    call_id="c1", agent="sales", caller="0301", called="100", tool_call_id="call_7", secure_digits={"pin": "907431"}
)
Ask = Callable[[str], Awaitable[str]]


@asynccontextmanager
async def hooked(peer: Peer, hook: ToolHook = HOOK) -> AsyncIterator[Ask]:
    """Calls `order_status` as a conversation does."""
    async with peer.client() as client:
        registry = ToolRegistry(hook_tools(hook, client))

        async def ask(arguments: str) -> str:
            return await registry.run("order_status", arguments, timeout_s=15, context=WHO)

        yield ask


def peer(*script: Says) -> Peer:
    return Peer(list(script), secret=SECRET, unix_s=lambda: 1000.0)


async def test_the_request_has_jambonzs_names_the_calls_facts_and_no_secret(autojump_clock: MockClock) -> None:
    service = peer(Says(body=b'{"state": "on its way"}'))
    async with hooked(service) as ask:
        assert await ask('{"number": "17"}') == '{"state":"on its way"}'
    (asked,) = service.asked  # its signature has been verified
    assert asked.json == {
        **{"tool_call_id": "call_7", "name": "order_status", "args": {"number": "17"}},
        **{"call_id": "c1", "agent": "sales", "caller": "0301", "called": "100"},
    }
    assert asked.message_id == "call_7"
    assert asked.headers["authorization"] == "Bearer hush"
    assert "907431" not in repr(asked)


def envelope(**item: Any) -> bytes:
    return msgspec.json.encode({"type": "conversation.item.create", "item": item})


OUTPUT = {"type": "function_call_output", "call_id": "call_7"}


@pytest.mark.parametrize(
    ("body", "output"),
    [
        (b'{"a": [1, 2.5, null]}', '{"a":[1,2.5,null]}'),
        (b"[]", "[]"),
        (b"12", "12"),
        (b'"in the oven"', "in the oven"),
        (b"in the oven\n", "in the oven"),
        (b"", "done"),
        ('"Kräuter"'.encode(), "Kräuter"),
        (b'{"type": "parcel"}', '{"type":"parcel"}'),
        (b'{"error": "location_not_found"}', '{"error":"location_not_found"}'),
        (envelope(**OUTPUT, output="text"), "text"),
        (envelope(**OUTPUT, output={"temperature": 3}), '{"temperature":3}'),
        (envelope(**OUTPUT, output=None), "null"),
        (envelope(type="function_call_output", output="no id"), "no id"),
    ],
)
def test_answers_that_are_taken(body: bytes, output: str) -> None:
    assert output_of(body, "order_status", "call_7") == output


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"\xff\xfe", "no text"),
        (b'{"a": ', "broken JSON"),
        (b"[" * 100_000, "broken JSON"),
        (b"<!doctype html><p>Log in</p>", "a web page"),
        (envelope(**OUTPUT), "without a function_call_output"),
        (envelope(type="message", content=[]), "without a function_call_output"),
        (b'{"type": "conversation.item.create"}', "without a function_call_output"),
        (b'{"type": "conversation.item.create", "item": [1]}', "without a function_call_output"),
        (envelope(**OUTPUT | {"call_id": "call_6"}, output="x"), "another call"),
    ],
)
def test_what_jambonz_would_drop_is_an_error_that_the_model_hears(body: bytes, says: str) -> None:
    with pytest.raises(ToolError, match=says):
        output_of(body, "order_status", "call_7")


@pytest.mark.parametrize(
    ("status", "connected", "again"),
    [(None, False, True), (None, True, False), (500, True, False), (400, True, False), (404, True, False)]
    + [(status, True, True) for status in (429, 502, 503, 504)],
)
def test_only_what_was_not_begun_is_tried_again(status: int | None, connected: bool, again: bool) -> None:
    assert may_be_repeated(status, connected=connected) is again


@pytest.mark.parametrize(
    ("script", "output", "tries", "took_s"),
    [
        ([Says(503), Says(503), Says(body=b"late")], "late", 3, 0.6),
        ([Says(503)], "Error: the service of order_status answered HTTP 503", 3, 0.6),
        ([Says(429, headers=(("retry-after", "3"),)), Says(body=b"late")], "late", 2, 3),
        ([Says(429, headers=(("retry-after", "60"),))], "Error: the service of order_status answered HTTP 429", 1, 0),
        ([Says(500), Says()], "Error: the service of order_status answered HTTP 500", 1, 0),
        ([Says(302)], "Error: the service of order_status answered HTTP 302", 1, 0),
        ([Says(drops=True)], "Error: the service of order_status gave no answer", 1, 0),
        ([Says(hangs=True)], "Error: order_status did not answer within 5 s", 1, 5),
        ([Says(503), Says(hangs=True)], "Error: order_status did not answer within 5 s", 2, 5),
        ([Says(body=b"x" * 300_000)], "Error: the service of order_status answered more than can be used", 1, 0),
    ],
)
async def test_failures_are_one_text_within_the_limit(
    script: list[Says],
    output: str,
    tries: int,
    took_s: float,
    autojump_clock: MockClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    service = peer(*script)
    began = trio.current_time()
    async with hooked(service) as ask:
        assert await ask("{}") == output
        assert trio.current_time() - began == pytest.approx(took_s)
    assert len(service.asked) == tries
    assert {(it.message_id, it.body) for it in service.asked} == {("call_7", service.asked[0].body)}
    lines = [it for it in caplog.records if it.levelno >= logging.WARNING]
    assert len(lines) == output.startswith("Error")
    assert not [it for it in lines if it.exc_info], "no traceback for a service that is away"
    assert "hush" not in caplog.text


async def test_a_service_that_is_not_there(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    service = peer(Says(body=b"back"))
    service.up = False
    async with hooked(service) as ask:
        assert await ask("{}") == "Error: the service of order_status can not be reached"
        assert "http://shop.test/tools" in caplog.text
        async with trio.open_nursery() as nursery:

            async def come_back() -> None:
                await trio.sleep(0.1)
                service.up = True

            nursery.start_soon(come_back)
            assert await ask("{}") == "back"


async def test_arguments_that_are_no_object_are_not_sent(autojump_clock: MockClock) -> None:
    service = peer()
    async with hooked(service) as ask:
        assert (await ask("{oops")).startswith("Error: the arguments are not valid JSON")
        assert await ask("[1]") == "Error: the arguments must be a JSON object"
    assert service.asked == []


def test_each_agent_has_its_own_tools_and_the_nearer_one_wins() -> None:
    application = ToolRegistry([Tool("a", origin="code"), Tool("manual"), Tool("order_status", origin="code")])
    declared = [
        {"type": "function", "name": name, "description": f"{name}, declared", "parameters": {"type": "object"}}
        for name in ("manual", "shout", "hang_up")
    ]
    agent = Agent(tool_hook=HOOK, session={"tools": declared})
    tools = AgentTools.load({"x": agent, "y": Agent()}, application)
    assert tools.tools_for("y", Agent()) is application
    registry = tools.tools_for("x", agent)
    assert {it.name: (it.description, registry.is_manual(it.name)) for it in registry} == {
        "a": ("", True),
        "manual": ("", True),
        "order_status": ("Where an order is.", False),
        "shout": ("shout, declared", False),
    }
    assert tools.listed("x", agent) == [
        "hang_up: the bridge",
        "a: code",
        "manual: the application",
        "order_status: the tool hook http://shop.test/tools (replaces that of code)",
        "shout: the tool hook http://shop.test/tools",
    ]


def test_a_profile_that_was_changed_for_one_call_costs_no_call() -> None:
    """Nothing that `agent_with` lets pass makes `tools_for` raise."""
    changed = agent_with(
        Agent(),
        {
            "tool_hook": {"url": "https://x.test/", "tools": [{"name": "hang_up"}, {"name": "fine"}]},
            "session": {"tools": [{"type": "function", "name": "not fine"}]},
        },
    )
    assert [it.name for it in AgentTools.load({}).tools_for("x", changed)] == ["fine"]


def test_a_file_replaces_the_hook_and_a_later_file_the_earlier(tmp_path: Any) -> None:
    for name in ("one", "two"):
        (tmp_path / f"{name}.py").write_text(f"def order_status() -> str: return {name!r}\ndef {name}() -> None: ...")
    agent = Agent(tool_hook=HOOK, tools=[str(tmp_path / "one.py"), str(tmp_path / "two.py")])
    tools = AgentTools.load({"x": agent})
    assert [line.partition(" (")[0] for line in tools.listed("x", agent)] == [
        *("hang_up: the bridge", f"order_status: {tmp_path}/two.py:1"),
        *(f"one: {tmp_path}/one.py:2", f"two: {tmp_path}/two.py:2"),
    ]
    assert tools.tools_for("x", Agent(tools=["/not/configured.py"])).declarations() == [], "never run in mid-call"


async def test_a_reload_is_for_new_calls_and_a_broken_one_changes_nothing(tmp_path: Any) -> None:
    def agents(*files: str) -> dict[str, Agent]:
        return {"x": Agent(tools=[str(tmp_path / file) for file in files])}

    def offered() -> list[str]:
        return [it.name for it in tools.tools_for("x", now["x"])]

    (tmp_path / "one.py").write_text("def first() -> str: return 'old'")
    now = agents("one.py")
    tools = AgentTools.load(now)
    running = tools.tools_for("x", now["x"])
    (tmp_path / "one.py").write_text("def first() -> str: return 'new'")
    (tmp_path / "two.py").write_text("def second(")
    with pytest.raises(ConfigError, match=r"two\.py:1"):
        tools.reload(agents("one.py", "two.py"))
    assert await tools.tools_for("x", now["x"]).run("first", "{}", timeout_s=5) == "old"
    (tmp_path / "two.py").write_text("def second() -> str: ...")
    now = agents("one.py", "two.py")
    tools.reload(now)
    assert offered() == ["first", "second"]
    assert await tools.tools_for("x", now["x"]).run("first", "{}", timeout_s=5) == "new"
    assert await running.run("first", "{}", timeout_s=5) == "old"


TABLE = "[agents.a.tool_hook]\nurl = 'https://x.test/'\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[agents.a.tool_hook]\nurl = 'x.test'", "t:2: agents.a.tool_hook.url: must start with https://"),
        ("[[agents.a.tool_hook.tools]]\nname = 'x'", "t:1: agents.a.tool_hook.url: is missing"),
        (TABLE + "timeout_s = 20", "t:3: agents.a.tool_hook.timeout_s: must not be above limits.tool_s"),
        (TABLE + "retries = 9", "t:3: agents.a.tool_hook.retries: must be 0 to 5"),
        (TABLE + "headers = { 'a b' = 'x' }", "t:3: agents.a.tool_hook.headers: 'a b' is no name"),
        (TABLE + 'headers = { a = "x\\n" }', "t:3: agents.a.tool_hook.headers.a: must be printable"),
        (TABLE + "secret = '$NOT_SET'", "t:3: agents.a.tool_hook.secret: the environment variable 'NOT_SET' is not"),
        (TABLE + "tools = [{ name = 'a b' }]", "t:3: agents.a.tool_hook.tools[0].name: must have 1 to 64"),
        (TABLE + "tools = [{ name = 'a' }, { name = 'a' }]", "tools[0].name: is that of another tool"),
        (TABLE + "tools = [{ name = 'a', parameters = { x = 1 } }]", "tools[0].parameters: must be a JSON schema"),
    ],
)
def test_a_wrong_hook_is_refused_at_the_start(text: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(text, {}, source="t")
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ("tools = [{ name = 'hang_up' }]", "tools[0].name: the bridge has a tool 'hang_up' of its own"),
        ("secret = 'whsec_!'", "agents.a.tool_hook.secret: a secret that begins with"),
    ],
)
def test_what_only_loading_shows(more: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        AgentTools.load(load_config(TABLE + more, {}).agents)
    assert says in str(caught.value)


def test_secrets_come_from_the_environment_and_are_hidden() -> None:
    text = TABLE + "secret = '$S'\nheaders = { Authorization = '$T' }\n"
    config = load_config(text, {"S": "hush", "T": "Bearer hush"})
    hook = config.agents["a"].tool_hook
    assert (hook.secret, hook.headers) == ("hush", {"Authorization": "Bearer hush"})
    assert "hush" not in repr(effective(config))
    assert warnings_of(config) == []


def test_the_example_in_the_settings_file_is_right(pytestconfig: pytest.Config) -> None:
    text = (pytestconfig.rootpath / "bridge.toml").read_text(encoding="utf-8")
    tool = "".join(f"{line[3:]}\n" for line in text.splitlines() if line.startswith("#  "))
    tool = tool.replace("agents.default", "agents.a")
    assert AgentTools.load(load_config(TABLE + tool, {}).agents).listed("a", Agent(tool_hook=HOOK))


CALLS = [Call("order_status", {"number": str(n)}, call_id=f"call_{n}") for n in (1, 2)]
SETTINGS = f"""
[agents.default.tool_hook]
url = "http://shop.test/"
secret = "{SECRET}"
timeout_s = 3
[agents.default.session]
tools = [{{ type = "function", name = "order_status", parameters = {{ type = "object", properties = {{}} }} }}]
"""


@asynccontextmanager
async def served(service: Peer, *answers: Any) -> AsyncIterator[House]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(service.run)
        async with house(Script.of(*answers), settings=SETTINGS, http=service.transport()) as it:
            yield it
        nursery.cancel_scope.cancel()


async def test_two_calls_of_one_response_have_an_output_each_and_one_answer(autojump_clock: MockClock) -> None:
    """The one is refused; the function is declared in the session alone."""

    def choose(asked: Asked) -> Says:
        return Says(500) if asked.json["args"]["number"] == "1" else Says(body=b"in the oven", after_s=1)

    service = Peer(choose=choose, secret=SECRET, unix_s=time.time)
    async with served(service, CALLS, Say("It is in the oven.")) as it:
        channel, _ = await it.stasis_call()
        await it.hears_of("agent_said")
        items = [event["item"] for event in it.model.received_events("conversation.item.create")]
        assert {item["call_id"]: item["output"] for item in items} == {
            "call_1": "Error: the service of order_status answered HTTP 500",
            "call_2": "in the oven",
        }
        assert len(items) == 2
        assert len(it.model.received_events("response.create")) == 2, "the greeting, and one for both"
        channel.hang_up()
        assert {asked.json["call_id"] for asked in service.asked} == {(await it.ended())["call_id"]}


async def test_a_caller_who_leaves_while_the_hook_hangs(autojump_clock: MockClock) -> None:
    service = Peer([Says(hangs=True)], secret=SECRET, unix_s=time.time)
    async with served(service, CALLS[0]) as it:
        channel, _ = await it.stasis_call()
        await service.has(1)
        left_at = trio.current_time()
        channel.hang_up()
        assert (await it.ended())["reason"] == "caller_hung_up"
        assert trio.current_time() - left_at < 1
