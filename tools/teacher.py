"""A teacher for CIFAR-10: two networks, trained here, whose mean is a file that `train --teacher` takes.

One is David Page's ResNet-9 (https://github.com/davidcpage/cifar10-fast) with half of its channels. The other has the
layers, initial values, learning rates and weight decay of Keller Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single
GPU", 2024, https://arxiv.org/abs/2404.00498, with three quarters of its channels and without label smoothing, which
hides from a student what its teacher knows (Mueller et al., "When Does Label Smoothing Help?", 2019,
https://arxiv.org/abs/1906.02629). Photos, shifts and flips are those of `shufflenetv2 train`.
"""

import dataclasses
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from shufflenetv2.description import STANDARD
from shufflenetv2.devices import Group
from shufflenetv2.files import whole_file
from shufflenetv2.photos.folders import LabelledPhotos, hold_out, read_labelled
from shufflenetv2.training.augment import BatchTransform, TrainingPhotos, derived_seed, epoch_batches
from shufflenetv2.training.optimizing import moving_average
from shufflenetv2.training.recipe import Augmentation, rate_factor
from shufflenetv2.weights.checkpoint import save_whole

SIZE = 32
PREPROCESS = dataclasses.replace(STANDARD, resize=SIZE, crop=SIZE)


class Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(*convolved(channels, channels), *convolved(channels, channels))

    def forward(self, features: Tensor) -> Tensor:
        added: Tensor = self.branch(features)
        return features + added


def convolved(in_channels: int, out_channels: int) -> tuple[nn.Module, ...]:
    convolution = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
    return convolution, nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True)


def residual(images: Tensor, num_classes: int, width: int = 32) -> nn.Sequential:
    """ResNet-9; ``width`` is that of the first layer, 64 in the original."""
    del images
    layers = [*convolved(3, width), *convolved(width, 2 * width), nn.MaxPool2d(2), Residual(2 * width)]
    layers += [*convolved(2 * width, 4 * width), nn.MaxPool2d(2), *convolved(4 * width, 8 * width), nn.MaxPool2d(2)]
    layers += [Residual(8 * width), nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(8 * width, num_classes)]
    return nn.Sequential(*layers)


class Ninth(nn.Module):
    def forward(self, logits: Tensor) -> Tensor:
        return logits / 9


def whitened(images: Tensor, num_classes: int, widths: tuple[int, ...] = (48, 192, 192)) -> nn.Sequential:
    """Three blocks, of 64, 256 and 256 channels in the paper, behind a layer that whitens what ``images`` show."""
    first = whitening(images)
    blocks = [block(*pair) for pair in zip((first.out_channels, *widths), widths, strict=False)]
    head = nn.Linear(widths[-1], num_classes, bias=False)
    return nn.Sequential(first, nn.GELU(), *blocks, nn.MaxPool2d(3), nn.Flatten(), head, Ninth())


def block(in_channels: int, out_channels: int) -> nn.Sequential:
    enter, stay = (nn.Conv2d(count, out_channels, 3, padding=1, bias=False) for count in (in_channels, out_channels))
    for convolution in (enter, stay):
        nn.init.dirac_(convolution.weight.data[: convolution.in_channels])  # these channels begin as those they read
    norms = [nn.BatchNorm2d(out_channels) for _ in range(2)]
    for norm in norms:
        norm.weight.requires_grad_(False)
    return nn.Sequential(enter, nn.MaxPool2d(2), norms[0], nn.GELU(), stay, norms[1], nn.GELU())


@torch.no_grad()
def whitening(images: Tensor) -> nn.Conv2d:
    """A 2x2 convolution whose outputs are uncorrelated and of variance 1 on ``images``, each with both signs."""
    patches = F.unfold(images, 2).transpose(1, 2).flatten(0, 1)  # (patches, 12)
    values, vectors = torch.linalg.eigh(patches.T @ patches / len(patches))
    kernels = (vectors / (values + 5e-4).sqrt()).T.view(12, 3, 2, 2)
    convolution = nn.Conv2d(3, 24, 2)
    convolution.weight.copy_(torch.cat((kernels, -kernels)))
    convolution.weight.requires_grad_(False)
    return convolution


@dataclass(frozen=True)
class Plan:
    """A network, and how it learns: by Nesterov's method, at a rate that rises to its peak and falls to 0."""

    network: Callable[[Tensor, int], nn.Sequential]  # photos as it will see them, and the number of classes
    epochs: int
    batch: int
    rate: float
    warmup: float  # part of the epochs
    momentum: float
    weight_decay: float
    average: float  # decay a step of the moving average that is kept
    label_smoothing: float = 0.0
    bias_factor: float = 1.0  # by which biases, and weights of norms, learn faster
    bias_decay: float = 0.0  # of these


PLANS = {
    "residual": Plan(residual, 20, 256, 0.2, 0.2, 0.9, 5e-4, 0.995, label_smoothing=0.1),
    "whitened": Plan(whitened, 16, 512, 0.75, 0.23, 0.85, 1.33e-3, 0.98, bias_factor=64, bias_decay=2.08e-5),
}


class MeanInBfloat16(nn.Module):
    """The mean of trained networks' logits, in bfloat16: 2.8 times as fast where the processor has AVX512-BF16."""

    def __init__(self, networks: list[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self.networks.to(torch.bfloat16).to(memory_format=torch.contiguous_format)

    def forward(self, images: Tensor) -> Tensor:
        images = images.to(torch.bfloat16)
        return torch.stack([network(images).float() for network in self.networks]).mean(0)


def teacher(photos: Path, folder: Path, *, held_out: float, seed: int = 0) -> None:
    """Train both networks, resuming after the last whole epoch, and write ``teacher.pt2`` and ``log.json``."""
    known, unseen = hold_out(read_labelled(photos), held_out, seed=0)
    folder.mkdir(parents=True, exist_ok=True)
    networks, logs = [], {}
    for name, plan in PLANS.items():
        average, logs[name] = train_network(plan, known, unseen, folder / f"{name}.pth", seed)
        networks.append(average.module)
    both = MeanInBfloat16(networks).eval()
    print(f"together: {count(both, unseen)} of {len(unseen)}", file=sys.stderr)
    (folder / "log.json").write_text(json.dumps(logs, indent=1) + "\n")
    batch, example = torch.export.Dim("batch", min=2), torch.zeros(2, 3, SIZE, SIZE)
    program = torch.export.export(both, (example,), dynamic_shapes=({0: batch},))
    with whole_file(folder / "teacher.pt2", ".pt2") as temporary:
        torch.export.save(program, temporary)


def train_network(
    plan: Plan, known: LabelledPhotos, unseen: LabelledPhotos, state: Path, seed: int
) -> tuple[AveragedModel, list[dict[str, Any]]]:
    """The moving average of a network that learnt ``known``, and a line for each epoch; ``state`` is gone on with."""
    augmentation = Augmentation(photo_size=SIZE)
    dataset, transform = TrainingPhotos(known, augmentation, SIZE), BatchTransform(augmentation, PREPROCESS, 0)
    torch.manual_seed(seed)
    model = plan.network(next(plain(known)), len(known.categories)).to(memory_format=torch.channels_last)
    optimizer, average, log = sgd(model, plan), moving_average(model, plan.average), []
    if state.exists():
        log, *parts = torch.load(state, weights_only=True)
        resumed: tuple[Any, ...] = (model, optimizer, average)
        for part, values in zip(resumed, parts, strict=True):
            part.load_state_dict(values)
    steps, group = len(known) // plan.batch, Group(0, 1, torch.device("cpu"))
    for epoch in range(len(log), plan.epochs):
        torch.manual_seed(derived_seed(seed, epoch))
        start, loss = time.perf_counter(), 0.0
        model.train()
        for step, (images, labels) in enumerate(epoch_batches(dataset, steps, group, 1, seed, epoch)):
            part = (epoch + (step + 0.5) / steps) / plan.epochs
            for each in optimizer.param_groups:
                each["lr"] = plan.rate * each["factor"] * rate_factor(part, plan.warmup, "linear")
            inputs, targets = transform(images, labels, SIZE)
            with torch.autocast("cpu", torch.bfloat16):
                logits = model(inputs.contiguous(memory_format=torch.channels_last))
                error = F.cross_entropy(logits, targets, label_smoothing=plan.label_smoothing)
            optimizer.zero_grad()
            torch.autograd.backward(error)
            optimizer.step()
            average.update_parameters(model)
            loss += float(error.detach()) / steps
        row = {"epoch": epoch + 1, "loss": loss, "right": count(average, unseen), "of": len(unseen)}
        log.append({**row, "seconds": time.perf_counter() - start})
        print(state.stem, log[-1], file=sys.stderr, flush=True)
        save_whole(state, [log, model.state_dict(), optimizer.state_dict(), average.state_dict()])
    return average, log


def sgd(model: nn.Module, plan: Plan) -> torch.optim.SGD:
    learnt = [each for each in model.parameters() if each.requires_grad]
    weights = {"params": [each for each in learnt if each.ndim > 1], "weight_decay": plan.weight_decay, "factor": 1}
    biases = {"params": [each for each in learnt if each.ndim == 1], "weight_decay": plan.bias_decay}
    groups: list[dict[str, Any]] = [weights, {**biases, "factor": plan.bias_factor}]
    return torch.optim.SGD(groups, plan.rate, plan.momentum, nesterov=True)


@torch.inference_mode()
def count(network: nn.Module, photos: LabelledPhotos) -> int:
    """How many of ``photos`` the network names rightly."""
    network.eval()
    answers = torch.cat([network(images).argmax(1) for images in plain(photos)])
    return int((answers == torch.tensor(photos.labels)).sum())


def plain(photos: LabelledPhotos, batch: int = 500) -> Iterator[Tensor]:
    """The photos as they are, normalised, in batches ``(N, 3, 32, 32)``."""
    dataset = TrainingPhotos(photos, Augmentation(photo_size=SIZE), SIZE)
    transform = BatchTransform(Augmentation(flip=False), PREPROCESS, 0)
    for first in range(0, len(photos), batch):
        items = [dataset[index] for index in range(first, min(first + batch, len(photos)))]
        images = torch.stack([image for image, _ in items if isinstance(image, Tensor)])
        inputs, _ = transform(images, torch.tensor([label for _, label in items]), SIZE)
        yield inputs
