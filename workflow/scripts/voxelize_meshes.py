"""Turn mesh files (PLY, STL, OBJ; millimetres) into sparse voxels, for cohorts of meshes.

    python voxelize_meshes.py --meshes hearts/*.stl --out results/acme/sparse/512 \\
        --manifest results/acme/sparse/512/manifest/all.tsv

Writes <out>/<name of the file>/mesh.npz, each in a unit frame of its own (see docs/vqvae.md).
Flaws of a mesh (turned or doubled faces, stray vertices, small holes) are repaired, and listed in
repairs.json beside it; a mesh whose inside is not defined is refused.
"""

from __future__ import annotations

import functools
from pathlib import Path

from cardiform import cli
from cardiform.cohort import per_case
from cardiform.cohort.table import Case, id_remedy
from cardiform.errors import InputError, problem
from cardiform.options.geometry import VoxelsOptions


def main() -> None:
    parser = cli.build_parser(__doc__, VoxelsOptions)
    group = parser.add_argument_group("files")
    group.add_argument("--meshes", required=True, nargs="+", type=Path, help="mesh files")
    group.add_argument("--out", required=True, type=Path, help="output folder")
    group.add_argument("--manifest", required=True, type=Path, help="manifest to write, TSV")
    group.add_argument("--processes", type=int, default=1, help="meshes at a time (default: 1)")
    options, args = cli.parse(parser, VoxelsOptions)

    from cardiform.geometry.mesh_to_band import voxelize_mesh

    cases, problems = cases_of(args.meshes)
    if problems:
        raise InputError(problems + unusable(args.meshes))
    per_case.run_cases(
        per_case.CaseRun(cases, args.out, args.manifest, args.processes),
        functools.partial(voxelize_mesh, options=options, out=args.out),
        inputs=lambda case: [case.labels],
        parameters={"options": cli.flags(options)},
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
    cases = [Case(case_id=n, patient_id=n, labels=str(p)) for n, p in sorted(found.items())]
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
