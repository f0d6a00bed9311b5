"""What the simulated line really did: one JSON line an event, written as it happens, never from what the agent says.

Every event has ``at_ns`` (UTC), ``event`` and where it concerns a position ``station`` and ``position``:

=============  =========================================================================================
``enter``      ``serial`` was put into the position
``leave``      ``serial`` was taken out of it
``swap``       ``out`` was taken out and ``serial`` put in, while nobody watched
``ask``        the PLC asks at its gate, by number ``request``, whether ``serial`` may enter
``permit``     it was told that ``serial`` may
``block``      it was told that ``serial`` may not: reason ``code``. It is asked again, or the unit leaves
``aside``      ``serial`` was taken off the line since it is on hold
``rework``     ``serial`` failed, and comes once more
``install``    the board ``child`` was built into ``serial``
``load``       from now on screws of ``lot`` are taken
``quirk``      what went wrong with ``serial``: no_scan, no_read, double_scan, fail, incomplete
``scan``       the reader ``device`` sent ``text``; ``heard`` says whether a process had its port open
``work``       the PLC finished cycle ``number`` (its counter shows ``counter``) of ``serial``: ``values`` {tag: value},
               ``ok``, and ``handshake``: whether it now asks for an acknowledge
``ack``        the PLC saw its result ``number`` acknowledged
``not_taken``  the PLC gave up waiting for that acknowledge
``reply``      reply ``number`` of ``device``'s polled registers went out while the positions held ``held``
               {"OP30.2": serial or null}
``stop``       the last unit has left
=============  =========================================================================================
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any


class Truth:
    """The line's own record. Each event is in the file, for other processes to read, when ``note`` returns."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8", buffering=1)

    def note(self, event: str, **fields: Any) -> None:
        self._file.write(json.dumps({"at_ns": time.time_ns(), "event": event, **fields}) + "\n")

    def close(self) -> None:
        self._file.close()


class TruthReader:
    """Reads the truth while it is being written. ``new`` returns what came since the last call."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def new(self) -> list[dict[str, Any]]:
        """Whole lines only; one that is still being written is left for the next time."""
        with self._path.open("rb") as file:
            file.seek(self._offset)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        return [json.loads(line) for line in whole.splitlines()]
