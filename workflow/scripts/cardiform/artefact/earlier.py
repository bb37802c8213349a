"""model.pt of format 1, which did not say what it is: recognised and brought to format 2.

Format 1 was written until version 0.1.0.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import InputError, problem
from ..files import sha256_text

EXTRA = ("grid", "statistics")  # lay among the options


def upgraded(content: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The content of a model.pt of format 1 as format 2 has it.

    Raises
    ------
    InputError
        It is no model, or none that Cardiform wrote.
    """
    missing = {"weights", "options", "labels", "figures"} - content.keys()
    if missing:
        fact = f"is no model ({', '.join(sorted(missing))} missing)"
        raise InputError(problem(path, fact, "give the model.pt of a training"))
    try:
        found = _recognised(content["options"])
        cases = [sha256_text(name) for name in content["options"].get("cases", [])]
        source = content["figures"].get("source_sha256", "")
    except (TypeError, KeyError, AttributeError):  # whatever else lies under these names
        found = None
    if found is None:
        fact = "is a model of format 1 that is not recognised"
        raise InputError(problem(path, fact, "give the model.pt of a training"))
    kind, options = found
    return {
        "format_version": 2,
        "kind": kind,
        "weights": content["weights"],
        "options": options,
        "labels": content["labels"],
        "figures": content["figures"],
        "training_cases": cases,
        "extra": {k: content["options"][k] for k in EXTRA if k in content["options"]},
        "versions": content.get("versions", {}),
        "source_sha256": source,
    }


def _recognised(options: Mapping[str, Any]) -> tuple[str, dict[str, dict]] | None:
    """Kind and options by section; None where format 1 had no such options."""
    if "diffusion" in options:
        return "ldm_diffusion", {name: options[name] for name in ("diffusion", "autoencoder")}
    if "autoencoder" in options:
        return "ldm_autoencoder", {"autoencoder": options["autoencoder"]}
    if "codebook" in options:
        return "vqvae", {"vqvae": options["vqvae"], "vqvae_codebook": options["codebook"]}
    if "vqvae" in options:
        return "vqvae_continuous", {"vqvae": options["vqvae"]}
    if "cardiform" in options:
        return "coronary_denoiser", {"coronary": options["cardiform"]}
    if "near" in options:
        return "coronary_near", {"coronary_near": options["near"]}
    if "eikonal_queries" in options:  # the options of a VecSet lay at the top
        return "vecset", {"vecset": dict(options)}
    return None
