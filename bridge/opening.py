"""How a call begins: who speaks first, and what the agent knows before.

An agent that was called greets as soon as the caller can hear it. One that calls somebody may wait for their "hello?": it
is told what to say then, and greets by itself where nobody says anything for `wait_s`. An answering machine hears a
message.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import msgspec

from bridge import recording
from bridge.agent import Agent

Muted = Literal["", "caller", "agent", "both"]
MACHINE_ANSWERED = "(An answering machine has taken this call, as far as Asterisk can tell. Nobody may be listening.)"


@dataclass(frozen=True, slots=True)
class Opening:
    """`callee_first`: the agent waits for the first words. `facts`: written into the conversation before anybody speaks.
    `message`: what an answering machine hears, before the call ends; empty: the agent talks to it as to anybody. `muted`:
    who is muted from the first moment, by an order."""

    callee_first: bool = False
    wait_s: float = 0.0
    facts: str = ""
    message: str = ""
    muted: Muted = ""

    @property
    def message_words(self) -> str:
        """What the model is told to say to a machine."""
        return f"An answering machine is recording. Say exactly this, and nothing else: {self.message}"


ANSWERED = Opening()
"""Of a call that we did not place."""


def calling(agent: Agent) -> Agent:
    """The profile of an agent that calls: with the greeting of its outgoing calls. One that waits for the first words can
    be interrupted from the first moment."""
    it = agent.outbound
    protected = agent.greeting_barge_in if it.first_word == "agent" else "interrupt"
    return msgspec.structs.replace(agent, greeting=it.greeting or agent.greeting, greeting_barge_in=protected)


def parties(who: Muted) -> list[Literal["caller", "agent"]]:
    """The one or both who are meant."""
    both: list[Literal["caller", "agent"]] = ["caller", "agent"]
    return [it for it in both if who in (it, "both")]


def opening_of(agent: Agent, facts: str, muted: Muted = "") -> Opening:
    """How the calls begin that this agent places."""
    it = agent.outbound
    # A notice that the call is recorded comes before anything that is recorded.
    callee_first = it.first_word == "callee" and not recording.opening(agent.recording, "")
    return Opening(
        callee_first=callee_first, wait_s=it.first_word_s, facts=facts.strip(), message=it.message, muted=muted
    )


def greet_when_spoken_to(greeting: str) -> str:
    """What the model is told of its greeting while it waits for the callee's first words."""
    return (
        "(You are calling somebody, who has just picked up the telephone and is about to say hello. When they have, follow "
        f"this for your first words: {greeting})"
    )
