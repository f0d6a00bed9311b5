"""`edge-agent listen-serial` on a pseudo terminal: what comes, what it may be, what is added to the config."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.pty_reader import PtyReader


@contextmanager
def device(path: Path, says: bytes) -> Iterator[PtyReader]:
    """A device that says something again and again, until nobody needs it."""
    reader, done = PtyReader(path), threading.Event()

    def speak() -> None:
        while not done.wait(0.15):
            reader.send(says)

    speaking = threading.Thread(target=speak)
    speaking.start()
    try:
        yield reader
    finally:
        done.set()
        speaking.join()
        reader.unplug()


def listen(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    environment = {name: text for name, text in os.environ.items() if name not in ("LANG", "LC_ALL", "LANGUAGE")}
    command = [sys.executable, "-m", "edge_agent", "listen-serial", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=60)


def test_a_scale_is_shown_recognised_and_added(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("agent: {id: line3}  # ours\ndevices:\n  sim: {driver: simulated}  # stays\n")
    with device(tmp_path / "scale", b"S S     100.00 g\r\n"):
        done = listen(tmp_path / "scale", "--for", "1s", "--add", "scale", "--config", config)
    assert done.returncode == 0, done.stderr
    assert "S S     100.00 g" in done.stdout
    assert "53 20 53" in done.stdout
    assert "messages end with CR LF" in done.stdout
    assert re.search(r"\d+ %  scale, MT-SICS", done.stdout)
    text = config.read_text()
    assert "# ours" in text
    assert "# stays" in text
    assert "protocol: mt-sics" in text


def test_json_has_what_was_heard_and_every_guess(tmp_path: Path) -> None:
    with device(tmp_path / "gate", b"]d2SN1\r"):
        done = listen(tmp_path / "gate", "--for", "0.6s", "--baud", "115200", "--json")
    told = json.loads(done.stdout)
    assert (told["port"], told["baud"]) == (str(tmp_path / "gate"), 115200)
    assert bytes.fromhex(told["heard"][0]["hex"]).startswith(b"]d2SN1\r")
    assert told["guesses"][0]["section"]["aim"] is True
    assert told["guesses"][0]["section"]["baud"] == 115200


def test_baud_rates_are_tried_until_one_is_clear(tmp_path: Path) -> None:
    with device(tmp_path / "gate", b"SN000000000000000001\r\nSN000000000000000002\r\nSN000000000000000003\r\n"):
        done = listen(tmp_path / "gate", "--find-baud", "--for", "1s")
    assert done.returncode == 0, done.stderr
    assert "9600 baud:" in done.stdout  # a pseudo terminal is clear at any rate, so the first is it
    assert "115200 baud:" not in done.stdout


def test_what_is_sent_is_sent_and_silence_is_bad_news(tmp_path: Path) -> None:
    reader = PtyReader(tmp_path / "scale")
    done = listen(tmp_path / "scale", "--for", "0.3s", "--send", "S\\r\\n\\x02")
    assert done.returncode == 1
    assert "nothing was heard" in done.stdout
    assert r"--send 'S\r\n'" in done.stdout
    assert reader.received() == b"S\r\n\x02"
    reader.unplug()


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["ttyUSB0"], 2, "is no port"),
        (["/dev/edge-agent/none", "--for", "0.2s"], 1, "does not exist"),
        (["/dev/ttyS9", "--for", "ten"], 2, "is not a duration"),
        (["/dev/ttyS9", "--for", "0s"], 2, "too short"),
        (["/dev/ttyS9", "--format", "9N1"], 2, "no line format"),
        (["/dev/ttyS9", "--send", "\\q"], 2, "not understood"),
        (["tcp://127.0.0.1:9", "--find-baud"], 2, "no baud rate"),
    ],
)
def test_mistakes_are_told_with_a_way_on(arguments: list[str], code: int, told: str) -> None:
    done = listen(*arguments)
    assert done.returncode == code
    assert told in done.stderr
    assert "→" in done.stderr
    assert "Traceback" not in done.stderr
