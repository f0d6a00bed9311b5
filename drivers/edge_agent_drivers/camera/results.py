"""What is said of a picture: which codes are news, which scans and which sample it makes. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edge_agent.driver import Shape
from edge_agent.model import Instant, Sample, Scan, ScanStatus, Value
from edge_agent_drivers.camera.config import CameraSettings, Facet, facet_of
from edge_agent_drivers.camera.decode import Code


@dataclass(frozen=True, slots=True)
class Seen:
    """All that is known of one picture. Codes are None when no picture came."""

    at: Instant
    codes: Sequence[Code] | None
    photo: str = ""
    photo_status: str = ""
    brightness: float | None = None
    sharpness: float | None = None
    exposure: float | None = None
    gain: float | None = None


class Arrivals:
    """Which codes have come into view. A code has left when it was looked for and not seen for ``absent_after``;
    pictures that were not looked at prove nothing."""

    def __init__(self, absent_after_s: float) -> None:
        self._absent_ns = int(absent_after_s * 1e9)
        self._last_ns: dict[tuple[bytes, str], int] = {}

    def see(self, codes: Sequence[Code], mono_ns: int, *, believed: bool = True) -> list[Code]:
        """Those of a picture's codes that are new. In one that is not believed none arrives, and what had is there."""
        new = [code for code in codes if believed and code.key not in self._last_ns]
        self._last_ns.update((code.key, mono_ns) for code in codes if believed or code.key in self._last_ns)
        left = [key for key, last_ns in self._last_ns.items() if mono_ns - last_ns >= self._absent_ns]
        for key in left:
            del self._last_ns[key]
        return new


def as_expected(codes: Sequence[Code], expect: int | None) -> bool:
    """Whether a picture shows what it should: ``expect`` codes, or at least one."""
    return len(codes) == expect if expect is not None else bool(codes)


def scans(device: str, seen: Seen, codes: Sequence[Code]) -> list[Scan]:
    """One scan a code."""
    return [Scan(device, seen.at, code.raw, ScanStatus.READ, code.symbology, seen.photo) for code in codes]


def result(device: str, seen: Seen, expect: int | None) -> list[Scan]:
    """The scans of one trigger or one file: its codes, or one no-read. What was seen of a picture with another number
    of codes than expected stays in the no-read's raw, one a line; none of it is believed."""
    codes = seen.codes or ()
    if as_expected(codes, expect):
        return scans(device, seen, codes)
    raw = b"\n".join(code.raw for code in codes)
    return [Scan(device, seen.at, raw, ScanStatus.NO_READ, photo=seen.photo)]


class Samples:
    """Makes the samples of one camera's groups."""

    def __init__(self, shape: Shape, settings: CameraSettings) -> None:
        self._shape = shape
        self._expect = settings.expect
        self._facets = {
            name: [facet_of(tag, its) for tag, its in group.tags.items()] for name, group in settings.groups.items()
        }
        self.measured = bool({"brightness", "sharpness"} & {facet for all_ in self._facets.values() for facet in all_})
        self.spoken = [name for name, group in shape.groups.items() if group.spoken]

    def sample(self, group: str, seen: Seen, started_mono_ns: int, at: Instant, missing: str = "") -> Sample:
        """A sample of what was seen; ``missing`` says why there was no picture."""
        values: list[Value] = []
        status: dict[int, str] = {}
        said = _values(seen, self._expect)
        for index, facet in enumerate(self._facets[group]):
            value, why = (None, missing) if missing else said[facet]
            values.append(value)
            if value is None:
                status[index] = why
        return Sample(self._shape.groups[group].tagset, at, started_mono_ns, tuple(values), status or None)


def _values(seen: Seen, expect: int | None) -> Mapping[Facet, tuple[Value, str]]:
    """Each thing that may be said of a picture, or why it cannot be."""
    codes = seen.codes or ()
    code, symbology, why = None, None, ""
    if not as_expected(codes, expect):
        why = f"{len(codes)} codes, {expect} expected" if expect is not None else "no code read"
    elif len(codes) > 1:
        why = f"{len(codes)} codes"
    else:
        code, symbology = _text(codes[0]), codes[0].symbology
        why = "the code is not text"
    texts: Value = [_text(one) for one in codes]
    unexpected = "" if as_expected(codes, expect) or expect is None else why
    return {
        "photo": (seen.photo or None, seen.photo_status),
        "code": (code, why),
        "codes": (None if unexpected else texts, unexpected),
        "symbology": (symbology, why),
        "count": (len(codes), ""),
        "brightness": (seen.brightness, "not measured"),
        "sharpness": (seen.sharpness, "not measured"),
        "exposure": (seen.exposure, "the camera does not say"),
        "gain": (seen.gain, "the camera does not say"),
    }


def _text(code: Code) -> str | None:
    try:
        return code.raw.decode("utf-8")
    except UnicodeDecodeError:
        return None
