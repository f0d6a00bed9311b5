"""Adding what a verb found to the technician's file: a device, or tags of one, and not a character else is changed.

The file is not written anew from data (that would lose comments, order, quotes and layout): the parser only says where
a section ends, and the new lines are put there, indented and separated as their neighbours are. BOM, line ends, mode,
owner and a symbolic link stay. What comes out is read again before it replaces the file: it must hold what was there
plus what was added, and be wrong in nothing that was not wrong before. The file is replaced whole or not at all.

A section that stands in braces gets its entry inside the braces; empty braces (``devices: {}``) and ``null`` give way
to indented lines. A file that does not exist is not made: a device alone is no configuration.
"""

from __future__ import annotations

import os
import shlex
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from edge_agent.config.load import RESERVED, load
from edge_agent.config.render import STEP, block_lines, flow
from edge_agent.config.settings import NAME, NAME_HINT
from edge_agent.config.tree import parse, read_text
from edge_agent.errors import ConfigError, Problem

TAKEN = "stands in the file already"
BOM = "\ufeff".encode()


def append_device(path: Path, name: str, section: Mapping[str, Any]) -> str:
    """Add the device to the file's section ``devices:`` (made if need be) and return the lines added.

    Raises ConfigError for a name that is taken or cannot be one, for a section that the driver does not accept, and
    for a file that cannot be read or written; the file is as it was then. Mistakes that it had before forbid nothing.
    """
    if not NAME.fullmatch(name):
        _refuse(path, f"devices.{name}", f"{name!r} cannot be the name of a device", NAME_HINT)
    if name in RESERVED:
        _refuse(path, f"devices.{name}", f"{name!r} is a name the agent uses itself", "choose another name")
    return _append(path, ("devices",), {name: section})


def append_tags(path: Path, device: str, group: str, tags: Mapping[str, Mapping[str, Any]], poll: str = "") -> str:
    """Add tags to a group of a device that stands in the file, and return the lines added; raises as the above.

    A group that is missing is made, read every ``poll`` if that is given; of a group that exists ``poll`` stays as it
    is. With ``group`` "" the tags go to the device's own ``tags:``, those that are only written.
    """
    for name in (*tags, *filter(None, [group])):
        if not NAME.fullmatch(name):
            _refuse(path, f"devices.{device}", f"{name!r} cannot be the name of a tag or group", NAME_HINT)
    data = _data(path, read_text(path))
    known = data.get("devices")
    if not isinstance(known, dict) or not isinstance(known.get(device), dict):
        _refuse(path, f"devices.{device}", "no such device stands in the file", "add the device first")
    if not group:
        return _append(path, ("devices", device, "tags"), tags)
    groups = known[device].get("groups")
    if isinstance(groups, dict) and group in groups:
        return _append(path, ("devices", device, "groups", group, "tags"), tags)
    made = ({"poll": poll} if poll else {}) | {"tags": tags}
    return _append(path, ("devices", device, "groups"), {group: made})


def _refuse(path: Path, key: str, what: str, hint: str) -> NoReturn:
    raise ConfigError([Problem(str(path), 0, key, what, hint)])


def _append(path: Path, keys: Sequence[str], entries: Mapping[str, Any]) -> str:
    text = read_text(path)
    before = _data(path, text)
    wanted = _merged(path, before, keys, entries)
    insertion = _insertion(path, text, keys, entries)
    after = insertion.into(text)
    if _data(path, after) != wanted:
        pasted = "".join(f"{line}\n" for line in block_lines(_nested(keys, entries), 0))
        _refuse(path, ".".join(keys), "its layout is too unusual to add to it", f"paste this yourself:\n{pasted}")
    _replace(path, text, after, insertion)
    return insertion.shown


def _data(path: Path, text: str) -> dict[str, Any]:
    """The file's data; mistakes in it that have a meaning all the same are not judged here."""
    found: list[Problem] = []
    root = parse(text, str(path), found)
    if root is None:
        raise ConfigError(found)
    if root.value is not None and not isinstance(root.value, dict):
        _refuse(path, "file", "is not a configuration", "is this the right file?")
    return root.value or {}


def _merged(path: Path, data: Mapping[str, Any], keys: Sequence[str], entries: Mapping[str, Any]) -> dict[str, Any]:
    """The data with the entries in it, as the parser will give them."""
    result = dict(data)
    here = result
    for index, key in enumerate(keys):
        inner = here.get(key) or {}
        if not isinstance(inner, dict):
            _refuse(path, ".".join(keys[: index + 1]), "is not a section of names", "write it as keys, indented below")
        here[key] = dict(inner)
        here = here[key]
    for name, value in entries.items():
        if name in here:
            _refuse(path, ".".join((*keys, name)), TAKEN, "choose another name, or edit it")
        here[name] = _plain(value)
    return result


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _nested(keys: Sequence[str], entries: Mapping[str, Any]) -> Mapping[str, Any]:
    for key in reversed(keys):
        entries = {key: entries}
    return entries


# --- where it goes -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Insertion:
    """What is put where; ``instead`` characters (empty braces, null) give way, and lines go to ``at`` after them."""

    at: int
    new: str
    shown: str
    instead: tuple[int, int] = (0, 0)

    def into(self, text: str) -> str:
        start, end = self.instead
        return text[:start] + text[end : self.at] + self.new + text[self.at :]

    def lines(self, text: str) -> tuple[int, int]:
        """First new line (1-based), and how many there are."""
        return text.count("\n", 0, self.at) + 1, self.new.count("\n")


def _insertion(path: Path, text: str, keys: Sequence[str], entries: Mapping[str, Any]) -> _Insertion:
    try:
        root = YAML(typ="safe", pure=True).compose(text)
    except YAMLError as error:
        raise ConfigError([Problem(str(path), 0, "syntax", "cannot be edited", str(error))]) from error
    holder: MappingNode | None = None
    key_node: Node | None = None
    node: Node | None = root
    missing = list(keys)
    while missing and isinstance(node, MappingNode):
        found = next((pair for pair in node.value if pair[0].value == missing[0]), None)
        if found is None:
            break
        holder, (key_node, node) = node, found
        missing.pop(0)
    more = _nested(missing, entries)
    if node is not None and node.value and isinstance(node, MappingNode):
        return _into_braces(node, more) if node.flow_style else _below(text, root, node, more)
    if key_node is None or holder is None:
        return _at_end(text, more)
    if holder.flow_style:
        return _instead(node, more)
    return _first_below(text, root, key_node, node, more)


def _newline(text: str) -> str:
    first = text.find("\n")
    return "\r\n" if first > 0 and text[first - 1] == "\r" else "\n"


def _lines(text: str, at: int, entries: Mapping[str, Any], column: int, step: int, *, gap: bool = False) -> _Insertion:
    """The entries as lines at ``at``, which is the beginning of a line or the end of the file."""
    newline = _newline(text)
    lines = [line + newline for line in block_lines(entries, column, step)]
    lead = "" if at == 0 or text[at - 1] == "\n" else newline
    return _Insertion(at, lead + newline * gap + "".join(lines), "".join(lines).replace("\r\n", "\n"))


def _below(text: str, root: Node, node: MappingNode, entries: Mapping[str, Any]) -> _Insertion:
    """After the last entry of an indented section, and after the comments that belong to it."""
    column = node.value[0][0].start_mark.column
    at = _after(text, node, column if column else 1)
    return _lines(text, at, entries, column, _step(node, root), gap=_gapped(text, node))


def _first_below(text: str, root: Node, key: Node, value: Node | None, entries: Mapping[str, Any]) -> _Insertion:
    """Below a key that has no value yet, or an empty one, which gives way."""
    column = key.start_mark.column
    step = _step(root)
    instead = (0, 0)
    if value is not None and value.end_mark.index > value.start_mark.index:
        instead = (value.start_mark.index, value.end_mark.index)
        while text[instead[0] - 1] == " ":
            instead = (instead[0] - 1, instead[1])
    at = _comments(text, _line_end(text, max(key.end_mark.index, instead[1])), column + 1)
    return replace(_lines(text, at, entries, column + step, step), instead=instead)


def _at_end(text: str, entries: Mapping[str, Any]) -> _Insertion:
    return _lines(text, len(text), entries, 0, STEP, gap=bool(text.strip()))


def _into_braces(node: MappingNode, entries: Mapping[str, Any]) -> _Insertion:
    shown = flow(entries)[1:-1]
    return _Insertion(node.value[-1][1].end_mark.index, f", {shown}", shown + "\n")


def _instead(value: Node | None, entries: Mapping[str, Any]) -> _Insertion:
    """In braces, the first entry of a section that is empty."""
    if value is None or value.end_mark.index == value.start_mark.index:
        at = value.end_mark.index if value is not None else 0
        return _Insertion(at, f" {flow(entries)}", flow(entries) + "\n")
    span = (value.start_mark.index, value.end_mark.index)
    return _Insertion(span[1], flow(entries), flow(entries) + "\n", span)


def _last(node: Node) -> Node:
    """The value that stands last in a node."""
    while isinstance(node, MappingNode | SequenceNode) and node.value and not node.flow_style:
        node = node.value[-1][1] if isinstance(node, MappingNode) else node.value[-1]
    return node


def _after(text: str, node: Node, column: int) -> int:
    """Behind the line where a section's last value ends, and behind the comments below that stand at its columns."""
    last = _last(node)
    end = last.end_mark.index
    if isinstance(last, ScalarNode) and last.style in ("|", ">"):
        while end > 0 and text[end - 1] in " \r\n":
            end -= 1  # a block of text ends where the next thing begins: back over what is blank
    return _comments(text, _line_end(text, end), column)


def _line_end(text: str, at: int) -> int:
    end = text.find("\n", at)
    return len(text) if end < 0 else end + 1


def _comments(text: str, at: int, column: int) -> int:
    """``at`` moved behind the comment lines that follow and are indented to ``column`` or deeper."""
    here = at
    while here < len(text):
        end = _line_end(text, here)
        line = text[here:end]
        bare = line.strip()
        if bare and (not bare.startswith("#") or len(line) - len(line.lstrip(" ")) < column):
            break
        here = end
        if bare:
            at = here
    return at


def _step(*nodes: Node) -> int:
    """How many columns the first section inside one of the nodes is indented by, which is how this file is indented."""
    for node in nodes:
        if isinstance(node, MappingNode) and not node.flow_style:
            for key, value in node.value:
                if isinstance(value, MappingNode) and value.value and not value.flow_style:
                    return max(1, int(value.value[0][0].start_mark.column) - int(key.start_mark.column))
    return STEP


def _gapped(text: str, node: MappingNode) -> bool:
    """Whether an empty line stands between the first two entries."""
    if len(node.value) < 2:
        return False
    end = _last(node.value[0][1]).end_mark.index
    between = text[_line_end(text, end) : node.value[1][0].start_mark.index]
    return any(not line.strip() for line in between.split("\n")[:-1])


# --- judging and replacing -----------------------------------------------------------------------------------


def _replace(path: Path, old: str, new: str, insertion: _Insertion) -> None:
    """Judge the new text and put it in the file's place, with its BOM, mode and owner."""
    target = path.resolve()
    try:
        raw = target.read_bytes()
        bom = BOM if raw.startswith(BOM) else b""
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".new", dir=target.parent)
    except OSError as error:
        _refuse(path, "", f"cannot be written: {error.strerror}", _way_out(error, target))
    made = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(bom + new.encode())
            file.flush()
            os.fsync(file.fileno())
        _judge(path, made, old, insertion)
        shutil.copymode(target, made)
        owner = target.stat()
        if (owner.st_uid, owner.st_gid) != (made.stat().st_uid, made.stat().st_gid):
            os.chown(made, owner.st_uid, owner.st_gid)
        if target.read_bytes() != bom + old.encode():
            _refuse(path, "", "was changed by somebody else at the same moment", "look at it, then try again")
        made.replace(target)
        _sync_folder(target.parent)
    except OSError as error:
        _refuse(path, "", f"cannot be replaced: {error.strerror}", _way_out(error, target))
    finally:
        made.unlink(missing_ok=True)


def _way_out(error: OSError, target: Path) -> str:
    if isinstance(error, PermissionError):
        return "type the same again with sudo in front"
    return f"is the disk full, or only for reading? df -h {shlex.quote(str(target.parent))}"


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _judge(path: Path, made: Path, old: str, insertion: _Insertion) -> None:
    """Raise ConfigError for what is wrong in the new text and was not before, with the lines of the old one."""
    known = {(problem.key, problem.what) for problem in _problems(path)}
    first, count = insertion.lines(old)
    worse = []
    for problem in _problems(made):
        if (problem.key, problem.what) not in known and problem.file != str(made):
            worse.append(problem)  # of a table beside it
        elif (problem.key, problem.what) not in known:
            inside = first <= problem.line < first + count
            line = 0 if inside else problem.line - count * (problem.line >= first)
            worse.append(replace(problem, file=str(path), line=line))
    if worse:
        raise ConfigError(worse)


def _problems(path: Path) -> tuple[Problem, ...]:
    try:
        load(path)
    except ConfigError as error:
        return error.problems
    return ()
