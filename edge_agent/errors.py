"""Every error the agent raises on purpose, and what the agent does about each.

::

    EdgeAgentError
    ├ ConfigError          the configuration is wrong; exit 78, never retried
    ├ DriverError          names the device
    │ ├ DeviceUnavailable  not there (yet): reopen with bounded, jittered back-off
    │ ├ DeviceLost         was there, is gone: close, then reopen; an observation gap
    │ ├ DeviceRefused      wrong credentials or address: long back-off, health FAULTED, a hint to act on
    │ │ └ ValueNotKept     took a write and shows another value: a PLC that clears the acknowledge itself
    │ └ ReadingRejected    one answer was unusable: count it, keep the connection
    ├ StorageError         the buffer cannot be used as it is
    │ ├ StorageFull        no room: the retention policy acts, appending waits
    │ ├ StorageCorrupt     damaged: the file is set aside and salvaged
    │ ├ StorageDisplaced   its files were taken away under the run, which ends; the next one has what they held
    │ └ StorageBusy        another agent owns this data_dir; exit 75
    └ DeliveryError        a route could not hand over
      ├ BrokerUnavailable  the sink is away: back-off, nothing moves
      └ MessageRejected    the sink refuses these records: dead letter, the rest goes on

Library exceptions are mapped to these in one place per library, with the cause kept (``raise ... from``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class EdgeAgentError(Exception):
    """Root of the tree. ``hint`` says what a technician can type or do next; it may be empty."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint

    def __str__(self) -> str:
        text = super().__str__()
        return f"{text}\n  → {self.hint}" if self.hint else text


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in a configuration: where, what, and what to type instead."""

    file: str
    line: int  # 1-based; 0 when it belongs to the file as a whole
    key: str  # dotted path, e.g. "devices.press.unit_id"
    what: str
    hint: str = ""

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else self.file
        text = ": ".join(part for part in (where, self.key, self.what) if part)
        return f"{text}\n    → {self.hint}" if self.hint else text


class ConfigError(EdgeAgentError):
    """The configuration cannot be used. Carries every problem found, not just the first."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class DriverError(EdgeAgentError):
    """Something between us and one device."""

    def __init__(self, device: str, message: str, *, hint: str = "") -> None:
        super().__init__(f"{device}: {message}", hint=hint)
        self.device = device


class DeviceUnavailable(DriverError):
    """The device cannot be reached (yet). The collector reopens with bounded, jittered back-off."""


class DeviceLost(DriverError):
    """An open device went away. The collector closes, reports an observation gap and reopens."""


class DeviceRefused(DriverError):
    """The device answers but will not serve us. Long back-off, health FAULTED, the hint is shown."""


class ValueNotKept(DeviceRefused):
    """The device accepted a write, but reading back shows another value: something else writes there too."""


class ReadingRejected(DriverError):
    """One answer was unusable. It is counted; the connection stays."""


class StorageError(EdgeAgentError):
    """The buffer cannot be used as it is."""


class StorageFull(StorageError):
    """No room on the disk or under the byte cap. Retention acts; appending waits."""


class StorageCorrupt(StorageError):
    """The buffer file is damaged. It is set aside and salvaged; nothing is deleted."""


class StorageDisplaced(StorageError):
    """The buffer's paths lead to other files than the run has open. Nothing may be committed any more."""


class StorageBusy(StorageError):
    """Another running agent owns this data_dir."""


class DeliveryError(EdgeAgentError):
    """A route could not hand records over."""


class BrokerUnavailable(DeliveryError):
    """The sink is away or went away. Everything in flight counts as not handed over."""


class MessageRejected(DeliveryError):
    """The sink refuses this message and would refuse it again; ``reason`` says why."""

    def __init__(self, reason: str, *, hint: str = "") -> None:
        super().__init__(reason, hint=hint)
        self.reason = reason
