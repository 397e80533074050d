"""``save``: a network, of one's own training loop too, becomes a file that describes itself.

The file is the one that ``train`` writes. Before it appears it is built up again, and has to compute what the network
does: whatever an edit has changed beyond the classifier's size is refused, since no reader could know of it.
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .description import STANDARD, Description, Metrics, Preprocess, parse_description, to_json
from .errors import CheckpointError, ManifestError
from .files import expanded, shown
from .naming import arch_by_width, in_order, one_class
from .network.model import SPECS
from .package import logger
from .rebuilding import check_readable, has_small_stem, plain_tensors, unwrapped
from .weights.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from .weights.manifest import ENUM, Entry, find_entry, matching


def save(
    model: nn.Module,
    path: str | os.PathLike[str],
    *,
    categories: Iterable[str] | None = None,
    weights: str | os.PathLike[str] | None = None,
    preprocess: Any = None,
    metrics: Metrics | Mapping[str, Any] | None = None,
    temperature: float | None = None,
) -> Path:
    """Write ``model`` to a file that ``classifier``, every ``weights=`` and every command takes by its path.

    Args:
        model: a ShuffleNet V2 with BatchNorm, this package's or torchvision's, on any device, in either mode, also
            inside DataParallel, ``torch.compile`` or ``AveragedModel``; with two classes or more.
        path: of the file, as ``"mine.pth"``; it appears whole or not at all.
        categories: the labels, in the order of the logits. ``None``: those of the weights, if it has their classifier
            as it was loaded; of one that was trained since, nobody knows whether its classes are the same.
        weights: name or path of the weights the model began with, whose preprocessing is taken; ``None``: the loaded.
        preprocess: how photos are prepared, if otherwise: what ``model.preprocess()`` gives, or a mapping of
            ``resize``, ``crop``, ``interpolation`` (``"bilinear"``), ``mean`` and ``std``.
        metrics: what was measured: a mapping of ``dataset``, ``acc@1``, ``acc@5`` (percent) and ``measured_by``.
        temperature: by which logits are divided before they become probabilities (``evaluate --calibrate`` fits it);
            ``None``: that of the weights, which is logged where it is not 1.

    Returns:
        The path of the file.

    Raises:
        ValueError: labels or preprocessing are unknown or malformed; the message says what to give.
        CheckpointError: the network cannot be read again from its tensors alone, or the file cannot be written.
        TypeError: ``model`` is no ShuffleNet V2, or ``categories`` no list of labels.

    Example:
        >>> model = shufflenetv2.shufflenet_v2_x1_0(weights="imagenet1k_v1", num_classes=2)
        >>> shufflenetv2.save(model, "mine.pth", categories=["ant", "bee"]).name  # once it is trained
        'mine.pth'
    """
    path = checked_path(path)
    inside = unwrapped(model)
    found = Checkpoint(plain_tensors(inside), None, "the network")
    description = _description(
        arch=(arch := arch_by_width(found)),
        in_channels=found.in_channels,
        small_stem=has_small_stem(inside),
        categories=_labels(categories, inside, found.num_classes),
        preprocess=_preparation(preprocess, weights, inside, arch),
        temperature=_temperature(temperature, inside),
        metrics=to_json(metrics) if is_dataclass(metrics) else metrics and dict(metrics),
    )
    return _written(path, inside, found, description)


def _written(path: Path, model: nn.Module, found: Checkpoint, description: Description) -> Path:
    with torch.device("cpu"):
        check_readable(model, found, description)
    try:
        write_checkpoint(path, found.state_dict, description)
    except OSError as error:
        raise CheckpointError(f"{shown(path)} cannot be written: {error.strerror or error}") from error
    return path


def _description(**raw: Any) -> Description:
    try:
        return parse_description(raw, SPECS, "save")
    except ManifestError as error:
        raise ValueError(str(error)) from error


def checked_path(path: str | os.PathLike[str]) -> Path:
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"path must be the path of a file, got {path!r:.80} (a {type(path).__name__})")
    if not os.fspath(path) or matching(os.fspath(path)) or ENUM.fullmatch(os.fspath(path)):
        raise ValueError(f"the path {path!r:.80} would be read as a name of weights; give another, such as 'mine.pth'")
    from .network.formats.table import FORMATS, TAKEN, whole_of

    if os.fspath(path).lower().endswith(TAKEN):
        raise ValueError(f"{shown(path)} would be read as another format ({', '.join(TAKEN)}); call it mine.pth")
    target = Path(expanded(path))
    if whole_of(target) or any(form.folder and target.name in form.parts for form in FORMATS.values()):
        raise ValueError(f"{shown(path)} would be read as a part of an exported file; call it mine.pth")
    if os.path.isdir(target):
        raise CheckpointError(f"{shown(path)} cannot be written: is a directory; name a file, such as mine.pth")
    if os.fspath(path).endswith(("/", os.sep)):
        raise ValueError(f"{shown(path)} is the name of a folder; name a file, such as {shown(path)}mine.pth")
    return target


def _temperature(given: float | None, model: nn.Module) -> float:
    if given is not None:
        return given
    before = getattr(getattr(model, "weights", None), "temperature", 1.0)
    if before == 1.0 or not getattr(model, "categories", None):  # a new classifier: nothing was fitted to it
        return 1.0
    logger.warning(
        "the temperature %g, fitted to the weights that the network came with, is kept; if it was trained since, give "
        "temperature=1.0, or fit a new one (evaluate --calibrate)", before
    )  # fmt: skip
    return float(before)


def _labels(categories: Iterable[str] | None, model: nn.Module, count: int) -> list[str]:
    if not count:
        raise ValueError(
            "the network has no classifier, so it has no labels; save its state_dict() for use as weights="
        )
    if count == 1:
        raise ValueError(one_class("the network"))
    if categories is None:
        known = getattr(model, "categories", None)
        if known is None or len(known) != count:  # its tensors may have been cut in place
            raise ValueError(
                f"what do the {count} classes mean? Give categories=[...], {count} labels in the order of the logits; "
                "with torchvision's ImageFolder, dataset.classes"
            )
        inside: Any = model
        norms = inside.fc.weight.detach().float().norm(dim=1)
        if not torch.allclose(norms, inside._origin.rows.to(norms), rtol=1e-3):  # rounding to bfloat16 changes less
            raise ValueError(
                f"the classifier was trained since it was loaded: do its {count} classes still mean what those of "
                f"{inside.weights.title} do? Then give categories=model.categories, else categories=[...], in the "
                "order of the logits; with torchvision's ImageFolder, dataset.classes"
            )
        return list(known)
    labels = in_order(categories)
    if len(labels) != count:
        raise ValueError(
            f"categories has {len(labels)} label{'s' * (len(labels) != 1)}, and the network {count} classes"
        )
    return labels


def _preparation(
    preprocess: Any, weights: str | os.PathLike[str] | None, model: nn.Module, arch: str
) -> dict[str, Any]:
    if preprocess is not None and weights is not None:
        raise ValueError("weights= and preprocess= both say how photos are prepared; leave one out")
    if preprocess is None:
        known = getattr(model, "weights", None) if weights is None else None
        preprocess = getattr(known, "preprocess", None) if getattr(known, "described", False) else None
        preprocess = preprocess if weights is None else _of_weights(weights, arch, has_small_stem(model))
    if preprocess is None:
        raise ValueError(
            "how were the photos prepared? Give weights=, the name or path of the weights the network began with, or "
            f"preprocess=, such as {to_json(STANDARD)}"
        )
    preprocess = getattr(preprocess, "preprocess", preprocess)  # of a PhotoTransform
    if is_dataclass(preprocess) and not isinstance(preprocess, type):
        preprocess = {
            key: list(value) if isinstance(value, tuple) else value for key, value in asdict(preprocess).items()
        }
    if not isinstance(preprocess, Mapping):
        told = f"{preprocess!r:.80}"
        if type(preprocess).__module__.startswith("torchvision.transforms"):
            enum = f"ShuffleNet_V2_{arch.removeprefix('shufflenet_v2_').upper()}_Weights"
            told = f"torchvision's {type(preprocess).__name__}; instead of a weights' transforms() give the weights: "
            told += f"weights={enum}.IMAGENET1K_V1"
        raise TypeError(f"preprocess must be a mapping such as {to_json(STANDARD)}, got {told}")
    return {key: list(value) if isinstance(value, tuple) else value for key, value in preprocess.items()}


def _of_weights(weights: Any, arch: str, small_stem: bool) -> Preprocess:
    """The preprocessing of the weights the network began with, from which its stem is then, too."""
    said = _said_by(weights, arch)
    if said.small_stem == small_stem:
        return said.preprocess
    stems = {True: "the small stem (stride 1, no max-pool)", False: "the paper's stem (stride 2, max-pool)"}
    raise ValueError(
        f"weights={str(getattr(weights, 'name', weights))!r:.80} is for {stems[said.small_stem]}, and the network has "
        f"{stems[small_stem]}, so it did not begin with them. A state dict does not tell its stem: load it with "
        f"small_stem={said.small_stem}, an argument of {arch}, and save that; if the stem is meant, give preprocess= "
        "instead of weights="
    )


def _said_by(weights: Any, arch: str) -> Entry | Description:
    if isinstance(of := getattr(weights, "arch", None), str):  # an entry of list_weights, or a model's .weights
        weights, arch = getattr(weights, "name", weights), of
    name = str(weights)  # of torchvision's enum members ``ShuffleNet_V2_X1_0_Weights.IMAGENET1K_V1``
    if matching(name) or not (isinstance(weights, os.PathLike) or os.sep in name or "." in name):
        return find_entry(arch, name)
    from .network.formats.table import format_of

    path = Path(expanded(weights))
    form, best = format_of(path), path / "best.pth"  # the folder that `train` writes
    path = best if best.is_file() else path
    if form:
        from .network.formats.opening import open_exported

        return open_exported(form, str(path))[1].description
    checkpoint = read_checkpoint(path, SPECS)
    if checkpoint.description is None:
        raise ValueError(f"{checkpoint.where} does not say how its photos were prepared; give preprocess= instead")
    return checkpoint.description
