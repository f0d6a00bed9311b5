"""The section ``dictionaries:``: each judged against what this line can say, so that no code is missing on the floor.

What the config itself names (stations, steps, characteristics, the defects of a command sheet) and what the agent can
say (results, ways to close) must be listed wherever a table for it exists; what else comes from outside cannot be known
beforehand.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from edge_agent.config.report import Path, Problems, nearest
from edge_agent.config.settings import StationSettings
from edge_agent.identify.commands import CommandRule
from edge_agent.identify.label import Labels
from edge_agent.model import Result
from edge_agent.routes.dictionary_settings import DictionarySettings
from edge_agent.routes.settings import RouteSettings


def judge_dictionaries(
    dictionaries: Mapping[str, DictionarySettings],
    stations: Mapping[str, StationSettings],
    routes: Mapping[str, RouteSettings],
    labels: Labels,
    problems: Problems,
) -> None:
    """Report what a dictionary lacks, and routes that name one that is not there."""
    for name, dictionary in dictionaries.items():
        path: Path = ("dictionaries", name)
        for field, words in _said(stations, labels).items():
            if field in dictionary.codes:
                _must_list((*path, "codes", field), dictionary.codes[field], words, problems)
        if dictionary.characteristics:
            collected = {one for station in stations.values() for one in station.collect}
            _must_list((*path, "characteristics"), dictionary.characteristics, collected, problems)
    for name, route in routes.items():
        if route.dictionary is not None and route.dictionary not in dictionaries:
            where: Path = ("routes", name, "dictionary")
            hint = nearest(route.dictionary, dictionaries) or "describe it in the section dictionaries:"
            problems.add(where, f"no dictionary is named {route.dictionary!r}", hint)


def _said(stations: Mapping[str, StationSettings], labels: Labels) -> dict[str, set[str]]:
    """Field -> every value, as far as is known, that records of this line can have there."""
    sheets = [rule for rule in labels.rules.values() if isinstance(rule, CommandRule)]
    return {
        "defects": {code for sheet in sheets for code in sheet.defects},
        "result": {result.value for result in Result},
        "station": set(stations),
        "step": {station.step for station in stations.values()},
    }


def _must_list(where: Path, table: Mapping[str, object], words: Iterable[str], problems: Problems) -> None:
    missing = sorted(set(words) - table.keys())
    if missing:
        hint = "add " + ", ".join(f"{word}: ..." for word in missing[:5])
        problems.add(where, f"has no word for {', '.join(missing[:5])}", hint)
