"""Command barcodes: an operator without a keyboard enters results by scanning a printed sheet.

The words are PASS, FAIL, END, CANCEL, REWORK and DEFECT:<code>, exactly, behind the prefix of the config: a prefix that
no label of a product begins with (the default is none) keeps a part number PASS from being a command.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from edge_agent.identify.label import Label, Printed, Unread

COMMANDS = ("PASS", "FAIL", "END", "CANCEL", "REWORK")
DEFECT = "DEFECT"
DEFECT_CODE = re.compile(r"[A-Za-z0-9._-]{1,32}")


@dataclass(frozen=True, slots=True)
class CommandRule:
    """``format: command``. ``defects``: code -> what it means; without any, every code is taken."""

    name: str
    prefix: str
    defects: Mapping[str, str]

    @property
    def gives(self) -> frozenset[str]:
        """The kinds of identifiers that its labels can have."""
        return frozenset({"command", "defect"})

    def read(self, printed: Printed) -> Label | Unread:
        """The command, and the code of a defect."""
        text = printed.content
        if not text.startswith(self.prefix):
            return Unread(f"it does not begin with {self.prefix}")
        word, colon, code = text[len(self.prefix) :].partition(":")
        if word in COMMANDS and not colon:
            return Label(self.name, {"command": word})
        if word != DEFECT or not DEFECT_CODE.fullmatch(code):
            return Unread("it is no command")
        if self.defects and code not in self.defects:
            return Unread(f"the configuration names no defect {code}")
        return Label(self.name, {"command": DEFECT, "defect": code})

    def sheet(self) -> tuple[tuple[str, str], ...]:
        """What is to be printed: each text, and what to write beside it."""
        plain = [(self.prefix + word, word) for word in COMMANDS]
        return (*plain, *((f"{self.prefix}{DEFECT}:{code}", f"{code}  {text}") for code, text in self.defects.items()))

    def examples(self) -> tuple[bytes, ...]:
        """Every command, and a defect."""
        code = next(iter(self.defects), "D12")
        return tuple(f"{self.prefix}{word}".encode() for word in (*COMMANDS, f"{DEFECT}:{code}"))
