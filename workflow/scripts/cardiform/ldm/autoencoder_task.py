"""Training of the autoencoder of latent diffusion, alone or against a patch discriminator."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from monai.losses import PatchAdversarialLoss
from monai.networks.nets import PatchDiscriminator
from torch import Tensor, nn

from ..options.ldm import AutoencoderOptions
from ..pictures.slices import slices_picture
from .autoencoder_model import (
    DeepFeatures,
    ShapeAutoencoder,
    ShapeLoss,
    channels_of,
    inside_of,
    kl_mean,
)
from .data import ShapeBatch
from .hearts_on_grid import Grid

GENERATOR, DISCRIMINATOR = "generator", "discriminator"


class AutoencoderTask:
    """What the engine needs to train a ShapeAutoencoder.

    With ``adversarial_weight`` there are two updates, generator and discriminator; the latter is
    trained from the first step, its verdict counts after the warm-up.

    Parameters
    ----------
    cases : int
        Training cases, of which the warm-up counts passes.
    """

    def __init__(self, options: AutoencoderOptions, grid: Grid, cases: int):
        self.options, self.grid = options, grid
        classes = grid.classes
        self.model = ShapeAutoencoder(options, classes)
        self.shape_loss = ShapeLoss(options, classes)
        self.module = nn.ModuleDict({"model": self.model})
        self.updates: tuple[str, ...] = (GENERATOR,)
        if options.adversarial_weight:
            self.updates = (GENERATOR, DISCRIMINATOR)
            self.discriminator = PatchDiscriminator(
                spatial_dims=3,
                channels=options.discriminator_channels,
                in_channels=classes + 1 if classes else 1,
                num_layers_d=options.discriminator_layers,
                norm="INSTANCE",
            )
            self.module["discriminator"] = self.discriminator
            self.verdict = PatchAdversarialLoss(criterion="least_squares")
        self.warm_up = options.autoencoder_warm_up_n_epochs * cases / options.batch_size
        if options.perceptual_weight:
            features = DeepFeatures(options.perceptual_network, options.perceptual_file)
            self.module["features"] = features

    def parameters(self, update: str) -> Iterable[nn.Parameter]:
        return self.module[
            {GENERATOR: "model", DISCRIMINATOR: "discriminator"}[update]
        ].parameters()

    def loss(self, batch: ShapeBatch, update: str, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        target = batch["target"]
        if update == DISCRIMINATOR:
            return self._discriminator_loss(target)
        logits, mu, sigma = self.model(target)
        terms = {"shape": self.shape_loss(logits, target), "kl": kl_mean(mu, sigma)}
        total = terms["shape"] + self.options.kl_weight * terms["kl"]
        made = self.model.likelihood(logits)
        if DISCRIMINATOR in self.updates and step >= self.warm_up:
            scores = self.discriminator(made)[-1]
            terms["adversarial"] = self.verdict(
                scores.float(), target_is_real=True, for_discriminator=False
            )
            total = total + self.options.adversarial_weight * terms["adversarial"]
        if "features" in self.module:
            true = self.model.expand(target)
            terms["perceptual"] = self.module["features"](*map(self._foreground, (made, true)))
            total = total + self.options.perceptual_weight * terms["perceptual"]
        return total, {name: value.detach() for name, value in terms.items()}

    @torch.no_grad()
    def evaluate(self, batches: Iterable[ShapeBatch]) -> dict[str, float]:
        """Loss of the shapes, KL, the latents' deviation, and Dice per class of the labels made."""
        sums = {"loss": 0.0, "kl": 0.0, "latent_std": 0.0}
        count = len(self.grid.table)
        both, either = (torch.zeros(count, dtype=torch.float64) for _ in range(2))
        cases = 0
        for batch in batches:
            target = batch["target"]
            logits, mu, sigma = self.model(target)
            size = len(target)
            cases += size
            sums["loss"] += size * float(self.shape_loss(logits, target))
            sums["kl"] += size * float(kl_mean(mu, sigma))
            sums["latent_std"] += size * float(mu.std())
            made, true = inside_of(logits), inside_of(self.model.expand(target) - 0.5)
            both += (made & true).sum((0, 2, 3, 4)).double().cpu()
            either += (made.sum((0, 2, 3, 4)) + true.sum((0, 2, 3, 4))).double().cpu()
        names = self.grid.table.names
        dice = {f"dice_{n}": float(2 * b / e) for n, b, e in zip(names, both, either) if e > 0}
        mean = {"dice": sum(dice.values()) / len(dice)} if dice else {}
        return {name: value / max(cases, 1) for name, value in sums.items()} | mean | dice

    @torch.no_grad()
    def preview(self, batches: Iterable[ShapeBatch], folder: Path, step: int) -> None:
        """A PNG of the first validation cases above their reconstructions."""
        batch = next(iter(batches))
        target = batch["target"][:4]
        rows = [channels_of(x) for x in (self.model.expand(target) - 0.5, self.model(target)[0])]
        colors = [c.color for c in self.grid.table]
        slices_picture(
            folder / f"{step:07d}.png",
            {"given": rows[0].cpu().numpy(), "reconstructed": rows[1].cpu().numpy()},
            colors,
            title=f"{', '.join(batch['case_id'][:4])}; step {step}",
        )

    def _discriminator_loss(self, target: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        with torch.no_grad():
            made = self.model.likelihood(self.model(target)[0])
        scores = [self.discriminator(x)[-1].float() for x in (made, self.model.expand(target))]
        fake = self.verdict(scores[0], target_is_real=False, for_discriminator=True)
        real = self.verdict(scores[1], target_is_real=True, for_discriminator=True)
        return (fake + real) / 2, {"fake": fake.detach(), "real": real.detach()}

    def _foreground(self, likelihood: Tensor) -> Tensor:
        return 1 - likelihood[:, :1] if self.model.classes else likelihood
