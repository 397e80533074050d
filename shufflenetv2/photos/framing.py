"""Which part of a photo is looked at, and how large it is made: torchvision's rounding, in numbers alone."""

# Of longer photos only the part of this aspect ratio around their centre is resized: no more than the middle square is
# looked at anyway, and resizing the shorter side of 1x20000 pixels to 256 would make an image of gigabytes.
MAX_ASPECT = 16


def resized(width: int, height: int, shorter: int) -> tuple[int, int]:
    """torchvision's rounding: the longer side is truncated."""
    if width <= height:
        return shorter, int(shorter * height / width)
    return int(shorter * width / height), shorter


def centre(length: int, part: int) -> int:
    return round((length - part) / 2.0)


def cut(width: int, height: int) -> tuple[int, int, int, int]:
    """``left, top, right, bottom`` of the middle part that is no longer than MAX_ASPECT times its width."""
    limit = MAX_ASPECT * min(width, height)
    kept_width, kept_height = min(width, limit), min(height, limit)
    left, top = centre(width, kept_width), centre(height, kept_height)
    return left, top, left + kept_width, top + kept_height


def kept(
    whole: tuple[int, int], size: tuple[int, int], resize: int, crop: int
) -> tuple[tuple[int, int], tuple[float, float, float, float]]:
    """The size to make, and the part of the ``whole`` photo to make it of, if ``crop`` of the shorter side is kept.

    Where ``resize`` is a power of two, Pillow's box, in float32, holds that part without rounding, and each pixel that
    is made is the one of the whole photo resized. Elsewhere, and on the longer side, it is not: all of it is made.
    """
    (width, height), short = whole, centre(resize, crop)
    if resize & (resize - 1) or crop > resize or max(whole) * resize >= 2**24:
        return size, (0, 0, width, height)
    if width >= height:
        return (size[0], crop), (0, short * height / resize, width, (short + crop) * height / resize)
    return (crop, size[1]), (short * width / resize, 0, (short + crop) * width / resize, height)


def frame(width: int, height: int, resize: int, crop: int) -> tuple[float, float, float, float]:
    """``left, top, right, bottom`` of the part that ends up in the ``crop``, in pixels of the whole photo."""
    left, top, right, bottom = cut(width, height)
    across, down = resized(right - left, bottom - top, resize)
    x, y = centre(across, crop), centre(down, crop)
    step_x, step_y = (right - left) / across, (bottom - top) / down
    return left + x * step_x, top + y * step_y, left + (x + crop) * step_x, top + (y + crop) * step_y
