"""Findings: something the data says is wrong, as records. One function makes them all.

A finding names what it is about (cycle, position, serial) and the records that show it (``evidence``, as seq). Its
text is one plain sentence for the person at the line; ``details`` holds the same facts for programs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edge_agent.binding.draft import Draft
from edge_agent.model import Kind

SEVERITY = {
    "observation_gap": "warning",
    "skipped_scan": "error",
    "missing_field": "error",
    "duplicate_serial": "error",
    "unmatched_scan": "warning",
    "no_read": "info",
    "label_doubtful": "warning",
    "label_repaired": "info",
    "sequence_gap": "warning",
    "counter_reset": "warning",
    "torn_read": "error",
    "limit_violated": "error",
    "unmapped_code": "error",
    "cycle_timeout": "warning",
    "carrier_not_cleared": "warning",
    "register_unsure": "warning",
    "clock_step": "warning",
    "duplicate_agent": "error",
    "duplicate_message": "error",
    "retest_limit": "warning",
    "gate_blocked": "warning",
    "gate_unanswered": "warning",
    "gate_open": "error",
    "missing_step": "error",
    "copied_lot": "warning",
    "wrong_material": "error",
    "material_expired": "error",
    "negative_balance": "warning",
    "component_reused": "error",
    "identical_entries": "warning",
    "verdict_refused": "error",
    "verdict_gap": "warning",
    "hold_in_cycle": "error",
}


def report(
    draft: Draft,
    source: str,
    code: str,
    text: str,
    *,
    evidence: Sequence[int] = (),
    cycle: str | None = None,
    position: int | None = None,
    serial: str | None = None,
    details: Mapping[str, Any] | None = None,
) -> None:
    """Add a finding. ``source``: the station or device it is about; ``code``: a key of ``SEVERITY``."""
    body: dict[str, Any] = {
        "finding": draft.next_id,
        "code": code,
        "severity": SEVERITY[code],
        "text": text,
        "evidence": list(evidence),
    }
    optional = {"cycle": cycle, "position": position, "serial": serial, "details": details}
    body.update((key, value) for key, value in optional.items() if value is not None)
    draft.add(Kind.FINDING, source, body)
