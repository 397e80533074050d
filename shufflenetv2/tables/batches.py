"""A classifier of batches of columns: the one class for Ray, Spark, Dask and whatever else hands out arrays."""

import os
import platform
from typing import TYPE_CHECKING, Any

from ..builder import resolve
from ..description import BATCH_SIZE
from ..errors import IntegrityError
from ..inference.classifier import Classifier
from ..package import require
from ..photos.reading import Held
from .rows import COLUMNS, FEATURES, photo_name, photo_path, to_row

if TYPE_CHECKING:
    import numpy


_PATHS = (str, bytes, os.PathLike)
_HELD: dict[str, tuple[type, ...]] = {"bytes": (bytes, bytearray, memoryview), "path": _PATHS, "photo": _PATHS}


class BatchClassifier:
    """Classify photos by the batch, in a process that keeps the weights: they are loaded, and verified, once.

    Args:
        arch, weights, categories: as of ``classifier``.
        features: give the pooled features, too.
        batch_size: photos computed at once, whatever the batches are that come.
        workers: threads that read photos; ``None`` is one a core.
        sha256: what the weights must be, for processes on several machines.
        options: further ones of ``classifier``: ``top``, ``device``, ``fast_decode``.

    Raises:
        IntegrityError: the weights are others than ``sha256`` says.
        ShuffleNetError, ValueError: as of ``classifier``.
    """

    def __init__(
        self,
        arch: str | None = None,
        weights: Any = "default",
        *,
        categories: Any = None,
        features: bool = False,
        batch_size: int = BATCH_SIZE,
        workers: int | None = None,
        sha256: str | None = None,
        **options: Any,
    ) -> None:
        require("batches of columns", "numpy")
        source = resolve(arch, weights, categories=categories)
        self.classifier = Classifier(source, progress=False, **options)
        if sha256 not in (None, source.sha256):
            raise IntegrityError(f"{source.title} has sha256 {source.sha256} on {platform.node()}, expected {sha256}")
        self.stream_options: Any = {"batch_size": batch_size, "workers": workers, "features": features}

    def __call__(self, batch: "dict[str, numpy.ndarray[Any, Any]]") -> "dict[str, numpy.ndarray[Any, Any]]":
        """Classify one batch.

        Args:
            batch: ``bytes`` (N,), what files hold, or ``path`` (N,), paths or addresses; ``photo`` (N,) names them. A
                null, as pandas has it too, is a photo that cannot be used, or no name.

        Returns:
            Arrays (N,) of objects: the columns of a table, in its order (docs/many-photos.md lists them). A photo that
            cannot be used has its ``error`` there.

        Raises:
            ValueError: there is neither column.
            TypeError: a column holds something else.
        """
        import numpy

        if "bytes" not in batch and "path" not in batch:
            raise ValueError(f"a batch needs a column bytes or path, got {', '.join(batch) or 'none'}")
        for column, kinds in _HELD.items():
            if wrong := [each for each in batch.get(column, ()) if not isinstance(each, kinds) and not _is_null(each)]:
                wanted = "bytes" if column == "bytes" else "text"
                raise TypeError(f"the column {column} holds {wanted}, or nulls; got {type(wrong[0]).__name__}")
        given = batch["bytes"] if "bytes" in batch else [_text(each) for each in batch["path"]]
        names = [_text(each) for each in batch.get("photo", batch.get("path", [""] * len(given)))]
        read = _named if "bytes" in batch else lambda path, _: photo_path(path)
        photos = [
            b"" if _is_null(each) or not each else read(each, name) for each, name in zip(given, names, strict=True)
        ]
        features = self.stream_options["features"]
        results = self.classifier.stream(photos, **self.stream_options)
        rows = [
            to_row(result, name, self.classifier.weights, features) for result, name in zip(results, names, strict=True)
        ]
        columns = {}
        for column in [*COLUMNS, *[FEATURES] * features]:  # also of no photo, as of an empty partition
            columns[column] = numpy.empty(len(rows), dtype=object)
            columns[column][:] = [row[column] for row in rows]
        return columns


def _is_null(value: Any) -> bool:
    """Whether it is ``None``, or a null of pandas: NaN, which is not equal to itself, or NA, which cannot say."""
    try:
        return value is None or bool(value != value)
    except TypeError:
        return True
    except ValueError:  # an array
        return False


def _text(name: Any) -> Any:
    if _is_null(name):
        return ""
    return photo_name(name) if isinstance(name, (bytes, os.PathLike)) else name


def _named(content: bytes, name: str) -> bytes | Held:
    """What a file holds, for messages that call it by its name."""
    return Held(content, name) if name else bytes(content)
