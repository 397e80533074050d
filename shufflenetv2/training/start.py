"""The network before the first epoch: weights are fetched and fitted to the classes, or random ones are drawn."""

from collections.abc import Sequence

import torch
from torch import nn

from ..builder import Weights, build
from ..description import Category, Description
from ..network.model import ShuffleNetV2
from ..package import logger
from ..photos.folders import composed, named
from ..photos.listing import Told


def beginning(
    source: Weights | None, description: Description, seed: int, progress: bool, told: Told = lambda line: None
) -> ShuffleNetV2:
    """The network that training begins with.

    Args:
        source: weights to start from; ``None`` draws random ones.
        description: of the model to come.
        seed: of what is drawn.
        progress: whether fetching weights shows a bar.
        told: is given a line if weights of as many classes get a new classifier.
    """
    torch.manual_seed(seed)
    count, small_stem = len(description.categories), description.small_stem
    model = build(description.arch, source, progress=progress, num_classes=count, in_channels=3, small_stem=small_stem)
    assert isinstance(model, ShuffleNetV2)
    if source and source.num_classes == count:
        _fit_head(model, source, description.categories, told)
    return model


def _fit_head(model: ShuffleNetV2, source: Weights, categories: Sequence[str], told: Told) -> None:
    """Weights of these classes keep their classifier, its rows in this order; others get a new one.

    The tensors of ``source`` stay as they are: a run knows its weights by them.
    """
    rows = rows_of(categories, source.classes)
    if rows == list(range(len(categories))):
        return
    head = nn.Linear(model.spec.head_channels, len(categories))
    if rows:
        head.load_state_dict({key: value[rows] for key, value in model.fc.state_dict().items()})
        logger.info("the classifier of %s was put into the order of the folders", source.title)
    elif source.classes:
        told(f"{source.title} knows other classes than the folders: the classifier begins anew")
    else:
        told(
            f"{source.title} does not say its classes, which may be others than the folders: the classifier begins "
            "anew; a file that says them, as save(..., categories=[...]) writes it, keeps its own"
        )
    model.fc = head


def rows_of(categories: Sequence[str], classes: Sequence[Category]) -> list[int]:
    """Where each of ``categories`` is among ``classes``, by label or WordNet id; empty if these are not the same."""
    places = named(classes)
    found = [places.get(composed(each), []) for each in categories]
    rows = [each[0] for each in found if len(each) == 1]
    return rows if sorted(rows) == list(range(len(categories))) == list(range(len(classes))) else []
