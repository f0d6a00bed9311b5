"""Collected values, limits and the result of a cycle.

A value is taken from the read that the cycle's trigger caused, if its tag is in that group; else from the last sample
in the cycle's window. Limits are inclusive. The PLC's verdict, where the station names one, is the result: what the
limits say beside it is judged and reported, and overrules nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from edge_agent.binding.plan import Characteristic, Position, TagRef
from edge_agent.model import Result, Sample, Value


@dataclass(slots=True)
class Judgement:
    """What a cycle came to."""

    result: Result
    collected: list[dict[str, Any]] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)  # required characteristics without a good value
    violated: list[str] = field(default_factory=list)  # outside their limits
    unmapped: Value = None  # a verdict of the PLC that no rule explains
    by_plc: bool = False
    suspect: list[str] = field(default_factory=list)  # why what was collected may not be this unit's
    defects: list[str] = field(default_factory=list)  # defect codes
    materials: list[dict[str, Any]] = field(default_factory=list)  # what was active at the station, as records show it


def judge(
    position: Position, samples: Mapping[str, Sample], collect: Sequence[Characteristic] | None = None
) -> Judgement:
    """Judge a cycle by the newest sample of each group, "device.group" -> sample.

    ``collect``: what is collected instead of what the position says, e.g. with the limits of a part number.
    """
    judgement = Judgement(Result.ERROR)
    for characteristic in position.collect if collect is None else collect:
        item = _collect(characteristic, samples)
        judgement.collected.append(item)
        if item["judgement"] in ("low", "high"):
            judgement.violated.append(characteristic.name)
        elif item["judgement"] in ("missing", "bad") and characteristic.required:
            judgement.missing.append(characteristic.name)
    if position.result is not None:
        verdict, _ = _value(position.result.tag, samples)
        _by_plc(judgement, verdict, position.result.meaning)
    elif judgement.violated:
        judgement.result = Result.FAILED
    elif not judgement.missing:
        judgement.result = Result.PASSED
    return judgement


def _by_plc(judgement: Judgement, verdict: Value, meaning: Mapping[Value, Result]) -> None:
    """The PLC's verdict; Error when it could not be read or is not listed."""
    if verdict is None or isinstance(verdict, list):
        return
    if verdict in meaning:
        judgement.result = meaning[verdict]
        judgement.by_plc = True
    else:
        judgement.unmapped = verdict


def _value(tag: TagRef, samples: Mapping[str, Sample]) -> tuple[Value, bool]:
    """The tag's value, and whether there was a sample to look at."""
    sample = samples.get(tag.group)
    return (None, False) if sample is None else (sample.values[tag.index], True)


def _collect(characteristic: Characteristic, samples: Mapping[str, Sample]) -> dict[str, Any]:
    value, seen = _value(characteristic.tag, samples)
    low, high = characteristic.low, characteristic.high
    if not seen:
        judgement = "missing"
    elif value is None:
        judgement = "bad"
    else:
        judgement = _against(value, low, high)
    item = {"name": characteristic.name, "value": value, "unit": characteristic.tag.unit, "low": low, "high": high}
    if characteristic.limits_from:
        item["limits_from"] = characteristic.limits_from
    return item | {"judgement": judgement}


def _against(value: Value, low: float | None, high: float | None) -> str:
    if low is None and high is None:
        return "unjudged"
    number = _number(value)
    if number is None:
        return "bad"
    if low is not None and number < low:
        return "low"
    return "high" if high is not None and number > high else "ok"


def _number(value: Value) -> float | None:
    """The value as a number; integers beyond 2**53 come as decimal strings."""
    if isinstance(value, (int, float)):
        return value
    if isinstance(value, str) and value.lstrip("-").isdecimal():
        return int(value)
    return None
