"""Readers: what a scan is before any station looks at it, and how repeats are kept from flooding the log.

The same label on the same reader within a station's ``bounce`` is one scan; it counts from the last sight, since a
transponder in the field repeats every 50 ms for as long as it lies there. Every scan is evidence, yet a run of
repeats (bounces, no reads, noise) is recorded at its 1st, 2nd, 4th, 8th ... only; all are counted. An observation gap
ends the memory: after it a repeat is news, it says that the unit is still here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from edge_agent.binding.draft import Draft
from edge_agent.binding.findings import report
from edge_agent.identify.label import Label
from edge_agent.identify.patterns import text_of
from edge_agent.model import Scan, ScanStatus

NO_READ_FINDINGS = (1, 16, 256, 4096)  # at which length of a run of no reads it is reported
MAX_REPAIRS = 256  # combinations of rule and repairs that a reader counts


class Reader:
    """One scanner device."""

    def __init__(self) -> None:
        self._raw: bytes | None = None
        self._mono_ns = 0
        self._run_of = ScanStatus.READ
        self.repaired: Counter[tuple[str, ...]] = Counter()  # labels that were used, by rule and what was repaired
        self.run = 0  # how often in a row: bounces of one label, no reads, or noise

    def age_ns(self, scan: Scan) -> int | None:
        """Time since the same label was seen here last; None if another or none was."""
        same = scan.status is ScanStatus.READ and scan.raw == self._raw
        return scan.at.mono_ns - self._mono_ns if same else None

    def note(self, scan: Scan, bounce: bool) -> bool:
        """Take notice of a scan. True if it is to be recorded."""
        repeat = bounce or scan.status is not ScanStatus.READ
        self.run = self.run + 1 if repeat and scan.status is self._run_of else int(repeat)
        self._run_of = scan.status
        if scan.status is ScanStatus.READ:
            self._raw, self._mono_ns = scan.raw, scan.at.mono_ns
        return self.run & (self.run - 1) == 0

    def forget(self) -> None:
        """Somebody was not watching: the same label is news again."""
        self._raw = None


def scan_body(
    scan: Scan, stations: list[str], identifiers: dict[str, str], reason: str | None, labels: Sequence[Label] = ()
) -> dict[str, Any]:
    """The body of a scan record. ``identifiers`` are those that were used; ``labels`` what the label rules say."""
    body: dict[str, Any] = {"status": scan.status.value}
    text, encoding = text_of(scan.raw)
    if scan.status is ScanStatus.READ and text is not None:
        body["text"] = text
        if encoding != "utf-8":
            body["encoding"] = encoding
    body["raw"] = scan.raw.hex()
    if scan.symbology:
        body["symbology"] = scan.symbology
    if scan.photo:
        body["photo"] = scan.photo
    body["stations"] = stations
    if identifiers:
        body["identifiers"] = identifiers
    if labels:
        body["label"] = ", ".join(label.rule for label in labels)
        if flags := _flags(labels):
            body["flags"] = flags
    if reason:
        body["reason"] = reason
    return body


def _flags(labels: Sequence[Label]) -> list[str]:
    return list(dict.fromkeys(flag for label in labels for flag in label.flags))


def report_doubt(
    scan: Scan, source: str, position: int | None, labels: Sequence[Label], seq: int, draft: Draft
) -> None:
    """A label that was read and is not believed; nobody uses it."""
    names, why = ", ".join(label.rule for label in labels), ", ".join(_flags(labels))
    text = f"{source}: a label of {names} is not believed ({why})"
    report(draft, source, "label_doubtful", text, evidence=[seq], position=position, details=_details(scan, labels))


def report_repairs(scan: Scan, reader: Reader, labels: Sequence[Label], seq: int, draft: Draft) -> None:
    """A label that had to be repaired and was used. A supplier's whole batch is so: reported at some counts only."""
    for label in labels:
        kind = (label.rule, *label.flags)
        if label.flags and (kind in reader.repaired or len(reader.repaired) < MAX_REPAIRS):
            reader.repaired[kind] += 1
            count = reader.repaired[kind]
            if count in NO_READ_FINDINGS:
                text = f"{scan.device}: a label of {label.rule} was repaired ({', '.join(label.flags)})"
                details = _details(scan, [label]) | {"count": count}
                report(draft, scan.device, "label_repaired", text, evidence=[seq], details=details)


def _details(scan: Scan, labels: Sequence[Label]) -> dict[str, Any]:
    said = {label.rule: dict(label.identifiers) for label in labels}
    return {"device": scan.device, "said": said, "flags": _flags(labels)}
