"""A disk that is really full: a small file system in a namespace of our own.

The order in which things give way, what is recorded and told, that space comes back, and that it goes on without a
restart. The test runs in a process of its own, which mounts a tmpfs.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edge_agent import clock
from edge_agent.buffer import Buffer, BufferSettings, RouteFilter, open_buffer, open_readonly, retention, upkeep
from edge_agent.errors import StorageError
from edge_agent.model import Kind, Record
from support.buffer_rig import PRESS, closing, opening, preamble

appended: list[int] = []  # seqs of all samples, in the child
SAMPLES = RouteFilter(frozenset({Kind.SAMPLE}))
MB = 2**20


def unshared() -> bool:
    """Whether this machine lets us mount in a namespace of our own."""
    command = ["unshare", "-rm", "mount", "-t", "tmpfs", "none", "/mnt"]
    try:
        return subprocess.run(command, capture_output=True, timeout=20, check=False).returncode == 0
    except FileNotFoundError:
        return False


def run(story: str, place: Path, *, size_mb: int | None) -> dict[str, Any]:
    """Play ``story`` in a process of its own, on a tmpfs of ``size_mb`` or below a file-size limit; what it says."""
    command = [sys.executable, __file__, story, str(place)]
    if size_mb is not None:
        if not unshared():
            pytest.skip("this machine permits no mount namespace of our own (unshare -rm)")
        script = f'mount -t tmpfs -o size={size_mb}m none "$0" && exec "$@"'
        command = ["unshare", "-rm", "sh", "-c", script, str(place), *command]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    child = subprocess.run(command, env=environment, capture_output=True, timeout=100, check=False)
    assert child.returncode == 0, child.stderr.decode()[-4000:]
    result: dict[str, Any] = json.loads(child.stdout.splitlines()[-1])
    return result


def test_a_full_disk_gives_way_in_order_and_goes_on_when_drained(tmp_path: Path) -> None:
    """Ballast, delivered, detached routes' and replays', loose samples, no more loose samples, hold; and back."""
    said = run("order", tmp_path, size_mb=48)
    reasons = said["reasons"]
    assert said["ballast"] == [True, False]
    assert said["delivered_gone_first"]
    assert reasons[0].startswith("full; wanted by detached routes")
    assert "full; samples of no cycle" in reasons[1:]
    assert reasons.index("full; samples of no cycle") >= reasons.count(
        "full; wanted by detached routes or replays only"
    )
    assert said["held"] and "full" in said["trouble"]
    assert said["free_bytes"] > 0
    assert said["owned_lost"] == 0 and said["unaccounted"] == 0
    assert said["after"] == {"held": False, "shedding": False, "stored": True, "drained": True}
    assert said["given_back_bytes"] > 0 and said["floor_kept"]
    assert said["findings"] == 1 and said["told_full"] == 1 and said["told_end"] == 1
    assert said["intact"]


# --- in the child ------------------------------------------------------------------------------------------------


class Heard(logging.Handler):
    """What was logged."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        logging.getLogger("edge_agent.buffer.retention").addHandler(self)
        logging.getLogger("edge_agent.buffer.retention").setLevel(logging.INFO)

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())

    def count(self, text: str) -> int:
        return sum(text in line for line in self.lines)


def sample(cycle: str = "", size: int = 1500) -> Record:
    body = {"tagset": PRESS.id, "took_us": 1, "values": ["x" * size, True, 0]}
    return Record(Kind.SAMPLE, PRESS.source, clock.now(), body, (cycle,) if cycle else ())


async def tick(buffer: Buffer) -> None:
    """What upkeep does each second."""
    try:
        await buffer.upkeep._see_whether_it_grows()
        await buffer.upkeep.retention.step()
    except (StorageError, sqlite3.Error) as error:  # a full disk refuses even housekeeping; upkeep goes on too
        print("tick:", error, file=sys.stderr)


async def fill(buffer: Buffer, mb: float, cycle: str = "", loose_every: int = 1) -> list[int]:
    """Append about so much, as fast as there is room; returns the seqs that are a cycle's."""
    mine, done = [], 0
    while done < mb * MB:
        batch = [sample(cycle if place % loose_every else "") for place in range(20)] if cycle else [sample()] * 20
        last = buffer.append(batch)
        appended.extend(range(last - 19, last + 1))
        mine += [last - 19 + place for place, record in enumerate(batch) if record.cycles]
        done += 20 * 1570
        try:
            async with asyncio.timeout(0.4):
                await buffer.committed(last)
        except TimeoutError:
            await tick(buffer)
            if buffer.writer.held is not None:
                break
        if done // (20 * 1570) % 20 == 0:
            await tick(buffer)
    return mine


def records(buffer: Buffer, kind: Kind) -> list[dict[str, Any]]:
    return buffer.upkeep.retention.look(
        lambda db: [json.loads(body) for (body,) in
                    db.execute("SELECT body FROM record WHERE kind = ? ORDER BY seq", (int(kind),))]
    )  # fmt: skip


async def settled(buffer: Buffer) -> None:
    await asyncio.sleep(0.4)
    await asyncio.wrap_future(buffer.writer.chore(lambda db: None))


async def order(place: Path) -> dict[str, Any]:
    heard, said = Heard(), {}
    settings = BufferSettings(min_free="4MiB", ballast="4MiB", max_size="1GB")
    buffer = open_buffer(place, "pc1", settings)
    buffer.lanes("gone", "now", SAMPLES)
    await buffer.close()
    buffer = open_buffer(place, "pc1", settings)
    lane = buffer.lanes("mes", "now", SAMPLES)[-1]
    buffer.append(preamble())
    await buffer.upkeep._keep_ballast()
    said["ballast"] = [buffer.files.ballast.exists()]
    opening_records, cycle, _ = opening(buffer, "SN1")
    buffer.append(opening_records)
    await fill(buffer, 8)
    delivered_seq = buffer.durable_seq
    buffer.progress(lane, delivered_seq, delivered_seq)
    await settled(buffer)
    await buffer.upkeep.detach()  # from here on what comes is wanted by mes only
    before = len(records(buffer, Kind.DROP))
    mine = await fill(buffer, 60, cycle, loose_every=3)
    for _ in range(4):
        await tick(buffer)
    drops = records(buffer, Kind.DROP)[before:]
    said["delivered_gone_first"] = drops[0]["first_seq"] <= delivered_seq
    said["reasons"] = [drop["reason"] for drop in drops]
    said["ballast"].append(buffer.files.ballast.exists())
    said["held"], said["trouble"] = buffer.writer.held is not None, buffer.stats()["trouble"]["error"]
    said["free_bytes"] = buffer.files.free()
    stored = set(buffer.upkeep.retention.look(lambda db: [seq for (seq,) in db.execute("SELECT seq FROM record")]))
    durable = [seq for seq in mine if seq <= buffer.durable_seq]
    said["owned_lost"] = len(set(durable) - stored)
    covered = set()
    for drop in records(buffer, Kind.DROP):
        covered.update(range(drop["first_seq"], drop["last_seq"] + 1))
    covered |= set(buffer.shed)
    said["unaccounted"] = len(set(range(delivered_seq + 1, buffer.durable_seq + 1)) - stored - covered)
    full = buffer.files.db.stat().st_size
    buffer.progress(
        lane, buffer.durable_seq, buffer.writer.lanes[lane.id].total
    )  # the receiver is back, and has it all
    buffer.writer.chore(lambda db: None).result()
    buffer.append([closing(cycle, {PRESS.source: [[seq, seq] for seq in durable[-3:]]})])
    for _ in range(100):
        if heard.count("buffer has room again"):
            break
        await asyncio.sleep(0.1)
        await tick(buffer)
        buffer.progress(lane, buffer.durable_seq, buffer.writer.lanes[lane.id].total)
    last = buffer.append([sample()])
    await asyncio.wait_for(buffer.committed(last), 20)
    await tick(buffer)
    stored = set(buffer.upkeep.retention.look(lambda db: [seq for (seq,) in db.execute("SELECT seq FROM record")]))
    said["after"] = {"held": buffer.writer.held is not None, "shedding": buffer.shedding, "stored": last in stored,
                     "drained": buffer.stats()["pending"]["mes"] <= 1}  # fmt: skip
    said["given_back_bytes"] = full - buffer.files.db.stat().st_size
    said["floor_kept"] = buffer.files.free() >= settings.min_free
    said["findings"] = sum(finding["code"] == "storage" for finding in records(buffer, Kind.FINDING))
    said["told_full"], said["told_end"] = heard.count("the buffer is full:"), heard.count("buffer has room again")
    await buffer.close()
    return said | {"intact": verified(place)}


def verified(place: Path) -> bool:
    archive = open_readonly(place)
    try:
        verdict = archive.verify()
        return verdict.intact and not verdict.unlinked
    finally:
        archive.close()


if __name__ == "__main__":
    clock.synchronised = lambda: True
    retention.QUIET_S, upkeep.WAL_BYTES = 1.0, 6 * MB
    story = {"order": order}[sys.argv[1]]
    print(json.dumps(asyncio.run(story(Path(sys.argv[2])))))
