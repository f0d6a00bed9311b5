"""The power goes: what an unlucky disk may keep of what was not synced, at many moments of one recorded run."""

from __future__ import annotations

import asyncio

from fault.power.cuts import Result, cut_power
from fault.rig import Rig
from fault.scenarios import scenario
from fault.tally import Tally


@scenario(cost_s=25)
async def power_cut(rig: Rig) -> None:
    """150 cuts; and the controls, with SQLite told to sync less, must be seen to lose."""

    def cut(synchronous: str, cuts: int) -> Result:
        return cut_power(rig.directory, synchronous, cuts=cuts, seed=rig.seed)

    result = await asyncio.to_thread(cut, "FULL", 150)
    rig.tally.add(Tally(result.accepted, result.confirmed, lost=result.lost, misbound=result.invented))
    wrong = result.refused + result.broken_ledgers + result.false_alarms
    rig.check(not wrong and not result.lost, f"nothing wrong after a cut: {result}")
    for control in ("NORMAL", "OFF"):
        result = await asyncio.to_thread(cut, control, 25)
        rig.check(result.cuts_with_loss, f"the control {control} loses something, or this test sees nothing")
        rig.notes[f"{control}_lost_in"] = f"{result.cuts_with_loss}/{result.cuts}"
