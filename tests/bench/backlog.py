"""Fills a data_dir with samples through the real buffer: what an outage leaves behind. Prints bytes on disk."""

from __future__ import annotations

import argparse
import asyncio
import random
from pathlib import Path

from edge_agent import clock
from edge_agent.buffer import open_buffer
from edge_agent.buffer.settings import BufferSettings
from edge_agent.model import Kind, Record, Tag, TagSet

SETTINGS = {"min_free": "100MiB", "ballast": "1MiB"}


async def fill(data_dir: Path, tags: int, readings: int) -> None:
    """Append ``readings`` in samples of ``tags`` float values with two decimals, as process values have them."""
    chance = random.Random(tags)
    tagset = TagSet("plc", "block", tuple(Tag(f"t{index}", "float32") for index in range(tags)))
    pool = [tuple(round(chance.uniform(10, 90), 2) for _ in range(tags)) for _ in range(200)]
    buffer = open_buffer(data_dir, "bench", BufferSettings.model_validate(SETTINGS))
    buffer.append([Record(Kind.TAGSET, tagset.source, clock.now(), {"tagset": tagset.id} | tagset.describe())])
    for number in range(readings // tags):
        body = {"tagset": tagset.id, "took_us": 812, "values": pool[number % len(pool)]}
        buffer.append([Record(Kind.SAMPLE, tagset.source, clock.now(), body)])
        if number % 64 == 0:
            await buffer.room()
            await asyncio.sleep(0)
    await buffer.close()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data_dir", type=Path)
    parser.add_argument("--tags", type=int, default=125)
    parser.add_argument("--readings", type=int, default=5_000_000)
    options = parser.parse_args()
    asyncio.run(fill(options.data_dir, options.tags, options.readings))
    print(sum(path.stat().st_size for path in options.data_dir.glob("buffer.db*")))


if __name__ == "__main__":
    main()
