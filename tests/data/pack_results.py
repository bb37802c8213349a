"""Reduce the results folder described in README.md and pack it.

python pack_results.py FOLDER CHECKOUT      CHECKOUT: the code that made it; its path is removed
"""

from __future__ import annotations

import os
import re
import sys
import tarfile
from pathlib import Path

import numpy as np
import torch

OUT = Path(__file__).with_name("results_before.tar.xz")
R = "results/before"
# Of the stages of single cases: what the tests look at.
KEPT = (
    r"mine\.yaml", r"\.snakemake/metadata/.*", r"resources/.*",
    rf"{R}/([^/]*|split/.*|qc/.*)", rf"{R}/.*/?manifest(/.*)?\.tsv",
    rf"{R}/.*/(model\.pt|metrics\.json)",
    rf"{R}/(meshes|points|sparse)/.*phantom_000.*", rf"{R}/coronary/repaired/.*",
    rf"{R}/fused/(cases\.tsv|[^/]*\.json)", rf"{R}/ldm/labels/(voxels|latents)/.*",
    rf"{R}/ldm/labels/samples/(figures\.json|latents/sample_0000.*)",
    rf"{R}/vecset/reconstructions/phantom_002/latents\.npz",
    rf"{R}/vqvae/reconstructions/phantom_002/codes\.npz",
    rf"{R}/windows/.*phantom_000.*", r"interrupted/(checkpoints/last\.pt|metrics\.jsonl)",
)  # fmt: skip
EMPTY = r"resources/demo/(images|pointclouds)/.*"
ZERO = rf"{R}/(vecset|coronary/.*|ldm/labels/diffusion|vqvae.*)/model\.pt|{R}/vecset/.*\.npz"


def reduce(path: Path, name: str, checkout: str) -> None:
    """Change a file in place; its time stays, for Snakemake compares times."""
    times = path.stat()
    if re.fullmatch(EMPTY, name):
        path.write_bytes(b"")
    elif re.fullmatch(ZERO, name) and path.suffix == ".pt":
        content = torch.load(path, weights_only=True)
        content["weights"] = {n: torch.zeros_like(w) for n, w in content["weights"].items()}
        torch.save(content, path)
    elif re.fullmatch(ZERO, name):
        with np.load(path) as stored:
            content = dict(stored)
        np.savez_compressed(path, **content | {"latents": np.zeros_like(content["latents"])})
    elif ".snakemake" in name:
        path.write_text(path.read_text().replace(checkout, "/opt/cardiform"))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def anonymous(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return entry


def main() -> None:
    folder, checkout = Path(sys.argv[1]), sys.argv[2]
    with tarfile.open(OUT, "w:xz", format=tarfile.PAX_FORMAT, preset=9) as archive:
        for path in sorted(folder.rglob("*")):
            name = str(path.relative_to(folder))
            if path.is_dir() or path.suffix == ".png":
                continue
            if any(re.fullmatch(pattern, name) for pattern in KEPT):
                reduce(path, name, checkout)
                archive.add(path, name, filter=anonymous)


if __name__ == "__main__":
    main()
