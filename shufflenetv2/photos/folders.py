"""Folders of photos, read ahead in order: ``classify``, ``evaluate`` and ``benchmark`` share this.

Pillow decodes and resizes outside the interpreter lock, so threads prepare the next photos while the model computes.
Memory is bounded by the batches in flight, whatever the folder's size.
"""

import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from ..errors import ImageError
from .transform import SUFFIXES, PhotoTransform

BATCH_SIZE = 16  # the fastest per photo on CPUs: larger batches leave the cache and wait for fresh pages


@dataclass(frozen=True)
class Batch:
    """Photos in order. ``images`` holds the good ones, ``errors`` says for each path what is wrong, or ``None``."""

    paths: Sequence[Path]
    images: Tensor | None
    errors: Sequence[ImageError | None]


def find_photos(paths: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """Files as given, folders recursively and sorted, by suffix, without hidden files.

    Raises:
        ImageError: a folder holds no photo, or cannot be listed.
    """
    photos: list[Path] = []
    for path in map(Path, paths):
        if not path.is_dir():
            photos.append(path)
            continue
        found = sorted(_walk(path))
        if not found:
            raise ImageError(f"the folder {path} holds no photo ({', '.join(SUFFIXES)})")
        photos += found
    return photos


def _walk(folder: Path) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        raise ImageError(f"the folder {error.filename} cannot be listed: {error.strerror}") from error

    for directory, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = sorted(each for each in folders if not each.startswith("."))
        for file in files:
            if not file.startswith(".") and file.lower().endswith(SUFFIXES):
                yield Path(directory, file)


def read_ahead(
    paths: Sequence[Path],
    transform: PhotoTransform,
    batch_size: int = BATCH_SIZE,
    workers: int | None = None,
) -> Iterator[Batch]:
    """Yield the photos in order, ``batch_size`` at a time, while the next two batches are being prepared.

    Args:
        paths: files, in order.
        transform: makes ``float32 (1, C, crop, crop)`` of each.
        batch_size: at least 1.
        workers: threads; ``None`` is one a core.
    """
    pool = ThreadPoolExecutor(workers or os.cpu_count() or 1, thread_name_prefix="photos")
    upcoming = iter(paths)
    pending: deque[tuple[Path, Future[Tensor]]] = deque()

    def submit(count: int) -> None:
        pending.extend((path, pool.submit(transform, path)) for path in islice(upcoming, count))

    try:
        submit(2 * batch_size)
        while pending:
            batch = [pending.popleft() for _ in range(min(batch_size, len(pending)))]
            results = [_result(future) for _, future in batch]
            submit(len(batch))
            images = [result for result in results if isinstance(result, Tensor)]
            yield Batch(
                paths=[path for path, _ in batch],
                images=torch.cat(images) if images else None,
                errors=[result if isinstance(result, ImageError) else None for result in results],
            )
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _result(future: Future[Tensor]) -> Tensor | ImageError:
    try:
        return future.result()
    except ImageError as error:
        return error
