"""What is a photo, and what is several."""

import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Set
from typing import Any, Protocol

from torch import Tensor

from .decode import Image
from .reading import KINDS


class Readable(Protocol):
    """A file object that was opened in binary mode: a file, ``BytesIO``, the answer of a web request."""

    def read(self, size: int, /) -> bytes: ...


class Array(Protocol):
    """A numpy array; numpy itself is never imported."""

    shape: tuple[int, ...]
    dtype: Any

    def tobytes(self) -> bytes: ...


Photo = str | os.PathLike[str] | bytes | Readable | Image.Image | Array | Tensor


def several(photos: Any) -> Iterator[Photo] | None:
    """The photos of a list, a generator or another iterable, which must not hold lists or batches; ``None`` for one.

    Raises:
        TypeError: it is neither, or, as it is iterated, an element is a list or a batch; the message says which.
    """
    if _is_one(photos):
        return None
    if not isinstance(photos, Iterable) or isinstance(photos, (Mapping, Set)):
        raise TypeError(f"a photo is {KINDS}, or a list of them; got {type(photos).__name__}")
    return _flat(photos)


def _is_one(photo: object) -> bool:
    one = (str, os.PathLike, bytes, bytearray, memoryview, Image.Image, Tensor)
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(photo, numpy.ndarray):
        return photo.dtype.kind not in "OU" or photo.ndim == 0  # those hold paths, as a column of a table does
    return isinstance(photo, one) or hasattr(photo, "read")


def _flat(photos: Iterable[Any]) -> Iterator[Photo]:
    for index, photo in enumerate(photos):
        batch = isinstance(photo, Tensor) and photo.dim() == 4
        if batch or not _is_one(photo):
            kind = f"a batch of shape {list(photo.shape)}" if batch else f"a {type(photo).__name__}"
            raise TypeError(f"photos[{index}] is {kind}; each element of a list is one photo: {KINDS}")
        yield photo
