"""Every fault of the simulator, for the soak: how it is thrown, and which ends of a call it allows."""

from __future__ import annotations

import math
import random
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass

import trio
from house import House

from simulators.model_script import AT_ONCE, ONE_DELTA, Fail, Pace
from simulators.realtime_faults import DropPoint

# No other session can be had: the call ends for the reason for which it lost its last one.
GONE = frozenset({"model_lost", "model_unreachable", "model_rejected", "model_stalled", "model_failed"})
NOTHING: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Fault:
    """`throw` holds for `longest_s` at most (by chance). `allows`: ends that it may bring about, none: the call goes on."""

    throw: Callable[[House, random.Random], AbstractContextManager[object]]
    allows: frozenset[str] = NOTHING
    longest_s: float = 8.0


def _switch(**switches: object) -> Callable[[House, random.Random], AbstractContextManager[object]]:
    return lambda it, _chance: it.model.faulty(**switches)


def _drop(point: DropPoint) -> Fault:
    def throw(it: House, chance: random.Random) -> AbstractContextManager[object]:
        code = chance.choice([None, None, 1000, 1001, 1011, 1012])
        return it.model.dropping(point, code=code, expired=chance.random() < 0.2)

    return Fault(throw, longest_s=30)


def _failing(*failures: Fail) -> Callable[[House, random.Random], AbstractContextManager[object]]:
    @contextmanager
    def throw(it: House, chance: random.Random) -> Iterator[None]:
        with it.model.failing(*failures[: chance.randrange(1, len(failures) + 1)]):
            yield
        it.model.faults.failing.clear()

    return throw


def _errors(it: House, chance: random.Random) -> AbstractContextManager[object]:
    for session in it.model.sessions:
        for _ in range(chance.choice([1, 1, 8])):
            session.send_error(None if chance.random() < 0.3 else "server_error")
    return ExitStack()


def _expire_now(it: House, _chance: random.Random) -> AbstractContextManager[object]:
    for session in it.model.sessions:
        session.expire()
    return ExitStack()


# Two lanes, which run beside each other: what a session does, and what becomes of connections.
SESSION: dict[str, Fault] = {
    "stalled": Fault(lambda it, _: it.model.stalled(), NOTHING, 14),
    "slow_deltas": Fault(lambda it, chance: it.model.slow_deltas(chance.uniform(1, 8))),
    "late_deltas": Fault(lambda it, chance: it.model.late_deltas(2, after_done=chance.random() < 0.5), longest_s=20),
    "failing": Fault(_failing(Fail(), Fail("server_error"), Fail()), frozenset({"model_failed"})),
    "rate_limited": Fault(_failing(Fail.rate_limited(1.5), Fail.rate_limited(20))),
    "quota": Fault(_failing(Fail.quota()), frozenset({"model_failed", "model_rejected"})),
    "server_errors": Fault(_errors),
    "done_swapped": Fault(_switch(done_swapped=True), longest_s=30),
    "foreign": Fault(_switch(foreign=True), longest_s=30),
    "empty_deltas": Fault(_switch(empty_deltas=True), longest_s=30),
    "bare_errors": Fault(_switch(bare_errors=True), longest_s=30),
    "usage_missing": Fault(_switch(usage_missing=True), longest_s=30),
    "started_after_done": Fault(_switch(started_after_done=True), longest_s=30),
    "truncate_unacknowledged": Fault(_switch(truncate_unacknowledged=True), longest_s=30),
    "transcripts_reversed": Fault(_switch(transcripts_reversed=True), longest_s=30),
    "transcripts_early": Fault(_switch(transcript_after_s=0.0), longest_s=30),
    "transcripts_late": Fault(_switch(transcript_after_s=12.0), longest_s=30),
    "response_late": Fault(_switch(response_after_s=0.7), longest_s=30),
    "one_delta": Fault(_switch(pace=ONE_DELTA), longest_s=20),
    "at_once": Fault(_switch(pace=AT_ONCE), longest_s=20),
    "tiny_odd_deltas": Fault(_switch(pace=Pace(speed=3, delta_ms=20, odd=True)), longest_s=20),
    "real_time": Fault(_switch(pace=Pace(speed=1, delta_ms=250)), longest_s=20),
    "details_bare": Fault(_switch(details_bare=True), longest_s=30),
    "codes_numeric": Fault(_switch(codes_numeric=True), longest_s=30),
    "added_twice": Fault(_switch(added_twice=True), longest_s=30),
    "items_created": Fault(_switch(items_created=True), longest_s=30),
    "item_done_missing": Fault(_switch(item_done_missing=True), longest_s=30),
    "rate_limits_missing": Fault(_switch(rate_limits_missing=True), longest_s=30),
    "official_extras": Fault(_switch(official_extras=True), longest_s=30),
}
CONNECTION: dict[str, Fault] = {
    **{f"drop {point.name.lower()}": _drop(point) for point in DropPoint},
    "expire": Fault(_expire_now),
    "expiring": Fault(lambda it, chance: it.model.expiring(chance.uniform(20, 200)), longest_s=60),
    "expires_at_hidden": Fault(_switch(expires_at_hidden=True), longest_s=60),
    "created_late": Fault(_switch(created_after_s=2.0), longest_s=60),
    "conversation_created": Fault(_switch(conversation_created="after"), longest_s=60),
    "updated_missing": Fault(lambda it, _: it.model.no_session_updated(), GONE, 30),
    "update_refused": Fault(lambda it, _: it.model.update_refused(), GONE, 30),
    "wrong_format": Fault(lambda it, _: it.model.wrong_format({"type": "audio/pcmu"}), GONE, 30),
    "refused by key": Fault(lambda it, _: it.model.refusing("invalid_api_key"), GONE, 30),
    "refused by quota": Fault(lambda it, _: it.model.refusing("insufficient_quota"), GONE, 30),
    "server_error at the door": Fault(lambda it, _: it.model.refusing("server_error"), GONE, 30),
    "http": Fault(lambda it, chance: it.model.http_status(chance.choice([400, 401, 403, 404, 429, 503])), GONE, 30),
    "silent": Fault(lambda it, _: it.model.silent(), GONE, 30),
    "close at once": Fault(lambda it, chance: it.model.closing_at_once(chance.choice([1000, 1008, 1011])), GONE, 30),
    "drops soon": Fault(lambda it, chance: it.model.dropped(chance.uniform(0, 5)), GONE, 20),
    "path dead": Fault(lambda it, _: it.model_path_dead(), GONE, 20),
    "model down": Fault(lambda it, _: _Down(it), GONE, 20),
    "no pongs": Fault(lambda it, _: it.model.no_pongs(), longest_s=60),
}
# Beside these a connection must end for them to matter.
NEEDS_LOSS = frozenset(CONNECTION) - {
    "path dead",
    "expire",
    *(name for name in CONNECTION if name.startswith("drop ")),
}

# How long after a fault a call may still end of it: the patience of the bridge with connections and answers, and with
# losses in a row that no completed response comes between (a rate limit of 20 s may stand there).
AFTERMATH_S = 40.0


class _Down(AbstractContextManager[object]):
    """Nobody listens there."""

    def __init__(self, it: House) -> None:
        self._it = it

    def __enter__(self) -> None:
        self._it.model_up = False

    def __exit__(self, *_: object) -> None:
        self._it.model_up = True


class Faults:
    """The faults of one run, and the reasons for which its call may end by now."""

    def __init__(self, it: House, chance: random.Random) -> None:
        self._allowed: dict[str, float] = {}  # reason: until when
        self.names: list[str] = []
        self._it, self._chance = it, chance
        # How often something goes wrong differs from run to run: most calls are to live for long.
        self._pause_s = chance.choice([15.0, 30.0, 60.0, 120.0])

    def allow(self, reason: str, until: float = math.inf) -> None:
        """The call may end so, until then."""
        self._allowed[reason] = max(until, self._allowed.get(reason, 0.0))

    def allowed(self) -> set[str]:
        """The reasons for which the call may end now."""
        return {reason for reason, until in self._allowed.items() if trio.current_time() <= until}

    async def lane(self, table: dict[str, Fault]) -> None:
        """One fault after the other, until cancelled."""
        chance = self._chance
        while True:
            await trio.sleep(chance.expovariate(1 / self._pause_s))
            # Those that may end the call are rarer, or few calls would last for ten minutes.
            weights = [0.4 if fault.allows else 1.0 for fault in table.values()]
            name = chance.choices(list(table), weights)[0]
            fault = table[name]
            self.names.append(f"{name}@{trio.current_time():.0f}")
            lasts_s = chance.uniform(0.2, fault.longest_s)
            for reason in fault.allows:
                self.allow(reason, trio.current_time() + lasts_s + 5 + AFTERMATH_S)
            with fault.throw(self._it, chance):
                await trio.sleep(lasts_s)
                if name in NEEDS_LOSS and chance.random() < 0.4:
                    # Such a fault is only met by a new connection.
                    for session in list(self._it.model.sessions):
                        await session.drop(None)
                    await trio.sleep(chance.uniform(0.2, 5))


def faults_of(faults: Faults) -> list[Callable[[], Awaitable[None]]]:
    """The tasks that throw them."""
    return [lambda: faults.lane(SESSION), lambda: faults.lane(CONNECTION)]
