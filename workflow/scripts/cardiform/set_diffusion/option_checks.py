"""What set-latent diffusion needs of its options, checked first (standard library only)."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import InputError, together
from ..options.set_diffusion import SetDiffusionOptions, SetLatentsOptions, SetSamplingOptions
from ..options.vecset import ANCHORED
from ..tables import number_of


def check_set_diffusion(options: SetDiffusionOptions) -> None:
    """InputError where the transformer cannot be built."""
    if options.dim % options.heads:
        raise InputError(
            f"set_diffusion.heads is {options.heads}: no divisor of dim, which is {options.dim}; "
            "change one of them"
        )


def check_preset(preset: str) -> None:
    """InputError where a VecSet's latents would have no places."""
    if preset not in ANCHORED:
        raise InputError(
            f"vecset.preset is {preset}, whose latents have no places: targets set_diffusion and "
            f"latent_statistics need {', '.join(ANCHORED)}"
        )


def check_voxels(sampling: SetSamplingOptions) -> None:
    """InputError where samples would lie on another grid than the hearts that they are compared
    with."""
    if sampling.voxel_size:
        raise InputError(
            f"set_sampling.voxel_size is {sampling.voxel_size}: target set_diffusion compares "
            "samples with real hearts, in as many voxels as these; set it to 0 (and call "
            "sample_set_diffusion.py for others)"
        )


def check_nothing_known(sampling: SetSamplingOptions) -> None:
    """InputError where samples would be of a heart: a config names none."""
    if sampling.known:
        raise InputError(
            f"set_sampling.known is {', '.join(sampling.known)}: target set_diffusion makes whole "
            "hearts; set it to [] (and call sample_set_diffusion.py with --known and --heart)"
        )


def check_sampling(
    latents: SetLatentsOptions, diffusion: SetDiffusionOptions, sampling: SetSamplingOptions
) -> None:
    """What is asked of samples is what the training knows of, as far as the config tells.

    Raises
    ------
    InputError
        All that is wrong.
    """
    together(
        lambda: wanted_volumes(sampling),
        lambda: _known_columns(latents, sampling),
        lambda: _trained_to_be_asked(diffusion, sampling),
    )


def wanted_volumes(options: SetSamplingOptions) -> dict[str, float]:
    """Class name -> ml of ``set_sampling.volumes``."""
    found = _numbers(options.volumes, "set_sampling.volumes", "class=ml, left_ventricle=120 say")
    if wrong := [name for name, value in found.items() if value <= 0]:
        raise InputError(
            [f"set_sampling.volumes: {n} is {found[n]:g} ml; give more than 0" for n in wrong]
        )
    return found


def wanted_columns(options: SetSamplingOptions) -> dict[str, float]:
    """Column -> value of ``set_sampling.columns``."""
    return _numbers(options.columns, "set_sampling.columns", "column=number, x_age=60 say")


def _numbers(texts: Sequence[str], key: str, example: str) -> dict[str, float]:
    """Name -> number of ``name=number`` texts; InputError with all that are none."""
    problems, result = [], {}
    for text in texts:
        name, _, value = text.partition("=")
        number = number_of(value)
        if number is None or not name:
            problems.append(f"{key}: {text!r}; write {example}")
        else:
            result[name] = number
    if problems:
        raise InputError(problems)
    return result


def _known_columns(latents: SetLatentsOptions, sampling: SetSamplingOptions) -> None:
    if problems := [
        f"set_sampling.columns: {name} is none of set_latents.columns "
        f"({', '.join(latents.columns) or 'none'}); name it there"
        for name in wanted_columns(sampling)
        if name not in latents.columns
    ]:
        raise InputError(problems)


def _trained_to_be_asked(diffusion: SetDiffusionOptions, sampling: SetSamplingOptions) -> None:
    if (sampling.volumes or sampling.columns) and not diffusion.asked_share:
        raise InputError(
            "set_sampling: volumes and columns need a model that was trained to be asked for them; "
            "set set_diffusion.asked_share above 0"
        )
