"""What a consumer of an agent's records needs: take them, commit them, confirm them. Ten lines for an MES developer::

    from edge_agent.receiver import Receiver, RecordRejected

    def on_record(db, record):                       # in the transaction that stores the record
        if record.kind == "cycle_closed" and record.body["result"] == "Failed":
            db.execute("INSERT INTO rework_order VALUES (?, ?)", (record.body["cycle"], record.at_ns))

    Receiver("mqtt://broker:1883", topics="acme/#", database="records.db", on_record=on_record).run()

``message`` reads what comes, as hostile as it may be; ``tracker`` knows which numbers of a stream are here; ``store``
is one transaction on the ``database``, ``sqlite`` or ``postgres``; ``gaps`` asks for what did not come; ``ledger``
proves what came; ``receiver`` is the loop. docs/receiver.md describes the contract from the consumer's side.
"""

from __future__ import annotations

from edge_agent.receiver.gaps import Gap
from edge_agent.receiver.ledger import Finding, Proof, verify
from edge_agent.receiver.message import Received
from edge_agent.receiver.receiver import Receiver
from edge_agent.receiver.store import RecordRejected

__all__ = ["Finding", "Gap", "Proof", "Received", "Receiver", "RecordRejected", "verify"]
