"""Holds by people over the control socket: put on hold, release, list, confirm. Durable when answered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edge_agent import clock
from edge_agent.binding.action import Action
from edge_agent.binding.local_holds import ConfirmHolds, Hold, ListHolds, Release
from edge_agent.control.verbs import Refused

if TYPE_CHECKING:
    from edge_agent.control.roles import Roles
    from edge_agent.control.server import Caller, Handler
    from edge_agent.line import Line

KINDS = ("serial", "lot", "package", "part_number", "carrier")
ACTIONS = ("hold", "scrap", "rework")
REASON_MAX = 500
VALUE_MAX = 256


class Holding:
    """The handlers, by verb: ``handlers()``."""

    def __init__(self, line: Line, roles: Roles) -> None:
        self._line = line
        self._roles = roles

    def handlers(self) -> dict[str, Handler]:
        """Verb → handler."""
        return {"hold": self.hold, "release": self.release, "holds": self.holds, "holds_confirm": self.confirm}

    async def hold(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        """Put something on hold: {kind, subject, action, reason}."""
        kind, action = request.get("kind"), request.get("action")
        if kind not in KINDS:
            raise Refused(f"{kind!r} is no kind of subject", hint=f"choose from {', '.join(KINDS)}")
        if action not in ACTIONS:
            raise Refused(f"{action!r} is nothing that stops a unit", hint=f"choose from {', '.join(ACTIONS)}")
        subject, reason = _text(request, "subject", VALUE_MAX), _text(request, "reason", REASON_MAX)
        who = await self._roles.require(caller, "quality")
        return await self._act(Hold(who, action, kind, subject, reason))

    async def release(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        """Lift a hold: {hold, reason, concession}."""
        hold, reason = _text(request, "hold", VALUE_MAX), _text(request, "reason", REASON_MAX)
        who = await self._roles.require(caller, "quality")
        return await self._act(Release(who, hold, reason, bool(request.get("concession"))))

    async def holds(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        """What is on hold."""
        return await self._act(ListHolds())

    async def confirm(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        """What is listed is all that is on hold: {reason}."""
        reason = _text(request, "reason", REASON_MAX)
        who = await self._roles.require(caller, "quality")
        return await self._act(ConfirmHolds(who, reason))

    async def _act(self, action: Action) -> dict[str, Any]:
        answer, seq = self._line.act(action, clock.now())
        await self._line.buffer.committed(seq)
        return answer


def _text(request: dict[str, Any], key: str, longest: int) -> str:
    value = request.get(key)
    text = value.strip() if isinstance(value, str) else ""
    if not text or len(text) > longest or not text.isprintable():
        what = "say why: --reason TEXT" if key == "reason" else "see which there are: edge-agent holds"
        raise Refused(f"{key} must be 1 to {longest} printable characters", hint=what)
    return text
