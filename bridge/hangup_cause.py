"""Why a call is hung up, as signalling says it: ITU-T Q.850, which SIP carries in the header `Reason`.

An agent chooses among a few words, an application may use any of ARI's words or a number. A caller that was not answered
yet gets the SIP status that belongs to the cause (17: 486, 21: 403 ...) instead.
"""

from __future__ import annotations

from bridge.errors import ConfigError

UNKNOWN = 0
NORMAL = 16
# The words of ARI (`reason` of DELETE channels/ID) with their numbers.
CAUSES = {
    "normal": NORMAL,
    "unallocated": 1,
    "busy": 17,
    "timeout": 18,
    "no_answer": 19,
    "rejected": 21,
    "answered_elsewhere": 26,
    "number_incomplete": 28,
    "normal_unspecified": 31,
    "congestion": 34,
    "failure": 38,
    "codec_mismatch": 58,
    "interworking": 127,
}
# What a model may tell apart: said goodbye, not willing to talk to this caller, nobody has time.
FOR_THE_MODEL = ("normal", "rejected", "busy")


def cause_of(cause: str | int) -> int:
    """The Q.850 number of one of ARI's words, or of a number. Raises `ConfigError` for anything else."""
    if isinstance(cause, str) and cause in CAUSES:
        return CAUSES[cause]
    if isinstance(cause, int) and 1 <= cause <= 127:
        return cause
    raise ConfigError(f"hang-up cause {cause!r}: must be a Q.850 number, 1 to 127, or one of {', '.join(CAUSES)}")
