"""sd_notify against real datagram sockets."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_agent import notify


@pytest.fixture(params=["path", "abstract"])
def supervisor(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[socket.socket]:
    address = str(tmp_path / "notify") if request.param == "path" else f"@edge-agent-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(address.replace("@", "\0"))
        sock.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        yield sock


def test_each_message_is_one_datagram(supervisor: socket.socket) -> None:
    assert notify.ready("3 devices")
    assert supervisor.recv(1000) == b"READY=1\nSTATUS=3 devices"
    assert notify.ready()
    assert supervisor.recv(1000) == b"READY=1"
    assert notify.alive()
    assert supervisor.recv(1000) == b"WATCHDOG=1"
    assert notify.stopping()
    assert supervisor.recv(1000) == b"STOPPING=1"


def test_a_status_cannot_smuggle_an_assignment(supervisor: socket.socket) -> None:
    notify.status("backlog 5\nSTOPPING=1")
    assert supervisor.recv(1000) == b"STATUS=backlog 5 STOPPING=1"


def test_a_supervisor_that_does_not_listen_never_blocks(supervisor: socket.socket) -> None:
    sent = [notify.alive() for _ in range(5000)]  # more than the kernel queues
    assert sent[0]
    assert not sent[-1]


@pytest.mark.parametrize("address", [None, "", "vsock:2:1234", "/nonexistent/notify"])
def test_without_a_supervisor_nothing_happens(address: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    if address is not None:
        monkeypatch.setenv("NOTIFY_SOCKET", address)
    assert not notify.ready()


@pytest.mark.parametrize(
    ("usec", "pid", "interval_s"),
    [
        ("30000000", "ours", 15.0),
        ("30000000", "", 15.0),
        ("30000000", "1", None),  # meant for another process
        ("0", "", None),
        ("", "", None),
        ("soon", "", None),
    ],
)
def test_watchdog_interval(usec: str, pid: str, interval_s: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", usec)
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()) if pid == "ours" else pid)
    assert notify.watchdog_interval_s() == interval_s
