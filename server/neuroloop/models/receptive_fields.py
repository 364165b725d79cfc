"""Where the kernels of a bank lie on the frame.

A kernel of (height, width) at a location covers the rows `y - height // 2` to `y + height // 2 + height % 2`, columns
likewise. Inside the frame that is the crop of openretina; beyond the border, where openretina fails, the frame
counts as zero. A layout holds, once for all frames, the smallest box of the frame that the kernels see
and the pixel of that box under each weight.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroloop.errors import ModelError

Frame = tuple[int, int, int]


def crop(kernel: tuple[int, int], location: tuple[int, int], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Rows y0 to y1 and columns x0 to x1 of a frame of `size` under a kernel, cut off at the border: y0, y1, x0, x1."""
    spans = []
    for extent, centre, limit in zip(kernel, location, size, strict=True):
        first, last = centre - min(extent // 2, centre), centre + min(extent // 2 + extent % 2, limit - centre)
        spans += [int(first), int(last)]
    return spans[0], spans[1], spans[2], spans[3]


def centre(frame: Frame) -> tuple[int, int]:
    """Where a kernel lies unless it is told: (y, x)."""
    return frame[1] // 2, frame[2] // 2


@dataclass(frozen=True, eq=False, slots=True)
class Layout:
    """The box `top, left, height, width` of the frame, and `index`: (cells, channels * kernel pixels) int64.

    An index is that of a pixel in the flattened (channels, height, width) box, or `pixels`, the one after the last,
    for weights beyond the border.
    """

    top: int
    left: int
    height: int
    width: int
    pixels: int
    index: NDArray[np.int64]

    def lay(self, space: NDArray[Any]) -> NDArray[Any]:
        """Kernels (cells, rank, channels, kh, kw) laid over the box: (cells, rank, pixels)."""
        cells, rank = space.shape[:2]
        laid = np.zeros((cells, rank, self.pixels + 1), space.dtype)
        index = np.broadcast_to(self.index[:, None], (cells, rank, self.index.shape[1]))
        np.put_along_axis(laid, index, space.reshape(cells, rank, -1), axis=2)
        return laid[..., : self.pixels]

    def pick(self, frames: NDArray[Any]) -> NDArray[Any]:
        """What lies under the weights, (cells, n, channels * kernel pixels), of (cells, n, channels, height, width)."""
        box = self.cut(frames).reshape(*frames.shape[:2], -1)
        padded = np.concatenate([box, np.zeros_like(box[..., :1])], axis=2)
        return np.take_along_axis(
            padded, np.broadcast_to(self.index[:, None], (*box.shape[:2], self.index.shape[1])), axis=2
        )

    def cut(self, frames: Any) -> Any:
        """The box of frames (..., height, width), numpy or torch."""
        return frames[..., self.top : self.top + self.height, self.left : self.left + self.width]


def lay_out(locations: NDArray[np.int64], kernel: tuple[int, int], frame: Frame) -> Layout:
    """The layout of kernels at locations (cells, 2). Raises ModelError for a location outside the frame."""
    channels, height, width = frame
    outside = (locations < 0).any(axis=1) | (locations >= (height, width)).any(axis=1)
    if outside.any():
        cell = int(outside.argmax())
        y, x = locations[cell]
        raise ModelError(
            f"LNP location of cell {cell}: expected a pixel of a frame of {height} x {width}, got ({y}, {x})"
        )
    rows = locations[:, :1] - kernel[0] // 2 + np.arange(kernel[0])
    columns = locations[:, 1:] - kernel[1] // 2 + np.arange(kernel[1])
    top, left = max(int(rows.min()), 0), max(int(columns.min()), 0)
    box_height, box_width = min(int(rows.max()) + 1, height) - top, min(int(columns.max()) + 1, width) - left
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None, :]
    plane = (rows - top)[:, :, None] * box_width + (columns - left)[:, None, :]
    pixels = channels * box_height * box_width
    index = np.arange(channels)[:, None, None] * (box_height * box_width) + plane[:, None]
    index = np.where(inside[:, None], index, pixels).reshape(len(locations), -1)
    return Layout(top, left, box_height, box_width, pixels, index.astype(np.int64))
