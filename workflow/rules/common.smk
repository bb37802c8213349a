"""The config, the cases, the chunks and what every rule needs to call its script."""

import os
import shlex
import sys
from dataclasses import asdict, fields, replace
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.utils import validate

# Of this file: where another workflow takes this one as a module, workflow.basedir is its own.
WORKFLOW = Path(workflow.current_basedir.get_path_or_uri(secret_free=True)).parent
SCRIPTS = WORKFLOW / "scripts"
if not SCRIPTS.is_dir():
    raise WorkflowError(
        f"{WORKFLOW}: no folder of this machine; clone the repository, and name the path of its "
        "workflow/Snakefile"
    )
sys.path.insert(0, str(SCRIPTS))

from cardiform import cli, labels
from cardiform.apply.models import files_of
from cardiform.cohort import splits
from cardiform.cohort.free_columns import check_free_columns
from cardiform.cohort.table import (
    OK,
    assign_chunks,
    check_column,
    demo_cases,
    read_case_table,
)
from cardiform.errors import InputError, together
from cardiform.files import check_writable, parts_of, unwritable
from cardiform.geometry.window_names import parse_windows
from cardiform.ldm.option_checks import (
    check_label_maps,
    check_ldm,
    check_origin,
    check_vessel_grid,
    check_vessels,
    diffusion_mb,
)
from cardiform.options.checks import (
    TRACED,
    check_batch,
    check_classes,
    check_coarser,
    check_sections,
    check_structure,
    unfreezing_faults,
)
from cardiform.options.config_files import check_repeats, typed
from cardiform.options.sections import SECTIONS
from cardiform.options.statistics import LatentStatisticsOptions
from cardiform.set_diffusion.option_checks import (
    check_nothing_known,
    check_preset,
    check_sampling,
    check_set_diffusion,
    check_voxels,
)


def script(name):
    """A script as a parameter. Snakemake tracks builtin types only: a checkout that moves
    makes nothing out of date."""
    return SCRIPTS / name


def training(arguments):
    """The shell line of a training, on all GPUs and nodes of its job."""
    return (
        "python {params.launcher:q} --gpus {resources.gpu} --nodes {resources.nodes}"
        f" --minutes {{resources.runtime}} {{params.script:q}}{arguments} 2>&1 | tee {{log}}"
    )


def one_process(arguments):
    """The shell line of a job that uses one GPU at most."""
    return (
        "python {params.launcher:q} --gpus {resources.gpu} --single {params.script:q}"
        f"{arguments} 2>&1 | tee {{log}}"
    )


def flags(section, **changes):
    """The options of a config section as sorted command-line flags."""
    return cli.flags(replace(OPTIONS[section], **changes))


def shared_flags(options, *sections):
    """The flags of a script that takes keys of several config sections; the first that has a key
    holds."""
    values = {}
    for section in reversed(sections):
        values |= vars(OPTIONS[section])
    return cli.flags(options(**{field.name: values[field.name] for field in fields(options)}))


def existing(paths):
    """The files that are there: check_cohort reports all missing ones at once, where
    Snakemake would stop at the first."""
    return [path for path in paths if os.path.exists(path)]


def labels_flag(wildcards=None):
    return f"--labels {shlex.quote(COHORT.labels)}" if COHORT.labels else ""


def chunk_files(wildcards):
    """All files of the cases of a chunk: the demo's are made by a rule, a user's are there or
    reported. They are inputs of no other job: many files make a plan slow.
    """
    paths = [path for case_id in CHUNKS[wildcards.chunk] for path in CASES[case_id].files]
    return paths if IS_DEMO else existing(part for path in paths for part in parts_of(path))


def chunk_rows(wildcards):
    """Which files each case of a chunk has, column by column, whether it is left out, and what
    its table says is cut."""
    cases = [CASES[case_id] for case_id in CHUNKS[wildcards.chunk]]
    return [
        [
            *(case.labels, case.image, case.pointcloud, case.truth, *case.mesh_files),
            *([case.status] if case.status != OK else []),
            *([case.cut] if case.cut else []),
        ]
        for case in cases
    ]


def series_of_chunk(wildcards):
    """The DICOM series of the cases of a chunk, where exports need them."""
    if "dcm" not in OPTIONS["exports"].formats:
        return []
    return [CASES[case_id].dicom for case_id in CHUNKS[wildcards.chunk]]


def chunk_cases(wildcards):
    return " ".join(CHUNKS[wildcards.chunk])


def chunk_threads(wildcards):
    """A chunk of one case has nothing to share out."""
    return min(len(CHUNKS[wildcards.chunk]), 4)


def folder_of_output(wildcards, output):
    return str(Path(output[0]).parent)


def folder_and_labels(wildcards, output):
    """For trainings that store the label table and compute nothing from it: what follows from
    outputs is no parameter for Snakemake. Their samples follow from the table, so another one
    runs them again all the same."""
    return f"{folder_of_output(wildcards, output)} {labels_flag()}".strip()


def folder_of_stage(wildcards, output):
    """results/acme/meshes of results/acme/meshes/manifest/chunk_000.tsv"""
    return str(Path(output[0]).parents[1])


def folder_of_meshes(wildcards, input):
    first = input.meshes if isinstance(input.meshes, str) else input.meshes[0]
    return str(Path(first).parents[1])


def manifests(stage):
    return expand(f"{RESULTS}/{stage}/manifest/{{chunk}}.tsv", chunk=CHUNKS)


def fused_chunk(wildcards):
    """What the geometry stages read in place of the given label maps."""
    return f"{RESULTS}/fused/manifest/{wildcards.chunk}.tsv" if COHORT.use_refined else []


def texts_of_config():
    """Every text of the config, and the paths of the case table."""
    values = [value for options in OPTIONS.values() for value in asdict(options).values()]
    texts = [value for value in values if isinstance(value, str)] + [*OPTIONS["apply"].models]
    cases = [*CASES.values(), *NEW_CASES.values()]
    return [*texts, *(path for case in cases for path in case.files)]


def known_cases():
    if IS_DEMO:
        return demo_cases(OPTIONS["demo"].cases, DEMO_FOLDER)
    return read_case_table(COHORT.table)


def label_table_of_config():
    """The label table, and notes on classes that the config names and it does not have."""
    table = labels.load_label_table(COHORT.labels)
    return table, check_classes(OPTIONS, table.names, COHORT.labels, labels.BUILT_IN)


def if_fit(check, path):
    """An input of a job that can be done where ``check`` finds nothing; its lines otherwise.

    For what concerns some targets alone. Snakemake shows an error that a function of an input
    raises with a traceback, and the name of a missing file as it is.
    """
    try:
        check()
    except InputError as error:
        return error.problems
    return path


def has_column(column):
    """Whether a case that is used has an entry in a column of the case table."""
    return any(getattr(case, column) for case in CASES.values() if case.status == OK)


def checked_chunk(column):
    """The manifest of check_cases of a chunk, where the case table has what the job reads."""
    return lambda wildcards: if_fit(
        lambda: check_column(CASES.values(), column, COHORT.table),
        f"{RESULTS}/qc/manifest/{wildcards.chunk}.tsv",
    )


def checked_chunks(column):
    """The same of all chunks."""
    return lambda wildcards: if_fit(
        lambda: check_column(CASES.values(), column, COHORT.table), manifests("qc")
    )


def structure_known(*keys):
    together(
        lambda: check_column(CASES.values(), "labels", COHORT.table),
        lambda: check_structure(OPTIONS, TABLE.names, COHORT.labels, *keys),
    )


def traced_known():
    structure_known(TRACED)


def vessels_known():
    """Vessels are grown from the aorta."""
    together(
        traced_known,
        lambda: check_origin(OPTIONS["coronary_trace"].structure, TABLE.names),
    )


def vessels_possible():
    together(
        vessels_known,
        lambda: check_vessel_grid(OPTIONS["ldm"].voxel_size, OPTIONS["vessels"]),
        lambda: check_batch("vessels", OPTIONS["vessels"]),
    )


def set_diffusion_possible():
    together(
        lambda: check_preset(OPTIONS["vecset"].preset),
        lambda: check_voxels(OPTIONS["set_sampling"]),
        lambda: check_nothing_known(OPTIONS["set_sampling"]),
        lambda: check_batch("set_diffusion", OPTIONS["set_diffusion"]),
    )


def samples_as_label_maps(path, section="sampling"):
    """The metrics.json of samples for rules that read their label maps; or what is against it."""

    def check():
        check_label_maps(section, OPTIONS[section])

    return lambda wildcards: if_fit(check, path.format(**dict(wildcards)))


def apply_possible():
    if not NEW_TABLE:
        raise InputError("config: apply.table is empty; name the case table of the new label maps")
    check_column(NEW_CASES.values(), "labels", NEW_TABLE)
    files_of(MODELS)


def models_as_they_are(wildcards):
    """Path, size and time of the models' files. They are no inputs: what makes them would run too,
    a training for a case that was added to its cohort, say. Where one has changed the job runs,
    and compares the bytes."""
    if not NEW_TABLE:
        return []
    return stamps(files_of(MODELS))


def stamps(paths):
    """Path, size and time of files, as a parameter: the job runs again where one has changed."""
    found = [(path, os.stat(path)) for path in paths]
    return [[str(path), file.st_size, file.st_mtime_ns] for path, file in found]


def asked_for(targets, or_there=False):
    """The files of those targets that this call names, or a file of which it names.

    targets : name -> files.    or_there : also files that are there already.
    """
    settings = workflow.dag_settings
    named = set(settings.targets if settings else ())
    return [
        path
        for target, files in targets.items()
        for path in files
        if named & {target, *files} or (or_there and os.path.exists(path))
    ]


def stamps_beside(targets):
    """The stamps of files of targets that this call does not ask for, where they are there."""
    asked = asked_for(targets)
    paths = [path for files in targets.values() for path in files if path not in asked]
    return stamps(existing(paths))


def new_files(wildcards):
    cases = [NEW_CASES[case_id] for case_id in NEW_CHUNKS[wildcards.chunk]]
    named = [path for case in cases for path in (case.labels, case.truth) if path]
    return existing(part for path in named for part in parts_of(path))


def split_of(wildcards):
    """The options of the config's split, or of a fold."""
    options = OPTIONS["split"]
    return replace(options, fold=int(wildcards.fold.split("/")[1])) if wildcards.fold else options


def split_possible(wildcards):
    """Cases that are skipped later only make the parts smaller."""
    splits.split_cases(CASES.values(), split_of(wildcards))


def folds_possible():
    if not FOLDS:
        raise InputError("config: split.folds is 0; set it to 3 or more for a k-fold")


def in_folds(path):
    """A file of every fold."""
    return lambda wildcards: if_fit(
        folds_possible, [path.format(fold=f"folds/{n}/", **dict(wildcards)) for n in FOLDS]
    )


def held_out(wildcards):
    """Folder and rule of the figures of a family."""
    folder = f"{wildcards.family}/reconstructions"
    made_by = f"reconstruct_{wildcards.family.partition('_')[0]}"
    return HELD_OUT.get(wildcards.family, (folder, made_by))


def completion_possible():
    if not COMPLETES:
        raise InputError(
            "config: no class is completed, which ldm_folds measures; set diffusion.known_share "
            "above 0, and ldm.sources to labels"
        )


def figures_in_folds(wildcards):
    """metrics.json of every fold, or what stands against it."""
    paths = in_folds(f"{OF_SPLIT}{held_out(wildcards)[0]}/metrics.json")(wildcards)
    return if_fit(completion_possible, paths) if wildcards.family == "ldm" else paths


def with_files(text, files):
    """Flags, and those of some files. Not taken from a rule's inputs: Snakemake does not compare
    what depends on these with what it was in the last run."""
    return " ".join([text, *(f"--{name} {shlex.quote(path)}" for name, path in files.items())])


def split_file(part):
    """A part of the split of a source; the samples of one file have no folds."""

    def path(wildcards):
        own = ONE_FILE and wildcards.source == "pointclouds"
        return f"{OWN_SPLIT if own else f'{RESULTS}/{wildcards.fold}split'}/{part}.csv"

    return path


def judges(wildcards):
    """The hearts that judge the samples of a source, where these may be drawn again."""
    if not OPTIONS["sampling"].redraw:
        return {}
    voxels = f"{LDM}/{wildcards.source}/voxels/manifest.tsv"
    return {"voxels": voxels, "train": split_file("train")(wildcards)}


try:
    # Before the schema: these messages name the key in one line.
    CONFIG = typed(config, SECTIONS)
    *_, OPTIONS = together(
        lambda: check_writable((".", ".snakemake")) if workflow.is_main_process else None,
        lambda: check_repeats([*workflow.configfiles, *workflow.overwrite_configfiles], SECTIONS),
        lambda: cli.from_config(SECTIONS, CONFIG),
    )
    COHORT = OPTIONS["cohort"]
    IS_DEMO = not COHORT.table
    DEMO_FOLDER = "resources/demo"
    CASE_TABLE = COHORT.table or f"{DEMO_FOLDER}/cases.tsv"
    LDM_SECTIONS = ("ldm", "autoencoder", "diffusion", "sampling", "completion")
    SET_PARTS = ("latents", "diffusion", "sampling")
    NEW_TABLE = OPTIONS["apply"].table
    WINDOWS, (TABLE, NOTES), CASES, NEW_CASES, *_ = together(
        lambda: parse_windows(OPTIONS["windows"].windows),
        label_table_of_config,
        lambda: {case.case_id: case for case in known_cases()},
        lambda: {c.case_id: c for c in read_case_table(NEW_TABLE)} if NEW_TABLE else {},
        lambda: splits.check_shares(OPTIONS["split"]),
        lambda: check_sections(OPTIONS),
        lambda: check_ldm(*(OPTIONS[name] for name in LDM_SECTIONS)),
        lambda: check_vessels(OPTIONS["vessels"]),
        lambda: check_set_diffusion(OPTIONS["set_diffusion"]),
        lambda: check_sampling(*(OPTIONS[f"set_{part}"] for part in SET_PARTS)),
        lambda: check_free_columns(
            COHORT.table, OPTIONS["set_latents"].columns, "set_latents.columns"
        ),
        lambda: check_free_columns(COHORT.table, OPTIONS["norms"].groups, "norms.groups"),
        lambda: check_free_columns(
            COHORT.table, OPTIONS["shape_statistics"].columns, "shape_statistics.columns"
        ),
    )
    CHUNKS, NEW_CHUNKS, _ = together(
        lambda: assign_chunks(CASES, COHORT.chunks),
        lambda: assign_chunks(NEW_CASES, COHORT.chunks),
        lambda: cli.check_plannable(texts_of_config()),
    )
except InputError as error:
    raise WorkflowError("\n".join(error.problems)) from None

validate(
    {name: section or {} for name, section in CONFIG.items()},
    str(WORKFLOW / "schemas" / "config.schema.json"),
)

RESULTS = f"results/{COHORT.name}"
# What follows from a split: once for the split of the config, and once for each fold of a k-fold,
# whose wildcard is "folds/0/" then and empty otherwise.
OF_SPLIT = f"{RESULTS}/{{fold}}"
FOLDS = range(OPTIONS["split"].folds)
MODELS = [Path(folder) for folder in OPTIONS["apply"].models or [RESULTS]]
LOGS = f"logs/{COHORT.name}"
if workflow.is_main_process:
    # a dry-run may look at results that it could not write
    for note in [*NOTES, *unwritable((RESULTS, LOGS))]:
        logger.warning(f"note: {note}")
# A cohort of meshes: its voxels come from these.
FROM_MESHES = has_column("meshes") and not has_column("labels")
HAS_STRUCTURE = OPTIONS["coronary_repair"].structure in TABLE.names
LABEL_TABLE = [COHORT.labels] if COHORT.labels else []
# What the geometry stages read: the case table of the given label maps, or of the fused ones.
CASE_LIST = f"{RESULTS}/fused/cases.tsv" if COHORT.use_refined else f"{RESULTS}/cases.tsv"
# For a chunk's stage: cases.tsv lists other cases, too, and its own come with the chunk's
# manifest of check_cases. Fused label maps change all together, with the refinement.
CHUNK_CASES = CASE_LIST if COHORT.use_refined else ancient(CASE_LIST)


# A stop that is asked for (Ctrl-C, or the SIGTERM that SLURM sends to all processes of a job) is
# handled by the script: it saves and logs it. The shell and tee outlive it, or the script would
# die of its closed pipe before it has saved.
shell.prefix(
    "set -euo pipefail; trap : TERM INT; " "tee() {{ (trap '' TERM INT; exec tee \"$@\"); }}; "
)


wildcard_constraints:
    chunk="[A-Za-z0-9._-]+",
    fold="(folds/[0-9]+/)?",
