"""Pictures → codes. Pure: no camera, no file, no clock.

zxing-cpp comes first: fast once the formats are named, and it says which symbology it was. pyzbar is the second try
(``second_try``), 10 to 50 times as slow and the better one in a blur: of 30 Code 128 with a blur (sigma) of half a
module it read 26, zxing-cpp 12, and of 60 worse ones 42 and 3. In the same test it made 3 wrong texts of 300 EAN-13 and
Code 39, whose checksums are weak or none, and a part of an interleaved 2 of 5 may be taken for a shorter one. A wrong
serial is worse than none: so it is asked for Code 128 and Code 93 alone, which it never read wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import zxingcpp
from pyzbar import pyzbar  # type: ignore[import-untyped]

from edge_agent_drivers.camera.config import CameraSettings, Format
from edge_agent_drivers.camera.opencv import Image, grey

_ZXING: dict[Format, zxingcpp.BarcodeFormat] = {
    "datamatrix": zxingcpp.BarcodeFormat.DataMatrix,
    "qr": zxingcpp.BarcodeFormat.QRCode,
    "microqr": zxingcpp.BarcodeFormat.MicroQRCode,
    "aztec": zxingcpp.BarcodeFormat.Aztec,
    "pdf417": zxingcpp.BarcodeFormat.PDF417,
    "code128": zxingcpp.BarcodeFormat.Code128,
    "code39": zxingcpp.BarcodeFormat.Code39,
    "code93": zxingcpp.BarcodeFormat.Code93,
    "codabar": zxingcpp.BarcodeFormat.Codabar,
    "itf": zxingcpp.BarcodeFormat.ITF,
    "ean13": zxingcpp.BarcodeFormat.EAN13,
    "ean8": zxingcpp.BarcodeFormat.EAN8,
    "upca": zxingcpp.BarcodeFormat.UPCA,
    "upce": zxingcpp.BarcodeFormat.UPCE,
    "databar": zxingcpp.BarcodeFormat.DataBar,
    "databar_expanded": zxingcpp.BarcodeFormat.DataBarExpanded,
    "databar_limited": zxingcpp.BarcodeFormat.DataBarLimited,
}
_VARIANTS = {
    zxingcpp.BarcodeFormat.DataBarOmni: "databar",
    zxingcpp.BarcodeFormat.DataBarStk: "databar",
    zxingcpp.BarcodeFormat.DataBarStkOmni: "databar",
    zxingcpp.BarcodeFormat.DataBarExpStk: "databar_expanded",
    **{known: name for name, known in _ZXING.items()},
}
_ZBAR: dict[Format, pyzbar.ZBarSymbol] = {
    "code128": pyzbar.ZBarSymbol.CODE128,
    "code93": pyzbar.ZBarSymbol.CODE93,
}

_DECLARED = frozenset({"]Q2", "]Q4", "]Q6", "]d4", "]d5", "]d6"})  # ECI: the symbol says which encoding its bytes have

Corner = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Code:
    """One code in a picture. ``raw`` is what the symbol holds, ``corners`` are where it stands in the picture."""

    raw: bytes
    symbology: str  # AIM identifier, e.g. "]d2"; "" where the decoder cannot tell
    format: str  # as the config writes it
    decoder: str = "zxing-cpp"
    corners: tuple[Corner, ...] = ()

    @property
    def key(self) -> tuple[bytes, str]:
        """Two sights of one key are one code."""
        return self.raw, self.format


def _said(one: zxingcpp.Barcode, name: str) -> bytes:
    """What the symbol holds: its bytes, or its text in UTF-8 where the symbol itself says how they are meant.

    A QR code may write what is in Shift JIS in Kanji mode, and encoders choose that for many Chinese words too; its
    bytes, taken for GB18030, would be other Chinese words. Plain bytes stay as they are: nobody knows what they mean.
    """
    raw, text = bytes(one.bytes), one.text
    if one.symbology_identifier in _DECLARED or (name in ("qr", "microqr") and _in_kanji_mode(raw, text)):
        return text.encode("utf-8")
    return raw


def _in_kanji_mode(raw: bytes, text: str) -> bool:
    """Whether all that is no ASCII is from the two ranges of Kanji mode (ISO/IEC 18004, 7.4.6), which the usual
    characters of GB 2312 (they begin with B0 to D7) are never in."""
    try:
        if raw.isascii() or text.encode("shift_jis") != raw:
            return False
    except UnicodeEncodeError:
        return False
    doubles = [sign.encode("shift_jis") for sign in text if not sign.isascii()]
    return all(
        len(double) == 2 and (b"\x81\x40" <= double <= b"\x9f\xfc" or b"\xe0\x40" <= double <= b"\xeb\xbf")
        for double in doubles
    )


class OutsidePicture(ValueError):
    """The region lies outside the picture."""


class Decoder:
    """Looks for the formats of one camera in its region."""

    def __init__(self, settings: CameraSettings) -> None:
        self._settings = settings
        formats = list(_ZXING) if "all" in settings.formats else settings.formats
        self._formats = zxingcpp.BarcodeFormats([_ZXING[name] for name in formats])
        self._second = [_ZBAR[name] for name in formats if name in _ZBAR] if settings.tries_again else []

    def region(self, image: Image) -> tuple[Image, Corner]:
        """The part of the picture that is looked at, in grey, and where it stands. Raises OutsidePicture."""
        high, wide = image.shape[:2]
        left, top, right, bottom = self._settings.within(wide, high)
        if left >= right or top >= bottom:
            raise OutsidePicture(f"the region {self._settings.region} lies outside a picture of {wide}x{high}")
        return grey(image[top:bottom, left:right]), (left, top)

    def codes(self, image: Image) -> Sequence[Code]:
        """The codes of a picture, each once, from top to bottom. Raises OutsidePicture."""
        part, origin = self.region(image)
        found = self._zxing(part, origin)
        if self._second and len(found) < (self._settings.expect or 1):
            found = {**self._zbar(part, origin), **found}
        return sorted(found.values(), key=lambda code: code.corners[0][::-1] if code.corners else ())

    def _zxing(self, part: Image, origin: Corner) -> dict[tuple[bytes, str], Code]:
        found = zxingcpp.read_barcodes(part, formats=self._formats, try_invert=self._settings.inverted)
        codes: dict[tuple[bytes, str], Code] = {}
        for one in found:
            where = one.position
            ends = (where.top_left, where.top_right, where.bottom_right, where.bottom_left)
            corners = tuple((end.x + origin[0], end.y + origin[1]) for end in ends)
            name = _VARIANTS.get(one.format, str(one.format))
            code = Code(_said(one, name), one.symbology_identifier, name, corners=corners)
            codes.setdefault(code.key, code)
        return codes

    def _zbar(self, part: Image, origin: Corner) -> dict[tuple[bytes, str], Code]:
        codes: dict[tuple[bytes, str], Code] = {}
        for one in pyzbar.decode(part, symbols=self._second):
            corners = tuple((point.x + origin[0], point.y + origin[1]) for point in one.polygon)
            name = one.type.lower()
            code = Code(bytes(one.data), "", name, "pyzbar", corners)  # it does not say whether it is GS1's
            codes.setdefault(code.key, code)
        return codes
