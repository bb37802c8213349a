"""Where a results folder has the model of each family; a bundle has them in the same places."""

from __future__ import annotations

from pathlib import Path

SUFFIXES = (".pt", ".safetensors")  # of the file "model"
FOLDS = "folds"  # of a k-fold: a folder of this layout for each
# Beside a VecSet: what the confidence in new label maps is held against.
CONFIDENCE = "reconstructions/confidence.json"
# Modes of variation, and the heart that they are moved from.
SHAPES, SHAPES_TEMPLATE = "shape_statistics/model.npz", "shape_statistics/template.npz"
# family -> folders of its models; of those in one row the first that holds a model counts. "*" is
# the name of a window, of a refined structure, of a source.
PLACES: dict[str, tuple[tuple[str, ...], ...]] = {
    "vecset": (("vecset",),),
    "vqvae": (
        ("vqvae/stage2", "vqvae/stage1"),
        ("vqvae_windows/*/stage2", "vqvae_windows/*/stage1"),
    ),
    "coronary": (("*/cardiform",), ("*/near",)),
    "ldm": (("ldm/*/autoencoder",), ("ldm/*/diffusion",)),
}


def model_file(folder: Path) -> Path | None:
    """The model file of a training's folder, whichever way it is stored."""
    return next((p for s in SUFFIXES if (p := folder / f"model{s}").is_file()), None)


def model_files(folder: Path, family: str) -> list[Path]:
    """The model files of a family below a results folder or a bundle, those of folds, too."""
    tops = [folder, *sorted(p for p in folder.glob(f"{FOLDS}/*") if p.is_dir())]
    return [path for top in tops for row in PLACES[family] for path in _of_row(top, row)]


def _of_row(top: Path, row: tuple[str, ...]) -> list[Path]:
    """Of each window, structure or source the first model of a row."""
    found: dict[str, Path] = {}
    for pattern in row:
        for place in sorted(top.glob(pattern)):
            if path := model_file(place):
                whose = str(place.parent if len(row) > 1 else place)
                found.setdefault(whose, path)
    return list(found.values())
