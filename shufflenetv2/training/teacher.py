"""Distillation: a larger network's answers to the very crops that the model sees, learnt from beside the labels.

Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", 2015, https://arxiv.org/abs/1503.02531.
"""

import hashlib
import os
import zipfile
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..builder import Weights, build, is_path, resolve
from ..description import Preprocess
from ..errors import CheckpointError, TrainingError
from ..files import expanded
from .start import rows_of


@dataclass(frozen=True)
class Teacher:
    """A network in eval mode, and how the model's input becomes its own.

    ``contents`` says in words which file: another teacher makes another run.
    """

    network: Callable[[Tensor], Tensor]
    title: str
    contents: str
    rescale: tuple[Tensor, Tensor] | None = None  # factor and summand ``(3, 1, 1)``, where it normalises otherwise
    size: int | None = None  # pixels a side that it was trained for; None: it takes the model's

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Logits ``(N, classes)`` for the model's input ``float32 (N, 3, S, S)``."""
        if self.rescale:
            factor, summand = (each.to(images.device) for each in self.rescale)
            images = images * factor + summand
        if self.size not in (None, images.shape[-1]):
            images = F.interpolate(images, (self.size, self.size), mode="bilinear", align_corners=False)
        return self.network(images)


def distillation(logits: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """``T^2 KL(teacher / T || logits / T)`` of each photo ``(N,)``; its gradients are of the labels' magnitude."""
    student, target = ((each.float() / temperature).log_softmax(1) for each in (logits, teacher))
    return F.kl_div(student, target, reduction="none", log_target=True).sum(1) * temperature**2


def open_teacher(
    name: str,
    categories: Sequence[str],
    preprocess: Preprocess,
    sizes: Sequence[int],
    device: torch.device,
    batch_sizes: Collection[int] = (2,),
    amp: bool = False,
) -> Teacher:
    """The teacher for a model of these classes, tried on the sizes and batches that training will use.

    Args:
        name: weights that the package reads, or a file of TorchScript or torch.export: any network that maps
            ``float32 (N, 3, S, S)``, normalised as the model's input is, to logits of these classes in this order.
        categories: the model's classes; weights that name theirs must have the same, in any order.
        preprocess: how the model's photos are normalised.
        sizes: of the images.
        device: where to compute.
        batch_sizes: the smallest and the largest number of images at once.
        amp: whether training computes in bfloat16 where torch takes that to be safe.

    Raises:
        TrainingError: it cannot be opened, does not answer with these classes, or is in training mode.
    """
    try:
        teacher = _described(resolve(None, name), categories, preprocess, device)
    except CheckpointError:
        program = _program(Path(expanded(name)), device) if is_path(name) else None  # one that does not describe itself
        if program is None:
            raise
        teacher = program
    for size in sizes:
        for count in sorted({*batch_sizes}):
            _try(teacher, name, categories, images := _noise(count, size, device))
            if amp:
                _try_amp(teacher, name, images)
    _refuse_training_mode(teacher, name, _noise(max(batch_sizes), sizes[0], device))
    return teacher


def _noise(count: int, size: int, device: torch.device) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(0)).to(device)


def _try(teacher: Teacher, name: str, categories: Sequence[str], images: Tensor) -> None:
    try:
        logits = teacher(images)
        got = list(logits.shape)
    except Exception as error:  # a foreign network may raise anything
        reason = str(error).strip().partition("\n")[0]
        raise TrainingError(
            f"--teacher {name} fails on images {list(images.shape)}: {reason:.200}. If it was exported for another "
            'number of images, let torch.export take any: dynamic_shapes=({0: Dim("batch")},)'
        ) from error
    if got != [len(images), len(categories)]:
        raise TrainingError(
            f"--teacher {name} answers images {list(images.shape)} with {got}, expected "
            f"{[len(images), len(categories)]}: the photos have the {len(categories)} classes "
            f"{', '.join(categories)[:120]}; give a teacher of these"
        )
    if not bool(logits.isfinite().all()):
        raise TrainingError(
            f"--teacher {name} answers images {list(images.shape)} with NaN or infinity, from which nothing is learnt; "
            "give another teacher"
        )


def _try_amp(teacher: Teacher, name: str, images: Tensor) -> None:
    """What torch.export wrote may insist on the float32 that it was traced with."""
    try:
        with torch.autocast(images.device.type, torch.bfloat16):
            finite = bool(teacher(images).isfinite().all())
        reason = "" if finite else "it answers with NaN or infinity"
    except Exception as error:
        reason = str(error).strip().partition("\n")[0]
    if reason:
        raise TrainingError(f"--teacher {name} does not compute under --amp: {reason:.200}; leave --amp out")


def _refuse_training_mode(teacher: Teacher, name: str, images: Tensor) -> None:
    """Where the answer to one image is another beside others (BatchNorm), or the second time (dropout)."""
    answer = teacher(images)[0]
    others = 2 * images + 1
    others[0] = images[0]
    for again, share in ((images, 0.005), (others, 0.05)):  # int8 may round otherwise beside brighter images
        if not torch.allclose(teacher(again)[0], answer, rtol=0, atol=share * float(answer.abs().max())):
            raise TrainingError(
                f"--teacher {name} answers otherwise to one image beside others, or when asked again, as a network in "
                "training mode does; call .eval() before exporting it"
            )


def _program(path: Path, device: torch.device) -> Teacher | None:
    """The network of a TorchScript or torch.export file; ``None`` for another file."""
    if not zipfile.is_zipfile(path):
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            names = {os.path.basename(each) for each in archive.namelist()}
        if {"arch", "preprocess"} <= names:
            return None  # of this package: what is wrong with its description is told
        network: Any
        if "constants.pkl" in names:
            network = torch.jit.load(path, map_location=device)  # type: ignore[no-untyped-call]
            network.eval()
        elif "archive_format" in names:
            network = torch.export.load(path).module().to(device)
        else:
            return None
    except Exception as error:  # both fail with many types on damaged files
        raise TrainingError(f"--teacher {path} cannot be opened: {str(error).partition(chr(10))[0]:.200}") from error
    return Teacher(network, str(path), f"one of sha256 {hashlib.sha256(path.read_bytes()).hexdigest()[:16]}")


def _described(weights: Weights, categories: Sequence[str], preprocess: Preprocess, device: torch.device) -> Teacher:
    known, rows = weights.labels, rows_of(categories, weights.classes)  # as the weights to start from are known
    if not rows:
        raise TrainingError(
            f"--teacher {weights.title} knows {len(known)} classes ({', '.join(known)[:80]}), and "
            f"the photos have {len(categories)} ({', '.join(categories)[:80]}); they must be the same"
        )
    if weights.in_channels != 3:
        raise TrainingError(
            f"--teacher {weights.title} is for images of {weights.in_channels} channel{'s' * (weights.in_channels > 1)}"
            ", and photos have 3; give another"
        )
    model = weights.exported or build(weights.arch, weights).to(device)
    order = torch.tensor(rows, device=device)
    mine, theirs = preprocess, weights.preprocess
    mean, std, new_mean, new_std = (
        torch.tensor(each).view(3, 1, 1) for each in (mine.mean, mine.std, theirs.mean, theirs.std)
    )
    same = (mine.mean, mine.std) == (theirs.mean, theirs.std)
    return Teacher(
        network=lambda images: model(images).to(images.device)[:, order],  # an exported file computes on the CPU
        title=weights.title,
        contents=f"one of sha256 {weights.sha256[:16]}",
        rescale=None if same else (std / new_std, (mean - new_mean) / new_std),
        size=theirs.crop,
    )
