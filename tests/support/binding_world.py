"""A position of a line that knows the truth, around a real binder: what no record may contradict.

The PLC's values tell whose they are: ``temp`` (and the oven's ``heat``) is the number of the unit in the position, 0
for none; ``force`` is the number of the unit that a result was made of. So a reading bound to the wrong serial shows
by its value alone. What happens in a *blackout* nobody sees: units finish, leave, are swapped, results are given up,
the PLC is reset.

Held to: nobody swaps units under the agent's eyes without a scan, since no rule could notice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from edge_agent.binding import ReadGroup, Write
from edge_agent.binding.plan import Characteristic, Handshake, Plan, Resume
from edge_agent.model import Kind, ScanStatus
from support import binding_rig as bench
from support.binding_rig import Registry, Rig, position, station

FORCE = Characteristic("force", bench.tag("press.force"), True, None, None)
ENDS = {"counted": bench.HANDSHAKE, "uncounted": bench.UNCOUNTED, "beside": bench.BESIDE, "edge": bench.EDGE}
RESUMES = {
    "none": Resume(),
    "number": Resume(cycle_number=bench.tag("press.number")),
    "serial": Resume(serial=bench.tag("press.sn")),
}
CLAIMS = bench.CLAIMS | {"oven.air": ("heat",)}


def one_position(end: str, resume: str) -> Plan:
    """The plan of a line with one position."""
    place = position(end=ENDS[end], collect=(FORCE,), result=None, resume=RESUMES[resume], claims=CLAIMS)
    return bench.plan(station(place, timeout_s=30.0))


class World:
    """One position with a PLC, a reader, an operator, and the collector's part of the agent."""

    def __init__(self, end: str, resume: str = "none") -> None:
        self.rig = Rig(one_position(end, resume))
        self.shakes = isinstance(ENDS[end], Handshake)
        self.counted = end in ("counted", "beside")
        self.unit = 0  # in the position
        self.worked = False
        self.ready = False
        self.ack = False
        self.counter = 40
        self.number = 7
        self.made_of = 0  # the unit of the result block
        self.units = 0
        self.taken: list[int] = []  # units whose result the agent acknowledged
        self.scan_lost = False
        self.must_scan = False  # a unit was taken out unfinished: the next one has to be scanned
        self.polls_since_end = 0
        self.settle()

    # --- the PLC and the operator ------------------------------------------------------------------------------

    def enter(self, *, scan: bool = True) -> None:
        """A new unit is scanned, unless that is forgotten, and put in."""
        if not self.shakes:
            self.ready = False
            self.poll(2)
        self.units += 1
        if scan or self.must_scan:
            self.rig.wait(0.3)
            self.act(self.rig.scan(f"SN{self.units}"))
            self.must_scan = False
        self.unit, self.worked = self.units, False
        self.number = (self.number + 1) % 1000

    def enter_unseen(self) -> None:
        self.units += 1
        self.unit, self.worked = self.units, False
        self.number = (self.number + 1) % 1000
        if not self.shakes:
            self.ready = False

    def scan(self, times: int = 1, pause_s: float = 0.3) -> None:
        for _ in range(times):
            self.rig.wait(pause_s)
            self.act(self.rig.scan(f"SN{self.unit}"))

    def work(self) -> None:
        """The unit is finished: the result stands, ready rises."""
        assert self.may_work
        self.made_of, self.worked = self.unit, True
        self.counter = (self.counter + 1) % 65536
        self.ready = True
        self.polls_since_end = 0

    def leave(self) -> None:
        self.unit = 0

    @property
    def may_enter(self) -> bool:
        return self.unit == 0 and (not self.shakes or not (self.ready or self.ack))

    @property
    def may_work(self) -> bool:
        """A PLC waits until the last acknowledge is gone, or it would take it for the next result's."""
        return self.unit != 0 and not self.worked and not (self.shakes and (self.ready or self.ack))

    @property
    def may_leave(self) -> bool:
        return self.worked and self.unit != 0 and (not self.ready if self.shakes else self.polls_since_end > 2)

    def give_up(self) -> None:
        """The PLC waited long enough for its acknowledge."""
        self.ready = False

    # --- what the collector does -------------------------------------------------------------------------------

    def state_values(self) -> dict[str, Any]:
        return {
            "ready": self.ready, "temp": self.unit, "number": self.number, "sn": f"SN{self.unit}" if self.unit else "",
            "beside": self.counter,
        }  # fmt: skip

    def result_values(self) -> dict[str, Any]:
        return {"count": self.counter, "force": self.made_of, "ok": True}

    def poll(self, times: int = 1) -> None:
        """The state group every 100 ms, the oven a little later; the PLC's program between them."""
        for _ in range(times):
            self.polls_since_end += 1
            self.rig.wait(0.1)
            self.act(self.rig.sample("press.state", self.state_values()))
            self.rig.wait(0.02)
            self.act(self.rig.sample("oven.air", {"heat": self.unit}))
            self.turn()

    def turn(self) -> None:
        """The PLC's program: an acknowledged result is done with."""
        if self.shakes and self.ack and self.ready:
            self.taken.append(self.made_of)
            self.ready = False

    def act(self, _: object = None, effects: int | None = None) -> None:
        """Carry out the effects, in order, and theirs; at most so many."""
        while self.rig.effects and effects != 0:
            effect = self.rig.effects.pop(0)
            if isinstance(effect, Write):
                self.ack = bool(effect.value)
                self.turn()
            elif isinstance(effect, ReadGroup):
                self.rig.wait(0.004)
                values = self.state_values() if effect.group == "press.state" else self.result_values()
                self.rig.sample(effect.group, values)
            effects = None if effects is None else effects - 1

    def settle(self, polls: int = 5) -> None:
        self.poll(polls)
        self.act(self.rig.tick(0.1))

    # --- races -------------------------------------------------------------------------------------------------

    def finish_and_scan_next(self) -> None:
        """An indexing machine: the next label is read while the last unit's end was not yet polled."""
        self.work()
        self.units += 1
        coming = self.units
        self.rig.wait(0.03)
        self.act(self.rig.scan(f"SN{coming}"))
        for _ in range(4):
            if self.shakes and self.ready:
                self.poll()
        self.unit, self.worked = coming, False
        self.number = (self.number + 1) % 1000
        if not self.shakes:
            self.ready = False
        self.settle()

    def flash(self) -> None:
        """An end too short to be seen, then a unit that nobody scanned: the counter alone can tell."""
        self.work()
        self.give_up()
        self.enter_unseen()
        self.work()
        self.settle()

    def die_before_effects(self, effects: int, unseen: Sequence[Callable[[], None]]) -> None:
        """The result is durable; the agent dies after so many of the effects (reads, then the acknowledge)."""
        self.work()
        self.rig.wait(0.1).sample("press.state", self.state_values())
        self.act(effects=effects)
        self.restart(unseen, 1.0)

    # --- blackouts ---------------------------------------------------------------------------------------------

    def lose_plc(self, unseen: Sequence[Callable[[], None]], seconds: float) -> None:
        """The loss is noticed half a second late; the oven is read on."""
        self.rig.effects.clear()
        lost_ns = self.rig.mono_ns
        self.rig.wait(0.05)
        self._unseen(unseen)
        for _ in range(5):
            self._heat(0.1)
        self.act(self.rig.gap("press", (self.rig.mono_ns - lost_ns) / bench.SECOND))
        for _ in range(int(seconds)):
            self._heat(0.5)
            self.rig.tick(0.5)
            self.rig.effects.clear()

    def stall(self, unseen: Sequence[Callable[[], None]], seconds: float, *, ticks: bool) -> None:
        """The PLC's read hangs for longer than the limit, and comes with what it saw at its beginning."""
        began_ns, seen = self.rig.mono_ns, self.state_values()
        self.rig.wait(0.05)
        self._unseen(unseen)
        for _ in range(int(seconds * 2)):
            self._heat(0.5)
            if ticks:
                self.rig.tick(0.0)
                self.rig.effects.clear()
        self.act(self.rig.late_sample("press.state", seen, (self.rig.mono_ns - began_ns) / bench.SECOND, 0.0))

    def lose_scanner(self, unseen: Sequence[Callable[[], None]], late: bool = False) -> None:
        """The reader is away, noticed late or at once; the PLC is watched on."""
        lost_ns = self.rig.mono_ns
        if late and self.unit and not self.worked:
            self.enter_unseen()
            self.poll(2)
        self.act(self.rig.gap("gate", (self.rig.mono_ns - lost_ns) / bench.SECOND))
        self._unseen(unseen)
        self.poll(3)

    def _heat(self, seconds: float) -> None:
        self.rig.wait(seconds).sample("oven.air", {"heat": self.unit})

    def restart(self, unseen: Sequence[Callable[[], None]], seconds: float) -> None:
        """The agent dies: effects that were not carried out never are."""
        self.rig.effects.clear()
        self._unseen(unseen)
        self.rig.wait(seconds).restart()

    def crash_before_commit(self, step: Callable[[], object], unseen: Sequence[Callable[[], None]]) -> None:
        """The agent dies with the records of ``step`` not yet durable."""
        durable = len(self.rig.records)
        step()
        self.rig.records = self.rig.records[:durable]
        self.rig.registry = Registry()
        for seq, record, body in self.rig.records:
            self.rig.registry.project(seq, record, body)
        self.restart(unseen, 1.0)

    def _unseen(self, actions: Sequence[Callable[[], None]]) -> None:
        for action in actions:
            action()

    def unseen_actions(self) -> dict[str, Callable[[], None]]:
        """What may happen while nobody looks."""

        def finish() -> None:
            if self.may_work:
                self.work()

        def give_up() -> None:
            if self.ready and self.shakes:
                self.give_up()
                self.ack = False

        def swap() -> None:
            if not self.ready or not self.shakes:
                self.enter_unseen()
                self.must_scan = False

        def take_out() -> None:
            if not self.ready or not self.shakes:
                self.unit = 0

        def reset() -> None:
            if not self.ready and self.counter > 5:  # a counter that comes to the same value again hides a result
                self.counter = 0

        return {"finish": finish, "give_up": give_up, "swap": swap, "take_out": take_out, "reset": reset}

    # --- the truth ---------------------------------------------------------------------------------------------

    def check(self) -> None:
        """No reading is under a serial that is not its own; no result is lost or there twice."""
        bodies = {seq: (record.source, body) for seq, record, body in self.rig.records if record.kind is Kind.SAMPLE}
        for cycle in self.rig.registry.cycles.values():
            if cycle["binding"]["state"] == "bound":
                self._check_windows(cycle, cycle["binding"]["serial"], bodies)
        if self.counted:
            recorded = [
                cycle["collected"][0]["value"] for cycle in self.rig.registry.cycles.values()
                if cycle.get("closed_by") == "handshake"
            ]  # fmt: skip
            assert len(recorded) == len(set(recorded)), f"recorded twice: {recorded}"
            assert set(self.taken) <= set(recorded), f"lost: {set(self.taken) - set(recorded)}"

    def _check_windows(self, cycle: dict[str, Any], serial: str, bodies: dict[int, tuple[str, dict[str, Any]]]) -> None:
        own = int(serial.removeprefix("SN"))
        for item in cycle.get("collected", ()):
            assert item["value"] in (None, own), f"{serial} was given the result of {item['value']}: {cycle}"
        for source, ranges in cycle["windows"].items():
            for seq, (its_source, body) in bodies.items():
                if its_source != source or not any(first <= seq <= last for first, last in ranges):
                    continue
                whose = {"press.state": 1, "press.result": 1, "oven.air": 0}[source]
                value = body["values"][whose]
                assert value in (0, own), f"sample {seq} of {source} shows unit {value}, bound to {serial}: {cycle}"


def noise(world: World) -> None:
    """What readers say besides labels."""
    world.act(world.rig.scan("NOREAD", status=ScanStatus.NO_READ))
    world.act(world.rig.scan(b"\xff\x00", status=ScanStatus.GARBAGE))
    world.act(world.rig.scan("not a label"))


__all__ = ["ENDS", "RESUMES", "World", "noise", "one_position", "replace"]
