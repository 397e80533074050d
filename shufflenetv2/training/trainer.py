"""The training loop: epochs of steps, and the state from which the next epoch can be repeated exactly.

Every random choice of an epoch is seeded by the seed and the epoch's number alone, so an interrupted run goes on after
its last finished epoch as if nothing had happened: bit for bit, on the CPU with one process. Learning rate and image
size are functions of ``progress``, the part of all steps that lies behind (0 to 1), so a run that is resumed with
another number of epochs continues at the same epoch of the new schedule.
"""

import math
import time
import warnings
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import update_bn

from ..description import Preprocess
from ..devices import Group, memory_told
from ..errors import ImageError, TrainingError
from ..network.model import ShuffleNetV2
from ..photos.ahead import read_ahead
from ..photos.folders import LabelledPhotos
from ..photos.transform import PhotoTransform
from .augment import BatchTransform, TrainingPhotos, class_weights, deal, derived_seed, epoch_batches
from .optimizing import moving_average, sgd
from .recipe import Recipe, rate_factor, size_at
from .teacher import Teacher, distillation

CHECK_EVERY = 20  # steps between two looks at the loss: each look waits for the device


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
        preprocess: how the model's photos are normalised.
        recipe: how.
        group: the processes that share the work; each draws its own photos, gradients are averaged.
        teacher: to learn from beside the labels.
    """

    def __init__(
        self,
        model: ShuffleNetV2,
        photos: LabelledPhotos,
        preprocess: Preprocess,
        recipe: Recipe,
        group: Group,
        teacher: Teacher | None = None,
    ) -> None:
        self.model, self.photos, self.recipe, self.group, self.teacher = model, photos, recipe, group, teacher
        self.preprocess = preprocess
        self.transform = BatchTransform(recipe.augmentation, preprocess, model.num_classes)
        if recipe.channels_last:
            model.to(memory_format=torch.channels_last)
        if recipe.freeze_backbone:
            model.requires_grad_(False)
            model.fc.requires_grad_(True)
        self.optimizer = sgd(model, recipe.lr, recipe.momentum, recipe.weight_decay)
        self.average = moving_average(model, recipe.ema)
        # Of each photo's whole loss: torch's criterion would weigh what is smoothed onto other classes, too, and divide
        # the weights out of every batch without rare photos.
        self.weights = class_weights(photos).to(group.device) if recipe.class_weights == "auto" else None
        self.criterion = nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing, reduction="none")
        if group.size > 1:
            # The gradients of 1x1 kernels have strides that mean the same order under another name.
            warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
        self.replica: nn.Module = DistributedDataParallel(model) if group.size > 1 else model
        self.epoch = 0
        self._parts: dict[str, Any] = {"model": model, "average": self.average, "optimizer": self.optimizer}
        self.steps = recipe.steps(len(photos), group.size)

    def state(self) -> dict[str, Any]:
        """Everything the next epoch depends on, as tensors and plain types."""
        return {"epoch": self.epoch, **{name: part.state_dict() for name, part in self._parts.items()}}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue after the epoch at whose end ``state`` was taken.

        Raises:
            Exception: of many types, where it is none of this model's; the trainer cannot be used any more.
        """
        self.epoch = state["epoch"]
        for name, part in self._parts.items():
            part.load_state_dict(state[name])
        for group in self.optimizer.param_groups if self.recipe.momentum else ():
            for parameter in group["params"]:  # load_state_dict takes any
                if self.optimizer.state[parameter]["momentum_buffer"].shape != parameter.shape:
                    raise ValueError("the momentum of another network")

    def run_epoch(self, bar: Any) -> EpochResult:
        """Train for one epoch, telling tqdm's ``bar`` of every step.

        Raises:
            ImageError: naming a photo that cannot be used.
            TrainingError: the loss is not finite.
        """
        recipe, epoch = self.recipe, self.epoch
        size = size_at(epoch / recipe.epochs, recipe.sizes)
        torch.manual_seed(derived_seed(recipe.seed, epoch, self.group.rank))
        self.model.train(not recipe.freeze_backbone)  # a frozen backbone keeps its BatchNorm statistics too
        self.model.fc.train()
        totals = torch.zeros(3, dtype=torch.float64, device=self.group.device)  # loss, hits, photos
        mean_loss = accuracy = rate = waited = 0.0
        start = time.perf_counter()
        photos = TrainingPhotos(self.photos, recipe.augmentation, size)
        count, seeds = self.steps * recipe.accumulate, (recipe.seed, epoch)
        batches = iter(epoch_batches(photos, count, self.group, recipe.workers, *seeds, balanced=recipe.balanced))
        for step, taken in enumerate(deal(range(len(self.photos)), self.steps)):
            progress = (epoch + (step + 0.5) / self.steps) / recipe.epochs
            rate = recipe.lr * rate_factor(progress, recipe.warmup, recipe.decay)
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            self.optimizer.zero_grad()
            for part in range(1, recipe.accumulate + 1):
                asked = time.perf_counter()
                batch = self._taken(batches)
                waited += time.perf_counter() - asked
                if isinstance(batch, ImageError):
                    raise ImageError(str(batch))  # in a cycle with its frame, it would keep the workers for 5 s
                images, labels = batch
                share = self.group.size * len(labels) / len(taken)  # the processes' gradients are averaged
                with memory_told(self.group.device, len(labels)):
                    totals += self._backward(images, labels, size, share, synchronize=part == recipe.accumulate)
            self.optimizer.step()
            self.average.update_parameters(self.model)
            if (step + 1) % CHECK_EVERY == 0 or step + 1 == self.steps:
                mean_loss, accuracy = self._check(totals, step)
                bar.set_postfix(loss=f"{mean_loss:.3f}", accuracy=f"{accuracy:.1%}", size=size)
            bar.update()
        for value in self.average.module.state_dict().values():
            self.group.copy_from_leader(value)  # BatchNorm statistics differ from process to process
        if not all(bool(value.isfinite().all()) for value in self.model.state_dict().values()):
            raise self.diverged("the weights are", epoch + 1, self.steps)
        if recipe.reestimate_norms and epoch + 1 == recipe.epochs:
            self._reestimate_norms()
        seconds = time.perf_counter() - start
        self.epoch += 1
        return EpochResult(self.epoch, size, rate, mean_loss, accuracy, seconds, waited / seconds)

    def _taken(self, batches: Iterator[Any]) -> Any:
        try:
            return next(batches)
        except RuntimeError as error:
            if "DataLoader worker (pid" not in str(error):
                raise
            raise TrainingError(
                "a process that reads photos has died: memory ran out, or /dev/shm is small, as in a container; then "
                "--resume with --workers 0, or with more of it (docker run --shm-size=2g)"
            ) from error

    def _backward(self, images: Tensor, labels: Tensor, size: int, share: float, synchronize: bool) -> Tensor:
        """Add ``share`` of one batch's mean gradients. Returns its summed loss, hits and number of photos."""
        recipe, device = self.recipe, self.group.device
        labels = labels.to(device, non_blocking=True)
        inputs, targets = self.transform(images.to(device, non_blocking=True), labels, size)
        if recipe.channels_last:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        local = isinstance(self.replica, DistributedDataParallel) and not synchronize
        with self.replica.no_sync() if local else nullcontext():  # type: ignore[operator]  # no_sync is DDP's
            with torch.autocast(device.type, torch.bfloat16, enabled=recipe.amp):
                logits = self.replica(inputs)
                losses = self.criterion(logits, targets)
                if self.teacher:
                    taught = distillation(logits, self.teacher(inputs), recipe.temperature)
                    losses = torch.lerp(losses, taught, recipe.distill_weight)
            if self.weights is not None:  # mixed photos have a part of each label
                losses = losses * (self.weights[targets] if targets.dim() == 1 else (targets * self.weights).sum(1))
            loss = losses.mean()
            (loss * share).backward()
        if recipe.clip_norm and synchronize:
            nn.utils.clip_grad_norm_(self.model.parameters(), recipe.clip_norm)
        hits = (logits.detach().argmax(1) == labels).sum()
        return torch.stack([loss.detach() * len(labels), hits, hits.new_tensor(len(labels))]).double()

    def _reestimate_norms(self) -> None:
        """Give the averaged weights the BatchNorm statistics of the photos as validation sees them.

        Each process sees its part of them; their statistics are averaged, by their numbers of batches.
        """
        average, group = self.average.module, self.group
        order = torch.randperm(len(self.photos), generator=torch.Generator().manual_seed(self.recipe.seed)).tolist()
        # Mixed: a batch of one class varies less.
        paths = [self.photos.paths[index] for index in order[group.rank :: group.size]]
        batches = read_ahead(paths, PhotoTransform(self.preprocess), max(2, self.recipe.batch_size))
        good = ([image for _, image in batch if isinstance(image, Tensor)] for batch in batches)
        update_bn((torch.cat(images) for images in good if len(images) > 1), average, group.device)
        for norm in average.modules():
            if isinstance(norm, nn.BatchNorm2d):
                mean, variance, batches_seen = norm.buffers()
                everyone = group.add(batches_seen.clone())
                for value in (mean, variance):
                    value.copy_(group.add(value.double() * batches_seen) / everyone)
                batches_seen.copy_(everyone)

    def _check(self, totals: Tensor, step: int) -> tuple[float, float]:
        """Mean loss and accuracy so far, over all processes."""
        loss, hits, photos = self.group.add(totals.clone()).tolist()
        if not math.isfinite(loss):
            raise self.diverged("the loss is", self.epoch + 1, step + 1)
        return loss / photos, hits / photos

    def diverged(self, what: str, epoch: int, step: int) -> TrainingError:
        intact = f"; the files of epoch {epoch - 1} are intact" if epoch > 1 else ""
        return TrainingError(
            f"{what} no longer finite (NaN or infinite) in epoch {epoch}, by step {step}: training diverged. "
            f"Start anew with a lower --lr than {self.recipe.lr:g} or a longer --warmup than {self.recipe.warmup:g}"
            + intact
        )
