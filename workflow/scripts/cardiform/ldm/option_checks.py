"""What latent diffusion needs of its options, checked first (standard library only)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from ..errors import InputError, together
from ..options.ldm import (
    AutoencoderOptions,
    CompletionOptions,
    DiffusionOptions,
    LatentsOptions,
    LdmOptions,
    SamplingOptions,
)
from ..options.vessels import ORIGIN, VesselOptions
from ..tables import number_of

DEFAULT_COMPLETION = CompletionOptions()
SOURCES = ("labels", "pointclouds")
LATENT_BYTES = 6  # of a number: mean in fp32, deviation in fp16
TARGET_SHRINKS = 20  # a compressed label map of a heart: by 20 at 32^3, 25 at 64^3, 37 at 128^3
BESIDE_MB = 16_000  # network, optimiser, libraries and loader processes
LEAST_JUDGED = 3  # voxels along the edge before the last two convolutions of the discriminator


def check_ldm(
    ldm: LdmOptions,
    autoencoder: AutoencoderOptions,
    diffusion: DiffusionOptions,
    sampling: SamplingOptions,
    completion: CompletionOptions = DEFAULT_COMPLETION,
) -> None:
    """All that can be wrong with the five sections together, reported at once.

    Raises
    ------
    InputError
        Naming each key, its value and what would do.
    """
    together(
        lambda: check_sources(ldm),
        lambda: check_sizes(
            ldm.voxel_size, len(autoencoder.channels), len(diffusion.channels), diffusion.fold
        ),
        lambda: check_autoencoder(autoencoder),
        lambda: check_discriminator(ldm.voxel_size, autoencoder),
        lambda: check_diffusion(diffusion),
        lambda: chosen_sampler(sampling, diffusion),
        lambda: wanted_volumes(sampling, diffusion),
        lambda: check_completion(ldm, completion, diffusion),
    )


def check_label_maps(section: str, sampling: SamplingOptions) -> None:
    """InputError where samples are written without the label maps that later steps read."""
    if sampling.save_format == "pointcloud":
        raise InputError(
            f"{section}.save_format is pointcloud: samples are compared, and get their vessels, as "
            "label maps; set it to both (and call the script of the samples for clouds alone)"
        )


def check_sources(ldm: LdmOptions) -> None:
    unknown = [source for source in ldm.sources if source not in SOURCES]
    if unknown or not ldm.sources:
        raise InputError(
            f"ldm.sources: {', '.join(unknown) or 'none'}; name {' or '.join(SOURCES)}, or both"
        )


def check_sizes(
    voxel_size: int, autoencoder_levels: int, diffusion_levels: int, fold: int = 1
) -> None:
    """Every halving of both networks must come out even, and the fold between them."""
    step = 2 ** (autoencoder_levels + diffusion_levels - 2) * fold
    if voxel_size % step:
        near = [n for n in (voxel_size // step * step, (voxel_size // step + 1) * step) if n]
        raise InputError(
            f"ldm.voxel_size is {voxel_size}: the autoencoder halves it {autoencoder_levels - 1} "
            f"times and the diffusion {diffusion_levels - 1} times"
            + (f", and diffusion.fold divides it by {fold}" if fold > 1 else "")
            + "; take "
            f"{' or '.join(map(str, near))}, or fewer channels"
        )


def check_discriminator(voxel_size: int, options: AutoencoderOptions) -> None:
    """Each of its layers halves the grid, and the last one needs a few voxels to judge."""
    layers = options.discriminator_layers
    if options.adversarial_weight > 0 and voxel_size >> layers < LEAST_JUDGED:
        most = max((voxel_size // LEAST_JUDGED).bit_length() - 1, 1)
        raise InputError(
            f"autoencoder.discriminator_layers is {layers}: too deep for ldm.voxel_size "
            f"{voxel_size}; take {most}"
        )


def diffusion_mb(
    ldm: LdmOptions,
    autoencoder: AutoencoderOptions,
    latents: LatentsOptions,
    diffusion: DiffusionOptions,
    cases: int,
) -> int:
    """Memory of a training of the diffusion, MB: latents in memory, and what is beside them.

    cases : of the training.
    """
    edge = ldm.voxel_size // 2 ** (len(autoencoder.channels) - 1)
    of_latents = LATENT_BYTES * autoencoder.latent_channels * edge**3
    of_target = ldm.voxel_size**3 / TARGET_SHRINKS if diffusion.known_share else 0
    hearts = cases * (latents.variants + 1) * diffusion.cache_rate
    return math.ceil(BESIDE_MB + hearts * (of_latents + of_target) / 1e6)


def check_autoencoder(options: AutoencoderOptions) -> None:
    problems = _norm_problems("autoencoder", options.channels, options.norm_num_groups)
    if options.perceptual_weight > 0 and not options.perceptual_file:
        problems.append(
            "autoencoder.perceptual_weight is above 0 without perceptual_file; name a file with "
            f"the weights of {options.perceptual_network}, or set the weight to 0 (nothing is "
            "downloaded)"
        )
    elif options.perceptual_weight > 0 and not Path(options.perceptual_file).is_file():
        problems.append(
            f"{options.perceptual_file}: does not exist; correct autoencoder.perceptual_file, or "
            "set perceptual_weight to 0"
        )
    if problems:
        raise InputError(problems)


def check_diffusion(options: DiffusionOptions) -> None:
    if problems := _network_problems("diffusion", options):
        raise InputError(problems)


def _network_problems(section: str, options: DiffusionOptions | VesselOptions) -> list[str]:
    """What a denoising UNet cannot be built of."""
    problems = _norm_problems(section, options.channels, options.norm_num_groups)
    if len(options.attention_levels) != len(options.channels):
        problems.append(
            f"{section}.attention_levels has {len(options.attention_levels)} entries for "
            f"{len(options.channels)} channels; give one each"
        )
    head = options.num_head_channels
    # the innermost block has attention whatever the levels say
    attended = {c for c, on in zip(options.channels, options.attention_levels) if on}
    unfit = sorted(c for c in attended | {options.channels[-1]} if c % head)
    if unfit:
        problems.append(
            f"{section}.num_head_channels is {head}: no divisor of {', '.join(map(str, unfit))}"
        )
    return problems


def check_vessels(options: VesselOptions) -> None:
    if problems := _network_problems("vessels", options):
        raise InputError(problems)


def check_vessel_grid(voxel_size: int, options: VesselOptions) -> None:
    """The network of vessels works on the hearts' own grid."""
    halvings = len(options.channels) - 1
    if voxel_size % 2**halvings:
        raise InputError(
            f"vessels.channels has {len(options.channels)} entries: a grid of {voxel_size} voxels "
            f"(ldm.voxel_size) cannot be halved {halvings} times; give fewer"
        )


def check_origin(structure: str, names: Sequence[str]) -> None:
    """Vessels are grown from the aorta, of which the label table must have a class.

    structure : of ``coronary_trace``.    names : of the label table.
    """
    if ORIGIN not in names:
        raise InputError(f"the label table has no class {ORIGIN}, from which vessels are drawn")
    if structure == ORIGIN:
        raise InputError(
            f"coronary_trace.structure is {ORIGIN}, from which vessels are drawn; name their class"
        )


def check_completion(
    ldm: LdmOptions, completion: CompletionOptions, diffusion: DiffusionOptions
) -> None:
    """Completion draws like a sampler that is chosen by itself."""
    if "labels" in ldm.sources and diffusion.known_share:
        steps = SamplingOptions(num_inference_steps=completion.num_inference_steps)
        chosen_sampler(steps, diffusion, "completion")


def chosen_sampler(
    sampling: SamplingOptions, diffusion: DiffusionOptions, section: str = "sampling"
) -> str:
    """``flow``, ``ddim`` or ``ddpm``, where the steps fit to it.

    section : of the config, in messages.

    Raises
    ------
    InputError
        A sampler of the other objective; fewer DDPM steps than were trained (each step goes back
        by one time: strided, the samples are wrong); DDIM steps that are no divisor of them.
    """
    steps, trained = sampling.num_inference_steps, diffusion.num_train_timesteps
    default = {"flow": "flow", "ddpm": "ddim"}[diffusion.objective]
    sampler = default if sampling.sampler == "auto" else sampling.sampler
    if (sampler == "flow") != (diffusion.objective == "flow"):
        raise InputError(
            f"sampling.sampler is {sampler}, the model's objective {diffusion.objective}; "
            f"take {default}"
        )
    where = f"{section}.num_inference_steps is {steps}"
    if sampler == "ddpm" and steps != trained:
        raise InputError(f"{where}; ddpm needs all {trained}: set it, or take ddim")
    if sampler == "ddim" and trained % steps:
        _, near = fitting_sampler(diffusion, steps)
        raise InputError(f"{where}; ddim needs a divisor of {trained}: {near}, say")
    if steps > trained:
        raise InputError(f"{where}, more than the {trained} times of the training; lower it")
    return sampler


def fitting_sampler(diffusion: DiffusionOptions, steps: int) -> tuple[str, int]:
    """A sampler that suits the training, and its number of steps nearest to ``steps``."""
    trained = diffusion.num_train_timesteps
    if diffusion.objective == "flow":
        return "flow", min(steps, trained)
    divisors = (n for n in range(1, trained + 1) if trained % n == 0)
    return "ddim", min(divisors, key=lambda n: abs(n - steps))


def wanted_volumes(sampling: SamplingOptions, diffusion: DiffusionOptions) -> dict[str, float]:
    """Class name -> ml of ``sampling.volumes``."""
    problems, result = [], {}
    for text in sampling.volumes:
        name, _, value = text.partition("=")
        number = number_of(value)
        if number is None or number < 0:
            problems.append(f"sampling.volumes: {text!r}; write class=ml, left_ventricle=120 say")
        else:
            result[name] = number
    if result and not diffusion.volumes_share:
        problems.append(
            "sampling.volumes: the model was not trained on volumes; set diffusion.volumes_share"
        )
    if problems:
        raise InputError(problems)
    return result


def _norm_problems(section: str, channels, groups: int) -> list[str]:
    unfit = [c for c in channels if c % groups]
    if not unfit:
        return []
    return [
        f"{section}.norm_num_groups is {groups}: no divisor of {', '.join(map(str, unfit))}; "
        "lower it, or change channels"
    ]
