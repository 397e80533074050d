"""A row of a table: what a classifier says of one photo, as plain values under the names of the columns."""

import os
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote_from_bytes, unquote_to_bytes

from ..files import shown
from ..inference.stream import Result
from ..naming import Weights

STANDARD_INPUT = "-"
COLUMNS = {  # of each value but photo and weights there may be none
    "photo": "text", "label": "text", "index": "int", "probability": "float",
    "top_labels": "texts", "top_indices": "ints", "top_probabilities": "floats",
    "error": "text", "width": "int", "height": "int", "weights": "text", "weights_sha256": "text",
}  # fmt: skip
FEATURES = "features"  # a further column: floats of one length

Row = Mapping[str, Any]


def photo_name(photo: Any) -> str:
    """What the column ``photo`` says: the path or address as it was given, ``-`` for standard input.

    A name that is no UTF-8, or begins with ``file:``, is ``file:`` and its bytes as a URL has them (``%E9``), so that
    every name comes back (``photo_path``).
    """
    if hasattr(photo, "read"):
        return STANDARD_INPUT
    name = os.fsdecode(photo)
    try:
        name.encode()
    except UnicodeEncodeError:
        return f"file:{quote_from_bytes(os.fsencode(name))}"
    return f"file:{quote_from_bytes(name.encode())}" if _is_written(name) else name


def photo_path(name: str) -> str:
    """The path or address of which ``photo_name`` made ``name``."""
    return os.fsdecode(unquote_to_bytes(name[5:])) if _is_written(name) else name


def _is_written(name: str) -> bool:
    return name.startswith("file:") and not name.startswith("file://")  # an address is one already


def to_row(result: Result, name: str, weights: Weights, features: bool = False) -> dict[str, Any]:
    """One photo, under the names of ``COLUMNS``, and with ``features`` of ``FEATURES``."""
    first = result.predictions[0] if result.predictions else None
    width, height = result.size or (None, None)
    tops = [[each[field] for each in result.predictions] for field in (0, 2, 1)]
    best = (first.label, first.index, first.probability) if first else (None,) * 3
    error = str(result.error) if result.error else None
    values = (name, *best, *tops, error, width, height, shown(weights.title), weights.sha256)
    row: dict[str, Any] = dict(zip(COLUMNS, values, strict=True))
    if features:
        row[FEATURES] = None if result.features is None else result.features.tolist()
    return row
