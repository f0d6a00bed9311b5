"""The composition root: builds everything from a config, owns the TaskGroup, the signals and the stop.

::

    devices ──► Collector ──► Line (binder + log) ──► Buffer ──► Route ──► broker
                    ▲              │ effects
                    └──────────────┘

Stopping has two phases. First SIGTERM or SIGINT: collectors finish the read at hand, append it and close; routes
drain for a bounded time; the buffer closes last. A second signal goes straight to the buffer's close, and whatever
hangs beyond ``ABANDON_S`` is left behind. An error in a driver isolates that device (in the collector); an error in the
engine ends the process, and systemd starts it again.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
from collections.abc import Awaitable, Iterator
from typing import Any

from edge_agent import __version__, clock, notify
from edge_agent.binding import Binder
from edge_agent.binding.local_holds import TakeOver
from edge_agent.buffer import Buffer, open_buffer
from edge_agent.clockwatch import ClockWatch
from edge_agent.collector import Collector
from edge_agent.config import Config
from edge_agent.control import Caller, Control
from edge_agent.control.corrections import Corrections
from edge_agent.control.devices import DeviceVerbs
from edge_agent.control.holding import Holding
from edge_agent.control.roles import Roles
from edge_agent.control.verbs import Verbs
from edge_agent.errors import EdgeAgentError
from edge_agent.inbound.source import Source
from edge_agent.line import Line
from edge_agent.logs import Log
from edge_agent.model import Kind, Record
from edge_agent.routes import AgentIdentity, Route
from edge_agent.routes.dictionary import Dictionary
from edge_agent.routes.presence import share
from edge_agent.routes.words import Words

TICK_S = 0.25  # time-outs of cycles are this exact
COLLECTORS_STOP_S = 5.0
ABANDON_S = 30.0  # a stop that takes longer hangs in a driver or a thread: leave it behind
DRAIN_S = 5.0

log = Log(__name__)


class Agent:
    """One running agent on one data_dir. Build it, then ``await run()``; the buffer is open in between."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.buffer: Buffer = open_buffer(config.agent.data_path, config.agent.id, config.buffer)
        binder = Binder(config.plan, self.buffer.log, config.id, self.buffer.lookup, self.buffer.restored())
        self.line = Line(binder, self.buffer)
        self.collectors = [
            Collector(name, device.spec, device.settings, device.shape, self.line)
            for name, device in config.devices.items()
        ]
        identity = AgentIdentity.of(config.agent)
        at_broker = share(config.routes, identity, self.buffer, self.line.record)
        self.routes = [
            Route(name, settings, identity, self.buffer, at_broker=at_broker.get(name), words=self._words(name))
            for name, settings in config.routes.items()
        ]
        self.sources = [Source(name, settings, identity, self.line) for name, settings in config.inbound.items()]
        self._started = clock.now()
        # What is built lives as long as the process, and records make no reference cycles: fewer and cheaper
        # collections drain a backlog of small records twice as fast.
        gc.freeze()
        gc.set_threshold(50_000, 20, 50)
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()

    def _words(self, route: str) -> Words | None:
        """What the route calls things, if it has a dictionary."""
        name = self.config.routes[route].dictionary
        if name is None:
            return None
        return Words(route, Dictionary(name, self.config.dictionaries[name]), self.buffer, self.line.record)

    async def run(self) -> None:
        """Run until a signal; returns after an orderly stop. Raises what ended it otherwise: one error, no group."""
        with self._signals():
            try:
                await self._run()
            except ExceptionGroup as group:
                errors = list(_leaves(group))
                for error in errors:
                    if not isinstance(error, EdgeAgentError):
                        log.crashed("the agent ends", error)
                raise errors[0] from None
            finally:
                await self.buffer.close()

    async def _run(self) -> None:
        self._describe()
        self.line.start(clock.now())
        self.line.act(TakeOver((), self.buffer.holds_known), clock.now())
        for source in self.sources:
            source.begin()
        roles = Roles(self.config.agent.roles.model_dump())
        verbs = Verbs(self.buffer, self.routes, self.config.routes, roles).handlers()
        verbs |= Corrections(self.line, roles).handlers() | Holding(self.line, roles).handlers()
        verbs |= DeviceVerbs(self.collectors, self.config.plan.stations, self.buffer, roles).handlers()
        control = Control(self.config.agent.data_path / "control.sock", {"status": self._on_status, **verbs})
        async with asyncio.TaskGroup() as tasks:
            background = [
                tasks.create_task(work, name=name)
                for name, work in {
                    "buffer": self.buffer.maintain(),
                    "clock": ClockWatch(self.line, self.config.devices).run(),
                    "watchdog": self._watchdog(),
                    "control": control.serve(),
                    "holds": self._take_over_holds(),
                }.items()
            ]
            ticking = tasks.create_task(self._tick(), name="tick")
            routes = [tasks.create_task(route.run(), name=f"route {route.name}") for route in self.routes]
            background += [tasks.create_task(one.run(), name=f"inbound {one.name}") for one in self.sources]
            collectors = [tasks.create_task(item.run(), name=f"device {item.name}") for item in self.collectors]
            notify.ready()
            log.info("running", agent=self.config.agent.id, log=self.buffer.log, config=self.config.id)
            await self._stop.wait()
            notify.stopping()
            log.info("stopping")
            asyncio.get_running_loop().call_later(ABANDON_S, _abandon)
            ticking.cancel()  # what falls silent from now on is no finding
            self.line.stop(clock.now())
            for collector in self.collectors:
                collector.stop()
            await self._bounded(asyncio.wait(collectors, timeout=COLLECTORS_STOP_S), skip=not collectors)
            await self._bounded(asyncio.gather(*(route.drain(DRAIN_S) for route in self.routes)), skip=not routes)
            for task in (*collectors, *routes, *background):
                task.cancel()

    # --- stopping ----------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)
                signal.signal(number, signal.SIG_IGN)  # the process ends; a late second one must not kill it on the way

    def stop(self) -> None:
        """What a signal does: the first time an orderly stop, the second time at once."""
        if self._stop.is_set():
            self._hurry.set()
        self._stop.set()

    async def _bounded(self, work: Awaitable[object], *, skip: bool) -> None:
        """Wait for ``work``, but no longer once a second signal came."""
        task = asyncio.ensure_future(work)
        hurry = asyncio.create_task(self._hurry.wait())
        try:
            if not skip:
                await asyncio.wait((task, hurry), return_when=asyncio.FIRST_COMPLETED)
        finally:
            task.cancel()
            hurry.cancel()
            await asyncio.gather(task, hurry, return_exceptions=True)

    # --- what runs beside --------------------------------------------------------------------------------------

    def _describe(self) -> None:
        """Begin the log with what its records mean: the config and every tagset."""
        now = clock.now()
        records = [Record(Kind.CONFIG, "agent", now, self.config.describe())]
        for device in self.config.devices.values():
            for group in device.shape.groups.values():
                body = {"tagset": group.tagset.id} | group.tagset.describe()
                records.append(Record(Kind.TAGSET, group.tagset.source, now, body))
        self.line.record(records)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            self.line.tick(clock.now())

    async def _take_over_holds(self) -> None:
        """After damage: what is on hold comes with the registry of the damaged file; until then nothing may pass."""
        taken = self.buffer.holds_known
        while not self.buffer.holds_known or not taken:
            if self.buffer.salvage is None or self.buffer.holds_known:
                restored = await asyncio.to_thread(self.buffer.restored)
                self.line.act(TakeOver(restored.holds, self.buffer.holds_known), clock.now())
                taken = True
                if self.buffer.salvage is None:
                    return  # what is still in doubt only a person can settle
            await asyncio.sleep(1.0)

    async def _watchdog(self) -> None:
        """Feed systemd while the loop turns (we run) and the writer answers."""
        interval_s = notify.watchdog_interval_s()
        while interval_s:
            if self.buffer.answers():
                notify.alive()
            await asyncio.sleep(interval_s)

    def _on_status(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        return self.status()

    def status(self) -> dict[str, Any]:
        """Everything `edge-agent status` shows, as JSON."""
        return {
            "agent": self.config.agent.id,
            "state": "stopping" if self._stop.is_set() else "running",
            "log": self.buffer.log,
            "boot": self.buffer.boot,
            "version": __version__,
            "started_at_ns": str(self._started.at_ns),
            "config": self.config.id,
            "config_path": str(self.config.path),
            "devices": {collector.name: collector.status() for collector in self.collectors},
            "stations": self.line.snapshot(),
            "routes": {route.name: route.status() for route in self.routes},
            "inbound": {source.name: source.status() for source in self.sources},
            "buffer": self.buffer.stats(),
            "clock": {"synced": clock.synchronised()},
            "findings": dict(self.line.findings),
        }


def _abandon() -> None:
    """End at once: what is committed is safe, and nothing else was ever accepted."""
    log.error("the stop hangs, leaving what hangs behind", after_s=ABANDON_S)
    logging.shutdown()  # writes the lines that wait
    os._exit(1)


def _leaves(group: ExceptionGroup[Exception]) -> Iterator[Exception]:
    """The errors in a group, and in the groups in it."""
    for error in group.exceptions:
        if isinstance(error, ExceptionGroup):
            yield from _leaves(error)
        else:
            yield error
