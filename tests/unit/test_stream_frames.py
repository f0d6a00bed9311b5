"""The framing of a serial reader's bytes, tried byte by byte and in any chunks."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent_drivers.stream.frames import DOUBTED_GAPS, Frame, Framer


def fed(framer: Framer, data: bytes, size: int = 1) -> list[Frame]:
    """The frames of ``data``, fed in pieces of ``size`` bytes."""
    return [frame for at in range(0, len(data), size) for frame in framer.feed(data[at : at + size])]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_a_terminator_ends_a_code_in_whatever_pieces_it_comes(size: int) -> None:
    frames = fed(Framer(b"\r\n"), b"SN1\r\nSN2\r\n\r\nSN\r3\r\nrest", size)
    assert frames == [Frame(b"SN1"), Frame(b"SN2"), Frame(b"SN\r3")]


def test_a_start_is_taken_off_and_noise_before_it_dropped() -> None:
    frames = fed(Framer(b"\x03", b"\x02"), b"noise\x02SN1\x03\x02SN2\x03no start\x03\x02\x03")
    assert frames == [Frame(b"SN1"), Frame(b"SN2"), Frame(b"no start", garbage=True)]


def test_without_a_terminator_the_gap_ends_a_code() -> None:
    framer = Framer(None)
    assert framer.feed(b"SN1") == []
    assert framer.pending
    assert framer.gap() == [Frame(b"SN1")]
    assert not framer.pending
    assert framer.gap() == []


def test_half_a_code_before_a_gap_never_joins_the_next() -> None:
    framer = Framer(b"\r")
    assert framer.feed(b"SN1\rSN0000") == [Frame(b"SN1")]
    assert framer.gap() == [Frame(b"SN0000", garbage=True)]
    for _ in range(DOUBTED_GAPS):
        assert framer.pending
        assert framer.gap() == []
    assert not framer.pending
    assert framer.feed(b"SN2\r") == [Frame(b"SN2")]


def test_the_late_rest_of_a_code_that_a_gap_cut_off_is_no_code() -> None:
    framer = Framer(b"\r\n")
    assert framer.feed(b"12345") == []
    assert framer.gap() == [Frame(b"12345", garbage=True)]
    assert framer.gap() == []
    assert framer.feed(b"678\r\n90\r\n") == [Frame(b"678", garbage=True), Frame(b"90")]
    marked = Framer(b"\r", b"\x02")
    marked.feed(b"\x0212345")
    assert marked.gap() == [Frame(b"\x0212345", garbage=True)]
    assert marked.feed(b"\x0290\r") == [Frame(b"90")]  # where it begins is seen


def test_half_a_code_of_a_lost_connection_is_forgotten() -> None:
    framer = Framer(b"\r")
    framer.feed(b"SN0000")
    framer.reset()
    assert not framer.pending
    assert framer.feed(b"SN2\r") == [Frame(b"SN2")]


@pytest.mark.parametrize("size", [1, 16, 17, 4096])
@pytest.mark.parametrize("end", [b"\r\n", None])
def test_a_line_of_a_megabyte_is_one_garbage_and_holds_little(size: int, end: bytes | None) -> None:
    framer = Framer(end, max_length=16)
    frames: list[Frame] = []
    for _ in range(1_000_000 // size // (50 if size == 1 else 1)):
        frames += framer.feed(b"x" * size)
        assert len(framer._held) <= 16 + 2
    assert frames == [Frame(b"x" * 16, garbage=True)]
    assert framer.feed(b"\r\nSN1\r\n") == ([Frame(b"SN1")] if end else [])
    assert framer.gap() == []
    assert framer.feed(b"SN2\r\n") + framer.gap() == [Frame(b"SN2" if end else b"SN2\r\n")]


def test_a_code_of_exactly_the_maximum_length_is_a_code() -> None:
    framer = Framer(b"\r\n", max_length=16)
    assert fed(framer, b"x" * 16 + b"\r\n" + b"y" * 17 + b"\r\n") == [Frame(b"x" * 16), Frame(b"y" * 16, garbage=True)]


def test_joining_in_mid_stream_swallows_up_to_the_next_terminator() -> None:
    framer = Framer(b"\r\n")
    framer.swallow()
    assert fed(framer, b"tail of a code\r\nSN1\r\n") == [Frame(b"SN1")]
    framer.swallow()
    assert framer.gap() == []
    assert fed(framer, b"SN1\r\nSN2\r\n") == [Frame(b"SN1", garbage=True), Frame(b"SN2")]


ALPHABET = st.binary(max_size=60) | st.text("\x02A\r\n", max_size=60).map(str.encode)


@given(data=ALPHABET, cuts=st.lists(st.integers(0, 60)), start=st.sampled_from([b"", b"\x02", b"AA"]))
def test_how_the_bytes_are_cut_makes_no_difference(data: bytes, cuts: list[int], start: bytes) -> None:
    places = sorted({0, len(data), *(cut for cut in cuts if cut <= len(data))})
    framer, frames = Framer(b"\r\n", start, max_length=16), []
    for begin, end in pairwise(places):
        frames += framer.feed(data[begin:end])
        assert len(framer._held) <= 16 + 2 + len(start)
    whole = Framer(b"\r\n", start, max_length=16)
    expected = whole.feed(data)
    assert frames + framer.gap() == expected + whole.gap()


@given(noise=st.binary(max_size=200), end=st.sampled_from([b"\r", b"\r\n", b"\x03"]))
def test_whatever_comes_before_the_codec_is_in_step_after_the_next_terminator(noise: bytes, end: bytes) -> None:
    framer = Framer(end, max_length=16)
    fed(framer, noise + end)
    assert fed(framer, b"SN1" + end) == [Frame(b"SN1")]


@given(codes=st.lists(st.binary(min_size=1, max_size=16).filter(lambda code: b"\r" not in code)))
def test_every_code_comes_out_as_it_was_sent(codes: list[bytes]) -> None:
    assert fed(Framer(b"\r", max_length=16), b"".join(code + b"\r" for code in codes), 3) == [Frame(c) for c in codes]
