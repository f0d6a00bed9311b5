"""The camera's peer: a folder that pictures are dropped into, as an industrial camera does by FTP."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from edge_agent.model import Sample, Scan, ScanStatus
from support.peers.peer import Peer
from support.pictures import png_of


class CameraPeer(Peer):
    """A folder."""

    code = b"SN00000001"

    def __init__(self, folder: Path) -> None:
        self._pictures = folder / "pictures"
        self._count = 0
        both = {"code": {}, "count": {}, "sharpness": {}}
        self.settings = {
            "source": str(self._pictures),
            "formats": ["datamatrix"],
            "timeout": "300ms",
            "folder": {"settle": "300ms"},
            "photos": {"folder": str(folder / "photos"), "min_free": "0B"},
            "groups": {
                "seen": {"tags": {**both, "photo": {}}},
                "asked": {"on_trigger": True, "tags": {f"asked_{name}": {"value": name} for name in both}},
            },
        }

    async def start(self) -> None:
        self._pictures.mkdir()

    async def stop(self) -> None:
        shutil.rmtree(self._pictures, ignore_errors=True)

    def _next(self) -> Path:
        self._count += 1
        return self._pictures / f"{self._count:06}.png"

    async def speak(self) -> None:
        self._next().write_bytes(png_of(self.code))

    def expect(self, answer: Sequence[Sample | Scan]) -> None:
        (scan,) = [each for each in answer if isinstance(each, Scan)]
        assert (scan.raw, scan.status, scan.symbology) == (self.code, ScanStatus.READ, "]d1")
        (sample,) = [each for each in answer if isinstance(each, Sample)]
        code, count, sharpness, photo = sample.values
        assert (code, count, photo) == (self.code.decode(), 1, scan.photo)
        assert isinstance(sharpness, float)
        assert sharpness > 0
        assert not sample.status

    async def speak_half_and_vanish(self) -> None:
        self._next().write_bytes(png_of(self.code)[:200])
        await asyncio.sleep(0.15)
        await self.stop()

    async def drip(self) -> None:
        data, path = png_of(self.code), self._next()
        with path.open("wb", buffering=0) as file:
            for at in range(len(data)):
                file.write(data[at : at + 1])
                if at % 4 == 0:
                    await asyncio.sleep(0.001)
            os.fsync(file.fileno())

    async def rave(self) -> None:
        self._next().write_bytes(b"\xff\x00\xfe" * 20)

    async def flood(self) -> None:
        for _ in range(300):
            self._next().write_bytes(b"\xff\x00\xfe" * 5000)
