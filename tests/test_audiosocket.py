"""AudioSocket frames: literal bytes, any split, and every way in which a peer can be wrong."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.audiosocket import (
    DIGITS,
    KIND_OF_RATE,
    MAX_PAYLOAD_BYTES,
    RATE_HZ_OF_KIND,
    Frame,
    FrameDecoder,
    Kind,
    encode,
)
from bridge.errors import MediaProtocolError

UUID_FRAME = Frame(Kind.UUID, bytes(range(16)))
UUID_BYTES = b"\x01\x00\x10" + bytes(range(16))

free_kinds = st.sampled_from([Kind.HANGUP, Kind.ERROR, *RATE_HZ_OF_KIND])
frames = st.lists(
    st.one_of(
        st.builds(Frame, free_kinds, st.binary(max_size=700)),
        st.builds(Frame, st.just(Kind.DTMF), st.sampled_from(sorted(DIGITS)).map(str.encode)),
    ),
    max_size=12,
)


def decode(decoder: FrameDecoder, data: bytes = b"") -> list[Frame]:
    decoder.receive_data(data)
    return list(iter(decoder.next_frame, None))


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[start:end] for start, end in pairwise(edges)]


def test_the_bytes_of_asterisk() -> None:
    decoder = FrameDecoder()
    wire = UUID_BYTES + b"\x12\x02\x80" + b"\x34\x12" * 320 + b"\x03\x00\x01#" + b"\x00\x00\x00"
    assert decode(decoder, wire) == [
        UUID_FRAME,
        Frame(Kind.SLIN16, b"\x34\x12" * 320),
        Frame(Kind.DTMF, b"#"),
        Frame(Kind.HANGUP, b""),
    ]


def test_encode_gives_one_piece_with_a_big_endian_length() -> None:
    assert encode(Kind.HANGUP) == b"\x00\x00\x00"
    assert encode(Kind.SLIN24, bytes(960)) == b"\x13\x03\xc0" + bytes(960)
    assert encode(*(UUID_FRAME.kind, UUID_FRAME.payload)) == UUID_BYTES


def test_every_length_that_the_field_can_hold() -> None:
    for length in (0, 1, 255, 256, 65534, MAX_PAYLOAD_BYTES):
        decoder = FrameDecoder(identified=True)
        assert decode(decoder, encode(Kind.SLIN, bytes(length))) == [Frame(Kind.SLIN, bytes(length))]
    with pytest.raises(ValueError, match="65535"):
        encode(Kind.SLIN, bytes(MAX_PAYLOAD_BYTES + 1))


def test_rates_and_kinds_match_both_ways() -> None:
    assert KIND_OF_RATE[8000] is Kind.SLIN
    assert KIND_OF_RATE[16000] is Kind.SLIN16
    assert KIND_OF_RATE[24000] is Kind.SLIN24
    assert all(RATE_HZ_OF_KIND[KIND_OF_RATE[rate_hz]] == rate_hz for rate_hz in KIND_OF_RATE)
    assert len(KIND_OF_RATE) == 9


@settings(deadline=None)  # a busy machine is no failure
@given(frames, st.lists(st.integers(0, 10_000), max_size=30))
def test_any_split_gives_the_same_frames(sent: list[Frame], cuts: list[int]) -> None:
    decoder = FrameDecoder()
    wire = b"".join(encode(frame.kind, frame.payload) for frame in [UUID_FRAME, *sent])
    got = [frame for piece in split(wire, cuts) for frame in decode(decoder, piece)]
    assert got == [UUID_FRAME, *sent]
    assert decoder.buffered_bytes == 0


def test_byte_by_byte() -> None:
    decoder = FrameDecoder()
    wire = UUID_BYTES + encode(Kind.SLIN, b"abcd")
    got = [frame for byte in wire for frame in decode(decoder, bytes([byte]))]
    assert got == [UUID_FRAME, Frame(Kind.SLIN, b"abcd")]


@settings(deadline=None)  # a busy machine is no failure
@given(st.lists(st.binary(max_size=200), max_size=10), st.booleans())
def test_garbage_raises_nothing_but_our_error(pieces: list[bytes], identified: bool) -> None:
    decoder = FrameDecoder(identified=identified)
    for piece in pieces:
        decoder.receive_data(piece)
        try:
            for _ in range(len(piece) + 1):
                if decoder.next_frame() is None:
                    break
            else:
                raise AssertionError("more frames than bytes")
        except MediaProtocolError:
            pass


@pytest.mark.parametrize(
    ("wire", "message"),
    [
        (b"\x10\x01\x40", "first frame is SLIN"),
        (b"\x00\x00\x00", "first frame is HANGUP"),
        (b"GET / HTTP/1.1", "unknown AudioSocket frame kind 0x47"),
        (b"\x01\x00\x0f", "15 bytes instead of 16"),
        (b"\x01\xff\xff", "65535 bytes instead of 16"),
        (UUID_BYTES + UUID_BYTES, "identified already"),
        (UUID_BYTES + b"\x02\x00\x00", "unknown AudioSocket frame kind 0x02"),
        (UUID_BYTES + b"\x19\x00\x00", "unknown AudioSocket frame kind 0x19"),
        (UUID_BYTES + b"\x03\x00\x00", "0 bytes instead of 1"),
        (UUID_BYTES + b"\x03\x00\x02", "2 bytes instead of 1"),
        (UUID_BYTES + b"\x03\x00\x01E", "no digit"),
        (UUID_BYTES + b"\x03\x00\x01a", "no digit"),
        (UUID_BYTES + b"\x03\x00\x01\xff", "no digit"),
    ],
)
def test_a_wrong_peer_is_found_at_the_header_and_for_good(wire: bytes, message: str) -> None:
    decoder = FrameDecoder()
    with pytest.raises(MediaProtocolError, match=message):
        decode(decoder, wire)
    for _ in range(2):
        with pytest.raises(MediaProtocolError, match=message):
            decode(decoder, encode(Kind.SLIN, bytes(320)))


def test_what_comes_before_the_error_is_given_first() -> None:
    decoder = FrameDecoder()
    decoder.receive_data(UUID_BYTES + encode(Kind.SLIN, b"ab") + b"\x77\x00\x00")
    assert decoder.next_frame() == UUID_FRAME
    assert decoder.next_frame() == Frame(Kind.SLIN, b"ab")
    with pytest.raises(MediaProtocolError, match="0x77"):
        decoder.next_frame()


def test_no_uuid_flows_from_the_bridge_to_asterisk() -> None:
    decoder = FrameDecoder(identified=True)
    assert decode(decoder, encode(Kind.SLIN, b"ab")) == [Frame(Kind.SLIN, b"ab")]
    with pytest.raises(MediaProtocolError, match="identified already"):
        decode(decoder, UUID_BYTES)


def test_a_long_backlog_is_not_copied_again_and_again() -> None:
    # 20 MB read in pieces that never end at a frame's end: quadratic copying would take minutes.
    decoder = FrameDecoder(identified=True)
    wire = encode(Kind.SLIN24, bytes(960)) * 20_000
    count = sum(len(decode(decoder, wire[at : at + 65_536])) for at in range(0, len(wire), 65_536))
    assert count == 20_000
