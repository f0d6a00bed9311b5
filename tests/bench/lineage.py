"""How long a trace takes in a large registry, both ways: ``python tests/bench/lineage.py [--units 1000000]``.

The registry is written straight into SQLite, in the shape of a line that builds assemblies of assemblies: each product
holds 4 modules, each module 4 boards; every unit has one cycle that used two lots, a lot goes into some thousand
units, a reel into a hundred. Beside that a chain of 40 and a circle of 3. Every figure is from a fresh connection,
once right after opening (``first``) and then as the median of many; the file is read through the system's cache.
"""

from __future__ import annotations

import argparse
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path

from edge_agent.buffer import open_readonly, schema
from edge_agent.buffer.registry import Registry

FAN = 4
LOT, REEL = 5000, 100  # units that one goes into


def fill(path: Path, units: int) -> None:
    """Make the file."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        schema.create(db)
        db.execute("PRAGMA synchronous = OFF")
        db.execute("BEGIN")
        numbers = range(units)
        db.executemany(
            "INSERT INTO unit (unit, serial, seq, at_ns) VALUES (?, ?, ?, ?)",
            ((f"u-{i:07d}", f"SN{i:08d}", 10 * i + 1, i * 10**9) for i in numbers),
        )
        db.executemany(
            "INSERT INTO identifier (unit, kind, value, seq, at_ns) VALUES (?, 'serial', ?, ?, ?)",
            ((f"u-{i:07d}", f"SN{i:08d}", 10 * i + 1, i * 10**9) for i in numbers),
        )
        db.executemany(
            "INSERT INTO cycle VALUES ('c-' || ?1, 'c', 'OP' || ?2, 'step' || ?2, 1, ?3, ?4, 'scan', 1, '{}', 'closed',"
            " ?4 + 5, 'edge', 'Passed', 1, '{}', 'b-' || ?1, 'bound', 'u-' || ?1)",
            ((f"{i:07d}", i % 5, 10 * i + 2, i * 10**9) for i in numbers),
        )  # fmt: skip
        db.executemany(
            "INSERT INTO binding VALUES (?, ?, 'bound', ?, ?, 'scan', NULL, '[]', '[]', NULL, 'agent', ?, ?)",
            ((f"b-{i:07d}", f"c-{i:07d}", f"u-{i:07d}", f"SN{i:08d}", 10 * i + 3, i * 10**9) for i in numbers),
        )
        db.executemany("INSERT INTO consumption VALUES (?, ?, ?, ?, ?, NULL, 1)", _consumed(units))
        db.executemany("INSERT INTO genealogy VALUES (?, ?, ?, 'part', NULL, 0, NULL)", _edges(units))
        db.execute("COMMIT")


def _consumed(units: int) -> Iterator[tuple[str, int, str, str | None, str | None]]:
    for i in range(units):
        yield f"c-{i:07d}", 0, "solder", f"LOT{i // LOT}", None
        yield f"c-{i:07d}", 1, "resistor", None, f"REEL{i // REEL}"


def _edges(units: int) -> Iterator[tuple[str, str, int]]:
    for i in range(1, units - 100):  # unit i is in unit (i - 1) // 4 of its product: 21 units each
        product, place = divmod(i, 21)
        if place:
            yield f"u-{product * 21 + (place - 1) // FAN:07d}", f"u-{i:07d}", 10 * i + 4
    chain = [f"u-{i:07d}" for i in range(units - 50, units - 10)]
    yield from ((parent, child, 10 * units + i) for i, (parent, child) in enumerate(pairwise(chain)))
    circle = [f"u-{i:07d}" for i in range(units - 3, units)]
    yield from ((circle[i], circle[(i + 1) % 3], 10 * units + 100 + i) for i in range(3))


def measure(path: Path, name: str, ask: Callable[[sqlite3.Connection], object], times: int) -> None:
    """Print how long one question takes."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        taken = []
        for _ in range(times):
            began_s = time.perf_counter()
            found = ask(db)
            taken.append((time.perf_counter() - began_s) * 1000)
    taken_after = sorted(taken[1:])
    worst = taken_after[int(len(taken_after) * 0.99)]
    print(
        f"{name:<62} first {taken[0]:8.3f} ms  median {statistics.median(taken_after):8.3f}  p99 {worst:8.3f}  {found}"
    )


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--units", type=int, default=1_000_000)
    units = options.parse_args().units
    from edge_agent.buffer import lineage

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "buffer.db"
        began_s = time.perf_counter()
        fill(path, units)
        size_mb = path.stat().st_size / 1e6
        print(
            f"{units} units, {2 * units} consumptions, {size_mb:.0f} MB, made in {time.perf_counter() - began_s:.0f} s"
        )
        some = [units * n // 101 // 21 * 21 for n in range(1, 101)]
        turn = iter(range(10**9))

        def one(kind: str = "u-", width: int = 7) -> str:
            return f"{kind}{some[next(turn) % 100]:0{width}d}"

        measure(
            path,
            "backward: all in a product of 21 units, with lots",
            lambda db: len((found := lineage.tree(db, one())).inside) + len(found.materials),
            200,
        )
        measure(
            path,
            "forward: a reel in 100 units, and what they are in",
            lambda db: lineage.forward(db, "package", f"REEL{some[next(turn) % 100] // REEL}").total,
            100,
        )
        measure(
            path,
            f"forward: a lot in {LOT} units, and what they are in",
            lambda db: lineage.forward(db, "lot", f"LOT{some[next(turn) % 100] // LOT}").total,
            20,
        )
        measure(
            path,
            "forward: the same, the first 1000 shown",
            lambda db: lineage.forward(db, "lot", f"LOT{some[next(turn) % 100] // LOT}", 1000).total,
            20,
        )
        measure(
            path,
            "backward: a chain of 40, cut at a depth of 32",
            lambda db: len(lineage.tree(db, f"u-{units - 50:07d}").inside),
            50,
        )
        measure(path, "backward: a circle of 3", lambda db: len(lineage.tree(db, f"u-{units - 3:07d}").inside), 50)
        measure(
            path,
            "lookup: a unit with its 20 components' lots",
            lambda db: len(Registry(db).unit("serial", one("SN", 8)).lots),
            200,
        )  # type: ignore[union-attr]
        measure(
            path,
            "lookup: a unit without components",
            lambda db: len(Registry(db).unit("serial", f"SN{some[next(turn) % 100] + 7:08d}").lots),
            200,
        )  # type: ignore[union-attr]
        measure(path, "lookup: a serial that is not known", lambda db: Registry(db).unit("serial", "SN?"), 200)
        with closing(open_readonly(Path(folder))) as archive:
            began_s = time.perf_counter()
            archive.trace(one("SN", 8))
            print(f"trace SERIAL as `edge-agent trace` asks for it: {(time.perf_counter() - began_s) * 1000:.2f} ms")
            began_s = time.perf_counter()
            shift = archive.shift((units - units // 50) * 10**9, units * 10**9)
            cycles = sum(station.cycles for station in shift.stations)
            print(f"report shift over {cycles} cycles: {(time.perf_counter() - began_s) * 1000:.0f} ms")


if __name__ == "__main__":
    main()
