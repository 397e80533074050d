"""A name or a path is resolved once into one value, ``Weights``; that value becomes a model.

After ``resolve`` nobody asks whether weights came from the manifest or from a file of the user's own.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from .description import MAX_CHANNELS, MAX_CLASSES, STANDARD, Category, Description, WeightsInfo
from .errors import CheckpointError, ManifestError
from .files import expanded
from .naming import Weights as Weights
from .naming import arch_by_width, labelled, labels_wanted
from .naming import is_path as is_path
from .naming import spelled as spelled
from .network.model import SPECS, ShuffleNetV2, adapt_head, adapt_input, spec_of
from .package import count, logger
from .weights.checkpoint import Checkpoint, load, parse_checkpoint, read_checkpoint
from .weights.manifest import Entry, default_entry, find_entry, matching, read_categories
from .weights.store import fetch

if TYPE_CHECKING:
    from .photos.transform import PhotoTransform


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
    if arch is not None and not isinstance(arch, str):
        raise TypeError(f"arch must be one of {', '.join(SPECS)}, got a {type(arch).__name__}")
    if isinstance(of := getattr(weights, "arch", None), str):  # an entry of list_weights, or a model's .weights
        if arch not in (None, of):
            raise ValueError(f"the weights are of {of}, not of {arch}; give weights of {arch}")
        arch, weights = of, getattr(weights, "name", weights)
    if arch is not None and arch not in SPECS:
        hint = f"; {arch!r} is the name of weights: give it as weights={arch!r}" if matching(str(arch)) else ""
        raise ValueError(f"there is no architecture {arch!r:.80}{hint}; there are {', '.join(SPECS)}")
    if not is_path(weights):
        return labelled(from_entry(find_entry(arch, spelled(weights))), categories)
    from .network.formats.table import format_of, whole_of

    assert isinstance(weights, (str, os.PathLike))
    given = Path(expanded(weights))
    form, whole = format_of(given), whole_of(given)
    if whole:
        raise CheckpointError(f"{os.fspath(weights)} is a part of an exported file; give the other one, {whole}")
    if form:
        from .weights.foreign import check_address

        check_address(os.fspath(weights))
        found = _from_export(form, os.fspath(weights), described, categories)
    else:
        best = os.path.join(expanded(weights), "best.pth")  # of the folder that `train` writes
        path = best if os.path.isfile(best) else weights
        found = _from_checkpoint(read_checkpoint(path, SPECS), described, categories)
    if arch is not None and found.arch != arch:
        raise CheckpointError(f"{found.title} holds {found.arch}, not {arch}; load it with {found.arch}(weights=...)")
    return found


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
        classes=read_categories(entry.categories, entry.num_classes),
        preprocess=entry.preprocess,
        metrics=entry.metrics,
        temperature=entry.temperature,
        local=entry.path is not None,
        read=partial(_read_entry, entry),
        sha256=entry.sha256,
    )


def _read_entry(entry: Entry, progress: bool) -> Checkpoint:
    return parse_checkpoint(fetch(entry, progress), f"{entry.file} ({entry})", SPECS, verified=True)


def _from_checkpoint(checkpoint: Checkpoint, described: bool, categories: Iterable[str] | None = None) -> Weights:
    said = checkpoint.description
    arch = said.arch if said else arch_by_width(checkpoint)
    default = default_entry(arch)
    usual = Description(arch, checkpoint.in_channels, (), default.preprocess if default else STANDARD)
    known = read_categories(default.categories, default.num_classes) if default else ()
    classes = tuple(Category(label) for label in said.categories) if said else ()
    if said and [category.label for category in known] == list(said.categories):
        classes = known  # with their WordNet ids, which no file says
    elif not said and categories is None and checkpoint.num_classes == len(known):
        classes = known
    if described and not said:
        if checkpoint.num_classes and not classes and categories is None:
            raise CheckpointError(labels_wanted(checkpoint, arch))
        logger.warning(
            "%s does not describe itself: treated like %s, with the paper's stem (a network for small photos may "
            "have the small one: load it with small_stem=True, and save it)", checkpoint.where, default or "ImageNet's"
        )  # fmt: skip
    weights = _of_file(
        said or usual,
        checkpoint.where,
        classes=classes,
        num_classes=checkpoint.num_classes,
        small_stem=said.small_stem if said else None,
        described=said is not None,
        read=lambda progress: checkpoint,
        sha256=checkpoint.sha256,
    )
    return labelled(weights, categories)


def _of_file(said: Description, where: str, **more: Any) -> Weights:
    """Weights in the file ``where``, of which ``said`` is known."""
    return Weights(
        arch=said.arch,
        name=os.path.abspath(expanded(where)),
        title=where,
        in_channels=said.in_channels,
        preprocess=said.preprocess,
        metrics=said.metrics,
        temperature=said.temperature,
        local=True,
        **more,
    )


def _from_export(form: str, where: str, described: bool, categories: Iterable[str] | None) -> Weights:
    from .network.formats.opening import open_exported

    network, inside = open_exported(form, where)
    if isinstance(network, ShuffleNetV2):  # the file holds the tensors under their own keys
        checkpoint = Checkpoint(network.state_dict(), inside.description, where, inside.sha256)
        return replace(_from_checkpoint(checkpoint, described, categories), classes=inside.classes)

    def refuse(progress: bool) -> Checkpoint:
        what = "is an exported file, which classifies and has no tensors to load, train or export again"
        raise CheckpointError(f"{where} {what}; give the weights that it was made from, {inside.weights}")

    said = inside.description
    held: dict[str, Any] = {"classes": inside.classes, "num_classes": len(said.categories), "sha256": inside.sha256}
    weights = _of_file(said, where, small_stem=said.small_stem, read=refuse, exported=network, **held)
    return labelled(weights, categories)


@dataclass(frozen=True, eq=False)
class Origin:
    """Hangs on what ``build`` makes (``network/origin.py``); a value that copies of the network share."""

    weights: WeightsInfo | None
    rows: torch.Tensor | None = None  # the norms of the rows of the weights' own classifier: training changes them

    def __deepcopy__(self, memo: object) -> "Origin":
        return self

    def transform(self, in_channels: int, **options: Any) -> "PhotoTransform":
        from .photos.transform import PhotoTransform

        assert self.weights is not None
        if not self.weights.described:
            logger.warning("%s does not say how its photos are prepared: treated like ImageNet's", self.weights.title)
        return PhotoTransform(self.weights.preprocess, in_channels, (self.weights.arch, self.weights.name), **options)

    def save(self, model: nn.Module, path: str | os.PathLike[str], **said: Any) -> Path:
        from .saving import save

        return save(model, path, **said)


def hang_on(model: Any, weights: WeightsInfo | None, *, own_head: bool) -> None:
    """Give ``model`` its origin, and its classifier too if that is the weights' own: then their labels are its."""
    own_head = own_head and isinstance(model.fc, nn.Linear)
    model._origin = Origin(weights, model.fc.weight.detach().float().norm(dim=1) if own_head else None)
    if own_head:
        model.fc._origin = model._origin


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
    usual = (weights.num_classes, weights.in_channels) if weights else (1000, 3)
    num_classes = count("num_classes", usual[0] if num_classes is None else num_classes, 0, MAX_CLASSES)
    in_channels = count("in_channels", usual[1] if in_channels is None else in_channels, 1, MAX_CHANNELS)
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
        adapt_input(model, in_channels)
        adapt_head(model, num_classes)
        model.eval()
    own_head = weights is not None and num_classes == weights.num_classes
    hang_on(model, weights and weights.info, own_head=own_head)
    if deploy:
        from .network.deploy import deploy_own

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
