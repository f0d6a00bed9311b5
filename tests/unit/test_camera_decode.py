"""Pictures → codes → results, with real barcodes as a camera sees them, and with what is no picture."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.model import Instant, ScanStatus
from edge_agent_drivers.camera.config import CameraSettings
from edge_agent_drivers.camera.decode import Code, Decoder, OutsidePicture
from edge_agent_drivers.camera.opencv import brightness_of, picture_of, sharpness_of, whole
from edge_agent_drivers.camera.results import Arrivals, Seen, result
from support.pictures import FORMATS, Label, jpeg_of, png_of, scene


def decoder(*formats: str, **more: object) -> Decoder:
    return Decoder(CameraSettings.model_validate({"source": "/dev/video0", "formats": list(formats), **more}))


CONTENTS = {"ean13": "4006381333931", "itf": "12345678"}
SEEN_SO = {
    "straight": ({}, {}),
    "turned": ({"turned": 33}, {}),
    "upside down": ({"turned": 184}, {}),
    "blurred": ({}, {"blur": 1.6}),
    "dark": ({}, {"light": 0.25, "noise": 1.0}),
    "pale": ({}, {"contrast": 0.25, "noise": 1.0}),
    "noisy": ({}, {"noise": 14.0}),
}


@pytest.mark.parametrize("format_", FORMATS)
def test_each_format_is_read_and_named(format_: str) -> None:
    content = CONTENTS.get(format_, "SN00000017")
    module = 3 if format_ in ("code128", "code39", "pdf417") else 5
    picture = scene(Label(content, format_, module=module))
    (code,) = decoder(format_).codes(picture)
    assert (code.raw.decode(), code.format, code.decoder) == (content, format_, "zxing-cpp")
    assert code.symbology.startswith("]")
    assert all(300 <= x <= 1280 and 200 <= y <= 720 for x, y in code.corners)


@pytest.mark.parametrize("format_", ["datamatrix", "qr"])
@pytest.mark.parametrize("so", SEEN_SO)
def test_a_code_is_read_however_it_is_seen(so: str, format_: str) -> None:
    label, optics = SEEN_SO[so]
    picture = scene(Label("SN00000017", format_, module=6, **label), **optics)  # type: ignore[arg-type]
    assert [code.raw for code in decoder(format_).codes(picture)] == [b"SN00000017"]


@pytest.mark.parametrize(("format_", "aim"), [("datamatrix", "]d2"), ("code128", "]C1"), ("qr", "]Q3")])
def test_a_gs1_symbol_says_that_it_is_one_and_keeps_its_separators(format_: str, aim: str) -> None:
    picture = scene(Label("(01)09506000134352(10)LOT(21)SN1", format_, module=3, gs1=True))
    (code,) = decoder(format_).codes(picture)
    assert (code.symbology, code.raw) == (aim, b"010950600013435210LOT\x1d21SN1")


def test_control_characters_and_bytes_come_as_they_are() -> None:
    for content in (b"[)>\x1e06\x1dP123\x1dSABC\x1e\x04", b"\x00\xff\x1d\x80"):
        (code,) = decoder("datamatrix").codes(scene(Label(content)))
        assert code.raw == content


@pytest.mark.parametrize("text", ["位置零件", "ABC位置1", "部品", "压力机"])
def test_a_chinese_text_is_itself_also_where_the_encoder_wrote_it_in_kanji_mode(text: str) -> None:
    (code,) = decoder("qr").codes(scene(Label(text, "qr")))
    assert code.raw.decode() == text


def test_bytes_that_only_somebody_knows_the_meaning_of_stay_as_they_are() -> None:
    gb18030 = "压力机".encode("gb18030")
    (code,) = decoder("qr").codes(scene(Label(gb18030, "qr")))
    assert code.raw == gb18030


def test_light_on_dark_is_looked_for_when_it_is_asked_for() -> None:
    picture = scene(Label("SN1", inverted=True))
    assert decoder("datamatrix").codes(picture) == []
    assert [code.raw for code in decoder("datamatrix", inverted=True).codes(picture)] == [b"SN1"]


def test_several_codes_come_once_each_from_top_to_bottom() -> None:
    labels = [
        Label("B", at=(700, 400)),
        Label("A", at=(100, 80)),
        Label("A", at=(900, 80)),
        Label("C", "qr", (300, 560)),
    ]
    assert [code.raw for code in decoder("datamatrix", "qr").codes(scene(*labels))] == [b"A", b"B", b"C"]


def test_only_the_named_formats_are_believed() -> None:
    picture = scene(Label("A", "qr"), Label("B", at=(700, 300)))
    assert [code.raw for code in decoder("datamatrix").codes(picture)] == [b"B"]
    assert {code.raw for code in decoder("all").codes(picture)} == {b"A", b"B"}


def test_only_the_region_is_looked_at() -> None:
    picture = scene(Label("left", at=(100, 200)), Label("right", at=(900, 200)))
    for region in (["50%", "0%", "50%", "100%"], [640, 0, 640, 720]):
        (code,) = decoder("datamatrix", region=region).codes(picture)
        assert code.raw == b"right"
        assert all(x >= 900 for x, _y in code.corners)  # where it is in the whole picture
    with pytest.raises(OutsidePicture):
        decoder("datamatrix", region=[1300, 0, 100, 100]).codes(picture)


def test_pyzbar_reads_blurred_linear_codes_that_zxing_does_not() -> None:
    first, second = decoder("code128"), decoder("code128", second_try=True)
    only_second = 0
    for seed in range(6):
        picture = scene(Label("SN00000017", "code128", module=3), size=(900, 500), blur=1.65, seed=seed)
        alone, both = first.codes(picture), second.codes(picture)
        assert {code.raw for code in both} <= {b"SN00000017"}
        only_second += [code.decoder for code in both] == ["pyzbar"] and not alone
    assert only_second


@settings(deadline=None)
@given(st.binary(max_size=300), st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM", b"II*\0"]))
def test_bytes_that_are_no_picture_are_none(data: bytes, magic: bytes) -> None:
    whole(magic + data)
    found = picture_of(magic + data)
    assert found is None or found.ndim == 2


@given(st.integers(1, 2000))
def test_a_cut_picture_is_none(cut: int) -> None:
    for data in (png_of("SN1"), JPEG):
        assert whole(data)
        part = data[: -(cut % (len(data) - 1) + 1)]
        assert not whole(part) or picture_of(part) is None


JPEG = jpeg_of(scene(Label("SN1", at=(20, 20)), size=(200, 160)))


def test_a_damaged_png_is_not_whole() -> None:
    data = bytearray(png_of("SN1"))
    data[len(data) // 2] ^= 0x40
    assert not whole(bytes(data))


def test_a_small_file_cannot_ask_for_gigabytes() -> None:
    # in a process of its own: OpenCV takes its limit from whoever loads it first
    program = """
from edge_agent_drivers.camera.opencv import file_of, picture_of
import numpy as np
for size, readable in ((9000, False), (1000, True)):
    bomb = file_of(np.zeros((size, size), np.uint8), ".png", 0)
    assert len(bomb) < 2_000_000
    assert (picture_of(bomb) is not None) is readable
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_brightness_and_sharpness_follow_the_picture() -> None:
    assert brightness_of(np.zeros((50, 50), np.uint8)) == 0
    assert brightness_of(np.full((50, 50), 255, np.uint8)) == 100
    label = Label("SN1")
    assert sharpness_of(scene(label)) > 2 * sharpness_of(scene(label, blur=2))
    assert brightness_of(scene(label)) > 2 * brightness_of(scene(label, light=0.4))


# --- what is news -------------------------------------------------------------------------------------------------

A, B = (Code(raw, "]d1", "datamatrix") for raw in (b"A", b"B"))
SECOND = 10**9


def test_a_code_is_new_when_it_arrives_and_after_it_was_seen_to_be_away() -> None:
    arrivals = Arrivals(1.0)
    assert arrivals.see([A], 0) == [A]
    assert arrivals.see([A, B], SECOND // 2) == [B]
    assert arrivals.see([B], SECOND) == []  # away for half a second
    assert arrivals.see([A, B], SECOND * 5 // 4) == []
    assert arrivals.see([], SECOND * 5) == []
    assert arrivals.see([A], SECOND * 6) == [A]


def test_a_pause_in_looking_is_no_absence() -> None:
    arrivals = Arrivals(1.0)
    assert arrivals.see([A], 0) == [A]
    assert arrivals.see([A], 60 * SECOND) == []


def test_a_code_in_a_picture_that_is_not_believed_neither_arrives_nor_leaves() -> None:
    arrivals = Arrivals(1.0)
    assert arrivals.see([A], 0, believed=False) == []
    assert arrivals.see([A, B], 1) == [A, B]
    for second in range(1, 5):  # a glare on the second one: both leave only when they are not seen
        assert arrivals.see([A], second * SECOND, believed=False) == []
    assert arrivals.see([A, B], 5 * SECOND) == [B]


def test_another_number_of_codes_than_expected_is_a_no_read_that_keeps_what_was_seen() -> None:
    seen = Seen(Instant(1, 1), [A, B], photo="ab")
    assert [scan.raw for scan in result("camera", seen, None)] == [b"A", b"B"]
    assert [scan.raw for scan in result("camera", seen, 2)] == [b"A", b"B"]
    (scan,) = result("camera", seen, 1)
    assert (scan.status, scan.raw, scan.photo) == (ScanStatus.NO_READ, b"A\nB", "ab")
    (scan,) = result("camera", Seen(Instant(1, 1), []), None)
    assert (scan.status, scan.raw) == (ScanStatus.NO_READ, b"")
