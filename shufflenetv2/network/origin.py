"""What hangs on a network beside its tensors: the weights it was loaded with, their labels and preprocessing.

The network's room knows neither weights nor photos: ``build`` hangs an ``Origin`` on what it makes, and the attributes
below ask it. Nothing of it is in the state dict, in a scripted or exported program, or in what is computed.
"""

import os
from typing import TYPE_CHECKING, Any, Protocol

from torch import nn


class Origin(Protocol):
    """What ``build`` hangs on a network; ``shufflenetv2/builder.py`` has the one there is."""

    @property
    def weights(self) -> Any: ...

    def transform(self, in_channels: int, **options: Any) -> Any: ...

    def save(self, model: nn.Module, path: str | os.PathLike[str], **said: Any) -> Any: ...


class WithOrigin(nn.Module):
    """A network that knows where it comes from, if ``build`` made it.

    The origin hangs on the network and on its classifier ``fc``: whoever puts another classifier there gets no labels
    from it. TorchScript takes neither: it cannot store the type, and is told to leave the properties alone.
    """

    __jit_unused_properties__ = ("weights", "categories")

    if TYPE_CHECKING:
        in_channels: int
        fc: nn.Module
        _origin: Origin | None = None
    else:  # TorchScript reads annotations, and knows none of these
        _origin = None

    @property
    def weights(self) -> Any:
        """What is known of the weights this network was loaded with: ``arch``, ``name``, ``num_classes``,
        ``preprocess``, ``metrics`` and more; ``None`` without weights."""
        return self._origin and self._origin.weights

    @property
    def categories(self) -> list[str] | None:
        """The labels in the order of the logits; ``None`` if nobody knows them: without weights, or with another
        classifier in ``fc``."""
        if self.weights is None or getattr(self.fc, "_origin", None) is not self._origin:
            return None
        labels = [category.label for category in self.weights.classes]
        return labels if labels and len(labels) == getattr(self.fc, "out_features", 0) else None

    def preprocess(self, **options: Any) -> Any:
        """The transform from photos to this network's input, as the entry point ``preprocess`` gives it.

        Args:
            options: ``batch``, ``max_pixels`` and ``upright`` of that entry point.

        Raises:
            ValueError: the network was not loaded with weights, or takes images of neither 1 nor 3 channels.
            ImportError: Pillow is missing; the message has the pip line.
        """
        if self._origin is None or self.weights is None:
            raise ValueError(
                "this network was built without weights, so nobody knows how its photos are prepared; the entry point "
                "preprocess gives the transform of any weights by name"
            )
        return self._origin.transform(self.in_channels, **options)

    def save(self, path: str | os.PathLike[str], **said: Any) -> Any:
        """Write a file that ``classifier``, every ``weights=`` and every command takes by its path.

        ``shufflenetv2.save``, for those who have the package only through ``torch.hub``; see there for ``categories``,
        ``weights``, ``preprocess`` and ``metrics``.
        """
        if self._origin is None:
            raise ValueError("this network was built by its class; write shufflenetv2.save(model, path, ...)")
        return self._origin.save(self, path, **said)
