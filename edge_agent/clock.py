"""Instants, durations, the boot and the clock's trustworthiness. The only module that reads a clock for records.

Instants are UTC nanoseconds, durations are monotonic nanoseconds. ``CLOCK_MONOTONIC`` starts anew at each boot,
so it is only comparable inside one ``boot_id``.
"""

from __future__ import annotations

import ctypes
import time
from pathlib import Path

from edge_agent.model import Instant

_TIME_ERROR = 5  # <sys/timex.h>: the kernel clock is not synchronised


def now() -> Instant:
    """This moment on both clocks."""
    return Instant(time.time_ns(), time.monotonic_ns())


def slept_ns() -> int:
    """How long this boot has been suspended so far: CLOCK_BOOTTIME counts on meanwhile, CLOCK_MONOTONIC does not."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) - time.monotonic_ns()


def boot_id() -> str:
    """The kernel's id of this boot; a new one each time the machine starts."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def synchronised() -> bool:
    """True while the kernel says that NTP or PTP keeps this clock (adjtimex(2)); False when it cannot tell."""
    timex = (ctypes.c_byte * 256)()  # struct timex is 208 bytes on 64-bit Linux; modes = 0 only reads
    state: int = ctypes.CDLL(None).adjtimex(ctypes.byref(timex))
    return 0 <= state < _TIME_ERROR
