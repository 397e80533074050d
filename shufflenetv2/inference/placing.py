"""How the small map of an explanation is laid out over the pixels of its photo."""

import math
from typing import NamedTuple

import torch
from torch import Tensor


class Placing(NamedTuple):
    """How a map is laid out over the rows and columns of a photo."""

    rows: Tensor  # weights (H, h) of the map's rows
    columns: Tensor  # (W, w)
    seen_rows: Tensor  # bool (H,)
    seen_columns: Tensor

    def band(self, start: int, end: int) -> "Placing":
        """Of these rows of the photo alone."""
        return self._replace(rows=self.rows[start:end], seen_rows=self.seen_rows[start:end])

    def seen(self) -> Tensor:
        return self.seen_rows[:, None] & self.seen_columns

    def heatmap(self, map: Tensor) -> Tensor:
        return (self.rows @ map.float() @ self.columns.T).mul_(self.seen())


def placed(map: Tensor, crop: int, frame: tuple[float, float, float, float], size: tuple[int, int]) -> Placing:
    """For a photo of ``size``, of whose ``frame`` the network saw ``crop`` pixels a side."""
    width, height = size
    down, across = map.shape
    # A convolution of stride 2 looks around every second position, the first included, so that position k of the map
    # looks around pixel k * stride of the crop, whose own centre lies half a pixel on.
    stride_down, stride_across = (2 ** math.ceil(math.log2(crop / count)) for count in (down, across))
    left, top, right, bottom = frame
    scale_x, scale_y = (right - left) / crop, (bottom - top) / crop
    rows = between(height, top + scale_y / 2, scale_y * stride_down, down)
    columns = between(width, left + scale_x / 2, scale_x * stride_across, across)
    return Placing(rows, columns, _inside(height, top, bottom), _inside(width, left, right))


def between(length: int, first: float, step: float, count: int) -> Tensor:
    """Weights ``(length, count)`` of ``count`` values, ``step`` pixels apart, for each of ``length`` pixels."""
    places = ((_numbers(length) + 0.5 - first) / step).clamp(0, count - 1)
    return (1 - (places[:, None] - _numbers(count)).abs()).clamp(min=0)


def _inside(length: int, low: float, high: float) -> Tensor:
    centres = _numbers(length) + 0.5
    return (centres >= low) & (centres < high)


def _numbers(count: int) -> Tensor:
    return torch.arange(count, dtype=torch.float32, device="cpu")  # where the map is, whatever the default device
