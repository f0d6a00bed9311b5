"""What the line did against what the receiver holds: lost, doubled and wrongly bound, counted outside the agent.

**Accepted** is counted where it can be seen from outside:

- every result that the PLC saw acknowledged: its cycle must be at the receiver, and each of its values;
- every reply of the PLC to a poll, and every scan sent while a process had the port open, *minus the gaps that the
  agent recorded*. A gap is the time between the last record of one log and the opening of the next (``log_opened``
  says so), or what a finding ``observation_gap`` names for its device. Replies are numbered, so inside a log the
  numbers of a device must be dense: no clock is needed. Only at a gap's two edges is there a tolerance, ``EDGE_NS``,
  for what was still on its way;
- every seq: whatever the agent committed and numbered must be at the receiver, up to the highest it has.

**Lost** is what of that is missing. **Misbound** is every reading that the receiver shows as bound to a serial other
than the one that was in the position: for results by their value, which no other cycle of the line shows, for polled
values by the number of the reply they came with. A value that the line never gave counts as misbound too.
**Duplicates** are keys that the receiver holds twice, cycles of the line recorded more than once, and replies stored
more than once.
"""

from __future__ import annotations

import struct
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

EDGE_NS = 500_000_000  # at the edges of a gap: what was read but not yet committed, or sent into a port just opened
_DETAILS = 50


class ReceivedRecord(NamedTuple):
    """A record as the receiver holds it."""

    agent: str
    log: str
    seq: int
    kind: str
    source: str
    at_ns: int
    body: Mapping[str, Any]


class ReceivedReading(NamedTuple):
    """A row of the receiver's view ``reading``."""

    serial: str | None
    station: str
    position: int
    cycle: str
    binding_state: str
    tag: str
    value: Any
    seq: int


@dataclass(slots=True)
class Counts:
    """What came out. ``details`` says of each lost, doubled or misbound thing what it is (the first fifty)."""

    units: int = 0
    cycles: int = 0
    readings: int = 0
    accepted: int = 0
    lost: int = 0
    duplicates: int = 0
    misbound: int = 0
    bound: int = 0  # cycles
    unbound: int = 0  # cycles that are orphan, ambiguous or pending, with their reason in the binding
    details: list[str] = field(default_factory=list)

    def detail(self, text: str) -> None:
        if len(self.details) < _DETAILS:
            self.details.append(text)


class Gap(NamedTuple):
    """Time in which the agent says it did not watch; ``device`` "" means all of them."""

    device: str
    since_ns: int
    until_ns: int


def compare(
    truth: Iterable[Mapping[str, Any]], records: Iterable[ReceivedRecord], readings: Iterable[ReceivedReading]
) -> Counts:
    """Count. All three are read once; times are UTC ns of one machine."""
    held = sorted(records, key=lambda record: record.seq)
    events = list(truth)
    rows = list(readings)
    counts = Counts()
    gaps = recorded_gaps(held)
    samples = _samples(held)
    counts.units = len({event["serial"] for event in events if event["event"] in ("enter", "swap")})
    _count_keys(held, counts)
    _count_results(events, held, rows, counts)
    _count_replies(events, held, samples, gaps, counts)
    _count_scans(events, held, gaps, counts)
    _count_misbound(events, rows, samples, counts)
    counts.readings = sum(len(values) for values in samples.values())
    return counts


def recorded_gaps(records: list[ReceivedRecord]) -> list[Gap]:
    """The times that the agent itself says it did not watch."""
    last_at: dict[str, int] = {}
    gaps = []
    for record in records:
        if record.kind == "log_opened":
            previous = (record.body.get("previous") or {}).get("log", "")
            gaps.append(Gap("", last_at.get(previous, 0), record.at_ns))
        elif record.kind == "finding" and record.body["code"] == "observation_gap":
            details = record.body.get("details") or {}
            if details.get("cause") != "restart" and "device" in details:
                gaps.append(Gap(details["device"], int(details["since_ns"]), record.at_ns))
        last_at[record.log] = max(last_at.get(record.log, 0), record.at_ns)
    if records:
        gaps.append(Gap("", max(last_at.values()), 2**63))  # after the end
    return gaps


def _single(value: Any) -> Any:
    """A float as float32 has it: the agent prints the shortest decimals that say the same float32."""
    return struct.unpack("f", struct.pack("f", value))[0] if isinstance(value, float) else value


def _in_gap(gaps: list[Gap], device: str, at_ns: int, after_ns: int = EDGE_NS) -> bool:
    return any(
        gap.device in ("", device) and gap.since_ns - EDGE_NS <= at_ns <= gap.until_ns + after_ns for gap in gaps
    )


def _count_keys(records: list[ReceivedRecord], counts: Counts) -> None:
    """Every seq up to the highest, each once."""
    keys = Counter((record.agent, record.log, record.seq) for record in records)
    for key, times in keys.items():
        if times > 1:
            counts.duplicates += times - 1
            counts.detail(f"duplicate: {key} is there {times} times")
    dropped = [record.body for record in records if record.kind == "drop"]
    expected = 1
    for record in records:
        while expected < record.seq:
            if not any(drop["first_seq"] <= expected <= drop["last_seq"] for drop in dropped):
                counts.lost += 1
                counts.detail(f"lost: record {expected} (before {record.log}-{record.seq})")
            expected += 1
        expected = record.seq + 1


def _samples(records: list[ReceivedRecord]) -> dict[int, dict[str, Any]]:
    """seq -> {tag: value} of every sample, tags named "device.tag"."""
    names: dict[str, list[str]] = {}
    for record in records:
        if record.kind == "tagset":
            body = record.body
            names[body["tagset"]] = [f"{body['device']}.{tag['name']}" for tag in body["tags"]]
    return {
        record.seq: dict(zip(names[record.body["tagset"]], record.body["values"], strict=True))
        for record in records
        if record.kind == "sample" and record.body["tagset"] in names
    }


def _count_results(
    events: list[Mapping[str, Any]], records: list[ReceivedRecord], rows: list[ReceivedReading], counts: Counts
) -> None:
    """Each acknowledged result: one cycle, and each of its values in it."""
    closed = [record for record in records if record.kind == "cycle_closed"]
    counts.cycles = len(closed)
    newest = {record.body["cycle"]: record.body["state"] for record in records if record.kind == "binding"}
    for record in closed:
        bound = newest.get(record.body.get("cycle"), record.body["binding"]["state"]) == "bound"
        counts.bound += bound
        counts.unbound += not bound
    cycles = Counter((record.source, record.body["position"], record.body.get("counter")) for record in closed)
    values = {(row.station, row.position, row.tag.partition(".")[2], _single(row.value)) for row in rows}
    acknowledged = {
        (event["station"], event["position"], event["number"]) for event in events if event["event"] == "ack"
    }
    for event in events:
        if event["event"] != "work" or not event["handshake"]:
            continue
        station, position = event["station"], event["position"]
        found = cycles[station, position, event["counter"]]
        if found > 1:
            counts.duplicates += found - 1
            counts.detail(f"duplicate: {station}.{position} counter {event['counter']} makes {found} cycles")
        if (station, position, event["number"]) not in acknowledged:
            continue
        counts.accepted += 1
        missing = [
            tag for tag, value in event["values"].items() if (station, position, tag, _single(value)) not in values
        ]
        if not found or missing:
            counts.lost += 1
            what = f"its {', '.join(missing)}" if found else "its cycle"
            counts.detail(f"lost: {station}.{position} counter {event['counter']} was acknowledged, {what} is missing")


def _count_replies(
    events: list[Mapping[str, Any]],
    records: list[ReceivedRecord],
    samples: dict[int, dict[str, Any]],
    gaps: list[Gap],
    counts: Counts,
) -> None:
    """Numbered replies: each once, dense inside a log, and to within ``EDGE_NS`` of the log's ends."""
    arrived: dict[tuple[str, str], list[int]] = defaultdict(list)  # (device, log) -> numbers
    for record in records:
        device = record.source.partition(".")[0]
        number = samples.get(record.seq, {}).get(f"{device}.reply")
        if number is not None:
            arrived[device, record.log].append(number)
    spans: dict[str, list[tuple[int, int]]] = defaultdict(list)
    everything: dict[str, Counter[int]] = defaultdict(Counter)
    for (device, _log), numbers in arrived.items():
        spans[device].append((min(numbers), max(numbers)))
        everything[device].update(numbers)
    for times in everything.values():
        counts.duplicates += sum(count - 1 for count in times.values())
        counts.accepted += len(times)
    for event in events:
        if event["event"] != "reply" or event["number"] in everything[event["device"]]:
            continue
        device, number, at_ns = event["device"], event["number"], event["at_ns"]
        inside = any(first < number < last for first, last in spans[device])
        named = [gap for gap in gaps if gap.device == device]
        if _in_gap(named, device, at_ns) or (not inside and _in_gap(gaps, device, at_ns)):
            continue
        counts.accepted += 1
        counts.lost += 1
        counts.detail(f"lost: reply {number} of {device}")


def _count_scans(
    events: list[Mapping[str, Any]], records: list[ReceivedRecord], gaps: list[Gap], counts: Counts
) -> None:
    """Each scan that somebody could hear, outside of gaps, is there; a port just opened may still be flushed."""
    arrived: dict[tuple[str, str], list[int]] = defaultdict(list)
    for record in records:
        if record.kind == "scan":
            arrived[record.source, bytes.fromhex(record.body["raw"]).decode("latin-1")].append(record.at_ns)
    for event in events:
        if event["event"] != "scan" or not event["heard"]:
            continue
        times = arrived[event["device"], event["text"]]
        match = next((at for at in times if -EDGE_NS <= at - event["at_ns"] <= 4 * EDGE_NS), None)
        if match is not None:
            times.remove(match)
            counts.accepted += 1
        elif not _in_gap(gaps, event["device"], event["at_ns"], after_ns=2 * EDGE_NS):
            counts.accepted += 1
            counts.lost += 1
            counts.detail(f"lost: scan {event['text']} of {event['device']}")


def _count_misbound(
    events: list[Mapping[str, Any]], rows: list[ReceivedReading], samples: dict[int, dict[str, Any]], counts: Counts
) -> None:
    made: dict[tuple[str, int, str, Any], str] = {}  # (station, position, tag, value) -> serial
    known: set[tuple[str, int, str]] = set()
    held: dict[tuple[str, int], Mapping[str, str | None]] = {}
    for event in events:
        if event["event"] == "work":
            for tag, value in event["values"].items():
                made[event["station"], event["position"], tag, _single(value)] = event["serial"]
                known.add((event["station"], event["position"], tag))
        elif event["event"] == "reply":
            held[event["device"], event["number"]] = event["held"]
    bound_twice: dict[tuple[str, int, str, Any], set[str]] = defaultdict(set)
    for row in rows:
        if row.binding_state != "bound" or row.value is None:
            continue
        device, _dot, tag = row.tag.partition(".")
        place = (row.station, row.position, tag)
        if place in known:
            true = made.get((*place, _single(row.value)))
            bound_twice[*place, _single(row.value)].add(row.cycle)
        else:
            number = samples.get(row.seq, {}).get(f"{device}.reply")
            if number is None:
                continue  # of a result group, beside values that tell
            true = held.get((device, number), {}).get(f"{row.station}.{row.position}")
        if row.serial != true:
            counts.misbound += 1
            counts.detail(f"misbound: {row.tag}={row.value} (seq {row.seq}) is {true}'s, not {row.serial}'s")
    for (station, position, tag, value), cycles in bound_twice.items():
        if len(cycles) > 1:
            counts.duplicates += len(cycles) - 1
            counts.detail(f"duplicate: {station}.{position} {tag}={value} is bound in cycles {sorted(cycles)}")
