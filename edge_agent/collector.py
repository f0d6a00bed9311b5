"""One device: open, read, bind, append, carry out effects, reconnect. The only place that reconnects.

A collector owns its driver: it alone calls it, one call at a time, each bounded in time. A dead device costs the
others nothing. What goes wrong is told apart by the driver's errors:

- DeviceUnavailable: back-off from 0.3 s to 5 s, jittered. A replugged scanner appears 0.3 s after its USB event.
- DeviceLost: an observation gap for the binder, then as above.
- DeviceRefused: someone has to act. Health FAULTED with a hint; another try each 30 to 60 s. A refused write on an
  open device counts as a loss instead: the line stands until the acknowledge arrives, so it is tried again soon.
  A bit that was taken and is cleared again (ValueNotKept) is only counted: many PLCs clear the acknowledge themselves.
- ReadingRejected: counted; too many in a row count as a loss.
- a device that sends more than can be meant (see :mod:`flood`) is closed for 30 to 60 s, FAULTED: a gap like others.
- anything else is a fault in the driver: it is isolated (closed, another try after a minute), the agent goes on.

A collector reads ahead of the disk by at most 64 samples. A write waits for the commit of what caused it, and
reading waits behind the write: with a handshake nothing is read ahead. A driver that never has to wait, since its
device floods or answers from memory, gives way to the others every millisecond.

People may ask for a write, too. It goes the way of the others, between two reads, but what comes of it is the asker's:
a value that the device refuses is no loss of the device.
"""

from __future__ import annotations

import asyncio
import random
from collections import OrderedDict, deque
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

import orjson

from edge_agent import clock
from edge_agent.binding import ReadGroup
from edge_agent.driver import Cadence, Driver, DriverSpec, Shape
from edge_agent.errors import DeviceLost, DeviceRefused, DeviceUnavailable, DriverError, ReadingRejected, ValueNotKept
from edge_agent.flood import DeviceFloods, Flood
from edge_agent.line import Request, WriteTag
from edge_agent.logs import Log, Outage
from edge_agent.model import Sample, Scan, Value
from edge_agent.taker import Taker
from edge_agent.traffic import Traffic

READ_AHEAD = 64  # samples of one device that may wait for their commit
RETRY_S = (0.3, 5.0)
REFUSED_RETRY_S = (30.0, 60.0)
ISOLATED_RETRY_S = (60.0, 60.0)
CALL_TIMEOUT_S = 30.0  # above any driver's own time-out: a call that takes longer hangs
CLOSE_TIMEOUT_S = 3.0
REJECTED_IN_A_ROW = 10
TURN_S = 0.001  # so long a driver that never waits may keep the loop
BATCH = 32  # items of one read between two looks at the clock
ASKED_MAX = 16  # writes that people ask for and that wait for the device
ASKED_TIMEOUT_S = 15.0
STABLE_S = 10.0  # a connection that lasted so long begins the back-off anew

log = Log(__name__)
T = TypeVar("T")


class DriverIsolated(DriverError):
    """The driver raised what its contract does not allow: a fault in its code, not in the device."""


_KINDS = {  # as they are counted, and the state that follows; of all others: lost or unavailable, connecting
    DeviceRefused: ("refused", "faulted"),
    ValueNotKept: ("refused", "connecting"),
    DriverIsolated: ("isolated", "isolated"),
    DeviceFloods: ("flood", "faulted"),
}


@dataclass(frozen=True, slots=True, eq=False)
class AskedWrite:
    """A value that a person wants written, and where he waits for what comes of it."""

    tag: str
    value: Value
    done: asyncio.Future[None]


class Collector:
    """Runs one device for the life of the agent. ``run`` is its task."""

    def __init__(self, name: str, spec: DriverSpec, settings: Any, shape: Shape, line: Taker) -> None:
        self.name = name
        self.shape = shape
        self._spec = spec
        self._settings = settings
        self._line = line
        self._polls = {group.tagset.group: group.poll_s for group in shape.groups.values() if group.poll_s is not None}
        self._requests: OrderedDict[str, Request | AskedWrite] = (
            OrderedDict()
        )  # by group or tag: what waits for the device
        self._wake = asyncio.Event()
        self._uncommitted: deque[int] = deque()
        self._stopping = False
        self._read_ok = self._opened_at = clock.now()
        self._rejected_in_a_row = 0
        self._outage = Outage(log, "device", device=name)
        self._unclosed = Outage(log, "close", device=name)
        self._status: dict[str, Any] = {"driver": spec.name, "rejected": 0, "not_kept": 0, "reconnects": 0}
        self._traffic = Traffic(self._read_ok)
        self._flood = Flood(name, self._read_ok)
        self._turn_ends = 0.0
        self._state("connecting")
        line.attach(name, self._request)

    def status(self) -> dict[str, Any]:
        """state (connecting, connected, faulted, isolated, stopped), since_ns, error, hint, what :class:`Traffic`
        counts, and no_value (tag → why it had none when it was last read)."""
        return self._status | self._traffic.numbers(clock.now()) | {"no_value": self._traffic.no_value()}

    def watched(self, names: Sequence[str] = (), change: int = 0, scan: int = 0) -> dict[str, Any]:
        """The status, and the newest values and scans; see :meth:`Traffic.watched`."""
        unread = [name for name, group in self.shape.groups.items() if group.tagset.source not in self._traffic.latest]
        return self.status() | {"unread": unread} | self._traffic.watched(clock.now(), names, change, scan)

    def latest(self, tag: str) -> tuple[Sample, int] | None:
        """The newest sample of the tag's group, and the tag's index in it; None if it was not read."""
        for sample in self._traffic.latest.values():
            for index, known in enumerate(sample.tagset.tags):
                if known.name == tag:
                    return sample, index
        return None

    async def ask_write(self, tag: str, value: Value) -> None:
        """Write a value that a person wants, between two reads. Returns after the driver has read it back.

        Raises what the driver raises, and DeviceUnavailable if the device is not connected or was not free in time.
        """
        if self._status["state"] != "connected":
            why = self._status["error"].removeprefix(f"{self.name}: ")
            raise DeviceUnavailable(
                self.name, f"is not connected{why and f' ({why})'}; nothing was written", hint=self._status["hint"]
            )
        key = f"asked {tag}"
        if key in self._requests or sum(isinstance(one, AskedWrite) for one in self._requests.values()) >= ASKED_MAX:
            raise DeviceUnavailable(self.name, "other writes wait already; nothing was written", hint="try again")
        asked = AskedWrite(tag, value, asyncio.get_running_loop().create_future())
        self._requests[key] = asked
        self._wake.set()
        try:
            async with asyncio.timeout(ASKED_TIMEOUT_S):
                await asked.done
        except TimeoutError as error:
            begun = self._requests.get(key) is not asked
            what = "it may have been written" if begun else "nothing was written"
            text = f"the write was not done within {ASKED_TIMEOUT_S:.0f} s: {what}"
            raise DeviceUnavailable(self.name, text, hint="see what the device shows now") from error
        finally:
            if self._requests.get(key) is asked:
                del self._requests[key]

    def stop(self) -> None:
        """Finish the read at hand, append it, close. ``run`` then returns; cancelling it is the hard way."""
        self._stopping = True
        self._wake.set()

    async def run(self) -> None:
        """Serve the device until ``stop``; never raises a DriverError."""
        attempt = 0
        while not self._stopping:
            driver: Driver | None = None
            was_open = False
            try:
                driver = await self._call(self._create())
                await self._call(driver.open())
                was_open = True
                self._opened()
                await self._serve(driver)
            except DriverError as error:
                self._failed(error, was_open)
                attempt = 1 if was_open and self._lasted_s() > STABLE_S else attempt + 1
            finally:
                if driver is not None:
                    await self._close(driver)
            if not self._stopping:
                await self._pause(attempt)
        self._state("stopped")

    # --- the connection's life ---------------------------------------------------------------------------------

    async def _create(self) -> Driver:
        return self._spec.create(self.name, self._settings)

    def _opened(self) -> None:
        self._outage.recovered()
        self._read_ok = self._opened_at = clock.now()
        self._state("connected")
        self._line.opened(self.name, self._opened_at)

    def _lasted_s(self) -> float:
        return (self._read_ok.mono_ns - self._opened_at.mono_ns) / 1e9

    def _failed(self, error: DriverError, was_open: bool) -> None:
        self._outage.failed(error)
        kind, state = _KINDS.get(type(error), ("lost" if was_open else "unavailable", "connecting"))
        if was_open and kind == "refused":
            state = "connecting"  # a refused write: the line waits for the next one, not for a person
        self._state(state, error)
        self._note(kind, error)
        self._forget()  # the binder asks anew after the gap
        self._traffic.closed()
        if was_open:
            self._status["reconnects"] += 1
            now = clock.now()
            silent_by_nature = self._spec.cadence is Cadence.EVENT  # its loss is noticed when it happens
            self._line.gap(self.name, now if silent_by_nature else self._read_ok, now, "lost")

    def _note(self, kind: str, error: DriverError) -> None:
        self._traffic.failed(kind, str(error.args[0]).removeprefix(f"{self.name}: "), error.hint, clock.now())

    def _forget(self) -> None:
        """Give up what waits for the device; who asked for it is told."""
        for request in self._requests.values():
            if isinstance(request, AskedWrite) and not request.done.done():
                request.done.set_exception(DeviceUnavailable(self.name, "was lost before; nothing was written"))
        self._requests.clear()

    def _state(self, state: str, error: DriverError | None = None) -> None:
        text, hint = (str(error.args[0]), error.hint) if error else ("", "")
        if self._status.get("state") != state:
            self._status["since_ns"] = clock.now().at_ns
        self._status |= {"state": state, "error": text, "hint": hint}

    async def _close(self, driver: Driver) -> None:
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await driver.close()
        except Exception as error:  # noqa: BLE001  a device is isolated here: it is left behind, whatever went wrong
            self._unclosed.failed(error)
        else:
            self._unclosed.recovered()

    async def _pause(self, attempt: int) -> None:
        low, high = {"faulted": REFUSED_RETRY_S, "isolated": ISOLATED_RETRY_S}.get(self._status["state"], RETRY_S)
        ceiling = min(high, low * 2 ** min(attempt, 10))
        self._wake.clear()
        try:
            async with asyncio.timeout(random.uniform(low, ceiling)):
                while not self._stopping:
                    await self._wake.wait()
                    self._wake.clear()
        except TimeoutError:
            pass

    async def _call(self, call: Awaitable[T], timeout_s: float | None = CALL_TIMEOUT_S) -> T:
        """One driver call, bounded, with whatever it should not have raised turned into DriverIsolated."""
        try:
            async with asyncio.timeout(timeout_s):
                return await call
        except (DriverError, asyncio.CancelledError):
            raise
        except TimeoutError as error:
            raise DeviceLost(self.name, f"no answer within {CALL_TIMEOUT_S:.0f} s") from error
        except Exception as error:  # a device is isolated here: a fault in one driver must not end the agent
            log.crashed("driver failed unexpectedly", error, device=self.name)
            raise DriverIsolated(
                self.name, f"{type(error).__name__}: {error}", hint="report this with the log"
            ) from error

    # --- reading and writing -----------------------------------------------------------------------------------

    async def _serve(self, driver: Driver) -> None:
        if self._spec.cadence is Cadence.POLL:
            await self._poll(driver)
        else:
            await self._listen(driver)
        for request in list(self._requests.values()):  # at a stop: what is committed is still acknowledged
            if isinstance(request, WriteTag):
                await self._carry_out(driver, request)
        self._forget()

    async def _poll(self, driver: Driver) -> None:
        """Groups in the order they fall due, requests before them. A missed period is skipped, not made up."""
        loop = asyncio.get_running_loop()
        due = dict.fromkeys(self._polls, loop.time())
        while not self._stopping:
            if self._requests:
                await self._carry_out(driver, self._next_request())
                continue
            group = min(due, key=due.__getitem__, default=None)
            now = loop.time()
            if now >= self._turn_ends:
                await self._give_way()
            if group is None or due[group] > now:
                await self._until(None if group is None else due[group])
                continue
            period = self._polls[group]
            due[group] = due[group] + period if now < due[group] + period else now + period
            await self._read(driver, group)

    async def _give_way(self) -> None:
        """Let the others run: a driver that never waits would keep the loop."""
        await asyncio.sleep(0)
        self._turn_ends = asyncio.get_running_loop().time() + TURN_S

    async def _until(self, when: float | None) -> None:
        self._wake.clear()
        if self._requests or self._stopping:
            return
        try:
            async with asyncio.timeout_at(when):
                await self._wake.wait()
        except TimeoutError:
            pass

    async def _listen(self, driver: Driver) -> None:
        """The device sets the pace; requests are served beside the waiting read."""
        tasks = [asyncio.create_task(self._read_on(driver)), asyncio.create_task(self._serve_requests(driver))]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _read_on(self, driver: Driver) -> NoReturn:
        loop = asyncio.get_running_loop()
        while True:
            await self._read(driver, None)
            if loop.time() >= self._turn_ends:
                await self._give_way()

    async def _serve_requests(self, driver: Driver) -> None:
        while not self._stopping:
            if self._requests:
                await self._carry_out(driver, self._next_request())
            else:
                await self._until(None)

    async def _carry_out(self, driver: Driver, request: Request | AskedWrite) -> None:
        if isinstance(request, AskedWrite):
            await self._write_asked(driver, request)
        elif isinstance(request, ReadGroup):
            await self._read(driver, request.group.partition(".")[2])
        else:
            await self._line.buffer.committed(request.after_seq)
            newer = self._requests.get(f"write {request.tag}")
            if isinstance(newer, WriteTag) and newer.value != request.value:
                return  # what it said is not so any more: a permit that waited too long is not given at all
            await self._write(driver, request)

    async def _write(self, driver: Driver, request: WriteTag) -> None:
        for tag, value in request.before:
            await self._call(driver.write(tag, value))  # one that is not kept is a loss: the rest would mislead
        try:
            await self._call(driver.write(request.tag, request.value))
        except ValueNotKept:
            if not request.value:
                raise  # a bit that will not go to 0 would acknowledge the next result before it is safe
            self._status["not_kept"] += 1  # a PLC that clears the acknowledge itself; ``ready`` shows if it saw it

    async def _write_asked(self, driver: Driver, request: AskedWrite) -> None:
        """What the device makes of the value is the asker's affair; a device that is lost by it is ours too."""
        if request.done.done():
            return  # nobody waits any more
        try:
            await self._call(driver.write(request.tag, request.value))
        except DriverError as error:
            if not request.done.done():
                request.done.set_exception(error)
            if not isinstance(error, DeviceRefused):
                raise
            self._note("refused", error)
        except asyncio.CancelledError:
            if not request.done.done():
                text = "the device is closed meanwhile: the value may have been written"
                request.done.set_exception(DeviceUnavailable(self.name, text, hint="see what the device shows now"))
            raise
        else:
            if not request.done.done():
                request.done.set_result(None)

    async def _read(self, driver: Driver, group: str | None) -> None:
        await self._room()
        try:
            # An event driver's read may wait for ever; only a poll is bounded by us.
            items = await self._call(driver.read(group), None if group is None else CALL_TIMEOUT_S)
        except ReadingRejected as error:
            self._reject(error)
            return
        self._rejected_in_a_row = 0
        self._read_ok = clock.now()
        self._traffic.read(self._read_ok)
        rest = iter(items)
        try:
            for number, item in enumerate(rest, 1):
                self._take(item, asked=group is not None)
                if number % BATCH == 0 and asyncio.get_running_loop().time() >= self._turn_ends:
                    await self._give_way()
        except asyncio.CancelledError:
            for item in rest:  # the read at hand is finished: the driver has given it away
                self._take(item, asked=group is not None)
            raise

    def _take(self, item: Sample | Scan, *, asked: bool) -> None:
        if isinstance(item, Sample):
            _must_be_json(self.name, item)
            self._traffic.sample(item, asked=asked)
            self._flood.sample(item, self._read_ok, asked=asked)
            self._uncommitted.append(self._line.sample(item))
        else:
            self._traffic.scan(item)
            self._flood.scan(item, self._read_ok)
            self._uncommitted.append(self._line.scan(item))

    def _reject(self, error: ReadingRejected) -> None:
        self._status["rejected"] += 1
        self._note("rejected", error)
        self._rejected_in_a_row += 1
        if self._rejected_in_a_row >= REJECTED_IN_A_ROW:
            self._rejected_in_a_row = 0
            last = str(error.args[0]).removeprefix(f"{self.name}: ")
            what = f"{REJECTED_IN_A_ROW} unusable answers in a row, last: {last}"
            raise DeviceLost(self.name, what, hint=error.hint) from error

    async def _room(self) -> None:
        """Wait while the disk is too far behind this device, or behind all of them."""
        buffer, uncommitted = self._line.buffer, self._uncommitted
        while uncommitted and uncommitted[0] <= buffer.durable_seq:
            uncommitted.popleft()
        if len(uncommitted) >= READ_AHEAD:
            await buffer.committed(uncommitted.popleft())
        await buffer.room()

    def _request(self, request: Request) -> None:
        """Queue an effect. One read serves all who wait for its group; a newer value for a tag replaces the older."""
        if isinstance(request, ReadGroup):
            self._requests.setdefault(f"read {request.group}", request)
        else:
            self._requests[f"write {request.tag}"] = request
            self._requests.move_to_end(f"write {request.tag}")
        self._wake.set()

    def _next_request(self) -> Request | AskedWrite:
        return self._requests.popitem(last=False)[1]


def _must_be_json(device: str, sample: Sample) -> None:
    """Raises DriverIsolated for what no record can hold: found later, it would end the agent and not the device."""
    try:
        orjson.dumps((sample.values, list((sample.status or {}).values())))
    except TypeError as error:
        what = f"gave a value that is no JSON: {error}"
        raise DriverIsolated(device, what, hint="report this with the log") from error
