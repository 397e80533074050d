"""ShuffleNet V2 for torch.hub: verified weights, and the whole way from a photo to its labels.

The names below are imported on first use, so that ``import shufflenetv2`` and the command line's ``--help`` need not
wait for torch.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .entrypoints import (
        categories,
        classifier,
        list_weights,
        preprocess,
        shufflenet_v2_x0_5,
        shufflenet_v2_x1_0,
        shufflenet_v2_x1_5,
        shufflenet_v2_x2_0,
    )
    from .errors import (
        CacheError,
        CheckpointError,
        DatasetError,
        DeviceError,
        DownloadError,
        ExportError,
        ImageError,
        IntegrityError,
        ManifestError,
        ShuffleNetError,
        TableError,
        TrainingError,
    )
    from .inference.classifier import Classifier
    from .inference.explain import Explanation
    from .inference.stream import Prediction, Result
    from .network.deploy import deploy
    from .network.model import SPECS, ShuffleNetV2, Spec
    from .saving import save

__version__ = "1.0.0"

__all__ = [
    "SPECS",
    "CacheError",
    "CheckpointError",
    "Classifier",
    "DatasetError",
    "DeviceError",
    "DownloadError",
    "Explanation",
    "ExportError",
    "ImageError",
    "IntegrityError",
    "ManifestError",
    "Prediction",
    "Result",
    "ShuffleNetError",
    "ShuffleNetV2",
    "Spec",
    "TableError",
    "TrainingError",
    "categories",
    "classifier",
    "deploy",
    "list_weights",
    "preprocess",
    "save",
    "shufflenet_v2_x0_5",
    "shufflenet_v2_x1_0",
    "shufflenet_v2_x1_5",
    "shufflenet_v2_x2_0",
]

_HOMES = {
    "deploy": ".network.deploy",
    "save": ".saving",
    "Classifier": ".inference.classifier",
    "Explanation": ".inference.explain",
    **dict.fromkeys(("Prediction", "Result"), ".inference.stream"),
    **dict.fromkeys(("SPECS", "ShuffleNetV2", "Spec"), ".network.model"),
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = _HOMES.get(name, ".errors" if name.endswith("Error") else ".entrypoints")
    return getattr(importlib.import_module(home, __name__), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
