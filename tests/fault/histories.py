"""Random histories of a buffer, each from a seed that is printed.

    python tests/fault/histories.py --seed 1 --steps 500

A history appends cycles, samples and scans, lets several routes with filters of their own come, go, deliver, refuse,
split and ask again, steps the clock, fills the buffer and relieves it, restarts, and is killed in the middle of
retention. The model knows what each lane has to hold. After every step:

- each record that a lane wants is delivered, or readable under the number it had, or a dead letter, or in a hole
  that a drop record names; the drops of a step say exactly how many that are;
- the numbers of a stream are dense and never change; the ledger verifies; the database is below its cap, or says why;
- the samples of open cycles and recent dead letters are there; nothing young or undelivered goes by age.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest import mock

import orjson

sys.path[:0] = [str(Path(__file__).parents[1])]

from edge_agent import clock  # noqa: E402
from edge_agent.buffer import TOMBSTONE, Buffer, Lane, RouteFilter, open_readonly, writer  # noqa: E402
from edge_agent.buffer import lanes as lanes_sql  # noqa: E402
from edge_agent.buffer.lanes import STATION_KINDS  # noqa: E402
from edge_agent.buffer.queries import Passed, Reader  # noqa: E402
from edge_agent.model import Instant, Kind, Record  # noqa: E402
from support.buffer_rig import ALL, PRESS, closing, opened, opening, preamble  # noqa: E402

HOUR_NS = 3600 * 10**9
DAY_NS = 24 * HOUR_NS
KEEP_H = 2
FILTERS = {
    "all": ALL,
    "samples": RouteFilter(frozenset({Kind.SAMPLE, Kind.DROP})),
    "station": RouteFilter(frozenset({Kind.CYCLE_CLOSED, Kind.SCAN, Kind.BINDING}), frozenset({"OP99"})),
    "facts": RouteFilter(frozenset(Kind) - {Kind.SAMPLE}, frozenset({"OP20"})),
}
KILLS = ("retention_before_delete", "retention_after_delete", "before_commit", "after_commit", "progress_after")


@dataclass
class Known:
    """What the model knows of a lane."""

    lane: Lane
    wanted: list[int] = field(default_factory=list)  # seqs, in order: the n of each is its place
    extra: dict[int, int] = field(default_factory=dict)  # a replay's "no longer kept": last seq -> numbers
    confirmed: int = 0  # seq up to which its receiver has everything
    read: tuple[int, int] = (0, 0)  # what was read in this run: seq, n
    window: list[tuple[int, int]] = field(default_factory=list)  # (seq, n) that were read and not confirmed


@dataclass
class World:
    """The model, and the buffer under test."""

    data_dir: Path
    chance: random.Random
    records: dict[int, tuple[int, str, int, int, bool]] = field(default_factory=dict)  # kind, source, at, bytes, synced
    lanes: dict[int, Known] = field(default_factory=dict)
    letters: dict[tuple[int, int], tuple[int, int]] = field(default_factory=dict)  # (lane, n) -> seq, at (0: untrusted)
    delivered: dict[str, set[int]] = field(default_factory=dict)
    open: dict[str, list[int]] = field(default_factory=dict)  # cycle -> samples
    owned: set[int] = field(default_factory=set)  # samples of any cycle
    elsewhere: set[int] = field(default_factory=set)  # seqs of a run that was killed: it may have deleted them
    expired: set[int] = field(default_factory=set)  # dead letters that were seen to go in their time
    told: dict[int, set[int]] = field(default_factory=dict)  # what the lanes held that such a run made
    drops: list[dict[str, Any]] = field(default_factory=list)
    head: int = 0
    offset_ns: int = 0
    synced: bool = True
    limits: dict[str, int] = field(default_factory=dict)
    detached: set[str] = field(default_factory=set)
    buffer: Buffer = None  # type: ignore[assignment]
    serial: int = 0

    # --- the clock -------------------------------------------------------------------------------------------

    def now(self) -> Instant:
        return Instant(time.time_ns() + self.offset_ns, time.monotonic_ns())

    # --- looking at the file ---------------------------------------------------------------------------------

    def ask(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        with contextlib.closing(sqlite3.connect(f"file:{self.data_dir}/buffer.db?mode=ro", uri=True)) as db:
            return db.execute(sql, values).fetchall()

    def stored(self) -> set[int]:
        return {seq for (seq,) in self.ask("SELECT seq FROM record")}

    def learn(self) -> list[dict[str, Any]]:
        """Take note of what was appended since the last look; returns the drops among it."""
        sql = (
            "SELECT r.seq, r.kind, s.name, r.at_ns, length(r.body) + 60, r.synced, CASE r.kind WHEN ? THEN r.body END"
            " FROM record r JOIN source s ON s.id = r.source WHERE r.seq > ? ORDER BY r.seq"
        )
        new = []
        for seq, kind, source, at_ns, size, synced, body in self.ask(sql, int(Kind.DROP), self.head):
            self.records[seq] = (kind, source, at_ns, size, bool(synced))
            self.head = seq
            if body:
                new.append(orjson.loads(body))
            for known in self.lanes.values():
                if known.lane.purpose == "log" and known.lane.to_seq is None and self.passes(known.lane, seq):
                    known.wanted.append(seq)
        self.drops += new
        return new

    def passes(self, lane: Lane, seq: int) -> bool:
        kind, source, *_ = self.records[seq]
        if seq < lane.from_seq or kind not in lane.filter.kinds:
            return False
        allowed = lane.filter.stations
        return allowed is None or kind not in STATION_KINDS or source != "OP20" or source in allowed

    def meet(self, lanes: list[Lane]) -> None:
        """Lanes that the buffer gave out; new ones hold what is stored of their range now."""
        self.learn()
        for lane in lanes:
            known = self.lanes.get(lane.id)
            if known is None:
                known = self.lanes[lane.id] = Known(lane)
                end = self.head if lane.to_seq is None else lane.to_seq
                if lane.purpose == "retry":
                    known.wanted = [
                        seq for (seq,) in self.ask("SELECT seq FROM pick WHERE lane = ? ORDER BY 1", lane.id)
                    ]
                else:
                    stored = self.stored() | self.elsewhere | self.told.get(lane.id, set())
                    range_ = range(lane.from_seq, end + 1)
                    between = "SELECT first_seq, last_seq FROM hole WHERE lane = ? AND reason = 'not asked for'"
                    stored -= {seq for first, last in self.ask(between, lane.id) for seq in range(first, last + 1)}
                    known.wanted = [seq for seq in range_ if seq in stored and self.passes(lane, seq)]
                if lane.purpose != "log":
                    sql = "SELECT last_seq, count FROM hole WHERE lane = ?"
                    known.extra = dict(self.ask(sql, lane.id))
            known.lane = lane
            known.read, known.window = (lane.seq, lane.n), []

    def numbers(self, known: Known) -> dict[int, int]:
        """seq -> n, as the stream has to number them."""
        merged = sorted([(seq, 1) for seq in known.wanted] + list(known.extra.items()))
        n, result = 0, {}
        for seq, count in merged:
            n += count
            result[seq] = n
        return result

    # --- what may happen -------------------------------------------------------------------------------------

    async def settle(self) -> None:
        if self.buffer.writer.held is None:
            await asyncio.wait_for(self.buffer.committed(self.buffer.next_seq - 1), 20)
        for _ in range(200):
            if not (self.buffer.writer._progress or self.buffer.writer._dead):
                break
            await asyncio.sleep(0.005)
        await asyncio.wrap_future(self.buffer.writer.chore(lambda db: None))  # what was taken is committed by then

    async def attach(self, names: set[str]) -> None:
        for name in sorted(names):
            limit = self.limits.get(name)
            await asyncio.to_thread(self.buffer.lanes, name, "oldest", FILTERS[name], max_backlog=limit)
            if limit is None:
                self.buffer.upkeep.retention.backlogs.pop(name, None)
            self.detached.discard(name)
        self.meet_all()

    def meet_all(self) -> None:
        """Take up every lane that there is: cursors and ends as they are stored."""
        found = []
        with contextlib.closing(sqlite3.connect(f"file:{self.data_dir}/buffer.db?mode=ro", uri=True)) as db:
            for (name,) in db.execute("SELECT DISTINCT route FROM lane").fetchall():
                found += lanes_sql.unfinished(db, name)
        self.meet(found)

    async def append(self) -> None:
        chance, buffer = self.chance, self.buffer
        if buffer.writer.held is not None:
            return
        for _ in range(chance.randint(1, 12)):
            what = chance.random()
            age_ns = round(chance.choice([0, 0, KEEP_H - 0.1, KEEP_H + 0.1, 50]) * HOUR_NS)
            at = Instant(self.now().at_ns - age_ns, time.monotonic_ns())
            if what < 0.15 and len(self.open) < 3:
                self.serial += 1
                records, cycle, _ = opening(buffer, f"SN{self.serial}")
                buffer.append([*records])
                self.open[cycle] = []
            elif what < 0.3 and self.open:
                cycle = chance.choice(sorted(self.open))
                seqs = self.open.pop(cycle)
                windows = {PRESS.source: [[seq, seq] for seq in seqs]}
                buffer.append([closing(cycle, windows)])
            elif what < 0.4:
                buffer.append([Record(Kind.SCAN, "gate", at, {"status": "read", "text": "x" * chance.randint(0, 300)})])
            else:
                for _ in range(chance.randint(1, 15)):
                    cycles = [cycle for cycle in self.open if chance.random() < 0.4]
                    body = {"tagset": PRESS.id, "took_us": 1, "values": ["x" * chance.choice([0, 30, 2000]), True, 0]}
                    seq = buffer.append([Record(Kind.SAMPLE, PRESS.source, at, body, tuple(cycles))])
                    for cycle in cycles:
                        self.open[cycle].append(seq)
                        self.owned.add(seq)

    async def deliver(self) -> None:
        """A route reads on, and its receiver confirms, or refuses, some of it."""
        lanes = [
            known for known in self.lanes.values() if self.is_open(known) and known.lane.route not in self.detached
        ]
        if not lanes:
            return
        known = self.chance.choice(lanes)
        lane = known.lane
        reader = self.buffer.reader()
        seq, n = known.read
        rows = reader.rows(lane, seq, self.buffer.durable_seq, self.chance.randint(1, 200), 2**20)
        reader.close()
        for row in rows:
            n += orjson.loads(row.body)["count"] if row.kind == TOMBSTONE else 1
            seq = row.seq
            known.window.append((seq, n if row.kind != TOMBSTONE else -n))
        known.read = (seq, n)
        numbers = self.numbers(known)
        for place in range(self.chance.randint(0, len(known.window))):
            at_seq, number = known.window[place]
            if number > 0:
                assert numbers[at_seq] == number, f"{lane.stream}: seq {at_seq} is {number}, was {numbers[at_seq]}"
            if number > 0 and self.chance.random() < 0.02:
                self.buffer.dead_letter(lane, number, at_seq, "refused")
                self.letters[lane.id, number] = (at_seq, self.now().at_ns if self.synced else 0)
            elif number > 0:
                self.delivered.setdefault(lane.route, set()).add(at_seq)
            self.buffer.progress(lane, at_seq, abs(number))
            known.confirmed = place + 1
        del known.window[: known.confirmed]
        known.confirmed = 0
        if not rows and not known.window:  # nothing more of it passes the filter
            self.buffer.progress(lane, self.head if lane.to_seq is None else lane.to_seq, n)

    def is_open(self, known: Known) -> bool:
        row = self.ask("SELECT seq, to_seq FROM lane WHERE id = ?", known.lane.id)
        return bool(row) and (row[0][1] is None or row[0][0] < row[0][1])

    async def again(self) -> None:
        """A range, or a few dead letters, once more; or a lane is cut."""
        attached = sorted(set(FILTERS) - self.detached)
        if not attached:
            return
        route = self.chance.choice(attached)
        what = self.chance.random()
        if what < 0.4:
            first = self.chance.randint(1, max(1, self.head))
            made = await asyncio.to_thread(
                self.buffer.replay, route, first_seq=first, last_seq=min(self.head, first + self.chance.randint(0, 60))
            )
            self.meet(made)
        elif what < 0.6:
            seqs = [seq for (lane, _), (seq, _) in self.letters.items() if lane in self.lanes
                    and self.lanes[lane].lane.route == route][:3]  # fmt: skip
            if seqs:
                retry = {"purpose": "retry", "first_seq": 1, "last_seq": self.head, "seqs": seqs}
                self.meet(await asyncio.to_thread(lambda: self.buffer.replay(route, **retry)))
        else:
            growing = [
                known for known in self.lanes.values() if known.lane.route == route and known.lane.to_seq is None
            ]
            new = await asyncio.to_thread(self.buffer.split, growing[0].lane) if growing else None
            if new is not None:
                before = growing[0].read, growing[0].window
                self.meet_all_but(growing[0], *before)

    def meet_all_but(self, known: Known, read: tuple[int, int], window: list[tuple[int, int]]) -> None:
        """After a split: the lane that ended goes on where its route was."""
        others = {id: (other.read, other.window) for id, other in self.lanes.items()}
        self.meet_all()
        for id, (was_read, was_window) in others.items():
            if self.lanes[id].lane.route not in self.detached:
                self.lanes[id].read, self.lanes[id].window = was_read, was_window
        known.read, known.window = read, window

    async def give_up_route(self) -> None:
        route = self.chance.choice(sorted(FILTERS))
        if not self.ask("SELECT 1 FROM route WHERE name = ?", route) or self.buffer.writer.held is not None:
            return
        passed = self.buffer.passed.seq
        pairs = [
            (id, seq) for id, seqs in self.readable().items() if self.lanes[id].lane.route == route for seq in seqs
        ]
        mine = sum(seq > passed.get(id, 0) for id, seq in pairs)
        detached = self.ask("SELECT attached FROM route WHERE name = ?", route) == [(0,)]
        given = await self.buffer.drop_route(route, "nobody wants it")
        if detached:
            self.letters = {key: letter for key, letter in self.letters.items()
                            if key[0] not in self.lanes or self.lanes[key[0]].lane.route != route}  # fmt: skip
            assert not self.ask("SELECT 1 FROM route WHERE name = ?", route)
        new = [drop for drop in self.learn() if drop["reason"] == "nobody wants it"]
        assert sum(sum(drop["kinds"].values()) for drop in new) == given, (new, given)
        assert detached or given == mine, (given, mine)
        left = sum(len(left) for id, left in self.readable().items() if self.lanes[id].lane.route == route)
        if detached:  # gone with all it had; what was given counts its dead letters as well
            assert left == 0, left
        else:
            assert left <= len(pairs) - given + len(new), left  # in flight; and the drops themselves are news to it

    async def step_clock(self) -> None:
        self.synced = self.chance.random() < 0.6
        hours = self.chance.choice([0, 0, 1, -1, 3, 40 * 24]) if self.synced else self.chance.choice([0, -490_000, 24])
        self.offset_ns = hours * HOUR_NS
        self.buffer.writer._synced_s = -1.0
        if self.synced:
            self.buffer.writer.untrusted_letters = True
            await self.buffer.upkeep._trust_letters()
            now_ns = self.now().at_ns
            self.letters = {key: (seq, at or now_ns) for key, (seq, at) in self.letters.items()}

    # --- retention, and what it has to keep ------------------------------------------------------------------

    def readable(self) -> dict[int, list[int]]:
        """What each unfinished lane would still give, and that its numbers are right."""
        result = {}
        reader = Reader(self.data_dir / "buffer.db", Passed(), lambda why: None)
        for id, known in self.lanes.items():
            row = self.ask("SELECT seq, n, to_seq FROM lane WHERE id = ?", id)
            if not row:
                continue
            seq, n, to_seq = row[0]
            numbers = self.numbers(known)
            if not (to_seq is not None and seq >= to_seq):
                expected = max((number for at, number in numbers.items() if at <= seq), default=0)
                assert n == expected, (known.lane, seq, n, expected, sorted(numbers)[:9], sorted(numbers)[-9:])
            left = []
            while to_seq is None or seq < to_seq:
                rows = reader.rows(known.lane, seq, self.head, 500, 2**22)
                if not rows:
                    break
                for item in rows:
                    n += orjson.loads(item.body)["count"] if item.kind == TOMBSTONE else 1
                    if item.kind != TOMBSTONE:
                        assert numbers[item.seq] == n, (known.lane.stream, item.seq, numbers[item.seq], n)
                        left.append(item.seq)
                seq = rows[-1].seq
            if to_seq is None or seq < to_seq or left:
                assert n == max(numbers.values(), default=0), (known.lane.stream, n, max(numbers.values(), default=0))
            result[id] = left
        reader.close()
        return result

    def check(self) -> None:
        """The invariants that hold at any time."""
        self.learn()
        readable, stored = self.readable(), self.stored()
        dead: dict[str, set[int]] = {}
        for route, seq in self.ask("SELECT route, seq FROM dead_letter"):
            dead.setdefault(route, set()).add(seq)
        dropped: dict[str | None, set[int]] = {}
        for drop in self.drops:
            dropped.setdefault(drop.get("route"), set()).update(range(drop["first_seq"], drop["last_seq"] + 1))
        for id, known in self.lanes.items():
            route = known.lane.route
            accounted = set(readable.get(id, ())) | self.delivered.get(route, set()) | dead.get(route, set())
            accounted |= dropped.get(route, set()) | dropped.get(None, set())
            if known.lane.purpose == "log":
                assert set(known.wanted) <= accounted, (known.lane.stream, sorted(set(known.wanted) - accounted)[:9])
        for cycle, seqs in self.open.items():
            assert set(seqs) <= stored, f"samples of the open cycle {cycle} are gone"
        for (lane, n), (seq, at_ns) in self.letters.items():
            if self.ask("SELECT 1 FROM dead_letter WHERE lane = ? AND n = ?", lane, n):
                assert seq in stored, f"the record of dead letter {lane}/{n}, seq {seq}, is gone"
            elif not self.synced or not at_ns or at_ns > self.now().at_ns - 30 * DAY_NS:
                assert seq in self.expired, f"dead letter {lane}/{n}, seq {seq}, is gone"
            else:
                self.expired.add(seq)
        archive = open_readonly(self.data_dir)
        verdict = archive.verify()
        archive.close()
        assert verdict.intact and not verdict.unlinked, verdict

    def pending_bytes(self, route: str, readable: dict[int, list[int]]) -> int:
        mine = [id for id in readable if self.lanes[id].lane.route == route and self.lanes[id].lane.purpose == "log"]
        passed = self.buffer.passed.seq
        return sum(self.records[seq][3] for id in mine for seq in readable[id] if seq > passed.get(id, 0))

    async def retain(self) -> None:
        """One tick of retention, and that it did nothing else than it says."""
        retention, chance = self.buffer.upkeep.retention, self.chance
        if chance.random() < 0.3:
            retention._sweep_s = -1e9  # as an hour later
        await self.settle()
        self.learn()
        before, stored, head = self.readable(), self.stored(), self.head
        full = retention.is_full()
        await asyncio.wait_for(retention.step(), 60)
        await self.settle()
        drops = self.learn()
        after, left = self.readable(), self.stored()
        gone = stored - left
        drops = [drop for drop in drops if "not stored" not in drop["reason"] and "dead letters" not in drop["reason"]]
        kinds = [sum(drop["kinds"].values()) for drop in drops]
        mine = {drop.get("route") for drop in drops}
        if mine == {None}:
            wanted = {seq for seqs in before.values() for seq in seqs}
            assert sum(kinds) == len(wanted & gone), (drops, len(wanted & gone))
            if all("no cycle" in drop["reason"] for drop in drops):
                assert not wanted & gone & self.owned
        elif len(mine) == 1:
            (route,) = mine
            pairs = sum(len(set(seqs) - set(after.get(id, ()))) for id, seqs in before.items()
                        if self.lanes[id].lane.route == route)  # fmt: skip
            assert sum(kinds) == pairs, (drops, pairs)
        if not full and not drops:
            assert self.synced or not gone
            limit_ns = self.now().at_ns - KEEP_H * HOUR_NS
            assert all(not self.records[seq][4] or self.records[seq][2] < limit_ns for seq in gone)
        if full and not retention.is_full() and self.buffer.writer.held is not None:
            raise AssertionError("held, though there is room")
        assert self.buffer.upkeep.used() <= self.buffer.settings.max_size or self.buffer.writer.held is not None
        news = sum(self.records[seq][3] for seq in self.records if seq > head)
        for route, limit in self.limits.items():
            if route in self.detached or not before:
                continue
            was, now = self.pending_bytes(route, before), self.pending_bytes(route, after)
            if route in retention.backlogs and self.buffer.upkeep.used() > limit:
                assert now <= limit + news, (route, now, limit)
            if mine == {route} and was > limit:
                biggest = max(self.records[seq][3] for seq in self.records)
                assert now >= 0.95 * limit - 2 * biggest, (route, was, now, limit)

    async def squeeze(self) -> None:
        """The cap, or the disk's floor, comes nearer or moves away."""
        used, buffer = self.buffer.upkeep.used(), self.buffer
        change: dict[str, Any] = {"max_size": 10**9, "min_free": 10**6}
        what = self.chance.random()
        if what < 0.5:
            change["max_size"] = round(used * self.chance.uniform(0.6, 1.1))
        elif what < 0.6:
            change["min_free"] = 2**60
        buffer.settings = buffer.settings.model_copy(update=change)

    async def limit_route(self) -> None:
        route = self.chance.choice(sorted(FILTERS))
        if self.chance.random() < 0.6:
            self.limits[route] = self.chance.randint(5_000, 80_000)
        else:
            self.limits.pop(route, None)
        self.buffer.upkeep.retention.backlogs = {
            name: limit for name, limit in self.limits.items() if name not in self.detached
        }

    async def tidy(self) -> None:
        await self.buffer.upkeep._tidy()
        await self.buffer.upkeep._count_on()
        kept = {id for (id,) in self.ask("SELECT id FROM lane")}
        self.lanes = {id: known for id, known in self.lanes.items() if id in kept}
        if self.buffer.writer.held is None and not self.buffer.shedding:
            await self.settle()
            pending = self.buffer.stats()["pending"]
            left = Counter(dict.fromkeys(pending, 0))
            for id, seqs in self.readable().items():
                left[self.lanes[id].lane.route] += len(seqs)
            for route, number in left.items():
                assert number <= pending.get(route, 0), (route, number, pending)


STEPS = (
    (30, World.append), (30, World.deliver), (20, World.retain), (4, World.squeeze), (4, World.again),
    (3, World.limit_route), (3, World.step_clock), (3, World.tidy), (1, World.give_up_route),
)  # fmt: skip


async def history(data_dir: Path, seed: int, steps: int, *, kills: bool = True, say: bool = False) -> Counter[str]:
    """Play one; raises AssertionError where something is lost. Returns how often each thing happened."""
    world = World(data_dir, random.Random(seed))
    done: Counter[str] = Counter()
    with mock.patch.object(clock, "now", world.now), mock.patch.object(clock, "synchronised", lambda: world.synced), \
         mock.patch.object(writer, "PROGRESS_S", 0.002):  # fmt: skip
        while done.total() < steps:
            async with opened(data_dir, keep=f"{KEEP_H}h") as world.buffer:
                await begin(world, bool(done))
                for _ in range(world.chance.randint(10, 60)):
                    (step,) = world.chance.choices([step for _, step in STEPS], [weight for weight, _ in STEPS])
                    done[step.__name__] += 1
                    if say:
                        print(done.total(), step.__name__, flush=True)
                    await step(world)
                    await world.settle()
                    world.check()
                world.buffer.settings = world.buffer.settings.model_copy(update={"max_size": 10**9, "min_free": 10**6})
                await world.retain()
            world.learn()
            for known in world.lanes.values():
                if known.lane.to_seq is None:
                    known.lane = replace(known.lane, to_seq=world.head)
            done["restart"] += 1
            if kills and world.chance.random() < 0.4:
                done["kill"] += kill(world)
        done["drops"] = len(world.drops)
        done["records"] = len(world.records)
    return done


async def begin(world: World, known: bool) -> None:
    """A start: some routes are in the config, others are not any more."""
    world.learn()
    names = {name for name in FILTERS if world.chance.random() < 0.8} or {"all"}
    await world.attach(names)
    if not known:
        world.buffer.append(preamble())
    world.detached = {name for name in FILTERS if name not in names}
    await world.settle()
    await world.buffer.upkeep.detach()
    world.meet_all()
    world.elsewhere.clear()
    lost = [cycle for cycle in world.open if not world.ask("SELECT 1 FROM cycle WHERE cycle = ?", cycle)]
    for cycle in lost:  # its opening was not committed before a kill
        del world.open[cycle]
    world.check()


def kill(world: World) -> int:
    """Let a process of its own work on the buffer until it dies at a step of retention or of a commit."""
    step = f"{world.chance.choice(KILLS)}:{world.chance.randint(1, 6)}"
    arguments = [str(world.data_dir), str(world.chance.randrange(2**32)), str(world.offset_ns), str(int(world.synced))]
    environment = os.environ | {"EDGE_AGENT_KILL_AT": step}
    command = [sys.executable, __file__, "--child", *arguments]
    child = subprocess.run(command, env=environment, capture_output=True, timeout=120, check=False)
    assert child.returncode in (0, -signal.SIGKILL), child.stderr.decode()
    for line in child.stdout.splitlines():
        what, *values = orjson.loads(line)
        if what == "delivered":
            world.delivered.setdefault(values[0], set()).update(values[1])
        elif what == "lane":
            world.told[values[0]] = set(values[1])
        elif what == "record":
            world.records[values[0]] = (*values[1:5], bool(values[5]))  # type: ignore[assignment]
            world.elsewhere |= {values[0]} if values[0] > world.head else set()
    return int(child.returncode != 0)


async def work(data_dir: Path, seed: int, offset_ns: int, synced: bool) -> None:
    """What the child does until it is killed: append, deliver, fill up."""
    world = World(data_dir, random.Random(seed), offset_ns=offset_ns, synced=synced)
    told: set[int] = set()

    def tell(*what: Any) -> None:
        os.write(1, orjson.dumps(what) + b"\n")

    clock.now, clock.synchronised, writer.PROGRESS_S = world.now, lambda: synced, 0.002  # type: ignore[assignment]
    async with opened(data_dir, keep=f"{KEEP_H}h") as world.buffer:
        await world.attach(set(FILTERS))
        for known in world.lanes.values():
            tell("lane", known.lane.id, known.wanted)
        for _ in range(6):
            for _ in range(40):
                body = {"tagset": PRESS.id, "took_us": 1, "values": ["x" * 300, True, 0]}
                world.buffer.append([Record(Kind.SAMPLE, PRESS.source, world.now(), body)])
            await world.settle()
            world.learn()
            for seq in sorted(world.records.keys() - told):
                tell("record", seq, *world.records[seq])
            told = set(world.records)
            for known in list(world.lanes.values()):
                rows = world.buffer.reader().rows(known.lane, known.read[0], world.head, 50, 2**20)
                if not rows:
                    continue
                n = known.read[1] + sum(orjson.loads(row.body)["count"] if row.kind == TOMBSTONE else 1 for row in rows)
                known.read = (rows[-1].seq, n)
                tell("delivered", known.lane.route, [row.seq for row in rows if row.kind != TOMBSTONE])
                world.buffer.progress(known.lane, *known.read)
            await world.settle()
            update = {"max_size": round(world.buffer.upkeep.used() * 0.9)}
            world.buffer.settings = world.buffer.settings.model_copy(update=update)
            for route in FILTERS:
                world.buffer.upkeep.retention.backlogs[route] = 20_000
            await world.buffer.upkeep.retention.step()
            world.buffer.settings = world.buffer.settings.model_copy(update={"max_size": 10**9})
            await world.buffer.upkeep.retention.step()


def main() -> None:
    parser = argparse.ArgumentParser(
        description="random histories of a buffer; ends with a traceback at the first loss"
    )
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    parser.add_argument("--steps", type=int, default=300, help="of each history")
    parser.add_argument("--histories", type=int, default=1, help="how many, with the seeds that follow")
    parser.add_argument("--say", action="store_true", help="print each step")
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        data_dir, seed, offset_ns, synced = given.child
        asyncio.run(work(Path(data_dir), int(seed), int(offset_ns), bool(int(synced))))
        return
    for seed in range(given.seed, given.seed + given.histories):
        print(f"seed={seed} steps={given.steps}", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            done = asyncio.run(history(Path(folder), seed, given.steps, say=given.say))
        print(
            f"seed={seed} lost=0 " + " ".join(f"{name}={number}" for name, number in sorted(done.items())), flush=True
        )


if __name__ == "__main__":
    main()
