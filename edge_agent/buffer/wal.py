"""Looking at a write-ahead log as it lies on the disk, since SQLite is silent about damage in it.

SQLite takes the frames up to the first that does not fit and ignores the rest: right for a torn tail, and a silent
loss of committed records for a flipped bit. Each commit is synced before the next begins (``synchronous=FULL``), so
a power cut can tear only the last one.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

HEADER, FRAME_HEADER = 32, 24
MAGIC = (b"\x37\x7f\x06\x82", b"\x37\x7f\x06\x83")


@dataclass(frozen=True, slots=True)
class Wal:
    """Which frames belong to the header's generation, and which of them end a commit."""

    size: int
    valid: bool  # the header is
    commits: tuple[bool, ...]  # one a frame, in order

    def lost(self, read_frames: int) -> bool:
        """Whether SQLite, which took ``read_frames`` of it, missed a commit that had been synced."""
        return not self.valid or any(self.commits[read_frames:][:-1])


def look(path: Path) -> Wal | None:
    """None if there is no log, or an empty one (nothing but zeros: it was never synced)."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return None
    with file:
        header = file.read(HEADER)
        size = path.stat().st_size
        if len(header) < HEADER or (not any(header) and not any(file.read(2**16))):
            return None
        if header[:4] not in MAGIC or not _checksum_holds(header):
            return Wal(size, False, ())
        page_size = int.from_bytes(header[8:12], "big")
        commits = []
        for start in range(HEADER, size - FRAME_HEADER - page_size + 1, FRAME_HEADER + page_size):
            file.seek(start)
            frame = file.read(FRAME_HEADER)
            if frame[8:16] != header[16:24]:  # the salt of an earlier generation, left over
                break
            commits.append(any(frame[4:8]))
        return Wal(size, True, tuple(commits))


Order = Literal["big", "little"]


def order_of(header: bytes) -> Order:
    """In which order the checksums of a log take the bytes of a word."""
    return "big" if header[3] & 1 else "little"


def checksum(data: bytes, order: Order, sums: tuple[int, int] = (0, 0)) -> tuple[int, int]:
    """SQLite's checksum over ``data``, going on from ``sums``."""
    one, two = sums
    for start in range(0, len(data), 8):
        one = (one + int.from_bytes(data[start : start + 4], order) + two) & 0xFFFFFFFF
        two = (two + int.from_bytes(data[start + 4 : start + 8], order) + one) & 0xFFFFFFFF
    return one, two


def packed(sums: tuple[int, int]) -> bytes:
    """A checksum as a log holds it."""
    return sums[0].to_bytes(4, "big") + sums[1].to_bytes(4, "big")


def _checksum_holds(header: bytes) -> bool:
    return header[24:32] == packed(checksum(header[:24], order_of(header)))
