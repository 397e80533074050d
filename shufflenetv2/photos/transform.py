"""A photo becomes model input: what a person sees, resized, cropped and normalised as the weights ask.

Bit-equal to torchvision's ``ImageClassification`` preset, without torchvision or numpy: for PIL images (and files) to
its PIL path, for uint8 tensors to its tensor path (the two differ slightly there, and so they do here). Whatever is
wrong with a photo is an ``ImageError``; nothing is decoded before its size is known to be acceptable.
"""

import io
import os
import sys
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..description import Preprocess
from ..errors import ImageError
from ..files import NotRegularError, read_regular
from ..package import hub_call, made_by_hub
from .structure import excess, webp_size

try:
    from PIL import Image, UnidentifiedImageError
except ImportError as error:
    raise ImportError("photos need Pillow, which is not installed; type: pip install 'pillow>=12.3'") from error

# Settable: assign to shufflenetv2.photos.MAX_PIXELS, or MAX_BYTES, for larger photos of a trusted origin.
MAX_PIXELS = 50_000_000
MAX_BYTES = 32_000_000
# Longer photos are cut to this aspect ratio around their centre first: only the middle square is looked at anyway, and
# resizing the shorter side of 1x20000 pixels to 256 would make an image of gigabytes.
MAX_ASPECT = 16
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

Photo = str | os.PathLike[str] | bytes | Image.Image | Tensor


def open_photo(photo: str | os.PathLike[str] | bytes | Image.Image, name: str | None = None) -> Image.Image:
    """Open a photo as a person sees it: upright, transparency on white, the first frame of an animation, in RGB.

    Args:
        photo: path of a regular file, the bytes of one (JPEG, PNG, WEBP, GIF or BMP), or a PIL image.
        name: what to call it in messages.

    Returns:
        A PIL image of mode RGB. Plain RGB images come back unchanged.

    Raises:
        ImageError: it is missing, too large, damaged or no image; the message names it.
    """
    name = name or _name(photo)
    try:
        if isinstance(photo, Image.Image):
            image = photo
        else:
            image = _open(photo if isinstance(photo, bytes) else _read(photo, name), name)
            image.load()
        _check_size(image.size, name)  # again: the first frame of a GIF may be larger than its header says
        image = _upright(image)  # one name for every stage, so that no two of them stay in memory
        return _to_rgb(image)
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


def _read(path: str | os.PathLike[str], name: str) -> bytes:
    try:
        return read_regular(path, MAX_BYTES)
    except NotRegularError as error:
        raise ImageError(f"{name} {error}") from error
    except (OSError, ValueError) as error:
        hint = "; download it first" if "://" in name else ""
        raise ImageError(f"{name} cannot be opened: {getattr(error, 'strerror', None) or error}{hint}") from error


def _open(data: bytes, name: str) -> Image.Image:
    """Read the header only."""
    if not data:
        raise ImageError(f"{name} is empty, expected an image")
    if len(data) > MAX_BYTES:
        raise ImageError(
            f"{name} is larger than the {MAX_BYTES:,} bytes allowed; raise shufflenetv2.photos.MAX_BYTES to read it"
        )
    problem = excess(data)
    if problem:
        raise ImageError(f"{name} has {problem}: it would cost far more time than its picture; save it anew")
    _check_size(webp_size(data) or (1, 1), name)  # its decoder allocates all of it when it is opened
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(
            f"{name} has far more than the {MAX_PIXELS:,} pixels allowed ({error}); make it smaller, or raise "
            "shufflenetv2.photos.MAX_PIXELS and PIL.Image.MAX_IMAGE_PIXELS"
        ) from error
    except UnidentifiedImageError as error:
        begins = data[:12]
        raise ImageError(
            f"{name} is no image of a known format ({', '.join(FORMATS)}); it begins with {begins!r}"
        ) from error
    _check_size(image.size, name)
    return image


def _check_size(size: tuple[int, int], name: str) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise ImageError(f"{name} is {width}x{height} pixels: it holds no picture")
    if width * height > MAX_PIXELS:
        raise ImageError(
            f"{name} is {width}x{height} pixels, more than the {MAX_PIXELS:,} allowed; make it smaller, or raise "
            "shufflenetv2.photos.MAX_PIXELS"
        )


def _upright(image: Image.Image) -> Image.Image:
    try:
        operation = _UPRIGHT.get(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # damaged EXIF is common and says nothing about the pixels: show them as they lie
        return image
    return image if operation is None else image.transpose(operation)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode == "F":
        raise ImageError("its mode is 'F' (floating-point), whose range is unknown; convert it to 'L' or 'RGB' first")
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


def _resized(width: int, height: int, shorter: int) -> tuple[int, int]:
    """torchvision's rounding: the longer side is truncated."""
    if width <= height:
        return shorter, int(shorter * height / width)
    return int(shorter * width / height), shorter


def _centre(length: int, kept: int) -> int:
    return round((length - kept) / 2.0)


def _cut(width: int, height: int) -> tuple[int, int, int, int]:
    """``left, top, right, bottom`` of the middle part that is no longer than MAX_ASPECT times its width."""
    limit = MAX_ASPECT * min(width, height)
    kept_width, kept_height = min(width, limit), min(height, limit)
    left, top = _centre(width, kept_width), _centre(height, kept_height)
    return left, top, left + kept_width, top + kept_height


class PhotoTransform:
    """Photos to ``float32 (N, in_channels, crop, crop)``, as one weights entry asks.

    Args:
        preprocess: sizes and normalisation, from the manifest or a checkpoint.
        in_channels: 3, or 1 for grey images normalised with the means of mean and std.
        reference: architecture and weights that name ``preprocess`` in a call of the entry point of that name.
    """

    def __init__(self, preprocess: Preprocess, in_channels: int = 3, reference: tuple[str, str] | None = None) -> None:
        if in_channels not in (1, 3):
            raise ValueError(
                f"photos have 3 channels, or 1 if grey; in_channels={in_channels} needs your own transform"
            )
        self.preprocess = preprocess
        self.in_channels = in_channels
        self.reference = reference

    def __repr__(self) -> str:
        return f"PhotoTransform({self.preprocess}, in_channels={self.in_channels})"

    def __call__(self, photos: Photo | Sequence[Photo]) -> Tensor:
        """Transform one photo or several.

        Args:
            photos: a path, bytes, a PIL image, a uint8 tensor ``(C, H, W)`` or ``(N, C, H, W)`` in RGB (or grey, for
                ``in_channels=1``), or a sequence of them.

        Returns:
            ``float32 (N, in_channels, crop, crop)``, contiguous, on the CPU (tensors stay on their device).

        Raises:
            ImageError: naming the photo that cannot be used.
            TypeError: something else was given.
        """
        if isinstance(photos, (list, tuple)):
            if not photos:
                raise ValueError("the list of photos is empty; give at least one")
            return torch.cat([self(photo) for photo in photos])
        if isinstance(photos, Tensor):
            return self._normalize(self._from_tensor(photos))
        if isinstance(photos, (str, os.PathLike, bytes, Image.Image)):
            return self._normalize(self._from_image(open_photo(photos)))
        raise TypeError(
            "a photo is a path, bytes, a PIL image or a uint8 tensor (C, H, W), or a list of them; got "
            f"{type(photos).__name__}" + _array_hint(photos)
        )

    def _from_image(self, image: Image.Image) -> Tensor:
        if self.in_channels == 1:
            image = image.convert("L")
        if max(image.size) > MAX_ASPECT * min(image.size):
            image = image.crop(_cut(*image.size))
        size = _resized(*image.size, self.preprocess.resize)
        if size != image.size:
            image = image.resize(size, Image.Resampling.BILINEAR)
        crop = self.preprocess.crop
        left, top = _centre(image.width, crop), _centre(image.height, crop)
        image = image.crop((left, top, left + crop, top + crop))
        pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
        return pixels.view(1, crop, crop, self.in_channels).permute(0, 3, 1, 2)

    def _from_tensor(self, images: Tensor) -> Tensor:
        images = images.unsqueeze(0) if images.dim() == 3 else images
        if images.dim() != 4 or images.shape[1] not in (1, 3) or min(images.shape) < 1:
            raise ImageError(f"a photo tensor must have shape (3, H, W) or (N, 3, H, W), got {list(images.shape)}")
        if images.dtype is not torch.uint8:
            raise ImageError(f"a photo tensor must hold uint8 values from 0 to 255, got {images.dtype}")
        height, width = images.shape[-2:]
        if height * width > MAX_PIXELS:
            raise ImageError(f"the photo tensor has {height}x{width} pixels, more than the {MAX_PIXELS:,} allowed")
        if images.shape[1] != self.in_channels:
            images = _to_grey(images) if self.in_channels == 1 else images.expand(-1, 3, -1, -1)
        left, top, right, bottom = _cut(width, height)
        images = images[..., top:bottom, left:right]
        width, height = _resized(right - left, bottom - top, self.preprocess.resize)
        if (height, width) != images.shape[-2:]:
            resized = F.interpolate(
                images.to(torch.float32), (height, width), mode="bilinear", align_corners=False, antialias=True
            )
            images = resized.round().to(torch.uint8)
        crop = self.preprocess.crop
        left, top = _centre(width, crop), _centre(height, crop)
        return images[..., top : top + crop, left : left + crop]

    def _normalize(self, pixels: Tensor) -> Tensor:
        images = pixels.to(torch.float32, memory_format=torch.contiguous_format).div_(255)
        mean, std = self.preprocess.mean, self.preprocess.std
        if self.in_channels == 1:
            mean, std = (sum(mean) / 3,), (sum(std) / 3,)
        per_channel = [torch.tensor(each, dtype=torch.float32, device=images.device) for each in (mean, std)]
        return images.sub_(per_channel[0].view(-1, 1, 1)).div_(per_channel[1].view(-1, 1, 1))

    def __reduce__(self) -> tuple[Any, ...]:
        if made_by_hub() and self.reference:
            return hub_call("preprocess", *self.reference, in_channels=self.in_channels)
        return type(self), (self.preprocess, self.in_channels, self.reference)


def _to_grey(images: Tensor) -> Tensor:
    """ITU-R 601-2 luma with the weights of torchvision's ``rgb_to_grayscale``, truncated like it."""
    red, green, blue = images.to(torch.float32).unbind(1)
    return (0.2989 * red + 0.587 * green + 0.114 * blue).to(torch.uint8).unsqueeze(1)


def _array_hint(photos: object) -> str:
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(photos, numpy.ndarray):
        return "; convert it: PIL.Image.fromarray(array), with RGB channels last (OpenCV's are BGR)"
    return ""
