"""What options must hold to together, and a config as it is written."""

from __future__ import annotations

import dataclasses

import pytest

from cardiform import cli
from cardiform.errors import InputError, together
from cardiform.labels import BUILT_IN
from cardiform.options.checks import check_classes, check_sections, check_structure
from cardiform.options.config_files import check_repeats, typed
from cardiform.options.sections import SECTIONS
from cardiform.options.vecset import ANCHORED, LATENTS

OWN = ("lv", "rv", "myo")


def options(**config):
    return cli.from_config(SECTIONS, config)


def lines(check, *arguments) -> list[str]:
    try:
        check(*arguments)
    except InputError as error:
        return error.problems
    return []


def test_the_defaults_fit():
    assert lines(check_sections, options()) == []


@pytest.mark.parametrize(
    ("config", "start", "good"),
    [
        (
            {"vecset": {"preset": "base", "input_points": 256}},
            "vecset.input_points is 256: too few for the 512 latents",
            {"vecset": {"preset": "base", "input_points": 512}},
        ),
        (
            {"vecset": {"preset": "xl", "input_points": 1000}},
            "vecset.input_points is 1000: too few for the 1024 latents",
            {"vecset": {"preset": "small", "input_points": 1000}},
        ),
        (
            {"vecset_reconstruct": {"input_points": 100}},
            "vecset_reconstruct.input_points is 100: too few",
            {"vecset_reconstruct": {"input_points": 0}},
        ),
        (
            {"vecset": {"latents": 9000}},
            "vecset.input_points is 8192: too few for the 9000 latents",
            {"vecset": {"latents": 8192}},
        ),
        (
            {"vecset_reconstruct": {"latents": 9000}},
            "vecset_reconstruct.input_points is 8192: too few for the 9000 latents",
            {"vecset_reconstruct": {"latents": 9000, "input_points": 9000}},
        ),
        (
            {
                "vecset": {"preset": "small", "queries": "learned"},
                "vecset_reconstruct": {"latents": 600},
            },
            "vecset_reconstruct.latents is 600: with learned queries",
            {"vecset": {"preset": "small"}, "vecset_reconstruct": {"latents": 600}},
        ),
        (
            {"vecset": {"preset": "demo", "queries": "learned"}},
            "vecset.queries is learned",
            {"vecset": {"preset": "small", "queries": "learned"}},
        ),
        (
            {"vqvae": {"channels": [8, 8, 8]}},
            "vqvae.channels has 3 entries",
            {"vqvae": {"channels": [8, 8, 8, 8]}},
        ),
        (
            {"vqvae": {"blocks": [1] * 5}},
            "vqvae.blocks has 5 entries",
            {"vqvae": {"blocks": [0, 0, 0, 1]}},
        ),
        (
            {"vqvae_codebook": {"codebook_size": 100, "kmeans_latents": 99}},
            "vqvae_codebook.codebook_size is 100: more codes",
            {"vqvae_codebook": {"codebook_size": 100, "kmeans_latents": 99, "method": "gradient"}},
        ),
        (
            {"vqvae": {"backend": "spconv"}, "vqvae_joint": {"device": "cpu"}},
            "vqvae_joint.device is cpu",
            {"vqvae": {"backend": "spconv"}},
        ),
        (
            {"vqvae_pretrain": {"coarser": [128, 64]}},
            "vqvae_pretrain.coarser is 128, 64; list each once, the coarsest first",
            {"vqvae_pretrain": {"coarser": [64, 128]}},
        ),
        (
            {"vqvae_pretrain": {"coarser": [64]}, "vqvae": {"pretrained": "mine.pt"}},
            "vqvae_pretrain.coarser is set, but vqvae.pretrained",
            {"vqvae_pretrain": {"coarser": []}, "vqvae": {"pretrained": "mine.pt"}},
        ),
        (
            {"vqvae_pretrain": {"coarser": [], "coarser_steps": 9}},
            "vqvae_pretrain.coarser is empty, so coarser_steps and coarser_voxels do nothing",
            {"vqvae_pretrain": {"coarser": [64], "coarser_steps": 9}},
        ),
        (
            {"vqvae_joint": {"unfreeze_steps": 10, "steps": 30}},
            "vqvae_joint.unfreeze_steps is 10: the finest level would be trained after step 30",
            {"vqvae_joint": {"unfreeze_steps": 10, "steps": 31}},
        ),
        (
            {"coronary": {"channels": [8, 8]}},
            "coronary.blocks has 3 entries for 2 channels",
            {"coronary": {"channels": [8, 8], "blocks": [1, 0]}},
        ),
        (
            {"coronary": {"channels": [8] * 6, "blocks": [1] * 6, "patch": 16}},
            "coronary.channels has 6 entries: a patch of 16",
            {"coronary": {"channels": [8] * 5, "blocks": [1] * 5, "patch": 16}},
        ),
        (
            {"windows": {"max_points": 50}},
            "windows.max_points is 50, below windows.min_points",
            {"windows": {"max_points": 50, "min_points": 50}},
        ),
        (
            {"windows": {"windows": ["bone=300/1500", "together=50/400"]}},
            "windows.windows names a window together",
            {"windows": {"windows": ["bone=300/1500", "all=50/400"]}},
        ),
        (
            {"windows": {"linked": True}},
            "windows.linked is true, but each window has a training of its own",
            {"windows": {"linked": True, "together": True}},
        ),
        (
            {
                "windows": {"linked": True, "together": True},
                "vqvae": {"deformations": ["rotation"]},
            },
            "vqvae.deformations are drawn for each window by itself",
            {"windows": {"together": True}, "vqvae": {"deformations": ["rotation"]}},
        ),
        (
            {"vecset": {"batch_size": 4, "accumulate": 3}},
            "vecset.batch_size is 4, no multiple of its accumulate (3)",
            {"training": {"accumulate": 2}},
        ),
        (
            {
                "coronary_near": {"accumulate": 3},
                "coronary_refine": {"preset": "near", "latent_steps": 100},
            },
            "coronary_near.batch_size is 4",
            {"coronary_near": {"accumulate": 3}},  # not made
        ),
        (
            {"coronary_refine": {"preset": "near"}},
            "coronary_refine.latent_steps is 0: preset near would give every new case the same",
            {"coronary_refine": {"preset": "near", "latent_steps": 1}},
        ),
        (
            {"coronary_refine": {"preset": "near", "latent_steps": 0}},
            "coronary_refine.latent_steps is 0",
            {"coronary_refine": {"preset": "repair"}},
        ),
    ],
    ids=lambda value: value.split()[0] if isinstance(value, str) else "",
)
def test_sections_that_do_not_fit(config, start, good):
    [line] = lines(check_sections, options(**config))
    assert line.startswith(start) and ";" in line
    assert lines(check_sections, options(**good)) == []


@pytest.mark.parametrize("section", ["training", "vecset"])
def test_a_rehearsal_is_no_part_of_the_workflow(section):
    (line,) = lines(check_sections, options(**{section: {"fast_dev_run": 3}}))
    assert line.startswith(f"{section}.fast_dev_run is 3: a rehearsal makes no model.pt")
    assert "--fast-dev-run" in line


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"points": {"volume_radius": 0.5}}, "points.volume_radius is 0.5: reconstructions ask"),
        (
            {
                "points": {"volume_radius": 1.05},
                "vecset": {"slices_share": 0.5, "normals": True},
            },
            "points.volume_radius is 1.05: vecset.slices_share asks in the whole cube",
        ),
        (
            {"vecset": {"slices_share": 0.5}},
            "vecset.slices_share is 0.5: which points of a surface a contour has follows from "
            "their normals; set vecset.normals to true",
        ),
        (
            {"points": {"volume_radius": 1.05}, "vecset": {"hidden_share": 0.5}},
            "points.volume_radius is 1.05: vecset.hidden_share asks in the whole cube",
        ),
        (
            {"points": {"volume_radius": 1.05}, "vecset": {"behind_cuts": True}},
            "points.volume_radius is 1.05: vecset.behind_cuts asks in the whole cube",
        ),
    ],
)
def test_volume_points_are_where_the_network_is_asked(config, words):
    [line] = lines(check_sections, options(**config))
    assert line.startswith(words)
    assert lines(check_sections, options(points={"volume_radius": 1.05})) == []


def test_learned_latents_need_no_points_to_start_at():
    few = {"input_points": 256, "preset": "small"}
    [line] = lines(check_sections, options(vecset=few))
    assert line.startswith("vecset.input_points is 256")
    assert lines(check_sections, options(vecset={**few, "queries": "learned"})) == []


def test_a_shared_key_is_reported_of_every_training_that_it_does_not_fit():
    found = lines(check_sections, options(training={"accumulate": 3}))
    names = {line.partition(".")[0] for line in found}
    assert names == {"vecset", "vqvae_pretrain", "vqvae_codebook", "vqvae_joint", "coronary",
                     "autoencoder", "diffusion"}  # fmt: skip


def test_presets_are_those_of_the_network():
    from cardiform.vecset.model import PRESETS

    assert {name: shape.latents for name, shape in PRESETS.items()} == LATENTS
    assert tuple(name for name, shape in PRESETS.items() if shape.anchored) == ANCHORED


def test_a_table_of_other_classes_needs_no_other_defaults():
    own = options(ldm={"drop_classes": ["coronary"]})
    notes = check_classes(own, OWN, "own.tsv", BUILT_IN)
    assert [note.split()[0] for note in notes] == ["targets", "ldm.drop_classes:"]
    other = options(coronary_repair={"structure": "lv"})
    notes = check_classes(other, OWN, "own.tsv", BUILT_IN)
    assert [note.split()[0] for note in notes] == ["fusion.largest:"]
    assert check_classes(own, BUILT_IN, "", BUILT_IN) == []


@pytest.mark.parametrize(
    "config",
    [
        {"coronary_repair": {"evidence": ["aorta"]}},
        {"fusion": {"largest": ["myo", "aorta"]}},
        {"ldm": {"drop_classes": ["foo", "coronary"]}},
        {"ldm": {"drop_classes": ["Coronary"]}},
        {"coronary_repair": {"structure": "aorta"}},
        {"sampling": {"volumes": ["aorta=3"]}},
    ],
)
def test_what_is_set_must_be_in_the_table(config):
    [line] = lines(check_classes, options(**config), OWN, "own.tsv", BUILT_IN)
    ((section, keys),) = config.items()
    assert line.startswith(f"config: {section}.{next(iter(keys))} names ")
    assert line.endswith("the label table own.tsv has lv, rv, myo")


def test_some_class_must_be_left():
    [line] = lines(check_classes, options(ldm={"drop_classes": list(OWN)}), OWN, "t", BUILT_IN)
    assert "ldm.drop_classes leaves no class" in line
    wanted = options(ldm={"drop_classes": ["lv"]}, sampling={"volumes": ["lv=3", "rv=2"]})
    [line] = lines(check_classes, wanted, OWN, "t", BUILT_IN)
    assert line.startswith("config: sampling.volumes names lv, which ldm.drop_classes")


def test_the_structure_is_needed_by_its_targets_alone():
    assert check_classes(options(), OWN, "own.tsv", BUILT_IN)
    [line] = lines(check_structure, options(), OWN, "own.tsv")
    assert (
        line.startswith("coronary_repair.structure is coronary") and "set it to one of lv" in line
    )
    refined = options(cohort={"use_refined": True})
    [line] = lines(check_classes, refined, OWN, "own.tsv", BUILT_IN)
    assert line.startswith("coronary_repair.structure is coronary")
    own = options(coronary_repair={"structure": "lv"}, cohort={"use_refined": True})
    assert lines(check_classes, own, OWN, "own.tsv", BUILT_IN) == []


def test_problems_of_several_steps_come_together():
    def fails(*problems):
        raise InputError(problems)

    assert together(lambda: 1, lambda: None) == [1, None]
    assert lines(together, lambda: fails("a", "b"), lambda: 1, lambda: fails("c")) == [
        "a",
        "b",
        "c",
    ]


# --- a config as it is written


@pytest.mark.parametrize(
    ("section", "written", "taken"),
    [
        ("vecset", {"steps": "5", "seed": "+7"}, {"steps": 5, "seed": 7}),
        ("vecset", {"num_workers": "0", "lr": "1e-3"}, {"workers": 0, "lr": 1e-3}),
        ("vqvae", {"augment": "false", "checkpointing": "Yes"},
         {"augment": False, "checkpointing": True}),
        ("vqvae", {"blocks": ["1", "0", "0", "1"], "pretrained": "null"},
         {"blocks": (1, 0, 0, 1), "pretrained": ""}),
        ("diffusion", {"attention_levels": ["false", "true"]}, {"attention_levels": (False, True)}),
        ("points", {"near_sigma": ["0.01", "1e-2"]}, {"near_sigma": (0.01, 0.01)}),
        ("cohort", {"name": "2024", "table": "~"}, {"name": "2024", "table": ""}),
        ("ldm", {"drop_classes": ["coronary"]}, {"drop_classes": ("coronary",)}),
        ("ldm", {"drop_classes": []}, {"drop_classes": ()}),
    ],
)  # fmt: skip
def test_texts_of_the_command_line_are_taken_as_the_types_of_the_options(section, written, taken):
    config = typed({section: written}, SECTIONS)
    found = cli.from_config(SECTIONS, config)[section]
    assert {name: getattr(found, name) for name in taken} == taken
    assert all(type(getattr(found, n)) is type(v) for n, v in taken.items())


@pytest.mark.parametrize("nothing", ["", "null", "~", None, {}])
def test_a_section_of_nothing_is_at_its_defaults(nothing):
    assert cli.from_config(SECTIONS, typed({"vecset": nothing}, SECTIONS)) == options()


@pytest.mark.parametrize(
    ("section", "key", "text"),
    [
        ("vecset", "steps", "5.5"), ("vecset", "steps", "five"), ("vecset", "steps", "null"),
        ("vecset", "steps", ""), ("vecset", "steps", "true"), ("vecset", "lr", "fast"),
        ("vqvae", "augment", "2"), ("vqvae", "augment", "nein"), ("vqvae", "blocks", "1"),
        ("ldm", "drop_classes", "coronary"), ("ldm", "drop_classes", "null"),
        ("vecset", "no_key", "1"),
    ],
)  # fmt: skip
def test_nonsense_of_the_command_line_is_refused(section, key, text):
    [line] = lines(cli.from_config, SECTIONS, typed({section: {key: text}}, SECTIONS))
    assert line.startswith(f"config: {section}.{key} is ")


def test_what_is_typed_already_stays(tmp_path):
    config = {n: dataclasses.asdict(cls()) for n, cls in SECTIONS.items()}
    plain = {n: {k: list(v) if isinstance(v, tuple) else v for k, v in section.items()}
             for n, section in config.items()}  # fmt: skip
    assert typed(plain, SECTIONS) == plain
    assert typed({"no_section": "5", "x": {"y": "5"}}, SECTIONS) == {
        "no_section": "5",
        "x": {"y": "5"},
    }


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("vecset: {lr: 1}\npoints: {}\nvecset:\n  seed: 1\n", ":3: vecset is in line 1 already"),
        ("vecset:\n  lr: 1\n  seed: 1\n  lr: 2\n", ":4: vecset.lr is in line 2 already"),
        ("vecset:\n  workers: 1\n  num_workers: 2\n",
         ":3: vecset.num_workers (another name of workers) is in line 2 already"),
        ('{"vecset": {},\n "vecset": {}}', ":2: vecset is in line 1 already"),
        ("vecset: {lr: 1, lr: 1}\n", ":1: vecset.lr is in line 1 already"),
        ("heart:\n vecset:\n  lr: 1\n  lr: 1\n", ":4: heart.vecset.lr is in line 3 already"),
    ],
)  # fmt: skip
def test_what_is_written_twice_in_a_file_is_refused(tmp_path, text, words):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    [line] = lines(check_repeats, [path, str(path)], SECTIONS)
    assert line.startswith(f"{path}{words}; keep one")


def test_files_may_repeat_each_other_and_use_anchors(tmp_path):
    first, second = tmp_path / "a.yaml", tmp_path / "b.yaml"
    first.write_text("vqvae_pretrain: &s\n  lr: 1\nvqvae_joint:\n  <<: *s\n  lr: 2\n")
    second.write_text("vqvae_joint: {lr: 3}\n")
    missing, broken = tmp_path / "none.yaml", tmp_path / "broken.yaml"
    broken.write_bytes(b"a: [\xff")
    check_repeats([first, second, missing, broken], SECTIONS)
