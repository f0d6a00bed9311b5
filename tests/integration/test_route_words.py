"""A route with a dictionary, over a real broker: its words go out, an unknown code is a finding, and is retried."""

from __future__ import annotations

import contextlib
from pathlib import Path

from edge_agent import clock
from edge_agent.buffer import Buffer, open_readonly
from edge_agent.model import Kind, Record
from edge_agent.routes.dictionary import Dictionary
from edge_agent.routes.dictionary_settings import DictionarySettings
from edge_agent.routes.words import Words
from support.delivery import Watcher, buffer, running, scenario, settings, settled, until
from support.mosquitto import Mosquitto


def words(store: Buffer, unmapped: str, **results: str) -> Words:
    dictionary = DictionarySettings.model_validate(
        {"version": "1", "codes": {"result": results}, "fields": {"serial": "SerialNo"}, "unmapped": unmapped}
    )
    return Words("mes", Dictionary("qms", dictionary), store, store.append)


def said(result: str) -> Record:
    body = {"serial": "SN1", "step": "press", "result": result, "said_by": "mes"}
    return Record(Kind.UNIT_STATUS, "agent", clock.now(), body)


@scenario
async def test_an_unknown_code_is_a_finding_and_a_dead_letter_until_it_is_known(tmp_path: Path) -> None:
    with Mosquitto(tmp_path) as broker, Watcher(broker.url) as watcher:
        async with buffer(tmp_path) as store:
            route = settings(broker.url, send=["unit_status", "finding"], confirm="broker")
            store.append([said("Passed"), said("Failed"), said("Failed"), said("Passed")])
            async with running(store, route, words=words(store, "refuse", Passed="OK")) as mes:
                await until(lambda: len(watcher.records("finding")) == 1)
                await until(lambda: len(watcher.records("unit_status")) == 2)
                await settled(mes, store)
                assert [one["result"] for one in watcher.records("unit_status")] == ["OK", "OK"]
                assert {one["SerialNo"] for one in watcher.records("unit_status")} == {"SN1"}
                (finding,) = watcher.records("finding")
                assert finding["code"] == "unmapped_code"
                assert finding["details"] == {
                    "route": "mes", "dictionary": "qms", "field": "result", "value": "Failed",
                }  # fmt: skip
                assert mes.status()["dead"] == 2, "told once, refused each time"
            with contextlib.closing(open_readonly(store.files.data_dir)) as archive:
                letters = archive.dead_letters("mes")
            assert {letter.reason for letter in letters} == {"qms has no word for result 'Failed'"}
            seqs = [letter.seq for letter in letters]
            store.replay("mes", purpose="retry", first_seq=seqs[0], last_seq=seqs[-1], seqs=seqs)
            async with running(store, route, words=words(store, "refuse", Passed="OK", Failed="NG")) as mes:
                await until(lambda: len(watcher.records("unit_status")) == 4)
                await settled(mes, store)
            assert [one["result"] for one in watcher.records("unit_status")][2:] == ["NG", "NG"]


@scenario
async def test_marked_records_go_out_and_say_what_had_no_word(tmp_path: Path) -> None:
    with Mosquitto(tmp_path) as broker, Watcher(broker.url) as watcher:
        async with buffer(tmp_path) as store:
            route = settings(broker.url, send=["unit_status"], confirm="broker")
            store.append([said("Failed"), said("Passed")])
            async with running(store, route, words=words(store, "mark", Passed="OK")) as mes:
                await until(lambda: len(watcher.records("unit_status")) == 2)
                await settled(mes, store)
            marked, clean = watcher.records("unit_status")
            assert (marked["result"], marked["unmapped"]) == ("Failed", ["result=Failed"])
            assert clean["result"] == "OK" and "unmapped" not in clean
