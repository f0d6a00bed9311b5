"""One device: open, read, bind, append, carry out effects, reconnect. The only place that reconnects.

A collector owns its driver: it alone calls it, one call at a time, each bounded in time. A dead device costs the
others nothing. What goes wrong is told apart by the driver's errors:

- DeviceUnavailable: back-off from 0.3 s to 5 s, jittered. A replugged scanner appears 0.3 s after its USB event.
- DeviceLost: an observation gap for the binder, then as above.
- DeviceRefused: someone has to act. Health FAULTED with a hint; another try each 30 to 60 s. A refused write on an
  open device counts as a loss instead: the line stands until the acknowledge arrives, so it is tried again soon.
  A bit that was taken and is cleared again (ValueNotKept) is only counted: many PLCs clear the acknowledge themselves.
- ReadingRejected: counted; too many in a row count as a loss.
- anything else is a fault in the driver: it is isolated (closed, another try after a minute), the agent goes on.

A collector reads ahead of the disk by at most 64 samples. A write waits for the commit of what caused it, and
reading waits behind the write: with a handshake nothing is read ahead.
"""

from __future__ import annotations

import asyncio
import random
from collections import OrderedDict, deque
from collections.abc import Awaitable
from typing import Any, NoReturn, TypeVar

from edge_agent import clock
from edge_agent.binding import ReadGroup
from edge_agent.driver import Cadence, Driver, DriverSpec, Shape
from edge_agent.errors import DeviceLost, DeviceRefused, DriverError, ReadingRejected, ValueNotKept
from edge_agent.line import Line, Request, WriteTag
from edge_agent.logs import Log, Outage
from edge_agent.model import Sample

READ_AHEAD = 64  # samples of one device that may wait for their commit
RETRY_S = (0.3, 5.0)
REFUSED_RETRY_S = (30.0, 60.0)
ISOLATED_RETRY_S = (60.0, 60.0)
CALL_TIMEOUT_S = 30.0  # above any driver's own time-out: a call that takes longer hangs
CLOSE_TIMEOUT_S = 3.0
REJECTED_IN_A_ROW = 10
STABLE_S = 10.0  # a connection that lasted so long begins the back-off anew

log = Log(__name__)
T = TypeVar("T")


class DriverIsolated(DriverError):
    """The driver raised what its contract does not allow: a fault in its code, not in the device."""


class Collector:
    """Runs one device for the life of the agent. ``run`` is its task."""

    def __init__(self, name: str, spec: DriverSpec, settings: Any, shape: Shape, line: Line) -> None:
        self.name = name
        self._spec = spec
        self._settings = settings
        self._line = line
        self._polls = {group.tagset.group: group.poll_s for group in shape.groups.values() if group.poll_s is not None}
        self._requests: OrderedDict[str, Request] = OrderedDict()  # by group or tag: what waits for the device
        self._wake = asyncio.Event()
        self._uncommitted: deque[int] = deque()
        self._stopping = False
        self._read_ok = self._opened_at = clock.now()
        self._rejected_in_a_row = 0
        self._outage = Outage(log, "device", device=name)
        self._unclosed = Outage(log, "close", device=name)
        self._status: dict[str, Any] = {"driver": spec.name, "samples": 0, "scans": 0}
        self._status |= {"rejected": 0, "not_kept": 0, "reconnects": 0}
        self._bad: dict[str, Sample] = {}  # by group, the newest sample, if it is not good in all its values
        self._state("connecting")
        line.attach(name, self._request)

    def status(self) -> dict[str, Any]:
        """state (connecting, connected, faulted, isolated, stopped), since_ns, error, hint, counts and no_value
        (tag → why it had none when it was last read)."""
        bad = {
            sample.tagset.tags[index].name: reason
            for sample in self._bad.values()
            for index, reason in (sample.status or {}).items()
            if sample.values[index] is None
        }
        return self._status | {"no_value": bad}

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
        state = {DeviceRefused: "faulted", DriverIsolated: "isolated"}.get(type(error), "connecting")
        if was_open and state == "faulted":
            state = "connecting"  # a refused write: the line waits for the next one, not for a person
        self._state(state, error)
        self._requests.clear()  # the binder asks anew after the gap
        self._bad.clear()
        if was_open:
            self._status["reconnects"] += 1
            now = clock.now()
            silent_by_nature = self._spec.cadence is Cadence.EVENT  # its loss is noticed when it happens
            self._line.gap(self.name, now if silent_by_nature else self._read_ok, now, "lost")

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
            if group is None or due[group] > now:
                await self._until(None if group is None else due[group])
                continue
            period = self._polls[group]
            due[group] = due[group] + period if now < due[group] + period else now + period
            await self._read(driver, group)

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
        while True:
            await self._read(driver, None)

    async def _serve_requests(self, driver: Driver) -> None:
        while not self._stopping:
            if self._requests:
                await self._carry_out(driver, self._next_request())
            else:
                await self._until(None)

    async def _carry_out(self, driver: Driver, request: Request) -> None:
        if isinstance(request, ReadGroup):
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
        for item in items:
            if isinstance(item, Sample):
                self._status["samples"] += 1
                if item.status:
                    self._bad[item.tagset.source] = item
                elif self._bad:
                    self._bad.pop(item.tagset.source, None)
                self._uncommitted.append(self._line.sample(item))
            else:
                self._status["scans"] += 1
                self._uncommitted.append(self._line.scan(item))

    def _reject(self, error: ReadingRejected) -> None:
        self._status["rejected"] += 1
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

    def _next_request(self) -> Request:
        return self._requests.popitem(last=False)[1]
