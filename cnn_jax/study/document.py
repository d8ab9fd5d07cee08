"""What a report says, before it is Markdown or HTML: sections of paragraphs, tables, pictures and commands."""

import dataclasses
import re


@dataclasses.dataclass(frozen=True)
class Code:
    """A name as a program has it, such as a checksum or a path."""

    text: str


@dataclasses.dataclass(frozen=True)
class Link:
    """Words that lead to a file beside the report, or to a place in one."""

    text: str
    target: str


Text = str | tuple[str | Code | Link, ...]
"""Running text. Strings may come from data, so whoever writes them escapes them."""


@dataclasses.dataclass(frozen=True)
class Cell:
    """One cell of a table.

    Attributes:
      text: what it shows.
      order: what its column is sorted by; by default the text.
      verdict: a verdict whose colour it has, if it is one.
    """

    text: Text
    order: float | None = None
    verdict: str = ""


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows of cells, the first of which names its row.

    Attributes:
      caption: what it lists, for those who cannot see it.
      header: of each column.
      rows: as many cells as the header has.
      numbers: the columns that hold numbers, counted from 0; they stand at the right.
    """

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    numbers: frozenset[int] = frozenset()


@dataclasses.dataclass(frozen=True)
class Paragraph:
    """Running text."""

    text: Text


@dataclasses.dataclass(frozen=True)
class Bullets:
    """A list."""

    items: tuple[Text, ...]


@dataclasses.dataclass(frozen=True)
class Commands:
    """Lines for a shell."""

    lines: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Picture:
    """A figure.

    Attributes:
      name: of its files, without the ending.
      alternative: what it shows, for those who cannot see it.
      caption: how it is read.
    """

    name: str
    alternative: str
    caption: str


Block = Table | Paragraph | Bullets | Commands | Picture


@dataclasses.dataclass(frozen=True)
class Section:
    """Blocks below a title.

    Attributes:
      title: a few words.
      blocks: in order.
      warning: whether a reader must not miss it.
    """

    title: str
    blocks: tuple[Block, ...]
    warning: bool = False

    @property
    def anchor(self) -> str:
        """Its name in an address."""
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")


@dataclasses.dataclass(frozen=True)
class Document:
    """A report.

    Attributes:
      over: what stands above the title: which study, at which scale.
      title: of the study.
      claim: as the textbook has it.
      source: where.
      verdict: one word.
      sentence: the verdict with what it rests on.
      sections: in order.
    """

    over: str
    title: str
    claim: str
    source: str
    verdict: str
    sentence: str
    sections: tuple[Section, ...]

    @property
    def headline(self) -> tuple[str, str]:
        """The verdict, and the rest of its sentence."""
        word = self.verdict.capitalize()
        if self.sentence.startswith(word):
            return word, self.sentence.removeprefix(word)
        return f"{word}.", f" {self.sentence}"


def parts(text: Text) -> tuple[str | Code | Link, ...]:
    """Running text as its pieces."""
    return (text,) if isinstance(text, str) else text
