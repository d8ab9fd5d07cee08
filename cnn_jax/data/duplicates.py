"""Images that occur more than once, in one split or in several: leakage."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from cnn_jax.data.inspection import Inspection


class Copies(NamedTuple):
    """Examples with the same image.

    Attributes:
      members: (split, position in it) of each, in the order of the splits.
      leak: they are in more than one split.
      conflict: not all have the same label.
    """

    members: tuple[tuple[str, int], ...]
    leak: bool
    conflict: bool


def find_copies(inspections: Mapping[str, Inspection], *, mirrored: bool) -> list[Copies]:
    """All groups of examples with the same image, those in several splits first, then in the order of the first member.

    The same are images of equal shape whose pixels are all equal; digests of 128 bits stand for them, which differ for
    different images but for a chance of N² · 2⁻¹²⁹. Images that cannot be read are in no group.

    Args:
      inspections: of each split.
      mirrored: instead, groups of images that are the same or each other's mirror image, left to right; only those
        where both occur.
    """
    splits = list(inspections)
    position = np.concatenate([np.flatnonzero(one.readable) for one in inspections.values()])
    split = np.repeat(np.arange(len(splits)), [one.readable.sum() for one in inspections.values()])
    labels = np.concatenate([one.labels[one.readable] for one in inspections.values()])
    digests = np.concatenate([one.digests[one.readable] for one in inspections.values()])
    keys = np.concatenate([one.unturned[one.readable] for one in inspections.values()]) if mirrored else digests
    order = np.lexsort(keys.T)  # stable: the members of a group stay in the order of splits and positions
    starts = np.flatnonzero((np.diff(keys[order], axis=0) != 0).any(axis=1)) + 1
    bounds = np.array([0, *starts, len(order)])
    groups = []
    for group in np.flatnonzero(np.diff(bounds) > 1):
        rows = order[bounds[group] : bounds[group + 1]]
        if mirrored and (digests[rows] == digests[rows[0]]).all():
            continue
        members = tuple((splits[split[row]], int(position[row])) for row in rows)
        leak = split[rows[0]] != split[rows[-1]]
        groups.append((not leak, rows[0], Copies(members, bool(leak), bool((labels[rows] != labels[rows[0]]).any()))))
    return [copies for *_, copies in sorted(groups, key=lambda group: group[:2])]
