"""A photo in, its most likely labels out: model, preprocessing and categories of one set of weights behind one call."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .builder import Weights, build, resolve
from .devices import choose_device
from .package import hub_call, made_by_hub
from .photos.transform import Photo, PhotoTransform


@dataclass(frozen=True)
class Prediction:
    """One label of a photo: its name, its softmax probability in [0, 1], its index in the logits."""

    label: str
    probability: float
    index: int


class Classifier:
    """Callable made by the entry point ``classifier``, whose documentation describes the arguments.

    Attributes:
        model: the network in eval mode, on ``device``.
        transform: the ``PhotoTransform`` of the weights.
        categories: the labels, in the order of the logits.
    """

    def __init__(
        self,
        weights: Weights,
        *,
        top: int = 5,
        device: str | torch.device | None = None,
        deploy: bool = True,
        progress: bool = True,
    ) -> None:
        if type(top) is not int or top < 1:
            raise ValueError(f"top must be an integer of at least 1, got {top!r:.80}")
        self.weights = weights
        self.top = top
        self.device = choose_device(device)
        self.deploy = deploy
        self.categories = weights.labels
        self.model = build(weights.arch, weights, progress=progress, deploy=deploy).to(self.device)
        self.transform = PhotoTransform(weights.preprocess, weights.in_channels, weights.reference)

    def __repr__(self) -> str:
        return f"Classifier({', '.join(self.weights.reference)}, top={self.top}, device={str(self.device)!r})"

    def __call__(self, photos: Photo | Sequence[Photo]) -> list[Prediction] | list[list[Prediction]]:
        """Predict the labels of one photo or several.

        Args:
            photos: a path, bytes, a PIL image, a uint8 tensor ``(3, H, W)`` or ``(N, 3, H, W)``, or a list of them.

        Returns:
            For one photo a list of ``Prediction``, most likely first; for several a list of such lists.

        Raises:
            ImageError: naming the photo that cannot be used.
        """
        several = isinstance(photos, (list, tuple)) or (isinstance(photos, Tensor) and photos.dim() == 4)
        if several and len(photos) == 0:  # type: ignore[arg-type]  # a sequence or a batch, both have a length
            return []
        predictions = self.predict(self.transform(photos))
        return predictions if several else predictions[0]

    @torch.inference_mode()
    def predict(self, images: Tensor) -> list[list[Prediction]]:
        """The most likely labels for each of the preprocessed ``images``, ``float32 (N, C, H, W)``."""
        logits = self.model(images.to(self.device))
        probabilities, indices = logits.softmax(1).topk(min(self.top, logits.shape[1]))
        return [
            [Prediction(self.categories[index], probability, index) for probability, index in zip(*row, strict=True)]
            for row in zip(probabilities.tolist(), indices.tolist(), strict=True)
        ]

    def __reduce__(self) -> tuple[Any, ...]:
        kwargs = {"top": self.top, "device": str(self.device), "deploy": self.deploy, "progress": False}
        if made_by_hub():
            return hub_call("classifier", *self.weights.reference, **kwargs)
        return _rebuild, (self.weights.reference, kwargs)


def _rebuild(reference: tuple[str, str], kwargs: dict[str, Any]) -> Classifier:
    return Classifier(resolve(*reference), **kwargs)
