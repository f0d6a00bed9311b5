"""The one place that loads OpenCV, keeps it quiet and turns its failures into None.

Its settings are environment variables that it reads while it is loaded: no log of its own, no ffmpeg prints (they
would show a camera's password), no picture above MAX_PIXELS (a small file can ask for gigabytes). It computes on the
calling thread only, so a camera costs the cores that its own threads take and no more.
"""

from __future__ import annotations

import os
import zlib
from typing import Any

MAX_PIXELS = 64_000_000

os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # AV_LOG_QUIET
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(MAX_PIXELS))

import cv2  # noqa: E402
import numpy as np  # noqa: E402

cv2.setNumThreads(1)
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # again: somebody else may have loaded it first

Image = np.ndarray[Any, np.dtype[np.uint8]]
"""Rows, columns and, in colour, blue, green, red."""

_PNG, _JPEG, _BMP = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM"
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff")


def whole(data: bytes) -> bool:
    """Whether a picture's file has its end, and a PNG its checksums: what is half written or damaged has not."""
    if data.startswith(_JPEG):
        return b"\xff\xd9" in data[-64:]  # some cameras pad what follows the end of image
    if data.startswith(_PNG):
        return _png_whole(data)
    if data.startswith(_BMP):
        return len(data) >= int.from_bytes(data[2:6], "little") > 0
    return bool(data)


def _png_whole(data: bytes) -> bool:
    at = len(_PNG)
    while at + 12 <= len(data):
        length, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        end = at + 12 + length
        if end > len(data) or zlib.crc32(data[at + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big"):
            return False
        if kind == b"IEND":
            return True
        at = end
    return False


def picture_of(data: bytes) -> Image | None:
    """A file's picture in grey; None when it is no picture, or one above MAX_PIXELS."""
    try:
        found = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
    except cv2.error:  # empty, or too large
        return None
    return None if found is None else found.astype(np.uint8, copy=False)


def file_of(image: Image, suffix: str, quality: int) -> bytes:
    """A picture as a file's bytes; ``quality`` is JPEG's."""
    options = [cv2.IMWRITE_JPEG_QUALITY, quality] if suffix == ".jpg" else [cv2.IMWRITE_PNG_COMPRESSION, 1]
    _good, data = cv2.imencode(suffix, image, options)
    return data.tobytes()


def grey(image: Image) -> Image:
    """The picture without colour, its rows one after the other in memory."""
    if image.ndim == 3:
        return cv2.cvtColor(image, cv2.COLOR_BGR2GRAY).astype(np.uint8, copy=False)
    return np.ascontiguousarray(image)


def brightness_of(image: Image) -> float:
    """0 (black) to 100 (white), the mean of a grey picture."""
    return round(float(cv2.mean(image)[0]) / 2.55, 1)


def sharpness_of(image: Image) -> float:
    """The variance of the Laplacian of a grey picture: falls as the focus is lost. Compare it with itself only.

    The picture is smoothed first: else it would be the sensor's noise that is measured.
    """
    edges = cv2.Laplacian(cv2.GaussianBlur(image, (5, 5), 0), cv2.CV_16S)
    return round(float(cv2.meanStdDev(edges)[1][0][0]) ** 2, 1)
