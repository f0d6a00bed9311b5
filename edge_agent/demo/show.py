"""What the watcher of the demo sees: a live table in a terminal, dated lines elsewhere.

:class:`Scene` holds what is to be seen and knows no terminal; the two stages show it. The units in the table are the
line's own truth, the column beside it what the agent says, so that a watcher can compare them.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from edge_agent.demo.gate import ON_HOLD, STEP_BEFORE
from edge_agent.i18n import _

EVENTS = 10
PANEL = 4  # columns of its border
BACKLOG_SCALE = 50  # records: the shortest full bar


@dataclass(slots=True)
class PositionView:
    """One position: what is in it, what the agent believes, and how its last cycle went."""

    name: str
    step: str
    unit: str = ""
    believed: str = ""
    note: str = ""
    cycles: int = 0


@dataclass(slots=True)
class Scene:
    """Everything the watcher sees."""

    positions: dict[str, PositionView]  # by "OP30.2"
    broker_up: bool = False
    agent_state: str = ""
    pending: int = 0
    most_pending: int = 0
    events: deque[tuple[str, str]] = field(default_factory=lambda: deque(maxlen=EVENTS))
    started: float = field(default_factory=time.monotonic)
    _firsts: set[str] = field(default_factory=set)  # kinds of events that were told once
    _confirmed: dict[str, int] = field(default_factory=dict)  # by stream; each run of the agent begins one
    _samples: dict[str, int] = field(default_factory=dict)  # by log, which is one of each run too

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self.started

    @property
    def confirmed(self) -> int:
        """Records that are confirmed, over all runs of the agent."""
        return sum(self._confirmed.values())

    @property
    def samples(self) -> int:
        """Samples that were read, over all runs of the agent, as far as it could be asked."""
        return sum(self._samples.values())

    def take_truth(self, events: Iterable[dict[str, Any]]) -> list[str]:
        """What the line did; returns the lines worth telling."""
        told = []
        for event in events:
            if "station" not in event:
                continue
            view = self.positions[f"{event['station']}.{event['position']}"]
            kind, serial = event["event"], event.get("serial", "")
            if kind in ("enter", "swap"):
                view.unit, view.note = serial, ""
            elif kind == "leave":
                view.unit = ""
            elif kind == "work":
                view.cycles += 1
                view.note = "" if event["ok"] else _("failed")
            if (text := self._worth_telling(event)) is not None:
                view.note = text
                told.append(f"{view.name}  {serial}  {text}")
        return told

    def _worth_telling(self, event: dict[str, Any]) -> str | None:
        """What happened, for people; what happens to every unit is told of the first."""
        match event["event"]:
            case "quirk":
                return quirk_text(event["quirk"])
            case "block":
                return block_text(event["code"])
            case "rework":
                return _("comes once more: rework")
            case "install" if "install" not in self._firsts:
                self._firsts.add("install")
                return _("board {child} is built in").format(child=event["child"])
            case "scan" if event["station"] == "OP40" and "late" not in self._firsts:
                self._firsts.add("late")
                return _("is scanned only now, after the work")
        return None

    def take_status(self, status: dict[str, Any] | None) -> None:
        """What the agent says of itself; None: it does not answer."""
        if status is None:
            self.agent_state = _("does not answer")
            for view in self.positions.values():
                view.believed = ""
            return
        self.agent_state = status["state"]
        route = status["routes"]["mes"]
        self.pending = route["pending"]
        self.most_pending = max(self.most_pending, self.pending)
        if stream := route["stream"]:
            self._confirmed[stream] = max(route["confirmed_n"], self._confirmed.get(stream, 0))
        self._samples[status["log"]] = sum(device["samples"] for device in status["devices"].values())
        for name, view in self.positions.items():
            station, _dot, number = name.partition(".")
            positions = status["stations"].get(station, {}).get("positions", {})
            view.believed = _believed(positions.get(number) or positions.get(int(number)) or {})


def _believed(position: dict[str, Any]) -> str:
    """The agent's word on a position: the serial of its open cycle, and whether it is sure of it."""
    if not position.get("cycle"):
        return "–"
    serial = position.get("serial") or "?"
    return f"{serial} {_('interrupted')}" if position.get("interrupted") else serial


def quirk_text(quirk: str) -> str:
    """What went wrong, for people."""
    return {
        "no_scan": _("was not scanned"),
        "no_read": _("reader saw nothing, scanned again"),
        "double_scan": _("was scanned twice"),
        "fail": _("fails"),
        "incomplete": _("a required value is missing"),
    }[quirk]


def block_text(code: int) -> str:
    """Why the gate stopped it, and what the line does then, for people."""
    if code in ON_HOLD:
        return _("is stopped at the gate: it is on hold (code {code}); set aside").format(code=code)
    if code in STEP_BEFORE:
        return _("is stopped at the gate: OP10 is missing (code {code}); goes back there").format(code=code)
    return _("is stopped at the gate (code {code}); scanned and asked again").format(code=code)


class Stage(Protocol):
    """Where a scene is shown."""

    def __enter__(self) -> Stage: ...
    def __exit__(self, *exc: object) -> None: ...
    def tell(self, text: str) -> None: ...
    def refresh(self) -> None: ...


class PlainStage:
    """Dated lines, for logs and pipes; the backlog is told when it changed."""

    def __init__(self, scene: Scene, console: Console) -> None:
        self._scene, self._console = scene, console
        self._told = 0

    def __enter__(self) -> PlainStage:
        return self

    def __exit__(self, *exc: object) -> None:
        return None

    def tell(self, text: str) -> None:
        self._console.print(f"{self._scene.elapsed_s:5.1f} s  {text}", markup=False)

    def refresh(self) -> None:
        scene = self._scene
        if max(scene.pending, self._told) >= BACKLOG_SCALE and abs(scene.pending - self._told) >= BACKLOG_SCALE:
            self._told = scene.pending
            self.tell(_("backlog {n} records, {m} confirmed").format(n=scene.pending, m=scene.confirmed))


class LiveStage:
    """The table, redrawn in place."""

    def __init__(self, scene: Scene, console: Console) -> None:
        self._scene, self._console = scene, console
        self._live = Live(self._draw(), console=console, auto_refresh=False, transient=False)

    def __enter__(self) -> LiveStage:
        self._live.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        self.refresh()
        self._live.__exit__(None, None, None)

    def tell(self, text: str) -> None:
        self._scene.events.append((f"{self._scene.elapsed_s:5.1f} s  ", text))
        self.refresh()

    def refresh(self) -> None:
        self._live.update(self._draw(), refresh=True)

    def _draw(self) -> Panel:
        return Panel(
            Group(self._line(), Text(), self._path(), Text(), self._events()),
            title=f"edge-agent demo · {self._scene.elapsed_s:4.1f} s",
            border_style="cyan",
        )

    def _line(self) -> Table:
        table = Table(box=None, expand=True, header_style="dim", pad_edge=False)
        for heading in (_("position"), _("step"), _("unit in it"), _("agent says"), _("cycles"), ""):
            table.add_column(heading)
        for view in self._scene.positions.values():
            agrees = view.believed in ("", "–", view.unit)
            table.add_row(
                f"[bold]{view.name}[/]", view.step, f"[green]{view.unit or '·'}[/]",
                f"[{'cyan' if agrees else 'yellow'}]{view.believed}[/]", str(view.cycles), f"[yellow]{view.note}[/]",
            )  # fmt: skip
        return table

    def _path(self) -> Table:
        scene = self._scene
        table = Table.grid(padding=(0, 2), expand=True)
        table.add_column(no_wrap=True)
        table.add_column(ratio=1)
        table.add_column(no_wrap=True, justify="right")
        alive = scene.agent_state in ("running", "stopping")
        agent = Text(f"{_('agent')}: {_(scene.agent_state) or '–'}", style="green" if alive else "bold red")
        broker = Text(f"{_('broker')}: " + (_("up") if scene.broker_up else _("down")))
        broker.stylize("green" if scene.broker_up else "bold red")
        table.add_row(agent, Text(_("{n} samples read").format(n=scene.samples)), broker)
        scale = max(BACKLOG_SCALE, scene.most_pending)
        style = "green" if scene.pending < BACKLOG_SCALE else "yellow"
        table.add_row(
            Text(_("backlog")),
            ProgressBar(total=scale, completed=scene.pending, complete_style=style, finished_style=style),
            Text(_("{n} pending · {m} confirmed").format(n=scene.pending, m=scene.confirmed)),
        )
        return table

    def _events(self) -> Text:
        """The last lines, a long event over several, always as many so that the panel keeps its height."""
        lines: list[str] = []
        for at, text in self._scene.events:
            wrapped = Text(text).wrap(self._console, max(self._console.width - PANEL - len(at), 20))
            starts = [at, *[" " * len(at)] * len(wrapped)]
            lines += [start + line.plain for start, line in zip(starts, wrapped, strict=False)]
        shown = lines[-EVENTS:]
        return Text("\n".join([*shown, *[""] * (EVENTS - len(shown))]), no_wrap=True, overflow="ellipsis")
