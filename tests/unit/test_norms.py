"""Norms, z-scores and groups: against figures that are known, and chance that is none."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from cardiform.errors import InputError
from cardiform.measures import groups, norms, table
from cardiform.measures.table import Measured

VOLUME = ("left_ventricle", "whole", "volume", "ml")


def measures_of(values, *, cut=(), part="whole", measure="volume") -> pd.DataFrame:
    """One measure of each case."""
    return pd.concat(
        table.frame_of(name, [Measured("left_ventricle", measure, value, "ml", part, name in cut)])
        for name, value in values.items()
    ).reset_index(drop=True)


@pytest.fixture
def five() -> pd.DataFrame:
    return measures_of({"a": 80.0, "b": 100.0, "c": 120.0, "d": 90.0, "e": 999.0}, cut="e")


def test_norms_leave_out_what_is_cut(five):
    [row] = norms.norms_of(five, 3).to_dict("records")
    assert tuple(row[k] for k in table.KEYS) == VOLUME
    values = [80, 90, 100, 120]
    assert row["cases"] == 4 and row["mean"] == pytest.approx(97.5)
    assert row["sd"] == pytest.approx(np.std(values, ddof=1))
    assert [row[k] for k in ("min", "p25", "median", "max")] == pytest.approx([80, 87.5, 95, 120])
    assert norms.norms_of(five, 5).empty


def test_scores_of_a_cohort_have_mean_0_and_sd_1(five):
    found = norms.scores_of(five, norms.norms_of(five, 3)).set_index("case_id")["z"]
    assert np.isnan(found["e"]), "what is cut has no score"
    assert found.dropna().mean() == pytest.approx(0, abs=1e-12)
    assert found.dropna().std(ddof=1) == pytest.approx(1)
    assert found["c"] == pytest.approx((120 - 97.5) / np.std([80, 90, 100, 120], ddof=1))


def test_parts_that_are_only_counted_have_no_norm():
    values = {name: float(k) for k, name in enumerate("abcd")}
    assert norms.norms_of(measures_of(values, part="branch_002"), 3).empty
    assert len(norms.norms_of(measures_of(values, part="LAD"), 3)) == 1


def test_what_does_not_vary_has_no_score():
    same = measures_of(dict.fromkeys("abcd", 2.0))
    assert norms.scores_of(same, norms.norms_of(same, 3))["z"].isna().all()


def test_tables_are_read_as_they_were_written(tmp_path, five):
    table.write_frame(tmp_path / "measures.csv", five)
    found = table.read_measures(tmp_path / "measures.csv")
    pd.testing.assert_frame_equal(found, five)
    plain = pd.read_csv(tmp_path / "measures.csv")
    pd.testing.assert_frame_equal(plain, five, check_dtype=False)
    usual = norms.norms_of(five, 3)
    table.write_frame(tmp_path / "norms.csv", usual)
    pd.testing.assert_frame_equal(
        norms.read_norms(tmp_path / "norms.csv"), usual, rtol=1e-5, check_dtype=False
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda rows: [*rows, rows[1]], "is there twice; give the norms.csv"),
        (
            lambda rows: [rows[0], rows[1].replace("10.0", "inf", 1)],
            "has an entry that is no",
        ),
        (
            lambda rows: [rows[0], rows[1].replace("2.0", "-2.0", 1)],
            "has an entry that is no",
        ),
    ],
)
def test_norms_of_others_are_looked_at(tmp_path, change, words):
    rows = ["class,part,measure,unit,cases,mean,sd,min,p05,p25,median,p75,p95,max"]
    rows.append("aorta,whole,volume,ml,5,10.0,2.0,8,8,9,10,11,12,12")
    path = tmp_path / "norms.csv"
    path.write_text("\n".join(rows) + "\n")
    assert len(norms.read_norms(path)) == 1
    path.write_text("\n".join(change(rows)) + "\n")
    with pytest.raises(InputError, match=rf"norms\.csv:\d: {words}"):
        norms.read_norms(path)


def test_norms_of_a_cohort_of_too_few_hearts_are_none(tmp_path, five):
    few = norms.norms_of(five, least_cases=len(five) + 1)
    table.write_frame(tmp_path / "norms.csv", few)
    with pytest.raises(InputError, match="has no norm in it"):
        norms.read_norms(tmp_path / "norms.csv")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("80,", "many,", "measures.csv:2: is no measure"),
        ("False", "maybe", "measures.csv:2: is no measure"),
        ("unit", "units", "is no measure table"),
        ("80,ml,", "80,", "of 7 columns"),
    ],
)
def test_a_damaged_table_is_refused(tmp_path, five, old, new, words):
    path = tmp_path / "measures.csv"
    table.write_frame(path, five)
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(InputError, match=words):
        table.read_measures(path)


def cohort(rng, shift=0.0, number=24) -> tuple[pd.DataFrame, pd.Series]:
    """Hearts of two sexes; ``shift`` sd between them in the first of ten measures."""
    names = [f"c{k:02d}" for k in range(number)]
    sex = pd.Series(["f", "m"] * (number // 2), index=names)
    frames = []
    for k in range(10):
        values = rng.normal(size=number) + (shift * (sex == "m").to_numpy() if k == 0 else 0)
        frames.append(measures_of(dict(zip(names, values)), measure=f"m{k}"))
    return pd.concat(frames, ignore_index=True), sex


SETTINGS = {"permutations": 999, "correction": "holm", "seed": 0}


def test_a_difference_is_found_with_its_size():
    frame, sex = cohort(np.random.default_rng(0), shift=3.0)
    found, notes = groups.compare(frame, {"x_sex": sex}, **SETTINGS)
    found = found.set_index("measure")
    assert not notes and list(found.columns[:3]) == ["column", "group_a", "group_b"]
    row = found.loc["m0"]
    values = frame[frame["measure"] == "m0"].set_index("case_id")["value"]
    a, b = values[sex == "f"], values[sex == "m"]
    assert row["difference"] == pytest.approx(b.mean() - a.mean())
    pooled = np.sqrt((a.var(ddof=1) + b.var(ddof=1)) / 2)
    correction = 1 - 3 / (4 * 22 - 1)
    assert row["effect_size"] == pytest.approx((b.mean() - a.mean()) / pooled * correction)
    assert row["p"] == pytest.approx(1 / 1000) and row["p_corrected"] == pytest.approx(10 / 1000)
    assert (found["p_corrected"].drop("m0") > 0.05).all()


def test_p_is_that_of_an_exact_test():
    """Against all orders of eight hearts."""
    values = np.array([1.0, 2.5, 2.0, 4.0, 3.0, 5.5, 6.0, 4.5])
    group = np.array([0, 0, 0, 0, 1, 1, 1, 1.0])
    frame = measures_of(dict(zip("abcdefgh", values)))
    sex = pd.Series(group.astype(int).astype(str), index=list("abcdefgh"))
    found, _ = groups.compare(frame, {"x": sex}, **SETTINGS | {"permutations": 20_000})
    exact = stats.permutation_test(
        (values[group == 0], values[group == 1]), lambda x, y: x.mean() - y.mean(), n_resamples=1e5
    ).pvalue
    assert found["p"].item() == pytest.approx(exact, abs=0.005)


def test_without_a_difference_p_is_even():
    """Of 200 cohorts about every twentieth is below 0.05, more would be a fault of the test."""
    rng = np.random.default_rng(1)
    found = []
    for _ in range(20):
        frame, sex = cohort(rng)
        found.append(groups.compare(frame, {"x_sex": sex}, **SETTINGS | {"permutations": 199})[0])
    p = pd.concat(found)["p"]
    assert len(p) == 200 and stats.kstest(p, "uniform").pvalue > 0.01
    assert 0.01 <= (p <= 0.05).mean() <= 0.1


def test_a_column_of_numbers_goes_by_rank():
    frame, _ = cohort(np.random.default_rng(2))
    values = frame[frame["measure"] == "m3"].set_index("case_id")["value"]
    age = (50 + 5 * values.rank() ** 2).astype(int).astype(str)
    found, _ = groups.compare(frame, {"x_age": age}, **SETTINGS)
    row = found.set_index("measure").loc["m3"]
    assert row["effect"] == "spearman_rho" and row["effect_size"] == pytest.approx(1.0)
    assert row["p_corrected"] < 0.05 and row["cases_a"] == 24


def test_three_groups_are_compared_in_pairs_and_small_ones_left_out():
    frame, _ = cohort(np.random.default_rng(3))
    names = sorted(set(frame["case_id"]))
    site = pd.Series((["x", "y", "z"] * 8)[:22] + ["rare"] * 2, index=names)
    found, notes = groups.compare(frame, {"x_site": site}, **SETTINGS)
    assert set(zip(found["group_a"], found["group_b"])) == {("x", "y"), ("x", "z"), ("y", "z")}
    assert notes == ["x_site: left out, fewer than 3 hearts: rare"]
    assert len(found) == 30


def test_cut_hearts_take_part_in_no_comparison():
    values = {f"c{k}": float(k) for k in range(8)}
    frame = measures_of(values, cut=("c0", "c1"))
    sex = pd.Series(["f", "m"] * 4, index=list(values))
    found, _ = groups.compare(frame, {"x_sex": sex}, **SETTINGS)
    assert (found["cases_a"].item(), found["cases_b"].item()) == (3, 3)


@pytest.mark.parametrize(("word", "method"), [("holm", None), ("bh", "bh")])
def test_corrections(word, method):
    p = np.array([0.01, 0.04, 0.03, 0.005, 0.9])
    found = groups.corrected(p, word)
    if method:
        assert found == pytest.approx(stats.false_discovery_control(p, method=method))
    else:  # Holm (1979): sorted 0.005*5, 0.01*4, 0.03*3, 0.04*2 raised to 0.09, 0.9
        assert found == pytest.approx([0.04, 0.09, 0.09, 0.025, 0.9])


def test_columns_are_those_of_the_table(tmp_path):
    path = tmp_path / "cohort.tsv"
    path.write_text("case_id\tlabels\tX_Sex\na\ta.nii\tf\nb\tb.nii\t\nc\tc.nii\tm\n")
    found = groups.read_columns(path, ["x_sex"], ["a", "b"])
    assert found["x_sex"].to_dict() == {"a": "f"}
    with pytest.raises(
        InputError, match=r"no column x_age, which --groups names; add it .*it has x_sex"
    ):
        groups.read_columns(path, ["x_age"], ["a"])


def test_missing_entries_are_no_groups(tmp_path):
    path, names = tmp_path / "cohort.tsv", [f"c{k:02d}" for k in range(24)]
    missing = ["NA", "n/a", "NaN", "None", "-", ""]

    def table(*columns):
        rows = zip(names, *columns)
        lines = ["case_id\tx_age\tx_sick\tx_code", *("\t".join(map(str, row)) for row in rows)]
        path.write_text("\n".join(lines) + "\n")
        return groups.read_columns(path, ["x_age", "x_sick", "x_code"], names)

    ages = [*missing, *(40 + k // 2 for k in range(18))]
    words, codes = ["none", "hcm", "NA", "-"] * 6, ["0", "1", "unknown", "n/a"] * 6
    columns = table(ages, words, codes)
    assert list(columns["x_age"].index) == names[6:]
    assert set(columns["x_sick"]) == {"none", "hcm", "-"}  # none is a group of its own
    assert set(columns["x_code"]) == {"0", "1", "unknown"}
    frame, _ = cohort(np.random.default_rng(2))
    found, _ = groups.compare(frame, {"x_age": columns["x_age"]}, **SETTINGS)
    assert set(found["effect"]) == {"spearman_rho"} and set(found["cases_a"]) == {18}
    ages[7] = "41 years"
    with pytest.raises(InputError, match=r"cohort\.tsv:9: x_age is '41 years', no number; correct"):
        table(ages, words, codes)
