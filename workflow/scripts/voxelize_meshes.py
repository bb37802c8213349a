"""Turn mesh files (PLY, STL, OBJ; millimetres) into sparse voxels, for cohorts of meshes.

    python voxelize_meshes.py --cases results/acme/cases.tsv --out results/acme/sparse/512 \\
        --manifest results/acme/sparse/512/manifest/all.tsv
    python voxelize_meshes.py --meshes hearts/*.stl --out results/acme/sparse/512 \\
        --manifest results/acme/sparse/512/manifest/all.tsv

The column meshes of the case table names a folder for each case, whose files are called like their
structures, or a mesh file. With --meshes every file is a case, called like the file. Writes
<out>/<case>/<structure>.npz (mesh.npz of a single file), the structures of a case in one unit frame
(see docs/vqvae.md). Flaws of a mesh (turned or doubled faces, stray vertices, small holes) are
repaired, and listed in repairs.json beside it; a mesh whose inside is not defined is refused.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path

from cardiform import cli
from cardiform.cohort import per_case
from cardiform.cohort.table import Case, id_remedy
from cardiform.errors import InputError, problem
from cardiform.options.geometry import VoxelsOptions


def main() -> None:
    parser = cli.build_parser(__doc__, VoxelsOptions)
    group = parser.add_argument_group("files")
    group.add_argument("--cases", type=Path, help="cases.tsv of check_cohort")
    group.add_argument("--select", nargs="+", default=[], metavar="CASE", help="default: all")
    group.add_argument("--meshes", nargs="+", type=Path, help="mesh files, each of them a case")
    group.add_argument("--out", required=True, type=Path, help="output folder")
    group.add_argument("--manifest", required=True, type=Path, help="manifest to write, TSV")
    group.add_argument("--processes", type=int, default=1, help="cases at a time (default: 1)")
    options, args = cli.parse(parser, VoxelsOptions)
    if bool(args.cases) == bool(args.meshes):
        parser.error("name either --cases or --meshes")

    from cardiform.geometry.mesh_to_band import called, structures, voxelize_meshes

    if args.cases:
        run = cli.case_run(args, "meshes")
        without = {"status": "skipped", "reason": "no meshes"}
        run = replace(run, cases=[c if c.meshes else replace(c, **without) for c in run.cases])
    else:
        cases, problems = cases_of(args.meshes)
        if problems:
            raise InputError(problems + unusable(args.meshes))
        run = per_case.CaseRun(cases, args.out, args.manifest, args.processes)
    per_case.run_cases(
        run,
        functools.partial(voxelize_meshes, options=options, out=args.out),
        inputs=lambda case: list(structures(case).values()),
        parameters=lambda case: {"options": cli.flags(options), **called(case)},
    )


def cases_of(paths: list[Path]) -> tuple[list[Case], list[str]]:
    """A case per mesh, called like its file, and what is wrong with the names."""
    problems: list[str] = []
    found: dict[str, Path] = {}
    for path in paths:
        if remedy := id_remedy(path.stem):
            problems.append(problem(path, "its name makes no case id", remedy))
        elif path.stem in found:
            problems.append(problem(path, f"is called like {found[path.stem]}", "rename one"))
        found.setdefault(path.stem, path)
    cases = [Case(case_id=n, patient_id=n, meshes=str(p)) for n, p in sorted(found.items())]
    return cases, problems


def unusable(paths: list[Path]) -> list[str]:
    """What is wrong with the meshes themselves: a call reports all faults of its files."""
    from cardiform.geometry.mesh_files import read_mesh
    from cardiform.geometry.mesh_repair import repaired

    problems = []
    for path in paths:
        try:
            repaired(read_mesh(path), str(path))
        except InputError as error:
            problems += error.problems
    return problems


if __name__ == "__main__":
    cli.run(main)
