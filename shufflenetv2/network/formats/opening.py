"""A path becomes a network that computes: opened in its runtime, its description validated, its answers checked."""

import hashlib
from dataclasses import replace
from pathlib import Path

from ...errors import CheckpointError
from ..model import SPECS, ShuffleNetV2
from .described import ExportedNetwork, Inside, check, parse_metadata
from .table import FORMATS


def open_exported(name: str, where: str) -> tuple[ExportedNetwork | ShuffleNetV2, Inside]:
    """The file ``where`` of the format ``name``: a ``ShuffleNetV2`` where it holds one, else what its runtime runs.

    Raises:
        ImportError: the runtime is not installed; the message has the pip line.
        CheckpointError: it cannot be read, does not describe itself, or the runtime computes something else.
    """
    form, path = FORMATS[name], Path(where).expanduser()
    if form.folder and not path.is_dir():
        path = path.parent
    for part in form.files(path):
        if not part.is_file():
            missing = "there is no such file" if part == path else f"its part {part.name} is not beside it"
            raise CheckpointError(f"{where} cannot be read: {missing}")
    try:
        network, metadata = form.open(path)
    except ImportError:
        raise
    except Exception as error:  # every runtime raises errors of its own
        reason = str(error).strip().partition("\n")[0][:200]
        raise CheckpointError(f"{where} cannot be opened as {name} ({type(error).__name__}: {reason})") from error
    inside = parse_metadata(metadata, SPECS, where)
    if isinstance(network, ShuffleNetV2):  # tensors like a checkpoint's, which may be edited: their own bytes count
        held = b"".join(part.read_bytes() for part in form.files(path)[:2])
        return network, replace(inside, sha256=hashlib.sha256(held).hexdigest())
    opened = ExportedNetwork(network, inside, where, form.runtime)
    check(opened)
    return opened, inside
