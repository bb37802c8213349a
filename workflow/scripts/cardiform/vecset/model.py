"""VecSet: a set of latent vectors for a set of labelled surface points, and back to distances.

The presets small, base and xl follow 3DShape2VecSet (Zhang et al., SIGGRAPH 2023) in the
layout of VecSetX: one cross-attention from the latents to the points, a bottleneck, a
self-attention trunk, one cross-attention from the query points to the tokens. Cardiform's
own: one-hot labels as input channels, an embedding of their own for queries, one signed
distance per class. The presets demo, local and local_large keep the latents at known places and
attend to near ones only: see docs/vecset.md.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..artefact.model import Kind
from ..errors import InputError
from ..options.vecset import LATENTS, VecsetOptions
from .attention import AttentionBlock, CrossAttention, FeedForward, PointEmbedding
from .bottleneck import BOTTLENECKS
from .neighbours import NeighbourAttention, gather

VECSET = Kind("vecset", "a VecSet autoencoder", "train_vecset")


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Sizes of a network.

    dim, depth, heads : of the trunk.
    latents, latent_dim : number of latent vectors and channels of each.
    octaves : frequencies of the point embedding.
    code_eps : what the normalized bottleneck adds to the variance of a latent's channels.
    encode_neighbours, decode_neighbours : nearest points that a latent sees, nearest latents
        that a query sees. 0: all of them, the VecSetX layout. Otherwise the latents are
        anchored: the first three channels of each are its place.
    """

    dim: int
    depth: int
    heads: int
    latents: int
    latent_dim: int
    octaves: int = 8
    code_eps: float = 1e-5
    encode_neighbours: int = 0
    decode_neighbours: int = 0

    @property
    def anchored(self) -> bool:
        return self.decode_neighbours > 0


def _near(preset: str, **sizes: int) -> Shape:
    """Latents at places, which attend to what is near: the kind of the preset demo."""
    near = {"latent_dim": 32, "encode_neighbours": 24, "decode_neighbours": 8}
    return Shape(latents=LATENTS[preset], **near, **sizes)


PRESETS = {
    "demo": _near("demo", dim=64, depth=2, heads=4, octaves=4),
    "local": _near("local", dim=256, depth=6, heads=4),
    "local_large": _near("local_large", dim=512, depth=12, heads=8),
    "small": Shape(dim=256, depth=8, heads=4, latents=LATENTS["small"], latent_dim=16),
    "base": Shape(dim=512, depth=12, heads=8, latents=LATENTS["base"], latent_dim=16),
    "xl": Shape(dim=1024, depth=24, heads=16, latents=LATENTS["xl"], latent_dim=16),
    "vecsetx": Shape(  # of the weights that VecSetX has released
        dim=1024, depth=24, heads=16, latents=LATENTS["vecsetx"], latent_dim=32, code_eps=1e-6
    ),
}


class VecSet(nn.Module):
    """Autoencoder of labelled surfaces: points to latents, latents to class distances.

    shape : sizes, one of PRESETS.
    num_classes : C; distances and one-hot channels follow the label table.
    queries : "fps" (latents start at chosen input points) or "learned".
    bottleneck : "normalized", "kl" or "identity".
    outside : distance that the untrained network predicts everywhere, unit frame.
    normals : points have their outward normals as three more channels, the last.
    checkpointing : in training, compute the trunk's blocks once more in the backward pass, so that
        only what lies between them is kept.

    The sums that run through the blocks stay in the weights' precision under autocast, as in
    VecSetX: rounded to bf16 after each of many blocks, they would lose what a block adds.
    """

    def __init__(
        self,
        shape: Shape,
        num_classes: int,
        *,
        queries: str = "fps",
        bottleneck: str = "normalized",
        outside: float = 0.0,
        checkpointing: bool = False,
        normals: bool = False,
    ):
        super().__init__()
        self.shape, self.num_classes, self.checkpointing = shape, num_classes, checkpointing
        self.normals = normals
        if shape.anchored and queries != "fps":
            raise InputError(
                "vecset: this preset keeps its latents at surface points; "
                "set queries to fps, or preset to small, base or xl"
            )
        channels = num_classes + (3 if normals else 0)
        self.point_embedding = PointEmbedding(shape.dim, shape.octaves, channels)
        self.learned = nn.Embedding(shape.latents, shape.dim) if queries == "learned" else None
        self.encoder = _reader(shape, shape.encode_neighbours)
        self.encoder_norm = nn.LayerNorm(shape.dim)
        self.encoder_forward = FeedForward(shape.dim)
        self.bottleneck = BOTTLENECKS[bottleneck](shape.dim, shape.latent_dim, shape.code_eps)
        self.place = PointEmbedding(shape.dim, shape.octaves) if shape.anchored else None
        self.trunk = nn.ModuleList(
            AttentionBlock(shape.dim, shape.heads) for _ in range(shape.depth)
        )
        self.query_embedding = PointEmbedding(shape.dim, shape.octaves)
        self.decoder = _reader(shape, shape.decode_neighbours)
        if shape.anchored:
            self.decoder_norm = nn.LayerNorm(shape.dim)
            self.decoder_forward = FeedForward(shape.dim)
        self.head_norm = nn.LayerNorm(shape.dim)
        self.head = nn.Linear(shape.dim, num_classes)
        nn.init.zeros_(self.head.weight)
        nn.init.constant_(self.head.bias, outside)

    @property
    def starts(self) -> int:
        """How many latents start at input points: all, or none where they are learned."""
        return self.shape.latents if self.learned is None else 0

    @classmethod
    def from_options(cls, options: VecsetOptions, num_classes: int) -> VecSet:
        """The network that ``options`` describe, with fresh weights."""
        shape = PRESETS[options.preset]
        return cls(
            replace(
                shape,
                latents=options.latents or shape.latents,
                latent_dim=options.latent_dim or shape.latent_dim,
            ),
            num_classes,
            queries=options.queries,
            bottleneck=options.bottleneck,
            outside=options.truncation,
            checkpointing=options.checkpointing,
            normals=options.normals,
        )

    def encode(self, points: Tensor, fps: Tensor | None = None) -> Tensor:
        """Latents of labelled surface points, the posterior mean where there is a posterior.

        points : (B, N, 3 + C), unit frame xyz and one-hot labels, and the normals if it has them.
        fps : (B, M) int64, the points at which latents start; unused by learned queries.

        Returns (B, M, L), each sample from its own points alone: L is the width of the
        bottleneck, and 3 more (the place, first) where latents are anchored.
        """
        return self._encode(points, fps, sample=False)[0]

    def expand(self, latents: Tensor) -> Tensor:
        """Run the trunk once: (B, M, L) latents to the tokens that :meth:`query` reads."""
        if self.place is not None:
            anchors, codes = latents[..., :3], latents[..., 3:]
            x = self._precise(self.bottleneck.widen(codes)) + self.place(anchors)
            return torch.cat([anchors, self._trunk(x)], dim=-1)
        x = self._precise(self.bottleneck.widen(latents))
        return self._trunk(x if self.learned is None else x + self.learned.weight)

    def query(self, tokens: Tensor, queries: Tensor) -> Tensor:
        """Signed distances (B, Q, C), negative inside, at (B, Q, 3) unit-frame positions."""
        x = self._precise(self.query_embedding(queries))
        if self.shape.anchored:
            x = x + self.decoder(queries, tokens[..., :3], tokens[..., 3:])
            x = x + self.decoder_forward(self.decoder_norm(x))
        else:
            x = self.decoder(x, tokens)
        with torch.autocast(x.device.type, enabled=False):
            return self.head(self.head_norm(self._precise(x)))

    def forward(
        self, points: Tensor, fps: Tensor | None, queries: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Training pass: distances (B, Q, C), tokens (B, M, .), KL term (0-d)."""
        latents, penalty = self._encode(points, fps, sample=self.training)
        tokens = self.expand(latents)
        return self.query(tokens, queries), tokens, penalty

    def _encode(self, points: Tensor, fps: Tensor | None, sample: bool) -> tuple[Tensor, Tensor]:
        embedded = self.point_embedding(points)
        if self.learned is not None:
            x = self.learned.weight.expand(len(points), -1, -1)
            return self._narrow(x + self.encoder(x, embedded), sample)
        if fps is None:
            raise ValueError("farthest-point queries need fps, the indices of the start points")
        x = self._precise(gather(embedded, fps[..., None]).squeeze(2))
        if not self.shape.anchored:
            return self._narrow(x + self.encoder(x, embedded), sample)
        anchors = gather(points[..., :3], fps[..., None]).squeeze(2)
        x = x + self.encoder(anchors, points[..., :3], embedded)
        codes, penalty = self._narrow(x, sample)
        return torch.cat([anchors, codes], dim=-1), penalty

    def _narrow(self, x: Tensor, sample: bool) -> tuple[Tensor, Tensor]:
        x = x + self.encoder_forward(self.encoder_norm(x))
        return self.bottleneck.narrow(x, sample)

    def _trunk(self, x: Tensor) -> Tensor:
        for block in self.trunk:
            if self.checkpointing and self.training:
                x = checkpoint(block, x, use_reentrant=False)
            else:
                x = block(x)
        return x

    def _precise(self, x: Tensor) -> Tensor:
        return x.to(self.head.weight.dtype)


def _reader(shape: Shape, neighbours: int) -> nn.Module:
    if neighbours:
        return NeighbourAttention(shape.dim, shape.dim, shape.heads, neighbours)
    return CrossAttention(shape.dim, shape.heads)
