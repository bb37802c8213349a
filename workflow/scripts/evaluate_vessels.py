"""Figures of the vessels that were drawn into hearts, beside true ones.

    python evaluate_vessels.py --trees results/acme/ldm/labels/vessels/trees/manifest.tsv \\
        --drawn results/acme/ldm/labels/vessels/hearts/manifest.tsv \\
        --train results/acme/split/train.csv --test results/acme/split/test.csv \\
        --out results/acme/ldm/labels/vessels/figures.json

Which share hangs together with the aorta, numbers of parts, lengths, ends and radii against those
of the test cases (Wasserstein distance over their deviation), and the distance to the nearest
training tree: for vessels of generated hearts, for those drawn into the hearts of test cases, for
the training's own trees, and for what the coarse grid keeps of the true ones.
"""

from __future__ import annotations

import logging
from pathlib import Path

from cardiform import cli
from cardiform.cohort import splits
from cardiform.cohort.manifest import made_files, read_manifest
from cardiform.errors import InputError, problem

log = logging.getLogger("evaluate_vessels")


def main() -> None:
    parser = cli.build_parser(__doc__)
    group = parser.add_argument_group("files")
    group.add_argument("--trees", required=True, type=Path, help="manifest of encode_vessels")
    group.add_argument("--drawn", required=True, type=Path, help="manifest of draw_vessels")
    cli.add_split_arguments(group, "train", "test")
    group.add_argument("--out", required=True, type=Path, help="figures to write, JSON")
    (args,) = cli.parse(parser, out_is_file=True)

    from cardiform.ldm.vessels.draw_case import DRAWN
    from cardiform.ldm.vessels.figures import compare, lines
    from cardiform.ldm.vessels.tree import load_tree
    from cardiform.metrics.record import write_held_out_figures

    rows = splits.read_splits({part: getattr(args, part) for part in ("train", "test")})
    true = {}
    for part, found in rows.items():
        files = made_files([args.trees], [name for name, _ in found], ".npz")
        loaded = {file.case_id: load_tree(file.path) for file in files}
        true[part] = {name: stored.tree for name, stored in loaded.items() if stored.known}
        if len(true[part]) < 2:
            fact = f"has fewer than two cases with a tree in {args.trees}"
            raise InputError(problem(getattr(args, part), fact, "there is nothing to measure by"))
    names = list(dict.fromkeys(row["case_id"] for row in read_manifest(args.drawn)))
    trees, reports, coded = (
        {file.case_id: file.path for file in made_files([args.drawn], names, ending)}
        for ending in ("tree.npz", ".json", "coded.npz")
    )
    if not trees:
        raise InputError(problem(args.drawn, "lists no heart", "run draw_vessels again"))
    tested = {name for name, _ in rows["test"]}
    drawn = {
        part: {n: load_tree(path).tree for n, path in trees.items() if (n in tested) == real}
        for part, real in (("test", True), ("generated", False))
    }
    figures = {
        part: {name: DRAWN.load(reports[name])["vessels"] for name in found}
        for part, found in drawn.items()
    }
    kept = {name: load_tree(path).tree for name, path in coded.items()}
    result = compare(drawn, figures, true["test"], kept, true["train"])
    for line in lines(result):
        log.info("%s", line)
    write_held_out_figures(args.out, "evaluate_vessels", result, None)


if __name__ == "__main__":
    cli.run(main)
