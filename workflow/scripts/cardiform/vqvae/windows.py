"""Several CT windows in one network: which they are, what it is given of them, figures of each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..artefact.model import Model
from ..errors import InputError
from ..geometry.window_names import CtWindow, parse_windows
from ..sparse.tensor import SparseTensor, Structure
from .quantizer import usage_figures


@dataclass(frozen=True)
class WindowSet:
    """The CT windows that one network is trained on, in order; none: it knows of no windows.

    linked : each is encoded and decoded with what the others of its scan have at the same place.
    """

    windows: tuple[CtWindow, ...] = ()
    linked: bool = False

    @classmethod
    def parse(cls, texts: Iterable[str], linked: bool = False) -> WindowSet:
        """From ``name=level/width`` of each; all problems at once, as an InputError."""
        windows = tuple(parse_windows(texts).values())
        if linked and not windows:
            raise InputError("--linked links windows of a scan; name them with --windows")
        return cls(windows, linked)

    @classmethod
    def of_model(cls, stored: Model) -> WindowSet:
        """Those that a model.pt was trained on."""
        return cls.parse(stored.extra.get("windows", ()), stored.extra.get("linked", False))

    def __bool__(self) -> bool:
        return bool(self.windows)

    def __str__(self) -> str:
        listed = ", ".join(map(str, self.windows)) or "no windows together"
        return f"{listed} (linked)" if self.linked else listed

    @property
    def names(self) -> list[str]:
        return [window.name for window in self.windows]

    def stored(self) -> dict[str, Any]:
        """What model.pt holds of them in ``extra``, and the identity of a training."""
        linked = {"linked": True} if self.linked else {}
        return {"windows": [str(window) for window in self.windows], **linked} if self else {}


NO_WINDOWS = WindowSet()


@dataclass(frozen=True)
class SampleWindows:
    """Which window of which scan each of the S samples of a batch is.

    window : (S,) int64, its place in the :class:`WindowSet`.
    scan : (S,) int64, equal for the windows of one scan.
    """

    window: Tensor
    scan: Tensor

    @classmethod
    def of_batch(cls, batch: Mapping[str, Any]) -> SampleWindows | None:
        """None where the samples are of no windows."""
        return cls(batch["window"], batch["scan"]) if "window" in batch else None

    @classmethod
    def of_names(
        cls, windows: WindowSet, names: Sequence[str], device: torch.device
    ) -> SampleWindows | None:
        """Of the windows of one scan by name; None where the network knows of no windows."""
        if not windows:
            return None
        window = torch.tensor([windows.names.index(name) for name in names], device=device)
        return cls(window, torch.zeros_like(window))

    def of_rows(self, coords: Tensor) -> Tensor:
        """(N,) int64 the window of each of (N, 4) voxels, the sample first."""
        return self.window[coords[:, 0].long()]

    def rows_of_others(self, structure: Structure, windows: int) -> Tensor:
        """(N, windows) int64 rows of the same place in each other window of the scan; N where
        there is none, and for its own."""
        count, edge = len(structure), structure.resolution
        sample, x, y, z = structure.coords.long().unbind(1)
        keys = ((self.scan[sample] * edge + x) * edge + y) * edge + z
        place = keys.unique(return_inverse=True)[1]
        table = torch.full((count, windows), count, device=keys.device)
        own = self.window[sample]
        table[place, own] = torch.arange(count, device=keys.device)
        return table[place].scatter(1, own[:, None], count)


class SumOfOthers(torch.autograd.Function):
    """(N, C) sums of the rows of :meth:`SampleWindows.rows_of_others`.

    A row is among the others of its own others, so the gradient is the same sum.
    """

    @staticmethod
    def forward(ctx, feats: Tensor, rows: Tensor) -> Tensor:
        ctx.save_for_backward(rows)
        return _sum_of_rows(feats, rows)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        (rows,) = ctx.saved_tensors
        return _sum_of_rows(grad, rows), None


def _sum_of_rows(feats: Tensor, rows: Tensor) -> Tensor:
    return F.pad(feats, (0, 0, 0, 1))[rows].sum(dim=1)


class WindowCondition(nn.Module):
    """Gives the features of each latent its window, and the other windows of its scan.

    Added are a vector of the window and, where windows are linked, a linear map of the mean of the
    others at the same place. Both are zero at first, and no random number is drawn: a network
    starts as it does without.
    """

    def __init__(self, windows: WindowSet, width: int):
        super().__init__()
        self.embedding = nn.Parameter(torch.zeros(len(windows.windows), width))
        self.others = nn.Parameter(torch.zeros(width, width)) if windows.linked else None

    def forward(self, x: SparseTensor, samples: SampleWindows) -> SparseTensor:
        windows = len(self.embedding)
        # a product, not a look-up: its gradient needs no atomic addition
        chosen = F.one_hot(samples.of_rows(x.structure.coords), windows)
        feats = x.feats + chosen.to(x.feats.dtype) @ self.embedding
        if self.others is not None:
            rows = samples.rows_of_others(x.structure, windows)
            number = (rows < len(rows)).sum(dim=1, keepdim=True).clamp(min=1)
            feats = feats + SumOfOthers.apply(feats, rows) / number @ self.others
        return x.replace(feats)


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
