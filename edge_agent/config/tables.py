"""Tags from a table: ``tags: {from: press.csv}`` is the same as writing its rows there. And back: a table of tags.

::

    name;address;type;order;unit
    force;holding:100;float32;CDAB;kN
    temp;input:5;int16;;°C

One row a tag, one column a key, an empty cell is no key; a cell in braces is a section; what follows an apostrophe is a
text, whatever it looks like: ``'2``. What spreadsheets write is read: comma, semicolon (then 0,5 is a number) or tab;
UTF-8 with or without BOM, UTF-16 with BOM. Other encodings are named, not guessed: ``encoding: gb18030`` for what a
Chinese Excel saves as plain CSV, ``cp1252`` for a western one. "°C" in the one is "癈" in the other, and nobody would
notice.

Mistakes are told with the table's own file and line. Bounds: 4 MiB, 20,000 rows, 64 columns.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from edge_agent.config.render import flow
from edge_agent.config.tree import MAX_BYTES, Node, parse, plain_value
from edge_agent.errors import ConfigError, Problem

MAX_ROWS = 20_000
MAX_COLUMNS = 64
MAX_TOLD = 10  # mistakes of one table: a wrong column is wrong in every row
ENCODINGS = ("utf-8", "gb18030", "cp1252")
_DECIMAL_COMMA = re.compile(r"[-+]?\d+,\d+")


def expand(root: Node, config: Path, only: str = "") -> None:
    """Put the rows of every table that the devices (or ``only`` this one) name into the tree of ``config``, in place
    of its name.

    Raises ConfigError for tables that cannot be read: what they would have held is not judged without them.
    """
    found: list[Problem] = []
    devices = root.children.get("devices")
    for name, device in (devices.children if devices else {}).items():
        if only and name != only:
            continue
        groups = device.children.get("groups")
        for holder in (device, *(groups.children.values() if groups else ())):
            node = holder.children.get("tags")
            if node is not None and isinstance(node.value, dict) and isinstance(node.value.get("from"), str):
                _expand(node, config, found)
                if isinstance(holder.value, dict):
                    holder.value["tags"] = node.value
    if found:
        raise ConfigError(found)


def _expand(node: Node, config: Path, found: list[Problem]) -> None:
    name, encoding = node.value["from"], node.value.get("encoding", "utf-8")
    path = config.parent / name
    others = [key for key in node.value if key not in ("from", "encoding")]
    node.value, node.children = {}, {}
    if others:
        hint = f"write {others[0]} as a row of {name}, or all tags here"
        found.append(Problem(str(config), node.line, "tags", "from: stands alone in its section", hint))
        return
    try:
        rows = read(path, str(encoding))
    except ConfigError as error:
        found.extend(error.problems)
        return
    for line, tag, cells in rows:
        made = Node({}, line, file=str(path))
        for key, cell in cells.items():
            made.children[key] = cell
            made.value[key] = cell.value
        node.children[tag] = made
        node.value[tag] = made.value


def read(path: Path, encoding: str = "utf-8") -> list[tuple[int, str, dict[str, Node]]]:
    """(line, tag's name, its keys) of every row. Raises ConfigError with every mistake of the table itself."""
    text = _text(path, encoding)
    separator = _separator(text)
    problems: list[Problem] = []
    reader = csv.reader(io.StringIO(text.lstrip("\ufeff"), newline=""), delimiter=separator, strict=True)
    header: list[str] | None = None
    rows: list[tuple[int, str, dict[str, Node]]] = []
    lines: dict[str, int] = {}
    try:
        for cells in reader:
            line = reader.line_num
            cells = [cell.strip() for cell in cells]
            if not any(cells) or cells[0].startswith("#") or (header is None and cells[0].startswith("sep=")):
                continue
            if header is None:
                header = _header(path, line, cells)
                continue
            if len(rows) >= MAX_ROWS:
                raise _refuse(path, line, f"has more than {MAX_ROWS} rows", "split it over several groups")
            row = _row(path, line, header, cells, separator, problems)
            name = row.pop("name").text or ""
            if name in lines:
                problems.append(Problem(str(path), line, name, f"stands in line {lines[name]} already", "rename one"))
            elif name:
                rows.append((line, name, row))
                lines[name] = line
            else:
                problems.append(Problem(str(path), line, "name", "is empty", "give the tag a name, or clear the row"))
    except csv.Error as error:
        problems.append(Problem(str(path), reader.line_num, "", f"is no table: {error}", "look at the quotes"))
    if header is None and not problems:
        raise _refuse(path, 1, "is empty", "its first line names the columns: name;address;type;unit")
    if problems:
        raise ConfigError(bounded(problems))
    if not rows:
        raise _refuse(path, 1, "has no rows", "write one line a tag")
    return rows


def bounded(problems: Sequence[Problem], whole: str = "") -> list[Problem]:
    """At most MAX_TOLD of each file but ``whole``, and how many more there are."""
    kept: list[Problem] = []
    by_file: dict[str, int] = {}
    for problem in problems:
        by_file[problem.file] = by_file.get(problem.file, 0) + 1
        if problem.file == whole or by_file[problem.file] <= MAX_TOLD:
            kept.append(problem)
    kept += [
        Problem(file, 0, "", f"{n - MAX_TOLD} more mistakes")
        for file, n in by_file.items()
        if n > MAX_TOLD and file != whole
    ]
    return kept


def table(tags: Mapping[str, Mapping[str, Any]], keys: Iterable[str], separator: str = ",") -> str:
    """The tags as a table that spreadsheets open: BOM, one row a tag; only columns that some tag needs."""
    used = [key for key in keys if any(key in tag for tag in tags.values())]
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=separator, lineterminator="\r\n")
    writer.writerow(["name", *used])
    for name, tag in tags.items():
        writer.writerow([name, *(_cell(tag.get(key)) for key in used)])
    return "\ufeff" + out.getvalue()


# --- parts ---------------------------------------------------------------------------------------------------


def _refuse(path: Path, line: int, what: str, hint: str) -> ConfigError:
    return ConfigError([Problem(str(path), line, "", what, hint)])


def _text(path: Path, encoding: str) -> str:
    if encoding not in ENCODINGS:
        hint = "write gb18030 for what a Chinese Excel saved, cp1252 for a western one, or leave it out for UTF-8"
        raise _refuse(path, 0, f"no encoding is named {encoding!r} here", hint)
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        hint = "the path is relative to the configuration file"
        why = error.strerror if isinstance(error, OSError) else error
        raise _refuse(path, 0, f"cannot be read: {why}", hint) from error
    if len(raw) > MAX_BYTES:
        raise _refuse(path, 0, f"is larger than {MAX_BYTES // 2**20} MiB", "is this the right file?")
    if raw[:4] in (b"PK\x03\x04", b"\xd0\xcf\x11\xe0"):
        raise _refuse(path, 0, "is a workbook", "save it as CSV UTF-8 from the spreadsheet")
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding = "utf-16"
    elif raw.startswith(codecs.BOM_UTF8):
        encoding = "utf-8"
    try:
        return raw.decode(encoding)
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        hint = "save it as CSV UTF-8; or name it, gb18030 (Chinese Excel) or cp1252 (western): encoding: or --encoding"
        raise _refuse(path, line, f"is not {encoding.upper()}", hint) from error


def _separator(text: str) -> str:
    """Of the line that names the columns."""
    for line in text.lstrip("\ufeff").splitlines():
        if line.lower().startswith("sep=") and len(line) == 5:
            return line[4]
        if line.strip(" ,;\t") and not line.startswith("#"):
            return max(",;\t", key=line.count)
    return ","


def _header(path: Path, line: int, cells: list[str]) -> list[str]:
    names = [cell.lower() for cell in cells]
    while names and not names[-1]:
        names.pop()
    if "name" not in names:
        raise _refuse(path, line, "has no column name", "the first line names the columns: name;address;type;unit")
    if len(names) > MAX_COLUMNS:
        raise _refuse(path, line, f"has more than {MAX_COLUMNS} columns", "is this the right file?")
    twice = next((name for name in names if name and names.count(name) > 1), None)
    if twice is not None or "" in names:
        what = f"has two columns {twice}" if twice else "has a column without a name"
        raise _refuse(path, line, what, "each column is a key of the tag, e.g. address, type, unit")
    return names


def _row(
    path: Path, line: int, header: list[str], cells: list[str], separator: str, problems: list[Problem]
) -> dict[str, Node]:
    row = {"name": Node("", line, "")}
    if any(cells[len(header) :]):
        problems.append(
            Problem(str(path), line, "", "has more cells than columns", "put quotes around a cell with commas")
        )
    for key, cell in zip(header, cells, strict=False):
        if key == "name":
            row[key] = Node(cell, line, cell)
        elif cell.startswith("'"):
            row[key] = Node(cell[1:], line, cell[1:], file=str(path))
        elif cell.startswith(("{", "[")):
            doubtful: list[Problem] = []
            inner = parse(cell, str(path), doubtful)
            if inner is None:
                problems.append(
                    Problem(str(path), line, key, "is no section", "write it as in YAML: {0: idle, 1: running}")
                )
            else:  # a key that stands there twice: which one is meant, nobody knows
                told = ((one, one.what.replace("line 1)", f"line {line})")) for one in doubtful)
                problems += [replace(one, line=line, key=f"{key}.{one.key}", what=what) for one, what in told]
                row[key] = Node(inner.value, line, None, inner.children, str(path))
        elif cell:
            number = cell.replace(",", ".") if separator == ";" and _DECIMAL_COMMA.fullmatch(cell) else cell
            row[key] = Node(plain_value(number), line, cell, file=str(path))
    return row


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict | list):
        return flow(value)
    return f"'{value}" if isinstance(value, str) and _looks_otherwise(value) else str(value)


def _looks_otherwise(text: str) -> bool:
    """A cell of this text would be taken for something else."""
    return not text or text[0] in "'{[" or plain_value(text) != text or _DECIMAL_COMMA.fullmatch(text) is not None
