"""The image formats that are read: how a file of each is known, what is counted before it is decoded, who decodes it.

The number of pixels alone bounds neither time nor memory. A JPEG of 200 kB whose last scan is repeated 200 times
decodes for seconds, a GIF with a comment of 30 MB opens for minutes, a BMP of 1 kB asks for gigabytes. So the parts of
each file are counted first, in the order and with the eyes of the decoder.
"""

import importlib
import importlib.util
import io
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from .avif import check_avif
from .tiff import ExcessError, check_exif, check_tiff

if TYPE_CHECKING:
    from PIL import Image  # folders are listed without it

MAX_PIXELS = 120_000_000  # unless SHUFFLENETV2_MAX_PIXELS says otherwise
MAX_PIXELS_COPIED = 50_000_000  # the same for formats whose decoders hold several copies of the picture
MAX_SCANS = 64  # of a JPEG; progressive files have about ten
MAX_SEGMENTS = 1_000  # of a JPEG; 32 MB of full ones are 500
MAX_STRAY = 100_000  # bytes between the segments of a JPEG
MAX_CHUNKS = 100_000  # of a PNG; libpng's default of 8 kB each makes 4,000 of 32 MB
MAX_BLOCKS = 10_000  # of a GIF, before its first frame; a megabyte of them is 4,000
MAX_RUNS = 4_000_000  # bytes, pixels and 256 lines of an RLE-compressed BMP, which is decoded in Python

# Within compressed data 0xFF is followed by 0x00 or by a restart marker, 0xD0 to 0xD7.
_JPEG_MARKER = re.compile(rb"\xff([^\x00\xd0-\xd7\xff])")
_END_OF_IMAGE, _START_OF_SCAN = 0xD9, 0xDA
_WITHOUT_LENGTH = {*range(0xC0), 0xC8, 0xD8, _END_OF_IMAGE, *range(0xF0, 0xFE)}

_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs")


class Format(NamedTuple):
    """One format; all that the package knows of it stands in its row of ``FORMATS``."""

    name: str
    suffixes: tuple[str, ...]
    begins: Callable[[bytes], bool]
    check: Callable[
        [bytes], tuple[int, int] | None
    ]  # the size, where the decoder allocates before it tells; or ExcessError
    decoder: str  # module and class
    max_pixels: int = MAX_PIXELS
    requires: str = ""  # an optional package, as pip calls it

    def available(self) -> bool:
        return not self.requires or importlib.util.find_spec(self.decoder.partition(":")[0]) is not None

    def open(self, data: bytes) -> "Image.Image":
        """Read the header.

        Not by ``Image.open``: it has a limit on pixels of its own, one for the whole process, so that it can neither be
        raised for one call nor be changed while other threads open photos of theirs.
        """
        module, _, name = self.decoder.partition(":")
        image: Image.Image = getattr(importlib.import_module(module, __package__), name)(io.BytesIO(data), "")
        return image


def recognise(data: bytes) -> Format | None:
    return next((each for each in FORMATS if each.begins(data)), None)


def suffixes() -> tuple[str, ...]:
    """Of the photos in folders: those of the formats that can be read here."""
    return tuple(suffix for each in FORMATS if each.available() for suffix in each.suffixes)


def remedy(suffix: str) -> str:
    """What to do so that files of that name are read; empty where nothing helps."""
    lacking = [each.requires for each in FORMATS if suffix in each.suffixes and not each.available()]
    return f"pip install {lacking[0]}" if lacking else ""


def check_jpeg(data: bytes) -> None:
    """Damage is the decoder's business here as below: it ends the count."""
    scans = segments = stray = 0
    position = 2
    while match := _JPEG_MARKER.search(data, position):
        marker = match[1][0]
        if marker == _END_OF_IMAGE and scans:
            return
        if not scans:  # between scans lies compressed data
            stray += match.start() - position
        position = match.end()
        scans += marker == _START_OF_SCAN
        segments += 1
        if scans > MAX_SCANS:
            raise ExcessError(f"has more than {MAX_SCANS} scans, each of them a pass over the picture")
        if segments > MAX_SEGMENTS:
            raise ExcessError(f"has more than {MAX_SEGMENTS:,} segments")
        if stray > MAX_STRAY:
            raise ExcessError(f"has more than {MAX_STRAY:,} bytes between its segments")
        if marker not in _WITHOUT_LENGTH:
            position += max(2, int.from_bytes(data[position : position + 2], "big"))


def check_png(data: bytes) -> None:
    position = 8
    for _ in range(MAX_CHUNKS + 1):
        if position + 8 > len(data):
            return
        position += 12 + int.from_bytes(data[position : position + 4], "big")
    raise ExcessError(f"has more than {MAX_CHUNKS:,} chunks")


def check_webp(data: bytes) -> tuple[int, int] | None:
    """Width and height from the first chunk: the decoder allocates all of the picture when it is opened."""
    kind = data[12:16]
    if len(data) < 30:
        return None
    if kind == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 ":
        return int.from_bytes(data[26:28], "little") & 0x3FFF, int.from_bytes(data[28:30], "little") & 0x3FFF
    return None


def check_gif(data: bytes) -> tuple[int, int]:
    """The size, of the screen or of a first frame that is larger.

    What lies before that frame is counted, since Pillow joins the blocks of comments one by one.
    """
    flags = data[10] if len(data) > 10 else 0
    position = 13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
    blocks = 0

    def block() -> bytes:
        nonlocal position, blocks
        length = data[position] if position < len(data) else 0
        start = position + 1
        position, blocks = start + length, blocks + 1
        return data[start:position]

    while position < len(data) and data[position] not in b",;" and blocks <= MAX_BLOCKS:
        extension = data[position] == ord("!")
        position, blocks = position + 1, blocks + 1
        if not extension:
            continue
        label = data[position] if position < len(data) else 0
        position += 1
        first = block()
        if label == 0xFE and not first:  # an empty comment
            continue
        if label == 0xFF and first.startswith(b"NETSCAPE2.0"):
            block()
        while block() and blocks <= MAX_BLOCKS:
            pass
    if blocks > MAX_BLOCKS:
        raise ExcessError(f"has more than {MAX_BLOCKS:,} blocks before its first frame")
    numbers = [data[start : start + 2] for start in (6, 8, *range(position + 1, position + 9, 2))]
    width, height, left, top, frame_width, frame_height = (int.from_bytes(each, "little") for each in numbers)
    if data[position : position + 1] != b",":
        return width, height
    return max(width, left + frame_width), max(height, top + frame_height)


def check_bmp(data: bytes) -> None:
    """Runs may also skip up to 255 lines at once, whatever the height."""
    width, height = (int.from_bytes(data[start : start + 4], "little", signed=True) for start in (18, 22))
    compression = int.from_bytes(data[30:34], "little") if int.from_bytes(data[14:18], "little") > 12 else 0
    if compression in (1, 2) and abs(width) * (abs(height) + 256) + len(data) > MAX_RUNS:
        raise ExcessError(
            f"is compressed by runs (RLE), which is read up to {MAX_RUNS:,} bytes and pixels and a width of "
            f"{MAX_RUNS // 256:,}"
        )


def check_heic(data: bytes) -> None:
    """The decoder bounds itself, but for the EXIF block, of which Pillow could be made to read every tag."""
    check_exif(data)


def _starts(*beginnings: bytes) -> Callable[[bytes], bool]:
    return lambda data: data.startswith(beginnings)


def _webp(data: bytes) -> bool:
    return data[:4] == b"RIFF" and data[8:12] == b"WEBP"


def _brands(data: bytes) -> tuple[bytes, ...]:
    """What a file of ISO boxes says it is, the first foremost; none if it is no such file."""
    if data[4:8] != b"ftyp":
        return ()
    listed = data[16 : min(int.from_bytes(data[:4], "big"), 256)]
    return data[8:12], *(listed[start : start + 4] for start in range(0, len(listed), 4))


def _avif(data: bytes) -> bool:
    brands = _brands(data)
    return brands[:1] in ((b"avif",), (b"avis",)) or (
        brands[:1] in ((b"mif1",), (b"msf1",)) and not {b"avif", b"avis"}.isdisjoint(brands)
    )


def _heic(data: bytes) -> bool:
    return not set(_HEIC_BRANDS).isdisjoint(_brands(data))


FORMATS = (
    Format("JPEG", (".jpg", ".jpeg", ".jpe", ".jfif"), _starts(b"\xff\xd8\xff"), check_jpeg, ".decoders:Jpeg"),
    Format("PNG", (".png",), _starts(b"\x89PNG\r\n\x1a\n"), check_png, "PIL.PngImagePlugin:PngImageFile"),
    Format("WEBP", (".webp",), _webp, check_webp, "PIL.WebPImagePlugin:WebPImageFile", MAX_PIXELS_COPIED),
    Format("GIF", (".gif",), _starts(b"GIF87a", b"GIF89a"), check_gif, "PIL.GifImagePlugin:GifImageFile"),
    Format("BMP", (".bmp",), _starts(b"BM"), check_bmp, "PIL.BmpImagePlugin:BmpImageFile"),
    Format("TIFF", (".tif", ".tiff"), _starts(b"II*\0", b"MM\0*"), check_tiff, ".decoders:Tiff", MAX_PIXELS_COPIED),
    Format("AVIF", (".avif",), _avif, check_avif, "PIL.AvifImagePlugin:AvifImageFile", MAX_PIXELS_COPIED),
    Format(
        "HEIC", (".heic", ".heif"), _heic, check_heic, "pillow_heif:HeifImageFile", MAX_PIXELS_COPIED, "pillow-heif"
    ),
)
