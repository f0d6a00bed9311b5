"""How `trace` prints what units consist of: components, lots, where a lot went, the tree; and what holds a unit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from edge_agent.cli.output import add_row, emit_json, instants_as_text, local_time, plain, say, table
from edge_agent.i18n import _, ngettext, translate

if TYPE_CHECKING:
    from edge_agent.buffer import Archive
    from edge_agent.buffer.lineage import Component, Forward, Material, Tree
    from edge_agent.buffer.trace import Unit

SHOWN = 1000  # units that a forward trace prints for people
ALL = 100_000  # and as JSON


def show_forward(out: Console | None, archive: Archive, kind: str, value: str) -> bool:
    """Which units contain a lot or package; as JSON without a console. False if none does."""
    found = archive.forward(kind, value, SHOWN if out else ALL)
    if out is None:
        emit_json({kind: value} | instants_as_text(asdict(found)))
    elif not found.units and not found.unbound:
        say(out, _("nothing here contains {kind} {value}").format(kind=_(kind), value=repr(value)))
    else:
        _show_forward(out, found, f"{_(kind)} {value}")
    return bool(found.units or found.unbound)


def _show_forward(out: Console, found: Forward, what: str) -> None:
    text = ngettext("{what} is in {count} unit", "{what} is in {count} units", found.total)
    say(out, text.format(what=what, count=found.total), "bold")
    rows = table(_("SERIAL"), _("DEPTH"), _("THROUGH"), _("SINCE"), "")
    for unit in found.units:
        sure = "" if unit.certain else _("perhaps: one of several lots")
        add_row(rows, unit.serial or unit.unit, str(unit.depth), unit.via or "", local_time(unit.at_ns), sure)
    out.print(rows)
    if found.total > len(found.units):
        say(out, _("and {count} more; --json prints them").format(count=found.total - len(found.units)))
    if found.unbound:
        shown = ", ".join(found.unbound[:10])
        text = ngettext(
            "{count} cycle used it of which nobody knows whose it is: {cycles}",
            "{count} cycles used it of which nobody knows whose they are: {cycles}",
            len(found.unbound),
        )
        say(out, text.format(count=len(found.unbound), cycles=shown), "yellow")


def show_tree(out: Console, unit: Unit, tree: Tree) -> None:
    """What is in a unit, as a tree; then what it is in."""
    say(out, Text.assemble((plain(unit.serial or "?"), "bold"), f"  {_('unit')} {unit.unit}"))
    children: dict[str, list[Component]] = {}
    for part in tree.inside:
        children.setdefault(part.parent, []).append(part)
    lots: dict[str, list[Material]] = {}
    for material in tree.materials:
        lots.setdefault(material.unit or "", []).append(material)
    _branch(out, unit.unit, "", children, lots, {unit.unit})
    if tree.around:
        say(out, "\n" + _("it is in:"))
        for one in tree.around:
            text = f"{'  ' * one.depth}{one.parent_serial or one.parent}  {one.name}  {local_time(one.at_ns)}"
            say(out, text)
    say(out)


def _branch(
    out: Console, unit: str, indent: str, children: Mapping[str, list[Component]], lots: Mapping[str, list[Material]],
    seen: set[str],
) -> None:  # fmt: skip
    leaves = [_material(one) for one in {(m.name, m.lot, m.package): m for m in lots.get(unit, ())}.values()]
    parts = children.get(unit, [])
    for i, leaf in enumerate(leaves):
        last = i == len(leaves) - 1 and not parts
        say(out, f"{indent}{'└─' if last else '├─'} {leaf}", "dim")
    for i, part in enumerate(parts):
        last = i == len(parts) - 1
        say(out, f"{indent}{'└─' if last else '├─'} {part.name}: {part.child_serial or part.child}")
        if part.child in seen:  # twice in it: shown once
            continue
        seen.add(part.child)
        _branch(out, part.child, indent + ("   " if last else "│  "), children, lots, seen)


def _material(one: Material) -> str:
    named = (("lot", one.lot), ("package", one.package), ("part_number", one.part_number))
    what = ", ".join(f"{_(kind)} {value}" for kind, value in named if value)
    return f"{one.name}: {what}" + ("" if one.certain else f" ({_('perhaps: one of several lots')})")


def material_line(materials: tuple[Material, ...]) -> str:
    """What one cycle consumed, in a line."""
    return "; ".join(_material(one) for one in materials)


def show_around(out: Console, unit: Unit) -> None:
    """What a unit is made of and built into, what holds it, what the gate and others said of it."""
    for part in unit.components:
        gone = f" ({_('taken out since')})" if part.removed else ""
        say(out, f"{_('component')} {part.name}: {part.child_serial or part.child}  {local_time(part.at_ns)}{gone}")
    for part in unit.parents:
        gone = f" ({_('taken out since')})" if part.removed else ""
        say(out, f"{_('built into')} {part.parent_serial or part.parent} ({part.name})  {local_time(part.at_ns)}{gone}")
    for hold in unit.holds:
        about = f"{_(hold.subject_kind)} {hold.subject}"
        text = f"{_(hold.action)} {hold.hold}: {about}  {hold.source}  {_(hold.state)}  {local_time(hold.at_ns)}"
        say(out, text + (f"  ({hold.text})" if hold.text else ""), "red" if hold.state == "open" else "dim")
    for decision in unit.gate:
        why = ", ".join(translate(str(_field(reason, "text"))) for reason in decision.reasons)
        who = f"  {_('by {who}').format(who=decision.by)}" if decision.by else ""
        text = f"{_('gate')} {decision.station}.{decision.position}: {_(decision.verdict)} ({_(decision.basis)})"
        text += f"  {local_time(decision.at_ns)}{who}" + (f"  {why}" if why else "")
        say(out, text, "red" if decision.verdict == "block" else "")
    for said in unit.said:
        attempt = f", {_('attempt {number}').format(number=said.attempt)}" if said.attempt else ""
        text = _("{who} says of step {step}: {result}").format(who=said.said_by, step=said.step, result=_(said.result))
        say(out, f"{text}{attempt}  {local_time(said.at_ns)}")


def _field(reason: Any, name: str) -> Any:
    return reason.get(name, "") if isinstance(reason, Mapping) else reason
