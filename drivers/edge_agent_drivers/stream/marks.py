"""Line errors as the kernel marks them in the bytes of a tty (PARMRK): ``FF 00 x`` for a character x that came with
a parity or framing error or is a break, ``FF FF`` for a genuine FF. Pure.

Without the marks such a character would be a zero byte or, with another setting, stand there as if it were good: a
wrong letter in a serial number. What is marked is cut out, and the place is told.
"""

from __future__ import annotations


class Marks:
    """Feed it what was read; it holds back at most two bytes of an unfinished mark."""

    def __init__(self) -> None:
        self._held = b""

    def feed(self, data: bytes) -> list[bytes | None]:
        """The good bytes in their order; None stands for one or several bad ones between them."""
        if not self._held and b"\xff" not in data:
            return [data] if data else []
        data, self._held = self._held + data, b""
        parts: list[bytes | None] = []
        good = bytearray()
        at = 0
        while (mark := data.find(b"\xff", at)) >= 0:
            good += data[at:mark]
            sign = data[mark : mark + 3]
            if sign in (b"\xff", b"\xff\x00"):
                self._held, at = sign, len(data)
            elif sign[1] == 0:
                parts += [bytes(good)] if good else []
                parts += [None] if not parts or parts[-1] is not None else []
                good.clear()
                at = mark + 3
            else:  # FF FF; an FF before anything else is none of the kernel's marks, and is itself
                good += b"\xff"
                at = mark + (2 if sign[1] == 0xFF else 1)
        good += data[at:]
        return [*parts, bytes(good)] if good else parts
