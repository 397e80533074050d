"""Ray: a Ray Data stage of actors that classify, between the photos and the table."""

import logging
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any

from ..errors import DatasetError, TableError
from ..files import shown
from ..package import require
from ..photos.formats import suffixes
from ..photos.url import is_url
from .batches import BatchClassifier
from .rows import photo_name, photo_path

LOCAL = "local"  # a Ray of our own, on this machine
SECONDS = 22  # for a cluster to answer
BATCHES_A_BLOCK = 16  # a block is what an actor is given, and what is done again if its node dies


def classify_on(
    address: str, photos: Iterable[Any], *, batch_size: int, actors: int | None = None, **options: Any
) -> Iterator[dict[str, Any]]:
    """A row of a table for each photo, in order; ``options`` are those of ``BatchClassifier``.

    Args:
        address: of a cluster, as ``ray.init`` takes it, or ``LOCAL``.
        photos: paths that every node can read, https addresses, or what ``find_remote`` found.
        actors: processes that compute, each with the weights in memory; ``None`` is one a GPU, or one a core.

    Raises:
        ImportError, ConnectionError: Ray is not installed, or no cluster answers.
    """
    require("--ray", "ray[data]>=2.40", "pyarrow>=18")
    import ray.data

    connect(address)
    try:
        ray.data.DataContext.get_current().execution_options.preserve_order = True
        resources: dict[str, float] = ray.cluster_resources()
        gpus = int(resources.get("GPU", 0)) if options.get("device") != "cpu" else 0
        for named, found in datasets(photos, batch_size):
            answers = found.map_batches(
                BatchClassifier,
                fn_constructor_kwargs={**options, "batch_size": batch_size},
                batch_size=batch_size,
                concurrency=actors or gpus or max(1, int(resources["CPU"])),
                num_gpus=1 if gpus else None,
            )
            for block in answers.iter_batches(batch_size=None, batch_format="pyarrow"):
                yield from (as_given(row, next(named)) for row in block.to_pylist())
    finally:
        ray.shutdown()


def as_given(row: dict[str, Any], name: str) -> dict[str, Any]:
    """The row as the plain way has it: actors are given absolute paths, which their errors name."""
    if not is_remote(name) and row["photo"] != name:  # remote ones come back as their file system calls them
        raise TableError(f"Ray gave the photo {shown(row['photo'])}, where {shown(name)} was next")
    path = photo_path(name)
    error = row["error"] and row["error"].replace(shown(os.path.abspath(path)), shown(path), 1)
    return {**row, "photo": name, "error": error}


def connect(address: str) -> None:
    """Join the cluster at ``address``, or start one; Ray itself would wait for minutes where nobody answers."""
    import ray

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would report to its makers
    if address != LOCAL:
        attempt = [sys.executable, "-c", "import sys, ray; ray.init(sys.argv[1], logging_level=40)", address]
        try:
            tried = subprocess.run(attempt, capture_output=True, text=True, errors="replace", timeout=SECONDS)
            reason = tried.stderr.strip().rpartition("\n")[2] if tried.returncode else ""
        except subprocess.TimeoutExpired:
            reason = f"no answer within {SECONDS} s"
        if reason:
            raise ConnectionError(
                f"no Ray cluster at {shown(address)} ({shown(reason)}); was `ray start --head` typed?"
            )
    ray.init(address, logging_level=logging.WARNING, ignore_reinit_error=True)


def is_remote(photo: Any) -> bool:
    """Whether pyarrow reads it, and neither this machine's file system nor ``open_photo``."""
    return is_url(photo) and not photo.lower().startswith("https://")


def find_remote(source: str) -> Iterator[str]:
    """The photos in a folder of a file system that pyarrow reads, such as ``s3://``, sorted; or the one photo."""
    from pyarrow import fs

    system, top = fs.FileSystem.from_uri(source)
    paths = [top] if system.get_file_info(top).is_file else []
    if not paths:
        found = system.get_file_info(fs.FileSelector(top, recursive=True, allow_not_found=True))
        paths = sorted(each.path for each in found if each.is_file and each.path.lower().endswith(suffixes()))
    if not paths:
        raise DatasetError(f"{shown(source)} holds no photo ({', '.join(suffixes())})")
    return (source.rstrip("/") + path.removeprefix(top.rstrip("/")) for path in paths)


def datasets(photos: Iterable[Any], batch_size: int) -> Iterator[tuple[Iterator[str], Any]]:
    """What Ray is to work through, with the photos' names: in the order of ``photos``, in blocks of whole batches."""
    import pyarrow
    import ray.data

    step = BATCHES_A_BLOCK * batch_size
    for remote, group in groupby(photos, is_remote):
        names = [photo_name(each) for each in group]
        if remote:
            count = max(1, len(names) // step)
            yield iter(names), ray.data.read_binary_files(names, include_paths=True, override_num_blocks=count)
        else:
            paths = [name if is_url(name) else photo_name(os.path.abspath(photo_path(name))) for name in names]
            table = pyarrow.table({"photo": names, "path": paths})
            blocks = [table[start : start + step] for start in range(0, len(names), step)]
            yield iter(names), ray.data.from_arrow(blocks)
