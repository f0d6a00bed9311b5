"""Who may do what. A caller's roles come from the groups of the process that asks, as the kernel knows them.

============  =============================================================================================
role          may
============  =============================================================================================
viewer        look: status, lists. Whoever may open the socket.
technician    what moves data or tends the line: replays, retries, acknowledging findings, writing a tag
quality       what changes evidence or a decision: bind, rebind, unbind, hold, release, override
admin         everything, and what gives data up: dropping a route's backlog
============  =============================================================================================

Technician and quality are different people's work: neither includes the other. Admin includes all, everybody looks.
Root and the agent's own user are admin: they could change the files anyway. The groups of each role are in the config
(``agent.roles``; by default ``edge-agent-technician``, ``edge-agent-quality``, ``edge-agent-admin``); one that does not
exist gives its role to nobody. Names are looked up once, at the start; a caller's groups at every request, so that
whoever lost a group has lost the role with his next login.
"""

from __future__ import annotations

import asyncio
import grp
import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Literal

from edge_agent.errors import EdgeAgentError

if TYPE_CHECKING:
    from edge_agent.control.server import Caller

Role = Literal["viewer", "technician", "quality", "admin"]
GRANTED: tuple[Role, ...] = ("technician", "quality", "admin")  # by group; everybody is viewer


class RoleRefused(EdgeAgentError):
    """The caller's groups do not give the role that this needs; nothing was changed."""


class Roles:
    """See the module docstring. ``groups``: role -> names of groups; ``agent_uid``: the agent's user, if not ours."""

    def __init__(self, groups: Mapping[str, Iterable[str]], agent_uid: int | None = None) -> None:
        self._agent_uid = os.geteuid() if agent_uid is None else agent_uid
        self._names = {role: tuple(groups.get(role, ())) for role in GRANTED}
        self._gids = {role: frozenset(_numbers(names)) for role, names in self._names.items()}

    def of(self, caller: Caller) -> frozenset[Role]:
        """The caller's roles."""
        if caller.uid in (0, self._agent_uid):
            return frozenset(("viewer", *GRANTED))
        held = [role for role in GRANTED if caller.groups & self._gids[role]]
        return frozenset(("viewer", *(GRANTED if "admin" in held else held)))

    async def require(self, caller: Caller, role: Role) -> str:
        """Who the caller is, for the audit: login name and number. Raises RoleRefused if he does not have ``role``."""
        if role not in self.of(caller):
            groups = " or ".join(self._names.get(role, ())) or f"of the role {role} (agent.roles)"
            hint = f"join the group {groups}: sudo usermod -aG {groups.partition(' ')[0]} $USER (then log in again)"
            raise RoleRefused(f"this needs the role {role}", hint=hint)
        return f"{await asyncio.to_thread(lambda: caller.user)} (uid {caller.uid})"


def _numbers(names: Iterable[str]) -> Iterable[int]:
    for name in names:
        try:
            yield grp.getgrnam(name).gr_gid
        except KeyError:
            continue
