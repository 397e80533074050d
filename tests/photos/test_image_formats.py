"""What is counted before a file is decoded, format by format; new formats hold the bounds of the old."""

import io
import struct
import sys
import time
import types
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from support.fault_rows import fault
from test_decode import CAT, encode, png_chunk, thumbnail

from shufflenetv2.errors import ImageError
from shufflenetv2.photos import formats, tiff
from shufflenetv2.photos.avif import check_avif
from shufflenetv2.photos.decode import open_photo
from shufflenetv2.photos.formats import FORMATS, Format, recognise, suffixes
from shufflenetv2.photos.tiff import Directory, ExcessError, orientation

SIZE = (48, 36)
FORMAT = {each.name: each for each in FORMATS}


def test_every_format_that_is_read_is_recognised_by_its_own_row() -> None:
    for name in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"):
        data = encode(thumbnail(), name)
        assert recognise(data) is FORMAT[name]
        assert FORMAT[name].check(data) in (None, SIZE)
        assert FORMAT[name].open(data).size == SIZE
    assert len(set(suffixes())) == len(suffixes())
    assert {".jfif", ".tif", ".tiff", ".avif"} <= set(suffixes())


@pytest.mark.parametrize("cut", range(0, 64, 3))
@pytest.mark.parametrize("format", FORMATS, ids=lambda each: each.name)
def test_a_check_of_a_stump_is_no_crash(format: Format, cut: int) -> None:
    data = heic_of() if format.name == "HEIC" else encode(thumbnail(), format.name)
    recognise(data[:cut])
    with suppress(ExcessError):
        format.check(data[:cut])


# Metadata: Pillow reads all of it, joins what comes in pieces byte by byte, and allocates whatever a tag asks for.


def exif_bomb(tags: int, size: int) -> bytes:
    """Each tag asks for the whole block again."""
    entries = b"".join(struct.pack("<HHII", tag, 7, size - 8, 8) for tag in range(1, tags + 1))
    block = b"II*\0" + struct.pack("<IH", 8, tags) + entries + bytes(4)
    return block.ljust(size, b"\0")


def jpeg_with(*segments: bytes, between: bytes = b"") -> bytes:
    data = encode(thumbnail(), "JPEG")
    inserted = b"".join(b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment for segment in segments)
    return data[:2] + inserted + between + data[20:]  # without the first segment, JFIF's, which has the resolution


def png_with(kind: bytes, body: bytes) -> bytes:
    data = encode(thumbnail(), "PNG")
    start = data.index(b"IDAT") - 4
    return data[:start] + png_chunk(kind, body) + data[start:]


def webp_with_exif(exif: bytes) -> bytes:
    return encode(thumbnail(), "WEBP", exif=exif)


def gif_with(blocks: bytes) -> bytes:
    data = encode(thumbnail().convert("P"), "GIF")
    start = 13 + (3 << (data[10] & 7) + 1)
    return data[:start] + blocks + data[start:]


def bmp_of(width: int, height: int, compression: int, body: bytes) -> bytes:
    header = struct.pack(
        "<IiiHHIIiiII", 40, width, height, 1, 12 - 4 * compression, compression, len(body), 0, 0, 256, 0
    )
    palette = bytes(value for index in range(256) for value in (index, 255 - index, 7, 0))
    start = 14 + len(header) + len(palette)
    return b"BM" + struct.pack("<IHHI", start + len(body), 0, 0, start) + header + palette + body


REFUSED = {
    "GIF comment": (lambda: gif_with(b"!\xfe" + (b"\xff" + b"a" * 255) * 120_000 + b"\0"), "10,000 blocks before its"),
    "GIF comments": (lambda: gif_with(b"!\xfe\x01a\0" * 1_000_000), "10,000 blocks before its first frame"),
    "GIF comment behind a trick": (
        lambda: gif_with(b"!\xff\x0bNETSCAPE2.0\0\x01,\0!\xfe" + (b"\xff" + b"a" * 255) * 120_000 + b"\0"), "10,000",
    ),
    "GIF rubbish": (lambda: gif_with(b"x" * 1_000_000), "10,000 blocks before its first frame"),
    "BMP lines": (lambda: bmp_of(6_000, 6_000, 1, b"\1\1\0\0" * 6_000), r"compressed by runs \(RLE\)"),
    "BMP 4 bits": (lambda: bmp_of(6_000, 6_000, 2, b"\xfa\x12" * 24 + b"\0\0"), r"compressed by runs \(RLE\)"),
    "BMP leap": (lambda: bmp_of(4_000_000, 1, 1, b"\0\2\xff\xff"), r"a width of 15,625; save it anew"),
    "BMP nothing": (lambda: bmp_of(16, 16, 1, b"\xff\1" * 15_000_000), "is read up to 4,000,000 bytes and pixels"),
    "JPEG stuffing": (lambda: jpeg_with(between=b"\xff" * 30_000_000), "more than 100,000 bytes between its segments"),
    "JPEG rubbish": (lambda: jpeg_with(between=b"\xff\xd9" + bytes(30_000_000)), "100,000 bytes between its segments"),
    "JPEG hidden": (
        lambda: jpeg_with(between=(b"\xff\xf0\xff\xfe" + b"\xff" * 65_000) * 400), "bytes between its segments",
    ),
    "JPEG EXIF pieces": (lambda: jpeg_with(*[b"Exif\0\0" + bytes(3_000)] * 9_000), "more than 1,000 segments"),
}  # fmt: skip
READ = {
    "JPEG EXIF": lambda: jpeg_with(b"Exif\0\0" + exif_bomb(4_000, 65_000)),
    "PNG EXIF": lambda: png_with(b"eXIf", exif_bomb(3_000, 10_000_000)),
    "WEBP EXIF": lambda: webp_with_exif(exif_bomb(3_000, 10_000_000)),
    "GIF blocks": lambda: gif_with(b"!\xfe" + (b"\xff" + b"a" * 255) * 9_900 + b"\0"),
    "GIF extensions": lambda: gif_with(b"!\xfe\0" + b"!\xff\x0bNETSCAPE2.0\x03\1\0\0\0" + b"!\x01\x01a\0" * 2_000),
    "BMP runs": lambda: bmp_of(1_000, 3_000, 1, b"\1\1\0\0" * 3_000),
    "JPEG EXIF segments": lambda: jpeg_with(*[b"Exif\0\0" + bytes(31_000)] * 980),
}


@fault(39, "metadata, comments and runs that are dear to read", "ImageError before decoding, or read at their bound")
@pytest.mark.parametrize("case", REFUSED)
def test_dear_parts_are_refused_at_once(case: str) -> None:
    make, message = REFUSED[case]
    data = make()
    started = time.process_time()
    with pytest.raises(ImageError, match=message):
        open_photo(data)
    assert time.process_time() - started < 1


@pytest.mark.parametrize("case", READ)
@pytest.mark.slow
def test_at_the_bound_they_are_read_in_seconds(case: str) -> None:
    data = READ[case]()
    started = time.process_time()
    assert min(open_photo(data).size) >= 36
    assert time.process_time() - started < 10


@pytest.mark.parametrize("name", ["PNG", "JPEG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("turn", range(1, 9))
def test_orientation_is_what_pillow_reads(name: str, turn: int) -> None:
    exif = Image.Exif()
    exif[0x010F], exif[0x0112], exif[0x0110] = "maker", turn, "model"
    data = encode(thumbnail(), name, exif=exif)
    with Image.open(io.BytesIO(data)) as image:
        expected = image.getexif().get(0x0112, 1)
        found = orientation({"exif": data}) if name == "TIFF" else orientation(image.info)
    assert found == expected == turn


def test_orientation_in_xmp_and_in_imagemagicks_chunk() -> None:
    xmp = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    assert orientation({"xmp": xmp}) == orientation({"XML:com.adobe.xmp": xmp.decode()}) == 6
    assert open_photo(encode(thumbnail(), "WEBP", xmp=xmp)).size == (36, 48)
    exif = Image.Exif()
    exif[0x0112] = 8
    raw = "\nexif\n      32\n" + exif.tobytes().hex()
    assert orientation({"Raw profile type exif": raw}) == 8
    assert orientation({"exif": b"Exif\0\0MM\0*\xff\xff\xff\xff"}) == orientation({"exif": b""}) == orientation({}) == 1


# The bounds themselves: what reaches one is read, what exceeds it by one is refused.


def header_of(width: int, height: int, size: int, compression: int = 1) -> bytes:
    header = b"BM" + bytes(12) + struct.pack("<IiiHHI", 40, width, height, 1, 8, compression)
    return header.ljust(size, b"\0")


BOUNDS: dict[str, tuple[Callable[[int], bytes], Callable[[bytes], object], int]] = {
    "scans of a JPEG": (lambda count: b"\xff\xd8" + b"\xff\xda\0\2" * count, formats.check_jpeg, 64),
    "segments of a JPEG": (lambda count: b"\xff\xd8" + b"\xff\xe0\0\2" * count, formats.check_jpeg, 1000),
    "segments without length": (lambda count: b"\xff\xd8" + b"\xff\x01" * count, formats.check_jpeg, 1000),
    "bytes between": (lambda count: b"\xff\xd8" + bytes(count) + b"\xff\xe0\0\2", formats.check_jpeg, 100_000),
    "bytes before a scan": (
        lambda count: b"\xff\xd8\xff\xe0\0\5abc" + bytes(count) + b"\xff\xda\0\2" + bytes(200_000) + b"\xff\xe0\0\2",
        formats.check_jpeg,
        100_000,
    ),
    "chunks of a PNG": (lambda count: bytes(8) + png_chunk(b"tEXt") * count, formats.check_png, 100_000),
    "chunks with content": (lambda count: bytes(8) + png_chunk(b"tEXt", b"abc") * count, formats.check_png, 100_000),
    "bytes that are no blocks of a GIF": (
        lambda count: b"GIF89a" + bytes(7) + b"\1" * count,
        formats.check_gif,
        10_000,
    ),
    "blocks of a GIF": (
        lambda count: (
            b"GIF89a" + bytes(7) + b"!\x01" + b"\1a" * (count - 2) + b"\0"
        ),  # the introducer, the blocks, the end
        formats.check_gif,
        10_000,
    ),
    "pixels of a compressed BMP": (lambda count: header_of(count, 744, 4_000), formats.check_bmp, 3_996),
    "lines of a compressed BMP": (lambda count: header_of(-1000, -count, 4_000, 2), formats.check_bmp, 3_740),
    "bytes of a compressed BMP": (lambda count: header_of(0, 0, count), formats.check_bmp, 4_000_000),
    "EXIF blocks": (lambda count: b"II*\0MM\0*" * (count // 2) + b"MM*\0" * (count % 2), tiff.check_exif, 100),
    "tags": (lambda count: exif_bomb(count, 9), tiff.check_exif, 1_000),
    "strips": (
        lambda count: tiff_of({256: 1, 257: count, 258: 8, 278: 1, 273: (*range(8, 8 + count),), 279: (1,) * count}),
        tiff.check_tiff,
        100_000,
    ),
}


@pytest.mark.parametrize("bound", BOUNDS)
def test_a_bound_is_what_is_said(bound: str) -> None:
    make, check, most = BOUNDS[bound]
    check(make(most))
    with pytest.raises(tiff.ExcessError):
        check(make(most + 1))


def test_what_is_not_compressed_by_runs_has_no_bound_of_its_own() -> None:
    formats.check_bmp(header_of(9_000, 9_000, 5_000_000, 0))
    formats.check_bmp(header_of(9_000, 9_000, 5_000_000, 3))
    old = b"BM" + bytes(12) + struct.pack("<IHHHH", 12, 900, 900, 1, 8) + struct.pack("<I", 1)  # here lies its palette
    formats.check_bmp(old.ljust(5_000_000, b"\0"))


def test_old_deflate_is_deflate() -> None:
    """The number that the TIFF supplements gave it first."""
    data = encode(thumbnail(), "TIFF", compression="tiff_adobe_deflate")
    place = data.index(struct.pack("<HHI", 259, 3, 1)) + 8
    assert data[place : place + 2] == struct.pack("<H", 8)
    old = data[:place] + struct.pack("<H", 32946) + data[place + 2 :]
    assert open_photo(old).tobytes() == thumbnail().tobytes()


# TIFF.


def tiff_of(tags: dict[int, int | tuple[int, ...]], data: bytes = b"", order: str = "<") -> bytes:
    """A directory of LONGs at the end of ``data``, which begins at 8."""
    start = 8 + len(data)
    beyond = start + 2 + 12 * len(tags) + 4
    entries = arrays = b""
    for tag, value in sorted(tags.items()):
        values = value if isinstance(value, tuple) else (value,)
        place = values[0] if len(values) == 1 else beyond + len(arrays)
        entries += struct.pack(f"{order}HHII", tag, 4, len(values), place)
        arrays += struct.pack(f"{order}{len(values)}I", *values) if len(values) > 1 else b""
    head = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(f"{order}I", start)
    return head + data + struct.pack(f"{order}H", len(tags)) + entries + bytes(4) + arrays


GREY = {256: 40, 257: 30, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: 30, 279: 1200}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, None),
        ({278: 2**32 - 1}, None),
        ({278: 2**31}, None),
        ({278: 10, 273: (8, 408, 808), 279: (400, 400, 400)}, None),
        ({278: 7, 273: (8, 288, 568, 848, 1128), 279: (280, 280, 280, 280, 80)}, None),
        ({259: 4}, "is compressed in way 4; none, LZW, JPEG, Deflate, PackBits are read; save it anew"),
        ({259: 50001}, "is compressed in way 50001"),
        ({256: 10_000, 257: 5_001, 278: 5_001, 259: 5}, r"10000x5001 pixels, more than the 50,000,000 allowed"),
        ({278: 10, 273: (8, 9, 10), 279: (400, 400, 400)}, "has strips or tiles that overlap"),
        ({278: 10, 273: (8, 500, 408), 279: (400, 400, 400)}, "has strips or tiles that overlap"),  # the last one does
        ({278: 12, 273: (8, 648, 488), 279: (480, 480, 240)}, "has strips or tiles that overlap"),
        ({278: 12, 273: (8, 648, 488), 279: (480, 480, 160)}, "has strips or tiles that overlap"),
        ({278: 10, 273: (8, 408), 279: (400, 400)}, "does not say where all of its strips or tiles lie"),
        ({259: 5, 278: 10, 273: (8, 8, 8), 279: (400, 400, 400)}, "has strips or tiles that overlap"),
        ({259: 5, 279: (7, 7), 278: 10, 273: (8, 408, 808)}, "does not say where all of its strips"),
        ({257: 100_001, 278: 1}, "has more than 100,000 strips or tiles"),
        ({278: 2**31 - 1, 259: 5}, "has strips or tiles that are far larger than the picture"),
        ({322: 16, 323: 16}, "has strips as well as tiles"),
        ({256: 0}, "holds no picture"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_the_parts_of_a_tiff_are_counted(change: dict[int, int | tuple[int, ...]], message: str | None) -> None:
    data = tiff_of({**GREY, **change}, bytes(range(200)) * 6)
    if message is None:
        image = open_photo(data)
        assert image.size == (40, 30)
        assert [image.getpixel((x, 7))[0] for x in range(40)] == [(7 * 40 + x) % 200 for x in range(40)]
    else:
        with pytest.raises(ImageError, match=message):
            open_photo(data)


def test_signed_values_with_the_high_byte_first_are_refused_where_pillow_swaps_them() -> None:
    values = [100 * x % 128 * 257 for x in range(1200)]
    for order, compressed in (("<", False), ("<", True), (">", False), (">", True)):
        data = struct.pack(f"{order}1200h", *values)
        data = zlib.compress(data) if compressed else data
        way = {259: 8 if compressed else 1, 279: len(data)}
        photo = tiff_of({**GREY, **way, 258: 16, 339: 2}, data, order)
        if order == ">" and compressed:
            with pytest.raises(ImageError, match="has compressed 16-bit values with a sign, high byte first"):
                open_photo(photo)
        else:
            image = open_photo(photo)
            assert [image.getpixel((x, 0))[0] for x in range(40)] == [100 * x % 128 for x in range(40)]


def test_the_last_strip_of_a_tiff_may_be_short_and_lie_first() -> None:
    """It ends where the next begins; of rows that it does not hold, nothing overlaps."""
    data = tiff_of({**GREY, 278: 12, 273: (248, 728, 8), 279: (480, 480, 240)}, b"\2" * 240 + b"\1" * 960)
    image = open_photo(data)
    assert [image.getpixel((5, row))[0] for row in (0, 23, 24, 29)] == [1, 1, 2, 2]


def test_tiles_of_a_tiff_far_larger_than_its_picture_are_refused() -> None:
    tags = {key: value for key, value in GREY.items() if key not in (273, 278, 279)}
    tiles = {322: 4096, 323: 4096, 324: tuple(range(8, 108)), 325: (1,) * 100, 256: 1, 257: 409_600, 259: 8}
    with pytest.raises(ImageError, match="tiles that are far larger than the picture"):
        open_photo(tiff_of({**tags, **tiles}, bytes(200)))


@fault(39, "TIFF tags that ask for the file again and again", "ImageError before decoding")
def test_the_tags_of_a_tiff_are_counted() -> None:
    with pytest.raises(ImageError, match=r"has more than 1,000 tags, or more than 64,000,000 bytes of them"):
        open_photo(exif_bomb(100, 10_000_000))
    with pytest.raises(ImageError, match=r"has more than 1,000 tags"):
        open_photo(exif_bomb(1_001, 20_000))
    assert len(Directory(exif_bomb(900, 20_000))) == 900


@pytest.mark.parametrize(("kind", "code"), [(1, "B"), (3, "H"), (4, "I")])
def test_whole_numbers_of_any_kind(kind: int, code: str) -> None:
    entry = struct.pack("<HHI", 274, kind, 1) + struct.pack(f"<{code}", 6).ljust(4, b"\0")
    block = b"II*\0" + struct.pack("<IH", 8, 1) + entry + bytes(4)
    assert orientation({"exif": block}) == 6
    assert Directory(block).numbers(274) == (6,)
    assert Directory(block.replace(struct.pack("<HH", 274, kind), struct.pack("<HH", 274, 2))).numbers(274) == ()


def test_pages_planes_and_orientation_of_a_tiff() -> None:
    pages = [Image.new("RGB", (40, 20), colour) for colour in ("red", "lime")]
    data = encode(pages[0], "TIFF", save_all=True, append_images=pages[1:])
    assert open_photo(data).getpixel((3, 3)) == (255, 0, 0)
    planes = {**GREY, 284: 2, 277: 3, 262: 2, 258: (8, 8, 8), 273: (8, 1208, 2408), 279: (1200,) * 3}
    assert open_photo(tiff_of(planes, b"\1" * 1200 + b"\2" * 1200 + b"\3" * 1200)).getpixel((39, 29)) == (1, 2, 3)
    turned = open_photo(encode(thumbnail(), "TIFF", tiffinfo={274: 6}, compression="tiff_lzw"))
    assert turned.tobytes() == thumbnail().transpose(Image.Transpose.ROTATE_270).tobytes()
    as_it_lies = open_photo(encode(thumbnail(), "TIFF", tiffinfo={274: 6}), upright=False)
    assert as_it_lies.tobytes() == thumbnail().tobytes()


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate", "packbits"])
@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "CMYK", "1", "LA"])
def test_tiffs_are_what_pillow_makes_of_them(compression: str | None, mode: str) -> None:
    image = thumbnail(size=(61, 47)).convert(mode)
    data = encode(image, "TIFF", compression=compression)
    assert open_photo(data).tobytes() == open_photo(image).tobytes()


# AVIF and HEIC.


def lying_avif(data: bytes) -> bytes:
    """It says outside that it is small."""
    place = data.index(b"ispe") + 8
    return data[:place] + struct.pack(">II", 8, 8) + data[place + 8 :]


@fault(39, "an AVIF whose picture is larger than its boxes say", "ImageError before decoding")
def test_the_size_of_an_avif_is_that_within(monkeypatch: pytest.MonkeyPatch) -> None:
    for size in ((1, 1), (48, 36), (300, 17), (1023, 77)):
        for mode, subsampling in (("RGB", "4:2:0"), ("RGBA", "4:4:4"), ("L", "4:0:0")):
            data = encode(thumbnail(size=size).convert(mode), "AVIF", subsampling=subsampling, speed=10)
            assert check_avif(data) == check_avif(lying_avif(data)) == size
    monkeypatch.setenv("SHUFFLENETV2_MAX_PIXELS", "10000")
    data = encode(thumbnail(size=(400, 300)), "AVIF", speed=10)
    for photo in (data, lying_avif(data)):
        with pytest.raises(ImageError, match=r"400x300 pixels, more than the 10,000 allowed"):
            open_photo(photo)


def test_animations_and_exif_bombs_in_avif_are_refused() -> None:
    frames = [thumbnail(), thumbnail().rotate(180)]
    data = encode(frames[0], "AVIF", save_all=True, append_images=frames[1:], speed=10)
    with pytest.raises(ImageError, match="is an animation"):
        open_photo(data)
    data = encode(thumbnail(), "AVIF", exif=exif_bomb(200, 1_000_000))
    with pytest.raises(ImageError, match="more than 64,000,000 bytes of them"):
        open_photo(data)
    with pytest.raises(ImageError, match="more than 100 EXIF blocks"):
        open_photo(encode(thumbnail(), "AVIF") + b"II*\0" * 101)


def test_overlapping_items_of_an_avif_are_refused() -> None:
    data = encode(thumbnail(), "AVIF", exif=b"Exif\0\0" + exif_bomb(1, 30))
    place = data.index(b"iloc")
    items = int.from_bytes(data[place + 10 : place + 12], "big")
    assert items == 2
    box = b"\0\0\0\0\x44\0" + struct.pack(">H", 900) + b"".join(
        struct.pack(">HHHII", item, 0, 1, 0, len(data)) for item in range(900)
    )  # fmt: skip
    meta = b"meta" + bytes(4) + struct.pack(">I", len(box) + 8) + b"iloc" + box
    with pytest.raises(ImageError, match="has items that overlap"):
        open_photo(data[:32] + struct.pack(">I", len(meta) + 4) + meta + data[32:])


def avif_of(*items: bytes) -> bytes:
    """No more than what is looked at: the brand, where the items lie, and the items."""
    brand = struct.pack(">I", 16) + b"ftypavif" + bytes(4)
    start = len(brand) + 8 + 4 + 8 + 8 + 14 * len(items)
    box = bytes(4) + b"\x44\0" + struct.pack(">H", len(items))
    for number, item in enumerate(items):
        box += struct.pack(">HHHII", number, 0, 1, start, len(item))
        start += len(item)
    box = struct.pack(">I", len(box) + 8) + b"iloc" + box
    return brand + struct.pack(">I", len(box) + 12) + b"meta" + bytes(4) + box + b"".join(items)


def unit_of(bits: str, *, kind: int = 1, sized: bool = True) -> bytes:
    """A unit of AV1: its header, its size in LEB128 of two bytes, and what it holds."""
    data = int(bits.ljust(-(-len(bits) // 8) * 8, "0"), 2).to_bytes(-(-len(bits) // 8), "big")
    return bytes([kind << 3 | sized << 1]) + (bytes([len(data) & 127 | 128, len(data) >> 7]) * sized) + data


@st.composite
def sequence_headers(draw: st.DrawFn) -> tuple[str, tuple[int, int]]:
    """Bits as AV1's specification, 5.5, has them, and the size that they state."""
    bits = "0001"

    def put(value: int, length: int) -> int:
        nonlocal bits
        bits += f"{value:0{length}b}" if length else ""
        return value

    def flag() -> int:
        return put(draw(st.integers(0, 1)), 1)

    delay = later = 0
    if flag():
        put(draw(st.integers(0, 31)), 5)
    else:
        if flag():  # timing_info
            put(draw(st.integers(0, 2**64 - 1)), 64)
            if flag():  # num_ticks_per_picture_minus_1, uvlc
                zeros = draw(st.integers(0, 12) | st.just(32))
                bits += "0" * zeros + (
                    f"1{draw(st.integers(0, 2**zeros - 1)):0{zeros}b}"[: 2 * zeros + 1]
                    if 0 < zeros < 32
                    else "1" * (zeros == 0)
                )
            if flag():  # decoder_model_info
                delay = put(draw(st.integers(0, 31)), 5) + 1
                put(draw(st.integers(0, 2**42 - 1)), 42)
        later = flag()
        for _ in range(put(draw(st.integers(0, 4)), 5) + 1):
            put(draw(st.integers(0, 4095)), 12)
            if put(draw(st.integers(0, 31)), 5) > 7:
                flag()
            if delay and flag():
                put(draw(st.integers(0, 2 ** (2 * delay + 1) - 1)), 2 * delay + 1)
            if later and flag():
                put(draw(st.integers(0, 15)), 4)
    lengths = [put(draw(st.integers(0, 15)), 4) + 1 for _ in range(2)]
    width, height = (put(draw(st.integers(0, 2**length - 1)), length) + 1 for length in lengths)
    return bits, (width, height)


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(header=sequence_headers(), more=st.sampled_from(["", "0", "1" * 40]), sized=st.booleans())
def test_the_size_is_read_from_any_sequence_header(header: tuple[str, tuple[int, int]], more: str, sized: bool) -> None:
    """More than 31 zeros end a number without its other half: what decoders do, by which a size could be hidden."""
    bits, size = header
    delimiter, padding = unit_of("0" * 8, kind=2), unit_of("1" * 16, kind=15)
    assert check_avif(avif_of(delimiter + padding + unit_of(bits + more, sized=sized))) == size


def still(width: int, height: int) -> bytes:
    return unit_of(f"000110000011111111{width - 1:016b}{height - 1:016b}")


def test_the_largest_picture_in_an_avif_counts() -> None:
    for sizes in ([(90, 10), (40, 40)], [(40, 40), (90, 10)], [(10, 90), (40, 40), (2, 2)]):
        assert check_avif(avif_of(*(still(*size) for size in sizes))) == (40, 40)
    assert check_avif(avif_of(still(90, 10) + still(40, 40))) == (40, 40)
    assert check_avif(avif_of(unit_of("1" * 64, kind=3))) is None
    check_avif(avif_of(*[b""] * 1000))
    with pytest.raises(ExcessError, match="more than 1,000 items"):
        check_avif(avif_of(*[b""] * 1001))
    check_avif(avif_of(unit_of("0" * 8, kind=2) * 1000))
    with pytest.raises(ExcessError, match="more than 1,000 units in an item"):
        check_avif(avif_of(unit_of("0" * 8, kind=2) * 1001))


@pytest.mark.parametrize("version", [1, 2])
def test_items_may_lie_within_the_metadata(version: int) -> None:
    """In an ``idat`` box, from whose beginning they are counted; where they do not, from that of the file."""
    number = ">H" if version == 1 else ">I"
    for within in (1, 0):
        pictures = still(300, 200), still(50, 40)
        box = bytes([version, 0, 0, 0]) + b"\x44\0" + struct.pack(number, 2)
        place = 0 if within else 16 + 12 + 8 + 8 + len(box) - 8 + 2 * (struct.calcsize(number) + 14) + 8
        for index, picture in enumerate(pictures):
            box += struct.pack(number, index) + struct.pack(">HHHII", within, 0, 1, place, len(picture))
            place += len(picture)
        boxes = struct.pack(">I", len(box) + 8) + b"iloc" + box
        boxes += struct.pack(">I", 8 + sum(map(len, pictures))) + b"idat" + b"".join(pictures)
        brand = struct.pack(">I", 16) + b"ftypavif" + bytes(4)
        data = brand + struct.pack(">I", len(boxes) + 12) + b"meta" + bytes(4) + boxes
        assert check_avif(data) == (300, 200), within


@pytest.mark.parametrize("brand", [b"avif", b"mif1", b"msf1"])
def test_an_avif_by_another_brand(brand: bytes) -> None:
    data = encode(thumbnail(), "AVIF")
    other = data[:8] + brand + data[12:]
    found = recognise(other)
    assert found
    assert found.name == "AVIF"
    assert recognise(data[:8] + b"isom" + data[12:]) is None


def heic_of(brand: bytes = b"heic") -> bytes:
    return struct.pack(">I", 24) + b"ftyp" + brand + bytes(4) + b"mif1heic"


@pytest.mark.parametrize("brand", [b"heic", b"heix", b"mif1"])
def test_a_heic_names_the_package_it_needs(brand: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shufflenetv2.photos.formats.importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImageError, match="is a HEIC, which needs pillow-heif; type: pip install pillow-heif"):
        open_photo(heic_of(brand))
    assert ".heic" not in suffixes()


def test_a_heic_is_read_where_the_package_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for pillow-heif, which is no dependency of the tests: what is asked of it is its opener's class."""
    opened: list[bytes] = []

    class HeifImageFile(Image.Image):
        def __init__(self, file: io.BytesIO, name: str) -> None:
            super().__init__()
            opened.append(file.read())
            picture = thumbnail()
            self.im, self._mode, self._size = picture.im, picture.mode, picture.size

    module = types.ModuleType("pillow_heif")
    module.HeifImageFile = HeifImageFile  # type: ignore[attr-defined]
    module.__spec__ = types.SimpleNamespace()  # type: ignore[assignment]
    monkeypatch.setitem(sys.modules, "pillow_heif", module)
    assert open_photo(heic_of()).tobytes() == thumbnail().tobytes()
    assert opened == [heic_of()]
    assert {".heic", ".heif"} <= set(suffixes())


def test_an_image_that_grows_as_it_is_decoded_is_checked_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    class Growing(Image.Image):
        def load(self) -> None:
            self._size = (20_000, 20_000)

    image = Growing()
    image._mode, image._size = "RGB", (10, 10)
    with pytest.raises(ImageError, match=r"20000x20000 pixels, more than the 120,000,000 allowed"):
        open_photo(image)


def test_a_photo_with_another_formats_suffix_is_read(tmp_path: Path) -> None:
    for suffix, name in (("jfif", "JPEG"), ("tif", "TIFF"), ("jpg", "AVIF")):
        path = tmp_path / f"photo.{suffix}"
        path.write_bytes(encode(thumbnail(CAT), name))
        assert open_photo(path).size == SIZE


# What Pillow takes for something else, without a word.


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({258: 12}, "has 12 bits a channel, and 8 or 16 are read"),
        ({258: 16, 262: 0}, "has 16-bit grey in which white is 0"),
        ({258: (16, 16, 16), 277: 3, 284: 2, 262: 2}, "has 16-bit colours one plane after the other"),
        ({339: 2}, "has values from -128 to 127, and 0 to 255 are read"),
    ],
)
def test_values_that_would_be_misread_are_refused(change: dict[int, int | tuple[int, ...]], message: str) -> None:
    with pytest.raises(ImageError, match=message):
        open_photo(tiff_of({**GREY, **change}, bytes(range(200)) * 12))
    assert open_photo(tiff_of({**GREY, 262: 0}, bytes(range(200)) * 6)).getpixel((0, 0)) == (255,) * 3


def png_of(depth: int, colour: int, row: bytes, key: bytes) -> bytes:
    """One pixel of the key's colour, one of another."""
    header = struct.pack(">IIBBBBB", 2, 1, depth, colour, 0, 0, 0)
    body = png_chunk(b"IHDR", header) + png_chunk(b"tRNS", key) + png_chunk(b"IDAT", zlib.compress(b"\0" + row))
    return b"\x89PNG\r\n\x1a\n" + body + png_chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("depth", "colour", "row", "key", "other"),
    [
        (2, 0, bytes([0b0110_0000]), b"\0\1", 170),
        (4, 0, bytes([0x5A]), b"\0\5", 170),
        (8, 0, bytes([5, 170]), b"\0\5", 170),
        (16, 2, bytes.fromhex("123456789abc") + b"\xaa\0" * 3, bytes.fromhex("123456789abc"), 170),
        (8, 2, bytes([1, 2, 3, 170, 170, 170]), bytes([0, 1, 0, 2, 0, 3]), 170),
    ],
)
def test_the_colour_that_is_seen_through_is_white(depth: int, colour: int, row: bytes, key: bytes, other: int) -> None:
    image = open_photo(png_of(depth, colour, row, key))
    assert image.getpixel((0, 0)) == (255, 255, 255)
    assert image.getpixel((1, 0)) == (other,) * 3
