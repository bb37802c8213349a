"""The autoencoder of latent diffusion: classes on a grid of voxels to a small latent grid."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from monai.losses import DiceCELoss, DiceLoss
from monai.networks import nets
from torch import Tensor, nn

from ..artefact.model import Kind
from ..errors import InputError, problem
from ..options.ldm import AutoencoderOptions

LEAST_DEVIATION = 1e-3  # of a volume that is nearly all background
LEAST_ANSWER, TINY = 0.01, 1e-10  # of the lengths of features: parts of their mean
AUTOENCODER = Kind("ldm_autoencoder", "an autoencoder of latent diffusion", "train_autoencoder")


class ShapeAutoencoder(nn.Module):
    """One-hot classes (or one field) in, logits out, a Gaussian latent between.

    MONAI's AutoencoderKL (Rombach et al., "High-Resolution Image Synthesis with Latent Diffusion
    Models", CVPR 2022, in 3-D).

    Parameters
    ----------
    classes : int
        Classes beside the background; 0: a field in [0, 1] without classes.
    """

    def __init__(self, options: AutoencoderOptions, classes: int):
        super().__init__()
        self.classes = classes
        width = classes + 1 if classes else 1
        levels = len(options.channels)
        self.factor = 2 ** (levels - 1)
        self.latent_channels = options.latent_channels
        self.network = nets.AutoencoderKL(
            spatial_dims=3,
            in_channels=width,
            out_channels=width,
            channels=options.channels,
            num_res_blocks=options.num_res_blocks,
            latent_channels=options.latent_channels,
            norm_num_groups=options.norm_num_groups,
            attention_levels=[False] * (levels - 1) + [options.attention],
            with_encoder_nonlocal_attn=options.attention,
            with_decoder_nonlocal_attn=options.attention,
            use_checkpoint=options.checkpointing,
        )

    def expand(self, target: Tensor) -> Tensor:
        """(B, S, S, S) uint8 channels to (B, C, S, S, S) float one-hot; a field to (B, 1, ...)."""
        if not self.classes:
            return target[:, None].float()
        return F.one_hot(target.long(), self.classes + 1).movedim(-1, 1).float()

    def encode(self, target: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the latents, (B, L, S / factor, ...) fp32 each."""
        mu, sigma = self.network.encode(self.expand(target))
        return mu.float(), sigma.float()

    def decode(self, latents: Tensor) -> Tensor:
        """Latents to logits (B, C, S, S, S) fp32."""
        return self.network.decode(latents).float()

    def forward(self, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits, mean and standard deviation; the latents are drawn while training."""
        mu, sigma = self.encode(target)
        latents = mu + sigma * torch.randn_like(mu) if self.training else mu
        return self.decode(latents), mu, sigma

    @property
    def last_bias(self) -> nn.Parameter:
        """What is added to each logit at the very end, (C,)."""
        return list(self.network.get_submodule("decoder").parameters())[-1]

    def likelihood(self, logits: Tensor) -> Tensor:
        """Probabilities of the classes, or of being inside."""
        return logits.softmax(dim=1) if self.classes else logits.sigmoid()


def kl_mean(mu: Tensor, sigma: Tensor) -> Tensor:
    """KL divergence from a standard normal, fp32, the mean over all latents.

    A mean, not the usual sum: its weight does not change with the resolution.
    """
    mu, sigma = mu.float(), sigma.float()
    return 0.5 * (mu.square() + sigma.square() - 2 * sigma.clamp(min=1e-15).log() - 1).mean()


class ShapeLoss(nn.Module):
    """Cross-entropy and soft Dice of logits against channels, or against a field."""

    def __init__(self, options: AutoencoderOptions, classes: int):
        super().__init__()
        self.classes = classes
        self.weights = {"ce": options.weight_ce, "dice": options.weight_dice}
        if classes:
            self.both = DiceCELoss(
                include_background=False,
                to_onehot_y=True,
                softmax=True,
                lambda_dice=options.weight_dice,
                lambda_ce=options.weight_ce,
            )
        else:
            self.dice = DiceLoss(sigmoid=True)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        if self.classes:
            return self.both(logits, target[:, None])
        inside = target[:, None].float()
        ce = F.binary_cross_entropy_with_logits(logits, inside)
        return self.weights["ce"] * ce + self.weights["dice"] * self.dice(logits, inside)


class DeepFeatures(nn.Module):
    """Distance of deep features of a 3-D ResNet whose weights are a file (MedicalNet's layout).

    As LPIPS (Zhang et al., CVPR 2018): the feature maps after each stage of the network, the
    channels at every place scaled to unit length, their squared differences summed over the
    channels and averaged over the places; the mean over the stages. Maps, since the pooled vector
    at the network's end does not know where a structure lies. Looked at is the probability of
    being anything but background, with mean 0 and deviation 1 in each volume, as the images on
    which MedicalNet was trained. The network is frozen.

    Raises
    ------
    InputError
        The file does not hold the weights of this network.
    """

    def __init__(self, network: str, path: str | Path):
        super().__init__()
        build = getattr(nets, network)
        shortcut = "A" if network in ("resnet18", "resnet34") else "B"  # as MedicalNet's files
        self.network = build(
            spatial_dims=3,
            n_input_channels=1,
            feed_forward=False,
            shortcut_type=shortcut,
            bias_downsample=shortcut == "A",
        )
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
            weights = content.get("state_dict", content)
            self.network.load_state_dict(
                {name.removeprefix("module."): value for name, value in weights.items()}
            )
        except Exception as error:
            fact = f"does not hold the weights of {network} ({str(error).splitlines()[0]})"
            remedy = "name another file in autoencoder.perceptual_file, or set its weight to 0"
            raise InputError(problem(path, fact, remedy)) from error
        self.requires_grad_(False)
        self.train()

    def train(self, mode: bool = True) -> DeepFeatures:
        return super().train(False)

    def forward(self, made: Tensor, true: Tensor) -> Tensor:
        pairs = zip(self._maps(made), self._maps(true), strict=True)
        return torch.stack([(a - b).square().sum(dim=1).mean() for a, b in pairs]).mean()

    def _maps(self, volumes: Tensor) -> list[Tensor]:
        """(B, 1, S, S, S) to the feature maps of each stage, of unit length over the channels."""
        x = volumes.float()
        places = (1, 2, 3, 4)
        deviation = x.std(dim=places, keepdim=True).clamp(min=LEAST_DEVIATION)
        x = (x - x.mean(dim=places, keepdim=True)) / deviation
        network, found = self.network, []
        x = network.maxpool(network.act(network.bn1(network.conv1(x))))
        for stage in (network.layer1, network.layer2, network.layer3, network.layer4):
            x = stage(x)
            length = x.norm(dim=1, keepdim=True)
            # where hardly a channel answers there is no direction, only rounding
            least = LEAST_ANSWER * length.detach().mean(dim=places, keepdim=True)
            found.append(x / torch.maximum(length, least + TINY))
        return found


def channels_of(logits: Tensor) -> Tensor:
    """(B, C, S, S, S) logits to (B, S, S, S) uint8 channels; one logit is inside above 0."""
    if logits.shape[1] == 1:
        return (logits[:, 0] > 0).to(torch.uint8)
    return logits.argmax(dim=1).to(torch.uint8)


def inside_of(logits: Tensor) -> Tensor:
    """(B, classes, S, S, S) bool: where :func:`channels_of` gives each class."""
    if logits.shape[1] == 1:
        return logits > 0
    numbers = torch.arange(1, logits.shape[1], device=logits.device).view(1, -1, 1, 1, 1)
    return channels_of(logits)[:, None] == numbers
