"""A route in a process of its own, to be killed: ``python -m support.sink_line DATA ROUTE``, the route as JSON.

``ROUNDS`` times it appends scans of two sources, which become two files at once, and delivers all that is pending.
``EDGE_AGENT_KILL_AT`` says where it kills itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

ROUNDS = 3


def run(data: Path, route: dict[str, Any], kill_at: str = "") -> int:
    """Let it run to its end; the exit code, negative when it was killed."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    environment.pop("EDGE_AGENT_KILL_AT", None)
    if kill_at:
        environment["EDGE_AGENT_KILL_AT"] = kill_at
    command = [sys.executable, "-m", "support.sink_line", str(data), json.dumps(route)]
    return subprocess.run(command, env=environment, timeout=60, check=False).returncode


def accepted(data: Path) -> set[str]:
    """The texts that the buffer holds, read without the code that is judged."""
    with contextlib.closing(sqlite3.connect(data / "data" / "buffer.db")) as database:
        rows = database.execute("SELECT body FROM record WHERE CAST(body AS TEXT) LIKE '%\"text\"%'").fetchall()
    return {json.loads(body)["text"] for (body,) in rows}


async def deliver(data: Path, route: dict[str, Any]) -> None:
    """In the process."""
    from edge_agent.config.load import SINKS
    from support.delivery import buffer, running, scans, settled

    settings = SINKS[route["sink"]].model_validate(route)
    async with buffer(data) as log, running(log, settings) as its:
        for number in range(ROUNDS):
            log.append([record for source in "ab" for record in scans(10, f"{log.log}-{number}{source}")])
            await settled(its, log)
        await its.drain(5)


if __name__ == "__main__":
    asyncio.run(deliver(Path(sys.argv[1]), json.loads(sys.argv[2])))
