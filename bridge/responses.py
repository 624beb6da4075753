"""One response at a time: which one the server generates, which was asked for, and which is still to be asked for.

A `response.create` is only legal while none is active (protocol sheet 3.7), and a refused one is never followed by a
`response.done`. So everything that wants the agent to speak says `want`, and `next_request` gives out what may be asked
now. Also here: what to do about failed responses, and whether the model owes us a sign of life.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from bridge import realtime, realtime_errors
from bridge.realtime import ServerError
from bridge.realtime_errors import Verdict

# A request that was refused for an active response is made again when that is done, but not at once: a server that says
# so although nothing is active must not be asked in a loop.
REFUSED_WAIT_S = 0.5
# A rate limit that says no time is waited out for 2, 4 and 8 s; then the caller is better served elsewhere.
MAX_RATE_LIMITS = 3
# Whoever made a response by hand beside the call (`conversation: "none"`) gets this into its metadata, so that its audio
# never ends up in the call (section 3.9).
APART = "bridge_apart"


@dataclass(frozen=True, slots=True)
class Ask:
    """One `response.create`. `fields` is its `response` object; empty: as the session says. `foreign`: an application
    made it, so it may be wrong."""

    fields: Mapping[str, object] = field(default_factory=dict)
    foreign: bool = False


class Responses:
    """The responses of one session, one after the other. Times are seconds of any monotonic clock."""

    def __init__(self, stall_s: float) -> None:
        self._stall_s = stall_s
        self.active: str | None = None
        self.requested = False
        self.asked = Ask()
        """What the newest response that began was asked for; plain: the server began it by itself."""
        self._request = Ask()
        self._requests = 0
        self._server_owes = False
        self._unless_answered = False
        self._owed: Ask | None = None
        self._owed_from = 0.0
        self._discarded: set[str] = set()
        self._apart: set[str] = set()
        self._waiting_since: float | None = None
        self._retry_left = True
        self._rate_limits = 0
        self.rate_limited = False

    # Asking ----------------------------------------------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """A response is being generated, or has been asked for."""
        return self.active is not None or self.requested

    @property
    def owed(self) -> bool:
        return self._owed is not None

    @property
    def unsaid(self) -> Ask | None:
        """What the agent was asked to say in so many words, and has not begun to."""
        if self._owed is not None and self._owed.fields:
            return self._owed
        return self._request if self.requested and self._request.fields else None

    def want(self, ask: Ask, not_before: float = 0.0) -> None:
        """The agent is to speak as soon as that is legal. The newest wish replaces one that waits; but a plain one adds
        nothing to one with words of its own, and none cuts the wait of a rate limit short."""
        if self._owed is not None and not ask.fields:
            ask = self._owed
        self._owed, self._owed_from = ask, max(not_before, self._owed_from) if self.rate_limited else not_before

    def want_unless_answered(self, not_before: float) -> None:
        """The server may go on by itself, or not (nobody knows): ask for it if it has not begun by then."""
        self.want(Ask(), not_before)
        self._unless_answered = True

    def forget(self) -> None:
        """Nothing is owed any more: the answer to the caller's next turn covers it."""
        self._owed = None
        self.rate_limited = False

    def take_back(self, ask: Ask) -> None:
        """This is not to be said any more, if it has not been asked for yet."""
        if self._owed is ask:
            self._owed = None

    def next_request(self, now: float) -> Ask | None:
        """What to send as `response.create` now, if anything; it counts as asked for from here on."""
        if self._owed is None or self.busy or now < self._owed_from:
            return None
        self._request, self._owed = self._owed, None
        self.requested, self.rate_limited = True, False
        self._requests += 1
        self._waiting_since = now
        return self._request

    @property
    def request_id(self) -> str:
        """The event id of the newest request."""
        return f"ask-{self._requests}"

    # What the server does --------------------------------------------------------------------------------------------

    def created(self, response: realtime.Response, now: float) -> bool:
        """A response has begun. False: it does not belong to the dialogue (section 3.9).

        One that the server owed comes first: what we asked for meanwhile is refused, or follows it.
        """
        if APART in (response.metadata or {}):
            self._apart.add(response.id)
            self._discarded.add(response.id)
            return False
        self.active = response.id
        ours = self.requested and not self._server_owes
        if self._unless_answered and not ours and self._owed is not None and not self._owed.fields:
            self._owed = None
        self._unless_answered = False
        self.asked = self._request if ours else Ask()
        self.requested = self.requested and not ours
        self._server_owes = False
        self._waiting_since = now
        return True

    def done(self, response: realtime.Response, now: float) -> bool:
        """A response has ended. False: it was not the active one of the dialogue."""
        self._apart.discard(response.id)
        if response.id != self.active:
            return False
        self.active = None
        self._waiting_since = now if self.requested else None
        self._owed_from = max(now, self._owed_from if self.rate_limited else now)
        if response.status in ("completed", "incomplete"):
            self._retry_left, self._rate_limits = True, 0
        return True

    def refused(self, now: float) -> None:
        """A request was refused since one is active; ours, or the one that the server wanted for the caller's turn."""
        ask = self._request if self.requested else Ask()
        self.requested = False
        self.want(self._owed or ask, now + REFUSED_WAIT_S)

    def rejected(self) -> Ask:
        """The newest request was refused for another reason than an active response: nothing follows. Returns it."""
        self.asked, self.requested = self._request, False
        if self.active is None:
            self._waiting_since = None
        return self._request

    def drop_foreign(self) -> bool:
        """Give up waiting for what an application asked for: it was refused most likely, by an error that does not say
        what it is about. False: nothing of an application's was asked for."""
        waits = self.requested and self.active is None and self._request.foreign
        if waits:
            self.rejected()
        return waits

    def retry(self, error: ServerError, now: float) -> bool:
        """A response failed: ask for the same again, after the wait that a rate limit wants. False: no use."""
        if realtime_errors.triage(error) is Verdict.FATAL:
            return False
        wait_s = realtime_errors.retry_after_s(error)
        if wait_s:
            if self._rate_limits >= MAX_RATE_LIMITS:
                return False
            wait_s = (
                max(wait_s, realtime_errors.RATE_LIMIT_WAIT_S * 2**self._rate_limits) if self._rate_limits else wait_s
            )
            self._rate_limits += 1
        elif not self._retry_left:
            return False
        else:
            self._retry_left = False
        self.want(self.asked, now + wait_s)
        self.rate_limited = wait_s > 0
        return True

    def discard(self, response_id: str) -> None:
        """Nothing of this response may be heard from here on (deltas in flight reappear otherwise)."""
        self._discarded.add(response_id)

    def is_apart(self, response_id: str) -> bool:
        """Whether this response, which goes on, is outside the dialogue."""
        return response_id in self._apart

    def is_discarded(self, response_id: str) -> bool:
        return response_id in self._discarded

    @property
    def wanted(self) -> bool:
        """A response is active that the caller is to hear."""
        return self.active is not None and self.active not in self._discarded

    # Signs of life ---------------------------------------------------------------------------------------------------

    def expect(self, now: float) -> None:
        """The server owes a response (the caller's turn is committed), or goes on with the one that is active."""
        self._waiting_since = now
        self._server_owes = self.active is None

    def sign_of_life(self, now: float) -> None:
        """Any event while a response is active."""
        if self.active is not None and self._waiting_since is not None:
            self._waiting_since = now

    def expect_nothing(self) -> None:
        self._waiting_since = None
        self._server_owes = False

    @property
    def awaited(self) -> bool:
        """The model owes something: the caller waits for it."""
        return self._waiting_since is not None

    def stalled(self, now: float) -> bool:
        return self._waiting_since is not None and now - self._waiting_since >= self._stall_s

    def session_lost(self) -> Ask | None:
        """The session is gone, and with it what it was doing. Returns what had been asked for and not been given."""
        if self.requested:
            cut: Ask | None = self._request
        else:
            cut = self.asked if self.active is not None else self._owed
        self.active = self._waiting_since = self._owed = None
        self.requested = self.rate_limited = self._server_owes = False
        return cut
