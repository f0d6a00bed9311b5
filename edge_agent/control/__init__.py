"""The local control socket: one JSON line asks, one JSON line answers, and the kernel says who is asking.

``data_dir/control.sock``, mode 0660: root, the agent's user and its group may ask. A connection carries one request
``{"verb": "status", ...}`` of at most 64 KiB and gets ``{"answer": {...}}`` or ``{"error": "...", "hint": "..."}``.
At most 16 connections at once, each for at most five seconds beside what the verb itself takes: a stuck caller costs
the agent nothing. Who asks is read from the socket (SO_PEERCRED), never from the request. ``verbs`` holds what the
agent does when asked; only the agent imports it.

There is no network form of this, on purpose: what leaves the PC goes through a route.
"""

from __future__ import annotations

from edge_agent.control.client import SOCKET_NAME, AgentNotRunning, AgentRefused, ControlError, ask
from edge_agent.control.server import Caller, Control, Handler

__all__ = ["SOCKET_NAME", "AgentNotRunning", "AgentRefused", "Caller", "Control", "ControlError", "Handler", "ask"]
