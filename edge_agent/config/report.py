"""Mistakes as problems: file:line, key path, what is wrong in plain words, what to type instead.

Turns pydantic's errors into sentences for a technician, and guesses the name he meant. A validator of ours (or of a
driver) words its ValueError as "what is wrong; what to type". Values are shown, except where they may be secret.
"""

from __future__ import annotations

import difflib
import re
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from edge_agent.config.tree import Node, PathKey
from edge_agent.errors import Problem

Path = tuple[PathKey, ...]
M = TypeVar("M", bound=BaseModel)

SECRET_KEY = re.compile(
    r"(.*[_-])?(password|passwd|passphrase|pwd|secret|token|api_?key|private_?key|credentials?)", re.I
)
PLAIN_SECRET = ("a secret must not stand in the config", "write {file: /path/to/secret} or {env: NAME}")
UNCLEAR_SECRET = ("does not say where the secret is kept", "write either {file: /path/to/secret} or {env: NAME}")
_USERINFO = re.compile(r"://[^/\s]*@")
MAX_SHOWN = 40  # characters of a value
MAX_NAMES = 12  # in a list to choose from
MAX_ROUNDS = 10  # of cutting out what is wrong in a section


@dataclass(slots=True)
class Problems:
    """Collects what is wrong with one file; a mistake found twice is told once."""

    file: str
    root: Node
    found: list[Problem] = field(default_factory=list)
    _seen: set[tuple[int, str, str]] = field(default_factory=set)

    def add(self, path: Path, what: str, hint: str = "") -> None:
        """A mistake at ``path``; if the path does not exist, at the line of its nearest ancestor."""
        node = self.root.find(path)
        line = node.line
        what, hint = (_USERINFO.sub("://***@", text) for text in (what, hint))
        key = ".".join(str(part) for part in path) or "file"
        if (line, key, what) not in self._seen:
            self._seen.add((line, key, what))
            self.found.append(Problem(node.file or self.file, line, key, what, hint))


def nearest(name: str, valid: Iterable[str], prefix: str = "") -> str:
    """A hint: the valid name that is most like ``name``, or the valid names; shown with ``prefix``."""
    names = sorted(valid)
    alike = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if not alike:
        folded = {one.lower(): one for one in names}
        alike = [folded[name.lower()]] if name.lower() in folded else []
    if alike:
        return f"did you mean {prefix}{alike[0]}?"
    if not names:
        return ""
    shown = ", ".join(prefix + one for one in names[:MAX_NAMES])
    return f"choose from {shown}" + (f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else "")


def together(place: str, *groups: str) -> str:
    """The hint to a tag in the group ``place`` that must be read with one of ``groups`` ("device.group"), the first
    the best. Only within its device a tag can be moved."""
    device = place.partition(".")[0]
    near = [group for group in dict.fromkeys(groups) if group.partition(".")[0] == device]
    if near:
        return f"move it to {' or to '.join(near)}"
    return f"it is on another device: name a tag of {groups[0]}"


def split_hint(text: str) -> tuple[str, str]:
    """ "what; what to type" as its two parts."""
    what, _, hint = text.partition("; ")
    return what, hint


# --- validating a section ------------------------------------------------------------------------------------


def validate(
    model: type[M], path: Path, data: Any, problems: Problems, fill: Mapping[str, Any] | None = None
) -> tuple[M | None, set[Path]]:
    """The section at ``path`` as its model, and the paths in it that were wrong (none: it was right as written).

    What is wrong is reported and cut out, then the rest is tried again, so that mistakes which only show
    together are found in the same run. ``fill`` stands in for needed keys that are missing or wrong, by key.
    None when too little is left.
    """
    cut: set[Path] = set()
    for _ in range(MAX_ROUNDS):
        try:
            return model.model_validate(data), cut
        except ValidationError as error:
            details = error.errors(include_url=False)
        for detail in details:
            where = _tree_path(path, detail["loc"], detail["type"], problems.root)
            if not any(_touches(where, (*path, *part)) for part in cut):
                problems.add(where, *_words(model, detail, where, problems.root.find(where)))
        if not isinstance(data, dict):
            break
        data = _copy(data)
        if not all(_mended(data, detail, fill or {}, cut) for detail in details):
            break
    return None, cut


def _touches(where: Path, cut: Path) -> bool:
    """Whether what is wrong at ``where`` may only be so because ``cut`` was cut out."""
    shorter = min(len(where), len(cut))
    return where[:shorter] == cut[:shorter]


def _mended(data: dict[str, Any], detail: ErrorDetails, fill: Mapping[str, Any], cut: set[Path]) -> bool:
    """Cuts what is wrong out of ``data``, or fills in what is missing; False when neither can be done."""
    loc = list(detail["loc"])
    missing = str(loc.pop()) if detail["type"] == "missing" else ""
    trail: list[str] = []
    holder, parent = data, data
    for part in loc:
        inner = parent.get(str(part))
        if inner is None and str(part) not in parent:
            continue  # the name of a union's member, or cut already
        trail.append(str(part))
        holder = parent
        if not isinstance(inner, dict):
            break
        parent = inner
    if missing in fill:
        parent[missing] = fill[missing]
        cut.add((*trail, missing))
        return True
    if not trail:
        return False
    if trail[-1] in fill and tuple(trail) not in cut:
        holder[trail[-1]] = fill[trail[-1]]
    else:
        holder.pop(trail[-1])
    cut.add(tuple(trail))
    return True


def _tree_path(base: Path, loc: Sequence[PathKey], kind: str, root: Node) -> Path:
    """Pydantic's location as a path of the file: it also names the members of unions, which are no keys."""
    path, node = list(base), root.find(base)
    for index, part in enumerate(loc):
        child = node.children.get(part) or node.children.get(str(part))
        if child is not None:
            path.append(part)
            node = child
        elif kind == "missing" and index == len(loc) - 1:
            path.append(part)
    return tuple(path)


def _copy(data: Any) -> Any:
    return {key: _copy(value) for key, value in data.items()} if isinstance(data, dict) else data


# --- pydantic's errors in plain words ------------------------------------------------------------------------


def _words(model: type[BaseModel], detail: ErrorDetails, where: Path, node: Node) -> tuple[str, str]:
    kind, loc, context = detail["type"], detail["loc"], detail.get("ctx", {})
    if kind == "extra_forbidden":
        return "unknown key", nearest(str(loc[-1]), _keys_at(model, loc[:-1]))
    if kind == "missing":
        hint = (
            f"write {loc[-1]}: … ({description})" if (description := _describe(model, loc)) else f"write {loc[-1]}: …"
        )
        return "is missing", hint
    if node.value is None and detail.get("input") is None:
        return "has no value", f"write one after the colon, or take the key away{_explained(model, loc)}"
    if any(SECRET_KEY.fullmatch(str(part)) for part in where):
        return UNCLEAR_SECRET if isinstance(node.value, dict) else PLAIN_SECRET
    if kind in ("value_error", "assertion_error"):
        what, hint = split_hint(str(context.get("error", detail["msg"])))
        return what, hint or _describe(model, loc)
    if kind == "literal_error":
        return _literal(node, [str(one) for one in re.findall(r"'([^']*)'", str(context.get("expected", "")))], context)
    if kind == "string_pattern_mismatch" and loc and loc[-1] == "[key]":
        return f"{str(where[-1])!r} cannot be a name", "use letters, digits, _ and -, e.g. force_1"
    if kind == "string_pattern_mismatch":
        return f"{_shown(node)} does not have the right form", _describe(model, loc) or f"it must match {context}"
    words = _WORDS.get(kind)
    if words is None:
        return detail["msg"][:1].lower() + detail["msg"][1:], _describe(model, loc)
    return words(node, context)


def _shown(node: Node) -> str:
    if isinstance(node.value, dict):
        return "a section"
    if isinstance(node.value, list):
        return "a list"
    text = node.text or ""
    return repr(text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "…")


def _text(node: Node, context: Mapping[str, Any]) -> tuple[str, str]:
    if isinstance(node.value, dict | list):
        return f"{_shown(node)} stands where a text is due", "write one value"
    kind = "true/false" if isinstance(node.value, bool) else "a number"
    hint = f"begin the cell with an apostrophe: '{node.text}" if node.file else f'put it in quotes: "{node.text}"'
    return f"{node.text} is {kind}, and a text is due", hint


def _literal(node: Node, expected: list[str], context: Mapping[str, Any]) -> tuple[str, str]:
    if not isinstance(node.value, str) and node.text in expected:
        return _text(node, context)
    if not expected:
        return f"{_shown(node)} is not allowed here", f"write {context.get('expected', '')}".lower()
    return f"{_shown(node)} is not allowed here", nearest(node.text or "", expected)


def _bound(hint: str, key: str) -> Callable[[Node, Mapping[str, Any]], tuple[str, str]]:
    return lambda node, context: (f"{_shown(node)} is out of range", hint.format(context[key]))


def _simple(due: str, hint: str) -> Callable[[Node, Mapping[str, Any]], tuple[str, str]]:
    return lambda node, context: (f"{_shown(node)} stands where {due} is due", hint)


_WORDS: dict[str, Callable[[Node, Mapping[str, Any]], tuple[str, str]]] = {
    "string_type": _text,
    "path_type": _text,
    "bool_type": _simple("true or false", "write true or false, without quotes"),
    "int_type": _simple("a whole number", "write digits only, without quotes"),
    "int_from_float": _simple("a whole number", "write digits only, without quotes"),
    "float_type": _simple("a number", "write a number, without quotes or unit"),
    "finite_number": _simple("a finite number", "write a number, or null for none"),
    "list_type": _simple("a list", "write [one, two]"),
    "tuple_type": _simple("a list", "write [one, two]"),
    "dict_type": _simple("a section of keys", "write {key: value}, or keys indented below"),
    "model_type": _simple("a section of keys", "write {key: value}, or keys indented below"),
    "model_attributes_type": _simple("a section of keys", "write {key: value}, or keys indented below"),
    "greater_than": _bound("write a value above {}", "gt"),
    "greater_than_equal": _bound("write a value of at least {}", "ge"),
    "less_than": _bound("write a value below {}", "lt"),
    "less_than_equal": _bound("write a value of at most {}", "le"),
    "string_too_short": lambda node, context: ("is too short", f"at least {context['min_length']} characters"),
    "string_too_long": lambda node, context: ("is too long", f"at most {context['max_length']} characters"),
    "too_short": lambda node, context: ("has too few entries", f"at least {context['min_length']}"),
    "too_long": lambda node, context: ("has too many entries", f"at most {context['max_length']}"),
    "union_tag_invalid": lambda node, context: _literal(
        node, re.findall(r"'([^']*)'", str(context.get("expected_tags", ""))), context
    ),
    "union_tag_not_found": lambda node, context: (f"{context['discriminator']} is missing", "write it"),
}


# --- what a model would have allowed -------------------------------------------------------------------------


def _keys_at(model: type[BaseModel], loc: Sequence[PathKey]) -> list[str]:
    """The keys that are valid in the section at ``loc``."""
    return [key for inner in _models_at(model, loc) for key in _fields(inner)]


def _describe(model: type[BaseModel], loc: Sequence[PathKey]) -> str:
    """The description of the field at ``loc``, as a hint."""
    for inner in _models_at(model, loc[:-1]):
        found = _fields(inner).get(str(loc[-1])) if loc else None
        if found is not None and found.description:
            return str(found.description)
    return ""


def _explained(model: type[BaseModel], loc: Sequence[PathKey]) -> str:
    description = _describe(model, loc)
    return f" ({description})" if description else ""


def _fields(model: type[BaseModel]) -> dict[str, Any]:
    return {info.alias or name: info for name, info in model.model_fields.items()}


def _models_at(model: type[BaseModel], loc: Sequence[PathKey]) -> list[type[BaseModel]]:
    """The models that can stand at ``loc`` below ``model``; parts of ``loc`` that name union members change nothing."""
    here: list[Any] = [model]
    for part in loc:
        below: list[Any] = []
        for annotation in here:
            if isinstance(annotation, type) and issubclass(annotation, BaseModel):
                info = _fields(annotation).get(str(part))
                below += _unwrapped(info.annotation) if info is not None else []
            elif (
                get_origin(annotation) in (dict, Mapping)
                or getattr(get_origin(annotation), "__name__", "") == "Mapping"
            ):
                below += _unwrapped(get_args(annotation)[1])
            elif get_origin(annotation) in (list, tuple) and isinstance(part, int):
                below += _unwrapped(get_args(annotation)[0])
        here = below or here
    return [one for one in here if isinstance(one, type) and issubclass(one, BaseModel)]


def _unwrapped(annotation: Any) -> list[Any]:
    """The members of unions and the types inside Annotated."""
    if get_origin(annotation) in (Union, types.UnionType):
        return [one for member in get_args(annotation) for one in _unwrapped(member)]
    if hasattr(annotation, "__metadata__"):
        return _unwrapped(get_args(annotation)[0])
    return [annotation]
