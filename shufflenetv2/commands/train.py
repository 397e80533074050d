"""``train``: train or fine-tune on a folder with one folder a class, resumable, in one process or several.

``torchrun --nproc-per-node=N -m shufflenetv2 train ...`` shares each step among N processes (DistributedDataParallel).
"""

import argparse
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ..builder import build, resolve
from ..description import STANDARD, Category, Description, Preprocess, check_label
from ..devices import Group, join
from ..errors import ImageError
from ..network.model import SPECS, ShuffleNetV2
from ..photos.labelled import LabelledPhotos, find_split, hold_out, read_labelled
from ..training.augment import Augmentation, BatchTransform
from ..training.run import RunFolder
from ..training.trainer import Recipe, Trainer
from ..weights.manifest import DEFAULT_ARCH
from .options import (
    above_zero,
    add_device,
    add_weights,
    fraction,
    from_zero,
    part,
    positive,
    seed,
    size,
    sized,
    workers,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = with_default(parser)
    add(
        "data", metavar="DIR", help="one folder of photos a class; or train/, and val/ or test/, each with such folders"
    )
    add("--val", metavar="DIR", help="photos to validate on, in folders of the same names")
    add("--held-out", type=fraction, default=0.1, metavar="PART", help="without such photos, the part of every class")
    add("--output", metavar="RUN", required=True, type=Path, help="folder for the results: best.pth is the model")
    add(
        "--resume",
        action="store_true",
        help="continue in RUN after its last whole epoch; --epochs, --sizes and --lr may differ",
    )
    add_weights(parser, ", to start from; or none")
    add("--freeze-backbone", action="store_true", help="train the classifier alone")
    add_device(parser)
    add("--seed", type=seed, default=0, help="of all random choices")

    add = with_default(parser.add_argument_group("schedule"))
    add("--epochs", type=positive, default=30, help="how often every photo is seen")
    add("--batch-size", type=positive, default=64, help="photos a batch and process")
    add("--accumulate", type=positive, default=1, help="batches a step")
    add("--sizes", type=sized, nargs="+", metavar="SIZE[:SHARE]", help="image sizes one after the other, each for its "
        "share of the epochs; small ones first save time (default: what the weights are for)")  # fmt: skip
    add("--val-size", type=size, metavar="SIZE", help="image size afterwards (default: the last of --sizes)")
    add("--lr", type=above_zero, default=0.05, help="peak learning rate")
    add("--decay", choices=("cosine", "linear"), default="cosine", help="how the learning rate falls to 0")
    add("--warmup", type=fraction, default=0.1, metavar="PART", help="part of the epochs in which it rises")
    add("--momentum", type=fraction, default=0.9, help="of Nesterov's method")
    add("--weight-decay", type=from_zero, default=5e-5, help="none on norms and biases")
    add("--label-smoothing", type=fraction, default=0.1, metavar="PART", help="spread over all classes")
    add("--ema", type=fraction, default=0.99, metavar="DECAY", help="decay a step of the moving average of the "
        "weights, which is validated and kept; 0 keeps the weights themselves")  # fmt: skip

    add = with_default(parser.add_argument_group("augmentation"))
    add("--photo-size", type=size, metavar="SIZE", help="for photos smaller than the network's input: take them at "
        "this size, shift them by up to an eighth, then enlarge them (default: cut out a random part)")  # fmt: skip
    add("--min-scale", type=part, default=0.25, metavar="PART", help="least part of the area that is cut out")
    add("--no-flip", action="store_true", help="do not mirror photos")
    add("--trivial-augment", action="store_true", help="TrivialAugmentWide (Mueller and Hutter 2021)")
    add("--random-erasing", type=fraction, default=0.0, metavar="P", help="probability of erasing a rectangle")
    add("--mixup", type=from_zero, default=0.0, metavar="ALPHA", help="0 is off; with --cutmix, either at random")
    add("--cutmix", type=from_zero, default=0.0, metavar="ALPHA", help="0 is off")

    add = with_default(parser.add_argument_group("speed"))
    add("--workers", type=workers, default=2, help="processes that decode photos, for each process; 0: none")
    add("--amp", action="store_true", help="compute in bfloat16 where that is safe")
    add("--channels-last", action="store_true", help="the memory layout in which most devices are faster")


def with_default(group: argparse._ActionsContainer) -> Callable[..., None]:
    """``group.add_argument`` that ends the help with the default, where there is one."""

    def add(*names: str, **options: Any) -> None:
        if options.get("default") is not None:
            options["help"] += " (default: %(default)s)"
        group.add_argument(*names, **options)

    return add


def run(arguments: argparse.Namespace) -> int:
    train, val = read_data(arguments)
    with join(arguments.device) as group:
        torch.manual_seed(arguments.seed)
        model, preprocess = start_model(arguments, train, group)
        arch = next(arch for arch, spec in SPECS.items() if spec == model.spec)
        recipe = make_recipe(arguments, preprocess)
        trainer = Trainer(
            model, train, BatchTransform(recipe.augmentation, preprocess, len(train.categories)), recipe, group
        )
        description = Description(arch, model.in_channels, train.categories, preprocess)
        start: dict[str, Any] = {"weights": arguments.weights, "photos": fingerprint(train)}
        RunFolder(arguments.output, trainer, val, description, start).train(arguments.resume)
    return 0


def read_data(arguments: argparse.Namespace) -> tuple[LabelledPhotos, LabelledPhotos | None]:
    """The photos to learn from, and those to validate on unless ``--held-out 0`` says there are none."""
    directory = find_split(arguments.data, ["train"])
    val = arguments.val or (directory and find_split(arguments.data, ["val", "test"]))
    train = read_labelled(directory or arguments.data)
    for name in train.categories:
        check_label(name, str(arguments.data))
    if len(train.categories) < 2:
        raise ImageError(f"{arguments.data} has one class, {train.categories[0]!r}; telling apart takes two or more")
    if val:
        return train, read_labelled(val, [Category(name, None) for name in train.categories])
    return hold_out(train, arguments.held_out, arguments.seed) if arguments.held_out else (train, None)


def start_model(arguments: argparse.Namespace, train: LabelledPhotos, group: Group) -> tuple[ShuffleNetV2, Preprocess]:
    """The network before the first epoch, and how its photos are to be prepared after training."""
    scratch = arguments.weights.lower() == "none"
    source = None if scratch else resolve(arguments.arch, arguments.weights, described=False)
    arch = source.arch if source else arguments.arch or DEFAULT_ARCH
    model = build(arch, source, progress=group.leads, num_classes=len(train.categories), in_channels=3)
    assert isinstance(model, ShuffleNetV2)
    base = source.preprocess if source else STANDARD
    crop = arguments.val_size or (arguments.sizes[-1][0] if arguments.sizes else base.crop)
    # Small photos are enlarged whole; of others the centre is kept, in the proportion that the weights are used to.
    resize = crop if arguments.photo_size else round(crop * base.resize / base.crop)
    return model.to(group.device), Preprocess(resize, crop, base.interpolation, base.mean, base.std)


def make_recipe(arguments: argparse.Namespace, preprocess: Preprocess) -> Recipe:
    sizes = arguments.sizes or [(preprocess.crop, 1.0)]
    whole = sum(share for _, share in sizes)
    return Recipe(
        epochs=arguments.epochs,
        batch_size=arguments.batch_size,
        accumulate=arguments.accumulate,
        sizes=tuple((pixels, share / whole) for pixels, share in sizes),
        lr=arguments.lr,
        decay=arguments.decay,
        warmup=arguments.warmup,
        momentum=arguments.momentum,
        weight_decay=arguments.weight_decay,
        label_smoothing=arguments.label_smoothing,
        ema=arguments.ema,
        freeze_backbone=arguments.freeze_backbone,
        augmentation=Augmentation(
            photo_size=arguments.photo_size,
            min_scale=arguments.min_scale,
            flip=not arguments.no_flip,
            trivial=arguments.trivial_augment,
            erase=arguments.random_erasing,
            mixup=arguments.mixup,
            cutmix=arguments.cutmix,
        ),
        workers=arguments.workers,
        amp=arguments.amp,
        channels_last=arguments.channels_last,
        seed=arguments.seed,
    )


def fingerprint(photos: LabelledPhotos) -> str:
    """Which photos these are, wherever the data set lies: a run is resumed on the same ones only."""
    names = "\n".join(f"{label}/{path.name}" for path, label in zip(photos.paths, photos.labels, strict=True))
    return f"{len(photos)} photos, {hashlib.sha256(names.encode()).hexdigest()[:16]}"
