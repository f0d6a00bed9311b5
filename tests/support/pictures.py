"""Pictures with real barcodes in them, as a camera over a line takes them: turned, blurred, dark, pale, noisy."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import cv2
import numpy as np
import zxingcpp

Picture = np.ndarray[Any, np.dtype[np.uint8]]
FORMATS = {
    "datamatrix": zxingcpp.BarcodeFormat.DataMatrix,
    "qr": zxingcpp.BarcodeFormat.QRCode,
    "code128": zxingcpp.BarcodeFormat.Code128,
    "code39": zxingcpp.BarcodeFormat.Code39,
    "ean13": zxingcpp.BarcodeFormat.EAN13,
    "aztec": zxingcpp.BarcodeFormat.Aztec,
    "pdf417": zxingcpp.BarcodeFormat.PDF417,
    "itf": zxingcpp.BarcodeFormat.ITF,
}
LINEAR = ("code128", "code39", "ean13", "itf")
BAR_HEIGHT = 90


@dataclass(frozen=True)
class Label:
    """One code and where it lies."""

    content: str | bytes
    format: str = "datamatrix"
    at: tuple[int, int] = (300, 200)  # left, top
    module: int = 5  # pixels
    turned: float = 0.0  # degrees
    inverted: bool = False
    gs1: bool = False  # content is written (01)…(21)…


def symbol(label: Label) -> Picture:
    """The code alone, black on white, with its quiet zone."""
    drawn = zxingcpp.create_barcode(label.content, FORMATS[label.format], **({"gs1": True} if label.gs1 else {}))
    image = np.array(drawn.to_image(scale=label.module, add_quiet_zones=True))
    if label.format in LINEAR:
        image = np.repeat(image[:1], BAR_HEIGHT, axis=0)
        image = cv2.copyMakeBorder(image, 10, 10, 0, 0, cv2.BORDER_CONSTANT, value=(255,))
    return 255 - image if label.inverted else image


def scene(
    *labels: Label,
    size: tuple[int, int] = (1280, 720),
    blur: float = 0.0,
    light: float = 1.0,
    contrast: float = 1.0,
    noise: float = 4.0,
    seed: int = 1,
) -> Picture:
    """A grey picture of ``size`` (width, height): a cluttered ground with labels on it, then what the optics do."""
    chance = np.random.default_rng(seed)
    ground = np.full((size[1], size[0]), 120, np.uint8)
    for _ in range(120):
        x, y = int(chance.integers(0, size[0])), int(chance.integers(0, size[1]))
        w, h = int(chance.integers(5, 80)), int(chance.integers(5, 80))
        cv2.rectangle(ground, (x, y), (x + w, y + h), int(chance.integers(60, 200)), -1)
    for label in labels:
        _paste(ground, symbol(label), label)
    seen = (128 + (ground.astype(np.float32) - 128) * contrast) * light
    if blur:
        seen = cv2.GaussianBlur(seen, (0, 0), blur)
    return np.clip(seen + chance.normal(0, noise, seen.shape), 0, 255).astype(np.uint8)


def _paste(ground: Picture, code: Picture, label: Label) -> None:
    high, wide = code.shape
    turn = cv2.getRotationMatrix2D((wide / 2, high / 2), label.turned, 1)
    cos, sin = abs(turn[0, 0]), abs(turn[0, 1])
    new_wide, new_high = int(high * sin + wide * cos) + 1, int(high * cos + wide * sin) + 1
    turn[0, 2] += new_wide / 2 - wide / 2
    turn[1, 2] += new_high / 2 - high / 2
    turned = cv2.warpAffine(code, turn, (new_wide, new_high))
    covered = cv2.warpAffine(np.full_like(code, 255), turn, (new_wide, new_high), flags=cv2.INTER_NEAREST)
    x, y = label.at
    part = ground[y : y + new_high, x : x + new_wide]
    assert part.shape == turned.shape, "the label must lie in the picture"
    part[covered > 0] = turned[covered > 0]


@cache
def png_of(content: str | bytes, format: str = "datamatrix") -> bytes:
    """A small, clean picture of one code, as a PNG file of some hundred bytes."""
    image = symbol(Label(content, format))
    return cv2.imencode(".png", image)[1].tobytes()


def jpeg_of(image: Picture, quality: int = 90) -> bytes:
    """A JPEG file of a picture."""
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
