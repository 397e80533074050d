"""JPEG photos decoded by the graphics card, a batch at once: many times as fast as by the CPU, and not bit-equal to it.

The card's decoder (nvJPEG, through torchvision) rounds otherwise, and what it gives is resized as torchvision resizes
tensors. Whatever it is not for is decoded exactly, by the CPU: other formats, CMYK, photos that EXIF turns, files that
were cut, and those that it refuses.
"""

import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from ..errors import DeviceError, ImageError
from ..files import shown
from ..package import require
from .decode import EXACT_PIXELS, check_size, decoding, open_header, orientation_of
from .reading import photo_name, read_photo

Source = TypeVar("Source")
Size = tuple[int, int]  # width, height


class Encoded(NamedTuple):
    """A photo that the card is to decode: the bytes of its file, and what to call it in messages."""

    data: bytes
    name: str


def check() -> None:
    """Whether there is what this needs.

    Raises:
        DeviceError, ImportError: saying what is not there.
    """
    require("decoding photos on the graphics card", "torchvision")
    if not torch.cuda.is_available():
        raise DeviceError('fast_decode="cuda" (--gpu-decode) needs a graphics card for CUDA, and there is none')


def read(photo: Any, max_pixels: int | None, upright: bool) -> tuple[Any, str | None, Size | None]:
    """The photo, or its bytes and its name if it is a file; and its size if the card is to decode it.

    Raises:
        ImageError: it cannot be read, or its header says what is refused anyway.
    """
    if not isinstance(photo, (str, os.PathLike, bytes)):
        return photo, None, None
    name = shown(photo_name(photo))
    data = read_photo(photo, name)
    with decoding(name):
        image, allowed, size = open_header(data, max_pixels, name, None)
        check_size(size, allowed, name)
        suits = image.format == "JPEG" and image.mode in ("RGB", "L") and size[0] * size[1] <= EXACT_PIXELS
        whole = data.rstrip(b"\0").endswith(b"\xff\xd9")
        suits = suits and whole and not (upright and orientation_of(image, data) != 1)
    return data, name, size if suits else None


def decoded(
    batch: list[tuple[Source, Any]],
    exact: Callable[[bytes, str], Tensor],
    shaped: Callable[[Tensor], Tensor],
    device: str = "cuda",
) -> list[tuple[Source, Any]]:
    """``batch``, of photos with pixels and size or with an error, where pixels take the place of what is ``Encoded``.

    Args:
        exact: gives the pixels of a photo that ``device`` refuses, or raises the ``ImageError`` that says why.
        shaped: makes pixels of a decoded photo, ``uint8 (3, H, W)`` on ``device``.
    """
    from torchvision.io import ImageReadMode, decode_jpeg

    waiting = [ready[0] for _, ready in batch if not isinstance(ready, ImageError) and isinstance(ready[0], Encoded)]
    files = [torch.frombuffer(bytearray(each.data), dtype=torch.uint8) for each in waiting]
    pictures: list[Tensor | None] = [None] * len(files)
    with suppress(RuntimeError):  # one of them is damaged, or of a kind that the card does not know: it says not which
        pictures = decode_jpeg(files, mode=ImageReadMode.RGB, device=device) if files else []

    found, upcoming = [], iter(pictures)
    for photo, ready in batch:
        if not isinstance(ready, ImageError) and isinstance(ready[0], Encoded):
            picture = next(upcoming)
            try:
                ready = (exact(*ready[0]) if picture is None else shaped(picture), ready[1])
            except ImageError as error:
                ready = error
        found.append((photo, ready))
    return found
