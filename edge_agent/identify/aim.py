"""AIM symbology identifiers (ISO/IEC 15424): three characters before the content that say what kind of symbol it was.

They decide whether a text may be read as GS1 element strings at all: the same digits are a serial in a plain Code 128
(``]C0``) and a lot in a GS1-128 (``]C1``). Readers send them only when told to.
"""

from __future__ import annotations

from typing import Literal

Carries = Literal["elements", "gtin", "link", "unknown", "nothing"]

_CARRIES: dict[str, Carries] = {
    "]C1": "elements",  # GS1-128
    "]e0": "elements",  # GS1 DataBar
    "]d2": "elements",  # GS1 DataMatrix
    "]Q3": "elements",  # GS1 QR
    "]J1": "elements",  # GS1 DotCode
    "]E0": "gtin",  # EAN-13, UPC-A, UPC-E
    "]E4": "gtin",  # EAN-8
    "]I1": "gtin",  # ITF-14 with its check digit verified
    "]C0": "link",  # plain Code 128, DataMatrix and QR: no element strings, but perhaps a Digital Link
    "]d1": "link",
    "]Q1": "link",
}


def carries(aim: str) -> Carries:
    """What of GS1 a symbol with this identifier can hold; "unknown" when the reader sent none."""
    return _CARRIES.get(aim, "nothing") if aim else "unknown"
