"""Where an agent may send a caller: the tables `[agents.NAME.transfers.DESTINATION]` of `bridge.toml`.

The model chooses a destination by its name and description. It never sees, and never makes up, a number, unless the
destination has a pattern of `number`s that it may fill in.

    to         the dialplan: the caller goes on there, and the agent's part is over (blind)
    endpoint   what Asterisk dials while the agent stays: the caller is joined with who answers, or comes back (bridged);
               with `mode = "warm"` who answers first hears a summary from the agent, and accepts by a key
    sip        a SIP address: the caller's own telephone or trunk is asked to call there (REFER; before the answer: 302)
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Literal

import msgspec

from bridge.keys import KEYS, is_key
from bridge.toml_lines import dotted

DESTINATION = re.compile(r"([\w*#+.-]+)(?:@([\w.-]+)(?:,(\w+))?)?", re.ASCII)
"""Where a caller can be sent in the dialplan: extension, context, priority."""
# TECHNOLOGY/what it takes: PJSIP/600, PJSIP/600@trunk, Local/600@phones/n, PJSIP/trunk/sip:600@10.0.0.5
ENDPOINT = re.compile(r"[A-Za-z]\w*/[^\s&|,]+", re.ASCII)
"""What Asterisk can dial, one of it."""
_SIP = re.compile(r"(sips?:[^\s<>,;@]+@[^\s<>,@]+|tel:\+?[\d*#-]+)", re.ASCII)
_NUMBER = "{number}"
# Whatever a pattern allows: a model can write anything, a caller can make it, and with `/`, `&` or `@` in it a number would
# be another call than the one that is meant. Longer than 32 is no telephone number (E.164 has 15 digits).
_DIALLABLE = re.compile(r"[\w+*#.-]{1,32}", re.ASCII)


class Destination(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One destination. Exactly one of `to`, `endpoint`, `sip` says where; the rest says how.

    `number`: a regular expression for what the model may put in the place of `{number}`; empty: it gives no number.
    `queue`, `mailbox`: what must be there, so that a caller is not sent to it in vain (`to` leads there).
    `caller_id`: what the called telephone shows; empty: the caller's own. `brief`: what the model is told to say to the
    one who answers (`mode = "warm"`). `music`: what the caller hears meanwhile, a class of musiconhold.conf; empty: it
    rings.
    """

    to: str = ""
    endpoint: str = ""
    sip: str = ""
    description: str = ""
    number: str = ""
    queue: str = ""
    mailbox: str = ""
    referred_by: str = ""
    mode: Literal["bridged", "warm"] = "bridged"
    ring_s: float = 30.0
    music: str = ""
    caller_id: str = ""
    brief: str = "Say in at most three short sentences who is calling, what they want, and what was settled so far."
    accept_key: str = "1"
    decline_key: str = "2"
    decide_s: float = 15.0

    @property
    def where(self) -> str:
        """For logs and records."""
        return self.to or self.endpoint or self.sip

    @property
    def dialled(self) -> bool:
        """Whether somebody is called while the agent keeps the caller."""
        return bool(self.endpoint)

    def takes(self, number: str) -> bool:
        """Whether the model may give this number."""
        known = bool(self.number) and _DIALLABLE.fullmatch(number) is not None
        return known and re.fullmatch(self.number, number) is not None

    def at(self, number: str) -> Destination:
        """This destination with `number` filled in."""
        places = {key: getattr(self, key).replace(_NUMBER, number) for key in ("to", "endpoint", "sip")}
        return msgspec.structs.replace(self, **places)


def problems(destinations: Mapping[str, Destination], at: str) -> Iterator[tuple[str, str]]:
    """What is wrong with the destinations whose table is `at`, as (place, remedy)."""
    for name, it in destinations.items():
        place = f"{at}.{dotted((name,))}"
        if sum(map(bool, (it.to, it.endpoint, it.sip))) != 1:
            yield place, 'must have exactly one of to ("600@phones"), endpoint ("PJSIP/600") and sip ("sip:600@host")'
            continue
        yield from ((f"{place}.{key}", remedy) for right, key, remedy in _rows(it) if not right)


def _rows(it: Destination) -> Iterator[tuple[bool, str, str]]:
    example = it.at("600")
    yield (
        not it.to or DESTINATION.fullmatch(example.to) is not None,
        "to",
        "must be exten, exten@context or exten@context,priority, like 600@phones",
    )
    yield (
        not it.endpoint or ENDPOINT.fullmatch(example.endpoint) is not None,
        "endpoint",
        "must be one TECHNOLOGY/RESOURCE, like PJSIP/600 or Local/600@phones (for several that ring together: an "
        "extension that dials them all, as Local/...)",
    )
    yield (
        not it.sip or _SIP.fullmatch(example.sip) is not None,
        "sip",
        "must be like sip:600@example.com or tel:+4930123",
    )
    yield not it.referred_by or bool(it.sip), "referred_by", "goes with sip only"
    yield (
        not it.referred_by or _SIP.fullmatch(it.referred_by) is not None,
        "referred_by",
        "must be like sip:agent@pbx.example.com",
    )
    yield _is_pattern(it.number), "number", "must be a regular expression, like [2-5]\\d\\d"
    yield bool(it.number) == (_NUMBER in it.where), "number", f"goes together with {_NUMBER} in to, endpoint or sip"
    yield (
        it.mode == "bridged" or it.dialled,
        "mode",
        "warm goes with endpoint only: somebody must be dialled to be told",
    )
    yield not it.queue or bool(it.to), "queue", "goes with to only, the extension that leads to the queue"
    yield not it.mailbox or bool(it.to), "mailbox", "goes with to only, the extension that leads to the mailbox"
    yield _is_plain(it.queue), "queue", "must be the name of a queue in queues.conf"
    yield _is_plain(it.mailbox), "mailbox", "must be MAILBOX@CONTEXT as in voicemail.conf, like 100@default"
    yield it.ring_s > 0, "ring_s", "must be above zero"
    yield it.decide_s > 0, "decide_s", "must be above zero"
    for key in ("accept_key", "decline_key"):
        yield is_key(getattr(it, key)), key, f"must be one key of {KEYS}"
    yield it.accept_key != it.decline_key, "decline_key", "must be another key than accept_key"


def _is_pattern(text: str) -> bool:
    try:
        re.compile(text)
    except re.error:
        return False
    return True


def _is_plain(text: str) -> bool:
    """Whether this can be the argument of a dialplan function without changing its meaning."""
    return re.fullmatch(r"[\w.@+-]*", text) is not None
