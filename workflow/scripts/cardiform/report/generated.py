"""Hearts that latent diffusion makes: their figures, completion, pictures."""

from __future__ import annotations

from ..labels import LabelTable
from .pairs import nearest_hearts
from .parts import Picture, Results, Section, Table, structures, words

SETS = {
    "generated": "generated",
    "train_subset": "training hearts, as many",
    "reconstructed_train": "these, coded by the autoencoder: the ceiling",
    "warped_train": "training hearts, warped",
    "autoencoder": "test hearts, coded",
}
FIGURES = (
    (("all_classes", "nna"), "1-NNA", ".2f"),
    (("all_classes", "cov"), "COV", ".2f"),
    (("all_classes", "mmd"), "MMD mm", ".2f"),
    (("validity", "valid"), "valid", ".0%"),
    (("volumes", "mean_w1"), "volumes W1/sd", ".2f"),
)
COMPLETED = {
    "vecset/completion/metrics.json": "VecSet",
    "ldm/labels/completion/metrics.json": "latent diffusion",
}
METHODS = ("model", "mean_shape")
CHANCE = "1-NNA is 0.5 where generated and real hearts cannot be distinguished."


def generated_section(results: Results, labels: LabelTable) -> Section | None:
    """Figures of generated hearts and of completion, hearts that turn, the overview picture."""
    tables, pictures, viewers = [], [], []
    for source, whence in {"labels": "", "pointclouds": ", of point clouds"}.items():
        folder = f"ldm/{source}"
        file = f"{folder}/samples/figures.json"
        found = results.json(file)
        if found is not None:
            rows = [
                [
                    *words(title),
                    *(results.number(file, (name, *keys), form) for keys, _, form in FIGURES),
                ]
                for name, title in SETS.items()
                if name in found
            ]
            columns = ("hearts", *(heading for _, heading, _ in FIGURES))
            title = f"Against the test hearts{whence}"
            tables += [Table(title, columns, rows, CHANCE)] if rows else []
        near, viewer = nearest_hearts(results, folder, labels, whence)
        tables += [near] if near else []
        viewers += [viewer] if viewer else []
        overview = results.folder / folder / "samples" / "overview.png"
        if overview.is_file():
            pictures.append(Picture.of(f"Generated hearts{whence}", overview))
    completed = [_completion(results, file, way, labels) for file, way in COMPLETED.items()]
    tables += [table for table in completed if table is not None]
    if not tables and not pictures:
        return None
    title = "Generated and completed hearts"
    return Section("generated", title, "", tables, (), viewers, pictures=pictures)


def _completion(results: Results, file: str, way: str, labels: LabelTable) -> Table | None:
    """Dice of every structure that was made from the others; None where none was."""
    found = results.json(file)
    rows = [
        [*words(title), *(results.number(file, ("mean", name, m, "dice"), ".3f") for m in METHODS)]
        for name, title, _ in structures((found or {}).get("mean", {}), labels)
    ]
    columns = ("structure taken away", "Dice", "Dice: mean shape")
    title = f"Test hearts completed from their other structures by {way}"
    return Table(title, columns, rows) if rows else None
