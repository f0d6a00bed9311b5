"""Photos by content hash: whole or not there, within their room, deleted when they are old."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from edge_agent import clock
from edge_agent_drivers.camera.config import PhotoSettings
from edge_agent_drivers.camera.photos import NotStored, Photos

DAY_NS = 86400 * 10**9


def photos_in(folder: Path, **more: Any) -> Photos:
    photos = Photos(PhotoSettings.model_validate({"folder": str(folder), "min_free": "0B", **more}))
    photos.prepare()
    return photos


def kept(folder: Path) -> dict[str, bytes]:
    """Every file whose name says that it is a photo."""
    return {path.name: path.read_bytes() for path in folder.rglob("*.jpg")}


def all_good(folder: Path) -> bool:
    return all(name == f"{hashlib.sha256(data).hexdigest()}.jpg" for name, data in kept(folder).items())


def whole_pass(photos: Photos) -> None:
    photos.tidy()
    while photos._part < 256:
        photos.tidy()


def test_a_photo_stands_under_its_hash_once(tmp_path: Path) -> None:
    photos = photos_in(tmp_path / "photos")
    digest = photos.store(b"picture", ".jpg")
    assert digest == hashlib.sha256(b"picture").hexdigest()
    assert photos.store(b"picture", ".jpg") == digest
    path = tmp_path / "photos" / digest[:2] / f"{digest}.jpg"
    assert path == photos.path_of(digest, ".jpg")
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == [path]
    assert path.read_bytes() == b"picture"


def test_a_restart_goes_on_with_what_is_there(tmp_path: Path) -> None:
    photos_in(tmp_path).store(b"one", ".jpg")
    again = photos_in(tmp_path)
    again.store(b"two", ".jpg")
    assert len(kept(tmp_path)) == 2


WRITER = """
import sys
from edge_agent_drivers.camera.config import PhotoSettings
from edge_agent_drivers.camera.photos import Photos
photos = Photos(PhotoSettings.model_validate({"folder": sys.argv[1], "min_free": "0B"}))
photos.prepare()
number = 0
while True:
    number += 1
    photos.store(number.to_bytes(4, "big") * 500_000, ".jpg")
    print(number, flush=True)
"""


def test_killed_in_mid_write_no_half_photo_has_a_valid_name(tmp_path: Path) -> None:
    for _ in range(3):
        with subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            writer.stdout.readline()
            time.sleep(0.003)
            writer.send_signal(signal.SIGKILL)
    assert kept(tmp_path)
    assert all_good(tmp_path)


def test_what_a_killed_run_left_is_cleared_and_foreign_files_are_not(tmp_path: Path) -> None:
    photos = photos_in(tmp_path)
    digest = photos.store(b"picture", ".jpg")
    left, fresh, foreign = (tmp_path / digest[:2] / name for name in (".x.1.part", ".y.1.part", "notes.txt"))
    for path in (left, fresh, foreign):
        path.write_bytes(b"?")
    os.utime(left, ns=(0, 0))
    os.utime(foreign, ns=(0, 0))
    whole_pass(photos)
    assert not left.exists()
    assert fresh.exists()
    assert foreign.exists()


@pytest.mark.parametrize("synchronised", [True, False])
def test_old_photos_go_while_the_clock_can_be_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, synchronised: bool
) -> None:
    monkeypatch.setattr(clock, "synchronised", lambda: synchronised)
    photos = photos_in(tmp_path, keep="2d")
    now_ns = clock.now().at_ns
    for days in range(5):
        data = f"{days}".encode()
        path = photos.path_of(photos.store(data, ".jpg"), ".jpg")
        os.utime(path, ns=(0, now_ns - days * DAY_NS - 10**9))
    whole_pass(photos)
    assert sorted(kept(tmp_path).values()) == ([b"0", b"1"] if synchronised else [b"0", b"1", b"2", b"3", b"4"])


def test_the_oldest_make_room_within_max_size(tmp_path: Path) -> None:
    photos = photos_in(tmp_path, max_size="1MB")
    whole_pass(photos)
    stored = []
    for number in range(40):
        try:
            stored.append(photos.store(number.to_bytes(1, "big") * 100_000, ".jpg"))
        except NotStored as error:  # making room has its time; it goes on with the next photo
            assert "max_size" in str(error)
    there = kept(tmp_path)
    assert sum(map(len, there.values())) <= 1_000_000
    assert len(there) >= 3
    assert f"{stored[-1]}.jpg" in there
    assert f"{stored[0]}.jpg" not in there
    assert all_good(tmp_path)


def test_a_folder_found_too_full_is_brought_back_within_its_size(tmp_path: Path) -> None:
    photos_in(tmp_path).store(b"x" * 900_000, ".jpg")
    for number in range(20):
        photos_in(tmp_path).store(number.to_bytes(1, "big") * 100_000, ".jpg")
    again = photos_in(tmp_path, max_size="1MB")
    for _ in range(6):
        again._pass_due_s = 0.0
        whole_pass(again)
    assert 0 < sum(map(len, kept(tmp_path).values())) <= 1_000_000


def test_below_min_free_nothing_is_stored_and_the_reason_is_said(tmp_path: Path) -> None:
    photos = photos_in(tmp_path, min_free="1000TB")
    with pytest.raises(NotStored, match="min_free"):
        photos.store(b"picture", ".jpg")
    assert not kept(tmp_path)


def test_a_folder_that_was_taken_away_is_made_anew(tmp_path: Path) -> None:
    photos = photos_in(tmp_path / "photos")
    (tmp_path / "photos").rmdir()
    photos.store(b"picture", ".jpg")
    assert all_good(tmp_path / "photos")


def test_a_place_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        photos_in(tmp_path / "file")


FULL_DISK = """
mount -t tmpfs -o "$3" none "$1" || exit 42
exec "$2" -c '
import sys
from edge_agent_drivers.camera.config import PhotoSettings
from edge_agent_drivers.camera.photos import NotStored, Photos
photos = Photos(PhotoSettings.model_validate({"folder": sys.argv[1], "min_free": "0B"}))
photos.prepare()
for number in range(10):
    try:
        photos.store(bytes([number]) * 60_000, ".jpg")
    except NotStored as error:
        print("not stored:", error)
import pathlib, hashlib
for path in pathlib.Path(sys.argv[1]).rglob("*"):
    if path.is_file():
        print(path.suffix, hashlib.sha256(path.read_bytes()).hexdigest() == path.stem)
' "$1"
"""


@pytest.mark.parametrize(
    ("full", "said"), [("size=300k", "min_free"), ("size=9m,nr_inodes=9", "No space left")], ids=["bytes", "files"]
)
def test_a_full_disk_keeps_what_is_whole_and_nothing_else(tmp_path: Path, full: str, said: str) -> None:
    command = ["unshare", "-rm", "sh", "-c", FULL_DISK, "sh", str(tmp_path), sys.executable, full]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    if done.returncode == 42 or "unshare" in done.stderr:
        pytest.skip("no mount namespace here")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert any(said in line for line in lines)
    assert [line for line in lines if line.startswith(".")] == [".jpg True"] * sum(x.startswith(".") for x in lines)
    assert ".jpg True" in lines
