"""What comes from people and from networks, rather than from devices: a correction, a verdict, an override.

An action is asked, not observed: it may be refused, and then nothing has changed. It is applied between two inputs,
its records are appended like any other's, and whoever asked is answered once they are durable.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from edge_agent.binding.draft import Draft
from edge_agent.errors import EdgeAgentError

if TYPE_CHECKING:
    from edge_agent.binding.position import Floor


class ActionRefused(EdgeAgentError):
    """It was not done, and nothing was changed; the hint says what to type instead."""


class Action(Protocol):
    """One thing to do."""

    def apply(self, floor: Floor, draft: Draft) -> dict[str, Any]:
        """Do it: change the state, add the records. Returns the answer. Raises ActionRefused before any change."""
        ...
