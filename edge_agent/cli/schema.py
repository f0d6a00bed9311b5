"""`edge-agent schema`: the configuration's JSON Schema, for editors."""

from __future__ import annotations

from edge_agent.cli.output import AsJson, emit_json


def command(as_json: AsJson = True) -> None:
    """Print the JSON Schema of the configuration file, for the installed drivers.

    Save it and name it in the first line of the file: # yaml-language-server: $schema=edge-agent.schema.json
    """
    from edge_agent.config.schema import json_schema

    emit_json(json_schema())
