"""What a scenario plays with: a broker, a receiver, an agent under load, and everybody's end.

Two loads stand behind the same verbs (:class:`World`)::

    rig.line()      the demo's line (PLC, readers, swaps, quirks), the whole agent, `edge-agent listen`
    rig.volume()    the truth-telling writer (fault/writer.py) on the agent's own buffer and routes: exact to the
                    record, quick to start, as many records as one likes

``async with rig.line() as world:`` starts everything; the scenario then lets records ``flow`` and breaks things.
When it leaves the block, the world lets everything drain, counts (fault/tally.py) and ends every process.

What a scenario expects is said while it runs: ``world.expect(dead=1)``; without it nothing may be pending, dead or
dropped at the end. ``rig.check(condition, "what")`` must hold as well, so that a fault that did not happen (an outage
that nobody noticed) turns the scenario red.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

from edge_agent.demo.counting import Counts
from edge_agent.demo.line import WIRINGS
from edge_agent.demo.processes import AgentProcess, Child, DemoError, LineProcess, free_port, write_config
from fault import tally
from fault.outside import BufferFile
from fault.tally import Tally
from support.broker import Broker
from support.mosquitto import Mosquitto
from support.proxy import Proxy

TESTS = Path(__file__).parents[1]
ANY = None  # expect(dropped_recorded=ANY): however many
DRAIN_S = 60.0
QUICK = {
    "poll: 100ms": "poll: 50ms",
    "confirm_timeout: 5s": "confirm_timeout: 2s\n    ack_timeout: 2s",
    'inbound:\n  qms: {url: "mqtt://127.0.0.1:0", verdicts: qms/verdicts, heartbeat: 2s}\n': "",  # no QMS plays here
}


class NotHere(Exception):
    """The machine lacks what a scenario needs; it is skipped, and said to be."""


class Rig:
    """One run of one scenario in one directory. ``chance`` is drawn from the seed and the scenario's name."""

    def __init__(self, name: str, directory: Path, *, seed: int, kills: int) -> None:
        self.name, self.directory, self.seed = name, directory, seed
        self.chance = random.Random(f"{seed} {name}")
        self.wanted_kills = kills  # of those scenarios that kill as often as one likes
        self.kills = 0
        self.hits: Counter[str] = Counter()
        self.notes: dict[str, Any] = {}
        self.problems: list[str] = []
        self.tally = Tally()

    def check(self, condition: object, what: str) -> None:
        """``what`` should be so; else the scenario is red."""
        if not condition:
            self.say(f"NOT SO: {what}")
            self.problems.append(what)

    def say(self, text: str) -> None:
        """One line into the scenario's own log."""
        sys.stderr.write(text + "\n")
        sys.stderr.flush()

    def parts(self, count: int) -> list[Rig]:
        """Rigs that share the wanted kills, each with a directory and a chance of its own; ``take`` sums them up."""
        rigs = []
        for part in range(count):
            directory = self.directory / f"part{part}"
            directory.mkdir()
            kills = (self.wanted_kills + part) // count
            rigs.append(Rig(f"{self.name} {part}", directory, seed=self.seed + part, kills=kills))
        return rigs

    def take(self, part: Rig) -> None:
        """Add what came out of a part."""
        self.kills += part.kills
        self.hits += part.hits
        self.problems += part.problems
        self.tally.add(part.tally)
        for name, value in part.notes.items():
            self.notes[name] = self.notes.get(name, 0) + value

    def line(self, **options: Any) -> LineWorld:
        return LineWorld(self, **options)

    def volume(self, **options: Any) -> VolumeWorld:
        return VolumeWorld(self, **options)


class Module(Child):
    """``python -m module`` of the tests, or of the product, perhaps behind a ``prefix`` such as nsenter."""

    def __init__(self, log: Path, arguments: Sequence[str], prefix: Sequence[str] = ()) -> None:
        super().__init__(
            log, arguments, {"PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])}
        )
        self.prefixed(*prefix)

    def prefixed(self, *command: str) -> None:
        """Put a command in front: nsenter, prlimit."""
        self._command = [*command, *self._command]


class Listener(Module):
    """`edge-agent listen`, or with ``options`` the receiver that misbehaves (fault/receiver.py)."""

    def __init__(
        self, directory: Path, url: str, *, name: str = "receiver", topic: str = "acme/#", options: Sequence[str] = (),
        prefix: Sequence[str] = (),
    ) -> None:  # fmt: skip
        self.database = directory / f"{name}.db"
        module = ["fault.receiver", *options] if options else ["edge_agent", "listen"]
        super().__init__(
            directory / f"{name}.log", [*module, url, "--topic", topic, "--db", str(self.database)], prefix
        )


class World:
    """Broker, proxy, receiver and agent. ``proxied``: whose way to the broker leads through ``self.proxy``.

    ``broker`` are options of :class:`Mosquitto`, or another make of broker; ``receiver`` those of
    fault/receiver.py; ``prefix`` (of a network namespace, see support/namespaces.py) stands before broker and receiver.
    """

    agent: Child

    def __init__(
        self,
        rig: Rig,
        *,
        proxied: str = "",
        broker: Mapping[str, Any] | Broker | None = None,
        receiver: Sequence[str] = (),
        prefix: Sequence[str] = (),
        starts: Sequence[str] = ("broker", "receiver", "agent"),
    ) -> None:
        self.rig, self.directory = rig, rig.directory
        self._starts = starts
        self.broker: Mosquitto | Broker
        if isinstance(broker, Broker):
            self.broker = broker
        else:
            self.broker = Mosquitto(self.directory, port=free_port(), prefix=tuple(prefix), **(broker or {}))
        self.proxy = Proxy(self.broker.port, urlsplit(self.broker.url).hostname or "")
        self._proxied, self._prefix, self._receiver_options = proxied, prefix, receiver
        self.data_dir = self.directory / "data"
        self.buffer = BufferFile(self.data_dir)
        self.environment: dict[str, str] = {}  # of the agent, beside the test's own
        self.expected: dict[str, int | bool | None] = {}
        self.receiver = Listener(self.directory, self.broker.url, options=receiver, prefix=prefix)

    # --- life --------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Any:
        try:
            await self._begin()
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType) -> None:
        try:
            if error is None:
                await self.settle()
                self.count()
        finally:
            await self._end()

    def url_for(self, who: str) -> str:
        """The broker as ``who`` sees it."""
        return f"mqtt://127.0.0.1:{self.proxy.port}" if who in self._proxied else self.broker.url

    async def _begin(self) -> None:
        await self.proxy.start()
        if "receiver" in self._proxied:
            self.receiver = Listener(self.directory, self.url_for("receiver"), options=self._receiver_options)
        if "broker" in self._starts:
            self.broker.start()
        await self._prepare()
        if "receiver" in self._starts:
            await self.receiver.start()
        if "agent" in self._starts:
            await self.start_agent()

    async def _prepare(self) -> None:
        """What the agent needs before it starts."""

    def _children(self) -> list[Child]:
        return [self.agent, self.receiver]

    async def _end(self) -> None:
        for child in self._children():
            await child.end()
        self.broker.__exit__(None, None, None)
        await self.proxy.stop()

    # --- what a scenario says ----------------------------------------------------------------------------------

    async def start_agent(self, kill_at: str = "") -> None:
        """Start the agent; ``kill_at`` "step:hit" lets it kill itself there."""
        await self.agent.start(self.environment | ({"EDGE_AGENT_KILL_AT": kill_at} if kill_at else {}))

    async def kill_agent(self) -> None:
        """SIGKILL."""
        await self.agent.kill()
        self.rig.kills += 1

    async def flow(self, seconds: float) -> None:
        """Let records flow for so long. Raises DemoError when one who should run has ended."""
        deadline_s = asyncio.get_running_loop().time() + seconds
        started = [child for child in self._children() if child.running]
        while (left_s := deadline_s - asyncio.get_running_loop().time()) > 0:
            await asyncio.sleep(min(0.2, left_s))
            for child in started:
                if not child.running:
                    raise child.failed(what=f"ended with {child.returncode}")

    async def until(self, condition: Callable[[], object], what: str, timeout_s: float = 20.0) -> None:
        """Wait for it; red when it does not come about."""
        try:
            async with asyncio.timeout(timeout_s):
                while not await asyncio.to_thread(condition):  # noqa: ASYNC110  what is waited for is another process
                    await asyncio.sleep(0.1)
        except TimeoutError:
            self.rig.check(False, f"{what} (within {timeout_s:g} s)")

    async def backlog(self, records: int, timeout_s: float = 20.0) -> None:
        """Wait until so many are pending: the outage was one."""
        await self.until(lambda: self.pending() >= records, f"a backlog of {records} records", timeout_s)

    def pending(self) -> int:
        return self.buffer.pending("mes") if self.buffer.path.exists() else 0

    def confirmed(self) -> int:
        """How many records the receiver holds."""
        return tally.stored(self.receiver.database)

    def is_ahead(self) -> bool:
        """Whether the receiver holds a record that is newer than one that is still pending."""
        return tally.newest(self.receiver.database) > min(
            (seq for _, seq in self.buffer.owed("mes").pending), default=0
        )

    def expect(self, **fields: int | bool | None) -> None:
        """``expect(dead=1)``: exactly so many at the end; ``True``: some; ``ANY``: that is not the question."""
        self.expected |= fields

    # --- the end -----------------------------------------------------------------------------------------------

    async def settle(self) -> None:
        """Let everything drain."""
        raise NotImplementedError

    async def _drained(self, timeout_s: float = DRAIN_S) -> None:
        wanted = self.expected.get("pending", 0)
        done = (lambda: True) if wanted is True else (lambda: self._undelivered() <= wanted)
        await self.until(done, "everything delivered in the end", timeout_s)

    def _undelivered(self) -> int:
        return self.buffer.pending("mes")

    def count(self) -> None:
        """Count what became of everything."""
        raise NotImplementedError

    def judge(self, found: Tally) -> None:
        """Add to the rig's figures, and hold them against what is expected."""
        self.rig.tally.add(found)
        self.rig.check(found.balanced, f"accepted = confirmed + pending + dead + dropped_recorded: {found.line()}")
        self.rig.check(found.accepted > 0, "something was accepted")
        for name in ("pending", "dead", "dropped_recorded"):
            value, wanted = getattr(found, name), self.expected.get(name, 0)
            fits = wanted is ANY or (value > 0 if wanted is True else value == wanted)
            self.rig.check(fits, f"{name}={wanted if wanted is not True else 'some'}, not {value}")


class LineWorld(World):
    """The demo's line, faster, with the whole agent. ``replace`` changes the text of line.yaml further."""

    def __init__(
        self, rig: Rig, *, replace: Mapping[str, str] | None = None, pace: float = 0.5, **options: Any
    ) -> None:
        super().__init__(rig, **options)
        self._plc_port = free_port()
        self._replace = {**QUICK, **(replace or {})}
        self.line = LineProcess(
            self.directory, port=self._plc_port, seed=rig.seed, pace=pace, quirks=0.2, give_up_s=0.8
        )
        self.counts = Counts()

    async def _prepare(self) -> None:
        url = self.url_for("agent")
        replace = {**self._replace, '"mqtt://127.0.0.1:0"': f'"{url}"'}
        config = write_config(self.directory, plc_port=self._plc_port, broker_port=0, replace=replace)
        self.agent = AgentProcess(config, self.directory / "agent.log", self.data_dir)
        await self.line.begin()
        await self.line.feed()

    def _children(self) -> list[Child]:
        agent = [self.agent] if hasattr(self, "agent") else []
        return [*agent, self.receiver, self.line]

    async def swap_some(self) -> int:
        """Swap units while nobody looks, as the seed says; how many were."""
        chance, swapped = self.rig.chance, 0
        for wiring in WIRINGS:
            if chance.random() < 0.8:
                swapped += await self.line.swap(wiring.station, wiring.position, scan=chance.random() < 0.5)
        return swapped

    async def settle(self) -> None:
        if not self.agent.running:
            await self.start_agent()
        try:
            await self.line.stop(DRAIN_S)
        except DemoError as error:
            self.rig.check(False, f"the line runs empty: {error}")
        await self.line.end()  # a PLC that still answered would always leave some readings on their way
        await self._drained()

    def count(self) -> None:
        found, self.counts = tally.of_line(self.line.truth, self.receiver.database, self.buffer)
        self.rig.notes |= {"units": self.counts.units, "bound": self.counts.bound, "unbound": self.counts.unbound}
        self.judge(found)


class VolumeWorld(World):
    """The truth-telling writer. ``writer`` are keys of its config (fault/writer.py), ``route`` of its route.

    ``second``: a further route's settings; it is counted in the database of ``self.second_receiver``.
    """

    def __init__(
        self,
        rig: Rig,
        *,
        writer: Mapping[str, Any] | None = None,
        route: Mapping[str, Any] | None = None,
        second: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(rig, **options)
        self._second = second
        self.second_receiver: Listener | None = None
        if second is not None:
            self.second_receiver = Listener(self.directory, second["url"], name="second", topic="#")
        self._writer = {"rate": 60, **(writer or {})}
        self._route = dict(route or {})
        self._runs = self._said = 0
        self.truth = self.directory / "truth"
        self._config = self.directory / "writer.json"
        self.agent = Module(self.directory / "writer.log", ["fault.writer", str(self._config)])

    def routes(self) -> dict[str, Any]:
        """The writer's routes."""
        second = {} if self._second is None else {"second": self._second}
        return {"mes": {"url": self.url_for("agent"), **self._route}, **second}

    def _children(self) -> list[Child]:
        return [*super()._children(), *([] if self.second_receiver is None else [self.second_receiver])]

    def _undelivered(self) -> int:
        return sum(self.buffer.pending(route) for route in self.routes())

    async def start_agent(self, kill_at: str = "", **writer: Any) -> None:
        """Start the writer; ``writer`` changes its config from now on. Numbers go on above those of the last run."""
        self._writer |= writer
        self._runs += 1
        said = {"data_dir": str(self.data_dir), "truth": str(self.truth), "run": self._runs, "routes": self.routes()}
        self._said = size_of(self.truth)
        self._config.write_text(json.dumps(said | self._writer))
        await super().start_agent(kill_at)

    async def promised(self, records: int, timeout_s: float = 30.0) -> None:
        """Wait until the writer was promised so many records."""
        await self.until(lambda: self.accepted() >= records, f"{records} records accepted", timeout_s)

    async def at_work(self) -> None:
        """Wait until this run of the writer was promised something."""
        await self.until(lambda: size_of(self.truth) > self._said, "the writer at work", 30.0)

    def accepted(self) -> int:
        return sum(promise.last - promise.first + 1 for promise in tally.promises(self.truth))

    async def settle(self) -> None:
        """No more units; everything that is there is delivered."""
        if not self.agent.running:
            await self.start_agent(units=-1)
        await self.at_work()
        self.agent.send(signal.SIGUSR1)
        await self._drained()

    def count(self) -> None:
        found = tally.of_writer(self.truth, self.receiver.database, self.buffer)
        if self.second_receiver is not None:
            found.add(tally.of_writer(self.truth, self.second_receiver.database, self.buffer, "second"))
        self.judge(found)


def size_of(path: Path) -> int:
    """In bytes; 0 if it is not there."""
    return path.stat().st_size if path.exists() else 0
