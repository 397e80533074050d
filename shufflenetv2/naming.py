"""How weights are named, and the value that a name becomes."""

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from .description import Category, Description, WeightsInfo, check_label
from .errors import CheckpointError
from .network.model import SPECS
from .weights.checkpoint import Checkpoint
from .weights.manifest import ENUM, matching

if TYPE_CHECKING:
    from .network.formats.described import ExportedNetwork


@dataclass(frozen=True)
class Weights(WeightsInfo):
    """All that anyone asks of weights: what is known of them, and how to read them."""

    local: bool  # whether reading them needs no network
    # progress -> the tensors, from verified bytes where the manifest vouches for them
    read: Callable[[bool], Checkpoint]
    sha256: str  # of their file
    exported: "ExportedNetwork | None" = None  # of a file for another runtime: it computes, and has no tensors to read

    @property
    def info(self) -> WeightsInfo:
        """Without the way to the tensors: a small value that can be copied and pickled."""
        return WeightsInfo(**{each.name: getattr(self, each.name) for each in fields(WeightsInfo)})

    @property
    def description(self) -> Description:
        """What a checkpoint with these tensors says of itself."""
        stem = bool(self.small_stem)
        return Description(
            self.arch, self.in_channels, tuple(self.labels), self.preprocess, self.metrics, stem, self.temperature
        )

    @property
    def reference(self) -> tuple[str, str]:
        """Arguments from which ``resolve`` finds the same weights again."""
        return self.arch, self.name

    @property
    def labels(self) -> list[str]:
        """The names of the classes.

        Raises:
            CheckpointError: the weights have no classifier, or one class alone.
        """
        if not self.classes:
            raise CheckpointError(
                f"{self.title} has no classifier (fc.weight), so it knows no classes; it gives features: build the "
                f"model with {self.arch}(weights=..., num_classes=0), or give it a new classifier with num_classes=N"
            )
        if len(self.classes) == 1:
            raise CheckpointError(one_class(self.title))
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
        kind = type(weights).__name__
        if hasattr(weights, "keys") or hasattr(weights, "state_dict"):
            raise TypeError(
                f"weights must be a name or a path, got a {kind}; save the network to a file, and give its path: "
                "model.save('mine.pth', categories=[...])"
            )
        raise TypeError(
            f"weights must be a name or a path, got {weights!r:.80} (a {kind}); 'default' takes the default weights"
        )
    return name


def in_order(categories: Iterable[str]) -> list[str]:
    """``categories`` as the labels in the order of the logits; a set has none, and a mapping's may be another."""
    if isinstance(categories, (set, frozenset, Mapping)):
        raise TypeError(
            f"categories must be a list, in the order of the logits, got a {type(categories).__name__}; of "
            "torchvision's class_to_idx: sorted(class_to_idx, key=class_to_idx.get)"
        )
    told = f"categories must be a list of labels, got {categories!r:.80}"
    if isinstance(categories, (str, os.PathLike)):
        raise TypeError(f"{told}; of a file with one a line: categories=open(FILE).read().splitlines()")
    labels = [*categories] if isinstance(categories, Iterable) else [None]
    if not all(isinstance(label, str) for label in labels):
        raise TypeError(told)
    return [str.__str__(label) for label in labels]  # numpy's strings and members of enums are of other types


def labelled(weights: Weights, categories: Iterable[str] | None) -> Weights:
    """``weights`` that do not say their labels, with these.

    Raises:
        CheckpointError: they do say them, and others.
        ValueError: there are not as many, or a label is not fit to print.
    """
    if categories is None:
        return weights
    labels = in_order(categories)
    if len(labels) != weights.num_classes:
        raise ValueError(f"{len(labels)} categories were given, and {weights.title} has {weights.num_classes} classes")
    if not weights.classes:
        return replace(weights, classes=tuple(Category(check_label(label, "categories")) for label in labels))
    if labels != weights.labels:
        raise CheckpointError(f"{weights.title} says its own categories, and those given differ; leave them out")
    return weights


def one_class(what: str) -> str:
    """What is wrong with the softmax of one logit, and what to do."""
    return (
        f"{what} has one class, whose probability would be 1 on every photo. If its one logit was trained through a "
        "sigmoid, two classes have the same probabilities: with the network as model, type `for each in "
        "model.fc.parameters(): each.data = torch.cat((0 * each.data, each.data))`, and save it with "
        "categories=[NO, YES]"
    )


def labels_wanted(checkpoint: Checkpoint, arch: str) -> str:
    """What is wrong with a file that does not say its labels, and what to do; it does not tell its stem either."""
    if checkpoint.num_classes == 1:
        return one_class(checkpoint.where)
    return (
        f"{checkpoint.where} has {checkpoint.num_classes} classes and does not say which, nor how its photos were "
        "prepared. Give their labels, in the order of the logits: categories=[...], or --categories FILE; or write a "
        f"file that says both: {arch}(weights={checkpoint.where!r}, small_stem=True).save(NEW, categories=[...], "
        "weights=NAME), of the weights that it began with. small_stem=True is for networks trained on small photos, as "
        "cifar10 is: leave it out for others, as for those that began with ImageNet's weights"
    )


def arch_by_width(checkpoint: Checkpoint) -> str:
    """The architecture of tensors that do not say theirs.

    Raises:
        CheckpointError: it is none that there is.
    """
    for arch, spec in SPECS.items():
        if (spec.stage_channels[2], spec.head_channels) == checkpoint.widths:
            return arch
    raise CheckpointError(f"{checkpoint.where} has the widths of none of the architectures {', '.join(SPECS)}")
