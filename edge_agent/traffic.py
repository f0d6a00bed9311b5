"""What goes by between a device and its collector: rates, round trips, errors, the newest values, the last scans.

For people only (``status``, ``watch``): the binder and the log know nothing of it. Bounded: one sample a group, the
last 50 scans, the last 256 round trips, a mark a second for ten seconds. Changes of values are noted only while
somebody watches (``WATCHED_S`` after each look), at most 2,000; a watcher who comes too late for some sees so by their
numbers. Taking a sample costs about 0.1 µs, beside the 20 µs and more that it costs to read and record it.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from typing import Any

from edge_agent.model import Instant, Sample, Scan

RATE_S = 10  # rates are of the last so many seconds
TRIPS_KEPT = 256
SCANS_KEPT = 50
CHANGES_KEPT = 2000
WATCHED_S = 5.0
SCAN_SHOWN = 512  # bytes of a scan that are told
_SECOND_NS = 1_000_000_000


class Traffic:
    """One device's numbers since the agent started. ``latest``: the newest sample of each group, by its source."""

    def __init__(self, now: Instant) -> None:
        self.latest: dict[str, Sample] = {}
        self.samples = 0
        self.scans = 0
        self.errors: Counter[str] = Counter()
        self._last_error: dict[str, Any] | None = None
        self._last_scans: deque[tuple[int, Scan]] = deque(maxlen=SCANS_KEPT)
        self._trips_ns: deque[int] = deque(maxlen=TRIPS_KEPT)
        self._marks: deque[tuple[int, int, int]] = deque([(now.mono_ns, 0, 0)], maxlen=RATE_S + 1)
        self._next_mark_ns = now.mono_ns + _SECOND_NS
        self._changes: _Changes | None = None  # while somebody watches

    # --- told by the collector ---------------------------------------------------------------------------------

    def read(self, now: Instant) -> None:
        """A read came back; called before what it gave."""
        if now.mono_ns >= self._next_mark_ns:
            self._mark(now.mono_ns)

    def sample(self, sample: Sample, *, asked: bool) -> None:
        """``asked``: the answer to a request of ours, so that it has a round trip."""
        self.samples += 1
        if asked:
            self._trips_ns.append(sample.at.mono_ns - sample.started_mono_ns)
        if sample.history:
            return  # old news
        if self._changes is not None:
            self._changes.note(sample, self.latest.get(sample.tagset.source))
        self.latest[sample.tagset.source] = sample

    def scan(self, scan: Scan) -> None:
        """One identity read."""
        self.scans += 1
        self._last_scans.append((self.scans, scan))

    def failed(self, kind: str, text: str, hint: str, now: Instant) -> None:
        """``kind``: lost, rejected, refused, unavailable, isolated, flood."""
        self.errors[kind] += 1
        self._last_error = {"kind": kind, "at_ns": str(now.at_ns), "text": text, "hint": hint}

    def closed(self) -> None:
        """Nothing of what was read last is known to be so any more."""
        self.latest.clear()

    def _mark(self, mono_ns: int) -> None:
        self._marks.append((mono_ns, self.samples, self.scans))
        self._next_mark_ns = mono_ns + _SECOND_NS
        if self._changes is not None and mono_ns > self._changes.until_ns:
            self._changes = None

    # --- shown -------------------------------------------------------------------------------------------------

    def numbers(self, now: Instant) -> dict[str, Any]:
        """Counts, rates, round trips (milliseconds) and errors, for ``status``."""
        return {
            "samples": self.samples,
            "scans": self.scans,
            "rates": self._rates(now.mono_ns),
            "round_trip": self._round_trip(),
            "errors": dict(self.errors),
            "last_error": self._last_error,
        }

    def no_value(self) -> dict[str, str]:
        """tag → why it had no value when it was last read."""
        return {
            sample.tagset.tags[index].name: reason
            for sample in self.latest.values()
            for index, reason in (sample.status or {}).items()
            if sample.values[index] is None
        }

    def _rates(self, mono_ns: int) -> dict[str, float]:
        """Since the newest mark that is old enough: a device that fell silent has made none since."""
        since = self._marks[0]
        for mark in self._marks:
            if mono_ns - mark[0] >= RATE_S * _SECOND_NS:
                since = mark
        took_s = max(mono_ns - since[0], 1) / 1e9
        return {
            "samples_per_s": round((self.samples - since[1]) / took_s, 2),
            "scans_per_s": round((self.scans - since[2]) / took_s, 2),
        }

    def _round_trip(self) -> dict[str, Any] | None:
        if not self._trips_ns:
            return None
        trips = sorted(self._trips_ns)
        return {
            "last_ms": round(self._trips_ns[-1] / 1e6, 3),
            "mean_ms": round(sum(trips) / len(trips) / 1e6, 3),
            "p95_ms": round(trips[(len(trips) * 95 - 1) // 100] / 1e6, 3),
            "max_ms": round(trips[-1] / 1e6, 3),
            "reads": len(trips),
        }

    # --- watched -----------------------------------------------------------------------------------------------

    def watched(self, now: Instant, names: Sequence[str], change: int, scan: int) -> dict[str, Any]:
        """The values now, and what changed after number ``change`` and was scanned after number ``scan``.

        ``names``: of groups or tags; none: all. From now on, for some seconds, changes are noted.
        """
        if self._changes is None:
            self._changes = _Changes()
        self._changes.until_ns = now.mono_ns + int(WATCHED_S * _SECOND_NS)
        wanted = frozenset(names)
        counts = self._changes.counts
        values = {
            sample.tagset.group: [
                tag_value(sample, index) | {"changes": counts.get((sample.tagset.source, index), 0)}
                for index in wanted_of(sample, wanted)
            ]
            for sample in self.latest.values()
        }
        changes = [
            {"n": n, "group": sample.tagset.group} | tag_value(sample, index)
            for n, sample, index in self._changes.newest
            if n > change and index in wanted_of(sample, wanted)
        ]
        return {
            "values": {group: tags for group, tags in values.items() if tags},
            "changes": changes,
            "change": self._changes.total,
            "missed": max(0, self._changes.newest[0][0] - 1 - change) if self._changes.newest else 0,
            "scan": self.scans,
            "scanned": [{"n": n} | _told(one) for n, one in self._last_scans if n > scan],
        }


class _Changes:
    """The values that changed while somebody watched, numbered, and how often each tag's did."""

    def __init__(self) -> None:
        self.total = 0
        self.counts: Counter[tuple[str, int]] = Counter()
        self.newest: deque[tuple[int, Sample, int]] = deque(maxlen=CHANGES_KEPT)
        self.until_ns = 0

    def note(self, sample: Sample, before: Sample | None) -> None:
        old = before.values if before is not None else ()
        was, why = (before.status or {}) if before is not None else {}, sample.status or {}
        for index, value in enumerate(sample.values):
            if index >= len(old) or value != old[index] or why.get(index) != was.get(index):
                self.total += 1
                self.counts[sample.tagset.source, index] += 1
                self.newest.append((self.total, sample, index))


def wanted_of(sample: Sample, wanted: frozenset[str]) -> Sequence[int]:
    """The indexes of the sample's tags that are wanted: by the name of the tag or its group, or as "group.tag"."""
    tags, group = sample.tagset.tags, sample.tagset.group
    if not wanted or group in wanted:
        return range(len(tags))
    return [index for index, tag in enumerate(tags) if tag.name in wanted or f"{group}.{tag.name}" in wanted]


def tag_value(sample: Sample, index: int) -> dict[str, Any]:
    """One tag's value as JSON; instants are texts of UTC ns."""
    tag = sample.tagset.tags[index]
    told: dict[str, Any] = {
        "tag": tag.name,
        "type": tag.type,
        "unit": tag.unit,
        "value": sample.values[index],
        "status": (sample.status or {}).get(index, ""),
        "at_ns": str(sample.at.at_ns),
    }
    for key, times in (("source_ns", sample.source_ns), ("server_ns", sample.server_ns)):
        if times is not None and index in times:
            told[key] = str(times[index])
    return told


def _told(scan: Scan) -> dict[str, Any]:
    return {
        "at_ns": str(scan.at.at_ns),
        "text": scan.raw[:SCAN_SHOWN].decode("utf-8", "backslashreplace"),
        "raw": scan.raw[:SCAN_SHOWN].hex(),
        "bytes": len(scan.raw),
        "status": str(scan.status),
        "symbology": scan.symbology,
    } | ({"photo": scan.photo} if scan.photo else {})
