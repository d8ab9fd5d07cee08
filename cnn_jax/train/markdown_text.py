"""Text from data in Markdown: shown as it is, whatever it says."""

import re
from collections.abc import Iterator, Sequence


def code(text: str) -> str:
    """Text from data as code in a line, whatever marks are in it."""
    text = " ".join(text.split()).replace("|", "\\|")
    if "`" not in text:
        return f"`{text}`"
    fence = "`" * (1 + max(len(run) for run in re.findall("`+", text)))
    return f"{fence} {text} {fence}"


def escape(text: str) -> str:
    r"""Text from data as it is, in one line: nothing in it is a tag, a link, emphasis, a formula or the end of a cell.

    Example:
      >>> print(escape("<b>a|b</b> *c*"))
      &lt;b>a\|b&lt;/b> \*c\*
    """
    text = re.sub(r"([\\`*|~$]|\[(?=\^)|\](?=[(\[:]))", r"\\\1", re.sub(r"\s+", " ", text))
    text = re.sub(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\_", text)
    return text.replace("&", "&amp;").replace("<", "&lt;")


def fenced(lines: Sequence[str], language: str) -> Iterator[str]:
    """Lines of code as a block, whose fence is longer than any in them.

    Args:
      lines: of the code.
      language: that it is in.
    """
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", "\n".join(lines))), default=0))
    yield from (f"{fence}{language}", *lines, fence)
