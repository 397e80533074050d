"""Ray: a Ray Data stage of actors that classify, between the photos and the table."""

import logging
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any

from ..errors import DatasetError
from ..files import shown
from ..package import require
from ..photos.formats import suffixes
from ..photos.url import is_url
from .batches import BatchClassifier
from .rows import photo_name, photo_path

LOCAL = "local"  # a Ray of our own, on this machine
SECONDS = 25  # for a cluster to answer
BATCHES_A_BLOCK = 16  # a block is what an actor is given, and what is done again if its node dies


def classify_on(
    address: str, photos: Iterable[Any], *, batch_size: int, actors: int | None = None, **options: Any
) -> Iterator[dict[str, Any]]:
    """A row of a table for each photo, in order.

    Args:
        address: of a cluster, as ``ray.init`` takes it, or ``LOCAL``.
        photos: paths that every node can read, https addresses, or what ``find_remote`` found.
        batch_size: photos computed at once.
        actors: processes that compute, each with the weights in memory; ``None`` is one a GPU, or one a core.
        options: of ``BatchClassifier``.

    Raises:
        ImportError: Ray is not installed; the message has the pip line.
        ConnectionError: no cluster answers at ``address``.
    """
    require("--ray", "ray[data]>=2.40", "pyarrow>=18")
    import ray
    import ray.data

    connect(address)
    try:
        ray.data.DataContext.get_current().execution_options.preserve_order = True
        resources: dict[str, float] = ray.cluster_resources()
        gpus = 0 if options.get("device") == "cpu" else int(resources.get("GPU", 0))
        for names, found in datasets(photos, batch_size):
            named = iter(names)
            answers = found.map_batches(
                BatchClassifier,
                fn_constructor_kwargs={**options, "batch_size": batch_size},
                batch_size=batch_size,
                concurrency=actors or gpus or max(1, int(resources["CPU"])),
                num_gpus=1 if gpus else None,
            )
            for block in answers.iter_batches(batch_size=None, batch_format="pyarrow"):
                yield from ({**row, "photo": next(named)} for row in block.to_pylist())
    finally:
        ray.shutdown()


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
    """The photos in a folder of a file system that pyarrow reads, such as ``s3://``, sorted; or the one photo.

    Raises:
        DatasetError: there is none.
    """
    from pyarrow import fs

    system, top = fs.FileSystem.from_uri(source)
    found = system.get_file_info(top)
    if found.type == fs.FileType.Directory:
        files = system.get_file_info(fs.FileSelector(top, recursive=True))
        paths = sorted(each.path for each in files if each.is_file and each.path.lower().endswith(suffixes()))
    else:
        paths = [top] if found.type == fs.FileType.File else []
    if not paths:
        raise DatasetError(f"{shown(source)} holds no photo ({', '.join(suffixes())})")
    return (source.rstrip("/") + path.removeprefix(top.rstrip("/")) for path in paths)


def datasets(photos: Iterable[Any], batch_size: int) -> Iterator[tuple[list[str], Any]]:
    """What Ray is to work through, with the photos' names: in the order of ``photos``, in blocks of whole batches."""
    import pyarrow
    import ray.data

    step = BATCHES_A_BLOCK * batch_size
    for remote, group in groupby(photos, is_remote):
        names = [photo_name(each) for each in group]
        if remote:
            blocks = max(1, len(names) // step)
            yield names, ray.data.read_binary_files(names, include_paths=True, override_num_blocks=blocks)
        else:
            paths = [name if is_url(name) else photo_name(os.path.abspath(photo_path(name))) for name in names]
            table = pyarrow.table({"photo": names, "path": paths})
            yield names, ray.data.from_arrow([table[start : start + step] for start in range(0, len(names), step)])
