"""Tables as text, TSV or CSV: one reader for those of people and those that the workflow writes
(standard library only)."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from .errors import InputError, problem
from .files import ANEW, write_text

Rows = list[tuple[int, dict[str, str]]]
SAVE = "save it as UTF-8 text, TSV or CSV"
# First bytes of files that are often taken for tables.
NO_TABLES = {
    b"PK\x03\x04": "an Excel workbook or another ZIP archive",
    b"\xd0\xcf\x11\xe0": "an Excel workbook",
    b"\x1f\x8b": "a gzip archive",
    b"\xff\xfe": "UTF-16 text",
    b"\xfe\xff": "UTF-16 text",
}


def read_table(path: str | Path, whole: bool = False) -> tuple[list[str], Rows]:
    """Header and (line, row) of a TSV or CSV file, the delimiter read off its header.

    In a table of people case and outer spaces of the header do not count, nor outer spaces of
    the cells, blank rows, and empty columns at the end; cells that a row lacks at its end are
    empty.

    whole : it is a file of this project: nothing of it is a matter of taste. A row that lacks
        columns, or a last line without an end, is damage.

    Raises
    ------
    InputError
        It cannot be read, or is no UTF-8 text (with line and column); a column is there twice or
        has no name; a row has too many cells.
    """
    path, remedy = Path(path), ANEW if whole else SAVE
    text = _text(path, remedy)
    first = next((line for line in io.StringIO(text, newline="") if line.strip()), "")
    delimiter = "\t" if "\t" in first else ","
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        lines = [(reader.line_num, cells) for cells in reader if cells]
    except csv.Error as error:
        fact = f"is no row of a table ({error})"
        raise InputError(problem(f"{path}:{reader.line_num}", fact, remedy)) from None
    if not whole:
        return _typed(path, lines)
    header = lines[0][1] if lines else []
    _check_whole(path, text, len(header), delimiter)
    return header, [(line, dict(zip(header, cells))) for line, cells in lines[1:]]


def write_table(path: str | Path, columns: Sequence, rows: Iterable[Sequence]) -> None:
    """Write a TSV; a field with a quote in it is quoted."""
    text = io.StringIO()
    csv.writer(text, delimiter="\t", lineterminator="\n").writerows([columns, *rows])
    write_text(path, text.getvalue())


def number_of(text: str) -> float | None:
    """The number that a text is; None of what is none, or not finite.

    As people write them: Python would take ``1_0``, too, and digits of other scripts.
    """
    if not re.fullmatch(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?", text.strip()):
        return None
    value = float(text)
    return value if math.isfinite(value) else None


def names_width(names: Iterable[str], least: int = 24) -> int:
    """Characters of a first column of names in the log: names that are cut look alike."""
    return max([least, *(len(name) + 1 for name in names)])


def _text(path: Path, remedy: str) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        fact = f"cannot be read ({error.strerror or error})"
        raise InputError(problem(path, fact, "correct the path")) from None
    for start, kind in NO_TABLES.items():
        if content.startswith(start):
            raise InputError(problem(path, f"is {kind}, no table", remedy))
    if b"\0" in content:
        where = _place(path, content, content.index(b"\0"))
        raise InputError(problem(where, "is no table (NUL byte)", remedy))
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        where = _place(path, error.object, error.start)
        fact = f"is no table in UTF-8 (byte 0x{error.object[error.start]:02x})"
        raise InputError(problem(where, fact, remedy)) from None


def _place(path: Path, content: bytes, at: int) -> str:
    """``path:line: column name`` of a byte of a table."""
    lines = content[:at].splitlines() or [b""]
    if content[:at].endswith((b"\n", b"\r")):
        lines.append(b"")
    header = content.splitlines()[0].decode("utf-8-sig", errors="replace")
    delimiter = "\t" if "\t" in header else ","
    names, number = header.split(delimiter), lines[-1].count(delimiter.encode())
    named = len(lines) > 1 and number < len(names) and names[number].strip().isprintable()
    return f"{path}:{len(lines)}: column {names[number].strip() if named else number + 1}"


def _typed(path: Path, lines: list[tuple[int, list[str]]]) -> tuple[list[str], Rows]:
    """Header and rows of a table that somebody typed or exported."""
    lines = [(line, [cell.strip() for cell in cells]) for line, cells in lines]
    (first, names), *rest = [(line, cells) for line, cells in lines if any(cells)] or [(1, [])]
    header = [name.lower() for name in names]
    while header and not header[-1]:
        header.pop()
    problems = [
        problem(f"{path}:{first}", f"column {number} has no name", "name it, or remove it")
        for number, name in enumerate(header, start=1)
        if not name
    ]
    problems += [
        problem(f"{path}:{first}", f"column {name[:60]} is there twice", "keep one of them")
        for name in dict.fromkeys(header)
        if name and header.count(name) > 1
    ]
    for line, cells in rest:
        if any(cells[len(header) :]):
            fact = f"has {len(cells)} cells for {len(header)} columns"
            remedy = "quote a cell that holds the delimiter, or name the column"
            problems.append(problem(f"{path}:{line}", fact, remedy))
    if problems:
        raise InputError(problems)
    blank = [""] * len(header)
    return header, [(line, dict(zip(header, [*cells, *blank]))) for line, cells in rest]


def _check_whole(path: Path, text: str, columns: int, delimiter: str) -> None:
    """InputError where a table of this project was cut; no field holds a line break."""
    # by the line feed alone: Unicode has other line ends, and a reason may hold them
    for number, line in enumerate(text.removesuffix("\n").split("\n"), start=1):
        quoted = '"' in line  # and may hold the delimiter
        cells = next(csv.reader([line], delimiter=delimiter)) if quoted else line.split(delimiter)
        found = len(cells)
        if found != columns:
            raise InputError(problem(f"{path}:{number}", f"has {found} of {columns} columns", ANEW))
    if not text.endswith("\n"):
        raise InputError(problem(path, "is cut off in its last line", ANEW))
