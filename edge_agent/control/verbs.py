"""What the running agent does when it is asked over the control socket: `route` and `deadletter` verbs.

It owns the buffer, so changes go through it. Every change is first an ``audit`` record {who, action, reason, old?,
new?}; who is the caller as the kernel knows it. Reading opens the buffer once more, in a thread, as any reader does;
nothing here holds up the loop. Changes go one after the other. A drop that was begun goes on though its caller left.

Bounds: ``REPEATS_MAX`` unfinished replays and retries a route; ``RETRY_MAX`` dead letters a retry.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from edge_agent import clock
from edge_agent.control.roles import Roles
from edge_agent.errors import EdgeAgentError
from edge_agent.model import Kind, Record

if TYPE_CHECKING:
    from edge_agent.buffer import Archive, Buffer, Lane
    from edge_agent.buffer.standing import RouteStanding
    from edge_agent.control.server import Caller, Handler
    from edge_agent.routes import Route

REPEATS_MAX = 8
RETRY_MAX = 10_000

T = TypeVar("T")


class Refused(EdgeAgentError):
    """The agent will not do what was asked, or cannot; nothing was changed."""


class Verbs:
    """The handlers, by verb: ``handlers()``. ``settings``: the routes' sections of the config."""

    def __init__(
        self, buffer: Buffer, routes: Sequence[Route], settings: Mapping[str, Any], roles: Roles | None = None
    ) -> None:
        self._buffer = buffer
        self._roles = roles or Roles({})
        self._routes = routes
        self._settings = settings
        self._one_change = asyncio.Lock()
        self._drops: set[asyncio.Task[int]] = set()

    def handlers(self) -> dict[str, Handler]:
        """Verb → handler."""
        return {
            "route_list": self.route_list,
            "route_replay": self.route_replay,
            "route_drop": self.route_drop,
            "deadletter_retry": self.deadletter_retry,
        }

    async def route_list(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        """Every route with its lanes."""
        return {"routes": routes_told(await self._standings(), self._settings, self._states())}

    async def route_replay(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        """Give a route once more what was recorded between two instants: {route, since_ns, until_ns, typed}."""
        name = str(request.get("route"))
        since_ns, until_ns = _whole(request, "since_ns"), _whole(request, "until_ns")
        who = await self._roles.require(caller, "technician")
        async with self._one_change:
            await self._must_take_repeats(name)
            span = await self._read(lambda archive: archive.seqs_between(since_ns, until_ns))
            if span is None:
                raise Refused("nothing was recorded in that time", hint="see what is kept: edge-agent buffer stats")
            new = {"route": name, "first_seq": span[0], "last_seq": span[1]}
            await self._audit(who, "route_replay", str(request.get("typed", "")), new=new)
            return new | {"lanes": await self._replay(name, first_seq=span[0], last_seq=span[1])}

    async def route_drop(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        """Give up what a route has pending; of a detached one, the route: {route, reason}."""
        name, reason = str(request.get("route")), str(request.get("reason") or "").strip()
        if not reason:
            raise Refused("a drop needs a reason", hint="say why: --reason TEXT")
        who = await self._roles.require(caller, "admin")
        async with self._one_change:
            known = {standing.route: standing for standing in await self._standings()}
            if name not in known:
                raise self._unknown(name, known)
            if known[name].attached and name not in self._settings:
                hint = "type the same again in half a minute: then it is detached"
                raise Refused(f"route {name} was in the configuration until just now", hint=hint)
            old = {"route": name, "attached": known[name].attached, "pending": known[name].pending}
            # not awaited: while the buffer is full nothing is committed but the drop, and with it what came before
            self._append_audit(who, "route_drop", reason, old=old)
            drop = asyncio.create_task(self._buffer.drop_route(name, reason), name=f"drop {name}")
            self._drops.add(drop)
            drop.add_done_callback(self._drops.discard)
            try:
                dropped = await asyncio.shield(drop)
            except LookupError as error:
                raise self._unknown(name, {}) from error
        return {"route": name, "dropped": dropped, "removed": not known[name].attached}

    async def deadletter_retry(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        """Send dead letters once more: {route, ids or null for all, reason_contains}."""
        name, reason = str(request.get("route")), str(request.get("reason_contains") or "")
        who = await self._roles.require(caller, "technician")
        asked = request.get("ids")
        ids = None if asked is None else frozenset(str(one) for one in asked)
        async with self._one_change:
            await self._must_take_repeats(name)
            kept, more, gone = await self._read(
                lambda archive: archive.standing_letters(name, ids=ids, reason=reason, limit=RETRY_MAX)
            )
            hint = f"see which there are: edge-agent deadletter list {name}"
            if ids is not None and not gone and (unknown := sorted(ids - kept.keys())) and not more:
                raise Refused(f"no dead letter {unknown[0]} of route {name} stands", hint=hint)
            if not kept and gone:
                raise Refused(f"the records of these {gone} dead letters are no longer kept", hint=hint)
            if not kept:
                raise Refused(f"no such dead letter of route {name} stands", hint=hint)
            seqs = list(kept.values())
            new = {"route": name, "records": len(seqs), "first_seq": seqs[0], "last_seq": seqs[-1]}
            await self._audit(who, "deadletter_retry", str(request.get("typed", "")), new=new)
            lanes = await self._replay(name, purpose="retry", first_seq=seqs[0], last_seq=seqs[-1], seqs=seqs)
        return new | {"lanes": lanes, "left": more, "no_longer_kept": gone}

    # --- what they share ---------------------------------------------------------------------------------------

    async def _must_take_repeats(self, name: str) -> None:
        """Raises Refused unless route ``name`` is in the config and has room for another replay."""
        known = {standing.route: standing for standing in await self._standings()}
        if name not in self._settings:
            raise self._unknown(name, known)
        if name not in known:
            raise Refused(f"route {name} has not begun yet", hint="try again in some seconds")
        under_way = sum(lane.purpose != "log" for lane in known[name].lanes)
        if under_way >= REPEATS_MAX:
            hint = "wait until they are through: edge-agent route list"
            raise Refused(f"route {name} has {under_way} replays and retries under way", hint=hint)

    def _unknown(self, name: str, known: Mapping[str, RouteStanding]) -> Refused:
        if name in known:
            hint = "put it back and restart the agent; or give it up: edge-agent route drop"
            return Refused(f"route {name} is no longer in the configuration", hint=hint)
        return Refused(f"no route is named {name}", hint="see which there are: edge-agent route list")

    async def _replay(self, name: str, **what: Any) -> list[dict[str, Any]]:
        try:
            lanes: list[Lane] = await asyncio.to_thread(partial(self._buffer.replay, name, **what))
        except LookupError as error:
            raise Refused(str(error), hint="see which there are: edge-agent route list") from error
        return [{"stream": lane.stream, "first_seq": lane.from_seq, "last_seq": lane.to_seq} for lane in lanes]

    async def _standings(self) -> list[RouteStanding]:
        totals = {id: (lane.total, lane.total_seq) for id, lane in self._buffer.writer.lanes.items()}
        head_seq = self._buffer.durable_seq
        return await self._read(lambda archive: archive.routes(totals, head_seq))

    async def _read(self, question: Callable[[Archive], T]) -> T:
        """Ask the buffer something, from a thread."""
        from edge_agent.buffer import open_readonly

        def ask() -> T:
            with closing(open_readonly(self._buffer.files.data_dir)) as archive:
                return question(archive)

        return await asyncio.to_thread(ask)

    def _states(self) -> dict[str, dict[str, Any]]:
        return {route.name: route.status() for route in self._routes}

    async def _audit(self, who: str, action: str, reason: str, **more: Any) -> None:
        """Write who does what; durable when this returns."""
        await self._buffer.committed(self._append_audit(who, action, reason, **more))

    def _append_audit(self, who: str, action: str, reason: str, **more: Any) -> int:
        body = {"who": who, "action": action, "reason": reason} | more
        return self._buffer.append([Record(Kind.AUDIT, "agent", clock.now(), body)])


def routes_told(
    standings: Sequence[RouteStanding], settings: Mapping[str, Any], states: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """What `route list` says: routes of the config and of the buffer, by name. ``states``: of running routes."""
    known = {standing.route: standing for standing in standings}
    told = []
    for name in sorted(known.keys() | settings.keys()):
        standing, section, state = known.get(name), settings.get(name), states.get(name, {})
        attached = name in settings if settings else standing is not None and standing.attached
        told.append(
            {
                "route": name,
                "sink": getattr(section, "sink", None),
                "order": getattr(section, "order", None),
                "state": str(state.get("state", "stopped")) if attached else "detached",
                "attached": attached,
                "pending": standing.pending if standing else 0,
                "dead_letters": standing.dead_letters if standing else 0,
                "last_error": state.get("last_error"),
                "hint": state.get("hint", ""),
                "lanes": [asdict(lane) for lane in standing.lanes] if standing else [],
            }
        )
    return told


def _whole(request: Mapping[str, Any], key: str) -> int:
    try:
        return int(request.get(key, ""))
    except (TypeError, ValueError) as error:
        hint = "ask with: edge-agent route replay NAME --since 2h"
        raise Refused(f"{key} must be UTC nanoseconds", hint=hint) from error
