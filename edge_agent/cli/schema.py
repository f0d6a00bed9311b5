"""`edge-agent schema`: the JSON Schema of the configuration, for editors, or of the records, for consumers; or, for
people, every key of every driver."""

from __future__ import annotations

from typing import Annotated

import typer

from edge_agent.cli.output import AsJson, emit_json
from edge_agent.i18n import _


def command(
    records: Annotated[
        bool, typer.Option("--records", help=_("of what travels to consumers and back, in place of the configuration"))
    ] = False,
    devices: Annotated[
        bool, typer.Option("--devices", help=_("every key of every installed driver, as a page to read"))
    ] = False,
    as_json: AsJson = True,
) -> None:
    """Print the JSON Schema of the configuration file, for the installed drivers.

    Save it and name it in the first line of the file: # yaml-language-server: $schema=edge-agent.schema.json
    """
    if devices:
        from edge_agent.config.manual import page

        typer.echo(page(), nl=False)
        return
    if records:
        from edge_agent.wire import json_schema as schema
    else:
        from edge_agent.config.schema import json_schema as schema

    emit_json(schema())
