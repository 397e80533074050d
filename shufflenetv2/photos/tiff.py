"""TIFF's directories, in which also EXIF keeps its tags: what is needed is read, what they ask for is bounded."""

import re
import struct
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

MAX_TAGS = 1_000  # of a TIFF file or an EXIF block; cameras write about sixty
MAX_TAG_BYTES = 64_000_000  # that all tags together may ask for; an honest file's have room in it
MAX_PARTS = 100_000  # strips or tiles
MAX_PART_PIXELS = 2**24  # of a strip or tile that is larger than the picture
MAX_EXIF_BLOCKS = 100  # in a file of AVIF or HEIC, which have one

WIDTH, HEIGHT, BITS, COMPRESSION, WHITE, ORIENTATION, SAMPLES, ROWS = 256, 257, 258, 259, 262, 274, 277, 278
PLANES, SIGN = 284, 339
STRIPS, STRIP_BYTES, TILE_WIDTH, TILE_HEIGHT, TILES, TILE_BYTES = 273, 279, 322, 323, 324, 325
COMPRESSIONS = {1: "none", 5: "LZW", 7: "JPEG", 8: "Deflate", 32773: "PackBits", 32946: "Deflate"}

_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8}  # by type
_HEADER = re.compile(rb"II\*\0|MM\0\*|MM\*\0|II\0\*")  # Pillow takes the last two as well
_XMP_ORIENTATION = re.compile(r'tiff:Orientation(?:="|>)([0-9])')


class ExcessError(Exception):
    """A file asks for far more than its picture needs; the message says of it what."""


class Tag(NamedTuple):
    kind: int
    values: int  # how many
    place: int  # of its values in the file


class Directory(dict[int, Tag]):
    """The first directory of TIFF ``data``, as far as it can be read; ``asked`` counts the bytes of all its tags."""

    def __init__(self, data: bytes | memoryview) -> None:
        self.data = data
        self.order = ">" if bytes(data[:2]) == b"MM" else "<"
        self.entries = self.asked = 0
        try:
            (start,) = struct.unpack_from(f"{self.order}I", data, 4)
            (self.entries,) = struct.unpack_from(f"{self.order}H", data, start)
            for place in range(start + 2, start + 2 + 12 * min(self.entries, MAX_TAGS), 12):
                tag, kind, count, offset = struct.unpack_from(f"{self.order}HHII", data, place)
                if kind in _SIZES:
                    size = count * _SIZES[kind]
                    self[tag] = Tag(kind, count, place + 8 if size <= 4 else offset)
                    self.asked += size if size <= len(data) else 0  # a tag that cannot be there ends Pillow's reading
        except struct.error:
            pass

    def numbers(self, tag: int) -> tuple[int, ...]:
        """Its values if it holds whole numbers, at most MAX_PARTS, and they are there; else none."""
        found = self.get(tag)
        code = {1: "B", 3: "H", 4: "I"}.get(found.kind) if found else None
        if found is None or code is None or found.values > MAX_PARTS:
            return ()
        try:
            return struct.unpack_from(f"{self.order}{found.values}{code}", self.data, found.place)
        except struct.error:
            return ()

    def number(self, tag: int, default: int = 0) -> int:
        return (self.numbers(tag) or (default,))[0]

    def check(self) -> None:
        """Pillow reads every tag, and each may ask for the whole file again."""
        if self.entries > MAX_TAGS or self.asked > MAX_TAG_BYTES:
            raise ExcessError(f"has more than {MAX_TAGS:,} tags, or more than {MAX_TAG_BYTES:,} bytes of them")


ORIENTED = ("exif", "Raw profile type exif", "XML:com.adobe.xmp", "xmp")  # of Image.info: where orientation() looks


def orientation(info: Mapping[str | tuple[int, int], Any]) -> int:
    """EXIF's number from 1 to 8, or another where it is wrong, of the metadata that Pillow found; 1 is upright.

    ``Image.getexif`` would read every tag, and each may ask for megabytes.
    """
    exif = info.get("exif")
    if exif is None and "Raw profile type exif" in info:  # as ImageMagick keeps it in a PNG: hexadecimal, after 3 lines
        exif = bytes.fromhex("".join(info["Raw profile type exif"].split("\n")[3:]))
    if exif:
        found = Directory(exif.removeprefix(b"Exif\0\0")).number(ORIENTATION)
        if found:
            return found
    xmp = info.get("XML:com.adobe.xmp") or info.get("xmp") or ""
    match = _XMP_ORIENTATION.search(xmp.decode("latin-1") if isinstance(xmp, bytes) else str(xmp))
    return int(match[1]) if match else 1


def check_exif(data: bytes) -> None:
    """Wherever in ``data`` an EXIF block may begin."""
    places = [match.start() for match, _ in zip(_HEADER.finditer(data), range(MAX_EXIF_BLOCKS + 1), strict=False)]
    if len(places) > MAX_EXIF_BLOCKS:
        raise ExcessError(f"has more than {MAX_EXIF_BLOCKS} EXIF blocks")
    for place in places:
        Directory(memoryview(data)[place:]).check()


def check_tiff(data: bytes) -> tuple[int, int]:
    """The size; refused are files whose strips or tiles overlap, are too many, or far larger than the picture."""
    tags = Directory(data)
    tags.check()
    compression = tags.number(COMPRESSION, 1)
    if compression not in COMPRESSIONS:
        raise ExcessError(
            f"is compressed in way {compression}; {', '.join(dict.fromkeys(COMPRESSIONS.values()))} are read"
        )
    check_values(tags, compression)
    width, height = tags.number(WIDTH), tags.number(HEIGHT)
    tiled = TILE_WIDTH in tags or TILE_HEIGHT in tags or TILES in tags
    if tiled and STRIPS in tags:
        raise ExcessError("has strips as well as tiles")
    across, down = (tags.number(TILE_WIDTH), tags.number(TILE_HEIGHT)) if tiled else (width, tags.number(ROWS, height))
    if not tiled and down >= 2**31:
        down = height  # so "all of them" may be said
    if min(width, height, across, down) < 1:
        return width, height
    columns, rows = -(-width // across), -(-height // down)
    samples, together = tags.number(SAMPLES, 1), tags.number(PLANES, 1) != 2
    parts = columns * rows * (1 if together else samples)
    offsets, sizes = tags.numbers(TILES if tiled else STRIPS), tags.numbers(TILE_BYTES if tiled else STRIP_BYTES)
    if max(parts, len(offsets)) > MAX_PARTS:
        raise ExcessError(f"has more than {MAX_PARTS:,} strips or tiles")
    if columns * rows * across * down > 4 * width * height + MAX_PART_PIXELS:
        raise ExcessError("has strips or tiles that are far larger than the picture")
    if compression == 1:
        line = -(-across * tags.number(BITS, 1) * (samples if together else 1) // 8)
        last = height - (rows - 1) * down
        lines = (down if tiled or part // columns % rows < rows - 1 else last for part in range(len(offsets)))
        sizes = tuple(line * each for each in lines)
    if min(len(offsets), len(sizes)) < parts:
        raise ExcessError("does not say where all of its strips or tiles lie")
    check_parts(offsets, sizes)
    return width, height


def check_values(tags: Directory, compression: int) -> None:
    """Refuse what Pillow takes for something else, without a word: other greys, inverted, in pieces."""
    bits = tags.numbers(BITS) or (1,)
    if odd := [each for each in bits if each not in (1, 2, 4, 8, 16, 32)]:
        raise ExcessError(f"has {odd[0]} bits a channel, and 8 or 16 are read")
    if bits[0] > 8 and tags.number(WHITE, 1) == 0:
        raise ExcessError(f"has {bits[0]}-bit grey in which white is 0, and black is expected there")
    if bits[0] > 8 and len(bits) > 1 and compression == 1 and tags.number(PLANES, 1) == 2:
        raise ExcessError(f"has {bits[0]}-bit colours one plane after the other, which are read if they are compressed")
    if bits[0] > 8 and 2 in tags.numbers(SIGN) and tags.order == ">" and compression != 1:
        raise ExcessError(f"has compressed {bits[0]}-bit values with a sign, high byte first; save them low byte first")
    if bits[0] == 8 and 2 in tags.numbers(SIGN):
        raise ExcessError("has values from -128 to 127, and 0 to 255 are read")


def check_parts(offsets: Sequence[int], sizes: Sequence[int]) -> None:
    """None shares bytes with another, since each is read for itself."""
    parts = sorted(zip(offsets, sizes, strict=False))
    if any(start + size > following for (start, size), (following, _) in pairwise(parts)):
        raise ExcessError("has strips or tiles that overlap")
