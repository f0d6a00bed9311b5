"""The same data_dir twice: an older snapshot put back, and a copy started on a second PC."""

from __future__ import annotations

import json
import shutil
import signal
import sqlite3
from collections import Counter
from contextlib import closing

from fault.outside import BufferFile
from fault.rig import Module, Rig
from fault.scenarios import scenario


@scenario(cost_s=20)
async def snapshot_restored(rig: Rig) -> None:
    """Somebody restores yesterday's data_dir: what came after it is at the receiver, and no key is used again."""
    async with rig.volume(writer={"rate": 100}) as world:
        await world.until(lambda: world.confirmed() > 300, "some delivered")
        await world.agent.end()
        snapshot = rig.directory / "snapshot"
        shutil.copytree(world.data_dir, snapshot, ignore=shutil.ignore_patterns("*.sock"))
        await world.start_agent()
        await world.at_work()
        await world.flow(2)
        world.agent.send(signal.SIGUSR1)
        await world.until(lambda: world.pending() == 0, "everything delivered")
        await world.kill_agent()
        shutil.rmtree(world.data_dir)
        snapshot.rename(world.data_dir)
        await world.start_agent()
        await world.at_work()
        await world.flow(2)
    rig.check(forks(world.receiver.database) == 1, "one fork at the receiver")


@scenario(cost_s=60)
async def data_dir_cloned(rig: Rig) -> None:
    """An image of the PC starts on a second one, with the same id, on the same broker."""
    async with rig.volume(writer={"rate": 50}) as world:
        await world.until(lambda: world.confirmed() > 300, "some delivered")
        await world.agent.end()
        other = rig.directory / "other"
        shutil.copytree(world.data_dir, other, ignore=shutil.ignore_patterns("*.sock"))
        await world.start_agent()
        await world.at_work()
        config = rig.directory / "other.json"
        said = json.loads((rig.directory / "writer.json").read_text()) | {"data_dir": str(other), "run": 50}
        config.write_text(json.dumps(said))
        clone = Module(rig.directory / "other.log", ["fault.writer", str(config)])
        try:
            await clone.start()
            await world.flow(8)
            await clone.end()  # the technician finds it; it is given an id of its own, and delivers what it holds
            said["routes"]["mes"]["client_id"] = "second-pc"
            config.write_text(json.dumps(said | {"run": 51, "units": -1}))
            await clone.start()
            buffer = BufferFile(other)
            await world.until(lambda: not buffer.pending("mes"), "everything of the clone delivered", 60)
        finally:
            await clone.end()
    rig.check(forks(world.receiver.database) == 1, "one fork at the receiver")


def forks(database: object) -> int:
    """How many logs have more than one successor, as the receiver holds them."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as db:
        rows = db.execute("SELECT body FROM record WHERE kind = 'log_opened'").fetchall()
    before = Counter(json.loads(body).get("previous", {}).get("log") for (body,) in rows)
    return sum(times - 1 for log, times in before.items() if log is not None and times > 1)
