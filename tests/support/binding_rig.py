"""A binder on a bench: a clock to turn, devices to speak for, and the log it writes, projected as a registry would.

``Rig`` numbers the records as the buffer does, answers ``Lookup`` from them and, on ``restart``, gives a new binder
what a buffer would restore. Nothing here judges; the tests do.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import orjson

from edge_agent.binding import Binder, Effect, OpenCycle, Outcome, ReadGroup, Restored, Write
from edge_agent.binding.plan import (
    Characteristic,
    Context,
    Edge,
    Handshake,
    Plan,
    Position,
    ResultRule,
    Resume,
    Station,
    StorePolicy,
    TagRef,
)
from edge_agent.buffer import restoring, schema
from edge_agent.buffer.projection import Projection, Sources
from edge_agent.buffer.registry import Registry as BufferRegistry
from edge_agent.model import Instant, Kind, Record, Result, Sample, Scan, ScanStatus, Tag, TagSet, Value

MS = 1_000_000
SECOND = 1000 * MS
EPOCH_NS = 1_795_000_000 * SECOND


def tagset(device: str, group: str, *names: str) -> TagSet:
    return TagSet(device, group, tuple(Tag(name, "float64") for name in names))


STATE = tagset("press", "state", "ready", "temp", "number", "sn", "beside")
RESULT = tagset("press", "result", "count", "force", "ok", "sn1", "sn2", "force2")
OVEN = tagset("oven", "air", "heat")
TAGSETS = {one.source: one for one in (STATE, RESULT, OVEN)}


def tag(name: str) -> TagRef:
    """ "press.ready" -> where it is."""
    device, _, short = name.partition(".")
    for one in TAGSETS.values():
        names = [tag.name for tag in one.tags]
        if one.device == device and short in names:
            return TagRef(one.source, names.index(short), name)
    raise KeyError(name)


HANDSHAKE = Handshake(tag("press.ready"), "press.ack", tag("press.count"), 16, "press.result")
UNCOUNTED = replace(HANDSHAKE, counter=None)
BESIDE = replace(HANDSHAKE, counter=tag("press.beside"))
EDGE = Edge(tag("press.ready"), True, "press.result")
BARE_EDGE = Edge(tag("press.ready"), True, None)
FORCE = Characteristic("force", tag("press.force"), True, 10.0, 20.0)
OK = ResultRule(tag("press.ok"), {True: Result.PASSED, False: Result.FAILED})
SERIAL = re.compile(r"(?P<serial>SN\d+)(?:/(?P<lot>\w+))?")
CLAIMS = {"press.state": ("ready", "temp"), "press.result": ("count", "force", "ok")}


def position(number: int = 1, **changes: Any) -> Position:
    defaults: dict[str, Any] = {
        "number": number, "scanner": "gate", "serial": None, "end": HANDSHAKE, "collect": (FORCE,), "result": OK,
        "resume": Resume(), "claims": CLAIMS,
    }  # fmt: skip
    return Position(**defaults | changes)


def station(*positions: Position, **changes: Any) -> Station:
    defaults: dict[str, Any] = {
        "name": "OP20", "step": "press-fit", "identity": "before", "pattern": SERIAL,
        "positions": positions or (position(),), "context": (), "bounce_s": 2.0, "timeout_s": 60.0, "min_s": 0.0,
    }  # fmt: skip
    return Station(**defaults | changes)


def store(one: TagSet, **changes: Any) -> StorePolicy:
    defaults: dict[str, Any] = {
        "tagset": one, "always": False, "cycle": True, "exact": tuple(range(len(one.tags))), "deadbands": (),
        "heartbeat_s": None,
    }  # fmt: skip
    return StorePolicy(**defaults | changes)


def plan(*stations: Station, **changes: Any) -> Plan:
    defaults: dict[str, Any] = {
        "stations": stations or (station(),),
        "stores": {source: store(one) for source, one in TAGSETS.items()},
        "gap_s": {"press.state": 1.0},
    }
    return Plan(**defaults | changes)


def badge(name: str = "operator") -> Context:
    return Context(name, "badge", re.compile(rf"OP:(?P<{name}>\w+)"), None)


class Registry(BufferRegistry):
    """The buffer's own projection and answers, in memory; open cycles are reckoned here as well."""

    def __init__(self) -> None:
        self.db = sqlite3.connect(":memory:", isolation_level=None)
        schema.create(self.db)
        super().__init__(self.db)
        self._projection = Projection(self.db, Sources(self.db))
        self.cycles: dict[str, dict[str, Any]] = {}

    def project(self, seq: int, record: Record, body: dict[str, Any]) -> None:
        self._projection.apply([(seq, record, b"")])
        if record.kind is Kind.CYCLE_OPENED:
            self.cycles[body["cycle"]] = body | {
                "at_ns": record.at.at_ns, "running": set(), "binding": None, "windows": {},
            }  # fmt: skip
        elif record.kind is Kind.CYCLE_CLOSED:
            self.cycles[body["cycle"]] |= body | {"binding": self.cycles[body["cycle"]]["binding"], "closed": True}
        elif record.kind is Kind.BINDING:
            cycle = self.cycles[body["cycle"]]
            old = cycle["binding"]
            assert body.get("supersedes") == (old["binding"] if old else None)
            cycle["binding"] = body
        elif record.kind is Kind.FINDING and body["code"] == "observation_gap":
            for cycle_id in body["details"].get("cycles", ()):
                self.cycles[cycle_id] |= {"windows": body["details"]["windows"], "running": set()}
        for cycle_id in record.cycles:
            cycle = self.cycles[cycle_id]
            ranges = cycle["windows"].setdefault(record.source, [])
            if record.source in cycle["running"]:
                ranges[-1][1] = seq
            else:
                ranges.append([seq, seq])
                cycle["running"].add(record.source)

    def open_cycles(self) -> tuple[OpenCycle, ...]:
        return tuple(
            OpenCycle(
                cycle=name, station=cycle["station"], position=cycle["position"], opened_at_ns=cycle["at_ns"],
                opened_by=cycle["opened_by"], attempt=cycle["attempt"], context=cycle["context"],
                windows={source: tuple(map(tuple, ranges)) for source, ranges in cycle["windows"].items()},
                unit=cycle["binding"].get("unit"), serial=cycle["binding"].get("serial"),
                binding=cycle["binding"]["binding"], binding_state=cycle["binding"]["state"],
                let_in=restoring.let_in(self.db).get(name),
            )
            for name, cycle in self.cycles.items()
            if "closed" not in cycle
        )  # fmt: skip

    def counters(self) -> dict[tuple[str, int], tuple[int, int]]:
        rows = self.db.execute("SELECT station, position, counter, epoch FROM counter")
        return {(station, position): (counter, epoch) for station, position, counter, epoch in rows}


class Rig:
    """A binder with everything around it."""

    def __init__(self, one: Plan | None = None) -> None:
        self.plan = one or plan()
        self.mono_ns = 1000 * SECOND
        self.registry = Registry()
        self.records: list[tuple[int, Record, dict[str, Any]]] = []
        self.effects: list[Effect] = []
        self.logs = 0
        self.last: list[tuple[Kind, dict[str, Any]]] = []
        self.restart(Restored())

    @property
    def now(self) -> Instant:
        return Instant(EPOCH_NS + self.mono_ns, self.mono_ns)

    @property
    def seq(self) -> int:
        return len(self.records) + 1

    def restart(self, restored: Restored | None = None, one: Plan | None = None) -> Rig:
        """A new run: of the old one nothing is left but its records."""
        self.plan = one or self.plan
        if restored is None:
            until_ns = self.records[-1][1].at.at_ns if self.records else None
            restored = Restored(
                self.registry.open_cycles(), self.registry.counters(), until_ns, restoring.pending(self.registry.db),
                restoring.materials(self.registry.db), tuple(restoring.holds(self.registry.db)),
                restoring.messages(self.registry.db),
                restoring.recent(self.registry.db),
            )  # fmt: skip
        self.logs += 1
        self.effects.clear()
        self.binder = Binder(self.plan, f"log{self.logs}", "cfg", self.registry, restored)
        self._take(self.binder.start(self.now, self.seq))
        return self

    # --- inputs ------------------------------------------------------------------------------------------------

    def wait(self, seconds: float = 0.1) -> Rig:
        self.mono_ns += int(seconds * SECOND)
        return self

    def sample(
        self, source: str, values: Mapping[str, Value] | Sequence[Value], *, took_s: float = 0.002,
        status: dict[int, str] | None = None,
    ) -> list[tuple[Kind, dict[str, Any]]]:  # fmt: skip
        """A read that begins now and takes ``took_s``. Tags that are not named are 0."""
        one = TAGSETS[source]
        if isinstance(values, Mapping):
            values = [values.get(tag.name, 0) for tag in one.tags]
        started_ns = self.mono_ns
        self.wait(took_s)
        sample = Sample(one, self.now, started_ns, tuple(values), status)
        outcome = self.binder.on_sample(sample, self.seq)
        return self._take(outcome)

    def late_sample(self, source: str, values: Mapping[str, Value], began_s: float, ended_s: float) -> Any:
        """A read of the past: it began and ended so many seconds ago, and only arrives now."""
        at = Instant(self.now.at_ns - int(ended_s * SECOND), self.mono_ns - int(ended_s * SECOND))
        one = TAGSETS[source]
        sample = Sample(
            one, at, self.mono_ns - int(began_s * SECOND), tuple(values.get(tag.name, 0) for tag in one.tags)
        )
        return self._take(self.binder.on_sample(sample, self.seq))

    def state(self, ready: Value = 0, **values: Value) -> list[tuple[Kind, dict[str, Any]]]:
        return self.wait().sample("press.state", {"ready": ready} | values)

    def result(self, count: Value = 1, force: Value = 15.0, ok: Value = True, **values: Value) -> Any:
        return self.wait(0.005).sample("press.result", {"count": count, "force": force, "ok": ok} | values)

    def scan(self, text: str | bytes, device: str = "gate", status: ScanStatus = ScanStatus.READ) -> Any:
        raw = text.encode() if isinstance(text, str) else text
        return self._take(self.binder.on_scan(Scan(device, self.wait(0.01).now, raw, status), self.seq))

    def gap(self, device: str = "press", since_s: float = 0.1, cause: str = "lost") -> Any:
        since = Instant(self.now.at_ns - int(since_s * SECOND), self.mono_ns - int(since_s * SECOND))
        return self._take(self.binder.on_gap(device, since, self.now, cause, self.seq))

    def tick(self, seconds: float = 0.25) -> Any:
        return self._take(self.binder.on_tick(self.wait(seconds).now, self.seq))

    # --- common passages ---------------------------------------------------------------------------------------

    def put_in(self, serial: str, device: str = "gate") -> Rig:
        """Scan a unit and let the scan take effect."""
        self.scan(serial, device)
        self.state(0)
        return self

    def finish(self, count: int, force: float = 15.0, ok: Value = True, reads: int = 2, **values: Value) -> Rig:
        """ready rises, the result is read, acknowledged, ready falls."""
        self.state(1)
        for _ in range(reads):
            self.result(count, force, ok, **values)
        self.state(1)
        self.state(0)
        return self

    def _take(self, outcome: Outcome) -> list[tuple[Kind, dict[str, Any]]]:
        self.last = []
        for record in outcome.records:
            body = orjson.loads(orjson.dumps(record.body))
            seq = self.seq
            self.records.append((seq, record, body))
            self.registry.project(seq, record, body)
            self.last.append((record.kind, body))
        self.effects += outcome.effects
        return self.last

    # --- what came of it ---------------------------------------------------------------------------------------

    def of(self, kind: Kind) -> list[dict[str, Any]]:
        return [body for _, record, body in self.records if record.kind is kind]

    def closed(self) -> list[dict[str, Any]]:
        return self.of(Kind.CYCLE_CLOSED)

    def findings(self) -> list[str]:
        return [body["code"] for body in self.of(Kind.FINDING)]

    def reads(self) -> list[str]:
        """Groups asked for since the last call."""
        asked = [effect.group for effect in self.effects if isinstance(effect, ReadGroup)]
        self.effects = [effect for effect in self.effects if not isinstance(effect, ReadGroup)]
        return asked

    def writes(self) -> list[Value]:
        """Values written to the ack since the last call."""
        written = [effect.value for effect in self.effects if isinstance(effect, Write)]
        self.effects = [effect for effect in self.effects if not isinstance(effect, Write)]
        return written

    def binding(self, cycle: str | None = None) -> dict[str, Any]:
        """The newest binding of a cycle, or the newest of all."""
        found: dict[str, Any] = [one for one in self.of(Kind.BINDING) if cycle in (None, one["cycle"])][-1]
        return found

    def serial_of(self, seq: int, source: str) -> list[tuple[str, str]]:
        """(state, serial) of every closed cycle that has sample ``seq`` of ``source`` in a window."""
        found = []
        for name, cycle in self.registry.cycles.items():
            if any(first <= seq <= last for first, last in cycle["windows"].get(source, [])):
                binding = self.registry.cycles[name]["binding"]
                found.append((binding["state"], binding.get("serial", "")))
        return found
