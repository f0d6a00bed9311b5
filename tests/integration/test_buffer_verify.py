"""`verify` on real files that somebody really changed: what was done is found and named, and nothing else is."""

from __future__ import annotations

import random
import shutil
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from edge_agent import cli, clock
from edge_agent.buffer.ledger import Verdict
from edge_agent.buffer.verify import verify_dir
from edge_agent.errors import StorageError
from edge_agent.model import Instant, Kind, Record
from support.buffer_rig import ALL, PRESS, asynchronous, opened, preamble, sample
from support.forgery import NO_SAMPLES, deliver, edit, forged, produce, rehash, seqs_of, shift, swap

Forge = Callable[[sqlite3.Connection], object]


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A data_dir of two runs, and a receiver's database that has all of it."""
    folder = tmp_path_factory.mktemp("day")
    produce(folder / "data", folder / "received.db")
    return folder / "data", folder / "received.db"


@pytest.fixture(scope="module")
def lean_day(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The same with a route that sends no samples."""
    folder = tmp_path_factory.mktemp("lean")
    produce(folder / "data", folder / "received.db", wanted=NO_SAMPLES)
    return folder / "data", folder / "received.db"


def told(verdict: Verdict) -> list[tuple[str, int | None, str | None]]:
    return [(damage.code, damage.seq, damage.kind) for damage in verdict.damages]


def after_forging(day: tuple[Path, Path], copy: Path, forge: Forge) -> tuple[object, Verdict, Verdict]:
    """What the forger says he did, and the verdicts on the copy: by itself, and against the receiver."""
    with forged(day[0], copy) as db:
        done = forge(db)
    return done, verify_dir(copy), verify_dir(copy, day[1])


def test_what_nobody_touched_is_intact_and_every_record_and_checkpoint_agrees(day: tuple[Path, Path]) -> None:
    verdict = verify_dir(*day)
    assert verdict.damages == [] and verdict.intact
    with sqlite3.connect(day[0] / "buffer.db") as db:
        records, checkpoints = db.execute("SELECT count(*), sum(kind = 17) FROM record").fetchone()
    assert verdict.records == records == verdict.head_seq
    assert verdict.checkpoints == checkpoints >= 6
    assert verdict.against is not None
    # the last run's stop writes a checkpoint that is not delivered any more; the first run's goes with the second
    assert verdict.against["records"] >= records - 2
    assert verdict.against["checkpoints"] >= checkpoints - 2


def test_verifying_changes_no_file(day: tuple[Path, Path]) -> None:
    def state() -> dict[str, tuple[int, int]]:
        paths = [*day[0].iterdir(), *day[1].parent.glob("received.db*")]
        return {path.name: (path.stat().st_mtime_ns, path.stat().st_size) for path in paths}

    before = state()
    verify_dir(*day)
    assert state() == before


# --- a clumsy hand: the chain shows it --------------------------------------------------------------------------


def test_an_edited_record_breaks_the_chain_at_itself(day: tuple[Path, Path], tmp_path: Path) -> None:
    def forge(db: sqlite3.Connection) -> int:
        seq = seqs_of(db, Kind.CYCLE_CLOSED)[3]
        edit(db, seq, lambda body: body.update(result="Failed"))
        return seq

    seq, alone, against = after_forging(day, tmp_path / "copy", forge)
    assert told(alone) == [("broken_link", seq, "cycle_closed")]
    assert ("edited", seq, "cycle_closed") in told(against)
    (edited,) = [damage for damage in against.damages if damage.code == "edited"]
    assert 'body.result is "Failed", was "Passed"' in edited.text and edited.differs == ("body",)


@pytest.mark.parametrize("column, value", [("at_ns", 12345), ("kind", int(Kind.SCAN)), ("synced", 9), ("body", "{}")])
def test_every_column_is_in_the_chain(day: tuple[Path, Path], tmp_path: Path, column: str, value: object) -> None:
    def forge(db: sqlite3.Connection) -> int:
        seq = seqs_of(db, Kind.CYCLE_CLOSED)[3]
        db.execute(f"UPDATE record SET {column} = ? WHERE seq = ?", (value, seq))
        return seq

    seq, alone, _ = after_forging(day, tmp_path / "copy", forge)
    assert [(code, at) for code, at, _ in told(alone)] == [("broken_link", seq)]


def test_a_removed_record_is_missing(day: tuple[Path, Path], tmp_path: Path) -> None:
    def forge(db: sqlite3.Connection) -> int:
        seq = seqs_of(db, Kind.SAMPLE)[10]
        db.execute("DELETE FROM record WHERE seq = ?", (seq,))
        return seq

    seq, alone, against = after_forging(day, tmp_path / "copy", forge)
    assert told(alone) == [("missing", seq, None)]
    assert set(told(against)) == {("missing", seq, None), ("removed", seq, "sample")}


def test_two_exchanged_records_break_the_chain_and_are_named(day: tuple[Path, Path], tmp_path: Path) -> None:
    def forge(db: sqlite3.Connection) -> int:
        seq = seqs_of(db, Kind.SAMPLE)[10]
        swap(db, seq, seq + 1)
        return seq

    seq, alone, against = after_forging(day, tmp_path / "copy", forge)
    assert {code for code, _, _ in told(alone)} == {"broken_link"}
    moved = [damage.seq for damage in against.damages if damage.code == "moved"]
    assert moved == [seq, seq + 1]


def test_a_record_slipped_in_where_one_was_deleted_is_named(day: tuple[Path, Path], tmp_path: Path) -> None:
    def forge(db: sqlite3.Connection) -> int:
        first, last = seqs_of(db, Kind.SAMPLE)[0], seqs_of(db, Kind.SAMPLE)[2]
        (digest,) = db.execute("SELECT hash FROM record WHERE seq = ?", (last,)).fetchone()
        db.execute("DELETE FROM record WHERE seq BETWEEN ? AND ?", (first, last - 1))
        db.execute("INSERT INTO gap VALUES (?, ?, ?, 'delivered')", (first, last, digest))
        return last

    seq, alone, _ = after_forging(day, tmp_path / "copy", forge)
    assert ("overlap", seq, None) in told(alone)


def test_a_missing_trigger_or_table_is_named(day: tuple[Path, Path], tmp_path: Path) -> None:
    shutil.copytree(day[0], tmp_path / "copy")
    with sqlite3.connect(tmp_path / "copy" / "buffer.db") as db:
        db.execute("DROP TRIGGER record_append_only")
        db.execute("DROP TABLE counter")
    verdict = verify_dir(tmp_path / "copy")
    assert sorted(damage.text.split()[4] for damage in verdict.damages) == ["counter", "record_append_only"]


# --- a careful hand: all hashes computed anew, only the receiver knows ---------------------------------------------


def test_an_edit_with_all_hashes_anew_is_found_and_named_by_the_receivers_records(
    day: tuple[Path, Path], tmp_path: Path
) -> None:
    def forge(db: sqlite3.Connection) -> int:
        seq = seqs_of(db, Kind.CYCLE_CLOSED)[3]
        edit(db, seq, lambda body: body.update(result="Failed"))
        rehash(db)
        return seq

    seq, alone, against = after_forging(day, tmp_path / "copy", forge)
    assert alone.intact
    assert [one for one in told(against) if one[0] != "checkpoint"] == [("edited", seq, "cycle_closed")]
    (checkpoint,) = [damage for damage in against.damages if damage.code == "checkpoint"]
    assert checkpoint.seq is not None and checkpoint.last_seq is not None
    assert checkpoint.seq <= seq <= checkpoint.last_seq


def test_a_removal_with_all_numbers_and_hashes_anew_is_named(day: tuple[Path, Path], tmp_path: Path) -> None:
    def forge(db: sqlite3.Connection) -> int:
        seq = seqs_of(db, Kind.CYCLE_CLOSED)[3]
        db.execute("DELETE FROM record WHERE seq = ?", (seq,))
        shift(db, seq, -1)
        rehash(db, -1, seq)
        return seq

    seq, alone, against = after_forging(day, tmp_path / "copy", forge)
    assert alone.intact
    assert [one for one in told(against) if one[0] != "checkpoint"] == [("removed", seq, "cycle_closed")]


def test_several_records_removed_in_a_row_are_each_named(day: tuple[Path, Path], tmp_path: Path) -> None:
    def forge(db: sqlite3.Connection) -> int:
        seq = seqs_of(db, Kind.CYCLE_CLOSED)[3]
        db.execute("DELETE FROM record WHERE seq BETWEEN ? AND ?", (seq - 3, seq))
        shift(db, seq - 3, -4)
        rehash(db, -4, seq - 3)
        return seq

    seq, alone, against = after_forging(day, tmp_path / "copy", forge)
    assert isinstance(seq, int)
    assert alone.intact
    removed = [damage.seq for damage in against.damages if damage.code == "removed"]
    assert removed == [seq - 3, seq - 2, seq - 1, seq]
    assert set(against.counts) == {"removed", "checkpoint"}


def test_an_insertion_with_all_numbers_and_hashes_anew_is_named(day: tuple[Path, Path], tmp_path: Path) -> None:
    def forge(db: sqlite3.Connection) -> int:
        seq = seqs_of(db, Kind.CYCLE_CLOSED)[3]
        shift(db, seq, 1)
        db.execute(
            "INSERT INTO record SELECT ?, kind, source, at_ns + 1, mono_ns + 1, synced, body, hash FROM record"
            " WHERE seq = ?",
            (seq + 1, seq),
        )
        rehash(db, 1, seq)
        return seq + 1

    seq, alone, against = after_forging(day, tmp_path / "copy", forge)
    assert alone.intact
    assert [one for one in told(against) if one[0] != "checkpoint"] == [("inserted", seq, "cycle_closed")]


def test_an_exchange_with_all_hashes_anew_is_named(day: tuple[Path, Path], tmp_path: Path) -> None:
    def forge(db: sqlite3.Connection) -> int:
        seq = seqs_of(db, Kind.SAMPLE)[10]
        swap(db, seq, seq + 1)
        rehash(db)
        return seq

    seq, alone, against = after_forging(day, tmp_path / "copy", forge)
    assert isinstance(seq, int)
    assert alone.intact
    assert [one for one in told(against) if one[0] != "checkpoint"] == [
        ("moved", seq, "sample"),
        ("moved", seq + 1, "sample"),
    ]


def test_what_the_receiver_was_never_sent_is_narrowed_down_by_its_checkpoints(
    lean_day: tuple[Path, Path], tmp_path: Path
) -> None:
    def forge(db: sqlite3.Connection) -> int:
        seq = seqs_of(db, Kind.SAMPLE)[40]
        edit(db, seq, lambda body: body.update(values=[99.0, True, 21]))
        rehash(db)
        return seq

    assert verify_dir(*lean_day).intact
    seq, alone, against = after_forging(lean_day, tmp_path / "copy", forge)
    assert isinstance(seq, int)
    assert alone.intact
    (checkpoint,) = against.damages
    assert checkpoint.code == "checkpoint" and checkpoint.seq is not None and checkpoint.last_seq is not None
    assert 1 < checkpoint.seq <= seq <= checkpoint.last_seq < seq + 70


def test_a_sample_removed_where_the_receiver_has_none_is_found_by_the_shift(
    lean_day: tuple[Path, Path], tmp_path: Path
) -> None:
    def forge(db: sqlite3.Connection) -> int:
        seq = seqs_of(db, Kind.SAMPLE)[40]
        db.execute("DELETE FROM record WHERE seq = ?", (seq,))
        shift(db, seq, -1)
        rehash(db, -1, seq)
        return seq

    seq, alone, against = after_forging(lean_day, tmp_path / "copy", forge)
    assert isinstance(seq, int)
    assert alone.intact
    (removed,) = [damage for damage in against.damages if damage.code == "removed"]
    assert removed.seq is not None and removed.last_seq is not None
    assert removed.seq <= seq <= removed.last_seq <= removed.seq + 6  # the samples of its cycle


# --- other forms of what a receiver holds ----------------------------------------------------------------------


def exported(database: Path, path: Path, what: str) -> Path:
    """A receiver's records as JSON Lines: whole, as a database's row_to_json, or only the checkpoints."""
    with sqlite3.connect(database) as db, path.open("wb") as file:
        for agent, log, seq, kind, source, at_ns, mono_ns, synced, body in db.execute(
            "SELECT agent, log, seq, kind, source, at_ns, mono_ns, synced, body FROM record"
        ):
            line = {"agent": agent, "log": log, "seq": seq, "kind": kind, "source": source, "at_ns": str(at_ns),
                    "mono_ns": str(mono_ns), "synced": bool(synced), "body": orjson.loads(body)}  # fmt: skip
            if what == "rows":
                line |= {"body": body}
            if what == "checkpoints":
                if kind != "checkpoint":
                    continue
                line = {"agent": agent, "log": log} | orjson.loads(body)
            file.write(orjson.dumps(line) + b"\n")
    return path


@pytest.mark.parametrize("what", ["records", "rows", "checkpoints"])
def test_json_lines_serve_as_well(day: tuple[Path, Path], tmp_path: Path, what: str) -> None:
    lines = exported(day[1], tmp_path / "lines.jsonl", what)
    assert verify_dir(day[0], lines).intact
    with forged(day[0], tmp_path / "copy") as db:
        seq = seqs_of(db, Kind.CYCLE_CLOSED)[3]
        edit(db, seq, lambda body: body.update(result="Failed"))
        rehash(db)
    found = verify_dir(tmp_path / "copy", lines)
    assert found.counts["checkpoint"] == 1
    assert found.counts["edited"] == (what != "checkpoints")


def test_a_line_that_is_nothing_is_named(day: tuple[Path, Path], tmp_path: Path) -> None:
    lines = exported(day[1], tmp_path / "lines.jsonl", "checkpoints")
    with lines.open("a") as file:
        file.write("so what\n")
    number = len(lines.read_text().splitlines())
    with pytest.raises(StorageError, match=rf"lines\.jsonl:{number}: neither"):
        verify_dir(day[0], lines)


@pytest.mark.parametrize("what", ["empty", "other agent", "other database", "nothing"])
def test_what_cannot_be_compared_with_says_so(day: tuple[Path, Path], tmp_path: Path, what: str) -> None:
    path = tmp_path / "theirs"
    if what == "empty":
        path.write_bytes(b"")
    elif what == "other agent":
        path.write_text('{"agent": "somebody", "log": "aaaaaaaaaaaa", "upto": 5, "hash": "00"}\n')
    elif what == "other database":
        with sqlite3.connect(path) as db:
            db.execute("CREATE TABLE phone (number)")
    with pytest.raises(StorageError) as caught:
        verify_dir(day[0], path)
    assert str(path) in str(caught.value) and caught.value.hint


# --- what retention and a life of an agent leave is no damage ---------------------------------------------------


@asynchronous
async def test_what_retention_deleted_keeps_the_chain_and_the_comparison_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clock, "synchronised", lambda: True)
    data, database = tmp_path / "data", tmp_path / "received.db"
    async with opened(data, keep="2h") as buffer:
        lane = buffer.lanes("mes", "now", ALL)[-1]
        buffer.append(preamble())
        for hours in (5, 5, 1, 5, 1):  # a clock that was set: the old and the young lie beside each other
            at = Instant(time.time_ns() - hours * 3600 * 10**9, time.monotonic_ns())
            body = {"tagset": PRESS.id, "took_us": 1, "values": [1.0, True, 2]}
            buffer.append([Record(Kind.SAMPLE, PRESS.source, at, body) for _ in range(40)])
            await buffer.committed(buffer.next_seq - 1)
            buffer.append([buffer.checkpoint()])
        buffer.append([sample([1.0, True, 2])])
        await buffer.committed(buffer.next_seq - 1)
        deliver(buffer, database, lane)
        while not verify_dir(data).gaps:
            await buffer.upkeep.retention.step()
    verdict = verify_dir(data, database)
    assert verdict.damages == []
    ranges, seqs = verdict.gaps["delivered"]
    assert ranges >= 2 and seqs >= 80
    assert verdict.against is not None
    assert verdict.against["no_longer_kept"] == seqs

    with forged(data, tmp_path / "copy") as db:
        seq = seqs_of(db, Kind.SAMPLE)[-20]
        edit(db, seq, lambda body: body.update(values=[9.0, True, 2]))
    found = verify_dir(tmp_path / "copy", database)
    assert told(found) == [("broken_link", seq, "sample"), ("edited", seq, "sample")]


def test_a_copy_that_is_started_elsewhere_is_named_as_a_fork(tmp_path: Path) -> None:
    produce(tmp_path / "data", tmp_path / "received.db", runs=1)
    shutil.copytree(tmp_path / "data", tmp_path / "clone")
    produce(tmp_path / "data", tmp_path / "received.db", runs=1)
    produce(tmp_path / "clone", tmp_path / "received.db", runs=1)
    for place in ("data", "clone"):
        other = {"data": "clone", "clone": "data"}[place]
        with sqlite3.connect(tmp_path / other / "buffer.db") as db:
            (log,) = db.execute("SELECT id FROM log ORDER BY first_seq DESC LIMIT 1").fetchone()
        verdict = verify_dir(tmp_path / place, tmp_path / "received.db")
        assert [(damage.code, damage.log) for damage in verdict.damages] == [("fork", log)]
        assert verify_dir(tmp_path / place).intact


def test_a_restored_snapshot_is_named(tmp_path: Path) -> None:
    produce(tmp_path / "data", tmp_path / "received.db", runs=1)
    shutil.copytree(tmp_path / "data", tmp_path / "snapshot")
    produce(tmp_path / "data", tmp_path / "received.db", runs=1)
    verdict = verify_dir(tmp_path / "snapshot", tmp_path / "received.db")
    assert set(verdict.counts) == {"fork"}
    assert verify_dir(tmp_path / "data", tmp_path / "received.db").intact


def test_a_tail_that_was_cut_off_is_named_by_the_witness_and_by_the_receiver(
    day: tuple[Path, Path], tmp_path: Path
) -> None:
    shutil.copytree(day[0], tmp_path / "copy")
    with sqlite3.connect(tmp_path / "copy" / "buffer.db") as db:
        (head,) = db.execute("SELECT max(seq) FROM record").fetchone()
        db.execute("DELETE FROM record WHERE seq > ?", (head - 30,))
    alone = verify_dir(tmp_path / "copy")
    assert ("witness", head - 29, None) in told(alone)
    against = verify_dir(tmp_path / "copy", day[1])
    assert ("lost", head - 29) in [(code, seq) for code, seq, _ in told(against)]


# --- damage ----------------------------------------------------------------------------------------------------


def test_a_page_that_cannot_be_read_names_its_records_and_the_rest_is_verified(tmp_path: Path) -> None:
    data = tmp_path / "data"
    produce(data, tmp_path / "received.db", runs=1, units=60)
    path = data / "buffer.db"
    with sqlite3.connect(path) as db:
        (page_size,) = db.execute("PRAGMA page_size").fetchone()
        (middle,) = db.execute("SELECT body FROM record WHERE kind = 7 LIMIT 1 OFFSET 30").fetchone()
    place = path.read_bytes().index(middle) // page_size * page_size
    with path.open("r+b") as file:
        file.seek(place)
        file.write(bytes(page_size))
    verdict = verify_dir(data)
    (unreadable,) = [damage for damage in verdict.damages if damage.code == "unreadable"]
    assert unreadable.seq is not None and unreadable.last_seq is not None
    assert set(verdict.counts) == {"unreadable", "structure"}
    assert verdict.records + unreadable.last_seq - unreadable.seq + 1 == verdict.head_seq
    with sqlite3.connect(path) as db:
        assert db.execute("SELECT seq FROM record WHERE seq = ?", (unreadable.seq - 1,)).fetchone()
    against = verify_dir(data, tmp_path / "received.db")
    assert set(against.counts) == {"unreadable", "structure"}
    assert against.against is not None and against.against["records"] > 500


@pytest.mark.parametrize("content", [b"", b"a text file in its place\n" * 400, b"SQLite format 3\0" + bytes(4000)])
def test_a_file_that_is_no_database_is_damage_and_no_crash(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "damaged-20260101T000000Z").mkdir()
    (tmp_path / "damaged-20260101T000000Z" / "buffer.db").write_bytes(content)
    verdict = verify_dir(tmp_path / "damaged-20260101T000000Z")
    assert not verdict.intact


@pytest.mark.parametrize("seed", range(12))
def test_damage_of_any_kind_ends_in_a_verdict(day: tuple[Path, Path], tmp_path: Path, seed: int) -> None:
    chance, content = random.Random(seed), bytearray((day[0] / "buffer.db").read_bytes())
    if seed % 3 == 0:
        page = chance.randrange(1, len(content) // 4096) * 4096
        content[page : page + 4096] = chance.randbytes(4096)
    elif seed % 3 == 1:
        del content[chance.randrange(5000, len(content) - 1) :]
    else:
        for _ in range(200):
            content[chance.randrange(100, len(content))] ^= 1 << chance.randrange(8)
    (tmp_path / "buffer.db").write_bytes(content)
    for against in (None, day[1]):
        verdict = verify_dir(tmp_path, against)
        assert not verdict.intact and all(damage.text for damage in verdict.damages)


def test_no_buffer_says_where_to_look(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="there is no buffer") as caught:
        verify_dir(tmp_path)
    assert "--data-dir" in caught.value.hint


def test_progress_outside_its_lane_and_a_dead_letter_without_its_record_are_named(
    day: tuple[Path, Path], tmp_path: Path
) -> None:
    def forge(db: sqlite3.Connection) -> None:
        db.execute("UPDATE lane SET seq = seq + 1000, n = 5 WHERE id = (SELECT max(id) FROM lane)")
        db.execute(
            "INSERT INTO dead_letter (route, lane, n, seq, reason, at_ns)"
            " SELECT 'mes', min(id), 3, 999999, 'no', 1 FROM lane"
        )

    _, alone, _ = after_forging(day, tmp_path / "copy", forge)
    assert sorted(alone.counts) == ["dead_letter", "lane"]


def test_a_spoiled_witness_is_named(day: tuple[Path, Path], tmp_path: Path) -> None:
    shutil.copytree(day[0], tmp_path / "copy")
    witness = tmp_path / "copy" / "witness.json"
    witness.write_text(witness.read_text().replace('"log":"', '"log":"f', 1))
    assert [code for code, _, _ in told(verify_dir(tmp_path / "copy"))] == ["witness"]


def test_the_advice_fits_what_was_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A page that cannot be read is the disk's, a changed record somebody's: a restart mends only the first."""
    for name, done in (("page", None), ("edit", "UPDATE record SET body = replace(body, 'Passed', 'Failed')")):
        data = tmp_path / name
        produce(data, tmp_path / f"{name}.db", runs=1, units=20)
        if done is None:
            (data / "buffer.db").write_bytes(b"a text file in its place\n" * 400)
        else:
            with sqlite3.connect(data / "buffer.db") as db:
                db.execute("DROP TRIGGER record_append_only")
                db.execute(done)
        with pytest.raises(SystemExit) as end:
            cli.main(["--lang", "en", "buffer", "verify", "--data-dir", str(data)])
        assert end.value.code == cli.ExitCode.DAMAGED
        advice = capsys.readouterr().out
        assert (f"touch {data / 'suspect'}, then restart" in advice) is (done is None)
        assert ("keep a copy of the directory" in advice) is (done is not None)
