"""Routes: buffer → sinks. ``Route`` owns retry, progress and dead letters; a ``Sink`` only hands messages over.

::

    Reader ──rows──► message.build ──Message──► Window ──► Sink.send ──► broker
      ▲                                           │  ▲                     │
      └──── Buffer.progress ◄── contiguous n ─────┘  └── confirmation ◄────┘

``message`` makes messages of rows, ``window`` knows what is settled, ``route`` is the loop, ``mqtt`` the sink, and
``link`` one MQTT connection. Importing this package loads no protocol library; a route loads its sink's.
"""

from __future__ import annotations

from edge_agent.routes.message import AgentIdentity
from edge_agent.routes.route import Route, route_filter

__all__ = ["AgentIdentity", "Route", "route_filter"]
