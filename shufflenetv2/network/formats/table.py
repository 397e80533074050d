"""The formats that a network can be written to and opened from, one row each, and what they share."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # `export --help` need not wait for torch
    import torch
    from torch import Tensor, nn

SMALLEST_SIZE = 33  # at 32 the last stage has one pixel, and torch.export takes that for a constant
SMALLEST_WITH_SMALL_STEM = 9  # as above, at 8
METADATA = ("arch", "weights", "categories", "preprocess", "producer")  # beside the network, each as JSON

Network = Callable[["Tensor"], "Tensor"]  # images (N, C, H, W) -> logits


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

        return torch.zeros(self.batch, self.channels, self.size, self.size)

    def constraints(self) -> tuple[dict[int, torch.export.Dim]] | None:
        import torch

        if not self.dynamic:
            return None
        height, width = (torch.export.Dim(name, min=self.smallest) for name in ("height", "width"))
        return ({0: torch.export.Dim("batch"), 2: height, 3: width},)


@dataclass(frozen=True)
class Format:
    """One row; ``module`` has the functions named ``writer`` and ``opener``, and is imported when one is called."""

    suffix: str
    module: str  # beside this one
    writer: str  # (model, shape, metadata, path)
    opener: str  # path -> (network, metadata)
    to_write: tuple[str, ...] = ()  # packages beyond torch, as pip takes them
    to_open: tuple[str, ...] = ()

    def write(self, model: nn.Module, shape: Shape, metadata: dict[str, str], path: Path) -> None:
        """Write a network in eval mode, and ``metadata`` (keys of ``METADATA``) beside it.

        Raises:
            ValueError: the format cannot promise this ``shape``.
            RuntimeError: the exporter cannot write this network.
        """
        with _quiet():
            self._function(self.writer)(model, shape, metadata, path)

    def open(self, path: Path) -> tuple[Network, dict[str, str]]:
        """What ``write`` wrote: the network, to be called on float32 images on the CPU, and the metadata."""
        with _quiet():
            opened: tuple[Network, dict[str, str]] = self._function(self.opener)(path)
        return opened

    def _function(self, name: str) -> Callable[..., Any]:
        function: Callable[..., Any] = getattr(import_module(f".{self.module}", __package__), name)
        return function


FORMATS = {
    "onnx": Format(
        ".onnx", "onnx", "write_onnx", "open_onnx", ("onnx>=1.19", "onnxscript>=0.5.4"), ("onnxruntime>=1.23",)
    ),
    "torch-export": Format(".pt2", "pytorch", "write_program", "open_program"),
    "torchscript": Format(".pt", "pytorch", "write_script", "open_script"),
}


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporters' own chatter: deprecations, and versions of packages they could also have used."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
