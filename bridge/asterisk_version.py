"""What this Asterisk can and can not do, by its version, and what the bridge does about it. Pure.

The table is that of field report 5.1, checked there by comparing release tags; requests on the websocket are from the
upgrade notes of 20.14.0. A change came to each series in a release of its own (20.14, 21.9, 22.4, 23.0), or never (None).
Series before 20 are older than every row, series after 23 younger.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from bridge.config import FormatChoice, MediaFormat, RequestsChoice

_SERIES = (20, 21, 22, 23)
# `22.10.1+dfsg+~cs6...` (Debian), `certified/20.7-cert3` (`certified-18.9-cert5` before): a release of its base version.
_RELEASE = re.compile(r"(?:asterisk[ /])?(?:certified[/-])?(\d+)\.(\d+)", re.IGNORECASE)
Minors = tuple[int | None, int | None, int | None, int | None]


@dataclass(frozen=True, slots=True)
class Version:
    """A version as Asterisk tells it (`text`), and the release that it is or is built on.

    `series` and `minor` are None for builds that no release number describes (`GIT-22-...`): their age is unknown.
    """

    text: str
    series: int | None = None
    minor: int | None = None

    @property
    def known(self) -> bool:
        return self.series is not None

    def has(self, minors: Minors) -> bool:
        """Whether this is one of these releases (`minors` of 20, 21, 22, 23) or younger. False where it is unknown."""
        if self.series is None or self.minor is None or self.series < _SERIES[0]:
            return False
        if self.series > _SERIES[-1]:
            return True
        first = minors[_SERIES.index(self.series)]
        return first is not None and self.minor >= first

    def __str__(self) -> str:
        """Without what a distribution adds: `22.10.1` for `22.10.1+dfsg+~cs6.17.60671434-1`."""
        return re.split(r"[+~]", self.text)[0] or "of unknown version"


UNKNOWN = Version("")


def parse(text: str) -> Version:
    """The version in `system.version` of `GET /asterisk/info`, or in a `Server:` header. Never raises."""
    text = text.strip()
    release = _RELEASE.match(text)
    return Version(text, int(release[1]), int(release[2])) if release else Version(text)


def releases(minors: Minors) -> str:
    """For people: `20.17, 21.12, 22.7 or 23.1`."""
    names = [f"{series}.{minor}" for series, minor in zip(_SERIES, minors, strict=True) if minor is not None]
    return f"{', '.join(names[:-1])} or {names[-1]}"


REQUESTS_ON_WEBSOCKET: Minors = (14, 9, 4, 0)
_DIGITS: Minors = (14, 9, 4, 0)
_SPLIT_PAYLOAD: Minors = (15, 10, 5, 0)
WIDEBAND: Minors = (17, 12, 7, 1)
_PARTIAL_HEADER: Minors = (19, None, 9, 3)
_COMFORT_NOISE: Minors = (20, None, 10, 4)
_NEVER: Minors = (None, None, None, None)


@dataclass(frozen=True, slots=True)
class Fact:
    """What goes wrong from `since` (None: from the beginning) until it was mended in `until`.

    `bridge` is what the bridge does by itself, `operator` what only a person can do; either may be empty.
    """

    breaks: str
    until: Minors
    since: Minors | None = None
    bridge: str = ""
    operator: str = ""

    def concerns(self, version: Version) -> bool:
        """Whether this version has it. Series that are younger than the table have nothing of it."""
        if version.series is None or version.series > _SERIES[-1]:
            return False
        return (self.since is None or version.has(self.since)) and not version.has(self.until)


FACTS: tuple[Fact, ...] = (
    Fact(
        "ARI takes no requests on its websocket",
        REQUESTS_ON_WEBSOCKET,
        bridge="they go by HTTP",
    ),
    Fact(
        "AudioSocket knows 8 kHz only",
        WIDEBAND,
        bridge="every call is asked for as slin, whatever asterisk.format says",
        operator=f"upgrade to {releases(WIDEBAND)} for wideband",
    ),
    Fact(
        "AudioSocket does not tell which keys are pressed",
        _DIGITS,
        bridge="keys are taken from ARI",
        operator="calls without ARI, by AudioSocket() or Dial(), have no keys",
    ),
    Fact(
        "AudioSocket() ends the call when the bridge hangs up, and takes all of a core if the bridge only closes",
        _DIGITS,
        bridge="every end is announced by a hang-up frame before the connection is closed",
        operator="in the dialplan take Dial(AudioSocket/...,,g) instead of AudioSocket(): it goes on afterwards",
    ),
    Fact(
        "a frame that the network splits ends the media",
        _SPLIT_PAYLOAD,
        bridge="each frame is one write, below one TCP segment",
        operator="keep a full MTU (1500) between Asterisk and the bridge",
    ),
    Fact(
        "a header that is late ends the media",
        WIDEBAND,
        since=_DIGITS,
        bridge="each frame is one write, and one is sent each 20 ms",
    ),
    Fact(
        "a header that arrives in two parts turns the audio into noise",
        _PARTIAL_HEADER,
        since=WIDEBAND,
        bridge="each frame is one write",
    ),
    Fact(
        "a peer that sends nothing stops the channel's own audio",
        _NEVER,  # not mended in 20.20.1, 22.10.1, 23.4.1, 23.5.0-rc1 (issue 2089)
        since=WIDEBAND,
        bridge="a frame is sent each 20 ms from the first moment to the last, silence where nothing is said",
    ),
    Fact(
        "a phone's comfort noise ends the media",
        _COMFORT_NOISE,
        operator=f"switch silence suppression off at the phones and trunks, or upgrade to {releases(_COMFORT_NOISE)}",
    ),
)


@dataclass(frozen=True, slots=True)
class Advice:
    """One thing to know about this Asterisk. `text` says what goes wrong, what the bridge does, and what remains to do.

    `remedy` is the part for a person; empty: nothing is left to do.
    """

    text: str
    remedy: str = ""


def advice(version: Version) -> list[Advice]:
    """What concerns this version, in the table's order; what needs a person has a remedy."""
    if not version.known:
        return [
            Advice(
                f'its version "{version.text}" is no release number, so what it can do is unknown; asterisk.format = '
                '"auto" means 8 kHz here',
                'set asterisk.format = "slin16" if it is younger than ' + releases(WIDEBAND),
            )
        ]
    return [
        Advice(f"{fact.breaks}{f': {fact.bridge}' if fact.bridge else ''}", fact.operator)
        for fact in FACTS
        if fact.concerns(version)
    ]


@dataclass(frozen=True, slots=True)
class Choice:
    """The format that calls are asked for, and why it is not what was configured (empty: it is)."""

    format: MediaFormat
    why: str = ""


def media_format(wanted: FormatChoice, version: Version, *, resampler: bool = True) -> Choice:
    """The format for the media of calls on this Asterisk.

    "auto" is 24 kHz, the model's own rate, where the version knows it and `resampler` (codec_resample) is loaded, else
    8 kHz. A wideband format that this version is known not to have would be noise, or a call at half speed (5.10), so
    8 kHz is taken instead.
    """
    if wanted != "slin" and version.known and not version.has(WIDEBAND):
        return Choice(
            MediaFormat.SLIN,
            f"Asterisk {version} knows 8 kHz only on AudioSocket; wideband needs {releases(WIDEBAND)}",
        )
    if wanted != "auto":
        return Choice(MediaFormat(wanted))
    if not version.known:
        return Choice(MediaFormat.SLIN, "it is not known whether this Asterisk can do better")
    if not resampler:
        return Choice(MediaFormat.SLIN, "codec_resample is not loaded, without which Asterisk knows no other rate")
    return Choice(MediaFormat.SLIN24)


@dataclass(frozen=True, slots=True)
class RequestsBy:
    """Which way ARI requests go, by HTTP or on the event websocket, and why."""

    http: bool
    why: str


def requests_by(wanted: RequestsChoice, version: Version, *, answered: bool | None = None) -> RequestsBy | None:
    """The way of requests to this Asterisk.

    None: only a try can tell, since its version does not; come again with whether a request on the websocket was
    `answered`.
    """
    if wanted != "auto":
        return RequestsBy(wanted == "http", f'asterisk.requests = "{wanted}"')
    if version.known:
        takes = version.has(REQUESTS_ON_WEBSOCKET)
        return RequestsBy(not takes, f"Asterisk {version} takes {'them' if takes else 'none'} on its websocket")
    if answered is None:
        return None
    return RequestsBy(
        not answered, f"Asterisk {version} {'answered' if answered else 'did not answer'} one on its websocket"
    )
