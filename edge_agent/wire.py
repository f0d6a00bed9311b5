"""What travels between an agent and its consumers, typed, and the JSON Schema that is made of it.

The message around the records, tombstones, the retained state, and what a consumer says back (docs/contracts.md §6);
the bodies are those of ``records``; what a QMS or MES says is that of ``inbound.messages`` (docs/verdicts.md).
``edge-agent schema --records`` prints it, docs/schema/records.json is a copy.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, create_model
from pydantic.json_schema import models_json_schema

from edge_agent.inbound import messages as inbound
from edge_agent.records import BODIES, Body, Log, Ns, Seq

DIALECT = "https://json-schema.org/draft/2020-12/schema"


class Numbered(BaseModel):
    """What stands before the body's fields in a message; no body has a field of these names."""

    n: Annotated[int, Field(ge=1, lt=2**63, description="number in the stream")]
    seq: Annotated[int, Field(ge=1, lt=2**63, description="number in the log")]
    at_ns: Ns
    mono_ns: Ns
    synced: bool | None = Field(default=None, description="false: the clock was not synchronised")


class Tombstone(Body):
    """``count`` numbers from ``n`` on will not come."""

    n: Annotated[int, Field(ge=1, lt=2**63)]
    count: Annotated[int, Field(ge=1)]
    reason: str


class Envelope(Body):
    """A message: records of one stream, one source and one kind."""

    v: Literal[1]
    agent: str
    stream: str = Field(description="<log>.<route>.<lane>")
    log: Log
    boot: str
    source: str
    n: Annotated[int, Field(ge=1, description="of the first record")]
    after: Annotated[int, Field(ge=0, description="everything up to it is settled and will not come again")]
    confirm: str = Field(description="topic to confirm on; empty: nobody waits for that")
    replayed: Literal[True] | None = Field(default=None, description="history, of a backlog or a replay")
    replay: str | None = Field(default=None, description="id of the request that it answers")


class State(Body):
    """Retained: what an agent last said of itself; ``lost`` is its last will."""

    v: Literal[1]
    agent: str
    state: Literal["online", "offline", "lost"]
    log: Log
    boot: str
    host: str | None = None
    version: str
    at_ns: Ns
    seq: Seq


class Nack(Body):
    """One record that the consumer refuses for good."""

    n: Annotated[int, Field(ge=1)]
    reason: str = Field(max_length=500)


class Confirmation(Body):
    """From the consumer, after its own commit: everything up to ``upto`` is here, refused, or a tombstone."""

    v: Literal[1]
    agent: str
    stream: str
    upto: Annotated[int, Field(ge=0)]
    nack: list[Nack] = Field(default=[], max_length=10_000)


class Resume(Body):
    """From the consumer, when it is (back) there: send again what is not confirmed."""

    v: Literal[1]
    agent: str
    resume: Literal[True]


class Range(Body):
    """A range of a log, wanted once more."""

    id: str = Field(max_length=200, description="the answer's messages carry it as ``replay``")
    route: str
    log: Log
    first_seq: Annotated[int, Field(ge=1)]
    last_seq: Annotated[int, Field(ge=1)]


class ReplayRequest(Body):
    """From the consumer: records that it misses."""

    v: Literal[1]
    agent: str
    replay: Range


_SOME = Field(min_length=1)


def message_models() -> dict[str, type[BaseModel]]:
    """Kind's label, or ``tombstone`` → the whole message."""
    records: dict[str, type[BaseModel]] = {
        kind.label: create_model(f"{kind.label}_record", __base__=(Numbered, body), __doc__=body.__doc__)
        for kind, body in BODIES.items()
    }
    records["tombstone"] = Tombstone
    messages: dict[str, type[BaseModel]] = {}
    for label, record in records.items():
        fields: dict[str, Any] = {"kind": (Literal[label], ...), "records": (Annotated[list[record], _SOME], ...)}  # type: ignore[valid-type]
        about = f"Records of kind {label}."
        messages[label] = create_model(f"{label}_message", __base__=Envelope, __doc__=about, **fields)
    return messages


def json_schema() -> dict[str, Any]:
    """The schema of every message there is, and of what is in it, by name under ``$defs``."""
    messages = message_models()
    said: dict[str, type[BaseModel]] = {
        "state": State,
        "confirmation": Confirmation,
        "resume": Resume,
        "replay_request": ReplayRequest,
        "verdict": inbound.VerdictMessage,
        "heartbeat": inbound.HeartbeatMessage,
        "snapshot": inbound.SnapshotMessage,
        "snapshot_request": inbound.SnapshotRequest,
        "status": inbound.StatusMessage,
    }
    bodies = {f"{kind.label}_body": body for kind, body in BODIES.items()}
    models: list[type[BaseModel]] = [*messages.values(), *said.values(), *dict.fromkeys(bodies.values())]
    refs, defs = models_json_schema([(model, "validation") for model in models])
    definitions: dict[str, Any] = defs["$defs"]
    at = {model: refs[(model, "validation")] for model in models}
    for name, model in (bodies | said).items():
        definitions[name] = dict(at[model])
    definitions["message"] = {
        "description": "what an agent publishes; ``kind`` says which",
        "oneOf": [at[model] for model in messages.values()],
    }
    return {
        "$schema": DIALECT,
        "title": "edge-agent records",
        "description": "Whatever travels between an agent and its consumers: docs/contracts.md, sections 5 and 6",
        "anyOf": [{"$ref": f"#/$defs/{name}"} for name in ("message", *said)],
        "$defs": _plain(dict(sorted(definitions.items())), names=True),
    }


def _plain(node: Any, *, names: bool = False) -> Any:
    """Without what pydantic adds for itself: a title for each field, and null as the default of what may be absent."""
    if isinstance(node, list):
        return [_plain(item) for item in node]
    if not isinstance(node, dict):
        return node
    if names:  # of fields or definitions, of which one may well be called "title"
        return {name: _plain(value) for name, value in node.items()}
    kept = {key: value for key, value in node.items() if key != "title" and (key, value) != ("default", None)}
    return {key: _plain(value, names=key in ("properties", "$defs")) for key, value in kept.items()}
