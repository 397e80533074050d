"""Photos are read ahead: threads prepare the next ones while the model computes.

Pillow decodes and resizes outside the interpreter lock. Memory is bounded by the batches in flight, however many photos
there are; their iterable is asked for the next one in the caller's thread, and only once there is room for it.
"""

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

from ..description import BATCH_SIZE
from ..errors import ImageError
from . import url

Source = TypeVar("Source")
Ready = TypeVar("Ready")


def read_ahead(
    photos: Iterable[Source],
    prepare: Callable[[Source], Ready],
    batch_size: int = BATCH_SIZE,
    workers: int | None = None,
    keep: Callable[[Source], Source] = lambda photo: photo,
) -> Iterator[list[tuple[Source, Ready | ImageError]]]:
    """Yield the photos in order, ``batch_size`` at a time, while the next two batches are being prepared.

    Args:
        photos: in order; a generator is consumed as it goes.
        prepare: is called with each in one of the threads.
        batch_size: at least 1.
        workers: threads; ``None`` is one a core.
        keep: is called with each in the caller's thread; ``prepare`` gets what it gives. It may raise ``ImageError``.

    Yields:
        Each photo with what ``prepare`` made of it, or with the ``ImageError`` that it raised.
    """
    closed = threading.Event()
    pool = ThreadPoolExecutor(
        workers or os.cpu_count() or 1, "photos", initializer=setattr, initargs=(url.reader, "given_up", closed.is_set)
    )
    upcoming = iter(photos)
    ended: list[Exception] = []  # why ``photos`` gave no more
    pending: deque[tuple[Source, Future[Ready | ImageError]]] = deque()

    def attempt(photo: Source) -> Ready | ImageError:
        try:
            return prepare(photo)
        except ImageError as error:
            return error

    def submit(count: int) -> None:
        for photo in _until(upcoming, count, ended):
            try:
                pending.append((photo, pool.submit(attempt, keep(photo))))
            except ImageError as error:
                unusable: Future[Ready | ImageError] = Future()
                unusable.set_result(error)
                pending.append((photo, unusable))

    try:
        submit(2 * batch_size)
        while pending:
            batch = [pending.popleft() for _ in range(min(batch_size, len(pending)))]
            results = [(photo, future.result()) for photo, future in batch]
            submit(len(batch))
            del batch  # its futures hold what they gave
            yield results
        if ended:
            raise ended[0]
    finally:
        closed.set()
        pool.shutdown(wait=False, cancel_futures=True)


def check_photos(photos: Iterable[Source], prepare: Callable[[Source], object], workers: int | None = None) -> None:
    """Prepare each, and keep nothing: raises the ``ImageError`` of the first that cannot be used."""
    for batch in read_ahead(photos, prepare, workers=workers):
        for _, ready in batch:
            if isinstance(ready, ImageError):
                raise ready


def _until(upcoming: Iterator[Source], count: int, ended: list[Exception]) -> Iterator[Source]:
    """At most ``count`` more; what they end in is told after the answers to those that came before it."""
    if ended:
        return
    try:
        yield from islice(upcoming, count)
    except Exception as error:
        ended.append(error)
