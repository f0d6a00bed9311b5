"""The kernel's marks of damaged characters: cut out at their place, in whatever pieces they come."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from edge_agent_drivers.stream.marks import Marks

DAMAGED = None
CHARACTERS = st.lists(st.one_of(st.integers(0, 255), st.just(0xFF), st.none()), max_size=40)


def marked(characters: list[int | None]) -> bytes:
    """As the kernel writes them: FF doubled, a damaged one as FF 00 and itself."""
    return b"".join(b"\xff\x00A" if it is DAMAGED else b"\xff\xff" if it == 0xFF else bytes([it]) for it in characters)


def read(data: bytes, cuts: list[int]) -> list[int | None]:
    places = sorted({0, len(data), *(cut for cut in cuts if cut <= len(data))})
    marks = Marks()
    found: list[int | None] = []
    for begin, end in pairwise(places):
        for part in marks.feed(data[begin:end]):
            found += [DAMAGED] if part is None else list(part)
    return found


def once(characters: list[int | None]) -> list[int | None]:
    """Damaged ones in a row told once."""
    return [it for at, it in enumerate(characters) if it is not DAMAGED or at == 0 or characters[at - 1] is not DAMAGED]


@given(characters=CHARACTERS, cuts=st.lists(st.integers(0, 120)))
def test_good_characters_come_through_and_damaged_ones_are_told_at_their_place(
    characters: list[int | None], cuts: list[int]
) -> None:
    assert once(read(marked(characters), cuts)) == once(characters)


def test_a_damaged_character_is_never_part_of_what_is_read() -> None:
    assert Marks().feed(b"SN1\xff\x002\r") == [b"SN1", None, b"\r"]
    assert Marks().feed(b"\xff\x00\x00SN1") == [None, b"SN1"]  # a break


@given(st.lists(st.binary(max_size=10), max_size=10))
def test_anything_else_is_read_without_failing_and_little_is_held(chunks: list[bytes]) -> None:
    marks = Marks()
    for chunk in chunks:
        marks.feed(chunk)
        assert len(marks._held) <= 2
