"""A printable sheet of barcodes as one SVG: A4, a grid, beside each code what it means.

zxing-cpp makes the symbols (and the tests read them back). Code 128 for laser readers; DataMatrix and QR for imagers,
which read them smaller and in any direction. Each cell's text is escaped: defect texts come from the configuration.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from typing import Literal

import zxingcpp

from edge_agent.errors import EdgeAgentError
from edge_agent.i18n import _

Symbol = Literal["code128", "datamatrix", "qr"]
_FORMATS = {
    "code128": zxingcpp.BarcodeFormat.Code128,
    "datamatrix": zxingcpp.BarcodeFormat.DataMatrix,
    "qr": zxingcpp.BarcodeFormat.QRCode,
}
PAGE_MM = (210, 297)
MARGIN_MM = 12
MAX_CODES = 500
MAX_TEXT = 300  # characters of one code: more is no sheet for people
_MODULE_MM = {"code128": 0.33, "datamatrix": 0.8, "qr": 0.8}  # wide enough for an office printer and an old reader
_QUIET = {"code128": 10, "datamatrix": 2, "qr": 4}  # modules of white that the standards want around a symbol
_BAR_MM = 14.0
_SIZE = re.compile(r'<svg width="(\d+)" height="(\d+)"')
_PATH = re.compile(r'<path d="([^"]+)"')


class Unprintable(EdgeAgentError):
    """A text that no such barcode can hold."""


def sheets(codes: Sequence[tuple[str, str]], symbol: Symbol, title: str) -> str:
    """One SVG of as many A4 pages, one below the other, as the codes need: (what is scanned, what stands beside it)."""
    cells = [_cell(text, caption, symbol) for text, caption in codes]
    columns = 2 if all(width <= (PAGE_MM[0] - 2 * MARGIN_MM) / 2 - 4 for width, _, _ in cells) else 1
    tall = max((height for _, height, _ in cells), default=0) + 16
    rows = max(1, int((PAGE_MM[1] - 2 * MARGIN_MM - 12) // tall))
    per_page = rows * columns
    pages = -(-len(cells) // per_page)
    parts = [_head(pages)]
    for index, (_width, height, drawn) in enumerate(cells):
        page, place = divmod(index, per_page)
        top = page * PAGE_MM[1]
        if place == 0:
            parts.append(_text(MARGIN_MM, top + MARGIN_MM + 4, title, 5))
        x = MARGIN_MM + (place % columns) * (PAGE_MM[0] - 2 * MARGIN_MM) / columns
        y = top + MARGIN_MM + 12 + (place // columns) * tall
        text, caption = codes[index]
        parts.append(f'<g transform="translate({x:.2f} {y:.2f})">{drawn}</g>')
        parts.append(_text(x, y + height + 4, caption, 4.2))
        parts.append(_text(x, y + height + 8, text if text.isprintable() else repr(text)[1:-1], 2.6))
    return "\n".join([*parts, "</svg>", ""])


def _head(pages: int) -> str:
    width, height = PAGE_MM[0], PAGE_MM[1] * max(1, pages)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}mm" height="{height}mm" '
        f'viewBox="0 0 {width} {height}">\n'
        f'<rect width="{width}" height="{height}" fill="#fff"/>'
    )


def _text(x: float, y: float, text: str, size: float) -> str:
    return (
        f'<text x="{x:.2f}" y="{y:.2f}" font-size="{size}" font-family="Arial, Noto Sans CJK SC, sans-serif">'
        f"{escape(text)}</text>"
    )


def _cell(text: str, caption: str, symbol: Symbol) -> tuple[float, float, str]:
    """Width and height in mm, and the symbol drawn at the origin with its quiet zone."""
    if not text or len(text) > MAX_TEXT:
        raise Unprintable(_("a code must have 1 to {limit} characters").format(limit=MAX_TEXT))
    try:
        svg = zxingcpp.create_barcode(text, _FORMATS[symbol]).to_svg(scale=1, add_quiet_zones=False)
    except ValueError as error:
        hint = _("print it with --symbol datamatrix, which takes every character")
        raise Unprintable(
            _("{text!r} does not fit into {symbol}").format(text=text[:40], symbol=symbol), hint=hint
        ) from (error)
    size, path = _SIZE.search(svg), _PATH.search(svg)
    if size is None or path is None:
        raise Unprintable(_("{text!r} cannot be drawn").format(text=text[:40]))
    module, quiet = _MODULE_MM[symbol], _QUIET[symbol]
    wide, high = int(size[1]), int(size[2])
    up = _BAR_MM / high if symbol == "code128" else module
    drawn = (
        f'<path transform="translate({quiet * module:.3f} {0 if symbol == "code128" else quiet * module:.3f}) '
        f'scale({module} {up:.5f})" d="{path[1]}" fill="#000" shape-rendering="crispEdges"/>'
    )
    around = 0 if symbol == "code128" else 2 * quiet * module
    return (wide + 2 * quiet) * module, high * up + around, drawn
