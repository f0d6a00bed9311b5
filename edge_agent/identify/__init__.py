"""From the bytes on a label to identifiers. Pure."""

from edge_agent.identify.patterns import identify, text_of

__all__ = ["identify", "text_of"]
