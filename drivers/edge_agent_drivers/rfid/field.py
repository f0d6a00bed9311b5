"""Which transponders are in the reader's field: what arrives and what has left. Pure: the time is given, in seconds.

A transponder is there from when it is first heard until it was not for ``absent_after``. At the beginning nothing is
known; an empty field is known to be empty when that time has passed with nothing heard.
"""

from __future__ import annotations

MOST = 256  # present at once; more are noise, and the one that was silent longest gives way


class ReaderField:
    """Tell it what was heard; ask it what is there."""

    def __init__(self, absent_after_s: float) -> None:
        self._absent_after_s = absent_after_s
        self._heard_s: dict[str, float] = {}
        self._began_s: float | None = None  # None: something is known

    def begin(self, now_s: float) -> None:
        """Begin anew: what was there may have left unseen."""
        self._heard_s.clear()
        self._began_s = now_s

    @property
    def known(self) -> bool:
        """It is known whether something is there."""
        return self._began_s is None

    @property
    def present(self) -> tuple[str, ...]:
        """The transponders that are there, in the order of their arrival."""
        return tuple(self._heard_s)

    def hear(self, transponder: str, now_s: float) -> bool:
        """It was heard; True if it has just arrived."""
        self._began_s = None
        arrived = transponder not in self._heard_s
        if arrived and len(self._heard_s) >= MOST:
            del self._heard_s[min(self._heard_s, key=self._heard_s.__getitem__)]
        self._heard_s[transponder] = now_s
        return arrived

    def miss(self, now_s: float) -> bool:
        """Forget what was not heard for too long; True if that changes what is known."""
        if self._began_s is not None:
            if now_s < self._began_s + self._absent_after_s:
                return False
            self._began_s = None
            return True
        gone = [each for each, heard_s in self._heard_s.items() if now_s >= heard_s + self._absent_after_s]
        for each in gone:
            del self._heard_s[each]
        return bool(gone)

    def empty(self) -> bool:
        """Nothing was there when it was asked; True if that is the first that is known."""
        first, self._began_s = self._began_s is not None, None
        return first

    def next_s(self) -> float | None:
        """When ``miss`` may change something; None: not before something is heard."""
        if self._began_s is not None:
            return self._began_s + self._absent_after_s
        return min(self._heard_s.values()) + self._absent_after_s if self._heard_s else None
