"""A route into a folder in a process of its own, to be killed: ``python -m support.file_line DATA FOLDER FORMAT``.

``ROUNDS`` times it appends scans of two sources, which become two files at once, and delivers all that is pending.
``EDGE_AGENT_KILL_AT`` says where it kills itself.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from edge_agent.routes.file_settings import FileRouteSettings
from support.delivery import buffer, running, scans, settled

ROUNDS = 3


def settings(folder: str, form: str) -> FileRouteSettings:
    """A file soon after the record."""
    given = {"sink": "file", "folder": folder, "format": form, "start": "oldest", "send": ["scan"]}
    return FileRouteSettings.model_validate(given | {"every": "100ms"})


async def deliver(data: str, folder: str, form: str) -> None:
    async with buffer(Path(data)) as log, running(log, settings(folder, form)) as route:
        for number in range(ROUNDS):
            log.append([record for source in "ab" for record in scans(10, f"{log.log}-{number}{source}")])
            await settled(route, log)
        await route.drain(5)


if __name__ == "__main__":
    asyncio.run(deliver(*sys.argv[1:]))
