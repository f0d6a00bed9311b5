"""edge-agent: drivers read, stations bind, the buffer keeps, routes forward.

A reading travels that line once, left to right, and never back. The contracts between the rooms of
this package stand in ``docs/contracts.md``; start reading at :mod:`edge_agent.agent`, which builds it all.
"""

__version__ = "0.1.0"
