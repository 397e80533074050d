"""Any mode becomes RGB as a person sees it: transparency on white, all levels of deep grey, no unknown ranges."""

from PIL import Image

from ..errors import ImageError

TILE = 4096  # side of the parts in which large photos are halved, so that only these are held twice


def white_of(image: Image.Image, name: str) -> int:
    """The value that is shown as white; 255 but for integers and, where that is unknown, an ``ImageError``."""
    if image.mode not in ("I", "F"):
        return 65535 if image.mode.startswith("I") else 255
    low, high = image.getextrema()
    assert isinstance(low, (int, float))  # there is one band
    assert isinstance(high, (int, float))
    if image.mode == "F":
        raise ImageError(
            f"{name} has floating-point values, from {low:g} to {high:g} (mode F), of which none is known to be white; "
            "scale them to 255 and convert to mode L"
        )
    if low < 0 or high > 65535:
        raise ImageError(
            f"{name} has values from {low} to {high} (mode I), expected 0 to 255 or to 65535; scale them to 255 and "
            "convert to mode L"
        )
    return 255 if high <= 255 else 65535


def without_blank_alpha(image: Image.Image) -> Image.Image:
    """A BMP whose alpha is 0 everywhere was written by what left that byte alone, as Windows does: it is opaque."""
    blank = image.format == "BMP" and image.mode == "RGBA" and image.getchannel("A").getbbox() is None
    return image.convert("RGB") if blank else image


def halved(image: Image.Image, white: int) -> Image.Image:
    """In RGB, each pixel the mean of four; part after part, so that memory holds the large picture once."""
    half = Image.new("RGB", (-(-image.width // 2), -(-image.height // 2)))
    for left in range(0, image.width, TILE):
        for top in range(0, image.height, TILE):
            box = (left, top, min(left + TILE, image.width), min(top + TILE, image.height))
            half.paste(to_rgb(image.crop(box), white).reduce(2), (left // 2, top // 2))
    return half


def fit_key(image: Image.Image, depth: int) -> None:
    """The colour of a PNG that is seen through, in the 8 bits in which Pillow gives the others."""
    key = image.info.get("transparency")
    if isinstance(key, int) and image.mode == "L" and depth < 8:
        image.info["transparency"] = key * 255 // (2**depth - 1)
    elif isinstance(key, tuple) and depth == 16:
        image.info["transparency"] = tuple(each >> 8 for each in key)


def to_rgb(image: Image.Image, white: int) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I"):
        image = _to_8_bits(image, 255 / white)
    if image.has_transparency_data:
        image = image if image.mode == "RGBA" else image.convert("RGBA")
        opaque = Image.new("RGB", image.size, "white")
        opaque.paste(image, mask=image)  # its alpha channel is meant
        return opaque
    return image.convert("RGB")  # grey, palettes, CMYK, YCbCr, Lab: Pillow's own conversion


def _to_8_bits(image: Image.Image, scale: float) -> Image.Image:
    """Integer grey, scaled; ``convert`` alone would clip everything above 255 to white."""
    transparent = image.info.get("transparency")
    image = image.convert("I").point(lambda value: value * scale + 0.5).convert("L")
    if isinstance(transparent, int):  # the grey value that is seen through, now with its neighbours of the same 8 bits
        image.info["transparency"] = int(transparent * scale + 0.5)
    return image
