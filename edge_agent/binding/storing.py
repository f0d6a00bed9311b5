"""What of a group's samples is stored: ``store:`` of its tags, evaluated sample by sample. The hot path.

A sample is stored whole or not at all. It is stored if any of its tags asks for it: ``always``; ``cycle`` while a
cycle that claims the group is open (interrupted ones too: whether its readings count may be settled later); a change
beyond the deadband against what was *stored* last, so that a slow drift cannot hide; a heartbeat that fell due. The
first sample in a cycle is stored in any case, or a cycle of unchanged values would show no reading.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from edge_agent.binding.plan import StorePolicy
from edge_agent.model import Kind, Record, Sample, Value

if TYPE_CHECKING:
    from edge_agent.binding.cycle import Cycle
    from edge_agent.binding.station import StationLife


class GroupStore:
    """One group: its policy, what was stored last, the open cycles that claim it, the stations that watch it."""

    __slots__ = (
        "_always", "_cycle", "_deadbands", "_heartbeat_ns", "_last", "_last_mono_ns", "_last_picked", "_last_status",
        "_pick", "claimants", "source", "watchers",
    )  # fmt: skip

    def __init__(self, policy: StorePolicy) -> None:
        self.source = policy.tagset.source
        self.claimants: list[Cycle] = []
        self.watchers: list[StationLife] = []
        self._always = policy.always
        self._cycle = policy.cycle
        self._deadbands = policy.deadbands
        self._heartbeat_ns = None if policy.heartbeat_s is None else int(policy.heartbeat_s * 1e9)
        whole = len(policy.exact) == len(policy.tagset.tags)
        self._pick = None if whole or not policy.exact else itemgetter(*policy.exact)
        self._last: tuple[Value, ...] | None = None
        self._last_picked: Any = None
        self._last_status: Any = None
        self._last_mono_ns = 0

    def wants(self, sample: Sample) -> bool:
        """True if the policy asks for this sample."""
        if self._always or (self._cycle and self.claimants):
            return True
        if self.changed(sample):
            return True
        if self._heartbeat_ns is not None and sample.at.mono_ns - self._last_mono_ns >= self._heartbeat_ns:
            return True
        return any(not cycle.suspended and self.source not in cycle.windows for cycle in self.claimants)

    def changed(self, sample: Sample) -> bool:
        """True if some value differs from the stored one by its deadband or more, or is newly (not) good."""
        last, values = self._last, sample.values
        if last is None or sample.status != self._last_status:
            return True
        if self._deadbands:
            for index, band in self._deadbands:
                old, new = last[index], values[index]
                if isinstance(old, (int, float)) and isinstance(new, (int, float)):
                    if abs(new - old) >= band:
                        return True
                elif old != new and _differs(old, new, band):
                    return True
            return self._pick is not None and self._pick(values) != self._last_picked
        return values != last if self._pick is None else self._pick(values) != self._last_picked

    def record(self, sample: Sample, cycles: tuple[str, ...], counted: Sequence[Mapping[str, Any]] = ()) -> Record:
        """The sample's record; it becomes what the next one is compared with. ``cycles``: whose windows it extends.

        ``counted``: the counters of results without a cycle.
        """
        self._last = values = sample.values
        self._last_status = sample.status
        self._last_mono_ns = sample.at.mono_ns
        if self._pick is not None:
            self._last_picked = self._pick(values)
        body = _body(sample)
        if counted:
            body["counted"] = list(counted)
        return Record(Kind.SAMPLE, self.source, sample.at, body, cycles)

    def past(self, sample: Sample) -> Record:
        """The record of a sample from the device's own memory: of no cycle, and nothing is compared with it."""
        return Record(Kind.SAMPLE, self.source, sample.at, _body(sample) | {"history": True})


def _differs(old: Value, new: Value, band: float) -> bool:
    """By the deadband or more; an array if any of its elements does."""
    if isinstance(old, (int, float)) and isinstance(new, (int, float)):
        return abs(new - old) >= band
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return any(_differs(was, now, band) for was, now in zip(old, new, strict=True))
    return old != new


def _body(sample: Sample) -> dict[str, Any]:
    body: dict[str, Any] = {
        "tagset": sample.tagset.id,
        "took_us": (sample.at.mono_ns - sample.started_mono_ns) // 1000,
        "values": sample.values,
    }
    if sample.status:
        body["status"] = {str(index): reason for index, reason in sample.status.items()}
    if sample.source_ns:
        body["source_ns"] = {str(index): str(at_ns) for index, at_ns in sample.source_ns.items()}
    if sample.server_ns:
        body["server_ns"] = {str(index): str(at_ns) for index, at_ns in sample.server_ns.items()}
    return body
