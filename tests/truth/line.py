"""One PC of a line: its clock, its devices, the agent under test, and what people and machines do, by one seed.

It loads a real configuration, drives the real binder with samples, scans, gaps, ticks and restarts, and projects every
record with the real projection into a database whose registry the binder asks: a restart is a new binder on what that
database restores. Nothing is mocked but time and the wires.

Everything happens in the order of one clock. A *script* is a generator: it yields seconds to wait, or something that
all scripts of the PC wait for together (a barrier, a restart). A device answers one read after the other; what it
says is ``tags``, as the script's machine sets them. Records reach the database in groups, some ms late, as with a
group commit; a crash loses the last group.
"""

from __future__ import annotations

import heapq
import random
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import orjson

from edge_agent.binding import Binder, Outcome, ReadGroup, Restored, Write
from edge_agent.binding.action import Action
from edge_agent.buffer import schema
from edge_agent.buffer.projection import Projection, Sources
from edge_agent.buffer.registry import Registry
from edge_agent.buffer.restoring import restored
from edge_agent.config.load import Config
from edge_agent.model import Instant, Kind, Record, Sample, Scan, ScanStatus, TagSet

MS = 1_000_000
SECOND = 1000 * MS
EPOCH_NS = 1_795_000_000 * SECOND
TICK_S = 0.25
ON_TRIGGER_S = 0.004

Script = Iterator["float | Barrier | Restart"]


@dataclass(frozen=True)
class Barrier:
    """Wait until all scripts of the PC stand at one."""


@dataclass(frozen=True)
class Restart:
    """The agent dies, and starts again some seconds later. ``unseen``: what happens meanwhile."""

    unseen: Callable[[], None] = lambda: None


@dataclass
class Device:
    """What answers at the other end of a wire."""

    name: str
    groups: dict[str, TagSet]
    polls: dict[str, float]
    tags: dict[str, Any] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)
    busy_until: int = 0
    silent_until: int = 0
    offline: bool = False
    noticed: bool = False
    read_ok: Instant | None = None  # end of the newest read
    hold_writes: bool = False
    on_write: list[Callable[[str, Any], None]] = field(default_factory=list)
    on_read: list[Callable[[str], None]] = field(default_factory=list)


class Line:
    """See the module docstring. ``take``: where the receiver gets each committed record, with its seq."""

    def __init__(self, config: Config, chance: random.Random, take: Callable[[int, Record], None]) -> None:
        self.config = config
        self.chance = chance
        self.mono_ns = 1000 * SECOND
        self.wall_ns = EPOCH_NS
        self.readings = 0
        self.restarts = 0
        self.next_seq = 1
        self.devices = {name: _device(name, config) for name in config.devices}
        self.binder: Binder = None  # type: ignore[assignment]
        self._take_record = take
        self._events: list[tuple[int, int, int | None, Callable[[], None]]] = []
        self._order = 0
        self._life = 0
        self._scripts = 0
        self._parked: list[tuple[Script, Barrier | Restart]] = []
        self._batch: list[tuple[int, Record, bytes]] = []
        self._batch_until = 0
        self._db = sqlite3.connect(":memory:", isolation_level=None)
        schema.create(self._db)
        self._sources = Sources(self._db)
        self._projection = Projection(self._db, self._sources)
        self.registry = Registry(self._db)

    # --- time ----------------------------------------------------------------------------------------------------

    @property
    def now(self) -> Instant:
        return Instant(self.wall_ns + self.mono_ns, self.mono_ns)

    def step_clock(self, seconds: float) -> None:
        self.wall_ns += int(seconds * SECOND)

    def after(self, seconds: float, what: Callable[[], None], *, agent: bool = False) -> None:
        """Do it later; what the agent does of itself ends with its life."""
        self._order += 1
        at = self.mono_ns + int(seconds * SECOND)
        heapq.heappush(self._events, (at, self._order, self._life if agent else None, what))

    def start(self) -> None:
        """The agent's first start."""
        self._start(Restored())

    def run(self, *scripts: Script) -> None:
        """All scripts, to their ends."""
        self._scripts = len(scripts)
        for script in scripts:
            self.after(self.chance.uniform(0.3, 1.0), lambda script=script: self._advance(script))
        while self._scripts:
            at, _, life, what = heapq.heappop(self._events)
            self.mono_ns = max(self.mono_ns, at)
            if life is None or life == self._life:
                what()
        self.commit()

    def close(self) -> None:
        self._db.close()

    def _advance(self, script: Script) -> None:
        try:
            wanted = next(script)
        except StopIteration:
            self._scripts -= 1
        else:
            if isinstance(wanted, (Barrier, Restart)):
                self._parked.append((script, wanted))
            else:
                self.after(wanted, lambda: self._advance(script))
        if self._parked and len(self._parked) == self._scripts:
            self._release()

    def _release(self) -> None:
        parked, self._parked = self._parked, []
        unseen = [wanted.unseen for _, wanted in parked if isinstance(wanted, Restart)]
        if unseen:
            self.restart(unseen)
        for script, _ in parked:
            self.after(self.chance.uniform(0.3, 0.8), lambda script=script: self._advance(script))

    # --- the agent's life ----------------------------------------------------------------------------------------

    def restart(self, unseen: list[Callable[[], None]]) -> None:
        """Killed: what was not committed is gone, and so is what was to be done."""
        self._batch.clear()
        self.next_seq = (self._db.execute("SELECT max(seq) FROM record").fetchone()[0] or 0) + 1
        self._life += 1
        self.restarts += 1
        for what in unseen:
            what()
        self.mono_ns += int(self.chance.choice([0.5, 3.0, 20.0, 45.0]) * SECOND)
        for device in self.devices.values():
            device.busy_until, device.noticed, device.hold_writes, device.read_ok = 0, False, False, None
        self._projection = Projection(self._db, self._sources)
        self.registry = Registry(self._db)
        self._start(None)

    def _start(self, known: Restored | None) -> None:
        log = f"{self.chance.getrandbits(48):012x}"
        opened = {"log": log, "agent": "truth", "boot": "b", "host": "h", "version": "0", "reason": "start"}
        self._append([Record(Kind.LOG_OPENED, "agent", self.now, opened)])
        self._append([Record(Kind.CONFIG, "agent", self.now, self.config.describe())])
        for device in self.devices.values():
            for one in device.groups.values():
                body = {"tagset": one.id, **one.describe()}
                self._append([Record(Kind.TAGSET, one.source, self.now, body)])
        self.commit()
        known = restored(self._db) if known is None else known
        self.binder = Binder(self.config.plan, log, self.config.id, self.registry, known)
        self.take(self.binder.start(self.now, self.next_seq))
        self.after(TICK_S, self._tick, agent=True)
        for device in self.devices.values():
            for group, poll_s in device.polls.items():
                self.after(self.chance.uniform(0.02, 0.2), self._poller(device, group, poll_s), agent=True)

    def _tick(self) -> None:
        self.take(self.binder.on_tick(self.now, self.next_seq))
        self.commit()
        self.after(TICK_S, self._tick, agent=True)

    # --- devices -------------------------------------------------------------------------------------------------

    def _poller(self, device: Device, group: str, poll_s: float) -> Callable[[], None]:
        def poll() -> None:
            if device.offline:
                self._notice(device)
            else:
                device.noticed = False
                self._read(device, group, 0.002)
            self.after(poll_s, poll, agent=True)

        return poll

    def _notice(self, device: Device) -> None:
        if not device.noticed:
            device.noticed = True
            self.take(self.binder.on_gap(device.name, device.read_ok or self.now, self.now, "lost", self.next_seq))

    def lose(self, name: str, seconds: float) -> None:
        """The connection to a device is gone for a while."""
        device = self.devices[name]
        device.offline = True

        def back() -> None:
            device.offline = False

        self.after(seconds, back)

    def lose_reader(self, name: str) -> None:
        """An event device was away, and is back."""
        self.take(self.binder.on_gap(name, self.now, self.now, "lost", self.next_seq))

    def silence(self, name: str, seconds: float) -> None:
        """The device answers what it is asked only then."""
        self.devices[name].silent_until = self.mono_ns + int(seconds * SECOND)

    def _read(self, device: Device, group: str, took_s: float) -> None:
        """A read that begins as soon as the device is free; the values are of its beginning."""
        free = max(self.mono_ns, device.busy_until)
        end = max(free + int(took_s * SECOND), device.silent_until)
        device.busy_until = end + 100_000

        def begin() -> None:
            for hook in device.on_read:
                hook(group)
            started = self.mono_ns
            values, status = self._values(device, group)
            self.after(
                (end - started) / SECOND, lambda: self._deliver(device, group, started, values, status), agent=True
            )

        self.after((free - self.mono_ns) / SECOND, begin, agent=True)

    def _values(self, device: Device, group: str) -> tuple[tuple[Any, ...], dict[int, str] | None]:
        names = [tag.name for tag in device.groups[group].tags]
        values = tuple([None if name in device.refused else device.tags.get(name, 0) for name in names])
        status = {index: "exception 2" for index, name in enumerate(names) if name in device.refused}
        return values, status or None

    def _deliver(
        self, device: Device, group: str, started: int, values: tuple[Any, ...], status: dict[int, str] | None
    ) -> None:
        if device.offline:
            self._notice(device)
            return
        device.read_ok = self.now
        self.readings += len(values)
        self.take(self.binder.on_sample(Sample(device.groups[group], self.now, started, values, status), self.next_seq))

    def push(self, name: str, group: str) -> None:
        """A device speaks by itself, now."""
        device = self.devices[name]
        values, status = self._values(device, group)
        self._deliver(device, group, self.mono_ns, values, status)

    def scan(self, reader: str, text: str | bytes, status: ScanStatus = ScanStatus.READ) -> None:
        """A reader says something, now."""
        raw = text.encode() if isinstance(text, str) else text
        self.readings += 1
        self.take(self.binder.on_scan(Scan(reader, self.now, raw, status), self.next_seq))

    def act(self, action: Action) -> dict[str, Any]:
        """What people and other systems do."""
        outcome, answer = self.binder.act(action, self.now, self.next_seq)
        self.take(outcome)
        return answer

    # --- what the agent says ---------------------------------------------------------------------------------------

    def take(self, outcome: Outcome) -> None:
        """Records to the log, effects to the devices."""
        self._append(outcome.records)
        for effect in outcome.effects:
            if isinstance(effect, ReadGroup):
                name, _, group = effect.group.partition(".")
                device = self.devices[name]
                self.after(0.0005, lambda d=device, g=group: self._read(d, g, ON_TRIGGER_S), agent=True)
            elif isinstance(effect, Write):
                self.commit()
                name, _, tag = effect.tag.partition(".")
                values = [(one.partition(".")[2], value) for one, value in effect.before] + [(tag, effect.value)]
                self.after(0.003, lambda d=self.devices[name], v=values: self._write(d, v), agent=True)

    def _write(self, device: Device, values: list[tuple[str, Any]]) -> None:
        if device.hold_writes or device.offline:
            return
        for tag, value in values:
            device.tags[tag] = value
            for hook in device.on_write:
                hook(tag, value)

    def _append(self, records: list[Record]) -> None:
        for record in records:
            if record.kind is not Kind.SAMPLE:
                self.registry.appended(self.next_seq, record)
            self._batch.append((self.next_seq, record, orjson.dumps(record.body)))
            self.next_seq += 1
        if self._batch and self.mono_ns >= self._batch_until:
            self.commit()
            self._batch_until = self.mono_ns + self.chance.choice([1, 5, 30, 80]) * MS

    def commit(self) -> None:
        """What was appended becomes durable, and is delivered."""
        if not self._batch:
            return
        batch, self._batch = self._batch, []
        execute = self._db.execute
        execute("BEGIN")
        self._projection.begin()
        rows = [
            (seq, int(record.kind), self._sources.id(record.source), record.at.at_ns, record.at.mono_ns, 1, body, b"")
            for seq, record, body in batch
        ]
        self._db.executemany("INSERT INTO record VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
        self._projection.apply(batch)
        execute("COMMIT")
        self.registry.committed(batch[-1][0])
        for seq, record, _ in batch:
            self._take_record(seq, record)


def _device(name: str, config: Config) -> Device:
    groups = config.devices[name].shape.groups
    polls = {one.tagset.group: one.poll_s for one in groups.values() if one.poll_s is not None}
    return Device(name, {one.tagset.group: one.tagset for one in groups.values()}, polls)
