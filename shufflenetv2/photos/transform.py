"""A photo becomes model input: what a person sees, resized, cropped and normalised as the weights ask.

Bit-equal to torchvision's ``ImageClassification`` preset, without torchvision or numpy: for PIL images (and files) to
its PIL path, for uint8 tensors to its tensor path (the two differ slightly there, and so they do here). Whatever is
wrong with a photo is an ``ImageError``; nothing is decoded before its size is known to be acceptable.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..description import Preprocess
from ..errors import ImageError
from ..package import hub_call, made_by_hub
from . import card
from .card import Encoded
from .decode import Image, check_size, open_sized, pixel_limit, read_now, snapshot
from .framing import centre, cut, frame, kept, resized
from .kinds import Photo, several
from .reading import KINDS


class PhotoTransform:
    """Photos to ``float32 (N, in_channels, crop, crop)``, as one weights entry asks.

    Args:
        preprocess: sizes and normalisation, from the manifest or a checkpoint.
        in_channels: 3, or 1 for grey images normalised with the means of mean and std.
        reference: architecture and weights that name ``preprocess`` in a call of the entry point of that name.
        max_pixels: the most pixels of a photo; ``None`` is 120 million (``open_photo`` says more).
        upright: turn photos as their EXIF orientation says; ``False`` leaves them as they lie, for PIL images that were
            turned already and still carry the tag.
        fast_decode: let the decoder of large JPEG photos make them smaller, down to twice ``preprocess.resize``:
            several times as fast, and no longer bit-equal. ``"cuda"``: let the graphics card decode JPEG photos.
        batch: ``False`` takes one photo at a time, and gives ``(in_channels, crop, crop)``.

    Raises:
        ValueError: ``in_channels`` is neither 1 nor 3, or ``max_pixels`` no whole number above 0.
        DeviceError, ImportError: ``"cuda"`` needs such a card, and torchvision.
    """

    def __init__(
        self,
        preprocess: Preprocess,
        in_channels: int = 3,
        reference: tuple[str, str] | None = None,
        *,
        max_pixels: int | None = None,
        upright: bool = True,
        fast_decode: bool | str = False,
        batch: bool = True,
    ) -> None:
        if max_pixels is not None:
            pixel_limit(max_pixels)
        for name, flag in (("upright", upright), ("fast_decode", fast_decode), ("batch", batch)):
            if type(flag) is not bool and (name, flag) != ("fast_decode", "cuda"):
                also = ', or "cuda"' if name == "fast_decode" else ""
                raise TypeError(f"{name} is True or False{also}, got {flag!r:.80}")
        if fast_decode == "cuda":
            card.check()
        if type(in_channels) is not int or in_channels not in (1, 3):
            raise ValueError(
                f"photos have 3 channels, or 1 if grey; in_channels={in_channels!r:.80} needs your own transform"
            )
        self.preprocess = preprocess
        self.in_channels = in_channels
        self.reference = reference
        self.max_pixels = max_pixels
        self.upright = upright
        self.fast_decode = fast_decode
        self.batch = batch

    def keep(self, photos: Photo | Iterable[Photo]) -> Callable[[Photo], Photo]:
        """What each of ``photos`` goes through before the next is asked for: a list keeps its own arrays and images."""
        return read_now if isinstance(photos, Sequence) else partial(snapshot, max_pixels=self.max_pixels)

    def __repr__(self) -> str:
        return f"PhotoTransform({self.preprocess}, in_channels={self.in_channels})"

    def __call__(self, photos: Photo | Iterable[Photo]) -> Tensor:
        """Transform one photo or several.

        Args:
            photos: a path, bytes, a file object opened in binary mode, a PIL image, a numpy array ``(H, W, 3)`` of
                uint8 in RGB, a uint8 tensor ``(C, H, W)`` in RGB (or grey, for ``in_channels=1``); or several: a list
                or another iterable of these, or a uint8 tensor ``(N, C, H, W)``. A list is flat.

        Returns:
            ``float32 (N, in_channels, crop, crop)``, contiguous, on the CPU (tensors stay on their device); with
            ``batch=False``, of one photo, ``(in_channels, crop, crop)``.

        Raises:
            ImageError: naming the photo that cannot be used, and which element of a list it is.
            TypeError: something else was given.
            ValueError: there are no photos, or the environment's bounds on photos are no numbers above 0.
        """
        elements = several(photos)
        if not self.batch:
            if elements is not None or (isinstance(photos, Tensor) and photos.dim() == 4):
                raise TypeError(
                    f"with batch=False this takes one photo, {KINDS}; make another with batch=True for several"
                )
            return self._one(photos)[0]
        if elements is None:
            return self._one(photos)
        images: list[Tensor] = []
        for photo in elements:
            try:
                images.append(self._one(photo))
            except ImageError as error:
                raise ImageError(f"photos[{len(images)}]: {error}") from error
        if not images:
            raise ValueError("the list of photos is empty; give at least one")
        return torch.cat(images)

    def _one(self, photo: Any) -> Tensor:
        return self.sized(photo)[0]

    def sized(self, photo: Photo) -> tuple[Tensor, tuple[int, int]]:
        """Transform one photo, as a call does, and say its width and height in pixels, as a person sees it."""
        [(_, ready)] = self.decoded([(photo, self.pixels(photo))])
        if isinstance(ready, ImageError):
            raise ready
        return self.normalized(ready[0]), ready[1]

    def pixels(self, photo: Photo) -> tuple[Tensor | Encoded, tuple[int, int]]:
        """The same before normalisation, ``uint8 (1, in_channels, crop, crop)``, or what ``decoded`` makes that of."""
        if isinstance(photo, Tensor):
            return self._from_tensor(photo), (photo.shape[-1], photo.shape[-2])
        if self.fast_decode != "cuda":
            image, size = self._opened(photo)
            return self._from_image(image), size
        data, name, own_size = card.read(photo, self.max_pixels, self.upright)
        if name is not None and own_size is not None:
            return Encoded(data, name), own_size
        image, size = self._opened(data, name)
        return self._from_image(image), size

    def decoded(self, batch: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
        """Photos with what ``pixels`` gave of each, or its error; what waits for the graphics card is decoded."""
        if self.fast_decode != "cuda":
            return batch
        return card.decoded(batch, lambda *file: self._from_image(self._opened(*file)[0]), self._from_tensor)

    def pictured(self, photo: Photo) -> tuple[Tensor, Image.Image, tuple[int, int]]:
        """``sized`` of a photo that is no tensor, and the photo itself in RGB; a large one was made smaller."""
        image, size = self._opened(photo)
        return self.normalized(self._from_image(image)), image, size

    def _opened(self, photo: Any, name: str | None = None) -> tuple[Image.Image, tuple[int, int]]:
        shortest = 2 * self.preprocess.resize if self.fast_decode is True else None
        return open_sized(photo, name, max_pixels=self.max_pixels, upright=self.upright, shortest=shortest)

    def frame(self, size: tuple[int, int]) -> tuple[float, float, float, float]:
        """``left, top, right, bottom`` of what the model is shown of a photo of this size, in that photo's pixels."""
        return frame(*size, self.preprocess.resize, self.preprocess.crop)

    def _from_image(self, image: Image.Image) -> Tensor:
        if self.in_channels == 1:
            image = image.convert("L")
        left, top, right, bottom = cut(*image.size)
        size = resized(right - left, bottom - top, self.preprocess.resize)
        crop = self.preprocess.crop
        if size != image.size:
            box: tuple[float, float, float, float] = (left, top, right, bottom)
            if box == (0, 0, *image.size):
                size, box = kept(image.size, size, self.preprocess.resize, crop)
            image = image.resize(size, Image.Resampling.BILINEAR, box)
        left, top = centre(image.width, crop), centre(image.height, crop)
        image = image.crop((left, top, left + crop, top + crop))
        planes = b"".join(plane.tobytes() for plane in image.split())  # faster than to separate them afterwards
        return torch.frombuffer(bytearray(planes), dtype=torch.uint8).view(1, self.in_channels, crop, crop)

    def _from_tensor(self, images: Tensor) -> Tensor:
        images = images.unsqueeze(0) if images.dim() == 3 else images
        if images.dim() != 4 or images.shape[1] not in (1, 3) or min(images.shape) < 1:
            raise ImageError(f"a photo tensor must have shape (3, H, W) or (N, 3, H, W), got {list(images.shape)}")
        if images.dtype is not torch.uint8:
            raise ImageError(f"a photo tensor must hold uint8 values from 0 to 255, got {images.dtype}")
        if images.is_meta or images.layout is not torch.strided:
            raise ImageError(
                "a photo tensor must be dense and hold values, got one that is sparse or on the meta device"
            )
        height, width = images.shape[-2:]
        check_size((width, height), pixel_limit(self.max_pixels), "the photo tensor")
        if images.shape[1] != self.in_channels:
            images = _to_grey(images) if self.in_channels == 1 else images.expand(-1, 3, -1, -1)
        left, top, right, bottom = cut(width, height)
        images = images[..., top:bottom, left:right]
        width, height = resized(right - left, bottom - top, self.preprocess.resize)
        if (height, width) != images.shape[-2:]:
            enlarged = F.interpolate(
                images.to(torch.float32), (height, width), mode="bilinear", align_corners=False, antialias=True
            )
            images = enlarged.round().to(torch.uint8)
        crop = self.preprocess.crop
        left, top = centre(width, crop), centre(height, crop)
        return images[..., top : top + crop, left : left + crop]

    def normalized(self, pixels: Tensor) -> Tensor:
        """``float32`` images of uint8 ``pixels`` of either memory layout, contiguous, on their device."""
        images = pixels.to(torch.float32, memory_format=torch.contiguous_format).div_(255)
        mean, std = self.preprocess.mean, self.preprocess.std
        if self.in_channels == 1:
            mean, std = (sum(mean) / 3,), (sum(std) / 3,)
        per_channel = [torch.tensor(each, dtype=torch.float32, device=images.device) for each in (mean, std)]
        return images.sub_(per_channel[0].view(-1, 1, 1)).div_(per_channel[1].view(-1, 1, 1))

    def __reduce__(self) -> tuple[Any, ...]:
        settings = {name: getattr(self, name) for name in ("max_pixels", "upright", "fast_decode", "batch")}
        if made_by_hub() and self.reference:
            return *hub_call("preprocess", *self.reference, in_channels=self.in_channels), settings
        return type(self), (self.preprocess, self.in_channels, self.reference), settings


def _to_grey(images: Tensor) -> Tensor:
    """ITU-R 601-2 luma with the weights of torchvision's ``rgb_to_grayscale``, truncated like it."""
    red, green, blue = images.to(torch.float32).unbind(1)
    return (0.2989 * red + 0.587 * green + 0.114 * blue).to(torch.uint8).unsqueeze(1)
