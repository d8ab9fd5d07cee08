"""Names and layouts of torch's tensors: rules that lead from our variables to them, as plain data."""

import dataclasses
import math
import re
from collections.abc import Iterable, Mapping

import numpy as np

LEAVES = {
    ("params", "kernel"): "weight",
    ("params", "scale"): "weight",
    ("params", "bias"): "bias",
    ("batch_stats", "mean"): "running_mean",
    ("batch_stats", "var"): "running_var",
}
"""(our collection, our leaf) -> torch's leaf. A leaf that is not here is named by its rule alone."""


class Index(int):
    """A number in a name, which a template can shift: `"{0:-1}"` is one less, `"{0:+2}"` two more.

    Example:
      >>> "layer{0}.{1:-1}".format(Index(2), Index(1))
      'layer2.0'
    """

    def __format__(self, shift: str) -> str:
        """The number plus the shift."""
        return str(int(self) + int(shift or 0))


@dataclasses.dataclass(frozen=True)
class Rule:
    """How torch names a module of ours.

    Attributes:
      ours: regular expression for all of the module's path; its groups are numbers or words.
      torch: template of torch's name; `{0}` is the first group, `{0:-1}` that number less one. For a leaf that `LEAVES`
        does not have, it is the name of the tensor.
      flattened: for a dense layer behind a flattened map, the space of that map: torch flattens `[C, *space]`, we
        `[*space, C]`.
      trailing: axes of size 1 that torch's tensor has behind our vector, or behind our matrix where torch has a 1×1
        convolution and we a dense layer; a bias has none.
    """

    ours: str
    torch: str
    flattened: tuple[int, ...] = ()
    trailing: int = 0

    def name(self, module: str) -> str | None:
        """The torch name of this module, None if the rule is not for it."""
        match = re.fullmatch(self.ours, module)
        if match is None:
            return None
        return self.torch.format(*(Index(group) if group.isdecimal() else group for group in match.groups("")))


@dataclasses.dataclass(frozen=True)
class KeyMap:
    """How a reference implementation names the parameters of a family.

    Attributes:
      rules: the first that fits a module names it.
      heads: our modules whose size is the number of classes; the first one is asked for it.
      stem: our first convolution, whose kernel has the image's channels.
      auxiliary: regular expression for keys of a part that our model has only if it is asked for.
      image: space of an image on which the model is traced for the shapes of its variables.
      former: regular expressions for parts of keys in older published files, and what stands there today.
    """

    rules: tuple[Rule, ...]
    heads: tuple[str, ...] = ("head/output",)
    stem: str = "backbone/stem/conv"
    auxiliary: str = ""
    image: tuple[int, ...] = (224, 224)
    former: tuple[tuple[str, str], ...] = ()

    def ignores(self, key: str) -> bool:
        """Whether a key of torch's has no counterpart, and needs none."""
        return _counts_batches(key) or self.is_auxiliary(key)

    def is_auxiliary(self, key: str) -> bool:
        """Whether a key of torch's is of a part that our model has only if it is asked for."""
        return re.fullmatch(self.auxiliary, key) is not None and not _counts_batches(key)

    def current(self, key: str) -> str:
        """Today's name of a key."""
        for pattern, replacement in self.former:
            key = re.sub(pattern, replacement, key)
        return key

    def find(self, path: str) -> tuple[str, Rule] | None:
        """(torch's key, its rule) of a leaf such as `params/backbone/stem/conv/kernel`; None without a rule."""
        collection, _, rest = path.partition("/")
        module, _, leaf = rest.rpartition("/")
        for rule in self.rules:
            name = rule.name(module)
            if name is not None:
                torch_leaf = LEAVES.get((collection, leaf))
                return (f"{name}.{torch_leaf}" if torch_leaf else name), rule
        return None

    def keys(self, paths: Iterable[str]) -> Mapping[str, tuple[str, Rule] | None]:
        """`find` of every path."""
        return {path: self.find(path) for path in paths}


class LayoutError(ValueError):
    """A tensor has not the axes that a layout needs; the message says which."""


def to_ours(value: np.ndarray, path: str, rule: Rule) -> np.ndarray:
    """A torch tensor in our layout: kernels `[O, I, *k]` become `[*k, I, O]`, dense ones `[O, I]` become `[I, O]`.

    Raises:
      LayoutError: the tensor has too few axes, others than of size 1 behind, or a size that the space does not divide.
    """
    kernel, trailing, space = path.endswith("/kernel"), _trailing(path, rule), math.prod(rule.flattened)
    least = trailing + (2 if kernel else 0)
    if value.ndim < least:
        raise LayoutError(f"it needs {least} axes")
    if any(size != 1 for size in value.shape[value.ndim - trailing :]):
        raise LayoutError(f"its last {trailing} axes must be of size 1")
    value = value.reshape(value.shape[: value.ndim - trailing])  # [C, 1, ...] -> [C], [O, I, 1, ...] -> [O, I]
    if not kernel:
        return value
    if rule.flattened:
        if value.ndim != 2 or value.shape[1] % space:
            raise LayoutError(f"it needs 2 axes, the second a multiple of {space}")
        # [O, C * space] -> [O, C, *space] -> [*space, C, O] -> [space * C, O]
        classes, width = value.shape
        value = np.moveaxis(value.reshape(classes, width // space, *rule.flattened), (1, 0), (-2, -1))
        return value.reshape(width, classes)
    return np.moveaxis(value, (1, 0), (-2, -1))


def to_theirs(value: np.ndarray, path: str, rule: Rule) -> np.ndarray:
    """Our array in torch's layout, the inverse of `to_ours`; its shape must be that of the model's variable."""
    ones = (1,) * _trailing(path, rule)
    if not path.endswith("/kernel"):
        return value.reshape(*value.shape, *ones)  # [C] -> [C, 1, ...]
    if rule.flattened:
        # [space * C, O] -> [*space, C, O] -> [O, C, *space] -> [O, C * space]
        value = np.moveaxis(value.reshape(*rule.flattened, -1, value.shape[-1]), (-2, -1), (1, 0))
        return np.ascontiguousarray(value.reshape(len(value), -1))
    value = np.moveaxis(value, (-2, -1), (1, 0))
    return np.ascontiguousarray(value.reshape(*value.shape, *ones))  # [O, I] -> [O, I, 1, ...]


def _counts_batches(key: str) -> bool:
    """Whether it is torch's count of the batches that statistics are of."""
    return key.endswith(".num_batches_tracked")


def _trailing(path: str, rule: Rule) -> int:
    """Axes of size 1 that torch's tensor has behind ours."""
    return 0 if path.endswith("/bias") else rule.trailing
