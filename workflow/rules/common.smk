"""The config, the cases, the chunks and what every rule needs to call its script."""

import shlex
import sys
from dataclasses import asdict, replace
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.utils import validate

WORKFLOW = Path(workflow.basedir)
SCRIPTS = WORKFLOW / "scripts"
sys.path.insert(0, str(SCRIPTS))

from cardiform import cli, cohort, ct_windows, labels, ldm_checks, splits
from cardiform.errors import InputError
from cardiform.options import SECTIONS


def script(name):
    """A script as a parameter. Snakemake tracks builtin types only: a checkout that moves
    makes nothing out of date."""
    return SCRIPTS / name


def flags(section, **changes):
    """The options of a config section as sorted command-line flags."""
    return cli.flags(replace(OPTIONS[section], **changes))


def existing(paths):
    """The files that are there: check_cohort tells of all missing ones at once, where
    Snakemake would stop at the first."""
    return [path for path in paths if Path(path).exists()]


def labels_flag(wildcards=None):
    return f"--labels {shlex.quote(COHORT.labels)}" if COHORT.labels else ""


def chunk_files(wildcards):
    """All files of the cases of a chunk: the demo's are made by a rule, a user's are there or
    reported. They are inputs of no other job: many files make a plan slow.
    """
    paths = [path for case_id in CHUNKS[wildcards.chunk] for path in CASES[case_id].files]
    return paths if IS_DEMO else existing(paths)


def chunk_rows(wildcards):
    """Which files each case of a chunk has, column by column."""
    cases = [CASES[case_id] for case_id in CHUNKS[wildcards.chunk]]
    return [[case.labels, case.image, case.pointcloud, case.truth] for case in cases]


def chunk_cases(wildcards):
    return " ".join(CHUNKS[wildcards.chunk])


def chunk_threads(wildcards):
    """A chunk of one case has nothing to share out."""
    return min(len(CHUNKS[wildcards.chunk]), 4)


def folder_of_output(wildcards, output):
    return str(Path(output[0]).parent)


def folder_of_stage(wildcards, output):
    """results/acme/meshes of results/acme/meshes/manifest/chunk_000.tsv"""
    return str(Path(output[0]).parents[1])


def folder_of_meshes(wildcards, input):
    first = input.meshes if isinstance(input.meshes, str) else input.meshes[0]
    return str(Path(first).parents[1])


def manifests(stage):
    return expand(f"{RESULTS}/{stage}/manifest/{{chunk}}.tsv", chunk=CHUNKS)


def texts_of_config():
    """Every text of the config, and the paths of the case table."""
    values = [value for options in OPTIONS.values() for value in asdict(options).values()]
    texts = [value for value in values if isinstance(value, str)]
    return [*texts, *(path for case in CASES.values() for path in case.files)]


try:
    # Before the schema: these messages name the key in one line.
    OPTIONS = cli.from_config(SECTIONS, config)
    splits.check_shares(OPTIONS["split"])
    WINDOWS = ct_windows.parse_windows(OPTIONS["windows"].windows)
    ldm_checks.check_ldm(
        *(OPTIONS[name] for name in ("ldm", "autoencoder", "diffusion", "sampling"))
    )
    COHORT = OPTIONS["cohort"]
    IS_DEMO = not COHORT.table
    DEMO_FOLDER = "resources/demo"
    CASE_TABLE = COHORT.table or f"{DEMO_FOLDER}/cases.tsv"
    CASES = {
        case.case_id: case
        for case in (
            cohort.demo_cases(OPTIONS["demo"].cases, f"{DEMO_FOLDER}")
            if IS_DEMO
            else cohort.read_case_table(COHORT.table)
        )
    }
    CHUNKS = cohort.assign_chunks(CASES, COHORT.chunks)
    cli.check_plannable(texts_of_config())
    labels.load_label_table(COHORT.labels)
except InputError as error:
    raise WorkflowError("\n".join(error.problems)) from None

validate(
    {name: section or {} for name, section in config.items()},
    str(WORKFLOW / "schemas" / "config.schema.json"),
)

RESULTS = f"results/{COHORT.name}"
LOGS = f"logs/{COHORT.name}"


# A stop that is asked for (Ctrl-C, or the SIGTERM that SLURM sends to all processes of a job) is
# the script's affair: it saves and says so. The shell and tee outlive it, or the script would
# die of its closed pipe before it has saved.
shell.prefix(
    "set -euo pipefail; trap : TERM INT; " "tee() {{ (trap '' TERM INT; exec tee \"$@\"); }}; "
)


wildcard_constraints:
    chunk="[A-Za-z0-9._-]+",
