"""What a user of ``torch.hub`` calls: four functions over one builder, and the photo side of each weights file."""

import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from . import documentation
from .builder import build, is_path, resolve, spelled
from .network.model import SPECS
from .weights.manifest import Entry, default_entry, find_entry, load_manifest

if TYPE_CHECKING:
    from .inference.classifier import Classifier
    from .photos.transform import PhotoTransform

Named = str | os.PathLike[str] | None  # torchvision's enum members are taken too, by their name


def _named_weights(arch: str, pretrained: object, weights: Named) -> Named:
    """One answer from two arguments that may both be given."""
    if not isinstance(pretrained, bool):
        raise TypeError(f"pretrained is True or False, got {pretrained!r:.80}; name weights with weights=...")
    if not pretrained:
        return weights
    if weights is not None and (is_path(weights) or not find_entry(arch, spelled(weights)).default):
        raise ValueError(
            f"pretrained=True means the default weights, {default_entry(arch)}, but weights={weights!r:.80} was given "
            "too; leave one out"
        )
    return "default" if weights is None else weights


def _entry_point(arch: str) -> Callable[..., nn.Module]:
    def entry_point(
        pretrained: bool = False,
        progress: bool = True,
        *,
        weights: Named = None,
        num_classes: int | None = None,
        in_channels: int | None = None,
        small_stem: bool | None = None,
        deploy: bool = False,
    ) -> nn.Module:
        named = _named_weights(arch, pretrained, weights)
        found = None if named is None else resolve(arch, named, described=False)
        return build(
            arch,
            found,
            progress=progress,
            num_classes=num_classes,
            in_channels=in_channels,
            small_stem=small_stem,
            deploy=deploy,
        )

    entry_point.__name__ = entry_point.__qualname__ = arch
    entry_point.__doc__ = documentation.network(arch)
    return entry_point


shufflenet_v2_x0_5 = _entry_point("shufflenet_v2_x0_5")
shufflenet_v2_x1_0 = _entry_point("shufflenet_v2_x1_0")
shufflenet_v2_x1_5 = _entry_point("shufflenet_v2_x1_5")
shufflenet_v2_x2_0 = _entry_point("shufflenet_v2_x2_0")


def classifier(
    arch: str | None = None,
    weights: Any = "default",
    *,
    pretrained: bool = True,
    top: int = 5,
    device: str | torch.device | None = None,
    deploy: bool = True,
    fast_decode: bool | str = False,
    runtime: str = "torch",
    precision: str = "float32",
    categories: Iterable[str] | None = None,
    max_pixels: int | None = None,
    upright: bool = True,
    min_probability: float = 0.0,
    progress: bool = True,
) -> "Classifier":
    from .inference.classifier import Classifier

    if pretrained is not True:
        raise ValueError(f"a classifier needs weights, so pretrained can only be True, got {pretrained!r:.80}")
    return Classifier(
        resolve(arch, weights, categories=categories),
        top=top,
        device=device,
        deploy=deploy,
        max_pixels=max_pixels,
        upright=upright,
        runtime=runtime,
        precision=precision,
        fast_decode=fast_decode,
        min_probability=min_probability,
        progress=progress,
    )


classifier.__doc__ = documentation.CLASSIFIER


def preprocess(
    arch: str | None = None,
    weights: Any = "default",
    *,
    in_channels: int | None = None,
    batch: bool = True,
    max_pixels: int | None = None,
    upright: bool = True,
    fast_decode: bool | str = False,
) -> "PhotoTransform":
    from .photos.transform import PhotoTransform

    found = resolve(arch, weights)
    channels = found.in_channels if in_channels is None else in_channels
    return PhotoTransform(
        found.preprocess,
        channels,
        found.reference,
        batch=batch,
        max_pixels=max_pixels,
        upright=upright,
        fast_decode=fast_decode,
    )


preprocess.__doc__ = documentation.PREPROCESS


def categories(arch: str | None = None, weights: Any = "default") -> list[str]:
    return resolve(arch, weights).labels


categories.__doc__ = documentation.CATEGORIES


def list_weights(arch: str | None = None) -> list[Entry]:
    """All weights that have a name, as values; nothing is fetched.

    Args:
        arch: one of the four architectures; ``None`` lists the weights of all.

    Returns:
        Entries in the order of ``weights.json``, with ``arch``, ``name``, ``default``, ``num_classes``, ``size``
        (bytes), ``sha256``, ``num_params``, ``macs`` (multiply-adds for one photo), ``preprocess``, ``metrics``,
        ``license`` and more; ``str(entry)`` is ``ARCH/NAME``, which ``weights=`` takes. On the hub, ``torch.hub.help``
        of an entry point shows its weights.

    Raises:
        ValueError: there is no such architecture; the message lists those there are.

    Example:
        >>> [str(entry) for entry in shufflenetv2.list_weights("shufflenet_v2_x1_0")]
        ['shufflenet_v2_x1_0/imagenet1k_v1']
    """
    if arch is not None and arch not in SPECS:
        raise ValueError(f"there is no architecture {arch!r:.80}; there are {', '.join(SPECS)}")
    return [entry for entry in load_manifest() if arch in (None, entry.arch)]
