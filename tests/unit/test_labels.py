"""The label table."""

from __future__ import annotations

import pytest

from cardiform.errors import InputError
from cardiform.labels import LabelTable, channel_of_value, load_label_table

HEADER = "value\tname\ttitle\tcolor\tcomponents\tpriority\n"


def test_stacom_defaults():
    table = LabelTable()
    assert table.values == tuple(range(1, 11))
    assert [c.components for c in table] == [1, 1, 1, 1, 1, 2, 1, 1, 2, 2]
    assert [c.expected_text for c in table] == ["1"] * 5 + ["1-2", "1", "1", "2", "2-5"]
    assert "fewest" not in table.as_dicts()[5], "hashes and files of earlier versions stay"
    ranked = [c.value for c in sorted(table, key=lambda c: c.priority)]
    assert ranked == [9, 8, 10, 2, 3, 1, 6, 4, 5, 7]
    assert table.channel("coronary") == 8
    assert LabelTable.from_dicts(table.as_dicts()) == table


def test_the_channel_of_every_value():
    found = channel_of_value((7, 3, 255))
    assert len(found) == 256 and [found[v] for v in (0, 7, 3, 255, 8)] == [0, 0, 1, 2, 0]
    found = channel_of_value((7, 3), first=1, unknown=255)
    assert [found[v] for v in (0, 7, 3, 8)] == [0, 1, 2, 255]


def test_own_table(tmp_path):
    path = tmp_path / "labels.tsv"
    path.write_text(HEADER + "7\tliver\tLiver\t#884422\t1\t2\n3\tspleen\tSpleen\t#aa0000\t1\t1\n")
    table = load_label_table(path)
    assert table.values == (7, 3) and table.names == ("liver", "spleen")


def test_components_may_be_a_range(tmp_path):
    path = tmp_path / "labels.tsv"
    path.write_text(HEADER + "7\taorta\tAorta\t#884422\t1-2\t2\n3\tlv\tLV\t#aa0000\t2\t1\n")
    aorta, ventricle = load_label_table(path)
    assert (aorta.components, list(aorta.expected), aorta.expected_text) == (2, [1, 2], "1-2")
    assert (ventricle.components, list(ventricle.expected)) == (2, [2])
    for text in ("2-1", "0-2", "1-", "-2", "1-2-3", "one"):
        path.write_text(HEADER + f"7\taorta\tAorta\t#884422\t{text}\t2\n")
        with pytest.raises(InputError, match=f":2: components '?{text}"):
            load_label_table(path)


def test_every_bad_row_is_named(tmp_path):
    path = tmp_path / "labels.tsv"
    path.write_text(
        HEADER
        + "0\ta\tA\t#884422\t1\t2\nx\tb\tB\t#884422\t1\t2\n2\tc d\tC\t#884422\t1\t1\n"
        + "3\te\tE\tred\t1\t1\n4\tf\tF\t#884422\t0\t1\n5\tg\tG\t#884422\t1\t1\n"
        + "5\tg\tG\t#884422\t1\t1\n"
    )
    with pytest.raises(InputError) as caught:
        load_label_table(path)
    text = str(caught.value)
    for part in (":2: value 0", ":3: value 'x' is no", ":4: name 'c d'", ":5: color 'red'",
                 ":6: components 0", "value 5 occurs twice", "name g occurs twice"):  # fmt: skip
        assert part in text
    path.write_text("value\tname\n1\ta\n")
    with pytest.raises(InputError, match="no column title, color, components, priority"):
        load_label_table(path)
    with pytest.raises(InputError, match="cannot be read"):
        load_label_table(tmp_path / "none.tsv")


def test_a_table_that_is_cut_or_no_text_is_refused(tmp_path):
    path = tmp_path / "labels.tsv"
    path.write_text(HEADER + "1\taorta")
    with pytest.raises(InputError, match=":2: "):
        load_label_table(path)
    path.write_bytes((HEADER + "1\taorta\tÄ\t#00ff00\t1\t1\n").encode("latin-1"))
    with pytest.raises(InputError, match=r":2: column title: is no table in UTF-8"):
        load_label_table(path)
