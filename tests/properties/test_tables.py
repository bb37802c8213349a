"""Tables, splits, chunks: what people type is kept or refused, and nothing else moves."""

from __future__ import annotations

import csv
import io
from dataclasses import asdict, replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from strategies import ids, names, texts

from cardiform.cohort.manifest import MANIFEST_COLUMNS, read_manifest
from cardiform.cohort.splits import check_shares, read_split, split_cases, write_split
from cardiform.cohort.table import (
    CASE_COLUMNS,
    Case,
    assign_chunks,
    read_case_table,
    read_checked_cases,
    write_cases,
    write_table,
)
from cardiform.errors import InputError
from cardiform.labels import LabelClass, LabelTable, load_label_table
from cardiform.options.cohort import SplitOptions

COLUMNS = ("case_id", "patient_id", "labels", "image")
rows = st.lists(
    st.tuples(ids, ids, texts.filter(str.strip), texts), min_size=1, max_size=5,
    unique_by=lambda row: row[0],
)  # fmt: skip
fields = st.sampled_from([
    "case_id", "labels", "value", "name", "1", "2", "300", "-1", "aorta", "#00ff00", "ok",
    "", " ", ",", '"', '"a"', "\ufeff", "é", "\u2028", "\0",
])  # fmt: skip
lines = st.lists(st.lists(fields, max_size=8).map("\t".join), max_size=5).map("\n".join)
commas = st.lists(st.lists(fields, max_size=4).map(",".join), max_size=5).map("\r\n".join)
files = st.one_of(lines, lines.map("{}\n".format), commas)


def table_text(columns, lines, delimiter="\t") -> str:
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator="\n").writerows([columns, *lines])
    return text.getvalue()


def kept_or_refused(read, path):
    """What was read; None where it was refused in the house's form."""
    try:
        return read(path)
    except InputError as error:
        assert error.problems and all(error.problems)
        return None


@given(rows, st.permutations(COLUMNS), st.sampled_from("\t,"), st.booleans(), st.integers(0, 3))
def test_a_case_table_says_the_same_in_any_notation(tmp_path, rows, order, delimiter, mark, blanks):
    """Order of the columns, TSV or CSV, a byte order mark, line ends, blank lines at the end."""
    (tmp_path / "plain.tsv").write_text(table_text(COLUMNS, rows), encoding="utf-8", newline="")
    columns = [COLUMNS.index(name) for name in order]
    text = table_text(order, [[row[k] for k in columns] for row in rows], delimiter)
    text = text.replace("\n", "\r\n") if mark else text
    text += "\n" * blanks
    encoding = "utf-8-sig" if mark else "utf-8"
    (tmp_path / "other.txt").write_text(text, encoding=encoding, newline="")
    plain = kept_or_refused(read_case_table, tmp_path / "plain.tsv")
    other = kept_or_refused(read_case_table, tmp_path / "other.txt")
    assert plain == other
    if all(text.isprintable() for row in rows for text in row):
        assert [case.case_id for case in plain] == [row[0] for row in rows]
        assert [case.labels for case in plain] == [str(tmp_path / r[2].strip()) for r in rows]
        assert [case.patient_id for case in plain] == [row[1] for row in rows]


@given(st.lists(st.tuples(ids, texts, texts), max_size=5, unique_by=lambda row: row[0]))
def test_checked_cases_are_kept_whatever_stands_in_them(tmp_path, rows):
    cases = [
        Case(case_id=name, patient_id=name, labels=path, status="skipped", reason=reason)
        for name, path, reason in rows
    ]
    write_cases(tmp_path / "cases.tsv", cases)
    found = kept_or_refused(read_checked_cases, tmp_path / "cases.tsv")
    if all(case.labels.isprintable() for case in cases):
        assert found == sorted(cases, key=lambda case: case.case_id)
    else:
        assert found is None


@given(st.lists(st.tuples(ids, texts, st.integers(0), ids, texts), max_size=5))
def test_a_manifest_is_kept_whatever_stands_in_it(tmp_path, rows):
    write_table(tmp_path / "chunk.tsv", MANIFEST_COLUMNS, rows)
    found = read_manifest(tmp_path / "chunk.tsv")
    assert [list(row.values()) for row in found] == [[str(x) for x in row] for row in rows]
    whole = (tmp_path / "chunk.tsv").read_text(encoding="utf-8")
    for cut in (1, len(whole) // 2):
        part = whole[:-cut]
        (tmp_path / "cut.tsv").write_text(part, encoding="utf-8")
        found = kept_or_refused(read_manifest, tmp_path / "cut.tsv")
        assert found is None or part.endswith("\n"), "a cut table is no table"


classes = st.builds(
    LabelClass,
    value=st.integers(1, 255),
    name=st.from_regex(r"[A-Za-z][A-Za-z0-9_]{0,15}", fullmatch=True),
    title=texts.map(str.strip),
    color=st.from_regex(r"#[0-9a-f]{6}", fullmatch=True),
    components=st.integers(1, 9),
    priority=st.integers(-9, 99),
)


@given(
    st.lists(classes, min_size=1, max_size=5, unique_by=(lambda c: c.value, lambda c: c.name)),
    st.permutations(tuple(asdict(LabelTable()[0]))),
    st.booleans(),
)
def test_a_label_table_is_kept_with_its_columns_in_any_order(tmp_path, rows, order, mark):
    text = table_text(order, [[asdict(row)[name] for name in order] for row in rows])
    encoding = "utf-8-sig" if mark else "utf-8"
    (tmp_path / "labels.tsv").write_text(text + "\n", encoding=encoding, newline="")
    table = load_label_table(tmp_path / "labels.tsv")
    assert table == LabelTable(tuple(rows)) == LabelTable.from_dicts(table.as_dicts())


@given(st.lists(classes, min_size=1, max_size=3), st.integers(1, 60))
def test_a_label_table_that_was_cut_is_read_or_refused(tmp_path, rows, cut):
    whole = table_text(asdict(rows[0]), [asdict(row).values() for row in rows])
    (tmp_path / "labels.tsv").write_text(whole[:-cut], encoding="utf-8", newline="")
    kept_or_refused(load_label_table, tmp_path / "labels.tsv")


READERS = (read_case_table, read_checked_cases, load_label_table, read_manifest, read_split)
HEADERS = {
    read_case_table: "case_id\tlabels\timage\n",
    read_checked_cases: "\t".join(CASE_COLUMNS) + "\n",
    load_label_table: "value\tname\ttitle\tcolor\tcomponents\tpriority\n",
    read_manifest: "\t".join(MANIFEST_COLUMNS) + "\n",
    read_split: "case_id,patient_id,path\n",
}


@pytest.mark.parametrize("read", READERS, ids=lambda read: read.__name__)
@given(files, st.booleans(), st.sampled_from(["utf-8", "utf-16", "cp1252"]))
def test_no_table_whatsoever_is_met_with_a_traceback(tmp_path, read, rows, headed, encoding):
    text = (HEADERS[read] if headed else "") + rows
    (tmp_path / "table").write_bytes(text.encode(encoding, errors="replace"))
    kept_or_refused(read, tmp_path / "table")


@given(st.lists(st.tuples(ids, ids), min_size=1, max_size=5), st.lists(names, max_size=3))
def test_a_split_file_is_kept_or_refused(tmp_path, rows, folders):
    cases = [Case(case_id=a, patient_id=b, labels="") for a, b in rows]
    folder = tmp_path.joinpath(*folders)
    write_split(tmp_path / "train.csv", cases, folder)
    found = kept_or_refused(read_split, tmp_path / "train.csv")
    assert found == [(c.case_id, folder / f"{c.case_id}.npz") for c in cases]


shares = st.builds(
    SplitOptions,
    validation=st.floats(0.0, 0.4),
    test=st.floats(0.0, 0.4),
    folds=st.sampled_from([0, 0, 3, 5]),
    fold=st.integers(0, 2),
    seed=st.integers(0, 1000),
)


def dealt(patients, options) -> dict[str, str]:
    """case id -> part, of cases in threes; assumes that no part is empty."""
    cases = [
        Case(case_id=f"{patient}_{k}", patient_id=patient, labels="")
        for patient in patients
        for k in range(3)
    ]
    try:
        parts = split_cases(cases, options)
    except InputError:
        assume(False)
    return {case.case_id: part for part, members in parts.items() for case in members}


@given(st.sets(ids, min_size=20, max_size=60), st.sets(ids, max_size=20), shares)
def test_a_patient_is_in_one_part_and_new_ones_move_nobody(patients, others, options):
    before = dealt(sorted(patients), options)
    assert len(before) == 3 * len(patients), "every case has one part"
    for patient in patients:
        assert len({before[f"{patient}_{k}"] for k in range(3)}) == 1
    after = dealt(sorted(patients | others), options)
    assert {name: after[name] for name in before} == before
    assert dealt(sorted(patients, reverse=True), options) == before


@given(shares)
def test_the_shares_are_about_those_asked_for(options):
    number = 1000
    parts = dealt([f"patient{k}" for k in range(number)], options)
    found = {part: list(parts.values()).count(part) / 3 / number for part in ("val", "test")}
    wanted = {"val": options.validation, "test": options.test}
    if options.folds:
        wanted = dict.fromkeys(wanted, 1 / options.folds)
    for part, share in wanted.items():
        assert abs(found[part] - share) < 5 * (0.25 / number) ** 0.5
    if options.folds:
        others = [
            dealt([f"patient{k}" for k in range(100)], replace(options, fold=fold))
            for fold in range(options.folds)
        ]
        assert all([o[name] for o in others].count("test") == 1 for name in others[0])


@given(st.floats(0, 0.9), st.floats(0, 0.9))
def test_shares_that_leave_nothing_to_train_on_are_refused(validation, test):
    options = SplitOptions(validation=validation, test=test)
    if validation + test < 1:
        check_shares(options)
    else:
        with pytest.raises(InputError):
            check_shares(options)


@given(st.sets(ids, min_size=1, max_size=40), st.sets(ids, max_size=10), st.integers(1, 20))
def test_every_case_has_one_chunk_and_new_ones_move_none(cases, others, chunks):
    before = assign_chunks(cases, chunks)
    members = [name for names in before.values() for name in names]
    assert sorted(members) == sorted(cases) and len(before) <= max(chunks, 1)
    assume(len(cases) > chunks)  # up to so many cases a chunk is a case
    place = {name: chunk for chunk, names in before.items() for name in names}
    after = assign_chunks(cases | others, chunks)
    moved = {name: chunk for chunk, names in after.items() for name in names}
    assert {name: moved[name] for name in place} == place
