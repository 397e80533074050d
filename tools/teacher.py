"""The teacher of the bundled CIFAR-10 weights: a ResNet-9, trained here and written as a file that `train` takes.

The network is David Page's (github.com/davidcpage/cifar10-fast, MIT), with narrower layers; photos, augmentation,
schedule and moving average are those of `shufflenetv2 train`.
"""

import dataclasses
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from shufflenetv2.description import STANDARD
from shufflenetv2.devices import Group
from shufflenetv2.files import whole_file
from shufflenetv2.photos.folders import LabelledPhotos, hold_out, read_labelled
from shufflenetv2.training.augment import BatchTransform, TrainingPhotos, derived_seed, epoch_batches
from shufflenetv2.training.recipe import Augmentation
from shufflenetv2.training.trainer import moving_average, rate_factor, sgd
from shufflenetv2.weights.checkpoint import save_whole

SIZE, BATCH, RATE, WARM_UP, DECAY, WEIGHT_DECAY = 32, 256, 0.2, 0.2, 0.995, 5e-4
PREPROCESS = dataclasses.replace(STANDARD, resize=SIZE, crop=SIZE)


class Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(block(channels, channels), block(channels, channels))

    def forward(self, features: Tensor) -> Tensor:
        added: Tensor = self.branch(features)
        return features + added


def block(in_channels: int, out_channels: int) -> nn.Sequential:
    convolution = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True))


def resnet9(width: int, num_classes: int) -> nn.Module:
    """Photos ``(N, 3, 32, 32)`` to logits; ``width`` is that of the first layer, 64 in the original."""
    layers = [block(3, width), block(width, 2 * width), nn.MaxPool2d(2)]
    layers += [Residual(2 * width)]
    layers += [block(2 * width, 4 * width), nn.MaxPool2d(2), block(4 * width, 8 * width), nn.MaxPool2d(2)]
    layers += [Residual(8 * width)]
    layers += [nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(8 * width, num_classes)]
    return nn.Sequential(*layers).to(memory_format=torch.channels_last)


def train_teacher(photos: Path, folder: Path, *, held_out: float, epochs: int, width: int) -> None:
    """Train, resuming after the last whole epoch, and write ``teacher.pt2`` and ``log.json`` into ``folder``."""
    known, unseen = hold_out(read_labelled(photos), held_out, seed=0)
    group = Group(0, 1, torch.device("cpu"))
    augmentation = Augmentation(photo_size=SIZE)
    dataset, transform = TrainingPhotos(known, augmentation, SIZE), BatchTransform(augmentation, PREPROCESS, 0)
    torch.manual_seed(0)
    model = resnet9(width, len(known.categories))
    optimizer, average = sgd(model, RATE, 0.9, WEIGHT_DECAY), moving_average(model, DECAY)
    criterion, steps, log = nn.CrossEntropyLoss(label_smoothing=0.1), len(known) // BATCH, []
    folder.mkdir(parents=True, exist_ok=True)
    state = folder / "state.pth"
    if state.exists():
        log, *parts = torch.load(state, weights_only=True)
        resumed: tuple[Any, ...] = (model, optimizer, average)
        for part, values in zip(resumed, parts, strict=True):
            part.load_state_dict(values)
    for epoch in range(len(log), epochs):
        torch.manual_seed(derived_seed(0, epoch))
        start, loss = time.perf_counter(), torch.zeros(())
        model.train()
        for step, (images, labels) in enumerate(epoch_batches(dataset, steps, group, 1, 0, epoch)):
            for each in optimizer.param_groups:
                each["lr"] = RATE * rate_factor((epoch + (step + 0.5) / steps) / epochs, WARM_UP, "linear")
            inputs, targets = transform(images, labels, SIZE)
            with torch.autocast("cpu", torch.bfloat16):
                loss = criterion(model(inputs.contiguous(memory_format=torch.channels_last)), targets)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            average.update_parameters(model)
        right = count(average, unseen)
        log.append({"epoch": epoch + 1, "loss": float(loss), "right": right, "of": len(unseen),
                    "seconds": time.perf_counter() - start})  # fmt: skip
        print(log[-1], file=sys.stderr, flush=True)
        save_whole(state, [log, model.state_dict(), optimizer.state_dict(), average.state_dict()])
    (folder / "log.json").write_text(json.dumps(log, indent=1) + "\n")
    batch = torch.export.Dim("batch", min=2)
    program = torch.export.export(average.module.eval(), (torch.zeros(2, 3, SIZE, SIZE),), dynamic_shapes=({0: batch},))
    with whole_file(folder / "teacher.pt2", ".pt2") as temporary:
        torch.export.save(program, temporary)


@torch.inference_mode()
def count(average: AveragedModel, photos: LabelledPhotos) -> int:
    """How many of ``photos`` the averaged network names rightly."""
    dataset = TrainingPhotos(photos, Augmentation(photo_size=SIZE), SIZE)
    transform = BatchTransform(Augmentation(flip=False), PREPROCESS, 0)
    average.eval()
    right = 0
    for first in range(0, len(photos), BATCH):
        items = [dataset[index] for index in range(first, min(first + BATCH, len(photos)))]
        images = torch.stack([image for image, _ in items if isinstance(image, Tensor)])
        labels = torch.tensor([label for _, label in items])
        inputs, _ = transform(images, labels, SIZE)
        right += int((average(inputs).argmax(1) == labels).sum())
    return right
