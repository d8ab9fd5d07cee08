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
from cnn_jax.train.markdown_text import code, escape, fenced


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
        yield from fenced(block.lines, "sh")
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
            shown.append(code(part.text))
        elif isinstance(part, Link):
            shown.append(f"[{escape(part.text)}]({part.target.replace(' ', '%20')})")
        else:
            shown.append(escape(part))
    return "".join(shown)


def _line(text: Text) -> str:
    """Running text on a line of its own, which is no heading, quotation or list."""
    return re.sub(
        r"^([#>+=-])|^(\d+)(?=[.)] )", lambda found: f"{found[2] or ''}\\{found[1] or ''}", inline(text).strip()
    )
