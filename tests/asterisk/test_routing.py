"""Routes on the real Asterisk: variables and functions that it is asked for, a SIP header, what the dialplan overrides."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from asterisk.line import free_port, line
from asterisk.rtp_telephone import Telephone
from asterisk.test_sip_call import SCENARIO, extension_of
from simulators.model_script import Call, Say, Script

pytestmark = pytest.mark.asterisk

ROUTES = """
[agents.acme]
overridable = ["voice", "transcription_language"]
[agents.local]
[[routes]]
agent = "acme"
called = "_1XX"
variables = { "PJSIP_HEADER(read,X-Tenant)" = "_acme-.", "CHANNEL(language)" = "en" }
[[routes]]
agent = "local"
caller = "_1!"
variables = { TENANT = "here", "CHANNEL(channeltype)" = "Local", NEVER_SET = "_", "NO_SUCH_FUNCTION(x)" = "_" }
"""


def goodbye() -> Script:
    return Script.of([Say("Goodbye.", ms=300), Call("hang_up")])


@pytest.mark.parametrize(("tenant", "agent"), [("here", "local"), ("elsewhere", "default")])
async def test_a_variable_of_the_channel_chooses(tenant: str, agent: str) -> None:
    async with line(goodbye(), settings=ROUTES) as it:
        await it.test_caller("100", __TENANT=tenant)
        record = await it.ended()
        assert (record["agent"], record["reason"]) == (agent, "agent_hung_up")


@pytest.mark.parametrize(("header", "agent"), [("X-Tenant: acme-north", "acme"), ("X-Tenant: other", "default")])
async def test_a_sip_header_chooses(header: str, agent: str, tmp_path: Path) -> None:
    scenario = tmp_path / "call.xml"
    scenario.write_text(SCENARIO.read_text().replace("Max-Forwards: 70\n", f"Max-Forwards: 70\n      {header}\n", 1))
    telephone = Telephone()
    telephone.be_silent(5000)
    async with line(goodbye(), settings=ROUTES) as it, extension_of(it) as extension:
        it.marks.add("PJSIP/sipp")
        rtp_port = await it.nursery.start(telephone.run)
        await trio.run_process(
            [
                *("sipp", "127.0.0.1:5060", "-sf", str(scenario), "-s", extension, "-m", "1", "-nostdin"),
                *("-i", "127.0.0.1", "-p", str(free_port()), "-mi", "127.0.0.1", "-key", "rtp_port", str(rtp_port)),
                *("-timeout", "20", "-timeout_error"),
            ],
            capture_stdout=True,
            cwd=tmp_path,
        )
        assert (await it.ended())["agent"] == agent


async def test_the_dialplan_overrides_what_the_profile_allows() -> None:
    async with line(goodbye(), settings=ROUTES) as it:
        await it.test_caller("100", __AGENT="acme,voice=cedar,transcription_language=de,speed=1.3")
        assert (await it.ended())["agent"] == "acme"
        audio = it.model.session.config["audio"]
        assert audio["output"]["voice"] == "cedar"
        assert audio["output"]["speed"] == 1.0
        assert audio["input"]["transcription"]["language"] == "de"
        assert it.told("speed: not taken from the dialplan")
