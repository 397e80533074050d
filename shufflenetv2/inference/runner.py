"""A network on its device, given preprocessed images from the CPU: what an expert would do there, done by itself."""

import torch
from torch import Tensor, nn

from ..devices import memory_told
from ..network.formats.described import ExportedNetwork
from .graphs import Graphed


class Runner:
    """``model`` on ``device``: images ``float32 (N, C, H, W)`` from any device to logits, float32, on this one.

    On CUDA the images are copied from pinned memory, lie channels-last there, and a shape that comes often is computed
    by a recorded graph. A model in half precision gets its images so. ``model`` may be exchanged or moved in between.
    May be called from several threads.

    Raises:
        DeviceError: on a call, the device has no memory left; the message says which batch to try.
        TypeError: the images hold whole numbers: no transform has made them.
    """

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        self.model, self.device = model, device
        self._graphed = Graphed(model)

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        if not images.is_floating_point():
            raise TypeError(
                f"preprocessed images hold float32, as the transform gives them, got {images.dtype}; a photo of uint8 "
                "is given to the classifier itself"
            )
        dtype = _input_dtype(self.model)
        with memory_told(self.device, len(images)):
            if self.device.type != "cuda":
                logits: Tensor = self.model(images.to(self.device, dtype))
                return logits.float()
            if not images.is_cuda:
                images = images.pin_memory()
            images = images.to(self.device, dtype, non_blocking=True, memory_format=torch.channels_last)
            if self._graphed.network is not self.model:
                self._graphed = Graphed(self.model)
            return self._graphed(images).float()


def _input_dtype(model: nn.Module) -> torch.dtype:
    """That of the first layer, wrapped or not; an exported file takes float32 whatever it computes in."""
    parameters = iter(()) if isinstance(model, ExportedNetwork) else model.parameters()
    return next((each.dtype for each in parameters), torch.float32)
