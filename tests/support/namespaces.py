"""A small network of our own: here ── router ── there, in three network namespaces without names.

``enter()`` moves the calling process (and all that it starts from then on) into an empty namespace; ``Cable`` makes
the other two, each held by a process that the kernel ends with us, so nothing can be left behind. Cutting is a
blackhole route in the router: it drops silently, in one direction or both, as a broken switch does.

Needs root, `unshare`, `nsenter` and `ip`; ``permitted()`` says whether this machine lets us.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import time
from types import TracebackType

HERE, THERE = "10.231.1.1", "10.231.2.1"
_CLONE_NEWNET = 0x40000000
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)
_entered = False


def die_with_parent() -> None:
    """For ``preexec_fn``: the kernel kills the child when the thread that started it ends."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def permitted() -> bool:
    """Whether network namespaces can be made here."""
    if os.getuid() != 0 or not all(shutil.which(name) for name in ("unshare", "nsenter", "ip")):
        return False
    tried = subprocess.run(["unshare", "--net", "ip", "link", "add", "type", "veth"], capture_output=True)
    return tried.returncode == 0


def entered() -> bool:
    """Whether this process went into a namespace of its own."""
    return _entered


def enter() -> None:
    """Move this process into a namespace that has nothing but a loopback of its own. There is no way back."""
    if _libc.unshare(_CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    _ip("", "link", "set", "lo", "up")
    global _entered
    _entered = True


class Cable:
    """The way to ``there``. ``out``: from here to there; ``back``: from there to here."""

    def __init__(self) -> None:
        self._router, self._there = _Holder(), _Holder()
        self._cut = {"out": False, "back": False}
        router, there = self._router.pid, self._there.pid
        _ip("", "link", "add", "here0", "type", "veth", "peer", "name", "here1", "netns", str(router))
        _ip(router, "link", "add", "there1", "type", "veth", "peer", "name", "there0", "netns", str(there))
        for pid, device, address in (
            ("", "here0", f"{HERE}/24"), (router, "here1", _neighbour(HERE)), (router, "there1", _neighbour(THERE)),
            (there, "there0", f"{THERE}/24"),
        ):  # fmt: skip
            _ip(pid, "address", "add", address, "dev", device)
            _ip(pid, "link", "set", device, "up")
        _ip(there, "link", "set", "lo", "up")
        _ip("", "route", "add", "default", "via", _neighbour(HERE).partition("/")[0])
        _ip(there, "route", "add", "default", "via", _neighbour(THERE).partition("/")[0])
        forward = ["sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"]
        subprocess.run([*self._router.prefix, *forward], check=True)

    @property
    def prefix(self) -> tuple[str, ...]:
        """In front of a command: run it there."""
        return self._there.prefix

    def cut(self, *, out: bool, back: bool) -> None:
        """Drop what goes out, and what comes back; ``cut(out=False, back=False)`` mends."""
        for way, wanted, address in (("out", out, THERE), ("back", back, HERE)):
            if wanted != self._cut[way]:
                _ip(self._router.pid, "route", "add" if wanted else "del", "blackhole", f"{address}/32")
                self._cut[way] = wanted

    def close(self) -> None:
        self._router.end()
        self._there.end()

    def __enter__(self) -> Cable:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


class _Holder:
    """A process that does nothing but keep a namespace alive."""

    def __init__(self) -> None:
        command = ["unshare", "--net", "sleep", "infinity"]
        self._process = subprocess.Popen(command, preexec_fn=die_with_parent, start_new_session=True)
        self.pid = self._process.pid
        deadline_s = time.monotonic() + 5
        while os.readlink(f"/proc/{self.pid}/ns/net") == os.readlink("/proc/self/ns/net"):
            if time.monotonic() > deadline_s:
                raise RuntimeError("unshare --net does nothing")
            time.sleep(0.005)
        self.prefix = ("nsenter", f"--net=/proc/{self.pid}/ns/net")

    def end(self) -> None:
        self._process.kill()
        self._process.wait()


def _neighbour(address: str) -> str:
    return f"{address.rpartition('.')[0]}.2/24"


def _ip(pid: int | str, *arguments: str) -> None:
    prefix = (f"--net=/proc/{pid}/ns/net",) if pid else ()
    command = [*(("nsenter", *prefix) if pid else ()), "ip", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr}")
