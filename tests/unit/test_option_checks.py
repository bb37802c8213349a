"""What latent diffusion refuses before anything is computed."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from cardiform.errors import InputError
from cardiform.ldm.option_checks import (
    BESIDE_MB,
    check_autoencoder,
    check_completion,
    check_diffusion,
    check_discriminator,
    check_ldm,
    check_sizes,
    check_sources,
    chosen_sampler,
    diffusion_mb,
    wanted_volumes,
)
from cardiform.options.ldm import (
    AutoencoderOptions,
    CompletionOptions,
    DiffusionOptions,
    LatentsOptions,
    LdmOptions,
    SamplingOptions,
)

DDPM = DiffusionOptions(objective="ddpm")


def sampling(sampler="auto", steps=30, **more):
    return SamplingOptions(sampler=sampler, num_inference_steps=steps, **more)


def test_the_defaults_are_fine():
    check_ldm(
        LdmOptions(),
        AutoencoderOptions(),
        DiffusionOptions(),
        SamplingOptions(),
        CompletionOptions(),
    )


@pytest.mark.parametrize(("size", "near"), [(60, "48 or 64"), (72, "64 or 80"), (8, "16")])
def test_sizes_that_the_networks_cannot_halve(size, near):
    with pytest.raises(InputError, match=near):
        check_sizes(size, 3, 3)
    check_sizes(64, 3, 3)
    check_sizes(size, 2, 2) if size % 4 == 0 else None
    check_sizes(64, 2, 3, fold=2)
    with pytest.raises(InputError, match=r"diffusion.fold divides it by 2; take 48 or 64"):
        check_sizes(56, 2, 3, fold=2)


def test_sources():
    check_sources(LdmOptions(sources=("labels", "pointclouds")))
    for wrong in (("meshes",), ()):
        with pytest.raises(InputError, match="labels or pointclouds"):
            check_sources(LdmOptions(sources=wrong))


def test_perceptual_loss_needs_a_file_and_downloads_nothing(tmp_path):
    with pytest.raises(InputError, match="nothing is downloaded"):
        check_autoencoder(AutoencoderOptions(perceptual_weight=0.1))
    gone = AutoencoderOptions(perceptual_weight=0.1, perceptual_file=str(tmp_path / "w.pt"))
    with pytest.raises(InputError, match=r"w\.pt: does not exist"):
        check_autoencoder(gone)
    (tmp_path / "w.pt").write_bytes(b"x")
    check_autoencoder(gone)


@pytest.mark.parametrize(("size", "most"), [(8, 1), (16, 2), (24, 3), (40, 3), (48, 4), (64, 4)])
def test_a_discriminator_that_is_too_deep(size, most):
    """As the network itself finds it: its norm needs more than one voxel."""
    from monai.networks.nets import PatchDiscriminator

    def deep(layers):
        return AutoencoderOptions(adversarial_weight=0.1, discriminator_layers=layers)

    def network(layers):
        shape = {"spatial_dims": 3, "channels": 4, "in_channels": 1, "norm": "INSTANCE"}
        return PatchDiscriminator(**shape, num_layers_d=layers)(torch.zeros(1, 1, *[size] * 3))

    check_discriminator(size, deep(most))
    network(most)
    with pytest.raises(InputError, match=f"is {most + 1}: too deep .* {size}; take {most}$"):
        check_discriminator(size, deep(most + 1))
    with pytest.raises(ValueError, match="more than 1 spatial element"):
        network(most + 1)
    check_discriminator(size, AutoencoderOptions(discriminator_layers=9))  # there is none


def test_norms_and_heads_that_do_not_divide():
    with pytest.raises(InputError, match="norm_num_groups is 16: no divisor of 8"):
        check_autoencoder(AutoencoderOptions(channels=(8, 32)))
    with pytest.raises(InputError) as caught:
        check_diffusion(DiffusionOptions(channels=(32, 48), attention_levels=(True,)))
    text = "\n".join(caught.value.problems)
    assert "norm_num_groups" in text and "attention_levels has 1 entries for 2" in text
    # the innermost block has attention though no level asks for it
    with pytest.raises(InputError, match=r"num_head_channels is 20: no divisor of 64$"):
        check_diffusion(
            DiffusionOptions(
                channels=(32, 64), attention_levels=(False, False), num_head_channels=20
            )
        )


def test_samplers_with_the_steps_that_they_need():
    flow = DiffusionOptions()
    assert chosen_sampler(sampling(), flow) == "flow"
    assert chosen_sampler(sampling(steps=50), DDPM) == "ddim"
    assert chosen_sampler(sampling("ddpm", 1000), DDPM) == "ddpm"
    for options, model, words in (
        (sampling("ddpm", 50), DDPM, "ddpm needs all 1000"),
        (sampling("ddim", 600), DDPM, "divisor of 1000: 500"),
        (sampling("ddim", 50), flow, "take flow"),
        (sampling("flow", 50), DDPM, "take ddim"),
        (sampling("flow", 1001), flow, "more than the 1000"),
    ):
        with pytest.raises(InputError, match=words):
            chosen_sampler(options, model)


def test_wanted_volumes():
    model = DiffusionOptions(volumes_share=0.5)
    asked = sampling(volumes=("aorta=30", "left_atrium=60.5"))
    assert wanted_volumes(asked, model) == {"aorta": 30.0, "left_atrium": 60.5}
    with pytest.raises(InputError, match="volumes_share"):
        wanted_volumes(asked, DiffusionOptions())
    for text in ("aorta", "aorta=much", "aorta=inf", "aorta=nan", "aorta=-1"):
        with pytest.raises(InputError, match="class=ml"):
            wanted_volumes(sampling(volumes=(text,)), model)


def test_completion_needs_steps_that_its_sampler_takes():
    few = CompletionOptions(num_inference_steps=7)
    with pytest.raises(InputError, match=r"^completion\.num_inference_steps is 7; ddim needs"):
        check_completion(LdmOptions(), few, DDPM)
    check_completion(LdmOptions(), few, DiffusionOptions())
    check_completion(LdmOptions(sources=("pointclouds",)), few, DDPM)  # completes nothing
    check_completion(LdmOptions(), few, DiffusionOptions(objective="ddpm", known_share=0.0))


def test_all_problems_are_told_at_once():
    with pytest.raises(InputError) as caught:
        check_ldm(
            LdmOptions(voxel_size=60, sources=("x",)),
            AutoencoderOptions(perceptual_weight=1.0),
            DDPM,
            dataclasses.replace(SamplingOptions(), num_inference_steps=7),
            CompletionOptions(),
        )
    assert len(caught.value.problems) == 4


def test_memory_of_the_latents_follows_grid_variants_and_completion():
    def gigabytes(size, variants, share, channels=(32, 64, 128), cases=798):
        return (
            diffusion_mb(
                LdmOptions(voxel_size=size),
                AutoencoderOptions(channels=channels),
                LatentsOptions(variants=variants),
                DiffusionOptions(known_share=share),
                cases,
            )
            - BESIDE_MB
        ) / 1000

    assert gigabytes(128, 16, 0.5) == pytest.approx(12.1, abs=0.05), "39 GB where nothing is packed"
    assert gigabytes(128, 16, 0.0) == pytest.approx(10.7, abs=0.05)
    assert gigabytes(64, 8, 0.5) == pytest.approx(0.8, abs=0.05)
    assert gigabytes(128, 16, 0.5, cases=1596) == pytest.approx(24.2, abs=0.1)
