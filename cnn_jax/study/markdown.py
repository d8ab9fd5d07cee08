"""A report as Markdown, as code hosts show it."""

import re
from collections.abc import Iterator

from cnn_jax.study.document import (
    Block,
    Bullets,
    Code,
    Commands,
    Document,
    Link,
    Paragraph,
    Picture,
    Table,
    Text,
    parts,
)


def render_markdown(document: Document, *, figures: str) -> str:
    """The report's text.

    Args:
      document: what it says.
      figures: the folder of PNG files, from the report.
    """
    lines = [f"# {escape(document.title)}", "", f"{escape(document.over)}.", ""]
    source = f" ({escape(document.source)})" if document.source else ""
    lines += [f"> {_line(document.claim)}{source}", ""]
    verdict, rest = document.headline
    lines += [f"**{verdict}**{escape(rest)}", ""]
    for section in document.sections:
        lines += [f"## {escape(section.title)}", ""]
        for block in section.blocks:
            lines += [*_block(block, figures), ""]
    return "\n".join(lines).rstrip("\n") + "\n"


def _block(block: Block, figures: str) -> Iterator[str]:
    if isinstance(block, Paragraph):
        yield _line(block.text)
    elif isinstance(block, Bullets):
        yield from (f"- {_line(item)}" for item in block.items)
    elif isinstance(block, Commands):
        # A fence longer than any in the text.
        fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", "\n".join(block.lines))), default=0))
        yield from (f"{fence}sh", *block.lines, fence)
    elif isinstance(block, Picture):
        yield from (f"![{escape(block.alternative)}]({figures}/{block.name}.png)", "", _line(block.caption))
    else:
        yield from _table(block)


def _table(table: Table) -> Iterator[str]:
    yield "| " + " | ".join(escape(title) for title in table.header) + " |"
    yield "|" + "|".join("---:" if place in table.numbers else "---" for place in range(len(table.header))) + "|"
    for row in table.rows:
        yield "| " + " | ".join(inline(cell.text) for cell in row) + " |"


def inline(text: Text) -> str:
    """Running text with code and links."""
    shown = []
    for part in parts(text):
        if isinstance(part, Code):
            shown.append(_code(part.text))
        elif isinstance(part, Link):
            shown.append(f"[{escape(part.text)}]({part.target.replace(' ', '%20')})")
        else:
            shown.append(escape(part))
    return "".join(shown)


def _code(text: str) -> str:
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


def _line(text: Text) -> str:
    """Running text on a line of its own, which is no heading, quotation or list."""
    return re.sub(
        r"^([#>+=-])|^(\d+)(?=[.)] )", lambda found: f"{found[2] or ''}\\{found[1] or ''}", inline(text).strip()
    )
