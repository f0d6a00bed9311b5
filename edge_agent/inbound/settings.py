"""What an entry of the config's section ``inbound:`` may say: which broker, and which topic may say what."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from edge_agent.driver import Duration
from edge_agent.routes.settings import MAX_TOPIC, BrokerSettings


def _one_topic(topic: str) -> str:
    if not topic or len(topic) > MAX_TOPIC or any(sign in topic for sign in "+#\0") or topic[0] in "/$":
        raise ValueError(f"{topic[:64]!r} is no topic to hear verdicts on; write one without + and #")
    return topic


def _topic_filter(topic: str) -> str:
    levels = topic.split("/")
    hashes = "#" in topic and (levels[-1] != "#" or topic.count("#") > 1)
    pluses = any("+" in level and level != "+" for level in levels)
    if not topic or len(topic) > MAX_TOPIC or hashes or pluses or "\0" in topic or topic[0] == "$":
        raise ValueError(f"{topic[:64]!r} is no topic filter; write e.g. acme/suzhou/assembly/L3/+/cycle_closed")
    return topic


TopicFilter = Annotated[str, AfterValidator(_topic_filter)]


class InboundSettings(BrokerSettings):
    """One source of verdicts, of unit status, or of both."""

    verdicts: Annotated[str, AfterValidator(_one_topic)] | None = Field(
        default=None, description="topic of the QMS: verdicts and heartbeats"
    )
    heartbeat: Duration = Field(
        default=30.0, ge=1, le=3600, description="how often the QMS says its last decision_seq; three missing: silent"
    )
    status: list[TopicFilter] = Field(
        default=[], max_length=32, description="topics of other agents' cycle_closed and binding, and of the MES"
    )

    @model_validator(mode="after")
    def _something(self) -> InboundSettings:
        if self.verdicts is None and not self.status:
            raise ValueError("hears nothing; write verdicts: <topic>, or status: [<topic>, ...]")
        return self
