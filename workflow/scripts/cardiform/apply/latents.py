"""The latents of a case in one file, whatever family made them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .. import __version__
from ..errors import again
from ..files import load_npz, save_npz
from ..formats import Format
from ..ldm.encode import encode_case
from ..options.ldm import LatentsOptions
from ..volumes import image_grid
from .networks import Networks
from .ready import Ready

LATENTS = Format(
    "applied-latents",
    {
        "format_version": "i64",
        "cardiform": "text",
        "models": "text (M)",
        "sha256": "text (M)",
        "center": "f64 (3)",
        "scale": "f64",
        "*_vecset?": "f32 (Q, W)",
        "*_vqvae_*_coords?": "u16 (K, 3)",
        "*_vqvae_*_indices?": "i32 (K)",
        "*_ldm_mu?": "f32 (L, s, s, s)",
        "*_ldm_sigma?": "f16 (L, s, s, s)",
        "*_ldm_affine?": "f64 (4, 4)",
    },
    again("apply_models"),
)


def encoded(ready: Ready, networks: Networks) -> dict[str, np.ndarray]:
    """The arrays of a latents file: their names begin with ``fold0_``, then ``fold1_``."""
    case_id = ready.case.case_id
    starts = [f"fold{k}_" for k in range(len(networks.content.folders))]
    arrays: dict[str, np.ndarray] = {}
    for start, vecset in zip(starts, networks.vecset):
        arrays[f"{start}vecset"] = vecset.encode(ready.points, case_id)[0].cpu().numpy()
    for start, vqvae in zip(starts, networks.vqvae):
        for name, found in vqvae.reconstruct(ready.bands).items():
            arrays |= {f"{start}vqvae_{name}_{key}": array for key, array in found.codes.items()}
    for fold, (start, coder) in enumerate(zip(starts, networks.coders)):
        path, cut = ready.on_grid(coder.grid, fold)
        options = LatentsOptions(batch_size=ready.stages["latents"].batch_size)
        (made, *_) = encode_case(
            ready.case,
            voxels={case_id: path},
            training=set(),
            coder=coder,
            options=options,
            out=ready.folder / f"latents_{fold}",
            cut=cut,
        )
        stored = load_npz(made)
        arrays[f"{start}ldm_mu"] = stored["mu"][0]
        arrays[f"{start}ldm_sigma"] = stored["sigma"][0]
        arrays[f"{start}ldm_affine"] = np.asarray(image_grid(path)[1], np.float64)
    return arrays


def write_latents(path: Path, ready: Ready, networks: Networks) -> None:
    """Write the latents of a case with the frame that they are in and what made them."""
    hashes = networks.sha256
    save_npz(
        path,
        compressed=False,
        **encoded(ready, networks),
        center=np.asarray(ready.frame.center, np.float64),
        scale=np.float64(ready.frame.scale),
        models=np.array(list(hashes)),
        sha256=np.array(list(hashes.values())),
        cardiform=np.array(__version__),
        format_version=np.int64(LATENTS.version),
    )
