"""The unit, judged by systemd's own tools where they are, and against what the agent needs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from edge_agent.cli import ExitCode

UNIT = Path(__file__).resolve().parents[2] / "systemd" / "edge-agent.service"
INSTALLER = UNIT.parents[1] / "deploy" / "install.sh"

needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")


def settings() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in UNIT.read_text().splitlines():
        if line and not line.startswith(("#", "[")):
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


def analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", "--no-pager", *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False
    )


@needs_systemd
def test_systemd_knows_every_key_and_value(tmp_path: Path) -> None:
    # in a copy, since the program is not installed where the tests run; verify exits 0 on unknown keys but says so
    copy = tmp_path / UNIT.name
    copy.write_text(re.sub(r"(?m)^ExecStart=.*$", "ExecStart=/bin/true", UNIT.read_text()))
    done = analyze("verify", copy)
    assert (done.returncode, done.stderr) == (0, "")


@needs_systemd
def test_systemd_would_tell_of_a_mistake(tmp_path: Path) -> None:
    copy = tmp_path / UNIT.name
    text = re.sub(r"(?m)^ExecStart=.*$", "ExecStart=/bin/true", UNIT.read_text())
    copy.write_text(text.replace("WatchdogSec=", "WatchdogSecs="))
    assert "WatchdogSecs" in analyze("verify", copy).stderr


@needs_systemd
def test_the_service_is_confined() -> None:
    done = analyze("security", "--offline=true", "--threshold=25", UNIT)  # 2.5 of 10; less is tighter
    assert done.returncode == 0, done.stdout[-200:]


@needs_systemd
def test_the_system_calls_that_the_agent_makes_are_allowed() -> None:
    sets: dict[str, set[str]] = {}
    for line in analyze("syscall-filter").stdout.splitlines():
        if line.startswith("@"):
            members = sets.setdefault(line.strip(), set())
        elif line.strip() and not line.strip().startswith("#") and sets:
            members.add(line.strip())

    def calls(name: str) -> set[str]:
        return set().union(*map(calls, sets[name])) if name.startswith("@") else {name}

    allowed: set[str] = set()
    for value in settings()["SystemCallFilter"]:  # systemd applies the lines in this order
        named = set().union(*(calls(name) for name in value.removeprefix("~").split()))
        allowed = allowed - named if value.startswith("~") else allowed | named
    # clock, writer (SQLite), lock, control socket (peer's credentials), event loop, serial port, threads
    needed = re.findall(
        r"\w+",
        """adjtimex clock_adjtime fsync fdatasync pwrite64 fallocate flock rename unlink fchmod chmod getsockopt
        recvmsg sendmsg sendto accept4 epoll_wait eventfd2 ioctl clone clone3 futex mmap mprotect prctl socketpair
        getrandom memfd_create sched_getaffinity prlimit64 statfs fstatfs kill tgkill""",
    )
    assert not set(needed) - allowed
    # what an intruder would like
    assert not {"ptrace", "mount", "init_module", "bpf", "setuid", "chroot", "reboot", "clock_settime"} & allowed


def test_it_says_ready_itself_and_is_restarted_for_ever_but_not_on_a_wrong_config() -> None:
    unit = settings()
    assert unit["Type"] == ["notify"]
    assert unit["Restart"] == ["always"]
    assert unit["StartLimitIntervalSec"] == ["0"]
    assert unit["RestartPreventExitStatus"] == [str(int(ExitCode.CONFIG))]


def test_it_runs_what_the_installer_puts_there() -> None:
    (command,) = settings()["ExecStart"]
    program = command.split()[0]
    assert program == "/opt/edge-agent/current/bin/edge-agent"
    assert program in INSTALLER.read_text()


def test_the_watchdog_is_slower_than_the_stop_and_the_start() -> None:
    unit = settings()
    assert int(unit["WatchdogSec"][0]) < int(unit["TimeoutStopSec"][0]) < int(unit["TimeoutStartSec"][0])


def test_devices_that_need_a_module_have_it_loaded_before() -> None:
    # DeviceAllow=char-ttyUSB is resolved at start, and means nothing while the kernel does not know ttyUSB
    modules = {"char-ttyUSB rw": "usbserial", "char-ttyACM rw": "cdc_acm", "char-video4linux rw": "videodev"}
    unit = settings()
    for device, module in modules.items():
        assert device in unit["DeviceAllow"]
        assert f"modprobe@{module}.service" in unit["Wants"][0].split()
        assert f"modprobe@{module}.service" in " ".join(unit["After"]).split()


def test_the_agent_can_still_read_what_it_needs() -> None:
    unit = settings()
    assert "ProcSubset" not in unit  # the boot's id is in /proc/sys
    assert "ProtectClock" not in unit  # asks whether the clock is synchronised
    assert "PrivateDevices" not in unit  # serial ports
    assert os.path.exists("/proc/sys/kernel/random/boot_id")
