"""Writes to a buffer what a binder would, in short, and asks its registry twice: before it is written, and after."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from typing import Any

from edge_agent import clock
from edge_agent.buffer import Buffer
from edge_agent.buffer.registry import Registry
from edge_agent.model import Kind
from support.buffer_rig import binding, record
from support.buffer_rig import closing as closed


class Line:
    """Writes what a binder would, in short."""

    def __init__(self, buffer: Buffer) -> None:
        self.buffer = buffer
        self.units: dict[str, str] = {}

    def add(self, kind: Kind, source: str, /, **body: Any) -> str:
        """Append one record; returns the id that it gives."""
        named = f"{self.buffer.log}-{self.buffer.next_seq}"
        self.buffer.append([record(kind, source, body)])
        return named

    @staticmethod
    def now_ns() -> int:
        return clock.now().at_ns

    def id(self) -> str:
        return f"{self.buffer.log}-{self.buffer.next_seq}"

    def cycle(
        self, serial: str, *materials: dict[str, Any], result: str = "Passed", step: str = "press-fit", **more: Any
    ) -> str:
        """A whole cycle of a unit, known already or new."""
        if serial not in self.units:
            self.units[serial] = self.id()
            self.add(
                Kind.IDENTIFIER, "OP20", unit=self.units[serial], op="add", kind="serial", value=serial, evidence=[]
            )
        cycle = self.id()
        head = {"cycle": cycle, "config": "c0ffee", "station": "OP20", "step": step, "position": 1, "context": {}}
        self.add(Kind.CYCLE_OPENED, "OP20", **head, opened_by="scan", evidence=[])
        self.add(Kind.BINDING, "OP20", **binding(self.id(), cycle, self.units[serial], serial))
        more = {"ended_at_ns": str(self.now_ns())} | more
        self.buffer.append([closed(cycle, {}, step=step, result=result, materials=list(materials), **more)])
        return cycle

    def rebind(self, cycle: str, serial: str | None, state: str = "bound") -> None:
        unit = self.units[serial] if serial else None
        self.add(Kind.BINDING, "OP20", **binding(self.id(), cycle, unit, serial, state=state, rule="manual", by="li"))

    def build_in(self, parent: str, child: str, name: str = "board", op: str = "install") -> None:
        self.add(
            Kind.GENEALOGY, "OP20", genealogy=self.id(), op=op, parent=self.units[parent], parent_serial=parent,
            child=self.units[child], child_serial=child, name=name, evidence=[], by="agent",
        )  # fmt: skip

    def load(self, op: str, lot: str | None, package: str | None = None, name: str = "solder", **more: Any) -> None:
        body = {"material": self.id(), "op": op, "name": name, "lot": lot, "package": package, "evidence": []}
        self.add(Kind.MATERIAL, "OP20", **body, by="agent", **more)

    def verdict(self, action: str, hold: str, about: tuple[str, str], number: int, state: str = "applied") -> None:
        self.add(
            Kind.HOLD_ACK, "agent", verdict_id=f"v{number}", decision_seq=number, action=action, hold=hold,
            subject={"kind": about[0], "value": about[1]}, state=state, source="qms", by="qms", text="scratches",
        )  # fmt: skip

    async def agrees(self, ask: Callable[[Any], Any], wanted: Any) -> None:
        """The answer is this: at once, when all is committed, and from the file alone."""
        assert ask(self.buffer.lookup) == wanted, "of what is not written yet"
        await self.buffer.committed(self.buffer.next_seq - 1)
        assert ask(self.buffer.lookup) == wanted, "once it is written"
        with closing(sqlite3.connect(f"file:{self.buffer.files.db}?mode=ro", uri=True)) as db:
            assert ask(Registry(db)) == wanted, "from the file alone"


def lot(lot: str | None, package: str | None = None, name: str = "solder", *, certain: bool = True) -> dict[str, Any]:
    return {"name": name, "lot": lot, "package": package, "part_number": None, "certain": certain}
