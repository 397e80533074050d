"""``save``: a network, of one's own training loop too, becomes a file that describes itself.

The file is the one that ``train`` writes. Before it appears it is built up again, and has to compute what the network
does: whatever an edit has changed beyond the classifier's size is refused, since no reader could know of it.
"""

import copy
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .description import STANDARD, Description, Metrics, Preprocess, parse_description, to_json
from .errors import CheckpointError, ManifestError
from .files import expanded, shown
from .naming import arch_by_width
from .network.model import SPECS, ShuffleNetV2, spec_of
from .weights.checkpoint import Checkpoint, load, read_checkpoint, write_checkpoint
from .weights.manifest import ENUM, find_entry, matching

TOLERANCE = 1e-9  # of the largest logit, in float64: rounding gives some 1e-14, an edit far more


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
            inside DistributedDataParallel, ``torch.compile`` or ``AveragedModel``; its classifier may have any number
            of classes, and dropout before it. It is left as it is.
        path: of the file, as ``"mine.pth"``; it appears whole or not at all.
        categories: the labels, in the order of the logits. ``None``: those of the weights the model was loaded with,
            if it still has their classifier.
        weights: name or path of the weights the model began with, whose preprocessing is taken; ``None``: the loaded.
        preprocess: how photos are prepared, if otherwise: what ``model.preprocess()`` or the entry point ``preprocess``
            gives, or a mapping of ``resize``, ``crop``, ``interpolation`` (``"bilinear"``), ``mean`` and ``std``.
        metrics: what was measured: a mapping of ``dataset``, ``acc@1``, ``acc@5`` (percent) and ``measured_by``.
        temperature: by which logits are divided before they become probabilities (``evaluate --calibrate`` fits it);
            ``None`` is 1, and is refused where the model's own weights came with another.

    Raises:
        ValueError: labels or preprocessing are unknown or malformed; the message says what to give.
        CheckpointError: the network cannot be read again from its tensors alone, or the file cannot be written.
        TypeError: ``model`` is no ShuffleNet V2.

    Example:
        >>> model = shufflenetv2.shufflenet_v2_x1_0(weights="imagenet1k_v1", num_classes=2)
        >>> shufflenetv2.save(model, "mine.pth", categories=["ant", "bee"]).name  # once it is trained
        'mine.pth'
    """
    path = _checked_path(path)
    inside = _unwrapped(model)
    found = Checkpoint(_plain_tensors(inside), None, "the network")
    description = _description(
        arch=(arch := arch_by_width(found)),
        in_channels=found.in_channels,
        small_stem=_has_small_stem(inside),
        categories=_labels(categories, inside, found.num_classes),
        preprocess=_preparation(preprocess, weights, inside, arch),
        temperature=_temperature(temperature, inside),
        metrics=to_json(metrics) if isinstance(metrics, Metrics) else metrics and dict(metrics),
    )
    _check_readable(inside, found, description)
    return _written(path, found.state_dict, description)


def _written(path: Path, tensors: Mapping[str, Tensor], description: Description) -> Path:
    try:
        write_checkpoint(path, tensors, description)
    except OSError as error:
        raise CheckpointError(f"{shown(path)} cannot be written: {error.strerror or error}") from error
    return path


def _description(**raw: Any) -> Description:
    try:
        return parse_description(raw, SPECS, "save")
    except ManifestError as error:
        raise ValueError(str(error)) from error


def _checked_path(path: str | os.PathLike[str]) -> Path:
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"path must be the path of a file, got {path!r:.80} (a {type(path).__name__})")
    if not os.fspath(path) or matching(os.fspath(path)) or ENUM.fullmatch(os.fspath(path)):
        raise ValueError(f"the path {path!r:.80} would be read as a name of weights; give another, such as 'mine.pth'")
    from .network.formats.table import FORMATS

    endings = [form.suffix for form in FORMATS.values() if form.suffix and not form.marker]
    if os.fspath(path).lower().endswith(tuple(endings)):
        raise ValueError(f"{shown(path)} would be read as another format ({', '.join(endings)}); call it mine.pth")
    return Path(expanded(path))


def _unwrapped(model: nn.Module) -> nn.Module:
    """The network inside DataParallel, AveragedModel or what torch.compile gives."""
    while isinstance(inner := getattr(model, "_orig_mod", getattr(model, "module", None)), nn.Module):
        model = inner
    if not isinstance(model, nn.Module) or not isinstance(getattr(model, "fc", None), nn.Module):
        raise TypeError(f"save takes a ShuffleNetV2, got a {type(model).__name__}")
    if "conv1.bias" in model.state_dict():
        raise TypeError(
            "save takes the plain network, and this one is the deploy form; save the network it was made from, and ask "
            "for deploy=True as you load the file"
        )
    return model


def _plain_tensors(model: nn.Module) -> dict[str, Tensor]:
    """The state dict under torchvision's keys, also where ``fc`` is one linear layer among dropout and the like."""
    state = {key: tensor.detach() for key, tensor in model.state_dict().items()}
    if computed := [key for key in state if key.endswith("_orig") or "parametrizations" in key]:
        raise CheckpointError(
            f"a weight is computed from others ({computed[0]}), which cannot be read again from a file; make it "
            "permanent: torch.nn.utils.prune.remove, or torch.nn.utils.parametrize.remove_parametrizations"
        )
    layers = [each for each in model.get_submodule("fc").modules() if isinstance(each, nn.Linear)]
    others = [key for key in state if key.startswith("fc.") and key not in ("fc.weight", "fc.bias")]
    if len(layers) != 1 and others:
        raise CheckpointError(
            f"the classifier fc holds more than one linear layer ({', '.join(others[:4])}), so it cannot be read again "
            "from a file; give it one nn.Linear, with nn.Dropout before it if wanted"
        )
    if len(layers) == 1:
        state = {key: tensor for key, tensor in state.items() if not key.startswith("fc.")}
        weight, bias = layers[0].weight.detach(), layers[0].bias
        state |= {"fc.weight": weight, "fc.bias": weight.new_zeros(len(weight)) if bias is None else bias.detach()}
    return state


def _has_small_stem(model: nn.Module) -> bool:
    """No tensor tells it; whether the rest of the stem is so too shows when the networks are compared."""
    strides = [each.stride for each in model.get_submodule("conv1").modules() if isinstance(each, nn.Conv2d)]
    return strides[:1] == [(1, 1)]


def _temperature(given: float | None, model: nn.Module) -> float:
    if given is not None:
        return given
    before = getattr(getattr(model, "weights", None), "temperature", 1.0)
    if before != 1.0 and getattr(model, "categories", None):
        raise ValueError(
            f"the weights came with the temperature {before:g}, which was fitted to them: give temperature={before:g} "
            "if they were not trained since, else temperature=1.0 (evaluate --calibrate fits a new one)"
        )
    return 1.0


def _labels(categories: Iterable[str] | None, model: nn.Module, count: int) -> list[str]:
    if not count:
        raise ValueError(
            "the network has no classifier, so it has no labels; save its state_dict() for use as weights="
        )
    if categories is None:
        known = getattr(model, "categories", None)
        if known is None:
            raise ValueError(
                f"what do the {count} classes mean? Give categories=[...], {count} labels in the order of the logits; "
                "with torchvision's ImageFolder, dataset.classes"
            )
        return list(known)
    labels = [categories] if isinstance(categories, str) else list(categories)
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
        preprocess = _of_weights(weights, arch) if weights is not None else getattr(known, "preprocess", None)
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
        raise TypeError(f"preprocess must be a mapping such as {to_json(STANDARD)}, got {preprocess!r:.80}")
    return {key: list(value) if isinstance(value, tuple) else value for key, value in preprocess.items()}


def _of_weights(weights: str | os.PathLike[str], arch: str) -> Preprocess:
    name = str(weights)  # of torchvision's enum members ``ShuffleNet_V2_X1_0_Weights.IMAGENET1K_V1``
    if matching(name) or not (isinstance(weights, os.PathLike) or os.sep in name or "." in name):
        return find_entry(arch, name).preprocess
    checkpoint = read_checkpoint(weights, SPECS)
    if checkpoint.description is None:
        raise ValueError(f"{checkpoint.where} does not say how its photos were prepared; give preprocess= instead")
    return checkpoint.description.preprocess


@torch.no_grad()
def _check_readable(model: nn.Module, found: Checkpoint, description: Description) -> None:
    """Build the file's network, and compare: in float64 on the CPU, on a small random input of odd size."""
    with torch.device("meta"):
        again = ShuffleNetV2(spec_of(description.arch, description.small_stem), found.num_classes, found.in_channels)
    try:
        load(again, Checkpoint({key: tensor.cpu() for key, tensor in found.state_dict.items()}, None, "the network"))
    except CheckpointError as error:
        raise CheckpointError(f"{error}; such a network cannot be read again from a file: undo the edit") from error
    shape = (2, found.in_channels, 33, 47)
    images = torch.randn(shape, dtype=torch.float64, device="cpu", generator=torch.Generator().manual_seed(0))
    try:
        expected = copy.deepcopy(model).cpu().to(torch.get_default_dtype()).double().eval()(images)
    except Exception as error:  # an edited network may raise anything
        raise CheckpointError(
            f"the network cannot be compared with its file: it fails on images {shape}: {error}"
        ) from error
    got = again.cpu().double().eval()(images)
    difference = float((got - expected).abs().max()) if got.shape == expected.shape else float("inf")
    if not difference <= TOLERANCE * float(expected.abs().max()):
        raise CheckpointError(
            f"read again from a file, the network would compute something else (logits differ by {difference:.2g}): a "
            "layer without tensors was edited, an activation or a stride for one; undo that"
        )
