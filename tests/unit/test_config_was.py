"""``was:`` names a former route: one that is gone, and that nobody else goes on for."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_agent.config import load
from edge_agent.errors import ConfigError

ROUTE = "{sink: mqtt, url: 'mqtt://127.0.0.1', start: now, send: [scan]"
HEAD = """
agent: {id: pc1, location: {enterprise: a, site: b, area: c, line: d}, data_dir: /tmp/x}
devices:
  sim: {driver: simulated, groups: {state: {poll: 1s, tags: {x: {}}}}}
routes:
"""


def config(folder: Path, **routes: str) -> Path:
    path = folder / "line.yaml"
    path.write_text(HEAD + "".join(f"  {name}: {ROUTE}{more}}}\n" for name, more in routes.items()))
    return path


def problems(path: Path) -> list[str]:
    with pytest.raises(ConfigError) as error:
        load(path)
    return [problem.what for problem in error.value.problems]


def test_was_names_a_route_that_is_gone(tmp_path: Path) -> None:
    assert load(config(tmp_path, plant=", was: mes")).routes["plant"].was == "mes"
    assert problems(config(tmp_path, mes="", plant=", was: mes")) == ["'mes' is still a route"]
    assert problems(config(tmp_path, plant=", was: plant")) == ["'plant' is still a route"]


def test_only_one_route_goes_on_where_another_stood(tmp_path: Path) -> None:
    assert problems(config(tmp_path, one=", was: mes", two=", was: mes")) == ["two routes were 'mes'"] * 2
