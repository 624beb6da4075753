"""How the calls of an agent are recorded: the table `[agents.NAME.recording]` of `bridge.toml`.

Off by default, and then nothing of it runs. What the law asks for (a notice, the consent of both sides, how long a file may
be kept) differs from place to place: `consent` and `decline_key` are the means, the words are the operator's.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import PurePath
from typing import Literal

import msgspec

from bridge.keys import KEYS, is_key

FIELDS = ("date", "time", "agent", "caller", "called", "call_id")
"""What a file name may hold in braces. `date` and `time` are local: 2026-11-27 and 142501."""
_FIELD = re.compile(r"\{([^{}]*)\}")
_NOTHING_KNOWN = "unknown"
_VALUE_CHARACTERS = 40
SUFFIX = ".wav"


class Recording(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who records, where to, and what the caller is told. `max_mb` 0: as long as the call lasts."""

    by: Literal["off", "bridge", "asterisk"] = "off"
    file: str = "recordings/{date}/{time}-{agent}-{caller}-{call_id}.wav"
    consent: str = ""
    decline_key: str = ""
    max_mb: int = 0


def problems(recording: Recording, at: str, other_keys: Collection[str] = ()) -> Iterator[tuple[str, str]]:
    """What is wrong with the recording whose table is `at`, as (place, remedy). `other_keys` have a meaning
    already."""
    unknown = [name for name in _FIELD.findall(recording.file) if name not in FIELDS]
    if unknown:
        known = ", ".join(f"{{{name}}}" for name in FIELDS)
        yield f"{at}.file", f"{{{unknown[0]}}} is not known; known: {known}"
    elif any(brace in _FIELD.sub("", recording.file) for brace in "{}"):
        yield f"{at}.file", "has a brace without its partner"
    elif not recording.file.endswith(SUFFIX) or recording.file.endswith(f"/{SUFFIX}") or recording.file == SUFFIX:
        yield f"{at}.file", f"must be the name of a file that ends in {SUFFIX}"
    elif recording.by == "asterisk" and (recording.file.startswith("/") or ".." in PurePath(recording.file).parts):
        yield f"{at}.file", "must lie below Asterisk's own folder for recordings: no / in front, and no .."
    if recording.decline_key and not is_key(recording.decline_key):
        yield f"{at}.decline_key", f"must be one key of {KEYS}, or empty"
    elif recording.decline_key and recording.decline_key in other_keys:
        yield f"{at}.decline_key", "must be another key than those of `keys`, and of turn_detection if that is manual"
    if not 0 <= recording.max_mb <= 4000:
        yield f"{at}.max_mb", "must be 1 to 4000 (a WAV file can not hold more), or 0 for no limit"


def advice(recording: Recording, keep_numbers: str, at: str) -> list[str]:
    """What is valid and yet worth a word, of the agent whose table is `at`."""
    if (
        recording.by == "off"
        or keep_numbers == "whole"
        or not {"caller", "called"} & set(_FIELD.findall(recording.file))
    ):
        return []
    return [
        f'{at}.recording.file: holds a number, which records.keep_numbers = "{keep_numbers}" keeps out of the record only: '
        "leave out {caller} and {called}"
    ]


def below(recording: Recording, folder: PurePath) -> Recording:
    """The same with the complete path of the file; Asterisk's lies in a folder of Asterisk's own."""
    if recording.by == "asterisk":
        return recording
    return msgspec.structs.replace(recording, file=str(folder / recording.file))


def opening(recording: Recording, greeting: str) -> str:
    """What the agent is told to say first: the notice, where there is one, before its greeting. Empty: nothing."""
    if recording.by == "off" or not recording.consent:
        return greeting
    notice = f"First say exactly these words, and nothing before them: {recording.consent}"
    return f"{notice}\n\nThen, in the same answer: {greeting}" if greeting else notice


def says(text: str, notice: str) -> bool:
    """Whether the words of `notice` stand in `text`, whatever stands between words."""
    spoken, wanted = (" ".join(re.findall(r"\w+", it.lower())) for it in (text, notice))
    return f" {wanted} " in f" {spoken} "


def file_name(template: str, facts: Mapping[str, str]) -> str:
    """The file of one call. What callers bring along (their names) can not leave the folder, nor make one."""
    return _FIELD.sub(lambda found: harmless(facts[found[1]]) if found[1] in FIELDS else found[0], template)


def fixed_folder(template: str) -> str:
    """The folder that all files of a template lie below, however deep: what stands before its first field."""
    return template.partition("{")[0].rpartition("/")[0]


def harmless(value: str) -> str:
    """`value` as a part of a file's name: letters, digits, `+`, `_`, `.` and `-`; no separators, no `..`, never empty."""
    kept = "".join(c if c.isalnum() or c in "+_.-" else " " for c in value)
    short = re.sub(r"\.{2,}", ".", "-".join(kept.split()))[:_VALUE_CHARACTERS]
    return short.strip(".-") or _NOTHING_KNOWN


def numbered(path: str, number: int) -> str:
    """Another name where `path` is taken: `call.wav`, `call-2.wav`, `call-3.wav`."""
    return path if number == 1 else f"{path.removesuffix(SUFFIX)}-{number}{SUFFIX}"
