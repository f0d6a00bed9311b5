"""What we call something, as the other side calls it: names, codes, units and number formats, one route at a time.

The log keeps our words; a dictionary is applied on the way out, record by record, in the route's own thread. It decodes
and encodes every record of ``KINDS`` once more: about 15 µs each, which a route without a dictionary does not pay.
Samples and tagsets go out as they are: they are raw, and what is judged of them is in ``cycle_closed``.

- ``codes``: the value of a field, wherever it stands at the top of a body, in its ``binding``, or in its context (as
  ``context.operator``); each value of a list. A field without a table is passed as it is; with one, every value must be
  listed.
- ``characteristics``: name, unit, scale and format of what was collected, with its limits; also in ``missing``. If the
  section is there, every characteristic must be in it.
- ``fields``: the keys of the body themselves, last.

What is not listed is never passed in silence: it is told to the caller, who raises a finding, and the record is either
refused (a dead letter that can be retried once the dictionary knows the code) or marked with what was unmapped.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson

from edge_agent.model import Kind
from edge_agent.routes.dictionary_settings import CharacteristicName, DictionarySettings

KINDS = frozenset(
    (
        Kind.CYCLE_OPENED, Kind.CYCLE_CLOSED, Kind.BINDING, Kind.IDENTIFIER, Kind.MATERIAL, Kind.GENEALOGY, Kind.GATE,
        Kind.HOLD_ACK, Kind.FINDING, Kind.UNIT_STATUS,
    )
)  # fmt: skip
_NUMBERS = frozenset(int(kind) for kind in KINDS)


class Unmapped(NamedTuple):
    """A value that the dictionary does not list. ``field``: as ``codes`` names it, or ``characteristics``."""

    field: str
    value: str


@dataclass(frozen=True, slots=True)
class Translated:
    """A body in the other side's words, and what had none."""

    body: dict[str, Any]
    unmapped: tuple[Unmapped, ...]


class Dictionary:
    """A compiled dictionary of the config. Pure; may be used from any thread."""

    def __init__(self, name: str, settings: DictionarySettings) -> None:
        self.name = name
        self.refuses = settings.unmapped == "refuse"
        self._label = f"{name}@{settings.version}"
        self._codes = {field: table for field, table in settings.codes.items() if not field.startswith("context.")}
        self._context = {
            field.removeprefix("context."): table
            for field, table in settings.codes.items()
            if field.startswith("context.")
        }
        self._characteristics = settings.characteristics
        self._fields = settings.fields

    def concerns(self, kind: int) -> bool:
        """Whether records of this kind are translated at all."""
        return kind in _NUMBERS

    def encoded(self, body: bytes) -> tuple[bytes, tuple[Unmapped, ...]]:
        """A stored body, translated, and what was not listed."""
        translated = self.translate(orjson.loads(body))
        return orjson.dumps(translated.body), translated.unmapped

    def translate(self, body: Mapping[str, Any]) -> Translated:
        """``body`` in the other side's words; what is not listed stays as it is, and is named in ``unmapped``."""
        unmapped: list[Unmapped] = []
        said = dict(body)
        self._translate_codes(said, unmapped)
        if isinstance(said.get("binding"), dict):
            said["binding"] = dict(said["binding"])
            self._translate_codes(said["binding"], unmapped)
        if self._context and isinstance(said.get("context"), dict):
            said["context"] = {name: self._item(name, item, unmapped) for name, item in said["context"].items()}
        if self._characteristics:
            if "collected" in said:
                said["collected"] = [self._collected(item, unmapped) for item in said["collected"]]
            if "missing" in said:
                said["missing"] = [self._name(name, unmapped) for name in said["missing"]]
        if self._fields:
            said = {self._fields.get(key, key): value for key, value in said.items()}
        said["dictionary"] = self._label
        found = tuple(dict.fromkeys(unmapped))
        if found:
            said["unmapped"] = [f"{one.field}={one.value}" for one in found]
        return Translated(said, found)

    def _translate_codes(self, said: dict[str, Any], unmapped: list[Unmapped]) -> None:
        for field, table in self._codes.items():
            value = said.get(field)
            if isinstance(value, list):
                said[field] = [_code(field, table, one, unmapped) for one in value]
            elif value is not None and not isinstance(value, dict):
                said[field] = _code(field, table, value, unmapped)

    def _item(self, name: str, item: Any, unmapped: list[Unmapped]) -> Any:
        table = self._context.get(name)
        if table is None or item.get("value") is None:
            return item
        return item | {"value": _code(f"context.{name}", table, item["value"], unmapped)}

    def _name(self, name: str, unmapped: list[Unmapped]) -> str:
        """Of what is missing; a material or a component that is missing is none of ours."""
        known = self._characteristics.get(name)
        if known is None and ":" not in name:
            unmapped.append(Unmapped("characteristics", name))
        return name if known is None else known.name

    def _collected(self, item: dict[str, Any], unmapped: list[Unmapped]) -> dict[str, Any]:
        known = self._characteristics.get(item["name"])
        if known is None:
            unmapped.append(Unmapped("characteristics", item["name"]))
            return item
        said = item | {"name": known.name, "unit": item["unit"] if known.unit is None else known.unit}
        return said | {key: _number(item[key], known) for key in ("value", "low", "high") if key in item}


def _code(field: str, table: Mapping[str, str | int], value: Any, unmapped: list[Unmapped]) -> Any:
    text = _text(value)
    found = table.get(text)
    if found is None:
        unmapped.append(Unmapped(field, text))
        return value
    return found


def _text(value: Any) -> str:
    """A value as a key of the config's YAML: true and false as there, whole numbers without a point."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def _number(value: Any, how: CharacteristicName) -> Any:
    """A number in the other side's unit and format; what is no number stays as it is."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return value
    scaled = value if how.scale == 1.0 else value * how.scale
    if how.decimals is None:
        return scaled if isinstance(scaled, int) else float(f"{scaled:.12g}")  # no digits that the scale made up
    text = f"{scaled:.{how.decimals}f}"
    return text.replace(".", how.decimal_sign)
