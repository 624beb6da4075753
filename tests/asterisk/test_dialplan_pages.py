"""Every dialplan and every setting in `docs/dialplan.md` and `docs/freepbx.md`, on the real Asterisk.

The blocks are loaded as they stand. Only where the bridge is, and whom to dial, is replaced: `REPLACED`.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from asterisk.exchange import ROOT, SHARED
from asterisk.line import Line, line, until
from bridge.config import load_config
from bridge.ending import FAREWELLS, OF_PLACED_CALLS, ChannelAction, EndReason
from simulators.model_script import Call, Say, Script

pytestmark = pytest.mark.asterisk

PAGES = ("dialplan.md", "freepbx.md")
REPLACED = {
    "bridge-1&bridge-2&bridge-3": "nobody-here&${BRIDGE_APPS}",
    "Stasis(bridge-1": "Stasis(${BRIDGE_APPS}",
    "127.0.0.1:9092": "${BRIDGE_MEDIA}",
    "127.0.0.1:9292": "${BRIDGE_CONTROL}",
    "PJSIP/human": "Local/643@phones",  # a telephone that rejects at once
}
# What the pages leave to the reader's system: FreePBX's call of a custom destination with "Return: Yes", and the same
# dialplan by hours at other times of day.
BESIDE = """
[docs-freepbx]
exten => agent,1,Gosub(bridge-agent,s,1())
 same => n,Goto(nobody,s,1)
exten => night,1,Gosub(bridge-night,s,1())
 same => n,Goto(nobody,s,1)
exten => 7777,1,Goto(from-internal-custom,7777,1)
"""
HOURS = "8:00-17:59,mon-fri,*,*"
IN_CONTAINER = "/etc/asterisk/local/extensions.conf"


def blocks(language: str) -> list[tuple[str, str]]:
    """(page, text) of each block of this language."""
    found = []
    for page in PAGES:
        text = (ROOT / "docs" / page).read_text(encoding="utf-8")
        found += [(page, block) for block in re.findall(rf"(?ms)^```{language}\n(.*?)^```$", text)]
    return found


DIALPLANS = [text for _, text in blocks("asterisk")]
TOML = {(page, number): text for number, (page, text) in enumerate(blocks("toml"))}


def in_container(command: str, text: str = "") -> None:
    subprocess.run(
        ["docker", "exec", "-i", SHARED.container, "sh", "-c", command], input=text, text=True, check=True, timeout=20
    )


@pytest.fixture(scope="module", autouse=True)
def _loaded() -> Iterator[None]:
    by_hours = next(text for text in DIALPLANS if HOURS in text)
    beside = [BESIDE]
    for name, times in (("always", "*,*,*,*"), ("never", "*,*,30,feb")):
        beside.append(by_hours.replace("[from-trunk-by-hours]", f"[docs-hours-{name}]").replace(HOURS, times))
    text = "\n".join([*DIALPLANS, *beside])
    for said, ours in REPLACED.items():
        assert said in text
        text = text.replace(said, ours)
    in_container(f"mkdir -p {Path(IN_CONTAINER).parent} && cat > {IN_CONTAINER}", text)
    SHARED.command("dialplan reload")
    yield
    in_container(f"rm -f {IN_CONTAINER}")
    SHARED.command("dialplan reload")


def test_every_line_of_every_dialplan_was_taken() -> None:
    for context, lines in re.findall(r"(?ms)^\[([\w-]+)\]\n(.*?)(?=^\[|\Z)", "\n".join(DIALPLANS)):
        shown = SHARED.command(f"dialplan show {context}")
        priorities = len(re.findall(r"(?m)^(?:exten| same) =>", lines))
        assert f"({priorities} priorit" in shown, f"[{context}] has {priorities} lines; {shown}"


@pytest.mark.parametrize("place", TOML, ids=str)
def test_every_setting_is_valid(place: tuple[str, int]) -> None:
    load_config(TOML[place], {})


def test_the_reasons_that_hang_up_are_those_of_the_farewells() -> None:
    """And the caller who has hung up: there is nobody to be served."""
    agreed = {reason for reason in EndReason if FAREWELLS[reason].channel is ChannelAction.HANG_UP}
    meant = {reason.value for reason in agreed - OF_PLACED_CALLS}
    expressions = {
        words for text in DIALPLANS for words in re.findall(r'"\^\(([a-z_|]+)\)\$', text) if "agent_hung_up" in words
    }
    assert [set(words.split("|")) for words in expressions] == [meant | {EndReason.CALLER_HUNG_UP.value}]


# The calls ----------------------------------------------------------------------------------------------------------


def goodbye() -> Script:
    return Script.of([Say("Goodbye.", ms=300), Call("hang_up")])


def transferring(destination: str) -> Script:
    return Script.of(
        Call("transfer_call", {"destination": destination}), Say("One moment.", ms=300), Say("Sorry.", ms=300)
    )


def agents(*names: str) -> str:
    return "".join(f"[agents.{name}]\n" for name in names)


async def arrives_at(it: Line, context: str, *applications: str) -> None:
    """The caller stands there in the dialplan, in one of these applications."""
    place = {}

    def there() -> bool:
        place.update(SHARED.ari("GET", f"channels/{it.channels[-1]}")["dialplan"])
        return place["context"] == context and place["app_name"] in applications

    await until(there, 8, lambda: f"{context} {applications}: {place}")


async def is_gone(it: Line) -> None:
    with trio.fail_after(5):
        await it.phones[-1].ended.wait()


WAYS = [
    ("from-trunk", "4930555", "default"),
    ("from-trunk", "+4930555", "default"),
    ("docs-hours-always", "4930555", "default"),
    ("docs-hours-never", "4930555", "night"),
    ("from-trunk-overflow", "4930555", "overflow"),
    ("from-trunk-german", "4930555", "sales"),
    ("from-trunk-workers", "4930555", "default"),
    ("from-trunk-plain", "4930555", "default"),
    ("docs-freepbx", "agent", "default"),
    ("docs-freepbx", "night", "night"),
    ("docs-freepbx", "7777", "default"),
]


@pytest.mark.parametrize(("context", "extension", "agent"), WAYS, ids=str)
async def test_the_agent_takes_the_call_and_says_goodbye(context: str, extension: str, agent: str) -> None:
    async with line(goodbye(), settings=agents("night", "sales", "overflow")) as it:
        await it.phone(extension, context=context)
        record = await it.ended()
        assert (record["agent"], record["reason"]) == (agent, "agent_hung_up")
        await is_gone(it)


NOBODY = [
    *((context, "4930555", "nobody", ("Queue", "VoiceMail")) for context in ("from-trunk", "from-trunk-workers")),
    ("from-trunk-plain", "4930555", "nobody", ("Queue", "VoiceMail")),
    ("docs-freepbx", "agent", "nobody", ("Queue", "VoiceMail")),
    ("docs-freepbx", "7777", "from-internal-custom", ("Playback",)),
]


@pytest.mark.parametrize(("context", "extension", "place", "applications"), NOBODY, ids=str)
async def test_a_model_that_is_lost_leads_on(
    context: str, extension: str, place: str, applications: tuple[str, ...]
) -> None:
    async with line(Script.of(Say("Hello!", ms=300)), overrides={"limits.reconnect_s": "1"}) as it:
        await it.phone(extension, context=context)
        await it.hears_of("agent_said")
        with it.model.http_status(503):
            await it.model.session.drop()
            assert (await it.ended())["reason"] == "model_lost"
        await arrives_at(it, place, *applications)


@pytest.mark.parametrize(("context", "extension", "place", "applications"), NOBODY, ids=str)
async def test_a_bridge_that_is_not_there_leads_on(
    context: str, extension: str, place: str, applications: tuple[str, ...]
) -> None:
    async with line() as it:
        nowhere = "127.0.0.1:9"
        await it.phone(
            extension, context=context, __BRIDGE_APPS="x", __BRIDGE_MEDIA=nowhere, __BRIDGE_CONTROL=nowhere
        )
        await arrives_at(it, place, *applications)


async def test_by_the_hours_as_they_stand() -> None:
    """Whatever the time is now in the container."""
    asked = ["docker", "exec", SHARED.container, "date", "+%u %H"]
    day, hour = map(int, (await trio.run_process(asked, capture_stdout=True)).stdout.split())
    by_day = day <= 5 and 8 <= hour < 18
    async with line(goodbye(), settings=agents("night")) as it:
        await it.phone("4930555", context="from-trunk-by-hours")
        assert (await it.ended())["agent"] == ("default" if by_day else "night")


@pytest.mark.parametrize(
    ("extension", "caller", "agent"),
    [
        ("201", "1000", "sales"),
        ("201", "+4930255551", "vip"),
        ("4930555", "1000", "default"),
    ],
    ids=str,
)
async def test_the_routes(extension: str, caller: str, agent: str) -> None:
    settings = next(text for text in TOML.values() if "[[routes]]" in text and "vip" in text)
    async with line(goodbye(), settings=settings) as it:
        await it.phone(extension, context="from-trunk", rate_hz=16000, **{"CALLERID(num)": caller})
        assert (await it.ended())["agent"] == agent


async def test_the_number_that_freepbx_was_called_by() -> None:
    settings = next(text for text in TOML.values() if "FROM_DID" in text)
    async with line(goodbye(), settings=settings) as it:
        await it.phone("agent", context="docs-freepbx", FROM_DID="+4930123456")
        assert (await it.ended())["agent"] == "sales"


async def test_another_voice_for_one_call() -> None:
    settings = next(text for text in TOML.values() if "overridable" in text)
    async with line(goodbye(), settings=settings) as it:
        await it.phone("4930555", context="from-trunk-german")
        assert (await it.ended())["agent"] == "sales"
        audio = it.model.session.config["audio"]
        assert audio["output"]["voice"] == "cedar"
        assert audio["input"]["transcription"]["language"] == "de"


@pytest.mark.parametrize("context", ["from-trunk", "from-trunk-plain"])
async def test_a_transfer_to_the_message_box(context: str) -> None:
    settings = next(text for text in TOML.values() if "message@transfers" in text)
    async with line(transferring("message"), settings=settings) as it:
        await it.phone("4930555", context=context)
        assert (await it.ended())["reason"] == "transferred"
        await arrives_at(it, "transfers", "VoiceMail")


async def test_a_queue_that_nobody_serves_leads_to_the_message_box() -> None:
    async with line() as it:
        await it.phone("support", context="transfers")
        await arrives_at(it, "transfers", "VoiceMail")


async def test_a_destination_that_names_no_context_is_refused_before_the_caller_is_told() -> None:
    """What `docs/freepbx.md` warns of."""
    settings = "agents.default.transfers.alice = { to = '101' }"
    async with line(transferring("alice"), settings=settings) as it:
        await it.phone("agent", context="docs-freepbx")
        await it.hears_of("agent_said")
        told = [event["item"]["output"] for event in it.model.received_events("conversation.item.create")]
        assert any("101@bridge-agent" in output for output in told), told
