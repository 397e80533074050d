"""Untrusted bytes become an upright RGB image, or an ``ImageError``, at a bounded cost of time and memory.

Nothing is decoded before its size is known to be acceptable. The number of pixels alone bounds neither time nor memory:
a JPEG of 200 kB whose last scan is repeated 200 times decodes for seconds, one of 3 MB made of empty segments takes a
hundred megabytes, and a WebP decoder allocates its canvas before it can be asked for its size. So the parts of files in
the formats that can do this are counted first.
"""

import io
import os
import re

from ..errors import ImageError
from ..files import NotRegularError, read_regular
from ..package import limit, require

try:
    from PIL import Image as Image  # the neighbours import it from here, where its absence is explained
except ImportError:
    require("reading photos", "pillow>=12.3")
    raise

MAX_PIXELS = 50_000_000  # unless SHUFFLENETV2_MAX_PIXELS says otherwise
MAX_BYTES = 32_000_000  # unless SHUFFLENETV2_MAX_BYTES does
MAX_SCANS = 64  # of a JPEG; progressive files have about ten
MAX_SEGMENTS = 10_000  # of a JPEG; 32 MB of full ones are 500
MAX_CHUNKS = 100_000  # of a PNG; libpng's default of 8 kB each makes 4,000 of 32 MB
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp")

_ORIENTATION = 0x0112  # EXIF tag; its values 2 to 8 are undone by these operations
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# Within compressed data 0xFF is followed by 0x00 or by a restart marker, 0xD0 to 0xD7.
_JPEG_MARKER = re.compile(rb"\xff([^\x00\xd0-\xd7\xff])")
_END_OF_IMAGE, _START_OF_SCAN, _START_OF_IMAGE, _FIRST_WITH_LENGTH = 0xD9, 0xDA, 0xD8, 0xC0


def max_pixels() -> int:
    """The most pixels of a photo; ``ValueError`` if SHUFFLENETV2_MAX_PIXELS is no number above 0."""
    return int(limit("SHUFFLENETV2_MAX_PIXELS", MAX_PIXELS))


def max_bytes() -> int:
    """The most bytes of an image file; ``ValueError`` if SHUFFLENETV2_MAX_BYTES is no number above 0."""
    return int(limit("SHUFFLENETV2_MAX_BYTES", MAX_BYTES))


def open_photo(photo: str | os.PathLike[str] | bytes | Image.Image, name: str | None = None) -> Image.Image:
    """Open a photo as a person sees it: upright, transparency on white, the first frame of an animation, in RGB.

    Args:
        photo: path of a regular file, the bytes of one (JPEG, PNG, WEBP, GIF or BMP), or a PIL image.
        name: what to call it in messages.

    Returns:
        A PIL image of mode RGB, loaded. Plain RGB images come back unchanged.

    Raises:
        ImageError: it is missing, too large, damaged or no image; the message names it.
        ValueError: SHUFFLENETV2_MAX_PIXELS or SHUFFLENETV2_MAX_BYTES is no number above 0.
    """
    name = name or _name(photo)
    allowed = max_pixels()  # here and in _read, not below: a wrong setting is no fault of the photo's
    image = photo if isinstance(photo, Image.Image) else _read(photo, name)
    try:
        if isinstance(image, bytes):
            image = _open(image, allowed, name)
        check_size(image.size, allowed, name)
        image.load()
        image = _upright(image)  # one name for every stage, so that no two of them stay in memory
        return _to_rgb(image, name)
    except ImageError:
        raise
    except Exception as error:  # Pillow's decoders raise a dozen unrelated types on damaged files
        reason = str(error) or type(error).__name__
        raise ImageError(f"{name} cannot be decoded ({reason}); is the file complete?") from error


def _name(photo: object) -> str:
    if isinstance(photo, (str, os.PathLike)):
        return os.fspath(photo)
    if isinstance(photo, bytes):
        return f"<{len(photo)} bytes>"
    return getattr(photo, "filename", "") or f"<{type(photo).__name__}>"


def _read(photo: str | os.PathLike[str] | bytes, name: str) -> bytes:
    allowed = max_bytes()
    try:
        data = photo if isinstance(photo, bytes) else read_regular(photo, allowed)
    except NotRegularError as error:
        raise ImageError(f"{name} {error}") from error
    except (OSError, ValueError) as error:
        hint = "; download it first" if "://" in name else ""
        raise ImageError(f"{name} cannot be opened: {getattr(error, 'strerror', None) or error}{hint}") from error
    if not data:
        raise ImageError(f"{name} is empty, expected an image")
    if len(data) > allowed:
        raise ImageError(
            f"{name} is larger than the {allowed:,} bytes allowed; make it smaller, or set SHUFFLENETV2_MAX_BYTES "
            "in the environment to allow more"
        )
    return data


def _open(data: bytes, allowed: int, name: str) -> Image.Image:
    """Read the header only.

    Not by ``Image.open``: it has a limit on pixels of its own, one for the whole process, so that it can neither be
    raised for one call nor be changed while other threads open photos of theirs.
    """
    problem = excess(data)
    if problem:
        raise ImageError(f"{name} has {problem}: it would cost far more time than its picture; save it anew")
    check_size(webp_size(data) or (1, 1), allowed, name)  # its decoder allocates all of it when it is opened
    Image.preinit()
    for format in FORMATS:
        if format not in Image.OPEN:
            Image.init()
        decoder, accepts = Image.OPEN[format]
        if accepts and accepts(data[:16]) is True:
            break
    else:
        raise ImageError(f"{name} is no image of a known format ({', '.join(FORMATS)}); it begins with {data[:12]!r}")
    try:
        return decoder(io.BytesIO(data), "")
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:  # of GIF's decoder, as it opens
        raise ImageError(f"{name} has a frame too large for a GIF ({error}); save it in another format") from error


def check_size(size: tuple[int, int], allowed: int, name: str) -> None:
    """Refuse photos without pixels, or with more than ``allowed``.

    Raises:
        ImageError: it begins with ``name``, and says how to allow more.
    """
    width, height = size
    if width < 1 or height < 1:
        raise ImageError(f"{name} is {width}x{height} pixels: it holds no picture")
    if width * height > allowed:
        raise ImageError(
            f"{name} is {width}x{height} pixels, more than the {allowed:,} allowed; make it smaller, or set "
            "SHUFFLENETV2_MAX_PIXELS in the environment to allow more"
        )


def _upright(image: Image.Image) -> Image.Image:
    try:
        operation = _UPRIGHT.get(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # damaged EXIF is common and says nothing about the pixels: show them as they lie
        return image
    return image if operation is None else image.transpose(operation)


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode == "F":
        raise ImageError(f"{name} has floating-point values (mode F), whose range is unknown; convert it to L or RGB")
    if image.mode.startswith("I"):
        image = _to_8_bits(image)
    if image.has_transparency_data:
        image = image if image.mode == "RGBA" else image.convert("RGBA")
        opaque = Image.new("RGB", image.size, "white")
        opaque.paste(image, mask=image)  # its alpha channel is meant
        return opaque
    return image.convert("RGB")


def _to_8_bits(image: Image.Image) -> Image.Image:
    """16-bit grey, scaled; ``convert`` alone would clip everything above 255 to white."""
    transparent = image.info.get("transparency")
    image = image.convert("I").point(lambda value: value * (255 / 65535) + 0.5).convert("L")
    if isinstance(transparent, int):  # the grey value that is seen through, now with its neighbours of the same 8 bits
        image.info["transparency"] = int(transparent * (255 / 65535) + 0.5)
    return image


def excess(data: bytes) -> str | None:
    """What is too much about the file, or ``None``. Damage is the decoder's business: it ends the count here."""
    if data.startswith(b"\xff\xd8"):
        return _jpeg(data)
    return _png(data) if data.startswith(b"\x89PNG\r\n\x1a\n") else None


def webp_size(data: bytes) -> tuple[int, int] | None:
    """Width and height from the first chunk of a WebP file; ``None`` if it is none or has neither."""
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP" or len(data) < 30:
        return None
    kind = data[12:16]
    if kind == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 ":
        return int.from_bytes(data[26:28], "little") & 0x3FFF, int.from_bytes(data[28:30], "little") & 0x3FFF
    return None


def _jpeg(data: bytes) -> str | None:
    scans = segments = 0
    position = 2
    while match := _JPEG_MARKER.search(data, position):
        marker, position = match[1][0], match.end()
        if marker == _END_OF_IMAGE:
            return None
        scans += marker == _START_OF_SCAN
        segments += 1
        if scans > MAX_SCANS or segments > MAX_SEGMENTS:
            return f"more than {MAX_SCANS} scans" if scans > MAX_SCANS else f"more than {MAX_SEGMENTS:,} segments"
        # The lower markers are reserved: decoders skip them, and not by a length.
        if marker >= _FIRST_WITH_LENGTH and marker != _START_OF_IMAGE:
            position += max(2, int.from_bytes(data[position : position + 2], "big"))
    return None


def _png(data: bytes) -> str | None:
    position = 8
    for _ in range(MAX_CHUNKS):
        if position + 8 > len(data):
            return None
        position += 12 + int.from_bytes(data[position : position + 4], "big")
    return f"more than {MAX_CHUNKS:,} chunks"
