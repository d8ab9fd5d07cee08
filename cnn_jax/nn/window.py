"""The geometry of a sliding window, for convolution and pooling: kernel, padding and the size of the output."""

from cnn_jax.errors import ImageTooSmallError, UserError, unknown_name

PADDINGS = ("valid", "same", "full", "reflect")
"""Padding by name. A number pads that many pixels on both sides of every axis, as torch does."""


def per_axis(what: str, value: int | tuple[int, ...], rank: int) -> tuple[int, ...]:
    """A size for every spatial axis, from one number for all or one number for each.

    Args:
      what: what the size is of, for the error: "kernel_size".
      value: the size or sizes, in pixels.
      rank: the number of spatial axes.

    Raises:
      UserError: the number of sizes is not the rank, or a size is below 1.

    Example:
      >>> per_axis("kernel_size", 3, 2)
      (3, 3)
    """
    sizes = (value,) * rank if isinstance(value, int) else tuple(value)
    if len(sizes) != rank:
        raise UserError(f"{what} {sizes} has {len(sizes)} entries, but the input has {rank} spatial axes")
    if min(sizes) < 1:
        raise UserError(f"{what} is {value}; it must be 1 or more")
    return sizes


def pad_amounts(kernel: tuple[int, ...], padding: str | int, *, dilation: int = 1) -> tuple[tuple[int, int], ...]:
    """Pixels to add before and after every spatial axis.

    With `k = dilation * (kernel - 1) + 1`, the pixels that a kernel spans:

    - "valid": none.
    - "same" and "reflect": k - 1 in total, (k - 1) // 2 of them before. The amount does not depend on the size of the
      image or the stride, so n pixels become ceil(n / stride), and for odd k it is torch's `padding=k // 2`. XLA's
      "SAME" differs from it at stride 2 on even sizes, where it pads one pixel less.
    - "full": k - 1 on each side.
    - a number: that many on each side.

    Args:
      kernel: kernel size per spatial axis.
      padding: a name in `PADDINGS`, or a number of pixels.
      dilation: distance between kernel taps.

    Returns:
      `((before, after), ...)` per spatial axis.

    Raises:
      UserError: unknown name, or a negative number.

    Example:
      >>> pad_amounts((3, 4), "same")
      ((1, 1), (1, 2))
    """
    if isinstance(padding, int):
        if padding < 0:
            raise UserError(f"padding is {padding}; it must be 0 or more")
        return tuple((padding, padding) for _ in kernel)
    extra = tuple(dilation * (size - 1) for size in kernel)
    if padding == "valid":
        return tuple((0, 0) for _ in extra)
    if padding in ("same", "reflect"):
        return tuple((amount // 2, amount - amount // 2) for amount in extra)
    if padding == "full":
        return tuple((amount, amount) for amount in extra)
    raise unknown_name("padding", padding, PADDINGS)


def require_output(
    layer: str,
    space: tuple[int, ...],
    kernel: tuple[int, ...],
    padding: str | int,
    *,
    dilation: int = 1,
) -> None:
    """Checks that a window fits at least once into the padded image.

    Args:
      layer: the layer's path, for the error.
      space: the image's size per spatial axis.
      kernel: kernel size per spatial axis.
      padding: as in `pad_amounts`.
      dilation: distance between kernel taps.

    Raises:
      ImageTooSmallError: the output would be empty, or a reflection would need pixels beyond the opposite edge.
    """
    fits = True
    for size, taps, (before, after) in zip(space, kernel, pad_amounts(kernel, padding, dilation=dilation), strict=True):
        spans = dilation * (taps - 1) + 1
        fits = fits and size >= 1 and size + before + after >= spans
        if padding == "reflect":
            fits = fits and max(before, after) < size
    if not fits:
        spread = f", dilation {dilation}" if dilation > 1 else ""
        raise ImageTooSmallError(
            f"layer {layer!r} gets an image of {_times(space)} pixels, too small for its kernel of {_times(kernel)}"
            f" (padding {padding!r}{spread})"
        )


def _times(sizes: tuple[int, ...]) -> str:
    return "×".join(str(size) for size in sizes)
