"""A route's dictionary at work: rows in, rows in the other side's words out, and a finding for each unknown code.

``put`` runs in the route's thread, ``report`` on the event loop after it. A code is reported once a run, at most
``TOLD_MAX`` of them; the records that hold it say so each for itself (refused, or marked).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from edge_agent import clock
from edge_agent.binding.draft import Draft
from edge_agent.binding.findings import report
from edge_agent.model import Record
from edge_agent.routes.dictionary import Dictionary, Unmapped

if TYPE_CHECKING:
    from edge_agent.buffer import Buffer, Row

TOLD_MAX = 256


class Words:
    """One route's. ``record`` appends records to the log, as :meth:`edge_agent.line.Line.record` does."""

    def __init__(
        self, route: str, dictionary: Dictionary, buffer: Buffer, record: Callable[[Sequence[Record]], int]
    ) -> None:
        self._route, self._dictionary = route, dictionary
        self._buffer, self._record = buffer, record
        self._told: set[Unmapped] = set()
        self._untold: list[tuple[Unmapped, int]] = []  # with the seq of a record that has it

    def put(self, rows: Sequence[Row]) -> tuple[list[Row], dict[int, str]]:
        """The rows as they go out, and (seq → reason) those that must not."""
        dictionary, out = self._dictionary, list(rows)
        refused: dict[int, str] = {}
        for index, row in enumerate(out):
            if not dictionary.concerns(row.kind):
                continue
            body, unmapped = dictionary.encoded(row.body)
            if unmapped:
                self._note(unmapped, row.seq)
                if dictionary.refuses:
                    one = unmapped[0]
                    refused[row.seq] = f"{dictionary.name} has no word for {one.field} {one.value!r}"
            out[index] = row._replace(body=body)
        return out, refused

    def report(self) -> None:
        """A finding for each code that was not known, once."""
        untold, self._untold = self._untold, []
        for one, seq in untold:
            draft = Draft(self._buffer.log, clock.now(), self._buffer.next_seq)
            details = {
                "route": self._route,
                "dictionary": self._dictionary.name,
                "field": one.field,
                "value": one.value,
            }
            text = f"{self._route}: {self._dictionary.name} has no word for {one.field} {one.value[:64]!r}"
            report(draft, "agent", "unmapped_code", text, evidence=[seq], details=details)
            self._record(draft.records)

    def _note(self, unmapped: Sequence[Unmapped], seq: int) -> None:
        for one in unmapped:
            if one not in self._told and len(self._told) < TOLD_MAX:
                self._told.add(one)
                self._untold.append((one, seq))
