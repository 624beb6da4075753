"""What the caller does: speaks (by the server's VAD, or between two keys), or says nothing.

With `own_answers` (manual turns, and every barge-in policy but `interrupt`) the server only commits the caller's turns, and
the bridge asks for each answer; else the server answers by itself, and only owes us a response.
"""

from __future__ import annotations

from bridge import realtime
from bridge.accounts import Accounts
from bridge.barge_in import Reaction
from bridge.call_events import TranscriptFinal, TranscriptPartial
from bridge.call_limits import PROMPT_WAIT_S
from bridge.dialogue import ResendAudio
from bridge.history import Speaker, Turn
from bridge.responses import Ask
from bridge.talk import Talk

# Speech begins before the server's VAD is sure of it: what is sent again to a new session starts this much earlier.
SPEECH_MARGIN_S = 0.6
# Words that were over longer ago than this are no longer at hand to be sent again (`call` keeps so much audio).
RESEND_S = 5.0
# A turn that is committed by hand is answered when the server has said so; where it was too short nothing comes.
COMMIT_WAIT_S = 1.0


class CallerTurns:
    """The caller's side of a conversation. `unheard_from`: since when the caller has been saying what no session is known
    to have understood (item `unheard_item`), until `unheard_until` (None: still); None: everything was. `ended_at`: when
    the turn that waits for its answer was over."""

    def __init__(self, talk: Talk, accounts: Accounts) -> None:
        self._talk = talk
        self._accounts = accounts
        self._manual = talk.agent.turn_detection.type == "manual"
        self._pressed = self._manual and bool(talk.agent.turn_detection.talk_key)
        self._talking = False  # the talk key was pressed
        self._turn_from = 0.0  # without a talk key a turn begins where the one before was sent
        # Turns that nobody spoke: noises, and the silences that the server answers. Their transcripts come all the same.
        self._unspoken: set[str] = set()
        self._partial: dict[str, str] = {}  # words of turns whose transcript is not complete
        self.ended_at: float | None = None
        self.unheard_item = ""
        self.unheard_from: float | None = None
        self.unheard_until: float | None = None

    @property
    def wants_audio(self) -> bool:
        """Whether the caller's audio goes to the model: with a talk key, only after it was pressed."""
        return self._talking or not self._pressed

    # Speech ----------------------------------------------------------------------------------------------------------

    def speech_started(self, event: realtime.SpeechStarted, now: float) -> None:
        talk = self._talk
        talk.activity_at = now
        talk.speech_begins(event.item_id, _ms(event.audio_start_ms))
        talk.silence.broken()
        talk.history.turn(event.item_id, Speaker.CALLER)
        if self.unheard_from is None:
            self.unheard_from, self.unheard_item = now - SPEECH_MARGIN_S, ""
        self.unheard_item = self.unheard_item or event.item_id
        self.unheard_until = None
        reaction = talk.barge_in.speech_started(
            event.item_id,
            now,
            _ms(event.audio_start_ms),
            agent_speaks=talk.responses.wanted or talk.responses.requested or not talk.speech.silent,
            protected=talk.protected,
        )
        self._react(reaction, now)

    def speech_stopped(self, event: realtime.SpeechStopped, now: float, appended_ms: int) -> bool:
        """Returns whether something was said: False where it was a false alarm."""
        talk = self._talk
        talk.activity_at = now
        end_ms = _ms(event.audio_end_ms)
        talk.speech_ends(end_ms)
        reaction = talk.barge_in.speech_stopped(event.item_id, now, end_ms)
        self._react(reaction, now)
        self.unheard_until = now
        if reaction is not Reaction.RESUME:
            self.ended_at = now
            self._accounts.clock.speech_stopped(now, end_ms, appended_ms)
            # The response that this turn brings sees every tool output sent so far: nothing is owed any more.
            talk.responses.forget()
        return reaction is not Reaction.RESUME

    def committed(self, item_id: str, now: float) -> None:
        talk = self._talk
        if item_id in self._unspoken:
            # A silence. Whether the server answers it where it answers nothing else by itself is not known (3.12).
            if now < talk.no_prompt_until:
                return
            if talk.own_answers:
                talk.responses.want_unless_answered(now + PROMPT_WAIT_S)
            else:
                talk.responses.expect(now)
            return
        if talk.barge_in.is_noise(item_id):
            self._unspoken.add(item_id)
            talk.commands.send(realtime.delete_item(item_id))
            talk.history.forget(item_id)
            if item_id == self.unheard_item:
                self.unheard_from = None
            return
        talk.history.turn(item_id, Speaker.CALLER)
        if self._manual:
            self.unheard_item = item_id
        else:
            talk.speech_ends()
        talk.barge_in.speaking = False
        self._accounts.clock.committed(now)
        if talk.protected:
            # Asked for now, the answer would be generated behind the greeting and be protected with it.
            talk.answer_later = talk.answers_turns
        elif talk.own_answers:
            if talk.answers_turns:
                talk.responses.want(Ask())
        else:
            talk.responses.expect(now)

    def understood(self, event: realtime.CallerTranscriptDelta, now: float) -> None:
        """Some words of a turn."""
        self._words(event.item_id, now)
        if event.delta and event.item_id not in self._unspoken:
            text = self._partial[event.item_id] = self._partial.get(event.item_id, "") + event.delta
            self._talk.commands.do(
                TranscriptPartial(role="caller", item_id=event.item_id, delta=event.delta, text=text)
            )

    def _words(self, item_id: str, now: float) -> None:
        """Something was understood, while or after it was said."""
        self._react(self._talk.barge_in.words(item_id), now)

    def said(self, event: realtime.CallerTranscript, now: float) -> None:
        if event.item_id in self._unspoken:
            self._accounts.transcribed(event.usage)
            return
        if event.transcript.strip():
            self._words(event.item_id, now)
        if event.item_id == self.unheard_item:
            self.unheard_from = None
        turn = self._talk.history.turn(event.item_id, Speaker.CALLER)
        turn.text, turn.complete = event.transcript, True
        self._talk.commands.notice("caller_said", text=event.transcript)
        self._final(turn, event.transcript)
        self._accounts.transcribed(event.usage)

    def nothing_said(self, item_id: str) -> None:
        """The caller has said nothing for `idle_timeout_ms`, and the server makes a turn of it (3.12)."""
        self._unspoken.add(item_id)

    def not_transcribed(self, item_id: str) -> None:
        """Nobody will say what the words of this turn were."""
        if item_id in self._talk.history and item_id not in self._unspoken:
            self._final(self._talk.history.turn(item_id, Speaker.CALLER), self._partial.get(item_id, ""))

    def _final(self, turn: Turn, text: str) -> None:
        """Tell applications of a turn's words, once."""
        self._partial.pop(turn.first_id, None)
        if not turn.told:
            turn.told = True
            self._talk.commands.do(TranscriptFinal(role="caller", item_id=turn.first_id, text=text))

    def over(self) -> None:
        """The call has ended: nothing more will be known of what was said last."""
        for item_id, text in self._partial.items():
            self._talk.commands.do(TranscriptFinal(role="caller", item_id=item_id, text=text, interrupted=True))
        self._partial.clear()

    def answered(self) -> None:
        """A response to what the caller said is complete: nobody needs to hear that again."""
        self.unheard_from = None

    def tick(self, now: float) -> None:
        self._react(self._talk.barge_in.tick(now), now)

    def _react(self, reaction: Reaction, now: float) -> None:
        match reaction:
            case Reaction.INTERRUPT:
                self._talk.interrupt(by_server=self._talk.server_interrupts)
                self._accounts.clock.interrupted(now)
            case Reaction.HOLD:
                self._talk.speech.pause()
                self._talk.commands.notice("agent_paused")
            case Reaction.RESUME:
                self._talk.speech.resume()
                self._talk.commands.notice("false_alarm")
            case Reaction.NOTHING:
                pass

    # Keys ------------------------------------------------------------------------------------------------------------

    def active(self, now: float) -> None:
        """The caller is there: does something else than speak."""
        self._talk.activity_at = now
        self._talk.silence.broken()

    def key(self, digit: str, now: float) -> bool:
        """A key. False: it is none of those where a manual turn begins and ends."""
        keys = self._talk.agent.turn_detection
        self.active(now)
        if self._manual and digit == keys.talk_key:
            self._begin_turn(now)
        elif self._manual and digit == keys.send_key:
            self._end_turn(now)
        else:
            return False
        return True

    def _begin_turn(self, now: float) -> None:
        """The talk key. Nobody but us interrupts with manual turns (section 3.4)."""
        talk = self._talk
        self._talking = talk.barge_in.speaking = True
        talk.speech_begins("")
        if talk.session_stands:
            talk.commands.send(realtime.clear_audio())
            self.unheard_from = None
        if self.unheard_from is None:
            self.unheard_item, self.unheard_from = "", now
        self.unheard_until = None  # without a session two turns become one
        if talk.may_interrupt:
            talk.interrupt()
            self._accounts.clock.interrupted(now)

    def end_turn(self, now: float) -> None:
        """The caller's turn is over, otherwise than by its key. Where the server detects turns it cuts one short."""
        self.active(now)
        if self._manual:
            self._end_turn(now)
        elif self._talk.session_stands:
            self._talk.commands.send(realtime.commit_audio())

    def _end_turn(self, now: float) -> None:
        """The send key: the answer is asked for when the turn is committed, which is refused below 100 ms."""
        self._talking = self._talk.barge_in.speaking = False
        self._talk.speech_ends()
        self.ended_at = self.unheard_until = now
        if not self._pressed:
            if self._talk.session_stands or self.unheard_from is None:
                self.unheard_item, self.unheard_from = "", self._turn_from
            self._turn_from = now
        self._accounts.clock.speech_stopped(now)
        responses = self._talk.responses
        if responses.owed:
            responses.want(Ask(), now + COMMIT_WAIT_S)
        if self._talk.session_stands:
            self._talk.commands.send(realtime.commit_audio())

    # Another session ------------------------------------------------------------------------------------------------

    def session_lost(self, now: float) -> None:
        """The old session heard nothing more. What was over long ago, or sent on by no key, is not sent again."""
        since, until = self.unheard_from, self.unheard_until
        if since is not None and until is not None and now - until > RESEND_S:
            self.unheard_from = None
        self._talk.barge_in.speaking = self._talking
        if not self._talking:
            self._talk.speech_ends()  # the next session hears it anew
        self._partial.clear()

    def say_again(self, lost_at: float) -> None:
        """Tell the new session what none has understood, and what was said since the old one was lost. A turn that had
        been sent by its key is sent again; what VAD was about to hear is heard from before its beginning."""
        commands = self._talk.commands
        since, until = self.unheard_from, self.unheard_until
        if self._manual and since is not None and until is not None:
            commands.do(ResendAudio(since, until))
            commands.send(realtime.commit_audio())
            since = None
        if not self._manual:
            since = min(lost_at - SPEECH_MARGIN_S, since or lost_at)
        elif not self._pressed:
            since = self._turn_from
        if since is not None:
            commands.do(ResendAudio(since))
        if self.unheard_from is not None:
            # It comes again as another item, and is understood only then.
            self._talk.history.forget(self.unheard_item)
            self.unheard_item = ""


def _ms(value: float | None) -> int | None:
    return None if value is None else int(value)
