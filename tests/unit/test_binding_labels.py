"""Labels read by rules, in the binder: what is used, what is not believed, what the record says of it."""

from __future__ import annotations

from typing import Any

from edge_agent.binding.plan import Context
from edge_agent.identify.gs1 import DEFAULT_MAP, Gs1Rule
from edge_agent.identify.iso15434 import Iso15434Rule
from edge_agent.identify.label import Labels
from edge_agent.identify.transponder import Em4100Rule
from edge_agent.model import Kind
from support.binding_rig import Rig, plan, station

BOX = Gs1Rule("box", DEFAULT_MAP, ("serial",))
REEL = Iso15434Rule("reel", {"S": "serial", "1T": "lot"})
LABELS = Labels((BOX, REEL))
WHOLE = "[)>\x1e06\x1dSA1\x1d1TL7\x1e\x04"
CUT = "[)>\x1e06\x1dSA{}\x1d1TL7"
LOST_GS = "0107032069804988" + "21A1" + "10032915210526"


def rig() -> Rig:
    return Rig(plan(station(pattern=None, rules=frozenset({"box", "reel"})), labels=LABELS))


def bodies(said: list[tuple[Kind, dict[str, Any]]], kind: Kind) -> list[dict[str, Any]]:
    return [body for one, body in said if one is kind]


def test_a_label_names_the_unit_and_the_record_says_which_rule_read_it() -> None:
    one = rig()
    (scan,) = bodies(one.scan(WHOLE), Kind.SCAN)
    assert scan["label"] == "reel" and "flags" not in scan
    assert scan["identifiers"] == {"serial": "A1", "lot": "L7"} and scan["raw"] == WHOLE.encode().hex()


def test_a_repaired_label_is_used_and_reported_now_and_then() -> None:
    one = rig()
    found = []
    for number in range(16):
        said = one.scan(CUT.format(number))
        (scan,) = bodies(said, Kind.SCAN)
        assert scan["flags"] == ["missing_trailer"] and scan["identifiers"]["serial"] == f"A{number}"
        found += [body for body in bodies(said, Kind.FINDING) if body["code"] == "label_repaired"]
    assert [body["details"]["count"] for body in found] == [1, 16]


def test_a_doubtful_label_is_used_by_nobody() -> None:
    one = rig()
    said = one.scan(LOST_GS)
    (scan,) = bodies(said, Kind.SCAN)
    assert scan["flags"] == ["lost_gs"] and scan["label"] == "box" and scan["stations"] == []
    assert "identifiers" not in scan and scan["reason"] == "unmatched"
    (finding,) = bodies(said, Kind.FINDING)
    assert finding["code"] == "label_doubtful" and finding["evidence"] == [1]
    assert finding["details"]["said"]["box"]["serial"] == "A110032915210526"
    one.state(0)
    assert not one.registry.cycles


def test_what_no_rule_reads_is_unmatched() -> None:
    (finding,) = bodies(rig().scan("no label of these"), Kind.FINDING)
    assert finding["code"] == "unmatched_scan"


def test_a_badge_read_by_a_rule_is_the_operator() -> None:
    operator = Context("operator", "gate", None, None, frozenset({"badge"}))
    labels = Labels((BOX, REEL, Em4100Rule("badge", "operator")))
    one = Rig(plan(station(pattern=None, rules=frozenset({"reel"}), context=(operator,)), labels=labels))
    (scan,) = bodies(one.scan("010063E9AE25"), Kind.SCAN)
    assert scan["stations"] == ["OP20"] and scan["label"] == "badge"
    one.put_in(WHOLE)
    (opened,) = [body for _, record, body in one.records if record.kind is Kind.CYCLE_OPENED]
    assert opened["context"]["operator"]["value"] == "0006547886"
