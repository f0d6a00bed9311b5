"""The demo's verdict can be bad: each loss, double and wrong serial that is put in by hand is counted."""

from __future__ import annotations

from typing import Any

import pytest

from edge_agent.demo.counting import Counts, ReceivedReading, ReceivedRecord, compare

S = 1_000_000_000
TAGS = {"press.state": ["ready", "reply", "temp"], "press.result": ["count", "force"]}


class Story:
    """Two units at OP20, one acknowledged cycle each, polls of the press between; all of it received."""

    def __init__(self) -> None:
        self.truth: list[dict[str, Any]] = []
        self.records: list[ReceivedRecord] = []
        self.readings: list[ReceivedReading] = []
        self._seq = 0
        self.log = "aaaaaaaaaaaa"
        self._reply = 0
        self.record(0, "log_opened", "agent", {"log": self.log})
        for name, tags in TAGS.items():
            device, _, group = name.partition(".")
            described = [{"name": tag, "type": "float32", "unit": ""} for tag in tags]
            self.record(0, "tagset", name, {"tagset": name, "device": device, "group": group, "tags": described})
        self.visit(10, "SN1", 1)
        self.visit(20, "SN2", 2)

    def record(self, at_s: float, kind: str, source: str, body: dict[str, Any]) -> int:
        self._seq += 1
        self.records.append(ReceivedRecord("pc", self.log, self._seq, kind, source, int(at_s * S), body))
        return self._seq

    def happened(self, at_s: float, event: str, **fields: Any) -> None:
        self.truth.append({"at_ns": int(at_s * S), "event": event, **fields})

    def poll(self, at_s: float, serial: str | None, *, cycle: str = "", bound_to: str | None = None) -> None:
        self._reply += 1
        self.happened(at_s, "reply", device="press", number=self._reply, held={"OP20.1": serial})
        sample = {"tagset": "press.state", "values": [False, self._reply, 21.5]}
        seq = self.record(at_s, "sample", "press.state", sample)
        if bound_to is not None:
            self.readings.append(ReceivedReading(bound_to, "OP20", 1, cycle, "bound", "press.temp", 21.5, seq))

    def visit(self, at_s: float, serial: str, number: int) -> None:
        where = {"station": "OP20", "position": 1}
        force = 12 + number / 1024
        self.happened(at_s, "enter", **where, serial=serial)
        self.poll(at_s + 0.1, serial)
        self.happened(at_s + 0.2, "scan", **where, device="gate", serial=serial, text=serial, heard=True)
        self.record(at_s + 0.2, "scan", "gate", {"status": "read", "raw": serial.encode().hex()})
        self.poll(at_s + 0.5, serial, cycle=f"c{number}", bound_to=serial)
        self.happened(
            at_s + 1, "work", **where, serial=serial, number=number, counter=number, values={"force": force}, ok=True,
            handshake=True,
        )  # fmt: skip
        seq = self.record(at_s + 1, "sample", "press.result", {"tagset": "press.result", "values": [number, force]})
        self.readings.append(ReceivedReading(serial, "OP20", 1, f"c{number}", "bound", "press.force", force, seq))
        body = {"position": 1, "counter": number, "binding": {"state": "bound", "serial": serial}}
        self.record(at_s + 1, "cycle_closed", "OP20", body)
        self.happened(at_s + 1.1, "ack", **where, number=number, serial=serial)
        self.happened(at_s + 2, "leave", **where, serial=serial)

    def counts(self) -> Counts:
        return compare(self.truth, self.records, self.readings)

    def where(self, kind: str, nth: int = 0) -> int:
        return [index for index, record in enumerate(self.records) if record.kind == kind][nth]

    def forget(self, kind: str, nth: int = 0) -> None:
        """Drop a record as if it had never been written: the seqs after it close up."""
        self._seq -= 1
        gone = self.records.pop(self.where(kind, nth)).seq
        self.records = [record._replace(seq=record.seq - (record.seq > gone)) for record in self.records]
        self.readings = [
            row._replace(seq=row.seq - (row.seq > gone)) for row in self.readings if row.seq != gone
        ]  # fmt: skip


@pytest.fixture
def story() -> Story:
    return Story()


def verdict(counts: Counts) -> tuple[int, int, int]:
    return counts.lost, counts.duplicates, counts.misbound


def test_a_whole_story_is_clean_and_counted(story: Story) -> None:
    counts = story.counts()
    assert verdict(counts) == (0, 0, 0), counts.details
    assert (counts.units, counts.cycles, counts.bound, counts.unbound) == (2, 2, 2, 0)
    assert counts.readings == 4 * 3 + 2 * 2
    assert counts.accepted == 2 + 2 + 4  # results, scans, replies


def test_a_record_that_did_not_arrive_is_lost(story: Story) -> None:
    del story.records[story.where("scan")]
    counts = story.counts()
    assert counts.lost == 2  # the seq, and the scan that nothing else tells of


def test_a_dropped_record_that_the_agent_admits_is_not_lost_twice(story: Story) -> None:
    seq = story.records.pop(story.where("sample")).seq
    assert story.counts().lost == 2
    story.record(
        30, "drop", "agent", {"reason": "max_backlog", "first_seq": seq, "last_seq": seq, "kinds": {"sample": 1}}
    )
    assert story.counts().lost == 1  # the reply still is not there


def test_an_acknowledged_cycle_that_was_never_recorded_is_lost(story: Story) -> None:
    story.forget("cycle_closed", 1)
    assert verdict(story.counts()) == (1, 0, 0)


def test_an_acknowledged_cycle_without_its_values_is_lost(story: Story) -> None:
    story.readings = [row for row in story.readings if row.tag != "press.force" or row.serial != "SN2"]
    assert verdict(story.counts()) == (1, 0, 0)


def test_a_result_that_was_not_taken_may_be_missing(story: Story) -> None:
    story.forget("cycle_closed", 1)
    story.truth = [event for event in story.truth if event["event"] != "ack" or event["number"] != 2]
    assert verdict(story.counts()) == (0, 0, 0), story.counts().details


def test_a_reply_missing_inside_a_log_is_lost(story: Story) -> None:
    story.forget("sample", 3)  # of SN2, before its scan
    assert verdict(story.counts()) == (1, 0, 0)


def test_a_reply_inside_a_gap_that_the_agent_recorded_was_not_accepted(story: Story) -> None:
    story.forget("sample", 3)
    details = {"cause": "lost", "device": "press", "since_ns": str(int(19.9 * S))}
    story.record(20.2, "finding", "press", {"code": "observation_gap", "details": details})
    assert verdict(story.counts()) == (0, 0, 0), story.counts().details


def test_a_scan_that_nobody_could_hear_was_not_accepted_and_a_heard_one_is_lost(story: Story) -> None:
    scan = next(event for event in story.truth if event["event"] == "scan" and event["serial"] == "SN2")
    story.forget("scan", 1)
    assert verdict(story.counts()) == (1, 0, 0)
    scan["heard"] = False
    assert verdict(story.counts()) == (0, 0, 0), story.counts().details


def test_what_happened_between_two_logs_was_not_accepted(story: Story) -> None:
    story.happened(25, "scan", station="OP20", position=1, device="gate", serial="SN3", text="SN3", heard=True)
    story.log = "bbbbbbbbbbbb"
    story.record(26, "log_opened", "agent", {"log": story.log, "previous": {"log": "aaaaaaaaaaaa", "seq": 1}})
    story.visit(30, "SN4", 3)
    assert verdict(story.counts()) == (0, 0, 0), story.counts().details
    story.happened(28.5, "scan", station="OP20", position=1, device="gate", serial="SN3", text="SN3", heard=True)
    assert verdict(story.counts()) == (1, 0, 0)


def test_a_result_under_another_serial_is_misbound(story: Story) -> None:
    index = next(i for i, row in enumerate(story.readings) if row.tag == "press.force" and row.serial == "SN2")
    story.readings[index] = story.readings[index]._replace(serial="SN1")
    assert verdict(story.counts()) == (0, 0, 1)


def test_a_polled_value_under_the_unit_before_is_misbound(story: Story) -> None:
    story.poll(21.9, "SN2", cycle="c3", bound_to="SN1")
    assert verdict(story.counts()) == (0, 0, 1)


def test_a_value_read_from_an_empty_position_is_misbound_once_it_has_a_serial(story: Story) -> None:
    story.poll(23, None, cycle="c2", bound_to="SN2")
    assert verdict(story.counts()) == (0, 0, 1)


def test_a_value_that_the_line_never_gave_is_misbound(story: Story) -> None:
    story.readings[1] = story.readings[1]._replace(value=0.0)
    counts = story.counts()
    assert (counts.lost, counts.misbound) == (1, 1)


def test_an_orphan_is_not_misbound(story: Story) -> None:
    story.readings = [row._replace(serial=None, binding_state="orphan") for row in story.readings]
    assert verdict(story.counts()) == (0, 0, 0), story.counts().details


def test_one_cycle_recorded_twice_is_a_duplicate(story: Story) -> None:
    body = story.records[story.where("cycle_closed", 1)].body
    story.record(25, "cycle_closed", "OP20", dict(body))
    assert verdict(story.counts()) == (0, 1, 0)


def test_one_value_bound_in_two_cycles_is_a_duplicate(story: Story) -> None:
    row = next(row for row in story.readings if row.tag == "press.force")
    story.readings.append(row._replace(cycle="c9"))
    assert verdict(story.counts()) == (0, 1, 0)


def test_one_key_twice_is_a_duplicate(story: Story) -> None:
    story.records.append(story.records[story.where("scan")])
    assert story.counts().duplicates == 1


def test_one_reply_stored_twice_is_a_duplicate(story: Story) -> None:
    sample = story.records[story.where("sample", 4)]
    story.record(25, "sample", "press.state", dict(sample.body))
    assert verdict(story.counts()) == (0, 1, 0)


def test_float32_as_the_agent_prints_it_is_the_plc_s_value(story: Story) -> None:
    story.readings = [
        row._replace(value=float(f"{row.value:.8g}")) if row.tag == "press.force" else row for row in story.readings
    ]
    assert verdict(story.counts()) == (0, 0, 0), story.counts().details
