"""The layouts of the standard's own structures (Range, EUInformation …), for servers that do not describe them.

Their ids are the same on every server, so what asyncua knows of them may be believed anywhere; unlike those of other
namespaces, which are only what one server says.
"""

from __future__ import annotations

from dataclasses import fields
from enum import IntEnum
from functools import cache
from typing import Any

from asyncua import ua
from asyncua.ua.ua_binary import get_safe_type_hints
from asyncua.ua.uatypes import type_from_list, type_is_list, type_is_optional

from edge_agent_drivers.opcua.binary import EXTENSION_OBJECT, INT32
from edge_agent_drivers.opcua.structures import Form, Layout, Member, Structures, TypeId

MOST_STEPS = 16


def learn_standard(structures: Structures, encoding: TypeId) -> bool:
    """Add the layout behind an encoding of namespace 0, and those of its fields; False when there is none."""
    known: dict[Any, type] = ua.extension_objects_by_typeid
    made = known.get(ua.NodeId(encoding[1])) if encoding[0] == 0 else None
    if made is None:
        return False
    layouts = _layouts(made)
    structures.by_type |= layouts
    if made.__name__ not in {name for _, name in layouts}:
        return False
    structures.by_encoding[encoding] = layouts[_id(made)]
    return True


def _id(made: type) -> TypeId:
    return (0, made.__name__)  # no server has it: its own types of namespace 0 have numbers


@cache
def _layouts(made: type, depth: int = 0) -> dict[TypeId, Layout]:
    """The layout of a class of asyncua and of all that it holds; {} when it cannot be stated."""
    found: dict[TypeId, Layout] = {}
    members = []
    try:
        hints = get_safe_type_hints(made, {"ua": ua})
    except (AttributeError, NameError):
        return {}  # asyncua itself cannot say what some classes hold
    for each in fields(made):
        kind: Any = hints[each.name]
        if type_is_optional(kind) or depth > MOST_STEPS or each.name == "Encoding":
            return {}  # a mask of its own: rare, and not worth a guess
        dimensions = 1 if type_is_list(kind) else 0
        kind = type_from_list(kind) if dimensions else kind
        name = getattr(kind, "__name__", "")
        if name in ua.VariantType.__members__:
            members.append(Member(each.name, ua.VariantType[name].value, None, dimensions))
        elif isinstance(kind, type) and issubclass(kind, IntEnum):
            members.append(Member(each.name, INT32, None, dimensions))
        elif name in ("Char", "CharArray"):
            members.append(Member(each.name, ua.VariantType.String.value, None, dimensions))
        else:
            inner = (
                _layouts(kind, depth + 1) if isinstance(kind, type) and hasattr(kind, "__dataclass_fields__") else {}
            )
            if not inner:
                return {}
            found |= inner
            members.append(Member(each.name, EXTENSION_OBJECT, _id(kind), dimensions))
    found[_id(made)] = Layout(Form.PLAIN, tuple(members))
    return found
