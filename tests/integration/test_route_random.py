"""Routes against the worst peer, at random: what was accepted is settled by a true confirmation, or said not to be.

Each seed is a plant's life of some runs of the agent: kills (the data_dir as it was at some commit), restarts, renamed
routes, changed filters, drops, replays, a receiver's database that comes back from a backup. ``ROUTE_SEEDS=1000-1200``
runs others; a failure prints its seed. Sizes and pauses are small, so that a second holds many outages.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import json
import os
import random
import shutil
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from edge_agent import clock
from edge_agent.buffer import Buffer, BufferSettings, open_buffer
from edge_agent.model import Kind, Record
from edge_agent.routes import Route, filling, hearing, lanes, route
from support.delivery import IDENTITY, settings, until
from support.hostile_peer import Key, Peer, unnamed

SENDS = (["scan", "clock_offset"], ["scan"], ["scan", "audit"])
ALL = ["scan", "clock_offset", "audit"]
_ALWAYS = {"log_opened", "config", "drop", "checkpoint"}


def seeds() -> list[int]:
    first, _, last = os.environ.get("ROUTE_SEEDS", "2-3").partition("-")
    return list(range(int(first), int(last or first) + 1))


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name, value in (
        (route, "BACKOFF_S", 0.002), (route, "BACKOFF_MAX_S", 0.02), (filling, "CUT_RECORDS", 5),
        (filling, "BATCH_ROWS", 16), (filling, "SCAN_SEQS", 40), (filling, "PACE_S", 0.001),
        (lanes, "WINDOW_BYTES", 16_000), (lanes, "LIVE_BYTES", 4_000), (hearing, "RESUME_EVERY_S", 0.05),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, value)


class Life:
    """One seed."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.chance = random.Random(seed)
        self.folder = folder
        self.peer = Peer(random.Random(seed + 1))
        self.data = folder / "data-0"
        self.name, self.was = "mes", None
        self.number = 0
        self.accepted: dict[Key, tuple[str, str]] = {}  # -> (kind, text)
        self.wanted: dict[str, set[str]] = {}  # log -> kinds that passed the filter when it was open
        self.ends = False

    async def live(self) -> None:
        runs = self.chance.randrange(3, 6)
        for run in range(runs):
            self.ends = run == runs - 1
            await self._run(run)

    async def _run(self, run: int) -> None:
        send = ALL if self.ends else self.chance.choice(SENDS)  # a range once more comes through the filter of then
        buffer = await asyncio.to_thread(open_buffer, self.data, "pc1", BufferSettings())
        self._slow(buffer)
        self.peer.cut_off = False
        self.wanted[buffer.log] = set(send) | _ALWAYS
        more: dict[str, Any] = {"order": self.chance.choice(("live_first", "live_first", "strict"))}
        if run and self.chance.random() < 0.3 and self._is_known(buffer):
            self.was, self.name = self.name, f"mes{run}"
        more["was"] = self.was  # it stays in the config: a kill may come before the route is renamed
        given = settings("mqtt://h", send=send, confirm_timeout="0.15s", **more)
        at_work = Route(self.name, given, IDENTITY, buffer, self.peer)
        task = asyncio.create_task(at_work.run())
        try:
            for _ in range(self.chance.randrange(10, 40)):
                await self._step(buffer)
                assert not task.done(), task.result()
            if self.ends:
                await self._finish(buffer, at_work, task)
            elif self.chance.random() < 0.5:
                await self._copy(buffer)
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            await buffer.close()
        self._check_progress()

    def _is_known(self, buffer: Buffer) -> bool:
        """The route has its name: a config that renames it twice at once would make a new one of it."""
        with closing(sqlite3.connect(buffer.files.db)) as db:
            return db.execute("SELECT 1 FROM route WHERE name = ?", (self.name,)).fetchone() is not None

    def _slow(self, buffer: Buffer) -> None:
        """A disk that takes its time over what routes wait for."""
        split, pauses = buffer.split, random.Random(self.chance.random())

        def slow(*what: Any) -> Any:
            made = split(*what)
            time.sleep(pauses.random() * 0.02)
            return made

        buffer.split = slow  # type: ignore[method-assign,assignment]

    async def _step(self, buffer: Buffer) -> None:
        dice = self.chance.random()
        if dice < 0.6:
            self._append(buffer)
        elif dice < 0.68:
            self.peer.disconnect()
        elif dice < 0.74:
            self.peer.lie()
        elif dice < 0.80:
            log = self.chance.choice(sorted(self.wanted))
            seqs = [seq for at, seq in self.accepted if at == log] or [1]
            self.peer.ask(self.name, log, max(1, min(seqs) - self.chance.choice((0, 0, 50))), max(seqs))
        elif dice < 0.84:
            self.peer.backup = copy.deepcopy(self.peer.now)
        elif dice < 0.87:
            self.peer.restore()
        elif dice < 0.90:
            with contextlib.suppress(LookupError):  # its lanes are not there yet
                await buffer.drop_route(self.name, "for the test")
        elif dice < 0.94:
            await self._retry(buffer)
        await asyncio.sleep(self.chance.random() * 0.02)

    def _append(self, buffer: Buffer) -> None:
        records: list[Record] = []
        for _ in range(self.chance.choice((1, 2, 30))):
            self.number += 1
            kind = self.chance.choice((Kind.SCAN, Kind.SCAN, Kind.CLOCK_OFFSET, Kind.AUDIT))
            text = f"{'bad' if self.chance.random() < 0.01 else 'good'}-{self.number}"
            padding = "x" * self.chance.choice((10, 300))
            self.accepted[buffer.log, buffer.next_seq + len(records)] = (kind.label, text)
            records.append(
                Record(kind, self.chance.choice(("gate", "press")), clock.now(), {"text": text, "x": padding})
            )
        buffer.append(records)

    async def _retry(self, buffer: Buffer) -> None:
        with closing(sqlite3.connect(buffer.files.db)) as db:
            sql = "SELECT DISTINCT seq FROM dead_letter WHERE route = ? AND retried_at_ns IS NULL ORDER BY seq"
            seqs = [seq for (seq,) in db.execute(sql, (self.name,))]
        if seqs:
            with contextlib.suppress(LookupError):
                again = {"first_seq": seqs[0], "last_seq": seqs[-1], "seqs": seqs}
                await asyncio.to_thread(lambda: buffer.replay(self.name, purpose="retry", **again))

    async def _copy(self, buffer: Buffer) -> None:
        """A kill: the next run begins with what was on the disk at this moment."""
        self.data = self.data.with_name(f"data-{len(self.wanted)}")

        def copied(_: sqlite3.Connection) -> int:
            shutil.copytree(
                buffer.files.data_dir, self.data, ignore=shutil.ignore_patterns("*.lock", "lock", "ballast*")
            )
            return buffer.durable_seq

        self.peer.cut_off = True
        durable = await asyncio.wrap_future(buffer.writer.chore(copied, alone=True))
        for key in [key for key in self.accepted if key[0] == buffer.log and key[1] > durable]:
            del self.accepted[key]  # not committed: not accepted

    async def _finish(self, buffer: Buffer, at_work: Route, task: asyncio.Task[None]) -> None:
        """No more mischief: everything has to be settled now, and what the receiver lost it asks for."""
        peer = self.peer
        peer.fair = True
        peer.disconnect()
        await buffer.committed(buffer.next_seq - 1)

        def settled() -> bool:
            assert not task.done(), task.result()
            status = at_work.status()
            return status["stream"] is not None and status["pending"] == 0 and len(status["lanes"]) == 1

        await until(settled, at_work.status, 10)
        for log in sorted({log for log, _ in self._missing()}):
            seqs = [seq for at, seq in self.accepted if at == log]
            id = peer.ask(self.name, log, min(seqs), max(seqs))
            await until(lambda id=id: id in peer.answered, at_work.status, 10)  # type: ignore[misc]
            await until(settled, at_work.status, 10)
        self._check_end(buffer, at_work)

    # --- what has to be true -------------------------------------------------------------------------------------

    def _missing(self) -> list[Key]:
        return [
            key
            for key, (kind, _) in self.accepted.items()
            if kind in self.wanted[key[0]] and key not in self.peer.now.records
        ]

    def _check_end(self, buffer: Buffer, at_work: Route) -> None:
        time.sleep(0.3)  # until progress is durable
        with closing(sqlite3.connect(buffer.files.db)) as db:
            dead = {seq for (seq,) in db.execute("SELECT seq FROM dead_letter WHERE retried_at_ns IS NULL")}
            drops = db.execute("SELECT CAST(body AS TEXT) FROM record WHERE kind = ?", (int(Kind.DROP),)).fetchall()
            waiting = db.execute("SELECT count(*) FROM lane WHERE seq < to_seq").fetchone()
        assert waiting == (0,)
        spans = [(body["first_seq"], body["last_seq"]) for body in (json.loads(text) for (text,) in drops)]
        for log, seq in self._missing():
            given_up = any(first <= seq <= last for first, last in spans)
            assert seq in dead or given_up, f"{log}-{seq} {self.accepted[log, seq]} is lost; {at_work.status()}"
        for key, text in self.peer.now.records.items():
            assert key not in self.accepted or self.accepted[key][1] == text
        self._check_progress()

    def _check_progress(self) -> None:
        """Nothing is settled that was not truly confirmed."""
        with closing(sqlite3.connect(self.data / "buffer.db")) as db:
            for name, number, log, n, seq, to_seq in db.execute("SELECT route, number, log, n, seq, to_seq FROM lane"):
                of = f"{log}.{{}}.{number if number > 0 else f'r{-number}'}"
                said = max(  # a stream goes on under the route's new name
                    (upto for stream, upto in self.peer.settled.items() if unnamed(stream) == of), default=0
                )
                assert n <= said, f"{name} {of}: {n} settled, {said} confirmed"
                assert to_seq is None or seq <= to_seq


@pytest.mark.parametrize("seed", seeds())
def test_a_life_among_hostile_peers_ends_settled(tmp_path: Path, seed: int) -> None:
    asyncio.run(Life(tmp_path, seed).live())
