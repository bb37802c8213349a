"""Tables and configs as hands, spreadsheets and other programs leave them."""

from __future__ import annotations

from random import Random

from hypothesis import strategies as st

CELLS = (
    "", " ", "-", "0", "1", "-1", "1.0", "1e3", "1_0", "٣", "256", "9" * 400, "nan", "inf", "None",
    "#N/A", "=A1", "c0", "C0", ".", "..", "/", "~", "a/b", "a\\b", "a b", " c0 ", "c0\u00a0", "é",
    "\u2028", "\ufeff", "\0", "\x1b[31m", '"', '""', '"a', "'", "$HOME", "`id`", "{case}", "%s",
    "*", "x" * 300, "state", "frame", "con", "ok", "#00ff00", "#00FF0", "心臓",
)  # fmt: skip
EDITS = (
    "cell", "cell", "cell", "cell", "column", "empty column", "longer row", "shorter row", "twice",
    "no row", "blank", "padded", "upper", "quoted", "comment", "order",
)  # fmt: skip
ENCODINGS = ("utf-8-sig", "utf-16", "latin-1", "cp1252", "shift-jis")


def seldom(rng: Random, common, others, share: float = 0.15):
    """One of ``others`` with this share, else ``common``."""
    return rng.choice(others) if rng.random() < share else common


@st.composite
def edited_tables(draw, header: tuple[str, ...], rows: tuple[tuple[str, ...], ...]) -> bytes:
    """A table file: the one given, after some edits that people and programs make."""
    rng, edits = draw(st.randoms(use_true_random=True)), draw(st.integers(1, 3))
    lines = [list(header), *map(list, rows)]
    delimiter = seldom(rng, "\t", ",; ")
    ending = seldom(rng, "\n", ["\r\n", "\r"])
    first = ""
    for edit in rng.choices(EDITS, k=edits):
        line = rng.randrange(len(lines))
        column = rng.randrange(max(len(lines[line]), 1))
        match edit:
            case "cell" if lines[line]:
                lines[line][column] = rng.choice(CELLS)
            case "column":
                lines = [[*row, *row[column : column + 1]] for row in lines]
            case "empty column":
                lines = [[*row, ""] for row in lines]
            case "longer row":
                lines[line].append(rng.choice(CELLS))
            case "shorter row":
                del lines[line][column:]
            case "twice":
                lines.append(list(lines[line]))
            case "no row":
                lines = lines[:1]
            case "blank":
                lines.insert(line, [])
            case "padded":
                lines = [[f" {cell} " for cell in row] for row in lines]
            case "upper":
                lines[0] = [cell.upper() for cell in lines[0]]
            case "quoted":
                lines = [[f'"{cell}"' for cell in row] for row in lines]
            case "comment":
                first = rng.choice(["# mine", "sep=;", "\ufeff"]) + ending
            case "order":
                lines = [row[::-1] for row in lines]
    text = first + ending.join(delimiter.join(row) for row in lines)
    text += seldom(rng, ending, ["", ending * 3])
    return text.encode(seldom(rng, "utf-8", ENCODINGS), errors="replace")
