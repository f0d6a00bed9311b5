"""What people correct: whose a cycle is, findings that somebody has looked at, a gate that must let a unit in.

Each verb becomes an action of the binder, so that it is judged between two inputs of the line, by what is true then;
with it goes an ``audit`` record of who and why. The answer is given once both are durable. One at a time: the next is
judged by a registry that has the one before.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from edge_agent import clock
from edge_agent.binding.action import Action
from edge_agent.binding.gatekeeper import Override
from edge_agent.binding.manual import AcknowledgeFinding, Rebind, Unbind
from edge_agent.control.verbs import Refused

if TYPE_CHECKING:
    from edge_agent.control.roles import Roles
    from edge_agent.control.server import Caller, Handler
    from edge_agent.line import Line

REASON_MAX = 500
OVERRIDE_MAX_MIN = 480
FINDINGS_MAX = 200  # acknowledged by one request


class Corrections:
    """The handlers, by verb: ``handlers()``."""

    def __init__(self, line: Line, roles: Roles) -> None:
        self._line = line
        self._roles = roles
        self._one_at_a_time = asyncio.Lock()

    def handlers(self) -> dict[str, Handler]:
        """Verb → handler."""
        return {
            "bind": self.bind,
            "unbind": self.unbind,
            "findings_ack": self.findings_ack,
            "gate_override": self.gate_override,
        }

    async def bind(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        """Say whose a cycle is: {cycle, serial, reason, again: it is bound already, new: the serial may be unknown}."""
        reason = _reason(request)
        cycle, serial = _text(request, "cycle"), _text(request, "serial")
        who = await self._roles.require(caller, "quality")
        again, new = bool(request.get("again")), bool(request.get("new"))
        return await self._act(Rebind(cycle, serial, again=again, new=new, who=who, reason=reason))

    async def unbind(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        """Take a cycle's unit away: {cycle, reason}."""
        reason = _reason(request)
        cycle = _text(request, "cycle")
        who = await self._roles.require(caller, "quality")
        return await self._act(Unbind(cycle, who=who, reason=reason))

    async def findings_ack(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        """Say that findings were looked at: {findings, reason}."""
        reason = _reason(request)
        asked = request.get("findings")
        if not isinstance(asked, list) or not 0 < len(asked) <= FINDINGS_MAX:
            raise Refused(f"name 1 to {FINDINGS_MAX} findings", hint="see which there are: edge-agent findings list")
        who = await self._roles.require(caller, "technician")
        for one in asked:
            await self._act(AcknowledgeFinding(str(one), who=who, reason=reason))
        return {"acknowledged": len(asked)}

    async def gate_override(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        """Let a unit in once, against its gate: {serial, station, minutes, reason}."""
        reason = _reason(request)
        usage = "edge-agent gate override SERIAL --station STATION --reason TEXT"
        serial, station = _text(request, "serial", usage), _text(request, "station", usage)
        minutes = request.get("minutes")
        if not isinstance(minutes, int | float) or not 0 < minutes <= OVERRIDE_MAX_MIN:
            raise Refused(f"an override holds at most {OVERRIDE_MAX_MIN} minutes", hint=f"ask with: {usage}")
        who = await self._roles.require(caller, "quality")
        return await self._act(Override(serial, station, minutes, who=who, reason=reason))

    async def _act(self, action: Action) -> dict[str, Any]:
        async with self._one_at_a_time:
            answer, seq = self._line.act(action, clock.now())
            await self._line.buffer.committed(seq)
            return answer


def _reason(request: dict[str, Any]) -> str:
    reason = str(request.get("reason") or "").strip()
    if not reason:
        raise Refused("a correction needs a reason", hint="say why: --reason TEXT")
    if len(reason) > REASON_MAX:
        raise Refused(f"the reason is longer than {REASON_MAX} characters", hint="say it in fewer words")
    return reason


def _text(request: dict[str, Any], key: str, usage: str = "edge-agent bind CYCLE SERIAL --reason TEXT") -> str:
    value = request.get(key)
    if not isinstance(value, str) or not value or len(value) > 512:
        raise Refused(f"{key} is missing", hint=f"ask with: {usage}")
    return value
