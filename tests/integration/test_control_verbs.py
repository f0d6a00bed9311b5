"""What the agent does when asked over its socket: a real buffer, a real socket, the asker in a thread."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import time
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
import pytest

from edge_agent.buffer import Buffer, open_readonly, writer
from edge_agent.control import AgentRefused, Control, ask, server, verbs
from edge_agent.control.verbs import Verbs
from edge_agent.errors import StorageFull
from edge_agent.model import Kind
from support.buffer_rig import ALL, asynchronous, opened, preamble, read_all, sample

MES = SimpleNamespace(sink="mqtt", order="live_first")


@pytest.fixture(autouse=True)
def _prompt_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "PROGRESS_S", 0.01)


@contextlib.asynccontextmanager
async def serving(data_dir: Path, **settings: Any) -> AsyncIterator[Buffer]:
    """A buffer with the route mes, 40 samples, and a control socket that answers."""
    async with opened(data_dir, **settings) as buffer:
        buffer.lanes("mes", "now", ALL)
        buffer.append([*preamble(), *(sample([n, True, 1]) for n in range(40))])
        await buffer.committed(buffer.next_seq - 1)
        path = data_dir / "control.sock"
        task = asyncio.create_task(Control(path, Verbs(buffer, [], {"mes": MES}).handlers()).serve())
        while not path.exists():  # noqa: ASYNC110  a file has no event
            await asyncio.sleep(0.005)
        try:
            yield buffer
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


async def asked(buffer: Buffer, verb: str, **arguments: Any) -> dict[str, Any]:
    return await asyncio.to_thread(ask, buffer.files.data_dir, verb, timeout_s=20.0, **arguments)


async def refusal(buffer: Buffer, verb: str, **arguments: Any) -> tuple[str, str]:
    with pytest.raises(AgentRefused) as caught:
        await asked(buffer, verb, **arguments)
    assert caught.value.hint, "every refusal says what to do"
    return str(caught.value.args[0]), caught.value.hint


def audits(buffer: Buffer) -> list[dict[str, Any]]:
    with contextlib.closing(sqlite3.connect(f"file:{buffer.files.db}?mode=ro", uri=True)) as db:
        rows = db.execute("SELECT body FROM record WHERE kind = ? ORDER BY seq", (int(Kind.AUDIT),)).fetchall()
    return [orjson.loads(body) for (body,) in rows]


async def listed(buffer: Buffer, name: str = "mes") -> dict[str, Any]:
    routes = {route["route"]: route for route in (await asked(buffer, "route_list"))["routes"]}
    found: dict[str, Any] = routes[name]
    return found


async def refuse(buffer: Buffer, *seqs: int, reason: str = "unknown part number", route: str = "mes") -> None:
    """Everything of the route is done, but ``seqs``: refused."""
    (lane, *_) = buffer.lanes(route, "now", ALL)
    for seq in seqs:
        buffer.dead_letter(lane, seq, seq, reason)
    buffer.progress(lane, buffer.durable_seq, buffer.durable_seq)
    await asyncio.sleep(0.1)


@asynchronous
async def test_list_tells_what_is_pending_and_what_each_lane_is_for(tmp_path: Path) -> None:
    async with serving(tmp_path) as buffer:
        told = await listed(buffer)
        assert (told["sink"], told["order"], told["attached"], told["state"]) == ("mqtt", "live_first", True, "stopped")
        assert told["pending"] == buffer.durable_seq
        (lane,) = told["lanes"]
        assert (lane["purpose"], lane["last_seq"], lane["first_seq"]) == ("log", None, 1)


@asynchronous
async def test_a_replay_is_a_lane_over_what_was_recorded_then_and_an_audit_says_who_asked(tmp_path: Path) -> None:
    async with serving(tmp_path) as buffer:
        (lane,) = buffer.lanes("mes", "now", ALL)
        buffer.progress(lane, buffer.durable_seq, buffer.durable_seq)
        last = buffer.durable_seq
        now_ns = time.time_ns()
        request = {"since_ns": str(now_ns - 3600 * 10**9), "until_ns": str(now_ns), "typed": "--since 1h"}
        answer = await asked(buffer, "route_replay", route="mes", **request)
        assert (answer["first_seq"], answer["last_seq"]) == (1, last)
        replayed = next(lane for lane in (await listed(buffer))["lanes"] if lane["purpose"] == "replay")
        assert replayed["stream"] == answer["lanes"][0]["stream"]
        (audit,) = audits(buffer)
        assert audit["who"].endswith(f"(uid {os.getuid()})") and audit["action"] == "route_replay"
        assert audit["reason"] == "--since 1h" and audit["new"]["last_seq"] == last
        (offered,) = await buffer.offered("mes")
        assert [row.seq for row in read_all(buffer, offered)] == list(range(1, last + 1))


@asynchronous
async def test_a_replay_that_cannot_be_changes_nothing_and_says_what_to_do(tmp_path: Path) -> None:
    async with serving(tmp_path) as buffer:
        hour = {"since_ns": str(time.time_ns() - 3600 * 10**9), "until_ns": str(time.time_ns() + 10**9)}
        long_ago = {"since_ns": "1", "until_ns": "2"}
        assert "nothing was recorded" in (await refusal(buffer, "route_replay", route="mes", **long_ago))[0]
        text, hint = await refusal(buffer, "route_replay", route="nope", **hour)
        assert "no route is named nope" in text and "route list" in hint
        assert "UTC nanoseconds" in (await refusal(buffer, "route_replay", route="mes", since_ns="x"))[0]
        assert audits(buffer) == []
        for _ in range(verbs.REPEATS_MAX):
            await asked(buffer, "route_replay", route="mes", **hour)
        assert "under way" in (await refusal(buffer, "route_replay", route="mes", **hour))[0]
        assert len(audits(buffer)) == verbs.REPEATS_MAX


@asynchronous
async def test_a_retried_dead_letter_counts_no_more_but_stays_listed_and_another_may_stand(tmp_path: Path) -> None:
    async with serving(tmp_path) as buffer:
        await refuse(buffer, 5, 6)
        await refuse(buffer, 7, reason="Too Large")
        assert buffer.stats()["dead_letters"] == {"mes": 3}
        answer = await asked(buffer, "deadletter_retry", route="mes", ids=None, reason_contains="too large")
        assert (answer["records"], answer["first_seq"], answer["left"]) == (1, 7, 0)
        assert buffer.stats()["dead_letters"] == {"mes": 2}
        assert (await listed(buffer))["dead_letters"] == 2
        with contextlib.closing(open_readonly(tmp_path)) as archive:
            assert [letter.seq for letter in archive.dead_letters("mes")] == [5, 6]
            everything = archive.dead_letters(retried=True)
            assert [letter.retried_at_ns is not None for letter in everything] == [False, False, True]
            assert everything[2].id == f"{buffer.log}-7" and everything[2].body["values"]
        (lane,) = await buffer.offered("mes")
        assert [row.seq for row in read_all(buffer, lane)] == [7] and lane.replayed
        buffer.dead_letter(lane, 1, 7, "still too large")
        buffer.progress(lane, 7, 1)
        await asyncio.sleep(0.1)
        assert buffer.stats()["dead_letters"] == {"mes": 3}
        with contextlib.closing(open_readonly(tmp_path)) as archive:
            assert [letter.reason for letter in archive.dead_letters(seq=7, retried=True)] == [
                "Too Large",
                "still too large",
            ]
        (audit,) = audits(buffer)
        assert audit["action"] == "deadletter_retry" and audit["new"]["records"] == 1


@asynchronous
async def test_letters_are_retried_by_id_at_most_so_many_and_unknown_ones_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verbs, "RETRY_MAX", 2)
    async with serving(tmp_path) as buffer:
        await refuse(buffer, 5, 6, 7, 8)
        answer = await asked(buffer, "deadletter_retry", route="mes", ids=[f"{buffer.log}-6"])
        assert (answer["records"], answer["first_seq"]) == (1, 6)
        text, hint = await refusal(buffer, "deadletter_retry", route="mes", ids=[f"{buffer.log}-6"])
        assert f"{buffer.log}-6" in text and "deadletter list mes" in hint
        answer = await asked(buffer, "deadletter_retry", route="mes", ids=None)
        assert (answer["records"], answer["left"]) == (2, 1)
        answer = await asked(buffer, "deadletter_retry", route="mes", ids=None)
        assert (answer["records"], answer["left"]) == (1, 0)
        assert "no such dead letter" in (await refusal(buffer, "deadletter_retry", route="mes", ids=None))[0]


@asynchronous
async def test_a_drop_gives_up_what_is_pending_and_records_who_and_why(tmp_path: Path) -> None:
    async with serving(tmp_path) as buffer:
        pending = (await listed(buffer))["pending"]
        assert "needs a reason" in (await refusal(buffer, "route_drop", route="mes"))[0]
        assert "no route is named" in (await refusal(buffer, "route_drop", route="nope", reason="x"))[0]
        answer = await asked(buffer, "route_drop", route="mes", reason="replaced by mes2")
        assert answer["dropped"] >= pending and answer["removed"] is False
        (audit,) = audits(buffer)
        assert (audit["action"], audit["reason"]) == ("route_drop", "replaced by mes2")
        assert audit["old"] == {"route": "mes", "attached": True, "pending": pending}
        with contextlib.closing(sqlite3.connect(f"file:{buffer.files.db}?mode=ro", uri=True)) as db:
            drops = [orjson.loads(body) for (body,) in db.execute("SELECT body FROM record WHERE kind = 16")]
        assert drops and all(drop["route"] == "mes" and drop["reason"] == "replaced by mes2" for drop in drops)


@asynchronous
async def test_a_detached_route_is_listed_and_goes_with_its_drop(tmp_path: Path) -> None:
    async with serving(tmp_path) as buffer:
        buffer.lanes("old", "now", ALL)
        assert "until just now" in (await refusal(buffer, "route_drop", route="old", reason="gone"))[0]
        buffer.attached.discard("old")
        await buffer.upkeep.detach()
        told = await listed(buffer, "old")
        assert (told["attached"], told["state"]) == (False, "detached") and told["pending"] > 0
        text, hint = await refusal(buffer, "route_replay", route="old", since_ns="1", until_ns=str(time.time_ns()))
        assert "no longer in the configuration" in text and "route drop" in hint
        answer = await asked(buffer, "route_drop", route="old", reason="gone")
        assert answer["removed"] is True
        assert {route["route"] for route in (await asked(buffer, "route_list"))["routes"]} == {"mes"}
        assert (await listed(buffer))["pending"] > 0  # mes lost nothing


@asynchronous
async def test_a_drop_works_while_the_buffer_is_full(tmp_path: Path) -> None:
    async with serving(tmp_path) as buffer:
        buffer.writer.held = StorageFull("full")  # what retention says when nothing may be deleted any more
        answer = await asked(buffer, "route_drop", route="mes", reason="make room")
        assert answer["dropped"] > 0


@asynchronous
async def test_a_verb_that_takes_too_long_is_ended_and_the_loop_turns_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "HANDLER_TIMEOUT_S", 0.2)
    async with serving(tmp_path) as buffer:
        monkeypatch.setattr(Verbs, "_standings", lambda self: asyncio.sleep(60))
        text, hint = await refusal(buffer, "route_replay", route="mes", since_ns="1", until_ns="2")
        assert "was not done within" in text and "route list" in hint
