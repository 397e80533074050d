"""The formats that a network can be written to and opened from, one row each, and what they share.

Nothing else in the package knows their names, but for the help of ``classifier``: a new one is a module with ``write``
and ``open``, a row here, and its packages in pyproject.toml.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...package import require
from .quiet import quiet

if TYPE_CHECKING:  # `export --help` need not wait for torch
    import torch
    from torch import Tensor, nn

SMALLEST_SIZE = 33  # at 32 the last stage has one pixel, and torch.export takes that for a constant
SMALLEST_WITH_SMALL_STEM = 9  # as above, at 8
HALF = ("bfloat16", "float16")
PRECISIONS = ("float32", *HALF, "int8")

Network = Callable[["Tensor"], "Tensor"]  # float32 images (N, C, H, W), contiguous, on the CPU -> float32 logits


@dataclass(frozen=True)
class Shape:
    """The input ``(batch, channels, size, size)``: an example where ``dynamic``, else the only shape allowed.

    A dynamic file takes any height and width from ``smallest`` up.
    """

    batch: int
    channels: int
    size: int
    dynamic: bool
    smallest: int = SMALLEST_SIZE

    def example(self) -> Tensor:
        import torch

        return torch.zeros(self.batch, self.channels, self.size, self.size, dtype=torch.float32)

    def constraints(self) -> tuple[dict[int, torch.export.Dim]] | None:
        import torch

        if not self.dynamic:
            return None
        height, width = (torch.export.Dim(name, min=self.smallest) for name in ("height", "width"))
        return ({0: torch.export.Dim("batch"), 2: height, 3: width},)


@dataclass(frozen=True)
class Plan:
    """What is written: for which input, in which precision; and for int8 the images that its ranges come from."""

    shape: Shape
    precision: str = "float32"
    calibration: Tensor | None = None  # float32 (N, C, size, size), preprocessed

    def batches(self) -> list[Tensor]:
        """The calibration images in batches that the file allows; what is left over is left out."""
        import torch

        assert self.calibration is not None
        size = 1 if self.shape.dynamic else self.shape.batch
        whole = len(self.calibration) // size * size
        return list(torch.split(self.calibration[:whole], size))


@dataclass(frozen=True)
class Format:
    """One row. The functions ``write`` and ``open`` are those of ``module``, which is imported when one is called."""

    parts: tuple[str, ...]  # suffixes of its files, the one that users name first; in a folder their names
    module: str  # beside this one
    runtime: str  # what opens it
    to_write: tuple[str, ...] = ()  # packages beyond torch, as pip takes them
    to_open: tuple[str, ...] = ()
    to_quantise: tuple[str, ...] = ()  # besides those
    precisions: tuple[str, ...] = ("float32",)
    dynamic: bool = True  # whether one file can take any batch and size
    folder: bool = False
    unread: tuple[str, ...] = ()  # those of the parts that are for people alone
    plain: bool = False  # it holds the network as it was trained, never its deploy form
    marker: str = ""  # a file inside, where other files with this suffix are something else
    guarded: bool = False  # a file for every size refuses those below its smallest

    @property
    def suffix(self) -> str:
        return "" if self.folder else self.parts[0]

    def files(self, path: Path) -> list[Path]:
        """The files that belong to ``path``, the one that users name (for a folder, those in it)."""
        if self.folder:
            return [path / part for part in self.parts]
        stem = path.name[: len(path.name) - len(self.suffix)]
        return [path, *(path.with_name(stem + part) for part in self.parts[1:])]  # as the user spells it

    def needed(self, path: Path) -> list[Path]:
        """Those of ``files`` without which ``path`` cannot be opened."""
        return [file for file, part in zip(self.files(path), self.parts, strict=True) if part not in self.unread]

    def matches(self, path: Path) -> bool:
        """Whether ``path`` is, by its name and outline, a file of this format (for a folder, it or one in it)."""
        if self.folder:
            return path.name in self.parts or (os.path.isdir(path) and all(map(os.path.isfile, self.needed(path))))
        if not path.name.lower().endswith(self.suffix):
            return False
        return not self.marker or self.marker in _inside(path)

    def write(self, model: nn.Module, plan: Plan, metadata: dict[str, str], path: Path) -> None:
        """Write a network in eval mode, and ``metadata`` (keys of ``described.KEYS``, as JSON) beside it.

        Raises:
            ValueError: the format cannot promise this shape.
            RuntimeError: the exporter cannot write this network.
        """
        with quiet():
            self._module.write(model, plan, metadata, path)

    def open(self, path: Path) -> tuple[Network, dict[str, str]]:
        """What ``write`` wrote: the network, and the metadata.

        Raises:
            ImportError: the runtime is not installed; the message has the pip line.
            Exception: whatever the runtime raises about a file that it cannot read.
        """
        require(f"opening {path.name}", *self.to_open)
        with quiet():
            opened: tuple[Network, dict[str, str]] = self._module.open(path)
        return opened

    @property
    def _module(self) -> Any:
        return import_module(f".{self.module}", __package__)


FORMATS = {
    "onnx": Format(
        parts=(".onnx",),
        module="onnx",
        runtime="onnxruntime",
        to_write=("onnx>=1.19", "onnxscript>=0.5.4"),
        to_open=("onnxruntime>=1.25",),  # before, int8 gives wrong answers where the processor has AMX
        precisions=("float32", "float16", "int8"),
    ),
    "openvino": Format(
        parts=(".xml", ".bin"),
        module="openvino",
        runtime="openvino",
        to_write=("packaging",),  # OpenVINO's converter imports it, and does not require it
        to_open=("openvino>=2025.3",),
        to_quantise=("nncf>=3",),
        precisions=PRECISIONS,
    ),
    "ncnn": Format(
        parts=(".ncnn.param", ".ncnn.bin", ".ncnn.json"),
        module="ncnn",
        runtime="ncnn",
        to_write=("pnnx>=20260101",),
        to_open=("ncnn>=1.0.20260101",),
        precisions=("float32", "float16"),
        dynamic=False,
    ),
    "executorch": Format(
        parts=(".pte",),
        module="executorch",
        runtime="executorch",
        to_open=("executorch>=1.5",),
        precisions=("float32", "int8"),
        dynamic=False,
    ),
    "torch-export": Format(
        parts=(".pt2",),
        module="program",
        runtime="torch",
        precisions=("float32", *HALF),
        marker="archive_format",
        guarded=True,
    ),
    "torchscript": Format(
        parts=(".pt",), module="script", runtime="torch", precisions=("float32", *HALF), marker="constants.pkl"
    ),
    "safetensors": Format(
        parts=("config.json", "model.safetensors", "README.md"),
        module="safetensors",
        runtime="torch",
        to_open=("safetensors>=0.5", "numpy"),
        precisions=("float32", *HALF),
        folder=True,
        unread=("README.md",),
        plain=True,
    ),
}
# How the names of files end that are of a format whatever is in them, so that no checkpoint may be called so.
TAKEN = tuple(form.suffix for form in FORMATS.values() if form.suffix and not form.marker)
# Which format a runtime is given to compute weights that are no exported file.
SERVED = {form.runtime: name for name, form in FORMATS.items() if form.runtime != "torch"}


def format_of(path: Path) -> str | None:
    """The name of the format that ``path`` is a file of; ``None``: of none, so that it may be a checkpoint."""
    return next((name for name, form in FORMATS.items() if form.matches(path)), None)


def whole_of(path: Path) -> str | None:
    """Of a file that is a part of an exported one, the name of that; several formats have parts named ``.bin``."""
    parts = [(part, form.suffix) for form in FORMATS.values() if not form.folder for part in form.parts[1:]]
    for part, suffix in sorted(parts, key=lambda each: -len(each[0])):
        if path.name.endswith(part) and os.path.isfile(path.with_name(path.name.removesuffix(part) + suffix)):
            return path.name.removesuffix(part) + suffix
    return None


def _inside(path: Path) -> set[str]:
    if not os.path.isfile(path):  # a pipe would be waited for
        return set()
    try:
        with zipfile.ZipFile(path) as archive:
            return {os.path.basename(name) for name in archive.namelist()}
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError):
        return set()
