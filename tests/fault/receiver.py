"""A receiver that works but is difficult: slow, or refusing one record. The reference receiver with a callback.

python -m fault.receiver [--reject-seq N] [--reject-number N] [--slow-ms MS] [--version 3.1.1] URL --topic T --db FILE
"""

from __future__ import annotations

import argparse
import signal
import sqlite3
import time
from pathlib import Path

from edge_agent import logs
from edge_agent.receiver import Receiver, RecordRejected
from edge_agent.receiver.message import Received


def main() -> None:
    """Receive until SIGTERM."""
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("--topic", action="append")
    parser.add_argument("--db", type=Path)
    parser.add_argument("--reject-seq", type=int, default=0)
    parser.add_argument("--reject-number", type=int, default=-1, help="the sample whose first value is this")
    parser.add_argument("--slow-ms", type=float, default=0.0, help="that every record takes")
    parser.add_argument("--version", choices=("5", "3.1.1"), default="5", help="of MQTT")
    options = parser.parse_args()

    def judge(db: sqlite3.Connection, record: Received) -> None:
        if record.seq == options.reject_seq:
            raise RecordRejected("this one is not wanted")
        if record.kind == "sample" and record.body["values"][0] == options.reject_number:
            raise RecordRejected("this number is not wanted")
        if options.slow_ms:
            time.sleep(options.slow_ms / 1000)

    logs.configure("info")
    receiver = Receiver(options.url, options.topic, options.db, on_record=judge, version=options.version)
    signal.signal(signal.SIGTERM, lambda *_: receiver.stop())
    receiver.run()


if __name__ == "__main__":
    main()
