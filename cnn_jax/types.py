"""Axes, units and names that hold everywhere in cnn_jax, stated once.

Axes: channels last, `[B, *space, C]`; `space` has one, two or three axes. In shape annotations `B` is the batch, `C`
the channels, `K` the classes and `*space` the spatial axes.

Units: images enter as uint8 in [0, 255], become float32 in [0, 1] and are then normalised. Boxes are
`(y0, x0, y1, x1)` in input pixels. Labels are int32 in `[0, K)`.

Batch: a dictionary of arrays with leading axis B. It always has `mask`, float32 `[B]`: 1 for an example that counts,
0 for padding. Training batches also have `id` and `epoch`, int32 `[B]`: which example of the training split, in which
pass over it. For tasks that have them, `boxes` is float32 `[B, N, 4]`, (0, 0, 0, 0) where there are fewer than N, and
`segmentation` is int32 `[B, H, W]` in `[0, K)`, 255 where the class is unknown or outside of the image: augmentations
move both with the pixels. Where examples were mixed, `target`, float32 `[B, K]`, has the probabilities of the classes,
each row with the sum 1: that is what is learnt, and `label` is the class of the example whose `id` it is.
"""

from collections.abc import Mapping
from typing import Any, TypeAlias

import jax
import numpy as np

Array: TypeAlias = jax.Array | np.ndarray
"""A device array or a host array: what pure functions here accept."""

Batch: TypeAlias = Mapping[str, Any]
"""`{"image": uint8[B, *space, C], "label": int32[B], "mask": float32[B], ...}`."""

PyTree: TypeAlias = Any
"""Nested dictionaries, tuples and dataclasses with arrays as leaves."""

Leaf: TypeAlias = Any
"""An array field of a pytree class: transformations put shapes, shardings, host arrays or None in its place, so only
the class's docstring, not a run-time check, can say what it is."""
