"""Facts that are appended but not committed yet, as the registry will show them. In memory, some milliseconds old.

Bounded by the inbox: what is durable is forgotten at once. Each answer takes what the registry says and lays the facts
over it, in their order; a fact that the registry shows already changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Set
from dataclasses import fields, replace
from typing import Any, TypeVar

from edge_agent.binding.state import Installed, KnownCycle, KnownVerdict, StepStatus
from edge_agent.model import Kind, Record

Fact = tuple[int, Record]

_KEPT = frozenset(
    {
        Kind.AUDIT,
        Kind.FINDING,
        Kind.IDENTIFIER,
        Kind.CYCLE_CLOSED,
        Kind.GENEALOGY,
        Kind.MATERIAL,
        Kind.HOLD_ACK,
        Kind.UNIT_STATUS,
    }
)
_FIELDS = frozenset(field.name for field in fields(KnownCycle))
K = TypeVar("K")
E = TypeVar("E", bound=tuple[Any, ...])


class Unwritten:
    """The facts by kind, and what they say of cycles and units."""

    def __init__(self) -> None:
        self.kinds: dict[str, tuple[int, str]] = {}  # of new units
        self.serials: dict[str, tuple[int, str]] = {}
        self.closed: set[str] = set()  # cycles
        self._facts: dict[Kind, list[Fact]] = {kind: [] for kind in _KEPT}
        self._names: dict[tuple[str, str], tuple[int, str | None]] = {}  # (kind, value) -> (seq, unit or removed)
        self._cycles: dict[str, tuple[int, dict[str, Any]]] = {}  # what changed of it, as fields of KnownCycle

    def appended(self, seq: int, record: Record) -> None:
        """Remember a fact."""
        kind, body = record.kind, record.body
        if kind in _KEPT:
            self._facts[kind].append((seq, record))
        if kind is Kind.IDENTIFIER:
            self._identifier(seq, body)
        elif kind is Kind.CYCLE_OPENED:
            self._change(seq, body, state="open", closed=False, opened_at_ns=record.at.at_ns, binding_state="pending")
        elif kind is Kind.CYCLE_CLOSED:
            ends = {"opened_at_ns": int(body["opened_at_ns"]), "ended_at_ns": int(body["ended_at_ns"])}
            decided = body.get("binding", {}).get("state", "pending")
            self._change(seq, body, state="closed", closed=True, first={"binding_state": decided}, **ends)
            self.closed.add(body["cycle"])
        elif kind is Kind.BINDING:
            bound = body["state"] == "bound"
            self._change(
                seq, {"cycle": body["cycle"]}, binding=body["binding"], binding_state=body["state"],
                unit=body.get("unit") if bound else None, serial=body.get("serial") if bound else None,
            )  # fmt: skip

    def _change(self, seq: int, body: Any, first: dict[str, Any] | None = None, **changes: Any) -> None:
        _, known = self._cycles.get(body["cycle"], (0, {}))
        told = {name: value for name, value in body.items() if name in _FIELDS and name != "binding"}
        self._cycles[body["cycle"]] = (seq, (first or {}) | known | told | changes)

    def _identifier(self, seq: int, body: Any) -> None:
        unit, kind, value = body["unit"], body["kind"], body["value"]
        is_gone = body["op"] == "remove"
        if unit.endswith(f"-{seq}"):  # it is named for the first time
            self.kinds[unit] = (seq, "lot" if kind == "lot" else "serial")
        is_lot = self.kinds.get(unit, (0, "serial"))[1] == "lot"
        if kind == ("lot" if is_lot else "serial"):
            self.serials[unit] = (seq, "" if is_gone else value)
        if kind != "lot" or is_lot:  # otherwise it is of many units
            self._names[kind, value] = (seq, None if is_gone else unit)

    def committed(self, seq: int) -> None:
        """Forget what is in the registry by now."""
        for facts in self._facts.values():
            if facts and facts[0][0] <= seq:
                facts[:] = [fact for fact in facts if fact[0] > seq]
        self.kinds, self.serials = _beyond(self.kinds, seq), _beyond(self.serials, seq)
        self._names, self._cycles = _beyond(self._names, seq), _beyond(self._cycles, seq)
        self.closed &= self._cycles.keys()

    # --- units -----------------------------------------------------------------------------------------------

    def named(self, kind: str, value: str) -> tuple[str | None] | None:
        """(the unit that has this name now), or None: nothing new."""
        if kind == "unit" and value in self.kinds:
            return (value,)
        found = self._names.get((kind, value))
        return None if found is None else (found[1],)

    def lost_name(self, unit: str, kind: str, value: str) -> bool:
        """The unit had this name, and it was replaced."""
        gone = False
        for _, record in self._facts[Kind.IDENTIFIER]:
            body = record.body
            if body["unit"] == unit and body["kind"] == kind and (body["op"] == "replace" or body["value"] == value):
                gone = body["value"] != value
        return gone

    def identifiers(self, unit: str, rows: Iterable[tuple[str, str]]) -> dict[str, str]:
        """The newest name of each kind; ``rows``: all that the registry has, as a removed one uncovers those before."""
        all_names: dict[str, dict[str, None]] = {}
        for kind, value in rows:
            all_names.setdefault(kind, {})[value] = None
        for _, record in self._facts[Kind.IDENTIFIER]:
            body = record.body
            if body["unit"] != unit:
                continue
            values = all_names.setdefault(body["kind"], {})
            if body["op"] == "replace":
                values.clear()
            values.pop(body["value"], None)
            if body["op"] != "remove":
                values[body["value"]] = None
        return {kind: list(values)[-1] for kind, values in all_names.items() if values}

    def owners(self) -> Iterable[tuple[str, str | None]]:
        """Cycles whose binding changed, with the unit it names now."""
        return [(cycle, known["unit"]) for cycle, (_, known) in self._cycles.items() if "unit" in known]

    def contents(
        self, units: Set[str], cycle: Callable[[str], KnownCycle | None]
    ) -> list[tuple[str, str | None, str | None]]:
        """(unit, lot, package) of what these units newly are or consumed."""
        found: list[tuple[str, str | None, str | None]] = []
        for _, record in self._facts[Kind.CYCLE_CLOSED]:
            if record.body.get("materials"):
                known = cycle(record.body["cycle"])
                if known is not None and known.unit is not None and known.unit in units:
                    found += [(known.unit, one.get("lot"), one.get("package")) for one in record.body["materials"]]
        for _, record in self._facts[Kind.IDENTIFIER]:
            body = record.body
            if body["unit"] in units and body["op"] != "remove":
                is_lot, is_package = body["kind"] == "lot", body["kind"] == "package"
                what = (body["value"] if is_lot else None, body["value"] if is_package else None)
                found.append((body["unit"], *what))
        return found

    # --- carriers, components --------------------------------------------------------------------------------

    def on_carrier(self, carrier: str, units: dict[str, int | None]) -> dict[str, int | None]:
        """Unit → position."""
        for _, record in self._facts[Kind.IDENTIFIER]:
            body = record.body
            if body["kind"] != "carrier":
                continue
            if body["value"] == carrier and body["op"] != "remove":
                units[body["unit"]] = body.get("position")
            elif body["value"] == carrier or body["op"] == "replace":
                units.pop(body["unit"], None)
        return units

    @property
    def assembles(self) -> bool:
        """Components were newly installed or taken out."""
        return bool(self._facts[Kind.GENEALOGY])

    def parents(self, cycle: str) -> set[str]:
        """The units into which something was newly installed in this cycle."""
        bodies = (record.body for _, record in self._facts[Kind.GENEALOGY])
        return {body["parent"] for body in bodies if body.get("cycle") == cycle}

    def installed(self, end: str, unit: str, known: Iterable[Installed]) -> list[Installed]:
        """What is installed where ``end`` (parent, child) is this unit."""
        found = {(one.parent, one.child): one for one in known}
        for _, record in self._facts[Kind.GENEALOGY]:
            body = record.body
            if body[end] != unit:
                continue
            pair = (body["parent"], body["child"])
            found.pop(pair, None)
            if body["op"] == "install":
                found[pair] = Installed(
                    body["parent"], body["parent_serial"], body["child"], body["child_serial"], body["name"],
                    body.get("cycle"),
                )  # fmt: skip
        return list(found.values())

    # --- cycles, materials, others, verdicts -----------------------------------------------------------------

    def cycle(self, cycle: str, known: KnownCycle | None) -> KnownCycle | None:
        """The cycle as it is now."""
        if cycle not in self._cycles:
            return known
        changes = self._cycles[cycle][1]
        if known is not None:
            return replace(known, **changes)
        blank: dict[str, Any] = dict.fromkeys(("binding", "unit", "serial", "result", "complete"))
        return KnownCycle(**(blank | changes)) if "step" in changes else None

    def loads(self, lot: str, rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        """Rows of ``material_load`` of this lot or package, oldest first; the last column: it is still there."""
        for seq, record in self._facts[Kind.MATERIAL]:
            body, place = record.body, (record.source, record.body["name"])
            has_lot, package = body.get("lot"), body.get("package")
            if body["op"] in ("load", "splice"):
                if lot in (has_lot, package) and all(row[0] != seq for row in rows):
                    what = (body.get("part_number"), body.get("supplier"), body.get("expiry"))
                    rows.append((seq, *place, package, has_lot, *what, 1))
                continue
            for i, row in enumerate(rows):
                if row[1:3] == place and package in (None, row[3]) and has_lot in (None, row[4]) and row[0] < seq:
                    rows[i] = (*row[:8], 0)
        return rows

    def status(self, serial: str, known: list[StepStatus]) -> list[StepStatus]:
        """What others said of this serial, newest last."""
        found = {(one.step, one.source): one for one in known}
        for _, record in self._facts[Kind.UNIT_STATUS]:
            body = record.body
            if body["serial"] != serial:
                continue
            key, said = (body["step"], body["said_by"]), body.get("status_at_ns")
            at_ns, before = None if said is None else int(said), found.get(key)
            if before is None or None in (at_ns, before.at_ns) or (at_ns or 0) >= (before.at_ns or 0):
                found.pop(key, None)
                found[key] = StepStatus(
                    body["step"], body["result"], body.get("complete"), body.get("attempt"), at_ns, record.at.at_ns,
                    body["said_by"], body.get("cycle"), body.get("state"), body.get("station"),
                )  # fmt: skip
        return list(found.values())

    def serials_of(self, said_by: str, cycle: str) -> set[str]:
        """Serials that were newly given the result of this cycle."""
        bodies = [record.body for _, record in self._facts[Kind.UNIT_STATUS]]
        return {body["serial"] for body in bodies if body.get("cycle") == cycle and body["said_by"] == said_by}

    def finding(self, finding: str) -> str | None:
        """Its code."""
        bodies = (record.body for _, record in self._facts[Kind.FINDING])
        return next((body["code"] for body in bodies if body["finding"] == finding), None)

    def confirmed(self, what: str) -> bool:
        """Somebody who knows has said so."""
        return any(record.body.get("action") == f"{what}_confirmed" for _, record in self._facts[Kind.AUDIT])

    def verdict(self, verdict_id: str) -> KnownVerdict | None:
        """What came first under this id."""
        bodies = (record.body for _, record in self._facts[Kind.HOLD_ACK])
        body = next((body for body in bodies if body["verdict_id"] == verdict_id), None)
        if body is None:
            return None
        about = body["subject"]
        return KnownVerdict(
            body["state"], body["source"], body.get("decision_seq"), body["action"], about["kind"], about["value"],
            body.get("hold"),
        )  # fmt: skip

    def decision_seq(self, kind: str, subject: str, hold: str | None, source: str) -> int | None:
        """The highest of this source that was applied."""
        wanted = (source, "applied", {"kind": kind, "value": subject}, hold)
        return self._highest(lambda body: (body["source"], body["state"], body["subject"], body.get("hold")) == wanted)

    def last_decision(self, source: str) -> int | None:
        """The highest that was heard."""
        return self._highest(lambda body: body["source"] == source)

    def _highest(self, wanted: Callable[[Any], bool]) -> int | None:
        bodies = (record.body for _, record in self._facts[Kind.HOLD_ACK])
        found = (body["decision_seq"] for body in bodies if body.get("decision_seq") is not None and wanted(body))
        return max(found, default=None)


def _beyond(known: dict[K, E], seq: int) -> dict[K, E]:
    return {key: entry for key, entry in known.items() if entry[0] > seq} if known else known
