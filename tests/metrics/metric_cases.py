"""Batches of values whose padding is as bad as it can be, and states as the host keeps them."""

import numpy as np


def make_values(logits, label, loss=None, weight=None):
    """Values in which every example counts; loss 1 and weight 1 unless told."""
    ones = np.ones(len(label), np.float32)
    return {
        "logits": np.asarray(logits, np.float32),
        "label": np.asarray(label, np.int32),
        "mask": ones,
        "loss": ones if loss is None else np.asarray(loss, np.float32),
        "weight": ones if weight is None else np.asarray(weight, np.float32),
    }


def pad_values(values, size):
    """Padding with mask 0 in front and behind: NaN loss and weight, and by turns every way to be counted by mistake.

    Logits are NaN or sure of class 0, labels are no class or class 0, in all four combinations.
    """
    missing = size - len(values["label"])
    turn = np.arange(missing)
    padding = {
        "logits": np.where(turn[:, None] % 2, 1e4 * np.eye(values["logits"].shape[1])[0], np.nan).astype(np.float32),
        "label": np.where(turn // 2 % 2, 0, -7).astype(np.int32),
        "mask": np.zeros(missing, np.float32),
        "loss": np.full(missing, np.nan, np.float32),
        "weight": np.full(missing, np.nan, np.float32),
    }
    front = missing // 2
    return {name: np.concatenate([padding[name][:front], values[name], padding[name][front:]]) for name in values}


def on_host(state):
    """The leaves as the caller keeps them for exact totals: int64 and float64."""
    wide = {"i": np.int64, "f": np.float64}
    return {name: np.asarray(leaf, wide[np.asarray(leaf).dtype.kind]) for name, leaf in state.items()}
