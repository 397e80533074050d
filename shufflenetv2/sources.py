"""A name or a path becomes a source of weights: a manifest entry, or a checkpoint file of the user's own."""

import logging
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from .errors import CheckpointError
from .files import read_regular
from .network.model import SPECS
from .weights import checkpoint as checkpoints
from .weights.checkpoint import Checkpoint
from .weights.manifest import Entry, Preprocess, load_manifest, read_categories
from .weights.obtain import fetch

DEFAULT_ARCH = "shufflenet_v2_x1_0"
MAX_BYTES = 1_000_000_000  # of a checkpoint file of the user's own; the widest network in float64 has 60 MB

_logger = logging.getLogger("shufflenetv2")


@dataclass(frozen=True)
class Source:
    """Where weights come from and all that belongs to them: a manifest entry, or a checked file of the user's own."""

    arch: str
    origin: Entry | Checkpoint

    @property
    def num_classes(self) -> int:
        return self.origin.num_classes if isinstance(self.origin, Entry) else checkpoints.num_classes(self.origin)

    @property
    def in_channels(self) -> int:
        return 3 if isinstance(self.origin, Entry) else checkpoints.in_channels(self.origin)

    @property
    def reference(self) -> tuple[str, str]:
        """Arguments from which ``resolve`` finds the same source again, in any process."""
        return self.arch, self.origin.name if isinstance(self.origin, Entry) else os.path.abspath(self.origin.where)

    @cached_property
    def entry(self) -> Entry | None:
        """The manifest entry these weights are fed like; ``None`` for a checkpoint that describes itself."""
        if isinstance(self.origin, Entry):
            return self.origin
        if self.origin.description:
            return None
        default = default_entry(self.arch)
        if self.num_classes not in (0, default.num_classes):
            raise CheckpointError(
                f"{self.origin.where} has {self.num_classes} classes and does not say which, nor how its photos were "
                "preprocessed; write it with shufflenetv2.checkpoint.write_checkpoint, or with `shufflenetv2 train`"
            )
        _logger.warning("%s does not describe itself: treated like %s", self.origin.where, default)
        return default

    @property
    def preprocess(self) -> Preprocess:
        if isinstance(self.origin, Checkpoint) and self.origin.description:
            return self.origin.description.preprocess
        entry = self.entry
        assert entry is not None
        return entry.preprocess

    @property
    def categories(self) -> list[str]:
        if isinstance(self.origin, Checkpoint) and self.origin.description:
            return list(self.origin.description.categories)
        entry = self.entry
        assert entry is not None
        return [category.label for category in read_categories(entry.categories)]

    def read(self, progress: bool) -> Checkpoint:
        """The tensors, from verified bytes where the manifest vouches for them."""
        if isinstance(self.origin, Checkpoint):
            return self.origin
        return checkpoints.parse_checkpoint(fetch(self.origin, progress), f"{self.origin.file} ({self.origin})")


def default_entry(arch: str) -> Entry:
    return next(entry for entry in load_manifest() if entry.arch == arch and entry.default)


def _check_arch(arch: str | None) -> None:
    if arch is not None and arch not in SPECS:
        raise ValueError(f"there is no architecture {arch!r}; there are {', '.join(SPECS)}")


def is_path(weights: object) -> bool:
    """A PathLike, or a string with a separator or a suffix; a plain name is never looked up on the disk."""
    if isinstance(weights, os.PathLike):
        return True
    return isinstance(weights, str) and ("/" in weights or os.sep in weights or Path(weights).suffix != "")


def find_entry(arch: str | None, weights: object) -> Entry:
    name = getattr(weights, "name", weights)
    if not isinstance(name, str):
        raise TypeError(
            f"weights must be a name, a path or None, got {weights!r:.80} (a {type(weights).__name__}); "
            "pretrained=True takes the default weights"
        )
    name = name.lower()
    entries = [entry for entry in load_manifest() if arch in (None, entry.arch)]
    if name == "default":
        return default_entry(arch or DEFAULT_ARCH)
    matches = [entry for entry in entries if entry.name == name]
    if not matches:
        versions = [entry for entry in entries if entry.name.rpartition("_v")[0] == name]
        newest = max((int(entry.name.rpartition("_v")[2]) for entry in versions), default=0)
        matches = [entry for entry in versions if entry.name == f"{name}_v{newest}"]
        if matches:
            _logger.info("weights %r without a version: taking the newest, %s", name, matches[0].name)
    if not matches:
        known = ", ".join(str(entry) if arch is None else entry.name for entry in entries)
        raise ValueError(
            f"there are no weights {name!r:.80} for {arch or 'any architecture'}; there are: {known}. "
            "A checkpoint of your own is given as a path, with a separator or a suffix (./mine.pth)"
        )
    if len(matches) == 1:
        return matches[0]
    for entry in matches:
        if entry.arch == DEFAULT_ARCH:
            return entry
    raise ValueError(f"several architectures have weights {name!r}: {', '.join(map(str, matches))}; say which arch")


def read_own(path: str | os.PathLike[str]) -> Checkpoint:
    """Read a user's own checkpoint, which no hash vouches for.

    Raises:
        CheckpointError: it cannot be read, or is no checkpoint of this network.
    """
    _refuse_old_torch(path)
    where = os.fspath(path)
    try:
        data = read_regular(Path(path).expanduser(), MAX_BYTES)
    except (OSError, ValueError, RuntimeError) as error:  # a NUL in the path; a ~user who does not exist
        raise CheckpointError(f"{where} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if len(data) > MAX_BYTES:
        raise CheckpointError(f"{where} is larger than {MAX_BYTES:,} bytes: no checkpoint of this network is")
    _logger.info("%s is not in the manifest: its bytes were not verified", where)
    return checkpoints.parse_checkpoint(data, where)


def _refuse_old_torch(path: str | os.PathLike[str]) -> None:
    major, minor = (int(part) for part in torch.__version__.split(".")[:2])
    if (major, minor) < (2, 6):
        raise CheckpointError(
            f"{os.fspath(path)} is refused: torch {torch.__version__} cannot load an unverified file safely "
            "(CVE-2025-32434); upgrade to torch 2.6 or later"
        )


def resolve(arch: str | None, weights: object) -> Source:
    """Find what ``weights`` names: an entry of the manifest, or a checkpoint file.

    Args:
        arch: restricts the search; ``None`` takes the architecture of what is found.
        weights: an entry's name in any case, with or without its version; ``"default"``; an object with a ``.name``; or
            a path.

    Raises:
        ValueError: there is no such architecture or entry; the message lists what there is.
        CheckpointError: the file cannot be used, or belongs to another architecture.
    """
    _check_arch(arch)
    if not is_path(weights):
        entry = find_entry(arch, weights)
        return Source(entry.arch, entry)
    assert isinstance(weights, (str, os.PathLike))
    checkpoint = read_own(weights)
    found = checkpoints.arch_of(checkpoint)
    if found is None:
        raise CheckpointError(f"{checkpoint.where} has none of the architectures {', '.join(SPECS)}")
    if arch is not None and found != arch:
        raise CheckpointError(f"{checkpoint.where} holds {found}, not {arch}; load it with {found}(weights=...)")
    return Source(found, checkpoint)
