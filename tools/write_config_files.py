"""Write the files that follow from options.py: defaults, schema and the key reference.

    python tools/write_config_files.py

A test holds the files against this output.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "workflow" / "scripts"))

from cardiform import cli  # noqa: E402
from cardiform.options.sections import SECTIONS  # noqa: E402

# Which rules run again when a key of the section changes; their descendants follow.
RERUNS = {
    "cohort": "check_cohort",
    "demo": "make_demo_cohort",
    "split": "split_cohort",
    "meshes": "extract_meshes",
    "points": "sample_sdf",
    "voxels": "voxelize_labels",
    "windows": "window_ct",
    "vqvae": "pretrain_vqvae",
    "vqvae_pretrain": "pretrain_vqvae",
    "vqvae_codebook": "train_codebook",
    "vqvae_joint": "train_vqvae",
    "vqvae_reconstruct": "reconstruct_vqvae",
    "coronary_repair": "repair_coronary",
    "coronary": "train_coronary",
    "coronary_near": "train_coronary",
    "coronary_refine": "refine_coronary",
    "fusion": "fuse_labels",
    "vecset": "train_vecset",
    "vecset_reconstruct": "reconstruct_vecset",
    "ldm": "resample_labels",
    "pointclouds": "convert_pointclouds",
    "autoencoder": "train_autoencoder",
    "latents": "encode_latents",
    "diffusion": "train_diffusion",
    "sampling": "sample_diffusion",
    "generation": "evaluate_samples",
    "completion": "complete_labels",
}


def main() -> None:
    for path, text in generated_files().items():
        (ROOT / path).write_text(text, encoding="utf-8")
        print(path)


def generated_files() -> dict[str, str]:
    """Path in the repository -> content."""
    return {
        "config/config.yaml": config_yaml(),
        "config/README.md": readme(),
        "workflow/schemas/config.schema.json": schema(),
    }


def config_yaml() -> str:
    """The full default config; what a key does stands above it."""
    lines = [
        "# Cardiform: every key with its default. Copy the sections you change into a file of",
        "# your own and name it with --configfile; keys left out keep these values.",
        "# Written by tools/write_config_files.py from workflow/scripts/cardiform/options.py.",
    ]
    for name, cls in SECTIONS.items():
        lines += ["", f"# {summary(cls)}", f"{name}:"]
        for field in dataclasses.fields(cls):
            lines.append(f"  # {field.metadata['help']}{limits(field)}")
            lines.append(f"  {field.name}: {yaml_text(field.default)}")
    return "\n".join(lines) + "\n"


def readme() -> str:
    """The key reference: one table per section."""
    lines = [
        "# Config keys",
        "",
        "`config.yaml` holds every key with its default; lay a file of your own on top with",
        "`--configfile`. An unknown key stops the run and is named. `demo.yaml` holds the small",
        "settings of the demo, `full.yaml` those of a full-size run on GPUs.",
        "",
        "A changed key makes the rule of its section run again, and what depends on it; comments",
        "and the order of keys change nothing. A training that only gets another *resumable*",
        "key goes on from its checkpoint.",
    ]
    for name, cls in SECTIONS.items():
        lines += ["", f"## {name}", "", summary(cls), "", f"Runs again: `{RERUNS[name]}`.", ""]
        lines += ["| key | default | effect |", "|---|---|---|"]
        for field in dataclasses.fields(cls):
            effect = field.metadata["help"] + limits(field)
            effect += "; *resumable*" if field.metadata["resumable"] else ""
            effect = effect.replace("|", "\\|")
            lines.append(f"| `{field.name}` | `{yaml_text(field.default)}` | {effect} |")
    return "\n".join(lines) + "\n"


def schema() -> str:
    return json.dumps(cli.json_schema(SECTIONS), indent=2) + "\n"


def summary(cls: type) -> str:
    return (cls.__doc__ or "").strip().splitlines()[0]


def limits(field: dataclasses.Field) -> str:
    meta = field.metadata
    parts = [f"one of {', '.join(meta['choices'])}"] if meta["choices"] else []
    if meta["minimum"] is not None and meta["maximum"] is not None:
        parts.append(f"{meta['minimum']} to {meta['maximum']}")
    elif meta["minimum"] is not None:
        parts.append(f"at least {meta['minimum']}")
    if meta["multiple"] is not None:
        parts.append(f"a multiple of {meta['multiple']}")
    return f" ({'; '.join(parts)})" if parts else ""


def yaml_text(value) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(yaml_text(v) for v in value) + "]"
    if isinstance(value, str):
        return json.dumps(value)
    if isinstance(value, float):
        # YAML 1.1 reads 1e-06 as text and 1.0e-06 as a number
        text = repr(value)
        return text.replace("e", ".0e") if "e" in text and "." not in text else text
    return json.dumps(value)


if __name__ == "__main__":
    main()
