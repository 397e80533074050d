"""Untrusted bytes become an upright RGB image, or an ``ImageError``, at a bounded cost of time and memory.

Nothing is decoded before its size and the number of its parts are known to be acceptable (``formats.py`` counts them).
"""

import io
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..errors import ImageError
from ..files import shown
from ..package import count, limit, require

try:
    from PIL import Image as Image  # the neighbours import it from here, where its absence is explained
except ImportError:
    require("reading photos", "pillow>=12.3")
    raise

from .colours import fit_key, halved, to_rgb, white_of, without_blank_alpha
from .formats import FORMATS, MAX_PIXELS, recognise
from .reading import Held, photo_name, read_photo
from .tiff import ORIENTATION, ORIENTED, ExcessError, orientation

MIN_WIDTH = 8  # each row costs as much again
EXACT_PIXELS = 50_000_000  # larger photos are halved before anything else is done with them

_UPRIGHT = {  # how the values 2 to 8 of EXIF's orientation are undone
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# A PIL image decodes itself when it is first used, and several threads may have been given the same: they take turns.
# So do images with a file that they do not own, the first lock's: it may be the same, as of the members of an archive.
_LOADING = [threading.Lock() for _ in range(16)]
_SAME_SHAPE = (_UPRIGHT[2], _UPRIGHT[3], _UPRIGHT[4])


def pixel_limit(max_pixels: int | None = None, default: int = MAX_PIXELS) -> int:
    """The most pixels of a photo: ``max_pixels``, else what SHUFFLENETV2_MAX_PIXELS says, else ``default``.

    Raises:
        ValueError: it is no number above 0.
    """
    if max_pixels is None:
        return int(limit("SHUFFLENETV2_MAX_PIXELS", default))
    return count("max_pixels", max_pixels, 1)


def open_photo(
    photo: Any, name: str | None = None, *, max_pixels: int | None = None, upright: bool = True
) -> Image.Image:
    """Open a photo as a person sees it: upright, transparency on white, the first frame of an animation, in RGB.

    Args:
        photo: the path of a regular file (``~`` is the home directory), an ``https://`` address (``fetch_photo`` states
            its limits), its bytes, a file object opened in binary mode, a PIL image, or a numpy array ``(H, W, 3)`` of
            uint8 in RGB (OpenCV's are BGR: ``array[..., ::-1]``). Files are JPEG, PNG, WEBP, GIF, BMP, TIFF (its first
            page) or AVIF, and HEIC where pillow-heif is installed.
        name: what to call it in messages.
        max_pixels: the most pixels; ``None`` takes SHUFFLENETV2_MAX_PIXELS from the environment, else 120 million (50
            million for WEBP, TIFF, AVIF and HEIC, whose decoders hold several copies of the picture).
        upright: turn the photo as its EXIF orientation says. ``False`` leaves it as its pixels lie: for PIL images that
            were turned already and still carry the tag (``image.rotate`` keeps it, ``ImageOps.exif_transpose`` does
            not).

    Returns:
        A PIL image of mode RGB, loaded. Plain RGB images come back unchanged; photos of more than 50 million pixels at
        half their width and height, or a quarter, so that they have no more.

    Raises:
        ImageError: it is missing, too large, damaged or no image; the message names it.
        ValueError: ``max_pixels``, SHUFFLENETV2_MAX_PIXELS or SHUFFLENETV2_MAX_BYTES is no number above 0.
    """
    return open_sized(photo, name, max_pixels=max_pixels, upright=upright)[0]


def open_sized(
    photo: Any, name: str | None = None, *, max_pixels: int | None, upright: bool, shortest: int | None = None
) -> tuple[Image.Image, tuple[int, int]]:
    """The same, and the photo's own width and height; JPEG's decoder may halve it while both stay ``shortest``."""
    name = shown(name or photo_name(photo))
    allowed = pixel_limit(max_pixels)  # here and in _read, not below: a wrong setting is no fault of the photo's
    given = photo if isinstance(photo, Image.Image) else _from_array(photo, allowed, name) or read_photo(photo, name)
    with decoding(name):
        if isinstance(given, bytes):
            image, allowed, (width, height) = open_header(given, max_pixels, name, shortest)
        else:
            image, (width, height) = given, given.size
        check_size(image.size, allowed, name)
        with _LOADING[id(image) // 64 % 15 + 1 if getattr(image, "_exclusive_fp", False) else 0]:
            image.load()
            turn = _UPRIGHT.get(orientation_of(image, given)) if upright else None
        check_size(image.size, allowed, name)  # once more: some decoders find another size as they decode
        white = white_of(image, name)
        image = without_blank_alpha(image)
        while image.width * image.height > EXACT_PIXELS:
            image = halved(image, white)
        if turn is not None:
            if turn not in _SAME_SHAPE:
                width, height = height, width
            image = image.transpose(turn)  # one name for every stage, so that no two of them stay in memory
            for key in ORIENTED:  # else whoever is given the picture turns it again
                image.info.pop(key, None)
        return to_rgb(image, white), (width, height)


@contextmanager
def decoding(name: str) -> Iterator[None]:
    """Around what Pillow decodes: of damaged files it raises a dozen unrelated types, here an ``ImageError``."""
    try:
        yield
    except ImageError:
        raise
    except Exception as error:
        reason = shown(str(error)) or type(error).__name__
        # Of PNG, Pillow reads profiles and texts of up to a megabyte each.
        advice = "save it anew without its metadata" if "MAX_TEXT_" in reason else "is the file complete?"
        raise ImageError(f"{name} cannot be decoded ({reason}); {advice}") from error


def snapshot(photo: Any, max_pixels: int | None) -> Any:
    """A generator's photo as it is now: its next step may fill the same memory or file, or close or seek the same file.

    Raises:
        ImageError: a file object cannot be read.
    """
    for library, kind, copy in (("torch", "Tensor", "clone"), ("numpy", "ndarray", "copy")):
        if library in sys.modules and isinstance(photo, getattr(sys.modules[library], kind)):
            return getattr(photo, copy)()
    if isinstance(photo, (bytearray, memoryview)):
        return bytes(photo)
    if not isinstance(photo, Image.Image):
        return read_now(photo)
    try:
        check_size(photo.size, pixel_limit(max_pixels), "")
        now = _undecoded(photo) or photo.copy()
        now.format = photo.format  # which says what alpha means
        now.getexif()[ORIENTATION] = photo.getexif().get(ORIENTATION, 1)  # which a TIFF keeps elsewhere
        return now
    except Exception:  # it is told when the photo is transformed
        return photo


def read_now(photo: Any) -> Any:
    """What a file object gives, read here and now: others may lie in the same file, as the members of an archive do.

    Raises:
        ImageError: it cannot be read.
    """
    if isinstance(photo, Image.Image) or not callable(getattr(photo, "read", None)):
        return photo
    name = photo_name(photo)
    return Held(read_photo(photo, name), name)


def _undecoded(photo: Image.Image) -> Image.Image | None:
    """A JPEG file that nobody has decoded, once more, from bytes of its own: a thread may decode it."""
    file = getattr(photo, "fp", None)
    if photo.format != "JPEG" or file is None or not getattr(photo, "tile", None):
        return None
    place = file.tell()
    file.seek(0)
    again = Image.open(io.BytesIO(file.read()))
    file.seek(place)
    if again.size != photo.size or again.mode != photo.mode:  # it was told to decode otherwise
        return None
    again.filename = getattr(photo, "filename", "")  # for messages
    return again


def _from_array(photo: object, allowed: int, name: str) -> Image.Image | None:
    numpy = sys.modules.get("numpy")
    if numpy is None or not isinstance(photo, numpy.ndarray):
        return None
    if len(photo.shape) != 3 or photo.shape[2] != 3:
        one = len(photo.shape) == 3 and photo.shape[2] == 1
        raise ImageError(
            f"{name} has shape {photo.shape}, expected (H, W, 3), in RGB; for grey give "
            f"{'array.repeat(3, -1)' if one else 'numpy.stack((array,) * 3, -1)'}, with alpha "
            "PIL.Image.fromarray(array), for a batch list(array)"
        )
    if str(photo.dtype) != "uint8":
        raise ImageError(
            f"{name} holds {photo.dtype}, expected uint8 from 0 to 255; where 1 is white: "
            "(array * 255).round().astype('uint8')"
        )
    height, width, _ = photo.shape
    check_size((width, height), allowed, name)
    return Image.frombytes("RGB", (width, height), photo.tobytes())


def open_header(
    data: bytes, max_pixels: int | None, name: str, shortest: int | None
) -> tuple[Image.Image, int, tuple[int, int]]:
    """The image, of which the header was read, the most pixels that it may have, and its size as the file has it."""
    format = recognise(data)
    if format is None:
        known = ", ".join(each.name for each in FORMATS)
        raise ImageError(f"{name} is no image of a known format ({known}); it begins with {data[:12]!r}")
    if not format.available():
        raise ImageError(
            f"{name} is a {format.name}, which needs {format.requires}; type: pip install {format.requires}"
        )
    allowed = pixel_limit(max_pixels, format.max_pixels)
    try:
        check_size(format.check(data) or (1, 1), allowed, name)
        image = format.open(data)
        if format.name == "PNG":
            fit_key(image, data[24])
    except ExcessError as error:
        raise ImageError(f"{name} {error}; save it anew") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:  # of GIF's decoder, as it opens
        raise ImageError(f"{name} has a frame too large for a GIF ({error}); save it in another format") from error
    if image.mode == "CMYK":  # of a JPEG, four bands wait for their last scan in 8 bytes a pixel
        allowed = pixel_limit(max_pixels, format.max_pixels * 3 // 4)
    size = image.size
    check_size(size, allowed, name)  # before it is made smaller: a progressive file is decoded whole even then
    if format.name == "JPEG" and shortest and min(size) >= 2 * shortest:
        image.draft(None, (shortest, shortest))
    elif format.name == "JPEG" and image.width * image.height > EXACT_PIXELS:
        image.draft(None, (max(1, image.width // 2), max(1, image.height // 2)))
    return image, allowed, size


def check_size(size: tuple[int, int], allowed: int, name: str) -> None:
    """Refuse photos without pixels, or with more than ``allowed``.

    Raises:
        ImageError: it begins with ``name``, and says how to allow more.
    """
    width, height = size
    if width < 1 or height < 1:
        raise ImageError(f"{name} is {width}x{height} pixels: it holds no picture")
    if max(width, MIN_WIDTH) * height > allowed:
        narrow = f" (rows of fewer than {MIN_WIDTH} count as {MIN_WIDTH})" if width < MIN_WIDTH else ""
        raise ImageError(
            f"{name} is {width}x{height} pixels{narrow}, more than the {allowed:,} allowed; make it smaller, or set "
            "SHUFFLENETV2_MAX_PIXELS in the environment, or max_pixels=, or --max-pixels, to allow more"
        )


def orientation_of(image: Image.Image, given: object) -> int:
    """EXIF's: 1 is upright."""
    try:
        # Whoever made an image may have set the tag, which is then in no bytes yet. A TIFF is its own EXIF block.
        if image is given:
            return int(image.getexif().get(ORIENTATION, 1))
        return orientation({**image.info, "exif": given} if image.format == "TIFF" else image.info)
    except Exception:  # damaged EXIF is common and says nothing about the pixels: show them as they lie
        return 1
