"""What a section of ``dictionaries:`` may say: our names and codes, and what they are called elsewhere."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, FiniteFloat

from edge_agent.driver import Settings

RESERVED = frozenset(("n", "seq", "at_ns", "mono_ns", "synced", "dictionary", "unmapped"))
"""Keys that every record of a message has, or that a dictionary adds: no field may be called so."""


def _free(name: str) -> str:
    if name in RESERVED:
        raise ValueError(f"{name!r} is a key that every record has; choose another name")
    return name


FieldName = Annotated[str, Field(min_length=1, max_length=64), AfterValidator(_free)]


def _told_apart(fields: dict[str, Any]) -> dict[str, Any]:
    theirs = list(fields.values())
    twice = next((name for name in theirs if theirs.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"two fields become {twice!r}; give each a name of its own")
    return fields


class CharacteristicName(Settings):
    """What a collected value is called elsewhere, in which unit and how it is written."""

    name: str = Field(min_length=1, max_length=128, description="its name there, e.g. F_MAX")
    unit: str | None = Field(default=None, description="its unit there, e.g. N; default: as here")
    scale: FiniteFloat = Field(default=1.0, description="what is here, times this, is there; e.g. 1000 for kN to N")
    decimals: int | None = Field(default=None, ge=0, le=15, description="written as text with so many decimals")
    decimal_sign: Literal[".", ","] = Field(default=".", description="of a value that is written as text")


class DictionarySettings(Settings):
    """One dictionary: what a destination calls our names, codes and units."""

    version: str = Field(min_length=1, max_length=32, description="goes out with each record, e.g. 2026-03")
    codes: dict[str, Annotated[dict[str, str | int], Field(min_length=1)]] = Field(
        default={}, description="field of a record -> our value -> theirs, e.g. {result: {Passed: OK, Failed: NG}}"
    )
    characteristics: dict[str, CharacteristicName] = Field(default={}, description="our characteristic -> theirs")
    fields: Annotated[dict[str, FieldName], AfterValidator(_told_apart)] = Field(
        default={}, description="key of a record's body -> what it is called there, e.g. {serial: SerialNo}"
    )
    unmapped: Literal["refuse", "mark"] = Field(
        default="refuse",
        description="a code that is not listed: refuse (a dead letter, to be retried), or mark (goes out, marked)",
    )
