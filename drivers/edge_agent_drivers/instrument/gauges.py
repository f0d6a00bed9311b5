"""Gauges: Mitutoyo's Digimatic by ID-H or a multiplexer, and Sylvac's. Pure: no I/O, no clock.

Mitutoyo: ``GN01,+0016.2345`` is the value of the gauge with address 01 (GX: maximum, GM: minimum, GW: run-out), asked
with ``GA01``; ``CH01`` and ``DH01`` say that a command was carried out. A multiplexer sends ``01A+0016.234`` for its
channel 01. Sylvac: sign, digits, point, digits; behind it the judgement ``<``, ``=`` or ``>`` where limits are set;
``ERR3`` is out of range; ``SY203.10`` says what it is when it is switched on. Neither sends the unit.
"""

from __future__ import annotations

import re

from edge_agent_drivers.instrument.message import Message

_GAUGE = re.compile(r"G([NXMW])(\d\d),([+-]\d+(?:\.\d+)?)", re.ASCII)
_CHANNEL = re.compile(r"(\d\d)A([+-]\d+(?:\.\d+)?)", re.ASCII)
_DONE = re.compile(r"[CD]H(\d\d)(?:,[-+A-Z0-9.]*)?", re.ASCII)
_MODES = {"N": "normal", "X": "max", "M": "min", "W": "runout"}

_LENGTH = re.compile(r"([+-]? *\d+(?:\.\d+)?) *([<=>])?", re.ASCII)
_ERRORS = {"0": "error of the sensor", "1": "the gauge does not know the command", "2": "parity error"}
_ERRORS |= {"3": "out of range"}


def mitutoyo(frame: bytes) -> Message | None:
    """What one line of a Digimatic gauge says; None for what is none."""
    text = frame.decode("latin-1").strip()
    if match := _GAUGE.fullmatch(text):
        mode, address, digits = match.groups()
        return Message(text, {"value": digits}, {"mode": _MODES[mode]}, address=int(address))
    if match := _CHANNEL.fullmatch(text):
        return Message(text, {"value": match[2]}, address=int(match[1]))
    if match := _DONE.fullmatch(text):
        return Message(text, answers="done", address=int(match[1]))
    return None


def sylvac(frame: bytes) -> Message | None:
    """What one line of a Sylvac gauge says; None for what is none."""
    text = frame.decode("latin-1").strip()
    if match := _LENGTH.fullmatch(text):
        digits, judgement = match.groups()
        return Message(text, {"value": digits.replace(" ", "")}, {"judgement": judgement} if judgement else {})
    if match := re.fullmatch(r"ERR *(\d{1,2})", text, re.ASCII):
        number = match[1].lstrip("0") or "0"
        words = _ERRORS.get(number, "error of the gauge")
        return Message(text, problem=f"{words} (ERR{number})", answers="E" if number in "12" else "", good=False)
    if re.fullmatch(r"SY[0-9A-Za-z.\x20]{1,40}", text, re.ASCII):
        return Message(text, answers="on")
    return None
