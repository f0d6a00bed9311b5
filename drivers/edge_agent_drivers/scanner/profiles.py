"""What the makers' readers say and understand, as data: one :class:`Profile` each. Pure, and no settings in it.

A profile is the factory setting of a family. Every key of the config replaces the profile's, as every one of these
readers can be set otherwise. ``skip`` makes CR and CR LF one: whichever the reader sends, a code ends at its CR.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

ProfileName = Literal["generic", "keyence", "cognex", "honeywell", "datalogic", "omron", "zebra"]

NO_READ = ("NOREAD", "NO READ", "ERROR", "NR", "\x18")


@dataclass(frozen=True, slots=True)
class Profile:
    """One family of readers. Patterns are regular expressions that a whole frame must fit."""

    end: str = "\r"
    skip: str = "\n"  # dropped where a frame begins
    no_read: tuple[str, ...] = NO_READ
    failed: str = ""  # pattern: the reader says why it could not read; told as no_read
    on: str = ""  # command that begins a read
    off: str = ""  # command that ends one
    answers: bool = False  # it answers these commands, unless it is set otherwise
    taken: str = ""  # pattern of a good answer; {command} stands for the command without its control characters
    refused: str = ""  # pattern of a bad one, its group the reason's code
    reasons: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    dmcc: bool = False  # Cognex' extended answers, which wrap codes too


_KEYENCE_REASONS = {
    "00": "it does not know this command",
    "01": "the command has too many or too few parameters",
    "02": "the first parameter is out of range",
    "03": "the second parameter is out of range",
    "13": "there is no such parameter bank",
    "20": "it cannot do that now: it is reading already, or being set up",
    "21": "its command buffer is full",
    "22": "it cannot load or save its parameters",
    "99": "it is faulty",
}
_DMCC_REASONS = {
    "100": "unidentified error",
    "101": "it does not know this command",
    "102": "it does not know this parameter",
    "103": "the checksum is wrong",
    "104": "it cannot do that in its present state",
    "105": "it is not available",
}

PROFILES: Mapping[ProfileName, Profile] = MappingProxyType({
    "generic": Profile(end="\r\n", skip=""),
    "keyence": Profile(  # SR and BL series: what follows LON is answered before the code comes
        no_read=("ERROR",),
        failed=r"OVER|ERR\d\d",
        on="LON\r",
        off="LOFF\r",
        answers=True,
        taken=r"OK,{command}",
        refused=r"ER,{command},(\d\d)",
        reasons=_KEYENCE_REASONS,
    ),
    "cognex": Profile(  # DataMan; silent unless DMCC-RESPONSE is set to extended
        no_read=("NO-READ", "NOREAD", "NO READ", "ERROR"),
        on="||>TRIGGER ON\r\n",
        off="||>TRIGGER OFF\r\n",
        reasons=_DMCC_REASONS,
        dmcc=True,
    ),
    "honeywell": Profile(no_read=("NR", "NOREAD"), on="\x16T\r", off="\x16U\r"),
    "datalogic": Profile(skip="\n\x02", no_read=("\x18", "<CAN>", "NO READ", "NOREAD")),
    "omron": Profile(  # MicroHAWK, V430 and Microscan: "< >"; V530 fails with E0nn
        no_read=("NOREAD", "NO READ", "ERROR"),
        failed=r"E0\d\d",
        on="< >",
    ),
    "zebra": Profile(no_read=("NR", "NOREAD")),
})  # fmt: skip
