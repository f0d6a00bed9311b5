"""Named faults, each a small function. ``python tests/fault/run.py --list`` names them all.

**To add one**: write it into the file of its family (or a new file, named in :data:`FAMILIES`)::

    @scenario(cost_s=12)                                # about how long it takes: long ones start first
    async def broker_killed(rig: Rig) -> None:
        \"""The broker is killed and comes back without its memory.\"""
        async with rig.line() as world:                 # or rig.volume(): see fault/rig.py
            await world.flow(2)
            world.broker.kill()
            await world.backlog(50)                     # the fault must be seen to have happened
            world.broker.start()
            await world.flow(2)

Leaving the block drains, counts and judges: ``lost = duplicates_after_dedup = misbound = 0``, everything accepted
accounted for, and nothing pending, dead or dropped that the scenario does not ``world.expect(...)``. What else must
be so, ``rig.check(condition, "what")`` says. ``rig.chance`` is the seed's random source; use no other.
``rig.kills`` and ``rig.hits`` are counted up by who kills; ``rig.notes["via"] = ...`` is shown behind the figures.
Run it alone with ``python tests/fault/run.py --only broker_killed --keep DIR``: its log is ``DIR/NAME/log``.
"""

from __future__ import annotations

import importlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fault.rig import Rig

FAMILIES = ("kills", "brokers", "receivers", "networks", "disks", "damage", "clocks", "copies", "power")


@dataclass(frozen=True, slots=True)
class Scenario:
    """A function and what the runner must know of it."""

    name: str
    family: str
    run: Callable[[Rig], Awaitable[None]]
    cost_s: float
    own_network: bool  # runs in a network namespace of its own, where that is permitted

    @property
    def title(self) -> str:
        return (self.run.__doc__ or "").strip().partition("\n")[0]


SCENARIOS: dict[str, Scenario] = {}


def scenario(
    *, cost_s: float, own_network: bool = False
) -> Callable[[Callable[[Rig], Awaitable[None]]], Callable[[Rig], Awaitable[None]]]:
    """Enter a function under its name."""

    def enter(function: Callable[[Rig], Awaitable[None]]) -> Callable[[Rig], Awaitable[None]]:
        name, family = function.__name__, function.__module__.rpartition(".")[2]
        assert name not in SCENARIOS, f"two scenarios are named {name}"
        SCENARIOS[name] = Scenario(name, family, function, cost_s, own_network)
        return function

    return enter


def load() -> dict[str, Scenario]:
    """Every scenario of every family, by name."""
    for family in FAMILIES:
        importlib.import_module(f"fault.scenarios.{family}")
    return SCENARIOS
