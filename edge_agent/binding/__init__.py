"""Which unit owns this reading, and why: cycles, the handshake, findings. Pure. See ``binder``."""

from edge_agent.binding.binder import Binder
from edge_agent.binding.state import (
    Effect,
    KnownUnit,
    Lookup,
    OpenCycle,
    Outcome,
    ReadGroup,
    Restored,
    Write,
)

__all__ = ["Binder", "Effect", "KnownUnit", "Lookup", "OpenCycle", "Outcome", "ReadGroup", "Restored", "Write"]
