"""A path becomes a network that computes: opened in its runtime, its description validated, its answers checked."""

import os
from dataclasses import replace
from pathlib import Path

import torch

from ...errors import CheckpointError
from ...files import GIT_LFS, WEB_PAGE, expanded, read_regular, shown
from ..model import SPECS, ShuffleNetV2
from .described import ExportedNetwork, Inside, check, digest, parse_metadata
from .table import FORMATS

# What runtimes call damaged, or try as other formats.
_INSTEAD = (GIT_LFS, (b"<!doctype html", WEB_PAGE), (b"<html", WEB_PAGE))
LONGEST_REASON = 300  # characters of what a runtime says; some list every tensor


def open_exported(name: str, where: str) -> tuple[ExportedNetwork | ShuffleNetV2, Inside]:
    """The file ``where`` of the format ``name``: a ``ShuffleNetV2`` where it holds one, else what its runtime runs.

    Raises:
        ImportError: the runtime is not installed; the message has the pip line.
        CheckpointError: it cannot be read, does not describe itself, or the runtime computes something else.
    """
    with torch.device("cpu"), torch.autocast("cpu", enabled=False):  # whatever the caller computes on, and in
        return _open(name, where)


def _open(name: str, where: str) -> tuple[ExportedNetwork | ShuffleNetV2, Inside]:
    form, path = FORMATS[name], Path(expanded(where))
    if form.folder and not path.is_dir():
        path = path.parent
    for part in form.needed(path):
        if not os.path.isfile(part):  # also where the name is too long
            alone = part != path and os.path.exists(expanded(where))
            missing = f"its part {part.name} is not beside it" if alone else "there is no such file"
            if alone and form.folder:
                from .safetensors import FOREIGN

                missing += f", as `shufflenetv2 export` writes it; {FOREIGN}"
            raise CheckpointError(f"{where} cannot be read: {missing}")
    try:
        for part in form.needed(path):
            _check_beginning(part)
        network, metadata = form.open(path)
    except (ImportError, CheckpointError):
        raise
    except Exception as error:  # every runtime raises errors of its own
        raise CheckpointError(f"{where} cannot be opened as {name} ({_reason(error)})") from error
    inside = parse_metadata(metadata, SPECS, where)
    if isinstance(network, ShuffleNetV2):  # tensors like a checkpoint's, which may be edited: their own bytes count
        held = b"".join(part.read_bytes() for part in form.needed(path))
        return network, replace(inside, sha256=digest(held))
    opened = ExportedNetwork(network, inside, where, form.runtime)
    try:
        check(opened)
    except CheckpointError:
        raise
    except Exception as error:  # as above: of a file that was edited since it was written, for one
        raise CheckpointError(
            f"{where}: {form.runtime} fails on an input that the file carries ({_reason(error)}); export it anew"
        ) from error
    return opened, inside


def _check_beginning(part: Path) -> None:
    start = read_regular(part, 64).lstrip().lower()
    for beginning, meaning in _INSTEAD:
        if start.startswith(beginning):
            raise CheckpointError(f"{part} {meaning}")


def _reason(error: Exception) -> str:
    """All that the error says, on one line: the first often only tells where in the runtime it was raised."""
    reason = shown(" ".join(str(error).split()))
    return f"{type(error).__name__}: {reason if len(reason) <= LONGEST_REASON else reason[:LONGEST_REASON] + '...'}"
