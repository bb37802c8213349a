"""Tables of people: what Excel and others make of them is read, or refused with line and column."""

from __future__ import annotations

import pytest

from cardiform.cohort.spacings import spacing_of_text
from cardiform.cohort.table import read_case_table
from cardiform.errors import InputError
from cardiform.labels import load_label_table
from cardiform.ldm import option_checks as ldm_checks
from cardiform.options.ldm import DiffusionOptions, SamplingOptions
from cardiform.options.set_diffusion import SetSamplingOptions
from cardiform.set_diffusion import option_checks as set_checks
from cardiform.tables import number_of, read_table

LABELS = "value\tname\ttitle\tcolor\tcomponents\tpriority\n1\ta\tA\t#ff0000\t1\t1\n"
PLAIN = (["case_id", "labels"], [{"case_id": "a", "labels": "a.nii.gz"}])


def read(path):
    header, rows = read_table(path)
    return header, [row for _, row in rows]


def written(folder, content):
    path = folder / "t.tsv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def refused(read, path) -> list[str]:
    with pytest.raises(InputError) as caught:
        read(path)
    return [line.removeprefix(str(path)) for line in caught.value.problems]


@pytest.mark.parametrize(
    "text",
    [
        "case_id,labels\na,a.nii.gz\n",
        "case_id,labels,\na,a.nii.gz,\n",
        "case_id,labels,,\r\na,a.nii.gz,,\r\n,,,\r\n",
        "case_id\t labels \n a \ta.nii.gz\t\n\t\n",
        "Case_ID,LABELS\ra,a.nii.gz\r",
        "\n\ncase_id\tlabels\n\na\ta.nii.gz\n\n",
        "\ufeff\u00a0case_id,labels\na,\u00a0a.nii.gz",
        '"case_id","labels"\n"a","a.nii.gz"\n',
    ],
)
def test_what_programs_make_of_a_table_is_read(tmp_path, text):
    assert read(written(tmp_path, text)) == PLAIN


def test_rows_know_their_lines_and_may_lack_cells_at_their_end(tmp_path):
    path = written(tmp_path, "\ncase_id\tlabels\timage\na\tx\n\nb\ty\tz\n")
    assert read_table(path)[1] == [
        (3, {"case_id": "a", "labels": "x", "image": ""}),
        (5, {"case_id": "b", "labels": "y", "image": "z"}),
    ]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("case_id\tlabels\tlabels\na\tx\ty\n", ":1: column labels is there twice"),
        ("case_id,labels,Labels \na,x,y\n", ":1: column labels is there twice"),
        ("case_id,,labels\na,,x\n", ":1: column 2 has no name"),
        ("case_id,labels\na,x,y\n", ":2: has 3 cells for 2 columns"),
        ("case_id,labels,\na,x,y\n", ":2: has 3 cells for 2 columns"),
        ('case_id,labels\na,"x\nb,y\n', ": is no row of a table"),
        (
            "case_id,labels\nä,x\n".encode("latin-1"),
            ":2: column case_id: is no table in",
        ),
        (
            "case_id\tlabels\na\tx\nb\tö\n".encode("cp1252"),
            ":3: column labels: is no table in UTF-8",
        ),
        (
            "case_id\tlabels\r\na\tx\r\nb\tö\r\n".encode("cp1252"),
            ":3: column labels: is no table in UTF-8",
        ),
        ("case_id\tä\n".encode("latin-1"), ":1: column 2: is no table"),
        (b"case_id\tlabels\na\tx\0y\n", ":2: column labels: is no table (NUL byte)"),
        ("case_id\tlabels\n".encode("utf-16"), ": is UTF-16 text, no table"),
        ("case_id\tlabels\n".encode("utf-16-le"), ":1: column 1: is no table (NUL byte)"),
        (b"PK\x03\x04\x14\0\x06\0", ": is an Excel workbook"),
        (b"\x1f\x8b\x08\0", ": is a gzip archive"),
    ],
)
def test_what_is_no_table_is_refused_with_its_place(tmp_path, content, words):
    [line] = refused(read_table, written(tmp_path, content))
    assert words in line and "; " in line


@pytest.mark.parametrize("read", [read_case_table, load_label_table])
def test_a_folder_and_a_missing_file_are_told(tmp_path, read):
    for path in (tmp_path, tmp_path / "none.tsv"):
        [line] = refused(read, path)
        assert line.startswith(": cannot be read (")


def test_all_faults_of_a_table_are_told_at_once(tmp_path):
    path = written(tmp_path, "case_id,,labels,labels\na,,x,y,z\n")
    assert len(refused(read_table, path)) == 3


# --- the label table ---------------------------------------------------------------------------


def test_a_label_table_may_be_csv_and_be_padded(tmp_path):
    plain = load_label_table(written(tmp_path, LABELS))
    for text in (
        LABELS.replace("\t", ","),
        LABELS.replace("\t", " \t ").upper().replace("A\t ", "a\t ", 1),
        LABELS.replace("\n", "\t\n").replace("#ff0000", " #ff0000 "),
    ):
        table = load_label_table(written(tmp_path, text))
        assert (table.values, len(table)) == (plain.values, 1)


@pytest.mark.parametrize("title", ["V\u200dY", "\U00011747", "Ostium (\u00e4)"])
def test_a_title_may_have_joiners_and_letters_that_python_does_not_know_yet(tmp_path, title):
    path = written(tmp_path, LABELS.replace("\tA\t", f"\t{title}\t"))
    assert [row.title for row in load_label_table(path)] == [title]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("1\ta\tA", ":2: has no color, components, priority; correct this row"),
        ("1\ta\tA\t#ff0000\t1", ":2: has no priority;"),
        ("x\ta\tA\t#ff0000\t1\t1", ":2: value 'x' is no whole number;"),
        ("1\ta\tA\t#ff0000\t1.0\t1", ":2: components '1.0' is no number and no range like 1-2;"),
        ("1\ta\tA\x1b[31m\t#ff0000\t1\t1", "has a control character;"),
        ("1\ta\tA\t#ff0000\t1\t1_0", ":2: priority '1_0' is no whole number;"),
        ("9" * 5000 + "\ta\tA\t#ff0000\t1\t1", "is no whole number;"),
        ("256\ta\tA\t#ff0000\t1\t1", ":2: value 256 is not within 1-255;"),
    ],
)
def test_a_row_of_the_label_table_is_refused_in_plain_words(tmp_path, row, words):
    [line] = refused(load_label_table, written(tmp_path, LABELS.splitlines()[0] + f"\n{row}\n"))
    assert words in line and "literal" not in line


def test_all_faults_of_a_row_are_told(tmp_path):
    row = "0\t1a\tA\tred\t0\t1\n"
    path = written(tmp_path, LABELS.splitlines()[0] + "\n" + row)
    assert len(refused(load_label_table, path)) == 4


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1.0), ("-1.5", -1.5), ("+.5", 0.5), ("2.", 2.0), ("1e-3", 0.001), (" 7 ", 7.0),
        ("1_0", None), ("١٢", None), ("nan", None), ("inf", None), ("1e999", None), ("", None),
        ("0x10", None), ("1,5", None), (".", None), ("1 2", None),
    ],
)  # fmt: skip
def test_numbers_are_what_people_write(text, value):
    assert number_of(text) == value


def test_every_reader_of_numbers_refuses_the_same():
    assert spacing_of_text("(0.8, 0.8, 1)") == (0.8, 0.8, 1.0)
    assert spacing_of_text("1_0") is None and spacing_of_text("1 1_0 1") is None
    asked = SetSamplingOptions(volumes=("left_ventricle=1_20",))
    with pytest.raises(InputError, match="left_ventricle=1_20"):
        set_checks.wanted_volumes(asked)
    trained = DiffusionOptions(volumes_share=0.5)
    with pytest.raises(InputError, match="left_ventricle=1_20"):
        ldm_checks.wanted_volumes(SamplingOptions(volumes=asked.volumes), trained)
