"""Three receivers share the load into one database, killed at random: everything is there once, and confirmed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.delivery import buffer, running, scans, settings, settled, until
from support.mosquitto import Mosquitto

KILLS = 6
BURST = 250


def query(place: str, sql: str) -> list[tuple[object, ...]]:
    """Asked from outside, without the code that is judged."""
    if place.startswith("postgresql:"):
        import psycopg

        with psycopg.connect(place, options="-c search_path=edge_agent") as connection:
            return connection.execute(sql).fetchall()  # type: ignore[call-overload,no-any-return]
    with contextlib.closing(sqlite3.connect(place)) as connection:
        return connection.execute(sql).fetchall()


class Group:
    """Processes of ``edge-agent listen``; the dead are replaced."""

    def __init__(self, url: str, place: str, folder: Path) -> None:
        self._arguments = [sys.executable, "-m", "edge_agent", "listen", url, "--topic", "acme/#", "--db", place]
        self._arguments += ["--group", "mes", "--json"]
        self._folder = folder
        self.processes: list[subprocess.Popen[bytes]] = []
        self.logs: dict[subprocess.Popen[bytes], Path] = {}

    def start(self) -> None:
        log = self._folder / f"listen-{len(self.logs) + 1}.log"
        with log.open("wb") as out:
            environment = os.environ | {"PYTHONUNBUFFERED": "1"}
            self.processes.append(subprocess.Popen(self._arguments, stdout=out, stderr=out, env=environment))
        self.logs[self.processes[-1]] = log

    def said(self) -> list[dict[str, object]]:
        """All lines of all of them."""
        lines = [line for path in self.logs.values() for line in path.read_text().splitlines()]
        return [json.loads(line) for line in lines if line.startswith("{")]

    def at_work(self) -> bool:
        """All three have taken something, if only the agent's state."""
        return all('"connections":' in self.logs[process].read_text() for process in self.processes)

    def last_said(self) -> list[dict[str, Any]]:
        """The last line of each that lives."""
        return [json.loads(self.logs[process].read_text().splitlines()[-1]) for process in self.processes]

    def kill(self, index: int) -> None:
        victim = self.processes.pop(index)
        victim.kill()
        victim.wait(10)

    def end(self) -> list[int]:
        """Orderly; their exit codes."""
        for process in self.processes:
            process.terminate()
        return [process.wait(20) for process in self.processes]


@contextlib.contextmanager
def group(url: str, place: str, folder: Path) -> Iterator[Group]:
    made = Group(url, place, folder)
    try:
        for _ in range(3):
            made.start()
        yield made
    finally:
        for process in made.processes:
            process.kill()
            process.wait(10)


@pytest.mark.long
def test_three_receivers_are_killed_and_everything_is_there_once(tmp_path: Path, place: str) -> None:
    chance = random.Random(7)

    async def scenario() -> None:
        with Mosquitto(tmp_path) as broker, group(broker.url, place, tmp_path) as receivers:
            async with buffer(tmp_path) as store:
                more = {"message_size": "4KiB", "confirm_timeout": "1s"}
                async with running(store, settings(broker.url, **more)) as route:
                    await until(receivers.at_work, receivers.said)
                    for kill in range(KILLS):
                        store.append(scans(BURST, f"burst{kill}"))
                        await asyncio.sleep(chance.uniform(0.02, 0.3))
                        await asyncio.to_thread(receivers.kill, chance.randrange(len(receivers.processes)))
                        receivers.start()
                    store.append(scans(BURST, "last"))
                    await until(receivers.at_work, receivers.said)
                    store.append(scans(4 * BURST, "end"))
                    await settled(route, store)
                    assert route.status()["dead"] == 0
                    assert route.status()["refused_confirmations"] == 0
                    head = store.next_seq - 1
            assert await asyncio.to_thread(receivers.end) == [0, 0, 0]
            assert all(line["records"] > 0 for line in receivers.last_said()), "each has a part"
            assert not [line for line in receivers.said() if line["event"] == "finding"]
            assert head <= int(query(place, "SELECT max(seq) FROM record")[0][0])  # type: ignore[call-overload]

    asyncio.run(scenario())
    bodies = [body for (body,) in query(place, "SELECT body FROM record WHERE kind = 'scan'")]
    texts = [(json.loads(body) if isinstance(body, str) else body)["text"] for body in bodies]  # type: ignore[index]
    assert sorted(texts) == sorted(
        [f"{name}-{i}" for name in [*(f"burst{k}" for k in range(KILLS)), "last"] for i in range(BURST)]
        + [f"end-{i}" for i in range(4 * BURST)]
    )
    ((streams, behind),) = query(place, "SELECT count(*), sum(highest - upto) FROM stream")
    assert streams and behind == 0, "no hole in the database, whoever took what"
    assert query(place, "SELECT * FROM gap WHERE state <> 'filled'") == []
