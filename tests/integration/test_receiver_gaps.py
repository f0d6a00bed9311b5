"""Gaps: noticed, asked for again, filled or given up; and what shows that records are not what they were."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_agent.model import Kind
from edge_agent.receiver import Finding, Gap, Receiver, verify
from edge_agent.receiver.gaps import ASKED, ASKS
from edge_agent.receiver.message import Message, parse
from edge_agent.receiver.store import Store
from support.contract import of
from support.delivery import CONFIRM, Watcher, buffer, running, scans, settings, settled, threaded, until
from support.mosquitto import Mosquitto
from support.postgres import Postgres

LOG = "aaaaaaaaaaaa"
WHOLE = {"raw": "", "stations": ["OP10"]}  # what a scan must have beside the text


def message(numbers: dict[int, int], *, lane: int = 1, after: int = 0, kind: str = "scan", log: str = LOG,
            **more: Any) -> Message:  # fmt: skip
    """Records n → seq; of a tombstone n → count."""
    records: list[dict[str, Any]] = [
        {"n": n, "count": seq, "reason": "seq 5-9 is no longer kept"} if kind == "tombstone"
        else {"n": n, "seq": seq, "at_ns": "1", "mono_ns": "1", "status": "read"}
        for n, seq in numbers.items()
    ]  # fmt: skip
    head = {"v": 1, "agent": "pc1", "stream": f"{log}.mes.{lane}", "log": log, "boot": "b", "source": "gate",
            "kind": kind, "n": min(numbers), "after": after, "confirm": CONFIRM, "records": records}  # fmt: skip
    return parse(json.dumps(head | more).encode())


@pytest.fixture
def store(place: str) -> Iterator[Store]:
    with contextlib.closing(Store(place)) as opened:
        yield opened


def asked(store: Store, **more: Any) -> tuple[list[str], list[dict[str, Any]]]:
    """(states told, requests) of one look."""
    watch = store.look_at_gaps(**({"gap_after_s": 0.0, "ask_after_s": 0.0, "ask": True} | more))
    requests = [json.loads(payload) for topic, payload in watch.requests if topic == CONFIRM]
    for request in requests:
        assert not list(of("replay_request").iter_errors(request))
    return [gap.state for gap in watch.gaps], [request["replay"] for request in requests]


def test_what_was_settled_without_us_is_asked_for_at_once_between_its_neighbours(store: Store) -> None:
    store.take([message({1: 3, 2: 5})])
    (gap,) = store.take([message({7: 20}, after=6)]).gaps
    assert (gap.first_n, gap.last_n, gap.lost, gap.first_seq, gap.last_seq) == (3, 6, True, 6, 19)
    states, (request,) = asked(store, ask_after_s=60.0)
    assert states == ["asked"]
    assert (request["route"], request["log"], request["first_seq"], request["last_seq"]) == ("mes", LOG, 6, 19)
    store.take([message({1: 7, 2: 8, 3: 9}, lane=2, replay=request["id"])])
    assert asked(store, ask_after_s=60.0) == ([], []), "one is still missing"
    store.take([message({4: 19}, lane=2, replay=request["id"])])
    assert asked(store) == (["filled"], [])
    assert asked(store) == ([], [])


def test_what_the_agent_sends_again_by_itself_is_not_asked_for_too_soon(store: Store) -> None:
    store.take([message({1: 1, 4: 4})])
    assert asked(store, ask_after_s=60.0) == (["open"], [])
    assert asked(store, ask_after_s=60.0) == ([], [])
    store.take([message({2: 2, 3: 3})])
    assert asked(store, ask_after_s=60.0) == (["filled"], [])


def test_a_hole_is_asked_for_when_its_time_is_over(store: Store) -> None:
    store.take([message({1: 1, 4: 9})])
    assert asked(store, ask_after_s=60.0)[0] == ["open"]
    states, (request,) = asked(store)
    assert (states, request["first_seq"], request["last_seq"]) == (["asked"], 2, 8)
    store.take([message({1: 4, 2: 6}, lane=2, replay=request["id"])])
    assert asked(store) == (["filled"], [])
    said = json.loads(store.take([message({5: 10})]).confirmations[0][1])
    assert said["upto"] == 1, "the numbers themselves have not come: only their sender settles them"
    assert asked(store) == ([], []), "and it is told once"


def test_what_is_no_longer_kept_is_given_up_with_the_agents_reason(store: Store) -> None:
    store.take([message({1: 3})])
    store.take([message({7: 20}, after=6)])
    _, (request,) = asked(store)
    store.take([message({1: 1}, lane=2, kind="tombstone", replay=request["id"]), message({2: 19}, lane=2)])
    store.database.execute(
        "UPDATE gap SET heard_at_ns = heard_at_ns - 2000000000, asked_at_ns = asked_at_ns - 2000000000"
    )
    watch = store.look_at_gaps(0.0, 0.0, ask=True)
    assert [(gap.state, gap.reason) for gap in watch.gaps] == [("given_up", "seq 5-9 is no longer kept; 1 of 5 came")]


def test_an_agent_that_does_not_answer_is_asked_a_few_times_ever_more_slowly(store: Store) -> None:
    store.take([message({1: 1})])
    store.take([message({9: 9}, after=8)])
    waits, ids, told = [], set(), []
    for _ in range(40):
        states, requests = asked(store, ask_after_s=60.0)
        told += states
        if requests:
            ids |= {request["id"] for request in requests}
            waits.append(0)
        waits[-1] += 30
        store.database.execute("UPDATE gap SET asked_at_ns = asked_at_ns - 30000000000")
    assert told == ["asked", "given_up"]
    assert len(ids) == ASKS, "each has an id of its own"
    assert waits[: ASKS - 1] == [60, 120, 240]


def test_only_a_few_are_asked_for_at_once(store: Store) -> None:
    store.take([message({n: n for n in range(1, 20, 2)})])
    asked(store, ask_after_s=60.0)
    assert len(asked(store)[1]) == ASKED
    assert len(asked(store)[1]) <= ASKED


def test_two_receivers_of_one_database_tell_and_ask_once(place: str) -> None:
    with contextlib.closing(Store(place)) as one, contextlib.closing(Store(place)) as two:
        one.take([message({1: 1})])
        two.take([message({5: 5}, after=4)])
        assert len(asked(one)[1]) == 1
        assert asked(two, ask_after_s=60.0)[1] == []
        two.take([message({1: 2, 2: 3, 3: 4}, lane=2)])
        assert [asked(one)[0], asked(two)[0]] == [["filled"], []]
        assert one.tracker("pc1", f"{LOG}.mes.1").upto == 5


def test_a_stream_that_a_restored_database_never_saw_is_a_loss(place: str) -> None:
    with contextlib.closing(Store(place)) as store:
        store.take([message({1: 1})])
        assert store.take([message({40: 90}, after=30, log="bbbbbbbbbbbb")]).gaps == [], "a backlog, we are new here"
    with contextlib.closing(Store(place)) as store:
        (gap,) = store.take([message({40: 190}, after=30, log="cccccccccccc")]).gaps
        assert (gap.first_n, gap.last_n, gap.lost) == (1, 30, True)
        (request,) = asked(store, ask_after_s=60.0)[1]
        assert (request["first_seq"], request["last_seq"]) == (160, 189), "as many as must lie in that log"
        other = {"stream": "dddddddddddd.qms.1", "log": "dddddddddddd"}
        assert store.take([message({40: 90}, after=30, **other)]).gaps == [], "a route that we never followed"


# --- with a real agent -------------------------------------------------------------------------------------------


def test_a_receiver_restored_from_a_backup_gets_back_what_it_lost(tmp_path: Path) -> None:
    database, gaps = tmp_path / "records.db", list[Gap]()

    @contextlib.contextmanager
    def receiving(url: str, **more: Any) -> Iterator[Receiver]:
        receiver = Receiver(url, "acme/#", database, **more)
        with threaded(receiver.run, receiver.stop):
            yield receiver

    async def scenario() -> None:
        with Mosquitto(tmp_path) as broker, Watcher(broker.url) as watcher:
            async with buffer(tmp_path) as store, running(store, settings(broker.url)) as route:
                with receiving(broker.url):
                    store.append(scans(10, "saved", **WHOLE))
                    await settled(route, store)
                backup = database.read_bytes()
                with receiving(broker.url):
                    store.append(scans(300, "lost", **WHOLE))
                    await settled(route, store)
                database.write_bytes(backup)
                with receiving(broker.url, on_gap=gaps.append, gap_after_s=0.2) as receiver:
                    store.append(scans(10, "after", **WHOLE))
                    await settled(route, store)
                    await until(lambda: receiver.counts["gaps_filled"] == 1, lambda: gaps)
                    await settled(route, store)
            for _, said in watcher.messages:
                name = next((one for one in ("records", "resume", "replay", "upto") if one in said), "state")
                kind = {"records": "message", "replay": "replay_request", "upto": "confirmation"}.get(name, name)
                assert not [error.message for error in of(kind).iter_errors(said)], said

    asyncio.run(scenario())
    assert [(gap.state, gap.first_n, gap.last_n, gap.lost) for gap in gaps] == [
        (state, 12, 311, True) for state in ("open", "asked", "filled")
    ]
    with contextlib.closing(sqlite3.connect(database)) as connection:
        assert connection.execute("SELECT count(*) FROM record WHERE kind = 'scan'").fetchone() == (320,)


EVERYTHING = [kind.label for kind in Kind]


def proof_of_a_life(tmp_path: Path, place: str) -> None:
    """Two logs of a real agent, received with all kinds, each with checkpoints."""

    async def scenario() -> None:
        with Mosquitto(tmp_path) as broker:
            receiver = Receiver(broker.url, "acme/#", place)
            with threaded(receiver.run, receiver.stop):
                for life in ("one", "two"):
                    async with (
                        buffer(tmp_path) as store,
                        running(store, settings(broker.url, send=EVERYTHING)) as route,
                    ):
                        for part in range(3):
                            store.append(scans(20, f"{life}{part}", reason="grün"))
                            await settled(route, store)
                            store.append([store.checkpoint()])
                            await settled(route, store)

    asyncio.run(scenario())


def test_the_chain_of_what_was_received_is_proven_and_a_change_is_found(tmp_path: Path, place: str) -> None:
    proof_of_a_life(tmp_path, place)
    proof = verify(place)
    assert proof.findings == []
    assert proof.proven >= 6, "all checkpoints but those at the very end of a log, which this route did not wait for"
    with contextlib.closing(Store(place)) as store:
        (seq,) = store.database.execute("SELECT max(seq) - 10 FROM record WHERE kind = 'scan'").fetchone()
        sql = 'UPDATE record SET body = \'{"status":"read","text":"another"}\' WHERE seq = ?'
        store.database.execute(sql, (seq,))
    (finding,) = verify(place).findings
    assert finding.code == "chain"
    first, last = finding.about.split()[1].split("-")
    assert int(first) <= seq <= int(last)


def test_records_that_are_not_all_here_prove_nothing_and_accuse_nobody(tmp_path: Path) -> None:
    database = str(tmp_path / "records.db")
    proof_of_a_life(tmp_path, database)
    with contextlib.closing(sqlite3.connect(database)) as connection:
        connection.execute("DELETE FROM record WHERE kind = 'scan' AND seq % 7 = 0")
        connection.commit()
    proof = verify(database)
    assert proof.findings == [] and proof.unproven > 0


def opened(log: str, seq: int, *previous: Any) -> Message:
    body = {"log": log, "agent": "pc1", "boot": "b", "host": "h", "version": "1", "reason": "start"}
    if previous:
        body |= {"previous": {"log": previous[0], "seq": previous[1], "hash": previous[2] * 64}}  # type: ignore[dict-item]
    record = {"n": 1, "seq": seq, "at_ns": "1", "mono_ns": "1", **body}
    head = {"v": 1, "agent": "pc1", "stream": f"{log}.mes.1", "log": log, "boot": "b", "source": "agent",
            "kind": "log_opened", "n": 1, "after": 0, "confirm": CONFIRM, "records": [record]}  # fmt: skip
    return parse(json.dumps(head).encode())


def test_a_fork_is_noticed_whatever_comes_first(store: Store) -> None:
    def codes(*messages: Message) -> list[tuple[str, str]]:
        return [(finding.code, finding.about) for finding in store.take(messages).findings]

    assert codes(opened("bbbbbbbbbbbb", 10, LOG, 9, "1"), message({2: 9})) == []
    assert codes(message({3: 10})) == [("fork", f"{LOG}-9 bbbbbbbbbbbb")], "the original went on beside its clone"
    assert codes(message({4: 11})) == [], "told once"
    found = codes(opened("cccccccccccc", 10, LOG, 9, "2"))
    assert ("fork", f"{LOG} bbbbbbbbbbbb cccccccccccc") in found
    assert ("anchor", f"{LOG}-9") in found, "and they do not agree on what was before them"
    assert codes(opened("dddddddddddd", 30, "cccccccccccc", 29, "3")) == [], "an ordinary restart"
    rows = store.database.execute("SELECT count(*) FROM finding").fetchone()
    assert rows[0] >= 3


def test_a_receiver_tells_of_a_fork_and_goes_on(tmp_path: Path) -> None:
    findings: list[Finding] = []

    async def scenario() -> None:
        with Mosquitto(tmp_path) as broker:
            receiver = Receiver(broker.url, "acme/#", tmp_path / "records.db", on_finding=findings.append)
            with threaded(receiver.run, receiver.stop):
                async with buffer(tmp_path) as store, running(store, settings(broker.url)) as route:
                    store.append(scans(5))
                    await settled(route, store)
                for name in ("one", "two"):  # the same data_dir, started on two PCs
                    await asyncio.to_thread(_copy, tmp_path / "data", tmp_path / name / "data")
                for name in ("one", "two"):
                    async with buffer(tmp_path / name) as store, running(store, settings(broker.url)) as route:
                        store.append(scans(5, name))
                        await settled(route, store)

    asyncio.run(scenario())
    assert [finding.code for finding in findings] == ["fork"]
    with contextlib.closing(sqlite3.connect(tmp_path / "records.db")) as connection:
        assert connection.execute("SELECT code FROM finding").fetchall() == [("fork",)]
        assert connection.execute("SELECT count(*) FROM record WHERE kind = 'scan'").fetchone() == (15,)


def _copy(source: Path, target: Path) -> None:
    import shutil

    shutil.copytree(source, target)


def test_a_database_server_that_is_killed_costs_nothing(tmp_path: Path, server: Postgres) -> None:
    async def scenario() -> None:
        with Mosquitto(tmp_path) as broker:
            receiver = Receiver(broker.url, "acme/#", server.place)
            with threaded(receiver.run, receiver.stop):
                async with buffer(tmp_path) as store, running(store, settings(broker.url)) as route:
                    store.append(scans(200, "before"))
                    await settled(route, store)
                    server.kill()
                    store.append(scans(200, "while"))
                    await asyncio.to_thread(time.sleep, 0.3)
                    server.start()
                    await settled(route, store)
            found = server.sql("SELECT body ->> 'text' FROM edge_agent.record WHERE kind = 'scan'")
            assert sorted(text for (text,) in found) == sorted(
                f"{n}-{i}" for n in ("before", "while") for i in range(200)
            )

    asyncio.run(scenario())
