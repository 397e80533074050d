"""A name or a path is resolved once into one value, ``Weights``; that value becomes a model.

After ``resolve`` nobody asks whether weights came from the manifest or from a file of the user's own.
"""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path

import torch
from torch import nn

from .description import FIRST_KEY, MAX_CHANNELS, MAX_CLASSES, STANDARD, Category, WeightsInfo, check_label
from .errors import CheckpointError, ManifestError
from .network.model import SPECS, ShuffleNetV2, spec_of
from .package import logger
from .saving import hang_on
from .weights.checkpoint import Checkpoint, load, parse_checkpoint, read_checkpoint
from .weights.manifest import ENUM, Entry, default_entry, find_entry, matching, read_categories
from .weights.store import fetch


@dataclass(frozen=True)
class Weights(WeightsInfo):
    """All that anyone asks of weights: what is known of them, and how to read them."""

    local: bool  # whether reading them needs no network
    read: Callable[
        [bool], Checkpoint
    ]  # progress -> the tensors, from verified bytes where the manifest vouches for them

    @property
    def info(self) -> WeightsInfo:
        """Without the way to the tensors: a small value that can be copied and pickled."""
        return WeightsInfo(**{each.name: getattr(self, each.name) for each in fields(WeightsInfo)})

    @property
    def reference(self) -> tuple[str, str]:
        """Arguments from which ``resolve`` finds the same weights again."""
        return self.arch, self.name

    @property
    def labels(self) -> list[str]:
        """The names of the classes.

        Raises:
            CheckpointError: the weights have no classifier.
        """
        if not self.classes:
            raise CheckpointError(
                f"{self.title} has no classifier (fc.weight), so it knows no classes; it gives features: build the "
                f"model with {self.arch}(weights=..., num_classes=0), or give it a new classifier with num_classes=N"
            )
        return [category.label for category in self.classes]


def is_path(weights: object) -> bool:
    """A PathLike, or a string with a separator or a suffix. A plain name or ``ARCH/NAME`` is not looked up on disk."""
    if isinstance(weights, os.PathLike):
        return True
    if not isinstance(weights, str) or matching(weights) or ENUM.fullmatch(weights):
        return False
    head, _, name = weights.lower().partition("/")
    if head in SPECS and Path(name).suffix == "" and "/" not in name:
        return False
    return "/" in weights or os.sep in weights or Path(weights).suffix != ""


def spelled(weights: object) -> str:
    """The name that ``weights`` is, or has; members of torchvision's enums have their class's besides."""
    name = getattr(weights, "name", weights)
    if ENUM.fullmatch(str(weights)):
        return str(weights)
    if not isinstance(name, str):
        raise TypeError(
            f"weights must be a name or a path, got {weights!r:.80} (a {type(weights).__name__}); "
            "'default' takes the default weights"
        )
    return name


def resolve(
    arch: str | None, weights: object, *, described: bool = True, categories: Iterable[str] | None = None
) -> Weights:
    """Find what ``weights`` names: an entry of the manifest, or a checkpoint file.

    Args:
        arch: restricts the search; ``None`` takes the architecture of what is found.
        weights: any spelling of ``manifest.matching``, an object with a ``.name``, or a path.
        described: whether labels and preprocessing will be asked for; a file that does not say them, nor has the number
            of classes of the default weights, is refused then.
        categories: the labels of a file that does not say them.

    Raises:
        ValueError: there is no such architecture or entry; the message lists what there is.
        TypeError: ``weights`` is nothing of the kind.
        CheckpointError: the file cannot be used, or belongs to another architecture.
        ManifestError: the manifest lists weights of an architecture that there is not.
    """
    if arch is not None and arch not in SPECS:
        hint = f"; {arch!r} is the name of weights: give it as weights={arch!r}" if matching(str(arch)) else ""
        raise ValueError(f"there is no architecture {arch!r:.80}{hint}; there are {', '.join(SPECS)}")
    if not is_path(weights):
        return labelled(from_entry(find_entry(arch, spelled(weights))), categories)
    assert isinstance(weights, (str, os.PathLike))
    best = os.path.join(os.path.expanduser(weights), "best.pth")  # of the folder that `train` writes
    found = _from_checkpoint(read_checkpoint(best if os.path.isfile(best) else weights, SPECS), described, categories)
    if arch is not None and found.arch != arch:
        raise CheckpointError(f"{found.title} holds {found.arch}, not {arch}; load it with {found.arch}(weights=...)")
    return found


def labelled(weights: Weights, categories: Iterable[str] | None) -> Weights:
    """``weights`` that do not say their labels, with these.

    Raises:
        CheckpointError: they do say them, and others.
        ValueError: there are not as many, or a label is not fit to print.
    """
    if categories is None:
        return weights
    labels = [*categories]
    if isinstance(categories, str) or not all(isinstance(label, str) for label in labels):
        raise TypeError(f"categories must be a list of labels, got {categories!r:.80}")
    if len(labels) != weights.num_classes:
        raise ValueError(f"{len(labels)} categories were given, and {weights.title} has {weights.num_classes} classes")
    if not weights.classes:
        return replace(weights, classes=tuple(Category(check_label(label, "categories")) for label in labels))
    if labels != weights.labels:
        raise CheckpointError(f"{weights.title} says its own categories, and those given differ; leave them out")
    return weights


def from_entry(entry: Entry) -> Weights:
    """An entry of the manifest; nothing is read yet."""
    if entry.arch not in SPECS:
        raise ManifestError(f"weights.json: {entry} is for no architecture of this code; there are {', '.join(SPECS)}")
    return Weights(
        arch=entry.arch,
        name=entry.name,
        title=str(entry),
        num_classes=entry.num_classes,
        in_channels=3,
        small_stem=entry.small_stem,
        classes=read_categories(entry.categories),
        preprocess=entry.preprocess,
        metrics=entry.metrics,
        local=entry.path is not None,
        read=partial(_read_entry, entry),
    )


def _read_entry(entry: Entry, progress: bool) -> Checkpoint:
    return parse_checkpoint(fetch(entry, progress), f"{entry.file} ({entry})", SPECS, verified=True)


def _from_checkpoint(checkpoint: Checkpoint, described: bool, categories: Iterable[str] | None = None) -> Weights:
    said = checkpoint.description
    arch = said.arch if said else _arch_by_width(checkpoint)
    default = default_entry(arch)
    classes: tuple[Category, ...] = ()
    if said:
        classes = tuple(Category(label) for label in said.categories)
    elif categories is None and default and checkpoint.num_classes == default.num_classes:
        classes = read_categories(default.categories)
    if described and not said:
        if checkpoint.num_classes and not classes and categories is None:
            raise CheckpointError(
                f"{checkpoint.where} has {checkpoint.num_classes} classes and does not say which, nor how its photos "
                "were prepared. Give their labels, in the order of the logits: categories=[...], or --categories FILE; "
                f"or write a file that says them: {arch}(weights={checkpoint.where!r}).save(NEW, categories=[...])"
            )
        logger.warning("%s does not describe itself: treated like %s", checkpoint.where, default or "ImageNet's photos")
    weights = Weights(
        arch=arch,
        name=os.path.abspath(os.path.expanduser(checkpoint.where)),
        title=checkpoint.where,
        num_classes=checkpoint.num_classes,
        in_channels=checkpoint.in_channels,
        small_stem=said.small_stem if said else None,
        classes=classes,
        preprocess=said.preprocess if said else default.preprocess if default else STANDARD,
        metrics=said.metrics if said else None,
        local=True,
        read=lambda progress: checkpoint,
    )
    return labelled(weights, categories)


def _arch_by_width(checkpoint: Checkpoint) -> str:
    for arch, spec in SPECS.items():
        if (spec.stage_channels[2], spec.head_channels) == checkpoint.widths:
            return arch
    raise CheckpointError(f"{checkpoint.where} has none of the architectures {', '.join(SPECS)}")


def build(
    arch: str,
    weights: Weights | None,
    *,
    progress: bool = True,
    num_classes: int | None = None,
    in_channels: int | None = None,
    small_stem: bool | None = None,
    deploy: bool = False,
) -> nn.Module:
    """Build ``arch``, load ``weights`` into it where there are some, and adapt both ends to what was asked for.

    ``in_channels=None`` takes the channels of the weights, or 3. See ``shufflenet_v2_x1_0`` for the rest.

    Raises:
        CheckpointError: the weights are for the other stem.
    """
    num_classes = _count("num_classes", num_classes, 0, MAX_CLASSES, weights.num_classes if weights else 1000)
    in_channels = _count("in_channels", in_channels, 1, MAX_CHANNELS, weights.in_channels if weights else 3)
    if type(deploy) is not bool:
        raise TypeError(f"deploy is True or False, got {deploy!r:.80}")
    spec = spec_of(arch, _stem(weights, small_stem))
    if weights is None:
        model = ShuffleNetV2(spec, num_classes, in_channels)
    else:
        checkpoint = weights.read(progress)
        with torch.device("meta"):
            model = ShuffleNetV2(spec, weights.num_classes, weights.in_channels)
        load(model, checkpoint)
        _adapt_input(model, in_channels)
        _adapt_head(model, num_classes)
        model.eval()
    own_head = weights is not None and num_classes == weights.num_classes
    hang_on(model, weights and weights.info, own_head=own_head)
    if deploy:
        from .network.deploy import deploy_own  # the plain model need not wait for it

        return deploy_own(model.eval())
    return model


def _stem(weights: Weights | None, small_stem: object) -> bool:
    """Whether the stem is the small one: as the weights say; of those that do not say, as the caller does."""
    if small_stem is not None and type(small_stem) is not bool:
        raise TypeError(f"small_stem is True, False or None, got {small_stem!r:.80}")
    said = weights.small_stem if weights else None
    if said is not None and small_stem not in (None, said):
        assert weights is not None
        stems = {True: "the small stem (stride 1, no max-pool)", False: "the paper's stem (stride 2, max-pool)"}
        raise CheckpointError(
            f"{weights.title} is for {stems[said]}, not for {stems[not said]}: its layers were trained for images of "
            f"another size; leave out small_stem={small_stem} (--small-stem)"
        )
    return bool(small_stem if said is None else said)


def _count(name: str, value: object, least: int, most: int, default: int) -> int:
    if value is None:
        return default
    if type(value) is not int:
        raise TypeError(f"{name} is a whole number, got {value!r:.80} (a {type(value).__name__})")
    if not least <= value <= most:
        raise ValueError(f"{name} must be from {least} to {most:,}, got {value}")
    return value


def _adapt_input(model: ShuffleNetV2, in_channels: int) -> None:
    """Grey input sums the kernel over RGB; other counts repeat it and keep the response's magnitude."""
    if in_channels == model.in_channels:
        return
    weight = model.get_parameter(FIRST_KEY).detach()
    if in_channels == 1:
        weight = weight.sum(1, keepdim=True)
    else:
        copies = -(-in_channels // model.in_channels)
        weight = weight.repeat(1, copies, 1, 1)[:, :in_channels] * (model.in_channels / in_channels)
    with torch.device("meta"):
        spec = model.spec
        convolution = nn.Conv2d(in_channels, spec.stem_channels, 3, spec.stem_stride, padding=1, bias=False)
    convolution.weight = nn.Parameter(weight)
    model.conv1[0] = convolution
    logger.info("the first convolution was adapted from %d to %d channels", model.in_channels, in_channels)
    model.in_channels = in_channels


def _adapt_head(model: ShuffleNetV2, num_classes: int) -> None:
    if num_classes == model.num_classes:
        return
    model.fc = nn.Linear(model.spec.head_channels, num_classes) if num_classes else nn.Identity()
    logger.info("the classifier of %d classes was replaced by a new one of %d", model.num_classes, num_classes)
    model.num_classes = num_classes
