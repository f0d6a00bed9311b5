"""A station's context: work order, part number, operator ..., each with its source and since when.

A cycle takes a snapshot when it opens and another when it closes. After an observation gap of its source an item is
*stale*: still shown, since it is the best that is known, but marked until the source speaks again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edge_agent.binding.plan import Context
from edge_agent.binding.seen import Reads, Seen
from edge_agent.identify.patterns import readable
from edge_agent.model import Instant, Sample, Value


@dataclass(slots=True)
class _Item:
    value: Value
    source: str  # device of the scan, or "device.tag"
    since_ns: int
    stale: bool = False


class StationContext:
    """The context of one station, fed by scans and samples."""

    def __init__(self, plan: tuple[Context, ...]) -> None:
        self._plan = plan
        self._items: dict[str, _Item] = {}

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Take over what a cycle knew before a restart, as stale. The newest cycle should come last."""
        names = {context.name for context in self._plan}
        for name, item in snapshot.items():
            if name in names:
                self._items[name] = _Item(item["value"], item["source"], int(item["since_ns"]), stale=True)

    def match(self, device: str, seen: Seen) -> dict[str, str]:
        """The items that a scan on ``device`` would set, name -> value."""
        found: dict[str, str] = {}
        text = seen.text if seen.text is not None and readable(seen.text) else None
        for context in self._plan:
            if context.scanner != device:
                continue
            if context.rules:
                said = Reads(device, None, context.rules, context.name).match(device, seen)
                found |= {context.name: said[context.name]} if said else {}
            elif text is None:
                continue
            elif context.pattern is None:
                found[context.name] = text
            elif match := context.pattern.fullmatch(text):
                found[context.name] = match.groupdict().get(context.name) or match[0]
        return found

    def scanned(self, device: str, found: dict[str, str], at: Instant) -> None:
        """Set what a scan said."""
        for name, value in found.items():
            self._set(name, value, device, at)

    def observe(self, sample: Sample) -> None:
        """Take the values of context tags in this sample. A value that is not good changes nothing."""
        source = sample.tagset.source
        for context in self._plan:
            if context.tag is not None and context.tag.group == source:
                value = sample.values[context.tag.index]
                if value is not None:
                    self._set(context.name, value, context.tag.name, sample.at)

    def gap(self, device: str) -> None:
        """``device`` was not observed: what it said may no longer hold."""
        for item in self._items.values():
            if item.source.partition(".")[0] == device:
                item.stale = True

    def snapshot(self) -> dict[str, dict[str, Any]]:
        """As records show it: name -> {value, source, since_ns, stale?}."""
        return {
            name: {"value": item.value, "source": item.source, "since_ns": str(item.since_ns)}
            | ({"stale": True} if item.stale else {})
            for name, item in self._items.items()
        }

    def _set(self, name: str, value: Value, source: str, at: Instant) -> None:
        item = self._items.get(name)
        if item is not None and item.value == value and item.source == source:
            item.stale = False
        else:
            self._items[name] = _Item(value, source, at.at_ns)
