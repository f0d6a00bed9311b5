"""What comes in over MQTT: verdicts of a QMS, and what other agents and the MES say of a unit.

::

    QMS ─ verdicts, heartbeats, snapshots ─►┌────────┐  messages   ┌────────┐  actions  ┌────────┐
    MES ─ status of units ─────────────────►│ broker ├────────────►│ Source ├──────────►│  Line  ├─► log
    other agents ─ cycle_closed, binding ──►└────────┘◄────────────└────────┘ committed └────────┘
                                              request, PUBACK

``settings`` is the config's section ``inbound:``; ``messages`` says what may come, and is the contract of
docs/verdicts.md; ``source`` holds one connection for each entry of the section. What a message does is judged in
:mod:`edge_agent.binding` (verdicts, snapshots, status). Importing this imports no protocol library.
"""
