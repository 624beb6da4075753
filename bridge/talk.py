"""What the parts of one conversation share: its state, who speaks, what was said, and the one way to interrupt.

`conversation` dispatches every input to a part: `caller_turns` (what the caller does), `tool_use` (what the model wants
done), `takeover` (when a session ends and another goes on), `accounts` (what it takes and costs). They all meet here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bridge import realtime
from bridge.agent import Agent
from bridge.barge_in import SEMANTIC_WAIT_S, BargeIn
from bridge.call_events import SpeechStarted, SpeechStopped, StateChanged, TranscriptFinal
from bridge.collecting import Collecting
from bridge.config import Limits
from bridge.dialogue import TRANSITIONS, ClearLegAudio, Commands, State, Step
from bridge.endgame import Endgame
from bridge.errors import ModelProtocolError
from bridge.history import History, Speaker, Turn, message_item
from bridge.playout import PlayoutQueue
from bridge.recording import opening
from bridge.responses import Ask, Responses
from bridge.silence import Silence
from bridge.speech import Cut, Speech

_ROLES = {Speaker.CALLER: "user", Speaker.AGENT: "assistant", Speaker.SYSTEM: "system"}


class Talk:
    """One conversation's common ground. `session` is the complete configuration that every session of it gets."""

    def __init__(
        self, agent: Agent, limits: Limits, playout: PlayoutQueue, session: Mapping[str, Any], lag_ms: int
    ) -> None:
        self.agent = agent
        self.limits = limits
        self.session = dict(session)
        self.state = State.LISTENING
        self.commands = Commands()
        self.history = History()
        self.responses = Responses(limits.response_stall_s)
        self.speech = Speech(playout, self.history, lag_ms=lag_ms)
        self.barge_in = _barge_in(agent)
        self.endgame = Endgame(limits.goodbye_s)
        # While the greeting may not be cut, the session neither answers nor interrupts; afterwards it is told to.
        # A notice of recording that a "hello?" cuts short was not given, so it is protected in any case.
        first = opening(agent.recording, agent.greeting)
        self.protected = bool(first) and (agent.greeting_barge_in == "off" or first != agent.greeting)
        self.answer_later = False  # what the caller said meanwhile
        self.own_answers = self.server_interrupts = False
        self.answers_turns = True
        """Where it is us who answer the caller's turns: by themselves; False: only when an application asks for it."""
        self.silence = Silence(limits.caller_silent_prompt_s, limits.idle_prompts, limits.caller_silent_s)
        self.server_prompts = False
        self.follow(self.session)
        self.session_stands = False
        """Whether the model takes what is sent: not before the first session, nor between two."""
        self.lost_at: float | None = None
        self.started_at: float | None = None
        self.activity_at = 0.0
        # When the audio came that the caller is to hear next; None: it is heard already, or was interrupted.
        self.first_delta_at: float | None = None
        self.collection: Collecting | None = None
        """What the caller is keying in for the model: the keys go there and nowhere else."""
        self.deaf_for: frozenset[str] = frozenset()
        """Why the model gets silence in the place of the caller's audio; empty: it does not."""
        self.on_hold = self.held_back = self.agent_muted = False
        """On hold, whoever wanted it; by an application, so that the agent is to say nothing; the agent is muted."""
        self.elsewhere = False
        """The agent speaks to who is to take over the call, not to the caller."""
        self.no_prompt_until = 0.0
        """Until then a response that the server begins is its question whether the caller is there, and is not wanted."""
        self._items_made = 0
        self._speaking: str | None = None  # the caller, as applications know it: the item

    @property
    def closing(self) -> bool:
        """The agent takes leave."""
        return self.state is State.CLOSING

    @property
    def leaving(self) -> bool:
        """The agent hears nobody: it takes leave, or says what comes before that (`handover`)."""
        return self.state in (State.CLOSING, State.ANNOUNCING)

    def hold_speech(self) -> None:
        """The agent's words stand still while the call is on hold, unless they are for somebody else."""
        self.speech.hold(self.on_hold and not self.elsewhere)

    def step(self, step: Step) -> None:
        """Change the state by the table; raises `ModelProtocolError` for what it does not know."""
        if (self.state, step) not in TRANSITIONS:
            raise ModelProtocolError(f"{step.value} while {self.state.value}")
        before, self.state = self.state, TRANSITIONS[self.state, step]
        if self.state is not before:
            self.commands.do(StateChanged(state=self.state.value))

    def follow(self, session: Mapping[str, Any]) -> None:
        """Who answers and who interrupts, by a session's turn detection (none: manual turns)."""
        detection = session.get("audio", {}).get("input", {}).get("turn_detection", ...)
        if detection is not ...:
            self.own_answers = not (detection or {}).get("create_response", detection is not None)
            self.server_prompts = bool((detection or {}).get("idle_timeout_ms"))
            self.server_interrupts = bool((detection or {}).get("interrupt_response", detection is not None))

    # Saying ----------------------------------------------------------------------------------------------------------

    def ask(self, instructions: str) -> Ask:
        """`response.instructions` replace the session's, so the persona is repeated (section 3.5)."""
        return Ask({"instructions": f"{self.session.get('instructions', '')}\n\n{instructions}".strip()})

    def new_item_id(self) -> str:
        self._items_made += 1
        return f"bridge-{self._items_made}"

    def write(self, speaker: Speaker, text: str) -> None:
        """Put a message into the conversation that nobody spoke. Without a session it is kept for the next one."""
        item_id = self.new_item_id()
        self.history.wrote(item_id, speaker, text)
        if self.session_stands:
            self.commands.send(realtime.create_item(message_item(_ROLES[speaker], text, item_id)))

    # Interrupting ----------------------------------------------------------------------------------------------------

    @property
    def may_interrupt(self) -> bool:
        """Whether the caller may cut the agent short at all."""
        return self.agent.barge_in != "off" and not self.protected

    def interrupt(self, *, by_server: bool = False) -> None:
        """Barge-in: what the caller has not heard was never said. One synchronous step, so nothing slips between.

        `by_server`: the server has cancelled the active response itself.
        """
        active = self.responses.active
        if active is not None:
            if self.responses.wanted and not by_server:
                self.commands.send(realtime.cancel_response(active))
            self.responses.discard(active)
        self.responses.expect_nothing()
        self.step(Step.BARGE_IN)
        self.first_delta_at = None
        audible = self.speech.audible
        cuts, responses = self.speech.flush()
        if audible:
            self.commands.do(self.speech.ends(interrupted=bool(cuts)))
        for response_id in responses:
            # Generated long ago maybe, but deltas that come after `response.done` have been seen.
            self.responses.discard(response_id)
        for cut in cuts:
            received_ms = cut.turn.received_ms
            self._unsay(cut)
            self.commands.notice("agent_interrupted", heard_ms=cut.played_ms, received_ms=received_ms)
            self.tell(cut.turn)
        if responses:
            self.commands.do(ClearLegAudio())
        self.settle_heard()

    def _unsay(self, cut: Cut) -> None:
        """Tell the model how much of a turn was heard."""
        turn = cut.turn
        if not self.session_stands:
            return  # the next session is told what was heard
        if not turn.written and cut.played_ms > 0:
            self.commands.send(realtime.truncate_item(turn.item_id, cut.content_index, cut.played_ms))
            return
        # Truncating to 0 ms may be refused (3.6), and a text can not be truncated at all: it is written anew.
        self.commands.send(realtime.delete_item(turn.item_id))
        if turn.written and turn.heard_text:
            before = self.history.before(turn.item_id)
            turn.item_id = self.new_item_id()
            item = message_item("assistant", turn.heard_text, turn.item_id)
            self.commands.send(realtime.create_item(item, before))

    def settle_heard(self) -> None:
        """Every turn of the agent that was not cut has been heard to its end."""
        for turn in self.speech.settled():
            self.tell(turn)

    def tell(self, turn: Turn) -> None:
        """Tell what the caller heard of a turn, once that is decided and its words are known (they may come later)."""
        if turn.heard_ms is not None and turn.complete and turn.text and not turn.told:
            turn.told = True
            facts = {"heard_ms": turn.heard_ms, "received_ms": turn.received_ms}
            self.commands.notice("agent_said", text=turn.heard_text, **facts)
            self._final(turn)

    def _final(self, turn: Turn) -> None:
        if not turn.received_bytes:
            return  # a text of an application's, which nobody spoke
        self.commands.do(
            TranscriptFinal(
                role="agent",
                item_id=turn.first_id,
                text=turn.heard_text,
                interrupted=turn.interrupted,
                heard_ms=turn.heard_ms,
            )
        )

    # For applications ------------------------------------------------------------------------------------------------

    def speech_begins(self, item_id: str, audio_ms: int | None = None) -> None:
        """The caller speaks. Nothing happens where that is known."""
        if self._speaking is None:
            self._speaking = item_id
            self.commands.do(SpeechStarted(item_id=item_id, audio_ms=audio_ms))

    def speech_ends(self, audio_ms: int | None = None) -> None:
        """The caller speaks no more, or nobody is going to say when. Nothing happens where no beginning was told."""
        if self._speaking is not None:
            self.commands.do(SpeechStopped(item_id=self._speaking, audio_ms=audio_ms))
            self._speaking = None

    def over(self) -> None:
        """The call has ended: what the caller heard of what the agent was saying is what was said."""
        self.speech_ends()
        audible = self.speech.audible
        cuts, _ = self.speech.flush()
        if audible:
            self.commands.do(self.speech.ends(interrupted=bool(cuts)))
        self.speech.settled()
        for turn in self.history:
            if turn.speaker is Speaker.AGENT and not turn.told and turn.text:
                turn.told = True
                self._final(turn)


def _barge_in(agent: Agent) -> BargeIn:
    detection = agent.turn_detection
    vad = detection.type == "server_vad"
    return BargeIn(
        agent.barge_in,
        confirm_s=agent.barge_in_confirm_ms / 1000,
        silence_s=detection.silence_duration_ms / 1000 if vad else SEMANTIC_WAIT_S,
        padding_ms=detection.prefix_padding_ms if vad else 0,
    )
