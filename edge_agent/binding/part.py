"""A part of a station: something that it does beside its cycles.

Materials, components, carriers, operators' commands, the gate: each is a part, in a module of its own. The station
calls the hooks below, the same for all, in the order in which its parts were made (:mod:`edge_agent.binding.parts`);
every hook does nothing by default. A part changes nothing but its own state, the draft, and what it is handed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edge_agent.binding.draft import Draft
from edge_agent.binding.plan import Characteristic, TagRef
from edge_agent.binding.seen import Seen
from edge_agent.binding.trigger import device_of
from edge_agent.model import Instant, Sample

if TYPE_CHECKING:
    from edge_agent.binding.cycle import Cycle
    from edge_agent.binding.judge import Judgement
    from edge_agent.binding.position import PositionLife
    from edge_agent.binding.state import KnownCycle
    from edge_agent.binding.units import Unit


@dataclass(frozen=True, slots=True)
class ScanAt:
    """A scan that a part takes: where, when, and the seq of its record, which is the evidence."""

    device: str
    at: Instant
    seq: int


class Part:
    """See the module docstring. The hooks, in the order of a cycle's life."""

    def watched(self) -> set[str]:
        """Every "device.group" whose samples ``observe`` wants."""
        return set()

    def delimiting(self) -> list[TagRef]:
        """The tags that delimit the station's cycles: their silence is a gap of all of them."""
        return []

    def blinding(self) -> set[str]:
        """The devices without which nobody sees another unit take this one's place."""
        return {device_of(tag.group) for tag in self.delimiting()}

    def scanners(self) -> set[str]:
        """Every device whose scans may concern this part."""
        return set()

    def match(self, device: str, seen: Seen) -> dict[str, str] | None:
        """The identifiers, if this scan is meant for this part. The first part that matches takes the scan."""
        return None

    def scanned(self, found: dict[str, str], scan: ScanAt, draft: Draft) -> None:
        """Take a scan that matched; its record is in the draft already."""

    def observe(self, sample: Sample, seq: int, draft: Draft) -> None:
        """Take a sample of a watched group, before the triggers do."""

    def settled(self, sample: Sample, seq: int, draft: Draft) -> None:
        """Take any sample that the station watches, after the triggers did: ends that it shows are settled."""

    def opened(self, life: PositionLife, cycle: Cycle, draft: Draft) -> None:
        """A cycle opened; its first binding is said."""

    def rebound(self, life: PositionLife, cycle: Cycle, draft: Draft) -> None:
        """The binding of the open cycle changed: in doubt, resumed, or corrected."""

    def collect(self, cycle: Cycle, collect: Sequence[Characteristic]) -> Sequence[Characteristic]:
        """What is collected of a closing cycle, and against which limits: as the parts before say, or otherwise."""
        return collect

    def rescanned(self, life: PositionLife, cycle: Cycle, draft: Draft) -> None:
        """The label of the open cycle's unit was read at its position once more (a bounce does not come here)."""

    def interrupted(self, life: PositionLife, cycle: Cycle, draft: Draft) -> None:
        """Nobody watched for a while: the unit of the open cycle may be another one."""

    def objections(self, life: PositionLife, unit: Unit, draft: Draft) -> list[tuple[str, str]]:
        """What this part has against the unit's entering, for the gate: (key of ``gate.CODES``, sentence)."""
        return []

    def closing(self, life: PositionLife, cycle: Cycle, judgement: Judgement, draft: Draft) -> None:
        """Just before ``cycle_closed``: may add to what is missing, suspect or consumed, and change the result."""

    def closed(self, life: PositionLife, cycle: Cycle, draft: Draft) -> None:
        """Just after ``cycle_closed``; the position is free."""

    def named(self, life: PositionLife, cycle: Cycle, draft: Draft) -> None:
        """A late scan named the unit of a closed cycle."""

    def decided(self, known: KnownCycle, serial: str | None, draft: Draft) -> None:
        """A person said that this closed cycle, ``known`` as it was bound before, is ``serial``'s, or nobody's."""

    def gap(self, device: str, since: Instant, draft: Draft) -> None:
        """``device`` was not observed from ``since`` until ``draft.at``."""

    def device_opened(self, device: str, draft: Draft) -> None:
        """``device`` was (re)connected and can be written."""

    def start(self, draft: Draft) -> None:
        """The agent starts: nothing was observed since the last log ended."""

    def tick(self, draft: Draft) -> None:
        """Time passes; about four times a second."""

    def stop(self, draft: Draft) -> None:
        """The agent stops in order: what must not stay written is taken back."""

    def snapshot(self) -> dict[str, Any]:
        """What ``status`` shows of this part, merged into the station's."""
        return {}
