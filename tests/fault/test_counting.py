"""The torture's own judgement: what it must call lost, doubled, misbound or growing, it does."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from xml.etree import ElementTree

import pytest

from fault.outside import BufferFile
from fault.plot import svg
from fault.soak import growth
from fault.tally import SAMPLES, Tally, of_writer, serial_of

LOG = "aaaaaaaaaaaa"
KINDS = "[1, 4, 14, 16]"


class World:
    """One unit's samples, seq 1 to 5, promised, stored and received; each test breaks something."""

    def __init__(self, folder: Path) -> None:
        self.truth, self.database = folder / "truth", folder / "receiver.db"
        self.truth.write_text(f"{LOG} 1 {SAMPLES} 10000000\n")
        self.buffer = sqlite3.connect(folder / "buffer.db", isolation_level=None)
        self.buffer.executescript(
            "CREATE TABLE log (id TEXT, first_seq INTEGER); CREATE TABLE gap (first_seq, last_seq, reason);"
            "CREATE TABLE record (seq INTEGER, kind INTEGER); CREATE TABLE hole (lane, first_seq, last_seq);"
            "CREATE TABLE lane (id, route, log, seq, to_seq, kinds, purpose); CREATE TABLE dead_letter (route, seq);"
            "CREATE TABLE pick (lane, seq);"
        )
        self.buffer.execute("INSERT INTO log VALUES (?, 1)", (LOG,))
        self.buffer.execute(f"INSERT INTO lane VALUES (1, 'mes', '{LOG}', {SAMPLES}, NULL, '{KINDS}', 'log')")
        self.received = sqlite3.connect(self.database, isolation_level=None)
        self.received.executescript(
            "CREATE TABLE record (agent, log, seq INTEGER, kind, source, at_ns INTEGER, body);"
            "CREATE TABLE reading (serial, station, position, cycle, binding_state, tag, value, seq);"
        )
        for seq in range(1, SAMPLES + 1):
            self.buffer.execute("INSERT INTO record VALUES (?, 4)", (seq,))
            self.take(seq, 9999999 + seq)

    def take(self, seq: int, number: int, log: str = LOG, serial: str = "") -> None:
        body = json.dumps({"values": [number]})
        self.received.execute(
            "INSERT INTO record VALUES ('pc1', ?, ?, 'sample', 'press.result', 0, ?)", (log, seq, body)
        )
        row = (serial or serial_of(number), number, seq)
        self.received.execute("INSERT INTO reading VALUES (?, 'OP20', 1, 'c', 'bound', 'press.force', ?, ?)", row)

    def tell(self, kind: str, **body: object) -> None:
        row = (kind, json.dumps(body))
        self.received.execute("INSERT INTO record VALUES ('pc1', 'bbbbbbbbbbbb', 99, ?, 'agent', 0, ?)", row)

    def forget(self, seq: int) -> None:
        self.received.execute("DELETE FROM record WHERE seq = ?", (seq,))

    def tally(self) -> Tally:
        found = of_writer(self.truth, self.database, BufferFile(self.database.parent))
        assert found.balanced
        return found


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def figures(tally: Tally) -> tuple[int, ...]:
    return tally.confirmed, tally.pending, tally.dead, tally.dropped_recorded, tally.lost


def test_all_is_well(world: World) -> None:
    found = world.tally()
    assert figures(found) == (5, 0, 0, 0, 0) and not found.faults


def test_a_promise_that_nobody_has_is_lost(world: World) -> None:
    world.forget(3)
    found = world.tally()
    assert figures(found) == (4, 0, 0, 0, 1) and "(number 10000002)" in found.details[0]


def test_what_the_lane_has_not_passed_is_pending(world: World) -> None:
    world.forget(5)
    world.buffer.execute("UPDATE lane SET seq = 4")
    assert figures(world.tally()) == (4, 1, 0, 0, 0)


def test_a_hole_is_not_pending(world: World) -> None:
    world.forget(5)
    world.buffer.execute("UPDATE lane SET seq = 4")
    world.buffer.execute("INSERT INTO hole VALUES (1, 5, 5)")
    assert figures(world.tally()) == (4, 0, 0, 0, 1)


def test_a_dead_letter_is_dead(world: World) -> None:
    world.forget(2)
    world.buffer.execute("INSERT INTO dead_letter VALUES ('mes', 2)")
    assert figures(world.tally()) == (4, 0, 1, 0, 0)


def test_a_drop_counts_only_where_it_was_told(world: World) -> None:
    world.forget(2)
    world.tell("drop", first_seq=3, last_seq=4)
    assert figures(world.tally()) == (4, 0, 0, 0, 1)
    world.tell("drop", first_seq=2, last_seq=2, route="another")
    assert figures(world.tally()) == (4, 0, 0, 0, 1)
    world.tell("drop", first_seq=2, last_seq=2)
    assert figures(world.tally()) == (4, 0, 0, 1, 0)


def test_damage_in_the_ledger_counts_only_with_a_finding(world: World) -> None:
    world.forget(2)
    world.buffer.execute("INSERT INTO gap VALUES (2, 2, 'damaged')")
    assert figures(world.tally()) == (4, 0, 0, 0, 1)
    world.tell("finding", code="storage", details={})
    assert figures(world.tally()) == (4, 0, 0, 1, 0)


def test_a_key_used_again_is_a_loss(world: World) -> None:
    world.forget(2)
    world.take(2, 20000000)
    found = world.tally()
    assert figures(found) == (4, 0, 0, 0, 1) and "was promised as number" in found.details[0]


def test_a_number_under_two_keys_is_a_duplicate(world: World) -> None:
    world.take(7, 10000000, log="bbbbbbbbbbbb")
    assert world.tally().duplicates_after_dedup == 1


def test_a_reading_under_another_serial_is_misbound(world: World) -> None:
    world.take(8, 30000000, serial="SN000000001")
    assert world.tally().misbound == 1


def life(pid: str, rss_mb: list[float]) -> list[dict[str, float | str]]:
    return [
        {"elapsed_s": 10.0 * place, "process": "agent", "pid": pid, "rss_mb": value, "descriptors": 40}
        for place, value in enumerate(rss_mb)
    ]


def test_a_leak_is_growth_and_a_warm_start_or_noise_is_not() -> None:
    assert growth(life("1", [50 + place / 4 for place in range(200)]))
    assert not growth(life("1", [30.0] * 5 + [60.0] * 195))
    assert not growth(life("1", [60.0 + place % 7 for place in range(200)]))
    assert not growth(life("1", [50 + place for place in range(20)]))  # too short a life to tell
    restarted = [sample for pid in "123" for sample in life(pid, [40.0] * 100)]
    assert not growth(restarted)


def test_the_plot_is_a_drawing_of_what_it_is_given() -> None:
    drawing = ElementTree.fromstring(svg([("rss_mb", {"agent": [(0, 1), (3600, 4)], "receiver": []})], title="a < b"))
    lines = [each for each in drawing if each.tag.endswith("polyline")]
    assert lines[0].get("points") == "90.0,138.5 1050.0,44.0"
