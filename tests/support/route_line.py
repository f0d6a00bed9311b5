"""A line in a process of its own: the real buffer and a real route, to be killed. Run as a module by tests.

It appends a record every 20 ms, and as many more as a line on stdin says; each that is committed is told on stdout.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from pathlib import Path

ROOT = Path(__file__).parents[1]


class Line:
    """The process, seen by a test. ``accepted`` are the texts that it was promised to keep, in order."""

    def __init__(self, folder: Path, url: str, **route: object) -> None:
        self._command = [sys.executable, "-m", "support.route_line", str(folder), url, json.dumps(route)]
        self.accepted: list[str] = []
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(
            self._command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.endswith("\n"):  # a kill may cut the last one
                self.accepted += line.split()

    def burst(self, count: int) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{count}\n")
        self._process.stdin.flush()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join()
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()


async def work(folder: Path, url: str, route: dict[str, object]) -> None:
    from support.delivery import buffer, running, scans, settings

    loop = asyncio.get_running_loop()
    bursts: asyncio.Queue[int] = asyncio.Queue()
    loop.add_reader(0, lambda: bursts.put_nowait(int(sys.stdin.readline() or 0)))
    async with buffer(folder) as store, running(store, settings(url, **route)):
        number = 0
        while True:
            count = 1 if bursts.empty() else bursts.get_nowait()
            records = [
                record for each in range(count) for record in scans(1, f"{store.log}-{number + each}", x="x" * 200)
            ]
            await store.committed(store.append(records))
            number += count
            sys.stdout.write(" ".join(str(record.body["text"]) for record in records) + "\n")
            sys.stdout.flush()
            await store.room()
            await asyncio.sleep(0.02)


if __name__ == "__main__":
    asyncio.run(work(Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])))
