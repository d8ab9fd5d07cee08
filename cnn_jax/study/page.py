"""The report as one HTML file that loads nothing: style, script and figures are inside it."""

import html
import math
import re
from collections.abc import Iterator, Mapping

from cnn_jax.study.document import (
    Block,
    Bullets,
    Cell,
    Code,
    Commands,
    Document,
    Link,
    Paragraph,
    Picture,
    Section,
    Table,
    Text,
    parts,
)
from cnn_jax.study.drawing import PALETTE
from cnn_jax.study.page_style import SCRIPT, STYLE

POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
"""What a browser may load for the page: nothing."""
ADDRESS = re.compile(r"https?://[^\s<>\"']*[^\s<>\"'.,;:)\]]")


def render_page(document: Document, *, figures: Mapping[str, bytes], runs: Table) -> str:
    """The page's text.

    Args:
      document: what it says.
      figures: name to SVG, as `drawing.to_svg` makes it.
      runs: every run, which the page can unfold; it may be mailed without `results.csv`.
    """
    title = html.escape(document.title)
    verdict, rest = document.headline
    lines = [
        "<!DOCTYPE html>",
        '<html lang="en">',
        "<head>",
        '<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{title}</title>",
        f"<style>{STYLE}</style>",
        "</head>",
        "<body>",
        "<main>",
        "<header>",
        f'<p class="over">{html.escape(document.over)}</p>',
        f"<h1>{title}</h1>",
        f"<blockquote><p>{_linked(document.claim)}</p>{_source(document)}</blockquote>",
        f'<div class="card {document.verdict}"><p><span class="verdict">{verdict}</span>{html.escape(rest)}</p></div>',
        *(line for section in document.sections if section.warning for line in _warning(section)),
        *_contents(document),
        "</header>",
    ]
    for section in document.sections:
        if not section.warning:
            lines += [f'<section aria-labelledby="{section.anchor}">', f'<h2 id="{section.anchor}">']
            lines[-1] += f"{html.escape(section.title)}</h2>"
            for block in section.blocks:
                lines += _block(block, figures)
            lines.append("</section>")
    lines += ["<details>", "<summary>Every run</summary>", *_table(runs), "</details>"]
    lines += ["</main>", f"<script>{SCRIPT}</script>", "</body>", "</html>"]
    return "\n".join(lines) + "\n"


def _source(document: Document) -> str:
    return f"<cite>{_linked(document.source)}</cite>" if document.source else ""


def _warning(section: Section) -> Iterator[str]:
    yield '<div class="card warning" role="note">'
    yield f"<h2>{html.escape(section.title)}</h2>"
    for block in section.blocks:
        yield from _block(block, {})
    yield "</div>"


def _contents(document: Document) -> Iterator[str]:
    yield '<nav aria-label="Contents"><ul>'
    for section in document.sections:
        if not section.warning:
            yield f'<li><a href="#{section.anchor}">{html.escape(section.title)}</a></li>'
    yield "</ul></nav>"


def _block(block: Block, figures: Mapping[str, bytes]) -> Iterator[str]:
    if isinstance(block, Paragraph):
        yield f"<p>{_inline(block.text)}</p>"
    elif isinstance(block, Bullets):
        yield "<ul>"
        yield from (f"<li>{_inline(item)}</li>" for item in block.items)
        yield "</ul>"
    elif isinstance(block, Commands):
        yield f"<pre>{html.escape(chr(10).join(block.lines))}</pre>"
    elif isinstance(block, Picture):
        alternative = html.escape(block.alternative)
        yield "<figure>"
        yield f'<div class="scroll" tabindex="0" role="group" aria-label="{alternative}">'
        yield inline_svg(figures[block.name].decode("utf-8"), prefix=block.name, alternative=block.alternative)
        yield f"</div><figcaption>{html.escape(block.caption)}</figcaption>"
        yield "</figure>"
    else:
        yield from _table(block)


def _table(table: Table) -> Iterator[str]:
    caption = html.escape(table.caption)
    yield f'<div class="scroll" tabindex="0" role="group" aria-label="{caption}">'
    yield f'<table class="sortable" aria-label="{caption}">'
    heads = (f'<th scope="col"{_number(place, table)}>{html.escape(t)}</th>' for place, t in enumerate(table.header))
    yield f"<thead><tr>{''.join(heads)}</tr></thead>"
    yield "<tbody>"
    for row in table.rows:
        yield f"<tr>{''.join(_cell(cell, place, table) for place, cell in enumerate(row))}</tr>"
    yield "</tbody></table></div>"


def _number(place: int, table: Table) -> str:
    return ' class="number"' if place in table.numbers else ""


def _cell(cell: Cell, place: int, table: Table) -> str:
    order = f' data-order="{cell.order!r}"' if cell.order is not None and math.isfinite(cell.order) else ""
    content = _inline(cell.text)
    if cell.verdict:
        content = f'<span class="verdict {cell.verdict}">{content}</span>'
    if place == 0:
        return f'<th scope="row"{order}>{content}</th>'
    return f"<td{_number(place, table)}{order}>{content}</td>"


def _inline(text: Text) -> str:
    """Running text with code and links."""
    shown = []
    for part in parts(text):
        if isinstance(part, Code):
            shown.append(f"<code>{html.escape(part.text)}</code>")
        elif isinstance(part, Link):
            shown.append(f'<a href="{html.escape(part.target)}">{html.escape(part.text)}</a>')
        else:
            shown.append(_linked(part))
    return "".join(shown)


def _linked(text: str) -> str:
    """Text from data as it is, its addresses as links."""
    shown, end = [], 0
    for found in ADDRESS.finditer(text):
        address = html.escape(found[0])
        shown += [html.escape(text[end : found.start()]), f'<a href="{address}">{address}</a>']
        end = found.end()
    return "".join([*shown, html.escape(text[end:])])


def inline_svg(svg: str, *, prefix: str, alternative: str) -> str:
    """An SVG file of `drawing.to_svg` as a part of a page, in the page's colours.

    Args:
      svg: the file's text.
      prefix: of its ids, which must differ from those of the page's other figures.
      alternative: what it shows, for those who cannot see it.
    """
    svg = re.sub(r"<metadata>.*?</metadata>|<style[^>]*>.*?</style>|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = svg[svg.index("<svg") :].strip()
    used = frozenset(first or second for first, second in re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', svg))
    head, rest = svg.split(">", 1)
    head = re.sub(r'\s(?:width|height)="[^"]*"', "", head)
    head += f' role="img" aria-label="{html.escape(alternative)}"'
    # Only tags: what labels say stays as it is.
    return re.sub(r"<[^>]*>", lambda tag: _inline_tag(tag[0], prefix, used), f"{head}>{rest}")


def _inline_tag(tag: str, prefix: str, used: frozenset[str]) -> str:
    """A tag without what only a file of its own needs; ids that nothing refers to are dropped."""
    tag = re.sub(r'\s(?:xmlns(?::\w+)?|version)="[^"]*"', "", tag).replace("xlink:href=", "href=")
    tag = re.sub(r'\sid="([^"]*)"', lambda found: f' id="{prefix}-{found[1]}"' if found[1] in used else "", tag)
    tag = re.sub(r'(href="#|url\(#)', rf"\1{prefix}-", tag)
    for role, colour in PALETTE.items():
        tag = tag.replace(colour, f"var(--{role})")
    return tag
