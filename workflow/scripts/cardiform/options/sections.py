"""Every option of every stage: key, default, unit, range and effect (standard library only).

One frozen dataclass per config section. The command-line flags, the JSON schema, the
tables of config/README.md and the config check all derive from these classes.
"""

from __future__ import annotations

import dataclasses

from .apply import ApplyConfigOptions
from .cohort import CohortOptions, DemoOptions, SplitOptions
from .coronary import (
    CoronaryOptions,
    CoronaryRefineOptions,
    CoronaryRepairOptions,
    CoronaryTraceOptions,
    NearOptions,
)
from .exports import ExportsOptions
from .fusion import FusionOptions
from .geometry import MeshesOptions, PointsOptions, VoxelsOptions, WindowsOptions
from .ldm import (
    AutoencoderOptions,
    CompletionOptions,
    DiffusionOptions,
    GenerationOptions,
    LatentsOptions,
    LdmOptions,
    PointcloudsOptions,
    SamplingOptions,
)
from .measures import MeasuresOptions, NormsOptions
from .search import SearchOptions
from .set_diffusion import (
    SetDiffusionOptions,
    SetLatentsOptions,
    SetSamplingOptions,
    SetVesselOptions,
)
from .statistics import ShapeStatisticsOptions
from .training import TrainingOptions
from .vecset import VecsetOptions, VecsetReconstructOptions
from .vessels import VesselDrawingOptions, VesselOptions
from .vqvae import (
    VqvaeCodebookOptions,
    VqvaeJointOptions,
    VqvaeOptions,
    VqvaePretrainOptions,
    VqvaeReconstructOptions,
)

# Config section -> options, in the order of config/config.yaml; a section that others inherit from
# comes before them.
SECTIONS: dict[str, type] = {
    "cohort": CohortOptions,
    "demo": DemoOptions,
    "split": SplitOptions,
    "meshes": MeshesOptions,
    "points": PointsOptions,
    "voxels": VoxelsOptions,
    "windows": WindowsOptions,
    "measures": MeasuresOptions,
    "norms": NormsOptions,
    "shape_statistics": ShapeStatisticsOptions,
    "exports": ExportsOptions,
    "training": TrainingOptions,
    "vqvae": VqvaeOptions,
    "vqvae_pretrain": VqvaePretrainOptions,
    "vqvae_codebook": VqvaeCodebookOptions,
    "vqvae_joint": VqvaeJointOptions,
    "vqvae_reconstruct": VqvaeReconstructOptions,
    "coronary_repair": CoronaryRepairOptions,
    "coronary": CoronaryOptions,
    "coronary_near": NearOptions,
    "coronary_refine": CoronaryRefineOptions,
    "coronary_trace": CoronaryTraceOptions,
    "fusion": FusionOptions,
    "vecset": VecsetOptions,
    "vecset_reconstruct": VecsetReconstructOptions,
    "ldm": LdmOptions,
    "pointclouds": PointcloudsOptions,
    "autoencoder": AutoencoderOptions,
    "latents": LatentsOptions,
    "diffusion": DiffusionOptions,
    "sampling": SamplingOptions,
    "generation": GenerationOptions,
    "completion": CompletionOptions,
    "vessels": VesselOptions,
    "vessel_drawing": VesselDrawingOptions,
    "search": SearchOptions,
    "set_latents": SetLatentsOptions,
    "set_diffusion": SetDiffusionOptions,
    "set_sampling": SetSamplingOptions,
    "set_vessels": SetVesselOptions,
    "apply": ApplyConfigOptions,
}


def base_of(options: type) -> str:
    """The section that a section of this class inherits from; empty: none."""
    bases = (n for n, cls in SECTIONS.items() if cls is not options and issubclass(options, cls))
    return next(bases, "")


def memory_advice(*options: type) -> str:
    """The config keys of these sections that make a job need less memory, as a remedy."""
    sections = {cls: f"{name}." for name, cls in SECTIONS.items()}
    words = []
    for action, ending in (("raise", ""), ("lower", ""), ("set", " to true")):
        keys = [
            f"{sections.get(cls, '')}{field.name}"
            for cls in options
            for field in dataclasses.fields(cls)
            if field.metadata["memory"] == action
        ]
        if keys:
            words.append(f"{action} {', '.join(keys)}{ending}")
    return ", or ".join([*words, "give the job more memory (mem_mb)"])
