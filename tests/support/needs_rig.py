"""Stations that need something for a unit: plans for the binder's bench, labels that say what they are.

``R:lot/package/part number/quantity/expiry`` is a reel, ``C:serial/part number`` a component, both on ``desk``.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from edge_agent.binding.needs import Component, Material, Needs
from edge_agent.binding.plan import Plan, Station
from edge_agent.binding.seen import Reads
from edge_agent.model import Kind
from support import binding_rig as bench
from support.binding_rig import Rig

REEL = re.compile(
    r"R:(?P<lot>\w+)?(?:/(?P<package>\w+)?)?(?:/(?P<part_number>[\w-]+)?)?(?:/(?P<quantity>[\w.-]+)?)?"
    r"(?:/(?P<expiry>[\d-]+)?)?(?:/(?P<supplier>\w+)?)?"
)
CHILD = re.compile(r"C:(?P<serial>\w+)(?:/(?P<part_number>[\w-]+)?)?(?:/(?P<lot>\w+))?")
UNIT = re.compile(r"(?P<serial>SN\d+)(?:/(?P<part_number>[\w-]+))?")
PRESS = bench.position(result=None)
HAND = bench.position(end=None, collect=(), result=None, claims={})
BENCH = replace(bench.FORCE, tag=bench.tag("press.temp"))


def material(name: str = "solder", scanner: str = "desk", **changes: Any) -> Material:
    """A material whose labels are reels."""
    reads = tuple(Reads(scanner, REEL, frozenset(), kind) for kind in ("lot", "package"))
    return Material(name, reads, **changes)


def component(name: str = "pcb", scanner: str = "desk", positions: tuple[int, ...] = (1,), **changes: Any) -> Component:
    """A component, with the same scanner at each of the positions."""
    return Component(name, dict.fromkeys(positions, Reads(scanner, CHILD, frozenset())), **changes)


def hand(needs: Needs, **changes: Any) -> Station:
    """A station where only scans delimit: they take effect at once."""
    return bench.station(changes.pop("place", HAND), needs=needs, **{"pattern": UNIT, "bounce_s": 0.0} | changes)


def press(needs: Needs, **changes: Any) -> Station:
    """A station where a PLC ends the cycles: scans wait for its tag."""
    return bench.station(changes.pop("place", PRESS), needs=needs, **{"pattern": UNIT, "bounce_s": 0.0} | changes)


def rig(*stations: Station) -> Rig:
    """A binder with these stations."""
    return Rig(line(*stations))


def line(*stations: Station) -> Plan:
    """The plan of a line of these stations."""
    return bench.plan(*stations)


def finding(one: Rig, code: str) -> dict[str, Any]:
    """The one finding of this code; its evidence stands in the log before it."""
    (found,) = [
        (seq, body) for seq, record, body in one.records if record.kind is Kind.FINDING and body["code"] == code
    ]
    seq, body = found
    assert body["evidence"], f"{code} has no evidence"
    assert all(0 < shown < seq for shown in body["evidence"])
    return body
