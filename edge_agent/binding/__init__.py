"""Which unit owns this reading, and why: cycles, the handshake, findings. Pure. See ``binder``."""

from edge_agent.binding.binder import Binder
from edge_agent.binding.state import (
    ActiveMaterial,
    Effect,
    Installed,
    KnownCycle,
    KnownHold,
    KnownLot,
    KnownUnit,
    Loaded,
    Lookup,
    OpenCycle,
    Outcome,
    PendingCycle,
    ReadGroup,
    Restored,
    StepResult,
    StepStatus,
    Write,
)

__all__ = [
    "ActiveMaterial",
    "Binder",
    "Effect",
    "Installed",
    "KnownCycle",
    "KnownHold",
    "KnownLot",
    "KnownUnit",
    "Loaded",
    "Lookup",
    "OpenCycle",
    "Outcome",
    "PendingCycle",
    "ReadGroup",
    "Restored",
    "StepResult",
    "StepStatus",
    "Write",
]
