"""Where the network looked: what each position of a photo adds to the logit of a label.

ShuffleNet V2 ends in a mean over positions and a linear layer, so its class activation map (Zhou et al., CVPR 2016,
https://arxiv.org/abs/1512.04150) is no approximation: the logit is the mean of the map, plus the label's bias.
"""

import copy
import ctypes
import io
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Protocol

import torch
from PIL import Image, ImageDraw
from torch import Tensor, nn

from ..network.deploy_form import DeployedShuffleNetV2
from ..package import count
from ..photos.kinds import Photo, several
from ..photos.transform import PhotoTransform
from .placing import Placing, between, placed
from .stream import Prediction, ranked, refuse_training

NOTEBOOK_SIDE = 1024  # pixels of the picture that a notebook shows
BAND = 256  # rows of an overlay that are drawn at once
# matplotlib's "viridis" at ten even steps (by van der Walt, Smith and Firing, CC0): even steps look even.
_VIRIDIS = "440154 482878 3e4989 31688e 26828e 1f9e89 35b779 6ece58 b5de2b fde725"


class Answering(Protocol):
    """What is asked of a classifier."""

    model: nn.Module
    transform: PhotoTransform
    categories: list[str]

    def softmax(self, logits: Tensor) -> Tensor: ...

    def answers(self, logits: Tensor, images: Tensor) -> list[list[Prediction]]: ...


@dataclass(frozen=True)
class Explanation:
    """Where the network saw a label; ``Classifier.explain`` makes it.

    Attributes:
        predictions: as a call of the classifier gives them.
        label, index, probability: the label that is explained.
        map: ``(h, w)`` in the network's dtype, the contributions at the positions of the last feature map.
        bias: the label's own; ``map.mean() + bias`` is the logit.
        logit: as the network gave it.
        heatmap: float32 ``(H, W)`` in the photo's own upright pixels: the map, bilinear between the centres of what its
            positions see. Positive speaks for the label, negative against it. 0 where the network was shown nothing.
        seen: bool ``(H, W)``, what the network was shown: the crop.
        frame: left, top, right and bottom of the crop, in the photo's pixels.
        size: width and height of the photo, as a person sees it.

    Example:
        >>> explanation = shufflenetv2.classifier(weights="cifar10").explain("images/cat.jpg")
        >>> explanation.label, explanation.heatmap.shape, explanation.overlay().size
        ('cat', torch.Size([300, 451]), (451, 300))
    """

    predictions: list[Prediction]
    label: str
    index: int
    probability: float
    map: Tensor = field(repr=False)
    bias: float
    logit: float
    frame: tuple[float, float, float, float]
    size: tuple[int, int]
    crop: int = field(repr=False)
    photo: Image.Image = field(repr=False)  # in RGB; smaller than ``size`` where a large one was halved

    @cached_property
    def heatmap(self) -> Tensor:
        return placed(self.map, self.crop, self.frame, self.size).heatmap(self.map)

    @cached_property
    def seen(self) -> Tensor:
        return placed(self.map, self.crop, self.frame, self.size).seen()

    def overlay(self, longest: int | None = None) -> Image.Image:
        """The photo, in grey, under the colours of what speaks for the label: dark blue for nothing, yellow for most.

        Args:
            longest: pixels of its longer side at most, for less memory; ``None``: of the photo's size.

        Returns:
            An RGB image. The crop has a frame; outside it the photo is dimmed.
        """
        scale = min(1.0, longest / max(self.size)) if longest else 1.0
        width, height = (max(1, round(side * scale)) for side in self.size)
        across, down = width / self.size[0], height / self.size[1]
        left, top, right, bottom = (edge * each for edge, each in zip(self.frame, 2 * (across, down), strict=True))
        placing = placed(self.map, self.crop, (left, top, right, bottom), (width, height))
        grey = self.photo.convert("L").resize((width, height))
        result = Image.new("RGB", (width, height))
        for start in range(0, height, BAND):
            band = grey.crop((0, start, width, min(start + BAND, height)))
            result.paste(self._drawn(band, placing.band(start, start + BAND)), (0, start))
        box = [round(edge) for edge in (left, top, right, bottom)]
        corners = (box[0], box[1], max(box[2] - 1, box[0]), max(box[3] - 1, box[1]))
        ImageDraw.Draw(result).rectangle(corners, outline="white", width=max(1, min(width, height) // 150))
        return result

    def _drawn(self, grey: Image.Image, placing: Placing) -> Image.Image:
        """A band of the overlay, over these pixels of the photo."""
        highest = max(float(self.map.max()), torch.finfo(torch.float32).tiny)
        levels, shown = placing.heatmap(self.map).div_(highest).clamp_(0, 1), placing.seen()
        colours = picture((levels * 255).round_().byte())
        colours.putpalette(_palette())
        strength = picture((levels.mul_(0.25).add_(0.45) * 255).byte())
        warm = Image.composite(colours.convert("RGB"), grey.convert("RGB"), strength)
        return Image.composite(warm, grey.point(lambda value: value * 0.6).convert("RGB"), picture(shown.byte() * 255))

    def _repr_png_(self) -> bytes:
        """For notebooks, at most 1024 pixels a side."""
        self.overlay(NOTEBOOK_SIDE).save(file := io.BytesIO(), "PNG")
        return file.getvalue()


def picture(pixels: Tensor) -> Image.Image:
    """An image of uint8 ``(3, H, W)``, or of ``(H, W)`` in grey; PyTorch may be without numpy."""
    mode, pixels = ("L", pixels) if pixels.dim() == 2 else ("RGB", pixels.permute(1, 2, 0))
    pixels = pixels.contiguous().cpu()
    data = ctypes.string_at(pixels.data_ptr(), pixels.numel())
    return Image.frombytes(mode, (pixels.shape[1], pixels.shape[0]), data)


@cache
def _palette() -> bytes:
    colours = [list(bytes.fromhex(each)) for each in _VIRIDIS.split()]
    steps = torch.tensor(colours, dtype=torch.float32, device="cpu")
    return bytes((between(256, 0.5, 255 / (len(steps) - 1), len(steps)) @ steps).round().byte().flatten().tolist())


def explained(classifier: Answering, photo: Photo, label: str | int | None) -> Explanation:
    """What ``Classifier.explain`` gives, which documents it."""
    if several(photo) is not None or (isinstance(photo, Tensor) and photo.dim() == 4):
        raise TypeError("explain takes one photo; for several, call it for each")
    asked = None if label is None else chosen(label, classifier.categories)
    if isinstance(photo, Tensor):
        images, size = classifier.transform.sized(photo)
        image = picture(photo.expand(3, -1, -1))
    else:
        images, image, size = classifier.transform.pictured(photo)
    refuse_training(classifier.model)
    features, logits, last = last_features(classifier.model, images)
    [predictions] = classifier.answers(logits.float(), images)  # as a call computes them, whatever the precision
    probabilities = classifier.softmax(logits.float())
    index = int(ranked(probabilities, 1)[1]) if asked is None else asked
    logit, probability = float(logits[0, index]), float(probabilities[0, index])
    map, bias = contributions(features, last, index, logit)  # cloned below: of inference mode
    name, frame, crop = classifier.categories[index], classifier.transform.frame(size), images.shape[-1]
    return Explanation(predictions, name, index, probability, map.clone(), bias, logit, frame, size, crop, image)


def chosen(label: str | int, categories: list[str]) -> int:
    """The index of ``label``, a name or an index already.

    Raises:
        ValueError: there is no such label, or several.
        TypeError: it is neither.
    """
    if isinstance(label, Prediction):
        label = label.index
    if not isinstance(label, str):
        return count("the index of a label", label, 0, len(categories) - 1)
    found = [index for index, name in enumerate(categories) if name == label]
    if len(found) != 1:
        several = f"several labels are called {label!r:.80}; give one of their indices, {found}"
        raise ValueError(several if found else f"there is no label {label!r:.80}; labels are spelled as in categories")
    return found[0]


@torch.inference_mode()
def last_features(model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor, nn.Linear]:
    """The feature map before the mean, the logits of the same pass, and the last layer.

    Args:
        model: plain, edited, torchvision's, or a deploy form.
        images: ``(1, C, H, W)``.

    Raises:
        ValueError: the network does not end in conv5, a mean and a linear layer; of an exported file nothing is known.
    """
    own_parts = dict(model.named_children())  # a compiled network shows those of another as attributes
    name = "activation" if isinstance(model, DeployedShuffleNetV2) else "conv5"
    last, head, recorder = own_parts.get("fc"), own_parts.get(name), Recorder()
    if isinstance(last, nn.Linear) and isinstance(head, nn.Module):
        own = copy.copy(model)  # which shares the weights: other threads may be computing with the model itself
        own._modules = {**model._modules, name: nn.Sequential(head, recorder)}
        logits = own(images.to(last.weight.device, last.weight.dtype))
        if recorder.features is not None:
            return recorder.features, logits, last
    raise ValueError(
        "only a network of PyTorch that ends in conv5, a mean and a linear layer, fc, can be explained; this "
        f"{type(model).__name__} does not (of an exported file, take the weights that it was made from)"
    )


class Recorder(nn.Module):
    """Keeps what passes through it."""

    features: Tensor | None = None

    def forward(self, features: Tensor) -> Tensor:
        self.features = features
        return features


@torch.inference_mode()
def contributions(features: Tensor, last: nn.Linear, index: int, logit: float) -> tuple[Tensor, float]:
    """The class activation map ``(h, w)`` of ``features`` ``(1, C, h, w)`` and the bias, which give ``logit``.

    Raises:
        ValueError: they do not: the network has something else between its features and its logits.
    """
    weight, bias = last.weight[index], 0.0 if last.bias is None else float(last.bias[index])
    map = torch.einsum("chw,c->hw", features[0], weight).contiguous().cpu()
    pooled = features.mean((2, 3))
    # By the layer's own arithmetic, which may be coarse: then only another function differs by more than a little.
    again = float(nn.functional.linear(pooled, last.weight, last.bias)[0, index])
    size = float(pooled[0].abs() @ weight.abs()) + abs(bias) + abs(logit)
    if abs(again - logit) > min(1000 * torch.finfo(map.dtype).eps, 0.02) * size:
        raise ValueError(
            "the mean of the class activation map is not the logit: this network computes something else between conv5 "
            "and fc than a mean over the positions"
        )
    return map, bias
