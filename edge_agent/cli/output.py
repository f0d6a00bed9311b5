"""What the verbs print, in one style: tables, times, sizes, JSON. rich lives here, so `run` never imports this.

JSON goes to stdout, whole and alone, in English and with stable keys, whatever the language. No colour unless
stdout is a terminal (rich looks at NO_COLOR and TERM itself). Tables align with Chinese text (rich counts cells).
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from edge_agent.i18n import _

AsJson = Annotated[bool, typer.Option("--json", help=_("print JSON, for programs"))]


def console() -> Console:
    """The console on stdout: soft-wrapped when piped, so that no line of a log is cut."""
    out = Console(highlight=False, emoji=False)
    return out if out.is_terminal else Console(highlight=False, emoji=False, width=160)


def emit_json(value: Any) -> None:
    """Print one JSON document, indented."""
    options = orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS | orjson.OPT_PASSTHROUGH_DATACLASS
    typer.echo(orjson.dumps(value, option=options, default=str).decode())


def instants_as_text(value: Any) -> Any:
    """A copy in which every ``..._ns`` is a decimal string: UTC nanoseconds do not fit the numbers of JSON readers."""
    if isinstance(value, dict):
        return {
            key: str(item) if isinstance(item, int) and str(key).endswith("_ns") else instants_as_text(item)
            for key, item in value.items()
        }
    return [instants_as_text(item) for item in value] if isinstance(value, list | tuple) else value


def table(*headings: str) -> Table:
    """An empty table without frame, its headings given."""
    rows = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for heading in headings:
        rows.add_column(heading, overflow="fold")
    return rows


def plain(text: str) -> str:
    """``text`` with what is not printable spelled out: a label may hold anything, also codes for the terminal."""
    return "".join(sign if sign.isprintable() or sign == "\n" else repr(sign)[1:-1] for sign in text)


def say(out: Console, text: str | Text = "", style: str = "", *, end: str = "\n") -> None:
    """Print a line as it is (no markup), wrapped by the terminal only."""
    out.print(text if isinstance(text, Text) else Text(plain(text), style), soft_wrap=True, end=end)


def say_added(out: Console, lines: str, device: str) -> None:
    """What was written to the configuration, and what to type next."""
    say(out, _("added to the configuration:") + f"\n{lines}")
    next_verbs = _("see its values: edge-agent watch {device}; a running agent takes it up when restarted")
    say(out, "  → " + next_verbs.format(device=device))


def add_row(rows: Table, *cells: str | Text) -> None:
    """Add a row whose texts are shown as they are: a serial may hold [brackets], which rich would take for markup."""
    rows.add_row(*(cell if isinstance(cell, Text) else Text(plain(cell)) for cell in cells))


def local_time(at_ns: int | str | None, *, date: bool = True) -> str:
    """An instant (UTC ns) in local time, with milliseconds and the UTC offset; "–" for none."""
    if at_ns is None:
        return "–"
    at = datetime.fromtimestamp(int(at_ns) // 1_000_000 / 1000).astimezone()
    text = at.isoformat(" " if date else "T", "milliseconds")
    return text if date else text.partition("T")[2]


def size(n_bytes: float | None) -> str:
    """Bytes as a person says them: "12.3 GB"."""
    if n_bytes is None:
        return "–"
    for unit in ("B", "kB", "MB", "GB"):
        if abs(n_bytes) < 1000:
            return f"{n_bytes:.0f} {unit}" if unit == "B" else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.1f} TB"


def span(seconds: float | None) -> str:
    """A length of time as a person says it: "850 ms", "12 s", "3 min", "5.2 h", "12 d"."""
    if seconds is None:
        return "–"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    for limit, divisor, unit in ((120, 1, "s"), (7200, 60, "min"), (172_800, 3600, "h")):
        if seconds < limit:
            return f"{seconds / divisor:.0f} {unit}"
    return f"{seconds / 86_400:.0f} d"
