"""What a SIP telephone says and waits for, as scenarios for sipp: of one that is called, and of one that calls.

A scenario is put together from steps instead of lying in a file for each behaviour: they differ in a few lines, and sipp
has no way to share the others. `[words]` in brackets are sipp's own, filled in when it sends.
"""

from __future__ import annotations

from dataclasses import dataclass

# Asterisk gives up an INVITE without any answer after 32 s; nothing here waits longer.
FOR_EVER_S = 40.0
# What Asterisk may say to a caller instead of 200.
REFUSALS = (302, 403, 404, 480, 486, 487, 503, 603)

_DIALOG = "[last_Via:]\n[last_From:]\n[last_To:]{tag}\n[last_Call-ID:]\n[last_CSeq:]"
_CONTACT = "Contact: <sip:[contact]@[local_ip]:[local_port]>"
_TAG = ";tag=[pid]-[call_number]"
_SDP = """\
v=0
o=sipp 1 1 IN IP4 [local_ip]
s=-
c=IN IP4 [local_ip]
t=0 0
m=audio [rtp_port] RTP/AVP 0 101
a=rtpmap:0 PCMU/8000
a=rtpmap:101 telephone-event/8000
a=fmtp:101 0-16
a=ptime:20"""


@dataclass(frozen=True)
class Scenario:
    """The XML that sipp carries out; empty: not even sipp, nobody answers."""

    name: str
    steps: str

    def xml(self) -> str:
        head = '<?xml version="1.0" encoding="ISO-8859-1" ?>'
        return f'{head}\n<scenario name="{self.name}">\n{self.steps}\n</scenario>\n'


def _send(text: str, *, sdp: bool = False, again: bool = False, then: str = "") -> str:
    body = f"Content-Type: application/sdp\nContent-Length: [len]\n\n{_SDP}" if sdp else "Content-Length: [len]\n\n"
    attributes = (' retrans="500"' if again else "") + (f' next="{then}"' if then else "")
    return f"<send{attributes}><![CDATA[\n{text}\n{body}\n]]></send>"


def _reply(status: str, *, sdp: bool = False, in_dialog: bool = False, then: str = "", headers: str = "") -> str:
    """An answer to what came last; in a dialog its To has our tag already."""
    dialog = _DIALOG.format(tag="" if in_dialog else _TAG)
    text = f"SIP/2.0 {status}\n{dialog}\n{_CONTACT}{headers}"
    return _send(text, sdp=sdp, again=sdp and status.startswith("2"), then=then)


def _wait(request: str, then: str, s: float = FOR_EVER_S, or_else: str = "end", *, optional: bool = False) -> str:
    """`optional`: or what the next step waits for, whose time is this one's: sipp looks at the first of them only."""
    maybe = ' optional="true"' if optional else ""
    return f'<recv request="{request}" timeout="{round(s * 1000)}" ontimeout="{or_else}" next="{then}"{maybe}/>'


def _label(name: str) -> str:
    return f'<label id="{name}"/>'


# One that is called

_CALLED = """\
<recv request="INVITE" rrs="true"><action>
<ereg regexp=".*" search_in="hdr" header="From:" assign_to="caller"/>
<ereg regexp=".*" search_in="hdr" header="To:" assign_to="self"/>
<ereg regexp=".*" search_in="hdr" header="CSeq:" assign_to="invite_cseq"/>
</action></recv>
<Reference variables="caller,self,invite_cseq"/>"""
# Requests of the called one go from what was To, to what was From.
_OWN_REQUEST = (
    """\
{method} [next_url] SIP/2.0
Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]
From:[$self]"""
    + _TAG
    + """
To:[$caller]
Call-ID: [call_id]
CSeq: {cseq} {method}
Contact: <sip:[contact]@[local_ip]:[local_port]>
Max-Forwards: 70{headers}"""
)


def _own_request(method: str, cseq: int, headers: str = "") -> str:
    return _send(_OWN_REQUEST.format(method=method, cseq=cseq, headers=headers), again=True)


def _refuse(status: str) -> str:
    """The last answer to the INVITE, also when a CANCEL came after that: its CSeq is not what came last."""
    dialog = _DIALOG.format(tag=_TAG).replace("[last_CSeq:]", "CSeq:[$invite_cseq]")
    return _send(f"SIP/2.0 {status}\n{dialog}", again=True) + '\n<recv request="ACK" next="end"/>'


def _cancelled() -> str:
    return "\n".join([_label("cancelled"), _reply("200 OK"), _refuse("487 Request Terminated"), _label("end")])


def answers(
    ring_s: float = 0.2, *, stays_s: float = FOR_EVER_S, early_media: bool = False, refers_to: str = ""
) -> Scenario:
    """Rings, answers, and hangs up after `stays_s` unless that was done to it. `early_media`: it speaks and hears while it
    rings (183). `refers_to`: a SIP URI to which it transfers the other side (REFER) after `stays_s`, and then hangs up."""
    hanging_up = [_own_request("BYE", 9), '<recv response="200" next="end"/>']
    # Asterisk tells by NOTIFY how it went; the one who referred then hangs up, as telephones do.
    referring = [
        _own_request("REFER", 2, f"\nRefer-To: <{refers_to}>\nReferred-By:[$self]"),
        '<recv response="202"/>',
        _label("notified"),
        _wait("NOTIFY", "notify", 0.3, or_else="over", optional=True),
        _wait("BYE", "bye"),
        _label("notify"),
        _reply("200 OK", in_dialog=True, then="notified"),
        _label("over"),
    ]
    return Scenario(
        "answers",
        "\n".join(
            [
                _CALLED,
                _reply("183 Session Progress", sdp=True) if early_media else _reply("180 Ringing"),
                _wait("CANCEL", "cancelled", ring_s, or_else="answer"),
                _label("answer"),
                _reply("200 OK", sdp=True),
                '<recv request="ACK"/>',
                _wait("BYE", "bye", stays_s, or_else="leave"),
                _label("leave"),
                *(referring if refers_to else []),
                *hanging_up,
                _label("bye"),
                _reply("200 OK", in_dialog=True, then="end"),
                _cancelled(),
            ]
        ),
    )


def refuses(status: str = "486 Busy Here", ring_s: float = 0.0) -> Scenario:
    """Rings for so long, or not at all, and does not take the call: 486, 603 Decline, 403 Forbidden, 480 ..."""
    ringing = [_reply("180 Ringing"), _wait("CANCEL", "cancelled", ring_s, or_else="refuse")] if ring_s else []
    return Scenario("refuses", "\n".join([_CALLED, *ringing, _label("refuse"), _refuse(status), _cancelled()]))


def rings() -> Scenario:
    """Rings until the caller gives up."""
    return Scenario("rings", "\n".join([_CALLED, _reply("180 Ringing"), _wait("CANCEL", "cancelled"), _cancelled()]))


def never_replies() -> Scenario:
    """Its network swallows everything: no answer at all, not even to CANCEL."""
    return Scenario("never replies", "")


# One that calls

_CALL = (
    """\
{method} {to} SIP/2.0
Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]
From: "Sipp" <sip:[contact]@[local_ip]:[local_port]>"""
    + _TAG
    + """
To: <sip:[service]@[remote_ip]:[remote_port]>{tag}
Call-ID: [call_id]
CSeq: {cseq} {method}
Contact: <sip:[contact]@[local_ip]:[local_port]>
Max-Forwards: 70{headers}"""
)


def _own(method: str, cseq: int, *, sdp: bool = False, again: bool = True, headers: str = "", then: str = "") -> str:
    first = method == "INVITE"
    to = "sip:[service]@[remote_ip]:[remote_port]" if first else "[next_url]"
    text = _CALL.format(method=method, to=to, cseq=cseq, tag="" if first else "[peer_tag_param]", headers=headers)
    return _send(text, sdp=sdp, again=again, then=then)


def _notify(cseq: int, status: str, *, over: bool) -> str:
    """How the REFER goes, as the message/sipfrag of RFC 3515."""
    state = "terminated;reason=noresource" if over else "active;expires=60"
    headers = f"\nEvent: refer\nSubscription-State: {state}\nContent-Type: message/sipfrag;version=2.0"
    notify = _own("NOTIFY", cseq, headers=headers)
    return notify.replace("[len]\n\n\n", f"[len]\n\nSIP/2.0 {status}\n") + '\n<recv response="200"/>'


def calls(
    *, referred: str = "200 OK", answered_after_s: float = 0.2, stays_s: float = FOR_EVER_S, reason: str = ""
) -> Scenario:
    """Calls, and hangs up after `stays_s` unless that was done to it. Takes a REFER, and after `answered_after_s` tells by
    NOTIFY how its call to the new party ended: `referred`. `603 Decline` refuses the REFER itself. Follows no 302.
    `reason`: the header Reason of its BYE."""
    accepts = not referred.startswith("603")
    refer = [_reply("202 Accepted", in_dialog=True)] if accepts else [_reply(referred, in_dialog=True, then="talk")]
    if accepts:
        refer += [
            _notify(2, "100 Trying", over=False),
            _wait("BYE", "bye", answered_after_s, or_else="referred"),
            _label("referred"),
            _notify(3, referred, over=True),
            '<nop next="talk"/>',
        ]
    return Scenario(
        "calls",
        "\n".join(
            [
                _own("INVITE", 1, sdp=True),
                _label("ringing"),
                '<recv response="100" optional="true" next="ringing"/>',
                '<recv response="180" optional="true" next="ringing"/>',
                '<recv response="183" optional="true" next="ringing"/>',
                *(f'<recv response="{no}" optional="true" next="refused"/>' for no in REFUSALS),
                '<recv response="200" rrs="true"/>',
                _own("ACK", 1, again=False),
                _label("talk"),
                _wait("REFER", "refer", stays_s, or_else="leave", optional=True),
                _wait("BYE", "bye"),
                _label("leave"),
                _own("BYE", 9, headers=f"\nReason: {reason}" if reason else ""),
                '<recv response="200" next="end"/>',
                _label("refer"),
                *refer,
                _label("bye"),
                _reply("200 OK", in_dialog=True, then="end"),
                _label("refused"),
                _own("ACK", 1, again=False, then="end"),
                _label("end"),
            ]
        ),
    )


def holds(after_s: float, for_s: float) -> Scenario:
    """Calls, puts the other side on hold `after_s` later (re-INVITE, sendonly) `for_s` long, and stays until it is hung up
    on."""

    def again(cseq: int, direction: str) -> list[str]:
        text = _CALL.format(method="INVITE", to="[next_url]", cseq=cseq, tag="[peer_tag_param]", headers="")
        invite = _send(text, sdp=True, again=True).replace("a=ptime:20", f"a=ptime:20\na={direction}")
        return [
            invite,
            '<recv response="100" optional="true"/>',
            '<recv response="200"/>',
            _own("ACK", cseq, again=False),
        ]

    return Scenario(
        "holds",
        "\n".join(
            [
                _own("INVITE", 1, sdp=True),
                _label("ringing"),
                '<recv response="100" optional="true" next="ringing"/>',
                '<recv response="180" optional="true" next="ringing"/>',
                '<recv response="183" optional="true" next="ringing"/>',
                '<recv response="200" rrs="true"/>',
                _own("ACK", 1, again=False),
                f'<pause milliseconds="{round(after_s * 1000)}"/>',
                *again(2, "sendonly"),
                f'<pause milliseconds="{round(for_s * 1000)}"/>',
                *again(3, "sendrecv"),
                _wait("BYE", "bye"),
                _label("bye"),
                _reply("200 OK", in_dialog=True, then="end"),
                _label("end"),
            ]
        ),
    )
