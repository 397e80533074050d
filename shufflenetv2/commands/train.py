"""``train``: train or fine-tune on a folder with one folder a class, resumable, in one process or several.

``torchrun --nproc-per-node=N -m shufflenetv2 train ...`` shares each step among N processes (DistributedDataParallel).
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import MISSING, fields, replace
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from ..description import MAX_SIDE, STANDARD, Description, check_label, parse_description, to_json
from ..errors import DatasetError, ManifestError, TrainingError
from ..files import held
from ..package import require
from ..training.again import complete, remember
from ..training.recipe import Augmentation, Recipe
from ..weights.manifest import DEFAULT_ARCH
from .options import (
    above_zero,
    add_weights,
    any_path,
    fraction,
    from_zero,
    part,
    positive,
    probability,
    say,
    seed,
    size,
    sized,
    workers,
)
from .options import add as add_shared

if TYPE_CHECKING:
    from ..builder import Weights
    from ..photos.folders import LabelledPhotos

DEFAULTS = {each.name: each.default for kind in (Recipe, Augmentation) for each in fields(kind)}

Options = TypeVar("Options", Recipe, Augmentation)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = adder(parser)
    add("data", "one folder of photos a class; or train/, and val/ or test/, each with such folders", metavar="DIR",
        nargs="?")  # fmt: skip
    add("--val", "photos to validate on, in folders of the same names", metavar="DIR")
    add("--held-out", "without such photos, the part of every class", type=fraction, default=0.1, metavar="PART")
    add("--output", "folder for the results: best.pth is the model", metavar="RUN", type=any_path)
    add("--resume", "continue in RUN after its last whole epoch; --resume RUN needs nothing else; --epochs, --sizes, "
        "--lr and --workers may differ", nargs="?", const="", metavar="RUN")  # fmt: skip
    add_weights(parser, ", to start from; or none", labelled=False)
    add("--small-stem", "conv1 of stride 1 and no max-pool, for photos of some 32 pixels (default: as the weights)",
        action="store_true")  # fmt: skip
    add("--freeze-backbone", "train the classifier alone", action="store_true")
    add_shared(parser, "--device")
    add("--seed", "of all random choices", type=seed)
    add_schedule(parser.add_argument_group("schedule"))
    add_augmentation(parser.add_argument_group("augmentation"))
    add_teacher(parser.add_argument_group("distillation"))
    speed = parser.add_argument_group("speed")
    adder(speed)("--workers", "processes that decode photos, for each process that computes; 0: none", type=workers,
                 metavar="N")  # fmt: skip
    adder(speed)("--amp", "compute in bfloat16 where that is safe", action="store_true")
    adder(speed)("--channels-last", "the memory layout in which most devices are faster", action="store_true")


def add_schedule(group: argparse._ActionsContainer) -> None:
    add = adder(group)
    add("--epochs", "how often every photo is seen", type=positive)
    add("--batch-size", "photos computed at once", type=positive, metavar="N")
    add("--accumulate", "batches a step", type=positive)
    add("--sizes", "image sizes one after the other, each for its share of the epochs; small ones first save time "
        "(default: what the weights are for)", type=sized, nargs="+", metavar="SIZE[:SHARE]")  # fmt: skip
    add("--val-size", "image size afterwards (default: the last of --sizes)", type=size, metavar="SIZE")
    add("--lr", "peak learning rate", type=above_zero)
    add("--decay", "how the learning rate falls to 0", choices=("cosine", "linear"))
    add("--warmup", "part of the epochs in which it rises", type=fraction, metavar="PART")
    add("--momentum", "of Nesterov's method", type=fraction)
    add("--weight-decay", "none on norms and biases", type=from_zero)
    add("--clip-norm", "scale larger gradients down to this norm; 0 does not", type=from_zero)
    add("--label-smoothing", "spread over all classes", type=fraction, metavar="PART")
    add("--ema", "decay a step of the moving average of the weights, which is validated and kept; 0 keeps the weights "
        "themselves", type=fraction, metavar="DECAY")  # fmt: skip
    add("--reestimate-norms", "in the end, give the average the BatchNorm statistics of the photos as validation sees "
        "them", action="store_true")  # fmt: skip
    add("--class-weights", "auto: each class has the same part in the loss, however many photos it has",
        choices=("equal", "auto"))  # fmt: skip
    add("--balanced", "draw as many photos of each class, with replacement, instead of every photo once an epoch",
        action="store_true")  # fmt: skip


def add_augmentation(group: argparse._ActionsContainer) -> None:
    add = adder(group)
    add("--photo-size", "for photos smaller than the network's input: take them at this size, shift them by up to an "
        "eighth, then enlarge them (default: cut out a random part)", type=size, metavar="SIZE")  # fmt: skip
    add("--min-scale", "least part of the area that is cut out", type=part, metavar="PART")
    add("--no-flip", "do not mirror photos", action="store_false", dest="flip")
    add("--trivial-augment", "TrivialAugmentWide (Mueller and Hutter 2021)", action="store_true")
    add("--random-erasing", "probability of erasing a rectangle", type=probability, metavar="P")
    add("--mixup", "0 is off; with --cutmix, either at random", type=from_zero, metavar="ALPHA")
    add("--cutmix", "0 is off", type=from_zero, metavar="ALPHA")


def add_teacher(group: argparse._ActionsContainer) -> None:
    add = adder(group)
    add("--teacher", "learn from its answers to the same crops, too: what --weights takes, or a TorchScript or "
        "torch.export file of any network with these classes, in the order of their names", metavar="FILE")  # fmt: skip
    add("--temperature", "that softens both answers", type=above_zero, metavar="T")
    add("--distill-weight", "part of the teacher in the loss", type=part, metavar="PART")


def adder(group: argparse._ActionsContainer) -> Callable[..., None]:
    """``group.add_argument`` with the default of the field that the option is named for; the help ends with it."""

    def add(name: str, text: str, **options: Any) -> None:
        field = options.get("dest", name.removeprefix("--").replace("-", "_"))
        if DEFAULTS.get(field, MISSING) is not MISSING:
            options["default"] = DEFAULTS[field]
        shown = "action" not in options and options.get("default") is not None
        group.add_argument(name, help=text + " (default: %(default)s)" * shown, **options)

    return add


def run(arguments: argparse.Namespace) -> int:
    from ..devices import join
    from ..training.digests import contents, learnt_from
    from ..training.run import RunFolder, open_run
    from ..training.start import beginning
    from ..training.teacher import open_teacher
    from ..training.trainer import Trainer

    arguments = complete(arguments)
    # Around everything: an error in all processes is told once.
    with join(arguments.device) as group, ExitStack() as stack:
        require("training", "torchvision>=0.25", "tqdm>=4.66", "matplotlib>=3.9")
        told = say if group.leads else (lambda line: None)
        train, val = read_data(arguments, told)
        source, description = plan(arguments, train.categories)
        recipe = make_recipe(arguments, description)
        preprocess, sizes = description.preprocess, [pixels for pixels, _ in recipe.sizes]
        batch_sizes, teacher = recipe.batch_sizes(len(train), group.size), None  # too few photos are told now
        if arguments.teacher:
            seen = (train.categories, preprocess, sizes, group.device, batch_sizes, recipe.amp)
            teacher = open_teacher(arguments.teacher, *seen)
        group.wait()  # RUN may lie among the photos: it must not appear while another process lists them
        state = open_run(arguments.output, arguments.resume is not None)
        if group.leads and not stack.enter_context(held(arguments.output)):
            raise TrainingError(f"another process is training in {arguments.output}; wait, or give another --output")
        anew = told if state is None else (lambda line: None)
        model = beginning(source, description, arguments.seed, group.leads, anew)
        start = {
            **learnt_from(train, val),
            "weights file": contents(source.read(group.leads).state_dict) if source else "none",
            "normalisation": f"{preprocess.mean} {preprocess.std}",
            "val size": str(arguments.val_size or "none"),
            "teacher": teacher.contents if teacher else "none",
        }
        trainer = Trainer(model.to(group.device), train, preprocess, recipe, group, teacher)
        folder = RunFolder(arguments.output, trainer, val, description, start)
        folder.restore(state)
        if group.leads:
            remember(arguments.output, arguments.began)
        folder.train()
        if group.leads:
            best = arguments.output / "best.pth"
            print(best)
            print(f"try it: shufflenetv2 classify PHOTO --weights {shlex.quote(str(best))}", file=sys.stderr)
    return 0


def read_data(
    arguments: argparse.Namespace, told: Callable[[str], object] = lambda line: None
) -> tuple[LabelledPhotos, LabelledPhotos | None]:
    """The photos to learn from, and those to validate on unless ``--held-out 0`` says there are none."""
    from ..photos.folders import find_split, hold_out, read_apart, read_labelled
    from ..training.digests import refuse_learnt

    directory = find_split(arguments.data, ["train"])
    val = arguments.val or (directory and find_split(arguments.data, ["val", "test"]))
    train = read_labelled(directory or arguments.data, None, told)
    for name in train.categories:
        try:
            check_label(name, f"{directory or arguments.data}, the folder {name!r:.80}")
        except ManifestError as error:
            raise DatasetError(f"{error}; rename it") from error
    if len(train.categories) < 2:
        raise DatasetError(f"{arguments.data} has one class, {train.categories[0]!r}; telling apart takes two or more")
    if val:
        apart = read_apart(val, directory or arguments.data, train.categories, told)
        refuse_learnt(apart, train)
        return train, apart
    return hold_out(train, arguments.held_out, arguments.seed) if arguments.held_out else (train, None)


def plan(arguments: argparse.Namespace, categories: tuple[str, ...]) -> tuple[Weights | None, Description]:
    """The weights to start from, and what will be said of the model; it is checked that this can be read again.

    Raises:
        TrainingError: naming the option to change.
    """
    from ..builder import resolve
    from ..network.model import SPECS

    source = None
    if arguments.weights.lower() != "none":
        source = resolve(arguments.arch, arguments.weights, described=False)
        source = replace(source, read=cache(source.read))  # once to load them, once to tell them from others
        if source.in_channels != 3:
            plural = "s" * (source.in_channels > 1)
            raise TrainingError(
                f"{source.title} is for images of {source.in_channels} channel{plural}, and photos have 3 channels; "
                "give other --weights, or none"
            )
    if arguments.freeze_backbone and not source:
        raise TrainingError("--freeze-backbone trains the classifier alone, on what --weights know; give some")
    base = source.preprocess if source else STANDARD
    crop = arguments.val_size or (arguments.sizes[-1][0] if arguments.sizes else base.crop)
    # Small photos are enlarged whole; of others the centre is kept, in the proportion that the weights are used to.
    resize = crop if arguments.photo_size else round(crop * base.resize / base.crop)
    if resize > MAX_SIDE:
        raise TrainingError(
            f"{'--val-size' if arguments.val_size else '--sizes'} {crop} asks for photos of {resize} pixels, of which "
            f"the centre is kept; that is more than {MAX_SIDE}; give --val-size {MAX_SIDE * base.crop // base.resize} "
            "or less"
        )
    arch = source.arch if source else arguments.arch or DEFAULT_ARCH
    small = bool(arguments.small_stem or (source and source.small_stem))
    description = Description(arch, 3, categories, replace(base, resize=resize, crop=crop), small_stem=small)
    return source, parse_description(to_json(description), SPECS, f"what {arguments.output} would hold")


def make_recipe(arguments: argparse.Namespace, description: Description) -> Recipe:
    sizes = arguments.sizes or [(description.preprocess.crop, None)]
    shares = [share for _, share in sizes if share is not None]
    if shares and len(shares) < len(sizes):
        raise TrainingError("--sizes: give every size its share of the epochs, or none: then they have the same")
    distilled = (arguments.temperature, arguments.distill_weight) != (Recipe.temperature, Recipe.distill_weight)
    if distilled and not arguments.teacher:
        raise TrainingError("--temperature and --distill-weight say how to learn from a --teacher; give one")
    whole = sum(shares) or len(sizes)
    sizes = tuple((pixels, (share or 1.0) / whole) for pixels, share in sizes)
    augmentation = from_options(Augmentation, arguments)
    return from_options(Recipe, arguments, sizes=sizes, augmentation=augmentation, small_stem=description.small_stem)


def from_options(kind: type[Options], arguments: argparse.Namespace, **others: Any) -> Options:
    """``kind``, its fields filled from the options of the same names."""
    names = {each.name for each in fields(kind)} - others.keys()
    return kind(**{name: getattr(arguments, name) for name in names}, **others)
