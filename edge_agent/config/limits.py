"""Limits as the config writes them: ``[low, high]``, inclusive, either may be null."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field, FiniteFloat


def _ordered(limits: list[float | None]) -> list[float | None]:
    low, high = limits
    if low is not None and high is not None and low > high:
        raise ValueError(f"the lower limit {low:g} is above the upper {high:g}; write [low, high]")
    return limits


Limits = Annotated[list[FiniteFloat | None], Field(min_length=2, max_length=2), AfterValidator(_ordered)]
