"""Is an event what the official types say, and what the server is known to demand beyond them?

`check(event, CLIENT)` for what the bridge sends, `check(event, SERVER, ALLOWED)` for what the simulator emits. The SDK's
pydantic classes are strict about types and, through `extras`, about unknown keys; the rules that they do not know
(`realtime-protocol.md` section 8) are those by which the fake server refuses, `simulators.realtime_rules`: one place for
both. The SDK's connection class and its `recv` validate nothing.
"""

from __future__ import annotations

import typing
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import pydantic
from openai.types.realtime import RealtimeClientEvent, RealtimeServerEvent

from simulators.realtime_rules import check_client_event, check_effective
from simulators.realtime_schema import Refusal, base64_audio

Json = dict[str, Any]
Table = Mapping[str, type[pydantic.BaseModel]]


def classes(union: object) -> dict[str, type[pydantic.BaseModel]]:
    """{wire type: pydantic class} of one of the SDK's annotated unions."""
    members = typing.get_args(typing.get_args(union)[0])
    return {typing.get_args(member.model_fields["type"].annotation)[0]: member for member in members}


CLIENT: Table = classes(RealtimeClientEvent)
SERVER: Table = classes(RealtimeServerEvent)
# Seen from the real server, unknown to the types.
ALLOWED = frozenset(
    {
        ".session.id",
        ".session.object",
        ".session.expires_at",
        ".obfuscation",
        ".item.phase",
        ".response.output[].phase",
    }
)


def extras(value: object, at: str = "") -> Iterator[str]:
    """Paths of the keys that the typed model does not know; elements of lists share theirs (`a[].b`)."""
    if isinstance(value, pydantic.BaseModel):
        yield from (f"{at}.{key}" for key in value.model_extra or {})
        for key in type(value).model_fields:
            yield from extras(getattr(value, key), f"{at}.{key}")
    elif isinstance(value, list):
        for element in value:
            yield from extras(element, f"{at}[]")


def check(event: Json, table: Table, allow: Collection[str] = ()) -> pydantic.BaseModel:
    """The typed event. Raises `AssertionError` or `pydantic.ValidationError` (a `ValueError`) if anything is wrong."""
    assert event.get("type") in table, f"no such event: {event.get('type')!r}"
    model = table[event["type"]].model_validate(_without_references(event), strict=True)
    unknown = [path for path in extras(model) if path not in allow]
    assert not unknown, (event["type"], unknown)
    problems = list(_known_refusals(event, table))
    assert not problems, (event["type"], problems)
    return model


def check_client(event: Json) -> pydantic.BaseModel:
    """`check` for what a client may send on a GA websocket."""
    return check(event, CLIENT)


def check_server(event: Json) -> pydantic.BaseModel:
    """`check` for what a server sends on a GA websocket."""
    return check(event, SERVER, ALLOWED)


def _without_references(event: Json) -> Json:
    """`item_reference` in `response.input` is legal on the wire and missing in the SDK's classes."""
    response = event.get("response")
    if event["type"] != "response.create" or not isinstance(response, dict) or "input" not in response:
        return event
    items = [item for item in response["input"] if item.get("type") != "item_reference"]
    return {**event, "response": {**response, "input": items}}


def _known_refusals(event: Json, table: Table) -> Iterator[str]:
    """What the server refuses, or never sends, although the types let it pass: the fake's own rules, section 8."""
    try:
        if table is CLIENT:
            check_client_event(event)
        elif "session" in event or event["type"] in ("response.created", "response.done"):
            check_effective(event.get("session") or event["response"])
        elif event["type"] == "response.output_audio.delta" and event["delta"]:
            base64_audio(event["delta"], "delta")
    except Refusal as refusal:
        yield refusal.message
    if event["type"] == "conversation.item.truncated" and event["audio_end_ms"] < 0:
        yield "audio_end_ms is negative"
    if table is SERVER and not event.get("event_id"):
        yield "no event_id"
    if event["type"].startswith(("output_audio_buffer.", "input_audio_buffer.dtmf")):
        yield "only on WebRTC or SIP"
