"""HDF5 point clouds to voxels: bounds and scale fixed for the whole data set, affine in mm.

    python convert_pointclouds.py --cases results/acme/cases.tsv \\
        --out results/acme/ldm/pointclouds/voxels \\
        --manifest results/acme/ldm/pointclouds/voxels/manifest.tsv --voxel-size 64
    python convert_pointclouds.py --file clouds.h5 --key point_clouds --out voxels \\
        --manifest voxels/manifest.tsv
    python convert_pointclouds.py --file my_voxels --out voxels --manifest voxels/manifest.tsv

The clouds come from the column pointcloud of the case table, or are the samples of one file:
datasets (N, 3) or (samples, N, 3), rows of variable length, or a group or dataset per sample. They
are read one at a time. Writes <out>/<case>.nii.gz and <out>/grid.json: a label map where the points
have classes, else a field in [0, 1]; with --file also <out>/cases.tsv. --file may be a folder of
ready voxels (NIfTI, integers are classes, floats a density); where they lie in train, val and test
below it, <out>/split has the split files.
"""

from __future__ import annotations

import functools
from pathlib import Path

from cardiform import cli, labels
from cardiform.cohort import per_case, splits
from cardiform.cohort.table import OK, Case, id_remedy, read_checked_cases, write_cases
from cardiform.errors import InputError, problem
from cardiform.files import future_problems, sha256_file, write_json
from cardiform.options.ldm import LdmOptions, PointcloudsOptions


def clouds_of(options: PointcloudsOptions, args) -> tuple[list, dict, list[str]]:
    """The cases, case id -> (name of the sample, its file), and what is wrong with files."""
    from cardiform.volumes.clouds import CloudFile

    if options.file:
        problems = future_problems([options.file])
        try:
            file = CloudFile(options.file, options)
        except InputError as error:
            raise InputError(problems + error.problems) from None
        unfit = [name for name in file.names if id_remedy(name)]
        if unfit:
            fact = f"has samples that are not usable as ids: {', '.join(map(ascii, unfit[:5]))}"
            problems.append(problem(options.file, fact, id_remedy(unfit[0])))
        cases = [
            Case(case_id=n, patient_id=n, labels=str(args.out / f"{n}.nii.gz"), status="ok")
            for n in file.names
        ]
        return cases, {name: (name, file) for name in file.names}, problems
    if not args.cases:
        raise InputError("name --cases with a column pointcloud, or one --file")
    cases = read_checked_cases(args.cases, args.select, "pointcloud")
    problems, files = [], {}
    for case in cases:
        if case.status != OK:
            continue
        try:
            if not case.pointcloud:
                fact = f"{case.case_id} has no point cloud"
                raise InputError(problem(args.cases, fact, "name one in the column pointcloud"))
            file = CloudFile(case.pointcloud, options)
            files[case.case_id] = (file.only(), file)
        except InputError as error:
            problems += error.problems
    if not files and not problems:
        raise InputError(problem(args.cases, "has no usable case", "correct --select"))
    return cases, files, problems


def take_over_folder(ldm: LdmOptions, options: PointcloudsOptions, args, table) -> None:
    """Voxels that are ready: checked, and brought into the form of all others."""
    from cardiform.ldm.voxel_folder import VoxelFolder, take_over

    folder = VoxelFolder.of(options.file)
    grid = folder.grid(ldm, options, table)
    write_json(args.out / "grid.json", grid.as_dict())
    cases = folder.cases(args.out)
    per_case.run_cases(
        per_case.CaseRun(cases, args.out, args.manifest, args.processes),
        functools.partial(take_over, grid=grid, files=folder.files, out=args.out),
        inputs=lambda case: [folder.files[case.case_id]],
        parameters=grid.as_dict(),
    )
    write_cases(args.out / "cases.tsv", cases)
    for part, names in folder.parts.items():
        members = [case for case in cases if case.case_id in set(names)]
        splits.write_split(args.out / "split" / f"{part}.csv", members, args.out)


def main() -> None:
    parser = cli.build_parser(__doc__, LdmOptions, PointcloudsOptions)
    cli.add_case_arguments(parser, cases_required=False)
    ldm, options, args = cli.parse(parser, LdmOptions, PointcloudsOptions)
    if args.select and options.file:
        raise InputError("--select needs --cases; of --file all samples are taken")

    from cardiform.ldm.clouds_on_grid import CloudBounds, cloud_grid, convert_cloud
    from cardiform.ldm.hearts_on_grid import taking_part
    from cardiform.ldm.outside import report_clouds

    table = taking_part(labels.load_label_table(args.labels), ldm.drop_classes)
    if Path(options.file).is_dir() and options.file:
        take_over_folder(ldm, options, args, table)
        return
    cases, files, problems = clouds_of(options, args)
    ordered = list(files.values())
    bounds = CloudBounds.of(ordered, table, problems)
    grid = cloud_grid(ordered, bounds, ldm, options, table)
    write_json(args.out / "grid.json", grid.stored())
    centers = {name: bounds.center(i, options) for i, name in enumerate(files)}
    report_clouds(files, bounds, options, grid)
    whole = {"file": sha256_file(options.file)} if options.file else {}
    per_case.run_cases(
        per_case.CaseRun(cases, args.out, args.manifest, args.processes),
        functools.partial(
            convert_cloud,
            grid=grid,
            files=files,
            centers=centers,
            options=options,
            out=args.out,
        ),
        inputs=lambda case: [] if options.file else [case.pointcloud],
        parameters=lambda case: {
            "grid": grid.as_dict(),
            "options": cli.flags(options),
            "center": centers[case.case_id].tolist(),
            **whole,
        },
    )
    if options.file:
        write_cases(args.out / "cases.tsv", cases)


if __name__ == "__main__":
    cli.run(main)
