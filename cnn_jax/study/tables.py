"""`results.csv`: a row for each run of a study, with every number in full."""

import csv
import io
import itertools
import json
import os
import pathlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from cnn_jax.errors import UserError
from cnn_jax.study.outcome import COUNTED, RunRow
from cnn_jax.train.config_file import plain
from cnn_jax.untrusted import parse_json, read_regular

RESULTS = "results.csv"
COLUMNS = ("variant", "seed", "status", "key", "commit", "hardware", "data", "chosen", "message")
"""Those that every file has; behind them stands one for each number."""
STATUSES = (*COUNTED, "diverged", "failed", "missing")
REMEDY = "write the report again from the runs"


def write_results(path: str | os.PathLike[str], rows: Iterable[RunRow]) -> None:
    """Write one line for each run, in the order given; the same rows give the same bytes.

    Args:
      path: of `results.csv`.
      rows: their numbers are written in full: reading gives back the same floats. A None is an empty cell.
    """
    rows = tuple(rows)
    names = sorted({name for row in rows for name in row.values})
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, lineterminator="\n")
    # Before Python 3.13 a lone carriage return is not quoted, and would be read as the end of the row.
    quoting = csv.writer(stream, lineterminator="\n", quoting=csv.QUOTE_ALL)
    for cells in ((*COLUMNS, *names), *(_cells(row, names) for row in rows)):
        (quoting if any("\r" in cell for cell in cells) else writer).writerow(cells)
    replace_file(pathlib.Path(path), stream.getvalue())


def read_results(path: str | os.PathLike[str]) -> list[RunRow]:
    """The rows that `write_results` wrote; a number that is None or absent there is absent here.

    Raises:
      UserError: the file is missing, or damaged; names line and column.
    """
    path = pathlib.Path(path)
    lines = _lines(path)
    line, header = next(lines, (1, []))
    if tuple(header[: len(COLUMNS)]) != COLUMNS:
        found = next((f for f, wanted in itertools.zip_longest(header, COLUMNS) if f != wanted), None)
        wanted = next(w for w, f in itertools.zip_longest(COLUMNS, header) if f != w)
        raise UserError(f"{path}: line {line}: column {wanted!r} is not there, but {found!r}; {REMEDY}")
    names = header[len(COLUMNS) :]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"{path}: line {line}: column {name!r} is there twice; {REMEDY}")
    rows: dict[tuple[str, int], RunRow] = {}
    for line, cells in lines:
        if len(cells) != len(header):
            column = f"column {header[len(cells)]!r} is the first without a cell" if len(cells) < len(header) else ""
            more = column or f"the cell {cells[len(header)]!r} has no column"
            raise UserError(f"{path}: line {line} has {len(cells)} cells, not {len(header)}: {more}; {REMEDY}")
        row = _row(f"{path}: line {line}", cells, names)
        if (row.variant, row.seed) in rows:
            raise UserError(f"{path}: line {line}, column 'seed': {row.variant!r} has seed {row.seed} twice; drop one")
        rows[row.variant, row.seed] = row
    return list(rows.values())


def _cells(row: RunRow, names: Sequence[str]) -> tuple[str, ...]:
    """A row's texts, those of its numbers last."""
    numbers = (row.values.get(name) for name in names)
    return (
        *(row.variant, str(row.seed), row.status, row.key, row.commit, row.hardware),
        *(_json(row.data), _json(row.chosen), row.message),
        *("" if number is None else repr(float(number)) for number in numbers),
    )


def _json(value: Mapping[str, Any]) -> str:
    """An object in one line; without a value an empty cell."""
    return json.dumps(plain(value), sort_keys=True, ensure_ascii=False) if value else ""


def _lines(path: pathlib.Path) -> Iterator[tuple[int, list[str]]]:
    """(number of its first line, cells) of each row."""
    text = _text(path)
    if text and not text.endswith("\n"):  # the digits that are left of a number would be another number
        cut = text.count("\n") + 1
        raise UserError(f"{path}: line {cut} is cut off behind {text[-20:]!r}; {REMEDY}")
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    while True:
        line = reader.line_num + 1
        try:
            yield line, next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise UserError(f"{path}: line {line} is damaged: {error}; {REMEDY}") from None


def _row(where: str, cells: Sequence[str], names: Sequence[str]) -> RunRow:
    """A row from its texts."""
    variant, seed, status, key, commit, hardware, data, chosen, message = cells[: len(COLUMNS)]
    if status not in STATUSES:
        raise UserError(f"{where}, column 'status': {status!r} is none of {', '.join(STATUSES)}; {REMEDY}")
    if not re.fullmatch(r"-?\d{1,18}", seed, re.ASCII):
        raise UserError(f"{where}, column 'seed': {seed!r} is no whole number; {REMEDY}")
    values: dict[str, float | None] = {}
    for name, cell in zip(names, cells[len(COLUMNS) :], strict=True):
        if cell:
            try:
                values[name] = float(cell)
            except ValueError:
                raise UserError(f"{where}, column {name!r}: {cell!r} is no number; {REMEDY}") from None
    objects = {}
    for name, cell in (("data", data), ("chosen", chosen)):
        try:
            objects[name] = plain(parse_json(cell or "{}"))
        except ValueError as error:
            raise UserError(f"{where}, column {name!r}: {cell[:200]!r} is no JSON: {error}; {REMEDY}") from None
        if not isinstance(objects[name], dict):
            raise UserError(f"{where}, column {name!r}: {cell!r} is no JSON object; {REMEDY}")
    for split, checksum in objects["data"].items():
        if not isinstance(checksum, str):
            raise UserError(f"{where}, column 'data': {split!r} has {checksum!r}, which is no text; {REMEDY}")
    return RunRow(
        variant=variant,
        seed=int(seed),
        status=status,
        values=values,
        key=key,
        commit=commit,
        hardware=hardware,
        message=message,
        **objects,
    )


def _text(path: pathlib.Path) -> str:
    """A UTF-8 file's text, with the line ends that it has; spreadsheets put a mark at its beginning."""
    try:
        return read_regular(path).decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}; is {str(path.parent)!r} a study?") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise UserError(f"{path}: line {line} is damaged: it is not UTF-8 text; {REMEDY}") from None


def replace_file(path: pathlib.Path, text: str) -> None:
    """Write a file so that a reader sees the old one or the new one; what UTF-8 cannot say stands as its escape."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_bytes(text.encode("utf-8", errors="backslashreplace"))
    temporary.replace(path)
