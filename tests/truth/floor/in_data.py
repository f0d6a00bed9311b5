"""The result names its unit: one nest (``plc_serial``), or four of one result (``position_map``)."""

from __future__ import annotations

from truth.floor.place import Place
from truth.visits import Handshaking, Restart, Script, Visit


def _tags(nests: int) -> str:
    lines = []
    for nest in range(1, nests + 1):
        base = 20 * nest
        lines.append(f'          sn{nest}: {{address: "holding:{base}", type: string, length: 16}}')
        lines.append(f'          made{nest}: {{address: "holding:{base + 9}", type: uint32}}')
        lines.append(f'          force{nest}: {{address: "holding:{base + 11}", type: float32}}')
    return "\n".join(lines)


def _settings(nests: int) -> str:
    def by(name: str) -> str:
        return "{" + ", ".join(f"{nest}: plc{{n}}.{name}{nest}" for nest in range(1, nests + 1)) + "}"

    tags = "{" + ", ".join(f'{nest}: ["plc{{n}}.made{nest}"]' for nest in range(1, nests + 1)) + "}"
    return rf"""
  plc{{n}}:
    driver: modbus
    connection: "tcp://127.0.0.1:502"
    groups:
      state: {{poll: 100ms, tags: {{ready: {{address: "coil:1"}}}}}}
      result:
        on_trigger: true
        tags:
          count: {{address: "holding:1", type: uint16}}
{_tags(nests)}
    tags: {{ack: {{address: "coil:11", write: true}}}}
---
  ST{{n}}:
    step: form
    positions: [{", ".join(map(str, range(1, nests + 1)))}]
    identity: {{when: in_data, tag: {by("sn")}, pattern: '(?P<serial>SN\d{{8}})'}}
    cycle:
      end: {{handshake: {{ready: plc{{n}}.ready, ack: plc{{n}}.ack, counter: plc{{n}}.count, read: plc{{n}}.result}}}}
    collect: {{force: {{tag: {by("force")}, required: true}}}}
    tags: {tags}
"""


class PlcSerial(Place):
    """One nest. A round fills every nest; the first visit of a round is the one that something happens to."""

    strategy = "plc_serial"
    nests = 1
    covered = False
    settings = _settings(1)

    def setup(self) -> None:
        super().setup()
        self.machine = Handshaking(self.device, self.chance)
        self.units: dict[int, Visit] = {}
        self.early = False
        self.spoilt: dict[int, str] = {}
        self._fill({})

    @property
    def plc(self) -> Handshaking:
        return self.machine

    def _fill(self, units: dict[int, Visit]) -> None:
        for nest in range(1, self.nests + 1):
            unit = units.get(nest)
            self.device.tags[f"sn{nest}"] = self.spoilt.get(nest, unit.label.ljust(16)) if unit else ""
            self.device.tags[f"made{nest}"] = unit.token if unit else 0
            self.device.tags[f"force{nest}"] = unit.force if unit else 0.0

    def put_in(self, visit: Visit) -> Script:
        """The visit's unit into some nest, others (of the same disturbance where that strikes all) into the rest."""
        yield self.pause(0.2, 0.5)
        mine = self.chance.randint(1, self.nests)
        self.units = {mine: visit}
        for nest in range(1, self.nests + 1):
            if nest != mine:
                self.units[nest] = self.fellow(visit)

    def fellow(self, visit: Visit) -> Visit:
        """Another unit of the round: what strikes the whole result strikes it too, and is one finding."""
        whole = {
            "torn_read",
            "restart",
            "plc_lost",
            "long_silence",
            "counter_jump",
            "counter_reset",
            "duplicate_message",
        }
        other = self.unit(visit.disturbance if visit.disturbance in whole else "none")
        other.findings.clear()
        return other

    @property
    def nest(self) -> int:
        return next(nest for nest, unit in self.units.items() if unit.disturbance != "none") if self.nests > 1 else 1

    def finish(self, visit: Visit) -> Script:
        self._result()
        yield from self.until(lambda: self.plc.idle)
        yield self.pause(0.15, 0.4)

    def _result(self) -> None:
        self._fill(self.units)
        self.plc.finish(0)

    def exchange(self, other: Visit) -> None:
        """Swapped unseen: the data says so. Half of the time it is finished unseen, too."""
        mine = next(nest for nest, unit in self.units.items() if unit.disturbance == "swapped_in_downtime")
        self.units[mine] = other
        self.early = self.chance.random() < 0.5
        if self.early:
            self._result()

    def swapped_in_downtime(self, visit: Visit) -> Script:
        visit.work = "none"
        other = self.unit("swapped_in_downtime")
        yield from self.interrupted(visit, lambda: self.exchange(other))
        if self.early:
            yield from self.until(lambda: self.plc.idle)
        else:
            yield from self.finish(other)
        yield from self.take_out()

    def duplicate_message(self, visit: Visit) -> Script:
        yield from self.begin(visit)
        self.device.hold_writes = True
        self._result()
        yield 0.5
        self.line.commit()
        yield Restart()
        yield from self.until(lambda: self.plc.idle)
        yield from self.take_out()

    def garbled_serial(self, visit: Visit) -> Script:
        yield from self.begin(visit)
        self.spoilt = {self.nest: self.chance.choice(["SN12", "\x01\x02", "8888", visit.label[::-1]])}
        yield from self.finish(visit)
        self.spoilt = {}

    def refused_serial(self, visit: Visit) -> Script:
        yield from self.begin(visit)
        self.device.refused = {f"sn{self.nest}"}
        yield from self.finish(visit)
        self.device.refused = set()

    def value_missing(self, visit: Visit) -> Script:
        yield from self.begin(visit)
        self.device.refused = {f"force{self.nest}"}
        yield from self.finish(visit)
        self.device.refused = set()

    def empty_nest(self, visit: Visit) -> Script:
        yield from self.begin(visit)
        del self.units[self.nest]
        yield from self.finish(visit)


class PositionMap(PlcSerial):
    """Four nests of one result."""

    strategy = "position_map"
    nests = 4
    abreast = 4
    settings = _settings(4)

    def same_label(self, visit: Visit) -> Script:
        yield from self.begin(visit)
        other = next(nest for nest, unit in self.units.items() if unit is not visit)
        self.visits.remove(self.units[other])
        self.units[other] = self.unit("same_label", visit.label)
        yield from self.finish(visit)


__all__ = ["PlcSerial", "PositionMap"]
