"""The training loop: epochs of steps, and the state from which the next epoch can be repeated exactly.

Every random choice of an epoch is seeded by the seed and the epoch's number alone, so an interrupted run is continued
from the last finished epoch as if nothing had happened: bit for bit, on the CPU with one process.
"""

import math
import time
import warnings
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader
from tqdm import tqdm

from ..devices import Group
from ..errors import ImageError, TrainingError
from ..network.model import ShuffleNetV2
from ..photos.labelled import LabelledPhotos
from .augment import Augmentation, BatchTransform, TrainingPhotos, collate
from .optimization import MovingAverage, freeze_backbone, rate_factor, sgd, size_at, train_mode

CHECK_EVERY = 20  # steps between two looks at the loss: each look waits for the device


@dataclass(frozen=True)
class Recipe:
    """How to train; ``sizes`` are image sizes and the parts of the schedule they are used for."""

    epochs: int
    batch_size: int  # photos a step and process
    sizes: tuple[tuple[int, float], ...]
    lr: float
    momentum: float = 0.9
    weight_decay: float = 5e-4
    warmup: float = 0.1
    decay: str = "linear"
    label_smoothing: float = 0.1
    ema: float = 0.0
    accumulate: int = 1
    freeze_backbone: bool = False
    amp: bool = False
    channels_last: bool = False
    workers: int = 0
    seed: int = 0
    augmentation: Augmentation = field(default_factory=Augmentation)


@dataclass(frozen=True)
class EpochResult:
    """Means over one epoch; ``waiting`` is the part of the time spent waiting for photos."""

    epoch: int
    size: int
    lr: float
    loss: float
    accuracy: float
    seconds: float
    waiting: float


class Trainer:
    """A model, its optimizer and its moving average, one epoch after the other.

    Args:
        model: on the group's device.
        photos: what to learn from.
        transform: prepares a batch.
        recipe: how.
        group: the processes that share the work; each draws its own photos, gradients are averaged.
    """

    def __init__(
        self, model: ShuffleNetV2, photos: LabelledPhotos, transform: BatchTransform, recipe: Recipe, group: Group
    ) -> None:
        self.model, self.photos, self.transform, self.recipe, self.group = model, photos, transform, recipe, group
        if recipe.channels_last:
            model.to(memory_format=torch.channels_last)
        if recipe.freeze_backbone:
            freeze_backbone(model)
        self.optimizer = sgd(model, recipe.lr, recipe.momentum, recipe.weight_decay)
        self.average = MovingAverage(model, recipe.ema)
        self.criterion = nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing)
        if group.size > 1:
            # The gradients of 1x1 kernels have strides that mean the same order under another name.
            warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
        self.replica: nn.Module = DistributedDataParallel(model) if group.size > 1 else model
        self.epoch = 0
        share = len(photos) // (group.size * recipe.accumulate)
        if share < 2:
            raise TrainingError(
                f"{len(photos)} photos are too few for {group.size} processes and --accumulate {recipe.accumulate}: "
                "each step needs at least two photos a process"
            )
        # Whole batches only, since a small last one would disturb BatchNorm; a smaller set is one batch.
        self.batch_size = min(recipe.batch_size, share)
        self.steps = len(photos) // (self.batch_size * group.size * recipe.accumulate)

    def state(self) -> dict[str, Any]:
        """Everything the next epoch depends on, as tensors and plain types."""
        return {
            "epoch": self.epoch,
            "model": self.model.state_dict(),
            "average": self.average.state_dict,
            "average_steps": self.average.steps,
            "optimizer": self.optimizer.state_dict(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue after the epoch at whose end ``state`` was taken."""
        self.epoch = state["epoch"]
        self.model.load_state_dict(state["model"])
        self.average.load(state["average"], state["average_steps"])
        self.optimizer.load_state_dict(state["optimizer"])

    def run_epoch(self, progress: "tqdm[Any] | None" = None) -> EpochResult:
        """Train for one epoch, telling ``progress`` of every step.

        Raises:
            ImageError: naming a photo that cannot be used.
            TrainingError: the loss is not finite.
        """
        recipe, epoch = self.recipe, self.epoch
        size = size_at(epoch / recipe.epochs, recipe.sizes)
        torch.manual_seed(_seed(recipe.seed, epoch, self.group.rank))
        train_mode(self.model, recipe.freeze_backbone)
        totals = torch.zeros(3, dtype=torch.float64, device=self.group.device)  # loss, hits, photos
        mean_loss = accuracy = rate = waited = 0.0
        start = time.perf_counter()
        batches = iter(self._loader(size))
        for step in range(self.steps):
            rate = recipe.lr * rate_factor(
                (epoch + (step + 0.5) / self.steps) / recipe.epochs, recipe.warmup, recipe.decay
            )
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            self.optimizer.zero_grad()
            for part in range(1, recipe.accumulate + 1):
                asked = time.perf_counter()
                batch = next(batches)
                waited += time.perf_counter() - asked
                if isinstance(batch, ImageError):
                    raise batch
                images, labels = batch
                totals += self._backward(images, labels, size, synchronize=part == recipe.accumulate)
            self.optimizer.step()
            self.average.update()
            if (step + 1) % CHECK_EVERY == 0 or step + 1 == self.steps:
                mean_loss, accuracy = self._check(totals, step)
                if progress is not None:
                    progress.set_postfix(loss=f"{mean_loss:.3f}", accuracy=f"{accuracy:.1%}", size=size)
            if progress is not None:
                progress.update()
        self.average.share(self.group)
        if not all(bool(torch.isfinite(value).all()) for value in self.model.state_dict().values()):
            raise self._diverged("the weights are", self.steps)
        seconds = time.perf_counter() - start
        self.epoch += 1
        return EpochResult(self.epoch, size, rate, mean_loss, accuracy, seconds, waited / seconds)

    def _loader(self, size: int) -> DataLoader[Any]:
        """The batches of this epoch and process: all processes walk through one permutation in turns."""
        recipe, group = self.recipe, self.group
        generator = torch.Generator().manual_seed(_seed(recipe.seed, self.epoch))
        order = torch.randperm(len(self.photos), generator=generator)
        own = order[group.rank :: group.size].tolist()
        batches = [own[i * self.batch_size : (i + 1) * self.batch_size] for i in range(self.steps * recipe.accumulate)]
        generator.manual_seed(_seed(recipe.seed, self.epoch, group.rank))  # the workers' seeds are drawn from it
        return DataLoader(
            TrainingPhotos(self.photos, recipe.augmentation, size),
            batch_sampler=batches,
            num_workers=recipe.workers,
            collate_fn=collate,
            generator=generator,
            pin_memory=group.device.type == "cuda",
        )

    def _backward(self, images: Tensor, labels: Tensor, size: int, synchronize: bool) -> Tensor:
        """Add one batch's gradients. Returns its summed loss, hits and number of photos."""
        recipe, device = self.recipe, self.group.device
        labels = labels.to(device, non_blocking=True)
        inputs, targets = self.transform(images.to(device, non_blocking=True), labels, size)
        if recipe.channels_last:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        local = isinstance(self.replica, DistributedDataParallel) and not synchronize
        with self.replica.no_sync() if local else nullcontext():  # type: ignore[operator]  # no_sync is DDP's
            with torch.autocast(device.type, torch.bfloat16, enabled=recipe.amp):
                logits = self.replica(inputs)
                loss = self.criterion(logits, targets)
            (loss / recipe.accumulate).backward()
        hits = (logits.detach().argmax(1) == labels).sum()
        return torch.stack([loss.detach() * len(labels), hits, hits.new_tensor(len(labels))]).double()

    def _check(self, totals: Tensor, step: int) -> tuple[float, float]:
        """Mean loss and accuracy so far, over all processes."""
        loss, hits, photos = self.group.add(totals.clone()).tolist()
        if not math.isfinite(loss):
            raise self._diverged("the loss is", step + 1)
        return loss / photos, hits / photos

    def _diverged(self, what: str, step: int) -> TrainingError:
        return TrainingError(
            f"{what} no longer finite (NaN or infinite) in epoch {self.epoch + 1}, by step {step}: training diverged. "
            f"Start anew with a lower --lr than {self.recipe.lr:g} or a longer --warmup than {self.recipe.warmup:g}; "
            f"the files of epoch {self.epoch} are intact"
        )


def _seed(*parts: int) -> int:
    """One seed for the run, the epoch and the process, far from its neighbours' (splitmix64's constants)."""
    state = 0
    for part in parts:
        state = (state + part + 0x9E3779B97F4A7C15) * 0xBF58476D1CE4E5B9 % 2**64
        state ^= state >> 31
    return state >> 1
