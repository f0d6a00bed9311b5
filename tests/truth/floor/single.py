"""One nest with a reader before it and a handshake with a counter: what several strategies stand on."""

from __future__ import annotations

from truth.floor.place import Place
from truth.visits import Handshaking, Visit


def settings(*, devices: str = "", state: str = "", written: str = "", station: str = "") -> str:
    """YAML of such a station, with more of each."""
    return rf"""
  plc{{n}}:
    driver: modbus
    connection: "tcp://127.0.0.1:502"
    groups:
      state:
        poll: 100ms
        tags:
          ready: {{address: "coil:1"}}
          load: {{address: "input:1", type: uint32}}
{state}
      result:
        on_trigger: true
        tags:
          count: {{address: "holding:1", type: uint16}}
          made: {{address: "holding:2", type: uint32}}
          force: {{address: "holding:4", type: float32}}
    tags:
      ack: {{address: "coil:11", write: true}}
{written}
  in{{n}}: {{driver: scanner, port: "/dev/ttyin{{n}}"}}
{devices}
---
  ST{{n}}:
    step: join
    identity: {{when: before, scan: in{{n}}, pattern: '(?P<serial>SN\d{{8}})'}}
    cycle:
      timeout: 10min
      end: {{handshake: {{ready: plc{{n}}.ready, ack: plc{{n}}.ack, counter: plc{{n}}.count, read: plc{{n}}.result}}}}
    collect: {{force: {{tag: plc{{n}}.force, required: true}}}}
    tags: ["plc{{n}}.load", "plc{{n}}.made"]
{station}
"""


class Single(Place):
    """See the module docstring."""

    def setup(self) -> None:
        super().setup()
        self.machine = Handshaking(self.device, self.chance)

    @property
    def plc(self) -> Handshaking:
        return self.machine

    def announce(self, visit: Visit) -> None:
        self.scan(f"in{self.number}", visit.label)
