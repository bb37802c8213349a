"""What a latent may carry: nothing less, a Gaussian posterior, or unit-variance codes."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Bottleneck(nn.Module):
    """What all of them do. width : channels of a code.

    Made of the widths of the trunk and of a code, and what is added to a variance.
    """

    width: int

    def narrow(self, x: Tensor, sample: bool) -> tuple[Tensor, Tensor]:
        """(B, M, dim) to codes (B, M, width) and a penalty, 0-d; ``sample``: from a posterior."""
        raise NotImplementedError

    def widen(self, codes: Tensor) -> Tensor:
        """The inverse of :meth:`narrow`."""
        raise NotImplementedError


class IdentityBottleneck(Bottleneck):
    """Latents as wide as the trunk."""

    def __init__(self, dim: int, latent_dim: int, eps: float):
        super().__init__()
        self.width = dim

    def narrow(self, x: Tensor, sample: bool) -> tuple[Tensor, Tensor]:
        return x, x.new_zeros(())

    def widen(self, codes: Tensor) -> Tensor:
        return codes


class KLBottleneck(Bottleneck):
    """Diagonal Gaussian posterior (Kingma and Welling 2014); the mean where not sampled."""

    def __init__(self, dim: int, latent_dim: int, eps: float):
        super().__init__()
        self.width = latent_dim
        self.mean = nn.Linear(dim, latent_dim)
        self.log_variance = nn.Linear(dim, latent_dim)
        self.out = nn.Linear(latent_dim, dim)

    def narrow(self, x: Tensor, sample: bool) -> tuple[Tensor, Tensor]:
        mean = self.mean(x).float()
        log_variance = self.log_variance(x).float().clamp(-30.0, 20.0)
        penalty = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
        if not sample:
            return mean, penalty
        return mean + torch.randn_like(mean) * (0.5 * log_variance).exp(), penalty

    def widen(self, codes: Tensor) -> Tensor:
        return self.out(codes)


class NormalizedBottleneck(Bottleneck):
    """Codes of zero mean and unit variance per latent (LaGeM, Zhang and Wonka 2024)."""

    def __init__(self, dim: int, latent_dim: int, eps: float):
        super().__init__()
        self.width, self.eps = latent_dim, eps
        self.codes = nn.Linear(dim, latent_dim)
        self.gain = nn.Parameter(torch.ones(latent_dim))
        self.shift = nn.Parameter(torch.zeros(latent_dim))
        self.out = nn.Linear(latent_dim, dim)

    def narrow(self, x: Tensor, sample: bool) -> tuple[Tensor, Tensor]:
        return F.layer_norm(self.codes(x).float(), (self.width,), eps=self.eps), x.new_zeros(())

    def widen(self, codes: Tensor) -> Tensor:
        return self.out(codes * self.gain + self.shift)


BOTTLENECKS: Mapping[str, Callable[[int, int, float], Bottleneck]] = {
    "identity": IdentityBottleneck,
    "kl": KLBottleneck,
    "normalized": NormalizedBottleneck,
}
