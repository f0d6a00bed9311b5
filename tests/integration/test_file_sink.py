"""Routes into a folder: killed at every step, a full disk, a share that is gone, an importer that takes files away."""

from __future__ import annotations

import asyncio
import csv
import errno
import json
import os
import signal
import subprocess
import xml.etree.ElementTree as ET
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from edge_agent.routes.file_folder import STEPS, Folder, NewFile
from edge_agent.routes.file_settings import FileRouteSettings
from edge_agent.routes.sink import SinkAway
from support.delivery import buffer, running, scans, scenario, settled, until
from support.sink_line import accepted, run


def settings(folder: Path, **more: Any) -> FileRouteSettings:
    given = {"sink": "file", "folder": str(folder), "format": "jsonl", "start": "oldest", "send": ["scan"],
             "every": "100ms"}  # fmt: skip
    return FileRouteSettings.model_validate(given | more)


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file())


def texts(paths: list[Path]) -> list[str]:
    """The text of every scan in these files, read as an importer would."""
    found: list[str] = []
    for path in paths:
        if path.suffix == ".jsonl":
            bodies = [json.loads(line)["body"] for line in path.read_bytes().splitlines()]
        elif path.suffix == ".csv":
            with path.open(encoding="utf-8-sig", newline="") as file:
                bodies = [json.loads(row["body"]) for row in csv.DictReader(file)]
        else:
            bodies = [json.loads(one.findtext("body") or "") for one in ET.parse(path).getroot()]
        found += [body["text"] for body in bodies if "text" in body]
    return found


@pytest.mark.parametrize("form", ["jsonl", "csv", "xml"])
@scenario
async def test_each_record_is_in_one_file_in_any_format(tmp_path: Path, form: str) -> None:
    folder = tmp_path / "out"
    folder.mkdir(mode=0o775)
    folder.chmod(0o775)
    async with buffer(tmp_path) as log, running(log, settings(folder, format=form)) as route:
        for source in ("gate", "a/b: 你好"):
            log.append(scans(300, source))
        await settled(route, log)
        status = route.status()
    assert status["confirm"] == "handed over"
    wanted = [f"{source}-{i}" for source in ("gate", "a/b: 你好") for i in range(300)]
    assert Counter(texts(files(folder))) == Counter(wanted)
    assert status["files"] == len(files(folder)) == 3
    name = next(path.name for path in files(folder) if path.name.startswith("a_b__你好-scan"))
    assert name.startswith(f"a_b__你好-scan-{log.log}.mes.1-")
    assert {path.stat().st_mode & 0o777 for path in files(folder)} == {0o664}


@pytest.mark.long
@pytest.mark.parametrize(("step", "form"), [*zip(STEPS, ("csv", "xml", "jsonl"), strict=True)])
def test_killed_at_a_step_each_record_is_in_the_files_once(tmp_path: Path, step: str, form: str) -> None:
    """An importer takes files away between the runs: what is gone must not come again either."""
    folder, taken = tmp_path / "out", tmp_path / "taken"
    folder.mkdir()
    taken.mkdir()
    route = {"sink": "file", "folder": str(folder), "format": form, "start": "oldest", "send": ["scan"],
             "every": "100ms"}  # fmt: skip
    for hit in (1, 3):
        assert run(tmp_path, route, f"{step}:{hit}") == -signal.SIGKILL
        for path in files(folder):
            path.rename(taken / path.name)
    assert run(tmp_path, route) == 0
    for path in files(folder):
        path.rename(taken / path.name)  # never two of one name
    counted = Counter(texts(files(taken)))
    assert set(counted.values()) == {1}
    assert set(counted) == accepted(tmp_path)
    assert not list((folder / ".edge-agent").rglob("*.part"))


def mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


@pytest.mark.skipif(os.getuid() != 0, reason="only root may mount")
@scenario
async def test_a_share_that_is_gone_or_full_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_agent.routes.route.BACKOFF_MAX_S", 0.3)
    share = tmp_path / "share"
    share.mkdir()
    given = settings(share / "out", mount=str(share))
    async with buffer(tmp_path) as log, running(log, given) as route:
        log.append(scans(10))
        await until(lambda: "nothing is mounted" in str(route.status()["last_error"]), route.status)
        assert route.status()["hint"] == f"mount it: mount {share}"
        mount("-t", "tmpfs", "-o", "size=256k", "tmpfs", str(share))
        try:
            await until(lambda: "is no folder" in str(route.status()["last_error"]), route.status)
            (share / "out").mkdir()
            await settled(route, log)
            (share / "others").write_bytes(bytes(200 * 1024))
            log.append(scans(500, "late"))
            await until(lambda: "No space left" in str(route.status()["last_error"]), route.status)
            for _ in range(4):  # however often it fails, no record is to blame
                seen = route.status()["connections"]
                await until(lambda seen=seen: route.status()["connections"] > seen, route.status)  # type: ignore[misc]
                shown = route.status()  # the folder can be opened, and that is no recovery
                assert shown["state"] != "connected" and "No space left" in shown["last_error"], shown
            assert not route._lanes.careful  # or it would soon condemn one
            assert not texts([path for path in files(share / "out") if path.name.startswith("late")])
            (share / "others").unlink()
            await settled(route, log)
            assert route.status()["dead"] == 0
            assert (route.status()["state"], route.status()["last_error"]) == ("connected", None)
            counted = Counter(texts(files(share / "out")))
        finally:
            subprocess.run(["umount", "--lazy", str(share)], check=True)  # noqa: ASYNC221
    assert counted == Counter([*(f"gate-{i}" for i in range(10)), *(f"late-{i}" for i in range(500))])


def test_a_failure_after_the_intent_may_have_happened_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A share may answer with an error though it did what it was asked: then the state names the parts already."""
    (tmp_path / "out").mkdir()
    folder = Folder(str(tmp_path / "out"), None, "pc1-mes")
    folder.open()

    def answer_lost(_: Path) -> None:
        raise OSError(errno.EIO, "the answer was lost")

    with monkeypatch.context() as patched:
        patched.setattr("edge_agent.routes.file_folder._sync", answer_lost)
        with pytest.raises(SinkAway):
            folder.publish([NewFile("one.jsonl", b"one", "stream", [(1, 3)])])
    folder.close()
    folder.open()
    assert [(path.name, path.read_bytes()) for path in files(tmp_path / "out")] == [("one.jsonl", b"one")]
    assert folder.has("stream", 3)
    folder.close()


@scenario
async def test_two_agents_of_one_id_do_not_share_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    async with buffer(tmp_path / "a") as first, running(first, settings(folder)) as route:
        first.append(scans(1))
        await settled(route, first)
        async with buffer(tmp_path / "b") as second, running(second, settings(folder)) as other:
            await until(lambda: other.status()["state"] == "refused", other.status)
            assert "another agent with this id" in other.status()["last_error"]


@scenario
async def test_a_file_that_is_there_is_never_overwritten_and_lost_state_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    given = settings(folder, name="{source}-{kind}-{stream}-{first}")
    async with buffer(tmp_path) as log:
        mine = folder / f"gate-scan-{log.log}.mes.1-2.jsonl"
        mine.write_text("not yours")
        async with running(log, given) as route:
            log.append(scans(1))
            await settled(route, log)
        assert mine.read_text() == "not yours"
        assert texts([folder / f"gate-scan-{log.log}.mes.1-2-again1.jsonl"]) == ["gate-0"]
        (state,) = (folder / ".edge-agent").rglob("state.json")
        state.write_text("{")
        async with running(log, given) as route:
            await until(lambda: route.status()["state"] == "refused", route.status)
            assert f"mv {state}" in route.status()["hint"]


@scenario
async def test_a_file_waits_for_company_but_not_for_ever(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    async with buffer(tmp_path) as log, running(log, settings(folder, every="1s")) as route:
        await until(lambda: route.status()["state"] == "connected", route.status)
        for i in range(5):
            log.append(scans(1, f"gate{i}"))
            await asyncio.sleep(0.05)
        log.append(scans(1, "gate0"))
        await settled(route, log)
    together = [path.name for path in files(folder) if path.name.startswith("gate0")]
    assert len(together) == 1
