"""Several CT windows in one network: which they are, what it is given of them, figures of each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..artefact.model import Model
from ..geometry.window_names import CtWindow, parse_windows
from ..sparse.tensor import SparseTensor
from .quantizer import usage_figures


@dataclass(frozen=True)
class WindowSet:
    """The CT windows that one network is trained on, in order; none: it knows of no windows."""

    windows: tuple[CtWindow, ...] = ()

    @classmethod
    def parse(cls, texts: Iterable[str]) -> WindowSet:
        """From ``name=level/width`` of each; all problems at once, as an InputError."""
        return cls(tuple(parse_windows(texts).values()))

    @classmethod
    def of_model(cls, stored: Model) -> WindowSet:
        """Those that a model.pt was trained on."""
        return cls.parse(stored.extra.get("windows", ()))

    def __bool__(self) -> bool:
        return bool(self.windows)

    def __str__(self) -> str:
        return ", ".join(map(str, self.windows)) or "no windows together"

    @property
    def names(self) -> list[str]:
        return [window.name for window in self.windows]

    def stored(self) -> dict[str, Any]:
        """What model.pt holds of them in ``extra``, and the identity of a training."""
        return {"windows": [str(window) for window in self.windows]} if self else {}


NO_WINDOWS = WindowSet()


@dataclass(frozen=True)
class SampleWindows:
    """Which window each of the S samples of a batch is of.

    window : (S,) int64, its place in the :class:`WindowSet`.
    """

    window: Tensor

    @classmethod
    def of_batch(cls, batch: Mapping[str, Any]) -> SampleWindows | None:
        """None where the samples are of no windows."""
        return cls(batch["window"]) if "window" in batch else None

    @classmethod
    def of_names(
        cls, windows: WindowSet, names: Sequence[str], device: torch.device
    ) -> SampleWindows | None:
        """Of samples by the name of their window; None where the network knows of no windows."""
        if not windows:
            return None
        return cls(torch.tensor([windows.names.index(name) for name in names], device=device))

    def of_rows(self, coords: Tensor) -> Tensor:
        """(N,) int64 the window of each of (N, 4) voxels, the sample first."""
        return self.window[coords[:, 0].long()]


class WindowEmbedding(nn.Module):
    """Adds a vector of its window to the features of each latent; zero at first.

    No random number is drawn, so the rest of a network starts as it does without.
    """

    def __init__(self, windows: int, width: int):
        super().__init__()
        self.embedding = nn.Parameter(torch.zeros(windows, width))

    def forward(self, x: SparseTensor, samples: SampleWindows) -> SparseTensor:
        # a product, not a look-up: its gradient needs no atomic addition
        chosen = F.one_hot(samples.of_rows(x.structure.coords), len(self.embedding))
        return x.replace(x.feats + chosen.to(x.feats.dtype) @ self.embedding)


class WindowFigures:
    """Figures of each window over the samples of a split, ``l1_voxels_bone`` say."""

    def __init__(self, windows: WindowSet):
        self.names, self.sums = windows.names, dict[str, Tensor]()

    def add(self, window: Tensor, **values: Tensor) -> None:
        """Add (N,) values of voxels, of (N,) windows, to the sums of their names."""
        for name, found in values.items():
            self._add(name, window, found, 1)

    def add_codes(self, window: Tensor, indices: Tensor, size: int) -> None:
        """Count the (N,) codes of latents, of (N,) windows."""
        self._add("codes", window * size + indices, torch.ones_like(indices), size)

    def _add(self, name: str, place: Tensor, values: Tensor, size: int) -> None:
        places = len(self.names) * size
        sums = torch.bincount(place.cpu(), values.double().cpu(), minlength=places)
        self.sums[name] = self.sums.get(name, 0) + sums.view(-1, size)

    def figures(self) -> dict[str, float]:
        """Of the windows that occur: mean error in voxels, IoU of the inside, use of the codes."""
        found: dict[str, float] = {}
        sums = self.sums
        for row, name in enumerate(self.names):
            if "voxels" in sums and (voxels := float(sums["voxels"][row])):
                found[f"l1_voxels_{name}"] = float(sums["error"][row]) / voxels
                found[f"iou_{name}"] = float(sums["both"][row]) / max(float(sums["either"][row]), 1)
            if "codes" in sums and sums["codes"][row].any():
                used = usage_figures(sums["codes"][row])
                found |= {f"{figure}_{name}": value for figure, value in used.items()}
        return found
