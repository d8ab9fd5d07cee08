"""What makes another split of a split: folds, subsets, label noise, a long tail; `WRAPPERS` is the table of configs.

A wrapper is a pure function `(indices, labels, *, options) -> (indices, labels)`: indices in the base split, int64
`[N]`, and class indices, int32 `[N]`; examples that are left keep their order. Each example's random number is a
function of (wrapper, seed, its index in the base split) alone, so it does not depend on the order or the slice of the
split, and what is selected with more is a superset of what is selected with less. The classes are those that are there.
"""

import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
from jaxtyping import Float, Int
from pydantic import Field

from cnn_jax.errors import UserError

Indices = Int[np.ndarray, "N"]
Labels = Int[np.ndarray, "N"]
Selected = tuple[Int[np.ndarray, "M"], Int[np.ndarray, "M"]]
Seed = Annotated[int, Field(ge=0, lt=2**63)]


def fold(
    indices: Indices,
    labels: Labels,
    *,
    folds: Annotated[int, Field(ge=2)],
    fold: Annotated[int, Field(ge=0)],
    part: Literal["train", "validation"],
    seed: Seed = 0,
) -> Selected:
    """One part of stratified k-fold cross-validation.

    Put it before wrappers that change labels or leave examples out: its folds depend on both. Each example is in the
    validation part of exactly one fold. The sizes of folds differ by at most 1, and so do the
    numbers of each class in them.

    Args:
      indices: in the base split.
      labels: class indices.
      folds: how many, k.
      fold: which one, from 0.
      part: "validation" is the fold, "train" all the others.
      seed: of the division.

    Raises:
      UserError: there is no such fold, or there are fewer examples than folds.
    """
    if fold >= folds:
        raise UserError(f"fold: fold is {fold}; {folds} folds are counted from 0 to {folds - 1}")
    if folds > len(indices):
        raise UserError(f"fold: {folds} folds of {len(indices)} examples; take fewer")
    assigned = np.empty(len(indices), np.int64)
    first = 0  # where one class stops the next one goes on, so that the remainders do not all fall on fold 0
    for members in _classes_in_order(indices, labels, purpose="fold", seed=seed):
        assigned[members] = (first + np.arange(len(members))) % folds
        first += len(members)
    keep = (assigned == fold) == (part == "validation")
    return indices[keep], labels[keep]


def class_subset(
    indices: Indices, labels: Labels, *, per_class: Annotated[int, Field(ge=1)], seed: Seed = 0
) -> Selected:
    """The same number of random examples of each class.

    Args:
      indices: in the base split.
      labels: class indices.
      per_class: examples of each class.
      seed: of the choice.

    Raises:
      UserError: a class has fewer.
    """
    classes = _classes_in_order(indices, labels, purpose="class_subset", seed=seed)
    for members in classes:
        if len(members) < per_class:
            raise UserError(
                f"class_subset: class {labels[members[0]]} has {len(members)} examples; set per_class to at most that"
            )
    return _only(indices, labels, [members[:per_class] for members in classes])


def fraction(
    indices: Indices, labels: Labels, *, share: Annotated[float, Field(gt=0, le=1)], seed: Seed = 0
) -> Selected:
    """A random share of each class, rounded, at least one example.

    Args:
      indices: in the base split.
      labels: class indices.
      share: of each class that is kept.
      seed: of the choice.
    """
    classes = _classes_in_order(indices, labels, purpose="fraction", seed=seed)
    return _only(indices, labels, [members[: max(1, round(share * len(members)))] for members in classes])


def long_tail(indices: Indices, labels: Labels, *, ratio: Annotated[float, Field(ge=1)], seed: Seed = 0) -> Selected:
    """An imbalance that is exponential in the class index: of K classes number k keeps n·ratio^(-k/(K-1)) examples.

    Rounded down, at least 1; n is the size of the largest class, and a class that has fewer than its number keeps all.
    So the first class of a balanced set is `ratio` times as large as the last one. Cui et al. 2019, section 5.1.

    Args:
      indices: in the base split.
      labels: class indices.
      ratio: of the largest class to the smallest.
      seed: of the choice.
    """
    classes = _classes_in_order(indices, labels, purpose="long_tail", seed=seed)
    largest = max((len(members) for members in classes), default=0)
    # The smallest addition keeps 5000 · 100^-1 = 50 from becoming 49.999….
    counts = [
        max(1, int(largest * ratio ** (-number / max(len(classes) - 1, 1)) + 1e-9)) for number in range(len(classes))
    ]
    return _only(indices, labels, [members[:count] for members, count in zip(classes, counts, strict=True)])


def label_noise(
    indices: Indices,
    labels: Labels,
    *,
    rate: Annotated[float, Field(ge=0, le=1)],
    kind: Literal["symmetric", "pair"] = "symmetric",
    seed: Seed = 0,
) -> Selected:
    """Wrong labels: of each class with n examples, round(rate · n) random ones get another class; all examples stay.

    Args:
      indices: in the base split.
      labels: class indices.
      rate: the share of each class whose labels become wrong.
      kind: "symmetric" takes any other class, each as likely; "pair" the next one, behind the last the first
        (Han et al. 2018, section 4).
      seed: of the choice.

    Raises:
      UserError: there is only one class.
    """
    present = np.unique(labels)
    if len(present) < 2:
        raise UserError(f"label_noise: all labels are {present[:1].tolist()}; there is no other class")
    noisy = labels.copy()
    steps = np.ones(len(labels), np.int64)
    if kind == "symmetric":
        numbers = _numbers(indices, purpose="label_noise/class", seed=seed)
        steps += (numbers * (len(present) - 1)).astype(np.int64)
    for number, members in enumerate(_classes_in_order(indices, labels, purpose="label_noise", seed=seed)):
        chosen = members[: round(rate * len(members))]
        noisy[chosen] = present[(number + steps[chosen]) % len(present)]
    return indices, noisy


def shuffled_labels(indices: Indices, labels: Labels, *, seed: Seed = 0) -> Selected:
    """The labels in a random order: as many of each class, and nothing to learn. A control (Zhang et al. 2017).

    Args:
      indices: in the base split.
      labels: class indices.
      seed: of the order.
    """
    return indices, labels[np.argsort(_numbers(indices, purpose="shuffled_labels", seed=seed), kind="stable")]


WRAPPERS: dict[str, Callable[..., Selected]] = {
    "fold": fold,
    "class_subset": class_subset,
    "fraction": fraction,
    "long_tail": long_tail,
    "label_noise": label_noise,
    "shuffled_labels": shuffled_labels,
}


def apply_wrappers(indices: Indices, labels: Labels, wrappers: Sequence[Mapping[str, Any]]) -> Selected:
    """Apply `{name, **options}` nodes of WRAPPERS in order."""
    for node in wrappers:
        options = {name: value for name, value in node.items() if name != "name"}
        indices, labels = WRAPPERS[node["name"]](indices, labels, **options)
    return indices, labels


def describe_wrappers(wrappers: Sequence[Mapping[str, Any]]) -> str:
    """The wrappers with their options, to go behind the name of a split; nothing where there is none.

    Example:
      >>> describe_wrappers([{"name": "class_subset", "per_class": 10, "seed": 0}])
      ' | class_subset(per_class=10, seed=0)'
    """
    parts = []
    for node in wrappers:
        options = ", ".join(f"{name}={value!r}" for name, value in node.items() if name != "name")
        parts.append(f" | {node['name']}({options})")
    return "".join(parts)


def _numbers(indices: Indices, *, purpose: str, seed: int) -> Float[np.ndarray, "N"]:
    """One uniform number in [0, 1) for each example, a function of (purpose, seed, index) alone."""
    generator = np.random.Generator(np.random.Philox(key=np.array([seed, zlib.crc32(purpose.encode())], np.uint64)))
    return generator.random(int(indices.max(initial=-1)) + 1)[indices]


def _classes_in_order(indices: Indices, labels: Labels, *, purpose: str, seed: int) -> list[Int[np.ndarray, "_"]]:
    """For each class that is there, ascending, the positions of its examples in the order of their random numbers."""
    order = np.lexsort((indices, _numbers(indices, purpose=purpose, seed=seed), labels))
    _, starts = np.unique(labels[order], return_index=True)
    return np.split(order, starts[1:])


def _only(indices: Indices, labels: Labels, chosen: list[Int[np.ndarray, "_"]]) -> Selected:
    """The examples at the chosen positions, in their order."""
    keep = np.sort(np.concatenate(chosen))
    return indices[keep], labels[keep]
