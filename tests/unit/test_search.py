"""A search's space, the settings that are proposed, the order of a rung and what is best."""

from __future__ import annotations

import json
import math

import optuna
import pytest
import yaml
from inside import run_inside

from cardiform import cli
from cardiform.errors import InputError
from cardiform.options.search import SEARCHED, SearchOptions
from cardiform.options.sections import SECTIONS
from cardiform.options.vecset import VecsetOptions
from cardiform.search import results, rungs
from cardiform.search.picture import plot_search
from cardiform.search.sampling import proposed, write_storage
from cardiform.search.space import check_space, given_values, parse_space, text_of, values_of

SPACE = (
    "lr=1e-4..1e-2/log",
    "balanced=0.2..0.8",
    "input_points=1024|2048|4096",
    "warmup_steps=0..9",
)


def options(**changes) -> SearchOptions:
    return SearchOptions(**{"training": "vecset", "space": SPACE, **changes})


def problems_of(call, *arguments) -> list[str]:
    with pytest.raises(InputError) as caught:
        call(*arguments)
    return caught.value.problems


def trained(path, loss=0.1, **changes):
    """metrics.json of a trial."""
    counts = {"train": 1, "validation": 1}
    figures = {"loss": loss, "dice": 1 - loss}
    content = {
        "format_version": 1, "kind": "vecset", "source_sha256": "x", "train": {}, "best_step": 4,
        "validation": figures, "before": figures, "steps": 4, "seconds": 1.0, "parameters": 1,
        "cases": counts, "samples": counts,
    }  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content | changes))
    return path


def test_a_space_is_of_ranges_and_choices():
    rate, balanced, points, warmup = parse_space(options())
    assert (rate.name, rate.low, rate.high, rate.log) == ("vecset.lr", 1e-4, 1e-2, True)
    assert balanced.extremes == (0.2, 0.8) and points.values == (1024, 2048, 4096)
    assert warmup.kind is int and warmup.step == 1
    values = values_of([rate, points], {"vecset": VecsetOptions()})
    texts = [f"{name}={text_of(value)}" for name, value in values.items()]
    assert given_values([rate, points], texts) == {"vecset.lr": 1e-4, "vecset.input_points": 8192}


def test_lists_truths_texts_and_keys_of_the_network():
    space = ("vqvae.channels=8 8 16 16|8 16 32 64", "vqvae.checkpointing=true|false")
    search = options(training="vqvae_pretrain", space=space[:1])
    (channels,) = parse_space(search)
    assert channels.values == ((8, 8, 16, 16), (8, 16, 32, 64))
    assert text_of(channels.values[0]) == "8 8 16 16"
    assert channels.value([8, 8, 16, 16]) == (8, 8, 16, 16)
    search = options(training="vecset", space=("behind_cuts=true|false", "queries=fps|learned"))
    assert [d.values for d in parse_space(search)] == [(True, False), ("fps", "learned")]


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("lr", "no key and values; write key=low..high"),
        ("lr=", "no key and values"),
        ("lr=1e-3", "two or more different values"),
        ("lr=1e-3|1e-3", "two or more different values"),
        ("lr=1e-2..1e-3", "0.01 is not below 0.001"),
        ("lr=0..1/log", "0.0 has no logarithm"),
        ("lr=-1..1", "lr is -1.0; at least 0"),
        ("lr=a..b", "'a' is no float"),
        ("lr=1..inf", "'inf' is not finite"),
        ("balanced=0.5|2", "balanced is 2.0; at most 1"),
        ("batch_size=1.5|2", "'1.5' is no int"),
        ("batch_size=1..x", "'x' is no int"),
        ("preset=demo..xl", "a range is of numbers"),
        ("preset=demo|huge", "preset is 'huge'; one of demo"),
        ("learning_rate=1|2", "vecset.learning_rate is not a known key; see config/README.md"),
        ("ballanced=0.1|0.2", "did you mean balanced?"),
        ("workers=1|2", "vecset.workers is not searched: it does not change what is computed"),
        ("steps=10|20", "search.rungs sets the steps"),
        ("seed=1|2", "a lucky seed is no setting"),
        ("vqvae.channels=8|16", "vqvae is no section of these trials; known: vecset"),
        ("behind_cuts=yes|no", "'yes' is no bool"),
    ],
)
def test_an_entry_that_is_none_is_one_line_with_what_to_do(entry, words):
    (line,) = problems_of(parse_space, options(space=(entry,)))
    assert line.startswith(f"config: search.space: {entry!r}: ") and words in line


def test_an_empty_choice_is_not_listed():
    assert "--training vecset|vqvae_pretrain" in cli.build_parser("", SearchOptions).format_help()
    (line,) = problems_of(cli.from_config, SECTIONS, {"search": {"training": "x"}})
    assert "search.training is 'x'; one of vecset, vqvae_pretrain" in line


def test_all_entries_are_reported_at_once():
    lines = problems_of(parse_space, options(space=("lr=1", "lr=1..2", "vecset.lr=2..3", "x=1|2")))
    assert len(lines) == 3 and "vecset.lr is there twice" in lines[1]
    assert "search.space is empty" in problems_of(parse_space, options(space=()))[0]


def test_a_space_that_cannot_be_searched_as_a_whole():
    search = options(space=("queries=fps|learned", "input_points=1024|2048"), trials=5)
    (line,) = problems_of(check_space, parse_space(search), search)
    assert "search.space has 4 settings, search.trials is 5; set it to 4" in line
    search = options(space=("weight_near=1..20", "weight_decay=0.0..0.1", "truncation=0.05..0.2"))
    (line,) = problems_of(check_space, parse_space(search), search)
    assert "vecset.weight_near weighs its terms" in line and "name another figure" in line
    search = options(space=("warmup_steps=0..3",), trials=5)
    assert "has 4 settings" in problems_of(check_space, parse_space(search), search)[0]
    search = options(training="coronary", space=("patch=16..64", "lr=1|2"), trials=15)
    assert "has 14 settings" in problems_of(check_space, parse_space(search), search)[0]
    search = options(space=("weight_near=1..20", "truncation=0.05..0.2"))
    dice = options(space=search.space, figure="dice", goal="highest")
    assert check_space(parse_space(dice), dice) is None


def test_multiples_and_choices_stay_what_they_are():
    search = options(training="coronary", space=("patch=16..64", "channels=8 16|8 8 16"))
    found = proposed(
        parse_space(search), search, 0, {"coronary.patch": 40, "coronary.channels": (32,)}
    )
    patches = {trial["options"]["coronary.patch"] for trial in found[1:]}
    assert patches <= set(range(16, 65, 8)) and len(patches) > 3
    assert {trial["options"]["coronary.channels"] for trial in found[1:]} == {(8, 16), (8, 8, 16)}
    (line,) = problems_of(parse_space, options(training="coronary", space=("patch=16..64/log",)))
    assert "a multiple of 8" in line


@pytest.mark.parametrize("training", SEARCHED)
def test_every_training_has_options_that_can_be_searched(training):
    assert set(SEARCHED[training]) <= set(SECTIONS)
    (rate,) = parse_space(options(training=training, space=("lr=1e-4..1e-2/log",)))
    assert rate.name == f"{training}.lr"


def test_rungs_rounds_and_places():
    search = options(trials=20, rungs=(10, 30, 90), reduction=3, rounds=3, sampler="tpe")
    assert rungs.places(search) == [20, 6, 2]
    rounds = [rungs.trials_of(search, number) for number in range(3)]
    assert [n for numbers in rounds for n in numbers] == list(range(20)) and all(rounds)
    assert rungs.check_search(search) is None
    lines = problems_of(
        rungs.check_search, options(trials=4, rungs=(30, 10, 20), rounds=5, sampler="qmc")
    )
    assert [line.split()[0] for line in lines] == [
        "search.rungs", "search.trials", "search.rounds", "search.rounds"
    ]  # fmt: skip
    (line,) = problems_of(rungs.check_search, options(sampler="tpe"))
    assert "set search.rounds to 2 or more" in line


def test_the_plan_reads_one_trial_of_a_table(tmp_path):
    path = tmp_path / "trials.json"
    with pytest.raises(FileNotFoundError):  # by which Snakemake knows what is yet to be made
        rungs.trial_at(path, 0)
    rungs.write_trials(path, "vecset", rows(0.1, 0.2))
    assert rungs.trial_at(path, 1) == rows(0.1, 0.2)[1] and rungs.trials_in([path]) == rows(
        0.1, 0.2
    )
    assert rungs.trial_at(path, 7)["options"] == {}, "of another plan"
    for damaged in ("{", "[]", "{}"):
        path.write_text(damaged)
        (line,) = problems_of(rungs.trial_at, path, 0)
        assert "is no table of trials; delete it" in line


GIVEN = {
    "vecset.lr": 1e-3, "vecset.balanced": 0.5, "vecset.input_points": 8192, "vecset.warmup_steps": 5
}  # fmt: skip


@pytest.mark.parametrize("sampler", ["qmc", "random"])
def test_the_same_seed_proposes_the_same_and_fewer_trials_are_the_first_of_more(sampler):
    search = options(sampler=sampler, trials=16, seed=3)
    space = parse_space(search)
    trials = proposed(space, search, 0, GIVEN)
    assert trials == proposed(space, search, 0, GIVEN)
    assert trials[:7] == proposed(space, options(sampler=sampler, trials=7, seed=3), 0, GIVEN)
    assert trials != proposed(space, options(sampler=sampler, trials=16, seed=4), 0, GIVEN)
    assert [trial["trial"] for trial in trials] == list(range(16)) and trials[0]["options"] == GIVEN
    for trial in trials[1:]:
        assert all(d.holds(trial["options"][d.name]) for d in space)
    found = [json.dumps(trial["options"]) for trial in trials]
    assert len(set(found)) == 16
    cells = {int(4 * (math.log10(t["options"]["vecset.lr"]) + 4) / 2) for t in trials[1:]}
    assert cells >= {0, 1, 2, 3}, "all of the range, by its logarithm"


def test_tpe_learns_from_the_rounds_before():
    search = options(sampler="tpe", rounds=2, trials=40, space=SPACE[1:2])
    space = parse_space(search)
    given = {"vecset.balanced": 0.5}
    first = proposed(space, search, 0, given)
    told = [
        {**trial, "figure": abs(trial["options"]["vecset.balanced"] - 0.7)} for trial in first[:-1]
    ]
    told.append({**first[-1], "diverged": True})
    second = proposed(space, search, 1, given, told)
    assert second == proposed(space, search, 1, given, told)
    assert [trial["trial"] for trial in second] == list(range(20, 40))

    def miss(trials):
        return sum(abs(t["options"]["vecset.balanced"] - 0.7) for t in trials) / len(trials)

    assert miss(second) < 0.6 * miss(first[1:])


def test_a_list_is_proposed_once_in_all_rounds():
    space = ("channels=8|16|32 64|8 16|8 32|16 32",)
    search = options(training="coronary", sampler="tpe", rounds=2, trials=6, space=space)
    space = parse_space(search)
    first = proposed(space, search, 0, {"coronary.channels": (8,)})
    told = [{**trial, "figure": 1.0} for trial in json.loads(json.dumps(first))]
    second = proposed(space, search, 1, {"coronary.channels": (8,)}, told)
    assert len({trial["options"]["coronary.channels"] for trial in first + second}) == 6


def test_a_config_outside_the_range_stays_what_it_is():
    search = options(sampler="tpe", rounds=2, trials=4, space=("lr=1e-3..1e-2",))
    space = parse_space(search)
    (rate,) = space
    assert rate.value(0.5) == 0.5 and rate.value(0.00123456) == 0.00123456
    assert rate.drawn(0.01000001) == 0.01 and rate.drawn(0.00123456) == 0.001235
    first = proposed(space, search, 0, {"vecset.lr": 0.5})
    told = [{**trial, "figure": float(trial["trial"])} for trial in first]
    assert proposed(space, search, 1, {"vecset.lr": 0.5}, told) == proposed(
        space, search, 1, {"vecset.lr": 0.5}, [*told[1:], told[0] | {"figure": 7.0}]
    ), "TPE learns nothing of it"


def rows(*losses, first=0):
    return [{"trial": first + n, "options": {"vecset.lr": x}} for n, x in enumerate(losses)]


def test_a_rung_is_ranked_by_the_figure_and_what_diverged_comes_last(tmp_path):
    losses = (0.3, 0.1, 0.2, 0.1, math.nan)
    paths = [trained(tmp_path / str(n) / "metrics.json", x) for n, x in enumerate(losses)]
    trained(paths[2], 0.01, diverged=True, steps=2)
    ranked = results.ranked(rows(*losses), paths, options(), 4)
    assert [row["trial"] for row in ranked] == [1, 3, 0, 2, 4], "equal ones by their number"
    assert [row["place"] for row in ranked] == [1, 3, 0, 2, 4]
    assert ranked[0]["figure"] == 0.1 and ranked[3]["diverged"] and "figure" not in ranked[4]
    highest = results.ranked(rows(*losses), paths, options(figure="dice", goal="highest"), 4)
    assert [row["trial"] for row in highest] == [1, 3, 0, 2, 4]
    (line,) = problems_of(results.ranked, rows(0.3), paths[:1], options(figure="dise"), 4)
    assert "has no validation figure dise; set search.figure to one of loss, dice" in line
    (line,) = problems_of(results.ranked, rows(0.3), paths[:1], options(), 3)
    assert "is of 4 steps, its rung of 3; delete it and run the search again" in line
    paths[0].write_text("{")
    paths[1].write_text("{}")
    assert len(problems_of(results.ranked, rows(*losses), paths, options(), 4)) == 2


@pytest.fixture
def tried():
    """Six trials, two rungs; number 4 diverged, 2 came to the last rung and is best."""
    first = [
        {"trial": n, "options": {"vecset.lr": lr, "vecset.input_points": 1024}, "place": n}
        | ({"figure": loss, "steps": 10} if loss else {"diverged": True, "steps": 3})
        for n, (lr, loss) in enumerate(
            [(2e-5, 0.5), (1e-3, 0.4), (2e-3, 0.2), (3e-3, 0.3), (9.0, 0)]
        )
    ]
    first = sorted(first, key=lambda row: row.get("figure", 9))
    second = [{**first[0], "place": 0, "figure": 0.15, "steps": 30}]
    return results.history([first, second])


def test_the_history_of_trials(tried):
    assert [trial.number for trial in tried] == [2, 3, 1, 0, 4]
    assert tried[0].rungs == ((10, 0.2), (30, 0.15)) and tried[0].places == (2, 0)
    assert tried[-1].diverged and tried[-1].figure is None
    header, cells = results.table(tried, options(rungs=(10, 30)))
    assert header == [
        "rank", "trial", "loss_10", "loss_30", "vecset.lr", "vecset.input_points", "folder"
    ]  # fmt: skip
    assert cells[0] == ["1", "2", "0.2", "0.15", "0.002", "1024", "rung_1/place_00"]
    assert cells[-1][2:4] == ["diverged", ""]
    assert results.best_of(tried, "x") is tried[0]
    (line,) = problems_of(results.best_of, tried[-1:], "ranking.json")
    assert "every trial diverged: none is the best; narrow search.space" in line


def test_where_the_last_rung_diverges_the_best_of_the_others_is_best(tmp_path):
    first = [
        {**row, "place": n, "steps": 10, "figure": 0.1 * (n + 1)}
        for n, row in enumerate(rows(1.0, 2.0, 3.0, 4.0))
    ]
    second = [{**row, "place": n, "steps": 12, "diverged": True} for n, row in enumerate(first[:2])]
    for row in second:
        del row["figure"]
    tried = results.history([first, second])
    assert [trial.number for trial in tried] == [2, 3, 0, 1]
    assert [trial.rank for trial in tried] == [1, 2, 3, 4]
    best = results.best_of(tried, "x")
    assert best.number == 2 and "up to step 10" in results.best_yaml(best, tried, options())
    cells = results.table(tried, options(rungs=(10, 30)))[1]
    assert cells[0][2:4] == ["0.30000000000000004", ""] and cells[2][2:4] == ["0.1", "diverged"]


def test_a_search_of_which_every_trial_diverged_has_a_table_and_a_picture(tmp_path):
    found = [{**row, "place": n, "steps": 3, "diverged": True} for n, row in enumerate(rows(1, 2))]
    rungs.write_trials(tmp_path / "ranking.json", "vecset", found)
    flags = ["--training", "vecset", "--space", "lr=1e-3..1e-2/log", "--trials", 2, "--rungs", 4]
    flags += ["--rankings", tmp_path / "ranking.json", "--out", tmp_path / "out"]
    result = run_inside("collect_search.py", *flags)
    assert result.returncode == 2 and "every trial diverged" in result.stderr
    assert {p.name for p in (tmp_path / "out").iterdir()} >= {
        "trials.tsv", "search.png", "study.log"
    }  # fmt: skip
    assert "diverged" in (tmp_path / "out" / "trials.tsv").read_text()


def test_a_rung_is_known_by_its_number_of_trials():
    search = options(trials=20, rungs=(10, 30, 90))
    assert [rungs.steps_of(search, count) for count in (20, 6, 2)] == [10, 30, 90]
    (line,) = problems_of(rungs.steps_of, search, 5)
    assert "names 5 files, the rungs have 20, 6, 2; name all files of one rung" in line


def test_the_best_settings_are_a_config_file(tried):
    text = results.best_yaml(tried[0], tried, options())
    assert "Trial 2 of 5" in text and "trial 0: 0.5 in the best validation up to step 10" in text
    config = cli.from_config(SECTIONS, yaml.safe_load(text))
    assert config["vecset"] == VecsetOptions(lr=2e-3, input_points=1024)
    for value in (1e-6, 1.0, 3, True, "fps", [8, 16], 2.5e-7):
        assert yaml.safe_load(f"x: {results.yaml_text(value)}") == {"x": value}


def test_the_storage_opens_in_optuna_and_the_picture_is_there(tried, tmp_path):
    search = options(space=("lr=1e-3..1e-2/log", "input_points=512|2048"), rungs=(10, 30))
    space = parse_space(search)
    write_storage(tmp_path / "study.log", space, search, tried)
    backend = optuna.storages.journal.JournalFileBackend(str(tmp_path / "study.log"))
    study = optuna.load_study(study_name="vecset", storage=optuna.storages.JournalStorage(backend))
    assert study.best_trial.number == 2 and study.best_value == 0.15
    rates = [trial.params["vecset.lr"] for trial in study.trials]
    assert rates == [2e-5, 1e-3, 2e-3, 3e-3, 9.0], "as they were, outside of the range too"
    assert study.trials[0].params["vecset.input_points"] == "1024"
    assert study.trials[2].intermediate_values == {10: 0.2, 30: 0.15}
    states = [trial.state.name for trial in study.trials]
    assert states == ["PRUNED", "PRUNED", "COMPLETE", "PRUNED", "FAIL"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["study.log"]
    plot_search(tmp_path / "search.png", tried, space, search)
    assert (tmp_path / "search.png").stat().st_size > 5000
